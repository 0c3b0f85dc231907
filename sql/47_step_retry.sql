-- A step that did not complete is done again while its flow goes on. It is as if it had not ended
-- yet: what came of its end counts no more.

create or replace function pgflow._retry_step(p_old pgflow.run_finished)
returns uuid
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_flow pgflow.run;
    v_row pgflow.flow_step;
    v_steps text[];
begin
    perform pgflow._lock_family(p_old.project_id, array[p_old.parent_run_id]);
    select r.* into v_flow from pgflow.run r
    where r.project_id = p_old.project_id and r.run_id = p_old.parent_run_id;
    select s.* into v_row from pgflow.flow_step s
    where s.project_id = p_old.project_id and s.run_id = v_flow.run_id and s.step = p_old.step
      and s.child_run_id = p_old.run_id and s.state <> 'completed';
    if not found then
        return null;
    elsif v_row.voided_at is null then
        update pgflow.run r set round = r.round + 1, last_event_no = r.last_event_no + 1
        where r.project_id = v_flow.project_id and r.run_id = v_flow.run_id
        returning r.* into v_flow;
        v_steps := pgflow._steps_to_do_again(v_flow, p_old.step, true);
        perform pgflow._event(v_flow, v_flow.last_event_no, 'step.rolled_back', v_now,
            jsonb_build_object('to', p_old.step, 'round', v_flow.round, 'voided', v_steps,
                'reason', 'retried', 'run_id', p_old.run_id), false, p_old.step);
        perform pgflow._void_steps(v_flow, v_now, v_steps,
            format('step %s is done again', p_old.step), p_old.step);
        update pgflow.flow_step s
        set voided_at = null, voided_super_step = null, version = v_flow.round
        where s.project_id = v_flow.project_id and s.run_id = v_flow.run_id
          and s.step = p_old.step and s.element > 0 and s.version = v_row.version
          and s.state = 'completed';
        update pgflow.channel_write w set version = v_flow.round
        where w.project_id = v_flow.project_id and w.run_id = v_flow.run_id
          and w.step = p_old.step and w.element > 0 and w.version = v_row.version
          and exists (
              select from pgflow.flow_step s
              where s.project_id = w.project_id and s.run_id = w.run_id and s.step = w.step
                and s.element = w.element and s.version = v_flow.round and s.voided_at is null);
        perform pgflow._take_back_writes(v_flow, 'rollback:' || p_old.step);
        perform pgflow._advance(v_flow.project_id, array[v_flow.run_id], array[null::text],
            p_old.step);
        if v_flow.state = 'paused' then
            perform pgflow._pause_steps(v_flow, v_flow.deadlines_held_at is not null);
        end if;
        perform pgflow._look_at_flows(v_flow.project_id, array[v_flow.run_id]);
    end if;
    return (
        select s.child_run_id from pgflow.flow_step s
        where s.project_id = p_old.project_id and s.run_id = p_old.parent_run_id
          and s.step = p_old.step and s.element = v_row.element and s.version > v_row.version
        order by s.version
        limit 1);
end
$$;
comment on function pgflow._retry_step is
    'Has a flow that lives do a step again that did not complete, with all that needs it; returns '
    'the step''s new run, again the same; null if there is no such flow, or the step completed. Of '
    'a step that is done for each element, those that completed are kept.';
