-- Goto: whoever resumes a paused flow may say with which step it goes on. Forward, the steps that
-- are passed over are skipped; backward, that step and all after it are done again, as when a gate
-- sends the flow back. What is beside goes on.

create or replace function pgflow._answer_first_stop(p_flow pgflow.run, p_now timestamptz)
returns text
language plpgsql
as $$
declare
    v_task pgflow.task;
begin
    update pgflow.task t
    set state = 'answered', decided_at = p_now, decided_by = pgflow._actor(),
        decided_login = session_user
    where t.project_id = p_flow.project_id and t.run_id = p_flow.run_id and t.state = 'open'
      and t.key = (select min(o.key) from pgflow.task o
                   where o.project_id = p_flow.project_id and o.run_id = p_flow.run_id
                     and o.state = 'open' and o.kind = 'breakpoint')
    returning t.* into v_task;
    if found then
        perform pgflow._append_event(p_flow, 'task.resolved', p_now, jsonb_build_object(
            'task_id', v_task.task_id, 'key', v_task.key, 'action', v_task.state,
            'by', v_task.decided_by));
    end if;
    return v_task.key;
end
$$;
comment on function pgflow._answer_first_stop is
    'Passes the breakpoint that a flow is paused by; returns its key, null if there is none.';

create or replace function pgflow._steps_passed_over(
    p_flow pgflow.run, p_step text, p_stop text
)
returns text[]
language plpgsql
stable
as $$
declare
    v_after text[] := pgflow._steps_around(p_flow, p_step, false);
begin
    return array(
        select d.step
        from pgflow._steps_of_flow(p_flow) as d
        left join pgflow.flow_step s on s.project_id = d.project_id and s.run_id = p_flow.run_id
            and s.step = d.step and s.element = 0 and s.voided_at is null
        where d.step <> all (v_after)
          and coalesce(s.state, 'pending') in ('pending', 'running')
          and (d.step = any (pgflow._steps_around(p_flow, p_step, true))
               or p_stop = 'breakpoint/before/' || d.step)
        order by d.place);
end
$$;
comment on function pgflow._steps_passed_over is
    'The open steps that a flow passes over on its way to a step: those before it, and the one '
    'before which it stands.';

create or replace function pgflow._skip_steps(
    p_flow pgflow.run, p_now timestamptz, p_steps text[], p_reason text
)
returns void
language plpgsql
as $$
declare
    v_many integer := cardinality(p_steps);
begin
    perform pgflow._end_step_runs(p_flow, p_steps, p_reason);
    insert into pgflow.flow_step as s (project_id, run_id, step, version, state, super_step,
        ended_event_no, ended_at, error_detail)
    select p_flow.project_id, p_flow.run_id, u.step, p_flow.round, 'skipped', p_flow.super_step,
        p_flow.last_event_no + u.nth, p_now, p_reason
    from unnest(p_steps) with ordinality as u (step, nth)
    on conflict (project_id, run_id, step, element) where voided_at is null do update
    set state = excluded.state, super_step = excluded.super_step,
        ended_event_no = excluded.ended_event_no, ended_at = excluded.ended_at,
        error_detail = excluded.error_detail;
    update pgflow.run r set last_event_no = r.last_event_no + v_many
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id;
    if p_flow.watched then
        perform pgflow._hint_watchers(p_flow.project_id, array[p_flow.run_id]);
    end if;
    if pgflow._is_followed(p_flow.project_id) then
        perform pgflow._publish(p_flow.project_id, array_fill(p_flow.run_id, array[v_many]),
            array(select generate_series(p_flow.last_event_no + 1,
                p_flow.last_event_no + v_many)));
    end if;
end
$$;
comment on function pgflow._skip_steps is
    'Has open steps of a flow be skipped, and ends their runs. The caller holds the flow and its '
    'steps.';

-- To its join rule it looks as if it had all that it needs.
create or replace function pgflow._make_ready(p_flow pgflow.run, p_step text)
returns void
language plpgsql
as $$
begin
    insert into pgflow.flow_step as s (project_id, run_id, step, version, state, needs_settled,
        needs_completed, needs_failed)
    select p_flow.project_id, p_flow.run_id, d.step, p_flow.round, 'pending', cardinality(d.needs),
        cardinality(d.needs), (d.join_rule = 'one_failed')::integer
    from pgflow._steps_of_flow(p_flow) as d
    where d.step = p_step
    on conflict (project_id, run_id, step, element) where voided_at is null do update
    set needs_settled = excluded.needs_settled, needs_completed = excluded.needs_completed,
        needs_failed = excluded.needs_failed;
end
$$;
comment on function pgflow._make_ready is
    'Has a step of a flow that did not begin be ready, whatever became of those that it needs.';

create or replace function pgflow._go_to(p_flow pgflow.run, p_now timestamptz, p_step text)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run;
    v_stop text;
    v_is_back boolean := exists (
        select from pgflow.flow_step s
        where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id and s.step = p_step
          and s.element = 0 and s.voided_at is null and s.state <> 'pending');
    v_steps text[];
    v_reason text := format('the flow was sent to step %s', p_step);
begin
    perform pgflow._check_step(p_flow, p_step, 'command.goto');
    v_stop := pgflow._answer_first_stop(p_flow, p_now);
    v_steps := case when v_is_back then pgflow._steps_to_do_again(p_flow, p_step, false)
                    else pgflow._steps_passed_over(p_flow, p_step, v_stop) end;
    update pgflow.run r
    set round = r.round + v_is_back::integer, last_event_no = r.last_event_no + 1
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id
    returning r.* into v_flow;
    perform pgflow._event(v_flow, v_flow.last_event_no, 'step.goto', p_now, jsonb_build_object(
        'to', p_step, 'round', v_flow.round,
        case when v_is_back then 'voided' else 'skipped' end, v_steps), false, p_step);
    if v_is_back then
        perform pgflow._void_steps(v_flow, p_now, v_steps, v_reason);
        perform pgflow._take_back_writes(v_flow, 'goto:' || p_step);
    else
        if v_steps <> '{}' then
            perform pgflow._forget_stops(v_flow, p_now, v_steps, v_reason);
            perform pgflow._skip_steps(pgflow._locked(v_flow.project_id, v_flow.run_id), p_now,
                v_steps, v_reason);
        end if;
        perform pgflow._save_moment(v_flow.project_id, v_flow.run_id, 'goto:' || p_step);
    end if;
    perform pgflow._make_ready(v_flow, p_step);
    perform pgflow._advance(v_flow.project_id, array[v_flow.run_id], array[null::text], p_step);
    if not v_is_back and v_steps <> '{}' then
        perform pgflow._advance(v_flow.project_id,
            array_fill(v_flow.run_id, array[cardinality(v_steps)]), v_steps);
    end if;
    perform pgflow._resume_flow(pgflow._locked(v_flow.project_id, v_flow.run_id), p_now);
    v_flow := pgflow._locked(v_flow.project_id, v_flow.run_id);
    if v_flow.state = 'paused' then  -- at the next breakpoint
        perform pgflow._pause_steps(v_flow, false);
    end if;
end
$$;
comment on function pgflow._go_to is
    'Has a paused flow go on with a step. The caller holds its family. Raises PF105.';
