"""How the demo looks: what it knows, as lines and tables for a terminal or a pipe."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

_INDENT = "  "
_STYLES = {
    "run.completed": "green",
    "run.cancelled": "red",
    "run.requeued": "yellow",
    "task.resolved": "bold",
}
_DETAILS = {
    "run.created": "by {by}",
    "run.started": "worker {worker}, lease {lease_no}",
    "run.requeued": "{payload[reason]} of worker {payload[worker]}",
    "run.waiting": "for {payload[waits_for][0]}; no worker holds it",
    "run.woken": "ready for any worker",
    "run.cancelled": "{payload[error_code]}",
    "step.completed": "{step}",
    "task.requested": "{payload[title]}",
    "task.resolved": "{payload[action]} by {by}: {payload[comment]}",
}


class Page:
    """What the demo prints. `labels` are the short names of the workers, by id."""

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else 120  # a pipe has none
        self.console = Console(highlight=False, markup=False, soft_wrap=True, width=width)
        self.labels: dict[str, str] = {}

    def heading(self, text: str) -> None:
        """Begin a chapter."""
        self.console.print()
        self.console.print(Text(text, "bold"))

    def fact(self, name: str, text: str, aside: str = "") -> None:
        """Print one thing that is so now."""
        line = Text(f"{_INDENT}{name:<11}", "dim").append(text, "not dim")
        self.console.print(line.append(f"  {aside}" if aside else "", "dim"))

    def say(self, text: str, style: str = "") -> None:
        """Print a sentence, or an empty line."""
        self.console.print(Text(_INDENT + text if text else "", style))

    def progress(self, what: str, total: int) -> _Bar:
        """Return a bar that is full when `total` are done."""
        return _Bar(self.console, what, total)

    def findings(self, articles: Sequence[Row], most: int = 12) -> None:
        """Print what was found in each article, in a table of at most so many lines."""
        table = _table("~article", ">words", ">minutes", ">links", ">broken")
        for row in articles[:most]:
            found = row["payload"]
            broken = found["broken_links"]
            style = "yellow" if broken else ""
            numbers = (found["words"], found["reading_minutes"], found["links"])
            cells = [row["name"], *(f"{n:,}" for n in numbers), str(len(broken)) if broken else "-"]
            table.add_row(*(Text(cell, style) for cell in cells))
        self._print_table(table)
        if len(articles) > most:
            self.say(f"and {len(articles) - most} more", "dim")
        first = next(((r["name"], b) for r in articles for b in r["payload"]["broken_links"]), None)
        if first:
            name, link = first
            self.say(f"for example {name}, line {link['line']}: {link['target']}", "yellow")

    def takeovers(self, takeovers: Sequence[Row], killed_at: datetime) -> None:
        """Print whose run each was, whose it is, and the seconds in between."""
        table = _table("~", "", "", "", header=False)
        for row in takeovers:
            after = (row["started_at"] - killed_at).total_seconds()
            heir = self.labels.get(row["worker_id"], row["worker_id"])
            table.add_row(
                Text(row["name"]),
                Text(row["type"], _STYLES[row["type"]]),
                Text(f"from {row['lost_by']}", "dim"),
                Text(f"to worker {heir}, {after:.1f} s later"),
            )
        self._print_table(table)

    def timeline(self, title: str, events: Sequence[Row]) -> None:
        """Print the events of a run with the seconds since its creation."""
        self.say("")
        self.say(title, "bold")
        table = _table(">", "", "~", header=False)
        for event in events:
            after = (event["at"] - events[0]["at"]).total_seconds()
            style = _STYLES.get(event["type"], "")
            detail = Text(self._detail(event), style or "dim")
            table.add_row(Text(f"{after:.3f}", "dim"), Text(event["type"], style), detail)
        self._print_table(table)

    def summary(self, lines: Sequence[tuple[str, str, str]]) -> None:
        """Print names, numbers and what they mean."""
        table = _table("", ">", "~", header=False)
        for name, number, meaning in lines:
            table.add_row(Text(name), Text(number, "bold"), Text(meaning, "dim"))
        self._print_table(table)

    def kept(self, dsn: str, home: Path) -> None:
        """Tell how to go on by hand, and how to end it."""
        folder = shlex.quote(str(home))
        self.say("")
        self.say("The database is still there. In the folder of pgflow:")
        for command in (
            f"export PGFLOW_DSN={shlex.quote(dsn)}",
            "pgflow runs",
            "pgflow worker --app examples.editorial.app:app &",
            """pgflow enqueue review '{"folder": ".", "name": "README.md"}'""",
            "pgflow inbox",
            'psql "$PGFLOW_DSN" -c "select pgflow.approve(task_id, \'fine\') from pgflow.inbox"',
            f"PGFLOW_DATA_DIR={folder} pgflow dev --stop && rm -r {folder}",
        ):
            self.say(f"  {command}", "cyan")

    def failure(self, text: str) -> None:
        """Print what went wrong."""
        self.say("")
        self.console.print(Text(f"It did not come out as it should: {text}", "red"))

    def _detail(self, event: Row) -> str:
        worker = self.labels.get(event["worker_id"], event["worker_id"])
        return _DETAILS.get(event["type"], "").format(**event, worker=worker)

    def _print_table(self, table: Table) -> None:
        self.console.print(Padding(table, (0, 0, 0, len(_INDENT)), expand=False), soft_wrap=False)


class _Bar(Progress):
    """A progress bar with one task."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        super().__init__(
            TextColumn(_INDENT + "{task.description}", markup=False),
            BarColumn(40),
            MofNCompleteColumn(),
            console=console,
        )
        self._task = self.add_task(what, total=total)

    def show(self, done: int) -> None:
        """Move the bar to so many."""
        self.update(self._task, completed=done)


def _table(*columns: str, header: bool = True) -> Table:
    """Return a table; a name begins with > for a column of numbers, with ~ for one that folds."""
    table = Table(
        box=None, show_header=header, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0)
    )
    for name in columns:
        table.add_column(
            name.lstrip("~>"),
            justify="right" if name.startswith(">") else "left",
            no_wrap=not name.startswith("~"),
            overflow="fold",
        )
    return table
