"""Rounds: the same measures several times over, so that noise hits all of them alike."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.machine import commit_latency
from bench.usage import Meter, others

Numbers = dict[str, float]
# Cores in use by who has no part in it: a measure during which it was more is marked as noisy.
QUIET: Final = 0.15

console = Console(stderr=True, soft_wrap=True, highlight=False)


class Failed(Exception):
    """A measure gave nothing; the message says why."""


@dataclass(frozen=True)
class Step:
    """One measure of one subject: `label` says which, `take` takes it; `once`: in round 1 only."""

    label: dict[str, Any]
    take: Callable[[], Numbers]
    once: bool = False


def rounds(plan: Sequence[Step], count: int, meter: Meter) -> Iterator[dict[str, Any]]:
    """Take all measures of a plan in each round, and yield a line for each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        singles = sum(step.once for step in plan)
        task = progress.add_task("", total=count * (len(plan) - singles) + singles)
        for number in range(1, count + 1):
            for step in plan if number == 1 else [step for step in plan if not step.once]:
                name = ": ".join(str(part) for part in step.label.values())
                progress.update(task, description=f"round {number}: {name}")
                yield {"round": number, **step.label, **_taken(step, name, meter)}
                progress.advance(task)


def _taken(step: Step, name: str, meter: Meter) -> dict[str, Any]:
    """Return what a measure gave, or why it gave nothing, and who else used the machine."""
    before, began = meter.read(), time.monotonic()
    try:
        numbers = step.take()
        taken: dict[str, Any] = {"numbers": numbers}
        shown = "  ".join(f"{key} {number:,.4g}" for key, number in numbers.items())
    except (Failed, subprocess.TimeoutExpired, psycopg.Error) as error:
        # One that fails must not end the measures of all others.
        console.print(str(error), markup=False)
        taken = {"error": brief(error)}
        shown = "[red]failed[/]"
    elsewhere = others(before, meter.read())
    noisy = elsewhere > QUIET
    flag = f" [yellow]others used {elsewhere:.2f} cores[/]" if noisy else ""
    console.print(f"{name}: {shown} [dim]{time.monotonic() - began:.1f} s[/]{flag}")
    return {**taken, "others": elsewhere, "noisy": noisy}


def collect(
    told: dict[str, Any],
    lines: Iterator[dict[str, Any]],
    save: Callable[[dict[str, Any]], None],
    admin: str,
) -> dict[str, Any]:
    """Return what is told with all lines, and save it after each: a long run may be cut off."""
    results: list[dict[str, Any]] = []
    for line in lines:
        results.append(line)
        save({**told, "results": results})
    told["facts"]["commit_ms_after"] = commit_latency(admin)
    save({**told, "results": results})
    return {**told, "results": results}


def brief(error: Exception) -> str:
    """Return the last line of an error, without the paths of this machine."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return re.sub(r"(/[\w.@-]+){2,}", "...", last)[:300]


def write(path: Path, results: dict[str, Any]) -> None:
    """Write results as JSON, a line for each measure."""
    head = {key: part for key, part in results.items() if key != "results"}
    lines = ",\n".join(f"  {json.dumps(_rounded(line))}" for line in results["results"])
    text = json.dumps(_rounded(head), indent=1).removesuffix("\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{text},\n "results": [\n{lines}\n ]\n}}\n')


def _rounded(value: Any) -> Any:
    """Return the same with numbers of four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
