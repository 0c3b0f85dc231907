-- Park: running -> waiting_*. The worker names the news it has seen; if there are others the run
-- stays its own and it gets them. A wait is one row: no worker, no connection, no memory.
--
-- What is waited for is of some kind: a person (16_tasks), a tool, an event or a time (20_waits),
-- a child (10_family). Everything is named that the handler waits for at this moment; what was
-- asked before and is not named any more is closed, such as the losers of a race.

create or replace function pgflow._tags(p_wait jsonb)
returns text[]
language sql
immutable
as $$
    select case when jsonb_typeof(p_wait -> 'tags') = 'array'
                then array(select jsonb_array_elements_text(p_wait -> 'tags')) end
$$;
comment on function pgflow._tags is 'The tags that a child is asked for with; null if none.';

create or replace function pgflow._check_wait(p_wait jsonb)
returns void
language plpgsql
as $$
declare
    v_kind text := p_wait ->> 'kind';
begin
    if v_kind is null or v_kind not in ('approval', 'form', 'input', 'interrupt', 'breakpoint',
        'tool', 'event', 'sleep', 'run') then
        perform pgflow._refuse_value('waits.kind', 'approval, form, input, interrupt, breakpoint, '
            'tool, event, sleep or run', v_kind);
    elsif coalesce(char_length(p_wait ->> 'key'), 0) not between 1 and 500 then
        perform pgflow._refuse_value('waits.key', '1 to 500 characters', p_wait ->> 'key');
    elsif starts_with(p_wait ->> 'key', 'pgflow:') then
        perform pgflow._refuse_value('waits.key', 'none of the engine''s own, which begin with '
            'pgflow:', p_wait ->> 'key');
    elsif p_wait ->> 'digest' !~ '^([0-9a-f]{2})*$' then
        perform pgflow._refuse_value('waits.digest', 'hex digits', p_wait ->> 'digest');
    elsif (p_wait ->> 'timeout')::float8 not between 0.001 and 315360000 then
        perform pgflow._refuse_value('waits.timeout', 'seconds, more than 0 and at most ten years',
            p_wait ->> 'timeout');
    elsif v_kind = 'tool' and coalesce(char_length(p_wait ->> 'tool'), 0) not between 1 and 200 then
        perform pgflow._refuse_value('waits.tool', '1 to 200 characters', p_wait ->> 'tool');
    elsif v_kind = 'event'
        and coalesce(char_length(p_wait ->> 'name'), 0) not between 1 and 200 then
        perform pgflow._refuse_value('waits.name', '1 to 200 characters', p_wait ->> 'name');
    elsif v_kind = 'sleep'
        and coalesce((p_wait ->> 'seconds')::float8 not between 0 and 315360000, true) then
        perform pgflow._refuse_value('waits.seconds', '0 to ten years', p_wait ->> 'seconds');
    elsif v_kind = 'run' and jsonb_typeof(p_wait -> 'tags') not in ('array', 'null') then
        perform pgflow._refuse_value('waits.tags', 'a list of texts', p_wait ->> 'tags');
    elsif v_kind = 'run' then
        perform pgflow._check_run(p_wait ->> 'handler', p_wait ->> 'queue',
            coalesce((p_wait ->> 'priority')::integer, 0), null,
            (p_wait ->> 'max_attempts')::integer,
            make_interval(secs => (p_wait ->> 'run_timeout')::float8), null, null, null, null,
            pgflow._tags(p_wait));
    elsif v_kind = 'breakpoint' and coalesce(p_wait ->> 'when', '') not in ('before', 'after') then
        perform pgflow._refuse_value('waits.when', 'before or after', p_wait ->> 'when');
    elsif v_kind = 'breakpoint'
        and not starts_with(p_wait ->> 'key', format('breakpoint/%s/', p_wait ->> 'when')) then
        perform pgflow._refuse_value('waits.key', 'breakpoint/WHEN/STEP', p_wait ->> 'key');
    elsif v_kind in ('approval', 'form', 'input', 'interrupt') then
        perform pgflow._check_request(p_wait);
    end if;
end
$$;
comment on function pgflow._check_wait is 'Refuses (PF101) what cannot be waited for.';

-- Opens what a wait needs that is not there yet: its task, its child, its row among run.waits.
-- p_come are keys that have an entry. Returns the run as it is now, its row not yet written.
create or replace function pgflow._open_wait(
    p_run pgflow.run, p_now timestamptz, p_wait jsonb, p_come text[]
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_kind text := p_wait ->> 'kind';
    v_seconds double precision := coalesce(p_wait ->> 'seconds', p_wait ->> 'timeout')::float8;
    v_child_id uuid;
begin
    if p_wait ->> 'key' = any (p_come) then
        v_run.waits := pgflow._waits_without(v_run.waits, p_wait ->> 'key');
    elsif v_kind in ('approval', 'form', 'input', 'interrupt', 'breakpoint') then
        return pgflow._request_task(v_run, p_now, p_wait);
    elsif v_kind = 'run' then
        v_child_id := pgflow._start_child(v_run, p_wait);
        if v_child_id is not null then
            v_run.has_children := true;
            v_run.last_event_no := v_run.last_event_no + 1;
            perform pgflow._event(v_run, v_run.last_event_no, 'child.started', p_now,
                jsonb_build_object('run_id', v_child_id, 'key', p_wait ->> 'key',
                    'handler', p_wait ->> 'handler'));
            v_run.waits := coalesce(v_run.waits, '[]') || jsonb_build_object('kind', 'run',
                'key', p_wait ->> 'key', 'digest', p_wait ->> 'digest', 'run_id', v_child_id);
        end if;
    elsif pgflow._wait_under(v_run.waits, p_wait ->> 'key') is null then
        if v_kind = 'tool' then
            v_run.last_event_no := v_run.last_event_no + 1;
            perform pgflow._event(v_run, v_run.last_event_no, 'tool.requested', p_now,
                jsonb_build_object('key', p_wait ->> 'key', 'tool', p_wait ->> 'tool',
                    'arguments', p_wait -> 'arguments', 'arguments_sha256',
                    encode(pgflow._sha256(coalesce(p_wait -> 'arguments', 'null')), 'hex')));
        end if;
        v_run.waits := coalesce(v_run.waits, '[]') || jsonb_strip_nulls(jsonb_build_object(
            'kind', v_kind, 'key', p_wait ->> 'key', 'digest', p_wait ->> 'digest',
            'tool', p_wait ->> 'tool', 'name', p_wait ->> 'name', 'asked_at', p_now,
            'due_at', p_now + make_interval(secs => v_seconds)));
    end if;
    return v_run;
end
$$;
comment on function pgflow._open_wait is
    'Opens what a wait needs and is not open yet; returns the run, whose row the caller writes.';

-- What was asked and is not waited for any more.
create or replace function pgflow._close_waits(p_run pgflow.run, p_now timestamptz, p_keys text[])
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
begin
    v_run.waits := nullif(jsonb_path_query_array(v_run.waits, '$[*] ? (@.key == $keys[*])',
        jsonb_build_object('keys', p_keys)), '[]');
    if v_run.has_tasks then
        v_run := pgflow._void_tasks(v_run, p_now, array(
            select t.key from pgflow.task t
            where t.project_id = v_run.project_id and t.run_id = v_run.run_id and t.state = 'open'
              and t.key <> all (p_keys)), 'no longer waited for');
    end if;
    if v_run.has_children then
        perform pgflow._end_children(v_run.project_id, array[v_run.run_id], array(
            select c.parent_key from pgflow.run c
            where c.project_id = v_run.project_id and c.parent_run_id = v_run.run_id
              and c.parent_key <> all (p_keys)));
    end if;
    return v_run;
end
$$;
comment on function pgflow._close_waits is
    'Closes tasks, tools and children of a run but those of some keys; returns the run, whose row '
    'the caller writes.';

create or replace function pgflow._state_of_wait(p_waits jsonb)
returns text
language sql
immutable
as $$
    select case
        when p_waits @? '$[*] ? (@.kind == "interrupt" || @.kind == "breakpoint")' then 'paused'
        when p_waits @? '$[*] ? (@.kind == "approval" || @.kind == "form" || @.kind == "input")'
            then 'waiting_approval'
        when p_waits @? '$[*] ? (@.kind == "tool")' then 'waiting_tool'
        when jsonb_array_length(p_waits) = 1 and p_waits @? '$[*] ? (@.kind == "sleep")'
            then 'scheduled'
        else 'waiting_event'
    end
$$;
comment on function pgflow._state_of_wait is
    'The state of a run that waits for these: of the first kind among people, tools and the rest; '
    'scheduled where it only sleeps.';

create or replace function pgflow._check_waits(p_waits jsonb)
returns void
language plpgsql
as $$
declare
    v_wait jsonb;
begin
    if jsonb_typeof(p_waits) is distinct from 'array' or p_waits = '[]' then
        perform pgflow._refuse_value('waits', 'a list of at least one wait', p_waits::text);
    end if;
    for v_wait in select w from jsonb_array_elements(p_waits) as w loop
        perform pgflow._check_wait(v_wait);
    end loop;
end
$$;
comment on function pgflow._check_waits is 'Refuses (PF101) waits that no run can park with.';

create or replace function pgflow._come(p_run pgflow.run, p_keys text[])
returns text[]
language plpgsql
as $$
declare
    v_come text[];
    v_step text;
begin
    select array_agg(j.key), min(j.key) filter (where j.kind = 'step') into v_come, v_step
    from pgflow.journal j
    where j.project_id = p_run.project_id and j.run_id = p_run.run_id and j.key = any (p_keys);
    if v_step is not null then
        perform pgflow._refuse_value('waits.key', 'no key of a step', v_step);
    end if;
    return v_come;
end
$$;
comment on function pgflow._come is
    'Those of some keys that are in a run''s journal already; null if none is. Refuses (PF101) '
    'those of steps, which a run cannot wait for.';

-- A worker may name what has come already, beside what has not.
create or replace function pgflow._missing(p_run pgflow.run, p_waits jsonb)
returns jsonb
language plpgsql
as $$
begin
    if p_run.news = 0 then
        return p_waits;
    end if;
    return (
        select jsonb_agg(u.w order by u.n)
        from jsonb_array_elements(p_waits) with ordinality as u (w, n)
        where not exists (
            select from pgflow.journal j
            where j.project_id = p_run.project_id and j.run_id = p_run.run_id
              and j.key = u.w ->> 'key'));
end
$$;
comment on function pgflow._missing is 'Those of some waits that are not in the run''s journal.';

-- p_held is the run as it was leased, p_run what became of it since.
create or replace function pgflow._stop_executing(
    p_held pgflow.run, p_run pgflow.run, p_now timestamptz, p_park jsonb, p_keys text[],
    p_any boolean
)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_missing jsonb := pgflow._missing(v_run, p_park -> 'waits');
    v_state text := pgflow._state_of_wait(v_missing);
    v_sleeps boolean := v_state = 'scheduled';
    v_due_at timestamptz := pgflow._first_due(v_run.waits, p_keys);
begin
    if v_due_at < p_now then  -- asked again too late; the next tick looks from now on
        v_due_at := p_now;
    end if;
    v_run.last_event_no := v_run.last_event_no + 1;
    v_run.news := v_run.news + v_sleeps::integer;
    perform pgflow._event(v_run, v_run.last_event_no, 'run.waiting', p_now,
        jsonb_build_object('waits_for', p_keys), true);
    update pgflow.run r
    set state = v_state, seq = null, wait_any = p_any and not v_sleeps,
        waits_for = case when not v_sleeps then p_keys end,
        waits = case when not v_sleeps then v_run.waits end,
        wake_at = case when not v_sleeps then v_due_at end,
        run_at = case when v_sleeps then v_due_at else r.run_at end,
        pause_reason = case when v_state = 'paused' then pgflow._pause_of(array(
            select w ->> 'key' from jsonb_array_elements(v_missing) as w
            where w ->> 'kind' = 'breakpoint')) end,
        has_tasks = v_run.has_tasks, has_children = v_run.has_children, news = v_run.news,
        round = v_run.round, last_event_no = v_run.last_event_no, worker_id = null,
        leased_at = null, lease_event_no = null, slotted = false,
        step_count = r.step_count + pgflow._steps((p_park ->> 'steps')::integer),
        cost_usd = pgflow._cost(r.cost_usd, (p_park ->> 'cost_usd')::numeric)
    where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
    if v_sleeps then
        -- Its entry is there already: nothing but the time stands between the run and it.
        insert into pgflow.journal (project_id, run_id, key, kind, news, event_no, at, digest)
        values (v_run.project_id, v_run.run_id, v_missing #>> '{0,key}', 'sleep', v_run.news,
            v_run.last_event_no, p_now, decode(v_missing #>> '{0,digest}', 'hex'));
    end if;
    perform pgflow._free_slot(p_held);
end
$$;
comment on function pgflow._stop_executing is
    'running -> waiting_*, paused or scheduled, for a run whose waits are open.';

create or replace function pgflow._park_held(p_run pgflow.run, p_now timestamptz, p_park jsonb)
returns pgflow.parked_v1
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_waits jsonb := p_park -> 'waits';
    v_any boolean := coalesce((p_park ->> 'wait_any')::boolean, false);
    v_keys text[];
    v_come text[];
    v_changed jsonb;
    v_wait jsonb;
    v_line pgflow.parked_v1;
begin
    v_line.run_id := v_run.run_id;
    v_line.news := v_run.news;
    perform pgflow._check_waits(v_waits);
    v_keys := array(select distinct w ->> 'key' from jsonb_array_elements(v_waits) as w order by 1);
    v_changed := pgflow._changed_requests(v_run, v_waits);
    if pgflow._are_asked_too_often(v_run, v_changed) then
        perform pgflow._pause(v_run, 'E-RUN-012: asked a fourth time, each time for something else',
            null, (p_park ->> 'cost_usd')::numeric, (p_park ->> 'steps')::integer);
        v_line.outcome := 'done';
        return v_line;
    end if;
    if v_changed <> '{}' then
        -- This voids what is open beside it, too, so it comes before anything is opened.
        v_run := pgflow._void_changed(v_run, p_now, v_changed);
    end if;
    v_come := pgflow._come(v_run, v_keys);
    for v_wait in select w from jsonb_array_elements(v_waits) as w loop
        v_run := pgflow._open_wait(v_run, p_now,
            v_wait || jsonb_build_object('replaces', v_changed -> (v_wait ->> 'key')), v_come);
    end loop;
    v_run := pgflow._close_waits(v_run, p_now, v_keys);
    v_run := pgflow._take_signals(v_run, p_now, v_keys, v_any);
    if (v_come is not null or v_run.news > p_run.news)
        and pgflow._is_satisfied(v_run.project_id, v_run.run_id, v_keys, v_any) then
        if v_run.news = p_run.news then
            perform pgflow._refuse_value('waits', 'not in the run''s journal already',
                v_keys::text);
        end if;
        update pgflow.run r
        set last_event_no = v_run.last_event_no, news = v_run.news, waits = v_run.waits,
            has_tasks = v_run.has_tasks, has_children = v_run.has_children, round = v_run.round
        where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
        v_line.outcome := 'news';
        v_line.news := v_run.news;
        v_line.entries := pgflow._journal(v_run.project_id, v_run.run_id, p_run.news);
        return v_line;
    end if;
    perform pgflow._stop_executing(p_run, v_run, p_now, p_park, v_keys, v_any);
    if p_run.has_tasks then  -- one may have come due while the handler ran
        perform pgflow._expire_tasks(v_run, p_now);
    end if;
    v_line.outcome := 'done';
    return v_line;
end
$$;
comment on function pgflow._park_held is 'Parks a run that the caller holds; see park.';

create or replace function pgflow._park_one(p_project text, p_park jsonb)
returns pgflow.parked_v1
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_line pgflow.parked_v1;
begin
    v_line.run_id := (p_park ->> 'run_id')::uuid;
    v_run := pgflow._held(p_project, v_line.run_id, (p_park ->> 'lease_no')::integer);
    if v_run.run_id is null then
        select a.outcome, a.code, a.detail into v_line.outcome, v_line.code, v_line.detail
        from pgflow._after_lease(p_project, v_line.run_id, (p_park ->> 'lease_no')::integer,
            '{run.waiting,run.paused E-RUN-012}') as a;
        return v_line;
    end if;
    v_line.news := v_run.news;
    if p_park ->> 'news' is null then
        perform pgflow._refuse_value('parks.news', 'the news that the worker has seen', null);
    elsif v_run.news <> (p_park ->> 'news')::integer then
        v_line.outcome := 'news';
        v_line.entries := pgflow._journal(p_project, v_run.run_id, (p_park ->> 'news')::integer);
        return v_line;
    end if;
    v_line := pgflow._park_held(v_run, pgflow.now(), p_park);
    if v_line.outcome = 'done' then
        perform pgflow._look_at_flow_of(v_run);
    end if;
    return v_line;
exception
    when sqlstate 'PF101' or data_exception or integrity_constraint_violation
         or program_limit_exceeded then
        return (v_line.run_id, 'refused', v_line.news, null, sqlstate, sqlerrm)::pgflow.parked_v1;
end
$$;
comment on function pgflow._park_one is 'Parks one run; see park.';

create or replace function pgflow._pause_of(p_breakpoints text[])
returns text
language sql
immutable
as $$
    select coalesce(split_part(min(k collate "C"), '/', 2), 'interrupt')
    from unnest(p_breakpoints) as k
$$;
comment on function pgflow._pause_of is
    'Why a run is paused that stands at these breakpoints: before or after, as the first of them '
    'says; interrupt where there are none.';

create or replace function pgflow.park(parks jsonb, project text default null)
returns setof pgflow.parked_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(park.project);
    v_run_ids uuid[];
    v_park jsonb;
begin
    if jsonb_typeof(park.parks) is distinct from 'array' then
        perform pgflow._refuse_value('parks', 'an array of objects', left(park.parks::text, 200));
    end if;
    v_run_ids := array(
        select (p.park ->> 'run_id')::uuid from jsonb_array_elements(park.parks) as p (park)
        where p.park ->> 'run_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');
    perform pgflow._lock_family(v_project, v_run_ids);
    -- To make a first child may write its queue; runs come before queues.
    if cardinality(v_run_ids) > 1 and park.parks @? '$[*].waits[*] ? (@.kind == "run")' then
        perform from pgflow.run r
        where r.project_id = v_project and r.run_id = any (v_run_ids)
        order by r.run_id
        for update;
    end if;
    for v_park in
        select p.park from jsonb_array_elements(park.parks) as p (park) order by p.park ->> 'run_id'
    loop
        return next pgflow._park_one(v_project, v_park);
    end loop;
end
$$;
comment on function pgflow.park is
    'Lets runs wait without a worker. Each element: run_id, lease_no, news (as seen), waits, '
    'wait_any, cost_usd, steps. waits names all that the run waits for now; each has kind, key, '
    'digest (hex), and by its kind: approval, form, input: title, payload, form, assignee, '
    'assignee_role, requested_by, not_requester, quorum, quorum_of, due_in (seconds), policy, '
    'escalate_to, escalate_in, on_reject; interrupt: title, payload; tool: tool, arguments, '
    'timeout; event: name, timeout; sleep: seconds; run: handler, input, queue, priority, '
    'max_attempts, run_timeout, tags; breakpoint: when, and breakpoint/WHEN/STEP as its key. '
    'Returns a line for each: done; news with the entries not seen yet, and the run goes on; '
    'already; lost; refused. Raises PF101, PF502.';
