"""acquire: pending -> running, in order, within bounds."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine


def test_a_leased_run_is_running_under_its_worker(engine: Engine) -> None:
    lease = engine.leased()
    run = engine.run(lease.run_id)
    assert (run["state"], run["worker_id"], run["lease_no"]) == ("running", "w:1", 1)
    assert run["started_at"] == run["first_started_at"] == engine.now
    assert run["lease_until"] == engine.now + timedelta(seconds=60)
    assert run["heartbeat_at"] == engine.now


def test_the_worker_gets_all_that_it_needs(engine: Engine) -> None:
    deadline = engine.now + timedelta(hours=1)
    lease = engine.leased(
        input={"a": [1, None]},
        max_attempts=5,
        timeout=timedelta(minutes=2),
        deadline=deadline,
        correlation_id="c-1",
        tags=["t"],
        priority=2,
    )
    told = lease.body
    assert (told["handler"], told["queue"], told["input"]) == ("h", "default", {"a": [1, None]})
    assert (told["lease_no"], told["attempt"], told["max_attempts"]) == (1, 0, 5)
    assert (told["timeout"], told["priority"], told["tags"]) == (120, 2, ["t"])
    assert (told["correlation_id"], told["news"]) == ("c-1", 0)
    assert told["created_by"] == engine.run(lease.run_id)["created_by"] == "postgres"
    assert "journal" not in told
    assert told["deadline"].startswith(deadline.date().isoformat())


def test_a_resumed_run_brings_its_journal(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, a='{"x": 1}')
    engine.park(lease, {"key": "ok"})
    engine.approve(engine.task(lease.run_id), decision={"amount": 5})
    again = engine.lease_of(lease.run_id)
    assert (again.lease_no, again.body["news"]) == (2, 1)
    step, answer = again.body["journal"]
    assert (step["key"], step["kind"], step["value"]) == ("a", "step", {"x": 1})
    assert (step["digest"], step["lease_no"]) == ("aa", 1)
    assert (answer["key"], answer["kind"], answer["digest"]) == ("ok", "approval", None)
    assert answer["value"]["data"] == {"amount": 5}


def test_higher_priorities_come_first(engine: Engine) -> None:
    engine.worker()
    runs = {p: engine.enqueue(priority=p) for p in (0, -9, 5, 9, -1)}
    assert engine.acquire().run_ids == [runs[p] for p in (9, 5, 0, -1, -9)]


def test_runs_of_one_priority_come_in_the_order_of_their_arrival(engine: Engine) -> None:
    engine.worker()
    run_ids = [engine.enqueue() for _ in range(5)]
    assert engine.acquire(2).run_ids == run_ids[:2]
    assert engine.acquire(2).run_ids == run_ids[2:4]
    assert engine.acquire(2).run_ids == run_ids[4:]


def test_what_was_begun_comes_before_new_work_of_its_priority(engine: Engine) -> None:
    woken = engine.waiting()
    released = engine.leased()
    fresh, urgent = engine.enqueue(), engine.enqueue(priority=1)
    engine.release(released)
    engine.approve(engine.task(woken))
    assert engine.acquire().run_ids == [urgent, released.run_id, woken, fresh]


def test_no_more_are_leased_than_asked_for(engine: Engine) -> None:
    engine.worker()
    engine.enqueue_many([{}] * 5)
    assert len(engine.acquire(3).leases) == 3
    assert len(engine.acquire(3).leases) == 2


def test_a_worker_gets_runs_of_the_named_queues_only(engine: Engine) -> None:
    engine.worker(queues=["a", "b"])
    runs = {queue: engine.enqueue(queue=queue) for queue in ("c", "b", "a")}
    assert engine.acquire(queues=["b"]).run_ids == [runs["b"]]
    assert engine.acquire(queues=["a", "b"]).run_ids == [runs["a"]]


# Of more than ten queues those without work are passed over first.
MANY = [f"other-{number}" for number in range(10)]


@pytest.mark.parametrize("others", [[], MANY], ids=["few", "many"])
def test_queues_are_looked_at_in_the_order_in_which_they_are_named(
    engine: Engine, others: list[str]
) -> None:
    queues = [*others, "b", "a"]
    engine.worker(queues=queues)
    runs = {queue: engine.enqueue(queue=queue) for queue in ("a", "b")}
    assert engine.acquire(1, queues=queues).run_ids == [runs["b"]]


def test_a_queue_that_nobody_has_used_gives_nothing(engine: Engine) -> None:
    engine.worker()
    assert engine.acquire(queues=["nobody's"]).leases == []


def test_a_paused_queue_gives_nothing_until_it_is_resumed(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue()
    engine.call("pause_queue", queue="default")
    assert engine.acquire().leases == []
    engine.call("resume_queue", queue="default")
    assert engine.acquire().run_ids == [run_id]


@pytest.mark.parametrize("how", ["scheduled", "waiting", "paused", "running"])
def test_only_pending_runs_are_leased(engine: Engine, how: str) -> None:
    engine.worker()
    if how == "scheduled":
        engine.enqueue(run_at=engine.now + timedelta(seconds=1))
    elif how == "waiting":
        engine.waiting()
    elif how == "paused":
        engine.call("pause", run_id=engine.enqueue())
    else:
        engine.leased()
    assert engine.acquire().leases == []


def test_each_lease_has_a_higher_number_and_the_first_start_stays(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue()
    first_started = engine.now
    for lease_no in (1, 2, 3):
        lease = engine.lease_of(run_id)
        assert lease.lease_no == lease_no
        engine.release(lease)
        engine.later(seconds=1)
    run = engine.run(run_id)
    assert (run["first_started_at"], run["attempt_count"]) == (first_started, 0)


def test_two_workers_never_get_the_same_run(engine: Engine, connect: Connect) -> None:
    other = connect()
    engine.worker("w:1")
    other.worker("w:2")
    run_ids = engine.enqueue_many([{}] * 6)
    with engine.conn.transaction():
        mine = engine.acquire(3).run_ids
        theirs = other.acquire(6, worker_id="w:2").run_ids  # skips what is locked
    assert mine + theirs == run_ids


def test_a_lease_that_was_rolled_back_never_was(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue()
    with engine.conn.transaction(force_rollback=True):
        assert engine.acquire().run_ids == [run_id]
    assert engine.lease_of(run_id).lease_no == 1


@pytest.mark.parametrize("unused", ["stopped", "unknown"])
def test_a_worker_that_is_not_registered_is_refused(engine: Engine, unused: str) -> None:
    engine.enqueue()
    if unused == "stopped":
        engine.call("stop_worker", worker_id=engine.worker("w:9"))
    with engine.refused("PF302", "worker_id"):
        engine.acquire(worker_id="w:9")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_runs", None),
        ("max_runs", 0),
        ("max_runs", -1),
        ("max_runs", 10_001),
        ("queues", None),
        ("queues", []),
    ],
)
def test_a_bad_argument_is_refused_by_its_name(engine: Engine, field: str, value: object) -> None:
    engine.worker()
    engine.enqueue()
    given = {"worker_id": "w:1", "queues": ["default"], "max_runs": 1, field: value}
    with engine.refused("PF101", field):
        engine.call("acquire", **given)


def test_a_worker_of_another_project_is_unknown(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    engine.worker("w:9", project="acme")
    with engine.refused("PF302", "worker_id"):
        engine.acquire(worker_id="w:9")


@pytest.mark.parametrize("others", [[], MANY], ids=["few", "many"])
def test_a_queue_named_twice_is_looked_at_once(engine: Engine, others: list[str]) -> None:
    queues = ["default", *others, "default"]
    engine.worker()
    run_id = engine.enqueue()
    assert engine.acquire(queues=queues).run_ids == [run_id]
    look = engine.acquire(queues=queues)
    idle = {**look.marks["idle"], "since": look.marks["idle"]["since"] - 1}
    assert engine.acquire(1, {**look.marks, "idle": idle}, queues=queues).leases == []


def test_marks_that_are_no_object_are_refused(engine: Engine) -> None:
    engine.worker()
    with engine.refused("PF101", "marks"):
        engine.rows("select pgflow.acquire('w:1', '{default}', 1, '[]')")


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_batch_is_bounded_by_its_size_and_not_only_by_its_number(engine: Engine) -> None:
    engine.worker()
    big = {"text": secrets.token_hex(1_600_000)}  # 3.2 MB, which cannot be packed
    run_ids = engine.enqueue_many([big, big, {}, big, {}])
    assert engine.acquire().run_ids == run_ids[:4]
    assert engine.acquire().run_ids == run_ids[4:]


def test_due_runs_are_promoted_and_leased_by_the_same_call(engine: Engine) -> None:
    engine.worker()
    engine.acquire()
    run_id = engine.enqueue(run_at=engine.now + timedelta(seconds=3))
    engine.later(seconds=2)
    assert engine.acquire().leases == []
    engine.later(seconds=1)
    assert engine.acquire().run_ids == [run_id]


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_all_that_is_due_at_once_is_promoted_without_delay(engine: Engine) -> None:
    engine.worker()
    run_at = engine.now + timedelta(seconds=3)
    engine.enqueue_many([{}] * 1001, run_at=run_at)
    engine.later(seconds=3)
    assert len(engine.acquire(1000).leases) == 1000
    engine.later(milliseconds=10)
    assert len(engine.acquire(1000).leases) == 1


def test_runs_of_dead_workers_are_reaped_and_told(engine: Engine) -> None:
    lease = engine.leased()
    engine.worker("w:2")
    engine.later(seconds=61)
    look = engine.acquire(worker_id="w:2")
    assert look.reaped == [
        {
            "run_id": str(lease.run_id),
            "state": "pending",
            "worker_id": "w:1",
            "attempt_count": 1,
            "max_attempts": 3,
        }
    ]
    assert look.run_ids == [lease.run_id]


def test_a_worker_that_looks_for_work_is_not_reaped_by_itself(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(minutes=5)
    assert engine.acquire().reaped == []
    assert engine.run(lease.run_id)["heartbeat_at"] == engine.now


def test_runs_of_another_project_are_not_leased(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    engine.worker()
    engine.worker(project="acme")
    theirs = engine.enqueue(project="acme")
    assert engine.acquire().leases == []
    assert engine.acquire(project="acme").run_ids == [theirs]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_worker_may_use_any_isolation(engine: Engine, isolation: str) -> None:
    engine.worker()
    run_id = engine.enqueue()
    engine.conn.execute(f"set default_transaction_isolation to '{isolation}'")
    look = engine.acquire()
    assert look.run_ids == [run_id]
    assert engine.complete(look.leases[0]) == []
    assert engine.acquire(marks=look.marks).leases == []


def test_leases_come_as_json_that_a_worker_in_any_language_reads(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue(input={"text": "é ☃"})
    (row,) = engine.rows("select (pgflow.acquire('w:1', '{default}', 1)).runs::text")
    assert f'"run_id":"{run_id}"' in row["runs"]
    assert "é ☃" in row["runs"]


def test_the_run_id_is_of_version_7(engine: Engine) -> None:
    assert isinstance(run_id := engine.enqueue(), UUID)
    assert run_id.version == 7


def test_a_transaction_that_leases_and_fails_leaves_the_run_to_others(
    engine: Engine, connect: Connect
) -> None:
    engine.worker()
    run_id = engine.enqueue()
    with engine.conn.transaction(force_rollback=True):
        look = engine.acquire()
        with pytest.raises(psycopg.errors.DivisionByZero):
            engine.conn.execute("select 1 / 0")
    other = connect()
    other.worker("w:2")
    assert look.run_ids == other.acquire(worker_id="w:2").run_ids == [run_id]
