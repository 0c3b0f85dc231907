-- When children end, one firing takes note of all of them at once, and has their flows go on.

-- The caller holds the flows. What ended while its flow was paused is stored, and counted when the
-- flow is resumed.
create or replace function pgflow._fire(p_project text, p_child_ids uuid[])
returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_flow_ids uuid[];
    v_have_elements boolean;
    v_fanned uuid[] := '{}';
    v_fans_completed boolean;
    v_run_ids uuid[];
    v_steps text[];
    v_all_completed boolean;
    v_stateful uuid[];
    v_layered uuid[];
    v_told uuid[];
    v_event_nos integer[];
    v_watched uuid[];
    v_stops boolean;
begin
    select array_agg(distinct c.parent_run_id), bool_or(c.parent_key like '%#%')
    into v_flow_ids, v_have_elements
    from unnest(p_child_ids) as u (run_id)
    cross join lateral (
        select c.parent_run_id, c.parent_key from pgflow.run_finished c
        where c.project_id = p_project and c.run_id = u.run_id and c.step is not null
        limit 1
    ) c;
    if v_have_elements then
        select e.flow_ids, e.all_completed into v_fanned, v_fans_completed
        from pgflow._settle_elements(p_project, p_child_ids) as e;
    end if;
    with ended as materialized (
        select s.run_id, s.step, s.element, s.version, s.ready_at, c.run_id as child_run_id,
            d.layered, pgflow._step_state(c.state, c.error_code) as state,
            c.error_code, c.error_detail, c.output, c.attempt, c.finished_at, r.last_event_no,
            r.ctid as place_of_flow,
            case when r.state <> 'paused' and not d.layered and r.run_id <> all (v_fanned)
                      and not bool_or(b.stops) over (partition by s.run_id)
                 then r.super_step + 1 end as super_step,
            b.stops,
            row_number() over (partition by s.run_id order by d.place, s.element) as nth
        from unnest(p_child_ids) as u (run_id)
        cross join lateral (
            select c.* from pgflow.run_finished c
            where c.project_id = p_project and c.run_id = u.run_id
            limit 1
        ) c
        cross join lateral (
            select r.*, r.ctid from pgflow.run r
            where r.project_id = p_project and r.run_id = c.parent_run_id
            limit 1
        ) r
        cross join lateral (
            select s.* from pgflow.flow_step s
            where s.project_id = p_project and s.run_id = r.run_id and s.step = c.step
              and s.element = 0 and s.voided_at is null and s.child_run_id = c.run_id
              and s.state = 'running'
            limit 1
        ) s
        cross join lateral (
            select d.place, d.layered
            from pgflow._defined_steps(p_project, r.run_id, r.handler, r.flow_version,
                r.has_own_steps) as d
            where d.step = c.step
            limit 1
        ) d
        cross join lateral (
            select case when r.breakpoints is null or c.state <> 'completed' then false
                        else pgflow._stops_at(p_project, r.run_id, r.breakpoints, 'after', c.step)
                   end
        ) b (stops)
    ),
    settled as (
        insert into pgflow.flow_step as s (project_id, run_id, step, element, version, state,
            output, error_code, error_detail, attempts, ended_at, super_step, ended_event_no,
            child_run_id)
        select p_project, e.run_id, e.step, e.element, e.version, e.state, e.output, e.error_code,
            e.error_detail, e.attempt + (e.state = 'completed')::integer, e.finished_at,
            e.super_step, e.last_event_no + e.nth, e.child_run_id
        from ended e
        on conflict (project_id, run_id, step, element) where voided_at is null do update
        set state = excluded.state, output = excluded.output, error_code = excluded.error_code,
            error_detail = excluded.error_detail, attempts = excluded.attempts,
            ended_at = excluded.ended_at, super_step = excluded.super_step,
            ended_event_no = excluded.ended_event_no
    ),
    told as (
        update pgflow.run r
        set last_event_no = r.last_event_no + n.settled
                + (r.checkpoint_no is not null and n.super_step is not null)::integer,
            step_count = r.step_count + n.completed,
            super_step = coalesce(n.super_step, r.super_step),
            checkpoint_no = r.checkpoint_no + (n.super_step is not null)::integer
        from (
            select e.place_of_flow, e.super_step, count(*) as settled,
                count(*) filter (where e.state = 'completed') as completed
            from ended e group by e.place_of_flow, e.super_step
        ) n
        where r.ctid = n.place_of_flow
        returning r.run_id, r.watched,
            r.checkpoint_no is not null and n.super_step is not null as is_stateful
    )
    select array_agg(e.run_id) filter (where e.super_step is not null),
        array_agg(e.step) filter (where e.super_step is not null),
        bool_and(e.state = 'completed'), array_agg(e.run_id),
        array_agg((e.last_event_no + e.nth)::integer),
        (select array_agg(t.run_id) from told t where t.watched),
        (select array_agg(t.run_id) from told t where t.is_stateful),
        array_agg(distinct e.run_id) filter (where e.layered), bool_or(e.stops)
    into v_run_ids, v_steps, v_all_completed, v_told, v_event_nos, v_watched, v_stateful, v_layered,
        v_stops
    from ended e;
    if v_watched is not null then
        perform pgflow._hint_watchers(p_project, v_watched);
    end if;
    if pgflow._is_followed(p_project) then
        perform pgflow._publish(p_project, v_told, v_event_nos);
    end if;
    if cardinality(v_fanned) > 0 then
        v_layered := v_layered || v_fanned;
        v_all_completed := v_all_completed is not false and v_fans_completed;
    end if;
    if v_layered is not null then
        perform pgflow._end_in_layers(p_project, v_layered, v_all_completed);
    end if;
    if v_stateful is not null then
        perform pgflow._save_checkpoints(p_project, v_stateful, v_run_ids, v_steps);
    end if;
    if v_run_ids is not null then
        perform pgflow._go_on_after(p_project, v_flow_ids, v_run_ids, v_steps, v_all_completed);
    elsif v_stops then
        perform pgflow._stop_flows(p_project, v_flow_ids);
    elsif v_have_elements then
        perform pgflow._look_at_flows(p_project, v_flow_ids);
    end if;
end
$$;
comment on function pgflow._fire is
    'Takes note of ended children in the steps of their flows, and has those go on.';

create or replace function pgflow._go_on_after(
    p_project text, p_flow_ids uuid[], p_run_ids uuid[], p_steps text[], p_all_completed boolean
)
returns void
language plpgsql
as $$
begin
    if not p_all_completed then
        perform pgflow._end_broken(p_project, p_run_ids, p_steps);
    end if;
    perform pgflow._advance(p_project, p_run_ids, p_steps);
    perform pgflow._look_at_flows(p_project, p_flow_ids);
end
$$;
comment on function pgflow._go_on_after is
    'Has flows go on after steps that have ended. The caller holds the flows.';

-- A step that did not complete ends its flow as it ended itself, unless the definition says that
-- the flow goes on.
create or replace function pgflow._end_broken(p_project text, p_run_ids uuid[], p_steps text[])
returns void
language plpgsql
as $$
declare
    v_broken record;
begin
    for v_broken in
        select distinct on (r.run_id) r.run_id, s.step, coalesce(c.state, 'failed') as state,
            s.error_code, s.error_detail, c.ended_by
        from unnest(p_run_ids, p_steps) as u (run_id, step)
        cross join lateral (
            select s as flow_step, s.* from pgflow.flow_step s
            where s.project_id = p_project and s.run_id = u.run_id and s.step = u.step
              and s.element = 0 and s.voided_at is null and s.state not in ('completed', 'skipped')
            limit 1
        ) s
        cross join lateral (
            select r.run_id, r as flow from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
            limit 1
        ) r
        cross join lateral (
            select from pgflow._steps_of_flow(r.flow) as d
            where d.step = u.step and d.on_failure = 'fail'
            limit 1
        ) d
        left join lateral (
            select c.state, c.ended_by from pgflow.run_finished c
            where c.project_id = p_project
              and c.run_id = coalesce(s.child_run_id, pgflow._first_broken(s.flow_step))
            limit 1
        ) c on true
        order by r.run_id, s.ended_event_no
    loop
        perform pgflow._end_from_outside(pgflow._locked(p_project, v_broken.run_id), v_broken.state,
            v_broken.error_code, format('step %s: %s', v_broken.step,
                coalesce(v_broken.error_detail, v_broken.state)), v_broken.ended_by);
    end loop;
end
$$;
comment on function pgflow._end_broken is
    'Ends the flows of steps that did not complete and whose on_failure is fail.';
