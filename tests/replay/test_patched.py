"""Code that changes while runs are live, and what is different each time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pgflow import Context, ThreadContext
from tests.replay.stand_in import NOW, Run, decision


async def value(n: Any) -> Any:
    return n


class Deployment:
    """A handler whose code is replaced while its run waits."""

    def __init__(self) -> None:
        self.is_new = False

    async def handler(self, ctx: Context) -> list[str]:
        path = [await ctx.step("first", value, "first")]
        if self.is_new and await ctx.patched("check"):
            path.append(await ctx.step("check", value, "check"))
        await ctx.approval("a")
        path.append(await ctx.step("last", value, "last"))
        await ctx.approval("b")
        return path


def test_a_new_run_goes_by_the_new_code() -> None:
    code = Deployment()
    code.is_new = True
    run = Run(code.handler)
    assert run.asks() == ["a"]
    assert list(run.journal) == ["first", "patched/check", "check"]
    run.come("a", decision())
    assert run.asks() == ["b"]
    run.come("b", decision())
    assert run.output() == ["first", "check", "last"]


def test_a_run_that_is_past_the_point_goes_by_the_old_code() -> None:
    code = Deployment()
    run = Run(code.handler)
    run.asks()
    run.come("a", decision())
    code.is_new = True
    assert run.asks() == ["b"]
    assert "patched/check" not in run.journal
    run.come("b", decision())
    assert run.output() == ["first", "last"]


def test_a_run_that_has_not_come_to_the_point_goes_by_the_new_code() -> None:
    code = Deployment()
    run = Run(code.handler)
    run.crash_after = 1
    run.execute()
    run.journal.pop("last", None)
    run.crash_after = None
    code.is_new = True
    assert run.asks() == ["a"]
    assert "check" in run.journal


def test_a_branch_looks_at_its_own_entries_only() -> None:
    is_new = False

    async def branch(ctx: Context, name: str) -> bool:
        patched = is_new and await ctx.patched("p")
        await ctx.tool(name)
        return patched

    async def handler(ctx: Context) -> list[bool]:
        return list(await ctx.gather(branch(ctx, "a"), branch(ctx, "b")))

    run = Run(handler)
    run.asks()
    run.come("gather#1/0/a")
    is_new = True
    assert run.asks() == ["gather#1/1/b"]
    run.come("gather#1/1/b")
    assert run.output() == [False, True]


def test_entries_of_losers_and_of_calls_within_a_step_are_not_unread() -> None:
    is_new = False

    async def loser(ctx: Context) -> None:
        await ctx.step("x", value, 1)
        await ctx.tool("never")

    async def handler(ctx: Context) -> bool:
        async def outer() -> Any:
            return await ctx.step("inner", value, 1)

        await ctx.step("outer", outer)
        await ctx.first(loser(ctx), ctx.tool("b"))
        return is_new and await ctx.patched("p")

    run = Run(handler)
    run.asks()
    run.come("first#1/1/b")
    assert run.output() is False
    is_new = True
    assert "first#1/0/x" in run.journal
    assert run.output() is True


def test_each_turn_of_a_loop_is_patched_for_itself() -> None:
    is_new = False

    async def handler(ctx: Context) -> list[bool]:
        told = []
        for _ in range(3):
            told.append(is_new and await ctx.patched("p"))
            await ctx.tool("t")
        return told

    run = Run(handler)
    run.asks()
    run.come("t")
    is_new = True
    assert run.asks() == ["t#2"]
    run.come("t#2")
    assert run.asks() == ["t#3"]
    run.come("t#3")
    assert run.output() == [False, True, True]


def test_time_and_chance_are_the_same_each_time() -> None:
    async def handler(ctx: Context) -> list[Any]:
        told: list[Any] = []
        for _ in range(2):
            told += [await ctx.now(), await ctx.random(), await ctx.uuid()]
        await ctx.wait_for("x")
        return told

    def plainly(ctx: ThreadContext) -> list[Any]:
        told: list[Any] = []
        for _ in range(2):
            told += [ctx.now(), ctx.random(), ctx.uuid()]
        ctx.wait_for("x")
        return told

    for function in (handler, plainly):
        run = Run(function)
        run.asks()
        assert list(run.journal) == ["now", "random", "uuid", "now#2", "random#2", "uuid#2"]
        kept = [entry["value"] for entry in run.journal.values()]
        run.come("x")
        told = run.output()
        assert told == kept
        assert datetime.fromisoformat(told[0]) == NOW
        assert 0 <= told[1] < 1
        assert told[1:3] != told[4:]
