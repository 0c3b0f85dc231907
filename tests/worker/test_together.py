"""What tasks of one event loop enqueue at once is written together, and each hears of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from pgflow import AsyncClient
from pgflow.errors import BadRequest, IdempotencyConflict, ServerUnreachable

if TYPE_CHECKING:
    from tests.worker.conftest import Stage


def at_once(dsn: str, *calls: dict[str, Any]) -> list[Any]:
    """Enqueue by that many tasks; return the ids, or what was raised."""

    async def enqueue() -> list[Any]:
        async with AsyncClient(dsn) as client:
            await client.now()  # connects
            return await asyncio.gather(
                *(client.enqueue(**{"handler": "h", **call}) for call in calls),
                return_exceptions=True,
            )

    return asyncio.run(enqueue())


def transactions(stage: Stage) -> int:
    """Return how many transactions wrote the runs that are there."""
    count: int = stage.one("select count(distinct xmin::text) from pgflow.run")
    return count


def test_tasks_that_enqueue_at_once_share_a_transaction(stage: Stage) -> None:
    run_ids = at_once(stage.dsn, *({"input": {"n": n}} for n in range(50)))
    assert [stage.run(run_id)["input"] for run_id in run_ids] == [{"n": n} for n in range(50)]
    assert transactions(stage) == 1


def test_each_keeps_its_settings(stage: Stage) -> None:
    calls: list[dict[str, Any]] = [
        {"queue": "a"},
        {"queue": "b"},
        {"queue": "a", "tags": ["x", "y"]},
        {"queue": "a", "tags": ["x"]},
        {"handler": "g", "queue": "a"},
        {"priority": 3, "queue": "a"},
        {"correlation_id": "c", "queue": "a"},
    ]
    calls *= 3
    for call, run_id in zip(calls, at_once(stage.dsn, *calls), strict=True):
        run = stage.run(run_id)
        assert {name: run[name] for name in call} == call
    assert transactions(stage) == 7


def test_a_refusal_meets_who_caused_it(stage: Stage) -> None:
    stage.client.enqueue("h", {"n": 1}, idempotency_key="taken")
    calls = [{"input": {"n": n}, "idempotency_key": key} for n, key in enumerate("abcd")]
    calls[2]["idempotency_key"] = "taken"
    first, second, refused, last = at_once(stage.dsn, *calls)
    assert isinstance(refused, IdempotencyConflict)
    assert [stage.run(run)["input"]["n"] for run in (first, second, last)] == [0, 1, 3]


def test_a_key_said_twice_at_once_is_one_run(stage: Stage) -> None:
    one, other = at_once(stage.dsn, {"idempotency_key": "k"}, {"idempotency_key": "k"})
    assert isinstance(one, UUID)
    assert one == other


def test_each_is_told_what_is_wrong_with_all(stage: Stage) -> None:
    outcomes = at_once(stage.dsn, *[{"handler": ""}] * 3)
    assert [type(error) for error in outcomes] == [BadRequest] * 3
    assert stage.one("select count(*) from pgflow.run") == 0


def test_a_server_that_is_gone_is_told_to_each() -> None:
    async def enqueue() -> list[Any]:
        async with AsyncClient("host=127.0.0.1 port=1 dbname=x") as client:
            calls = [client.enqueue("h") for _ in range(3)]
            return await asyncio.gather(*calls, return_exceptions=True)

    assert [type(error) for error in asyncio.run(enqueue())] == [ServerUnreachable] * 3


def test_more_kinds_than_statements_at_a_time_all_go(stage: Stage) -> None:
    run_ids = at_once(stage.dsn, *({"handler": f"h{n}"} for n in range(30)))
    assert [stage.run(run_id)["handler"] for run_id in run_ids] == [f"h{n}" for n in range(30)]


def test_large_inputs_are_not_put_in_one_statement(stage: Stage) -> None:
    at_once(stage.dsn, *[{"input": "x" * 700_000}] * 3)
    assert transactions(stage) == 3


def test_a_caller_that_waits_no_more_disturbs_nobody(stage: Stage) -> None:
    async def enqueue() -> list[UUID]:
        async with AsyncClient(stage.dsn) as client:
            await client.now()
            tasks = [asyncio.ensure_future(client.enqueue("h", {"n": n})) for n in range(3)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            done = await asyncio.gather(tasks[0], tasks[2])
            with pytest.raises(asyncio.CancelledError):
                await tasks[1]
            return list(done)

    run_ids = asyncio.run(enqueue())
    assert [stage.run(run_id)["input"]["n"] for run_id in run_ids] == [0, 2]
    assert stage.one("select count(*) from pgflow.run") == 2


def test_in_a_transaction_of_the_callers_each_goes_alone(stage: Stage) -> None:
    """A savepoint of theirs could be rolled back in between."""

    async def enqueue() -> None:

        async with await psycopg.AsyncConnection.connect(stage.dsn) as conn:
            client = AsyncClient(conn)
            await asyncio.gather(client.enqueue("h", {"n": 1}), client.enqueue("h", {"n": 2}))
            await conn.rollback()

    asyncio.run(enqueue())
    assert stage.one("select count(*) from pgflow.run") == 0
