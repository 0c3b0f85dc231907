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
    drawn = []
    folder.mkdir(parents=True, exist_ok=True)
    if peers := Report.read(results / "peers.json"):
        charts = {
            "peers-drain.png": bars(peers, RATES[3:5], "no-op runs a second"),
            "peers-cost.png": bars(peers, COSTS[:2], "µs of processor time per no-op run"),
            "peers-pickup.png": bars(peers, LATENCIES[:2], "ms from enqueue to handler"),
        }
        for name, canvas in charts.items():
            drawn.append(folder / name)
            # Without the version of the library, so that the file says only what is drawn.
            canvas.savefig(drawn[-1], dpi=110, metadata={"Software": None})
    return drawn


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
