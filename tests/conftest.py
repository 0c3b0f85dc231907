"""One server per test process, one migrated template on it, and a clone of that per test."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate
from pgflow.testing import databases


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take every nth test by its name, as $PGFLOW_TEST_EVERY says."""
    every = int(os.environ.get("PGFLOW_TEST_EVERY") or 1)
    chosen = {item.nodeid for item in sorted(items, key=lambda item: item.nodeid)[::every]}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in chosen])
    items[:] = [item for item in items if item.nodeid in chosen]


@contextmanager
def database(server: str, *, template: str = "template1") -> Iterator[str]:
    """Make a database, yield its DSN, and drop it whoever is connected."""
    name = f"pgflow_test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"create database {name} template {template}")
        try:
            yield make_conninfo(server, dbname=name)
        finally:
            _end_sessions(admin, name)
            admin.execute(f"drop database if exists {name} with (force)")


def _end_sessions(admin: psycopg.Connection, name: str) -> None:
    """End all sessions of a database; one that `drop` has to end makes it sleep for 100 ms."""
    end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
    give_up = time.monotonic() + 1
    while admin.execute(end, [name]).fetchall() and time.monotonic() < give_up:
        time.sleep(0.002)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Return a folder for an embedded server's data: short, and not in pytest's closed one."""
    folder = databases.base_folder() / f"pgflow-test-{secrets.token_hex(4)}"
    yield folder
    if (folder / "server.json").exists():
        EmbeddedServer(folder).stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Return the superuser's DSN of `$PGFLOW_TEST_DSN`, or of a server that lives as long as we.

    Crash and durability tests start servers of their own.
    """
    if given := os.environ.get("PGFLOW_TEST_DSN"):
        yield given
        return
    folder = databases.base_folder() / f"pgflow-tests-{secrets.token_hex(4)}"
    with EmbeddedServer(folder, settings=databases.FAST) as embedded:
        yield embedded.socket_dsn
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def pgflow_server(server: str) -> str:
    """Return the server for the databases of the testing kit: the one that is there."""
    return server


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """Return the name of a migrated database in which tests may set the clock."""
    with database(server) as dsn:
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("update pgflow.installation set test_clock = true")
            name = conn.info.dbname
        yield name


@pytest.fixture
def empty_dsn(server: str) -> Iterator[str]:
    """Return the DSN of a database with nothing in it."""
    with database(server) as dsn:
        yield dsn


@pytest.fixture
def dsn(server: str, template: str) -> Iterator[str]:
    """Return the DSN of a migrated database of the test's own."""
    with database(server, template=template) as dsn:
        yield dsn


@pytest.fixture
def db(dsn: str) -> Iterator[psycopg.Connection]:
    """Return an autocommit connection to the test's own database."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn
