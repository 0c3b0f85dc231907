"""The server goes away and comes back while handlers run; and news that come before a wait."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgflow import Client, Context, ThreadContext
from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate
from tests.worker.conftest import Stage, until

if TYPE_CHECKING:
    from tests.worker.conftest import Logs


@pytest.fixture
def own(data_dir: Path) -> Iterator[EmbeddedServer]:
    """Return a migrated server that keeps what it has committed."""
    with EmbeddedServer(data_dir) as server:
        migrate(server.dsn)
        yield server


def _kill(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)


def _stop(server: EmbeddedServer) -> None:
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("how", [_kill, _stop], ids=["kill -9", "stopped"])
def test_handlers_go_on_without_the_server_and_their_results_are_delivered(
    own: EmbeddedServer, logs: Logs, how: Callable[[EmbeddedServer], None]
) -> None:
    inside, release = threading.Semaphore(0), threading.Event()
    executed: list[str] = []

    def step() -> int:
        return 1

    with psycopg.connect(own.dsn, autocommit=True) as db:
        stage = Stage(own.dsn, db)

        @stage.app.handler
        async def waits(ctx: Context) -> int:
            executed.append(ctx.run_id)
            inside.release()
            await asyncio.to_thread(release.wait, 60)
            return await ctx.step("after", step) + ctx.lease.lease_no

        @stage.app.handler
        def waits_plainly(ctx: ThreadContext) -> int:
            executed.append(ctx.run_id)
            inside.release()
            release.wait(60)
            return ctx.step("after", step) + int(ctx.lease.lease_no)

        @stage.app.handler
        async def asks(ctx: Context) -> str:
            executed.append(ctx.run_id)
            if ctx.lease.lease_no == 1:
                inside.release()
                await asyncio.to_thread(release.wait, 60)
            return (await ctx.approval("ok")).action

        with stage.worker():
            runs = [stage.client.enqueue(h) for h in (waits, waits_plainly, asks)]
            for _ in runs:
                assert inside.acquire(timeout=60)
            how(own)
            release.set()
            until(lambda: [e for e in logs if e["event"] == "server_unreachable"])
            own.start()
            with psycopg.connect(own.dsn, autocommit=True) as again, Client(own.dsn) as client:
                stage.db, stage.client = again, client
                assert stage.output(runs[0]) == 2
                assert stage.output(runs[1]) == 2
                client.approve(stage.task(runs[2]))
                assert stage.output(runs[2]) == "approved"
    assert sorted(executed) == sorted([*map(str, runs), str(runs[2])])


def _tell(stage: Stage, run_id: str, key: str) -> None:
    """Write what the run will ask for into its journal, as a signal would."""
    said = {
        "task_id": run_id,
        "action": "approved",
        "approved": True,
        "decided_by": "somebody",
        "decided_at": "2026-01-01T00:00:00Z",
        "data": {"early": True},
    }
    stage.db.execute(
        "select pgflow._resolve(r, now(), %s, 'approval', %s, '{task.resolved}',"
        " array[jsonb '{}'], %s) from pgflow.run r where run_id = %s",
        [key, Jsonb(said), key, run_id],
    )


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_what_came_before_the_wait_lets_the_handler_go_on_under_the_same_lease(
    stage: Stage, kind: str
) -> None:
    done: list[str] = []

    def step() -> None:
        done.append("step")

    @stage.app.handler(name="async")
    async def asks(ctx: Context) -> Any:
        ctx.usage(cost_usd=0.5)
        await ctx.step("once", step)
        if not done[1:]:
            done.append("told")
            await asyncio.to_thread(_tell, stage, ctx.run_id, "ok")
        return (await ctx.approval("ok")).data

    @stage.app.handler(name="plain")
    def asks_plainly(ctx: ThreadContext) -> Any:
        ctx.usage(cost_usd=0.5)
        ctx.step("once", step)
        if not done[1:]:
            done.append("told")
            _tell(stage, ctx.run_id, "ok")
        return ctx.approval("ok").data

    with stage.worker():
        run_id = stage.client.enqueue(kind)
        until(lambda: "told" in done)
        assert stage.output(run_id) == {"early": True}
    run = stage.run(run_id)
    assert (run["lease_no"], run["attempt_count"], done) == (1, 0, ["step", "told"])
    assert float(run["cost_usd"]) == 0.5
    assert stage.events(run_id).count("run.started") == 1


def test_news_of_something_else_do_not_keep_a_run_from_waiting(stage: Stage) -> None:
    told: list[int] = []

    @stage.app.handler
    async def asks(ctx: Context) -> Any:
        if not told:
            told.append(1)
            await asyncio.to_thread(_tell, stage, ctx.run_id, "other")
        first = await ctx.approval("ok")
        return [first.data, (await ctx.approval("other")).data]

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        until(lambda: told)
        stage.client.approve(stage.task(run_id), decision=1)
        assert stage.output(run_id) == [1, {"early": True}]


@pytest.mark.parametrize("link", ["acquire|beat", "complete|notify", "^listen"])
def test_a_connection_that_is_cut_is_made_anew(stage: Stage, link: str) -> None:
    """Whatever its connections did last, the worker goes on after they were cut."""

    @stage.app.handler
    async def work(n: int) -> int:
        return n

    cut = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and application_name = 'pgflow'"
        " and query ~ %s"
    )
    stage.client.define_queue("default", lease_ttl=stage.one("select interval '1 second'"))
    with stage.worker():
        assert stage.output(stage.client.enqueue(work, 1)) == 1
        until(lambda: stage.one(cut, link))
        runs = stage.client.enqueue_many(work, list(range(50)))
        assert [stage.output(run_id) for run_id in runs] == list(range(50))


def test_a_worker_that_was_forgotten_registers_again(stage: Stage) -> None:
    @stage.app.handler
    async def work(n: int) -> int:
        return n

    with stage.worker() as running:
        assert stage.output(stage.client.enqueue(work, 1)) == 1
        for table in ("idle_worker", "worker_beat", "worker"):
            stage.db.execute(f"delete from pgflow.{table}")
        stage.db.execute("select pg_notify('pgflow', 'work default default')")
        known = "select true from pgflow.worker where worker_id = %s"
        until(lambda: stage.one(known, running.worker_id))
        assert stage.output(stage.client.enqueue(work, 2)) == 2
