"""The demo's database and workers, and what can be asked of them."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from examples.editorial import queries
from examples.editorial.app import Article, review
from examples.editorial.processes import Person, Unexpected, WorkerProcess
from pgflow import Client
from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate

Row = dict[str, Any]

LEASE = timedelta(seconds=2)  # 60 s by default: a demo can't wait that long for a dead worker
PROOFREADING = 1.0  # seconds, long enough for a worker to be killed in the middle
PATIENCE = 60.0  # seconds without any progress


class Desk:
    """A server of its own, and two workers. As a context manager it ends what it has started."""

    def __init__(self, *, keep: bool) -> None:
        # Not mkdtemp, whose folders are closed to the server's user if we are root.
        self.home = Path(tempfile.gettempdir()) / f"pgflow-demo-{secrets.token_hex(4)}"
        self.server = EmbeddedServer(self.home)
        self.workers: list[WorkerProcess] = []
        self._keep = keep
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if not self._keep:
                stack.callback(_remove, self.home)
            stack.enter_context(self.server.start(detached=self._keep))
            migrate(self.server.socket_dsn)
            self._conn = stack.enter_context(
                psycopg.connect(self.server.socket_dsn, autocommit=True, row_factory=dict_row)
            )
            self._client = Client(self._conn)
            self._client.define_queue("editorial", lease_ttl=LEASE)
            for label in ("A", "B"):
                worker = WorkerProcess(label, self.server.socket_dsn, self.home / f"{label}.log")
                stack.callback(worker.stop)
                self.workers.append(worker)
            self.wait_for(2, self._registered, "registered workers")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def version(self) -> str:
        """The version of the server."""
        return (self._conn.info.parameter_status("server_version") or "?").split()[0]

    def enqueue(self, folder: Path, names: Sequence[str]) -> list[UUID]:
        """Start a run for each file."""
        return self._client.enqueue_many(
            review, [Article(folder=folder, name=n, proofreading=PROOFREADING) for n in names]
        )

    def wait_for(self, total: int, count: Callable[[], int], what: str) -> None:
        """Count until there are `total`. Raises Unexpected when it takes too long."""
        counted, since = -1, time.monotonic()
        while (now := count()) != total:
            for worker in self.workers:
                worker.check()
            if now != counted:
                counted, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                logs = "\n".join(worker.last_words() for worker in self.workers)
                raise Unexpected(f"still {now} of {total} {what} after {PATIENCE:.0f} s\n{logs}")
            time.sleep(0.02)

    def waiting(self) -> int:
        """Return how many runs wait for a person."""
        return int(self._ask(queries.COUNTS)[0]["waiting"])

    def ended(self) -> int:
        """Return how many runs have ended."""
        return int(self._ask(queries.COUNTS)[0]["ended"])

    def reading(self) -> WorkerProcess | None:
        """Return a worker that has just begun to proofread."""
        busy = [row["worker_id"] for row in self._ask(queries.BEING_PROOFREAD)]
        return next((worker for worker in self.workers if worker.worker_id in busy), None)

    def held_by(self, worker: WorkerProcess) -> list[UUID]:
        """Return the runs that the database has given to a worker."""
        rows = self._ask(queries.HELD_BY, worker_id=worker.worker_id)
        return [row["run_id"] for row in rows]

    def now(self) -> datetime:
        """Return the time by the database's clock."""
        now: datetime = self._ask("select clock_timestamp() as now")[0]["now"]
        return now

    def takeovers(self, worker: WorkerProcess) -> list[Row]:
        """Return when, and by whom, a worker's runs were taken over."""
        return self._ask(queries.TAKEOVERS, worker_id=worker.worker_id)

    def inbox(self) -> list[Row]:
        """Return what waits for a person, the most broken links first."""
        return self._ask(queries.INBOX)

    def person(self) -> Person:
        """Return somebody at a SQL prompt, who leaves when the desk is closed."""
        person = Person(self.server.socket_dsn)
        self._stack.callback(person.leave)
        return person

    def timeline(self, run_id: UUID) -> list[Row]:
        """Return all that happened to a run."""
        return self._client.timeline(run_id)

    def results(self) -> list[Row]:
        """Return the runs that have ended, and the steps that each of them has done."""
        return self._ask(queries.RESULTS)

    def latency(self) -> Row:
        """Return how many approvals there were, and the ms from there to resumption: p50, max."""
        return self._ask(queries.LATENCY)[0]

    def _registered(self) -> int:
        ids = {row["pid"]: row["worker_id"] for row in self._ask(queries.WORKERS)}
        for worker in self.workers:
            worker.worker_id = ids.get(worker.pid, "")
        return len(ids)

    def _ask(self, query: str, **values: object) -> list[Row]:
        return self._conn.execute(query.encode(), values).fetchall()


def _remove(folder: Path) -> None:
    """Delete a folder, even if the server's programs were interrupted and still write into it."""
    for _ in range(30):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
