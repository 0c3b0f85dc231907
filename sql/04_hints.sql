-- NOTIFY is a hint, never the truth: it takes a lock on the whole instance at commit (32
-- connections enqueue 12,400 rows a second without, 4,700 with one each). So hint only where a
-- worker is idle.
--
-- No hint is lost: a transaction that makes work has its transaction id before it reads
-- idle_worker. A worker that goes idle commits its row, then takes and notes a transaction id,
-- looks again, and goes on polling until every transaction with a lower id has ended (acquire does
-- all this). Whoever has a higher one saw the row, except under a snapshot taken before: above read
-- committed the hint is always sent.

create or replace function pgflow._wake_workers(p_project text, p_queue text)
returns void
language plpgsql
as $$
begin
    perform pg_notify('pgflow', 'work ' || p_project || ' ' || p_queue);
end
$$;
comment on function pgflow._wake_workers is 'Wakes idle workers of a queue.';

create or replace function pgflow._hint_work(p_project text, p_queue text)
returns void
language plpgsql
as $$
begin
    if current_setting('transaction_isolation') <> 'read committed'
       or exists (select from pgflow.idle_worker i
                  where i.project_id = p_project and i.queue = p_queue) then
        perform pgflow._wake_workers(p_project, p_queue);
    end if;
end
$$;
comment on function pgflow._hint_work is
    'Wakes idle workers of a queue, if it has any. Call it after the work is written.';

create or replace function pgflow._hint_queues(p_project text, p_queues text[])
returns void
language plpgsql
as $$
begin
    perform pgflow._hint_work(p_project, u.queue)
    from (select distinct q.queue from unnest(p_queues) as q (queue)) u;
end
$$;
comment on function pgflow._hint_queues is
    'Wakes idle workers of several queues; null is none of them.';

create or replace function pgflow._hint_worker(p_project text, p_worker text)
returns void
language plpgsql
as $$
begin
    perform pg_notify('pgflow', 'beat ' || p_project || ' ' || p_worker);
end
$$;
comment on function pgflow._hint_worker is
    'Asks a worker to beat at once, because a lease of its was taken away.';

create or replace function pgflow._hint_watchers(
    p_project text, p_run_ids uuid[], p_have_ended boolean default false
)
returns void
language plpgsql
as $$
begin
    perform pg_notify('pgflow', concat_ws(' ', 'run', p_project, u.run_id,
        case when p_have_ended then 'ended' end))
    from unnest(p_run_ids) as u (run_id);
end
$$;
comment on function pgflow._hint_watchers is
    'Tells whoever watches these runs that their timelines have grown, or have their last line. '
    'Call it for watched runs only, by whoever holds them.';

create or replace function pgflow.watch(run_id uuid, project text default null)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(watch.project);
    v_state text;
    v_queue text;
begin
    select r.state into v_state from pgflow.run r
    where r.project_id = v_project and r.run_id = watch.run_id and r.watched;
    if found then
        return v_state;
    end if;
    update pgflow.run r set watched = true
    where r.project_id = v_project and r.run_id = watch.run_id
    returning r.state, r.queue into v_state, v_queue;
    if not found then
        return pgflow._finished_state(v_project, watch.run_id);
    end if;
    -- Whoever looked for work meanwhile skipped the row, because it was locked.
    if v_state = 'pending' then
        perform pgflow._hint_work(v_project, v_queue);
    end if;
    return v_state;
end
$$;
comment on function pgflow.watch is
    'Asks for a hint at each new line of a live run''s timeline, ''run PROJECT RUN_ID'', and at '
    'its end, ''run PROJECT RUN_ID ended'', on channel pgflow, to whoever listens there by then. '
    'Again is a no-op. Returns the state that the run is in. Example: select '
    'pgflow.watch(''...''). Raises PF102, PF502.';

create or replace function pgflow._hint_inbox(p_project text)
returns void
language plpgsql
as $$
begin
    if exists (select from pgflow.project p
               where p.project_id = p_project and p.inbox_watched_until > pgflow.now()) then
        perform pg_notify('pgflow', 'inbox ' || p_project);
    end if;
end
$$;
comment on function pgflow._hint_inbox is
    'Tells whoever watches the inbox of a project that it has changed.';

create or replace function pgflow.watch_inbox(project text default null)
returns timestamptz
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(watch_inbox.project);
    v_now timestamptz := pgflow.now();
    v_until timestamptz;
begin
    -- A row that is updated by each who looks grows slow under a held snapshot.
    update pgflow.project p set inbox_watched_until = v_now + interval '5 minutes'
    where p.project_id = v_project
      and (p.inbox_watched_until is null or p.inbox_watched_until < v_now + interval '3 minutes');
    select p.inbox_watched_until into v_until from pgflow.project p
    where p.project_id = v_project;
    return v_until;
end
$$;
comment on function pgflow.watch_inbox is
    'Asks for a hint at each change of the project''s inbox, a new task above all: ''inbox '
    'PROJECT'' on channel pgflow, to whoever listens there by then. Returns until when, at least 3 '
    'minutes on: ask again before. Example: select pgflow.watch_inbox(). Raises PF502.';
