-- What is ready, and how a worker finds it.
--
-- The index run_is_ready is read in groups (priority, lane), each from a mark on: the last seq that
-- this worker took. Without the mark a claim walks over the dead entries of everything claimed
-- before, which vacuum can't remove while any snapshot is older (34,900 claims a second fell to
-- 10,600 within 200,000 runs; with the mark they stayed at 42,000).
--
-- A mark may pass by a straggler: a run with a lower seq whose transaction commits later. So once a
-- second a group is read from its low mark, below which nothing can appear any more. For that the
-- engine notes the last seq drawn and then takes a transaction id: whoever makes a run ready takes
-- its own before it draws seq, so all who drew lower ones have lower ids, and when
-- pg_snapshot_xmin has passed the noted id they have ended. (pg_snapshot_xmax would not do: it is
-- the last id that has ended, plus one, and a running transaction may be beyond it.) A ready run
-- that is locked, or whose claim is rolled back, stays above the low mark too. Once a minute
-- everything is read from the start all the same.
--
-- Most stragglers are late by milliseconds: of transactions that make runs ready at the same time,
-- the one that drew seq first is not always the first to commit. Whoever got less than asked for
-- looks a little way back the next time, at most each 20 ms: 5000 entries, some 0.3 ms if all are
-- dead. Without it the last of many that were woken at once waited for that second.
--
-- marks, a jsonb that the worker carries from call to call:
--   groups          "queue priority lane" -> [last seq taken, low mark]
--   noted           {seq, xid} of the last note
--   looked_at       epoch of the last look from the low marks
--   looked_back_at  epoch of the last look back, that one or a shorter one
--   started_at      epoch of the last look from the start
--   unsure          there if there was less than asked for, and no look back since
--   idle            absent while there is work; else {since, flagged, xid, wait, busy}

create or replace function pgflow._free_slots(p_project text, p_queue pgflow.queue)
returns integer
language plpgsql
as $$
declare
    v_queue pgflow.queue;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        perform pgflow._refuse('PF503',
            format('queue %s has a limit and needs the isolation level read committed',
                p_queue.queue),
            'Under an older snapshot the slots that others took cannot be counted.',
            'begin isolation level read committed', 'queue');
    end if;
    -- The lock is one statement and the count the next, which sees what the last holder did. The
    -- settings are those of the locked row: they may have changed while we waited.
    select q.* into v_queue from pgflow.queue q
    where q.project_id = p_project and q.queue = p_queue.queue
    for no key update;
    if v_queue.paused_at is not null then
        return 0;
    end if;
    return v_queue.max_concurrent - (
        select count(*) from pgflow.slot s
        where s.project_id = p_project and s.queue = v_queue.queue);
end
$$;
comment on function pgflow._free_slots is
    'How many runs of a limited queue may be leased; locks the queue until the transaction ends. '
    'Raises PF503.';

create or replace function pgflow._note(
    inout p_marks jsonb, p_clock double precision, out anew boolean, out look boolean,
    out look_back boolean, out settled bigint
)
language plpgsql
as $$
declare
    v_seq bigint;
begin
    anew := p_clock - coalesce((p_marks ->> 'started_at')::float8, 0) >= 60;
    if anew then
        p_marks := p_marks || jsonb_build_object('started_at', p_clock);
    end if;
    look := p_clock - coalesce((p_marks ->> 'looked_at')::float8, 0) >= 1;
    look_back := look or p_marks ? 'unsure'
        and p_clock - coalesce((p_marks ->> 'looked_back_at')::float8, 0) >= 0.02;
    if look_back then
        p_marks := (p_marks - 'unsure') || jsonb_build_object('looked_back_at', p_clock);
    end if;
    if not look then
        return;
    end if;
    p_marks := p_marks || jsonb_build_object('looked_at', p_clock);
    if pg_snapshot_xmin(pg_current_snapshot()) > (p_marks #>> '{noted,xid}')::xid8 then
        settled := (p_marks #>> '{noted,seq}')::bigint;
    end if;
    if (settled is not null or p_marks -> 'noted' is null)
        and pg_current_xact_id_if_assigned() is null then
        -- Of a sequence that nobody has drawn from, last_value is the first to be drawn.
        v_seq := (select s.last_value - (not s.is_called)::integer from pgflow.run_seq s);
        p_marks := p_marks || jsonb_build_object('noted',
            jsonb_build_object('seq', v_seq, 'xid', pg_current_xact_id()::text));
    end if;
end
$$;
comment on function pgflow._note is
    'Says whether to look from the start now, for stragglers, or for late ones a little way back, '
    'and up to which seq no more can appear.';

-- Taking from a queue is two statements, more with priorities, and most of many have nothing.
create or replace function pgflow._with_work(
    p_project text, p_queues text[], p_look boolean, p_look_back boolean, p_settled bigint,
    p_groups jsonb, out queues text[], out moved jsonb
)
language plpgsql
as $$
begin
    select array_agg(g.queue order by g.place) filter (where g.has_work),
        jsonb_object_agg(g.name, jsonb_build_array(greatest(g.mark, p_settled), p_settled))
            filter (where p_look and p_settled > g.low and not g.has_work)
    into queues, moved
    from (
        select m.*, exists (
            select from pgflow.run r
            where r.project_id = p_project and r.queue = m.queue and r.priority = m.priority
              and r.lane = m.lane and r.state = 'pending'
              and r.seq > case when p_look then m.low
                               when p_look_back then greatest(m.low, m.mark - 5000)
                               else m.mark end
            order by r.seq
            limit 1) as has_work
        from (
            select n.*, coalesce((p_groups -> n.name ->> 0)::bigint, 0) as mark,
                coalesce((p_groups -> n.name ->> 1)::bigint, 0) as low
            from (
                select u.queue, u.place, p.priority, l.lane,
                    format('%s %s %s', u.queue, p.priority, l.lane) as name
                from unnest(p_queues) with ordinality as u (queue, place)
                cross join lateral (
                    select q.priorities from pgflow.queue q
                    where q.project_id = p_project and q.queue = u.queue
                    limit 1
                ) q
                cross join unnest(q.priorities) as p (priority)
                cross join (values (0), (1)) as l (lane)
            ) n
        ) m
    ) g;
end
$$;
comment on function pgflow._with_work is
    'Those among many queues that have ready runs beyond the worker''s marks, in the order given, '
    'some more than once, and the marks of the others, which a look for stragglers moves.';

-- Takes from one queue, group after group, as many ready runs as there is room for, and moves the
-- marks.
create or replace function pgflow._take(
    p_project text, p_queue pgflow.queue, p_limit integer, p_look boolean, p_look_back boolean,
    p_settled bigint, p_groups jsonb, inout p_bytes bigint, out tids tid[], out moved jsonb
)
language plpgsql
set plan_cache_mode = auto
as $$
declare
    v_priority smallint;
    v_group text;
    v_after bigint;
    v_mark bigint;
    v_low bigint;
    v_tids tid[];
    v_size bigint;
begin
    tids := '{}';
    moved := '{}';
    foreach v_priority in array p_queue.priorities loop
        for v_lane in 0..1 loop
            v_group := format('%s %s %s', p_queue.queue, v_priority, v_lane);
            v_mark := coalesce((p_groups -> v_group ->> 0)::bigint, 0);
            v_low := coalesce((p_groups -> v_group ->> 1)::bigint, 0);
            v_after := case when p_look then v_low
                            when p_look_back then greatest(v_low, v_mark - 5000)
                            else v_mark end;
            select coalesce(array_agg(t.tid), '{}'), max(t.seq), coalesce(sum(t.size), 0)
            into v_tids, v_mark, v_size
            from (
                select c.tid, c.seq, c.size, sum(c.size) over (order by c.seq) as total
                from (
                    select r.ctid as tid, r.seq, pg_column_size(r.input) as size
                    from pgflow.run r
                    where r.project_id = p_project and r.queue = p_queue.queue
                      and r.priority = v_priority and r.lane = v_lane
                      and r.state = 'pending' and r.seq > v_after
                    order by r.seq
                    limit p_limit - cardinality(tids)
                    for update skip locked
                ) c
            ) t
            where t.total - t.size < p_bytes;
            tids := tids || v_tids;
            p_bytes := p_bytes - v_size;
            -- Up to p_settled nothing can appear any more. What is there and was not taken (beyond
            -- the limit, or locked by somebody who may leave it ready) stays above the low mark.
            if p_look and p_settled > v_low then
                v_low := coalesce((
                    select min(r.seq) - 1
                    from pgflow.run r
                    where r.project_id = p_project and r.queue = p_queue.queue
                      and r.priority = v_priority and r.lane = v_lane
                      and r.state = 'pending' and r.seq > v_low and r.seq <= p_settled
                      and r.ctid <> all (v_tids)), p_settled);
            end if;
            v_mark := greatest(v_mark, (p_groups -> v_group ->> 0)::bigint, v_low);
            moved := moved || jsonb_build_object(v_group, jsonb_build_array(v_mark, v_low));
            if cardinality(tids) >= p_limit or p_bytes <= 0 then
                return;
            end if;
        end loop;
    end loop;
end
$$;
comment on function pgflow._take is
    'Locks ready runs of one queue within a number and a size; returns the marks that it moved.';
