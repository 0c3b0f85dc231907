-- Who works with the engine, and the entry points that runs come in by.
set local role pgflow_owner;

create table pgflow.installation (
    one boolean not null default true,
    test_clock boolean not null default false,
    retention interval,
    partition_width interval not null default '7 days',
    constraint installation_pkey primary key (one),
    constraint there_is_one_installation check (one),
    constraint retention_is_at_least_an_hour check (retention >= '1 hour'),
    constraint partition_width_is_1_hour_to_31_days check (
        partition_width between '1 hour' and '31 days'),
    constraint partition_width_is_in_whole_hours check (
        extract(epoch from partition_width) % 3600 = 0)
);
comment on table pgflow.installation is 'Settings of the whole installation; one row.';
comment on column pgflow.installation.test_clock is
    'True lets a session set pgflow.test_now; for tests only.';
comment on column pgflow.installation.retention is
    'How long finished runs are kept, where their queue doesn''t say otherwise. Null: for ever.';
comment on column pgflow.installation.partition_width is
    'For how long all new run ids go into the same partitions. set_retention() sets it.';
insert into pgflow.installation default values;

create table pgflow.project (
    project_id text collate "C" not null,
    members_only boolean not null default true,
    inbox_watched_until timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    constraint project_pkey primary key (project_id),
    constraint project_id_is_a_plain_name check (project_id ~ '^[A-Za-z0-9_.-]{1,63}$')
);
comment on table pgflow.project is 'Tenants. Every other key begins with project_id.';
comment on column pgflow.project.members_only is
    'False: every login with a pgflow role may use it, as the project default, which needs no '
    'set-up.';
comment on column pgflow.project.inbox_watched_until is
    'Until then changes of its inbox are hinted at: somebody asked.';
insert into pgflow.project (project_id, members_only) values ('default', false);

create table pgflow.project_member (
    project_id text collate "C" not null,
    member name not null,
    constraint project_member_pkey primary key (project_id, member),
    constraint project_member_project_fkey foreign key (project_id)
        references pgflow.project (project_id)
);
comment on table pgflow.project_member is
    'Database roles that may use a project; logins that are members of such a role may as well.';

create table pgflow.queue (
    project_id text collate "C" not null,
    queue text collate "C" not null,
    max_concurrent integer,
    max_attempts integer not null default 3,
    timeout interval,
    lease_ttl interval not null default '60 seconds',
    retention interval,
    key_retention interval not null default '0',
    paused_at timestamptz,
    paused_by text,
    priorities smallint[] not null default '{0}',
    created_at timestamptz not null default clock_timestamp(),
    constraint queue_pkey primary key (project_id, queue),
    constraint queue_project_fkey foreign key (project_id) references pgflow.project (project_id),
    constraint queue_is_at_most_100_characters check (char_length(queue) between 1 and 100),
    constraint max_concurrent_is_positive check (max_concurrent > 0),
    constraint max_attempts_is_1_to_1000 check (max_attempts between 1 and 1000),
    constraint timeout_is_at_most_30_days check (timeout > '0' and timeout <= '30 days'),
    constraint lease_ttl_is_1_second_to_1_day
        check (lease_ttl >= '1 second' and lease_ttl <= '1 day'),
    constraint retention_is_at_least_an_hour check (retention >= '1 hour'),
    constraint key_retention_is_at_most_10_years check (key_retention between '0' and '10 years'),
    constraint paused_by_iff_paused check ((paused_at is null) = (paused_by is null))
);
comment on table pgflow.queue is 'Entry points of runs. A queue is made when it is first used.';
comment on column pgflow.queue.max_concurrent is
    'At most so many of its runs are leased at once, over all hosts. Null: no limit.';
comment on column pgflow.queue.timeout is 'Default bound of one execution. Null: none.';
comment on column pgflow.queue.lease_ttl is
    'A lease expires when its worker has not beaten for so long.';
comment on column pgflow.queue.retention is
    'How long its finished runs are kept. Null: as long as installation.retention says.';
comment on column pgflow.queue.key_retention is
    'How much longer than their runs idempotency keys hold.';
comment on column pgflow.queue.priorities is
    'Every priority that a run of this queue ever had, highest first: a claim looks nowhere else.';

create table pgflow.handler (
    project_id text collate "C" not null,
    handler text collate "C" not null,
    queue text collate "C" not null,
    max_attempts integer,
    timeout interval,
    retry_base interval not null default '1 second',
    retry_factor double precision not null default 2,
    retry_max interval not null default '1 hour',
    undo_on text[] not null default '{}',
    registered_at timestamptz not null,
    constraint handler_pkey primary key (project_id, handler),
    constraint handler_project_fkey foreign key (project_id) references pgflow.project (project_id),
    constraint handler_is_at_most_200_characters check (char_length(handler) between 1 and 200),
    constraint queue_is_at_most_100_characters check (char_length(queue) between 1 and 100),
    constraint max_attempts_is_1_to_1000 check (max_attempts between 1 and 1000),
    constraint timeout_is_at_most_30_days check (timeout > '0' and timeout <= '30 days'),
    constraint retry_base_is_at_most_30_days check (retry_base between '0' and '30 days'),
    constraint retry_max_is_at_most_30_days check (retry_max between '0' and '30 days'),
    constraint retry_factor_is_1_to_100 check (retry_factor between 1 and 100),
    constraint undo_on_names_ends check (undo_on <@ array['failed', 'cancelled', 'timeout'])
);
comment on table pgflow.handler is
    'What workers said about their handlers when they registered: the defaults of runs enqueued '
    'by any client, in any language.';
comment on column pgflow.handler.undo_on is
    'Ends after which the steps of a run are undone, by a run of their own.';
comment on column pgflow.handler.retry_base is
    'Delay before the second execution; the n-th retry waits base * factor^(n-1), at most '
    'retry_max, each time varied by up to a half.';
