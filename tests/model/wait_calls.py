"""Verbs of workers and of time, each told to the engine and to the model of runs that wait."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.model.asked import as_sent, asks
from tests.model.calls import held, said
from tests.model.journeys import Journey
from tests.model.people import People
from tests.model.runs import Lease
from tests.sql.conftest import Engine, Row

MOST_RUNS = 7
STEPS = ["a", "b", "c", "d", "e", "f"]
WORKER = "m:1"


class WaitCalls(RuleBasedStateMachine):
    """An engine without runs, its model, and the verbs of workers."""

    def __init__(self, engine: Engine, now: datetime) -> None:
        super().__init__()
        self.engine = engine
        engine.place.put_back()
        engine.set_clock(now)
        engine.rows("select setseed(0)")  # of the backoff's jitter
        engine.tell("subscribe", subscription="model")
        engine.later(seconds=0.000001)
        engine.worker(WORKER)
        self.model = People(engine.now)
        self.given: list[Lease] = []

    # ---- on what

    def a_run(self, data: st.DataObject, fits: Callable[[Journey], object]) -> Journey:
        """Draw a run that fits, if there is one, and now and then any other."""
        runs = list(self.model.runs.values())
        fitting = [run for run in runs if fits(run)]
        any_run = not fitting or data.draw(st.integers(0, 9)) == 9
        return data.draw(st.sampled_from(runs if any_run else fitting))

    def a_lease(self, data: st.DataObject) -> Lease:
        """Draw a lease that is held, and now and then one that is gone."""
        running = [
            Lease(run.run_id, run.lease_no)
            for run in self.model.runs.values()
            if run.state == "running"
        ]
        gone = [lease for lease in self.given if not self.model.holds(lease)][-3:]
        use_gone = gone and (not running or data.draw(st.integers(0, 9)) == 9)
        return data.draw(st.sampled_from(gone if use_gone else running))

    # ---- clients

    def enqueue(self, data: st.DataObject) -> None:
        if len(self.model.runs) >= MOST_RUNS:
            return
        most = data.draw(st.integers(1, 4))
        deadline = self.model.in_(data.draw(st.sampled_from([None, None, None, 300])))
        run_id = self.engine.enqueue("tale", max_attempts=most, deadline=deadline)
        self.model.runs[run_id] = Journey(run_id, most, deadline)

    # ---- workers

    def acquire(self, data: st.DataObject) -> None:
        self._tick()
        most = data.draw(st.sampled_from([1, 100]))
        ready = [run for run in self.model.runs.values() if run.state == "pending"]
        if (self.model.now - self.model.beat_at).total_seconds() > 5:
            self.model.beat_at = self.model.now
        leases = self.engine.acquire(most, worker_id=WORKER).leases
        assert len(leases) == min(most, len(ready))
        for lease in leases:
            run = self.model.runs[lease.run_id]
            assert run.state == "pending"
            self.model.acquire(run)
            self.given.append(Lease(run.run_id, lease.lease_no))
            self._compare_lease(run, lease.body)

    def _compare_lease(self, run: Journey, body: Row) -> None:
        assert [entry["key"] for entry in body.get("journal") or ()] == list(run.journal)
        assert (body["news"], body["attempt"]) == (run.news, run.attempt)
        assert body.get("round", 0) == run.round
        undo = {(step["round"], step["key"]) for step in body.get("undo") or () if step["undo"]}
        assert undo == run.to_undo()

    def park(self, data: st.DataObject) -> None:
        lease = self.a_lease(data)
        run = self.model.runs[lease.run_id]
        given = data.draw(
            asks(run.journal, may_have_children=len(self.model.runs) < MOST_RUNS and run.depth < 2)
        )
        wait_any = data.draw(st.booleans())
        news = run.news - (data.draw(st.integers(0, 9)) == 9)
        waits = [as_sent(ask) for ask in given]
        line = self.engine.park(held([lease])[0], *waits, news=news, wait_any=wait_any)
        assert line["outcome"] == self.model.park(lease, news, given, wait_any=wait_any), line
        self._learn_ids(self.model.runs[lease.run_id])

    def _learn_ids(self, run: Journey) -> None:
        """Take over the ids of what the engine has made."""
        for task in run.tasks:
            if task.task_id is None:
                task.task_id = self.engine.value(
                    "select task_id from pgflow.task"
                    " where run_id = %s and key = %s and voided_at is null",
                    run.run_id,
                    task.key,
                )
        for child in [c for c in self.model.runs.values() if c.parent == run.run_id]:
            if child.run_id.version == 4:
                run_id = self.engine.value(
                    "select run_id from pgflow.run where parent_run_id = %s and parent_key = %s",
                    run.run_id,
                    child.parent_key,
                )
                self.model.name_child(child.run_id, run_id)

    def record_step(self, data: st.DataObject) -> None:
        lease = self.a_lease(data)
        to_undo = sorted(self.model.runs[lease.run_id].to_undo())
        new = [key for key in STEPS if key not in self.model.runs[lease.run_id].journal]
        undone = [f"undo/{no}/{key}" for no, key in to_undo]
        key = data.draw(st.sampled_from(STEPS[:2] + new * 2 + undone * 4))
        undo = not key.startswith("undo/") and data.draw(st.booleans())
        lines = self.engine.call(
            "record_step",
            run_ids=[lease.run_id],
            lease_nos=[lease.lease_no],
            keys=[key],
            digests=["aa"],
            values=["1"],
            undos=[undo],
        )
        outcome = lines[0]["outcome"] if lines else "done"
        assert outcome == self.model.record_step(lease, key, undo=undo)

    def complete(self, data: st.DataObject) -> None:
        lease = self.a_lease(data)
        lines = self.engine.complete(*held([lease]))
        assert self.model.complete(lease) == (lines[0]["outcome"] if lines else "done")

    def fail(self, data: st.DataObject) -> None:
        lease = self.a_lease(data)
        retry = data.draw(st.sampled_from([True, True, False]))
        (line,) = self.engine.fail(*held([lease]), retries=[retry])
        assert line["outcome"] == self.model.fail(lease, retry=retry)
        run = self.model.runs[lease.run_id]
        if run.state == "scheduled" and run.run_at is None:
            run.run_at = self.engine.row(run.run_id)["run_at"]

    def release(self, data: st.DataObject) -> None:
        lease = self.a_lease(data)
        (line,) = self.engine.release(*held([lease]))
        assert line["outcome"] == self.model.release(lease)

    def _beat(self) -> None:
        running = [run for run in self.model.live() if run.state == "running"]
        leases = [Lease(run.run_id, run.lease_no) for run in running]
        assert self.engine.beat(*held(leases), worker_id=WORKER) == []
        self.model.beat_at = self.model.now

    # ---- time

    def _tick(self) -> None:
        self.engine.tick()
        self.model.tick()

    def time_moves_on(self, data: st.DataObject) -> None:
        self.engine.later(seconds=data.draw(st.sampled_from([1, 7, 31, 31, 61, 400])))
        self.model.time_moves_on(self.engine.now)
        if data.draw(st.booleans()):
            self._beat()
        if data.draw(st.booleans()):
            self._tick()

    def tell(self, verb: str, **arguments: Any) -> Any:
        """Return what the engine says: the value, or the SQLSTATE of its refusal."""
        return said(lambda: self.engine.tell(verb, **arguments))
