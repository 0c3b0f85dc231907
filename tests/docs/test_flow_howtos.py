"""What the pages of docs/flows show is what happens: their flows run, their SQL prints that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from pgflow.testing import Scene

FOLDER = Path(__file__).parents[2] / "docs" / "flows"


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code of a page."""
    text = (FOLDER / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def statements(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each statement of a page with the lines that it prints."""
    text = "".join(blocks(page, "sql"))
    for statement, shown in re.findall(r"^(select [^;]*;)\n((?:-- .*\n)*)", text, re.MULTILINE):
        yield statement, [line.removeprefix("-- ").rstrip() for line in shown.splitlines()]


def said(value: Any) -> str:
    """Return a value as psql prints it, texts of JSON without quotes."""
    if value is None or isinstance(value, str):
        return value or ""
    return {True: "t", False: "f"}[value] if isinstance(value, bool) else json.dumps(value)


def answers(conn: psycopg.Connection, statement: str) -> list[str]:
    """Return what a statement prints, a line a row."""
    try:
        rows = conn.execute(statement.encode()).fetchall()
    except psycopg.Error as error:
        return [f"ERROR: {error.diag.message_primary}"]
    return [" | ".join(map(said, row)).rstrip() for row in rows]


@pytest.mark.parametrize("page", sorted(file.name for file in FOLDER.glob("*.md")))
def test_a_page_shows_what_happens(page: str, pgflow_scene: Scene) -> None:
    names: dict[str, Any] = {}
    exec(blocks(page, "python")[0], names)
    scene = pgflow_scene.use(names["app"])
    (definition,) = blocks(page, "yaml")
    scene.client.define_flow(yaml.safe_load(definition))
    with psycopg.connect(scene.dsn, autocommit=True) as conn:
        for statement, shown in statements(page):
            assert shown, f"nothing is shown for {statement}"
            printed = answers(conn, statement)
            patterns = [".*".join(map(re.escape, line.split("…"))) for line in shown]
            for line, pattern in zip(printed, patterns, strict=True):
                assert re.fullmatch(pattern, line), f"{statement}\n{line}"
            scene.run_until_idle()
