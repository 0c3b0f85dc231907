"""pgtask: a Rust core with Python handlers, enqueue_many for bulk."""

from __future__ import annotations

from typing import Any

from pgtask import Client, EnqueueRequest, TaskRegistry, Worker

from bench.peers.drivers.driver import Driver, Payload
from bench.recorder import Recorder

QUEUE = "q"
CHUNK = 1000


def _request(kind: str, payload: Payload) -> EnqueueRequest:
    return EnqueueRequest(kind, payload, queue_name=QUEUE)


class PeerDriver(Driver):
    """Runs are tasks named as their kind."""

    async def install(self) -> None:
        client = await Client.connect(self.dsn)
        await client.migrate()

    async def connect(self, connections: int) -> None:
        self.client = await Client.connect(self.dsn, max_query_connections=connections)

    async def enqueue(self, slot: int, payload: Payload) -> None:
        await self.client.enqueue(_request("noop", payload))

    async def fill(self, kind: str, payloads: list[Payload]) -> list[object]:
        handles = []
        for start in range(0, len(payloads), CHUNK):
            chunk = payloads[start : start + CHUNK]
            handles += await self.client.enqueue_many([_request(kind, each) for each in chunk])
        return [handle.id for handle in handles]

    async def call(self, slot: int, payload: Payload) -> None:
        handle = await self.client.enqueue(_request("noop", payload))
        await handle.result(timeout=30)

    async def signal(self, slot: int, kind: str, run: str, payload: Payload) -> None:
        await self.client.emit_signal(run, "go", payload)

    async def work(self, recorder: Recorder, kind: str) -> None:
        tasks = TaskRegistry(queue_name=QUEUE)

        @tasks.task("noop")
        async def noop(task: Any, payload: Payload) -> None:
            recorder.hit(payload)

        @tasks.task("steps")
        async def steps(task: Any, payload: Payload) -> None:
            for name in ("one", "two", "three"):
                await task.step(name, _one)
            recorder.hit(payload)

        @tasks.task("wait")
        async def wait(task: Any, payload: Payload) -> None:
            recorder.hit(await task.wait_for_signal("waits", "go"))

        await Worker(
            self.dsn,
            tasks,
            concurrency=self.settings["concurrency"],
            max_query_connections=self.settings["pool"],
        ).run()


async def _one() -> int:
    return 1
