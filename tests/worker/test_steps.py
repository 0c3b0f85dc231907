"""Steps: done once in the life of a run, however often its handler begins."""

from __future__ import annotations

import asyncio
import functools
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from pgflow import Context, Retry, ThreadContext

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

SOON = Retry(base=timedelta(milliseconds=1))


class Draft(BaseModel):
    words: list[str]


@dataclass
class Size:
    width: int


def test_steps_are_done_once_over_retries_and_resumptions(stage: Stage) -> None:
    done: list[str] = []

    async def one(n: int) -> int:
        done.append("one")
        return n + 1

    def two(n: int) -> int:
        done.append("two")
        return n * 10

    @stage.app.handler(retry=SOON)
    async def works(ctx: Context, n: int) -> list[int]:
        a = await ctx.step("one", one, n)
        if ctx.attempt == 0:
            raise ValueError("once more")
        b = await ctx.step("two", two, n=a)
        await ctx.approval("ok")
        return [a, b]

    @stage.app.handler(retry=SOON)
    def works_plainly(ctx: ThreadContext, n: int) -> list[int]:
        a = ctx.step("one", one, n)
        if ctx.attempt == 0:
            raise ValueError("once more")
        b = ctx.step("two", two, n=a)
        ctx.approval("ok")
        return [a, b]

    with stage.worker():
        for handler in (works, works_plainly):
            done.clear()
            run_id = stage.client.enqueue(handler, 1)
            stage.client.approve(stage.task(run_id))
            assert stage.output(run_id) == [2, 20]
            assert done == ["one", "two"]
            assert stage.run(run_id)["step_count"] == 2
            assert stage.events(run_id).count("step.completed") == 2


def test_one_name_used_again_is_another_step(stage: Stage) -> None:
    done: list[int] = []

    async def count(n: int) -> int:
        done.append(n)
        return n

    @stage.app.handler(retry=SOON)
    async def counts(ctx: Context) -> list[int]:
        counted = [await ctx.step("count", count, n) for n in range(3)]
        return counted if ctx.attempt else [1 // 0]

    with stage.worker():
        assert stage.output(stage.client.enqueue(counts)) == [0, 1, 2]
    assert done == [0, 1, 2]


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_other_arguments_than_before_pause_the_run_until_the_code_fits(
    stage: Stage, kind: str
) -> None:
    deployed = threading.Event()

    def step(n: int) -> int:
        return n

    @stage.app.handler(name="async")
    async def changes(ctx: Context) -> int:
        n = await ctx.step("n", step, 1 if deployed.is_set() else ctx.lease.lease_no)
        await ctx.approval("ok")
        return n

    @stage.app.handler(name="plain")
    def changes_plainly(ctx: ThreadContext) -> int:
        n = ctx.step("n", step, 1 if deployed.is_set() else ctx.lease.lease_no)
        ctx.approval("ok")
        return n

    with stage.worker():
        run_id = stage.client.enqueue(kind)
        stage.client.approve(stage.task(run_id))
        run = stage.reaches(run_id, "paused")
        assert run["pause_reason"].startswith("E-RUN-012")
        assert "step n" in run["pause_reason"]
        assert run["attempt_count"] == 0
        deployed.set()
        stage.client.resume(run_id)
        assert stage.output(run_id) == 1


async def drafts() -> Draft:
    return Draft(words=["a"])


def measures() -> Size:
    return Size(3)


async def untyped():  # type: ignore[no-untyped-def] # noqa: ANN201
    return (1, 2)


async def unresolvable() -> OnlyForTypeCheckers:  # type: ignore[name-defined] # noqa: F821
    return {"a": 1}


def test_a_result_comes_back_as_its_annotation_says_now_and_later(stage: Stage) -> None:
    seen: list[list[Any]] = []

    @stage.app.handler(retry=SOON)
    async def looks(ctx: Context) -> None:
        seen.append(
            [
                await ctx.step("draft", drafts),
                await ctx.step("size", measures),
                await ctx.step("untyped", untyped),
                await ctx.step("unresolvable", unresolvable),
                await ctx.step("builtin", len, [1, 2]),
                await ctx.step("partial", functools.partial(max, 1, 2)),
                await ctx.step("lambda", lambda words: asyncio.sleep(0, words), {"words": ["a"]}),
            ]
        )
        if ctx.attempt == 0:
            raise ValueError("once more")

    with stage.worker():
        stage.output(stage.client.enqueue(looks))
    plain = {"words": ["a"]}
    assert seen == [[Draft(words=["a"]), Size(3), [1, 2], {"a": 1}, 2, 2, plain]] * 2


def test_a_step_that_raises_is_not_kept(stage: Stage) -> None:
    tries: list[int] = []

    async def second_time() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("no route")
        return len(tries)

    @stage.app.handler
    async def catches(ctx: Context) -> int:
        try:
            return await ctx.step("try", second_time)
        except ConnectionError:
            return await ctx.step("try", second_time)

    with stage.worker():
        run_id = stage.client.enqueue(catches)
        assert stage.output(run_id) == 2
    assert stage.run(run_id)["step_count"] == 1


def test_steps_at_the_same_time_are_all_kept(stage: Stage) -> None:
    async def double(n: int) -> int:
        return n * 2

    @stage.app.handler(retry=SOON)
    async def gathers(ctx: Context) -> list[int]:
        found = list(await ctx.gather(*(ctx.step("n", double, n) for n in range(20))))
        return found if ctx.attempt else [1 // 0]

    with stage.worker():
        run_id = stage.client.enqueue(gathers)
        assert stage.output(run_id) == [n * 2 for n in range(20)]
    assert stage.run(run_id)["step_count"] == 20


def test_plain_handlers_that_take_all_threads_can_still_do_steps(stage: Stage) -> None:
    here: list[int] = []

    @stage.app.handler
    def steps(ctx: ThreadContext) -> bool:
        def where() -> int:
            return threading.get_ident()

        return ctx.step("where", where) == threading.get_ident()

    with stage.worker(concurrency=2):
        runs = stage.client.enqueue_many(steps, [None] * 6)
        assert [stage.output(run_id) for run_id in runs] == [True] * 6
    assert here == []


def test_a_step_with_arguments_that_are_not_json_fails_the_run(stage: Stage) -> None:
    @stage.app.handler
    async def passes(ctx: Context) -> None:
        await ctx.step("x", str, threading.Lock())

    with stage.worker():
        run = stage.ends(stage.client.enqueue(passes))
    assert (run["error_code"], run["attempt_count"]) == ("E-RUN-001", 1)
    assert "an argument of step x is not JSON" in run["error_detail"]


def test_the_cost_of_a_run_is_the_sum_of_its_executions_each_stored_once(stage: Stage) -> None:
    @stage.app.handler(retry=SOON)
    async def costs(ctx: Context) -> None:
        def spends() -> None:
            ctx.usage(cost_usd=0.25)
            ctx.usage(cost_usd=0.25)
            if ctx.attempt == 0:
                raise ValueError("once more")

        await ctx.step("x", spends)
        await ctx.approval("ok")
        await ctx.step("x", spends)

    with stage.worker():
        run_id = stage.client.enqueue(costs)
        stage.client.approve(stage.task(run_id))
        assert float(stage.ends(run_id)["cost_usd"]) == 1.5  # failed, parked, completed


def test_a_cost_that_is_no_number_fails_the_run(stage: Stage) -> None:
    @stage.app.handler
    async def costs(ctx: Context) -> None:
        ctx.usage(cost_usd=float("nan"))

    with stage.worker():
        run = stage.ends(stage.client.enqueue(costs, max_attempts=1))
    assert "cost_usd must be a finite number" in run["error_detail"]


def test_an_event_with_a_key_is_there_once_over_all_executions(stage: Stage) -> None:
    @stage.app.handler(retry=SOON)
    async def tells(ctx: Context) -> int:
        event = await ctx.emit("progress", {"pct": 50}, key="half")
        await ctx.emit("beat")
        return event.event_no if ctx.attempt else 1 // 0

    with stage.worker():
        run_id = stage.client.enqueue(tells)
        first = stage.output(run_id)
    assert stage.events(run_id).count("progress") == 1
    assert stage.events(run_id).count("beat") == 2
    lines = [line for line in stage.client.timeline(run_id) if line["type"] == "progress"]
    assert [(line["event_no"], line["payload"]) for line in lines] == [(first, {"pct": 50})]
