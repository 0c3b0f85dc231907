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
declare
    -- One expression: each costs more to set up than to evaluate.
    v_field text := case
        when p_handler is null or char_length(p_handler) not between 1 and 200 then 'handler'
        when char_length(p_queue) not between 1 and 100 then 'queue'
        when p_priority is null or p_priority not between -9 and 9 then 'priority'
        when p_max_attempts not between 1 and 1000 then 'max_attempts'
        when p_timeout <= '0' or p_timeout > '30 days' then 'timeout'
        when p_run_at not between '1900-01-01' and '2200-01-01' then 'run_at'
        when p_deadline <= pgflow.now() or p_deadline > '2200-01-01' then 'deadline'
        when char_length(p_idempotency_key) not between 1 and 500
            or p_idempotency_key like 'pgflow:%' then 'idempotency_key'
        when char_length(p_correlation_id) not between 1 and 200 then 'correlation_id'
        when p_run_id is not null and (substr(p_run_id::text, 15, 1) <> '7'
            or pgflow._id_time(p_run_id) not between clock_timestamp() - interval '1 day'
                and clock_timestamp() + interval '5 minutes') then 'run_id'
        when p_tags is not null then 'tags'
    end;
begin
    if v_field is null or v_field = 'tags' and coalesce(array_ndims(p_tags), 1) = 1
        and cardinality(p_tags) <= 50 and array_position(p_tags, null) is null
        and not exists (select from unnest(p_tags) as t (tag) where char_length(t.tag) > 100) then
        return;
    end if;
    perform pgflow._refuse_value(v_field, r.expected, r.given)
    from (values
        ('handler', '1 to 200 characters', p_handler),
        ('queue', '1 to 100 characters', p_queue),
        ('priority', '-9 to 9', p_priority::text),
        ('max_attempts', '1 to 1000', p_max_attempts::text),
        ('timeout', 'more than 0 and at most 30 days', p_timeout::text),
        ('run_at', 'between the years 1900 and 2200', p_run_at::text),
        ('deadline', 'in the future, before the year 2200', p_deadline::text),
        ('idempotency_key', '1 to 500 characters, not beginning with pgflow:',
            p_idempotency_key),
        ('correlation_id', '1 to 200 characters', p_correlation_id),
        ('run_id', 'a UUID of version 7 made within the last day', p_run_id::text),
        ('tags', 'at most 50 texts of at most 100 characters', p_tags::text)
    ) as r (field, expected, given)
    where r.field = v_field;
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
    p_project text, p_handler text, p_run_ids uuid[], p_inputs jsonb[], p_queue text,
    p_priority integer, p_run_at timestamptz, p_max_attempts integer, p_timeout interval,
    p_deadline timestamptz, p_idempotency_key text, p_correlation_id text, p_tags text[],
    p_retry_of uuid
)
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_actor text := pgflow._actor();
    v_scheduled boolean := coalesce(p_run_at > v_now, false);
    v_set record;
    v_queue pgflow.queue;
begin
    -- Before seq is drawn and idle workers are looked for (08_ready, 04_hints).
    perform pg_current_xact_id();
    select coalesce(p_queue, h.queue, 'default') as queue, q.priorities,
        coalesce(p_max_attempts, h.max_attempts, q.max_attempts) as max_attempts,
        coalesce(p_timeout, h.timeout, q.timeout) as timeout,
        current_setting('transaction_isolation') <> 'read committed' or exists (
            select from pgflow.idle_worker i
            where i.project_id = p_project
              and i.queue = coalesce(p_queue, h.queue, 'default')) as is_awaited,
        current_setting('transaction_isolation') <> 'read committed' or exists (
            select from pgflow.subscription s where s.project_id = p_project) as is_followed
    into v_set
    from (values (p_handler)) as g (handler)
    left join pgflow.handler h on h.project_id = p_project and h.handler = g.handler
    left join pgflow.queue q on q.project_id = p_project
        and q.queue = coalesce(p_queue, h.queue, 'default');
    if v_set.priorities is null or p_priority <> all (v_set.priorities) then
        v_queue := pgflow._use_queue(p_project, v_set.queue, p_priority);
        v_set.max_attempts := coalesce(v_set.max_attempts, v_queue.max_attempts);
        v_set.timeout := coalesce(v_set.timeout, v_queue.timeout);
    end if;
    insert into pgflow.run (project_id, run_id, handler, queue, state, priority, seq, max_attempts,
        timeout, deadline, run_at, created_at, created_by, correlation_id, idempotency_key, tags,
        retry_of, input)
    select p_project, i.run_id, p_handler, v_set.queue,
        case when v_scheduled then 'scheduled' else 'pending' end, p_priority,
        case when not v_scheduled then nextval('pgflow.run_seq') end, v_set.max_attempts,
        v_set.timeout, p_deadline, p_run_at, v_now, v_actor, p_correlation_id,
        case when p_idempotency_key not like 'pgflow:%' then p_idempotency_key end, p_tags,
        p_retry_of, coalesce(i.input, '{}')
    from unnest(p_run_ids, p_inputs) as i (run_id, input);
    if v_set.is_awaited then
        perform pgflow._wake_workers(p_project, v_set.queue);
    end if;
    if v_set.is_followed then
        perform pgflow._publish(p_project, p_run_ids);
    end if;
end
$$;
comment on function pgflow._enqueue is
    'Inserts runs with their inputs and hints. The arguments are checked.';

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
    p_correlation_id text, p_run_id uuid, p_tags text[], p_retry_of uuid,
    p_budget jsonb default null
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
    perform pgflow._enqueue(p_project, p_handler, array[v_run_id], array[p_input], p_queue,
        p_priority, p_run_at, p_max_attempts, p_timeout, p_deadline, p_key, p_correlation_id,
        p_tags, p_retry_of);
    if p_budget is not null then
        perform pgflow._give_budget(p_project, v_run_id, p_budget);
    end if;
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
    budget jsonb default null, project text default null
)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(enqueue.project);
    v_run_id uuid := pgflow._new_id();
begin
    perform pgflow._check_run(enqueue.handler, enqueue.queue, enqueue.priority, enqueue.run_at,
        enqueue.max_attempts,
        enqueue.timeout, enqueue.deadline, enqueue.idempotency_key, enqueue.correlation_id,
        enqueue.run_id, enqueue.tags);
    if enqueue.budget is not null then
        perform pgflow._check_budget(enqueue.budget);
    end if;
    if pg_column_size(enqueue.input) > 8388608 then
        perform pgflow._refuse_value('input', 'at most 8 MB',
            pg_column_size(enqueue.input) || ' bytes');
    elsif enqueue.idempotency_key is not null or enqueue.run_id is not null then
        return pgflow._enqueue_once(v_project, enqueue.idempotency_key, enqueue.handler,
            enqueue.input, enqueue.queue, enqueue.priority, enqueue.run_at, enqueue.max_attempts,
            enqueue.timeout, enqueue.deadline, enqueue.correlation_id, enqueue.run_id,
            enqueue.tags, null, enqueue.budget);
    end if;
    perform pgflow._enqueue(v_project, enqueue.handler, array[v_run_id], array[enqueue.input],
        enqueue.queue, enqueue.priority, enqueue.run_at, enqueue.max_attempts, enqueue.timeout,
        enqueue.deadline, null, enqueue.correlation_id, enqueue.tags, null);
    if enqueue.budget is not null then
        perform pgflow._give_budget(v_project, v_run_id, enqueue.budget);
    end if;
    return v_run_id;
end
$$;
comment on function pgflow.enqueue is
    'Starts a run of a handler in the caller''s transaction and returns its id. What is not given'
    ' comes from the handler''s registration, then from the queue. The same idempotency_key '
    'returns the same run, live or finished. budget bounds what the run and all below it spend: '
    'usd, tokens, seconds; on_breach, assignee, assignee_role. '
    'Example: select pgflow.enqueue(''send_email'', '
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
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(enqueue_many.project);
    v_key text;
    v_n integer;
    v_run_ids uuid[] := array(select pgflow._new_id() from unnest(enqueue_many.inputs));
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
        perform pgflow._enqueue(v_project, enqueue_many.handler, v_run_ids, enqueue_many.inputs,
            enqueue_many.queue, enqueue_many.priority, enqueue_many.run_at,
            enqueue_many.max_attempts, enqueue_many.timeout, enqueue_many.deadline, null,
            enqueue_many.correlation_id, enqueue_many.tags, null);
        return query select unnest(v_run_ids);
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
