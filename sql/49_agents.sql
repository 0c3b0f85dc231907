-- Agents and roles: a step says in which role its handler calls a model, and not which model that
-- is. When a run starts, each role is bound to a version of an agent; the run keeps the binding
-- with the hash of what it was bound to: it is the same after a crash, a pause or a deploy.

create or replace function pgflow._refuse_other_agent()
returns trigger
language plpgsql
as $$
begin
    perform pgflow._refuse('PF203',
        format('version %s of agent %s cannot be changed', old.version, old.agent),
        format('%s on %s is refused to everybody', lower(tg_op), tg_table_name),
        'Define the agent anew: that makes another version.');
    return null;
end
$$;
comment on function pgflow._refuse_other_agent is
    'Trigger function: raises PF203 for the change of an agent''s version.';

create or replace trigger agent_version_never_changes
before update or delete on pgflow.agent_version
for each row
execute function pgflow._refuse_other_agent();

create or replace function pgflow._agent_sha256(p_agent pgflow.agent_version)
returns bytea
language plpgsql
immutable
as $$
begin
    return pgflow._sha256(jsonb_build_object('agent', p_agent.agent, 'model', p_agent.model,
        'backend', p_agent.backend, 'config', p_agent.config));
end
$$;
comment on function pgflow._agent_sha256 is 'SHA-256 of what an agent is: all but its version.';

create or replace function pgflow.define_agent(
    name text, model text, backend text default null, config jsonb default '{}',
    project text default null
)
returns pgflow.agent_version
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_agent pgflow.agent_version;
    v_found pgflow.agent_version;
    v_current integer;
begin
    v_agent.project_id := pgflow._enter_project(define_agent.project);
    v_agent.agent := define_agent.name;
    v_agent.model := define_agent.model;
    v_agent.backend := define_agent.backend;
    v_agent.config := coalesce(define_agent.config, '{}');
    v_agent.created_at := pgflow.now();
    v_agent.created_by := pgflow._actor();
    if coalesce(v_agent.agent !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$', true) then
        perform pgflow._refuse_value('name', 'a name of 1 to 100 letters, digits, _, . or -, which '
            'begins with none of . and -', v_agent.agent);
    elsif coalesce(char_length(v_agent.model), 0) not between 1 and 200 then
        perform pgflow._refuse_value('model', '1 to 200 characters', v_agent.model);
    elsif char_length(v_agent.backend) not between 1 and 200 then
        perform pgflow._refuse_value('backend', '1 to 200 characters', v_agent.backend);
    elsif jsonb_typeof(v_agent.config) <> 'object' then
        perform pgflow._refuse_value('config', 'an object', v_agent.config::text);
    elsif pg_column_size(v_agent.config) > 262144 then
        perform pgflow._refuse_value('config', 'at most 256 kB',
            pg_column_size(v_agent.config) || ' bytes');
    end if;
    v_agent.sha256 := pgflow._agent_sha256(v_agent);
    insert into pgflow.agent (project_id, agent, version)
    values (v_agent.project_id, v_agent.agent, 0)
    on conflict do nothing;
    -- The lock is one statement and the look the next: two that define the same make one version.
    select a.version into v_current from pgflow.agent a
    where a.project_id = v_agent.project_id and a.agent = v_agent.agent
    for update;
    select v.* into v_found from pgflow.agent_version v
    where v.project_id = v_agent.project_id and v.agent = v_agent.agent
      and v.sha256 = v_agent.sha256;
    if not found then
        v_agent.version := 1 + coalesce((
            select max(v.version) from pgflow.agent_version v
            where v.project_id = v_agent.project_id and v.agent = v_agent.agent), 0);
        insert into pgflow.agent_version as v select v_agent.* returning v.* into v_found;
    end if;
    if v_current <> v_found.version then
        update pgflow.agent a set version = v_found.version
        where a.project_id = v_found.project_id and a.agent = v_found.agent;
    end if;
    return v_found;
end
$$;
comment on function pgflow.define_agent is
    'Stores what a role of a flow''s steps can be bound to: a model, the backend that serves it, '
    'and any config. New content is a new version; content that was defined before is the version '
    'that it was. Runs that start get the version that was defined last, others keep theirs. '
    'Example: select pgflow.define_agent(''planner'', ''large-1'', config => '
    '''{"temperature": 0}''). Raises PF101, PF502.';

create or replace view pgflow.agents with (security_barrier) as
select v.project_id, v.agent, v.version, v.version = a.version as is_current, v.model, v.backend,
    v.config, encode(v.sha256, 'hex') as sha256, v.created_at, v.created_by
from pgflow.agent_version v
join pgflow.agent a using (project_id, agent)
where v.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.agents is
    'What roles of steps can be bound to, all versions. A role that a start binds to nothing else '
    'is bound to the agent of its name.';
comment on column pgflow.agents.is_current is 'Whether it is the version that was defined last.';
comment on column pgflow.agents.sha256 is
    'Hex SHA-256 of name, model, backend and config, by which the same content is the same '
    'version.';

-- ---- binding

create or replace function pgflow._own_roles(p_flow jsonb)
returns text[]
language plpgsql
immutable
as $$
begin
    if not p_flow @? '$.steps[*] ? (exists(@.role) || @.type == "flow")' then
        return null;
    end if;
    return array(
        select distinct s ->> 'role' from jsonb_array_elements(p_flow -> 'steps') as s
        where s ? 'role'
        order by 1);
end
$$;
comment on function pgflow._own_roles is
    'The roles of a definition''s steps; null if it has none and no flow within.';

create or replace function pgflow._roles_of(p_version pgflow.flow_version)
returns text[]
language plpgsql
stable
as $$
begin
    if p_version.roles is null then
        return '{}';
    end if;
    return array(
        with recursive inner_flow as (
            select p_version.flow, p_version.version, p_version.roles
            union
            select v.flow, v.version, v.roles
            from inner_flow i
            join pgflow.step_definition d on d.project_id = p_version.project_id
                and d.flow = i.flow and d.version = i.version and d.type = 'flow'
            join pgflow.flow f on f.project_id = d.project_id and f.flow = d.config ->> 'flow'
            join pgflow.flow_version v on v.project_id = f.project_id and v.flow = f.flow
                and v.version = coalesce((d.config ->> 'version')::integer, f.version)
            where i.roles is not null
        )
        select distinct u.role from inner_flow i cross join unnest(i.roles) as u (role)
        order by 1);
end
$$;
comment on function pgflow._roles_of is
    'The roles of a flow''s steps, and of those of the flows within as they are now.';

create or replace function pgflow._bound(p_project text, p_role text, p_given jsonb)
returns jsonb
language plpgsql
as $$
declare
    v_name text := case jsonb_typeof(p_given) when 'object' then p_given ->> 'agent'
                                              else p_given #>> '{}' end;
    v_agent pgflow.agent_version;
begin
    if not coalesce(case jsonb_typeof(p_given)
        when 'string' then true
        when 'object' then p_given - 'agent' - 'version' = '{}'
            and jsonb_typeof(p_given -> 'agent') = 'string'
            and (not p_given ? 'version' or pgflow._is_whole(p_given -> 'version', 1, 2147483647))
        end, false)
    then
        perform pgflow._refuse_value('bindings.' || p_role,
            'the name of an agent, or an object of agent and version', p_given::text);
    end if;
    select v.* into v_agent
    from pgflow.agent a
    join pgflow.agent_version v on v.project_id = a.project_id and v.agent = a.agent
        and v.version = coalesce(
            case when jsonb_typeof(p_given) = 'object' then (p_given -> 'version')::integer end,
            a.version)
    where a.project_id = p_project and a.agent = v_name;
    if not found then
        perform pgflow._refuse('PF112', format('role %s is bound to no agent: %s', p_role,
                left(p_given #>> '{}', 200)),
            format('agents of this project: %s', coalesce((
                select string_agg(a.agent, ', ' order by a.agent) from pgflow.agent a
                where a.project_id = p_project), 'none')),
            'pgflow.define_agent(name, model) makes one; start(bindings => ...) names another.',
            'bindings.' || p_role);
    end if;
    return jsonb_build_object('agent', v_agent.agent, 'version', v_agent.version,
        'sha256', encode(v_agent.sha256, 'hex'));
end
$$;
comment on function pgflow._bound is
    'What a role is bound to by the name of an agent, with or without its version. Raises PF101, '
    'PF112.';

create or replace function pgflow._with_bindings(
    p_version pgflow.flow_version, p_bindings jsonb
)
returns pgflow.flow_version
language plpgsql
as $$
declare
    v_version pgflow.flow_version := p_version;
    v_roles text[] := pgflow._roles_of(p_version);
    v_given jsonb := coalesce(nullif(p_bindings, 'null'), '{}');
    v_bindings jsonb := jsonb '{}';
    v_role text;
begin
    if jsonb_typeof(v_given) <> 'object' then
        perform pgflow._refuse_value('bindings', 'an object of roles', v_given::text);
    end if;
    perform pgflow._refuse_value('bindings.' || left(u, 100), 'a role of the flow''s steps: '
        || coalesce(nullif(array_to_string(v_roles, ', '), ''), 'it has none'), u)
    from jsonb_object_keys(v_given) as u
    where u <> all (v_roles);
    foreach v_role in array v_roles loop
        v_bindings := v_bindings || jsonb_build_object(v_role, pgflow._bound(p_version.project_id,
            v_role, coalesce(v_given -> v_role, to_jsonb(v_role))));
    end loop;
    if v_roles <> '{}' then
        v_version.definition := v_version.definition
            || jsonb_build_object('bindings', v_bindings);
    end if;
    return v_version;
end
$$;
comment on function pgflow._with_bindings is
    'A version of a flow for a run whose roles are bound, as said or to the agents of their names. '
    'Raises PF101, PF112.';

create or replace function pgflow._bind_roles(p_flow pgflow.run, p_step pgflow.run_step)
returns void
language plpgsql
as $$
declare
    v_inner pgflow.flow_version;
    v_bindings jsonb;
begin
    if p_step.type = 'flow' then
        v_inner := pgflow._found_flow(p_flow.project_id, p_step.config ->> 'flow',
            (p_step.config ->> 'version')::integer);
    end if;
    v_bindings := (
        select jsonb_object_agg(m.role,
            pgflow._bound(p_flow.project_id, m.role, to_jsonb(m.role)))
        from (
            select distinct u.role
            from unnest(pgflow._roles_of(v_inner) || p_step.role) as u (role)
            where u.role is not null and not coalesce(p_flow.bindings ? u.role, false)
            order by 1
        ) m);
    if v_bindings is not null then
        update pgflow.run r set bindings = coalesce(r.bindings, '{}') || v_bindings
        where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id;
    end if;
end
$$;
comment on function pgflow._bind_roles is
    'Binds those roles of a step that is added which the run has not bound to the agents of their '
    'names. Raises PF112.';

-- A flow within may have roles that nobody knew of when the one around it started: it was defined
-- anew since. A role without an agent stays unbound, for whoever has a flow go on has not asked for
-- this: the step is paused when its turn comes.
create or replace function pgflow._bindings_within(
    p_version pgflow.flow_version, p_bindings jsonb
)
returns jsonb
language plpgsql
as $$
declare
    v_missing jsonb := (
        select jsonb_object_agg(u.role,
            pgflow._bound(a.project_id, u.role, to_jsonb(u.role)))
        from unnest(pgflow._roles_of(p_version)) as u (role)
        join pgflow.agent a on a.project_id = p_version.project_id and a.agent = u.role
        where not coalesce(p_bindings ? u.role, false));
begin
    return coalesce(p_bindings || v_missing, p_bindings, v_missing);
end
$$;
comment on function pgflow._bindings_within is
    'What a flow within another is bound to, by what is bound already and, for roles that are not, '
    'by the agents of their names; null if it has none.';

-- ---- what a run was bound to

create or replace function pgflow._binding_fault(p_project text, p_bindings jsonb, p_role text)
returns text
language plpgsql
stable
as $$
declare
    v_bound jsonb := p_bindings -> p_role;
    v_agent pgflow.agent_version;
begin
    if v_bound is null then
        return format('the binding of role %s is missing: the run has none', p_role);
    elsif not coalesce(jsonb_typeof(v_bound -> 'agent') = 'string'
        and pgflow._is_whole(v_bound -> 'version', 1, 2147483647)
        and pgflow._is_text(v_bound -> 'sha256', '^[0-9a-f]{64}$'), false)
    then
        return format('the binding of role %s is malformed: %s', p_role,
            left(v_bound::text, 200));
    end if;
    select v.* into v_agent from pgflow.agent_version v
    where v.project_id = p_project and v.agent = v_bound ->> 'agent'
      and v.version = (v_bound -> 'version')::integer;
    if not found then
        return format('the binding of role %s is missing: there is no agent %s, version %s',
            p_role, v_bound ->> 'agent', v_bound ->> 'version');
    elsif pgflow._agent_sha256(v_agent) <> decode(v_bound ->> 'sha256', 'hex') then
        return format('the binding of role %s is malformed: agent %s, version %s, is not what the '
            'run was bound to', p_role, v_agent.agent, v_agent.version);
    end if;
    return null;
end
$$;
comment on function pgflow._binding_fault is
    'Why a run has not what a role was bound to when it started; null if it has.';

create or replace function pgflow._binding(p_project text, p_bindings jsonb, p_role text)
returns jsonb
language plpgsql
stable
as $$
declare
    v_fault text := pgflow._binding_fault(p_project, p_bindings, p_role);
begin
    if v_fault is not null then
        return jsonb_build_object('role', p_role, 'fault', v_fault);
    end if;
    return (
        select jsonb_build_object('role', p_role, 'agent', v.agent, 'version', v.version,
            'sha256', p_bindings #> array[p_role, 'sha256'], 'model', v.model,
            'backend', v.backend, 'config', v.config)
        from pgflow.agent_version v
        where v.project_id = p_project and v.agent = p_bindings #>> array[p_role, 'agent']
          and v.version = (p_bindings #> array[p_role, 'version'])::integer);
end
$$;
comment on function pgflow._binding is
    'What a role of a run is bound to: agent, version, sha256, model, backend, config; or fault, '
    'why that is not there any more.';

create or replace function pgflow._check_bindings(p_run pgflow.run, p_what text)
returns void
language plpgsql
as $$
declare
    v_bindings jsonb := p_run.bindings;
    v_roles text[];
    v_faults text[];
begin
    if p_run.kind = 'flow' then
        v_roles := array(
            select jsonb_object_keys(case jsonb_typeof(p_run.bindings) when 'object'
                then p_run.bindings end)
            union
            select unnest(v.roles) from pgflow.flow_version v
            where v.project_id = p_run.project_id and v.flow = p_run.handler
              and v.version = p_run.flow_version
            order by 1);
    elsif p_run.step is not null then
        v_roles := array_remove(array[(pgflow._step_of(p_run)).role], null);
        v_bindings := (
            select r.bindings from pgflow.run r
            where r.project_id = p_run.project_id and r.run_id = p_run.parent_run_id);
    end if;
    v_faults := array(
        select f.fault
        from unnest(v_roles) as u (role)
        cross join lateral pgflow._binding_fault(p_run.project_id, v_bindings, u.role) as f (fault)
        where f.fault is not null
        order by u.role);
    if v_faults <> '{}' then
        perform pgflow._refuse('PF205', format('run %s cannot %s: E-RUN-012: %s', p_run.run_id,
                p_what, v_faults[1]),
            array_to_string(v_faults, '; '),
            'What a run is bound to is never exchanged: bring it back, or start another run.',
            'run_id');
    end if;
end
$$;
comment on function pgflow._check_bindings is
    'Raises PF205 for a flow''s run, or that of a step, whose roles are not bound to what they '
    'were at the start.';

create or replace function pgflow._with_bindings_of(
    p_version pgflow.flow_version, p_run pgflow.run, p_what text
)
returns pgflow.flow_version
language plpgsql
as $$
declare
    v_version pgflow.flow_version := p_version;
begin
    perform pgflow._check_bindings(p_run, p_what);
    if p_run.bindings is not null then
        v_version.definition := v_version.definition
            || jsonb_build_object('bindings', p_run.bindings);
    end if;
    return v_version;
end
$$;
comment on function pgflow._with_bindings_of is
    'A version of a flow for a run that is bound to what another was. Raises PF205.';

create or replace function pgflow._report_bindings(p_project text, p_bindings jsonb)
returns jsonb
language plpgsql
stable
as $$
begin
    return (
        select coalesce(jsonb_agg(pgflow._binding(p_project, p_bindings, k) - 'config'
            order by k collate "C"), '[]')
        from jsonb_object_keys(case jsonb_typeof(p_bindings) when 'object' then p_bindings end)
            as k);
end
$$;
comment on function pgflow._report_bindings is
    'What the roles of a run were bound to, in their order; of agents all but the config.';

create or replace function pgflow._unbound_roles(
    p_project text, out flow text, out role text
)
returns setof record
language plpgsql
stable
as $$
begin
    return query
    select v.flow::text, u.role::text
    from pgflow.flow f
    join pgflow.flow_version v on v.project_id = f.project_id and v.flow = f.flow
        and v.version = f.version
    cross join unnest(v.roles) as u (role)
    where f.project_id = p_project
      and not exists (select from pgflow.agent a
                      where a.project_id = p_project and a.agent = u.role)
    order by 1, 2;
end
$$;
comment on function pgflow._unbound_roles is
    'The roles of current flows for which there is no agent of their name.';
