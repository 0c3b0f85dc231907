-- The journal: what a run has learned. A step's result is written by its worker, under its lease.

-- Runs and entries are found by their primary keys, and lists are joined by merging: for lists
-- whose length it doesn't know the planner likes the index of running runs and nested loops, which
-- is quadratic (500 steps in 60 ms instead of 8). So the state stands in a `case`, where no index
-- can use it, and nested loops are off. Merging goes by run_id, the order of locks; hashing
-- and bitmap scans would not. The plan is made once, and the least and the greatest id tell it
-- which partitions of the journal to look into; for a list of ids it would be made each time.
-- A budget takes the lease in the transaction that counts a call, before the step in which it was
-- made can tell its result. Without that the model would be called, and paid for, once more. The
-- number still fences: nobody has leased the run since. And so does the round: what was done before
-- the run went back counts no more, whoever tells it.
create or replace function pgflow._was_counted_in(
    p_project text, p_run_id uuid, p_lease_no integer, p_round integer, p_step text
)
returns boolean
language plpgsql
stable
as $$
begin
    return exists (
        select from pgflow.usage u
        where u.project_id = p_project and u.run_id = p_run_id and u.lease_no = p_lease_no
          and u.round = p_round and u.step = p_step);
end
$$;
comment on function pgflow._was_counted_in is
    'Whether a call of a model was counted in a step under a lease, and in that round of the run.';

create or replace function pgflow._record_step(
    p_project text, p_run_ids uuid[], p_lease_nos integer[], p_keys text[], p_digests text[],
    p_values text[], p_undos boolean[]
)
returns setof pgflow.outcome_v1
language plpgsql
set enable_seqscan = off
set jit = off
set enable_nestloop = off
set enable_hashjoin = off
set enable_bitmapscan = off
as $$
declare
    v_sorted uuid[] := array(select u.id from unnest(p_run_ids) as u (id) order by u.id);
    v_many integer := cardinality(p_run_ids);
    v_half integer := v_many / 2;
    v_first uuid := v_sorted[1];
    v_last uuid := v_sorted[v_many];
    v_now timestamptz := pgflow.now();
    v_recorded uuid[];
    v_event_nos integer[];
    v_watched uuid[];
    v_sqlstate text;
    v_error text;
begin
    begin
        with given as (
            select g.*, row_number() over (partition by g.run_id, g.lease_no order by g.n) as nth,
                count(*) over (partition by g.run_id, g.lease_no) as many
            from unnest(p_run_ids, p_lease_nos, p_keys, p_digests, p_values, p_undos)
                 with ordinality as g (run_id, lease_no, key, digest, value, undo, n)
            where g.key is null
               or (g.run_id, g.key) not in (
                   select j.run_id, j.key from pgflow.journal j
                   where j.project_id = p_project and j.run_id = any (p_run_ids)
                     and j.run_id between v_first and v_last)
        ),
        held as (
            update pgflow.run r
            set step_count = r.step_count + g.many, last_event_no = r.last_event_no + g.many
            from (select distinct run_id, lease_no, many from given) g
            where r.project_id = p_project and r.run_id = g.run_id and r.run_id = any (p_run_ids)
              and case r.state
                  when 'running' then r.lease_no = g.lease_no
                  when 'paused' then r.lease_no = g.lease_no and r.pause_reason = 'budget'
                      and not exists (
                          select from given o
                          where o.run_id = g.run_id and o.lease_no = g.lease_no
                            and not pgflow._was_counted_in(p_project, o.run_id, o.lease_no,
                                r.round, o.key))
                  end
            returning r.run_id, r.lease_no, r.attempt, r.watched,
                r.last_event_no - g.many as event_no
        ),
        recorded as (
            insert into pgflow.journal (project_id, run_id, key, kind, undo, lease_no, attempt,
                event_no, at, digest, value)
            select p_project, g.run_id, g.key, 'step', coalesce(g.undo, false), g.lease_no,
                h.attempt, h.event_no + g.nth, v_now, decode(g.digest, 'hex'),
                coalesce(g.value, 'null')::jsonb
            from given g
            join held h using (run_id, lease_no)
            returning run_id, event_no
        )
        select array_agg(d.run_id), array_agg(d.event_no),
            (select array_agg(h.run_id) from held h where h.watched)
        into v_recorded, v_event_nos, v_watched
        from recorded d;
    exception
        when data_exception or integrity_constraint_violation or program_limit_exceeded then
            get stacked diagnostics v_sqlstate = returned_sqlstate, v_error = message_text;
    end;
    if v_error is null then
        if v_watched is not null then
            perform pgflow._hint_watchers(p_project, v_watched);
        end if;
        if pgflow._is_followed(p_project) then
            perform pgflow._publish(p_project, v_recorded, v_event_nos);
        end if;
        if coalesce(cardinality(v_recorded), 0) < v_many then
            return query
            select g.run_id, case when j.lease_no = g.lease_no then 'already' else 'lost' end,
                null::text, g.key, null::text
            from unnest(p_run_ids, p_lease_nos, p_keys) as g (run_id, lease_no, key)
            left join pgflow.journal j
                   on j.project_id = p_project and j.run_id = any (p_run_ids)
                  and j.run_id between v_first and v_last and j.run_id = g.run_id and j.key = g.key
            where not exists (select from pgflow.run r
                              where r.project_id = p_project and r.run_id = any (p_run_ids)
                                and r.run_id = g.run_id
                                and r.state = 'running' and r.lease_no = g.lease_no
                                and j.lease_no = g.lease_no);
        end if;
    elsif v_many = 1 and v_sqlstate = '23505' then
        -- The same call, sent twice, ran at the same time.
        return query select p_run_ids[1], 'already', null::text, p_keys[1], null::text;
    elsif v_many = 1 then
        return query select p_run_ids[1], 'refused', null::text, p_keys[1], v_error;
    else
        return query select * from pgflow._record_step(p_project, p_run_ids[:v_half],
            p_lease_nos[:v_half], p_keys[:v_half], p_digests[:v_half], p_values[:v_half],
            p_undos[:v_half]);
        return query select * from pgflow._record_step(p_project, p_run_ids[v_half + 1:],
            p_lease_nos[v_half + 1:], p_keys[v_half + 1:], p_digests[v_half + 1:],
            p_values[v_half + 1:], p_undos[v_half + 1:]);
    end if;
end
$$;
comment on function pgflow._record_step is
    'Writes the results of steps of many runs; see record_step.';

create or replace function pgflow.record_step(
    run_ids uuid[], lease_nos integer[], keys text[], digests text[], "values" text[],
    undos boolean[] default null, project text default null
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
    v_project text := pgflow._enter_project(record_step.project);
begin
    perform pgflow._check_batch(record_step.run_ids, record_step.lease_nos,
        array[coalesce(cardinality(record_step.keys), 0), cardinality(record_step.digests),
              cardinality(record_step."values"), cardinality(record_step.undos)]);
    return query select s.* from pgflow._record_step(v_project, record_step.run_ids,
        record_step.lease_nos, record_step.keys, record_step.digests, record_step."values",
        record_step.undos) as s;
end
$$;
comment on function pgflow.record_step is
    'Journals results of steps (json texts) under their keys, with the hex SHA-256 of each '
    'step''s inputs; several runs and several steps of one run at once. undos: whether the step '
    'has something that undoes it. Returns a line, with the key in code, for those not simply '
    'done: already, lost, refused. A step whose calls of models were counted, and made its run '
    'stop until a budget is raised, is still taken under the lease that went with that, unless the '
    'run has gone back since. Raises PF101, PF502.';

create or replace function pgflow._is_satisfied(
    p_project text, p_run_id uuid, p_waits_for text[], p_wait_any boolean
)
returns boolean
language plpgsql
as $$
declare
    v_come integer := (
        select count(*) from pgflow.journal j
        where j.project_id = p_project and j.run_id = p_run_id and j.key = any (p_waits_for)
          and j.kind <> 'step');
begin
    return v_come >= case when p_wait_any then 1 else cardinality(p_waits_for) end;
end
$$;
comment on function pgflow._is_satisfied is
    'Whether all, or any, of what a run waits for is in its journal.';

create or replace function pgflow._stands_still(p_run pgflow.run)
returns boolean
language sql
immutable
as $$
    select p_run.state in ('waiting_tool', 'waiting_approval', 'waiting_event')
        or p_run.state = 'paused' and p_run.pause_reason in ('interrupt', 'before', 'after')
$$;
comment on function pgflow._stands_still is
    'Whether the run goes on as soon as what it waits for has come; not if it was paused.';

-- What has come already is looked up only where it matters.
create or replace function pgflow._is_satisfied_by(p_run pgflow.run, p_key text)
returns boolean
language plpgsql
as $$
begin
    return array[p_key] @> p_run.waits_for or p_run.wait_any and p_key = any (p_run.waits_for)
        or pgflow._is_satisfied(p_run.project_id, p_run.run_id, p_run.waits_for, p_run.wait_any);
end
$$;
comment on function pgflow._is_satisfied_by is
    'Whether a run has what it waits for, now that the entry under a key has come.';

-- Whatever the state, news grows, so that a worker about to park finds out: no wake-up is lost. The
-- caller holds the row, in a statement before this one: the look at the journal then sees what the
-- last holder wrote, and an older snapshot fails on the lock. The row is written once, and all
-- lines at once: to write a table costs more than what is written.
create or replace function pgflow._resolve(
    p_run pgflow.run, p_now timestamptz, p_key text, p_kind text, p_value jsonb, p_types text[],
    p_payloads jsonb[], p_woken_by text, p_digest bytea default null
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_wakes boolean;
begin
    v_run.news := v_run.news + 1;
    v_run.last_event_no := v_run.last_event_no + cardinality(p_types);
    insert into pgflow.journal (project_id, run_id, key, kind, news, event_no, at, digest, value)
    values (v_run.project_id, v_run.run_id, p_key, p_kind, v_run.news, v_run.last_event_no, p_now,
        coalesce(p_digest, decode(pgflow._wait_under(v_run.waits, p_key) ->> 'digest', 'hex')),
        p_value)
    on conflict do nothing;
    if not found then  -- the worker journalled a step under this key, which stands
        return p_run;
    end if;
    v_run.waits := pgflow._waits_without(v_run.waits, p_key);
    v_wakes := p_woken_by is not null and pgflow._stands_still(v_run)
        and pgflow._is_satisfied_by(v_run, p_key);
    if v_wakes and v_run.kind <> 'step_wait' then
        return pgflow._wake(v_run, p_now, p_woken_by, p_types, p_payloads);
    end if;
    perform pgflow._events(v_run, p_now, p_types, p_payloads);
    update pgflow.run r
    set news = v_run.news, last_event_no = v_run.last_event_no, waits = v_run.waits
    where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
    if v_wakes then  -- a step that only waits has come to its end
        return pgflow._end_wait(v_run, p_woken_by);
    end if;
    return v_run;
end
$$;
comment on function pgflow._resolve is
    'Writes what a run waited for into its journal, with lines that say so, and if that was the '
    'last thing wakes it, by the key to be named; by null it doesn''t. The caller holds the run; '
    'returns it as it is now.';

-- waiting_* or paused -> pending. What else it waited for stays asked: its handler may want it yet.
create or replace function pgflow._wake(
    p_run pgflow.run, p_now timestamptz, p_key text, p_types text[] default '{}',
    p_payloads jsonb[] default '{}'
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_seq bigint := nextval('pgflow.run_seq');
begin
    update pgflow.run r
    set state = 'pending', lane = 0, seq = v_seq, last_event_no = p_run.last_event_no + 1,
        news = p_run.news, waits = p_run.waits, waits_for = null, wait_any = false,
        wake_at = null, pause_reason = null
    where r.project_id = p_run.project_id and r.run_id = p_run.run_id
    returning r.* into v_run;
    perform pgflow._events(v_run, p_now, p_types || text 'run.woken',
        p_payloads || jsonb_build_object('key', p_key));
    perform pgflow._hint_work(v_run.project_id, v_run.queue);
    perform pgflow._look_at_flow_of(v_run);
    return v_run;
end
$$;
comment on function pgflow._wake is
    'Makes a run ready that stood still, and writes its news and waits, and lines that came before '
    'this one; returns it. The caller holds it, and its flow if it is a step of one.';

create or replace function pgflow._wait_under(p_waits jsonb, p_key text)
returns jsonb
language sql
stable
as $$
    select jsonb_path_query_first(p_waits, '$[*] ? (@.key == $key)',
        jsonb_build_object('key', p_key))
$$;
comment on function pgflow._wait_under is 'The wait under a key; null if there is none.';

create or replace function pgflow._waits_without(p_waits jsonb, p_key text)
returns jsonb
language sql
stable
as $$
    select nullif(jsonb_path_query_array(p_waits, '$[*] ? (@.key != $key)',
        jsonb_build_object('key', p_key)), '[]')
$$;
comment on function pgflow._waits_without is
    'Waits without the one under a key; null if none are left.';

create or replace function pgflow._first_due(p_waits jsonb, p_keys text[])
returns timestamptz
language plpgsql
stable
as $$
begin
    if not p_waits @? '$[*].due_at' then
        return null;
    end if;
    return (
        select min((w ->> 'due_at')::timestamptz)
        from jsonb_array_elements(p_waits) as w
        where w ->> 'key' = any (p_keys));
end
$$;
comment on function pgflow._first_due is
    'When the first of the waits named times out; null: never.';
