"""Flows, as statements: the part of the gateway for steps that need each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from pgflow._json import dumps
from pgflow._statement import Row, RunId, Statement, _int4, _json, _rows, _value
from pgflow.budget import Budget
from pgflow.definition import AgentVersion, Breakpoints, Flow, FlowVersion, Step, StepType


def define_flow(
    definition: Flow | Mapping[str, object], *, project: str | None = None
) -> Statement[FlowVersion]:
    """Store a flow: new content is a new version, and new runs get it.

    Raises BadRequest, whose `detail` is a JSON object with all `faults`.
    """
    given = definition.definition() if isinstance(definition, Flow) else definition
    return Statement(
        b"select f.flow, f.version, encode(f.sha256, 'hex') as sha256, f.created_at, f.created_by,"
        b" f.definition from pgflow.define_flow(%(definition)s::jsonb, %(project)s) as f",
        {"definition": dumps(given, "the definition"), "project": project},
        lambda rows: FlowVersion(**rows[0]),
    )


def start(
    flow: str | Flow,
    input: object = None,  # noqa: A002 - the name of the SQL argument
    *,
    version: int | None = None,
    priority: int = 0,
    deadline: datetime | None = None,
    idempotency_key: str | None = None,
    correlation_id: str | None = None,
    run_id: RunId | None = None,
    tags: Sequence[str] | None = None,
    budget: Budget | Mapping[str, object] | None = None,
    breakpoints: Breakpoints | Mapping[str, Sequence[str]] | None = None,
    bindings: Mapping[str, str | Mapping[str, object]] | None = None,
    project: str | None = None,
) -> Statement[UUID]:
    """Start a flow, without a `version` the one that was defined last, and return its run's id.

    A `budget` bounds what all of it spends, instead of what the definition says.
    `breakpoints` are beside those of its definition: lists of steps, `before` and `after`.
    `bindings` say which agent each role of its steps is bound to: a name, or `agent` and
    `version`; without, a role is bound to the agent of its name.
    Raises BadRequest, UnknownFlow, UnknownAgent, IdempotencyConflict, NotJson.
    """
    return Statement(
        b"select pgflow.start(%(flow)s, %(input)s::jsonb, version => %(version)s::integer,"
        b" priority => %(priority)s::integer, deadline => %(deadline)s,"
        b" idempotency_key => %(idempotency_key)s, correlation_id => %(correlation_id)s,"
        b" run_id => %(run_id)s::uuid, tags => %(tags)s::text[], budget => %(budget)s::jsonb,"
        b" breakpoints => %(breakpoints)s::jsonb, bindings => %(bindings)s::jsonb,"
        b" project => %(project)s)",
        {
            "flow": flow.name if isinstance(flow, Flow) else flow,
            "input": "{}" if input is None else dumps(input, "the input"),
            "version": _int4(version),
            "priority": _int4(priority),
            "deadline": deadline,
            "idempotency_key": idempotency_key,
            "correlation_id": correlation_id,
            "run_id": run_id,
            "tags": None if tags is None else list(tags),
            "budget": _json(budget, "the budget"),
            "breakpoints": _json(
                breakpoints.model_dump() if isinstance(breakpoints, Breakpoints) else breakpoints,
                "the breakpoints",
            ),
            "bindings": _json(bindings, "the bindings"),
            "project": project,
        },
        _value,
    )


def add_step(
    run_id: RunId,
    step: Step | Mapping[str, object],
    *,
    needed_by: Sequence[str] = (),
    lease_no: int | None = None,
    project: str | None = None,
) -> Statement[bool]:
    """Add a step to a flow that is under way; False if the very same was added before.

    `needed_by` are steps that have not begun and are to need it too. With a `lease_no` the run is
    that of a step, which adds to its flow as long as it holds that lease.
    Raises BadRequest, whose `detail` is a JSON object with all `faults`, UnknownRun,
    AlreadyFinished, LeaseLost, UnknownSchema, UnknownAgent.
    """
    given = step.definition() if isinstance(step, Step) else step
    return Statement(
        b"select pgflow.add_step(%(run_id)s::uuid, %(step)s::jsonb, %(needed_by)s::text[],"
        b" %(lease_no)s::integer, %(project)s)",
        {
            "run_id": run_id,
            "step": dumps(given, "the step"),
            "needed_by": list(needed_by),
            "lease_no": _int4(lease_no),
            "project": project,
        },
        _value,
    )


def define_agent(
    name: str,
    model: str,
    *,
    backend: str | None = None,
    config: Mapping[str, object] | None = None,
    project: str | None = None,
) -> Statement[AgentVersion]:
    """Store what a role of steps can be bound to: new content is a new version.

    Runs that start get it, others keep theirs. Raises BadRequest.
    """
    return Statement(
        b"select a.agent, a.version, a.model, a.backend, a.config,"
        b" encode(a.sha256, 'hex') as sha256, a.created_at, a.created_by"
        b" from pgflow.define_agent(%(name)s, %(model)s, %(backend)s, %(config)s::jsonb,"
        b" %(project)s) as a",
        {
            "name": name,
            "model": model,
            "backend": backend,
            "config": _json(config, "the config"),
            "project": project,
        },
        lambda rows: AgentVersion(**rows[0]),
    )


def agents(
    *, agent: str | None = None, version: int | None = None, project: str | None = None
) -> Statement[list[Row]]:
    """Return rows of view agents: of one agent all its versions, else the current ones."""
    return Statement(
        b"select * from pgflow.agents where project_id = (select pgflow.this_project(%(project)s))"
        b" and case when %(agent)s::text is null then is_current else agent = %(agent)s end"
        b" and (%(version)s::integer is null or version = %(version)s::integer)"
        b" order by agent, version",
        {"agent": agent, "version": _int4(version), "project": project},
        _rows,
    )


def register_step_type(
    name: str,
    *,
    interactive: bool = False,
    handler: str | None = None,
    form_schema: Mapping[str, object] | None = None,
    default_due: timedelta | None = None,
    default_policy: str | None = None,
    default_config: Mapping[str, object] | None = None,
    description: str | None = None,
    kind: Literal["approval_gate", "human_task"] | None = None,
    project: str | None = None,
) -> Statement[StepType]:
    """Register what steps of a type have in common; the same again is harmless.

    A type that is not `interactive` is executed by `handler`, by default that of its name. An
    interactive one asks a person: `kind` is `human_task` where there is a form, else
    `approval_gate`. Flows that were defined before keep what it said then. Raises BadRequest.
    """
    return Statement(
        b"select t.name, t.interactive, t.kind, t.handler, t.form_schema, t.default_due,"
        b" t.default_policy, t.default_config, t.description"
        b" from pgflow.register_step_type(%(name)s, %(interactive)s::boolean, %(handler)s,"
        b" %(form_schema)s::jsonb, %(default_due)s, %(default_policy)s, %(default_config)s::jsonb,"
        b" %(description)s, %(kind)s, %(project)s) as t",
        {
            "name": name,
            "interactive": interactive,
            "handler": handler,
            "form_schema": _json(form_schema, "the form schema"),
            "default_due": default_due,
            "default_policy": default_policy,
            "default_config": _json(default_config, "the default config"),
            "description": description,
            "kind": kind,
            "project": project,
        },
        lambda rows: StepType(**rows[0]),
    )


def unregister_step_type(name: str, *, project: str | None = None) -> Statement[bool]:
    """Take a step type away; False if there is none of that name.

    Raises BadRequest, StillInUse.
    """
    return Statement(
        b"select pgflow.unregister_step_type(%(name)s, %(project)s)",
        {"name": name, "project": project},
        _value,
    )


def step_types(*, project: str | None = None) -> Statement[list[Row]]:
    """Return rows of view step_types: the engine's own first."""
    return Statement(
        b"select * from pgflow.step_types"
        b" where project_id = (select pgflow.this_project(%(project)s))"
        b" order by not is_built_in, name",
        {"project": project},
        _rows,
    )


def flows(
    *, flow: str | None = None, version: int | None = None, project: str | None = None
) -> Statement[list[Row]]:
    """Return rows of view flows: of one flow all its versions, else the current ones."""
    return Statement(
        b"select * from pgflow.flows where project_id = (select pgflow.this_project(%(project)s))"
        b" and case when %(flow)s::text is null then is_current else flow = %(flow)s end"
        b" and (%(version)s::integer is null or version = %(version)s::integer)"
        b" order by flow, version",
        {"flow": flow, "version": _int4(version), "project": project},
        _rows,
    )


def flow_steps(
    flow_run_id: RunId, *, elements: bool = False, project: str | None = None
) -> Statement[list[Row]]:
    """Return rows of view flow_steps: the steps of a flow's run, in the order of its definition.

    With `elements`, those of steps that are done for each element of a list come with them.
    """
    return Statement(
        b"select * from pgflow.flow_steps"
        b" where project_id = (select pgflow.this_project(%(project)s))"
        b" and flow_run_id = %(flow_run_id)s::uuid and (%(elements)s or element = 0)"
        b" order by seq, version, element",
        {"flow_run_id": flow_run_id, "elements": elements, "project": project},
        _rows,
    )


def history(run_id: RunId, *, project: str | None = None) -> Statement[list[Row]]:
    """Return the checkpoints of a flow's run, from the first on: rows of type checkpoint_v1.

    Raises BadRequest, UnknownRun.
    """
    return Statement(
        b"select h.* from pgflow.history(%(run_id)s::uuid, %(project)s) as h order by h.number",
        {"run_id": run_id, "project": project},
        _rows,
    )


def define_reducer(name: str, function: str) -> Statement[str]:
    """Register a function of the database as a reducer for channels. Raises BadRequest.

    It is named with its schema, takes (old jsonb, new jsonb) and returns jsonb.
    """
    return Statement(
        b"select pgflow.define_reducer(%(name)s, %(function)s)",
        {"name": name, "function": function},
        _value,
    )
