-- What comes from outside and is not a person's decision: signals, tool results, and time running
-- out. Each locks the run, writes its entry, and wakes the run if that was the last thing.

-- The oldest signal of a name answers the first call that waits for it. What was asked before a
-- wake-up gets none until it is asked for again: it may be the loser of a race, and the signal is
-- for who asks next. For the same reason one is enough where any will do. The caller holds the run,
-- in an earlier statement, and writes its row.
create or replace function pgflow._take_signals(
    p_run pgflow.run, p_now timestamptz, p_keys text[], p_any boolean
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_wait jsonb;
    v_signal pgflow.signal;
begin
    -- Mostly there is none. In its order, or the planner likes to read a table that is small yet.
    perform from pgflow.signal s
    where s.project_id = p_run.project_id and s.run_id = p_run.run_id and s.taken_as is null
    order by s.signal_no
    limit 1;
    if not found then
        return p_run;
    end if;
    for v_wait in
        select w from jsonb_array_elements(v_run.waits) as w
        where w ->> 'kind' = 'event' and w ->> 'key' = any (p_keys)
    loop
        exit when p_any
            and pgflow._is_satisfied(v_run.project_id, v_run.run_id, p_keys, true);
        select s.* into v_signal from pgflow.signal s
        where s.project_id = v_run.project_id and s.run_id = v_run.run_id
          and s.name = v_wait ->> 'name' and s.taken_as is null
        order by s.signal_no
        limit 1;
        continue when not found;
        update pgflow.signal s set taken_as = v_wait ->> 'key'
        where s.project_id = v_run.project_id and s.run_id = v_run.run_id
          and s.signal_no = v_signal.signal_no;
        v_run.news := v_run.news + 1;
        v_run.last_event_no := v_run.last_event_no + 1;
        perform pgflow._event(v_run, v_run.last_event_no, 'signal.taken', p_now,
            jsonb_build_object('name', v_signal.name, 'signal_no', v_signal.signal_no,
                'key', v_wait ->> 'key'));
        insert into pgflow.journal (project_id, run_id, key, kind, news, event_no, at, digest,
            value)
        values (v_run.project_id, v_run.run_id, v_wait ->> 'key', 'event', v_run.news,
            v_run.last_event_no, p_now, decode(v_wait ->> 'digest', 'hex'), v_signal.payload);
        v_run.waits := pgflow._waits_without(v_run.waits, v_wait ->> 'key');
    end loop;
    return v_run;
end
$$;
comment on function pgflow._take_signals is
    'Answers calls that wait under some keys with signals from the run''s mailbox; returns the '
    'run.';

create or replace function pgflow._check_signal(p_name text, p_key text, p_size integer)
returns void
language plpgsql
as $$
begin
    if coalesce(char_length(p_name), 0) not between 1 and 200 then
        perform pgflow._refuse_value('name', '1 to 200 characters', p_name);
    elsif char_length(p_key) not between 1 and 500 then
        perform pgflow._refuse_value('idempotency_key', '1 to 500 characters', p_key);
    elsif p_size > 1048576 then
        perform pgflow._refuse_value('payload', 'at most 1 MB', p_size || ' bytes');
    end if;
end
$$;
comment on function pgflow._check_signal is
    'Refuses (PF101) a signal by its name, its key, or the size of its payload.';

create or replace function pgflow._signal_of_key(p_project text, p_run_id uuid, p_key text)
returns pgflow.signal
language plpgsql
as $$
declare
    v_signal pgflow.signal;
begin
    if p_key is not null then
        select s.* into v_signal from pgflow.signal s
        where s.project_id = p_project and s.run_id = p_run_id and s.key = p_key;
    end if;
    return v_signal;
end
$$;
comment on function pgflow._signal_of_key is
    'The signal that a run was sent under an idempotency key; nulls if there is none.';

create or replace function pgflow.signal(
    run_id uuid, name text, payload jsonb default null, idempotency_key text default null,
    project text default null
)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(signal.project);
    v_run pgflow.run;
    v_first pgflow.signal;
begin
    perform pgflow._check_signal(signal.name, signal.idempotency_key,
        pg_column_size(signal.payload));
    v_run := pgflow._locked_to_end(v_project, signal.run_id);
    v_first := pgflow._signal_of_key(v_project, signal.run_id, signal.idempotency_key);
    if v_first.signal_no is not null
        and (v_first.name <> signal.name or v_first.payload is distinct from signal.payload)
    then
        perform pgflow._refuse('PF401',
            format('idempotency key %s was used for another signal', signal.idempotency_key),
            format('signal %s of the run, %s', v_first.signal_no, v_first.name),
            'Use a new key for a new signal.', 'idempotency_key');
    elsif v_first.signal_no is not null then
        return v_first.signal_no;
    elsif v_run.run_id is null then
        perform pgflow._refuse_gone(v_project, signal.run_id, 'take signals');
    end if;
    return pgflow._signal(v_run, pgflow.now(), signal.name, signal.payload,
        signal.idempotency_key);
end
$$;
comment on function pgflow.signal is
    'Puts a signal into a run''s mailbox and wakes the run if it waits for one of that name. '
    'Early, the run finds it when it asks; each is taken once, in order; the same '
    'idempotency_key again returns the first''s number. Example: select pgflow.signal(''...'', '
    '''payment'', ''{"paid": 5}''). Raises PF101, PF102, PF202, PF401, PF502.';

-- A run that waits for a name has no signal of that name in its mailbox: it took what was there
-- when it parked, and each since as it came. So this one is the oldest.
create or replace function pgflow._signal(
    p_run pgflow.run, p_now timestamptz, p_name text, p_payload jsonb, p_key text
)
returns integer
language plpgsql
as $$
declare
    v_signal_no integer := p_run.last_event_no + 1;
    v_received jsonb := jsonb_strip_nulls(jsonb_build_object('name', p_name, 'key', p_key));
    v_taken_as text := pgflow._key_that_takes(p_run, p_name);
begin
    insert into pgflow.signal (project_id, run_id, signal_no, name, key, at, by, taken_as, payload)
    values (p_run.project_id, p_run.run_id, v_signal_no, p_name, p_key, p_now, pgflow._actor(),
        v_taken_as, p_payload);
    if v_taken_as is not null then
        perform pgflow._resolve(p_run, p_now, v_taken_as, 'event', p_payload,
            '{signal.received,signal.taken}',
            array[v_received, jsonb_build_object('name', p_name, 'signal_no', v_signal_no,
                'key', v_taken_as)],
            p_name);
        return v_signal_no;
    end if;
    perform pgflow._append_event(p_run, 'signal.received', p_now, v_received);
    if p_run.kind = 'flow' then
        perform pgflow._pass_signals(p_run, p_now);
    end if;
    return v_signal_no;
end
$$;
comment on function pgflow._signal is
    'Puts a signal into the mailbox of a run that the caller holds; returns its number.';

-- Where any will do, what came while the run was paused is enough.
create or replace function pgflow._key_that_takes(p_run pgflow.run, p_name text)
returns text
language plpgsql
as $$
begin
    if p_run.wait_any
        and pgflow._is_satisfied(p_run.project_id, p_run.run_id, p_run.waits_for, true) then
        return null;
    end if;
    return jsonb_path_query_first(p_run.waits,
        '$[*] ? (@.kind == "event" && @.name == $name && @.key == $keys[*])',
        jsonb_build_object('name', p_name, 'keys', p_run.waits_for)) ->> 'key';
end
$$;
comment on function pgflow._key_that_takes is
    'The key under which a run waits for a signal of a name; null if it doesn''t.';

-- The wait for a tool, if the run still waits for it; else says why it is too late.
create or replace function pgflow._asked_tool(p_project text, p_run pgflow.run, p_run_id uuid,
    p_key text)
returns jsonb
language plpgsql
as $$
declare
    v_wait jsonb;
begin
    if p_run.run_id is null then
        perform pgflow._refuse_gone(p_project, p_run_id, 'take results');
    end if;
    select w into v_wait from jsonb_array_elements(p_run.waits) as w
    where w ->> 'kind' = 'tool' and w ->> 'key' = p_key;
    if not found then
        perform pgflow._refuse('PF204', format('run %s does not wait for tool call %s', p_run_id,
            left(p_key, 200)),
            format('it waits for: %s', coalesce((
                select string_agg(w ->> 'key', ', ') from jsonb_array_elements(p_run.waits) as w
                where w ->> 'kind' = 'tool'), 'no tool')),
            'View pgflow.tool_calls lists what was asked.', 'key');
    end if;
    return v_wait;
end
$$;
comment on function pgflow._asked_tool is
    'The wait for a tool call. Raises PF102, PF202, PF204.';

create or replace function pgflow._tool_event(
    p_wait jsonb, p_now timestamptz, p_result_sha256 bytea, p_error_code text
)
returns jsonb
language sql
stable
as $$
    select jsonb_strip_nulls(jsonb_build_object('key', p_wait -> 'key', 'tool', p_wait -> 'tool',
        'result_sha256', encode(p_result_sha256, 'hex'), 'error_code', p_error_code,
        'latency_ms', round(1000 * extract(epoch from
            p_now - (p_wait ->> 'asked_at')::timestamptz))))
$$;
comment on function pgflow._tool_event is 'The payload of tool.resolved and tool.failed.';

create or replace function pgflow.resolve_tool(
    run_id uuid, key text, result jsonb default null, project text default null
)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(resolve_tool.project);
    v_now timestamptz := pgflow.now();
    v_run pgflow.run := pgflow._locked_to_end(v_project, resolve_tool.run_id);
    v_entry pgflow.journal;
    v_wait jsonb;
begin
    select j.* into v_entry from pgflow.journal j
    where j.project_id = v_project and j.run_id = resolve_tool.run_id
      and j.key = resolve_tool.key and j.kind = 'tool';
    if found and v_entry.value is not distinct from coalesce(resolve_tool.result, 'null') then
        return coalesce(v_run.state, pgflow._finished_state(v_project, resolve_tool.run_id));
    elsif found then
        perform pgflow._refuse('PF402',
            format('tool call %s was resolved otherwise', resolve_tool.key),
            format('at %s', v_entry.at), 'A result stands; the same one again is harmless.', 'key');
    elsif pg_column_size(resolve_tool.result) > 8388608 then
        perform pgflow._refuse_value('result', 'at most 8 MB',
            pg_column_size(resolve_tool.result) || ' bytes');
    end if;
    v_wait := pgflow._asked_tool(v_project, v_run, resolve_tool.run_id, resolve_tool.key);
    v_run := pgflow._resolve(v_run, v_now, resolve_tool.key, 'tool',
        coalesce(resolve_tool.result, 'null'), '{tool.resolved}',
        array[pgflow._tool_event(v_wait, v_now,
            pgflow._sha256(coalesce(resolve_tool.result, 'null')), null)], resolve_tool.key);
    return v_run.state;
end
$$;
comment on function pgflow.resolve_tool is
    'Gives a run the result of a tool call that it waits for, under its key (view tool_calls), and '
    'wakes it. The same again is a no-op. Returns the run''s state. Example: select '
    'pgflow.resolve_tool(''...'', ''transcode'', ''{"url": "..."}''). Raises PF101, PF102, PF202, '
    'PF204, PF402, PF502.';

create or replace function pgflow.fail_tool(
    run_id uuid, key text, error text, project text default null
)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(fail_tool.project);
    v_now timestamptz := pgflow.now();
    v_run pgflow.run := pgflow._locked_to_end(v_project, fail_tool.run_id);
    v_wait jsonb := pgflow._asked_tool(v_project, v_run, fail_tool.run_id, fail_tool.key);
    v_error jsonb := jsonb_build_object('type', 'ToolFailed', 'message',
        left(coalesce(fail_tool.error, 'it did not say why'), 8000));
    v_last boolean;
begin
    v_run.last_event_no := v_run.last_event_no + 1;
    v_run.attempt := v_run.attempt + 1;
    v_run.waits := pgflow._waits_without(v_run.waits, fail_tool.key);
    perform pgflow._event(v_run, v_run.last_event_no, 'tool.failed', v_now,
        pgflow._tool_event(v_wait, v_now, null, 'E-RUN-016')
            || jsonb_build_object('error', v_error -> 'message'));
    v_last := v_run.attempt >= v_run.max_attempts;
    -- A handler that runs asks for it again when it parks, a paused one when it is resumed. The
    -- end of a running one counts its last attempt itself.
    update pgflow.run r
    set last_event_no = v_run.last_event_no, waits = v_run.waits, last_error = v_error,
        attempt = v_run.attempt - (v_last and v_run.state = 'running')::integer,
        waits_for = case when v_run.state <> 'paused' then r.waits_for end,
        wait_any = r.wait_any and v_run.state <> 'paused',
        wake_at = case when v_run.state <> 'paused' then r.wake_at end
    where r.project_id = v_project and r.run_id = v_run.run_id;
    if v_last then
        perform pgflow._end_from_outside(v_run, 'failed', 'E-RUN-016',
            format('tool call %s failed: %s', fail_tool.key, v_error ->> 'message'));
        return 'failed';
    elsif pgflow._stands_still(v_run) then
        v_run := pgflow._wake(v_run, v_now, fail_tool.key);
    end if;
    return v_run.state;
end
$$;
comment on function pgflow.fail_tool is
    'Says that a tool call failed: an attempt is used and, while there are any left, the tool is '
    'requested again; else the run fails with E-RUN-016. Returns the run''s state. Raises PF102, '
    'PF202, PF204, PF502.';

create or replace function pgflow.inject_input(
    run_id uuid, step text, content jsonb, as_user text default null, project text default null
)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(inject_input.project);
    v_task_id uuid;
begin
    select t.task_id into v_task_id from pgflow.task t
    where t.project_id = v_project and t.run_id = inject_input.run_id and t.state = 'open'
      and t.key = inject_input.step and t.kind in ('form', 'input', 'interrupt');
    if not found then
        return false;
    end if;
    perform pgflow.answer(v_task_id, inject_input.content, null, inject_input.as_user, v_project);
    return true;
end
$$;
comment on function pgflow.inject_input is
    'Answers the open form, input or interrupt of a run''s step, as answer does; false if there '
    'is none. Raises PF101, PF402, PF501, PF502.';

-- Time: what a run slept for, and what did not come in time.
create or replace function pgflow._time_out(p_run pgflow.run, p_now timestamptz)
returns integer
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_wait jsonb;
    v_timed_out integer := 0;
begin
    for v_wait in
        select w from jsonb_array_elements(v_run.waits) as w
        where (w ->> 'due_at')::timestamptz <= p_now and w ->> 'key' = any (v_run.waits_for)
        order by (w ->> 'due_at')::timestamptz, w ->> 'key'
    loop
        if v_wait ->> 'kind' = 'sleep' then
            v_run := pgflow._resolve(v_run, p_now, v_wait ->> 'key', 'sleep', null,
                '{wait.timed_out}',
                array[jsonb_build_object('key', v_wait -> 'key', 'kind', 'sleep')],
                v_wait ->> 'key');
        else
            v_run := pgflow._resolve(v_run, p_now, v_wait ->> 'key', 'timeout',
                jsonb_build_object('after', extract(epoch from
                    (v_wait ->> 'due_at')::timestamptz - (v_wait ->> 'asked_at')::timestamptz)),
                '{wait.timed_out}',
                array[jsonb_build_object('key', v_wait -> 'key', 'kind', v_wait -> 'kind')],
                v_wait ->> 'key');
        end if;
        v_timed_out := v_timed_out + 1;
        exit when v_run.state in ('pending', 'completed', 'failed');
    end loop;
    if v_run.waits_for is not null then
        update pgflow.run r set wake_at = pgflow._first_due(v_run.waits, v_run.waits_for)
        where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
    end if;
    return v_timed_out;
end
$$;
comment on function pgflow._time_out is
    'Ends the waits of a run whose time is up, and wakes it if that was the last thing; returns '
    'how many. The caller holds the run.';
