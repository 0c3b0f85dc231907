"""No wake-up is lost, whoever comes first and whatever the isolation level is."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from tests.race.staging import Blocked, Two, check, half_woken, held, keys, refused, undone
from tests.sql.conftest import Engine


def test_an_approval_between_claim_and_park_is_told_to_the_worker(engine: Engine, two: Two) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    person.approve(task)
    parked = worker.park(lease, {"key": "b"}, news=1)
    assert (parked["outcome"], parked["news"], keys(parked["entries"])) == ("news", 2, {"b"})
    assert engine.state(lease.run_id) == "running"
    check(engine, lease.run_id)


def test_a_park_that_waits_for_an_approval_does_not_park(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    with held(person):
        person.approve(task)
        parking = blocked(worker, lambda: worker.park(lease, {"key": "b"}, news=1), by=person)
    parked = parking.result()
    assert (parked["outcome"], parked["news"], keys(parked["entries"])) == ("news", 2, {"b"})
    assert engine.state(lease.run_id) == "running"
    check(engine, lease.run_id)


def test_a_park_that_waits_for_an_approval_which_is_undone_parks(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    with undone(person):
        person.approve(task)
        parking = blocked(worker, lambda: worker.park(lease, {"key": "b"}, news=1), by=person)
    assert parking.result()["outcome"] == "done"
    person.approve(task)
    assert engine.state(lease.run_id) == "pending"
    check(engine, lease.run_id)


def test_an_approval_that_waits_for_a_park_wakes_the_run(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    with held(worker):
        assert worker.park(lease, {"key": "b"}, news=1)["outcome"] == "done"
        approving = blocked(person, lambda: person.approve(task), by=worker)
    assert not approving.result()["repeated"]
    assert keys(engine.lease_of(lease.run_id).body["journal"]) == {"a", "b"}
    check(engine, lease.run_id)


def test_an_approval_that_waits_for_a_park_which_is_undone_is_news_to_the_worker(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    with undone(worker):
        worker.park(lease, {"key": "b"}, news=1)
        approving = blocked(person, lambda: person.approve(task), by=worker)
    assert not approving.result()["repeated"]
    assert worker.park(lease, {"key": "b"}, news=1)["outcome"] == "news"
    check(engine, lease.run_id)


def test_in_one_statement_a_run_is_parked_and_another_gets_its_news(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    halves = [half_woken(engine), half_woken(engine)]
    (first, task_1), (second, task_2) = sorted(halves, key=lambda half: half[0].run_id)
    parks = Jsonb([worker.parking(lease, {"key": "b"}, news=1) for lease in (second, first)])
    with held(person):
        person.approve(task_2)
        parking = blocked(worker, lambda: worker.call("park", parks=parks), by=person)
    outcomes = {line["run_id"]: line["outcome"] for line in parking.result()}
    assert outcomes == {first.run_id: "done", second.run_id: "news"}
    person.approve(task_1)
    assert engine.state(first.run_id) == "pending"
    check(engine, first.run_id, second.run_id)


def test_both_approvals_of_one_statement_count(engine: Engine, two: Two, blocked: Blocked) -> None:
    worker, person = two
    run_id = engine.waiting({"key": "a"}, {"key": "b"})
    decide = "select d.* from pgflow.task t, pgflow.approve(t.task_id) d where t.run_id = %s"
    with held(worker):
        worker.call("emit", run_id=run_id, type="note")
        approving = blocked(person, lambda: person.rows(decide, run_id), by=worker)
    assert len(approving.result()) == 2
    assert engine.state(run_id) == "pending"
    check(engine, run_id)


@pytest.mark.parametrize("wait_any", [False, True], ids=["all", "any"])
def test_two_decisions_at_once_wake_the_run_once(
    engine: Engine, two: Two, blocked: Blocked, *, wait_any: bool
) -> None:
    one, other = two
    run_id = engine.waiting({"key": "a"}, {"key": "b", "on_reject": "resume"}, wait_any=wait_any)
    task_a, task_b = engine.task(run_id, "a"), engine.task(run_id, "b")
    with held(one):
        one.approve(task_a)
        deciding = blocked(other, lambda: other.reject(task_b), by=one)
    assert not deciding.result()["repeated"]
    assert engine.types(run_id).count("run.woken") == 1
    lease = engine.lease_of(run_id)
    assert (keys(lease.body["journal"]), lease.body["news"]) == ({"a", "b"}, 2)
    check(engine, run_id)


@pytest.mark.parametrize("wait_any", [False, True], ids=["all", "any"])
def test_a_decision_that_waits_for_one_which_is_undone_counts_alone(
    engine: Engine, two: Two, blocked: Blocked, *, wait_any: bool
) -> None:
    one, other = two
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=wait_any)
    task_a, task_b = engine.task(run_id, "a"), engine.task(run_id, "b")
    with undone(one):
        one.approve(task_a)
        deciding = blocked(other, lambda: other.approve(task_b), by=one)
    deciding.result()
    assert engine.state(run_id) == ("pending" if wait_any else "waiting_approval")
    one.approve(task_a)
    assert engine.state(run_id) == "pending"
    check(engine, run_id)


def test_the_same_decision_twice_at_once_is_one_decision(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(one):
        one.approve(task, comment="first")
        deciding = blocked(other, lambda: other.approve(task, comment="second"), by=one)
    decision = deciding.result()
    assert (decision["repeated"], decision["comment"]) == (True, "first")
    check(engine, run_id)


def test_of_an_approval_and_a_rejection_at_once_the_first_stands(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(one):
        one.approve(task)
        rejecting = blocked(other, lambda: other.reject(task), by=one)
    with refused("PF402"):
        rejecting.result()
    assert engine.state(run_id) == "pending"
    check(engine, run_id)


def test_a_claim_that_is_older_than_an_approval_gets_it_as_news(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    engine.release(lease)
    with held(worker):
        lease = worker.lease_of(lease.run_id)
        approving = blocked(person, lambda: person.approve(task), by=worker)
    approving.result()
    assert (lease.body["news"], keys(lease.body["journal"])) == (1, {"a"})
    parked = worker.park(lease, {"key": "b"}, news=1)
    assert (parked["outcome"], keys(parked["entries"])) == ("news", {"b"})
    check(engine, lease.run_id)


def test_a_claim_passes_by_a_run_that_is_being_approved_and_gets_it_afterwards(
    engine: Engine, two: Two
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    engine.release(lease)
    with held(person):
        person.approve(task)
        assert worker.acquire().leases == []
    lease = worker.lease_of(lease.run_id)
    assert (lease.body["news"], keys(lease.body["journal"])) == (2, {"a", "b"})
    check(engine, lease.run_id)
