"""The README's code is run as it stands there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
WORKER = "pgflow worker --app app:app"
FirstRow = Callable[..., tuple[Any, ...]]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def is_shown_as(text: str, row: tuple[Any, ...]) -> bool:
    return " | ".join(re.sub(UUID, "(id)", str(value)) for value in row) == text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in which the README's first block is app.py."""
    (tmp_path / "app.py").write_text(blocks("python")[0])
    return tmp_path


@pytest.fixture
def worker(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Start a worker with the command that the quickstart has for it."""
    process = subprocess.Popen(WORKER.split(), cwd=folder, env=environment)
    yield
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.usefixtures("worker")
def test_the_sql_gives_the_results_that_are_shown(first_row: FirstRow) -> None:
    (block,) = blocks("sql")
    pairs = re.findall(r"^(select .*);\n-- (.*)$", block, flags=re.MULTILINE)
    assert len(pairs) == 3
    for statement, result in pairs:
        first_row(statement, right=partial(is_shown_as, re.sub(UUID, "(id)", result)))


@pytest.mark.usefixtures("worker")
def test_the_quickstart_leads_to_a_completed_run(
    first_row: FirstRow, folder: Path, environment: dict[str, str]
) -> None:
    quickstart = README.partition("\n## Quickstart\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ (.*)$", "".join(blocks("console", quickstart)), flags=re.MULTILINE)
    assert commands[:2] == ["pgflow dev", "export PGFLOW_DSN=..."]  # here it is the test's server
    assert commands[2] == WORKER
    enqueue, inbox, approve, runs = commands[3:]

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            check=False,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(enqueue)
    (task_id,) = first_row("select task_id::text from pgflow.inbox")
    assert task_id in run(inbox)
    assert "approved" in run(approve.replace("TASK", task_id))
    (run_id,) = first_row("select run_id::text from pgflow.runs where state = 'completed'")
    assert run_id in run(runs)


def test_a_run_is_enqueued_in_the_transaction_of_the_caller(
    db: psycopg.Connection, dsn: str
) -> None:
    db.execute("create table article (title text)")
    example = compile(blocks("python")[1], "README.md", "exec")
    exec(example, {"dsn": dsn})
    rows = db.execute("select handler, title from pgflow.runs cross join article").fetchall()
    assert rows == [("publish", "Postgres is enough")]
