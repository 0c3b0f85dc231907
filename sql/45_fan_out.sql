-- Fan-out: a step with `each` is executed once for each element that a path finds in its input. An
-- element's run has the element as its input, nothing else, so that a list is not copied as often
-- as it is long. In flow_step the step itself is element 0 and counts those that are left: what an
-- end costs does not depend on how many there are. The list of the outputs is stored nowhere; it is
-- read from the elements when somebody needs it.

create or replace function pgflow._element_of(p_parent_key text)
returns integer
language sql
immutable
as $$
    select coalesce(nullif(split_part(p_parent_key, '#', 2), '')::integer, 0)
$$;
comment on function pgflow._element_of is
    'The number in the key STEP#NUMBER of an element''s run; 0 for the run of a whole step.';

-- A name without brackets or an asterisk finds the list as one element, which nobody means.
create or replace function pgflow._each_fault(p_each text)
returns text
language plpgsql
immutable
as $$
declare
    v_expected constant text := 'a SQL/JSON path to the elements of a list, as $.files[*]';
begin
    return case when p_each::jsonpath::text !~ '[[*]|keyvalue' then v_expected end;
exception
    when syntax_error or data_exception then
        return v_expected || ': ' || sqlerrm;
end
$$;
comment on function pgflow._each_fault is
    'What is wrong with the path to the elements of a step; null if it is right.';

create or replace function pgflow._each_faults(p_steps jsonb, out place integer, out message text)
returns setof record
language plpgsql
stable
as $$
begin
    return query
    select s.place::integer, format('each must be %s (given: %s)', f.fault,
        left(s.step ->> 'each', 200))
    from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    cross join lateral (
        select case
            when s.step ->> 'type' = 'pass' then null  -- which is told by _pass_faults
            when s.step ->> 'type' in ('approval_gate', 'human_task', 'wait_event', 'timer')
            then format('left out: a %s is asked or waited for once', s.step ->> 'type')
            else pgflow._each_fault(s.step ->> 'each') end
    ) f (fault)
    where jsonb_typeof(s.step -> 'each') = 'string' and f.fault is not null;
end
$$;
comment on function pgflow._each_faults is
    'The steps of a definition whose each is wrong, by their places from 1.';

-- Without a word a path is lax: a thing that is no list would be taken for a list of that thing,
-- and a name that is not there for an empty one.
create or replace function pgflow._each_path(p_each text)
returns jsonpath
language sql
immutable
as $$
    select (case when p_each ~ '^\s*(strict|lax)\s' then p_each
                 else 'strict ' || p_each end)::jsonpath
$$;
comment on function pgflow._each_path is 'The path to elements; strict unless it says lax.';

create or replace function pgflow._elements_output(p_step pgflow.flow_step)
returns jsonb
language plpgsql
stable
as $$
begin
    return (
        select coalesce(jsonb_agg(e.output order by e.element), '[]')
        from pgflow.flow_step e
        where e.project_id = p_step.project_id and e.run_id = p_step.run_id
          and e.step = p_step.step and e.element > 0 and e.version = p_step.version);
end
$$;
comment on function pgflow._elements_output is
    'The list of the outputs of a step that was done for each element, in their order.';

create or replace function pgflow._step_output(p_step pgflow.flow_step)
returns jsonb
language sql
stable
as $$
    select case when p_step.elements is null then p_step.output
                else pgflow._elements_output(p_step) end
$$;
comment on function pgflow._step_output is 'The output of a step that has completed.';

-- Each element's lease has what its flow was given, which may be that very list.
create or replace function pgflow._is_sent(p_element integer, p_flow_input jsonb)
returns boolean
language sql
stable
as $$
    select coalesce(p_element, 0) = 0 or pg_column_size(p_flow_input) <= 8192
$$;
comment on function pgflow._is_sent is
    'Whether a step''s worker is given the input of its flow: all but elements of a large one are.';

create or replace function pgflow._first_broken(p_step pgflow.flow_step)
returns uuid
language plpgsql
stable
as $$
begin
    return (
        select e.child_run_id from pgflow.flow_step e
        where e.project_id = p_step.project_id and e.run_id = p_step.run_id
          and e.step = p_step.step and e.element > 0 and e.voided_at is null
          and e.state not in ('pending', 'running', 'completed')
        order by e.element
        limit 1);
end
$$;
comment on function pgflow._first_broken is
    'The run of the first element of a step that did not complete.';

-- A retry keeps the elements that completed, and a fork those that a retry had kept, unless the
-- list is another one now.
create or replace function pgflow._drop_other_elements(
    p_flow pgflow.run, p_step text, p_values jsonb[]
)
returns void
language plpgsql
as $$
begin
    delete from pgflow.flow_step e
    where e.project_id = p_flow.project_id and e.run_id = p_flow.run_id and e.step = p_step
      and e.element > 0 and e.voided_at is null
      and not exists (
          select from pgflow.run_finished f
          where f.project_id = e.project_id and f.run_id = e.child_run_id
            and f.input = p_values[e.element]);
end
$$;
comment on function pgflow._drop_other_elements is
    'Takes away the elements that a retry or a fork has kept and whose input is another now.';

create or replace function pgflow._end_fan_out(
    p_project text, p_run_id uuid, p_step text, p_at_once boolean, p_state text default null,
    p_detail text default null, p_code text default 'E-RUN-019'
)
returns pgflow.flow_step
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_flow pgflow.run;
    v_broken pgflow.flow_step;
    v_step pgflow.flow_step;
begin
    select e.* into v_broken from pgflow.flow_step e
    where e.project_id = p_project and e.run_id = p_run_id and e.step = p_step and e.element > 0
      and e.voided_at is null and e.state not in ('pending', 'running', 'completed')
    order by e.element
    limit 1;
    update pgflow.run r
    set last_event_no = r.last_event_no + 1,
        step_count = r.step_count + (coalesce(p_state, v_broken.state) is null)::integer
    where r.project_id = p_project and r.run_id = p_run_id
    returning r.* into v_flow;
    update pgflow.flow_step s
    set state = coalesce(p_state, v_broken.state, 'completed'),
        error_code = case when p_state is null then v_broken.error_code else p_code end,
        error_detail = coalesce(p_detail, case when v_broken.run_id is not null then
            format('element %s: %s', v_broken.element,
                coalesce(v_broken.error_detail, v_broken.state)) end),
        ended_at = v_now, ended_event_no = v_flow.last_event_no, child_run_id = null,
        super_step = case when p_at_once and v_flow.state <> 'paused' then v_flow.super_step end
    where s.project_id = p_project and s.run_id = p_run_id and s.step = p_step and s.element = 0
      and s.voided_at is null
    returning s.* into v_step;
    if v_flow.watched then
        perform pgflow._hint_watchers(p_project, array[p_run_id]);
    end if;
    if pgflow._is_followed(p_project) then
        perform pgflow._publish(p_project, array[p_run_id], array[v_flow.last_event_no]);
    end if;
    return v_step;
end
$$;
comment on function pgflow._end_fan_out is
    'Ends a step that is done for each element, as the first of them in their order that did not '
    'complete, or completed; or any, where it could not begin, in the state that is given. The '
    'caller holds the flow.';

create or replace function pgflow._fan_out(
    p_flow pgflow.run, p_step pgflow.step_definition, p_now timestamptz
)
returns uuid[]
language plpgsql
as $$
declare
    v_keeps boolean := num_nonnulls(p_flow.retry_of, p_flow.forked_from) > 0 or p_flow.round > 0;
    v_values jsonb[];
    v_fault text;
    v_elements integer[];
    v_inputs jsonb[];
    v_ids uuid[];
    v_flow_ids uuid[];
    v_steps text[];
    v_sub_flows uuid[];
begin
    begin
        v_values := array(
            select jsonb_path_query(pgflow._step_input(p_flow.project_id, p_flow, p_step.needs),
                p_step.each_path));
    exception
        when data_exception or undefined_object or feature_not_supported then
            v_fault := sqlerrm;
    end;
    if cardinality(v_values) > 100000 then
        v_fault := format('%s elements, more than 100000', cardinality(v_values));
    end if;
    if v_fault is not null then
        perform pgflow._end_fan_out(p_flow.project_id, p_flow.run_id, p_step.step, true,
            'failed', format('each finds no elements: %s', v_fault));
        return null;
    elsif v_keeps then
        perform pgflow._drop_other_elements(p_flow, p_step.step, v_values);
    end if;
    select array_agg(v.element order by v.element), array_agg(v.value order by v.element)
    into v_elements, v_inputs
    from unnest(v_values) with ordinality as v (value, element)
    where not v_keeps or not exists (
        select from pgflow.flow_step e
        where e.project_id = p_flow.project_id and e.run_id = p_flow.run_id
          and e.step = p_step.step and e.element = v.element and e.voided_at is null);
    -- In the order of the elements, in which they are then taken, locked and shown.
    v_ids := array(
        select greatest(pgflow._new_id(), pgflow._id_after(p_flow.run_id))
        from unnest(v_elements)
        order by 1);
    v_flow_ids := array_fill(p_flow.run_id, array[cardinality(v_ids)]);
    v_steps := array_fill(p_step.step, array[cardinality(v_ids)]);
    if p_step.type = 'flow' and v_ids <> '{}' then
        v_sub_flows := pgflow._make_sub_flows(p_flow.project_id, v_ids, v_flow_ids, v_steps, p_now,
            v_elements, v_inputs);
        if v_sub_flows is null then
            return null;
        end if;
    end if;
    update pgflow.flow_step s
    set elements = cardinality(v_values), elements_left = cardinality(v_ids),
        child_run_id = null
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
      and s.step = p_step.step and s.element = 0 and s.voided_at is null;
    if v_ids = '{}' then
        perform pgflow._end_fan_out(p_flow.project_id, p_flow.run_id, p_step.step,
            not pgflow._stops_at(p_flow.project_id, p_flow.run_id, p_flow.breakpoints, 'after',
                p_step.step));
        return null;
    end if;
    insert into pgflow.flow_step (project_id, run_id, step, element, version, state, child_run_id,
        ready_at)
    select p_flow.project_id, p_flow.run_id, p_step.step, e.element, p_flow.round, 'running',
        e.run_id, p_now
    from unnest(v_elements, v_ids) as e (element, run_id);
    if p_step.type <> 'flow' then
        perform pgflow._make_runs(p_flow.project_id, v_ids, v_flow_ids, v_steps, p_now, v_elements,
            v_inputs);
    end if;
    return v_sub_flows;
end
$$;
comment on function pgflow._fan_out is
    'Makes a run for each element of a step, or ends the step where there is none; returns the '
    'runs that are flows. The caller holds the flow.';

-- Those that have a handler are made by _make_runs. A sub-flow begins later, when all that is ready
-- has its run: one that ends at once has this flow look at what is left.
create or replace function pgflow._make_others(
    p_project text, p_ids uuid[], p_flow_ids uuid[], p_steps text[], p_now timestamptz,
    out sub_flows uuid[], out ended_ids uuid[], out ended_steps text[]
)
returns record
language plpgsql
as $$
declare
    v_new record;
begin
    perform pgflow._make_waits(p_project, p_ids, p_flow_ids, p_steps, p_now);
    sub_flows := pgflow._make_sub_flows(p_project, p_ids, p_flow_ids, p_steps, p_now);
    for v_new in
        select f.flow, d.step
        from unnest(p_flow_ids, p_steps) with ordinality as m (flow_id, step, nth)
        cross join lateral (
            select r as flow from pgflow.run r
            where r.project_id = p_project and r.run_id = m.flow_id
            limit 1
        ) f
        cross join lateral (
            select s as step from pgflow._steps_of_flow(f.flow) as s
            where s.step = m.step and s.each_path is not null
            limit 1
        ) d
        order by m.nth
    loop
        sub_flows := sub_flows || pgflow._fan_out(v_new.flow, v_new.step, p_now);
    end loop;
    perform pgflow._pass_steps(p_project, p_flow_ids, p_steps, p_now);
    select array_agg(s.run_id order by m.nth), array_agg(s.step order by m.nth)
    into ended_ids, ended_steps
    from unnest(p_flow_ids, p_steps) with ordinality as m (flow_id, step, nth)
    cross join lateral (
        select s.run_id, s.step from pgflow.flow_step s
        where s.project_id = p_project and s.run_id = m.flow_id and s.step = m.step
          and s.element = 0 and s.voided_at is null and s.state in ('completed', 'failed')
          and s.super_step is not null  -- else the flow is paused, or stops behind it
        limit 1
    ) s;
    if ended_ids is not null then
        perform pgflow._end_broken(p_project, ended_ids, ended_steps);
    end if;
end
$$;
comment on function pgflow._make_others is
    'Makes the runs of steps that are ready and no plain handlers, under ids that their rows have. '
    'Returns the flows among them, which begin later, and the steps that have ended at once.';

-- An element that does not complete ends the step at once where that ends the flow; else the step
-- has failed when the rest has ended, for they are done and paid for. The caller holds the flows.
create or replace function pgflow._settle_elements(
    p_project text, p_child_ids uuid[],
    out flow_ids uuid[], out all_completed boolean
)
returns record
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_done record;
    v_step pgflow.flow_step;
begin
    flow_ids := '{}';
    all_completed := true;
    for v_done in
        with ended as materialized (
            select s.run_id, s.step, s.element, s.version, s.child_run_id, c.error_code,
                c.error_detail, c.output, c.attempt, c.finished_at,
                pgflow._step_state(c.state, c.error_code) as state, d.on_failure
            from unnest(p_child_ids) as u (run_id)
            cross join lateral (
                select c.* from pgflow.run_finished c
                where c.project_id = p_project and c.run_id = u.run_id
                  and c.step is not null and c.parent_key like '%#%'
                limit 1
            ) c
            cross join lateral (
                select r.* from pgflow.run r
                where r.project_id = p_project and r.run_id = c.parent_run_id
                limit 1
            ) r
            cross join lateral (
                select s.* from pgflow.flow_step s
                where s.project_id = p_project and s.run_id = r.run_id and s.step = c.step
                  and s.element = pgflow._element_of(c.parent_key) and s.voided_at is null
                  and s.child_run_id = c.run_id and s.state = 'running'
                limit 1
            ) s
            cross join lateral (
                select d.on_failure
                from pgflow._defined_steps(p_project, r.run_id, r.handler, r.flow_version,
                    r.has_own_steps) as d
                where d.step = c.step
                limit 1
            ) d
        ),
        settled as (
            insert into pgflow.flow_step as s (project_id, run_id, step, element, version, state,
                output, error_code, error_detail, attempts, ended_at, super_step, child_run_id)
            select p_project, e.run_id, e.step, e.element, e.version, e.state, e.output,
                e.error_code, e.error_detail, e.attempt + (e.state = 'completed')::integer,
                e.finished_at, null, e.child_run_id
            from ended e
            on conflict (project_id, run_id, step, element) where voided_at is null do update
            set state = excluded.state, output = excluded.output,
                error_code = excluded.error_code, error_detail = excluded.error_detail,
                attempts = excluded.attempts, ended_at = excluded.ended_at,
                super_step = excluded.super_step
        ),
        counted as materialized (
            select n.run_id, n.step, s.version, s.state, s.elements,
                s.elements_left - n.ended as elements_left, n.is_fatal
            from (
                select e.run_id, e.step, count(*)::integer as ended,
                    bool_or(e.state <> 'completed' and e.on_failure = 'fail') as is_fatal
                from ended e group by e.run_id, e.step
            ) n
            cross join lateral (
                select s.* from pgflow.flow_step s
                where s.project_id = p_project and s.run_id = n.run_id and s.step = n.step
                  and s.element = 0 and s.voided_at is null and s.state = 'running'
                limit 1
            ) s
        ),
        noted as (
            insert into pgflow.flow_step as s (project_id, run_id, step, version, state,
                elements, elements_left)
            select p_project, c.run_id, c.step, c.version, c.state, c.elements, c.elements_left
            from counted c
            on conflict (project_id, run_id, step, element) where voided_at is null do update
            set elements_left = excluded.elements_left
        )
        select c.run_id, c.step from counted c
        where c.elements_left = 0 or c.is_fatal
        order by c.run_id, c.step
    loop
        v_step := pgflow._end_fan_out(p_project, v_done.run_id, v_done.step, false);
        flow_ids := flow_ids || v_step.run_id;
        all_completed := all_completed and v_step.state = 'completed';
    end loop;
end
$$;
comment on function pgflow._settle_elements is
    'Takes note of ended elements in the steps that are done for each; returns the flows of those '
    'that have ended with it. They go on in _settle. The caller holds the flows.';
