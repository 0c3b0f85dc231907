"""The README's code is run as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
Patiently = Callable[[Callable[[], Any]], Any]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def shown(row: tuple[Any, ...]) -> str:
    return " | ".join(re.sub(UUID, "(id)", str(value)) for value in row)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in which the README's first block is app.py."""
    (tmp_path / "app.py").write_text(blocks("python")[0])
    return tmp_path


@pytest.fixture
def worker(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Start a worker with the command that the quickstart has for it."""
    assert "$ pgflow worker --app app:app\n" in README
    command = ["pgflow", "worker", "--app", "app:app"]
    process = subprocess.Popen(command, cwd=folder, env=environment)
    yield
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.usefixtures("worker")
def test_the_sql_gives_the_results_that_are_shown(
    db: psycopg.Connection, patiently: Patiently
) -> None:
    (block,) = blocks("sql")
    pairs = re.findall(r"^(select .*);\n-- (.*)$", block, flags=re.MULTILINE)
    assert len(pairs) == 3
    for statement, result in pairs:
        expected = re.sub(UUID, "(id)", result)

        def look(statement: str = statement, expected: str = expected) -> bool | None:
            row = db.execute(statement.encode()).fetchone()
            return True if row and shown(row) == expected else None

        patiently(look)


@pytest.mark.usefixtures("worker")
def test_the_quickstart_leads_to_a_completed_run(
    db: psycopg.Connection, folder: Path, environment: dict[str, str], patiently: Patiently
) -> None:
    quickstart = README.partition("\n## Quickstart\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ (.*)$", "".join(blocks("console", quickstart)), flags=re.MULTILINE)
    elsewhere = ("pgflow dev", "export PGFLOW_DSN=...", "pgflow worker --app app:app")
    assert commands[:3] == list(elsewhere)

    def run(command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for command in commands[3:]:
        if "'TASK'" in command:
            task = patiently(lambda: run("pgflow inbox --json") or None)
            run(command.replace("TASK", json.loads(task)["task_id"]))
        else:
            run(command)
    done = "select true from pgflow.runs where state = 'completed'"
    assert patiently(lambda: db.execute(done).fetchone())


def test_a_run_is_enqueued_in_the_transaction_of_the_caller(
    db: psycopg.Connection, dsn: str
) -> None:
    db.execute("create table article (title text)")
    example = compile(blocks("python")[1], "README.md", "exec")
    exec(example, {"dsn": dsn})
    rows = db.execute("select handler, title from pgflow.runs cross join article").fetchall()
    assert rows == [("publish", "Postgres is enough")]


def test_the_command_names_of_the_readme_exist(environment: dict[str, str]) -> None:
    for command in sorted(set(re.findall(r"pgflow ([a-z]+)\b", "".join(blocks("console"))))):
        done = subprocess.run(
            ["pgflow", command, "--help"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
