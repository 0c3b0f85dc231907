-- The lists of a report. Each is whole and in its order; the report says how much of it there is
-- room for. What several runs have is looked up run by run, in lateral joins that no planner turns
-- around.

create or replace function pgflow._report_steps(p_project text, p_run_id uuid, p_kind text)
returns jsonb[]
language plpgsql
stable
as $$
begin
    if p_kind = 'flow' then
        return array(
            select jsonb_build_object('key', s.step, 'element', s.element, 'version', s.version,
                'type', s.type, 'state', s.state, 'attempts', s.attempts,
                'visits', s.visits,
                'started_at', s.started_at, 'ended_at', s.ended_at, 'error_code', s.error_code,
                'error', left(s.error_detail, 1000), 'run_id', s.run_id, 'needs', s.needs,
                'join', s."join")
            from pgflow.flow_steps s
            where s.project_id = p_project and s.flow_run_id = p_run_id
            order by s.seq, s.version, s.element);
    end if;
    return array(
        select jsonb_build_object('key', e.key, 'version', e.round, 'type', 'step',
            'state', case when e.round is null then 'completed' else 'voided' end,
            'attempts', e.attempt + 1, 'visits', count(*) over (partition by e.key),
            'started_at', null, 'ended_at', e.at)
        from (
            select j.key, null::integer as round, j.attempt, j.at, j.event_no
            from pgflow.journal j
            where j.project_id = p_project and j.run_id = p_run_id and j.kind = 'step'
            union all
            select v.key, v.round, v.attempt, v.at, v.event_no
            from pgflow.journal_voided v
            where v.project_id = p_project and v.run_id = p_run_id and v.kind = 'step'
              and not v.replaced
        ) e
        order by e.event_no, e.round);
end
$$;
comment on function pgflow._report_steps is
    'The steps of a run, those that were voided too: of a flow in the order of its definition, of '
    'a handler in that of its journal.';

create or replace function pgflow._report_artifacts(p_project text, p_run_id uuid)
returns jsonb[]
language plpgsql
stable
as $$
begin
    return array(
        select jsonb_build_object('run_id', a.run_id, 'step', r.step, 'element', r.element,
            'version', r.version, 'artifact_no', a.artifact_no, 'kind', a.kind, 'name', a.name,
            'schema', a.schema, 'schema_version', a.schema_version, 'size', a.size,
            'sha256', a.sha256, 'valid', a.valid)
        from (
            select 0 as place, null::text as step, null::integer as element,
                null::integer as version, p_run_id as run_id
            union all
            select s.seq, s.step, s.element, s.version, s.run_id from pgflow.flow_steps s
            where s.project_id = p_project and s.flow_run_id = p_run_id and s.run_id is not null
        ) r
        cross join lateral (
            select a.* from pgflow.artifacts a
            where a.project_id = p_project and a.run_id = r.run_id
            offset 0
        ) a
        order by r.place, r.version, r.element, a.artifact_no);
end
$$;
comment on function pgflow._report_artifacts is
    'What a run was given, what it left behind and what came of it; of a flow the same for each of '
    'its steps.';

create or replace function pgflow._report_invalid(p_artifacts jsonb[])
returns jsonb[]
language sql
immutable
as $$
    select array(
        select i.line
        from unnest(p_artifacts) with ordinality as i (line, nth)
        where i.line -> 'valid' = 'false' and not exists (
            select from unnest(p_artifacts) as v (line)
            where v.line -> 'valid' = 'true' and v.line -> 'run_id' = i.line -> 'run_id'
              and v.line -> 'name' = i.line -> 'name')
        order by i.nth)
$$;
comment on function pgflow._report_invalid is
    'Those of a report''s artifacts that are invalid, and that their run has not made good.';

create or replace function pgflow._report_decisions(p_project text, p_run_ids uuid[])
returns jsonb[]
language plpgsql
stable
as $$
begin
    return array(
        select jsonb_build_object('task_id', t.task_id, 'run_id', t.run_id, 'step', t.key,
            'round', t.round, 'kind', t.kind, 'title', t.title, 'action', t.state,
            'by', t.decided_by, 'login', t.decided_login,
            'at', coalesce(t.decided_at, t.due_at), 'comment', t.comment,
            'policy', case when t.state = 'expired' then t.policy end,
            'payload_sha256', encode(t.payload_sha256, 'hex'), 'voided_at', t.voided_at,
            'votes', case when t.quorum > 1 then (
                select jsonb_agg(jsonb_build_object('by', v.voter, 'login', v.login,
                    'action', v.action, 'comment', v.comment, 'at', v.at) order by v.at, v.voter)
                from pgflow.vote v
                where v.project_id = p_project and v.task_id = t.task_id) end)
        from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select t.* from pgflow.task t
            where t.project_id = p_project and t.run_id = u.run_id
              and t.state not in ('open', 'cancelled')
            offset 0
        ) t
        order by coalesce(t.decided_at, t.due_at), t.task_id);
end
$$;
comment on function pgflow._report_decisions is
    'What people decided for some runs, and what their policies did, in the order of time.';

create or replace function pgflow._report_tasks(p_project text, p_run_ids uuid[])
returns jsonb[]
language plpgsql
stable
as $$
begin
    return array(
        select jsonb_build_object('task_id', t.task_id, 'run_id', t.run_id, 'step', t.key,
            'kind', t.kind, 'title', t.title, 'assignee', t.assignee,
            'assignee_role', t.assignee_role, 'created_at', t.created_at, 'due_at', t.due_at)
        from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select t.* from pgflow.task t
            where t.project_id = p_project and t.run_id = u.run_id and t.state = 'open'
            offset 0
        ) t
        order by t.created_at, t.task_id);
end
$$;
comment on function pgflow._report_tasks is 'The open tasks of some runs, the oldest first.';

create or replace function pgflow._report_waits(p_project text, p_run_ids uuid[])
returns jsonb[]
language plpgsql
stable
as $$
begin
    return array(
        select jsonb_build_object('run_id', r.run_id, 'step', r.step, 'key', w.wait -> 'key',
            'kind', w.wait -> 'kind', 'name', coalesce(w.wait -> 'tool', w.wait -> 'name'),
            'asked_at', w.wait -> 'asked_at', 'due_at', w.wait -> 'due_at')
        from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select r.run_id, r.step, r.waits, r.waits_for from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
            limit 1
        ) r
        cross join lateral jsonb_array_elements(r.waits) with ordinality as w (wait, nth)
        where w.wait ->> 'key' = any (r.waits_for)
        order by r.run_id, w.nth);
end
$$;
comment on function pgflow._report_waits is
    'What some runs wait for beside people: tools, events, times, children.';

create or replace function pgflow._report_open_steps(p_project text, p_run_id uuid)
returns jsonb[]
language plpgsql
stable
as $$
begin
    return array(
        select jsonb_build_object('key', s.step, 'element', s.element, 'state', s.state)
        from pgflow.flow_steps s
        where s.project_id = p_project and s.flow_run_id = p_run_id and s.voided_at is null
          and s.state in ('pending', 'running', 'waiting', 'cancelled')
        order by s.seq, s.element);
end
$$;
comment on function pgflow._report_open_steps is
    'The steps of a flow that have not come to an end, or were cancelled before they had.';

-- The ledger is that of single calls; what a run has cost may be more, for executions tell their
-- costs without calls as well. A flow itself is nobody's execution.
create or replace function pgflow._report_usage(
    p_project text, p_run_id uuid, p_run_ids uuid[]
)
returns jsonb
language plpgsql
stable
as $$
declare
    v_cost numeric;
begin
    select sum(c.cost_usd) into v_cost
    from unnest(p_run_ids) as u (run_id)
    cross join lateral (
        select r.cost_usd from pgflow.run r
        where r.project_id = p_project and r.run_id = u.run_id and r.kind <> 'flow'
        union all
        select f.cost_usd from pgflow.run_finished f
        where f.project_id = p_project and f.run_id = u.run_id and f.kind <> 'flow'
        offset 0
    ) c;
    return (
        select jsonb_build_object('cost_usd', v_cost,
            'calls', coalesce(sum(m.calls), 0),
            'failed_calls', coalesce(sum(m.failed_calls), 0),
            'unpriced_calls', coalesce(sum(m.unpriced_calls), 0),
            'input_tokens', coalesce(sum(m.input_tokens), 0),
            'output_tokens', coalesce(sum(m.output_tokens), 0),
            'cached_tokens', coalesce(sum(m.cached_tokens), 0),
            'reasoning_tokens', coalesce(sum(m.reasoning_tokens), 0),
            'latency_ms', coalesce(sum(m.latency_ms), 0),
            'models', coalesce(jsonb_agg(to_jsonb(m) order by m.cost_usd desc, m.model), '[]'))
        from pgflow.usage_by_model(p_run_id, p_project) as m);
end
$$;
comment on function pgflow._report_usage is
    'What a run and its family have used: the sums of their calls of models, those of each model, '
    'and what they cost.';

create or replace function pgflow._report_tool_calls(p_project text, p_run_ids uuid[])
returns bigint
language plpgsql
stable
as $$
begin
    return (
        select count(*)
        from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select from pgflow.event e
            where e.project_id = p_project and e.run_id = u.run_id and e.type = 'tool.requested'
            offset 0
        ) e);
end
$$;
comment on function pgflow._report_tool_calls is 'How often some runs have called tools.';
