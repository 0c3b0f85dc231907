"""How much a worker does at once, and whose turn it is."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from pgflow import Context, ThreadContext

if TYPE_CHECKING:
    from tests.worker.conftest import Logs, Stage


class Crowd:
    """Counts who is inside at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_no_more_handlers_run_at_once_than_the_worker_may(stage: Stage, kind: str) -> None:
    crowd = Crowd()
    meeting = threading.Barrier(4)

    @stage.app.handler(name="async")
    async def waits() -> None:
        with crowd:
            await asyncio.sleep(0.001)

    @stage.app.handler(name="plain")
    def meets() -> None:
        with crowd:
            meeting.wait(30)  # which takes four threads at once

    stage.client.enqueue_many(kind, [None] * 40)
    with stage.worker(concurrency=4):
        stage.all_end(40)
    assert crowd.most == 4
    assert stage.one("select count(*) from pgflow.run_finished where state = 'completed'") == 40


def test_a_queue_with_a_limit_keeps_to_it_over_all_workers(stage: Stage) -> None:
    crowd = Crowd()

    @stage.app.handler(queue="few")
    async def waits() -> None:
        with crowd:
            await asyncio.sleep(0.001)

    stage.client.define_queue("few", max_concurrent=3)
    stage.client.enqueue_many(waits, [None] * 60)
    with stage.worker(concurrency=50), stage.worker(concurrency=50):
        stage.all_end(60)
    assert 1 <= crowd.most <= 3


@pytest.mark.parametrize("limits", [(None, None), (50, None), (50, 50)], ids=str)
def test_a_queue_does_not_starve_behind_others_that_are_full(
    stage: Stage, limits: tuple[int | None, int | None]
) -> None:
    """A queue that always has work, at the front of the list, and one run behind it."""
    queues = ("a", "b")
    done: list[str] = []

    @stage.app.handler
    async def work(ctx: Context) -> None:
        done.append(ctx.lease.queue)
        if ctx.lease.queue == "a":  # another one comes as this one ends
            await asyncio.to_thread(stage.client.enqueue, "work", queue="a")

    for queue, limit in zip(queues, limits, strict=True):
        stage.client.define_queue(queue, max_concurrent=limit)
    stage.client.enqueue_many("work", [None] * 20, queue="a")
    last = stage.client.enqueue("work", queue="b")
    with stage.worker(queues=queues, concurrency=2):
        stage.output(last)
    assert done.count("b") == 1


def test_an_urgent_run_comes_before_those_that_wait(stage: Stage) -> None:
    order: list[int] = []

    @stage.app.handler
    async def work(n: int) -> None:
        order.append(n)

    for n, priority in enumerate((0, -9, 9, 0)):
        stage.client.enqueue(work, n, priority=priority)
    with stage.worker(concurrency=1):
        stage.all_end(4)
    assert order == [2, 0, 3, 1]


def test_a_paused_queue_is_left_alone_and_goes_on_when_it_is_resumed(stage: Stage) -> None:
    @stage.app.handler(queue="a")
    async def one() -> str:
        return "one"

    @stage.app.handler(queue="b")
    async def other() -> str:
        return "other"

    with stage.worker():
        stage.client.pause_queue("a")
        waiting = stage.client.enqueue(one)
        assert stage.output(stage.client.enqueue(other)) == "other"
        assert stage.run(waiting)["state"] == "pending"
        stage.client.resume_queue("a")
        assert stage.output(waiting) == "one"


def test_a_plain_handler_may_step_inside_a_step(stage: Stage) -> None:
    @stage.app.handler
    def nests(ctx: ThreadContext) -> int:
        def inner() -> int:
            return 1

        def outer() -> int:
            return ctx.step("inner", inner) + 1

        return ctx.step("outer", outer)

    with stage.worker(concurrency=1):
        assert stage.output(stage.client.enqueue(nests)) == 2


@pytest.mark.slow
def test_thousands_of_runs_and_steps_leave_no_warning(stage: Stage, logs: Logs) -> None:
    @stage.app.handler
    async def nothing() -> None:
        """Do nothing."""

    @stage.app.handler
    async def three(ctx: Context, n: int) -> int:
        for name in ("a", "b", "c"):
            n = await ctx.step(name, _plus_one, n)
        return n

    stage.client.enqueue_many(nothing, [None] * 20_000)
    runs = stage.client.enqueue_many(three, list(range(2_000)))
    with stage.worker(), stage.worker():
        stage.all_end(22_000)
    assert [line for line in logs if line["log_level"] not in {"debug", "info"}] == []
    assert stage.one("select count(*) from pgflow.run_finished where state <> 'completed'") == 0
    assert stage.one("select count(*) from pgflow.journal") == 6_000
    assert stage.run(runs[-1])["output"] == 2_002
    assert stage.one("select max(lease_no) from pgflow.run_finished") == 1


async def _plus_one(n: int) -> int:
    return n + 1
