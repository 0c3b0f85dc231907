"""Drives the worker's own SQL by a loop that does nothing else: the bound of pgflow's drains.

It also brings a database into the states that are measured: many runs ended, many waiting.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from bench.server import connect
from pgflow import protocol
from pgflow.database import execute
from pgflow.models import Lease

BATCH = 500
_NAME = "loop"


@dataclass(frozen=True)
class Loop:
    """A worker without handlers, on one connection."""

    conn: psycopg.Connection[Any]
    queue: str

    def batches(self) -> Iterator[list[Lease]]:
        """Lease runs until none is ready."""
        marks = None
        while True:
            look = protocol.acquire(_NAME, [self.queue], BATCH, marks, listening=False)
            acquired = execute(self.conn, look)
            if not acquired.leases:
                return
            marks = acquired.marks
            yield acquired.leases

    def complete(self, leases: list[Lease]) -> None:
        """End runs without an output."""
        ids, numbers = [x.run_id for x in leases], [x.lease_no for x in leases]
        execute(self.conn, protocol.complete(ids, numbers, ["null"] * len(ids)))

    def park(self, leases: list[Lease], wait: dict[str, object]) -> None:
        """Have runs wait for something."""
        parks = [
            {"run_id": x.run_id, "lease_no": x.lease_no, "news": x.news, "waits": [wait]}
            for x in leases
        ]
        execute(self.conn, protocol.park([json.dumps(park) for park in parks]))


@contextmanager
def loop(dsn: str, queue: str) -> Iterator[Loop]:
    """Be a worker for as long as the block."""
    with connect(dsn) as conn:
        known = protocol.register_worker(_NAME, [queue], BATCH, [], host="", pid=0, version="")
        execute(conn, known)
        yield Loop(conn, queue)
        execute(conn, protocol.stop_worker(_NAME))


def end_all(dsn: str, queue: str) -> float:
    """End all runs that are ready, and return how many a second."""
    with loop(dsn, queue) as worker:
        began, done = time.perf_counter(), 0
        for leases in worker.batches():
            worker.complete(leases)
            done += len(leases)
        return done / (time.perf_counter() - began)


def park_all(dsn: str, queue: str) -> None:
    """Have all runs that are ready wait for a signal that nobody sends."""
    with loop(dsn, queue) as worker:
        for leases in worker.batches():
            worker.park(leases, {"kind": "event", "key": "go", "name": "go"})
