"""Clients: the verbs on a connection of theirs or of yours, and the ways to wait for a run."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from typing import Any, Self, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from pgflow import protocol
from pgflow._ear import INBOX, AsyncEar, ThreadEar, end_of
from pgflow._statement import Row, RunId, Statement
from pgflow._subscription import AsyncFollows, Follows
from pgflow._together import Together
from pgflow._verbs import AsyncVerbs, Verbs
from pgflow._waiting import (
    THROWN,
    Ask,
    Leave,
    Nap,
    Steps,
    Until,
    advance,
    follow,
    wait_for_result,
    watch_inbox,
)
from pgflow.database import aexecute, execute, refusals
from pgflow.models import Event, Result

R = TypeVar("R")


# prepare_threshold=None works behind a pooler as well; autocommit saves two round trips a call.
_CONNECTION: dict[str, Any] = {"autocommit": True, "prepare_threshold": None, "connect_timeout": 5}


class Client(Verbs, Follows):
    """A sync client on a DSN, or on your own connection and so inside your transaction.

    Without a `project`, `$PGFLOW_PROJECT`, else the database's default.

    Example: `Client("postgresql://…").enqueue("send_email", {"to": "a@b.c"})`, or, committed with
    your own rows: `with conn.transaction(): conn.execute(…); Client(conn).enqueue("mail", …)`.
    """

    def __init__(self, where: str | psycopg.Connection[Any], *, project: str | None = None) -> None:
        self._conn = None if isinstance(where, str) else where
        self._dsn = where if isinstance(where, str) else ""
        self._project = project or os.environ.get("PGFLOW_PROJECT")
        self._pool: ConnectionPool[Any] | None = None
        self._opening = threading.Lock()
        self._ear = ThreadEar()

    def result(
        self,
        run_id: RunId,
        *,
        timeout: float | None = None,
        until: Until = "finished",
        project: str | None = None,
    ) -> Result:
        """Wait for a run's end, or with `until="paused"` for its pause too, and return what it is.

        `timeout` is in seconds: None waits as long as it takes, 0 looks once. A run that failed is
        returned as one that didn't. Raises ResultTimeout, which leaves the run alone, UnknownRun.
        """
        steps = wait_for_result(run_id, until, timeout, project, hinted=self._conn is None)
        topic = end_of(run_id) if until == "finished" else run_id
        with closing(self._carry_out(topic, steps)) as found:
            return next(found)

    def stream(
        self, run_id: RunId, *, after: int = 0, project: str | None = None
    ) -> Iterator[Event]:
        """Yield each line of a run's timeline after an `event_no`: what is there, then what comes.

        None is left out and none comes twice; it ends with the run's last. Raises UnknownRun.
        """
        return self._carry_out(run_id, follow(run_id, after, project, hinted=self._conn is None))

    def stream_inbox(
        self, *, role: str | None = None, assignee: str | None = None, project: str | None = None
    ) -> Generator[Row, None, None]:
        """Yield each open task, a row of view inbox, then each new one as it is asked, for ever.

        One that is open for so short that no look finds it is left out.
        """
        hinted = self._conn is None
        return self._carry_out(INBOX, watch_inbox(role, assignee, project, hinted=hinted))

    def _carry_out(self, topic: RunId | None, steps: Steps[R]) -> Generator[R, None, None]:
        woken = threading.Event()
        with self._ear.waits(topic, woken.set):
            step = advance(steps)
            while step is not None:
                reply: object = None
                if isinstance(step, Ask):
                    try:
                        reply = self._execute(step.statement, step.patience)
                    except THROWN as error:
                        step = advance(steps, error=error)
                        continue
                elif not isinstance(step, Nap):
                    try:
                        yield step
                    except GeneratorExit:
                        step = advance(steps, error=Leave())
                        continue
                elif self._conn is not None or step.hinted is None:
                    time.sleep(step.unhinted)
                else:
                    self._ear.start(self._dsn, self._ping)
                    reply = woken.wait(step.hinted if self._ear.proven else step.unhinted)
                    woken.clear()
                step = advance(steps, reply)

    async def _ping(self, payload: str) -> None:
        await asyncio.to_thread(self._execute, protocol.ping(payload), 3)

    def _execute(self, statement: Statement[R], patience: float = 30) -> R:
        statement = _in_project(statement, self._project)
        if self._conn is not None:
            return execute(self._conn, statement)
        with refusals(), self._open().connection(patience) as conn:
            return execute(conn, statement)

    def _open(self) -> ConnectionPool[Any]:
        with self._opening:
            if self._pool is None:
                # A pool only tells that it got no connection, after 30 s; this tells why, at once.
                psycopg.connect(self._dsn, **_CONNECTION).close()
                self._pool = ConnectionPool(
                    self._dsn,
                    kwargs=_CONNECTION,
                    min_size=0,
                    max_size=8,
                    check=_check,
                    open=True,
                )
            return self._pool

    def close(self) -> None:
        """Close the connections that this client opened."""
        self._ear.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(AsyncVerbs, AsyncFollows):
    """The async twin of Client."""

    def __init__(
        self, where: str | psycopg.AsyncConnection[Any], *, project: str | None = None
    ) -> None:
        self._conn = None if isinstance(where, str) else where
        self._dsn = where if isinstance(where, str) else ""
        self._project = project or os.environ.get("PGFLOW_PROJECT")
        self._pool: AsyncConnectionPool[Any] | None = None
        self._opening = asyncio.Lock()
        self._together = Together(self._execute)
        self._ear = AsyncEar()

    @property
    def dsn(self) -> str:
        """Where the database is; empty on a connection of your own."""
        return self._dsn

    async def result(
        self,
        run_id: RunId,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - that of the sync twin
        until: Until = "finished",
        project: str | None = None,
    ) -> Result:
        """Wait for a run's end, or with `until="paused"` for its pause too, and return what it is.

        `timeout` is in seconds: None waits as long as it takes, 0 looks once. A run that failed is
        returned as one that didn't. Raises ResultTimeout, which leaves the run alone, UnknownRun.
        """
        steps = wait_for_result(run_id, until, timeout, project, hinted=self._conn is None)
        topic = end_of(run_id) if until == "finished" else run_id
        async with aclosing(self._carry_out(topic, steps)) as found:
            return await anext(found)

    def stream(
        self, run_id: RunId, *, after: int = 0, project: str | None = None
    ) -> AsyncIterator[Event]:
        """Yield each line of a run's timeline after an `event_no`: what is there, then what comes.

        None is left out and none comes twice; it ends with the run's last. Raises UnknownRun.
        """
        return self._carry_out(run_id, follow(run_id, after, project, hinted=self._conn is None))

    def stream_inbox(
        self, *, role: str | None = None, assignee: str | None = None, project: str | None = None
    ) -> AsyncGenerator[Row, None]:
        """Yield each open task, a row of view inbox, then each new one as it is asked, for ever.

        One that is open for so short that no look finds it is left out.
        """
        hinted = self._conn is None
        return self._carry_out(INBOX, watch_inbox(role, assignee, project, hinted=hinted))

    async def _carry_out(self, topic: RunId | None, steps: Steps[R]) -> AsyncGenerator[R, None]:
        woken = asyncio.Event()
        with self._ear.waits(topic, woken.set):
            step = advance(steps)
            while step is not None:
                reply: object = None
                if isinstance(step, Ask):
                    try:
                        reply = await self._execute(step.statement, step.patience)
                    except THROWN as error:
                        step = advance(steps, error=error)
                        continue
                elif not isinstance(step, Nap):
                    try:
                        yield step
                    except GeneratorExit:
                        step = advance(steps, error=Leave())
                        continue
                elif self._conn is not None or step.hinted is None:
                    await asyncio.sleep(step.unhinted)
                else:
                    self._ear.start(self.dsn, self._ping)
                    reply = await _is_set(woken, step.hinted if self._ear.proven else step.unhinted)
                    woken.clear()
                step = advance(steps, reply)

    async def _ping(self, payload: str) -> None:
        await self._execute(protocol.ping(payload), 3)

    async def _execute(self, statement: Statement[R], patience: float = 30) -> R:
        statement = _in_project(statement, self._project)
        if self._conn is not None:
            return await aexecute(self._conn, statement)
        with refusals():
            async with (await self._open()).connection(patience) as conn:
                return await aexecute(conn, statement)

    async def _enqueue(self, statement: Statement[Any]) -> Any:  # noqa: ANN401 - as _execute
        if self._conn is not None:  # whose transaction it is
            return await self._execute(statement)
        return await self._together.enqueue(statement)

    async def _open(self) -> AsyncConnectionPool[Any]:
        async with self._opening:
            if self._pool is None:
                await (await psycopg.AsyncConnection.connect(self.dsn, **_CONNECTION)).close()
                self._pool = AsyncConnectionPool(
                    self.dsn,
                    kwargs=_CONNECTION,
                    min_size=0,
                    max_size=8,
                    check=_acheck,
                    open=False,
                )
                await self._pool.open()
            return self._pool

    async def close(self) -> None:
        """Close the connections that this client opened."""
        await self._ear.close()
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _check(conn: psycopg.Connection[Any]) -> None:
    """Raise an error if the connection is lost, before a call is made on it."""
    if _is_told_something(conn):
        ConnectionPool.check_connection(conn)


async def _acheck(conn: psycopg.AsyncConnection[Any]) -> None:
    if _is_told_something(conn):
        await AsyncConnectionPool.check_connection(conn)


def _is_told_something(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether the server says something unasked, as it does when it ends the connection.

    To ask it something would cost each call a second round trip.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(conn.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))


def _in_project(statement: Statement[R], project: str | None) -> Statement[R]:
    """Fill in the client's project where the call named none."""
    if project is None or statement.params.get("project") is not None:
        return statement
    return Statement(statement.sql, {**statement.params, "project": project}, statement.read)


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait until it is, at most so long, and tell."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
