"""Executes the gateway's statements, on a sync connection or an async one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

from pgflow._statement import Statement
from pgflow.errors import REFUSALS, BadRequest, PgflowError, ServerUnreachable

R = TypeVar("R")


def refusal(error: psycopg.Error) -> PgflowError | None:
    """Return what a database error means to a caller; None if it isn't one of pgflow's.

    A value that does not fit its type (a malformed id, a string with a NUL) is a bad request too.
    """
    kind = REFUSALS.get(error.sqlstate or "")
    if kind is None:
        if isinstance(error, psycopg.DataError):
            kind = BadRequest
        elif isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            return ServerUnreachable(f"the server cannot be reached: {error}".strip())
        else:
            return None
    diag = error.diag
    return kind(
        diag.message_primary or str(error),
        detail=diag.message_detail or "",
        hint=diag.message_hint or "",
        field=diag.column_name or "",
    )


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what a database error means to a caller."""
    try:
        yield
    except psycopg.Error as error:
        if (refused := refusal(error)) is not None:
            raise refused from error
        raise


def execute(conn: psycopg.Connection[Any], statement: Statement[R]) -> R:
    """Execute a statement and read its rows. Raises the Refusal that the database answered with."""
    try:
        with conn.cursor(row_factory=dict_row) as cursor:
            return statement.read(cursor.execute(statement.sql, statement.params).fetchall())
    except psycopg.Error as error:
        if (refused := refusal(error)) is not None:
            raise refused from error
        raise


async def aexecute(conn: psycopg.AsyncConnection[Any], statement: Statement[R]) -> R:
    """Execute a statement and read its rows. Raises the Refusal that the database answered with."""
    try:
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement.sql, statement.params)
            return statement.read(await cursor.fetchall())
    except psycopg.Error as error:
        if (refused := refusal(error)) is not None:
            raise refused from error
        raise
