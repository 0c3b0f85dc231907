"""A handler's transaction, in which the worker writes too: all of it is committed, or nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg

from pgflow import protocol
from pgflow._link import SETTINGS, connect
from pgflow._statement import Statement
from pgflow.database import aexecute, execute, refusals
from pgflow.errors import LeaseLost, NotStored, ServerUnreachable
from pgflow.models import Lease, Outcome

R = TypeVar("R")


class Transaction:
    """One transaction under a lease, on a connection of its own.

    What the worker writes is the last statement. It locks the run's row and is refused if the lease
    is lost: so the handler's writes are committed only if the lease still holds. Inside psycopg's
    block the handler can't commit or roll back by itself, but can make savepoints. `untold` gives
    what records the calls of models that the reporter has not recorded yet: it cannot while the
    handler's own writes hold the run's row, so that those are recorded here.
    """

    def __init__(
        self,
        dsn: str,
        lease: Lease,
        project: str | None,
        untold: Callable[[], Awaitable[Statement[Any] | None]],
    ) -> None:
        self._dsn = dsn
        self._lease = lease
        self._project = project
        self._untold = untold
        self._conn: psycopg.AsyncConnection[Any] | None = None
        self._plain_conn: psycopg.Connection[Any] | None = None
        self._is_over = False
        self._ending = threading.Lock()

    async def begin(self) -> psycopg.AsyncConnection[Any]:
        """Connect and begin; returns the connection. Raises ServerUnreachable."""
        conn = self._conn = await connect(self._dsn)
        conn.prepare_threshold = None
        await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        self._block = psycopg.AsyncTransaction(conn)
        await self._block.__aenter__()
        return conn

    async def begin_plain(self) -> psycopg.Connection[Any]:
        """Connect and begin; returns a connection for a plain function."""
        opening = self._in_thread(self._begin_plain)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on, and abandon() should find what it opens.
            await asyncio.wait({opening})
            raise

    def _begin_plain(self) -> psycopg.Connection[Any]:
        with refusals():
            conn = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None, **SETTINGS)
            with self._ending:
                if self._is_over:  # it was cancelled twice, and abandoned while this connected
                    conn.close()
                    raise ServerUnreachable("the transaction was abandoned before it began")
                self._plain_conn = conn
            conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._plain_block = psycopg.Transaction(conn)
            self._plain_block.__enter__()
        return conn

    async def record(self, key: str, digest: str, value: str, *, undo: bool) -> None:
        """Journal a step and commit. Raises LeaseLost, NotStored."""
        ids, numbers = [self._lease.run_id], [self._lease.lease_no]
        undos = [True] if undo else None
        lines = await self._commit(
            protocol.record_step(
                ids, numbers, [key], [digest], [value], undos, project=self._project
            )
        )
        if not lines:
            return
        if lines[0].outcome == "refused":
            raise NotStored(f"the result of step {key} cannot be stored: {lines[0].detail}")
        # Said already, under this very lease? Not by this transaction, which is rolled back.
        raise LeaseLost(f"the lease of run {self._lease.run_id} is lost")

    async def complete(self, output: str, writes: str | None) -> Outcome | None:
        """Complete the run and commit; returns None, or why it was not done."""
        ids, numbers = [self._lease.run_id], [self._lease.lease_no]
        written = None if writes is None else [writes]
        lines = await self._commit(
            protocol.complete(ids, numbers, [output], written, project=self._project)
        )
        return lines[0] if lines else None

    async def abandon(self) -> None:
        """Roll back what is not committed, and close the connection."""
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()
        with self._ending:
            self._is_over = True
        if self._plain_conn is not None:
            await asyncio.shield(self._in_thread(self._close_plain))

    async def _commit(self, last: Statement[list[R]]) -> list[R]:
        """Commit if the last statement has nothing to say, else roll back."""
        first = await self._untold()
        if self._plain_conn is not None:
            if first is not None:
                await asyncio.to_thread(execute, self._plain_conn, first)
            return await asyncio.to_thread(self._commit_plain, self._plain_conn, last)
        if self._conn is None:
            raise ServerUnreachable("the transaction's connection is closed")
        if first is not None:
            await aexecute(self._conn, first)
        lines = await aexecute(self._conn, last)
        if not lines:
            await self._block.__aexit__(None, None, None)
        return lines

    def _commit_plain(self, conn: psycopg.Connection[Any], last: Statement[list[R]]) -> list[R]:
        lines = execute(conn, last)
        if not lines:
            self._plain_block.__exit__(None, None, None)
        return lines

    @staticmethod
    def _in_thread(call: Callable[[], R]) -> asyncio.Future[R]:
        """Return a future, not a task: an event loop that ends cancels tasks, even unstarted."""
        return asyncio.get_running_loop().run_in_executor(None, call)

    def _close_plain(self) -> None:
        conn, self._plain_conn = self._plain_conn, None
        if conn is not None:
            with conn.lock:  # a function that nobody waits for any more may still use it
                conn.close()
