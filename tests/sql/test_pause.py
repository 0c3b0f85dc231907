"""pause and resume: a live run stops, and goes on where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine

LIVE = ["scheduled", "pending", "running", "waiting_tool", "waiting_approval", "waiting_event"]
RESUMED = {
    "scheduled": "scheduled",
    "pending": "pending",
    "running": "pending",
    "waiting_approval": "waiting_approval",
}


@pytest.mark.parametrize("state", LIVE)
def test_a_live_run_is_paused_in_every_state(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    assert engine.tell("pause", run_id=run_id, reason="lunch") == "paused"
    run = engine.run(run_id)
    assert (run["state"], run["pause_reason"], run["worker_id"]) == ("paused", "lunch", None)
    assert run["attempt_count"] == 0
    event = engine.timeline(run_id)[-1]
    assert (event["type"], event["by"]) == ("run.paused", "postgres")
    assert event["payload"] == {"from": state, "reason": "lunch"}


@pytest.mark.parametrize("state", LIVE)
def test_pausing_again_is_harmless(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    engine.call("pause", run_id=run_id, reason="first")
    before = engine.place.rows()
    assert engine.tell("pause", run_id=run_id, reason="second") == "paused"
    assert engine.place.rows() == before


@pytest.mark.parametrize("state", RESUMED)
def test_a_resumed_run_goes_on_where_it_was(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    engine.call("pause", run_id=run_id)
    assert engine.tell("resume", run_id=run_id) == RESUMED[state]
    run = engine.run(run_id)
    assert (run["state"], run["pause_reason"]) == (RESUMED[state], None)
    event = engine.timeline(run_id)[-1]
    assert (event["type"], event["payload"]) == ("run.resumed", {"to": RESUMED[state]})


@pytest.mark.parametrize("state", LIVE)
def test_resuming_a_run_that_is_not_paused_does_nothing(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    before = engine.place.rows()
    assert engine.tell("resume", run_id=run_id) == state
    assert engine.place.rows() == before


def test_resuming_twice_is_resuming_once(engine: Engine) -> None:
    run_id = engine.put("running")
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id)
    before = engine.place.rows()
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert engine.place.rows() == before


@pytest.mark.parametrize("verb", ["pause", "resume"])
@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_a_finished_run_is_refused(engine: Engine, verb: str, state: str) -> None:
    lease = engine.leased()
    if state == "completed":
        engine.complete(lease)
    elif state == "failed":
        engine.fail(lease, retries=[False])
    else:
        engine.call("cancel", run_id=lease.run_id)
    with engine.refused("PF202", "run_id") as refused:
        engine.call(verb, run_id=lease.run_id)
    assert "already finished" in str(refused.value)
    assert f'"from_state" : "{state}"' in str(refused.value.diag.message_detail)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_an_unknown_run_is_refused(engine: Engine, verb: str) -> None:
    with engine.refused("PF102", "run_id"):
        engine.call(verb, run_id=uuid4())


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_run_of_another_project_is_as_unknown(engine: Engine, verb: str) -> None:
    engine.tell("create_project", project="acme")
    run_id = engine.enqueue()
    with engine.refused("PF102", "run_id"):
        engine.call(verb, run_id=run_id, project="acme")


@pytest.mark.parametrize("command", ["null", "{}", '{"goto": "x"}', '{"continue": false}', '"go"'])
def test_a_command_that_is_not_known_is_refused(engine: Engine, command: str) -> None:
    run_id = engine.put("pending")
    engine.call("pause", run_id=run_id)
    with engine.refused("PF101", "command"):
        engine.rows("select pgflow.resume(%s, %s)", run_id, command)


def test_no_command_is_refused_too(engine: Engine) -> None:
    run_id = engine.put("pending")
    engine.call("pause", run_id=run_id)
    with engine.refused("PF101", "command"):
        engine.rows("select pgflow.resume(%s, null)", run_id)


def test_a_paused_run_is_never_leased(engine: Engine) -> None:
    engine.worker()
    for state in LIVE:
        engine.call("pause", run_id=engine.put(state))
    engine.later(hours=2)
    engine.tick()
    assert engine.acquire().leases == []


def test_a_run_paused_under_its_worker_uses_no_attempt(engine: Engine) -> None:
    lease = engine.leased()
    engine.call("pause", run_id=lease.run_id)
    (line,) = engine.complete(lease)
    assert (line["outcome"], line["state"]) == ("lost", "paused")
    engine.call("resume", run_id=lease.run_id)
    again = engine.lease_of(lease.run_id)
    assert (again.lease_no, again.body["attempt"]) == (2, 0)


def test_what_was_decided_while_paused_makes_the_run_pending(engine: Engine) -> None:
    run_id = engine.put("waiting_approval")
    engine.call("pause", run_id=run_id)
    engine.approve(engine.task(run_id))
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert engine.run(run_id)["waits_for"] is None
    engine.complete(engine.lease_of(run_id))
    assert engine.state(run_id) == "completed"


def test_a_run_that_waits_for_two_waits_on_when_one_came_while_paused(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"})
    engine.call("pause", run_id=run_id)
    engine.approve(engine.task(run_id, "a"))
    assert engine.tell("resume", run_id=run_id) == "waiting_approval"
    engine.approve(engine.task(run_id, "b"))
    assert engine.state(run_id) == "pending"


def test_a_run_that_waits_for_any_goes_on_when_one_came_while_paused(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    engine.call("pause", run_id=run_id)
    engine.approve(engine.task(run_id, "b"))
    assert engine.tell("resume", run_id=run_id) == "pending"


def test_a_scheduled_run_whose_time_came_while_paused_is_pending_at_resume(engine: Engine) -> None:
    run_id = engine.put("scheduled")
    engine.call("pause", run_id=run_id)
    engine.later(hours=2)
    engine.tick()
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "pending"
    engine.worker()
    engine.lease_of(run_id)


def test_a_retry_that_was_put_off_is_put_off_still_when_resumed(engine: Engine) -> None:
    lease = engine.leased()
    engine.fail(lease)
    engine.call("pause", run_id=lease.run_id)
    assert engine.tell("resume", run_id=lease.run_id) == "scheduled"
    engine.later(seconds=2)
    engine.tick()
    assert engine.state(lease.run_id) == "pending"


def test_a_resumed_run_comes_before_new_work(engine: Engine) -> None:
    run_id = engine.put("running")
    engine.call("pause", run_id=run_id)
    engine.enqueue()
    engine.call("resume", run_id=run_id)
    assert engine.acquire(1).run_ids == [run_id]


def test_a_long_reason_is_cut(engine: Engine) -> None:
    run_id = engine.enqueue()
    engine.call("pause", run_id=run_id, reason="r" * 100_000)
    assert len(engine.run(run_id)["pause_reason"]) == 1000


def test_without_a_reason_it_was_an_operator(engine: Engine) -> None:
    run_id = engine.enqueue()
    engine.call("pause", run_id=run_id)
    assert engine.run(run_id)["pause_reason"] == "operator"
