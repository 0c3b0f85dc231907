"""A server that keeps what it has committed, and workers that can be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate

APP = Path(__file__).parent / "app.py"
Process = subprocess.Popen[bytes]


@pytest.fixture
def durable(data_dir: Path) -> Iterator[EmbeddedServer]:
    """Return a server that keeps what it has committed, with the chaos queue and the side table."""
    with EmbeddedServer(data_dir) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("create table effect (run_id uuid not null, lease_no integer not null)")
            conn.execute("create table trace (run_id uuid not null, step text not null)")
            conn.execute(
                "select pgflow.define_queue('chaos', max_attempts => 1000, lease_ttl => '1 second')"
            )
        yield server


@pytest.fixture
def start(durable: EmbeddedServer) -> Iterator[Callable[[], Process]]:
    """Return a function that starts a worker process."""
    started: list[Process] = []

    def start_one() -> Process:
        started.append(subprocess.Popen([sys.executable, str(APP), durable.dsn]))
        return started[-1]

    yield start_one
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def eventually(server: EmbeddedServer, question: str, seconds: float = 90) -> None:
    """Ask until the answer is true."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with psycopg.connect(server.dsn, connect_timeout=2) as conn:
                if conn.execute(question).fetchone() == (True,):
                    return
        except psycopg.OperationalError:
            pass  # the server is on its way back
        if time.monotonic() > deadline:
            raise TimeoutError(question)
        time.sleep(0.05)


def value(server: EmbeddedServer, query: str) -> int:
    """Return the one number that a query returns."""
    with psycopg.connect(server.dsn) as conn:
        row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])
