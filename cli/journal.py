"""What a run has learned, and what one does with it: stop before it, begin another run from it."""

from __future__ import annotations

from typing import Any, Final, Literal
from uuid import UUID

import click

from pgflow.errors import UnknownRun

from .options import Json, json_option, named_json, run_argument
from .output import print_json, print_rows, shown
from .session import Session, global_options, pass_session

_SHORT: Final = 60
_MOMENTS: Final[dict[bool, Literal["before", "after"]]] = {False: "before", True: "after"}
_step_argument = click.argument("step")
_after_option = click.option("--after", is_flag=True, help="After the step, not before it.")


@click.command()
@run_argument
@json_option
@global_options
@pass_session
def journal(session: Session, run_id: UUID, *, as_json: bool) -> None:
    """Print what a run has learned, in order.

    Entries that were voided are marked with the round in which they counted. --json has the values
    in full.
    """
    with session.client() as client:
        rows = client.journal_entries(run_id)
        if not rows and not client.runs(run_id=run_id):
            raise UnknownRun(f"unknown run: {run_id}", hint="pgflow runs lists them.")
    if not as_json:
        rows = [_shortened(row) for row in rows]
    print_rows(rows, ["event_no", "key", "kind", "voided", "value", "at"], as_json=as_json)


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    text = shown("payload", row["value"])
    short = text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"
    return {**row, "value": short, "voided": f"round {row['round']}" if row["voided"] else None}


@click.command()
@run_argument
@click.argument("step", required=False)
@click.option("--super-step", type=int, help="After which a flow is forked, in place of STEP.")
@click.option(
    "--set",
    "updates",
    type=named_json,
    multiple=True,
    metavar="KEY=JSON",
    help="Another value for an entry before it, or a channel; several times.",
)
@json_option
@global_options
@pass_session
def fork(
    session: Session,
    run_id: UUID,
    step: str | None,
    updates: tuple[tuple[str, Json], ...],
    super_step: int | None,
    *,
    as_json: bool,
) -> None:
    """Start a run from RUN's journal before STEP and print its id.

    STEP and KEY are keys of pgflow journal RUN. RUN may be finished. The run of a flow is forked
    after a super-step of pgflow flow history RUN, where KEY is a channel.
    """
    with session.client() as client:
        new = client.fork(run_id, step, dict(updates) or None, super_step=super_step)
    if as_json:
        print_json({"run_id": new, "forked_from": run_id})
    else:
        click.echo(new)


@click.group()
def breakpoint() -> None:  # noqa: A001 - the command's name
    """Have a run pause at a step."""


@breakpoint.command("set")
@run_argument
@_step_argument
@_after_option
@json_option
@global_options
@pass_session
def set_(session: Session, run_id: UUID, step: str, *, after: bool, as_json: bool) -> None:
    """Have RUN pause before STEP; prints its breakpoints."""
    with session.client() as client:
        left = client.set_breakpoint(run_id, step, _MOMENTS[after])
    _print_breakpoints(run_id, left, as_json=as_json)


@breakpoint.command()
@run_argument
@_step_argument
@_after_option
@json_option
@global_options
@pass_session
def clear(session: Session, run_id: UUID, step: str, *, after: bool, as_json: bool) -> None:
    """Take a breakpoint of RUN away; prints those that are left."""
    with session.client() as client:
        left = client.clear_breakpoint(run_id, step, _MOMENTS[after])
    _print_breakpoints(run_id, left, as_json=as_json)


def _print_breakpoints(run_id: UUID, breakpoints: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"run_id": run_id, "breakpoints": breakpoints})
    for name in () if as_json else breakpoints:
        click.echo(shown("", name))
