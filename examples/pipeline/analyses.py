"""What the three analyses find in Markdown files, each from a parse of its own, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from pydantic import BaseModel

from examples.editorial.analysis import analyse

_MARKDOWN = MarkdownIt("commonmark")


class Length(BaseModel):
    """How long a file is."""

    file: str
    words: int
    minutes: int


class Finding(BaseModel):
    """Something in a line of a file that somebody should look at."""

    file: str
    line: int
    what: str


class Found(BaseModel):
    """What all three have found: the outputs of the steps of those names."""

    words: list[Length]
    links: list[Finding]
    headings: list[Finding]


def lengths(folder: Path, files: Sequence[str]) -> list[Length]:
    """Return how long each file is, the longest first."""
    found = ((file, analyse(folder / file)) for file in files)
    every = [Length(file=f, words=a.words, minutes=a.reading_minutes) for f, a in found]
    return sorted(every, key=lambda length: (-length.words, length.file))


def broken_links(folder: Path, files: Sequence[str]) -> list[Finding]:
    """Return the relative links that lead to no file."""
    return [
        Finding(file=file, line=link.line, what=link.target)
        for file in files
        for link in analyse(folder / file).broken_links
    ]


def odd_headings(folder: Path, files: Sequence[str]) -> list[Finding]:
    """Return headings that are out of order, and files that have no title."""
    return [
        Finding(file=file, line=line, what=what)
        for file in files
        for line, what in _odd(_headings((folder / file).read_text("utf-8", "replace")))
    ]


def _headings(text: str) -> list[tuple[int, int]]:
    """Return the line and the level of each heading."""
    return [
        (token.map[0] + 1, int(token.tag.removeprefix("h")))
        for token in _MARKDOWN.parse(text)
        if token.type == "heading_open" and token.map
    ]


def _odd(headings: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    before = 0
    titles = 0
    for line, level in headings:
        titles += level == 1
        if level == 1 and titles > 1:
            yield line, "a second title"
        elif level > before + 1:
            yield line, f"level {level} after level {before}" if before else "no title before it"
        before = level
    if not headings:
        yield 1, "no heading at all"


def write(found: Found, most: int) -> str:
    """Return the report as Markdown, with at most so many lines in each list."""
    words = sum(length.words for length in found.words)
    minutes = sum(length.minutes for length in found.words)
    parts = {
        "The longest": [f"{f.file}: {f.words:,} words, {f.minutes} minutes" for f in found.words],
        "Links that lead nowhere": [f"{f.file}, line {f.line}: {f.what}" for f in found.links],
        "Headings out of order": [f"{f.file}, line {f.line}: {f.what}" for f in found.headings],
    }
    lines = [
        "# What is in the folder",
        "",
        f"{len(found.words)} files, {words:,} words, {minutes} minutes to read.",
    ]
    for title, items in parts.items():
        lines += ["", f"## {title}", "", *(f"- {item}" for item in items[:most])]
        if len(items) > most:
            lines.append(f"- and {len(items) - most} more")
        elif not items:
            lines.append("None.")
    return "\n".join([*lines, ""])
