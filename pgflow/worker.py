"""The worker: claims runs, executes their handlers, reports what came of them.

It decides nothing: which runs, how long to sleep, when to beat, what a failure leads to, the
database says.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import structlog

from pgflow import artifacts, flows, gateway, protocol
from pgflow._calls import Calls
from pgflow._execution import execute, in_thread
from pgflow._link import Link, connect
from pgflow._listener import Listener
from pgflow._prefetch import PATIENCE, Prefetch
from pgflow._reporter import Reporter
from pgflow._statement import Row
from pgflow._transaction import Transaction
from pgflow._upkeep import maintain
from pgflow.context import Context
from pgflow.documents import Artifact, ArtifactContent, Document
from pgflow.errors import UnknownSchema, UnknownWorker
from pgflow.models import Acquired, Event, Lease, Outcome, Parked, Reaped
from pgflow.reports import Committed, Completed, End, Failed, Released, Step, Usage

if TYPE_CHECKING:
    from pgflow.app import App

T = TypeVar("T")
_log = structlog.get_logger("pgflow")
_MOST = 10_000  # that one acquire may ask for
# A beat tidies up after so many acquires, so that it stays a short one.
_MANY_BATCHES = 100


@dataclass(slots=True, eq=False)
class _Held:
    """A lease that this worker holds, until its end is delivered."""

    lease: Lease
    context: Context
    task: asyncio.Task[None] | None = None
    stage: Literal["claimed", "executing", "reporting", "lost"] = "claimed"


class Worker:
    """Executes the runs of some queues: those given, else those that the app's handlers name.

    `concurrency` bounds how many handlers run at once. `direct_dsn` is where to LISTEN if `dsn`
    leads through a pooler. `grace` is how many seconds handlers may go on after stop(); what still
    runs then goes back without using an attempt.
    Example: `await Worker(app, dsn, queues=["mail"]).run()`.
    """

    def __init__(
        self,
        app: App,
        dsn: str,
        *,
        queues: Sequence[str] | None = None,
        concurrency: int = 100,
        direct_dsn: str | None = None,
        project: str | None = None,
        grace: float = 30.0,
    ) -> None:
        self.worker_id = f"{socket.gethostname()}:{secrets.token_hex(6)}"
        self._app = app
        self._dsn = dsn
        self._queues = list(queues or app.registry.queues())
        self._concurrency = concurrency
        self.project = project
        self._grace = grace
        self._held: dict[tuple[str, int], _Held] = {}
        self._executing = 0
        self._prefetch: Prefetch[_Held] = Prefetch()
        self._look = asyncio.Event()
        self._beat_now = asyncio.Event()
        self._freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._abort = asyncio.Event()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="pgflow")
        self._claims = Link(dsn, "claims")
        self._reports = Link(dsn, "reports")
        self._second = Link(dsn, "second reports")  # connects when it is used
        self._reporter = Reporter(
            self._reports, self._second, project, self._ended, self._beat_now.set
        )
        self._listener = Listener(direct_dsn or dsn, self.worker_id, self._hear, self._ping)
        self._beat_every = 15.0
        self._batches: list[int] = []  # that arrived since the last beat
        # Bound once: the lazy proxy of get_logger costs more per line than a run.
        self._run_log = _log.bind()

    async def run(self, *, install_signal_handlers: bool = False) -> None:
        """Work until stop(). The first SIGTERM or SIGINT calls it, the second ends the grace.

        Raises ServerUnreachable if the server cannot be reached at the start, and only then.
        """
        self._loop = loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT) if install_signal_handlers else ()
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            with structlog.contextvars.bound_contextvars(worker_id=self.worker_id):
                self._contextvars = contextvars.copy_context()
                await self._connect()
                await self._work()
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            await self._claims.close()
            await self._reports.close()
            await self._second.close()
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _connect(self) -> None:
        await (await connect(self._dsn)).close()
        await self._register()

    async def _work(self) -> None:
        _log.info("worker_started", queues=self._queues, concurrency=self._concurrency)
        claiming = asyncio.create_task(self._claim_loop())
        upkeep = maintain(self._dsn)
        jobs = (self._reporter.run(), self._listener.run(), self._beat_loop(), upkeep)
        tasks: list[asyncio.Task[Any]] = [claiming, *map(asyncio.create_task, jobs)]
        tasks.append(asyncio.create_task(self._stopping.wait()))
        try:
            await _first_of(*tasks)
            await self._drain(claiming)
        finally:
            self._stopping.set()  # nothing begins any more
            tasks += [h.task for h in self._held.values() if h.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1.0)
            await self._goodbye()

    def stop(self) -> None:
        """Claim no more; called again: don't wait for the handlers."""
        if self._stopping.is_set():
            self._abort.set()
        self._stopping.set()
        self._look.set()
        self._freed.set()

    # Claiming

    async def _claim_loop(self) -> None:
        marks: str | None = None
        while not self._stopping.is_set():
            free, ahead = self._room()
            if free + ahead == 0:
                self._freed.clear()
                await _wait(self._freed, PATIENCE if self._prefetch else None)
                continue
            self._look.clear()
            try:
                acquired = await self._claims.run(
                    protocol.acquire(
                        self.worker_id,
                        self._queues,
                        free + ahead,
                        marks,
                        listening=self._listener.proven,
                        project=self.project,
                    )
                )
            except UnknownWorker:
                await self._return()
                continue
            marks = acquired.marks
            self._take(acquired)
            if len(acquired.leases) < free + ahead:  # no more was there
                self._prefetch.came_short()
                await asyncio.sleep(0)  # so the handlers go first,
                await asyncio.sleep(0)  # and what they report
            if free and not acquired.leases:
                await _wait(self._look, acquired.look_again_in)

    def _room(self) -> tuple[int, int]:
        """Return how many places are free, and how many runs to claim ahead of one."""
        self._give_back_overdue()
        if len(self._held) - len(self._prefetch) >= 3 * self._concurrency:
            return 0, 0  # until reports are delivered
        free = max(0, self._concurrency - self._executing)
        return free, min(self._prefetch.wanted(), _MOST - free)

    def _take(self, acquired: Acquired) -> None:
        # The next look begins with another queue, so that none starves behind a full one.
        self._queues.append(self._queues.pop(0))
        for reaped in acquired.reaped:
            _log_reaped(reaped)
        if acquired.reaped:
            _log.info("stale_run_reaper_done", reaped=len(acquired.reaped))
        for lease in acquired.leases:
            self._start(lease)
        if acquired.batch is not None:
            self._batches.append(acquired.batch)
            if len(self._batches) >= _MANY_BATCHES:
                self._beat_now.set()

    def _start(self, lease: Lease) -> None:
        held = _Held(lease, Context(lease, self))
        self._held[lease.run_id, lease.lease_no] = held
        self._run_log.debug("run_lease_acquired", run_id=lease.run_id, lease_no=lease.lease_no)
        if self._stopping.is_set():
            self._give_back([held], "shutdown")
        elif self._executing < self._concurrency:
            self._execute(held)
        else:
            self._prefetch.add(held, first="slotted" in lease.more)

    def _give_back(self, leases: Iterable[_Held], reason: str) -> None:
        for held in leases:
            self._report(held, Released(held.lease, reason))

    def _give_back_overdue(self) -> None:
        self._give_back(self._prefetch.overdue(), "no place came free")

    def _execute(self, held: _Held) -> None:
        self._executing += 1
        held.stage = "claimed"
        # Not in the context of the handler that has just ended.
        execution, values = self._execution(held), self._contextvars.copy()
        held.task = asyncio.Task(execution, loop=self._loop, context=values)

    async def _execution(self, held: _Held) -> None:
        structlog.contextvars.bind_contextvars(run_id=held.lease.run_id)
        try:
            if held.stage == "claimed":
                held.stage = "executing"
                end = await execute(held.lease, held.context, self._app.registry, self._threads)
                if held.stage == "executing":
                    self._report(held, end)
        finally:
            overstaying = held.context.overstaying
            if overstaying and (overstaying := [t for t in overstaying if not t.done()]):
                _log.warning("function_overstays", run_id=held.lease.run_id)
                ended = asyncio.gather(*overstaying, return_exceptions=True)
                ended.add_done_callback(lambda _: self._left(held))
            else:
                self._left(held)

    def _left(self, held: _Held) -> None:
        """Free the place of a handler that has stopped, with whatever it had in threads."""
        self._executing -= 1
        self._prefetch.ended()
        if self._executing < self._concurrency and not self._stopping.is_set():
            self._give_back_overdue()
            following = self._prefetch.next()
            if following is not None:
                self._execute(following)
        if held.stage == "lost":
            self._held.pop((held.lease.run_id, held.lease.lease_no), None)
        self._freed.set()

    # Reporting

    def _report(self, held: _Held, end: End) -> None:
        held.stage = "reporting"
        if isinstance(end, Committed):
            self._ended(end, end.outcome)
        else:
            self._reporter.end(end)

    def _ended(self, end: End, outcome: Outcome | Parked | None) -> None:
        lease = end.lease
        key = (lease.run_id, lease.lease_no)
        if isinstance(outcome, Parked) and outcome.outcome == "news":
            held = self._held[key]
            lease.news = outcome.news or 0
            held.context = held.context.anew(outcome.entries or [])
            self._execute(held)
            return
        self._held.pop(key, None)
        self._freed.set()
        _log_end(self._run_log, end, outcome)

    async def record(
        self, lease: Lease, key: str, digest: str, value: str, *, undo: bool = False
    ) -> None:
        """Journal a step's result; returns when it is committed."""
        await self._reporter.step(Step(lease, key, digest, value, undo))

    async def emit(self, lease: Lease, kind: str, payload: object, key: str | None) -> Event:
        """Append an event of type `kind` to a run's timeline."""
        return await self._reports.run(
            gateway.emit(lease.run_id, kind, payload, idempotency_key=key, project=self.project)
        )

    async def add_step(
        self, lease: Lease, step: Mapping[str, object], needed_by: Sequence[str]
    ) -> bool:
        """Add a step to the flow of a run. Raises BadRequest, LeaseLost."""
        return await self._reports.run(
            flows.add_step(
                lease.run_id,
                step,
                needed_by=needed_by,
                lease_no=lease.lease_no,
                project=self.project,
            )
        )

    async def record_artifact(self, lease: Lease, document: Document) -> Artifact:
        """Store a document under a lease. Raises LeaseLost."""
        return await self._reports.run(
            protocol.record_artifact(
                lease.run_id,
                lease.lease_no,
                document.name,
                document.content,
                document.data,
                document.media_type,
                document.errors,
                document.schema,
                document.schema_version,
                document.kind,
                project=self.project,
            )
        )

    async def artifact_content(self, lease: Lease, name: str, artifact_no: int) -> ArtifactContent:
        """Return a document of the run with its content."""
        return await self._reports.run(
            artifacts.artifact_content(
                lease.run_id, name, artifact_no=artifact_no, project=self.project
            )
        )

    async def schema(self, name: str) -> Row:
        """Return the current version of a schema, a row of view schemas. Raises UnknownSchema."""
        rows = await self._reports.run(artifacts.schemas(schema=name, project=self.project))
        for row in rows:
            if row["is_current"]:
                return row
        raise UnknownSchema(f"unknown schema: {name}")

    def usage(self, usage: Usage) -> None:
        """Record a call of a model soon, and before the run's end."""
        self._reporter.usage(usage)

    async def now(self) -> datetime:
        """Ask the database for the time."""
        return await self._reports.run(protocol.now())

    def transaction(self, lease: Lease) -> Transaction:
        """Return a transaction of a handler's that has not begun."""
        return Transaction(self._dsn, lease, self.project, lambda: self._reporter.untold(lease))

    async def in_thread(self, context: Calls, call: Callable[[], T]) -> T:
        """Call a plain function in a thread."""
        return await in_thread(self._threads, context, call)

    # Staying alive

    async def _register(self) -> None:
        every = await self._claims.run(
            protocol.register_worker(
                self.worker_id,
                self._queues,
                self._concurrency,
                [h.registration() for h in self._app.registry.handlers.values()],
                host=socket.gethostname(),
                pid=os.getpid(),
                version=self._app.version,
                project=self.project,
            )
        )
        self._beat_every = every.total_seconds()

    async def _return(self) -> None:
        """Register again: it was taken for dead, and what it held went back to the queues."""
        self._give_back(self._prefetch.clear(), "worker taken for dead")
        await self._register()

    async def _beat_loop(self) -> None:
        while True:
            await _wait(self._beat_now, self._beat_every)
            self._beat_now.clear()
            held, batches = list(self._held), list(self._batches)
            try:
                lines = await self._claims.run(
                    protocol.beat(
                        self.worker_id,
                        [run_id for run_id, _ in held],
                        [lease_no for _, lease_no in held],
                        batches,
                        project=self.project,
                    )
                )
            except UnknownWorker:
                await self._return()
                continue
            del self._batches[: len(batches)]
            for line in lines:
                if line.outcome == "lost":
                    # Of two leases of one run the older is the one that is lost.
                    key = min(key for key in held if key[0] == line.run_id)
                    held.remove(key)
                    self._interrupt(key, line.state)
            stops = {line.run_id: line.detail for line in lines if line.outcome == "stops"}
            for key in held:
                if key in self._held:
                    self._held[key].lease.set_breakpoints(stops.get(key[0]))

    def _interrupt(self, key: tuple[str, int], state: str | None) -> None:
        """Stop a handler whose run was taken away; nothing that it says counts any more."""
        held = self._held.get(key)
        if held is None or held.stage not in {"claimed", "executing"}:
            return
        _log.warning("lease_lost", run_id=key[0], lease_no=key[1], state=state)
        if held.task is None:
            self._prefetch.remove(held)
            del self._held[key]
            return
        has_begun = held.stage == "executing"
        held.context.cancelled = True
        held.stage = "lost"
        if has_begun:  # a task that has not would end without freeing its place
            held.task.cancel()

    def _hear(self, payload: str) -> None:
        """Take a hint: `work PROJECT QUEUE`, `beat PROJECT WORKER`, or nothing."""
        verb, _, rest = payload.partition(" ")
        _, _, name = rest.partition(" ")
        if verb == "work":
            if name in self._queues:
                self._look.set()
        elif verb == "beat":
            if name == self.worker_id:
                self._beat_now.set()
        elif not payload:
            self._look.set()
            self._beat_now.set()

    async def _ping(self, payload: str) -> None:
        await self._reports.run(protocol.ping(payload))

    # Stopping

    async def _drain(self, claiming: asyncio.Task[None]) -> None:
        """Let handlers end within the grace, give back the rest, deliver all reports."""
        if not claiming.done():
            await asyncio.wait({claiming}, timeout=5.0)
        self._give_back(self._prefetch.clear(), "shutdown")
        _log.info("worker_stopping", running=self._executing, grace=self._grace)
        ended = asyncio.create_task(self._none("claimed", "executing"))
        aborted = asyncio.create_task(self._abort.wait())
        either = asyncio.FIRST_COMPLETED
        await asyncio.wait({ended, aborted}, timeout=self._grace, return_when=either)
        ended.cancel()
        aborted.cancel()
        for held in list(self._held.values()):
            if held.task is not None and held.stage in {"claimed", "executing"}:
                held.context.cancelled = True
                held.task.cancel()
                self._give_back([held], "shutdown")
        await _wait_for(self._none("reporting"), 5.0)

    async def _none(self, *stages: str) -> None:
        """Wait until no lease is at one of these stages."""
        while any(h.stage in stages for h in self._held.values()):
            self._freed.clear()
            await self._freed.wait()

    async def _goodbye(self) -> None:
        """Leave; what is still held, and not delivered, goes back when its lease expires."""
        await _wait_for(
            self._claims.run(protocol.stop_worker(self.worker_id, project=self.project)), 5.0
        )
        _log.info("worker_stopped", undelivered=len(self._held))


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    await _wait_for(event.wait(), seconds)


async def _wait_for(job: Coroutine[Any, Any, Any], seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await job
    except TimeoutError:
        pass


async def _first_of(*tasks: asyncio.Future[Any]) -> None:
    """Wait for the first to end and raise what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def _log_end(log: Any, end: End, outcome: Outcome | Parked | None) -> None:  # noqa: ANN401 - structlog's
    run_id = end.lease.run_id
    if outcome is not None and outcome.outcome == "lost":
        log.warning("result_refused", run_id=run_id, reason="the lease is lost")
    elif isinstance(end, Completed | Committed) and (
        outcome is None or outcome.outcome == "already"
    ):
        log.debug("run_state_transition", run_id=run_id, from_state="running", to_state="completed")
    elif isinstance(end, Failed) or (outcome is not None and outcome.outcome == "refused"):
        to_state = outcome.state if isinstance(outcome, Outcome) else None
        code = outcome.code if outcome is not None else None
        detail = end.detail if isinstance(end, Failed) else getattr(outcome, "detail", None)
        log.warning(
            "run_state_transition",
            run_id=run_id,
            from_state="running",
            to_state=to_state,
            error_code=code,
            error_detail=detail,
        )
    else:
        to_state = "pending" if isinstance(end, Released) else "waiting"
        log.info("run_state_transition", run_id=run_id, from_state="running", to_state=to_state)


def _log_reaped(reaped: Reaped) -> None:
    _log.warning(
        "stale_run_requeued" if reaped.state == "pending" else "stale_run_failed",
        run_id=reaped.run_id,
        lost_worker_id=reaped.worker_id,
        attempt_count=reaped.attempt_count,
        max_attempts=reaped.max_attempts,
    )
