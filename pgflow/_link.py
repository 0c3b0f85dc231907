"""A connection that comes back: statements wait until the server is there again."""

from __future__ import annotations

import asyncio
import random
from typing import Any, TypeVar

import psycopg
import structlog

from pgflow._statement import Statement
from pgflow.database import aexecute
from pgflow.errors import ServerUnreachable

R = TypeVar("R")
_log = structlog.get_logger("pgflow")

# Classes of errors under which a statement did nothing and may be sent again: conflicts of
# concurrent transactions, lack of resources, locks, an operator's intervention, system trouble.
AGAIN = ("40", "53", "55", "57", "58")
# A pooler gave us another server connection, which doesn't know our prepared statements.
_NOT_PREPARED = (psycopg.errors.DuplicatePreparedStatement, psycopg.errors.InvalidSqlStatementName)
# Seconds after which a statement without an answer is given up; only this notices a stopped server.
_PATIENCE = 30
# Keepalives that notice a cut cable within seconds.
SETTINGS: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 5000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "application_name": "pgflow",
}


class Link:
    """Executes one statement at a time, in read committed; reconnects for as long as it takes.

    A statement whose reply is lost is sent again: every worker verb is safe to call twice.
    """

    def __init__(self, dsn: str, name: str, *, patience: float = _PATIENCE) -> None:
        self._dsn = dsn
        self._name = name
        self._patience = patience
        self._conn: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._prepares = True

    async def run(self, statement: Statement[R]) -> R:
        """Execute a statement. Raises what the database refuses; a lost server it waits for."""
        async with self._lock:
            delay = 0.1
            while True:
                try:
                    async with asyncio.timeout(self._patience):
                        return await aexecute(await self._connection(), statement)
                except TimeoutError:
                    _log.warning("server_silent", link=self._name, seconds=self._patience)
                    await self._drop()
                except _NOT_PREPARED:
                    _log.warning(
                        "pooler_detected", link=self._name, effect="statements not prepared"
                    )
                    self._prepares = False
                    await self._drop()
                except psycopg.Error as error:
                    if not self._lost() and not (error.sqlstate or "").startswith(AGAIN):
                        raise
                    _log.warning("statement_repeated", link=self._name, error=str(error).strip())
                except ServerUnreachable as error:
                    _log.warning("server_unreachable", link=self._name, error=str(error))
                    await self._drop()
                await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - no secret
                delay = min(delay * 2, 1.0)

    async def close(self) -> None:
        """Close the connection."""
        await self._drop()

    def _lost(self) -> bool:
        return self._conn is None or self._conn.closed or self._conn.broken

    async def _connection(self) -> psycopg.AsyncConnection[Any]:
        if self._conn is None or self._lost():
            await self._drop()
            conn = await connect(self._dsn)
            conn.prepare_threshold = 2 if self._prepares else None
            self._conn = conn
        return self._conn

    async def _drop(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()


async def connect(dsn: str) -> psycopg.AsyncConnection[Any]:
    """Connect in autocommit, in read committed whatever the database's default is.

    Raises ServerUnreachable.
    """
    try:
        conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True, **SETTINGS)
    except psycopg.OperationalError as error:
        raise ServerUnreachable(f"the server cannot be reached: {error}".strip()) from error
    try:
        default = await (await conn.execute("show default_transaction_isolation")).fetchone()
        if default != ("read committed",):
            # A session setting: behind a pooler it would leak to others, but harmlessly.
            await conn.execute("set default_transaction_isolation = 'read committed'")
    except BaseException:  # a worker that stops while it connects must not leave this open
        await conn.close()
        raise
    return conn
