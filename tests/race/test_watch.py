"""Whoever watches a run hears of its end or sees it, whichever of the two comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import psycopg
import pytest

from tests.race.staging import Blocked, Two, check, held, undone
from tests.sql.conftest import Connect, Engine, Lease


class Ear:
    """A session that listens for hints about runs."""

    def __init__(self, engine: Engine) -> None:
        self._conn = engine.conn
        self._heard: list[str] = []
        self._conn.add_notify_handler(self._hear)
        self._conn.execute("listen pgflow")

    def _hear(self, hint: psycopg.Notify) -> None:
        self._heard.append(hint.payload)

    def stop(self) -> None:
        """Give the session back as it was."""
        self._conn.remove_notify_handler(self._hear)

    def heard(self, run_id: UUID) -> bool:
        """Whether the run was hinted at since the last question."""
        self._conn.execute("select 1")
        heard, self._heard[:] = self._heard[:], []
        return bool({f"run default {run_id}", f"run default {run_id} ended"} & set(heard))


@pytest.fixture
def ear(connect: Connect) -> Iterator[Ear]:
    ear = Ear(connect())
    yield ear
    ear.stop()


Act = Callable[[Engine, Lease], object]
ACTS: dict[str, Act] = {
    "complete": lambda who, lease: who.complete(lease),
    "fail": lambda who, lease: who.fail(lease, retries=[False]),
    "cancel": lambda who, lease: who.call("cancel", run_id=lease.run_id),
    "emit": lambda who, lease: who.call("emit", run_id=lease.run_id, type="seen"),
    "step": lambda who, lease: who.record_steps(lease, a="1"),
    "pause": lambda who, lease: who.call("pause", run_id=lease.run_id),
    "park": lambda who, lease: who.park(lease),
    "release": lambda who, lease: who.release(lease),
}


@pytest.mark.parametrize("verb", ACTS)
def test_a_line_that_waits_for_a_watch_is_hinted_at(
    engine: Engine, two: Two, blocked: Blocked, ear: Ear, verb: str
) -> None:
    watcher, worker = two
    lease = engine.leased()
    with held(watcher):
        assert watcher.tell("watch", run_id=lease.run_id) == "running"
        acting = blocked(worker, lambda: ACTS[verb](worker, lease), by=watcher)
    acting.result()
    assert len(engine.timeline(lease.run_id)) > 2
    assert ear.heard(lease.run_id)
    check(engine, lease.run_id)


@pytest.mark.parametrize("verb", ACTS)
def test_a_watch_that_waits_for_a_line_sees_it(
    engine: Engine, two: Two, blocked: Blocked, ear: Ear, verb: str
) -> None:
    watcher, worker = two
    lease = engine.leased()
    with held(worker):
        ACTS[verb](worker, lease)
        watching = blocked(watcher, lambda: watcher.tell("watch", run_id=lease.run_id), by=worker)
    assert watching.result() == engine.state(lease.run_id)
    assert not ear.heard(lease.run_id)
    assert len(engine.timeline(lease.run_id)) > 2
    check(engine, lease.run_id)


def test_a_watch_that_waits_for_an_end_which_is_undone_hears_of_the_next(
    engine: Engine, two: Two, blocked: Blocked, ear: Ear
) -> None:
    watcher, worker = two
    lease = engine.leased()
    with undone(worker):
        worker.complete(lease)
        watching = blocked(watcher, lambda: watcher.tell("watch", run_id=lease.run_id), by=worker)
    assert watching.result() == "running"
    worker.complete(lease)
    assert ear.heard(lease.run_id)


def test_two_that_watch_at_once_both_do(
    engine: Engine, two: Two, blocked: Blocked, ear: Ear
) -> None:
    one, other = two
    run_id = engine.enqueue()
    with held(one):
        one.call("watch", run_id=run_id)
        watching = blocked(other, lambda: other.tell("watch", run_id=run_id), by=one)
    assert watching.result() == "pending"
    engine.call("cancel", run_id=run_id)
    assert ear.heard(run_id)


def test_a_claim_skips_a_run_that_is_being_watched_and_gets_it_after(
    engine: Engine, two: Two, ear: Ear
) -> None:
    watcher, worker = two
    engine.worker()
    run_id = engine.enqueue()
    with held(watcher):
        watcher.call("watch", run_id=run_id)
        assert worker.acquire().leases == []
    assert worker.lease_of(run_id).lease_no == 1
    assert ear.heard(run_id)
