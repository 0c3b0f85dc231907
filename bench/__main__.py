"""Measures pgflow on one server in one run: python -m bench --help."""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
from pathlib import Path

import click
import psycopg
from rich.console import Console
from rich.table import Table

from bench.measures import measures
from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate

Result = float | dict[str, float]


@click.command()
@click.option("--dsn", help="An empty database to measure in; else an embedded server of its own.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved; the medians are shown.")
@click.option(
    "--scale", default=1.0, show_default=True, help="How much of a full run: 0.1 is quick."
)
@click.option("--only", help="Only measures whose name contains this.")
@click.option("--json", "json_file", type=click.Path(), help="Write the results there as JSON.")
def main(
    dsn: str | None, rounds: int, scale: float, only: str | None, json_file: str | None
) -> None:
    """Measure drain, enqueue and latencies beside the bare SQL loop that bounds them.

    Compare numbers of one run only: the ratios say more than the rates.
    """
    if dsn is not None:
        report(dsn, run(dsn, rounds, scale, only), json_file)
        return
    with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as folder:
        Path(folder).chmod(0o755)
        settings = {"shared_buffers": "1GB", "max_wal_size": "4GB"}
        with EmbeddedServer(Path(folder) / "data", settings=settings) as server:
            report(server.dsn, run(server.dsn, rounds, scale, only), json_file)


def run(dsn: str, rounds: int, scale: float, only: str | None) -> dict[str, list[Result]]:
    """Take all measures in each round, one after the other, so that noise hits all alike."""
    migrate(dsn)
    results: dict[str, list[Result]] = {}
    for number in range(1, rounds + 1):
        for name, measure in measures(scale).items():
            if only is None or only in name:
                results.setdefault(name, []).append(measure(dsn))
                Console(stderr=True).print(f"round {number}: {name}: {_shown(results[name][-1])}")
    return results


def report(dsn: str, results: dict[str, list[Result]], json_file: str | None) -> None:
    """Print the medians beside the bound, and write all rounds as JSON."""
    table = Table("measure", "median", "rounds", "of the bare loop")
    bound = _median(results.get("bare SQL loop, runs/s", []))
    for name, rounds in results.items():
        median = _median(rounds)
        share = ""
        if name.startswith("drain") and isinstance(median, float) and isinstance(bound, float):
            share = f"{median / bound:.2f}"
        table.add_row(name, _shown(median), "  ".join(_shown(r) for r in rounds), share)
    Console(width=140).print(table)
    if json_file:
        with psycopg.connect(dsn) as conn:
            version = conn.info.parameter_status("server_version")
        facts = {
            "python": platform.python_version(),
            "postgres": version,
            "system": platform.platform(),
        }
        Path(json_file).write_text(
            json.dumps({"facts": facts, "results": results}, indent=2) + "\n"
        )


def _median(rounds: list[Result]) -> Result | None:
    if not rounds:
        return None
    if isinstance(rounds[0], dict):
        return {
            k: statistics.median(r[k] for r in rounds if isinstance(r, dict)) for k in rounds[0]
        }
    return statistics.median(r for r in rounds if isinstance(r, float))


def _shown(result: Result | None) -> str:
    if isinstance(result, dict):
        return " ".join(f"{name} {value:.2f}" for name, value in result.items())
    return "" if result is None else f"{result:,.0f}"


if __name__ == "__main__":
    main()
