-- Who may decide a task, and who it is that acts.

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
    elsif coalesce(p_task.claimed_by, v_person) = v_person and (p_task.assignee = v_person
        or p_task.assignee is null and p_task.assignee_role is null) then
        return true;  -- without a look at roles
    elsif p_as_user is null and pgflow._has_role(v_person, 'pgflow_admin') then
        return true;
    elsif p_task.claimed_by <> v_person then
        return false;
    end if;
    return pgflow._has_role(v_person, p_task.assignee)
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
