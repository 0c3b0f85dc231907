"""Steps that are undone when their run is rolled back behind them, or undone; and breakpoints."""

from __future__ import annotations

from typing import Any

from pgflow import Context, ThreadContext
from tests.replay.stand_in import Run, decision


class Shop:
    """Books, charges, asks; and notes how that is undone."""

    def __init__(self) -> None:
        self.undone: list[Any] = []

    async def handler(self, ctx: Context) -> list[Any]:
        async def refund(receipt: dict[str, int]) -> None:
            self.undone.append(receipt)

        seat = await ctx.step("book", lambda: "seat", undo=self.undone.append)
        await ctx.step("log", lambda: "logged")
        await ctx.emit("booked")
        ctx.usage(cost_usd=1)
        charged = await ctx.gather(
            ctx.step("charge", lambda: {"paid": 1}, undo=refund),
            ctx.step("charge", lambda: {"paid": 2}, undo=refund),
        )
        verdict = await ctx.approval("ok")
        return [seat, charged, verdict.action, ctx.version]

    def plainly(self, ctx: ThreadContext) -> list[Any]:
        seat = ctx.step("book", lambda: "seat", undo=self.undone.append)
        ctx.step("log", lambda: "logged")
        ctx.approval("ok")
        return [seat, ctx.version]


def roll_back(run: Run, to: str) -> None:
    """Void the entry under `to` and all after it."""
    keys = list(run.journal)
    void = keys[keys.index(to) :]
    run.lease = {
        "round": 1,
        "undo": [
            run.journal.pop(k) | {"undo": run.undos.get(k, False), "round": 0} for k in void[::-1]
        ],
    }


def test_what_a_rollback_voids_is_undone_newest_first_and_then_done_again() -> None:
    shop = Shop()
    run = Run(shop.handler)
    run.asks()
    assert [key for key, undo in run.undos.items() if undo] == [
        "book",
        "gather#1/0/charge",
        "gather#1/1/charge",
    ]
    run.come("ok", decision("rejected"))
    roll_back(run, "log")
    assert run.asks() == ["ok"]
    assert shop.undone == [{"paid": 2}, {"paid": 1}]
    assert list(run.journal)[1:3] == ["undo/0/gather#1/1/charge", "undo/0/gather#1/0/charge"]
    assert run.emitted == [("booked", None)] * 2
    run.come("ok", decision())
    run.lease["undo"] = None
    assert run.output() == ["seat", [{"paid": 1}, {"paid": 2}], "approved", 1]
    assert len(shop.undone) == 2


def test_what_is_undone_already_is_not_undone_again() -> None:
    shop = Shop()
    run = Run(shop.handler)
    run.asks()
    roll_back(run, "book")
    run.crash_after = 2
    assert "Crash" in run.fails().detail
    assert shop.undone == [{"paid": 2}, {"paid": 1}, "seat"]  # the third is not journalled
    run.crash_after = None
    run.asks()
    assert shop.undone == [{"paid": 2}, {"paid": 1}, "seat", "seat"]


def test_a_plain_handlers_steps_are_undone_too() -> None:
    shop = Shop()
    run = Run(shop.plainly)
    run.asks()
    roll_back(run, "book")
    assert run.asks() == ["ok"]
    assert shop.undone == ["seat"]


def test_a_run_that_undoes_another_does_nothing_else() -> None:
    shop = Shop()
    run = Run(shop.handler)
    run.asks()
    roll_back(run, "book")
    run.lease |= {"undo_of": "other", "round": 0}
    run.emitted.clear()
    assert run.output() == {"undone": ["gather#1/1/charge", "gather#1/0/charge", "book"]}
    assert shop.undone == [{"paid": 2}, {"paid": 1}, "seat"]
    assert run.emitted == []
    assert list(run.journal)[-1] == "undo/0/book"


def test_a_run_that_undoes_one_without_steps_is_completed_at_once() -> None:
    run = Run(Shop().handler, undo_of="other")
    assert run.output() == {"undone": []}


def test_a_handler_that_raises_after_the_step_can_be_undone() -> None:
    undone: list[Any] = []

    async def handler(ctx: Context) -> None:
        await ctx.step("x", lambda: 1, undo=undone.append)
        raise ValueError("as before")

    run = Run(handler)
    run.fails()
    roll_back(run, "x")
    run.lease["undo_of"] = "other"
    assert run.output() == {"undone": ["x"]}
    assert undone == [1]


def test_code_that_no_longer_knows_the_step_pauses_the_run() -> None:
    deployed = False

    async def handler(ctx: Context) -> None:
        if not deployed:
            await ctx.step("x", lambda: 1, undo=print)
        await ctx.approval("ok")

    run = Run(handler)
    run.asks()
    roll_back(run, "x")
    deployed = True
    failed = run.fails()
    assert failed.code == "E-RUN-012"
    assert "step x has to be undone" in failed.detail


def test_a_breakpoint_stops_before_and_after_a_step_once() -> None:
    done: list[str] = []

    async def handler(ctx: Context) -> list[str]:
        for name in ("x", "y"):
            await ctx.step(name, done.append, name)
        return list(done)

    run = Run(handler, breakpoints=["before x", "after x", "before y"])
    assert run.asks() == ["breakpoint/before/x"]
    assert run.waits["breakpoint/before/x"]["payload"] == [["x"], {}]
    assert done == []
    run.come("breakpoint/before/x")
    assert run.asks() == ["breakpoint/after/x"]
    assert done == ["x"]
    assert run.asks() == ["breakpoint/after/x"]  # the worker died before it was parked
    run.come("breakpoint/after/x")
    assert run.asks() == ["breakpoint/before/y"]
    run.come("breakpoint/before/y")
    assert run.output() == ["x", "y"]


def test_a_breakpoint_that_is_set_behind_a_run_does_not_stop_it() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.step("x", lambda: 1)
        await ctx.tool("t")

    run = Run(handler)
    run.asks()
    run.lease = {"breakpoints": ["before x", "after x"]}
    run.come("t")
    run.output()


def test_an_artifact_is_not_stored_to_look_up_how_a_step_is_undone() -> None:
    undone: list[str] = []

    async def handler(ctx: Context) -> None:
        seat = await ctx.step("book", lambda: "seat", undo=undone.append)
        assert (await ctx.artifact("seat", seat)).valid
        await ctx.approval("ok")

    run = Run(handler)
    run.asks()
    run.come("ok", decision("rejected"))
    roll_back(run, "book")
    run.asks()
    assert undone == ["seat"]
    assert [document.name for document in run.documents] == ["seat"] * run.executions
