"""Budgets as a handler meets them: what is left, and what happens when nothing is."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from pgflow import Budget, Client, Context, Flow, Retry, Step, ThreadContext
from pgflow.budget import BudgetLeft

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

ASK = Budget(usd=1, on_breach="ask", assignee_role="controllers")


def test_a_handler_sees_what_is_left_after_each_step(stage: Stage) -> None:
    seen: list[BudgetLeft] = []

    @stage.app.handler
    async def writes(ctx: Context) -> None:
        def call() -> None:
            ctx.usage(cost_usd=0.5, input_tokens=7)

        seen.append(ctx.budget)
        await ctx.step("draft", call)
        seen.append(ctx.budget)

    @stage.app.handler
    def writes_plainly(ctx: ThreadContext) -> None:
        seen.append(ctx.budget)

    with stage.worker():
        run_id = stage.client.enqueue(writes, budget=Budget(usd=2.5, tokens=10))
        assert stage.ends(run_id)["state"] == "completed"
        stage.ends(stage.client.enqueue(writes_plainly, budget={"seconds": 60}))
    assert seen[:2] == [BudgetLeft(2.5, 10), BudgetLeft(2, 3)]
    assert seen[2].seconds is not None
    assert (seen[2].usd, seen[2].tokens) == (None, None)


def test_without_a_budget_nothing_is_bounded(stage: Stage) -> None:
    seen: list[BudgetLeft] = []

    @stage.app.handler
    async def writes(ctx: Context) -> None:
        seen.append(ctx.budget)

    with stage.worker():
        stage.ends(stage.client.enqueue(writes))
    assert seen == [BudgetLeft()]


def test_a_handler_can_refuse_before_it_spends(stage: Stage) -> None:
    @stage.app.handler
    async def writes(ctx: Context) -> str:
        def call() -> None:
            ctx.usage(cost_usd=0.75)

        calls = 0
        while (ctx.budget.usd or 0) >= 0.75:
            await ctx.step("draft", call)
            calls += 1
        return f"{calls} calls"

    with stage.worker():
        run_id = stage.client.enqueue(writes, budget=Budget(usd=2))
        assert stage.ends(run_id)["output"] == "2 calls"


@pytest.mark.parametrize("kind", ["awaits", "steps"])
def test_a_handler_that_exceeds_its_budget_is_ended(stage: Stage, kind: str) -> None:
    ended = threading.Event()

    @stage.app.handler(retry=Retry(max_attempts=3, base=timedelta(0)))
    async def writes(ctx: Context) -> None:
        ctx.usage(cost_usd=2)
        try:
            if kind == "awaits":
                await asyncio.sleep(60)
            await ctx.step("next", lambda: 1)
            await ctx.step("and next", lambda: 1)
        finally:
            ended.set()

    with stage.worker():
        run = stage.ends(stage.client.enqueue(writes, budget=Budget(usd=1)))
        assert (run["state"], run["error_code"]) == ("failed", "E-RUN-009")
        assert ended.wait(20)


def test_a_run_whose_budget_is_raised_goes_on_where_it_was(stage: Stage) -> None:
    done: list[str] = []

    @stage.app.handler
    async def writes(ctx: Context) -> list[str]:
        for name in ("a", "b", "c"):

            def call(name: str = name) -> None:
                done.append(name)
                ctx.usage(cost_usd=0.6)

            await ctx.step(name, call)
        return done

    with stage.worker():
        run_id = stage.client.enqueue(writes, budget=ASK)
        stage.until(lambda: stage.run(run_id)["state"] == "paused")
        (row,) = stage.client.budgets(run_id=run_id)
        assert row["used_usd"] > row["usd"]
        stage.client.approve(row["task_id"], decision={"usd": 9})
        assert stage.ends(run_id)["state"] == "completed"
    # The step during which it was stopped may have been done again.
    assert sorted(set(done)) == ["a", "b", "c"]
    assert done.count("a") == 1


def test_the_call_that_exceeds_a_budget_is_made_and_counted_once(stage: Stage) -> None:
    done: list[str] = []

    @stage.app.handler
    async def writes(ctx: Context) -> list[str]:
        async def call(name: str) -> str:
            done.append(name)
            ctx.usage(cost_usd=0.6)
            return name

        return [await ctx.step(name, call, name) for name in ("a", "b", "c")]

    with stage.worker():
        run_id = stage.client.enqueue(writes, budget=ASK)
        stage.until(lambda: stage.run(run_id)["state"] == "paused")
        (row,) = stage.client.budgets(run_id=run_id)
        stage.client.approve(row["task_id"], decision={"usd": 9})
        assert stage.output(run_id) == ["a", "b", "c"]
    assert done[:2] == ["a", "b"]
    (row,) = stage.client.budgets(run_id=run_id)
    assert done.count("b") == 1
    steps = "select array_agg(step order by step) from pgflow.model_calls"
    assert stage.one(steps) == ["a", "b", "c"]
    assert row["used_usd"] == Decimal("1.8")


def test_a_flow_is_bounded_as_a_whole(stage: Stage) -> None:
    @stage.app.handler
    async def part(ctx: Context) -> None:
        ctx.usage(model="m-1", input_tokens=600)

    flow = Flow(
        name="parts",
        steps=[
            Step(name="a", handler="part"),
            Step(name="b", handler="part", needs=["a"], budget=Budget(tokens=10_000)),
        ],
        budget=Budget(tokens=1000),
    )
    stage.client.define_flow(flow)
    with stage.worker():
        run_id = stage.client.start(flow)
        run = stage.ends(run_id)
        assert (run["state"], run["error_code"]) == ("failed", "E-RUN-009")
    assert used(stage.client, run_id) == [("m-1", 2, 1200)]


def used(client: Client, run_id: UUID) -> list[tuple[str, int, int]]:
    rows = client.usage_by_model(run_id)
    return [(row["model"], row["calls"], row["input_tokens"]) for row in rows]


def test_the_sum_by_model_has_all_that_was_made_below_a_run(stage: Stage) -> None:
    @stage.app.handler
    async def part(ctx: Context, n: int) -> None:
        ctx.usage(model=f"m-{n % 2}", input_tokens=n)

    @stage.app.handler
    async def whole(ctx: Context) -> None:
        ctx.usage(model="m-0", input_tokens=100, error_code="429")
        await ctx.gather(*(ctx.run(part, n) for n in range(1, 5)))

    with stage.worker():
        run_id = stage.client.enqueue(whole)
        stage.ends(run_id)
    assert used(stage.client, run_id) == [("m-0", 3, 106), ("m-1", 2, 4)]
    assert stage.client.usage_by_model(run_id)[0]["failed_calls"] == 1
