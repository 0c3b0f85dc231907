-- Tasks: what a person is asked, and who that may be. 17_decide has what they answer.

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
    if exists (
        select from pgflow.task t
        where t.project_id = p_run.project_id and t.run_id = p_run.run_id
          and t.key = p_wait ->> 'key' and t.voided_at is null
        union all
        select from pgflow.journal j
        where j.project_id = p_run.project_id and j.run_id = p_run.run_id
          and j.key = p_wait ->> 'key')
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
    return v_run;
end
$$;
comment on function pgflow._open_task is 'Opens the task of a wait; returns the run.';

-- An application that acts for its own users says who it is that acts; it needs a role for that. It
-- does not act for those whom the server knows: a database role decides by its own login.
create or replace function pgflow._person(p_as_user text)
returns text
language plpgsql
stable
as $$
begin
    if p_as_user is null then
        return pgflow._actor();
    elsif char_length(p_as_user) not between 1 and 200 then
        perform pgflow._refuse_value('as_user', '1 to 200 characters', p_as_user);
    elsif not pg_has_role(pgflow._actor()::name, 'pgflow_application', 'usage') then
        perform pgflow._refuse('PF501', format('%s may not act for others', pgflow._actor()),
            'as_user is for applications that know their users themselves.',
            'grant pgflow_application to the application''s login.', 'as_user');
    elsif exists (select from pg_catalog.pg_roles r where r.rolname = p_as_user) then
        perform pgflow._refuse('PF501', format('%s may not act for %s', pgflow._actor(), p_as_user),
            'That is a database role: what its members decide is checked with the server.',
            'Let the person log in, or use set role.', 'as_user');
    end if;
    return p_as_user;
end
$$;
comment on function pgflow._person is
    'Who acts: as_user, which needs the role pgflow_application, else the actor. Raises PF101, '
    'PF501.';

create or replace function pgflow._has_role(p_person text, p_role text)
returns boolean
language sql
stable
as $$
    select exists (
        select from pg_catalog.pg_roles r
        join pg_catalog.pg_roles p on p.rolname = p_person
        where r.rolname = p_role and pg_has_role(p.oid, r.oid, 'usage'))
$$;
comment on function pgflow._has_role is
    'Whether a person is a database role and has another one; false if either isn''t one.';

-- A role that exists in the server is a promise that only its members decide. Of other names the
-- application knows who is meant: its word (as_user) counts.
create or replace function pgflow._may_decide(p_task pgflow.task, p_as_user text)
returns boolean
language plpgsql
stable
as $$
declare
    v_person text := pgflow._person(p_as_user);
begin
    if p_task.not_requester and p_task.requested_by = v_person then
        return false;
    elsif p_as_user is null and pgflow._has_role(v_person, 'pgflow_admin') then
        return true;
    elsif p_task.claimed_by <> v_person then
        return false;
    end if;
    return (p_task.assignee is null and p_task.assignee_role is null)
        or coalesce(p_task.assignee = v_person, false)
        or pgflow._has_role(v_person, p_task.assignee)
        or pgflow._has_role(v_person, p_task.assignee_role)
        or (p_as_user is not null and p_task.assignee_role is not null
            and not exists (select from pg_catalog.pg_roles r
                            where r.rolname = p_task.assignee_role));
end
$$;
comment on function pgflow._may_decide is
    'Whether the actor, or the user that an application acts for, may decide the task: its '
    'assignee, a member of its role, an admin; anybody if it names nobody. Not who requested it '
    'where the task says so, nor others while somebody has claimed it.';

create or replace function pgflow._check_may_decide(p_task pgflow.task, p_as_user text)
returns void
language plpgsql
as $$
begin
    if not pgflow._may_decide(p_task, p_as_user) then
        perform pgflow._refuse('PF501',
            format('%s may not decide task %s', pgflow._person(p_as_user), p_task.task_id),
            format('assignee: %s, role: %s, claimed by: %s, requested by: %s%s',
                coalesce(p_task.assignee, '-'), coalesce(p_task.assignee_role, '-'),
                coalesce(p_task.claimed_by, '-'), p_task.requested_by,
                case when p_task.not_requester then ', who may not' else '' end),
            'Ask its assignee, or somebody who has the role.', 'task_id');
    end if;
end
$$;
comment on function pgflow._check_may_decide is
    'Refuses (PF501) who may not decide a task, and (PF101, PF501) an as_user who may not be one.';

create or replace function pgflow._found_task(p_project text, p_task_id uuid, p_as_user text)
returns pgflow.task
language plpgsql
as $$
declare
    v_task pgflow.task;
begin
    select t.* into v_task from pgflow.task t
    where t.project_id = p_project and t.task_id = p_task_id;
    if not found then
        perform pgflow._refuse('PF103', format('unknown task: %s', p_task_id),
            'There is no task of that id in this project.',
            'View pgflow.inbox lists the open tasks that you may see.', 'task_id');
    end if;
    perform pgflow._check_may_decide(v_task, p_as_user);
    return v_task;
end
$$;
comment on function pgflow._found_task is
    'The task, which is not locked. Raises PF103, and PF501 for who may not decide it.';

-- For all that happens to an open task but its decision. Locks the run, then the task.
create or replace function pgflow._change_task(
    p_task pgflow.task, p_as_user text, p_type text, p_payload jsonb,
    p_assignee text default null, p_claimed_by text default null
)
returns pgflow.task
language plpgsql
as $$
declare
    v_run pgflow.run := pgflow._locked(p_task.project_id, p_task.run_id);
    v_task pgflow.task;
begin
    select t.* into v_task from pgflow.task t
    where t.project_id = p_task.project_id and t.task_id = p_task.task_id
    for update;
    if v_task.state <> 'open' or v_task.due_at <= pgflow.now() then
        perform pgflow._refuse_decided(v_task, 'changed');
    end if;
    perform pgflow._check_may_decide(v_task, p_as_user);  -- another may have claimed it meanwhile
    update pgflow.task t
    set claimed_by = case p_type when 'task.commented' then t.claimed_by else p_claimed_by end,
        assignee = coalesce(p_assignee, t.assignee)
    where t.project_id = v_task.project_id and t.task_id = v_task.task_id
    returning t.* into v_task;
    perform pgflow._append_event(v_run, p_type, pgflow.now(),
        jsonb_build_object('task_id', v_task.task_id, 'key', v_task.key,
            'by', pgflow._person(p_as_user)) || p_payload);
    return v_task;
end
$$;
comment on function pgflow._change_task is
    'Sets who works on an open task that was found, with an event; returns it as it is now. Raises '
    'PF202, PF402, PF501.';

create or replace function pgflow.claim_task(
    task_id uuid, as_user text default null, project text default null
)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(claim_task.project);
    v_person text := pgflow._person(claim_task.as_user);
    v_task pgflow.task := pgflow._found_task(v_project, claim_task.task_id, claim_task.as_user);
begin
    if v_task.claimed_by = v_person and v_task.state = 'open' then
        return v_person;
    end if;
    v_task := pgflow._change_task(v_task, claim_task.as_user, 'task.claimed', '{}', null, v_person);
    return v_task.claimed_by;
end
$$;
comment on function pgflow.claim_task is
    'Takes an open task for oneself: nobody else decides it until it is released, but admins. '
    'Again is a no-op. Returns who has it. Example: select pgflow.claim_task(''...''). Raises '
    'PF103, PF402, PF501, PF502.';

create or replace function pgflow.release_task(
    task_id uuid, as_user text default null, project text default null
)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(release_task.project);
    v_task pgflow.task := pgflow._found_task(v_project, release_task.task_id, release_task.as_user);
begin
    if v_task.claimed_by is null then
        return false;
    end if;
    perform pgflow._change_task(v_task, release_task.as_user, 'task.released', '{}');
    return true;
end
$$;
comment on function pgflow.release_task is
    'Gives back a task that one has claimed; false if nobody had. Raises PF103, PF402, PF501, '
    'PF502.';

create or replace function pgflow.delegate(
    task_id uuid, assignee text, comment text default null, as_user text default null,
    project text default null
)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(delegate.project);
    v_task pgflow.task;
begin
    if coalesce(char_length(delegate.assignee), 0) not between 1 and 200 then
        perform pgflow._refuse_value('assignee', '1 to 200 characters', delegate.assignee);
    end if;
    perform pgflow._check_comment(delegate.comment);
    v_task := pgflow._found_task(v_project, delegate.task_id, delegate.as_user);
    v_task := pgflow._change_task(v_task, delegate.as_user, 'task.delegated',
        jsonb_strip_nulls(jsonb_build_object('to', delegate.assignee,
            'comment', delegate.comment)), delegate.assignee);
    return v_task.assignee;
end
$$;
comment on function pgflow.delegate is
    'Hands an open task to somebody else, who may decide it beside those who have its role. '
    'Example: select pgflow.delegate(''...'', ''alice''). Raises PF101, PF103, PF402, PF501, '
    'PF502.';

create or replace function pgflow.comment_task(
    task_id uuid, comment text, as_user text default null, project text default null
)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(comment_task.project);
    v_task pgflow.task;
begin
    if comment_task.comment is null then
        perform pgflow._refuse_value('comment', 'a text', null);
    end if;
    perform pgflow._check_comment(comment_task.comment);
    v_task := pgflow._found_task(v_project, comment_task.task_id, comment_task.as_user);
    perform pgflow._change_task(v_task, comment_task.as_user, 'task.commented',
        jsonb_build_object('comment', comment_task.comment));
end
$$;
comment on function pgflow.comment_task is
    'Says something about an open task; it stands in the timeline. Raises PF101, PF103, PF402, '
    'PF501, PF502.';
