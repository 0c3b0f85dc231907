"""procrastinate: its psycopg connector, batch_defer for bulk; jobs are kept, as by default."""

from __future__ import annotations

from typing import Any

import procrastinate

from bench.peers.drivers.driver import Driver, Payload
from bench.recorder import Recorder

QUEUE = "q"


class PeerDriver(Driver):
    """Runs are jobs of the task `noop`."""

    def __init__(self, dsn: str, settings: dict[str, Any]) -> None:
        super().__init__(dsn, settings)
        self.recorder = Recorder(None)
        self.app = self._app(int(settings["pool"]))

    def _app(self, connections: int) -> procrastinate.App:
        connector = procrastinate.PsycopgConnector(
            conninfo=self.dsn, min_size=min(4, connections), max_size=connections
        )
        app = procrastinate.App(connector=connector)

        @app.task(name="noop", queue=QUEUE)
        async def noop(**payload: Any) -> None:
            self.recorder.hit(payload)

        self.noop = noop
        return app

    async def install(self) -> None:
        async with self.app.open_async():
            await self.app.schema_manager.apply_schema_async()

    async def connect(self, connections: int) -> None:
        self.app = self._app(connections)
        self.opened = self.app.open_async()
        await self.opened.__aenter__()

    async def disconnect(self) -> None:
        await self.opened.__aexit__(None, None, None)

    async def enqueue(self, slot: int, payload: Payload) -> None:
        await self.noop.defer_async(**payload)

    async def fill(self, kind: str, payloads: list[Payload]) -> list[str]:
        await self.noop.batch_defer_async(*payloads)
        return []

    async def work(self, recorder: Recorder, kind: str) -> None:
        self.recorder = recorder
        async with self.app.open_async():
            await self.app.run_worker_async(
                concurrency=self.settings["concurrency"], queues=[QUEUE]
            )
