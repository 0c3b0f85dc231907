-- What people select from. Views belong to the tables' owner, so each filters by the actor's
-- projects itself and is a security barrier.

-- The filter stands outside the union: of a view that is nothing but a union the server drops the
-- security barrier, and a cheap function in somebody's query would see rows of other projects.
create or replace view pgflow.runs with (security_barrier) as
select u.*
from (
    select r.project_id, r.run_id, r.handler, r.queue, r.state, r.priority,
        r.attempt as attempt_count, r.max_attempts, r.lease_no, r.worker_id,
        null::text as last_worker_id, b.beat_at + q.lease_ttl as lease_until,
        b.beat_at as heartbeat_at, r.pause_reason, r.round, r.breakpoints, r.feedback, r.waits_for,
        r.created_at, r.run_at,
        r.first_started_at, r.leased_at as started_at, null::timestamptz as finished_at, r.timeout,
        r.deadline, null::text as error_code, null::text as error_detail, r.last_error, r.input,
        encode(pgflow._sha256(case r.kind when 'flow' then (
            select jsonb_build_object('flow', encode(v.sha256, 'hex'), 'input', r.input)
            from pgflow.flow_version v
            where v.project_id = r.project_id and v.flow = r.handler
              and v.version = r.flow_version) else r.input end), 'hex') as input_sha256,
        null::jsonb as output,
        null::text as output_sha256, r.cost_usd, r.step_count, r.tags, r.idempotency_key,
        coalesce(r.correlation_id, r.run_id::text) as correlation_id, r.retry_of, r.undo_of,
        r.forked_from, r.parent_run_id, r.parent_key,
        coalesce(r.root_run_id, r.run_id) as root_run_id, r.kind, r.created_by,
        null::text as ended_by, r.step, r.flow_version, r.super_step, r.deadlines_held_at,
        null::uuid as final_report,
        case when r.pause_reason in ('interrupt', 'before', 'after') then (
            select jsonb_build_object('step', regexp_replace(t.key, '^breakpoint/\w+/', ''),
                'task_id', t.task_id, 'payload', t.payload)
            from pgflow.task t
            where t.project_id = r.project_id and t.run_id = r.run_id and t.state = 'open'
              and t.kind in ('breakpoint', 'interrupt')
            order by t.kind, t.key
            limit 1) end as stands_at, r.bindings
    from pgflow.run r
    left join pgflow.queue q on q.project_id = r.project_id and q.queue = r.queue
        and r.state = 'running'
    left join pgflow.worker_beat b on b.project_id = r.project_id and b.worker_id = r.worker_id
    union all
    select f.project_id, f.run_id, f.handler, f.queue, f.state, f.priority, f.attempt,
        f.max_attempts, f.lease_no, null, f.worker_id, null, null, null, f.round, null, null, null,
        f.created_at,
        f.run_at, f.first_started_at, f.leased_at, f.finished_at, f.timeout, f.deadline,
        f.error_code, f.error_detail, f.last_error, f.input,
        encode(pgflow._sha256(case f.kind when 'flow' then (
            select jsonb_build_object('flow', encode(v.sha256, 'hex'), 'input', f.input)
            from pgflow.flow_version v
            where v.project_id = f.project_id and v.flow = f.handler
              and v.version = f.flow_version) else f.input end), 'hex'),
        f.output, encode(pgflow._sha256(f.output), 'hex'), f.cost_usd, f.step_count, f.tags,
        f.idempotency_key, coalesce(f.correlation_id, f.run_id::text), f.retry_of, f.undo_of,
        f.forked_from, f.parent_run_id, f.parent_key, coalesce(f.root_run_id, f.run_id), f.kind,
        f.created_by, f.ended_by, f.step, f.flow_version, f.super_step, null,
        case when f.kind = 'flow' then f.run_id end, null, f.bindings
    from pgflow.run_finished f
) u
where u.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.runs is
    'Live and finished runs. lease_until and heartbeat_at are those of the worker.';
comment on column pgflow.runs.attempt_count is
    'Executions that failed or were lost, held against max_attempts.';
comment on column pgflow.runs.lease_no is
    'How often it was leased. The fencing token of the present lease.';
comment on column pgflow.runs.worker_id is 'The worker that holds it; null unless it is running.';
comment on column pgflow.runs.last_worker_id is 'The worker that held it when it ended.';
comment on column pgflow.runs.lease_until is
    'When the lease expires, if its worker isn''t heard of before.';
comment on column pgflow.runs.heartbeat_at is 'The worker''s last beat.';
comment on column pgflow.runs.pause_reason is 'Why it is paused.';
comment on column pgflow.runs.waits_for is
    'Journal keys that it waits for; kept while it is paused.';
comment on column pgflow.runs.run_at is
    'Not before; for a retried run, when the next execution was due.';
comment on column pgflow.runs.first_started_at is 'When it was leased for the first time.';
comment on column pgflow.runs.started_at is
    'When it was leased for the last time; live runs: the present lease.';
comment on column pgflow.runs.timeout is 'Bound of one execution.';
comment on column pgflow.runs.deadline is 'Bound of the whole run, waits included.';
comment on column pgflow.runs.error_code is
    'Why it ended without completing; table error_code explains it.';
comment on column pgflow.runs.last_error is
    'What the last failed execution raised (type, message, traceback); kept after a later success.';
comment on column pgflow.runs.input_sha256 is
    'Hex SHA-256 of the database''s text of the input; of a flow, of {"flow": its sha256, "input": '
    'the input}.';
comment on column pgflow.runs.output_sha256 is 'Hex SHA-256 of the database''s text of the output.';
comment on column pgflow.runs.cost_usd is 'What its executions said they cost.';
comment on column pgflow.runs.step_count is 'Steps whose results were journalled.';
comment on column pgflow.runs.correlation_id is
    'Ties runs together; the run''s own id unless one was given. Retries share the first one''s.';
comment on column pgflow.runs.retry_of is 'The finished run whose work it does again.';
comment on column pgflow.runs.root_run_id is 'Itself, for a run without a parent.';
comment on column pgflow.runs.created_by is 'The actor that enqueued it.';
comment on column pgflow.runs.kind is
    'handler; flow: its name is in the column handler; step_wait: a step that no worker executes.';
comment on column pgflow.runs.step is 'The step of its parent, a flow, that it executes.';
comment on column pgflow.runs.flow_version is 'Of a flow: its version.';
comment on column pgflow.runs.super_step is
    'Of a flow: how often ended steps have made others ready.';
comment on column pgflow.runs.bindings is
    'Of a flow: what its roles were bound to when it started: agent, version, sha256.';
comment on column pgflow.runs.ended_by is 'The actor that cancelled it or rejected its task.';
comment on column pgflow.runs.deadlines_held_at is
    'Since when its deadlines stand still; they are moved on by that span when it is resumed.';
comment on column pgflow.runs.final_report is
    'Of a flow that has ended: pgflow.report(final_report) returns its report.';
comment on column pgflow.runs.stands_at is
    'The interrupt or the breakpoint that it is paused by: step, task_id and payload.';

-- A run's creation, its leases and its end are columns of its row, or of the event that ended the
-- lease; a step's line is its journal entry. No fact is stored twice.
create or replace view pgflow.timeline with (security_barrier) as
with every_run as not materialized (
    select r.project_id, r.run_id, r.handler, r.queue, r.correlation_id, r.created_at,
        r.created_by, r.attempt,
        r.worker_id, r.leased_at, r.lease_no, r.lease_event_no, null::integer as end_event_no,
        null::text as end_type, null::timestamptz as finished_at, null::text as ended_by,
        null::jsonb as end_payload, r.root_run_id, r.parent_run_id, r.kind, r.step as of_step
    from pgflow.run r
    union all
    select f.project_id, f.run_id, f.handler, f.queue, f.correlation_id, f.created_at,
        f.created_by, f.attempt,
        f.worker_id, f.leased_at, f.lease_no, f.lease_event_no, f.last_event_no,
        case when f.error_code = 'E-RUN-013' then 'run.aborted'
             when f.state = 'timeout' then 'run.timed_out' else 'run.' || f.state end,
        f.finished_at, f.ended_by,
        jsonb_strip_nulls(jsonb_build_object('error_code', f.error_code,
            'error_detail', f.error_detail)),
        f.root_run_id, f.parent_run_id, f.kind, f.step
    from pgflow.run_finished f
),
line as not materialized (
    select a.project_id, a.run_id, 1 as event_no, 'run.created' as type, a.created_at as at,
        a.created_by as by, null::text as worker_id, null::integer as lease_no, 0 as attempt,
        null::text as step, jsonb_build_object('handler', a.handler) as payload, null::text as key,
        null::integer as version
    from every_run a
    union all
    select a.project_id, a.run_id, a.lease_event_no, 'run.started', a.leased_at, 'pgflow',
        a.worker_id, a.lease_no, a.attempt, null, null, null, null
    from every_run a
    where a.lease_event_no is not null
    union all
    select a.project_id, a.run_id, a.end_event_no, a.end_type, a.finished_at,
        coalesce(a.ended_by, 'pgflow'), a.worker_id,
        case when a.worker_id is not null then a.lease_no end, a.attempt, null, a.end_payload,
        null, null
    from every_run a
    where a.end_event_no is not null
    union all
    select f.project_id, f.run_id, f.last_event_no - 1, 'report.written', f.finished_at, 'pgflow',
        null, null, f.attempt, null, jsonb_build_object('status', f.state), null,
        null
    from pgflow.run_finished f
    where f.kind = 'flow'
    union all
    select e.project_id, e.run_id, e.lease_event_no, 'run.started', e.leased_at, 'pgflow',
        e.worker_id, e.lease_no, e.attempt, null, null, null, null
    from pgflow.event e
    where e.lease_event_no is not null
    union all
    select e.project_id, e.run_id, e.event_no, e.type, e.at, e.by, e.worker_id, e.lease_no,
        e.attempt, coalesce(e.step,
            case when e.type like 'task.%' or e.type = 'breakpoint.hit' then
                regexp_replace(e.payload ->> 'key', '^breakpoint/\w+/', '')
            end), e.payload, e.key, null
    from pgflow.event e
    union all
    select j.project_id, j.run_id, j.event_no, 'step.completed', j.at, 'pgflow', null, j.lease_no,
        j.attempt, j.key, null, null, null
    from pgflow.journal j
    where j.kind = 'step' and j.event_no > 0
    union all
    select v.project_id, v.run_id, v.event_no, 'step.completed', v.at, 'pgflow', null, v.lease_no,
        v.attempt, v.key, jsonb_build_object('voided_round', v.round), null, null
    from pgflow.journal_voided v
    where v.kind = 'step' and v.event_no > 0 and not v.replaced
    union all
    select s.project_id, s.run_id, s.started_event_no, 'step.started', s.ready_at, 'pgflow', null,
        null, 0, s.step, jsonb_strip_nulls(jsonb_build_object('run_id', s.child_run_id,
            'elements', s.elements)), null, s.version
    from pgflow.flow_step s
    where s.started_event_no is not null
    union all
    select s.project_id, s.run_id, s.ended_event_no, 'step.' || s.state, s.ended_at, 'pgflow', null,
        null, 0, s.step, jsonb_strip_nulls(jsonb_build_object('run_id', s.child_run_id,
            'error_code', s.error_code, 'error_detail', s.error_detail)), null, s.version
    from pgflow.flow_step s
    where s.ended_event_no is not null
    union all
    select s.project_id, s.run_id, s.voided_event_no, 'step.voided', s.voided_at, 'pgflow', null,
        null, 0, s.step, jsonb_strip_nulls(jsonb_build_object('run_id', s.child_run_id)), null,
        s.version
    from pgflow.flow_step s
    where s.voided_event_no is not null
    union all
    select c.project_id, c.run_id, c.event_no, 'checkpoint.saved', c.at, 'pgflow', null, null, 0,
        null, jsonb_build_object('number', c.number, 'super_step', c.super_step,
            'label', c.label), null, null
    from pgflow.checkpoint c
    where c.event_no is not null
)
select l.project_id, l.run_id, l.event_no, l.type, l.at, l.by, l.worker_id, l.lease_no, l.attempt,
    l.step, l.payload, l.key, coalesce(a.correlation_id, a.run_id::text) as correlation_id,
    a.handler, a.queue, coalesce(a.root_run_id, a.run_id) as root_run_id,
    case when a.kind = 'flow' then a.handler
         when a.of_step is not null then coalesce((
             select p.handler from pgflow.run p
             where p.project_id = a.project_id and p.run_id = a.parent_run_id), (
             select p.handler from pgflow.run_finished p
             where p.project_id = a.project_id and p.run_id = a.parent_run_id)) end as flow,
    coalesce(l.version, case when a.of_step is not null then (
        select max(s.version) from pgflow.flow_step s
        where s.project_id = a.project_id and s.run_id = a.parent_run_id and s.step = a.of_step
          and s.child_run_id = a.run_id) end) as version
from line l
join every_run a using (project_id, run_id)
where l.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.timeline is
    'All that happened to each run, numbered by event_no. Select by run_id, order by event_no.';
comment on column pgflow.timeline.event_no is 'Rises within the run, from 1.';
comment on column pgflow.timeline.type is
    'The engine''s own types are in table event_type; the others were emitted.';
comment on column pgflow.timeline.by is
    'The actor: a role or login; pgflow for leases, steps and results.';
comment on column pgflow.timeline.worker_id is
    'The worker whose lease began or ended with this event.';
comment on column pgflow.timeline.lease_no is
    'The lease that began or ended with this event, or under which the step was journalled.';
comment on column pgflow.timeline.attempt is 'Failed executions before.';
comment on column pgflow.timeline.step is 'The key of the step, or under which a person was asked.';
comment on column pgflow.timeline.key is 'The idempotency key that emit was given.';
comment on column pgflow.timeline.handler is 'The handler of its run.';
comment on column pgflow.timeline.queue is 'The queue of its run.';
comment on column pgflow.timeline.root_run_id is 'Its run, or that at the top of its family.';
comment on column pgflow.timeline.flow is 'The flow of which it is a run, or a step''s.';
comment on column pgflow.timeline.version is
    'Of steps of flows, and of their runs: the round of the flow in which the step was made ready.';

create or replace view pgflow.inbox with (security_barrier) as
select t.task_id, t.project_id as project, t.run_id, r.handler, t.key as step, t.round, t.kind,
    t.title, t.payload, t.form as form_schema, t.assignee_role, t.assignee, t.claimed_by,
    t.requested_by, t.created_at, t.due_at, t.policy, t.escalate_to, t.on_reject, t.quorum,
    t.quorum_of,
    (select count(*) from pgflow.vote v
     where v.project_id = t.project_id and v.task_id = t.task_id) as votes,
    t.replaces, t.state, t.not_requester, f.run_id as flow_run_id, f.handler as flow,
    f.flow_version, r.deadlines_held_at, f.super_step
from pgflow.task t
join pgflow.run r using (project_id, run_id)
left join pgflow.run f on f.project_id = r.project_id
    and f.run_id = case when r.kind = 'flow' then r.run_id
                        when r.step is not null then r.parent_run_id end
where t.state = 'open' and t.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.inbox is
    'The open tasks. Decide with pgflow.approve(task_id, comment), pgflow.reject or, for what is '
    'no approval, pgflow.answer(task_id, data).';
comment on column pgflow.inbox.step is 'The key under which the handler asked.';
comment on column pgflow.inbox.round is 'How often the run was rolled back before.';
comment on column pgflow.inbox.payload is 'What the person is to look at.';
comment on column pgflow.inbox.form_schema is 'What an answer has to fit.';
comment on column pgflow.inbox.assignee is 'Whoever may decide it: a role, a login or a user.';
comment on column pgflow.inbox.assignee_role is
    'If a database role of that name exists, its members decide; else whom the application names.';
comment on column pgflow.inbox.claimed_by is 'Who works on it; others wait.';
comment on column pgflow.inbox.requested_by is 'The actor that enqueued the run, or whom it named.';
comment on column pgflow.inbox.due_at is 'After this it can no longer be decided.';
comment on column pgflow.inbox.policy is
    'What happens to the run then; table task_policy explains it.';
comment on column pgflow.inbox.on_reject is
    'What a rejection does to the run: cancel, fail, or resume, where the handler is told.';
comment on column pgflow.inbox.quorum is 'So many have to approve.';
comment on column pgflow.inbox.quorum_of is 'So many are asked; null: one rejection rejects.';
comment on column pgflow.inbox.votes is 'How many have voted.';
comment on column pgflow.inbox.replaces is
    'The task that stood here before something else was asked.';
comment on column pgflow.inbox.flow_run_id is
    'The run of the flow, if it was a step that asked, or the flow stands at a breakpoint.';
comment on column pgflow.inbox.super_step is 'How often ended steps of the flow made others ready.';
comment on column pgflow.inbox.deadlines_held_at is
    'Since when due_at stands still; it is moved on by that span when the run is resumed.';
comment on column pgflow.inbox.not_requester is 'Whether who requested it may not decide it.';

create or replace view pgflow.task_history with (security_barrier) as
select t.task_id, t.project_id as project, t.run_id, t.key as step, t.round, t.kind, t.title,
    t.payload, encode(t.payload_sha256, 'hex') as payload_sha256,
    encode(t.request_sha256, 'hex') as request_sha256, t.form as form_schema, t.assignee_role,
    t.assignee, t.requested_by, t.created_at, t.due_at, t.policy, t.quorum, t.quorum_of, t.state,
    t.decided_at, t.decided_by, t.decided_login, t.comment, t.data,
    (select jsonb_agg(jsonb_build_object('voter', v.voter, 'login', v.login, 'action', v.action,
         'comment', v.comment, 'at', v.at) order by v.at)
     from pgflow.vote v
     where v.project_id = t.project_id and v.task_id = t.task_id) as votes,
    t.replaces, t.voided_at, t.claimed_by, t.not_requester
from pgflow.task t
where t.state <> 'open' and t.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.task_history is
    'Tasks that were decided, expired, or closed with their run.';
comment on column pgflow.task_history.step is 'The key under which the handler asked.';
comment on column pgflow.task_history.payload is 'What the person was shown.';
comment on column pgflow.task_history.payload_sha256 is
    'Hex SHA-256 of the database''s text of the payload.';
comment on column pgflow.task_history.request_sha256 is
    'Hex SHA-256 of all that was asked, but for the due time.';
comment on column pgflow.task_history.state is
    'approved, rejected, answered, aborted, expired, or cancelled: closed undecided.';
comment on column pgflow.task_history.decided_by is
    'The actor: the user that an application named, else the role set with set role, else the '
    'login.';
comment on column pgflow.task_history.decided_login is
    'The login of the session in which it was decided.';
comment on column pgflow.task_history.data is 'The answer, or what approve was given as decision.';
comment on column pgflow.task_history.voided_at is
    'Since when the decision counts no more: the run was rolled back or asked for something else.';

create or replace view pgflow.journal_entries with (security_barrier) as
select e.project_id, e.run_id, e.round, e.key, e.kind, e.event_no, e.at, e.value, e.voided
from (
    select j.project_id, j.run_id, null::integer as round, j.key, j.kind, j.event_no, j.at,
        j.value, false as voided
    from pgflow.journal j
    union all
    select v.project_id, v.run_id, v.round, v.key, v.kind, v.event_no, v.at, v.value, true
    from pgflow.journal_voided v
) e
where e.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.journal_entries is
    'What each run has learned, and what of it was voided. Select by run_id, order by event_no.';
comment on column pgflow.journal_entries.round is
    'For voided entries, the round in which they counted.';
comment on column pgflow.journal_entries.key is
    'What rollback_to, fork and set_breakpoint name.';
comment on column pgflow.journal_entries.event_no is
    'The order; that of the timeline, negative where it was copied from another run.';

create or replace view pgflow.tool_calls with (security_barrier) as
select q.project_id, q.run_id, q.payload ->> 'key' as key, q.payload ->> 'tool' as tool,
    q.payload -> 'arguments' as arguments, q.payload ->> 'arguments_sha256' as arguments_sha256,
    q.at as requested_at, case when a.type <> 'tool.requested' then a.at end as answered_at,
    case a.type when 'tool.resolved' then 'resolved' when 'tool.failed' then 'failed'
                when 'wait.timed_out' then 'timeout'
                else case when a.type is null and r.waits @> jsonb_build_array(
                         jsonb_build_object('kind', 'tool', 'key', q.payload -> 'key'))
                     then 'open' else 'dropped' end end as status,
    a.payload ->> 'result_sha256' as result_sha256, a.payload ->> 'error_code' as error_code,
    a.payload ->> 'error' as error, (a.payload ->> 'latency_ms')::bigint as latency_ms
from pgflow.event q
left join pgflow.run r on r.project_id = q.project_id and r.run_id = q.run_id
left join lateral (
    select e.type, e.at, e.payload from pgflow.event e
    where e.project_id = q.project_id and e.run_id = q.run_id and e.event_no > q.event_no
      and e.type in ('tool.resolved', 'tool.failed', 'wait.timed_out', 'tool.requested')
      and e.payload ->> 'key' = q.payload ->> 'key'
    order by e.event_no
    limit 1
) a on true
where q.type = 'tool.requested' and q.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.tool_calls is
    'Each request of a tool with what came of it. resolve_tool(run_id, key, result) answers an '
    'open one.';
comment on column pgflow.tool_calls.status is
    'open, resolved, failed (it may be requested again), timeout, or dropped: the run did not wait '
    'for it any more.';

create or replace view pgflow.queue_stats with (security_barrier) as
select q.project_id, q.queue, q.paused_at, q.max_concurrent, q.lease_ttl, q.max_attempts, q.timeout,
    coalesce(s.scheduled, 0) as scheduled, coalesce(s.pending, 0) as pending,
    coalesce(s.running, 0) as running, coalesce(s.waiting, 0) as waiting,
    coalesce(s.paused, 0) as paused,
    q.max_concurrent - (select count(*) from pgflow.slot o
                        where o.project_id = q.project_id and o.queue = q.queue) as available_slots,
    s.oldest_pending_at,
    (select count(*) from pgflow.worker_beat b
     join pgflow.worker w using (project_id, worker_id)
     where b.project_id = q.project_id and q.queue = any (w.queues)
       and b.beat_at > pgflow.now() - q.lease_ttl) as workers,
    q.retention, q.key_retention
from pgflow.queue q
left join (
    select r.project_id, r.queue,
        count(*) filter (where r.state = 'scheduled') as scheduled,
        count(*) filter (where r.state = 'pending') as pending,
        count(*) filter (where r.state = 'running' and r.kind = 'handler') as running,
        count(*) filter (where r.state like 'waiting%') as waiting,
        count(*) filter (where r.state = 'paused') as paused,
        min(r.created_at) filter (where r.state = 'pending') as oldest_pending_at
    from pgflow.run r
    group by r.project_id, r.queue
) s on s.project_id = q.project_id and s.queue = q.queue
where q.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.queue_stats is
    'Each queue with its settings, its live runs by state and its live workers.';
comment on column pgflow.queue_stats.paused_at is 'Since when no run of it is claimed.';
comment on column pgflow.queue_stats.max_concurrent is
    'At most so many of its runs are leased at once, over all hosts. Null: no limit.';
comment on column pgflow.queue_stats.lease_ttl is
    'A lease expires when its worker has not beaten for so long.';
comment on column pgflow.queue_stats.waiting is 'Runs that wait for somebody or something.';
comment on column pgflow.queue_stats.paused is 'Runs that are paused themselves.';
comment on column pgflow.queue_stats.available_slots is
    'max_concurrent less the leases that count; null without a limit.';
comment on column pgflow.queue_stats.oldest_pending_at is
    'When the oldest of its pending runs was created.';
comment on column pgflow.queue_stats.workers is 'Live workers that take runs of it.';
comment on column pgflow.queue_stats.retention is
    'How long its finished runs are kept. Null: as the installation says.';
comment on column pgflow.queue_stats.key_retention is
    'How much longer than their runs idempotency keys hold.';

create or replace view pgflow.worker_status with (security_barrier) as
select w.project_id, w.worker_id,
    case when w.stopped_at is not null then 'stopped'
         when b.beat_at > pgflow.now() - (
             select min(q.lease_ttl) from pgflow.queue q
             where q.project_id = w.project_id and q.queue = any (w.queues)) then 'alive'
         else 'dead' end as status,
    w.queues, w.concurrency,
    (select count(distinct r.run_id)
     from pgflow.lease l
     join pgflow.run r on r.project_id = l.project_id and r.run_id = any (l.run_ids)
         and r.worker_id = l.worker_id
     where l.project_id = w.project_id and l.worker_id = w.worker_id) as running,
    coalesce(b.beat_at, w.last_beat_at) as beat_at, w.started_at, w.stopped_at, w.host, w.pid,
    w.version
from pgflow.worker w
left join pgflow.worker_beat b using (project_id, worker_id)
where w.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.worker_status is
    'Workers: alive, stopped, or dead (no beat for the shortest lease_ttl of its queues).';
comment on column pgflow.worker_status.status is 'alive, stopped (it said goodbye), or dead.';
comment on column pgflow.worker_status.concurrency is 'How many runs it says it executes at once.';
comment on column pgflow.worker_status.running is 'Runs that it holds.';
comment on column pgflow.worker_status.beat_at is
    'When it was last heard of; null once it has stopped.';
comment on column pgflow.worker_status.version is 'The version of the worker''s app.';
