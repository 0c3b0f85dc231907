-- Schemas of artifacts: JSON Schema, draft 2020-12. A schema is stored once per content, and never
-- changes. Workers validate by it; what comes of that is decided in 53_verdicts.

create or replace function pgflow._refuse_schema_change()
returns trigger
language plpgsql
as $$
begin
    perform pgflow._refuse('PF203',
        format('version %s of schema %s cannot be changed', old.version, old.schema),
        format('%s on %s is refused to everybody', lower(tg_op), tg_table_name),
        'Define the schema anew: that makes another version.');
    return null;
end
$$;
comment on function pgflow._refuse_schema_change is
    'Trigger function: raises PF203 for the change of a schema''s version.';

create or replace trigger schema_version_never_changes
before update or delete on pgflow.schema_version
for each row
execute function pgflow._refuse_schema_change();

create or replace function pgflow._found_schema(
    p_project text, p_schema text, p_version integer, p_field text
)
returns pgflow.schema_version
language plpgsql
as $$
declare
    v_version pgflow.schema_version;
begin
    select v.* into v_version
    from pgflow.artifact_schema s
    join pgflow.schema_version v on v.project_id = s.project_id and v.schema = s.schema
        and v.version = coalesce(p_version, s.version)
    where s.project_id = p_project and s.schema = p_schema;
    if not found then
        perform pgflow._refuse('PF110', format('unknown schema: %s', concat_ws(', version ',
                left(p_schema, 100), p_version)),
            format('versions of that name in this project: %s', coalesce((
                select string_agg(v.version::text, ', ' order by v.version)
                from pgflow.schema_version v
                where v.project_id = p_project and v.schema = p_schema), 'none')),
            'View pgflow.schemas lists them; pgflow.define_schema(name, schema) makes one.',
            p_field);
    end if;
    return v_version;
end
$$;
comment on function pgflow._found_schema is
    'A version of a schema, without one the current. Raises PF110.';

create or replace function pgflow._is_draft_2020_12(p_schema jsonb)
returns boolean
language sql
immutable
as $$
    select coalesce(p_schema ->> '$schema', '') in ('',
        'https://json-schema.org/draft/2020-12/schema',
        'https://json-schema.org/draft/2020-12/schema#')
$$;
comment on function pgflow._is_draft_2020_12 is
    'Whether a schema says of itself that it is of another draft; one that says nothing is not.';

-- A validator would stumble over values of the wrong type when a run is held to the schema. What
-- is right so far may still be wrong, such as a pattern; that the validator tells.
create or replace function pgflow._keyword_must(p_keyword text, p_value jsonb)
returns text
language plpgsql
immutable
as $$
declare
    v_type text := jsonb_typeof(p_value);
begin
    return case
        when p_keyword in ('$id', '$ref', '$anchor', '$dynamicRef', '$dynamicAnchor', '$comment',
            'title', 'description', 'format', 'pattern')
            then case when v_type <> 'string' then 'a text' end
        when p_keyword = 'type'
            then case when not coalesce(
                case v_type when 'array' then p_value <> '[]' and pgflow._are_names(p_value)
                    else v_type = 'string' end
                and not exists (
                    select from jsonb_path_query(p_value, '$[*]') as t
                    where t not in ('"null"', '"boolean"', '"object"', '"array"', '"number"',
                        '"string"', '"integer"')), false)
                then 'null, boolean, object, array, number, string, integer, or a list of them' end
        when p_keyword in ('minLength', 'maxLength', 'minItems', 'maxItems', 'minProperties',
            'maxProperties', 'minContains', 'maxContains')
            then case when not pgflow._is_whole(p_value, 0, 2147483647)
                then 'a whole number from 0' end
        when p_keyword in ('minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum')
            then case when v_type <> 'number' then 'a number' end
        when p_keyword = 'multipleOf'
            then case when v_type <> 'number' or p_value <= '0' then 'a number above 0' end
        when p_keyword = 'required'
            then case when not pgflow._are_names(p_value)
                then 'a list of texts, each of them once' end
        when p_keyword = 'enum' then case when v_type <> 'array' then 'a list' end
        when p_keyword in ('allOf', 'anyOf', 'oneOf', 'prefixItems')
            then case when v_type <> 'array' or p_value = '[]' then 'a list of schemas' end
        when p_keyword in ('properties', 'patternProperties', 'dependentSchemas', '$defs')
            then case when v_type <> 'object' then 'an object of schemas' end
    end;
end
$$;
comment on function pgflow._keyword_must is
    'What the value of a keyword of JSON Schema must be, if it is something else.';

create or replace function pgflow._schema_fault(
    p_schema jsonb, p_path text default '$', p_depth integer default 0
)
returns text
language plpgsql
immutable
as $$
declare
    v_member record;
    v_must text;
    v_fault text;
begin
    if jsonb_typeof(p_schema) = 'boolean' then
        return null;
    elsif jsonb_typeof(p_schema) is distinct from 'object' then
        return p_path || ' must be an object, true or false';
    elsif p_depth > 100 then
        return p_path || ' must be nested less deep';
    end if;
    for v_member in select * from jsonb_each(p_schema) as m (key, value) loop
        v_must := pgflow._keyword_must(v_member.key, v_member.value);
        if v_must is not null then
            return format('%s.%s must be %s', p_path, v_member.key, v_must);
        end if;
        select f.fault into v_fault
        from (
            select v_member.value as schema, format('%s.%s', p_path, v_member.key) as path
            where v_member.key in ('items', 'additionalProperties', 'unevaluatedItems',
                'unevaluatedProperties', 'propertyNames', 'contains', 'not', 'if', 'then', 'else')
            union all
            select e.schema, format('%s.%s[%s]', p_path, v_member.key, e.place - 1)
            from jsonb_array_elements(case when v_member.key in ('allOf', 'anyOf', 'oneOf',
                'prefixItems') then v_member.value end) with ordinality as e (schema, place)
            union all
            select p.schema, format('%s.%s.%s', p_path, v_member.key, p.name)
            from jsonb_each(case when v_member.key in ('properties', 'patternProperties',
                'dependentSchemas', '$defs') then v_member.value end) as p (name, schema)
        ) s
        cross join lateral pgflow._schema_fault(s.schema, s.path, p_depth + 1) as f (fault)
        where f.fault is not null
        limit 1;
        if found then
            return v_fault;
        end if;
    end loop;
    return null;
end
$$;
comment on function pgflow._schema_fault is
    'The first thing that is wrong with a JSON Schema, with its place; null if nothing is found.';

create or replace function pgflow.define_schema(
    name text, schema jsonb, project text default null
)
returns pgflow.schema_version
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(define_schema.project);
    v_now timestamptz := pgflow.now();
    v_sha256 bytea := pgflow._sha256(define_schema.schema);
    v_fault text := pgflow._schema_fault(define_schema.schema);
    v_current integer;
    v_version pgflow.schema_version;
begin
    if define_schema.name is null
       or define_schema.name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' collate "C" then
        perform pgflow._refuse_value('name', 'a name of 1 to 100 letters, digits, _, . or -, '
            'which begins with none of . and -', define_schema.name);
    elsif jsonb_typeof(define_schema.schema) is distinct from 'object' then
        perform pgflow._refuse_value('schema', 'an object', define_schema.schema::text);
    elsif not pgflow._is_draft_2020_12(define_schema.schema) then
        perform pgflow._refuse_value('schema', 'of draft 2020-12, whose $schema is '
            'https://json-schema.org/draft/2020-12/schema', define_schema.schema ->> '$schema');
    elsif pg_column_size(define_schema.schema) > 262144 then
        perform pgflow._refuse_value('schema', 'at most 256 kB',
            pg_column_size(define_schema.schema) || ' bytes');
    elsif v_fault is not null then
        perform pgflow._refuse_value('schema', 'a JSON Schema: ' || v_fault,
            define_schema.schema::text);
    end if;
    insert into pgflow.artifact_schema (project_id, schema, version)
    values (v_project, define_schema.name, 0)
    on conflict do nothing;
    -- The lock is one statement and the look the next: two that define the same make one version.
    select s.version into v_current from pgflow.artifact_schema s
    where s.project_id = v_project and s.schema = define_schema.name
    for update;
    select v.* into v_version from pgflow.schema_version v
    where v.project_id = v_project and v.schema = define_schema.name and v.sha256 = v_sha256;
    if not found then
        insert into pgflow.schema_version (project_id, schema, version, sha256, created_at,
            created_by, definition)
        select v_project, define_schema.name, coalesce(max(v.version), 0) + 1, v_sha256, v_now,
            pgflow._actor(), define_schema.schema
        from pgflow.schema_version v
        where v.project_id = v_project and v.schema = define_schema.name
        returning * into v_version;
    end if;
    if v_current <> v_version.version then
        update pgflow.artifact_schema s set version = v_version.version
        where s.project_id = v_project and s.schema = define_schema.name;
    end if;
    return v_version;
end
$$;
comment on function pgflow.define_schema is
    'Stores a JSON Schema of draft 2020-12, which artifacts are held to. New content is a new '
    'version; content that was defined before is the version that it was. Flows that name a schema '
    'keep the version that was current when they were defined. Example: select '
    'pgflow.define_schema(''article'', ''{"type": "object", "required": ["title"]}''). Raises '
    'PF101, PF502.';

create or replace view pgflow.schemas with (security_barrier) as
select v.project_id, v.schema, v.version, v.version = s.version as is_current,
    encode(v.sha256, 'hex') as sha256, v.created_at, v.created_by, v.definition
from pgflow.schema_version v
join pgflow.artifact_schema s using (project_id, schema)
where v.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.schemas is 'The schemas of artifacts, all versions.';
comment on column pgflow.schemas.is_current is 'Whether it is the version that was defined last.';
comment on column pgflow.schemas.sha256 is
    'Hex SHA-256 of the definition, by which the same content is the same version.';
