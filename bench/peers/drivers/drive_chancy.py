"""chancy: the async executor with eager polling, push_many for bulk."""

from __future__ import annotations

import logging
from typing import Any

from chancy import Chancy, Queue, Worker, job

from bench.peers.drivers.driver import Driver, Payload
from bench.recorder import Recorder

QUEUE = "q"
# Jobs are found by their function's name, so the recorder is no one's attribute.
_recorder = Recorder(None)


@job(queue=QUEUE)
async def noop(*, payload: dict[str, Any]) -> None:
    """Do nothing."""
    _recorder.hit(payload)


class PeerDriver(Driver):
    """Runs are jobs of the function above."""

    def _queue(self) -> Queue:
        return Queue(
            QUEUE,
            concurrency=self.settings["concurrency"],
            executor=Chancy.Executor.Async,
            polling_interval=1,
            eager_polling=True,
        )

    async def install(self) -> None:
        async with Chancy(self.dsn) as chancy:
            await chancy.migrate()
            await chancy.declare(self._queue(), upsert=True)

    async def connect(self, connections: int) -> None:
        self.chancy = Chancy(
            self.dsn, min_connection_pool_size=connections, max_connection_pool_size=connections
        )
        await self.chancy.__aenter__()

    async def disconnect(self) -> None:
        await self.chancy.__aexit__(None, None, None)

    async def enqueue(self, slot: int, payload: Payload) -> None:
        await self.chancy.push(noop.job.with_kwargs(payload=payload))

    async def fill(self, kind: str, payloads: list[Payload]) -> list[str]:
        jobs = [noop.job.with_kwargs(payload=payload) for payload in payloads]
        async for _ in self.chancy.push_many(jobs, batch_size=1000):
            pass
        return []

    async def call(self, slot: int, payload: Payload) -> None:
        pushed = await self.chancy.push(noop.job.with_kwargs(payload=payload))
        await self.chancy.wait_for_job(pushed, interval=self.settings["result_poll"])

    async def work(self, recorder: Recorder, kind: str) -> None:
        global _recorder  # noqa: PLW0603 - see above
        _recorder = recorder
        async with Chancy(self.dsn, log=logging.getLogger("quiet")) as chancy:
            await chancy.declare(self._queue(), upsert=True)
            async with Worker(chancy) as worker:
                await worker.wait_for_shutdown()
