"""Tasks: what waits for a person, and the person's decision."""

from __future__ import annotations

from uuid import UUID

import click

from pgflow.models import Decision

from .options import Json, json_option, json_text, limit_option, task_argument
from .output import print_json, print_rows, shown
from .session import Session, global_options, pass_session


@click.command()
@click.option("--role", help="Only tasks for this role.")
@click.option("--assignee", help="Only tasks for this person.")
@limit_option
@json_option
@global_options
@pass_session
def inbox(
    session: Session, role: str | None, assignee: str | None, limit: int, *, as_json: bool
) -> None:
    """List the open tasks, the most urgent first."""
    with session.client() as client:
        rows = client.inbox(role=role, assignee=assignee, limit=limit)
    columns = ["task_id", "title", "due_at", "run_id", "assignee", "assignee_role", "created_at"]
    print_rows(rows, columns, as_json=as_json)


@click.command()
@task_argument
@click.argument("comment", required=False)
@click.option(
    "--data", type=json_text, metavar="JSON", help="A JSON value for the handler; - reads stdin."
)
@json_option
@global_options
@pass_session
def approve(
    session: Session,
    task_id: UUID,
    comment: str | None,
    data: Json | None,
    *,
    as_json: bool,
) -> None:
    """Approve TASK; its run goes on."""
    with session.client() as client:
        _print_decision(client.approve(task_id, comment, data), as_json=as_json)


@click.command()
@task_argument
@click.argument("comment", required=False)
@json_option
@global_options
@pass_session
def reject(session: Session, task_id: UUID, comment: str | None, *, as_json: bool) -> None:
    """Reject TASK; its run ends or its handler is told."""
    with session.client() as client:
        _print_decision(client.reject(task_id, comment), as_json=as_json)


def _print_decision(decision: Decision, *, as_json: bool) -> None:
    if as_json:
        print_json(decision)
        return
    before = " before" if decision.repeated else ""
    when = shown("decided_at", decision.decided_at)
    click.echo(f"{decision.action}{before} by {decision.decided_by} at {when}")
    click.echo(f"run {decision.run_id}")
