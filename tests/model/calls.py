"""The verbs, each told to the engine and to the model, whose answers must be the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.model.model import LEASE_TTL, MAX_CONCURRENT, POLICY, RETRY_BASE, Model
from tests.model.runs import Lease, Run, Task
from tests.sql import conftest
from tests.sql.conftest import Engine

T = TypeVar("T")
WORKERS = ["m:1", "m:2", "m:3"]
QUEUES = list(LEASE_TTL)

workers = st.sampled_from(WORKERS)
spans = st.sampled_from([None, None, None, 1, 30, 90])  # seconds


def said(call: Callable[[], T]) -> T | str:
    """Return the value, or the SQLSTATE of a refusal."""
    try:
        return call()
    except psycopg.Error as refused:
        if not (refused.sqlstate or "").startswith("PF"):
            raise
        return str(refused.sqlstate)


def held(leases: Sequence[Lease]) -> list[conftest.Lease]:
    return [conftest.Lease(lease.run_id, lease.lease_no, {}) for lease in leases]


def outcomes_of(lines: list[conftest.Row]) -> list[str]:
    return sorted(line["outcome"] for line in lines)


class Calls(RuleBasedStateMachine):
    """An engine without runs, its model, and all verbs. What they are called with is drawn."""

    def __init__(self, engine: Engine, now: datetime) -> None:
        super().__init__()
        self.engine = engine
        engine.place.put_back()
        engine.set_clock(now)
        engine.rows("select setseed(0)")  # of the backoff's jitter
        engine.tell("subscribe", subscription="model")
        engine.later(seconds=0.000001)
        self.last_id = time.time_ns() // 1_000_000
        last_tick = engine.value(
            "select greatest(last_at, '2000-01-01') from pgflow.tick where project_id = 'default'"
        )
        self.model = Model(engine.now, last_tick)
        self.times = 0
        self.marks: dict[str, Any] = dict.fromkeys(WORKERS)
        self.given: list[Lease] = []
        self.events: dict[tuple[Run, str], int] = {}
        for queue, ttl in LEASE_TTL.items():
            limit = MAX_CONCURRENT.get(queue)
            engine.call("define_queue", queue=queue, max_concurrent=limit, lease_ttl=ttl)
        for worker in WORKERS:
            self._register(worker)

    # ---- on what

    def a_run(self, data: st.DataObject, *, live: bool) -> Run:
        """Draw a run, of the kind asked for if there is one, and now and then of the other."""
        if data.draw(st.sampled_from([False] * 7 + [True])):
            live = not live
        runs = [run for run in self.model.runs.values() if run.is_live == live]
        return data.draw(st.sampled_from(runs[-8:] or list(self.model.runs.values())))

    def leases(self, data: st.DataObject, most: int = 3) -> list[Lease]:
        """Draw leases that are held, and now and then some that are gone."""
        running = [Lease(run.run_id, run.lease_no) for run in self.model.running()]
        gone = [lease for lease in self.given if not self.model.holds(lease)]
        return data.draw(st.lists(st.sampled_from(running + gone[-2:]), min_size=1, max_size=most))

    # ---- clients

    def enqueue(self, data: st.DataObject) -> None:
        handler = data.draw(st.sampled_from(sorted(POLICY)))
        key = data.draw(st.sampled_from([None, None, "order-1", "order-2"]))
        arguments: dict[str, Any] = {
            "queue": data.draw(st.sampled_from(QUEUES)),
            "priority": data.draw(st.sampled_from([0, 0, 3])),
            "max_attempts": data.draw(st.integers(1, 3)),
            "deadline": self._after(data.draw(spans)),
            "run_at": self._after(data.draw(spans)),
        }
        budget = data.draw(st.sampled_from([None, None, 3]))
        bounds = None if budget is None else {"usd": budget}
        first = self.model.keys.get(key or "")
        given = first or self._next_id()
        ids = {"idempotency_key": key, "run_id": given}
        run_id = said(lambda: self.engine.enqueue(handler, budget=bounds, **arguments, **ids))
        if first is not None:
            same = self.model.runs[first].handler == handler
            assert run_id == (first if same else "PF401")
            return
        assert run_id == given
        self.model.enqueue(Run(given, handler, budget=budget, **arguments), key)

    def _next_id(self) -> UUID:
        """Return ids that grow: those of one millisecond come in no order, and so would runs."""
        self.last_id += 1
        return UUID(int=(self.last_id << 80) | (7 << 76) | (2 << 62))

    def _after(self, seconds: int | None) -> datetime | None:
        """Return a time that no other is equal to, so that what is due has an order."""
        self.times += 1
        span = timedelta(seconds=seconds or 0, microseconds=self.times)
        return None if seconds is None else self.model.now + span

    def cancel(self, data: st.DataObject) -> None:
        run = self.a_run(data, live=True)
        assert self.engine.tell("cancel", run_id=run.run_id) == self.model.cancel(run)

    def pause(self, data: st.DataObject) -> None:
        run = self.a_run(data, live=True)
        state = said(lambda: self.engine.tell("pause", run_id=run.run_id))
        assert state == self.model.pause(run)

    def resume(self, data: st.DataObject) -> None:
        paused = [run for run in self.model.live() if run.state == "paused"]
        run = data.draw(st.sampled_from(paused)) if paused else self.a_run(data, live=True)
        state = said(lambda: self.engine.tell("resume", run_id=run.run_id))
        assert state == self.model.resume(run)

    def retry(self, data: st.DataObject) -> None:
        old = self.a_run(data, live=False)
        run_id = said(lambda: self.engine.tell("retry", run_id=old.run_id))
        key = f"retry of {old.run_id}"
        if old.is_live or key in self.model.keys:
            assert run_id == ("PF201" if old.is_live else self.model.keys[key])
            return
        assert not isinstance(run_id, str)
        run = Run(run_id, old.handler, old.queue, old.priority, old.max_attempts)
        run.budget = old.budget
        self.model.enqueue(run, key)

    def emit(self, data: st.DataObject) -> None:
        run = self.a_run(data, live=True)
        key = data.draw(st.sampled_from("xy"))
        arguments = {"run_id": run.run_id, "type": "note", "idempotency_key": key}
        events = said(lambda: self.engine.call("emit", **arguments))
        if isinstance(events, str):
            assert events == "PF202"
            assert not run.is_live
            assert (run, key) not in self.events
        else:
            number = events[0]["event_no"]
            assert self.events.setdefault((run, key), number) == number

    def decide(self, data: st.DataObject) -> None:
        asked = [(run, key) for run in self.model.runs.values() for key in sorted(run.tasks)]
        if not asked:
            return
        run, key = data.draw(st.sampled_from(asked[-8:]))
        decision = data.draw(st.sampled_from(["approved", "approved", "rejected"]))
        self._decide(run, key, decision)

    def _decide(self, run: Run, key: str, decision: str) -> None:
        verb = self.engine.approve if decision == "approved" else self.engine.reject
        task_id = self.engine.task(run.run_id, key)
        line = said(lambda: verb(task_id))
        if not isinstance(line, str):
            line = "repeated" if line["repeated"] else "decided"
        assert line == self.model.decide(run, key, decision)

    # ---- workers

    def register_worker(self, data: st.DataObject) -> None:
        self._register(data.draw(workers))

    def _register(self, worker: str) -> None:
        handlers = [
            {"handler": handler, "retry_base": base.total_seconds()}
            for handler, base in RETRY_BASE.items()
        ]
        self.engine.worker(worker, QUEUES, handlers)
        self.model.beats[worker] = self.model.now

    def stop_worker(self, data: st.DataObject) -> None:
        worker = data.draw(workers)
        given_back = self.engine.tell("stop_worker", worker_id=worker)
        assert given_back == self.model.stop_worker(worker)

    def acquire(self, data: st.DataObject) -> None:
        worker = data.draw(workers)
        queues = data.draw(st.sampled_from([QUEUES, QUEUES[::-1], QUEUES[:1], QUEUES[1:]]))
        marks = self.marks[worker] if data.draw(st.booleans()) else None
        self._acquire(worker, queues, data.draw(st.sampled_from([1, 2, 10])), marks)

    def _acquire(self, worker: str, queues: list[str], max_runs: int, marks: Any) -> None:
        look = said(lambda: self.engine.acquire(max_runs, marks, worker_id=worker, queues=queues))
        expected = self.model.acquire(worker, queues, max_runs)
        if isinstance(look, str) or isinstance(expected, str):
            assert look == expected
            self._register(worker)
            return
        self.marks[worker] = look.marks
        taken = [self.model.runs[run_id] for run_id in look.run_ids]
        assert all(run.state == "pending" for run in taken)
        assert [run.place for run in taken] == [run.place for run in expected]
        assert sorted(run.queue for run in taken) == sorted(run.queue for run in expected)
        for run, lease in zip(taken, look.leases, strict=True):
            self.model.lease(run, worker)
            self.given.append(Lease(run.run_id, lease.lease_no))
            assert (lease.body["news"], lease.body["attempt"]) == (run.news, run.attempt)
            assert {e["key"] for e in lease.body.get("journal") or ()} == run.journal.keys()

    def beat(self, data: st.DataObject) -> None:
        worker = data.draw(workers)
        named = [Lease(run.run_id, run.lease_no) for run in self.model.running(worker)]
        if data.draw(st.booleans()):
            named = sorted(set(self.leases(data)))
        lost = said(lambda: self.engine.beat(*held(named), worker_id=worker))
        expected = self.model.beat(worker, named)
        if isinstance(lost, str) or isinstance(expected, str):
            assert lost == expected
        else:
            assert sorted(line["run_id"] for line in lost) == sorted(e.run_id for e in expected)

    def complete(self, data: st.DataObject) -> None:
        leases = self.leases(data)
        storable = data.draw(st.sampled_from([True, True, False]))
        lines = self.engine.complete(*held(leases), output="1" if storable else "{bad")
        outcomes = self.model.complete(leases, storable=storable)
        assert outcomes_of(lines) == sorted(o for o in outcomes if o != "done")

    def fail(self, data: st.DataObject) -> None:
        leases = self.leases(data)
        code = data.draw(st.sampled_from(["E-RUN-001", "E-RUN-001", "E-RUN-012"]))
        retry = data.draw(st.sampled_from([True, True, False]))
        attempts = {lease: self.model.runs[lease.run_id].attempt for lease in leases}
        lines = self.engine.fail(*held(leases), code=code, retries=[retry] * len(leases))
        assert outcomes_of(lines) == sorted(self.model.fail(leases, code, retry=retry))
        for lease, attempt in attempts.items():
            run = self.model.runs[lease.run_id]
            if run.state == "scheduled" and run.run_at is None:
                run.run_at = self.engine.row(run.run_id)["run_at"]
                longest = RETRY_BASE[run.handler] * 2**attempt
                assert longest / 2 <= run.starts_at - self.model.now <= longest

    def release(self, data: st.DataObject) -> None:
        leases = self.leases(data)
        lines = self.engine.release(*held(leases))
        assert outcomes_of(lines) == sorted(self.model.release(leases))

    def park(self, data: st.DataObject) -> None:
        (lease,) = self.leases(data, most=1)
        run = self.model.runs[lease.run_id]
        keys = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True))
        due_in = data.draw(spans)
        on_reject = data.draw(st.sampled_from(["cancel", "resume"]))
        wait_any = data.draw(st.booleans())
        news = run.news - data.draw(st.sampled_from([0, 0, 1]))
        policy = POLICY[run.handler].replace("cancelled", "cancel")
        wait = {"on_reject": on_reject, "due_in": due_in, "policy": policy}
        waits = [{"key": key, **wait} for key in keys]
        line = self.engine.park(held([lease])[0], *waits, news=news, wait_any=wait_any)
        due_at = None if due_in is None else self.model.now + timedelta(seconds=due_in)
        tasks = {key: Task(due_at, on_reject) for key in keys}
        assert line["outcome"] == self.model.park(lease, news, tasks, wait_any=wait_any)

    def record_step(self, data: st.DataObject) -> None:
        (lease,) = self.leases(data, most=1)
        key = data.draw(st.sampled_from("stu"))
        storable = data.draw(st.sampled_from([True, True, False]))
        lines = self.engine.record_steps(held([lease])[0], **{key: "1" if storable else "{bad"})
        outcome = lines[0]["outcome"] if lines else "done"
        assert outcome == self.model.record_step(lease, key, storable=storable)

    def record_usage(self, data: st.DataObject) -> None:
        (lease,) = self.leases(data, most=1)
        key = data.draw(st.sampled_from("mno"))
        call = {"call_key": key, "cost_usd_total": 2}
        lines = self.engine.record_usage(held([lease])[0], call)
        outcomes = [line["outcome"] for line in lines if line["outcome"] != "budget"]
        assert (outcomes or ["done"]) == [self.model.record_usage(lease, key, 2)]

    # ---- time

    def time_moves_on(self, data: st.DataObject) -> None:
        self._later(data.draw(st.sampled_from([2, 0.5, 6, 21, 61, 100_000])))
        duty = data.draw(st.sampled_from(["none", "tick", "reap"]))
        if duty != "none":
            self.engine.call(duty)
            getattr(self.model, duty)()

    def _later(self, seconds: float) -> None:
        self.engine.later(seconds=seconds)
        self.model.now = self.engine.now
