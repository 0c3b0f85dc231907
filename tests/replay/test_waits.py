"""What is asked of people, tools, events, time and children, and how the answers come back."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, model_validator

from pgflow import App, Context, Rejected, ThreadContext
from tests.replay.stand_in import Run, child, decision


class Address(BaseModel):
    street: str
    since: date


def asked(run: Run, key: str) -> dict[str, Any]:
    """Execute, and return what is asked for under `key`, but its digest."""
    run.asks()
    wait = dict(run.waits[key])
    assert len(wait.pop("digest")) == 64
    return wait


def test_an_approval_says_who_decides_by_when_and_how() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.approval(
            "a",
            payload=Address(street="x", since=date(2026, 1, 2)),
            title="Move?",
            assignee_role="editors",
            quorum=2,
            quorum_of=3,
            not_requester=True,
            due_in=timedelta(hours=1),
            policy="escalate",
            escalate_to="chiefs",
            escalate_in=timedelta(minutes=5),
            on_reject="raise",
        )

    assert asked(Run(handler), "a") == {
        "kind": "approval",
        "key": "a",
        "title": "Move?",
        "payload": {"street": "x", "since": "2026-01-02"},
        "assignee_role": "editors",
        "quorum": 2,
        "quorum_of": 3,
        "not_requester": True,
        "due_in": 3600,
        "policy": "escalate",
        "escalate_to": "chiefs",
        "escalate_in": 300,
        "on_reject": "resume",
    }


def test_a_form_is_the_models_schema_and_its_answer_the_model() -> None:
    answers: list[Any] = []

    async def handler(ctx: Context) -> None:
        answers.append(await ctx.form("address", Address, assignee="ann", payload={"n": 1}))

    run = Run(handler)
    wait = asked(run, "address")
    assert wait["form"] == Address.model_json_schema()
    assert (wait["kind"], wait["assignee"], wait["payload"]) == ("form", "ann", {"n": 1})
    run.come("address", decision("answered", {"street": "x", "since": "2026-01-02"}))
    run.output()
    assert answers[0].data == Address(street="x", since=date(2026, 1, 2))
    assert (answers[0].action, answers[0].decided_by) == ("answered", "ed")


def test_an_input_is_a_type_a_schema_or_anything() -> None:
    schema = {"type": "object"}
    got: list[Any] = []

    async def handler(ctx: Context) -> None:
        got.extend(
            await ctx.gather(
                ctx.input("model", Address),
                ctx.input("number", int, title="How many?"),
                ctx.input("schema", schema),
                ctx.input("any"),
            )
        )

    run = Run(handler)
    run.asks()
    assert [wait["form"] for wait in run.waits.values()] == [
        Address.model_json_schema(),
        {"type": "integer"},
        schema,
        {},
    ]
    data = [{"street": "x", "since": "2026-01-02"}, 3, {"a": 1}, "x"]
    for key, answer in zip(list(run.waits), data, strict=True):
        run.come(key, decision("answered", answer))
    run.output()
    assert got == [Address(street="x", since=date(2026, 1, 2)), 3, {"a": 1}, "x"]


def test_an_input_that_nobody_gave_is_raised_as_rejected() -> None:
    async def handler(ctx: Context) -> str:
        try:
            return await ctx.input("i", str, on_reject="resume")
        except Rejected as error:
            return str(error)

    run = Run(handler)
    assert asked(run, "i")["on_reject"] == "resume"
    run.come("i", decision("expired"))
    assert run.output() == "i was expired by ed: "


def test_a_form_without_an_answer_has_no_data() -> None:
    async def handler(ctx: Context) -> list[Any]:
        answer = await ctx.form("f", Address, on_reject="resume")
        return [answer.action, answer.data]

    run = Run(handler)
    run.asks()
    run.come("f", decision("rejected"))
    assert run.output() == ["rejected", None]


@pytest.mark.parametrize(
    ("change", "is_asked_again"),
    [
        ({"payload": 2}, True),
        ({"title": "Other?"}, True),
        ({"assignee_role": "others"}, True),
        ({"quorum": 2}, True),
        ({"not_requester": True}, False),
        ({"due_in": timedelta(hours=1)}, False),
        ({"policy": "timeout"}, False),
        ({"on_reject": "resume"}, False),
    ],
)
def test_people_are_asked_again_when_they_would_decide_about_something_else(
    change: dict[str, Any], *, is_asked_again: bool
) -> None:
    now: dict[str, Any] = {"payload": 1, "title": "This?"}

    async def handler(ctx: Context) -> str:
        return (await ctx.approval("a", **now)).action

    run = Run(handler)
    run.asks()
    run.come("a", decision())
    now |= change
    if is_asked_again:
        assert run.asks() == ["a"]
    else:
        assert run.output() == "approved"


class Period(BaseModel):
    first: int
    last: int

    @model_validator(mode="after")
    def in_order(self) -> Period:
        if self.first > self.last:
            raise ValueError("the last day is before the first")
        return self


@pytest.mark.parametrize("call", ["form", "input"])
def test_an_answer_that_the_model_refuses_is_asked_for_again_with_what_it_says(call: str) -> None:
    async def handler(ctx: Context) -> list[int]:
        period = await getattr(ctx, call)("when", Period, title="When?", payload={"for": "Ann"})
        period = period.data if call == "form" else period
        return [period.first, period.last]

    run = Run(handler)
    assert run.asks() == ["when"]
    first = run.waits["when"]
    run.come("when", decision("answered", {"first": 9, "last": 3}))
    assert run.asks() == ["when/again/1"]
    again = run.waits["when/again/1"]
    assert again["title"] == "When? (again: Value error, the last day is before the first)"
    unlike = {"title", "key", "digest"}
    assert {k: v for k, v in again.items() if k not in unlike} == {
        k: v for k, v in first.items() if k not in unlike
    }
    run.come("when/again/1", decision("answered", {"first": 3, "last": 9}))
    assert run.output() == [3, 9]


def positive(days: int) -> int:
    if days < 1:
        raise ValueError(f"{days} days are too few")
    return days


def test_the_faults_name_their_fields_and_a_title_stays_within_its_bounds() -> None:
    class Trip(BaseModel):
        days: list[Annotated[int, AfterValidator(positive)]]

    async def handler(ctx: Context) -> None:
        await ctx.input("trip", Trip)

    def title_after(*days: int) -> str:
        run = Run(handler)
        run.asks()
        run.come("trip", decision("answered", {"days": list(days)}))
        (key,) = run.asks()
        return str(run.waits[key]["title"])

    expected = "Answer trip of h (again: days.1: Value error, -1 days are too few)"
    assert title_after(1, -1) == expected
    assert len(title_after(*[-1] * 100)) == 500


def test_a_third_answer_that_the_model_refuses_pauses_the_run() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.form("when", Period)

    run = Run(handler)
    for key in ["when", "when/again/1", "when/again/2"]:
        assert run.asks() == [key]
        run.come(key, decision("answered", {"first": 9, "last": 3}))
    failed = run.fails()
    assert failed.code == "E-RUN-012"
    assert "form when was answered 3 times" in failed.detail
    assert "the last day is before the first" in failed.detail


def test_a_person_who_is_asked_again_may_reject() -> None:
    async def handler(ctx: Context) -> object:
        answer = await ctx.form("when", Period, on_reject="resume")
        return [answer.action, answer.data]

    run = Run(handler)
    run.asks()
    run.come("when", decision("answered", {"first": 9, "last": 3}))
    run.asks()
    run.come("when/again/1", decision("rejected"))
    assert run.output() == ["rejected", None]


def test_what_follows_a_form_that_was_asked_twice_has_the_key_that_it_had() -> None:
    async def handler(ctx: Context) -> list[int]:
        both = await ctx.gather(ctx.input("when", Period), ctx.input("n", int))
        again = await ctx.input("when", int)
        return [both[0].first, both[1], again]

    run = Run(handler)
    run.asks()
    run.come("gather#1/0/when", decision("answered", {"first": 9, "last": 3}))
    run.come("gather#1/1/n", decision("answered", 7))
    assert run.asks() == ["gather#1/0/when/again/1"]
    run.come("gather#1/0/when/again/1", decision("answered", {"first": 1, "last": 3}))
    assert run.asks() == ["when"]
    run.come("when", decision("answered", 5))
    assert run.output() == [1, 7, 5]


def test_people_are_asked_again_when_an_approval_becomes_a_form() -> None:
    calls: list[int] = []

    async def handler(ctx: Context) -> None:
        calls.append(1)
        await (ctx.approval("a") if len(calls) == 1 else ctx.form("a", int))

    run = Run(handler)
    run.asks()
    run.come("a", decision())
    assert asked(run, "a")["kind"] == "form"


def test_decisions_of_older_versions_have_no_digest_and_count() -> None:
    async def handler(ctx: Context) -> str:
        return (await ctx.approval("a")).action

    run = Run(handler)
    run.journal["a"] = {"key": "a", "kind": "approval", "value": decision(), "digest": None}
    assert run.output() == "approved"


def test_tools_events_sleep_and_interrupts_say_what_they_wait_for() -> None:
    def plainly(ctx: ThreadContext, call: str) -> Any:
        return {
            "tool": lambda: ctx.tool("t", {"a": 1}, timeout=timedelta(minutes=1)),
            "key": lambda: ctx.tool("t", key="k"),
            "event": lambda: ctx.wait_for("e", timeout=1.5),
            "sleep": lambda: ctx.sleep(timedelta(minutes=1)),
            "past": lambda: ctx.sleep(-1),
            "interrupt": lambda: ctx.interrupt({"plan": 1}),
        }[call]()

    expected: dict[str, dict[str, Any]] = {
        "tool": {"kind": "tool", "key": "t", "tool": "t", "arguments": {"a": 1}, "timeout": 60},
        "key": {"kind": "tool", "key": "k", "tool": "t"},
        "event": {"kind": "event", "key": "e", "name": "e", "timeout": 1.5},
        "sleep": {"kind": "sleep", "key": "sleep", "seconds": 60},
        "past": {"kind": "sleep", "key": "sleep", "seconds": 0},
        "interrupt": {
            "kind": "interrupt",
            "key": "interrupt",
            "title": "interrupt of h",
            "payload": {"plan": 1},
        },
    }
    for call, wait in expected.items():
        run = Run(plainly, call)
        assert asked(run, wait["key"]) == wait
        run.come(wait["key"], 5)
        assert run.output() == (None if "sleep" in wait["kind"] else 5)


class Square(BaseModel):
    side: int


def test_a_child_is_enqueued_as_its_handler_says_and_comes_back_typed() -> None:
    app = App("")
    sides: list[int] = []

    @app.handler(queue="shapes", timeout=timedelta(seconds=9))
    async def draw(square: Square) -> Square:
        return square

    async def handler(ctx: Context) -> None:
        square = await ctx.run(draw, Square(side=2), tags=["a"], priority=3)
        sides.append(square.side)
        sides.append((await ctx.run("draw", {"side": 3}, queue="other"))["side"])

    run = Run(handler)
    assert asked(run, "draw") == {
        "kind": "run",
        "key": "draw",
        "handler": "draw",
        "input": {"side": 2},
        "queue": "shapes",
        "run_timeout": 9,
        "priority": 3,
        "tags": ["a"],
    }
    run.come("draw", child(output={"side": 2}))
    assert asked(run, "draw#2") == {
        "kind": "run",
        "key": "draw#2",
        "handler": "draw",
        "input": {"side": 3},
        "queue": "other",
    }
    run.come("draw#2", child(output={"side": 3}))
    run.output()
    assert sides == [2, 2, 3]


def test_a_handler_knows_what_the_database_said_of_its_run() -> None:
    told: list[Any] = []

    async def handler(ctx: Context) -> None:
        told.extend([ctx.project, ctx.version, ctx.feedback, ctx.deadline, ctx.tags, ctx.lease_no])
        told.extend([ctx.parent_run_id, ctx.root_run_id == ctx.run_id, ctx.thread_id == ctx.run_id])

    Run(handler).output()
    assert told == ["default", 0, None, None, [], 1, None, True, True]
    told.clear()
    feedback = {"comment": "shorter", "by": "ed", "round": 1}
    Run(
        handler,
        round=1,
        feedback=feedback,
        deadline="2026-01-02T03:04:05+00:00",
        tags=["a"],
        parent_run_id="x",
        root_run_id="y",
    ).output()
    at = datetime.fromisoformat("2026-01-02T03:04:05+00:00")
    assert told == ["default", 1, feedback, at, ["a"], 1, "x", False, True]


def test_progress_is_an_event() -> None:
    async def handler(ctx: Context) -> None:
        await ctx.progress(3, of=10, text="pages")
        await ctx.progress(4)

    run = Run(handler)
    run.output()
    assert run.emitted == [
        ("progress", {"done": 3, "of": 10, "text": "pages"}),
        ("progress", {"done": 4, "of": None, "text": None}),
    ]
