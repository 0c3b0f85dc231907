"""Elements of one step, and flows within flows, that end at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from tests.race.staging import Blocked, Two, held
from tests.sql.flows import (
    define,
    elements,
    elements_of,
    finish,
    gate,
    ready,
    started,
    step,
    step_run,
    task_of,
)

if TYPE_CHECKING:
    from tests.sql.conftest import Engine

EACH = (step("each", each="$[*]"), step("sum", "each"))


def test_the_last_two_elements_that_end_at_once_end_their_step_once(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, *EACH, input=Jsonb([1, 2]))
    leases = elements(engine)
    with held(one):
        one.complete(leases[2], output="2")
        ending = blocked(other, lambda: other.complete(leases[1], output="1"), by=one)
    assert ending.result() == []
    assert ready(engine)["sum"].body["input"] == {"each": [1, 2]}
    assert engine.value("select count(*) from pgflow.runs where parent_run_id = %s", run_id) == 3
    engine.timeline(run_id)


def test_an_element_that_ends_while_another_fails_the_flow_is_cancelled(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, *EACH, input=Jsonb([1, 2]))
    leases = elements(engine)
    with held(one):
        one.fail(leases[2], retries=[False])
        ending = blocked(other, lambda: other.complete(leases[1]), by=one)
    assert ending.result()[0]["outcome"] == "lost"
    assert elements_of(engine, run_id) == {0: "failed", 1: "cancelled", 2: "failed"}


def test_an_element_that_fails_does_not_wait_for_one_that_somebody_holds(
    engine: Engine, two: Two
) -> None:
    one, other = two
    run_id = started(engine, *EACH, input=Jsonb([1, 2]))
    leases = elements(engine)
    with held(one):
        one.record_steps(leases[1], k="1")
        other.fail(leases[2], retries=[False])
        assert other.state(run_id) == "failed"
    engine.later(seconds=2)
    engine.tick()
    assert engine.state(leases[1].run_id) == "cancelled"
    assert elements_of(engine, run_id) == {0: "failed", 1: "cancelled", 2: "failed"}


def test_flows_within_one_that_end_at_once_end_it_once(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    define(engine, step("x"), name="inner")
    config = {"flow": "inner"}
    run_id = started(
        engine,
        step("a", type="flow", config=config),
        step("b", type="flow", config=config),
        step("c", "a", "b"),
    )
    engine.worker()
    leases = {engine.run(e.run_id)["parent_run_id"]: e for e in engine.acquire().leases}
    first, second = (leases[step_run(engine, run_id, name)] for name in "ab")
    with held(one):
        one.complete(second, output="2")
        ending = blocked(other, lambda: other.complete(first, output="1"), by=one)
    assert ending.result() == []
    assert ready(engine)["c"].body["input"] == {"a": {"x": 1}, "b": {"x": 2}}
    engine.timeline(run_id)


def test_a_step_that_ends_deep_within_while_the_outermost_is_cancelled_is_cancelled(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    define(engine, step("x"), name="inner")
    define(engine, step("i", type="flow", config={"flow": "inner"}), name="middle")
    run_id = started(engine, step("m", type="flow", config={"flow": "middle"}))
    lease = ready(engine)["x"]
    with held(one):
        one.call("cancel", run_id=run_id)
        ending = blocked(other, lambda: other.complete(lease), by=one)
    assert ending.result()[0]["outcome"] == "lost"
    assert engine.state(lease.run_id) == "cancelled"


def test_a_gate_within_that_is_decided_while_a_step_beside_ends_waits_for_nobody_in_turn(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    define(engine, gate("ok"), step("x"), name="gated")
    run_id = started(engine, step("b", type="flow", config={"flow": "gated"}), step("c"))
    leases = ready(engine)
    child = step_run(engine, run_id, "b")
    with held(one):
        one.approve(task_of(engine, child, "ok"))
        ending = blocked(other, lambda: other.complete(leases["c"], leases["x"]), by=one)
    assert ending.result() == []
    assert finish(engine) == []
    assert engine.state(run_id) == "completed"


def test_two_that_retry_a_step_at_once_get_the_same_run(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, gate("hold"), step("a", on_failure="continue"))
    lease = ready(engine)["a"]
    engine.fail(lease, retries=[False])
    with held(one):
        first = one.tell("retry", run_id=lease.run_id)
        retrying = blocked(other, lambda: other.tell("retry", run_id=lease.run_id), by=one)
    assert retrying.result() == first == step_run(engine, run_id, "a")
