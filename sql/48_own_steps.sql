-- A run's own steps. The version stays what it is; the run has rows for each step that was added to
-- it and for those next to one, which say anew what needs what. A step that another added counts as
-- long as that does.

create or replace function pgflow._put_step(p_flow pgflow.run, p_step pgflow.run_step)
returns void
language plpgsql
as $$
begin
    insert into pgflow.run_step
    select d.*, p_flow.run_id from pgflow._steps_of_flow(p_flow) as d
    where d.step = any (p_step.needs || p_step.dependants)
    on conflict on constraint run_step_pkey do nothing;
    delete from pgflow.run_step s
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id and s.step = p_step.step;
    insert into pgflow.run_step select p_step.*;
    update pgflow.run_step s set dependants = s.dependants || p_step.step
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
      and s.step = any (p_step.needs);
    update pgflow.run_step s set needs = s.needs || p_step.step
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
      and s.step = any (p_step.dependants);
    update pgflow.run r set has_own_steps = true
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id and not r.has_own_steps;
end
$$;
comment on function pgflow._put_step is
    'Writes a step of a run''s own, and has those next to it know of it. The caller holds the run.';

-- What a step needed, or needed it, beside them knows no more of it.
create or replace function pgflow._withdraw_steps(
    p_flow pgflow.run, p_now timestamptz, p_steps text[], p_retried text
)
returns void
language plpgsql
as $$
declare
    v_gone text[] := array(
        with recursive gone as (
            select s.step from pgflow.run_step s
            where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
              and s.added_in = any (p_steps) and s.withdrawn_at is null
              and (s.added_in is distinct from p_retried or not pgflow._is_kept(s.project_id,
                  s.run_id, s.added_in, s.added_element, null))
            union
            select s.step
            from gone g
            join pgflow.run_step s on s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
                and s.definition -> 'needs' ? g.step and s.withdrawn_at is null
        )
        select g.step from gone g);
begin
    update pgflow.run_step s set withdrawn_at = p_now
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id and s.step = any (v_gone);
    update pgflow.run_step s
    set needs = array(select n from unnest(s.needs) as n where n <> all (v_gone)),
        dependants = array(select n from unnest(s.dependants) as n where n <> all (v_gone))
    where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
      and s.withdrawn_at is null and (s.needs || s.dependants) && v_gone;
end
$$;
comment on function pgflow._withdraw_steps is
    'Takes back what was added by steps that count no more, or, of one that is retried, by its '
    'elements that did not complete, and what needs that. The caller holds the flow.';

create or replace function pgflow._is_kept(
    p_project text, p_run_id uuid, p_step text, p_element integer, p_super_step integer
)
returns boolean
language plpgsql
stable
as $$
begin
    return exists (
        select from pgflow.flow_step s
        where s.project_id = p_project and s.run_id = p_run_id and s.step = p_step
          and s.element = p_element
          and case when p_super_step is null then s.state = 'completed' and s.voided_at is null
                  and not exists (
                      select from pgflow.run_finished f
                      where f.project_id = p_project and f.run_id = p_run_id
                        and f.state = 'completed')
              else s.super_step <= p_super_step
                  and coalesce(s.voided_super_step >= p_super_step, s.voided_at is null) end);
end
$$;
comment on function pgflow._is_kept is
    'Whether what a step, or an element of one, has done is kept: by a retry, or in a fork from a '
    'super-step.';

-- What was tied to it later is tied to it again when that is taken over in its turn. What was added
-- by a step that is to be done again will be added again.
create or replace function pgflow._keep_added_steps(
    p_project text, p_from uuid, p_to uuid, p_super_step integer default null
)
returns void
language plpgsql
as $$
declare
    v_to pgflow.run;
    v_step pgflow.run_step;
begin
    for v_step in
        select s.* from pgflow.run_step s
        where s.project_id = p_project and s.run_id = p_from and s.definition is not null
          and s.withdrawn_at is null and (p_super_step is null or s.super_step < p_super_step)
          and (s.added_in is null
               or pgflow._is_kept(p_project, p_from, s.added_in, s.added_element, p_super_step))
        order by s.place
    loop
        select r.* into v_to from pgflow.run r
        where r.project_id = p_project and r.run_id = p_to;
        -- One that it needs, or that added it, may not have been kept.
        continue when exists (
            select from (
                select jsonb_array_elements_text(v_step.definition -> 'needs') as step
                union all
                select v_step.added_in where v_step.added_in is not null
            ) n
            where not exists (
                select from pgflow._steps_of_flow(v_to) as d where d.step = n.step));
        v_step.run_id := p_to;
        v_step.needs := pgflow._needs_in_flow(v_to, v_step.definition);
        v_step.dependants := array(
            select distinct n.step collate "C"
            from unnest(v_step.needed_by || (v_step.definition #>> '{on_failure,run}')) as n (step)
            where exists (
                select from pgflow._steps_of_flow(v_to) as d where d.step = n.step));
        if p_super_step is null then
            v_step.super_step := -1;
        end if;
        perform pgflow._put_step(v_to, v_step);
    end loop;
end
$$;
comment on function pgflow._keep_added_steps is
    'Gives a new run of a flow the steps that were added to another, all of them or those from '
    'before a super-step.';
