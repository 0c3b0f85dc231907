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

create or replace function pgflow._step_context(p_run pgflow.run)
returns json
language plpgsql
stable
as $$
begin
    return (
        select json_build_object('run_id', f.run_id, 'flow', f.handler,
            'flow_version', f.flow_version, 'step', d.step, 'step_type', d.step_type,
            'config', d.config, 'version', s.version, 'element', nullif(s.element, 0),
            'input', case when pgflow._is_sent(s.element, f.input) then f.input end,
            'input_is_left_out', not pgflow._is_sent(s.element, f.input),
            'state', case when p_run.checkpoint_no is not null
                then pgflow._values(f.project_id, f.run_id, f.handler, f.flow_version,
                    p_run.checkpoint_no) end,
            'repair', case when d.artifact is not null then pgflow._repair(p_run) end,
            'binding', case when d.role is not null
                then pgflow._binding(f.project_id, f.bindings, d.role) end,
            'artifact', case when d.artifact is not null
                then pgflow._expected_artifact(d.project_id, d.artifact) end,
            'failures', (
                select json_object_agg(o.step, json_build_object('state', o.state,
                    'error_code', o.error_code, 'error_detail', o.error_detail,
                    'run_id', o.child_run_id))
                from pgflow.flow_step o
                where s.needs_failed > 0 and o.project_id = f.project_id and o.run_id = f.run_id
                  and o.step = any (d.needs) and o.element = 0 and o.voided_at is null
                  and o.state not in ('completed', 'skipped', 'pending', 'running')))
        from pgflow.run f
        join lateral pgflow._steps_of_flow(f) as d on d.step = p_run.step
        left join pgflow.flow_step s on s.project_id = f.project_id and s.run_id = f.run_id
            and s.step = p_run.step and s.child_run_id = p_run.run_id
            and s.element = pgflow._element_of(p_run.parent_key)
        where f.project_id = p_run.project_id and f.run_id = p_run.parent_run_id);
end
$$;
comment on function pgflow._step_context is
    'What the worker of a step learns of its flow: names, versions, config, the flow''s input and '
    'state values, what its role is bound to, the artifact that is expected of it, and which of '
    'the steps that it needs have failed.';
