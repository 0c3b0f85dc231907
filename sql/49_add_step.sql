-- Steps that are added to a flow while it is under way, by whoever steers it or by a step that
-- finds out what there is to do. They are checked as define_flow checks a definition.

create or replace function pgflow._added_field(p_field text)
returns text
language sql
immutable
as $$
    select regexp_replace(p_field, '^definition\.steps\[\d+\]', 'step')
$$;
comment on function pgflow._added_field is
    'The name of a fault''s field, where a definition is made of a single step that was given.';

-- A flow of the new step and those that it is tied to, which is checked as any other. What lies
-- between those in the run is left out: of two, one of which comes after the other, the later needs
-- the earlier here. So a way around that leads through the run is one here, too.
create or replace function pgflow._flow_around(
    p_flow pgflow.run, p_definition jsonb, p_step jsonb, p_needed_by text[]
)
returns jsonb
language plpgsql
stable
as $$
declare
    v_name text := p_step ->> 'name';
    v_needs text[] := array(
        select jsonb_array_elements_text(
            case when pgflow._are_names(p_step -> 'needs') then p_step -> 'needs' end));
    v_if_failed text := case jsonb_typeof(p_step #> '{on_failure,run}')
        when 'string' then p_step #>> '{on_failure,run}' end;
    v_after text[] := p_needed_by || v_if_failed;
begin
    return (p_definition - '{output,breakpoints,budget,input_schema,description}'::text[])
        || jsonb_build_object('steps', jsonb_build_array(p_step) || coalesce((
            select jsonb_agg(jsonb_build_object('name', d.step, 'needs', (
                    select coalesce(jsonb_agg(distinct n.step), '[]')
                    from (
                        select v_name as step where d.step = any (p_needed_by)
                        union all
                        select a.step from unnest(v_after) as a (step)
                        where a.step <> d.step and d.step = any (v_needs)
                          and d.step = any (pgflow._steps_around(p_flow, a.step, false))
                    ) n))
                || case when d.step = v_if_failed then jsonb_build_object('join', d.join_rule)
                        else '{}' end
                order by d.place)
            from pgflow._steps_of_flow(p_flow) as d
            where d.step = any (v_needs || v_after) and d.step is distinct from v_name), '[]'));
end
$$;
comment on function pgflow._flow_around is
    'A definition of a step that is to be added and of those that it needs, or that need it.';

create or replace function pgflow._added_step_faults(
    p_flow pgflow.run, p_step jsonb, p_needed_by text[], out field text, out message text
)
returns setof record
language plpgsql
stable
as $$
begin
    return query
    select n.field, format('step %s: %s names %s, which %s', left(p_step ->> 'name', 100), n.field,
        left(n.name, 100), case when d.step is null then 'is no step of this flow'
            else 'is ' || s.state || ' already' end)
    from (
        select 'needed_by' as field, u.name from unnest(p_needed_by) as u (name)
        union all
        select 'on_failure', p_step #>> '{on_failure,run}'
        where jsonb_typeof(p_step #> '{on_failure,run}') = 'string'
    ) n
    left join lateral (
        select d.step from pgflow._steps_of_flow(p_flow) as d where d.step = n.name limit 1
    ) d on true
    left join pgflow.flow_step s on s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
        and s.step = n.name and s.element = 0 and s.voided_at is null
    where d.step is null and n.field = 'needed_by' or d.step is not null and s.state <> 'pending';
    return query
    select 'step.name', format('step %s: another step has this name', d.step)
    from pgflow._steps_of_flow(p_flow) as d
    where d.step = p_step ->> 'name';
    return query
    select 'step.gates', format('step %s: gates must be left out: add a step of type '
        'approval_gate that needs this one', left(p_step ->> 'name', 100))
    where jsonb_path_exists(p_step, '$.gates[*]');
    return query
    select 'step', 'a flow has at most 10000 steps'
    from pgflow._steps_of_flow(p_flow) as d
    where d.place >= 10000
    limit 1;
end
$$;
comment on function pgflow._added_step_faults is
    'What is wrong with a step for the run that it is to be added to.';

create or replace function pgflow._check_added_step(
    p_flow pgflow.run, p_around jsonb, p_types jsonb, p_needed_by text[]
)
returns void
language plpgsql
as $$
declare
    v_step jsonb := p_around #> '{steps,0}';
    v_faults jsonb;
begin
    v_faults := (
        select jsonb_agg(jsonb_build_object('field', pgflow._added_field(f.field),
            'message', f.message))
        from (
            select * from pgflow._added_step_faults(p_flow, v_step, p_needed_by)
            union all
            select * from pgflow._type_faults(p_flow.project_id, p_around -> 'steps', p_types)
            union all
            select * from pgflow._flow_faults(pgflow._resolved_flow(p_around, p_types))
            union all
            select 'step.' || s.field, format('step %s: %s', v_step ->> 'name', s.message)
            from pgflow._sub_flow_faults(p_flow.project_id, p_flow.handler, p_around -> 'steps')
                as s) f);
    if v_faults is not null then
        perform pgflow._refuse('PF101', v_faults #>> '{0,message}',
            jsonb_build_object('faults', v_faults)::text,
            'Nothing was added; the detail has all faults.', v_faults #>> '{0,field}');
    elsif jsonb_typeof(v_step #> '{artifact,schema}') = 'string' then
        perform pgflow._found_schema(p_flow.project_id, v_step #>> '{artifact,schema}',
            (v_step #> '{artifact,schema_version}')::integer, 'step.artifact.schema');
    end if;
end
$$;
comment on function pgflow._check_added_step is
    'Refuses (PF101, PF110) a step that cannot be added, as define_flow refuses a definition.';

create or replace function pgflow._add_step(
    p_flow pgflow.run, p_step jsonb, p_needed_by text[], p_adder pgflow.run
)
returns boolean
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_version pgflow.flow_version := pgflow._found_flow(p_flow.project_id, p_flow.handler,
        p_flow.flow_version);
    v_around jsonb := pgflow._flow_around(p_flow, v_version.definition, p_step, p_needed_by);
    v_canonical jsonb := pgflow._canonical_step(p_step);
    v_types jsonb;
    v_flow pgflow.run;
    v_step pgflow.run_step;
begin
    perform from pgflow.run_step s
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
      and s.step = v_canonical ->> 'name' and s.definition = v_canonical
      and s.needed_by = p_needed_by and s.withdrawn_at is null;
    if found then
        return false;
    end if;
    v_types := nullif(pgflow._types_named(p_flow.project_id, v_around), '{}');
    perform pgflow._check_added_step(p_flow, v_around, v_types, p_needed_by);
    v_version.definition := pgflow._with_schemas(p_flow.project_id,
        pgflow._canonical_flow(v_around));
    v_version.step_types := v_types;
    select d.*, p_flow.run_id, v_canonical, p_needed_by, v_canonical -> 'budget',
        p_flow.super_step, p_adder.step,
        case when p_adder.step is not null then pgflow._element_of(p_adder.parent_key) end,
        null::timestamptz, v_now, pgflow._actor()
    into v_step
    from pgflow._step_rows(v_version) as d
    where d.place = 1;
    v_step.needs := pgflow._needs_in_flow(p_flow, v_canonical);
    select max(d.place) + 1,
        1 + coalesce(max(d.layer) filter (where d.step = any (v_step.needs)), 0)
    into v_step.place, v_step.layer
    from pgflow._steps_of_flow(p_flow) as d;
    perform pgflow._put_step(p_flow, v_step);
    perform pgflow._bind_roles(p_flow, v_step);
    update pgflow.run r set last_event_no = r.last_event_no + 1
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id
    returning r.* into v_flow;
    perform pgflow._event(v_flow, v_flow.last_event_no, 'step.added', v_now,
        jsonb_strip_nulls(jsonb_build_object('needs', v_step.needs,
            'needed_by', nullif(v_step.dependants, '{}'), 'by_step', p_adder.step)),
        false, v_step.step);
    perform pgflow._begin_to_count(v_flow, array[v_step.step]);
    perform pgflow._advance(v_flow.project_id, array[v_flow.run_id], array[null::text],
        v_step.step);
    if v_flow.state = 'paused' then
        perform pgflow._pause_steps(v_flow, v_flow.deadlines_held_at is not null);
    end if;
    perform pgflow._look_at_flows(v_flow.project_id, array[v_flow.run_id]);
    return true;
end
$$;
comment on function pgflow._add_step is
    'Adds a step to a flow that the caller holds with its family, for the run of the step that '
    'does so, if one does, and begins it if it has all that it needs; false if it is there. Raises '
    'PF101, PF110, PF112.';

create or replace function pgflow._lock_flow_of_step(
    p_project text, p_run_id uuid, p_lease_no integer
)
returns pgflow.run
language plpgsql
as $$
declare
    v_flow_id uuid;
    v_flow pgflow.run;
    v_run pgflow.run;
begin
    select r.parent_run_id into v_flow_id from pgflow.run r
    where r.project_id = p_project and r.run_id = p_run_id and r.step is not null;
    v_flow := pgflow._locked_to_end(p_project, v_flow_id);
    v_run := pgflow._held(p_project, p_run_id, p_lease_no);
    if v_run.run_id is null then
        perform pgflow._refuse('PF301', format('the lease of run %s is lost', p_run_id),
            format('run %s is not running under lease %s', p_run_id, p_lease_no),
            'Nothing was added; whoever has the run now will.', 'lease_no');
    elsif v_run.step is null then
        perform pgflow._refuse_value('run_id', 'the run of a step of a flow', 'a ' || v_run.kind);
    elsif v_flow.run_id is null then  -- it left this step behind, which another held
        perform pgflow._refuse_gone(p_project, v_flow_id, 'take steps');
    end if;
    return v_flow;
end
$$;
comment on function pgflow._lock_flow_of_step is
    'Locks the flow of a step that is held under a lease, with its family. Raises PF101, PF202, '
    'PF301.';

create or replace function pgflow.add_step(
    run_id uuid, step jsonb, needed_by text[] default '{}', lease_no integer default null,
    project text default null
)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(add_step.project);
    v_flow pgflow.run;
    v_adder pgflow.run;
begin
    if jsonb_typeof(add_step.step) is distinct from 'object' then
        perform pgflow._refuse_value('step', 'an object', add_step.step::text);
    elsif pg_column_size(add_step.step) > 1048576 then
        perform pgflow._refuse_value('step', 'at most 1 MB',
            pg_column_size(add_step.step) || ' bytes');
    end if;
    if add_step.lease_no is not null then
        v_flow := pgflow._lock_flow_of_step(v_project, add_step.run_id, add_step.lease_no);
        select r.* into v_adder from pgflow.run r
        where r.project_id = v_project and r.run_id = add_step.run_id;
    else
        v_flow := pgflow._locked_to_end(v_project, add_step.run_id);
        if v_flow.run_id is null then
            perform pgflow._refuse_gone(v_project, add_step.run_id, 'take steps');
        elsif v_flow.kind <> 'flow' then
            perform pgflow._refuse_value('run_id', 'the run of a flow', 'a ' || v_flow.kind);
        end if;
    end if;
    return pgflow._add_step(v_flow, add_step.step, array(
            select distinct n.step collate "C" from unnest(add_step.needed_by) as n (step)
            order by 1), v_adder);
end
$$;
comment on function pgflow.add_step is
    'Adds a step, as define_flow takes them, to a flow that is under way; it begins as soon as '
    'what it needs has ended. needed_by are steps that have not begun and are to need it too. '
    'Returns true; false if the very same was added before. Another step of that name is refused. '
    'With a lease_no run_id is that of a step, which adds to its flow as long as it holds that '
    'lease. Example: select pgflow.add_step(''...'', ''{"name": "translate", "needs": '
    '["draft"]}''). Raises PF101, PF102, PF110, PF112, PF202, PF301, PF502.';
