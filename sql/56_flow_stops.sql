-- Breakpoints of flows: where a flow is to stop until somebody lets it go on. It is paused then,
-- with a task for each place at which it stands, and a breakpoint is passed when its task is
-- answered: until its step is done again, which voids the task.
--
-- A step that is held before its beginning is pending, though it has all that it needs. The end of
-- a step behind which the flow stands is stored as in any paused flow, and counted when it goes on.

create or replace function pgflow._stops_named(p_stops jsonb)
returns text[]
language sql
immutable
as $$
    select array_agg(m.moment || ' ' || n.step order by m.place, n.place)
    from (values ('before', 1), ('after', 2)) as m (moment, place)
    cross join lateral jsonb_array_elements_text(
        case when pgflow._are_names(p_stops -> m.moment) then p_stops -> m.moment end)
        with ordinality as n (step, place)
$$;
comment on function pgflow._stops_named is
    'The breakpoints of {"before": [...], "after": [...]} as a run has them; null if there are '
    'none.';

create or replace function pgflow._stop_faults(
    p_field text, p_stops jsonb, p_steps jsonb, out field text, out message text
)
returns setof record
language plpgsql
stable
as $$
declare
    v_steps text[] := array(
        select n.name
        from jsonb_array_elements(
            case jsonb_typeof(p_steps) when 'array' then p_steps end) as s (step)
        cross join lateral (
            select s.step ->> 'name'
            union all
            select concat_ws('/', s.step ->> 'name', g ->> 'name')
            from jsonb_array_elements(pgflow._gates_of(s.step)) as g
        ) n (name));
begin
    return query
    select concat_ws('.', p_field, f.field), f.message
    from jsonb_each(pgflow._members(p_stops)) as m
    cross join lateral (
        select m.key as field, format('breakpoints.%s must be before or after', left(m.key, 100))
            as message
        where m.key not in ('before', 'after')
        union all
        select m.key, format('breakpoints.%s must be a list of names of steps, each of them once '
            '(given: %s)', m.key, left(m.value::text, 200))
        where m.key in ('before', 'after') and not pgflow._are_names(m.value)
        union all
        select m.key, format('breakpoints.%s names %s, which is no step of this flow', m.key,
            left(n.step, 100))
        from jsonb_array_elements_text(
            case when pgflow._are_names(m.value) then m.value end) as n (step)
        where m.key in ('before', 'after') and n.step <> all (v_steps)
    ) f;
end
$$;
comment on function pgflow._stop_faults is
    'What is wrong with breakpoints of a flow of these steps.';

create or replace function pgflow._with_stops(p_version pgflow.flow_version, p_stops jsonb)
returns pgflow.flow_version
language plpgsql
as $$
declare
    v_version pgflow.flow_version := p_version;
    v_stops jsonb := coalesce(p_version.definition -> 'breakpoints', '{}');
begin
    if p_stops is null then
        return v_version;
    elsif jsonb_typeof(p_stops) <> 'object' then
        perform pgflow._refuse_value('breakpoints',
            'an object of before and after, lists of names of steps', p_stops::text);
    end if;
    perform pgflow._refuse('PF101', f.message, format('given: %s', left(p_stops::text, 200)),
        'Nothing was started; view pgflow.flows has the steps of the flow.', f.field)
    from pgflow._stop_faults('breakpoints', p_stops, v_version.definition -> 'steps') as f;
    v_version.definition := v_version.definition || jsonb_build_object('breakpoints', (
        select jsonb_object_agg(m.moment, (
            select coalesce(jsonb_agg(distinct n.step), '[]')
            from jsonb_array_elements(coalesce(pgflow._members(v_stops) -> m.moment, '[]')
                || coalesce(pgflow._members(p_stops) -> m.moment, '[]')) as n (step)))
        from (values ('before'), ('after')) as m (moment)));
    return v_version;
end
$$;
comment on function pgflow._with_stops is
    'A version of a flow for a run that has breakpoints beside those of the definition. Raises '
    'PF101.';

create or replace function pgflow._stops_at(
    p_project text, p_run_id uuid, p_stops text[], p_moment text, p_step text
)
returns boolean
language plpgsql
stable
as $$
begin
    return coalesce(p_moment || ' ' || p_step = any (p_stops), false) and not exists (
        select from pgflow.task t
        where t.project_id = p_project and t.run_id = p_run_id
          and t.key = format('breakpoint/%s/%s', p_moment, p_step) and t.state = 'answered'
          and t.voided_at is null);
end
$$;
comment on function pgflow._stops_at is
    'Whether a flow has a breakpoint there that it has not passed.';

create or replace function pgflow._held_steps(p_flow pgflow.run)
returns text[]
language plpgsql
stable
as $$
begin
    return array(
        select s.step
        from pgflow.flow_step s
        join pgflow._steps_of_flow(p_flow) as d on d.step = s.step
        where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
          and s.state = 'pending' and s.voided_at is null
          and pgflow._join_says(d.join_rule, cardinality(d.needs), s.needs_settled,
              s.needs_completed, s.needs_failed) = 'running'
        order by d.place);
end
$$;
comment on function pgflow._held_steps is
    'The steps of a flow that have all that they need and did not begin, in their order.';

create or replace function pgflow._places_to_stop(
    p_flow pgflow.run, out moment text, out step text, out payload jsonb
)
returns setof record
language plpgsql
stable
as $$
begin
    return query
    select 'after', s.step, pgflow._step_output(s)
    from pgflow.flow_step s
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id and s.element = 0
      and s.state = 'completed' and s.super_step is null and s.voided_at is null
      and pgflow._stops_at(p_flow.project_id, p_flow.run_id, p_flow.breakpoints, 'after', s.step)
    order by s.ended_event_no;
    return query
    select 'before', d.step, pgflow._step_input(p_flow.project_id, p_flow, d.needs)
    from unnest(pgflow._held_steps(p_flow)) as h (step)
    join pgflow._steps_of_flow(p_flow) as d on d.step = h.step
    where pgflow._stops_at(p_flow.project_id, p_flow.run_id, p_flow.breakpoints, 'before', h.step)
    order by d.place;
end
$$;
comment on function pgflow._places_to_stop is
    'Where a flow stands now that has a breakpoint: a step with its output or its input.';

-- Any state -> paused. The caller holds the flow, and has had it take note of all that ended.
create or replace function pgflow._stop_flow(p_flow pgflow.run, p_now timestamptz)
returns boolean
language plpgsql
as $$
declare
    v_flow pgflow.run := p_flow;
    v_place record;
    v_keys text[];
    v_reason text;
begin
    for v_place in select p.* from pgflow._places_to_stop(p_flow) as p loop
        v_flow := pgflow._request_task(v_flow, p_now, jsonb_build_object('kind', 'breakpoint',
            'key', format('breakpoint/%s/%s', v_place.moment, v_place.step),
            'payload', case when pg_column_size(v_place.payload) <= 1048576
                            then v_place.payload end));
    end loop;
    v_keys := array(
        select t.key from pgflow.task t
        where t.project_id = v_flow.project_id and t.run_id = v_flow.run_id and t.state = 'open'
          and t.kind = 'breakpoint');
    if v_keys = '{}' then
        return false;
    end if;
    v_reason := pgflow._pause_of(v_keys);
    -- Its end closes its steps, though none may have begun.
    update pgflow.run r
    set has_tasks = true, has_children = true, last_event_no = v_flow.last_event_no,
        checkpoint_no = v_flow.checkpoint_no,
        pause_reason = case when r.state = 'paused' then v_reason end
    where r.project_id = v_flow.project_id and r.run_id = v_flow.run_id;
    if v_flow.state <> 'paused' then
        perform pgflow._pause(v_flow, v_reason);
        perform pgflow._pause_steps(v_flow, false);
        perform pgflow._look_at_flow_of(v_flow);
    end if;
    return true;
end
$$;
comment on function pgflow._stop_flow is
    'Pauses a flow that stands at a breakpoint, or says which is next; false if it stands at none.';

create or replace function pgflow._stop_flows(p_project text, p_flow_ids uuid[])
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_flow pgflow.run;
begin
    for v_flow in
        select r.* from unnest(p_flow_ids) as u (run_id)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
              and r.breakpoints is not null and r.kind = 'flow' and r.state <> 'paused'
            limit 1
        ) r
        order by r.run_id
    loop
        perform pgflow._stop_flow(v_flow, v_now);
    end loop;
end
$$;
comment on function pgflow._stop_flows is
    'Pauses those of some flows that stand at breakpoints. The caller holds them.';

-- paused -> paused at the next breakpoint, running, waiting_* or an end.
create or replace function pgflow._pass_stop(
    p_flow pgflow.run, p_now timestamptz, p_task pgflow.task
)
returns void
language plpgsql
as $$
begin
    perform pgflow._append_event(p_flow, 'task.resolved', p_now, jsonb_build_object(
        'task_id', p_task.task_id, 'key', p_task.key, 'action', p_task.state,
        'comment', p_task.comment, 'by', p_task.decided_by));
    if not pgflow._is_held_back(p_flow) then  -- else it goes on when its budget is raised
        perform pgflow._resume_flow(pgflow._locked(p_flow.project_id, p_flow.run_id), p_now);
    end if;
end
$$;
comment on function pgflow._pass_stop is
    'Has a flow go on from a breakpoint whose task was answered. The caller holds its family.';

create or replace function pgflow._let_flow_go_on(
    p_flow pgflow.run, p_now timestamptz, p_command jsonb
)
returns void
language plpgsql
as $$
begin
    if p_command ? 'goto' then
        perform pgflow._go_to(p_flow, p_now, p_command ->> 'goto');
    elsif p_flow.has_tasks and exists (
        select from pgflow.task t
        where t.project_id = p_flow.project_id and t.run_id = p_flow.run_id and t.state = 'open'
          and t.kind = 'breakpoint')
    then
        perform pgflow._pass(p_flow, p_now, p_command);
    else
        perform pgflow._resume_flow(p_flow, p_now);
    end if;
end
$$;
comment on function pgflow._let_flow_go_on is
    'Resumes a paused flow, from the first breakpoint at which it stands if it stands at any, or '
    'with the step that the command names. The caller holds its family.';

create or replace function pgflow._start_held(p_flow pgflow.run)
returns void
language plpgsql
as $$
begin
    perform pgflow._advance(p_flow.project_id, array[p_flow.run_id], array[null::text], h.step)
    from unnest(pgflow._held_steps(p_flow)) as h (step);
end
$$;
comment on function pgflow._start_held is
    'Begins the steps of a flow that were held. The caller holds the flow.';

create or replace function pgflow._forget_stops(
    p_flow pgflow.run, p_now timestamptz, p_steps text[], p_reason text
)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run;
begin
    if not p_flow.has_tasks then
        return;
    end if;
    v_flow := pgflow._void_tasks(p_flow, p_now, array(
        select format('breakpoint/%s/%s', m.moment, s.step)
        from unnest(p_steps) as s (step)
        cross join (values ('before'), ('after')) as m (moment)), p_reason);
    update pgflow.run r set last_event_no = v_flow.last_event_no
    where r.project_id = v_flow.project_id and r.run_id = v_flow.run_id;
end
$$;
comment on function pgflow._forget_stops is
    'Has a flow stop again at the breakpoints of steps that are done again. The caller holds it.';

create or replace function pgflow._check_step(p_flow pgflow.run, p_step text, p_field text)
returns void
language plpgsql
as $$
begin
    if not exists (
        select from pgflow._steps_of_flow(p_flow) as d where d.step = p_step)
    then
        perform pgflow._refuse('PF105', format('flow %s, version %s, has no step %s',
                p_flow.handler, p_flow.flow_version, left(p_step, 200)),
            format('it has: %s', (
                select string_agg(n.step, ', ' order by n.place)
                from (select d.step, d.place from pgflow._steps_of_flow(p_flow) as d
                      order by d.place limit 50) n)),
            'View pgflow.flow_steps has the steps of its runs.', p_field);
    end if;
end
$$;
comment on function pgflow._check_step is 'Raises PF105 for what is no step of a flow.';
