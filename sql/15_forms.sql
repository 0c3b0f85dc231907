-- Forms: what a person answers is held to a schema, in the subset of JSON Schema 2020-12 that
-- docs/forms.md lists. A form is checked when it is defined, with all that it refers to; so an
-- answer meets no form that is malformed, endless or too large.

create or replace function pgflow._member(p_path text, p_key text)
returns text
language sql
stable
as $$
    select p_path || '.' || case
        when p_key ~ '^$|^[0-9]|[][!-#%-/:-@\\^`{-~[:cntrl:][:space:]]' collate "C"
        then to_jsonb(left(p_key, 200))::text else left(p_key, 200) end
$$;
comment on function pgflow._member is
    'The path of an object''s member; a key that would be misread is quoted, a long one cut.';

-- ---- what a form may be

create or replace function pgflow._are_names(p_list jsonb)
returns boolean
language sql
immutable
as $$
    select case when jsonb_typeof(p_list) = 'array' then
        (select coalesce(bool_and(jsonb_typeof(e) = 'string'), true)
             and count(*) = count(distinct e)
         from jsonb_array_elements(p_list) as e)
        else false end
$$;
comment on function pgflow._are_names is 'Whether it is a list of texts, each of them once.';

create or replace function pgflow._pattern_fault(p_pattern text)
returns text
language plpgsql
stable
as $$
begin
    if char_length(p_pattern) > 1000 then
        return 'at most 1000 characters';
    end if;
    perform '' ~ p_pattern collate "C";
    return null;
exception
    when invalid_regular_expression then
        return format('a regular expression of PostgreSQL (%s)', sqlerrm);
end
$$;
comment on function pgflow._pattern_fault is
    'What a pattern should be and is not; null if it is a regular expression of fit length.';

-- Schemas inside a keyword's value are left to _form_parts.
create or replace function pgflow._keyword_fault(p_form jsonb, p_keyword text, p_value jsonb)
returns text
language plpgsql
stable
as $$
declare
    v_is text := jsonb_typeof(p_value);
    v_types jsonb := case v_is when 'string' then jsonb_build_array(p_value) else p_value end;
begin
    return case
        when p_keyword in ('title', 'description', 'default', 'examples', '$schema', '$comment',
            'deprecated', 'readOnly', 'writeOnly', 'format', 'const', 'items',
            'additionalProperties') then null
        when p_keyword in ('properties', '$defs') then
            case when v_is <> 'object' then 'an object of schemas' end
        when p_keyword in ('anyOf', 'enum') then
            case when v_is <> 'array' or p_value = '[]' then 'a list, and not an empty one' end
        when p_keyword = 'required' then
            case when not pgflow._are_names(p_value) then 'a list of texts, each once' end
        when p_keyword = 'type' then
            case when not pgflow._are_names(v_types) or v_types = '[]' or not v_types <@
                '["null", "boolean", "integer", "number", "string", "array", "object"]'
            then 'null, boolean, integer, number, string, array, object, or a list of those' end
        when p_keyword in ('minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum') then
            case when v_is <> 'number' then 'a number' end
        when p_keyword in ('minLength', 'maxLength', 'minItems', 'maxItems', 'minProperties',
            'maxProperties') then
            case when v_is <> 'number' then 'a whole number, not negative'
                 when p_value::numeric < 0 or p_value::numeric <> trunc(p_value::numeric)
                 then 'a whole number, not negative' end
        when p_keyword = 'uniqueItems' then
            case when v_is <> 'boolean' then 'true or false' end
        when p_keyword = 'pattern' then
            case when v_is <> 'string' then 'a text'
                 else pgflow._pattern_fault(p_value #>> '{}') end
        when p_keyword = '$ref' then
            case when p_form -> '$defs' -> pgflow._definition(p_value) is null
                 then '#/$defs/Name, with a name that is defined at the root' end
        else 'left out, because forms have no such keyword'
    end;
end
$$;
comment on function pgflow._keyword_fault is
    'What a keyword''s value should be and is not; null if it is right.';

create or replace function pgflow._definition(p_ref jsonb)
returns text
language sql
immutable
as $$
    select substring(p_ref #>> '{}' from '^#/\$defs/([A-Za-z0-9._-]+)$')
$$;
comment on function pgflow._definition is
    'The name of the definition that a $ref refers to; null if it is no local reference.';

-- A level is a step into the answer or into anyOf; a $ref is none.
create or replace function pgflow._form_children(
    p_form jsonb, p_field text, p_path text, p_schema jsonb,
    out path text, out schema jsonb, out levels integer, out ref text
)
returns setof record
language sql
stable
as $$
    select pgflow._member(p_path || '.properties', m.key), m.value, 1, null
    from jsonb_each(case jsonb_typeof(p_schema -> 'properties') when 'object'
        then p_schema -> 'properties' end) as m
    union all
    select p_path || '.' || k, p_schema -> k, 1, null
    from unnest('{items, additionalProperties}'::text[]) as k
    where p_schema -> k is not null
    union all
    select format('%s.anyOf[%s]', p_path, a.place - 1), a.schema, 1, null
    from jsonb_array_elements(case jsonb_typeof(p_schema -> 'anyOf') when 'array'
        then p_schema -> 'anyOf' end) with ordinality as a (schema, place)
    union all
    select pgflow._member(p_path || '.$defs', d.key), d.value, 0, null
    from jsonb_each(case jsonb_typeof(p_form -> '$defs') when 'object'
        then p_form -> '$defs' end) as d
    where p_path = p_field
    union all
    select pgflow._member(p_field || '.$defs', d.name), p_form -> '$defs' -> d.name, 0, d.name
    from pgflow._definition(p_schema -> '$ref') as d (name)
    where p_form -> '$defs' -> d.name is not null
$$;
comment on function pgflow._form_children is 'The schemas that a schema contains or refers to.';

-- Each reference is followed, as validation does: what is too deep or too much only by references
-- shows here. The limit makes the recursion stop there.
create or replace function pgflow._form_parts(
    p_form jsonb, p_field text,
    out path text, out schema jsonb, out level integer, out refs text[], out is_cycle boolean
)
returns setof record
language sql
stable
as $$
    with recursive part as (
        select p_field as path, p_form as schema, 0 as level, '{}'::text[] as refs,
            false as is_cycle
        union all
        select case when back.closes then part.path || '.$ref' else c.path end,
            case when back.closes then part.schema -> '$ref' else c.schema end,
            part.level + c.levels,
            case when c.ref is null then part.refs else part.refs || c.ref end,
            back.closes
        from part
        cross join lateral pgflow._form_children(p_form, p_field, part.path, part.schema) as c
        cross join lateral coalesce(c.ref = any (part.refs), false) as back (closes)
        where part.level <= 10 and not part.is_cycle
    )
    select part.* from part limit 2001
$$;
comment on function pgflow._form_parts is
    'All schemas of a form, those it refers to at each place again: at most 2001, 11 levels deep.';

create or replace function pgflow._check_form(p_form jsonb, p_field text default 'form_schema')
returns void
language plpgsql
as $$
declare
    v_part record;
    v_keyword record;
    v_fault text;
begin
    if jsonb_typeof(p_form) is distinct from 'object' then
        perform pgflow._refuse_value(p_field, 'a schema that is an object', p_form::text);
    elsif pg_column_size(p_form) > 65536 then
        perform pgflow._refuse_value(p_field, 'at most 64 kB', pg_column_size(p_form) || ' bytes');
    end if;
    for v_part in
        select p.*, row_number() over () as place from pgflow._form_parts(p_form, p_field) as p
    loop
        if v_part.place > 2000 then
            perform pgflow._refuse_value(p_field, 'at most 2000 schemas, references followed',
                'more');
        end if;
        v_fault := case
            when v_part.is_cycle then 'a reference that does not lead back to itself'
            when v_part.level > 10 then 'nested at most 10 deep, references followed'
            when jsonb_typeof(v_part.schema) not in ('object', 'boolean')
            then 'a schema: an object, true or false' end;
        if v_fault is not null then
            perform pgflow._refuse_value(v_part.path, v_fault, v_part.schema::text);
        end if;
        for v_keyword in
            select k.* from jsonb_each(case jsonb_typeof(v_part.schema) when 'object'
                then v_part.schema end) as k
        loop
            v_fault := case when v_keyword.key = '$defs' and v_part.path <> p_field
                then 'at the root of the form'
                else pgflow._keyword_fault(p_form, v_keyword.key, v_keyword.value) end;
            if v_fault is not null then
                perform pgflow._refuse_value(pgflow._member(v_part.path, v_keyword.key), v_fault,
                    v_keyword.value::text);
            end if;
        end loop;
    end loop;
end
$$;
comment on function pgflow._check_form is
    'Refuses (PF101) a form that is malformed or leaves the subset; the field names the place.';

-- ---- what an answer must be

-- A list is told by its length and not as text: a number of a few bytes may have 131072 digits.
create or replace function pgflow._given(p_value jsonb)
returns text
language sql
stable
as $$
    select case jsonb_typeof(p_value)
        when 'array' then format('a list of %s', jsonb_array_length(p_value))
        when 'object' then format('an object of %s',
            (select count(*) from jsonb_object_keys(p_value)))
        else left(p_value::text, 200) end
$$;
comment on function pgflow._given is 'A value as a fault tells it.';

create or replace function pgflow._is_of_type(p_types jsonb, p_value jsonb)
returns boolean
language sql
immutable
as $$
    select case jsonb_typeof(p_value)
        when 'number' then p_types ? 'number'
            or (p_types ? 'integer' and p_value::numeric = trunc(p_value::numeric))
        else p_types ? jsonb_typeof(p_value) end
$$;
comment on function pgflow._is_of_type is
    'Whether a value has the type, or one of the types; 1.0 is an integer.';

create or replace function pgflow._listed(p_values jsonb)
returns text
language sql
stable
as $$
    select string_agg(left(coalesce(v.value #>> '{}', 'null'), 50), ', ' order by v.place)
        || case when jsonb_array_length(p_values) > 20 then ', …' else '' end
    from jsonb_array_elements(p_values) with ordinality as v (value, place)
    where v.place <= 20
$$;
comment on function pgflow._listed is 'The first 20 values of a list as a person reads them.';

-- A keyword says nothing about values of other types: then its comparison is null.
create or replace function pgflow._own_faults(p_schema jsonb, p_value jsonb)
returns setof text
language plpgsql
stable
as $$
declare
    v_is text := jsonb_typeof(p_value);
    v_types jsonb := case jsonb_typeof(p_schema -> 'type') when 'string'
        then jsonb_build_array(p_schema -> 'type') else p_schema -> 'type' end;
    v_number numeric := case v_is when 'number' then p_value::numeric end;
    v_text text := case v_is when 'string' then p_value #>> '{}' end;
    v_items integer := case v_is when 'array' then jsonb_array_length(p_value) end;
    v_members bigint := case v_is when 'object'
        then (select count(*) from jsonb_object_keys(p_value)) end;
begin
    return query
    select format(k.expected, left(k.given, 1000))
    from (values
        (p_schema = 'false', 'left out', null),
        (not pgflow._is_of_type(v_types, p_value), 'of type %s',
            pgflow._listed(v_types)),
        (p_schema ? 'enum' and not exists (
            select from jsonb_array_elements(p_schema -> 'enum') as e where e = p_value),
            'one of %s', pgflow._listed(p_schema -> 'enum')),
        (p_value <> p_schema -> 'const', '%s', (p_schema -> 'const')::text),
        (v_number < (p_schema -> 'minimum')::numeric, 'at least %s', p_schema ->> 'minimum'),
        (v_number > (p_schema -> 'maximum')::numeric, 'at most %s', p_schema ->> 'maximum'),
        (v_number <= (p_schema -> 'exclusiveMinimum')::numeric, 'more than %s',
            p_schema ->> 'exclusiveMinimum'),
        (v_number >= (p_schema -> 'exclusiveMaximum')::numeric, 'less than %s',
            p_schema ->> 'exclusiveMaximum'),
        (char_length(v_text) < (p_schema -> 'minLength')::numeric, 'at least %s characters long',
            p_schema ->> 'minLength'),
        (char_length(v_text) > (p_schema -> 'maxLength')::numeric, 'at most %s characters long',
            p_schema ->> 'maxLength'),
        (v_text !~ (p_schema ->> 'pattern') collate "C", 'of the pattern %s',
            p_schema ->> 'pattern'),
        (v_items < (p_schema -> 'minItems')::numeric, 'a list of at least %s',
            p_schema ->> 'minItems'),
        (v_items > (p_schema -> 'maxItems')::numeric, 'a list of at most %s',
            p_schema ->> 'maxItems'),
        (v_is = 'array' and p_schema -> 'uniqueItems' = 'true' and v_items > (
            select count(distinct e) from jsonb_array_elements(
                case v_is when 'array' then p_value end) as e), 'a list without repeats', null),
        (v_members < (p_schema -> 'minProperties')::numeric, 'an object of at least %s',
            p_schema ->> 'minProperties'),
        (v_members > (p_schema -> 'maxProperties')::numeric, 'an object of at most %s',
            p_schema ->> 'maxProperties')
    ) as k (is_broken, expected, given)
    where k.is_broken;
end
$$;
comment on function pgflow._own_faults is
    'What a schema expects of a value itself, not of its parts, where the value is not so.';

create or replace function pgflow._answer_parts(
    p_schema jsonb, p_value jsonb, p_path text, out path text, out schema jsonb, out value jsonb
)
returns setof record
language sql
stable
as $$
    select pgflow._member(p_path, m.key),
        coalesce(p_schema -> 'properties' -> m.key, p_schema -> 'additionalProperties'), m.value
    from jsonb_each(case jsonb_typeof(p_value) when 'object' then p_value end) as m
    where coalesce(p_schema -> 'properties' -> m.key, p_schema -> 'additionalProperties')
        is not null
    union all
    select format('%s[%s]', p_path, e.place - 1), p_schema -> 'items', e.value
    from jsonb_array_elements(case jsonb_typeof(p_value) when 'array' then p_value end)
        with ordinality as e (value, place)
    where p_schema -> 'items' is not null
$$;
comment on function pgflow._answer_parts is
    'The members or items of a value that a schema has schemas for.';

-- Of a union with null, what fails is told by the other alternative.
create or replace function pgflow._union_faults(
    p_form jsonb, p_alternatives jsonb, p_value jsonb, p_path text,
    out path text, out expected text, out given text
)
returns setof record
language plpgsql
stable
as $$
declare
    v_schema jsonb;
    v_faults jsonb;
    v_told jsonb;
    v_count integer := 0;
begin
    for v_schema in select a from jsonb_array_elements(p_alternatives) as a loop
        v_faults := (select jsonb_agg(to_jsonb(f))
            from pgflow._form_faults(p_form, v_schema, p_value, p_path) as f);
        if v_faults is null then
            return;
        elsif v_schema -> 'type' is distinct from '"null"' then
            v_count := v_count + 1;
            v_told := v_faults;
        end if;
    end loop;
    if v_count = 1 then
        return query
        select t.path, t.expected, t.given
        from jsonb_to_recordset(v_told) as t (path text, expected text, given text);
    else
        return query
        select p_path, format('valid by one of %s alternatives',
            jsonb_array_length(p_alternatives)), pgflow._given(p_value);
    end if;
end
$$;
comment on function pgflow._union_faults is
    'The faults of a value that no alternative allows; none if one does.';

create or replace function pgflow._form_faults(
    p_form jsonb, p_schema jsonb, p_value jsonb, p_path text,
    out path text, out expected text, out given text
)
returns setof record
language plpgsql
stable
as $$
declare
    v_part record;
begin
    return query
    select p_path, f, pgflow._given(p_value) from pgflow._own_faults(p_schema, p_value) as f;
    if p_schema -> '$ref' is not null then
        return query
        select f.* from pgflow._form_faults(p_form,
            p_form -> '$defs' -> pgflow._definition(p_schema -> '$ref'), p_value, p_path) as f;
    end if;
    if p_schema -> 'anyOf' is not null then
        return query
        select f.* from pgflow._union_faults(p_form, p_schema -> 'anyOf', p_value, p_path) as f;
    end if;
    if jsonb_typeof(p_value) = 'object' then
        return query
        select pgflow._member(p_path, r), 'present', 'nothing'
        from jsonb_array_elements_text(p_schema -> 'required') as r
        where not p_value ? r;
    end if;
    for v_part in select p.* from pgflow._answer_parts(p_schema, p_value, p_path) as p loop
        return query
        select f.*
        from pgflow._form_faults(p_form, v_part.schema, v_part.value, v_part.path) as f;
    end loop;
end
$$;
comment on function pgflow._form_faults is
    'All faults of a value by a schema of a form: a value''s own before those of its parts.';

create or replace function pgflow._form_errors(
    p_form jsonb, p_value jsonb, p_path text default '$', out path text, out message text
)
returns setof record
language plpgsql
stable
as $$
begin
    return query
    select f.path, format('must be %s (given: %s)', f.expected, f.given)
    from pgflow._form_faults(p_form, p_form, coalesce(p_value, 'null'), p_path) as f;
end
$$;
comment on function pgflow._form_errors is
    'All faults of an answer by a form that _check_form lets pass, in the answer''s order.';

create or replace function pgflow._check_answer(
    p_form jsonb, p_value jsonb, p_field text default 'data'
)
returns void
language plpgsql
as $$
declare
    v_faults jsonb := (select jsonb_agg(to_jsonb(f))
        from (select * from pgflow._form_faults(p_form, p_form, coalesce(p_value, 'null'), p_field)
              limit 20) as f);
begin
    if v_faults is not null then
        perform pgflow._refuse('PF101',
            format('%s must be %s', v_faults #>> '{0,path}', v_faults #>> '{0,expected}'),
            jsonb_build_object('given', v_faults #> '{0,given}', 'faults', v_faults)::text,
            'Nothing was changed; answer again as the form says.', v_faults #>> '{0,path}');
    end if;
end
$$;
comment on function pgflow._check_answer is
    'Refuses (PF101) an answer that a form does not allow: the first fault, and 20 in the detail.';
