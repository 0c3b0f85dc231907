"""The definition of a flow: steps that need each other, as data.

These models say what a definition is made of. Whether its steps fit together the database says,
which tells all faults at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_serializer

from pgflow.budget import Budget
from pgflow.errors import BadDefinition
from pgflow.models import Retry

Join = Literal["all", "any", "none_failed", "one_failed"]
OnFailure = Literal["fail", "continue"] | dict[Literal["run"], str]


class Channel(BaseModel):
    """A value of a flow's state: steps write to it, and its reducer says what comes of that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reducer: str = Field(
        default="last",
        description="`last` (the default), `append`, `merge`, `add`, `min`, `max`, `union`, or one"
        " that an administrator registered.",
    )
    default: Any = Field(default=None, description="Its value before anything is written.")


class Step(BaseModel):
    """A step of a flow: a handler, executed as a run of its own once the steps that it needs ended.

    Its input has their outputs by name; a step that needs none gets the flow's input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Unique in the flow: letters, digits, `_`, `.` and `-`.")
    handler: str | None = Field(
        default=None, description="The handler that executes it; without one, the step's name."
    )
    type: str | None = Field(
        default=None,
        description="What it is if no worker executes it: `approval_gate`, `human_task`,"
        " `wait_event` or `timer`; `flow`, another flow; `pass`, nothing: its output is its input;"
        " or a step type that was registered.",
    )
    each: str | None = Field(
        default=None,
        description="A SQL/JSON path to the elements of a list in its input, as"
        " `$.collect[*]`: it is executed once for each, and its output is the list of theirs.",
    )
    needs: list[str] = Field(default=[], description="The steps whose end it waits for.")
    config: dict[str, Any] = Field(
        default={},
        description="Anything for the handler, which finds it in `ctx.step_config`; with a `type`,"
        " what is asked or waited for, or which flow it is.",
    )
    retry: Retry | None = Field(
        default=None,
        description="`max_attempts`, and in seconds `base` and `longest`, and `factor`; what is"
        " not given, or as it is by default, the handler's registration says.",
    )
    timeout: timedelta | None = Field(
        default=None,
        description="Seconds: the bound of one execution; else the handler's, the queue's, 300.",
    )
    queue: str | None = Field(
        default=None, description="Its queue; else the flow's, the handler's."
    )
    join: Join | None = Field(
        default=None,
        description="When it runs: once `all` that it needs completed (the default), or `any` of"
        " them, or all have ended and `none_failed`, or as soon as `one_failed`. Else it is"
        " skipped.",
    )
    when: str | None = Field(
        default=None,
        description="What must be true for it to run, a predicate in SQL/JSON path over the state"
        " values: `$.score > 0.5`; `$input` is the flow's input, `$inputs` its own. Else it is"
        " skipped.",
    )
    on_failure: OnFailure = Field(
        default="fail",
        description="If it does not complete: `fail` ends the flow, `continue` leaves it to the"
        " join rules of the steps that need it, and `{run: STEP}` runs another step as well.",
    )
    budget: Budget | None = Field(
        default=None, description="How much its run and all below that may spend; as a flow's."
    )
    artifact: dict[str, Any] | None = Field(
        default=None,
        description="What it has to leave behind with `ctx.artifact`: a `name`, and if wanted"
        " `schema` (the name of one that is stored, or a JSON Schema; in Python also a pydantic"
        " model), `schema_version`, and"
        " `repairs`, how often it is done again if that is missing or invalid, 1.",
    )
    role: str | None = Field(
        default=None,
        description="What its handler needs an agent for; it finds in `ctx.binding` the one that"
        " the run is bound to.",
    )
    gates: list[str | dict[str, Any]] = Field(
        default=[],
        description="Who approves what it has done, one after the other, before any other step"
        " sees it: names, or objects of `name` and what an `approval_gate` has in its `config`.",
    )
    description: str | None = Field(default=None, description="For people.")

    def definition(self) -> dict[str, Any]:
        """Return what `add_step` is given, as JSON has it."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @field_serializer("retry")
    def _seconds_of(self, retry: Retry | None) -> dict[str, float] | None:
        """Leave out what is so by default: it is left to the handler, as where it isn't given."""
        if retry is None:
            return None
        default = Retry()
        told: dict[str, float | None] = {
            "max_attempts": retry.max_attempts,
            "base": retry.base.total_seconds() if retry.base != default.base else None,
            "factor": retry.factor if retry.factor != default.factor else None,
            "longest": retry.longest.total_seconds() if retry.longest != default.longest else None,
        }
        return {name: value for name, value in told.items() if value is not None}

    @field_serializer("artifact")
    def _schema_of(self, artifact: dict[str, Any] | None) -> dict[str, Any] | None:
        schema = None if artifact is None else artifact.get("schema")
        if artifact is None or not isinstance(schema, type) or not issubclass(schema, BaseModel):
            return artifact
        return {**artifact, "schema": schema.model_json_schema()}

    @field_serializer("timeout")
    def _seconds(self, timeout: timedelta | None) -> float | None:
        return None if timeout is None else timeout.total_seconds()


class Breakpoints(BaseModel):
    """Where the runs of a flow stop: before steps begin, and after they completed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: list[str] = []
    after: list[str] = []


class Flow(BaseModel):
    """A flow: a name, and steps that need each other.

    >>> Flow(name="review", steps=[Step(name="draft"), Step(name="publish", needs=["draft"])]).name
    'review'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="By which it is started: as a step's.")
    steps: list[Step] = Field(description="In any order; theirs is what they need.")
    queue: str | None = Field(default=None, description="The queue of steps that name none.")
    output: dict[str, str] = Field(
        default={},
        description="What its run returns: a name for each, and the step whose output it is;"
        " without it, the state values if it has channels, else the outputs of the steps that no"
        " other needs, by name.",
    )
    channels: dict[str, Channel] = Field(
        default={}, description="Its state: values by name, to which steps write."
    )
    layered: bool = Field(
        default=False,
        description="Whether steps begin only once all that began before them have ended.",
    )
    input_schema: dict[str, Any] | None = Field(
        default=None,
        description="What its input has to fit: a JSON Schema, within what forms know.",
    )
    budget: Budget | None = Field(
        default=None,
        description="How much its run and all below that may spend: `usd`, `tokens`, `seconds`,"
        " `on_breach`, `assignee`, `assignee_role`; [money.md](money.md#budgets).",
    )
    breakpoints: Breakpoints = Field(
        default=Breakpoints(),
        description="Where its runs stop until somebody lets them go on: lists of steps, `before`"
        " and `after`.",
    )
    description: str | None = Field(default=None, description="For people.")

    def definition(self) -> dict[str, Any]:
        """Return what `define_flow` is given, as JSON has it."""
        return self.model_dump(mode="json", exclude_defaults=True)


def read_definition(path: Path) -> Any:  # noqa: ANN401 - any JSON, which the database checks
    """Read the definition of a flow from a YAML or JSON file. Raises BadDefinition."""
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadDefinition(f"{path} cannot be read: {error}") from error


@dataclass(slots=True, frozen=True)
class FlowVersion:
    """A version of a flow, as `define_flow` returns it; `sha256` of its content is in hex."""

    flow: str
    version: int
    sha256: str
    created_at: datetime
    created_by: str
    definition: dict[str, Any]


@dataclass(slots=True, frozen=True)
class StepType:
    """What steps of a type have in common, as `register_step_type` returns it."""

    name: str
    interactive: bool
    kind: str | None
    handler: str | None
    form_schema: dict[str, Any] | None
    default_due: timedelta | None
    default_policy: str | None
    default_config: dict[str, Any]
    description: str | None


@dataclass(slots=True, frozen=True)
class AgentVersion:
    """A version of an agent, as `define_agent` returns it; `sha256` of its content is in hex."""

    agent: str
    version: int
    model: str
    backend: str | None
    config: dict[str, Any]
    sha256: str
    created_at: datetime
    created_by: str


@dataclass(slots=True, frozen=True)
class Binding:
    """The agent that a role of a run was bound to when the run started."""

    role: str
    agent: str
    version: int
    sha256: str
    model: str
    backend: str | None
    config: dict[str, Any]


@dataclass(slots=True, frozen=True)
class FailedNeed:
    """What became of a step that did not complete: its state, and why."""

    state: str
    run_id: str
    error_code: str | None = None
    error_detail: str | None = None
