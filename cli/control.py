"""Steering runs and queues."""

from __future__ import annotations

from uuid import UUID

import click

from .options import Json, json_option, json_text, named_json, run_argument
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
        print_state(run_id, client.cancel(run_id, reason), as_json=as_json)


@click.command()
@run_argument
@json_option
@global_options
@pass_session
def retry(session: Session, run_id: UUID, *, as_json: bool) -> None:
    """Do a finished RUN's work again and print the new run's id."""
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
@click.option(
    "--hold-deadlines",
    is_flag=True,
    help="Its deadlines stand still for as long as it is paused; else they run on.",
)
@json_option
@global_options
@pass_session
def pause(
    session: Session,
    run_id: UUID | None,
    queue: str | None,
    reason: str | None,
    *,
    hold_deadlines: bool,
    as_json: bool,
) -> None:
    """Pause RUN, or let a queue's runs wait, and print the state."""
    with session.client() as client:
        if queue is None and run_id is not None:
            state = client.pause(run_id, reason, hold_deadlines=hold_deadlines)
            print_state(run_id, state, as_json=as_json)
        elif queue is not None and run_id is None and reason is None and not hold_deadlines:
            since = client.pause_queue(queue)
            if as_json:
                print_json({"queue": queue, "paused_at": since})
            else:
                click.echo(f"paused since {shown('paused_at', since)}")
        else:
            raise click.UsageError(
                "give a RUN, with or without --reason and --hold-deadlines, or --queue alone"
            )


@click.command()
@_run_argument
@_queue_option
@click.option("--value", type=json_text, metavar="JSON", help="What the interrupted call returns.")
@click.option("--key", help="Which call, where several are interrupted.")
@click.option(
    "--update",
    "updates",
    type=named_json,
    multiple=True,
    metavar="KEY=JSON",
    help="Another value for an entry of its journal first; several times.",
)
@click.option("--goto", metavar="STEP", help="The step with which a flow goes on.")
@json_option
@global_options
@pass_session
def resume(
    session: Session,
    run_id: UUID | None,
    queue: str | None,
    value: Json | None,
    key: str | None,
    updates: tuple[tuple[str, Json], ...],
    goto: str | None,
    *,
    as_json: bool,
) -> None:
    """Let a paused RUN or queue go on and print the state."""
    command = _command(value, key, updates, goto)
    with session.client() as client:
        if queue is None and run_id is not None:
            print_state(run_id, client.resume(run_id, command), as_json=as_json)
        elif queue is not None and run_id is None and command is None:
            was_paused = client.resume_queue(queue)
            if as_json:
                print_json({"queue": queue, "was_paused": was_paused})
            else:
                click.echo("resumed" if was_paused else "was not paused")
        else:
            raise click.UsageError("give either a RUN or --queue")


def _command(
    value: Json | None, key: str | None, updates: tuple[tuple[str, Json], ...], goto: str | None
) -> dict[str, object] | None:
    if [value is not None, bool(updates), goto is not None].count(True) > 1:
        raise click.UsageError("give one of --value, --update and --goto")
    if key is not None and value is None:
        raise click.UsageError("--key says where --value goes; give both")
    if updates:
        return {"update": dict(updates)}
    if goto is not None:
        return {"goto": goto}
    if value is None:
        return None
    return {"resume": value} if key is None else {"resume": value, "key": key}


def print_state(run_id: UUID, state: str, *, as_json: bool) -> None:
    """Print the state that a run is in."""
    if as_json:
        print_json({"run_id": run_id, "state": state})
    else:
        click.echo(state)
