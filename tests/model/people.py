"""The model of runs that wait: what people, tools, senders of signals and operators do to them.

Each verb returns what the engine must say: its value, or the SQLSTATE of its refusal.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.model.journeys import Entry, Journey, Signal, Task
from tests.model.waits import Waits

CONTINUE = {"continue": True}


def is_known(run: Journey, key: str) -> bool:
    """Whether one can go back to an entry: not to the record of what was undone."""
    return key in run.journal and not key.startswith("undo/")


class People(Waits):
    """The verbs of all who are no workers."""

    # ---- tasks

    def approve(self, run: Journey, task: Task, person: str) -> str:
        if not task.is_for(person):
            return "PF501"
        if task.kind != "approval":
            return "PF101"
        return self._decide(run, task, person, "approved")

    def reject(self, run: Journey, task: Task, person: str, rollback_to: str | None) -> str:
        if not task.is_for(person):
            return "PF501"
        if task.kind not in {"approval", "form"}:
            return "PF101"
        return self._decide(run, task, person, "rejected", rollback_to)

    def answer(self, run: Journey, task: Task, person: str, data: dict[str, Any]) -> str:
        if not task.is_for(person):
            return "PF501"
        if task.kind == "approval" or (task.kind == "form" and not isinstance(data["n"], int)):
            return "PF101"
        if task.state == "answered" and task.answer != data:
            return "PF402"
        said = self._decide(run, task, person, "answered")
        task.answer = data if said == "answered" else task.answer
        return said

    def _decide(
        self, run: Journey, task: Task, person: str, state: str, rollback_to: str | None = None
    ) -> str:
        if task.state == state:
            return "repeated"
        if task.state != "open" or task.is_due(self.now):
            return task.refusal
        if rollback_to is not None and not is_known(run, rollback_to):
            return "PF105"
        if task.quorum > 1 and rollback_to is None:
            state = self._vote(task, person, state)
            if state not in {"approved", "rejected"}:
                return state
        task.state = state
        if rollback_to is not None:
            self._roll_back(run, rollback_to)
        else:
            ends = state == "rejected" and task.on_reject != "resume"
            self._tell(run, task, wakes=not ends)
            if ends:
                self.end(run, "failed" if task.on_reject == "fail" else "cancelled", "E-RUN-006")
        return state

    def _tell(self, run: Journey, task: Task, *, wakes: bool = True) -> None:
        """Tell the handler, and have the run wait for the rest if it was the last interrupt."""
        self.resolve(run, task.key, Entry(task.kind, task.about), wakes=wakes)
        if wakes and run.state == "paused" and run.stands_still and not run.is_interrupted:
            self._go_on(run)

    def _vote(self, task: Task, person: str, action: str) -> str:
        if person in task.votes:
            return "repeated" if task.votes[person] == action else "PF402"
        task.votes[person] = action
        votes = list(task.votes.values())
        if votes.count("approved") >= task.quorum:
            return "approved"
        most = (task.quorum_of or task.quorum) - task.quorum
        return "rejected" if votes.count("rejected") > most else "open"

    def _roll_back(self, run: Journey, key: str) -> None:
        self.void_from(run, key)
        self.leave(run, "run.released")
        if run.state == "paused" and not run.stands_still:
            run.waits_for, run.wait_any = None, False
        else:
            self.ready(run)

    def claim_task(self, task: Task, person: str) -> str:
        if not task.is_for(person):
            return "PF501"
        if task.claimed_by == person and task.state == "open":
            return person
        if task.state != "open" or task.is_due(self.now):
            return task.refusal
        task.claimed_by = person
        return person

    def release_task(self, task: Task, person: str) -> str | bool:
        if not task.is_for(person):
            return "PF501"
        if task.claimed_by is None:
            return False
        if task.state != "open" or task.is_due(self.now):
            return task.refusal
        task.claimed_by = None
        return True

    def delegate(self, task: Task, person: str, assignee: str) -> str:
        if not task.is_for(person):
            return "PF501"
        if task.state != "open" or task.is_due(self.now):
            return task.refusal
        task.assignee, task.claimed_by = assignee, None
        return assignee

    # ---- signals and tools

    def signal(self, run: Journey, given: Signal) -> int | str:
        """Return the number, which for a new signal is the one that the engine gave it."""
        first = next((s for s in run.mailbox if given.key and s.key == given.key), None)
        if first is not None:
            same = (first.name, first.payload) == (given.name, given.payload)
            return first.number if same else "PF401"
        if not run.is_live:
            return "PF202"
        run.mailbox.append(given)
        if run.waits_for is None:
            return given.number
        taken = self.take_signals(run, run.waits_for, wait_any=run.wait_any)
        if taken and run.stands_still and run.is_satisfied:
            self.ready(run)
        return given.number

    def resolve_tool(self, run: Journey, key: str, result: int) -> str:
        known = run.journal.get(key)
        if known is not None and known.kind == "tool":
            return run.state if known.value == result else "PF402"
        refusal = self._refuse_tool(run, key)
        if refusal is not None:
            return refusal
        self.resolve(run, key, Entry("tool", value=result))
        return run.state

    def fail_tool(self, run: Journey, key: str) -> str:
        refusal = self._refuse_tool(run, key)
        if refusal is not None:
            return refusal
        run.drop_wait(key)
        if run.attempt + 1 >= run.max_attempts:
            run.attempt += run.state != "running"  # of which the end counts it
            self.end(run, "failed", "E-RUN-016")
            return "failed"
        run.attempt += 1
        if run.stands_still:
            self.ready(run)
        elif run.state == "paused":
            run.waits_for, run.wait_any = None, False
        return run.state

    def _refuse_tool(self, run: Journey, key: str) -> str | None:
        if not run.is_live:
            return "PF202"
        wait = run.wait(key)
        return "PF204" if wait is None or wait.kind != "tool" else None

    # ---- operators

    def cancel(self, run: Journey) -> str:
        if run.is_live:
            self.end(run, "cancelled")
        return run.state

    def pause(self, run: Journey, *, hold_deadlines: bool) -> str:
        if not run.is_live:
            return "PF202"
        if run.state == "paused" and run.stands_still:
            return "PF101" if hold_deadlines else "paused"
        if run.state != "paused":
            self._pause(run, "run.paused")
        run.is_held = run.is_held or hold_deadlines
        return "paused"

    def resume(self, run: Journey, command: dict[str, Any]) -> str:
        if not run.is_live:
            return "PF202"
        if run.state != "paused" or ("resume" in command and not run.stands_still):
            return run.state if command == CONTINUE else "PF204"
        if not all(is_known(run, key) for key in command.get("update", {})):
            return "PF105"
        if "resume" in command and len(self._passed(run, command)) != 1:
            return "PF101"
        if "update" in command:
            for key, value in command["update"].items():
                run.replaced.add((run.round, key))
                run.journal[key].value = value
            run.round += 1
        if run.stands_still:
            for task in self._passed(run, command):
                task.state, task.answer = "answered", command.get("resume")
                self._tell(run, task)
        else:
            self._go_on(run)
        return run.state

    def _passed(self, run: Journey, command: dict[str, Any]) -> list[Task]:
        tasks = sorted(run.open_tasks(), key=lambda task: task.key)
        stops = [task for task in tasks if task.kind == "breakpoint"]
        if stops and "resume" not in command:
            return stops[:1]
        interrupts = [task for task in tasks if task.kind == "interrupt"]
        return [task for task in interrupts if task.key == command.get("key", task.key)]

    def _go_on(self, run: Journey) -> None:
        run.stopped_by, run.is_held = "", False
        if run.is_overdue(self.now):
            self.end(run, "timeout", "E-RUN-003")
        elif run.waits_for is not None and not run.is_satisfied:
            run.state = "waiting_event"
            if any(w.kind == "tool" and w.key in run.waits_for for w in run.waits):
                run.state = "waiting_tool"
            if any(task.key in run.waits_for for task in run.open_tasks()):
                run.state = "waiting_approval"
            self.time_out(run)
            self.expire_tasks(run)
        elif run.waits_for is None and run.run_at is not None and run.run_at > self.now:
            run.state = "scheduled"
        else:
            self.ready(run)

    def fork(self, run: Journey, key: str, updates: dict[str, Any], run_id: UUID) -> str | None:
        """Make the run that the engine made, or return its refusal."""
        if run.state == "running":
            return "PF201"
        if not all(is_known(run, known) for known in (key, *updates)):
            return "PF105"
        keys = list(run.journal)
        if any(keys.index(known) >= keys.index(key) for known in updates):
            return "PF101"
        fork = Journey(run_id, run.max_attempts)
        for known in keys[: keys.index(key)]:
            entry = run.journal[known]
            if not known.startswith("undo/"):
                value = updates.get(known, entry.value)
                fork.journal[known] = Entry(entry.kind, entry.about, value, entry.lease_no)
                fork.news += entry.kind != "step"
        self.runs[run_id] = fork
        return None
