"""DBOS: the synchronous client, workflows in threads; it enqueues one by one only."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dbos import DBOS, DBOSClient

from bench.peers.drivers.driver import Driver, Payload, payload
from bench.recorder import Recorder

QUEUE = "q"
# Workflows are found by their names, so the recorder is no one's attribute.
_recorder = Recorder(None)


@DBOS.workflow(name="noop")
def noop(payload: Payload) -> None:
    """Do nothing."""
    _recorder.hit(payload)


@DBOS.step(name="one")
def one() -> int:
    """Be a step."""
    return 1


@DBOS.workflow(name="steps")
def steps(payload: Payload) -> None:
    """Do three steps."""
    for _ in range(3):
        one()
    _recorder.hit(payload)


@DBOS.workflow(name="wait")
async def wait(payload: Payload) -> None:
    """Wait for a message."""
    _recorder.hit(await DBOS.recv_async("go", timeout_seconds=3600))


class PeerDriver(Driver):
    """Runs are workflows of these names; one that waits keeps its place in the worker's queue."""

    def _launch(self, kind: str) -> None:
        threads = self.settings["step_threads" if kind == "steps" else "threads"]
        DBOS(
            config={
                "name": "bench",
                "system_database_url": self.dsn,
                "log_level": "ERROR",
                "console_log_level": "ERROR",
                "application_version": "1",
                "enable_otlp": False,
                "sys_db_pool_size": self.settings["pool"],
                "max_executor_threads": threads,
            }
        )
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=None if kind == "wait" else self.settings["concurrency"],
            polling_interval_sec=self.settings["poll"],
            on_conflict="always_update",
        )

    async def install(self) -> None:
        await asyncio.to_thread(self._launch, "noop")

    async def connect(self, connections: int) -> None:
        self.threads = ThreadPoolExecutor(connections)
        self.client = DBOSClient(
            system_database_url=self.dsn,
            system_database_pool_size=connections,
            application_name="bench",
        )

    def _enqueue(self, kind: str, payload: Payload, workflow_id: str | None = None) -> Any:
        options = {"workflow_name": kind, "queue_name": QUEUE}
        if workflow_id is not None:
            options["workflow_id"] = workflow_id
        return self.client.enqueue(options, payload)

    async def enqueue(self, slot: int, payload: Payload) -> None:
        self._enqueue("noop", payload)

    async def lasting(self, connections: int, seconds: float) -> tuple[int, float]:
        began = time.perf_counter()

        def producer(_: int) -> int:
            count = 0
            while time.perf_counter() - began < seconds:
                self._enqueue("noop", payload(count))
                count += 1
            return count

        count = sum(self.threads.map(producer, range(connections)))
        return count, time.perf_counter() - began

    async def each(self, count: int, call: Callable[[int, int], Awaitable[None]]) -> None:
        def share(slot: int) -> None:
            async def calls() -> None:
                for number in range(slot, count, self.connections):
                    await call(slot, number)

            asyncio.run(calls())

        list(self.threads.map(share, range(self.connections)))

    async def fill(self, kind: str, payloads: list[Payload]) -> list[str]:
        ids = [str(uuid.uuid4()) for _ in payloads]

        async def start(_: int, number: int) -> None:
            self._enqueue(kind, payloads[number], ids[number])

        await self.each(len(payloads), start)
        return ids

    async def call(self, slot: int, payload: Payload) -> None:
        handle = self._enqueue("noop", payload)
        handle.get_result(polling_interval_sec=self.settings["result_poll"])

    async def signal(self, slot: int, kind: str, run: str, payload: Payload) -> None:
        self.client.send(run, payload, "go")

    async def work(self, recorder: Recorder, kind: str) -> None:
        global _recorder  # noqa: PLW0603 - see above
        _recorder = recorder
        await asyncio.to_thread(self._launch, kind)
        await asyncio.Event().wait()
