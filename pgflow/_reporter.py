"""Delivers what a worker has to say, many runs in one statement."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
import structlog

from pgflow import protocol
from pgflow._link import Link
from pgflow._statement import Statement
from pgflow.errors import LeaseLost, NotStored, PgflowError
from pgflow.models import Lease, Outcome, Parked
from pgflow.reports import (
    Completed,
    End,
    Failed,
    Released,
    Step,
    Usage,
    Waiting,
    failure,
)

T = TypeVar("T")
R = TypeVar("R")
# A step, and the future in which its handler waits until it is journalled.
Unwritten = tuple[Step, asyncio.Future[None]]
_log = structlog.get_logger("pgflow")
_BATCH = 1000
# Ends of steps from which on they are sent in two statements at once.
_MANY_STEPS = 100
# Seconds that a handler's transaction waits for the ledger, before it writes there itself.
_MOMENT = 1.0
# What a whole statement is refused with: by the database, or while its values are encoded.
_REFUSED = (PgflowError, psycopg.Error, UnicodeError)


class Reporter:
    """Collects reports and sends what has piled up when the last statement has returned.

    Results are kept until they are delivered, however long the server is away. The `second` link
    is for steps of flows where many have ended. `ended` is called with every report of an end and
    its outcome; None: it was simply done. `stopped` is called when a lease was taken away because
    a budget is exceeded.
    """

    def __init__(
        self,
        link: Link,
        second: Link,
        project: str | None,
        ended: Callable[[End, Outcome | Parked | None], None],
        stopped: Callable[[], None],
    ) -> None:
        self._link = link
        self._second = second
        self._project = project
        self._ended = ended
        self._stopped = stopped
        self._ends: list[End] = []
        self._steps: list[Unwritten] = []
        self._usages: deque[Usage] = deque()
        self._telling: list[Usage] = []
        self._told = asyncio.Event()
        self._news = asyncio.Event()

    def usage(self, usage: Usage) -> None:
        """Queue a call of a model. Any thread may call this."""
        self._usages.append(usage)
        with contextlib.suppress(RuntimeError):  # a thread has outlived the worker
            self._loop.call_soon_threadsafe(self._news.set)

    async def untold(self, lease: Lease) -> Statement[list[Outcome]] | None:
        """Wait a moment for the calls of models under a lease; return what records those left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT):
                while self._untold(lease):
                    self._told.clear()
                    await self._told.wait()
        left = self._untold(lease)
        return self._record_usages(left) if left else None

    def _untold(self, lease: Lease) -> list[Usage]:
        return [u for u in (*self._telling, *self._usages.copy()) if u.lease is lease]

    def end(self, report: End) -> None:
        """Queue the report of an end."""
        self._ends.append(report)
        self._news.set()

    async def step(self, step: Step) -> None:
        """Journal a step; returns when it is committed. Raises LeaseLost, NotStored."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._steps.append((step, written))
        self._news.set()
        await written

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._steps or self._ends or self._usages:
                steps, self._steps = self._steps[:_BATCH], self._steps[_BATCH:]
                await self._tell_usages()  # of these steps: once they are journalled nobody would
                if steps:
                    await self._in_halves(self._record_steps, steps, _steps_told, _step_refused)
                ends, self._ends = self._ends[:_BATCH], self._ends[_BATCH:]
                await self._tell_usages()
                groups = _alike(ends)
                for kind, send in self._senders.items():
                    for reports in groups[kind].values():
                        links = (self._link, self._second)
                        sending = [
                            self._in_halves(send, part, self._ends_told, self._end_refused, link)
                            for link, part in zip(links, _apart(reports), strict=False)
                        ]
                        # In a task of its own it would be sent a turn of the loop later.
                        await (sending[0] if len(sending) == 1 else asyncio.gather(*sending))

    @property
    def _senders(self) -> dict[type[Any], Callable[[Any], Statement[Any]]]:
        return {
            Completed: self._complete,
            Waiting: lambda rs: protocol.park([r.park for r in rs], project=self._project),
            Failed: self._fail,
            Released: lambda rs: protocol.release(
                *_leases(rs), rs[0].reason, project=self._project
            ),
        }

    def _complete(self, reports: Sequence[Completed]) -> Statement[list[Outcome]]:
        writes = [r.writes for r in reports]
        return protocol.complete(
            *_leases(reports),
            [r.output for r in reports],
            writes if any(writes) else None,
            project=self._project,
        )

    def _fail(self, reports: Sequence[Failed]) -> Statement[list[Outcome]]:
        return protocol.fail(
            *_leases(reports),
            [r.code for r in reports],
            [r.detail for r in reports],
            [r.error for r in reports],
            [r.retry for r in reports],
            project=self._project,
        )

    async def _in_halves(
        self,
        make: Callable[[Sequence[T]], Statement[list[R]]],
        items: Sequence[T],
        told: Callable[[Sequence[T], list[R]], None],
        refused: Callable[[T, Exception], None],
        link: Link | None = None,
    ) -> None:
        """Send items in one statement; if that itself is refused, each half, down to one."""
        try:
            lines = await (link or self._link).run(make(items))
        except _REFUSED as error:
            if len(items) == 1:
                refused(items[0], error)
                return
            half = len(items) // 2
            await self._in_halves(make, items[:half], told, refused, link)
            await self._in_halves(make, items[half:], told, refused, link)
        else:
            told(items, lines)

    def _ends_told(self, reports: Sequence[End], lines: Sequence[Outcome | Parked]) -> None:
        said = {line.run_id: line for line in lines}
        for report in reports:
            line = said.get(report.lease.run_id)
            if isinstance(report, Waiting) and line is not None and line.outcome == "refused":
                self._refused(report, "E-RUN-001", f"it cannot wait for this: {line.detail}")
            else:
                self._ended(report, line)

    def _end_refused(self, report: End, error: Exception) -> None:
        self._refused(report, "E-RUN-017", str(error))

    def _refused(self, report: End, code: str, reason: str) -> None:
        """Fail a run that the database will not let end or wait as its handler wants.

        A failure that is refused itself is dropped, with an error in the log: its lease is no
        longer named in the beat, and the run goes back to its queue.
        """
        if isinstance(report, Completed | Waiting):
            self.end(failure(report.lease, code, reason, retry=False))
        else:
            _log.error("report_refused", run_id=report.lease.run_id, error=reason)
            self._ended(report, Outcome(report.lease.run_id, "lost", detail=reason))

    async def _tell_usages(self) -> None:
        while self._usages:
            while self._usages and len(self._telling) < _BATCH:
                self._telling.append(self._usages.popleft())
            await self._in_halves(
                self._record_usages, self._telling, self._usages_told, _usage_refused
            )
            self._telling = []
            self._told.set()

    def _usages_told(self, usages: Sequence[Usage], lines: Sequence[Outcome]) -> None:
        leases = {usage.lease.run_id: usage.lease for usage in usages}
        for line in lines:
            if line.outcome != "budget":
                _log_unrecorded(line)
            elif line.state == "running" and line.detail is not None:
                leases[line.run_id].set_budget(line.detail)
            else:
                self._stopped()

    def _record_usages(self, usages: Sequence[Usage]) -> Statement[list[Outcome]]:
        calls = [u.call for u in usages]
        return protocol.record_usage(*_leases(usages), calls, project=self._project)

    def _record_steps(self, steps: Sequence[Unwritten]) -> Statement[list[Outcome]]:
        undos = [s.undo for s, _ in steps]
        return protocol.record_step(
            *_leases([s for s, _ in steps]),
            [s.key for s, _ in steps],
            [s.digest for s, _ in steps],
            [s.value for s, _ in steps],
            undos if any(undos) else None,
            project=self._project,
        )


def _steps_told(steps: Sequence[Unwritten], lines: Sequence[Outcome]) -> None:
    said = {(line.run_id, line.code): line for line in lines}
    for step, written in steps:
        line = said.get((step.lease.run_id, step.key))
        if written.done():
            continue
        if line is None or line.outcome == "already":
            written.set_result(None)
        elif line.outcome == "lost":
            written.set_exception(LeaseLost(f"the lease of run {step.lease.run_id} is lost"))
        else:
            written.set_exception(_not_stored(step, line.detail))


def _step_refused(step: Unwritten, error: Exception) -> None:
    if not step[1].done():
        step[1].set_exception(_not_stored(step[0], error))


def _log_unrecorded(line: Outcome) -> None:
    if line.outcome != "already":
        why = "the lease is lost" if line.outcome == "lost" else line.detail
        _log.warning("usage_refused", run_id=line.run_id, call_key=line.code, reason=why)


def _usage_refused(usage: Usage, error: Exception) -> None:
    run_id, key = usage.lease.run_id, usage.key
    _log.error("usage_refused", run_id=run_id, call_key=key, reason=str(error))


def _not_stored(step: Step, why: object) -> NotStored:
    return NotStored(f"the result of step {step.key} cannot be stored: {why}")


def _alike(reports: Sequence[End]) -> dict[type[End], dict[str, list[End]]]:
    """Return the reports by kind and, where they go back, by reason: one for a statement."""
    groups: dict[type[End], dict[str, list[End]]] = defaultdict(dict)
    for report in reports:
        reason = report.reason if isinstance(report, Released) else ""
        groups[type(report)].setdefault(reason, []).append(report)
    return groups


def _apart(reports: Sequence[End]) -> list[list[End]]:
    """Return the reports; where many steps are among them, in two parts that share no family.

    The end of a step is much work for the server, which has other processors. Two statements with
    steps of one flow would only wait for each other.
    """
    steps = sorted((r for r in reports if _root(r)), key=_root)
    cut = len(steps) // 2
    while 0 < cut < len(steps) and _root(steps[cut]) == _root(steps[cut - 1]):
        cut += 1
    if len(steps) < _MANY_STEPS or cut == len(steps):
        return [list(reports)]
    return [[*(r for r in reports if not _root(r)), *steps[:cut]], steps[cut:]]


def _root(report: End) -> str:
    """Return the run around which all of the reported run's family is; none: it is alone."""
    root: str = report.lease.more.get("root_run_id") or ""
    return root


def _leases(reports: Sequence[End | Step | Usage]) -> tuple[list[str], list[int]]:
    return [r.lease.run_id for r in reports], [r.lease.lease_no for r in reports]
