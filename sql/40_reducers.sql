-- Reducers: how what steps write changes the value of a channel. The built-in ones take any number
-- of values at once, and what they return can be reduced again: so what one super-step wrote is a
-- value like what is written, and the values of any moment are reduced from such.
--
-- Functions that administrators registered know two values only, the old and the new, so of theirs
-- the results are kept. They have any name: this file puts their calls together as text.

create or replace function pgflow._builtin_reducers()
returns text[]
language sql
immutable
as $$
    select '{last,append,merge,add,min,max,union}'::text[]
$$;
comment on function pgflow._builtin_reducers is 'The names of the reducers that are always there.';

-- A list is added with its elements, anything else as one: as jsonb does it.
create or replace function pgflow._elements(
    p_values jsonb[], out value jsonb, out nth bigint, out place bigint
)
returns setof record
language sql
immutable
as $$
    select e.value, v.nth, e.place
    from unnest(p_values) with ordinality as v (value, nth)
    cross join lateral jsonb_array_elements(case jsonb_typeof(v.value) when 'array' then v.value
        else jsonb_build_array(v.value) end) with ordinality as e (value, place)
$$;
comment on function pgflow._elements is
    'The elements of lists, and values that are none, in order.';

create or replace function pgflow._reduced(p_reducer text, p_values jsonb[])
returns jsonb
language sql
immutable
as $$
    select case case when cardinality(p_values) > 0 then p_reducer end
        when 'last' then p_values[cardinality(p_values)]
        when 'add' then (select to_jsonb(sum(v::numeric)) from unnest(p_values) as v)
        when 'min' then (select to_jsonb(min(v::numeric)) from unnest(p_values) as v)
        when 'max' then (select to_jsonb(max(v::numeric)) from unnest(p_values) as v)
        when 'append' then (
            select coalesce(jsonb_agg(e.value order by e.nth, e.place), '[]')
            from pgflow._elements(p_values) as e)
        when 'union' then (
            select coalesce(jsonb_agg(f.value order by f.nth, f.place), '[]')
            from (select distinct on (e.value) e.* from pgflow._elements(p_values) as e
                  order by e.value, e.nth, e.place) f)
        when 'merge' then (
            select coalesce(jsonb_object_agg(m.key, m.value order by v.nth), '{}')
            from unnest(p_values) with ordinality as v (value, nth)
            cross join lateral jsonb_each(v.value) as m)
    end
$$;
comment on function pgflow._reduced is
    'Values reduced by a built-in reducer, from the oldest on; null if there are none.';

-- What is added up is bounded, so that no sum is too large for a number.
create or replace function pgflow._write_fault(p_reducer text, p_value jsonb)
returns text
language sql
immutable
as $$
    select case
        when p_reducer in ('add', 'min', 'max')
            and not pgflow._is_number(p_value, -1e300, 1e300) then 'a number'
        when p_reducer = 'merge' and jsonb_typeof(p_value) <> 'object' then 'an object'
    end
$$;
comment on function pgflow._write_fault is
    'What a value must be to be written to a channel, and is not; null if it is right.';

create or replace function pgflow._value_fault(p_reducer text, p_value jsonb)
returns text
language sql
immutable
as $$
    select case
        when p_reducer in ('append', 'union') and jsonb_typeof(p_value) <> 'array' then 'a list'
        else pgflow._write_fault(p_reducer, p_value) end
$$;
comment on function pgflow._value_fault is
    'What the value of a channel must be, and is not; null if it is right.';

-- It is called with the rights of the engine's owner, unless it has its own owner's.
create or replace function pgflow._function_fault(p_function regprocedure)
returns text
language sql
stable
as $$
    select case
        when p.oid is null then 'there, named with its schema, which pgflow_owner may use'
        when p.prokind <> 'f' or p.proretset or p.prorettype <> 'jsonb'::regtype
            or oidvectortypes(p.proargtypes) <> 'jsonb, jsonb'
        then 'of the arguments (old jsonb, new jsonb), and return jsonb'
        when p.provolatile <> 'i' then 'immutable'
        when not p.prosecdef and not pg_has_role(p.proowner, 'pgflow_owner', 'usage')
        then 'owned by a role that has pgflow_owner, or security definer'
    end
    from (select p_function::oid as function) f
    left join pg_catalog.pg_proc p on p.oid = f.function
$$;
comment on function pgflow._function_fault is
    'What a function must be to be a reducer, and is not; null if it is right.';

create or replace function pgflow._function_named(p_name text)
returns regprocedure
language plpgsql
stable
as $$
begin
    return to_regprocedure(p_name || case when p_name like '%(%' then '' else '(jsonb, jsonb)' end);
exception
    when syntax_error or invalid_name or data_exception or insufficient_privilege then
        return null;
end
$$;
comment on function pgflow._function_named is
    'The function of a name, which may be followed by its arguments; null if there is none.';

create or replace function pgflow._is_reducer(p_name text)
returns boolean
language plpgsql
stable
as $$
begin
    return p_name = any (pgflow._builtin_reducers())
        or exists (select from pgflow.reducer r where r.reducer = p_name);
end
$$;
comment on function pgflow._is_reducer is 'Whether a reducer is built in or registered.';

create or replace function pgflow.define_reducer(name text, function text)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now timestamptz := pgflow.now();
    v_function regprocedure := pgflow._function_named(define_reducer.function);
    v_fault text := pgflow._function_fault(v_function);
begin
    if define_reducer.name is null
       or define_reducer.name !~ '^[A-Za-z_][A-Za-z0-9_.]{0,99}$' collate "C"
       or define_reducer.name = any (
           pgflow._builtin_reducers() || '{last_write_wins,merge_map}'::text[]) then
        perform pgflow._refuse_value('name', '1 to 100 letters, digits, _ or ., and no built-in '
            'reducer''s', define_reducer.name);
    elsif v_fault is not null then
        perform pgflow._refuse_value('function', v_fault, define_reducer.function);
    end if;
    insert into pgflow.reducer as r (reducer, function, defined_at, defined_by)
    values (define_reducer.name, v_function::text, v_now, pgflow._actor())
    on conflict on constraint reducer_pkey do update
    set function = excluded.function, defined_at = excluded.defined_at,
        defined_by = excluded.defined_by
    where r.function <> excluded.function;
    return v_function::text;
end
$$;
comment on function pgflow.define_reducer is
    'Registers a function as a reducer for the channels of flows, in all projects, and returns it '
    'with its schema and arguments. It takes (old jsonb, new jsonb) and returns the new value; old '
    'is null as long as the channel has none. It must be immutable, and its owner have the rights '
    'of pgflow_owner, with which it is called, unless it is security definer. Again with another '
    'function it replaces the first. Example: select pgflow.define_reducer(''longest'', '
    '''public.longest''). Raises PF101.';

-- All that such a function raises is the fault of what was written.
create or replace function pgflow._called_reducer(
    p_channel text, p_reducer text, p_old jsonb, p_new jsonb
)
returns jsonb
language plpgsql
as $$
declare
    v_function regprocedure := (
        select to_regprocedure(r.function) from pgflow.reducer r where r.reducer = p_reducer);
    v_fault text := pgflow._function_fault(v_function);
    v_value jsonb;
begin
    if v_fault is not null then
        perform pgflow._refuse_write(p_channel,
            format('reducer %s must be %s', p_reducer, v_fault));
    end if;
    begin
        execute format('select %s($1, $2)', v_function::regproc) into v_value
        using nullif(p_old, 'null'), p_new;
    exception
        when others then
            perform pgflow._refuse_write(p_channel, format('reducer %s: %s', p_reducer, sqlerrm));
    end;
    return coalesce(v_value, 'null');
end
$$;
comment on function pgflow._called_reducer is
    'What a registered reducer makes of the value of a channel and what is written to it.';

-- A data exception, as what cannot be stored is one: the batch that it is in is tried in halves,
-- until the run that is at fault fails alone.
create or replace function pgflow._refuse_write(p_channel text, p_why text)
returns void
language plpgsql
as $$
begin
    raise exception using errcode = '22PF1',
        message = left(format('channel %s: %s', p_channel, p_why), 1000);
end
$$;
comment on function pgflow._refuse_write is
    'Raises 22PF1, by which the run that wrote to the channel fails with E-RUN-018.';

create or replace function pgflow._reduced_onto(
    p_channel text, p_reducer text, p_old jsonb, p_values jsonb[]
)
returns jsonb
language plpgsql
as $$
declare
    v_value jsonb := p_old;
    v_new jsonb;
begin
    if p_reducer = any (pgflow._builtin_reducers()) then
        return coalesce(
            pgflow._reduced(p_reducer,
                array_remove(array_prepend(nullif(p_old, 'null'), p_values), null)), 'null');
    end if;
    foreach v_new in array coalesce(p_values, '{}') loop
        v_value := pgflow._called_reducer(p_channel, p_reducer, v_value, v_new);
    end loop;
    return coalesce(v_value, 'null');
end
$$;
comment on function pgflow._reduced_onto is
    'The value of a channel after what was written to it, by whatever reducer.';
