-- The history: tables that only grow, partitioned by run id into periods. This file alone puts
-- statements together as text, because the names of partitions contain their period.
--
-- A period's partitions are made long before, and dropped when all its runs have ended and are past
-- their retention (29_retention). Each is made and attached, detached, or dropped in a transaction
-- of its own, under the lock_timeout of maintain(): whoever is killed in the middle leaves nothing
-- half made, and who waits for the lock of a table that all use waits for a moment only.

create or replace function pgflow._history_tables()
returns text[]
language sql
immutable
as $$
    select ('{run_finished,event,journal,journal_voided,signal,usage,flow_step,budget,'
        || 'channel_write,checkpoint,artifact}')::text[]
$$;
comment on function pgflow._history_tables is
    'The partitioned tables. They are detached in this order: a run is gone before what it did.';

create or replace function pgflow._first_id(p_at timestamptz)
returns uuid
language sql
immutable
as $$
    select encode(substring(int8send((extract(epoch from p_at) * 1000)::bigint) from 3)
        || '\x00000000000000000000'::bytea, 'hex')::uuid
$$;
comment on function pgflow._first_id is 'A uuid before all of version 7 made at a time or later.';

create or replace function pgflow._partition(p_table text, p_period text)
returns regclass
language sql
stable
as $$
    select to_regclass(format('pgflow.%I', p_table || '_' || p_period))
$$;
comment on function pgflow._partition is
    'A table''s partition of a period; null if it isn''t there.';

-- By the real clock, as ids are. Periods have no gaps: after a time in which nobody made any, one
-- takes all of it. Weeks begin on Mondays.
create or replace function pgflow._add_period(p_clock timestamptz)
returns void
language plpgsql
as $$
declare
    v_monday constant timestamptz := timestamptz '2001-01-01 00:00:00+00';
    v_width interval := (
        select make_interval(secs => extract(epoch from i.partition_width)::float8)
        from pgflow.installation i);
    v_from timestamptz := (select max(p.to_at) from pgflow.period p);
    v_to timestamptz;
begin
    if (select count(*) from pgflow.period p where p.from_at > p_clock) >= 3 then
        return;
    elsif v_from is null then  -- enqueue takes ids that are up to a day old
        v_from := date_bin(v_width, p_clock - interval '1 day', v_monday);
    end if;
    v_to := greatest(date_bin(v_width, v_from, v_monday) + v_width,
        date_bin(v_width, p_clock, v_monday));
    insert into pgflow.period (period, from_at, to_at, from_id, to_id)
    values (to_char(v_from at time zone 'UTC', 'YYYYMMDDHH24'), v_from, v_to,
        pgflow._first_id(v_from), pgflow._first_id(v_to));
end
$$;
comment on function pgflow._add_period is
    'Adds a period after the last, if fewer than three are still ahead.';

create or replace function pgflow._make_partition(p_clock timestamptz)
returns text
language plpgsql
as $$
declare
    v_next record;
begin
    perform pgflow._add_period(p_clock);
    select t.name as parent, t.name || '_' || p.period as name, p.from_id, p.to_id into v_next
    from pgflow.period p
    cross join unnest(pgflow._history_tables()) with ordinality as t (name, n)
    where p.expired_at is null and pgflow._partition(t.name, p.period) is null
    order by p.from_at, t.n
    limit 1;
    if not found then
        return null;
    end if;
    -- A table by itself, then attached: `create table ... partition of` would lock the parent
    -- against all reading and writing, this only against other upkeep.
    execute format('create table pgflow.%I (like pgflow.%I including defaults '
        'including constraints including indexes including storage)', v_next.name, v_next.parent);
    perform pgflow._close_table(v_next.name, v_next.parent);
    execute format('alter table pgflow.%I attach partition pgflow.%I for values from (%L) to (%L)',
        v_next.parent, v_next.name, v_next.from_id, v_next.to_id);
    return 'made ' || v_next.name;
end
$$;
comment on function pgflow._make_partition is
    'Makes the next partition that is missing, of the periods up to three ahead; returns what it '
    'did, or null if none is missing.';

-- Whoever names a partition goes past the table that it belongs to, with its rights and policies.
create or replace function pgflow._close_table(p_name text, p_parent text)
returns void
language plpgsql
as $$
declare
    v_parent pg_catalog.pg_class;
    v_grantee text;
begin
    execute format('revoke all on pgflow.%I from public', p_name);
    for v_grantee in  -- from default privileges
        select distinct r.rolname
        from pg_catalog.pg_class c
        cross join aclexplode(c.relacl) as a
        join pg_catalog.pg_roles r on r.oid = a.grantee
        where c.oid = to_regclass(format('pgflow.%I', p_name)) and a.grantee <> c.relowner
    loop
        execute format('revoke all on pgflow.%I from %I', p_name, v_grantee);
    end loop;
    select c.* into v_parent from pg_catalog.pg_class c
    where c.oid = to_regclass(format('pgflow.%I', p_parent));
    if v_parent.relrowsecurity then
        execute format('alter table pgflow.%I enable row level security', p_name);
    end if;
    if v_parent.relforcerowsecurity then
        execute format('alter table pgflow.%I force row level security', p_name);
    end if;
end
$$;
comment on function pgflow._close_table is
    'Takes all rights on a new partition from everybody, and has row-level security as its parent '
    'has it, without a policy: by its own name it shows nothing.';

create or replace function pgflow._drop_partition()
returns text
language plpgsql
as $$
declare
    v_next record;
begin
    select t.name as parent, t.name || '_' || p.period as name, i.inhrelid is not null as attached
    into v_next
    from pgflow.period p
    cross join unnest(pgflow._history_tables()) with ordinality as t (name, n)
    left join pg_catalog.pg_inherits i on i.inhrelid = pgflow._partition(t.name, p.period)
    where p.expired_at is not null and pgflow._partition(t.name, p.period) is not null
    order by p.from_at, i.inhrelid is null, t.n
    limit 1;
    if not found then
        delete from pgflow.period p where p.expired_at is not null;
        return null;
    elsif v_next.attached then
        execute format('alter table pgflow.%I detach partition pgflow.%I', v_next.parent,
            v_next.name);
        return 'detached ' || v_next.name;
    end if;
    execute format('drop table pgflow.%I', v_next.name);
    return 'dropped ' || v_next.name;
end
$$;
comment on function pgflow._drop_partition is
    'Detaches or drops the next partition of an expired period; returns what it did, or null if '
    'none is left.';

create or replace function pgflow._analyze_history(p_now timestamptz)
returns text
language plpgsql
as $$
declare
    -- Before PostgreSQL 18 all partitions are analyzed with their parent, so this is done less.
    v_only boolean := current_setting('server_version_num')::integer >= 180000;
    v_table text;
begin
    select t.name into v_table
    from unnest(pgflow._history_tables()) with ordinality as t (name, n)
    left join pgflow.upkeep u on u.duty = 'analyze ' || t.name
    where coalesce(u.next_at, '-infinity') <= p_now
    order by t.n
    limit 1;
    if not found then
        return null;
    end if;
    perform pgflow._put_off('analyze ' || v_table,
        p_now + case when v_only then interval '1 day' else interval '7 days' end);
    execute format('analyze %s pgflow.%I', case when v_only then 'only' else '' end, v_table);
    return 'analyzed ' || v_table;
end
$$;
comment on function pgflow._analyze_history is
    'Analyzes a partitioned table as a whole, which autovacuum never does; returns what it did, or '
    'null if none is due.';

create or replace function pgflow._periods_ahead(p_clock timestamptz)
returns integer
language sql
stable
as $$
    select count(*)::integer
    from pgflow.period p
    where p.from_at > p_clock and not exists (
        select from unnest(pgflow._history_tables()) as t (name)
        where not exists (select from pg_catalog.pg_inherits i
                          where i.inhrelid = pgflow._partition(t.name, p.period)))
$$;
comment on function pgflow._periods_ahead is
    'How many periods that have not begun have all their partitions.';

create or replace function pgflow._make_partitions()
returns void
language plpgsql
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('pgflow.maintain', 0));
    while pgflow._make_partition(clock_timestamp()) is not null loop
        null;
    end loop;
end
$$;
comment on function pgflow._make_partitions is
    'Makes all partitions that are missing, in one transaction.';

-- So that a new installation works before anybody maintains it.
select pgflow._make_partitions();
