"""Flows that stop before or after steps, until somebody lets them go on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import (
    define,
    elements,
    finish,
    gate,
    ready,
    started,
    states,
    step,
    task_of,
    work,
)

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Row

CHAIN = (step("a"), step("b", "a"), step("c", "b"))
DIAMOND = (step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))


def stopping(engine: Engine, *steps: Row, **stops: list[str]) -> UUID:
    """Start a flow of these steps whose definition has breakpoints."""
    define(engine, *steps, breakpoints=stops)
    run_id: UUID = engine.tell("start", flow="f")
    return run_id


def resume(engine: Engine, run_id: UUID) -> str:
    """Let a flow go on."""
    state: str = engine.tell("resume", run_id=run_id)
    return state


def stands(engine: Engine, run_id: UUID) -> tuple[str, str]:
    """Return where a flow stands, which must be paused: before or after which step."""
    run = engine.run(run_id)
    assert run["state"] == "paused"
    return run["pause_reason"], run["stands_at"]["step"]


def inbox(engine: Engine, run_id: UUID) -> list[str]:
    """Return the breakpoints of a flow in the inbox."""
    rows = engine.rows(
        "select step from pgflow.inbox where flow_run_id = %s and kind = 'breakpoint' order by 1",
        run_id,
    )
    return [row["step"] for row in rows]


# ---- stopping


def test_a_flow_stops_before_a_step_and_says_where(engine: Engine) -> None:
    run_id = stopping(engine, *CHAIN, before=["b"])
    work(engine, a={"n": 1})
    run = engine.run(run_id)
    assert (run["state"], run["pause_reason"], run["super_step"]) == ("paused", "before", 1)
    task = engine.one("select * from pgflow.inbox where run_id = %s", run_id)
    assert run["stands_at"] == {
        "step": "b",
        "task_id": str(task["task_id"]),
        "payload": {"a": {"n": 1}},
    }
    assert (task["kind"], task["step"]) == ("breakpoint", "breakpoint/before/b")
    assert (task["flow_run_id"], task["flow"], task["super_step"]) == (run_id, "f", 1)
    assert task["payload"] == {"a": {"n": 1}}
    assert states(engine, run_id) == {"a": "completed", "b": "pending", "c": "pending"}
    assert ready(engine) == {}
    assert engine.types(run_id)[-3:] == ["step.completed", "breakpoint.hit", "run.paused"]


def test_a_flow_stops_after_a_step_with_its_output(engine: Engine) -> None:
    run_id = stopping(engine, *CHAIN, after=["a"])
    work(engine, a=[1])
    assert stands(engine, run_id) == ("after", "a")
    assert engine.run(run_id)["stands_at"]["payload"] == [1]
    assert states(engine, run_id) == {"a": "completed", "b": "pending", "c": "pending"}
    assert ready(engine) == {}
    assert resume(engine, run_id) == "running"
    assert finish(engine) == [["b"], ["c"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


def test_a_flow_goes_on_when_it_is_resumed_and_stops_there_no_more(engine: Engine) -> None:
    run_id = stopping(engine, *CHAIN, before=["b"])
    work(engine)
    assert resume(engine, run_id) == "running"
    assert engine.run(run_id)["stands_at"] is None
    assert engine.types(run_id)[-3:] == ["task.resolved", "run.resumed", "step.started"]
    assert finish(engine) == [["b"], ["c"]]
    assert engine.state(run_id) == "completed"


def test_a_flow_may_stop_before_its_first_step_and_after_its_last(engine: Engine) -> None:
    run_id = stopping(engine, step("a"), before=["a"], after=["a"])
    assert stands(engine, run_id) == ("before", "a")
    assert ready(engine) == {}
    resume(engine, run_id)
    assert work(engine) == ["a"]
    assert stands(engine, run_id) == ("after", "a")
    assert resume(engine, run_id) == "completed"
    assert engine.run(run_id)["output"] == {"a": "a"}


def test_a_flow_may_stop_before_a_gate(engine: Engine) -> None:
    run_id = stopping(engine, step("a"), gate("ok", "a"), before=["ok"])
    work(engine)
    assert task_of(engine, run_id, "ok") is None
    resume(engine, run_id)
    engine.approve(task_of(engine, run_id, "ok"))
    assert engine.state(run_id) == "completed"


def test_a_flow_may_stop_after_a_gate(engine: Engine) -> None:
    run_id = stopping(engine, gate("ok"), step("a", "ok"), after=["ok"])
    engine.approve(task_of(engine, run_id, "ok"))
    assert stands(engine, run_id) == ("after", "ok")
    resume(engine, run_id)
    assert finish(engine) == [["a"]]


def test_each_resume_passes_the_breakpoint_that_the_flow_is_paused_by(engine: Engine) -> None:
    run_id = stopping(engine, *DIAMOND, before=["c", "b"])
    work(engine)
    assert stands(engine, run_id) == ("before", "b")
    assert inbox(engine, run_id) == ["breakpoint/before/b", "breakpoint/before/c"]
    assert resume(engine, run_id) == "paused"
    assert stands(engine, run_id) == ("before", "c")
    assert ready(engine) == {}
    assert resume(engine, run_id) == "running"
    assert finish(engine) == [["b", "c"], ["d"]]
    assert engine.types(run_id).count("run.resumed") == 1
    engine.timeline(run_id)


def test_what_runs_beside_ends_and_its_result_is_kept(engine: Engine) -> None:
    run_id = stopping(engine, step("a"), step("x"), step("b", "a"), step("y", "x"), before=["b"])
    leases = ready(engine)
    engine.complete(leases["a"])
    assert stands(engine, run_id) == ("before", "b")
    assert engine.complete(leases["x"], output="7") == []
    assert ready(engine) == {}
    resume(engine, run_id)
    leases = ready(engine)
    assert set(leases) == {"b", "y"}
    assert leases["y"].body["input"] == {"x": 7}


def test_what_became_ready_at_the_same_time_begins_later(engine: Engine) -> None:
    run_id = stopping(engine, *DIAMOND, before=["b"])
    work(engine)
    assert ready(engine) == {}
    assert states(engine, run_id)["c"] == "waiting"
    resume(engine, run_id)
    assert finish(engine) == [["b", "c"], ["d"]]
    assert engine.state(run_id) == "completed"


def test_of_steps_that_end_together_none_goes_on_if_the_flow_stops_after_one(
    engine: Engine,
) -> None:
    run_id = stopping(engine, step("a"), step("x"), step("b", "a"), step("y", "x"), after=["a"])
    engine.complete(*ready(engine).values(), output="1")
    assert stands(engine, run_id) == ("after", "a")
    assert states(engine, run_id)["y"] == "pending"
    resume(engine, run_id)
    assert finish(engine) == [["b", "y"]]


def test_a_step_that_ends_while_its_flow_stands_elsewhere_stops_it_next(engine: Engine) -> None:
    run_id = stopping(engine, step("a"), step("x"), step("y", "x"), after=["a", "x"])
    leases = ready(engine)
    engine.complete(leases["a"])
    engine.complete(leases["x"])
    assert inbox(engine, run_id) == ["breakpoint/after/a"]
    assert resume(engine, run_id) == "paused"
    assert stands(engine, run_id) == ("after", "x")
    resume(engine, run_id)
    assert finish(engine) == [["y"]]


def test_a_flow_that_somebody_paused_stops_at_its_breakpoint_when_it_is_resumed(
    engine: Engine,
) -> None:
    run_id = stopping(engine, *CHAIN, after=["a"], before=["b"])
    leases = ready(engine)
    engine.call("pause", run_id=run_id, reason="lunch", hold_deadlines=True)
    engine.complete(leases["a"])
    assert engine.run(run_id)["pause_reason"] == "lunch"
    assert resume(engine, run_id) == "paused"
    assert stands(engine, run_id) == ("after", "a")
    assert resume(engine, run_id) == "paused"
    assert stands(engine, run_id) == ("before", "b")
    assert resume(engine, run_id) == "running"
    assert finish(engine) == [["b"], ["c"]]
    engine.timeline(run_id)


def test_a_step_that_is_skipped_or_fails_stops_nobody(engine: Engine) -> None:
    run_id = stopping(
        engine,
        step("a", on_failure="continue"),
        step("b", "a"),
        step("c", "a", join="none_failed"),
        step("d"),
        after=["a"],
        before=["b", "c"],
    )
    finish(engine, fail=("a",))
    assert states(engine, run_id) == {
        "a": "failed",
        "b": "skipped",
        "c": "skipped",
        "d": "completed",
    }
    assert engine.state(run_id) == "completed"


# ---- letting it go on


def test_the_task_may_be_answered_instead(engine: Engine) -> None:
    run_id = stopping(engine, *DIAMOND, before=["b", "c"])
    work(engine)
    answered = engine.value(
        "select task_id from pgflow.inbox where flow_run_id = %s and step = 'breakpoint/before/c'",
        run_id,
    )
    engine.call("answer", task_id=answered, data=None, comment="go on")
    assert stands(engine, run_id) == ("before", "b")
    resume(engine, run_id)
    assert finish(engine) == [["b", "c"], ["d"]]


def test_a_flow_at_a_breakpoint_takes_no_value(engine: Engine) -> None:
    run_id = stopping(engine, step("a"), before=["a"])
    with engine.refused("PF101", "command.key"):
        engine.call("resume", run_id=run_id, command={"resume": 1})


def test_pausing_a_flow_at_a_breakpoint_changes_nothing(engine: Engine) -> None:
    run_id = stopping(engine, step("a"), before=["a"])
    before = engine.place.rows()
    assert engine.tell("pause", run_id=run_id) == "paused"
    assert engine.place.rows() == before


def test_a_flow_at_a_breakpoint_can_be_cancelled(engine: Engine) -> None:
    run_id = stopping(engine, step("a"), before=["a"])
    assert engine.tell("cancel", run_id=run_id) == "cancelled"
    assert inbox(engine, run_id) == []
    assert states(engine, run_id) == {"a": "cancelled"}


def test_the_deadline_of_a_flow_bounds_how_long_it_stands(engine: Engine) -> None:
    define(engine, step("a"), breakpoints={"before": ["a"]})
    run_id = engine.tell("start", flow="f", deadline=engine.now + timedelta(seconds=60))
    engine.later(seconds=61)
    engine.tick()
    assert engine.state(run_id) == "timeout"


# ---- being done again


def test_a_step_that_is_done_again_stops_its_flow_again(engine: Engine) -> None:
    run_id = stopping(engine, step("a"), gate("ok", "a"), before=["a", "ok"], after=["a"])
    for _ in range(2):
        assert stands(engine, run_id) == ("before", "a")
        resume(engine, run_id)
        work(engine)
        assert stands(engine, run_id) == ("after", "a")
        resume(engine, run_id)
        assert stands(engine, run_id) == ("before", "ok")
        resume(engine, run_id)
        engine.reject(task_of(engine, run_id, "ok"), rollback_to="a")
    assert engine.types(run_id).count("breakpoint.hit") == 7
    engine.timeline(run_id)


def test_a_flow_goes_back_from_a_breakpoint_to_begin_nothing(engine: Engine) -> None:
    run_id = stopping(
        engine, step("a"), gate("ok", "a"), step("b", "a"), step("c", "b"), after=["b"]
    )
    work(engine)
    work(engine)
    assert stands(engine, run_id) == ("after", "b")
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="a")
    assert (engine.state(run_id), inbox(engine, run_id)) == ("paused", [])
    assert ready(engine) == {}
    assert resume(engine, run_id) == "running"
    assert finish(engine) == [["a"], ["b"]]
    assert stands(engine, run_id) == ("after", "b")


def test_a_retry_stops_where_the_definition_says(engine: Engine) -> None:
    run_id = stopping(engine, *CHAIN, after=["a"], before=["b"])
    work(engine)
    engine.call("cancel", run_id=run_id)
    again = engine.tell("retry", run_id=run_id)
    assert states(engine, again)["a"] == "completed"
    assert stands(engine, again) == ("before", "b")


# ---- beside a budget


@pytest.mark.parametrize("passed", [False, True], ids=["raised first", "passed first"])
def test_a_flow_at_a_breakpoint_goes_on_when_it_is_passed_and_its_budget_raised(
    engine: Engine, *, passed: bool
) -> None:
    budget = {"usd": 1, "on_breach": "ask"}
    define(engine, step("a"), step("x"), step("b", "a"), breakpoints={"before": ["b"]})
    run_id = engine.tell("start", flow="f", budget=budget)
    leases = ready(engine)
    engine.complete(leases["a"])
    engine.record_usage(leases["x"], {"call_key": "k", "cost_usd_total": 2})
    assert engine.run(run_id)["pause_reason"] == "budget"
    task_id = engine.value("select task_id from pgflow.budgets where run_id = %s", run_id)
    stop = "select task_id from pgflow.inbox where run_id = %s and kind = 'breakpoint'"
    if passed:
        engine.call("answer", task_id=engine.value(stop, run_id), data=None)
        assert engine.run(run_id)["pause_reason"] == "budget"
        engine.approve(task_id, decision=Jsonb({"usd": 5}))
    else:
        engine.approve(task_id, decision=Jsonb({"usd": 5}))
        assert stands(engine, run_id) == ("before", "b")
        resume(engine, run_id)
    assert finish(engine) == [["b", "x"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


# ---- setting


def test_a_start_adds_to_the_breakpoints_of_the_definition(engine: Engine) -> None:
    define(engine, *CHAIN, breakpoints={"before": ["b"]})
    more = {"before": ["b", "c"], "after": ["a"]}
    run_id = engine.tell("start", flow="f", breakpoints=more)
    assert engine.run(run_id)["breakpoints"] == ["before b", "before c", "after a"]
    other = engine.tell("start", flow="f", breakpoints={})
    assert engine.run(other)["breakpoints"] == ["before b"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ([], "breakpoints"),
        ("b", "breakpoints"),
        ({"before": "b"}, "breakpoints.before"),
        ({"after": ["z"]}, "breakpoints.after"),
        ({"before": ["b", "b"]}, "breakpoints.before"),
        ({"during": ["b"]}, "breakpoints.during"),
    ],
    ids=str,
)
def test_breakpoints_that_are_none_are_refused(engine: Engine, given: Any, field: str) -> None:
    define(engine, *CHAIN)
    with engine.refused("PF101", field):
        engine.call("start", flow="f", breakpoints=Jsonb(given))
    with engine.refused("PF101", f"definition.{field}"):
        define(engine, *CHAIN, breakpoints=given)


@pytest.mark.parametrize("none", [{}, {"before": []}, {"before": None}, None], ids=str)
def test_a_definition_without_breakpoints_is_the_same_however_that_is_said(
    engine: Engine, none: Any
) -> None:
    first = define(engine, *CHAIN)
    assert define(engine, *CHAIN, breakpoints=none)["version"] == first["version"]
    assert define(engine, *CHAIN, breakpoints={"after": ["a"]})["version"] > first["version"]


def test_breakpoints_are_set_and_cleared_while_the_flow_runs(engine: Engine) -> None:
    run_id = started(engine, *CHAIN)
    assert engine.tell("set_breakpoint", run_id=run_id, step="b") == ["before b"]
    after = {"step": "b", "moment": "after"}
    assert engine.tell("set_breakpoint", run_id=run_id, **after) == ["before b", "after b"]
    assert engine.tell("clear_breakpoint", run_id=run_id, step="b") == ["after b"]
    assert finish(engine) == [["a"], ["b"]]
    assert stands(engine, run_id) == ("after", "b")
    assert engine.tell("clear_breakpoint", run_id=run_id, **after) == []
    assert engine.state(run_id) == "paused"
    resume(engine, run_id)
    assert finish(engine) == [["c"]]


@pytest.mark.parametrize("verb", ["set_breakpoint", "clear_breakpoint"])
def test_a_breakpoint_of_a_flow_is_at_one_of_its_steps(engine: Engine, verb: str) -> None:
    run_id = started(engine, *CHAIN)
    with engine.refused("PF105", "step") as refused:
        engine.call(verb, run_id=run_id, step="z")
    assert refused.value.diag.message_detail == "it has: a, b, c"


def test_a_step_that_has_begun_is_not_stopped_before(engine: Engine) -> None:
    run_id = started(engine, *CHAIN)
    engine.call("set_breakpoint", run_id=run_id, step="a")
    assert finish(engine) == [["a"], ["b"], ["c"]]
    assert engine.state(run_id) == "completed"


# ---- in layers


def test_a_flow_in_layers_stops_at_its_breakpoints_too(engine: Engine) -> None:
    stops = {"after": ["a"], "before": ["c"]}
    steps = (step("a"), step("x"), step("b", "a"), step("y", "x"), step("c", "b"))
    define(engine, *steps, layered=True, breakpoints=stops)
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.complete(leases["a"])
    assert stands(engine, run_id) == ("after", "a")
    resume(engine, run_id)
    engine.complete(leases["x"])
    assert finish(engine) == [["b", "y"]]
    assert stands(engine, run_id) == ("before", "c")
    resume(engine, run_id)
    assert finish(engine) == [["c"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


# ---- after a step that is done for each


def each(**more: object) -> Row:
    return step("each", "list", each="$.list[*]", **more)


def test_a_flow_stops_after_the_last_element_of_a_step_with_all_outputs(engine: Engine) -> None:
    run_id = stopping(engine, step("list"), each(), step("last", "each"), after=["each"])
    work(engine, list=[1, 2])
    first, second = elements(engine).values()
    engine.complete(first, outputs=['"one"'])
    assert engine.state(run_id) == "running"
    engine.complete(second, outputs=['"two"'])
    assert stands(engine, run_id) == ("after", "each")
    assert engine.run(run_id)["stands_at"]["payload"] == ["one", "two"]
    assert inbox(engine, run_id) == ["breakpoint/after/each"]
    assert ready(engine) == {}
    assert resume(engine, run_id) == "running"
    assert ready(engine)["last"].body["input"] == {"each": ["one", "two"]}
    engine.timeline(run_id)


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("before", [[], ["each"]])
def test_a_flow_stops_after_a_step_that_had_no_element(
    engine: Engine, *, layered: bool, before: list[str]
) -> None:
    steps = (step("list"), each(), step("last", "each"))
    stops = {"before": before, "after": ["each"]}
    define(engine, *steps, breakpoints=stops, layered=layered)
    run_id = engine.tell("start", flow="f")
    work(engine, list=[])
    if before:
        assert stands(engine, run_id) == ("before", "each")
        assert resume(engine, run_id) == "paused"
    assert stands(engine, run_id) == ("after", "each")
    assert engine.run(run_id)["stands_at"]["payload"] == []
    assert ready(engine) == {}
    resume(engine, run_id)
    assert finish(engine) == [["last"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


def test_a_step_that_was_held_and_finds_no_list_ends_its_flow(engine: Engine) -> None:
    run_id = stopping(engine, step("list"), each(), before=["each"])
    work(engine, list=7)
    assert resume(engine, run_id) == "failed"
    assert engine.run(run_id)["error_code"] == "E-RUN-019"
    engine.timeline(run_id)


def test_a_flow_stops_after_elements_that_are_flows(engine: Engine) -> None:
    define(engine, step("inner"), name="g")
    run_id = stopping(
        engine,
        step("list"),
        each(type="flow", config={"flow": "g"}),
        step("last", "each"),
        after=["each"],
    )
    work(engine, list=[1, 2])
    assert work(engine) == ["inner"]
    assert stands(engine, run_id) == ("after", "each")
    resume(engine, run_id)
    assert finish(engine) == [["last"]]


def test_a_flow_does_not_stop_after_elements_that_fail(engine: Engine) -> None:
    run_id = stopping(
        engine,
        step("list"),
        each(on_failure="continue"),
        step("last", "each", join="none_failed"),
        step("mend", "each", join="one_failed"),
        after=["each"],
    )
    work(engine, list=[1, 2])
    first, second = elements(engine).values()
    engine.complete(first)
    engine.fail(second, retries=[False])
    assert finish(engine) == [["mend"]]
    assert engine.state(run_id) == "completed"


def test_what_ends_beside_the_last_element_is_counted_when_the_flow_goes_on(
    engine: Engine,
) -> None:
    run_id = stopping(
        engine, step("list"), each(), step("beside", "list"), step("next", "beside"), after=["each"]
    )
    work(engine, list=[1])
    leases = engine.acquire().leases
    assert len(leases) == 2
    engine.complete(*leases)
    assert stands(engine, run_id) == ("after", "each")
    assert ready(engine) == {}
    resume(engine, run_id)
    assert finish(engine) == [["next"]]
    assert engine.state(run_id) == "completed"
