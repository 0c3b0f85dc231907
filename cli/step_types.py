"""Step types: list them, register them, take them away."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from .options import Json, json_option, json_text, seconds
from .output import print_json, print_rows
from .session import Session, global_options, pass_session

_COLUMNS = (
    "name interactive kind handler default_due default_policy default_config is_built_in"
    " description"
)
_name_argument = click.argument("name", metavar="TYPE")


@click.group("step-type")
def step_type() -> None:
    """Say what steps of a type have in common."""


@step_type.command("list")
@json_option
@global_options
@pass_session
def list_(session: Session, *, as_json: bool) -> None:
    """List the step types, the engine's own first."""
    with session.client() as client:
        rows = client.step_types()
    print_rows(rows, _COLUMNS.split(), as_json=as_json)


@step_type.command()
@_name_argument
@click.option("--handler", help="Who executes its steps.  [default: TYPE]")
@click.option("--interactive", is_flag=True, help="A person does its steps.")
@click.option(
    "--kind",
    type=click.Choice(["approval_gate", "human_task"]),
    help="What the person is asked.  [default: human_task with a form, else approval_gate]",
)
@click.option("--form", "form", type=json_text, metavar="JSON", help="A schema for the answer.")
@click.option(
    "--due", "default_due", type=seconds, metavar="SECONDS", help="How long a task may take."
)
@click.option("--policy", "default_policy", help="What happens then; table task_policy has them.")
@click.option("--config", "config", type=json_text, metavar="JSON", help="Where steps say nothing.")
@click.option("--description", help="For people.")
@json_option
@global_options
@pass_session
def register(
    session: Session,
    /,
    name: str,
    *,
    form: Json | None,
    config: Json | None,
    default_due: timedelta | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - the verb's
) -> None:
    """Register TYPE; flows that are defined from now on get it.

    JSON may be - for stdin.
    """
    with session.client() as client:
        stored = client.register_step_type(
            name,
            form_schema=None if form is None else form.root,
            default_config=None if config is None else config.root,
            default_due=default_due,
            **given,
        )
    if as_json:
        print_json(stored)
    else:
        click.echo(f"registered {stored.name}: {stored.kind or f'handler {stored.handler}'}")


@step_type.command()
@_name_argument
@json_option
@global_options
@pass_session
def unregister(session: Session, name: str, *, as_json: bool) -> None:
    """Take TYPE away, if no flow needs it."""
    with session.client() as client:
        was_there = client.unregister_step_type(name)
    if as_json:
        print_json({"name": name, "was_registered": was_there})
    else:
        click.echo("unregistered" if was_there else "was not registered")
