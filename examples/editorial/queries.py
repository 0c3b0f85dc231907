"""What the demo asks the database, in the views that everybody can select from."""

from __future__ import annotations

WORKERS = """
    select w.worker_id, w.pid
    from pgflow.worker_status w
    where w.status = 'alive'
"""

COUNTS = """
    select count(*) filter (where r.state = 'waiting_approval') as waiting,
        count(*) filter (where r.finished_at is not null) as ended
    from pgflow.runs r
"""

# The step before is saved, and half of the time for this one is left.
BEING_PROOFREAD = """
    select r.worker_id
    from pgflow.runs r
    join pgflow.timeline t using (project_id, run_id)
    where r.state = 'running' and t.type = 'step.completed' and t.step = 'analyse'
      and t.at > clock_timestamp() - interval '0.5 seconds'
    order by r.run_id
"""

HELD_BY = """
    select r.run_id
    from pgflow.runs r
    where r.state = 'running' and r.worker_id = %(worker_id)s
    order by r.run_id
"""

TAKEOVERS = """
    select q.run_id, r.input ->> 'name' as name, q.type,
        q.payload ->> 'worker' as lost_by, s.at as started_at, s.worker_id
    from pgflow.timeline q
    join pgflow.runs r using (project_id, run_id)
    cross join lateral (
        select t.at, t.worker_id
        from pgflow.timeline t
        where t.run_id = q.run_id and t.type = 'run.started' and t.event_no > q.event_no
        order by t.event_no
        limit 1
    ) s
    where q.type = 'run.requeued' and q.payload ->> 'worker' = %(worker_id)s
    order by (
        select count(*)
        from pgflow.timeline t
        where t.run_id = q.run_id and t.type = 'step.completed' and t.event_no < q.event_no
    ) desc, q.run_id
"""

INBOX = """
    select i.task_id, i.run_id, r.input ->> 'name' as name, i.payload
    from pgflow.inbox i
    join pgflow.runs r using (run_id)
    order by jsonb_array_length(i.payload -> 'broken_links') desc,
        (i.payload ->> 'words')::integer desc, name
"""

LATENCY = """
    select count(*) as approvals, percentile_cont(0.5) within group (order by w.ms) as p50,
        max(w.ms) as max
    from (
        select extract(epoch from min(s.at) - d.at) * 1000 as ms
        from pgflow.timeline d
        join pgflow.timeline s using (project_id, run_id)
        where d.type = 'task.resolved' and d.payload ->> 'action' = 'approved'
          and s.type = 'run.started' and s.event_no > d.event_no
        group by d.run_id, d.at
    ) w
"""

RESULTS = """
    select r.run_id, r.input ->> 'name' as name, r.state, r.error_code, r.output,
        array(
            select t.step
            from pgflow.timeline t
            where t.run_id = r.run_id and t.type = 'step.completed'
            order by t.event_no
        ) as steps
    from pgflow.runs r
    where r.finished_at is not null
"""
