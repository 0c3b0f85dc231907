"""How to wait for a run: what to ask next, and how long to sleep. No input or output.

Each wait is a generator of steps. Whoever carries them out, a sync client or an async one, executes
each Ask and sends back what it brought, or throws what it raised; sleeps through each Nap, unless
woken by a hint; and hands everything else to the caller.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import psycopg

from pgflow import protocol, views
from pgflow._link import AGAIN
from pgflow._statement import Row, RunId, Statement
from pgflow.errors import BadRequest, BatchLost, ResultTimeout, ServerUnreachable
from pgflow.models import ENDS, Event, Result

T = TypeVar("T")
Until = Literal["finished", "paused"]

# Seconds between looks while hints come: only for a hint that got lost.
_HINTED = 5.0
# Without hints: the first nap and the longest.
_FIRST, _LONGEST = 0.02, 0.5
_PAGE = 500
# Of more open tasks than these, only the most urgent are brought.
_TASKS = 10_000
_FIELDS = (
    *("run_id", "event_no", "type", "key", "payload", "at", "by"),
    *("step", "attempt", "lease_no", "worker_id"),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """A statement to execute; `patience` is how many seconds to wait for a connection."""

    statement: Statement[Any]
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Nap:
    """Seconds to sleep while hints come, and while none do; the answer is whether one woke us.

    None: no hints are wanted.
    """

    hinted: float | None
    unhinted: float


class Leave(Exception):
    """Thrown into steps whose caller wants no more: they may ask for something yet."""


Steps = Generator[Ask | Nap | T, Any, None]
LOST = (ServerUnreachable, psycopg.Error)
# What is thrown into the steps; anything else ends them.
THROWN = (*LOST, BatchLost)


def advance(
    steps: Steps[T], reply: object = None, error: Exception | None = None
) -> Ask | Nap | T | None:
    """Return the next step; None is the end."""
    try:
        return steps.send(reply) if error is None else steps.throw(error)
    except (StopIteration, Leave):
        return None


def wait_for_result(
    run_id: RunId, until: Until, timeout: float | None, project: str | None, *, hinted: bool
) -> Steps[Result]:
    """Bring one Result. Raises ResultTimeout, UnknownRun, BadRequest."""
    if until not in {"finished", "paused"}:
        raise BadRequest(
            "until must be finished or paused", detail=f"given: {until}", field="until"
        )
    wanted = ENDS | {"paused"} if until == "paused" else ENDS
    begun, waits = time.monotonic(), naps()
    watches = hinted and timeout != 0
    state = lost = None
    woken = False  # by a hint: so it is watched
    while True:
        left = None if timeout is None else begun + timeout - time.monotonic()
        patience = 30.0 if state is None else max(1.0, min(5.0, left or 5.0))
        try:
            if watches and not woken:
                state = yield Ask(protocol.watch(run_id, project=project), patience)
            if not watches or woken or state in wanted:
                found = yield Ask(protocol.result(run_id, project=project), patience)
                state = found.state
                if state in wanted:
                    yield found
                    return
            lost = None
        except LOST as error:
            # A connection of the caller's is not replaced.
            if state is None or not hinted or not passes(error):
                raise
            lost = error
        left = _LONGEST + _HINTED if timeout is None else begun + timeout - time.monotonic()
        if left <= 0:
            still = f"run {run_id} is {state}, not {until}, after {timeout:g} s"
            raise ResultTimeout(f"{still}: {lost}" if lost else still, state=state) from lost
        nap = min(next(waits), left)
        woken = (yield Nap(nap if lost else min(_HINTED, left), nap)) and not lost


def follow(run_id: RunId, after: int, project: str | None, *, hinted: bool) -> Steps[Event]:
    """Bring the run's lines after an event_no, to its last. Raises UnknownRun, BadRequest."""
    look = protocol.watch if hinted else protocol.result
    waits, state, woken = naps(), None, False
    while True:
        lost = False
        try:
            # Before the lines: if it is finished, they are all of them.
            if not woken:
                found = yield Ask(look(run_id, project=project))
                state = found if isinstance(found, str) else found.state
            more = True
            while more:
                page = views.timeline(run_id, after=after, limit=_PAGE, project=project)
                rows = yield Ask(page)
                for row in rows:
                    line = Event(**{name: row[name] for name in _FIELDS})
                    after, waits = line.event_no, naps()
                    yield line
                    if line.is_last:
                        return
                more = len(rows) == _PAGE
            if state in ENDS:
                return
        except LOST as error:
            if state is None or not hinted or not passes(error):
                raise
            lost = True
        nap = next(waits)
        woken = yield Nap(nap if lost else _HINTED, nap)


def watch_inbox(
    role: str | None, assignee: str | None, project: str | None, *, hinted: bool
) -> Steps[Row]:
    """Bring each open task, then each new one, for ever; the most urgent first."""
    waits, known, seen = naps(), False, set[object]()
    while True:
        lost = False
        try:
            if hinted:
                yield Ask(protocol.watch_inbox(project=project))
            rows = yield Ask(
                views.inbox(role=role, assignee=assignee, limit=_TASKS, project=project)
            )
            known = True
            for row in rows:
                if row["task_id"] not in seen:
                    waits = naps()
                    yield row
            seen = {row["task_id"] for row in rows}
        except LOST as error:
            if not known or not hinted or not passes(error):
                raise
            lost = True
        nap = next(waits)
        yield Nap(nap if lost else _HINTED, nap)


def naps() -> Iterator[float]:
    nap = _FIRST
    while True:
        yield nap
        nap = min(nap * 2, _LONGEST)


def passes(error: Exception) -> bool:
    """Whether asking again later may help: the server is away, or out of something."""
    if isinstance(error, ServerUnreachable):
        return True
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    return (sqlstate or "").startswith(("08", *AGAIN))
