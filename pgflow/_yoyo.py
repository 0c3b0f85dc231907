"""The one place that knows yoyo, which applies the numbered migrations."""

from __future__ import annotations

import contextlib
import glob
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri
from yoyo.migrations import MigrationStep, TransactionWrapper, default_migration_table


def shipped(folder: Path) -> tuple[str, ...]:
    """Return the ids of the migrations in `folder`, in order."""
    return tuple(migration.id for migration in _read(folder))


def apply_pending(dsn: str, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Apply what is not applied yet; return the ids applied now, and those still left.

    The schema pgflow_meta must exist, and the caller must be the only one who does this: whatever
    lock a killed process left in yoyo's own table is removed.
    """
    with _backend(dsn) as backend:
        backend.break_lock()
        with backend.lock():
            migrations = _read(folder)
            pending = backend.to_apply(migrations)
            for migration in pending:
                _prepare(migration)
            backend.apply_migrations_only(pending)
            left = backend.to_apply(migrations)
    unapplied = tuple(migration.id for migration in left)
    return tuple(m.id for m in pending if m.id not in unapplied), unapplied


def url(dsn: str) -> str:
    """Return yoyo's spelling of any libpq connection string."""
    # All of it in the query, where sockets, several hosts and odd characters need no care.
    return f"postgresql+psycopg:///?{urlencode({**conninfo_to_dict(dsn), 'schema': 'pgflow_meta'})}"


def _read(folder: Path) -> Any:  # noqa: ANN401 (yoyo has no types)
    return read_migrations(glob.escape(str(folder)))


@contextlib.contextmanager
def _backend(dsn: str) -> Iterator[Any]:
    with PostgresqlPsycopgBackend(parse_uri(url(dsn)), default_migration_table) as backend:
        backend.init_database()
        backend.get_log_data = _log_line
        backend.mark_one = lambda *_, **__: None  # see _prepare
        yield backend


def _log_line(migration: Any, operation: str) -> dict[str, object]:  # noqa: ANN401
    # yoyo's own asks for the user's and the host's name, and the first fails in a container that
    # runs under a number without a name, after the migration and before its mark.
    return {
        "id": str(uuid.uuid4()),
        "migration_id": migration.id,
        "migration_hash": migration.hash,
        "username": str(os.getuid()),
        "hostname": os.uname().nodename,
        "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
        "operation": operation,
    }


def _prepare(migration: Any) -> None:  # noqa: ANN401
    """Keep yoyo from printing what selects return, and let it mark in the same transaction.

    yoyo marks a migration on another connection after its commit: whoever is killed between the
    two finds it half known, and tries to make the same tables again.
    """
    migration.load()
    for step in migration.steps:
        step.step._execute = lambda cursor, statement: cursor.execute(statement)  # noqa: SLF001

    def mark(conn: psycopg.Connection) -> None:
        conn.execute("reset role")  # the migration may have taken the owner's
        conn.execute(
            "insert into pgflow_meta._yoyo_migration"
            " (migration_hash, migration_id, applied_at_utc)"
            " values (%s, %s, now() at time zone 'UTC')",
            (migration.hash, migration.id),
        )

    migration.steps.append(TransactionWrapper(MigrationStep(len(migration.steps), mark, None)))
