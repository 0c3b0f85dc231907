"""What the model knows of a run, its leases and its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

ENDS = frozenset({"completed", "failed", "cancelled", "timeout"})


@dataclass(frozen=True, order=True)
class Lease:
    """What a worker was given: it may be long gone."""

    run_id: UUID
    lease_no: int


@dataclass
class Task:
    """A question to a person."""

    due_at: datetime | None
    on_reject: str
    state: str = "open"

    def is_due(self, now: datetime) -> bool:
        return self.state == "open" and self.due_at is not None and self.due_at <= now


@dataclass(eq=False)
class Run:
    """A run, live or ended."""

    run_id: UUID
    handler: str
    queue: str
    priority: int
    max_attempts: int
    deadline: datetime | None = None
    run_at: datetime | None = None
    budget: int | None = None
    state: str = "pending"
    lane: int = 1
    seq: int = 0
    attempt: int = 0
    lease_no: int = 0
    worker: str = ""
    leased_at: datetime = datetime(1, 1, 1, tzinfo=UTC)
    waits_for: frozenset[str] = frozenset()
    wait_any: bool = False
    news: int = 0
    journal: dict[str, int] = field(default_factory=dict)  # the lease that wrote it; 0: a person
    tasks: dict[str, Task] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)  # of models, and what each cost
    how_ended: dict[int, str] = field(default_factory=dict)  # of each lease that is gone

    @property
    def is_live(self) -> bool:
        return self.state not in ENDS

    @property
    def starts_at(self) -> datetime:
        """When it starts, if it is scheduled."""
        return self.run_at or datetime.max.replace(tzinfo=UTC)

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands among the ready runs."""
        return -self.priority, self.lane, self.seq

    def is_overdue(self, now: datetime) -> bool:
        return self.deadline is not None and self.deadline <= now

    def is_satisfied(self, keys: frozenset[str], *, wait_any: bool) -> bool:
        come = len(keys & self.journal.keys())
        return come >= (1 if wait_any else len(keys))

    @property
    def has_what_it_waits_for(self) -> bool:
        return self.is_satisfied(self.waits_for, wait_any=self.wait_any)

    def due_tasks(self, now: datetime) -> list[tuple[str, Task]]:
        """Tasks that nobody decided in time, of those it waits for, the earliest first."""
        due = [(k, t) for k, t in self.tasks.items() if k in self.waits_for and t.is_due(now)]
        return sorted(due, key=lambda item: (item[1].due_at or now, item[0]))


class Runs:
    """All runs of a program at the time `now`, and the moves that verbs make with them."""

    def __init__(self, now: datetime, last_tick: datetime) -> None:
        self.now = now
        self.last_tick = last_tick
        self.runs: dict[UUID, Run] = {}
        self.keys: dict[str, UUID] = {}
        self.beats: dict[str, datetime] = {}
        self._last_seq = 0

    # ---- looking

    def live(self) -> list[Run]:
        return sorted((r for r in self.runs.values() if r.is_live), key=lambda r: r.run_id)

    def running(self, worker: str | None = None) -> list[Run]:
        return [r for r in self.live() if r.state == "running" and worker in {None, r.worker}]

    def holds(self, lease: Lease) -> bool:
        run = self.runs[lease.run_id]
        return run.state == "running" and run.lease_no == lease.lease_no

    # ---- moves

    def _ready(self, runs: Sequence[Run], lane: int | None = 0) -> None:
        """Make runs pending that nobody tells apart: they share their place."""
        self._last_seq += 1
        for run in runs:
            run.state, run.seq, run.waits_for = "pending", self._last_seq, frozenset()
            run.lane = run.lane if lane is None else lane

    def _give_back(self, runs: Sequence[Run], how: str) -> None:
        for run in runs:
            self._leave(run, how)
        self._ready(runs)

    def _end(self, run: Run, state: str, how: str) -> None:
        if run.state == "running":
            run.attempt += state == "failed"
            self._leave(run, how)
        run.state = state
        for task in run.tasks.values():
            task.state = "cancelled" if task.state == "open" else task.state

    def _leave(self, run: Run, how: str) -> None:
        """End the lease, if it has one."""
        if run.state == "running":
            run.how_ended[run.lease_no] = how

    def _after(self, lease: Lease, ends: set[str]) -> str:
        """Tell whether this verb had ended the lease before: its reply was lost."""
        how = self.runs[lease.run_id].how_ended.get(lease.lease_no)
        return "already" if how in ends else "lost"
