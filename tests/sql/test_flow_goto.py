"""A paused flow that is resumed with a step: forward over others, or back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import define, finish, gate, ready, started, states, step, task_of, work

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Row

CHAIN = (step("a"), step("b", "a"), step("c", "b"), step("d", "c"))


def paused(engine: Engine, *steps: Row, rounds: int = 1) -> UUID:
    """Start a flow, do so many rounds of its steps, and pause it."""
    run_id = started(engine, *steps)
    for _ in range(rounds):
        work(engine)
    engine.call("pause", run_id=run_id)
    return run_id


def goto(engine: Engine, run_id: UUID, name: str) -> str:
    """Resume a flow with a step."""
    state: str = engine.tell("resume", run_id=run_id, command={"goto": name})
    return state


def test_steps_that_are_passed_over_are_skipped(engine: Engine) -> None:
    run_id = paused(engine, *CHAIN)
    assert goto(engine, run_id, "d") == "running"
    assert states(engine, run_id) == {
        "a": "completed",
        "b": "skipped",
        "c": "skipped",
        "d": "pending",
    }
    lease = ready(engine)["d"]
    assert lease.body["input"] == {}
    engine.complete(lease)
    assert engine.state(run_id) == "completed"
    (told,) = [e for e in engine.timeline(run_id) if e["type"] == "step.goto"]
    assert (told["step"], told["payload"]) == (
        "d",
        {"to": "d", "round": 0, "skipped": ["b", "c"]},
    )
    skipped = [e["payload"] for e in engine.timeline(run_id) if e["type"] == "step.skipped"]
    assert [line["error_detail"] for line in skipped] == ["the flow was sent to step d"] * 2


@pytest.mark.parametrize("join", ["all", "any", "none_failed", "one_failed"])
def test_no_join_rule_keeps_a_step_that_somebody_goes_to(engine: Engine, join: str) -> None:
    run_id = paused(engine, step("a"), step("b", "a"), step("c", "b", join=join))
    goto(engine, run_id, "c")
    assert finish(engine) == [["c"]]
    assert engine.state(run_id) == "completed"


def test_a_step_that_waits_beside_is_passed_over_with_its_task(engine: Engine) -> None:
    run_id = paused(engine, step("a"), gate("ok", "a"), step("b", "ok"))
    task_id = task_of(engine, run_id, "ok")
    goto(engine, run_id, "b")
    assert states(engine, run_id)["ok"] == "skipped"
    with engine.refused("PF202"):
        engine.approve(task_id)
    assert finish(engine) == [["b"]]


def test_what_needs_a_step_that_was_passed_over_goes_by_its_join(engine: Engine) -> None:
    steps = (*CHAIN, step("any", "b", "d", join="any"), step("all", "b", "a"))
    run_id = paused(engine, *steps)
    goto(engine, run_id, "d")
    assert finish(engine) == [["d"], ["any"]]
    assert states(engine, run_id)["all"] == "skipped"
    assert engine.state(run_id) == "completed"


def test_a_step_before_is_done_again_with_all_after_it(engine: Engine) -> None:
    run_id = paused(engine, *CHAIN, rounds=3)
    assert goto(engine, run_id, "b") == "running"
    assert states(engine, run_id) == {
        "a": "completed",
        "b": "pending",
        "c": "pending",
        "d": "pending",
    }
    leases = ready(engine)
    assert leases["b"].body["flow"]["version"] == 1
    engine.complete(*leases.values())
    assert finish(engine) == [["c"], ["d"]]
    rows = engine.rows(
        "select version, state from pgflow.flow_steps where flow_run_id = %s and step = 'b'"
        " order by version",
        run_id,
    )
    assert [tuple(row.values()) for row in rows] == [(0, "voided"), (1, "completed")]
    (told,) = [e for e in engine.timeline(run_id) if e["type"] == "step.goto"]
    assert told["payload"] == {"to": "b", "round": 1, "voided": ["b", "c", "d"]}


def test_a_step_that_runs_is_begun_anew(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    lease = ready(engine)["a"]
    engine.call("pause", run_id=run_id)
    goto(engine, run_id, "a")
    assert engine.complete(lease)[0]["outcome"] == "lost"
    assert finish(engine) == [["a"], ["b"]]


def test_a_step_that_was_skipped_can_be_gone_to(engine: Engine) -> None:
    run_id = paused(engine, *CHAIN)
    goto(engine, run_id, "d")
    engine.call("pause", run_id=run_id)
    goto(engine, run_id, "c")
    assert finish(engine) == [["c"], ["d"]]
    assert engine.state(run_id) == "completed"


def test_what_is_beside_goes_on(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"), step("x"), step("y", "x"))
    leases = ready(engine)
    engine.complete(leases["a"])
    engine.call("pause", run_id=run_id)
    engine.complete(leases["x"])
    goto(engine, run_id, "a")
    assert finish(engine) == [["a", "y"], ["b"]]
    assert engine.state(run_id) == "completed"


def test_the_step_before_which_the_flow_stands_is_passed_over(engine: Engine) -> None:
    define(engine, step("a"), step("b", "a"), step("c", "a"), breakpoints={"before": ["b", "c"]})
    run_id = engine.tell("start", flow="f")
    work(engine)
    assert goto(engine, run_id, "c") == "paused"
    assert engine.run(run_id)["stands_at"]["step"] == "c"
    assert states(engine, run_id) == {"a": "completed", "b": "skipped", "c": "pending"}
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["c"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


def test_the_breakpoint_of_a_step_that_is_gone_to_is_met_again(engine: Engine) -> None:
    define(engine, *CHAIN, breakpoints={"before": ["b"], "after": ["b"]})
    run_id = engine.tell("start", flow="f")
    work(engine)
    engine.call("resume", run_id=run_id)
    work(engine)
    assert engine.run(run_id)["pause_reason"] == "after"
    assert goto(engine, run_id, "b") == "paused"
    assert engine.run(run_id)["pause_reason"] == "before"
    assert ready(engine) == {}
    engine.call("resume", run_id=run_id)
    assert work(engine) == ["b"]
    assert engine.run(run_id)["pause_reason"] == "after"


@pytest.mark.parametrize("name", ["z", ""])
def test_an_unknown_step_is_refused_with_those_there_are(engine: Engine, name: str) -> None:
    run_id = paused(engine, *CHAIN)
    with engine.refused("PF105", "command.goto") as refused:
        goto(engine, run_id, name)
    assert refused.value.diag.message_detail == "it has: a, b, c, d"


@pytest.mark.parametrize("command", [{"goto": 1}, {"goto": "a", "continue": True}], ids=str)
def test_a_goto_that_is_none_is_refused(engine: Engine, command: Row) -> None:
    run_id = paused(engine, *CHAIN)
    with engine.refused("PF101", "command"):
        engine.call("resume", run_id=run_id, command=Jsonb(command))


def test_a_flow_that_is_not_paused_goes_nowhere_else(engine: Engine) -> None:
    run_id = started(engine, *CHAIN)
    with engine.refused("PF204", "command"):
        goto(engine, run_id, "b")
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id"):
        goto(engine, run_id, "b")


def test_a_step_tells_how_often_it_was_begun(engine: Engine) -> None:
    run_id = started(
        engine, step("a"), step("b", "a", each="$.a[*]"), gate("ok", "b"), step("c", "ok")
    )
    work(engine, a=[1, 2])
    work(engine)
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="b")
    work(engine)
    engine.call("pause", run_id=run_id)
    goto(engine, run_id, "ok")
    rows = engine.rows(
        "select step, element, visits from pgflow.flow_steps where flow_run_id = %s"
        " and voided_at is null order by seq, element",
        run_id,
    )
    told = [tuple(row.values()) for row in rows]
    assert told == [("a", 0, 1), ("b", 0, 2), ("b", 1, 2), ("b", 2, 2), ("ok", 0, 3), ("c", 0, 0)]
    steps = engine.value("select pgflow.report(%s) -> 'steps'", run_id)
    visits = {(s["key"], s["element"]): s["visits"] for s in steps}
    assert visits == {(name, element): n for name, element, n in told}
