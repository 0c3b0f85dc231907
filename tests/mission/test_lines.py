"""README.md of this folder says truly of each line where it is shown, or what is missing."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
# How many lines the description of each system has.
LINES = {"S1": 15, "S2": 23, "S3": 20, "S4": 10, "S5": 9}


def listed() -> dict[str, tuple[set[str], str]]:
    """Return the lines of the tables: the tests that each names, and what it says is missing."""
    found = {}
    for row in (HERE / "README.md").read_text().splitlines():
        if match := re.fullmatch(r"\| (S\d-\d\d) \|.*?\| (.*?) \| (.*?) ?\|", row):
            line, shown, missing = match.groups()
            assert line not in found
            found[line] = set(re.findall(r"`(\w+)`", shown)), missing
    return found


def shown() -> dict[str, set[str]]:
    """Return the tests of each line, by their names."""
    found = defaultdict(set)
    for file in HERE.glob("test_s*.py"):
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE):
            lines = re.match(r"test((?:_s\d_\d\d)+)_", name)
            assert lines, f"{name} names no line"
            for system, number in re.findall(r"s(\d)_(\d\d)", lines[1]):
                found[f"S{system}-{number}"].add(name)
    return found


def test_every_line_is_listed() -> None:
    wanted = [f"{s}-{n:02}" for s, count in LINES.items() for n in range(1, count + 1)]
    assert list(listed()) == wanted


def test_every_line_is_shown_by_a_test_or_says_what_is_missing() -> None:
    assert [line for line, (tests, missing) in listed().items() if not tests and not missing] == []


def test_the_tests_that_a_line_names_are_those_that_name_the_line() -> None:
    tests = shown()
    assert {line: names for line, (names, _) in listed().items() if names} == tests
