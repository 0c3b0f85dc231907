"""Flows on real workers: defined in Python, executed by whoever has the handlers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from pgflow import App, Context, Flow, Retry, Step, ThreadContext
from pgflow.definition import Breakpoints, FailedNeed, read_definition
from pgflow.errors import BadDefinition, BadRequest, UnknownFlow

if TYPE_CHECKING:
    from tests.worker.conftest import Stage


class Found(BaseModel):
    words: int


def test_a_flow_runs_on_several_workers(stage: Stage) -> None:
    @stage.app.handler
    async def count(ctx: Context, flow_input: dict[str, str]) -> Found:
        return Found(words=len(flow_input["text"].split()) * ctx.step_config["times"])

    @stage.app.handler
    def total(ctx: ThreadContext, found: dict[str, Found]) -> dict[str, Any]:
        words = sum(f.words for f in found.values())
        return {"words": words, "step": ctx.step_name, "input": ctx.flow_input}

    flow = Flow(
        name="counting",
        steps=[
            Step(name="once", handler="count", config={"times": 1}),
            Step(name="twice", handler="count", config={"times": 2}),
            Step(name="total", needs=["once", "twice"]),
        ],
    )
    stage.client.define_flow(flow)
    with stage.worker(), stage.worker():
        runs = [stage.client.start(flow, {"text": "a b " * n}) for n in range(20)]
        for n, run_id in enumerate(runs):
            found = {"words": 6 * n, "step": "total", "input": {"text": "a b " * n}}
            assert stage.client.result(run_id, timeout=30).value == {"total": found}


def test_a_step_knows_its_flow(stage: Stage) -> None:
    @stage.app.handler
    async def a(ctx: Context) -> list[Any]:
        return [ctx.flow, ctx.flow_version, ctx.flow_run_id, ctx.step_name, ctx.step_config]

    stage.client.define_flow({"name": "f", "steps": [{"name": "a"}]})
    run_id = stage.client.start("f")
    alone = stage.client.enqueue(a)
    with stage.worker():
        assert stage.output(run_id) == {"a": ["f", 1, str(run_id), "a", {}]}
        assert stage.output(alone) == [None, None, None, None, {}]


def test_a_step_that_runs_on_failure_learns_why(stage: Stage) -> None:
    @stage.app.handler(retry=Retry(max_attempts=1))
    async def draft() -> None:
        raise ValueError("no ink")

    @stage.app.handler
    async def mend(ctx: Context) -> str:
        failed = ctx.failures["draft"]
        assert isinstance(failed, FailedNeed)
        assert failed.run_id
        return f"{failed.state} {failed.error_code} {failed.error_detail}"

    steps = [Step(name="draft", on_failure={"run": "mend"}), Step(name="mend")]
    stage.client.define_flow(Flow(name="f", steps=steps))
    run_id = stage.client.start("f")
    with stage.worker():
        assert stage.output(run_id) == {"mend": "failed E-RUN-001 ValueError: no ink"}


def test_a_step_without_a_handler_fails_its_flow_with_its_name(stage: Stage) -> None:
    @stage.app.handler
    async def other() -> None:
        """Have a queue to work on."""

    stage.client.define_flow(Flow(name="f", steps=[Step(name="a", handler="nobodys")]))
    run_id = stage.client.start("f")
    with stage.worker():
        run = stage.ends(run_id)
    assert run["error_code"] == "E-RUN-004"
    assert "step a" in run["error_detail"]
    assert "no handler nobodys" in run["error_detail"]


def test_a_step_whose_type_nobody_executes_fails_with_its_type(stage: Stage) -> None:
    @stage.app.handler
    async def other() -> None:
        """Have a queue to work on."""

    stage.client.register_step_type("count", handler="counter")
    stage.client.define_flow(Flow(name="f", steps=[Step(name="a", type="count")]))
    run_id = stage.client.start("f")
    with stage.worker():
        run = stage.ends(run_id)
    assert run["error_code"] == "E-RUN-004"
    assert run["error_detail"] == (
        "step a: this worker's app has no handler counter and no __default__, wanted by step a of"
        " type count"
    )


def test_the_default_handler_takes_the_steps_that_no_other_is_named_for(stage: Stage) -> None:
    @stage.app.handler(name="__default__")
    async def anything(ctx: Context) -> list[Any]:
        return [ctx.lease.handler, ctx.step_type, ctx.step_config]

    stage.client.register_step_type("count", default_config={"n": 1})
    steps = [Step(name="a", type="count", config={"m": 2}), Step(name="b")]
    stage.client.define_flow(Flow(name="f", steps=steps))
    run_id = stage.client.start("f")
    with stage.worker():
        assert stage.output(run_id) == {
            "a": ["count", "count", {"n": 1, "m": 2}],
            "b": ["b", None, {}],
        }


def test_a_step_that_has_begun_waits_for_a_worker_that_has_its_handler(stage: Stage) -> None:
    @stage.app.handler
    async def publish(ctx: Context) -> str:
        return (await ctx.approval("editor")).action

    stage.client.define_flow(Flow(name="f", steps=[Step(name="publish")]))
    run_id = stage.client.start("f")
    with stage.worker():
        stage.reaches(run_id, "waiting_approval")
    (task,) = stage.client.inbox()
    stage.client.approve(task["task_id"])
    bystander = App(stage.dsn)

    @bystander.handler
    async def other() -> None:
        """Have a queue to work on."""

    with stage.worker(bystander):
        stage.reaches(task["run_id"], "paused")
    (run,) = stage.client.runs(run_id=task["run_id"])
    assert run["pause_reason"].startswith("E-RUN-012: this worker's app has no handler publish")
    odd = [line for line in stage.client.doctor() if line["check"] == "handler does not fit"]
    assert "1 runs of handler publish are paused" in odd[0]["detail"]
    stage.client.resume(task["run_id"])
    with stage.worker():
        assert stage.output(run_id) == {"publish": "approved"}


def test_a_flow_stops_at_a_breakpoint_that_its_start_gives(stage: Stage) -> None:
    @stage.app.handler(name="__default__")
    async def anything(ctx: Context) -> str:
        return f"{ctx.step_name} done"

    steps = [Step(name="a"), Step(name="b", needs=["a"])]
    stage.client.define_flow(Flow(name="f", steps=steps, breakpoints=Breakpoints(after=["b"])))
    run_id = stage.client.start("f", breakpoints={"before": ["b"]})
    with stage.worker():
        for place in (
            {"step": "b", "payload": {"a": "a done"}},
            {"step": "b", "payload": "b done"},
        ):
            stage.reaches(run_id, "paused")
            (run,) = stage.client.runs(run_id=run_id)
            assert run["stands_at"] == {**place, "task_id": run["stands_at"]["task_id"]}
            stage.client.resume(run_id)
        assert stage.output(run_id) == {"b": "b done"}


def test_a_step_waits_for_a_person_and_holds_no_worker(stage: Stage) -> None:
    @stage.app.handler
    async def publish(ctx: Context) -> str:
        return (await ctx.approval("editor")).action

    stage.client.define_flow(Flow(name="f", steps=[Step(name="publish")]))
    run_id = stage.client.start("f")
    with stage.worker():
        stage.reaches(run_id, "waiting_approval")
        (task,) = stage.client.inbox()
        stage.client.approve(task["task_id"])
        assert stage.output(run_id) == {"publish": "approved"}


def test_a_step_that_is_done_again_learns_why(stage: Stage) -> None:
    @stage.app.handler
    async def draft(ctx: Context) -> list[Any]:
        return [ctx.version, ctx.feedback and ctx.feedback["comment"]]

    steps = [Step(name="draft"), Step(name="editor", type="approval_gate", needs=["draft"])]
    stage.client.define_flow(Flow(name="f", steps=steps))
    run_id = stage.client.start("f")
    with stage.worker():
        stage.reaches(run_id, "waiting_approval")
        (task,) = stage.client.inbox()
        assert task["payload"] == {"draft": [0, None]}
        stage.client.reject(task["task_id"], "too long", rollback_to="draft")
        stage.until(lambda: [t for t in stage.client.inbox() if t["round"] == 1])
        (task,) = stage.client.inbox()
        assert task["payload"] == {"draft": [1, "too long"]}


YAML = """
name: f
queue: slow
steps:
  - name: a
    timeout: 60
    retry: {max_attempts: 2, base: 5}
  - name: b
    needs: [a]
    config: {n: null}
    join: any
    on_failure: {run: c}
  - name: c
    description: mends
output: {result: b}
"""
PYTHON = Flow(
    name="f",
    queue="slow",
    steps=[
        Step(
            name="a",
            timeout=timedelta(minutes=1),
            retry=Retry(max_attempts=2, base=timedelta(seconds=5)),
        ),
        Step(name="b", needs=["a"], config={"n": None}, join="any", on_failure={"run": "c"}),
        Step(name="c", description="mends"),
    ],
    output={"result": "b"},
)


def test_yaml_json_and_python_are_the_same_version(stage: Stage, tmp_path: Path) -> None:
    files = tmp_path / "f.yaml", tmp_path / "f.json"
    files[0].write_text(YAML)
    files[1].write_text(PYTHON.model_dump_json())
    first = stage.client.define_flow(PYTHON)
    versions = [stage.client.define_flow(read_definition(file)) for file in files]
    assert versions == [first, first]
    assert Flow.model_validate(first.definition) == PYTHON
    assert len(stage.client.flows(flow="f")) == 1


@pytest.mark.parametrize("text", ["a: [", "\x00"])
def test_a_file_that_cannot_be_read_is_no_definition(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(BadDefinition, match=r"f\.yaml"):
        read_definition(tmp_path / "f.yaml")
    with pytest.raises(BadDefinition, match="none"):
        read_definition(tmp_path / "none")


def test_the_database_tells_all_faults(stage: Stage) -> None:
    steps = [Step(name="a", needs=["b"]), Step(name="b", needs=["a", "z"])]
    with pytest.raises(BadRequest) as refused:
        stage.client.define_flow(Flow(name="f", steps=steps))
    assert refused.value.field.startswith("definition.steps[")
    assert "needs z, which is no step" in refused.value.detail
    assert "waits for itself" in refused.value.detail


def test_an_unknown_flow_is_told(stage: Stage) -> None:
    with pytest.raises(UnknownFlow) as refused:
        stage.client.start("nobodys")
    assert refused.value.field == "flow"


def test_the_steps_of_a_run_are_listed(stage: Stage) -> None:
    stage.client.define_flow(Flow(name="f", steps=[Step(name="b"), Step(name="a", needs=["b"])]))
    run_id = stage.client.start("f", tags=["x"], priority=2)
    rows = stage.client.flow_steps(run_id)
    assert [(row["step"], row["state"]) for row in rows] == [("b", "pending"), ("a", "pending")]
    assert [row["flow"] for row in stage.client.flows()] == ["f"]
