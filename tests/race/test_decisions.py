"""A decision against everything else that can happen to its run: one comes first, and both know."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.race.staging import (
    Blocked,
    Session,
    Two,
    check,
    half_woken,
    held,
    outcome,
    refused,
    undone,
)
from tests.sql.conftest import Engine

DUE = 60.0


def tick(who: Session) -> int | None:
    """Tick at the due time; returns how many expired."""
    who.later(seconds=DUE)
    expired: int | None = who.tick()["expired"]
    return expired


# ---- against the due time


def test_a_tick_passes_by_a_task_that_is_being_approved(engine: Engine, two: Two) -> None:
    person, worker = two
    run_id = engine.waiting({"key": "ok", "due_in": DUE})
    with held(person):
        person.approve(engine.task(run_id))
        assert tick(worker) == 0
    assert tick(worker) == 0
    assert engine.state(run_id) == "pending"
    check(engine, run_id)


def test_a_task_whose_approval_is_undone_expires_at_the_next_tick(engine: Engine, two: Two) -> None:
    person, worker = two
    run_id = engine.waiting({"key": "ok", "due_in": DUE})
    with undone(person):
        person.approve(engine.task(run_id))
        assert tick(worker) == 0
    assert tick(worker) == 1
    assert engine.run(run_id)["error_code"] == "E-RUN-007"
    check(engine, run_id)


def test_a_task_whose_approval_is_undone_at_its_due_time_expires_at_the_next_look(
    engine: Engine, two: Two
) -> None:
    person, worker = two
    run_id = engine.waiting({"key": "ok", "due_in": DUE})
    worker.later(seconds=DUE)
    with undone(person):
        person.approve(engine.task(run_id))
        worker.acquire()
    worker.acquire()
    assert engine.run(run_id)["error_code"] == "E-RUN-007"


def test_a_deadline_that_finds_its_run_locked_is_kept_at_the_next_look(
    engine: Engine, two: Two
) -> None:
    person, worker = two
    worker.worker()
    run_id = engine.enqueue(queue="elsewhere", deadline=engine.now.replace(year=2030))
    worker.set_clock(engine.now.replace(year=2030))
    with held(person):
        person.call("emit", run_id=run_id, type="note")
        worker.acquire()
    worker.acquire()
    assert engine.state(run_id) == "timeout"


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_decision_that_waits_for_the_expiry_comes_too_late(
    engine: Engine, two: Two, blocked: Blocked, verb: str
) -> None:
    person, worker = two
    run_id = engine.waiting({"key": "ok", "due_in": DUE})
    task = engine.task(run_id)
    with held(worker):
        assert tick(worker) == 1
        deciding = blocked(person, lambda: person.call(verb, task_id=task), by=worker)
    with refused("PF402"):
        deciding.result()
    assert (engine.state(run_id), engine.types(run_id)[-2]) == ("cancelled", "task.expired")
    check(engine, run_id)


def test_a_decision_that_waits_for_an_expiry_which_is_undone_counts(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, worker = two
    run_id = engine.waiting({"key": "ok", "due_in": DUE})
    task = engine.task(run_id)
    with undone(worker):
        assert tick(worker) == 1
        deciding = blocked(person, lambda: person.approve(task), by=worker)
    assert not deciding.result()["repeated"]
    assert tick(worker) == 0
    assert engine.state(run_id) == "pending"
    check(engine, run_id)


# ---- against cancel and the end


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_decision_that_waits_for_a_cancel_says_already_finished(
    engine: Engine, two: Two, blocked: Blocked, verb: str
) -> None:
    person, operator = two
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(operator):
        operator.call("cancel", run_id=run_id)
        deciding = blocked(person, lambda: person.call(verb, task_id=task), by=operator)
    with refused("PF202"):
        deciding.result()
    assert engine.types(run_id)[-1] == "run.cancelled"
    check(engine, run_id)


def test_a_cancel_that_waits_for_an_approval_cancels_the_woken_run(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, operator = two
    run_id = engine.waiting()
    with held(person):
        person.approve(engine.task(run_id))
        cancelling = blocked(operator, lambda: operator.tell("cancel", run_id=run_id), by=person)
    assert cancelling.result() == "cancelled"
    assert engine.types(run_id)[-3:] == ["task.resolved", "run.woken", "run.cancelled"]
    check(engine, run_id)


def test_a_cancel_that_waits_for_a_rejection_finds_the_run_ended(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, operator = two
    run_id = engine.waiting()
    with held(person):
        person.reject(engine.task(run_id), comment="no")
        cancelling = blocked(operator, lambda: operator.tell("cancel", run_id=run_id), by=person)
    assert cancelling.result() == "cancelled"
    assert engine.run(run_id)["error_code"] == "E-RUN-006"
    check(engine, run_id)


def test_a_result_that_waits_for_a_rejection_is_lost(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    with held(person):
        person.reject(task)
        completing = blocked(worker, lambda: worker.complete(lease), by=person)
    (line,) = completing.result()
    assert (line["outcome"], line["state"]) == ("lost", "cancelled")
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-006"
    check(engine, lease.run_id)


def test_a_rejection_that_waits_for_a_result_comes_too_late(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    with held(worker):
        assert outcome(worker.complete(lease)) == "done"
        rejecting = blocked(person, lambda: person.reject(task), by=worker)
    with refused("PF202"):
        rejecting.result()
    assert engine.state(lease.run_id) == "completed"
    check(engine, lease.run_id)


# ---- against pause and resume


def test_an_approval_that_waits_for_a_pause_is_kept_for_the_resume(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, operator = two
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(operator):
        operator.call("pause", run_id=run_id)
        approving = blocked(person, lambda: person.approve(task), by=operator)
    approving.result()
    assert engine.state(run_id) == "paused"
    assert operator.tell("resume", run_id=run_id) == "pending"
    assert len(engine.lease_of(run_id).body["journal"]) == 1
    check(engine, run_id)


def test_a_pause_that_waits_for_an_approval_pauses_the_woken_run(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, operator = two
    run_id = engine.waiting()
    with held(person):
        person.approve(engine.task(run_id))
        pausing = blocked(operator, lambda: operator.tell("pause", run_id=run_id), by=person)
    assert pausing.result() == "paused"
    assert operator.tell("resume", run_id=run_id) == "pending"
    assert len(engine.lease_of(run_id).body["journal"]) == 1
    check(engine, run_id)


def test_an_approval_that_waits_for_a_resume_wakes_the_run(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, operator = two
    run_id = engine.waiting()
    engine.call("pause", run_id=run_id)
    task = engine.task(run_id)
    with held(operator):
        assert operator.tell("resume", run_id=run_id) == "waiting_approval"
        approving = blocked(person, lambda: person.approve(task), by=operator)
    approving.result()
    assert engine.state(run_id) == "pending"
    check(engine, run_id)


@pytest.mark.parametrize("wait_any", [False, True], ids=["all", "any"])
def test_a_resume_that_waits_for_an_approval_finds_the_wait_satisfied(
    engine: Engine, two: Two, blocked: Blocked, *, wait_any: bool
) -> None:
    person, operator = two
    waits = [{"key": "ok"}, {"key": "b"}] if wait_any else [{"key": "ok"}]
    run_id = engine.waiting(*waits, wait_any=wait_any)
    engine.call("pause", run_id=run_id)
    with held(person):
        person.approve(engine.task(run_id))
        resuming = blocked(operator, lambda: operator.tell("resume", run_id=run_id), by=person)
    assert resuming.result() == "pending"
    check(engine, run_id)


def test_a_resume_that_waits_for_a_rejection_finds_the_run_ended(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, operator = two
    run_id = engine.waiting()
    engine.call("pause", run_id=run_id)
    with held(person):
        person.reject(engine.task(run_id))
        resuming = blocked(operator, lambda: operator.tell("resume", run_id=run_id), by=person)
    with refused("PF202"):
        resuming.result()
    check(engine, run_id)


@pytest.mark.parametrize(
    ("first", "second"), [("pause", "resume"), ("resume", "pause"), ("pause", "pause")]
)
def test_of_pause_and_resume_the_later_stands(
    engine: Engine, two: Two, blocked: Blocked, first: str, second: str
) -> None:
    one, other = two
    run_id = engine.waiting()
    if first == "resume":
        engine.call("pause", run_id=run_id)
    with held(one):
        one.call(first, run_id=run_id)
        going = blocked(other, lambda: other.tell(second, run_id=run_id), by=one)
    assert going.result() == engine.state(run_id)
    assert engine.state(run_id) == ("paused" if second == "pause" else "waiting_approval")
    check(engine, run_id)


# ---- against what else writes to the run


@pytest.mark.parametrize("wins", ["person", "other"])
@pytest.mark.parametrize("verb", ["emit", "record_step", "release"])
def test_events_of_a_decision_and_of_another_verb_are_numbered_one_after_the_other(
    engine: Engine, two: Two, blocked: Blocked, verb: str, wins: str
) -> None:
    person, other = two
    lease, task = half_woken(engine)
    verbs: dict[str, Callable[[], object]] = {
        "emit": lambda: other.call("emit", run_id=lease.run_id, type="note"),
        "record_step": lambda: other.record_steps(lease, one="1", two="2"),
        "release": lambda: other.release(lease),
    }
    if wins == "person":
        with held(person):
            person.approve(task)
            going = blocked(other, verbs[verb], by=person)
    else:
        with held(other):
            verbs[verb]()
            going = blocked(person, lambda: person.approve(task), by=other)
    going.result()
    assert "task.resolved" in engine.types(lease.run_id)
    check(engine, lease.run_id)
