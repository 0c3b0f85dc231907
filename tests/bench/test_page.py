"""What becomes of results: medians, ratios, the page and the charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.charts import draw
from bench.page import PAGE, RESULTS, page, parts
from bench.report import LATENCIES, RATES, Report
from bench.rounds import write

DRAIN, PICKUP = RATES[3], LATENCIES[0]


def line(number: int, measure: str, peer: str, *, noisy: bool = False, **numbers: float) -> Any:
    return {
        "round": number,
        "measure": measure,
        "peer": peer,
        "numbers": numbers,
        "others": 0.0,
        "noisy": noisy,
    }


def results(*lines: Any, **more: Any) -> dict[str, Any]:
    return {
        "facts": {
            "cores": 2,
            "processor": "some",
            "memory_gib": 8,
            "kernel": "Linux 6",
            "python": "3.11",
            "postgresql": "18",
            "settings": {"fsync": "on"},
            "commit_ms": 0.5,
            "commit_ms_after": 0.25,
            "date": "2026-01-01",
        },
        "sizes": {"history": 1000},
        "rounds": 2,
        "versions": {"pgflow": "1", "pgqueuer": "2"},
        "skipped": {},
        "results": list(lines),
        **more,
    }


def test_flows_stand_beside_what_peers_have_for_them() -> None:
    flows = next(figure for figure in RATES if figure.theirs)
    theirs = line(1, str(flows.theirs), "pgqueuer", rate=5)
    report = Report(results(line(1, flows.measure, "pgflow", rate=20), theirs))

    assert report.ratio(flows, "pgqueuer") == 4
    assert Report(results(theirs)).median(flows, peer="pgqueuer") is None


def test_noisy_rounds_count_only_where_there_is_no_quiet_one() -> None:
    report = Report(
        results(
            line(1, DRAIN.measure, "pgflow", rate=10, noisy=True),
            line(2, DRAIN.measure, "pgflow", rate=30),
            line(3, DRAIN.measure, "pgflow", rate=50),
            line(1, DRAIN.measure, "pgqueuer", rate=7, noisy=True),
        )
    )

    assert report.median(DRAIN, peer="pgflow") == 40
    assert report.median(DRAIN, peer="pgqueuer") == 7
    assert report.is_noisy(DRAIN, peer="pgqueuer")
    assert not report.is_noisy(DRAIN, peer="pgflow")


def test_a_ratio_is_the_median_of_the_ratios_of_rounds() -> None:
    report = Report(
        results(
            *(line(n, DRAIN.measure, "pgflow", rate=r) for n, r in ((1, 100), (2, 10), (3, 30))),
            *(line(n, DRAIN.measure, "pgqueuer", rate=r) for n, r in ((1, 50), (2, 10), (3, 10))),
        )
    )

    assert report.ratio(DRAIN, "pgqueuer") == 2


def test_of_latencies_the_lower_is_the_better() -> None:
    report = Report(
        results(
            line(1, PICKUP.measure, "pgflow", p50=2.0), line(1, PICKUP.measure, "pgqueuer", p50=8.0)
        )
    )

    assert report.ratio(PICKUP, "pgqueuer") == 4


def test_the_page_tells_who_is_better_than_pgflow(tmp_path: Path) -> None:
    told = results(
        line(1, DRAIN.measure, "pgflow", rate=10),
        line(1, DRAIN.measure, "pgqueuer", rate=30),
        line(1, PICKUP.measure, "pgflow", p50=2.0),
        line(1, PICKUP.measure, "pgqueuer", p50=8.0),
    )
    write(tmp_path / "peers.json", told)

    assert parts(tmp_path)["losses"] == "- drain, 1 worker: pgqueuer 3.0 times"


def test_the_page_tells_what_was_not_measured_and_why(tmp_path: Path) -> None:
    failed = {"round": 1, "measure": "bulk", "peer": "pgqueuer", "error": "it broke"}
    told = results(
        {**failed, "others": 1.0, "noisy": True}, skipped={"oban": "there is no Python 3.12"}
    )
    write(tmp_path / "peers.json", told)

    missing = parts(tmp_path)["missing"]
    assert "- oban: there is no Python 3.12\n" in missing
    assert "- pgqueuer, bulk, round 1: it broke\n" in missing
    assert "in 1 of 1 measures" in missing


def test_the_page_tells_what_is_left_beside_many_runs(tmp_path: Path) -> None:
    def point(x: int, rate: float) -> Any:
        label = {"round": 1, "measure": "waiting runs", "x": x}
        return {**label, "numbers": {"rate": rate, "p50": 2.0}, "others": 0.0, "noisy": False}

    write(tmp_path / "growth.json", results(point(0, 1000.0), point(100, 900.0)))

    told = parts(tmp_path)["beside"].splitlines()
    assert told[2] == "| waiting runs: 0 | 1,000 | 1.00 | - | 2.00 | - | - |"
    assert told[3] == "| waiting runs: 100 | 900 | 0.90 | - | 2.00 | - | - |"


def test_the_page_of_the_docs_is_what_the_results_say() -> None:
    assert page(PAGE.read_text(), RESULTS) == PAGE.read_text()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib.*")
def test_charts_are_drawn(tmp_path: Path) -> None:
    told = results(
        line(1, DRAIN.measure, "pgflow", rate=10, server_us=5, worker_us=5),
        line(1, "drain, 2 workers", "pgflow", rate=15),
        line(1, PICKUP.measure, "pgflow", p50=2.0, p99=3.0),
    )
    write(tmp_path / "peers.json", told)

    point = {"round": 1, "measure": "queues", "x": 1, "numbers": {"rate": 1.0}, "noisy": False}
    write(tmp_path / "growth.json", results(point))

    drawn = draw(tmp_path, tmp_path / "charts")

    assert [path.name for path in drawn] == [
        "peers-drain.png",
        "peers-cost.png",
        "peers-pickup.png",
        "growth.png",
        "growth-snapshot.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
