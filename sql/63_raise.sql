-- A budget that is exceeded: its run fails, or stands still with all below it until a person has
-- raised the budget. The caller holds the family.

create or replace function pgflow._excess(p_budget pgflow.budget, p_seconds numeric)
returns jsonb
language sql
immutable
as $$
    select jsonb_object_agg(m.name, jsonb_build_object('budget', trim_scale(m.bound),
        'used', trim_scale(m.used)))
    from (values ('usd', p_budget.usd, p_budget.used_usd),
        ('tokens', p_budget.tokens, p_budget.used_tokens),
        ('seconds', p_budget.seconds, p_seconds)) as m (name, bound, used)
    where m.used > m.bound or m.name = 'seconds' and m.used = m.bound
$$;
comment on function pgflow._excess is
    'What of a budget is used up, with its bound and what was used; null: nothing is.';

create or replace function pgflow._exceed(p_project text, p_run_id uuid)
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_run pgflow.run := pgflow._locked(p_project, p_run_id);
    v_budget pgflow.budget;
    v_excess jsonb;
begin
    if v_run.run_id is null then  -- it has ended with one above it, whose budget is exceeded too
        return;
    end if;
    update pgflow.budget b set exceeded_at = v_now
    where b.project_id = p_project and b.run_id = p_run_id
    returning b.* into v_budget;
    delete from pgflow.budget_due d where d.project_id = p_project and d.run_id = p_run_id;
    v_excess := pgflow._excess(v_budget, pgflow._seconds_used(v_budget.asked_at,
        v_budget.waited_seconds, v_run.first_started_at, v_now));
    perform pgflow._append_event(v_run, 'budget.exceeded', v_now,
        v_excess || jsonb_build_object('on_breach', v_budget.on_breach));
    if v_budget.on_breach = 'ask' then
        perform pgflow._ask_to_raise(pgflow._locked(p_project, p_run_id), v_now, v_budget,
            v_excess);
    else
        perform pgflow._fail_exceeded(pgflow._locked(p_project, p_run_id), v_excess);
    end if;
end
$$;
comment on function pgflow._exceed is
    'Does what a budget says for the case that it is exceeded: its run fails, or somebody is '
    'asked.';

create or replace function pgflow._fail_exceeded(
    p_run pgflow.run, p_excess jsonb, p_by text default null, p_comment text default null
)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
begin
    if v_run.kind = 'flow' and v_run.state = 'paused' then  -- which has no way to failed
        v_run.state := 'running';
        update pgflow.run r
        set state = 'running', pause_reason = null, waits_for = null, deadlines_held_at = null
        where r.project_id = p_run.project_id and r.run_id = p_run.run_id;
    end if;
    perform pgflow._end_from_outside(v_run, 'failed', 'E-RUN-009', 'budget exceeded: '
        || (select string_agg(format('%s of %s %s', e.value ->> 'used', e.value ->> 'budget',
                e.key), ', ' order by e.key)
            from jsonb_each(p_excess) as e)
        || coalesce('; not raised: ' || p_comment, ''), p_by);
end
$$;
comment on function pgflow._fail_exceeded is 'Ends a run whose budget is exceeded with E-RUN-009.';

-- What was used is a bound of each answer, so that no raise is too small: nothing is used
-- meanwhile.
create or replace function pgflow._raise_form(p_budget pgflow.budget, p_excess jsonb)
returns jsonb
language sql
stable
as $$
    select jsonb_build_object('type', 'object', 'additionalProperties', false,
        'required', (select jsonb_agg(e.key) from jsonb_object_keys(p_excess) as e (key)),
        'properties', (
            select jsonb_object_agg(m.name, jsonb_build_object('type', m.type,
                'title', 'New bound: ' || m.name, 'maximum', m.most,
                'exclusiveMinimum', coalesce(p_excess -> m.name -> 'used', to_jsonb(m.used))))
            from (values ('usd', 'number', 1000000000, p_budget.used_usd),
                ('tokens', 'integer', 1000000000000000, p_budget.used_tokens),
                ('seconds', 'number', 315360000, 0)) as m (name, type, most, used)
            where p_excess ? m.name or m.name <> 'seconds'))
$$;
comment on function pgflow._raise_form is 'The form of a task that asks to raise a budget.';

create or replace function pgflow._ask_to_raise(
    p_run pgflow.run, p_now timestamptz, p_budget pgflow.budget, p_excess jsonb
)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_key text := format('pgflow:budget/%s', p_budget.times_asked + 1);
begin
    v_run := pgflow._open_task(p_run, p_now, jsonb_strip_nulls(jsonb_build_object(
        'kind', 'approval', 'key', v_key, 'title', 'Raise the budget of ' || p_run.handler,
        'payload', p_excess, 'form', pgflow._raise_form(p_budget, p_excess),
        'assignee', p_budget.assignee, 'assignee_role', p_budget.assignee_role,
        'on_reject', 'fail')));
    update pgflow.run r set has_tasks = true, last_event_no = v_run.last_event_no
    where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
    update pgflow.budget b
    set asked_at = p_now, times_asked = b.times_asked + 1, task_id = (
            select t.task_id from pgflow.task t
            where t.project_id = v_run.project_id and t.run_id = v_run.run_id and t.key = v_key)
    where b.project_id = v_run.project_id and b.run_id = v_run.run_id;
    perform pgflow._stop_spending(v_run);
end
$$;
comment on function pgflow._ask_to_raise is
    'Opens the task that asks to raise a budget, and pauses its run and all below it.';

create or replace function pgflow._with_all_below(p_run pgflow.run)
returns uuid[]
language plpgsql
stable
as $$
begin
    return array(
        with recursive below as (
            select p_run.run_id
            union all
            select c.run_id
            from below b
            join pgflow.run c on c.project_id = p_run.project_id and c.parent_run_id = b.run_id
        )
        select b.run_id from below b order by b.run_id);
end
$$;
comment on function pgflow._with_all_below is 'A live run and all live ones below it, in order.';

-- What waits is paused too: it would be executed once that has come. A step that only waits is not:
-- it executes nothing, and its flow stands still. Whoever stands at an interrupt goes on standing
-- there, under another name, until the budget is raised.
create or replace function pgflow._stop_spending(p_run pgflow.run)
returns void
language plpgsql
as $$
declare
    v_run_ids uuid[] := pgflow._with_all_below(p_run);
    v_below pgflow.run;
begin
    for v_below in
        select r.* from pgflow.run r
        where r.project_id = p_run.project_id and r.kind <> 'step_wait'
          and r.run_id = any (v_run_ids)
        order by r.run_id
    loop
        if v_below.state <> 'paused' then
            perform pgflow._pause(v_below, 'budget');
        elsif pgflow._stands_still(v_below) then
            update pgflow.run r set pause_reason = 'budget'
            where r.project_id = v_below.project_id and r.run_id = v_below.run_id;
        end if;
        if v_below.worker_id is not null then
            perform pgflow._hint_worker(v_below.project_id, v_below.worker_id);
        end if;
    end loop;
    perform pgflow._look_at_flow_of(p_run);
end
$$;
comment on function pgflow._stop_spending is
    'Pauses a run and all below it, so that nothing more is spent; leases are taken away.';

create or replace function pgflow._is_held_back(p_run pgflow.run)
returns boolean
language plpgsql
stable
as $$
declare
    v_budget_ids uuid[];
begin
    if p_run.budget_run_id is null then
        return false;
    end if;
    v_budget_ids := pgflow._budgets_around(p_run.project_id, array[p_run.run_id]);
    return exists (
        select from pgflow.budget b
        where b.project_id = p_run.project_id and b.run_id = any (v_budget_ids)
          and b.task_id is not null);
end
$$;
comment on function pgflow._is_held_back is
    'Whether somebody is asked to raise a budget that a run counts to.';

-- From below: when a flow looks at its steps, they go on already. A flow that somebody paused
-- meanwhile begins nothing new: its steps go on when it does.
create or replace function pgflow._go_on_spending(p_run pgflow.run, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_run_id uuid;
    v_below pgflow.run;
    v_reason text;
begin
    for v_run_id in
        select u.run_id from unnest(pgflow._with_all_below(p_run)) as u (run_id)
        order by u.run_id desc
    loop
        select r.* into v_below from pgflow.run r
        where r.project_id = p_run.project_id and r.run_id = v_run_id and r.state = 'paused'
          and r.pause_reason = 'budget';
        continue when not found or pgflow._is_held_back(v_below);
        v_reason := case
            when exists (select from pgflow.run f
                         where f.project_id = p_run.project_id and f.kind = 'flow'
                           and f.run_id = v_below.parent_run_id and f.state = 'paused'
                           and f.pause_reason <> 'budget') then 'flow'
            when pgflow._is_interrupted(v_below) then pgflow._pause_of(array(
                select t.key from pgflow.task t
                where t.project_id = v_below.project_id and t.run_id = v_below.run_id
                  and t.state = 'open' and t.kind = 'breakpoint')) end;
        if v_reason is not null then
            update pgflow.run r set pause_reason = v_reason
            where r.project_id = v_below.project_id and r.run_id = v_below.run_id;
        elsif v_below.kind = 'flow' then
            perform pgflow._resume_flow(v_below, p_now);
        else
            perform pgflow._go_on(v_below, p_now);
        end if;
    end loop;
    perform pgflow._look_at_flow_of(p_run);
end
$$;
comment on function pgflow._go_on_spending is
    'Has a run and all below it go on that were paused because its budget was exceeded.';

create or replace function pgflow._after_raise(
    p_run pgflow.run, p_now timestamptz, p_task pgflow.task, p_rollback_to text
)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_budget pgflow.budget;
begin
    if p_rollback_to is not null then
        perform pgflow._refuse_value('rollback_to', 'left out: a budget is raised or not',
            p_rollback_to);
    end if;
    perform pgflow._append_event(p_run, 'task.resolved', p_now, jsonb_build_object(
        'task_id', p_task.task_id, 'key', p_task.key, 'action', p_task.state,
        'comment', p_task.comment, 'by', p_task.decided_by));
    v_run := pgflow._locked(p_run.project_id, p_run.run_id);
    update pgflow.budget b
    set usd = coalesce((p_task.data ->> 'usd')::numeric, b.usd),
        tokens = coalesce((p_task.data ->> 'tokens')::numeric, b.tokens),
        seconds = coalesce((p_task.data ->> 'seconds')::numeric, b.seconds),
        waited_seconds = b.waited_seconds + extract(epoch from p_now - b.asked_at),
        asked_at = null, task_id = null
    where b.project_id = v_run.project_id and b.run_id = v_run.run_id
    returning b.* into v_budget;
    if p_task.state = 'rejected' then
        perform pgflow._fail_exceeded(v_run, p_task.payload, p_task.decided_by,
            coalesce(p_task.comment, 'no comment'));
        return;
    end if;
    perform pgflow._append_event(v_run, 'budget.raised', p_now, p_task.data);
    if v_budget.seconds is not null then  -- the tick looks how much is left
        insert into pgflow.budget_due (project_id, run_id, due_at)
        values (v_run.project_id, v_run.run_id, p_now);
    end if;
    perform pgflow._go_on_spending(v_run, p_now);
end
$$;
comment on function pgflow._after_raise is
    'Raises a budget as the decided task says and has its run go on, or ends it with E-RUN-009.';

create or replace function pgflow._check_spending(p_run pgflow.run)
returns void
language plpgsql
as $$
begin
    if pgflow._is_held_back(p_run) then
        perform pgflow._refuse('PF204', format('run %s has used up its budget', p_run.run_id),
            'It goes on when the budget is raised.',
            'pgflow.approve(task_id, decision => new bounds); view pgflow.budgets has the task.',
            'run_id');
    end if;
end
$$;
comment on function pgflow._check_spending is
    'Refuses (PF204) to resume a run while somebody is asked to raise its budget.';

-- The tick's part: a budget's seconds. As with all duties, what others hold is left for later.
create or replace function pgflow._end_overtime(p_project text, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_due pgflow.budget_due;
    v_run pgflow.run;
    v_left numeric;
begin
    for v_due in
        select d.* from pgflow.budget_due d
        where d.project_id = p_project and d.due_at <= p_now
        order by d.due_at
        limit 100
        for update skip locked
    loop
        select r.* into v_run from pgflow.run r
        where r.project_id = p_project and r.run_id = v_due.run_id
        for update skip locked;
        if found then
            v_run := pgflow._try_lock_family(v_run);
        end if;
        if v_run.run_id is null then
            delete from pgflow.budget_due d
            where d.project_id = p_project and d.run_id = v_due.run_id
              and not exists (select from pgflow.run r
                              where r.project_id = p_project and r.run_id = v_due.run_id);
            continue;
        end if;
        select b.seconds - coalesce(pgflow._seconds_used(b.asked_at, b.waited_seconds,
            v_run.first_started_at, p_now), 0)
        into v_left
        from pgflow.budget b
        where b.project_id = p_project and b.run_id = v_due.run_id;
        if v_left <= 0 then
            perform pgflow._exceed(p_project, v_due.run_id);
        else
            update pgflow.budget_due d set due_at = p_now + make_interval(secs => v_left::float8)
            where d.project_id = p_project and d.run_id = v_due.run_id;
        end if;
    end loop;
end
$$;
comment on function pgflow._end_overtime is
    'Sees to the budgets whose seconds are over, and puts the look at others off.';
