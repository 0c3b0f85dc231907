"""Workers inside the test: they run in a thread while the test looks at the database."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from structlog.testing import capture_logs

from pgflow import App, Client, Worker

PATIENCE = 30.0
T = TypeVar("T")
Row = dict[str, Any]
Logs = list[MutableMapping[str, Any]]


def until(look: Callable[[], T]) -> T:
    """Ask again and again until the answer is true, and return it."""
    give_up = time.monotonic() + PATIENCE
    while not (answer := look()):
        if time.monotonic() > give_up:
            pytest.fail(f"still {answer!r} after {PATIENCE:g} s")
        time.sleep(0.002)
    return answer


class Running:
    """A worker in a thread of its own."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.worker_id = worker.worker_id
        self.loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._complaints: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        async def work() -> None:
            self.loop = asyncio.get_running_loop()
            self.loop.set_exception_handler(lambda _, told: self._complaints.append(told))
            await self.worker.run()

        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - raised again by ended()
            self._error = error

    def call(self, what: Callable[[], None]) -> None:
        """Call something in the worker's loop, and go on."""
        until(lambda: self.loop)
        assert self.loop is not None
        if self.is_alive():
            self.loop.call_soon_threadsafe(what)

    def stop(self) -> None:
        """Ask it to stop, as a signal would."""
        self.call(self.worker.stop)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def ended(self) -> None:
        """Wait until run() has returned; raise what it raised."""
        self._thread.join(PATIENCE)
        assert not self.is_alive(), "the worker does not stop"
        if self._error is not None:
            raise self._error
        assert self._complaints == []


class Stage:
    """A database of the test's own, an app, a client, and what became of the runs."""

    def __init__(self, dsn: str, db: psycopg.Connection) -> None:
        self.dsn = dsn
        self.db = db
        self.app = App(dsn)
        self.client = Client(dsn)

    @contextmanager
    def worker(
        self, app: App | None = None, dsn: str | None = None, **how: Any
    ) -> Iterator[Running]:
        """Start a worker, wait until it is known, and stop it at the end."""
        running = Running(Worker(app or self.app, dsn or self.dsn, **how))
        try:
            known = "select true from pgflow.worker where worker_id = %s"
            until(lambda: not running.is_alive() or self.one(known, running.worker_id))
            yield running
        except BaseException:
            running.stop()
            running.stop()
            raise
        running.stop()
        running.ended()

    def until(self, look: Callable[[], T]) -> T:
        """Ask again and again until the answer is true, and return it."""
        return until(look)

    def one(self, query: str, *values: object) -> Any:
        """Return the first value of the first row, None if there is no row."""
        row = self.db.execute(query.encode(), values).fetchone()
        return row and row[0]

    def run(self, run_id: UUID) -> Row:
        """Return the run's line of view runs."""
        with self.db.cursor(row_factory=dict_row) as cursor:
            cursor.execute("select * from pgflow.runs where run_id = %s", [run_id])
            row = cursor.fetchone()
        assert row is not None
        return row

    def reaches(self, run_id: UUID, state: str) -> Row:
        """Wait until the run is in that state."""
        return until(lambda: row if (row := self.run(run_id))["state"] == state else None) or {}

    def ends(self, run_id: UUID) -> Row:
        """Wait until the run is finished."""
        until(lambda: self.run(run_id)["finished_at"])
        return self.run(run_id)

    def logged(self, logs: Logs, event: str) -> MutableMapping[str, Any]:
        """Wait until something was logged, and return its first line."""
        return until(lambda: [line for line in logs if line["event"] == event])[0]

    def all_end(self, count: int) -> None:
        """Wait until so many runs are finished."""
        until(lambda: self.one("select count(*) from pgflow.run_finished") == count)

    def output(self, run_id: UUID) -> Any:
        """Wait until the run is completed and return its output."""
        run = self.ends(run_id)
        assert run["state"] == "completed", (run["error_code"], run["error_detail"])
        return run["output"]

    def events(self, run_id: UUID) -> list[str]:
        """Return the types of the run's timeline."""
        return [line["type"] for line in self.client.timeline(run_id)]

    def task(self, run_id: UUID) -> UUID:
        """Wait until the run asks a person, and return the task."""
        inbox = until(lambda: self.client.inbox(run_id=run_id))
        task_id = inbox[0]["task_id"]
        assert isinstance(task_id, UUID)
        return task_id


@pytest.fixture
def stage(dsn: str, db: psycopg.Connection) -> Iterator[Stage]:
    """Return a stage on a migrated database, with nobody on it yet."""
    stage = Stage(dsn, db)
    yield stage
    stage.client.close()


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Return the log entries of the test, as they come."""
    with capture_logs() as entries:
        yield entries
