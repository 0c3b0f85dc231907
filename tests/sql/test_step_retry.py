"""One step of a flow that goes on is done again: retry of the step's run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import (
    define,
    elements,
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

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine

HOLD = gate("hold")  # so that the flow lives on
STEPS = (
    HOLD,
    step("a"),
    step("b", "a", on_failure={"run": "mend"}),
    step("mend"),
    step("c", "b"),
    step("d", "mend", "c", join="none_failed"),
)


def broken(engine: Engine) -> tuple[UUID, UUID]:
    """Return a flow that goes on after its step b has failed, and the run of that step."""
    run_id = started(engine, *STEPS)
    work(engine, a=1)
    child = step_run(engine, run_id, "b")
    assert work(engine, fail=("b",)) == ["b"]
    return run_id, child


def test_a_failed_step_is_done_again_with_all_that_needs_it(engine: Engine) -> None:
    run_id, child = broken(engine)
    assert finish(engine) == [["mend"], ["d"]]
    again = engine.tell("retry", run_id=child)
    assert again == step_run(engine, run_id, "b")
    assert engine.run(again)["input"] == {"a": 1}
    assert states(engine, run_id) == {
        "hold": "waiting",
        "a": "completed",
        "b": "pending",
        "mend": "pending",
        "c": "pending",
        "d": "pending",
    }
    assert finish(engine, b=2) == [["b"], ["c"], ["d"]]
    assert states(engine, run_id)["mend"] == "skipped"
    engine.approve(task_of(engine, run_id, "hold"))
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


def test_retrying_it_again_returns_the_same_run(engine: Engine) -> None:
    run_id, child = broken(engine)
    again = engine.tell("retry", run_id=child)
    before = engine.place.rows()
    assert engine.tell("retry", run_id=child) == again
    assert engine.place.rows() == before
    work(engine, fail=("b",))
    third = engine.tell("retry", run_id=again)
    assert third not in {child, again}
    assert engine.tell("retry", run_id=child) == again
    rounds = engine.value("select round from pgflow.runs where run_id = %s", run_id)
    assert rounds == 2


def test_what_ran_because_it_failed_ends(engine: Engine) -> None:
    _, child = broken(engine)
    lease = ready(engine)["mend"]
    engine.tell("retry", run_id=child)
    assert engine.complete(lease)[0]["outcome"] == "lost"
    assert finish(engine) == [["b"], ["c"], ["d"]]


def test_a_paused_flow_begins_it_when_it_is_resumed(engine: Engine) -> None:
    run_id, child = broken(engine)
    engine.call("pause", run_id=run_id)
    engine.tell("retry", run_id=child)
    assert ready(engine) == {}
    engine.call("resume", run_id=run_id)
    assert work(engine) == ["b"]


def test_a_step_that_failed_while_its_flow_was_paused_can_be_retried_at_once(
    engine: Engine,
) -> None:
    run_id = started(engine, HOLD, step("a"))
    lease = ready(engine)["a"]
    engine.call("pause", run_id=run_id)
    engine.fail(lease, retries=[False])
    engine.tell("retry", run_id=lease.run_id)
    assert engine.tell("resume", run_id=run_id) == "running"
    assert work(engine) == ["a"]


def test_a_gate_that_was_rejected_is_asked_again(engine: Engine) -> None:
    run_id = started(engine, HOLD, {**gate("ok"), "on_failure": "continue"})
    child = step_run(engine, run_id, "ok")
    engine.reject(task_of(engine, run_id, "ok"))
    again = engine.tell("retry", run_id=child)
    assert engine.run(again)["state"] == "waiting_approval"
    engine.approve(task_of(engine, run_id, "ok"))
    assert states(engine, run_id)["ok"] == "completed"


def test_of_a_fan_out_only_what_did_not_complete_is_done_again(engine: Engine) -> None:
    each = step("each", each="$[*]", on_failure="continue")
    run_id = started(engine, HOLD, each, step("sum", "each"), input=Jsonb(["a", "b", "c"]))
    leases = elements(engine)
    engine.complete(leases[1], leases[3], outputs=['"A"', '"C"'])
    engine.fail(leases[2], retries=[False])
    assert states(engine, run_id)["sum"] == "skipped"
    again = engine.tell("retry", run_id=leases[2].run_id)
    (lease,) = elements(engine).values()
    assert (lease.run_id, lease.body["input"]) == (again, "b")
    assert elements_of(engine, run_id) == {
        0: "running",
        1: "completed",
        2: "running",
        3: "completed",
    }
    engine.complete(lease, output='"B"')
    assert ready(engine)["sum"].body["input"] == {"each": ["A", "B", "C"]}
    engine.timeline(run_id)


@pytest.mark.parametrize("done", [False, True], ids=["while it is done", "when it is done"])
def test_a_fork_has_the_elements_that_a_retry_has_kept(engine: Engine, *, done: bool) -> None:
    each = step("each", each="$[*]", on_failure="continue")
    run_id = started(engine, HOLD, each, step("sum", "each"), input=Jsonb(["a", "b", "c"]))
    leases = elements(engine)
    engine.complete(leases[1], leases[3], outputs=['"A"', '"C"'])
    engine.fail(leases[2], retries=[False])
    engine.tell("retry", run_id=leases[2].run_id)
    if done:
        engine.complete(*engine.acquire().leases, output='"B"')
    else:
        engine.approve(task_of(engine, run_id, "hold"))
    here = engine.run(run_id)["super_step"]
    fork_id = engine.tell("fork", run_id=run_id, super_step=here)
    if not done:
        again = engine.acquire().leases
        assert [lease.body["input"] for lease in again] == ["b", "b"]
        engine.complete(*again, output='"B"')
    sums = engine.acquire().leases
    assert [lease.body["input"] for lease in sums] == [{"each": ["A", "B", "C"]}] * 2
    engine.timeline(fork_id)


@pytest.mark.parametrize("end", ["completed", "over"])
def test_else_it_is_a_run_by_itself(engine: Engine, end: str) -> None:
    run_id, child = broken(engine)
    if end == "completed":
        child = step_run(engine, run_id, "a")
    else:
        engine.call("cancel", run_id=run_id)
    again = engine.run(engine.tell("retry", run_id=child))
    assert (again["parent_run_id"], again["retry_of"]) == (None, child)


def test_what_was_written_since_is_taken_back_but_for_the_elements_that_are_kept(
    engine: Engine,
) -> None:
    define(
        engine,
        step("list"),
        step("each", "list", each="$.list[*]", on_failure="continue"),
        step("mend", "each", join="one_failed"),
        gate("ok", "mend"),
        channels={"x": {"reducer": "append"}},
    )
    run_id = engine.tell("start", flow="f")
    wrote(engine, ready(engine)["list"], output="[1, 2]", x="list")
    first, second = elements(engine).values()
    wrote(engine, first, x="first")
    engine.fail(second, retries=[False])
    wrote(engine, ready(engine)["mend"], x="mend")
    assert values(engine, run_id) == {"x": ["list", "first", "mend"]}
    engine.tell("retry", run_id=second.run_id)
    assert values(engine, run_id) == {"x": ["list", "first"]}
    wrote(engine, elements(engine)[2], x="second")
    assert values(engine, run_id) == {"x": ["list", "first", "second"]}
    assert engine.call("history", run_id=run_id)[-2]["label"] == "rollback:each"
    engine.timeline(run_id)
