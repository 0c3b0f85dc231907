"""The worker of docs/worker-protocol.md, run for real."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "worker.sh"
PATIENCE = 20  # seconds


@pytest.fixture
def worker(
    db: psycopg.Connection, environment: dict[str, str], tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the script, in a place of its own for its temporary files, and wait until it works."""
    if shutil.which("timeout") is None:
        pytest.skip("there is no timeout of the GNU coreutils")
    db.execute("select pgflow.define_queue('shell', lease_ttl => '2 seconds')")
    process = subprocess.Popen([SCRIPT], env={**environment, "TMPDIR": str(tmp_path)})
    try:
        wait_for(db, "select from pgflow.worker_status where status = 'alive'")
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait_for(db: psycopg.Connection, query: str, *values: object) -> tuple[Any, ...]:
    """Return the query's first row as soon as there is one."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        row = db.execute(query, values).fetchone()
        if row is not None:  # a row without columns is false
            return row
        time.sleep(0.02)
    pytest.fail(f"not within {PATIENCE} s: {query}")


def enqueue(db: psycopg.Connection, arguments: str) -> object:
    return db.execute(f"select pgflow.enqueue({arguments})".encode()).fetchone()[0]  # type: ignore[index]


def end_of(db: psycopg.Connection, run_id: object) -> tuple[Any, ...]:
    return wait_for(
        db,
        "select state, error_code, error_detail, output from pgflow.runs"
        " where run_id = %s and finished_at is not null",
        run_id,
    )


@pytest.mark.usefixtures("worker")
def test_a_run_gets_the_output_of_its_command(db: psycopg.Connection) -> None:
    run_id = enqueue(db, """'shell.wc', '{"text": "one two\\nthree\\n"}'""")
    assert end_of(db, run_id) == ("completed", None, None, {"stdout": "3"})


@pytest.mark.usefixtures("worker")
def test_a_command_that_fails_fails_its_run(db: psycopg.Connection) -> None:
    run_id = enqueue(db, """'shell.check', '{"text": "if"}', max_attempts => 1""")
    state, code, detail, _ = end_of(db, run_id)
    assert (state, code) == ("failed", "E-RUN-001")
    assert "syntax error" in detail


@pytest.mark.usefixtures("worker")
def test_a_command_that_runs_over_its_timeout_fails_its_run(db: psycopg.Connection) -> None:
    arguments = """'shell.sleep', '{"text": "60"}', timeout => '0.1 seconds', max_attempts => 1"""
    assert end_of(db, enqueue(db, arguments))[:2] == ("failed", "E-RUN-003")


@pytest.mark.usefixtures("worker")
def test_a_run_without_a_command_fails_as_one_without_a_handler(db: psycopg.Connection) -> None:
    run_id = enqueue(db, "'shell.unheard_of', queue => 'shell'")
    assert end_of(db, run_id)[:2] == ("failed", "E-RUN-004")


@pytest.mark.usefixtures("worker")
def test_the_command_of_a_cancelled_run_is_ended_and_the_next_run_starts(
    db: psycopg.Connection,
) -> None:
    run_id = enqueue(db, """'shell.sleep', '{"text": "60"}'""")
    wait_for(db, "select from pgflow.runs where run_id = %s and state = 'running'", run_id)
    db.execute("select pgflow.cancel(%s)", (run_id,))
    assert end_of(db, enqueue(db, "'shell.wc'"))[0] == "completed"


def test_sigterm_leaves_no_run_running_and_uses_no_attempt(
    db: psycopg.Connection, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    run_id = enqueue(db, """'shell.sleep', '{"text": "60"}'""")
    wait_for(db, "select from pgflow.runs where run_id = %s and state = 'running'", run_id)
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    state, attempts = wait_for(db, "select state, attempt_count from pgflow.runs")
    assert (state, attempts) == ("pending", 0)
    assert wait_for(db, "select status from pgflow.worker_status") == ("stopped",)
    assert not list(tmp_path.iterdir())
