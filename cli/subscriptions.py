"""Who follows the events of all runs: read, list and end subscriptions."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict

import click

from . import logs
from .options import json_option
from .output import print_json, print_rows, shown
from .session import Session, global_options, pass_session
from .watch import cells

_name_argument = click.argument("name", metavar="NAME")


@click.group()
@global_options
def subscription() -> None:
    """Read the events of all runs, each once.

    A subscription goes on where it was left.
    """


@subscription.command()
@_name_argument
@click.option("--type", "types", multiple=True, help="Only this type; may be given several times.")
@click.option("--queue", help="Only of runs of this queue.")
@click.option("--correlation-id", help="Only of runs that have it.")
@json_option
@global_options
@pass_session
def read(
    session: Session,
    name: str,
    types: tuple[str, ...],
    queue: str | None,
    correlation_id: str | None,
    *,
    as_json: bool,
) -> None:
    """Print the events that NAME has not read yet, until Ctrl-C.

    It is made on first use. What was printed is acknowledged: the next reader goes on behind it.
    """
    logs.to_stderr()
    with session.waiting_client() as client:
        events = client.subscribe(name, types or None, queue=queue, correlation_id=correlation_id)
        with closing(events):
            for event in events:
                line = asdict(event)
                if as_json:
                    print_json(line)
                else:
                    click.echo(
                        "  ".join([shown("run_id", event.run_id), event.handler, *cells(line)])
                    )
                sys.stdout.flush()


@subscription.command("list")
@json_option
@global_options
@pass_session
def list_(session: Session, *, as_json: bool) -> None:
    """List the subscriptions and how far each is behind."""
    with session.client() as client:
        rows = client.subscriptions()
    columns = "subscription behind reader held_until acknowledged_at types queue correlation_id"
    print_rows(rows, columns.split(), as_json=as_json)


@subscription.command()
@_name_argument
@json_option
@global_options
@pass_session
def end(session: Session, name: str, *, as_json: bool) -> None:
    """End subscription NAME.

    Events are kept for as long as one has not read them.
    """
    with session.client() as client:
        was_there = client.unsubscribe(name)
    if as_json:
        print_json({"subscription": name, "was_there": was_there})
    else:
        click.echo("ended" if was_there else "was not there")
