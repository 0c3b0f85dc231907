-- What a step of a flow has to leave behind. The definition names it; a schema that is named is
-- taken in the version that is current then, so that a run is held to the same for ever.

create or replace function pgflow._is_whole(p_value jsonb, p_from integer, p_to integer)
returns boolean
language sql
immutable
as $$
    select case when pgflow._is_number(p_value, p_from, p_to) then p_value::numeric % 1 = 0
                else false end
$$;
comment on function pgflow._is_whole is 'Whether a value is a whole number of a range.';

create or replace function pgflow._is_expectation(p_artifact jsonb)
returns boolean
language sql
immutable
as $$
    select coalesce(jsonb_typeof(p_artifact) = 'object'
        and pgflow._members(p_artifact) - '{name,schema,schema_version,repairs}'::text[] = '{}'
        and pgflow._is_text(p_artifact -> 'name', '^.{1,200}$')
        and p_artifact ->> 'name' not in ('input', 'output')
        and case jsonb_typeof(pgflow._members(p_artifact) -> 'schema')
            when 'object' then pgflow._is_draft_2020_12(p_artifact -> 'schema')
                and pgflow._schema_fault(p_artifact -> 'schema') is null
            else pgflow._is_text(coalesce(pgflow._members(p_artifact) -> 'schema', '"none"'),
                '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$') end
        and case when pgflow._members(p_artifact) ? 'schema_version'
            then jsonb_typeof(p_artifact -> 'schema') = 'string'
                and pgflow._is_whole(p_artifact -> 'schema_version', 1, 2147483647) else true end
        and case when pgflow._members(p_artifact) ? 'repairs'
            then pgflow._is_whole(p_artifact -> 'repairs', 0, 10) else true end, false)
$$;
comment on function pgflow._is_expectation is
    'Whether the artifact of a step is one that can be expected.';

create or replace function pgflow._artifact_faults(
    p_steps jsonb, out place integer, out message text
)
returns setof record
language sql
immutable
as $$
    select s.place::integer, format('artifact must be an object of name (not input, not output) '
        'and, if wanted, schema (a name or a JSON Schema of draft 2020-12), schema_version, '
        'repairs (0 to 10) (given: %s)', left((s.step -> 'artifact')::text, 200))
    from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    where pgflow._members(s.step) ? 'artifact'
      and not pgflow._is_expectation(s.step -> 'artifact')
$$;
comment on function pgflow._artifact_faults is
    'The steps whose artifact is wrong by itself.';

create or replace function pgflow._canonical_expectation(
    p_project text, p_artifact jsonb, p_place bigint
)
returns jsonb
language plpgsql
as $$
declare
    v_artifact jsonb := pgflow._members(p_artifact);
    v_schema pgflow.schema_version;
begin
    if jsonb_typeof(v_artifact -> 'schema') = 'string' then
        v_schema := pgflow._found_schema(p_project, v_artifact ->> 'schema',
            (v_artifact -> 'schema_version')::integer,
            format('definition.steps[%s].artifact.schema', p_place - 1));
        v_artifact := v_artifact || jsonb_build_object('schema_version', v_schema.version);
    end if;
    return case when v_artifact -> 'repairs' = '1' then v_artifact - 'repairs'
        else v_artifact || jsonb_strip_nulls(jsonb_build_object('repairs',
            pgflow._plain_number(v_artifact -> 'repairs'))) end;
end
$$;
comment on function pgflow._canonical_expectation is
    'The artifact of a step without what is said by default, with the version of its schema. '
    'Raises PF110.';

create or replace function pgflow._with_schemas(p_project text, p_flow jsonb)
returns jsonb
language plpgsql
as $$
begin
    if not p_flow @? '$.steps[*].artifact' then
        return p_flow;
    end if;
    return p_flow || jsonb_build_object('steps', (
        select jsonb_agg(case when s.step ? 'artifact'
            then s.step || jsonb_build_object('artifact',
                pgflow._canonical_expectation(p_project, s.step -> 'artifact', s.place))
            else s.step end order by s.place)
        from jsonb_array_elements(p_flow -> 'steps') with ordinality as s (step, place)));
end
$$;
comment on function pgflow._with_schemas is
    'A canonical definition whose steps'' artifacts have the versions of their schemas. Raises '
    'PF110.';

create or replace function pgflow._expect_artifacts(
    p_project text, p_run_ids uuid[], p_now timestamptz
)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_artifact jsonb;
begin
    for v_run in
        select r.* from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
            limit 1
        ) r
        order by r.run_id
    loop
        v_artifact := (pgflow._step_of(v_run)).artifact;
        perform pgflow._append_event(v_run, 'artifact.expected', p_now,
            case jsonb_typeof(v_artifact -> 'schema') when 'object' then v_artifact - 'schema'
                else v_artifact end);
    end loop;
end
$$;
comment on function pgflow._expect_artifacts is
    'Says in the timelines of new runs of steps which artifacts they have to leave behind.';

create or replace function pgflow._expected_artifact(p_project text, p_artifact jsonb)
returns jsonb
language plpgsql
stable
as $$
begin
    return case jsonb_typeof(p_artifact -> 'schema')
        when 'string' then p_artifact || jsonb_build_object('schema_name', p_artifact -> 'schema',
            'schema', (
                select v.definition from pgflow.schema_version v
                where v.project_id = p_project and v.schema = p_artifact ->> 'schema'
                  and v.version = (p_artifact -> 'schema_version')::integer))
        else p_artifact end;
end
$$;
comment on function pgflow._expected_artifact is
    'What a step has to leave behind, as its worker is told: with the schema itself.';

create or replace function pgflow._repair(p_project text, p_run_id uuid)
returns jsonb
language plpgsql
stable
as $$
begin
    return (
        select e.payload || jsonb_build_object('errors',
            coalesce(a.validation_errors, e.payload -> 'errors'))
        from pgflow.event e
        left join pgflow.artifact a on a.project_id = e.project_id and a.run_id = e.run_id
            and a.artifact_no = (e.payload -> 'artifact_no')::integer
        where e.project_id = p_project and e.run_id = p_run_id and e.type = 'prompt.repaired'
        order by e.event_no desc
        limit 1);
end
$$;
comment on function pgflow._repair is
    'Why a run is executed again to repair its artifact, with all errors; null if it isn''t.';
