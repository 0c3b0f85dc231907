"""oban: the open engine under uvloop, as its own command runs; enqueue_many for bulk."""

from __future__ import annotations

import asyncio
from typing import Any

from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

from bench.peers.drivers.driver import Driver, Payload
from bench.recorder import Recorder

# Workers are found by their class's name, so the recorder is no one's attribute.
_recorder = Recorder(None)


@worker(queue="default")
class Noop:
    """Does nothing."""

    async def process(self, job: Any) -> None:
        """Count the job."""
        _recorder.hit(job.args)


class PeerDriver(Driver):
    """Runs are jobs of the class above."""

    uvloop = True

    async def _pool(self, connections: int) -> AsyncConnectionPool:
        pool = AsyncConnectionPool(self.dsn, min_size=connections, max_size=connections, open=False)
        await pool.open()
        await pool.wait()
        return pool

    async def install(self) -> None:
        await install(await self._pool(1))

    async def connect(self, connections: int) -> None:
        self.oban = Oban(pool=await self._pool(connections))
        await self.oban.start()

    async def enqueue(self, slot: int, payload: Payload) -> None:
        await self.oban.enqueue(Noop.new(payload))

    async def fill(self, kind: str, payloads: list[Payload]) -> list[str]:
        await self.oban.enqueue_many([Noop.new(payload) for payload in payloads])
        return []

    async def work(self, recorder: Recorder, kind: str) -> None:
        global _recorder  # noqa: PLW0603 - see above
        _recorder = recorder
        pool = await self._pool(self.settings["pool"])
        await Oban(pool=pool, queues={"default": self.settings["concurrency"]}).start()
        await asyncio.Event().wait()
