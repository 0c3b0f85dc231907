"""Prints rows: a table on a terminal, aligned text into a pipe, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

_FOLDED: Final = frozenset(
    {"title", "payload", "detail", "hint", "error_detail", "value", "arguments", "error", "what"}
)
_FOLDED_TO: Final = 20
_JSON: Final = frozenset({"input", "output", "payload", "arguments"})
_STYLES: Final = {
    "completed": "green",
    "alive": "green",
    "ok": "green",
    "running": "cyan",
    "warn": "yellow",
    "paused": "yellow",
    "open": "yellow",
    "approved": "green",
    "answered": "green",
    "resolved": "green",
    "rejected": "red",
    "expired": "red",
    "waiting_approval": "yellow",
    "failed": "red",
    "timeout": "red",
    "dead": "red",
    "fail": "red",
}


def print_rows(rows: Sequence[Row], columns: Sequence[str], *, as_json: bool) -> None:
    """Print the columns of rows, the most important first; as JSON all that the rows have."""
    if as_json:
        for row in rows:
            print_json(row)
    elif sys.stdout.isatty():
        _print_table(rows, columns)
    else:
        _print_aligned(rows, columns)


def print_record(row: Row) -> None:
    """Print what one row has, a line each, longer texts below their name."""
    width = max(map(len, row), default=0)
    for name, value in row.items():
        if value is None:
            continue
        text = shown(name, value, multiline=True)
        if "\n" in text:
            click.echo(f"{name}\n    " + text.rstrip("\n").replace("\n", "\n    "))
        else:
            click.echo(f"{name:<{width}}  {text}")


def print_block(name: str, value: object) -> None:
    """Print a value below its name: a text as it is, anything else as JSON over several lines."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(f"\n{name}")
    for line in shown("", text, multiline=True).splitlines():
        click.echo(f"    {line}".rstrip())


def print_json(value: object) -> None:
    """Print one JSON object on a line of its own."""
    click.echo(json.dumps(value, default=_plain, ensure_ascii=False))


def shown(name: str, value: object, *, multiline: bool = False) -> str:
    """Return a value as people read it; it cannot send the terminal any commands."""
    if value is None:
        text = "-"
    elif isinstance(value, datetime):
        exact = "milliseconds" if name == "at" else "seconds"
        text = value.isoformat(sep=" ", timespec=exact).replace("+00:00", "Z")
    elif name not in _JSON and isinstance(value, list) and all(isinstance(v, str) for v in value):
        text = ",".join(value)
    elif name in _JSON or isinstance(value, (dict, list)):
        text = json.dumps(value, default=_plain, ensure_ascii=False)
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = str(value)
    controls = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]" if multiline else r"[\x00-\x1f\x7f-\x9f]"
    return re.sub(controls, lambda match: f"\\x{ord(match[0]):02x}", text)


def _plain(value: object) -> object:
    """Return what JSON has for a value: times in UTC, spans in seconds."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def _print_aligned(rows: Sequence[Row], columns: Sequence[str]) -> None:
    widths = [_width(rows, name) for name in columns]
    for cells in (columns, *([shown(name, row[name]) for name in columns] for row in rows)):
        padded = (c + " " * (w - cell_len(c)) for c, w in zip(cells, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Print as many of the columns as the terminal is wide, and name the others."""
    console = Console(highlight=False)
    kept = list(columns)
    while sum(_least_width(rows, name) + 2 for name in kept) - 2 > console.width and len(kept) > 1:
        kept.pop()
    with console.capture() as capture:
        console.print(_table(rows, kept, console.width))
        if not rows:
            console.print("none")
        elif left_out := columns[len(kept) :]:
            console.print(Text(f"no room for: {', '.join(left_out)}", "dim"))
    click.echo(capture.get(), nl=False)


def _width(rows: Sequence[Row], name: str) -> int:
    return max(cell_len(name), *(cell_len(shown(name, row[name])) for row in rows), 0)


def _least_width(rows: Sequence[Row], name: str) -> int:
    return min(_width(rows, name), _FOLDED_TO) if name in _FOLDED else _width(rows, name)


def _table(rows: Sequence[Row], columns: Sequence[str], width: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        least = min(_least_width(rows, name), width)
        table.add_column(name, min_width=least, overflow="fold")
    for row in rows:
        cells = ((shown(name, row[name]), row[name]) for name in columns)
        styles = ((t, _STYLES.get(v, "") if isinstance(v, str) else "") for t, v in cells)
        table.add_row(*(Text(text, style) for text, style in styles))
    return table
