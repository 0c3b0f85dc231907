"""Makes the parts of docs/benchmarks.md that come from the results, so that none drifts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.peers.catalogue import BY_NAME
from bench.report import (
    COSTS,
    HELD,
    HISTORY,
    LATENCIES,
    PGFLOW,
    RATES,
    Figure,
    Report,
    shown,
    times,
)
from docs.generate import between_markers, table

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
RESULTS: Final = ROOT / "bench" / "results"
NOTHING: Final = "Not measured yet."


def page(text: str, results: Path) -> str:
    """Return the page with its generated parts as the results say."""
    return between_markers(text, parts(results))


def parts(results: Path) -> dict[str, str]:
    """Return the generated parts by name."""
    peers = Report.read(results / "peers.json")
    made = {"machine", "who", "rates", "latencies", "costs", "endurance", "losses", "missing"}
    if peers is None:
        return dict.fromkeys(made, NOTHING)
    return {
        "machine": machine(peers),
        "who": who(peers),
        "rates": compared(peers, RATES),
        "latencies": compared(peers, LATENCIES),
        "costs": costs(peers),
        "endurance": endurance(peers),
        "losses": losses(peers),
        "missing": missing(peers),
    }


def machine(report: Report) -> str:
    """Return a sentence on where and when it was measured."""
    facts, rounds = report.data["facts"], report.data["rounds"]
    settings = ", ".join(f"{name} = {value}" for name, value in facts["settings"].items())
    return (
        f"{facts['date']}: {facts['cores']} cores ({facts['processor']}),"
        f" {facts['memory_gib']} GiB, {facts['kernel']}, Python {facts['python']}, PostgreSQL"
        f" {facts['postgresql']} with {settings}. A transaction that writes one row took"
        f" {shown(facts['commit_ms'])} ms before and {shown(facts['commit_ms_after'])} ms after."
        f" {rounds} {'round' if rounds == 1 else 'rounds'}."
    )


def who(report: Report) -> str:
    """Return who was measured, how it was set up, and what it keeps and promises."""
    rows = []
    for name in report.subjects():
        peer, version = BY_NAME[name], report.data["versions"][name]
        rows.append((f"{name} {version}", peer.options, peer.keeps, peer.promises))
    return table(("who", "set up with", "keeps", "promises"), rows)


def compared(report: Report, figures: Sequence[Figure]) -> str:
    """Return figures of all, and below how many times better pgflow is."""
    rows = [
        (f"**{name}**" if name == PGFLOW else name, *(cell(report, f, name) for f in figures))
        for name in report.subjects()
    ]
    better = [
        (f"pgflow : {name}", *(times(report.ratio(figure, name)) for figure in figures))
        for name in report.subjects()
        if name != PGFLOW
    ]
    head = ("", *(figure.title for figure in figures))
    return f"{table(head, rows)}\n\nHow many times better pgflow is:\n\n{table(head, better)}"


def costs(report: Report) -> str:
    """Return what a no-op run costs, on both sides."""
    rows = [(name, *(cell(report, figure, name) for figure in COSTS)) for name in report.subjects()]
    return table(("", *(figure.title for figure in COSTS)), rows)


def endurance(report: Report) -> str:
    """Return what is left of a drain with history and under a held snapshot."""
    rows = []
    for name in report.subjects():
        fifths = [
            shown(report.median(Figure("", HELD.measure, number), peer=name))
            for number in ("first_fifth", "last_fifth")
        ]
        count = report.median(Figure("", HELD.measure, "runs"), peer=name)
        shares = [times(report.share(figure, name)) for figure in (HISTORY, HELD)]
        rows.append((name, *shares, shown(count), *fifths))
    history = f"{report.data['sizes']['history']:,}"
    head = ("", f"{history} ended before", "held snapshot", "its runs", "first fifth", "last fifth")
    return table(head, rows)


def losses(report: Report) -> str:
    """Return where a peer is better than pgflow, by more than the noise."""
    lines = []
    for figure in (*RATES, *LATENCIES, COSTS[0], COSTS[1], COSTS[4]):
        ratios = {name: report.ratio(figure, name) for name in report.subjects() if name != PGFLOW}
        ahead = sorted((ratio, name) for name, ratio in ratios.items() if ratio and ratio < 0.95)
        if ahead:
            told = ", ".join(f"{name} {1 / ratio:.1f} times" for ratio, name in ahead)
            lines.append(f"- {figure.title}: {told}")
    return "\n".join(lines) or "Nowhere in these measures."


def missing(report: Report) -> str:
    """Return who could not be measured, and why; and how quiet the machine was."""
    lines = [f"- {name}: {why}" for name, why in report.data["skipped"].items()]
    for line in report.lines:
        if "error" in line:
            why = line["error"].splitlines()[0]
            lines.append(f"- {line['peer']}, {line['measure']}, round {line['round']}: {why}")
    noisy = sum(line["noisy"] for line in report.lines)
    lines.append(
        f"- Others used the machine in {noisy} of {len(report.lines)} measures. These count only"
        " where there is no quiet round of the same; ~ marks them."
    )
    return "\n".join(lines)


def cell(report: Report, figure: Figure, name: str) -> str:
    """Return a median, marked where no round of it was quiet."""
    median = report.median(figure, peer=name)
    return shown(median) + ("~" if median and report.is_noisy(figure, peer=name) else "")
