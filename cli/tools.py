"""What comes from outside: signals, and the results of tools."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import click

from .control import print_state
from .options import Json, json_option, json_text, limit_option, run_argument
from .output import print_json, print_rows
from .session import Session, global_options, pass_session

_STATUSES: Final = ("open", "resolved", "failed", "timeout", "dropped")
_key_argument = click.argument("key")


@click.command()
@run_argument
@click.argument("name")
@click.argument("payload", type=json_text, required=False)
@click.option("--idempotency-key", metavar="KEY", help="The same key is the same signal.")
@json_option
@global_options
@pass_session
def signal(
    session: Session,
    run_id: UUID,
    name: str,
    payload: Json | None,
    idempotency_key: str | None,
    *,
    as_json: bool,
) -> None:
    """Send RUN a signal and print its number.

    PAYLOAD is JSON; - reads it from stdin.
    """
    with session.client() as client:
        number = client.signal(run_id, name, payload, idempotency_key=idempotency_key)
    if as_json:
        print_json({"run_id": run_id, "signal_no": number})
    else:
        click.echo(number)


@click.group()
def tool() -> None:
    """List tool calls, and say what came of them."""


@tool.command("list")
@click.option("--run", "run_id", type=click.UUID, metavar="RUN", help="Only those of this run.")
@click.option("--name", help="Only those of this tool.")
@click.option("--status", type=click.Choice(_STATUSES), help="Only those that are so.")
@limit_option
@json_option
@global_options
@pass_session
def list_(
    session: Session,
    run_id: UUID | None,
    name: str | None,
    status: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """List tool calls, the newest first."""
    with session.client() as client:
        rows = client.tool_calls(run_id=run_id, tool=name, status=status, limit=limit)
    columns = "run_id key tool status arguments requested_at answered_at latency_ms error"
    print_rows(rows, columns.split(), as_json=as_json)


@tool.command()
@run_argument
@_key_argument
@click.argument("result", type=json_text, required=False)
@json_option
@global_options
@pass_session
def resolve(
    session: Session, run_id: UUID, key: str, result: Json | None, *, as_json: bool
) -> None:
    """Give RUN the result of its tool call KEY and print its state.

    RESULT is JSON, null without one; - reads it from stdin.
    """
    with session.client() as client:
        state = client.resolve_tool(run_id, key, result)
    print_state(run_id, state, as_json=as_json)


@tool.command()
@run_argument
@_key_argument
@click.argument("error")
@json_option
@global_options
@pass_session
def fail(session: Session, run_id: UUID, key: str, error: str, *, as_json: bool) -> None:
    """Say that tool call KEY of RUN failed and print the run's state.

    It is requested again while the run has attempts left.
    """
    with session.client() as client:
        state = client.fail_tool(run_id, key, error)
    print_state(run_id, state, as_json=as_json)
