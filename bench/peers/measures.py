"""What is measured. Rates are per second, latencies in ms, processor time in µs per run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.flows import diamonds, fan_outs, three_steps
from bench.loop import end_all
from bench.peers.catalogue import Feature
from bench.peers.drains import drain, drain_under_snapshot, drain_with_history
from bench.peers.ground import Place, Sizes
from bench.peers.latencies import pickup, result, signal, signal_all
from bench.peers.processes import order
from bench.rounds import Numbers


def enqueue(place: Place, sizes: Sizes, connections: int) -> Numbers:
    """Enqueue one by one from one process over some connections."""
    many = {"seconds": sizes.seconds, "connections": connections}
    with place.fresh() as dsn:
        return {"rate": order(place.environment, dsn, "enqueue", **many)["rate"]}


def bulk(place: Place, sizes: Sizes) -> Numbers:
    """Enqueue in bulk."""
    with place.fresh() as dsn:
        numbers, _ = place.fill(dsn, place.count(sizes))
        return numbers


def bare_loop(place: Place, sizes: Sizes) -> Numbers:
    """Drain by pgflow's SQL alone, as fast as one connection can call it."""
    with place.fresh() as dsn:
        place.load(dsn, place.count(sizes))
        return {"rate": end_all(dsn, "bench")}


@dataclass(frozen=True)
class Measure:
    """A measure, the feature that a peer must have for it, and whether one round is enough."""

    name: str
    take: Callable[[Place, Sizes], Numbers]
    needs: Feature | None = None
    once: bool = False


_ALL = (
    Measure("enqueue, 1 connection", lambda place, sizes: enqueue(place, sizes, 1)),
    Measure("enqueue, 8 connections", lambda place, sizes: enqueue(place, sizes, 8)),
    Measure("bulk", bulk, "bulk"),
    Measure("bare SQL loop", bare_loop, "loop"),
    Measure("drain, 1 worker", drain),
    Measure("drain, 2 workers", lambda place, sizes: drain(place, sizes, 2)),
    Measure("drain, history", drain_with_history, "history", once=True),
    Measure("drain, held snapshot", drain_under_snapshot),
    Measure("drain, 3 steps", lambda place, sizes: drain(place, sizes, kind="steps"), "steps"),
    Measure("drain, flows of 3 steps", three_steps, "flow"),
    Measure("flow, diamonds", diamonds, "flow"),
    Measure("flow, fan-outs", fan_outs, "flow"),
    Measure("pickup", pickup),
    Measure("result", result, "result"),
    Measure("signal", signal, "signal"),
    Measure("approval", lambda place, sizes: signal(place, sizes, "ask"), "approval"),
    Measure("signal, all at once", signal_all, "signal"),
)

MEASURES: Final[Mapping[str, Measure]] = {measure.name: measure for measure in _ALL}
