"""A report as a page of HTML that stands alone: no network, no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from . import report_text as text
from .report_drawing import MOST_STEPS, drawing
from .report_text import Cells, Report

# Whatever a text should smuggle in, the browser fetches nothing and executes nothing.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5a6478; --paper: #ffffff;
  --line: #d5dae3; --done: #1a7f45; --bad: #b42318; --busy: #1459b8; --wait: #92600a;
  --idle: #5a6478; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --soft: #a3acbd; --paper: #14181f;
  --line: #343c4a; --done: #4cc38a; --bad: #ff8b7e; --busy: #79b4ff; --wait: #f0b84a;
  --idle: #a3acbd; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
div { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
.step rect { fill: var(--paper); stroke: var(--idle); stroke-width: 1.5; }
.step text { font: 12px system-ui, sans-serif; fill: var(--idle); }
.step .name { fill: var(--ink); font-weight: 600; }
.edge { fill: none; stroke: var(--soft); } .fails { stroke-dasharray: 5 4; }
.head { fill: var(--soft); }
"""
_COLOURS: Final = {
    "completed": "done",
    "approved": "done",
    "answered": "done",
    "failed": "bad",
    "rejected": "bad",
    "expired": "bad",
    "timeout": "bad",
    "running": "busy",
    "waiting": "wait",
    "paused": "wait",
}


def page(report: Report) -> str:
    """Return the report as a page; no text of it is taken for markup."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    title = escape(text.title(report))
    yield from ("<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">')
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}: {escape(report['status'])}</title>"
    yield f"<style>{_STYLE}"
    for state, colour in _COLOURS.items():
        yield f".{state} rect {{ stroke: var(--{colour}); }}"
        yield f".{state} text:not(.name) {{ fill: var(--{colour}); }}"
        yield f"td.{state} {{ color: var(--{colour}); }}"
    yield "</style>"
    yield from ("</head>", "<body>", f"<h1>{title}</h1>", "<dl>")
    for name, told in text.facts(report):
        yield f"<dt>{escape(name)}</dt><dd>{escape(told)}</dd>"
    yield "</dl>"
    if report["flow"] is not None:
        yield "<h2>Graph</h2>"
        yield f"<div>{drawing(report) or f'It has more than {MOST_STEPS} steps.'}</div>"
    for heading, columns, cells in text.tables(report):
        if cells:
            yield f"<h2>{heading}</h2>"
            yield from _table(columns, cells)
    for left_out in text.cut(report):
        yield f"<p>There are {escape(left_out)}.</p>"
    yield from ("</body>", "</html>")


def _table(columns: Sequence[str], cells: Cells) -> Iterator[str]:
    heads = "".join(f"<th>{escape(name)}</th>" for name in columns)
    yield f"<div><table><thead><tr>{heads}</tr></thead><tbody>"
    for row in cells:
        yield f"<tr>{''.join(map(_cell, row))}</tr>"
    yield "</tbody></table></div>"


def _cell(told: str) -> str:
    """Return a cell; a word that is a state has its colour."""
    kind = f' class="{told}"' if told in _COLOURS else ""
    return f"<td{kind}>{escape(told)}</td>"
