"""What happens, as it happens: the lines of one run, or of all."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, Self
from uuid import UUID

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pgflow import Client
from pgflow.errors import ServerUnreachable

from . import logs
from .errors import Failed
from .options import json_option, moment, run_argument
from .output import print_json, shown
from .session import Session, global_options, pass_session

_PAGE: Final = 5000
_PAUSE: Final = 0.5


@click.command()
@run_argument
@json_option
@global_options
@pass_session
def watch(session: Session, run_id: UUID, *, as_json: bool) -> None:
    """Print the lines of a run's timeline as they come, to its end.

    Exit code 0 if the run completed, else 1. On a terminal a bar shows how far it is, by events of
    type progress whose payload is {"pct": 40} or {"done": 2, "of": 5}.
    """
    logs.to_stderr()
    with session.waiting_client() as client:
        with _bar(shows=sys.stdout.isatty() and not as_json) as bar:
            for event in client.stream(run_id):
                if as_json:
                    print_json(asdict(event))
                    continue
                bar.tell("  ".join(cells(asdict(event))))
                if event.type == "progress":
                    bar.move(event.payload)
        result = client.result(run_id, timeout=0)
    if result.state != "completed":
        code = f" ({result.error_code})" if result.error_code else ""
        raise Failed(
            f"run {run_id} is {result.state}{code}",
            detail=result.error_detail or "",
            hint=f"pgflow show {run_id}",
        )


@click.command()
@click.option(
    "--since",
    type=moment,
    metavar="TIME",
    help="From this time on, or from so long ago: 90s, 15m, 2h, 1d.  [default: now]",
)
@click.option("--type", "types", multiple=True, help="Only this type; may be given several times.")
@click.option("--handler", "handlers", multiple=True, help="Only of this handler; the same.")
@click.option(
    "--overlap",
    type=click.FloatRange(min=0, max=3600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How late a line may be committed and still be printed.",
)
@json_option
@global_options
@pass_session
def tail(
    session: Session,
    since: datetime | timedelta | None,
    types: tuple[str, ...],
    handlers: tuple[str, ...],
    overlap: float,
    *,
    as_json: bool,
) -> None:
    """Print the new lines of all runs of the project, as they come.

    It looks twice a second and goes on until Ctrl-C, through a restart of the server too.
    """
    logs.to_stderr()
    with session.waiting_client() as client:
        now = client.now()
        begin = now - since if isinstance(since, timedelta) else since or now
        wanted = {"types": types or None, "handlers": handlers or None}
        for row in _lines(client, _aware(begin, now), timedelta(seconds=overlap), wanted):
            if as_json:
                print_json(row)
            else:
                click.echo("  ".join([shown("run_id", row["run_id"]), row["handler"], *cells(row)]))
            sys.stdout.flush()


def _lines(
    client: Client, begin: datetime, overlap: timedelta, wanted: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Yield each line at or after `begin` once, for ever.

    A look reads what happened since the look before it began, and the overlap before that. So a
    line is missed only if it was committed later than that after its own time. What is printed is
    remembered for as long as it will be read again.
    """
    printed: dict[tuple[UUID, int], datetime] = {}
    looked_at, unreachable = begin + overlap, False
    while True:
        began = time.monotonic()
        try:
            now = client.now()  # before the look: what is committed later, the next look sees
            since = max(begin, looked_at - overlap)
            for row in _pages(client, since, wanted):
                key = row["run_id"], row["event_no"]
                if key not in printed:
                    printed[key] = row["at"]
                    yield row
            printed = {key: at for key, at in printed.items() if at >= now - overlap}
            looked_at, unreachable = now, False
        except (ServerUnreachable, psycopg.OperationalError):
            if not unreachable:
                click.echo("note: the server does not answer; trying again", err=True)
            unreachable = True
        # A look that takes long is done less often.
        time.sleep(max(_PAUSE, 4 * (time.monotonic() - began)))


def _pages(
    client: Client, since: datetime, wanted: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    past: tuple[datetime, UUID, int] | None = None
    while True:
        rows = client.timeline(since=since, past=past, limit=_PAGE, **wanted)
        yield from rows
        if len(rows) < _PAGE:
            return
        past = rows[-1]["at"], rows[-1]["run_id"], rows[-1]["event_no"]


def _aware(time: datetime, like: datetime) -> datetime:
    """Return a time with an offset; without one it is in the session's time zone."""
    return time if time.tzinfo else time.replace(tzinfo=like.tzinfo)


def cells(line: Mapping[str, Any]) -> list[str]:
    """Return what is shown of a line: number, time, type, step, payload."""
    cells = [f"{line['event_no']:>3}", shown("at", line["at"]), shown("type", line["type"])]
    if line["step"] is not None:
        cells.append(shown("step", line["step"]))
    if line["payload"] is not None:
        cells.append(shown("payload", line["payload"]))
    return cells


class _Bar(Protocol):
    """Where lines go, and how far the run is."""

    def tell(self, line: str) -> None:
        """Print a line."""

    def move(self, payload: object) -> None:
        """Show how far the run is, if the payload says so."""


class _NoBar:
    def tell(self, line: str) -> None:
        click.echo(line)
        sys.stdout.flush()

    def move(self, payload: object) -> None:
        """Show nothing."""


class _TerminalBar:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(highlight=False, soft_wrap=True),
        )
        self._task = self._progress.add_task("progress", total=None, visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, line: str) -> None:
        self._progress.console.print(line, markup=False)

    def move(self, payload: object) -> None:
        if (done := fraction(payload)) is not None:
            self._progress.update(self._task, total=1.0, completed=done, visible=True)


def _bar(*, shows: bool) -> AbstractContextManager[_Bar]:
    return _TerminalBar() if shows else nullcontext(_NoBar())


def fraction(payload: object) -> float | None:
    """Return how far a payload of type progress says the run is, 0 to 1; None if it doesn't."""
    if not isinstance(payload, dict):
        return None
    done = _number(payload.get("pct", payload.get("done")))
    of = 100 if "pct" in payload else _number(payload.get("of"))
    return None if done is None or not of else min(max(done / of, 0.0), 1.0)


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
