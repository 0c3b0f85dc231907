"""Who is measured: how each peer is installed and set up, what it can do, keeps and promises.

The settings are the fastest that a sweep over the documented options found on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from pgflow import __version__

Feature = Literal["bulk", "result", "steps", "signal", "approval", "history", "loop", "flow"]


@dataclass(frozen=True)
class Peer:
    """One system beside which pgflow is measured, or pgflow itself.

    `pace` is how many no-op runs a second one worker process is expected to end: it sizes the
    drains. `unfinished` counts the runs that are ready or at work, `waiting` those that wait for a
    signal. `history` names the tables that keep finished runs, with what a copy of a row changes
    so that it is another row ("default" takes the column's own).
    """

    name: str
    runtime: Literal["pgflow", "python", "node"]
    packages: tuple[str, ...]
    pace: int
    unfinished: str
    options: str
    keeps: str
    promises: str
    settings: Mapping[str, float | str] = field(default_factory=dict)
    features: frozenset[Feature] = frozenset()
    waiting: str = ""
    history: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    python: tuple[int, int] = (3, 11)
    init: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version that is installed."""
        if not self.packages:
            return __version__
        return self.packages[0].rpartition("==" if "==" in self.packages[0] else "@")[2]

    @property
    def driver(self) -> str:
        """The name of its driver's file, without drive_ and the suffix."""
        return self.name.replace("-", "_")


PGFLOW: Final = Peer(
    name="pgflow",
    runtime="pgflow",
    packages=(),
    pace=20_000,
    settings={"concurrency": 500},
    features=frozenset(get_args(Feature)),
    # Two counts, each by its own partial index: beside a million runs that wait one would crawl.
    unfinished="select (select count(*) from pgflow.run where state = 'pending')"
    " + (select count(*) from pgflow.run where state = 'running')",
    waiting="select count(*) from pgflow.run where state in ('waiting_event', 'waiting_approval')",
    options="`pgflow worker --concurrency 500`; clients on connections of their own, but one client"
    " for 8 tasks that enqueue at once, which it writes together",
    keeps="each run with input, output and timeline, for good",
    promises="at least once, results exactly once; every write fenced by the lease's number;"
    " ends written at once, those at hand together",
    history={"pgflow.run_finished": {"run_id": "pgflow._new_id()"}},
)

# What shifts a UUID by the number of its copy, the same way wherever it stands.
_SHIFTED = "overlay({}::text placing lpad(to_hex(g), 4, '0') from 10 for 4)::uuid"

PEERS: Final = (
    Peer(
        name="pgqueuer",
        runtime="python",
        packages=("pgqueuer[asyncpg]==1.6.0", "uvloop"),
        pace=28_000,
        settings={"batch": 250},
        features=frozenset({"bulk", "result", "history"}),
        unfinished="select count(*) from pgqueuer",
        options="asyncpg under uvloop, batch_size=250, no limit of concurrency",
        keeps="a log row per change of state; the payload is deleted",
        promises="at least once; ends by id, unfenced; ends are written at 250 or after 0.1 s",
        history={"pgqueuer_log": {"id": "default", "job_id": "s.job_id + g * 1000000"}},
    ),
    Peer(
        name="procrastinate",
        runtime="python",
        packages=("procrastinate==3.10.0",),
        pace=1_100,
        settings={"concurrency": 20, "pool": 8},
        features=frozenset({"bulk", "history"}),
        unfinished="select count(*) from procrastinate_jobs where status in ('todo', 'doing')",
        options="concurrency=20, a pool of 8, jobs kept (the default)",
        keeps="each job with its arguments, and an event per change of state",
        promises="at least once, if the user writes the task that rescues stalled jobs; ends by id,"
        " unfenced; each end written at once",
        history={
            "procrastinate_jobs": {"id": "default"},
            "procrastinate_events": {"id": "default", "job_id": "(random() * 1000000)::bigint"},
        },
    ),
    Peer(
        name="chancy",
        runtime="python",
        packages=("chancy==0.26.0",),
        pace=4_000,
        settings={"concurrency": 200, "result_poll": 0.01},
        features=frozenset({"bulk", "result", "history"}),
        unfinished="select count(*) from chancy_jobs"
        " where state in ('pending', 'running', 'retrying')",
        options="async executor, concurrency=200, eager_polling; results polled every 10 ms",
        keeps="each job, until a plugin prunes it",
        promises="at least once; ends fenced by the claim's id; ends are written once a second",
        history={"chancy_jobs": {"id": "gen_random_uuid()"}},
    ),
    Peer(
        name="oban",
        runtime="python",
        packages=("oban==0.7.0", "uvloop"),
        python=(3, 12),
        pace=2_300,
        settings={"concurrency": 200, "pool": 10},
        features=frozenset({"bulk", "history"}),
        unfinished="select count(*) from oban_jobs"
        " where state in ('available', 'executing', 'scheduled', 'retryable')",
        options="the open engine under uvloop, limit 200, a pool of 10",
        keeps="each job with its arguments, until a plugin prunes it",
        promises="at least once; ends only what is executing; jobs older than 5 minutes are rescued"
        " by age, alive or not",
        history={"oban_jobs": {"id": "default"}},
    ),
    Peer(
        name="graphile-worker",
        runtime="node",
        packages=("graphile-worker@0.18.0", "pg", "node@22"),
        pace=70_000,
        settings={"concurrency": 24, "local_queue": 500},
        features=frozenset({"bulk"}),
        unfinished="select count(*) from graphile_worker.jobs",
        options="localQueue.size=500, concurrentJobs=24, completeJobBatchDelay=0",
        keeps="nothing of jobs that succeeded",
        promises="at least once; ends by id, unfenced; a dead worker's jobs come back after 4 h",
    ),
    Peer(
        name="pg-boss",
        runtime="node",
        packages=("pg-boss@12.35.0", "pg", "node@22"),
        pace=38_000,
        settings={"batch": 1000},
        features=frozenset({"bulk", "history"}),
        unfinished="select count(*) from pgboss.job where state in ('created', 'retry', 'active')",
        options="batchSize=1000, burstWhenBatchFull, notify; supervision off",
        keeps="each job with data and output, for days",
        promises="at least once; ends only what is active; a batch succeeds or fails as a whole",
        history={"pgboss.job": {"id": "gen_random_uuid()"}},
    ),
    Peer(
        name="absurd",
        runtime="python",
        packages=("absurd-sdk==0.5.1", "absurdctl"),
        init=("absurdctl", "init", "-d"),
        pace=1_700,
        settings={"concurrency": 200, "poll": 0.25},
        features=frozenset({"result", "steps", "signal", "history"}),
        unfinished="select count(*) from absurd.t_q"
        " where state not in ('completed', 'failed', 'cancelled')",
        waiting="select count(*) from absurd.t_q where state = 'sleeping'",
        options="AsyncAbsurd, concurrency=200, poll_interval=0.25 (the default)",
        keeps="each task with its runs, steps and result",
        promises="at least once, steps saved once; ends fenced by the run's id; it polls",
        history={
            "absurd.t_q": {
                "task_id": _SHIFTED.format("s.task_id"),
                "last_attempt_run": _SHIFTED.format("s.last_attempt_run"),
            },
            "absurd.r_q": {
                "run_id": _SHIFTED.format("s.run_id"),
                "task_id": _SHIFTED.format("s.task_id"),
            },
        },
    ),
    Peer(
        name="pgtask",
        runtime="python",
        packages=("pgtask==0.4.0",),
        pace=2_100,
        settings={"concurrency": 200, "pool": 30},
        features=frozenset({"bulk", "result", "steps", "signal"}),
        unfinished="select count(*) from pgtask.tasks"
        " where state in ('pending', 'running', 'waiting')",
        waiting="select count(*) from pgtask.tasks where state = 'waiting'",
        options="concurrency=200, 30 connections; at most 8,000 tasks at hand",
        keeps="each task with its attempts, steps and result",
        promises="at least once, steps saved once; every write fenced by a token",
    ),
    Peer(
        name="dbos",
        runtime="python",
        packages=("dbos==3.4.0",),
        pace=3_000,
        settings={
            "concurrency": 1000,
            "threads": 16,
            "step_threads": 4,
            "poll": 0.05,
            "pool": 20,
            "result_poll": 0.01,
        },
        features=frozenset({"result", "steps", "signal", "history"}),
        unfinished="select count(*) from dbos.workflow_status"
        " where status in ('ENQUEUED', 'PENDING', 'DELAYED')",
        waiting="select count(*) from dbos.workflow_status where status = 'PENDING'",
        options="plain functions in 16 threads (4 for steps), queues polled every 50 ms, results"
        " every 10 ms; waiting workflows stay in memory",
        keeps="each workflow with input, output and steps",
        promises="at least once, steps saved once; ends fenced by their owner; another host's"
        " workflows come back with a paid service",
        history={"dbos.workflow_status": {"workflow_uuid": "gen_random_uuid()::text"}},
    ),
)

BY_NAME: Final[Mapping[str, Peer]] = {peer.name: peer for peer in (PGFLOW, *PEERS)}
