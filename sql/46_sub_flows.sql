-- Sub-flows: a step of type flow is executed by a run of another flow. That run is a child like any
-- step's and a flow like any other: what becomes of it is told to the flow around it, whatever the
-- depth, and whoever may end one holds all that are around it (10_family).

create or replace function pgflow._sub_flow_faults(
    p_project text, p_name text, p_steps jsonb, out place integer, out field text, out message text
)
returns setof record
language plpgsql
stable
as $$
begin
    return query
    select s.place::integer, f.field, f.message
    from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    cross join lateral (
        select s.step #>> '{config,flow}' as flow, n.version::integer as version,
            pgflow._is_text(s.step #> '{config,flow}', '^.{1,100}$')
                and (s.step -> 'config') - 'flow' - 'version' = '{}'
                and (s.step -> 'config' ? 'version') = (n.version is not null) as is_right
        from (
            select case when pgflow._is_number(w.version, 1, 2147483647)
                and w.version::numeric % 1 = 0 then w.version::numeric end
            from (select s.step #> '{config,version}') as w (version)
        ) n (version)
    ) c
    cross join lateral (
        select 'config' as field, format('config must be an object of flow, a name, and '
            'version, a whole number, or without it (given: %s)',
            left(coalesce(s.step -> 'config', 'null')::text, 200)) as message
        where not coalesce(c.is_right, false)
        union all
        select 'config.flow', format('config.flow must be a flow of this project%s (given: %s)',
            case when c.version is not null then ' that has this version' else '' end,
            concat_ws(', version ', c.flow, c.version))
        where c.is_right and not exists (
            select from pgflow.flow_version v
            where v.project_id = p_project and v.flow = c.flow
              and v.version = coalesce(c.version, v.version))
        union all
        select 'config.flow', format('config.flow must be a flow that does not begin %s again',
            p_name)
        where c.is_right and pgflow._leads_to(p_project, c.flow, c.version, p_name)
    ) f
    where s.step ->> 'type' = 'flow';
end
$$;
comment on function pgflow._sub_flow_faults is
    'The steps of a definition whose config names no flow that they can be, by their places.';

-- A version that is named is an older one, so it is not what is defined now.
create or replace function pgflow._leads_to(
    p_project text, p_from text, p_version integer, p_to text
)
returns boolean
language sql
stable
as $$
    with recursive inner_flow as (
        select p_from collate "C" as flow, p_version as version
        union
        select d.config ->> 'flow', (d.config ->> 'version')::integer
        from inner_flow i
        join pgflow.flow f on f.project_id = p_project and f.flow = i.flow
        join pgflow.step_definition d on d.project_id = f.project_id and d.flow = f.flow
            and d.version = coalesce(i.version, f.version) and d.type = 'flow'
    )
    select exists (select from inner_flow i where i.flow = p_to and i.version is null)
$$;
comment on function pgflow._leads_to is
    'Whether a flow is another, or has it somewhere within, in whatever version is current.';

create or replace function pgflow._check_sub_flows(p_project text, p_flow jsonb)
returns void
language plpgsql
as $$
declare
    v_faults jsonb := (
        select jsonb_agg(jsonb_build_object(
            'field', format('definition.steps[%s].%s', f.place - 1, f.field),
            'message', format('step %s: %s', p_flow -> 'steps' -> (f.place - 1) ->> 'name',
                f.message)) order by f.place)
        from pgflow._sub_flow_faults(p_project, p_flow ->> 'name', p_flow -> 'steps') as f);
begin
    if v_faults is not null then
        perform pgflow._refuse('PF101', v_faults #>> '{0,message}',
            jsonb_build_object('faults', v_faults)::text,
            'Nothing was stored; define the inner flow first.', v_faults #>> '{0,field}');
    end if;
end
$$;
comment on function pgflow._check_sub_flows is
    'Refuses (PF101) a definition whose steps name flows that are not there, or itself.';

create or replace function pgflow._refuse_inputs(
    p_project text, p_flow_ids uuid[], p_steps text[], p_elements integer[], p_faults text[]
)
returns void
language plpgsql
as $$
begin
    perform pgflow._end_fan_out(p_project, f.flow_id, f.step, true, 'failed', f.fault, 'E-RUN-005')
    from (
        select distinct on (u.flow_id, u.step) u.flow_id, u.step,
            concat_ws(': ', 'element ' || u.element, u.fault) as fault
        from unnest(p_flow_ids, p_steps, p_elements, p_faults) as u (flow_id, step, element, fault)
        where u.fault is not null
        order by u.flow_id, u.step, u.element
    ) f;
end
$$;
comment on function pgflow._refuse_inputs is
    'Fails steps with E-RUN-005 whose flows do not take what they, or their elements, are given.';

-- Without a version it is the one that is current now, as for any that starts; its budget is
-- its own, and counts to those around it. What a retry does
-- again goes on where the first run of it stopped, in the version that that one had, and bound to
-- what that one was, by the steps that were added to it too.
create or replace function pgflow._make_sub_flows(
    p_project text, p_ids uuid[], p_flow_ids uuid[], p_steps text[], p_now timestamptz,
    p_elements integer[] default null, p_inputs jsonb[] default null
)
returns uuid[]
language plpgsql
as $$
declare
    v_run_ids uuid[];
    v_refused record;
begin
    with planned as materialized (
        select m.run_id, m.nth, m.element, i.input, m.flow_id, d.step, v.flow, v.version,
            o.run_id as retry_of, o.bindings, t.fault,
            bool_or(t.fault is not null) over (partition by m.flow_id, d.step) as is_refused
        from unnest(p_ids, p_flow_ids, p_steps, p_elements, p_inputs) with ordinality
            as m (run_id, flow_id, step, element, input, nth)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = m.flow_id
            limit 1
        ) f
        cross join lateral (
            select d.step, d.needs, d.config
            from pgflow._defined_steps(p_project, f.run_id, f.handler, f.flow_version,
                f.has_own_steps) as d
            where d.step = m.step and d.type = 'flow'
              and (d.each_path is null or m.element is not null)
            limit 1
        ) d
        cross join lateral (
            select coalesce(m.input, pgflow._step_input(p_project, f, d.needs))
        ) i (input)
        left join lateral (
            select c.run_id, c.flow_version, c.bindings
            from (
                select s.child_run_id from pgflow.flow_step s
                where s.project_id = p_project and s.run_id = f.retry_of and s.step = d.step
                  and s.element = coalesce(m.element, 0) and s.voided_at is null
                limit 1
            ) s
            cross join lateral (
                select c.* from pgflow.run_finished c
                where c.project_id = p_project and c.run_id = s.child_run_id
                  and c.kind = 'flow' and c.input = i.input
                limit 1
            ) c
        ) o on f.round = 0
        cross join lateral (
            select c.flow, c.version from pgflow.flow c
            where c.project_id = p_project and c.flow = d.config ->> 'flow'
            limit 1
        ) c
        cross join lateral (
            select v.* from pgflow.flow_version v
            where v.project_id = p_project and v.flow = c.flow and v.version
                = coalesce((d.config ->> 'version')::integer, o.flow_version, c.version)
            limit 1
        ) v
        cross join lateral (
            select pgflow._input_faults(v, i.input) #>> '{0,message}'
        ) t (fault)
    ),
    made as (
        insert into pgflow.run (project_id, run_id, parent_run_id, root_run_id, parent_key, step,
            depth, kind, handler, flow_version, queue, state, priority, max_attempts, lease_no,
            super_step, checkpoint_no, deadline, created_at, first_started_at, created_by,
            correlation_id, tags, feedback, budget_run_id, retry_of, breakpoints, bindings, input)
        select p_project, p.run_id, f.run_id, coalesce(f.root_run_id, f.run_id),
            concat_ws('#', p.step, p.element), p.step, f.depth + 1, 'flow', v.flow, v.version,
            coalesce(v.definition ->> 'queue', 'default'), 'running', f.priority, 1, null, 0,
            case when v.definition ? 'channels' then 0 end,
            f.deadline, p_now, p_now, f.created_by, coalesce(f.correlation_id, f.run_id::text),
            f.tags, f.feedback, f.budget_run_id, p.retry_of,
            pgflow._stops_named(v.definition -> 'breakpoints'),
            pgflow._bindings_within(v, coalesce(f.bindings || p.bindings, f.bindings, p.bindings)),
            p.input
        from planned p
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = p.flow_id
            limit 1
        ) f
        cross join lateral (
            select v.* from pgflow.flow_version v
            where v.project_id = p_project and v.flow = p.flow and v.version = p.version
            limit 1
        ) v
        where not p.is_refused
    )
    select array_agg(p.run_id order by p.nth) filter (where not p.is_refused) as made,
        array_agg(p.flow_id) as flow_ids, array_agg(p.step) as steps,
        array_agg(p.element) as elements, array_agg(p.fault) as faults,
        bool_or(p.is_refused) as are_some
    into v_refused
    from planned p;
    v_run_ids := v_refused.made;
    if v_refused.are_some then
        perform pgflow._refuse_inputs(p_project, v_refused.flow_ids, v_refused.steps,
            v_refused.elements, v_refused.faults);
    end if;
    perform pgflow._give_budget(p_project, r.run_id, v.definition -> 'budget')
    from unnest(v_run_ids) as u (run_id)
    cross join lateral (
        select r.run_id, r.handler, r.flow_version from pgflow.run r
        where r.project_id = p_project and r.run_id = u.run_id
        limit 1
    ) r
    cross join lateral (
        select v.definition from pgflow.flow_version v
        where v.project_id = p_project and v.flow = r.handler and v.version = r.flow_version
          and v.definition ? 'budget'
        limit 1
    ) v;
    if pgflow._is_followed(p_project) then
        perform pgflow._publish(p_project, v_run_ids);
    end if;
    return v_run_ids;
end
$$;
comment on function pgflow._make_sub_flows is
    'Makes the runs of steps that are flows, or of their elements, under ids that their rows have; '
    'returns those ids. None of them has begun. A step of which one doesn''t take its input fails.';

create or replace function pgflow._begin_sub_flows(p_project text, p_run_ids uuid[])
returns void
language plpgsql
as $$
declare
    v_old record;
    v_run_ids uuid[] := p_run_ids;
    v_steps text[] := array_fill(null::text, array[cardinality(p_run_ids)]);
    v_kept text[];
begin
    for v_old in
        select r.* from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select r.run_id, r.retry_of, r.handler, r.flow_version from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id and r.retry_of is not null
            limit 1
        ) r
        order by r.run_id
    loop
        v_kept := pgflow._keep_steps(p_project, v_old.retry_of, v_old.run_id);
        perform pgflow._keep_values(
            pgflow._found_flow(p_project, v_old.handler, v_old.flow_version), v_old.retry_of,
            v_old.run_id);
        v_steps := v_steps || v_kept;
        v_run_ids := v_run_ids || array_fill(v_old.run_id, array[cardinality(v_kept)]);
    end loop;
    perform pgflow._advance(p_project, v_run_ids, v_steps);
    perform pgflow._look_at_flows(p_project, p_run_ids);
end
$$;
comment on function pgflow._begin_sub_flows is
    'Makes the runs of the first steps of flows. The caller holds the flows around them.';
