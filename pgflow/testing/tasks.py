"""What a person is asked in a test, and how the test names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID


class NoSuchTask(AssertionError):
    """None of the open tasks is meant, or several are."""


@dataclass(frozen=True, slots=True)
class Task:
    """An open task. `key` is the name under which the handler asked."""

    task_id: UUID
    run_id: UUID
    handler: str
    key: str
    title: str
    payload: Any
    assignee: str | None
    assignee_role: str | None
    due_at: datetime | None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Make one of a row of view inbox, where the key is named `step`."""
        return cls(
            task_id=row["task_id"],
            run_id=row["run_id"],
            handler=row["handler"],
            key=row["step"],
            title=row["title"],
            payload=row["payload"],
            assignee=row["assignee"],
            assignee_role=row["assignee_role"],
            due_at=row["due_at"],
        )

    def __str__(self) -> str:
        asked = self.assignee or self.assignee_role
        whom = f" for {asked}" if asked else ""
        return f"{self.key!r}: {self.title!r}{whom}, of {self.handler} {self.run_id}"


def find(tasks: Sequence[Task], wanted: UUID | str | None, run_id: UUID | str | None) -> Task:
    """Return the one task of that key, title or id, or of any if `wanted` is None.

    Raises NoSuchTask, which lists the open tasks.
    """
    __tracebackhide__ = True
    found = [
        task
        for task in tasks
        if (wanted is None or str(wanted) in (task.key, task.title, str(task.task_id)))
        and (run_id is None or str(run_id) == str(task.run_id))
    ]
    if len(found) == 1:
        return found[0]
    what = "open task" if wanted is None else f"open task {wanted!r}"
    of_run = "" if run_id is None else f" of run {run_id}"
    if found:
        listed = "".join(f"\n  {task}" for task in found)
        raise NoSuchTask(f"{len(found)} times {what}{of_run}; say which, or of which run:{listed}")
    listed = "".join(f"\n  {task}" for task in tasks) or " none. Did it run until it asked?"
    raise NoSuchTask(f"no {what}{of_run}; open are:{listed}")
