-- What people see of artifacts. Inputs and outputs are where they always were, in the rows of their
-- runs: they are shown as artifacts, and not stored twice.

create or replace view pgflow.artifacts with (security_barrier) as
select u.*
from (
    select a.project_id, a.run_id, a.artifact_no, a.flow_run_id, a.step, a.version, a.attempt,
        a.lease_no, a.at, a.kind, a.name, a.schema, a.schema_version, a.media_type, a.size,
        encode(a.sha256, 'hex') as sha256, a.valid, a.validation_errors
    from pgflow.artifact a
    union all
    select r.project_id, r.run_id, 1, case when r.step is not null then r.parent_run_id end, r.step,
        coalesce(s.version, 0), 0, null, r.created_at, 'input', 'input', null, null,
        'application/json', octet_length(r.input::text), encode(pgflow._sha256(r.input), 'hex'),
        true, null
    from pgflow.run r
    left join pgflow.flow_step s on s.project_id = r.project_id and s.run_id = r.parent_run_id
        and s.step = r.step and s.child_run_id = r.run_id
    union all
    select f.project_id, f.run_id, o.artifact_no,
        case when f.step is not null then f.parent_run_id end, f.step,
        coalesce(s.version, 0) + case o.kind when 'output' then f.round else 0 end,
        case o.kind when 'output' then f.attempt else 0 end,
        case o.kind when 'output' then f.lease_no end, o.at, o.kind, o.kind, null, null,
        'application/json', octet_length(o.content::text), encode(pgflow._sha256(o.content), 'hex'),
        true, null
    from pgflow.run_finished f
    cross join lateral (
        values ('input', 1, f.created_at, f.input),
               ('output', f.last_event_no, f.finished_at, f.output)
    ) o (kind, artifact_no, at, content)
    left join pgflow.flow_step s on s.project_id = f.project_id and s.run_id = f.parent_run_id
        and s.step = f.step and s.child_run_id = f.run_id
    where o.content is not null
) u
where u.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.artifacts is
    'What went into each run, what came out of it, and the documents that it left behind; without '
    'the contents, which artifact_content() returns. Select by run_id.';
comment on column pgflow.artifacts.artifact_no is
    'The number of the event that it came with; unique in its run.';
comment on column pgflow.artifacts.flow_run_id is 'The run of the flow, of whose step its run is.';
comment on column pgflow.artifacts.version is
    'The round of the run, and of the flow if it is a step of one.';
comment on column pgflow.artifacts.attempt is
    'Failed executions before the one that wrote it last.';
comment on column pgflow.artifacts.lease_no is
    'The lease of the execution that wrote it last: it counts for that one alone.';
comment on column pgflow.artifacts.kind is 'input, output, document or report.';
comment on column pgflow.artifacts.schema is
    'The schema that it was held to, if that has a name.';
comment on column pgflow.artifacts.size is 'In bytes.';
comment on column pgflow.artifacts.sha256 is
    'Hex SHA-256 of the whole content: of the bytes, the text in UTF-8, or the database''s text of '
    'the JSON.';
comment on column pgflow.artifacts.validation_errors is
    'All that is wrong with it: path and message of each.';

create or replace function pgflow._refuse_artifact(
    p_project text, p_run_ids uuid[], p_name text, p_step text
)
returns void
language plpgsql
as $$
begin
    perform pgflow._refuse('PF111',
        format('unknown artifact: %s', concat_ws(' of step ', left(p_name, 200), p_step)),
        format('artifacts of that run in this project: %s', coalesce((
            select string_agg(distinct a.name, ', ') from pgflow.artifacts a
            where a.project_id = p_project and a.run_id = any (p_run_ids)), 'none')),
        'View pgflow.artifacts lists them by run_id; those of a step have its name in step.',
        'name');
end
$$;
comment on function pgflow._refuse_artifact is
    'Raises PF111 and tells which artifacts there are.';

create or replace function pgflow.artifact_content(
    run_id uuid, name text, step text default null, version integer default null,
    artifact_no integer default null, project text default null
)
returns pgflow.artifact_content_v1
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_project text := pgflow._enter_project(artifact_content.project);
    v_run_ids uuid[] := array[artifact_content.run_id];
    v_found pgflow.artifact_content_v1;
begin
    if artifact_content.step is not null then
        v_run_ids := array(
            select s.child_run_id from pgflow.flow_step s
            where s.project_id = v_project and s.run_id = artifact_content.run_id
              and s.step = artifact_content.step and s.child_run_id is not null);
    end if;
    select a.run_id, a.artifact_no, a.step, a.version, a.kind, a.name, a.media_type, a.size,
        a.sha256, a.valid, a.validation_errors, null::jsonb, null::text, null::bytea
    into v_found
    from pgflow.artifacts a
    where a.project_id = v_project and a.run_id = any (v_run_ids)
      and a.name = artifact_content.name
      and a.version = coalesce(artifact_content.version, a.version)
      and a.artifact_no = coalesce(artifact_content.artifact_no, a.artifact_no)
    order by a.version desc, a.lease_no desc nulls last, a.artifact_no desc
    limit 1;
    if not found then
        perform pgflow._refuse_artifact(v_project, v_run_ids, artifact_content.name,
            artifact_content.step);
    end if;
    select c.content_json, c.content_text, c.content_bytes
    into v_found.content_json, v_found.content_text, v_found.content_bytes
    from (
        select a.content_json, a.content_text, a.content_bytes
        from pgflow.artifact a
        where a.project_id = v_project and a.run_id = v_found.run_id
          and a.artifact_no = v_found.artifact_no
        union all
        select r.input, null, null from pgflow.run r
        where r.project_id = v_project and r.run_id = v_found.run_id and v_found.kind = 'input'
        union all
        select case v_found.kind when 'input' then f.input else f.output end, null, null
        from pgflow.run_finished f
        where f.project_id = v_project and f.run_id = v_found.run_id
          and v_found.kind in ('input', 'output')
    ) c
    limit 1;
    return v_found;
end
$$;
comment on function pgflow.artifact_content is
    'An artifact with its content; of several of that name the one that was written last. The name '
    'is that of a document, or input or output. With a step, run_id is the run of its flow, and '
    'version the round. Example: select content_json from pgflow.artifact_content(''...'', '
    '''article'', step => ''draft''). Raises PF111, PF502.';
