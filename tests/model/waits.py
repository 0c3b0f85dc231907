"""What workers and time do to runs that wait: park, steps, the ends of an execution, tick."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from tests.model.journeys import BY_PEOPLE, Entry, Journey, Journeys, Task, Wait
from tests.model.runs import Lease

LEASE_TTL = timedelta(seconds=60)


@dataclass(frozen=True)
class Ask:
    """A wait as a worker names it; more is what else the kind has."""

    kind: str
    key: str
    about: str = "aa"
    more: dict[str, Any] = field(default_factory=dict)


class Waits(Journeys):
    """The verbs of workers, and the duties of time."""

    def in_(self, seconds: float | None) -> datetime | None:
        return None if seconds is None else self.now + timedelta(seconds=seconds)

    def acquire(self, run: Journey) -> None:
        run.state = "running"
        run.lease_no += 1

    # ---- park

    def park(self, lease: Lease, news: int, asks: Sequence[Ask], *, wait_any: bool) -> str:
        run = self.runs[lease.run_id]
        if not self.holds(lease):
            return self.after(lease, {"run.waiting"})
        if run.news != news:
            return "news"
        keys = frozenset(ask.key for ask in asks)
        changed = {ask.key: run.task(ask.key) for ask in asks if self._is_changed(run, ask)}
        if any(t and t.replaces and t.replaces.replaces for t in changed.values()):
            self._pause(run, "run.paused E-RUN-012")
            return "done"
        before = deepcopy(self.runs)
        for key in sorted(changed, key=lambda key: (len(key), key)):  # the order of jsonb
            task = changed[key]
            if task is not None and task.state == "open":
                task.void()
            elif key in run.journal:
                self.void_from(run, key)
        for ask in asks:
            self._open(run, ask, changed.get(ask.key))
        self._close_but(run, keys)
        taken = self.take_signals(run, keys, wait_any=wait_any)
        if run.has_all(keys, wait_any=wait_any):
            if taken:
                return "news"
            self.runs = before
            return "refused"
        self._stand(run, asks, keys, wait_any=wait_any)
        self.expire_tasks(run)
        return "done"

    def _is_changed(self, run: Journey, ask: Ask) -> bool:
        task, entry = run.task(ask.key), run.journal.get(ask.key)
        about = task.about if task else entry.about if entry else ask.about
        return ask.kind in BY_PEOPLE and about != ask.about

    def _open(self, run: Journey, ask: Ask, replaces: Task | None) -> None:
        if ask.key in run.journal:
            run.drop_wait(ask.key)
        elif ask.kind in BY_PEOPLE:
            if run.task(ask.key) is None:
                more = {key: value for key, value in ask.more.items() if key != "due_in"}
                due_at = self.in_(ask.more.get("due_in"))
                task = Task(ask.key, ask.kind, ask.about, due_at, **more, replaces=replaces)
                run.tasks.append(task)
        elif run.wait(ask.key) is None:
            due_at = self.in_(ask.more.get("seconds", ask.more.get("timeout")))
            run.waits.append(Wait(ask.kind, ask.key, ask.more.get("name", ""), due_at))
            if ask.kind == "run":
                child = Journey(
                    uuid4(), ask.more["max_attempts"], run.deadline, run.run_id, ask.key
                )
                child.depth = run.depth + 1
                self.runs[child.run_id] = child

    def name_child(self, known_as: UUID, run_id: UUID) -> None:
        """Give a child the id that the engine gave it."""
        child = self.runs.pop(known_as)
        child.run_id = run_id
        self.runs[run_id] = child

    def _close_but(self, run: Journey, keys: frozenset[str]) -> None:
        run.waits = [wait for wait in run.waits if wait.key in keys]
        for task in run.open_tasks():
            if task.key not in keys:
                task.void()
        self.end_children(run, keys)

    def _stand(
        self, run: Journey, asks: Sequence[Ask], keys: frozenset[str], *, wait_any: bool
    ) -> None:
        missing = [ask for ask in asks if ask.key not in run.journal]
        kinds = {ask.kind for ask in missing}
        self.leave(run, "run.waiting")
        if kinds == {"sleep"} and len(missing) == 1:
            (wait,) = run.waits
            run.state, run.run_at, run.waits = "scheduled", wait.due_at, []
            run.news += 1
            run.journal[wait.key] = Entry("sleep")
            return
        run.waits_for, run.wait_any = keys, wait_any
        if kinds & {"interrupt", "breakpoint"}:
            run.state, run.stopped_by = "paused", "handler"
        elif kinds & {"approval", "form"}:
            run.state = "waiting_approval"
        else:
            run.state = "waiting_tool" if "tool" in kinds else "waiting_event"

    # ---- the other verbs of workers

    def record_step(self, lease: Lease, key: str, *, undo: bool) -> str:
        run = self.runs[lease.run_id]
        known = run.journal.get(key)
        if known is not None:
            same = known.lease_no == lease.lease_no
            return "lost" if not same else "done" if self.holds(lease) else "already"
        if not self.holds(lease):
            return "lost"
        run.journal[key] = Entry("step", lease_no=lease.lease_no, undo=undo)
        return "done"

    def complete(self, lease: Lease) -> str:
        if not self.holds(lease):
            return self.after(lease, {"completed"})
        self.end(self.runs[lease.run_id], "completed")
        return "done"

    def fail(self, lease: Lease, *, retry: bool) -> str:
        """Fail an execution; when it is tried again the engine says."""
        run = self.runs[lease.run_id]
        if not self.holds(lease):
            return self.after(lease, {"failed E-RUN-001", "run.retried"})
        if retry and run.attempt + 1 < run.max_attempts:
            self.leave(run, "run.retried")
            run.attempt += 1
            run.state, run.run_at = "scheduled", None
        else:
            self.end(run, "failed", "E-RUN-001")
        return "done"

    def release(self, lease: Lease) -> str:
        if not self.holds(lease):
            return self.after(lease, {"run.released"})
        self.leave(self.runs[lease.run_id], "run.released")
        self.ready(self.runs[lease.run_id])
        return "done"

    def _pause(self, run: Journey, how: str) -> None:
        self.leave(run, how)
        run.state, run.stopped_by = "paused", "operator"

    # ---- time

    def tick(self) -> None:
        for run in self.live():
            if run.state == "scheduled" and run.run_at is not None and run.run_at <= self.now:
                self.ready(run)
        self._reap()
        for run in self.live():
            by_operator = run.state == "paused" and not run.stands_still
            if run.is_live and run.is_overdue(self.now) and not by_operator:
                self.end(run, "timeout", "E-RUN-003")
        for run in self.live():
            self.time_out(run)
        for run in self.live():
            self.expire_tasks(run)

    def _reap(self) -> None:
        if self.beat_at >= self.now - LEASE_TTL:
            return
        for run in self.live():
            if run.state != "running":
                continue
            if run.attempt + 1 < run.max_attempts:
                self.leave(run, "run.requeued")
                run.attempt += 1
                self.ready(run)
            else:
                self.end(run, "failed", "E-RUN-002")

    def time_out(self, run: Journey) -> None:
        """End the waits whose time is up, until the run is woken."""
        due = [(w.due_at, w.key, w) for w in run.waits if w.due_at and w.due_at <= self.now]
        for _, key, wait in sorted(due, key=lambda item: item[:2]):
            if run.is_live and run.state != "paused" and key in (run.waits_for or ()):
                self.resolve(run, key, Entry("sleep" if wait.kind == "sleep" else "timeout"))

    def expire_tasks(self, run: Journey) -> None:
        """Do what the policies of overdue tasks say, until the run goes on or ends."""
        due = [task for task in run.tasks if task.is_due(self.now)]
        for task in sorted(due, key=lambda task: (task.due_at, task.key)):
            if run.is_live and run.state != "paused" and task.key in (run.waits_for or ()):
                self._expire(run, task)

    def _expire(self, run: Journey, task: Task) -> None:
        if task.policy == "escalate":
            task.assignee, task.role, task.claimed_by = None, "bosses", None
            task.due_at, task.policy = self.in_(task.escalate_in), "cancel"
            return
        task.state = "expired"
        if task.policy == "approve" or (task.policy, task.on_reject) == ("reject", "resume"):
            self.resolve(run, task.key, Entry(task.kind, task.about))
        elif task.policy == "timeout":
            self.end(run, "timeout", "E-RUN-007")
        else:
            fails = task.policy == "reject" and task.on_reject == "fail"
            self.end(run, "failed" if fails else "cancelled", "E-RUN-007")
