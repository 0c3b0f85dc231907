-- Live runs and finished runs are two tables: the live one stays small, whatever the history,
-- and ending a run is a delete here and an insert there, which writes no index of the live table.
set local role pgflow_owner;

create sequence pgflow.run_seq;
comment on sequence pgflow.run_seq is 'The order in which runs became ready.';

create table pgflow.run (
    project_id text collate "C" not null,
    run_id uuid not null,
    parent_run_id uuid,
    root_run_id uuid,
    retry_of uuid,
    undo_of uuid,
    forked_from uuid,
    kind text collate "C" not null default 'handler',
    handler text collate "C" not null,
    queue text collate "C" not null,
    state text collate "C" not null,
    priority smallint not null default 0,
    lane smallint not null default 1,
    depth smallint not null default 0,
    wait_any boolean not null default false,
    slotted boolean not null default false,
    has_tasks boolean not null default false,
    has_children boolean not null default false,
    watched boolean not null default false,
    seq bigint,
    attempt integer not null default 0,
    max_attempts integer not null,
    lease_no integer default 0,
    lease_event_no integer,
    last_event_no integer not null default 1,
    news integer not null default 0,
    round integer not null default 0,
    step_count integer not null default 0,
    worker_id text collate "C",
    created_at timestamptz not null,
    run_at timestamptz,
    deadline timestamptz,
    first_started_at timestamptz,
    leased_at timestamptz,
    wake_at timestamptz,
    deadlines_held_at timestamptz,
    timeout interval,
    created_by text not null,
    correlation_id text collate "C",
    idempotency_key text collate "C",
    pause_reason text,
    parent_key text collate "C",
    step text collate "C",
    flow_version integer,
    super_step integer,
    repairs_left smallint,
    cost_usd numeric,
    tags text[],
    waits_for text[] collate "C",
    breakpoints text[] collate "C",
    waits jsonb,
    feedback jsonb,
    input jsonb not null,
    last_error jsonb,
    constraint run_pkey primary key (project_id, run_id),
    -- Few and short: each statement that writes here parses them anew, 2.5 µs a kilobyte of what
    -- pg_constraint has. That kind and state are known ones the guards of moves see to; the bounds of
    -- what callers say, the verbs.
    constraint only_what_is_ready_has_a_place check (
        (seq is not null) = (state = 'pending' or state = 'running' and lease_no is not null)),
    constraint scheduled_has_a_time check (
        state <> 'scheduled' or run_at is not null and waits_for is null),
    constraint running_has_a_lease check (
        num_nulls(worker_id, leased_at, lease_event_no)
            = case when state = 'running' and lease_no is not null then 0 else 3 end),
    constraint waiting_waits_for_something check (
        state not like 'waiting%' or waits_for is not null),
    constraint paused_has_a_reason check ((state = 'paused') = (pause_reason is not null)),
    constraint only_a_paused_run_has_held_deadlines check (
        deadlines_held_at is null or state = 'paused'),
    constraint a_child_has_a_root check ((parent_run_id is null) = (root_run_id is null)),
    constraint only_a_child_has_a_parent_key check (
        parent_key is null or parent_run_id is not null),
    constraint only_who_waits_wakes check (wake_at is null or waits_for is not null),
    constraint input_is_at_most_8_mb check (pg_column_size(input) <= 8388608)
) with (fillfactor = 50);
comment on table pgflow.run is 'Live runs. A finished run is in run_finished; view runs is both.';
comment on column pgflow.run.run_id is 'UUID version 7: begins with the time of its creation.';
comment on column pgflow.run.root_run_id is 'The root of its tree of children; null for a root.';
comment on column pgflow.run.lane is
    '0: woken, released, reaped, retried; claimed before 1: new work.';
comment on column pgflow.run.seq is
    'Its place among the ready runs, drawn each time it becomes pending and kept while it runs.';
comment on column pgflow.run.attempt is
    'Executions that failed or were lost, held against max_attempts.';
comment on column pgflow.run.lease_no is
    'Grows at every lease. The fencing token: each write of a worker names it. A flow has none, so '
    'no worker''s write can be meant for it.';
comment on column pgflow.run.lease_event_no is
    'The number of the run.started event of the present lease, which view timeline derives.';
comment on column pgflow.run.last_event_no is
    'The number of the last event; 1 is run.created, which view timeline derives.';
comment on column pgflow.run.news is
    'Grows with every journal entry that others wrote. park() only parks a worker that has seen '
    'them all.';
comment on column pgflow.run.slotted is 'Its lease holds a row of table slot.';
comment on column pgflow.run.has_tasks is 'Tasks were opened for it; its end closes them.';
comment on column pgflow.run.has_children is 'Runs were made for it; its end cancels them.';
comment on column pgflow.run.watched is
    'Somebody asked to be told: each line of its timeline is hinted at.';
comment on column pgflow.run.waits_for is
    'Journal keys, all of them or, with wait_any, one of them.';
comment on column pgflow.run.waits is
    'What it waits for beside tasks: an array of kind, key, digest and, as the kind has them, '
    'tool, name, run_id, asked_at, due_at.';
comment on column pgflow.run.wake_at is 'The first due_at of its waits.';
comment on column pgflow.run.deadlines_held_at is
    'Since when its deadlines stand still: its own, those of its waits and tasks. They are moved on '
    'by that span when it is resumed.';
comment on column pgflow.run.round is 'How often entries of its journal were voided.';
comment on column pgflow.run.feedback is
    'Why it was rolled back last: comment, by, at, key, task_id, round.';
comment on column pgflow.run.breakpoints is 'Each "before KEY" or "after KEY" of a step.';
comment on column pgflow.run.parent_key is 'The key in its parent''s journal that gets its result.';
comment on column pgflow.run.step is 'The step of its parent, a flow, that it executes.';
comment on column pgflow.run.flow_version is 'Of a flow, whose name is in handler: its version.';
comment on column pgflow.run.super_step is
    'Of a flow: how often ended steps have made others ready.';
comment on column pgflow.run.repairs_left is
    'How often it may be executed again because the artifact of its step is missing or invalid. '
    'Null: its step expects none.';
comment on column pgflow.run.undo_of is 'The finished run whose steps it undoes.';
comment on column pgflow.run.forked_from is 'The run whose journal it began with.';
comment on column pgflow.run.timeout is 'Bound of one execution.';
comment on column pgflow.run.deadline is 'Bound of the whole run, waits included.';

-- No index names a column that a lease changes (a predicate counts), and a page is filled to half:
-- so a lease writes the row alone, in the same page. What is running therefore stays in
-- run_is_ready; the runs of a worker are in table lease.
create index run_is_ready on pgflow.run (project_id, queue, priority, lane, seq)
    where seq is not null;
create index run_is_scheduled on pgflow.run (project_id, run_at)
    where run_at is not null and seq is null and waits_for is null and pause_reason is null;
create index run_has_a_deadline on pgflow.run (project_id, deadline) where deadline is not null;
create index run_wakes on pgflow.run (project_id, wake_at) where wake_at is not null;
-- "is true" is there for the planner: else it may take this for the look-up of children by their
-- parent, which implies the predicate, and read all families.
create index run_has_a_family on pgflow.run (project_id, run_id)
    where (parent_run_id is not null or has_children) is true;
-- With whether it stands still, so that one child that can run is found among many that wait.
create index run_is_a_child on pgflow.run
    (project_id, parent_run_id, num_nonnulls(waits_for, pause_reason))
    where parent_run_id is not null;
create index run_expects_an_artifact on pgflow.run (project_id, run_id)
    where repairs_left is not null;
create index run_undoes on pgflow.run (project_id, undo_of) where undo_of is not null;

create table pgflow.run_finished (
    project_id text collate "C" not null,
    run_id uuid not null,
    parent_run_id uuid,
    root_run_id uuid,
    retry_of uuid,
    undo_of uuid,
    forked_from uuid,
    parent_key text collate "C",
    step text collate "C",
    flow_version integer,
    super_step integer,
    kind text collate "C" not null,
    handler text collate "C" not null,
    queue text collate "C" not null,
    state text collate "C" not null,
    ended_from text collate "C" not null,
    priority smallint not null,
    depth smallint not null,
    attempt integer not null,
    max_attempts integer not null,
    lease_no integer,
    lease_event_no integer,
    last_event_no integer not null,
    round integer not null default 0,
    step_count integer not null,
    worker_id text collate "C",
    created_at timestamptz not null,
    run_at timestamptz,
    deadline timestamptz,
    first_started_at timestamptz,
    leased_at timestamptz,
    finished_at timestamptz not null,
    timeout interval,
    created_by text not null,
    ended_by text,
    correlation_id text collate "C",
    idempotency_key text collate "C",
    error_code text collate "C",
    error_detail text,
    cost_usd numeric,
    tags text[],
    input jsonb not null,
    output jsonb,
    last_error jsonb,
    constraint run_finished_pkey primary key (project_id, run_id),
    constraint ended_by_a_legal_move check (
        kind in ('handler', 'flow', 'step_wait')
        and ended_from in ('scheduled', 'pending', 'running', 'waiting_tool', 'waiting_approval',
                           'waiting_event', 'paused')
        and (kind = 'handler' or ended_from not in ('scheduled', 'pending'))
        and (kind <> 'step_wait'
            or ended_from in ('waiting_approval', 'waiting_event', 'paused'))
        and case state
            when 'cancelled' then true
            when 'timeout' then true
            when 'completed' then ended_from = 'running'
                or kind <> 'handler' and ended_from like 'waiting%'
            when 'failed' then ended_from not in ('scheduled', 'paused')
            else false
        end),
    constraint output_iff_completed check ((state = 'completed') = (output is not null)),
    constraint failed_has_a_code check (state <> 'failed' or error_code is not null),
    constraint completed_has_no_error check (state <> 'completed' or error_code is null),
    constraint a_lease_is_whole check (
        (lease_event_no is null) = (worker_id is null)
        and (lease_event_no is null) = (leased_at is null)),
    constraint output_is_at_most_8_mb check (pg_column_size(output) <= 8388608)
) partition by range (run_id);
comment on table pgflow.run_finished is
    'Finished runs. Rows never change; retention takes them away. Partitioned by run_id, as table '
    'period says.';
comment on column pgflow.run_finished.ended_from is 'The last live state.';
comment on column pgflow.run_finished.worker_id is
    'The worker that held it when it ended, if one did.';
comment on column pgflow.run_finished.last_event_no is
    'The number of the event of its end, which view timeline derives; of a flow also the one '
    'before, report.written.';
comment on column pgflow.run_finished.ended_by is 'Who cancelled it, where a person did.';

-- The lines of all runs since a time. Rows come in the order of time, so these cost next to nothing.
create index run_finished_lines_by_time on pgflow.run_finished
    using brin (project_id, created_at, leased_at, finished_at) with (autosummarize);
-- The last end of a queue in a period, and what retention takes away, oldest first. Project and queue
-- are one expression: an index that has the project as a column, wherever, a plan that was made while
-- the table was empty may take for the look-up of a run, and read all there is.
create index run_finished_by_time
    on pgflow.run_finished ((project_id || '/' || queue), finished_at);

create table pgflow.run_key (
    project_id text collate "C" not null,
    key text collate "C" not null,
    run_id uuid not null,
    handler text collate "C" not null,
    input_sha256 bytea not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    constraint run_key_pkey primary key (project_id, key),
    constraint key_is_at_most_500_characters check (char_length(key) between 1 and 500)
);
comment on table pgflow.run_key is
    'Idempotency keys. They hold after the run is finished. Keys that begin with pgflow: are the '
    'engine''s.';
comment on column pgflow.run_key.expires_at is
    'Set when its run is taken away by retention: until then the key holds. Null: its run is kept.';
create index run_key_of_run on pgflow.run_key (project_id, run_id) where expires_at is null;
create index run_key_expires on pgflow.run_key (project_id, expires_at)
    where expires_at is not null;
