-- Gates of a step: each is a row of step_definition behind that of its step, and a run of its own.
-- And a step that does nothing but pass on its input. No installation has rows yet that would be
-- read under a lock.
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
