"""reap: a lease expires when its worker has not beaten for its queue's lease_ttl."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine


def reap(engine: Engine) -> tuple[int, int]:
    (counts,) = engine.call("reap")
    return counts["requeued"], counts["failed"]


def test_a_lost_run_is_pending_again_with_an_attempt_used(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(seconds=61)
    assert reap(engine) == (1, 0)
    run = engine.run(lease.run_id)
    assert (run["state"], run["attempt_count"], run["lease_no"]) == ("pending", 1, 1)
    assert (run["worker_id"], run["lease_until"], run["heartbeat_at"]) == (None, None, None)


def test_its_event_says_from_whom_and_which_attempt(engine: Engine) -> None:
    lease = engine.leased(max_attempts=5)
    engine.later(seconds=61)
    reap(engine)
    event = engine.timeline(lease.run_id)[-1]
    assert (event["type"], event["worker_id"], event["lease_no"]) == ("run.requeued", "w:1", 1)
    assert event["payload"] == {
        "reason": "lease expired",
        "worker": "w:1",
        "attempt": 1,
        "max_attempts": 5,
    }


def test_a_run_whose_attempts_are_used_up_fails(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue(max_attempts=2)
    for counts in ((1, 0), (0, 1)):
        engine.lease_of(run_id)
        engine.later(seconds=61)
        assert reap(engine) == counts
        engine.beat()
    run = engine.run(run_id)
    assert (run["state"], run["error_code"], run["attempt_count"]) == ("failed", "E-RUN-002", 2)
    assert "attempt 2 of 2" in run["error_detail"]
    assert run["last_worker_id"] == "w:1"


def test_a_lease_is_not_taken_before_its_time(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(seconds=60)
    assert reap(engine) == (0, 0)
    assert engine.state(lease.run_id) == "running"


def test_each_queue_has_its_own_time(engine: Engine) -> None:
    engine.call("define_queue", queue="quick", lease_ttl=timedelta(seconds=10))
    engine.worker(queues=["quick", "default"])
    engine.enqueue(queue="quick")
    engine.enqueue()
    quick, slow = engine.acquire(queues=["quick", "default"]).leases
    engine.later(seconds=11)
    assert reap(engine) == (1, 0)
    assert engine.state(quick.run_id) == "pending"
    assert engine.state(slow.run_id) == "running"


def test_all_runs_of_a_dead_worker_go_back_and_none_of_a_living_one(engine: Engine) -> None:
    dead = [engine.leased(worker_id="w:1").run_id for _ in range(3)]
    alive = engine.leased(worker_id="w:2")
    engine.later(seconds=40)
    engine.beat(alive, worker_id="w:2")
    engine.later(seconds=30)
    assert reap(engine) == (3, 0)
    assert {engine.state(run_id) for run_id in dead} == {"pending"}
    assert engine.state(alive.run_id) == "running"


def test_reaping_again_finds_nothing(engine: Engine) -> None:
    engine.leased()
    engine.later(seconds=61)
    assert reap(engine) == (1, 0)
    assert reap(engine) == (0, 0)


def test_the_old_worker_cannot_complete_what_was_reaped(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(seconds=61)
    reap(engine)
    assert engine.complete(lease)[0]["outcome"] == "lost"
    again = engine.lease_of(lease.run_id)
    assert again.lease_no == 2
    assert engine.complete(lease)[0]["outcome"] == "lost"
    assert engine.complete(again) == []


def test_a_reaped_run_comes_before_new_work(engine: Engine) -> None:
    lease = engine.leased()
    engine.enqueue()
    engine.later(seconds=61)
    reap(engine)
    assert engine.acquire(1).run_ids == [lease.run_id]


def test_a_dead_worker_that_comes_back_goes_on_by_beating(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(seconds=61)
    reap(engine)
    assert [line["outcome"] for line in engine.beat(lease)] == ["lost"]
    assert engine.lease_of(lease.run_id).lease_no == 2


def test_a_run_locked_by_somebody_is_left_for_the_next_time(
    engine: Engine, connect: Connect
) -> None:
    one, other = engine.leased(), engine.leased()
    holder = connect()
    engine.later(seconds=61)
    with holder.conn.transaction():
        holder.rows("select from pgflow.run where run_id = %s for update", one.run_id)
        assert reap(engine) == (1, 0)
        assert engine.state(other.run_id) == "pending"
    assert reap(engine) == (1, 0)


def test_a_worker_dead_for_a_day_is_forgotten(engine: Engine) -> None:
    engine.worker()
    engine.later(hours=25)
    reap(engine)
    with engine.refused("PF302"):
        engine.beat()


def test_a_dead_worker_is_shown_as_dead(engine: Engine) -> None:
    engine.worker()
    assert engine.worker_status()["status"] == "alive"
    engine.later(seconds=61)
    assert engine.worker_status()["status"] == "dead"


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_every_run_of_a_dead_worker_is_taken_back_within_a_minute(engine: Engine) -> None:
    engine.worker(concurrency=2000)
    engine.worker("w:2")
    engine.enqueue_many([{}] * 1100)
    assert len(engine.acquire(2000).leases) == 1100
    engine.later(seconds=61)
    for _ in range(4):
        engine.acquire(1, worker_id="w:2", queues=["nobody's"])
        engine.later(seconds=14)
    left = engine.value("select count(*) from pgflow.run where worker_id = 'w:1'")
    assert left == 0


@pytest.mark.parametrize("state", ["waiting", "paused", "scheduled", "pending"])
def test_a_run_that_nobody_holds_has_no_lease_to_lose(engine: Engine, state: str) -> None:
    lease = engine.leased()
    if state == "waiting":
        engine.park(lease)
    elif state == "paused":
        engine.call("pause", run_id=lease.run_id)
    elif state == "scheduled":
        engine.fail(lease)
    else:
        engine.release(lease)
    engine.later(seconds=61)
    assert reap(engine) == (0, 0)
