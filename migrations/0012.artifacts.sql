-- What executions leave behind as documents, and the schemas that these are held to. A document is
-- a fact of its run, so it goes with the run's history.
set local role pgflow_owner;

create table pgflow.artifact_schema (
    project_id text collate "C" not null,
    schema text collate "C" not null,
    version integer not null,
    constraint artifact_schema_pkey primary key (project_id, schema),
    constraint artifact_schema_project_fkey foreign key (project_id)
        references pgflow.project (project_id),
    constraint schema_is_a_plain_name check (schema ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$')
);
comment on table pgflow.artifact_schema is
    'Each schema with the version that was defined last.';

create table pgflow.schema_version (
    project_id text collate "C" not null,
    schema text collate "C" not null,
    version integer not null,
    sha256 bytea not null,
    created_at timestamptz not null,
    created_by text not null,
    definition jsonb not null,
    constraint schema_version_pkey primary key (project_id, schema, version),
    constraint the_same_schema_is_the_same_version unique (project_id, schema, sha256)
);
comment on table pgflow.schema_version is
    'The schemas of artifacts, all versions. Rows never change.';

-- Bytes are most often compressed already, so the server needs not try.
create table pgflow.artifact (
    project_id text collate "C" not null,
    run_id uuid not null,
    artifact_no integer not null,
    flow_run_id uuid,
    step text collate "C",
    version integer not null,
    attempt integer not null,
    lease_no integer,
    at timestamptz not null,
    kind text collate "C" not null,
    name text collate "C" not null,
    schema text collate "C",
    schema_version integer,
    media_type text collate "C" not null,
    size bigint not null,
    sha256 bytea not null,
    valid boolean not null,
    validation_errors jsonb,
    content_json jsonb,
    content_text text,
    content_bytes bytea,
    constraint artifact_pkey primary key (project_id, run_id, artifact_no),
    constraint kind_is_known check (kind in ('document', 'report')),
    constraint name_is_1_to_200_characters check (char_length(name) between 1 and 200),
    constraint size_is_at_most_64_mb check (size between 0 and 67108864),
    constraint content_has_one_form check (
        num_nonnulls(content_json, content_text, content_bytes) = 1),
    constraint invalid_has_errors check (valid = (validation_errors is null)),
    constraint a_schema_has_a_version check ((schema is null) = (schema_version is null))
) partition by range (run_id);
alter table pgflow.artifact alter column content_bytes set storage external;
comment on table pgflow.artifact is
    'Documents that executions left behind. View artifacts has the inputs and outputs too, which '
    'are where they were.';
comment on column pgflow.artifact.artifact_no is
    'The number of the event that it came with: artifact.validated or artifact.invalid.';
comment on column pgflow.artifact.version is
    'The round of its run, and of the flow if it is a step of one, in which it was written.';
comment on column pgflow.artifact.lease_no is
    'The lease under which it was written last: it counts for that execution alone.';
comment on column pgflow.artifact.attempt is 'Failed executions before that one.';
comment on column pgflow.artifact.sha256 is
    'Of the whole content: the bytes, the text in UTF-8, or the database''s text of the JSON.';

alter table pgflow.step_definition add column artifact jsonb;
comment on column pgflow.step_definition.artifact is
    'What it has to leave behind: name, and if there are such schema, schema_version, repairs.';

insert into pgflow.error_code (error_code, class, description) values
    ('E-RUN-008', 'fatal', 'The artifact that the step expects is invalid, after its repairs.'),
    ('E-RUN-014', 'fatal',
        'The artifact that the step expects was not produced, after its repairs.');

insert into pgflow.refusal (sqlstate, name, description) values
    ('PF110', 'UnknownSchema', 'There is no schema of that name, or no such version of it.'),
    ('PF111', 'UnknownArtifact', 'There is no such artifact.');

insert into pgflow.event_type (type, description) values
    ('artifact.expected', 'The run has to leave an artifact behind; the payload names it.'),
    ('artifact.validated', 'An artifact was written, and is valid.'),
    ('artifact.invalid',
        'An artifact was written, and is invalid; the payload has the first five errors.'),
    ('artifact.timeout', 'The time was up before the expected artifact was there and valid.'),
    ('prompt.repaired',
        'The expected artifact is missing or invalid; the handler is executed again and told why.');

-- There is nothing to analyze in a new installation.
insert into pgflow.upkeep (duty, next_at)
values ('analyze artifact', clock_timestamp() + interval '1 hour');

create type pgflow.artifact_outcome_v1 as (
    run_id uuid, outcome text, artifact_no integer, name text, size bigint, sha256 text,
    valid boolean, errors jsonb
);
comment on type pgflow.artifact_outcome_v1 is
    'outcome: done, already (this execution has written it, or an earlier one did), lost (the '
    'lease is gone). errors: what is wrong with it, each with path and message; null if it is '
    'valid.';

create type pgflow.artifact_content_v1 as (
    run_id uuid, artifact_no integer, step text, version integer, kind text, name text,
    media_type text, size bigint, sha256 text, valid boolean, errors jsonb, content_json jsonb,
    content_text text, content_bytes bytea
);
comment on type pgflow.artifact_content_v1 is
    'An artifact with its content: JSON, a text, or bytes; the other two are null.';
