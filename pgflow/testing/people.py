"""Database roles for the people of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo


class People:
    """Makes roles and takes them away again; they belong to the server, so one test at a time."""

    def __init__(self, conn: psycopg.Connection[Any], dsn: str) -> None:
        self._conn = conn
        self._dsn = dsn
        self._turn: psycopg.Connection[Any] | None = None
        self._made: list[sql.Identifier] = []

    def make(self, name: str, *, member_of: tuple[str, ...]) -> None:
        """Make a role, and those that it is to be a member of, where there are none yet."""
        self._take_turn()
        for role in (*member_of, name):
            self._make(role)
        grant = sql.SQL("grant {} to {}")
        for role in member_of:
            self._conn.execute(grant.format(sql.Identifier(role), sql.Identifier(name)))

    @contextmanager
    def acting_as(self, role: str) -> Iterator[None]:
        """Let the connection act as a role. Raises LookupError if there is none of that name."""
        try:
            self._conn.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        except psycopg.errors.InvalidParameterValue:
            raise LookupError(
                f"there is no database role {role!r}; make one: scene.person({role!r})"
            ) from None
        try:
            yield
        finally:
            self._conn.execute("reset role")

    def close(self) -> None:
        """Drop the roles that were made."""
        for role in reversed(self._made):
            self._conn.execute(sql.SQL("drop owned by {}").format(role))
            self._conn.execute(sql.SQL("drop role {}").format(role))
        self._made.clear()
        if self._turn is not None:
            self._turn.close()

    def _take_turn(self) -> None:
        """Wait until no other test has roles of its own: theirs may have the same names."""
        if self._turn is None:
            where = make_conninfo(self._dsn, dbname="postgres")
            self._turn = psycopg.connect(where, autocommit=True)
            self._turn.execute("select pg_advisory_lock(hashtextextended('pgflow.testing', 0))")

    def _make(self, name: str) -> None:
        known = "select from pg_catalog.pg_roles where rolname = %s"
        if self._conn.execute(known, (name,)).fetchone() is None:
            role = sql.Identifier(name)
            self._conn.execute(sql.SQL("create role {} nologin").format(role))
            self._made.append(role)
