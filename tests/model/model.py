"""The engine in memory: what each verb does to runs, leases, waits and keys.

Each verb changes the model and returns what the engine must say: its value, the outcome of each
lease, or the SQLSTATE of its refusal. Nothing is concurrent here, and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from tests.model.runs import Lease, Run, Runs, Task

# What an undecided task ends its run as, by handler; and the backoff after the first failure.
POLICY = {"eager": "cancelled", "patient": "timeout"}
RETRY_BASE = {"eager": timedelta(0), "patient": timedelta(seconds=4)}
LEASE_TTL = {"default": timedelta(seconds=60), "limited": timedelta(seconds=20)}
MAX_CONCURRENT = {"limited": 2}
UNNAMED = timedelta(seconds=5)  # so long a beat needn't name a lease: its reply may be under way


class Model(Runs):
    """The verbs."""

    # ---- clients

    def enqueue(self, run: Run, key: str | None) -> None:
        """Add a run that the engine made."""
        self.runs[run.run_id] = run
        if key is not None:
            self.keys[key] = run.run_id
        if run.run_at is not None and run.run_at > self.now:
            run.state = "scheduled"
        else:
            self._ready([run], lane=1)

    def cancel(self, run: Run) -> str:
        if run.is_live:
            self._end(run, "cancelled", "cancelled")
        return run.state

    def pause(self, run: Run) -> str:
        if not run.is_live:
            return "PF202"
        if run.state != "paused":
            self._leave(run, "run.paused")
            run.state = "paused"
        return "paused"

    def resume(self, run: Run) -> str:
        if not run.is_live:
            return "PF202"
        if run.state == "paused":
            if run.is_overdue(self.now):
                self._end(run, "timeout", "timeout E-RUN-003")
            elif run.waits_for and not run.has_what_it_waits_for:
                run.state = "waiting_approval"
            elif not run.waits_for and run.run_at is not None and run.run_at > self.now:
                run.state = "scheduled"
            else:
                self._ready([run])
        return run.state

    def decide(self, run: Run, key: str, decision: str) -> str:
        task = run.tasks[key]
        if task.state == decision:
            return "repeated"
        if task.state == "cancelled":
            return "PF202"
        if task.state != "open" or task.is_due(self.now):
            return "PF402"
        task.state = decision
        run.news += 1
        run.journal[key] = 0
        if decision == "rejected" and task.on_reject == "cancel":
            self._end(run, "cancelled", "cancelled E-RUN-006")
        elif run.state == "waiting_approval" and run.has_what_it_waits_for:
            self._ready([run])
        return "decided"

    # ---- workers

    def stop_worker(self, worker: str) -> int:
        held = self.running(worker)
        self._give_back(held, "run.released")
        self.beats.pop(worker, None)
        return len(held)

    def beat(self, worker: str, named: Sequence[Lease]) -> set[Lease] | str:
        """Return the named leases that are lost."""
        if worker not in self.beats:
            return "PF302"
        self.beats[worker] = self.now
        unnamed = [
            r
            for r in self.running(worker)
            if r.leased_at < self.now - UNNAMED and Lease(r.run_id, r.lease_no) not in named
        ]
        self._give_back(unnamed, "run.released")
        return {lease for lease in named if not self.holds(lease)}

    def acquire(self, worker: str, queues: Sequence[str], max_runs: int) -> list[Run] | str:
        """Return what is leased. Of runs that became ready at once any may come first."""
        if worker not in self.beats:
            return "PF302"
        if self.beats[worker] < self.now - UNNAMED:
            self.beats[worker] = self.now
        self._tick_if_due()
        taken: list[Run] = []
        for queue in queues:
            ready = [r for r in self.live() if r.state == "pending" and r.queue == queue]
            room = max_runs - len(taken)
            if queue in MAX_CONCURRENT:
                used = sum(run.queue == queue for run in self.running())
                room = min(room, max(MAX_CONCURRENT[queue] - used, 0))
            taken += sorted(ready, key=lambda r: r.place)[:room]
        return sorted(taken, key=lambda r: r.place)

    def lease(self, run: Run, worker: str) -> None:
        run.state, run.worker, run.leased_at = "running", worker, self.now
        run.lease_no += 1

    def complete(self, leases: Iterable[Lease], *, storable: bool) -> list[str]:
        """Return the outcomes in the order of the leases."""
        outcomes = []
        for lease in leases:
            run = self.runs[lease.run_id]
            if not self.holds(lease):
                outcomes.append(self._after(lease, {"completed", "failed E-RUN-017"}))
            elif storable:
                self._end(run, "completed", "completed")
                outcomes.append("done")
            else:
                self._end(run, "failed", "failed E-RUN-017")
                outcomes.append("refused")
        return outcomes

    def fail(self, leases: Iterable[Lease], code: str, *, retry: bool) -> list[str]:
        outcomes = []
        for lease in sorted(leases):
            run = self.runs[lease.run_id]
            if not self.holds(lease):
                ends = {f"failed {code}", "run.retried", f"run.paused {code}"}
                outcomes.append(self._after(lease, ends))
                continue
            outcomes.append("done")
            if code == "E-RUN-012":
                self._leave(run, f"run.paused {code}")
                run.state = "paused"
            elif retry and run.attempt + 1 < run.max_attempts:
                self._give_back([run], "run.retried")
                run.attempt += 1
                if RETRY_BASE[run.handler]:
                    run.state, run.run_at = "scheduled", None  # the engine says when
            else:
                self._end(run, "failed", f"failed {code}")
        return outcomes

    def release(self, leases: Iterable[Lease]) -> list[str]:
        outcomes = []
        for lease in sorted(leases):
            if self.holds(lease):
                self._give_back([self.runs[lease.run_id]], "run.released")
                outcomes.append("done")
            else:
                outcomes.append(self._after(lease, {"run.released"}))
        return outcomes

    def park(self, lease: Lease, news: int, waits: Mapping[str, Task], *, wait_any: bool) -> str:
        run = self.runs[lease.run_id]
        keys = frozenset(waits)
        if not self.holds(lease):
            return self._after(lease, {"run.waiting"})
        if run.news != news:
            return "news"
        if run.is_satisfied(keys, wait_any=wait_any):
            return "refused"
        run.tasks = {**waits, **run.tasks}
        self._leave(run, "run.waiting")
        run.state, run.waits_for, run.wait_any = "waiting_approval", keys, wait_any
        self._expire_task(run)
        return "done"

    def record_usage(self, lease: Lease, key: str, cost: int) -> str:
        run = self.runs[lease.run_id]
        if key in run.calls:
            return "already"
        if not self.holds(lease):
            return "lost"
        run.calls[key] = cost
        if run.budget is not None and sum(run.calls.values()) > run.budget:
            self._end(run, "failed", "failed E-RUN-009")
        return "done"

    def record_step(self, lease: Lease, key: str, *, storable: bool) -> str:
        run = self.runs[lease.run_id]
        if key in run.journal:
            same = run.journal[key] == lease.lease_no
            return "lost" if not same else "done" if self.holds(lease) else "already"
        if not self.holds(lease):
            return "lost"
        if not storable:
            return "refused"
        run.journal[key] = lease.lease_no
        return "done"

    # ---- time

    def tick(self) -> None:
        due = [r for r in self.live() if r.state == "scheduled" and r.starts_at <= self.now]
        for starts_at in sorted({r.starts_at for r in due}):
            self._ready([r for r in due if r.starts_at == starts_at], lane=None)
        self.reap()
        for run in self.live():
            if run.state != "paused" and run.is_overdue(self.now):
                self._end(run, "timeout", "timeout E-RUN-003")
        for run in self.live():
            if run.state != "paused":
                self._expire_task(run)
        if self.last_tick < self.now - timedelta(seconds=1):
            self.last_tick = self.now

    def _expire_task(self, run: Run) -> None:
        """End a run that has an overdue task."""
        for _, task in run.due_tasks(self.now)[:1]:
            task.state = "expired"
            self._end(run, POLICY[run.handler], f"{POLICY[run.handler]} E-RUN-007")

    def reap(self) -> None:
        for worker, beat_at in sorted(self.beats.items()):
            expired = {q for q, ttl in LEASE_TTL.items() if beat_at < self.now - ttl}
            if not expired:
                continue
            for run in self.running(worker):
                if run.queue not in expired:
                    continue
                if run.attempt + 1 < run.max_attempts:
                    self._give_back([run], "run.requeued")
                    run.attempt += 1
                else:
                    self._end(run, "failed", "failed E-RUN-002")
            if beat_at < self.now - timedelta(days=1):
                del self.beats[worker]

    def _tick_if_due(self) -> None:
        times = [r.starts_at for r in self.live() if r.state == "scheduled"]
        times += [r.deadline for r in self.live() if r.deadline]
        tasks = [t for r in self.live() for t in r.tasks.values() if t.state == "open"]
        times += [t.due_at for t in tasks if t.due_at]
        period = min(LEASE_TTL.values()) / 4
        if self.last_tick < self.now - period or any(
            self.last_tick < time <= self.now for time in times
        ):
            self.tick()
