-- The context of a run: where it stands, how it came there, what it was given and what came of it.

create or replace function pgflow._execution_path(p_project text, p_run_id uuid, p_kind text)
returns text[]
language plpgsql
stable
as $$
begin
    if p_kind = 'flow' then
        -- What was taken over from another run was ready before, or has no such time.
        return array(
            select s.step from pgflow.flow_step s
            where s.project_id = p_project and s.run_id = p_run_id and s.child_run_id is not null
            order by s.ready_at nulls first, s.started_event_no, s.ended_at, s.step, s.element);
    end if;
    return array(
        select e.key
        from (
            select j.key, j.event_no, null::integer as round from pgflow.journal j
            where j.project_id = p_project and j.run_id = p_run_id and j.kind = 'step'
            union all
            select v.key, v.event_no, v.round from pgflow.journal_voided v
            where v.project_id = p_project and v.run_id = p_run_id and v.kind = 'step'
              and not v.replaced
        ) e
        order by e.event_no, e.round);
end
$$;
comment on function pgflow._execution_path is
    'The steps that a run has begun, in that order, one that was begun again as often as it was.';

create or replace function pgflow._progress(p_project text, p_run pgflow.run, p_path text[])
returns jsonb
language plpgsql
stable
as $$
declare
    v_most constant integer := 1000;
    v_many integer := cardinality(p_path);
    -- A paused flow goes on from the steps that have ended since, so it stands at those as well.
    v_current text[] := case when p_run.kind = 'flow' then array(
            select s.step from pgflow.flow_step s
            where s.project_id = p_project and s.run_id = p_run.run_id and s.voided_at is null
              and (s.state = 'running' or s.super_step is null and s.state <> 'pending')
            order by s.started_event_no, s.step, s.element)
        else coalesce(p_run.waits_for, '{}') end;
begin
    return jsonb_build_object(
        'current_steps', v_current[:v_most],
        'paused_at', case when p_run.state = 'paused' then v_current[1] end,
        'paused_since', case when p_run.state = 'paused' then (
            select max(e.at) from pgflow.event e
            where e.project_id = p_project and e.run_id = p_run.run_id and e.type = 'run.paused')
            end,
        'execution_path', p_path[greatest(v_many - v_most, 0) + 1:],
        'step_visit_counts', (
            select coalesce(jsonb_object_agg(c.step, c.visits), '{}')
            from (
                select u.step, count(*) as visits from unnest(p_path) as u (step)
                group by u.step order by visits desc, u.step limit v_most
            ) c),
        'left_out', greatest(v_many - v_most, 0));
end
$$;
comment on function pgflow._progress is
    'Where a run stands and how it came there. Of a finished run p_run is a row of nulls.';

create or replace function pgflow._context(p_project text, p_run_id uuid)
returns jsonb
language plpgsql
stable
set timezone = 'UTC'
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_run record;
    v_live pgflow.run;
begin
    select r.run_id, r.kind, r.handler, r.flow_version, r.queue, r.correlation_id, r.input, r.state,
        r.first_started_at, r.finished_at, r.output, r.error_code, r.error_detail
    into v_run
    from pgflow.runs r
    where r.project_id = p_project and r.run_id = p_run_id;
    if not found then
        perform pgflow._refuse_gone(p_project, p_run_id, 'be looked at');
    end if;
    select r.* into v_live from pgflow.run r
    where r.project_id = p_project and r.run_id = p_run_id;
    return jsonb_build_object(
        'run_id', p_run_id, 'correlation_id', v_run.correlation_id, 'queue', v_run.queue,
        'flow', case when v_run.kind = 'flow' then v_run.handler end,
        'handler', case when v_run.kind <> 'flow' then v_run.handler end,
        'version', v_run.flow_version, 'input', v_run.input, 'status', v_run.state,
        'started_at', v_run.first_started_at,
        'updated_at', (select max(t.at) from pgflow.timeline t
                       where t.project_id = p_project and t.run_id = p_run_id),
        'finished_at', v_run.finished_at,
        'progress', pgflow._progress(p_project, v_live,
            pgflow._execution_path(p_project, p_run_id, v_run.kind)),
        'memory', case when v_run.kind = 'flow' then pgflow._values(p_project, p_run_id,
            v_run.handler, v_run.flow_version, 2147483647) end,
        'result', case when v_run.finished_at is not null then jsonb_build_object(
            'output', v_run.output, 'error_code', v_run.error_code,
            'error', v_run.error_detail) end);
end
$$;
comment on function pgflow._context is 'The context of a run, live or finished; see context.';

create or replace function pgflow.context(run_id uuid, project text default null)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_project text := pgflow._enter_project(context.project);
begin
    return pgflow._context(v_project, context.run_id);
end
$$;
comment on function pgflow.context is
    'Where a run, live or finished, stands: its input, status, times, progress (current_steps, '
    'paused_at, paused_since, execution_path, step_visit_counts), memory (the state values of a '
    'flow) and, once it has ended, its result (output, error_code, error). The path has a step '
    'once for each time that it was begun, the last 1000 of them; left_out says how many were '
    'before. Times are in UTC. Example: select '
    'pgflow.context(''...'') #> ''{progress,current_steps}''. Raises PF102, PF502.';
