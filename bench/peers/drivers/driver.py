"""What every Python driver of a peer has in common: the orders that it carries out.

Called as `driver.py FILE`, with a JSON object in it: `peer`, `command`, `settings`, `result` (the
file to write), and what the command takes. The database is $BENCH_DSN. It runs in the peer's own
environment and knows no other code of this project but the recorder.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench.recorder import Recorder, now

Payload = dict[str, Any]
BATCH = 10_000
LONGEST = 6.0  # seconds that are spent on waiting for results


def payload(number: int) -> Payload:
    """Return what the runs are given: about 90 bytes of JSON."""
    return {"id": number, "pad": "x" * 70}


def sent(number: int) -> Payload:
    """Return the same with when it was sent."""
    return {**payload(number), "sent": now()}


class Driver:
    """A peer as its users drive it. A subclass overrides what the peer can do."""

    uvloop = False
    connections = 8  # that starts and signals use at once

    def __init__(self, dsn: str, settings: dict[str, Any]) -> None:
        self.dsn = dsn
        self.settings = settings

    async def install(self) -> None:
        """Make the peer's schema."""
        raise NotImplementedError

    async def connect(self, connections: int) -> None:
        """Open so many connections for a producer."""
        raise NotImplementedError

    async def disconnect(self) -> None:
        """Close them."""

    async def enqueue(self, slot: int, payload: Payload) -> None:
        """Enqueue one no-op run on connection `slot`, in a transaction of its own."""
        raise NotImplementedError

    async def fill(self, kind: str, payloads: list[Payload]) -> Sequence[object]:
        """Enqueue many runs of a handler, as fast as the peer can; return what signals name."""
        raise NotImplementedError

    async def call(self, slot: int, payload: Payload) -> None:
        """Enqueue a run and wait for its result."""
        raise NotImplementedError

    async def signal(self, slot: int, kind: str, run: str, payload: Payload) -> None:
        """Send a waiting run on its way."""
        raise NotImplementedError

    async def signal_all(self, runs: Sequence[str]) -> None:
        """Send many waiting runs on their way, as fast as the peer can."""

        async def send(slot: int, number: int) -> None:
            await self.signal(slot, "wait", runs[number], sent(number))

        await self.each(len(runs), send)

    async def work(self, recorder: Recorder, kind: str) -> None:
        """Be a worker until the process is ended."""
        raise NotImplementedError

    async def lasting(self, connections: int, seconds: float) -> tuple[int, float]:
        """Enqueue one by one over all connections at once; return how many, and the seconds."""
        began = time.perf_counter()

        async def producer(slot: int) -> int:
            count = 0
            while time.perf_counter() - began < seconds:
                await self.enqueue(slot, payload(count))
                count += 1
            return count

        counts = await asyncio.gather(*(producer(slot) for slot in range(connections)))
        return sum(counts), time.perf_counter() - began

    async def each(self, count: int, call: Callable[[int, int], Awaitable[None]]) -> None:
        """Call (slot, number) for all numbers below `count`, over all connections at once."""

        async def share(slot: int) -> None:
            for number in range(slot, count, self.connections):
                await call(slot, number)

        await asyncio.gather(*(share(slot) for slot in range(self.connections)))


async def enqueue(driver: Driver, order: dict[str, Any]) -> dict[str, Any]:
    """Enqueue one by one for some seconds over some connections."""
    await driver.connect(order["connections"])
    await driver.lasting(order["connections"], order["seconds"] / 5)  # pools fill, plans are made
    count, elapsed = await driver.lasting(order["connections"], order["seconds"])
    await driver.disconnect()
    return {"rate": count / elapsed}


async def fill(driver: Driver, order: dict[str, Any]) -> dict[str, Any]:
    """Enqueue a number of runs by the peer's bulk call."""
    await driver.connect(driver.connections)
    runs: list[object] = []
    began = time.perf_counter()
    for start in range(0, order["count"], BATCH):
        numbers = range(start, min(start + BATCH, order["count"]))
        runs += await driver.fill(order["kind"], [payload(n) for n in numbers])
    elapsed = time.perf_counter() - began
    await driver.disconnect()
    signalled = order["kind"] in {"wait", "ask"}
    return {"rate": order["count"] / elapsed, "runs": list(map(str, runs)) if signalled else []}


async def pickup(driver: Driver, order: dict[str, Any]) -> dict[str, Any]:
    """Enqueue runs that carry when they were sent, with gaps between them."""
    await driver.connect(1)
    for number in range(order["count"]):
        await driver.enqueue(0, sent(number))
        await asyncio.sleep(order["gap"])
    await driver.disconnect()
    return {}


async def call(driver: Driver, order: dict[str, Any]) -> dict[str, Any]:
    """Start runs one after the other, and wait for the result of each."""
    await driver.connect(1)
    latencies: list[float] = []
    until = time.monotonic() + LONGEST
    for number in range(3 + order["count"]):  # the first few open connections
        began = now()
        await driver.call(0, payload(number))
        latencies.append((now() - began) / 1000)
        if time.monotonic() > until and len(latencies) > 3:
            break
    await driver.disconnect()
    return {"latencies": latencies[3:]}


async def signal(driver: Driver, order: dict[str, Any]) -> dict[str, Any]:
    """Signal runs, one by one with gaps or, without a gap, as fast as the peer can."""
    await driver.connect(driver.connections)
    runs, gap = order["runs"], order["gap"]
    began = now()
    if gap is None:
        await driver.signal_all(runs)
    else:
        for number, run in enumerate(runs):
            await driver.signal(0, order["kind"], run, sent(number))
            await asyncio.sleep(gap)
    await driver.disconnect()
    return {"began": began}


COMMANDS = {"enqueue": enqueue, "fill": fill, "pickup": pickup, "call": call, "signal": signal}


async def carry_out(driver: Driver, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order and return its result."""
    if order["command"] == "install":
        await driver.install()
        return {}
    if order["command"] == "work":
        await driver.work(Recorder(os.environ["BENCH_TICKS"]), order["kind"])
        return {}
    return await COMMANDS[order["command"]](driver, order)


def main() -> None:
    """Carry out the order of the command line."""
    logging.basicConfig(level=logging.WARNING)
    order = json.loads(Path(sys.argv[1]).read_text())
    module = importlib.import_module(f"bench.peers.drivers.drive_{order['peer']}")
    driver = module.PeerDriver(os.environ["BENCH_DSN"], order["settings"])
    if driver.uvloop:
        result = importlib.import_module("uvloop").run(carry_out(driver, order))
    else:
        result = asyncio.run(carry_out(driver, order))
    Path(order["result"]).write_text(json.dumps(result))
    # Some peers leave threads behind, for which the interpreter would wait.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
