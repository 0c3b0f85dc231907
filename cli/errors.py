"""What a command that could not do its work says, and its exit code."""

from __future__ import annotations

import os
from typing import IO, Any, Final, TextIO

import click
import psycopg

from pgflow.database import refusal
from pgflow.errors import (
    AppNotFound,
    DataDirectoryUnusable,
    EmbeddedNotInstalled,
    MoveRefused,
    PgflowError,
    Refusal,
    ServerNotRunning,
    ServerStartFailed,
    ServerUnreachable,
)

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
DOCTOR: Final = 4
INTERRUPTED: Final = 130
READER_GONE: Final = 141

_NO_SERVER = (
    ServerUnreachable,
    EmbeddedNotInstalled,
    DataDirectoryUnusable,
    ServerNotRunning,
    ServerStartFailed,
)
# SQLSTATEs, or classes of them, with which the server says that it is not there for us.
_NO_ANSWER = ("08", "57P01", "57P02", "57P03")
_HINTS = {
    "3F000": "This database has no pgflow, or an old one. Run: pgflow migrate",
    "42P01": "This database has no pgflow, or an old one. Run: pgflow migrate",
    "42883": "This database has no pgflow, or an old one. Run: pgflow migrate",
    "42501": "The login lacks a role: pgflow_reader, pgflow_client, pgflow_approver, "
    "pgflow_worker or pgflow_admin.",
}


class Failed(click.ClickException):
    """Ends a command: lines on stderr and an exit code."""

    def __init__(
        self, message: str, code: int = FAILED, *, detail: str = "", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc] # click has one for each class
        self.detail = detail
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the lines error, detail and hint."""
        lines = {"error": self.message, "detail": self.detail, "hint": self.hint}
        for word, text in lines.items():
            if text:
                click.echo(f"{word}: {' '.join(text.split())}", file=file, err=file is None)


def discard(stream: TextIO) -> None:
    """Let go what a stream has left and what comes: the interpreter flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def explain(error: Exception) -> Failed:
    """Return what to say about an error of click, pgflow, psycopg, or one that is our own fault."""
    if isinstance(error, click.ClickException):
        return _of_usage(error)
    if isinstance(error, psycopg.Error):
        refused = refusal(error)
        return _of_postgres(error) if refused is None else explain(refused)
    if isinstance(error, Refusal):
        # The detail of a refused move is json, for programs; its message says the same.
        detail = "" if isinstance(error, MoveRefused) else error.detail
        return Failed(f"{error} ({error.sqlstate})", detail=detail, hint=error.hint)
    if isinstance(error, _NO_SERVER):
        hint = "Is the DSN right? --dsn or $PGFLOW_DSN" * isinstance(error, ServerUnreachable)
        return Failed(str(error), UNREACHABLE, hint=hint)
    if isinstance(error, PgflowError):
        return Failed(str(error), USAGE if isinstance(error, AppNotFound) else FAILED)
    return Failed(f"{type(error).__name__}: {error}", hint="pgflow --debug shows where.")


def _of_usage(error: click.ClickException) -> Failed:
    context = getattr(error, "ctx", None)
    command = context.command_path if isinstance(context, click.Context) else "pgflow"
    return Failed(error.format_message(), error.exit_code, hint=f"{command} --help")


def _of_postgres(error: psycopg.Error) -> Failed:
    message = error.diag.message_primary or str(error)
    sqlstate = error.sqlstate or ""
    return Failed(
        f"{message} ({sqlstate})" if sqlstate else message,
        UNREACHABLE if sqlstate.startswith(_NO_ANSWER) else FAILED,
        detail=error.diag.message_detail or "",
        hint=error.diag.message_hint or _HINTS.get(sqlstate, ""),
    )
