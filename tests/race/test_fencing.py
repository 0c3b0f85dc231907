"""Who lost the lease writes nothing; whoever ends a run first is the only one to end it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from tests.race.staging import Blocked, Two, check, held, outcome, undone
from tests.sql.conftest import Connect, Engine, Lease, Row

Write = Callable[[Engine, Lease], list[Row]]
Take = Callable[[Engine, Lease], object]

# What a worker says of a run that it holds.
WRITES: dict[str, Write] = {
    "complete": lambda worker, lease: worker.complete(lease),
    "fail": lambda worker, lease: worker.fail(lease),
    "fail for good": lambda worker, lease: worker.fail(lease, retries=[False]),
    "misfit": lambda worker, lease: worker.fail(lease, code="E-RUN-012"),
    "park": lambda worker, lease: [worker.park(lease)],
    "record_step": lambda worker, lease: worker.record_steps(lease, one="1"),
    "record_usage": lambda worker, lease: worker.record_usage(lease, {"call_key": "one"}),
    "record_artifact": lambda worker, lease: worker.call(
        "record_artifact", run_id=lease.run_id, lease_no=lease.lease_no, name="one", content="1"
    ),
    "release": lambda worker, lease: worker.release(lease),
}


def _reap(who: Engine, _: Lease) -> None:
    who.later(seconds=61)
    who.call("reap")


def _lease_again(who: Engine, lease: Lease) -> None:
    _reap(who, lease)
    who.worker("w:2")
    assert who.acquire(worker_id="w:2").run_ids == [lease.run_id]


def _lease_to_the_same_worker(who: Engine, lease: Lease) -> None:
    who.release(lease)
    assert who.acquire().run_ids == [lease.run_id]


def _pass_the_deadline(who: Engine, _: Lease) -> None:
    who.later(days=1)
    assert who.tick()["expired"] == 1


# How a lease is taken from it, and the state that its run is in then.
TAKES: dict[str, tuple[Take, str]] = {
    "reap": (_reap, "pending"),
    "cancel": (lambda who, lease: who.call("cancel", run_id=lease.run_id), "cancelled"),
    "pause": (lambda who, lease: who.call("pause", run_id=lease.run_id), "paused"),
    "lease to another": (_lease_again, "running"),
    "lease to the same worker": (_lease_to_the_same_worker, "running"),
    "deadline": (_pass_the_deadline, "timeout"),
    "stop_worker": (lambda who, _: who.call("stop_worker", worker_id="w:1"), "pending"),
}


def attempt(who: Engine, verb: str, run_id: UUID) -> object:
    """Call a verb and return what it said, or the code of its refusal."""
    try:
        match verb:
            case "acquire":
                return who.acquire().run_ids
            case "stop_worker":
                return who.tell(verb, worker_id="w:1")
            case _:
                return who.tell(verb, run_id=run_id)
    except psycopg.Error as error:
        return error.sqlstate


def leased(engine: Engine) -> Lease:
    """Lease a run to w:1."""
    engine.worker()
    return engine.leased(deadline=engine.now + timedelta(hours=20))


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize("write", WRITES)
def test_a_worker_that_lost_its_lease_while_it_waited_changes_nothing(
    engine: Engine, two: Two, blocked: Blocked, write: str, take: str
) -> None:
    worker, other = two
    lease = leased(engine)
    act, state = TAKES[take]
    with held(other):
        act(other, lease)
        going = blocked(worker, lambda: WRITES[write](worker, lease), by=other)
    before = engine.types(lease.run_id)
    assert outcome(going.result()) == ("already" if (write, take) in SAME else "lost")
    assert engine.types(lease.run_id) == before
    assert (engine.state(lease.run_id), engine.run(lease.run_id)["output"]) == (state, None)
    check(engine, lease.run_id)


# The run was given back, as the worker says: by whom makes no difference.
SAME = {("release", "stop_worker"), ("release", "lease to the same worker")}


@pytest.mark.parametrize("write", WRITES)
def test_a_worker_keeps_its_lease_when_what_it_waited_for_is_undone(
    engine: Engine, two: Two, blocked: Blocked, write: str
) -> None:
    worker, other = two
    lease = leased(engine)
    with undone(other):
        other.call("cancel", run_id=lease.run_id)
        going = blocked(worker, lambda: WRITES[write](worker, lease), by=other)
    assert outcome(going.result()) == "done"
    check(engine, lease.run_id)


@pytest.mark.parametrize("take", ["cancel", "pause", "stop_worker"])
@pytest.mark.parametrize("write", WRITES)
def test_what_waits_for_a_worker_s_word_finds_the_run_as_that_left_it(
    engine: Engine, two: Two, blocked: Blocked, write: str, take: str
) -> None:
    worker, other = two
    lease = leased(engine)
    with held(worker):
        assert outcome(WRITES[write](worker, lease)) == "done"
        going = blocked(other, lambda: attempt(other, take, lease.run_id), by=worker)
    said = going.result()
    state = engine.state(lease.run_id)
    if write in ("complete", "fail for good"):
        finished = {"complete": "completed", "fail for good": "failed"}[write]
        assert (state, said) == (finished, {"cancel": finished, "pause": "PF202"}.get(take, 0))
    elif take == "stop_worker":
        assert said == (1 if write.startswith("record") else 0)
    else:
        assert said == state == {"cancel": "cancelled", "pause": "paused"}[take]
    check(engine, lease.run_id)


@pytest.mark.parametrize("write", WRITES)
def test_the_reaper_passes_by_a_run_about_which_its_worker_is_speaking(
    engine: Engine, two: Two, write: str
) -> None:
    worker, reaper = two
    lease = leased(engine)
    reaper.later(seconds=61)
    with held(worker):
        assert outcome(WRITES[write](worker, lease)) == "done"
        assert reaper.call("reap") == [{"requeued": 0, "failed": 0}]
    after = 1 if write.startswith("record") else 0
    assert reaper.call("reap") == [{"requeued": after, "failed": 0}]
    check(engine, lease.run_id)


def test_a_beat_that_waits_for_the_reaper_says_what_is_lost(
    engine: Engine, two: Two, blocked: Blocked, level: str
) -> None:
    worker, reaper = two
    lease = leased(engine)
    reaper.later(seconds=61)
    worker.later(seconds=61)
    with held(reaper):
        reaper.call("reap")
        beating = blocked(worker, lambda: worker.beat(lease), by=reaper)
    # Under an older snapshot it is the next beat that says so.
    (line,) = beating.result() if level == "read committed" else worker.beat(lease)
    assert (line["run_id"], line["outcome"]) == (lease.run_id, "lost")
    assert engine.types(lease.run_id)[-1] == "run.requeued"
    check(engine, lease.run_id)


def test_the_reaper_passes_by_a_worker_that_is_beating(engine: Engine, two: Two) -> None:
    worker, reaper = two
    lease = leased(engine)
    reaper.later(seconds=61)
    worker.later(seconds=61)
    with held(worker):
        assert worker.beat(lease) == []
        assert reaper.call("reap") == [{"requeued": 0, "failed": 0}]
    assert reaper.call("reap") == [{"requeued": 0, "failed": 0}]
    assert worker.beat(lease) == []


def test_two_reapers_at_once_take_a_run_back_once(engine: Engine, two: Two) -> None:
    one, other = two
    lease = leased(engine)
    one.later(seconds=61)
    other.later(seconds=61)
    with held(one):
        assert one.call("reap") == [{"requeued": 1, "failed": 0}]
        assert other.call("reap") == [{"requeued": 0, "failed": 0}]
    assert other.call("reap") == [{"requeued": 0, "failed": 0}]
    assert engine.run(lease.run_id)["attempt_count"] == 1
    check(engine, lease.run_id)


def test_two_ticks_at_once_are_one(engine: Engine, two: Two) -> None:
    one, other = two
    run_id = engine.enqueue(run_at=engine.now + timedelta(seconds=9))
    one.later(seconds=9)
    other.later(seconds=9)
    with held(one):
        assert one.tick()["promoted"] == 1
        assert set(other.tick().values()) == {None}
    assert other.tick()["promoted"] == 0
    check(engine, run_id)


def test_a_tick_that_is_undone_is_done_by_the_next(engine: Engine, two: Two) -> None:
    one, other = two
    run_id = engine.enqueue(run_at=engine.now + timedelta(seconds=9))
    one.later(seconds=9)
    other.later(seconds=9)
    with undone(one):
        assert one.tick()["promoted"] == 1
    assert other.tick()["promoted"] == 1
    assert engine.state(run_id) == "pending"


# ---- of a worker that stops while it claims


def test_a_claim_that_waits_while_its_worker_stops_leases_nothing(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    operator, worker = connect(), connect()
    engine.worker()
    engine.call("define_queue", queue="default", max_concurrent=5)
    run_id = engine.enqueue()
    with held(operator):
        operator.call("define_queue", queue="default", max_concurrent=5)
        claiming = blocked(worker, lambda: attempt(worker, "acquire", run_id), by=operator)
        engine.call("stop_worker", worker_id="w:1")
    assert claiming.result() == "PF302"
    assert engine.state(run_id) == "pending"


def test_a_worker_that_stops_waits_for_its_claim_and_gives_it_back(
    engine: Engine, two: Two, blocked: Blocked, level: str
) -> None:
    worker, other = two
    engine.worker()
    run_id = engine.enqueue()
    with held(worker):
        assert worker.acquire().run_ids == [run_id]
        stopping = blocked(other, lambda: attempt(other, "stop_worker", run_id), by=worker)
    said = stopping.result()
    if level == "repeatable read":  # it does not see the claim; whoever reaps next does
        engine.call("reap")
    assert (said, engine.state(run_id)) == (int(level == "read committed"), "pending")
    check(engine, run_id)


def test_a_claim_that_waits_for_the_reaper_makes_its_worker_alive_again(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, reaper = two
    lease = leased(engine)
    reaper.later(seconds=61)
    worker.later(seconds=61)
    with held(reaper):
        reaper.call("reap")
        claiming = blocked(worker, worker.acquire, by=reaper)
    # Under an older snapshot it is the next look that finds what was taken back.
    assert (claiming.result().leases or worker.acquire().leases)[0].lease_no == 2
    assert reaper.call("reap") == [{"requeued": 0, "failed": 0}]
    check(engine, lease.run_id)


# ---- the slot of a lease that is taken away


@pytest.mark.parametrize("take", ["cancel", "pause", "deadline", "reap"])
def test_a_slot_is_free_once_what_took_the_run_away_is_committed(
    engine: Engine, connect: Connect, blocked: Blocked, take: str
) -> None:
    """And stays so though the handler, which did not hear of it yet, says that it is done."""
    worker, other = connect(), connect()
    engine.call("define_queue", queue="default", max_concurrent=1)
    lease = leased(engine)
    waiting = engine.enqueue(priority=9)
    act, _ = TAKES[take]
    with held(other):
        act(other, lease)
        assert worker.acquire().leases == []
        going = blocked(worker, lambda: worker.complete(lease), by=other)
    assert outcome(going.result()) == "lost"
    engine.worker("w:2")
    (following,) = engine.acquire(worker_id="w:2").leases
    assert following.run_id == waiting
    assert outcome(worker.complete(lease)) == "lost"
    assert engine.value("select run_id from pgflow.slot where queue = 'default'") == waiting
    assert engine.acquire(worker_id="w:2").leases == []
    check(engine, lease.run_id, waiting)


@pytest.mark.parametrize("take", ["cancel", "pause"])
def test_a_slot_is_still_held_when_what_took_the_run_away_is_undone(
    engine: Engine, connect: Connect, take: str
) -> None:
    worker, other = connect(), connect()
    engine.call("define_queue", queue="default", max_concurrent=1)
    lease = leased(engine)
    engine.enqueue()
    with undone(other):
        other.call(take, run_id=lease.run_id)
    assert worker.acquire().leases == []
    assert outcome(worker.complete(lease)) == "done"
    assert len(worker.acquire().leases) == 1
