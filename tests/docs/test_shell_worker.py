"""The worker of docs/worker-protocol.md, run for real."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "worker.sh"
FirstRow = Callable[..., tuple[Any, ...]]


@pytest.fixture
def worker(
    db: psycopg.Connection, environment: dict[str, str], first_row: FirstRow, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the script, in a place of its own for its temporary files, and wait until it works."""
    if shutil.which("timeout") is None:
        pytest.skip("there is no timeout of the GNU coreutils")
    db.execute("select pgflow.define_queue('shell', lease_ttl => '2 seconds')")
    process = subprocess.Popen([SCRIPT], env={**environment, "TMPDIR": str(tmp_path)})
    try:
        first_row("select from pgflow.worker_status where status = 'alive'")
        yield process
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def start(db: psycopg.Connection) -> Callable[[str], object]:
    """Return a function that enqueues a run and returns its id."""

    def start(arguments: str) -> object:
        row = db.execute(f"select pgflow.enqueue({arguments})".encode()).fetchone()
        assert row is not None
        return row[0]

    return start


@pytest.fixture
def end_of(
    worker: subprocess.Popen[bytes], start: Callable[[str], object], first_row: FirstRow
) -> FirstRow:
    """Return a function that enqueues a run, waits for its end, and returns how it ended."""
    assert worker.pid

    def end_of(arguments: str) -> tuple[Any, ...]:
        return first_row(
            "select state, error_code, error_detail, output from pgflow.runs"
            " where run_id = %s and finished_at is not null",
            start(arguments),
        )

    return end_of


def test_a_run_gets_the_output_of_its_command(end_of: FirstRow) -> None:
    end = end_of("""'shell.wc', '{"text": "one two\\nthree\\n"}'""")
    assert end == ("completed", None, None, {"stdout": "3"})


def test_a_command_that_fails_fails_its_run(end_of: FirstRow) -> None:
    state, code, detail, _ = end_of("""'shell.check', '{"text": "if"}', max_attempts => 1""")
    assert (state, code) == ("failed", "E-RUN-001")
    assert "syntax error" in detail


def test_a_command_that_runs_over_its_timeout_fails_its_run(end_of: FirstRow) -> None:
    end = end_of("""'shell.sleep', '{"text": "60"}', timeout => '0.1 seconds', max_attempts => 1""")
    assert end[:2] == ("failed", "E-RUN-003")


def test_a_run_without_a_command_fails_as_one_without_a_handler(end_of: FirstRow) -> None:
    assert end_of("'shell.unheard_of', queue => 'shell'")[:2] == ("failed", "E-RUN-004")


def test_the_command_of_a_cancelled_run_is_ended_and_the_next_run_starts(
    db: psycopg.Connection,
    start: Callable[[str], object],
    end_of: FirstRow,
    first_row: FirstRow,
) -> None:
    run_id = start("""'shell.sleep', '{"text": "60"}'""")
    first_row("select from pgflow.runs where run_id = %s and state = 'running'", run_id)
    db.execute("select pgflow.cancel(%s)", (run_id,))
    assert end_of("'shell.wc'")[0] == "completed"


def test_sigterm_leaves_no_run_running_and_uses_no_attempt(
    worker: subprocess.Popen[bytes],
    start: Callable[[str], object],
    first_row: FirstRow,
    tmp_path: Path,
) -> None:
    run_id = start("""'shell.sleep', '{"text": "60"}'""")
    first_row("select from pgflow.runs where run_id = %s and state = 'running'", run_id)
    worker.terminate()
    assert worker.wait(60) == 0
    assert first_row("select state, attempt_count from pgflow.runs") == ("pending", 0)
    assert first_row("select status from pgflow.worker_status") == ("stopped",)
    assert not list(tmp_path.iterdir())
