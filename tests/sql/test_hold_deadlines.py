"""hold_deadlines: while a run is paused so, its deadlines stand still."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.sql.flows import finish, gate, ready, started, states, step, step_run, task_of
from tests.sql.test_interrupts import breakpoint_, stopped
from tests.sql.waits import child, entry, event, part, sleep, tool

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row

WAITS = {"tool": tool("x"), "event": event("x"), "sleep beside another": sleep(60, "x")}


def hold(engine: Engine, run_id: UUID, **more: Any) -> None:
    """Pause a run, its deadlines held, for ten minutes."""
    assert engine.tell("pause", run_id=run_id, hold_deadlines=True, **more) == "paused"
    engine.later(minutes=10)
    assert engine.tick()["expired"] == 0
    assert engine.state(run_id) == "paused"


def resume(engine: Engine, run_id: UUID) -> str:
    return str(engine.tell("resume", run_id=run_id))


# ---- each deadline


@pytest.mark.parametrize("state", ["scheduled", "pending", "running", "waiting_approval"])
def test_the_deadline_of_the_run_is_moved_on_by_the_pause(engine: Engine, state: str) -> None:
    deadline = engine.now + timedelta(minutes=5)
    run_id = engine.put(state, deadline=deadline)
    engine.later(minutes=1)
    hold(engine, run_id)
    resume(engine, run_id)
    run = engine.run(run_id)
    assert (run["deadline"], run["deadlines_held_at"]) == (deadline + timedelta(minutes=10), None)
    engine.later(minutes=4, seconds=-1)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1
    assert engine.state(run_id) == "timeout"


@pytest.mark.parametrize("wait", WAITS)
def test_the_timeout_of_a_wait_is_moved_on(engine: Engine, wait: str) -> None:
    lease = engine.leased()
    timeout = {} if "seconds" in WAITS[wait] else {"timeout": 60}
    engine.park(lease, {**WAITS[wait], **timeout}, event("other"), wait_any=True)
    engine.later(seconds=20)
    hold(engine, lease.run_id)
    assert resume(engine, lease.run_id).startswith("waiting")
    engine.later(seconds=39)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1
    assert engine.state(lease.run_id) == "pending"


@pytest.mark.parametrize(("policy", "state"), [("cancel", "cancelled"), ("timeout", "timeout")])
def test_the_due_time_of_a_task_is_moved_on(engine: Engine, policy: str, state: str) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60, "policy": policy})
    engine.later(seconds=20)
    hold(engine, run_id)
    assert resume(engine, run_id) == "waiting_approval"
    engine.later(seconds=39)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1
    assert engine.state(run_id) == state


def test_an_escalation_is_moved_on(engine: Engine) -> None:
    escalation = {"policy": "escalate", "escalate_to": "bosses", "escalate_in": 60}
    run_id = engine.waiting({"key": "ok", "due_in": 60, **escalation})
    hold(engine, run_id)
    resume(engine, run_id)
    engine.later(seconds=59)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1
    assert "task.escalated" in engine.types(run_id)


def test_a_wait_that_the_handler_has_left_open_is_moved_on_too(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, tool("x", timeout=60), event("go"), wait_any=True)
    engine.call("signal", run_id=lease.run_id, name="go")
    hold(engine, lease.run_id)
    resume(engine, lease.run_id)
    engine.park(engine.lease_of(lease.run_id), tool("x", timeout=60), news=1)
    engine.later(seconds=59)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1


def test_a_start_in_the_future_and_a_sleep_are_no_deadlines(engine: Engine) -> None:
    later = engine.enqueue(run_at=engine.now + timedelta(minutes=5))
    lease = engine.leased()
    engine.park(lease, sleep(300))
    engine.call("pause", run_id=later, hold_deadlines=True)
    hold(engine, lease.run_id)
    assert [resume(engine, run_id) for run_id in (later, lease.run_id)] == ["pending"] * 2


def test_the_waits_of_a_run_keep_their_order_and_what_else_they_say(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, tool("x", timeout=60, digest="aa"), child("c"), event("a", timeout=90))
    before = engine.row(lease.run_id)["waits"]
    hold(engine, lease.run_id)
    resume(engine, lease.run_id)
    after = engine.row(lease.run_id)["waits"]
    assert [list(wait) for wait in after] == [list(wait) for wait in before]
    assert [{**wait, "due_at": 0} for wait in after] == [{**wait, "due_at": 0} for wait in before]


# ---- what happens meanwhile


def test_a_task_can_be_decided_though_its_due_time_has_passed(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    hold(engine, run_id)
    task = engine.task(run_id)
    assert engine.tell("claim_task", task_id=task) == "postgres"
    assert engine.approve(task)["action"] == "approved"
    assert resume(engine, run_id) == "pending"


def test_a_task_that_expired_before_the_hold_cannot(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    engine.later(seconds=60)
    hold(engine, run_id)
    with engine.refused("PF402", "task_id"):
        engine.approve(engine.task(run_id))
    assert resume(engine, run_id) == "cancelled"
    assert engine.run(run_id)["error_code"] == "E-RUN-007"


def test_the_inbox_says_that_a_due_time_stands_still(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    held_at = engine.now
    hold(engine, run_id)
    look = "select due_at, deadlines_held_at from pgflow.inbox where run_id = %s"
    due_at = held_at + timedelta(seconds=60)
    assert engine.one(look, run_id) == {"due_at": due_at, "deadlines_held_at": held_at}
    assert engine.run(run_id)["deadlines_held_at"] == held_at
    resume(engine, run_id)
    moved = {"due_at": due_at + timedelta(minutes=10), "deadlines_held_at": None}
    assert engine.one(look, run_id) == moved


def test_a_decided_task_keeps_its_due_time(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a", "due_in": 60}, {"key": "b"})
    engine.approve(engine.task(run_id, "a"))
    look = "select due_at from pgflow.task_history where run_id = %s"
    before = engine.value(look, run_id)
    hold(engine, run_id)
    resume(engine, run_id)
    assert engine.value(look, run_id) == before


@pytest.mark.parametrize("wait", [tool("x", timeout=60), event("x", timeout=60)])
def test_what_comes_while_held_is_there_at_resume(engine: Engine, wait: Row) -> None:
    lease = engine.leased()
    engine.park(lease, wait)
    hold(engine, lease.run_id)
    if wait["kind"] == "tool":
        engine.call("resolve_tool", run_id=lease.run_id, key="x")
    else:
        engine.call("signal", run_id=lease.run_id, name="x")
    assert resume(engine, lease.run_id) == "pending"
    assert entry(engine, lease.run_id, "x")["kind"] == wait["kind"]


def test_a_child_has_a_deadline_of_its_own(engine: Engine) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(minutes=5))
    engine.park(lease, child())
    engine.tell("pause", run_id=lease.run_id, hold_deadlines=True)
    engine.later(minutes=5)
    assert engine.tick()["expired"] == 1
    assert engine.state(part(engine, lease.run_id)) == "timeout"
    assert engine.state(lease.run_id) == "paused"


@pytest.mark.parametrize("how", ["cancel", "fail", "reject"])
def test_a_run_whose_deadlines_are_held_can_end(engine: Engine, how: str) -> None:
    lease = engine.leased(max_attempts=1)
    engine.park(lease, tool("x"), {"key": "ok", "on_reject": "fail"})
    hold(engine, lease.run_id)
    if how == "cancel":
        engine.call("cancel", run_id=lease.run_id)
    elif how == "fail":
        engine.call("fail_tool", run_id=lease.run_id, key="x", error="broken")
    else:
        engine.reject(engine.task(lease.run_id))
    assert engine.state(lease.run_id) == ("cancelled" if how == "cancel" else "failed")


def test_a_rollback_leaves_a_held_run_held(engine: Engine) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(minutes=5))
    engine.record_steps(lease, draft="1")
    engine.park(lease, {"key": "ok"})
    hold(engine, lease.run_id)
    engine.reject(engine.task(lease.run_id), rollback_to="draft")
    assert engine.tick()["expired"] == 0
    assert resume(engine, lease.run_id) == "pending"


# ---- the verb


def test_the_timeline_tells_the_hold_and_for_how_long(engine: Engine) -> None:
    run_id = engine.waiting()
    hold(engine, run_id, reason="holiday")
    resume(engine, run_id)
    paused, resumed = engine.timeline(run_id)[-2:]
    said = {"from": "waiting_approval", "reason": "holiday", "hold_deadlines": True}
    assert paused["payload"] == said
    assert resumed["payload"] == {"to": "waiting_approval", "deadlines_held_for": 600}


def test_held_twice_they_are_moved_on_twice(engine: Engine) -> None:
    deadline = engine.now + timedelta(minutes=5)
    run_id = engine.enqueue(deadline=deadline)
    for _ in range(2):
        hold(engine, run_id)
        resume(engine, run_id)
    assert engine.run(run_id)["deadline"] == deadline + timedelta(minutes=20)


def test_holding_again_is_harmless(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    hold(engine, run_id)
    before = engine.place.rows()
    for hold_deadlines in (True, False, None):
        more = {"hold_deadlines": hold_deadlines, "reason": "second"}
        assert engine.tell("pause", run_id=run_id, **more) == "paused"
    assert engine.place.rows() == before


def test_the_deadlines_of_a_paused_run_can_be_held_from_now_on(engine: Engine) -> None:
    deadline = engine.now + timedelta(minutes=5)
    run_id = engine.enqueue(deadline=deadline)
    engine.call("pause", run_id=run_id, reason="lunch")
    engine.later(minutes=4)
    hold(engine, run_id)
    assert engine.run(run_id)["pause_reason"] == "lunch"
    assert engine.timeline(run_id)[-1]["payload"]["from"] == "paused"
    resume(engine, run_id)
    assert engine.run(run_id)["deadline"] == deadline + timedelta(minutes=10)


@pytest.mark.parametrize("wait", [None, breakpoint_()])
def test_a_run_that_stands_still_by_itself_is_not_held(engine: Engine, wait: Row | None) -> None:
    run_id = stopped(engine, *([wait] if wait else []))
    with engine.refused("PF101", "hold_deadlines"):
        engine.call("pause", run_id=run_id, hold_deadlines=True)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_day_of_the_pause_is_24_hours_in_every_time_zone(engine: Engine, zone: str) -> None:
    engine.rows("select set_config('timezone', %s, false)", zone)
    deadline = engine.now + timedelta(days=400)
    run_id = engine.enqueue(deadline=deadline)
    engine.call("pause", run_id=run_id, hold_deadlines=True)
    for _ in range(4):  # into each season
        engine.later(days=91)
        resume(engine, run_id)
        deadline += timedelta(days=91)
        assert engine.run(run_id)["deadline"].timestamp() == deadline.timestamp()
        engine.call("pause", run_id=run_id, hold_deadlines=True)


# ---- flows


def test_a_held_flow_holds_the_due_times_of_its_steps(engine: Engine) -> None:
    run_id = started(engine, gate("ok", due_in=3600), step("b"))
    engine.call("pause", run_id=run_id, hold_deadlines=True)
    engine.later(hours=5)
    assert engine.tick()["expired"] == 0
    assert resume(engine, run_id) == "running"
    assert states(engine, run_id) == {"ok": "waiting", "b": "pending"}
    engine.later(minutes=59)
    assert engine.tick()["expired"] == 0
    engine.later(minutes=1)
    assert engine.tick()["expired"] == 1


def test_a_task_of_a_held_flow_can_be_decided_and_counts_at_resume(engine: Engine) -> None:
    run_id = started(engine, gate("ok", due_in=3600))
    engine.call("pause", run_id=run_id, hold_deadlines=True)
    engine.later(hours=5)
    assert engine.approve(task_of(engine, run_id, "ok"))["action"] == "approved"
    assert resume(engine, run_id) == "completed"


def test_a_signal_to_a_held_flow_does_not_end_it_while_steps_are_left(engine: Engine) -> None:
    run_id = started(engine, step("w"), step("last", "w"), step("paid", type="wait_event"))
    lease = ready(engine)["w"]
    engine.call("pause", run_id=run_id, hold_deadlines=True)
    engine.call("signal", run_id=run_id, name="paid")
    engine.complete(lease)
    assert resume(engine, run_id) == "running"
    assert finish(engine) == [["last"]]
    assert engine.state(run_id) == "completed"


def test_the_deadline_of_a_flow_is_moved_on_with_those_of_its_steps(engine: Engine) -> None:
    deadline = engine.now + timedelta(hours=1)
    run_id = started(engine, step("a"), gate("ok"), deadline=deadline)
    engine.call("pause", run_id=run_id, hold_deadlines=True)
    engine.later(hours=5)
    engine.tick()
    resume(engine, run_id)
    for one in (run_id, step_run(engine, run_id, "a"), step_run(engine, run_id, "ok")):
        assert engine.run(one)["deadline"] == deadline + timedelta(hours=5)
    engine.later(hours=1)
    engine.tick()
    assert engine.state(run_id) == "timeout"


def test_the_deadline_of_a_paused_flow_takes_effect_at_resume(engine: Engine) -> None:
    run_id = started(engine, step("a"), deadline=engine.now + timedelta(hours=1))
    engine.call("pause", run_id=run_id)
    engine.later(hours=1)
    assert engine.tick()["expired"] == 0
    assert resume(engine, run_id) == "timeout"
    assert engine.rows("select * from pgflow.run where parent_run_id = %s", run_id) == []


def test_holding_a_flow_that_is_paused_holds_its_steps_from_then_on(engine: Engine) -> None:
    deadline = engine.now + timedelta(hours=9)
    run_id = started(engine, step("a"), gate("ok", due_in=21600), deadline=deadline)
    engine.call("pause", run_id=run_id)
    engine.later(hours=5)
    engine.call("pause", run_id=run_id, hold_deadlines=True)
    engine.later(hours=5)
    assert engine.tick()["expired"] == 0
    resume(engine, run_id)
    for one in (run_id, step_run(engine, run_id, "a"), step_run(engine, run_id, "ok")):
        assert engine.run(one)["deadline"] == deadline + timedelta(hours=5)
    engine.later(hours=1)
    assert engine.tick()["expired"] == 1


def test_a_step_that_runs_while_its_flow_is_held_keeps_its_deadline(engine: Engine) -> None:
    deadline = engine.now + timedelta(hours=1)
    run_id = started(engine, step("a"), step("b", "a"), deadline=deadline)
    lease = ready(engine)["a"]
    engine.call("pause", run_id=run_id, hold_deadlines=True)
    assert engine.run(lease.run_id)["deadline"] == deadline
    assert engine.complete(lease) == []
    engine.later(hours=5)
    resume(engine, run_id)
    moved = deadline + timedelta(hours=5)
    assert engine.run(step_run(engine, run_id, "b"))["deadline"] == moved
