-- Going back: entries of a run's journal are voided, kept with their round, and the handler goes on
-- from there. And what comes with it: undoing steps, breakpoints, forks.

create or replace function pgflow._known_entry(p_run pgflow.run, p_key text, p_field text)
returns pgflow.journal
language plpgsql
as $$
declare
    v_entry pgflow.journal;
begin
    select j.* into v_entry from pgflow.journal j
    where j.project_id = p_run.project_id and j.run_id = p_run.run_id and j.key = p_key
      and j.key not like 'undo/%';
    if not found then
        perform pgflow._refuse('PF105', format('run %s has no journal entry %s', p_run.run_id,
            left(p_key, 200)),
            format('it has: %s', coalesce((
                select string_agg(k.key, ', ' order by k.event_no)
                from (select j.key, j.event_no from pgflow.journal j
                      where j.project_id = p_run.project_id and j.run_id = p_run.run_id
                        and j.key not like 'undo/%'
                      order by j.event_no limit 50) k), 'none')),
            'View pgflow.journal_entries lists them.', p_field);
    end if;
    return v_entry;
end
$$;
comment on function pgflow._known_entry is 'An entry of a run''s journal. Raises PF105.';

-- What undoes steps is kept: it must not be done twice. A signal goes back to the mailbox, because
-- it is a fact; a task counts no more, because what it was about does not; a child is cancelled.
create or replace function pgflow._void_from(
    p_run pgflow.run, p_now timestamptz, p_key text, p_reason text
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
    v_from integer;
    v_keys text[];
begin
    select j.event_no into v_from from pgflow.journal j
    where j.project_id = v_run.project_id and j.run_id = v_run.run_id and j.key = p_key;
    with gone as (
        delete from pgflow.journal j
        where j.project_id = v_run.project_id and j.run_id = v_run.run_id
          and j.event_no >= v_from and j.key not like 'undo/%'
        returning j.*
    ),
    kept as (
        insert into pgflow.journal_voided (project_id, run_id, round, key, kind, undo, lease_no,
            attempt, event_no, at, digest, value)
        select g.project_id, g.run_id, v_run.round, g.key, g.kind, g.undo, g.lease_no, g.attempt,
            g.event_no, g.at, g.digest, g.value
        from gone g
    )
    select coalesce(array_agg(g.key order by g.event_no), array[p_key]) into v_keys from gone g;
    update pgflow.signal s set taken_as = null
    where s.project_id = v_run.project_id and s.run_id = v_run.run_id
      and s.taken_as = any (v_keys);
    if v_run.has_tasks then
        v_run := pgflow._void_tasks(v_run, p_now, array(
            select t.key from pgflow.task t
            where t.project_id = v_run.project_id and t.run_id = v_run.run_id
              and t.voided_at is null and not starts_with(t.key, 'pgflow:') and not exists (
                  select from pgflow.journal j
                  where j.project_id = v_run.project_id and j.run_id = v_run.run_id
                    and j.key = t.key)), p_reason);
    end if;
    if v_run.has_children then
        perform pgflow._end_children(v_run.project_id, array[v_run.run_id]);
    end if;
    v_run.waits := null;
    v_run.round := v_run.round + 1;
    v_run.last_event_no := v_run.last_event_no + 1;
    perform pgflow._event(v_run, v_run.last_event_no, 'step.rolled_back', p_now,
        jsonb_build_object('to', p_key, 'round', v_run.round, 'voided', v_keys,
            'reason', p_reason));
    return v_run;
end
$$;
comment on function pgflow._void_from is
    'Voids an entry and all after it, and what is open; returns the run, its round counted up, '
    'whose row the caller writes. The caller holds the family.';

-- any live state -> pending, from an earlier point; a paused run stays paused. The caller holds the
-- run's family.
create or replace function pgflow._roll_back(
    p_run pgflow.run, p_now timestamptz, p_key text, p_feedback jsonb
)
returns void
language plpgsql
as $$
declare
    v_run pgflow.run := pgflow._void_from(p_run, p_now, p_key, p_feedback ->> 'comment');
    v_paused boolean := v_run.state = 'paused' and not pgflow._stands_still(v_run);
    v_seq bigint := nextval('pgflow.run_seq');
begin
    if v_run.state = 'running' then
        v_run.last_event_no := v_run.last_event_no + 1;
        perform pgflow._event(p_run, v_run.last_event_no, 'run.released', p_now,
            '{"reason": "rolled back"}', true);
        perform pgflow._hint_worker(v_run.project_id, v_run.worker_id);
    end if;
    update pgflow.run r
    set state = case when v_paused then 'paused' else 'pending' end, lane = 0,
        seq = case when not v_paused then v_seq end, round = v_run.round,
        last_event_no = v_run.last_event_no, feedback = p_feedback, waits = null,
        waits_for = null, wait_any = false, wake_at = null,
        pause_reason = case when v_paused then r.pause_reason end, worker_id = null,
        leased_at = null, lease_event_no = null, slotted = false
    where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
    perform pgflow._free_slot(p_run);
    perform pgflow._hint_work(v_run.project_id, v_run.queue);
    perform pgflow._look_at_flow_of(v_run);
end
$$;
comment on function pgflow._roll_back is
    'Voids an entry of a run and all after it, and makes the run ready to go on from there.';

-- What has to be undone, newest first: voided steps, or those of the run that this one undoes. A
-- step is undone when the run has an entry undo/ROUND/KEY. With them comes all that stood between
-- them: how a step is undone only the handler knows, and it has to get as far as that step again.
create or replace function pgflow._to_undo(p_run pgflow.run)
returns json
language plpgsql
stable
as $$
begin
    return (
        with old as (
            select v.key, v.kind, v.value, v.digest, v.round, v.event_no, v.undo
            from pgflow.journal_voided v
            where v.project_id = p_run.project_id and v.run_id = p_run.run_id and not v.replaced
            union all
            select j.key, j.kind, j.value, j.digest, 0, j.event_no, j.undo from pgflow.journal j
            where j.project_id = p_run.project_id and j.run_id = p_run.undo_of
              and j.key not like 'undo/%'
        ),
        marked as (
            select o.*, o.undo and d.key is null as is_left
            from old o
            left join pgflow.journal d
                   on d.project_id = p_run.project_id and d.run_id = p_run.run_id
                  and d.key = format('undo/%s/%s', o.round, o.key)
        )
        select json_agg(json_build_object('key', m.key, 'kind', m.kind, 'value', m.value,
            'digest', encode(m.digest, 'hex'), 'round', m.round, 'undo', m.is_left)
            order by m.round desc, m.event_no desc)
        from marked m
        where m.round in (select l.round from marked l where l.is_left));
end
$$;
comment on function pgflow._to_undo is
    'What a run has to undo before it goes on, a json array; null if that is nothing.';

create or replace function pgflow._enqueue_again(p_project text, p_run_id uuid)
returns uuid
language plpgsql
as $$
declare
    v_new_id uuid := pgflow._new_id();
begin
    perform pgflow._enqueue(p_project, o.handler, array[v_new_id], array[o.input], o.queue,
        o.priority, null, o.max_attempts, o.timeout, null, null,
        coalesce(o.correlation_id, p_run_id::text), o.tags, null)
    from (
        select r.handler, r.input, r.queue, r.priority, r.max_attempts, r.timeout,
            r.correlation_id, r.tags
        from pgflow.run r
        where r.project_id = p_project and r.run_id = p_run_id
        union all
        select f.handler, f.input, f.queue, f.priority, f.max_attempts, f.timeout,
            f.correlation_id, f.tags
        from pgflow.run_finished f
        where f.project_id = p_project and f.run_id = p_run_id
    ) as o;
    return v_new_id;
end
$$;
comment on function pgflow._enqueue_again is
    'Starts a run like another, live or finished, but for its deadline and idempotency key; '
    'returns its id.';

create or replace function pgflow._start_undoing(p_project text, p_run_ids uuid[], p_state text)
returns void
language plpgsql
as $$
declare
    v_run_id uuid;
    v_undo_id uuid;
begin
    if not exists (select from pgflow.handler h
                   where h.project_id = p_project and p_state = any (h.undo_on)) then
        return;
    end if;
    for v_run_id in
        -- Each by itself; see _bounds().
        select f.run_id from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select f.run_id, f.handler from pgflow.run_finished f
            where f.project_id = p_project and f.run_id = u.run_id and f.undo_of is null
            limit 1
        ) f
        join pgflow.handler h on h.project_id = p_project and h.handler = f.handler
        where p_state = any (h.undo_on)
          and exists (select from pgflow.journal j
                      where j.project_id = p_project and j.run_id = f.run_id and j.undo)
        order by f.run_id
    loop
        v_undo_id := pgflow._enqueue_again(p_project, v_run_id);
        update pgflow.run r set undo_of = v_run_id, lane = 0
        where r.project_id = p_project and r.run_id = v_undo_id;
    end loop;
end
$$;
comment on function pgflow._start_undoing is
    'Makes the runs that undo the steps of ended ones, where their handlers ask for that.';

-- What is undone already is copied, as _copy_journal does, so that it isn't done twice.
create or replace function pgflow._go_on_undoing(p_old pgflow.run_finished, p_run_id uuid)
returns void
language plpgsql
as $$
begin
    update pgflow.run r set undo_of = p_old.undo_of
    where r.project_id = p_old.project_id and r.run_id = p_run_id and r.undo_of is null;
    if found then
        insert into pgflow.journal (project_id, run_id, key, kind, lease_no, attempt, event_no, at,
            digest, value)
        select j.project_id, p_run_id, j.key, j.kind, j.lease_no, j.attempt,
            -row_number() over (order by j.event_no desc), j.at, j.digest, j.value
        from pgflow.journal j
        where j.project_id = p_old.project_id and j.run_id = p_old.run_id
          and j.key like 'undo/%';
    end if;
end
$$;
comment on function pgflow._go_on_undoing is
    'Makes a retry of an undo run one itself, which undoes what is left.';

create or replace function pgflow._set_breakpoint(
    p_project text, p_run_id uuid, p_step text, p_when text, p_set boolean
)
returns text[]
language plpgsql
as $$
declare
    v_run pgflow.run := pgflow._locked(p_project, p_run_id);
    v_breakpoint text := p_when || ' ' || p_step;
begin
    if coalesce(p_when, '') not in ('before', 'after') then
        perform pgflow._refuse_value('moment', 'before or after', p_when);
    elsif coalesce(char_length(p_step), 0) not between 1 and 500 then
        perform pgflow._refuse_value('step', '1 to 500 characters', p_step);
    elsif v_run.run_id is null then
        perform pgflow._refuse_gone(p_project, p_run_id, 'be stopped');
    elsif v_run.kind = 'step_wait' then
        perform pgflow._refuse_value('run_id', 'the run of a handler or of a flow', 'a step_wait');
    elsif v_run.kind = 'flow' then
        perform pgflow._check_step(v_run, p_step, 'step');
    end if;
    if coalesce(v_breakpoint = any (v_run.breakpoints), false) = p_set then
        return coalesce(v_run.breakpoints, '{}');
    end if;
    v_run.breakpoints := nullif(case when p_set then v_run.breakpoints || v_breakpoint
        else array_remove(v_run.breakpoints, v_breakpoint) end, '{}');
    update pgflow.run r
    set breakpoints = v_run.breakpoints, last_event_no = r.last_event_no + 1
    where r.project_id = p_project and r.run_id = p_run_id;
    perform pgflow._event(v_run, v_run.last_event_no + 1,
        case when p_set then 'breakpoint.set' else 'breakpoint.cleared' end, pgflow.now(),
        jsonb_build_object('step', p_step, 'when', p_when));
    if v_run.state = 'running' then
        perform pgflow._hint_worker(p_project, v_run.worker_id);
    end if;
    return coalesce(v_run.breakpoints, '{}');
end
$$;
comment on function pgflow._set_breakpoint is
    'Sets or takes away a breakpoint; see set_breakpoint. Raises PF101, PF102, PF105, PF202.';

create or replace function pgflow.set_breakpoint(
    run_id uuid, step text, moment text default 'before', project text default null
)
returns text[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    return pgflow._set_breakpoint(pgflow._enter_project(set_breakpoint.project),
        set_breakpoint.run_id, set_breakpoint.step, set_breakpoint.moment, true);
end
$$;
comment on function pgflow.set_breakpoint is
    'Has a live run pause before or after a step (its journal key; of a flow, the step''s name). '
    'In a run that is being executed it holds for steps that begin once its worker has heard of '
    'it. Again is a no-op. Returns the breakpoints. Example: select pgflow.set_breakpoint(''...'', '
    '''publish''). Raises PF101, PF102, PF105, PF202, PF502.';

create or replace function pgflow.clear_breakpoint(
    run_id uuid, step text, moment text default 'before', project text default null
)
returns text[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    return pgflow._set_breakpoint(pgflow._enter_project(clear_breakpoint.project),
        clear_breakpoint.run_id, clear_breakpoint.step, clear_breakpoint.moment, false);
end
$$;
comment on function pgflow.clear_breakpoint is
    'Takes a breakpoint away; again is a no-op. Returns those that are left. Raises PF101, PF102, '
    'PF105, PF202, PF502.';

-- The copies come before all events of the new run, so their numbers are negative.
create or replace function pgflow._copy_journal(
    p_project text, p_from uuid, p_to uuid, p_before integer, p_updates jsonb
)
returns void
language plpgsql
as $$
declare
    v_steps integer;
    v_news integer;
begin
    with copied as (
        insert into pgflow.journal (project_id, run_id, key, kind, news, lease_no, attempt,
            event_no, at, digest, value)
        select j.project_id, p_to, j.key, j.kind,
            case when j.news is not null
                 then row_number() over (partition by j.news is null order by j.event_no) end,
            j.lease_no, j.attempt, -row_number() over (order by j.event_no desc), j.at, j.digest,
            case when p_updates ? j.key then p_updates -> j.key else j.value end
        from pgflow.journal j
        where j.project_id = p_project and j.run_id = p_from and j.event_no < p_before
          and j.key not like 'undo/%'
        returning news
    )
    select count(*) filter (where c.news is null), count(*) filter (where c.news is not null)
    into v_steps, v_news
    from copied c;
    update pgflow.run r set step_count = v_steps, news = v_news, forked_from = p_from
    where r.project_id = p_project and r.run_id = p_to;
end
$$;
comment on function pgflow._copy_journal is
    'Copies the journal of a run, before an event, to a new run.';

create or replace function pgflow.fork(
    run_id uuid, step text default null, updates jsonb default null,
    super_step integer default null, project text default null
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
    v_project text := pgflow._enter_project(fork.project);
    v_run pgflow.run := pgflow._locked(v_project, fork.run_id);
    v_old pgflow.run_finished;
    v_entry pgflow.journal;
    v_fork_id uuid;
begin
    if v_run.run_id is null then
        select f.* into v_old from pgflow.run_finished f
        where f.project_id = v_project and f.run_id = fork.run_id
        for share;  -- retention must not take its journal before it is copied
        if not found then
            perform pgflow._refuse_gone(v_project, fork.run_id, '');
        end if;
        v_run := jsonb_populate_record(null::pgflow.run, to_jsonb(v_old));
    elsif v_run.state = 'running' and v_run.kind = 'handler' then
        perform pgflow._refuse('PF201', format('run %s is running and cannot be forked',
            fork.run_id),
            json_build_object('run_id', fork.run_id, 'from_state', 'running', 'to_state',
                null)::text, 'Pause it first, or wait until it waits.', 'run_id');
    end if;
    if v_run.kind = 'step_wait' then
        perform pgflow._refuse_value('run_id', 'the run of a handler or a flow', 'a step_wait');
    elsif v_run.kind = 'flow' and fork.step is not null then
        perform pgflow._refuse_value('step', 'left out: a flow is forked at a super_step',
            fork.step);
    elsif v_run.kind = 'flow' then
        return pgflow._fork_flow(v_run, fork.super_step, fork.updates);
    elsif fork.super_step is not null then
        perform pgflow._refuse_value('super_step', 'left out: a handler''s run is forked at a step',
            fork.super_step::text);
    end if;
    v_entry := pgflow._known_entry(v_run, fork.step, 'step');
    if jsonb_typeof(fork.updates) <> 'object' then
        perform pgflow._refuse_value('updates', 'an object of journal keys and values',
            fork.updates::text);
    end if;
    perform pgflow._refuse_value('updates', 'of entries before ' || fork.step, u.key)
    from jsonb_object_keys(fork.updates) as u (key)
    where (pgflow._known_entry(v_run, u.key, 'updates')).event_no >= v_entry.event_no;
    v_fork_id := pgflow._enqueue_again(v_project, fork.run_id);
    perform pgflow._give_budget(v_project, v_fork_id, pgflow._budget_of(v_project, fork.run_id));
    perform pgflow._copy_journal(v_project, v_run.run_id, v_fork_id, v_entry.event_no,
        coalesce(fork.updates, '{}'));
    return v_fork_id;
end
$$;
comment on function pgflow.fork is
    'Makes a new run that begins with the journal of another, finished or not running, up to but '
    'without an entry; updates replaces values of entries before it. Of a flow, a new run that '
    'begins with what had ended by a super-step, and with the values of that; updates replaces '
    'values. Returns its id. Example: '
    'select pgflow.fork(''...'', ''publish'', ''{"draft": "better"}''). Raises PF101, PF102, '
    'PF105, PF201, PF502.';

create or replace function pgflow._update_entries(
    p_run pgflow.run, p_now timestamptz, p_updates jsonb
)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := p_run;
begin
    if jsonb_typeof(p_updates) <> 'object' or p_updates = '{}' then
        perform pgflow._refuse_value('command.update', 'an object of journal keys and values',
            p_updates::text);
    end if;
    perform pgflow._known_entry(v_run, u.key, 'command.update')
    from jsonb_object_keys(p_updates) as u (key);
    insert into pgflow.journal_voided (project_id, run_id, round, key, kind, undo, replaced,
        lease_no, attempt, event_no, at, digest, value)
    select j.project_id, j.run_id, v_run.round, j.key, j.kind, false, true, j.lease_no, j.attempt,
        j.event_no, j.at, j.digest, j.value
    from pgflow.journal j
    where j.project_id = v_run.project_id and j.run_id = v_run.run_id and p_updates ? j.key;
    update pgflow.journal j set value = p_updates -> j.key
    where j.project_id = v_run.project_id and j.run_id = v_run.run_id and p_updates ? j.key;
    v_run.round := v_run.round + 1;
    v_run.last_event_no := v_run.last_event_no + 1;
    update pgflow.run r set round = v_run.round, last_event_no = v_run.last_event_no
    where r.project_id = v_run.project_id and r.run_id = v_run.run_id;
    -- What an interrupt shows may depend on them: another time it is not compared.
    update pgflow.task t set digest = null
    where t.project_id = v_run.project_id and t.run_id = v_run.run_id and t.state = 'open'
      and t.kind = 'interrupt';
    perform pgflow._event(v_run, v_run.last_event_no, 'step.updated', p_now,
        jsonb_build_object('keys', (select jsonb_agg(u.key) from jsonb_object_keys(p_updates)
            as u (key)), 'round', v_run.round));
    return v_run;
end
$$;
comment on function pgflow._update_entries is
    'Replaces values of a run''s journal, the old ones kept with their round; returns the run. The '
    'caller holds it.';
