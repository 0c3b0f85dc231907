"""The command as tests call it, and runs that went somewhere before it is called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import CliRunner

from pgflow import App, AsyncClient, Client, Context, Worker

Row = dict[str, Any]


def find_main() -> click.Group:
    """Return the command as an installed pgflow has it."""
    (script,) = entry_points(group="console_scripts", name="pgflow")
    main = script.load()
    assert isinstance(main, click.Group)
    return main


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[Row]:
        """The objects that --json printed, one a line."""
        return [json.loads(line) for line in self.lines]


Command = Callable[..., Done]


@pytest.fixture
def anywhere() -> Command:
    """Return the command, called in this process with only that environment."""

    def call(
        *words: object, stdin: str | bytes = "", env: Mapping[str, str | None] | None = None
    ) -> Done:
        nothing = {"PGFLOW_DSN": None, "PGFLOW_PROJECT": None}
        runner = CliRunner(env={**nothing, **(env or {})})
        result = runner.invoke(
            find_main(), [str(w) for w in words], input=stdin, prog_name="pgflow"
        )
        return Done(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def pgflow(anywhere: Command, dsn: str) -> Command:
    """Return the command, working on the test's own database."""

    def call(*words: object, **how: Any) -> Done:
        return anywhere(*words, env={"PGFLOW_DSN": dsn}, **how)

    return call


@pytest.fixture
def succeeds(pgflow: Command) -> Command:
    """Return the command for calls that must succeed, and say nothing on stderr."""

    def call(*words: object, **how: Any) -> Done:
        done = pgflow(*words, **how)
        assert (done.code, done.err) == (0, "")
        return done

    return call


@dataclass(frozen=True)
class Remains:
    """Runs in states that a command may find."""

    pending: UUID
    waiting: UUID
    completed: UUID
    failed: UUID
    task: UUID


app = App("")


@app.handler
async def add(ctx: Context, numbers: list[int]) -> int:
    return await ctx.step("sum", sum, numbers)


@app.handler
async def fail() -> None:
    raise ValueError("no such luck")


@app.handler
async def ask(ctx: Context) -> str | None:
    verdict = await ctx.approval(
        "editor", title="Publish it?", payload={"words": 3}, assignee_role="editors"
    )
    return verdict.comment


async def work(dsn: str) -> None:
    """Work off what is ready in the app's queue."""
    worker = Worker(app, dsn)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30), AsyncClient(dsn) as client:
        for state in ("pending", "running"):
            while await client.runs(state=state, queue="default"):
                assert not running.done()
                await asyncio.sleep(0.01)
    worker.stop()
    await running


def leave_remains(dsn: str) -> Remains:
    """Have a worker work, and enqueue one run more when it has gone."""
    with Client(dsn) as client:
        completed = client.enqueue("add", [1, 2])
        failed = client.enqueue("fail", max_attempts=1)
        waiting = client.enqueue("ask")
        asyncio.run(work(dsn))
        (task,) = client.inbox()
        return Remains(client.enqueue("add"), waiting, completed, failed, task["task_id"])


@pytest.fixture
def remains(dsn: str) -> Remains:
    """Return what a worker, which has stopped, left in the test's own database."""
    return leave_remains(dsn)
