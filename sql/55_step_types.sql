-- Step types: what steps of a kind have in common is registered once, at any time. A step that
-- names a type is what the type says, but for what its own config says otherwise; and a version of
-- a flow keeps for ever what its types said when it was defined.

create or replace view pgflow.step_types with (security_barrier) as
select u.*
from (
    select t.project_id, t.name, t.interactive, t.kind, t.handler, t.form_schema, t.default_due,
        t.default_policy, t.default_config, t.description, false as is_built_in, t.registered_at,
        t.registered_by
    from pgflow.step_type t
    union all
    select p.project_id, b.name collate "C", b.interactive, null, null, null, null, null, '{}',
        b.description, true, null, null
    from pgflow.project p
    cross join (values
        ('approval_gate', true, 'A person approves.'),
        ('human_task', true, 'A person fills in a form.'),
        ('wait_event', false, 'A signal comes.'),
        ('timer', false, 'A time passes.'),
        ('flow', false, 'Another flow runs.'),
        ('pass', false, 'Nothing is done: its output is its input.')
    ) as b (name, interactive, description)
) u
where u.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.step_types is
    'What a step may name as its type: the engine''s own types and those that were registered.';
comment on column pgflow.step_types.interactive is 'Whether a person does it.';
comment on column pgflow.step_types.kind is
    'Which of the engine''s own types a registered one is made of, if a person does it.';
comment on column pgflow.step_types.handler is 'Who executes it, if no person does it.';
comment on column pgflow.step_types.default_due is
    'How long a task of it may take, unless its step says otherwise.';
comment on column pgflow.step_types.default_policy is
    'What happens then; table task_policy explains it.';
comment on column pgflow.step_types.default_config is
    'The config of its steps, where they say nothing else.';

-- ---- what a step of a type is

create or replace function pgflow._plain_config(p_config jsonb)
returns jsonb
language sql
immutable
as $$
    select coalesce(jsonb_object_agg(coalesce(w.plain, m.key), case
        when m.key = 'timeout_hours' and jsonb_typeof(m.value) = 'number'
            then to_jsonb(trim_scale(3600 * m.value::numeric))
        else m.value end), '{}')
    from jsonb_each(case jsonb_typeof(p_config) when 'object' then p_config end) as m
    left join (values ('assignee_id', 'assignee'), ('form_schema', 'form'),
        ('timeout_hours', 'due_in')) as w (said, plain) on w.said = m.key
$$;
comment on function pgflow._plain_config is
    'The config of a step that asks a person, in the words of park: due_in for timeout_hours.';

create or replace function pgflow._type_content(p_type pgflow.step_type)
returns jsonb
language plpgsql
immutable
as $$
begin
    if not p_type.interactive then
        return jsonb_build_object('handler', p_type.handler, 'config', p_type.default_config);
    end if;
    return jsonb_build_object('type', p_type.kind, 'config',
        pgflow._plain_config(p_type.default_config) || pgflow._members(jsonb_build_object(
            'form', p_type.form_schema, 'policy', p_type.default_policy,
            'due_in', trim_scale(extract(epoch from p_type.default_due)))));
end
$$;
comment on function pgflow._type_content is
    'What a step type says of its steps: handler or type, and config.';

create or replace function pgflow._types_named(p_project text, p_flow jsonb)
returns jsonb
language plpgsql
as $$
declare
    v_type pgflow.step_type;
    v_types jsonb := jsonb '{}';
begin
    for v_type in
        select t.* from pgflow.step_type t
        where t.project_id = p_project and t.name in (
            select s ->> 'type' from jsonb_array_elements(
                case jsonb_typeof(p_flow -> 'steps') when 'array' then p_flow -> 'steps' end) as s)
        order by t.name
        for share  -- or somebody could take it away before the flow that uses it is seen
    loop
        v_types := v_types || jsonb_build_object(v_type.name, pgflow._type_content(v_type));
    end loop;
    return v_types;
end
$$;
comment on function pgflow._types_named is
    'What the registered types say that the steps of a definition name, by name. They stay until '
    'the transaction ends.';

create or replace function pgflow._resolved_step(p_step jsonb, p_types jsonb)
returns jsonb
language plpgsql
immutable
as $$
declare
    v_type jsonb := p_types -> (p_step ->> 'type');
    v_config jsonb := coalesce(nullif(p_step -> 'config', 'null'), '{}');
begin
    if jsonb_typeof(p_step) <> 'object' or jsonb_typeof(v_config) <> 'object' then
        return p_step;  -- what is wrong with it is told
    elsif coalesce(v_type ->> 'type', p_step ->> 'type') in ('approval_gate', 'human_task') then
        v_config := pgflow._plain_config(v_config);
    elsif v_type is null then
        return p_step;
    end if;
    return case when v_type is null then p_step else (p_step - 'type') || v_type end
        || jsonb_build_object('config', coalesce(v_type -> 'config', '{}') || v_config);
end
$$;
comment on function pgflow._resolved_step is
    'A step as it is without types but the engine''s own: what its type says, but for what its own '
    'config says otherwise.';

create or replace function pgflow._resolved_flow(p_flow jsonb, p_types jsonb)
returns jsonb
language plpgsql
immutable
as $$
begin
    if jsonb_typeof(p_flow -> 'steps') is distinct from 'array' or p_flow -> 'steps' = '[]' then
        return p_flow;
    end if;
    return p_flow || jsonb_build_object('steps', (
        select jsonb_agg(pgflow._resolved_step(s.step, p_types) order by s.place)
        from jsonb_array_elements(p_flow -> 'steps') with ordinality as s (step, place)));
end
$$;
comment on function pgflow._resolved_flow is
    'A definition whose steps are what their types say.';

-- ---- what is wrong with a step of a type

create or replace function pgflow._config_faults(
    p_config jsonb, out field text, out expected text
)
returns setof record
language sql
immutable
as $$
    select f.field, f.expected
    from (values
        ('timeout_hours', 'hours, more than 0 and at most 87600, or null for no deadline',
            coalesce(p_config -> 'timeout_hours', 'null') <> 'null'
            and not pgflow._is_number(p_config -> 'timeout_hours', 0.000001, 87600)),
        ('timeout_hours', 'left out where there is due_in, its seconds',
            p_config ?& '{timeout_hours,due_in}'),
        ('assignee_id', 'left out where there is assignee', p_config ?& '{assignee_id,assignee}'),
        ('form_schema', 'left out where there is form', p_config ?& '{form_schema,form}')
    ) as f (field, expected, is_wrong)
    where f.is_wrong
$$;
comment on function pgflow._config_faults is
    'The members of a config that say otherwise what another says too, or say it wrong.';

create or replace function pgflow._type_faults(
    p_project text, p_steps jsonb, p_types jsonb, out field text, out message text
)
returns setof record
language plpgsql
as $$
declare
    v_names text[] := array(
        select t.name from pgflow.step_types t where t.project_id = p_project
        order by not t.is_built_in, t.name);
begin
    return query
    select format('definition.steps[%s].%s', s.place - 1, f.field),
        format('step %s: %s must be %s (given: %s)', coalesce(left(s.step ->> 'name', 100),
            format('[%s]', s.place - 1)), f.field, f.expected,
            left(coalesce(s.step #> string_to_array(f.field, '.'), 'null')::text, 200))
    from jsonb_array_elements(case jsonb_typeof(p_steps) when 'array' then p_steps end)
        with ordinality as s (step, place)
    cross join lateral (
        select 'type' as field, array_to_string(v_names, ', ') || ', or left out: a handler''s'
            as expected
        where s.step ->> 'type' <> all (v_names)
        union all
        select 'handler', format('left out: type %s says it', s.step ->> 'type')
        where p_types -> (s.step ->> 'type') ? 'handler' and s.step ? 'handler'
        union all
        select 'config.' || c.field, c.expected
        from pgflow._config_faults(s.step -> 'config') as c
        where coalesce(p_types #>> array[s.step ->> 'type', 'type'], s.step ->> 'type')
            in ('approval_gate', 'human_task')
    ) f
    where jsonb_typeof(s.step) = 'object' and jsonb_typeof(s.step -> 'type') = 'string';
end
$$;
comment on function pgflow._type_faults is
    'What is wrong with the types that steps name, and with what they say beside.';

-- ---- registering

create or replace function pgflow._check_step_type(p_type pgflow.step_type)
returns void
language plpgsql
as $$
declare
    v_config jsonb := p_type.default_config;
begin
    if coalesce(p_type.name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$', true) then
        perform pgflow._refuse_value('name', 'a name of 1 to 100 letters, digits, _, . or -, which '
            'begins with none of . and -', p_type.name);
    elsif p_type.name in ('handler', 'flow', 'pass', 'approval_gate', 'human_task', 'wait_event',
        'timer')
    then
        perform pgflow._refuse_value('name', 'none of the engine''s own: handler, flow, pass, '
            'approval_gate, human_task, wait_event, timer', p_type.name);
    elsif p_type.interactive is null then
        perform pgflow._refuse_value('interactive', 'true or false', null);
    elsif jsonb_typeof(v_config) is distinct from 'object' then
        perform pgflow._refuse_value('default_config', 'an object', v_config::text);
    elsif pg_column_size(v_config) > 65536 then
        perform pgflow._refuse_value('default_config', 'at most 64 kB',
            pg_column_size(v_config) || ' bytes');
    elsif char_length(p_type.description) > 10000 then
        perform pgflow._refuse_value('description', 'at most 10000 characters',
            char_length(p_type.description) || ' characters');
    elsif p_type.interactive then
        perform pgflow._check_interactive_type(p_type);
        return;
    end if;
    perform pgflow._refuse_value(f.field, 'left out: only interactive types have it', f.given)
    from (values ('form_schema', p_type.form_schema::text),
        ('default_due', p_type.default_due::text), ('default_policy', p_type.default_policy),
        ('kind', p_type.kind)) as f (field, given)
    where f.given is not null;
    if char_length(p_type.handler) not between 1 and 200 then
        perform pgflow._refuse_value('handler', '1 to 200 characters', p_type.handler);
    end if;
end
$$;
comment on function pgflow._check_step_type is 'Refuses (PF101) what no step type may say.';

create or replace function pgflow._check_interactive_type(p_type pgflow.step_type)
returns void
language plpgsql
as $$
declare
    v_fault text;
begin
    if p_type.handler is not null then
        perform pgflow._refuse_value('handler', 'left out: a person does an interactive type',
            p_type.handler);
    elsif p_type.kind not in ('approval_gate', 'human_task') then
        perform pgflow._refuse_value('kind', 'approval_gate or human_task', p_type.kind);
    elsif p_type.form_schema is not null then
        perform pgflow._check_form(p_type.form_schema, 'form_schema');
    end if;
    if p_type.default_due < '1 millisecond' or p_type.default_due > '3650 days' then
        perform pgflow._refuse_value('default_due', 'more than 0 and at most ten years',
            p_type.default_due::text);
    elsif not exists (select from pgflow.task_policy p
                      where p.policy = coalesce(p_type.default_policy, 'cancel')) then
        perform pgflow._refuse_value('default_policy', 'a policy of table pgflow.task_policy',
            p_type.default_policy);
    elsif p_type.default_config ?| '{form,form_schema,due_in,timeout_hours,policy}' then
        perform pgflow._refuse_value('default_config', 'without what form_schema, default_due and '
            'default_policy say', p_type.default_config::text);
    end if;
    v_fault := coalesce(
        (select format('%s must be %s', f.field, f.expected)
         from pgflow._config_faults(p_type.default_config) as f limit 1),
        pgflow._wait_fault(jsonb_build_object('name', p_type.name)
            || pgflow._type_content(p_type)));
    if v_fault is not null then
        perform pgflow._refuse_value('default_config', v_fault, p_type.default_config::text);
    end if;
end
$$;
comment on function pgflow._check_interactive_type is
    'Refuses (PF101) what no step type of a person may say.';

create or replace function pgflow.register_step_type(
    name text, interactive boolean default false, handler text default null,
    form_schema jsonb default null, default_due interval default null,
    default_policy text default null, default_config jsonb default '{}',
    description text default null, kind text default null, project text default null
)
returns pgflow.step_type
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_type pgflow.step_type;
begin
    v_type.project_id := pgflow._enter_project(register_step_type.project);
    v_type.name := register_step_type.name;
    v_type.interactive := register_step_type.interactive;
    v_type.kind := register_step_type.kind;
    v_type.handler := register_step_type.handler;
    if v_type.interactive then
        v_type.kind := coalesce(v_type.kind,
            case when register_step_type.form_schema is null then 'approval_gate'
                 else 'human_task' end);
    else
        v_type.handler := coalesce(v_type.handler, v_type.name);
    end if;
    v_type.form_schema := register_step_type.form_schema;
    v_type.default_due := register_step_type.default_due;
    v_type.default_policy := register_step_type.default_policy;
    v_type.default_config := coalesce(register_step_type.default_config, '{}');
    v_type.description := register_step_type.description;
    v_type.registered_at := pgflow.now();
    v_type.registered_by := pgflow._actor();
    perform pgflow._check_step_type(v_type);
    insert into pgflow.step_type as t select v_type.*
    on conflict on constraint step_type_pkey do update
    set interactive = excluded.interactive, kind = excluded.kind, handler = excluded.handler,
        form_schema = excluded.form_schema, default_due = excluded.default_due,
        default_policy = excluded.default_policy, default_config = excluded.default_config,
        description = excluded.description, registered_at = excluded.registered_at,
        registered_by = excluded.registered_by
    where (t.interactive, t.kind, t.handler, t.form_schema, t.default_due, t.default_policy,
           t.default_config, t.description)
          is distinct from (excluded.interactive, excluded.kind, excluded.handler,
              excluded.form_schema, excluded.default_due, excluded.default_policy,
              excluded.default_config, excluded.description);
    select t.* into v_type from pgflow.step_type t
    where t.project_id = v_type.project_id and t.name = v_type.name;
    return v_type;
end
$$;
comment on function pgflow.register_step_type is
    'Registers what steps of a type have in common: which handler executes them (by default that '
    'of the type''s name) or, if it is interactive, what a person is asked: kind approval_gate or, '
    'with a form, human_task. default_config holds where a step''s config says nothing else. '
    'Again is harmless; other content holds for flows that are defined from now on. Example: '
    'select pgflow.register_step_type(''legal'', true, default_due => ''2 days'', default_config '
    '=> ''{"assignee_role": "lawyers"}''). Raises PF101, PF502.';

create or replace function pgflow._users_of_type(p_project text, p_name text)
returns text
language plpgsql
stable
as $$
begin
    return (
        with version as (
            select distinct d.flow, d.version from pgflow.step_definition d
            where d.project_id = p_project and d.step_type = p_name
        ),
        usage as (
            select format('flow %s, version %s', v.flow, v.version) as used_by
            from version v
            join pgflow.flow f on f.project_id = p_project and f.flow = v.flow
                and f.version = v.version
            union all
            select format('run %s of flow %s, version %s', r.run_id, v.flow, v.version)
            from version v
            join pgflow.run r on r.project_id = p_project and r.kind = 'flow'
                and r.handler = v.flow and r.flow_version = v.version
            union all
            select format('step %s, which was added to run %s', o.step, o.run_id)
            from pgflow.run_step o
            join pgflow.run r on r.project_id = o.project_id and r.run_id = o.run_id
            where o.project_id = p_project and o.step_type = p_name and o.definition is not null
            limit 20
        )
        select string_agg(u.used_by, '; ') from usage u);
end
$$;
comment on function pgflow._users_of_type is
    'The current versions of flows that name a type, and the live runs of any such or with such a '
    'step, at most 20; null if there are none.';

create or replace function pgflow.unregister_step_type(name text, project text default null)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(unregister_step_type.project);
    v_users text;
begin
    if unregister_step_type.name in ('approval_gate', 'human_task', 'wait_event', 'timer', 'flow',
        'pass')
    then
        perform pgflow._refuse_value('name', 'none of the engine''s own types',
            unregister_step_type.name);
    end if;
    -- The lock is one statement and the look the next: who defines a flow with it holds it.
    perform from pgflow.step_type t
    where t.project_id = v_project and t.name = unregister_step_type.name
    for update;
    if not found then
        return false;
    end if;
    v_users := pgflow._users_of_type(v_project, unregister_step_type.name);
    if v_users is not null then
        perform pgflow._refuse('PF403',
            format('step type %s is still in use', unregister_step_type.name), v_users,
            'Define those flows without it, and end those runs or wait for their ends.', 'name');
    end if;
    delete from pgflow.step_type t
    where t.project_id = v_project and t.name = unregister_step_type.name;
    return true;
end
$$;
comment on function pgflow.unregister_step_type is
    'Takes a step type away; false if there is none of that name. Refused while the current '
    'version of a flow names it, or a version of which a run is live. Raises PF101, PF403, PF502.';
