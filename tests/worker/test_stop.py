"""How a worker leaves: what runs may end, the rest goes back, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from pgflow import App, Context, ThreadContext, Worker
from pgflow.errors import ServerUnreachable, UnknownProject

if TYPE_CHECKING:
    from tests.worker.conftest import Logs, Stage

NOWHERE = "host=127.0.0.1 port=1 dbname=x"


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_what_runs_may_end_and_nothing_new_is_begun(stage: Stage, kind: str) -> None:
    inside, release = threading.Event(), threading.Event()

    @stage.app.handler(name="async")
    async def waits() -> str:
        inside.set()
        await asyncio.to_thread(release.wait, 30)
        return "ended"

    @stage.app.handler(name="plain")
    def waits_plainly() -> str:
        inside.set()
        release.wait(30)
        return "ended"

    with stage.worker(concurrency=1) as running:
        first = stage.client.enqueue(kind)
        second = stage.client.enqueue(kind)
        assert inside.wait(30)
        running.stop()
        release.set()
        running.ended()
    assert stage.output(first) == "ended"
    assert (stage.run(second)["state"], stage.run(second)["lease_no"]) == ("pending", 0)


def test_what_does_not_end_within_the_grace_goes_back_without_using_an_attempt(
    stage: Stage,
) -> None:
    begun: list[int] = []
    interrupted: list[int] = []

    @stage.app.handler
    async def waits(ctx: Context, n: int) -> int:
        ctx.usage(cost_usd=0.5)
        if ctx.lease.lease_no == 1:
            begun.append(n)
            try:
                await asyncio.sleep(3600)
            finally:
                interrupted.append(n)
        return n

    runs = stage.client.enqueue_many(waits, list(range(5)))
    with stage.worker(grace=0.05) as running:
        stage.until(lambda: len(begun) == 5)
        running.stop()
        running.ended()
    assert sorted(interrupted) == [0, 1, 2, 3, 4]
    for run_id in runs:
        run = stage.run(run_id)
        assert (run["state"], run["attempt_count"]) == ("pending", 0)
        assert float(run["cost_usd"]) == 0.5
        assert stage.events(run_id) == ["run.created", "run.started", "run.released"]
        assert stage.client.timeline(run_id)[-1]["payload"] == {"reason": "shutdown"}
    with stage.worker():
        assert [stage.output(run_id) for run_id in runs] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_the_second_stop_does_not_wait(stage: Stage, kind: str) -> None:
    inside = threading.Event()

    @stage.app.handler(name="async")
    async def waits() -> None:
        inside.set()
        await asyncio.sleep(3600)

    @stage.app.handler(name="plain")
    def spins(ctx: ThreadContext) -> None:
        inside.set()
        while not ctx.cancelled:
            pass

    with stage.worker(grace=3600) as running:
        run_id = stage.client.enqueue(kind)
        assert inside.wait(30)
        running.stop()
        running.stop()
        running.ended()
    run = stage.run(run_id)
    assert (run["state"], run["attempt_count"]) == ("pending", 0)
    assert stage.events(run_id) == ["run.created", "run.started", "run.released"]


def test_a_wait_and_a_step_are_delivered_while_it_stops(stage: Stage) -> None:
    inside, release = threading.Event(), threading.Event()

    @stage.app.handler
    async def asks(ctx: Context) -> None:
        inside.set()
        await asyncio.to_thread(release.wait, 30)
        await ctx.step("x", asyncio.sleep, 0)
        await ctx.approval("ok")

    with stage.worker() as running:
        run_id = stage.client.enqueue(asks)
        assert inside.wait(30)
        running.stop()
        release.set()
        running.ended()
    assert stage.run(run_id)["state"] == "waiting_approval"
    assert stage.run(run_id)["step_count"] == 1


def test_a_stopped_worker_is_known_as_stopped_and_leaves_no_connection(stage: Stage) -> None:
    with stage.worker() as running:
        pass
    stopped = "select stopped_at is not null from pgflow.worker where worker_id = %s"
    assert stage.one(stopped, running.worker_id) is True
    assert stage.one("select count(*) from pgflow.idle_worker") == 0
    assert stage.one("select count(*) from pgflow.worker_beat") == 0
    ours = (
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and application_name = 'pgflow'"
    )
    stage.until(lambda: stage.one(ours) == 0)


def test_a_cancelled_worker_gives_back_what_it_holds(stage: Stage) -> None:
    """A program that embeds a worker cancels its task."""
    begun, interrupted = threading.Event(), threading.Event()

    @stage.app.handler
    async def waits() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            interrupted.set()

    run_id = stage.client.enqueue(waits)

    async def embed() -> None:
        task = asyncio.create_task(Worker(stage.app, stage.dsn).run())
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert interrupted.is_set()

    asyncio.run(asyncio.wait_for(embed(), 30))
    assert (stage.run(run_id)["state"], stage.run(run_id)["attempt_count"]) == ("pending", 0)


def test_a_worker_that_cannot_reach_the_server_says_so() -> None:
    with pytest.raises(ServerUnreachable):
        asyncio.run(Worker(App(NOWHERE), NOWHERE).run())


def test_a_worker_of_an_unknown_project_says_so(stage: Stage) -> None:
    with pytest.raises(UnknownProject):
        asyncio.run(Worker(stage.app, stage.dsn, project="nobodys").run())


def test_a_result_that_comes_too_late_is_logged_as_refused(stage: Stage, logs: Logs) -> None:
    inside, release = threading.Event(), threading.Event()

    @stage.app.handler
    async def waits() -> str:
        inside.set()
        await asyncio.to_thread(release.wait, 30)
        return "too late"

    with stage.worker():
        run_id = stage.client.enqueue(waits)
        assert inside.wait(30)
        with stage.db.transaction():  # taken away, and nobody tells the worker
            stage.db.execute("alter table pgflow.run disable trigger user")
            stage.db.execute("update pgflow.run set lease_no = lease_no + 1")
            stage.db.execute("alter table pgflow.run enable trigger user")
        release.set()
        assert stage.logged(logs, "result_refused")["run_id"] == str(run_id)
    assert stage.run(run_id)["output"] is None
