"""Undo runs: where a handler asks for it, what a run did that ended badly is undone by another."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.sql.waits import child, children, part

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row

ENDS = ["failed", "cancelled", "timeout"]


def working(engine: Engine, *undo_on: str, handler: str = "order", **more: Any) -> Lease:
    """Lease a run of a handler that undoes after these ends; it has done three steps."""
    engine.worker(handlers=[{"handler": handler, "undo_on": list(undo_on)}])
    lease = engine.leased(handler, **{"input": {"n": 7}, "tags": ["a"], **more})
    steps(engine, lease, reserve=True, note=False, charge=True)
    return lease


def steps(engine: Engine, lease: Lease, **undos: bool) -> None:
    """Journal steps, each with something that undoes it or not."""
    engine.call(
        "record_step",
        run_ids=[lease.run_id] * len(undos),
        lease_nos=[lease.lease_no] * len(undos),
        keys=list(undos),
        digests=["aa"] * len(undos),
        values=[f'"{key}"' for key in undos],
        undos=list(undos.values()),
    )


def end(engine: Engine, lease: Lease, state: str) -> None:
    if state == "failed":
        engine.fail(lease, retries=[False])
    elif state == "cancelled":
        engine.call("cancel", run_id=lease.run_id)
    elif state == "timeout":
        engine.park(lease, {"key": "ok", "due_in": 1, "policy": "timeout"})
        engine.later(seconds=2)
        engine.tick()
    else:
        engine.complete(lease)
    assert engine.state(lease.run_id) == state


def undoing(engine: Engine, run_id: UUID) -> list[Row]:
    return engine.rows("select * from pgflow.runs where undo_of = %s", run_id)


@pytest.mark.parametrize("state", ENDS)
def test_a_run_that_ends_as_its_handler_named_is_undone_by_another(
    engine: Engine, state: str
) -> None:
    lease = working(engine, state)
    end(engine, lease, state)
    (undo,) = undoing(engine, lease.run_id)
    assert (undo["state"], undo["handler"], undo["input"]) == ("pending", "order", {"n": 7})
    assert (undo["tags"], undo["correlation_id"]) == (["a"], str(lease.run_id))
    assert undo["deadline"] is None


@pytest.mark.parametrize("state", ["completed", *ENDS])
def test_after_other_ends_nothing_is_undone(engine: Engine, state: str) -> None:
    lease = working(engine, *(set(ENDS) - {state}))
    end(engine, lease, state)
    assert undoing(engine, lease.run_id) == []


def test_a_handler_that_does_not_ask_for_it_has_nothing_undone(engine: Engine) -> None:
    lease = working(engine)
    end(engine, lease, "failed")
    assert undoing(engine, lease.run_id) == []


def test_without_steps_that_can_be_undone_there_is_no_undo_run(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "order", "undo_on": ENDS}])
    lease = engine.leased("order")
    steps(engine, lease, note=False)
    end(engine, lease, "failed")
    assert undoing(engine, lease.run_id) == []


def test_an_execution_that_is_tried_again_is_not_undone(engine: Engine) -> None:
    lease = working(engine, *ENDS)
    assert engine.fail(lease)[0]["state"] == "scheduled"
    assert undoing(engine, lease.run_id) == []


def test_a_run_that_ended_is_undone_once(engine: Engine) -> None:
    lease = working(engine, *ENDS)
    end(engine, lease, "cancelled")
    end(engine, lease, "cancelled")
    engine.fail(lease, retries=[False])
    assert len(undoing(engine, lease.run_id)) == 1


def test_a_lost_run_whose_attempts_are_used_up_is_undone(engine: Engine) -> None:
    lease = working(engine, "failed", max_attempts=1)
    engine.later(seconds=61)
    engine.tick()
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-002"
    assert len(undoing(engine, lease.run_id)) == 1


def test_a_batch_that_fails_is_undone_run_by_run(engine: Engine) -> None:
    leases = [working(engine, "failed") for _ in range(3)]
    engine.fail(*leases, retries=[False, True, False])
    assert [len(undoing(engine, lease.run_id)) for lease in leases] == [1, 0, 1]


def test_an_output_that_cannot_be_stored_is_undone_too(engine: Engine) -> None:
    lease = working(engine, "failed")
    assert engine.complete(lease, output='"\\u0000"')[0]["code"] == "E-RUN-017"
    assert len(undoing(engine, lease.run_id)) == 1


def test_its_lease_says_what_is_to_be_undone_newest_first(engine: Engine) -> None:
    lease = working(engine, "failed")
    end(engine, lease, "failed")
    (undo,) = undoing(engine, lease.run_id)
    held = engine.lease_of(undo["run_id"])
    told = held.body
    assert (told["undo_of"], held.body.get("journal")) == (str(lease.run_id), None)
    to_undo = [step for step in told["undo"] if step.get("undo", True)]
    assert [(step["key"], step["value"]) for step in to_undo] == [
        ("charge", "charge"),
        ("reserve", "reserve"),
    ]


def test_what_is_undone_is_not_undone_again(engine: Engine) -> None:
    lease = working(engine, "failed")
    end(engine, lease, "failed")
    (undo,) = undoing(engine, lease.run_id)
    held = engine.lease_of(undo["run_id"])
    step = next(step for step in held.body["undo"] if step["key"] == "charge")
    engine.record_steps(held, **{f"undo/{step['round']}/charge": "null"})
    engine.release(held)
    again = engine.lease_of(undo["run_id"])
    left = [step["key"] for step in again.body["undo"] if step.get("undo", True)]
    assert left == ["reserve"]


@pytest.mark.parametrize("state", ENDS)
def test_an_undo_run_that_ends_badly_is_not_undone_itself(engine: Engine, state: str) -> None:
    lease = working(engine, *ENDS)
    end(engine, lease, "failed")
    (undo,) = undoing(engine, lease.run_id)
    held = engine.lease_of(undo["run_id"])
    steps(engine, held, again=True)
    end(engine, held, state)
    assert undoing(engine, held.run_id) == []


def test_an_undo_run_that_failed_is_retried_as_an_undo_run(engine: Engine) -> None:
    lease = working(engine, "failed")
    end(engine, lease, "failed")
    (undo,) = undoing(engine, lease.run_id)
    held = engine.lease_of(undo["run_id"])
    round_no = held.body["undo"][0]["round"]
    engine.record_steps(held, **{f"undo/{round_no}/charge": "null"})
    engine.fail(held, retries=[False])
    again = engine.tell("retry", run_id=held.run_id)
    assert engine.tell("retry", run_id=held.run_id) == again
    told = engine.lease_of(again).body
    assert told["undo_of"] == str(lease.run_id)
    left = [step["key"] for step in told["undo"] if step.get("undo", True)]
    assert left == ["reserve"]


def test_a_retry_of_the_run_itself_is_no_undo_run(engine: Engine) -> None:
    lease = working(engine, "failed")
    end(engine, lease, "failed")
    again = engine.tell("retry", run_id=lease.run_id)
    assert engine.run(again)["undo_of"] is None


def test_an_undo_run_comes_before_new_work(engine: Engine) -> None:
    lease = working(engine, "failed")
    new = engine.enqueue()
    end(engine, lease, "failed")
    (undo,) = undoing(engine, lease.run_id)
    assert engine.acquire().run_ids == [undo["run_id"], new]


def test_a_child_that_is_cancelled_with_its_parent_is_undone(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, child(handler="order"))
    engine.worker(handlers=[{"handler": "order", "undo_on": ["cancelled"]}])
    (held,) = engine.acquire().leases
    steps(engine, held, charge=True)
    engine.call("cancel", run_id=lease.run_id)
    assert engine.run(part(engine, lease.run_id))["error_code"] == "E-RUN-011"
    (undo,) = undoing(engine, held.run_id)
    assert (undo["parent_run_id"], undo["state"]) == (None, "pending")
    assert len(children(engine, lease.run_id)) == 1


def test_an_undo_run_has_a_life_of_its_own(engine: Engine) -> None:
    lease = working(engine, "timeout", deadline=engine.now + timedelta(seconds=30))
    engine.later(seconds=31)
    engine.beat(lease)
    engine.tick()
    (undo,) = undoing(engine, lease.run_id)
    held = engine.lease_of(undo["run_id"])
    assert engine.complete(held, output='{"undone": []}') == []


def test_the_undo_run_is_made_in_the_transaction_of_the_end(engine: Engine) -> None:
    lease = working(engine, "cancelled")
    engine.conn.execute("begin")
    engine.call("cancel", run_id=lease.run_id)
    assert len(undoing(engine, lease.run_id)) == 1
    engine.conn.execute("rollback")
    assert undoing(engine, lease.run_id) == []
    assert engine.state(lease.run_id) == "running"
