-- Runs of flows: how they begin, stop for a while, begin again, and what becomes of their steps
-- when they end.

create or replace function pgflow._found_flow(p_project text, p_flow text, p_version integer)
returns pgflow.flow_version
language plpgsql
as $$
declare
    v_version pgflow.flow_version;
begin
    select v.* into v_version
    from pgflow.flow f
    join pgflow.flow_version v on v.project_id = f.project_id and v.flow = f.flow
        and v.version = coalesce(p_version, f.version)
    where f.project_id = p_project and f.flow = p_flow;
    if not found then
        perform pgflow._refuse('PF106', format('unknown flow: %s', concat_ws(', version ',
                left(p_flow, 100), p_version)),
            format('versions of that name in this project: %s', coalesce((
                select string_agg(v.version::text, ', ' order by v.version)
                from pgflow.flow_version v
                where v.project_id = p_project and v.flow = p_flow), 'none')),
            'View pgflow.flows lists them; pgflow.define_flow(definition) makes one.',
            case when exists (select from pgflow.flow f
                              where f.project_id = p_project and f.flow = p_flow)
                 then 'version' else 'flow' end);
    end if;
    return v_version;
end
$$;
comment on function pgflow._found_flow is
    'A version of a flow, without one the current. Raises PF106.';

create or replace function pgflow._start_flow(
    p_version pgflow.flow_version, p_input jsonb, p_priority integer, p_deadline timestamptz,
    p_idempotency_key text, p_correlation_id text, p_run_id uuid, p_tags text[],
    p_retry_of uuid default null, p_budget jsonb default null, p_fork jsonb default null
)
returns uuid
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_steps text[] := '{}';
begin
    insert into pgflow.run (project_id, run_id, kind, handler, flow_version, queue, state,
        priority, max_attempts, lease_no, super_step, checkpoint_no, deadline, created_at,
        first_started_at, created_by, correlation_id, idempotency_key, tags, retry_of, breakpoints,
        bindings, input)
    values (p_version.project_id, p_run_id, 'flow', p_version.flow, p_version.version,
        coalesce(p_version.definition ->> 'queue', 'default'), 'running', p_priority, 1, null, 0,
        case when p_version.definition ? 'channels' then 0 end, p_deadline, v_now, v_now,
        pgflow._actor(), p_correlation_id, p_idempotency_key, p_tags, p_retry_of,
        pgflow._stops_named(p_version.definition -> 'breakpoints'),
        p_version.definition -> 'bindings', coalesce(p_input, '{}'));
    perform pgflow._give_budget(p_version.project_id, p_run_id,
        coalesce(p_budget, p_version.definition -> 'budget'));
    if pgflow._is_followed(p_version.project_id) then
        perform pgflow._publish(p_version.project_id, array[p_run_id], array[1]);
    end if;
    if p_retry_of is not null then
        v_steps := pgflow._keep_steps(p_version.project_id, p_retry_of, p_run_id);
        perform pgflow._keep_values(p_version, p_retry_of, p_run_id);
    end if;
    if p_fork is not null then
        v_steps := pgflow._fork_steps(p_version, p_run_id, p_fork);
    end if;
    v_steps := null::text || v_steps;
    perform pgflow._advance(p_version.project_id,
        array_fill(p_run_id, array[cardinality(v_steps)]), v_steps);
    perform pgflow._look_at_flows(p_version.project_id, array[p_run_id]);
    return p_run_id;
end
$$;
comment on function pgflow._start_flow is
    'Makes the run of a flow and the runs of the steps that are ready. The arguments are checked.';

create or replace function pgflow._keep_steps(p_project text, p_from uuid, p_to uuid)
returns text[]
language plpgsql
as $$
declare
    v_steps text[];
begin
    perform pgflow._keep_added_steps(p_project, p_from, p_to);
    with kept as (
        insert into pgflow.flow_step (project_id, run_id, step, element, state, super_step,
            attempts, child_run_id, ended_at, output, elements, elements_left)
        select s.project_id, p_to, s.step, s.element, s.state, 0, s.attempts, s.child_run_id,
            s.ended_at, s.output, s.elements, s.elements_left
        from pgflow.flow_step s
        join pgflow.run_finished f on f.project_id = s.project_id and f.run_id = s.run_id
            and f.state <> 'completed'
        join pgflow.run r on r.project_id = s.project_id and r.run_id = p_to
        where s.project_id = p_project and s.run_id = p_from and s.state = 'completed'
          and s.voided_at is null
          and (not r.has_own_steps or exists (  -- or what added it is to be done again
              select from pgflow._steps_of_flow(r) as d where d.step = s.step))
        returning step, element
    )
    select coalesce(array_agg(k.step), '{}') into v_steps from kept k where k.element = 0;
    return v_steps;
end
$$;
comment on function pgflow._keep_steps is
    'Gives a new run the steps that another, which did not complete, has completed; returns them.';

create or replace function pgflow._start_once(
    p_version pgflow.flow_version, p_input jsonb, p_priority integer, p_deadline timestamptz,
    p_key text, p_correlation_id text, p_run_id uuid, p_tags text[], p_budget jsonb
)
returns uuid
language plpgsql
as $$
declare
    v_project text := p_version.project_id;
    v_what text := 'flow ' || p_version.flow;
    v_run_id uuid := coalesce(p_run_id, pgflow._new_id());
    v_first uuid;
begin
    if p_key is not null then
        v_first := pgflow._claim_key(v_project, p_key, v_run_id, v_what, p_input);
        if v_first <> p_run_id then
            perform pgflow._refuse_used(p_key, v_first, 'with another run id');
        elsif v_first is not null then
            return v_first;
        end if;
    end if;
    if p_run_id is not null then
        v_first := coalesce(
            pgflow._claim_key(v_project, 'pgflow:id:' || p_run_id, p_run_id, v_what, p_input),
            pgflow._same_run(v_project, p_run_id, p_version.flow, p_input));
        if v_first is not null and p_key is not null then
            perform pgflow._refuse_used('pgflow:id:' || p_run_id, v_first,
                'without this idempotency key');
        elsif v_first is not null then
            return v_first;
        end if;
    end if;
    return pgflow._start_flow(p_version, p_input, p_priority, p_deadline, p_key, p_correlation_id,
        v_run_id, p_tags, null, p_budget);
end
$$;
comment on function pgflow._start_once is
    'Starts a flow under an idempotency key, a run id or both: the first call''s run is returned '
    'ever after. Raises PF401.';

create or replace function pgflow.start(
    flow text, input jsonb default '{}', version integer default null, priority integer default 0,
    deadline timestamptz default null, idempotency_key text default null,
    correlation_id text default null, run_id uuid default null, tags text[] default null,
    budget jsonb default null, breakpoints jsonb default null, bindings jsonb default null,
    project text default null
)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(start.project);
    v_version pgflow.flow_version;
begin
    v_version := pgflow._with_stops(
        pgflow._found_flow(v_project, start.flow, start.version), start.breakpoints);
    v_version := pgflow._with_bindings(v_version, start.bindings);
    perform pgflow._check_run(start.flow, null, start.priority, null, null, null, start.deadline,
        start.idempotency_key, start.correlation_id, start.run_id, start.tags);
    perform pgflow._check_budget(start.budget);
    if pg_column_size(start.input) > 8388608 then
        perform pgflow._refuse_value('input', 'at most 8 MB',
            pg_column_size(start.input) || ' bytes');
    end if;
    perform pgflow._check_input(v_version, start.input);
    return pgflow._start_once(v_version, start.input, start.priority, start.deadline,
        start.idempotency_key, start.correlation_id, start.run_id, start.tags, start.budget);
end
$$;
comment on function pgflow.start is
    'Starts a flow in the caller''s transaction and returns the id of its run; without a version, '
    'the one that was defined last. Its steps are runs too, of the same priority, deadline, tags '
    'and correlation id. The same idempotency_key returns the same run, live or finished. budget '
    'bounds what all of it spends, instead of what the definition says. '
    'breakpoints, {"before": [...], "after": [...]}, are beside those of the definition. bindings, '
    '{role: agent or {"agent": ..., "version": ...}}, say what the roles of its steps are bound '
    'to; without, each is bound to the agent of its name. Example: select '
    'pgflow.start(''review'', ''{"article": 7}''). Raises PF101, PF106, PF112, PF401, PF502.';

create or replace function pgflow._retry_flow(p_old pgflow.run_finished)
returns uuid
language plpgsql
as $$
declare
    v_run_id uuid := pgflow._new_id();
    v_first uuid := pgflow._claim_key(p_old.project_id, 'pgflow:retry:' || p_old.run_id, v_run_id,
        'flow ' || p_old.handler, p_old.input);
begin
    return coalesce(v_first, pgflow._start_flow(
        pgflow._with_bindings_of(
            pgflow._found_flow(p_old.project_id, p_old.handler, p_old.flow_version),
            jsonb_populate_record(null::pgflow.run, to_jsonb(p_old)), 'be retried'),
        p_old.input, p_old.priority, null, null,
        coalesce(p_old.correlation_id, p_old.run_id::text), v_run_id, p_old.tags, p_old.run_id,
        pgflow._budget_of(p_old.project_id, p_old.run_id)));
end
$$;
comment on function pgflow._retry_flow is
    'Starts a finished flow anew, with the version that it had and the steps that it completed '
    'unless it completed as a whole; again is a no-op.';

-- ---- while it is paused

create or replace function pgflow._pause_steps(p_flow pgflow.run, p_hold_deadlines boolean)
returns void
language plpgsql
as $$
declare
    v_child pgflow.run;
begin
    for v_child in
        select r.* from pgflow._children(p_flow.project_id, array[p_flow.run_id]) as r
        where (r.state in ('pending', 'scheduled') or r.kind = 'flow' and r.state <> 'paused'
              or p_hold_deadlines and (
              r.state in ('waiting_tool', 'waiting_approval', 'waiting_event')
              or r.pause_reason = 'flow' and r.deadlines_held_at is null))
    loop
        perform pgflow._pause(v_child, 'flow', p_hold_deadlines => p_hold_deadlines);
        if v_child.kind = 'flow' then
            perform pgflow._pause_steps(v_child, p_hold_deadlines);
        end if;
    end loop;
end
$$;
comment on function pgflow._pause_steps is
    'Pauses the steps of a flow that do not run yet; those that wait as well, if their deadlines '
    'are to be held. The caller holds them.';

-- paused -> running, waiting_* or an end. It stays paused until all of its steps go on: what ends
-- as it goes on is stored as in any pause, and counted with what ended before. Else the flow would
-- be looked at while that doesn't count yet, and what needs it would never begin.
create or replace function pgflow._resume_flow(p_flow pgflow.run, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_flow pgflow.run := pgflow._let_deadlines_go(p_flow, p_now);
    v_held_for numeric := extract(epoch from p_now - p_flow.deadlines_held_at);
    v_child pgflow.run;
begin
    if v_flow.deadline <= p_now then
        perform pgflow._expire_run(v_flow);
        return;
    elsif pgflow._stop_flow(v_flow, p_now) then
        return;
    end if;
    perform pgflow._append_event(v_flow, 'run.resumed', p_now, jsonb_strip_nulls(
        jsonb_build_object('to', 'running', 'deadlines_held_for', v_held_for)));
    for v_child in
        select r.* from pgflow._children(p_flow.project_id, array[p_flow.run_id]) as r
        where r.state = 'paused' and r.pause_reason = 'flow'
    loop
        if v_child.kind = 'flow' then
            perform pgflow._resume_flow(v_child, p_now);
        else
            perform pgflow._go_on(v_child, p_now);
        end if;
    end loop;
    perform pgflow._start_held(v_flow);
    update pgflow.run r set state = 'running', pause_reason = null, waits_for = null
    where r.project_id = p_flow.project_id and r.run_id = p_flow.run_id
    returning r.* into v_flow;
    -- One of them may have had nothing to do, and a breakpoint behind it.
    if pgflow._has_layers(v_flow) then
        perform pgflow._end_in_layers(v_flow.project_id, array[v_flow.run_id], false);
    elsif v_flow.breakpoints is null or not pgflow._stop_flow(v_flow, p_now) then
        perform pgflow._settle(v_flow);
    end if;
end
$$;
comment on function pgflow._resume_flow is
    'Has a paused flow go on after all that ended meanwhile. The caller holds its family.';

-- ---- when it ends

create or replace function pgflow._close_steps(p_project text, p_flow_ids uuid[])
returns void
language plpgsql
as $$
begin
    update pgflow.flow_step s set state = 'cancelled'
    where s.project_id = p_project and s.run_id = any (p_flow_ids)
      and s.state in ('pending', 'running') and s.voided_at is null and s.element = 0;
    update pgflow.flow_step e set state = 'cancelled'
    where e.project_id = p_project and e.run_id = any (p_flow_ids) and e.state = 'running'
      and e.element > 0 and e.voided_at is null;
end
$$;
comment on function pgflow._close_steps is
    'Has the open steps of flows that ended be cancelled, as their runs are.';

create or replace function pgflow._leave_behind(p_project text, p_parent_ids uuid[])
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
begin
    insert into pgflow.left_behind (project_id, run_id, due_at)
    select p_project, u.run_id, v_now + interval '1 second'
    from unnest(p_parent_ids) as u (run_id)
    where exists (select from pgflow.run c
                  where c.project_id = p_project and c.parent_run_id = u.run_id)
    on conflict do nothing;
end
$$;
comment on function pgflow._leave_behind is
    'Notes runs that ended while others held some of their children.';

create or replace function pgflow._end_left_behind(p_project text, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_left pgflow.left_behind;
    v_child pgflow.run;
begin
    for v_left in
        select l.* from pgflow.left_behind l
        where l.project_id = p_project and l.due_at <= p_now
        order by l.run_id
        limit 100
        for update skip locked
    loop
        for v_child in
            select r.*
            from (select c.run_id from pgflow._children(p_project, array[v_left.run_id]) as c
                  limit 500) u
            cross join lateral (
                select r.* from pgflow.run r
                where r.project_id = p_project and r.run_id = u.run_id
                for update skip locked
            ) r
        loop
            v_child := pgflow._try_lock_family(v_child);
            continue when v_child.run_id is null;
            update pgflow.run r set parent_key = null
            where r.project_id = p_project and r.run_id = v_child.run_id;
            perform pgflow._end_from_outside(v_child, 'cancelled', 'E-RUN-011',
                format('its parent %s no longer needs it', v_left.run_id));
        end loop;
        delete from pgflow.left_behind l
        where l.project_id = p_project and l.run_id = v_left.run_id
          and not exists (select from pgflow.run r
                          where r.project_id = p_project and r.parent_run_id = v_left.run_id);
    end loop;
end
$$;
comment on function pgflow._end_left_behind is
    'Ends the children of runs that ended while others held them.';

-- ---- what became of its steps

create or replace view pgflow.flow_steps with (security_barrier) as
select u.*
from (
    select f.project_id, f.run_id as flow_run_id, f.handler as flow, f.flow_version, d.step,
        coalesce(s.element, 0) as element, coalesce(s.version, 0) as version, d.place as seq,
        coalesce(d.step_type, d.type) as type, d.handler,
        case when s.voided_at is not null and s.state <> 'rejected' then 'voided'
             when s.state = 'running' then
                 case when s.elements is not null then 'running'
                      when c.state in ('waiting_tool', 'waiting_approval', 'waiting_event',
                                       'paused') then 'waiting'
                      when c.state = 'running' then 'running' else 'pending' end
             when s.state is null and f.finished_at is not null then 'cancelled'
             else coalesce(s.state, 'pending') end as state,
        coalesce(nullif(s.attempts, 0), c.attempt + (c.state = 'running')::integer, 0) as attempts,
        coalesce(s.ready_at, s.ended_at) as ready_at,
        coalesce(c.first_started_at, e.first_started_at) as started_at, s.ended_at, s.error_code,
        s.error_detail,
        case when s.elements is null then s.output
             when s.state = 'completed' then (
                 select coalesce(jsonb_agg(o.output order by o.element), '[]')
                 from pgflow.flow_step o
                 where o.project_id = s.project_id and o.run_id = s.run_id and o.step = s.step
                   and o.element > 0 and o.version = s.version) end as output,
        s.child_run_id as run_id, d.needs, d.join_rule as "join",
        s.super_step, s.voided_at, s.elements, s.elements_left, (
            select t.task_id from pgflow.task t
            where t.project_id = f.project_id and t.run_id = s.child_run_id
            order by t.voided_at is not null, t.created_at desc limit 1) as task_id, (
            select count(*) from pgflow.flow_step v
            where v.project_id = f.project_id and v.run_id = f.run_id and v.step = d.step
              and v.element = coalesce(s.element, 0)
              and num_nonnulls(v.ready_at, v.child_run_id, v.elements) > 0) as visits
    from (
        select r.project_id, r.run_id, r.handler, r.flow_version, null::timestamptz as finished_at
        from pgflow.run r
        where r.kind = 'flow'
        union all
        select r.project_id, r.run_id, r.handler, r.flow_version, r.finished_at
        from pgflow.run_finished r
        where r.kind = 'flow'
    ) f
    -- As _defined_steps() has it, which those who read this may not call.
    cross join lateral (
        select d.step, d.place, d.step_type, d.type, d.handler, d.needs, d.join_rule,
            null::timestamptz as withdrawn_at
        from pgflow.step_definition d
        where d.project_id = f.project_id and d.flow = f.handler and d.version = f.flow_version
          and not exists (
              select from pgflow.run_step o
              where o.project_id = f.project_id and o.run_id = f.run_id and o.step = d.step)
        union all
        select o.step, o.place, o.step_type, o.type, o.handler, o.needs, o.join_rule,
            o.withdrawn_at
        from pgflow.run_step o
        where o.project_id = f.project_id and o.run_id = f.run_id
    ) d
    left join pgflow.flow_step s on s.project_id = f.project_id and s.run_id = f.run_id
        and s.step = d.step
    left join pgflow.run c on c.project_id = f.project_id and c.run_id = s.child_run_id
    left join pgflow.run_finished e on e.project_id = f.project_id and e.run_id = s.child_run_id
    where d.withdrawn_at is null or s.step is not null
) u
where u.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.flow_steps is
    'The steps of each run of a flow. Select by flow_run_id, order by seq.';
comment on column pgflow.flow_steps.flow_run_id is 'The run of the flow.';
comment on column pgflow.flow_steps.version is 'The round of the flow in which it was made ready.';
comment on column pgflow.flow_steps.seq is 'Its place in the definition.';
comment on column pgflow.flow_steps.type is
    'The step type that its definition names, view step_types has them; else handler.';
comment on column pgflow.flow_steps.element is
    'From 1 for each element of a step that is done for each; 0: the step itself.';
comment on column pgflow.flow_steps.elements is 'How many elements it is done for.';
comment on column pgflow.flow_steps.elements_left is 'How many of them have not ended.';
comment on column pgflow.flow_steps.task_id is 'The task that it opened last.';
comment on column pgflow.flow_steps.state is
    'pending, running, waiting, completed, failed, skipped, rejected, expired, cancelled or '
    'voided; waiting: its run waits or is paused; voided: it was done, and is done again.';
comment on column pgflow.flow_steps.attempts is 'How often it was executed.';
comment on column pgflow.flow_steps.visits is
    'How often it was begun, in all versions: once more each time that the flow came back to it.';
comment on column pgflow.flow_steps.ready_at is 'When its run was made.';
comment on column pgflow.flow_steps.started_at is 'When its run was leased for the first time.';
comment on column pgflow.flow_steps.run_id is
    'The run that executes it: its input, timeline, journal and tasks are those of that run.';
comment on column pgflow.flow_steps.super_step is
    'Which firing of the flow took note of its end.';
