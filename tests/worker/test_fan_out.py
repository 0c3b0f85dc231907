"""Fan-out and flows within flows on real workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pgflow import Context, Flow, Retry, Step, ThreadContext

if TYPE_CHECKING:
    from tests.worker.conftest import Stage


def test_several_workers_do_the_elements_of_a_step(stage: Stage) -> None:
    @stage.app.handler(name="list")
    async def list_(flow_input: dict[str, int]) -> list[dict[str, int]]:
        return [{"n": n} for n in range(flow_input["many"])]

    @stage.app.handler
    async def square(ctx: Context, file: dict[str, int]) -> list[int | None]:
        assert ctx.inputs == file
        return [ctx.element, file["n"] ** 2, ctx.flow_input["many"]]

    @stage.app.handler
    def total(ctx: ThreadContext, inputs: dict[str, list[list[int]]]) -> list[Any]:
        numbers = [number for number, *_ in inputs["square"]]
        return [ctx.element, numbers, sum(n for _, n, _ in inputs["square"])]

    flow = Flow(
        name="squares",
        steps=[
            Step(name="list"),
            Step(name="square", needs=["list"], each="$.list[*]"),
            Step(name="total", needs=["square"]),
        ],
    )
    stage.client.define_flow(flow)
    with stage.worker(), stage.worker():
        run_id = stage.client.start(flow, {"many": 300})
        expected = [None, list(range(1, 301)), sum(n * n for n in range(300))]
        assert stage.output(run_id) == {"total": expected}
    assert len(stage.client.flow_steps(run_id)) == 3
    assert len(stage.client.flow_steps(run_id, elements=True)) == 303


def test_an_element_that_wants_a_large_flow_input_is_told_what_to_do(stage: Stage) -> None:
    @stage.app.handler(retry=Retry(max_attempts=1))
    async def each(ctx: Context) -> Any:
        return ctx.flow_input

    stage.client.define_flow(Flow(name="f", steps=[Step(name="each", each="$.x[*]")]))
    run_id = stage.client.start("f", {"x": [uuid4().hex for _ in range(400)]})
    with stage.worker():
        told = stage.ends(run_id)["error_detail"]
    assert "MisplacedCall: the input of flow f is too large" in told


def test_a_flow_is_a_step_of_another(stage: Stage) -> None:
    @stage.app.handler
    async def resize(ctx: Context, file: str) -> str:
        return f"{ctx.flow} {file}"

    @stage.app.handler
    async def store(inputs: dict[str, str]) -> str:
        return inputs["resize"].upper()

    inner = Flow(name="picture", steps=[Step(name="resize"), Step(name="store", needs=["resize"])])
    outer = Flow(
        name="album",
        steps=[Step(name="pictures", type="flow", config={"flow": "picture"}, each="$.files[*]")],
    )
    stage.client.define_flow(inner)
    stage.client.define_flow(outer)
    run_id = stage.client.start(outer, {"files": ["a", "b"]})
    with stage.worker():
        assert stage.output(run_id) == {
            "pictures": [{"store": "PICTURE A"}, {"store": "PICTURE B"}]
        }
