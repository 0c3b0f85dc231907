"""tick: promotes, reaps, expires, and counts."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine

NOTHING = {"promoted": 0, "requeued": 0, "failed": 0, "expired": 0}


def test_without_anything_due_it_counts_nothing(engine: Engine) -> None:
    assert engine.tick() == NOTHING


def test_it_counts_each_of_its_duties(engine: Engine) -> None:
    engine.leased()
    engine.leased(max_attempts=1)
    engine.worker("w:2")
    engine.later(seconds=30)
    due = engine.now + timedelta(seconds=31)
    engine.enqueue_many([{}] * 3, run_at=due)
    engine.enqueue_many([{}] * 4, deadline=due, run_at=due + timedelta(hours=1))
    engine.waiting({"key": "ok", "due_in": 31}, worker_id="w:2", queue="other")
    engine.later(seconds=31)
    assert engine.tick() == {"promoted": 3, "requeued": 1, "failed": 1, "expired": 5}
    assert engine.tick() == NOTHING


def test_promoted_runs_come_in_the_order_of_their_time(engine: Engine) -> None:
    engine.worker()
    late, early = (engine.enqueue(run_at=engine.now + timedelta(seconds=s)) for s in (9, 3))
    engine.later(seconds=10)
    assert engine.acquire().run_ids == [early, late]


def test_a_scheduled_run_that_was_never_begun_is_new_work(engine: Engine) -> None:
    engine.worker()
    scheduled = engine.enqueue(run_at=engine.now + timedelta(seconds=3))
    fresh = engine.enqueue()
    engine.later(seconds=3)
    engine.tick()
    assert engine.acquire().run_ids == [fresh, scheduled]


def test_two_at_once_do_not_wait_for_each_other(engine: Engine, connect: Connect) -> None:
    other = connect()
    engine.enqueue(run_at=engine.now + timedelta(seconds=1))
    engine.later(seconds=1)
    with engine.conn.transaction():
        assert engine.tick()["promoted"] == 1
        assert other.tick() == dict.fromkeys(NOTHING)


def test_a_locked_run_is_left_for_the_next_time(engine: Engine, connect: Connect) -> None:
    holder = connect()
    one, other = engine.enqueue_many([{}] * 2, run_at=engine.now + timedelta(seconds=1))
    engine.later(seconds=1)
    with holder.conn.transaction():
        holder.rows("select from pgflow.run where run_id = %s for update", one)
        assert engine.tick()["promoted"] == 1
        assert engine.state(other) == "pending"
    engine.later(milliseconds=50)
    engine.worker()
    assert set(engine.acquire().run_ids) == {one, other}


def test_it_sees_to_one_project_only(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    run_id = engine.enqueue(run_at=engine.now + timedelta(seconds=1), project="acme")
    engine.later(seconds=2)
    assert engine.tick() == NOTHING
    assert engine.state(run_id) == "scheduled"
    assert engine.call("tick", project="acme")[0]["promoted"] == 1


def test_an_unknown_project_is_refused(engine: Engine) -> None:
    for verb in ("tick", "reap"):
        with engine.refused("PF502", "project"):
            engine.call(verb, project="nobody's")


# ---- workers that are gone


def workers(engine: Engine) -> dict[str, str]:
    """Return the workers that are known and what they are."""
    rows = engine.rows(
        "select worker_id, status from pgflow.worker_status where project_id = 'default' order by 1"
    )
    return {row["worker_id"]: row["status"] for row in rows}


@pytest.mark.parametrize(
    ("retention", "days"), [(None, 30), (timedelta(days=7), 7), (timedelta(hours=1), 1)], ids=str
)
def test_a_worker_that_stopped_is_known_for_as_long_as_finished_runs_are_kept(
    engine: Engine, retention: timedelta | None, days: int
) -> None:
    engine.call("set_retention", retention=retention)
    lease = engine.leased(worker_id="w:2")
    engine.complete(lease)
    engine.call("stop_worker", worker_id="w:2")
    engine.later(days=days, seconds=-1)
    engine.tick()
    assert workers(engine)["w:2"] == "stopped"
    engine.later(seconds=2)
    engine.tick()
    assert "w:2" not in workers(engine)
    assert engine.run(lease.run_id)["last_worker_id"] == "w:2"
    assert "run.started" in engine.types(lease.run_id)
    engine.worker("w:2")
    assert workers(engine)["w:2"] == "alive"


def test_a_worker_that_died_is_known_as_dead_until_then(engine: Engine) -> None:
    run_id = engine.leased(worker_id="w:2").run_id
    died_at = engine.worker_status("w:2")["beat_at"]
    engine.later(days=2)
    engine.tick()
    status = engine.worker_status("w:2")
    assert (status["status"], status["beat_at"]) == ("dead", died_at)
    assert engine.state(run_id) == "pending"
    engine.later(days=29)
    engine.tick()
    assert "w:2" not in workers(engine)


def test_a_worker_that_came_back_is_not_forgotten(engine: Engine) -> None:
    engine.worker("w:2")
    engine.later(days=2)
    engine.tick()
    engine.worker("w:2")
    engine.later(days=31)
    engine.beat(worker_id="w:2")
    engine.tick()
    assert workers(engine)["w:2"] == "alive"


def test_a_tick_forgets_a_hundred_workers_at_most(engine: Engine) -> None:
    for n in range(101):
        engine.worker(f"gone:{n}")
        engine.call("stop_worker", worker_id=f"gone:{n}")
    engine.later(days=31)
    known = [len(workers(engine))]
    while not known[1:] or known[-1] < known[-2]:
        engine.tick()
        known.append(len(workers(engine)))
    assert max(before - after for before, after in pairwise(known)) == 100
    assert not any(name.startswith("gone:") for name in workers(engine))


def test_a_hundred_dead_workers_without_runs_do_not_stand_before_one_that_has_some(
    engine: Engine,
) -> None:
    for n in range(101):
        engine.worker(f"dead:{n:03}")
    run_id = engine.leased(worker_id="z:1").run_id
    engine.later(seconds=61)
    engine.tick()
    assert engine.state(run_id) == "pending"
