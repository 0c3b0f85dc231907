-- Tasks: what a person is asked. 17_who_decides has who that may be, 19_decide what they answer.

create or replace function pgflow._check_request(p_wait jsonb)
returns void
language plpgsql
as $$
declare
    v_kind text := p_wait ->> 'kind';
    v_policy text := coalesce(p_wait ->> 'policy', 'cancel');
    v_quorum integer := coalesce(p_wait ->> 'quorum', '1')::integer;
begin
    if coalesce(char_length(p_wait ->> 'title'), 0) not between 1 and 500 then
        perform pgflow._refuse_value('waits.title', '1 to 500 characters', p_wait ->> 'title');
    elsif v_kind in ('form', 'input') and p_wait ->> 'form' is null then
        perform pgflow._refuse_value('waits.form', 'a JSON schema', null);
    elsif v_kind = 'interrupt' and p_wait ->> 'due_in' is not null then
        perform pgflow._refuse_value('waits.due_in', 'left out: an interrupted run is paused',
            p_wait ->> 'due_in');
    elsif (p_wait ->> 'due_in')::float8 not between 0.001 and 315360000 then
        perform pgflow._refuse_value('waits.due_in', 'seconds, more than 0 and at most ten years',
            p_wait ->> 'due_in');
    elsif not exists (select from pgflow.task_policy p where p.policy = v_policy) then
        perform pgflow._refuse_value('waits.policy', 'a policy of table pgflow.task_policy',
            v_policy);
    elsif v_policy in ('approve', 'reject') and v_kind <> 'approval' then
        perform pgflow._refuse_value('waits.policy', 'cancel, timeout or escalate for a ' || v_kind,
            v_policy);
    elsif v_policy = 'escalate' and coalesce(p_wait ->> 'escalate_to', '') = '' then
        perform pgflow._refuse_value('waits.escalate_to', 'a role', null);
    elsif v_policy = 'escalate'
        and coalesce((p_wait ->> 'escalate_in')::float8 not between 0.001 and 315360000, true) then
        perform pgflow._refuse_value('waits.escalate_in',
            'seconds, more than 0 and at most ten years', p_wait ->> 'escalate_in');
    elsif coalesce(p_wait ->> 'on_reject', 'cancel') not in ('cancel', 'fail', 'resume') then
        perform pgflow._refuse_value('waits.on_reject', 'cancel, fail or resume',
            p_wait ->> 'on_reject');
    elsif v_quorum not between 1 and 100 or v_quorum > 1 and v_kind <> 'approval' then
        perform pgflow._refuse_value('waits.quorum', '1 to 100, and 1 but for an approval',
            v_quorum::text);
    elsif (p_wait ->> 'quorum_of')::integer not between v_quorum and 100 then
        perform pgflow._refuse_value('waits.quorum_of', 'at least the quorum, at most 100',
            p_wait ->> 'quorum_of');
    elsif p_wait ->> 'form' is not null then
        perform pgflow._check_form(p_wait -> 'form', 'waits.form');
    end if;
    perform pgflow._refuse_value('waits.' || f, '1 to 200 characters', p_wait ->> f)
    from unnest('{assignee,assignee_role,requested_by,escalate_to}'::text[]) as f
    where char_length(p_wait ->> f) not between 1 and 200;
end
$$;
comment on function pgflow._check_request is 'Refuses (PF101) what a person cannot be asked.';

create or replace function pgflow._request_sha256(p_wait jsonb)
returns bytea
language sql
immutable
as $$
    select pgflow._sha256(jsonb_build_object('kind', p_wait -> 'kind',
        'title', p_wait -> 'title', 'payload', p_wait -> 'payload', 'form', p_wait -> 'form',
        'assignee', p_wait -> 'assignee', 'assignee_role', p_wait -> 'assignee_role',
        'quorum', coalesce(p_wait ->> 'quorum', '1')::integer, 'quorum_of', p_wait -> 'quorum_of',
        'not_requester', coalesce((p_wait ->> 'not_requester')::boolean, false)))
$$;
comment on function pgflow._request_sha256 is
    'SHA-256 of all that a person is asked, but for the due time.';

-- A decision is bound to what it was about: with another payload, role or quorum the same key is
-- another request. Where the worker sends a digest, that tells: it is what the worker compares
-- decisions with. And a fork has decisions without a task.
create or replace function pgflow._changed_requests(p_run pgflow.run, p_waits jsonb)
returns jsonb
language plpgsql
as $$
begin
    if not p_run.has_tasks and p_run.news = 0 then
        return jsonb '{}';
    end if;
    return (
        select coalesce(jsonb_object_agg(w ->> 'key', t.task_id), '{}')
        from jsonb_array_elements(p_waits) as w
        left join pgflow.task t on t.project_id = p_run.project_id and t.run_id = p_run.run_id
            and t.key = w ->> 'key' and t.voided_at is null
        left join pgflow.journal j on j.project_id = p_run.project_id and j.run_id = p_run.run_id
            and j.key = w ->> 'key' and t.task_id is null
            and j.kind in ('approval', 'form', 'input', 'interrupt', 'breakpoint')
        where w ->> 'kind' in ('approval', 'form', 'input', 'interrupt', 'breakpoint')
          and not coalesce(t.digest = decode(w ->> 'digest', 'hex'),
              t.request_sha256 = pgflow._request_sha256(w),
              j.digest = decode(w ->> 'digest', 'hex'), true));
end
$$;
comment on function pgflow._changed_requests is
    'The keys among some waits under which a person was asked something else before, each with the '
    'task of then, or null if this run has none.';

-- A rollback begins anew: the first task after it stands for none.
create or replace function pgflow._are_asked_too_often(p_run pgflow.run, p_changed jsonb)
returns boolean
language plpgsql
as $$
begin
    return p_changed <> '{}' and exists (
        select from jsonb_each_text(p_changed) as c (key, task_id)
        join pgflow.task third
          on third.project_id = p_run.project_id and third.task_id = c.task_id::uuid
        join pgflow.task second
          on second.project_id = p_run.project_id and second.task_id = third.replaces
        where second.replaces is not null);
end
$$;
comment on function pgflow._are_asked_too_often is
    'Whether one of some changed requests was asked three times in a row, each time for something '
    'else.';

create or replace function pgflow._void_changed(
    p_run pgflow.run, p_now timestamptz, p_changed jsonb
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_task pgflow.task;
    v_changed record;
begin
    for v_changed in select c.key, c.value::uuid from jsonb_each_text(p_changed) as c loop
        select t.* into v_task from pgflow.task t
        where t.project_id = v_run.project_id and t.task_id = v_changed.value;
        if v_task.state = 'open' then
            v_run := pgflow._void_tasks(v_run, p_now, array[v_task.key], 'something else is asked');
        elsif exists (  -- unless it was voided together with one before it
            select from pgflow.journal j
            where j.project_id = v_run.project_id and j.run_id = v_run.run_id
              and j.key = v_changed.key)
        then
            v_run := pgflow._void_from(v_run, p_now, v_changed.key, 'something else is asked');
        end if;
    end loop;
    return v_run;
end
$$;
comment on function pgflow._void_changed is
    'Voids the tasks of requests that changed and, if they were decided, all that the run learned '
    'since; returns the run, whose row the caller writes.';

create or replace function pgflow._void_tasks(
    p_run pgflow.run, p_now timestamptz, p_keys text[], p_reason text
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_task pgflow.task;
begin
    for v_task in
        update pgflow.task t
        set voided_at = p_now, state = case t.state when 'open' then 'cancelled' else t.state end
        where t.project_id = v_run.project_id and t.run_id = v_run.run_id
          and t.voided_at is null and t.key = any (p_keys)
        returning t.*
    loop
        v_run.last_event_no := v_run.last_event_no + 1;
        perform pgflow._event(v_run, v_run.last_event_no, 'task.voided', p_now,
            jsonb_build_object('task_id', v_task.task_id, 'key', v_task.key, 'reason', p_reason));
    end loop;
    return v_run;
end
$$;
comment on function pgflow._void_tasks is
    'Has the tasks under some keys count no more; returns the run, whose row the caller writes.';

-- Asking the same again finds the task that is there, open or decided.
create or replace function pgflow._request_task(
    p_run pgflow.run, p_now timestamptz, p_wait jsonb
)
returns pgflow.run
language plpgsql
as $$
begin
    if p_run.has_tasks and exists (
        select from pgflow.task t
        where t.project_id = p_run.project_id and t.run_id = p_run.run_id
          and t.key = p_wait ->> 'key' and t.voided_at is null)
    then
        return p_run;
    end if;
    return pgflow._open_task(p_run, p_now, p_wait);
end
$$;
comment on function pgflow._request_task is
    'Opens the task of a wait, if it isn''t there; returns the run.';

create or replace function pgflow._open_task(p_run pgflow.run, p_now timestamptz, p_wait jsonb)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_task pgflow.task;
begin
    v_task.task_id := pgflow._new_id();
    v_task.due_at := p_now + make_interval(secs => (p_wait ->> 'due_in')::float8);
    v_task.title := coalesce(p_wait ->> 'title',
        format('Breakpoint %s', replace(p_wait ->> 'key', 'breakpoint/', '')));
    insert into pgflow.task (project_id, task_id, run_id, key, kind, not_requester, quorum,
        quorum_of, round, title, payload, payload_sha256, form, request_sha256, digest, replaces,
        assignee, assignee_role, requested_by, created_at, due_at, policy, escalate_to,
        escalate_in, on_reject)
    values (v_run.project_id, v_task.task_id, v_run.run_id, p_wait ->> 'key', p_wait ->> 'kind',
        coalesce((p_wait ->> 'not_requester')::boolean, false),
        coalesce((p_wait ->> 'quorum')::smallint, 1), (p_wait ->> 'quorum_of')::smallint,
        v_run.round, v_task.title, p_wait -> 'payload',
        pgflow._sha256(coalesce(p_wait -> 'payload', 'null')), nullif(p_wait -> 'form', 'null'),
        pgflow._request_sha256(p_wait), decode(p_wait ->> 'digest', 'hex'),
        (p_wait ->> 'replaces')::uuid, p_wait ->> 'assignee', p_wait ->> 'assignee_role',
        coalesce(p_wait ->> 'requested_by', v_run.created_by), p_now, v_task.due_at,
        coalesce(p_wait ->> 'policy', 'cancel'), p_wait ->> 'escalate_to',
        make_interval(secs => (p_wait ->> 'escalate_in')::float8),
        coalesce(p_wait ->> 'on_reject', 'cancel'));
    v_run.has_tasks := true;
    v_run.last_event_no := v_run.last_event_no + 1;
    perform pgflow._event(v_run, v_run.last_event_no,
        case p_wait ->> 'kind' when 'breakpoint' then 'breakpoint.hit' else 'task.requested' end,
        p_now,
        jsonb_strip_nulls(jsonb_build_object('task_id', v_task.task_id, 'key', p_wait ->> 'key',
            'kind', p_wait ->> 'kind', 'title', v_task.title, 'assignee', p_wait ->> 'assignee',
            'assignee_role', p_wait ->> 'assignee_role', 'due_at', v_task.due_at,
            'replaces', p_wait -> 'replaces')));
    if p_wait ->> 'kind' in ('interrupt', 'breakpoint') then
        v_run := pgflow._save_pause(v_run, p_wait);
    end if;
    return v_run;
end
$$;
comment on function pgflow._open_task is 'Opens the task of a wait; returns the run.';
