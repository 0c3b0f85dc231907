"""Who used the processors: the server, the workers, and everybody else on the machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from bench.server import connect


@dataclass(frozen=True)
class Snapshot:
    """Seconds of processor time used so far; `server` is None where it runs elsewhere."""

    at: float
    server: float | None
    workers: float
    known: float
    machine: float


class Meter:
    """Reads what the server's processes, some workers and the rest of the machine have used."""

    def __init__(self, admin: str) -> None:
        self._server: psutil.Process | None = None
        with connect(admin) as conn, contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(conn.info.backend_pid).parent()
            if parent is not None and "postgres" in parent.name():
                self._server = parent

    def read(self, workers: Sequence[int] = ()) -> Snapshot:
        """Return what is used up to now; `workers` are process ids."""
        at = time.monotonic()
        ours = _family(psutil.Process(os.getpid()))
        server = {} if self._server is None else _family(self._server)
        busy = psutil.cpu_times()
        machine = sum(busy) - busy.idle - getattr(busy, "iowait", 0.0) - getattr(busy, "guest", 0.0)
        return Snapshot(
            at=at,
            server=None if self._server is None else sum(server.values()),
            workers=sum(sum(_family(psutil.Process(pid)).values()) for pid in workers),
            known=sum({**ours, **server}.values()),
            machine=machine,
        )


def used(before: Snapshot, after: Snapshot, runs: float) -> dict[str, float]:
    """Return who used how many cores between two snapshots, and microseconds for each run."""
    elapsed = after.at - before.at
    workers = after.workers - before.workers
    result = {"worker_cores": workers / elapsed, "worker_us": workers / runs * 1e6}
    if before.server is not None and after.server is not None:
        server = after.server - before.server
        result |= {"server_cores": server / elapsed, "server_us": server / runs * 1e6}
    return result


def others(before: Snapshot, after: Snapshot) -> float:
    """Return how many cores were used between two snapshots by who has no part in this."""
    strangers = after.machine - before.machine - (after.known - before.known)
    return max(0.0, strangers) / (after.at - before.at)


def memory(pid: int) -> float:
    """Return the resident memory of a process and its children in MB."""
    process = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / 2**20


def _family(process: psutil.Process) -> dict[int, float]:
    """Return, by id, what a process and its children have used, ended ones with their parents."""
    found = {}
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            found[member.pid] = times.user + times.system + ended
    return found
