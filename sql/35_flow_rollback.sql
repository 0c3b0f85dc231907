-- Going back in a flow: a person who rejects a gate names a step before it. That step and all after
-- it count no more, and are done again under the next version; what came before goes on serving.

create or replace function pgflow._lock_flow_of(p_task pgflow.task)
returns void
language plpgsql
as $$
declare
    v_flow_id uuid;
begin
    select r.parent_run_id into v_flow_id from pgflow.run r
    where r.project_id = p_task.project_id and r.run_id = p_task.run_id and r.kind = 'step_wait';
    if found then
        perform pgflow._lock_family(p_task.project_id, array[v_flow_id]);
    end if;
end
$$;
comment on function pgflow._lock_flow_of is
    'Locks the flow, with all of its steps, of the gate that asked; nothing for other tasks.';

create or replace function pgflow._steps_around(
    p_flow pgflow.run, p_step text, p_before boolean
)
returns text[]
language sql
stable
as $$
    with recursive around as (
        select p_step collate "C" as step
        union
        select n.step
        from around a
        join pgflow._steps_of_flow(p_flow) as d on d.step = a.step
        cross join lateral unnest(case when p_before then d.needs else d.dependants end) as n (step)
    )
    select array_agg(a.step order by a.step) from around a
$$;
comment on function pgflow._steps_around is
    'A step of a flow with all that it needs, or all that need it, and so on.';

-- What a step added counts as long as the step does. Of one that is retried the elements that
-- completed are kept, and so is what they added.
create or replace function pgflow._steps_to_do_again(
    p_flow pgflow.run, p_step text, p_is_retried boolean
)
returns text[]
language plpgsql
stable
as $$
begin
    return (
        with recursive after as (
            select p_step collate "C" as step
            union
            select n.step
            from after a
            cross join lateral (
                select unnest(d.dependants) as step from pgflow._steps_of_flow(p_flow) as d
                where d.step = a.step
                union all
                select o.step from pgflow.run_step o
                where p_flow.has_own_steps and o.project_id = p_flow.project_id
                  and o.run_id = p_flow.run_id and o.added_in = a.step and o.withdrawn_at is null
                  and not (p_is_retried and a.step = p_step and pgflow._is_kept(o.project_id,
                      o.run_id, o.added_in, o.added_element, null))
            ) n
        )
        select array_agg(a.step order by a.step) from after a);
end
$$;
comment on function pgflow._steps_to_do_again is
    'A step of a flow with all that counts no more when it is done again, or retried: those that '
    'it added, and those that need any of these.';

create or replace function pgflow._check_ancestor(p_gate pgflow.run, p_step text)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run;
    v_before text[];
begin
    select r.* into v_flow from pgflow.run r
    where r.project_id = p_gate.project_id and r.run_id = p_gate.parent_run_id;
    v_before := array_remove(pgflow._steps_around(v_flow, p_gate.step, true), p_gate.step);
    if not coalesce(p_step = any (v_before), false) then
        perform pgflow._refuse('PF105', format('step %s does not come before %s', left(p_step, 200),
            p_gate.step),
            format('these do: %s', coalesce(nullif(array_to_string(v_before, ', '), ''), 'none')),
            'View pgflow.flow_steps has the steps with what each needs.', 'rollback_to');
    end if;
end
$$;
comment on function pgflow._check_ancestor is
    'Raises PF105 for a step that does not come before a gate of its flow.';

create or replace function pgflow._end_step_runs(
    p_flow pgflow.run, p_steps text[], p_reason text
)
returns void
language plpgsql
as $$
declare
    v_child pgflow.run;
begin
    for v_child in
        select r.* from pgflow._children(p_flow.project_id, array[p_flow.run_id]) as r
        where r.step = any (p_steps)
    loop
        update pgflow.run r set parent_key = null
        where r.project_id = v_child.project_id and r.run_id = v_child.run_id;
        perform pgflow._end_from_outside(v_child, 'cancelled', 'E-RUN-011', p_reason);
    end loop;
end
$$;
comment on function pgflow._end_step_runs is
    'Ends the live runs of steps that count no more; the flow isn''t told. The caller holds them.';

-- Steps may need others that have ended before: those are counted for them here, once; of the rest
-- they will hear when that ends.
create or replace function pgflow._begin_to_count(p_flow pgflow.run, p_steps text[])
returns void
language plpgsql
as $$
begin
    insert into pgflow.flow_step (project_id, run_id, step, version, state, needs_settled,
        needs_completed, needs_failed)
    select p_flow.project_id, p_flow.run_id, d.step, p_flow.round, 'pending', count(s.step),
        count(*) filter (where s.state = 'completed'),
        count(*) filter (where s.state not in ('completed', 'skipped'))
    from pgflow._steps_of_flow(p_flow) as d
    left join lateral unnest(d.needs) as n (step) on true
    left join pgflow.flow_step s on s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
        and s.step = n.step and s.element = 0 and s.voided_at is null
        and s.state not in ('pending', 'running')
        and s.super_step is not null  -- else it is counted when the flow goes on
    where d.step = any (p_steps)
    group by d.step;
end
$$;
comment on function pgflow._begin_to_count is
    'Makes the rows of steps of a flow that have none, with those of their needs that have ended. '
    'The caller holds the flow.';

create or replace function pgflow._void_steps(
    p_flow pgflow.run, p_now timestamptz, p_steps text[], p_reason text,
    p_retried text default null
)
returns void
language plpgsql
as $$
declare
    v_begun text[] := array(
        select s.step from pgflow.flow_step s
        where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
          and s.step = any (p_steps) and s.element = 0 and s.voided_at is null
          and s.state <> 'pending'
        order by s.step);
    v_last_event_no integer;
begin
    perform pgflow._forget_stops(p_flow, p_now, p_steps, p_reason);
    if p_flow.has_own_steps then
        perform pgflow._withdraw_steps(p_flow, p_now, p_steps, p_retried);
    end if;
    update pgflow.run r set last_event_no = r.last_event_no + cardinality(v_begun)
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id
    returning r.last_event_no into v_last_event_no;
    update pgflow.flow_step s
    set voided_at = p_now, voided_super_step = p_flow.super_step,
        voided_event_no = case s.element when 0 then v_last_event_no - cardinality(v_begun)
            + array_position(v_begun, s.step) end,
        state = case when s.state in ('pending', 'running') then 'cancelled' else s.state end
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
      and s.step = any (p_steps) and s.voided_at is null;
    if pgflow._is_followed(p_flow.project_id) then
        perform pgflow._publish(p_flow.project_id,
            array_fill(p_flow.run_id, array[cardinality(v_begun)]),
            array(select v_last_event_no - cardinality(v_begun) + generate_subscripts(v_begun, 1)));
    end if;
    if p_flow.watched then
        perform pgflow._hint_watchers(p_flow.project_id, array[p_flow.run_id]);
    end if;
    perform pgflow._end_step_runs(p_flow, p_steps, p_reason);
    perform pgflow._begin_to_count(p_flow, p_steps);
end
$$;
comment on function pgflow._void_steps is
    'Has steps count no more, ends their runs, and begins to count anew for them. The caller holds '
    'the flow and its steps.';

create or replace function pgflow._roll_back_flow(
    p_gate pgflow.run, p_now timestamptz, p_task pgflow.task, p_step text
)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run;
    v_steps text[];
    v_feedback jsonb := jsonb_build_object('comment', p_task.comment, 'by', p_task.decided_by,
        'at', p_now, 'key', p_task.key, 'task_id', p_task.task_id);
begin
    update pgflow.flow_step s
    set state = 'rejected', error_code = 'E-RUN-006', error_detail = p_task.comment,
        ended_at = p_now
    where s.project_id = p_gate.project_id and s.run_id = p_gate.parent_run_id
      and s.step = p_gate.step and s.element = 0 and s.voided_at is null;
    update pgflow.run r
    set round = r.round + 1, last_event_no = r.last_event_no + 1,
        feedback = v_feedback || jsonb_build_object('round', r.round + 1)
    where r.project_id = p_gate.project_id and r.run_id = p_gate.parent_run_id
    returning r.* into v_flow;
    v_steps := pgflow._steps_to_do_again(v_flow, p_step, false);
    perform pgflow._event(v_flow, v_flow.last_event_no, 'step.rolled_back', p_now,
        jsonb_build_object('to', p_step, 'round', v_flow.round, 'voided', v_steps,
            'reason', p_task.comment), false, p_step);
    perform pgflow._void_steps(v_flow, p_now, v_steps,
        format('%s was rejected: back to step %s', p_gate.step, p_step));
    perform pgflow._take_back_writes(v_flow, 'rollback:' || p_step);
    perform pgflow._advance(v_flow.project_id, array[v_flow.run_id], array[null::text], p_step);
    if v_flow.state = 'paused' then
        perform pgflow._pause_steps(v_flow, v_flow.deadlines_held_at is not null);
    end if;
    perform pgflow._look_at_flows(v_flow.project_id, array[v_flow.run_id]);
end
$$;
comment on function pgflow._roll_back_flow is
    'Has a flow do a step again with all after it, because a gate was rejected. The caller holds '
    'the flow and its steps.';
