"""pgflow: clients on connections of their own, enqueue_many, signal_many, result and approve.

Several that enqueue at once are tasks of one program, with one client, which writes them together.

Its worker is the command `pgflow worker` with the handlers of bench/app.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import psycopg

from bench.peers.drivers.driver import Driver, Payload, sent
from bench.recorder import now
from pgflow import AsyncClient
from pgflow.schema import migrate

QUEUE = "bench"
SIGNALS = 100  # at once


class PeerDriver(Driver):
    """Runs go to queue `bench`, whose worker is bench/app.py."""

    async def install(self) -> None:
        await asyncio.to_thread(migrate, self.dsn)

    async def connect(self, connections: int) -> None:
        self.client = AsyncClient(self.dsn)
        self.conns = [
            await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
            for _ in range(connections)
        ]
        self.clients = [AsyncClient(conn) for conn in self.conns]

    async def disconnect(self) -> None:
        await self.client.close()
        for conn in self.conns:
            await conn.close()

    async def enqueue(self, slot: int, payload: Payload) -> None:
        client = self.client if len(self.conns) > 1 else self.clients[slot]
        await client.enqueue("noop", payload, queue=QUEUE)

    async def fill(self, kind: str, payloads: list[Payload]) -> list[UUID]:
        return await self.clients[0].enqueue_many(kind, payloads, queue=QUEUE)

    async def call(self, slot: int, payload: Payload) -> None:
        await self.client.result(await self.client.enqueue("noop", payload, queue=QUEUE))

    async def signal(self, slot: int, kind: str, run: str, payload: Payload) -> None:
        if kind == "wait":
            await self.clients[slot].signal(run, "go", payload)
            return
        tasks = await self.clients[slot].inbox(run_id=run)
        await self.clients[slot].approve(tasks[0]["task_id"], str(now()))

    async def signal_all(self, runs: Sequence[str]) -> None:
        async def send(slot: int, number: int) -> None:
            batch = range(number * SIGNALS, min((number + 1) * SIGNALS, len(runs)))
            await self.clients[slot].signal_many(
                [runs[n] for n in batch], "go", [sent(n) for n in batch]
            )

        await self.each(-(-len(runs) // SIGNALS), send)
