"""Batches lock their runs in the order of their ids, whatever order they were given in.

A deadlock by chance is rare; so each batch is stopped at every one of its runs, and what it holds
then is looked at: all runs with a lower id, and none with a higher.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.race.staging import Blocked, undone
from tests.sql.conftest import Connect, Engine, Lease

Batch = Callable[[Engine, list[Lease]], object]


def _record_steps(worker: Engine, leases: list[Lease]) -> None:
    worker.call(
        "record_step",
        run_ids=[lease.run_id for lease in leases],
        lease_nos=[lease.lease_no for lease in leases],
        keys=["s"] * len(leases),
        digests=["aa"] * len(leases),
        values=["1"] * len(leases),
    )


def _park(worker: Engine, leases: list[Lease]) -> None:
    worker.call("park", parks=Jsonb([worker.parking(lease) for lease in leases]))


BATCHES: dict[str, Batch] = {
    "complete": lambda worker, leases: worker.complete(*leases),
    "fail": lambda worker, leases: worker.fail(*leases),
    "fail for good": lambda worker, leases: worker.fail(*leases, retries=[False] * len(leases)),
    "release": lambda worker, leases: worker.release(*leases),
    "record_step": _record_steps,
    "park": _park,
    "stop_worker": lambda worker, _: worker.call("stop_worker", worker_id="w:1"),
    "define_queue": lambda worker, _: worker.call(
        "define_queue", queue="default", max_concurrent=1000
    ),
}


def leases_of(engine: Engine, many: int) -> list[Lease]:
    """Lease runs whose rows stand in the table in another order than that of their ids."""
    engine.worker()
    run_ids = engine.enqueue_many([{}] * many)
    for run_id in sorted(run_ids, key=lambda run_id: run_id.bytes[::-1]):
        engine.call("emit", run_id=run_id, type="note")  # which writes its row anew, at the end
    leases = engine.acquire(many).leases
    assert len(leases) == many
    return sorted(leases, key=lambda lease: lease.run_id)


def unlocked(watch: Engine, run_ids: list[UUID]) -> set[UUID]:
    """Return which of these runs nobody holds."""
    query = "select run_id from pgflow.run where run_id = any (%s) for update skip locked"
    with undone(watch):
        return {row["run_id"] for row in watch.rows(query, run_ids)}


@pytest.mark.parametrize("analyzed", [False, True], ids=["", "analyzed"])
@pytest.mark.parametrize("many", [3, 40])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_locks_its_runs_in_the_order_of_their_ids(
    engine: Engine, connect: Connect, blocked: Blocked, batch: str, many: int, *, analyzed: bool
) -> None:
    worker, holder = connect(), connect()
    leases = leases_of(engine, many)
    run_ids = [lease.run_id for lease in leases]
    given = leases[1::2] + leases[::2]
    if analyzed:
        engine.rows("analyze pgflow.run")
    for at in {1, many // 2, many - 1}:
        worker.conn.execute("begin")
        with undone(holder):
            holder.rows("select from pgflow.run where run_id = %s for update", run_ids[at])
            going = blocked(worker, lambda: BATCHES[batch](worker, given), by=holder)
            held = set(run_ids) - unlocked(engine, run_ids)
        going.result()
        worker.conn.execute("rollback")
        assert held == set(run_ids[: at + 1])
