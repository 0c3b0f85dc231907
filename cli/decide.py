"""What people decide: approve, reject, abort, answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import click

from pgflow import Client
from pgflow.errors import DecisionConflict, UnknownTask
from pgflow.models import Decision

from . import forms
from .options import Json, as_user_option, data_option, json_option, set_option, task_argument
from .output import print_json, shown
from .session import Session, global_options, pass_session

Pairs = tuple[tuple[str, str], ...]
Send = Callable[[object], Decision]


@click.command()
@task_argument
@click.argument("comment", required=False)
@data_option
@set_option
@as_user_option
@json_option
@global_options
@pass_session
def approve(
    session: Session,
    task_id: UUID,
    comment: str | None,
    data: Json | None,
    pairs: Pairs,
    as_user: str | None,
    *,
    as_json: bool,
) -> None:
    """Approve TASK, or vote for it; its run goes on.

    If it has a form, a terminal is asked for its fields.
    """
    with session.client() as client:

        def send(value: object) -> Decision:
            return client.approve(task_id, comment, value, as_user=as_user)

        asks = data is None and forms.is_terminal()
        task = find_task(client, task_id) if asks or pairs else {}
        if pairs or (asks and task["form_schema"] and task["state"] == "open"):
            decision = _filled(task, data, pairs, send)
        else:
            decision = send(data)
    _print_decision(decision, as_json=as_json)


@click.command()
@task_argument
@click.argument("comment", required=False)
@click.option(
    "--rollback-to", metavar="KEY", help="Have the run do this, and all after it, again instead."
)
@as_user_option
@json_option
@global_options
@pass_session
def reject(
    session: Session,
    task_id: UUID,
    comment: str | None,
    rollback_to: str | None,
    as_user: str | None,
    *,
    as_json: bool,
) -> None:
    """Reject TASK; its run ends, is told, or goes back.

    KEY is one of pgflow journal RUN.
    """
    with session.client() as client:
        decision = client.reject(task_id, comment, rollback_to=rollback_to, as_user=as_user)
    _print_decision(decision, as_json=as_json)


@click.command()
@task_argument
@click.argument("comment", required=False)
@as_user_option
@json_option
@global_options
@pass_session
def abort(
    session: Session, task_id: UUID, comment: str | None, as_user: str | None, *, as_json: bool
) -> None:
    """End the flow that TASK is asked for, or the run that asked.

    It is cancelled, whatever a rejection would do.
    """
    with session.client() as client:
        decision = client.abort(task_id, comment, as_user=as_user)
    _print_decision(decision, as_json=as_json)


@click.command()
@task_argument
@click.option("--comment", help="Words beside the data.")
@data_option
@set_option
@as_user_option
@json_option
@global_options
@pass_session
def answer(
    session: Session,
    task_id: UUID,
    comment: str | None,
    data: Json | None,
    pairs: Pairs,
    as_user: str | None,
    *,
    as_json: bool,
) -> None:
    """Answer TASK, a form, an input or an interrupt.

    A terminal is asked for the fields that --data and --set leave out. An empty line is the
    default, or leaves the field out; lists and objects are written as JSON.
    """
    with session.client() as client:

        def send(value: object) -> Decision:
            return client.answer(task_id, value, comment, as_user=as_user)

        task = find_task(client, task_id) if data is None or pairs else {}
        if not pairs and (data is not None or task["kind"] in {"approval", "breakpoint"}):
            decision = send(data)
        else:
            decision = _filled(task, data, pairs, send)
    _print_decision(decision, as_json=as_json)


def find_task(client: Client, task_id: UUID) -> Mapping[str, Any]:
    """Return a task as the view has it that it is in. Raises UnknownTask."""
    for task in (*client.inbox(task_id=task_id), *client.task_history(task_id=task_id)):
        return task
    raise UnknownTask(f"unknown task: {task_id}", hint="pgflow inbox lists the open tasks.")


def _filled(task: Mapping[str, Any], data: Json | None, pairs: Pairs, send: Send) -> Decision:
    """Send what was given and what a terminal is asked for."""
    form = task["form_schema"]
    given = {} if data is None else data.root
    if not isinstance(given, dict):
        raise click.BadParameter("--set is for data that is an object", param_hint="--data")
    given |= forms.read_pairs(form, dict(pairs))
    if data is None and forms.is_terminal():
        if task["state"] != "open":
            raise DecisionConflict(
                f"task {task['task_id']} is {task['state']}",
                hint=f"pgflow task show {task['task_id']}",
            )
        return forms.ask(form, given, send)
    if not given:
        raise click.UsageError(
            "there is no terminal to ask: give --data JSON, --data - or --set NAME=VALUE"
        )
    return send(given)


def _print_decision(decision: Decision, *, as_json: bool) -> None:
    if as_json:
        print_json(decision)
        return
    if decision.action == "open":
        click.echo("voted before" * decision.repeated or "voted; more votes are needed")
    else:
        before = " before" if decision.repeated else ""
        when = shown("decided_at", decision.decided_at)
        click.echo(f"{decision.action}{before} by {decision.decided_by} at {when}")
    click.echo(f"run {decision.run_id}")
