"""The worker daemon."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Literal

import click
import structlog

from pgflow import App, Worker
from pgflow.errors import AppNotFound

from . import logs
from .errors import explain
from .session import Session, completed, global_options, pass_session


@click.command()
@click.option("--app", "where", required=True, metavar="MODULE:NAME", help="Where the App is.")
@click.option("--queues", metavar="A,B", help="Queues to work on; else those of the handlers.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Handlers at once.",
)
@click.option(
    "--direct-dsn",
    metavar="DSN",
    envvar="PGFLOW_DIRECT_DSN",
    show_envvar=True,
    help="Where to LISTEN if the DSN is a pooler's.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds that handlers may go on after SIGTERM; a second one ends them.",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@global_options
@pass_session
def worker(
    session: Session,
    where: str,
    queues: str | None,
    concurrency: int,
    direct_dsn: str | None,
    grace: float,
    log_format: Literal["text", "json"],
    log_level: str,
) -> None:
    """Execute runs with the handlers of an app.

    It ends at SIGTERM or Ctrl-C, when its handlers have. The database is --dsn, else the app's.
    """
    if session.dsn:
        os.environ["PGFLOW_DSN"] = (
            session.dsn
        )  # what handlers call by way of the app goes there too
    logs.configure(log_format, log_level)
    app = load_app(where)
    _collect_seldom()
    _work(
        Worker(
            app,
            completed(session.dsn or app.dsn),
            queues=[q.strip() for q in queues.split(",")] if queues else None,
            concurrency=concurrency,
            direct_dsn=direct_dsn,
            project=session.project or app.project or os.environ.get("PGFLOW_PROJECT"),
            grace=grace,
        )
    )


def load_app(where: str) -> App:
    """Import `module:name`, from the current directory too. Raises AppNotFound, which says why."""
    module_name, _, name = where.partition(":")
    if not module_name or not name:
        raise AppNotFound(f"--app {where} is not of the form module:name, such as shop.jobs:app")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise AppNotFound(_why_not(module_name, error)) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise AppNotFound(f"module {module_name} has no {name}")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise AppNotFound(f"{where} is no pgflow.App but a {type(found).__name__}")
    return found


def _why_not(module_name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or "?"):
        return f"there is no module {error.name} in {Path.cwd()} or among the installed ones"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{frame.filename}, line {frame.lineno}"
    return f"importing {module_name} failed: {type(error).__name__}: {error} ({where})"


def _collect_seldom() -> None:
    """Spare the collector what lasts, and most of its rounds.

    A run is a few dozen objects that live for milliseconds and are in no cycle. At the default
    thresholds the collector looked at them again and again, a third of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _work(worker: Worker) -> None:
    """Run a worker; the process ends even if threads of plain handlers don't."""
    code = 0
    try:
        asyncio.run(worker.run(install_signal_handlers=True))
    except Exception as error:
        if not _threads_left():
            raise
        failed = explain(error)
        failed.show()
        code = failed.exit_code
    if left := _threads_left():
        # The interpreter would wait for them; their runs have been given back to the queue.
        structlog.get_logger("pgflow").warning("threads_abandoned", threads=left)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _threads_left(wait: float = 1.0) -> list[str]:
    """Return the threads that keep the interpreter alive; idle ones of the pool end in time."""
    until = time.monotonic() + wait
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0, until - time.monotonic()))
    return [thread.name for thread in others if thread.is_alive()]
