"""Rounds of all measures over all peers, peer beside peer; and what becomes of their results."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import machine
from bench.peers.catalogue import BY_NAME, PEERS, PGFLOW, Peer
from bench.peers.environments import NotInstallable, call_init, prepare
from bench.peers.ground import Place, Sizes
from bench.peers.measures import MEASURES, Measure
from bench.peers.processes import DriverFailed, order
from bench.server import database, server
from bench.usage import Meter, others

FULL: Final = Sizes(2.0, 4.0, singles=200, gap=0.05, waits=2000, history=1_000_000)
QUICK: Final = Sizes(0.5, 0.7, singles=30, gap=0.05, waits=200, history=50_000)
# Of the machine's cores, in use by others: a round in which it was more is told apart.
QUIET: Final = 0.15

console = Console(stderr=True)


def chosen(names: Sequence[str]) -> list[Peer]:
    """Return pgflow and the peers of these names; all where none are named."""
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise click.UsageError(
            f"no such peer: {', '.join(unknown)}; there are {', '.join(BY_NAME)}"
        )
    return [PGFLOW, *(peer for peer in PEERS if not names or peer.name in names)]


def alone() -> list[Peer]:
    """Return pgflow."""
    return [PGFLOW]


def run(
    dsn: str | None, peers: Sequence[Peer], rounds: int, sizes: Sizes, only: str | None
) -> dict[str, Any]:
    """Take all measures of all peers, round by round, and return what is written as JSON."""
    measures = {name: m for name, m in MEASURES.items() if only is None or only in name}
    with server(dsn) as admin, ExitStack() as stack:
        meter = Meter(admin)
        facts = machine.facts(admin)
        places, skipped = {}, {}
        for peer in peers:
            try:
                places[peer.name] = stack.enter_context(installed(peer, admin, meter))
            except (NotInstallable, DriverFailed) as error:
                skipped[peer.name] = str(error)
                console.print(f"[yellow]{peer.name} is not measured[/]: {error}")
        results = list(_rounds(places, rounds, measures, sizes))
        facts["commit_ms_after"] = machine.commit_latency(admin)
    return {
        "facts": facts,
        "sizes": sizes.__dict__,
        "versions": {name: BY_NAME[name].version for name in places if name != PGFLOW.name},
        "skipped": skipped,
        "results": results,
    }


@contextmanager
def installed(peer: Peer, admin: str, meter: Meter) -> Iterator[Place]:
    """Install a peer, and its schema in a database that measures make copies of."""
    with console.status(f"{peer.name}: installing"):
        environment = prepare(peer)
    with database(admin) as dsn:
        if peer.init:
            call_init(environment, dsn)
        order(environment, dsn, "install")
        yield Place(environment, admin, dsn.rpartition("/")[2], meter)


def _rounds(
    places: dict[str, Place], rounds: int, measures: dict[str, Measure], sizes: Sizes
) -> Iterator[dict[str, Any]]:
    """Yield a line per round, measure and peer."""
    plan = [
        (number, name, place)
        for number in range(1, rounds + 1)
        for name, measure in measures.items()
        for place in places.values()
        if measure.needs is None or measure.needs in place.peer.features
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=len(plan))
        for number, name, place in plan:
            peer = place.peer.name
            progress.update(task, description=f"round {number}: {name}: {peer}")
            line = {"round": number, "measure": name, "peer": peer}
            yield line | _taken(measures[name], place, sizes)
            progress.advance(task)


def _taken(measure: Measure, place: Place, sizes: Sizes) -> dict[str, Any]:
    """Return what a measure gave, or why it gave nothing, and who else used the machine."""
    peer = place.peer.name
    before, began = place.meter.read(), time.monotonic()
    try:
        taken: dict[str, Any] = {"numbers": measure.take(place, sizes)}
        shown = "  ".join(f"{k} {v:,.4g}" for k, v in taken["numbers"].items())
    except (DriverFailed, subprocess.TimeoutExpired, psycopg.Error) as error:
        # One peer that fails must not end the measures of all others.
        taken = {"error": f"{type(error).__name__}: {str(error)[-1500:]}"}
        shown = f"[red]{taken['error']}"
    elsewhere = others(before, place.meter.read())
    flag = f" [yellow]others used {elsewhere:.2f} cores" if elsewhere > QUIET else ""
    console.print(f"{peer}: {measure.name}: {shown} [dim]{time.monotonic() - began:.1f} s{flag}")
    return {**taken, "others": round(elsewhere, 3), "noisy": elsewhere > QUIET}


def write(results: dict[str, Any], path: Path) -> None:
    """Write results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(results), indent=1) + "\n")


def _rounded(value: Any) -> Any:
    """Return the same with numbers of four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
