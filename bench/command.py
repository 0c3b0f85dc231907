"""The commands of the benchmark."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from bench import growth
from bench.charts import draw
from bench.page import NOTHING, PAGE, RESULTS, ROOT, compared, costs, page
from bench.peers.catalogue import PEERS, PGFLOW
from bench.peers.environments import CACHE
from bench.peers.plan import FULL, QUICK, chosen, run
from bench.report import LATENCIES, RATES, Report
from bench.rounds import write

_dsn = click.option(
    "--dsn", help="URL of a server to measure on, as superuser; else one of its own."
)
_quick = click.option("--quick", is_flag=True, help="One short round: minutes, for a first look.")
_rounds = click.option("--rounds", type=click.IntRange(min=1), help="3, or 1 with --quick.")
_only = click.option("--only", help="Only measures whose name contains this.")
_json = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Where to write the results; a whole full run goes to bench/results, others to .bench.",
)


@click.group()
def main() -> None:
    """Measure pgflow. Compare numbers of one run only: the ratios say more than the rates."""


@main.command("alone")
@_dsn
@_quick
@_rounds
@_only
@_json
def alone_command(
    *, dsn: str | None, quick: bool, rounds: int | None, only: str | None, json_file: Path | None
) -> None:
    """Measure pgflow alone, beside the bare SQL loop that bounds it."""
    sizes, path = QUICK if quick else FULL, json_file or CACHE / "alone.json"
    run(dsn, [PGFLOW], rounds or (1 if quick else 3), sizes, only, partial(write, path))


@main.command("peers")
@_dsn
@_quick
@_rounds
@_only
@_json
@click.option("--peers", help=f"Only these, of {', '.join(peer.name for peer in PEERS)}.")
def peers_command(
    *,
    dsn: str | None,
    quick: bool,
    rounds: int | None,
    only: str | None,
    json_file: Path | None,
    peers: str | None,
) -> None:
    """Measure pgflow and its peers on one server, peer beside peer, each as its users drive it."""
    names = [name.strip() for name in peers.split(",")] if peers else []
    sizes = QUICK if quick else FULL
    path = json_file or (CACHE if quick or only or peers else RESULTS) / "peers.json"
    count = rounds or (1 if quick else 3)
    report = Report(run(dsn, chosen(names), count, sizes, only, partial(write, path)))
    for shown in (compared(report, RATES), compared(report, LATENCIES), costs(report)):
        if shown != NOTHING:
            click.echo(f"\n{shown}")


@main.command("growth")
@_dsn
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--scale", type=float, default=1.0, show_default=True, help="How far to go: 0.01 is quick."
)
@_only
@_json
def growth_command(
    *, dsn: str | None, rounds: int, scale: float, only: str | None, json_file: Path | None
) -> None:
    """Measure pgflow as its history, its waits, its queues and its payloads grow, and idle."""
    path = json_file or (CACHE if scale < 1 or only else RESULTS) / "growth.json"
    growth.run(dsn, rounds, scale, only, partial(write, path))


@main.command("page")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=RESULTS,
    help="Where the results are; bench/results.",
)
def page_command(*, results: Path) -> None:
    """Make the tables and charts of docs/benchmarks.md from the results."""
    PAGE.write_text(page(PAGE.read_text(), results))
    for path in (PAGE, *draw(results, PAGE.parent / "charts")):
        click.echo(f"written: {path.relative_to(ROOT)}")
