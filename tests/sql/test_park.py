"""park: running -> waiting_approval, unless there is news that the worker has not seen."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row


def tasks(engine: Engine, run_id: UUID) -> list[Row]:
    return engine.rows("select * from pgflow.inbox where run_id = %s order by step", run_id)


def test_a_parked_run_waits_without_a_worker(engine: Engine) -> None:
    lease = engine.leased()
    line = engine.park(lease)
    assert (line["run_id"], line["outcome"], line["news"]) == (lease.run_id, "done", 0)
    run = engine.run(lease.run_id)
    assert (run["state"], run["waits_for"]) == ("waiting_approval", ["ok"])
    assert (run["worker_id"], run["lease_until"], run["started_at"]) == (None, None, None)
    assert run["attempt_count"] == 0


def test_its_task_is_in_the_inbox_with_all_that_was_asked(engine: Engine) -> None:
    lease = engine.leased()
    wait = {
        "key": "editor",
        "title": "Publish?",
        "payload": {"draft": 1},
        "assignee": "ann",
        "assignee_role": "editors",
        "due_in": 90,
        "policy": "timeout",
    }
    engine.park(lease, wait)
    (task,) = tasks(engine, lease.run_id)
    assert (task["step"], task["kind"], task["title"]) == ("editor", "approval", "Publish?")
    assert (task["payload"], task["state"]) == ({"draft": 1}, "open")
    assert (task["assignee"], task["assignee_role"], task["policy"]) == (
        "ann",
        "editors",
        "timeout",
    )
    assert (task["created_at"], task["due_at"]) == (
        engine.now,
        engine.now + timedelta(seconds=90),
    )
    assert (task["handler"], task["requested_by"]) == ("h", "postgres")


def test_an_approval_without_a_due_time_waits_for_ever(engine: Engine) -> None:
    run_id = engine.waiting()
    (task,) = tasks(engine, run_id)
    assert (task["due_at"], task["policy"]) == (None, "cancel")
    engine.later(hours=23)
    assert engine.tick()["expired"] == 0


def test_the_timeline_tells_what_was_asked_and_what_is_waited_for(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"key": "a", "assignee_role": "editors"}, {"key": "b"})
    *_, asked_a, asked_b, waiting = engine.timeline(lease.run_id)
    assert asked_a["type"] == asked_b["type"] == "task.requested"
    assert (asked_a["payload"]["key"], asked_a["payload"]["assignee_role"]) == ("a", "editors")
    assert asked_b["payload"]["key"] == "b"
    assert (waiting["type"], waiting["payload"]) == ("run.waiting", {"waits_for": ["a", "b"]})
    assert (waiting["lease_no"], waiting["worker_id"]) == (1, "w:1")


def test_asking_again_under_a_key_finds_the_task_that_is_there(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"})
    engine.approve(engine.task(run_id, "a"))
    engine.approve(engine.task(run_id, "b"))
    lease = engine.lease_of(run_id)
    assert engine.park(lease, {"key": "a"}, {"key": "c"}, news=2)["outcome"] == "done"
    assert [task["step"] for task in tasks(engine, run_id)] == ["c"]
    assert engine.types(run_id).count("task.requested") == 3


def test_the_same_again_is_already_done(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, cost_usd=1)
    before = engine.place.rows()
    assert engine.park(lease, cost_usd=1)["outcome"] == "already"
    assert engine.place.rows() == before


def test_the_same_again_is_already_done_when_the_run_has_gone_on(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease)
    engine.approve(engine.task(lease.run_id))
    assert engine.park(lease)["outcome"] == "already"
    engine.complete(engine.lease_of(lease.run_id))
    assert engine.park(lease)["outcome"] == "already"


@pytest.mark.parametrize("how", ["cancel", "pause", "release"])
def test_a_run_that_was_taken_away_is_lost(engine: Engine, how: str) -> None:
    lease = engine.leased()
    if how == "release":
        engine.release(lease)
    else:
        engine.call(how, run_id=lease.run_id)
    before = engine.place.rows()
    assert engine.park(lease)["outcome"] == "lost"
    assert engine.place.rows() == before


def test_a_wrong_lease_number_changes_nothing(engine: Engine) -> None:
    old = engine.leased()
    engine.release(old)
    engine.lease_of(old.run_id)
    before = engine.place.rows()
    assert engine.park(old)["outcome"] == "lost"
    assert engine.place.rows() == before


def test_a_run_that_nobody_knows_is_lost(engine: Engine) -> None:
    (line,) = engine.call(
        "park",
        parks=Jsonb([{"run_id": str(uuid4()), "lease_no": 1, "news": 0, "waits": [{"key": "a"}]}]),
    )
    assert line["outcome"] == "lost"


def news(engine: Engine) -> Lease:
    """Return the lease of a run that has learned of one decision, and may not know of the second.

    It waited for any of two approvals; the second came while it was running.
    """
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    lease = engine.lease_of(run_id)
    assert lease.body["news"] == 1
    engine.approve(engine.task(run_id, "b"), comment="late")
    return lease


def test_news_that_the_worker_has_not_seen_keeps_the_run_running(engine: Engine) -> None:
    lease = news(engine)
    line = engine.park(lease, {"key": "c"}, news=1)
    assert (line["outcome"], line["news"]) == ("news", 2)
    assert [entry["key"] for entry in line["entries"]] == ["b"]
    assert line["entries"][0]["value"]["comment"] == "late"
    assert engine.state(lease.run_id) == "running"
    assert engine.rows("select 1 from pgflow.inbox where run_id = %s", lease.run_id) == []
    assert engine.park(lease, {"key": "c"}, news=2)["outcome"] == "done"


def test_a_worker_that_does_not_say_what_it_has_seen_is_refused(engine: Engine) -> None:
    lease = news(engine)
    line = engine.park(lease, {"key": "c"}, news=None)
    assert line["outcome"] in {"refused", "news"}
    assert engine.state(lease.run_id) == "running"


def test_a_run_that_waits_for_any_is_woken_by_the_first(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "b"))
    assert engine.state(run_id) == "pending"


def test_a_run_that_waits_for_all_is_woken_by_the_last(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"})
    engine.approve(engine.task(run_id, "b"))
    assert engine.state(run_id) == "waiting_approval"
    engine.approve(engine.task(run_id, "a"))
    assert engine.state(run_id) == "pending"


def test_a_key_named_twice_does_not_make_the_run_wait_for_ever(engine: Engine) -> None:
    lease = engine.leased()
    if engine.park(lease, {"key": "a"}, {"key": "a"})["outcome"] == "done":
        engine.approve(engine.task(lease.run_id, "a"))
        assert engine.state(lease.run_id) == "pending"


def test_what_is_in_the_journal_already_cannot_be_waited_for(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, a="1")
    before = engine.place.rows()
    line = engine.park(lease, {"key": "a"})
    assert (line["outcome"], line["code"]) == ("refused", "PF101")
    assert engine.place.rows() == before


@pytest.mark.parametrize(
    "wait",
    [
        {"kind": "tool"},
        {"kind": None},
        {"key": ""},
        {"key": None},
        {"key": "k" * 501},
        {"title": ""},
        {"title": None},
        {"title": "t" * 501},
        {"due_in": 0},
        {"due_in": -1},
        {"due_in": 1e12},
        {"due_in": "soon"},
        {"policy": "escalate"},
        {"on_reject": "explode"},
        {"payload": "x" * 1_100_000},
    ],
    ids=lambda wait: str(wait)[:30],
)
def test_a_bad_wait_is_refused_and_the_run_goes_on(engine: Engine, wait: Row) -> None:
    lease = engine.leased()
    before = engine.place.rows()
    line = engine.park(lease, {"key": "fine"}, {"key": "a", **wait})
    assert (line["run_id"], line["outcome"]) == (lease.run_id, "refused")
    assert line["code"]
    assert line["detail"]
    assert engine.place.rows() == before


@pytest.mark.parametrize("waits", [[], None, {}, "a", [1], [[]]], ids=str)
def test_waits_that_are_no_list_of_waits_are_refused(engine: Engine, waits: object) -> None:
    lease = engine.leased()
    (line,) = engine.call("park", parks=Jsonb([{**engine.parking(lease), "waits": waits}]))
    assert (line["outcome"], engine.state(lease.run_id)) == ("refused", "running")


@pytest.mark.parametrize(
    "change",
    [{"run_id": "x"}, {"run_id": "-" * 36}, {"lease_no": "x"}, {"news": "x"}],
    ids=str,
)
def test_a_park_of_the_wrong_types_is_refused(engine: Engine, change: Row) -> None:
    lease = engine.leased()
    (line,) = engine.call("park", parks=Jsonb([{**engine.parking(lease), **change}]))
    assert (line["outcome"], engine.state(lease.run_id)) == ("refused", "running")


@pytest.mark.parametrize("parks", [{}, "x", None], ids=str)
def test_parks_that_are_no_array_are_refused(engine: Engine, parks: object) -> None:
    with engine.refused("PF101", "parks"):
        engine.call("park", parks=Jsonb(parks) if parks is not None else None)


def test_one_bad_park_does_not_hold_the_others_up(engine: Engine) -> None:
    one, bad, other = (engine.leased() for _ in range(3))
    parks = [engine.parking(one), engine.parking(bad, {"key": ""}), engine.parking(other)]
    outcomes = {line["run_id"]: line["outcome"] for line in engine.call("park", parks=Jsonb(parks))}
    assert outcomes == {one.run_id: "done", bad.run_id: "refused", other.run_id: "done"}
    assert engine.state(bad.run_id) == "running"


def test_the_same_run_twice_in_a_batch_is_parked_once(engine: Engine) -> None:
    lease = engine.leased()
    lines = engine.call("park", parks=Jsonb([engine.parking(lease)] * 2))
    assert sorted(line["outcome"] for line in lines) == ["already", "done"]


def test_costs_and_steps_are_added_once(engine: Engine) -> None:
    lease = engine.leased()
    for _ in range(2):
        engine.park(lease, cost_usd=0.5, steps=2)
    run = engine.run(lease.run_id)
    assert (run["cost_usd"], run["step_count"]) == (Decimal("0.5"), 2)


def test_a_payload_may_be_anything_and_its_digest_is_kept(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a", "payload": None}, {"key": "b", "payload": [1, "x"]})
    for key in ("a", "b"):
        engine.approve(engine.task(run_id, key))
    rows = engine.rows(
        "select payload, payload_sha256 from pgflow.task_history where run_id = %s order by step",
        run_id,
    )
    assert [row["payload"] for row in rows] == [None, [1, "x"]]
    assert {len(row["payload_sha256"]) for row in rows} == {64}
