-- Statements for psql, reports and APIs. Words such as :'task' and :'run' are variables of psql, here ids:
-- psql -v task=01a1fd2f-… -v run=01a1fd2f-…; other clients put a parameter there. The views show the
-- projects of whoever asks. Times are compared with pgflow.now(), which is the database's clock.

-- # My inbox
-- What I may decide: tasks that name me, a role that I have, or nobody; not what somebody else has claimed.
select task_id, kind, title, due_at, claimed_by
from pgflow.inbox
where coalesce(claimed_by, current_user) = current_user
  and not (not_requester and requested_by = current_user)
  and (coalesce(assignee, assignee_role) is null
       or assignee = current_user
       or exists (
           select from pg_roles r
           where r.rolname in (assignee, assignee_role)
             and pg_has_role(current_user, r.oid, 'usage')))
order by due_at nulls last, created_at;

-- # One task, with what to look at
select title, kind, payload, form_schema, requested_by, due_at, policy, votes, quorum
from pgflow.inbox
where task_id = :'task';

-- # Approve with a comment
select action, decided_by, decided_at
from pgflow.approve(:'task', 'fine');

-- # Send back to an earlier step
-- The run does the entry draft of its journal, and all after it, again. Its handler is told why.
select action, decided_by
from pgflow.reject(:'review_task', 'too long', rollback_to => 'draft');

-- # Fill in a form
select action, data
from pgflow.answer(:'form_task', '{"stars": 5, "note": "nice"}');

-- # Take a task, say something, hand it on
select pgflow.claim_task(:'open_task');
select pgflow.comment_task(:'open_task', 'which words?');
select pgflow.delegate(:'open_task', 'ann', 'you know it');

-- # Inboxes by role
select coalesce(assignee, assignee_role, 'anybody') as whose, count(*) as tasks,
    pgflow.now() - min(created_at) as oldest, min(due_at) as next_due
from pgflow.inbox
group by whose
order by tasks desc;

-- # Everything overdue
-- A task whose time is up stays in the inbox until a worker sees to it, then it is expired.
select task_id, title, assignee_role, due_at, policy, 'not seen to yet' as what
from pgflow.inbox
where due_at <= pgflow.now()
union all
select task_id, title, assignee_role, due_at, policy, 'expired'
from pgflow.task_history
where state = 'expired' and due_at > pgflow.now() - interval '7 days'
order by due_at;

-- # Who decided what last week
select decided_at, decided_by, decided_login, state, title, comment,
    decided_at - created_at as after, voided_at is not null as counts_no_more
from pgflow.task_history
where decided_at >= pgflow.now() - interval '7 days'
order by decided_at desc;

-- # How long people take
select coalesce(assignee_role, assignee, 'anybody') as whose, count(*) as decisions,
    count(*) filter (where state = 'rejected') as rejected,
    percentile_cont(0.5) within group (order by decided_at - created_at) as half_within,
    max(decided_at - created_at) as longest
from pgflow.task_history
where decided_at >= pgflow.now() - interval '30 days'
group by whose
order by decisions desc;

-- # How the people voted
select t.title, v.voter, v.action, v.comment, v.at
from pgflow.task_history t
cross join jsonb_to_recordset(t.votes) as v (voter text, action text, comment text, at timestamptz)
where t.quorum > 1
order by t.decided_at desc, v.at;

-- # Runs that wait longest
select r.run_id, r.handler, r.state, r.waits_for, pgflow.now() - w.at as waits
from pgflow.runs r
cross join lateral (
    select max(t.at) as at
    from pgflow.timeline t
    where t.run_id = r.run_id and t.type in ('run.waiting', 'run.paused')) w
where r.state like 'waiting%' or r.state = 'paused'
order by waits desc
limit 20;

-- # Tool calls that are open
select c.run_id, c.key, c.tool, c.arguments, pgflow.now() - c.requested_at as waits
from pgflow.tool_calls c
join pgflow.runs r using (project_id, run_id)
where c.status = 'open' and r.finished_at is null
order by c.requested_at;

-- # Give a tool's result
select pgflow.resolve_tool(:'tool_run', 'video', '{"url": "b.mp4"}');

-- # Why is this run not running?
select r.state, case
        when r.finished_at is not null
            then format('it ended %s: %s', r.finished_at, coalesce(r.error_detail, 'completed'))
        when r.state = 'running' then format('it is, by worker %s', r.worker_id)
        when r.state = 'paused' then format('paused: %s', r.pause_reason)
        when r.state = 'scheduled' then format('not before %s', r.run_at)
        when r.state = 'waiting_approval' then 'waits for people: ' || (
            select string_agg(format('%s (%s)', i.title,
                    coalesce(i.claimed_by, i.assignee, i.assignee_role, 'anybody')), ', ')
            from pgflow.inbox i
            where i.run_id = r.run_id)
        when r.state like 'waiting%'
            then format('waits for %s', array_to_string(r.waits_for, ', '))
        when q.paused_at is not null then format('queue %s is paused', q.queue)
        when q.workers = 0 then format('queue %s has no live worker', q.queue)
        when q.available_slots = 0
            then format('all %s slots of queue %s are taken', q.max_concurrent, q.queue)
        else format('%s runs of queue %s are ready', q.pending, q.queue)
    end as why
from pgflow.runs r
left join pgflow.queue_stats q using (project_id, queue)
where r.run_id = :'run';

-- # What a run has learned
select event_no, key, kind, value, case when voided then round end as voided_in_round
from pgflow.journal_entries
where run_id = :'run'
order by event_no;

-- # All that happened to a run
select event_no, at, type, by, step, payload
from pgflow.timeline
where run_id = :'run'
order by event_no;

-- # Runs by day, for a chart
select date_trunc('day', created_at) as day, handler, count(*) as runs,
    count(*) filter (where state = 'completed') as completed,
    count(*) filter (where state in ('failed', 'timeout')) as failed,
    avg(finished_at - created_at) as took, sum(cost_usd) as cost_usd
from pgflow.runs
where created_at >= pgflow.now() - interval '30 days'
group by day, handler
order by day, handler;

-- # A login for reports, which can only look
create role bi login;
grant pgflow_reader to bi;
alter role bi set default_transaction_read_only = on;
alter role bi set statement_timeout = '30s';

-- # A login for an API that knows its users itself
-- It names them with as_user. For PostgREST (db-schemas = "pgflow") web is the role of a request, and the
-- approval below is POST /rpc/approve with {"task_id": "…", "comment": "ok", "as_user": "dora@example.org"}.
create role web nologin;
grant pgflow_application to web;
create role authenticator noinherit login;
grant web to authenticator;

-- # Decide for a user of the application
-- The setting lasts until the end of the transaction; it works behind a pooler too.
begin;
set local role web;
select action, decided_by
from pgflow.approve(:'user_task', 'ok', as_user => 'dora@example.org');
commit;

-- # Tell me when something happens to a run
-- A payload such as: run default 01a1fd2f-… on channel pgflow means that its timeline has grown.
listen pgflow;
select pgflow.watch(:'run');

-- # New tasks since I last looked
-- No message is sent for a task: ask every few seconds. Begin somewhat before the newest line that you have,
-- since a line stands there when its transaction has ended, and leave out tasks that you know.
select at, payload ->> 'task_id' as task_id, payload ->> 'title' as title, run_id
from pgflow.timeline
where type = 'task.requested' and at > pgflow.now() - interval '1 minute'
order by at;
