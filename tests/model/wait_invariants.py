"""What is true of runs that wait, and of those they wait for, after every verb."""

from __future__ import annotations

from tests.model.invariants import VIOLATIONS, query_of

SHARED = [
    "a run is live or finished",
    "a timeline is numbered from 1 without a gap",
    "each lease is a line of the timeline",
    "a live run has an attempt left",
    "an open task has a live run that knows of it",
    "who follows the project from the start is told each event",
    "and no other",
    "the events of a run have their order",
]
OF_WAITS = {
    "what a run has that stands still is not enough": """
        select r.run_id from pgflow.run r
        where (r.state like 'waiting%' or r.pause_reason in ('interrupt', 'before', 'after'))
          and case when r.wait_any then 1 else cardinality(r.waits_for) end <= (
            select count(*) from pgflow.journal j
            where j.run_id = r.run_id and j.key = any (r.waits_for) and j.kind <> 'step')""",
    "what a run lacks is asked for": """
        select r.run_id from pgflow.run r cross join unnest(r.waits_for) as u (key)
        where r.kind = 'handler'
          and u.key not in (select j.key from pgflow.journal j where j.run_id = r.run_id)
          and u.key not in (select t.key from pgflow.task t
                            where t.run_id = r.run_id and t.state = 'open')
          and not jsonb_path_exists(coalesce(r.waits, '[]'), '$[*] ? (@.key == $key)',
                                    jsonb_build_object('key', u.key))""",
    "what is asked for is not there": """
        select r.run_id from pgflow.run r cross join jsonb_array_elements(r.waits) as w
        join pgflow.journal j on j.run_id = r.run_id and j.key = w ->> 'key'""",
    "a key has one open task or none": """
        select t.run_id from pgflow.task t where t.state = 'open'
        group by t.run_id, t.key having count(*) > 1""",
    "a task that counts and is decided is in the journal": """
        select t.run_id from pgflow.task t join pgflow.run r using (project_id, run_id)
        left join pgflow.journal j using (project_id, run_id, key)
        where t.voided_at is null and t.state <> 'open' and j.kind is distinct from t.kind""",
    "a decided task has one outcome, another has none": """
        select t.run_id from pgflow.task t
        left join pgflow.event e on e.project_id = t.project_id and e.run_id = t.run_id
            and e.type in ('task.resolved', 'task.expired')
            and e.payload ->> 'task_id' = t.task_id::text
        group by t.run_id, t.task_id, t.state
        having count(e.type) <> (t.state not in ('open', 'cancelled'))::integer""",
    "news counts what others wrote": """
        select r.run_id from pgflow.run r
        where r.news <> (
            select count(*) from pgflow.journal j
            where j.run_id = r.run_id and j.kind <> 'step') + (
            select count(*) from pgflow.journal_voided v
            where v.run_id = r.run_id and v.kind <> 'step' and not v.replaced)""",
    "news is numbered in the order of the journal": """
        select a.run_id from pgflow.journal a join pgflow.journal b using (project_id, run_id)
        where a.news < b.news and a.event_no >= b.event_no""",
    "a signal that was taken is in the journal of its run": """
        select s.run_id from pgflow.signal s
        left join pgflow.journal j on j.project_id = s.project_id and j.run_id = s.run_id
            and j.key = s.taken_as and j.kind = 'event'
        where s.taken_as is not null and j.key is null""",
    "a call takes one signal": """
        select s.run_id from pgflow.signal s where s.taken_as is not null
        group by s.run_id, s.taken_as having count(*) > 1""",
    "what a call was told was a signal": """
        select j.run_id from pgflow.journal j
        left join pgflow.signal s on s.run_id = j.run_id and s.taken_as = j.key
        where j.kind = 'event' and j.event_no > 0 and s.run_id is null""",
    "signals are taken in the order in which they came": """
        select a.run_id from pgflow.signal a join pgflow.signal b using (project_id, run_id, name)
        where a.signal_no < b.signal_no and a.taken_as is null and b.taken_as is not null""",
    "a run that waits for a signal has none of that name in its mailbox": """
        select r.run_id from pgflow.run r
        cross join jsonb_array_elements(r.waits) as w
        join pgflow.signal s on s.run_id = r.run_id and s.name = w ->> 'name'
        where s.taken_as is null and w ->> 'kind' = 'event' and w ->> 'key' = any (r.waits_for)
          and not (r.wait_any and r.state = 'paused')""",
    "a live child has a live parent that asks for it": """
        select c.run_id from pgflow.run c
        left join pgflow.run p on p.project_id = c.project_id and p.run_id = c.parent_run_id
        where c.parent_run_id is not null and c.step is null and not coalesce(
            p.waits @> jsonb_build_array(jsonb_build_object('key', c.parent_key,
                'run_id', c.run_id)), false)""",
    "the end of a child that was wanted is known to its parent, another is not": """
        select c.run_id from pgflow.run_finished c
        join pgflow.run p on p.project_id = c.project_id and p.run_id = c.parent_run_id
        where c.step is null and (c.parent_key is not null) <> exists (
            select from (
                select j.run_id, j.kind, j.value from pgflow.journal j
                union all select v.run_id, v.kind, v.value from pgflow.journal_voided v) as k
            where k.run_id = p.run_id and k.kind = 'run' and k.value ->> 'run_id' = c.run_id::text)
            and not exists (select from pgflow.event e
                            where e.run_id = p.run_id and e.type = 'step.updated')""",
    "a call of a tool has one outcome at most": """
        select e.run_id from pgflow.event e where e.type like 'tool.%'
        group by e.run_id, e.payload ->> 'key'
        having count(*) filter (where e.type = 'tool.requested')
            < count(*) filter (where e.type <> 'tool.requested')""",
    "a run wakes at the first of its due times, or at once": """
        select r.run_id from pgflow.run r
        where coalesce(r.wake_at, 'infinity') > greatest(pgflow.now(), (
            select coalesce(min((w ->> 'due_at')::timestamptz), 'infinity')
            from jsonb_array_elements(r.waits) as w where w ->> 'key' = any (r.waits_for)))""",
}
QUERY = query_of({**{truth: VIOLATIONS[truth] for truth in SHARED}, **OF_WAITS})

# What the model knows of each run, in one look.
LOOK = """
    with runs as (
        select run_id, state, attempt, lease_no, round, news, waits_for, waits,
            deadline + coalesce(pgflow.now() - deadlines_held_at, '0') as deadline
        from pgflow.run
        where project_id = 'default'
        union all
        select run_id, state, attempt, lease_no, round, null, null, null, null
        from pgflow.run_finished
        where project_id = 'default'
    )
    select r.run_id, r.state, r.attempt, r.lease_no, r.round, r.news, r.waits_for, r.deadline,
        array(select format('%%s %%s', j.key, j.kind) from pgflow.journal j
              where j.project_id = 'default' and j.run_id = r.run_id
              order by j.event_no) as journal,
        array(select format('%%s %%s%%s', v.round, v.key,
                            case when v.replaced then ' replaced' end) collate "C"
              from pgflow.journal_voided v
              where v.project_id = 'default' and v.run_id = r.run_id order by 1) as voided,
        array(select t.key from pgflow.task t
              where t.project_id = 'default' and t.run_id = r.run_id and t.state = 'open'
              order by 1) as open,
        array(select format('%%s %%s', t.task_id, t.state) from pgflow.task t
              where t.project_id = 'default' and t.run_id = r.run_id order by 1) as tasks,
        array(select format('%%s %%s', s.signal_no, coalesce(s.taken_as, '-')) from pgflow.signal s
              where s.project_id = 'default' and s.run_id = r.run_id
              order by s.signal_no) as mailbox,
        array(select w ->> 'key' collate "C" from jsonb_array_elements(r.waits) as w
              order by 1) as waits
    from runs r
    where r.run_id = any (%s)
"""
