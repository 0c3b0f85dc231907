"""What ends by time: runs by their deadline, approvals by their due time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.sql.waits import event

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine

STATES = [
    "scheduled",
    "pending",
    "running",
    "waiting_tool",
    "waiting_approval",
    "waiting_event",
]


def put(engine: Engine, state: str) -> UUID:
    """Bring a run with a deadline in 10 minutes into a live state."""
    engine.call("define_queue", queue="default", lease_ttl=timedelta(hours=1))
    return engine.put(state, deadline=engine.now + timedelta(minutes=10))


@pytest.mark.parametrize("state", STATES)
def test_a_deadline_ends_a_run_in_every_live_state(engine: Engine, state: str) -> None:
    run_id = put(engine, state)
    engine.later(minutes=9)
    assert engine.tick()["expired"] == 0
    engine.later(minutes=1)
    assert engine.tick()["expired"] == 1
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("timeout", "E-RUN-003")
    assert f"while {state}" in run["error_detail"]
    assert engine.types(run_id)[-1] == "run.timed_out"


def test_a_deadline_that_passes_while_paused_takes_effect_at_resume(engine: Engine) -> None:
    run_id = put(engine, "paused")
    engine.later(minutes=10)
    assert engine.tick()["expired"] == 0
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "timeout"
    run = engine.run(run_id)
    assert (run["error_code"], "while paused" in run["error_detail"]) == ("E-RUN-003", True)


def test_a_paused_run_past_its_deadline_is_no_reason_to_tick_at_every_look(engine: Engine) -> None:
    put(engine, "paused")
    engine.later(minutes=10)
    engine.tick()
    assert (
        engine.value("select last_at from pgflow.tick where project_id = 'default'") == engine.now
    )


def test_at_resume_the_deadline_comes_before_what_else_was_due(engine: Engine) -> None:
    run_id = engine.waiting(
        {"key": "ok", "due_in": 60}, deadline=engine.now + timedelta(minutes=10)
    )
    engine.call("pause", run_id=run_id)
    engine.later(minutes=10)
    assert engine.tell("resume", run_id=run_id) == "timeout"
    assert "task.expired" not in engine.types(run_id)


def test_the_deadline_of_a_paused_parent_ends_its_children_with_it(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"kind": "run", "key": "c", "handler": "part"})
    deadline = engine.now + timedelta(minutes=1)
    engine.rows("update pgflow.run set deadline = %s where run_id = %s", deadline, lease.run_id)
    engine.call("pause", run_id=lease.run_id)
    engine.later(minutes=1)
    assert engine.tell("resume", run_id=lease.run_id) == "timeout"
    (row,) = engine.rows(
        "select state, error_code from pgflow.runs where parent_run_id = %s", lease.run_id
    )
    assert row == {"state": "cancelled", "error_code": "E-RUN-011"}


@pytest.mark.parametrize("kind", ["interrupt", "breakpoint"])
def test_a_deadline_ends_a_run_that_stands_at_an_interrupt_or_a_breakpoint(
    engine: Engine, kind: str
) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(minutes=10))
    stop = {"kind": kind, "key": "breakpoint/before/i", "when": "before"}
    assert engine.park(lease, stop, event("e"))["outcome"] == "done"
    engine.later(minutes=10)
    assert engine.tick()["expired"] == 1
    assert engine.state(lease.run_id) == "timeout"


def test_a_deadline_closes_the_open_tasks(engine: Engine) -> None:
    run_id = put(engine, "waiting_approval")
    engine.later(minutes=10)
    engine.tick()
    with engine.refused("PF202"):
        engine.approve(engine.task(run_id))


def test_a_handler_whose_run_has_timed_out_cannot_complete_it(engine: Engine) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(seconds=30))
    engine.later(seconds=30)
    engine.tick()
    (line,) = engine.complete(lease)
    assert (line["outcome"], line["state"]) == ("lost", "timeout")


def test_a_look_for_work_ends_what_is_due(engine: Engine) -> None:
    engine.worker()
    engine.acquire()
    run_id = engine.enqueue(deadline=engine.now + timedelta(seconds=3))
    engine.later(seconds=3)
    assert engine.acquire().leases == []
    assert engine.state(run_id) == "timeout"


def test_a_run_that_ended_in_time_is_left_alone(engine: Engine) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(seconds=30))
    engine.complete(lease)
    engine.later(minutes=1)
    assert engine.tick()["expired"] == 0
    assert engine.state(lease.run_id) == "completed"


# ---- approvals


@pytest.mark.parametrize(
    ("policy", "state"), [(None, "cancelled"), ("cancel", "cancelled"), ("timeout", "timeout")]
)
def test_an_approval_that_nobody_gave_in_time_ends_the_run_by_its_policy(
    engine: Engine, policy: str | None, state: str
) -> None:
    run_id = engine.waiting({"key": "ok", "title": "Publish?", "due_in": 60, "policy": policy})
    engine.later(seconds=59)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == (state, "E-RUN-007")
    assert run["error_detail"].startswith("Publish?: nobody decided before")


def test_an_expired_task_is_never_shown_as_a_denial(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a", "due_in": 60}, {"key": "b"})
    engine.later(seconds=60)
    engine.tick()
    tasks = engine.rows(
        "select step, state, decided_by from pgflow.task_history where run_id = %s order by 1",
        run_id,
    )
    assert [tuple(task.values()) for task in tasks] == [
        ("a", "expired", None),
        ("b", "cancelled", None),
    ]
    expired, end = engine.timeline(run_id)[-2:]
    assert (expired["type"], expired["payload"]["key"]) == ("task.expired", "a")
    assert (end["type"], end["by"]) == ("run.cancelled", "pgflow")


def test_an_approval_in_time_stops_the_clock(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    engine.later(seconds=59)
    engine.approve(engine.task(run_id))
    engine.later(minutes=5)
    assert engine.tick()["expired"] == 0
    assert engine.state(run_id) == "pending"


def test_a_due_time_that_passes_while_paused_takes_effect_at_resume(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    engine.call("pause", run_id=run_id)
    engine.later(minutes=5)
    assert engine.tick()["expired"] == 0
    assert engine.state(run_id) == "paused"
    engine.call("resume", run_id=run_id)
    engine.tick()
    assert engine.run(run_id)["error_code"] == "E-RUN-007"


def test_a_paused_run_that_is_overdue_holds_nobody_elses_expiry_up(engine: Engine) -> None:
    paused = [engine.waiting({"key": "ok", "due_in": 60}) for _ in range(3)]
    for run_id in paused:
        engine.call("pause", run_id=run_id)
    due = engine.waiting({"key": "ok", "due_in": 90})
    engine.later(minutes=5)
    assert engine.tick()["expired"] == 1
    assert engine.run(due)["error_code"] == "E-RUN-007"


def test_the_due_time_of_a_task_that_the_run_no_longer_waits_for_does_not_end_it(
    engine: Engine,
) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b", "due_in": 60}, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    lease = engine.lease_of(run_id)
    engine.later(seconds=60)
    engine.tick()
    assert engine.state(run_id) == "running"
    assert engine.complete(lease) == []


@pytest.mark.parametrize(
    ("policy", "state"), [("cancel", "cancelled"), ("timeout", "timeout"), ("approve", "pending")]
)
def test_a_task_that_came_due_while_the_handler_ran_is_seen_to_when_it_parks(
    engine: Engine, policy: str, state: str
) -> None:
    asked = {"key": "b", "due_in": 60, "policy": policy}
    run_id = engine.waiting({"key": "a"}, asked, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    lease = engine.lease_of(run_id)
    engine.later(seconds=60)
    engine.tick()
    assert engine.park(lease, asked, news=1)["outcome"] == "done"
    assert engine.state(run_id) == state
    history = "select state from pgflow.task_history where run_id = %s and step = 'b'"
    assert engine.value(history, run_id) == "expired"


def test_a_task_that_came_due_and_is_not_waited_for_any_more_ends_nothing(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b", "due_in": 60}, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    lease = engine.lease_of(run_id)
    engine.later(seconds=60)
    assert engine.park(lease, {"key": "c"}, news=1)["outcome"] == "done"
    assert engine.state(run_id) == "waiting_approval"


def test_both_of_two_tasks_that_are_due_at_once_end_the_run_once(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a", "due_in": 60}, {"key": "b", "due_in": 60})
    engine.later(minutes=5)
    assert engine.tick()["expired"] == 1
    assert engine.types(run_id).count("task.expired") == 1
    assert engine.state(run_id) == "cancelled"


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_hundreds_of_overdue_paused_runs_do_not_keep_the_others_from_expiring(
    engine: Engine,
) -> None:
    engine.worker()
    engine.enqueue_many([{}] * 501)
    leases = engine.acquire(501).leases
    for lease in leases:
        engine.park(lease, {"key": "ok", "due_in": 60})
    for lease in leases[:-1]:
        engine.call("pause", run_id=lease.run_id)
    engine.later(minutes=5)
    for _ in range(3):
        engine.tick()
    assert engine.run(leases[-1].run_id)["error_code"] == "E-RUN-007"


@pytest.mark.parametrize("first", ["cancel", "timeout"])
def test_of_two_overdue_tasks_the_one_that_was_due_first_ends_the_run(
    engine: Engine, first: str
) -> None:
    second = "cancel" if first == "timeout" else "timeout"
    run_id = engine.waiting(
        {"key": "a", "due_in": 60, "policy": second},
        {"key": "b", "due_in": 30, "policy": first},
        {"key": "c", "due_in": 90, "policy": second},
    )
    engine.later(minutes=2)
    assert engine.tick()["expired"] == 1
    assert engine.state(run_id) == {"cancel": "cancelled", "timeout": "timeout"}[first]
    states = engine.rows("select state from pgflow.task where run_id = %s order by key", run_id)
    assert [row["state"] for row in states] == ["cancelled", "expired", "cancelled"]
