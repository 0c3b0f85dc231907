"""What a handler waits for, as its worker says it to park."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.sql.conftest import Engine, Lease, Row


def tool(key: str = "t", **more: Any) -> Row:
    """Return the wait for a tool call."""
    arguments = {"url": "a.mp4"}
    return {"kind": "tool", "key": key, "tool": "transcode", "arguments": arguments, **more}


def event(key: str = "pay", **more: Any) -> Row:
    """Return the wait for a signal, of the name of its key."""
    return {"kind": "event", "key": key, "name": key, **more}


def sleep(seconds: float, key: str = "s", **more: Any) -> Row:
    """Return the wait for a time."""
    return {"kind": "sleep", "key": key, "seconds": seconds, **more}


def child(key: str = "c", **more: Any) -> Row:
    """Return the wait for a child run."""
    return {"kind": "run", "key": key, "handler": "part", "input": {"n": 1}, **more}


def entry(engine: Engine, run_id: UUID, key: str) -> Row:
    """Return a journal entry that counts."""
    return engine.one("select * from pgflow.journal where run_id = %s and key = %s", run_id, key)


def asked(engine: Engine, run_id: UUID) -> set[str]:
    """Return the keys of what is asked for a run beside tasks."""
    return {wait["key"] for wait in engine.row(run_id)["waits"] or []}


def children(engine: Engine, run_id: UUID) -> list[Row]:
    """Return a run's children, live and finished, as they were made."""
    return engine.rows("select * from pgflow.runs where parent_run_id = %s order by run_id", run_id)


def part(engine: Engine, run_id: UUID, key: str = "c") -> UUID:
    """Return the id of the child that a run asked for last under a key."""
    child_id: UUID = engine.value(
        "select max((payload ->> 'run_id')::text)::uuid from pgflow.event"
        " where run_id = %s and type = 'child.started' and payload ->> 'key' = %s",
        run_id,
        key,
    )
    return child_id


def with_children(engine: Engine, *waits: Row, **more: Any) -> tuple[Lease, list[Lease]]:
    """Park a new run on children and lease those; return its old lease and theirs, in order."""
    parent = engine.leased()
    line = engine.park(parent, *(waits or (child(),)), **more)
    assert line["outcome"] == "done", line
    leases = engine.acquire().leases
    keys = {part(engine, parent.run_id, wait["key"]): n for n, wait in enumerate(waits)}
    return parent, sorted(leases, key=lambda lease: keys.get(lease.run_id, 0))
