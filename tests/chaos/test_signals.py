"""Signals and worker processes: who listens to them, and what they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgflow import Client

STUCK = """
import asyncio, threading, time
from pgflow import App
app = App()

@app.handler
def stuck() -> None:
    while True:
        time.sleep(3600)

@app.handler
async def waits() -> None:
    await asyncio.sleep(3600)

@app.handler
def quick() -> int:
    return 1
"""

EMBEDDED = """
import asyncio, sys
from pgflow import App, Worker
app = App(sys.argv[1])

@app.handler
async def quick() -> int:
    return 1

asyncio.run(Worker(app, app.dsn).run())
"""

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def start(dsn: str, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts Python with some arguments, on the test's database."""
    (tmp_path / "stuck.py").write_text(STUCK)
    started: list[Process] = []
    here = {**os.environ, "PGFLOW_DSN": dsn, "PYTHONPATH": str(ROOT)}

    def start_one(*arguments: str) -> Process:
        started.append(
            subprocess.Popen(
                [sys.executable, *arguments],
                cwd=tmp_path,
                env=here,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def _until(db: psycopg.Connection, question: str) -> None:
    give_up = time.monotonic() + 60
    while db.execute(question.encode()).fetchone() != (True,):
        assert time.monotonic() < give_up, question
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("handler", ["stuck", "waits"])
def test_two_signals_end_a_worker_whatever_its_handlers_do(
    dsn: str, db: psycopg.Connection, start: Start, handler: str, number: signal.Signals
) -> None:
    with Client(dsn) as client:
        client.enqueue(handler)
        worker = start("-m", "cli", "worker", "--app", "stuck:app")
        _until(db, "select exists (select from pgflow.run where state = 'running')")
        worker.send_signal(number)
        # It claims no more, and waits: for half a minute, but for the second signal.
        client.enqueue("quick")
        worker.send_signal(number)
        told, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0, told
        (line,) = client.runs(handler=handler)
        assert (line["state"], line["attempt_count"]) == ("pending", 0)
        assert client.timeline(line["run_id"])[-1]["payload"] == {"reason": "shutdown"}


def test_a_worker_that_has_nothing_to_do_ends_at_the_first_signal(
    db: psycopg.Connection, start: Start
) -> None:
    worker = start("-m", "cli", "worker", "--app", "stuck:app")
    _until(db, "select exists (select from pgflow.idle_worker)")
    worker.terminate()
    told, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, told
    _until(db, "select not exists (select from pgflow.worker where stopped_at is null)")


def test_a_worker_in_another_program_leaves_its_signals_alone(
    dsn: str, db: psycopg.Connection, start: Start
) -> None:
    program = start("-c", EMBEDDED, dsn)
    with Client(dsn) as client:
        client.enqueue("quick")
        _until(db, "select exists (select from pgflow.run_finished)")
    program.terminate()
    program.communicate(timeout=60)
    assert program.returncode == -signal.SIGTERM
