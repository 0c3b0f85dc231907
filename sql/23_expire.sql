-- What is past its time: runs their deadline, waits their timeout, tasks their due time.

create or replace function pgflow._expire_run(p_run pgflow.run)
returns void
language plpgsql
as $$
begin
    perform pgflow._end_from_outside(p_run, 'timeout', 'E-RUN-003',
        format('deadline %s passed while %s', p_run.deadline, p_run.state));
end
$$;
comment on function pgflow._expire_run is
    'Ends a run whose deadline has passed. The caller holds it and its family.';

-- In the order of the index by which they are found: no planner then prefers to walk over all runs.
-- Of those of one moment parents come first: with them go their children, by E-RUN-011.
-- A run that somebody paused is left alone until it is resumed. One that stands at an interrupt or
-- a breakpoint waits as others do, and its deadline bounds that.
create or replace function pgflow._expire(p_project text, p_now timestamptz)
returns integer
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_task pgflow.task;
    v_expired integer := 0;
begin
    for v_run in
        select r.* from pgflow.run r
        where r.project_id = p_project and r.deadline <= p_now
          and (r.state <> 'paused' or pgflow._stands_still(r))
        order by r.deadline, r.run_id
        limit 500
        for update skip locked
    loop
        v_run := pgflow._try_lock_family(v_run);
        continue when v_run.run_id is null;
        perform pgflow._expire_run(v_run);
        v_expired := v_expired + 1;
    end loop;
    for v_run in
        select r.* from pgflow.run r
        where r.project_id = p_project and r.wake_at <= p_now and r.state <> 'paused'
        order by r.wake_at
        limit 500
        for update skip locked
    loop
        v_run := pgflow._try_lock_family(v_run);
        continue when v_run.run_id is null;
        v_expired := v_expired + pgflow._time_out(v_run, p_now);
    end loop;
    for v_task in
        select t.* from pgflow._due_tasks(p_project, p_now) as t
    loop
        v_expired := v_expired + pgflow._expire_task(v_task, p_now);
    end loop;
    return v_expired;
end
$$;
comment on function pgflow._expire is
    'Sees to the runs whose deadline, and the waits and tasks whose due time, has passed; returns '
    'how many.';

-- A paused run is left alone until it is resumed, and so is one that no longer waits for this. Of a
-- run's tasks the one that was due first says how the run ends.
create or replace function pgflow._due_tasks(p_project text, p_now timestamptz)
returns setof pgflow.task
language sql
stable
as $$
    select t.* from pgflow.task t
    cross join lateral (
        select from pgflow.run r
        where r.project_id = p_project and r.run_id = t.run_id
          and r.state <> 'paused' and t.key = any (r.waits_for)
        limit 1
    ) r
    where t.project_id = p_project and t.state = 'open' and t.due_at <= p_now
    order by t.due_at, t.run_id, t.key
    limit 500
$$;
comment on function pgflow._due_tasks is 'Open tasks whose due time has passed.';

create or replace function pgflow._expire_task(p_task pgflow.task, p_now timestamptz)
returns integer
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_task pgflow.task;
begin
    select r.* into v_run from pgflow.run r
    where r.project_id = p_task.project_id and r.run_id = p_task.run_id
      and r.state <> 'paused' and p_task.key = any (r.waits_for)
    for update skip locked;
    if not found then
        return 0;
    end if;
    v_run := pgflow._try_lock_family(v_run);
    if v_run.run_id is null then
        return 0;
    end if;
    select t.* into v_task from pgflow.task t
    where t.project_id = p_task.project_id and t.task_id = p_task.task_id and t.state = 'open'
      and t.due_at <= p_now
    for update;
    if not found then
        return 0;
    elsif v_task.policy = 'escalate' then
        perform pgflow._escalate(v_run, v_task, p_now);
        return 1;
    end if;
    update pgflow.task t set state = 'expired'
    where t.project_id = v_task.project_id and t.task_id = v_task.task_id
    returning t.* into v_task;
    perform pgflow._after_expiry(v_run, v_task, p_now);
    return 1;
end
$$;
comment on function pgflow._expire_task is
    'Does what an open task''s policy says for its due time; 0 if the run is locked or gone, or '
    'doesn''t wait for it.';

create or replace function pgflow._expire_tasks(p_run pgflow.run, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_task pgflow.task;
begin
    -- As in _due_tasks the one that was due first says how the run ends.
    for v_task in
        select t.* from pgflow.task t
        where t.project_id = p_run.project_id and t.run_id = p_run.run_id and t.state = 'open'
          and t.due_at <= p_now
        order by t.due_at, t.key
    loop
        perform pgflow._expire_task(v_task, p_now);
    end loop;
end
$$;
comment on function pgflow._expire_tasks is
    'Does what the policies of a run''s overdue tasks say. The caller holds its family.';

create or replace function pgflow._after_expiry(
    p_run pgflow.run, p_task pgflow.task, p_now timestamptz
)
returns void
language plpgsql
as $$
declare
    v_payload jsonb := jsonb_build_object('task_id', p_task.task_id, 'key', p_task.key,
        'policy', p_task.policy);
begin
    if p_task.policy = 'approve' or p_task.policy = 'reject' and p_task.on_reject = 'resume' then
        perform pgflow._resolve(p_run, p_now, p_task.key, p_task.kind,
            pgflow._answer_of(p_task, p_task.policy = 'approve'), '{task.expired}',
            array[v_payload], p_task.key, p_task.digest);
        return;
    end if;
    perform pgflow._append_event(p_run, 'task.expired', p_now, v_payload);
    if p_task.policy = 'reject' then
        perform pgflow._end_rejected(p_run, p_task);
    else
        perform pgflow._end_from_outside(p_run,
            case p_task.policy when 'timeout' then 'timeout' else 'cancelled' end, 'E-RUN-007',
            format('%s: nobody decided before %s', p_task.title, p_task.due_at));
    end if;
end
$$;
comment on function pgflow._after_expiry is
    'Does to the run what the policy of its expired task says. Never called a rejection.';

create or replace function pgflow._escalate(
    p_run pgflow.run, p_task pgflow.task, p_now timestamptz
)
returns void
language plpgsql
as $$
begin
    update pgflow.task t
    set assignee = null, assignee_role = t.escalate_to, claimed_by = null,
        due_at = p_now + t.escalate_in, policy = 'cancel'
    where t.project_id = p_task.project_id and t.task_id = p_task.task_id;
    perform pgflow._append_event(p_run, 'task.escalated', p_now,
        jsonb_build_object('task_id', p_task.task_id, 'key', p_task.key,
            'from', coalesce(p_task.assignee, p_task.assignee_role),
            'to', p_task.escalate_to, 'due_at', p_now + p_task.escalate_in));
end
$$;
comment on function pgflow._escalate is
    'Hands a task to the role that its policy names, with a new due time, at which it cancels.';
