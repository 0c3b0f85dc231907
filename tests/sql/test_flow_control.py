"""A flow's state follows from its steps; and a flow that is paused begins none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.flows import finish, ready, started, states, step, step_run, work
from tests.sql.waits import child, event, sleep, tool

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row

APPROVAL: dict[str, object] = {"kind": "approval", "key": "ok", "title": "Fine?"}


@pytest.mark.parametrize(
    ("wait", "state"),
    [(APPROVAL, "waiting_approval"), (tool(), "waiting_tool"), (event(), "waiting_event")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_flow_waits_when_its_last_step_that_could_run_waits(
    engine: Engine, wait: Row, state: str
) -> None:
    run_id = started(engine, step("a"), step("b"))
    leases = ready(engine)
    engine.park(leases["a"], wait)
    assert engine.state(run_id) == "running"
    engine.complete(leases["b"])
    run = engine.run(run_id)
    assert (run["state"], run["waits_for"]) == (state, ["a"])
    assert states(engine, run_id) == {"a": "waiting", "b": "completed"}


def test_parking_is_what_makes_it_wait_too(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"))
    leases = ready(engine)
    engine.complete(leases["b"])
    engine.park(leases["a"])
    assert engine.state(run_id) == "waiting_approval"
    assert engine.types(run_id)[-1] == "run.waiting"


@pytest.mark.parametrize(
    ("wait", "verb", "given"),
    [
        (event(), "signal", {"name": "pay"}),
        (tool(), "resolve_tool", {"key": "t"}),
        (tool(), "fail_tool", {"key": "t", "error": "x"}),
        ({**APPROVAL, "on_reject": "resume"}, "reject", {}),
        (APPROVAL, "approve", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_flow_runs_again_when_a_step_of_its_is_woken(
    engine: Engine, wait: Row, verb: str, given: Row
) -> None:
    run_id = started(engine, step("a"))
    lease = ready(engine)["a"]
    engine.park(lease, wait)
    if verb in {"approve", "reject"}:
        given = {"task_id": engine.task(lease.run_id)}
    else:
        given = {"run_id": lease.run_id, **given}
    assert engine.state(run_id).startswith("waiting_")
    engine.call(verb, **given)
    assert engine.state(run_id) == "running"
    assert engine.run(run_id)["waits_for"] is None
    assert engine.types(run_id)[-1] == "run.woken"


def test_a_flow_runs_again_when_the_time_of_a_step_has_come(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.park(ready(engine)["a"], event(timeout=5))
    engine.later(seconds=6)
    engine.tick()
    assert engine.state(run_id) == "running"


def test_a_step_that_sleeps_can_run(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.park(ready(engine)["a"], sleep(60))
    assert engine.state(run_id) == "running"
    assert states(engine, run_id) == {"a": "pending"}


def test_a_flow_waits_for_a_person_before_anything_else(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c"))
    leases = ready(engine)
    engine.park(leases["a"], event())
    engine.park(leases["b"], tool())
    engine.park(leases["c"], APPROVAL)
    assert engine.state(run_id) == "waiting_approval"
    engine.approve(engine.task(leases["c"].run_id))
    engine.complete(ready(engine)["c"])
    assert engine.state(run_id) == "waiting_tool"
    engine.call("resolve_tool", run_id=leases["b"].run_id, key="t")
    engine.complete(ready(engine)["b"])
    assert engine.state(run_id) == "waiting_event"


def test_a_waiting_step_does_not_stop_the_others(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c", "b"), step("d", "a", "c"))
    leases = ready(engine)
    engine.park(leases["a"])
    engine.complete(leases["b"])
    assert engine.state(run_id) == "running"
    assert work(engine) == ["c"]
    assert engine.state(run_id) == "waiting_approval"
    engine.approve(engine.task(leases["a"].run_id))
    assert finish(engine) == [["a"], ["d"]]
    assert engine.state(run_id) == "completed"


def test_a_flow_whose_steps_wait_for_children_waits(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.park(ready(engine)["a"], child())
    assert engine.state(run_id) == "waiting_event"
    engine.complete(*engine.acquire().leases)
    assert engine.state(run_id) == "running"


def test_a_step_that_a_rejection_sends_back_can_run(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    lease = ready(engine)["a"]
    engine.record_steps(lease, draft="1")
    engine.park(lease)
    engine.reject(engine.task(lease.run_id), rollback_to="draft")
    assert engine.state(run_id) == "running"


def test_a_flow_waits_while_its_only_step_is_paused(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    child_id = step_run(engine, run_id, "a")
    engine.call("pause", run_id=child_id)
    assert engine.state(run_id) == "waiting_event"
    engine.call("resume", run_id=child_id)
    assert engine.state(run_id) == "running"


def test_a_step_that_no_longer_fits_its_code_has_its_flow_wait(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.fail(ready(engine)["a"], code="E-RUN-012")
    assert engine.state(run_id) == "waiting_event"


# ---- pause and resume


def test_a_paused_flow_begins_no_step(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c", "a"))
    engine.worker()
    (first,) = engine.acquire(1).leases
    assert engine.tell("pause", run_id=run_id, reason="stop") == "paused"
    assert ready(engine) == {}
    assert engine.complete(first, output="1") == []
    run = engine.run(run_id)
    assert (run["state"], run["pause_reason"]) == ("paused", "stop")
    assert ready(engine) == {}
    assert set(states(engine, run_id).values()) == {"completed", "waiting", "pending"}
    assert engine.tell("resume", run_id=run_id) == "running"
    assert finish(engine) == [["b", "c"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


def test_pausing_again_is_a_no_op_and_so_is_resuming(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.call("pause", run_id=run_id)
    before = engine.place.rows()
    assert engine.tell("pause", run_id=run_id) == "paused"
    assert engine.place.rows() == before
    engine.call("resume", run_id=run_id)
    before = engine.place.rows()
    assert engine.tell("resume", run_id=run_id) == "running"
    assert engine.place.rows() == before


def test_what_ended_while_a_flow_was_paused_counts_when_it_is_resumed(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c", "a", "b"))
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    engine.complete(leases["a"])
    engine.complete(leases["b"])
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["c"]]


def test_a_flow_whose_last_step_ended_while_it_was_paused_ends_when_resumed(
    engine: Engine,
) -> None:
    run_id = started(engine, step("a"))
    lease = ready(engine)["a"]
    engine.call("pause", run_id=run_id)
    engine.complete(lease, output="1")
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "completed"
    assert engine.run(run_id)["output"] == {"a": 1}


def test_a_flow_whose_step_failed_while_it_was_paused_fails_when_resumed(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"))
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    engine.fail(leases["a"], retries=[False])
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "failed"
    assert engine.run(run_id)["error_detail"] == "step a: boom"


def test_a_task_of_a_paused_flow_can_be_decided(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    lease = ready(engine)["a"]
    engine.park(lease)
    engine.call("pause", run_id=run_id)
    engine.approve(engine.task(lease.run_id))
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "running"


def test_a_flow_that_waited_when_it_was_paused_waits_again(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.park(ready(engine)["a"])
    engine.call("pause", run_id=run_id)
    assert engine.tell("resume", run_id=run_id) == "waiting_approval"


def test_a_step_that_was_paused_by_itself_stays_paused(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"))
    engine.call("pause", run_id=step_run(engine, run_id, "a"))
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id)
    assert states(engine, run_id) == {"a": "waiting", "b": "pending"}


def test_a_paused_flow_can_be_cancelled(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.call("pause", run_id=run_id)
    assert engine.tell("cancel", run_id=run_id) == "cancelled"
    assert states(engine, run_id) == {"a": "cancelled"}


def test_a_reason_of_the_engines_own_is_refused(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    with engine.refused("PF101", "reason"):
        engine.call("pause", run_id=run_id, reason="flow")


@pytest.mark.parametrize(
    ("command", "code"),
    [({"resume": 1}, "PF204"), ({"update": {"a": 1}}, "PF204")],
    ids=str,
)
def test_a_running_flow_takes_no_value(engine: Engine, command: Row, code: str) -> None:
    run_id = started(engine, step("a"))
    with engine.refused(code):
        engine.call("resume", run_id=run_id, command=command)
