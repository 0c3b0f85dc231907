"""Sub-flows: a step that is a flow itself, to any depth."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import (
    define,
    elements_of,
    finish,
    gate,
    ready,
    started,
    states,
    step,
    step_run,
    task_of,
    values,
    work,
    wrote,
)
from tests.sql.waits import event

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row


def sub(name: str, flow: str, /, *needs: str, version: int | None = None, **more: Any) -> Row:
    """Return a step that is a flow."""
    config: Row = {"flow": flow} if version is None else {"flow": flow, "version": version}
    return step(name, *needs, type="flow", config=config, **more)


@pytest.fixture(autouse=True)
def inner(engine: Engine) -> None:
    """Have a flow of two steps that others can be made of, and one around it."""
    define(engine, step("x"), step("y", "x"), name="inner")
    define(engine, step("m"), sub("mid", "inner", "m"), name="middle")


# ---- what it does


def test_a_step_that_is_a_flow_is_executed_by_a_run_of_it(engine: Engine) -> None:
    run_id = started(engine, step("a"), sub("b", "inner", "a"), step("c", "b"))
    work(engine, a=[1])
    child = step_run(engine, run_id, "b")
    told = engine.run(child)
    assert (told["kind"], told["handler"], told["flow_version"]) == ("flow", "inner", 1)
    assert (told["input"], told["parent_run_id"], told["step"]) == ({"a": [1]}, run_id, "b")
    assert ready(engine)["x"].body["input"] == {"a": [1]}
    assert states(engine, run_id) == {"a": "completed", "b": "running", "c": "pending"}
    engine.timeline(child)


def test_its_output_is_the_steps(engine: Engine) -> None:
    run_id = started(engine, sub("b", "inner"), step("c", "b"))
    assert finish(engine, y=2, c=3) == [["x"], ["y"], ["c"]]
    assert engine.run(step_run(engine, run_id, "c"))["input"] == {"b": {"y": 2}}
    assert engine.run(run_id)["output"] == {"c": 3}
    engine.timeline(run_id)


def test_flows_are_within_each_other_to_any_depth(engine: Engine) -> None:
    flow = "inner"
    for n in range(6):
        define(engine, sub("s", flow), name=f"around{n}")
        flow = f"around{n}"
    run_id = engine.tell("start", flow=flow)
    assert finish(engine, y="deep") == [["x"], ["y"]]
    output: Any = engine.run(run_id)["output"]
    for _ in range(6):
        output = output["s"]
    assert output == {"y": "deep"}


def test_a_run_within_has_what_the_flow_around_it_was_given(engine: Engine) -> None:
    deadline = engine.now + timedelta(hours=1)
    run_id = started(
        engine, sub("b", "inner"), tags=["t"], priority=3, deadline=deadline, correlation_id="k"
    )
    child = engine.run(step_run(engine, run_id, "b"))
    leaf = engine.run(step_run(engine, child["run_id"], "x"))
    for run in (child, leaf):
        assert (run["tags"], run["priority"], run["deadline"]) == (["t"], 3, deadline)
        assert (run["correlation_id"], run["root_run_id"]) == ("k", run_id)


def test_a_version_can_be_named_and_else_it_is_the_current_one(engine: Engine) -> None:
    define(engine, step("z"), name="inner")
    run_id = started(engine, sub("old", "inner", version=1), sub("new", "inner"))
    assert sorted(ready(engine)) == ["x", "z"]
    kept = engine.run(step_run(engine, run_id, "old"))["flow_version"]
    assert kept == 1


def test_a_flow_whose_inner_one_ends_at_once_goes_on(engine: Engine) -> None:
    define(engine, step("e", each="$.x[*]"), name="empty")
    run_id = started(
        engine, sub("a", "empty"), sub("b", "empty"), sub("c", "inner", "a", "b"), input={"x": []}
    )
    assert finish(engine, y=1) == [["x"], ["y"]]
    assert engine.run(run_id)["output"] == {"c": {"y": 1}}
    engine.timeline(run_id)


def test_a_flow_of_nothing_but_one_that_ends_at_once_is_completed_when_it_starts(
    engine: Engine,
) -> None:
    define(engine, step("e", each="$.x[*]"), name="empty")
    run_id = started(engine, sub("a", "empty"), input={"x": []})
    assert engine.run(run_id)["output"] == {"a": {"e": []}}


def test_a_flow_can_be_done_for_each_element(engine: Engine) -> None:
    run_id = started(engine, sub("each", "inner", each="$[*]"), input=Jsonb([1, 2]))
    engine.worker()
    first = engine.acquire().leases
    assert [lease.body["input"] for lease in first] == [1, 2]
    engine.complete(*first)
    second = engine.acquire().leases
    engine.complete(second[1], output='"b"')
    assert elements_of(engine, run_id) == {0: "running", 1: "running", 2: "completed"}
    engine.complete(second[0], output='"a"')
    assert engine.run(run_id)["output"] == {"each": [{"y": "a"}, {"y": "b"}]}
    engine.timeline(run_id)


# ---- the state follows, outwards


def test_all_around_wait_when_the_innermost_waits_and_run_when_it_is_woken(
    engine: Engine,
) -> None:
    run_id = started(engine, sub("b", "middle"))
    work(engine)
    lease = ready(engine)["x"]
    engine.park(lease)
    middle = step_run(engine, run_id, "b")
    within = step_run(engine, middle, "mid")
    flows = (run_id, middle, within)
    assert [engine.state(flow) for flow in flows] == ["waiting_approval"] * 3
    assert states(engine, run_id) == {"b": "waiting"}
    engine.approve(engine.task(lease.run_id))
    assert [engine.state(flow) for flow in flows] == ["running"] * 3
    assert finish(engine) == [["x"], ["y"]]
    assert engine.state(run_id) == "completed"
    for flow in flows:
        engine.timeline(flow)


def test_a_gate_within_is_decided_like_any_other(engine: Engine) -> None:
    define(engine, step("draft"), gate("ok", "draft"), step("send", "ok"), name="gated")
    run_id = started(engine, sub("b", "gated"), step("c", "b"))
    work(engine)
    child = step_run(engine, run_id, "b")
    assert engine.state(run_id) == "waiting_approval"
    engine.reject(task_of(engine, child, "ok"), rollback_to="draft")
    assert engine.state(run_id) == "running"
    work(engine)
    engine.approve(task_of(engine, child, "ok"))
    assert finish(engine) == [["send"], ["c"]]
    assert engine.state(run_id) == "completed"


def test_a_rejection_within_ends_all_around_as_it_says(engine: Engine) -> None:
    define(engine, gate("ok"), name="gated")
    run_id = started(engine, sub("b", "gated"), step("c", "b"))
    engine.reject(task_of(engine, step_run(engine, run_id, "b"), "ok"))
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-006")
    assert states(engine, run_id) == {"b": "rejected", "c": "cancelled"}


def test_a_step_that_fails_within_ends_all_around_and_says_where(engine: Engine) -> None:
    run_id = started(engine, sub("b", "middle"), step("c"))
    finish(engine, fail=("y",))
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-001")
    assert run["error_detail"] == "step b: step mid: step y: boom"


def test_a_flow_can_go_on_after_an_inner_one_that_failed(engine: Engine) -> None:
    goes_on = sub("b", "inner", on_failure="continue")
    run_id = started(engine, goes_on, step("c", "b", join="one_failed"))
    assert finish(engine, fail=("x",)) == [["x"], ["c"]]
    assert engine.state(run_id) == "completed"
    assert states(engine, run_id) == {"b": "failed", "c": "completed"}


# ---- steering


def test_cancelling_the_outermost_ends_all_within(engine: Engine) -> None:
    run_id = started(engine, sub("b", "middle"), step("c"))
    work(engine)
    lease = ready(engine)["x"]
    middle = step_run(engine, run_id, "b")
    within = step_run(engine, middle, "mid")
    assert engine.tell("cancel", run_id=run_id) == "cancelled"
    for child in (middle, within, lease.run_id):
        assert engine.run(child)["error_code"] == "E-RUN-011"
    assert engine.complete(lease)[0]["outcome"] == "lost"


def test_cancelling_an_inner_one_is_cancelling_its_step(engine: Engine) -> None:
    run_id = started(engine, sub("b", "middle"), step("c"))
    engine.call("cancel", run_id=step_run(engine, run_id, "b"))
    assert engine.state(run_id) == "cancelled"
    assert states(engine, run_id) == {"b": "cancelled", "c": "cancelled"}


def test_a_deadline_ends_all_within(engine: Engine) -> None:
    run_id = started(engine, sub("b", "middle"), deadline=engine.now + timedelta(minutes=1))
    engine.later(minutes=2)
    engine.tick()
    assert engine.run(run_id)["state"] == "timeout"
    assert engine.value("select count(*) from pgflow.run where root_run_id = %s", run_id) == 0


def test_a_paused_flow_begins_no_step_within_and_goes_on_with_all(engine: Engine) -> None:
    run_id = started(engine, sub("b", "middle"))
    work(engine)
    lease = ready(engine)["x"]
    engine.call("pause", run_id=run_id)
    middle = step_run(engine, run_id, "b")
    assert engine.run(middle)["pause_reason"] == "flow"
    engine.complete(lease)
    assert ready(engine) == {}
    assert engine.tell("resume", run_id=run_id) == "running"
    assert finish(engine, y=5) == [["y"]]
    assert engine.run(run_id)["output"] == {"b": {"mid": {"y": 5}}}
    for flow in (run_id, middle):
        engine.timeline(flow)


def test_a_gate_that_is_decided_while_the_outermost_is_paused_begins_nothing(
    engine: Engine,
) -> None:
    define(engine, gate("ok"), step("send", "ok"), name="gated")
    run_id = started(engine, sub("b", "gated"))
    child = step_run(engine, run_id, "b")
    engine.call("pause", run_id=run_id, hold_deadlines=True)
    engine.approve(task_of(engine, child, "ok"))
    assert ready(engine) == {}
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["send"]]
    assert engine.state(run_id) == "completed"


def test_what_ended_within_while_all_was_paused_ends_it_when_resumed(engine: Engine) -> None:
    run_id = started(engine, sub("a", "inner"), sub("b", "inner"))
    engine.worker()
    leases = engine.acquire().leases
    engine.call("pause", run_id=run_id)
    engine.fail(leases[0], retries=[False])
    assert engine.tell("resume", run_id=run_id) == "failed"
    assert engine.value("select count(*) from pgflow.run where root_run_id = %s", run_id) == 0


def test_a_flow_within_that_ended_in_a_pause_does_not_end_the_one_around(
    engine: Engine,
) -> None:
    define(engine, step("x"), name="single")
    run_id = started(engine, step("w"), step("last", "w"), sub("b", "single"))
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    engine.complete(leases["w"], leases["x"])
    assert engine.tell("resume", run_id=run_id) == "running"
    assert finish(engine) == [["last"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


def test_what_was_written_in_a_pause_is_kept_when_a_flow_within_ends_with_it(
    engine: Engine,
) -> None:
    define(engine, step("x"), name="single")
    steps = (step("w"), sub("b", "single"), gate("hold"))
    define(engine, *steps, channels={"seen": {"reducer": "append"}})
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    wrote(engine, leases["w"], seen="w")
    engine.complete(leases["x"])
    engine.call("resume", run_id=run_id)
    assert values(engine, run_id) == {"seen": ["w"]}
    engine.timeline(run_id)


def test_while_a_flow_within_stands_at_a_breakpoint_the_one_around_waits(engine: Engine) -> None:
    define(engine, step("x"), step("y", "x"), name="stops", breakpoints={"before": ["y"]})
    run_id = started(engine, sub("b", "stops"), step("c", "b"))
    work(engine)
    child = step_run(engine, run_id, "b")
    assert engine.run(child)["pause_reason"] == "before"
    assert states(engine, run_id) == {"b": "waiting", "c": "pending"}
    assert engine.state(run_id).startswith("waiting_")
    engine.tell("resume", run_id=child)
    assert engine.state(run_id) == "running"
    assert finish(engine, c=3) == [["y"], ["c"]]
    assert engine.run(run_id)["state"] == "completed"


ENDS_AT_ONCE = pytest.mark.parametrize(
    "only", [step("go", type="pass"), step("go", when="1 == 2")], ids=["pass", "skipped"]
)


@ENDS_AT_ONCE
def test_a_flow_within_that_was_held_and_ends_at_once_does_not_end_the_one_around(
    engine: Engine, only: Row
) -> None:
    define(engine, only, name="brief")
    steps = (step("a"), step("w"), step("last", "w"), sub("b", "brief", "a"))
    define(engine, *steps, breakpoints={"before": ["b"]})
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.complete(leases["a"])
    engine.complete(leases["w"])
    assert engine.tell("resume", run_id=run_id) == "running"
    assert finish(engine) == [["last"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


@ENDS_AT_ONCE
def test_steps_that_were_held_together_begin_together_though_the_first_ends_at_once(
    engine: Engine, only: Row
) -> None:
    define(engine, only, name="brief")
    steps = (step("a"), sub("b", "brief", "a"), sub("c", "brief", "a"), step("last", "b", "c"))
    define(engine, *steps, breakpoints={"before": ["b", "c"]})
    run_id = engine.tell("start", flow="f")
    work(engine)
    assert engine.tell("resume", run_id=run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "running"
    assert finish(engine) == [["last"]]
    assert engine.state(run_id) == "completed"


def test_an_inner_flow_can_be_paused_by_itself(engine: Engine) -> None:
    run_id = started(engine, sub("b", "inner"))
    child = step_run(engine, run_id, "b")
    engine.call("pause", run_id=child)
    assert engine.state(run_id) == "waiting_event"
    engine.call("resume", run_id=child)
    assert engine.state(run_id) == "running"
    engine.timeline(run_id)


def test_signals_go_to_the_flow_that_has_the_step(engine: Engine) -> None:
    define(engine, step("paid", type="wait_event"), name="waits")
    run_id = started(engine, sub("b", "waits"))
    child = step_run(engine, run_id, "b")
    assert engine.state(run_id) == "waiting_event"
    engine.call("signal", run_id=child, name="paid", payload=Jsonb({"paid": 5}))
    assert engine.run(run_id)["output"] == {"b": {"paid": {"paid": 5}}}


def test_a_retry_keeps_what_was_done_within(engine: Engine) -> None:
    run_id = started(engine, step("a"), sub("b", "middle", "a"))
    finish(engine, fail=("y",), m="kept", x=1)
    define(engine, step("other"), name="inner")
    again = engine.tell("retry", run_id=run_id)
    assert finish(engine, y=2) == [["y"]]
    assert engine.run(again)["output"] == {"b": {"mid": {"y": 2}}}
    child = engine.run(step_run(engine, again, "b"))
    assert child["retry_of"] == step_run(engine, run_id, "b")
    engine.timeline(again)


def test_a_step_within_that_waits_for_a_child_has_all_around_wait(engine: Engine) -> None:
    run_id = started(engine, sub("b", "inner"))
    lease = ready(engine)["x"]
    engine.park(lease, event())
    assert engine.state(run_id) == "waiting_event"
    engine.call("signal", run_id=lease.run_id, name="pay")
    assert engine.state(run_id) == "running"


# ---- what is refused


@pytest.mark.parametrize(
    ("config", "field", "why"),
    [
        ({}, "config", "config must be an object of flow"),
        ({"flow": 7}, "config", "config must be an object of flow"),
        ({"flow": "inner", "version": "1"}, "config", "config must be an object of flow"),
        ({"flow": "inner", "x": 1}, "config", "config must be an object of flow"),
        ({"flow": "nobodys"}, "config.flow", "config.flow must be a flow of this project"),
        (
            {"flow": "inner", "version": 9},
            "config.flow",
            "config.flow must be a flow of this project that has this version (given: inner, v",
        ),
    ],
    ids=repr,
)
def test_a_step_that_is_no_flow_that_there_is_is_refused(
    engine: Engine, config: Row, field: str, why: str
) -> None:
    with engine.refused("PF101", f"definition.steps[1].{field}") as refused:
        define(engine, step("a"), step("b", type="flow", config=config))
    assert f"step b: {why}" in str(refused.value)


def test_a_flow_that_would_be_within_itself_is_refused(engine: Engine) -> None:
    with engine.refused("PF101", "definition.steps[0].config.flow") as refused:
        define(engine, sub("again", "middle"), name="inner")
    assert "config.flow must be a flow that does not begin inner again" in str(refused.value)
    define(engine, sub("again", "inner", version=1), name="inner")
    run_id = engine.tell("start", flow="inner")
    assert finish(engine, y=1) == [["x"], ["y"]]
    assert engine.run(run_id)["output"] == {"again": {"y": 1}}


def test_a_flow_step_has_no_handler_queue_or_retry(engine: Engine) -> None:
    with engine.refused("PF101", "definition.steps[0].handler"):
        define(engine, sub("b", "inner", handler="h"))


def test_what_is_spent_within_counts_to_the_budgets_around(engine: Engine) -> None:
    define(engine, step("x"), name="inner", budget={"usd": 2})
    define(engine, sub("b", "inner"), name="outer", budget={"usd": 5})
    run_id = engine.tell("start", flow="outer")
    child = step_run(engine, run_id, "b")
    budget = engine.one(
        "select usd::integer, outer_run_id from pgflow.budget where run_id = %s", child
    )
    assert budget == {"usd": 2, "outer_run_id": run_id}
    (lease,) = ready(engine).values()
    engine.record_usage(lease, {"call_key": "a", "cost_usd_total": 3})
    for flow in (child, run_id):
        assert engine.run(flow)["error_code"] == "E-RUN-009"


# ---- what it is given

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    "required": ["a"],
}


def broken(engine: Engine, run_id: object, name: str) -> list[object]:
    """Return state, code, detail and run of a step."""
    (row,) = engine.rows(
        "select state, error_code, error_detail, run_id, ended_at is not null as has_ended"
        " from pgflow.flow_steps where flow_run_id = %s and step = %s and element = 0",
        run_id,
        name,
    )
    return list(row.values())


def test_an_input_that_an_inner_flow_does_not_take_fails_the_step_before_it_begins(
    engine: Engine,
) -> None:
    define(engine, step("x"), name="strict", input_schema=SCHEMA)
    run_id = started(engine, step("a"), sub("b", "strict", "a"), step("c", "b"))
    work(engine, a={"n": "seven"})
    assert engine.rows("select from pgflow.runs where handler = 'strict'") == []
    why = 'input.a.n must be of type integer (given: "seven")'
    assert broken(engine, run_id, "b")[:3] == ["failed", "E-RUN-005", why]
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-005")
    assert run["error_detail"] == f"step b: {why}"
    assert engine.types(run_id)[-4:] == [
        "step.started",
        "step.failed",
        "report.written",
        "run.failed",
    ]


def test_a_flow_may_go_on_after_an_input_that_an_inner_flow_does_not_take(engine: Engine) -> None:
    define(engine, step("x"), name="strict", input_schema=SCHEMA)
    run_id = started(
        engine,
        step("a"),
        sub("b", "strict", "a", on_failure="continue"),
        sub("good", "inner", "a"),
        step("mend", "b", join="one_failed"),
    )
    work(engine, a={"n": []})
    assert finish(engine) == [["mend", "x"], ["y"]]
    assert states(engine, run_id) == {
        "a": "completed",
        "b": "failed",
        "good": "completed",
        "mend": "completed",
    }
    assert engine.state(run_id) == "completed"


def test_an_element_that_an_inner_flow_does_not_take_keeps_all_from_beginning(
    engine: Engine,
) -> None:
    define(engine, step("x"), name="strict", input_schema=SCHEMA)
    steps = (step("a"), sub("b", "strict", "a", each="$.a[*]"), step("c", "b"))
    run_id = started(engine, *steps)
    work(engine, a=[{"a": {}}, {"a": 3}, {}])
    assert engine.rows("select from pgflow.runs where handler = 'strict'") == []
    why = "element 2: input.a must be of type object (given: 3)"
    assert broken(engine, run_id, "b") == ["failed", "E-RUN-005", why, None, True]
    assert elements_of(engine, run_id, "b") == {0: "failed"}
    assert engine.run(run_id)["error_detail"] == f"step b: {why}"


def test_what_fits_begins_and_the_version_that_is_named_has_its_own_schema(engine: Engine) -> None:
    first = define(engine, step("x"), name="strict")
    define(engine, step("x"), name="strict", input_schema=SCHEMA)
    run_id = started(
        engine,
        step("a"),
        sub("old", "strict", "a", version=first["version"]),
        sub("b", "strict", "a"),
    )
    work(engine, a={"n": 7})
    assert finish(engine) == [["x"]]
    assert states(engine, run_id) == {"a": "completed", "old": "completed", "b": "completed"}
