"""What people select from, where no other test looks: runs, worker_status, doctor."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine

S5_01 = {
    "run_id",
    "project_id",
    "state",
    "lease_until",
    "heartbeat_at",
    "worker_id",
    "last_worker_id",
    "lease_no",
    "attempt_count",
    "max_attempts",
    "error_code",
    "error_detail",
    "last_error",
    "output_sha256",
    "cost_usd",
    "step_count",
    "created_at",
    "first_started_at",
    "started_at",
    "finished_at",
}


def doctor(engine: Engine) -> dict[str, tuple[str, str]]:
    """Return the level and the detail of each finding."""
    return {row["check"]: (row["level"], row["detail"]) for row in engine.call("doctor")}


def test_runs_shows_all_that_is_owed(engine: Engine) -> None:
    """S5-01."""
    assert set(engine.run(engine.enqueue())) >= S5_01


def test_a_run_is_in_the_view_once_live_or_finished(engine: Engine) -> None:
    lease = engine.leased()
    engine.run(lease.run_id)
    engine.complete(lease)
    engine.run(lease.run_id)


@pytest.mark.parametrize("how", ["release", "park", "pause", "fail", "complete"])
def test_leaving_running_clears_the_lease(engine: Engine, how: str) -> None:
    """S5-02."""
    lease = engine.leased()
    if how == "pause":
        engine.call("pause", run_id=lease.run_id)
    elif how == "park":
        engine.park(lease)
    else:
        getattr(engine, how)(lease)
    run = engine.run(lease.run_id)
    assert (run["worker_id"], run["lease_until"], run["heartbeat_at"]) == (None, None, None)


def test_a_run_without_a_root_is_its_own(engine: Engine) -> None:
    run = engine.run(engine.enqueue())
    assert (run["root_run_id"], run["parent_run_id"]) == (run["run_id"], None)


def test_a_worker_that_holds_runs_says_how_many(engine: Engine) -> None:
    engine.leased()
    engine.leased()
    assert engine.worker_status()["running"] == 2


def test_the_inbox_has_a_line_for_each_open_task(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"})
    rows = engine.rows("select step from pgflow.inbox where run_id = %s order by 1", run_id)
    assert [row["step"] for row in rows] == ["a", "b"]
    engine.approve(engine.task(run_id, "a"))
    rows = engine.rows("select step from pgflow.inbox where run_id = %s", run_id)
    assert [row["step"] for row in rows] == ["b"]


# ---- doctor


def test_the_doctor_finds_a_project_in_order(engine: Engine) -> None:
    engine.worker(queues=["default", "old"])
    engine.tick()
    levels = {name: level for name, (level, _) in doctor(engine).items()}
    assert {levels["workers"], levels["tick"]} == {"ok"}
    assert "fail" not in levels.values()


def test_the_doctor_finds_ready_runs_that_no_worker_takes(engine: Engine) -> None:
    engine.enqueue(queue="lonely")
    level, detail = doctor(engine)["queue without worker"]
    assert level == "fail"
    assert "ready runs" in detail


def test_the_doctor_finds_a_paused_queue(engine: Engine) -> None:
    engine.enqueue()
    engine.call("pause_queue", queue="default")
    level, detail = doctor(engine)["paused queue"]
    assert (level, "queue default is paused" in detail) == ("warn", True)


def test_the_doctor_finds_a_dead_worker_that_holds_runs(engine: Engine) -> None:
    engine.leased()
    engine.later(minutes=5)
    level, detail = doctor(engine)["dead worker holds runs"]
    assert (level, "worker w:1 holds 1 runs" in detail) == ("fail", True)


def test_the_doctor_finds_that_nobody_sees_to_time(engine: Engine) -> None:
    engine.tick()
    engine.later(minutes=2)
    assert doctor(engine)["tick"][0] == "fail"


def test_the_doctor_finds_handlers_that_no_worker_has(engine: Engine) -> None:
    engine.fail(engine.leased("gone"), code="E-RUN-004", retries=[False])
    level, detail = doctor(engine)["handler unknown at run time"]
    assert (level, "handler gone" in detail) == ("warn", True)
    engine.later(days=2)
    assert "handler unknown at run time" not in doctor(engine)


def test_the_doctor_sees_one_project(engine: Engine) -> None:
    engine.call("create_project", project="acme")
    engine.fail(engine.leased("gone"), code="E-RUN-004", retries=[False])
    rows = engine.call("doctor", project="acme")
    assert "handler unknown at run time" not in {row["check"] for row in rows}


def test_a_run_that_is_overdue_is_shown_with_what_it_waits_for(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"})
    assert engine.run(run_id)["waits_for"] == ["a", "b"]


def test_times_in_the_views_are_points_in_time(engine: Engine) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(hours=1))
    run = engine.run(lease.run_id)
    for name in ("created_at", "first_started_at", "started_at", "deadline", "lease_until"):
        assert run[name].tzinfo is not None
