-- What a person decides. It runs in any SQL client; the run goes on within milliseconds.

create or replace function pgflow._check_comment(p_comment text)
returns void
language plpgsql
as $$
begin
    if char_length(p_comment) > 10000 then
        perform pgflow._refuse_value('comment', 'at most 10000 characters',
            char_length(p_comment) || ' characters');
    end if;
end
$$;
comment on function pgflow._check_comment is 'Refuses (PF101) a comment that is too long.';

create or replace function pgflow._check_data(p_task pgflow.task, p_field text, p_data jsonb)
returns void
language plpgsql
as $$
begin
    if pg_column_size(p_data) > 1048576 then
        perform pgflow._refuse_value(p_field, 'at most 1 MB', pg_column_size(p_data) || ' bytes');
    elsif p_task.form is not null and pg_column_size(p_data) > 65536 then
        perform pgflow._refuse_value(p_field, 'at most 64 kB where there is a form',
            pg_column_size(p_data) || ' bytes');
    elsif p_task.form is not null then
        perform pgflow._check_answer(p_task.form, coalesce(p_data, 'null'), p_field);
    end if;
end
$$;
comment on function pgflow._check_data is
    'Refuses (PF101) an answer that is too large or does not fit the form of the task.';

create or replace function pgflow._decision(p_task pgflow.task, p_repeated boolean)
returns pgflow.decision_v1
language sql
immutable
as $$
    select (p_task.task_id, p_task.run_id, p_task.state, p_task.decided_by, p_task.decided_at,
        p_task.comment, p_task.data, p_repeated)::pgflow.decision_v1
$$;
comment on function pgflow._decision is
    'A task as the decision that approve, reject and answer return; open while votes are missing.';

create or replace function pgflow._refuse_decided(p_task pgflow.task, p_state text)
returns void
language plpgsql
as $$
begin
    if p_task.voided_at is not null then
        perform pgflow._refuse('PF402', format('task %s counts no more', p_task.task_id),
            'Its run asked for something else, was rolled back, or went another way.',
            'View pgflow.inbox has the open tasks.', 'task_id');
    elsif p_task.state = 'cancelled' then
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

-- Counts a vote. The caller holds the task, so the count sees all votes before, unless its snapshot
-- is older than the lock.
create or replace function pgflow._vote(
    p_task pgflow.task, p_now timestamptz, p_person text, p_action text, p_comment text
)
returns text
language plpgsql
as $$
declare
    v_vote pgflow.vote;
    v_approved integer;
    v_rejected integer;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        perform pgflow._refuse('PF503',
            format('task %s needs %s votes and the isolation level read committed',
                p_task.task_id, p_task.quorum),
            'Under an older snapshot the votes of others cannot be counted.',
            'begin isolation level read committed', 'task_id');
    end if;
    insert into pgflow.vote (project_id, task_id, voter, action, login, at, comment)
    values (p_task.project_id, p_task.task_id, p_person, p_action, session_user, p_now, p_comment)
    on conflict do nothing;
    if not found then
        select v.* into v_vote from pgflow.vote v
        where v.project_id = p_task.project_id and v.task_id = p_task.task_id
          and v.voter = p_person;
        if v_vote.action <> p_action then
            perform pgflow._refuse('PF402',
                format('%s has voted on task %s: %s', p_person, p_task.task_id, v_vote.action),
                format('at %s', v_vote.at), 'A vote stands; the same one again is harmless.',
                'task_id');
        end if;
        return 'repeated';
    end if;
    select count(*) filter (where v.action = 'approved'),
        count(*) filter (where v.action = 'rejected')
    into v_approved, v_rejected
    from pgflow.vote v
    where v.project_id = p_task.project_id and v.task_id = p_task.task_id;
    return case
        when v_approved >= p_task.quorum then 'approved'
        when v_rejected > coalesce(p_task.quorum_of - p_task.quorum, 0) then 'rejected'
        else 'open'
    end;
end
$$;
comment on function pgflow._vote is
    'Takes a vote on a task and returns what it is now: open, approved, rejected; or repeated. '
    'Raises PF402, PF503.';

-- A task that expired is never said to be rejected.
create or replace function pgflow._end_rejected(p_run pgflow.run, p_task pgflow.task)
returns void
language plpgsql
as $$
begin
    perform pgflow._end_from_outside(p_run,
        case p_task.on_reject when 'fail' then 'failed' else 'cancelled' end,
        case p_task.state when 'expired' then 'E-RUN-007' else 'E-RUN-006' end,
        case p_task.state
            when 'expired' then format('%s: nobody decided before %s', p_task.title, p_task.due_at)
            else format('%s rejected: %s', p_task.title, coalesce(p_task.comment, 'no comment'))
        end,
        p_task.decided_by);
end
$$;
comment on function pgflow._end_rejected is
    'Ends the run of a rejected task, or of one that expired into a rejection, as its on_reject '
    'says: cancel or fail.';

create or replace function pgflow._votes_on(p_task pgflow.task)
returns jsonb
language sql
stable
as $$
    select jsonb_agg(jsonb_build_object('voter', v.voter, 'action', v.action,
        'comment', v.comment, 'at', v.at) order by v.at)
    from pgflow.vote v
    where v.project_id = p_task.project_id and v.task_id = p_task.task_id
$$;
comment on function pgflow._votes_on is 'The votes on a task, in their order.';

create or replace function pgflow._answer_of(p_task pgflow.task, p_approved boolean)
returns jsonb
language sql
stable
as $$
    select jsonb_strip_nulls(jsonb_build_object('task_id', p_task.task_id,
            'action', p_task.state, 'decided_by', p_task.decided_by,
            'decided_at', p_task.decided_at,
            'payload_sha256', encode(p_task.payload_sha256, 'hex'),
            'request_sha256', encode(p_task.request_sha256, 'hex'),
            'votes', case when p_task.quorum > 1 then pgflow._votes_on(p_task) end))
        || jsonb_build_object('approved', p_approved, 'comment', p_task.comment,
            'data', p_task.data)
$$;
comment on function pgflow._answer_of is 'What the handler gets to know of a decided task.';

create or replace function pgflow._decide(
    p_task pgflow.task, p_state text, p_comment text, p_data jsonb, p_as_user text,
    p_rollback_to text default null
)
returns pgflow.decision_v1
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_person text := pgflow._person(p_as_user);
    v_run pgflow.run;
    v_task pgflow.task;
    v_state text := p_state;
begin
    if p_state = 'aborted' then
        perform pgflow._lock_to_abort(p_task);
    elsif p_rollback_to is not null then  -- which may end any step of a flow
        perform pgflow._lock_flow_of(p_task);
    end if;
    v_run := pgflow._locked_to_end(p_task.project_id, p_task.run_id);
    select t.* into v_task from pgflow.task t
    where t.project_id = p_task.project_id and t.task_id = p_task.task_id
    for update;
    if v_task.state = 'answered' and p_state = 'answered'
        and v_task.data is distinct from p_data
    then
        perform pgflow._refuse_decided(v_task, 'answered otherwise');
    elsif v_task.state = p_state then
        return pgflow._decision(v_task, true);
    elsif v_task.state <> 'open' or pgflow._is_overdue(v_task.due_at, v_run, v_now) then
        perform pgflow._refuse_decided(v_task, p_state);
    end if;
    if v_task is distinct from p_task then  -- it was claimed or delegated meanwhile
        perform pgflow._check_may_decide(v_task, p_as_user);
    end if;
    if p_rollback_to is not null and v_run.kind = 'step_wait' then
        perform pgflow._check_ancestor(v_run, p_rollback_to);
    elsif p_rollback_to is not null then
        perform pgflow._known_entry(v_run, p_rollback_to, 'rollback_to');
    end if;
    if v_task.quorum > 1 and p_rollback_to is null and p_state <> 'aborted' then
        v_state := pgflow._vote(v_task, v_now, v_person, p_state, p_comment);
    end if;
    if v_state in ('open', 'repeated') then
        if v_state = 'open' then
            perform pgflow._append_event(v_run, 'task.voted', v_now,
                jsonb_build_object('task_id', v_task.task_id, 'key', v_task.key,
                    'action', p_state, 'by', v_person, 'comment', p_comment));
        end if;
        return pgflow._decision(v_task, v_state = 'repeated');
    end if;
    update pgflow.task t
    set state = v_state, decided_at = v_now, decided_by = v_person, decided_login = session_user,
        comment = p_comment, data = p_data
    where t.project_id = v_task.project_id and t.task_id = v_task.task_id
    returning t.* into v_task;
    perform pgflow._after_decision(v_run, v_now, v_task, p_rollback_to);
    return pgflow._decision(v_task, false);
end
$$;
comment on function pgflow._decide is
    'Decides an open task that was found, or votes on it. Locks the run, then the task. Raises '
    'PF105, PF202, PF402, PF501, PF503.';

create or replace function pgflow._after_decision(
    p_run pgflow.run, p_now timestamptz, p_task pgflow.task, p_rollback_to text
)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_ends boolean := p_task.state = 'rejected' and p_task.on_reject <> 'resume';
begin
    if p_task.state = 'aborted' then
        perform pgflow._end_aborted(v_run, p_now, p_task);
        return;
    elsif starts_with(p_task.key, 'pgflow:budget/') then
        perform pgflow._after_raise(v_run, p_now, p_task, p_rollback_to);
        return;
    elsif v_run.kind = 'flow' then
        perform pgflow._pass_stop(v_run, p_now, p_task);
        return;
    end if;
    if p_rollback_to is not null then
        v_run.last_event_no := v_run.last_event_no + 1;
        perform pgflow._event(v_run, v_run.last_event_no, 'task.resolved', p_now,
            jsonb_build_object('task_id', p_task.task_id, 'key', p_task.key,
                'action', p_task.state, 'comment', p_task.comment, 'by', p_task.decided_by,
                'rollback_to', p_rollback_to));
        if v_run.kind = 'step_wait' then
            update pgflow.run r set last_event_no = v_run.last_event_no
            where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
            perform pgflow._roll_back_flow(v_run, p_now, p_task, p_rollback_to);
            return;
        end if;
        perform pgflow._roll_back(v_run, p_now, p_rollback_to, jsonb_build_object(
            'comment', p_task.comment, 'by', p_task.decided_by, 'at', p_now, 'key', p_task.key,
            'task_id', p_task.task_id, 'round', v_run.round + 1));
        return;
    end if;
    v_run := pgflow._resolve(v_run, p_now, p_task.key, p_task.kind,
        case when p_task.kind in ('interrupt', 'breakpoint') then coalesce(p_task.data, 'null')
             else pgflow._answer_of(p_task, p_task.state in ('approved', 'answered')) end,
        '{task.resolved}',
        array[jsonb_build_object('task_id', p_task.task_id, 'key', p_task.key,
            'action', p_task.state, 'comment', p_task.comment, 'by', p_task.decided_by)],
        case when not v_ends then p_task.key end, p_task.digest);
    if v_ends then
        perform pgflow._end_rejected(v_run, p_task);
    elsif v_run.state <> 'paused' or not pgflow._stands_still(v_run) then
        return;
    elsif pgflow._is_interrupted(v_run) then
        update pgflow.run r set pause_reason = pgflow._pause_of(array(
            select t.key from pgflow.task t
            where t.project_id = v_run.project_id and t.run_id = v_run.run_id
              and t.state = 'open' and t.kind = 'breakpoint'))
        where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
    else
        perform pgflow._go_on(v_run, p_now);  -- what else it waits for is no reason to be paused
    end if;
end
$$;
comment on function pgflow._after_decision is
    'Does to the run what a decision about its task means: wakes it, ends it, aborts it, rolls it '
    'back, or has it pass a breakpoint.';

create or replace function pgflow._task_of_kind(
    p_project text, p_task_id uuid, p_as_user text, p_kinds text[], p_use text
)
returns pgflow.task
language plpgsql
as $$
declare
    v_task pgflow.task := pgflow._found_task(p_project, p_task_id, p_as_user);
begin
    if v_task.kind <> all (p_kinds) then
        perform pgflow._refuse('PF101', format('task %s is of kind %s', p_task_id, v_task.kind),
            format('expected: %s', array_to_string(p_kinds, ', ')), p_use, 'task_id');
    end if;
    return v_task;
end
$$;
comment on function pgflow._task_of_kind is
    'The task, if it is of one of these kinds. Raises PF101, PF103, PF501.';

create or replace function pgflow.approve(
    task_id uuid, comment text default null, decision jsonb default null,
    as_user text default null, project text default null
)
returns pgflow.decision_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(approve.project);
    v_task pgflow.task := pgflow._task_of_kind(v_project, approve.task_id, approve.as_user,
        '{approval}', 'Use pgflow.answer(task_id, data).');
begin
    perform pgflow._check_comment(approve.comment);
    perform pgflow._check_data(v_task, 'decision', approve.decision);
    return pgflow._decide(v_task, 'approved', approve.comment, approve.decision,
        approve.as_user);
end
$$;
comment on function pgflow.approve is
    'Approves a task and wakes its run, or votes for it where more than one has to approve; '
    'decision is any value for the handler, which fits the task''s form if it has one. Again is a '
    'no-op that returns the first decision. Example: select pgflow.approve(''...'', ''fine''). '
    'Raises PF101, PF103, PF202, PF402, PF501, PF502, PF503.';

create or replace function pgflow.reject(
    task_id uuid, comment text default null, rollback_to text default null,
    as_user text default null, project text default null
)
returns pgflow.decision_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(reject.project);
    v_task pgflow.task := pgflow._task_of_kind(v_project, reject.task_id, reject.as_user,
        '{approval,form,input}', 'Use pgflow.cancel(run_id) to end its run.');
begin
    perform pgflow._check_comment(reject.comment);
    return pgflow._decide(v_task, 'rejected', reject.comment, null, reject.as_user,
        reject.rollback_to);
end
$$;
comment on function pgflow.reject is
    'Rejects a task: its run ends cancelled with E-RUN-006, or as the request said. rollback_to '
    'names an entry of the run''s journal (view pgflow.journal_entries): that and all after it is '
    'voided, and the handler goes on from there, the comment in its feedback. Of a flow''s gate it '
    'names a step before it: that and all after it is done again. Again is a no-op that returns '
    'the first decision. Example: select pgflow.reject(''...'', ''too long'', '
    'rollback_to => ''draft''). Raises PF101, PF103, PF105, PF202, PF402, PF501, PF502, PF503.';

create or replace function pgflow.answer(
    task_id uuid, data jsonb, comment text default null, as_user text default null,
    project text default null
)
returns pgflow.decision_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(answer.project);
    v_task pgflow.task := pgflow._task_of_kind(v_project, answer.task_id, answer.as_user,
        '{form,input,interrupt,breakpoint}', 'Use pgflow.approve(task_id) or pgflow.reject.');
begin
    perform pgflow._check_comment(answer.comment);
    perform pgflow._check_data(v_task, 'data', answer.data);
    return pgflow._decide(v_task, 'answered', answer.comment, answer.data, answer.as_user);
end
$$;
comment on function pgflow.answer is
    'Answers a form, an input or an interrupt with data that fits its form, and wakes the run. The '
    'same again is a no-op that returns the first answer; another is refused. Example: select '
    'pgflow.answer(''...'', ''{"amount": 5}''). Raises PF101 (the field is the path in the data), '
    'PF103, PF202, PF402, PF501, PF502.';
