-- What a person decides. It runs in any SQL client; the run goes on within milliseconds.

-- A role that exists in the server is a promise that only its members decide. Another name is a
-- label that the application understands.
create or replace function pgflow._may_decide(p_task pgflow.task)
returns boolean
language plpgsql
stable
as $$
declare
    v_actor name := pgflow._actor();
begin
    return pg_has_role(v_actor, 'pgflow_admin', 'usage')
        or (p_task.assignee is null and p_task.assignee_role is null)
        or coalesce(p_task.assignee = v_actor, false)
        or exists (select from pg_catalog.pg_roles r
                   where r.rolname = p_task.assignee and pg_has_role(v_actor, r.oid, 'usage'))
        or exists (select from pg_catalog.pg_roles r
                   where r.rolname = p_task.assignee_role and pg_has_role(v_actor, r.oid, 'usage'))
        or (p_task.assignee is null
            and not exists (select from pg_catalog.pg_roles r
                where r.rolname = p_task.assignee_role));
end
$$;
comment on function pgflow._may_decide is
    'Whether the actor may decide the task: its assignee, a member of its role, an admin; anybody'
    ' if it names nobody.';

create or replace function pgflow._decision(p_task pgflow.task, p_repeated boolean)
returns pgflow.decision_v1
language sql
immutable
as $$
    select p_task.task_id, p_task.run_id, p_task.state, p_task.decided_by, p_task.decided_at,
        p_task.comment, p_task.data, p_repeated
$$;
comment on function pgflow._decision is
    'A decided task as the decision that approve and reject return.';

create or replace function pgflow._refuse_decided(p_task pgflow.task, p_state text)
returns void
language plpgsql
as $$
begin
    if p_task.state = 'cancelled' then
        perform pgflow._refuse_gone(p_task.project_id, p_task.run_id, 'be decided on');
    elsif p_task.state in ('open', 'expired') then
        perform pgflow._refuse('PF402', format('task %s expired at %s', p_task.task_id,
            p_task.due_at),
            'It can no longer be decided.',
            'Retry its run, once that has ended, to have it ask again.',
            'task_id');
    else
        perform pgflow._refuse('PF402',
            format('task %s was %s before and cannot be %s', p_task.task_id, p_task.state, p_state),
            format('by %s at %s', p_task.decided_by, p_task.decided_at),
            'A decision stands; the same one again would return it.', 'task_id');
    end if;
end
$$;
comment on function pgflow._refuse_decided is
    'Raises PF402, or PF202, for a task that cannot be decided so.';

create or replace function pgflow._decide(
    p_project text, p_task_id uuid, p_state text, p_comment text, p_data jsonb
)
returns pgflow.decision_v1
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_run pgflow.run;
    v_task pgflow.task;
    v_ends boolean;
begin
    select t.* into v_task from pgflow.task t where t.project_id = p_project
        and t.task_id = p_task_id;
    if not found then
        perform pgflow._refuse('PF103', format('unknown task: %s', p_task_id),
            'There is no task of that id in this project.',
            'View pgflow.inbox lists the open tasks that you may see.', 'task_id');
    elsif not pgflow._may_decide(v_task) then
        perform pgflow._refuse('PF501', format('%s may not decide task %s', pgflow._actor(),
            p_task_id),
            format('assignee: %s, role: %s', coalesce(v_task.assignee, '-'),
                coalesce(v_task.assignee_role, '-')),
            'Ask its assignee, or somebody who has the role.', 'task_id');
    end if;
    v_run := pgflow._locked(p_project, v_task.run_id);
    select t.* into v_task from pgflow.task t
    where t.project_id = p_project and t.task_id = p_task_id
    for update;
    if v_task.state = p_state then
        return pgflow._decision(v_task, true);
    elsif v_task.state <> 'open' or v_task.due_at <= v_now then
        perform pgflow._refuse_decided(v_task, p_state);
    end if;
    update pgflow.task t
    set state = p_state, decided_at = v_now, decided_by = pgflow._actor(),
    decided_login = session_user,
        comment = p_comment, data = p_data
    where t.project_id = p_project and t.task_id = p_task_id
    returning t.* into v_task;
    v_ends := p_state = 'rejected' and v_task.on_reject = 'cancel';
    perform pgflow._resolve(v_run, v_now, v_task.key, v_task.kind,
        jsonb_build_object('task_id', v_task.task_id, 'action', v_task.state,
            'approved', v_task.state = 'approved', 'comment', p_comment, 'data', p_data,
            'decided_by', v_task.decided_by, 'decided_at', v_task.decided_at,
            'payload_sha256', encode(v_task.payload_sha256, 'hex')),
        'task.resolved',
        jsonb_build_object('task_id', v_task.task_id, 'key', v_task.key, 'action', v_task.state,
            'comment', p_comment),
        not v_ends);
    if v_ends then
        perform pgflow._end_from_outside(v_run, 'cancelled', 'E-RUN-006',
            format('%s rejected: %s', v_task.title, coalesce(p_comment, 'no comment')),
            v_task.decided_by);
    end if;
    return pgflow._decision(v_task, false);
end
$$;
comment on function pgflow._decide is
    'Decides an open task: wakes the run, or ends it where a rejection does. Locks the run, then '
    'the task.';

create or replace function pgflow.approve(
    task_id uuid, comment text default null, decision jsonb default null, project text default null
)
returns pgflow.decision_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if char_length(approve.comment) > 10000 then
        perform pgflow._refuse_value('comment', 'at most 10000 characters',
            char_length(approve.comment) || ' characters');
    elsif pg_column_size(approve.decision) > 1048576 then
        perform pgflow._refuse_value('decision', 'at most 1 MB',
            pg_column_size(approve.decision) || ' bytes');
    end if;
    return pgflow._decide(pgflow._enter_project(approve.project), approve.task_id, 'approved',
        approve.comment,
        approve.decision);
end
$$;
comment on function pgflow.approve is
    'Approves a task and wakes its run; decision is any value for the handler. Again is a no-op '
    'that returns the first decision. Example: select pgflow.approve(''...'', ''fine''). Raises '
    'PF101, PF103, PF202, PF402, PF501, PF502.';

create or replace function pgflow.reject(
    task_id uuid, comment text default null, project text default null
)
returns pgflow.decision_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if char_length(reject.comment) > 10000 then
        perform pgflow._refuse_value('comment', 'at most 10000 characters',
            char_length(reject.comment) || ' characters');
    end if;
    return pgflow._decide(pgflow._enter_project(reject.project), reject.task_id, 'rejected',
        reject.comment, null);
end
$$;
comment on function pgflow.reject is
    'Rejects a task: its run ends cancelled with E-RUN-006, or goes on and is told where the '
    'request said so. Again is a no-op that returns the first decision. Example: select '
    'pgflow.reject(''...'', ''links are broken''). Raises PF101, PF103, PF202, PF402, PF501, '
    'PF502.';
