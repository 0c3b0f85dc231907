-- Gates of a step: each is a row of step_definition behind that of its step, and a run of its own.
-- A step that does nothing but pass on its input. And roles of steps, which are bound to agents. No
-- installation has rows yet that would be read under a lock.
-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid
set local role pgflow_owner;

alter table pgflow.step_definition
    add column gate_of text collate "C",
    add column last_gate text collate "C",
    drop constraint type_is_known,
    add constraint type_is_known check (type in ('handler', 'flow', 'pass', 'approval_gate',
        'human_task', 'wait_event', 'timer')),
    add constraint a_gate_is_approved check (gate_of is null or type = 'approval_gate');
comment on column pgflow.step_definition.gate_of is
    'Of a gate: the step whose outcome it approves.';
comment on column pgflow.step_definition.last_gate is
    'Of a step that has gates: the last, behind which its output counts.';

-- Agents, which the roles of steps are bound to. A run keeps what it was bound to when it started,
-- with the hashes of then.
create table pgflow.agent (
    project_id text collate "C" not null,
    agent text collate "C" not null,
    version integer not null,
    constraint agent_pkey primary key (project_id, agent),
    constraint agent_project_fkey foreign key (project_id) references pgflow.project (project_id),
    constraint agent_is_a_plain_name check (agent ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$')
);
comment on table pgflow.agent is 'Each agent with the version that was defined last.';

create table pgflow.agent_version (
    project_id text collate "C" not null,
    agent text collate "C" not null,
    version integer not null,
    sha256 bytea not null,
    created_at timestamptz not null,
    created_by text not null,
    model text collate "C" not null,
    backend text collate "C",
    config jsonb not null,
    constraint agent_version_pkey primary key (project_id, agent, version),
    constraint the_same_agent_is_the_same_version unique (project_id, agent, sha256),
    constraint config_is_an_object check (jsonb_typeof(config) = 'object')
);
comment on table pgflow.agent_version is
    'The definitions of agents, all versions. Rows never change.';

alter table pgflow.step_definition
    add column role text collate "C",
    add constraint only_a_handler_has_a_role check (role is null or type = 'handler');
comment on column pgflow.step_definition.role is
    'What its handler needs an agent for; each run is bound to one.';

alter table pgflow.flow_version add column roles text[] collate "C";
comment on column pgflow.flow_version.roles is
    'The roles of its steps; null: none, and no flow within that might have any.';

alter table pgflow.run add column bindings jsonb;
alter table pgflow.run_finished add column bindings jsonb;
comment on column pgflow.run.bindings is
    'Of a flow with roles: what each was bound to at the start: agent, version, sha256.';

insert into pgflow.refusal (sqlstate, name, description) values
    ('PF112', 'UnknownAgent', 'There is no agent of that name, or no such version of it.'),
    ('PF205', 'BindingLost',
        'What a role of the run was bound to is missing or malformed (E-RUN-012).');
