-- Steering runs and queues: cancel, pause, resume, retry. All are safe to call twice.

create or replace function pgflow._finished_state(p_project text, p_run_id uuid)
returns text
language plpgsql
as $$
declare
    v_state text;
begin
    select f.state into v_state from pgflow.run_finished f
    where f.project_id = p_project and f.run_id = p_run_id;
    if not found then
        perform pgflow._refuse_gone(p_project, p_run_id, '');
    end if;
    return v_state;
end
$$;
comment on function pgflow._finished_state is 'The state of a finished run. Raises PF102.';

create or replace function pgflow.cancel(run_id uuid, reason text default null,
    project text default null)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(cancel.project);
    v_run pgflow.run := pgflow._locked_to_end(v_project, cancel.run_id);
begin
    if v_run.run_id is null then
        return pgflow._finished_state(v_project, cancel.run_id);
    end if;
    perform pgflow._end_from_outside(v_run, 'cancelled', null,
        'Execution cancelled' || coalesce(': ' || left(cancel.reason, 1000), ''), pgflow._actor());
    return 'cancelled';
end
$$;
comment on function pgflow.cancel is
    'Ends a live run as cancelled, at once; a running handler is interrupted. On a finished run a'
    ' no-op. Returns the state that the run is in. Example: select pgflow.cancel(''...'', ''not '
    'needed''). Raises PF102, PF502.';

-- any live state -> paused. The caller holds the row. What arrives meanwhile is kept for resume.
create or replace function pgflow._pause(
    p_run pgflow.run, p_reason text, p_error jsonb default null, p_cost numeric default null,
    p_steps integer default null, p_hold_deadlines boolean default false
)
returns text
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
begin
    perform pgflow._event(p_run, p_run.last_event_no + 1, 'run.paused', v_now,
        jsonb_build_object('from', p_run.state, 'reason', left(p_reason, 1000))
            || case when p_hold_deadlines then '{"hold_deadlines": true}' else '{}' end::jsonb,
        p_run.state = 'running');
    update pgflow.run r
    set state = 'paused', seq = null, pause_reason = left(coalesce(p_reason, 'operator'), 1000),
        deadlines_held_at = case when p_hold_deadlines then v_now end,
        last_event_no = r.last_event_no + 1, worker_id = null, leased_at = null,
        lease_event_no = null,
        slotted = false, last_error = coalesce(p_error, r.last_error),
        step_count = r.step_count + pgflow._steps(p_steps),
        cost_usd = pgflow._cost(r.cost_usd, p_cost)
    where r.project_id = p_run.project_id and r.run_id = p_run.run_id;
    perform pgflow._free_slot(p_run);
    return 'paused';
end
$$;
comment on function pgflow._pause is 'Pauses a live run that the caller holds.';

create or replace function pgflow.pause(
    run_id uuid, reason text default null, hold_deadlines boolean default false,
    project text default null
)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(pause.project);
    v_hold boolean := coalesce(pause.hold_deadlines, false);
    v_run pgflow.run := pgflow._locked_to_end(v_project, pause.run_id);
begin
    if pause.reason in ('interrupt', 'before', 'after', 'flow', 'budget') then
        perform pgflow._refuse_value('reason',
            'none of the engine''s own: interrupt, before, after, flow, budget', pause.reason);
    elsif v_run.run_id is null then
        perform pgflow._refuse_gone(v_project, pause.run_id, 'be paused');
    elsif v_run.state = 'paused' and v_hold and pgflow._stands_still(v_run) then
        -- It goes on as soon as somebody answers it, and nobody would let its deadlines go.
        perform pgflow._refuse_value('hold_deadlines',
            'false for a run that stands at an interrupt or a breakpoint', 'true');
    elsif v_run.state = 'paused' and (not v_hold or v_run.deadlines_held_at is not null) then
        return 'paused';
    end if;
    perform pgflow._pause(v_run, coalesce(pause.reason, v_run.pause_reason),
        p_hold_deadlines => v_hold);
    if v_run.kind = 'flow' then
        perform pgflow._pause_steps(v_run, v_hold);
    end if;
    perform pgflow._look_at_flow_of(v_run);
    if v_run.worker_id is not null then
        perform pgflow._hint_worker(v_project, v_run.worker_id);
    end if;
    return 'paused';
end
$$;
comment on function pgflow.pause is
    'Pauses a live run; a running handler is interrupted without using an attempt. Of a flow, '
    'steps that run go on, but none begins. Again is a no-op. What arrives meanwhile is kept for '
    'resume. Its deadlines (its own, those of its waits and tasks) run on and take effect at '
    'resume; with hold_deadlines they stand still from now on and are moved on by that span at '
    'resume, those of a flow''s steps that don''t run as well. Returns the state. Example: select '
    'pgflow.pause(''...'', ''holiday'', hold_deadlines => true). Raises PF101, PF102, PF202, '
    'PF502.';

create or replace function pgflow._is_overdue(
    p_due_at timestamptz, p_run pgflow.run, p_now timestamptz
)
returns boolean
language sql
immutable
as $$
    select coalesce(p_due_at <= coalesce(p_run.deadlines_held_at, p_now), false)
$$;
comment on function pgflow._is_overdue is
    'Whether a time of a run has passed. While its deadlines are held its clock stands still.';

-- Seconds, because the length of a day depends on the session''s time zone.
create or replace function pgflow._let_deadlines_go(p_run pgflow.run, p_now timestamptz)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_span interval := make_interval(secs => extract(epoch from p_now - p_run.deadlines_held_at));
begin
    if v_run.deadlines_held_at is null then
        return v_run;
    end if;
    update pgflow.task t set due_at = t.due_at + v_span
    where t.project_id = v_run.project_id and t.run_id = v_run.run_id and t.state = 'open'
      and t.due_at is not null;
    update pgflow.run r
    set deadline = r.deadline + v_span, wake_at = r.wake_at + v_span, deadlines_held_at = null,
        waits = (
            select jsonb_agg(u.w || case when u.w ? 'due_at' then jsonb_build_object('due_at',
                (u.w ->> 'due_at')::timestamptz + v_span) else '{}' end order by u.n)
            from jsonb_array_elements(r.waits) with ordinality as u (w, n))
    where r.project_id = v_run.project_id and r.run_id = v_run.run_id
    returning r.* into v_run;
    return v_run;
end
$$;
comment on function pgflow._let_deadlines_go is
    'Moves the deadlines of a run on by as long as they were held; returns the run. The caller '
    'holds it.';

create or replace function pgflow._check_command(p_command jsonb, p_kind text)
returns void
language plpgsql
as $$
begin
    if p_command is null or not (
        p_command = '{"continue": true}'
        or p_command ? 'resume' and p_command - 'resume' - 'key' = '{}'
        or p_command ? 'update' and p_command - 'update' = '{}'
        or p_command ? 'goto' and p_command - 'goto' = '{}'
            and jsonb_typeof(p_command -> 'goto') = 'string' and coalesce(p_kind, 'flow') = 'flow'
    ) then
        perform pgflow._refuse_value('command',
            '{"continue": true}, {"resume": value}, {"resume": value, "key": key}, '
            '{"update": {key: value}} or, for a flow, {"goto": step}', p_command::text);
    end if;
end
$$;
comment on function pgflow._check_command is
    'Refuses (PF101) what resume cannot do with a live run of a kind; null: it has ended.';

-- An interrupt or a breakpoint is a task: to go on is to answer it. Where a run stands at several
-- breakpoints, only the one that it says it is paused by.
create or replace function pgflow._pass(p_run pgflow.run, p_now timestamptz, p_command jsonb)
returns void
language plpgsql
as $$
declare
    v_task pgflow.task;
    v_first text := (
        select min(t.key) from pgflow.task t
        where t.project_id = p_run.project_id and t.run_id = p_run.run_id and t.state = 'open'
          and t.kind = 'breakpoint' and not p_command ? 'resume');
    v_keys text[] := array(
        select t.key from pgflow.task t
        where t.project_id = p_run.project_id and t.run_id = p_run.run_id and t.state = 'open'
          and case when v_first is not null then t.key = v_first
                   else t.kind = 'interrupt' and t.key = coalesce(p_command ->> 'key', t.key) end
        order by t.key);
begin
    if p_command ? 'resume' and cardinality(v_keys) <> 1 then
        perform pgflow._refuse_value('command.key', 'the key of one open interrupt: '
            || coalesce((select string_agg(t.key, ', ' order by t.key) from pgflow.task t
                where t.project_id = p_run.project_id and t.run_id = p_run.run_id
                  and t.state = 'open' and t.kind = 'interrupt'), 'there is none'),
            p_command ->> 'key');
    end if;
    for v_task in
        with passed as (
            update pgflow.task t
            set state = 'answered', decided_at = p_now, decided_by = pgflow._actor(),
                decided_login = session_user, data = p_command -> 'resume'
            where t.project_id = p_run.project_id and t.run_id = p_run.run_id and t.state = 'open'
              and t.key = any (v_keys)
            returning t.*
        )
        select p.* from passed p order by p.key
    loop
        perform pgflow._after_decision(pgflow._locked(p_run.project_id, p_run.run_id), p_now,
            v_task, null);
    end loop;
end
$$;
comment on function pgflow._pass is
    'Has a run go on that was interrupted or stopped at a breakpoint. The caller holds it.';

create or replace function pgflow._is_interrupted(p_run pgflow.run)
returns boolean
language plpgsql
as $$
begin
    return exists (
        select from pgflow.task t
        where t.project_id = p_run.project_id and t.run_id = p_run.run_id
          and t.key = any (p_run.waits_for) and t.kind in ('interrupt', 'breakpoint')
          and t.voided_at is null and not exists (
              select from pgflow.journal j
              where j.project_id = p_run.project_id and j.run_id = p_run.run_id and j.key = t.key));
end
$$;
comment on function pgflow._is_interrupted is
    'Whether a run waits for somebody to pass an interrupt or a breakpoint.';

create or replace function pgflow._state_waited_in(p_run pgflow.run)
returns text
language plpgsql
as $$
begin
    if exists (select from pgflow.task t
               where t.project_id = p_run.project_id and t.run_id = p_run.run_id
                 and t.state = 'open' and t.key = any (p_run.waits_for)) then
        return 'waiting_approval';
    end if;
    return pgflow._state_of_wait(coalesce((
        select jsonb_agg(w) from jsonb_array_elements(p_run.waits) as w
        where w ->> 'kind' = 'tool' and w ->> 'key' = any (p_run.waits_for)), '[]'));
end
$$;
comment on function pgflow._state_waited_in is
    'The state in which a paused run waits for what is still missing.';

create or replace function pgflow.resume(
    run_id uuid, command jsonb default '{"continue": true}', project text default null
)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(resume.project);
    v_now timestamptz := pgflow.now();
    v_run pgflow.run := pgflow._locked_to_end(v_project, resume.run_id);
begin
    perform pgflow._check_command(resume.command, v_run.kind);
    perform pgflow._check_spending(v_run);
    if v_run.run_id is null then
        perform pgflow._refuse_gone(v_project, resume.run_id, 'be resumed');
    elsif v_run.state <> 'paused' or resume.command ? 'resume'
        and not pgflow._stands_still(v_run) then
        if resume.command <> '{"continue": true}' then
            perform pgflow._refuse('PF204', format('run %s is %s and waits for no such command',
                resume.run_id, v_run.state),
                format('pause_reason: %s', coalesce(v_run.pause_reason, '-')),
                'A value is for a run that was interrupted, an update for one that is paused.',
                'command');
        end if;
        return v_run.state;
    end if;
    perform pgflow._check_bindings(v_run, 'be resumed');
    if resume.command ? 'update' and v_run.kind = 'flow' then
        v_run := pgflow._update_values(v_run, v_now, resume.command -> 'update');
    elsif resume.command ? 'update' then
        v_run := pgflow._update_entries(v_run, v_now, resume.command -> 'update');
    end if;
    if v_run.kind = 'flow' then
        perform pgflow._let_flow_go_on(v_run, v_now, resume.command);
    elsif pgflow._stands_still(v_run) then
        perform pgflow._pass(v_run, v_now, resume.command);
    else
        perform pgflow._go_on(v_run, v_now);
    end if;
    perform pgflow._look_at_flow_of(v_run);
    return coalesce((select r.state from pgflow.run r
                     where r.project_id = v_project and r.run_id = resume.run_id),
        pgflow._finished_state(v_project, resume.run_id));
end
$$;
comment on function pgflow.resume is
    'Resumes a paused run: what it waits for is looked at anew, what arrived meanwhile counts. '
    'command: {"continue": true}; {"resume": value} is what an interrupted call returns (with '
    '"key" where there are several); {"update": {key: value}} replaces journal entries first, or '
    'of a flow the values of channels; {"goto": step} has a flow go on with that step. '
    'Without a value, on a run that is not paused a no-op. Returns the state. Example: select '
    'pgflow.resume(''...'', ''{"resume": 42}''). Raises PF101, PF102, PF105, PF202, PF204, '
    'PF205, PF502.';

-- paused -> pending, scheduled or waiting_*; timeout if its deadline has passed. The caller holds
-- the family.
create or replace function pgflow._go_on(p_run pgflow.run, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run := pgflow._let_deadlines_go(p_run, p_now);
    v_held_for numeric := extract(epoch from p_now - p_run.deadlines_held_at);
    v_state text := 'pending';
    v_seq bigint;
    v_came boolean := v_run.waits_for is not null
        and pgflow._is_satisfied(v_run.project_id, v_run.run_id, v_run.waits_for, v_run.wait_any);
begin
    if v_run.deadline <= p_now then
        perform pgflow._expire_run(v_run);
        return;
    elsif v_run.waits_for is not null and (not v_came or v_run.kind = 'step_wait') then
        v_state := pgflow._state_waited_in(v_run);
    elsif v_run.waits_for is null and v_run.run_at > p_now then
        v_state := 'scheduled';
    else
        v_seq := nextval('pgflow.run_seq');
    end if;
    update pgflow.run r
    set state = v_state, pause_reason = null, seq = v_seq,
        lane = case when v_seq is null then r.lane else 0 end,
        waits_for = case when v_state like 'waiting%' then r.waits_for end,
        wait_any = r.wait_any and v_state like 'waiting%',
        wake_at = case when v_state like 'waiting%' then r.wake_at end,
        last_event_no = r.last_event_no + 1
    where r.project_id = v_run.project_id and r.run_id = v_run.run_id
    returning r.* into v_run;
    perform pgflow._event(v_run, v_run.last_event_no, 'run.resumed', p_now, jsonb_strip_nulls(
        jsonb_build_object('to', v_state, 'deadlines_held_for', v_held_for)));
    if v_state = 'pending' then
        perform pgflow._hint_work(v_run.project_id, v_run.queue);
        return;
    elsif v_came then
        perform pgflow._end_wait(v_run, v_run.waits_for[1]);
        return;
    elsif v_run.wake_at <= p_now then
        perform pgflow._time_out(v_run, p_now);
    end if;
    if v_run.has_tasks then
        perform pgflow._expire_tasks(v_run, p_now);
    end if;
end
$$;
comment on function pgflow._go_on is
    'Has a run go on that somebody paused. The caller holds it and its family.';

create or replace function pgflow.retry(run_id uuid, project text default null)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(retry.project);
    v_old pgflow.run_finished;
    v_state text;
    v_run_id uuid;
begin
    -- A run only moves from run to run_finished: looked for in this order, it is found.
    select r.state into v_state from pgflow.run r
    where r.project_id = v_project and r.run_id = retry.run_id;
    if found then
        perform pgflow._refuse('PF201', format('run %s is %s and cannot be retried', retry.run_id,
            v_state),
            json_build_object('run_id', retry.run_id, 'from_state', v_state, 'to_state',
                null)::text,
            'Only finished runs can; cancel it first.', 'run_id');
    end if;
    select f.* into v_old from pgflow.run_finished f
    where f.project_id = v_project and f.run_id = retry.run_id
    for share;  -- retention must not take its journal, or that of the run that it undoes
    if not found then
        perform pgflow._refuse_gone(v_project, retry.run_id, '');
    elsif v_old.undo_of is not null then
        perform from pgflow.run_finished f
        where f.project_id = v_project and f.run_id = v_old.undo_of
        for share;
        if not found then  -- with nothing to undo it would be completed, which is not true
            perform pgflow._refuse_gone(v_project, v_old.undo_of, '');
        end if;
    end if;
    if v_old.step is not null then
        v_run_id := pgflow._retry_step(v_old);
    end if;
    if v_run_id is not null then
        return v_run_id;
    elsif v_old.kind = 'flow' then
        return pgflow._retry_flow(v_old);
    elsif v_old.kind = 'step_wait' then
        perform pgflow._refuse_value('run_id', 'a run that a worker executes, or a flow''s',
            'a step that only waits: retry its flow');
    end if;
    v_run_id := pgflow._enqueue_once(v_project, 'pgflow:retry:' || retry.run_id, v_old.handler,
        v_old.input,
        v_old.queue, v_old.priority, null, v_old.max_attempts, v_old.timeout, null,
        coalesce(v_old.correlation_id, v_old.run_id::text), null, v_old.tags, v_old.run_id,
        pgflow._budget_of(v_project, v_old.run_id));
    if v_old.undo_of is not null then
        perform pgflow._go_on_undoing(v_old, v_run_id);
    end if;
    return v_run_id;
end
$$;
comment on function pgflow.retry is
    'Does a finished run''s work again, as a new run with retry_of set; its idempotency key and '
    'deadline are not inherited, its budget is, with nothing used. The same run again returns the '
    'same new run. Of a flow that did not complete, the steps that did are kept. The run of a step '
    'that did not complete, while its flow lives: the flow does the step again, with all that '
    'needs it. Raises PF101, PF102, PF201, PF502.';

create or replace function pgflow.define_queue(
    queue text, max_concurrent integer default null, max_attempts integer default 3,
    timeout interval default null, lease_ttl interval default '60 seconds',
    retention interval default null, key_retention interval default '0',
    project text default null
)
returns pgflow.queue
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(define_queue.project);
    v_queue pgflow.queue;
    v_running uuid[];
begin
    if define_queue.queue is null or char_length(define_queue.queue) not between 1 and 100 then
        perform pgflow._refuse_value('queue', '1 to 100 characters', define_queue.queue);
    elsif define_queue.max_concurrent < 1 then
        perform pgflow._refuse_value('max_concurrent', 'at least 1, or null for no limit',
            define_queue.max_concurrent::text);
    elsif define_queue.max_attempts is null or define_queue.max_attempts not between 1 and 1000 then
        perform pgflow._refuse_value('max_attempts', '1 to 1000', define_queue.max_attempts::text);
    elsif define_queue.timeout <= '0' or define_queue.timeout > '30 days' then
        perform pgflow._refuse_value('timeout', 'more than 0 and at most 30 days, or null for none',
            define_queue.timeout::text);
    elsif define_queue.lease_ttl is null
        or define_queue.lease_ttl not between '1 second' and '1 day' then
        perform pgflow._refuse_value('lease_ttl', '1 second to 1 day',
            define_queue.lease_ttl::text);
    elsif define_queue.retention < '1 hour' then
        perform pgflow._refuse_value('retention',
            'at least 1 hour, or null for that of the installation', define_queue.retention::text);
    elsif define_queue.key_retention is null
        or define_queue.key_retention not between '0' and '10 years' then
        perform pgflow._refuse_value('key_retention', '0 to 10 years',
            define_queue.key_retention::text);
    end if;
    -- Runs before queues, and in order.
    v_running := array(
        select r.run_id from pgflow.run r
        where define_queue.max_concurrent is not null
          and r.project_id = v_project and r.queue = define_queue.queue and r.state = 'running'
          and r.worker_id is not null and not r.slotted
        order by r.run_id
        for update);
    insert into pgflow.queue as q (project_id, queue, max_concurrent, max_attempts, timeout,
        lease_ttl, retention, key_retention)
    values (v_project, define_queue.queue, define_queue.max_concurrent, define_queue.max_attempts,
        define_queue.timeout, define_queue.lease_ttl, define_queue.retention,
        define_queue.key_retention)
    on conflict on constraint queue_pkey do update
    set max_concurrent = excluded.max_concurrent, max_attempts = excluded.max_attempts,
        timeout = excluded.timeout, lease_ttl = excluded.lease_ttl,
        retention = excluded.retention, key_retention = excluded.key_retention
    returning q.* into v_queue;
    if v_queue.max_concurrent is not null then
        -- What runs already counts as well.
        with slotted as (
            update pgflow.run r set slotted = true
            where r.project_id = v_project and r.run_id = any (v_running)
            returning r.*
        )
        insert into pgflow.slot (project_id, queue, run_id, lease_no)
        select v_project, s.queue, s.run_id, s.lease_no
        from slotted s
        on conflict do nothing;
    end if;
    perform pgflow._maintain_soon();
    perform pgflow._hint_work(v_project, v_queue.queue);
    return v_queue;
end
$$;
comment on function pgflow.define_queue is
    'Sets all settings of a queue, those not given to their defaults. max_concurrent bounds its '
    'leased runs over all hosts; retention says how long its finished runs are kept, '
    'key_retention how much longer their idempotency keys hold. Example: select '
    'pgflow.define_queue(''mail'', max_concurrent => 5). Raises PF101, PF502.';

create or replace function pgflow._known_queue(p_project text, p_queue text)
returns void
language plpgsql
as $$
begin
    if not exists (select from pgflow.queue q where q.project_id = p_project
        and q.queue = p_queue) then
        perform pgflow._refuse('PF104', format('unknown queue: %s', left(p_queue, 100)),
            'There is no queue of that name in this project.',
            'View pgflow.queue_stats lists the queues.', 'queue');
    end if;
end
$$;
comment on function pgflow._known_queue is 'Raises PF104 for a queue that is not there.';

create or replace function pgflow.pause_queue(queue text, project text default null)
returns timestamptz
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(pause_queue.project);
    v_now timestamptz := pgflow.now();
    v_paused_at timestamptz;
begin
    perform pgflow._known_queue(v_project, pause_queue.queue);
    update pgflow.queue q
    set paused_at = coalesce(q.paused_at, v_now), paused_by = coalesce(q.paused_by, pgflow._actor())
    where q.project_id = v_project and q.queue = pause_queue.queue
    returning q.paused_at into v_paused_at;
    return v_paused_at;
end
$$;
comment on function pgflow.pause_queue is
    'Stops the claiming of a queue; it goes on accepting runs, and running ones finish. Returns '
    'since when. Raises PF104, PF502.';

create or replace function pgflow.resume_queue(queue text, project text default null)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(resume_queue.project);
begin
    perform pgflow._known_queue(v_project, resume_queue.queue);
    update pgflow.queue q set paused_at = null, paused_by = null
    where q.project_id = v_project and q.queue = resume_queue.queue and q.paused_at is not null;
    if not found then
        return false;
    end if;
    perform pgflow._hint_work(v_project, resume_queue.queue);
    return true;
end
$$;
comment on function pgflow.resume_queue is
    'Lets a paused queue be claimed again; false if it was not paused. Raises PF104, PF502.';
