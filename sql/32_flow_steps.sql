-- Steps of a flow: each is executed as a child run. When children end, one firing takes note of all
-- of them at once: it counts them for the steps that need them, and makes runs for those that are
-- ready. Flows in a batch are fired together, in a few statements whatever their number.
--
-- The caller holds the flows, so nobody else counts at the same time. A step without a row in
-- flow_step is one of which no need has ended yet.

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

-- Steps that needed those that ended, or with null the steps that need none: counted, decided on,
-- and written. What is skipped has ended too, so there may be another round.
--
-- Each row is looked up by its key, in a lateral join that no planner turns around: for tables that
-- it thinks are small it would read them whole. An insert that updates is the same for writing. And
-- the plan is kept, since to make it costs ten times as much as to follow it.
create or replace function pgflow._advance(
    p_project text, p_run_ids uuid[], p_steps text[], p_again text default null
)
returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_now timestamptz := pgflow.now();
    v_run_ids uuid[] := p_run_ids;
    v_steps text[] := p_steps;
    v_skipped_ids uuid[];
    v_skipped text[];
    v_started uuid[];
    v_have_others boolean;
    v_others record;
    v_sub_flows uuid[];
    v_told uuid[];
    v_event_nos integer[];
    v_watched uuid[];
begin
    -- Before seq is drawn; see _enqueue.
    perform pg_current_xact_id();
    while cardinality(v_run_ids) > 0 loop
        with ended as materialized (
            select u.run_id, u.step, r.handler as flow, r.flow_version, r.round, r.super_step,
                r.last_event_no, r.breakpoints
            from unnest(v_run_ids, v_steps) as u (run_id, step)
            cross join lateral (
                select r.* from pgflow.run r
                where r.project_id = p_project and r.run_id = u.run_id
                limit 1
            ) r
        ),
        touched as (
            select e.run_id, e.flow, e.flow_version, e.round, e.super_step, e.last_event_no,
                e.breakpoints, n.step,
                count(*)::integer as settled,
                (count(*) filter (where s.state = 'completed'))::integer as completed,
                (count(*) filter (where s.state not in ('completed', 'skipped')))::integer as failed
            from ended e
            cross join lateral (
                select d.dependants from pgflow.step_definition d
                where d.project_id = p_project and d.flow = e.flow
                  and d.version = e.flow_version and d.step = e.step
                limit 1
            ) d
            cross join lateral (
                select s.state from pgflow.flow_step s
                where s.project_id = p_project and s.run_id = e.run_id and s.step = e.step
                  and s.element = 0 and s.voided_at is null
                limit 1
            ) s
            cross join lateral unnest(d.dependants) as n (step)
            group by 1, 2, 3, 4, 5, 6, 7, 8
            union all
            select e.run_id, e.flow, e.flow_version, e.round, e.super_step, e.last_event_no,
                e.breakpoints, d.step, 0, 0, 0
            from ended e
            cross join lateral (
                select d.step from pgflow.step_definition d
                where d.project_id = p_project and d.flow = e.flow and d.version = e.flow_version
                  and e.step is null
                  and case when p_again is null then d.needs = '{}' else d.step = p_again end
                offset 0
            ) d
        ),
        decided as materialized (
            select t.*, d.place, d.type, c.settled as all_settled, c.completed as all_completed,
                c.failed as all_failed, j.state,
                case when j.state = 'skipped' and j.says = 'running'
                    then format('%s is not true', d.condition) end
                    as reason,
                (count(*) filter (where j.state <> 'pending')
                    over (partition by t.run_id order by d.place))::integer as nth,
                case j.state when 'running'
                    then greatest(pgflow._new_id(), pgflow._id_after(t.run_id)) end as child_run_id
            from touched t
            cross join lateral (
                select d.place, d.join_rule, cardinality(d.needs) as needs, d.condition,
                    case when d.each_path is null then d.type else 'each' end as type
                from pgflow.step_definition d
                where d.project_id = p_project and d.flow = t.flow
                  and d.version = t.flow_version and d.step = t.step
                limit 1
            ) d
            left join lateral (
                select s.state, s.needs_settled, s.needs_completed, s.needs_failed
                from pgflow.flow_step s
                where s.project_id = p_project and s.run_id = t.run_id and s.step = t.step
                  and s.element = 0 and s.voided_at is null
                limit 1
            ) s on true
            cross join lateral (
                select coalesce(s.needs_settled, 0) + t.settled,
                    coalesce(s.needs_completed, 0) + t.completed,
                    coalesce(s.needs_failed, 0) + t.failed
            ) c (settled, completed, failed)
            cross join lateral (
                select s.says, case
                    when s.says = 'running' and d.condition is not null
                        and not pgflow._is_wanted(p_project, t.run_id, t.step, d.condition)
                        then 'skipped'
                    when s.says = 'running' and t.breakpoints is not null
                        and pgflow._stops_at(p_project, t.run_id, t.breakpoints, 'before', t.step)
                        then 'pending'
                    else s.says end
                from pgflow._join_says(d.join_rule, d.needs, c.settled, c.completed, c.failed)
                    as s (says)
            ) j (says, state)
            where s.state is null or s.state = 'pending'
        ),
        written as (
            insert into pgflow.flow_step as s (project_id, run_id, step, version, state,
                needs_settled, needs_completed, needs_failed, super_step, started_event_no,
                ended_event_no, child_run_id, ready_at, ended_at, error_detail)
            select p_project, d.run_id, d.step, d.round, d.state, d.all_settled, d.all_completed,
                d.all_failed, case d.state when 'skipped' then d.super_step end,
                case d.state when 'running' then d.last_event_no + d.nth end,
                case d.state when 'skipped' then d.last_event_no + d.nth end, d.child_run_id,
                case d.state when 'running' then v_now end,
                case d.state when 'skipped' then v_now end, d.reason
            from decided d
            on conflict (project_id, run_id, step, element) where voided_at is null do update
            set state = excluded.state, needs_settled = excluded.needs_settled,
                needs_completed = excluded.needs_completed, needs_failed = excluded.needs_failed,
                super_step = excluded.super_step, started_event_no = excluded.started_event_no,
                ended_event_no = excluded.ended_event_no, child_run_id = excluded.child_run_id,
                ready_at = excluded.ready_at, ended_at = excluded.ended_at,
                error_detail = excluded.error_detail
        ),
        flows as (
            update pgflow.run r
            set last_event_no = r.last_event_no + f.lines,
                has_children = r.has_children or f.has_started
            from (
                select d.run_id, max(d.nth) as lines, bool_or(d.state = 'running') as has_started
                from decided d group by d.run_id
            ) f
            where r.project_id = p_project and r.run_id = any (v_run_ids) and r.run_id = f.run_id
            returning r.run_id, r.watched
        )
        select array_agg(d.child_run_id) filter (where d.state = 'running'),
            array_agg(d.run_id) filter (where d.state = 'running'),
            array_agg(d.step) filter (where d.state = 'running'),
            bool_or(d.state = 'running' and d.type <> 'handler'),
            array_agg(d.run_id) filter (where d.state = 'skipped'),
            array_agg(d.step) filter (where d.state = 'skipped'),
            array_agg(d.run_id) filter (where d.state <> 'pending'),
            array_agg(d.last_event_no + d.nth) filter (where d.state <> 'pending'),
            (select array_agg(f.run_id) from flows f where f.watched)
        into v_started, v_run_ids, v_steps, v_have_others, v_skipped_ids, v_skipped, v_told,
            v_event_nos, v_watched
        from decided d;
        if v_watched is not null then
            perform pgflow._hint_watchers(p_project, v_watched);
        end if;
        if pgflow._is_followed(p_project) then
            perform pgflow._publish(p_project, v_told, v_event_nos);
        end if;
        if v_started is not null then
            perform pgflow._make_runs(p_project, v_started, v_run_ids, v_steps, v_now);
        end if;
        if v_have_others then
            v_others := pgflow._make_others(p_project, v_started, v_run_ids, v_steps, v_now);
            v_sub_flows := v_sub_flows || v_others.sub_flows;
            v_skipped_ids := v_skipped_ids || v_others.ended_ids;
            v_skipped := v_skipped || v_others.ended_steps;
        end if;
        v_run_ids := v_skipped_ids;
        v_steps := v_skipped;
    end loop;
    if v_sub_flows is not null then
        perform pgflow._begin_sub_flows(p_project, v_sub_flows);
    end if;
end
$$;
comment on function pgflow._advance is
    'Goes on after steps of flows that have ended, a null standing for the beginning of a flow, or '
    'for a step that is to be done again.';

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
            select d.* from pgflow.step_definition d
            where d.project_id = p_project and d.flow = f.handler
              and d.version = f.flow_version and d.step = m.step and d.type = 'handler'
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

-- The caller holds the flows. What ended while its flow was paused is stored, and counted when the
-- flow is resumed.
create or replace function pgflow._fire(p_project text, p_child_ids uuid[])
returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_flow_ids uuid[];
    v_have_elements boolean;
    v_fanned uuid[] := '{}';
    v_fans_completed boolean;
    v_run_ids uuid[];
    v_steps text[];
    v_all_completed boolean;
    v_stateful uuid[];
    v_layered uuid[];
    v_told uuid[];
    v_event_nos integer[];
    v_watched uuid[];
    v_stops boolean;
begin
    select array_agg(distinct c.parent_run_id), bool_or(c.parent_key like '%#%')
    into v_flow_ids, v_have_elements
    from unnest(p_child_ids) as u (run_id)
    cross join lateral (
        select c.parent_run_id, c.parent_key from pgflow.run_finished c
        where c.project_id = p_project and c.run_id = u.run_id and c.step is not null
        limit 1
    ) c;
    if v_have_elements then
        select e.flow_ids, e.all_completed into v_fanned, v_fans_completed
        from pgflow._settle_elements(p_project, p_child_ids) as e;
    end if;
    with ended as materialized (
        select s.run_id, s.step, s.element, s.version, s.ready_at, c.run_id as child_run_id,
            d.layered, pgflow._step_state(c.state, c.error_code) as state,
            c.error_code, c.error_detail, c.output, c.attempt, c.finished_at, r.last_event_no,
            case when r.state <> 'paused' and not d.layered and r.run_id <> all (v_fanned)
                      and not bool_or(b.stops) over (partition by s.run_id)
                 then r.super_step + 1 end as super_step,
            b.stops,
            row_number() over (partition by s.run_id order by d.place, s.element) as nth
        from unnest(p_child_ids) as u (run_id)
        cross join lateral (
            select c.* from pgflow.run_finished c
            where c.project_id = p_project and c.run_id = u.run_id
            limit 1
        ) c
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = c.parent_run_id
            limit 1
        ) r
        cross join lateral (
            select s.* from pgflow.flow_step s
            where s.project_id = p_project and s.run_id = r.run_id and s.step = c.step
              and s.element = 0 and s.voided_at is null and s.child_run_id = c.run_id
              and s.state = 'running'
            limit 1
        ) s
        cross join lateral (
            select d.place, d.layered from pgflow.step_definition d
            where d.project_id = p_project and d.flow = r.handler
              and d.version = r.flow_version and d.step = c.step
            limit 1
        ) d
        cross join lateral (
            select case when r.breakpoints is null or c.state <> 'completed' then false
                        else pgflow._stops_at(p_project, r.run_id, r.breakpoints, 'after', c.step)
                   end
        ) b (stops)
    ),
    settled as (
        insert into pgflow.flow_step as s (project_id, run_id, step, element, version, state,
            output, error_code, error_detail, attempts, ended_at, super_step, ended_event_no,
            child_run_id)
        select p_project, e.run_id, e.step, e.element, e.version, e.state, e.output, e.error_code,
            e.error_detail, e.attempt + (e.state = 'completed')::integer, e.finished_at,
            e.super_step, e.last_event_no + e.nth, e.child_run_id
        from ended e
        on conflict (project_id, run_id, step, element) where voided_at is null do update
        set state = excluded.state, output = excluded.output, error_code = excluded.error_code,
            error_detail = excluded.error_detail, attempts = excluded.attempts,
            ended_at = excluded.ended_at, super_step = excluded.super_step,
            ended_event_no = excluded.ended_event_no
    ),
    told as (
        update pgflow.run r
        set last_event_no = r.last_event_no + n.settled, step_count = r.step_count + n.completed,
            super_step = coalesce(n.super_step, r.super_step),
            checkpoint_no = r.checkpoint_no + (n.super_step is not null)::integer
        from (
            select e.run_id, e.super_step, count(*) as settled,
                count(*) filter (where e.state = 'completed') as completed
            from ended e group by e.run_id, e.super_step
        ) n
        where r.project_id = p_project and r.run_id = any (v_flow_ids) and r.run_id = n.run_id
        returning r.run_id, r.watched,
            r.checkpoint_no is not null and n.super_step is not null as is_stateful
    )
    select array_agg(e.run_id) filter (where e.super_step is not null),
        array_agg(e.step) filter (where e.super_step is not null),
        bool_and(e.state = 'completed'), array_agg(e.run_id),
        array_agg((e.last_event_no + e.nth)::integer),
        (select array_agg(t.run_id) from told t where t.watched),
        (select array_agg(t.run_id) from told t where t.is_stateful),
        array_agg(distinct e.run_id) filter (where e.layered), bool_or(e.stops)
    into v_run_ids, v_steps, v_all_completed, v_told, v_event_nos, v_watched, v_stateful, v_layered,
        v_stops
    from ended e;
    if v_watched is not null then
        perform pgflow._hint_watchers(p_project, v_watched);
    end if;
    if pgflow._is_followed(p_project) then
        perform pgflow._publish(p_project, v_told, v_event_nos);
    end if;
    if cardinality(v_fanned) > 0 then
        v_layered := v_layered || v_fanned;
        v_all_completed := v_all_completed is not false and v_fans_completed;
    end if;
    if v_layered is not null then
        perform pgflow._end_in_layers(p_project, v_layered, v_all_completed);
    end if;
    if v_stateful is not null then
        perform pgflow._save_checkpoints(p_project, v_stateful, v_run_ids, v_steps);
    end if;
    if v_run_ids is not null then
        perform pgflow._go_on_after(p_project, v_flow_ids, v_run_ids, v_steps, v_all_completed);
    elsif v_stops then
        perform pgflow._stop_flows(p_project, v_flow_ids);
    elsif v_have_elements then
        perform pgflow._look_at_flows(p_project, v_flow_ids);
    end if;
end
$$;
comment on function pgflow._fire is
    'Takes note of ended children in the steps of their flows, and has those go on.';

create or replace function pgflow._go_on_after(
    p_project text, p_flow_ids uuid[], p_run_ids uuid[], p_steps text[], p_all_completed boolean
)
returns void
language plpgsql
as $$
begin
    if not p_all_completed then
        perform pgflow._end_broken(p_project, p_run_ids, p_steps);
    end if;
    perform pgflow._advance(p_project, p_run_ids, p_steps);
    perform pgflow._look_at_flows(p_project, p_flow_ids);
end
$$;
comment on function pgflow._go_on_after is
    'Has flows go on after steps that have ended. The caller holds the flows.';

-- A step that did not complete ends its flow as it ended itself, unless the definition says that
-- the flow goes on.
create or replace function pgflow._end_broken(p_project text, p_run_ids uuid[], p_steps text[])
returns void
language plpgsql
as $$
declare
    v_broken record;
begin
    for v_broken in
        select distinct on (r.run_id) r.run_id, s.step, coalesce(c.state, 'failed') as state,
            s.error_code, s.error_detail, c.ended_by
        from unnest(p_run_ids, p_steps) as u (run_id, step)
        join pgflow.run r on r.project_id = p_project and r.run_id = u.run_id
        join pgflow.step_definition d on d.project_id = p_project and d.flow = r.handler
            and d.version = r.flow_version and d.step = u.step and d.on_failure = 'fail'
        join pgflow.flow_step s on s.project_id = p_project and s.run_id = u.run_id
            and s.step = u.step and s.element = 0 and s.voided_at is null
            and s.state not in ('completed', 'skipped')
        left join pgflow.run_finished c on c.project_id = p_project
            and c.run_id = coalesce(s.child_run_id, pgflow._first_broken(s))
        order by r.run_id, s.ended_event_no
    loop
        perform pgflow._end_from_outside(pgflow._locked(p_project, v_broken.run_id), v_broken.state,
            v_broken.error_code, format('step %s: %s', v_broken.step,
                coalesce(v_broken.error_detail, v_broken.state)), v_broken.ended_by);
    end loop;
end
$$;
comment on function pgflow._end_broken is
    'Ends the flows of steps that did not complete and whose on_failure is fail.';

create or replace function pgflow._flow_output(p_flow pgflow.run)
returns jsonb
language plpgsql
stable
as $$
declare
    v_output jsonb := (
        select v.definition -> 'output' from pgflow.flow_version v
        where v.project_id = p_flow.project_id and v.flow = p_flow.handler
          and v.version = p_flow.flow_version);
begin
    if v_output is null and p_flow.checkpoint_no is not null then
        return pgflow._values_now(p_flow);
    end if;
    return coalesce((
        select jsonb_object_agg(o.name, pgflow._step_output(s))
        from (
            select m.key as name, m.value as step from jsonb_each_text(v_output) as m
            union all
            select d.step, d.step from pgflow.step_definition d
            where v_output is null and d.project_id = p_flow.project_id
              and d.flow = p_flow.handler and d.version = p_flow.flow_version
              and d.dependants = '{}'
        ) o
        join pgflow.flow_step s on s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
            and s.step = o.step and s.element = 0 and s.voided_at is null
            and s.state = 'completed'), '{}');
end
$$;
comment on function pgflow._flow_output is
    'What a flow has to show for itself: the outputs that its definition names, else its state '
    'values, else the outputs of the steps that no other needs.';

-- What a flow is follows from what its steps are. In this order: it has ended; a step can run;
-- some wait; it is stuck.
create or replace function pgflow._look_at_flows(p_project text, p_flow_ids uuid[])
returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_ended uuid[];
    v_others uuid[];
    v_flow_id uuid;
    v_flow pgflow.run;
begin
    if exists (
        select from unnest(p_flow_ids) as u (run_id)
        cross join lateral (
            select from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id and r.breakpoints is not null
            limit 1
        ) f
    ) then
        perform pgflow._stop_flows(p_project, p_flow_ids);
    end if;
    select array_agg(f.run_id) filter (where not f.is_unsettled),
        array_agg(f.run_id order by f.run_id)
            filter (where f.is_unsettled and not (f.can_run and f.state = 'running'))
    into v_ended, v_others
    from (
        select r.run_id, r.state,
            exists (select from pgflow.flow_step s
                    where s.project_id = p_project and s.run_id = r.run_id
                      and s.state in ('pending', 'running') and s.voided_at is null
                      and s.element = 0)
                as is_unsettled,
            exists (select from pgflow.run c
                    where c.project_id = p_project and c.parent_run_id = r.run_id
                      and num_nonnulls(c.waits_for, c.pause_reason) = 0) as can_run
        from unnest(p_flow_ids) as u (run_id)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
            limit 1
        ) r
        where r.kind = 'flow' and r.state <> 'paused'
    ) f;
    if v_ended is not null then
        perform pgflow._end(p_project, v_ended, null, 'completed', array(
            select pgflow._flow_output(r)::text
            from unnest(v_ended) with ordinality as u (run_id, nth)
            join pgflow.run r on r.project_id = p_project and r.run_id = u.run_id
            order by u.nth));
    end if;
    foreach v_flow_id in array coalesce(v_others, '{}') loop
        -- As it is now: the end or the move of one may have moved another, that is around it.
        select r.* into v_flow from pgflow.run r
        where r.project_id = p_project and r.run_id = v_flow_id;
        if found then
            perform pgflow._move_flow(v_flow);
        end if;
    end loop;
end
$$;
comment on function pgflow._look_at_flows is
    'Gives flows the state that follows from their steps. The caller holds them.';

create or replace function pgflow._move_flow(p_flow pgflow.run)
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_states text[] := array(
        select distinct c.state from pgflow.run c
        where c.project_id = p_flow.project_id and c.parent_run_id = p_flow.run_id);
    v_waits_for text[];
    v_state text := case
        when v_states && '{pending,running,scheduled}' then 'running'
        when 'waiting_approval' = any (v_states) then 'waiting_approval'
        when 'waiting_tool' = any (v_states) then 'waiting_tool'
        when cardinality(v_states) > 0 then 'waiting_event' end;
begin
    if v_state is null then
        perform pgflow._end_from_outside(p_flow, 'failed', 'E-RUN-010', pgflow._stuck(p_flow));
        return;
    elsif v_state = p_flow.state then
        return;
    elsif v_state <> 'running' then
        v_waits_for := array(
            select c.parent_key from pgflow.run c
            where c.project_id = p_flow.project_id and c.parent_run_id = p_flow.run_id
            order by c.run_id limit 100);
    end if;
    update pgflow.run r
    set state = v_state, waits_for = v_waits_for, last_event_no = r.last_event_no + 1
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id;
    perform pgflow._event(p_flow, p_flow.last_event_no + 1,
        case v_state when 'running' then 'run.woken' else 'run.waiting' end, v_now,
        jsonb_strip_nulls(jsonb_build_object('waits_for', v_waits_for)));
    perform pgflow._look_at_flow_of(p_flow);
end
$$;
comment on function pgflow._move_flow is
    'running <-> waiting_* for a flow, as its children''s states say; failed with E-RUN-010 if it '
    'has none and steps are left. The caller holds it.';

create or replace function pgflow._stuck(p_flow pgflow.run)
returns text
language plpgsql
stable
as $$
begin
    return 'no step can run and none waits: ' || (
        select string_agg(format('%s is %s and misses %s', d.step, s.state, (
            select coalesce(string_agg(n.step, ', ' order by n.step), 'nothing')
            from unnest(d.needs) as n (step)
            left join pgflow.flow_step o on o.project_id = s.project_id and o.run_id = s.run_id
                and o.step = n.step and o.element = 0 and o.voided_at is null
            where o.state is distinct from 'completed')), '; ' order by d.place)
        from pgflow.flow_step s
        join pgflow.step_definition d on d.project_id = s.project_id and d.flow = p_flow.handler
            and d.version = p_flow.flow_version and d.step = s.step
        where s.project_id = p_flow.project_id and s.run_id = p_flow.run_id
          and s.state in ('pending', 'running') and s.voided_at is null and s.element = 0);
end
$$;
comment on function pgflow._stuck is
    'Why a flow cannot go on: each step that is left, with what it misses.';

create or replace function pgflow._look_at_flow_of(p_run pgflow.run)
returns void
language plpgsql
as $$
begin
    if p_run.step is not null then
        perform pgflow._look_at_flows(p_run.project_id, array[p_run.parent_run_id]);
    end if;
end
$$;
comment on function pgflow._look_at_flow_of is
    'Gives the flow of a step''s run, if it is one, the state that follows from its steps.';

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
    join pgflow.step_definition d on d.project_id = f.project_id and d.flow = f.handler
        and d.version = f.flow_version and d.step = p_run.step
    where f.project_id = p_run.project_id and f.run_id = p_run.parent_run_id;
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
        join pgflow.step_definition d on d.project_id = f.project_id and d.flow = f.handler
            and d.version = f.flow_version and d.step = p_run.step
        left join pgflow.flow_step s on s.project_id = f.project_id and s.run_id = f.run_id
            and s.step = p_run.step and s.child_run_id = p_run.run_id
            and s.element = pgflow._element_of(p_run.parent_key)
        where f.project_id = p_run.project_id and f.run_id = p_run.parent_run_id);
end
$$;
comment on function pgflow._step_context is
    'What the worker of a step learns of its flow: names, versions, config, the flow''s input and '
    'state values, the artifact that is expected of it, and which of the steps that it needs have '
    'failed.';
