CREATE TABLE pgflow.run (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    parent_run_id uuid,
    root_run_id uuid,
    retry_of uuid,
    undo_of uuid,
    forked_from uuid,
    kind text DEFAULT 'handler'::text NOT NULL COLLATE pg_catalog."C",
    handler text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    priority smallint DEFAULT 0 NOT NULL,
    lane smallint DEFAULT 1 NOT NULL,
    depth smallint DEFAULT 0 NOT NULL,
    wait_any boolean DEFAULT false NOT NULL,
    slotted boolean DEFAULT false NOT NULL,
    has_tasks boolean DEFAULT false NOT NULL,
    has_children boolean DEFAULT false NOT NULL,
    watched boolean DEFAULT false NOT NULL,
    seq bigint,
    attempt integer DEFAULT 0 NOT NULL,
    max_attempts integer NOT NULL,
    lease_no integer DEFAULT 0,
    lease_event_no integer,
    last_event_no integer DEFAULT 1 NOT NULL,
    news integer DEFAULT 0 NOT NULL,
    round integer DEFAULT 0 NOT NULL,
    step_count integer DEFAULT 0 NOT NULL,
    worker_id text COLLATE pg_catalog."C",
    created_at timestamp with time zone NOT NULL,
    run_at timestamp with time zone,
    deadline timestamp with time zone,
    first_started_at timestamp with time zone,
    leased_at timestamp with time zone,
    wake_at timestamp with time zone,
    deadlines_held_at timestamp with time zone,
    timeout interval,
    created_by text NOT NULL,
    correlation_id text COLLATE pg_catalog."C",
    idempotency_key text COLLATE pg_catalog."C",
    pause_reason text,
    parent_key text COLLATE pg_catalog."C",
    step text COLLATE pg_catalog."C",
    flow_version integer,
    super_step integer,
    repairs_left smallint,
    cost_usd numeric,
    tags text[],
    waits_for text[] COLLATE pg_catalog."C",
    breakpoints text[] COLLATE pg_catalog."C",
    waits jsonb,
    feedback jsonb,
    input jsonb NOT NULL,
    last_error jsonb,
    checkpoint_no integer,
    budget_run_id uuid,
    bindings jsonb,
    has_own_steps boolean DEFAULT false NOT NULL,
    CONSTRAINT a_child_has_a_root CHECK (((parent_run_id IS NULL) = (root_run_id IS NULL))),
    CONSTRAINT input_is_at_most_8_mb CHECK ((pg_column_size(input) <= 8388608)),
    CONSTRAINT only_a_child_has_a_parent_key CHECK (((parent_key IS NULL) OR (parent_run_id IS NOT NULL))),
    CONSTRAINT only_a_paused_run_has_held_deadlines CHECK (((deadlines_held_at IS NULL) OR (state = 'paused'::text))),
    CONSTRAINT only_what_is_ready_has_a_place CHECK (((seq IS NOT NULL) = ((state = 'pending'::text) OR ((state = 'running'::text) AND (lease_no IS NOT NULL))))),
    CONSTRAINT only_who_waits_wakes CHECK (((wake_at IS NULL) OR (waits_for IS NOT NULL))),
    CONSTRAINT paused_has_a_reason CHECK (((state = 'paused'::text) = (pause_reason IS NOT NULL))),
    CONSTRAINT running_has_a_lease CHECK ((num_nulls(worker_id, leased_at, lease_event_no) =
CASE
    WHEN ((state = 'running'::text) AND (lease_no IS NOT NULL)) THEN 0
    ELSE 3
END)),
    CONSTRAINT scheduled_has_a_time CHECK (((state <> 'scheduled'::text) OR ((run_at IS NOT NULL) AND (waits_for IS NULL)))),
    CONSTRAINT waiting_waits_for_something CHECK (((state !~~ 'waiting%'::text) OR (waits_for IS NOT NULL)))
)
WITH (fillfactor='50');

COMMENT ON TABLE pgflow.run IS 'Live runs. A finished run is in run_finished; view runs is both.';

COMMENT ON COLUMN pgflow.run.run_id IS 'UUID version 7: begins with the time of its creation.';

COMMENT ON COLUMN pgflow.run.root_run_id IS 'The root of its tree of children; null for a root.';

COMMENT ON COLUMN pgflow.run.undo_of IS 'The finished run whose steps it undoes.';

COMMENT ON COLUMN pgflow.run.forked_from IS 'The run whose journal it began with.';

COMMENT ON COLUMN pgflow.run.lane IS '0: woken, released, reaped, retried; claimed before 1: new work.';

COMMENT ON COLUMN pgflow.run.slotted IS 'Its lease holds a row of table slot.';

COMMENT ON COLUMN pgflow.run.has_tasks IS 'Tasks were opened for it; its end closes them.';

COMMENT ON COLUMN pgflow.run.has_children IS 'Runs were made for it; its end cancels them.';

COMMENT ON COLUMN pgflow.run.watched IS 'Somebody asked to be told: each line of its timeline is hinted at.';

COMMENT ON COLUMN pgflow.run.seq IS 'Its place among the ready runs, drawn each time it becomes pending and kept while it runs.';

COMMENT ON COLUMN pgflow.run.attempt IS 'Executions that failed or were lost, held against max_attempts.';

COMMENT ON COLUMN pgflow.run.lease_no IS 'Grows at every lease. The fencing token: each write of a worker names it. A flow has none, so no worker''s write can be meant for it.';

COMMENT ON COLUMN pgflow.run.lease_event_no IS 'The number of the run.started event of the present lease, which view timeline derives.';

COMMENT ON COLUMN pgflow.run.last_event_no IS 'The number of the last event; 1 is run.created, which view timeline derives.';

COMMENT ON COLUMN pgflow.run.news IS 'Grows with every journal entry that others wrote. park() only parks a worker that has seen them all.';

COMMENT ON COLUMN pgflow.run.round IS 'How often entries of its journal were voided.';

COMMENT ON COLUMN pgflow.run.deadline IS 'Bound of the whole run, waits included.';

COMMENT ON COLUMN pgflow.run.wake_at IS 'The first due_at of its waits.';

COMMENT ON COLUMN pgflow.run.deadlines_held_at IS 'Since when its deadlines stand still: its own, those of its waits and tasks. They are moved on by that span when it is resumed.';

COMMENT ON COLUMN pgflow.run.timeout IS 'Bound of one execution.';

COMMENT ON COLUMN pgflow.run.parent_key IS 'The key in its parent''s journal that gets its result.';

COMMENT ON COLUMN pgflow.run.step IS 'The step of its parent, a flow, that it executes.';

COMMENT ON COLUMN pgflow.run.flow_version IS 'Of a flow, whose name is in handler: its version.';

COMMENT ON COLUMN pgflow.run.super_step IS 'Of a flow: how often ended steps have made others ready.';

COMMENT ON COLUMN pgflow.run.repairs_left IS 'How often it may be executed again because the artifact of its step is missing or invalid. Null: its step expects none.';

COMMENT ON COLUMN pgflow.run.waits_for IS 'Journal keys, all of them or, with wait_any, one of them.';

COMMENT ON COLUMN pgflow.run.breakpoints IS 'Each "before KEY" or "after KEY" of a step.';

COMMENT ON COLUMN pgflow.run.waits IS 'What it waits for beside tasks: an array of kind, key, digest and, as the kind has them, tool, name, run_id, asked_at, due_at.';

COMMENT ON COLUMN pgflow.run.feedback IS 'Why it was rolled back last: comment, by, at, key, task_id, round.';

COMMENT ON COLUMN pgflow.run.checkpoint_no IS 'Of a flow that has channels: its last checkpoint. Of a step of one: the checkpoint whose values it sees.';

COMMENT ON COLUMN pgflow.run.budget_run_id IS 'The run whose budget its calls of models count to: itself, or the next above it that has one.';

COMMENT ON COLUMN pgflow.run.bindings IS 'Of a flow with roles: what each was bound to at the start: agent, version, sha256.';

COMMENT ON COLUMN pgflow.run.has_own_steps IS 'Whether there are rows of run_step that stand before those of the flow''s version.';

CREATE TABLE pgflow.task (
    project_id text NOT NULL COLLATE pg_catalog."C",
    task_id uuid NOT NULL,
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL COLLATE pg_catalog."C",
    state text DEFAULT 'open'::text NOT NULL COLLATE pg_catalog."C",
    not_requester boolean DEFAULT false NOT NULL,
    quorum smallint DEFAULT 1 NOT NULL,
    quorum_of smallint,
    round integer NOT NULL,
    title text NOT NULL,
    payload jsonb,
    payload_sha256 bytea NOT NULL,
    form jsonb,
    request_sha256 bytea NOT NULL,
    digest bytea,
    replaces uuid,
    assignee text,
    assignee_role text,
    claimed_by text,
    requested_by text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone,
    policy text DEFAULT 'cancel'::text NOT NULL COLLATE pg_catalog."C",
    escalate_to text,
    escalate_in interval,
    on_reject text DEFAULT 'cancel'::text NOT NULL COLLATE pg_catalog."C",
    decided_at timestamp with time zone,
    decided_by text,
    decided_login text,
    voided_at timestamp with time zone,
    comment text,
    data jsonb,
    CONSTRAINT an_open_task_counts CHECK (((state <> 'open'::text) OR (voided_at IS NULL))),
    CONSTRAINT comment_is_at_most_10000_characters CHECK ((char_length(comment) <= 10000)),
    CONSTRAINT decided_iff_a_person_decided CHECK ((((state = ANY (ARRAY['approved'::text, 'rejected'::text, 'answered'::text, 'aborted'::text])) = (decided_at IS NOT NULL)) AND ((decided_at IS NULL) = (decided_by IS NULL)) AND ((decided_at IS NULL) = (decided_login IS NULL)))),
    CONSTRAINT escalation_has_a_role_and_a_time CHECK (((policy <> 'escalate'::text) OR ((escalate_to IS NOT NULL) AND (escalate_in IS NOT NULL)))),
    CONSTRAINT kind_is_known CHECK ((kind = ANY (ARRAY['approval'::text, 'form'::text, 'input'::text, 'interrupt'::text, 'breakpoint'::text]))),
    CONSTRAINT on_reject_is_known CHECK ((on_reject = ANY (ARRAY['cancel'::text, 'fail'::text, 'resume'::text]))),
    CONSTRAINT payload_is_at_most_1_mb CHECK ((pg_column_size(payload) <= 1048576)),
    CONSTRAINT quorum_is_1_to_100 CHECK ((((quorum >= 1) AND (quorum <= 100)) AND ((quorum_of >= quorum) AND (quorum_of <= 100)))),
    CONSTRAINT state_is_known CHECK ((state = ANY (ARRAY['open'::text, 'approved'::text, 'rejected'::text, 'answered'::text, 'aborted'::text, 'expired'::text, 'cancelled'::text]))),
    CONSTRAINT title_is_at_most_500_characters CHECK (((char_length(title) >= 1) AND (char_length(title) <= 500)))
);

COMMENT ON TABLE pgflow.task IS 'Work for a person. View inbox has the open tasks, task_history the others.';

COMMENT ON COLUMN pgflow.task.key IS 'The journal key that the answer is written under.';

COMMENT ON COLUMN pgflow.task.not_requester IS 'Whoever requested it may not decide.';

COMMENT ON COLUMN pgflow.task.quorum IS 'So many have to approve.';

COMMENT ON COLUMN pgflow.task.quorum_of IS 'So many are asked: rejected once the quorum can no longer be reached. Null: by one rejection.';

COMMENT ON COLUMN pgflow.task.round IS 'run.round when it was asked.';

COMMENT ON COLUMN pgflow.task.payload IS 'What the person is shown.';

COMMENT ON COLUMN pgflow.task.payload_sha256 IS 'SHA-256 of what was shown: a decision binds to it.';

COMMENT ON COLUMN pgflow.task.form IS 'The schema that an answer has to fit; docs/forms.md.';

COMMENT ON COLUMN pgflow.task.request_sha256 IS 'SHA-256 of all that was asked (kind, title, payload, form, role, assignee, quorum), but for the due time.';

COMMENT ON COLUMN pgflow.task.digest IS 'What the worker calls this request; it gets it back.';

COMMENT ON COLUMN pgflow.task.replaces IS 'The voided task of the same key that this stands for.';

COMMENT ON COLUMN pgflow.task.assignee IS 'A database role or login, or somebody the application knows; only they decide.';

COMMENT ON COLUMN pgflow.task.assignee_role IS 'If a database role of that name exists, only its members decide; else those whom the application names with as_user.';

COMMENT ON COLUMN pgflow.task.claimed_by IS 'Who works on it; nobody else decides meanwhile.';

COMMENT ON COLUMN pgflow.task.on_reject IS 'cancel or fail: a rejection ends the run; resume: the handler is told and goes on.';

COMMENT ON COLUMN pgflow.task.decided_by IS 'The actor: as_user where given, else the role set with set role, else the login.';

COMMENT ON COLUMN pgflow.task.decided_login IS 'The login of the session in which it was decided.';

COMMENT ON COLUMN pgflow.task.voided_at IS 'Since when it counts no more: something else was asked, or it was rolled back.';

CREATE TABLE pgflow.agent_version (
    project_id text NOT NULL COLLATE pg_catalog."C",
    agent text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    sha256 bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    model text NOT NULL COLLATE pg_catalog."C",
    backend text COLLATE pg_catalog."C",
    config jsonb NOT NULL,
    CONSTRAINT config_is_an_object CHECK ((jsonb_typeof(config) = 'object'::text))
);

COMMENT ON TABLE pgflow.agent_version IS 'The definitions of agents, all versions. Rows never change.';

CREATE TABLE pgflow.budget (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    outer_run_id uuid,
    usd numeric,
    tokens numeric,
    seconds numeric,
    used_usd numeric DEFAULT 0 NOT NULL,
    used_tokens numeric DEFAULT 0 NOT NULL,
    waited_seconds numeric DEFAULT 0 NOT NULL,
    on_breach text DEFAULT 'fail'::text NOT NULL COLLATE pg_catalog."C",
    assignee text,
    assignee_role text,
    exceeded_at timestamp with time zone,
    asked_at timestamp with time zone,
    task_id uuid,
    times_asked integer DEFAULT 0 NOT NULL,
    CONSTRAINT a_budget_bounds_something CHECK ((num_nonnulls(usd, tokens, seconds) > 0)),
    CONSTRAINT asked_at_iff_there_is_a_task CHECK (((asked_at IS NULL) = (task_id IS NULL))),
    CONSTRAINT on_breach_is_known CHECK ((on_breach = ANY (ARRAY['fail'::text, 'ask'::text])))
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.budget IS 'How much a run and all below it may spend, and what they have spent. View budgets shows them.';

COMMENT ON COLUMN pgflow.budget.outer_run_id IS 'The next run above it that has a budget, to which its calls count too.';

COMMENT ON COLUMN pgflow.budget.waited_seconds IS 'For how long it stood still because somebody was asked to raise it.';

COMMENT ON COLUMN pgflow.budget.exceeded_at IS 'When it was exceeded last.';

COMMENT ON COLUMN pgflow.budget.task_id IS 'The open task that asks to raise it; nothing of the run and below it is executed meanwhile.';

CREATE TABLE pgflow.run_step (
    project_id text CONSTRAINT step_definition_project_id_not_null NOT NULL COLLATE pg_catalog."C",
    flow text CONSTRAINT step_definition_flow_not_null NOT NULL COLLATE pg_catalog."C",
    version integer CONSTRAINT step_definition_version_not_null NOT NULL,
    step text CONSTRAINT step_definition_step_not_null NOT NULL COLLATE pg_catalog."C",
    place integer CONSTRAINT step_definition_place_not_null NOT NULL,
    layer integer CONSTRAINT step_definition_layer_not_null NOT NULL,
    type text CONSTRAINT step_definition_type_not_null NOT NULL COLLATE pg_catalog."C",
    handler text CONSTRAINT step_definition_handler_not_null NOT NULL COLLATE pg_catalog."C",
    queue text COLLATE pg_catalog."C",
    join_rule text CONSTRAINT step_definition_join_rule_not_null NOT NULL COLLATE pg_catalog."C",
    on_failure text CONSTRAINT step_definition_on_failure_not_null NOT NULL COLLATE pg_catalog."C",
    max_attempts integer,
    timeout interval,
    retry_base interval,
    retry_factor double precision,
    retry_max interval,
    needs text[] CONSTRAINT step_definition_needs_not_null NOT NULL COLLATE pg_catalog."C",
    dependants text[] CONSTRAINT step_definition_dependants_not_null NOT NULL COLLATE pg_catalog."C",
    config jsonb CONSTRAINT step_definition_config_not_null NOT NULL,
    condition jsonpath,
    layered boolean CONSTRAINT step_definition_layered_not_null NOT NULL,
    each_path jsonpath,
    artifact jsonb,
    step_type text COLLATE pg_catalog."C",
    gate_of text COLLATE pg_catalog."C",
    last_gate text COLLATE pg_catalog."C",
    role text COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    definition jsonb,
    needed_by text[] COLLATE pg_catalog."C",
    budget jsonb,
    super_step integer,
    added_in text COLLATE pg_catalog."C",
    added_element integer,
    withdrawn_at timestamp with time zone,
    added_at timestamp with time zone,
    added_by text,
    CONSTRAINT a_gate_is_approved CHECK (((gate_of IS NULL) OR (type = 'approval_gate'::text))),
    CONSTRAINT a_step_adds_as_a_whole_or_as_an_element CHECK ((num_nonnulls(added_in, added_element) = ANY (ARRAY[0, 2]))),
    CONSTRAINT added_iff_it_says_how CHECK ((num_nonnulls(definition, needed_by, super_step, added_at, added_by) = ANY (ARRAY[0, 5]))),
    CONSTRAINT join_rule_is_known CHECK ((join_rule = ANY (ARRAY['all'::text, 'any'::text, 'none_failed'::text, 'one_failed'::text]))),
    CONSTRAINT on_failure_is_known CHECK ((on_failure = ANY (ARRAY['fail'::text, 'continue'::text]))),
    CONSTRAINT only_a_handler_has_a_role CHECK (((role IS NULL) OR (type = 'handler'::text))),
    CONSTRAINT only_what_works_is_done_for_each CHECK (((each_path IS NULL) OR (type = ANY (ARRAY['handler'::text, 'flow'::text])))),
    CONSTRAINT type_is_known CHECK ((type = ANY (ARRAY['handler'::text, 'flow'::text, 'pass'::text, 'approval_gate'::text, 'human_task'::text, 'wait_event'::text, 'timer'::text])))
);

COMMENT ON TABLE pgflow.run_step IS 'Steps of single runs of flows: those that were added, and those of the version that need one of these, or are needed by one, as they are since.';

COMMENT ON COLUMN pgflow.run_step.place IS 'Its place in the definition, from 1.';

COMMENT ON COLUMN pgflow.run_step.layer IS 'The steps of the longest way to it, itself included.';

COMMENT ON COLUMN pgflow.run_step.type IS 'handler: a worker executes it; flow: another flow; else what it waits for. config has the particulars.';

COMMENT ON COLUMN pgflow.run_step.handler IS 'Of what no worker executes: its type.';

COMMENT ON COLUMN pgflow.run_step.dependants IS 'The steps that need it.';

COMMENT ON COLUMN pgflow.run_step.condition IS 'What the state values must be for it to run; else it is skipped.';

COMMENT ON COLUMN pgflow.run_step.layered IS 'Steps that end count once all that began with them have ended. The same for all of a flow.';

COMMENT ON COLUMN pgflow.run_step.each_path IS 'Finds in the step''s input the elements for each of which it is executed.';

COMMENT ON COLUMN pgflow.run_step.artifact IS 'What it has to leave behind: name, and if there are such schema, schema_version, repairs.';

COMMENT ON COLUMN pgflow.run_step.step_type IS 'The type that its definition names; type is what that comes down to.';

COMMENT ON COLUMN pgflow.run_step.gate_of IS 'Of a gate: the step whose outcome it approves.';

COMMENT ON COLUMN pgflow.run_step.last_gate IS 'Of a step that has gates: the last, behind which its output counts.';

COMMENT ON COLUMN pgflow.run_step.role IS 'What its handler needs an agent for; each run is bound to one.';

COMMENT ON COLUMN pgflow.run_step.definition IS 'What add_step was given, without what is said by default; null: a step of the version.';

COMMENT ON COLUMN pgflow.run_step.needed_by IS 'The steps that were to need it.';

COMMENT ON COLUMN pgflow.run_step.budget IS 'How much it may spend, if it was added.';

COMMENT ON COLUMN pgflow.run_step.super_step IS 'How far the flow had come when it was added; -1: it was taken over from the run that this one retries.';

COMMENT ON COLUMN pgflow.run_step.added_in IS 'The step whose handler added it: it counts as long as that does.';

COMMENT ON COLUMN pgflow.run_step.added_element IS 'Which element of that step added it, if it is done for each; else 0.';

COMMENT ON COLUMN pgflow.run_step.withdrawn_at IS 'When that step, or one that this one needs, counted no more.';

CREATE TABLE pgflow.flow_version (
    project_id text NOT NULL COLLATE pg_catalog."C",
    flow text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    sha256 bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    definition jsonb NOT NULL,
    step_types jsonb,
    roles text[] COLLATE pg_catalog."C"
);

COMMENT ON TABLE pgflow.flow_version IS 'The definitions of flows, all versions. Rows never change.';

COMMENT ON COLUMN pgflow.flow_version.sha256 IS 'SHA-256 of the definition without what is said by default.';

COMMENT ON COLUMN pgflow.flow_version.step_types IS 'What the step types that it names said when it was defined, by name; null: it names none that was registered. sha256 covers it.';

COMMENT ON COLUMN pgflow.flow_version.roles IS 'The roles of its steps; null: none, and no flow within that might have any.';

CREATE TABLE pgflow.step_type (
    project_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    interactive boolean NOT NULL,
    kind text COLLATE pg_catalog."C",
    handler text COLLATE pg_catalog."C",
    form_schema jsonb,
    default_due interval,
    default_policy text COLLATE pg_catalog."C",
    default_config jsonb NOT NULL,
    description text,
    registered_at timestamp with time zone NOT NULL,
    registered_by text NOT NULL,
    CONSTRAINT either_a_person_or_a_handler CHECK (((interactive = (kind IS NOT NULL)) AND (interactive = (handler IS NULL)))),
    CONSTRAINT kind_is_known CHECK ((kind = ANY (ARRAY['approval_gate'::text, 'human_task'::text]))),
    CONSTRAINT name_is_a_plain_name CHECK ((name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'::text)),
    CONSTRAINT only_a_person_is_asked CHECK ((interactive OR (num_nonnulls(form_schema, default_due, default_policy) = 0)))
);

COMMENT ON TABLE pgflow.step_type IS 'Step types that somebody registered. View step_types has the engine''s own as well.';

COMMENT ON COLUMN pgflow.step_type.kind IS 'Which of the engine''s own types it is made of.';

COMMENT ON COLUMN pgflow.step_type.handler IS 'Of a type that is not interactive: who executes it.';

COMMENT ON COLUMN pgflow.step_type.default_config IS 'The config of its steps, where they say nothing else.';

CREATE TABLE pgflow.step_definition (
    project_id text NOT NULL COLLATE pg_catalog."C",
    flow text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    step text NOT NULL COLLATE pg_catalog."C",
    place integer NOT NULL,
    layer integer NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C",
    handler text NOT NULL COLLATE pg_catalog."C",
    queue text COLLATE pg_catalog."C",
    join_rule text NOT NULL COLLATE pg_catalog."C",
    on_failure text NOT NULL COLLATE pg_catalog."C",
    max_attempts integer,
    timeout interval,
    retry_base interval,
    retry_factor double precision,
    retry_max interval,
    needs text[] NOT NULL COLLATE pg_catalog."C",
    dependants text[] NOT NULL COLLATE pg_catalog."C",
    config jsonb NOT NULL,
    condition jsonpath,
    layered boolean DEFAULT false NOT NULL,
    each_path jsonpath,
    artifact jsonb,
    step_type text COLLATE pg_catalog."C",
    gate_of text COLLATE pg_catalog."C",
    last_gate text COLLATE pg_catalog."C",
    role text COLLATE pg_catalog."C",
    CONSTRAINT a_gate_is_approved CHECK (((gate_of IS NULL) OR (type = 'approval_gate'::text))),
    CONSTRAINT join_rule_is_known CHECK ((join_rule = ANY (ARRAY['all'::text, 'any'::text, 'none_failed'::text, 'one_failed'::text]))),
    CONSTRAINT on_failure_is_known CHECK ((on_failure = ANY (ARRAY['fail'::text, 'continue'::text]))),
    CONSTRAINT only_a_handler_has_a_role CHECK (((role IS NULL) OR (type = 'handler'::text))),
    CONSTRAINT only_what_works_is_done_for_each CHECK (((each_path IS NULL) OR (type = ANY (ARRAY['handler'::text, 'flow'::text])))),
    CONSTRAINT type_is_known CHECK ((type = ANY (ARRAY['handler'::text, 'flow'::text, 'pass'::text, 'approval_gate'::text, 'human_task'::text, 'wait_event'::text, 'timer'::text])))
);

COMMENT ON TABLE pgflow.step_definition IS 'The steps of each version of a flow, as its runs need them. Rows never change.';

COMMENT ON COLUMN pgflow.step_definition.place IS 'Its place in the definition, from 1.';

COMMENT ON COLUMN pgflow.step_definition.layer IS 'The steps of the longest way to it, itself included.';

COMMENT ON COLUMN pgflow.step_definition.type IS 'handler: a worker executes it; flow: another flow; else what it waits for. config has the particulars.';

COMMENT ON COLUMN pgflow.step_definition.handler IS 'Of what no worker executes: its type.';

COMMENT ON COLUMN pgflow.step_definition.dependants IS 'The steps that need it.';

COMMENT ON COLUMN pgflow.step_definition.condition IS 'What the state values must be for it to run; else it is skipped.';

COMMENT ON COLUMN pgflow.step_definition.layered IS 'Steps that end count once all that began with them have ended. The same for all of a flow.';

COMMENT ON COLUMN pgflow.step_definition.each_path IS 'Finds in the step''s input the elements for each of which it is executed.';

COMMENT ON COLUMN pgflow.step_definition.artifact IS 'What it has to leave behind: name, and if there are such schema, schema_version, repairs.';

COMMENT ON COLUMN pgflow.step_definition.step_type IS 'The type that its definition names; type is what that comes down to.';

COMMENT ON COLUMN pgflow.step_definition.gate_of IS 'Of a gate: the step whose outcome it approves.';

COMMENT ON COLUMN pgflow.step_definition.last_gate IS 'Of a step that has gates: the last, behind which its output counts.';

COMMENT ON COLUMN pgflow.step_definition.role IS 'What its handler needs an agent for; each run is bound to one.';

CREATE TABLE pgflow.subscription (
    project_id text NOT NULL COLLATE pg_catalog."C",
    subscription text NOT NULL COLLATE pg_catalog."C",
    types text[] COLLATE pg_catalog."C",
    queue text COLLATE pg_catalog."C",
    correlation_id text COLLATE pg_catalog."C",
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    read_to pgflow.outbox_position NOT NULL,
    batch_no integer DEFAULT 0 NOT NULL,
    batch_to pgflow.outbox_position,
    reader text,
    held_until timestamp with time zone,
    hold interval,
    acknowledged_no integer DEFAULT 0 NOT NULL,
    acknowledged_at timestamp with time zone,
    CONSTRAINT an_open_batch_is_whole CHECK ((((batch_to IS NULL) = (reader IS NULL)) AND ((batch_to IS NULL) = (held_until IS NULL)) AND ((batch_to IS NULL) = (hold IS NULL)))),
    CONSTRAINT subscription_is_at_most_100_characters CHECK (((char_length(subscription) >= 1) AND (char_length(subscription) <= 100)))
)
WITH (fillfactor='50');

COMMENT ON TABLE pgflow.subscription IS 'Who follows the events of a project, and how far. While there is one, outbox is written.';

COMMENT ON COLUMN pgflow.subscription.types IS 'Event types; null: all.';

COMMENT ON COLUMN pgflow.subscription.read_to IS 'Up to here all events are acknowledged.';

COMMENT ON COLUMN pgflow.subscription.batch_no IS 'Grows with every batch that is given out: whoever acknowledges one names it.';

COMMENT ON COLUMN pgflow.subscription.batch_to IS 'The end of the batch that is being worked on; null: none is.';

COMMENT ON COLUMN pgflow.subscription.reader IS 'Who has it.';

COMMENT ON COLUMN pgflow.subscription.held_until IS 'Then it is given to whoever asks.';

COMMENT ON COLUMN pgflow.subscription.hold IS 'For so long it is held after each sign of its reader.';

COMMENT ON COLUMN pgflow.subscription.acknowledged_no IS 'The last batch that was acknowledged.';

CREATE TABLE pgflow.flow_step (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    step text NOT NULL COLLATE pg_catalog."C",
    element integer DEFAULT 0 NOT NULL,
    version integer DEFAULT 0 NOT NULL,
    state text NOT NULL COLLATE pg_catalog."C",
    needs_settled integer DEFAULT 0 NOT NULL,
    needs_completed integer DEFAULT 0 NOT NULL,
    needs_failed integer DEFAULT 0 NOT NULL,
    super_step integer,
    started_event_no integer,
    ended_event_no integer,
    voided_event_no integer,
    attempts integer DEFAULT 0 NOT NULL,
    child_run_id uuid,
    ready_at timestamp with time zone,
    ended_at timestamp with time zone,
    voided_at timestamp with time zone,
    error_code text COLLATE pg_catalog."C",
    error_detail text,
    output jsonb,
    voided_super_step integer,
    elements integer,
    elements_left integer,
    CONSTRAINT elements_left_of_elements CHECK (((elements_left >= 0) AND (elements_left <= elements))),
    CONSTRAINT output_iff_completed CHECK (
CASE
    WHEN (elements IS NULL) THEN ((state = 'completed'::text) = (output IS NOT NULL))
    ELSE (output IS NULL)
END),
    CONSTRAINT running_has_a_run_or_elements CHECK (((state <> 'running'::text) OR (num_nonnulls(child_run_id, elements) > 0))),
    CONSTRAINT state_is_known CHECK ((state = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'skipped'::text, 'rejected'::text, 'expired'::text, 'cancelled'::text])))
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.flow_step IS 'What became of each step of a flow''s run, once the first of those that it needs has ended. View flow_steps has the others too.';

COMMENT ON COLUMN pgflow.flow_step.element IS 'From 1 for each element of a step that is done for each; 0: the step itself.';

COMMENT ON COLUMN pgflow.flow_step.version IS 'run.round of the flow when it was made ready.';

COMMENT ON COLUMN pgflow.flow_step.needs_settled IS 'How many of the steps that it needs have ended, completed and failed ones among them.';

COMMENT ON COLUMN pgflow.flow_step.super_step IS 'The super-step that took note of its end; null: none has, because the flow was paused.';

COMMENT ON COLUMN pgflow.flow_step.child_run_id IS 'The run that executes it.';

COMMENT ON COLUMN pgflow.flow_step.ready_at IS 'When that run was made.';

COMMENT ON COLUMN pgflow.flow_step.voided_super_step IS 'How far the flow had come when it went back behind this step.';

COMMENT ON COLUMN pgflow.flow_step.elements IS 'How many it has, of a step that is done for each; its output is the list of theirs.';

COMMENT ON COLUMN pgflow.flow_step.elements_left IS 'How many of them have not ended.';

CREATE TABLE pgflow.event (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    event_no integer NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C",
    key text COLLATE pg_catalog."C",
    step text COLLATE pg_catalog."C",
    attempt integer NOT NULL,
    at timestamp with time zone NOT NULL,
    by text NOT NULL,
    lease_no integer,
    lease_event_no integer,
    worker_id text COLLATE pg_catalog."C",
    leased_at timestamp with time zone,
    payload jsonb,
    CONSTRAINT an_ended_lease_is_whole CHECK ((num_nulls(lease_event_no, worker_id, leased_at, lease_no) = ANY (ARRAY[0, 4]))),
    CONSTRAINT payload_is_at_most_1_mb CHECK ((pg_column_size(payload) <= 1048576))
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.event IS 'What a run''s own row can''t say. View timeline adds the creation, the leases and the end.';

COMMENT ON COLUMN pgflow.event.key IS 'Idempotency key, unique within the run.';

COMMENT ON COLUMN pgflow.event.by IS 'The actor; a worker''s events name its database role.';

COMMENT ON COLUMN pgflow.event.lease_event_no IS 'Set where the event ended a lease: the number of that lease''s run.started event.';

CREATE TABLE pgflow.schema_version (
    project_id text NOT NULL COLLATE pg_catalog."C",
    schema text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    sha256 bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    definition jsonb NOT NULL
);

COMMENT ON TABLE pgflow.schema_version IS 'The schemas of artifacts, all versions. Rows never change.';

CREATE TABLE pgflow.queue (
    project_id text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    max_concurrent integer,
    max_attempts integer DEFAULT 3 NOT NULL,
    timeout interval,
    lease_ttl interval DEFAULT '00:01:00'::interval NOT NULL,
    retention interval,
    key_retention interval DEFAULT '00:00:00'::interval NOT NULL,
    paused_at timestamp with time zone,
    paused_by text,
    priorities smallint[] DEFAULT '{0}'::smallint[] NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT key_retention_is_at_most_10_years CHECK (((key_retention >= '00:00:00'::interval) AND (key_retention <= '10 years'::interval))),
    CONSTRAINT lease_ttl_is_1_second_to_1_day CHECK (((lease_ttl >= '00:00:01'::interval) AND (lease_ttl <= '1 day'::interval))),
    CONSTRAINT max_attempts_is_1_to_1000 CHECK (((max_attempts >= 1) AND (max_attempts <= 1000))),
    CONSTRAINT max_concurrent_is_positive CHECK ((max_concurrent > 0)),
    CONSTRAINT paused_by_iff_paused CHECK (((paused_at IS NULL) = (paused_by IS NULL))),
    CONSTRAINT queue_is_at_most_100_characters CHECK (((char_length(queue) >= 1) AND (char_length(queue) <= 100))),
    CONSTRAINT retention_is_at_least_an_hour CHECK ((retention >= '01:00:00'::interval)),
    CONSTRAINT timeout_is_at_most_30_days CHECK (((timeout > '00:00:00'::interval) AND (timeout <= '30 days'::interval)))
);

COMMENT ON TABLE pgflow.queue IS 'Entry points of runs. A queue is made when it is first used.';

COMMENT ON COLUMN pgflow.queue.max_concurrent IS 'At most so many of its runs are leased at once, over all hosts. Null: no limit.';

COMMENT ON COLUMN pgflow.queue.timeout IS 'Default bound of one execution. Null: none.';

COMMENT ON COLUMN pgflow.queue.lease_ttl IS 'A lease expires when its worker has not beaten for so long.';

COMMENT ON COLUMN pgflow.queue.retention IS 'How long its finished runs are kept. Null: as long as installation.retention says.';

COMMENT ON COLUMN pgflow.queue.key_retention IS 'How much longer than their runs idempotency keys hold.';

COMMENT ON COLUMN pgflow.queue.priorities IS 'Every priority that a run of this queue ever had, highest first: a claim looks nowhere else.';

CREATE TABLE pgflow.run_finished (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    parent_run_id uuid,
    root_run_id uuid,
    retry_of uuid,
    undo_of uuid,
    forked_from uuid,
    parent_key text COLLATE pg_catalog."C",
    step text COLLATE pg_catalog."C",
    flow_version integer,
    super_step integer,
    kind text NOT NULL COLLATE pg_catalog."C",
    handler text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    ended_from text NOT NULL COLLATE pg_catalog."C",
    priority smallint NOT NULL,
    depth smallint NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    lease_no integer,
    lease_event_no integer,
    last_event_no integer NOT NULL,
    round integer DEFAULT 0 NOT NULL,
    step_count integer NOT NULL,
    worker_id text COLLATE pg_catalog."C",
    created_at timestamp with time zone NOT NULL,
    run_at timestamp with time zone,
    deadline timestamp with time zone,
    first_started_at timestamp with time zone,
    leased_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    timeout interval,
    created_by text NOT NULL,
    ended_by text,
    correlation_id text COLLATE pg_catalog."C",
    idempotency_key text COLLATE pg_catalog."C",
    error_code text COLLATE pg_catalog."C",
    error_detail text,
    cost_usd numeric,
    tags text[],
    input jsonb NOT NULL,
    output jsonb,
    last_error jsonb,
    bindings jsonb,
    CONSTRAINT a_lease_is_whole CHECK ((((lease_event_no IS NULL) = (worker_id IS NULL)) AND ((lease_event_no IS NULL) = (leased_at IS NULL)))),
    CONSTRAINT completed_has_no_error CHECK (((state <> 'completed'::text) OR (error_code IS NULL))),
    CONSTRAINT ended_by_a_legal_move CHECK (((kind = ANY (ARRAY['handler'::text, 'flow'::text, 'step_wait'::text])) AND (ended_from = ANY (ARRAY['scheduled'::text, 'pending'::text, 'running'::text, 'waiting_tool'::text, 'waiting_approval'::text, 'waiting_event'::text, 'paused'::text])) AND ((kind = 'handler'::text) OR (ended_from <> ALL (ARRAY['scheduled'::text, 'pending'::text]))) AND ((kind <> 'step_wait'::text) OR (ended_from = ANY (ARRAY['waiting_approval'::text, 'waiting_event'::text, 'paused'::text]))) AND
CASE state
    WHEN 'cancelled'::text THEN true
    WHEN 'timeout'::text THEN true
    WHEN 'completed'::text THEN ((ended_from = 'running'::text) OR ((kind <> 'handler'::text) AND (ended_from ~~ 'waiting%'::text)))
    WHEN 'failed'::text THEN (ended_from <> ALL (ARRAY['scheduled'::text, 'paused'::text]))
    ELSE false
END)),
    CONSTRAINT failed_has_a_code CHECK (((state <> 'failed'::text) OR (error_code IS NOT NULL))),
    CONSTRAINT output_iff_completed CHECK (((state = 'completed'::text) = (output IS NOT NULL))),
    CONSTRAINT output_is_at_most_8_mb CHECK ((pg_column_size(output) <= 8388608))
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.run_finished IS 'Finished runs. Rows never change; retention takes them away. Partitioned by run_id, as table period says.';

COMMENT ON COLUMN pgflow.run_finished.ended_from IS 'The last live state.';

COMMENT ON COLUMN pgflow.run_finished.last_event_no IS 'The number of the event of its end, which view timeline derives; of a flow also the one before, report.written.';

COMMENT ON COLUMN pgflow.run_finished.worker_id IS 'The worker that held it when it ended, if one did.';

COMMENT ON COLUMN pgflow.run_finished.ended_by IS 'Who cancelled it, where a person did.';

CREATE TABLE pgflow.period (
    period text NOT NULL COLLATE pg_catalog."C",
    from_at timestamp with time zone NOT NULL,
    to_at timestamp with time zone NOT NULL,
    from_id uuid NOT NULL,
    to_id uuid NOT NULL,
    closed_by xid8,
    expired_at timestamp with time zone,
    CONSTRAINT period_goes_on CHECK (((from_at < to_at) AND (from_id < to_id))),
    CONSTRAINT period_is_named_by_its_hour CHECK ((period ~ '^[0-9]{10}$'::text))
);

COMMENT ON TABLE pgflow.period IS 'Ranges of run ids, one after the other without a gap. Each has a partition TABLE_PERIOD of every table of the history.';

COMMENT ON COLUMN pgflow.period.period IS 'The hour of its beginning in UTC: YYYYMMDDHH.';

COMMENT ON COLUMN pgflow.period.to_id IS 'The first run id of the next period.';

COMMENT ON COLUMN pgflow.period.closed_by IS 'A transaction that began when enqueue no longer took ids of this period: once all older ones have ended, no run can come any more.';

COMMENT ON COLUMN pgflow.period.expired_at IS 'Since when all its runs have ended and are past their retention: its partitions are dropped.';

CREATE TABLE pgflow.artifact (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    artifact_no integer NOT NULL,
    flow_run_id uuid,
    step text COLLATE pg_catalog."C",
    version integer NOT NULL,
    attempt integer NOT NULL,
    lease_no integer,
    at timestamp with time zone NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    schema text COLLATE pg_catalog."C",
    schema_version integer,
    media_type text NOT NULL COLLATE pg_catalog."C",
    size bigint NOT NULL,
    sha256 bytea NOT NULL,
    valid boolean NOT NULL,
    validation_errors jsonb,
    content_json jsonb,
    content_text text,
    content_bytes bytea,
    CONSTRAINT a_schema_has_a_version CHECK (((schema IS NULL) = (schema_version IS NULL))),
    CONSTRAINT content_has_one_form CHECK ((num_nonnulls(content_json, content_text, content_bytes) = 1)),
    CONSTRAINT invalid_has_errors CHECK ((valid = (validation_errors IS NULL))),
    CONSTRAINT kind_is_known CHECK ((kind = ANY (ARRAY['document'::text, 'report'::text]))),
    CONSTRAINT name_is_1_to_200_characters CHECK (((char_length(name) >= 1) AND (char_length(name) <= 200))),
    CONSTRAINT size_is_at_most_64_mb CHECK (((size >= 0) AND (size <= 67108864)))
)
PARTITION BY RANGE (run_id);
ALTER TABLE ONLY pgflow.artifact ALTER COLUMN content_bytes SET STORAGE EXTERNAL;

COMMENT ON TABLE pgflow.artifact IS 'Documents that executions left behind. View artifacts has the inputs and outputs too, which are where they were.';

COMMENT ON COLUMN pgflow.artifact.artifact_no IS 'The number of the event that it came with: artifact.validated or artifact.invalid.';

COMMENT ON COLUMN pgflow.artifact.version IS 'The round of its run, and of the flow if it is a step of one, in which it was written.';

COMMENT ON COLUMN pgflow.artifact.attempt IS 'Failed executions before that one.';

COMMENT ON COLUMN pgflow.artifact.lease_no IS 'The lease under which it was written last: it counts for that execution alone.';

COMMENT ON COLUMN pgflow.artifact.sha256 IS 'Of the whole content: the bytes, the text in UTF-8, or the database''s text of the JSON.';

CREATE TABLE pgflow.journal (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL COLLATE pg_catalog."C",
    undo boolean DEFAULT false NOT NULL,
    news integer,
    lease_no integer,
    attempt integer,
    event_no integer NOT NULL,
    at timestamp with time zone NOT NULL,
    digest bytea,
    value jsonb,
    CONSTRAINT a_step_has_a_lease_and_news_have_none CHECK (((num_nonnulls(lease_no, attempt) =
CASE kind
    WHEN 'step'::text THEN 2
    ELSE 0
END) AND ((kind = 'step'::text) = (news IS NULL)))),
    CONSTRAINT key_is_at_most_500_characters CHECK (((char_length(key) >= 1) AND (char_length(key) <= 500))),
    CONSTRAINT only_steps_are_undone CHECK (((NOT undo) OR (kind = 'step'::text))),
    CONSTRAINT value_is_at_most_8_mb CHECK ((pg_column_size(value) <= 8388608))
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.journal IS 'What a run has learned: one entry per key. A resumed handler reads it instead of working again.';

COMMENT ON COLUMN pgflow.journal.undo IS 'The step has something that undoes it.';

COMMENT ON COLUMN pgflow.journal.news IS 'run.news after this entry, where others than the run''s worker wrote it.';

COMMENT ON COLUMN pgflow.journal.event_no IS 'The number of the event that it came with, the order of the entries; view timeline derives step.completed.';

COMMENT ON COLUMN pgflow.journal.digest IS 'SHA-256 of the call''s inputs; a call with others is not the same call.';

CREATE TABLE pgflow.usage (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    call_key text NOT NULL COLLATE pg_catalog."C",
    step text COLLATE pg_catalog."C",
    attempt integer NOT NULL,
    lease_no integer NOT NULL,
    round integer NOT NULL,
    at timestamp with time zone NOT NULL,
    actor text,
    model text COLLATE pg_catalog."C",
    role text,
    thread_id text COLLATE pg_catalog."C",
    turn_index integer,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    reasoning_tokens bigint,
    cost_usd_input numeric,
    cost_usd_output numeric,
    cost_usd_total numeric,
    latency_ms bigint,
    status text NOT NULL COLLATE pg_catalog."C",
    error_code text,
    request_id text,
    CONSTRAINT call_key_is_at_most_600_characters CHECK (((char_length(call_key) >= 1) AND (char_length(call_key) <= 600))),
    CONSTRAINT costs_are_from_0_to_2_billion CHECK (((LEAST(cost_usd_input, cost_usd_output, cost_usd_total) >= (0)::numeric) AND (GREATEST(cost_usd_input, cost_usd_output, cost_usd_total) <= (2000000000)::numeric))),
    CONSTRAINT counts_are_not_negative CHECK ((LEAST((turn_index)::bigint, input_tokens, output_tokens, cached_tokens, reasoning_tokens, latency_ms) >= 0)),
    CONSTRAINT status_is_known CHECK ((status = ANY (ARRAY['ok'::text, 'failed'::text])))
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.usage IS 'Calls of models: what each took and cost. run.cost_usd has the sum. View model_calls shows them.';

COMMENT ON COLUMN pgflow.usage.call_key IS 'Unique in the life of a run: a call that is told again counts once.';

COMMENT ON COLUMN pgflow.usage.step IS 'The key of the step in which it was called.';

COMMENT ON COLUMN pgflow.usage.attempt IS 'run.attempt when it was recorded.';

COMMENT ON COLUMN pgflow.usage.round IS 'run.round when it was recorded.';

COMMENT ON COLUMN pgflow.usage.actor IS 'Which agent called, as the handler names it.';

COMMENT ON COLUMN pgflow.usage.cost_usd_total IS 'Null: unknown.';

CREATE TABLE pgflow.signal (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    signal_no integer NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    key text COLLATE pg_catalog."C",
    at timestamp with time zone NOT NULL,
    by text NOT NULL,
    taken_as text COLLATE pg_catalog."C",
    payload jsonb,
    CONSTRAINT key_is_at_most_500_characters CHECK (((char_length(key) >= 1) AND (char_length(key) <= 500))),
    CONSTRAINT name_is_at_most_200_characters CHECK (((char_length(name) >= 1) AND (char_length(name) <= 200))),
    CONSTRAINT payload_is_at_most_1_mb CHECK ((pg_column_size(payload) <= 1048576))
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.signal IS 'The mailbox of each run: signals in the order in which they came, each taken once.';

COMMENT ON COLUMN pgflow.signal.signal_no IS 'The number of its signal.received event.';

COMMENT ON COLUMN pgflow.signal.key IS 'Idempotency key, unique within the run.';

COMMENT ON COLUMN pgflow.signal.taken_as IS 'The journal key of the call that it answered; null while nobody has asked for it.';

CREATE TABLE pgflow.price (
    project_id text NOT NULL COLLATE pg_catalog."C",
    model text NOT NULL COLLATE pg_catalog."C",
    valid_from timestamp with time zone NOT NULL,
    input_per_1k_usd numeric NOT NULL,
    output_per_1k_usd numeric NOT NULL,
    cached_per_1k_usd numeric,
    defined_at timestamp with time zone NOT NULL,
    defined_by text NOT NULL,
    CONSTRAINT model_is_at_most_500_characters CHECK (((char_length(model) >= 1) AND (char_length(model) <= 500))),
    CONSTRAINT prices_are_from_0_to_100 CHECK (((LEAST(input_per_1k_usd, output_per_1k_usd, cached_per_1k_usd) >= (0)::numeric) AND (GREATEST(input_per_1k_usd, output_per_1k_usd, cached_per_1k_usd) <= (100)::numeric)))
);

COMMENT ON TABLE pgflow.price IS 'What a thousand tokens of a model cost since when. View prices shows them.';

CREATE TABLE pgflow.installation (
    one boolean DEFAULT true NOT NULL,
    test_clock boolean DEFAULT false NOT NULL,
    retention interval,
    partition_width interval DEFAULT '7 days'::interval NOT NULL,
    CONSTRAINT partition_width_is_1_hour_to_31_days CHECK (((partition_width >= '01:00:00'::interval) AND (partition_width <= '31 days'::interval))),
    CONSTRAINT partition_width_is_in_whole_hours CHECK (((EXTRACT(epoch FROM partition_width) % (3600)::numeric) = (0)::numeric)),
    CONSTRAINT retention_is_at_least_an_hour CHECK ((retention >= '01:00:00'::interval)),
    CONSTRAINT there_is_one_installation CHECK (one)
);

COMMENT ON TABLE pgflow.installation IS 'Settings of the whole installation; one row.';

COMMENT ON COLUMN pgflow.installation.test_clock IS 'True lets a session set pgflow.test_now; for tests only.';

COMMENT ON COLUMN pgflow.installation.retention IS 'How long finished runs are kept, where their queue doesn''t say otherwise. Null: for ever.';

COMMENT ON COLUMN pgflow.installation.partition_width IS 'For how long all new run ids go into the same partitions. set_retention() sets it.';

CREATE TABLE pgflow.agent (
    project_id text NOT NULL COLLATE pg_catalog."C",
    agent text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    CONSTRAINT agent_is_a_plain_name CHECK ((agent ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'::text))
);

COMMENT ON TABLE pgflow.agent IS 'Each agent with the version that was defined last.';

CREATE VIEW pgflow.agents WITH (security_barrier='true') AS
 SELECT v.project_id,
    v.agent,
    v.version,
    (v.version = a.version) AS is_current,
    v.model,
    v.backend,
    v.config,
    encode(v.sha256, 'hex'::text) AS sha256,
    v.created_at,
    v.created_by
   FROM (pgflow.agent_version v
     JOIN pgflow.agent a USING (project_id, agent))
  WHERE (v.project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.agents IS 'What roles of steps can be bound to, all versions. A role that a start binds to nothing else is bound to the agent of its name.';

COMMENT ON COLUMN pgflow.agents.is_current IS 'Whether it is the version that was defined last.';

COMMENT ON COLUMN pgflow.agents.sha256 IS 'Hex SHA-256 of name, model, backend and config, by which the same content is the same version.';

CREATE TABLE pgflow.artifact_schema (
    project_id text NOT NULL COLLATE pg_catalog."C",
    schema text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    CONSTRAINT schema_is_a_plain_name CHECK ((schema ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'::text))
);

COMMENT ON TABLE pgflow.artifact_schema IS 'Each schema with the version that was defined last.';

CREATE VIEW pgflow.artifacts WITH (security_barrier='true') AS
 SELECT project_id,
    run_id,
    artifact_no,
    flow_run_id,
    step,
    version,
    attempt,
    lease_no,
    at,
    kind,
    name,
    schema,
    schema_version,
    media_type,
    size,
    sha256,
    valid,
    validation_errors
   FROM ( SELECT a.project_id,
            a.run_id,
            a.artifact_no,
            a.flow_run_id,
            a.step,
            a.version,
            a.attempt,
            a.lease_no,
            a.at,
            a.kind,
            a.name,
            a.schema,
            a.schema_version,
            a.media_type,
            a.size,
            encode(a.sha256, 'hex'::text) AS sha256,
            a.valid,
            a.validation_errors
           FROM pgflow.artifact a
        UNION ALL
         SELECT r.project_id,
            r.run_id,
            1,
                CASE
                    WHEN (r.step IS NOT NULL) THEN r.parent_run_id
                    ELSE NULL::uuid
                END AS "case",
            r.step,
            COALESCE(s.version, 0) AS "coalesce",
            0,
            NULL::integer,
            r.created_at,
            'input'::text,
            'input'::text,
            NULL::text,
            NULL::integer,
            'application/json'::text,
            octet_length((r.input)::text) AS octet_length,
            encode(pgflow._sha256(r.input), 'hex'::text) AS encode,
            true,
            NULL::jsonb
           FROM (pgflow.run r
             LEFT JOIN pgflow.flow_step s ON (((s.project_id = r.project_id) AND (s.run_id = r.parent_run_id) AND (s.step = r.step) AND (s.child_run_id = r.run_id))))
        UNION ALL
         SELECT f.project_id,
            f.run_id,
            o.artifact_no,
                CASE
                    WHEN (f.step IS NOT NULL) THEN f.parent_run_id
                    ELSE NULL::uuid
                END AS "case",
            f.step,
            (COALESCE(s.version, 0) +
                CASE o.kind
                    WHEN 'output'::text THEN f.round
                    ELSE 0
                END),
                CASE o.kind
                    WHEN 'output'::text THEN f.attempt
                    ELSE 0
                END AS "case",
                CASE o.kind
                    WHEN 'output'::text THEN f.lease_no
                    ELSE NULL::integer
                END AS "case",
            o.at,
            o.kind,
            o.kind,
            NULL::text,
            NULL::integer,
            'application/json'::text,
            octet_length((o.content)::text) AS octet_length,
            encode(pgflow._sha256(o.content), 'hex'::text) AS encode,
            true,
            NULL::jsonb
           FROM ((pgflow.run_finished f
             CROSS JOIN LATERAL ( VALUES ('input'::text,1,f.created_at,f.input), ('output'::text,f.last_event_no,f.finished_at,f.output)) o(kind, artifact_no, at, content))
             LEFT JOIN pgflow.flow_step s ON (((s.project_id = f.project_id) AND (s.run_id = f.parent_run_id) AND (s.step = f.step) AND (s.child_run_id = f.run_id))))
          WHERE (o.content IS NOT NULL)) u
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.artifacts IS 'What went into each run, what came out of it, and the documents that it left behind; without the contents, which artifact_content() returns. Select by run_id.';

COMMENT ON COLUMN pgflow.artifacts.artifact_no IS 'The number of the event that it came with; unique in its run.';

COMMENT ON COLUMN pgflow.artifacts.flow_run_id IS 'The run of the flow, of whose step its run is.';

COMMENT ON COLUMN pgflow.artifacts.version IS 'The round of the run, and of the flow if it is a step of one.';

COMMENT ON COLUMN pgflow.artifacts.attempt IS 'Failed executions before the one that wrote it last.';

COMMENT ON COLUMN pgflow.artifacts.lease_no IS 'The lease of the execution that wrote it last: it counts for that one alone.';

COMMENT ON COLUMN pgflow.artifacts.kind IS 'input, output, document or report.';

COMMENT ON COLUMN pgflow.artifacts.schema IS 'The schema that it was held to, if that has a name.';

COMMENT ON COLUMN pgflow.artifacts.size IS 'In bytes.';

COMMENT ON COLUMN pgflow.artifacts.sha256 IS 'Hex SHA-256 of the whole content: of the bytes, the text in UTF-8, or the database''s text of the JSON.';

COMMENT ON COLUMN pgflow.artifacts.validation_errors IS 'All that is wrong with it: path and message of each.';

CREATE TABLE pgflow.budget_due (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    due_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE pgflow.budget_due IS 'When the tick looks whether a budget''s seconds are over, at the earliest: nobody writes here when a run is started, so it looks again if they are not.';

CREATE VIEW pgflow.budgets WITH (security_barrier='true') AS
 SELECT project_id,
    run_id,
    handler,
    state,
    usd,
    used_usd,
    tokens,
    used_tokens,
    seconds,
    used_seconds,
    on_breach,
    assignee,
    assignee_role,
    outer_run_id,
    exceeded_at,
    task_id
   FROM ( SELECT b.project_id,
            b.run_id,
            COALESCE(r.handler, f.handler) AS handler,
            COALESCE(r.state, f.state) AS state,
            b.usd,
            b.used_usd,
            b.tokens,
            b.used_tokens,
            b.seconds,
            (EXTRACT(epoch FROM (COALESCE(b.asked_at, f.finished_at, pgflow.now()) - COALESCE(r.first_started_at, f.first_started_at))) - b.waited_seconds) AS used_seconds,
            b.on_breach,
            b.assignee,
            b.assignee_role,
            b.outer_run_id,
            b.exceeded_at,
            b.task_id
           FROM ((pgflow.budget b
             LEFT JOIN pgflow.run r ON (((r.project_id = b.project_id) AND (r.run_id = b.run_id))))
             LEFT JOIN pgflow.run_finished f ON (((f.project_id = b.project_id) AND (f.run_id = b.run_id))))) u
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.budgets IS 'Runs that have a budget, and what they and all below them have used of it.';

COMMENT ON COLUMN pgflow.budgets.usd IS 'The bound; null: there is none.';

COMMENT ON COLUMN pgflow.budgets.used_usd IS 'The sum of the known costs of calls of models.';

COMMENT ON COLUMN pgflow.budgets.used_tokens IS 'Input and output tokens of calls of models.';

COMMENT ON COLUMN pgflow.budgets.used_seconds IS 'Since its first start, waits included, but for those for a raise of this budget.';

COMMENT ON COLUMN pgflow.budgets.on_breach IS 'fail: the run fails with E-RUN-009; ask: it is paused, and a task asks to raise the budget.';

COMMENT ON COLUMN pgflow.budgets.outer_run_id IS 'The next run above it that has a budget; what counts here counts there too.';

COMMENT ON COLUMN pgflow.budgets.exceeded_at IS 'When it was exceeded last.';

COMMENT ON COLUMN pgflow.budgets.task_id IS 'The open task that asks to raise it.';

CREATE TABLE pgflow.channel_definition (
    project_id text NOT NULL COLLATE pg_catalog."C",
    flow text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    channel text NOT NULL COLLATE pg_catalog."C",
    reducer text NOT NULL COLLATE pg_catalog."C",
    default_value jsonb
);

COMMENT ON TABLE pgflow.channel_definition IS 'The channels of each version of a flow. Rows never change.';

COMMENT ON COLUMN pgflow.channel_definition.reducer IS 'How what is written changes the value: last, append, merge, add, min, max, union, or one of table reducer.';

COMMENT ON COLUMN pgflow.channel_definition.default_value IS 'Its value before anything is written; null: none.';

CREATE TABLE pgflow.channel_write (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    step text NOT NULL COLLATE pg_catalog."C",
    element integer NOT NULL,
    version integer NOT NULL,
    nth integer NOT NULL,
    channel text NOT NULL COLLATE pg_catalog."C",
    value jsonb NOT NULL,
    CONSTRAINT value_is_at_most_1_mb CHECK ((pg_column_size(value) <= 1048576))
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.channel_write IS 'What completed steps of flows wrote to channels. A write counts as long as its step does, since the super-step of that.';

COMMENT ON COLUMN pgflow.channel_write.nth IS 'Its place among the writes of the step.';

CREATE TABLE pgflow.checkpoint (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    number integer NOT NULL,
    super_step integer NOT NULL,
    event_no integer,
    label text NOT NULL COLLATE pg_catalog."C",
    at timestamp with time zone NOT NULL,
    changed jsonb NOT NULL,
    snapshot jsonb,
    payload jsonb
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.checkpoint IS 'The state values of flows, a line per super-step and per pause: what it changed, and all values in each fiftieth. Function history has the values of each.';

COMMENT ON COLUMN pgflow.checkpoint.event_no IS 'The number of its line checkpoint.saved, which view timeline derives; null: it has an event.';

COMMENT ON COLUMN pgflow.checkpoint.label IS 'What made it: steps, layer:N, update, rollback:STEP, goto:STEP, retry, fork; or where the flow was paused, without a change: interrupt:STEP, before:STEP, after:STEP.';

COMMENT ON COLUMN pgflow.checkpoint.changed IS 'By channel, what was written, reduced among itself; for a registered reducer the new value.';

COMMENT ON COLUMN pgflow.checkpoint.snapshot IS 'All values; null: those of the line before with what was changed.';

COMMENT ON COLUMN pgflow.checkpoint.payload IS 'Of a pause: what the person is shown.';

CREATE TABLE pgflow.error_code (
    error_code text NOT NULL COLLATE pg_catalog."C",
    class text NOT NULL,
    description text NOT NULL,
    CONSTRAINT error_code_class_is_known CHECK ((class = ANY (ARRAY['transient'::text, 'human_required'::text, 'fatal'::text])))
);

COMMENT ON TABLE pgflow.error_code IS 'Why a run ended without completing: run.error_code.';

COMMENT ON COLUMN pgflow.error_code.class IS 'transient: a retry may help; human_required: a person decided or must; fatal: change something first.';

CREATE TABLE pgflow.event_type (
    type text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL
);

COMMENT ON TABLE pgflow.event_type IS 'The engine''s own event types. emit() refuses them, so that a timeline cannot be forged.';

CREATE TABLE pgflow.flow (
    project_id text NOT NULL COLLATE pg_catalog."C",
    flow text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    CONSTRAINT flow_is_a_plain_name CHECK ((flow ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'::text))
);

COMMENT ON TABLE pgflow.flow IS 'Each flow with the version that new runs of it get: the one that was defined last.';

CREATE VIEW pgflow.flow_steps WITH (security_barrier='true') AS
 SELECT project_id,
    flow_run_id,
    flow,
    flow_version,
    step,
    element,
    version,
    seq,
    type,
    handler,
    state,
    attempts,
    ready_at,
    started_at,
    ended_at,
    error_code,
    error_detail,
    output,
    run_id,
    needs,
    "join",
    super_step,
    voided_at,
    elements,
    elements_left,
    task_id,
    visits
   FROM ( SELECT f.project_id,
            f.run_id AS flow_run_id,
            f.handler AS flow,
            f.flow_version,
            d.step,
            COALESCE(s.element, 0) AS element,
            COALESCE(s.version, 0) AS version,
            d.place AS seq,
            COALESCE(d.step_type, d.type) AS type,
            d.handler,
                CASE
                    WHEN ((s.voided_at IS NOT NULL) AND (s.state <> 'rejected'::text)) THEN 'voided'::text
                    WHEN (s.state = 'running'::text) THEN
                    CASE
                        WHEN (s.elements IS NOT NULL) THEN 'running'::text
                        WHEN (c.state = ANY (ARRAY['waiting_tool'::text, 'waiting_approval'::text, 'waiting_event'::text, 'paused'::text])) THEN 'waiting'::text
                        WHEN (c.state = 'running'::text) THEN 'running'::text
                        ELSE 'pending'::text
                    END
                    WHEN ((s.state IS NULL) AND (f.finished_at IS NOT NULL)) THEN 'cancelled'::text
                    ELSE COALESCE(s.state, 'pending'::text)
                END AS state,
            COALESCE(NULLIF(s.attempts, 0), (c.attempt + ((c.state = 'running'::text))::integer), 0) AS attempts,
            COALESCE(s.ready_at, s.ended_at) AS ready_at,
            COALESCE(c.first_started_at, e.first_started_at) AS started_at,
            s.ended_at,
            s.error_code,
            s.error_detail,
                CASE
                    WHEN (s.elements IS NULL) THEN s.output
                    WHEN (s.state = 'completed'::text) THEN ( SELECT COALESCE(jsonb_agg(o.output ORDER BY o.element), '[]'::jsonb) AS "coalesce"
                       FROM pgflow.flow_step o
                      WHERE ((o.project_id = s.project_id) AND (o.run_id = s.run_id) AND (o.step = s.step) AND (o.element > 0) AND (o.version = s.version)))
                    ELSE NULL::jsonb
                END AS output,
            s.child_run_id AS run_id,
            d.needs,
            d.join_rule AS "join",
            s.super_step,
            s.voided_at,
            s.elements,
            s.elements_left,
            ( SELECT t.task_id
                   FROM pgflow.task t
                  WHERE ((t.project_id = f.project_id) AND (t.run_id = s.child_run_id))
                  ORDER BY (t.voided_at IS NOT NULL), t.created_at DESC
                 LIMIT 1) AS task_id,
            ( SELECT count(*) AS count
                   FROM pgflow.flow_step v
                  WHERE ((v.project_id = f.project_id) AND (v.run_id = f.run_id) AND (v.step = d.step) AND (v.element = COALESCE(s.element, 0)) AND (num_nonnulls(v.ready_at, v.child_run_id, v.elements) > 0))) AS visits
           FROM ((((( SELECT r.project_id,
                    r.run_id,
                    r.handler,
                    r.flow_version,
                    NULL::timestamp with time zone AS finished_at
                   FROM pgflow.run r
                  WHERE (r.kind = 'flow'::text)
                UNION ALL
                 SELECT r.project_id,
                    r.run_id,
                    r.handler,
                    r.flow_version,
                    r.finished_at
                   FROM pgflow.run_finished r
                  WHERE (r.kind = 'flow'::text)) f
             CROSS JOIN LATERAL ( SELECT d_1.step,
                    d_1.place,
                    d_1.step_type,
                    d_1.type,
                    d_1.handler,
                    d_1.needs,
                    d_1.join_rule,
                    NULL::timestamp with time zone AS withdrawn_at
                   FROM pgflow.step_definition d_1
                  WHERE ((d_1.project_id = f.project_id) AND (d_1.flow = f.handler) AND (d_1.version = f.flow_version) AND (NOT (EXISTS ( SELECT
                           FROM pgflow.run_step o
                          WHERE ((o.project_id = f.project_id) AND (o.run_id = f.run_id) AND (o.step = d_1.step))))))
                UNION ALL
                 SELECT o.step,
                    o.place,
                    o.step_type,
                    o.type,
                    o.handler,
                    o.needs,
                    o.join_rule,
                    o.withdrawn_at
                   FROM pgflow.run_step o
                  WHERE ((o.project_id = f.project_id) AND (o.run_id = f.run_id))) d)
             LEFT JOIN pgflow.flow_step s ON (((s.project_id = f.project_id) AND (s.run_id = f.run_id) AND (s.step = d.step))))
             LEFT JOIN pgflow.run c ON (((c.project_id = f.project_id) AND (c.run_id = s.child_run_id))))
             LEFT JOIN pgflow.run_finished e ON (((e.project_id = f.project_id) AND (e.run_id = s.child_run_id))))
          WHERE ((d.withdrawn_at IS NULL) OR (s.step IS NOT NULL))) u
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.flow_steps IS 'The steps of each run of a flow. Select by flow_run_id, order by seq.';

COMMENT ON COLUMN pgflow.flow_steps.flow_run_id IS 'The run of the flow.';

COMMENT ON COLUMN pgflow.flow_steps.element IS 'From 1 for each element of a step that is done for each; 0: the step itself.';

COMMENT ON COLUMN pgflow.flow_steps.version IS 'The round of the flow in which it was made ready.';

COMMENT ON COLUMN pgflow.flow_steps.seq IS 'Its place in the definition.';

COMMENT ON COLUMN pgflow.flow_steps.type IS 'The step type that its definition names, view step_types has them; else handler.';

COMMENT ON COLUMN pgflow.flow_steps.state IS 'pending, running, waiting, completed, failed, skipped, rejected, expired, cancelled or voided; waiting: its run waits or is paused; voided: it was done, and is done again.';

COMMENT ON COLUMN pgflow.flow_steps.attempts IS 'How often it was executed.';

COMMENT ON COLUMN pgflow.flow_steps.ready_at IS 'When its run was made.';

COMMENT ON COLUMN pgflow.flow_steps.started_at IS 'When its run was leased for the first time.';

COMMENT ON COLUMN pgflow.flow_steps.run_id IS 'The run that executes it: its input, timeline, journal and tasks are those of that run.';

COMMENT ON COLUMN pgflow.flow_steps.super_step IS 'Which firing of the flow took note of its end.';

COMMENT ON COLUMN pgflow.flow_steps.elements IS 'How many elements it is done for.';

COMMENT ON COLUMN pgflow.flow_steps.elements_left IS 'How many of them have not ended.';

COMMENT ON COLUMN pgflow.flow_steps.task_id IS 'The task that it opened last.';

COMMENT ON COLUMN pgflow.flow_steps.visits IS 'How often it was begun, in all versions: once more each time that the flow came back to it.';

CREATE VIEW pgflow.flows WITH (security_barrier='true') AS
 SELECT v.project_id,
    v.flow,
    v.version,
    (v.version = f.version) AS is_current,
    encode(v.sha256, 'hex'::text) AS sha256,
    v.created_at,
    v.created_by,
    jsonb_array_length((v.definition -> 'steps'::text)) AS steps,
    v.definition,
    v.step_types
   FROM (pgflow.flow_version v
     JOIN pgflow.flow f USING (project_id, flow))
  WHERE (v.project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.flows IS 'Flows, all versions. pgflow.start(flow) runs the current one.';

COMMENT ON COLUMN pgflow.flows.is_current IS 'Whether new runs get this version.';

COMMENT ON COLUMN pgflow.flows.sha256 IS 'Hex SHA-256 of the definition and its step_types, by which the same content is the same version.';

COMMENT ON COLUMN pgflow.flows.steps IS 'How many steps it has.';

COMMENT ON COLUMN pgflow.flows.definition IS 'What define_flow was given, without what is said by default.';

COMMENT ON COLUMN pgflow.flows.step_types IS 'What the registered types that it names said when it was defined.';

CREATE TABLE pgflow.handler (
    project_id text NOT NULL COLLATE pg_catalog."C",
    handler text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    max_attempts integer,
    timeout interval,
    retry_base interval DEFAULT '00:00:01'::interval NOT NULL,
    retry_factor double precision DEFAULT 2 NOT NULL,
    retry_max interval DEFAULT '01:00:00'::interval NOT NULL,
    undo_on text[] DEFAULT '{}'::text[] NOT NULL,
    registered_at timestamp with time zone NOT NULL,
    CONSTRAINT handler_is_at_most_200_characters CHECK (((char_length(handler) >= 1) AND (char_length(handler) <= 200))),
    CONSTRAINT max_attempts_is_1_to_1000 CHECK (((max_attempts >= 1) AND (max_attempts <= 1000))),
    CONSTRAINT queue_is_at_most_100_characters CHECK (((char_length(queue) >= 1) AND (char_length(queue) <= 100))),
    CONSTRAINT retry_base_is_at_most_30_days CHECK (((retry_base >= '00:00:00'::interval) AND (retry_base <= '30 days'::interval))),
    CONSTRAINT retry_factor_is_1_to_100 CHECK (((retry_factor >= (1)::double precision) AND (retry_factor <= (100)::double precision))),
    CONSTRAINT retry_max_is_at_most_30_days CHECK (((retry_max >= '00:00:00'::interval) AND (retry_max <= '30 days'::interval))),
    CONSTRAINT timeout_is_at_most_30_days CHECK (((timeout > '00:00:00'::interval) AND (timeout <= '30 days'::interval))),
    CONSTRAINT undo_on_names_ends CHECK ((undo_on <@ ARRAY['failed'::text, 'cancelled'::text, 'timeout'::text]))
);

COMMENT ON TABLE pgflow.handler IS 'What workers said about their handlers when they registered: the defaults of runs enqueued by any client, in any language.';

COMMENT ON COLUMN pgflow.handler.retry_base IS 'Delay before the second execution; the n-th retry waits base * factor^(n-1), at most retry_max, each time varied by up to a half.';

COMMENT ON COLUMN pgflow.handler.undo_on IS 'Ends after which the steps of a run are undone, by a run of their own.';

CREATE TABLE pgflow.idle_worker (
    project_id text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    worker_id text NOT NULL COLLATE pg_catalog."C"
);

COMMENT ON TABLE pgflow.idle_worker IS 'Workers that wait for a hint. Only then does new work cost a NOTIFY, which takes a lock on the whole instance at commit.';

CREATE TABLE pgflow.vote (
    project_id text NOT NULL COLLATE pg_catalog."C",
    task_id uuid NOT NULL,
    voter text NOT NULL COLLATE pg_catalog."C",
    action text NOT NULL COLLATE pg_catalog."C",
    login text NOT NULL,
    at timestamp with time zone NOT NULL,
    comment text,
    CONSTRAINT action_is_known CHECK ((action = ANY (ARRAY['approved'::text, 'rejected'::text])))
);

COMMENT ON TABLE pgflow.vote IS 'Who voted how on tasks that more than one has to approve.';

CREATE VIEW pgflow.inbox WITH (security_barrier='true') AS
 SELECT t.task_id,
    t.project_id AS project,
    t.run_id,
    r.handler,
    t.key AS step,
    t.round,
    t.kind,
    t.title,
    t.payload,
    t.form AS form_schema,
    t.assignee_role,
    t.assignee,
    t.claimed_by,
    t.requested_by,
    t.created_at,
    t.due_at,
    t.policy,
    t.escalate_to,
    t.on_reject,
    t.quorum,
    t.quorum_of,
    ( SELECT count(*) AS count
           FROM pgflow.vote v
          WHERE ((v.project_id = t.project_id) AND (v.task_id = t.task_id))) AS votes,
    t.replaces,
    t.state,
    t.not_requester,
    f.run_id AS flow_run_id,
    f.handler AS flow,
    f.flow_version,
    r.deadlines_held_at,
    f.super_step
   FROM ((pgflow.task t
     JOIN pgflow.run r USING (project_id, run_id))
     LEFT JOIN pgflow.run f ON (((f.project_id = r.project_id) AND (f.run_id =
        CASE
            WHEN (r.kind = 'flow'::text) THEN r.run_id
            WHEN (r.step IS NOT NULL) THEN r.parent_run_id
            ELSE NULL::uuid
        END))))
  WHERE ((t.state = 'open'::text) AND (t.project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[])));

COMMENT ON VIEW pgflow.inbox IS 'The open tasks. Decide with pgflow.approve(task_id, comment), pgflow.reject or, for what is no approval, pgflow.answer(task_id, data).';

COMMENT ON COLUMN pgflow.inbox.step IS 'The key under which the handler asked.';

COMMENT ON COLUMN pgflow.inbox.round IS 'How often the run was rolled back before.';

COMMENT ON COLUMN pgflow.inbox.payload IS 'What the person is to look at.';

COMMENT ON COLUMN pgflow.inbox.form_schema IS 'What an answer has to fit.';

COMMENT ON COLUMN pgflow.inbox.assignee_role IS 'If a database role of that name exists, its members decide; else whom the application names.';

COMMENT ON COLUMN pgflow.inbox.assignee IS 'Whoever may decide it: a role, a login or a user.';

COMMENT ON COLUMN pgflow.inbox.claimed_by IS 'Who works on it; others wait.';

COMMENT ON COLUMN pgflow.inbox.requested_by IS 'The actor that enqueued the run, or whom it named.';

COMMENT ON COLUMN pgflow.inbox.due_at IS 'After this it can no longer be decided.';

COMMENT ON COLUMN pgflow.inbox.policy IS 'What happens to the run then; table task_policy explains it.';

COMMENT ON COLUMN pgflow.inbox.on_reject IS 'What a rejection does to the run: cancel, fail, or resume, where the handler is told.';

COMMENT ON COLUMN pgflow.inbox.quorum IS 'So many have to approve.';

COMMENT ON COLUMN pgflow.inbox.quorum_of IS 'So many are asked; null: one rejection rejects.';

COMMENT ON COLUMN pgflow.inbox.votes IS 'How many have voted.';

COMMENT ON COLUMN pgflow.inbox.replaces IS 'The task that stood here before something else was asked.';

COMMENT ON COLUMN pgflow.inbox.not_requester IS 'Whether who requested it may not decide it.';

COMMENT ON COLUMN pgflow.inbox.flow_run_id IS 'The run of the flow, if it was a step that asked, or the flow stands at a breakpoint.';

COMMENT ON COLUMN pgflow.inbox.deadlines_held_at IS 'Since when due_at stands still; it is moved on by that span when the run is resumed.';

COMMENT ON COLUMN pgflow.inbox.super_step IS 'How often ended steps of the flow made others ready.';

CREATE TABLE pgflow.journal_voided (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    round integer NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL COLLATE pg_catalog."C",
    undo boolean NOT NULL,
    replaced boolean DEFAULT false NOT NULL,
    lease_no integer,
    attempt integer,
    event_no integer NOT NULL,
    at timestamp with time zone NOT NULL,
    digest bytea,
    value jsonb
)
PARTITION BY RANGE (run_id);

COMMENT ON TABLE pgflow.journal_voided IS 'Entries that count no more: rolled back, or asked again with something else. round is the run''s round in which they counted.';

COMMENT ON COLUMN pgflow.journal_voided.undo IS 'The step has something that undoes it.';

COMMENT ON COLUMN pgflow.journal_voided.replaced IS 'Somebody gave the entry another value; the entry itself counts.';

CREATE VIEW pgflow.journal_entries WITH (security_barrier='true') AS
 SELECT project_id,
    run_id,
    round,
    key,
    kind,
    event_no,
    at,
    value,
    voided
   FROM ( SELECT j.project_id,
            j.run_id,
            NULL::integer AS round,
            j.key,
            j.kind,
            j.event_no,
            j.at,
            j.value,
            false AS voided
           FROM pgflow.journal j
        UNION ALL
         SELECT v.project_id,
            v.run_id,
            v.round,
            v.key,
            v.kind,
            v.event_no,
            v.at,
            v.value,
            true
           FROM pgflow.journal_voided v) e
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.journal_entries IS 'What each run has learned, and what of it was voided. Select by run_id, order by event_no.';

COMMENT ON COLUMN pgflow.journal_entries.round IS 'For voided entries, the round in which they counted.';

COMMENT ON COLUMN pgflow.journal_entries.key IS 'What rollback_to, fork and set_breakpoint name.';

COMMENT ON COLUMN pgflow.journal_entries.event_no IS 'The order; that of the timeline, negative where it was copied from another run.';

CREATE TABLE pgflow.lease (
    project_id text NOT NULL COLLATE pg_catalog."C",
    worker_id text NOT NULL COLLATE pg_catalog."C",
    batch bigint NOT NULL,
    leased_at timestamp with time zone NOT NULL,
    run_ids uuid[] NOT NULL
);
ALTER TABLE ONLY pgflow.lease ALTER COLUMN run_ids SET STORAGE EXTERNAL;

COMMENT ON TABLE pgflow.lease IS 'The runs that each acquire leased to a worker. Every running run is in one of its worker''s rows, which may name others that ended since: beat drops those.';

COMMENT ON COLUMN pgflow.lease.leased_at IS 'When the first of them was leased.';

CREATE SEQUENCE pgflow.lease_batch
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE pgflow.lease_batch IS 'Numbers the rows of table lease.';

CREATE TABLE pgflow.left_behind (
    project_id text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    due_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE pgflow.left_behind IS 'Runs that ended while others held some of their children. The tick ends those.';

CREATE VIEW pgflow.model_calls WITH (security_barrier='true') AS
 SELECT project_id,
    run_id,
    call_key,
    step,
    ( SELECT max(s.version) AS max
           FROM (( SELECT r.parent_run_id,
                    r.step
                   FROM pgflow.run r
                  WHERE ((r.project_id = u.project_id) AND (r.run_id = u.run_id))
                UNION ALL
                 SELECT f.parent_run_id,
                    f.step
                   FROM pgflow.run_finished f
                  WHERE ((f.project_id = u.project_id) AND (f.run_id = u.run_id))) o
             JOIN pgflow.flow_step s ON (((s.project_id = u.project_id) AND (s.run_id = o.parent_run_id) AND (s.step = o.step) AND (s.child_run_id = u.run_id))))) AS version,
    attempt,
    lease_no,
    at,
    actor,
    model,
    role,
    thread_id,
    turn_index,
    input_tokens,
    output_tokens,
    cached_tokens,
    reasoning_tokens,
    cost_usd_input,
    cost_usd_output,
    cost_usd_total,
    latency_ms,
    status,
    error_code,
    request_id
   FROM pgflow.usage u
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.model_calls IS 'What handlers said of their calls of models. runs.cost_usd has the sum of each run.';

COMMENT ON COLUMN pgflow.model_calls.step IS 'The key of the step in which it was called; null outside of steps.';

COMMENT ON COLUMN pgflow.model_calls.version IS 'Of the run of a step of a flow: which version of the step it is; it grows with each rollback.';

COMMENT ON COLUMN pgflow.model_calls.attempt IS 'How many executions had failed before.';

COMMENT ON COLUMN pgflow.model_calls.at IS 'When it was recorded, shortly after the call.';

COMMENT ON COLUMN pgflow.model_calls.actor IS 'Which agent called, as the handler names it.';

COMMENT ON COLUMN pgflow.model_calls.role IS 'As what it was called, as the handler names it.';

COMMENT ON COLUMN pgflow.model_calls.thread_id IS 'The conversation, as the handler names it.';

COMMENT ON COLUMN pgflow.model_calls.cost_usd_total IS 'As it was told, else by the price of the model. Null: unknown, and in no sum.';

COMMENT ON COLUMN pgflow.model_calls.status IS 'ok or failed; a failed call may cost, too.';

COMMENT ON COLUMN pgflow.model_calls.request_id IS 'What the provider calls the call.';

CREATE TABLE pgflow.move (
    kind text NOT NULL COLLATE pg_catalog."C",
    from_state text COLLATE pg_catalog."C",
    to_state text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT move_kind_is_known CHECK ((kind = ANY (ARRAY['handler'::text, 'flow'::text, 'step_wait'::text])))
);

COMMENT ON TABLE pgflow.move IS 'The legal moves of the state machine. Nothing else is possible, whoever tries it.';

COMMENT ON COLUMN pgflow.move.from_state IS 'Null: the state may be a run''s first.';

CREATE TABLE pgflow.outbox (
    project_id text NOT NULL COLLATE pg_catalog."C",
    place bigint NOT NULL,
    run_id uuid NOT NULL,
    event_no integer NOT NULL
);

COMMENT ON TABLE pgflow.outbox IS 'The events that subscriptions have still to read, in their order. What they say is in view timeline. Empty in projects without a subscription.';

COMMENT ON COLUMN pgflow.outbox.place IS 'The id of the transaction that wrote the event, or the place of the event before it in the same run, if that is higher: an order in which nothing appears below a place once all transactions with lower ids have ended.';

CREATE VIEW pgflow.prices WITH (security_barrier='true') AS
 SELECT project_id,
    model,
    valid_from,
    lead(valid_from) OVER (PARTITION BY project_id, model ORDER BY valid_from) AS valid_until,
    input_per_1k_usd,
    output_per_1k_usd,
    cached_per_1k_usd,
    defined_at,
    defined_by
   FROM pgflow.price p
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.prices IS 'What a thousand tokens of each model cost, and when.';

COMMENT ON COLUMN pgflow.prices.valid_until IS 'When the next price begins; null: none does.';

COMMENT ON COLUMN pgflow.prices.cached_per_1k_usd IS 'Of the cached ones among the input tokens; null: as the others.';

CREATE TABLE pgflow.project (
    project_id text NOT NULL COLLATE pg_catalog."C",
    members_only boolean DEFAULT true NOT NULL,
    inbox_watched_until timestamp with time zone,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT project_id_is_a_plain_name CHECK ((project_id ~ '^[A-Za-z0-9_.-]{1,63}$'::text))
);

COMMENT ON TABLE pgflow.project IS 'Tenants. Every other key begins with project_id.';

COMMENT ON COLUMN pgflow.project.members_only IS 'False: every login with a pgflow role may use it, as the project default, which needs no set-up.';

COMMENT ON COLUMN pgflow.project.inbox_watched_until IS 'Until then changes of its inbox are hinted at: somebody asked.';

CREATE TABLE pgflow.project_member (
    project_id text NOT NULL COLLATE pg_catalog."C",
    member name NOT NULL
);

COMMENT ON TABLE pgflow.project_member IS 'Database roles that may use a project; logins that are members of such a role may as well.';

CREATE TABLE pgflow.slot (
    project_id text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    lease_no integer NOT NULL
);

COMMENT ON TABLE pgflow.slot IS 'The leases of queues with max_concurrent. A slot goes in the transaction in which its lease does, whoever ends that.';

CREATE TABLE pgflow.worker (
    project_id text NOT NULL COLLATE pg_catalog."C",
    worker_id text NOT NULL COLLATE pg_catalog."C",
    queues text[] NOT NULL COLLATE pg_catalog."C",
    concurrency integer NOT NULL,
    host text,
    pid integer,
    version text,
    registered_by text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    stopped_at timestamp with time zone,
    last_beat_at timestamp with time zone,
    CONSTRAINT a_worker_has_queues CHECK ((cardinality(queues) > 0)),
    CONSTRAINT concurrency_is_1_to_10000 CHECK (((concurrency >= 1) AND (concurrency <= 10000))),
    CONSTRAINT worker_id_is_at_most_200_characters CHECK (((char_length(worker_id) >= 1) AND (char_length(worker_id) <= 200)))
);

COMMENT ON TABLE pgflow.worker IS 'Worker processes, by an id such as host:hex. The tick takes away those that are gone for as long as finished runs are kept.';

COMMENT ON COLUMN pgflow.worker.last_beat_at IS 'When it was last heard of, where it is dead and its beat has been forgotten.';

CREATE TABLE pgflow.worker_beat (
    project_id text NOT NULL COLLATE pg_catalog."C",
    worker_id text NOT NULL COLLATE pg_catalog."C",
    beat_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE pgflow.worker_beat IS 'When each worker was last heard of. All its leases expire together, when this is older than the queue''s lease_ttl.';

CREATE VIEW pgflow.queue_stats WITH (security_barrier='true') AS
 SELECT q.project_id,
    q.queue,
    q.paused_at,
    q.max_concurrent,
    q.lease_ttl,
    q.max_attempts,
    q.timeout,
    COALESCE(s.scheduled, (0)::bigint) AS scheduled,
    COALESCE(s.pending, (0)::bigint) AS pending,
    COALESCE(s.running, (0)::bigint) AS running,
    COALESCE(s.waiting, (0)::bigint) AS waiting,
    COALESCE(s.paused, (0)::bigint) AS paused,
    (q.max_concurrent - ( SELECT count(*) AS count
           FROM pgflow.slot o
          WHERE ((o.project_id = q.project_id) AND (o.queue = q.queue)))) AS available_slots,
    s.oldest_pending_at,
    ( SELECT count(*) AS count
           FROM (pgflow.worker_beat b
             JOIN pgflow.worker w USING (project_id, worker_id))
          WHERE ((b.project_id = q.project_id) AND (q.queue = ANY (w.queues)) AND (b.beat_at > (pgflow.now() - q.lease_ttl)))) AS workers,
    q.retention,
    q.key_retention
   FROM (pgflow.queue q
     LEFT JOIN ( SELECT r.project_id,
            r.queue,
            count(*) FILTER (WHERE (r.state = 'scheduled'::text)) AS scheduled,
            count(*) FILTER (WHERE (r.state = 'pending'::text)) AS pending,
            count(*) FILTER (WHERE ((r.state = 'running'::text) AND (r.kind = 'handler'::text))) AS running,
            count(*) FILTER (WHERE (r.state ~~ 'waiting%'::text)) AS waiting,
            count(*) FILTER (WHERE (r.state = 'paused'::text)) AS paused,
            min(r.created_at) FILTER (WHERE (r.state = 'pending'::text)) AS oldest_pending_at
           FROM pgflow.run r
          GROUP BY r.project_id, r.queue) s ON (((s.project_id = q.project_id) AND (s.queue = q.queue))))
  WHERE (q.project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.queue_stats IS 'Each queue with its settings, its live runs by state and its live workers.';

COMMENT ON COLUMN pgflow.queue_stats.paused_at IS 'Since when no run of it is claimed.';

COMMENT ON COLUMN pgflow.queue_stats.max_concurrent IS 'At most so many of its runs are leased at once, over all hosts. Null: no limit.';

COMMENT ON COLUMN pgflow.queue_stats.lease_ttl IS 'A lease expires when its worker has not beaten for so long.';

COMMENT ON COLUMN pgflow.queue_stats.waiting IS 'Runs that wait for somebody or something.';

COMMENT ON COLUMN pgflow.queue_stats.paused IS 'Runs that are paused themselves.';

COMMENT ON COLUMN pgflow.queue_stats.available_slots IS 'max_concurrent less the leases that count; null without a limit.';

COMMENT ON COLUMN pgflow.queue_stats.oldest_pending_at IS 'When the oldest of its pending runs was created.';

COMMENT ON COLUMN pgflow.queue_stats.workers IS 'Live workers that take runs of it.';

COMMENT ON COLUMN pgflow.queue_stats.retention IS 'How long its finished runs are kept. Null: as the installation says.';

COMMENT ON COLUMN pgflow.queue_stats.key_retention IS 'How much longer than their runs idempotency keys hold.';

CREATE TABLE pgflow.reducer (
    reducer text NOT NULL COLLATE pg_catalog."C",
    function text NOT NULL COLLATE pg_catalog."C",
    defined_at timestamp with time zone NOT NULL,
    defined_by text NOT NULL
);

COMMENT ON TABLE pgflow.reducer IS 'Functions that administrators registered for channels, beside the built-in reducers.';

COMMENT ON COLUMN pgflow.reducer.function IS 'With its schema and its arguments: of (old jsonb, new jsonb), immutable, returns jsonb.';

CREATE TABLE pgflow.refusal (
    sqlstate text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    description text NOT NULL,
    CONSTRAINT refusal_sqlstate_is_ours CHECK ((sqlstate ~ '^PF[1-5][0-9]{2}$'::text))
);

COMMENT ON TABLE pgflow.refusal IS 'The SQLSTATEs of the engine: PF1xx bad request, PF2xx move refused, PF3xx lease lost, PF4xx conflict, PF5xx not allowed. The Python package has one class for each.';

CREATE TABLE pgflow.run_key (
    project_id text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    handler text NOT NULL COLLATE pg_catalog."C",
    input_sha256 bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    CONSTRAINT key_is_at_most_500_characters CHECK (((char_length(key) >= 1) AND (char_length(key) <= 500)))
);

COMMENT ON TABLE pgflow.run_key IS 'Idempotency keys. They hold after the run is finished. Keys that begin with pgflow: are the engine''s.';

COMMENT ON COLUMN pgflow.run_key.expires_at IS 'Set when its run is taken away by retention: until then the key holds. Null: its run is kept.';

CREATE SEQUENCE pgflow.run_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE pgflow.run_seq IS 'The order in which runs became ready.';

CREATE VIEW pgflow.runs WITH (security_barrier='true') AS
 SELECT project_id,
    run_id,
    handler,
    queue,
    state,
    priority,
    attempt_count,
    max_attempts,
    lease_no,
    worker_id,
    last_worker_id,
    lease_until,
    heartbeat_at,
    pause_reason,
    round,
    breakpoints,
    feedback,
    waits_for,
    created_at,
    run_at,
    first_started_at,
    started_at,
    finished_at,
    timeout,
    deadline,
    error_code,
    error_detail,
    last_error,
    input,
    input_sha256,
    output,
    output_sha256,
    cost_usd,
    step_count,
    tags,
    idempotency_key,
    correlation_id,
    retry_of,
    undo_of,
    forked_from,
    parent_run_id,
    parent_key,
    root_run_id,
    kind,
    created_by,
    ended_by,
    step,
    flow_version,
    super_step,
    deadlines_held_at,
    final_report,
    stands_at,
    bindings
   FROM ( SELECT r.project_id,
            r.run_id,
            r.handler,
            r.queue,
            r.state,
            r.priority,
            r.attempt AS attempt_count,
            r.max_attempts,
            r.lease_no,
            r.worker_id,
            NULL::text AS last_worker_id,
            (b.beat_at + q.lease_ttl) AS lease_until,
            b.beat_at AS heartbeat_at,
            r.pause_reason,
            r.round,
            r.breakpoints,
            r.feedback,
            r.waits_for,
            r.created_at,
            r.run_at,
            r.first_started_at,
            r.leased_at AS started_at,
            NULL::timestamp with time zone AS finished_at,
            r.timeout,
            r.deadline,
            NULL::text AS error_code,
            NULL::text AS error_detail,
            r.last_error,
            r.input,
            encode(pgflow._sha256(
                CASE r.kind
                    WHEN 'flow'::text THEN ( SELECT jsonb_build_object('flow', encode(v.sha256, 'hex'::text), 'input', r.input) AS jsonb_build_object
                       FROM pgflow.flow_version v
                      WHERE ((v.project_id = r.project_id) AND (v.flow = r.handler) AND (v.version = r.flow_version)))
                    ELSE r.input
                END), 'hex'::text) AS input_sha256,
            NULL::jsonb AS output,
            NULL::text AS output_sha256,
            r.cost_usd,
            r.step_count,
            r.tags,
            r.idempotency_key,
            COALESCE(r.correlation_id, (r.run_id)::text) AS correlation_id,
            r.retry_of,
            r.undo_of,
            r.forked_from,
            r.parent_run_id,
            r.parent_key,
            COALESCE(r.root_run_id, r.run_id) AS root_run_id,
            r.kind,
            r.created_by,
            NULL::text AS ended_by,
            r.step,
            r.flow_version,
            r.super_step,
            r.deadlines_held_at,
            NULL::uuid AS final_report,
                CASE
                    WHEN (r.pause_reason = ANY (ARRAY['interrupt'::text, 'before'::text, 'after'::text])) THEN ( SELECT jsonb_build_object('step', regexp_replace(t.key, '^breakpoint/\w+/'::text, ''::text), 'task_id', t.task_id, 'payload', t.payload) AS jsonb_build_object
                       FROM pgflow.task t
                      WHERE ((t.project_id = r.project_id) AND (t.run_id = r.run_id) AND (t.state = 'open'::text) AND (t.kind = ANY (ARRAY['breakpoint'::text, 'interrupt'::text])))
                      ORDER BY t.kind, t.key
                     LIMIT 1)
                    ELSE NULL::jsonb
                END AS stands_at,
            r.bindings
           FROM ((pgflow.run r
             LEFT JOIN pgflow.queue q ON (((q.project_id = r.project_id) AND (q.queue = r.queue) AND (r.state = 'running'::text))))
             LEFT JOIN pgflow.worker_beat b ON (((b.project_id = r.project_id) AND (b.worker_id = r.worker_id))))
        UNION ALL
         SELECT f.project_id,
            f.run_id,
            f.handler,
            f.queue,
            f.state,
            f.priority,
            f.attempt,
            f.max_attempts,
            f.lease_no,
            NULL::text,
            f.worker_id,
            NULL::timestamp with time zone,
            NULL::timestamp with time zone,
            NULL::text,
            f.round,
            NULL::text[],
            NULL::jsonb,
            NULL::text[],
            f.created_at,
            f.run_at,
            f.first_started_at,
            f.leased_at,
            f.finished_at,
            f.timeout,
            f.deadline,
            f.error_code,
            f.error_detail,
            f.last_error,
            f.input,
            encode(pgflow._sha256(
                CASE f.kind
                    WHEN 'flow'::text THEN ( SELECT jsonb_build_object('flow', encode(v.sha256, 'hex'::text), 'input', f.input) AS jsonb_build_object
                       FROM pgflow.flow_version v
                      WHERE ((v.project_id = f.project_id) AND (v.flow = f.handler) AND (v.version = f.flow_version)))
                    ELSE f.input
                END), 'hex'::text) AS encode,
            f.output,
            encode(pgflow._sha256(f.output), 'hex'::text) AS encode,
            f.cost_usd,
            f.step_count,
            f.tags,
            f.idempotency_key,
            COALESCE(f.correlation_id, (f.run_id)::text) AS "coalesce",
            f.retry_of,
            f.undo_of,
            f.forked_from,
            f.parent_run_id,
            f.parent_key,
            COALESCE(f.root_run_id, f.run_id) AS "coalesce",
            f.kind,
            f.created_by,
            f.ended_by,
            f.step,
            f.flow_version,
            f.super_step,
            NULL::timestamp with time zone,
                CASE
                    WHEN (f.kind = 'flow'::text) THEN f.run_id
                    ELSE NULL::uuid
                END AS "case",
            NULL::jsonb,
            f.bindings
           FROM pgflow.run_finished f) u
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.runs IS 'Live and finished runs. lease_until and heartbeat_at are those of the worker.';

COMMENT ON COLUMN pgflow.runs.attempt_count IS 'Executions that failed or were lost, held against max_attempts.';

COMMENT ON COLUMN pgflow.runs.lease_no IS 'How often it was leased. The fencing token of the present lease.';

COMMENT ON COLUMN pgflow.runs.worker_id IS 'The worker that holds it; null unless it is running.';

COMMENT ON COLUMN pgflow.runs.last_worker_id IS 'The worker that held it when it ended.';

COMMENT ON COLUMN pgflow.runs.lease_until IS 'When the lease expires, if its worker isn''t heard of before.';

COMMENT ON COLUMN pgflow.runs.heartbeat_at IS 'The worker''s last beat.';

COMMENT ON COLUMN pgflow.runs.pause_reason IS 'Why it is paused.';

COMMENT ON COLUMN pgflow.runs.waits_for IS 'Journal keys that it waits for; kept while it is paused.';

COMMENT ON COLUMN pgflow.runs.run_at IS 'Not before; for a retried run, when the next execution was due.';

COMMENT ON COLUMN pgflow.runs.first_started_at IS 'When it was leased for the first time.';

COMMENT ON COLUMN pgflow.runs.started_at IS 'When it was leased for the last time; live runs: the present lease.';

COMMENT ON COLUMN pgflow.runs.timeout IS 'Bound of one execution.';

COMMENT ON COLUMN pgflow.runs.deadline IS 'Bound of the whole run, waits included.';

COMMENT ON COLUMN pgflow.runs.error_code IS 'Why it ended without completing; table error_code explains it.';

COMMENT ON COLUMN pgflow.runs.last_error IS 'What the last failed execution raised (type, message, traceback); kept after a later success.';

COMMENT ON COLUMN pgflow.runs.input_sha256 IS 'Hex SHA-256 of the database''s text of the input; of a flow, of {"flow": its sha256, "input": the input}.';

COMMENT ON COLUMN pgflow.runs.output_sha256 IS 'Hex SHA-256 of the database''s text of the output.';

COMMENT ON COLUMN pgflow.runs.cost_usd IS 'What its executions said they cost.';

COMMENT ON COLUMN pgflow.runs.step_count IS 'Steps whose results were journalled.';

COMMENT ON COLUMN pgflow.runs.correlation_id IS 'Ties runs together; the run''s own id unless one was given. Retries share the first one''s.';

COMMENT ON COLUMN pgflow.runs.retry_of IS 'The finished run whose work it does again.';

COMMENT ON COLUMN pgflow.runs.root_run_id IS 'Itself, for a run without a parent.';

COMMENT ON COLUMN pgflow.runs.kind IS 'handler; flow: its name is in the column handler; step_wait: a step that no worker executes.';

COMMENT ON COLUMN pgflow.runs.created_by IS 'The actor that enqueued it.';

COMMENT ON COLUMN pgflow.runs.ended_by IS 'The actor that cancelled it or rejected its task.';

COMMENT ON COLUMN pgflow.runs.step IS 'The step of its parent, a flow, that it executes.';

COMMENT ON COLUMN pgflow.runs.flow_version IS 'Of a flow: its version.';

COMMENT ON COLUMN pgflow.runs.super_step IS 'Of a flow: how often ended steps have made others ready.';

COMMENT ON COLUMN pgflow.runs.deadlines_held_at IS 'Since when its deadlines stand still; they are moved on by that span when it is resumed.';

COMMENT ON COLUMN pgflow.runs.final_report IS 'Of a flow that has ended: pgflow.report(final_report) returns its report.';

COMMENT ON COLUMN pgflow.runs.stands_at IS 'The interrupt or the breakpoint that it is paused by: step, task_id and payload.';

COMMENT ON COLUMN pgflow.runs.bindings IS 'Of a flow: what its roles were bound to when it started: agent, version, sha256.';

CREATE VIEW pgflow.schemas WITH (security_barrier='true') AS
 SELECT v.project_id,
    v.schema,
    v.version,
    (v.version = s.version) AS is_current,
    encode(v.sha256, 'hex'::text) AS sha256,
    v.created_at,
    v.created_by,
    v.definition
   FROM (pgflow.schema_version v
     JOIN pgflow.artifact_schema s USING (project_id, schema))
  WHERE (v.project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.schemas IS 'The schemas of artifacts, all versions.';

COMMENT ON COLUMN pgflow.schemas.is_current IS 'Whether it is the version that was defined last.';

COMMENT ON COLUMN pgflow.schemas.sha256 IS 'Hex SHA-256 of the definition, by which the same content is the same version.';

CREATE TABLE pgflow.state (
    state text NOT NULL COLLATE pg_catalog."C",
    is_live boolean NOT NULL,
    description text NOT NULL
);

COMMENT ON TABLE pgflow.state IS 'The states of a run. Live ones are in table run, the others in run_finished.';

CREATE TABLE pgflow.step_budget (
    project_id text NOT NULL COLLATE pg_catalog."C",
    flow text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    step text NOT NULL COLLATE pg_catalog."C",
    budget jsonb NOT NULL
);

COMMENT ON TABLE pgflow.step_budget IS 'The budgets of steps, which few have: to look whether there are any is cheap.';

CREATE VIEW pgflow.step_types WITH (security_barrier='true') AS
 SELECT project_id,
    name,
    interactive,
    kind,
    handler,
    form_schema,
    default_due,
    default_policy,
    default_config,
    description,
    is_built_in,
    registered_at,
    registered_by
   FROM ( SELECT t.project_id,
            t.name,
            t.interactive,
            t.kind,
            t.handler,
            t.form_schema,
            t.default_due,
            t.default_policy,
            t.default_config,
            t.description,
            false AS is_built_in,
            t.registered_at,
            t.registered_by
           FROM pgflow.step_type t
        UNION ALL
         SELECT p.project_id,
            (b.name COLLATE "C") AS name,
            b.interactive,
            NULL::text,
            NULL::text,
            NULL::jsonb,
            NULL::interval,
            NULL::text,
            '{}'::jsonb,
            b.description,
            true,
            NULL::timestamp with time zone,
            NULL::text
           FROM (pgflow.project p
             CROSS JOIN ( VALUES ('approval_gate'::text,true,'A person approves.'::text), ('human_task'::text,true,'A person fills in a form.'::text), ('wait_event'::text,false,'A signal comes.'::text), ('timer'::text,false,'A time passes.'::text), ('flow'::text,false,'Another flow runs.'::text), ('pass'::text,false,'Nothing is done: its output is its input.'::text)) b(name, interactive, description))) u
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.step_types IS 'What a step may name as its type: the engine''s own types and those that were registered.';

COMMENT ON COLUMN pgflow.step_types.interactive IS 'Whether a person does it.';

COMMENT ON COLUMN pgflow.step_types.kind IS 'Which of the engine''s own types a registered one is made of, if a person does it.';

COMMENT ON COLUMN pgflow.step_types.handler IS 'Who executes it, if no person does it.';

COMMENT ON COLUMN pgflow.step_types.default_due IS 'How long a task of it may take, unless its step says otherwise.';

COMMENT ON COLUMN pgflow.step_types.default_policy IS 'What happens then; table task_policy explains it.';

COMMENT ON COLUMN pgflow.step_types.default_config IS 'The config of its steps, where they say nothing else.';

CREATE VIEW pgflow.subscriptions WITH (security_barrier='true') AS
 SELECT project_id,
    subscription,
    types,
    queue,
    correlation_id,
    pgflow._position(read_to) AS "position",
    ( SELECT count(*) AS count
           FROM pgflow.outbox o
          WHERE ((o.project_id = s.project_id) AND (ROW(o.place, o.run_id, o.event_no) > ROW((s.read_to).place, (s.read_to).run_id, (s.read_to).event_no)))) AS behind,
    batch_no,
    reader,
    held_until,
    acknowledged_at,
    created_at,
    created_by
   FROM pgflow.subscription s
  WHERE (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.subscriptions IS 'Who follows the events of a project, and how far. End with pgflow.unsubscribe what nobody reads.';

COMMENT ON COLUMN pgflow.subscriptions.types IS 'Only these; null: all.';

COMMENT ON COLUMN pgflow.subscriptions.queue IS 'Only events of its runs; null: of all.';

COMMENT ON COLUMN pgflow.subscriptions."position" IS 'Behind the last event that was acknowledged.';

COMMENT ON COLUMN pgflow.subscriptions.behind IS 'Events of the project that it has not acknowledged, whether it wants them or not.';

COMMENT ON COLUMN pgflow.subscriptions.batch_no IS 'The last batch that was given out.';

COMMENT ON COLUMN pgflow.subscriptions.reader IS 'Who holds it; null: nobody, or it is done.';

COMMENT ON COLUMN pgflow.subscriptions.held_until IS 'When it is given to the next who asks, if its reader isn''t heard of before.';

CREATE VIEW pgflow.task_history WITH (security_barrier='true') AS
 SELECT task_id,
    project_id AS project,
    run_id,
    key AS step,
    round,
    kind,
    title,
    payload,
    encode(payload_sha256, 'hex'::text) AS payload_sha256,
    encode(request_sha256, 'hex'::text) AS request_sha256,
    form AS form_schema,
    assignee_role,
    assignee,
    requested_by,
    created_at,
    due_at,
    policy,
    quorum,
    quorum_of,
    state,
    decided_at,
    decided_by,
    decided_login,
    comment,
    data,
    ( SELECT jsonb_agg(jsonb_build_object('voter', v.voter, 'login', v.login, 'action', v.action, 'comment', v.comment, 'at', v.at) ORDER BY v.at) AS jsonb_agg
           FROM pgflow.vote v
          WHERE ((v.project_id = t.project_id) AND (v.task_id = t.task_id))) AS votes,
    replaces,
    voided_at,
    claimed_by,
    not_requester
   FROM pgflow.task t
  WHERE ((state <> 'open'::text) AND (project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[])));

COMMENT ON VIEW pgflow.task_history IS 'Tasks that were decided, expired, or closed with their run.';

COMMENT ON COLUMN pgflow.task_history.step IS 'The key under which the handler asked.';

COMMENT ON COLUMN pgflow.task_history.payload IS 'What the person was shown.';

COMMENT ON COLUMN pgflow.task_history.payload_sha256 IS 'Hex SHA-256 of the database''s text of the payload.';

COMMENT ON COLUMN pgflow.task_history.request_sha256 IS 'Hex SHA-256 of all that was asked, but for the due time.';

COMMENT ON COLUMN pgflow.task_history.state IS 'approved, rejected, answered, aborted, expired, or cancelled: closed undecided.';

COMMENT ON COLUMN pgflow.task_history.decided_by IS 'The actor: the user that an application named, else the role set with set role, else the login.';

COMMENT ON COLUMN pgflow.task_history.decided_login IS 'The login of the session in which it was decided.';

COMMENT ON COLUMN pgflow.task_history.data IS 'The answer, or what approve was given as decision.';

COMMENT ON COLUMN pgflow.task_history.voided_at IS 'Since when the decision counts no more: the run was rolled back or asked for something else.';

CREATE TABLE pgflow.task_policy (
    policy text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL
);

COMMENT ON TABLE pgflow.task_policy IS 'What happens to the run when a task''s due time passes undecided.';

CREATE TABLE pgflow.tick (
    project_id text NOT NULL COLLATE pg_catalog."C",
    last_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE pgflow.tick IS 'When the duties of time (promote, reap, expire) were last seen to.';

CREATE VIEW pgflow.timeline WITH (security_barrier='true') AS
 WITH every_run AS NOT MATERIALIZED (
         SELECT r.project_id,
            r.run_id,
            r.handler,
            r.queue,
            r.correlation_id,
            r.created_at,
            r.created_by,
            r.attempt,
            r.worker_id,
            r.leased_at,
            r.lease_no,
            r.lease_event_no,
            NULL::integer AS end_event_no,
            NULL::text AS end_type,
            NULL::timestamp with time zone AS finished_at,
            NULL::text AS ended_by,
            NULL::jsonb AS end_payload,
            r.root_run_id,
            r.parent_run_id,
            r.kind,
            r.step AS of_step
           FROM pgflow.run r
        UNION ALL
         SELECT f.project_id,
            f.run_id,
            f.handler,
            f.queue,
            f.correlation_id,
            f.created_at,
            f.created_by,
            f.attempt,
            f.worker_id,
            f.leased_at,
            f.lease_no,
            f.lease_event_no,
            f.last_event_no,
                CASE
                    WHEN (f.error_code = 'E-RUN-013'::text) THEN 'run.aborted'::text
                    WHEN (f.state = 'timeout'::text) THEN 'run.timed_out'::text
                    ELSE ('run.'::text || f.state)
                END AS "case",
            f.finished_at,
            f.ended_by,
            jsonb_strip_nulls(jsonb_build_object('error_code', f.error_code, 'error_detail', f.error_detail)) AS jsonb_strip_nulls,
            f.root_run_id,
            f.parent_run_id,
            f.kind,
            f.step
           FROM pgflow.run_finished f
        ), line AS NOT MATERIALIZED (
         SELECT a_1.project_id,
            a_1.run_id,
            1 AS event_no,
            'run.created'::text AS type,
            a_1.created_at AS at,
            a_1.created_by AS by,
            NULL::text AS worker_id,
            NULL::integer AS lease_no,
            0 AS attempt,
            NULL::text AS step,
            jsonb_build_object('handler', a_1.handler) AS payload,
            NULL::text AS key,
            NULL::integer AS version
           FROM every_run a_1
        UNION ALL
         SELECT a_1.project_id,
            a_1.run_id,
            a_1.lease_event_no,
            'run.started'::text,
            a_1.leased_at,
            'pgflow'::text,
            a_1.worker_id,
            a_1.lease_no,
            a_1.attempt,
            NULL::text,
            NULL::jsonb,
            NULL::text,
            NULL::integer
           FROM every_run a_1
          WHERE (a_1.lease_event_no IS NOT NULL)
        UNION ALL
         SELECT a_1.project_id,
            a_1.run_id,
            a_1.end_event_no,
            a_1.end_type,
            a_1.finished_at,
            COALESCE(a_1.ended_by, 'pgflow'::text) AS "coalesce",
            a_1.worker_id,
                CASE
                    WHEN (a_1.worker_id IS NOT NULL) THEN a_1.lease_no
                    ELSE NULL::integer
                END AS "case",
            a_1.attempt,
            NULL::text,
            a_1.end_payload,
            NULL::text,
            NULL::integer
           FROM every_run a_1
          WHERE (a_1.end_event_no IS NOT NULL)
        UNION ALL
         SELECT f.project_id,
            f.run_id,
            (f.last_event_no - 1),
            'report.written'::text,
            f.finished_at,
            'pgflow'::text,
            NULL::text,
            NULL::integer,
            f.attempt,
            NULL::text,
            jsonb_build_object('status', f.state) AS jsonb_build_object,
            NULL::text,
            NULL::integer
           FROM pgflow.run_finished f
          WHERE (f.kind = 'flow'::text)
        UNION ALL
         SELECT e.project_id,
            e.run_id,
            e.lease_event_no,
            'run.started'::text,
            e.leased_at,
            'pgflow'::text,
            e.worker_id,
            e.lease_no,
            e.attempt,
            NULL::text,
            NULL::jsonb,
            NULL::text,
            NULL::integer
           FROM pgflow.event e
          WHERE (e.lease_event_no IS NOT NULL)
        UNION ALL
         SELECT e.project_id,
            e.run_id,
            e.event_no,
            e.type,
            e.at,
            e.by,
            e.worker_id,
            e.lease_no,
            e.attempt,
            COALESCE(e.step,
                CASE
                    WHEN ((e.type ~~ 'task.%'::text) OR (e.type = 'breakpoint.hit'::text)) THEN regexp_replace((e.payload ->> 'key'::text), '^breakpoint/\w+/'::text, ''::text)
                    ELSE NULL::text
                END) AS "coalesce",
            e.payload,
            e.key,
            NULL::integer
           FROM pgflow.event e
        UNION ALL
         SELECT j.project_id,
            j.run_id,
            j.event_no,
            'step.completed'::text,
            j.at,
            'pgflow'::text,
            NULL::text,
            j.lease_no,
            j.attempt,
            j.key,
            NULL::jsonb,
            NULL::text,
            NULL::integer
           FROM pgflow.journal j
          WHERE ((j.kind = 'step'::text) AND (j.event_no > 0))
        UNION ALL
         SELECT v.project_id,
            v.run_id,
            v.event_no,
            'step.completed'::text,
            v.at,
            'pgflow'::text,
            NULL::text,
            v.lease_no,
            v.attempt,
            v.key,
            jsonb_build_object('voided_round', v.round) AS jsonb_build_object,
            NULL::text,
            NULL::integer
           FROM pgflow.journal_voided v
          WHERE ((v.kind = 'step'::text) AND (v.event_no > 0) AND (NOT v.replaced))
        UNION ALL
         SELECT s.project_id,
            s.run_id,
            s.started_event_no,
            'step.started'::text,
            s.ready_at,
            'pgflow'::text,
            NULL::text,
            NULL::integer,
            0,
            s.step,
            jsonb_strip_nulls(jsonb_build_object('run_id', s.child_run_id, 'elements', s.elements)) AS jsonb_strip_nulls,
            NULL::text,
            s.version
           FROM pgflow.flow_step s
          WHERE (s.started_event_no IS NOT NULL)
        UNION ALL
         SELECT s.project_id,
            s.run_id,
            s.ended_event_no,
            ('step.'::text || s.state),
            s.ended_at,
            'pgflow'::text,
            NULL::text,
            NULL::integer,
            0,
            s.step,
            jsonb_strip_nulls(jsonb_build_object('run_id', s.child_run_id, 'error_code', s.error_code, 'error_detail', s.error_detail)) AS jsonb_strip_nulls,
            NULL::text,
            s.version
           FROM pgflow.flow_step s
          WHERE (s.ended_event_no IS NOT NULL)
        UNION ALL
         SELECT s.project_id,
            s.run_id,
            s.voided_event_no,
            'step.voided'::text,
            s.voided_at,
            'pgflow'::text,
            NULL::text,
            NULL::integer,
            0,
            s.step,
            jsonb_strip_nulls(jsonb_build_object('run_id', s.child_run_id)) AS jsonb_strip_nulls,
            NULL::text,
            s.version
           FROM pgflow.flow_step s
          WHERE (s.voided_event_no IS NOT NULL)
        UNION ALL
         SELECT c.project_id,
            c.run_id,
            c.event_no,
            'checkpoint.saved'::text,
            c.at,
            'pgflow'::text,
            NULL::text,
            NULL::integer,
            0,
            NULL::text,
            jsonb_build_object('number', c.number, 'super_step', c.super_step, 'label', c.label) AS jsonb_build_object,
            NULL::text,
            NULL::integer
           FROM pgflow.checkpoint c
          WHERE (c.event_no IS NOT NULL)
        )
 SELECT l.project_id,
    l.run_id,
    l.event_no,
    l.type,
    l.at,
    l.by,
    l.worker_id,
    l.lease_no,
    l.attempt,
    l.step,
    l.payload,
    l.key,
    COALESCE(a.correlation_id, (a.run_id)::text) AS correlation_id,
    a.handler,
    a.queue,
    COALESCE(a.root_run_id, a.run_id) AS root_run_id,
        CASE
            WHEN (a.kind = 'flow'::text) THEN a.handler
            WHEN (a.of_step IS NOT NULL) THEN COALESCE(( SELECT p.handler
               FROM pgflow.run p
              WHERE ((p.project_id = a.project_id) AND (p.run_id = a.parent_run_id))), ( SELECT p.handler
               FROM pgflow.run_finished p
              WHERE ((p.project_id = a.project_id) AND (p.run_id = a.parent_run_id))))
            ELSE NULL::text
        END AS flow,
    COALESCE(l.version,
        CASE
            WHEN (a.of_step IS NOT NULL) THEN ( SELECT max(s.version) AS max
               FROM pgflow.flow_step s
              WHERE ((s.project_id = a.project_id) AND (s.run_id = a.parent_run_id) AND (s.step = a.of_step) AND (s.child_run_id = a.run_id)))
            ELSE NULL::integer
        END) AS version
   FROM (line l
     JOIN every_run a USING (project_id, run_id))
  WHERE (l.project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.timeline IS 'All that happened to each run, numbered by event_no. Select by run_id, order by event_no.';

COMMENT ON COLUMN pgflow.timeline.event_no IS 'Rises within the run, from 1.';

COMMENT ON COLUMN pgflow.timeline.type IS 'The engine''s own types are in table event_type; the others were emitted.';

COMMENT ON COLUMN pgflow.timeline.by IS 'The actor: a role or login; pgflow for leases, steps and results.';

COMMENT ON COLUMN pgflow.timeline.worker_id IS 'The worker whose lease began or ended with this event.';

COMMENT ON COLUMN pgflow.timeline.lease_no IS 'The lease that began or ended with this event, or under which the step was journalled.';

COMMENT ON COLUMN pgflow.timeline.attempt IS 'Failed executions before.';

COMMENT ON COLUMN pgflow.timeline.step IS 'The key of the step, or under which a person was asked.';

COMMENT ON COLUMN pgflow.timeline.key IS 'The idempotency key that emit was given.';

COMMENT ON COLUMN pgflow.timeline.handler IS 'The handler of its run.';

COMMENT ON COLUMN pgflow.timeline.queue IS 'The queue of its run.';

COMMENT ON COLUMN pgflow.timeline.root_run_id IS 'Its run, or that at the top of its family.';

COMMENT ON COLUMN pgflow.timeline.flow IS 'The flow of which it is a run, or a step''s.';

COMMENT ON COLUMN pgflow.timeline.version IS 'Of steps of flows, and of their runs: the round of the flow in which the step was made ready.';

CREATE VIEW pgflow.tool_calls WITH (security_barrier='true') AS
 SELECT q.project_id,
    q.run_id,
    (q.payload ->> 'key'::text) AS key,
    (q.payload ->> 'tool'::text) AS tool,
    (q.payload -> 'arguments'::text) AS arguments,
    (q.payload ->> 'arguments_sha256'::text) AS arguments_sha256,
    q.at AS requested_at,
        CASE
            WHEN (a.type <> 'tool.requested'::text) THEN a.at
            ELSE NULL::timestamp with time zone
        END AS answered_at,
        CASE a.type
            WHEN 'tool.resolved'::text THEN 'resolved'::text
            WHEN 'tool.failed'::text THEN 'failed'::text
            WHEN 'wait.timed_out'::text THEN 'timeout'::text
            ELSE
            CASE
                WHEN ((a.type IS NULL) AND (r.waits @> jsonb_build_array(jsonb_build_object('kind', 'tool', 'key', (q.payload -> 'key'::text))))) THEN 'open'::text
                ELSE 'dropped'::text
            END
        END AS status,
    (a.payload ->> 'result_sha256'::text) AS result_sha256,
    (a.payload ->> 'error_code'::text) AS error_code,
    (a.payload ->> 'error'::text) AS error,
    ((a.payload ->> 'latency_ms'::text))::bigint AS latency_ms
   FROM ((pgflow.event q
     LEFT JOIN pgflow.run r ON (((r.project_id = q.project_id) AND (r.run_id = q.run_id))))
     LEFT JOIN LATERAL ( SELECT e.type,
            e.at,
            e.payload
           FROM pgflow.event e
          WHERE ((e.project_id = q.project_id) AND (e.run_id = q.run_id) AND (e.event_no > q.event_no) AND (e.type = ANY (ARRAY['tool.resolved'::text, 'tool.failed'::text, 'wait.timed_out'::text, 'tool.requested'::text])) AND ((e.payload ->> 'key'::text) = (q.payload ->> 'key'::text)))
          ORDER BY e.event_no
         LIMIT 1) a ON (true))
  WHERE ((q.type = 'tool.requested'::text) AND (q.project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[])));

COMMENT ON VIEW pgflow.tool_calls IS 'Each request of a tool with what came of it. resolve_tool(run_id, key, result) answers an open one.';

COMMENT ON COLUMN pgflow.tool_calls.status IS 'open, resolved, failed (it may be requested again), timeout, or dropped: the run did not wait for it any more.';

CREATE TABLE pgflow.upkeep (
    duty text NOT NULL COLLATE pg_catalog."C",
    next_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE pgflow.upkeep IS 'Until when maintain() waits, as a whole and with single duties.';

CREATE VIEW pgflow.worker_status WITH (security_barrier='true') AS
 SELECT w.project_id,
    w.worker_id,
        CASE
            WHEN (w.stopped_at IS NOT NULL) THEN 'stopped'::text
            WHEN (b.beat_at > (pgflow.now() - ( SELECT min(q.lease_ttl) AS min
               FROM pgflow.queue q
              WHERE ((q.project_id = w.project_id) AND (q.queue = ANY (w.queues)))))) THEN 'alive'::text
            ELSE 'dead'::text
        END AS status,
    w.queues,
    w.concurrency,
    ( SELECT count(DISTINCT r.run_id) AS count
           FROM (pgflow.lease l
             JOIN pgflow.run r ON (((r.project_id = l.project_id) AND (r.run_id = ANY (l.run_ids)) AND (r.worker_id = l.worker_id))))
          WHERE ((l.project_id = w.project_id) AND (l.worker_id = w.worker_id))) AS running,
    COALESCE(b.beat_at, w.last_beat_at) AS beat_at,
    w.started_at,
    w.stopped_at,
    w.host,
    w.pid,
    w.version
   FROM (pgflow.worker w
     LEFT JOIN pgflow.worker_beat b USING (project_id, worker_id))
  WHERE (w.project_id = ANY (( SELECT pgflow._my_projects() AS _my_projects)::text[]));

COMMENT ON VIEW pgflow.worker_status IS 'Workers: alive, stopped, or dead (no beat for the shortest lease_ttl of its queues).';

COMMENT ON COLUMN pgflow.worker_status.status IS 'alive, stopped (it said goodbye), or dead.';

COMMENT ON COLUMN pgflow.worker_status.concurrency IS 'How many runs it says it executes at once.';

COMMENT ON COLUMN pgflow.worker_status.running IS 'Runs that it holds.';

COMMENT ON COLUMN pgflow.worker_status.beat_at IS 'When it was last heard of; null once it has stopped.';

COMMENT ON COLUMN pgflow.worker_status.version IS 'The version of the worker''s app.';

ALTER TABLE ONLY pgflow.agent
    ADD CONSTRAINT agent_pkey PRIMARY KEY (project_id, agent);

ALTER TABLE ONLY pgflow.agent_version
    ADD CONSTRAINT agent_version_pkey PRIMARY KEY (project_id, agent, version);

ALTER TABLE ONLY pgflow.artifact
    ADD CONSTRAINT artifact_pkey PRIMARY KEY (project_id, run_id, artifact_no);

ALTER TABLE ONLY pgflow.artifact_schema
    ADD CONSTRAINT artifact_schema_pkey PRIMARY KEY (project_id, schema);

ALTER TABLE ONLY pgflow.budget_due
    ADD CONSTRAINT budget_due_pkey PRIMARY KEY (project_id, run_id);

ALTER TABLE ONLY pgflow.budget
    ADD CONSTRAINT budget_pkey PRIMARY KEY (project_id, run_id);

ALTER TABLE ONLY pgflow.channel_definition
    ADD CONSTRAINT channel_definition_pkey PRIMARY KEY (project_id, flow, version, channel);

ALTER TABLE ONLY pgflow.channel_write
    ADD CONSTRAINT channel_write_pkey PRIMARY KEY (project_id, run_id, step, element, version, nth);

ALTER TABLE ONLY pgflow.checkpoint
    ADD CONSTRAINT checkpoint_pkey PRIMARY KEY (project_id, run_id, number);

ALTER TABLE ONLY pgflow.error_code
    ADD CONSTRAINT error_code_pkey PRIMARY KEY (error_code);

ALTER TABLE ONLY pgflow.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (project_id, run_id, event_no);

ALTER TABLE ONLY pgflow.event_type
    ADD CONSTRAINT event_type_pkey PRIMARY KEY (type);

ALTER TABLE ONLY pgflow.flow
    ADD CONSTRAINT flow_pkey PRIMARY KEY (project_id, flow);

ALTER TABLE ONLY pgflow.flow_step
    ADD CONSTRAINT flow_step_pkey PRIMARY KEY (project_id, run_id, step, element, version);

ALTER TABLE ONLY pgflow.flow_version
    ADD CONSTRAINT flow_version_pkey PRIMARY KEY (project_id, flow, version);

ALTER TABLE ONLY pgflow.handler
    ADD CONSTRAINT handler_pkey PRIMARY KEY (project_id, handler);

ALTER TABLE ONLY pgflow.idle_worker
    ADD CONSTRAINT idle_worker_pkey PRIMARY KEY (project_id, queue, worker_id);

ALTER TABLE ONLY pgflow.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (one);

ALTER TABLE ONLY pgflow.journal
    ADD CONSTRAINT journal_pkey PRIMARY KEY (project_id, run_id, key);

ALTER TABLE ONLY pgflow.journal_voided
    ADD CONSTRAINT journal_voided_pkey PRIMARY KEY (project_id, run_id, round, key);

ALTER TABLE ONLY pgflow.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (project_id, worker_id, batch);

ALTER TABLE ONLY pgflow.left_behind
    ADD CONSTRAINT left_behind_pkey PRIMARY KEY (project_id, run_id);

ALTER TABLE ONLY pgflow.move
    ADD CONSTRAINT move_is_known UNIQUE NULLS NOT DISTINCT (kind, from_state, to_state);

ALTER TABLE ONLY pgflow.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (project_id, run_id, event_no);

ALTER TABLE ONLY pgflow.period
    ADD CONSTRAINT period_begins_once UNIQUE (from_id);

ALTER TABLE ONLY pgflow.period
    ADD CONSTRAINT period_pkey PRIMARY KEY (period);

ALTER TABLE ONLY pgflow.price
    ADD CONSTRAINT price_pkey PRIMARY KEY (project_id, model, valid_from);

ALTER TABLE ONLY pgflow.project_member
    ADD CONSTRAINT project_member_pkey PRIMARY KEY (project_id, member);

ALTER TABLE ONLY pgflow.project
    ADD CONSTRAINT project_pkey PRIMARY KEY (project_id);

ALTER TABLE ONLY pgflow.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (project_id, queue);

ALTER TABLE ONLY pgflow.reducer
    ADD CONSTRAINT reducer_pkey PRIMARY KEY (reducer);

ALTER TABLE ONLY pgflow.refusal
    ADD CONSTRAINT refusal_pkey PRIMARY KEY (sqlstate);

ALTER TABLE ONLY pgflow.run_finished
    ADD CONSTRAINT run_finished_pkey PRIMARY KEY (project_id, run_id);

ALTER TABLE ONLY pgflow.run_key
    ADD CONSTRAINT run_key_pkey PRIMARY KEY (project_id, key);

ALTER TABLE ONLY pgflow.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (project_id, run_id);

ALTER TABLE ONLY pgflow.run_step
    ADD CONSTRAINT run_step_pkey PRIMARY KEY (project_id, run_id, step);

ALTER TABLE ONLY pgflow.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (project_id, schema, version);

ALTER TABLE ONLY pgflow.signal
    ADD CONSTRAINT signal_pkey PRIMARY KEY (project_id, run_id, signal_no);

ALTER TABLE ONLY pgflow.slot
    ADD CONSTRAINT slot_pkey PRIMARY KEY (project_id, queue, run_id, lease_no);

ALTER TABLE ONLY pgflow.state
    ADD CONSTRAINT state_pkey PRIMARY KEY (state);

ALTER TABLE ONLY pgflow.step_budget
    ADD CONSTRAINT step_budget_pkey PRIMARY KEY (project_id, flow, version, step);

ALTER TABLE ONLY pgflow.step_definition
    ADD CONSTRAINT step_definition_pkey PRIMARY KEY (project_id, flow, version, step);

ALTER TABLE ONLY pgflow.step_type
    ADD CONSTRAINT step_type_pkey PRIMARY KEY (project_id, name);

ALTER TABLE ONLY pgflow.subscription
    ADD CONSTRAINT subscription_pkey PRIMARY KEY (project_id, subscription);

ALTER TABLE ONLY pgflow.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (project_id, task_id);

ALTER TABLE ONLY pgflow.task_policy
    ADD CONSTRAINT task_policy_pkey PRIMARY KEY (policy);

ALTER TABLE ONLY pgflow.agent_version
    ADD CONSTRAINT the_same_agent_is_the_same_version UNIQUE (project_id, agent, sha256);

ALTER TABLE ONLY pgflow.flow_version
    ADD CONSTRAINT the_same_content_is_the_same_version UNIQUE (project_id, flow, sha256);

ALTER TABLE ONLY pgflow.schema_version
    ADD CONSTRAINT the_same_schema_is_the_same_version UNIQUE (project_id, schema, sha256);

ALTER TABLE ONLY pgflow.tick
    ADD CONSTRAINT tick_pkey PRIMARY KEY (project_id);

ALTER TABLE ONLY pgflow.upkeep
    ADD CONSTRAINT upkeep_pkey PRIMARY KEY (duty);

ALTER TABLE ONLY pgflow.usage
    ADD CONSTRAINT usage_pkey PRIMARY KEY (project_id, run_id, call_key);

ALTER TABLE ONLY pgflow.vote
    ADD CONSTRAINT vote_pkey PRIMARY KEY (project_id, task_id, voter);

ALTER TABLE ONLY pgflow.worker_beat
    ADD CONSTRAINT worker_beat_pkey PRIMARY KEY (project_id, worker_id);

ALTER TABLE ONLY pgflow.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (project_id, worker_id);

CREATE UNIQUE INDEX a_run_asks_once_per_key ON pgflow.task USING btree (project_id, run_id, key) WHERE (voided_at IS NULL);

CREATE UNIQUE INDEX a_step_counts_once ON ONLY pgflow.flow_step USING btree (project_id, run_id, step, element) WHERE (voided_at IS NULL);

CREATE INDEX added_step_has_a_budget ON pgflow.run_step USING btree (project_id) WHERE (budget IS NOT NULL);

CREATE INDEX budget_is_due ON pgflow.budget_due USING btree (project_id, due_at);

CREATE INDEX event_by_time ON ONLY pgflow.event USING brin (project_id, at, leased_at) WITH (autosummarize='true');

CREATE UNIQUE INDEX event_key_is_unique_in_its_run ON ONLY pgflow.event USING btree (project_id, run_id, key) WHERE (key IS NOT NULL);

CREATE INDEX flow_step_by_time ON ONLY pgflow.flow_step USING brin (project_id, ready_at, ended_at) WITH (autosummarize='true');

CREATE INDEX journal_by_time ON ONLY pgflow.journal USING brin (project_id, at) WITH (autosummarize='true');

CREATE INDEX outbox_in_order ON pgflow.outbox USING btree (project_id, place, run_id, event_no);

CREATE INDEX run_expects_an_artifact ON pgflow.run USING btree (project_id, run_id) WHERE (repairs_left IS NOT NULL);

CREATE INDEX run_finished_by_time ON ONLY pgflow.run_finished USING btree ((((project_id || '/'::text) || queue)), finished_at);

CREATE INDEX run_finished_lines_by_time ON ONLY pgflow.run_finished USING brin (project_id, created_at, leased_at, finished_at) WITH (autosummarize='true');

CREATE INDEX run_has_a_deadline ON pgflow.run USING btree (project_id, deadline) WHERE (deadline IS NOT NULL);

CREATE INDEX run_has_a_family ON pgflow.run USING btree (project_id, run_id) WHERE (((parent_run_id IS NOT NULL) OR has_children) IS TRUE);

CREATE INDEX run_is_a_child ON pgflow.run USING btree (project_id, parent_run_id, num_nonnulls(waits_for, pause_reason)) WHERE (parent_run_id IS NOT NULL);

CREATE INDEX run_is_ready ON pgflow.run USING btree (project_id, queue, priority, lane, seq) WHERE (seq IS NOT NULL);

CREATE INDEX run_is_scheduled ON pgflow.run USING btree (project_id, run_at) WHERE ((run_at IS NOT NULL) AND (seq IS NULL) AND (waits_for IS NULL) AND (pause_reason IS NULL));

CREATE INDEX run_key_expires ON pgflow.run_key USING btree (project_id, expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX run_key_of_run ON pgflow.run_key USING btree (project_id, run_id) WHERE (expires_at IS NULL);

CREATE INDEX run_undoes ON pgflow.run USING btree (project_id, undo_of) WHERE (undo_of IS NOT NULL);

CREATE INDEX run_wakes ON pgflow.run USING btree (project_id, wake_at) WHERE (wake_at IS NOT NULL);

CREATE UNIQUE INDEX signal_key_is_unique_in_its_run ON ONLY pgflow.signal USING btree (project_id, run_id, key) WHERE (key IS NOT NULL);

CREATE INDEX step_is_unsettled ON ONLY pgflow.flow_step USING btree (project_id, run_id) WHERE ((state = ANY (ARRAY['pending'::text, 'running'::text])) AND (voided_at IS NULL) AND (element = 0));

CREATE INDEX task_is_due ON pgflow.task USING btree (project_id, due_at) WHERE ((state = 'open'::text) AND (due_at IS NOT NULL));

CREATE INDEX task_is_open ON pgflow.task USING btree (project_id, run_id) WHERE (state = 'open'::text);

CREATE INDEX task_of_run ON pgflow.task USING btree (project_id, run_id);

CREATE INDEX usage_by_time ON ONLY pgflow.usage USING brin (project_id, at) WITH (autosummarize='true');

CREATE INDEX worker_is_gone ON pgflow.worker USING btree (project_id, COALESCE(stopped_at, last_beat_at)) WHERE (COALESCE(stopped_at, last_beat_at) IS NOT NULL);

CREATE TRIGGER agent_version_never_changes BEFORE DELETE OR UPDATE ON pgflow.agent_version FOR EACH ROW EXECUTE FUNCTION pgflow._refuse_other_agent();

CREATE TRIGGER channel_definition_never_changes BEFORE DELETE OR UPDATE ON pgflow.channel_definition FOR EACH ROW EXECUTE FUNCTION pgflow._refuse_redefinition();

CREATE TRIGGER flow_version_never_changes BEFORE DELETE OR UPDATE ON pgflow.flow_version FOR EACH ROW EXECUTE FUNCTION pgflow._refuse_redefinition();

CREATE TRIGGER run_begins_in_a_first_state BEFORE INSERT ON pgflow.run FOR EACH ROW WHEN ((NOT ((new.kind = 'handler'::text) AND (new.state = ANY (ARRAY['scheduled'::text, 'pending'::text])) AND (new.lease_no IS NOT NULL)))) EXECUTE FUNCTION pgflow._check_move();

CREATE TRIGGER run_finished_goes_only_by_retention BEFORE DELETE ON pgflow.run_finished FOR EACH ROW WHEN ((COALESCE(current_setting('pgflow.pruning'::text, true), ''::text) <> 'on'::text)) EXECUTE FUNCTION pgflow._refuse_change();

CREATE TRIGGER run_finished_is_never_truncated BEFORE TRUNCATE ON pgflow.run_finished FOR EACH STATEMENT EXECUTE FUNCTION pgflow._refuse_truncate();

CREATE TRIGGER run_finished_never_changes BEFORE UPDATE ON pgflow.run_finished FOR EACH ROW EXECUTE FUNCTION pgflow._refuse_change();

CREATE TRIGGER run_is_never_truncated BEFORE TRUNCATE ON pgflow.run FOR EACH STATEMENT EXECUTE FUNCTION pgflow._refuse_truncate();

CREATE TRIGGER run_leaves_only_by_ending BEFORE DELETE ON pgflow.run FOR EACH STATEMENT WHEN ((COALESCE(current_setting('pgflow.ending'::text, true), ''::text) <> 'on'::text)) EXECUTE FUNCTION pgflow._refuse_delete();

CREATE TRIGGER run_moves_are_legal BEFORE UPDATE OF state ON pgflow.run FOR EACH ROW WHEN (((old.state <> new.state) AND (NOT ((old.state = 'pending'::text) AND (new.state = 'running'::text) AND (new.kind = old.kind))))) EXECUTE FUNCTION pgflow._check_move();

CREATE TRIGGER schema_version_never_changes BEFORE DELETE OR UPDATE ON pgflow.schema_version FOR EACH ROW EXECUTE FUNCTION pgflow._refuse_schema_change();

CREATE TRIGGER step_definition_never_changes BEFORE DELETE OR UPDATE ON pgflow.step_definition FOR EACH ROW EXECUTE FUNCTION pgflow._refuse_redefinition();

ALTER TABLE ONLY pgflow.agent
    ADD CONSTRAINT agent_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.artifact_schema
    ADD CONSTRAINT artifact_schema_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.channel_definition
    ADD CONSTRAINT channel_definition_version_fkey FOREIGN KEY (project_id, flow, version) REFERENCES pgflow.flow_version(project_id, flow, version);

ALTER TABLE ONLY pgflow.step_type
    ADD CONSTRAINT default_policy_fkey FOREIGN KEY (default_policy) REFERENCES pgflow.task_policy(policy);

ALTER TABLE ONLY pgflow.flow
    ADD CONSTRAINT flow_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.handler
    ADD CONSTRAINT handler_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.move
    ADD CONSTRAINT move_from_state_fkey FOREIGN KEY (from_state) REFERENCES pgflow.state(state);

ALTER TABLE ONLY pgflow.move
    ADD CONSTRAINT move_to_state_fkey FOREIGN KEY (to_state) REFERENCES pgflow.state(state);

ALTER TABLE ONLY pgflow.task
    ADD CONSTRAINT policy_fkey FOREIGN KEY (policy) REFERENCES pgflow.task_policy(policy);

ALTER TABLE ONLY pgflow.price
    ADD CONSTRAINT price_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.project_member
    ADD CONSTRAINT project_member_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.queue
    ADD CONSTRAINT queue_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.step_budget
    ADD CONSTRAINT step_budget_step_fkey FOREIGN KEY (project_id, flow, version, step) REFERENCES pgflow.step_definition(project_id, flow, version, step);

ALTER TABLE ONLY pgflow.step_definition
    ADD CONSTRAINT step_definition_version_fkey FOREIGN KEY (project_id, flow, version) REFERENCES pgflow.flow_version(project_id, flow, version);

ALTER TABLE ONLY pgflow.step_type
    ADD CONSTRAINT step_type_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.subscription
    ADD CONSTRAINT subscription_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.tick
    ADD CONSTRAINT tick_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

ALTER TABLE ONLY pgflow.vote
    ADD CONSTRAINT vote_task_fkey FOREIGN KEY (project_id, task_id) REFERENCES pgflow.task(project_id, task_id);

ALTER TABLE ONLY pgflow.worker
    ADD CONSTRAINT worker_project_fkey FOREIGN KEY (project_id) REFERENCES pgflow.project(project_id);

GRANT SELECT ON TABLE pgflow.agents TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.artifacts TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.budgets TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.error_code TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.event_type TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.flow_steps TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.flows TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.inbox TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.journal_entries TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.model_calls TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.move TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.prices TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.queue_stats TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.refusal TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.runs TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.schemas TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.state TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.step_types TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.subscriptions TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.task_history TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.task_policy TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.timeline TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.tool_calls TO pgflow_reader;

GRANT SELECT ON TABLE pgflow.worker_status TO pgflow_reader;
