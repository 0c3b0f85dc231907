"""Handlers that leave documents behind, on real workers: validated, repaired, counted once."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from pgflow import ArtifactContent, Context, Flow, Repair, Step, ThreadContext
from pgflow._validation import errors_of, read_document
from pgflow.errors import BadRequest, BadSchema, UnknownArtifact, UnknownSchema

if TYPE_CHECKING:
    from tests.worker.conftest import Stage


class Article(BaseModel):
    title: str
    words: int = 0


SCHEMA = Article.model_json_schema()


def writing(**artifact: Any) -> Flow:
    """Return a flow of one step, which has to leave an artifact named article."""
    return Flow(
        name="writing", steps=[Step(name="write", artifact={"name": "article", **artifact})]
    )


def documents(stage: Stage, run_id: Any) -> list[dict[str, Any]]:
    return [a for a in stage.client.artifacts(run_id) if a["kind"] == "document"]


def test_documents_are_stored_in_their_forms(stage: Stage) -> None:
    @stage.app.handler
    async def write(ctx: Context) -> list[bool]:
        written = [
            await ctx.artifact("model", Article(title="Enough"), schema=Article),
            await ctx.artifact("json", {"a": [1, None]}),
            await ctx.artifact("text", "# Enough", media_type="text/markdown"),
            await ctx.artifact("bytes", b"\x00\xff"),
            await ctx.artifact("said", '{"title": "Enough"}', schema=SCHEMA, kind="report"),
            await ctx.artifact("wrong", {"title": 7}, schema=Article),
        ]
        assert written[-1].errors == [{"path": "$.title", "message": "7 is not of type 'string'"}]
        return [document.valid for document in written]

    with stage.worker():
        run_id = stage.client.enqueue(write)
        assert stage.output(run_id) == [True] * 5 + [False]
    wanted = {
        "model": {"title": "Enough", "words": 0},
        "json": {"a": [1, None]},
        "text": "# Enough",
        "bytes": b"\x00\xff",
        "said": {"title": "Enough"},
        "wrong": {"title": 7},
        "output": [True] * 5 + [False],
    }
    for name, content in wanted.items():
        assert stage.client.artifact_content(run_id, name).content == content
    names = [a["name"] for a in stage.client.artifacts(run_id)]
    assert names == ["input", *wanted]
    with pytest.raises(UnknownArtifact):
        stage.client.artifact_content(run_id, "nobodys")


def test_a_plain_function_leaves_documents_too(stage: Stage) -> None:
    @stage.app.handler
    def write(ctx: ThreadContext) -> int:
        number: int = ctx.artifact("article", {"a": 1}).artifact_no
        return number

    with stage.worker(concurrency=1):
        run_id = stage.client.enqueue(write)
        assert stage.output(run_id) == documents(stage, run_id)[0]["artifact_no"]


def test_an_artifact_is_held_to_the_schema_that_is_stored(stage: Stage) -> None:
    @stage.app.handler
    async def write(ctx: Context) -> bool:
        with pytest.raises(UnknownSchema):
            await ctx.artifact("article", {}, schema="nobodys")
        return (await ctx.artifact("article", {}, schema="article")).valid

    stored = stage.client.define_schema("article", Article)
    with stage.worker():
        run_id = stage.client.enqueue(write)
        assert stage.output(run_id) is False
    (row,) = documents(stage, run_id)
    assert (row["schema"], row["schema_version"]) == ("article", stored.version)
    assert stage.client.schemas(schema="article")[0]["definition"] == SCHEMA


def test_an_invalid_artifact_is_repaired(stage: Stage) -> None:
    seen: list[tuple[Repair | None, ArtifactContent | None]] = []

    @stage.app.handler
    async def write(ctx: Context) -> str:
        assert ctx.expected_artifact is not None
        assert (ctx.expected_artifact.name, ctx.expected_artifact.schema) == ("article", SCHEMA)
        seen.append((ctx.repair, await ctx.previous_artifact()))
        title = 7 if ctx.repair is None else "Enough"
        await ctx.artifact("article", {"title": title})
        return "written"

    stage.client.define_schema("article", SCHEMA)
    flow = writing(schema="article")
    stage.client.define_flow(flow)
    with stage.worker():
        run_id = stage.client.start(flow)
        assert stage.output(run_id) == {"write": "written"}
    (none, nothing), (repair, previous) = seen
    assert (none, nothing) == (None, None)
    assert repair is not None
    assert (repair.attempt, repair.error_code) == (1, "E-RUN-008")
    assert repair.errors == [{"path": "$.title", "message": "7 is not of type 'string'"}]
    assert previous is not None
    assert (previous.content, previous.artifact_no) == ({"title": 7}, repair.artifact_no)
    assert [row["valid"] for row in documents(stage, run_id)] == [False, True]
    assert stage.client.artifact_content(run_id, "article", "write").content == {"title": "Enough"}
    (step,) = stage.client.flow_steps(run_id)
    assert step["attempts"] == 1


@pytest.mark.parametrize("content", [None, '{"title": "Enou', {"title": None}], ids=str)
def test_a_step_fails_when_its_artifact_stays_wrong(stage: Stage, content: object) -> None:
    executions: list[str] = []

    @stage.app.handler
    async def write(ctx: Context) -> None:
        executions.append(ctx.run_id)
        if content is not None:
            await ctx.artifact("article", content)

    flow = writing(schema=SCHEMA)
    stage.client.define_flow(flow)
    with stage.worker():
        run = stage.ends(stage.client.start(flow))
    assert (run["state"], len(executions)) == ("failed", 2)
    assert run["error_code"] == ("E-RUN-014" if content is None else "E-RUN-008")


def test_an_execution_that_waited_comes_by_its_artifact_again(stage: Stage) -> None:
    @stage.app.handler
    async def write(ctx: Context) -> str:
        text = await ctx.step("draft", str.upper, "enough")
        await ctx.artifact("article", {"title": text})
        return (await ctx.approval("editor")).action

    flow = writing(schema=Article, repairs=0)
    stage.client.define_flow(flow)
    with stage.worker():
        run_id = stage.client.start(flow)
        stage.until(lambda: stage.client.artifacts(run_id, name="article"))
        task = stage.until(stage.client.inbox)[0]["task_id"]
        stage.client.approve(task)
        assert stage.output(run_id) == {"write": "approved"}
    (row,) = documents(stage, run_id)
    assert row["lease_no"] == 2


def test_an_execution_that_takes_too_long_is_told_so(stage: Stage) -> None:
    repairs: list[Repair | None] = []

    @stage.app.handler(timeout=timedelta(seconds=0.2))
    async def write(ctx: Context) -> None:
        repairs.append(ctx.repair)
        if ctx.repair is None:
            await asyncio.sleep(60)
        await ctx.artifact("article", {"title": "Enough"})

    flow = writing()
    stage.client.define_flow(flow)
    with stage.worker():
        run_id = stage.client.start(flow)
        assert stage.ends(run_id)["state"] == "completed"
    assert [repair and repair.error_code for repair in repairs] == [None, "E-RUN-014"]


def test_a_function_that_was_interrupted_leaves_nothing_behind(stage: Stage) -> None:
    gone, told = threading.Event(), threading.Event()
    raised: list[str] = []

    @stage.app.handler(timeout=timedelta(seconds=0.2))
    def write(ctx: ThreadContext) -> None:
        if ctx.attempt == 0:
            gone.wait(30)
            try:
                ctx.artifact("late", 1)
            except BaseException as error:
                raised.append(type(error).__name__)
                raise
            finally:
                told.set()

    with stage.worker():
        run_id = stage.client.enqueue(write, max_attempts=2)
        stage.until(lambda: "run.retried" in stage.events(run_id))
        gone.set()
        assert told.wait(30)
        assert stage.ends(run_id)["state"] == "completed"
    assert raised == ["LeaseLost"]
    assert documents(stage, run_id) == []


def test_with_a_transaction_nothing_is_committed_before_the_artifact_is_right(stage: Stage) -> None:
    @stage.app.handler
    async def write(ctx: Context) -> str:
        await ctx.artifact("article", {"title": "Enough" if ctx.repair else 7})
        async with ctx.transaction() as conn:
            await conn.execute("insert into written values (%s)", [ctx.repair is not None])
        return "written"

    stage.db.execute("create table written (is_repaired boolean)")
    flow = writing(schema=SCHEMA)
    stage.client.define_flow(flow)
    with stage.worker():
        assert stage.output(stage.client.start(flow)) == {"write": "written"}
    assert stage.db.execute("select * from written").fetchall() == [(True,)]


@pytest.mark.parametrize("how", ["in a step", "with another schema", "with a name of ours"])
def test_a_call_that_stands_where_it_cannot_is_refused(stage: Stage, how: str) -> None:
    @stage.app.handler
    async def write(ctx: Context) -> None:
        if how == "in a step":
            await ctx.step("draft", ctx.artifact, "article", 1)
        elif how == "with another schema":
            await ctx.artifact("article", 1, schema={})
        else:
            with pytest.raises(BadRequest) as refused:
                await ctx.artifact("output", 1)
            assert refused.value.field == "name"
            await ctx.artifact("article", {"title": ""})

    flow = writing(schema=SCHEMA)
    stage.client.define_flow(flow)
    with stage.worker():
        run = stage.ends(stage.client.start(flow))
    if how == "with a name of ours":
        assert run["state"] == "completed"
    else:
        assert "MisplacedCall: ctx.artifact" in run["error_detail"]


# How it is validated


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strong"},
        {"$ref": "https://example.invalid/schema.json"},
        {"$ref": "#/$defs/nobodys"},
        {"pattern": "["},
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_used_says_so(schema: dict[str, Any]) -> None:
    with pytest.raises(BadSchema):
        errors_of(schema, "a")


def test_all_errors_are_told_with_their_places() -> None:
    schema = {"properties": {"a": {"items": {"type": "integer"}}}, "required": ["b"]}
    found = errors_of(schema, {"a": [1, "x", 2.5]})
    assert {error["path"] for error in found} == {"$.a[1]", "$.a[2]", "$"}


def test_messages_and_their_number_are_bounded() -> None:
    found = errors_of({"items": {"type": "integer"}}, ["x" * 10_000] * 2000)
    assert len(found) == 1000
    assert all(len(error["message"]) <= 500 for error in found)


@pytest.mark.parametrize("text", ["", "{", "NaN", '{"a": Infinity}', "[" * 100_000])
def test_a_text_that_should_be_json_and_is_not_is_invalid(text: str) -> None:
    document = read_document("a", text, "application/json", "document", None)
    assert document.content == text
    assert document.errors[0]["message"].startswith("not JSON")


def test_bytes_are_read_as_json_if_they_are_held_to_a_schema() -> None:
    assert read_document("a", b'{"title": ""}', None, "document", Article).errors == []
    assert read_document("a", b"\xff", None, "document", Article).errors != []
    assert read_document("a", b"\xff", None, "document", None).errors == []
