"""What docs/reports.md shows is what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner

from pgflow import Client
from tests.cli.conftest import find_main

PAGE = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
FLOW = {
    "name": "review",
    "steps": [
        {"name": "editor", "type": "approval_gate"},
        {"name": "pay", "type": "wait_event", "needs": ["editor"]},
        {"name": "board", "type": "approval_gate", "needs": ["editor"]},
    ],
}


def code(language: str) -> list[str]:
    return [text for of, text in BLOCKS if of == language]


@pytest.fixture
def flow(dsn: str) -> UUID:
    """Return a flow that has a line in each list."""
    with Client(dsn) as client:
        client.define_flow(FLOW)
        run_id = client.start("review")
        (task,) = client.inbox()
        client.approve(task["task_id"])
    return run_id


def test_every_member_of_a_report_is_on_the_page(db: psycopg.Connection, flow: UUID) -> None:
    row = db.execute("select pgflow.report(%s)", [flow]).fetchone()
    assert row is not None
    report: dict[str, Any] = row[0]
    table = PAGE.partition("\n## What it has\n")[2].partition("\n## ")[0]
    heads = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    assert {n for head in heads for n in re.findall(r"`(\w+)`", head)} == set(report)
    inner = {*report["usage"], *report["unresolved"]}
    for name in ("steps", "artifacts", "decisions"):
        inner |= set(report[name][0])
    assert inner <= set(re.findall(r"`(\w+)`", table))


def test_every_member_of_a_context_is_on_the_page(db: psycopg.Connection, flow: UUID) -> None:
    row = db.execute("select pgflow.context(%s)", [flow]).fetchone()
    assert row is not None
    text = PAGE.partition("\n## Where a run stands\n")[2]
    told = set(re.findall(r"`(\w+)`", text))
    assert {*row[0], *row[0]["progress"]} <= told


def test_the_sql_is_understood(db: psycopg.Connection, flow: UUID) -> None:
    for text in code("sql"):
        query = re.sub(r"'[0-9a-f-]{36}'", f"'{flow}'", text)
        row = db.execute(query.encode()).fetchone()
        assert row is not None
        assert row[0]


def test_the_python_brings_the_report(dsn: str, flow: UUID) -> None:
    names: dict[str, Any] = {"run_id": flow}
    with Client(dsn) as client:
        client.cancel(flow)
        (text,) = code("python")
        exec(text, {**names, "client": client}, names)
    assert names["report"]["status"] == "cancelled"


def test_the_commands_are_understood(dsn: str, flow: UUID, tmp_path: Path) -> None:
    (text,) = code("console")
    for line in text.splitlines():
        words = line.removeprefix("$ pgflow ").replace("RUN", str(flow)).split()
        words = [str(tmp_path / w) if w == "report.html" else w for w in words]
        done = CliRunner().invoke(find_main(), ["--dsn", dsn, *words])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "report.html").exists()
