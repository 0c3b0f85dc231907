-- The engine's own event lines. The caller holds the run's row and has counted last_event_no up.
-- p_lease is the run as it was under the lease that this event ends, else null.
create or replace function pgflow._event(
    p_run pgflow.run, p_event_no integer, p_type text, p_at timestamptz,
    p_payload jsonb default null, p_ends_lease boolean default false, p_step text default null
)
returns void
language plpgsql
as $$
begin
    insert into pgflow.event (project_id, run_id, event_no, type, step, attempt, at, by, payload,
        lease_no, lease_event_no, worker_id, leased_at)
    values (p_run.project_id, p_run.run_id, p_event_no, p_type, p_step, p_run.attempt, p_at,
        pgflow._actor(), p_payload,
        case when p_ends_lease then p_run.lease_no end,
        case when p_ends_lease then p_run.lease_event_no end,
        case when p_ends_lease then p_run.worker_id end,
        case when p_ends_lease then p_run.leased_at end);
    if p_run.watched then
        perform pgflow._hint_watchers(p_run.project_id, array[p_run.run_id]);
    end if;
    if pgflow._is_followed(p_run.project_id) then
        perform pgflow._publish(p_run.project_id, array[p_run.run_id], array[p_event_no]);
    end if;
    if starts_with(p_type, 'task.') or p_type = 'breakpoint.hit' then
        perform pgflow._hint_inbox(p_run.project_id);
    end if;
end
$$;
comment on function pgflow._event is
    'Appends an event of the engine to a run whose row the caller holds; p_ends_lease keeps the '
    'lease with it.';

create or replace function pgflow._events(
    p_run pgflow.run, p_at timestamptz, p_types text[], p_payloads jsonb[]
)
returns void
language plpgsql
as $$
begin
    insert into pgflow.event (project_id, run_id, event_no, type, attempt, at, by, payload)
    select p_run.project_id, p_run.run_id, p_run.last_event_no - cardinality(p_types) + e.nth,
        e.type, p_run.attempt, p_at, pgflow._actor(), e.payload
    from unnest(p_types, p_payloads) with ordinality as e (type, payload, nth);
    if p_run.watched then
        perform pgflow._hint_watchers(p_run.project_id, array[p_run.run_id]);
    end if;
    if pgflow._is_followed(p_run.project_id) then
        perform pgflow._publish(p_run.project_id,
            array_fill(p_run.run_id, array[cardinality(p_types)]),
            array(select generate_series(
                p_run.last_event_no - cardinality(p_types) + 1, p_run.last_event_no)));
    end if;
    if starts_with(p_types[1], 'task.') then
        perform pgflow._hint_inbox(p_run.project_id);
    end if;
end
$$;
comment on function pgflow._events is
    'Appends several events of the engine to a run that the caller holds and has counted them for: '
    'the last has the number last_event_no.';

-- For what changes nothing else of the run: whoever writes its row anyway counts there.
create or replace function pgflow._append_event(
    p_run pgflow.run, p_type text, p_at timestamptz, p_payload jsonb
)
returns void
language plpgsql
as $$
begin
    update pgflow.run r set last_event_no = r.last_event_no + 1
    where r.project_id = p_run.project_id and r.run_id = p_run.run_id;
    perform pgflow._event(p_run, p_run.last_event_no + 1, p_type, p_at, p_payload);
end
$$;
comment on function pgflow._append_event is
    'Appends an event of the engine to a run that the caller holds, and counts it.';

create or replace function pgflow._locked(
    p_project text, p_run_id uuid, p_alone boolean default false
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run;
begin
    select r.* into v_run from pgflow.run r
    where r.project_id = p_project and r.run_id = p_run_id
      and not (p_alone and (r.parent_run_id is not null or r.has_children))
    for update;
    -- Whoever looks for work meanwhile skips the row, and would not look again before a second has
    -- passed. The hint is sent at the commit, when the row is free.
    if v_run.state = 'pending' then
        perform pgflow._hint_work(p_project, v_run.queue);
    end if;
    return v_run;
end
$$;
comment on function pgflow._locked is
    'Locks a live run; a row of nulls if there is none, or it is not alone and has to be. If it is '
    'ready, idle workers are hinted at it once it is free.';

create or replace function pgflow._emit(
    p_project text, p_run_id uuid, p_type text, p_payload jsonb, p_key text
)
returns pgflow.event
language plpgsql
as $$
declare
    v_run pgflow.run := pgflow._locked(p_project, p_run_id);
    v_event pgflow.event;
begin
    -- A later statement than the lock: it sees the event of whoever held the row before.
    if p_key is not null then
        select e.* into v_event from pgflow.event e
        where e.project_id = p_project and e.run_id = p_run_id and e.key = p_key;
        if found then
            return v_event;
        end if;
    end if;
    if v_run.run_id is null then
        perform pgflow._refuse_gone(p_project, p_run_id, 'take events');
    end if;
    update pgflow.run r set last_event_no = r.last_event_no + 1
    where r.project_id = p_project and r.run_id = p_run_id;
    insert into pgflow.event (project_id, run_id, event_no, type, key, attempt, at, by, payload)
    values (p_project, p_run_id, v_run.last_event_no + 1, p_type, p_key, v_run.attempt,
        pgflow.now(),
        pgflow._actor(), p_payload)
    returning * into v_event;
    if v_run.watched then
        perform pgflow._hint_watchers(p_project, array[p_run_id]);
    end if;
    if pgflow._is_followed(p_project) then
        perform pgflow._publish(p_project, array[p_run_id], array[v_event.event_no]);
    end if;
    return v_event;
end
$$;
comment on function pgflow._emit is 'Appends a user''s event. Locks the run. Raises PF102, PF202.';

create or replace function pgflow._refuse_gone(p_project text, p_run_id uuid, p_what text)
returns void
language plpgsql
as $$
declare
    v_state text;
begin
    select f.state into v_state from pgflow.run_finished f
    where f.project_id = p_project and f.run_id = p_run_id;
    if not found then
        perform pgflow._refuse('PF102', format('unknown run: %s', p_run_id),
            'There is no run of that id in this project, or its retention is over.',
            'View pgflow.runs lists the runs that you may see.', 'run_id');
    end if;
    perform pgflow._refuse('PF202', format('run %s is already finished and cannot %s', p_run_id,
        p_what),
        json_build_object('run_id', p_run_id, 'from_state', v_state, 'to_state', null)::text,
        'Use pgflow.retry(run_id) to do its work again.', 'run_id');
end
$$;
comment on function pgflow._refuse_gone is
    'Raises PF202 if the run is finished, PF102 if there is none.';

create or replace function pgflow.emit(
    run_id uuid, type text, payload jsonb default null, idempotency_key text default null,
    project text default null
)
returns pgflow.event
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(emit.project);
begin
    if emit.type is null or char_length(emit.type) not between 1 and 100 then
        perform pgflow._refuse_value('type', '1 to 100 characters', emit.type);
    elsif emit.type like '%.%' and split_part(emit.type, '.', 1) = any ((
        '{run,step,task,tool,child,signal,wait,artifact,prompt,checkpoint,breakpoint,budget,report,'
        || 'stream}')::text[]) then
        perform pgflow._refuse_value('type',
            'none that begins as the engine''s own do (run. step. task. tool. ...)', emit.type);
    elsif char_length(emit.idempotency_key) not between 1 and 500 then
        perform pgflow._refuse_value('idempotency_key', '1 to 500 characters',
            emit.idempotency_key);
    elsif pg_column_size(emit.payload) > 1048576 then
        perform pgflow._refuse_value('payload', 'at most 1 MB',
            pg_column_size(emit.payload) || ' bytes');
    end if;
    return pgflow._emit(v_project, emit.run_id, emit.type, emit.payload, emit.idempotency_key);
end
$$;
comment on function pgflow.emit is
    'Appends an event to a live run''s timeline and returns it; the same idempotency_key again '
    'returns the first. Example: select pgflow.emit(''...'', ''progress'', ''{"pct": 80}''). '
    'Raises PF101, PF102, PF202, PF502.';
