"""What the results say: medians over rounds, and ratios between peers within a round."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

PGFLOW: Final = "pgflow"


@dataclass(frozen=True)
class Figure:
    """One number of one measure. Of rates the higher is better, of the others the lower.

    `theirs` is the measure of peers that stands beside it, where it is not the same.
    """

    title: str
    measure: str
    number: str = "rate"
    theirs: str | None = None

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Which is better."""
        return "higher" if self.number == "rate" else "lower"


RATES: Final = (
    Figure("enqueue, 1 connection", "enqueue, 1 connection"),
    Figure("enqueue, 8 connections", "enqueue, 8 connections"),
    Figure("in bulk", "bulk"),
    Figure("drain, 1 worker", "drain, 1 worker"),
    Figure("drain, 2 workers", "drain, 2 workers"),
    Figure("runs of 3 steps", "drain, 3 steps"),
    Figure("woken at once", "signal, all at once"),
    Figure("flows of 3 steps", "drain, flows of 3 steps", theirs="drain, 3 steps"),
)
LATENCIES: Final = (
    Figure("pickup p50", "pickup", "p50"),
    Figure("pickup p99", "pickup", "p99"),
    Figure("result p50", "result", "p50"),
    Figure("signal p50", "signal", "p50"),
    Figure("signal p99", "signal", "p99"),
    Figure("approval p50", "approval", "p50"),
    Figure("approval p99", "approval", "p99"),
)
COSTS: Final = (
    Figure("server µs", "drain, 1 worker", "server_us"),
    Figure("worker µs", "drain, 1 worker", "worker_us"),
    Figure("server cores", "drain, 1 worker", "server_cores"),
    Figure("worker cores", "drain, 1 worker", "worker_cores"),
    Figure("WAL of a whole life, bytes", "drain, 1 worker", "wal_life"),
)
FLOWS: Final = (
    Figure("flows of 3 steps a second", "drain, flows of 3 steps"),
    *(
        Figure(f"µs a step among {parallel:,}", "flow, diamonds", f"step_us_{parallel}")
        for parallel in (10, 100, 1000)
    ),
    Figure("1,000 : 10", "flow, diamonds", "ratio"),
    *(
        Figure(f"of {elements:,} elements a second", "flow, fan-outs", f"rate_{elements}")
        for elements in (1000, 10_000)
    ),
)
HISTORY: Final = Figure("with history", "drain, history")
HELD: Final = Figure("under a snapshot", "drain, held snapshot")
DRAIN: Final = RATES[3]


class Report:
    """The results of one file: lines of rounds, with what was measured and of whom."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.lines: list[dict[str, Any]] = data["results"]

    @classmethod
    def read(cls, path: Path) -> Report | None:
        """Read a file of results, or return None where there is none yet."""
        return cls(json.loads(path.read_text())) if path.exists() else None

    def subjects(self, key: str = "peer") -> list[Any]:
        """Return who, or what, was measured, in the order of the lines."""
        return list(dict.fromkeys(line[key] for line in self.lines if key in line))

    def points(self, measure: str) -> list[Any]:
        """Return the points of a curve."""
        return list(dict.fromkeys(x["x"] for x in self.lines if x["measure"] == measure))

    def by_round(self, figure: Figure, **label: Any) -> dict[int, float]:
        """Return a figure by round; without noisy rounds where there are quiet ones."""
        wanted = {"measure": figure.measure, **label}
        beside = figure.theirs is not None and label.get("peer") != PGFLOW
        if beside and self.by_round(figure, peer=PGFLOW):
            wanted["measure"] = figure.theirs
        lines = [
            line
            for line in self.lines
            if figure.number in line.get("numbers", {})
            and all(line.get(key) == value for key, value in wanted.items())
        ]
        quiet = [line for line in lines if not line["noisy"]]
        return {line["round"]: line["numbers"][figure.number] for line in quiet or lines}

    def median(self, figure: Figure, **label: Any) -> float | None:
        """Return the median over the rounds."""
        found = self.by_round(figure, **label)
        return statistics.median(found.values()) if found else None

    def is_noisy(self, figure: Figure, **label: Any) -> bool:
        """Tell whether others used the machine in all rounds of a figure."""
        wanted = {"measure": figure.measure, **label}
        lines = [x for x in self.lines if all(x.get(k) == v for k, v in wanted.items())]
        return bool(lines) and all(line["noisy"] for line in lines)

    def ratio(self, figure: Figure, peer: str) -> float | None:
        """Return how many times better pgflow is than a peer: the median of ratios of rounds."""
        ours, theirs = self.by_round(figure, peer=PGFLOW), self.by_round(figure, peer=peer)
        common = [number for number in ours if theirs.get(number) and ours[number]]
        if not common:
            mine, other = self.median(figure, peer=PGFLOW), self.median(figure, peer=peer)
            ratios = [mine / other] if mine and other else []
        else:
            ratios = [ours[number] / theirs[number] for number in common]
        if not ratios:
            return None
        ratio = statistics.median(ratios)
        return ratio if figure.better == "higher" else 1 / ratio

    def share(self, changed: Figure, peer: str) -> float | None:
        """Return what is left of a peer's drain under another condition."""
        whole, left = self.median(DRAIN, peer=peer), self.median(changed, peer=peer)
        return left / whole if whole and left else None


def shown(number: float | None) -> str:
    """Return a number with three significant digits or more."""
    if number is None:
        return "-"
    return (
        f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    )


def times(number: float | None) -> str:
    """Return a ratio."""
    return "-" if number is None else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
