"""Runs: start them, list them, look at one."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import click

from pgflow.errors import UnknownRun

from .options import json_option, json_text, limit_option, run_argument, seconds, timestamp
from .output import print_json, print_record, print_rows
from .session import Session, global_options, pass_session

STATES: Final = (
    "scheduled",
    "pending",
    "running",
    "waiting_tool",
    "waiting_approval",
    "waiting_event",
    "paused",
    "completed",
    "failed",
    "cancelled",
    "timeout",
)
_COLUMNS: Final = (
    "run_id",
    "state",
    "handler",
    "error_code",
    "created_at",
    "finished_at",
    "queue",
    "attempt_count",
)


@click.command()
@click.argument("handler")
@click.argument("input", type=json_text, required=False)
@click.option("--queue", help="Its queue; else the handler's.")
@click.option("--priority", type=int, default=0, help="-9 to 9; higher goes first.  [default: 0]")
@click.option(
    "--run-at",
    type=timestamp,
    metavar="TIME",
    help="Not before this time, such as 2026-07-01T09:00Z.",
)
@click.option("--max-attempts", type=int, help="Executions that may fail before the run does.")
@click.option("--timeout", type=seconds, metavar="SECONDS", help="Bounds one execution.")
@click.option(
    "--deadline", type=timestamp, metavar="TIME", help="Ends the run, whatever it does then."
)
@click.option(
    "--budget",
    type=json_text,
    metavar="JSON",
    help='Bounds what it and all below it spend, such as {"usd": 2.5}.',
)
@click.option("--idempotency-key", metavar="KEY", help="The same key returns the same run.")
@click.option("--correlation-id", metavar="ID", help="Ties the run to others.")
@click.option("--tag", "tags", multiple=True, help="A label; may be given several times.")
@json_option
@global_options
@pass_session
def enqueue(session: Session, /, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - the verb's
    """Start a run of HANDLER and print its id.

    INPUT is the handler's input as JSON, - reads it from stdin, and {} is the default.
    """
    given["tags"] = list(given["tags"]) or None
    with session.client() as client:
        run_id = client.enqueue(**given)
    if as_json:
        print_json({"run_id": run_id})
    else:
        click.echo(run_id)


@click.command()
@click.option("--state", type=click.Choice(STATES), help="Only runs in this state.")
@click.option("--queue", help="Only runs of this queue.")
@click.option("--handler", help="Only runs of this handler.")
@limit_option
@json_option
@global_options
@pass_session
def runs(
    session: Session,
    state: str | None,
    queue: str | None,
    handler: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """List runs, the newest first."""
    with session.client() as client:
        rows = client.runs(state=state, queue=queue, handler=handler, limit=limit)
    print_rows(rows, _COLUMNS, as_json=as_json)


@click.command()
@run_argument
@json_option
@global_options
@pass_session
def show(session: Session, run_id: UUID, *, as_json: bool) -> None:
    """Print what is known of a run, its budget, then its open tasks."""
    with session.client() as client:
        found = client.runs(run_id=run_id)
        budgets = client.budgets(run_id=run_id)
        tasks = client.inbox(run_id=run_id)
    if not found:
        raise _unknown(run_id)
    run = found[0]
    if as_json:
        print_json({**run, "budget": budgets[0] if budgets else None, "open_tasks": tasks})
        return
    error = run["last_error"]
    print_record({**run, "last_error": error and (error.get("traceback") or error["message"])})
    for budget in budgets:
        click.echo("\nbudget")
        print_record({k: v for k, v in budget.items() if k not in run})
    for task in tasks:
        click.echo(f"\nopen task {task['task_id']}")
        print_record({k: v for k, v in task.items() if k not in {"task_id", "project", "run_id"}})


@click.command()
@run_argument
@json_option
@global_options
@pass_session
def timeline(session: Session, run_id: UUID, *, as_json: bool) -> None:
    """Print all that happened to a run, in order."""
    with session.client() as client:
        rows = client.timeline(run_id)
    if not rows:
        raise _unknown(run_id)
    columns = ["event_no", "at", "type", "step", "payload", "worker_id", "by"]
    print_rows(rows, columns, as_json=as_json)


def _unknown(run_id: UUID) -> UnknownRun:
    return UnknownRun(f"unknown run: {run_id}", hint="pgflow runs lists them.")
