"""retry: a finished run's work again, as a new run."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine


def retry(engine: Engine, run_id: UUID) -> UUID:
    new: UUID = engine.tell("retry", run_id=run_id)
    return new


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "timeout"])
def test_a_finished_run_is_done_again_as_a_new_one(engine: Engine, end: str) -> None:
    lease = engine.leased(input={"a": 1}, deadline=engine.now + timedelta(seconds=9))
    if end == "completed":
        engine.complete(lease)
    elif end == "failed":
        engine.fail(lease, retries=[False])
    elif end == "timeout":
        engine.later(seconds=9)
        engine.tick()
    else:
        engine.call("cancel", run_id=lease.run_id)
    new = retry(engine, lease.run_id)
    assert new != lease.run_id
    run = engine.run(new)
    assert (run["state"], run["retry_of"], run["input"]) == ("pending", lease.run_id, {"a": 1})
    assert (run["attempt_count"], run["lease_no"], run["step_count"]) == (0, 0, 0)
    assert engine.state(lease.run_id) == end


def test_what_the_new_run_inherits_and_what_not(engine: Engine) -> None:
    lease = engine.leased(
        "send",
        queue="mail",
        priority=4,
        max_attempts=7,
        timeout=timedelta(minutes=3),
        deadline=engine.now + timedelta(hours=1),
        run_at=engine.now - timedelta(hours=1),
        idempotency_key="order-1",
        correlation_id="c-1",
        tags=["a"],
    )
    engine.complete(lease, costs_usd=[Decimal("0.5")])
    run = engine.run(retry(engine, lease.run_id))
    assert (run["handler"], run["queue"], run["priority"]) == ("send", "mail", 4)
    assert (run["max_attempts"], run["timeout"]) == (7, timedelta(minutes=3))
    assert (run["correlation_id"], run["tags"]) == ("c-1", ["a"])
    assert (run["deadline"], run["run_at"], run["cost_usd"]) == (None, None, None)
    assert run["idempotency_key"] is None


def test_the_key_of_the_old_run_still_returns_the_old_run(engine: Engine) -> None:
    lease = engine.leased(idempotency_key="order-1")
    engine.complete(lease)
    retry(engine, lease.run_id)
    assert engine.enqueue(idempotency_key="order-1") == lease.run_id


def test_without_a_correlation_id_it_inherits_the_old_runs_own(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    new = retry(engine, lease.run_id)
    assert engine.run(new)["correlation_id"] == str(lease.run_id)


def test_the_same_run_again_returns_the_same_new_run(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    new = retry(engine, lease.run_id)
    assert retry(engine, lease.run_id) == new
    engine.complete(engine.lease_of(new))
    assert retry(engine, lease.run_id) == new


def test_a_retry_can_be_retried(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    new = retry(engine, lease.run_id)
    engine.complete(engine.lease_of(new))
    newest = retry(engine, new)
    assert newest not in {new, lease.run_id}
    assert engine.run(newest)["retry_of"] == new


@pytest.mark.parametrize(
    "state", ["scheduled", "pending", "running", "waiting_approval", "waiting_event", "paused"]
)
def test_a_live_run_is_refused_and_told_its_state(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    with engine.refused("PF201", "run_id") as refused:
        retry(engine, run_id)
    assert f"is {state} and cannot be retried" in str(refused.value)


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    with engine.refused("PF102", "run_id"):
        retry(engine, uuid4())


def test_a_run_of_another_project_is_as_unknown(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    lease = engine.leased()
    engine.complete(lease)
    with engine.refused("PF102", "run_id"):
        engine.call("retry", run_id=lease.run_id, project="acme")


def test_a_new_run_asks_its_approvals_anew(engine: Engine) -> None:
    run_id = engine.waiting()
    engine.reject(engine.task(run_id))
    new = retry(engine, run_id)
    lease = engine.lease_of(new)
    assert lease.body.get("journal") is None
    assert engine.park(lease)["outcome"] == "done"
    engine.approve(engine.task(new))
    assert engine.state(new) == "pending"
