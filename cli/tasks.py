"""Tasks: the inbox, one of them with its history, and who works on it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import click

from . import forms, logs
from .decide import answer, find_task
from .options import as_user_option, json_option, limit_option, task_argument
from .output import print_block, print_json, print_record, print_rows, shown
from .session import Session, global_options, pass_session

# What an event about a task says beside who and when.
_TOLD: Final = ("action", "from", "to", "reason", "rollback_to", "policy", "comment")


@click.command()
@click.option("--role", help="Only tasks for this role.")
@click.option("--assignee", help="Only tasks for this person.")
@click.option("--run", "run_id", type=click.UUID, metavar="RUN", help="Only tasks of this run.")
@click.option("--watch", is_flag=True, help="Go on with new tasks as they come, until Ctrl-C.")
@limit_option
@json_option
@global_options
@pass_session
def inbox(
    session: Session,
    role: str | None,
    assignee: str | None,
    run_id: UUID | None,
    limit: int,
    *,
    watch: bool,
    as_json: bool,
) -> None:
    """List the open tasks, the most urgent first."""
    if watch:
        if run_id is not None:
            raise click.UsageError("--watch is for all runs: leave out --run")
        _watch(session, role, assignee, as_json=as_json)
        return
    with session.client() as client:
        rows = client.inbox(role=role, assignee=assignee, run_id=run_id, limit=limit)
    columns = (
        "task_id title kind due_at run_id assignee assignee_role claimed_by votes quorum created_at"
    )
    print_rows(rows, columns.split(), as_json=as_json)


def _watch(session: Session, role: str | None, assignee: str | None, *, as_json: bool) -> None:
    logs.to_stderr()
    with session.waiting_client() as client:
        for row in client.stream_inbox(role=role, assignee=assignee):
            if as_json:
                print_json(row)
            else:
                names = ("task_id", "kind", "due_at", "title")
                click.echo("  ".join(shown(name, row[name]) for name in names))
            sys.stdout.flush()


@click.group()
def task() -> None:
    """Look at a task, answer it, say who works on it."""


@click.command()
@task_argument
@json_option
@global_options
@pass_session
def show(session: Session, task_id: UUID, *, as_json: bool) -> None:
    """Print what TASK asks, who may decide it, and what happened to it.

    Decided ones too.
    """
    with session.client() as client:
        found = find_task(client, task_id)
        lines = [
            line
            for line in client.timeline(found["run_id"])
            if (line["payload"] or {}).get("task_id") == str(task_id)
        ]
        now = client.now()
    if as_json:
        print_json({**found, "history": lines})
        return
    print_record(_summary(found, now))
    if found["payload"] is not None:
        print_block("payload", found["payload"])
    if found["form_schema"] is not None:
        click.echo("\nform")
        print_rows(_described(found["form_schema"]), _FORM, as_json=False)
    if found.get("data") is not None:
        print_block("data", found["data"])
    click.echo("\nhistory")
    print_rows([_told(line) for line in lines], ["at", "type", "by", "what"], as_json=False)


@click.command()
@task_argument
@as_user_option
@json_option
@global_options
@pass_session
def claim(session: Session, task_id: UUID, as_user: str | None, *, as_json: bool) -> None:
    """Take TASK for yourself: others wait."""
    with session.client() as client:
        who = client.claim_task(task_id, as_user=as_user)
    _print_said(f"claimed by {who}", as_json=as_json, task_id=task_id, claimed_by=who)


@click.command()
@task_argument
@as_user_option
@json_option
@global_options
@pass_session
def release(session: Session, task_id: UUID, as_user: str | None, *, as_json: bool) -> None:
    """Give back TASK, which you have claimed."""
    with session.client() as client:
        was_claimed = client.release_task(task_id, as_user=as_user)
    said = "released" if was_claimed else "was not claimed"
    _print_said(said, as_json=as_json, task_id=task_id, was_claimed=was_claimed)


@click.command()
@task_argument
@click.argument("assignee")
@click.argument("comment", required=False)
@as_user_option
@json_option
@global_options
@pass_session
def delegate(
    session: Session,
    task_id: UUID,
    assignee: str,
    comment: str | None,
    as_user: str | None,
    *,
    as_json: bool,
) -> None:
    """Hand TASK to ASSIGNEE."""
    with session.client() as client:
        who = client.delegate(task_id, assignee, comment, as_user=as_user)
    _print_said(f"delegated to {who}", as_json=as_json, task_id=task_id, assignee=who)


@click.command()
@task_argument
@click.argument("text", metavar="COMMENT")
@as_user_option
@json_option
@global_options
@pass_session
def comment(
    session: Session, task_id: UUID, text: str, as_user: str | None, *, as_json: bool
) -> None:
    """Say something about TASK; it stands in its history."""
    with session.client() as client:
        client.comment_task(task_id, text, as_user=as_user)
    _print_said("noted", as_json=as_json, task_id=task_id, comment=text)


for command in (show, answer, claim, release, delegate, comment):
    task.add_command(command)

_FORM: Final = ("field", "type", "required", "default", "title", "description")


def _summary(found: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    due = found["due_at"]
    return {
        "title": found["title"],
        "task_id": found["task_id"],
        "run_id": found["run_id"],
        "handler": found.get("handler"),
        "step": found["step"],
        "kind": found["kind"],
        "state": found["state"],
        "requested_by": found["requested_by"],
        "created_at": found["created_at"],
        "may decide": _who(found) if found["state"] == "open" else None,
        "claimed_by": found["claimed_by"],
        "votes": _votes(found),
        "due_at": due,
        "due in": _span(due, now, found["policy"]) if found["state"] == "open" else None,
        "replaces": found["replaces"],
        "decided_by": found.get("decided_by"),
        "decided_at": found.get("decided_at"),
        "comment": found.get("comment"),
        "voided_at": found.get("voided_at"),
    }


def _who(found: Mapping[str, Any]) -> str:
    names = [found["assignee"]] if found["assignee"] else []
    if found["assignee_role"]:
        names.append(f"whoever has the role {found['assignee_role']}")
    who = " or ".join(names) or "whoever has the role pgflow_approver"
    return f"{who}, but not {found['requested_by']}" if found["not_requester"] else who


def _votes(found: Mapping[str, Any]) -> str | None:
    if found["quorum"] == 1:
        return None
    cast = found["votes"] if isinstance(found["votes"], int) else len(found["votes"] or ())
    asked = f", {found['quorum_of']} are asked" if found["quorum_of"] else ""
    return f"{cast}; {found['quorum']} have to approve{asked}"


def _span(due: datetime | None, now: datetime, policy: str) -> str | None:
    if due is None:
        return None
    if due <= now:
        return "the time is up"
    return f"{str(due - now).partition('.')[0]}, then {policy}"


def _described(form: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "field": field.name or "(the answer)",
            "type": field.kind,
            "required": field.required,
            "default": field.schema.get("default"),
            "title": field.schema.get("title"),
            "description": field.schema.get("description"),
        }
        for field in forms.fields(form)
    ]


def _told(line: Mapping[str, Any]) -> dict[str, Any]:
    payload = line["payload"]
    what = "; ".join(f"{n}: {shown('', payload[n])}" for n in _TOLD if payload.get(n) is not None)
    return {**line, "by": payload.get("by") or line["by"], "what": what or None}


def _print_said(words: str, *, as_json: bool, **told: object) -> None:
    if as_json:
        print_json(told)
    else:
        click.echo(words)
