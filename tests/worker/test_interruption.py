"""Runs that are taken away from a worker while their handlers run."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from pgflow import Context, ThreadContext

if TYPE_CHECKING:
    from tests.worker.conftest import Logs, Stage

# How a run is taken away, and what becomes of it.
TAKEN = {"cancel": "cancelled", "pause": "paused"}


@pytest.mark.parametrize("verb", TAKEN)
def test_an_async_handler_is_interrupted(stage: Stage, logs: Logs, verb: str) -> None:
    inside, interrupted = threading.Event(), threading.Event()

    @stage.app.handler
    async def waits() -> str:
        inside.set()
        try:
            await asyncio.sleep(3600)
        finally:
            interrupted.set()
        return "too late"

    with stage.worker():
        run_id = stage.client.enqueue(waits)
        assert inside.wait(30)
        assert getattr(stage.client, verb)(run_id) == TAKEN[verb]
        assert interrupted.wait(30)
        assert stage.logged(logs, "lease_lost")["state"] == TAKEN[verb]
    assert stage.run(run_id)["state"] == TAKEN[verb]
    assert stage.run(run_id)["attempt_count"] == 0


@pytest.mark.parametrize("verb", TAKEN)
def test_a_plain_handler_is_told_and_its_result_is_refused(stage: Stage, verb: str) -> None:
    inside, told = threading.Event(), threading.Event()

    @stage.app.handler
    def spins(ctx: ThreadContext) -> str:
        inside.set()
        while not ctx.cancelled:
            pass
        told.set()
        return "too late"

    with stage.worker():
        run_id = stage.client.enqueue(spins)
        assert inside.wait(30)
        getattr(stage.client, verb)(run_id)
        assert told.wait(30)
    assert stage.run(run_id)["state"] == TAKEN[verb]


def test_a_handler_that_will_not_be_interrupted_is_not_listened_to(stage: Stage) -> None:
    inside, went_on = threading.Event(), threading.Event()

    @stage.app.handler
    async def stubborn() -> str:
        inside.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            went_on.set()
        return "too late"

    with stage.worker():
        run_id = stage.client.enqueue(stubborn)
        assert inside.wait(30)
        stage.client.cancel(run_id)
        assert went_on.wait(30)
    run = stage.run(run_id)
    assert (run["state"], run["output"]) == ("cancelled", None)


def test_what_a_taken_run_says_afterwards_is_refused(stage: Stage) -> None:
    inside, taken = threading.Event(), threading.Event()
    refused: list[str] = []

    @stage.app.handler
    def goes_on(ctx: ThreadContext) -> None:
        inside.set()
        taken.wait(30)
        for late in (lambda: ctx.step("late", str, "x"), lambda: ctx.emit("late")):
            try:
                late()
            except Exception as error:  # noqa: BLE001 - the test looks at them
                refused.append(type(error).__name__)

    with stage.worker():
        run_id = stage.client.enqueue(goes_on)
        assert inside.wait(30)
        stage.client.cancel(run_id)
        taken.set()
        stage.until(lambda: len(refused) == 2)
    assert refused == ["LeaseLost", "AlreadyFinished"]
    assert stage.events(run_id) == ["run.created", "run.started", "run.cancelled"]


def test_a_paused_run_is_done_again_by_the_same_worker_while_its_old_thread_goes_on(
    stage: Stage,
) -> None:
    inside, release = threading.Event(), threading.Event()

    @stage.app.handler
    def first_one_stays(ctx: ThreadContext) -> int:
        if ctx.lease.lease_no == 1:
            inside.set()
            release.wait(30)
        return int(ctx.lease.lease_no)

    with stage.worker():
        run_id = stage.client.enqueue(first_one_stays)
        assert inside.wait(30)
        stage.client.pause(run_id)
        stage.client.resume(run_id)
        assert stage.output(run_id) == 2
        release.set()
    assert stage.output(run_id) == 2


def test_a_cancelled_plain_handler_holds_up_nobody(stage: Stage) -> None:
    inside, release = threading.Event(), threading.Event()

    @stage.app.handler(queue="one")
    def stays(n: int) -> int:
        if n == 1:
            inside.set()
            release.wait(30)
        return n

    stage.client.define_queue("one", max_concurrent=1)
    with stage.worker():
        first = stage.client.enqueue(stays, 1)
        assert inside.wait(30)
        second = stage.client.enqueue(stays, 2)
        stage.client.cancel(first)
        assert stage.output(second) == 2
        release.set()
    assert stage.run(first)["state"] == "cancelled"


def test_a_run_whose_deadline_passes_is_interrupted(stage: Stage) -> None:
    interrupted = threading.Event()

    @stage.app.handler
    async def waits() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            interrupted.set()

    with stage.worker():
        soon = stage.one("select now() + interval '200 milliseconds'")
        run_id = stage.client.enqueue(waits, deadline=soon)
        run = stage.ends(run_id)
        assert (run["state"], run["error_code"]) == ("timeout", "E-RUN-003")
        assert interrupted.wait(30)


def test_a_lease_of_which_the_worker_knows_nothing_goes_back(stage: Stage) -> None:
    """The reply of an acquire was lost: the database says leased, the worker doesn't know."""

    @stage.app.handler
    async def fine(ctx: Context) -> int:
        return ctx.lease.lease_no

    with stage.worker(concurrency=1) as running:
        run_id = stage.client.enqueue(fine, run_at=stage.one("select now() + interval '1 hour'"))
        with stage.db.transaction():
            stage.db.execute("update pgflow.run set state = 'pending', seq = 1")
            stage.db.execute(
                "update pgflow.run set state = 'running', worker_id = %s, lease_no = 1,"
                " leased_at = now() - interval '6 seconds', lease_event_no = 2, last_event_no = 2",
                [running.worker_id],
            )
            stage.db.execute(
                "insert into pgflow.lease (project_id, worker_id, batch, leased_at, run_ids)"
                " values ('default', %s, 0, now() - interval '6 seconds', array[%s::uuid])",
                [running.worker_id, run_id],
            )
            stage.db.execute("select pgflow._hint_worker('default', %s)", [running.worker_id])
        assert stage.output(run_id) == 2
    assert stage.events(run_id) == [
        *("run.created", "run.started", "run.released", "run.started", "run.completed")
    ]
