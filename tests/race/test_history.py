"""Partitions are made and dropped beside those who read and write: nobody waits for long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.race.staging import held, until
from tests.sql.history import (
    add_past,
    drop_last,
    finished,
    maintain,
    own_place,
    partitions,
    periods,
    rows_of,
    tables_of,
)

if TYPE_CHECKING:
    from tests.race.staging import Blocked
    from tests.sql.conftest import Connect, Engine, Place

GONE = "select not exists (select from pg_stat_activity where pid = %s)"
DAY = timedelta(days=1)
LOCKED = "canceling statement due to lock timeout"


@pytest.fixture
def place(server: str, template: str) -> Iterator[Place]:
    with own_place(server, template) as place:
        yield place


@pytest.fixture
def over(engine: Engine) -> str:
    """Return the name of a period that is to be dropped next, which has a finished run."""
    old = add_past(engine, 5)
    finished(engine, old)
    engine.call("set_retention", retention=DAY)
    engine.later(days=2)
    engine.rows("update pgflow.upkeep set next_at = 'infinity' where duty like 'analyze%'")
    while engine.call("maintain")[0]["did"] != f"expired {old}":
        pass
    return old


def test_a_drop_gives_way_to_a_transaction_that_reads_the_period(
    engine: Engine, connect: Connect, over: str
) -> None:
    reader = connect()
    with held(reader):
        assert len(reader.rows("select * from pgflow.runs")) == 1
        began = time.monotonic()
        (step,) = engine.call("maintain")
        assert time.monotonic() - began < 5
        assert step == {
            "did": None,
            "blocked": f"drop: {LOCKED}",
            "again_in": timedelta(seconds=10),
        }
        assert f"run_finished_{over}" in partitions(engine)
        assert engine.call("maintain")[0] == {
            "did": None,
            "blocked": None,
            "again_in": timedelta(seconds=10),
        }
    engine.later(seconds=11)
    assert engine.call("maintain")[0]["did"] == f"detached run_finished_{over}"


def test_what_a_lock_stands_in_the_way_of_keeps_nothing_else_from_being_done(
    engine: Engine, connect: Connect, over: str
) -> None:
    engine.call("define_queue", queue="default", retention=timedelta(hours=1))
    young = engine.leased()
    engine.complete(young)
    engine.later(hours=2)
    reader = connect()
    with held(reader):
        reader.rows(f"select * from pgflow.event_{over}")
        assert engine.call("maintain")[0]["did"] == f"detached run_finished_{over}"
        deleted = "deleted 1 runs of queue default of project default"
        assert engine.call("maintain")[0] == {
            "did": deleted,
            "blocked": f"drop: {LOCKED}",
            "again_in": timedelta(),
        }
        # The drop has its next turn in 10 s, however much else there is to do.
        assert engine.call("maintain")[0] == {
            "did": None,
            "blocked": None,
            "again_in": timedelta(seconds=10),
        }


def test_runs_end_while_a_drop_waits_for_a_reader(
    engine: Engine, connect: Connect, blocked: Blocked, over: str
) -> None:
    reader, worker = connect(), connect()
    worker.worker()
    lease = worker.leased()
    with held(reader):
        reader.rows("select * from pgflow.runs")
        # Longer than it waits by itself, so that the completion comes in between.
        engine.rows("alter function pgflow.maintain() set lock_timeout = '1s'")
        drop = blocked(engine, lambda: engine.call("maintain"), by=reader)
        assert worker.complete(lease) == []
        assert drop.result()[0]["blocked"] == f"drop: {LOCKED}"
    engine.later(seconds=11)
    assert f"dropped usage_{over}" in maintain(engine)
    assert over not in {p["period"] for p in periods(engine)}


def test_a_partition_is_attached_while_runs_end(engine: Engine, connect: Connect) -> None:
    lease, other = engine.leased(), engine.leased()
    drop_last(engine)
    worker, maintainer = connect(), connect()
    with held(worker):
        assert worker.complete(lease) == []
        worker.call("emit", run_id=other.run_id, type="note")
        with held(maintainer):
            assert maintainer.call("maintain")[0]["did"].startswith("made run_finished")
            # Neither waits for the other, whichever came first.
            worker.conn.execute("set local lock_timeout = '1s'")
            assert worker.complete(other) == []
    assert maintain(engine)
    assert engine.value("select pgflow._periods_ahead(clock_timestamp())") == 3


def test_of_two_maintainers_one_does_it(engine: Engine, connect: Connect) -> None:
    drop_last(engine)
    one, other = connect(), connect()
    with held(one):
        assert one.call("maintain")[0]["did"]
        assert other.call("maintain")[0] == {
            "did": None,
            "blocked": None,
            "again_in": timedelta(seconds=10),
        }
    assert other.call("maintain")[0]["did"].startswith("made event")


def test_a_maintainer_that_is_killed_leaves_nothing_half_made(engine: Engine, over: str) -> None:
    drop_last(engine)
    for doing in ("made", "detached", "dropped"):
        while True:
            # Which step comes next is known once it is undone.
            victim = psycopg.connect(engine.place.dsn)
            victim.execute(
                "select set_config('pgflow.test_now', %s, false)", (engine.now.isoformat(),)
            )
            before = partitions(engine), tables_of(engine, over)
            (did,) = victim.execute("select did from pgflow.maintain()").fetchone() or ("",)
            if did.startswith(doing):
                break
            victim.commit()
            victim.close()
        engine.rows("select pg_terminate_backend(%s)", victim.info.backend_pid)
        until(partial(engine.value, GONE, victim.info.backend_pid))
        victim.close()
        assert (partitions(engine), tables_of(engine, over)) == before
        assert engine.call("maintain")[0]["did"] == did
    maintain(engine)
    assert tables_of(engine, over) == set()
    assert engine.value("select pgflow._periods_ahead(clock_timestamp())") == 3


def test_a_run_whose_journal_is_being_copied_is_not_deleted(
    engine: Engine, connect: Connect
) -> None:
    engine.call("define_queue", queue="default", retention=DAY)
    leases = [engine.leased(), engine.leased()]
    for lease in leases:
        engine.record_steps(lease, a="1", b="2")
        engine.complete(lease)
    engine.later(days=2)
    copier = connect()
    with held(copier):
        fork_id = copier.tell("fork", run_id=leases[0].run_id, step="b")
        assert "deleted 1 runs of queue default of project default" in maintain(engine)
        assert rows_of(engine, leases[0].run_id) == {"run_finished", "journal"}
    maintain(engine)
    assert rows_of(engine, leases[0].run_id) == set()
    assert rows_of(engine, fork_id) == {"journal"}


def test_a_key_that_is_given_while_it_is_deleted_makes_one_new_run(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    engine.call("define_queue", queue="default", retention=DAY)
    lease = engine.leased(idempotency_key="order-1")
    engine.complete(lease)
    engine.later(days=2)
    while not (did := engine.call("maintain")[0]["did"]).startswith("deleted 1 runs"):
        assert did
    one, other = connect(), connect()
    with held(one):
        while not (did := one.call("maintain")[0]["did"]).startswith("deleted 1 keys"):
            assert did
        second = blocked(other, lambda: other.enqueue(idempotency_key="order-1"), by=one)
    run_id = second.result()
    assert run_id != lease.run_id
    assert engine.enqueue(idempotency_key="order-1") == run_id
