"""The whole of pgflow in half a minute: real workers, a real crash, decisions in plain SQL.

python -m examples.editorial.demo --folder PATH
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from uuid import UUID

import click
import psycopg

from examples.editorial.analysis import markdown_files
from examples.editorial.desk import LEASE, Desk, Row
from examples.editorial.page import Page
from examples.editorial.processes import PROJECT, Unexpected, WorkerProcess, ending_on_signals
from examples.pipeline.play import play, working
from pgflow import PgflowError

FEW = 10
PACE = 0.1  # seconds between two decisions


@dataclass
class Story:
    """What has happened so far."""

    run_ids: list[UUID]
    dead: WorkerProcess
    held: list[UUID]
    killed_at: datetime
    takeovers: list[Row] = field(default_factory=list)
    rejected: UUID | None = None


@click.command()
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=PROJECT,
    help="Where the Markdown files are; else pgflow's own.",
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
    """Review the Markdown files of a folder with two workers, one of which is killed.

    It brings its own PostgreSQL and leaves nothing behind.
    """
    page = Page()
    try:
        with ending_on_signals():
            demo(page, folder.resolve(), limit, keep=keep)
    except (Unexpected, PgflowError, psycopg.Error) as problem:
        page.failure(str(problem).strip())
        sys.exit(1)


def demo(page: Page, folder: Path, limit: int, *, keep: bool) -> None:
    """Tell the story, chapter by chapter. Raises Unexpected where it goes otherwise."""
    began = time.monotonic()
    page.heading(f"An editorial desk for the Markdown files of {folder}")
    names = list(islice(markdown_files(folder), limit + 1))
    expect(len(names) >= 2, f"files found: {len(names)}; it takes one to approve, one to reject")
    more = "the first ones; --limit takes more" if len(names) > limit else ""
    few = f"fewer than {FEW}, so there is less to see" if len(names) < FEW else ""
    names = names[:limit]
    page.fact("files", str(len(names)), more or few)
    with Desk(keep=keep) as desk:
        page.fact("database", f"PostgreSQL {desk.version}", f"for this demo alone: {desk.home}")
        for worker in desk.workers:
            page.fact(f"worker {worker.label}", worker.worker_id, f"process {worker.pid}")
            page.labels[worker.worker_id] = worker.label
        run_ids = desk.enqueue(folder, names)
        page.fact("runs", str(len(run_ids)), "one for each file, enqueued in one statement")

        page.heading("1  Two workers read. One of them is killed")
        story = have_them_read(page, desk, run_ids)
        page.heading("2  A person decides, in plain SQL")
        have_them_decided(page, desk, story)
        page.heading("3  What the database remembers")
        show_timelines(page, desk, story)
        page.heading("Summary")
        sum_up(page, desk, story)

        page.heading("And a flow: the same files, analysed in parallel for one report")
        show_pipeline(page, desk, folder)
        page.say("")
        page.say(f"All came out as it should, in {time.monotonic() - began:.0f} s.", "green")
        if keep:
            page.kept(desk.server.dsn, desk.home)


def have_them_read(page: Page, desk: Desk, run_ids: Sequence[UUID]) -> Story:
    """Wait until every run has asked for its approval, and meanwhile kill a worker."""
    story: Story | None = None
    with page.progress("findings", len(run_ids)) as bar:

        def look() -> int:
            nonlocal story
            if story is None and (worker := desk.reading()):
                story = kill(desk, worker, run_ids)
                page.say(
                    f"kill -9 {worker.pid}, worker {worker.label}, amid {len(story.held)} runs",
                    "red",
                )
            waiting = desk.waiting()
            bar.show(waiting)
            return waiting

        desk.wait_for(len(run_ids), look, "runs that wait for a person")
    if story is None:
        raise Unexpected("no worker was ever seen reading")
    story.takeovers = desk.takeovers(story.dead)
    missed = set(story.held) - {row["run_id"] for row in story.takeovers}
    expect(not missed, f"runs of the dead worker that nobody took over: {missed}")
    heirs = {row["worker_id"] for row in story.takeovers}
    expect(story.dead.worker_id not in heirs, "the dead worker took over its own run")
    page.takeovers(story.takeovers, story.killed_at)
    page.say(f"(a lease lasts {LEASE.total_seconds():.0f} s here, by default a minute)", "dim")
    return story


def kill(desk: Desk, worker: WorkerProcess, run_ids: Sequence[UUID]) -> Story:
    """Kill a worker with SIGKILL, and see what it left behind."""
    killed_at = desk.now()
    worker.kill()
    time.sleep(0.2)  # the server may still be at the last thing that it was told
    held = desk.held_by(worker)
    expect(held, f"worker {worker.label} had no run when it was killed")
    return Story(list(run_ids), worker, held, killed_at)


def have_them_decided(page: Page, desk: Desk, story: Story) -> None:
    """Reject the worst article and approve the others, with nothing but a SQL prompt."""
    inbox = desk.inbox()
    page.findings(inbox)
    worst, *others = inbox
    broken = len(worst["payload"]["broken_links"])
    why = f"{broken} broken link{'s'[: broken - 1]}" if broken else "too long"
    statements = [f"select action from pgflow.reject('{worst['task_id']}', '{why}');"]
    statements += [f"select action from pgflow.approve('{t['task_id']}', 'fine');" for t in others]
    expected = ["rejected", *("approved" for _ in others)]
    story.rejected = worst["run_id"]

    person = desk.person()
    page.say(f"{person.client}, which knows nothing of pgflow, sends", "dim")
    for statement in statements[:2]:
        page.say(f"  {statement}", "cyan")
    if len(others) > 1:
        page.say(f"  and so on, a decision each {PACE * 1000:.0f} ms", "dim")
    with page.progress("decided ", len(statements)) as bar:
        for number, statement in enumerate(statements):
            answer = person.send(statement)
            expect(answer == expected[number], f"{statement}\nreturned {answer!r}")
            bar.show(number + 1)
            time.sleep(PACE)
    desk.wait_for(len(story.run_ids), desk.ended, "runs that have ended")


def show_timelines(page: Page, desk: Desk, story: Story) -> None:
    """Show an approved, a rejected and a taken over run."""
    names = {row["run_id"]: row["name"] for row in desk.results()}
    taken_over = [row["run_id"] for row in story.takeovers]
    approved = [run_id for run_id in story.run_ids if run_id != story.rejected]
    plain = [run_id for run_id in approved if run_id not in taken_over]
    shown = {
        "approved": (plain or approved)[0],
        "rejected": story.rejected,
        "taken over": next((run_id for run_id in taken_over if run_id in approved), taken_over[0]),
    }
    for what, run_id in shown.items():
        page.timeline(f"{names[run_id]}, {what}", desk.timeline(run_id))


def sum_up(page: Page, desk: Desk, story: Story) -> None:
    """Count, and compare with what should have come out."""
    results = desk.results()
    completed = [row for row in results if row["state"] == "completed"]
    cancelled = [row for row in results if row["state"] == "cancelled"]
    latency = desk.latency()
    page.summary(
        [
            ("runs", str(len(results)), "every one accounted for"),
            ("completed", str(len(completed)), "approved and published"),
            ("cancelled", str(len(cancelled)), "by rejection, E-RUN-006"),
            ("taken over", str(len(story.takeovers)), "from the worker that was killed"),
            (
                "approval to resumption",
                f"{latency['p50']:.1f} ms",
                f"p50 of {latency['approvals']}; the slowest {latency['max']:.1f} ms",
            ),
        ]
    )
    expect({row["run_id"] for row in results} == set(story.run_ids), "other runs ended than began")
    expect(len(completed) == len(story.run_ids) - 1, "not all that were approved are completed")
    for row in completed:
        steps = ["analyse", "proofread", "publish"]
        expect(row["steps"] == steps, f"{row['name']} was done in steps {row['steps']}")
        expect(row["output"]["name"] == row["name"], f"{row['name']} returned {row['output']}")
    ends = [(row["run_id"], row["error_code"]) for row in cancelled]
    expect(ends == [(story.rejected, "E-RUN-006")], f"cancelled are {ends}")
    survivors = [worker for worker in desk.workers if worker is not story.dead]
    codes = {worker.label: worker.stop() for worker in survivors}
    expect(set(codes.values()) == {0}, f"after SIGTERM the workers ended with {codes}")


def show_pipeline(page: Page, desk: Desk, folder: Path) -> None:
    """Have the pipeline of the other example make a report, which an editor sends back once."""
    dsn = desk.server.socket_dsn
    with working(dsn, desk.home / "pipeline.log") as worker:
        play(dsn, folder, desk.home / "report.md", page.say, worker)


def expect(condition: object, otherwise: str) -> None:
    """Raise Unexpected, saying what is, unless the condition holds."""
    if not condition:
        raise Unexpected(otherwise)


if __name__ == "__main__":
    main(prog_name="python -m examples.editorial.demo")
