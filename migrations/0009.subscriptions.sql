-- Who follows the events of all runs of a project. A timeline is numbered per run, and most of its
-- lines are columns of other rows; what is missing for one order over all runs is written here, and
-- only while somebody wants it.
set local role pgflow_owner;

create type pgflow.outbox_position as (place bigint, run_id uuid, event_no integer);
comment on type pgflow.outbox_position is 'A place in the order of all events of a project.';

create table pgflow.outbox (
    project_id text collate "C" not null,
    place bigint not null,
    run_id uuid not null,
    event_no integer not null,
    constraint outbox_pkey primary key (project_id, run_id, event_no)
);
comment on table pgflow.outbox is
    'The events that subscriptions have still to read, in their order. What they say is in view '
    'timeline. Empty in projects without a subscription.';
comment on column pgflow.outbox.place is
    'The id of the transaction that wrote the event, or the place of the event before it in the '
    'same run, if that is higher: an order in which nothing appears below a place once all '
    'transactions with lower ids have ended.';
create index outbox_in_order on pgflow.outbox (project_id, place, run_id, event_no);

create table pgflow.subscription (
    project_id text collate "C" not null,
    subscription text collate "C" not null,
    types text[] collate "C",
    queue text collate "C",
    correlation_id text collate "C",
    created_at timestamptz not null,
    created_by text not null,
    read_to pgflow.outbox_position not null,
    batch_no integer not null default 0,
    batch_to pgflow.outbox_position,
    reader text,
    held_until timestamptz,
    hold interval,
    acknowledged_no integer not null default 0,
    acknowledged_at timestamptz,
    constraint subscription_pkey primary key (project_id, subscription),
    constraint subscription_project_fkey foreign key (project_id)
        references pgflow.project (project_id),
    constraint subscription_is_at_most_100_characters check (
        char_length(subscription) between 1 and 100),
    constraint an_open_batch_is_whole check (
        (batch_to is null) = (reader is null)
        and (batch_to is null) = (held_until is null)
        and (batch_to is null) = (hold is null))
) with (fillfactor = 50);
comment on table pgflow.subscription is
    'Who follows the events of a project, and how far. While there is one, outbox is written.';
comment on column pgflow.subscription.types is 'Event types; null: all.';
comment on column pgflow.subscription.read_to is 'Up to here all events are acknowledged.';
comment on column pgflow.subscription.batch_no is
    'Grows with every batch that is given out: whoever acknowledges one names it.';
comment on column pgflow.subscription.batch_to is
    'The end of the batch that is being worked on; null: none is.';
comment on column pgflow.subscription.reader is 'Who has it.';
comment on column pgflow.subscription.held_until is 'Then it is given to whoever asks.';
comment on column pgflow.subscription.hold is
    'For so long it is held after each sign of its reader.';
comment on column pgflow.subscription.acknowledged_no is 'The last batch that was acknowledged.';

create type pgflow.delivery_v1 as (
    batch_no integer, "position" text, run_id uuid, event_no integer, type text, at timestamptz,
    by text, worker_id text, lease_no integer, attempt integer, step text, payload jsonb, key text,
    correlation_id text, handler text, queue text
);
comment on type pgflow.delivery_v1 is
    'An event that a subscription reads: a line of view timeline, the batch that it came in, and '
    'its position in the order of all events.';
