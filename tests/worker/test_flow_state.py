"""Steps on real workers that read and write the state of their flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgflow import Channel, Context, Flow, Retry, Step, ThreadContext, Writes
from pgflow.errors import BadRequest, UnknownChannel

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

CHANNELS = {
    "notes": Channel(reducer="append"),
    "score": Channel(reducer="max", default=0),
    "title": Channel(),
}


def flow(*steps: Step, **more: Any) -> Flow:
    return Flow(name="f", steps=list(steps), channels=CHANNELS, **more)


def test_steps_on_several_workers_write_and_the_next_reads(stage: Stage) -> None:
    @stage.app.handler
    async def judge(ctx: Context) -> Writes[str]:
        ctx.write("notes", f"{ctx.step_name} was here")
        return Writes("judged", score=ctx.step_config["score"], notes=["really"])

    @stage.app.handler
    def tell(ctx: ThreadContext, found: dict[str, str]) -> dict[str, Any]:
        ctx.write("title", ctx.state["notes"][0])
        return {"found": found, **ctx.state}

    stage.client.define_flow(
        flow(
            Step(name="a", handler="judge", config={"score": 0.3}),
            Step(name="b", handler="judge", config={"score": 0.7}),
            Step(name="tell", needs=["a", "b"], when="$.score > 0.5"),
            layered=True,
            output={"told": "tell"},
        )
    )
    with stage.worker(), stage.worker():
        runs = [stage.client.start("f") for _ in range(5)]
        for run_id in runs:
            told = stage.client.result(run_id, timeout=30).value["told"]
            assert told["found"] == {"a": "judged", "b": "judged"}
            assert told["notes"] == ["a was here", "really", "b was here", "really"]
            assert (told["score"], told["title"]) == (0.7, None)
            rows = stage.client.history(run_id)
            assert [row["label"] for row in rows] == ["layer:1", "layer:2"]
            assert rows[-1]["values"]["title"] == "a was here"


def test_an_execution_that_fails_or_waits_writes_nothing(stage: Stage) -> None:
    @stage.app.handler(retry=Retry(max_attempts=2, base=Retry().base / 1000))
    async def a(ctx: Context) -> None:
        ctx.write("notes", f"attempt {ctx.attempt}")
        if ctx.attempt == 0:
            raise ValueError("not yet")
        await ctx.approval("editor")
        ctx.write("notes", "approved")

    stage.client.define_flow(flow(Step(name="a")))
    run_id = stage.client.start("f")
    with stage.worker():
        stage.client.approve(
            stage.task(stage.one("select run_id from pgflow.run where step = 'a'"))
        )
        assert stage.output(run_id)["notes"] == ["attempt 1", "approved"]


def test_writes_are_committed_with_the_handlers_own(stage: Stage) -> None:
    stage.db.execute("create table mine (n integer)")

    @stage.app.handler
    async def a(ctx: Context) -> str:
        async with ctx.transaction() as conn:
            await conn.execute("insert into mine values (1)")
            ctx.write("title", "mine")
        return "done"

    stage.client.define_flow(flow(Step(name="a")))
    run_id = stage.client.start("f")
    with stage.worker():
        assert stage.output(run_id)["title"] == "mine"
    assert stage.one("select count(*) from mine") == 1


def test_an_unknown_channel_is_refused_by_name_at_once(stage: Stage) -> None:
    @stage.app.handler
    async def a(ctx: Context) -> None:
        assert "scores" not in ctx.state
        assert len(ctx.state) == 3
        with pytest.raises(UnknownChannel, match="no channel scores; it has: notes, score, title"):
            ctx.state["scores"]
        ctx.write("scores", 1)

    stage.client.define_flow(flow(Step(name="a")))
    run_id, alone = stage.client.start("f"), stage.client.enqueue(a)
    with stage.worker():
        run = stage.ends(run_id)
        assert (run["state"], run["error_code"]) == ("failed", "E-RUN-018")
        assert "the flow has no channel scores" in run["error_detail"]
        assert stage.ends(alone)["state"] == "failed"


@pytest.mark.parametrize("transacting", [False, True])
def test_a_value_that_does_not_fit_fails_the_step_once(stage: Stage, *, transacting: bool) -> None:
    @stage.app.handler
    async def a(ctx: Context) -> Writes[None]:
        if transacting:
            async with ctx.transaction():
                pass
        return Writes(None, title="kept?", score="high")

    stage.client.define_flow(flow(Step(name="a", on_failure="continue")))
    run_id = stage.client.start("f")
    with stage.worker():
        assert stage.output(run_id) == {"notes": None, "score": 0, "title": None}
    (row,) = stage.client.flow_steps(run_id)
    assert (row["error_code"], row["attempts"]) == ("E-RUN-018", 1)
    assert "channel score: reducer max takes a number" in row["error_detail"]


def test_a_reducer_is_registered_and_an_input_is_checked(stage: Stage) -> None:
    stage.db.execute("grant usage on schema public to pgflow_owner")
    stage.db.execute(
        "create function public.shorter(old jsonb, new jsonb) returns jsonb language sql immutable"
        " return case when char_length(old #>> '{}') < char_length(new #>> '{}')"
        " then old else new end"
    )
    name = stage.client.define_reducer("shorter", "public.shorter")
    assert name == "public.shorter(jsonb,jsonb)"

    @stage.app.handler
    async def a(ctx: Context) -> Writes[int]:
        ctx.write("word", ctx.flow_input["word"])
        return Writes(1, word="longest")

    schema = {"type": "object", "required": ["word"]}
    stage.client.define_flow(
        Flow(
            name="f",
            steps=[Step(name="a")],
            channels={"word": Channel(reducer="shorter")},
            input_schema=schema,
        )
    )
    with pytest.raises(BadRequest, match=r"input\.word must be present"):
        stage.client.start("f")
    run_id = stage.client.start("f", {"word": "ox"})
    with stage.worker():
        assert stage.output(run_id) == {"word": "ox"}
