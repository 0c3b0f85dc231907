-- The other ends of a lease: release, fail. Each locks one run after the other, in the order of
-- their ids.

create or replace function pgflow._held(p_project text, p_run_id uuid, p_lease_no integer)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run;
begin
    select r.* into v_run from pgflow.run r
    where r.project_id = p_project and r.run_id = p_run_id
      and r.state = 'running' and r.lease_no = p_lease_no
    for update;
    return v_run;
end
$$;
comment on function pgflow._held is
    'Locks the run if it is running under that lease; else a row of nulls.';

-- Bounded, so that no worker's number can overflow the sum.
create or replace function pgflow._steps(p_steps integer)
returns integer
language sql
immutable
as $$
    select least(greatest(coalesce(p_steps, 0), 0), 1000000)
$$;
comment on function pgflow._steps is 'How many steps a worker says it did, 0 to a million.';

-- What is no number adds nothing: NaN or infinity would swallow what the run has cost so far.
create or replace function pgflow._cost(p_before numeric, p_cost numeric)
returns numeric
language sql
immutable
as $$
    select case when p_cost is null or p_cost in ('NaN', 'Infinity', '-Infinity') then p_before
                else coalesce(p_before, 0) + p_cost end
$$;
comment on function pgflow._cost is
    'What a run has cost, with what an execution adds; null is unknown.';

create or replace function pgflow._free_slot(p_run pgflow.run)
returns void
language plpgsql
as $$
begin
    if p_run.slotted then
        delete from pgflow.slot s
        where s.project_id = p_run.project_id and s.queue = p_run.queue and s.run_id = p_run.run_id
          and s.lease_no = p_run.lease_no;
        perform pgflow._hint_work(p_run.project_id, p_run.queue);
    end if;
end
$$;
comment on function pgflow._free_slot is
    'Frees the slot of a run whose lease ends, and hints at it.';

-- running -> pending, or scheduled with a delay. The caller holds the row.
create or replace function pgflow._give_back(
    p_run pgflow.run, p_now timestamptz, p_type text, p_payload jsonb, p_counts boolean,
    p_delay interval default '0', p_error jsonb default null, p_cost numeric default null,
    p_steps integer default null
)
returns text
language plpgsql
as $$
declare
    v_scheduled boolean := p_delay > '0';
    v_seq bigint := case when not p_delay > '0' then nextval('pgflow.run_seq') end;
begin
    perform pgflow._event(p_run, p_run.last_event_no + 1, p_type, p_now, p_payload, true);
    update pgflow.run r
    set state = case when v_scheduled then 'scheduled' else 'pending' end,
        lane = 0, seq = v_seq, run_at = case when v_scheduled
            then p_now + p_delay else r.run_at end,
        worker_id = null, leased_at = null, lease_event_no = null, slotted = false,
        last_event_no = r.last_event_no + 1, attempt = r.attempt + p_counts::integer,
        last_error = coalesce(p_error, r.last_error),
        step_count = r.step_count + pgflow._steps(p_steps),
        cost_usd = pgflow._cost(r.cost_usd, p_cost)
    where r.project_id = p_run.project_id and r.run_id = p_run.run_id;
    perform pgflow._free_slot(p_run);
    perform pgflow._hint_work(p_run.project_id, p_run.queue);
    return case when v_scheduled then 'scheduled' else 'pending' end;
end
$$;
comment on function pgflow._give_back is
    'Takes a locked run''s lease away with an event, counting an attempt or not, for now or after'
    ' a delay.';

create or replace function pgflow.release(
    run_ids uuid[], lease_nos integer[], reason text default 'shutdown',
    costs_usd numeric[] default null, steps integer[] default null, project text default null
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
    v_project text := pgflow._enter_project(release.project);
    v_now timestamptz := pgflow.now();
    v_run pgflow.run;
    v_given record;
begin
    perform pgflow._check_batch(release.run_ids, release.lease_nos,
        array[cardinality(release.costs_usd), cardinality(release.steps)]);
    for v_given in
        select g.* from unnest(release.run_ids, release.lease_nos, release.costs_usd, release.steps)
                   as g (run_id, lease_no, cost, steps)
        order by g.run_id
    loop
        v_run := pgflow._held(v_project, v_given.run_id, v_given.lease_no);
        if v_run.run_id is null then
            return query select a.* from pgflow._after_lease(v_project, v_given.run_id,
                v_given.lease_no,
                '{run.released}') as a;
            continue;
        end if;
        return query select v_run.run_id, 'done', pgflow._give_back(v_run, v_now, 'run.released',
            jsonb_build_object('reason', left(release.reason, 200)), false, '0', null, v_given.cost,
            v_given.steps), null::text, null::text;
    end loop;
end
$$;
comment on function pgflow.release is
    'Gives runs back to their queue without using an attempt. Returns a line for each: done, '
    'already or lost. Raises PF101, PF502.';

-- Exponential backoff, as the step of a flow says, else the handler. The jitter takes off up to a
-- half, so that runs that failed together come apart.
create or replace function pgflow._backoff(p_run pgflow.run)
returns interval
language plpgsql
as $$
declare
    v_handler pgflow.handler;
    v_step pgflow.step_definition;
    v_seconds double precision;
begin
    select h.* into v_handler from pgflow.handler h
    where h.project_id = p_run.project_id and h.handler = p_run.handler;
    if p_run.step is not null then
        v_step := pgflow._step_of(p_run);
    end if;
    v_seconds := least(
        extract(epoch from coalesce(v_step.retry_max, v_handler.retry_max, interval '1 hour')),
        extract(epoch from coalesce(v_step.retry_base, v_handler.retry_base, interval '1 second'))
            * power(coalesce(v_step.retry_factor, v_handler.retry_factor, 2),
                    least(p_run.attempt, 50)));
    return make_interval(secs => v_seconds * (1 - random() / 2));
end
$$;
comment on function pgflow._backoff is
    'The delay before the next execution of a run that has failed.';

create or replace function pgflow._bounded_error(p_error text)
returns jsonb
language plpgsql
as $$
declare
    v_error jsonb;
begin
    v_error := p_error::jsonb;
    if pg_column_size(v_error) > 65536 then
        v_error := jsonb_build_object('type', left(v_error ->> 'type', 200),
            'message', left(v_error ->> 'message', 8000),
            'traceback', right(v_error ->> 'traceback', 20000), 'truncated', true);
    end if;
    return v_error;
exception
    when data_exception or program_limit_exceeded then
        return jsonb_build_object('type', 'ErrorRefused',
            'message', 'the error itself could not be stored: ' || sqlerrm);
end
$$;
comment on function pgflow._bounded_error is
    'An error (json: type, message, traceback) within 64 kB.';

create or replace function pgflow._fail(
    p_run pgflow.run, p_code text, p_detail text, p_error jsonb, p_retry boolean, p_cost numeric,
    p_steps integer
)
returns text
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
    v_delay interval;
    v_state text;
begin
    -- the code doesn't fit the run: a deploy can mend that, an end can't
    if p_code = 'E-RUN-012' then
        perform pgflow._pause(p_run, p_code || ': ' || p_detail, p_error, p_cost, p_steps);
        perform pgflow._look_at_flow_of(p_run);
        return 'paused';
    end if;
    if p_code = 'E-RUN-003' and p_run.repairs_left is not null then
        v_state := pgflow._time_out_with_artifact(p_run, p_cost, p_steps);
        if v_state is not null then
            return v_state;
        end if;
    end if;
    if p_retry and p_run.attempt + 1 < p_run.max_attempts then
        v_delay := pgflow._backoff(p_run);
        return pgflow._give_back(p_run, v_now, 'run.retried',
            jsonb_build_object('attempt', p_run.attempt + 1, 'max_attempts', p_run.max_attempts,
                'error_code', p_code, 'error_detail', left(p_detail, 8000), 'run_at',
                v_now + v_delay),
            true, v_delay, p_error, p_cost, p_steps);
    end if;
    perform pgflow._end(p_run.project_id, array[p_run.run_id], array[p_run.lease_no], 'failed',
        null,
        array[p_cost], array[p_steps], p_code, p_detail, p_error);
    return 'failed';
end
$$;
comment on function pgflow._fail is
    'Ends a failed execution of a held run: scheduled again with a backoff while attempts are '
    'left, else failed; paused for E-RUN-012.';

create or replace function pgflow.fail(
    run_ids uuid[], lease_nos integer[], error_codes text[], error_details text[],
    errors text[] default null, retries boolean[] default null, costs_usd numeric[] default null,
    steps integer[] default null, project text default null
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
    v_project text := pgflow._enter_project(fail.project);
    v_run pgflow.run;
    v_given record;
    v_unknown text;
begin
    perform pgflow._check_batch(fail.run_ids, fail.lease_nos, array[cardinality(fail.error_codes),
        cardinality(fail.error_details), cardinality(fail.errors), cardinality(fail.retries),
        cardinality(fail.costs_usd), cardinality(fail.steps)]);
    select u.code into v_unknown from unnest(fail.error_codes) as u (code)
    where u.code is null or u.code not in (select c.error_code from pgflow.error_code c);
    if found then
        perform pgflow._refuse_value('error_codes', 'codes of table pgflow.error_code', v_unknown);
    end if;
    perform pgflow._lock_family(v_project, fail.run_ids);
    for v_given in
        select g.* from unnest(fail.run_ids, fail.lease_nos, fail.error_codes, fail.error_details,
                               fail.errors, fail.retries, fail.costs_usd, fail.steps)
                   as g (run_id, lease_no, code, detail, error, retry, cost, steps)
        order by g.run_id
    loop
        v_run := pgflow._held(v_project, v_given.run_id, v_given.lease_no);
        if v_run.run_id is null then
            return query select a.* from pgflow._after_lease(v_project, v_given.run_id,
                v_given.lease_no,
                array['failed ' || v_given.code, 'run.retried',
                'run.paused ' || v_given.code, 'prompt.repaired']) as a;
            continue;
        end if;
        return query select v_run.run_id, 'done', pgflow._fail(v_run, v_given.code, v_given.detail,
            pgflow._bounded_error(v_given.error), coalesce(v_given.retry, true), v_given.cost,
            v_given.steps), v_given.code, null::text;
    end loop;
end
$$;
comment on function pgflow.fail is
    'Ends executions that failed. While attempts are left and retries says so (default), the run '
    'is scheduled again after the handler''s backoff; else it is failed; with E-RUN-012 it is '
    'paused. errors are json texts of type, message and traceback. Returns a line for each with '
    'the state it is in now. Raises PF101, PF502.';
