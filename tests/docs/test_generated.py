"""The generated parts of the docs are what the database says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psycopg

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "sql-reference.md"
CONCEPTS = DOCS / "concepts.md"


def test_the_committed_text_is_what_the_database_says(dsn: str) -> None:
    command = [sys.executable, str(DOCS / "generate.py"), dsn, "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_has_every_public_function_and_no_internal_one(
    db: psycopg.Connection,
) -> None:
    rows = db.execute(
        "select proname from pg_proc where pronamespace = 'pgflow'::regnamespace"
    ).fetchall()
    functions = {name for (name,) in rows}
    described = set(re.findall(r"^#### (\w+)$", REFERENCE.read_text(), flags=re.MULTILINE))
    assert described == {name for name in functions if not name.startswith("_")}
    mentioned = set(re.findall(r"\b_\w+", REFERENCE.read_text()))
    assert not mentioned & functions


def test_every_column_of_a_view_is_in_the_reference(db: psycopg.Connection) -> None:
    views = REFERENCE.read_text().partition("\n## Views\n")[2].partition("\n## ")[0]
    rows = db.execute(
        "select table_name, column_name from information_schema.columns"
        " join information_schema.views using (table_schema, table_name)"
        " where table_schema = 'pgflow'"
    ).fetchall()
    sections = dict(
        re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", views, flags=re.MULTILINE | re.DOTALL)
    )
    assert rows
    assert not [(v, c) for v, c in rows if f"`{c}`" not in sections[v]]


def test_the_diagram_draws_the_moves_and_no_others(db: psycopg.Connection) -> None:
    drawing = CONCEPTS.read_text().partition("```mermaid")[2].partition("```")[0]
    arrows = set(re.findall(r"(\S+) --> (\S+)", drawing))
    box = drawing.partition("as live {")[2].partition("}")[0]
    boxed = {state for arrow in re.findall(r"(\S+) --> (\S+)", box) for state in arrow}
    drawn = {(a, b) for a, b in arrows if a != "live" and b != "[*]"}
    drawn |= {(state, b) for a, b in arrows if a == "live" for state in boxed}
    moves = db.execute(
        "select coalesce(from_state, '[*]'), to_state from pgflow.move where kind = 'handler'"
    ).fetchall()
    assert drawn == set(moves)


def test_every_link_between_the_pages_leads_somewhere() -> None:
    broken = []
    for page in [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
            if "://" in target:
                continue
            file = (page.parent / target).resolve() if target else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.name}: {target}#{anchor}")
    assert not broken


def anchors(page: Path) -> set[str]:
    """Return what GitHub calls the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
