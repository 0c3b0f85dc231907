-- Acquire: pending -> running. Locks the ready runs it takes, skipping what others have locked, and
-- sees to what is due. 08_ready has the marks, 04_hints the reason of what _idle does.

create or replace function pgflow._lease(
    p_project text, p_worker text, p_batch bigint, p_tids tid[], p_limited text[]
)
returns json
language plpgsql
as $$
declare
    v_runs json;
    v_watched uuid[];
    v_run_ids uuid[];
    v_is_followed boolean;
    v_now timestamptz := pgflow.now();  -- after the look: later than any creation that it saw
begin
    -- A lease hangs on its worker's beat: stop_worker and reap, which delete that row, wait for
    -- this or make it fail. Otherwise a run leased meanwhile would never be taken back.
    perform from pgflow.worker_beat b
    where b.project_id = p_project and b.worker_id = p_worker
    for key share;
    if not found then
        perform pgflow._refuse_worker(p_worker);
    end if;
    with leased as (
        update pgflow.run r
        set state = 'running', worker_id = p_worker, leased_at = v_now, lease_no = r.lease_no + 1,
            first_started_at = coalesce(r.first_started_at, v_now),
            last_event_no = r.last_event_no + 1, lease_event_no = r.last_event_no + 1,
            slotted = r.queue = any (p_limited)
        where r.ctid = any (p_tids)
        returning r.run_id, r.lease_no, r.handler, r.queue, r.input, r.news, r.attempt,
            r.max_attempts, r.timeout, r.deadline, r.correlation_id, r.tags, r.priority, r.lane,
            r.seq, r.slotted, r.watched, r.created_by, r.round, r.feedback, r.breakpoints,
            r.parent_run_id, r.root_run_id, r.undo_of, r.step,
            case when r.step_count + r.news > 0
                 then pgflow._journal(p_project, r.run_id, null) end as journal,
            case when r.round > 0 or r.undo_of is not null
                 then pgflow._to_undo(r) end as undo,
            case when r.budget_run_id is not null
                 then pgflow._budget_left(r, v_now) end as budget
    ),
    batch as (
        insert into pgflow.lease (project_id, worker_id, batch, leased_at, run_ids)
        select p_project, p_worker, p_batch, v_now, array_agg(l.run_id)
        from leased l
    ),
    slots as (
        insert into pgflow.slot (project_id, queue, run_id, lease_no)
        select p_project, l.queue, l.run_id, l.lease_no
        from leased l
        where l.slotted
    )
    -- json_build_object costs 3 µs a run more, a sixth of acquire; concat passes over nulls.
    select ('[' || string_agg(concat(
            '{"run_id":"', l.run_id, '","lease_no":', l.lease_no,
            ',"handler":', to_json(l.handler), ',"queue":', to_json(l.queue),
            ',"input":', l.input, ',"news":', l.news, ',"attempt":', l.attempt,
            ',"max_attempts":', l.max_attempts, ',"priority":', l.priority,
            ',"created_by":', to_json(l.created_by),
            ',"timeout":' || extract(epoch from l.timeout),
            ',"deadline":' || to_json(l.deadline)::text,
            ',"correlation_id":' || to_json(l.correlation_id)::text,
            ',"tags":' || to_json(l.tags)::text, ',"journal":' || l.journal::text,
            ',"round":' || nullif(l.round, 0), ',"feedback":' || l.feedback::text,
            ',"breakpoints":' || to_json(l.breakpoints)::text,
            case when l.slotted then ',"slotted":true' end,
            ',"parent_run_id":"' || l.parent_run_id || '"',
            ',"root_run_id":"' || l.root_run_id || '"', ',"undo_of":"' || l.undo_of || '"',
            ',"undo":' || l.undo::text, ',"budget":' || l.budget::text, ',"flow":' || c.context,
            '}'),
            ',' order by l.priority desc, l.lane, l.seq) || ']')::json,
        array_agg(l.run_id) filter (where l.watched), array_agg(l.run_id),
        -- As _is_followed; the runs were locked by an earlier statement.
        current_setting('transaction_isolation') <> 'read committed' or exists (
            select from pgflow.subscription s where s.project_id = p_project)
    into v_runs, v_watched, v_run_ids, v_is_followed
    from leased l
    left join pgflow._step_contexts(p_project,
        (select array_agg(s.run_id) from leased s where s.step is not null)) as c using (run_id);
    if v_watched is not null then
        perform pgflow._hint_watchers(p_project, v_watched);
    end if;
    if v_is_followed then
        perform pgflow._publish(p_project, v_run_ids);
    end if;
    return v_runs;
end
$$;
comment on function pgflow._lease is
    'Leases locked pending rows to a worker; returns them as a json array of objects, without the '
    'fields that are null.';

create or replace function pgflow._journal(p_project text, p_run_id uuid, p_after_news integer)
returns json
language plpgsql
stable
as $$
begin
    return (
        select json_agg(json_build_object('key', j.key, 'kind', j.kind, 'value', j.value,
            'digest', encode(j.digest, 'hex'), 'lease_no', j.lease_no) order by j.event_no, j.key)
        from pgflow.journal j
        where j.project_id = p_project and j.run_id = p_run_id
          and (p_after_news is null or j.news > p_after_news));
end
$$;
comment on function pgflow._journal is
    'A run''s journal as a json array, or only what others wrote after p_after_news.';

create or replace function pgflow._acquire(
    p_project text, p_worker text, p_queues text[], p_max_runs integer, p_marks jsonb,
    p_listening boolean
)
returns pgflow.acquired_v1
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_clock double precision := extract(epoch from clock_timestamp());
    -- Before the look: a transaction that ends in between is neither seen by the look nor hints.
    v_xmin xid8 := pg_snapshot_xmin(pg_current_snapshot());
    v_marks jsonb := coalesce(p_marks - 'groups', '{}');
    v_groups jsonb;  -- large, where there are many queues: taken out, and put back at the end
    v_anew boolean;
    v_look boolean;
    v_look_back boolean;
    v_settled bigint;
    v_queues text[] := p_queues;
    v_moved jsonb := jsonb '{}';
    v_known pgflow.queue[];
    v_queue pgflow.queue;
    v_have_limits boolean;
    v_limited text[] := '{}';
    v_room integer;
    v_bytes bigint := bigint '8388608';
    v_tids tid[] := '{}';
    v_free jsonb := jsonb '{}';
    v_taken record;
    v_acquired pgflow.acquired_v1;
begin
    -- First: it takes a transaction id, which must be younger than what it notes.
    select n.* into v_marks, v_anew, v_look, v_look_back, v_settled
        from pgflow._note(v_marks, v_clock) as n;
    v_groups := case when v_anew then '{}' else coalesce(p_marks -> 'groups', '{}') end;
    perform pgflow._keep_beating(p_project, p_worker, v_now);
    v_acquired.reaped := pgflow._tick_if_due(p_project, v_now);
    if cardinality(p_queues) > 10 then
        select w.queues, coalesce(w.moved, '{}') into v_queues, v_moved
        from pgflow._with_work(p_project, p_queues, v_look, v_look_back, v_settled,
            v_groups) as w;
    end if;
    select coalesce(array_agg(k.queue order by u.place), '{}'),
        bool_or((k.queue).max_concurrent is not null)
    into v_known, v_have_limits
    from (
        select n.queue, min(n.place) as place
        from unnest(v_queues) with ordinality as n (queue, place)
        group by n.queue
    ) u
    cross join lateral (
        select q as queue from pgflow.queue q
        where q.project_id = p_project and q.queue = u.queue and q.paused_at is null
        limit 1
    ) k;
    -- Limited queues are locked in the order of their names, and taken from in the worker's order.
    if v_have_limits then
        for v_queue in
            select q.* from unnest(v_known) as q
            where q.max_concurrent is not null
            order by q.queue
        loop
            v_limited := v_limited || v_queue.queue;
            v_free := v_free || jsonb_build_object(v_queue.queue,
                pgflow._free_slots(p_project, v_queue));
        end loop;
    end if;
    foreach v_queue in array v_known loop
        v_room := least(p_max_runs - cardinality(v_tids), (v_free ->> v_queue.queue)::integer);
        continue when v_room <= 0 or v_bytes <= 0;
        v_taken := pgflow._take(p_project, v_queue, v_room, v_look, v_look_back, v_settled,
            v_groups, v_bytes);
        v_moved := v_moved || v_taken.moved;
        v_bytes := v_taken.p_bytes;
        v_tids := v_tids || v_taken.tids;
    end loop;
    v_groups := v_groups || v_moved;
    if not v_look_back and cardinality(v_tids) < p_max_runs then
        v_marks := v_marks || '{"unsure": true}';
    end if;
    if cardinality(v_tids) > 0 then
        v_acquired.batch := nextval('pgflow.lease_batch');
        v_acquired.runs := pgflow._lease(p_project, p_worker, v_acquired.batch, v_tids, v_limited);
        v_acquired.marks := pgflow._busy(p_project, p_worker, v_marks);
        v_acquired.look_again_in := '0';
    else
        v_acquired.runs := '[]';
        v_acquired.marks := pgflow._idle(p_project, p_worker, p_queues, v_marks, v_groups,
            v_clock, v_xmin, p_listening);
        v_acquired.look_again_in := least(
            make_interval(secs => (v_acquired.marks #>> '{idle,wait}')::float8),
            pgflow._next_due(p_project, v_now) - v_now);
    end if;
    v_acquired.marks := v_acquired.marks || jsonb_build_object('groups', v_groups);
    return v_acquired;
end
$$;
comment on function pgflow._acquire is 'Leases ready runs to a worker; see acquire.';

create or replace function pgflow._keep_beating(p_project text, p_worker text, p_now timestamptz)
returns void
language plpgsql
as $$
declare
    v_beat_at timestamptz;
begin
    select b.beat_at into v_beat_at from pgflow.worker_beat b
    where b.project_id = p_project and b.worker_id = p_worker;
    if not found then
        perform pgflow._refuse_worker(p_worker);
    elsif v_beat_at < p_now - interval '5 seconds' then
        -- A lease must not be taken under a beat that is about to run out.
        update pgflow.worker_beat b set beat_at = p_now
        where b.project_id = p_project and b.worker_id = p_worker;
    end if;
end
$$;
comment on function pgflow._keep_beating is
    'Beats if the last beat is older than 5 s. Raises PF302.';

-- An idle worker says so in idle_worker once it has been idle for 50 ms; 04_hints says why this
-- loses no hint. wait is the seconds until it looks again by itself.
create or replace function pgflow._idle(
    p_project text, p_worker text, p_queues text[], p_marks jsonb, p_groups jsonb,
    p_clock double precision, p_xmin xid8, p_listening boolean
)
returns jsonb
language plpgsql
as $$
declare
    v_idle jsonb := coalesce(p_marks -> 'idle', '{}');
    v_wait double precision := coalesce((v_idle ->> 'wait')::float8, 0);
begin
    v_idle := v_idle - 'busy';
    if v_idle ->> 'since' is null then
        v_idle := v_idle || jsonb_build_object('since', p_clock);
    end if;
    if not p_listening then
        v_wait := least(greatest(v_wait * 2, 0.02), 0.25);
    elsif not v_idle ? 'flagged' then
        -- Until then it polls, ever slower, for nobody hints at work.
        v_wait := least(greatest(v_wait * 2, 0.002),
            0.05 - (p_clock - (v_idle ->> 'since')::float8));
        if v_wait <= 0.001 then
            insert into pgflow.idle_worker (project_id, queue, worker_id)
            select p_project, u.queue, p_worker from unnest(p_queues) as u (queue)
            on conflict do nothing;
            v_idle := v_idle || jsonb_build_object('flagged', pg_current_xact_id()::text);
            v_wait := 0.001;
        end if;
    elsif not v_idle ? 'xid' then
        -- The first look after the flag was committed: whoever takes a later id will see it.
        if v_idle ->> 'flagged' <> pg_current_xact_id()::text then
            v_idle := v_idle || jsonb_build_object('xid', pg_current_xact_id()::text);
        end if;
        v_wait := 0.02;
    elsif p_xmin <= (v_idle ->> 'xid')::xid8 then
        v_wait := least(v_wait * 2, 0.25);
    elsif not exists (
        select from pgflow.idle_worker i
        where i.project_id = p_project and i.worker_id = p_worker and i.queue = any (p_queues)
    ) then
        -- It was taken for dead, and its flag with it: say it again.
        v_idle := v_idle - 'flagged' - 'xid';
        v_wait := 0.001;
    else
        v_wait := extract(epoch from pgflow._tick_every(p_project));
        -- A run that was locked when the mark passed by is found from the low mark alone.
        if exists (select from jsonb_each(p_groups) as g
                   where (g.value ->> 1)::bigint < (g.value ->> 0)::bigint) then
            v_wait := least(v_wait, case when p_marks ? 'unsure' then 0.02 else 1 end);
        end if;
    end if;
    return p_marks || jsonb_build_object('idle', v_idle || jsonb_build_object('wait', v_wait));
end
$$;
comment on function pgflow._idle is 'Takes note that a look found nothing, and how long to wait.';

-- One run that a hint brought doesn't end idleness; a second look that finds work does.
create or replace function pgflow._busy(p_project text, p_worker text, p_marks jsonb)
returns jsonb
language plpgsql
as $$
declare
    v_idle jsonb := p_marks -> 'idle';
begin
    if v_idle is null then
        return p_marks;
    elsif v_idle ? 'flagged' and not v_idle ? 'busy' then
        return p_marks || jsonb_build_object('idle', v_idle || '{"busy": true}');
    end if;
    delete from pgflow.idle_worker i where i.project_id = p_project and i.worker_id = p_worker;
    return p_marks - 'idle';
end
$$;
comment on function pgflow._busy is
    'Takes note that a look found work; ends the hints if it goes on.';

create or replace function pgflow.acquire(
    worker_id text, queues text[], max_runs integer, marks jsonb default null,
    listening boolean default true, project text default null
)
returns pgflow.acquired_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(acquire.project);
begin
    if acquire.max_runs is null or acquire.max_runs not between 1 and 10000 then
        perform pgflow._refuse_value('max_runs', '1 to 10000', acquire.max_runs::text);
    elsif coalesce(cardinality(acquire.queues), 0) = 0 then
        perform pgflow._refuse_value('queues', 'one or more names', acquire.queues::text);
    elsif jsonb_typeof(acquire.marks) <> 'object' then
        perform pgflow._refuse_value('marks', 'what the last acquire returned, or null',
            acquire.marks::text);
    end if;
    return pgflow._acquire(v_project, acquire.worker_id, acquire.queues, acquire.max_runs,
        acquire.marks, coalesce(acquire.listening, true));
end
$$;
comment on function pgflow.acquire is
    'Leases up to max_runs ready runs of the queues to a worker, at most 8 MB of input, and sees '
    'to what is due. Give marks back at the next call; without work, sleep for look_again_in or '
    'until a hint on channel pgflow (which is sent only to workers that say they are listening). '
    'Example: select * from pgflow.acquire(''host:1'', ''{default}'', 10). Raises PF101, PF302, '
    'PF502, PF503.';
