"""Retention: what becomes of finished runs when they have been kept for long enough."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.sql.flows import started, step, work
from tests.sql.history import (
    TABLES,
    add_past,
    finished,
    maintain,
    old_lease,
    old_run,
    own_place,
    partitions,
    periods,
    rows_of,
    tables_of,
)

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Place

DAY = timedelta(days=1)
EVERYWHERE = {"run_finished", "event", "journal", "signal", "usage"}


@pytest.fixture
def place(server: str, template: str) -> Iterator[Place]:
    with own_place(server, template) as place:
        yield place


def keep(engine: Engine, retention: timedelta | None) -> None:
    engine.call("set_retention", retention=retention)


def names(engine: Engine) -> set[str]:
    return {p["period"] for p in periods(engine)}


def kept(engine: Engine, *run_ids: UUID) -> list[UUID]:
    """Return those that are still there."""
    rows = engine.rows("select run_id from pgflow.runs where run_id = any (%s)", list(run_ids))
    found = {row["run_id"] for row in rows}
    return [run_id for run_id in run_ids if run_id in found]


# By partition


def test_without_a_retention_all_is_kept(engine: Engine) -> None:
    old = add_past(engine, 5)
    run_id = finished(engine, old)
    engine.later(days=5000)
    maintain(engine)
    assert kept(engine, run_id) == [run_id]
    assert rows_of(engine, run_id) == EVERYWHERE


def test_a_period_whose_runs_are_past_their_retention_is_dropped(engine: Engine) -> None:
    old = add_past(engine, 5)
    run_id = finished(engine, old, key="order-1")
    young = engine.leased()
    engine.complete(young)
    keep(engine, 30 * DAY)
    engine.later(days=31)
    done = maintain(engine)
    assert [d for d in done if not d.startswith(("analyzed", "closed", "made"))] == [
        f"expired {old}",
        f"released 1 keys of period {old}",
        *(f"detached {table}_{old}" for table in TABLES),
        *(f"dropped {table}_{old}" for table in TABLES),
        "deleted 1 keys of project default",
    ]
    assert old not in names(engine)
    assert tables_of(engine, old) == set()
    assert rows_of(engine, run_id) == set()
    assert kept(engine, run_id, young.run_id) == [young.run_id]
    assert not {name for name in partitions(engine) if name.endswith(old)}


def test_a_run_that_is_past_its_retention_is_unknown(engine: Engine) -> None:
    run_id = finished(engine, add_past(engine, 5))
    keep(engine, 30 * DAY)
    engine.later(days=31)
    maintain(engine)
    for verb in ("cancel", "retry", "pause"):
        with engine.refused("PF102", "run_id") as refusal:
            engine.call(verb, run_id=run_id)
        assert "retention is over" in str(refusal.value.diag.message_detail)


def test_the_tasks_of_a_period_go_with_it(engine: Engine) -> None:
    old = add_past(engine, 5)
    lease = old_lease(engine, old)
    engine.park(lease)
    task_id = engine.task(lease.run_id)
    engine.rows(
        "insert into pgflow.vote values ('default', %s, 'ann', 'approved', 'ann', %s, null)",
        task_id,
        engine.now,
    )
    engine.call("cancel", run_id=lease.run_id)
    keep(engine, 30 * DAY)
    engine.later(days=31)
    assert f"deleted 1 tasks of period {old}" in maintain(engine)
    assert rows_of(engine, lease.run_id) == set()
    assert engine.rows("select * from pgflow.vote") == []


def test_the_steps_that_were_added_to_runs_of_a_period_go_with_it(engine: Engine) -> None:
    old = add_past(engine, 5)
    run_id = finished(engine, old)
    live = started(engine, step("a"))
    engine.call("add_step", run_id=live, step=step("new"))
    engine.rows("insert into pgflow.run_step select d.*, %s from pgflow.step_definition d", run_id)
    keep(engine, 30 * DAY)
    engine.later(days=31)
    assert f"deleted 1 steps that were added to runs of period {old}" in maintain(engine)
    rows = engine.rows("select run_id, step from pgflow.run_step")
    assert rows == [{"run_id": live, "step": "new"}]


def test_the_last_to_end_says_when_the_period_is_dropped(engine: Engine) -> None:
    old = add_past(engine, 5)
    late = old_lease(engine, old)
    first = finished(engine, old)
    keep(engine, 30 * DAY)
    engine.later(days=5)
    engine.beat(late)
    engine.complete(late)
    engine.later(days=29)
    maintain(engine)
    assert kept(engine, first, late.run_id) == [first, late.run_id]
    engine.later(days=1, seconds=1)
    assert f"expired {old}" in maintain(engine)
    assert kept(engine, first, late.run_id) == []


def test_a_live_run_keeps_its_period(engine: Engine) -> None:
    old = add_past(engine, 5)
    lease = old_lease(engine, old)
    engine.record_steps(lease, a="1")
    engine.park(lease)
    keep(engine, DAY)
    engine.later(days=400)
    maintain(engine)
    assert old in names(engine)
    assert rows_of(engine, lease.run_id) == {"event", "journal", "task"}
    engine.approve(engine.task(lease.run_id))
    assert engine.state(lease.run_id) == "pending"


def test_a_run_that_undoes_another_keeps_what_it_reads(engine: Engine) -> None:
    old = add_past(engine, 5)
    lease = old_lease(engine, old)
    engine.worker(handlers=[{"handler": "h", "undo_on": ["cancelled"]}])
    engine.call(
        "record_step", run_ids=[lease.run_id], lease_nos=[lease.lease_no], keys=["a"],
        digests=["00"], values=["1"], undos=[True],
    )  # fmt: skip
    engine.call("cancel", run_id=lease.run_id)
    undo_id = engine.value("select run_id from pgflow.run where undo_of = %s", lease.run_id)
    keep(engine, DAY)
    engine.later(days=400)
    maintain(engine)
    assert kept(engine, lease.run_id) == [lease.run_id]
    (undo,) = engine.acquire().leases
    assert [step["key"] for step in undo.body["undo"]] == ["a"]
    engine.fail(undo, retries=[False])
    engine.later(days=2)
    maintain(engine)
    assert kept(engine, lease.run_id) == []
    # What is left to undo nobody knows any more.
    assert kept(engine, undo_id) == [undo_id]
    with engine.refused("PF102", "run_id"):
        engine.call("retry", run_id=undo_id)


def test_a_transaction_that_may_still_bring_a_run_keeps_its_period(
    engine: Engine, connect: Connect
) -> None:
    old = add_past(engine, 5)
    keep(engine, DAY)
    other = connect()
    with other.conn.transaction():
        run_id = old_run(other, old)
        engine.later(days=400)
        maintain(engine)
        assert old in names(engine)
    maintain(engine)
    assert old in names(engine)
    engine.call("cancel", run_id=run_id)
    engine.later(days=2)
    maintain(engine)
    assert old not in names(engine)


def test_a_period_that_was_closed_on_another_server_is_closed_again(engine: Engine) -> None:
    old = add_past(engine, 5)
    engine.rows("update pgflow.period set closed_by = '900000000000' where period = %s", old)
    keep(engine, DAY)
    assert f"closed {old}" in maintain(engine)
    assert old not in names(engine)


def test_the_period_of_today_is_never_dropped(engine: Engine) -> None:
    keep(engine, timedelta(hours=1))
    before = names(engine)
    engine.later(days=400)
    maintain(engine)
    assert names(engine) == before


def test_a_period_in_the_middle_goes_while_older_ones_stay(engine: Engine) -> None:
    middle = add_past(engine, 1)
    oldest = add_past(engine, 1)
    lease = old_lease(engine, oldest)
    finished(engine, middle)
    keep(engine, DAY)
    engine.later(days=1, seconds=1)
    engine.beat(lease)
    maintain(engine)
    assert (oldest in names(engine), middle in names(engine)) == (True, False)
    assert engine.complete(lease) == []


def test_a_worker_drops_what_is_over_in_all_projects(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    engine.tell("create_project", project="acme")
    old = add_past(engine, 5)
    run_id = finished(engine, old, key="k")
    engine.rows("update pgflow.run_key set project_id = 'acme'")
    engine.rows("set session_replication_role = replica")
    engine.rows("update pgflow.run_finished set project_id = 'acme'")
    engine.rows("reset session_replication_role")
    engine.rows("insert into pgflow.queue (project_id, queue) values ('acme', 'default')")
    keep(engine, 30 * DAY)
    session = connect(make_role("pgflow_worker"))
    session.later(days=29)
    while session.call("maintain")[0]["did"]:
        pass
    assert rows_of(engine, run_id) >= {"run_finished", "run_key"}
    session.later(days=2)
    while session.call("maintain")[0]["did"]:
        pass
    assert rows_of(engine, run_id) == set()


# By rows


def test_a_queue_with_a_shorter_retention_loses_its_runs_alone(engine: Engine) -> None:
    old = add_past(engine, 5)
    engine.call("define_queue", queue="logs", retention=DAY)
    log = finished(engine, old, queue="logs")
    (note,) = [finished(engine, old)]
    keep(engine, 30 * DAY)
    engine.later(hours=23)
    maintain(engine)
    assert kept(engine, log, note) == [log, note]
    engine.later(hours=2)
    assert "deleted 1 runs of queue logs of project default" in maintain(engine)
    assert kept(engine, log, note) == [note]
    assert (rows_of(engine, log), rows_of(engine, note)) == (set(), EVERYWHERE)


def test_a_queue_has_a_retention_where_the_installation_has_none(engine: Engine) -> None:
    engine.call("define_queue", queue="default", retention=DAY)
    lease = engine.leased()
    engine.complete(lease)
    engine.later(days=2)
    maintain(engine)
    assert kept(engine, lease.run_id) == []


def test_a_queue_with_a_longer_retention_keeps_its_runs_alone(engine: Engine) -> None:
    old = add_past(engine, 5)
    engine.call("define_queue", queue="audit", retention=365 * DAY)
    audit = finished(engine, old, queue="audit")
    note = finished(engine, old)
    keep(engine, 30 * DAY)
    # A partition's width later than due, when it is certain that it isn't dropped as a whole.
    engine.later(days=30 + 7 + 1)
    maintain(engine)
    assert kept(engine, audit, note) == [audit, note]
    engine.later(seconds=1)
    maintain(engine)
    assert kept(engine, audit, note) == [audit]
    engine.later(days=365)
    assert f"expired {old}" in maintain(engine)
    assert kept(engine, audit) == []


def test_in_a_period_that_a_live_run_keeps_the_finished_go_row_by_row(engine: Engine) -> None:
    old = add_past(engine, 5)
    lease = old_lease(engine, old)
    engine.park(lease)
    run_id = finished(engine, old)
    keep(engine, 30 * DAY)
    engine.later(days=38, seconds=1)
    assert "deleted 1 runs of queue default of project default" in maintain(engine)
    assert kept(engine, lease.run_id, run_id) == [lease.run_id]
    assert rows_of(engine, run_id) == set()


def test_the_oldest_go_first_a_batch_at_a_time(engine: Engine) -> None:
    engine.call("define_queue", queue="default", retention=DAY)
    engine.worker()
    engine.enqueue_many([{}] * 1002)
    held = engine.acquire(1002).leases
    engine.complete(*held[2:])
    engine.later(seconds=1)
    engine.beat(*held[:2])
    engine.complete(*held[:2])
    last = [lease.run_id for lease in held[:2]]
    engine.later(days=1, seconds=1)
    steps = [engine.call("maintain")[0]["did"]]
    while "1000 runs" not in steps[-1]:
        steps.append(engine.call("maintain")[0]["did"])
    assert engine.value("select count(*) from pgflow.run_finished") == 2
    assert kept(engine, *last) == last
    assert "deleted 2 runs of queue default of project default" in maintain(engine)


def test_what_undoing_needs_is_not_deleted_row_by_row_either(engine: Engine) -> None:
    engine.call("define_queue", queue="default", retention=DAY)
    engine.worker(handlers=[{"handler": "h", "undo_on": ["cancelled"]}])
    lease = engine.leased()
    engine.call(
        "record_step", run_ids=[lease.run_id], lease_nos=[lease.lease_no], keys=["a"],
        digests=["00"], values=["1"], undos=[True],
    )  # fmt: skip
    engine.call("cancel", run_id=lease.run_id)
    engine.later(days=30)
    maintain(engine)
    assert rows_of(engine, lease.run_id) >= {"run_finished", "journal"}


def test_finished_runs_are_deleted_by_retention_alone(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    with engine.refused("PF203") as refusal:
        engine.rows("delete from pgflow.run_finished")
    assert "cannot be deleted" in str(refusal.value)


# Keys


@pytest.mark.parametrize("goes", ["with its period", "alone"])
def test_a_key_holds_for_key_retention_longer_than_its_run(engine: Engine, goes: str) -> None:
    engine.call("define_queue", queue="default", retention=DAY, key_retention=10 * DAY)
    if goes == "with its period":
        keep(engine, DAY)
        run_id = finished(engine, add_past(engine, 5), key="order-1")
    else:
        lease = engine.leased(idempotency_key="order-1")
        engine.complete(lease)
        run_id = lease.run_id
    engine.later(days=1, seconds=1)
    maintain(engine)
    assert kept(engine, run_id) == []
    engine.later(days=9, hours=23)
    maintain(engine)
    assert engine.enqueue(idempotency_key="order-1") == run_id
    engine.later(hours=2)
    assert "deleted 1 keys of project default" in maintain(engine)
    assert engine.enqueue(idempotency_key="order-1") != run_id


def test_a_key_goes_with_its_run_unless_told_otherwise(engine: Engine) -> None:
    engine.call("define_queue", queue="default", retention=DAY)
    lease = engine.leased(idempotency_key="order-1")
    engine.complete(lease)
    engine.later(days=2)
    maintain(engine)
    assert rows_of(engine, lease.run_id) == set()


def test_the_key_of_a_live_run_holds(engine: Engine) -> None:
    keep(engine, DAY)
    run_id = old_run(engine, add_past(engine, 5), key="order-1")
    engine.later(days=400)
    maintain(engine)
    assert engine.enqueue(idempotency_key="order-1") == run_id


def test_a_retry_of_a_run_whose_first_retry_is_gone_is_a_new_run(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    engine.call("define_queue", queue="short", retention=DAY)
    first = engine.tell("retry", run_id=lease.run_id)
    assert engine.tell("retry", run_id=lease.run_id) == first
    engine.rows("update pgflow.run set queue = 'short' where run_id = %s", first)
    engine.complete(engine.lease_of(first, queues=["short"]))
    engine.later(days=2)
    maintain(engine)
    assert engine.tell("retry", run_id=lease.run_id) != first


# What is said of it


def test_queue_stats_shows_the_retention_of_a_queue(engine: Engine) -> None:
    engine.call("define_queue", queue="mail", retention=DAY, key_retention=2 * DAY)
    stats = engine.queue_stats("mail")
    assert (stats["retention"], stats["key_retention"]) == (DAY, 2 * DAY)


def test_doctor_says_how_long_runs_are_kept_and_what_waits(engine: Engine) -> None:
    ask = "select level, detail from pgflow.doctor() where \"check\" = 'retention'"
    assert engine.one(ask) == {"level": "ok", "detail": "finished runs are kept for ever"}
    keep(engine, 30 * DAY)
    assert engine.one(ask) == {"level": "ok", "detail": "finished runs are kept for 30 days"}
    engine.rows("update pgflow.period set expired_at = %s", engine.now)
    engine.later(hours=1, seconds=1)
    said = engine.one(ask)
    assert said["level"] == "warn"
    assert "waiting to be dropped since" in said["detail"]


def test_what_became_of_a_flows_steps_goes_with_its_run(engine: Engine) -> None:
    run_id = started(engine, step("a", on_failure="continue"), step("b", "a"))
    work(engine, fail=("a",))
    assert "flow_step" in rows_of(engine, run_id)
    engine.call("define_queue", queue="default", retention=DAY)
    engine.later(days=2)
    maintain(engine)
    assert kept(engine, run_id) == []
    assert rows_of(engine, run_id) == set()
