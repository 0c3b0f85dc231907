"""Named CHECKs tie each state to the columns that it needs. Each is violated here once, alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine

pytestmark = pytest.mark.parametrize("place", ["fresh"], indirect=True)

# constraint: the state of a run, and the change that the constraint refuses
LIVE = {
    "only_what_is_ready_has_a_place": ("pending", "seq = null"),
    "scheduled_has_a_time": ("pending", "state = 'scheduled', seq = null, run_at = null"),
    "running_has_a_lease": ("running", "worker_id = null"),
    "waiting_waits_for_something": ("pending", "state = 'waiting_approval', seq = null"),
    "paused_has_a_reason": ("pending", "state = 'paused', seq = null"),
    "only_a_paused_run_has_held_deadlines": ("pending", "deadlines_held_at = now()"),
    "a_child_has_a_root": ("pending", "parent_run_id = run_id"),
    "only_a_child_has_a_parent_key": ("pending", "parent_key = 'resize'"),
    "only_who_waits_wakes": ("pending", "wake_at = now()"),
    "input_is_at_most_8_mb": ("pending", "input = to_jsonb(repeat('x', 8388608))"),
}
FINISHED = {
    "ended_by_a_legal_move": ("completed", "ended_from = 'pending'"),
    "output_iff_completed": ("completed", "output = null"),
    "failed_has_a_code": ("failed", "error_code = null"),
    "completed_has_no_error": ("completed", "error_code = 'E-RUN-001'"),
    "a_lease_is_whole": ("completed", "worker_id = null"),
    "output_is_at_most_8_mb": ("completed", "output = to_jsonb(repeat('x', 8388608))"),
}
LEASE = ["worker_id", "leased_at", "lease_event_no"]


def refused_by(engine: Engine, table: str, change: str) -> str | None:
    """Return the name of the CHECK that refuses a change, made where no trigger does."""
    engine.conn.execute("set session_replication_role = replica")
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        engine.conn.execute(f"update pgflow.{table} set {change} where handler = 'checked'")
    engine.conn.execute("reset session_replication_role")
    return refused.value.diag.constraint_name


@pytest.mark.parametrize("name", LIVE)
def test_a_live_run_is_held_to_its_checks(engine: Engine, name: str) -> None:
    state, change = LIVE[name]
    run_id = engine.enqueue("checked")
    if state == "running":
        engine.worker()
        engine.lease_of(run_id)
    assert refused_by(engine, "run", change) == name


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_held_to_its_checks(engine: Engine, name: str) -> None:
    state, change = FINISHED[name]
    lease = engine.leased("checked")
    if state == "completed":
        engine.complete(lease)
    else:
        engine.fail(lease, retries=[False])
    assert refused_by(engine, "run_finished", change) == name


@pytest.mark.parametrize("column", LEASE)
def test_a_lease_belongs_to_running_and_is_whole(engine: Engine, column: str) -> None:
    lease = engine.leased("checked")
    assert refused_by(engine, "run", f"{column} = null") == "running_has_a_lease"
    engine.release(lease)
    some = "'w:1'" if column == "worker_id" else "now()" if column == "leased_at" else "2"
    assert refused_by(engine, "run", f"{column} = {some}") == "running_has_a_lease"


@pytest.mark.parametrize("column", LEASE)
def test_the_last_lease_of_a_finished_run_is_whole(engine: Engine, column: str) -> None:
    engine.complete(engine.leased("checked"))
    assert refused_by(engine, "run_finished", f"{column} = null") == "a_lease_is_whole"


@pytest.mark.parametrize("state", ["waiting_tool", "waiting_approval", "waiting_event"])
def test_whatever_waits_says_for_what(engine: Engine, state: str) -> None:
    engine.enqueue("checked")
    refused = refused_by(engine, "run", f"state = '{state}', seq = null")
    assert refused == "waiting_waits_for_something"


@pytest.mark.parametrize("state", ["waiting_event", "paused", "scheduled"])
def test_only_what_is_ready_or_runs_has_a_place_in_its_queue(engine: Engine, state: str) -> None:
    engine.enqueue("checked")
    change = f"state = '{state}', waits_for = '{{a}}', pause_reason = 'why', run_at = now()"
    assert refused_by(engine, "run", change) == "only_what_is_ready_has_a_place"


def test_only_a_paused_run_has_a_reason(engine: Engine) -> None:
    engine.enqueue("checked")
    assert refused_by(engine, "run", "pause_reason = 'why'") == "paused_has_a_reason"


def test_only_a_completed_run_has_an_output(engine: Engine) -> None:
    engine.call("cancel", run_id=engine.enqueue("checked"))
    assert refused_by(engine, "run_finished", "output = '1'") == "output_iff_completed"


@pytest.mark.parametrize(("table", "known"), [("run", LIVE), ("run_finished", FINISHED)])
def test_every_check_has_its_test(
    engine: Engine, table: str, known: dict[str, tuple[str, str]]
) -> None:
    rows = engine.rows(
        "select conname from pg_constraint where contype = 'c' and conrelid = %s::regclass",
        f"pgflow.{table}",
    )
    assert {row["conname"] for row in rows} == set(known)
