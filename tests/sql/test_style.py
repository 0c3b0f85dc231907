"""How the text of sql/ is laid out. What SQL means is checked by test_plpgsql_check."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parents[2].glob("sql/*.sql"))

# Comments, strings and quoted names. Dollar quotes are no strings here: they hold code.
NOT_CODE = re.compile(
    r"""--[^\n]*
    | /\*.*?\*/
    | \be'(?:\\.|''|[^'\\])*'
    | '(?:''|[^'])*'
    | "[^"]*"
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)

pytestmark = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def code_of(file: Path) -> str:
    """Return the file's text with a blank for all that is no code; the lines stay."""
    return NOT_CODE.sub(lambda match: "\n" * match[0].count("\n") or " ", file.read_text())


def refuse(file: Path, pattern: str, text: str) -> None:
    """Fail with all places where `pattern` is found in `text`, and nothing else."""
    found = [
        f"sql/{file.name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for match in re.finditer(pattern, text, re.MULTILINE)
    ]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_no_line_is_longer_than_100_columns(file: Path) -> None:
    refuse(file, r"^.{101,}", file.read_text())


def test_no_line_has_a_tab_or_ends_in_a_blank(file: Path) -> None:
    refuse(file, r"\t|[ \t]+$", file.read_text())


def test_code_is_lower_case(file: Path) -> None:
    refuse(file, r"\b[A-Z][A-Z_]+\b", code_of(file))


def test_every_function_has_its_comment_in_the_same_file(file: Path) -> None:
    code = code_of(file)
    named = r"\s+(?:function|procedure)\s+([\w.]+)"
    made = Counter(re.findall(r"\bcreate\s+or\s+replace" + named, code))
    commented = Counter(re.findall(r"\bcomment\s+on" + named, code))
    assert not made - commented


def test_every_function_can_be_replaced(file: Path) -> None:
    refuse(file, r"\bcreate\s+(?:function|procedure)\b.*", code_of(file))


def test_no_statement_is_put_together_as_text(file: Path) -> None:
    if file.name == "28_history.sql":
        pytest.skip("the names of partitions contain their period")
    if file.name == "40_reducers.sql":
        pytest.skip("registered functions have any name")
    refuse(file, r"\bexecute\s+format\b", code_of(file))
