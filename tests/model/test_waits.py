"""Random programs of runs that wait: for people, tools, signals, time, children and operators.

`PGFLOW_MODEL_EXAMPLES=1000 make pytest ARGS=tests/model` runs that many, each time others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

from tests.model.journeys import Journey
from tests.model.people_calls import PeopleCalls
from tests.model.wait_invariants import LOOK, QUERY
from tests.sql.conftest import Engine, Row

MORE = os.environ.get("PGFLOW_MODEL_EXAMPLES")
PROGRAMS = settings(
    max_examples=int(MORE or 40),
    stateful_step_count=70,
    derandomize=MORE is None,
    database=None,
    phases=[Phase.generate],  # to make a program that fails shorter takes minutes
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# How often which verbs are called in which situation.
VERBS = {
    "always": ["time_moves_on"] * 2 + ["pause", "enqueue", "fork", "signal"],
    "running": ["park"] * 6 + ["record_step"] * 2 + ["complete", "fail", "release"],
    "pending": ["acquire"] * 6,
    "paused": ["resume"] * 4,
    "people": ["decide"] * 6 + ["hand_over"] * 2,
    "tool": ["resolve_tool"] * 2 + ["fail_tool"],
    "event": ["signal"] * 2,
    "seldom": ["cancel"],
}


def known(run: Journey) -> Row:
    """Return what the model says of a run, as the engine's row of it."""
    voided = [f"{no} {key}" for no, key in run.voided]
    live = {
        "news": run.news,
        "deadline": run.deadline,
        "waits_for": None if run.waits_for is None else sorted(run.waits_for),
        "waits": sorted(wait.key for wait in run.waits),
    }
    return {
        "state": run.state,
        "attempt": run.attempt,
        "lease_no": run.lease_no,
        "round": run.round,
        "journal": [f"{key} {entry.kind}" for key, entry in run.journal.items()],
        "voided": sorted(voided + [f"{no} {key} replaced" for no, key in run.replaced]),
        "open": sorted(task.key for task in run.open_tasks()),
        "tasks": sorted(f"{task.task_id} {task.state}" for task in run.tasks),
        "mailbox": [f"{s.number} {s.taken_as or '-'}" for s in run.mailbox],
        **(live if run.is_live else {**dict.fromkeys(live), "waits": []}),
    }


class Programs(PeopleCalls):
    """Any order of calls, and what must be true after each."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.enqueue(data)
        self.enqueue(data)
        self.acquire(data)

    @rule(data=st.data(), any_verb=st.integers(0, 15).map(lambda n: n == 0))
    def call(self, data: st.DataObject, *, any_verb: bool) -> None:
        """Call a verb, mostly one for which there is something to do."""
        runs = self.model.live()
        situations = {run.state for run in runs} | {w.kind for run in runs for w in run.waits}
        situations |= {"people" for run in runs if run.open_tasks()} | {"always"}
        verbs = [v for s in VERBS if any_verb or s in situations for v in VERBS[s]]
        method: Callable[[st.DataObject], Any] = getattr(self, data.draw(st.sampled_from(verbs)))
        method(data)

    @invariant()
    def the_engine_is_as_the_model(self) -> None:
        rows = self.engine.rows(LOOK, list(self.model.runs))
        engine = {row.pop("run_id"): row for row in rows}
        differences = [
            (run_id, what, engine[run_id][what], value)
            for run_id, run in self.model.runs.items()
            for what, value in known(run).items()
            if engine[run_id][what] != value
        ]
        assert differences == []

    @invariant()
    def the_tables_are_sound(self) -> None:
        assert self.engine.rows(QUERY) == []


def test_every_run_waits_and_goes_on_as_the_model_says(engine: Engine) -> None:
    programs = cast("type[Programs]", partial(Programs, engine, engine.now))
    run_state_machine_as_test(programs, settings=PROGRAMS)
