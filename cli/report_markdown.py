"""A report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from . import report_text as text
from .report_text import Cells, Report


def markdown(report: Report) -> str:
    """Return the report as Markdown; no text of it is taken for markup."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {escaped(text.title(report))}"
    yield ""
    for name, told in text.facts(report):
        yield f"- {name}: {escaped(told)}"
    for heading, columns, cells in text.tables(report):
        if cells:
            yield from ("", f"## {heading}", "")
            yield from _table(columns, cells)
    for left_out in text.cut(report):
        yield from ("", f"There are {left_out}.")


def _table(columns: Sequence[str], cells: Cells) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    for row in cells:
        yield f"| {' | '.join(escaped(cell) for cell in row)} |"


def escaped(told: str) -> str:
    """Return a text of one line in which nothing is markup, HTML included."""
    quoted = re.sub(r"([\\`*_\[\]<>|~#&!])", r"\\\1", told)
    return re.sub(r"^([-+=]|\d+[.)](?=\s))", r"\\\1", quoted)
