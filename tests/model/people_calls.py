"""Verbs of people, tools and operators, each told to the engine and to the model."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.model.asked import KEYS, PERSONS
from tests.model.calls import said
from tests.model.journeys import Journey, Signal, Task
from tests.model.wait_calls import MOST_RUNS, STEPS, WaitCalls


class PeopleCalls(WaitCalls):
    """All verbs. What they are called with is drawn."""

    # ---- tasks

    def _a_task(self, data: st.DataObject) -> tuple[Journey, Task] | None:
        """Draw a task that is open, and now and then one that was."""
        found = [(run, task) for run in self.model.runs.values() for task in run.tasks]
        opened = [(run, task) for run, task in found if task.state == "open"]
        if opened and data.draw(st.integers(0, 9)) < 9:
            found = opened
        return data.draw(st.sampled_from(found[-6:])) if found else None

    def _a_person(self, data: st.DataObject, task: Task) -> str:
        """Draw a person, mostly one who may decide."""
        fitting = [person for person in PERSONS if task.is_for(person)]
        return data.draw(st.sampled_from(fitting * 4 + PERSONS))

    def decide(self, data: st.DataObject) -> None:
        drawn = self._a_task(data)
        if drawn is None:
            return
        run, task = drawn
        fitting = {"approval": ["approve", "approve", "reject"], "form": ["answer", "reject"]}
        verbs = fitting.get(task.kind, ["answer"]) * 4 + ["approve", "reject", "answer"]
        arguments: dict[str, Any] = {}
        verb = data.draw(st.sampled_from(verbs))
        if verb == "reject":
            keys = [None, *run.journal, "nowhere"]
            arguments = {"rollback_to": data.draw(st.sampled_from(keys))}
        elif verb == "answer":
            arguments = {"data": {"n": data.draw(st.sampled_from([1, 1, 2, "no"]))}}
        person = self._a_person(data, task)
        lines = said(
            lambda: self.engine.call(verb, task_id=task.task_id, as_user=person, **arguments)
        )
        outcome = lines
        if not isinstance(lines, str):
            outcome = "repeated" if lines[0]["repeated"] else lines[0]["action"]
        assert outcome == getattr(self.model, verb)(run, task, person, **arguments)

    def hand_over(self, data: st.DataObject) -> None:
        drawn = self._a_task(data)
        if drawn is None:
            return
        task = drawn[1]
        verb = data.draw(st.sampled_from(["claim_task", "release_task", "delegate"]))
        arguments = {"assignee": data.draw(st.sampled_from(PERSONS))} if verb == "delegate" else {}
        person = self._a_person(data, task)
        told = self.tell(verb, task_id=task.task_id, as_user=person, **arguments)
        assert told == getattr(self.model, verb)(task, person, **arguments)

    # ---- signals and tools

    def signal(self, data: st.DataObject) -> None:
        run = self.a_run(data, lambda run: run.is_live)
        name = data.draw(st.sampled_from(["pay", "pay", "go"]))
        payload = data.draw(st.integers(0, 1))
        key = data.draw(st.sampled_from([None, None, "k", "l"]))
        number = self.tell(
            "signal", run_id=run.run_id, name=name, payload=Jsonb(payload), idempotency_key=key
        )
        assert number == self.model.signal(run, Signal(number, name, payload, key))

    def resolve_tool(self, data: st.DataObject) -> None:
        run, key = self._a_tool(data)
        result = data.draw(st.sampled_from([1, 1, 2]))
        state = self.tell("resolve_tool", run_id=run.run_id, key=key, result=Jsonb(result))
        assert state == self.model.resolve_tool(run, key, result)

    def fail_tool(self, data: st.DataObject) -> None:
        run, key = self._a_tool(data)
        state = self.tell("fail_tool", run_id=run.run_id, key=key, error="no disk")
        assert state == self.model.fail_tool(run, key)

    def _a_tool(self, data: st.DataObject) -> tuple[Journey, str]:
        run = self.a_run(data, lambda run: any(w.kind == "tool" for w in run.waits))
        keys = [wait.key for wait in run.waits if wait.kind == "tool"] * 4 + KEYS["tool"]
        return run, data.draw(st.sampled_from([*keys, "pay"]))

    # ---- operators

    def cancel(self, data: st.DataObject) -> None:
        run = self.a_run(data, lambda run: run.is_live)
        assert self.tell("cancel", run_id=run.run_id) == self.model.cancel(run)

    def pause(self, data: st.DataObject) -> None:
        hold = data.draw(st.booleans())
        run = self.a_run(data, lambda run: run.is_live and (hold or run.state != "paused"))
        told = self.tell("pause", run_id=run.run_id, hold_deadlines=hold)
        assert told == self.model.pause(run, hold_deadlines=hold)

    def resume(self, data: st.DataObject) -> None:
        run = self.a_run(data, lambda run: run.state == "paused")
        keys = list(run.journal)
        commands: list[dict[str, Any]] = [
            {"continue": True},
            {"continue": True},
            {"resume": 1},
            {"resume": 1, "key": data.draw(st.sampled_from(KEYS["interrupt"]))},
            {"update": {data.draw(st.sampled_from(keys * 2 + ["nowhere"])): 7}},
        ]
        command = data.draw(st.sampled_from(commands))
        state = self.tell("resume", run_id=run.run_id, command=command)
        assert state == self.model.resume(run, command)

    def fork(self, data: st.DataObject) -> None:
        if len(self.model.runs) >= MOST_RUNS:
            return
        run = self.a_run(data, lambda run: run.journal and run.state != "running")
        keys = st.sampled_from([*run.journal, *run.journal, *STEPS])
        step = data.draw(keys)
        updates = {data.draw(keys): 8} if data.draw(st.booleans()) else {}
        run_id = self.tell("fork", run_id=run.run_id, step=step, updates=updates)
        new_id = uuid4() if isinstance(run_id, str) else run_id
        refusal = self.model.fork(run, step, updates, new_id)
        assert refusal == (run_id if isinstance(run_id, str) else None)
