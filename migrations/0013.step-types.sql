-- Step types: what steps of a kind have in common is said once, and each version of a flow keeps
-- what it was when that version was defined. And the words for runs that a person aborts.
set local role pgflow_owner;

create table pgflow.step_type (
    project_id text collate "C" not null,
    name text collate "C" not null,
    interactive boolean not null,
    kind text collate "C",
    handler text collate "C",
    form_schema jsonb,
    default_due interval,
    default_policy text collate "C",
    default_config jsonb not null,
    description text,
    registered_at timestamptz not null,
    registered_by text not null,
    constraint step_type_pkey primary key (project_id, name),
    constraint step_type_project_fkey foreign key (project_id)
        references pgflow.project (project_id),
    constraint default_policy_fkey foreign key (default_policy)
        references pgflow.task_policy (policy),
    constraint name_is_a_plain_name check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'),
    constraint kind_is_known check (kind in ('approval_gate', 'human_task')),
    constraint either_a_person_or_a_handler check (
        interactive = (kind is not null) and interactive = (handler is null)),
    constraint only_a_person_is_asked check (
        interactive or num_nonnulls(form_schema, default_due, default_policy) = 0)
);
comment on table pgflow.step_type is
    'Step types that somebody registered. View step_types has the engine''s own as well.';
comment on column pgflow.step_type.kind is 'Which of the engine''s own types it is made of.';
comment on column pgflow.step_type.handler is 'Of a type that is not interactive: who executes it.';
comment on column pgflow.step_type.default_config is
    'The config of its steps, where they say nothing else.';

alter table pgflow.flow_version add column step_types jsonb;
comment on column pgflow.flow_version.step_types is
    'What the step types that it names said when it was defined, by name; null: it names none that '
    'was registered. sha256 covers it.';

alter table pgflow.step_definition add column step_type text collate "C";
comment on column pgflow.step_definition.step_type is
    'The type that its definition names; type is what that comes down to.';

insert into pgflow.refusal (sqlstate, name, description) values
    ('PF403', 'StillInUse',
        'The current version of a flow, or one of which a run is live, needs it.');

insert into pgflow.error_code (error_code, class, description) values
    ('E-RUN-013', 'human_required', 'Aborted by a person.');

insert into pgflow.event_type (type, description) values
    ('run.aborted', 'A person aborted the run, at one of its tasks.'),
    ('step.goto', 'Somebody had the flow go on with a step.');
