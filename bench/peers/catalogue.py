"""Who is measured: how each peer is installed and set up, what it can do, keeps and promises.

The settings are the fastest that a sweep over the documented options found on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Feature = Literal["result", "steps", "signal", "approval", "loop"]


@dataclass(frozen=True)
class Peer:
    """One system beside which pgflow is measured, or pgflow itself.

    `pace` is how many no-op runs a second one worker process is expected to end: it sizes the
    drains. `unfinished` counts the runs that have not ended, `waiting` those that wait for a
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
    settings: Mapping[str, float] = field(default_factory=dict)
    features: frozenset[Feature] = frozenset()
    waiting: str = ""
    bulk: bool = True
    history: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    python: tuple[int, int] = (3, 11)
    init: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version that is installed."""
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
    features=frozenset({"result", "steps", "signal", "approval", "loop"}),
    unfinished="select count(*) from pgflow.run",
    waiting="select count(*) from pgflow.run where state in ('waiting_event', 'waiting_approval')",
    options="`pgflow worker --concurrency 500`; clients on connections of their own",
    keeps="each run with input, output, hashes and timeline, until it is removed",
    promises="at least once, results exactly once; every write fenced by the lease's number;"
    " ends written at once, those at hand together",
    history={"pgflow.run_finished": {"run_id": "pgflow.uuid7()"}},
)

PEERS: Final = (
    Peer(
        name="pgqueuer",
        runtime="python",
        packages=("pgqueuer[asyncpg]==1.6.0", "uvloop"),
        pace=28_000,
        settings={"batch": 250},
        features=frozenset({"result"}),
        unfinished="select count(*) from pgqueuer",
        options="asyncpg under uvloop, batch_size=250, no limit of concurrency",
        keeps="a log row per change of state, rolled up; payloads are deleted",
        promises="at least once; ends by id, unfenced; ends written at 250 or after 0.1 s",
        history={"pgqueuer_log": {"id": "default", "job_id": "s.job_id + g * 1000000"}},
    ),
    Peer(
        name="graphile-worker",
        runtime="node",
        packages=("graphile-worker@0.18.0", "pg", "node@22"),
        pace=70_000,
        settings={"concurrency": 24, "local_queue": 500},
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
        unfinished="select count(*) from pgboss.job where state in ('created', 'retry', 'active')",
        options="batchSize=1000, burstWhenBatchFull, notify, supervision off",
        keeps="each job with data and output, for days",
        promises="at least once; ends only what is active; a batch ends as a whole",
        history={"pgboss.job": {"id": "gen_random_uuid()"}},
    ),
)

BY_NAME: Final[Mapping[str, Peer]] = {peer.name: peer for peer in (PGFLOW, *PEERS)}
