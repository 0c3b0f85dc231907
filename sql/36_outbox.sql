-- The outbox: the events of all runs of a project in one order, for those who subscribe to them.
--
-- Whoever adds events to a timeline writes their numbers to outbox as well, if the project has a
-- subscription. It looks for one after it has locked the run: if the event before was written
-- there, this one is as well, and a subscription has no gap within a run.
--
-- The order is (place, run_id, event_no). A place is the id of the writing transaction: what has a
-- lower one than all running transactions is complete. An order by time, or by a sequence, is
-- not: a lower number may be committed later. But ids alone would turn events of a run round: a
-- transaction that began early, and waited for the run, has a lower id than the one before it on
-- that run. So a place is never lower than that of the run's event before.

create or replace function pgflow._is_followed(p_project text)
returns boolean
language plpgsql
as $$
begin
    -- An older snapshot may not see the subscription. _trim_outbox takes away what nobody wants.
    return exists (select from pgflow.subscription s where s.project_id = p_project)
        or current_setting('transaction_isolation') <> 'read committed';
end
$$;
comment on function pgflow._is_followed is
    'Whether somebody may follow the events of a project. Ask it once the runs are written.';

create or replace function pgflow._publish(
    p_project text, p_run_ids uuid[], p_event_nos integer[] default null
)
returns void
language plpgsql
as $$
declare
    v_place bigint := pg_current_xact_id()::text::bigint;
begin
    insert into pgflow.outbox (project_id, place, run_id, event_no)
    select p_project, greatest(v_place, (
            select o.place from pgflow.outbox o
            where o.project_id = p_project and o.run_id = u.run_id
            order by o.event_no desc
            limit 1)),
        u.run_id, coalesce(u.event_no, (
            select r.last_event_no from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id), (
            select f.last_event_no from pgflow.run_finished f
            where f.project_id = p_project and f.run_id = u.run_id))
    from unnest(p_run_ids, p_event_nos) as u (run_id, event_no);
end
$$;
comment on function pgflow._publish is
    'Notes events, without numbers the last one of each run, for those who follow the project. The '
    'caller has written them, and asked _is_followed.';

create or replace function pgflow._trim_outbox(p_project text)
returns void
language plpgsql
as $$
declare
    v_least pgflow.outbox_position;
begin
    select (s.read_to).* into v_least from pgflow.subscription s
    where s.project_id = p_project
    order by s.read_to
    limit 1;
    if found then
        delete from pgflow.outbox o
        where o.ctid = any (array(
            select d.ctid from pgflow.outbox d
            where d.project_id = p_project and (d.place, d.run_id, d.event_no)
                  <= (v_least.place, v_least.run_id, v_least.event_no)
            order by d.place
            limit 10000
            for update skip locked));
    else
        delete from pgflow.outbox o
        where o.ctid = any (array(
            select d.ctid from pgflow.outbox d
            where d.project_id = p_project
            limit 10000
            for update skip locked));
    end if;
end
$$;
comment on function pgflow._trim_outbox is
    'Forgets up to 10000 events that all subscriptions of a project have acknowledged.';

create or replace function pgflow._position(p_position pgflow.outbox_position)
returns text
language sql
immutable
as $$
    select format('%s/%s/%s', p_position.place, p_position.run_id, p_position.event_no)
$$;
comment on function pgflow._position is 'A position as the text in which it is given out.';

create or replace function pgflow._read_position(p_field text, p_position text)
returns pgflow.outbox_position
language plpgsql
as $$
begin
    if p_position is null then
        return null;
    elsif p_position !~ '^-?\d{1,18}/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/\d{1,9}$' then
        perform pgflow._refuse_value(p_field, 'a position of an event', p_position);
    end if;
    return (split_part(p_position, '/', 1), split_part(p_position, '/', 2),
        split_part(p_position, '/', 3))::pgflow.outbox_position;
end
$$;
comment on function pgflow._read_position is 'A position that was given out. Raises PF101.';

create or replace function pgflow._is_restored(p_project text)
returns boolean
language sql
stable
as $$
    select greatest((
            select o.place from pgflow.outbox o
            where o.project_id = p_project
            order by o.place desc
            limit 1),
            max((s.read_to).place))
        > greatest(pg_current_xact_id_if_assigned()::text::bigint,
            pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
    from pgflow.subscription s
    where s.project_id = p_project
$$;
comment on function pgflow._is_restored is
    'Whether there are places that no transaction of this server can have given.';

-- Transaction ids begin anew where a dump is restored. What was written before has higher places
-- than any transaction then. They are moved below all new ones, in their order.
create or replace function pgflow._begin_anew(p_project text)
returns void
language plpgsql
as $$
declare
    v_own bigint := pg_current_xact_id()::text::bigint;
    v_down bigint := 100000000000000000;
begin
    perform from pgflow.subscription s
    where s.project_id = p_project
    order by s.subscription
    for update;
    -- The highest id is that of each statement's own snapshot: it sees no higher place of its time.
    update pgflow.outbox o set place = o.place - v_down
    where o.project_id = p_project and o.place
        > greatest(v_own, pg_snapshot_xmax(pg_current_snapshot())::text::bigint);
    update pgflow.subscription s
    set read_to = ((s.read_to).place - v_down, (s.read_to).run_id,
            (s.read_to).event_no)::pgflow.outbox_position,
        batch_to = null, reader = null, held_until = null, hold = null
    where s.project_id = p_project and (s.read_to).place
        > greatest(v_own, pg_snapshot_xmax(pg_current_snapshot())::text::bigint);
end
$$;
comment on function pgflow._begin_anew is
    'Moves the places of a database that was restored below those that it gives now.';

-- The subquery for each run can't be pulled up, so its lines are found by the run's id; and by
-- index, whatever size the planner thinks that the tables have.
create or replace function pgflow._deliveries(
    p_subscription pgflow.subscription, p_lines pgflow.outbox_position[], p_limit integer
)
returns setof pgflow.delivery_v1
language plpgsql
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
begin
    return query
    with wanted as (
        select t.*, g.places[array_position(g.event_nos, t.event_no)] as place
        from (
            select l.run_id, array_agg(l.event_no) as event_nos, array_agg(l.place) as places
            from unnest(p_lines) as l
            group by l.run_id
        ) g
        cross join lateral (
            select e.run_id, e.event_no, e.type, e.at, e.by, e.worker_id, e.lease_no, e.attempt,
                e.step, e.payload, e.key, e.correlation_id, e.handler, e.queue
            from pgflow.timeline e
            where e.project_id = p_subscription.project_id and e.run_id = g.run_id
              and e.event_no = any (g.event_nos)
            offset 0
        ) t
        where (p_subscription.types is null or t.type = any (p_subscription.types))
          and (p_subscription.queue is null or t.queue = p_subscription.queue)
          and (p_subscription.correlation_id is null
               or t.correlation_id = p_subscription.correlation_id)
    )
    select p_subscription.batch_no,
        pgflow._position((w.place, w.run_id, w.event_no)::pgflow.outbox_position), w.run_id,
        w.event_no, w.type, w.at, w.by, w.worker_id, w.lease_no, w.attempt, w.step, w.payload,
        w.key, w.correlation_id, w.handler, w.queue
    from wanted w
    order by w.place, w.run_id, w.event_no
    limit p_limit;
end
$$;
comment on function pgflow._deliveries is
    'Those of some events that a subscription wants, in order.';
