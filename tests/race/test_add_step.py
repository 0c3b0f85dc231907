"""A step is added to a flow while others do something about the flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.race.staging import Blocked, Two, check, held, undone
from tests.sql.flows import finish, gate, ready, started, states, step, task_of

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine


def add(who: Engine, run_id: UUID, name: str, *needs: str, **how: object) -> bool:
    added: bool = who.tell("add_step", run_id=run_id, step=step(name, *needs), **how)
    return added


def test_a_flow_does_not_end_while_a_step_is_added(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("a"))
    a = ready(engine)["a"]
    with held(one):
        assert add(one, run_id, "new", "a")
        ending = blocked(other, lambda: other.complete(a), by=one)
    assert ending.result() == []
    assert states(engine, run_id) == {"a": "completed", "new": "pending"}
    assert finish(engine) == [["new"]]
    assert engine.state(run_id) == "completed"
    check(engine, run_id, a.run_id)


def test_a_flow_that_ends_first_takes_no_step(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    run_id = started(engine, step("a"))
    a = ready(engine)["a"]
    with held(one):
        assert one.complete(a) == []
        adding = blocked(other, lambda: add(other, run_id, "new", "a"), by=one)
    with pytest.raises(psycopg.Error) as refused:
        adding.result()
    assert refused.value.sqlstate == "PF202"
    assert engine.state(run_id) == "completed"
    assert states(engine, run_id) == {"a": "completed"}


def test_a_flow_ends_if_the_step_that_was_added_meanwhile_is_undone(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("a"))
    a = ready(engine)["a"]
    with undone(one):
        add(one, run_id, "new", "a")
        ending = blocked(other, lambda: other.complete(a), by=one)
    assert ending.result() == []
    assert engine.state(run_id) == "completed"


def test_of_two_that_add_the_same_step_one_does(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    run_id = started(engine, gate("hold"))
    with held(one):
        assert add(one, run_id, "new")
        adding = blocked(other, lambda: add(other, run_id, "new"), by=one)
    assert adding.result() is False
    assert engine.types(run_id).count("step.added") == 1
    assert finish(engine) == [["new"]]


def test_of_two_that_add_different_steps_of_one_name_one_is_refused(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, gate("hold"))
    with held(one):
        assert add(one, run_id, "new")
        adding = blocked(other, lambda: add(other, run_id, "new", "hold"), by=one)
    with pytest.raises(psycopg.Error) as refused:
        adding.result()
    assert refused.value.sqlstate == "PF101"
    assert finish(engine) == [["new"]]


def test_two_that_add_different_steps_both_do(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    run_id = started(engine, gate("hold"), step("b", "hold"))
    with held(one):
        add(one, run_id, "x", needed_by=["b"])
        adding = blocked(other, lambda: add(other, run_id, "y", "x", needed_by=["b"]), by=one)
    assert adding.result() is True
    engine.approve(task_of(engine, run_id, "hold"))
    assert finish(engine) == [["x"], ["y"], ["b"]]
    assert engine.state(run_id) == "completed"


def test_a_worker_that_lost_its_lease_meanwhile_adds_nothing(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("plan"))
    plan = ready(engine)["plan"]
    with held(one):
        one.release(plan)
        adding = blocked(
            other, lambda: add(other, plan.run_id, "new", lease_no=plan.lease_no), by=one
        )
    with pytest.raises(psycopg.Error) as refused:
        adding.result()
    assert refused.value.sqlstate == "PF301"
    assert states(engine, run_id) == {"plan": "pending"}


def test_a_step_is_not_made_to_need_another_once_it_begins(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("a"), step("b", "a"))
    a = ready(engine)["a"]
    with held(one):
        one.complete(a)
        adding = blocked(other, lambda: add(other, run_id, "new", needed_by=["b"]), by=one)
    with pytest.raises(psycopg.Error) as refused:
        adding.result()
    assert refused.value.sqlstate == "PF101"
    assert finish(engine) == [["b"]]


def test_a_step_is_not_added_by_a_handler_whose_flow_has_failed_meanwhile(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("plan"), step("bad"))
    leases = ready(engine)
    plan = leases["plan"]
    with held(one):
        one.fail(leases["bad"], retries=[False])
        adding = blocked(
            other, lambda: add(other, plan.run_id, "new", lease_no=plan.lease_no), by=one
        )
    with pytest.raises(psycopg.Error) as refused:
        adding.result()
    assert refused.value.sqlstate == "PF301"
    assert states(engine, run_id) == {"plan": "cancelled", "bad": "failed"}
    check(engine, run_id, plan.run_id)


def test_a_step_that_its_flow_left_behind_adds_nothing(engine: Engine, two: Two) -> None:
    one, other = two
    run_id = started(engine, step("plan"), step("bad"))
    leases = ready(engine)
    plan = leases["plan"]
    with held(one):
        assert one.record_steps(plan, looked="1") == []
        other.fail(leases["bad"], retries=[False])
    assert engine.state(run_id) == "failed"
    assert engine.state(plan.run_id) == "running"
    with engine.refused("PF202", "run_id"):
        add(engine, plan.run_id, "new", lease_no=plan.lease_no)
    assert states(engine, run_id) == {"plan": "cancelled", "bad": "failed"}


def test_a_flow_that_fails_while_a_step_is_added_ends_that_step(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("plan"), step("bad"))
    leases = ready(engine)
    with held(one):
        assert add(one, leases["plan"].run_id, "new", lease_no=leases["plan"].lease_no)
        failing = blocked(other, lambda: other.fail(leases["bad"], retries=[False]), by=one)
    assert failing.result()
    assert states(engine, run_id) == {"plan": "cancelled", "bad": "failed", "new": "cancelled"}
    assert engine.state(run_id) == "failed"
    assert ready(engine) == {}


def test_a_step_that_is_added_while_its_adder_is_sent_back_is_refused(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("a"), gate("ok", "a"), step("plan", "a"))
    engine.complete(ready(engine)["a"])
    plan = ready(engine)["plan"]
    with held(one):
        one.reject(task_of(engine, run_id, "ok"), rollback_to="a")
        adding = blocked(
            other, lambda: add(other, plan.run_id, "new", lease_no=plan.lease_no), by=one
        )
    with pytest.raises(psycopg.Error) as refused:
        adding.result()
    assert refused.value.sqlstate == "PF301"
    assert list(states(engine, run_id)) == ["a", "ok", "plan"]
