"""Random flows with random ends: what runs, with which input, and how it ends is as the model says.

`PGFLOW_MODEL_EXAMPLES=1000 make pytest ARGS=tests/model` runs that many, each time others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.model.dags import Dag, Step
from tests.sql.conftest import Engine, Lease, Row
from tests.sql.flows import define, step_run, task_of

MORE = os.environ.get("PGFLOW_MODEL_EXAMPLES")
FLOWS = settings(
    max_examples=int(MORE or 60),
    derandomize=MORE is None,
    database=None,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
# A step that has a run is at work, whatever that does just now.
STATES = """
    select step, case when state in ('pending', 'waiting') and run_id is not null then 'running'
                      else state end as state
    from pgflow.flow_steps where flow_run_id = %s and voided_at is null"""
JOINS = [None, None, "all", "any", "none_failed", "one_failed"]


@st.composite
def dags(draw: st.DrawFn) -> dict[str, Step]:
    """Draw steps, each of which may need some before it and have one after it run on failure."""
    names = [f"s{number}" for number in range(draw(st.integers(3, 8)))]
    needs = [
        draw(st.sets(st.sampled_from(names[:n]), max_size=2)) if n else set()
        for n in range(len(names))
    ]
    steps: dict[str, Step] = {}
    for number, name in enumerate(names):
        later = [n for n in names[number + 1 :] if name not in needs[names.index(n)]]
        mends = {step.runs_on_failure for step in steps.values()}
        handled = [need for need in sorted(needs[number]) if not steps[need].is_gate]
        steps[name] = Step(
            name,
            tuple(sorted(needs[number])),
            # One that is run on failure has but one join.
            join=draw(st.sampled_from(JOINS)) if needs[number] and name not in mends else None,
            on_failure=draw(st.sampled_from(["fail", *["continue"] * 6])),
            runs_on_failure=draw(st.sampled_from([None, None, None, *later])),
            when=draw(st.sampled_from([None] * 6 + ["", *handled])),
            is_gate=bool(needs[number]) and draw(st.integers(0, 2)) == 2,
            max_attempts=draw(st.sampled_from([1, 1, 2])),
        )
    return steps


class Program:
    """A flow in the engine and in the model, and the leases that a worker has."""

    def __init__(self, engine: Engine, data: st.DataObject) -> None:
        self.engine = engine
        self.data = data
        steps = data.draw(dags())
        self.model = Dag(steps, data.draw(st.integers(0, 1)))
        define(engine, *(step.definition() for step in steps.values()))
        self.run_id: UUID = engine.tell("start", flow="f", input={"n": self.model.given})
        self.held: dict[str, Lease] = {}

    def play(self) -> None:
        """Do what can be done, in any order, until the flow has ended."""
        self.look()
        while self.model.state == "running":
            self.acquire()
            choices: list[Callable[[], None]] = []
            if self.held:
                choices += [self.complete, self.complete, self.fail]
            if self.model.running(gates=True):
                choices += [self.approve, self.approve, self.reject]
            if len(self.model.added_in) < 5:
                choices.append(self.add)
            if self.model.round < 3:
                choices += [self.roll_back] * 2 if self.model.running(gates=True) else []
                choices += [self.retry] * 3 if self.failed() else []
            self.data.draw(st.sampled_from(choices))()
            self.look()

    def look(self) -> None:
        """Compare the engine with the model."""
        states = self.engine.rows(STATES, self.run_id)
        assert {row["step"]: row["state"] for row in states} == self.model.states
        state = self.engine.state(self.run_id)
        waits = not self.model.running(gates=False) and self.model.state == "running"
        assert state == ("waiting_approval" if waits else self.model.state)
        begun = self.engine.rows(
            "select step, count(*) from pgflow.runs where parent_run_id = %s group by 1",
            self.run_id,
        )
        assert {row["step"]: row["count"] for row in begun} == dict(self.model.begun)
        self.engine.timeline(self.run_id)
        live = self.engine.value(
            "select count(*) from pgflow.run where parent_run_id = %s", self.run_id
        )
        assert live == [*self.model.states.values()].count("running")

    def acquire(self) -> None:
        """Lease what is ready: all that the model has running, with what it has to be given."""
        for lease in self.engine.acquire().leases:
            name = lease.body["flow"]["step"]
            assert name not in self.held
            expected = self.model.inputs[name]
            gates = {n for n in expected if n in self.model.steps and self.model.steps[n].is_gate}
            told = {n: v for n, v in lease.body["input"].items() if n not in gates}
            assert lease.body["input"].keys() == expected.keys()
            assert told == {n: v for n, v in expected.items() if n not in gates}
            self.held[name] = lease
        assert sorted(self.held) == sorted(self.model.running(gates=False))

    def complete(self) -> None:
        """Complete some steps at once."""
        names = self.data.draw(
            st.lists(st.sampled_from(sorted(self.held)), min_size=1, unique=True)
        )
        outputs = {name: self.data.draw(st.integers(0, 1)) for name in names}
        leases = [self.held.pop(name) for name in names]
        self.model.complete(outputs)
        assert self.engine.complete(*leases, outputs=[json.dumps(outputs[n]) for n in names]) == []
        self.forget()

    def fail(self) -> None:
        """Fail an execution; it is done again if it may be, after a second."""
        name, retried = self.draw(self.held), self.data.draw(st.booleans())
        self.model.fail(name, retried=retried)
        self.engine.fail(self.held.pop(name), retries=[None if retried else False])
        self.engine.later(seconds=2)
        self.engine.beat(*self.held.values())
        self.forget()

    def add(self) -> None:
        """Add a step, from outside or as one that is executed."""
        needs = self.data.draw(st.sets(st.sampled_from(sorted(self.model.steps)), max_size=2))
        before = needs.union(*(self.model.before(name) for name in needs))
        later = [n for n, s in self.model.states.items() if s == "pending" and n not in before]
        needed_by = self.data.draw(
            st.lists(st.sampled_from(later), max_size=2, unique=True) if later else st.just([])
        )
        gates = {name for name in needs if self.model.steps[name].is_gate}
        step = Step(
            f"a{len(self.model.added_in)}",
            tuple(sorted(needs)),
            join=self.data.draw(st.sampled_from(JOINS)) if needs else None,
            on_failure=self.data.draw(st.sampled_from(["fail", *["continue"] * 6])),
            when=self.data.draw(st.sampled_from([None] * 4 + ["", *sorted(needs - gates)])),
            is_gate=bool(needs) and self.data.draw(st.integers(0, 2)) == 2,
        )
        adder = self.data.draw(st.sampled_from([None, *sorted(self.held)]))
        self.model.add(step, needed_by, adder)
        how: Row = {"lease_no": self.held[adder].lease_no} if adder else {}
        how["run_id"] = self.held[adder].run_id if adder else self.run_id
        for is_new in (True, False):
            added = self.engine.tell("add_step", step=step.definition(), needed_by=needed_by, **how)
            assert added is is_new

    def approve(self) -> None:
        """Approve a gate."""
        name = self.draw(self.model.running(gates=True))
        self.engine.approve(task_of(self.engine, self.run_id, name))
        self.model.complete({name: 1})

    def reject(self) -> None:
        """Reject a gate."""
        name = self.draw(self.model.running(gates=True))
        self.engine.reject(task_of(self.engine, self.run_id, name))
        self.model.reject(name)
        self.forget()

    def roll_back(self) -> None:
        """Reject a gate and name a step before it."""
        name = self.draw(self.model.running(gates=True))
        back_to = self.draw(self.model.before(name))
        task_id = task_of(self.engine, self.run_id, name)
        self.engine.reject(task_id, rollback_to=back_to)
        self.model.go_back(back_to)
        self.forget()

    def retry(self) -> None:
        """Have a step that failed done again."""
        name = self.draw(self.failed())
        self.engine.tell("retry", run_id=step_run(self.engine, self.run_id, name))
        self.model.go_back(name)
        self.forget()

    def failed(self) -> list[str]:
        """Return the steps whose runs failed."""
        return [name for name, state in self.model.states.items() if state == "failed"]

    def forget(self) -> None:
        """See leases refused whose steps the model no longer has running under them."""
        for name, lease in [*self.held.items()]:
            if self.engine.state(lease.run_id) != "running":
                assert self.engine.complete(lease)[0]["outcome"] == "lost"
                del self.held[name]

    def draw(self, names: Iterable[str]) -> str:
        """Draw a name."""
        return self.data.draw(st.sampled_from(sorted(names)))


def test_every_flow_does_what_the_model_does(engine: Engine) -> None:
    @FLOWS
    @given(st.data())
    def play(data: st.DataObject) -> None:
        engine.place.put_back()  # what a program left that failed
        engine.worker()
        Program(engine, data).play()

    play()
