"""Flows: store their definitions, look at them, start them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click
import yaml

from pgflow import Client
from pgflow.definition import read_definition
from pgflow.errors import UnknownFlow, UnknownRun

from .graph import FORMATS, with_gates
from .options import json_option, json_text, run_argument, timestamp
from .output import print_json, print_rows, shown
from .session import Session, global_options, pass_session

_COLUMNS: Final = ("flow", "version", "is_current", "steps", "created_at", "created_by", "sha256")
_STEP_COLUMNS: Final = (
    "step",
    "state",
    "elements",
    "attempts",
    "started_at",
    "ended_at",
    "run_id",
    "needs",
    "error_code",
    "error_detail",
)
_HISTORY_COLUMNS: Final = ("number", "super_step", "label", "at", "steps", "changed", "values")
_file_argument = click.argument("file", type=click.Path(path_type=Path))
_flow_argument = click.argument("name", metavar="FLOW")
_version_option = click.option("--version", type=int, help="A version; else the current one.")


@click.group()
def flow() -> None:
    """Store flows, list them, draw them."""


@flow.command()
@_file_argument
@json_option
@global_options
@pass_session
def apply(session: Session, file: Path, *, as_json: bool) -> None:
    """Store the flow that FILE defines and print its version.

    FILE is YAML or JSON. One that was applied before is the version that it was.
    """
    definition = read_definition(file)
    with session.client() as client:
        stored = client.define_flow(definition)
    if as_json:
        print_json(stored)
    else:
        click.echo(f"{stored.flow} version {stored.version}")


@flow.command("list")
@json_option
@global_options
@pass_session
def list_(session: Session, *, as_json: bool) -> None:
    """List the flows with the version that new runs of them get."""
    with session.client() as client:
        rows = client.flows()
    print_rows(rows, _COLUMNS, as_json=as_json)


@flow.command()
@_flow_argument
@_version_option
@json_option
@global_options
@pass_session
def show(session: Session, name: str, version: int | None, *, as_json: bool) -> None:
    """Print the definition of FLOW as YAML."""
    with session.client() as client:
        row = _found(client, name, version)
    if as_json:
        print_json(row)
    else:
        click.echo(f"# version {row['version']}, sha256 {row['sha256']}")
        click.echo(_as_yaml(row["definition"]), nl=False)


@flow.command()
@_flow_argument
@_version_option
@click.option(
    "--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True
)
@global_options
@pass_session
def graph(session: Session, name: str, version: int | None, form: str) -> None:
    """Draw FLOW: as text, for Mermaid or for Graphviz.

    The gates of a step are drawn behind it. The graph of a run, with the steps that were added to
    it, is in its report.
    """
    with session.client() as client:
        row = _found(client, name, version)
    click.echo(FORMATS[form](with_gates(row["definition"])))


@flow.command()
@_flow_argument
@click.argument("old", type=int)
@click.argument("new", type=int, required=False)
@global_options
@pass_session
def diff(session: Session, name: str, old: int, new: int | None) -> None:
    """Print what changed in FLOW from version OLD to NEW.

    Without NEW, to the current version.
    """
    with session.client() as client:
        before, after = _found(client, name, old), _found(client, name, new)
    lines = difflib.unified_diff(
        _as_yaml(before["definition"]).splitlines(),
        _as_yaml(after["definition"]).splitlines(),
        f"{name} version {before['version']}",
        f"{name} version {after['version']}",
        lineterm="",
    )
    for line in lines:
        click.echo(shown("", line, multiline=True))


@flow.command()
@run_argument
@click.option("--elements", is_flag=True, help="List the elements of steps with each as well.")
@json_option
@global_options
@pass_session
def steps(session: Session, run_id: UUID, *, elements: bool, as_json: bool) -> None:
    """List the steps of RUN, which is the run of a flow.

    They come in the order of its definition.
    """
    with session.client() as client:
        rows = client.flow_steps(run_id, elements=elements)
    if not rows:
        raise UnknownRun(f"no run of a flow: {run_id}", hint="pgflow runs lists the runs.")
    fans_out = any(row["elements"] is not None for row in rows)
    columns = [name for name in _STEP_COLUMNS if fans_out or name != "elements"]
    print_rows(rows if as_json else [_with_elements(row) for row in rows], columns, as_json=as_json)


@flow.command("add-step")
@run_argument
@_file_argument
@click.option(
    "--needed-by", multiple=True, metavar="STEP", help="A step that is to need it; several times."
)
@json_option
@global_options
@pass_session
def add_step(
    session: Session, run_id: UUID, file: Path, *, needed_by: tuple[str, ...], as_json: bool
) -> None:
    """Add the step that FILE defines to RUN, which is the run of a flow.

    FILE is YAML or JSON, a step as in a flow. The same step again is harmless.
    """
    step = read_definition(file)
    with session.client() as client:
        added = client.add_step(run_id, step, needed_by=needed_by)
    if as_json:
        print_json({"run_id": run_id, "added": added})
    else:
        click.echo("added" if added else "was added before")


@flow.command()
@run_argument
@json_option
@global_options
@pass_session
def history(session: Session, run_id: UUID, *, as_json: bool) -> None:
    """List the checkpoints of RUN, which is the run of a flow.

    Each has the steps that ended in it, and the values of the flow's channels after it.
    """
    with session.client() as client:
        rows = client.history(run_id)
    print_rows(rows, _HISTORY_COLUMNS, as_json=as_json)


@click.command()
@_flow_argument
@click.argument("input", type=json_text, required=False)
@_version_option
@click.option("--priority", type=int, default=0, help="-9 to 9; higher goes first.  [default: 0]")
@click.option(
    "--deadline", type=timestamp, metavar="TIME", help="Ends the run, whatever it does then."
)
@click.option(
    "--budget",
    type=json_text,
    metavar="JSON",
    help='Bounds what all of it spends, such as {"usd": 2.5}.',
)
@click.option(
    "--bindings",
    type=json_text,
    metavar="JSON",
    help='Which agents its roles are bound to, such as {"coder": "careful"}.',
)
@click.option("--idempotency-key", metavar="KEY", help="The same key returns the same run.")
@click.option("--correlation-id", metavar="ID", help="Ties the run to others.")
@click.option("--tag", "tags", multiple=True, help="A label; may be given several times.")
@click.option("--before", multiple=True, metavar="STEP", help="Pause before it; several times.")
@click.option("--after", multiple=True, metavar="STEP", help="Pause after it; several times.")
@json_option
@global_options
@pass_session
def start(session: Session, /, name: str, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - the verb's
    """Start FLOW and print the id of its run.

    INPUT is JSON, - reads it from stdin, and {} is the default.
    """
    given["tags"] = list(given["tags"]) or None
    given["breakpoints"] = {when: list(given.pop(when)) for when in ("before", "after")}
    with session.client() as client:
        run_id = client.start(name, **given)
    if as_json:
        print_json({"run_id": run_id})
    else:
        click.echo(run_id)


def _found(client: Client, name: str, version: int | None) -> dict[str, Any]:
    rows = client.flows(flow=name, version=version)
    found = [row for row in rows if version is not None or row["is_current"]]
    if not found:
        which = name if version is None else f"{name}, version {version}"
        raise UnknownFlow(f"unknown flow: {which}", hint="pgflow flow list has the flows.")
    return found[0]


def _with_elements(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of flow_steps with how many elements are done; an element has its number."""
    done = None
    if row["elements"] is not None:
        done = f"{row['elements'] - row['elements_left']} of {row['elements']}"
    step = f"{row['step']}#{row['element']}" if row["element"] else row["step"]
    return {**row, "step": step, "elements": done}


def _as_yaml(definition: dict[str, Any]) -> str:
    """Return a definition with the members of each object in an order that people expect."""
    steps = [_ordered(step) for step in definition["steps"]]
    return yaml.safe_dump(
        _ordered({**definition, "steps": steps}), sort_keys=False, allow_unicode=True
    )


def _ordered(members: dict[str, Any]) -> dict[str, Any]:
    first = ("name", "description", "handler", "needs", "join")
    last = ("output", "steps")
    order = [*first, *sorted(members.keys() - {*first, *last}), *last]
    return {name: members[name] for name in order if name in members}
