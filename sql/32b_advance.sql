-- When steps have ended, those that need them are counted, decided on, and begin. Flows in a batch
-- go on together, in a few statements whatever their number.
--
-- The caller holds the flows, so nobody else counts at the same time. A step without a row in
-- flow_step is one of which no need has ended yet.

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
                r.last_event_no, r.breakpoints, r.has_own_steps, r.ctid as place_of_flow
            from unnest(v_run_ids, v_steps) as u (run_id, step)
            cross join lateral (
                select r.*, r.ctid from pgflow.run r
                where r.project_id = p_project and r.run_id = u.run_id
                limit 1
            ) r
        ),
        touched as (
            select e.run_id, e.flow, e.flow_version, e.round, e.super_step, e.last_event_no,
                e.breakpoints, e.has_own_steps, e.place_of_flow, n.step,
                count(*)::integer as settled,
                (count(*) filter (where s.state = 'completed'))::integer as completed,
                (count(*) filter (where s.state not in ('completed', 'skipped')))::integer as failed
            from ended e
            cross join lateral (
                select d.dependants
                from pgflow._defined_steps(p_project, e.run_id, e.flow, e.flow_version,
                    e.has_own_steps) as d
                where d.step = e.step
                limit 1
            ) d
            cross join lateral (
                select s.state from pgflow.flow_step s
                where s.project_id = p_project and s.run_id = e.run_id and s.step = e.step
                  and s.element = 0 and s.voided_at is null
                limit 1
            ) s
            cross join lateral unnest(d.dependants) as n (step)
            group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
            union all
            select e.run_id, e.flow, e.flow_version, e.round, e.super_step, e.last_event_no,
                e.breakpoints, e.has_own_steps, e.place_of_flow, d.step, 0, 0, 0
            from ended e
            cross join lateral (
                select d.step
                from pgflow._defined_steps(p_project, e.run_id, e.flow, e.flow_version,
                    e.has_own_steps) as d
                where e.step is null
                  and case when p_again is null then d.needs = '{}' else d.step = p_again end
                offset 0
            ) d
        ),
        decided as materialized (
            select t.*, d.place, d.type, c.settled as all_settled, c.completed as all_completed,
                c.failed as all_failed, j.state,
                case when j.state <> 'skipped' then null
                     when j.says = 'running' then format('%s is not true', d.condition)
                     else pgflow._join_reason(p_project, t.run_id, d.join_rule, d.needs) end
                    as reason,
                (count(*) filter (where j.state <> 'pending')
                    over (partition by t.run_id order by d.place))::integer as nth,
                case j.state when 'running'
                    then greatest(pgflow._new_id(), pgflow._id_after(t.run_id)) end as child_run_id
            from touched t
            cross join lateral (
                select d.place, d.join_rule, d.needs, d.condition,
                    case when d.each_path is null then d.type else 'each' end as type
                from pgflow._defined_steps(p_project, t.run_id, t.flow, t.flow_version,
                    t.has_own_steps) as d
                where d.step = t.step
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
                from pgflow._join_says(d.join_rule, cardinality(d.needs), c.settled, c.completed,
                    c.failed) as s (says)
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
                select d.place_of_flow, max(d.nth) as lines,
                    bool_or(d.state = 'running') as has_started
                from decided d group by d.place_of_flow
            ) f
            where r.ctid = f.place_of_flow
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
