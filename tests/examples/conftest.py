"""Workers in processes of their own, which are killed at a staged moment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest

from pgflow.testing import Scene

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0

BLOCKED = """
    select a.pid from pg_stat_activity a
    where a.datname = current_database() and %s = any (pg_blocking_pids(a.pid))
"""


@pytest.fixture
def kill_a_worker(pgflow_scene: Scene) -> Callable[[str, str], None]:
    """Return a function that has a worker of an app killed, as a power cut would.

    `lock` is a statement whose lock stops the worker in the middle of its work. Afterwards its
    connections are gone, nothing of that moment is committed, and its lease has expired.
    """

    def kill(app: str, lock: str) -> None:
        with (
            psycopg.connect(pgflow_scene.dsn, autocommit=True) as watching,
            psycopg.connect(pgflow_scene.dsn) as holding,
        ):
            holding.execute(lock.encode())
            with _working(app, pgflow_scene.dsn) as process:
                pid = _blocked(watching, holding, process)
            watching.execute("select pg_terminate_backend(%s, 10000)", (pid,))
            holding.rollback()
        pgflow_scene.time.advance(minutes=2)

    return kill


@pytest.fixture
def working(pgflow_scene: Scene) -> Callable[[str], AbstractContextManager[object]]:
    """Return a context manager in which a worker process of an app works."""
    return lambda app: _working(app, pgflow_scene.dsn)


@contextmanager
def _working(app: str, dsn: str) -> Iterator[subprocess.Popen[bytes]]:
    others = {k: v for k, v in os.environ.items() if not k.startswith("PGFLOW_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pgflow.cli", "worker", "--app", app],
        cwd=PROJECT,
        env=others | {"PGFLOW_DSN": dsn},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _blocked(
    watching: psycopg.Connection, holding: psycopg.Connection, process: subprocess.Popen[bytes]
) -> int:
    """Wait until the server says that somebody waits for our lock; return the backend's pid."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up and process.poll() is None:
        row = watching.execute(BLOCKED, (holding.info.backend_pid,)).fetchone()
        if row is not None:
            return int(row[0])
        time.sleep(0.01)
    raise TimeoutError("the worker never came to the lock")
