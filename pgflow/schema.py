"""Bring a database to this program's version: numbered migrations, then all of sql/ anew."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgflow import _yoyo
from pgflow._locate import locate
from pgflow._version import __version__
from pgflow.errors import DatabaseIsNewer, MigrationBusy, MigrationIncomplete

_TRIES: Final = 6
_SESSION: Final = {
    "lock_timeout": "5s",  # a queue behind a waiting DDL statement is an outage
    "statement_timeout": "0",  # a large index takes its time
    "idle_session_timeout": "0",  # the connection that holds the lock waits for the other
    "client_min_messages": "warning",
}
_PASSING: Final = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


@dataclass(frozen=True)
class Program:
    """What this program brings: its version and its two folders of SQL. Tests give their own."""

    version: str = __version__
    migrations: Path = field(default_factory=lambda: locate("migrations"))
    sql: Path = field(default_factory=lambda: locate("sql"))

    def sql_files(self) -> list[Path]:
        """Return the files of sql/ in the order in which they are applied."""
        return sorted(self.sql.glob("*.sql"))

    def sql_sha256(self) -> str:
        """Return a digest of the names and texts of sql/."""
        digest = hashlib.sha256()
        for path in self.sql_files():
            digest.update(f"{path.name}\0{len(path.read_bytes())}\0".encode() + path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Migrated:
    """What migrate() did: the ids of the migrations applied, and the version reached."""

    applied: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class SchemaStatus:
    """How a database compares with this program.

    `database` is the version that migrated it last, None if none did; `pending` are the program's
    migrations that it lacks, `unknown` those it has and the program doesn't know; `sql_is_current`
    tells whether its functions are the program's.
    """

    program: str
    database: str | None
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    sql_is_current: bool

    @property
    def is_newer(self) -> bool:
        """Whether the database belongs to a newer program, and must be left alone."""
        newer = self.database is not None and _order(self.database) > _order(self.program)
        return bool(self.unknown) or newer

    @property
    def is_current(self) -> bool:
        """Whether migrate() would change nothing."""
        return self.database == self.program and self.sql_is_current and not self.pending


def migrate(dsn: str, program: Program | None = None, *, wait: float = 300) -> Migrated:
    """Bring the database at `dsn` to the program's version; harmless when it is there already.

    `dsn` must lead to the server itself, not through a transaction pooler. A migration of the same
    database that is under way is waited for, `wait` seconds at most.
    Raises DatabaseIsNewer (nothing was changed), MigrationBusy, MigrationIncomplete, or psycopg's
    error with the file and line that failed in its notes.
    """
    program = program or Program()
    dsn = _with_settings(dsn, _SESSION)
    with _lock(dsn, wait) as conn:
        with suppress(psycopg.errors.InvalidParameterValue):  # a server on Windows can't
            # Otherwise the statement of a killed migration runs on, beside the next one's.
            conn.execute("set client_connection_check_interval = '1s'")
            dsn = _with_settings(dsn, {"client_connection_check_interval": "1s"})
        for tries_left in reversed(range(_TRIES)):
            try:
                return _migrate(conn, dsn, program)
            except psycopg.Error as problem:
                if not tries_left or not _is_passing(problem):
                    raise
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311 (only to fall out of step)
    raise AssertionError


def status(dsn: str, program: Program | None = None) -> SchemaStatus:
    """Compare the database at `dsn` with the program. Any login may ask."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return _status(conn, program or Program())


def _migrate(conn: psycopg.Connection, dsn: str, program: Program) -> Migrated:
    before = _status(conn, program)
    unknown = sorted(_marked(conn).union(before.unknown) - set(_yoyo.shipped(program.migrations)))
    if before.is_newer or unknown:
        raise DatabaseIsNewer(
            f"the database was migrated by pgflow {before.database or '(unknown)'}, this is "
            f"{program.version}; nothing was changed. Upgrade this program."
            + (f" Unknown here: {', '.join(unknown)}" if unknown else "")
        )
    conn.execute("create schema if not exists pgflow_meta")
    applied, left = _yoyo.apply_pending(dsn, program.migrations)
    if left:
        raise MigrationIncomplete(f"migrations that could not be applied: {', '.join(left)}")
    with conn.transaction():
        _apply_sql(conn, program.sql_files())
        _write_version(conn, program)
    return Migrated(applied, program.version)


def _apply_sql(conn: psycopg.Connection, files: Iterable[Path]) -> None:
    """Run every file whole, as the owner, with no search path: names must be qualified."""
    conn.execute("set local role pgflow_owner")
    conn.execute("set local search_path = ''")
    for path in files:
        text = path.read_bytes()
        try:
            conn.execute(text)
        except psycopg.Error as problem:
            position = int(problem.diag.statement_position or 1)
            line = text.decode()[: position - 1].count("\n") + 1
            problem.add_note(f"in {path}, line {line}")
            raise
    conn.execute("reset role")


def _write_version(conn: psycopg.Connection, program: Program) -> None:
    """Add a row to the history, if something changed. Everybody may read it: status() does."""
    conn.execute(
        """
        create table if not exists pgflow_meta.version (
            number integer generated always as identity primary key,
            migrated_at timestamptz not null default pg_catalog.clock_timestamp(),
            migrated_by text not null default session_user,
            version text not null,
            migrations text[] not null,
            sql_sha256 text not null
        );
        grant usage on schema pgflow_meta to public;
        grant select on pgflow_meta.version to public
        """
    )
    conn.execute(
        """
        with last as (
            select v.version, v.migrations, v.sql_sha256
            from pgflow_meta.version v
            order by v.number desc
            limit 1
        )
        insert into pgflow_meta.version (version, migrations, sql_sha256)
        select new.*
        from (values (%s, %s::text[], %s)) as new (version, migrations, sql_sha256)
        where not exists (
            select from last
            where (last.version, last.migrations, last.sql_sha256)
                = (new.version, new.migrations, new.sql_sha256)
        )
        """,
        (program.version, list(_yoyo.shipped(program.migrations)), program.sql_sha256()),
    )


def _status(conn: psycopg.Connection, program: Program) -> SchemaStatus:
    shipped = _yoyo.shipped(program.migrations)
    version, migrations, sql_sha256 = None, [], None
    if _exists(conn, "pgflow_meta.version"):
        row = conn.execute(
            """
            select v.version, v.migrations, v.sql_sha256
            from pgflow_meta.version v
            order by v.number desc
            limit 1
            """
        ).fetchone()
        version, migrations, sql_sha256 = row or (None, [], None)
    return SchemaStatus(
        program=program.version,
        database=version,
        pending=tuple(name for name in shipped if name not in migrations),
        unknown=tuple(name for name in migrations if name not in shipped),
        sql_is_current=sql_sha256 == program.sql_sha256(),
    )


def _marked(conn: psycopg.Connection) -> set[str]:
    """Return what yoyo has marked, which after a crash may be more than the version row knows."""
    if not _exists(conn, "pgflow_meta._yoyo_migration"):
        return set()
    rows = conn.execute("select migration_id from pgflow_meta._yoyo_migration").fetchall()
    return {row[0] for row in rows}


def _exists(conn: psycopg.Connection, name: str) -> bool:
    return conn.execute("select pg_catalog.to_regclass(%s)", (name,)).fetchone() != (None,)


@contextmanager
def _lock(dsn: str, wait: float) -> Iterator[psycopg.Connection]:
    """Yield a connection that holds this database's migration lock until it is closed."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        set_timeout = "select pg_catalog.set_config('lock_timeout', %s, false)"
        conn.execute(set_timeout, (f"{max(1, round(wait * 1000))}ms",))
        try:
            conn.execute("select pg_advisory_lock(hashtextextended('pgflow.migrate', 0))")
        except psycopg.errors.LockNotAvailable:
            raise MigrationBusy from None
        conn.execute(set_timeout, (_SESSION["lock_timeout"],))
        yield conn


def _with_settings(dsn: str, settings: Mapping[str, str]) -> str:
    given = conninfo_to_dict(dsn)
    words = [str(given.get("options") or ""), *(f"-c {k}={v}" for k, v in settings.items())]
    name = str(given.get("application_name") or "pgflow migrate")
    return make_conninfo(dsn, options=" ".join(words).strip(), application_name=name)


def _is_passing(problem: psycopg.Error) -> bool:
    """Tell whether the same again may succeed: somebody else held or changed what we needed.

    Roles belong to the whole server, so migrations of two of its databases can meet there.
    """
    return (
        isinstance(problem, _PASSING)
        or "tuple concurrently" in str(problem)
        or problem.diag.constraint_name == "pg_authid_rolname_index"
    )


def _order(version: str) -> tuple[tuple[int, ...], int, int]:
    """Return a key by which versions of the forms 1.2.3, 1.2.3rc1, 1.2.3.dev4 sort by age."""
    parts = re.fullmatch(r"([\d.]+?)\.?(?:(dev|a|b|rc)(\d+))?(?:\+.*)?", version)
    if parts is None:
        raise DatabaseIsNewer(f"cannot tell how old pgflow {version} is, which migrated this one")
    release = tuple(int(number) for number in parts[1].split("."))
    stage = ("dev", "a", "b", "rc", None).index(parts[2])
    return release, stage, int(parts[3] or 0)
