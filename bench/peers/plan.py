"""All measures of all peers on one server, peer beside peer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import click

from bench import machine
from bench.peers.catalogue import BY_NAME, PEERS, PGFLOW, Peer
from bench.peers.environments import NotInstallable, initialize, prepare
from bench.peers.ground import Place, Sizes
from bench.peers.measures import MEASURES
from bench.peers.processes import DriverFailed, order
from bench.rounds import Step, brief, collect, console, rounds
from bench.server import database, server
from bench.usage import Meter

FULL: Final = Sizes(1.5, 3.5, singles=200, gap=0.03, waits=2000, history=1_000_000)
QUICK: Final = Sizes(0.5, 0.7, singles=30, gap=0.03, waits=200, history=50_000)


def chosen(names: Sequence[str]) -> list[Peer]:
    """Return pgflow and the peers of these names; all where none are named."""
    if unknown := [name for name in names if name not in BY_NAME]:
        raise click.UsageError(
            f"no such peer: {', '.join(unknown)}; there are {', '.join(BY_NAME)}"
        )
    return [PGFLOW, *(peer for peer in PEERS if not names or peer.name in names)]


def run(
    dsn: str | None,
    peers: Sequence[Peer],
    count: int,
    sizes: Sizes,
    only: str | None,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Take all measures of all peers, and return what is written as JSON; save after each."""
    with server(dsn) as admin, ExitStack() as stack:
        meter = Meter(admin)
        facts = machine.facts(admin)
        places: list[Place] = []
        skipped: dict[str, str] = {}
        for peer in peers:
            try:
                places.append(stack.enter_context(installed(peer, admin, meter)))
            except (NotInstallable, DriverFailed) as error:
                skipped[peer.name] = brief(error)
                console.print(f"[yellow]{peer.name} is not measured[/]: {error}")
        told = {
            "facts": facts,
            "sizes": dataclasses.asdict(sizes),
            "rounds": count,
            "versions": {place.peer.name: place.peer.version for place in places},
            "skipped": skipped,
        }
        return collect(told, rounds(plan(places, sizes, only), count, meter), save, admin)


@contextmanager
def installed(peer: Peer, admin: str, meter: Meter) -> Iterator[Place]:
    """Install a peer, and its schema in a database that measures make copies of."""
    with console.status(f"{peer.name}: installing"):
        environment = prepare(peer)
    with database(admin) as dsn:
        initialize(environment, dsn)
        order(environment, dsn, "install")
        yield Place(environment, admin, dsn, meter)


def plan(places: Sequence[Place], sizes: Sizes, only: str | None) -> list[Step]:
    """Return a round: measure by measure, and in each peer by peer."""
    return [
        Step(
            {"measure": name, "peer": place.peer.name},
            partial(measure.take, place, sizes),
            once=measure.once,
        )
        for name, measure in MEASURES.items()
        if only is None or only in name
        for place in places
        if measure.needs is None or measure.needs in place.peer.features
    ]
