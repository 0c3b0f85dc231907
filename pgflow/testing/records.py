"""What a test asks the database that no client has to ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row

from pgflow import protocol
from pgflow._statement import Row
from pgflow.app import App
from pgflow.database import execute

# Nobody of this app's takes what is pending in another queue, or in a paused one.
_BUSY = b"""
    select r.state, r.handler, r.run_id
    from pgflow.run r
    join pgflow.queue q using (project_id, queue)
    where r.project_id = pgflow.this_project(%(project)s)
      and (r.state = 'running' and r.kind = 'handler'
           or (r.state = 'pending' and r.queue = any (%(queues)s) and q.paused_at is null))
    order by r.state desc, r.seq
    limit 20
"""

# Time stands still: of tasks that are equally urgent, that of the run that was ready first.
_TASKS = b"""
    select i.*
    from pgflow.inbox i
    join pgflow.run r on r.project_id = i.project and r.run_id = i.run_id
    where i.project = pgflow.this_project(%(project)s)
    order by i.due_at nulls last, i.created_at, r.seq, i.task_id
"""

_STEPS = b"""
    select j.key, j.value
    from pgflow.journal j
    where j.project_id = pgflow.this_project(%(project)s) and j.run_id = %(run_id)s
      and j.kind = 'step'
    order by j.event_no
"""


class Watch:
    """Looks whether an app's workers have anything left to do."""

    def __init__(self, conn: Connection[Any], app: App) -> None:
        self._conn = conn
        self._project = app.project
        self._queues = app.registry.queues()

    def busy(self) -> list[Row]:
        """Return the runs that are running, or could be."""
        values = {"project": self._project, "queues": self._queues}
        with self._conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_BUSY, values).fetchall()

    def is_idle(self) -> bool:
        """See to what is due, and tell whether nothing is left that could run now."""
        if self.busy():
            return False
        done = execute(self._conn, protocol.tick(project=self._project))
        # Nulls: a worker is at it. A number: something may be ready now, or there is more to do.
        return all(count == 0 for count in done.values()) and not self.busy()


def register(conn: Connection[Any], app: App) -> None:
    """Tell the database the app's handlers, as a worker of it would have done before."""
    if app.project not in (None, "default"):
        conn.execute("select pgflow.create_project(%s)", (app.project,))
    queues = app.registry.queues()
    handlers = [h.registration() for h in app.registry.handlers.values()]
    known = protocol.register_worker(
        "pgflow.testing",
        queues,
        1,
        handlers,
        host="",
        pid=0,
        version=app.version,
        project=app.project,
    )
    execute(conn, known)
    execute(conn, protocol.stop_worker("pgflow.testing", project=app.project))


def tasks(conn: Connection[Any], project: str | None) -> list[Row]:
    """Return the rows of view inbox, the most urgent first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_TASKS, {"project": project}).fetchall()


def step_results(
    conn: Connection[Any], run_id: UUID | str, project: str | None
) -> Sequence[tuple[str, Any]]:
    """Return the keys and results of a run's steps, in order."""
    return conn.execute(_STEPS, {"run_id": run_id, "project": project}).fetchall()
