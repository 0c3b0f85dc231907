-- Steps of a flow: each is executed as a child run. What a step is by its definition, what it is
-- given, and what its run makes of it.

create or replace function pgflow._join_says(
    p_rule text, p_needs integer, p_settled integer, p_completed integer, p_failed integer
)
returns text
language sql
immutable
as $$
    select case
        when p_needs = 0 then 'running'
        when p_rule = 'any' and p_completed > 0 then 'running'
        when p_rule = 'one_failed' and p_failed > 0 then 'running'
        when p_rule = 'all' and p_completed < p_settled then 'skipped'
        when p_rule = 'none_failed' and p_failed > 0 then 'skipped'
        when p_settled < p_needs then 'pending'
        when p_rule in ('any', 'one_failed') then 'skipped'
        else 'running'
    end
$$;
comment on function pgflow._join_says is
    'What a step''s join rule makes of it: running, skipped, or pending as long as that is open.';

create or replace function pgflow._step_input(
    p_project text, p_flow pgflow.run, p_needs text[]
)
returns jsonb
language plpgsql
stable
as $$
begin
    if p_needs = '{}' then
        return p_flow.input;
    elsif strpos(array_to_string(p_needs, ' '), '/') > 0 then
        return pgflow._gated_input(p_project, p_flow, p_needs);
    end if;
    return (
        select coalesce(jsonb_object_agg(s.step, pgflow._step_output(s)), '{}')
        from pgflow.flow_step s
        where s.project_id = p_project and s.run_id = p_flow.run_id and s.step = any (p_needs)
          and s.element = 0 and s.voided_at is null and s.state = 'completed');
end
$$;
comment on function pgflow._step_input is
    'The outputs of the steps that a step needs, by name; the flow''s input if it needs none.';

create or replace function pgflow._step_state(p_run_state text, p_error_code text)
returns text
language sql
immutable
as $$
    select case when p_run_state = 'completed' then 'completed'
                when p_error_code = 'E-RUN-006' then 'rejected'
                when p_error_code = 'E-RUN-007' then 'expired'
                when p_run_state = 'cancelled' then 'cancelled'
                else 'failed' end
$$;
comment on function pgflow._step_state is 'What the end of its run makes of a step.';

create or replace function pgflow._step_of(p_run pgflow.run)
returns pgflow.step_definition
language plpgsql
stable
as $$
declare
    v_step pgflow.step_definition;
begin
    select d.* into v_step
    from pgflow.run f
    cross join lateral pgflow._steps_of_flow(f) as d
    where f.project_id = p_run.project_id and f.run_id = p_run.parent_run_id
      and d.step = p_run.step;
    return v_step;
end
$$;
comment on function pgflow._step_of is
    'The definition of the step that a run executes; a row of nulls if its flow has ended.';

-- All that are leased at once in one query; concat, as in _lease, passes over nulls.
create or replace function pgflow._step_contexts(p_project text, p_run_ids uuid[])
returns table (run_id uuid, context text)
language plpgsql
stable
strict
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
    return query
    select r.run_id, concat(
        '{"run_id":"', f.run_id, '","flow":', to_json(f.handler),
        ',"flow_version":', f.flow_version, ',"step":', to_json(d.step),
        ',"config":', d.config, ',"input_is_left_out":', (not i.is_sent)::text,
        ',"input":' || case when i.is_sent then f.input end::text,
        ',"step_type":' || to_json(d.step_type)::text, ',"version":' || s.version,
        ',"element":' || nullif(s.element, 0),
        ',"state":' || case when r.checkpoint_no is not null
            then pgflow._values(f.project_id, f.run_id, f.handler, f.flow_version,
                r.checkpoint_no) end::text,
        ',"repair":' || case when d.artifact is not null
            then pgflow._repair(f.project_id, r.run_id) end::text,
        ',"binding":' || case when d.role is not null
            then pgflow._binding(f.project_id, f.bindings, d.role) end::text,
        ',"artifact":' || case when d.artifact is not null
            then pgflow._expected_artifact(d.project_id, d.artifact) end::text,
        ',"failures":' || case when s.needs_failed > 0
            then pgflow._failures(f.project_id, f.run_id, d.needs) end::text,
        '}')
    from unnest(p_run_ids) as u (run_id)
    cross join lateral (
        select r.run_id, r.parent_run_id, r.parent_key, r.step, r.checkpoint_no from pgflow.run r
        where r.project_id = p_project and r.run_id = u.run_id
        limit 1
    ) r
    cross join lateral (
        select f.* from pgflow.run f
        where f.project_id = p_project and f.run_id = r.parent_run_id
        limit 1
    ) f
    cross join lateral (
        select d.* from pgflow._defined_steps(p_project, f.run_id, f.handler, f.flow_version,
            f.has_own_steps) as d
        where d.step = r.step
        limit 1
    ) d
    left join lateral (
        select s.element, s.version, s.needs_failed from pgflow.flow_step s
        where s.project_id = p_project and s.run_id = f.run_id and s.step = r.step
          and s.element = pgflow._element_of(r.parent_key) and s.child_run_id = r.run_id
        limit 1
    ) s on true
    cross join lateral (select pgflow._is_sent(s.element, f.input)) i (is_sent);
end
$$;
comment on function pgflow._step_contexts is
    'What the workers of steps learn of their flows, json texts without the fields that are null: '
    'names, versions, config, the flow''s input and state values, what the step''s role is bound '
    'to, the artifact that is expected of it, and which of the steps that it needs have failed.';

create or replace function pgflow._failures(p_project text, p_flow_id uuid, p_needs text[])
returns json
language plpgsql
stable
as $$
begin
    return (
        select json_object_agg(o.step, json_build_object('state', o.state,
            'error_code', o.error_code, 'error_detail', o.error_detail,
            'run_id', o.child_run_id))
        from pgflow.flow_step o
        where o.project_id = p_project and o.run_id = p_flow_id and o.step = any (p_needs)
          and o.element = 0 and o.voided_at is null
          and o.state not in ('completed', 'skipped', 'pending', 'running'));
end
$$;
comment on function pgflow._failures is
    'The failed ones among the steps that a step needs: state, error_code, error_detail, run_id.';
