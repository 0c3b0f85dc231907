-- Enqueue: nothing -> pending, or scheduled. Writes run, run_key where a key is given, queue on its
-- first use or first use of a priority. It runs in the caller's transaction.

create or replace function pgflow._check_run(
    p_handler text, p_queue text, p_priority integer, p_run_at timestamptz,
    p_max_attempts integer, p_timeout interval, p_deadline timestamptz, p_idempotency_key text,
    p_correlation_id text, p_run_id uuid, p_tags text[]
)
returns void
language plpgsql
as $$
begin
    if p_handler is null or char_length(p_handler) not between 1 and 200 then
        perform pgflow._refuse_value('handler', '1 to 200 characters', p_handler);
    elsif char_length(p_queue) not between 1 and 100 then
        perform pgflow._refuse_value('queue', '1 to 100 characters', p_queue);
    elsif p_priority is null or p_priority not between -9 and 9 then
        perform pgflow._refuse_value('priority', '-9 to 9', p_priority::text);
    elsif p_max_attempts not between 1 and 1000 then
        perform pgflow._refuse_value('max_attempts', '1 to 1000', p_max_attempts::text);
    elsif p_timeout <= '0' or p_timeout > '30 days' then
        perform pgflow._refuse_value('timeout', 'more than 0 and at most 30 days', p_timeout::text);
    elsif p_run_at not between '1900-01-01' and '2200-01-01' then
        perform pgflow._refuse_value('run_at', 'between the years 1900 and 2200', p_run_at::text);
    elsif p_deadline <= pgflow.now() or p_deadline > '2200-01-01' then
        perform pgflow._refuse_value('deadline', 'in the future, before the year 2200',
            p_deadline::text);
    elsif char_length(p_idempotency_key) not between 1 and 500
        or p_idempotency_key like 'pgflow:%' then
        perform pgflow._refuse_value('idempotency_key',
            '1 to 500 characters, not beginning with pgflow:',
            p_idempotency_key);
    elsif char_length(p_correlation_id) not between 1 and 200 then
        perform pgflow._refuse_value('correlation_id', '1 to 200 characters', p_correlation_id);
    elsif array_ndims(p_tags) > 1 or cardinality(p_tags) > 50
       or array_position(p_tags, null) is not null
       or exists (select from unnest(p_tags) as t (tag) where char_length(t.tag) > 100) then
        perform pgflow._refuse_value('tags', 'at most 50 texts of at most 100 characters',
            p_tags::text);
    elsif p_run_id is not null and (substr(p_run_id::text, 15, 1) <> '7'
       or pgflow._id_time(p_run_id) not between clock_timestamp() - interval '1 day'
                                            and clock_timestamp() + interval '5 minutes') then
        perform pgflow._refuse_value('run_id', 'a UUID of version 7 made within the last day',
            p_run_id::text);
    end if;
end
$$;
comment on function pgflow._check_run is 'Refuses (PF101) what no run may have, naming the field.';

create or replace function pgflow._use_queue(p_project text, p_queue text, p_priority integer)
returns pgflow.queue
language plpgsql
as $$
declare
    v_queue pgflow.queue;
begin
    select q.* into v_queue from pgflow.queue q
    where q.project_id = p_project and q.queue = p_queue;
    if not found then
        insert into pgflow.queue (project_id, queue) values (p_project, p_queue)
            on conflict do nothing;
        select q.* into v_queue from pgflow.queue q
        where q.project_id = p_project and q.queue = p_queue;
        if not found then  -- made by another transaction that this snapshot can't see
            v_queue.max_attempts := 3;
            v_queue.priorities := '{0}';
        end if;
    end if;
    if p_priority <> all (v_queue.priorities) then
        update pgflow.queue q
        set priorities = array(
            select distinct u.p from unnest(q.priorities || p_priority::smallint) as u (p)
            order by u.p desc)
        where q.project_id = p_project and q.queue = p_queue and p_priority <> all (q.priorities);
    end if;
    return v_queue;
end
$$;
comment on function pgflow._use_queue is
    'The queue; makes it, and notes the priority, on first use.';

create or replace function pgflow._enqueue(
    p_project text, p_handler text, p_inputs jsonb[], p_queue text, p_priority integer,
    p_run_at timestamptz, p_max_attempts integer, p_timeout interval, p_deadline timestamptz,
    p_idempotency_key text, p_correlation_id text, p_run_id uuid, p_tags text[], p_retry_of uuid
)
returns setof uuid
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_actor text := pgflow._actor();
    v_handler pgflow.handler;
    v_queue pgflow.queue;
    v_name text;
    v_scheduled boolean := coalesce(p_run_at > v_now, false);
begin
    -- Before seq is drawn: whoever sees no running transaction below a mark has seen all lower
    -- seqs.
    perform pg_current_xact_id();
    select h.* into v_handler from pgflow.handler h
    where h.project_id = p_project and h.handler = p_handler;
    v_name := coalesce(p_queue, v_handler.queue, 'default');
    v_queue := pgflow._use_queue(p_project, v_name, p_priority);
    return query
    insert into pgflow.run (project_id, run_id, handler, queue, state, priority, seq, max_attempts,
        timeout, deadline, run_at, created_at, created_by, correlation_id, idempotency_key, tags,
        retry_of, input)
    select p_project, coalesce(p_run_id, pgflow._new_id()), p_handler, v_name,
        case when v_scheduled then 'scheduled' else 'pending' end, p_priority,
        case when not v_scheduled then nextval('pgflow.run_seq') end,
        coalesce(p_max_attempts, v_handler.max_attempts, v_queue.max_attempts),
        coalesce(p_timeout, v_handler.timeout, v_queue.timeout), p_deadline, p_run_at, v_now,
        v_actor,
        p_correlation_id, case when p_idempotency_key not like 'pgflow:%'
            then p_idempotency_key end, p_tags,
        p_retry_of, coalesce(i.input, '{}')
    from unnest(p_inputs) as i (input)
    returning run_id;
    perform pgflow._hint_work(p_project, v_name);
end
$$;
comment on function pgflow._enqueue is
    'Inserts one run per input and hints. The arguments are checked.';

-- The key's row is inserted first and read in a second statement: whoever inserts it makes the run,
-- all others wait for that transaction and return its run. A run id that is given is a key as well.
create or replace function pgflow._claim_key(
    p_project text, p_key text, p_run_id uuid, p_handler text, p_input jsonb
)
returns uuid
language plpgsql
as $$
declare
    v_sha256 bytea := pgflow._sha256(coalesce(p_input, '{}'));
    v_first pgflow.run_key;
begin
    insert into pgflow.run_key (project_id, key, run_id, handler, input_sha256, created_at)
    values (p_project, p_key, p_run_id, p_handler, v_sha256, pgflow.now())
    on conflict do nothing;
    if found then
        return null;
    end if;
    select k.* into v_first from pgflow.run_key k where k.project_id = p_project and k.key = p_key;
    if not found then  -- above read committed: the winner committed after our snapshot
        raise exception using errcode = 'serialization_failure',
            message = format('idempotency key %s was used by a concurrent transaction', p_key),
            hint = 'Try the transaction again.';
    elsif v_first.handler <> p_handler or v_first.input_sha256 <> v_sha256 then
        perform pgflow._refuse_used(p_key, v_first.run_id, 'with another handler or input');
    end if;
    return v_first.run_id;
end
$$;
comment on function pgflow._claim_key is
    'Null if the key was free and is now this run''s; else the run that has it. Raises PF401 if '
    'that is another handler''s or input''s.';

create or replace function pgflow._refuse_used(p_key text, p_run_id uuid, p_how text)
returns void
language plpgsql
as $$
begin
    if p_key like 'pgflow:id:%' then
        perform pgflow._refuse('PF401', format('run id %s was used for another run', p_run_id),
            'It was enqueued ' || p_how || '.', 'Use a new id for new work.', 'run_id');
    end if;
    perform pgflow._refuse('PF401', format('idempotency key %s was used for another run', p_key),
        format('run %s was enqueued under it %s', p_run_id, p_how), 'Use a new key for new work.',
        'idempotency_key');
end
$$;
comment on function pgflow._refuse_used is 'Raises PF401 for an idempotency key or a run id.';

-- Runs whose id was not given have no key; a caller may still give that id again.
create or replace function pgflow._same_run(
    p_project text, p_run_id uuid, p_handler text, p_input jsonb
)
returns uuid
language plpgsql
as $$
declare
    v_handler text;
    v_input jsonb;
begin
    select r.handler, r.input into v_handler, v_input from pgflow.run r
    where r.project_id = p_project and r.run_id = p_run_id
    union all
    select f.handler, f.input from pgflow.run_finished f
    where f.project_id = p_project and f.run_id = p_run_id;
    if not found then
        return null;
    elsif v_handler <> p_handler or v_input <> coalesce(p_input, '{}') then
        perform pgflow._refuse_used('pgflow:id:' || p_run_id, p_run_id,
            'with another handler or input');
    end if;
    return p_run_id;
end
$$;
comment on function pgflow._same_run is
    'The run id if such a run is there with the same handler and input, null if none is. Raises '
    'PF401.';

create or replace function pgflow._enqueue_once(
    p_project text, p_key text, p_handler text, p_input jsonb, p_queue text, p_priority integer,
    p_run_at timestamptz, p_max_attempts integer, p_timeout interval, p_deadline timestamptz,
    p_correlation_id text, p_run_id uuid, p_tags text[], p_retry_of uuid
)
returns uuid
language plpgsql
as $$
declare
    v_run_id uuid := coalesce(p_run_id, pgflow._new_id());
    v_id_key text := 'pgflow:id:' || p_run_id;
    v_first uuid;
begin
    if p_key is not null then
        v_first := pgflow._claim_key(p_project, p_key, v_run_id, p_handler, p_input);
        if v_first <> p_run_id then
            perform pgflow._refuse_used(p_key, v_first, 'with another run id');
        elsif v_first is not null then
            return v_first;
        end if;
    end if;
    if p_run_id is not null then
        v_first := coalesce(pgflow._claim_key(p_project, v_id_key, p_run_id, p_handler, p_input),
            pgflow._same_run(p_project, p_run_id, p_handler, p_input));
        if v_first is not null and p_key is not null then
            perform pgflow._refuse_used(v_id_key, v_first, 'without this idempotency key');
        elsif v_first is not null then
            return v_first;
        end if;
    end if;
    perform pgflow._enqueue(p_project, p_handler, array[p_input], p_queue, p_priority, p_run_at,
        p_max_attempts, p_timeout, p_deadline, p_key, p_correlation_id, v_run_id, p_tags,
        p_retry_of);
    return v_run_id;
end
$$;
comment on function pgflow._enqueue_once is
    'Enqueues under an idempotency key, a run id or both: the first call''s run is returned ever '
    'after. Raises PF401.';

create or replace function pgflow.enqueue(
    handler text, input jsonb default '{}', queue text default null, priority integer default 0,
    run_at timestamptz default null, max_attempts integer default null,
    timeout interval default null,
    deadline timestamptz default null, idempotency_key text default null,
    correlation_id text default null, run_id uuid default null, tags text[] default null,
    project text default null
)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(enqueue.project);
    v_run_id uuid;
begin
    perform pgflow._check_run(enqueue.handler, enqueue.queue, enqueue.priority, enqueue.run_at,
        enqueue.max_attempts,
        enqueue.timeout, enqueue.deadline, enqueue.idempotency_key, enqueue.correlation_id,
        enqueue.run_id, enqueue.tags);
    if pg_column_size(enqueue.input) > 8388608 then
        perform pgflow._refuse_value('input', 'at most 8 MB',
            pg_column_size(enqueue.input) || ' bytes');
    elsif enqueue.idempotency_key is not null or enqueue.run_id is not null then
        return pgflow._enqueue_once(v_project, enqueue.idempotency_key, enqueue.handler,
            enqueue.input, enqueue.queue, enqueue.priority, enqueue.run_at, enqueue.max_attempts,
            enqueue.timeout, enqueue.deadline, enqueue.correlation_id, enqueue.run_id,
            enqueue.tags, null);
    end if;
    select e.* into v_run_id
    from pgflow._enqueue(v_project, enqueue.handler, array[enqueue.input], enqueue.queue,
        enqueue.priority, enqueue.run_at, enqueue.max_attempts, enqueue.timeout, enqueue.deadline,
        null, enqueue.correlation_id, null, enqueue.tags, null) as e;
    return v_run_id;
end
$$;
comment on function pgflow.enqueue is
    'Starts a run of a handler in the caller''s transaction and returns its id. What is not given'
    ' comes from the handler''s registration, then from the queue. The same idempotency_key '
    'returns the same run, live or finished. Example: select pgflow.enqueue(''send_email'', '
    '''{"to": "a@b.c"}'', queue => ''mail''). Raises PF101, PF401, PF502.';

create or replace function pgflow.enqueue_many(
    handler text, inputs jsonb[], queue text default null, priority integer default 0,
    run_at timestamptz default null, max_attempts integer default null,
    timeout interval default null,
    deadline timestamptz default null, idempotency_keys text[] default null,
    correlation_id text default null, tags text[] default null, project text default null
)
returns setof uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(enqueue_many.project);
    v_key text;
    v_n integer;
    v_run_ids uuid[] := array_fill(null::uuid,
        array[coalesce(cardinality(enqueue_many.inputs), 0)]);
begin
    if enqueue_many.inputs is null or array_ndims(enqueue_many.inputs) > 1
       or cardinality(enqueue_many.inputs) > 100000 then
        perform pgflow._refuse_value('inputs', 'an array of at most 100000 inputs',
            cardinality(enqueue_many.inputs) || ' inputs');
    elsif exists (select from unnest(enqueue_many.inputs) as i (input)
                  where pg_column_size(i.input) > 8388608) then
        perform pgflow._refuse_value('inputs', 'of at most 8 MB each', 'a larger one');
    elsif array_ndims(enqueue_many.idempotency_keys) > 1
       or cardinality(enqueue_many.idempotency_keys) <> cardinality(enqueue_many.inputs)
       or array_position(enqueue_many.idempotency_keys, null) is not null then
        perform pgflow._refuse_value('idempotency_keys', 'one key for each input',
            cardinality(enqueue_many.idempotency_keys) || ' keys');
    end if;
    perform pgflow._check_run(enqueue_many.handler, enqueue_many.queue, enqueue_many.priority,
        enqueue_many.run_at,
        enqueue_many.max_attempts, enqueue_many.timeout, enqueue_many.deadline, null,
        enqueue_many.correlation_id, null, enqueue_many.tags);
    if enqueue_many.idempotency_keys is null then
        return query select e.* from pgflow._enqueue(v_project, enqueue_many.handler,
            enqueue_many.inputs,
            enqueue_many.queue, enqueue_many.priority, enqueue_many.run_at,
            enqueue_many.max_attempts,
            enqueue_many.timeout, enqueue_many.deadline, null, enqueue_many.correlation_id, null,
            enqueue_many.tags, null) as e;
        return;
    end if;
    foreach v_key in array enqueue_many.idempotency_keys loop
        perform pgflow._check_run(enqueue_many.handler, null, 0, null, null, null, null, v_key,
            null, null, null);
    end loop;
    -- In the order of the keys, so that two batches with the same keys cannot deadlock.
    for v_n in select i.n from generate_subscripts(enqueue_many.inputs, 1) as i (n)
               order by enqueue_many.idempotency_keys[i.n] collate "C"
    loop
        v_run_ids[v_n] := pgflow._enqueue_once(v_project, enqueue_many.idempotency_keys[v_n],
            enqueue_many.handler, enqueue_many.inputs[v_n], enqueue_many.queue,
            enqueue_many.priority,
            enqueue_many.run_at, enqueue_many.max_attempts, enqueue_many.timeout,
            enqueue_many.deadline, enqueue_many.correlation_id, null, enqueue_many.tags, null);
    end loop;
    return query select unnest(v_run_ids);
end
$$;
comment on function pgflow.enqueue_many is
    'Starts a run of a handler for each input, in one statement, and returns their ids in the '
    'inputs'' order. Example: select pgflow.enqueue_many(''resize'', array[''{"n": 1}'', ''{"n": '
    '2}'']::jsonb[]). Raises PF101, PF401, PF502.';
