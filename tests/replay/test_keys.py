"""Keys are paths, and a call that is not the one of the journal is noticed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pgflow import Context, ThreadContext
from pgflow.models import Lease
from tests.replay.stand_in import Run, decision


async def one() -> int:
    return 1


def test_calls_of_one_name_are_numbered_within_their_branch() -> None:
    async def branch(ctx: Context) -> None:
        await ctx.step("x", one)
        await ctx.step("x", one)

    async def handler(ctx: Context) -> None:
        await ctx.step("x", one)
        await ctx.gather(branch(ctx), branch(ctx))
        await ctx.gather(ctx.gather(branch(ctx)))
        await ctx.step("x", one)

    run = Run(handler)
    run.output()
    assert sorted(run.journal) == [
        "gather#1/0/x",
        "gather#1/0/x#2",
        "gather#1/1/x",
        "gather#1/1/x#2",
        "gather#2/0/gather#1/0/x",
        "gather#2/0/gather#1/0/x#2",
        "x",
        "x#2",
    ]


def test_calls_in_a_step_have_keys_under_the_steps_own() -> None:
    async def handler(ctx: Context) -> int:
        async def outer() -> int:
            return await ctx.step("x", one) + await ctx.step("x", one)

        return await ctx.step("outer", outer) + await ctx.step("x", one)

    def plainly(ctx: ThreadContext) -> int:
        def outer() -> int:
            return ctx.step("x", one) + ctx.step("x", one)

        return ctx.step("outer", outer) + ctx.step("x", one)

    for function in (handler, plainly):
        run = Run(function)
        assert run.output() == 3
        assert list(run.journal) == ["outer/x", "outer/x#2", "outer", "x"]
        assert run.output() == 3


Misuse = Callable[[Context], Awaitable[Any]]


async def bare_task(ctx: Context) -> None:
    await asyncio.create_task(ctx.tool("x"))


async def bare_gather(ctx: Context) -> None:
    await asyncio.gather(ctx.step("x", one))


async def task_in_a_branch(ctx: Context) -> None:
    await ctx.gather(bare_task(ctx))


@pytest.mark.parametrize(
    ("misuse", "named"),
    [(bare_task, "ctx.tool"), (bare_gather, "ctx.step"), (task_in_a_branch, "ctx.tool")],
)
def test_a_call_in_a_task_of_the_handlers_own_is_refused(misuse: Misuse, named: str) -> None:
    failed = Run(misuse).fails()
    assert f"{named} is called in a task that is no branch" in failed.detail
    assert (failed.code, failed.retry) == ("E-RUN-001", False)


def test_a_call_with_a_key_of_its_own_may_stand_in_any_task() -> None:
    async def handler(ctx: Context) -> list[int]:
        async def branch() -> int:
            return await asyncio.create_task(ctx.step("x", one, key="b"))

        return [*await asyncio.gather(ctx.step("x", one, key="a")), *await ctx.gather(branch())]

    run = Run(handler)
    assert run.output() == [1, 1]
    assert list(run.journal) == ["a", "b"]
    assert run.output() == [1, 1]


def test_waits_with_keys_of_their_own_are_parked_together() -> None:
    async def handler(ctx: Context) -> list[Any]:
        return list(await asyncio.gather(ctx.tool("x", key="a"), ctx.wait_for("x", key="b")))

    run = Run(handler)
    assert run.asks() == ["a", "b"]
    assert run.wait_any
    run.come("a", 1)
    run.come("b", 2)
    assert run.output() == [1, 2]


def test_a_call_in_another_thread_than_a_plain_handlers_is_refused() -> None:
    def handler(ctx: ThreadContext) -> list[Any]:
        with ThreadPoolExecutor(1) as threads:
            keyed = threads.submit(lambda: ctx.step("x", one, key="k")).result()
            return [keyed, threads.submit(lambda: ctx.step("x", one)).result()]

    run = Run(handler)
    assert "ctx.step is called in a task that is no branch" in run.fails().detail
    assert list(run.journal) == ["k"]


def test_a_plain_handler_does_one_thing_at_a_time() -> None:
    def gathers(ctx: ThreadContext) -> None:
        ctx.gather()

    def races(ctx: ThreadContext) -> None:
        ctx.first()

    assert "ctx.gather is for async handlers" in Run(gathers).fails().detail
    assert "ctx.first is for async handlers" in Run(races).fails().detail


@pytest.mark.parametrize("name", ["undo/0/x", "breakpoint/before/x"])
def test_the_engines_own_keys_are_refused(name: str) -> None:
    async def handler(ctx: Context) -> None:
        await ctx.step(name, one)

    assert "no key begins with" in Run(handler).fails().detail


def test_two_calls_with_one_key_are_refused() -> None:
    async def names(ctx: Context) -> None:
        await ctx.step("x#2", one)
        await ctx.step("x", one)
        await ctx.step("x", one)

    async def keys(ctx: Context) -> None:
        await ctx.step("x", one, key="k")
        await ctx.tool("y", key="k")

    assert "has the key x#2 already" in Run(names).fails().detail
    assert "has the key k already" in Run(keys).fails().detail


@pytest.mark.parametrize(
    ("call", "kind", "value"),
    [
        (lambda ctx: ctx.step("x", one), "tool", 1),
        (lambda ctx: ctx.tool("x"), "event", 1),
        (lambda ctx: ctx.wait_for("x"), "approval", decision()),
        (lambda ctx: ctx.approval("x"), "step", 1),
        (lambda ctx: ctx.sleep(1, key="x"), "run", {}),
    ],
)
def test_another_kind_of_call_than_in_the_journal_pauses(
    call: Misuse, kind: str, value: object
) -> None:
    async def handler(ctx: Context) -> None:
        await call(ctx)

    run = Run(handler)
    run.journal["x"] = {"key": "x", "kind": kind, "value": value, "digest": None}
    failed = run.fails()
    assert failed.code == "E-RUN-012"
    assert f" x was journalled as {kind}" in failed.detail


@pytest.mark.parametrize(
    "call",
    [
        lambda ctx, n: ctx.tool("x", {"n": n}),
        lambda ctx, n: ctx.run("x", {"n": n}),
        lambda ctx, n: ctx.run(f"x{n}", key="x"),
        lambda ctx, n: ctx.wait_for(f"x{n}", key="x"),
        lambda ctx, n: ctx.interrupt({"n": n}, key="x"),
    ],
)
def test_other_arguments_than_in_the_journal_pause(
    call: Callable[[Context, int], Awaitable[Any]],
) -> None:
    calls: list[int] = []

    async def handler(ctx: Context) -> None:
        calls.append(1)
        await call(ctx, len(calls))

    run = Run(handler)
    assert run.asks() == ["x"]
    run.come("x", {"run_id": "c", "state": "completed"})
    failed = run.fails()
    assert failed.code == "E-RUN-012"
    assert " x was journalled with other arguments" in failed.detail


def test_another_span_than_before_is_no_mismatch() -> None:
    spans = [10, 20, 30]

    async def handler(ctx: Context) -> Any:
        span = spans.pop(0)
        await ctx.sleep(span)
        await ctx.approval("a", due_in=None)
        return await ctx.tool("x", timeout=span)

    run = Run(handler)
    assert run.asks() == ["sleep"]
    run.come("sleep")
    assert run.asks() == ["a"]
    run.come("a", decision())
    assert run.asks() == ["x"]


def test_entries_that_were_made_void_are_not_read() -> None:
    async def handler(ctx: Context) -> int:
        return await ctx.step("x", one)

    run = Run(handler)
    run.journal["y"] = {"key": "y", "kind": "step", "value": 1, "digest": "", "voided": True}
    assert run.output() == 1


def test_cleaning_up_while_a_handler_is_unwound_does_nothing() -> None:
    done: list[str] = []

    async def clean() -> None:
        done.append("clean")

    async def handler(ctx: Context) -> None:
        try:
            await ctx.gather(ctx.tool("x"), ctx.tool("y"))
        finally:
            await ctx.emit("over")
            await ctx.step("clean", clean)

    run = Run(handler)
    assert run.asks() == ["gather#1/0/x", "gather#1/1/y"]
    assert (done, run.emitted) == ([], [])
    run.come("gather#1/0/x")
    run.come("gather#1/1/y")
    run.output()
    assert (done, run.emitted) == (["clean"], [("over", None)])


def test_a_handler_whose_clean_up_raises_while_it_is_unwound_waits_all_the_same() -> None:
    async def handler(ctx: Context) -> None:
        try:
            await ctx.tool("x")
        finally:
            raise KeyError("x")

    assert Run(handler).asks() == ["x"]


def test_contexts_of_runs_at_the_same_time_know_their_own_branches() -> None:
    threads: set[int] = set()

    async def handler(ctx: Context) -> int:
        async def where() -> int:
            threads.add(threading.get_ident())
            return await ctx.step("x", one)

        async def both() -> int:
            return sum(await ctx.gather(where(), where()))

        return sum(await ctx.gather(both(), both()))

    assert Run(handler).output() == 4
    assert threads == {threading.get_ident()}


def test_each_replay_gives_what_a_model_used_the_same_key() -> None:
    async def handler(ctx: Context) -> None:
        def call() -> None:
            ctx.usage(cost_usd=1)

        async def branch(key: str) -> None:
            ctx.usage(cost_usd=1)
            await ctx.step("s", call)
            ctx.usage(cost_usd=1)
            await ctx.approval(key)

        ctx.usage(cost_usd=1)
        await ctx.gather(branch("a"), branch("b"))
        ctx.usage(cost_usd=1)

    run = Run(handler)
    a, b = run.asks()
    first, run.usages = run.usages, []
    assert len(set(first)) == len(first) == 7
    run.come(a, decision("approved"))
    run.asks()
    told = set(run.usages)
    assert told < set(first)
    run.come(b, decision("approved"))
    run.output()
    assert set(run.usages) == told | {"usage@1"}


def test_a_step_that_is_executed_again_under_the_same_lease_calls_the_model_again() -> None:
    run = Run(one)
    context = Context(Lease("01", 3, "h", "default", None, 0, 0, 1), run)
    for _ in range(2):
        with context.journal.root.inside("s"):
            context.usage(cost_usd=1)
        context = context.anew([])
    assert run.usages == ["s/usage@3", "s/usage@3.1"]
