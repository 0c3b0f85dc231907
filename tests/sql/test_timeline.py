"""The timeline: all that happened to a run, numbered, whether stored or derived."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

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
