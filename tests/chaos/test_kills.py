"""Real processes, real signals: every run ends exactly once, and no late result counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg
import pytest

from pgflow import Client
from pgflow.embedded import EmbeddedServer
from pgflow.errors import ServerUnreachable
from tests.chaos.conftest import APP, Process, eventually, value

RUNS = 10_000

pytestmark = pytest.mark.slow


def check_all_ended_once(server: EmbeddedServer, runs: int) -> None:
    """Compare what the handlers noted with what the engine accepted."""
    assert value(server, "select count(*) from pgflow.run") == 0
    assert value(server, "select count(*) from pgflow.run_finished") == runs
    assert value(server, "select count(*) from pgflow.runs where state = 'completed'") == runs
    accepted_without_execution = """
        select count(*) from pgflow.run_finished f
        where not exists (select from effect e
                          where e.run_id = f.run_id and e.lease_no = f.lease_no)
           or f.output <> to_jsonb(f.lease_no)"""
    assert value(server, accepted_without_execution) == 0
    lost_without_a_line = """
        select count(*) from effect e
        join pgflow.run_finished f using (run_id)
        where e.lease_no <> f.lease_no
          and not exists (select from pgflow.event v
                          where v.run_id = e.run_id and v.lease_no = e.lease_no
                            and v.type in ('run.requeued', 'run.released', 'run.retried'))"""
    assert value(server, lost_without_a_line) == 0
    lines = """
        select count(*) from (
            select from pgflow.timeline where type = 'run.completed'
            group by run_id having count(*) <> 1) twice"""
    assert value(server, lines) == 0


def test_workers_and_the_server_are_killed_and_every_run_ends_exactly_once(
    durable: EmbeddedServer, start: Callable[[], Process]
) -> None:
    with Client(durable.dsn) as client:
        client.enqueue_many("work", [None] * RUNS, queue="chaos")
    workers = [start() for _ in range(4)]
    for second in range(10):
        time.sleep(1)
        victim = workers.pop(0)
        victim.kill()
        victim.wait()
        workers.append(start())
        if second == 5:
            os.kill(durable.pid, signal.SIGKILL)
            durable.start()
    eventually(durable, "select not exists (select from pgflow.run)")
    check_all_ended_once(durable, RUNS)
    lost = value(durable, "select count(*) from pgflow.event where type = 'run.requeued'")
    executed = value(durable, "select count(*) from effect")
    print(f"{RUNS} runs, {executed} executed to their end, {lost} leases lost")  # noqa: T201
    assert lost > 0
    for worker in workers:
        worker.terminate()
    assert [worker.wait(timeout=40) for worker in workers] == [0] * 4


def test_runs_that_wait_go_on_after_everything_was_killed_and_do_each_step_once(
    durable: EmbeddedServer, start: Callable[[], Process]
) -> None:
    workers = [start(), start()]
    with Client(durable.dsn) as client:
        client.enqueue_many("publish", [None] * 50, queue="chaos")
    eventually(durable, "select count(*) = 50 from pgflow.inbox")
    eventually(durable, "select count(*) = 2 from pgflow.worker")
    for worker in workers:
        worker.kill()
    os.kill(durable.pid, signal.SIGKILL)
    durable.start()
    workers = [start(), start()]
    # A process that is still being loaded ends by SIGTERM itself.
    eventually(durable, "select count(*) = 4 from pgflow.worker")
    with psycopg.connect(durable.dsn, autocommit=True) as anybody:
        anybody.execute("select pgflow.approve(task_id, 'fine') from pgflow.inbox")
    eventually(durable, "select not exists (select from pgflow.run)")
    assert value(durable, "select count(*) from pgflow.runs where state = 'completed'") == 50
    assert value(durable, "select count(*) from trace") == 100
    assert value(durable, "select count(distinct (run_id, step)) from trace") == 100
    for worker in workers:
        worker.terminate()
    assert [worker.wait(timeout=40) for worker in workers] == [0, 0]


def test_a_fan_out_whose_workers_and_server_are_killed_counts_each_element_once(
    durable: EmbeddedServer, start: Callable[[], Process]
) -> None:
    steps = [
        {"name": "work", "each": "$[*]", "queue": "chaos"},
        {"name": "after", "handler": "work", "queue": "chaos", "needs": ["work"]},
    ]
    with Client(durable.dsn) as client:
        client.define_flow({"name": "fan", "steps": steps})
        run_id = client.start("fan", list(range(1500)))
    workers = [start(), start()]
    for second in range(4):
        eventually(durable, f"select count(*) > {second * 200} from effect")
        victim = workers.pop(0)
        victim.kill()
        victim.wait()
        workers.append(start())
        if second == 2:
            os.kill(durable.pid, signal.SIGKILL)
            durable.start()
    eventually(durable, "select not exists (select from pgflow.run)")
    assert value(durable, "select count(*) from pgflow.runs where state = 'completed'") == 1502
    with psycopg.connect(durable.dsn) as conn:
        outputs = conn.execute(
            "select s.output = (select jsonb_agg(c.output order by split_part(c.parent_key, '#',"
            " 2)::integer) from pgflow.runs c where c.parent_run_id = %s and c.step = 'work')"
            " and s.elements = 1500 and s.elements_left = 0 from pgflow.flow_steps s"
            " where s.flow_run_id = %s and s.step = 'work' and s.element = 0",
            (run_id, run_id),
        ).fetchone()
    assert outputs == (True,)
    for worker in workers:
        worker.terminate()


def test_a_worker_that_is_stopped_past_its_lease_and_wakes_is_refused(
    durable: EmbeddedServer, start: Callable[[], Process]
) -> None:
    sleeper = start()
    with Client(durable.dsn) as client:
        client.enqueue_many("work", [None] * 300, queue="chaos")
    eventually(durable, "select count(*) > 0 from pgflow.run where state = 'running'")
    sleeper.send_signal(signal.SIGSTOP)
    other = start()
    eventually(durable, "select not exists (select from pgflow.run)")
    sleeper.send_signal(signal.SIGCONT)
    requeued = value(durable, "select count(*) from pgflow.event where type = 'run.requeued'")
    assert requeued > 0
    # The sleeper still notes the executions that it was in, and says all that it had to say.
    sleeper.terminate()
    assert sleeper.wait(timeout=40) == 0
    check_all_ended_once(durable, 300)
    other.terminate()
    assert other.wait(timeout=40) == 0


def test_a_terminated_worker_gives_back_what_it_cannot_finish_and_uses_no_attempt(
    durable: EmbeddedServer, start: Callable[[], Process]
) -> None:
    worker = start()
    with Client(durable.dsn) as client:
        client.enqueue_many("work", [None] * 2000, queue="chaos")
    eventually(durable, "select count(*) > 100 from pgflow.run_finished")
    worker.terminate()
    worker.terminate()
    assert worker.wait(timeout=40) == 0
    assert value(durable, "select count(*) from pgflow.run where state <> 'pending'") == 0
    assert value(durable, "select coalesce(max(attempt), 0) from pgflow.run") == 0
    start()
    eventually(durable, "select not exists (select from pgflow.run)")
    check_all_ended_once(durable, 2000)


def test_a_server_that_is_nowhere_ends_a_worker_at_once() -> None:
    process = subprocess.run(
        [sys.executable, str(APP), "host=127.0.0.1 port=1 dbname=x"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 1
    assert ServerUnreachable.__name__ in process.stderr
