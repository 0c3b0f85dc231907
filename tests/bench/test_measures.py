"""The harness on its smallest sizes, so that it doesn't rot. Nothing here asserts a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bench import growth, machine
from bench.peers.catalogue import PEERS, PGFLOW, Peer
from bench.peers.environments import NotInstallable, prepare
from bench.peers.ground import Place, Sizes
from bench.peers.measures import MEASURES
from bench.peers.plan import installed, plan
from bench.rounds import Failed, Step, rounds
from bench.server import value
from bench.usage import Meter

pytestmark = pytest.mark.slow

TINY = Sizes(0.1, 0.001, singles=3, gap=0.0, waits=20, history=2000, flow=20)


@pytest.fixture(scope="module")
def place(server: str) -> Iterator[Place]:
    with installed(PGFLOW, server, Meter(server)) as place:
        yield place


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_of_pgflow_gives_numbers(place: Place, name: str) -> None:
    numbers = MEASURES[name].take(place, TINY)

    assert numbers.get("rate", numbers.get("p50", 0)) > 0


@pytest.mark.parametrize("grow", [growth.finished, growth.waiting, growth.scheduled])
def test_what_grows_is_made_of_rows_that_are_real(place: Place, grow: growth.Grow) -> None:
    with place.fresh() as dsn:
        grow(place, dsn, 3000)

        assert value(dsn, "select count(distinct run_id) from pgflow.runs") == 3000
        assert value(dsn, "select count(distinct state) from pgflow.runs") == 1


def test_runs_are_drained_and_picked_up_beside_many_others(place: Place) -> None:
    numbers = growth.beside(place, growth.waiting, 2000, runs=100, singles=2)

    assert min(numbers[name] for name in ("rate", "p50", "worker_mb")) > 0


@pytest.mark.parametrize(
    "take",
    [
        lambda place: growth.snapshot(place, "held", 200),
        lambda place: growth.queues(place, 3, 200),
        lambda place: growth.projects(place, 3, 200),
        lambda place: growth.payloads(place, 10_000, 0.001),
        lambda place: growth.handlers(place, 0.01, 10, 0.01),
    ],
    ids=["snapshot", "queues", "projects", "payloads", "handlers"],
)
def test_a_point_of_a_curve_gives_a_rate(
    place: Place, take: Callable[[Place], dict[str, float]]
) -> None:
    assert take(place)["rate"] > 0


def test_an_idle_worker_has_three_connections(place: Place) -> None:
    assert growth.idle(place, 0.5)["connections"] == 3


def test_a_round_goes_measure_by_measure_and_in_each_peer_by_peer(place: Place) -> None:
    labels = [step.label for step in plan([place, place], TINY, "enqueue")]

    assert [label["measure"] for label in labels] == [
        "enqueue, 1 connection",
        "enqueue, 1 connection",
        "enqueue, 8 connections",
        "enqueue, 8 connections",
    ]


def test_a_measure_that_fails_says_so_and_ends_no_other(server: str) -> None:
    def fail() -> dict[str, float]:
        raise Failed("it broke:\nno such file: /home/somebody/file")

    steps = [Step({"measure": "bad"}, fail), Step({"measure": "good"}, lambda: {"rate": 1.0})]
    lines = list(rounds(steps, 2, Meter(server)))

    assert [line["measure"] for line in lines] == ["bad", "good", "bad", "good"]
    assert lines[0]["error"] == "no such file: ..."
    assert lines[3]["numbers"] == {"rate": 1.0}


def test_a_peer_that_cannot_be_installed_says_why() -> None:
    peer = Peer(
        name="too-new",
        runtime="python",
        packages=("too-new==1",),
        python=(3, 999),
        pace=1,
        unfinished="",
        options="",
        keeps="",
        promises="",
    )
    with pytest.raises(NotInstallable, match=r"no Python 3\.999 or newer"):
        prepare(peer)


def test_each_peer_has_a_driver_and_is_pinned(request: pytest.FixtureRequest) -> None:
    drivers = request.config.rootpath / "bench" / "peers" / "drivers"
    for peer in PEERS:
        suffix = "mjs" if peer.runtime == "node" else "py"
        assert (drivers / f"drive_{peer.driver}.{suffix}").exists()
        assert peer.version[0].isdigit()


def test_the_machines_facts_have_no_names_and_no_paths(server: str) -> None:
    facts = machine.facts(server)

    assert facts["cores"] >= 1
    assert facts["commit_ms"] > 0
    assert not any("/" in str(fact) for fact in facts.values())
