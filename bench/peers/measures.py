"""What is measured, each as a function of a peer's place that returns numbers by name.

Rates are per second, latencies in milliseconds, processor time in microseconds per run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from bench.loop import end_all
from bench.peers.catalogue import Feature
from bench.peers.environments import Environment
from bench.peers.processes import DriverFailed, Worker, order, until_ready, workers
from bench.server import connect, database, settle, value, wal
from bench.usage import Meter, Snapshot, used

Numbers = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How much is measured: seconds of enqueueing and of a drain, single runs, waits, history."""

    seconds: float
    drain_seconds: float
    singles: int
    gap: float
    waits: int
    history: int


@dataclass(frozen=True)
class Place:
    """A peer that is installed, and its schema in a database to make copies of."""

    environment: Environment
    admin: str
    template: str
    meter: Meter

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """Yield the DSN of a database in which nothing has happened yet."""
        with database(self.admin, template=self.template) as dsn:
            yield dsn


def enqueue(place: Place, sizes: Sizes, connections: int) -> Numbers:
    """Enqueue one by one from one process over some connections."""
    with place.fresh() as dsn:
        done = order(
            place.environment, dsn, "enqueue", seconds=sizes.seconds, connections=connections
        )
    return {"rate": done["rate"]}


def fill(place: Place, dsn: str, kind: str, count: int) -> Numbers:
    """Enqueue a number of runs in bulk, and bring the database to rest."""
    before = wal(dsn)
    done = order(place.environment, dsn, "fill", kind=kind, count=count)
    numbers = {"rate": done["rate"], "wal": (wal(dsn) - before) / count}
    settle(dsn)
    return numbers


def bulk(place: Place, sizes: Sizes) -> Numbers:
    """Enqueue in bulk."""
    with place.fresh() as dsn:
        return fill(place, dsn, "noop", _count(place, sizes))


def drain(place: Place, sizes: Sizes, processes: int = 1, kind: str = "noop") -> Numbers:
    """Fill a queue, start workers, and measure from the first handler to the empty queue."""
    with place.fresh() as dsn:
        filled = fill(place, dsn, kind, _count(place, sizes, kind))
        numbers = drained(place, dsn, processes, kind)
    numbers["wal_life"] = filled["wal"] + numbers["wal"]
    return numbers


def _count(place: Place, sizes: Sizes, kind: str = "noop") -> int:
    pace = place.environment.peer.pace * (0.25 if kind == "steps" else 1)
    return max(200, int(pace * sizes.drain_seconds) // 100 * 100)


def drained(
    place: Place, dsn: str, processes: int = 1, kind: str = "noop", limit: float = 60
) -> Numbers:
    """Have workers end all runs that are there."""
    peer = place.environment.peer
    count = value(dsn, peer.unfinished)
    wal_before = wal(dsn)
    with workers(place.environment, dsn, processes, kind) as started, connect(dsn) as conn:
        pids = [worker.process.pid for worker in started]
        deadline = time.monotonic() + limit
        before: tuple[Snapshot, int] | None = None
        handled = 0
        while handled < count or conn.execute(peer.unfinished.encode()).fetchone() != (0,):
            if time.monotonic() > deadline:
                left = value(dsn, peer.unfinished)
                raise DriverFailed(f"{peer.name}: {left} of {count} are left after {limit:.0f} s")
            time.sleep(0.02)
            handled = sum(worker.last.count for worker in started)
            if handled and before is None:
                before = place.meter.read(pids), handled
        ended = time.monotonic() * 1e6
        after = place.meter.read(pids)
        for worker in started:  # the last lines may still come
            _until_told(worker)
    first = min(tick.first for worker in started for tick in worker.ticks if tick.first)
    numbers = {"rate": count / ((ended - first) / 1e6), "wal": (wal(dsn) - wal_before) / count}
    if before is not None and handled > before[1]:
        numbers |= used(before[0], after, handled - before[1])
    return {**numbers, **_fifths(started, first, count)}


def _until_told(worker: Worker) -> None:
    """Wait for the line that a recorder writes next."""
    at = worker.last.at
    while worker.last.at == at:
        time.sleep(0.02)


def _fifths(started: Sequence[Worker], first: float, count: int) -> Numbers:
    """Return the rates of handlers in the first and in the last fifth of a drain."""
    curve = [(first, 0)]
    counts = [0] * len(started)
    ticks = [(tick, number) for number, worker in enumerate(started) for tick in worker.ticks]
    for tick, number in sorted(ticks, key=lambda pair: pair[0].at):
        counts[number] = tick.count
        if sum(counts) > curve[-1][1]:
            # The last line may tell of a handler that was called long before it.
            at = max(tick.last or tick.at, curve[-1][0] + 1)
            curve.append((at, sum(counts)))
    fifth, fourth, end = (_time_of(curve, count * share) for share in (0.2, 0.8, 1.0))
    share = count / 5 * 1e6
    return {"first_fifth": share / (fifth - first), "last_fifth": share / (end - fourth)}


def _time_of(curve: Sequence[tuple[float, int]], count: float) -> float:
    """Return when the curve reached a count, or its end."""
    for (began, before), (ended, after) in pairwise(curve):
        if after >= count:
            return began + (ended - began) * (count - before) / (after - before)
    return curve[-1][0]


def percentiles(latencies: Sequence[float]) -> Numbers:
    """Return p50 and p99."""
    ordered = sorted(latencies)
    if not ordered:
        raise DriverFailed("no run was handled")
    return {"p50": statistics.median(ordered), "p99": ordered[int(len(ordered) * 0.99)]}


def pickup(place: Place, sizes: Sizes) -> Numbers:
    """From before the call that enqueues a run to the call of its handler, in an idle worker."""
    with place.fresh() as dsn, workers(place.environment, dsn) as (worker,):
        until_ready(worker)
        order(place.environment, dsn, "pickup", count=sizes.singles, gap=sizes.gap)
        _until_handled(worker, sizes.singles)
        return percentiles(worker.latencies)


def _until_handled(worker: Worker, count: int, limit: float = 30) -> None:
    deadline = time.monotonic() + limit
    while worker.last.count < count:
        if time.monotonic() > deadline:
            raise DriverFailed(f"{worker.last.count} of {count} runs were handled")
        time.sleep(0.02)


def bare_loop(place: Place, sizes: Sizes) -> Numbers:
    """Drain by pgflow's SQL alone, as fast as one connection can call it."""
    with place.fresh() as dsn:
        fill(place, dsn, "noop", _count(place, sizes))
        return {"rate": end_all(dsn, "bench")}


@dataclass(frozen=True)
class Measure:
    """A measure, and the feature that a peer must have for it."""

    name: str
    take: Callable[[Place, Sizes], Numbers]
    needs: Feature | None = None


MEASURES: Final[Mapping[str, Measure]] = {
    measure.name: measure
    for measure in (
        Measure("enqueue, 1 connection", lambda place, sizes: enqueue(place, sizes, 1)),
        Measure("enqueue, 8 connections", lambda place, sizes: enqueue(place, sizes, 8)),
        Measure("bulk", bulk),
        Measure("drain, 1 worker", drain),
        Measure("drain, 2 workers", lambda place, sizes: drain(place, sizes, 2)),
        Measure("bare SQL loop", bare_loop, needs="loop"),
        Measure("pickup", pickup),
    )
}
