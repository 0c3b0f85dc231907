"""What a handler writes together with its run's completion, or with a step: both or nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import psycopg
import pytest

from pgflow import Context, PgflowError, Retry, ThreadContext
from pgflow._transaction import Transaction
from pgflow.errors import MisplacedCall
from pgflow.models import Lease

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

AT_ONCE = Retry(max_attempts=3, base=timedelta(0))
ONCE = Retry(max_attempts=1)
WRITE = "insert into paid (run_id) values (%s)"


@pytest.fixture
def written(stage: Stage) -> Callable[[], list[Any]]:
    """Make a table of the application's, and return what tells what is in it."""
    stage.db.execute("create table paid (run_id uuid)")
    return lambda: [row[0] for row in stage.db.execute("select run_id from paid").fetchall()]


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_writes_are_committed_with_the_completion(stage: Stage, written: Any, kind: str) -> None:
    seen: list[Any] = []

    @stage.app.handler(name="async")
    async def pays(ctx: Context) -> str:
        async with ctx.transaction() as conn:
            await conn.execute(WRITE, [ctx.run_id])
        ctx.usage(cost_usd=0.5)
        seen.append((written(), stage.run(ctx.run_id)["state"]))  # type: ignore[arg-type]
        return "paid"

    @stage.app.handler(name="plain")
    def pays_plainly(ctx: ThreadContext) -> str:
        with ctx.transaction() as conn:
            conn.execute(WRITE, [ctx.run_id])
        ctx.usage(cost_usd=0.5)
        seen.append((written(), stage.run(ctx.run_id)["state"]))
        return "paid"

    with stage.worker():
        run_id = stage.client.enqueue(kind)
        assert stage.output(run_id) == "paid"
    assert seen == [([], "running")]
    assert written() == [run_id]
    assert float(stage.run(run_id)["cost_usd"]) == 0.5


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_writes_of_a_run_that_was_taken_away_are_rolled_back(
    stage: Stage, written: Any, kind: str, verb: str
) -> None:
    began, goes_on = threading.Event(), threading.Event()

    @stage.app.handler(name="async")
    async def pays(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute(WRITE, [ctx.run_id])
        began.set()
        await asyncio.to_thread(goes_on.wait, 30)

    @stage.app.handler(name="plain")
    def pays_plainly(ctx: ThreadContext) -> None:
        with ctx.transaction() as conn:
            conn.execute(WRITE, [ctx.run_id])
        began.set()
        goes_on.wait(30)

    with stage.worker():
        run_id = stage.client.enqueue(kind)
        assert began.wait(30)
        getattr(stage.client, verb)(run_id)
        goes_on.set()
    assert written() == []
    assert stage.run(run_id)["state"] == {"cancel": "cancelled", "pause": "paused"}[verb]


def test_writes_under_a_lost_lease_are_rolled_back_by_the_fence(stage: Stage, written: Any) -> None:
    """The worker doesn't hear that its lease is lost: only the last statement finds out."""
    leases: list[int] = []

    @stage.app.handler(retry=AT_ONCE)
    async def pays(ctx: Context) -> None:
        leases.append(ctx.lease_no)
        async with ctx.transaction() as conn:
            await conn.execute(WRITE, [ctx.run_id])
        if ctx.lease_no == 1:
            with psycopg.connect(stage.dsn, autocommit=True) as other:
                other.execute(
                    "select * from pgflow.release(%s::uuid[], '{1}', 'staged')", [[ctx.run_id]]
                )

    with stage.worker():
        run_id = stage.client.enqueue(pays)
        stage.output(run_id)
    assert written() == [run_id]
    assert leases == [1, 2]


@pytest.mark.parametrize("where", ["inside", "after"])
def test_writes_of_a_handler_that_raises_are_rolled_back(
    stage: Stage, written: Any, where: str
) -> None:
    @stage.app.handler(retry=ONCE)
    async def pays(ctx: Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute(WRITE, [ctx.run_id])
            if where == "inside":
                raise ValueError("no")
        raise ValueError("no")

    with stage.worker():
        run = stage.ends(stage.client.enqueue(pays))
    assert (run["state"], run["error_detail"]) == ("failed", "ValueError: no")
    assert written() == []


def test_a_transaction_that_failed_can_be_caught_and_the_handler_go_on(
    stage: Stage, written: Any
) -> None:
    @stage.app.handler(retry=ONCE)
    async def pays(ctx: Context) -> int:
        try:
            async with ctx.transaction() as conn:
                await conn.execute(WRITE, [ctx.run_id])
                await conn.execute("select 1 / 0")
        except psycopg.errors.DivisionByZero:
            return await ctx.step("instead", lambda: 1)
        return 2

    with stage.worker():
        assert stage.output(stage.client.enqueue(pays)) == 1
    assert written() == []


def test_savepoints_are_the_handlers_but_the_commit_is_not(stage: Stage, written: Any) -> None:
    @stage.app.handler(retry=ONCE)
    async def pays(ctx: Context) -> str:
        async with ctx.transaction() as conn:
            async with conn.transaction():
                await conn.execute(WRITE, [ctx.run_id])
            async with conn.transaction(force_rollback=True):
                await conn.execute(WRITE, [ctx.run_id])
            try:
                await conn.commit()
            except psycopg.ProgrammingError as error:
                return str(error)
        return "?"

    with stage.worker():
        run_id = stage.client.enqueue(pays)
        assert "commit" in stage.output(run_id)
    assert written() == [run_id]


async def one() -> int:
    return 1


async def nothing(_: psycopg.AsyncConnection[Any]) -> None: ...


def test_nothing_of_the_context_can_follow_a_transaction(stage: Stage, written: Any) -> None:
    @stage.app.handler(retry=ONCE)
    async def pays(ctx: Context) -> list[str]:
        async with ctx.transaction() as conn:
            await conn.execute(WRITE, [ctx.run_id])
        told = []
        calls: tuple[Awaitable[Any], ...] = (
            ctx.step("x", one),
            ctx.tool("x"),
            ctx.approval("x"),
            ctx.emit("x"),
            ctx.now(),
            ctx.gather(),
            ctx.first(),
            ctx.transact("x", nothing),
        )
        for call in calls:
            try:
                await call
            except MisplacedCall as error:
                told.append(str(error).split()[0])
        try:
            async with ctx.transaction():
                pass
        except MisplacedCall as error:
            told.append(str(error).split()[0])
        return told

    with stage.worker():
        run_id = stage.client.enqueue(pays)
        calls = ["step", "tool", "approval", "emit", "now", "gather", "first", "transact"]
        calls.append("transaction")
        assert stage.output(run_id) == [f"ctx.{call}" for call in calls]
    assert written() == [run_id]


def test_a_transaction_cannot_stand_in_a_branch(stage: Stage) -> None:
    @stage.app.handler(retry=ONCE)
    async def pays(ctx: Context) -> None:
        async def branch() -> None:
            async with ctx.transaction():
                pass

        await ctx.gather(branch())

    with stage.worker():
        run = stage.ends(stage.client.enqueue(pays))
    assert "ctx.transaction ends the run" in run["error_detail"]


def test_an_output_that_cannot_be_stored_rolls_back_the_writes(stage: Stage, written: Any) -> None:
    @stage.app.handler(retry=ONCE)
    async def pays(ctx: Context) -> str:
        async with ctx.transaction() as conn:
            await conn.execute(WRITE, [ctx.run_id])
        return "\0"

    with stage.worker():
        run = stage.ends(stage.client.enqueue(pays))
    assert run["state"] == "failed"
    assert written() == []


@pytest.mark.parametrize("kind", ["async", "plain", "plain step"])
def test_a_steps_writes_are_committed_with_its_entry(stage: Stage, written: Any, kind: str) -> None:
    async def pay(conn: psycopg.AsyncConnection[Any], run_id: str) -> str:
        await conn.execute(WRITE, [run_id])
        return "paid"

    def pay_plainly(conn: psycopg.Connection[Any], run_id: str) -> str:
        conn.execute(WRITE, [run_id])
        return "paid"

    @stage.app.handler(name="async", retry=AT_ONCE)
    async def pays(ctx: Context) -> list[Any]:
        paid = await ctx.transact("pay", pay, ctx.run_id)
        return [paid, ctx.attempt or 1 // 0]

    @stage.app.handler(name="plain step", retry=AT_ONCE)
    async def pays_half(ctx: Context) -> list[Any]:
        paid = await ctx.transact("pay", pay_plainly, ctx.run_id)
        return [paid, ctx.attempt or 1 // 0]

    @stage.app.handler(name="plain", retry=AT_ONCE)
    def pays_plainly(ctx: ThreadContext) -> list[Any]:
        paid = ctx.transact("pay", pay_plainly, ctx.run_id)
        return [paid, ctx.attempt or 1 // 0]

    with stage.worker():
        run_id = stage.client.enqueue(kind)
        assert stage.output(run_id) == ["paid", 1]
    assert written() == [run_id]
    assert stage.events(run_id).count("step.completed") == 1


def test_a_steps_writes_under_a_lost_lease_are_rolled_back(stage: Stage, written: Any) -> None:
    raised: list[str] = []

    async def pay(conn: psycopg.AsyncConnection[Any], run_id: str, *, lose: bool) -> None:
        await conn.execute(WRITE, [run_id])
        if lose:
            with psycopg.connect(stage.dsn, autocommit=True) as other:
                other.execute(
                    "select * from pgflow.release(%s::uuid[], '{1}', 'staged')", [[run_id]]
                )

    @stage.app.handler(retry=AT_ONCE)
    async def pays(ctx: Context) -> None:
        lose = ctx.lease_no == 1

        async def once(conn: psycopg.AsyncConnection[Any], run_id: str) -> None:
            await pay(conn, run_id, lose=lose)

        try:
            await ctx.transact("pay", once, ctx.run_id)
        except PgflowError as error:
            raised.append(type(error).__name__)
            raise

    with stage.worker():
        run_id = stage.client.enqueue(pays)
        stage.output(run_id)
    assert written() == [run_id]
    assert raised == ["LeaseLost"]


def test_a_step_in_a_transaction_can_be_undone(stage: Stage, written: Any) -> None:
    undone: list[str] = []

    async def pay(conn: psycopg.AsyncConnection[Any], run_id: str) -> str:
        await conn.execute(WRITE, [run_id])
        return "receipt"

    @stage.app.handler
    async def pays(ctx: Context) -> int:
        await ctx.transact("pay", pay, ctx.run_id, undo=undone.append)
        await ctx.approval("ok")
        return ctx.version

    with stage.worker():
        run_id = stage.client.enqueue(pays)
        first = stage.task(run_id)
        stage.client.reject(first, "again", rollback_to="pay")
        stage.until(lambda: {t["task_id"] for t in stage.client.inbox(run_id=run_id)} - {first})
        stage.client.approve(stage.task(run_id))
        assert stage.output(run_id) == 1
    assert undone == ["receipt"]
    assert written() == [run_id, run_id]


def test_a_rollback_that_is_interrupted_still_closes_the_connection(stage: Stage) -> None:
    """A worker that ends cancels what its event loop has left, here before a thread is free."""

    async def interrupt() -> psycopg.Connection[Any]:
        threads = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(threads)
        lease = Lease("", 1, "h", "default", None, 0, 0, 1)
        transaction = Transaction(stage.dsn, lease, None, AsyncMock(return_value=None))
        conn = await transaction.begin_plain()
        busy = threading.Event()
        threads.submit(busy.wait, 30)
        abandoning = asyncio.create_task(transaction.abandon())
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoning
        busy.set()
        return conn

    assert asyncio.run(interrupt()).closed
