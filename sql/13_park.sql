-- Park: running -> waiting_*. The worker names the news it has seen; if there are others the run
-- stays its own and it gets them. A wait is one row: no worker, no connection, no memory.

create or replace function pgflow._check_wait(p_wait jsonb)
returns void
language plpgsql
as $$
begin
    if p_wait ->> 'kind' is distinct from 'approval' then
        perform pgflow._refuse_value('waits.kind', 'approval', p_wait ->> 'kind');
    elsif coalesce(char_length(p_wait ->> 'key'), 0) not between 1 and 500 then
        perform pgflow._refuse_value('waits.key', '1 to 500 characters', p_wait ->> 'key');
    elsif coalesce(char_length(p_wait ->> 'title'), 0) not between 1 and 500 then
        perform pgflow._refuse_value('waits.title', '1 to 500 characters', p_wait ->> 'title');
    elsif (p_wait ->> 'due_in')::float8 not between 0.001 and 315360000 then
        perform pgflow._refuse_value('waits.due_in', 'seconds, more than 0 and at most ten years',
            p_wait ->> 'due_in');
    elsif not exists (select from pgflow.task_policy p
                      where p.policy = coalesce(p_wait ->> 'policy', 'cancel')) then
        perform pgflow._refuse_value('waits.policy', 'a policy of table pgflow.task_policy',
            p_wait ->> 'policy');
    elsif coalesce(p_wait ->> 'on_reject', 'cancel') not in ('cancel', 'resume') then
        perform pgflow._refuse_value('waits.on_reject', 'cancel or resume', p_wait ->> 'on_reject');
    end if;
end
$$;
comment on function pgflow._check_wait is 'Refuses (PF101) what cannot be waited for.';

-- Asking again under the same key finds the task that is there.
create or replace function pgflow._request_task(
    p_run pgflow.run, p_now timestamptz, p_wait jsonb, p_event_no integer
)
returns boolean
language plpgsql
as $$
declare
    v_task_id uuid := pgflow._new_id();
    v_due_at timestamptz := p_now + make_interval(secs => (p_wait ->> 'due_in')::float8);
begin
    insert into pgflow.task (project_id, task_id, run_id, key, kind, title, payload, payload_sha256,
        assignee, assignee_role, requested_by, created_at, due_at, policy, on_reject)
    values (p_run.project_id, v_task_id, p_run.run_id, p_wait ->> 'key', p_wait ->> 'kind',
        p_wait ->> 'title', p_wait -> 'payload',
        pgflow._sha256(coalesce(p_wait -> 'payload', 'null')),
        p_wait ->> 'assignee', p_wait ->> 'assignee_role', p_run.created_by, p_now, v_due_at,
        coalesce(p_wait ->> 'policy', 'cancel'), coalesce(p_wait ->> 'on_reject', 'cancel'))
    on conflict on constraint a_run_asks_once_per_key do nothing;
    if not found then
        return false;
    end if;
    perform pgflow._event(p_run, p_event_no, 'task.requested', p_now,
        jsonb_strip_nulls(jsonb_build_object('task_id', v_task_id, 'key', p_wait ->> 'key',
            'kind', p_wait ->> 'kind', 'title', p_wait ->> 'title', 'assignee',
            p_wait ->> 'assignee',
            'assignee_role', p_wait ->> 'assignee_role', 'due_at', v_due_at)));
    return true;
end
$$;
comment on function pgflow._request_task is
    'Opens the task of a wait, if it isn''t there; false if it is.';

create or replace function pgflow._park_one(p_project text, p_park jsonb)
returns pgflow.parked_v1
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_run pgflow.run;
    v_wait jsonb;
    v_keys text[];
    v_event_no integer;
    v_line pgflow.parked_v1;
begin
    v_line.run_id := (p_park ->> 'run_id')::uuid;
    v_run := pgflow._held(p_project, v_line.run_id, (p_park ->> 'lease_no')::integer);
    if v_run.run_id is null then
        select a.outcome, a.code, a.detail into v_line.outcome, v_line.code, v_line.detail
        from pgflow._after_lease(p_project, v_line.run_id, (p_park ->> 'lease_no')::integer,
            '{run.waiting}') as a;
        return v_line;
    end if;
    v_line.news := v_run.news;
    if p_park ->> 'news' is null then
        perform pgflow._refuse_value('parks.news', 'the news that the worker has seen', null);
    elsif v_run.news <> (p_park ->> 'news')::integer then
        v_line.outcome := 'news';
        v_line.entries := pgflow._journal(p_project, v_run.run_id, (p_park ->> 'news')::integer);
        return v_line;
    end if;
    v_keys := array(
        select distinct w ->> 'key' from jsonb_array_elements(p_park -> 'waits') as w order by 1);
    if coalesce(cardinality(v_keys), 0) = 0 then
        perform pgflow._refuse_value('waits', 'a list of at least one wait', p_park ->> 'waits');
    end if;
    v_event_no := v_run.last_event_no;
    for v_wait in select w from jsonb_array_elements(p_park -> 'waits') as w loop
        perform pgflow._check_wait(v_wait);
        if pgflow._request_task(v_run, v_now, v_wait, v_event_no + 1) then
            v_event_no := v_event_no + 1;
        end if;
    end loop;
    if pgflow._is_satisfied(p_project, v_run.run_id, v_keys,
        coalesce((p_park ->> 'wait_any')::boolean, false)) then
        perform pgflow._refuse_value('waits', 'not in the run''s journal already', v_keys::text);
    end if;
    perform pgflow._event(v_run, v_event_no + 1, 'run.waiting', v_now,
        jsonb_build_object('waits_for', v_keys), true);
    update pgflow.run r
    set state = 'waiting_approval', waits_for = v_keys,
        wait_any = coalesce((p_park ->> 'wait_any')::boolean, false),
        has_tasks = true, last_event_no = v_event_no + 1, worker_id = null, leased_at = null,
        lease_event_no = null, slotted = false,
        step_count = r.step_count + pgflow._steps((p_park ->> 'steps')::integer),
        cost_usd = pgflow._cost(r.cost_usd, (p_park ->> 'cost_usd')::numeric)
    where r.project_id = p_project and r.run_id = v_run.run_id;
    perform pgflow._free_slot(v_run);
    v_line.outcome := 'done';
    return v_line;
exception
    when sqlstate 'PF101' or data_exception or integrity_constraint_violation
         or program_limit_exceeded then
        return (v_line.run_id, 'refused', v_line.news, null, sqlstate, sqlerrm)::pgflow.parked_v1;
end
$$;
comment on function pgflow._park_one is 'Parks one run; see park.';

create or replace function pgflow.park(parks jsonb, project text default null)
returns setof pgflow.parked_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(park.project);
    v_park jsonb;
begin
    if jsonb_typeof(park.parks) is distinct from 'array' then
        perform pgflow._refuse_value('parks', 'an array of objects', left(park.parks::text, 200));
    end if;
    for v_park in
        select p.park from jsonb_array_elements(park.parks) as p (park) order by p.park ->> 'run_id'
    loop
        return next pgflow._park_one(v_project, v_park);
    end loop;
end
$$;
comment on function pgflow.park is
    'Lets runs wait without a worker. Each element: run_id, lease_no, news (as seen), waits (kind'
    ' approval, key, title, payload, assignee, assignee_role, due_in in seconds, policy, '
    'on_reject), wait_any, cost_usd, steps. Returns a line for each: done; news with the entries '
    'not seen yet, and the run goes on; already; lost; refused. Raises PF101, PF502.';
