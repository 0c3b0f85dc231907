-- What becomes of a run whose step expects an artifact. It completes if this execution has written
-- it and it is valid. Else the handler is executed again and told why, which uses no attempt, for
-- as many times as the step says; then the run fails.

-- Both are so from a run's beginning, or come to it while its worker holds it.
create or replace function pgflow._what_ends(
    p_project text, p_run_ids uuid[], out have_families boolean, out expect_artifacts boolean
)
returns record
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
begin
    -- As in _lock_family(): each by itself, and of runs without family one look into an index.
    select count(*) > 0, bool_or(f.expects_artifact) into have_families, expect_artifacts
    from unnest(p_run_ids) as u (run_id)
    cross join lateral (
        select r.repairs_left is not null as expects_artifact from pgflow.run r
        where r.project_id = p_project and r.run_id = u.run_id
          and (r.parent_run_id is not null or r.has_children) is true
        limit 1
    ) f;
end
$$;
comment on function pgflow._what_ends is
    'Whether any of these runs have parents or children, and whether a step among those expects an '
    'artifact.';

create or replace function pgflow._artifact_fault(p_run pgflow.run)
returns jsonb
language plpgsql
as $$
declare
    v_expected jsonb := (pgflow._step_of(p_run)).artifact;
    v_name text := v_expected ->> 'name';
    v_last record;
begin
    select a.artifact_no, a.valid, a.validation_errors into v_last
    from pgflow.artifact a
    where a.project_id = p_run.project_id and a.run_id = p_run.run_id and a.name = v_name
      and a.lease_no = p_run.lease_no
    order by a.artifact_no desc
    limit 1;
    if v_last.valid or v_expected is null then
        return null;
    end if;
    return jsonb_strip_nulls(jsonb_build_object('name', v_name,
        'repair', coalesce((v_expected -> 'repairs')::integer, 1) - p_run.repairs_left + 1,
        'error_code', case when v_last.valid is null then 'E-RUN-014' else 'E-RUN-008' end,
        'artifact_no', v_last.artifact_no,
        'errors', coalesce(pgflow._first_errors(v_last.validation_errors),
            jsonb_build_array(jsonb_build_object('path', '$', 'message',
                format('artifact %s was not produced', v_name))))));
end
$$;
comment on function pgflow._artifact_fault is
    'What is wrong with the artifact that the step of a run expects: error_code, name, '
    'artifact_no, the first errors, and which repair would be next; null if nothing is.';

create or replace function pgflow._repair_or_fail(
    p_run pgflow.run, p_fault jsonb, p_cost numeric, p_steps integer
)
returns text
language plpgsql
as $$
declare
    v_detail text := format('artifact %s: %s', p_fault ->> 'name', (
        select string_agg(concat_ws(' ', nullif(e ->> 'path', '$'), e ->> 'message'), '; ')
        from jsonb_array_elements(p_fault -> 'errors') as e));
begin
    if p_run.repairs_left > 0 then
        update pgflow.run r set repairs_left = r.repairs_left - 1
        where r.project_id = p_run.project_id and r.run_id = p_run.run_id;
        return pgflow._give_back(p_run, pgflow.now(), 'prompt.repaired', p_fault, false, '0', null,
            p_cost, p_steps);
    end if;
    perform pgflow._end(p_run.project_id, array[p_run.run_id], array[p_run.lease_no], 'failed',
        null, array[p_cost], array[p_steps], p_fault ->> 'error_code', v_detail,
        jsonb_build_object('type', 'ArtifactRefused', 'message', left(v_detail, 8000)));
    return 'failed';
end
$$;
comment on function pgflow._repair_or_fail is
    'running -> pending, to be executed again for its artifact, or failed if it has no repairs '
    'left. The caller holds the run with its family.';

create or replace function pgflow._time_out_with_artifact(
    p_run pgflow.run, p_cost numeric, p_steps integer
)
returns text
language plpgsql
as $$
declare
    v_fault jsonb := pgflow._artifact_fault(p_run);
    v_run pgflow.run := p_run;
begin
    if v_fault is null then
        return null;
    end if;
    perform pgflow._append_event(v_run, 'artifact.timeout', pgflow.now(),
        v_fault - '{repair,errors}'::text[]);
    v_run.last_event_no := v_run.last_event_no + 1;
    return pgflow._repair_or_fail(v_run, v_fault, p_cost, p_steps);
end
$$;
comment on function pgflow._time_out_with_artifact is
    'Ends an execution that took too long and has not left its artifact behind; returns the run''s '
    'state, or null if it has.';

create or replace function pgflow._complete_with_artifacts(
    p_project text, p_run_ids uuid[], p_lease_nos integer[], p_outputs text[], p_costs numeric[],
    p_steps integer[], p_writes text[]
)
returns setof pgflow.outcome_v1
language plpgsql
as $$
declare
    v_given record;
    v_run pgflow.run;
    v_fault jsonb;
    v_faulty uuid[] := '{}';
    v_left integer[];
begin
    for v_given in
        select g.* from unnest(p_run_ids, p_lease_nos, p_costs, p_steps)
                   as g (run_id, lease_no, cost, steps)
        order by g.run_id
    loop
        v_run := pgflow._held(p_project, v_given.run_id, v_given.lease_no);
        continue when v_run.repairs_left is null;
        v_fault := pgflow._artifact_fault(v_run);
        continue when v_fault is null;
        v_faulty := v_faulty || v_run.run_id;
        return query select v_run.run_id, 'refused',
            pgflow._repair_or_fail(v_run, v_fault, v_given.cost, v_given.steps),
            v_fault ->> 'error_code', v_fault #>> '{errors,0,message}';
    end loop;
    v_left := array(
        select g.n::integer from unnest(p_run_ids) with ordinality as g (run_id, n)
        where g.run_id <> all (v_faulty)
        order by g.n);
    if cardinality(v_left) > 0 then
        return query
        select c.* from pgflow._complete(p_project,
            array(select p_run_ids[n] from unnest(v_left) as n),
            array(select p_lease_nos[n] from unnest(v_left) as n),
            array(select p_outputs[n] from unnest(v_left) as n),
            array(select p_costs[n] from unnest(v_left) as n),
            array(select p_steps[n] from unnest(v_left) as n),
            case when p_writes is not null
                 then array(select p_writes[n] from unnest(v_left) as n) end, false) as c;
    end if;
end
$$;
comment on function pgflow._complete_with_artifacts is
    'As _complete, but runs whose artifact is missing or invalid are executed again, or fail.';
