"""Steps, approvals and interruptions, as a handler lives through them."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgflow import Context, Retry, ThreadContext
from pgflow.errors import Rejected
from tests.worker.conftest import until

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

AT_ONCE = Retry(max_attempts=3, base=timedelta(0))


def test_a_step_is_executed_once_over_retries_and_resumptions(stage: Stage) -> None:
    made: list[int] = []
    failed: list[int] = []

    @stage.app.handler(retry=AT_ONCE)
    async def order(ctx: Context) -> dict[str, Any]:
        async def make() -> int:
            made.append(1)
            return len(made)

        first = await ctx.step("make", make)
        if not failed:
            failed.append(1)
            raise ValueError("once")
        verdict = await ctx.approval("check")
        return {"first": first, "by": verdict.action}

    with stage.worker():
        run_id = stage.client.enqueue(order)
        stage.client.approve(stage.task(run_id))
        assert stage.output(run_id) == {"first": 1, "by": "approved"}
    assert made == [1]
    assert stage.events(run_id).count("step.completed") == 1


def test_a_step_asked_with_other_arguments_pauses_the_run(stage: Stage) -> None:
    amounts = iter([1, 2])

    @stage.app.handler(retry=AT_ONCE)
    async def pay(ctx: Context) -> None:
        await ctx.step("pay", abs, next(amounts))
        raise ValueError("so that it is asked again")

    with stage.worker():
        run = stage.reaches(stage.client.enqueue(pay), "paused")
    assert run["pause_reason"].startswith("E-RUN-012: step pay was journalled with other arguments")
    assert run["lease_until"] is None


def test_two_approvals_are_asked_one_after_the_other(stage: Stage) -> None:
    @stage.app.handler
    async def publish(ctx: Context) -> list[Any]:
        first = await ctx.approval("one", payload={"n": 1})
        second = await ctx.approval("two")
        return [first.comment, second.data]

    with stage.worker():
        run_id = stage.client.enqueue(publish)
        stage.client.approve(stage.task(run_id), "fine")
        until(lambda: [t["step"] for t in stage.client.inbox(run_id=run_id)] == ["two"])
        stage.client.approve(stage.task(run_id), decision={"copies": 3})
        assert stage.output(run_id) == ["fine", {"copies": 3}]


def test_a_plain_function_waits_for_a_person_too(stage: Stage) -> None:
    @stage.app.handler
    def publish(ctx: ThreadContext) -> str:
        return str(ctx.approval("editor").action)

    with stage.worker():
        run_id = stage.client.enqueue(publish)
        stage.client.approve(stage.task(run_id))
        assert stage.output(run_id) == "approved"


@pytest.mark.parametrize("on_reject", ["cancel", "resume", "raise"])
def test_a_rejection_ends_the_run_or_is_told_as_was_asked(stage: Stage, on_reject: Any) -> None:
    @stage.app.handler(retry=AT_ONCE)
    async def publish(ctx: Context) -> str:
        verdict = await ctx.approval("editor", on_reject=on_reject)
        return verdict.action

    with stage.worker():
        run_id = stage.client.enqueue(publish)
        stage.client.reject(stage.task(run_id), "too long")
        run = stage.ends(run_id)
    expected = {
        "cancel": ("cancelled", "E-RUN-006", None),
        "resume": ("completed", None, "rejected"),
        "raise": ("failed", "E-RUN-006", None),
    }[on_reject]
    assert (run["state"], run["error_code"], run["output"]) == expected


def test_a_rejection_that_is_raised_can_be_caught(stage: Stage) -> None:
    @stage.app.handler
    async def publish(ctx: Context) -> str:
        try:
            await ctx.approval("editor", on_reject="raise")
        except Rejected as error:
            return str(error)
        return "published"

    with stage.worker():
        run_id = stage.client.enqueue(publish)
        stage.client.reject(stage.task(run_id), "too long")
        assert str(stage.output(run_id)).endswith("too long")


def test_a_wait_holds_no_place_in_the_worker(stage: Stage) -> None:
    @stage.app.handler
    async def ask(ctx: Context) -> None:
        await ctx.approval("a")

    @stage.app.handler
    async def quick() -> int:
        return 1

    with stage.worker(concurrency=1):
        waiting = [stage.client.enqueue(ask) for _ in range(3)]
        assert stage.output(stage.client.enqueue(quick)) == 1
        for run_id in waiting:
            stage.reaches(run_id, "waiting_approval")


@pytest.mark.parametrize(("verb", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_run_that_is_taken_away_interrupts_its_handler(
    stage: Stage, verb: str, state: str
) -> None:
    began, interrupted = threading.Event(), threading.Event()

    @stage.app.handler
    async def long() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            interrupted.set()
            raise

    with stage.worker():
        run_id = stage.client.enqueue(long)
        assert began.wait(30)
        getattr(stage.client, verb)(run_id)
        assert interrupted.wait(30)
        assert stage.run(run_id)["state"] == state
        assert stage.run(run_id)["attempt_count"] == 0


def test_a_plain_function_sees_that_its_run_was_taken_away_and_its_result_is_refused(
    stage: Stage,
) -> None:
    began, ended = threading.Event(), threading.Event()

    @stage.app.handler
    def long(ctx: ThreadContext) -> str:
        began.set()
        until(lambda: ctx.cancelled)
        ended.set()
        return "too late"

    with stage.worker():
        run_id = stage.client.enqueue(long)
        assert began.wait(30)
        stage.client.cancel(run_id)
        assert ended.wait(30)
    run = stage.run(run_id)
    assert (run["state"], run["output"]) == ("cancelled", None)


def test_what_an_execution_cost_is_added_once(stage: Stage) -> None:
    @stage.app.handler(retry=AT_ONCE)
    async def ask_a_model(ctx: Context) -> None:
        def ask() -> None:
            ctx.usage(cost_usd=0.25)
            if ctx.attempt == 0:
                raise ValueError("costs all the same")

        await ctx.step("ask", ask)

    with stage.worker():
        run = stage.ends(stage.client.enqueue(ask_a_model))
    assert (run["state"], float(run["cost_usd"])) == ("completed", 0.5)


def test_an_event_with_a_key_is_emitted_once(stage: Stage) -> None:
    @stage.app.handler(retry=AT_ONCE)
    async def progress(ctx: Context) -> None:
        await ctx.emit("progress", {"pct": 80}, key="80")
        if ctx.attempt == 0:
            raise ValueError("again")

    with stage.worker():
        run_id = stage.client.enqueue(progress)
        stage.ends(run_id)
    assert stage.events(run_id).count("progress") == 1
