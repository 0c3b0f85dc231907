-- The steps that a run of a flow has: those of its version and those that were added to this run.
-- Everything that asks what a step is asks here.

-- It is a single query without settings of its own, so that a plan takes it in as if it stood there
-- itself: a look-up of one step is one look into the key of step_definition, and a run without
-- steps of its own doesn't touch run_step. p_has_own is run.has_own_steps; true looks anyway, for
-- runs that have ended.
create or replace function pgflow._defined_steps(
    p_project text, p_run_id uuid, p_flow text, p_version integer, p_has_own boolean
)
returns setof pgflow.step_definition
language sql
stable
as $$
    select d.* from pgflow.step_definition d
    where d.project_id = p_project and d.flow = p_flow and d.version = p_version
      and not (p_has_own and exists (
          select from pgflow.run_step o
          where o.project_id = p_project and o.run_id = p_run_id and o.step = d.step))
    union all
    select o.project_id, o.flow, o.version, o.step, o.place, o.layer, o.type, o.handler, o.queue,
        o.join_rule, o.on_failure, o.max_attempts, o.timeout, o.retry_base, o.retry_factor,
        o.retry_max, o.needs, o.dependants, o.config, o.condition, o.layered, o.each_path,
        o.artifact, o.step_type, o.gate_of, o.last_gate, o.role
    from pgflow.run_step o
    where p_has_own and o.project_id = p_project and o.run_id = p_run_id
      and o.withdrawn_at is null
$$;
comment on function pgflow._defined_steps is
    'The steps of a run: those of its version of the flow, and instead of those, or beside them, '
    'the run''s own.';

create or replace function pgflow._steps_of_flow(p_flow pgflow.run)
returns setof pgflow.step_definition
language sql
stable
as $$
    select d.* from pgflow._defined_steps(p_flow.project_id, p_flow.run_id, p_flow.handler,
        p_flow.flow_version, p_flow.has_own_steps) as d
$$;
comment on function pgflow._steps_of_flow is 'The steps of a live run of a flow.';
