-- Many signals in one statement. Most go to runs that wait for just that, one each: these are woken
-- together, by the statements that _signal, _resolve and _wake would execute for each.

create or replace function pgflow._lock_runs(p_project text, p_run_ids uuid[])
returns void
language plpgsql
as $$
begin
    perform from (select distinct i.run_id from unnest(p_run_ids) as i (run_id) order by 1) u
    cross join lateral (
        select from pgflow.run r
        where r.project_id = p_project and r.run_id = u.run_id
        for update
    ) r;
end
$$;
comment on function pgflow._lock_runs is 'Locks runs, those that live, in the order of their ids.';

create or replace function pgflow._signal_waiting(
    p_project text, p_run_ids uuid[], p_payloads jsonb[], p_now timestamptz, p_name text, p_key text
)
returns uuid[]
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_actor text := pgflow._actor();
    v_received jsonb := jsonb_strip_nulls(jsonb_build_object('name', p_name, 'key', p_key));
    v_woken uuid[];
    v_queues text[];
    v_watched uuid[];
    v_told uuid[];
    v_event_nos integer[];
begin
    -- Before seq is drawn; see _enqueue.
    perform pg_current_xact_id();
    with waiting as materialized (
        select r.ctid as place, r.run_id, r.queue, r.attempt, r.news, r.last_event_no, r.watched,
            r.waits_for[1] as key, decode(r.waits #>> '{0,digest}', 'hex') as digest, s.payload,
            nextval('pgflow.run_seq') as seq
        from (
            select u.run_id, u.payload, count(*) over (partition by u.run_id) as times
            from unnest(p_run_ids, p_payloads) as u (run_id, payload)
        ) s
        cross join lateral (
            select r.*, r.ctid from pgflow.run r
            where r.project_id = p_project and r.run_id = s.run_id and s.times = 1
            limit 1
        ) r
        where r.state = 'waiting_event' and r.kind = 'handler' and r.step is null and not r.wait_any
          and cardinality(r.waits_for) = 1 and jsonb_array_length(r.waits) = 1
          and r.waits @> jsonb_build_array(jsonb_build_object('kind', 'event', 'name', p_name,
              'key', r.waits_for[1]))
          and not exists (
              select from pgflow.signal s
              where s.project_id = p_project and s.run_id = r.run_id and s.key = p_key)
          and not exists (
              select from pgflow.journal j
              where j.project_id = p_project and j.run_id = r.run_id and j.key = r.waits_for[1])
    ),
    sent as (
        insert into pgflow.signal (project_id, run_id, signal_no, name, key, at, by, taken_as,
            payload)
        select p_project, w.run_id, w.last_event_no + 1, p_name, p_key, p_now, v_actor, w.key,
            w.payload
        from waiting w
    ),
    told as (
        insert into pgflow.event (project_id, run_id, event_no, type, attempt, at, by, payload)
        select p_project, w.run_id, w.last_event_no + l.nth, l.type, w.attempt, p_now, v_actor,
            l.payload
        from waiting w
        cross join lateral (values
            (1, 'signal.received', v_received),
            (2, 'signal.taken', jsonb_build_object('name', p_name,
                'signal_no', w.last_event_no + 1, 'key', w.key)),
            (3, 'run.woken', jsonb_build_object('key', p_name))
        ) as l (nth, type, payload)
        returning run_id, event_no
    ),
    known as (
        insert into pgflow.journal (project_id, run_id, key, kind, news, event_no, at, digest,
            value)
        select p_project, w.run_id, w.key, 'event', w.news + 1, w.last_event_no + 2, p_now,
            w.digest, w.payload
        from waiting w
    ),
    woken as (
        update pgflow.run r
        set state = 'pending', lane = 0, seq = w.seq, last_event_no = w.last_event_no + 3,
            news = w.news + 1, waits = null, waits_for = null, wait_any = false, wake_at = null
        from waiting w
        where r.ctid = w.place
    )
    select array_agg(w.run_id), array_agg(distinct w.queue),
        array_agg(w.run_id) filter (where w.watched), (select array_agg(t.run_id) from told t),
        (select array_agg(t.event_no) from told t)
    into v_woken, v_queues, v_watched, v_told, v_event_nos
    from waiting w;
    if v_watched is not null then
        perform pgflow._hint_watchers(p_project, v_watched);
    end if;
    if pgflow._is_followed(p_project) then
        perform pgflow._publish(p_project, v_told, v_event_nos);
    end if;
    perform pgflow._hint_queues(p_project, v_queues);
    return coalesce(v_woken, '{}');
end
$$;
comment on function pgflow._signal_waiting is
    'Sends a signal to those of many runs that wait for it and nothing else, and makes them ready; '
    'returns them. The caller holds the runs, in an earlier statement.';

create or replace function pgflow.signal_many(
    run_ids uuid[], name text, payloads jsonb[] default null, idempotency_key text default null,
    project text default null
)
returns setof pgflow.outcome_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(signal_many.project);
    v_now timestamptz := pgflow.now();
    v_woken uuid[];
    v_sent record;
    v_run pgflow.run;
    v_first pgflow.signal;
begin
    perform pgflow._check_signal(signal_many.name, signal_many.idempotency_key,
        (select max(pg_column_size(u.payload)) from unnest(signal_many.payloads) as u (payload)));
    if coalesce(cardinality(signal_many.run_ids), 0) not between 1 and 10000
       or array_position(signal_many.run_ids, null) is not null then
        perform pgflow._refuse_value('run_ids', '1 to 10000 run ids',
            cardinality(signal_many.run_ids) || ' run ids');
    elsif cardinality(signal_many.payloads) <> cardinality(signal_many.run_ids) then
        perform pgflow._refuse_value('payloads', 'one for each run id, or null',
            cardinality(signal_many.payloads) || ' payloads');
    end if;
    perform pgflow._lock_family(v_project, signal_many.run_ids);
    perform pgflow._lock_runs(v_project, signal_many.run_ids);
    v_woken := pgflow._signal_waiting(v_project, signal_many.run_ids, signal_many.payloads, v_now,
        signal_many.name, signal_many.idempotency_key);
    for v_sent in
        select u.run_id, u.payload
        from unnest(signal_many.run_ids, signal_many.payloads) with ordinality
            as u (run_id, payload, nth)
        where u.run_id not in (select w.run_id from unnest(v_woken) as w (run_id))
        order by u.run_id, u.nth
    loop
        v_run := pgflow._locked(v_project, v_sent.run_id);
        v_first := pgflow._signal_of_key(v_project, v_sent.run_id, signal_many.idempotency_key);
        if v_first.signal_no is not null and v_first.name = signal_many.name
            and v_first.payload is not distinct from v_sent.payload
        then
            return query select v_sent.run_id, 'already', v_run.state, null::text, null::text;
        elsif v_first.signal_no is not null then
            return query select v_sent.run_id, 'refused', v_run.state, 'PF401',
                format('idempotency key %s was used for another signal',
                    signal_many.idempotency_key);
        elsif v_run.run_id is null then
            return query select v_sent.run_id, 'refused', f.state,
                case when f.state is null then 'PF102' else 'PF202' end,
                case when f.state is null then 'unknown run' else 'already finished' end
            from (values (1)) as one
            left join pgflow.run_finished f
                on f.project_id = v_project and f.run_id = v_sent.run_id;
        else
            perform pgflow._signal(v_run, v_now, signal_many.name, v_sent.payload,
                signal_many.idempotency_key);
        end if;
    end loop;
end
$$;
comment on function pgflow.signal_many is
    'Sends many runs a signal in one statement, each its own payload, or null. Returns a line for '
    'each not simply done: already (the same key again), or refused, with why; an unknown or '
    'finished run keeps no other from its signal. Example: select * from pgflow.signal_many(array('
    'select run_id from pgflow.runs where state = ''waiting_event''), ''opened''). Raises PF101, '
    'PF502.';
