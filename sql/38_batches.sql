-- Batches: what a subscription reads next, who holds it, and what is dealt with. The position moves
-- in the transaction that acknowledges: where that is the reader's own, each event counts once.

-- The caller holds the subscription. Looks at no more than 20000 events, so that a filter that
-- nothing passes holds nobody up for long; what was looked at is not looked at again.
create or replace function pgflow._open_batch(
    p_subscription pgflow.subscription, p_now timestamptz, p_reader text, p_hold interval,
    p_limit integer, p_horizon bigint
)
returns setof pgflow.delivery_v1
language plpgsql
as $$
declare
    v_subscription pgflow.subscription := p_subscription;
    v_lines pgflow.outbox_position[];
    v_batch pgflow.delivery_v1[];
begin
    v_subscription.batch_no := v_subscription.batch_no + 1;
    for v_look in 1..20 loop
        v_lines := array(
            select (o.place, o.run_id, o.event_no)::pgflow.outbox_position from pgflow.outbox o
            where o.project_id = v_subscription.project_id and o.place < p_horizon
              and (o.place, o.run_id, o.event_no) > ((v_subscription.read_to).place,
                  (v_subscription.read_to).run_id, (v_subscription.read_to).event_no)
            order by o.place, o.run_id, o.event_no
            limit 1000);
        v_batch := array(select d from pgflow._deliveries(v_subscription, v_lines, p_limit) as d);
        exit when cardinality(v_lines) = 0 or cardinality(v_batch) > 0;
        v_subscription.read_to := v_lines[cardinality(v_lines)];
    end loop;
    if cardinality(v_batch) > 0 then
        v_subscription.batch_to := case when cardinality(v_batch) < p_limit
            then v_lines[cardinality(v_lines)]
            else pgflow._read_position('position',
                (v_batch[cardinality(v_batch)])."position") end;
    end if;
    if v_subscription.batch_to is not null or p_subscription.batch_to is not null
       or v_subscription.read_to <> p_subscription.read_to then
        update pgflow.subscription s
        set read_to = v_subscription.read_to, batch_to = v_subscription.batch_to,
            batch_no = case when v_subscription.batch_to is null then s.batch_no
                else v_subscription.batch_no end,
            reader = case when v_subscription.batch_to is not null then p_reader end,
            hold = case when v_subscription.batch_to is not null then p_hold end,
            held_until = case when v_subscription.batch_to is not null then p_now + p_hold end
        where s.project_id = v_subscription.project_id
          and s.subscription = v_subscription.subscription;
    end if;
    return query select d.* from unnest(v_batch) as d;
end
$$;
comment on function pgflow._open_batch is
    'Gives the next events of a subscription to a reader, and holds them for it.';

create or replace function pgflow._same_batch(
    p_subscription pgflow.subscription, p_now timestamptz
)
returns setof pgflow.delivery_v1
language plpgsql
as $$
begin
    update pgflow.subscription s set held_until = p_now + s.hold
    where s.project_id = p_subscription.project_id
      and s.subscription = p_subscription.subscription;
    return query
    select d.* from pgflow._deliveries(p_subscription, array(
        select (o.place, o.run_id, o.event_no)::pgflow.outbox_position from pgflow.outbox o
        where o.project_id = p_subscription.project_id
          and (o.place, o.run_id, o.event_no) > ((p_subscription.read_to).place,
              (p_subscription.read_to).run_id, (p_subscription.read_to).event_no)
          and (o.place, o.run_id, o.event_no) <= ((p_subscription.batch_to).place,
              (p_subscription.batch_to).run_id, (p_subscription.batch_to).event_no)
        order by o.place, o.run_id, o.event_no), 1000) as d;
end
$$;
comment on function pgflow._same_batch is
    'What is left of the open batch of a subscription, held on. The caller holds the subscription.';

create or replace function pgflow.next_events(
    subscription text, reader text default null, max_events integer default 100,
    hold interval default '60 seconds', project text default null
)
returns setof pgflow.delivery_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(next_events.project);
    v_now timestamptz := pgflow.now();
    v_reader text := coalesce(next_events.reader, 'backend ' || pg_backend_pid());
    -- Before the look: all of what is below has been committed, or never will be.
    v_horizon bigint := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    v_subscription pgflow.subscription;
begin
    if char_length(next_events.reader) not between 1 and 200 then
        perform pgflow._refuse_value('reader', '1 to 200 characters', next_events.reader);
    elsif coalesce(next_events.max_events not between 1 and 1000, true) then
        perform pgflow._refuse_value('max_events', '1 to 1000', next_events.max_events::text);
    elsif coalesce(next_events.hold not between '1 second' and '1 day', true) then
        perform pgflow._refuse_value('hold', '1 second to 1 day', next_events.hold::text);
    end if;
    perform pgflow._known_subscription(v_project, next_events.subscription);
    if pgflow._is_restored(v_project) then
        perform pgflow._begin_anew(v_project);
    end if;
    -- Nothing for a second reader, also while the first is at work in a transaction of its own.
    select s.* into v_subscription from pgflow.subscription s
    where s.project_id = v_project and s.subscription = next_events.subscription
      and (s.batch_to is null or s.reader = v_reader or s.held_until <= v_now)
    for update skip locked;
    if not found then
        return;
    elsif v_subscription.batch_to is not null and v_subscription.reader = v_reader then
        return query select b.* from pgflow._same_batch(v_subscription, v_now) as b;
        if found then
            return;
        end if;
    end if;
    return query select b.* from pgflow._open_batch(v_subscription, v_now, v_reader,
        next_events.hold, next_events.max_events, v_horizon) as b;
end
$$;
comment on function pgflow.next_events is
    'The next events of a subscription, of transactions that ended before all that still run. '
    'They are held for the reader (default: this backend) that asked, which gets the same ones '
    'again until it acknowledges them, and nobody else gets any; when it has not been heard of for '
    'so long as hold says, the next who asks gets them. Acknowledged in the transaction in which '
    'they were read, they are read exactly once. Example: select batch_no, type, payload from '
    'pgflow.next_events(''billing''). Raises PF101, PF107, PF502.';

-- Locks the subscription; who comes too late for the batch is told.
create or replace function pgflow._held_batch(
    p_project text, p_subscription text, p_batch_no integer
)
returns pgflow.subscription
language plpgsql
as $$
declare
    v_subscription pgflow.subscription;
begin
    perform pgflow._known_subscription(p_project, p_subscription);
    select s.* into v_subscription from pgflow.subscription s
    where s.project_id = p_project and s.subscription = p_subscription
    for update;
    if p_batch_no > 0 and v_subscription.acknowledged_no = p_batch_no then
        return null;
    elsif v_subscription.batch_to is null or v_subscription.batch_no is distinct from p_batch_no
    then
        perform pgflow._refuse('PF303',
            format('batch %s of subscription %s is not held', p_batch_no, p_subscription),
            format('batch %s is held by %s', v_subscription.batch_no,
                coalesce(v_subscription.reader, 'nobody')),
            'Its events were, or will be, given to somebody else; ask for the next ones.',
            'batch_no');
    end if;
    return v_subscription;
end
$$;
comment on function pgflow._held_batch is
    'A subscription whose batch of that number is open; nulls if it was acknowledged. Raises '
    'PF107, PF303.';

create or replace function pgflow.acknowledge(
    subscription text, batch_no integer, up_to text default null, project text default null
)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(acknowledge.project);
    v_now timestamptz := pgflow.now();
    v_to pgflow.outbox_position := pgflow._read_position('up_to', acknowledge.up_to);
    v_subscription pgflow.subscription :=
        pgflow._held_batch(v_project, acknowledge.subscription, acknowledge.batch_no);
begin
    if v_subscription.subscription is null then
        return false;
    elsif v_to > v_subscription.batch_to then
        perform pgflow._refuse_value('up_to', 'a position within the batch', acknowledge.up_to);
    elsif v_to < v_subscription.batch_to then
        if v_to <= v_subscription.read_to then
            return false;
        end if;
        update pgflow.subscription s
        set read_to = v_to, held_until = v_now + s.hold, acknowledged_at = v_now
        where s.project_id = v_project and s.subscription = v_subscription.subscription;
    else
        update pgflow.subscription s
        set read_to = s.batch_to, acknowledged_no = s.batch_no, acknowledged_at = v_now,
            batch_to = null, reader = null, held_until = null, hold = null
        where s.project_id = v_project and s.subscription = v_subscription.subscription;
    end if;
    perform pgflow._trim_outbox(v_project);
    return true;
end
$$;
comment on function pgflow.acknowledge is
    'Says that the events of a batch are dealt with, or only those up to a position within it, '
    'while the rest is held on. Again is a no-op, and false. A batch that was held for too long '
    'and given to somebody else is refused. Example: select pgflow.acknowledge(''billing'', 7). '
    'Raises PF101, PF107, PF303, PF502.';

create or replace function pgflow.release_events(
    subscription text, batch_no integer, project text default null
)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(release_events.project);
    v_subscription pgflow.subscription :=
        pgflow._held_batch(v_project, release_events.subscription, release_events.batch_no);
begin
    update pgflow.subscription s
    set batch_to = null, reader = null, held_until = null, hold = null
    where s.project_id = v_project and s.subscription = v_subscription.subscription;
    return found;
end
$$;
comment on function pgflow.release_events is
    'Gives back what is not acknowledged of a batch, for whoever asks next; false if all is. '
    'Raises PF107, PF303, PF502.';
