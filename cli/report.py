"""The report of a run, for programs, for people, and as a page; and where a run stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click

from .options import run_argument
from .report_markdown import markdown
from .report_page import page
from .session import Session, global_options, pass_session


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


FORMATS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "md": markdown,
    "html": page,
    "json": _json,
}


@click.command()
@run_argument
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="md", show_default=True)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there; else it is printed.",
)
@global_options
@pass_session
def report(session: Session, run_id: UUID, form: str, file: Path | None) -> None:
    """Print what RUN, a flow or a handler's, did and cost.

    RUN may be live or finished. html is one page that needs nothing else.
    """
    with session.client() as client:
        text = FORMATS[form](client.report(run_id))
    if file is None:
        click.echo(text, nl=False)
    else:
        file.write_text(text, encoding="utf-8")


@click.command()
@run_argument
@global_options
@pass_session
def context(session: Session, run_id: UUID) -> None:
    """Print where RUN stands and how it came there, as JSON."""
    with session.client() as client:
        click.echo(_json(client.context(run_id)), nl=False)
