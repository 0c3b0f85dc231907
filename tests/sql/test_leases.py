"""Table lease: which runs a worker was given, many in a row, so that a lease writes no index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine

UPDATES = """
    select pg_stat_get_xact_tuples_updated(oid) as updates,
        pg_stat_get_xact_tuples_hot_updated(oid) as in_place
    from pg_class where oid = 'pgflow.run'::regclass
"""


def batches(engine: Engine, worker_id: str = "w:1") -> list[set[UUID]]:
    rows = engine.rows(
        "select run_ids from pgflow.lease where project_id = 'default' and worker_id = %s"
        " order by batch",
        worker_id,
    )
    return [set(row["run_ids"]) for row in rows]


# Elsewhere others have left pages whose dead rows some old snapshot may still keep.
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_lease_is_written_in_the_page_of_the_run_and_into_no_index(engine: Engine) -> None:
    engine.worker()
    for n in range(100):
        engine.enqueue(input={"n": n, "pad": "x" * 100})
    with engine.conn.transaction():
        before = engine.one(UPDATES)
        assert len(engine.acquire().leases) == 100
        after = engine.one(UPDATES)
    assert after["updates"] - before["updates"] == 100
    assert after["in_place"] - before["in_place"] == 100


def test_each_acquire_notes_what_it_leased(engine: Engine) -> None:
    engine.worker()
    first = {engine.enqueue(), engine.enqueue()}
    engine.acquire()
    second = {engine.enqueue()}
    engine.acquire()
    engine.acquire()
    assert batches(engine) == [first, second]


def test_a_beat_keeps_what_is_held_in_one_row_and_drops_what_ended(engine: Engine) -> None:
    leases = [engine.leased() for _ in range(3)]
    engine.complete(leases[1])
    engine.later(seconds=6)
    engine.beat(leases[0], leases[2])
    assert batches(engine) == [{leases[0].run_id, leases[2].run_id}]
    engine.complete(leases[0], leases[2])
    engine.later(seconds=6)
    engine.beat()
    assert batches(engine) == []


def test_a_beat_leaves_alone_what_was_leased_within_the_last_seconds(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    engine.beat()
    assert batches(engine) == [{lease.run_id}]


def test_of_batches_that_arrived_a_beat_keeps_what_is_named_at_once(engine: Engine) -> None:
    engine.worker()
    for _ in range(4):
        engine.enqueue()
    first, second = engine.acquire(max_runs=2), engine.acquire(max_runs=2)
    assert first.batch != second.batch
    held = [first.leases[0], second.leases[0]]
    engine.complete(first.leases[1], second.leases[1])
    assert engine.beat(*held, batches=[first.batch, second.batch]) == []
    assert batches(engine) == [{lease.run_id for lease in held}]


def test_a_batch_whose_reply_was_lost_goes_back_though_later_ones_arrived(engine: Engine) -> None:
    lost = engine.leased()
    engine.enqueue()
    arrived = engine.acquire()
    engine.later(seconds=6)
    assert engine.beat(*arrived.leases, batches=[arrived.batch]) == []
    assert engine.state(lost.run_id) == "pending"
    assert engine.state(arrived.leases[0].run_id) == "running"


def test_a_batch_that_arrived_and_has_ended_is_forgotten(engine: Engine) -> None:
    engine.worker()
    engine.enqueue()
    arrived = engine.acquire()
    engine.complete(*arrived.leases)
    engine.beat(batches=[arrived.batch])
    assert batches(engine) == []


def test_what_arrived_and_has_ended_is_not_looked_for(engine: Engine) -> None:
    looks = "select idx_scan from pg_stat_xact_user_tables where relid = 'pgflow.run'::regclass"
    engine.worker()
    for _ in range(200):
        engine.enqueue()
    arrived = engine.acquire(max_runs=200)
    engine.complete(*arrived.leases[1:])
    with engine.conn.transaction():
        before = engine.value(looks)
        engine.beat(arrived.leases[0], batches=[arrived.batch])
        assert engine.value(looks) - before < 20


def test_no_acquire_without_runs_has_a_batch(engine: Engine) -> None:
    engine.worker()
    assert engine.acquire().batch is None


def test_a_run_that_its_worker_leased_again_is_kept_by_either_row(engine: Engine) -> None:
    lease = engine.leased()
    engine.release(lease)
    engine.later(seconds=6)
    again = engine.lease_of(lease.run_id)
    assert engine.beat(again) == []
    assert engine.state(lease.run_id) == "running"
    assert engine.worker_status()["running"] == 1


def test_what_a_worker_held_is_forgotten_with_its_goodbye(engine: Engine) -> None:
    engine.leased()
    engine.call("stop_worker", worker_id="w:1")
    assert batches(engine) == []


def test_what_a_dead_worker_held_is_forgotten_when_all_is_taken_back(engine: Engine) -> None:
    engine.call("define_queue", queue="patient", lease_ttl="10 minutes")
    short = engine.leased()
    long = engine.leased(queue="patient")
    engine.later(seconds=61)
    assert engine.tick()["requeued"] == 1
    assert batches(engine) == [{long.run_id}]
    engine.later(seconds=600)
    assert engine.tick()["requeued"] == 1
    assert batches(engine) == []
    assert {engine.state(lease.run_id) for lease in (short, long)} == {"pending"}
