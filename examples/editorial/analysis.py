"""What an editor wants to know of a Markdown file, from a real parse of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import BaseModel

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_WORDS_PER_MINUTE = 230
_NOT_OURS = {"node_modules", "site-packages", "venv", "build", "dist"}


class BrokenLink(BaseModel):
    """A relative link that leads to no file."""

    line: int
    target: str


class Findings(BaseModel):
    """The facts about one file. Images are links too; blocks of code are no words and no links."""

    words: int
    reading_minutes: int
    links: int
    broken_links: list[BrokenLink]


def markdown_files(folder: Path) -> Iterator[str]:
    """Yield the readable Markdown files below a folder, hidden and foreign folders left out."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _NOT_OURS)
        for file in (Path(path, name) for name in sorted(files)):
            name = str(file.relative_to(folder))
            is_markdown = file.suffix.lower() in {".md", ".markdown"} and name.isprintable()
            if is_markdown and file.is_file() and os.access(file, os.R_OK):
                yield name


def analyse(file: Path) -> Findings:
    """Parse a Markdown file and check where its relative links lead."""
    tokens = _MARKDOWN.parse(file.read_text(encoding="utf-8", errors="replace"))
    words = sum(len(_prose(token).split()) for token in tokens)
    links = [link for token in tokens for link in _links(token)]
    return Findings(
        words=words,
        reading_minutes=-(-words // _WORDS_PER_MINUTE),
        links=len(links),
        broken_links=[
            BrokenLink(line=line, target=target)
            for line, target in links
            if _is_broken(target, file.parent)
        ],
    )


def _prose(token: Token) -> str:
    """Return the text of a paragraph, heading or table cell as a reader sees it."""
    return "".join(
        " " if part.type in {"softbreak", "hardbreak"} else part.content
        for part in token.children or []
        if part.type in {"text", "code_inline", "softbreak", "hardbreak"}
    )


def _links(token: Token) -> Iterator[tuple[int, str]]:
    """Yield the line and the target of each link and image."""
    line = token.map[0] + 1 if token.map else 1
    for part in token.children or [token]:
        if part.type in {"softbreak", "hardbreak"}:
            line += 1
        elif part.type == "link_open":
            yield line, str(part.attrs["href"])
        elif part.type == "image":
            yield line, str(part.attrs["src"])
        elif part.type in {"html_inline", "html_block"}:
            for below, target in _Tags(part.content).links:
                yield line + below, target
            line += part.content.count("\n")


class _Tags(HTMLParser):
    """The links and images of raw HTML, each with the number of lines above it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[tuple[int, str]] = []
        with suppress(AssertionError):  # its answer to <![nonsense[
            self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get({"a": "href", "img": "src"}.get(tag, ""))
        if target:
            self.links.append((self.getpos()[0] - 1, target))


def _is_broken(target: str, folder: Path) -> bool:
    """Tell whether a target names a file, relative to its document, that isn't there."""
    try:
        url = urlsplit(target)
    except ValueError:  # such as http://[
        return False
    if url.scheme or url.netloc or not url.path or url.path.startswith("/"):
        return False
    return not os.path.exists(folder / unquote(url.path))  # noqa: PTH110 - Path's raises
