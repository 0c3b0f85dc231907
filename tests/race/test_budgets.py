"""Calls of models at once: a budget is exceeded once, and nobody deadlocks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.race.staging import Blocked, Session, Two, check, half_woken, held, outcome, undone
from tests.sql import flows
from tests.sql.conftest import Engine, Lease, Row
from tests.sql.flows import step

ASK = {"on_breach": "ask"}


def spend(who: Session, lease: Lease, usd: float, key: str = "a") -> list[Row]:
    return who.record_usage(lease, {"call_key": key, "cost_usd_total": usd})


def used(engine: Engine, run_id: object) -> Decimal:
    amount: Decimal = engine.value("select used_usd from pgflow.budget where run_id = %s", run_id)
    return amount


def two_steps(engine: Engine, **budget: Any) -> tuple[Any, Lease, Lease]:
    """Start a flow of two steps that has a budget, and lease them."""
    flow_id = flows.started(engine, step("a"), step("b"), budget=budget)
    leases = flows.ready(engine)
    return flow_id, leases["a"], leases["b"]


def test_two_lines_at_once_are_both_counted(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    flow_id, a, b = two_steps(engine, usd=10)
    with held(one):
        spend(one, a, 1)
        spending = blocked(other, lambda: spend(other, b, 2), by=one)
    assert outcome(spending.result()) == "budget"
    assert used(engine, flow_id) == 3
    check(engine, flow_id, a.run_id, b.run_id)


def test_a_line_that_is_undone_does_not_count(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    flow_id, a, b = two_steps(engine, usd=2)
    with undone(one):
        spend(one, a, 1.5)
        spending = blocked(other, lambda: spend(other, b, 1.5), by=one)
    assert outcome(spending.result()) == "budget"
    assert used(engine, flow_id) == Decimal("1.5")
    assert engine.state(flow_id) == "running"


@pytest.mark.parametrize("more", [{}, ASK], ids=["fail", "ask"])
def test_two_lines_at_once_exceed_a_budget_once(
    engine: Engine, two: Two, blocked: Blocked, more: Row
) -> None:
    one, other = two
    flow_id, a, b = two_steps(engine, usd=2, **more)
    with held(one):
        spend(one, a, 1.5)
        spending = blocked(other, lambda: spend(other, b, 1.5), by=one)
    (line,) = spending.result()
    assert line["state"] == ("paused" if more else "cancelled")
    assert engine.types(flow_id).count("budget.exceeded") == 1
    assert used(engine, flow_id) == 3
    check(engine, flow_id, a.run_id, b.run_id)


@pytest.mark.parametrize("more", [{}, ASK], ids=["fail", "ask"])
def test_a_line_that_waits_for_one_that_exceeds_the_budget_is_lost(
    engine: Engine, two: Two, blocked: Blocked, more: Row
) -> None:
    one, other = two
    flow_id, a, b = two_steps(engine, usd=1, **more)
    with held(one):
        spend(one, a, 1.5)
        spending = blocked(other, lambda: spend(other, b, 1.5), by=one)
    assert "lost" in {line["outcome"] for line in spending.result()}
    assert engine.types(flow_id).count("budget.exceeded") == 1
    assert used(engine, flow_id) == Decimal("1.5")
    check(engine, flow_id, a.run_id, b.run_id)


def test_a_line_that_exceeds_the_budget_waits_for_a_sibling_that_ends(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    flow_id, a, b = two_steps(engine, usd=1)
    with held(one):
        one.complete(b)
        spending = blocked(other, lambda: spend(other, a, 1.5), by=one)
    spending.result()
    assert engine.run(flow_id)["error_code"] == "E-RUN-009"
    assert flows.states(engine, flow_id) == {"a": "cancelled", "b": "completed"}
    check(engine, flow_id, a.run_id, b.run_id)


def test_a_completion_that_waits_for_a_line_which_exceeds_the_budget_is_lost(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    flow_id, a, b = two_steps(engine, usd=1)
    with held(one):
        spend(one, a, 1.5)
        completing = blocked(other, lambda: other.complete(b), by=one)
    assert outcome(completing.result()) == "lost"
    check(engine, flow_id, a.run_id, b.run_id)


def test_batches_that_mix_two_families_do_not_deadlock(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    first, a, b = two_steps(engine, usd=1)
    second, c, d = two_steps(engine, usd=1)

    def both(who: Session, *leases: Lease) -> list[Row]:
        return who.call(
            "record_usage",
            run_ids=[lease.run_id for lease in leases],
            lease_nos=[1, 1],
            calls=Jsonb([{"call_key": "a", "cost_usd_total": 0.6}] * 2),
        )

    with held(one):
        both(one, d, a)
        spending = blocked(other, lambda: both(other, b, c), by=one)
    assert {line["state"] for line in spending.result()} == {"cancelled"}
    for flow_id in (first, second):
        assert engine.run(flow_id)["error_code"] == "E-RUN-009"
        assert used(engine, flow_id) == Decimal("1.2")
    check(engine, first, second)


def test_a_raise_and_a_cancel_at_once(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    flow_id, a, _ = two_steps(engine, usd=1, **ASK)
    spend(one, a, 2)
    task_id = engine.value("select task_id from pgflow.budget where run_id = %s", flow_id)
    with held(one):
        one.approve(task_id, decision=Jsonb({"usd": 9}))
        cancelling = blocked(other, lambda: other.tell("cancel", run_id=flow_id), by=one)
    assert cancelling.result() == "cancelled"
    check(engine, flow_id, a.run_id)


def test_the_tick_passes_by_a_run_that_somebody_holds(engine: Engine, two: Two) -> None:
    one, other = two
    flow_id, a, _ = two_steps(engine, seconds=30)
    for who in (engine, *two):
        who.later(seconds=30)
    with held(one):
        one.call("emit", run_id=a.run_id, type="note")
        other.tick()
        assert engine.state(flow_id) == "running"
    other.tick()
    assert engine.run(flow_id)["error_code"] == "E-RUN-009"


def test_a_step_that_waits_for_the_rollback_of_its_run_is_lost(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    lease, task_id = half_woken(engine, budget={"usd": 1, **ASK})
    engine.record_usage(lease, {"call_key": "a", "cost_usd_total": 2, "step": "more"})
    with held(one):
        one.reject(task_id, rollback_to="a")
        recording = blocked(other, lambda: other.record_steps(lease, more="1"), by=one)
    assert outcome(recording.result()) == "lost"
    check(engine, lease.run_id)
