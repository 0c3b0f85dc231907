"""reject with rollback_to: the run goes on from an earlier point, told why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Lease, Row


def written(engine: Engine, **more: Any) -> Lease:
    """Return the lease of a run with the steps research, draft and check."""
    lease = engine.leased(**more)
    engine.record_steps(lease, research="1", draft="2", check="3")
    return lease


def asked(engine: Engine, *waits: Row, **more: Any) -> UUID:
    """Return a run that has done its steps and asks for approval."""
    lease = written(engine)
    line = engine.park(lease, *waits or ({"key": "ok"},), **more)
    assert line["outcome"] == "done"
    return lease.run_id


def open_task(engine: Engine, run_id: UUID, key: str = "ok") -> UUID:
    task_id: UUID = engine.value(
        "select task_id from pgflow.inbox where run_id = %s and step = %s", run_id, key
    )
    return task_id


def roll_back(engine: Engine, run_id: UUID, to: str = "draft", key: str = "ok", **more: Any) -> Row:
    return engine.reject(open_task(engine, run_id, key), rollback_to=to, **more)


def entries(engine: Engine, run_id: UUID) -> list[tuple[str, int | None]]:
    """Return the keys of all entries with the round of those that were voided."""
    rows = engine.rows(
        "select key, round, voided from pgflow.journal_entries where run_id = %s"
        " order by event_no, round",
        run_id,
    )
    assert all(row["voided"] == (row["round"] is not None) for row in rows)
    return [(row["key"], row["round"]) for row in rows]


def undos(engine: Engine, lease: Lease, **steps: str) -> None:
    """Record steps that have something that undoes them."""
    engine.call(
        "record_step",
        run_ids=[lease.run_id] * len(steps),
        lease_nos=[lease.lease_no] * len(steps),
        keys=list(steps),
        digests=["aa"] * len(steps),
        values=list(steps.values()),
        undos=[True] * len(steps),
    )


def to_undo(lease: Lease) -> list[tuple[str, int]]:
    return [(e["key"], e["round"]) for e in lease.body.get("undo") or [] if e.get("undo", True)]


# ---- what it does


def test_the_run_goes_on_from_there_and_the_handler_is_told_why(engine: Engine) -> None:
    run_id = asked(engine)
    task = open_task(engine, run_id)
    decision = roll_back(engine, run_id, comment="too long")
    assert (decision["action"], decision["comment"]) == ("rejected", "too long")
    assert engine.state(run_id) == "pending"
    lease = engine.lease_of(run_id)
    assert [entry["key"] for entry in lease.body["journal"]] == ["research"]
    told = lease.body
    assert told["round"] == 1
    assert told["feedback"] == {
        "comment": "too long",
        "by": "postgres",
        "at": told["feedback"]["at"],
        "key": "ok",
        "task_id": str(task),
        "round": 1,
    }
    assert lease.body["attempt"] == 0


@pytest.mark.parametrize("to", ["research", "draft", "check"])
def test_an_entry_and_all_after_it_are_voided_and_kept_with_their_round(
    engine: Engine, to: str
) -> None:
    run_id = asked(engine)
    roll_back(engine, run_id, to)
    steps = ["research", "draft", "check"]
    gone = steps.index(to)
    assert entries(engine, run_id) == [
        (step, 0 if n >= gone else None) for n, step in enumerate(steps)
    ]


@pytest.mark.parametrize("on_reject", ["cancel", "fail", "resume"])
def test_whatever_else_a_rejection_does_a_rollback_goes_on(engine: Engine, on_reject: str) -> None:
    run_id = asked(engine, {"key": "ok", "on_reject": on_reject})
    roll_back(engine, run_id)
    assert engine.state(run_id) == "pending"


@pytest.mark.parametrize("kind", ["form", "input"])
def test_a_form_is_rejected_so_as_well(engine: Engine, kind: str) -> None:
    run_id = asked(engine, {"key": "ok", "kind": kind, "form": {}})
    roll_back(engine, run_id)
    assert engine.state(run_id) == "pending"


def test_the_timeline_tells_the_rejection_and_what_was_voided(engine: Engine) -> None:
    run_id = asked(engine)
    roll_back(engine, run_id, comment="too long")
    resolved, voided, back = engine.timeline(run_id)[-3:]
    assert (resolved["type"], resolved["payload"]["rollback_to"]) == ("task.resolved", "draft")
    assert (voided["type"], voided["payload"]["reason"]) == ("task.voided", "too long")
    assert (back["type"], back["by"]) == ("step.rolled_back", "postgres")
    assert back["payload"] == {
        "to": "draft",
        "round": 1,
        "voided": ["draft", "check"],
        "reason": "too long",
    }
    types = engine.types(run_id)
    assert types.count("step.completed") == 3  # what was done was done


def test_the_rejected_task_is_in_the_history_and_counts_no_more(engine: Engine) -> None:
    run_id = asked(engine)
    decision = roll_back(engine, run_id, comment="no")
    history = engine.one(
        "select * from pgflow.task_history where task_id = %s", decision["task_id"]
    )
    assert (history["state"], history["comment"]) == ("rejected", "no")
    assert history["voided_at"] == engine.now
    with engine.refused("PF402", "task_id"):
        engine.approve(decision["task_id"])


def test_the_same_again_is_a_no_op_that_returns_the_first_decision(engine: Engine) -> None:
    run_id = asked(engine)
    first = roll_back(engine, run_id)
    before = engine.place.rows()
    again = engine.reject(first["task_id"], rollback_to="draft")
    assert again == {**first, "repeated": True}
    assert engine.place.rows() == before


def test_the_request_is_made_anew_in_the_next_round(engine: Engine) -> None:
    run_id = asked(engine)
    first = roll_back(engine, run_id)["task_id"]
    lease = engine.lease_of(run_id)
    engine.record_steps(lease, draft="22", check="33")
    assert engine.park(lease)["outcome"] == "done"
    task = engine.one("select * from pgflow.inbox where run_id = %s", run_id)
    assert task["task_id"] != first
    assert task["round"] == 1
    engine.approve(task["task_id"])
    assert [e["key"] for e in engine.lease_of(run_id).body["journal"]] == [
        "research",
        "draft",
        "check",
        "ok",
    ]


def test_a_run_is_rolled_back_as_often_as_somebody_likes(engine: Engine) -> None:
    run_id = asked(engine)
    for n, to in enumerate(["check", "draft", "research"], 1):
        roll_back(engine, run_id, to, comment=str(n))
        lease = engine.lease_of(run_id)
        assert (lease.body["round"], lease.body["feedback"]["round"]) == (n, n)
        assert lease.body["feedback"]["comment"] == str(n)
        kept = {entry["key"] for entry in lease.body.get("journal") or []}
        engine.record_steps(
            lease, **{key: str(n) for key in ("research", "draft", "check") if key not in kept}
        )
        engine.park(lease)
    assert sorted(entries(engine, run_id), key=str) == sorted(
        [
            ("research", 2),
            ("draft", 1),
            ("draft", 2),
            ("check", 0),
            ("check", 1),
            ("check", 2),
            ("research", None),
            ("draft", None),
            ("check", None),
        ],
        key=str,
    )
    engine.approve(open_task(engine, run_id))
    engine.complete(engine.lease_of(run_id))
    assert (engine.state(run_id), engine.run(run_id)["round"]) == ("completed", 3)
    engine.timeline(run_id)


@pytest.mark.parametrize("to", ["publish", "ok", "", "k" * 600])
def test_an_unknown_entry_is_refused(engine: Engine, to: str) -> None:
    run_id = asked(engine)
    with engine.refused("PF105", "rollback_to") as refused:
        roll_back(engine, run_id, to)
    assert "research, draft, check" in str(refused.value.diag.message_detail)


def test_what_was_voided_before_is_unknown(engine: Engine) -> None:
    run_id = asked(engine)
    roll_back(engine, run_id)
    engine.park(engine.lease_of(run_id))
    with engine.refused("PF105", "rollback_to"):
        roll_back(engine, run_id)


def test_an_interrupt_is_not_rolled_back(engine: Engine) -> None:
    lease = written(engine)
    engine.park(lease, {"key": "i", "kind": "interrupt"})
    with engine.refused("PF101", "task_id"):
        roll_back(engine, lease.run_id, key="i")


def test_a_woken_run_is_claimed_before_new_work(engine: Engine) -> None:
    run_id = asked(engine)
    fresh = engine.enqueue()
    roll_back(engine, run_id)
    assert engine.acquire(1).run_ids == [run_id]
    assert engine.acquire(1).run_ids == [fresh]


# ---- what else the run has


def test_an_earlier_approval_is_kept_and_a_later_one_is_not(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, one="1")
    engine.park(lease, {"key": "a"})
    engine.approve(engine.task(lease.run_id, "a"))
    lease = engine.lease_of(lease.run_id)
    engine.record_steps(lease, two="2")
    engine.park(lease, {"key": "b"}, news=1)
    engine.approve(engine.task(lease.run_id, "b"))
    lease = engine.lease_of(lease.run_id)
    engine.park(lease, {"key": "ok"}, news=2)
    roll_back(engine, lease.run_id, "two")
    rows = engine.rows(
        "select key, state, voided_at is not null as voided from pgflow.task where run_id = %s"
        " order by key",
        lease.run_id,
    )
    assert [tuple(row.values()) for row in rows] == [
        ("a", "approved", False),
        ("b", "approved", True),
        ("ok", "rejected", True),
    ]
    assert [e["key"] for e in engine.lease_of(lease.run_id).body["journal"]] == ["one", "a"]


def test_a_decision_can_be_gone_back_to(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"key": "a"})
    engine.approve(engine.task(lease.run_id, "a"))
    engine.park(engine.lease_of(lease.run_id), {"key": "ok"}, news=1)
    roll_back(engine, lease.run_id, "a")
    lease = engine.lease_of(lease.run_id)
    assert lease.body.get("journal") in (None, [])
    assert engine.park(lease, {"key": "a"}, news=lease.body["news"])["outcome"] == "done"
    open_task(engine, lease.run_id, "a")  # which is there


def test_other_open_tasks_are_voided(engine: Engine) -> None:
    run_id = asked(engine, {"key": "ok"}, {"key": "b"})
    other = open_task(engine, run_id, "b")
    roll_back(engine, run_id)
    with engine.refused("PF402", "task_id") as refused:
        engine.approve(other)
    assert "counts no more" in str(refused.value)
    assert engine.types(run_id).count("task.voided") == 2
    assert engine.rows("select 1 from pgflow.inbox where run_id = %s", run_id) == []


def test_a_signal_goes_back_to_the_mailbox_and_is_taken_again(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, draft="1")
    pay = {"kind": "event", "key": "pay", "name": "pay"}
    for n in (1, 2):
        engine.tell("signal", run_id=lease.run_id, name="pay", payload=Jsonb(n))
    assert engine.park(lease, pay)["outcome"] == "news"
    engine.park(lease, news=1)
    roll_back(engine, lease.run_id)
    lease = engine.lease_of(lease.run_id)
    line = engine.park(lease, pay, news=lease.body["news"])
    assert (line["outcome"], [e["value"] for e in line["entries"]]) == ("news", [1])
    second = {"kind": "event", "key": "pay#2", "name": "pay"}
    line = engine.park(lease, second, news=line["news"])
    assert [e["value"] for e in line["entries"]] == [2]


def test_a_signal_that_was_taken_before_stays_taken(engine: Engine) -> None:
    lease = engine.leased()
    pay = {"kind": "event", "key": "pay", "name": "pay"}
    engine.tell("signal", run_id=lease.run_id, name="pay", payload=Jsonb(1))
    engine.park(lease, pay)
    engine.record_steps(lease, draft="1")
    engine.park(lease, news=1)
    roll_back(engine, lease.run_id)
    lease = engine.lease_of(lease.run_id)
    assert [e["key"] for e in lease.body["journal"]] == ["pay"]
    second = {"kind": "event", "key": "pay#2", "name": "pay"}
    assert engine.park(lease, second, news=1)["outcome"] == "done"


def test_children_are_cancelled_and_made_anew(engine: Engine) -> None:
    child = {"kind": "run", "key": "child", "handler": "h2", "input": {}}
    run_id = asked(engine, {"key": "ok"}, child)
    first = engine.value("select run_id from pgflow.run where parent_run_id = %s", run_id)
    roll_back(engine, run_id)
    assert engine.run(first)["error_code"] == "E-RUN-011"
    lease = engine.lease_of(run_id)
    assert engine.park(lease, child)["outcome"] == "done"
    second = engine.value("select run_id from pgflow.run where parent_run_id = %s", run_id)
    assert second != first
    engine.complete(engine.lease_of(second), output='"there"')
    (*_, entry) = engine.lease_of(run_id).body["journal"]
    assert entry["value"]["output"] == "there"


def test_a_tool_that_is_called_is_given_up(engine: Engine) -> None:
    tool = {"kind": "tool", "key": "tool", "tool": "t", "arguments": {}}
    run_id = asked(engine, {"key": "ok"}, tool)
    roll_back(engine, run_id)
    with engine.refused("PF204"):
        engine.tell("resolve_tool", run_id=run_id, key="tool", result=Jsonb(1))


def test_what_a_timeout_was_about_is_waited_for_again(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, draft="1")
    event = {"kind": "event", "key": "e", "name": "e", "timeout": 5}
    engine.park(lease, event)
    engine.later(seconds=5)
    engine.tick()
    lease = engine.lease_of(lease.run_id)
    assert lease.body["journal"][-1]["kind"] == "timeout"
    engine.park(lease, {"key": "ok"}, news=1)
    roll_back(engine, lease.run_id)
    lease = engine.lease_of(lease.run_id)
    assert engine.park(lease, event, news=lease.body["news"])["outcome"] == "done"
    assert engine.state(lease.run_id) == "waiting_event"


# ---- in which state the run is


def half_woken(engine: Engine) -> Lease:
    """Return the lease of a run that was woken by approval `a` while its task `ok` is open."""
    run_id = asked(engine, {"key": "ok"}, {"key": "a"}, wait_any=True)
    engine.approve(open_task(engine, run_id, "a"))
    return engine.lease_of(run_id)


def test_a_running_run_is_taken_from_its_worker(engine: Engine) -> None:
    lease = half_woken(engine)
    roll_back(engine, lease.run_id)
    run = engine.run(lease.run_id)
    assert (run["state"], run["worker_id"], run["attempt_count"]) == ("pending", None, 0)
    before = engine.place.rows()
    assert engine.complete(lease)[0]["outcome"] == "lost"
    assert engine.record_steps(lease, late="1")[0]["outcome"] == "lost"
    assert engine.park(lease, news=1)["outcome"] == "lost"
    assert engine.fail(lease)[0]["outcome"] == "lost"
    assert engine.place.rows() == before
    again = engine.lease_of(lease.run_id)
    assert again.lease_no == lease.lease_no + 1
    assert [e["key"] for e in again.body["journal"]] == ["research"]
    released = next(e for e in engine.timeline(lease.run_id) if e["type"] == "run.released")
    assert released["payload"] == {"reason": "rolled back"}


def test_a_running_run_that_is_rolled_back_gives_its_slot_at_once(engine: Engine) -> None:
    engine.call("define_queue", queue="default", max_concurrent=1)
    lease = half_woken(engine)
    roll_back(engine, lease.run_id)
    assert engine.lease_of(lease.run_id).lease_no == lease.lease_no + 1


def test_a_pending_run_is_rolled_back(engine: Engine) -> None:
    run_id = asked(engine, {"key": "ok"}, {"key": "a"}, wait_any=True)
    engine.approve(open_task(engine, run_id, "a"))
    roll_back(engine, run_id)
    assert [e["key"] for e in engine.lease_of(run_id).body["journal"]] == ["research"]


def test_a_run_that_waits_for_its_retry_goes_on_at_once(engine: Engine) -> None:
    lease = half_woken(engine)
    engine.fail(lease)
    assert engine.state(lease.run_id) == "scheduled"
    roll_back(engine, lease.run_id)
    assert engine.lease_of(lease.run_id).body["attempt"] == 1


def test_a_paused_run_stays_paused_and_goes_on_from_there_when_it_is_resumed(
    engine: Engine,
) -> None:
    run_id = asked(engine)
    engine.call("pause", run_id=run_id, reason="holidays")
    roll_back(engine, run_id)
    run = engine.run(run_id)
    assert (run["state"], run["pause_reason"], run["waits_for"]) == ("paused", "holidays", None)
    assert engine.acquire().leases == []
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert [e["key"] for e in engine.lease_of(run_id).body["journal"]] == ["research"]


def test_an_interrupted_run_is_rolled_back_by_what_it_asked_beside(engine: Engine) -> None:
    run_id = asked(engine, {"key": "ok"}, {"key": "i", "kind": "interrupt"})
    assert engine.state(run_id) == "paused"
    roll_back(engine, run_id)
    assert engine.state(run_id) == "pending"
    assert engine.rows("select 1 from pgflow.inbox where run_id = %s", run_id) == []
    assert [e["key"] for e in engine.lease_of(run_id).body["journal"]] == ["research"]


@pytest.mark.parametrize("on_reject", ["cancel", "fail"])
@pytest.mark.parametrize("state", ["paused", "scheduled", "pending", "running"])
def test_a_plain_rejection_ends_the_run_whatever_its_state(
    engine: Engine, state: str, on_reject: str
) -> None:
    ask = {"key": "ok", "on_reject": on_reject}
    run_id = asked(engine, ask, {"key": "a"}, wait_any=True)
    if state == "paused":
        engine.call("pause", run_id=run_id)
    else:
        engine.approve(open_task(engine, run_id, "a"))
    if state in {"running", "scheduled"}:
        lease = engine.lease_of(run_id)
        if state == "scheduled":
            engine.fail(lease)
    assert engine.state(run_id) == state
    engine.reject(open_task(engine, run_id))
    run = engine.run(run_id)
    assert run["error_code"] == "E-RUN-006"
    assert run["state"] == {"cancel": "cancelled", "fail": "failed"}[on_reject]
    engine.timeline(run_id)


def test_after_the_end_it_is_too_late(engine: Engine) -> None:
    run_id = asked(engine)
    task = open_task(engine, run_id)
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id"):
        engine.reject(task, rollback_to="draft")


# ---- undoing


def test_the_worker_is_told_what_to_undo_newest_first(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, draft="1")
    undos(engine, lease, book='{"id": 7}', pay="2")
    engine.record_steps(lease, mail="3")
    engine.park(lease)
    roll_back(engine, lease.run_id)
    lease = engine.lease_of(lease.run_id)
    assert to_undo(lease) == [("pay", 0), ("book", 0)]
    book = next(e for e in lease.body["undo"] if e["key"] == "book")
    assert (book["kind"], book["value"], book["digest"]) == ("step", {"id": 7}, "aa")


def test_what_is_kept_is_not_undone(engine: Engine) -> None:
    lease = engine.leased()
    undos(engine, lease, book="1", pay="2")
    engine.park(lease)
    roll_back(engine, lease.run_id, "pay")
    assert to_undo(engine.lease_of(lease.run_id)) == [("pay", 0)]


def test_where_nothing_has_to_be_undone_the_worker_is_told_nothing(engine: Engine) -> None:
    run_id = asked(engine)
    roll_back(engine, run_id)
    assert engine.lease_of(run_id).body.get("undo") is None


def test_what_was_undone_is_not_undone_again(engine: Engine) -> None:
    lease = engine.leased()
    undos(engine, lease, book="1", pay="2")
    engine.park(lease)
    roll_back(engine, lease.run_id, "book")
    lease = engine.lease_of(lease.run_id)
    engine.record_steps(lease, **{"undo/0/pay": "null"})
    engine.release(lease)
    lease = engine.lease_of(lease.run_id)
    assert to_undo(lease) == [("book", 0)]
    engine.record_steps(lease, **{"undo/0/book": "null"})
    engine.release(lease)
    assert engine.lease_of(lease.run_id).body.get("undo") is None


def test_a_rollback_keeps_the_record_of_what_was_undone(engine: Engine) -> None:
    lease = engine.leased()
    undos(engine, lease, book="1")
    engine.park(lease)
    roll_back(engine, lease.run_id, "book")
    lease = engine.lease_of(lease.run_id)
    engine.record_steps(lease, **{"undo/0/book": "null"})
    undos(engine, lease, book="2")
    engine.park(lease)
    roll_back(engine, lease.run_id, "book")
    lease = engine.lease_of(lease.run_id)
    assert to_undo(lease) == [("book", 1)]
    assert [e["key"] for e in lease.body["journal"]] == ["undo/0/book"]
    (book,) = (e for e in lease.body["undo"] if e.get("undo", True))
    assert book["value"] == 2


def test_what_two_rollbacks_left_is_undone_newest_first(engine: Engine) -> None:
    lease = engine.leased()
    undos(engine, lease, book="1", pay="1")
    engine.park(lease)
    roll_back(engine, lease.run_id, "pay")
    lease = engine.lease_of(lease.run_id)
    undos(engine, lease, pay="2")
    engine.park(lease)
    roll_back(engine, lease.run_id, "book")
    assert to_undo(engine.lease_of(lease.run_id)) == [("pay", 1), ("book", 1), ("pay", 0)]


def test_what_another_request_voids_is_undone_as_well(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"key": "ok", "payload": 1})
    engine.approve(open_task(engine, lease.run_id))
    lease = engine.lease_of(lease.run_id)
    undos(engine, lease, pay="1")
    engine.park(lease, {"key": "ok", "payload": 2}, news=1)
    engine.approve(open_task(engine, lease.run_id))
    assert to_undo(engine.lease_of(lease.run_id)) == [("pay", 0)]


def test_the_record_of_what_was_undone_is_nothing_to_go_back_to(engine: Engine) -> None:
    lease = engine.leased()
    undos(engine, lease, book="1")
    engine.park(lease)
    roll_back(engine, lease.run_id, "book")
    lease = engine.lease_of(lease.run_id)
    engine.record_steps(lease, **{"undo/0/book": "null"})
    engine.park(lease)
    with engine.refused("PF105", "rollback_to"):
        roll_back(engine, lease.run_id, "undo/0/book")
