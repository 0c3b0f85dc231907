"""answer: data that fits the form, given once, to what is no approval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Row

FORM = {
    "type": "object",
    "properties": {
        "amount": {"type": "integer", "minimum": 1},
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku"]}},
    },
    "required": ["amount"],
}


def asked(engine: Engine, kind: str = "form", form: Row | None = None) -> UUID:
    request: Row = {"key": "ok", "kind": kind}
    if kind in {"form", "input"}:
        request["form"] = form or FORM
    if kind == "breakpoint":
        request |= {"when": "before", "key": "breakpoint/before/ok"}
    lease = engine.leased()
    assert engine.park(lease, request)["outcome"] == "done"
    return engine.task(lease.run_id, request["key"])


def answer(engine: Engine, task: UUID, data: object, **more: Any) -> Row:
    (decision,) = engine.call("answer", task_id=task, data=Jsonb(data), **more)
    return decision


@pytest.mark.parametrize("kind", ["form", "input"])
def test_an_answer_wakes_the_run_and_the_handler_gets_it(engine: Engine, kind: str) -> None:
    task = asked(engine, kind)
    decision = answer(engine, task, {"amount": 5}, comment="there")
    assert (decision["action"], decision["data"]) == ("answered", {"amount": 5})
    assert (decision["comment"], decision["repeated"]) == ("there", False)
    (entry,) = engine.lease_of(decision["run_id"]).body["journal"]
    assert (entry["key"], entry["kind"]) == ("ok", kind)
    value = entry["value"]
    assert (value["action"], value["approved"]) == ("answered", True)
    assert (value["data"], value["comment"]) == ({"amount": 5}, "there")
    assert (value["decided_by"], value["task_id"]) == ("postgres", str(task))


@pytest.mark.parametrize("value", [5, "later", None, [1], {"a": 1}], ids=str)
def test_the_answer_to_an_interrupt_is_what_its_call_returns(engine: Engine, value: object) -> None:
    task = asked(engine, "interrupt")
    decision = answer(engine, task, value)
    (entry,) = engine.lease_of(decision["run_id"]).body["journal"]
    assert (entry["kind"], entry["value"]) == ("interrupt", value)


def test_answering_a_breakpoint_passes_it(engine: Engine) -> None:
    decision = answer(engine, asked(engine, "breakpoint"), None)
    assert engine.state(decision["run_id"]) == "pending"


def test_the_task_is_in_the_history_with_its_answer(engine: Engine) -> None:
    task = asked(engine)
    answer(engine, task, {"amount": 5})
    history = engine.one("select * from pgflow.task_history where task_id = %s", task)
    assert (history["state"], history["data"]) == ("answered", {"amount": 5})
    assert history["form_schema"] == FORM


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"amount": "x"}, "data.amount"),
        ({"amount": 0}, "data.amount"),
        ({}, "data.amount"),
        ({"amount": 1, "lines": [{"sku": 1}, {}]}, "data.lines[1].sku"),
        ([], "data"),
        (None, "data"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_form_is_refused_by_its_place(
    engine: Engine, data: object, field: str
) -> None:
    task = asked(engine)
    with engine.refused("PF101", field):
        answer(engine, task, data)
    assert answer(engine, task, {"amount": 1})["repeated"] is False


def test_no_data_at_all_do_not_fit_a_form(engine: Engine) -> None:
    task = asked(engine)
    with engine.refused("PF101", "data"):
        engine.rows("select pgflow.answer(%s, null)", task)


def test_data_over_their_limit_are_refused(engine: Engine) -> None:
    task = asked(engine, form={"type": "object"})
    with engine.refused("PF101", "data"):
        answer(engine, task, {"text": _noise(70_000)})
    task = asked(engine, "interrupt")
    with engine.refused("PF101", "data"):
        answer(engine, task, {"text": _noise(1_100_000)})


def test_a_comment_over_its_limit_is_refused(engine: Engine) -> None:
    task = asked(engine)
    with engine.refused("PF101", "comment"):
        answer(engine, task, {"amount": 5}, comment="c" * 10_001)


@pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
def test_the_same_again_is_a_no_op_that_returns_the_first_answer(
    engine: Engine, *, ended: bool
) -> None:
    task = asked(engine)
    first = answer(engine, task, {"amount": 5}, comment="there")
    if ended:
        engine.complete(engine.lease_of(first["run_id"]))
    engine.later(seconds=5)
    before = engine.place.rows()
    assert answer(engine, task, {"amount": 5}, comment="again") == {**first, "repeated": True}
    assert engine.place.rows() == before


@pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
def test_another_answer_is_refused(engine: Engine, *, ended: bool) -> None:
    task = asked(engine)
    first = answer(engine, task, {"amount": 5})
    if ended:
        engine.complete(engine.lease_of(first["run_id"]))
    with engine.refused("PF402", "task_id") as refused:
        answer(engine, task, {"amount": 6})
    assert "answered otherwise" in str(refused.value)


def test_a_rejection_of_what_was_answered_is_refused(engine: Engine) -> None:
    task = asked(engine)
    answer(engine, task, {"amount": 5})
    with engine.refused("PF402", "task_id"):
        engine.reject(task)


@pytest.mark.parametrize("kind", ["form", "input"])
def test_a_form_can_be_rejected_and_is_not_answered_then(engine: Engine, kind: str) -> None:
    task = asked(engine, kind)
    assert engine.reject(task)["action"] == "rejected"
    with engine.refused("PF402", "task_id"):
        answer(engine, task, {"amount": 5})


def test_an_approval_is_not_answered(engine: Engine) -> None:
    task = engine.task(engine.waiting())
    with engine.refused("PF101", "task_id") as refused:
        answer(engine, task, 1)
    assert "approve" in str(refused.value.diag.message_hint)


@pytest.mark.parametrize("kind", ["form", "input", "interrupt", "breakpoint"])
def test_only_an_approval_is_approved(engine: Engine, kind: str) -> None:
    task = asked(engine, kind)
    with engine.refused("PF101", "task_id") as refused:
        engine.approve(task)
    assert "answer" in str(refused.value.diag.message_hint)


@pytest.mark.parametrize("kind", ["interrupt", "breakpoint"])
def test_what_interrupts_a_run_is_not_rejected(engine: Engine, kind: str) -> None:
    task = asked(engine, kind)
    with engine.refused("PF101", "task_id"):
        engine.reject(task)


def test_the_decision_of_an_approval_with_a_form_fits_it(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "form": FORM})
    with engine.refused("PF101", "decision.amount"):
        engine.approve(engine.task(run_id), decision={"amount": 0})
    with engine.refused("PF101", "decision"):
        engine.approve(engine.task(run_id))
    assert engine.approve(engine.task(run_id), decision={"amount": 1})["data"] == {"amount": 1}


def test_an_unknown_task_is_refused(engine: Engine) -> None:
    with engine.refused("PF103", "task_id"):
        answer(engine, uuid4(), 1)


def test_after_the_end_of_the_run_it_says_already_finished(engine: Engine) -> None:
    task = asked(engine)
    run_id = engine.value("select run_id from pgflow.task where task_id = %s", task)
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id"):
        answer(engine, task, {"amount": 5})


# ---- inject_input


@pytest.mark.parametrize("kind", ["form", "input", "interrupt"])
def test_input_is_injected_into_an_open_request_of_the_step(engine: Engine, kind: str) -> None:
    task = asked(engine, kind)
    run_id = engine.value("select run_id from pgflow.task where task_id = %s", task)
    told = engine.tell("inject_input", run_id=run_id, step="ok", content={"amount": 5})
    assert told is True
    history = engine.one("select state, data from pgflow.task_history where task_id = %s", task)
    assert tuple(history.values()) == ("answered", {"amount": 5})


def test_where_nobody_waits_for_input_it_is_not_taken(engine: Engine) -> None:
    task = asked(engine)
    run_id = engine.value("select run_id from pgflow.task where task_id = %s", task)
    approval = engine.waiting()
    before = engine.place.rows()
    for run, step in ((run_id, "other"), (approval, "ok"), (uuid4(), "ok")):
        content = {"amount": 5}
        assert engine.tell("inject_input", run_id=run, step=step, content=content) is False
    assert engine.place.rows() == before
    assert engine.tell("inject_input", run_id=run_id, step="ok", content={"amount": 5}) is True
    assert engine.tell("inject_input", run_id=run_id, step="ok", content={"amount": 5}) is False


def test_input_that_does_not_fit_the_form_is_refused(engine: Engine) -> None:
    task = asked(engine)
    run_id = engine.value("select run_id from pgflow.task where task_id = %s", task)
    with engine.refused("PF101", "data.amount"):
        engine.tell("inject_input", run_id=run_id, step="ok", content={})


def _noise(size: int) -> str:
    """Return a text that does not compress."""
    return "".join(str(uuid4()) for _ in range(size // 20))
