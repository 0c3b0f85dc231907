"""gather and first, patched code, breakpoints, rollback and undo on the real engine."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pgflow import Context, Retry

if TYPE_CHECKING:
    from tests.worker.conftest import Stage


def waits_for(stage: Stage, run_id: UUID, *keys: str) -> bool:
    waits = stage.one("select waits_for from pgflow.run where run_id = %s", run_id)
    return sorted(waits or []) == sorted(keys)


def tasks(stage: Stage, run_id: UUID) -> dict[str, Any]:
    return {task["step"]: task["task_id"] for task in stage.client.inbox(run_id=run_id)}


def test_branches_wait_together_and_go_on_each_for_itself(stage: Stage) -> None:
    @stage.app.handler
    async def works(ctx: Context) -> list[Any]:
        async def branch(name: str) -> Any:
            answer = await ctx.input(name, int)
            return await ctx.tool("double", {"n": answer})

        return list(await ctx.gather(branch("a"), branch("b"), ctx.wait_for("go")))

    with stage.worker():
        run_id = stage.client.enqueue(works)
        keys = ["gather#1/0/a", "gather#1/1/b", "gather#1/2/go"]
        stage.until(lambda: waits_for(stage, run_id, *keys))
        stage.client.answer(tasks(stage, run_id)["gather#1/1/b"], 2)
        keys[1] = "gather#1/1/double"
        stage.until(lambda: waits_for(stage, run_id, *keys))
        stage.client.answer(tasks(stage, run_id)["gather#1/0/a"], 1)
        stage.client.resolve_tool(run_id, "gather#1/1/double", 4)
        stage.client.signal(run_id, "go", "go")
        stage.until(lambda: waits_for(stage, run_id, "gather#1/0/double"))
        stage.client.resolve_tool(run_id, "gather#1/0/double", 2)
        assert stage.output(run_id) == [2, 4, "go"]


def test_calls_that_are_gathered_wake_the_run_once(stage: Stage) -> None:
    lives: list[int] = []

    @stage.app.handler
    async def works(ctx: Context) -> list[Any]:
        lives.append(1)
        return list(await ctx.gather(*(ctx.tool("t") for _ in range(5))))

    with stage.worker():
        run_id = stage.client.enqueue(works)
        stage.reaches(run_id, "waiting_tool")
        for n in (3, 1, 4, 0, 2):
            stage.client.resolve_tool(run_id, f"gather#1/{n}/t", n)
        assert stage.output(run_id) == [0, 1, 2, 3, 4]
    assert len(lives) == 2


def test_the_losers_of_a_race_are_closed(stage: Stage) -> None:
    @stage.app.handler
    async def child(ctx: Context) -> None:
        await ctx.wait_for("never")

    @stage.app.handler
    async def races(ctx: Context) -> list[Any]:
        won = await ctx.first(
            ctx.approval("ok"), ctx.run(child), ctx.tool("t"), ctx.wait_for("go"), ctx.sleep(3600)
        )
        await ctx.wait_for("on")
        return list(won)

    with stage.worker():
        run_id = stage.client.enqueue(races)
        stage.reaches(run_id, "waiting_approval")
        find = "select run_id from pgflow.runs where parent_run_id = %s"
        child_id = stage.one(find, run_id)
        stage.client.signal(run_id, "go", 5)
        stage.until(lambda: waits_for(stage, run_id, "on"))
        assert tasks(stage, run_id) == {}
        assert stage.ends(child_id)["state"] == "cancelled"
        stage.client.signal(run_id, "on")
        assert stage.output(run_id) == [3, 5]


def test_a_race_of_work_and_time_ends_with_the_work(stage: Stage) -> None:
    @stage.app.handler
    async def races(ctx: Context) -> list[Any]:
        return list(await ctx.first(ctx.sleep(3600), ctx.step("x", lambda: 1)))

    with stage.worker():
        run_id = stage.client.enqueue(races)
        assert stage.output(run_id) == [1, 1]


def test_code_may_change_while_runs_wait(stage: Stage) -> None:
    deployed = threading.Event()

    @stage.app.handler
    async def works(ctx: Context) -> list[str]:
        path = ["draft"]
        await ctx.step("draft", lambda: 1)
        if deployed.is_set() and await ctx.patched("legal"):
            await ctx.approval("legal")
            path.append("legal")
        await ctx.approval("editor")
        return path

    with stage.worker():
        old = stage.client.enqueue(works)
        stage.client.approve(stage.task(old))
        old_path = stage.output(old)
        waiting = stage.client.enqueue(works)
        task = stage.task(waiting)
        deployed.set()
        stage.client.approve(task)
        new = stage.client.enqueue(works)
        for key in ("legal", "editor"):
            stage.until(lambda key=key: key in tasks(stage, new))  # type: ignore[misc]
            stage.client.approve(tasks(stage, new)[key])
        assert [old_path, stage.output(waiting), stage.output(new)] == [
            ["draft"],
            ["draft"],
            ["draft", "legal"],
        ]


def test_a_breakpoint_that_is_set_while_a_run_is_executed_stops_it(stage: Stage) -> None:
    inside, release = threading.Event(), threading.Event()

    @stage.app.handler
    async def publishes(ctx: Context) -> str:
        inside.set()
        await asyncio.to_thread(release.wait, 30)
        return await ctx.step("publish", _said, "published")

    with stage.worker() as running:
        run_id = stage.client.enqueue(publishes)
        assert inside.wait(30)
        stage.client.set_breakpoint(run_id, "publish")
        stage.until(
            lambda: (
                [h.lease.breakpoints for h in running.worker._held.values()] == [["before publish"]]
            )
        )
        release.set()
        stage.reaches(run_id, "paused")
        assert stage.run(run_id)["pause_reason"] == "before"
        stage.client.resume(run_id)
        assert stage.output(run_id) == "published"


async def _said(what: str) -> str:
    return what


def test_a_breakpoint_stops_a_run_before_and_after_a_step(stage: Stage) -> None:
    done: list[str] = []

    @stage.app.handler
    async def works(ctx: Context) -> None:
        for name in ("a", "b"):
            await ctx.step(name, done.append, name)

    run_id = stage.client.enqueue(works)
    stage.client.set_breakpoint(run_id, "b")
    stage.client.set_breakpoint(run_id, "b", "after")
    with stage.worker():
        stage.reaches(run_id, "paused")
        assert done == ["a"]
        stage.client.resume(run_id)
        stage.until(lambda: waits_for(stage, run_id, "breakpoint/after/b"))
        assert done == ["a", "b"]
        stage.client.resume(run_id)
        stage.output(run_id)
    assert done == ["a", "b"]


def test_a_rollback_undoes_steps_tells_why_and_goes_on_from_there(stage: Stage) -> None:
    done: list[Any] = []

    @stage.app.handler
    async def orders(ctx: Context) -> list[Any]:
        async def reserve(room: str) -> str:
            done.append(("reserve", room, ctx.version))
            return room

        async def release(room: str) -> None:
            done.append(("release", room, ctx.version))

        await ctx.step("kept", done.append, "kept")
        room = ctx.feedback["comment"] if ctx.feedback else "12"
        await ctx.step("reserve", reserve, room, undo=release)
        await ctx.approval("ok")
        return [room, ctx.version]

    with stage.worker():
        run_id = stage.client.enqueue(orders)
        first = stage.task(run_id)
        stage.client.reject(first, "14", rollback_to="reserve")
        stage.until(lambda: {t["task_id"] for t in stage.client.inbox(run_id=run_id)} - {first})
        stage.client.approve(stage.task(run_id))
        assert stage.output(run_id) == ["14", 1]
    assert done == ["kept", ("reserve", "12", 0), ("release", "12", 0), ("reserve", "14", 1)]


def test_a_step_behind_one_without_undo_is_undone_too(stage: Stage) -> None:
    undone: list[Any] = []

    @stage.app.handler
    async def orders(ctx: Context) -> int:
        await ctx.step("log", lambda: "logged")
        await ctx.step("reserve", lambda: "room", undo=undone.append)
        await ctx.approval("ok")
        return ctx.version

    with stage.worker():
        run_id = stage.client.enqueue(orders)
        first = stage.task(run_id)
        stage.client.reject(first, "again", rollback_to="log")
        stage.until(lambda: {t["task_id"] for t in stage.client.inbox(run_id=run_id)} - {first})
        stage.client.approve(stage.task(run_id))
        assert stage.output(run_id) == 1
    assert undone == ["room"]


def test_an_undo_that_fails_is_tried_again(stage: Stage) -> None:
    tries: list[str] = []

    def release(room: str) -> None:
        tries.append(room)
        if len(tries) == 1:
            raise ConnectionError("no route")

    @stage.app.handler(retry=Retry(max_attempts=3))
    async def orders(ctx: Context) -> int:
        await ctx.step("reserve", lambda: "room", undo=release)
        await ctx.approval("ok")
        return ctx.version

    with stage.worker():
        run_id = stage.client.enqueue(orders)
        first = stage.task(run_id)
        stage.client.reject(first, "again", rollback_to="reserve")
        stage.until(lambda: {t["task_id"] for t in stage.client.inbox(run_id=run_id)} - {first})
        stage.client.approve(stage.task(run_id))
        assert stage.output(run_id) == 1
    assert tries == ["room", "room"]


def test_a_fork_goes_on_with_the_journal_of_another_run(stage: Stage) -> None:
    done: list[str] = []

    @stage.app.handler
    async def works(ctx: Context) -> list[Any]:
        def write() -> str:
            done.append("draft")
            return "good"

        draft = await ctx.step("draft", write)
        return [draft, await ctx.step("publish", lambda: len(done))]

    with stage.worker():
        first = stage.client.enqueue(works)
        assert stage.output(first) == ["good", 1]
        fork = stage.client.fork(first, "publish", {"draft": "better"})
        assert stage.output(fork) == ["better", 1]
    assert done == ["draft"]


def test_the_steps_of_a_failed_run_are_undone_by_a_run_of_their_own(stage: Stage) -> None:
    undone: list[Any] = []

    @stage.app.handler(retry=Retry(max_attempts=1), undo_on=["failed"])
    async def orders(ctx: Context, what: str) -> None:
        await ctx.step("log", lambda: "logged")
        for n in range(2):
            await ctx.step("reserve", lambda n: f"{what} {n}", n, undo=undone.append)
        raise ValueError("no")

    with stage.worker():
        run_id = stage.client.enqueue(orders, "room")
        assert stage.ends(run_id)["state"] == "failed"
        find = "select run_id from pgflow.runs where undo_of = %s"
        undo_id = stage.until(lambda: stage.one(find, run_id))
        assert stage.output(undo_id) == {"undone": ["reserve#2", "reserve"]}
    assert undone == ["room 1", "room 0"]
