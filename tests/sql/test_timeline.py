"""The timeline: all that happened to a run, numbered, whether stored or derived."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.sql.flows import gate, ready, started, step, step_run, task_of, work

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine


def retried(engine: Engine, run_id: UUID) -> None:
    """Let time pass until a retry is due."""
    engine.set_clock(engine.run(run_id)["run_at"])
    engine.tick()


def test_every_event_of_a_long_life_is_told_once(engine: Engine) -> None:
    """S2-03: two steps, two approvals of the same answer, two resumes: nothing real is lost."""
    lease = engine.leased()
    run_id = lease.run_id
    engine.record_steps(lease, draft="1")
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id)
    engine.park(engine.lease_of(run_id), {"key": "first"})
    engine.approve(engine.task(run_id, "first"), comment="fine")
    lease = engine.lease_of(run_id)
    engine.record_steps(lease, publish="1")
    engine.park(lease, {"key": "second"}, news=1)
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id)
    engine.approve(engine.task(run_id, "second"), comment="fine")
    engine.complete(engine.lease_of(run_id))
    assert engine.types(run_id) == [
        "run.created",
        "run.started",
        "step.completed",
        "run.paused",
        "run.resumed",
        "run.started",
        "task.requested",
        "run.waiting",
        "task.resolved",
        "run.woken",
        "run.started",
        "step.completed",
        "task.requested",
        "run.waiting",
        "run.paused",
        "run.resumed",
        "task.resolved",
        "run.woken",
        "run.started",
        "run.completed",
    ]


def test_each_lease_is_told_however_it_ended(engine: Engine) -> None:
    engine.worker("w:2")
    lease = engine.leased(max_attempts=9)
    run_id = lease.run_id
    engine.later(seconds=61)
    engine.beat(worker_id="w:2")
    engine.tick()
    engine.fail(engine.lease_of(run_id, worker_id="w:2"))
    retried(engine, run_id)
    engine.release(engine.lease_of(run_id))
    engine.park(engine.lease_of(run_id))
    engine.approve(engine.task(run_id))
    engine.lease_of(run_id)
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id)
    engine.fail(engine.lease_of(run_id), code="E-RUN-012")
    engine.call("resume", run_id=run_id)
    engine.lease_of(run_id)
    engine.call("cancel", run_id=run_id)
    lines = engine.timeline(run_id)
    started = [line for line in lines if line["type"] == "run.started"]
    assert [line["lease_no"] for line in started] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["worker_id"] for line in started] == ["w:1", "w:2", *["w:1"] * 5]
    assert [line["type"] for line in lines] == [
        "run.created",
        "run.started",
        "run.requeued",
        "run.started",
        "run.retried",
        "run.started",
        "run.released",
        "run.started",
        "task.requested",
        "run.waiting",
        "task.resolved",
        "run.woken",
        "run.started",
        "run.paused",
        "run.resumed",
        "run.started",
        "run.paused",
        "run.resumed",
        "run.started",
        "run.cancelled",
    ]


def test_the_attempts_are_told_with_the_leases(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "h", "retry_base": 0}])
    lease = engine.leased()
    for _ in range(2):
        engine.fail(lease)
        lease = engine.lease_of(lease.run_id)
    engine.complete(lease)
    lines = engine.timeline(lease.run_id)
    started = [line["attempt"] for line in lines if line["type"] == "run.started"]
    assert started == [0, 1, 2]


def test_times_never_go_back(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(seconds=1)
    engine.record_steps(lease, a="1")
    engine.later(seconds=1)
    engine.park(lease)
    engine.later(seconds=1)
    engine.approve(engine.task(lease.run_id))
    engine.later(seconds=1)
    again = engine.lease_of(lease.run_id)
    engine.later(seconds=1)
    engine.complete(again)
    begun = engine.run(lease.run_id)["created_at"]
    after = [line["at"] - begun for line in engine.timeline(lease.run_id)]
    assert after == [timedelta(seconds=n) for n in (0, 0, 1, 2, 2, 3, 3, 4, 5)]


def test_the_beginning_names_who_and_which_handler(engine: Engine) -> None:
    run_id = engine.enqueue("send")
    (created,) = engine.timeline(run_id)
    assert (created["event_no"], created["type"], created["by"]) == (1, "run.created", "postgres")
    assert created["payload"]["handler"] == "send"
    assert created["at"] == engine.now


def test_the_end_names_its_error(engine: Engine) -> None:
    lease = engine.leased(max_attempts=1)
    engine.fail(lease, detail="it broke")
    end = engine.timeline(lease.run_id)[-1]
    assert (end["type"], end["worker_id"], end["lease_no"]) == ("run.failed", "w:1", 1)
    assert end["payload"] == {"error_code": "E-RUN-001", "error_detail": "it broke"}


def test_an_end_without_a_lease_names_no_worker(engine: Engine) -> None:
    lease = engine.leased()
    engine.release(lease)
    engine.call("cancel", run_id=lease.run_id)
    end = engine.timeline(lease.run_id)[-1]
    assert (end["type"], end["worker_id"], end["lease_no"]) == ("run.cancelled", None, None)


def test_the_correlation_id_is_on_every_line_of_its_run(engine: Engine) -> None:
    lease = engine.leased(correlation_id="c-1")
    engine.record_steps(lease, a="1")
    engine.call("emit", run_id=lease.run_id, type="progress")
    engine.release(lease)
    engine.complete(engine.lease_of(lease.run_id))
    assert {line["correlation_id"] for line in engine.timeline(lease.run_id)} == {"c-1"}


def test_without_a_correlation_id_it_is_the_runs_own(engine: Engine) -> None:
    lease = engine.leased()
    engine.call("emit", run_id=lease.run_id, type="progress")
    engine.release(lease)
    own = {str(lease.run_id)}
    assert {line["correlation_id"] for line in engine.timeline(lease.run_id)} == own


def test_every_type_told_is_in_the_catalogue(engine: Engine) -> None:
    known = {row["type"] for row in engine.rows("select type from pgflow.event_type")}
    told = engine.rows(
        "select distinct type from pgflow.timeline where type <> 'note' and project_id = 'default'"
    )
    assert {row["type"] for row in told} <= known


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_an_older_snapshot_numbers_events_no_worse(engine: Engine, isolation: str) -> None:
    engine.conn.execute(f"set default_transaction_isolation to '{isolation}'")
    run_id = engine.waiting()
    engine.approve(engine.task(run_id))
    engine.complete(engine.lease_of(run_id))
    assert engine.types(run_id)[-1] == "run.completed"


# ---- whose event it is


def about(engine: Engine, run_id: UUID, **wanted: object) -> list[tuple[object, ...]]:
    """Return type, step, flow and version of lines that have these values."""
    return [
        (line["type"], line["step"], line["flow"], line["version"])
        for line in engine.timeline(run_id)
        if wanted.items() <= line.items()
    ]


def test_the_event_of_a_task_has_the_step_that_asks(engine: Engine) -> None:
    run_id = started(engine, gate("ok"))
    asking = step_run(engine, run_id, "ok")
    task_id = task_of(engine, run_id, "ok")
    engine.call("claim_task", task_id=task_id)
    engine.approve(task_id)
    asked = ["task.requested", "task.claimed", "task.resolved"]
    assert about(engine, asking, step="ok") == [(name, "ok", "f", 0) for name in asked]
    plain = engine.waiting({"key": "legal"})
    assert about(engine, plain, step="legal") == [("task.requested", "legal", None, None)]


def test_the_event_of_a_breakpoint_has_the_step_at_which_the_flow_stands(engine: Engine) -> None:
    run_id = started(engine, step("a"), breakpoints={"before": ["a"]})
    assert about(engine, run_id, step="a") == [("breakpoint.hit", "a", "f", None)]


def test_each_event_has_the_root_and_the_flow_of_its_run(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    child = step_run(engine, run_id, "a")
    assert about(engine, child) == [("run.created", None, "f", 0)]
    assert {line["root_run_id"] for line in engine.timeline(child)} == {run_id}
    work(engine)
    assert {line["flow"] for line in engine.timeline(run_id)} == {"f"}
    assert {line["root_run_id"] for line in engine.timeline(run_id)} == {run_id}
    assert about(engine, child)[0] == ("run.created", None, "f", 0)
    plain = engine.enqueue()
    (line,) = engine.timeline(plain)
    assert (line["root_run_id"], line["flow"], line["version"]) == (plain, None, None)


@pytest.mark.parametrize("how", ["rollback", "goto"])
def test_each_step_that_had_begun_and_counts_no_more_is_told_with_its_version(
    engine: Engine, how: str
) -> None:
    run_id = started(engine, step("a"), step("b", "a"), gate("ok", "b"), step("c", "ok"))
    work(engine)
    work(engine)
    old = step_run(engine, run_id, "ok")
    if how == "rollback":
        engine.reject(task_of(engine, run_id, "ok"), rollback_to="b")
    else:
        engine.call("pause", run_id=run_id)
        engine.call("resume", run_id=run_id, command={"goto": "b"})
    voided = about(engine, run_id, type="step.voided")
    assert voided == [("step.voided", "b", "f", 0), ("step.voided", "ok", "f", 0)]
    lease = ready(engine)["b"]
    assert about(engine, lease.run_id)[0] == ("run.created", None, "f", 1)
    assert about(engine, old)[0] == ("run.created", None, "f", 0)
    assert ("step.started", "b", "f", 1) in about(engine, run_id)


def test_who_follows_is_told_of_voided_steps_as_well(engine: Engine) -> None:
    engine.call("subscribe", subscription="audit")
    run_id = started(engine, step("a"), gate("ok", "a"))
    work(engine)
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="a")
    told = engine.rows("select event_no from pgflow.outbox where run_id = %s order by 1", run_id)
    assert [row["event_no"] for row in told] == [e["event_no"] for e in engine.timeline(run_id)]
