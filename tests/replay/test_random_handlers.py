"""Random handlers, interrupted at random, come to what they come to uninterrupted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow import Context
from pgflow.reports import Completed, Failed, Waiting
from tests.replay.stand_in import Run

NAMES = st.sampled_from("abc")


@dataclass(frozen=True)
class Step:
    name: str
    pauses: int
    inner: Any = None


@dataclass(frozen=True)
class Wait:
    name: str
    kind: str


@dataclass(frozen=True)
class Several:
    """Parts one after the other, all at once, or the first of them."""

    how: str
    parts: tuple[Any, ...]


def programs(*how: str) -> st.SearchStrategy[Any]:
    leaves = st.builds(Step, NAMES, st.integers(0, 3)) | st.builds(
        Wait, NAMES, st.sampled_from(["tool", "event", "sleep"])
    )

    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        parts = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.builds(Several, st.sampled_from(how), parts) | st.builds(
            Step, NAMES, st.just(0), inner
        )

    return st.recursive(leaves, extend, max_leaves=12)


class Actor:
    """Does what a program says with a context, and counts the steps that it did."""

    def __init__(self) -> None:
        self.done = 0

    def run(self, program: Any) -> Run:
        """Return a run of a handler that does what the program says."""

        async def handler(ctx: Context) -> Any:
            return await self.handle(ctx, program)

        return Run(handler)

    async def handle(self, ctx: Context, program: Any) -> Any:  # noqa: PLR0911
        match program:
            case Step(name, pauses, inner):

                async def work() -> Any:
                    for _ in range(pauses):
                        await asyncio.sleep(0)
                    self.done += 1
                    return [name, await self.handle(ctx, inner) if inner else None]

                return await ctx.step(name, work)
            case Wait(name, "tool"):
                return await ctx.tool(name, {"n": 1})
            case Wait(name, "event"):
                return await ctx.wait_for(name)
            case Wait():
                return await ctx.sleep(60)
            case Several("gather", parts):
                return list(await ctx.gather(*(self.handle(ctx, part) for part in parts)))
            case Several("first", parts):
                winner, value = await ctx.first(*(self.handle(ctx, part) for part in parts))
                return [winner, value]
            case Several(_, parts):
                return [await self.handle(ctx, part) for part in parts]
        raise AssertionError(program)


def finish(run: Run, data: st.DataObject, *, crashes: bool) -> Any:
    """Execute until it is completed: what it waits for comes in any order, workers die."""
    for _ in range(500):
        run.crash_after = data.draw(st.none() | st.integers(0, 3)) if crashes else None
        end = run.execute()
        if isinstance(end, Completed):
            return end.output
        if isinstance(end, Failed):
            assert run.crash_after == 0, end
            crashes = data.draw(st.booleans())
            continue
        assert isinstance(end, Waiting)
        missing = [key for key in run.waits if key not in run.journal]
        assert missing == list(run.waits)
        woken = False
        while not woken:
            key = data.draw(st.sampled_from(missing)) if crashes else missing[0]
            missing.remove(key)
            woken = run.come(key, key)
    raise AssertionError("it never ends")


@given(program=programs("sequence", "gather"), data=st.data())
@settings(max_examples=300, deadline=None)
def test_an_interrupted_handler_returns_what_an_uninterrupted_one_does(
    program: Any, data: st.DataObject
) -> None:
    once, often = Actor(), Actor()
    expected = finish(once.run(program), data, crashes=False)
    run = often.run(program)
    assert finish(run, data, crashes=True) == expected


@given(program=programs("sequence", "gather", "first"), data=st.data())
@settings(max_examples=500, deadline=None)
def test_what_was_decided_once_is_so_in_every_later_execution(
    program: Any, data: st.DataObject
) -> None:
    actor = Actor()
    run = actor.run(program)
    output = finish(run, data, crashes=True)
    journal, done = dict(run.journal), actor.done
    run.crash_after = 0
    assert isinstance(again := run.execute(), Completed)
    assert again.output == output
    assert run.journal == journal
    assert actor.done == done
