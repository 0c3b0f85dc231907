"""ctx.usage: the ledger of model calls, over all executions of a run."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from pgflow import Context, Retry, ThreadContext

if TYPE_CHECKING:
    from tests.worker.conftest import Logs, Row, Stage

AT_ONCE = Retry(max_attempts=3, base=timedelta(0))


def ledger(stage: Stage, run_id: UUID) -> list[tuple[Any, ...]]:
    rows = stage.db.execute(
        "select call_key, step, attempt, cost_usd_total::float from pgflow.model_calls"
        " where run_id = %s order by call_key",
        [run_id],
    )
    return rows.fetchall()


def cost(run: Row) -> float:
    return float(run["cost_usd"])


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_replay_counts_no_call_twice(stage: Stage, kind: str) -> None:
    @stage.app.handler(name="async")
    async def writes(ctx: Context) -> None:
        async def call() -> int:
            ctx.usage(model="m-1", input_tokens=10, cost_usd=1)
            return 10

        ctx.usage(cost_usd=2)
        await ctx.step("draft", call)
        ctx.usage(cost_usd=4)
        ctx.usage(cost_usd=8)
        await ctx.approval("ok")
        await ctx.step("publish", call)
        ctx.usage(cost_usd=16)

    @stage.app.handler(name="plain")
    def writes_plainly(ctx: ThreadContext) -> None:
        def call() -> int:
            ctx.usage(model="m-1", input_tokens=10, cost_usd=1)
            return 10

        ctx.usage(cost_usd=2)
        ctx.step("draft", call)
        ctx.usage(cost_usd=4)
        ctx.usage(cost_usd=8)
        ctx.approval("ok")
        ctx.step("publish", call)
        ctx.usage(cost_usd=16)

    with stage.worker():
        run_id = stage.client.enqueue(kind)
        task = stage.task(run_id)
        assert cost(stage.run(run_id)) == 15  # before anybody has decided
        stage.client.approve(task)
        assert cost(stage.ends(run_id)) == 32
    assert ledger(stage, run_id) == [
        ("draft/usage@1", "draft", 0, 1),
        ("publish/usage@2", "publish", 0, 1),
        ("usage@0", None, 0, 2),
        ("usage@1", None, 0, 4),
        ("usage@1#2", None, 0, 8),
        ("usage@2", None, 0, 16),
    ]


def test_a_step_that_is_executed_again_calls_the_model_again(stage: Stage, logs: Logs) -> None:
    @stage.app.handler(retry=AT_ONCE)
    async def asks(ctx: Context) -> None:
        def call() -> None:
            if ctx.attempt == 0:
                ctx.usage(model="m-1", error_code="overloaded", cost_usd=1)
                raise ValueError("overloaded")
            ctx.usage(model="m-1", cost_usd=2)

        await ctx.step("draft", call)

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        assert cost(stage.ends(run_id)) == 3
    assert ledger(stage, run_id) == [
        ("draft/usage@1", "draft", 0, 1),
        ("draft/usage@2", "draft", 1, 2),
    ]
    failed = "select status from pgflow.model_calls where error_code = 'overloaded'"
    assert stage.one(failed) == "failed"
    assert [line for line in logs if line["event"] == "usage_refused"] == []


def test_what_is_done_again_after_a_rollback_counts_again(stage: Stage) -> None:
    @stage.app.handler
    async def writes(ctx: Context) -> None:
        await ctx.step("research", lambda: 1)
        ctx.usage(cost_usd=1)
        await ctx.step("draft", lambda: 2, undo=lambda _: None)
        ctx.usage(cost_usd=10)
        await ctx.approval("ok")

    with stage.worker():
        run_id = stage.client.enqueue(writes)
        stage.client.reject(stage.task(run_id), rollback_to="draft")
        stage.until(lambda: stage.run(run_id)["round"] == 1)
        stage.client.approve(stage.task(run_id))
        assert cost(stage.ends(run_id)) == 21


def test_branches_tell_their_calls_apart(stage: Stage) -> None:
    @stage.app.handler
    async def asks(ctx: Context) -> None:
        async def call(n: int) -> None:
            ctx.usage(cost_usd=n)

        await ctx.gather(ctx.step("a", call, 1), ctx.step("a", call, 2), ctx.approval("ok"))

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        stage.client.approve(stage.task(run_id))
        assert cost(stage.ends(run_id)) == 3
    steps = [step for _, step, _, _ in ledger(stage, run_id)]
    assert steps == ["gather#1/0/a", "gather#1/1/a"]


def test_a_key_that_is_given_counts_once(stage: Stage) -> None:
    @stage.app.handler(retry=AT_ONCE)
    async def asks(ctx: Context) -> None:
        def call() -> None:
            ctx.usage(cost_usd=1, call_key="req-1")
            if ctx.attempt == 0:
                raise ValueError("once more")

        await ctx.step("draft", call)

    with stage.worker():
        assert cost(stage.ends(stage.client.enqueue(asks))) == 1


@pytest.mark.parametrize("end", ["complete", "fail"])
def test_it_is_written_before_the_run_ends(stage: Stage, end: str) -> None:
    @stage.app.handler(retry=Retry(max_attempts=1))
    async def asks(ctx: Context, n: int) -> None:
        ctx.usage(cost_usd=n)
        if end == "fail":
            raise ValueError("no")

    with stage.worker():
        runs = stage.client.enqueue_many(asks, list(range(50)))
        assert [cost(stage.ends(run_id)) for run_id in runs] == list(range(50))


def test_it_is_seen_while_the_handler_works(stage: Stage) -> None:
    goes_on = threading.Event()

    @stage.app.handler
    async def asks(ctx: Context) -> None:
        ctx.usage(cost_usd=1)
        await asyncio.to_thread(goes_on.wait, 30)

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        stage.until(lambda: stage.run(run_id)["cost_usd"])
        assert stage.run(run_id)["state"] == "running"
        goes_on.set()


def test_a_decimal_is_kept_to_the_last_digit(stage: Stage) -> None:
    costs = ["0.1", "12345.67890123456789", "1E-9", "1e3"]

    @stage.app.handler
    async def asks(ctx: Context) -> None:
        for cost in costs:
            ctx.usage(cost_usd_input=Decimal(cost), cost_usd_output=0)

    with stage.worker():
        run = stage.ends(stage.client.enqueue(asks))
    assert run["cost_usd"] == sum(map(Decimal, costs)) == Decimal("13345.77890123556789")


def test_a_decimal_that_is_no_cost_is_refused(stage: Stage) -> None:
    @stage.app.handler
    async def asks(ctx: Context) -> None:
        for cost in ("NaN", "Infinity", "-0.01"):
            with pytest.raises(ValueError, match="cost_usd must be a finite number from 0"):
                ctx.usage(cost_usd=Decimal(cost))

    with stage.worker():
        assert stage.ends(stage.client.enqueue(asks))["cost_usd"] is None


def test_a_lost_lease_adds_nothing(stage: Stage, logs: Logs) -> None:
    began, goes_on = threading.Event(), threading.Event()

    @stage.app.handler
    def asks(ctx: ThreadContext) -> None:
        began.set()
        goes_on.wait(30)
        ctx.usage(cost_usd=1)

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        assert began.wait(30)
        stage.client.cancel(run_id)
        goes_on.set()
        line = stage.logged(logs, "usage_refused")
    assert (line["run_id"], line["reason"]) == (str(run_id), "the lease is lost")
    assert (ledger(stage, run_id), stage.run(run_id)["cost_usd"]) == ([], None)


def test_a_wrong_field_is_logged_and_the_others_are_written(stage: Stage, logs: Logs) -> None:
    @stage.app.handler
    async def asks(ctx: Context) -> None:
        ctx.usage(cost_usd=1)
        ctx.usage(input_tokens=-1, cost_usd=2)
        ctx.usage(model="a\0b\ud800", cost_usd=4)

    with stage.worker():
        assert cost(stage.ends(stage.client.enqueue(asks))) == 5
    (line,) = [line for line in logs if line["event"] == "usage_refused"]
    assert line["reason"].startswith("input_tokens must be")


def test_it_is_committed_with_a_transaction_that_holds_the_run(stage: Stage) -> None:
    emits = "select pgflow.emit(%s, 'note')"

    @stage.app.handler
    async def pays(ctx: Context) -> None:
        async def book(conn: Any) -> None:
            await conn.execute(emits, [ctx.run_id])
            ctx.usage(cost_usd=1)

        await ctx.transact("book", book)
        async with ctx.transaction() as conn:
            await conn.execute(emits, [ctx.run_id])
            ctx.usage(cost_usd=2)

    with stage.worker():
        assert cost(stage.ends(stage.client.enqueue(pays))) == 3
