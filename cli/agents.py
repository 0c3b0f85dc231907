"""Agents, which the roles of flows' steps are bound to: define one, list them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from .options import json_option, json_text
from .output import print_json, print_rows
from .session import Session, global_options, pass_session

_COLUMNS = ("agent", "version", "is_current", "model", "backend", "sha256", "created_by")


@click.group()
@global_options
def agent() -> None:
    """Define what the roles of steps are bound to, or list it."""


@agent.command("define")
@click.argument("name")
@click.argument("model")
@click.option("--backend", help="What serves the model.")
@click.option("--config", type=json_text, metavar="JSON", help="Anything for the handlers.")
@json_option
@global_options
@pass_session
def define(session: Session, /, name: str, model: str, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - the verb's
    """Store agent NAME, which calls MODEL.

    New content is a new version; runs that start get it, others keep theirs.
    """
    with session.client() as client:
        version = client.define_agent(name, model, **given)
    if as_json:
        print_json(asdict(version))
    else:
        click.echo(f"{version.agent} version {version.version}")


@agent.command("list")
@click.argument("name", required=False)
@json_option
@global_options
@pass_session
def list_(session: Session, name: str | None, *, as_json: bool) -> None:
    """List the agents, or all versions of NAME."""
    with session.client() as client:
        rows = client.agents(agent=name)
    print_rows(rows, _COLUMNS, as_json=as_json)
