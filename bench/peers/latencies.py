"""Latencies: one run at a time on an idle worker, and many that are woken at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from bench.peers.ground import Kind, Place, Sizes
from bench.peers.processes import Worker, order, workers
from bench.rounds import Failed, Numbers
from bench.server import value

WARM_UP = 3


def percentiles(latencies: Sequence[float]) -> Numbers:
    """Return p50 and p99."""
    ordered = sorted(latencies)
    return {"p50": statistics.median(ordered), "p99": ordered[int(len(ordered) * 0.99)]}


def pickup(place: Place, sizes: Sizes) -> Numbers:
    """From before the call that enqueues a run to the call of its handler."""
    with place.fresh() as dsn, workers(place.environment, dsn) as (worker,):
        return pickup_on(place, dsn, worker, sizes.singles, sizes.gap)


def pickup_on(place: Place, dsn: str, worker: Worker, count: int, gap: float) -> Numbers:
    """Measure the same of a worker that is there."""
    _warm(place, dsn, worker)
    order(place.environment, dsn, "pickup", count=count, gap=gap)
    _until_handled(worker, WARM_UP + count)
    return percentiles(worker.latencies[WARM_UP:])


def result(place: Place, sizes: Sizes) -> Numbers:
    """From before the call that starts a run to its result, in another process than its worker."""
    with place.fresh() as dsn, workers(place.environment, dsn) as (worker,):
        _warm(place, dsn, worker)
        done = order(place.environment, dsn, "call", count=max(10, sizes.singles // 4))
        return percentiles(done["latencies"])


def signal(place: Place, sizes: Sizes, kind: Kind = "wait") -> Numbers:
    """From before the call that wakes a waiting run to its handler that goes on."""
    with place.fresh() as dsn, workers(place.environment, dsn, kind=kind) as (worker,):
        runs = _waiting(place, dsn, kind, sizes.singles)
        order(place.environment, dsn, "signal", kind=kind, runs=runs, gap=sizes.gap)
        _until_handled(worker, len(runs))
        return percentiles(worker.latencies)


def signal_all(place: Place, sizes: Sizes) -> Numbers:
    """Wake many waiting runs, in bulk where the peer can: until the last handler goes on."""
    with place.fresh() as dsn, workers(place.environment, dsn, kind="wait") as (worker,):
        runs = _waiting(place, dsn, "wait", sizes.waits)
        sent = order(place.environment, dsn, "signal", kind="wait", runs=runs, gap=None)
        _until_handled(worker, len(runs))
        return {"rate": len(runs) / (((worker.last.last or 0) - sent["began"]) / 1e6)}


def _warm(place: Place, dsn: str, worker: Worker) -> None:
    """Have the worker handle a few runs, and become idle again."""
    order(place.environment, dsn, "pickup", count=WARM_UP, gap=0.05)
    _until_handled(worker, WARM_UP)
    time.sleep(0.5)


def _waiting(place: Place, dsn: str, kind: Kind, count: int) -> list[str]:
    """Have runs wait, and return what they are signalled by."""
    _, runs = place.fill(dsn, count, kind)
    deadline = time.monotonic() + 60
    while value(dsn, place.peer.waiting) < count:
        if time.monotonic() > deadline:
            waiting = value(dsn, place.peer.waiting)
            raise Failed(f"{waiting} of {count} runs wait after a minute")
        time.sleep(0.05)
    time.sleep(1)  # a peer that waits in memory says so before it does
    return runs


def _until_handled(worker: Worker, count: int, limit: float = 30) -> None:
    deadline = time.monotonic() + limit
    while worker.last.count < count:
        if time.monotonic() > deadline:
            raise Failed(f"{worker.last.count} of {count} runs were handled")
        time.sleep(0.02)
