"""Handlers that find out what there is to do: they add steps to their flow."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgflow import App, Context, Flow, NonRetryable, Retry, Step, ThreadContext
from pgflow.errors import AlreadyFinished, BadRequest, LeaseLost

if TYPE_CHECKING:
    from uuid import UUID

    from tests.worker.conftest import Stage

PLAN = Flow(name="f", steps=[Step(name="plan"), Step(name="sum", needs=["plan"])])


def count(app: App) -> None:
    """Give an app the handlers that do what was planned."""

    @app.handler
    async def part(ctx: Context) -> int:
        return 10 * int(ctx.step_config["n"])

    @app.handler(name="sum")
    async def add_up(inputs: dict[str, Any]) -> int:
        return sum(value for name, value in inputs.items() if name.startswith("part-"))


def parts(many: int) -> list[Step]:
    return [Step(name=f"part-{n}", handler="part", config={"n": n}) for n in range(many)]


def begin(stage: Stage, flow: Flow = PLAN) -> UUID:
    stage.client.define_flow(flow)
    return stage.client.start(flow)


def names(stage: Stage, run_id: UUID) -> list[str]:
    return [row["step"] for row in stage.client.flow_steps(run_id)]


def test_a_handler_adds_the_steps_that_it_finds_needed(stage: Stage) -> None:
    count(stage.app)

    @stage.app.handler
    async def plan(ctx: Context) -> int:
        added = [await ctx.add_step(part, needed_by=["sum"]) for part in parts(3)]
        assert added == [True] * 3
        return len(added)

    run_id = begin(stage)
    with stage.worker():
        assert stage.output(run_id) == {"sum": 30}
    assert names(stage, run_id) == ["plan", "sum", "part-0", "part-1", "part-2"]


def test_a_plain_handler_adds_steps_too(stage: Stage) -> None:
    count(stage.app)

    @stage.app.handler
    def plan(ctx: ThreadContext) -> bool:
        added: bool = ctx.add_step({"name": "part-1", "handler": "part", "config": {"n": 1}})
        return added

    run_id = begin(stage, Flow(name="f", steps=[Step(name="plan")]))
    with stage.worker():
        assert stage.output(run_id) == {"plan": True, "part-1": 10}


def test_a_handler_that_is_retried_or_resumed_adds_nothing_twice(stage: Stage) -> None:
    count(stage.app)
    added = []

    @stage.app.handler(retry=Retry(max_attempts=2, base=timedelta(0)))
    async def plan(ctx: Context) -> None:
        added.append(await ctx.add_step(parts(2)[1], needed_by=["sum"]))
        if len(added) == 1:
            raise ValueError("once more")
        await ctx.sleep(0.01)

    run_id = begin(stage)
    with stage.worker():
        assert stage.output(run_id) == {"sum": 10}
    assert added[0] is True
    assert set(added[1:]) == {False}
    assert len(added) > 2  # executed again when it failed, and when it had slept
    types = [line["type"] for line in stage.client.timeline(run_id)]
    assert types.count("step.added") == 1


def test_a_step_that_is_refused_is_told_to_the_handler(stage: Stage) -> None:
    said = []

    @stage.app.handler
    async def plan(ctx: Context) -> None:
        with pytest.raises(BadRequest, match="step sum: another step has this name") as refused:
            await ctx.add_step(Step(name="sum", needs=["nobody"]))
        said.append(refused.value.detail)

    @stage.app.handler(name="sum")
    async def add_up() -> int:
        return 0

    run_id = begin(stage)
    with stage.worker():
        assert stage.output(run_id) == {"sum": 0}
    assert "needs nobody, which is no step of this flow" in said[0]
    assert names(stage, run_id) == ["plan", "sum"]


def test_a_handler_that_lost_its_lease_adds_nothing(stage: Stage) -> None:
    ended = []

    @stage.app.handler
    async def plan(ctx: Context) -> None:
        stage.db.execute("select pgflow.pause(%s)", [ctx.run_id])
        try:
            await ctx.add_step(parts(1)[0])
        except BaseException as error:  # it may be cancelled before it is refused
            ended.append(type(error))
            raise

    run_id = begin(stage)
    with stage.worker():
        stage.until(lambda: ended)
    assert ended[0] in {LeaseLost, asyncio.CancelledError}
    assert names(stage, run_id) == ["plan", "sum"]


def test_a_handler_that_is_undone_adds_nothing_again(stage: Stage) -> None:
    added: list[bool] = []
    undone: list[str] = []

    async def book() -> str:
        return "seat 7"

    @stage.app.handler(undo_on=["failed"])
    async def plan(ctx: Context) -> None:
        await ctx.step("book", book, undo=undone.append)
        added.append(await ctx.add_step(Step(name="later", needs=["plan"])))
        raise NonRetryable("no money")

    run_id = begin(stage, Flow(name="f", steps=[Step(name="plan")]))
    with stage.worker():
        assert stage.ends(run_id)["state"] == "failed"
        stage.until(lambda: undone)
    assert undone == ["seat 7"]
    assert added in ([True], [True, False])
    types = [line["type"] for line in stage.client.timeline(run_id)]
    assert types.count("step.added") == 1


def test_a_run_that_is_no_step_of_a_flow_adds_none(stage: Stage) -> None:
    @stage.app.handler
    async def alone(ctx: Context) -> None:
        await ctx.add_step(Step(name="more"))

    run_id = stage.client.enqueue(alone)
    with stage.worker():
        run = stage.ends(run_id)
    assert "run_id must be the run of a step of a flow" in run["error_detail"]


def test_a_client_adds_a_step_until_the_flow_has_ended(stage: Stage) -> None:
    count(stage.app)

    @stage.app.handler
    async def plan() -> None:
        pass

    run_id = begin(stage)
    (part,) = parts(1)
    assert stage.client.add_step(run_id, part, needed_by=["sum"]) is True
    assert stage.client.add_step(run_id, part, needed_by=["sum"]) is False
    with stage.worker():
        assert stage.output(run_id) == {"sum": 0}
    with pytest.raises(AlreadyFinished):
        stage.client.add_step(run_id, Step(name="late"))
