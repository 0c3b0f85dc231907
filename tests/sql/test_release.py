"""release: running -> pending without using an attempt."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine


def test_a_released_run_is_pending_and_no_attempt_is_used(engine: Engine) -> None:
    lease = engine.leased()
    (line,) = engine.release(lease)
    assert (line["run_id"], line["outcome"], line["state"]) == (lease.run_id, "done", "pending")
    run = engine.run(lease.run_id)
    assert (run["state"], run["attempt_count"], run["lease_no"]) == ("pending", 0, 1)
    assert (run["worker_id"], run["lease_until"], run["heartbeat_at"]) == (None, None, None)


def test_its_reason_is_in_the_timeline(engine: Engine) -> None:
    lease = engine.leased()
    engine.release(lease)
    assert engine.timeline(lease.run_id)[-1]["payload"] == {"reason": "shutdown"}
    lease = engine.lease_of(lease.run_id)
    engine.release(lease, reason="r" * 1000)
    event = engine.timeline(lease.run_id)[-1]
    assert (event["type"], event["worker_id"], event["lease_no"]) == ("run.released", "w:1", 2)
    assert event["payload"] == {"reason": "r" * 200}


def test_a_released_run_comes_before_new_work(engine: Engine) -> None:
    lease = engine.leased()
    engine.enqueue()
    engine.release(lease)
    assert engine.acquire(1).run_ids == [lease.run_id]


def test_the_same_again_is_already_done(engine: Engine) -> None:
    lease = engine.leased()
    engine.release(lease, costs_usd=[1])
    before = engine.place.rows()
    assert engine.release(lease, costs_usd=[1])[0]["outcome"] == "already"
    assert engine.place.rows() == before
    again = engine.lease_of(lease.run_id)
    assert engine.release(lease)[0]["outcome"] == "already"
    engine.complete(again)
    assert engine.release(lease)[0]["outcome"] == "already"


@pytest.mark.parametrize("lease_no", [0, 2])
def test_a_wrong_lease_number_changes_nothing(engine: Engine, lease_no: int) -> None:
    lease = engine.leased()
    before = engine.place.rows()
    (line,) = engine.call("release", run_ids=[lease.run_id], lease_nos=[lease_no])
    assert (line["outcome"], line["state"]) == ("lost", "running")
    assert engine.place.rows() == before


@pytest.mark.parametrize("how", ["cancel", "pause"])
def test_a_run_that_was_taken_away_is_lost(engine: Engine, how: str) -> None:
    lease = engine.leased()
    state = engine.tell(how, run_id=lease.run_id)
    (line,) = engine.release(lease)
    assert (line["outcome"], line["state"]) == ("lost", state)


def test_a_run_that_nobody_knows_is_lost(engine: Engine) -> None:
    (line,) = engine.call("release", run_ids=[uuid4()], lease_nos=[1])
    assert line["outcome"] == "lost"


def test_many_get_a_line_each(engine: Engine) -> None:
    engine.worker()
    engine.enqueue_many([{}] * 4)
    leases = engine.acquire().leases
    engine.complete(leases[1])
    outcomes = {line["run_id"]: line["outcome"] for line in engine.release(*leases)}
    assert [outcomes[lease.run_id] for lease in leases] == ["done", "lost", "done", "done"]


def test_costs_and_steps_are_added(engine: Engine) -> None:
    lease = engine.leased()
    engine.release(lease, costs_usd=[Decimal("0.5")], steps=[2])
    engine.release(engine.lease_of(lease.run_id), costs_usd=[Decimal("0.25")], steps=[1])
    run = engine.run(lease.run_id)
    assert (run["cost_usd"], run["step_count"]) == (Decimal("0.75"), 3)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("run_ids", {"run_ids": []}),
        ("lease_nos", {"lease_nos": [1, 2]}),
        ("arrays", {"costs_usd": [1, 2]}),
        ("arrays", {"steps": []}),
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_are_refused(
    engine: Engine, field: str, change: dict[str, object]
) -> None:
    lease = engine.leased()
    given: dict[str, object] = {"run_ids": [lease.run_id], "lease_nos": [1], **change}
    with engine.refused("PF101", field):
        engine.call("release", **given)
