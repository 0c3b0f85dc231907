"""What an execution has asked for: its keys, what its journal answers, what it waits for.

Keys are paths. The n-th call of a name within a scope has the key `name#n`, the first just `name`;
a branch of gather or first, and a step's own function, is a scope of its own: `gather#1/0/name`.
So what runs at the same time does not number each other's calls.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

from pgflow._json import dumps
from pgflow.errors import JournalMismatch, MisplacedCall
from pgflow.models import Entry

PEOPLE = frozenset({"approval", "form", "input"})
_CHANGED = "the handler's code or its inputs changed"
_OURS = ("undo/", "breakpoint/")
_COUNTING = threading.Lock()


class Suspend(BaseException):
    """Unwinds a handler whose run is going to wait: no error. Don't catch it."""


class Scope:
    """A handler's own course, or one branch of it: calls one after the other.

    `together`: the waits of this scope end nothing before all of them have come. `latest` is the
    place in the journal of the last entry that it was given, `lease_no` the last lease under which
    such a step was done. `over`: it waits, or has lost. `step` is the step that it is in.
    """

    __slots__ = (
        "journal",
        "latest",
        "lease_no",
        "over",
        "parent",
        "path",
        "step",
        "task",
        "together",
    )

    def __init__(
        self, journal: Journal, parent: Scope | None, path: str, *, together: bool
    ) -> None:
        self.journal = journal
        self.parent = parent
        self.path = path
        self.together = together
        self.task: asyncio.Task[Any] | None = None
        self.latest = -1
        self.lease_no = 0
        self.step: str | None = None if parent is None else parent.step
        self.over = False

    def is_over(self) -> bool:
        """Whether this scope or one around it waits or has lost."""
        return self.over or (self.parent is not None and self.parent.is_over())

    def is_within(self, scope: Scope) -> bool:
        """Whether this is `scope` or one inside it."""
        return self is scope or (self.parent is not None and self.parent.is_within(scope))

    @contextmanager
    def inside(self, key: str) -> Iterator[None]:
        """Give the calls in the block keys under `key`, a step's."""
        path, step = self.path, self.step
        self.path, self.step = f"{key}/", key
        try:
            yield
        finally:
            self.path, self.step = path, step

    def given(self, entry: Entry) -> None:
        """Note that a call has got this entry."""
        self.latest = max(self.latest, entry.place)
        self.lease_no = max(self.lease_no, entry.lease_no or 0)


# The branch that the current task is, unless it is the handler's own.
BRANCH: ContextVar[Scope | None] = ContextVar("pgflow_branch", default=None)


class Journal:
    """The journal as one execution reads it.

    `collecting`: this execution only looks up how to undo what was done. Nothing is waited for and
    nothing is done: the first call without an entry ends it. Arguments may differ from the old
    ones: the feedback that they came from is not there any more.
    """

    __slots__ = ("_counts", "asked", "closed", "collecting", "entries", "root", "waits")

    def __init__(self, entries: dict[str, Entry], task: asyncio.Task[Any] | None) -> None:
        self.entries = entries
        self.asked: set[str] = set()
        self.waits: dict[str, tuple[Scope, bool, str]] = {}
        self.closed: str | None = None
        self.collecting = False
        self.root = Scope(self, None, "", together=True)
        self.root.task = task
        self._counts: dict[str, int] = {}

    def enter(
        self, call: str, name: str, key: str | None = None, *, numbered: bool = False
    ) -> tuple[Scope, str]:
        """Return the scope and the key of a call. Raises MisplacedCall, and Suspend if it is over.

        A `key` that is given is taken as it is; `numbered` numbers the first call too.
        """
        scope = self.root
        if asyncio.current_task() is not scope.task:
            scope = self._scope(call, key)
        if self.closed is not None or scope.over or scope.parent is not None:
            self._check(scope, call)
        if key is None:
            key = self._numbered(scope.path + name, numbered=numbered)
        if key.startswith(_OURS):
            raise MisplacedCall(f"ctx.{call}: no key begins with undo/ or breakpoint/: {key}")
        if key in self.asked:
            raise MisplacedCall(f"ctx.{call}: another call of this run has the key {key} already")
        self.asked.add(key)
        return scope, key

    def _numbered(self, path: str, *, numbered: bool = False) -> str:
        count = self._counts[path] = self._counts.get(path, 0) + 1
        return path if count == 1 and not numbered else f"{path}#{count}"

    def usage_key(self, lease: str) -> tuple[str, str | None]:
        """Return a key for what a model used, and the step that it is told in.

        A step that is done is not executed again, and one that is executed again calls the model
        again: its key has the `lease` of this execution. Outside of steps the handler comes by
        again in each execution and tells of the same call: that key has the lease of the last step
        before it, which is another only after a rollback. Any thread may ask.
        """
        scope = self._current()
        with _COUNTING:
            key = self._numbered(
                f"{scope.path}usage@{lease if scope.step is not None else scope.lease_no}"
            )
        return key, scope.step

    def current_step(self) -> str | None:
        """Return the step that the caller is in. Any thread may ask."""
        return self._current().step

    def _current(self) -> Scope:
        branch = BRANCH.get()
        return branch if branch is not None and branch.journal is self else self.root

    def check(self, call: str) -> None:
        """Refuse a call without a key where none may follow. Raises MisplacedCall, Suspend."""
        self._check(self._scope(call, ""), call)

    def _check(self, scope: Scope, call: str) -> None:
        if scope.is_over():
            raise Suspend
        if self.closed is not None:
            raise MisplacedCall(f"ctx.{call} is called after {self.closed}, which ends the run")

    def _scope(self, call: str, key: str | None) -> Scope:
        task = asyncio.current_task()
        if task is self.root.task:
            return self.root
        branch = BRANCH.get()
        if branch is not None and branch.task is task and branch.journal is self:
            return branch
        if key is None:
            raise MisplacedCall(
                f"ctx.{call} is called in a task that is no branch of ctx.gather or ctx.first:"
                " the order of such calls may differ each time. Use ctx.gather, or give key=..."
            )
        return Scope(self, None, "", together=False)

    def has_lost(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a task is a branch that is given up while others go on."""
        branch = BRANCH.get()
        return branch is not None and branch.task is task and branch.is_over()

    def recall(
        self, scope: Scope, call: str, key: str, kind: str, digest: str | None
    ) -> Entry | None:
        """Return the entry of a call, None if there is none yet. Raises JournalMismatch.

        To people, who decided about something else, None means that they are asked again.
        """
        entry = self.entries.get(key)
        if entry is None or (
            kind in PEOPLE
            and entry.kind in PEOPLE
            and not self.collecting
            and entry.digest is not None
            and entry.digest != digest
        ):
            if self.collecting:
                self.suspend(scope)
            return None
        if entry.kind not in (kind, "timeout"):
            raise JournalMismatch(f"{call} {key} was journalled as {entry.kind}: {_CHANGED}")
        if None not in (digest, entry.digest) and entry.digest != digest and not self.collecting:
            raise JournalMismatch(f"{call} {key} was journalled with other arguments: {_CHANGED}")
        scope.given(entry)
        return entry

    def made(self, scope: Scope, call: str, key: str) -> Entry | None:
        """Return the entry of a call that may do without one."""
        if key not in self.entries:
            return None
        return self.recall(scope, call, key, "step", None)

    def last_place(self) -> int:
        """Return the place of the last entry."""
        return len(self.entries) - 1

    def add(self, entry: Entry) -> Entry:
        """Take in what was journalled just now."""
        entry.place = len(self.entries)
        self.entries[entry.key] = entry
        return entry

    def wait(self, scope: Scope, *, prompt: bool = False, **wait: Any) -> NoReturn:
        """Note what a scope waits for, and end it. `prompt`: it may end before all have come."""
        wait = {name: value for name, value in wait.items() if value is not None}
        text = dumps(wait, f"what {wait['key']} asks for")
        self.waits[wait["key"]] = (scope, scope.together and not prompt, text)
        self.suspend(scope)

    def suspend(self, scope: Scope) -> NoReturn:
        """End a scope that cannot go on now."""
        scope.over = True
        raise Suspend

    def forget(self, scope: Scope) -> None:
        """Wait no longer for what a branch waits for."""
        for key in [k for k, (waiting, _, _) in self.waits.items() if waiting.is_within(scope)]:
            del self.waits[key]

    def unread(self, prefix: str) -> bool:
        """Whether there are entries under `prefix` that this execution has not asked for yet.

        What lies inside a step that is done, or inside branches that are decided, is not asked for
        again and doesn't count.
        """
        return any(
            key not in self.asked and key.startswith(prefix) and not self._is_settled(key)
            for key in self.entries
        )

    def _is_settled(self, key: str) -> bool:
        if key.startswith(_OURS):
            return True
        parts = key.split("/")
        outer = ("/".join(parts[:n]) for n in range(1, len(parts)))
        return any(key in self.asked and key in self.entries for key in outer)

    @property
    def wait_any(self) -> bool:
        """Whether each thing that comes is worth an execution."""
        return len(self.waits) > 1 and not all(together for _, together, _ in self.waits.values())


def read_entries(lines: list[dict[str, Any]], known: dict[str, Entry] | None) -> dict[str, Entry]:
    """Make entries of what the database says, behind those that are known already."""
    entries = dict(known or ())
    for line in lines:
        if not line.get("voided"):
            entry = entries[line["key"]] = Entry.from_json(line)
            entry.place = len(entries) - 1
    return entries
