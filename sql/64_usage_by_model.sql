-- What a run and all below it, live and ended, took of each model.

-- Every child is told of in its parent's rows: a step of a flow in flow_step, any other by an
-- event. What a flow took over from another run, whose steps it kept, has that run for its parent.
create or replace function pgflow._family_ever(p_project text, p_run_id uuid)
returns setof uuid
language plpgsql
stable
as $$
begin
    return query
    with recursive below as (
        select p_run_id as run_id
        union
        select c.run_id
        from below b
        cross join lateral (
            select s.child_run_id as run_id from pgflow.flow_step s
            where s.project_id = p_project and s.run_id = b.run_id
              and exists (
                  select from pgflow.run r
                  where r.project_id = p_project and r.run_id = s.child_run_id
                    and r.parent_run_id = b.run_id
                  union all
                  select from pgflow.run_finished f
                  where f.project_id = p_project and f.run_id = s.child_run_id
                    and f.parent_run_id = b.run_id)
            union all
            select (e.payload ->> 'run_id')::uuid from pgflow.event e
            where e.project_id = p_project and e.run_id = b.run_id and e.type = 'child.started'
        ) c
    )
    select b.run_id from below b;
end
$$;
comment on function pgflow._family_ever is 'A run and all that were ever made below it.';

create or replace function pgflow.usage_by_model(run_id uuid, project text default null)
returns table (model text, calls bigint, failed_calls bigint, unpriced_calls bigint,
    input_tokens numeric, output_tokens numeric, cached_tokens numeric, reasoning_tokens numeric,
    cost_usd numeric, latency_ms numeric)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(usage_by_model.project);
begin
    if not exists (select from pgflow.run r
                   where r.project_id = v_project and r.run_id = usage_by_model.run_id) then
        perform pgflow._finished_state(v_project, usage_by_model.run_id);
    end if;
    return query
    select u.model, count(*), count(*) filter (where u.status = 'failed'),
        count(*) filter (where u.cost_usd_total is null),
        coalesce(sum(u.input_tokens), 0), coalesce(sum(u.output_tokens), 0),
        coalesce(sum(u.cached_tokens), 0), coalesce(sum(u.reasoning_tokens), 0),
        coalesce(sum(u.cost_usd_total), 0), coalesce(sum(u.latency_ms), 0)
    from pgflow._family_ever(v_project, usage_by_model.run_id) as f (run_id)
    join pgflow.usage u on u.project_id = v_project and u.run_id = f.run_id
    group by u.model
    order by u.model;
end
$$;
comment on function pgflow.usage_by_model is
    'What a run and all below it, children and steps, took of each model: calls, those that failed '
    'and those of unknown cost among them, tokens, cost and milliseconds. Example: select * from '
    'pgflow.usage_by_model(''...''). Raises PF102, PF502.';
