"""What becomes of a run when the due time of its task passes undecided."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Row

DUE = 60
ESCALATE: dict[str, Any] = {"policy": "escalate", "escalate_to": "boss", "escalate_in": 600}


def asked(engine: Engine, policy: str = "cancel", **more: Any) -> UUID:
    return engine.waiting({"key": "ok", "due_in": DUE, "policy": policy, **more})


def expire(engine: Engine, expired: int = 1) -> None:
    engine.later(seconds=DUE)
    assert engine.tick()["expired"] == expired


def task(engine: Engine, run_id: UUID) -> Row:
    return engine.one("select * from pgflow.task where run_id = %s and key = 'ok'", run_id)


@pytest.mark.parametrize("on_reject", ["cancel", "fail", "resume"])
@pytest.mark.parametrize(("policy", "state"), [("cancel", "cancelled"), ("timeout", "timeout")])
def test_the_run_ends_as_the_policy_says(
    engine: Engine, policy: str, state: str, on_reject: str
) -> None:
    run_id = asked(engine, policy, on_reject=on_reject)
    expire(engine)
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == (state, "E-RUN-007")
    assert "nobody decided before" in run["error_detail"]
    assert task(engine, run_id)["state"] == "expired"


@pytest.mark.parametrize(("on_reject", "state"), [("cancel", "cancelled"), ("fail", "failed")])
def test_the_policy_reject_ends_the_run_and_does_not_call_it_a_rejection(
    engine: Engine, on_reject: str, state: str
) -> None:
    run_id = asked(engine, "reject", on_reject=on_reject)
    expire(engine)
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == (state, "E-RUN-007")
    assert "rejected" not in run["error_detail"]


@pytest.mark.parametrize(
    ("request_", "approved"),
    [({"policy": "reject", "on_reject": "resume"}, False), ({"policy": "approve"}, True)],
    ids=["reject", "approve"],
)
def test_a_handler_that_goes_on_learns_that_nobody_decided(
    engine: Engine, request_: Row, *, approved: bool
) -> None:
    run_id = asked(engine, **request_)
    expire(engine)
    (entry,) = engine.lease_of(run_id).body["journal"]
    value = entry["value"]
    assert (value["action"], value["approved"]) == ("expired", approved)
    assert "decided_by" not in value
    assert task(engine, run_id)["decided_by"] is None


@pytest.mark.parametrize("policy", ["cancel", "timeout", "approve", "reject"])
def test_the_timeline_tells_the_expiry_and_no_decision(engine: Engine, policy: str) -> None:
    run_id = asked(engine, policy)
    expire(engine)
    types = engine.types(run_id)
    assert types.count("task.expired") == 1
    assert "task.resolved" not in types
    expired = next(line for line in engine.timeline(run_id) if line["type"] == "task.expired")
    assert expired["payload"]["policy"] == policy


@pytest.mark.parametrize("policy", ["cancel", "timeout", "approve", "reject"])
@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize("ticked", [False, True], ids=["not seen to", "seen to"])
def test_what_has_expired_cannot_be_decided(
    engine: Engine, policy: str, verb: str, *, ticked: bool
) -> None:
    run_id = asked(engine, policy)
    engine.later(seconds=DUE)
    if ticked:
        engine.tick()
    with engine.refused("PF402", "task_id") as refused:
        engine.call(verb, task_id=engine.task(run_id))
    assert "expired" in str(refused.value)


def test_the_history_says_expired(engine: Engine) -> None:
    run_id = asked(engine, "reject")
    expire(engine)
    history = engine.one("select * from pgflow.task_history where run_id = %s", run_id)
    assert (history["state"], history["decided_at"]) == ("expired", None)


def test_a_tick_before_the_due_time_does_nothing(engine: Engine) -> None:
    run_id = asked(engine)
    engine.later(seconds=DUE - 0.001)
    assert engine.tick()["expired"] == 0
    assert engine.state(run_id) == "waiting_approval"


def test_a_worker_that_looks_for_work_sees_to_the_due_time(engine: Engine) -> None:
    run_id = asked(engine)
    engine.acquire()
    engine.later(seconds=DUE)
    engine.acquire()
    assert engine.state(run_id) == "cancelled"


def test_other_tasks_of_the_run_are_closed(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": DUE}, {"key": "b"})
    expire(engine)
    assert (
        engine.value("select state from pgflow.task where run_id = %s and key = 'b'", run_id)
        == "cancelled"
    )


def test_one_of_several_that_expires_as_approved_is_not_enough(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": DUE, "policy": "approve"}, {"key": "b"})
    expire(engine)
    assert engine.state(run_id) == "waiting_approval"
    engine.approve(engine.task(run_id, "b"))
    assert engine.state(run_id) == "pending"


@pytest.mark.parametrize("kind", ["form", "input"])
@pytest.mark.parametrize(("policy", "state"), [("cancel", "cancelled"), ("timeout", "timeout")])
def test_forms_and_inputs_expire_as_well(
    engine: Engine, kind: str, policy: str, state: str
) -> None:
    run_id = asked(engine, policy, kind=kind, form={"type": "object"})
    expire(engine)
    assert (engine.state(run_id), engine.run(run_id)["error_code"]) == (state, "E-RUN-007")


# ---- escalate


def test_an_escalated_task_goes_to_the_other_role_for_another_time(engine: Engine) -> None:
    run_id = asked(engine, **ESCALATE, assignee="ann", assignee_role="editors")
    engine.call("claim_task", task_id=engine.task(run_id))
    expire(engine)
    after = task(engine, run_id)
    assert (after["state"], after["assignee"], after["assignee_role"]) == ("open", None, "boss")
    assert (after["claimed_by"], after["policy"]) == (None, "cancel")
    assert after["due_at"] == engine.now + timedelta(seconds=600)
    line = engine.timeline(run_id)[-1]
    assert (line["type"], line["payload"]["from"], line["payload"]["to"]) == (
        "task.escalated",
        "ann",
        "boss",
    )
    assert engine.state(run_id) == "waiting_approval"


def test_an_escalated_task_can_be_decided(engine: Engine) -> None:
    run_id = asked(engine, **ESCALATE)
    expire(engine)
    assert engine.approve(engine.task(run_id))["repeated"] is False
    assert engine.state(run_id) == "pending"


def test_an_escalated_task_escalates_once_and_then_cancels(engine: Engine) -> None:
    run_id = asked(engine, **ESCALATE)
    expire(engine)
    engine.later(seconds=599)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-007")


def test_asking_again_finds_the_escalated_task(engine: Engine) -> None:
    ask = {"key": "ok", "due_in": DUE, "assignee_role": "editors", **ESCALATE}
    run_id = engine.waiting(ask, {"key": "b"}, wait_any=True)
    expire(engine)
    engine.approve(engine.task(run_id, "b"))
    assert engine.park(engine.lease_of(run_id), ask, news=1)["outcome"] == "done"
    assert task(engine, run_id)["assignee_role"] == "boss"


def test_between_the_due_time_and_the_escalation_nobody_decides(engine: Engine) -> None:
    run_id = asked(engine, **ESCALATE)
    engine.later(seconds=DUE)
    with engine.refused("PF402", "task_id"):
        engine.approve(engine.task(run_id))


# ---- when the run does not wait for it


@pytest.mark.parametrize("policy", ["cancel", "approve", "reject"])
def test_a_paused_run_is_left_alone_and_seen_to_when_it_is_resumed(
    engine: Engine, policy: str
) -> None:
    run_id = asked(engine, policy)
    engine.call("pause", run_id=run_id)
    expire(engine, 0)
    assert (engine.state(run_id), task(engine, run_id)["state"]) == ("paused", "open")
    after = "pending" if policy == "approve" else "cancelled"
    assert engine.tell("resume", run_id=run_id) == after
    assert task(engine, run_id)["state"] == "expired"
    engine.timeline(run_id)


def test_when_it_is_resumed_the_task_that_was_due_first_says_how_it_ends(engine: Engine) -> None:
    later = {"key": "later", "due_in": DUE, "policy": "timeout"}
    run_id = engine.waiting(later, {"key": "ok", "due_in": DUE - 1})
    engine.call("pause", run_id=run_id)
    expire(engine, 0)
    assert engine.tell("resume", run_id=run_id) == "cancelled"
    assert task(engine, run_id)["state"] == "expired"


def test_a_paused_run_is_not_decided_after_the_due_time(engine: Engine) -> None:
    run_id = asked(engine)
    engine.call("pause", run_id=run_id)
    engine.later(seconds=DUE)
    with engine.refused("PF402", "task_id"):
        engine.approve(engine.task(run_id))


def test_a_paused_run_that_is_resumed_in_time_expires_later(engine: Engine) -> None:
    run_id = asked(engine)
    engine.call("pause", run_id=run_id)
    assert engine.tell("resume", run_id=run_id) == "waiting_approval"
    expire(engine)
    assert engine.state(run_id) == "cancelled"


def test_an_escalation_of_a_paused_run_comes_with_its_resume(engine: Engine) -> None:
    run_id = asked(engine, **ESCALATE)
    engine.call("pause", run_id=run_id)
    expire(engine, 0)
    assert engine.tell("resume", run_id=run_id) == "waiting_approval"
    assert task(engine, run_id)["assignee_role"] == "boss"


def test_a_running_run_is_not_ended_by_the_loser_of_a_race(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": DUE}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "b"))
    lease = engine.lease_of(run_id)
    expire(engine, 0)
    assert engine.state(run_id) == "running"
    engine.beat(lease)
    assert engine.park(lease, {"key": "c"}, news=1)["outcome"] == "done"
    assert task(engine, run_id)["state"] == "cancelled"


def test_what_is_asked_for_again_after_its_due_time_expires_then(engine: Engine) -> None:
    ask = {"key": "ok", "due_in": DUE}
    run_id = engine.waiting(ask, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "b"))
    lease = engine.lease_of(run_id)
    engine.later(seconds=DUE - 1)
    engine.beat(lease)
    engine.later(seconds=1)
    assert engine.park(lease, ask, news=1)["outcome"] == "done"
    assert engine.tick()["expired"] == 0  # it is seen to already
    assert engine.run(run_id)["error_code"] == "E-RUN-007"


def test_what_stands_beside_an_interrupt_expires_once_that_is_passed(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"key": "i", "kind": "interrupt"}, {"key": "ok", "due_in": DUE})
    expire(engine, 0)
    assert engine.state(lease.run_id) == "paused"
    assert engine.tell("resume", run_id=lease.run_id) == "cancelled"
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-007"


def test_a_timeout_and_a_due_time_that_passed_while_paused_both_take_effect(
    engine: Engine,
) -> None:
    nap = {"key": "nap", "kind": "sleep", "seconds": 30}
    run_id = engine.waiting({"key": "ok", "due_in": DUE}, nap)
    engine.call("pause", run_id=run_id)
    expire(engine, 0)
    assert engine.tell("resume", run_id=run_id) == "cancelled"
    types = engine.types(run_id)
    assert types[-4:] == ["run.resumed", "wait.timed_out", "task.expired", "run.cancelled"]
