"""How pgflow behaves as things grow: what is finished, waits or lies ahead, and how much at once.

Each measure is a curve; its points are steps of a plan with an `x`.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bench import machine
from bench.loop import end_all, park_all
from bench.peers.catalogue import PGFLOW
from bench.peers.drains import drained, held_snapshot
from bench.peers.ground import Place, copy_rows, liken_rows
from bench.peers.latencies import pickup_on
from bench.peers.plan import installed
from bench.peers.processes import workers
from bench.rounds import Numbers, Step, collect, rounds
from bench.server import connect, server, settle, value
from bench.usage import Meter, memory
from pgflow import Client

QUEUE = "bench"
CHUNK_BYTES = 4_000_000
INPUT = {"pad": "x" * 80}
NEW_ID = {"run_id": "pgflow._new_id()"}


def run(
    dsn: str | None,
    count: int,
    scale: float,
    only: str | None,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Take all measures in each round, and return what is written as JSON; save after each."""
    with server(dsn) as admin:
        meter = Meter(admin)
        told = {"facts": machine.facts(admin), "scale": scale, "rounds": count}
        with installed(PGFLOW, admin, meter) as place:
            steps = [s for s in plan(place, scale) if only is None or only in s.label["measure"]]
            return collect(told, rounds(steps, count, meter), save, admin)


def plan(place: Place, scale: float) -> list[Step]:
    """Return the points of all curves; scale 1 is as far as they go."""
    runs = max(200, int(60_000 * scale))
    # Long enough that the images of pages, which follow a checkpoint, are not what is measured.
    grown = partial(beside, place, runs=5 * runs, singles=max(3, int(60 * scale)))

    def many(count: int) -> int:
        return int(count * scale) // 100 * 100

    return [
        *(
            _point("finished runs", x, partial(grown, finished, x))
            for x in map(many, (0, 10**6, 10**7))
        ),
        *(
            _point("waiting runs", x, partial(grown, waiting, x))
            for x in map(many, (0, 10**5, 10**6))
        ),
        *(_point("scheduled runs", x, partial(grown, scheduled, x)) for x in map(many, (0, 10**6))),
        *(
            _point("snapshot", held, partial(snapshot, place, held, max(1000, many(10**6))))
            for held in ("none", "held")
        ),
        *(_point("queues", x, partial(queues, place, x, runs)) for x in (1, 10, 1000)),
        *(_point("projects", x, partial(projects, place, x, runs)) for x in (1, 100)),
        *(
            _point("payload bytes", x, partial(payloads, place, x, scale))
            for x in (100, 10**4, 10**6)
        ),
        *(
            _point(f"handlers of {span * 1000:.0f} ms", x, partial(handlers, place, span, x, scale))
            for span in (0.0, 0.01, 1.0)
            for x in (10, 100, 1000)
        ),
        _point("idle", "1 worker", partial(idle, place, 60 * scale)),
    ]


# Makes so many of what there is to be much of, few of them by doing all that makes one.
Grow = Callable[[Place, str, int], None]


def _point(measure: str, x: float | str, take: Callable[[], Numbers]) -> Step:
    return Step({"measure": measure, "x": x}, take)


def beside(place: Place, grow: Grow, count: int, *, runs: int, singles: int) -> Numbers:
    """Drain and pick up single runs beside something that has grown."""
    with place.fresh() as dsn:
        if count:
            grow(place, dsn, count)
            settle(dsn)
        place.load(dsn, runs)
        numbers = drained(place, dsn, limit=600)
        with workers(place.environment, dsn) as (worker,):
            picked = pickup_on(place, dsn, worker, singles, 0.05)
            numbers |= {**picked, "worker_mb": memory(worker.process.pid)}
    return numbers


def finished(place: Place, dsn: str, count: int) -> None:
    """End some runs."""
    base = min(count, 1000)
    place.load(dsn, base)
    drained(place, dsn)
    copy_rows(dsn, "pgflow.run_finished", NEW_ID, count // base - 1)


def waiting(place: Place, dsn: str, count: int) -> None:
    """Have some runs wait for a signal, each in the page where it was enqueued."""
    base = min(count, 100)
    place.fill(dsn, base, "wait")
    park_all(dsn, QUEUE)
    if count > base:
        place.fill(dsn, count - base, "wait")
        liken_rows(dsn, "pgflow.run", "run_id", "seq")


def scheduled(_: Place, dsn: str, count: int) -> None:
    """Enqueue some runs that are to start tomorrow."""
    base = min(count, 100)
    with Client(dsn) as client:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        client.enqueue_many("noop", [INPUT] * base, queue=QUEUE, run_at=tomorrow)
    copy_rows(dsn, "pgflow.run", NEW_ID, count // base - 1)


def snapshot(place: Place, held: str, runs: int) -> Numbers:
    """Drain with and without another session's snapshot."""
    with place.fresh() as dsn:
        place.load(dsn, runs)
        if held == "none":
            return drained(place, dsn, limit=900)
        with held_snapshot(dsn):
            return drained(place, dsn, limit=900)


def queues(place: Place, count: int, runs: int) -> Numbers:
    """Drain runs of so many queues by one worker."""
    names = [f"queue-{number}" for number in range(count)]
    with place.fresh() as dsn:
        with Client(dsn) as client:
            for name in names:
                client.enqueue_many("noop", [INPUT] * (runs // count or 1), queue=name)
        settle(dsn)
        return drained(_with(place, queues=",".join(names)), dsn, limit=300)


def projects(place: Place, count: int, runs: int) -> Numbers:
    """Drain runs of so many projects by a bare loop that goes from one to the next."""
    names = [f"project-{number}" for number in range(count)]
    with place.fresh() as dsn:
        with connect(dsn) as conn, Client(dsn) as client:
            for name in names:
                conn.execute("select pgflow.create_project(%s)", (name,))
                inputs = [INPUT] * (runs // count)
                client.enqueue_many("noop", inputs, queue=QUEUE, project=name)
        settle(dsn)
        return {"rate": end_all(dsn, QUEUE, names)}


def payloads(place: Place, size: int, scale: float) -> Numbers:
    """Enqueue and drain runs with inputs of a size."""
    runs = max(20, int(min(20_000, 200_000_000 / size) * scale))
    chunk = max(1, CHUNK_BYTES // size)
    # Nothing that compresses: it would not be that size in the database.
    inputs = [{"pad": secrets.token_urlsafe(size * 3 // 4)}] * runs
    with place.fresh() as dsn:
        with Client(dsn) as client:
            began = time.perf_counter()
            for start in range(0, runs, chunk):
                client.enqueue_many("noop", inputs[start : start + chunk], queue=QUEUE)
            enqueued = runs / (time.perf_counter() - began)
        settle(dsn)
        numbers = drained(place, dsn, limit=300)
    return {**numbers, "enqueue_rate": enqueued, "mb_per_s": numbers["rate"] * size / 1e6}


def handlers(place: Place, span: float, concurrency: int, scale: float) -> Numbers:
    """Drain runs whose handlers take time; `share` is of what such a worker could at best do."""
    best = concurrency / span if span else 20_000
    runs = max(20, int(min(60_000, best * 4) * scale))
    with place.fresh() as dsn:
        with Client(dsn) as client:
            client.enqueue_many("nap", [{"seconds": span}] * runs, queue=QUEUE)
        settle(dsn)
        numbers = drained(_with(place, concurrency=concurrency), dsn, limit=300)
    waves = -(-runs // concurrency) * span
    return {**numbers, **({"share": numbers["rate"] * waves / runs} if span else {})}


def idle(place: Place, seconds: float) -> Numbers:
    """Look at an installation with one worker and nothing to do, for some seconds."""
    committed = "select xact_commit from pg_stat_database where datname = current_database()"
    connected = "select count(*) from pg_stat_activity where datname = current_database()"
    with place.fresh() as dsn, workers(place.environment, dsn) as (worker,):
        time.sleep(min(10, seconds))  # statistics of the start arrive
        pids = [worker.process.pid]
        before, transactions = place.meter.read(pids), value(dsn, committed)
        time.sleep(seconds)
        after, more = place.meter.read(pids), value(dsn, committed) - transactions
        minutes = (after.at - before.at) / 60
        numbers = {
            "transactions_per_minute": more / minutes,
            "worker_ms_per_minute": (after.workers - before.workers) * 1000 / minutes,
            "connections": value(dsn, connected) - 1,
            "worker_mb": memory(pids[0]),
        }
        if before.server is not None and after.server is not None:
            numbers["server_ms_per_minute"] = (after.server - before.server) * 1000 / minutes
    return numbers


def _with(place: Place, **settings: float | str) -> Place:
    """Return a place whose workers have other settings as well."""
    peer = dataclasses.replace(place.peer, settings={**place.peer.settings, **settings})
    environment = dataclasses.replace(place.environment, peer=peer)
    return dataclasses.replace(place, environment=environment)
