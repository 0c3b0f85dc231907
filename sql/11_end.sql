-- The one way out of table run: a live run -> run_finished, in one statement.
--
-- p_lease_nos fences: only runs that are running under these leases end. Without it, whatever state
-- they are in, and the caller holds their rows. A lease that is gone can write nothing more, so its
-- slot is free, though the handler may not know yet that it is to stop.
--
-- The runs are found by primary key: left to itself the planner may take another index ("few rows
-- are running"), join the other way round, or scan a table that was small when the plan was made,
-- and then walks over every dead entry. So the state and the lease stand where neither an index nor
-- a join can use them: as a hashed subplan behind an `or`. An index scan takes the ids in their
-- order, which is the order of locks; a bitmap scan would go by place in the table.
--
-- Whoever calls it holds the runs' families (10_family), in which an end is passed on. A flow's end
-- counts two lines: report.written (65_report) comes before it.
create or replace function pgflow._end(
    p_project text, p_run_ids uuid[], p_lease_nos integer[], p_state text,
    p_outputs text[] default null, p_costs numeric[] default null, p_steps integer[] default null,
    p_code text default null, p_detail text default null, p_error jsonb default null,
    p_by text default null
)
returns uuid[]
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_now timestamptz := pgflow.now();
    -- If all leases have the same number, most often 1, the rows need not be looked up in a list.
    v_lease_no integer := case when p_lease_nos[1] = all (p_lease_nos) then p_lease_nos[1] end;
    v_bounds uuid[] := pgflow._bounds(p_run_ids);
    v_ended uuid[];
    v_leases integer[];
    v_queues text[];
    v_with_tasks uuid[];
    v_run_id uuid;
    v_slotted boolean;
    v_has_children boolean;
    v_children uuid[];
    v_watched uuid[];
begin
    perform set_config('pgflow.ending', 'on', true);
    with gone as (
        delete from pgflow.run r
        where r.project_id = p_project and r.run_id = any (p_run_ids)
          and r.run_id between v_bounds[1] and v_bounds[2]
          and (p_lease_nos is null
               or r.state = 'running'
                  and (r.lease_no = v_lease_no
                       or v_lease_no is null
                          and (r.run_id, r.lease_no) in (select l.*
                              from unnest(p_run_ids, p_lease_nos) as l)))
        returning r.*
    ),
    finished as (
        insert into pgflow.run_finished (
            project_id, run_id, parent_run_id, parent_key, root_run_id, retry_of, undo_of,
            forked_from, kind, handler, queue, state, ended_from, priority, depth, attempt,
            max_attempts, lease_no, lease_event_no, last_event_no, round, step_count, worker_id,
            created_at, run_at, deadline, first_started_at, leased_at, finished_at, timeout,
            created_by, ended_by, correlation_id, idempotency_key,
            error_code, error_detail, cost_usd, tags, step, flow_version, super_step, bindings,
            input, output,
            last_error)
        select g.project_id, g.run_id, g.parent_run_id, g.parent_key, g.root_run_id, g.retry_of,
            g.undo_of, g.forked_from, g.kind, g.handler, g.queue, p_state, g.state, g.priority,
            g.depth, g.attempt + (p_state = 'failed' and g.state = 'running')::integer,
            g.max_attempts,
            g.lease_no, g.lease_event_no, g.last_event_no + 1 + (g.kind = 'flow')::integer, g.round,
            g.step_count + pgflow._steps(w.steps), g.worker_id, g.created_at, g.run_at, g.deadline,
            g.first_started_at, g.leased_at, v_now, g.timeout, g.created_by, p_by, g.correlation_id,
            g.idempotency_key, p_code, left(p_detail, 8000),
            pgflow._cost(g.cost_usd, w.cost),
            g.tags, g.step, g.flow_version, g.super_step, g.bindings, g.input,
            case when p_state = 'completed' then coalesce(w.output, 'null')::jsonb end,
            coalesce(p_error, g.last_error)
        from gone g
        join unnest(p_run_ids, p_outputs, p_costs, p_steps) as w (run_id, output, cost, steps)
          on w.run_id = g.run_id
    )
    select array_agg(g.run_id), array_agg(g.lease_no),
        array_agg(g.run_id) filter (where g.has_tasks), bool_or(g.slotted),
        bool_or(g.has_children),
        array_agg(g.run_id) filter (where g.parent_key is not null),
        array_agg(g.run_id) filter (where g.watched)
    into v_ended, v_leases, v_with_tasks, v_slotted, v_has_children, v_children, v_watched
    from gone g;
    perform set_config('pgflow.ending', '', true);
    if v_watched is not null then
        perform pgflow._hint_watchers(p_project, v_watched, true);
    end if;
    if pgflow._is_followed(p_project) then
        perform pgflow._publish_reports(p_project, v_ended);
        perform pgflow._publish(p_project, v_ended);
    end if;
    if v_with_tasks is not null then
        -- One by one: a list may be taken for a mere filter, and all open tasks be read.
        foreach v_run_id in array v_with_tasks loop
            update pgflow.task t set state = 'cancelled'
            where t.project_id = p_project and t.run_id = v_run_id and t.state = 'open';
        end loop;
        perform pgflow._hint_inbox(p_project);
    end if;
    if v_slotted then
        with freed as (
            delete from pgflow.slot s
            using unnest(v_ended, v_leases) as e (run_id, lease_no)
            where s.project_id = p_project and s.run_id = e.run_id and s.lease_no = e.lease_no
            returning s.queue
        )
        select array_agg(f.queue) into v_queues from freed f;
        perform pgflow._hint_queues(p_project, v_queues);
    end if;
    if v_has_children then
        perform pgflow._end_children(p_project, v_ended);
    end if;
    if v_children is not null then
        perform pgflow._tell_parents(p_project, v_children);
    end if;
    if p_state <> 'completed' and v_ended is not null then
        perform pgflow._start_undoing(p_project, v_ended, p_state);
    end if;
    return coalesce(v_ended, '{}');
end
$$;
comment on function pgflow._end is
    'Ends live runs: moves them to run_finished. Returns those that it ended.';

create or replace function pgflow._end_from_outside(
    p_run pgflow.run, p_state text, p_code text, p_detail text, p_by text default null
)
returns void
language plpgsql
as $$
begin
    -- The states of those who are put off know no failure; such a run is made ready for its end.
    if p_state = 'failed' and p_run.state in ('scheduled', 'paused') then
        update pgflow.run r
        set state = 'pending', seq = coalesce(r.seq, nextval('pgflow.run_seq')),
            pause_reason = null, deadlines_held_at = null
        where r.project_id = p_run.project_id and r.run_id = p_run.run_id;
    end if;
    perform pgflow._end(p_run.project_id, array[p_run.run_id], null, p_state, null, null, null,
        p_code,
        p_detail, null, p_by);
    if p_run.worker_id is not null then
        perform pgflow._hint_worker(p_run.project_id, p_run.worker_id);
    end if;
end
$$;
comment on function pgflow._end_from_outside is
    'Ends a run that the caller holds, whatever its state; its worker is told to stop the handler.';

-- What became of a lease that is gone: `already` if this very verb ended it (the reply was lost and
-- the worker says it again), else `lost`.
create or replace function pgflow._after_lease(
    p_project text, p_run_id uuid, p_lease_no integer, p_ends text[]
)
returns pgflow.outcome_v1
language plpgsql
as $$
declare
    v_line pgflow.outcome_v1;
    v_finished pgflow.run_finished;
    v_end text;
begin
    select f.* into v_finished from pgflow.run_finished f
    where f.project_id = p_project and f.run_id = p_run_id;
    v_line.run_id := p_run_id;
    if found then
        v_line.state := v_finished.state;
        v_line.code := v_finished.error_code;
        v_line.detail := v_finished.error_detail;
        if v_finished.lease_no = p_lease_no and v_finished.lease_event_no is not null then
            v_end := concat_ws(' ', v_finished.state, v_finished.error_code);
        end if;
    else
        select r.state into v_line.state from pgflow.run r
        where r.project_id = p_project and r.run_id = p_run_id;
    end if;
    if v_end is null then
        select case when e.type = 'run.paused'
                    then e.type || ' ' || coalesce(left(e.payload ->> 'reason', 9), '')
                    else e.type end
        into v_end
        from pgflow.event e
        where e.project_id = p_project and e.run_id = p_run_id and e.lease_no = p_lease_no
          and e.lease_event_no is not null;
    end if;
    v_line.outcome := case when v_end = any (p_ends) then 'already' else 'lost' end;
    if v_line.outcome = 'lost' then
        v_line.code := 'PF301';
        v_line.detail := format('run %s is %s; lease %s is gone', p_run_id,
            coalesce(v_line.state, 'unknown'), p_lease_no);
    end if;
    return v_line;
end
$$;
comment on function pgflow._after_lease is
    'The outcome line of a verb whose lease is gone; p_ends are the ends that it would have made: '
    'a state with its error code, or an event type.';

-- If one row is bad (a \u0000 in a string, an output over its limit) the halves are tried again,
-- until the one that is left fails alone. So it is with what a step writes to channels.
--
-- Families are locked by the subtransaction that writes to them: a row locked by one and written by
-- another gets a multixact, and an index never forgets the versions that such a row leaves behind.
-- A flow with a thousand steps would pass by all of them at each end.
create or replace function pgflow._complete(
    p_project text, p_run_ids uuid[], p_lease_nos integer[], p_outputs text[], p_costs numeric[],
    p_steps integer[], p_writes text[], p_to_lock boolean
)
returns setof pgflow.outcome_v1
language plpgsql
as $$
declare
    v_ended uuid[];
    v_many integer := cardinality(p_run_ids);
    v_half integer := v_many / 2;
    v_error text;
    v_code text := 'E-RUN-017';
begin
    begin
        if p_to_lock then
            perform pgflow._lock_family(p_project, p_run_ids);
        end if;
        if p_writes is not null then
            perform pgflow._store_writes(p_project, p_run_ids, p_lease_nos, p_writes);
        end if;
        v_ended := pgflow._end(p_project, p_run_ids, p_lease_nos, 'completed', p_outputs, p_costs,
            p_steps);
    exception
        when data_exception or integrity_constraint_violation or program_limit_exceeded then
            v_error := sqlerrm;
            if sqlstate = '22PF1' then
                v_code := 'E-RUN-018';
            end if;
    end;
    if p_to_lock and v_error is not null then
        perform pgflow._lock_family(p_project, p_run_ids);  -- all, before the first half
    end if;
    if v_error is null then
        if cardinality(v_ended) < v_many then
            return query
            select a.* from unnest(p_run_ids, p_lease_nos) as g (run_id, lease_no)
            cross join lateral pgflow._after_lease(p_project, g.run_id, g.lease_no,
                ('{completed,failed E-RUN-017,failed E-RUN-018,failed E-RUN-008,'
                    || 'failed E-RUN-014,prompt.repaired}')::text[]) as a
            where g.run_id <> all (v_ended);
        end if;
    elsif v_many = 1 then
        perform pgflow._end(p_project, p_run_ids, p_lease_nos, 'failed', null, p_costs, p_steps,
            v_code,
            v_error, jsonb_build_object('type', 'OutputRefused', 'message', v_error));
        return query select p_run_ids[1], 'refused', 'failed', v_code, v_error;
    else
        return query select * from pgflow._complete(p_project, p_run_ids[:v_half],
            p_lease_nos[:v_half],
            p_outputs[:v_half], p_costs[:v_half], p_steps[:v_half], p_writes[:v_half],
            false);
        return query select * from pgflow._complete(p_project, p_run_ids[v_half + 1:],
            p_lease_nos[v_half + 1:], p_outputs[v_half + 1:], p_costs[v_half + 1:],
            p_steps[v_half + 1:], p_writes[v_half + 1:], false);
    end if;
end
$$;
comment on function pgflow._complete is
    'running -> completed for many runs, whose families are to be locked, or are held by the '
    'caller, or which have none; see complete.';

create or replace function pgflow._check_batch(p_run_ids uuid[], p_lease_nos integer[],
    p_lengths integer[])
returns void
language plpgsql
as $$
begin
    if coalesce(cardinality(p_run_ids), 0) not between 1 and 10000
       or array_position(p_run_ids, null) is not null then
        perform pgflow._refuse_value('run_ids', '1 to 10000 run ids',
            cardinality(p_run_ids) || ' run ids');
    elsif cardinality(p_lease_nos) is distinct from cardinality(p_run_ids)
       or array_position(p_lease_nos, null) is not null then
        perform pgflow._refuse_value('lease_nos', 'one lease number for each run id',
            cardinality(p_lease_nos) || ' numbers');
    elsif exists (select from unnest(p_lengths) as u (n) where u.n <> cardinality(p_run_ids)) then
        perform pgflow._refuse_value('arrays', 'of the length of run_ids, or null',
            p_lengths::text);
    end if;
end
$$;
comment on function pgflow._check_batch is 'Refuses (PF101) a batch whose arrays differ in length.';

create or replace function pgflow.complete(
    run_ids uuid[], lease_nos integer[], outputs text[], costs_usd numeric[] default null,
    steps integer[] default null, writes text[] default null, project text default null
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
    v_project text := pgflow._enter_project(complete.project);
    v_kind record;
begin
    perform pgflow._check_batch(complete.run_ids, complete.lease_nos,
        array[cardinality(complete.outputs),
        cardinality(complete.costs_usd), cardinality(complete.steps),
        cardinality(complete.writes)]);
    v_kind := pgflow._what_ends(v_project, complete.run_ids);
    if v_kind.expect_artifacts then
        perform pgflow._lock_family(v_project, complete.run_ids);
        return query select c.* from pgflow._complete_with_artifacts(v_project, complete.run_ids,
            complete.lease_nos, complete.outputs, complete.costs_usd, complete.steps,
            complete.writes) as c;
        return;
    end if;
    return query select c.* from pgflow._complete(v_project, complete.run_ids, complete.lease_nos,
        complete.outputs, complete.costs_usd, complete.steps, complete.writes,
        v_kind.have_families) as c;
end
$$;
comment on function pgflow.complete is
    'Ends runs with their outputs (json texts). Returns a line only for those that were not '
    'simply done: already, lost, or refused: where the output could not be stored, which fails '
    'that run with E-RUN-017, or where the artifact that its step expects is invalid (E-RUN-008) '
    'or not there (E-RUN-014), which has it executed again or fails it, as state says. writes are '
    'what steps of flows write to channels, json texts of [{"channel": name, "value": any}] or '
    'null; what does not fit fails the run with E-RUN-018. Example: select * from '
    'pgflow.complete(''{...}'', ''{1}'', array[''{"ok": true}'']). Raises PF101, PF502.';
