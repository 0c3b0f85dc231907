-- Who works on a task: claims, delegation, and comments on the way to a decision.

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
    if v_task.state <> 'open' or pgflow._is_overdue(v_task.due_at, v_run, pgflow.now()) then
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
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
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
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
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
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
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
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
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
