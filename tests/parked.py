"""Runs that wait, made through the functions that workers call."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]


def value(db: Connection, query: str, *values: object) -> Any:
    """Return the first column of the first row."""
    row = db.execute(query.encode(), values or None).fetchone()
    assert row is not None
    return row[0]


def parked(
    db: Connection, *waits: dict[str, Any], steps: dict[str, Any] | None = None, **settings: object
) -> UUID:
    """Bring a new run to where it has done these steps and waits for this; return its id."""
    settings = {"handler": "publish", **settings}
    names = ", ".join(f"{name} => %s" for name in settings)
    run_id: UUID = value(db, f"select pgflow.enqueue({names})", *settings.values())
    db.execute("select pgflow.register_worker('vm:1', '{default}', 10)")
    lease(db, run_id)
    park(db, run_id, *waits, steps=steps)
    return run_id


def lease(db: Connection, run_id: UUID) -> None:
    """Lease what is ready, this run too."""
    runs = value(db, "select runs from pgflow.acquire('vm:1', '{default}', 100)")
    assert str(run_id) in [run["run_id"] for run in runs]


def park(
    db: Connection, run_id: UUID, *waits: dict[str, Any], steps: dict[str, Any] | None = None
) -> None:
    """Have a leased run do steps and wait."""
    lease_no, news = (
        value(db, f"select {column} from pgflow.run where run_id = %s", run_id)
        for column in ("lease_no", "news")
    )
    for key, result in (steps or {}).items():
        db.execute(
            "select pgflow.record_step(%s, %s, %s, %s, %s)",
            ([run_id], [lease_no], [key], [_sha256(key)], [json.dumps(result)]),
        )
    asked = [{"digest": _sha256(json.dumps(wait)), **wait} for wait in waits]
    parks = [{"run_id": str(run_id), "lease_no": lease_no, "news": news, "waits": asked}]
    outcome = value(db, "select outcome from pgflow.park(%s)", Jsonb(parks))
    assert outcome == "done", outcome


def task_of(db: Connection, run_id: UUID, key: str | None = None) -> UUID:
    """Return the open task of a run."""
    found: UUID = value(
        db,
        "select task_id from pgflow.inbox where run_id = %s and step = coalesce(%s, step)",
        run_id,
        key,
    )
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
