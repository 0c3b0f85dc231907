"""What runs leave behind, and the schemas that it is held to."""

from __future__ import annotations

import difflib
import json
from dataclasses import fields
from typing import Any, Final
from uuid import UUID

import click

from pgflow import ArtifactContent, Client
from pgflow.errors import UnknownArtifact, UnknownSchema

from .options import Json, json_option, json_text, run_argument
from .output import print_block, print_json, print_record, print_rows, shown
from .session import Session, global_options, pass_session

_COLUMNS: Final = (
    "run_id",
    "artifact_no",
    "step",
    "version",
    "kind",
    "name",
    "valid",
    "schema",
    "schema_version",
    "media_type",
    "size",
    "at",
    "sha256",
)
_APART: Final = frozenset({"is_json", "errors", "content"})
_SCHEMA_COLUMNS: Final = ("schema", "version", "is_current", "created_at", "created_by", "sha256")
_name_argument = click.argument("name")
_step_option = click.option("--step", help="A step, if RUN is the run of its flow.")
_no_option = click.option(
    "--no", "artifact_no", type=int, metavar="NUMBER", help="Its number; else the last written."
)
_version_option = click.option(
    "--version", type=int, metavar="ROUND", help="The round; else the last."
)


@click.group()
def artifact() -> None:
    """List what runs leave behind, read it, compare it.

    What went into a run and what came out of it are artifacts too: input and output.
    """


@artifact.command("list")
@run_argument
@click.option("--step", help="Only those of this step of a flow.")
@click.option("--name", help="Only those of this name.")
@click.option(
    "--kind",
    type=click.Choice(("input", "output", "document", "report")),
    help="Only those of this kind.",
)
@json_option
@global_options
@pass_session
def list_(
    session: Session,
    run_id: UUID,
    step: str | None,
    name: str | None,
    kind: str | None,
    *,
    as_json: bool,
) -> None:
    """List the artifacts of RUN, the oldest first.

    Of the run of a flow, those of all its steps as well.
    """
    with session.client() as client:
        rows = client.artifacts(run_id, step=step, name=name, kind=kind)
    print_rows(rows, _COLUMNS, as_json=as_json)


@artifact.command()
@run_argument
@_name_argument
@_step_option
@_version_option
@_no_option
@json_option
@global_options
@pass_session
def show(session: Session, /, run_id: UUID, name: str, *, as_json: bool, **which: Any) -> None:  # noqa: ANN401 - the verb's
    """Print artifact NAME of RUN: what is known of it, and its content."""
    with session.client() as client:
        found = client.artifact_content(run_id, name, **which)
    told = {f.name: getattr(found, f.name) for f in fields(found) if f.name not in _APART}
    text = _as_text(found)
    if as_json:
        content = None if isinstance(found.content, bytes) else found.content
        print_json({**told, "errors": found.errors, "content": content})
        return
    print_record(told)
    if found.errors:
        print_block("errors", "\n".join(f"{e['path']} {e['message']}" for e in found.errors))
    if text is not None:
        print_block("content", text)


@artifact.command()
@run_argument
@_name_argument
@_step_option
@_version_option
@_no_option
@click.option(
    "-o",
    "--output",
    type=click.File("wb"),
    default="-",
    help="The file to write; - is stdout.  [default: -]",
)
@global_options
@pass_session
def get(session: Session, /, run_id: UUID, name: str, output: Any, **which: Any) -> None:  # noqa: ANN401 - the verb's
    """Write the content of artifact NAME of RUN to a file."""
    with session.client() as client:
        found = client.artifact_content(run_id, name, **which)
    text = _as_text(found)
    output.write(found.content if text is None else text.encode())


@artifact.command()
@run_argument
@_name_argument
@click.argument("old", type=int, required=False)
@click.argument("new", type=int, required=False)
@_step_option
@global_options
@pass_session
def diff(
    session: Session, run_id: UUID, name: str, old: int | None, new: int | None, step: str | None
) -> None:
    """Print what changed in artifact NAME of RUN.

    OLD and NEW are numbers of artifacts of that name: without NEW it is the last that was written,
    without OLD the one before.
    """
    with session.client() as client:
        rows = client.artifacts(run_id, step=step, name=name)
        new_place = _place(rows, name, new, len(rows) - 1)
        old_place = _place(rows, name, old, new_place - 1)
        before, after = rows[old_place], rows[new_place]
        contents = [_content(client, row) for row in (before, after)]
    if None in contents:
        same = before["sha256"] == after["sha256"]
        click.echo(f"bytes, which are {'the same' if same else 'not the same'}")
        return
    lines = difflib.unified_diff(
        (contents[0] or "").splitlines(),
        (contents[1] or "").splitlines(),
        f"{name} {before['artifact_no']} of version {before['version']}",
        f"{name} {after['artifact_no']} of version {after['version']}",
        lineterm="",
    )
    for line in lines:
        click.echo(shown("", line, multiline=True))


@click.group()
def schema() -> None:
    """Store and show the schemas of artifacts."""


@schema.command()
@_name_argument
@click.argument("definition", type=json_text, metavar="SCHEMA")
@json_option
@global_options
@pass_session
def define(session: Session, name: str, definition: Json, *, as_json: bool) -> None:
    """Store SCHEMA under NAME and print its version.

    SCHEMA is a JSON Schema of draft 2020-12; - reads it from stdin. One that was stored before is
    the version that it was.
    """
    if not isinstance(definition.root, dict):
        raise click.BadParameter("a schema is an object", param_hint="SCHEMA")
    with session.client() as client:
        stored = client.define_schema(name, definition.root)
    if as_json:
        print_json(stored)
    else:
        click.echo(f"{stored.schema} version {stored.version}")


@schema.command("list")
@json_option
@global_options
@pass_session
def list_schemas(session: Session, *, as_json: bool) -> None:
    """List the schemas with the version that was defined last."""
    with session.client() as client:
        rows = client.schemas()
    print_rows(rows, _SCHEMA_COLUMNS, as_json=as_json)


@schema.command("show")
@_name_argument
@click.option("--version", type=int, help="A version; else the current one.")
@json_option
@global_options
@pass_session
def show_schema(session: Session, name: str, version: int | None, *, as_json: bool) -> None:
    """Print schema NAME."""
    with session.client() as client:
        rows = client.schemas(schema=name, version=version)
    found = [row for row in rows if version is not None or row["is_current"]]
    if not found:
        which = name if version is None else f"{name}, version {version}"
        raise UnknownSchema(f"unknown schema: {which}", hint="pgflow schema list has the schemas.")
    if as_json:
        print_json(found[0])
    else:
        click.echo(shown("", _pretty(found[0]["definition"]), multiline=True))


def _place(rows: list[dict[str, Any]], name: str, no: int | None, default: int) -> int:
    """Return where in the list the artifact of that number is, without a number the default."""
    places = [default]
    if no is not None:
        places = [place for place, row in enumerate(rows) if row["artifact_no"] == no]
    if len(places) > 1:
        runs = ", ".join(str(rows[place]["run_id"]) for place in places)
        raise click.UsageError(f"several runs have an artifact {no}: give one of them: {runs}")
    if not places or not 0 <= places[0] < len(rows):
        numbers = ", ".join(str(row["artifact_no"]) for row in rows) or "none"
        raise UnknownArtifact(
            f"no artifact {name} to compare" + f": {no}" * (no is not None),
            detail=f"numbers of that name: {numbers}",
            hint="pgflow artifact list RUN has the numbers.",
        )
    return places[0]


def _content(client: Client, row: dict[str, Any]) -> str | None:
    return _as_text(
        client.artifact_content(row["run_id"], row["name"], artifact_no=row["artifact_no"])
    )


def _as_text(found: ArtifactContent) -> str | None:
    """Return a content as text, JSON over several lines; None if it is bytes."""
    if isinstance(found.content, bytes):
        return None
    return _pretty(found.content) + "\n" if found.is_json else str(found.content)


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
