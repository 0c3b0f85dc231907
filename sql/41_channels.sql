-- Channels, conditions and the schema of the input, as the definition of a flow has them.

create or replace function pgflow._reducer_of(p_channel jsonb)
returns text
language sql
immutable
as $$
    select case coalesce(p_channel ->> 'reducer', 'last')
        when 'last_write_wins' then 'last'
        when 'merge_map' then 'merge'
        else coalesce(p_channel ->> 'reducer', 'last') end
$$;
comment on function pgflow._reducer_of is
    'The reducer of a channel as it is defined: last, if none.';

create or replace function pgflow._channel_faults(
    p_name text, p_channel jsonb, out field text, out expected text
)
returns setof record
language plpgsql
stable
as $$
begin
    if p_name !~ '^[A-Za-z_][A-Za-z0-9_]{0,99}$' collate "C" then
        return query select null::text, text 'named by 1 to 100 letters, digits or _';
    end if;
    if jsonb_typeof(p_channel) <> 'object' then
        return query select null::text, text 'an object of reducer and default';
        return;
    end if;
    return query
    select m.key, case m.key
        when 'reducer' then (
            select string_agg(k.name, ', ' order by k.place, k.name)
            from (select b.name, b.place from unnest(pgflow._builtin_reducers()) with ordinality
                      as b (name, place)
                  union all
                  select r.reducer, 1000 from pgflow.reducer r) as k)
        when 'default' then pgflow._value_fault(pgflow._reducer_of(p_channel), m.value)
            || ', as reducer ' || pgflow._reducer_of(p_channel) || ' wants it' end
    from jsonb_each(pgflow._members(p_channel)) as m
    where case m.key
        when 'reducer' then jsonb_typeof(m.value) <> 'string'
            or not pgflow._is_reducer(pgflow._reducer_of(p_channel))
        when 'default' then
            pgflow._value_fault(pgflow._reducer_of(p_channel), m.value) is not null
        else true end;
end
$$;
comment on function pgflow._channel_faults is
    'What is wrong with a channel of a definition, null standing for the whole; what each must be, '
    'null: left out.';

-- A path that gives values is taken for a predicate too easily: $.approved is true of none.
create or replace function pgflow._condition_fault(p_when jsonb)
returns text
language plpgsql
stable
as $$
begin
    if p_when is null or p_when = 'null' then
        return null;
    elsif jsonb_typeof(p_when) <> 'string' then
        return 'a text';
    end if;
    perform jsonb_path_match('{}', (p_when #>> '{}')::jsonpath, '{"input": {}, "inputs": {}}',
        false);
    return null;
exception
    when data_exception or syntax_error or undefined_object or feature_not_supported
        or program_limit_exceeded then
        return format('a predicate in jsonpath, as $.score > 0.5 is one (%s)', sqlerrm);
end
$$;
comment on function pgflow._condition_fault is
    'What a step''s condition must be, and is not; null if it is right, or there is none.';

create or replace function pgflow._input_schema_fault(
    p_schema jsonb, out field text, out message text
)
returns record
language plpgsql
stable
as $$
begin
    perform pgflow._check_form(p_schema, 'input_schema');
exception
    when sqlstate 'PF101' then
        get stacked diagnostics field = column_name, message = message_text;
end
$$;
comment on function pgflow._input_schema_fault is
    'What is wrong with the schema of a flow''s input; nulls if nothing is.';

create or replace function pgflow._state_faults(p_flow jsonb, out field text, out message text)
returns setof record
language plpgsql
stable
as $$
begin
    return query
    select concat_ws('.', pgflow._member('definition.channels', c.key), f.field),
        format('channel %s: %s', left(c.key, 100),
            case when f.expected is null then f.field || ' is no member of a channel'
                 else format('%s must be %s (given: %s)', coalesce(f.field, 'it'), f.expected,
                     left(coalesce(c.value -> f.field, c.value)::text, 200)) end)
    from jsonb_each(case jsonb_typeof(p_flow -> 'channels') when 'object'
        then p_flow -> 'channels' end) as c
    cross join lateral pgflow._channel_faults(c.key, c.value) as f;
    return query
    select format('definition.steps[%s].when', s.place - 1),
        format('step %s: when must be %s (given: %s)',
            coalesce(left(s.step ->> 'name', 100), format('[%s]', s.place - 1)), f.expected,
            left((s.step -> 'when')::text, 200))
    from jsonb_array_elements(case jsonb_typeof(p_flow -> 'steps') when 'array'
        then p_flow -> 'steps' end) with ordinality as s (step, place)
    cross join lateral pgflow._condition_fault(s.step -> 'when') as f (expected)
    where f.expected is not null;
    if jsonb_typeof(p_flow -> 'input_schema') = 'object' then
        return query
        select 'definition.' || f.field, f.message
        from pgflow._input_schema_fault(p_flow -> 'input_schema') as f
        where f.message is not null;
    end if;
end
$$;
comment on function pgflow._state_faults is
    'What is wrong with the channels, the conditions and the input''s schema of a definition.';

create or replace function pgflow._canonical_state(p_flow jsonb)
returns jsonb
language sql
immutable
as $$
    select p_flow - 'channels' - case when p_flow -> 'layered' = 'false' then 'layered' else '' end
        || coalesce((
            select jsonb_build_object('channels', jsonb_object_agg(c.key,
                pgflow._members(c.value) - 'reducer' || case pgflow._reducer_of(c.value)
                    when 'last' then '{}'
                    else jsonb_build_object('reducer', pgflow._reducer_of(c.value)) end))
            from jsonb_each(p_flow -> 'channels') as c
            having count(*) > 0), '{}')
$$;
comment on function pgflow._canonical_state is
    'A definition whose channels are without what is said by default.';

create or replace function pgflow._store_channels(p_version pgflow.flow_version)
returns void
language plpgsql
as $$
begin
    insert into pgflow.channel_definition (project_id, flow, version, channel, reducer,
        default_value)
    select p_version.project_id, p_version.flow, p_version.version, c.key,
        pgflow._reducer_of(c.value), c.value -> 'default'
    from jsonb_each(p_version.definition -> 'channels') as c;
end
$$;
comment on function pgflow._store_channels is 'Writes the channels of a new version of a flow.';

create or replace trigger channel_definition_never_changes
before update or delete on pgflow.channel_definition
for each row
execute function pgflow._refuse_redefinition();

create or replace function pgflow._input_faults(p_version pgflow.flow_version, p_input jsonb)
returns jsonb
language plpgsql
stable
as $$
begin
    if p_version.definition ? 'input_schema' then
        return (
            select jsonb_agg(jsonb_build_object('path', f.path,
                'message', concat_ws(' ', f.path, f.message)))
            from (select * from pgflow._form_errors(p_version.definition -> 'input_schema',
                      coalesce(p_input, '{}'), 'input') limit 20) as f);
    end if;
    return null;
end
$$;
comment on function pgflow._input_faults is
    'What of an input does not fit the schema of a flow''s version: paths and messages, or null.';

create or replace function pgflow._check_input(p_version pgflow.flow_version, p_input jsonb)
returns void
language plpgsql
as $$
declare
    v_faults jsonb := pgflow._input_faults(p_version, p_input);
begin
    if v_faults is not null then
        perform pgflow._refuse('PF101', v_faults #>> '{0,message}',
            jsonb_build_object('faults', v_faults)::text,
            format('Version %s of flow %s has an input_schema; nothing was started.',
                p_version.version, p_version.flow), v_faults #>> '{0,path}');
    end if;
end
$$;
comment on function pgflow._check_input is
    'Refuses (PF101) an input that does not fit the schema of a flow''s version.';
