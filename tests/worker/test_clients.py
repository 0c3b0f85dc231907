"""Clients: the same verbs sync and async, on a DSN or inside the caller's own transaction."""

from __future__ import annotations

import asyncio
import doctest
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from pydantic import BaseModel

import pgflow.app
from pgflow import (
    App,
    AsyncClient,
    Client,
    artifacts,
    flows,
    gateway,
    money,
    people,
    queues,
    subscriptions,
    views,
)
from pgflow._verbs import AsyncVerbs, Verbs
from pgflow.errors import (
    AlreadyFinished,
    BadRequest,
    IdempotencyConflict,
    NotJson,
    ServerUnreachable,
    UnknownRun,
)

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

MODULES = (gateway, flows, artifacts, money, people, queues, subscriptions, views)
NOWHERE = "host=127.0.0.1 port=1 dbname=x"


def _verbs(of: type) -> dict[str, Callable[..., Any]]:
    return {name: verb for name, verb in vars(of).items() if not name.startswith("_")}


def test_both_clients_have_the_verbs_of_the_gateway() -> None:
    known = {
        name
        for module in MODULES
        for name, verb in inspect.getmembers(module, inspect.isfunction)
        if verb.__module__ == module.__name__ and not name.startswith("_")
    }
    assert set(_verbs(Verbs)) == set(_verbs(AsyncVerbs)) == known - {"subscribe"}
    assert all(hasattr(client, "subscribe") for client in (Client, AsyncClient))


@pytest.mark.parametrize("name", _verbs(Verbs))
def test_a_verb_has_one_signature_and_one_text(name: str) -> None:
    twin = next(getattr(m, name) for m in MODULES if name in vars(m))
    for verb in (getattr(Verbs, name), getattr(AsyncVerbs, name)):
        assert inspect.signature(verb) == inspect.signature(twin)
        assert verb.__doc__ == twin.__doc__
    assert inspect.iscoroutinefunction(getattr(AsyncVerbs, name))
    assert not inspect.iscoroutinefunction(getattr(Verbs, name))


class Awaited:
    """A sync client that is called as an async one."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(self._client, name)(*args, **kwargs)

        return call


class Letter(BaseModel):
    to: str


async def _a_day(client: Any, project: str) -> list[Any]:
    """Call the verbs, and tell what is the same each time."""
    here = {"project": project}
    await client.define_queue("mail", max_concurrent=5, **here)
    one = await client.enqueue("a", Letter(to="x"), queue="mail", tags=["t"], priority=3, **here)
    again = await client.enqueue("b", idempotency_key="k", **here)
    assert await client.enqueue("b", idempotency_key="k", **here) == again
    many = await client.enqueue_many("c", [{"n": n} for n in range(3)], queue="mail", **here)
    paused = [await client.pause(one, "look", **here), await client.pause(one, **here)]
    resumed = await client.resume(one, **here)
    event = await client.emit(one, "seen", {"by": "me"}, idempotency_key="e", **here)
    same = await client.emit(one, "seen", {"by": "you"}, idempotency_key="e", **here)
    ended = [await client.cancel(run_id, "enough", **here) for run_id in (one, again, *many)]
    retried = await client.retry(one, **here)
    since = await client.pause_queue("mail", **here)
    opened = [await client.resume_queue("mail", **here), await client.resume_queue("mail", **here)]
    runs = await client.runs(queue="mail", **here)
    lines = await client.timeline(one, **here)
    stats = await client.queue_stats(**here)
    return [
        all(isinstance(run_id, UUID) for run_id in (one, again, *many, retried)),
        [*paused, resumed],
        (event.event_no, event.payload) == (same.event_no, same.payload),
        ended,
        isinstance(since, datetime),
        opened,
        sorted((run["handler"], run["state"]) for run in runs),
        [line["type"] for line in lines],
        sorted((line["queue"], line["max_concurrent"]) for line in stats),
        await client.inbox(**here),
        await client.worker_status(**here),
        isinstance(await client.doctor(**here), list),
    ]


def test_both_clients_do_the_same(stage: Stage) -> None:
    for project in ("one", "other"):
        stage.db.execute("select pgflow.create_project(%s)", [project])

    async def asynchronously() -> list[Any]:
        async with AsyncClient(stage.dsn) as client:
            return await _a_day(client, "other")

    first = asyncio.run(_a_day(Awaited(stage.client), "one"))
    assert asyncio.run(asynchronously()) == first
    assert first[1] == ["paused", "paused", "pending"]
    assert first[3] == ["cancelled"] * 5


@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        (lambda c: c.enqueue("a", priority=10), BadRequest),
        (lambda c: c.enqueue("a", priority=10**12), BadRequest),
        (lambda c: c.enqueue("a", timeout=timedelta(0)), BadRequest),
        (lambda c: c.enqueue(""), BadRequest),
        (lambda c: c.enqueue("a", {"text": "\0"}), BadRequest),
        (lambda c: c.enqueue("a\0"), BadRequest),
        (lambda c: c.enqueue("a", object()), NotJson),
        (lambda c: c.enqueue("a", float("nan")), NotJson),
        (lambda c: c.enqueue_many("a", [1, 2], idempotency_keys=["k"]), BadRequest),
        (lambda c: c.cancel("no id"), BadRequest),
        (lambda c: c.cancel(UUID(int=7)), UnknownRun),
        (lambda c: c.enqueue("other", idempotency_key="used"), IdempotencyConflict),
    ],
)
def test_a_refusal_is_an_exception_of_its_own_and_changes_nothing(
    stage: Stage, call: Callable[[Client], Any], refusal: type[Exception]
) -> None:
    stage.client.enqueue("a", idempotency_key="used")
    with pytest.raises(refusal):
        call(stage.client)
    assert stage.one("select count(*) from pgflow.run") == 1


def test_a_finished_run_says_what_it_is(stage: Stage) -> None:
    run_id = stage.client.enqueue("a")
    stage.client.cancel(run_id)
    with pytest.raises(AlreadyFinished) as refused:
        stage.client.pause(run_id)
    assert (refused.value.run_id, refused.value.from_state) == (str(run_id), "cancelled")
    assert refused.value.hint


def test_a_run_is_enqueued_with_the_callers_own_rows_or_not_at_all(stage: Stage) -> None:
    stage.db.execute("create table shop (item text)")
    with psycopg.connect(stage.dsn) as conn:
        client = Client(conn)
        with conn.transaction():
            conn.execute("insert into shop values ('pen')")
            kept = client.enqueue("ship", {"item": "pen"})
        with conn.transaction(force_rollback=True):
            conn.execute("insert into shop values ('ink')")
            client.enqueue("ship", {"item": "ink"})
    assert [run["run_id"] for run in stage.client.runs()] == [kept]
    assert stage.db.execute("select item from shop").fetchall() == [("pen",)]


def test_an_async_client_enqueues_in_the_callers_transaction_too(stage: Stage) -> None:
    async def enqueue() -> UUID:
        async with await psycopg.AsyncConnection.connect(stage.dsn) as conn:
            client = AsyncClient(conn)
            async with conn.transaction():
                kept = await client.enqueue("ship", 1)
            async with conn.transaction(force_rollback=True):
                await client.enqueue_many("ship", [2, 3])
            return kept

    kept = asyncio.run(enqueue())
    assert [run["run_id"] for run in stage.client.runs()] == [kept]


def test_a_refusal_inside_a_savepoint_leaves_the_transaction_usable(stage: Stage) -> None:
    with psycopg.connect(stage.dsn) as conn, conn.transaction():
        client = Client(conn)
        with pytest.raises(BadRequest), conn.transaction():
            client.enqueue("a", priority=99)
        client.enqueue("a")
    assert len(stage.client.runs()) == 1


def test_a_client_of_a_project_works_in_it_unless_a_call_names_another(stage: Stage) -> None:
    stage.db.execute("select pgflow.create_project('shop')")
    with Client(stage.dsn, project="shop") as shop:
        inside = shop.enqueue("a")
        outside = shop.enqueue("a", project="default")
        assert [run["run_id"] for run in shop.runs()] == [inside]
        with pytest.raises(UnknownRun):
            stage.client.cancel(inside)
        assert shop.cancel(inside) == "cancelled"
    assert [run["run_id"] for run in stage.client.runs()] == [outside]


def test_the_environment_names_the_project(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.db.execute("select pgflow.create_project('shop')")
    monkeypatch.setenv("PGFLOW_PROJECT", "shop")
    with Client(stage.dsn) as shop:
        run_id = shop.enqueue("a")
    assert stage.one("select project_id from pgflow.run where run_id = %s", run_id) == "shop"


def test_a_worker_of_a_project_takes_its_runs_alone(stage: Stage) -> None:
    stage.db.execute("select pgflow.create_project('shop')")

    @stage.app.handler
    async def work(n: int) -> int:
        return n

    with Client(stage.dsn, project="shop") as shop, stage.worker(project="shop"):
        ours = shop.enqueue(work, 1)
        others = stage.client.enqueue(work, 2)
        (run,) = stage.until(lambda: shop.runs(state="completed"))
        assert (run["run_id"], run["output"]) == (ours, 1)
    assert stage.run(others)["state"] == "pending"


def test_a_connection_that_was_cut_is_replaced(stage: Stage) -> None:
    first = stage.client.enqueue("a")
    stage.db.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    assert stage.client.cancel(first) == "cancelled"


def test_first_calls_at_the_same_time_share_one_pool(stage: Stage) -> None:
    async def enqueue() -> list[UUID]:
        async with AsyncClient(stage.dsn) as client:
            return await asyncio.gather(*(client.enqueue("a") for _ in range(20)))

    assert len(set(asyncio.run(enqueue()))) == 20
    with Client(stage.dsn) as client, ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(client.enqueue, ["a"] * 20))) == 20


def test_a_server_that_is_nowhere_is_said_to_be_unreachable() -> None:
    async def ask() -> None:
        async with AsyncClient(NOWHERE) as client:
            await client.enqueue("a")

    with pytest.raises(ServerUnreachable, match="refused"), Client(NOWHERE) as client:
        client.enqueue("a")
    with pytest.raises(ServerUnreachable, match="refused"):
        asyncio.run(ask())


def test_an_app_is_an_async_client_with_a_sync_twin(stage: Stage) -> None:
    app = App(stage.dsn)

    @app.handler(queue="mail")
    async def work(n: int) -> int:
        return n

    async def enqueue() -> UUID:
        async with app:
            return await app.enqueue(work, 1)

    run_ids = [asyncio.run(enqueue()), app.sync.enqueue(work, 2)]
    app.sync.close()
    assert [stage.run(run_id)["input"] for run_id in run_ids] == [1, 2]
    assert {stage.run(run_id)["queue"] for run_id in run_ids} == {"mail"}


def test_times_go_through(stage: Stage) -> None:
    at = datetime.now(UTC) + timedelta(days=300)
    run_id = stage.client.enqueue("a", run_at=at)
    assert stage.run(run_id)["run_at"] == at
    assert stage.run(run_id)["state"] == "scheduled"


def test_the_example_of_the_app_works() -> None:
    failed, tried = doctest.testmod(pgflow.app)
    assert (failed, tried > 0) == (0, True)
