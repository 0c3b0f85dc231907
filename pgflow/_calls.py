"""What the calls of a context share: the run's lease, its worker, and its journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import psycopg
from pydantic_core import to_jsonable_python

from pgflow._journal import Journal, Scope, read_entries
from pgflow._json import digest, dumps
from pgflow.documents import Artifact, ArtifactContent, Document
from pgflow.models import Entry, Event, Lease, Outcome
from pgflow.reports import Usage

T = TypeVar("T")
Undos = dict[str, tuple[Callable[[Any], Any], Any]]


class Transaction(Protocol):
    """A transaction of a handler's, on a connection of its own."""

    async def begin(self) -> psycopg.AsyncConnection[Any]:
        """Connect and begin; returns the connection, for an async function."""

    async def begin_plain(self) -> psycopg.Connection[Any]:
        """Connect and begin; returns a connection for a plain function."""

    async def record(self, key: str, digest: str, value: str, *, undo: bool) -> None:
        """Journal a step and commit. Raises LeaseLost, NotStored."""

    async def complete(self, output: str, writes: str | None) -> Outcome | None:
        """Complete the run and commit. None: done."""

    async def abandon(self) -> None:
        """Undo what is not committed, and close the connection."""


class Reporting(Protocol):
    """What a context needs of its worker."""

    @property
    def project(self) -> str | None:
        """The worker's project; None: the database's default."""

    async def record(
        self, lease: Lease, key: str, digest: str, value: str, *, undo: bool = False
    ) -> None:
        """Journal a step's result; returns when it is committed."""

    async def emit(self, lease: Lease, kind: str, payload: object, key: str | None) -> Event:
        """Append an event of type `kind` to the run's timeline."""

    async def add_step(
        self, lease: Lease, step: Mapping[str, object], needed_by: Sequence[str]
    ) -> bool:
        """Add a step to the flow of a run. Raises BadRequest, LeaseLost."""

    def usage(self, usage: Usage) -> None:
        """Record a call of a model soon, and before the run's end. Any thread may call this."""

    async def record_artifact(self, lease: Lease, document: Document) -> Artifact:
        """Store a document under a lease. Raises LeaseLost."""

    async def artifact_content(self, lease: Lease, name: str, artifact_no: int) -> ArtifactContent:
        """Return a document of the run with its content."""

    async def schema(self, name: str) -> dict[str, Any]:
        """Return the current version of a schema, a row of view schemas. Raises UnknownSchema."""

    async def now(self) -> datetime:
        """Ask the database for the time."""

    async def in_thread(self, context: Calls, call: Callable[[], T]) -> T:
        """Call a plain function in a thread."""

    def transaction(self, lease: Lease) -> Transaction:
        """Return a transaction that has not begun."""


class Calls:
    """The part of a context that its calls are made of."""

    # Defaults of the class: one is made for every run, and most use nothing of it.
    cancelled = False
    _again = 0  # executions before this one under this lease
    task: asyncio.Task[Any] | None = None
    transacting: Transaction | None = None
    undos: Undos | None = None
    _round: int | None = None
    _known: dict[str, Entry] | None = None
    _read: Journal | None = None

    def __init__(self, lease: Lease, worker: Reporting) -> None:
        self.lease = lease
        self.overstaying: list[asyncio.Future[Any]] = []
        self._worker = worker

    @property
    def journal(self) -> Journal:
        """The run's journal, made when it is first looked at: most runs never do."""
        if self._read is None:
            entries = self._known
            if entries is None:
                entries = read_entries(self.lease.journal or [], None)
            self._read = Journal(entries, self.task)
            self._read.collecting = self.undos is not None
        return self._read

    @property
    def is_waiting(self) -> bool:
        """Whether the handler has asked for something that has not come."""
        return self._read is not None and bool(self._read.waits)

    @property
    def is_suspended(self) -> bool:
        """Whether the handler cannot go on before something has come."""
        return self._read is not None and self._read.root.over and bool(self._read.waits)

    def adopt(self, task: asyncio.Task[Any] | None) -> None:
        """Take a task for the handler's own."""
        self.task = task
        if self._read is not None:
            self._read.root.task = task

    def left_behind(self, function: asyncio.Future[Any]) -> None:
        """Note a function that goes on in its thread although nobody waits for it any more."""
        self.overstaying.append(function)
        if self._read is None or not self._read.has_lost(asyncio.current_task()):
            self.cancelled = True

    async def keep(
        self, scope: Scope, key: str, inputs: str, value: object, *, undo: bool = False
    ) -> Entry:
        """Journal a step's result; return what the handler is given when it is resumed."""
        text = dumps(value, f"the result of step {key}")
        await self._worker.record(self.lease, key, inputs, text, undo=undo)
        return self.kept(scope, key, inputs, value)

    def kept(self, scope: Scope, key: str, inputs: str, value: object) -> Entry:
        """Take in a step's result that is journalled."""
        entry = Entry(key, "step", to_jsonable_python(value), inputs, lease_no=self.lease.lease_no)
        scope.given(self.journal.add(entry))
        return entry


def seconds(span: timedelta | float | None) -> float | None:
    """Return a span as the database is told it: in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else span


def marker(call: str) -> str:
    """Return the digest of an entry that is made of nothing but the call itself."""
    if call not in _markers:
        _markers[call] = digest([call], call)
    return _markers[call]


_markers: dict[str, str] = {}
