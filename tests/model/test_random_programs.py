"""Random programs of the engine's verbs; after each verb the engine is compared with the model.

`PGFLOW_MODEL_EXAMPLES=1000 make pytest ARGS=tests/model` runs that many, each time others.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

from tests.model.calls import QUEUES, WORKERS, Calls, held
from tests.model.invariants import QUERY
from tests.model.runs import Lease
from tests.sql.conftest import Engine

MORE = os.environ.get("PGFLOW_MODEL_EXAMPLES")
PROGRAMS = settings(
    max_examples=int(MORE or 40),
    stateful_step_count=60,
    derandomize=MORE is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

CLIENT_VERBS = ["enqueue", "resume"] * 2 + ["decide"] * 3 + ["cancel", "pause", "retry", "emit"]
WORKER_VERBS = ["acquire"] * 4 + ["park"] * 3 + ["record_step", "complete", "fail"] * 2
WORKER_VERBS += ["record_usage"] * 2 + ["release", "beat", "register_worker", "stop_worker"]


class Programs(Calls):
    """Any order of calls, and what must be true after each."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for _ in range(4):
            self.enqueue(data)
        self.acquire(data)

    @rule(data=st.data(), verb=st.sampled_from(CLIENT_VERBS + WORKER_VERBS + ["time_moves_on"] * 4))
    def call(self, data: st.DataObject, verb: str) -> None:
        """Call any verb; one rule, because rules are left out of programs at random."""
        if verb in WORKER_VERBS and not self.model.running():
            verb = "acquire"
        getattr(self, verb)(data)

    @invariant()
    def the_engine_is_as_the_model(self) -> None:
        rows = self.engine.rows(
            "select run_id, state, attempt_count, lease_no from pgflow.runs"
            " where run_id = any (%s)",
            list(self.model.runs),
        )
        engine = {r["run_id"]: (r["state"], r["attempt_count"], r["lease_no"]) for r in rows}
        model = {r.run_id: (r.state, r.attempt, r.lease_no) for r in self.model.runs.values()}
        assert engine == model

    @invariant()
    def what_was_spent_is_what_was_told(self) -> None:
        spent = self.engine.rows(
            "select r.run_id, coalesce(r.cost_usd, 0) as cost, b.usd, b.used_usd from pgflow.runs r"
            " left join pgflow.budgets b using (run_id) where r.run_id = any (%s)",
            list(self.model.runs),
        )
        for row in spent:
            run = self.model.runs[row["run_id"]]
            total = sum(run.calls.values())
            assert (row["cost"], row["usd"]) == (total, run.budget)
            assert row["used_usd"] == (None if run.budget is None else total)

    @invariant()
    def the_tables_are_sound(self) -> None:
        assert self.engine.rows(QUERY) == []

    def teardown(self) -> None:
        """Drive every run to its end, unless the program failed before."""
        if sys.exc_info()[0] is not None:
            return
        for worker in WORKERS:
            self._register(worker)
        while self.model.live():
            self._go_on()
            self.the_engine_is_as_the_model()
            self.what_was_spent_is_what_was_told()
            self.the_tables_are_sound()

    def _go_on(self) -> None:
        """Do what a person and a worker do; each run gets nearer to its end by it."""
        for run in self.model.live():
            if run.state == "paused":
                assert self.engine.tell("resume", run_id=run.run_id) == self.model.resume(run)
            for key in sorted(run.waits_for):
                if run.state == "waiting_approval" and run.tasks[key].state == "open":
                    self._decide(run, key, "approved")
        self._later(6)
        for worker in WORKERS:
            self.model.beat(worker, [])
            self.engine.beat(worker_id=worker)
        self._acquire(WORKERS[0], QUEUES, 100, self.marks[WORKERS[0]])
        leases = [Lease(run.run_id, run.lease_no) for run in self.model.running()]
        if leases:
            self.engine.complete(*held(leases))
            self.model.complete(leases, storable=True)


def test_every_program_does_what_the_model_does(engine: Engine) -> None:
    programs = cast("type[Programs]", partial(Programs, engine, engine.now))
    run_state_machine_as_test(programs, settings=PROGRAMS)
