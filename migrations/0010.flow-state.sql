-- The state of flows: values in channels, written by steps and reduced when their flow takes note
-- of their end. What was written is kept, and a line per super-step from which the values of any
-- moment follow: so nothing that a step does grows with the number of steps.
set local role pgflow_owner;

create table pgflow.reducer (
    reducer text collate "C" not null,
    function text collate "C" not null,
    defined_at timestamptz not null,
    defined_by text not null,
    constraint reducer_pkey primary key (reducer)
);
comment on table pgflow.reducer is
    'Functions that administrators registered for channels, beside the built-in reducers.';
comment on column pgflow.reducer.function is
    'With its schema and its arguments: of (old jsonb, new jsonb), immutable, returns jsonb.';

create table pgflow.channel_definition (
    project_id text collate "C" not null,
    flow text collate "C" not null,
    version integer not null,
    channel text collate "C" not null,
    reducer text collate "C" not null,
    default_value jsonb,
    constraint channel_definition_pkey primary key (project_id, flow, version, channel),
    constraint channel_definition_version_fkey foreign key (project_id, flow, version)
        references pgflow.flow_version (project_id, flow, version)
);
comment on table pgflow.channel_definition is
    'The channels of each version of a flow. Rows never change.';
comment on column pgflow.channel_definition.reducer is
    'How what is written changes the value: last, append, merge, add, min, max, union, or one of '
    'table reducer.';
comment on column pgflow.channel_definition.default_value is
    'Its value before anything is written; null: none.';

alter table pgflow.step_definition
    add column condition jsonpath,
    add column layered boolean not null default false;
comment on column pgflow.step_definition.condition is
    'What the state values must be for it to run; else it is skipped.';
comment on column pgflow.step_definition.layered is
    'Steps that end count once all that began with them have ended. The same for all of a flow.';

alter table pgflow.flow_step add column voided_super_step integer;
comment on column pgflow.flow_step.voided_super_step is
    'How far the flow had come when it went back behind this step.';

alter table pgflow.run add column checkpoint_no integer;
comment on column pgflow.run.checkpoint_no is
    'Of a flow that has channels: its last checkpoint. Of a step of one: the checkpoint whose '
    'values it sees.';

create table pgflow.channel_write (
    project_id text collate "C" not null,
    run_id uuid not null,
    step text collate "C" not null,
    element integer not null,
    version integer not null,
    nth integer not null,
    channel text collate "C" not null,
    value jsonb not null,
    constraint channel_write_pkey primary key (project_id, run_id, step, element, version, nth),
    constraint value_is_at_most_1_mb check (pg_column_size(value) <= 1048576)
) partition by range (run_id);
comment on table pgflow.channel_write is
    'What completed steps of flows wrote to channels. A write counts as long as its step does, '
    'since the super-step of that.';
comment on column pgflow.channel_write.nth is 'Its place among the writes of the step.';

create table pgflow.checkpoint (
    project_id text collate "C" not null,
    run_id uuid not null,
    number integer not null,
    super_step integer not null,
    event_no integer,
    label text collate "C" not null,
    at timestamptz not null,
    changed jsonb not null,
    snapshot jsonb,
    payload jsonb,
    constraint checkpoint_pkey primary key (project_id, run_id, number)
) partition by range (run_id);
comment on table pgflow.checkpoint is
    'The state values of flows, a line per super-step and per pause: what it changed, and all '
    'values in each fiftieth. Function history has the values of each.';
comment on column pgflow.checkpoint.label is
    'What made it: steps, layer:N, update, rollback:STEP, goto:STEP, retry, fork; or where the '
    'flow was paused, without a change: interrupt:STEP, before:STEP, after:STEP.';
comment on column pgflow.checkpoint.event_no is
    'The number of its line checkpoint.saved, which view timeline derives; null: it has an event.';
comment on column pgflow.checkpoint.payload is 'Of a pause: what the person is shown.';
comment on column pgflow.checkpoint.changed is
    'By channel, what was written, reduced among itself; for a registered reducer the new value.';
comment on column pgflow.checkpoint.snapshot is
    'All values; null: those of the line before with what was changed.';

insert into pgflow.upkeep (duty, next_at)
values ('analyze channel_write', clock_timestamp() + interval '1 hour'),
    ('analyze checkpoint', clock_timestamp() + interval '1 hour');

create type pgflow.checkpoint_v1 as (
    number integer, super_step integer, label text, steps text[], changed text[], "values" jsonb,
    payload jsonb, at timestamptz
);
comment on type pgflow.checkpoint_v1 is
    'A moment of a flow: its number, which only grows, the super-step, what made it, the steps '
    'that ended in it, the channels that changed, and the values of all; null: the flow has none. '
    'payload: of a pause, what the person is shown.';

insert into pgflow.error_code (error_code, class, description) values
    ('E-RUN-018', 'fatal',
        'What a step wrote does not fit a channel of its flow, or there is none of that name.');

insert into pgflow.event_type (type, description) values
    ('checkpoint.saved', 'A checkpoint of a flow; the payload has its number and label.');
