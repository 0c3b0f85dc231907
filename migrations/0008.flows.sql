-- Flows: definitions, which never change, and what became of each step of a flow's run. A step is
-- executed as a run of its own, so all that a flow adds to its row is here.
set local role pgflow_owner;

create table pgflow.flow (
    project_id text collate "C" not null,
    flow text collate "C" not null,
    version integer not null,
    constraint flow_pkey primary key (project_id, flow),
    constraint flow_project_fkey foreign key (project_id) references pgflow.project (project_id),
    constraint flow_is_a_plain_name check (flow ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$')
);
comment on table pgflow.flow is
    'Each flow with the version that new runs of it get: the one that was defined last.';

create table pgflow.flow_version (
    project_id text collate "C" not null,
    flow text collate "C" not null,
    version integer not null,
    sha256 bytea not null,
    created_at timestamptz not null,
    created_by text not null,
    definition jsonb not null,
    constraint flow_version_pkey primary key (project_id, flow, version),
    constraint the_same_content_is_the_same_version unique (project_id, flow, sha256)
);
comment on table pgflow.flow_version is
    'The definitions of flows, all versions. Rows never change.';
comment on column pgflow.flow_version.sha256 is
    'SHA-256 of the definition without what is said by default.';

create table pgflow.step_definition (
    project_id text collate "C" not null,
    flow text collate "C" not null,
    version integer not null,
    step text collate "C" not null,
    place integer not null,
    layer integer not null,
    type text collate "C" not null,
    handler text collate "C" not null,
    queue text collate "C",
    join_rule text collate "C" not null,
    on_failure text collate "C" not null,
    max_attempts integer,
    timeout interval,
    retry_base interval,
    retry_factor double precision,
    retry_max interval,
    needs text[] collate "C" not null,
    dependants text[] collate "C" not null,
    config jsonb not null,
    constraint step_definition_pkey primary key (project_id, flow, version, step),
    constraint step_definition_version_fkey foreign key (project_id, flow, version)
        references pgflow.flow_version (project_id, flow, version),
    constraint type_is_known check (type in ('handler', 'approval_gate', 'human_task', 'wait_event',
        'timer')),
    constraint join_rule_is_known check (join_rule in ('all', 'any', 'none_failed', 'one_failed')),
    constraint on_failure_is_known check (on_failure in ('fail', 'continue'))
);
comment on table pgflow.step_definition is
    'The steps of each version of a flow, as its runs need them. Rows never change.';
comment on column pgflow.step_definition.place is 'Its place in the definition, from 1.';
comment on column pgflow.step_definition.layer is
    'The steps of the longest way to it, itself included.';
comment on column pgflow.step_definition.type is
    'handler: a worker executes it; else what it waits for, of which config has the particulars.';
comment on column pgflow.step_definition.handler is 'Of what no worker executes: its type.';
comment on column pgflow.step_definition.dependants is 'The steps that need it.';

create table pgflow.flow_step (
    project_id text collate "C" not null,
    run_id uuid not null,
    step text collate "C" not null,
    element integer not null default 0,
    version integer not null default 0,
    state text collate "C" not null,
    needs_settled integer not null default 0,
    needs_completed integer not null default 0,
    needs_failed integer not null default 0,
    super_step integer,
    started_event_no integer,
    ended_event_no integer,
    voided_event_no integer,
    attempts integer not null default 0,
    child_run_id uuid,
    ready_at timestamptz,
    ended_at timestamptz,
    voided_at timestamptz,
    error_code text collate "C",
    error_detail text,
    output jsonb,
    constraint flow_step_pkey primary key (project_id, run_id, step, element, version),
    constraint state_is_known check (state in ('pending', 'running', 'completed', 'failed',
        'skipped', 'rejected', 'expired', 'cancelled')),
    constraint running_has_a_run check (state <> 'running' or child_run_id is not null),
    constraint output_iff_completed check ((state = 'completed') = (output is not null))
) partition by range (run_id);
comment on table pgflow.flow_step is
    'What became of each step of a flow''s run, once the first of those that it needs has ended. '
    'View flow_steps has the others too.';
comment on column pgflow.flow_step.version is 'run.round of the flow when it was made ready.';
comment on column pgflow.flow_step.needs_settled is
    'How many of the steps that it needs have ended, completed and failed ones among them.';
comment on column pgflow.flow_step.super_step is
    'The super-step that took note of its end; null: none has, because the flow was paused.';
comment on column pgflow.flow_step.ready_at is 'When that run was made.';
comment on column pgflow.flow_step.child_run_id is 'The run that executes it.';

create unique index a_step_counts_once on pgflow.flow_step (project_id, run_id, step, element)
    where voided_at is null;
create index step_is_unsettled on pgflow.flow_step (project_id, run_id)
    where state in ('pending', 'running') and voided_at is null;
-- The lines of all runs since a time.
create index flow_step_by_time on pgflow.flow_step
    using brin (project_id, ready_at, ended_at) with (autosummarize);

-- There is nothing to analyze in a new installation.
insert into pgflow.upkeep (duty, next_at)
values ('analyze flow_step', clock_timestamp() + interval '1 hour');

create table pgflow.left_behind (
    project_id text collate "C" not null,
    run_id uuid not null,
    due_at timestamptz not null,
    constraint left_behind_pkey primary key (project_id, run_id)
);
comment on table pgflow.left_behind is
    'Runs that ended while others held some of their children. The tick ends those.';
