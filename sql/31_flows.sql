-- Flows: definitions of steps that need each other. A definition is stored once per content, and
-- never changes.

create or replace function pgflow._refuse_redefinition()
returns trigger
language plpgsql
as $$
begin
    perform pgflow._refuse('PF203',
        format('version %s of flow %s cannot be changed', old.version, old.flow),
        format('%s on %s is refused to everybody', lower(tg_op), tg_table_name),
        'Define the flow anew: that makes another version.');
    return null;
end
$$;
comment on function pgflow._refuse_redefinition is
    'Trigger function: raises PF203 for the change of a flow''s version.';

create or replace trigger flow_version_never_changes
before update or delete on pgflow.flow_version
for each row
execute function pgflow._refuse_redefinition();

create or replace trigger step_definition_never_changes
before update or delete on pgflow.step_definition
for each row
execute function pgflow._refuse_redefinition();

create or replace function pgflow._plain_number(p_value jsonb)
returns jsonb
language sql
immutable
as $$
    select case jsonb_typeof(p_value) when 'number' then to_jsonb(trim_scale(p_value::numeric)) end
$$;
comment on function pgflow._plain_number is 'A number as it is written shortest: 60, not 60.0.';

create or replace function pgflow._canonical_step(p_step jsonb)
returns jsonb
language sql
immutable
as $$
    with step as (
        select pgflow._members(p_step) || jsonb_strip_nulls(jsonb_build_object(
            'timeout', pgflow._plain_number(p_step -> 'timeout'),
            'retry', (select coalesce(jsonb_object_agg(r.key, pgflow._plain_number(r.value)), '{}')
                      from jsonb_each(pgflow._members(p_step -> 'retry')) as r))) as step
    )
    select jsonb_object_agg(m.key, m.value)
    from step s
    cross join jsonb_each(s.step) as m
    where (m.key, m.value) not in (('needs', '[]'), ('config', '{}'), ('retry', '{}'),
        ('join', '"all"'), ('on_failure', '"fail"'), ('handler', p_step -> 'name'))
$$;
comment on function pgflow._canonical_step is
    'A step without what is said by default: two that mean the same are the same.';

create or replace function pgflow._canonical_flow(p_flow jsonb)
returns jsonb
language sql
immutable
as $$
    select (case when p_flow -> 'output' = '{}' then pgflow._members(p_flow) - 'output'
                 else pgflow._members(p_flow) end)
        || jsonb_build_object('steps', (
            select jsonb_agg(pgflow._canonical_step(s.step) order by s.place)
            from jsonb_array_elements(p_flow -> 'steps') with ordinality as s (step, place)))
$$;
comment on function pgflow._canonical_flow is 'A definition without what is said by default.';

create or replace function pgflow._step_rows(p_version pgflow.flow_version)
returns setof pgflow.step_definition
language plpgsql
stable
as $$
declare
    v_flow jsonb := p_version.definition || jsonb_build_object('steps',
        pgflow._with_gates(p_version.definition -> 'steps'));
    v_layers integer[] := pgflow._flow_layers(v_flow -> 'steps');
begin
    return query
    with edge as materialized (
        select distinct e.from_place, e.to_place, e.is_on_failure
        from pgflow._flow_edges(v_flow -> 'steps') as e
    ),
    step as (
        select r.step, s.place::integer, r.step -> 'retry' as retry,
            r.step ->> 'name' as name, s.step ->> 'type' as step_type
        from jsonb_array_elements(v_flow -> 'steps') with ordinality as s (step, place)
        cross join lateral (
            select pgflow._resolved_step(s.step, p_version.step_types)
        ) r (step)
    ),
    needed as (
        select e.to_place as place, array_agg(distinct s.name) as names,
            bool_or(e.is_on_failure) as is_on_failure
        from edge e join step s on s.place = e.from_place group by e.to_place
    ),
    dependant as (
        select e.from_place as place, array_agg(distinct s.name) as names
        from edge e join step s on s.place = e.to_place group by e.from_place
    )
    select p_version.project_id, p_version.flow, p_version.version, s.name, s.place,
        v_layers[s.place], coalesce(s.step ->> 'type', 'handler'),
        coalesce(s.step ->> 'handler', s.step ->> 'type', s.name),
        coalesce(s.step ->> 'queue', v_flow ->> 'queue'),
        coalesce(s.step ->> 'join', case when n.is_on_failure then 'one_failed' else 'all' end),
        case when jsonb_typeof(s.step -> 'on_failure') = 'object' then 'continue'
             else coalesce(s.step ->> 'on_failure', 'fail') end,
        (s.retry ->> 'max_attempts')::integer,
        make_interval(secs => (s.step ->> 'timeout')::float8),
        make_interval(secs => (s.retry ->> 'base')::float8), (s.retry ->> 'factor')::float8,
        make_interval(secs => (s.retry ->> 'longest')::float8), coalesce(n.names, '{}'),
        coalesce(d.names, '{}'),
        case when s.step ->> 'type' not in ('flow', 'pass') then pgflow._wait_of(s.step)
            else coalesce(s.step -> 'config', '{}') end,
        (s.step ->> 'when')::jsonpath, coalesce((v_flow -> 'layered')::boolean, false),
        pgflow._each_path(s.step ->> 'each'), s.step -> 'artifact', s.step_type,
        s.step ->> 'gate_of', s.step ->> 'last_gate', s.step ->> 'role'
    from step s
    left join needed n using (place)
    left join dependant d using (place);
end
$$;
comment on function pgflow._step_rows is
    'The steps of a definition that is checked, as rows of step_definition.';

create or replace function pgflow.define_flow(definition jsonb, project text default null)
returns pgflow.flow_version
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(define_flow.project);
    v_now timestamptz := pgflow.now();
    v_types jsonb;
    v_flow jsonb;
    v_sha256 bytea;
    v_current integer;
    v_version pgflow.flow_version;
begin
    v_types := nullif(pgflow._types_named(v_project, define_flow.definition), '{}');
    perform pgflow._check_flow(v_project, define_flow.definition, v_types);
    perform pgflow._check_sub_flows(v_project, define_flow.definition);
    v_flow := pgflow._with_schemas(v_project,
        pgflow._canonical_gates(pgflow._canonical_state(
            pgflow._canonical_flow(define_flow.definition))));
    if pgflow._stops_named(v_flow -> 'breakpoints') is null then
        v_flow := v_flow - 'breakpoints';
    end if;
    v_sha256 := pgflow._sha256(
        v_flow || pgflow._members(jsonb_build_object('step_types', v_types)));
    insert into pgflow.flow (project_id, flow, version) values (v_project, v_flow ->> 'name', 0)
    on conflict do nothing;
    -- The lock is one statement and the look the next: two that define the same make one version.
    select f.version into v_current from pgflow.flow f
    where f.project_id = v_project and f.flow = v_flow ->> 'name'
    for update;
    select v.* into v_version from pgflow.flow_version v
    where v.project_id = v_project and v.flow = v_flow ->> 'name' and v.sha256 = v_sha256;
    if not found then
        insert into pgflow.flow_version (project_id, flow, version, sha256, created_at, created_by,
            definition, step_types, roles)
        select v_project, v_flow ->> 'name', coalesce(max(v.version), 0) + 1, v_sha256, v_now,
            pgflow._actor(), v_flow, v_types, pgflow._own_roles(v_flow)
        from pgflow.flow_version v
        where v.project_id = v_project and v.flow = v_flow ->> 'name'
        returning * into v_version;
        insert into pgflow.step_definition select s.* from pgflow._step_rows(v_version) as s;
        perform pgflow._store_budgets(v_version);
        perform pgflow._store_channels(v_version);
    end if;
    if v_current <> v_version.version then
        update pgflow.flow f set version = v_version.version
        where f.project_id = v_project and f.flow = v_version.flow;
    end if;
    return v_version;
end
$$;
comment on function pgflow.define_flow is
    'Stores a flow: a name and steps, each with name, handler, needs, config, retry, timeout, '
    'queue, join, on_failure, budget, artifact, gates, role; docs/flows.md tells what they mean. '
    'New content is a new version; content that was defined before is the version that it was. New '
    'runs get the version that was defined last, others keep theirs. Example: select '
    'pgflow.define_flow(''{"name": "review", "steps": [{"name": "draft"}, {"name": "publish", '
    '"needs": ["draft"]}]}''). Raises PF101, PF110, PF502.';

create or replace view pgflow.flows with (security_barrier) as
select v.project_id, v.flow, v.version, v.version = f.version as is_current,
    encode(v.sha256, 'hex') as sha256, v.created_at, v.created_by,
    jsonb_array_length(v.definition -> 'steps') as steps, v.definition, v.step_types
from pgflow.flow_version v
join pgflow.flow f using (project_id, flow)
where v.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.flows is 'Flows, all versions. pgflow.start(flow) runs the current one.';
comment on column pgflow.flows.is_current is 'Whether new runs get this version.';
comment on column pgflow.flows.sha256 is
    'Hex SHA-256 of the definition and its step_types, by which the same content is the same '
    'version.';
comment on column pgflow.flows.steps is 'How many steps it has.';
comment on column pgflow.flows.definition is
    'What define_flow was given, without what is said by default.';
comment on column pgflow.flows.step_types is
    'What the registered types that it names said when it was defined.';
