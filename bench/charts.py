"""Draws the results as PNG files for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from bench.report import COSTS, LATENCIES, PGFLOW, RATES, Figure, Report, shown

mpl.use("Agg")
OURS, OURS_TOO, THEIRS, THEIRS_TOO = "#1f5fa8", "#8fb4dd", "#8c8c8c", "#c9c9c9"


def draw(results: Path, folder: Path) -> list[Path]:
    """Draw what there are results of, and return the files."""
    charts: dict[str, Canvas] = {}
    if peers := Report.read(results / "peers.json"):
        charts |= {
            "peers-drain.png": bars(peers, RATES[3:5], "no-op runs a second"),
            "peers-cost.png": bars(peers, COSTS[:2], "µs of processor time per no-op run"),
            "peers-pickup.png": bars(peers, LATENCIES[:2], "ms from enqueue to handler"),
        }
    if growth := Report.read(results / "growth.json"):
        charts |= {"growth.png": curves(growth), "growth-snapshot.png": fifths(growth)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, canvas in charts.items():
        # Without the version of the library, so that the file says only what is drawn.
        canvas.savefig(folder / name, dpi=110, metadata={"Software": None})
    return [folder / name for name in charts]


def bars(report: Report, figures: Sequence[Figure], axis: str) -> Canvas:
    """Return a chart with two bars for each peer; pgflow's have a colour of their own."""
    names = [
        name
        for name in reversed(report.subjects())
        if any(report.median(figure, peer=name) for figure in figures)
    ]
    canvas = Canvas(figsize=(8, 0.6 + 0.42 * len(names)), layout="constrained")
    axes = canvas.subplots()
    height = 0.4
    for place, figure in enumerate(figures):
        numbers = [report.median(figure, peer=name) or 0 for name in names]
        colors = [
            (OURS, OURS_TOO)[place] if name == PGFLOW else (THEIRS, THEIRS_TOO)[place]
            for name in names
        ]
        drawn = axes.barh(
            [y + (0.5 - place) * height for y in range(len(names))],
            numbers,
            height,
            color=colors,
        )
        axes.bar_label(drawn, [f" {shown(number)}" for number in numbers], fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    dark, light = (figure.title for figure in figures)
    axes.set_xlabel(f"{axis}; dark: {dark}, light: {light}")
    axes.spines[["top", "right"]].set_visible(False)
    return canvas


def curves(report: Report) -> Canvas:
    """Return the drains beside what has grown, a small chart each."""
    measures = ("finished runs", "waiting runs", "scheduled runs", "queues", "projects")
    canvas = Canvas(figsize=(10, 2.6), layout="constrained")
    for axes, measure in zip(canvas.subplots(1, len(measures), sharey=True), measures, strict=True):
        rates = {x: report.median(Figure("", measure), x=x) for x in report.points(measure)}
        axes.plot([f"{x:,}" for x in rates], list(rates.values()), marker="o", color=OURS)
        axes.set_title(measure, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.supylabel("no-op runs a second", fontsize=9)
    return canvas


def fifths(report: Report) -> Canvas:
    """Return the rates in the fifths of a long drain, with and without a snapshot held."""
    canvas = Canvas(figsize=(6, 3), layout="constrained")
    axes = canvas.subplots()
    colors = dict(zip(report.points("snapshot"), (OURS_TOO, OURS), strict=False))
    for x, color in colors.items():
        rates = [report.median(Figure("", "snapshot", f"fifth_{n}"), x=x) for n in range(1, 6)]
        axes.plot(range(1, 6), [r or 0 for r in rates], marker="o", color=color, label=x)
    axes.set_xlabel("fifth of the drain")
    axes.set_ylabel("no-op runs a second")
    axes.set_xticks(range(1, 6))
    axes.set_ylim(bottom=0)
    if colors:
        axes.legend(title="snapshot", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return canvas
