"""Drains: a queue is filled, workers start, and all of it is ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import psycopg

from bench.peers.ground import Kind, Place, Sizes, copy_rows
from bench.peers.processes import Worker, workers
from bench.rounds import Failed, Numbers
from bench.server import connect, settle, value, wal
from bench.usage import Snapshot, used


def drain(place: Place, sizes: Sizes, processes: int = 1, kind: Kind = "noop") -> Numbers:
    """Fill a queue, start workers, and measure from the first handler to the empty queue."""
    with place.fresh() as dsn:
        # Two workers get more, because they don't start at the same moment.
        count = place.count(sizes, kind) * (1 + processes) // 2
        filled = place.load(dsn, count, kind)
        numbers = drained(place, dsn, processes, kind)
    return {**numbers, "wal_life": filled["wal"] + numbers["wal"]}


def drain_with_history(place: Place, sizes: Sizes) -> Numbers:
    """Drain where many runs have ended before."""
    with place.fresh() as dsn:
        base = 1000
        place.load(dsn, base)
        drained(place, dsn)
        for table, changes in place.peer.history.items():
            copy_rows(dsn, table, dict(changes), sizes.history // base)
        settle(dsn)
        place.load(dsn, place.count(sizes))
        return drained(place, dsn)


def drain_under_snapshot(place: Place, sizes: Sizes) -> Numbers:
    """Drain while another session holds a snapshot, so that no dead row can be removed."""
    with place.fresh() as dsn:
        place.load(dsn, place.count(sizes))
        with held_snapshot(dsn):
            return drained(place, dsn)


@contextmanager
def held_snapshot(dsn: str) -> Iterator[None]:
    """Hold a snapshot for as long as the block."""
    with psycopg.connect(dsn) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("select count(*) from pg_class")
        yield


def drained(
    place: Place, dsn: str, processes: int = 1, kind: Kind = "noop", limit: float = 90
) -> Numbers:
    """Have workers end all runs that are there."""
    unfinished = place.peer.unfinished.encode()
    count = value(dsn, place.peer.unfinished)
    wal_before = wal(dsn)
    with workers(place.environment, dsn, processes, kind) as started, connect(dsn) as conn:
        pids = [worker.process.pid for worker in started]
        deadline = time.monotonic() + limit
        before: tuple[Snapshot, int] | None = None
        handled = 0
        while handled < count or conn.execute(unfinished).fetchone() != (0,):
            if time.monotonic() > deadline:
                left = value(dsn, place.peer.unfinished)
                raise Failed(f"{left} of {count} runs are left after {limit:.0f} s")
            time.sleep(0.02)
            handled = sum(worker.last.count for worker in started)
            if handled and before is None:
                before = place.meter.read(pids), handled
        ended = time.monotonic() * 1e6
        after = place.meter.read(pids)
        for worker in started:
            _until_told(worker)
    first = min(tick.first for worker in started for tick in worker.ticks if tick.first)
    numbers = {"runs": count, "rate": count / ((ended - first) / 1e6)}
    numbers["wal"] = (wal(dsn) - wal_before) / count
    if before is not None and handled > before[1]:
        numbers |= used(before[0], after, handled - before[1])
    return {**numbers, **_fifths(started, first, count)}


def _until_told(worker: Worker) -> None:
    """Wait for the line that a recorder writes next."""
    at = worker.last.at
    while worker.last.at == at:
        time.sleep(0.02)


def _fifths(started: Sequence[Worker], first: float, count: int) -> Numbers:
    """Return the rates of handlers in each fifth of a drain."""
    curve = [(first, 0)]
    counts = [0] * len(started)
    ticks = [(tick, number) for number, worker in enumerate(started) for tick in worker.ticks]
    for tick, number in sorted(ticks, key=lambda pair: pair[0].at):
        counts[number] = tick.count
        if sum(counts) > curve[-1][1]:
            # The last handler may have been called long before the line that tells it.
            at = max(tick.last or tick.at, curve[-1][0] + 1)
            curve.append((at, sum(counts)))
    times = [_time_of(curve, count * part / 5) for part in range(6)]
    return {
        f"fifth_{number}": count / 5 * 1e6 / (ended - began)
        for number, (began, ended) in enumerate(pairwise(times), start=1)
    }


def _time_of(curve: Sequence[tuple[float, int]], count: float) -> float:
    """Return when the curve reached a count, or its end."""
    for (began, before), (ended, after) in pairwise(curve):
        if after >= count:
            return began + (ended - began) * (count - before) / (after - before)
    return curve[-1][0]
