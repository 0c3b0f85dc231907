"""pgqueuer: asyncpg under uvloop, one call with lists for bulk."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.core.completion import CompletionWatcher
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from bench.peers.drivers.driver import Driver, Payload
from bench.recorder import Recorder


class PeerDriver(Driver):
    """Runs go to entrypoint `noop`."""

    uvloop = True

    async def _driver(self) -> AsyncpgDriver:
        return AsyncpgDriver(await asyncpg.connect(self.dsn))

    async def install(self) -> None:
        await Queries(await self._driver()).install()

    async def connect(self, connections: int) -> None:
        self.queries = [Queries(await self._driver()) for _ in range(connections)]
        self.watcher: CompletionWatcher | None = None

    async def enqueue(self, slot: int, payload: Payload) -> None:
        await self.queries[slot].enqueue("noop", json.dumps(payload).encode())

    async def fill(self, kind: str, payloads: list[Payload]) -> list[str]:
        inputs = [json.dumps(payload).encode() for payload in payloads]
        await self.queries[0].enqueue([kind] * len(inputs), inputs, [0] * len(inputs))
        return []

    async def call(self, slot: int, payload: Payload) -> None:
        if self.watcher is None:
            driver = await self._driver()
            self.watcher = await CompletionWatcher(driver, queries=Queries(driver)).__aenter__()
        (job,) = await self.queries[slot].enqueue("noop", json.dumps(payload).encode())
        await self.watcher.wait_for(job)

    async def work(self, recorder: Recorder, kind: str) -> None:
        queuer = PgQueuer(await self._driver())

        @queuer.entrypoint("noop")
        async def noop(job: Any) -> None:
            recorder.hit(json.loads(job.payload))

        await queuer.run(batch_size=self.settings["batch"])
