"""tick: promotes, reaps, expires, and counts."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

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
