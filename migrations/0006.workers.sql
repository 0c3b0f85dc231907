-- Workers and what they hold. Beats are in a table of their own: it is the one row that changes all
-- the time, so it is narrow and only its key is indexed.
set local role pgflow_owner;

create table pgflow.worker (
    project_id text collate "C" not null,
    worker_id text collate "C" not null,
    queues text[] collate "C" not null,
    concurrency integer not null,
    host text,
    pid integer,
    version text,
    registered_by text not null,
    started_at timestamptz not null,
    stopped_at timestamptz,
    last_beat_at timestamptz,
    constraint worker_pkey primary key (project_id, worker_id),
    constraint worker_project_fkey foreign key (project_id) references pgflow.project (project_id),
    constraint worker_id_is_at_most_200_characters check (char_length(worker_id) between 1 and 200),
    constraint a_worker_has_queues check (cardinality(queues) > 0),
    constraint concurrency_is_1_to_10000 check (concurrency between 1 and 10000)
);
comment on table pgflow.worker is
    'Worker processes, by an id such as host:hex. The tick takes away those that are gone for as '
    'long as finished runs are kept.';
comment on column pgflow.worker.last_beat_at is
    'When it was last heard of, where it is dead and its beat has been forgotten.';
create index worker_is_gone on pgflow.worker (project_id, coalesce(stopped_at, last_beat_at))
    where coalesce(stopped_at, last_beat_at) is not null;

create table pgflow.worker_beat (
    project_id text collate "C" not null,
    worker_id text collate "C" not null,
    beat_at timestamptz not null,
    constraint worker_beat_pkey primary key (project_id, worker_id)
) with (fillfactor = 50);
comment on table pgflow.worker_beat is
    'When each worker was last heard of. All its leases expire together, when this is older than '
    'the queue''s lease_ttl.';

create sequence pgflow.lease_batch;
comment on sequence pgflow.lease_batch is 'Numbers the rows of table lease.';
create table pgflow.lease (
    project_id text collate "C" not null,
    worker_id text collate "C" not null,
    batch bigint not null,
    leased_at timestamptz not null,
    run_ids uuid[] not null,
    constraint lease_pkey primary key (project_id, worker_id, batch)
);
-- An array of ids is long and can't be compressed.
alter table pgflow.lease alter column run_ids set storage external;
comment on table pgflow.lease is
    'The runs that each acquire leased to a worker. Every running run is in one of its worker''s '
    'rows, which may name others that ended since: beat drops those.';
comment on column pgflow.lease.leased_at is 'When the first of them was leased.';

create table pgflow.idle_worker (
    project_id text collate "C" not null,
    queue text collate "C" not null,
    worker_id text collate "C" not null,
    constraint idle_worker_pkey primary key (project_id, queue, worker_id)
);
comment on table pgflow.idle_worker is
    'Workers that wait for a hint. Only then does new work cost a NOTIFY, which takes a lock on '
    'the whole instance at commit.';

create table pgflow.slot (
    project_id text collate "C" not null,
    queue text collate "C" not null,
    run_id uuid not null,
    lease_no integer not null,
    constraint slot_pkey primary key (project_id, queue, run_id, lease_no)
);
comment on table pgflow.slot is
    'The leases of queues with max_concurrent. A slot goes in the transaction in which its lease '
    'does, whoever ends that.';

create table pgflow.tick (
    project_id text collate "C" not null,
    last_at timestamptz not null,
    constraint tick_pkey primary key (project_id),
    constraint tick_project_fkey foreign key (project_id) references pgflow.project (project_id)
);
comment on table pgflow.tick is
    'When the duties of time (promote, reap, expire) were last seen to.';
insert into pgflow.tick (project_id, last_at) values ('default', '-infinity');

-- What worker verbs return. Fields are only ever added at the end; readers ignore what they don't
-- know.
create type pgflow.acquired_v1 as (runs json, marks jsonb, look_again_in interval, reaped json,
    batch bigint);
comment on type pgflow.acquired_v1 is
    'runs: an array of leases; marks: opaque, to be given back at the next acquire; '
    'look_again_in: how long to sleep if no hint arrives before; reaped: runs that this call took'
    ' back from dead workers; batch: the number of these leases, to be told to the next beat.';
create type pgflow.outcome_v1 as (run_id uuid, outcome text, state text, code text, detail text);
comment on type pgflow.outcome_v1 is
    'outcome: done, already (said before under this lease), lost (the lease is gone), refused '
    '(code and detail say why). state: what the run is in now, where known.';
create type pgflow.result_v1 as (
    run_id uuid, handler text, state text, output jsonb, error_code text, error_detail text,
    error jsonb, paused jsonb, finished_at timestamptz, super_step integer, final_report uuid
);
comment on type pgflow.result_v1 is
    'What became of a run so far. error: what its last failed execution raised (type, message, '
    'traceback), kept after a later success. paused: null if it is not; else reason and, where its '
    'handler stopped at a call, step and payload. super_step, final_report: of a flow; the latter '
    'once it has ended, for pgflow.report.';
create type pgflow.parked_v1 as (run_id uuid, outcome text, news integer, entries json, code text,
    detail text);
comment on type pgflow.parked_v1 is
    'outcome: done, news (there are entries that the worker has not seen: go on with them), lost,'
    ' refused.';
create type pgflow.worker_settings_v1 as (beat_every interval);
comment on type pgflow.worker_settings_v1 is 'beat_every: how often the worker must call beat.';
