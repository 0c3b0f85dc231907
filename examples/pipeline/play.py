"""Plays the pipeline once: a worker does the steps, an editor sends the first draft back.

python -m examples.pipeline.play docs report.md
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import click

from examples.editorial.processes import Unexpected, WorkerProcess
from pgflow import Client, PgflowError
from pgflow.definition import read_definition
from pgflow.embedded import resolve_dsn

DEFINITION = Path(__file__).with_name("pipeline.yaml")
PATIENCE = 60.0

Say = Callable[[str], object]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("report", type=click.Path(dir_okay=False, path_type=Path))
def main(folder: Path, report: Path) -> None:
    """Report on the Markdown files of FOLDER in the file REPORT."""
    dsn = resolve_dsn(None)
    try:
        with TemporaryDirectory() as home, working(dsn, Path(home) / "log") as worker:
            play(dsn, folder.resolve(), report.resolve(), click.echo, worker)
    except (Unexpected, PgflowError) as problem:
        click.echo(f"It did not come out as it should: {problem}", err=True)
        sys.exit(1)


@contextmanager
def working(dsn: str, log: Path) -> Iterator[WorkerProcess]:
    """Have a worker for the pipeline."""
    app = "examples.pipeline.app:app"
    worker = WorkerProcess("pipeline", dsn, log, app=app, queue="pipeline")
    try:
        yield worker
    finally:
        worker.stop()


def play(dsn: str, folder: Path, report: Path, say: Say, worker: WorkerProcess) -> None:
    """Start the flow, send its draft back, let the next one pass, and tell what happened."""
    with Client(dsn) as client:
        version = client.define_flow(read_definition(DEFINITION))
        run_id = client.start(version.flow, {"folder": str(folder), "report": str(report)})
        say(f"flow {version.flow}, version {version.version}: run {run_id}")
        first = asked(client, run_id, 1, worker)
        say(f"draft 1 has {lines(first)} lines; the editor says: too long")
        client.reject(first["task_id"], "too long", rollback_to="draft")
        second = asked(client, run_id, 2, worker)
        say(f"draft 2 has {lines(second)} lines; the editor says: fine")
        client.approve(second["task_id"], "fine")
        published = client.result(run_id, timeout=PATIENCE).value["published"]
        for step in client.flow_steps(run_id):
            if step["run_id"] is None:  # sent back before it was its turn
                continue
            say(f"  {step['step']:<9} {step['state']:<10} {why(step)}".rstrip())
    say(f"draft {published['draft']} is in {published['report']}")


def asked(client: Client, run_id: UUID, draft: int, worker: WorkerProcess) -> dict[str, Any]:
    """Wait until the editor is asked about a draft. Raises Unexpected."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        worker.check()
        for step in client.flow_steps(run_id):
            tasks = client.inbox(task_id=step["task_id"]) if step["task_id"] else []
            if tasks and tasks[0]["payload"]["draft"]["number"] == draft:
                return tasks[0]
        run = client.runs(run_id=run_id)[0]
        if run["finished_at"] is not None:
            raise Unexpected(f"the flow ended {run['state']}: {run['error_detail']}")
        time.sleep(0.02)
    raise Unexpected(f"nobody was asked about draft {draft} within {PATIENCE:.0f} s")


def lines(task: dict[str, Any]) -> int:
    """Return how many lines the draft has that a task shows."""
    return len(task["payload"]["draft"]["text"].splitlines())


def why(step: dict[str, Any]) -> str:
    """Return what is to be said about a step that did not simply complete."""
    return str(step["error_detail"] or (f"round {step['version']}" if step["version"] else ""))


if __name__ == "__main__":
    main(prog_name="python -m examples.pipeline.play")
