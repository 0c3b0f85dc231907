-- Conditions, and layers: when a step that its join rule lets run does run.

create or replace function pgflow._is_wanted(
    p_project text, p_run_id uuid, p_step text, p_condition jsonpath
)
returns boolean
language plpgsql
stable
as $$
declare
    v_flow pgflow.run;
    v_needs text[];
begin
    select r.* into v_flow from pgflow.run r
    where r.project_id = p_project and r.run_id = p_run_id;
    v_needs := (
        select d.needs from pgflow._steps_of_flow(v_flow) as d where d.step = p_step);
    return coalesce(jsonb_path_match(coalesce(pgflow._values_now(v_flow), '{}'), p_condition,
        jsonb_build_object('input', v_flow.input,
            'inputs', pgflow._step_input(p_project, v_flow, v_needs)), true), false);
end
$$;
comment on function pgflow._is_wanted is
    'Whether a step''s condition is true of the state values, of $input, the flow''s, and $inputs, '
    'its own.';

create or replace function pgflow._join_reason(
    p_project text, p_run_id uuid, p_rule text, p_needs text[]
)
returns text
language plpgsql
stable
as $$
begin
    return format('join %s: %s', p_rule, (
        select string_agg(format('%s is %s', n.step, s.state), ', ' order by n.nth)
        from unnest(p_needs) with ordinality as n (step, nth)
        join pgflow.flow_step s on s.project_id = p_project and s.run_id = p_run_id
            and s.step = n.step and s.element = 0 and s.voided_at is null
            and s.state not in ('pending', 'running')
        where p_rule in ('any', 'one_failed') or s.state <> 'completed'
            and (p_rule = 'all' or s.state <> 'skipped')));
end
$$;
comment on function pgflow._join_reason is
    'Why its join rule skips a step: what became of the steps that it needs.';

create or replace function pgflow._has_layers(p_flow pgflow.run)
returns boolean
language plpgsql
stable
as $$
begin
    return (
        select d.layered from pgflow.step_definition d
        where d.project_id = p_flow.project_id and d.flow = p_flow.handler
          and d.version = p_flow.flow_version
        limit 1);
end
$$;
comment on function pgflow._has_layers is
    'Whether steps of a flow begin only once all that began before have ended.';

-- A registered reducer that fails here fails the flow: the steps whose writes it refuses have ended
-- before, with another step or while the flow was paused.
create or replace function pgflow._settle(p_flow pgflow.run)
returns void
language plpgsql
as $$
declare
    v_steps text[];
    v_fanned text[];
    v_run_ids uuid[];
    v_all_completed boolean;
begin
    if not (pgflow._has_layers(p_flow) and exists (
        select from pgflow.run c
        where c.project_id = p_flow.project_id and c.parent_run_id = p_flow.run_id)
    ) then
        with settled as (
            update pgflow.flow_step s set super_step = p_flow.super_step + 1
            where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
              and s.super_step is null and s.voided_at is null and s.element = 0
              and s.state not in ('pending', 'running')
            returning s.step, s.state, s.elements
        )
        select array_agg(s.step), bool_and(s.state = 'completed'),
            array_agg(s.step) filter (where s.elements > 0)
        into v_steps, v_all_completed, v_fanned
        from settled s;
        if v_fanned is not null then
            update pgflow.flow_step s set super_step = p_flow.super_step + 1
            where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
              and s.step = any (v_fanned) and s.element > 0 and s.super_step is null
              and s.voided_at is null;
        end if;
    end if;
    if v_steps is null then
        perform pgflow._look_at_flows(p_flow.project_id, array[p_flow.run_id]);
        return;
    end if;
    v_run_ids := array_fill(p_flow.run_id, array[cardinality(v_steps)]);
    begin
        update pgflow.run r
        set super_step = r.super_step + 1, checkpoint_no = r.checkpoint_no + 1,
            last_event_no = r.last_event_no + (r.checkpoint_no is not null)::integer
        where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id;
        perform pgflow._save_checkpoints(p_flow.project_id, array[p_flow.run_id], v_run_ids,
            v_steps);
    exception
        when sqlstate '22PF1' then
            perform pgflow._end_from_outside(
                pgflow._locked(p_flow.project_id, p_flow.run_id), 'failed', 'E-RUN-018', sqlerrm);
            return;
    end;
    perform pgflow._go_on_after(p_flow.project_id, array[p_flow.run_id], v_run_ids, v_steps,
        v_all_completed);
end
$$;
comment on function pgflow._settle is
    'Has a flow go on after all steps that have ended and don''t count yet, unless it has layers '
    'and others of this one are still to end. The caller holds it.';

create or replace function pgflow._end_in_layers(
    p_project text, p_flow_ids uuid[], p_all_completed boolean
)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run;
    v_run_ids uuid[];
    v_steps text[];
begin
    if not p_all_completed then
        select array_agg(s.run_id), array_agg(s.step) into v_run_ids, v_steps
        from unnest(p_flow_ids) as u (run_id)
        cross join lateral (
            select r.run_id from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id and r.state <> 'paused'
            limit 1
        ) r
        cross join lateral (
            select s.run_id, s.step from pgflow.flow_step s
            where s.project_id = p_project and s.run_id = r.run_id and s.super_step is null
              and s.voided_at is null and s.state not in ('pending', 'running', 'completed')
            offset 0
        ) s;
        perform pgflow._end_broken(p_project, v_run_ids, v_steps);
    end if;
    for v_flow in
        select r.* from unnest(p_flow_ids) as u (run_id)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id and r.state <> 'paused'
            limit 1
        ) r
        order by r.run_id
    loop
        continue when v_flow.breakpoints is not null and pgflow._stop_flow(v_flow, pgflow.now());
        perform pgflow._settle(v_flow);
    end loop;
end
$$;
comment on function pgflow._end_in_layers is
    'Takes note of steps that have ended in flows that have layers: one that ends its flow does so '
    'at once. The caller holds the flows.';
