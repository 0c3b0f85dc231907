"""Workers in processes of their own, which are killed at a staged moment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
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
        command = [sys.executable, "-m", "pgflow.cli", "worker", "--app", app]
        with (
            psycopg.connect(pgflow_scene.dsn, autocommit=True) as watching,
            psycopg.connect(pgflow_scene.dsn) as holding,
        ):
            holding.execute(lock.encode())
            process = subprocess.Popen(command, cwd=PROJECT, env=_environment(pgflow_scene.dsn))
            try:
                pid = _blocked(watching, holding, process)
            finally:
                process.kill()
                process.wait()
            watching.execute("select pg_terminate_backend(%s, 10000)", (pid,))
            holding.rollback()
        pgflow_scene.time.advance(minutes=2)

    return kill


def _environment(dsn: str) -> dict[str, str]:
    others = {k: v for k, v in os.environ.items() if not k.startswith("PGFLOW_")}
    return others | {"PGFLOW_DSN": dsn}


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
