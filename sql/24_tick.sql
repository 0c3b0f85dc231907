-- The duties of time: promote what is scheduled, reap what is leased to dead workers, expire what
-- is past its deadline (23_expire). Any worker sees to them, from acquire. Each duty skips locked
-- rows and does a bounded batch. What is scheduled is looked for as index run_is_scheduled says it:
-- it has a run_at, and nothing that the other states have.

create or replace function pgflow._next_due(p_project text, p_after timestamptz)
returns timestamptz
language plpgsql
stable
set enable_seqscan = off
set jit = off
as $$
begin
    return least(
        (select min(r.run_at) from pgflow.run r
         where r.project_id = p_project and r.run_at > p_after
           and r.seq is null and r.waits_for is null and r.pause_reason is null),
        (select min(r.deadline) from pgflow.run r
         where r.project_id = p_project and r.deadline > p_after),
        (select min(r.wake_at) from pgflow.run r
         where r.project_id = p_project and r.wake_at > p_after),
        (select min(t.due_at) from pgflow.task t
         where t.project_id = p_project and t.state = 'open' and t.due_at > p_after),
        (select min(l.due_at) from pgflow.left_behind l
         where l.project_id = p_project and l.due_at > p_after),
        (select min(d.due_at) from pgflow.budget_due d
         where d.project_id = p_project and d.due_at > p_after));
end
$$;
comment on function pgflow._next_due is
    'The first time after p_after at which something is due; null if none.';

create or replace function pgflow._promote(p_project text, p_now timestamptz)
returns integer
language plpgsql
as $$
declare
    v_run_ids uuid[] := array(
        select r.run_id from pgflow.run r
        where r.project_id = p_project and r.run_at <= p_now
          and r.seq is null and r.waits_for is null and r.pause_reason is null
        order by r.run_at
        limit 1000
        for update skip locked);
    v_seqs bigint[] := array(
        select nextval('pgflow.run_seq') from generate_series(1, cardinality(v_run_ids)));
    v_queues text[];
begin
    with promoted as (
        update pgflow.run r
        set state = 'pending', seq = u.seq,
            lane = case when r.first_started_at is null then r.lane else 0 end
        from unnest(v_run_ids, v_seqs) as u (run_id, seq)
        where r.project_id = p_project and r.run_id = u.run_id
        returning r.queue
    )
    select array_agg(p.queue) into v_queues from promoted p;
    perform pgflow._hint_queues(p_project, v_queues);
    return cardinality(v_run_ids);
end
$$;
comment on function pgflow._promote is
    'scheduled -> pending for runs whose time has come; returns how many.';

-- From dead workers to their runs. The beat is locked, so that a worker which beats at this moment
-- waits and then learns what it has lost.
create or replace function pgflow._reap(p_project text, p_now timestamptz)
returns json[]
language plpgsql
as $$
declare
    v_dead record;
    v_reaped json[] := '{}';
begin
    for v_dead in
        select b.worker_id, b.beat_at from pgflow.worker_beat b
        where b.project_id = p_project
          and b.beat_at < p_now - (select min(q.lease_ttl) from pgflow.queue q
                                   where q.project_id = p_project)
          -- Else a hundred that hold nothing would stand before one that holds runs, for a day.
          and (b.beat_at < p_now - interval '1 day'
               or exists (select from pgflow.lease l
                          where l.project_id = p_project and l.worker_id = b.worker_id)
               or exists (select from pgflow.idle_worker i
                          where i.project_id = p_project and i.worker_id = b.worker_id))
        order by b.worker_id
        limit 100
        for update skip locked
    loop
        delete from pgflow.idle_worker i
        where i.project_id = p_project and i.worker_id = v_dead.worker_id;
        v_reaped := v_reaped
            || pgflow._take_all_back(p_project, v_dead.worker_id, v_dead.beat_at, p_now);
        -- A worker that has been dead for a day, and whose runs are all taken back, is forgotten.
        delete from pgflow.worker_beat b
        where b.project_id = p_project and b.worker_id = v_dead.worker_id
          and b.beat_at < p_now - interval '1 day'
          and not exists (select from pgflow.lease l
                          where l.project_id = p_project and l.worker_id = b.worker_id);
        if found then
            update pgflow.worker w set last_beat_at = v_dead.beat_at
            where w.project_id = p_project and w.worker_id = v_dead.worker_id
              and w.stopped_at is null;
        end if;
    end loop;
    -- A worker that stopped above read committed did not see what it claimed at that moment.
    for v_dead in
        select distinct l.worker_id from pgflow.lease l
        where l.project_id = p_project
          and not exists (select from pgflow.worker_beat b
                          where b.project_id = p_project and b.worker_id = l.worker_id)
        order by l.worker_id
    loop
        v_reaped := v_reaped
            || pgflow._take_all_back(p_project, v_dead.worker_id, '-infinity', p_now);
    end loop;
    -- An acquire that was under way when its worker stopped may have left these.
    delete from pgflow.idle_worker i
    where i.project_id = p_project
      and not exists (select from pgflow.worker_beat b
                      where b.project_id = p_project and b.worker_id = i.worker_id);
    return v_reaped;
end
$$;
comment on function pgflow._reap is
    'Takes back the runs of workers that have not beaten for their queue''s lease_ttl; returns a '
    'line for each.';

-- Runs and events name workers, and go on doing so: nothing looks them up there.
create or replace function pgflow._forget_workers(p_project text, p_now timestamptz)
returns void
language plpgsql
set enable_seqscan = off
set jit = off
as $$
declare
    v_before timestamptz := p_now - (
        select greatest(coalesce(i.retention, interval '30 days'), interval '1 day')
        from pgflow.installation i);
begin
    delete from pgflow.worker w
    where w.project_id = p_project and w.worker_id = any (array(
        select g.worker_id from pgflow.worker g
        where g.project_id = p_project and coalesce(g.stopped_at, g.last_beat_at) < v_before
          and not exists (select from pgflow.worker_beat b
                          where b.project_id = p_project and b.worker_id = g.worker_id)
          and not exists (select from pgflow.lease l
                          where l.project_id = p_project and l.worker_id = g.worker_id)
        order by coalesce(g.stopped_at, g.last_beat_at)
        limit 100
        for update skip locked));
end
$$;
comment on function pgflow._forget_workers is
    'Takes away at most 100 workers that stopped, or died, longer ago than finished runs are kept: '
    'a day at least, and 30 days where these are kept for ever.';

create or replace function pgflow._take_all_back(
    p_project text, p_worker text, p_beat_at timestamptz, p_now timestamptz
)
returns json[]
language plpgsql
as $$
declare
    v_leased uuid[] := pgflow._leased(p_project, p_worker);
    v_run pgflow.run;
    v_reaped json[] := '{}';
begin
    for v_run in
        select r.* from pgflow.run r
        join pgflow.queue q on q.project_id = p_project and q.queue = r.queue
        where r.project_id = p_project and r.run_id = any (v_leased) and r.worker_id = p_worker
          and p_beat_at < p_now - q.lease_ttl
        order by r.run_id
        limit 500
        for update of r skip locked
    loop
        v_reaped := v_reaped || pgflow._take_back(v_run, p_now);
    end loop;
    delete from pgflow.lease l
    where l.project_id = p_project and l.worker_id = p_worker
      and not exists (select from pgflow.run r
                      where r.project_id = p_project and r.run_id = any (l.run_ids)
                        and r.worker_id = l.worker_id);
    return v_reaped;
end
$$;
comment on function pgflow._take_all_back is
    'Takes back what a worker holds of queues whose lease_ttl its last beat has outlived, at most '
    '500 runs that nobody locks; returns a line for each.';

create or replace function pgflow._take_back(p_run pgflow.run, p_now timestamptz)
returns json[]
language plpgsql
as $$
declare
    v_run pgflow.run := pgflow._try_lock_family(p_run);
begin
    if v_run.state is distinct from 'running' then
        return '{}';
    end if;
    return array[json_build_object('run_id', v_run.run_id,
        'state', pgflow._fail_lost(v_run, p_now), 'worker_id', v_run.worker_id,
        'attempt_count', v_run.attempt + 1, 'max_attempts', v_run.max_attempts)];
end
$$;
comment on function pgflow._take_back is
    'Takes back a lost run that the caller holds; returns the line that reap tells of it, or none '
    'if somebody holds one of its family.';

create or replace function pgflow._fail_lost(p_run pgflow.run, p_now timestamptz)
returns text
language plpgsql
as $$
begin
    if p_run.attempt + 1 < p_run.max_attempts then
        return pgflow._give_back(p_run, p_now, 'run.requeued',
            jsonb_build_object('reason', 'lease expired', 'worker', p_run.worker_id,
                'attempt', p_run.attempt + 1, 'max_attempts', p_run.max_attempts), true);
    end if;
    perform pgflow._end(p_run.project_id, array[p_run.run_id], array[p_run.lease_no], 'failed',
        null, null,
        null, 'E-RUN-002', format('lease %s of worker %s expired in attempt %s of %s',
            p_run.lease_no,
            p_run.worker_id, p_run.attempt + 1, p_run.max_attempts));
    return 'failed';
end
$$;
comment on function pgflow._fail_lost is
    'running -> pending for a run whose lease expired, or failed with E-RUN-002 if its attempts '
    'are used up.';

-- Each is asked for in the order of its index: mostly nothing is due, and no planner then prefers
-- to walk over all that is not.
create or replace function pgflow._is_due(p_project text, p_now timestamptz)
returns boolean
language plpgsql
stable
set enable_seqscan = off
set jit = off
as $$
begin
    return coalesce(
        (select true from pgflow.run r
         where r.project_id = p_project and r.run_at <= p_now
           and r.seq is null and r.waits_for is null and r.pause_reason is null
         order by r.run_at
         limit 1),
        (select true from pgflow.run r
         where r.project_id = p_project and r.deadline <= p_now
           and (r.state <> 'paused' or pgflow._stands_still(r))
         order by r.deadline
         limit 1),
        (select true from pgflow.run r
         where r.project_id = p_project and r.wake_at <= p_now and r.state <> 'paused'
         order by r.wake_at
         limit 1),
        (select true from pgflow._due_tasks(p_project, p_now) limit 1),
        (select true from pgflow.left_behind l
         where l.project_id = p_project and l.due_at <= p_now
         limit 1),
        (select true from pgflow.budget_due d
         where d.project_id = p_project and d.due_at <= p_now
         order by d.due_at
         limit 1),
        false);
end
$$;
comment on function pgflow._is_due is 'Whether anything is due of what the tick sees to.';

-- The lock is held for this transaction only; whoever doesn't get it has nothing to do.
create or replace function pgflow._tick(
    p_project text, p_now timestamptz, out promoted integer, out reaped json[], out expired integer
)
language plpgsql
set enable_seqscan = off
set jit = off
as $$
begin
    if not pg_try_advisory_xact_lock(hashtextextended('pgflow.tick ' || p_project, 0)) then
        return;
    end if;
    promoted := pgflow._promote(p_project, p_now);
    reaped := pgflow._reap(p_project, p_now);
    expired := pgflow._expire(p_project, p_now);
    perform pgflow._end_left_behind(p_project, p_now);
    perform pgflow._end_overtime(p_project, p_now);
    perform pgflow._forget_workers(p_project, p_now);
    perform pgflow._trim_outbox(p_project);
    -- Not while something is left that is due: a full batch, a run that was locked. And once a
    -- second at most: a row that is updated all the time grows slow under a held snapshot.
    if cardinality(reaped) < 500 and expired < 500 and not pgflow._is_due(p_project, p_now) then
        update pgflow.tick t set last_at = p_now
        where t.project_id = p_project and t.last_at < p_now - interval '1 second';
    end if;
end
$$;
comment on function pgflow._tick is
    'Sees to all duties of time; all nulls if somebody else is at it.';

create or replace function pgflow._tick_every(p_project text)
returns interval
language plpgsql
stable
as $$
begin
    return (
        select least(interval '10 seconds', min(q.lease_ttl) / 4)
        from pgflow.queue q
        where q.project_id = p_project);
end
$$;
comment on function pgflow._tick_every is
    'How often somebody has to tick: each 10 s, or a quarter of the shortest lease_ttl.';

create or replace function pgflow._tick_if_due(p_project text, p_now timestamptz)
returns json
language plpgsql
as $$
declare
    v_last_at timestamptz := (select t.last_at from pgflow.tick t where t.project_id = p_project);
begin
    if v_last_at < p_now - pgflow._tick_every(p_project)
       or pgflow._next_due(p_project, v_last_at) <= p_now then
        return (select nullif(array_to_json(t.reaped)::text, '[]')::json
            from pgflow._tick(p_project, p_now) as t);
    end if;
    return null;
end
$$;
comment on function pgflow._tick_if_due is
    'Ticks if something is due since the last tick, or if that is 10 s (or a quarter of the '
    'shortest lease_ttl) ago; returns what it reaped.';

create or replace function pgflow._count_reaped(p_reaped json[], p_state text)
returns integer
language sql
immutable
as $$
    select case when p_reaped is not null then
        (select count(*)::integer from unnest(p_reaped) as r (line)
            where r.line ->> 'state' = p_state) end
$$;
comment on function pgflow._count_reaped is
    'How many of the reaped runs are in a state; null for null.';

create or replace function pgflow.tick(project text default null)
returns table (promoted integer, requeued integer, failed integer, expired integer)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    return query
    select t.promoted, pgflow._count_reaped(t.reaped, 'pending'),
    pgflow._count_reaped(t.reaped, 'failed'),
        t.expired
    from pgflow._tick(pgflow._enter_project(tick.project), pgflow.now()) as t;
end
$$;
comment on function pgflow.tick is
    'Promotes scheduled runs, reaps dead workers'' runs, expires deadlines, and returns how many '
    'of each; nulls if somebody else is doing it. Workers do it in acquire; this is for tests, '
    'cron and operators. Raises PF502.';

create or replace function pgflow.reap(project text default null)
returns table (requeued integer, failed integer)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    return query
    select pgflow._count_reaped(r.reaped, 'pending'), pgflow._count_reaped(r.reaped, 'failed')
    from pgflow._reap(pgflow._enter_project(reap.project), pgflow.now()) as r (reaped);
end
$$;
comment on function pgflow.reap is
    'Takes back the runs of dead workers and returns how many were requeued and how many failed '
    '(E-RUN-002). Raises PF502.';
