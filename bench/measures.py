"""What is measured, each as a function of a DSN that returns a number or percentiles.

Rates are per second, latencies in milliseconds. Whatever can be read from the database's own
timestamps is.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from pgflow import AsyncClient, Client, gateway, protocol, queues
from pgflow.database import execute

QUEUE = "bench"
INPUT = {"pad": "x" * 80}


def connect(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    """Connect in autocommit."""
    return psycopg.connect(dsn, autocommit=True)


@contextmanager
def workers(dsn: str, count: int, concurrency: int = 500) -> Iterator[None]:
    """Run worker processes, ready and idle, for as long as the block."""
    command = [sys.executable, "-m", "pgflow.cli", "worker", "--app", "bench.app:app"]
    command += ["--queues", QUEUE, "--concurrency", str(concurrency), "--log-level", "warning"]
    env = {**os.environ, "PGFLOW_DSN": dsn}
    processes = [subprocess.Popen(command, env=env) for _ in range(count)]
    try:
        with connect(dsn) as conn:
            _until(
                conn,
                "select count(distinct worker_id) = %s from pgflow.idle_worker where queue = %s",
                (count, QUEUE),
            )
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(timeout=60)


def _until(
    conn: psycopg.Connection[tuple[object, ...]], question: str, params: object = ()
) -> None:
    """Ask until the answer is true; give up after two minutes."""
    deadline = time.monotonic() + 120
    while conn.execute(question, params).fetchone() != (True,):  # type: ignore[arg-type, call-overload]
        if time.monotonic() > deadline:
            raise TimeoutError(question)
        time.sleep(0.01)


def _fill(dsn: str, handler: str, count: int) -> None:
    with Client(dsn) as client:
        for _ in range(count // 10_000):
            client.enqueue_many(handler, [INPUT] * 10_000, queue=QUEUE)
        if rest := count % 10_000:
            client.enqueue_many(handler, [INPUT] * rest, queue=QUEUE)
    with connect(dsn) as conn:
        conn.execute("vacuum (analyze) pgflow.run")


def bare_loop(dsn: str, count: int, batch: int = 500) -> float:
    """Drain no-op runs by the worker's own SQL, driven by a loop that does nothing else."""
    _fill(dsn, "noop", count)
    with connect(dsn) as conn:
        execute(
            conn, protocol.register_worker("loop", [QUEUE], batch, [], host="", pid=0, version="")
        )
        marks, done, began = None, 0, time.perf_counter()
        while done < count:
            acquired = execute(
                conn, protocol.acquire("loop", [QUEUE], batch, marks, listening=False)
            )
            marks, leases = acquired.marks, acquired.leases
            if leases:
                ids, numbers = [x.run_id for x in leases], [x.lease_no for x in leases]
                execute(conn, protocol.complete(ids, numbers, ["null"] * len(ids)))
            done += len(leases)
        elapsed = time.perf_counter() - began
        execute(conn, protocol.stop_worker("loop"))
    return count / elapsed


def drain(dsn: str, count: int, processes: int, handler: str = "noop") -> float:
    """Drain runs by worker processes: from the first claim to the last end."""
    with connect(dsn) as conn, workers(dsn, processes):
        execute(conn, queues.pause_queue(QUEUE))
        began = conn.execute("select clock_timestamp()").fetchone()
        _fill(dsn, handler, count)
        execute(conn, queues.resume_queue(QUEUE))
        _until(conn, "select not exists (select from pgflow.run where queue = %s)", (QUEUE,))
        rate = conn.execute(
            "select count(*) / extract(epoch from max(finished_at) - min(leased_at))::float8"
            " from pgflow.run_finished where queue = %s and created_at > %s",
            (QUEUE, *(began or ())),
        ).fetchone()
    return float(rate[0]) if rate else 0.0  # type: ignore[arg-type]


def enqueue_one_by_one(dsn: str, count: int, connections: int) -> float:
    """Enqueue single runs from one process over some connections."""
    share = count // connections

    async def client() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            enqueue = AsyncClient(conn).enqueue
            for _ in range(share):
                await enqueue("noop", INPUT, queue=QUEUE)

    async def all_clients() -> None:
        await asyncio.gather(*(client() for _ in range(connections)))

    began = time.perf_counter()
    asyncio.run(all_clients())
    rate = share * connections / (time.perf_counter() - began)
    _forget(dsn)
    return rate


def enqueue_bulk(dsn: str, count: int) -> float:
    """Enqueue by enqueue_many, a thousand runs a call."""
    with Client(dsn) as client:
        client.enqueue_many("noop", [INPUT], queue=QUEUE)
        began = time.perf_counter()
        for _ in range(count // 1000):
            client.enqueue_many("noop", [INPUT] * 1000, queue=QUEUE)
        rate = count // 1000 * 1000 / (time.perf_counter() - began)
    _forget(dsn)
    return rate


def _forget(dsn: str) -> None:
    """End what was enqueued, so that the next measure begins with an empty queue."""
    with connect(dsn) as conn:
        execute(
            conn, protocol.register_worker("loop", [QUEUE], 10_000, [], host="", pid=0, version="")
        )
        while leases := execute(
            conn, protocol.acquire("loop", [QUEUE], 5000, None, listening=False)
        ).leases:
            ids, numbers = [x.run_id for x in leases], [x.lease_no for x in leases]
            execute(conn, protocol.complete(ids, numbers, ["null"] * len(ids)))
        execute(conn, protocol.stop_worker("loop"))


def pickup(dsn: str, count: int) -> dict[str, float]:
    """From before the call of enqueue to the call of the handler, in an idle worker process."""
    latencies = []
    with connect(dsn) as conn, workers(dsn, 1):
        for _ in range(count):
            began = time.time()
            run_id = execute(conn, gateway.enqueue("stamp", queue=QUEUE))
            latencies.append(_output(conn, run_id) - began)
    return percentiles(latencies)


def approval(dsn: str, count: int) -> dict[str, float]:
    """From before the call of approve, on a plain connection, to the handler that goes on."""
    latencies = []
    with connect(dsn) as conn, workers(dsn, 1):
        for _ in range(count):
            run_id = execute(conn, gateway.enqueue("ask", queue=QUEUE))
            _until(conn, "select exists (select from pgflow.inbox where run_id = %s)", (run_id,))
            task = conn.execute("select task_id from pgflow.inbox where run_id = %s", (run_id,))
            (task_id,) = task.fetchone() or (None,)
            began = time.time()
            conn.execute("select pgflow.approve(%s, 'fine')", (task_id,))
            latencies.append(_output(conn, run_id) - began)
    return percentiles(latencies)


def beside_waiting(dsn: str, waiting: int, count: int) -> dict[str, float]:
    """Measure the bare loop, and an idle worker's memory (MB) and connections, beside waits."""
    before, memory, connections = bare_loop(dsn, count), *_idle_worker(dsn)
    _park(dsn, waiting)
    after, memory_then, connections_then = bare_loop(dsn, count), *_idle_worker(dsn)
    with connect(dsn) as conn:
        conn.execute("select count(pgflow.cancel(run_id)) from pgflow.run where queue = 'waiting'")
    return {
        "ratio": after / before,
        "none": before,
        "waiting": after,
        "MB none": memory,
        "MB waiting": memory_then,
        "connections none": connections,
        "connections waiting": connections_then,
    }


def _park(dsn: str, count: int) -> None:
    """Have so many runs wait for a person."""
    wait = {"kind": "approval", "key": "ok", "title": "Approve"}
    with connect(dsn) as conn:
        execute(
            conn,
            protocol.register_worker("parker", ["waiting"], 1000, [], host="", pid=0, version=""),
        )
        for _ in range(count // 1000):
            execute(conn, gateway.enqueue_many("ask", [INPUT] * 1000, queue="waiting"))
            leases = execute(
                conn, protocol.acquire("parker", ["waiting"], 1000, None, listening=False)
            ).leases
            parks = [
                {"run_id": x.run_id, "lease_no": x.lease_no, "news": x.news, "waits": [wait]}
                for x in leases
            ]
            execute(conn, protocol.park([json.dumps(park) for park in parks]))
        execute(conn, protocol.stop_worker("parker"))
        conn.execute("vacuum (analyze) pgflow.run")


def _idle_worker(dsn: str) -> tuple[float, float]:
    """Return the memory of an idle worker in MB, and how many connections it has."""
    with workers(dsn, 1), connect(dsn) as conn:
        row = conn.execute(
            "select pid, (select count(*) from pg_stat_activity a where a.application_name ="
            " 'pgflow') from pgflow.worker w where stopped_at is null and pid > 0"
        ).fetchone()
        pid, connections = row or (0, 0)
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(resident.split()[1]) / 1024, float(str(connections))


def _output(conn: psycopg.Connection[tuple[object, ...]], run_id: object) -> float:
    _until(conn, "select exists (select from pgflow.run_finished where run_id = %s)", (run_id,))
    row = conn.execute(
        "select output from pgflow.run_finished where run_id = %s", (run_id,)
    ).fetchone()
    return float(row[0]) if row else 0.0  # type: ignore[arg-type]


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds."""
    ordered = sorted(s * 1000 for s in seconds)
    return {"p50": statistics.median(ordered), "p99": ordered[int(len(ordered) * 0.99)]}


def measures(scale: float) -> dict[str, Callable[[str], float | dict[str, float]]]:
    """Return what is measured, by name; `scale` 1 is a full run."""
    runs, calls, singles = int(50_000 * scale), int(5_000 * scale), int(200 * scale)
    return {
        "bare SQL loop, runs/s": lambda dsn: bare_loop(dsn, runs),
        "drain, 1 worker, runs/s": lambda dsn: drain(dsn, runs, 1),
        "drain, 2 workers, runs/s": lambda dsn: drain(dsn, runs, 2),
        "drain of 3 steps, 1 worker, runs/s": lambda dsn: drain(dsn, runs // 5, 1, "three_steps"),
        "enqueue, 1 connection, runs/s": lambda dsn: enqueue_one_by_one(dsn, calls, 1),
        "enqueue, 8 connections, runs/s": lambda dsn: enqueue_one_by_one(dsn, calls, 8),
        "enqueue_many, runs/s": lambda dsn: enqueue_bulk(dsn, runs),
        "pickup, ms": lambda dsn: pickup(dsn, singles),
        "approval to resumption, ms": lambda dsn: approval(dsn, singles),
        "beside waiting runs": lambda dsn: beside_waiting(dsn, int(100_000 * scale), runs),
    }
