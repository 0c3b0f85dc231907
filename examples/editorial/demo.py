"""The whole of pgflow in half a minute: real workers, a real crash, decisions in plain SQL.

    python -m examples.editorial.demo --folder PATH
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg.rows import dict_row

from examples.editorial.app import Article, review
from examples.editorial.page import Page
from examples.editorial.processes import (
    PROJECT,
    Person,
    Unexpected,
    WorkerProcess,
    ending_on_signals,
)
from pgflow import Client, PgflowError
from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate

Row = dict[str, Any]

FEW = 10
LEASE = timedelta(seconds=2)  # 60 in earnest: a demo can't wait that long for a dead worker
PROOFREADING = 1.0  # seconds, long enough for a worker to be killed in it
PATIENCE = 60.0
SKIPPED = frozenset({"node_modules", "build", "dist", "site-packages", "venv"})

WHAT_RUNS = """
    select r.run_id, r.worker_id, r.input ->> 'name' as name
    from pgflow.runs r
    join pgflow.timeline t using (project_id, run_id)
    where r.state = 'running' and r.started_at > clock_timestamp() - interval '0.5 s'
      and t.type = 'step.completed' and t.step = 'analyse'
    order by r.run_id
"""
WHAT_A_DEAD_WORKER_HOLDS = """
    select r.run_id, r.input ->> 'name' as name, clock_timestamp() as killed_at
    from pgflow.runs r
    where r.state = 'running' and r.worker_id = %(worker_id)s
    order by r.run_id
"""
TAKEOVERS = """
    select q.run_id, q.at as requeued_at, s.at as started_at, s.worker_id
    from pgflow.timeline q
    cross join lateral (
        select t.at, t.worker_id
        from pgflow.timeline t
        where t.run_id = q.run_id and t.type = 'run.started' and t.event_no > q.event_no
        order by t.event_no
        limit 1
    ) s
    where q.type = 'run.requeued' and q.payload ->> 'worker' = %(worker_id)s
"""
INBOX = """
    select i.task_id, i.run_id, r.input ->> 'name' as name, i.payload
    from pgflow.inbox i
    join pgflow.runs r using (run_id)
    order by jsonb_array_length(i.payload -> 'broken_links') desc, name
"""
APPROVAL_TO_RESUMPTION = """
    select count(*) as approvals, percentile_cont(0.5) within group (order by ms) as p50,
        max(ms) as max
    from (
        select extract(epoch from min(s.at) - d.at) * 1000 as ms
        from pgflow.timeline d
        join pgflow.timeline s using (project_id, run_id)
        where d.type = 'task.resolved' and d.payload ->> 'action' = 'approved'
          and s.type = 'run.started' and s.event_no > d.event_no
        group by d.run_id, d.at
    ) latency
"""
ENDED = """
    select r.run_id, r.input ->> 'name' as name, r.state, r.error_code, r.error_detail, r.output,
        (select array_agg(t.step order by t.event_no) from pgflow.timeline t
         where t.run_id = r.run_id and t.type = 'step.completed') as steps
    from pgflow.runs r
    where r.finished_at is not null
"""


@click.command()
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=PROJECT,
    help="Where the Markdown files are; else pgflow's own docs.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    default=30,
    show_default=True,
    help="At most so many files.",
)
@click.option("--keep", is_flag=True, help="Leave the database running, to look around in it.")
def main(folder: Path, limit: int, *, keep: bool) -> None:
    """Review a folder of Markdown files with two workers, one of which is killed.

    It brings its own PostgreSQL and leaves nothing behind.
    """
    page = Page()
    try:
        with ending_on_signals():
            _demo(page, folder.resolve(), limit, keep=keep)
    except (Unexpected, PgflowError, psycopg.Error) as problem:
        page.console.print(f"\nThis did not go as it should: {problem}", style="red")
        sys.exit(1)


def _demo(page: Page, folder: Path, limit: int, *, keep: bool) -> None:
    began = time.monotonic()
    names = list(islice(_markdown_files(folder), limit + 1))
    page.heading(f"The Markdown files of {folder}")
    expect(len(names) >= 2, f"found {len(names)}, and it takes two: one to approve, one to reject")
    if len(names) > limit:
        page.fact("files", f"the first {limit}", "more with --limit")
    else:
        few = f"less than {FEW}: it works, but shows less" if len(names) < FEW else ""
        page.fact("files", str(len(names)), few)
    with ExitStack() as stack:
        desk = stack.enter_context(_open_desk(page, keep=keep))
        desk.enqueue(folder, names[:limit])
        taken_over = desk.read_all()
        rejected = desk.decide_all()
        desk.tell(taken_over, rejected)
        page.heading("Summary")
        desk.sum_up(taken_over, rejected)
        desk.stop()
    page.say("")
    page.say(f"All came out as it should, in {time.monotonic() - began:.0f} s.", "green")


def expect(condition: object, otherwise: str) -> None:
    """Raise Unexpected, saying what is, unless the condition holds."""
    if not condition:
        raise Unexpected(otherwise)
