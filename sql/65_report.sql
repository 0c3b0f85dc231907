-- The report of a run: what it did, who decided what, what it cost, what is left open. Nothing of
-- it is stored. A finished run and what it left behind never change, so what is read later is what
-- was true at the end; to write it with the end would cost each flow more than its steps do.
--
-- A flow's timeline says report.written just before its end. That line, as the end itself, is read
-- from the run's row (view timeline), which counts it in last_event_no.

create or replace function pgflow._publish_reports(p_project text, p_run_ids uuid[])
returns void
language plpgsql
as $$
declare
    v_run_ids uuid[];
    v_event_nos integer[];
begin
    select array_agg(f.run_id), array_agg(f.last_event_no - 1) into v_run_ids, v_event_nos
    from unnest(p_run_ids) as u (run_id)
    cross join lateral (
        select f.run_id, f.last_event_no from pgflow.run_finished f
        where f.project_id = p_project and f.run_id = u.run_id and f.kind = 'flow'
        limit 1
    ) f;
    if v_run_ids is not null then
        perform pgflow._publish(p_project, v_run_ids, v_event_nos);
    end if;
end
$$;
comment on function pgflow._publish_reports is
    'Notes the report.written of the flows among runs that ended, as _publish does their ends.';

create or replace function pgflow._left_out(p_lines jsonb[], p_most integer)
returns integer
language sql
immutable
as $$
    select nullif(greatest(cardinality(p_lines) - p_most, 0), 0)
$$;
comment on function pgflow._left_out is
    'How many lines of a list are over what a report has of it; null: none.';

create or replace function pgflow._report_events(p_project text, p_run_id uuid, p_many integer)
returns jsonb
language plpgsql
stable
as $$
begin
    return (
        select jsonb_agg(jsonb_build_object('event_no', e.event_no, 'type', e.type, 'at', e.at,
            'by', e.by, 'step', e.step, 'payload',
            case when octet_length(e.payload::text) > 4000
                 then jsonb_build_object('left_out_bytes', octet_length(e.payload::text))
                 else e.payload end) order by e.event_no)
        from (
            select t.event_no, t.type, t.at, t.by, t.step, t.payload from pgflow.timeline t
            where t.project_id = p_project and t.run_id = p_run_id
            order by t.event_no desc
            limit p_many
        ) e);
end
$$;
comment on function pgflow._report_events is
    'The last lines of a run''s timeline, the oldest first; payloads over 4000 bytes only told of.';

create or replace function pgflow._report(p_project text, p_run_id uuid)
returns jsonb
language plpgsql
stable
set timezone = 'UTC'
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_most constant integer := 1000;
    v_run record;
    v_family uuid[] := array(select pgflow._family_ever(p_project, p_run_id));
    v_steps jsonb[];
    v_artifacts jsonb[];
    v_invalid jsonb[];
    v_decisions jsonb[] := pgflow._report_decisions(p_project, v_family);
    v_tasks jsonb[] := pgflow._report_tasks(p_project, v_family);
    v_waits jsonb[] := pgflow._report_waits(p_project, v_family);
    v_open_steps jsonb[] := pgflow._report_open_steps(p_project, p_run_id);
begin
    select r.*, encode(v.sha256, 'hex') as hash into v_run
    from pgflow.runs r
    left join pgflow.flow_version v on r.kind = 'flow' and v.project_id = r.project_id
        and v.flow = r.handler and v.version = r.flow_version
    where r.project_id = p_project and r.run_id = p_run_id;
    if not found then
        perform pgflow._refuse_gone(p_project, p_run_id, 'be reported on');
    end if;
    v_steps := pgflow._report_steps(p_project, p_run_id, v_run.kind);
    v_artifacts := pgflow._report_artifacts(p_project, p_run_id);
    v_invalid := pgflow._report_invalid(v_artifacts);
    return jsonb_build_object(
        'run_id', p_run_id, 'kind', v_run.kind,
        'flow', case when v_run.kind = 'flow' then v_run.handler end,
        'handler', case when v_run.kind <> 'flow' then v_run.handler end,
        'version', v_run.flow_version, 'hash', v_run.hash, 'queue', v_run.queue,
        'correlation_id', v_run.correlation_id, 'tags', v_run.tags,
        'status', v_run.state, 'pause_reason', v_run.pause_reason,
        'error_code', v_run.error_code, 'error', v_run.error_detail,
        'created_by', v_run.created_by, 'ended_by', v_run.ended_by,
        'created_at', v_run.created_at, 'started_at', v_run.first_started_at,
        'ended_at', v_run.finished_at,
        'input_sha256', v_run.input_sha256, 'output_sha256', v_run.output_sha256,
        'steps', v_steps[:v_most], 'artifacts', v_artifacts[:v_most],
        'decisions', v_decisions[:v_most],
        'bindings', pgflow._report_bindings(p_project, v_run.bindings),
        'usage', pgflow._report_usage(p_project, p_run_id, v_family),
        'tool_calls', pgflow._report_tool_calls(p_project, v_family),
        'events', pgflow._report_events(p_project, p_run_id, 20),
        'unresolved', jsonb_build_object('tasks', v_tasks[:v_most], 'waits', v_waits[:v_most],
            'artifacts', v_invalid[:v_most], 'steps', v_open_steps[:v_most]),
        'left_out', jsonb_strip_nulls(jsonb_build_object(
            'steps', pgflow._left_out(v_steps, v_most),
            'artifacts', pgflow._left_out(v_artifacts, v_most),
            'decisions', pgflow._left_out(v_decisions, v_most),
            'unresolved.tasks', pgflow._left_out(v_tasks, v_most),
            'unresolved.waits', pgflow._left_out(v_waits, v_most),
            'unresolved.artifacts', pgflow._left_out(v_invalid, v_most),
            'unresolved.steps', pgflow._left_out(v_open_steps, v_most))));
end
$$;
comment on function pgflow._report is 'The report of a run, live or finished; see report.';

create or replace function pgflow.report(run_id uuid, project text default null)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_project text := pgflow._enter_project(report.project);
begin
    return pgflow._report(v_project, report.run_id);
end
$$;
comment on function pgflow.report is
    'What a run, of a handler or a flow, live or finished, did and cost: its status and error, '
    'steps, artifacts, decisions, usage with a line per model, the last 20 events, what is '
    'unresolved. Decisions, usage and tool calls are those of its children too. Lists have at most '
    '1000 lines; left_out says how many more there are. Times are in UTC. Of a finished run it is '
    'always the same; docs/reports.md tells what each member means. Example: select '
    'pgflow.report(''...'') -> ''usage''. Raises PF102, PF502.';
