-- Documents that executions leave behind. The worker validates one and tells the errors; here it is
-- read, hashed and stored under the lease. An artifact counts for the execution that wrote it. One
-- that is executed again, after a wait or a failure, comes by the same calls again: what an earlier
-- execution wrote in this place is then taken over, not stored twice.

create or replace function pgflow._check_artifact(
    p_name text, p_content text, p_data bytea, p_media_type text, p_errors jsonb, p_kind text
)
returns void
language plpgsql
as $$
begin
    if p_name is null or char_length(p_name) not between 1 and 200
       or p_name in ('input', 'output') then
        perform pgflow._refuse_value('name', '1 to 200 characters, not input and not output',
            p_name);
    elsif num_nonnulls(p_content, p_data) <> 1 then
        perform pgflow._refuse_value('content', 'given, or data is, not both',
            num_nonnulls(p_content, p_data) || ' of them');
    elsif greatest(octet_length(p_content), octet_length(p_data)) > 67108864 then
        perform pgflow._refuse_value('content', 'at most 64 MB',
            greatest(octet_length(p_content), octet_length(p_data)) || ' bytes');
    elsif p_media_type is null
       or p_media_type !~ '^[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}(;.{0,100})?$' then
        perform pgflow._refuse_value('media_type', 'such as text/markdown, in lower case',
            p_media_type);
    elsif p_kind is null or p_kind not in ('document', 'report') then
        perform pgflow._refuse_value('kind', 'document or report', p_kind);
    elsif jsonb_typeof(p_errors) is distinct from 'array' or pg_column_size(p_errors) > 1048576
       or exists (
           select from jsonb_array_elements(
               case jsonb_typeof(p_errors) when 'array' then p_errors end) as e
           where jsonb_typeof(e -> 'path') is distinct from 'string'
              or jsonb_typeof(e -> 'message') is distinct from 'string') then
        perform pgflow._refuse_value('errors', 'a list of objects of path and message, at most '
            '1 MB', left(p_errors::text, 200));
    end if;
end
$$;
comment on function pgflow._check_artifact is
    'Refuses (PF101) what cannot be stored as an artifact.';

-- What the database cannot read as JSON is kept as the text that it is, and is invalid: whoever
-- repairs it wants to see it.
create or replace function pgflow._read_artifact(
    p_content text, p_data bytea, p_media_type text, p_errors jsonb
)
returns pgflow.artifact
language plpgsql
as $$
declare
    v_artifact pgflow.artifact;
begin
    v_artifact.media_type := p_media_type;
    v_artifact.validation_errors := nullif(p_errors, '[]');
    if p_data is not null then
        v_artifact.content_bytes := p_data;
        v_artifact.size := octet_length(p_data);
        v_artifact.sha256 := sha256(p_data);
    elsif p_media_type ~ '^(application/json|[^;]*\+json)(;|$)' then
        begin
            v_artifact.content_json := p_content::jsonb;
            v_artifact.size := octet_length(v_artifact.content_json::text);
            v_artifact.sha256 := pgflow._sha256(v_artifact.content_json);
        exception when data_exception or program_limit_exceeded then
            v_artifact.content_json := null;
            v_artifact.validation_errors := coalesce(v_artifact.validation_errors,
                jsonb_build_array(jsonb_build_object('path', '$', 'message', sqlerrm)));
        end;
    end if;
    if num_nonnulls(v_artifact.content_json, v_artifact.content_bytes) = 0 then
        v_artifact.content_text := p_content;
        v_artifact.size := octet_length(convert_to(p_content, 'UTF8'));
        v_artifact.sha256 := sha256(convert_to(p_content, 'UTF8'));
    end if;
    if v_artifact.size > 67108864 then  -- the database's text of JSON has more blanks
        perform pgflow._refuse_value('content', 'at most 64 MB', v_artifact.size || ' bytes');
    end if;
    v_artifact.valid := v_artifact.validation_errors is null;
    return v_artifact;
end
$$;
comment on function pgflow._read_artifact is
    'An artifact with its content in the form that its media type says, its size and its hash.';

create or replace function pgflow._keep_artifact(p_run pgflow.run, p_artifact pgflow.artifact)
returns pgflow.artifact_outcome_v1
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_type text := case when p_artifact.valid then 'artifact.validated' else 'artifact.invalid' end;
    v_there integer;
    v_line pgflow.artifact_outcome_v1;
begin
    v_line := (p_run.run_id, 'already', null, p_artifact.name, p_artifact.size,
        encode(p_artifact.sha256, 'hex'), p_artifact.valid, p_artifact.validation_errors);
    with written as (
        select a.artifact_no, a.lease_no is not distinct from p_run.lease_no as is_ours,
            (a.sha256, a.media_type, a.kind, a.version, a.valid, a.schema, a.schema_version)
                is not distinct from (p_artifact.sha256, p_artifact.media_type, p_artifact.kind,
                    p_artifact.version, p_artifact.valid, p_artifact.schema,
                    p_artifact.schema_version) as is_same
        from pgflow.artifact a
        where a.project_id = p_run.project_id and a.run_id = p_run.run_id
          and a.name = p_artifact.name
    ),
    last_of_ours as (
        select w.* from written w where w.is_ours order by w.artifact_no desc limit 1
    ),
    next_of_theirs as (
        select w.* from written w
        where not w.is_ours
          and w.artifact_no > coalesce((select l.artifact_no from last_of_ours l), 0)
        order by w.artifact_no
        limit 1
    )
    select w.artifact_no into v_there
    from (table last_of_ours union all table next_of_theirs) w
    where w.is_same
    limit 1;
    if found then
        update pgflow.artifact a set lease_no = p_run.lease_no, attempt = p_run.attempt
        where a.project_id = p_run.project_id and a.run_id = p_run.run_id
          and a.artifact_no = v_there;
        v_line.artifact_no := v_there;
        return v_line;
    end if;
    v_line.artifact_no := p_run.last_event_no + 1;
    v_line.outcome := 'done';
    insert into pgflow.artifact (project_id, run_id, artifact_no, flow_run_id, step, version,
        attempt, lease_no, at, kind, name, schema, schema_version, media_type, size, sha256, valid,
        validation_errors, content_json, content_text, content_bytes)
    values (p_run.project_id, p_run.run_id, v_line.artifact_no, p_artifact.flow_run_id,
        p_artifact.step, p_artifact.version, p_run.attempt, p_run.lease_no, v_now, p_artifact.kind,
        p_artifact.name, p_artifact.schema, p_artifact.schema_version, p_artifact.media_type,
        p_artifact.size, p_artifact.sha256, p_artifact.valid, p_artifact.validation_errors,
        p_artifact.content_json, p_artifact.content_text, p_artifact.content_bytes);
    perform pgflow._append_event(p_run, v_type, v_now, jsonb_strip_nulls(jsonb_build_object(
        'name', p_artifact.name, 'media_type', p_artifact.media_type, 'size', p_artifact.size,
        'sha256', v_line.sha256, 'schema', p_artifact.schema, 'schema_version',
        p_artifact.schema_version, 'errors', pgflow._first_errors(p_artifact.validation_errors))));
    return v_line;
end
$$;
comment on function pgflow._keep_artifact is
    'Stores an artifact of a run that the caller holds, with its event, unless it is there.';

create or replace function pgflow._first_errors(p_errors jsonb)
returns jsonb
language sql
immutable
as $$
    select case when jsonb_array_length(p_errors) > 5
                then jsonb_path_query_array(p_errors, '$[0 to 4]') else p_errors end
$$;
comment on function pgflow._first_errors is 'The first five of the errors of an artifact.';

create or replace function pgflow.record_artifact(
    run_id uuid, lease_no integer, name text, content text default null, data bytea default null,
    media_type text default 'application/json', errors jsonb default '[]',
    schema text default null, schema_version integer default null, kind text default 'document',
    project text default null
)
returns pgflow.artifact_outcome_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(record_artifact.project);
    v_artifact pgflow.artifact;
    v_run pgflow.run;
    v_step pgflow.step_definition;
    v_line pgflow.artifact_outcome_v1;
begin
    perform pgflow._check_artifact(record_artifact.name, record_artifact.content,
        record_artifact.data, record_artifact.media_type, record_artifact.errors,
        record_artifact.kind);
    v_artifact := pgflow._read_artifact(record_artifact.content, record_artifact.data,
        record_artifact.media_type, record_artifact.errors);
    v_artifact.name := record_artifact.name;
    v_artifact.kind := record_artifact.kind;
    if record_artifact.schema is not null then
        v_artifact.schema := record_artifact.schema;
        v_artifact.schema_version := (pgflow._found_schema(v_project, record_artifact.schema,
            record_artifact.schema_version, 'schema')).version;
    end if;
    v_run := pgflow._held(v_project, record_artifact.run_id, record_artifact.lease_no);
    if v_run.run_id is null then
        v_line.run_id := record_artifact.run_id;
        v_line.outcome := 'lost';
        return v_line;
    end if;
    v_artifact.version := v_run.round;
    if v_run.step is not null then
        v_step := pgflow._step_of(v_run);
        v_artifact.step := v_run.step;
        v_artifact.flow_run_id := v_run.parent_run_id;
        v_artifact.version := v_run.round + coalesce((
            select s.version from pgflow.flow_step s
            where s.project_id = v_project and s.run_id = v_run.parent_run_id
              and s.step = v_run.step and s.child_run_id = v_run.run_id
            limit 1), 0);
    end if;
    if v_step.artifact ->> 'name' = v_artifact.name
       and (v_artifact.schema, v_artifact.schema_version) is distinct from (
           case when v_step.artifact ? 'schema_version' then v_step.artifact ->> 'schema' end,
           (v_step.artifact -> 'schema_version')::integer)
    then
        perform pgflow._refuse_value('schema', 'that which the step says its artifact is held to',
            concat_ws(' version ', v_artifact.schema, v_artifact.schema_version));
    end if;
    return pgflow._keep_artifact(v_run, v_artifact);
end
$$;
comment on function pgflow.record_artifact is
    'Stores a document under a lease: content, which is JSON if its media type says so, or data, '
    'which is bytes; at most 64 MB. errors is what the worker found wrong with it, a list of '
    'objects of path and message, by a schema that is named or that the step of the flow has; what '
    'is no JSON although it should be is invalid by itself. It counts for this execution alone. '
    'Returns done, already or lost. Example: select outcome, valid from '
    'pgflow.record_artifact(''...'', 1, ''article'', ''{"title": "Enough"}'', schema => '
    '''article''). Raises PF101, PF110, PF502.';
