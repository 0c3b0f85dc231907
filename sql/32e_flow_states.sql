-- What becomes of a flow as its steps go on: its state, its end, its output.

create or replace function pgflow._flow_output(p_flow pgflow.run)
returns jsonb
language plpgsql
stable
as $$
declare
    v_output jsonb := (
        select v.definition -> 'output' from pgflow.flow_version v
        where v.project_id = p_flow.project_id and v.flow = p_flow.handler
          and v.version = p_flow.flow_version);
begin
    if v_output is null and p_flow.checkpoint_no is not null then
        return pgflow._values_now(p_flow);
    end if;
    return coalesce((
        select jsonb_object_agg(o.name, pgflow._step_output(s))
        from (
            select m.key as name, d.step, d.last_gate
            from jsonb_each_text(v_output) as m
            join lateral pgflow._steps_of_flow(p_flow) as d on d.step = m.value
            union all
            select coalesce(d.gate_of, d.step), coalesce(d.gate_of, d.step),
                case when d.gate_of is not null then d.step end
            from pgflow._steps_of_flow(p_flow) as d
            where v_output is null and d.dependants = '{}'
        ) o
        join pgflow.flow_step s on s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
            and s.step = o.step and s.element = 0 and s.voided_at is null
            and s.state = 'completed'
        where o.last_gate is null or exists (
            select from pgflow.flow_step g
            where g.project_id = p_flow.project_id and g.run_id = p_flow.run_id
              and g.step = o.last_gate and g.element = 0 and g.voided_at is null
              and g.state = 'completed')), '{}');
end
$$;
comment on function pgflow._flow_output is
    'What a flow has to show for itself: the outputs that its definition names, else its state '
    'values, else the outputs of the steps that no other needs.';

-- What a flow is follows from what its steps are. In this order: it has ended; a step can run;
-- some wait; it is stuck.
create or replace function pgflow._look_at_flows(p_project text, p_flow_ids uuid[])
returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_ended uuid[];
    v_others uuid[];
    v_flow_id uuid;
    v_flow pgflow.run;
begin
    if exists (
        select from unnest(p_flow_ids) as u (run_id)
        cross join lateral (
            select from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id and r.breakpoints is not null
            limit 1
        ) f
    ) then
        perform pgflow._stop_flows(p_project, p_flow_ids);
    end if;
    select array_agg(f.run_id) filter (where not f.is_unsettled),
        array_agg(f.run_id order by f.run_id)
            filter (where f.is_unsettled and not (f.can_run and f.state = 'running'))
    into v_ended, v_others
    from (
        select r.run_id, r.state,
            exists (select from pgflow.flow_step s
                    where s.project_id = p_project and s.run_id = r.run_id
                      and s.state in ('pending', 'running') and s.voided_at is null
                      and s.element = 0)
                as is_unsettled,
            exists (select from pgflow.run c
                    where c.project_id = p_project and c.parent_run_id = r.run_id
                      and num_nonnulls(c.waits_for, c.pause_reason) = 0) as can_run
        from unnest(p_flow_ids) as u (run_id)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
            limit 1
        ) r
        where r.kind = 'flow' and r.state <> 'paused'
    ) f;
    if v_ended is not null then
        perform pgflow._end(p_project, v_ended, null, 'completed', array(
            select pgflow._flow_output(f.flow)::text
            from unnest(v_ended) with ordinality as u (run_id, nth)
            cross join lateral (
                select r as flow from pgflow.run r
                where r.project_id = p_project and r.run_id = u.run_id
                limit 1
            ) f
            order by u.nth));
    end if;
    foreach v_flow_id in array coalesce(v_others, '{}') loop
        -- As it is now: the end or the move of one may have moved another, that is around it.
        select r.* into v_flow from pgflow.run r
        where r.project_id = p_project and r.run_id = v_flow_id;
        if found then
            perform pgflow._move_flow(v_flow);
        end if;
    end loop;
end
$$;
comment on function pgflow._look_at_flows is
    'Gives flows the state that follows from their steps. The caller holds them.';

create or replace function pgflow._move_flow(p_flow pgflow.run)
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_states text[] := array(
        select distinct c.state from pgflow.run c
        where c.project_id = p_flow.project_id and c.parent_run_id = p_flow.run_id);
    v_waits_for text[];
    v_state text := case
        when v_states && '{pending,running,scheduled}' then 'running'
        when 'waiting_approval' = any (v_states) then 'waiting_approval'
        when 'waiting_tool' = any (v_states) then 'waiting_tool'
        when cardinality(v_states) > 0 then 'waiting_event' end;
begin
    if v_state is null then
        perform pgflow._end_from_outside(p_flow, 'failed', 'E-RUN-010', pgflow._stuck(p_flow));
        return;
    elsif v_state = p_flow.state then
        return;
    elsif v_state <> 'running' then
        v_waits_for := array(
            select c.parent_key
            from pgflow._children(p_flow.project_id, array[p_flow.run_id]) as c
            limit 100);
    end if;
    update pgflow.run r
    set state = v_state, waits_for = v_waits_for, last_event_no = r.last_event_no + 1
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id;
    perform pgflow._event(p_flow, p_flow.last_event_no + 1,
        case v_state when 'running' then 'run.woken' else 'run.waiting' end, v_now,
        jsonb_strip_nulls(jsonb_build_object('waits_for', v_waits_for)));
    perform pgflow._look_at_flow_of(p_flow);
end
$$;
comment on function pgflow._move_flow is
    'running <-> waiting_* for a flow, as its children''s states say; failed with E-RUN-010 if it '
    'has none and steps are left. The caller holds it.';

create or replace function pgflow._stuck(p_flow pgflow.run)
returns text
language plpgsql
stable
as $$
begin
    return 'no step can run and none waits: ' || (
        select string_agg(format('%s is %s and misses %s', d.step, s.state, (
            select coalesce(string_agg(n.step, ', ' order by n.step), 'nothing')
            from unnest(d.needs) as n (step)
            left join pgflow.flow_step o on o.project_id = s.project_id and o.run_id = s.run_id
                and o.step = n.step and o.element = 0 and o.voided_at is null
            where o.state is distinct from 'completed')), '; ' order by d.place)
        from pgflow.flow_step s
        join pgflow._steps_of_flow(p_flow) as d on d.step = s.step
        where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
          and s.state in ('pending', 'running') and s.voided_at is null and s.element = 0);
end
$$;
comment on function pgflow._stuck is
    'Why a flow cannot go on: each step that is left, with what it misses.';

create or replace function pgflow._look_at_flow_of(p_run pgflow.run)
returns void
language plpgsql
as $$
begin
    if p_run.step is not null then
        perform pgflow._look_at_flows(p_run.project_id, array[p_run.parent_run_id]);
    end if;
end
$$;
comment on function pgflow._look_at_flow_of is
    'Gives the flow of a step''s run, if it is one, the state that follows from its steps.';
