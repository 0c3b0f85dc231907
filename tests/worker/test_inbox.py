"""stream_inbox on both clients: each open task, and each new one as soon as it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from pgflow import App, Client
from tests.parked import parked, task_of

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

Read = Callable[..., Future[list[Any]]]


def _read(dsn: str, count: int, **how: Any) -> list[Any]:
    with Client(dsn) as client, closing(client.stream_inbox(**how)) as tasks:
        return [task["task_id"] for task in islice(tasks, count)]


async def _aread(dsn: str, count: int, **how: Any) -> list[Any]:
    app, found = App(dsn), []
    async with aclosing(app.stream_inbox(**how)) as tasks:
        async for task in tasks:
            found.append(task["task_id"])
            if len(found) == count:
                break
    await app.close()
    return found


@pytest.fixture(params=["sync", "async"])
def read(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Read]:
    """Return how either client reads so many tasks, beside the test."""
    with ThreadPoolExecutor(1) as thread:

        def read(count: int, **how: Any) -> Future[list[Any]]:
            if request.param == "sync":
                return thread.submit(_read, stage.dsn, count, **how)
            return thread.submit(lambda: asyncio.run(_aread(stage.dsn, count, **how)))

        yield read


def ask(stage: Stage, **wait: Any) -> Any:
    """Return a new task."""
    request = {"kind": "approval", "key": "ok", "title": "Fine?"}
    return task_of(stage.db, parked(stage.db, request | wait))


def test_open_tasks_come_first_and_new_ones_as_they_are_asked(
    stage: Stage, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow._waiting._HINTED", 600.0)  # nobody looks by himself
    there = [ask(stage, due_in=60), ask(stage)]
    reading = read(4)
    stage.until(lambda: stage.one("select inbox_watched_until from pgflow.project"))
    new = [ask(stage), ask(stage)]
    found = reading.result(30)
    assert (found[:2], sorted(found[2:])) == (there, sorted(new))


def test_only_those_of_a_role_or_an_assignee_come(stage: Stage, read: Read) -> None:
    ask(stage)
    ann = ask(stage, assignee="ann")
    editors = ask(stage, assignee_role="editors")
    assert read(1, assignee="ann").result(30) == [ann]
    assert read(1, role="editors").result(30) == [editors]


def test_each_task_comes_once(stage: Stage, read: Read) -> None:
    first = ask(stage)
    reading = read(2)
    stage.until(lambda: stage.one("select inbox_watched_until from pgflow.project"))
    stage.client.comment_task(first, "hm")
    second = ask(stage)
    assert reading.result(30) == [first, second]


def test_a_connection_of_ones_own_looks_without_hints(stage: Stage) -> None:
    tasks = Client(stage.db).stream_inbox()
    first = ask(stage)
    assert next(tasks)["task_id"] == first
    second = ask(stage)
    assert next(tasks)["task_id"] == second
    assert stage.one("select inbox_watched_until from pgflow.project") is None
