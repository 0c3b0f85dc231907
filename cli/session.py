"""What the global options say: which database, which project."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgflow import Client
from pgflow.embedded import EmbeddedServer, resolve_dsn

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULTS: dict[str, str | int] = {"connect_timeout": 5, "application_name": "pgflow"}


@dataclass
class Session:
    """The global options; None is not given."""

    dsn: str | None = None
    project: str | None = None
    debug: bool = False

    def target(self) -> str:
        """Return the database to work on: --dsn, else $PGFLOW_DSN, else the embedded server."""
        given = self.dsn or os.environ.get("PGFLOW_DSN")
        if not given and not EmbeddedServer().is_running():
            click.echo("note: starting the embedded server; pgflow dev leaves it running", err=True)
        return completed(resolve_dsn(given))

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Yield a client on one connection, which costs less than a pool and fails at once."""
        with psycopg.connect(self.target(), autocommit=True, prepare_threshold=None) as conn:
            yield Client(conn, project=self.project or os.environ.get("PGFLOW_PROJECT"))

    @contextmanager
    def waiting_client(self) -> Iterator[Client]:
        """Yield a client that waits by hints and replaces connections that are cut."""
        project = self.project or os.environ.get("PGFLOW_PROJECT")
        with Client(self.target(), project=project) as client:
            yield client


def completed(dsn: str) -> str:
    """Return a DSN with what the command adds: a name, and an end to the wait for an answer."""
    try:
        return make_conninfo("", **_DEFAULTS | conninfo_to_dict(dsn))
    except psycopg.ProgrammingError as error:
        told = re.sub(r":[^:@/\s]*@", ":***@", " ".join(str(error).split()))
        raise click.BadParameter(told, param_hint="--dsn") from None


pass_session = click.make_pass_decorator(Session, ensure=True)


def global_options(function: F) -> F:
    """Add --dsn, --project and --debug, which may stand before a command's name or after it."""
    for name, words in (
        ("--debug", {"is_flag": True, "help": "Show the traceback of an error."}),
        ("--project", {"help": "The project to work in.  [env: PGFLOW_PROJECT]"}),
        ("--dsn", {"help": "The database: a libpq URL or string.  [env: PGFLOW_DSN]"}),
    ):
        function = click.option(name, expose_value=False, callback=_remember, **words)(function)
    return function


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    session = ctx.ensure_object(Session)
    if value and param.name:
        setattr(session, param.name, value)
