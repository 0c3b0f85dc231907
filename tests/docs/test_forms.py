"""What docs/forms.md shows is what happens, and its table has all keywords."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.parked import parked, task_of

PAGE = (Path(__file__).parents[2] / "docs" / "forms.md").read_text()
SQL = (Path(__file__).parents[2] / "sql" / "15_forms.sql").read_text()
EXAMPLES = re.findall(
    r"^```(sql|python)\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize(("language", "code", "shown"), EXAMPLES)
def test_an_example_prints_what_is_shown(
    language: str, code: str, shown: str, environment: dict[str, str], db: psycopg.Connection
) -> None:
    if "TASK" in code:
        form = {"properties": {"amount": {"maximum": 10}}}
        run = parked(db, {"kind": "form", "key": "f", "title": "How much?", "form": form})
        code = code.replace("TASK", str(task_of(db, run)))
    psql = ["psql", "-XqP", "footer=off", "-v", "SHOW_CONTEXT=never", environment["PGFLOW_DSN"]]
    command = psql if language == "sql" else [sys.executable, "-"]
    done = subprocess.run(
        command, input=code, env=environment, capture_output=True, text=True, check=False
    )
    printed = re.sub(r"^psql:\S+ ", "", done.stdout + done.stderr, flags=re.MULTILINE)
    assert [line.rstrip() for line in printed.strip("\n").splitlines()] == shown.splitlines()


def test_there_are_examples_of_both_kinds() -> None:
    assert [language for language, _, _ in EXAMPLES] == ["sql", "sql", "sql", "python"]


def test_the_table_has_every_keyword_and_no_other() -> None:
    table = PAGE.partition("\n| keyword |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    on_page = {keyword for cell in cells for keyword in re.findall(r"`(\S+?)`", cell)}
    body = SQL.partition("function pgflow._keyword_fault")[2].partition("comment on")[0]
    known = re.findall(r"when p_keyword (?:in \((.*?)\)|= (\S+)) then", body, flags=re.DOTALL)
    in_sql = {keyword for pair in known for keyword in re.findall(r"'(\S+?)'", "".join(pair))}
    assert on_page == in_sql
