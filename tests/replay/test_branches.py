"""gather and first: what runs, what waits, who wins, and what is left of the losers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pgflow import Context, Rejected, WaitTimeout
from pgflow.errors import ChildFailed
from tests.replay.stand_in import Run, child, decision


async def value(n: Any) -> Any:
    return n


async def raises(error: Exception) -> None:
    raise error


def test_all_that_is_asked_for_is_asked_for_at_once() -> None:
    async def handler(ctx: Context) -> list[Any]:
        return list(
            await ctx.gather(
                ctx.tool("t"), ctx.wait_for("e"), ctx.approval("a"), ctx.step("s", value, 1)
            )
        )

    run = Run(handler)
    assert run.asks() == ["gather#1/0/t", "gather#1/1/e", "gather#1/2/a"]
    assert list(run.journal) == ["gather#1/3/s"]
    assert not run.wait_any
    assert not run.come("gather#1/1/e", 2)
    assert not run.come("gather#1/0/t", 3)
    assert run.come("gather#1/2/a", decision())
    told = run.output()
    assert (told[0], told[1], told[2]["action"], told[3]) == (3, 2, "approved", 1)


def test_a_branch_that_goes_on_after_its_wait_is_woken_for_each() -> None:
    async def branch(ctx: Context, name: str) -> Any:
        return await ctx.step(name, value, await ctx.tool(name))

    async def handler(ctx: Context) -> list[Any]:
        return list(await ctx.gather(branch(ctx, "a"), branch(ctx, "b")))

    run = Run(handler)
    run.asks()
    assert run.wait_any
    run.come("gather#1/0/a", 1)
    assert run.asks() == ["gather#1/1/b"]
    assert "gather#1/0/a#2" in run.journal
    assert not run.wait_any


def test_a_gather_of_gathers_of_waits_is_wanted_together() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.gather(ctx.gather(ctx.tool("a"), ctx.sleep(1)), ctx.tool("b"))

    run = Run(handler)
    run.asks()
    assert not run.wait_any


@pytest.mark.parametrize("early", ["timeout", "rejection", "race"])
def test_what_may_end_a_gather_early_is_told_at_once(early: str) -> None:
    async def handler(ctx: Context) -> None:
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "timeout": lambda: ctx.wait_for("a", timeout=1),
            "rejection": lambda: ctx.approval("a", on_reject="raise"),
            "race": lambda: ctx.first(ctx.wait_for("a")),
        }
        await ctx.gather(calls[early](), ctx.tool("b"))

    run = Run(handler)
    run.asks()
    assert run.wait_any


def test_nothing_gathered_is_nothing() -> None:
    async def handler(ctx: Context) -> list[Any]:
        return list(await ctx.gather())

    assert Run(handler).output() == []


def test_nothing_can_be_first_of_nothing() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.first()

    assert "ctx.first is called with nothing" in Run(handler).fails().detail


def test_a_branch_that_raises_gives_up_those_that_wait_and_lets_the_others_end() -> None:
    done: list[str] = []

    async def slow() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        done.append("slow")

    async def handler(ctx: Context) -> str:
        try:
            await ctx.gather(ctx.tool("never"), raises(ValueError("no")), ctx.step("slow", slow))
        except ValueError as error:
            await ctx.wait_for("next")
            return str(error)
        return "?"

    run = Run(handler)
    assert run.asks() == ["next"]
    assert done == ["slow"]
    run.come("next")
    assert run.output() == "no"


def test_a_gather_that_has_raised_raises_the_same_again_whatever_comes_later() -> None:
    async def both(ctx: Context) -> None:
        await ctx.tool("late")
        await ctx.step("never", value, 1)
        raise ValueError("not this")

    async def handler(ctx: Context) -> str:
        try:
            await ctx.gather(both(ctx), ctx.wait_for("x", timeout=1))
        except WaitTimeout as error:
            await ctx.wait_for("next")
            return str(error)
        return "?"

    run = Run(handler)
    assert run.asks() == ["gather#1/0/late", "gather#1/1/x"]
    late = run.waits["gather#1/0/late"]
    run.come("gather#1/1/x", {"after": 1}, "timeout")
    assert run.asks() == ["next"]
    assert run.journal["gather#1"]["value"] == {"raised": 1}
    run.waits["gather#1/0/late"] = late
    run.come("gather#1/0/late", 1)
    run.come("next")
    assert run.output() == "gather#1/1/x: nothing came within 1 s"


def test_the_first_to_come_wins_and_the_other_is_asked_for_no_more() -> None:
    async def handler(ctx: Context) -> list[Any]:
        won = await ctx.first(ctx.wait_for("paid"), ctx.sleep(60))
        return [*won, await ctx.tool("next")]

    run = Run(handler)
    assert run.asks() == ["first#1/0/paid", "first#1/1/sleep"]
    assert run.wait_any
    run.come("first#1/1/sleep")
    assert run.asks() == ["next"]
    assert run.journal["first#1"]["value"] == {"winner": 1}
    run.come("next", 5)
    assert run.output() == [1, None, 5]


def test_of_two_that_have_come_the_earlier_wins() -> None:
    async def handler(ctx: Context) -> int:
        return (await ctx.first(ctx.wait_for("a"), ctx.wait_for("b"))).branch

    run = Run(handler)
    run.asks()
    run.come("first#1/1/b")
    run.come("first#1/0/a")
    assert run.output() == 1


def test_the_winner_stays_the_winner_when_the_loser_comes_too() -> None:
    async def handler(ctx: Context) -> list[Any]:
        won = await ctx.first(ctx.wait_for("a"), ctx.wait_for("b"))
        await ctx.tool("next")
        return list(won)

    run = Run(handler)
    run.asks()
    loser = run.waits["first#1/0/a"]
    run.come("first#1/1/b", 2)
    run.asks()
    run.waits["first#1/0/a"] = loser
    run.journal = {
        "first#1/0/a": {"key": "first#1/0/a", "kind": "event", "value": 1, "digest": None}
    } | run.journal
    run.come("next")
    assert run.output() == [1, 2]


def test_a_loser_that_works_is_cancelled_and_has_ended_before_the_handler_goes_on() -> None:
    seen: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def quick() -> str:
        await asyncio.sleep(0.01)
        return "quick"

    async def handler(ctx: Context) -> list[Any]:
        won = await ctx.first(ctx.gather(ctx.step("long", long)), ctx.step("quick", quick))
        seen.append("on")
        return list(won)

    run = Run(handler)
    assert run.output() == [1, "quick"]
    assert seen == ["cancelled", "on"]
    assert run.output() == [1, "quick"]


def test_a_loser_in_a_thread_does_not_tell_the_run_that_it_is_cancelled() -> None:
    ended = threading.Event()
    told: list[bool] = []

    def long() -> None:
        ended.wait(30)

    async def handler(ctx: Context) -> int:
        won = await ctx.first(ctx.step("long", long), ctx.step("quick", value, 1))
        told.append(ctx.cancelled)
        ended.set()
        return won.branch

    run = Run(handler)
    assert run.output() == 1
    assert told == [False]
    assert "first#1/0/long" not in run.journal


def test_a_branch_that_raises_first_raises() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.first(ctx.tool("a"), raises(ValueError("no")))

    run = Run(handler)
    failed = run.fails()
    assert (failed.detail, failed.retry) == ("ValueError: no", True)
    assert run.journal == {}  # it may go otherwise at the next attempt


def test_a_timeout_that_comes_first_is_raised_and_journalled() -> None:
    async def handler(ctx: Context) -> str:
        try:
            await ctx.first(ctx.tool("a"), ctx.wait_for("b", timeout=5))
        except TimeoutError as error:
            await ctx.tool("next")
            return type(error).__name__
        return "?"

    run = Run(handler)
    run.asks()
    run.come("first#1/1/b", {"after": 5}, "timeout")
    assert run.asks() == ["next"]
    assert run.journal["first#1"]["value"] == {"winner": 1}
    run.come("next")
    assert run.output() == "WaitTimeout"


def test_fewer_branches_than_the_winners_number_pause_the_run() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.first(ctx.tool("a"))

    run = Run(handler)
    run.journal["first#1"] = {
        "key": "first#1",
        "kind": "step",
        "value": {"winner": 2},
        "digest": None,
    }
    failed = run.fails()
    assert failed.code == "E-RUN-012"
    assert "ctx.first first#1 went by branch 2" in failed.detail


def test_a_mismatch_in_a_branch_is_never_lost_to_another() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.first(value(1), ctx.tool("a"))

    run = Run(handler)
    run.journal["first#1/1/a"] = {
        "key": "first#1/1/a",
        "kind": "event",
        "value": 1,
        "digest": None,
    }
    assert run.fails().code == "E-RUN-012"


def test_a_timeout_of_the_run_ends_its_branches() -> None:
    seen: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    async def handler(ctx: Context) -> None:
        await ctx.gather(ctx.tool("a"), ctx.step("long", long), ctx.first(ctx.step("b", long)))

    run = Run(handler, timeout=0.02)
    began = time.monotonic()
    assert run.fails().code == "E-RUN-003"
    assert time.monotonic() - began < 30
    assert seen == ["ended", "ended"]


def test_a_child_that_fails_can_be_caught() -> None:
    async def handler(ctx: Context) -> list[Any]:
        try:
            await ctx.gather(ctx.run("good"), ctx.run("bad"))
        except ChildFailed as error:
            return [error.run_id, error.state, error.error_code, error.error_detail, str(error)]
        return []

    run = Run(handler)
    run.asks()
    run.come("gather#1/0/good", child())
    run.come("gather#1/1/bad", child("failed", error_code="E-RUN-001", error_detail="no"))
    assert run.output() == [
        "child",
        "failed",
        "E-RUN-001",
        "no",
        "gather#1/1/bad: child run child ended failed with E-RUN-001: no",
    ]


def test_what_the_journal_says_has_failed_is_not_tried_again() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.run("bad")

    run = Run(handler)
    run.asks()
    run.come("bad", child("cancelled"))
    failed = run.fails()
    assert (failed.code, failed.retry) == ("E-RUN-001", False)
    assert failed.detail == "ChildFailed: bad: child run child ended cancelled"


def test_a_rejection_in_a_branch_is_caught_outside() -> None:
    async def handler(ctx: Context) -> str:
        try:
            await ctx.gather(ctx.approval("a", on_reject="raise"), ctx.tool("b"))
        except Rejected as error:
            return str(error)
        return "?"

    run = Run(handler)
    run.asks()
    run.come("gather#1/0/a", decision("rejected", comment="too long"))
    assert run.output() == "gather#1/0/a was rejected by ed: too long"
