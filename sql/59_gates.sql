-- Gates: a person approves what a step has done before any other sees it. A gate is stored as a
-- step behind its own, STEP/GATE, with a task of its own: so it is asked, decided, rejected, voided
-- and asked again as any step that waits for a person. Those that need the step wait for its gates
-- too, and get the output of the step, under its name.

create or replace function pgflow._gates_of(p_step jsonb)
returns jsonb
language plpgsql
immutable
as $$
begin
    return (
        select coalesce(jsonb_agg(case jsonb_typeof(g.gate)
            when 'string' then jsonb_build_object('name', g.gate)
            when 'object' then pgflow._members(g.gate)
            else g.gate end order by g.place), '[]')
        from jsonb_array_elements(
            case jsonb_typeof(p_step -> 'gates') when 'array' then p_step -> 'gates' end)
            with ordinality as g (gate, place));
end
$$;
comment on function pgflow._gates_of is
    'The gates of a step as objects: a text is the name of one.';

create or replace function pgflow._canonical_gates(p_flow jsonb)
returns jsonb
language plpgsql
immutable
as $$
begin
    if not p_flow @? '$.steps[*].gates' then
        return p_flow;
    end if;
    return p_flow || jsonb_build_object('steps', (
        select jsonb_agg((s.step - 'gates') || pgflow._members(jsonb_build_object(
            'gates', nullif(pgflow._gates_of(s.step), '[]'))) order by s.place)
        from jsonb_array_elements(p_flow -> 'steps') with ordinality as s (step, place)));
end
$$;
comment on function pgflow._canonical_gates is
    'A canonical definition whose gates are objects; a step without gates says nothing of them.';

-- ---- what is wrong with them

create or replace function pgflow._gate_fault(p_gate jsonb)
returns text
language plpgsql
stable
as $$
begin
    if jsonb_typeof(p_gate) <> 'object' then
        return 'must be a name, or an object of name and what an approval_gate has in its config';
    elsif not coalesce(pgflow._is_text(p_gate -> 'name', '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'),
        false)
    then
        return 'must have a name of 1 to 100 letters, digits, _, . or -, which begins with none of '
            '. and -';
    elsif p_gate ->> 'on_reject' = 'resume' then
        return 'must have on_reject cancel or fail: nobody reads its decision';
    end if;
    return coalesce(
        (select format('must have %s %s', f.field, f.expected)
         from pgflow._config_faults(p_gate) as f limit 1),
        'must be ' || pgflow._wait_fault(jsonb_build_object('name', p_gate -> 'name',
            'type', 'approval_gate', 'config', pgflow._plain_config(p_gate - 'name'))));
end
$$;
comment on function pgflow._gate_fault is
    'What is wrong with a gate by itself; null if it is right.';

create or replace function pgflow._gate_faults(
    p_steps jsonb, out place integer, out field text, out message text
)
returns setof record
language plpgsql
stable
as $$
begin
    return query
    select s.place::integer, format('gates[%s]', g.place - 1), format('gate %s %s (given: %s)',
        coalesce(left(g.gate ->> 'name', 100), format('[%s]', g.place - 1)), f.fault,
        left(g.gate::text, 200))
    from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    cross join lateral jsonb_array_elements(pgflow._gates_of(s.step))
        with ordinality as g (gate, place)
    cross join lateral (
        select coalesce(pgflow._gate_fault(g.gate), case when exists (
            select from jsonb_array_elements(pgflow._gates_of(s.step))
                with ordinality as o (gate, place)
            where o.gate -> 'name' = g.gate -> 'name' and o.place < g.place)
            then 'must have a name of its own: another gate of the step has it' end)
    ) f (fault)
    where f.fault is not null
    union all
    select s.place::integer, 'gates', format('gates must be at most 20 (given: %s)', g.many)
    from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    cross join lateral (select jsonb_array_length(pgflow._gates_of(s.step))) g (many)
    where g.many > 20;
end
$$;
comment on function pgflow._gate_faults is
    'The gates of a definition''s steps that are wrong, by the places of their steps.';

create or replace function pgflow._pass_faults(
    p_steps jsonb, out place integer, out field text, out message text
)
returns setof record
language sql
immutable
as $$
    select s.place::integer, u, format('%s must be left out: a pass does nothing with it', u)
    from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    cross join unnest('{config,each}'::text[]) as u
    where s.step ->> 'type' = 'pass' and pgflow._members(s.step) ? u
$$;
comment on function pgflow._pass_faults is
    'The steps of type pass that say what they have no use for, by their places.';

-- ---- the steps that they are

-- With join any, one whose gates are passed is enough, so only the last of them counts; with the
-- other rules, what failed, was rejected or skipped on the way does too.
create or replace function pgflow._needs_behind_gates(p_step jsonb, p_gates jsonb)
returns jsonb
language sql
immutable
as $$
    select jsonb_agg(to_jsonb(w.name) order by n.place, w.place)
    from jsonb_array_elements_text(p_step -> 'needs') with ordinality as n (name, place)
    cross join lateral (
        select n.name, 0 where p_step ->> 'join' is distinct from 'any' or not p_gates ? n.name
        union all
        select format('%s/%s', n.name, g.name), g.place
        from jsonb_array_elements_text(p_gates -> n.name) with ordinality as g (name, place)
        where p_step ->> 'join' is distinct from 'any'
           or g.place = jsonb_array_length(p_gates -> n.name)
    ) w (name, place)
$$;
comment on function pgflow._needs_behind_gates is
    'What a step needs, and the gates of that; p_gates has their names by step.';

create or replace function pgflow._needs_in_flow(p_flow pgflow.run, p_definition jsonb)
returns text[]
language plpgsql
stable
as $$
declare
    v_gates jsonb := (
        select jsonb_object_agg(g.step, g.names)
        from (
            select d.gate_of as step,
                jsonb_agg(split_part(d.step, '/', 2) order by d.place) as names
            from pgflow._steps_of_flow(p_flow) as d
            where d.gate_of is not null
            group by d.gate_of
        ) g);
begin
    return array(
        select jsonb_array_elements_text(
            pgflow._needs_behind_gates(p_definition, coalesce(v_gates, '{}'))));
end
$$;
comment on function pgflow._needs_in_flow is
    'What a step that is added to a run needs there: the gates of what it names, too.';

create or replace function pgflow._with_gates(p_steps jsonb)
returns jsonb
language plpgsql
immutable
as $$
declare
    v_gates jsonb;
begin
    if not p_steps @? '$[*].gates' then
        return p_steps;
    end if;
    v_gates := (
        select jsonb_object_agg(s ->> 'name', jsonb_path_query_array(s, '$.gates[*].name'))
        from jsonb_array_elements(p_steps) as s
        where s ? 'gates');
    return (
        select jsonb_agg(w.step order by s.place, w.place)
        from jsonb_array_elements(p_steps) with ordinality as s (step, place)
        cross join lateral (
            select s.step - 'gates' || pgflow._members(jsonb_build_object(
                'needs', pgflow._needs_behind_gates(s.step, v_gates),
                'last_gate', s.step ->> 'name' || '/' || (s.step #>> '{gates,-1,name}'))), 0
            union all
            select jsonb_build_object('type', 'approval_gate', 'config', g.gate - 'name',
                'name', concat_ws('/', s.step ->> 'name', g.gate ->> 'name'),
                'gate_of', s.step -> 'name',
                'on_failure', coalesce(s.step -> 'on_failure', '"fail"'),
                'needs', jsonb_build_array(concat_ws('/', s.step ->> 'name', g.before))), g.place
            from (
                select g.gate, g.place,
                    lag(g.gate ->> 'name') over (order by g.place) as before
                from jsonb_array_elements(s.step -> 'gates') with ordinality as g (gate, place)
            ) g
        ) w (step, place));
end
$$;
comment on function pgflow._with_gates is
    'The steps of a canonical definition, behind each its gates, one needing the other.';

-- ---- as a flow goes on

create or replace function pgflow._gated_input(p_project text, p_flow pgflow.run, p_needs text[])
returns jsonb
language plpgsql
stable
as $$
begin
    return (
        select coalesce(jsonb_object_agg(n.step, pgflow._step_output(s)), '{}')
        from (
            select split_part(u.need, '/', 1) as step, bool_and(exists (
                select from pgflow.flow_step s
                where s.project_id = p_project and s.run_id = p_flow.run_id and s.step = u.need
                  and s.element = 0 and s.voided_at is null and s.state = 'completed')) as is_passed
            from unnest(p_needs) as u (need)
            group by 1
        ) n
        join pgflow.flow_step s on s.project_id = p_project and s.run_id = p_flow.run_id
            and s.step = n.step and s.element = 0 and s.voided_at is null
            and s.state = 'completed'
        where n.is_passed);
end
$$;
comment on function pgflow._gated_input is
    'As _step_input, of a step some of whose needs have gates: the outputs that these let pass.';

-- What is approved is told by its hash: of the artifact if the step has to leave one, else of the
-- output. Done again, the step has another run and all its gates other tasks.
create or replace function pgflow._gate_payload(p_flow pgflow.run, p_gate pgflow.step_definition)
returns jsonb
language plpgsql
stable
as $$
declare
    v_step pgflow.flow_step;
    v_artifact record;
    v_output jsonb;
begin
    select s.* into v_step from pgflow.flow_step s
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
      and s.step = p_gate.gate_of and s.element = 0 and s.voided_at is null;
    v_output := pgflow._step_output(v_step);
    select a.run_id, a.artifact_no, a.name, encode(a.sha256, 'hex') as sha256 into v_artifact
    from pgflow._steps_of_flow(p_flow) as d
    join pgflow.artifact a on a.project_id = d.project_id and a.run_id = v_step.child_run_id
        and a.name = d.artifact ->> 'name' and a.valid
    where d.step = p_gate.gate_of
    order by a.lease_no desc, a.artifact_no desc
    limit 1;
    return jsonb_build_object('step', p_gate.gate_of,
        'gate', split_part(p_gate.step, '/', 2),
        'gates', (
            select jsonb_agg(split_part(d.step, '/', 2) order by d.place)
            from pgflow._steps_of_flow(p_flow) as d
            where d.gate_of = p_gate.gate_of),
        'artifact', case when v_artifact.run_id is not null
            then to_jsonb(v_artifact) - 'sha256' end,
        'sha256', coalesce(v_artifact.sha256, encode(pgflow._sha256(v_output), 'hex')))
        || case when pg_column_size(v_output) <= 1000000
            then jsonb_build_object('output', v_output) else '{}' end;
end
$$;
comment on function pgflow._gate_payload is
    'What a person sees at a gate: the step, its artifact (run_id, artifact_no, name) or null, the '
    'sha256 of that or of the output, the step''s gates in their order, and its output.';

create or replace function pgflow._pass_steps(
    p_project text, p_flow_ids uuid[], p_steps text[], p_now timestamptz
)
returns void
language plpgsql
as $$
declare
    v_new record;
    v_flow pgflow.run;
begin
    for v_new in
        select m.flow_id, d.step, d.needs
        from unnest(p_flow_ids, p_steps) with ordinality as m (flow_id, step, nth)
        cross join lateral (
            select r as flow from pgflow.run r
            where r.project_id = p_project and r.run_id = m.flow_id
            limit 1
        ) f
        cross join lateral (
            select s.step, s.needs from pgflow._steps_of_flow(f.flow) as s
            where s.step = m.step and s.type = 'pass'
            limit 1
        ) d
        order by m.nth
    loop
        update pgflow.run r
        set last_event_no = r.last_event_no + 1, step_count = r.step_count + 1
        where r.project_id = p_project and r.run_id = v_new.flow_id
        returning r.* into v_flow;
        update pgflow.flow_step s
        set state = 'completed', child_run_id = null, ended_at = p_now,
            ended_event_no = v_flow.last_event_no,
            super_step = case when v_flow.state <> 'paused' and not pgflow._stops_at(p_project,
                v_flow.run_id, v_flow.breakpoints, 'after', v_new.step)
                then v_flow.super_step end,
            output = pgflow._step_input(p_project, v_flow, v_new.needs)
        where s.project_id = p_project and s.run_id = v_flow.run_id and s.step = v_new.step
          and s.element = 0 and s.voided_at is null;
        if v_flow.watched then
            perform pgflow._hint_watchers(p_project, array[v_flow.run_id]);
        end if;
        if pgflow._is_followed(p_project) then
            perform pgflow._publish(p_project, array[v_flow.run_id], array[v_flow.last_event_no]);
        end if;
    end loop;
end
$$;
comment on function pgflow._pass_steps is
    'Completes steps of type pass, which are ready, with their inputs; where a flow is paused, or '
    'stops behind them, they don''t count yet. The caller holds the flows.';
