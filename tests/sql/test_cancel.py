"""cancel: any live state -> cancelled."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease

LIVE = [
    "scheduled",
    "pending",
    "running",
    "waiting_tool",
    "waiting_approval",
    "waiting_event",
    "paused",
]
ENDS = ["completed", "failed", "cancelled", "timeout"]


def end(engine: Engine, state: str) -> UUID:
    """Bring a new run to an end."""
    lease: Lease = engine.leased(deadline=engine.now + timedelta(seconds=30))
    if state == "completed":
        engine.complete(lease)
    elif state == "failed":
        engine.fail(lease, retries=[False])
    elif state == "cancelled":
        engine.call("cancel", run_id=lease.run_id)
    else:
        engine.later(seconds=30)
        engine.tick()
    assert engine.state(lease.run_id) == state
    return lease.run_id


@pytest.mark.parametrize("state", LIVE)
def test_a_live_run_is_cancelled_at_once_in_every_state(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    assert engine.tell("cancel", run_id=run_id, reason="not needed") == "cancelled"
    run = engine.run(run_id)
    assert (run["state"], run["error_code"], run["ended_by"]) == ("cancelled", None, "postgres")
    assert run["error_detail"] == "Execution cancelled: not needed"
    assert run["finished_at"] == engine.now
    end_line = engine.timeline(run_id)[-1]
    assert (end_line["type"], end_line["by"]) == ("run.cancelled", "postgres")


@pytest.mark.parametrize("state", LIVE)
def test_cancelling_again_is_harmless(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    engine.call("cancel", run_id=run_id, reason="first")
    before = engine.place.rows()
    assert engine.tell("cancel", run_id=run_id, reason="second") == "cancelled"
    assert engine.place.rows() == before


@pytest.mark.parametrize("state", ENDS)
def test_cancelling_a_finished_run_does_nothing_and_tells_its_state(
    engine: Engine, state: str
) -> None:
    run_id = end(engine, state)
    before = engine.place.rows()
    assert engine.tell("cancel", run_id=run_id) == state
    assert engine.place.rows() == before


def test_without_a_reason_it_says_so_much(engine: Engine) -> None:
    run_id = engine.enqueue()
    engine.call("cancel", run_id=run_id)
    assert engine.run(run_id)["error_detail"] == "Execution cancelled"


def test_a_long_reason_is_cut(engine: Engine) -> None:
    run_id = engine.enqueue()
    engine.call("cancel", run_id=run_id, reason="r" * 100_000)
    assert len(engine.run(run_id)["error_detail"]) < 1100


def test_its_open_tasks_are_closed(engine: Engine) -> None:
    run_id = engine.put("waiting_approval")
    task_id = engine.task(run_id)
    engine.call("cancel", run_id=run_id)
    assert engine.rows("select 1 from pgflow.inbox where task_id = %s", task_id) == []
    state = engine.value("select state from pgflow.task_history where task_id = %s", task_id)
    assert state == "cancelled"


def test_its_decided_tasks_stay_as_they_were_decided(engine: Engine) -> None:
    run_id = engine.put("waiting_approval")
    task_id = engine.task(run_id)
    engine.approve(task_id)
    engine.call("cancel", run_id=run_id)
    state = engine.value("select state from pgflow.task_history where task_id = %s", task_id)
    assert state == "approved"


def test_a_cancelled_run_is_never_leased_again(engine: Engine) -> None:
    engine.worker()
    for state in LIVE:
        engine.call("cancel", run_id=engine.put(state))
    engine.later(hours=2)
    engine.tick()
    assert engine.acquire().leases == []


@pytest.mark.parametrize("nobodys", [uuid4(), None], ids=["unknown", "none"])
def test_an_unknown_run_is_refused(engine: Engine, nobodys: UUID | None) -> None:
    with engine.refused("PF102", "run_id"):
        engine.call("cancel", run_id=nobodys)


def test_a_run_of_another_project_is_as_unknown(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    run_id = engine.enqueue()
    with engine.refused("PF102", "run_id"):
        engine.call("cancel", run_id=run_id, project="acme")
    assert engine.state(run_id) == "pending"
