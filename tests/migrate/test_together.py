"""Several migrations at once, and those that were killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgflow import schema
from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate

if TYPE_CHECKING:
    from tests.migrate.conftest import Source

REAL = "import sys; from pgflow.schema import migrate; print(*migrate(sys.argv[1]).applied)"

SMALL = """
import sys, os
from pathlib import Path
from pgflow import _yoyo
from pgflow.schema import Program, migrate
{before}
folder = Path(sys.argv[2])
migrate(sys.argv[1], Program("1.2.0", folder / "migrations", folder / "sql"))
"""


def run(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(conn: psycopg.Connection, condition: str) -> None:
    """Ask until `condition` holds; the server's own waits are what is staged here."""
    while conn.execute(f"select {condition}".encode()).fetchone() != (True,):
        pass


def test_several_that_migrate_an_empty_database_at_once_apply_everything_once(
    empty_dsn: str,
) -> None:
    processes = [run(REAL, empty_dsn) for _ in range(3)]
    told = [process.communicate(timeout=60) for process in processes]
    assert [errors for _, errors in told] == ["", "", ""]
    assert sorted(len(applied.split()) for applied, _ in told)[:2] == [0, 0]
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("select count(*) from pgflow_meta.version").fetchone() == (1,)


def test_databases_of_a_new_server_can_be_migrated_at_once_though_they_share_the_roles(
    data_dir: Path,
) -> None:
    with EmbeddedServer(data_dir, settings={"fsync": "off"}) as server:
        names = ["a", "b", "c", "d"]
        with psycopg.connect(server.socket_dsn, autocommit=True) as conn:
            for name in names:
                conn.execute(f"create database {name}".encode())
        processes = [run(REAL, make_conninfo(server.socket_dsn, dbname=name)) for name in names]
        assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 4


def test_a_lock_that_a_killed_migration_left_costs_nothing(empty_dsn: str, source: Source) -> None:
    migrate(empty_dsn, source.program())
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(
            "insert into pgflow_meta.yoyo_lock (locked, ctime, pid) values (1, now(), 4711)"
        )
        source.migration("0002.second", "select 1")
        conn.execute("set statement_timeout = '5s'")  # yoyo would wait for ten
        assert migrate(empty_dsn, source.program()).applied == ("0002.second",)


def test_when_one_is_killed_in_a_migration_the_next_starts_it_anew(
    empty_dsn: str, source: Source, tmp_path: Path
) -> None:
    source.migration("0002.slow", "create table app.slow (id int); select pg_sleep(600)")
    killed = run(SMALL.format(before=""), empty_dsn, str(tmp_path))
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        sleeps = (
            "from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        )
        wait_until(conn, f"exists (select {sleeps})")
        killed.kill()
        killed.communicate()
        source.migration("0002.slow", "create table app.slow (id int)")
        assert migrate(empty_dsn, source.program()).applied == ("0002.slow",)
        # The server noticed that nobody waits for the killed one's statement.
        assert conn.execute(f"select count(*) {sleeps}".encode()).fetchone() == (0,)


def test_when_one_is_killed_after_the_commit_of_a_migration_it_is_not_applied_again(
    empty_dsn: str, source: Source, tmp_path: Path
) -> None:
    die = "_yoyo._log_line = lambda *_: os._exit(9)"
    killed = run(SMALL.format(before=die), empty_dsn, str(tmp_path))
    assert killed.communicate(timeout=60) == ("", "")
    assert killed.returncode == 9
    source.migration("0002.second", "select 1")
    assert migrate(empty_dsn, source.program()).applied == ("0002.second",)


def test_a_table_that_is_in_use_is_asked_for_again(
    empty_dsn: str, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(schema._SESSION, "lock_timeout", "20ms")
    migrate(empty_dsn, source.program())
    source.function("01_busy", "alter table app.thing alter column id set default 7")
    waits = "from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0"
    with (
        psycopg.connect(empty_dsn) as user,
        psycopg.connect(empty_dsn, autocommit=True) as watcher,
    ):
        user.execute("select * from app.thing")
        migration = threading.Thread(target=migrate, args=(empty_dsn, source.program()))
        migration.start()
        wait_until(watcher, f"exists (select {waits})")
        wait_until(watcher, f"not exists (select {waits})")
        user.rollback()
        migration.join()
        default = "select column_default from information_schema.columns where column_name = 'id'"
        assert watcher.execute(default).fetchone() == ("7",)
