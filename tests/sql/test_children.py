"""Children: a handler asks for the run of another, and gets its result as if it had called it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.sql.waits import asked, child, children, entry, event, part, with_children

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row


def only(leases: list[Lease]) -> Lease:
    (lease,) = leases
    return lease


def id_at(when: datetime) -> UUID:
    """Return a UUID of version 7 of some time, the greatest of its millisecond."""
    return UUID(
        int=(int(when.timestamp() * 1000) << 80)
        | (7 << 76)
        | (2 << 62)
        | ((1 << 62) - 1)
        | (0xFFF << 64)
    )


def test_a_run_that_waits_for_a_child_holds_no_worker(engine: Engine) -> None:
    parent, _ = with_children(engine)
    run = engine.run(parent.run_id)
    assert (run["state"], run["waits_for"], run["worker_id"]) == ("waiting_event", ["c"], None)


def test_a_child_is_a_run_of_its_own(engine: Engine) -> None:
    parent, leases = with_children(engine)
    run = engine.run(only(leases).run_id)
    assert (run["handler"], run["input"], run["queue"]) == ("part", {"n": 1}, "default")
    assert (run["parent_run_id"], run["parent_key"]) == (parent.run_id, "c")
    assert run["root_run_id"] == parent.run_id


def test_its_worker_learns_who_its_parent_is(engine: Engine) -> None:
    parent, leases = with_children(engine)
    told = only(leases).body
    assert (told["parent_run_id"], told["root_run_id"]) == (str(parent.run_id),) * 2


def test_its_result_is_in_its_parents_journal(engine: Engine) -> None:
    parent, leases = with_children(engine, child(digest="aa"))
    engine.complete(*leases, output='{"y": 2}')
    (known,) = engine.lease_of(parent.run_id).body["journal"]
    assert (known["key"], known["kind"], known["digest"]) == ("c", "run", "aa")
    assert known["value"] == {
        "run_id": str(leases[0].run_id),
        "state": "completed",
        "output": {"y": 2},
        "error_code": None,
        "error_detail": None,
    }


def test_its_failure_is_in_its_parents_journal(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.fail(*leases, detail="no paper", retries=[False])
    assert engine.state(parent.run_id) == "pending"
    value = entry(engine, parent.run_id, "c")["value"]
    assert (value["state"], value["output"]) == ("failed", None)
    assert (value["error_code"], value["error_detail"]) == ("E-RUN-001", "no paper")


def test_that_it_was_cancelled_is_in_its_parents_journal(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.call("cancel", run_id=leases[0].run_id, reason="not now")
    value = entry(engine, parent.run_id, "c")["value"]
    assert (value["state"], value["error_detail"]) == ("cancelled", "Execution cancelled: not now")
    assert engine.state(parent.run_id) == "pending"


def test_that_it_timed_out_is_in_its_parents_journal(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.park(leases[0], {"key": "ok", "due_in": 5, "policy": "timeout"})
    engine.later(seconds=6)
    engine.tick()
    assert entry(engine, parent.run_id, "c")["value"]["error_code"] == "E-RUN-007"
    assert engine.state(parent.run_id) == "pending"


def test_that_its_task_was_rejected_is_in_its_parents_journal(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.park(leases[0])
    engine.reject(engine.task(leases[0].run_id))
    assert entry(engine, parent.run_id, "c")["value"]["error_code"] == "E-RUN-006"


def test_that_its_tool_failed_is_in_its_parents_journal(engine: Engine) -> None:
    parent, leases = with_children(engine, child(max_attempts=1))
    engine.park(leases[0], {"kind": "tool", "key": "t", "tool": "x"})
    engine.call("fail_tool", run_id=leases[0].run_id, key="t", error="no")
    assert entry(engine, parent.run_id, "c")["value"]["error_code"] == "E-RUN-016"


def test_an_output_that_cannot_be_stored_fails_the_child_and_tells_its_parent(
    engine: Engine,
) -> None:
    parent, leases = with_children(engine)
    engine.complete(*leases, output='"\\u0000"')
    assert entry(engine, parent.run_id, "c")["value"]["error_code"] == "E-RUN-017"


def test_the_timelines_tell_it(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.complete(*leases)
    assert engine.types(parent.run_id)[2:] == [
        "child.started",
        "run.waiting",
        "child.ended",
        "run.woken",
    ]
    *_, started, _, ended, _ = engine.timeline(parent.run_id)
    assert started["payload"] == {
        "run_id": str(leases[0].run_id),
        "key": "c",
        "handler": "part",
    }
    assert ended["payload"] == {
        "run_id": str(leases[0].run_id),
        "key": "c",
        "state": "completed",
    }


def test_the_last_child_wakes_the_parent_that_waits_for_all(engine: Engine) -> None:
    parent, leases = with_children(engine, child("a"), child("b"))
    engine.complete(leases[1])
    assert engine.state(parent.run_id) == "waiting_event"
    engine.complete(leases[0])
    assert engine.state(parent.run_id) == "pending"


def test_children_that_end_in_one_batch_wake_their_parents_once(engine: Engine) -> None:
    one, leases = with_children(engine, child("a"), child("b"))
    other, more = with_children(engine, child("a"), child("b"))
    engine.complete(*leases, *more)
    for parent in (one, other):
        assert engine.types(parent.run_id).count("run.woken") == 1
        assert engine.row(parent.run_id)["news"] == 2


def test_a_child_that_ends_while_its_parent_runs_is_news(engine: Engine) -> None:
    parent, leases = with_children(engine, child(), event("go"), wait_any=True)
    engine.call("signal", run_id=parent.run_id, name="go")
    held = engine.lease_of(parent.run_id)
    engine.complete(*leases)
    line = engine.park(held, child(), news=1)
    assert [known["key"] for known in line["entries"]] == ["c"]


def test_a_child_that_ends_while_its_parent_is_paused_counts_at_resume(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.call("pause", run_id=parent.run_id)
    engine.complete(*leases)
    assert engine.state(parent.run_id) == "paused"
    assert engine.tell("resume", run_id=parent.run_id) == "pending"


def test_a_child_and_its_parent_that_complete_in_one_batch_both_complete(engine: Engine) -> None:
    parent, leases = with_children(engine, child(), event("go"), wait_any=True)
    engine.call("signal", run_id=parent.run_id, name="go")
    held = engine.lease_of(parent.run_id)
    assert engine.complete(*leases, held) == []
    assert engine.state(leases[0].run_id) == engine.state(parent.run_id) == "completed"


# ---- its own life


def test_a_child_that_fails_is_tried_again_as_its_attempts_say(engine: Engine) -> None:
    parent, leases = with_children(engine, child(max_attempts=2))
    assert engine.fail(*leases)[0]["state"] == "scheduled"
    assert engine.state(parent.run_id) == "waiting_event"
    engine.later(minutes=1)
    again = engine.lease_of(leases[0].run_id)
    engine.complete(again)
    assert engine.state(parent.run_id) == "pending"
    assert engine.run(leases[0].run_id)["attempt_count"] == 1


def test_a_child_whose_worker_died_tells_its_parent_when_its_attempts_are_used_up(
    engine: Engine,
) -> None:
    lease = engine.leased()
    engine.park(lease, child(max_attempts=1))
    engine.worker("w:2")
    engine.acquire(worker_id="w:2")
    engine.later(seconds=61)
    engine.beat()
    assert engine.tick()["failed"] == 1
    assert entry(engine, lease.run_id, "c")["value"]["error_code"] == "E-RUN-002"
    assert engine.state(lease.run_id) == "pending"


def test_a_child_whose_worker_died_is_tried_again(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, child(max_attempts=2))
    engine.worker("w:2")
    engine.acquire(worker_id="w:2")
    engine.later(seconds=61)
    engine.beat()
    assert engine.tick()["requeued"] == 1
    assert engine.state(lease.run_id) == "waiting_event"


def test_parent_and_child_whose_worker_died_are_both_taken_back(engine: Engine) -> None:
    parent, _ = with_children(engine, child(), event("go"), wait_any=True)
    engine.call("signal", run_id=parent.run_id, name="go")
    engine.lease_of(parent.run_id)
    engine.later(seconds=61)
    assert engine.tick()["requeued"] == 2


def test_a_parent_whose_worker_died_for_the_last_time_takes_its_child_with_it(
    engine: Engine,
) -> None:
    lease = engine.leased(max_attempts=1)
    engine.park(lease, child(), event("go"), wait_any=True)
    engine.call("signal", run_id=lease.run_id, name="go")
    engine.acquire()
    engine.later(seconds=61)
    counts = engine.tick()
    assert (counts["failed"], counts["requeued"]) == (1, 0)
    (run,) = children(engine, lease.run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")


def test_a_child_comes_before_new_work(engine: Engine) -> None:
    lease = engine.leased()
    new = engine.enqueue()
    engine.park(lease, child())
    assert engine.acquire().run_ids == [part(engine, lease.run_id), new]


@pytest.mark.parametrize(
    ("asking", "column", "value"),
    [
        ({"queue": "parts"}, "queue", "parts"),
        ({"priority": -3}, "priority", -3),
        ({"max_attempts": 7}, "max_attempts", 7),
        ({"run_timeout": 9}, "timeout", timedelta(seconds=9)),
        ({"tags": ["a", "b"]}, "tags", ["a", "b"]),
        ({"input": [1, "x"]}, "input", [1, "x"]),
        ({}, "priority", 4),
        ({}, "max_attempts", 3),
        ({}, "tags", None),
    ],
    ids=str,
)
def test_it_is_made_as_it_was_asked_for(
    engine: Engine, asking: Row, column: str, value: object
) -> None:
    lease = engine.leased(priority=4)
    engine.park(lease, child(**asking))
    assert engine.run(part(engine, lease.run_id))[column] == value


def test_its_handlers_registration_holds_for_it(engine: Engine) -> None:
    engine.worker(
        queues=["default", "parts"],
        handlers=[{"handler": "part", "queue": "parts", "max_attempts": 5, "timeout": 9}],
    )
    lease = engine.leased()
    engine.park(lease, child())
    run = engine.run(part(engine, lease.run_id))
    assert (run["queue"], run["max_attempts"]) == ("parts", 5)
    assert run["timeout"] == timedelta(seconds=9)


@pytest.mark.parametrize(
    "asking",
    [
        {"handler": None},
        {"handler": ""},
        {"handler": "h" * 201},
        {"queue": ""},
        {"priority": 10},
        {"max_attempts": 0},
        {"run_timeout": -1},
        {"run_timeout": "soon"},
        {"tags": ["t" * 101]},
        {"tags": ["t"] * 51},
        {"tags": "t"},
    ],
    ids=lambda asking: str(asking)[:30],
)
def test_what_no_run_may_have_is_refused(engine: Engine, asking: Row) -> None:
    lease = engine.leased()
    before = engine.place.rows()
    assert engine.park(lease, child(**asking))["outcome"] == "refused"
    assert engine.place.rows() == before


def test_its_correlation_id_and_deadline_are_its_parents(engine: Engine) -> None:
    deadline = engine.now + timedelta(hours=1)
    lease = engine.leased(correlation_id="order 7", deadline=deadline)
    engine.park(lease, child())
    run = engine.run(part(engine, lease.run_id))
    assert (run["correlation_id"], run["deadline"]) == ("order 7", deadline)


def test_without_one_its_correlation_id_is_its_parents_id(engine: Engine) -> None:
    parent, leases = with_children(engine)
    assert engine.run(leases[0].run_id)["correlation_id"] == str(parent.run_id)


def test_its_deadline_ends_it_with_its_parent(engine: Engine) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(minutes=1))
    engine.park(lease, child())
    engine.later(minutes=1)
    engine.tick()
    assert engine.state(lease.run_id) == "timeout"
    assert engine.run(part(engine, lease.run_id))["error_code"] == "E-RUN-011"


def test_ids_are_greater_than_the_parents_even_if_a_client_gave_it_a_later_one(
    engine: Engine,
) -> None:
    later = id_at(datetime.now(engine.now.tzinfo) + timedelta(minutes=4))
    lease = engine.leased(run_id=later)
    engine.park(lease, child("a"), child("b"))
    held = engine.acquire().leases
    engine.park(held[0], child("a", handler="part of part"))
    grandchild = part(engine, held[0].run_id, "a")
    assert lease.run_id < held[0].run_id < grandchild
    assert lease.run_id < held[1].run_id
    assert all(run_id.version == 7 for run_id in (held[0].run_id, held[1].run_id, grandchild))


def test_a_queues_limit_holds_for_children_too(engine: Engine) -> None:
    engine.call("define_queue", queue="parts", max_concurrent=1)
    lease = engine.leased()
    engine.park(lease, *(child(key, queue="parts") for key in "abc"))
    engine.worker("w:2", ["parts"])
    for left in (2, 1, 0):
        (held,) = engine.acquire(worker_id="w:2", queues=["parts"]).leases
        assert engine.queue_stats("parts")["pending"] == left
        engine.complete(held)
    assert engine.state(lease.run_id) == "pending"


def test_a_parent_and_its_child_in_a_queue_of_one_do_not_wait_for_each_other(
    engine: Engine,
) -> None:
    engine.call("define_queue", queue="one", max_concurrent=1)
    lease = engine.leased(queue="one")
    engine.park(lease, child(queue="one"))
    (held,) = engine.acquire(queues=["one"]).leases
    engine.complete(held)
    assert engine.lease_of(lease.run_id, queues=["one"]).body["news"] == 1


def test_retrying_a_child_is_a_run_without_a_parent(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.fail(*leases, retries=[False])
    again = engine.run(engine.tell("retry", run_id=leases[0].run_id))
    assert (again["parent_run_id"], again["retry_of"]) == (None, leases[0].run_id)
    assert again["correlation_id"] == str(parent.run_id)


# ---- the parent ends


def ended(engine: Engine, lease: Lease, how: str) -> None:
    """End a run that was woken by a signal."""
    engine.call("signal", run_id=lease.run_id, name="go")
    if how == "cancel":
        engine.call("cancel", run_id=lease.run_id)
    elif how == "deadline":
        engine.later(hours=2)
        engine.tick()
    elif how == "complete":
        engine.complete(engine.lease_of(lease.run_id))
    else:
        engine.fail(engine.lease_of(lease.run_id), retries=[False])


@pytest.mark.parametrize("how", ["cancel", "deadline", "complete", "fail"])
def test_when_a_parent_ends_its_children_end_and_their_tasks_close(
    engine: Engine, how: str
) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(hours=1))
    engine.park(lease, child("a"), child("b"), child("c"), event("go"), wait_any=True)
    first, _, third = sorted(engine.acquire(3).leases, key=lambda held: held.run_id)
    engine.park(first)
    engine.call("pause", run_id=third.run_id)
    engine.beat()
    ended(engine, lease, how)
    for run in children(engine, lease.run_id):
        assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")
        assert run["finished_at"] == engine.run(lease.run_id)["finished_at"]
    assert engine.rows("select 1 from pgflow.inbox where run_id = %s", first.run_id) == []


def test_the_end_of_a_parent_and_its_children_is_one_transaction(engine: Engine) -> None:
    parent, _ = with_children(engine, child("a"), child("b"))
    engine.conn.execute("begin")
    engine.call("cancel", run_id=parent.run_id)
    assert {run["state"] for run in children(engine, parent.run_id)} == {"cancelled"}
    engine.conn.execute("rollback")
    assert {run["state"] for run in children(engine, parent.run_id)} == {"running"}


def test_the_handlers_of_its_children_are_interrupted(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.call("cancel", run_id=parent.run_id)
    assert [line["outcome"] for line in engine.beat(*leases)] == ["lost"]
    assert engine.complete(*leases)[0]["outcome"] == "lost"


def test_grandchildren_end_too(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.park(leases[0], child("d"))
    (grandchild,) = engine.acquire().leases
    engine.park(grandchild)
    assert engine.run(grandchild.run_id)["root_run_id"] == parent.run_id
    engine.call("cancel", run_id=parent.run_id)
    for run_id in (leases[0].run_id, grandchild.run_id):
        assert engine.run(run_id)["error_code"] == "E-RUN-011"
    assert engine.rows("select 1 from pgflow.inbox where run_id = %s", grandchild.run_id) == []


def test_when_a_child_ends_its_own_children_end_and_its_parent_is_told(engine: Engine) -> None:
    parent, leases = with_children(engine)
    engine.park(leases[0], child("d"))
    grandchild = part(engine, leases[0].run_id, "d")
    engine.call("cancel", run_id=leases[0].run_id)
    assert engine.run(grandchild)["error_code"] == "E-RUN-011"
    assert engine.state(parent.run_id) == "pending"


def test_a_childs_end_leaves_its_siblings_alone(engine: Engine) -> None:
    parent, leases = with_children(engine, child("a"), child("b"))
    engine.call("cancel", run_id=leases[0].run_id)
    assert engine.state(leases[1].run_id) == "running"
    assert asked(engine, parent.run_id) == {"b"}


def test_a_finished_child_of_a_parent_that_ends_stays_as_it_ended(engine: Engine) -> None:
    parent, leases = with_children(engine, child("a"), child("b"))
    engine.complete(leases[0])
    engine.call("cancel", run_id=parent.run_id)
    assert [engine.state(held.run_id) for held in leases] == ["completed", "cancelled"]


# ---- rolled back


def rolled_back(engine: Engine) -> tuple[Lease, Lease]:
    """Return a run that was rolled back while its child was running, and the child."""
    lease = engine.leased()
    engine.record_steps(lease, a="1")
    engine.park(lease, {"key": "ok"}, child())
    (held,) = engine.acquire().leases
    engine.reject(engine.task(lease.run_id), rollback_to="a", comment="again")
    return engine.lease_of(lease.run_id), held


def test_a_child_whose_key_was_voided_is_cancelled_and_tells_nobody(engine: Engine) -> None:
    lease, held = rolled_back(engine)
    run = engine.run(held.run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")
    assert (lease.body["news"], lease.body.get("journal")) == (0, None)
    assert engine.complete(held)[0]["outcome"] == "lost"


def test_asked_for_again_it_is_another_child(engine: Engine) -> None:
    lease, held = rolled_back(engine)
    engine.park(lease, child())
    again = part(engine, lease.run_id)
    assert again != held.run_id
    engine.complete(engine.lease_of(again))
    assert entry(engine, lease.run_id, "c")["value"]["run_id"] == str(again)
