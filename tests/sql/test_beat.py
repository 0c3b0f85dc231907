"""beat: keeps a worker's leases, tells which it has lost, gives back what it does not name."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease


def test_a_beat_keeps_all_leases_of_the_worker(engine: Engine) -> None:
    leases = [engine.leased(), engine.leased()]
    for _ in range(4):
        engine.later(seconds=50)
        assert engine.beat(*leases) == []
        assert engine.tick()["requeued"] == 0
    for lease in leases:
        run = engine.run(lease.run_id)
        assert (run["heartbeat_at"], run["lease_until"]) == (
            engine.now,
            engine.now + timedelta(seconds=60),
        )


def test_a_beat_of_one_worker_keeps_no_lease_of_another(engine: Engine) -> None:
    lease = engine.leased(worker_id="w:1")
    engine.worker("w:2")
    engine.later(seconds=61)
    engine.beat(lease, worker_id="w:2")
    assert engine.tick()["requeued"] == 1


def end(engine: Engine, lease: Lease, how: str) -> None:
    if how == "reaped":
        engine.worker("w:2")
        engine.later(seconds=61)
        engine.acquire(worker_id="w:2")
    elif how == "released":
        engine.release(lease)
    elif how == "completed":
        engine.complete(lease)
    else:
        engine.call(how, run_id=lease.run_id)


@pytest.mark.parametrize(
    ("how", "state"),
    [
        ("cancel", "cancelled"),
        ("pause", "paused"),
        ("reaped", "running"),
        ("released", "pending"),
        ("completed", "completed"),
    ],
)
def test_a_lease_that_is_gone_is_told_with_the_state_of_its_run(
    engine: Engine, how: str, state: str
) -> None:
    lost, kept = engine.leased(), engine.leased()
    end(engine, lost, how)
    lines = [line for line in engine.beat(lost, kept) if line["run_id"] == lost.run_id]
    assert [(line["outcome"], line["state"]) for line in lines] == [("lost", state)]


def test_a_run_that_failed_meanwhile_is_told_with_its_code(engine: Engine) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(seconds=9))
    engine.later(seconds=9)
    engine.tick()
    (line,) = engine.beat(lease)
    assert (line["outcome"], line["state"], line["code"]) == ("lost", "timeout", "E-RUN-003")


def test_an_old_lease_number_of_a_run_held_again_is_lost(engine: Engine) -> None:
    old = engine.leased()
    engine.release(old)
    new = engine.lease_of(old.run_id)
    assert [line["outcome"] for line in engine.beat(old, new)] == ["lost"]


def test_a_run_that_nobody_knows_is_lost(engine: Engine) -> None:
    lease = engine.leased()
    lines = engine.call(
        "beat", worker_id="w:1", run_ids=[uuid4(), lease.run_id], lease_nos=[1, lease.lease_no]
    )
    assert [(line["outcome"], line["state"]) for line in lines] == [("lost", None)]


def test_a_lease_not_named_after_5_seconds_goes_back_without_an_attempt(engine: Engine) -> None:
    named, unnamed = engine.leased(), engine.leased()
    engine.later(seconds=6)
    assert engine.beat(named) == []
    run = engine.run(unnamed.run_id)
    assert (run["state"], run["attempt_count"]) == ("pending", 0)
    assert engine.timeline(unnamed.run_id)[-1]["type"] == "run.released"
    assert engine.state(named.run_id) == "running"


def test_a_lease_whose_reply_may_be_under_way_is_kept(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(seconds=4)
    assert engine.beat() == []
    assert engine.state(lease.run_id) == "running"


def test_a_lease_named_by_an_old_number_goes_back(engine: Engine) -> None:
    old = engine.leased()
    engine.release(old)
    engine.lease_of(old.run_id)
    engine.later(seconds=6)
    assert [line["state"] for line in engine.beat(old)] == ["pending"]


@pytest.mark.parametrize("unused", ["stopped", "unknown"])
def test_a_worker_that_is_not_registered_is_refused(engine: Engine, unused: str) -> None:
    if unused == "stopped":
        engine.call("stop_worker", worker_id=engine.worker("w:9"))
    with engine.refused("PF302", "worker_id"):
        engine.beat(worker_id="w:9")


def test_a_worker_of_another_project_is_unknown(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    engine.worker("w:9", project="acme")
    with engine.refused("PF302", "worker_id"):
        engine.beat(worker_id="w:9")


def test_arrays_of_different_lengths_are_refused(engine: Engine) -> None:
    lease = engine.leased()
    with engine.refused("PF101", "lease_nos"):
        engine.call("beat", worker_id="w:1", run_ids=[lease.run_id], lease_nos=[])


def test_a_beat_tells_the_breakpoints_of_runs_that_have_any(engine: Engine) -> None:
    stopped, other = engine.leased(), engine.leased()
    engine.call("set_breakpoint", run_id=stopped.run_id, step="draft")
    engine.call("set_breakpoint", run_id=stopped.run_id, step="draft", moment="after")
    (line,) = engine.beat(stopped, other)
    assert (line["run_id"], line["outcome"]) == (stopped.run_id, "stops")
    assert line["detail"] == '["before draft","after draft"]'
    engine.call("clear_breakpoint", run_id=stopped.run_id, step="draft")
    engine.call("clear_breakpoint", run_id=stopped.run_id, step="draft", moment="after")
    assert engine.beat(stopped, other) == []
