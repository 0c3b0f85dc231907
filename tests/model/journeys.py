"""Runs that wait, in memory: journal, tasks, mailbox, children, and the moves that verbs share."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from tests.model.runs import ENDS, Lease

STANDS = frozenset({"waiting_tool", "waiting_approval", "waiting_event"})
BY_PEOPLE = frozenset({"approval", "form", "interrupt", "breakpoint"})


@dataclass
class Entry:
    """What a journey has learned under a key."""

    kind: str
    about: str = "aa"
    value: object = None
    lease_no: int | None = None
    undo: bool = False


@dataclass
class Wait:
    """What is asked beside tasks."""

    kind: str
    key: str
    name: str
    due_at: datetime | None


@dataclass(eq=False, repr=False)
class Task:
    """What a person is asked."""

    key: str
    kind: str
    about: str
    due_at: datetime | None = None
    policy: str = "cancel"
    escalate_in: float = 0
    on_reject: str = "cancel"
    quorum: int = 1
    quorum_of: int | None = None
    assignee: str | None = None
    role: str | None = None
    claimed_by: str | None = None
    state: str = "open"
    is_void: bool = False
    replaces: Task | None = None
    task_id: UUID | None = None
    answer: object = None
    votes: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.key} {self.state} {self.task_id}>"

    def is_for(self, person: str) -> bool:
        """Whether somebody whom only the application knows may decide."""
        if self.claimed_by not in {None, person}:
            return False
        return self.role is not None or self.assignee in {None, person}

    def void(self) -> None:
        """Have it count no more."""
        self.is_void = True
        self.state = "cancelled" if self.state == "open" else self.state

    def is_due(self, now: datetime) -> bool:
        return self.state == "open" and self.due_at is not None and self.due_at <= now

    @property
    def refusal(self) -> str:
        """What is said to those who come too late."""
        return "PF202" if self.state == "cancelled" and not self.is_void else "PF402"


@dataclass
class Signal:
    """What lies, or lay, in the mailbox."""

    number: int
    name: str
    payload: int
    key: str | None
    taken_as: str | None = None


@dataclass(eq=False, repr=False)
class Journey:
    """A run, live or ended."""

    run_id: UUID
    max_attempts: int
    deadline: datetime | None = None
    parent: UUID | None = None
    parent_key: str | None = None
    depth: int = 0
    state: str = "pending"
    stopped_by: str = ""  # who paused it: the operator, the engine or, standing still, its handler
    is_held: bool = False  # its deadlines stand still
    attempt: int = 0
    lease_no: int = 0
    news: int = 0
    round: int = 0
    run_at: datetime | None = None
    waits_for: frozenset[str] | None = None
    wait_any: bool = False
    waits: list[Wait] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    mailbox: list[Signal] = field(default_factory=list)
    journal: dict[str, Entry] = field(default_factory=dict)
    voided: dict[tuple[int, str], Entry] = field(default_factory=dict)
    replaced: set[tuple[int, str]] = field(default_factory=set)
    how_ended: dict[int, str] = field(default_factory=dict)  # of each lease that is gone

    def __repr__(self) -> str:
        return f"<{self.run_id} {self.state}>"

    @property
    def is_live(self) -> bool:
        return self.state not in ENDS

    @property
    def stands_still(self) -> bool:
        return self.state in STANDS or (self.state == "paused" and self.stopped_by == "handler")

    def is_overdue(self, now: datetime) -> bool:
        return self.deadline is not None and self.deadline <= now

    def move_on(self, span: timedelta) -> None:
        """Move its deadlines by as long as they stood still."""
        self.deadline = self.deadline and self.deadline + span
        timed: list[Wait | Task] = [*self.waits, *self.open_tasks()]
        for each in timed:
            each.due_at = each.due_at and each.due_at + span

    def has_all(self, keys: Collection[str], *, wait_any: bool) -> bool:
        return len(set(keys) & self.journal.keys()) >= (1 if wait_any else len(keys))

    @property
    def is_satisfied(self) -> bool:
        return self.waits_for is not None and self.has_all(self.waits_for, wait_any=self.wait_any)

    def task(self, key: str) -> Task | None:
        """Return the task under a key that counts."""
        return next((t for t in self.tasks if t.key == key and not t.is_void), None)

    def open_tasks(self) -> list[Task]:
        return [task for task in self.tasks if task.state == "open"]

    def wait(self, key: str) -> Wait | None:
        return next((wait for wait in self.waits if wait.key == key), None)

    @property
    def is_interrupted(self) -> bool:
        """Whether it waits for somebody to pass an interrupt or a breakpoint."""
        stops = [t for t in self.open_tasks() if t.kind in {"interrupt", "breakpoint"}]
        return any(task.key in (self.waits_for or ()) for task in stops)

    def drop_wait(self, key: str) -> None:
        self.waits = [wait for wait in self.waits if wait.key != key]

    def to_undo(self) -> set[tuple[int, str]]:
        """Return the voided steps that are to be undone."""
        return {
            (round_no, key)
            for (round_no, key), entry in self.voided.items()
            if entry.undo and f"undo/{round_no}/{key}" not in self.journal
        }


class Journeys:
    """All runs of a program at the time `now`, and the moves that verbs make with them."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.runs: dict[UUID, Journey] = {}
        self.beat_at = now

    def time_moves_on(self, now: datetime) -> None:
        """Let it be a later time; for a run whose deadlines are held it is as far to them."""
        for run in self.live():
            if run.is_held:
                run.move_on(now - self.now)
        self.now = now

    def live(self) -> list[Journey]:
        """Return live runs by their ids, which is the order of the engine's duties."""
        return sorted((run for run in self.runs.values() if run.is_live), key=lambda r: r.run_id)

    def holds(self, lease: Lease) -> bool:
        run = self.runs[lease.run_id]
        return run.state == "running" and run.lease_no == lease.lease_no

    def children(self, run: Journey) -> list[Journey]:
        return [child for child in self.live() if child.parent == run.run_id]

    def after(self, lease: Lease, ends: set[str]) -> str:
        """Tell whether this verb had ended the lease before: its reply was lost."""
        how = self.runs[lease.run_id].how_ended.get(lease.lease_no)
        return "already" if how in ends else "lost"

    def leave(self, run: Journey, how: str) -> None:
        """End the lease, if there is one."""
        if run.state == "running":
            run.how_ended[run.lease_no] = how

    def ready(self, run: Journey) -> None:
        run.state, run.waits_for, run.wait_any, run.stopped_by = "pending", None, False, ""

    def resolve(self, run: Journey, key: str, entry: Entry, *, wakes: bool = True) -> None:
        """Write what a run waits for, and wake it if that was the last thing."""
        run.news += 1
        run.journal[key] = entry
        run.drop_wait(key)
        if wakes and run.stands_still and run.is_satisfied:
            self.ready(run)

    def take_signals(self, run: Journey, keys: Collection[str], *, wait_any: bool) -> int:
        """Answer calls from the mailbox, the oldest signal first; return how many."""
        taken = 0
        for wait in [w for w in run.waits if w.kind == "event" and w.key in keys]:
            if wait_any and run.has_all(keys, wait_any=True):
                break
            signal = next(
                (s for s in run.mailbox if s.name == wait.name and s.taken_as is None), None
            )
            if signal is not None:
                signal.taken_as = wait.key
                self.resolve(run, wait.key, Entry("event", value=signal.payload), wakes=False)
                taken += 1
        return taken

    def end(self, run: Journey, state: str, code: str = "") -> None:
        """End a run and all below it, and tell its parent."""
        if run.state == "running":
            run.attempt += state == "failed"
            self.leave(run, f"{state} {code}".strip())
        run.state = state
        for task in run.open_tasks():
            task.state = "cancelled"
        self.end_children(run)
        parent = self.runs.get(run.parent) if run.parent else None
        if run.parent_key is not None and parent is not None and parent.is_live:
            self.resolve(parent, run.parent_key, Entry("run"))

    def end_children(self, run: Journey, keep: Iterable[str] = ()) -> None:
        """End children without telling, but those under some keys."""
        for child in self.children(run):
            if child.is_live and child.parent_key not in set(keep):
                child.parent_key = None
                self.end(child, "cancelled", "E-RUN-011")

    def void_from(self, run: Journey, key: str) -> None:
        """Void an entry and all after it, and all that is open."""
        keys = list(run.journal)
        for late in keys[keys.index(key) :]:
            if not late.startswith("undo/"):
                run.voided[run.round, late] = run.journal.pop(late)
                for signal in run.mailbox:
                    signal.taken_as = None if signal.taken_as == late else signal.taken_as
        for task in run.tasks:
            if not task.is_void and task.key not in run.journal:
                task.void()
        self.end_children(run)
        run.waits = []
        run.round += 1
