"""Claims: no run is leased twice, none is passed by for good."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.race.staging import Session, Two, check, held, undone, until
from tests.sql.conftest import Connect, Engine, Look

Marks = dict[str, Any]


def aged(look: Look, **seconds: float) -> Marks:
    """Return marks whose times lie so far back, and as if no minute had passed."""
    return {
        **look.marks,
        **{name: time.time() - ago for name, ago in {"started_at": 0.0, **seconds}.items()},
    }


def look_again(worker: Engine, look: Look, **more: Any) -> Look:
    """Look as after a second: from the low marks."""
    return worker.acquire(marks=aged(look, looked_at=2), **more)


def low(look: Look, group: str = "default 0 1") -> int:
    """Return a group's low mark."""
    return int(look.marks["groups"][group][1])


def seq(engine: Engine, run_id: UUID) -> int:
    """Return a run's place."""
    return int(engine.row(run_id)["seq"])


# ---- many at once


@pytest.mark.parametrize("give_back", [False, True], ids=["complete", "release now and then"])
def test_workers_that_claim_at_once_never_lease_a_run_twice(  # noqa: C901
    engine: Engine, connect: Connect, *, give_back: bool
) -> None:
    many = 300
    run_ids = engine.enqueue_many([{"n": n} for n in range(many)])
    leases: list[tuple[UUID, int]] = []
    finished: list[UUID] = []
    disturbed = threading.Event()

    def work(worker: Engine, name: str) -> None:
        marks = None
        worker.worker(name)

        def turn() -> bool:
            nonlocal marks
            look = worker.acquire(7, marks, worker_id=name)
            marks = look.marks
            leases.extend((lease.run_id, lease.lease_no) for lease in look.leases)
            back = [x for n, x in enumerate(look.leases) if give_back and x.lease_no < 3 and n % 3]
            done = [lease for lease in look.leases if lease not in back]
            if back:
                assert {line["outcome"] for line in worker.release(*back)} == {"done"}
            if done:
                assert worker.complete(*done) == []
                finished.extend(lease.run_id for lease in done)
            return len(finished) >= many

        until(turn)

    def disturb(client: Engine) -> None:
        """Write rows anew, so that they are elsewhere when the claim comes to them."""
        for run_id in run_ids[::3]:
            if disturbed.is_set():
                return
            try:
                client.call("emit", run_id=run_id, type="note")
            except psycopg.Error as error:
                if error.sqlstate != "PF202":
                    raise

    sessions = [connect() for _ in range(5)]
    with ThreadPoolExecutor(5) as threads:
        working = [threads.submit(work, s, f"w:{n}") for n, s in enumerate(sessions[1:])]
        disturbing = threads.submit(disturb, sessions[0])
        for future in working:
            future.result()
        disturbed.set()
        disturbing.result()
    assert Counter(finished) == Counter(run_ids)
    assert max(Counter(leases).values()) == 1
    assert engine.value("select count(*) from pgflow.run where run_id = any (%s)", run_ids) == 0
    check(engine, *run_ids[::30])


def test_two_claims_at_once_share_what_is_ready(engine: Engine, two: Two) -> None:
    one, other = two
    run_ids = engine.enqueue_many([{}] * 6)
    engine.worker("w:1")
    engine.worker("w:2")
    with held(one):
        assert one.acquire(4, worker_id="w:1").run_ids == run_ids[:4]
        assert other.acquire(4, worker_id="w:2").run_ids == run_ids[4:]
    assert other.acquire(4, worker_id="w:2").run_ids == []


# ---- what a claim passed by


def test_runs_of_a_claim_that_was_undone_are_claimed_by_others_within_a_minute(
    engine: Engine, two: Two
) -> None:
    one, other = two
    engine.worker("w:1")
    engine.worker("w:2")
    run_ids = engine.enqueue_many([{}] * 4)
    with undone(one):
        assert one.acquire(2, worker_id="w:1").run_ids == run_ids[:2]
        look = other.acquire(1, worker_id="w:2")
        assert look.run_ids == run_ids[2:3]
    marks = {**aged(look), "started_at": time.time() - 61}
    assert other.acquire(worker_id="w:2", marks=marks).run_ids == [*run_ids[:2], run_ids[3]]


def test_a_woken_run_that_is_being_decided_on_again_while_a_worker_looks_is_found_later(
    engine: Engine, connect: Connect
) -> None:
    person, worker = connect(), connect()
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    look = worker.acquire()
    engine.approve(engine.task(run_id, "a"))
    with held(person):
        person.approve(engine.task(run_id, "b"))
        for _ in range(5):
            look = look_again(worker, look)
    assert look_again(worker, look).run_ids == [run_id]


# ---- stragglers


def test_a_run_that_commits_below_the_mark_is_found_while_a_reader_holds_a_snapshot(
    engine: Engine, connect: Connect
) -> None:
    reader, slow, worker = connect(), connect(), connect()
    engine.worker()
    reader.conn.execute("begin isolation level repeatable read, read only")
    reader.rows("select count(*) from pgflow.run")
    slow.conn.execute("begin")
    straggler = slow.enqueue()
    fast = engine.enqueue()
    look = worker.acquire()
    assert look.run_ids == [fast]
    for _ in range(5):
        look = look_again(worker, look)
        assert (look.run_ids, low(look) < seq(slow, straggler)) == ([], True)
    slow.conn.execute("commit")
    assert look_again(worker, look).run_ids == [straggler]


def test_a_snapshot_that_a_reader_holds_does_not_stop_the_low_mark(
    engine: Engine, connect: Connect
) -> None:
    reader, worker = connect(), connect()
    engine.worker()
    reader.conn.execute("begin isolation level repeatable read, read only")
    reader.rows("select count(*) from pgflow.run")
    look = worker.acquire()
    for _ in range(3):
        run_id = engine.enqueue()
        place = seq(engine, run_id)
        look = worker.acquire(marks=aged(look))
        assert look.run_ids == [run_id]
        look = reaches(worker, place)


def reaches(worker: Engine, place: int) -> Look:
    """Look until the low mark is there; other databases' transactions count as well."""
    look = worker.acquire()
    while low(look) < place:
        before = low(look)
        look = look_again(worker, look)
        if low(look) == before:
            time.sleep(0.001)
    return look


@pytest.mark.usefixtures("engine")
def test_of_many_stragglers_none_is_lost_while_workers_look(connect: Connect) -> None:
    many = 40
    taken: list[UUID] = []
    enqueued: list[UUID] = []
    over = threading.Event()

    def enqueue(client: Engine, every: int) -> None:
        for n in range(many):
            client.conn.execute("begin")
            run_id = client.enqueue()
            if n % every == 0:
                client.value("select count(*) from pgflow.run")
                client.value("select pg_sleep(0.002)")
            client.conn.execute("commit")
            enqueued.append(run_id)

    def work(worker: Engine, name: str) -> None:
        worker.worker(name)
        look = worker.acquire(3, worker_id=name)
        taken.extend(look.run_ids)

        def turn() -> bool:
            nonlocal look
            was_over = over.is_set()
            look = look_again(worker, look, max_runs=3, worker_id=name)
            taken.extend(look.run_ids)
            return was_over and len(taken) >= len(enqueued)

        until(turn)

    sessions = [connect() for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        working = [threads.submit(work, s, f"w:{n}") for n, s in enumerate(sessions[:2])]
        enqueuing = [threads.submit(enqueue, s, n + 2) for n, s in enumerate(sessions[2:])]
        for future in enqueuing:
            future.result()
        over.set()
        for future in working:
            future.result()
    assert Counter(taken) == Counter(enqueued)


def test_a_claim_under_an_older_snapshot_leases_no_run_that_another_leased(
    engine: Engine, connect: Connect
) -> None:
    one, other = connect(), connect()
    engine.worker("w:1")
    engine.worker("w:2")
    run_id = engine.enqueue()
    old = Session(one.conn, one.place, one.now)
    old.conn.execute("begin isolation level repeatable read")
    old.rows("select count(*) from pgflow.run")
    assert other.acquire(worker_id="w:2").run_ids == [run_id]
    with pytest.raises(psycopg.errors.SerializationFailure):
        old.acquire(worker_id="w:1")
    old.conn.execute("rollback")
    assert old.acquire(worker_id="w:1").run_ids == []
