"""Flows: many small ones, diamonds of more and more parallel steps, and fan-outs."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.peers.ground import Place, Sizes
from bench.peers.processes import workers
from bench.rounds import Failed, Numbers
from bench.server import connect, settle, value
from bench.usage import Snapshot, used

INPUT = {"pad": "x" * 70}


def three_steps(place: Place, sizes: Sizes) -> Numbers:
    """Drain flows of three steps, each of which needs the one before."""
    flows = max(20, place.count(sizes, "steps") // 5)
    steps = [_step("one"), _step("two", "one"), _step("three", "two")]
    with place.fresh() as dsn:
        numbers = drained(place, dsn, steps, flows, 3 * flows)
    return {**numbers, "rate": numbers["rate"] / 3}


def diamonds(place: Place, sizes: Sizes) -> Numbers:
    """End diamonds, many small ones or a big one: what a step costs, in µs, and how it grows."""
    numbers: Numbers = {}
    costs = []
    for share in (100, 10, 1):
        parallel = max(1, sizes.flow // share)
        names = [f"step_{number}" for number in range(parallel)]
        steps = [_step("first"), *(_step(name, "first") for name in names), _step("last", *names)]
        with place.fresh() as dsn:
            taken = drained(place, dsn, steps, share, share * len(steps))
        costs.append(1e6 / taken["rate"])
        numbers |= {f"step_us_{parallel}": costs[-1], "rate": taken["rate"]}
    return {**numbers, "ratio": costs[-1] / costs[0]}


def fan_outs(place: Place, sizes: Sizes) -> Numbers:
    """End a step that is done for each of many elements, and for ten times as many."""
    numbers: Numbers = {}
    for elements in (sizes.flow, 10 * sizes.flow):
        items = [INPUT] * elements
        with place.fresh() as dsn:
            taken = drained(place, dsn, [_step("each", each="$[*]")], 1, elements, items)
        numbers |= {f"rate_{elements}": taken["rate"], "rate": taken["rate"]}
    return numbers


def drained(
    place: Place, dsn: str, steps: list[dict[str, Any]], flows: int, runs: int, given: Any = None
) -> Numbers:
    """Start flows of these steps, have a worker end all their runs, and tell how many a second."""
    with connect(dsn) as conn:
        definition = json.dumps({"name": "bench", "steps": steps})
        conn.execute("select pgflow.define_flow(%s::jsonb)", (definition,))
        conn.execute(
            "select pgflow.start('bench', %s::jsonb) from generate_series(1, %s)",
            (json.dumps(INPUT if given is None else given), flows),
        )
    settle(dsn)
    with workers(place.environment, dsn) as (worker,), connect(dsn) as conn:
        pids = [worker.process.pid]
        deadline = time.monotonic() + 300
        before: tuple[Snapshot, int] | None = None
        while conn.execute("select exists (select from pgflow.run)").fetchone() == (True,):
            if time.monotonic() > deadline:
                raise Failed(f"{value(dsn, 'select count(*) from pgflow.run')} runs are left")
            time.sleep(0.02)
            handled = worker.last.count
            if handled and before is None:
                before = place.meter.read(pids), handled
        ended = time.monotonic() * 1e6
        after = place.meter.read(pids)
        while worker.last.count < runs:
            if time.monotonic() > deadline:
                raise Failed(f"{worker.last.count} of {runs} steps were executed")
            time.sleep(0.02)
    first = min(tick.first for tick in worker.ticks if tick.first)
    numbers: Numbers = {"runs": runs, "rate": runs / ((ended - first) / 1e6)}
    if before is not None and runs > before[1]:
        numbers |= used(before[0], after, runs - before[1])
    return numbers


def _step(name: str, *needs: str, **more: str) -> dict[str, Any]:
    """Return a step whose handler does nothing."""
    return {"name": name, "handler": "noop", "queue": "bench", "needs": list(needs), **more}
