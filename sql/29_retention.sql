-- Retention: how long finished runs are kept, and maintain(), which sees to it. Most of them go
-- with their partitions. Those that a queue keeps for a shorter time, and those in a period that
-- other runs keep, are deleted in batches, the oldest first.

create or replace function pgflow.set_retention(
    retention interval default null, partition_width interval default '7 days'
)
returns pgflow.installation
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_installation pgflow.installation;
begin
    if set_retention.retention < '1 hour' then
        perform pgflow._refuse_value('retention', 'at least 1 hour, or null for ever',
            set_retention.retention::text);
    elsif set_retention.partition_width is null
       or set_retention.partition_width not between '1 hour' and '31 days'
       or extract(epoch from set_retention.partition_width) % 3600 <> 0 then
        perform pgflow._refuse_value('partition_width', '1 hour to 31 days, in whole hours',
            set_retention.partition_width::text);
    end if;
    update pgflow.installation i
    set retention = set_retention.retention, partition_width = set_retention.partition_width
    returning i.* into v_installation;
    perform pgflow._maintain_soon();
    return v_installation;
end
$$;
comment on function pgflow.set_retention is
    'Sets how long finished runs are kept in the whole installation, where their queue doesn''t '
    'say otherwise; null: for ever. They go with all that they left behind, a partition at a '
    'time: partition_width is how much time one covers, and so how much later than due a run may '
    'go; it holds for partitions that aren''t made yet. Example: select '
    'pgflow.set_retention(''30 days'', ''1 day''). Raises PF101.';

create or replace function pgflow._put_off(p_duty text, p_until timestamptz)
returns void
language plpgsql
as $$
begin
    insert into pgflow.upkeep (duty, next_at) values (p_duty, p_until)
    on conflict on constraint upkeep_pkey do update set next_at = excluded.next_at;
end
$$;
comment on function pgflow._put_off is 'Has a duty of upkeep wait until a time.';

create or replace function pgflow._maintain_soon()
returns void
language plpgsql
as $$
begin
    delete from pgflow.upkeep u where u.duty = 'maintain';
end
$$;
comment on function pgflow._maintain_soon is 'Has the next maintain() look, whenever the last was.';

-- New runs may have ids that are a day old, and the transactions that make them may be open for
-- longer. So a period is closed first: once all transactions have ended that were there then, each
-- of its runs is seen by everybody.
create or replace function pgflow._close_periods(p_clock timestamptz)
returns text
language plpgsql
as $$
declare
    v_period text;
    v_xid xid8;
begin
    select p.period into v_period from pgflow.period p
    where p.to_at < p_clock - interval '25 hours'
      and (p.closed_by is null
           or p.closed_by >= pg_snapshot_xmax(pg_current_snapshot()))  -- of another server
    order by p.from_at
    limit 1;
    if not found then
        return null;
    end if;
    v_xid := pg_current_xact_id();
    update pgflow.period p set closed_by = v_xid where p.period = v_period;
    return 'closed ' || v_period;
end
$$;
comment on function pgflow._close_periods is
    'Notes that no new run can come into a period; returns what it did, or null.';

-- Looks first for the live and then, with a later snapshot, for the finished: a run only goes that
-- way. Steps of a finished run are read by the live run that undoes them. The last end in each
-- queue is the last entry of an index; asked for runs that ended too late, the planner would read
-- all others.
create or replace function pgflow._is_over(p_period pgflow.period, p_now timestamptz)
returns boolean
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_queue record;
    v_last_at timestamptz;
begin
    if exists (
        select from pgflow.project p
        where exists (
            select from pgflow.run r
            where r.project_id = p.project_id
              and r.run_id >= p_period.from_id and r.run_id < p_period.to_id
            union all
            select from pgflow.run r
            where r.project_id = p.project_id
              and r.undo_of >= p_period.from_id and r.undo_of < p_period.to_id)
    ) then
        return false;
    end if;
    for v_queue in
        select q.project_id, q.queue, coalesce(q.retention, i.retention) as retention
        from pgflow.queue q
        cross join pgflow.installation i
    loop
        select f.finished_at into v_last_at from pgflow.run_finished f
        where f.project_id || '/' || f.queue = v_queue.project_id || '/' || v_queue.queue
          and f.run_id >= p_period.from_id and f.run_id < p_period.to_id
        order by f.finished_at desc
        limit 1;
        if found and coalesce(v_last_at >= p_now - v_queue.retention, true) then
            return false;
        end if;
    end loop;
    return true;
end
$$;
comment on function pgflow._is_over is
    'Whether all runs of a closed period have ended and are past their retention.';

create or replace function pgflow._expire_period(p_now timestamptz)
returns text
language plpgsql
as $$
declare
    v_period pgflow.period;
begin
    if not exists (select from pgflow.installation i where i.retention is not null
                   union all
                   select from pgflow.queue q where q.retention is not null) then
        return null;
    end if;
    for v_period in
        select p.* from pgflow.period p
        where p.expired_at is null
          and p.closed_by < pg_snapshot_xmin(pg_current_snapshot())
        order by p.from_at
    loop
        if pgflow._is_over(v_period, p_now) then
            update pgflow.period p set expired_at = p_now where p.period = v_period.period;
            return 'expired ' || v_period.period;
        end if;
    end loop;
    return null;
end
$$;
comment on function pgflow._expire_period is
    'Marks the oldest period that is over, so that it is dropped; returns what it did, or null.';

-- Before its partitions, while the queue of each run can still be read.
create or replace function pgflow._expire_keys(p_now timestamptz)
returns text
language plpgsql
as $$
declare
    v_in record;
    v_many integer;
begin
    for v_in in
        select p.period, p.from_id, p.to_id, j.project_id
        from pgflow.period p
        cross join pgflow.project j
        where p.expired_at is not null
        order by p.from_at, j.project_id
    loop
        with going as (
            select k.key, coalesce(q.key_retention, interval '0') as longer
            from pgflow.run_key k
            left join pgflow.run_finished f
                on f.project_id = v_in.project_id and f.run_id = k.run_id
                and f.run_id >= v_in.from_id and f.run_id < v_in.to_id
            left join pgflow.queue q on q.project_id = v_in.project_id and q.queue = f.queue
            where k.project_id = v_in.project_id and k.expires_at is null
              and k.run_id >= v_in.from_id and k.run_id < v_in.to_id
            order by k.run_id
            limit 5000
        )
        update pgflow.run_key k set expires_at = p_now + g.longer
        from going g
        where k.project_id = v_in.project_id and k.key = g.key;
        get diagnostics v_many = row_count;
        if v_many > 0 then
            return format('released %s keys of period %s', v_many, v_in.period);
        end if;
        v_many := pgflow._delete_tasks(v_in.project_id, array(
            select t.task_id from pgflow.task t
            where t.project_id = v_in.project_id
              and t.run_id >= v_in.from_id and t.run_id < v_in.to_id
            order by t.run_id
            limit 5000));
        if v_many > 0 then
            return format('deleted %s tasks of period %s', v_many, v_in.period);
        end if;
        delete from pgflow.run_step d
        where d.project_id = v_in.project_id and (d.run_id, d.step) in (
            select s.run_id, s.step from pgflow.run_step s
            where s.project_id = v_in.project_id
              and s.run_id >= v_in.from_id and s.run_id < v_in.to_id
            order by s.run_id
            limit 5000);
        get diagnostics v_many = row_count;
        if v_many > 0 then
            return format('deleted %s steps that were added to runs of period %s', v_many,
                v_in.period);
        end if;
    end loop;
    return null;
end
$$;
comment on function pgflow._expire_keys is
    'Lets the idempotency keys of expired periods go, and deletes their tasks, a batch at a time; '
    'returns what it did, or null if none are left.';

-- Runs that are due to go with their partition are deleted only where that is overdue.
create or replace function pgflow._prune_runs(p_now timestamptz)
returns text
language plpgsql
as $$
declare
    v_queue record;
    v_run_ids uuid[];
begin
    for v_queue in
        select q.project_id, q.queue, q.key_retention,
            p_now - case
                when i.retention is null or q.retention < i.retention then q.retention
                else coalesce(q.retention, i.retention) + i.partition_width + interval '1 day'
                end as before
        from pgflow.queue q
        cross join pgflow.installation i
        where coalesce(q.retention, i.retention) is not null
        order by q.project_id, q.queue
    loop
        v_run_ids := array(
            select f.run_id from pgflow.run_finished f
            where f.project_id || '/' || f.queue = v_queue.project_id || '/' || v_queue.queue
              and f.finished_at < v_queue.before
              and not exists (select from pgflow.run r
                              where r.project_id = f.project_id and r.undo_of = f.run_id)
            order by f.finished_at
            limit 1000
            for update of f skip locked);
        if cardinality(v_run_ids) > 0 then
            perform pgflow._delete_runs(v_queue.project_id, v_run_ids,
                p_now + v_queue.key_retention);
            return format('deleted %s runs of queue %s of project %s', cardinality(v_run_ids),
                v_queue.queue, v_queue.project_id);
        end if;
    end loop;
    return null;
end
$$;
comment on function pgflow._prune_runs is
    'Deletes a batch of finished runs that are past their retention, the oldest first; returns '
    'what it did, or null if none are left.';

-- pgflow.pruning is set for this one statement, as pgflow.ending in _end().
create or replace function pgflow._delete_runs(
    p_project text, p_run_ids uuid[], p_keys_expire_at timestamptz
)
returns void
language plpgsql
as $$
begin
    perform set_config('pgflow.pruning', 'on', true);
    delete from pgflow.run_finished f
    where f.project_id = p_project and f.run_id = any (p_run_ids);
    perform set_config('pgflow.pruning', '', true);
    delete from pgflow.event e where e.project_id = p_project and e.run_id = any (p_run_ids);
    delete from pgflow.journal j where j.project_id = p_project and j.run_id = any (p_run_ids);
    delete from pgflow.journal_voided v
    where v.project_id = p_project and v.run_id = any (p_run_ids);
    delete from pgflow.signal s where s.project_id = p_project and s.run_id = any (p_run_ids);
    delete from pgflow.usage u where u.project_id = p_project and u.run_id = any (p_run_ids);
    delete from pgflow.budget b where b.project_id = p_project and b.run_id = any (p_run_ids);
    delete from pgflow.flow_step s where s.project_id = p_project and s.run_id = any (p_run_ids);
    delete from pgflow.run_step s where s.project_id = p_project and s.run_id = any (p_run_ids);
    delete from pgflow.channel_write w
    where w.project_id = p_project and w.run_id = any (p_run_ids);
    delete from pgflow.checkpoint c where c.project_id = p_project and c.run_id = any (p_run_ids);
    delete from pgflow.artifact a where a.project_id = p_project and a.run_id = any (p_run_ids);
    perform pgflow._delete_tasks(p_project, array(
        select t.task_id from pgflow.task t
        where t.project_id = p_project and t.run_id = any (p_run_ids)));
    update pgflow.run_key k set expires_at = p_keys_expire_at
    where k.project_id = p_project and k.run_id = any (p_run_ids) and k.expires_at is null;
end
$$;
comment on function pgflow._delete_runs is
    'Deletes finished runs, which the caller holds, with all that they left behind; their '
    'idempotency keys hold until a time.';

create or replace function pgflow._delete_tasks(p_project text, p_task_ids uuid[])
returns integer
language plpgsql
as $$
begin
    delete from pgflow.vote v where v.project_id = p_project and v.task_id = any (p_task_ids);
    delete from pgflow.task t where t.project_id = p_project and t.task_id = any (p_task_ids);
    return cardinality(p_task_ids);
end
$$;
comment on function pgflow._delete_tasks is 'Deletes tasks of runs that go; returns how many.';

create or replace function pgflow._delete_keys(p_now timestamptz)
returns text
language plpgsql
as $$
declare
    v_project text;
    v_many integer;
begin
    for v_project in select p.project_id from pgflow.project p order by p.project_id loop
        delete from pgflow.run_key d
        where d.project_id = v_project and d.key = any (array(
            select k.key from pgflow.run_key k
            where k.project_id = v_project and k.expires_at <= p_now
            order by k.expires_at
            limit 5000
            for update skip locked));
        get diagnostics v_many = row_count;
        if v_many > 0 then
            return format('deleted %s keys of project %s', v_many, v_project);
        end if;
    end loop;
    return null;
end
$$;
comment on function pgflow._delete_keys is
    'Deletes a batch of idempotency keys that have expired; returns what it did, or null if none '
    'are left.';

-- A step that waits too long for a lock is put off for 10 s, because while it waits all others wait
-- behind it; meanwhile the other kinds of steps have their turn.
create or replace function pgflow._maintain(p_now timestamptz)
returns pgflow.maintained_v1
language plpgsql
as $$
declare
    v_clock timestamptz := clock_timestamp();
    v_done pgflow.maintained_v1;
    v_step text;
    v_put_off boolean := false;
begin
    foreach v_step in array '{make,keys,drop,close,expire,prune,forget,analyze}'::text[] loop
        if exists (select from pgflow.upkeep u
                   where u.duty = v_step
                     and u.next_at between p_now and p_now + interval '1 minute') then
            v_put_off := true;
            continue;
        end if;
        begin
            v_done.did := case v_step
                when 'make' then pgflow._make_partition(v_clock)
                when 'keys' then pgflow._expire_keys(p_now)
                when 'drop' then pgflow._drop_partition()
                when 'close' then pgflow._close_periods(v_clock)
                when 'expire' then pgflow._expire_period(p_now)
                when 'prune' then pgflow._prune_runs(p_now)
                when 'forget' then pgflow._delete_keys(p_now)
                when 'analyze' then pgflow._analyze_history(p_now) end;
        exception when lock_not_available or deadlock_detected then
            v_done.blocked := concat_ws('; ', v_done.blocked, v_step || ': ' || sqlerrm);
            perform pgflow._put_off(v_step, p_now + interval '10 seconds');
        end;
        exit when v_done.did is not null;
    end loop;
    v_done.again_in := case when v_done.did is not null then interval '0'
        when v_put_off or v_done.blocked is not null then interval '10 seconds'
        else interval '1 minute' end;
    return v_done;
end
$$;
comment on function pgflow._maintain is 'Does the next step of upkeep; see maintain.';

create or replace function pgflow.maintain()
returns pgflow.maintained_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set lock_timeout = '100ms'
as $$
declare
    v_now timestamptz := pgflow.now();
    v_next_at timestamptz := (select u.next_at from pgflow.upkeep u where u.duty = 'maintain');
    v_done pgflow.maintained_v1;
begin
    if v_next_at between v_now and v_now + interval '1 minute' then
        v_done.again_in := v_next_at - v_now;
    elsif not pg_try_advisory_xact_lock(hashtextextended('pgflow.maintain', 0)) then
        v_done.again_in := '10 seconds';
    else
        v_done := pgflow._maintain(v_now);
        if v_done.did is null then
            perform pgflow._put_off('maintain', v_now + v_done.again_in);
        end if;
    end if;
    return v_done;
end
$$;
comment on function pgflow.maintain is
    'Does one step of the upkeep of the whole installation: makes the partitions of the coming '
    'periods, drops those whose runs are past their retention, deletes what else is past it. One '
    'step is one transaction, and takes no lock for which it has to wait longer than 100 ms. Call '
    'it again after again_in, again and again; workers do. Example: select did, again_in from '
    'pgflow.maintain().';
