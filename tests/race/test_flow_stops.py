"""Breakpoints, aborts and step types of flows, while others do something about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.race.staging import Blocked, Two, held
from tests.sql.flows import define, finish, gate, ready, started, states, step, task_of

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine


def test_a_breakpoint_that_is_set_before_a_step_ends_stops_the_flow(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("a"), step("b", "a"))
    leases = ready(engine)
    with held(one):
        one.call("set_breakpoint", run_id=run_id, step="b")
        ending = blocked(other, lambda: other.complete(leases["a"]), by=one)
    assert ending.result() == []
    assert engine.run(run_id)["stands_at"]["step"] == "b"
    assert ready(engine) == {}


def test_a_step_that_ends_while_its_flow_goes_on_from_a_breakpoint_counts_once(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    define(engine, step("a"), step("b"), step("c", "a", "b"), breakpoints={"after": ["a"]})
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.complete(leases["a"])
    with held(one):
        one.call("resume", run_id=run_id)
        ending = blocked(other, lambda: other.complete(leases["b"]), by=one)
    assert ending.result() == []
    assert finish(engine) == [["c"]]
    assert engine.state(run_id) == "completed"


def test_of_two_that_resume_a_flow_each_passes_one_breakpoint(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    define(engine, step("a"), step("b"), breakpoints={"before": ["a", "b"]})
    run_id = engine.tell("start", flow="f")
    with held(one):
        assert one.tell("resume", run_id=run_id) == "paused"
        resuming = blocked(other, lambda: other.tell("resume", run_id=run_id), by=one)
    assert resuming.result() == "running"
    assert finish(engine) == [["a", "b"]]
    engine.timeline(run_id)


def test_a_task_that_is_approved_at_the_same_time_is_not_aborted(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, gate("ok"), step("a", "ok"))
    task_id = task_of(engine, run_id, "ok")
    with held(one):
        one.approve(task_id)
        aborting = blocked(other, lambda: other.call("abort", task_id=task_id), by=one)
    with pytest.raises(psycopg.Error) as refused:
        aborting.result()
    assert refused.value.sqlstate == "PF402"
    assert states(engine, run_id) == {"ok": "completed", "a": "pending"}


def test_a_type_that_somebody_defines_a_flow_with_is_not_taken_away(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    one, other = connect(), connect()
    engine.call("register_step_type", name="t")
    with held(one):
        define(one, step("a", type="t"), name="new")
        leaving = blocked(other, lambda: other.tell("unregister_step_type", name="t"), by=one)
    with pytest.raises(psycopg.Error) as refused:
        leaving.result()
    assert refused.value.sqlstate == "PF403"


def test_two_that_register_the_same_type_make_one(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    one, other = connect(), connect()
    with held(one):
        one.call("register_step_type", name="t", handler="one")
        registering = blocked(
            other,
            lambda: other.call("register_step_type", name="t", handler="other"),
            by=one,
        )
    assert registering.result()[0]["handler"] == "other"
    assert engine.value("select handler from pgflow.step_types where name = 't'") == "other"
