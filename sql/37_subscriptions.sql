-- Subscriptions: who follows the events of a project, and how far. 38_batches has how they read.

create or replace function pgflow._known_subscription(p_project text, p_subscription text)
returns pgflow.subscription
language plpgsql
as $$
declare
    v_subscription pgflow.subscription;
begin
    select s.* into v_subscription from pgflow.subscription s
    where s.project_id = p_project and s.subscription = p_subscription;
    if not found then
        perform pgflow._refuse('PF107',
            format('unknown subscription: %s', left(p_subscription, 100)),
            'There is no subscription of that name in this project.',
            'Call subscribe first; view pgflow.subscriptions lists them.', 'subscription');
    end if;
    return v_subscription;
end
$$;
comment on function pgflow._known_subscription is 'A subscription, not locked. Raises PF107.';

create or replace function pgflow.subscribe(
    subscription text, types text[] default null, queue text default null,
    correlation_id text default null, from_position text default null, project text default null
)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(subscribe.project);
    v_from pgflow.outbox_position :=
        pgflow._read_position('from_position', subscribe.from_position);
    v_least pgflow.outbox_position;
    v_subscription pgflow.subscription;
begin
    if coalesce(char_length(subscribe.subscription), 0) not between 1 and 100 then
        perform pgflow._refuse_value('subscription', '1 to 100 characters', subscribe.subscription);
    elsif array_ndims(subscribe.types) > 1 or cardinality(subscribe.types) not between 1 and 100
       or array_position(subscribe.types, null) is not null
       or exists (select from unnest(subscribe.types) as t (type)
                  where char_length(t.type) not between 1 and 100) then
        perform pgflow._refuse_value('types', '1 to 100 texts of 1 to 100 characters, or null',
            subscribe.types::text);
    elsif char_length(subscribe.queue) not between 1 and 100 then
        perform pgflow._refuse_value('queue', '1 to 100 characters', subscribe.queue);
    elsif char_length(subscribe.correlation_id) not between 1 and 200 then
        perform pgflow._refuse_value('correlation_id', '1 to 200 characters',
            subscribe.correlation_id);
    end if;
    if v_from.place is not null and not exists (
        select from pgflow.subscription s
        where s.project_id = v_project and s.subscription = subscribe.subscription)
    then
        -- Locked, so that nobody trims what is to be read.
        select (s.read_to).* into v_least from pgflow.subscription s
        where s.project_id = v_project
        order by s.read_to
        limit 1
        for share;
        if v_from < v_least or v_least is null
           or v_from.place > pg_current_xact_id()::text::bigint then
            perform pgflow._refuse_value('from_position', 'a position that another subscription '
                'of the project has not passed: older events are not kept',
                subscribe.from_position);
        end if;
    end if;
    -- Behind what is complete: a transaction that runs now may do something later.
    insert into pgflow.subscription as s (project_id, subscription, types, queue, correlation_id,
        created_at, created_by, read_to)
    values (v_project, subscribe.subscription, subscribe.types, subscribe.queue,
        subscribe.correlation_id, pgflow.now(), pgflow._actor(),
        case when v_from.place is not null then v_from
             else (pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
                 '00000000-0000-0000-0000-000000000000', 0)::pgflow.outbox_position end)
    on conflict on constraint subscription_pkey do update
    set types = excluded.types, queue = excluded.queue, correlation_id = excluded.correlation_id
    returning s.* into v_subscription;
    return pgflow._position(v_subscription.read_to);
end
$$;
comment on function pgflow.subscribe is
    'Makes a subscription to the events of all runs of a project, or only to some types, to those '
    'of a queue, of a correlation id. It begins with what is written once this is committed, or '
    'behind a position that another subscription has been given and not yet acknowledged. Again it '
    'only sets the filters: where it stands, it stands. Returns the position. Example: select '
    'pgflow.subscribe(''billing'', ''{run.completed,run.failed}''). Raises PF101, PF502.';

create or replace function pgflow.unsubscribe(subscription text, project text default null)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_project text := pgflow._enter_project(unsubscribe.project);
begin
    delete from pgflow.subscription s
    where s.project_id = v_project and s.subscription = unsubscribe.subscription;
    return found;
end
$$;
comment on function pgflow.unsubscribe is
    'Ends a subscription; false if there was none. Do it: events are kept until all subscriptions '
    'have acknowledged them. Raises PF502.';

create or replace view pgflow.subscriptions with (security_barrier) as
select s.project_id, s.subscription, s.types, s.queue, s.correlation_id,
    pgflow._position(s.read_to) as "position",
    (select count(*) from pgflow.outbox o
     where o.project_id = s.project_id and (o.place, o.run_id, o.event_no)
           > ((s.read_to).place, (s.read_to).run_id, (s.read_to).event_no)) as behind,
    s.batch_no, s.reader, s.held_until, s.acknowledged_at, s.created_at, s.created_by
from pgflow.subscription s
where s.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.subscriptions is
    'Who follows the events of a project, and how far. End with pgflow.unsubscribe what nobody '
    'reads.';
comment on column pgflow.subscriptions.types is 'Only these; null: all.';
comment on column pgflow.subscriptions.queue is 'Only events of its runs; null: of all.';
comment on column pgflow.subscriptions.position is 'Behind the last event that was acknowledged.';
comment on column pgflow.subscriptions.behind is
    'Events of the project that it has not acknowledged, whether it wants them or not.';
comment on column pgflow.subscriptions.batch_no is 'The last batch that was given out.';
comment on column pgflow.subscriptions.reader is 'Who holds it; null: nobody, or it is done.';
comment on column pgflow.subscriptions.held_until is
    'When it is given to the next who asks, if its reader isn''t heard of before.';
