"""Drives the worker's own SQL by a loop that does nothing else: the bound of pgflow's drains.

It also brings a database into the states that are measured, such as many runs that wait.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
    """A worker of one project without handlers."""

    conn: psycopg.Connection[Any]
    queue: str
    project: str | None = None

    def batches(self) -> Iterator[list[Lease]]:
        """Lease runs until none is ready."""
        marks = None
        while True:
            look = protocol.acquire(
                _NAME, [self.queue], BATCH, marks, listening=False, project=self.project
            )
            acquired = execute(self.conn, look)
            if not acquired.leases:
                return
            marks = acquired.marks
            yield acquired.leases

    def complete(self, leases: list[Lease]) -> None:
        """End runs without an output."""
        ids, numbers = [x.run_id for x in leases], [x.lease_no for x in leases]
        outputs = ["null"] * len(ids)
        execute(self.conn, protocol.complete(ids, numbers, outputs, project=self.project))

    def park(self, leases: list[Lease], wait: dict[str, object]) -> None:
        """Have runs wait for something."""
        parks = [
            {"run_id": x.run_id, "lease_no": x.lease_no, "news": x.news, "waits": [wait]}
            for x in leases
        ]
        texts = [json.dumps(park) for park in parks]
        execute(self.conn, protocol.park(texts, project=self.project))


@contextmanager
def loop(conn: psycopg.Connection[Any], queue: str, project: str | None = None) -> Iterator[Loop]:
    """Be a worker for as long as the block."""
    known = protocol.register_worker(
        _NAME, [queue], BATCH, [], host="", pid=0, version="", project=project
    )
    execute(conn, known)
    yield Loop(conn, queue, project)
    execute(conn, protocol.stop_worker(_NAME, project=project))


def end_all(dsn: str, queue: str, projects: Sequence[str | None] = (None,)) -> float:
    """End all runs that are ready, project after project, and return how many a second."""
    with connect(dsn) as conn, ExitStack() as stack:
        loops = [stack.enter_context(loop(conn, queue, project)) for project in projects]
        left = [(each, each.batches()) for each in loops]
        began, done = time.perf_counter(), 0
        while left:
            again = []
            for each, batches in left:
                if leases := next(batches, None):
                    each.complete(leases)
                    done += len(leases)
                    again.append((each, batches))
            left = again
        return done / (time.perf_counter() - began)


def park_all(dsn: str, queue: str) -> None:
    """Have all runs that are ready wait for a signal that nobody sends."""
    with connect(dsn) as conn, loop(conn, queue) as worker:
        for leases in worker.batches():
            worker.park(leases, {"kind": "event", "key": "go", "name": "go"})
