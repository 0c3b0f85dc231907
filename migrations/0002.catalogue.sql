-- The words of the engine as rows: states, moves, codes, event types. The docs are made from these
-- tables, the guards in sql/ are compared with them by a test.
set local role pgflow_owner;

create table pgflow.state (
    state text collate "C" not null,
    is_live boolean not null,
    description text not null,
    constraint state_pkey primary key (state)
);
comment on table pgflow.state is
    'The states of a run. Live ones are in table run, the others in run_finished.';

insert into pgflow.state (state, is_live, description) values
    ('scheduled', true, 'Becomes pending at run_at: a later start, a backoff, a sleep.'),
    ('pending', true, 'Ready: the next free worker of its queue takes it.'),
    ('running', true, 'Leased to a worker that executes its handler.'),
    ('waiting_tool', true, 'Waits for the result of a tool; no worker is held.'),
    ('waiting_approval', true, 'Waits for a person; no worker is held.'),
    ('waiting_event', true, 'Waits for an event; no worker is held.'),
    ('paused', true, 'Stopped by a person or a breakpoint until somebody resumes it.'),
    ('completed', false, 'The handler returned; its value is the output.'),
    ('failed', false, 'Ended by an error; error_code says which.'),
    ('cancelled', false, 'Ended by a person, a rejection or its parent.'),
    ('timeout', false, 'Ended by its own deadline or that of an approval.');

create table pgflow.move (
    kind text collate "C" not null,
    from_state text collate "C",
    to_state text collate "C" not null,
    constraint move_is_known unique nulls not distinct (kind, from_state, to_state),
    constraint move_kind_is_known check (kind in ('handler', 'flow', 'step_wait')),
    constraint move_from_state_fkey foreign key (from_state) references pgflow.state (state),
    constraint move_to_state_fkey foreign key (to_state) references pgflow.state (state)
);
comment on table pgflow.move is
    'The legal moves of the state machine. Nothing else is possible, whoever tries it.';
comment on column pgflow.move.from_state is 'Null: the state may be a run''s first.';

insert into pgflow.move (kind, from_state, to_state)
select 'handler', f.from_state, unnest(f.to_states)
from (values
    (null, array['scheduled', 'pending']),
    ('scheduled', array['pending', 'paused', 'cancelled', 'timeout']),
    ('pending', array['running', 'paused', 'cancelled', 'timeout', 'failed']),
    ('running', array['waiting_tool', 'waiting_approval', 'waiting_event', 'pending', 'scheduled',
                      'paused', 'completed', 'failed', 'cancelled', 'timeout']),
    ('waiting_tool', array['pending', 'failed', 'paused', 'cancelled', 'timeout']),
    ('waiting_approval', array['pending', 'paused', 'cancelled', 'failed', 'timeout']),
    ('waiting_event', array['pending', 'paused', 'cancelled', 'timeout', 'failed']),
    ('paused', array['scheduled', 'pending', 'waiting_tool', 'waiting_approval', 'waiting_event',
                     'cancelled', 'timeout'])
) as f (from_state, to_states);

-- A flow is never leased: it waits when all of its steps do.
insert into pgflow.move (kind, from_state, to_state)
select 'flow', f.from_state, unnest(f.to_states)
from (values
    (null, array['running']),
    ('running', array['waiting_tool', 'waiting_approval', 'waiting_event', 'paused', 'completed',
                      'failed', 'cancelled', 'timeout']),
    ('waiting_tool', array['running', 'waiting_approval', 'waiting_event', 'paused', 'completed',
                           'failed', 'cancelled', 'timeout']),
    ('waiting_approval', array['running', 'waiting_tool', 'waiting_event', 'paused', 'completed',
                               'failed', 'cancelled', 'timeout']),
    ('waiting_event', array['running', 'waiting_tool', 'waiting_approval', 'paused', 'completed',
                            'failed', 'cancelled', 'timeout']),
    ('paused', array['running', 'waiting_tool', 'waiting_approval', 'waiting_event', 'cancelled',
                     'timeout'])
) as f (from_state, to_states);

-- A step that waits for a person, an event or a time is no worker's either.
insert into pgflow.move (kind, from_state, to_state)
select 'step_wait', f.from_state, unnest(f.to_states)
from (values
    (null, array['waiting_approval', 'waiting_event']),
    ('waiting_approval', array['paused', 'completed', 'failed', 'cancelled', 'timeout']),
    ('waiting_event', array['paused', 'completed', 'failed', 'cancelled', 'timeout']),
    ('paused', array['waiting_approval', 'waiting_event', 'cancelled', 'timeout'])
) as f (from_state, to_states);

create table pgflow.error_code (
    error_code text collate "C" not null,
    class text not null,
    description text not null,
    constraint error_code_pkey primary key (error_code),
    constraint error_code_class_is_known check (class in ('transient', 'human_required', 'fatal'))
);
comment on table pgflow.error_code is 'Why a run ended without completing: run.error_code.';
comment on column pgflow.error_code.class is
    'transient: a retry may help; human_required: a person decided or must; fatal: change '
    'something first.';

insert into pgflow.error_code (error_code, class, description) values
    ('E-RUN-001', 'transient', 'The handler raised.'),
    ('E-RUN-002', 'transient', 'The lease expired and the attempts are used up.'),
    ('E-RUN-003', 'transient', 'The run exceeded its timeout or its deadline.'),
    ('E-RUN-004', 'fatal', 'No handler of that name and no default handler.'),
    ('E-RUN-005', 'fatal',
        'The input does not fit the handler''s model, or the input_schema of a flow within a flow.'),
    ('E-RUN-006', 'human_required', 'An approval was rejected.'),
    ('E-RUN-007', 'human_required', 'An approval expired undecided.'),
    ('E-RUN-010', 'fatal', 'The flow cannot go on: no step can run and none waits.'),
    ('E-RUN-011', 'human_required', 'Cancelled because its parent ended.'),
    ('E-RUN-012', 'human_required',
        'The handler''s code, or what its role is bound to, does not fit the run, which is paused.'),
    ('E-RUN-016', 'transient', 'A tool failed and the attempts are used up.'),
    ('E-RUN-017', 'fatal', 'The database could not store the result: too large, or not storable.');

create table pgflow.refusal (
    sqlstate text collate "C" not null,
    name text not null,
    description text not null,
    constraint refusal_pkey primary key (sqlstate),
    constraint refusal_sqlstate_is_ours check (sqlstate ~ '^PF[1-5][0-9]{2}$')
);
comment on table pgflow.refusal is
    'The SQLSTATEs of the engine: PF1xx bad request, PF2xx move refused, PF3xx lease lost, PF4xx '
    'conflict, PF5xx not allowed. The Python package has one class for each.';

insert into pgflow.refusal (sqlstate, name, description) values
    ('PF101', 'BadRequest',
        'An argument is missing or out of its range; the column field names it.'),
    ('PF102', 'UnknownRun', 'There is no run of that id in this project.'),
    ('PF103', 'UnknownTask', 'There is no task of that id in this project.'),
    ('PF104', 'UnknownQueue', 'There is no queue of that name in this project.'),
    ('PF105', 'UnknownEntry', 'There is no entry of that key in the run''s journal.'),
    ('PF106', 'UnknownFlow', 'There is no flow of that name, or no such version of it.'),
    ('PF107', 'UnknownSubscription', 'There is no subscription of that name in this project.'),
    ('PF201', 'IllegalMove', 'The state machine has no such move.'),
    ('PF202', 'AlreadyFinished', 'The run is finished; finished runs do not change.'),
    ('PF203', 'RowIsProtected',
        'Live runs leave their table only by ending; finished runs never change.'),
    ('PF204', 'NotWaiting', 'The run does not wait for this, or does no longer.'),
    ('PF301', 'LeaseLost', 'The run is no longer leased under that lease number.'),
    ('PF302', 'UnknownWorker', 'No worker of that id is registered in this project.'),
    ('PF303', 'BatchLost',
        'The batch of events is not held any more; somebody else has, or gets, its events.'),
    ('PF401', 'IdempotencyConflict', 'The idempotency key or run id was used for something else.'),
    ('PF402', 'DecisionConflict',
        'The task or tool was answered otherwise before, or can no longer be answered.'),
    ('PF501', 'NotAllowed', 'The actor may not do this.'),
    ('PF502', 'UnknownProject', 'There is no such project, or the actor is not a member.'),
    ('PF503', 'WrongIsolation', 'The verb needs the isolation level read committed.');

create table pgflow.event_type (
    type text collate "C" not null,
    description text not null,
    constraint event_type_pkey primary key (type)
);
comment on table pgflow.event_type is
    'The engine''s own event types. emit() refuses them, so that a timeline cannot be forged.';

insert into pgflow.event_type (type, description) values
    ('run.created', 'The run was enqueued.'),
    ('run.started', 'A worker leased the run.'),
    ('run.waiting', 'The run was parked; the payload names what it waits for.'),
    ('run.woken', 'What the run waited for has come.'),
    ('run.paused', 'Somebody paused the run.'),
    ('run.resumed', 'Somebody resumed the run.'),
    ('run.released', 'The worker gave the run back without using an attempt.'),
    ('run.requeued', 'The lease expired; the run is pending again.'),
    ('run.retried', 'An execution failed and another follows.'),
    ('run.completed', 'The run ended with an output.'),
    ('run.failed', 'The run ended with an error.'),
    ('run.cancelled', 'The run was cancelled.'),
    ('run.timed_out', 'The run ended by a deadline.'),
    ('step.started', 'A step of a flow became ready: its run was made.'),
    ('step.completed', 'The result of a step was journalled; a step of a flow completed.'),
    ('step.failed', 'A step of a flow failed.'),
    ('step.skipped', 'A step of a flow was left out; the payload says why.'),
    ('step.rejected', 'A person rejected a step of a flow.'),
    ('step.expired', 'Nobody decided a step of a flow in time.'),
    ('step.cancelled', 'The run of a step of a flow was cancelled.'),
    ('step.voided', 'A step of a flow counts no more: it is done again, or one before it is.'),
    ('step.rolled_back', 'Entries of the journal were voided; the handler goes on from there.'),
    ('step.updated', 'A person replaced the value of a journal entry.'),
    ('task.requested', 'A person was asked.'),
    ('task.claimed', 'A person works on the task.'),
    ('task.released', 'The person who worked on the task gave it back.'),
    ('task.delegated', 'The task was handed to somebody else.'),
    ('task.commented', 'Somebody said something about the task.'),
    ('task.voted', 'One of the people asked voted; more votes are needed.'),
    ('task.resolved', 'A person decided; the payload has the action.'),
    ('task.escalated', 'The due time passed and the task went to another role.'),
    ('task.expired', 'Nobody decided before the due time.'),
    ('task.voided', 'What was asked has changed, or was rolled back: the task counts no more.'),
    ('tool.requested', 'A tool was called; the run waits for its result.'),
    ('tool.resolved', 'The tool''s result is in.'),
    ('tool.failed', 'The tool failed.'),
    ('child.started', 'A child run was made.'),
    ('child.ended', 'A child run ended; its result is in the journal.'),
    ('signal.received', 'A signal was sent to the run.'),
    ('signal.taken', 'A call of the handler got the signal that it waits for.'),
    ('wait.timed_out', 'A sleep is over, or what the run waited for did not come in time.'),
    ('breakpoint.hit', 'The run stopped at a breakpoint.'),
    ('breakpoint.set', 'A breakpoint was set.'),
    ('breakpoint.cleared', 'A breakpoint was taken away.');
