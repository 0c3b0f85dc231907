"""What handlers wait for, on the real engine: time, tools, signals, people, children."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from pgflow import ChildFailed, Context, Retry, ThreadContext, WaitTimeout

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

ONCE = Retry(max_attempts=1)


def test_a_run_that_sleeps_has_no_worker_and_goes_on_in_another(stage: Stage) -> None:
    @stage.app.handler
    async def sleeps(ctx: Context) -> int:
        await ctx.sleep(timedelta(milliseconds=300))
        return ctx.lease_no

    with stage.worker():
        run_id = stage.client.enqueue(sleeps)
        stage.until(lambda: stage.run(run_id)["state"] != "pending")
        run = stage.reaches(run_id, "scheduled")
        assert (run["worker_id"], run["attempt_count"]) == (None, 0)
    with stage.worker():
        assert stage.output(run_id) == 2


def test_a_plain_function_sleeps_too(stage: Stage) -> None:
    @stage.app.handler
    def sleeps(ctx: ThreadContext) -> int:
        for _ in range(3):
            ctx.sleep(0.001)
        return 0

    with stage.worker():
        assert stage.output(stage.client.enqueue(sleeps)) == 0


def test_a_tools_result_comes_back_from_where_it_was_done(stage: Stage) -> None:
    @stage.app.handler
    async def asks(ctx: Context) -> list[Any]:
        return [await ctx.tool("transcode", {"src": n}) for n in range(2)]

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        for key in ("transcode", "transcode#2"):
            stage.until(lambda key=key: _waits_for(stage, run_id, key))  # type: ignore[misc]
            assert stage.run(run_id)["state"] == "waiting_tool"
            stage.client.resolve_tool(run_id, key, {"did": key})
        assert stage.output(run_id) == [{"did": "transcode"}, {"did": "transcode#2"}]


def _waits_for(stage: Stage, run_id: Any, key: str) -> bool:
    waits = stage.one("select waits_for from pgflow.run where run_id = %s", run_id)
    return bool(waits) and key in waits


def test_a_tool_that_fails_fails_the_attempt(stage: Stage) -> None:
    @stage.app.handler(retry=ONCE)
    async def asks(ctx: Context) -> None:
        await ctx.tool("transcode")

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        stage.reaches(run_id, "waiting_tool")
        stage.client.fail_tool(run_id, "transcode", "no such codec")
        run = stage.ends(run_id)
    assert run["state"] == "failed"
    assert "no such codec" in run["error_detail"]


def test_a_signal_may_come_before_it_is_waited_for_and_after(stage: Stage) -> None:
    @stage.app.handler
    async def waits(ctx: Context) -> list[Any]:
        return [await ctx.wait_for("paid") for _ in range(3)]

    run_id = stage.client.enqueue(waits)
    stage.client.signal(run_id, "paid", 1)
    stage.client.signal(run_id, "other", 0)
    stage.client.signal(run_id, "paid", 2)
    with stage.worker():
        stage.reaches(run_id, "waiting_event")
        stage.client.signal(run_id, "paid", 3)
        assert stage.output(run_id) == [1, 2, 3]


def test_many_are_signalled_at_once_and_who_is_not_is_told(stage: Stage) -> None:
    @stage.app.handler
    async def waits(ctx: Context) -> Any:
        return await ctx.wait_for("paid")

    run_ids = stage.client.enqueue_many(waits, [None] * 3)
    stage.client.cancel(run_ids[0])
    with stage.worker():
        (line,) = stage.client.signal_many(run_ids, "paid", [0, {"n": 1}, None])
        assert (line.run_id, line.outcome, line.code) == (str(run_ids[0]), "refused", "PF202")
        assert [stage.output(run_id) for run_id in run_ids[1:]] == [{"n": 1}, None]


def test_what_does_not_come_in_time_is_raised_and_can_be_caught(stage: Stage) -> None:
    @stage.app.handler(retry=ONCE)
    async def waits(ctx: Context, how: str) -> str:
        try:
            await (ctx.wait_for if how == "event" else ctx.tool)("x", timeout=0.01)
        except WaitTimeout as error:
            if how == "uncaught":
                raise
            await ctx.sleep(0.001)
            return str(error)
        return "?"

    with stage.worker():
        caught = "x: nothing came within 0.01 s"
        assert stage.output(stage.client.enqueue(waits, "event")) == caught
        assert stage.output(stage.client.enqueue(waits, "tool")) == caught
        run = stage.ends(stage.client.enqueue(waits, "uncaught"))
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-001")
    assert "WaitTimeout" in run["error_detail"]


class Address(BaseModel):
    street: str
    floor: int = 0


def test_a_form_and_an_input_come_back_as_their_models(stage: Stage) -> None:
    @stage.app.handler
    async def asks(ctx: Context) -> list[Any]:
        answer = await ctx.form("address", Address, title="Where to?")
        return [answer.data.street, answer.data.floor, await ctx.input("count", int)]

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        stage.client.answer(stage.task(run_id), {"street": "Elm"})
        stage.until(lambda: [t["step"] for t in stage.client.inbox(run_id=run_id)] == ["count"])
        stage.client.answer(stage.task(run_id), 7)
        assert stage.output(run_id) == ["Elm", 0, 7]


def test_people_are_asked_again_when_what_they_decided_about_has_changed(stage: Stage) -> None:
    amounts = [10, 20, 20]

    @stage.app.handler(retry=Retry(base=timedelta(0)))
    async def pays(ctx: Context) -> Any:
        verdict = await ctx.approval("pay", payload={"amount": amounts.pop(0)})
        return verdict.comment

    with stage.worker():
        run_id = stage.client.enqueue(pays)
        first = stage.task(run_id)
        stage.client.approve(first, "ten is fine")
        stage.until(lambda: {t["task_id"] for t in stage.client.inbox(run_id=run_id)} - {first})
        stage.client.approve(stage.task(run_id), "twenty is fine too")
        assert stage.output(run_id) == "twenty is fine too"


def test_a_payload_with_nulls_is_decided_about_as_it_is(stage: Stage) -> None:
    payloads: list[Any] = [{"a": None}, {}, {}]

    @stage.app.handler
    async def asks(ctx: Context) -> Any:
        return (await ctx.approval("ok", payload=payloads.pop(0))).action

    with stage.worker():
        run_id = stage.client.enqueue(asks)
        stage.client.approve(stage.task(run_id))
        stage.client.approve(stage.until(lambda: stage.client.inbox(run_id=run_id))[0]["task_id"])
        assert stage.output(run_id) == "approved"


def test_an_interrupt_returns_the_value_that_resume_is_given(stage: Stage) -> None:
    @stage.app.handler
    async def stops(ctx: Context) -> list[Any]:
        return [await ctx.interrupt({"plan": n}) for n in range(2)]

    with stage.worker():
        run_id = stage.client.enqueue(stops)
        stage.reaches(run_id, "paused")
        stage.client.resume(run_id, {"resume": {"plan": "b"}})
        stage.until(lambda: _waits_for(stage, run_id, "interrupt#2"))
        stage.client.resume(run_id)
        assert stage.output(run_id) == [{"plan": "b"}, None]


def test_children_are_awaited_typed_and_told_apart(stage: Stage) -> None:
    @stage.app.handler(retry=ONCE)
    async def moves(address: Address) -> Address:
        if address.floor > 5:
            raise ValueError("too high")
        return Address(street=address.street, floor=address.floor + 1)

    @stage.app.handler
    async def parent(ctx: Context) -> list[Any]:
        up = await ctx.run(moves, Address(street="Elm"))
        higher = await ctx.run("moves", up)
        try:
            await ctx.run(moves, Address(street="Elm", floor=9))
        except ChildFailed as error:
            return [up.floor, higher["floor"], error.state, error.error_code, error.error_detail]
        return []

    with stage.worker():
        run_id = stage.client.enqueue(parent)
        assert stage.output(run_id) == [1, 2, "failed", "E-RUN-001", "ValueError: too high"]
    children = stage.one(
        "select count(*) from pgflow.runs where parent_run_id = %s and root_run_id = %s",
        run_id,
        run_id,
    )
    assert children == 3


def test_a_child_knows_its_parent_and_ends_with_it(stage: Stage) -> None:
    @stage.app.handler
    async def child(ctx: Context) -> None:
        await ctx.wait_for(f"never {ctx.parent_run_id} {ctx.root_run_id}")

    @stage.app.handler
    async def parent(ctx: Context) -> None:
        await ctx.run(child)

    with stage.worker():
        run_id = stage.client.enqueue(parent)
        find = "select run_id from pgflow.runs where parent_run_id = %s"
        child_id = stage.until(lambda: stage.one(find, run_id))
        stage.reaches(child_id, "waiting_event")
        assert _waits_for(stage, child_id, f"never {run_id} {run_id}")
        stage.client.cancel(run_id)
        run = stage.ends(child_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")


@pytest.mark.parametrize("call", ["emit", "progress"])
def test_progress_is_in_the_timeline(stage: Stage, call: str) -> None:
    @stage.app.handler
    async def works(ctx: Context) -> None:
        if call == "emit":
            await ctx.emit("progress", {"done": 1, "of": 2, "text": None})
        else:
            await ctx.progress(1, of=2)

    with stage.worker():
        run_id = stage.client.enqueue(works)
        stage.output(run_id)
    lines = [line for line in stage.client.timeline(run_id) if line["type"] == "progress"]
    assert [line["payload"] for line in lines] == [{"done": 1, "of": 2, "text": None}]


def test_time_is_the_databases_and_stays_the_same(stage: Stage) -> None:
    @stage.app.handler
    async def looks(ctx: Context) -> list[Any]:
        told = [await ctx.now(), await ctx.random(), await ctx.uuid()]
        await ctx.sleep(0.001)
        return told

    with stage.worker():
        run_id = stage.client.enqueue(looks)
        now, _, _ = stage.output(run_id)
    kept = stage.one(
        "select array_agg(value order by key) from pgflow.journal"
        " where run_id = %s and kind = 'step'",
        run_id,
    )
    assert kept[0] == now
