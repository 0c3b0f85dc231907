-- Parents and children. A child is a run that another run's handler asked for: its end writes its
-- result into the parent's journal, and the parent's end cancels it.
--
-- Whoever may end a run locks the run, its parent and all below it, in one statement and in the
-- order of their ids. A child's id is greater than its parent's, so ancestors come first. What a
-- step does moves its flow, and that the one that it is itself a step of, so these come along. Runs
-- without family pay a look into an empty index.

-- Before PostgreSQL 17 the planner may take a list of ids for a mere filter, in a table that it
-- thinks is small, and read the whole index; a cached plan goes on so as the table grows. Between
-- its bounds there is little else than the list.
create or replace function pgflow._bounds(p_run_ids uuid[])
returns uuid[]
language plpgsql
immutable
as $$
begin
    return array[(select u.id from unnest(p_run_ids) as u (id) order by u.id limit 1),
        (select u.id from unnest(p_run_ids) as u (id) order by u.id desc limit 1)];
end
$$;
comment on function pgflow._bounds is 'The least and the greatest of some ids; there is no min().';

-- Joins that no planner turns around: it would read all children there are.
create or replace function pgflow._family(p_project text, p_run_ids uuid[])
returns uuid[]
language plpgsql
as $$
declare
    v_bounds uuid[] := pgflow._bounds(p_run_ids);
begin
    return array(
        with recursive below as (
            select r.run_id, r.parent_run_id, r.has_children from pgflow.run r
            where r.project_id = p_project and r.run_id = any (p_run_ids)
              and r.run_id between v_bounds[1] and v_bounds[2]
            union
            select c.run_id, c.parent_run_id, c.has_children
            from below b
            cross join lateral (
                select c.* from pgflow.run c
                where c.project_id = p_project and c.parent_run_id = b.run_id
                offset 0
            ) c
            where b.has_children
        ),
        above as (
            select p.run_id, p.parent_run_id, p.step
            from below b
            cross join lateral (
                select p.* from pgflow.run p
                where p.project_id = p_project and p.run_id = b.parent_run_id
                limit 1
            ) p
            union
            select p.run_id, p.parent_run_id, p.step
            from above a
            cross join lateral (
                select p.* from pgflow.run p
                where p.project_id = p_project and p.run_id = a.parent_run_id
                limit 1
            ) p
            where a.step is not null
        )
        select b.run_id from below b
        union
        select a.run_id from above a
        order by 1);
end
$$;
comment on function pgflow._family is
    'The live ones among some runs, their parents, flows around those, and all below, in order.';

create or replace function pgflow._lock_family(p_project text, p_run_ids uuid[])
returns boolean
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
declare
    v_family uuid[] := '{}';
    v_locked uuid[];
begin
    -- Each by itself; see _bounds().
    if not exists (
        select from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
              and (r.parent_run_id is not null or r.has_children) is true
            limit 1
        ) f
    ) then
        return false;
    end if;
    -- Until no child has come in the meantime; whoever makes one holds its parent.
    loop
        v_locked := v_family;
        v_family := pgflow._family(p_project, p_run_ids);
        exit when v_family = v_locked or v_family <@ v_locked;  -- <@ is quadratic
        -- One after the other, as they stand in the list.
        perform from unnest(v_family) as u (run_id)
        cross join lateral (
            select from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
            for update
        ) r;
    end loop;
    return true;
end
$$;
comment on function pgflow._lock_family is
    'Locks runs that may end with their parents and all below them; false, and nothing is locked, '
    'if they have none.';

create or replace function pgflow._try_lock_family(p_run pgflow.run)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_family uuid[];
    v_locked uuid[];
begin
    if p_run.parent_run_id is null and not p_run.has_children then
        return p_run;
    end if;
    v_family := pgflow._family(p_run.project_id, array[p_run.run_id]);
    v_locked := array(
        select r.run_id from pgflow.run r
        where r.project_id = p_run.project_id and r.run_id = any (v_family)
        order by r.run_id
        for update skip locked);
    if v_family = v_locked or v_family <@ v_locked then
        select r.* into v_run from pgflow.run r
        where r.project_id = p_run.project_id and r.run_id = p_run.run_id;
    end if;
    return v_run;
end
$$;
comment on function pgflow._try_lock_family is
    'As _lock_family for one run that the caller holds, but never waits. Returns the run as it is '
    'now; a row of nulls if somebody holds one of the others, or if it ended with its parent.';

-- Most are alone. One that gets its first child while this waits for it comes before that child.
create or replace function pgflow._locked_to_end(p_project text, p_run_id uuid)
returns pgflow.run
language plpgsql
as $$
declare
    v_run pgflow.run := pgflow._locked(p_project, p_run_id, true);
begin
    if v_run.run_id is null then
        perform pgflow._lock_family(p_project, array[p_run_id]);
        v_run := pgflow._locked(p_project, p_run_id);
    end if;
    return v_run;
end
$$;
comment on function pgflow._locked_to_end is
    'Locks a live run that may end, with its family; a row of nulls if there is none.';

-- Asking again under the same key finds the child that is there.
create or replace function pgflow._start_child(p_parent pgflow.run, p_wait jsonb)
returns uuid
language plpgsql
as $$
declare
    v_child_id uuid := pgflow._new_id();
begin
    perform from pgflow.run r
    where r.project_id = p_parent.project_id and r.parent_run_id = p_parent.run_id
      and r.parent_key = p_wait ->> 'key';
    if found then
        return null;
    end if;
    if v_child_id <= p_parent.run_id then  -- the parent's was given by a client, with a later time
        v_child_id := pgflow._id_after(p_parent.run_id);
    end if;
    perform pgflow._enqueue(p_parent.project_id, p_wait ->> 'handler', array[v_child_id],
        array[p_wait -> 'input'], p_wait ->> 'queue',
        coalesce((p_wait ->> 'priority')::integer, p_parent.priority), null,
        (p_wait ->> 'max_attempts')::integer,
        make_interval(secs => (p_wait ->> 'run_timeout')::float8), p_parent.deadline, null,
        coalesce(p_parent.correlation_id, p_parent.run_id::text), pgflow._tags(p_wait), null);
    update pgflow.run r
    set parent_run_id = p_parent.run_id, parent_key = p_wait ->> 'key', lane = 0,
        root_run_id = coalesce(p_parent.root_run_id, p_parent.run_id), depth = p_parent.depth + 1,
        budget_run_id = p_parent.budget_run_id
    where r.project_id = p_parent.project_id and r.run_id = v_child_id;
    return v_child_id;
end
$$;
comment on function pgflow._start_child is
    'Makes the child run of a wait, if it isn''t there; returns its id, or null if it is. The '
    'caller holds the parent.';

-- The caller holds the parents. A child whose key was voided, or is no longer waited for, has none.
create or replace function pgflow._tell_parents(p_project text, p_child_ids uuid[])
returns void
language plpgsql
as $$
declare
    v_child pgflow.run_finished;
    v_parent pgflow.run;
begin
    -- Each by itself, as in _lock_family().
    if exists (
        select from unnest(p_child_ids) as u (run_id)
        cross join lateral (
            select from pgflow.run_finished f
            where f.project_id = p_project and f.run_id = u.run_id and f.step is not null
            limit 1
        ) f
    ) then
        perform pgflow._fire(p_project, p_child_ids);
    end if;
    for v_child in
        select f.* from unnest(p_child_ids) as u (run_id)
        cross join lateral (
            select f.* from pgflow.run_finished f
            where f.project_id = p_project and f.run_id = u.run_id and f.step is null
            limit 1
        ) f
        order by f.run_id
    loop
        v_parent := pgflow._locked(p_project, v_child.parent_run_id);
        if v_parent.run_id is not null then
            perform pgflow._resolve(v_parent, v_child.finished_at, v_child.parent_key, 'run',
                jsonb_build_object('run_id', v_child.run_id, 'state', v_child.state,
                    'output', v_child.output, 'error_code', v_child.error_code,
                    'error_detail', v_child.error_detail),
                '{child.ended}',
                array[jsonb_build_object('run_id', v_child.run_id, 'key', v_child.parent_key,
                    'state', v_child.state)],
                v_child.parent_key);
        end if;
    end loop;
end
$$;
comment on function pgflow._tell_parents is
    'Writes the results of ended children into their parents'' journals; a flow takes note of its '
    'steps.';

-- In a query that wants children in the order of their ids the planner may read all runs in that
-- order, which the primary key has, instead of looking the children up and sorting them.
create or replace function pgflow._children(p_project text, p_parent_ids uuid[])
returns setof pgflow.run
language plpgsql
stable
as $$
begin
    return query
    select c.* from unnest(p_parent_ids) as u (run_id)
    cross join lateral (
        select r.* from pgflow.run r
        where r.project_id = p_project and r.parent_run_id = u.run_id
        offset 0
    ) c
    order by c.run_id;
end
$$;
comment on function pgflow._children is
    'The live children of some runs, in the order of their ids.';

-- The step that ends its flow holds the flow and itself, not its siblings: to lock them now could
-- be against the order. Those that somebody else holds are left to the tick.
create or replace function pgflow._end_children(
    p_project text, p_parent_ids uuid[], p_keys text[] default null
)
returns void
language plpgsql
as $$
declare
    v_child pgflow.run;
begin
    for v_child in
        select r.* from pgflow._children(p_project, p_parent_ids) as u
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
              and (p_keys is null or r.parent_key = any (p_keys))
            for update skip locked
        ) r
    loop
        update pgflow.run r set parent_key = null
        where r.project_id = p_project and r.run_id = v_child.run_id;
        perform pgflow._end_from_outside(v_child, 'cancelled', 'E-RUN-011',
            format('its parent %s no longer needs it', v_child.parent_run_id));
    end loop;
    if p_keys is null then
        perform pgflow._close_steps(p_project, p_parent_ids);
        perform pgflow._leave_behind(p_project, p_parent_ids);
    end if;
end
$$;
comment on function pgflow._end_children is
    'Cancels the live children of runs, or only those under some keys, with E-RUN-011; their '
    'parents aren''t told. The caller holds the family.';
