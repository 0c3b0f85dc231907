-- Workers: register, beat, stop. A worker that beats keeps all its leases.

create or replace function pgflow._register_handlers(p_project text, p_handlers jsonb)
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
begin
    if jsonb_typeof(p_handlers) <> 'array' then
        perform pgflow._refuse_value('handlers', 'an array of objects', p_handlers::text);
    end if;
    -- Sorted, so that two workers that register the same handlers cannot deadlock.
    insert into pgflow.handler as h (project_id, handler, queue, max_attempts, timeout, retry_base,
        retry_factor, retry_max, undo_on, registered_at)
    select p_project, g.handler, coalesce(g.queue, 'default'), g.max_attempts,
        make_interval(secs => g.timeout), make_interval(secs => coalesce(g.retry_base, 1)),
        coalesce(g.retry_factor, 2), make_interval(secs => coalesce(g.retry_max, 3600)),
        coalesce(g.undo_on, '{}'), v_now
    from jsonb_to_recordset(p_handlers) as g (handler text, queue text, max_attempts integer,
        timeout double precision, retry_base double precision, retry_factor double precision,
        retry_max double precision, undo_on text[])
    order by g.handler collate "C"
    on conflict (project_id, handler) do update
    set queue = excluded.queue, max_attempts = excluded.max_attempts, timeout = excluded.timeout,
        retry_base = excluded.retry_base, retry_factor = excluded.retry_factor,
        retry_max = excluded.retry_max, undo_on = excluded.undo_on,
        registered_at = excluded.registered_at
    where (h.queue, h.max_attempts, h.timeout, h.retry_base, h.retry_factor, h.retry_max, h.undo_on)
          is distinct from (excluded.queue, excluded.max_attempts, excluded.timeout,
              excluded.retry_base, excluded.retry_factor, excluded.retry_max, excluded.undo_on);
exception
    when check_violation or not_null_violation or data_exception or cardinality_violation then
        perform pgflow._refuse_value('handlers',
            'objects, one for each handler, of handler, queue, max_attempts (1 to 1000), '
            'retry_factor (1 to 100), undo_on (an array of failed, cancelled, timeout) and, in '
            'seconds, timeout, retry_base, retry_max (at most 30 days)', sqlerrm);
end
$$;
comment on function pgflow._register_handlers is
    'Stores what a worker says about its handlers; the latest word holds.';

create or replace function pgflow.register_worker(
    worker_id text, queues text[], concurrency integer, handlers jsonb default '[]',
    host text default null, pid integer default null, version text default null,
    project text default null
)
returns pgflow.worker_settings_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(register_worker.project);
    v_now timestamptz := pgflow.now();
    v_settings pgflow.worker_settings_v1;
    v_queue text;
begin
    if register_worker.worker_id is null
        or char_length(register_worker.worker_id) not between 1 and 200
       or register_worker.worker_id ~ '\s' then
        perform pgflow._refuse_value('worker_id', '1 to 200 characters without spaces',
            register_worker.worker_id);
    elsif coalesce(cardinality(register_worker.queues), 0) = 0
       or array_ndims(register_worker.queues) > 1
       or array_position(register_worker.queues, null) is not null
       or exists (select from unnest(register_worker.queues) as u (q)
           where char_length(u.q) not between 1 and 100) then
        perform pgflow._refuse_value('queues', 'one or more names of 1 to 100 characters',
            register_worker.queues::text);
    elsif register_worker.concurrency is null
        or register_worker.concurrency not between 1 and 10000 then
        perform pgflow._refuse_value('concurrency', '1 to 10000',
            register_worker.concurrency::text);
    end if;
    foreach v_queue in array array(select u.q from unnest(register_worker.queues) as u (q)
        order by 1) loop
        perform pgflow._use_queue(v_project, v_queue, 0);
    end loop;
    perform pgflow._register_handlers(v_project, register_worker.handlers);
    insert into pgflow.worker_beat (project_id, worker_id, beat_at)
    values (v_project, register_worker.worker_id, v_now)
    on conflict on constraint worker_beat_pkey do update set beat_at = excluded.beat_at;
    insert into pgflow.worker as w (project_id, worker_id, queues, concurrency, host, pid, version,
        registered_by, started_at)
    values (v_project, register_worker.worker_id, register_worker.queues,
        register_worker.concurrency,
        register_worker.host, register_worker.pid, register_worker.version, pgflow._actor(), v_now)
    on conflict on constraint worker_pkey do update
    set queues = excluded.queues, concurrency = excluded.concurrency, stopped_at = null,
        last_beat_at = null;
    select least(interval '15 seconds', min(q.lease_ttl) / 4) into v_settings.beat_every
    from pgflow.queue q
    where q.project_id = v_project and q.queue = any (register_worker.queues);
    return v_settings;
end
$$;
comment on function pgflow.register_worker is
    'Makes a worker known with its queues and handlers (an array of objects: handler, queue, '
    'max_attempts, undo_on and, in seconds, timeout, retry_base, retry_max); again is harmless. '
    'undo_on names the ends (failed, cancelled, timeout) after which the steps of a run are '
    'undone, by a run of their own. Returns how often it must beat. Example: select * from '
    'pgflow.register_worker(''host:1'', ''{default}'', 10). Raises PF101, PF502.';

create or replace function pgflow._refuse_worker(p_worker text)
returns void
language plpgsql
as $$
begin
    perform pgflow._refuse('PF302', format('unknown worker: %s', left(p_worker, 200)),
        'No worker of that id is registered in this project.', 'Call register_worker first.',
        'worker_id');
end
$$;
comment on function pgflow._refuse_worker is 'Raises PF302.';

create or replace function pgflow._leased(p_project text, p_worker text)
returns uuid[]
language sql
stable
as $$
    select coalesce(array_agg(u.run_id), '{}')
    from pgflow.lease l
    cross join lateral unnest(l.run_ids) as u (run_id)
    where l.project_id = p_project and l.worker_id = p_worker
$$;
comment on function pgflow._leased is
    'The runs that a worker was given, those that it still holds among them.';

-- What was leased in replies that reached the worker it names, or it has ended: a worker may end
-- hundreds of thousands between two beats, and to look for each would take seconds.
create or replace function pgflow._keep_leases(
    p_project text, p_worker text, p_leased_before timestamptz, p_named uuid[], p_batches bigint[]
)
returns uuid[]
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_since timestamptz;
    v_leased uuid[];
begin
    with old as (
        delete from pgflow.lease l
        where l.project_id = p_project and l.worker_id = p_worker
          and (l.leased_at < p_leased_before or l.batch = any (p_batches))
        returning l.batch, l.leased_at, l.run_ids
    )
    select min(o.leased_at), array_agg(u.run_id) into v_since, v_leased
    from old o
    left join lateral unnest(o.run_ids) as u (run_id) on o.batch <> all (p_batches);
    v_leased := array(
        select r.run_id from (select distinct n.id from unnest(v_leased || p_named) as n (id)) u
        cross join lateral (
            select r.run_id from pgflow.run r
            where r.project_id = p_project and r.run_id = u.id and r.worker_id = p_worker
            limit 1
        ) r
        order by r.run_id);
    if v_since is not null and cardinality(v_leased) > 0 then
        insert into pgflow.lease (project_id, worker_id, batch, leased_at, run_ids)
        values (p_project, p_worker, nextval('pgflow.lease_batch'), v_since, v_leased);
    end if;
    return v_leased;
end
$$;
comment on function pgflow._keep_leases is
    'Makes one row of a worker''s older rows of table lease, of what it still holds; returns that.';

-- The worker names what it holds. What it names and has not is lost; what it has and does not name
-- was leased in a reply that never reached it, and goes back. Each run is looked up by its key, as
-- in _advance.
create or replace function pgflow._beat(
    p_project text, p_worker text, p_run_ids uuid[], p_lease_nos integer[], p_batches bigint[]
)
returns setof pgflow.outcome_v1
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_now timestamptz := pgflow.now();
    v_before timestamptz := v_now - interval '5 seconds';
    v_held uuid[];
    v_unnamed uuid[];
begin
    update pgflow.worker_beat b set beat_at = v_now
    where b.project_id = p_project and b.worker_id = p_worker;
    if not found then
        perform pgflow._refuse_worker(p_worker);
    end if;
    v_held := pgflow._keep_leases(p_project, p_worker, v_before, p_run_ids, p_batches);
    v_unnamed := array(
        select r.run_id from unnest(v_held) as u (run_id)
        cross join lateral (
            select r.run_id from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id and r.worker_id = p_worker
              and r.leased_at < v_before
              and not exists (select from unnest(p_run_ids, p_lease_nos) as n (run_id, lease_no)
                              where n.run_id = r.run_id and n.lease_no = r.lease_no)
            for update skip locked
        ) r
        order by r.run_id);
    perform pgflow._give_back(r, v_now, 'run.released', '{"reason": "not held by its worker"}',
        false)
    from unnest(v_unnamed) as u (run_id)
    cross join lateral (
        select r.* from pgflow.run r
        where r.project_id = p_project and r.run_id = u.run_id
        limit 1
    ) r
    order by r.run_id;
    return query
    select n.run_id, 'lost', coalesce(r.state, f.state), f.error_code, f.error_detail
    from unnest(p_run_ids, p_lease_nos) as n (run_id, lease_no)
    left join lateral (
        select r.state, r.lease_no from pgflow.run r
        where r.project_id = p_project and r.run_id = n.run_id
        limit 1
    ) r on true
    left join lateral (
        select f.state, f.error_code, f.error_detail from pgflow.run_finished f
        where f.project_id = p_project and f.run_id = n.run_id
        limit 1
    ) f on true
    where not coalesce(r.state = 'running' and r.lease_no = n.lease_no, false)
    union all
    select n.run_id, 'stops', r.state, null, to_json(r.breakpoints)::text
    from unnest(p_run_ids, p_lease_nos) as n (run_id, lease_no)
    cross join lateral (
        select r.state, r.breakpoints from pgflow.run r
        where r.project_id = p_project and r.run_id = n.run_id and r.state = 'running'
          and r.lease_no = n.lease_no and r.breakpoints is not null
        limit 1
    ) r;
end
$$;
comment on function pgflow._beat is 'Renews a worker''s leases; see beat.';

create or replace function pgflow.beat(
    worker_id text, run_ids uuid[] default '{}', lease_nos integer[] default '{}',
    batches bigint[] default '{}', project text default null
)
returns setof pgflow.outcome_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    if cardinality(beat.run_ids) is distinct from cardinality(beat.lease_nos)
       or array_position(beat.lease_nos, null) is not null then
        perform pgflow._refuse_value('lease_nos', 'one lease number for each run id',
            cardinality(beat.lease_nos) || ' numbers');
    end if;
    return query select b.* from pgflow._beat(pgflow._enter_project(beat.project), beat.worker_id,
        beat.run_ids, beat.lease_nos, coalesce(beat.batches, '{}')) as b;
end
$$;
comment on function pgflow.beat is
    'Keeps all leases of a worker, which names those it holds; returns a line for each that it '
    'has lost (cancelled, paused, reaped: interrupt the handler), and a line `stops` for each run '
    'with breakpoints, a json array in detail. A lease that it doesn''t name within 5 s goes back '
    'to the queue. batches: those that acquire gave it since the last beat; a worker that leases '
    'much should tell, and beat after a hundred: of what was leased in them, all that it doesn''t '
    'name has ended, and needs no look. Raises PF302, PF502.';

create or replace function pgflow.stop_worker(worker_id text, project text default null)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(stop_worker.project);
    v_now timestamptz := pgflow.now();
    v_held uuid[];
begin
    -- First, because it waits for an acquire that is under way.
    delete from pgflow.worker_beat b
    where b.project_id = v_project and b.worker_id = stop_worker.worker_id;
    delete from pgflow.idle_worker i
    where i.project_id = v_project and i.worker_id = stop_worker.worker_id;
    v_held := array(
        select r.run_id from pgflow.run r
        where r.project_id = v_project and r.worker_id = stop_worker.worker_id
          and r.run_id = any (pgflow._leased(v_project, stop_worker.worker_id))
        order by r.run_id
        for update);
    perform pgflow._give_back(r, v_now, 'run.released', '{"reason": "shutdown"}', false)
    from pgflow.run r
    where r.project_id = v_project and r.run_id = any (v_held)
    order by r.run_id;
    delete from pgflow.lease l
    where l.project_id = v_project and l.worker_id = stop_worker.worker_id;
    update pgflow.worker w set stopped_at = v_now
    where w.project_id = v_project and w.worker_id = stop_worker.worker_id and w.stopped_at is null;
    return cardinality(v_held);
end
$$;
comment on function pgflow.stop_worker is
    'Says goodbye: what the worker still holds goes back without using an attempt. Returns how '
    'many runs that were; again is harmless. Raises PF502.';
