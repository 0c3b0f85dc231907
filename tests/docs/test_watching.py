"""What docs/watching.md shows of subscriptions is what happens."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgflow import App, Client

PAGE = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()
SECTION = PAGE.partition("\n## The events of all runs, each once\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL)


def code(language: str, number: int = 0) -> str:
    return str([text for of, text in BLOCKS if of == language][number])


def failed(client: Client) -> UUID:
    """Return a new run that has failed for lack of a handler that anybody has."""
    run_id = client.enqueue("nobody")
    with psycopg.connect(client._dsn, autocommit=True) as conn:
        conn.execute("select pgflow.register_worker('w:1', '{default}', 1)")
        ((runs,),) = conn.execute("select runs from pgflow.acquire('w:1', '{default}', 1)")
        conn.execute(
            "select pgflow.fail(array[%s]::uuid[], array[%s], '{E-RUN-004}', '{unknown}',"
            " retries => '{f}')",
            [run_id, runs[0]["lease_no"]],
        )
    return run_id


class Enough(Exception):
    """Ends a loop that has no end."""


def test_a_program_is_given_each_event(dsn: str, db: psycopg.Connection) -> None:
    db.execute("select pgflow.subscribe('billing')")
    with Client(dsn) as client:
        run_id = failed(client)
    billed: list[tuple[UUID, Any]] = []

    async def bill(run_id: UUID, payload: Any) -> None:
        billed.append((run_id, payload["error_code"]))
        raise Enough

    async def follow() -> None:
        app = App(dsn)
        names: dict[str, Any] = {"aclosing": aclosing, "app": app, "bill": bill}
        lines = "".join(f"    {line}\n" for line in code("python").splitlines())
        exec(f"async def follow():\n{lines}", names)
        with pytest.raises(Enough):
            await names["follow"]()
        await app.close()

    asyncio.run(follow())
    assert billed == [(run_id, "E-RUN-004")]


def test_in_a_transaction_of_ones_own_each_is_read_once(dsn: str, db: psycopg.Connection) -> None:
    db.execute("select pgflow.subscribe('billing', '{run.failed}')")
    db.execute("create table bill (run_id uuid primary key)")
    with Client(dsn) as client:
        run_id = failed(client)
    for _ in range(2):
        exec(code("python", 1), {"dsn": dsn, "psycopg": psycopg, "Client": Client})
    assert db.execute("select * from bill").fetchall() == [(run_id,)]


def test_in_sql_it_is_the_same(dsn: str, db: psycopg.Connection) -> None:
    subscribe, next_events, acknowledge = code("sql").strip().splitlines()
    db.execute(subscribe.encode())
    db.execute("select pgflow.subscribe('billing')")
    with Client(dsn) as client:
        run_id = client.enqueue("h")
    assert db.execute(next_events.encode()).fetchall() == [
        (1, run_id, "run.created", {"handler": "h"})
    ]
    assert db.execute(acknowledge.encode()).fetchall() == [(True,)]
    assert db.execute(next_events.encode()).fetchall() == []
