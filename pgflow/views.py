"""What people look at, as statements: views, filtered by what is given, and reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pgflow._statement import Row, RunId, Statement, _int4, _rows, _value


def runs(
    *,
    run_id: RunId | None = None,
    state: str | None = None,
    queue: str | None = None,
    handler: str | None = None,
    limit: int = 50,
    project: str | None = None,
) -> Statement[list[Row]]:
    """Return rows of view runs, newest first."""
    return Statement(
        b"select * from pgflow.runs where project_id = (select pgflow.this_project(%(project)s))"
        b" and (%(run_id)s::uuid is null or run_id = %(run_id)s::uuid)"
        b" and (%(state)s::text is null or state = %(state)s)"
        b" and (%(queue)s::text is null or queue = %(queue)s)"
        b" and (%(handler)s::text is null or handler = %(handler)s)"
        b" order by run_id desc limit %(limit)s",
        {
            "run_id": run_id,
            "state": state,
            "queue": queue,
            "handler": handler,
            "limit": limit,
            "project": project,
        },
        _rows,
    )


def report(run_id: RunId, *, project: str | None = None) -> Statement[dict[str, Any]]:
    """Return what a run did and cost, live or finished: docs/reports.md has the members.

    Raises UnknownRun.
    """
    return Statement(
        b"select pgflow.report(%(run_id)s::uuid, %(project)s)",
        {"run_id": run_id, "project": project},
        _value,
    )


def context(run_id: RunId, *, project: str | None = None) -> Statement[dict[str, Any]]:
    """Return where a run stands and how it came there, live or finished. Raises UnknownRun."""
    return Statement(
        b"select pgflow.context(%(run_id)s::uuid, %(project)s)",
        {"run_id": run_id, "project": project},
        _value,
    )


def timeline(
    run_id: RunId | None = None,
    *,
    after: int = 0,
    since: datetime | None = None,
    past: tuple[datetime, RunId, int] | None = None,
    types: Sequence[str] | None = None,
    handlers: Sequence[str] | None = None,
    limit: int | None = None,
    project: str | None = None,
) -> Statement[list[Row]]:
    """Return lines of view timeline: of a run in order, or of all runs by time.

    `after` is an `event_no` of the run; `since` a time, itself included; `past` has the `at`,
    `run_id` and `event_no` of the last line of the page before.
    """
    at, run, no = past or (None, None, None)
    return Statement(
        b"select * from pgflow.timeline"
        b" where project_id = (select pgflow.this_project(%(project)s))"
        b" and (%(run_id)s::uuid is null or run_id = %(run_id)s::uuid)"
        b" and event_no > %(after)s::integer"
        b" and (%(since)s::timestamptz is null or at >= %(since)s::timestamptz)"
        b" and (%(at)s::timestamptz is null or at >= %(at)s::timestamptz"
        b" and (at, run_id, event_no)"
        b" > (%(at)s::timestamptz, %(past_run)s::uuid, %(past_no)s::integer))"
        b" and (%(types)s::text[] is null or type = any (%(types)s::text[]))"
        b" and (%(handlers)s::text[] is null or handler = any (%(handlers)s::text[]))"
        b" order by case when %(run_id)s::uuid is null then at end, run_id, event_no"
        b" limit %(limit)s::integer",
        {
            "run_id": run_id,
            "after": _int4(after),
            "since": since,
            "at": at,
            "past_run": run,
            "past_no": no,
            "types": None if types is None else list(types),
            "handlers": None if handlers is None else list(handlers),
            "limit": _int4(limit),
            "project": project,
        },
        _rows,
    )


def now() -> Statement[datetime]:
    """Return the database's time, which all times of pgflow are."""
    return Statement(b"select pgflow.now()", {}, _value)


def journal_entries(run_id: RunId, *, project: str | None = None) -> Statement[list[Row]]:
    """Return what a run has learned, in order, what of it was voided included."""
    return Statement(
        b"select * from pgflow.journal_entries"
        b" where project_id = (select pgflow.this_project(%(project)s))"
        b" and run_id = %(run_id)s::uuid order by event_no, round nulls last",
        {"run_id": run_id, "project": project},
        _rows,
    )


def tool_calls(
    *,
    run_id: RunId | None = None,
    tool: str | None = None,
    status: str | None = None,
    limit: int = 50,
    project: str | None = None,
) -> Statement[list[Row]]:
    """Return rows of view tool_calls, the newest first."""
    return Statement(
        b"select * from pgflow.tool_calls"
        b" where project_id = (select pgflow.this_project(%(project)s))"
        b" and (%(run_id)s::uuid is null or run_id = %(run_id)s::uuid)"
        b" and (%(tool)s::text is null or tool = %(tool)s)"
        b" and (%(status)s::text is null or status = %(status)s)"
        b" order by requested_at desc, run_id, key limit %(limit)s",
        {"run_id": run_id, "tool": tool, "status": status, "limit": limit, "project": project},
        _rows,
    )


def queue_stats(*, project: str | None = None) -> Statement[list[Row]]:
    """Return rows of view queue_stats."""
    return Statement(
        b"select * from pgflow.queue_stats"
        b" where project_id = (select pgflow.this_project(%(project)s)) order by queue",
        {"project": project},
        _rows,
    )


def subscriptions(*, project: str | None = None) -> Statement[list[Row]]:
    """Return rows of view subscriptions."""
    return Statement(
        b"select * from pgflow.subscriptions"
        b" where project_id = (select pgflow.this_project(%(project)s)) order by subscription",
        {"project": project},
        _rows,
    )


def worker_status(*, project: str | None = None) -> Statement[list[Row]]:
    """Return rows of view worker_status, the youngest first."""
    return Statement(
        b"select * from pgflow.worker_status"
        b" where project_id = (select pgflow.this_project(%(project)s)) order by started_at desc",
        {"project": project},
        _rows,
    )


def doctor(*, project: str | None = None) -> Statement[list[Row]]:
    """Return what is odd, as rows of level, check, detail and hint."""
    return Statement(b"select * from pgflow.doctor(%(project)s)", {"project": project}, _rows)


def inbox(
    *,
    role: str | None = None,
    assignee: str | None = None,
    run_id: RunId | None = None,
    task_id: RunId | None = None,
    limit: int = 50,
    project: str | None = None,
) -> Statement[list[Row]]:
    """Return rows of view inbox, the most urgent first."""
    return Statement(
        b"select * from pgflow.inbox where project = (select pgflow.this_project(%(project)s))"
        b" and (%(role)s::text is null or assignee_role = %(role)s)"
        b" and (%(assignee)s::text is null or assignee = %(assignee)s)"
        b" and (%(run_id)s::uuid is null or run_id = %(run_id)s::uuid)"
        b" and (%(task_id)s::uuid is null or task_id = %(task_id)s::uuid)"
        b" order by due_at nulls last, created_at limit %(limit)s",
        {
            "role": role,
            "assignee": assignee,
            "run_id": run_id,
            "task_id": task_id,
            "limit": limit,
            "project": project,
        },
        _rows,
    )


def task_history(
    *,
    task_id: RunId | None = None,
    run_id: RunId | None = None,
    limit: int = 50,
    project: str | None = None,
) -> Statement[list[Row]]:
    """Return rows of view task_history, the newest first."""
    return Statement(
        b"select * from pgflow.task_history"
        b" where project = (select pgflow.this_project(%(project)s))"
        b" and (%(task_id)s::uuid is null or task_id = %(task_id)s::uuid)"
        b" and (%(run_id)s::uuid is null or run_id = %(run_id)s::uuid)"
        b" order by coalesce(decided_at, voided_at, created_at) desc limit %(limit)s",
        {"task_id": task_id, "run_id": run_id, "limit": limit, "project": project},
        _rows,
    )
