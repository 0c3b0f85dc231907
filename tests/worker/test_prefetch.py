"""What a busy worker claims before it has a place for it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from pgflow import Context, ThreadContext, Worker
from pgflow._prefetch import PATIENCE, SECONDS, Prefetch
from pgflow._reporter import Reporter
from pgflow.models import Lease, Outcome
from pgflow.reports import Released

if TYPE_CHECKING:
    from pgflow._statement import Statement
    from tests.worker.conftest import Logs, Running, Stage

RUNS = 3000
PLACES = 2


async def nothing() -> None:
    """Do nothing: a handler."""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(clock: Clock, count: int, seconds: float) -> Prefetch[int]:
    """Return one that saw so many handlers end within these seconds."""
    prefetch: Prefetch[int] = Prefetch(clock)
    for _ in range(count):
        prefetch.ended()
    clock.now += seconds
    return prefetch


def test_as_many_are_wanted_as_end_in_a_twentieth_of_a_second() -> None:
    assert paced(Clock(), 50, SECONDS).wanted() == 50
    assert paced(Clock(), 50, 10 * SECONDS).wanted() == 5


def test_none_are_wanted_where_handlers_take_long_or_nothing_has_ended_yet() -> None:
    assert paced(Clock(), 10, 1.0).wanted() == 0
    assert paced(Clock(), 0, SECONDS).wanted() == 0
    assert paced(Clock(), 50, SECONDS / 2).wanted() == 0


def test_no_more_are_wanted_until_half_of_them_are_gone() -> None:
    prefetch = paced(Clock(), 10, SECONDS)
    for number in range(prefetch.wanted()):
        prefetch.add(number)
    wanted = []
    while prefetch.next() is not None:
        wanted.append(prefetch.wanted())
    assert wanted == [0, 0, 0, 0, 5, 6, 7, 8, 9, 10]


def test_where_less_came_than_was_asked_for_none_are_wanted_for_a_while() -> None:
    clock = Clock()
    prefetch = paced(clock, 50, SECONDS)
    assert prefetch.wanted() == 50
    prefetch.came_short()
    assert prefetch.wanted() == 0
    prefetch.ended()
    clock.now += SECONDS
    assert prefetch.wanted() == 1


def test_what_has_waited_too_long_is_overdue_whatever_ends_meanwhile() -> None:
    clock = Clock()
    prefetch = paced(clock, 10, SECONDS)
    assert prefetch.wanted() == 10
    prefetch.add(1)
    clock.now += PATIENCE / 2
    prefetch.add(2)
    assert prefetch.overdue() == []
    clock.now += PATIENCE / 2
    prefetch.ended()
    assert prefetch.overdue() == [1]
    assert prefetch.wanted() == 0
    clock.now += PATIENCE / 2
    assert prefetch.overdue() == [2]
    assert prefetch.next() is None


def test_what_keeps_a_slot_comes_before_the_others_and_in_order() -> None:
    prefetch: Prefetch[int] = Prefetch(Clock())
    for number in (4, 5, 6):
        prefetch.add(number)
    for number in (1, 2, 3):
        prefetch.add(number, first=True)
    prefetch.remove(2)
    prefetch.remove(5)
    assert [prefetch.next() for _ in range(5)] == [1, 3, 4, 6, None]


@pytest.mark.parametrize("first", [False, True])
def test_what_never_runs_out_is_not_overdue(*, first: bool) -> None:
    clock = Clock()
    prefetch: Prefetch[int] = Prefetch(clock)
    for number in range(1000):
        prefetch.add(number, first=first)
        if number >= 10:
            assert prefetch.overdue() == []
            assert prefetch.next() == number - 10
        clock.now += PATIENCE / 100


def test_a_worker_with_one_place_claims_many_at_once(stage: Stage) -> None:
    stage.app.handler(nothing)
    stage.client.enqueue_many("nothing", [None] * RUNS)
    with stage.worker(concurrency=1):
        stage.all_end(RUNS)
    claims = stage.one("select count(distinct leased_at) from pgflow.run_finished")
    assert claims < RUNS / 2


class Blocked:
    """A worker whose handlers were quick, and then all took long at once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._changing = threading.Lock()
        self._are_slow = False
        self._stuck = 0
        self._go_on = threading.Event()
        self.begun: list[UUID] = []
        stage.app.handler(self.work)
        self.runs = stage.client.enqueue_many("work", [None] * RUNS)

    def work(self, ctx: ThreadContext) -> None:
        """Note that it began, and stand still while handlers are slow."""
        with self._changing:
            self.begun.append(UUID(ctx.run_id))
            is_slow = self._are_slow
            self._stuck += is_slow
        if is_slow:
            assert self._go_on.wait(30)

    @contextmanager
    def worker(self) -> Iterator[Running]:
        """Start it, and have its handlers stand still until the block ends."""
        with self._stage.worker(concurrency=PLACES) as running:
            self._stage.until(lambda: len(self.begun) > 500)
            with self._changing:
                self._are_slow = True
            self._stage.until(lambda: self._stuck == PLACES)
            try:
                yield running
            finally:
                self.go_on()

    def go_on(self) -> None:
        """Have handlers be quick again."""
        self._are_slow = False
        self._go_on.set()

    def held(self) -> set[UUID]:
        """Return what is leased."""
        query = "select run_id from pgflow.run where state = 'running'"
        return {run_id for (run_id,) in self._stage.db.execute(query)}

    def given_back(self, reason: str) -> set[UUID]:
        """Return what was released for that reason, before it began."""
        query = (
            "select run_id from pgflow.event"
            " where type = 'run.released' and payload ->> 'reason' = %s"
        )
        return {run_id for (run_id,) in self._stage.db.execute(query, [reason])}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers keep what they claimed ahead, however long."""
    monkeypatch.setattr("pgflow._prefetch.PATIENCE", 60.0)


def test_what_was_claimed_ahead_goes_back_when_no_place_comes_free(stage: Stage) -> None:
    blocked = Blocked(stage)
    with blocked.worker():
        stage.until(lambda: blocked.given_back("no place came free"))
        stage.until(lambda: len(blocked.held()) <= PLACES)
        assert stage.one("select max(attempt) from pgflow.run") == 0
    with stage.worker():
        stage.all_end(RUNS)
    assert sorted(blocked.begun) == sorted(blocked.runs)
    assert stage.one("select max(lease_no) from pgflow.run_finished") > 1


@pytest.mark.usefixtures("patient")
def test_what_was_claimed_ahead_goes_back_when_the_worker_stops(stage: Stage) -> None:
    blocked = Blocked(stage)
    with blocked.worker() as running:
        stage.until(lambda: blocked.held() - set(blocked.begun))
        running.stop()
        stage.until(lambda: len(blocked.held()) <= PLACES)
        blocked.go_on()
        running.ended()
    begun = len(blocked.begun)
    given_back = blocked.given_back("shutdown")
    assert given_back
    assert given_back.isdisjoint(blocked.begun)
    assert stage.one("select max(attempt) from pgflow.run") == 0
    assert stage.one("select count(*) from pgflow.run_finished") == begun
    assert len(set(blocked.begun)) == begun


@pytest.mark.usefixtures("patient")
def test_what_was_claimed_ahead_and_cancelled_never_begins(stage: Stage, logs: Logs) -> None:
    blocked = Blocked(stage)
    with blocked.worker():
        cancelled = max(stage.until(lambda: blocked.held() - set(blocked.begun)))
        stage.client.cancel(cancelled)
        stage.logged(logs, "lease_lost")
    with stage.worker():
        stage.all_end(RUNS)
    assert cancelled not in blocked.begun
    assert len(blocked.begun) == RUNS - 1


@pytest.mark.usefixtures("patient")
def test_what_was_claimed_ahead_is_let_go_when_the_worker_was_taken_for_dead(
    stage: Stage,
) -> None:
    blocked = Blocked(stage)
    with blocked.worker() as running:
        stage.until(lambda: blocked.held() - set(blocked.begun))
        stage.db.execute("select pgflow.stop_worker(%s)", [running.worker_id])
        running.call(running.worker._beat_now.set)
        stage.until(lambda: stage.one("select true from pgflow.worker_beat"))
        blocked.go_on()
        stage.all_end(RUNS)
    twice = [run for run, count in Counter(blocked.begun).items() if count > 1]
    assert len(twice) <= PLACES


@pytest.mark.usefixtures("patient")
def test_nothing_begins_once_a_worker_was_cancelled(stage: Stage) -> None:
    begun: list[str] = []

    async def work_and_cancel() -> None:
        stuck = asyncio.Event()

        @stage.app.handler
        async def work(ctx: Context) -> None:
            begun.append(ctx.run_id)
            if len(begun) > 500:
                stuck.set()
                await asyncio.Event().wait()

        stage.client.enqueue_many(work, [None] * RUNS)
        worker = Worker(stage.app, stage.dsn, concurrency=1)
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(stuck.wait(), 30)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for _ in range(1000):
            await asyncio.sleep(0)

    asyncio.run(work_and_cancel())
    assert len(begun) == 501
    assert stage.one("select count(*) from pgflow.run where state = 'running'") == 0


def test_a_run_that_is_lost_before_its_handler_begins_frees_its_place(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a beat may come between the making of a task and its first step."""
    begun: list[str] = []

    @stage.app.handler
    async def work(ctx: Context) -> None:
        begun.append(ctx.run_id)

    lost = stage.client.enqueue(work)
    execute = Worker._execute

    def execute_and_interrupt(worker: Worker, held: Any) -> None:
        execute(worker, held)
        if held.lease.run_id == str(lost):
            worker._interrupt((held.lease.run_id, held.lease.lease_no), "cancelled")

    monkeypatch.setattr(Worker, "_execute", execute_and_interrupt)
    other = stage.client.enqueue(work)
    with stage.worker(concurrency=1):
        stage.output(other)
    assert begun == [str(other)]


def test_a_queue_with_a_limit_does_not_starve_behind_a_long_one(stage: Stage) -> None:
    stage.app.handler(nothing)
    stage.client.define_queue("few", max_concurrent=2)
    stage.client.enqueue_many("nothing", [None] * 15_000, queue="long")
    ended = "select count(*) from pgflow.run_finished where queue = 'long'"
    with stage.worker(queues=["long", "few"], concurrency=1):
        stage.until(lambda: stage.one(ended) > 500)
        run_id = stage.client.enqueue("nothing", queue="few")
        stage.all_end(15_001)
    assert stage.one(f"{ended} and finished_at > %s", stage.run(run_id)["finished_at"]) > 0


def test_runs_that_go_back_together_keep_each_its_reason() -> None:
    said: list[tuple[str, list[str]]] = []

    class Sent:
        async def run(self, statement: Statement[list[Outcome]]) -> list[Outcome]:
            said.append((statement.params["reason"], statement.params["run_ids"]))
            return []

    async def report() -> None:
        link: Any = Sent()
        gone = asyncio.Event()
        reporter = Reporter(
            link, link, None, lambda *_: gone.set() if len(said) > 1 else None, lambda: None
        )
        for run_id, reason in (("1", "shutdown"), ("2", "no place came free"), ("3", "shutdown")):
            lease = Lease(run_id, 1, "h", "q", None, 0, 0, 3)
            reporter.end(Released(lease, reason))
        reporting = asyncio.create_task(reporter.run())
        await asyncio.wait_for(gone.wait(), 30)
        reporting.cancel()

    asyncio.run(report())
    assert said == [("shutdown", ["1", "3"]), ("no place came free", ["2"])]


def test_nothing_that_a_handler_sets_in_its_context_reaches_the_next(stage: Stage) -> None:
    last: ContextVar[str] = ContextVar("last")
    found: list[str | None] = []

    @stage.app.handler
    async def work(ctx: Context) -> None:
        found.append(last.get(None))
        last.set(ctx.run_id)

    stage.client.enqueue_many(work, [None] * RUNS)
    with stage.worker(concurrency=1):
        stage.all_end(RUNS)
    assert found == [None] * RUNS


def test_a_worker_with_as_many_places_as_may_be_asks_for_no_more_than_it_may(stage: Stage) -> None:
    stage.app.handler(nothing)
    stage.client.enqueue_many("nothing", [None] * RUNS)
    with stage.worker(concurrency=10_000):
        stage.all_end(RUNS)
        stage.client.enqueue_many("nothing", [None] * RUNS)
        stage.all_end(2 * RUNS)
