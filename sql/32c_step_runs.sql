-- The runs of steps that have a handler, as they are made for a worker to execute.

create or replace function pgflow._make_runs(
    p_project text, p_ids uuid[], p_flow_ids uuid[], p_steps text[], p_now timestamptz,
    p_elements integer[] default null, p_inputs jsonb[] default null
)
returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_run_ids uuid[];
    v_queues text[];
    v_priorities smallint[];
    v_expecting uuid[];
    v_new record;
begin
    with made as (
        insert into pgflow.run (project_id, run_id, parent_run_id, root_run_id, parent_key, step,
            depth, handler, queue, state, priority, lane, seq, max_attempts, timeout, deadline,
            created_at, created_by, correlation_id, tags, feedback, budget_run_id, checkpoint_no,
            repairs_left,
            input)
        select p_project, m.run_id, f.run_id, coalesce(f.root_run_id, f.run_id),
            concat_ws('#', d.step, m.element), d.step, f.depth + 1, d.handler, n.queue, 'pending',
            f.priority, 0, nextval('pgflow.run_seq'),
            coalesce(d.max_attempts, h.max_attempts, q.max_attempts, 3),
            coalesce(d.timeout, h.timeout, q.timeout, '300 seconds'), f.deadline, p_now,
            f.created_by, coalesce(f.correlation_id, f.run_id::text), f.tags, f.feedback,
            f.budget_run_id, f.checkpoint_no, case when d.artifact is not null
                then coalesce((d.artifact -> 'repairs')::smallint, 1) end,
            coalesce(m.input, pgflow._step_input(p_project, f, d.needs))
        from unnest(p_ids, p_flow_ids, p_steps, p_elements, p_inputs)
            as m (run_id, flow_id, step, element, input)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = m.flow_id
            limit 1
        ) f
        cross join lateral (
            select d.*
            from pgflow._defined_steps(p_project, f.run_id, f.handler, f.flow_version,
                f.has_own_steps) as d
            where d.step = m.step and d.type = 'handler'
              and (d.each_path is null or m.element is not null)
            limit 1
        ) d
        left join lateral (
            select h.* from pgflow.handler h
            where h.project_id = p_project and h.handler = d.handler
            limit 1
        ) h on true
        cross join lateral (select coalesce(d.queue, h.queue, 'default')) n (queue)
        left join lateral (
            select q.* from pgflow.queue q
            where q.project_id = p_project and q.queue = n.queue
            limit 1
        ) q on true
        returning run_id, queue, priority, repairs_left
    )
    select array_agg(m.queue), array_agg(m.priority), (select array_agg(d.run_id) from made d),
        (select array_agg(d.run_id) from made d where d.repairs_left is not null)
    into v_queues, v_priorities, v_run_ids, v_expecting
    from (select distinct m.queue, m.priority from made m) m;
    perform pgflow._give_step_budgets(p_project, p_ids, p_flow_ids, p_steps);
    if pgflow._is_followed(p_project) then
        perform pgflow._publish(p_project, v_run_ids);
    end if;
    if v_expecting is not null then
        perform pgflow._expect_artifacts(p_project, v_expecting, p_now);
    end if;
    for v_new in
        select u.queue, u.priority from unnest(v_queues, v_priorities) as u (queue, priority)
        where not exists (select from pgflow.queue q
                          where q.project_id = p_project and q.queue = u.queue
                            and u.priority = any (q.priorities))
        order by 1, 2
    loop
        perform pgflow._use_queue(p_project, v_new.queue, v_new.priority);
    end loop;
    perform pgflow._hint_queues(p_project, v_queues);
end
$$;
comment on function pgflow._make_runs is
    'Makes the runs of steps that are ready and have a handler, or of elements of one with their '
    'inputs, under ids that their rows have.';
