-- Steps that no worker executes: a person decides, an event comes, a time passes. Their run waits
-- from the first moment, with all that a run has that waits; when that has come, it is at its end.

create or replace function pgflow._make_waits(
    p_project text, p_ids uuid[], p_flow_ids uuid[], p_steps text[], p_now timestamptz
)
returns void
language plpgsql
as $$
declare
    v_new record;
begin
    for v_new in
        select m.run_id, m.flow_id, m.step
        from unnest(p_ids, p_flow_ids, p_steps) with ordinality as m (run_id, flow_id, step, nth)
        order by m.nth
    loop
        perform pgflow._make_wait(f, d, v_new.run_id, p_now)
        from pgflow.run f
        join lateral pgflow._steps_of_flow(f) as d on d.step = v_new.step
            and d.type not in ('handler', 'flow', 'pass')
        where f.project_id = p_project and f.run_id = v_new.flow_id;
    end loop;
end
$$;
comment on function pgflow._make_waits is
    'Makes the runs of steps that are ready and have no handler, under ids that their rows have.';

create or replace function pgflow._make_wait(
    p_flow pgflow.run, p_step pgflow.step_definition, p_run_id uuid, p_now timestamptz
)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_input jsonb := pgflow._step_input(p_flow.project_id, p_flow, p_step.needs);
    v_wait jsonb := p_step.config;
begin
    if p_step.gate_of is not null then
        v_wait := v_wait || jsonb_build_object('payload', pgflow._gate_payload(p_flow, p_step));
    elsif v_wait ->> 'kind' in ('approval', 'form') and pg_column_size(v_input) <= 1048576 then
        v_wait := v_wait || jsonb_build_object('payload', v_input);
    end if;
    insert into pgflow.run (project_id, run_id, parent_run_id, root_run_id, parent_key, step, depth,
        kind, handler, queue, state, priority, max_attempts, lease_no, round, deadline, created_at,
        created_by, correlation_id, tags, waits_for, first_started_at, input)
    values (p_flow.project_id, p_run_id, p_flow.run_id,
        coalesce(p_flow.root_run_id, p_flow.run_id), p_step.step, p_step.step, p_flow.depth + 1,
        'step_wait', p_step.handler, p_flow.queue,
        case when v_wait ->> 'kind' in ('approval', 'form') then 'waiting_approval'
             else 'waiting_event' end,
        p_flow.priority, 1, null, p_flow.round, p_flow.deadline, p_now, p_flow.created_by,
        coalesce(p_flow.correlation_id, p_flow.run_id::text), p_flow.tags, array[p_step.step],
        p_now, v_input)
    returning * into v_run;
    if pgflow._is_followed(v_run.project_id) then
        perform pgflow._publish(v_run.project_id, array[v_run.run_id], array[1]);
    end if;
    v_run := pgflow._open_wait(v_run, p_now, v_wait, null);
    update pgflow.run r
    set waits = v_run.waits, has_tasks = v_run.has_tasks, last_event_no = v_run.last_event_no,
        wake_at = pgflow._first_due(v_run.waits, v_run.waits_for)
    where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
    if v_wait ->> 'kind' = 'event' then
        perform pgflow._pass_signals(p_flow, p_now);
    end if;
end
$$;
comment on function pgflow._make_wait is
    'Makes the run of a step that no worker executes, and opens what it waits for. The caller '
    'holds the flow.';

-- A signal is sent to the flow: whoever sends it needs not know of steps. The oldest of a name goes
-- to the first step that waits for that name, and stays in the flow's mailbox until one does.
create or replace function pgflow._pass_signals(p_flow pgflow.run, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_child pgflow.run;
    v_signal pgflow.signal;
begin
    for v_child in
        select r.* from pgflow._children(p_flow.project_id, array[p_flow.run_id]) as r
        where r.kind = 'step_wait' and r.waits @> '[{"kind": "event"}]'
    loop
        update pgflow.signal s set taken_as = v_child.step
        where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
          and s.signal_no = (
              select min(o.signal_no) from pgflow.signal o
              where o.project_id = p_flow.project_id and o.run_id = p_flow.run_id
                and o.name = v_child.waits #>> '{0,name}' and o.taken_as is null)
        returning s.* into v_signal;
        continue when not found;
        perform pgflow._signal(v_child, p_now, v_signal.name, v_signal.payload, null);
    end loop;
end
$$;
comment on function pgflow._pass_signals is
    'Gives the signals in a flow''s mailbox to the steps that wait for them. The caller holds the '
    'flow and its steps.';

-- waiting_* -> completed with what came, or failed where it did not come in time.
create or replace function pgflow._end_wait(p_run pgflow.run, p_key text)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_entry pgflow.journal;
begin
    select j.* into v_entry from pgflow.journal j
    where j.project_id = p_run.project_id and j.run_id = p_run.run_id
      and j.key = any (p_run.waits_for);
    if v_entry.kind = 'timeout' then
        v_run.state := 'failed';
        perform pgflow._end_from_outside(p_run, 'failed', 'E-RUN-003',
            format('%s did not come within %s s', p_key,
                trim_scale((v_entry.value ->> 'after')::numeric)));
    else
        v_run.state := 'completed';
        perform pgflow._end(p_run.project_id, array[p_run.run_id], null, 'completed',
            array[coalesce(v_entry.value, 'null')::text]);
    end if;
    return v_run;
end
$$;
comment on function pgflow._end_wait is
    'Ends the run of a step whose wait is over; returns it with the state that it has now. The '
    'caller holds its family.';
