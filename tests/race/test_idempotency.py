"""The same key, or the same run id, from several sessions at once: one run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.race.staging import Blocked, Two, check, held, refused, undone
from tests.sql.conftest import Connect, Engine


@pytest.fixture(params=["idempotency_key", "run_id", "both"])
def same(request: pytest.FixtureRequest, engine: Engine) -> dict[str, Any]:
    """Return what two calls of enqueue have in common."""
    run_id = engine.value("select pgflow._new_id()")
    given = {"idempotency_key": "race", "run_id": run_id}
    return given if request.param == "both" else {request.param: given[request.param]}


def how_many(engine: Engine) -> int:
    """Return how many runs the races of this file made."""
    return int(engine.value("select count(*) from pgflow.runs where handler = 'race'"))


def test_an_enqueue_that_waits_for_the_same_one_returns_its_run(
    engine: Engine, two: Two, blocked: Blocked, same: dict[str, Any]
) -> None:
    one, other = two
    with held(one):
        run_id = one.enqueue("race", **same)
        enqueuing = blocked(other, lambda: other.enqueue("race", **same), by=one)
    assert enqueuing.result() == run_id
    assert how_many(engine) == 1
    check(engine, run_id)


def test_an_enqueue_that_waits_for_one_which_is_undone_makes_the_run(
    engine: Engine, two: Two, blocked: Blocked, same: dict[str, Any]
) -> None:
    one, other = two
    with undone(one):
        one.enqueue("race", **same)
        enqueuing = blocked(other, lambda: other.enqueue("race", **same), by=one)
    assert engine.state(enqueuing.result()) == "pending"
    assert how_many(engine) == 1


def test_an_enqueue_that_waits_for_one_of_other_input_is_refused(
    engine: Engine, two: Two, blocked: Blocked, same: dict[str, Any]
) -> None:
    one, other = two
    with held(one):
        one.enqueue("race", input={"n": 1}, **same)
        enqueuing = blocked(other, lambda: other.enqueue("race", input={"n": 2}, **same), by=one)
    with refused("PF401"):
        enqueuing.result()
    assert how_many(engine) == 1


def test_an_enqueue_that_cannot_see_the_same_one_is_told_to_try_again(
    engine: Engine, connect: Connect, same: dict[str, Any]
) -> None:
    old = connect()
    old.conn.execute("begin isolation level repeatable read")
    old.value("select count(*) from pgflow.run")
    run_id = engine.enqueue("race", **same)
    with pytest.raises(psycopg.errors.SerializationFailure):
        old.enqueue("race", **same)
    old.conn.execute("rollback")
    assert old.enqueue("race", **same) == run_id


def test_an_enqueue_that_cannot_see_that_the_same_one_is_finished_is_told_to_try_again(
    engine: Engine, connect: Connect, same: dict[str, Any]
) -> None:
    old = connect()
    old.conn.execute("begin isolation level repeatable read")
    old.value("select count(*) from pgflow.run")
    run_id = engine.enqueue("race", **same)
    engine.call("cancel", run_id=run_id)
    with pytest.raises(psycopg.errors.SerializationFailure):
        old.enqueue("race", **same)
    old.conn.execute("rollback")
    assert old.enqueue("race", **same) == run_id
    assert (how_many(engine), engine.state(run_id)) == (1, "cancelled")


def test_batches_with_the_same_keys_in_opposite_order_do_not_deadlock(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    names = [f"race-{n}" for n in range(9)]
    inputs = [Jsonb({"key": name}) for name in names]

    def enqueue(who: Engine, step: int) -> list[UUID]:
        lines = who.call(
            "enqueue_many",
            handler="race",
            inputs=inputs[::step],
            idempotency_keys=names[::step],
        )
        return [line["enqueue_many"] for line in lines][::step]

    # Stopped half-way, a batch holds the keys before that, and none of those after.
    with undone(engine):
        engine.enqueue("race", idempotency_key="race-4", input={"key": "race-4"})
        first = blocked(one, lambda: enqueue(one, 1), by=engine)
        second = blocked(other, lambda: enqueue(other, -1), by=one)
    assert first.result() == second.result()
    assert how_many(engine) == len(names)


def test_two_retries_at_once_make_one_run(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    run_id = engine.enqueue()
    engine.call("cancel", run_id=run_id)
    with held(one):
        new = one.tell("retry", run_id=run_id)
        retrying = blocked(other, lambda: other.tell("retry", run_id=run_id), by=one)
    assert retrying.result() == new
    check(engine, run_id, new)


def test_a_retry_of_a_run_that_ends_meanwhile_retries_it_or_says_that_it_runs(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    worker, person = connect(), connect()
    lease = engine.leased()
    # Nothing of retry waits for a run; so that the end falls between its two looks, a table does.
    with held(worker):
        worker.rows("lock table pgflow.run in access exclusive mode")
        worker.complete(lease)
        retrying = blocked(person, lambda: person.tell("retry", run_id=lease.run_id), by=worker)
    try:
        new = retrying.result()
    except psycopg.Error as error:
        assert error.sqlstate == "PF201"  # noqa: PT017 - either is right
    else:
        assert engine.run(new)["retry_of"] == lease.run_id


@pytest.mark.parametrize("verb", ["enqueue", "register_worker"])
def test_the_first_use_of_a_queue_from_two_sessions_at_once_makes_it_once(
    engine: Engine, two: Two, blocked: Blocked, verb: str
) -> None:
    one, other = two

    def use(who: Engine) -> None:
        if verb == "enqueue":
            who.enqueue(queue="brand new")
        else:
            who.worker(f"w:{id(who)}", queues=["brand new"])

    with held(one):
        use(one)
        using = blocked(other, lambda: use(other), by=one)
    using.result()
    assert engine.queue_stats("brand new")["queue"] == "brand new"


def test_two_first_uses_of_priorities_at_once_are_both_known(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    with held(one):
        low = one.enqueue(priority=-8)
        enqueuing = blocked(other, lambda: other.enqueue(priority=8), by=one)
    high = enqueuing.result()
    engine.worker()
    assert engine.acquire().run_ids == [high, low]


def test_the_same_event_twice_at_once_is_one_event(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = engine.enqueue()
    event: dict[str, Any] = {"run_id": run_id, "type": "note", "idempotency_key": "once"}
    with held(one):
        (first,) = one.call("emit", **event)
        emitting = blocked(other, lambda: other.call("emit", **event), by=one)
    assert emitting.result()[0]["event_no"] == first["event_no"]
    assert engine.types(run_id).count("note") == 1
    check(engine, run_id)


def test_the_same_steps_twice_at_once_are_journalled_once(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    lease = engine.leased()
    with held(one):
        assert one.record_steps(lease, a="1", b="2") == []
        recording = blocked(other, lambda: other.record_steps(lease, a="1", b="2"), by=one)
    assert {line["outcome"] for line in recording.result()} <= {"already"}
    assert engine.types(lease.run_id).count("step.completed") == 2
    check(engine, lease.run_id)
