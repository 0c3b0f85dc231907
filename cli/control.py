"""Steering runs and queues."""

from __future__ import annotations

from uuid import UUID

import click

from .options import json_option, run_argument
from .output import print_json, shown
from .session import Session, global_options, pass_session

_reason_option = click.option("--reason", help="Why, for its timeline.")
_run_argument = click.argument("run_id", metavar="[RUN]", type=click.UUID, required=False)
_queue_option = click.option("--queue", help="A queue instead of a run.")


@click.command()
@run_argument
@_reason_option
@json_option
@global_options
@pass_session
def cancel(session: Session, run_id: UUID, reason: str | None, *, as_json: bool) -> None:
    """End RUN as cancelled and print its state.

    A finished run stays what it is.
    """
    with session.client() as client:
        _print_state(run_id, client.cancel(run_id, reason), as_json=as_json)


@click.command()
@run_argument
@json_option
@global_options
@pass_session
def retry(session: Session, run_id: UUID, *, as_json: bool) -> None:
    """Do the work of a finished RUN again and print the new run's id."""
    with session.client() as client:
        new = client.retry(run_id)
    if as_json:
        print_json({"run_id": new, "retry_of": run_id})
    else:
        click.echo(new)


@click.command()
@_run_argument
@_queue_option
@_reason_option
@json_option
@global_options
@pass_session
def pause(
    session: Session, run_id: UUID | None, queue: str | None, reason: str | None, *, as_json: bool
) -> None:
    """Pause RUN, or let a queue's runs wait, and print the state."""
    with session.client() as client:
        if queue is None and run_id is not None:
            _print_state(run_id, client.pause(run_id, reason), as_json=as_json)
        elif queue is not None and run_id is None and reason is None:
            since = client.pause_queue(queue)
            if as_json:
                print_json({"queue": queue, "paused_at": since})
            else:
                click.echo(f"paused since {shown('paused_at', since)}")
        else:
            raise click.UsageError("give a RUN, with or without --reason, or --queue alone")


@click.command()
@_run_argument
@_queue_option
@json_option
@global_options
@pass_session
def resume(session: Session, run_id: UUID | None, queue: str | None, *, as_json: bool) -> None:
    """Let a paused RUN, or a paused queue, go on and print the state."""
    with session.client() as client:
        if queue is None and run_id is not None:
            _print_state(run_id, client.resume(run_id), as_json=as_json)
        elif queue is not None and run_id is None:
            was_paused = client.resume_queue(queue)
            if as_json:
                print_json({"queue": queue, "was_paused": was_paused})
            else:
                click.echo("resumed" if was_paused else "was not paused")
        else:
            raise click.UsageError("give either a RUN or --queue")


def _print_state(run_id: UUID, state: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"run_id": run_id, "state": state})
    else:
        click.echo(state)
