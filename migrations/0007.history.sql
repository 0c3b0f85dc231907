-- What has happened is partitioned by run id, whose first 48 bits are the time of its making: to
-- forget a period is to drop its tables, which leaves nothing to vacuum. maintain() makes and drops
-- partitions; there is no default partition, because with rows in one no later partition of that
-- range could be made.
set local role pgflow_owner;

create table pgflow.period (
    period text collate "C" not null,
    from_at timestamptz not null,
    to_at timestamptz not null,
    from_id uuid not null,
    to_id uuid not null,
    closed_by xid8,
    expired_at timestamptz,
    constraint period_pkey primary key (period),
    constraint period_begins_once unique (from_id),
    constraint period_is_named_by_its_hour check (period ~ '^[0-9]{10}$'),
    constraint period_goes_on check (from_at < to_at and from_id < to_id)
);
comment on table pgflow.period is
    'Ranges of run ids, one after the other without a gap. Each has a partition TABLE_PERIOD of '
    'every table of the history.';
comment on column pgflow.period.period is 'The hour of its beginning in UTC: YYYYMMDDHH.';
comment on column pgflow.period.to_id is 'The first run id of the next period.';
comment on column pgflow.period.closed_by is
    'A transaction that began when enqueue no longer took ids of this period: once all older ones '
    'have ended, no run can come any more.';
comment on column pgflow.period.expired_at is
    'Since when all its runs have ended and are past their retention: its partitions are dropped.';

create table pgflow.upkeep (
    duty text collate "C" not null,
    next_at timestamptz not null,
    constraint upkeep_pkey primary key (duty)
);
comment on table pgflow.upkeep is 
    'Until when maintain() waits, as a whole and with single duties.';

-- There is nothing to analyze in a new installation.
insert into pgflow.upkeep (duty, next_at)
select 'analyze ' || t, clock_timestamp() + interval '1 hour'
from unnest('{run_finished,event,journal,journal_voided,signal,usage}'::text[]) as t;

create type pgflow.maintained_v1 as (did text, blocked text, again_in interval);
comment on type pgflow.maintained_v1 is
    'did: what was done, null if nothing; blocked: what could not be done, for a lock that '
    'somebody holds; again_in: when to call again, 0 if there may be more to do.';
