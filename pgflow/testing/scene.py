"""One test's database with an app on it: what the fixture `pgflow_scene` is."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Self
from uuid import UUID

import psycopg

from pgflow._statement import Row, RunId
from pgflow.app import App
from pgflow.client import Client
from pgflow.models import Decision
from pgflow.testing import records, timelines
from pgflow.testing._binding import Binding
from pgflow.testing.clock import Clock
from pgflow.testing.people import People
from pgflow.testing.tasks import Task, find
from pgflow.testing.work import until_idle, until_idle_in_thread


class Scene:
    """A database of the test's own, an app bound to it, its time, and what became of its runs.

    Attributes: `dsn`; `time`, the Clock; `app`, the app in use. Runs are executed only while
    run_until_idle() runs, so that a test sees every state in between.
    """

    def __init__(self, dsn: str, app: App | None = None) -> None:
        self.dsn = dsn
        self._conn = psycopg.connect(dsn, autocommit=True)
        self._watching = psycopg.connect(dsn, autocommit=True)
        self._people = People(self._conn, dsn)
        self._bindings: list[Binding] = []
        self._app: App | None = None
        self.time = Clock(self._conn)
        if app is not None:
            self.use(app)

    @property
    def app(self) -> App:
        """The app in use. Raises LookupError before use()."""
        if self._app is None:
            raise LookupError("this scene has no app yet: call scene.use(app)")
        return self._app

    @property
    def client(self) -> Client:
        """A client of the test's database, in the app's project."""
        return Client(self._conn, project=self._project)

    def use(self, app: App) -> Self:
        """Bind an app to the test's database until the test ends, whatever DSN it was made with.

        Its handlers become known to the database, its project is made if it has one. The last app
        that was given is the one in use. Example: `scene = pgflow_scene.use(app)`.
        """
        if all(binding.app is not app for binding in self._bindings):
            self._bindings.append(Binding(app, self.dsn))
        records.register(self._conn, app)
        self._app = app
        return self

    def run_until_idle(
        self, app: App | None = None, *, timeout: float = 10.0, concurrency: int = 1
    ) -> None:
        """Execute all runs that are ready, and those they lead to, until none is left.

        What is scheduled for later or waits stays, and so does what is pending in a queue that is
        paused or not of this app. A run that fails raises nothing here. A real worker does it, in a
        thread with an event loop of its own, one run after the other unless `concurrency` says
        more. Raises StillBusy after `timeout` seconds, and says where the handlers hang.
        """
        __tracebackhide__ = True
        app = self._choose(app)
        watch = records.Watch(self._watching, app)
        until_idle_in_thread(app, self.dsn, watch, timeout, concurrency)

    async def run_until_idle_async(
        self,
        app: App | None = None,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - a bound that is explained
        concurrency: int = 1,
    ) -> None:
        """As run_until_idle, with the worker in the event loop of the test."""
        __tracebackhide__ = True
        app = self._choose(app)
        watch = records.Watch(self._watching, app)
        await until_idle(app, self.dsn, watch, timeout, concurrency)

    def tasks(self) -> list[Task]:
        """Return the open tasks, the most urgent first."""
        return [Task.from_row(row) for row in records.tasks(self._conn, self._project)]

    def approve(
        self,
        task: str | UUID | None = None,
        *,
        comment: str | None = None,
        decision: object = None,
        run: RunId | None = None,
        by: str | None = None,
    ) -> Decision:
        """Approve the open task of that key, title or id; without one, the only task there is.

        `run` says of which run. `by` is the database role that decides; person() makes one.
        Example: `scene.approve("editor", comment="fine", by="alice")`.
        Raises NoSuchTask, which lists the open tasks, and what Client.approve raises.
        """
        __tracebackhide__ = True
        found = find(self.tasks(), task, run)
        with nullcontext() if by is None else self._people.acting_as(by):
            return self.client.approve(found.task_id, comment, decision)

    def reject(
        self,
        task: str | UUID | None = None,
        *,
        comment: str | None = None,
        rollback_to: str | None = None,
        run: RunId | None = None,
        by: str | None = None,
    ) -> Decision:
        """Reject the open task of that key, title or id; see approve.

        With `rollback_to`, a key of the run's journal, that and all after it is done again.
        """
        __tracebackhide__ = True
        found = find(self.tasks(), task, run)
        with nullcontext() if by is None else self._people.acting_as(by):
            return self.client.reject(found.task_id, comment, rollback_to=rollback_to)

    def answer(
        self,
        data: object,
        task: str | UUID | None = None,
        *,
        comment: str | None = None,
        run: RunId | None = None,
        by: str | None = None,
    ) -> Decision:
        """Answer the open form, input or interrupt of that key, title or id; see approve.

        Example: `scene.answer({"street": "Elm"}, "address", by="alice")`.
        """
        __tracebackhide__ = True
        found = find(self.tasks(), task, run)
        with nullcontext() if by is None else self._people.acting_as(by):
            return self.client.answer(found.task_id, data, comment)

    def person(self, name: str, *roles: str) -> str:
        """Make a database role that may decide tasks, and is a member of `roles`; return its name.

        Roles that are missing are made too, and those made are dropped when the test ends. They
        belong to the whole server: of tests that run side by side, one has people at a time.
        Example: `scene.approve("editor", by=scene.person("alice", "editors"))`.
        """
        self._people.make(name, member_of=("pgflow_approver", *roles))
        self._conn.execute("select pgflow.add_member(%s, %s)", (name, self._project))
        return name

    def run(self, run_id: RunId) -> Row:
        """Return the run's row of view runs. Raises LookupError."""
        rows = self.client.runs(run_id=run_id)
        if not rows:
            raise LookupError(f"there is no run {run_id}")
        return rows[0]

    def output(self, run_id: RunId) -> Any:  # noqa: ANN401 - any JSON
        """Return what the handler returned. Raises AssertionError if the run is not completed."""
        __tracebackhide__ = True
        run = self.run(run_id)
        if run["state"] != "completed":
            raise AssertionError(_not_completed(run))
        return run["output"]

    def steps(self, run_id: RunId) -> dict[str, Any]:
        """Return the results of the run's steps by their keys, in the order of their ends."""
        return dict(records.step_results(self._conn, run_id, self._project))

    def timeline(self, run_id: RunId) -> list[str]:
        """Return the run's timeline as assert_timeline shows it."""
        return [timelines.label(line) for line in self.client.timeline(run_id)]

    def assert_timeline(self, run_id: RunId, expected: timelines.Expected) -> None:
        """Check all that happened to a run, in order.

        A line is an event's type, or the type with the step, the task's or tool's key or the code:
        "step.completed" or "step.completed draft". `...` stands for any number of lines.
        Example: `scene.assert_timeline(run_id, ["run.created", ..., "run.completed"])`.
        Raises AssertionError, which shows the differences.
        """
        __tracebackhide__ = True
        found = timelines.differences(self.client.timeline(run_id), expected)
        if found:
            head = f"timeline of {self.run(run_id)['handler']} {run_id}"
            raise AssertionError(f"{head}: - expected, + happened\n{found}")

    def close(self) -> None:
        """Give the apps their own databases back, and close all connections."""
        for binding in self._bindings:
            binding.release()
        self._people.close()
        self._watching.close()
        self._conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _project(self) -> str | None:
        return None if self._app is None else self._app.project

    def _choose(self, app: App | None) -> App:
        if app is not None and app is not self._app:
            self.use(app)
        return self.app


def _not_completed(run: Row) -> str:
    why = f"{run['error_code'] or ''} {run['error_detail'] or run['pause_reason'] or ''}".strip()
    words = [f"{run['handler']} {run['run_id']} is {run['state']}, not completed", why]
    if run["waits_for"]:
        words.append(f"waits for {', '.join(run['waits_for'])}")
    if run["state"] == "scheduled":
        words.append(f"until {run['run_at'].isoformat()}")
    if isinstance(run["last_error"], dict):
        words.append(str(run["last_error"].get("traceback") or ""))
    return "\n".join(word for word in words if word)
