"""The databases of tests: a server, a migrated template on it, and clones of that.

In them the engine's clock is a row that all sessions share: pgflow._test_now(), which elsewhere
reads a setting of the session, is replaced. So a test sets the time for connections that are open
already, in whichever process they are.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate

# Nobody keeps these data.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
}
# A database is made ten times as fast in memory. A container often has but 64 MB there.
_MEMORY = Path("/dev/shm")  # noqa: S108 - who uses it adds a name that nobody can guess
_ROOM = 4 << 30

_SHARED_CLOCK = b"""
    update pgflow.installation set test_clock = true;
    create schema pgflow_testing;
    create table pgflow_testing.clock (now timestamptz not null);
    insert into pgflow_testing.clock values (clock_timestamp());
    grant usage on schema pgflow_testing to pgflow_owner;
    grant select on pgflow_testing.clock to pgflow_owner;
    create or replace function pgflow._test_now()
    returns timestamptz
    language sql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
        select c.now from pgflow_testing.clock c
    $$;
"""


def base_folder() -> Path:
    """Return where to put the folders of servers: in memory, or else among temporary files."""
    if os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
        return _MEMORY
    return Path(tempfile.gettempdir())


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start the embedded server of a folder, or use the one that runs; yield a superuser's DSN.

    Processes that name the same folder share the server; the last to leave stops it.
    Raises what EmbeddedServer.start() raises.
    """
    with EmbeddedServer(folder, settings=FAST) as embedded:
        yield embedded.socket_dsn


def remove_server(folder: Path) -> None:
    """Stop the server of a folder, whoever uses it, and delete the folder."""
    if (folder / "server.json").exists():
        EmbeddedServer(folder).stop()
    shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path, pattern: str, older_than: timedelta) -> None:
    """Remove the servers in `place` whose users were all killed, if they are that old."""
    oldest = time.time() - older_than.total_seconds()
    for users in place.glob(f"{pattern}/users"):
        with suppress(OSError), users.open() as lock:
            if users.parent.stat().st_mtime < oldest:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by whoever uses the server
                remove_server(users.parent)


@contextmanager
def template(server_dsn: str) -> Iterator[str]:
    """Make a migrated database with the shared clock, yield its name, and drop it."""
    with _database(server_dsn, "template1") as dsn:
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(_SHARED_CLOCK)
            name = conn.info.dbname
        yield name


@contextmanager
def clone(server_dsn: str, template_name: str) -> Iterator[str]:
    """Make a copy of the template, yield its DSN, and drop it whoever is connected."""
    with _database(server_dsn, template_name) as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("update pgflow_testing.clock set now = clock_timestamp()")
        yield dsn


@contextmanager
def _database(server_dsn: str, template_name: str) -> Iterator[str]:
    database = sql.Identifier(f"pgflow_test_{secrets.token_hex(6)}")
    create = sql.SQL("create database {} template {}")
    # Any value turns the engine to _test_now(). This one is right even where a test migrates its
    # database again, and so puts the function back that reads it.
    turn = sql.SQL("alter database {} set pgflow.test_now = 'now'")
    drop = sql.SQL("drop database if exists {} with (force)")
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(create.format(database, sql.Identifier(template_name)))
        try:
            admin.execute(turn.format(database))
            yield make_conninfo(server_dsn, dbname=database.as_string().strip('"'))
        finally:
            admin.execute(drop.format(database))
