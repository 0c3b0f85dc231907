-- What a run has lived through (event), what it has learned (journal), and whom it has asked
-- (task).
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
    constraint type_is_at_most_100_characters check (char_length(type) between 1 and 100),
    constraint key_is_at_most_500_characters check (char_length(key) between 1 and 500),
    constraint payload_is_at_most_1_mb check (pg_column_size(payload) <= 1048576),
    constraint an_ended_lease_is_whole check (
        (lease_event_no is null) = (worker_id is null)
        and (lease_event_no is null) = (leased_at is null)
        and (lease_event_no is null) = (lease_no is null))
);
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
    news integer,
    lease_no integer,
    attempt integer,
    event_no integer,
    at timestamptz not null,
    digest bytea,
    value jsonb,
    constraint journal_pkey primary key (project_id, run_id, key),
    constraint kind_is_known check (kind in ('step', 'approval')),
    constraint key_is_at_most_500_characters check (char_length(key) between 1 and 500),
    constraint value_is_at_most_8_mb check (pg_column_size(value) <= 8388608),
    constraint a_step_has_a_lease_and_news_have_none check (
        (kind = 'step') = (lease_no is not null)
        and (kind = 'step') = (attempt is not null)
        and (kind = 'step') = (event_no is not null)
        and (kind = 'step') = (news is null))
);
comment on table pgflow.journal is
    'What a run has learned: one entry per key. A resumed handler reads it instead of working '
    'again.';
comment on column pgflow.journal.news is
    'run.news after this entry, where others than the run''s worker wrote it.';
comment on column pgflow.journal.event_no is
    'The number of the step.completed event, which view timeline derives.';
comment on column pgflow.journal.digest is
    'SHA-256 of the step''s inputs; a step asked with others is not the same step.';

create table pgflow.task_policy (
    policy text collate "C" not null,
    description text not null,
    constraint task_policy_pkey primary key (policy)
);
comment on table pgflow.task_policy is
    'What happens to the run when a task''s due time passes undecided.';
insert into pgflow.task_policy (policy, description) values
    ('cancel', 'The run ends cancelled with E-RUN-007.'),
    ('timeout', 'The run ends in state timeout with E-RUN-007.');

create table pgflow.task (
    project_id text collate "C" not null,
    task_id uuid not null,
    run_id uuid not null,
    key text collate "C" not null,
    kind text collate "C" not null,
    state text collate "C" not null default 'open',
    title text not null,
    payload jsonb,
    payload_sha256 bytea not null,
    assignee text,
    assignee_role text,
    requested_by text not null,
    created_at timestamptz not null,
    due_at timestamptz,
    policy text collate "C" not null default 'cancel',
    on_reject text collate "C" not null default 'cancel',
    decided_at timestamptz,
    decided_by text,
    decided_login text,
    comment text,
    data jsonb,
    constraint task_pkey primary key (project_id, task_id),
    constraint a_run_asks_once_per_key unique (project_id, run_id, key),
    constraint kind_is_known check (kind in ('approval')),
    constraint state_is_known check (state in ('open', 'approved', 'rejected', 'expired',
        'cancelled')),
    constraint policy_fkey foreign key (policy) references pgflow.task_policy (policy),
    constraint on_reject_is_known check (on_reject in ('cancel', 'resume')),
    constraint decided_iff_a_person_decided check (
        (state in ('approved', 'rejected')) = (decided_at is not null)
        and (decided_at is null) = (decided_by is null)
        and (decided_at is null) = (decided_login is null)),
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
comment on column pgflow.task.assignee is 'A database role or login; only it decides.';
comment on column pgflow.task.assignee_role is
    'If a database role of that name exists, only its members decide; else a label for the '
    'application.';
comment on column pgflow.task.on_reject is
    'cancel: a rejection ends the run; resume: the handler is told and goes on.';
comment on column pgflow.task.decided_by is
    'The actor: the role set with set role, else the login.';
comment on column pgflow.task.decided_login is 'The login of the session in which it was decided.';

create index task_is_open on pgflow.task (project_id, run_id) where state = 'open';
create index task_is_due on pgflow.task (project_id, due_at) where state = 'open'
    and due_at is not null;

create type pgflow.decision_v1 as (
    task_id uuid, run_id uuid, action text, decided_by text, decided_at timestamptz, comment text,
    data jsonb, repeated boolean
);
comment on type pgflow.decision_v1 is
    'What was decided about a task. repeated: it had been decided so before, and this is the '
    'first decision.';
