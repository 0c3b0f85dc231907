"""Hints from the database, on a connection of their own that proves itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import psycopg
import structlog

from pgflow._link import connect
from pgflow.errors import PgflowError

_log = structlog.get_logger("pgflow")

PING_EVERY = 10.0
_ANSWER_WITHIN = 3.0


class Listener:
    """Listens on channel pgflow and calls `hear` with each payload, an empty one once connected.

    Behind a pooler LISTEN succeeds and nothing ever arrives. So the worker sends itself a hint
    every few seconds: `proven` is True while the last one was heard. Unproven, the worker polls.
    """

    def __init__(
        self,
        dsn: str,
        name: str,
        hear: Callable[[str], None],
        ping: Callable[[str], Awaitable[None]],
    ) -> None:
        self._dsn = dsn
        self._payload = f"ping {name}"
        self._hear = hear
        self._ping = ping
        self._heard = asyncio.Event()
        self._told_deaf = False
        self.proven = False

    async def run(self) -> None:
        """Listen until cancelled."""
        delay = 0.1
        while True:
            began = time.monotonic()
            try:
                await self._listen()
            except (PgflowError, psycopg.Error, OSError) as error:
                if not self._told_deaf:
                    _log.warning("listener_lost", error=str(error).strip())
            self.proven = False
            delay = 0.1 if time.monotonic() - began > PING_EVERY else min(delay * 2, PING_EVERY)
            await asyncio.sleep(delay)

    async def _listen(self) -> None:
        async with await connect(self._dsn) as conn:
            await conn.execute("listen pgflow")
            proof = asyncio.create_task(self._prove(conn))
            try:
                async for notify in conn.notifies():
                    if notify.payload == self._payload:
                        self._heard.set()
                    else:
                        self._hear(notify.payload)
            finally:
                proof.cancel()
                await asyncio.gather(proof, return_exceptions=True)

    async def _prove(self, conn: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        """Send hints to itself; the first that isn't heard closes the connection."""
        try:
            while True:
                self._heard.clear()
                await self._ping(self._payload)
                async with asyncio.timeout(_ANSWER_WITHIN):
                    await self._heard.wait()
                if not self.proven:
                    self.proven, self._told_deaf = True, False
                    self._hear("")
                await asyncio.sleep(PING_EVERY)
        except TimeoutError:
            if not self._told_deaf:
                self._told_deaf = True
                _log.warning("listener_deaf", effect="polling; give a direct DSN for hints")
        finally:
            await conn.close()  # ends notifies(), and with it this attempt
