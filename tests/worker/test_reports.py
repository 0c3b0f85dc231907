"""Reports of what real workers did, and what a result says of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pgflow import AsyncClient, Context, Paused
from pgflow.errors import UnknownRun

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

NOBODYS = "01900000-0000-7000-8000-000000000000"


def test_a_result_points_to_the_report_of_its_flow(stage: Stage) -> None:
    @stage.app.handler
    async def write(ctx: Context) -> str:
        ctx.usage(model="m-1", input_tokens=900, cost_usd=0.02)
        return "text"

    steps = [{"name": "write"}, {"name": "again", "handler": "write", "needs": ["write"]}]
    stage.client.define_flow({"name": "f", "steps": steps})
    run_id = stage.client.start("f")
    with stage.worker():
        result = stage.client.result(run_id, timeout=30)
    assert (result.final_report, result.super_step) == (run_id, 2)
    report = stage.client.report(run_id)
    assert [(s["key"], s["state"]) for s in report["steps"]] == [
        ("write", "completed"),
        ("again", "completed"),
    ]
    assert report["usage"]["cost_usd"] == 0.04
    assert stage.client.context(run_id)["progress"]["execution_path"] == ["write", "again"]


def test_a_handlers_result_has_no_final_report(stage: Stage) -> None:
    @stage.app.handler
    async def write() -> str:
        return "text"

    run_id = stage.client.enqueue(write)
    with stage.worker():
        result = stage.client.result(run_id, timeout=30)
    assert (result.final_report, result.super_step) == (None, None)
    assert stage.client.report(run_id)["status"] == "completed"


def test_a_paused_run_says_at_which_call_and_with_what_it_stopped(stage: Stage) -> None:
    @stage.app.handler
    async def plan(ctx: Context) -> Any:
        return await ctx.interrupt({"plan": 1}, key="look")

    run_id = stage.client.enqueue(plan)
    with stage.worker():
        result = stage.client.result(run_id, until="paused", timeout=30)
        assert result.paused == Paused("interrupt", "look", {"plan": 1})
        stage.client.resume(run_id, {"resume": 7})
        result = stage.client.result(run_id, timeout=30)
    assert (result.paused, result.output) == (None, 7)


def test_both_clients_bring_the_same(stage: Stage) -> None:
    run_id = stage.client.enqueue("nobody's", queue="nobody's")

    async def ask() -> tuple[Any, Any]:
        async with AsyncClient(stage.dsn) as client:
            return await client.report(run_id), await client.context(run_id)

    told = (stage.client.report(run_id), stage.client.context(run_id))
    assert asyncio.run(ask()) == told


@pytest.mark.parametrize("verb", ["report", "context"])
def test_an_unknown_run_is_refused(stage: Stage, verb: str) -> None:
    with pytest.raises(UnknownRun):
        getattr(stage.client, verb)(NOBODYS)
