-- What a run has lived through (event), what it has learned (journal), what its calls of models
-- cost (usage), and whom it has asked (task).
set local role pgflow_owner;

create table pgflow.event (
    project_id text collate "C" not null,
    run_id uuid not null,
    event_no integer not null,
    type text collate "C" not null,
    key text collate "C",
    step text collate "C",
    attempt integer not null,
    at timestamptz not null,
    by text not null,
    lease_no integer,
    lease_event_no integer,
    worker_id text collate "C",
    leased_at timestamptz,
    payload jsonb,
    constraint event_pkey primary key (project_id, run_id, event_no),
    constraint payload_is_at_most_1_mb check (pg_column_size(payload) <= 1048576),
    constraint an_ended_lease_is_whole check (
        num_nulls(lease_event_no, worker_id, leased_at, lease_no) in (0, 4))
) partition by range (run_id);
comment on table pgflow.event is
    'What a run''s own row can''t say. View timeline adds the creation, the leases and the end.';
comment on column pgflow.event.key is 'Idempotency key, unique within the run.';
comment on column pgflow.event.by is 'The actor; a worker''s events name its database role.';
comment on column pgflow.event.lease_event_no is
    'Set where the event ended a lease: the number of that lease''s run.started event.';

create unique index event_key_is_unique_in_its_run on pgflow.event (project_id, run_id, key)
    where key is not null;

create table pgflow.journal (
    project_id text collate "C" not null,
    run_id uuid not null,
    key text collate "C" not null,
    kind text collate "C" not null,
    undo boolean not null default false,
    news integer,
    lease_no integer,
    attempt integer,
    event_no integer not null,
    at timestamptz not null,
    digest bytea,
    value jsonb,
    constraint journal_pkey primary key (project_id, run_id, key),
    constraint key_is_at_most_500_characters check (char_length(key) between 1 and 500),
    constraint value_is_at_most_8_mb check (pg_column_size(value) <= 8388608),
    constraint a_step_has_a_lease_and_news_have_none check (
        num_nonnulls(lease_no, attempt) = case kind when 'step' then 2 else 0 end
        and (kind = 'step') = (news is null)),
    constraint only_steps_are_undone check (not undo or kind = 'step')
) partition by range (run_id);
comment on table pgflow.journal is
    'What a run has learned: one entry per key. A resumed handler reads it instead of working '
    'again.';
comment on column pgflow.journal.undo is 'The step has something that undoes it.';
comment on column pgflow.journal.news is
    'run.news after this entry, where others than the run''s worker wrote it.';
comment on column pgflow.journal.event_no is
    'The number of the event that it came with, the order of the entries; view timeline derives '
    'step.completed.';
comment on column pgflow.journal.digest is
    'SHA-256 of the call''s inputs; a call with others is not the same call.';

create table pgflow.journal_voided (
    project_id text collate "C" not null,
    run_id uuid not null,
    round integer not null,
    key text collate "C" not null,
    kind text collate "C" not null,
    undo boolean not null,
    replaced boolean not null default false,
    lease_no integer,
    attempt integer,
    event_no integer not null,
    at timestamptz not null,
    digest bytea,
    value jsonb,
    constraint journal_voided_pkey primary key (project_id, run_id, round, key)
) partition by range (run_id);
comment on table pgflow.journal_voided is
    'Entries that count no more: rolled back, or asked again with something else. round is the '
    'run''s round in which they counted.';
comment on column pgflow.journal_voided.undo is 'The step has something that undoes it.';
comment on column pgflow.journal_voided.replaced is
    'Somebody gave the entry another value; the entry itself counts.';

create table pgflow.signal (
    project_id text collate "C" not null,
    run_id uuid not null,
    signal_no integer not null,
    name text collate "C" not null,
    key text collate "C",
    at timestamptz not null,
    by text not null,
    taken_as text collate "C",
    payload jsonb,
    constraint signal_pkey primary key (project_id, run_id, signal_no),
    constraint name_is_at_most_200_characters check (char_length(name) between 1 and 200),
    constraint key_is_at_most_500_characters check (char_length(key) between 1 and 500),
    constraint payload_is_at_most_1_mb check (pg_column_size(payload) <= 1048576)
) partition by range (run_id);
comment on table pgflow.signal is
    'The mailbox of each run: signals in the order in which they came, each taken once.';
comment on column pgflow.signal.signal_no is 'The number of its signal.received event.';
comment on column pgflow.signal.key is 'Idempotency key, unique within the run.';
comment on column pgflow.signal.taken_as is
    'The journal key of the call that it answered; null while nobody has asked for it.';
create unique index signal_key_is_unique_in_its_run on pgflow.signal (project_id, run_id, key)
    where key is not null;

create table pgflow.usage (
    project_id text collate "C" not null,
    run_id uuid not null,
    call_key text collate "C" not null,
    step text collate "C",
    attempt integer not null,
    lease_no integer not null,
    round integer not null,
    at timestamptz not null,
    actor text,
    model text collate "C",
    role text,
    thread_id text collate "C",
    turn_index integer,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    reasoning_tokens bigint,
    cost_usd_input numeric,
    cost_usd_output numeric,
    cost_usd_total numeric,
    latency_ms bigint,
    status text collate "C" not null,
    error_code text,
    request_id text,
    constraint usage_pkey primary key (project_id, run_id, call_key),
    constraint call_key_is_at_most_600_characters check (char_length(call_key) between 1 and 600),
    constraint status_is_known check (status in ('ok', 'failed')),
    constraint counts_are_not_negative check (
        least(turn_index, input_tokens, output_tokens, cached_tokens, reasoning_tokens,
            latency_ms) >= 0),
    -- greatest() takes NaN and infinity for more than any number
    constraint costs_are_from_0_to_2_billion check (
        least(cost_usd_input, cost_usd_output, cost_usd_total) >= 0
        and greatest(cost_usd_input, cost_usd_output, cost_usd_total) <= 2000000000)
) partition by range (run_id);
comment on table pgflow.usage is
    'Calls of models: what each took and cost. run.cost_usd has the sum. View model_calls shows '
    'them.';
comment on column pgflow.usage.call_key is
    'Unique in the life of a run: a call that is told again counts once.';
comment on column pgflow.usage.step is 'The key of the step in which it was called.';
comment on column pgflow.usage.attempt is 'run.attempt when it was recorded.';
comment on column pgflow.usage.round is 'run.round when it was recorded.';
comment on column pgflow.usage.actor is 'Which agent called, as the handler names it.';
comment on column pgflow.usage.cost_usd_total is 'Null: unknown.';

create index event_by_time on pgflow.event using brin (project_id, at, leased_at) with (autosummarize);
create index journal_by_time on pgflow.journal using brin (project_id, at) with (autosummarize);
create index usage_by_time on pgflow.usage using brin (project_id, at) with (autosummarize);

create table pgflow.task_policy (
    policy text collate "C" not null,
    description text not null,
    constraint task_policy_pkey primary key (policy)
);
comment on table pgflow.task_policy is
    'What happens to the run when a task''s due time passes undecided.';
insert into pgflow.task_policy (policy, description) values
    ('cancel', 'The run ends cancelled with E-RUN-007.'),
    ('timeout', 'The run ends in state timeout with E-RUN-007.'),
    ('approve', 'The run goes on as if approved; the task is expired, nobody is named.'),
    ('reject', 'The run goes on, or ends with E-RUN-007, as on_reject says.'),
    ('escalate', 'The task goes to the role escalate_to, for another escalate_in.');

create table pgflow.task (
    project_id text collate "C" not null,
    task_id uuid not null,
    run_id uuid not null,
    key text collate "C" not null,
    kind text collate "C" not null,
    state text collate "C" not null default 'open',
    not_requester boolean not null default false,
    quorum smallint not null default 1,
    quorum_of smallint,
    round integer not null,
    title text not null,
    payload jsonb,
    payload_sha256 bytea not null,
    form jsonb,
    request_sha256 bytea not null,
    digest bytea,
    replaces uuid,
    assignee text,
    assignee_role text,
    claimed_by text,
    requested_by text not null,
    created_at timestamptz not null,
    due_at timestamptz,
    policy text collate "C" not null default 'cancel',
    escalate_to text,
    escalate_in interval,
    on_reject text collate "C" not null default 'cancel',
    decided_at timestamptz,
    decided_by text,
    decided_login text,
    voided_at timestamptz,
    comment text,
    data jsonb,
    constraint task_pkey primary key (project_id, task_id),
    constraint kind_is_known check (kind in ('approval', 'form', 'input', 'interrupt',
        'breakpoint')),
    constraint state_is_known check (state in ('open', 'approved', 'rejected', 'answered', 'aborted',
        'expired', 'cancelled')),
    constraint policy_fkey foreign key (policy) references pgflow.task_policy (policy),
    constraint escalation_has_a_role_and_a_time check (
        policy <> 'escalate' or escalate_to is not null and escalate_in is not null),
    constraint on_reject_is_known check (on_reject in ('cancel', 'fail', 'resume')),
    constraint quorum_is_1_to_100 check (
        quorum between 1 and 100 and quorum_of between quorum and 100),
    constraint decided_iff_a_person_decided check (
        (state in ('approved', 'rejected', 'answered', 'aborted')) = (decided_at is not null)
        and (decided_at is null) = (decided_by is null)
        and (decided_at is null) = (decided_login is null)),
    constraint an_open_task_counts check (state <> 'open' or voided_at is null),
    constraint title_is_at_most_500_characters check (char_length(title) between 1 and 500),
    constraint comment_is_at_most_10000_characters check (char_length(comment) <= 10000),
    constraint payload_is_at_most_1_mb check (pg_column_size(payload) <= 1048576)
);
comment on table pgflow.task is
    'Work for a person. View inbox has the open tasks, task_history the others.';
comment on column pgflow.task.key is 'The journal key that the answer is written under.';
comment on column pgflow.task.payload is 'What the person is shown.';
comment on column pgflow.task.payload_sha256 is
    'SHA-256 of what was shown: a decision binds to it.';
comment on column pgflow.task.form is 'The schema that an answer has to fit; docs/forms.md.';
comment on column pgflow.task.request_sha256 is
    'SHA-256 of all that was asked (kind, title, payload, form, role, assignee, quorum), but for '
    'the due time.';
comment on column pgflow.task.digest is 'What the worker calls this request; it gets it back.';
comment on column pgflow.task.round is 'run.round when it was asked.';
comment on column pgflow.task.replaces is 'The voided task of the same key that this stands for.';
comment on column pgflow.task.assignee is
    'A database role or login, or somebody the application knows; only they decide.';
comment on column pgflow.task.assignee_role is
    'If a database role of that name exists, only its members decide; else those whom the '
    'application names with as_user.';
comment on column pgflow.task.claimed_by is 'Who works on it; nobody else decides meanwhile.';
comment on column pgflow.task.not_requester is 'Whoever requested it may not decide.';
comment on column pgflow.task.quorum is 'So many have to approve.';
comment on column pgflow.task.quorum_of is
    'So many are asked: rejected once the quorum can no longer be reached. Null: by one rejection.';
comment on column pgflow.task.on_reject is
    'cancel or fail: a rejection ends the run; resume: the handler is told and goes on.';
comment on column pgflow.task.decided_by is
    'The actor: as_user where given, else the role set with set role, else the login.';
comment on column pgflow.task.decided_login is 'The login of the session in which it was decided.';
comment on column pgflow.task.voided_at is
    'Since when it counts no more: something else was asked, or it was rolled back.';

create unique index a_run_asks_once_per_key on pgflow.task (project_id, run_id, key)
    where voided_at is null;
create index task_of_run on pgflow.task (project_id, run_id);
create index task_is_open on pgflow.task (project_id, run_id) where state = 'open';
create index task_is_due on pgflow.task (project_id, due_at) where state = 'open'
    and due_at is not null;

create table pgflow.vote (
    project_id text collate "C" not null,
    task_id uuid not null,
    voter text collate "C" not null,
    action text collate "C" not null,
    login text not null,
    at timestamptz not null,
    comment text,
    constraint vote_pkey primary key (project_id, task_id, voter),
    constraint action_is_known check (action in ('approved', 'rejected')),
    constraint vote_task_fkey foreign key (project_id, task_id)
        references pgflow.task (project_id, task_id)
);
comment on table pgflow.vote is 'Who voted how on tasks that more than one has to approve.';

create type pgflow.decision_v1 as (
    task_id uuid, run_id uuid, action text, decided_by text, decided_at timestamptz, comment text,
    data jsonb, repeated boolean
);
comment on type pgflow.decision_v1 is
    'What was decided about a task. repeated: it had been decided so before, and this is the '
    'first decision.';
