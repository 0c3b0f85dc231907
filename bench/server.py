"""The one server that everything is measured on, and databases on it."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgflow.embedded import EmbeddedServer

SETTINGS: Final = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "synchronous_commit": "on",
    "fsync": "on",
}


@contextmanager
def server(dsn: str | None) -> Iterator[str]:
    """Yield a superuser's DSN: the given one, or that of a server for this time only."""
    if dsn is not None:
        yield dsn
        return
    with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as folder:
        Path(folder).chmod(0o755)  # the server may have to run as another user
        with EmbeddedServer(Path(folder) / "data", settings=SETTINGS) as embedded:
            yield embedded.dsn


def connect(dsn: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect in autocommit."""
    return psycopg.connect(dsn, autocommit=True)


def value(dsn: str, query: str, parameters: tuple[object, ...] = ()) -> Any:
    """Return the first value that a query returns, on a connection of its own."""
    with connect(dsn) as conn:
        row = conn.execute(query.encode(), parameters or None).fetchone()
        return None if row is None else row[0]


@contextmanager
def database(admin: str, *, like: str | None = None) -> Iterator[str]:
    """Make a database, a copy of the one `like` leads to; yield its DSN; drop it at the end."""
    template = "template0" if like is None else conninfo_to_dict(like)["dbname"]
    name = f"bench_{secrets.token_hex(4)}"
    with connect(admin) as conn:
        conn.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(name), sql.Identifier(str(template))
            )
        )
    try:
        # A URL, because some drivers read nothing else.
        yield url(admin, name)
    finally:
        with connect(admin) as conn:
            drop = sql.SQL("drop database if exists {} with (force)")
            conn.execute(drop.format(sql.Identifier(name)))


def url(dsn: str, dbname: str) -> str:
    """Return the DSN of another database on the same server, a URL where the DSN is one."""
    if "://" not in dsn:
        return make_conninfo(dsn, dbname=dbname)
    base, _, query = dsn.partition("?")
    base = base.rsplit("/", 1)[0] if base.count("/") > 2 else base
    return f"{base}/{dbname}" + (f"?{query}" if query else "")


def settle(dsn: str) -> None:
    """Bring statistics, visibility and disk into a state that doesn't depend on timing."""
    with connect(dsn) as conn:
        conn.execute("vacuum (analyze)")
        conn.execute("checkpoint")


def wal(dsn: str) -> int:
    """Return how many bytes of WAL the server has written, ever."""
    return int(value(dsn, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))
