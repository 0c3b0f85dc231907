"""fork: a new run that begins with the journal of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Row


@pytest.fixture
def old(engine: Engine) -> UUID:
    """Return a finished run: research, draft, approval ok, publish."""
    lease = engine.leased(
        input={"topic": "x"}, priority=3, tags=["t"], correlation_id="c", idempotency_key="once"
    )
    engine.record_steps(lease, research="1", draft='"first"')
    engine.park(lease, {"key": "ok", "payload": "first", "digest": "aa"})
    engine.approve(engine.task(lease.run_id), comment="fine")
    lease = engine.lease_of(lease.run_id)
    engine.record_steps(lease, publish="4")
    engine.complete(lease, output='"there"')
    return lease.run_id


def fork(engine: Engine, run_id: UUID, step: str, **more: Any) -> UUID:
    fork_id: UUID = engine.tell("fork", run_id=run_id, step=step, **more)
    return fork_id


def journal(engine: Engine, run_id: UUID) -> list[tuple[str, object]]:
    entries = engine.lease_of(run_id).body.get("journal") or []
    return [(e["key"], "approved" if e["kind"] == "approval" else e["value"]) for e in entries]


ALL = [("research", 1), ("draft", "first"), ("ok", "approved"), ("publish", 4)]


@pytest.mark.parametrize("step", ["research", "draft", "ok", "publish"])
def test_a_fork_begins_with_the_journal_up_to_but_without_an_entry(
    engine: Engine, old: UUID, step: str
) -> None:
    at = [key for key, _ in ALL].index(step)
    assert journal(engine, fork(engine, old, step)) == ALL[:at]


@pytest.mark.parametrize("ends", [False, True], ids=["live", "finished"])
def test_a_fork_has_an_input_that_is_null_too(engine: Engine, *, ends: bool) -> None:
    lease = engine.leased(input=Jsonb(None))
    engine.record_steps(lease, draft="1")
    if ends:
        engine.complete(lease)
    else:
        engine.park(lease, {"key": "ok", "payload": "first", "digest": "aa"})
    fork_id = fork(engine, lease.run_id, "draft")
    assert engine.value("select input::text from pgflow.runs where run_id = %s", fork_id) == "null"


def test_a_fork_is_a_run_of_its_own_with_the_old_ones_input(engine: Engine, old: UUID) -> None:
    run = engine.run(fork(engine, old, "publish"))
    assert (run["state"], run["forked_from"], run["retry_of"]) == ("pending", old, None)
    assert (run["handler"], run["input"], run["priority"]) == ("h", {"topic": "x"}, 3)
    assert (run["tags"], run["correlation_id"]) == (["t"], "c")
    assert (run["idempotency_key"], run["attempt_count"], run["round"]) == (None, 0, 0)
    assert run["step_count"] == 2


def test_its_timeline_begins_with_its_own_creation(engine: Engine, old: UUID) -> None:
    fork_id = fork(engine, old, "publish")
    engine.complete(engine.lease_of(fork_id))
    assert engine.types(fork_id) == ["run.created", "run.started", "run.completed"]
    entries = engine.rows(
        "select event_no, voided from pgflow.journal_entries where run_id = %s", fork_id
    )
    assert {(e["event_no"] < 0, e["voided"]) for e in entries} == {(True, False)}


def test_the_old_run_is_left_as_it_is(engine: Engine, old: UUID) -> None:
    before = engine.rows("select * from pgflow.timeline where run_id = %s order by 3", old)
    run = engine.run(old)
    fork(engine, old, "publish")
    assert engine.rows("select * from pgflow.timeline where run_id = %s order by 3", old) == before
    assert engine.run(old) == run


def test_a_run_is_forked_as_often_as_somebody_likes(engine: Engine, old: UUID) -> None:
    assert len({fork(engine, old, "publish") for _ in range(3)}) == 3


def test_a_fork_is_forked(engine: Engine, old: UUID) -> None:
    first = fork(engine, old, "publish")
    lease = engine.lease_of(first)
    engine.record_steps(lease, publish="5")
    engine.complete(lease)
    second = fork(engine, first, "publish", updates={"research": 9})
    assert journal(engine, second) == [("research", 9), *ALL[1:3]]


def test_a_fork_goes_on_and_is_rolled_back_like_any_run(engine: Engine, old: UUID) -> None:
    fork_id = fork(engine, old, "publish")
    lease = engine.lease_of(fork_id)
    assert engine.park(lease, {"key": "last"}, news=lease.body["news"])["outcome"] == "done"
    engine.reject(engine.task(fork_id, "last"), rollback_to="draft")
    assert journal(engine, fork_id) == ALL[:1]


def test_updates_replace_values_of_entries_before_it(engine: Engine, old: UUID) -> None:
    fork_id = fork(engine, old, "publish", updates={"draft": "second"})
    assert journal(engine, fork_id) == [ALL[0], ("draft", "second"), *ALL[2:3]]


def test_a_decision_about_what_was_updated_is_asked_for_anew(engine: Engine, old: UUID) -> None:
    fork_id = fork(engine, old, "publish", updates={"draft": "second"})
    lease = engine.lease_of(fork_id)
    line = engine.park(
        lease, {"key": "ok", "payload": "second", "digest": "bb"}, news=lease.body["news"]
    )
    assert (line["outcome"], engine.state(fork_id)) == ("done", "waiting_approval")
    engine.approve(engine.task(fork_id))
    assert journal(engine, fork_id) == [ALL[0], ("draft", "second"), ("ok", "approved")]


def test_a_decision_about_the_same_is_kept(engine: Engine, old: UUID) -> None:
    fork_id = fork(engine, old, "publish")
    lease = engine.lease_of(fork_id)
    ok = {"key": "ok", "payload": "first", "digest": "aa"}
    assert engine.park(lease, ok, {"key": "b"}, news=lease.body["news"])["outcome"] == "done"
    tasks = engine.rows("select step from pgflow.inbox where run_id = %s", fork_id)
    assert tasks == [{"step": "b"}]


@pytest.mark.parametrize("state", ["waiting", "paused", "pending", "scheduled"])
def test_a_live_run_that_nobody_executes_is_forked_and_goes_on(engine: Engine, state: str) -> None:
    lease = engine.leased()
    engine.record_steps(lease, draft="1", check="2")
    if state == "pending":
        engine.release(lease)
    elif state == "scheduled":
        engine.fail(lease)
    else:
        engine.park(lease)
    if state == "paused":
        engine.call("pause", run_id=lease.run_id)
    before = engine.run(lease.run_id)
    fork_id = fork(engine, lease.run_id, "check")
    assert engine.run(lease.run_id) == before
    forked = engine.rows("select key from pgflow.journal where run_id = %s", fork_id)
    assert forked == [{"key": "draft"}]
    assert engine.run(fork_id)["state"] == "pending"


def test_a_running_run_is_refused(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, draft="1")
    with engine.refused("PF201", "run_id"):
        fork(engine, lease.run_id, "draft")


def test_what_was_rolled_back_is_not_copied(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, draft="1", check="2")
    engine.park(lease)
    engine.reject(engine.task(lease.run_id), rollback_to="check")
    with engine.refused("PF105", "step"):
        fork(engine, lease.run_id, "check")


def test_a_fork_undoes_nothing_of_the_old_run(engine: Engine) -> None:
    lease = engine.leased()
    for key in ("book", "pay"):
        engine.call(
            "record_step",
            run_ids=[lease.run_id],
            lease_nos=[1],
            keys=[key],
            digests=["aa"],
            values=["1"],
            undos=[True],
        )
    engine.complete(lease)
    fork_id = fork(engine, lease.run_id, "pay")
    forked = engine.lease_of(fork_id)
    engine.park(forked, news=forked.body["news"])
    engine.reject(engine.task(fork_id), rollback_to="book")
    assert engine.lease_of(fork_id).body.get("undo") is None


@pytest.mark.parametrize("step", ["nothing", "", None])
def test_an_unknown_entry_is_refused(engine: Engine, old: UUID, step: str | None) -> None:
    with engine.refused("PF105", "step"):
        engine.tell("fork", run_id=old, step=step)


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    with engine.refused("PF102", "run_id"):
        fork(engine, uuid4(), "draft")


@pytest.mark.parametrize("updates", [[], "draft", 5], ids=str)
def test_updates_that_are_no_object_are_refused(engine: Engine, old: UUID, updates: object) -> None:
    with engine.refused("PF101", "updates"):
        fork(engine, old, "publish", updates=Jsonb(updates))


def test_updates_of_an_unknown_entry_are_refused(engine: Engine, old: UUID) -> None:
    with engine.refused("PF105", "updates"):
        fork(engine, old, "publish", updates={"nothing": 1})


@pytest.mark.parametrize("updates", [{"publish": 1}, {"ok": 1}], ids=str)
def test_updates_of_entries_that_are_not_copied_are_refused(
    engine: Engine, old: UUID, updates: Row
) -> None:
    with engine.refused("PF101", "updates"):
        fork(engine, old, "ok", updates=updates)


def test_a_run_of_another_project_is_as_unknown(engine: Engine, old: UUID) -> None:
    engine.tell("create_project", project="acme")
    with engine.refused("PF102", "run_id"):
        fork(engine, old, "publish", project="acme")
