"""What is true of the tables after every verb, as one query that returns what violates it."""

from __future__ import annotations

from collections.abc import Mapping

VIOLATIONS = {
    "a run is live or finished": """
        select run_id from pgflow.run join pgflow.run_finished using (project_id, run_id)""",
    "a timeline is numbered from 1 without a gap": """
        select run_id from lines group by run_id
        having min(event_no) <> 1 or max(event_no) <> count(*)
            or count(distinct event_no) <> count(*)""",
    "each lease is a line of the timeline": """
        select run_id from runs join lines using (run_id) group by run_id, lease_no
        having count(*) filter (where type = 'run.started') <> lease_no""",
    "each attempt used is a failure or a lost lease": """
        select run_id from runs join lines using (run_id)
        group by run_id, runs.attempt, state, ended_from
        having count(*) filter (where type in ('run.retried', 'run.requeued'))
            + (state = 'failed' and ended_from = 'running')::integer <> runs.attempt""",
    "a running run is among the leases of its worker": """
        select r.run_id from pgflow.run r
        where r.worker_id is not null and not exists (
            select from pgflow.lease l
            where l.project_id = r.project_id and l.worker_id = r.worker_id
              and r.run_id = any (l.run_ids))""",
    "a live run has an attempt left": """
        select run_id from pgflow.run where attempt >= max_attempts""",
    "an open task has a live run that knows of it": """
        select t.run_id from pgflow.task t
        left join pgflow.run r using (project_id, run_id)
        where t.state = 'open' and r.has_tasks is not true""",
    "a decided task is in the journal, another is not": """
        select t.run_id from pgflow.task t
        left join pgflow.journal j using (project_id, run_id, key)
        where (t.state in ('approved', 'rejected')) <> (j.kind is not distinct from 'approval')""",
    "a waiting run waits for somebody": """
        select r.run_id from pgflow.run r
        where r.state = 'waiting_approval' and r.kind = 'handler' and not exists (
            select from pgflow.task t
            where t.run_id = r.run_id and t.key = any (r.waits_for) and t.state = 'open')""",
    "a waiting run is woken by what it waits for": """
        select r.run_id from pgflow.run r
        where r.state = 'waiting_approval'
          and case when wait_any then 1 else cardinality(waits_for) end <= (
            select count(*) from pgflow.journal j
            where j.run_id = r.run_id and j.key = any (r.waits_for))""",
    "news counts what others wrote": """
        select r.run_id from pgflow.run r
        where r.news <> (select count(*) from pgflow.journal j
                         where j.run_id = r.run_id and j.news is not null)""",
    "steps are counted": """
        select r.run_id from runs r
        where r.kind = 'handler' and r.step_count <> (select count(*) from pgflow.journal j
                               where j.run_id = r.run_id and j.kind = 'step')""",
    "a limit holds": """
        select max(r.run_id::text)::uuid as run_id from pgflow.run r
        join pgflow.queue q using (project_id, queue)
        where r.worker_id is not null group by q.project_id, q.queue, q.max_concurrent
        having count(*) > q.max_concurrent""",
    "a running run of a limited queue has a slot": """
        select r.run_id from pgflow.run r join pgflow.queue q using (project_id, queue)
        where r.worker_id is not null and q.max_concurrent is not null and (not r.slotted
            or not exists (select from pgflow.slot s
                           where s.run_id = r.run_id and s.lease_no = r.lease_no))""",
    "a slot belongs to a lease that holds": """
        select s.run_id from pgflow.slot s
        left join pgflow.run r on r.project_id = s.project_id and r.run_id = s.run_id
            and r.lease_no = s.lease_no and r.queue = s.queue and r.state = 'running' and r.slotted
        where r.run_id is null""",
    "a running run belongs to a worker that beats": """
        select r.run_id from pgflow.run r
        left join pgflow.worker_beat b using (project_id, worker_id)
        where r.state = 'running' and r.kind = 'handler' and b.beat_at is null""",
    "a ready run has a priority that claims look at": """
        select r.run_id from pgflow.run r join pgflow.queue q using (project_id, queue)
        where r.state = 'pending' and not r.priority = any (q.priorities)""",
    "who follows the project from the start is told each event": """
        select l.run_id from lines l
        join runs r using (run_id)
        join pgflow.subscription s on s.project_id = r.project_id
        left join pgflow.outbox o on o.project_id = r.project_id
            and o.run_id = l.run_id and o.event_no = l.event_no
        where r.created_at > s.created_at and o.run_id is null""",
    "and no other": """
        select o.run_id from pgflow.outbox o left join lines l using (run_id, event_no)
        where l.run_id is null""",
    "the events of a run have their order": """
        select a.run_id from pgflow.outbox a
        join pgflow.outbox b on b.run_id = a.run_id and b.event_no = a.event_no + 1
        where b.place < a.place""",
    "an idempotency key has a run": """
        select k.run_id from pgflow.run_key k where k.run_id not in (select run_id from runs)""",
}


def query_of(violations: Mapping[str, str]) -> str:
    """Return one query of all runs, those that were there before included."""
    return _RUNS + " union all ".join(
        f"select '{truth}' as truth, run_id from ({query}) as v"
        for truth, query in violations.items()
    )


_RUNS = """
    with runs as materialized (
        select project_id, run_id, kind, state, null as ended_from, attempt, lease_no, step_count,
            created_at
        from pgflow.run
        union all
        select project_id, run_id, kind, state, ended_from, attempt, lease_no, step_count,
            created_at
        from pgflow.run_finished
    ),
    lines as materialized (select run_id, event_no, type from pgflow.timeline)
"""

QUERY = query_of(VIOLATIONS)
