"""Large flows whose workers and server are killed: each step completes exactly once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from pgflow import Client
from pgflow.embedded import EmbeddedServer
from tests.chaos.conftest import Process, eventually, value

# As large as is promised: PGFLOW_CHAOS_STEPS=1000.
STEPS = int(os.environ.get("PGFLOW_CHAOS_STEPS") or 100)
ELEMENTS = 10 * STEPS
SECONDS = 60 + STEPS
KILLS = 5

pytestmark = pytest.mark.slow


def test_each_step_of_large_flows_completes_once_though_workers_and_server_are_killed(
    durable: EmbeddedServer, start: Callable[[], Process]
) -> None:
    work = {"handler": "work", "queue": "chaos"}
    names = [f"step_{number}" for number in range(STEPS)]
    diamond = [
        {"name": "first", **work},
        *({"name": name, "needs": ["first"], **work} for name in names),
        {"name": "last", "needs": names, **work},
    ]
    fan = [{"name": "each", "each": "$[*]", **work}, {"name": "after", "needs": ["each"], **work}]
    with Client(durable.dsn) as client:
        client.define_flow({"name": "diamond", "steps": diamond})
        client.define_flow({"name": "fan", "steps": fan})
        client.start("diamond")
        client.start("fan", list(range(ELEMENTS)))
    steps = STEPS + 2 + ELEMENTS + 1
    workers = [start(), start()]
    for kill in range(1, KILLS + 1):
        share = kill * steps // (KILLS + 2)
        eventually(durable, f"select count(*) > {share} from effect", SECONDS)
        victim = workers.pop(0)
        victim.kill()
        victim.wait()
        if kill in {2, 4}:
            os.kill(durable.pid, signal.SIGKILL)
            durable.start()
        workers.append(start())
    eventually(durable, "select not exists (select from pgflow.run)", SECONDS)

    assert value(durable, "select count(*) from pgflow.runs where state = 'completed'") == steps + 2
    assert value(durable, "select count(*) from pgflow.runs") == steps + 2
    # The step that is done for each has no run of its own.
    done = "select count(*) from pgflow.flow_step where state = 'completed' and version = 0"
    assert value(durable, done) == value(durable, "select count(*) from pgflow.flow_step")
    assert value(durable, done) == steps + 1
    told = "select count(*) from pgflow.timeline where type = 'step.completed'"
    assert value(durable, told) == STEPS + 4
    not_by_one_execution = """
        select count(*) from pgflow.flow_step s
        left join pgflow.run_finished f on f.run_id = s.child_run_id
        where s.child_run_id is not null
          and (f.parent_run_id is distinct from s.run_id or s.output is distinct from f.output
               or f.output <> to_jsonb(f.lease_no)
               or not exists (select from effect e
                              where e.run_id = f.run_id and e.lease_no = f.lease_no))"""
    assert value(durable, not_by_one_execution) == 0
    counted = f"""
        select count(*) from pgflow.flow_step
        where step = 'last' and (needs_settled, needs_completed) = ({STEPS}, {STEPS})
           or step = 'each' and elements = {ELEMENTS} and elements_left = 0"""
    assert value(durable, counted) == 2
    assert value(durable, "select count(*) from pgflow.event where type = 'run.requeued'") > 0
    for worker in workers:
        worker.terminate()
