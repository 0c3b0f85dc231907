"""max_concurrent: at most so many of a queue's runs are leased at once, over all hosts."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.sql.flows import started, step

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, Lease


@pytest.fixture(autouse=True)
def limit(engine: Engine) -> None:
    engine.call("define_queue", queue="two", max_concurrent=2)
    engine.worker("w:1", ["two"])
    engine.worker("w:2", ["two"])


def take(engine: Engine, worker_id: str = "w:1") -> list[Lease]:
    return engine.acquire(worker_id=worker_id, queues=["two"]).leases


def slots(engine: Engine) -> int:
    return int(engine.value("select count(*) from pgflow.slot where queue = 'two'"))


def test_no_more_are_leased_than_the_limit_over_all_workers(engine: Engine) -> None:
    run_ids = engine.enqueue_many([{}] * 5, queue="two")
    taken = [
        *engine.acquire(1, worker_id="w:1", queues=["two"]).run_ids,
        *engine.acquire(5, worker_id="w:2", queues=["two"]).run_ids,
    ]
    assert taken == run_ids[:2]
    assert take(engine, "w:1") == take(engine, "w:2") == []


def test_another_queue_has_no_part_in_the_limit(engine: Engine) -> None:
    engine.enqueue_many([{}] * 3, queue="two")
    engine.enqueue_many([{}] * 3, queue="default")
    look = engine.acquire(queues=["default", "two"])
    assert [lease.body["queue"] for lease in look.leases].count("two") == 2
    assert len(look.leases) == 5


def test_a_lease_says_whether_it_keeps_a_slot(engine: Engine) -> None:
    engine.enqueue(queue="two")
    engine.enqueue(queue="default")
    leases = engine.acquire(queues=["default", "two"]).leases
    said = {lease.body["queue"]: lease.body.get("slotted") for lease in leases}
    assert said == {"two": True, "default": None}


@pytest.mark.parametrize(
    "how", ["complete", "fail", "retry", "release", "park", "refuse", "misfit"]
)
def test_each_end_of_a_lease_frees_its_slot(engine: Engine, how: str) -> None:
    engine.enqueue_many([{}] * 3, queue="two")
    lease, _ = take(engine)
    if how == "complete":
        engine.complete(lease)
    elif how == "fail":
        engine.fail(lease, retries=[False])
    elif how == "retry":
        engine.fail(lease)
    elif how == "release":
        engine.release(lease)
    elif how == "park":
        engine.park(lease)
    elif how == "misfit":
        engine.fail(lease, code="E-RUN-012")
    else:
        engine.complete(lease, output="no json")
    assert slots(engine) == 1
    assert len(take(engine, "w:2")) == 1


@pytest.mark.parametrize("how", ["cancel", "pause"])
def test_a_run_that_is_taken_away_gives_its_slot_at_once(engine: Engine, how: str) -> None:
    engine.enqueue_many([{}] * 4, queue="two")
    gone, other = take(engine)
    engine.call(how, run_id=gone.run_id)
    assert slots(engine) == 1
    (next_,) = take(engine, "w:2")
    assert take(engine, "w:2") == []
    assert engine.complete(gone)[0]["outcome"] == "lost"  # and frees nobody's slot
    assert [line["outcome"] for line in engine.beat(gone, other)] == ["lost"]
    assert take(engine, "w:2") == []
    engine.complete(next_, other)
    assert slots(engine) == 0


def test_a_flow_that_is_cancelled_gives_the_slots_of_its_steps(engine: Engine) -> None:
    run_id = started(engine, step("a", queue="two"), step("b", queue="two"), step("c", queue="two"))
    assert len(take(engine)) == 2
    engine.call("cancel", run_id=run_id)
    assert slots(engine) == 0


def test_a_run_whose_deadline_passes_gives_its_slot_at_once(engine: Engine) -> None:
    engine.enqueue_many([{}] * 3, queue="two", deadline=engine.now + timedelta(seconds=9))
    take(engine)
    engine.later(seconds=9)
    assert engine.tick()["expired"] == 3
    engine.enqueue(queue="two")
    assert len(take(engine, "w:2")) == 1


def test_a_worker_that_stops_gives_its_slots(engine: Engine) -> None:
    engine.enqueue_many([{}] * 3, queue="two")
    take(engine)
    engine.call("stop_worker", worker_id="w:1")
    assert slots(engine) == 0
    assert len(take(engine, "w:2")) == 2


def test_a_reaped_run_frees_its_slot(engine: Engine) -> None:
    engine.enqueue_many([{}] * 3, queue="two")
    take(engine)
    engine.later(seconds=61)
    assert len(take(engine, "w:2")) == 2
    assert slots(engine) == 2


def test_a_beat_before_the_reply_of_acquire_came_frees_no_slot(engine: Engine) -> None:
    engine.enqueue_many([{}] * 3, queue="two")
    take(engine)
    engine.later(seconds=4)
    engine.beat()
    assert slots(engine) == 2


def test_a_waiting_run_holds_no_slot_and_takes_one_again_when_it_is_woken(engine: Engine) -> None:
    woken = engine.waiting(queue="two")
    engine.enqueue_many([{}] * 2, queue="two")
    assert len(take(engine)) == 2
    engine.approve(engine.task(woken))
    assert take(engine, "w:2") == []


def test_the_limit_can_be_lowered_and_raised_under_way(engine: Engine) -> None:
    engine.enqueue_many([{}] * 5, queue="two")
    held = take(engine)
    engine.call("define_queue", queue="two", max_concurrent=1)
    engine.complete(held[0])
    assert take(engine) == []
    engine.call("define_queue", queue="two", max_concurrent=3)
    assert len(take(engine)) == 2


def test_a_limit_set_under_way_counts_what_is_running_already(engine: Engine) -> None:
    engine.enqueue_many([{}] * 4, queue="later")
    before = engine.acquire(2, queues=["later"]).leases
    engine.call("define_queue", queue="later", max_concurrent=2)
    assert engine.acquire(queues=["later"]).leases == []
    engine.complete(before[0])
    assert len(engine.acquire(queues=["later"]).leases) == 1


def test_a_worker_that_lost_a_run_frees_no_slot_of_its_next_lease(engine: Engine) -> None:
    engine.enqueue_many([{}] * 5, queue="two")
    held, _ = take(engine)
    engine.call("pause", run_id=held.run_id)
    engine.call("resume", run_id=held.run_id)
    (again,) = take(engine, "w:2")
    assert again.run_id == held.run_id
    for line in (*engine.complete(held), *engine.fail(held), *engine.release(held)):
        assert line["outcome"] == "lost"
    engine.later(seconds=6)
    engine.beat()
    assert slots(engine) == 1  # the other one of w:1 was not named
    assert again.run_id == engine.value("select run_id from pgflow.slot")


def test_a_limit_needs_read_committed(engine: Engine) -> None:
    engine.enqueue(queue="two")
    with engine.refused("PF503", "queue"), engine.conn.transaction():
        engine.conn.execute("set transaction isolation level repeatable read")
        take(engine)


def test_two_workers_that_look_at_once_do_not_pass_the_limit(
    engine: Engine, connect: Connect
) -> None:
    other = connect()
    other.conn.execute("set lock_timeout = '1ms'")
    engine.enqueue_many([{}] * 5, queue="two")
    with engine.conn.transaction():
        assert len(take(engine, "w:1")) == 2
        with pytest.raises(Exception, match="lock timeout"):
            take(other, "w:2")  # the count waits for the lock
    assert take(other, "w:2") == []


def test_queue_stats_tells_the_free_slots(engine: Engine) -> None:
    engine.enqueue_many([{}] * 3, queue="two")
    engine.acquire(1, queues=["two"])
    stats = engine.queue_stats("two")
    assert (stats["max_concurrent"], stats["available_slots"], stats["running"]) == (2, 1, 1)
