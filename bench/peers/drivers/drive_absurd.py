"""absurd: AsyncAbsurd, an unpartitioned queue; it polls, and enqueues one by one only."""

from __future__ import annotations

import uuid
from typing import Any

from absurd_sdk import AsyncAbsurd

from bench.peers.drivers.driver import Driver, Payload
from bench.recorder import Recorder

QUEUE = "q"


class PeerDriver(Driver):
    """Runs are tasks named as their kind; what they wait for is named after the payload's key."""

    def _client(self) -> AsyncAbsurd:
        return AsyncAbsurd(self.dsn, queue_name=QUEUE)

    async def install(self) -> None:
        client = self._client()
        await client.create_queue()
        await client.close()

    async def connect(self, connections: int) -> None:
        self.clients = [self._client() for _ in range(connections)]

    async def disconnect(self) -> None:
        for client in self.clients:
            await client.close()

    async def enqueue(self, slot: int, payload: Payload) -> None:
        await self.clients[slot].spawn("noop", payload, queue=QUEUE)

    async def fill(self, kind: str, payloads: list[Payload]) -> list[str]:
        keys = [str(uuid.uuid4()) for _ in payloads]

        async def spawn(slot: int, number: int) -> None:
            payload = {**payloads[number], "key": keys[number]}
            await self.clients[slot].spawn(kind, payload, queue=QUEUE)

        await self.each(len(payloads), spawn)
        return keys

    async def call(self, slot: int, payload: Payload) -> None:
        spawned = await self.clients[slot].spawn("noop", payload, queue=QUEUE)
        await self.clients[slot].await_task_result(spawned["task_id"])

    async def signal(self, slot: int, kind: str, run: str, payload: Payload) -> None:
        await self.clients[slot].emit_event(f"go:{run}", payload)

    async def work(self, recorder: Recorder, kind: str) -> None:
        client = self._client()

        @client.register_task("noop")
        async def noop(payload: Payload, ctx: Any) -> None:
            recorder.hit(payload)

        @client.register_task("steps")
        async def steps(payload: Payload, ctx: Any) -> None:
            for name in ("one", "two", "three"):
                await ctx.step(name, _one)
            recorder.hit(payload)

        @client.register_task("wait")
        async def wait(payload: Payload, ctx: Any) -> None:
            recorder.hit(await ctx.await_event(f"go:{payload['key']}"))

        await client.start_worker(
            concurrency=self.settings["concurrency"], poll_interval=self.settings["poll"]
        )


async def _one() -> int:
    return 1
