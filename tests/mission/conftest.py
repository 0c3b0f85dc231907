"""Whole systems from outside: SQL, the Python client, the command, workers that are processes.

All tests share one database, which nobody puts back, and each is executed twice in it: the second
time it finds what the first has left, under the same names of flows, handlers, queues and keys.
$PGFLOW_TEST_PLACES leaves one of the two out, and what is left has no part in a test that is
parametrized with the place `fresh`, as in tests/sql. Two worker daemons serve them all.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pgflow import Client
from tests.cli.conftest import find_main
from tests.conftest import database

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
Row = dict[str, Any]
T = TypeVar("T")


def until(look: Callable[[], T]) -> T:
    """Ask again and again until the answer is true, and return it."""
    give_up = time.monotonic() + PATIENCE
    while not (answer := look()):
        if time.monotonic() > give_up:
            pytest.fail(f"still {answer!r} after {PATIENCE:g} s")
        time.sleep(0.01)
    return answer


class Daemon:
    """A `pgflow worker` and what it logs."""

    def __init__(self, dsn: str, log: Path, *options: str) -> None:
        self._log = log
        command = [sys.executable, "-m", "pgflow.cli", "worker", "--app", "tests.mission.app:app"]
        logs = ["--log-format", "json", "--log-level", "debug"]
        others = {k: v for k, v in os.environ.items() if not k.startswith("PGFLOW_")}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *logs, *options],
                cwd=PROJECT,
                env=others | {"PGFLOW_DSN": dsn},
                stderr=output,
            )

    def logged(self, event: str, **about: object) -> list[Row]:
        """Return the lines of an event that say this."""
        lines = self._log.read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "\n"]
        wanted = {"event": event, **about}
        return [line for line in told if wanted.items() <= line.items()]

    @property
    def worker_id(self) -> str:
        """Its id, once it works."""
        started = until(lambda: self.process.poll() or self.logged("worker_started"))
        assert isinstance(started, list), self._log.read_text()
        return str(started[0]["worker_id"])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """See to it that it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Hold:
    """What keeps the handler `held` running, until it is let go."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / secrets.token_hex(6)
        self.path = str(self.file)

    def begun(self) -> None:
        """Wait until the handler runs."""
        until(self.file.with_suffix(".begun").exists)

    def let_go(self) -> None:
        """Let it end."""
        self.file.touch()


class Mission:
    """A project as its users have it, and what a test looks at."""

    def __init__(self, dsn: str, folder: Path, daemons: Sequence[Daemon], project: str) -> None:
        self.dsn = dsn
        self.folder = folder
        self.daemons = daemons
        self.project = project
        self.client = Client(dsn, project=project)
        self.db = psycopg.connect(dsn, autocommit=True)
        self.db.execute("select set_config('pgflow.project', %s, false)", [project])

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.db.close()

    # ---- asking

    def rows(self, query: str, *values: object) -> list[Row]:
        """Run any SQL; a dict goes as jsonb."""
        given = [Jsonb(v) if isinstance(v, dict) else v for v in values]
        with self.db.cursor(row_factory=dict_row) as cursor:
            cursor.execute(query.encode(), given)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *values: object) -> Any:
        """Run any SQL that returns one value."""
        (row,) = self.rows(query, *values)
        (value,) = row.values()
        return value

    def run(self, run_id: UUID) -> Row:
        """Return a run's line of view runs."""
        (row,) = self.client.runs(run_id=run_id)
        return row

    def reaches(self, run_id: UUID, state: str) -> Row:
        """Wait until a run is in a state."""
        return until(lambda: row if (row := self.run(run_id))["state"] == state else {})

    def ends(self, run_id: UUID) -> Row:
        """Wait until a run has ended."""
        self.client.result(run_id, timeout=PATIENCE)
        return self.run(run_id)

    def output(self, run_id: UUID) -> Any:
        """Wait until a run is completed."""
        return self.client.result(run_id, timeout=PATIENCE).value

    def events(self, run_id: UUID) -> list[str]:
        """Return the types of a run's timeline."""
        return [line["type"] for line in self.client.timeline(run_id)]

    def task(self, run_id: UUID, step: str | None = None) -> Row:
        """Wait until a run, or a step of a flow, asks a person."""
        query = "select * from pgflow.inbox where %s in (run_id, flow_run_id)"
        which = " and (%s::text is null or step = %s)"
        return until(lambda: self.rows(query + which, run_id, step, step))[0]

    def steps(self, flow_run_id: UUID) -> dict[str, str]:
        """Return the states of a flow's steps, those that still count."""
        rows = self.client.flow_steps(flow_run_id)
        return {row["step"]: row["state"] for row in rows if row["voided_at"] is None}

    def step(self, flow_run_id: UUID, step: str) -> Row:
        """Return the line of a step that still counts."""
        rows = self.client.flow_steps(flow_run_id)
        (row,) = [r for r in rows if r["step"] == step and r["voided_at"] is None]
        return row

    def start(self, name: str, *steps: Row, given: Any = None, **more: Any) -> UUID:
        """Define a flow and start it on what is given."""
        self.client.define_flow({"name": name, "steps": list(steps), **more})
        return self.client.start(name, given)

    # ---- acting

    def hold(self) -> Hold:
        """Return what keeps a handler running."""
        return Hold(self.folder)

    @contextmanager
    def daemon(self, *options: str) -> Iterator[Daemon]:
        """Start one more worker daemon, in this project."""
        log = self.folder / f"{secrets.token_hex(6)}.log"
        daemon = Daemon(self.dsn, log, "--project", self.project, *options)
        try:
            yield daemon
        finally:
            daemon.end()

    def pgflow(self, *words: object) -> str:
        """Call the command, which must succeed, and return what it prints."""
        runner = CliRunner(env={"PGFLOW_DSN": self.dsn, "PGFLOW_PROJECT": self.project})
        result = runner.invoke(find_main(), [str(word) for word in words], prog_name="pgflow")
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    def logged(self, event: str, **about: object) -> Row:
        """Wait until one of the daemons that serve all has logged that, and return the line."""
        return until(lambda: [line for d in self.daemons for line in d.logged(event, **about)])[0]


class Hand:
    """A worker by hand: the verbs of the protocol in plain SQL, as another program calls them."""

    def __init__(self, mission: Mission, queue: str) -> None:
        self._mission = mission
        self._queue = queue
        self.worker_id = f"hand:{secrets.token_hex(6)}"
        mission.rows(
            "select * from pgflow.register_worker(%s::text, array[%s::text], 10,"
            """ '[{"handler": "by-hand", "retry_base": 0.01}]')""",
            self.worker_id,
            queue,
        )

    def take(self, count: int = 1) -> list[Row]:
        """Lease runs."""
        verb = "select runs from pgflow.acquire(%s::text, array[%s::text], %s::integer)"
        leases = self._mission.value(verb, self.worker_id, self._queue, count)
        return [{**lease, "run_id": UUID(lease["run_id"])} for lease in leases]

    def say(self, verb: str, lease: Row, **arguments: object) -> list[Row]:
        """Call a verb for one lease, with arrays of one."""
        names = "".join(f", {name} => %s" for name in arguments)
        return self._mission.rows(
            f"select * from pgflow.{verb}(array[%s::uuid], array[%s::integer]{names})",
            lease["run_id"],
            lease["lease_no"],
            *([value] for value in arguments.values()),
        )

    def park(self, lease: Row, **more: object) -> Row:
        """Have a run wait for an approval."""
        waits = [{"kind": "approval", "key": "ok", "title": "Fine?"}]
        parking = {"run_id": str(lease["run_id"]), "lease_no": lease["lease_no"], "news": 0}
        verb = "select * from pgflow.park(jsonb_build_array(%s))"
        return self._mission.rows(verb, {**parking, "waits": waits, **more})[0]

    def leave(self) -> None:
        """Give back what is held."""
        self._mission.rows("select pgflow.stop_worker(%s)", self.worker_id)


@pytest.fixture(
    scope="session", params=(os.environ.get("PGFLOW_TEST_PLACES") or "fresh used").split()
)
def place(request: pytest.FixtureRequest) -> str:
    """Say whether this is the first time, or the one on what the first has left."""
    return str(request.param)


@pytest.fixture(scope="session")
def dsn(server: str, template: str) -> Iterator[str]:
    """Return the DSN of the one migrated database of these tests."""
    with database(server, template=template) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the daemons log, and what holds their handlers."""
    return tmp_path_factory.mktemp("mission")


@pytest.fixture(scope="session")
def daemons(dsn: str, folder: Path) -> Iterator[list[Daemon]]:
    """Return the two worker daemons that serve all tests."""
    daemons = [Daemon(dsn, folder / f"{n}.log", "--grace", "1") for n in range(2)]
    try:
        assert len({daemon.worker_id for daemon in daemons}) == 2
        yield daemons
        for daemon in daemons:
            daemon.process.terminate()
        assert [daemon.process.wait(PATIENCE) for daemon in daemons] == [0, 0]
    finally:
        for daemon in daemons:
            daemon.end()


@pytest.fixture
def mission(place: str, dsn: str, folder: Path, daemons: list[Daemon]) -> Iterator[Mission]:
    """Return the project `default`, which the daemons serve."""
    assert place
    mission = Mission(dsn, folder, daemons, "default")
    yield mission
    mission.close()


@pytest.fixture
def elsewhere(mission: Mission) -> Iterator[Callable[[str], Mission]]:
    """Return a maker of other projects, which no daemon serves."""
    with ExitStack() as stack:

        def make(project: str) -> Mission:
            mission.value("select pgflow.create_project(%s)", project)
            other = Mission(mission.dsn, mission.folder, mission.daemons, project)
            stack.callback(other.close)
            return other

        yield make
