"""Makes the parts of docs/benchmarks.md that come from the results, so that none drifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.peers.catalogue import BY_NAME
from bench.report import (
    COSTS,
    FLOWS,
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
    growth = Report.read(results / "growth.json")
    return {
        **{name: part(peers) if peers else NOTHING for name, part in PEERS.items()},
        **{name: part(growth) if growth else NOTHING for name, part in GROWTH.items()},
    }


def picture(name: str) -> str:
    """Return a link to a chart."""
    return f"![{name}](charts/{name}.png)"


def machine(report: Report) -> str:
    """Return where and when it was measured."""
    facts, rounds = report.data["facts"], report.data["rounds"]
    settings = ", ".join(f"{name} = {value}" for name, value in facts["settings"].items())
    before, after = shown(facts["commit_ms"]), shown(facts.get("commit_ms_after"))
    return (
        f"{facts['date']}: {facts['cores']} cores ({facts['processor']}),"
        f" {facts['memory_gib']} GiB, {facts['kernel']}, Python {facts['python']}, PostgreSQL"
        f" {facts['postgresql']} with {settings}. A transaction that writes one row took"
        f" {before} ms before and {after} ms after."
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
    names = report.subjects()
    found = [f for f in figures if any(report.median(f, peer=name) for name in names)]
    if not found:
        return NOTHING
    rows = [
        (f"**{name}**" if name == PGFLOW else name, *(cell(report, f, peer=name) for f in found))
        for name in names
    ]
    better = [
        (f"pgflow : {name}", *(times(report.ratio(figure, name)) for figure in found))
        for name in names
        if name != PGFLOW
    ]
    head = ("", *(figure.title for figure in found))
    return f"{table(head, rows)}\n\nHow many times better pgflow is:\n\n{table(head, better)}"


def costs(report: Report) -> str:
    """Return what a no-op run costs, on both sides."""
    if not any(report.median(figure, peer=name) for name in report.subjects() for figure in COSTS):
        return NOTHING
    rows = [
        (name, *(cell(report, figure, peer=name) for figure in COSTS)) for name in report.subjects()
    ]
    return table(("", *(figure.title for figure in COSTS)), rows)


def flows(report: Report) -> str:
    """Return what flows of pgflow's cost, small and large ones."""
    rows = [(f.title, cell(report, f, peer=PGFLOW)) for f in FLOWS if report.median(f, peer=PGFLOW)]
    return table(("", PGFLOW), rows) if rows else NOTHING


def endurance(report: Report) -> str:
    """Return what is left of a drain with history and under a held snapshot."""
    rows = []
    for name in report.subjects():
        fifths = [
            shown(report.median(Figure("", HELD.measure, number), peer=name))
            for number in ("fifth_1", "fifth_5")
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
            where = f"{line['peer']}, {line['measure']}, round {line['round']}"
            lines.append(f"- {where}: {line['error']}")
    noisy = sum(line["noisy"] for line in report.lines)
    lines.append(
        f"- Others used the machine in {noisy} of {len(report.lines)} measures. These count only"
        " where there is no quiet round of the same; ~ marks them."
    )
    return "\n".join(lines)


def beside(report: Report) -> str:
    """Return drains and pickups beside what has grown."""
    figures = ("rate", "server_us", "p50", "p99", "worker_mb")
    rows = []
    for measure in ("finished runs", "waiting runs", "scheduled runs", "queues", "projects"):
        first: float | None = None
        for x in report.points(measure):
            rate = report.median(Figure("", measure), x=x)
            first = first or rate
            cells = [cell(report, Figure("", measure, number), x=x) for number in figures]
            share = times(rate / first) if rate and first else "-"
            rows.append((f"{measure}: {x:,}", cells[0], share, *cells[1:]))
    head = ("beside", "runs/s", "of the first", "server µs", "pickup p50 ms", "p99 ms", "worker MB")
    return table(head, rows)


def snapshot(report: Report) -> str:
    """Return the fifths of a long drain, with and without a snapshot held."""
    rows = []
    for x in report.points("snapshot"):
        runs = report.median(Figure("", "snapshot", "runs"), x=x)
        fifths = [cell(report, Figure("", "snapshot", f"fifth_{n}"), x=x) for n in range(1, 6)]
        rows.append((f"{shown(runs)} runs, snapshot: {x}", *fifths))
    return table(("runs/s in each fifth", "1", "2", "3", "4", "5"), rows)


def payloads(report: Report) -> str:
    """Return rates by the size of the input."""
    measure = "payload bytes"
    figures = ("enqueue_rate", "rate", "mb_per_s", "server_us", "worker_us")
    rows = [
        (f"{x:,} bytes", *(cell(report, Figure("", measure, number), x=x) for number in figures))
        for x in report.points(measure)
    ]
    head = ("input", "enqueued/s", "ended/s", "MB/s", "server µs", "worker µs")
    return table(head, rows)


def handlers(report: Report) -> str:
    """Return rates of handlers that take time."""
    rows = []
    for measure in report.subjects("measure"):
        if measure.startswith("handlers"):
            for x in report.points(measure):
                cells = [
                    cell(report, Figure("", measure, number), x=x)
                    for number in ("rate", "share", "worker_us", "server_us")
                ]
                rows.append((measure, f"{x:,}", *cells))
    head = ("", "concurrency", "runs/s", "of the best possible", "worker µs", "server µs")
    return table(head, rows)


def idle(report: Report) -> str:
    """Return what an idle installation uses."""
    figures = {
        "transactions a minute": "transactions_per_minute",
        "ms of processor time a minute, worker": "worker_ms_per_minute",
        "server": "server_ms_per_minute",
        "connections": "connections",
        "MB, worker": "worker_mb",
    }
    rows = [
        (x, *(cell(report, Figure("", "idle", number), x=x) for number in figures.values()))
        for x in report.points("idle")
    ]
    return table(("", *figures), rows)


def cell(report: Report, figure: Figure, **label: Any) -> str:
    """Return a median, marked where no round of it was quiet."""
    median = report.median(figure, **label)
    return shown(median) + ("~" if median and report.is_noisy(figure, **label) else "")


PEERS: Final[Mapping[str, Callable[[Report], str]]] = {
    "machine": machine,
    "who": who,
    "rates": lambda report: f"{compared(report, RATES)}\n\n{picture('peers-drain')}",
    "latencies": lambda report: f"{compared(report, LATENCIES)}\n\n{picture('peers-pickup')}",
    "costs": lambda report: f"{costs(report)}\n\n{picture('peers-cost')}",
    "flows": flows,
    "endurance": endurance,
    "losses": losses,
    "missing": missing,
}
GROWTH: Final[Mapping[str, Callable[[Report], str]]] = {
    "growth_machine": machine,
    "beside": lambda report: f"{beside(report)}\n\n{picture('growth')}",
    "snapshot": lambda report: f"{snapshot(report)}\n\n{picture('growth-snapshot')}",
    "payloads": payloads,
    "handlers": handlers,
    "idle": idle,
}
