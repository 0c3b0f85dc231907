"""What passes between the database and Python."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Self, TypeVar
from uuid import UUID

from pgflow.errors import RunNotCompleted

T = TypeVar("T")
Outcomes = Literal["done", "already", "lost", "refused", "news", "stops", "budget"]


class _FromJson:
    """Made from a json object of the database; fields that it doesn't know are left out."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make one from `values`."""
        known = _field_names(cls)
        return cls(**{name: value for name, value in values.items() if name in known})


_names: dict[type, frozenset[str]] = {}


def _field_names(cls: type[Any]) -> frozenset[str]:
    if cls not in _names:
        _names[cls] = frozenset(f.name for f in fields(cls))
    return _names[cls]


@dataclass(slots=True)
class Entry(_FromJson):
    """One journal entry: what a run has learned under a key."""

    key: str
    kind: str
    value: Any = None
    digest: str | None = None
    place: int = field(default=0, compare=False)
    lease_no: int | None = field(default=None, compare=False)


@dataclass(slots=True)
class Lease:
    """A run that this worker holds. `lease_no` is the fencing token; `timeout` is in seconds.

    `unreadable` says why input and journal could not be read, where they couldn't; `more`
    has all that acquire returned, what few runs have is looked up there.
    """

    run_id: str
    lease_no: int
    handler: str
    queue: str
    input: Any
    news: int
    attempt: int
    max_attempts: int
    timeout: float | None = None
    deadline: str | None = None
    correlation_id: str | None = None
    tags: list[str] | None = None
    priority: int = 0
    created_by: str = ""
    journal: list[dict[str, Any]] | None = None
    unreadable: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, run: dict[str, Any]) -> Self:
        """Make one from what acquire returns. Field by field: this is done for every run."""
        return cls(
            run["run_id"],
            run["lease_no"],
            run["handler"],
            run["queue"],
            run["input"],
            run["news"],
            run["attempt"],
            run["max_attempts"],
            run.get("timeout"),
            run.get("deadline"),
            run.get("correlation_id"),
            run.get("tags"),
            run["priority"],
            run["created_by"],
            run.get("journal"),
            None,
            run,
        )

    # What few runs have, looked up when it is asked for.

    @property
    def round(self) -> int:
        """How often the run was rolled back."""
        return self.more.get("round") or 0

    @property
    def feedback(self) -> dict[str, Any] | None:
        """Why it was rolled back last."""
        return self.more.get("feedback")

    @property
    def breakpoints(self) -> list[str] | None:
        """Where it stops: `before KEY`, `after KEY`."""
        return self.more.get("breakpoints")

    def set_breakpoints(self, text: str | None) -> None:
        """Take the breakpoints that a beat told, as json text; None: there are none."""
        if text is not None or "breakpoints" in self.more:
            self.more = {**self.more, "breakpoints": text and json.loads(text)}

    @property
    def budget(self) -> dict[str, Any]:
        """What is left to the run: usd, tokens, seconds; what is not there is not bounded."""
        return self.more.get("budget") or {}

    def set_budget(self, text: str) -> None:
        """Take what record_usage told is left, as json text."""
        self.more = {**self.more, "budget": json.loads(text)}

    @property
    def undo(self) -> list[dict[str, Any]] | None:
        """Old entries, newest first, to be undone before the handler goes on."""
        return self.more.get("undo")

    @property
    def undo_of(self) -> str | None:
        """The run that this one undoes."""
        return self.more.get("undo_of")


@dataclass(slots=True, frozen=True)
class Reaped(_FromJson):
    """A run that was taken back from a dead worker, and the state that it is in now."""

    run_id: str
    state: str
    worker_id: str
    attempt_count: int
    max_attempts: int


@dataclass(slots=True, frozen=True)
class Acquired:
    """What a look for work brought. `marks` is opaque; `look_again_in` is in seconds.

    `batch` is the number of the leases, if there are any.
    """

    leases: list[Lease]
    marks: str
    look_again_in: float
    reaped: list[Reaped]
    batch: int | None


@dataclass(slots=True, frozen=True)
class Outcome:
    """What became of one run in a batch."""

    run_id: str
    outcome: Outcomes
    state: str | None = None
    code: str | None = None
    detail: str | None = None


@dataclass(slots=True, frozen=True)
class Maintained:
    """One step of upkeep: what was done, what a lock stood in the way of, when to call again."""

    did: str | None
    blocked: str | None
    again_in: timedelta


@dataclass(slots=True, frozen=True)
class Parked:
    """What became of one run that was to wait."""

    run_id: str
    outcome: Outcomes
    news: int | None = None
    entries: list[dict[str, Any]] | None = None
    code: str | None = None
    detail: str | None = None


@dataclass(slots=True, frozen=True)
class Decision:
    """What was decided about a task. `repeated`: this is the first decision, made before."""

    task_id: UUID
    run_id: UUID
    action: str
    decided_by: str
    decided_at: datetime
    comment: str | None
    data: Any
    repeated: bool


@dataclass(slots=True, frozen=True)
class Approval(_FromJson):
    """What `Context.approval` returns: who decided what, when, and with which words.

    `votes` are the single decisions, where more than one was wanted.
    """

    task_id: str
    action: str
    approved: bool
    decided_by: str
    decided_at: str
    comment: str | None = None
    data: Any = None
    payload_sha256: str = ""
    votes: list[dict[str, Any]] | None = None


@dataclass(slots=True)
class Answer(_FromJson, Generic[T]):
    """What `Context.form` returns: who answered when, and `data`, read as the form's type."""

    task_id: str
    action: str
    data: T
    decided_by: str | None = None
    decided_at: str | None = None
    comment: str | None = None


@dataclass(slots=True, frozen=True)
class Event:
    """One line of a run's timeline. `event_no` rises by one within the run, from 1.

    `step` is the key of the step or approval, `worker_id` and `lease_no` are those of a lease that
    began or ended with this line; `emit` returns neither.
    """

    run_id: UUID
    event_no: int
    type: str
    key: str | None
    payload: Any
    at: datetime
    by: str
    step: str | None = None
    attempt: int | None = None
    lease_no: int | None = None
    worker_id: str | None = None

    @property
    def is_last(self) -> bool:
        """Whether the run ended with this line."""
        return self.type in _LAST


@dataclass(slots=True, frozen=True)
class Delivery(Event):
    """An event that a subscription brought, the batch that it came in, and where it stands."""

    handler: str = ""
    queue: str = ""
    correlation_id: str = ""
    batch_no: int = 0
    position: str = ""


_LAST = frozenset({"run.completed", "run.failed", "run.cancelled", "run.aborted", "run.timed_out"})
ENDS = frozenset({"completed", "failed", "cancelled", "timeout"})


@dataclass(slots=True, frozen=True)
class Paused:
    """Why a run is paused, and, where its handler stopped at a call, that step and its payload."""

    reason: str
    step: str | None = None
    payload: Any = None


@dataclass(slots=True, frozen=True)
class Result:
    """What became of a run: a row of view runs, as `result` returns it.

    `error` is what the last failed execution raised (type, message, traceback), kept after a later
    success. `paused` is None if it is not. `super_step` and `final_report`, which `report` takes,
    are a flow's; the latter once it has ended.
    """

    run_id: UUID
    handler: str
    state: str
    output: Any
    error_code: str | None
    error_detail: str | None
    error: dict[str, Any] | None
    paused: Paused | None
    finished_at: datetime | None
    super_step: int | None = None
    final_report: UUID | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing can change any more."""
        return self.state in ENDS

    @property
    def value(self) -> Any:  # noqa: ANN401 - any JSON
        """The output of a completed run. Raises RunNotCompleted for any other."""
        self.raise_for_state()
        return self.output

    def raise_for_state(self) -> None:
        """Raise RunNotCompleted unless the run is completed."""
        if self.state != "completed":
            why = self.paused.reason if self.paused else self.error_detail
            raise RunNotCompleted(
                f"run {self.run_id} is {self.state}"
                + f" ({self.error_code})" * (self.error_code is not None)
                + f": {why}" * (why is not None),
                self,
            )


@dataclass(slots=True, frozen=True)
class Retry:
    """How often and when a failed execution is done again.

    The n-th retry waits `base` * `factor`^(n-1), at most `longest`, each time shortened by up to
    a half at random. The database computes it.
    """

    max_attempts: int | None = None
    base: timedelta = field(default=timedelta(seconds=1))
    factor: float = 2.0
    longest: timedelta = field(default=timedelta(hours=1))
