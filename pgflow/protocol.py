"""What only the package itself calls, as statements: the worker's verbs, and what waiters ask."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from pgflow._statement import Row, RunId, Statement, _outcomes, _value
from pgflow.documents import Artifact
from pgflow.errors import LeaseLost
from pgflow.models import Acquired, Lease, Outcome, Parked, Paused, Reaped, Result


def register_worker(
    worker_id: str,
    queues: Sequence[str],
    concurrency: int,
    handlers: Sequence[dict[str, Any]],
    *,
    host: str,
    pid: int,
    version: str,
    project: str | None = None,
) -> Statement[timedelta]:
    """Make a worker known; returns how often it must beat."""
    return Statement(
        b"select w.beat_every from pgflow.register_worker(%(worker_id)s, %(queues)s::text[],"
        b" %(concurrency)s::integer, %(handlers)s::jsonb, %(host)s,"
        b" %(pid)s::integer, %(version)s, %(project)s) as w",
        {
            "worker_id": worker_id,
            "queues": list(queues),
            "concurrency": concurrency,
            "handlers": orjson.dumps(list(handlers)).decode(),
            "host": host,
            "pid": pid,
            "version": version,
            "project": project,
        },
        _value,
    )


def acquire(
    worker_id: str,
    queues: Sequence[str],
    max_runs: int,
    marks: str | None,
    *,
    listening: bool,
    project: str | None = None,
) -> Statement[Acquired]:
    """Lease up to `max_runs` ready runs. `marks` is what the last call returned."""
    return Statement(
        b"select a.runs::text, a.marks::text, a.look_again_in, a.reaped::text, a.batch"
        b" from pgflow.acquire(%(worker_id)s, %(queues)s::text[], %(max_runs)s::integer,"
        b" %(marks)s::jsonb, %(listening)s, %(project)s) as a",
        {
            "worker_id": worker_id,
            "queues": list(queues),
            "max_runs": max_runs,
            "marks": marks,
            "listening": listening,
            "project": project,
        },
        _acquired,
    )


def _acquired(rows: list[Row]) -> Acquired:
    row = rows[0]
    return Acquired(
        leases=_leases(row["runs"]),
        marks=row["marks"],
        look_again_in=row["look_again_in"].total_seconds(),
        reaped=[Reaped.from_json(run) for run in orjson.loads(row["reaped"] or b"[]")],
        batch=row["batch"],
    )


# How acquire begins a lease. A jsonb inside has a blank after its colons.
_NEXT = ',{"run_id":'
_HEAD = re.compile(r'{"run_id":"([^"]+)","lease_no":(\d+),')


def _leases(text: str) -> list[Lease]:
    """Read what was leased. What Python can't read (nested too deep) must not stop the others."""
    try:
        return [Lease.from_json(run) for run in orjson.loads(text)]
    except orjson.JSONDecodeError:
        first, *others = text[1:-1].split(_NEXT)
        return [_lease(run) for run in (first, *(_NEXT[1:] + other for other in others))]


def _lease(text: str) -> Lease:
    try:
        return Lease.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        head = _HEAD.match(text)
        if head is None:
            raise
        return Lease(head[1], int(head[2]), "", "", None, 0, 0, 0, unreadable=str(error))


def beat(
    worker_id: str,
    run_ids: Sequence[str],
    lease_nos: Sequence[int],
    batches: Sequence[int] = (),
    *,
    project: str | None = None,
) -> Statement[list[Outcome]]:
    """Keep all leases; returns a line for each that is lost. `batches` are those that arrived."""
    return Statement(
        b"select b.run_id::text, b.outcome, b.state, b.code, b.detail"
        b" from pgflow.beat(%(worker_id)s, %(run_ids)b::text[]::uuid[], %(lease_nos)s::integer[],"
        b" %(batches)s::bigint[], %(project)s) as b",
        {
            "worker_id": worker_id,
            "run_ids": list(run_ids),
            "lease_nos": list(lease_nos),
            "batches": list(batches),
            "project": project,
        },
        _outcomes,
    )


def complete(
    run_ids: Sequence[str],
    lease_nos: Sequence[int],
    outputs: Sequence[str],
    writes: Sequence[str | None] | None = None,
    *,
    project: str | None = None,
) -> Statement[list[Outcome]]:
    """End runs with their outputs, and steps with what they write to channels of their flows.

    Returns a line for each that was not simply done.
    """
    return Statement(
        b"select c.run_id::text, c.outcome, c.state, c.code, c.detail"
        b" from pgflow.complete(%(run_ids)b::text[]::uuid[], %(lease_nos)s::integer[],"
        b" %(outputs)b::text[], writes => %(writes)s::text[], project => %(project)s) as c",
        {
            "run_ids": list(run_ids),
            "lease_nos": list(lease_nos),
            "outputs": list(outputs),
            "writes": None if writes is None else list(writes),
            "project": project,
        },
        _outcomes,
    )


def fail(
    run_ids: Sequence[str],
    lease_nos: Sequence[int],
    error_codes: Sequence[str],
    error_details: Sequence[str],
    errors: Sequence[str],
    retries: Sequence[bool],
    *,
    project: str | None = None,
) -> Statement[list[Outcome]]:
    """End executions that failed; returns a line for each with the state that it is in now."""
    return Statement(
        b"select f.run_id::text, f.outcome, f.state, f.code, f.detail"
        b" from pgflow.fail(%(run_ids)b::text[]::uuid[], %(lease_nos)s::integer[],"
        b" %(error_codes)s::text[], %(error_details)s::text[], %(errors)s::text[],"
        b" %(retries)s::boolean[], project => %(project)s) as f",
        {
            "run_ids": list(run_ids),
            "lease_nos": list(lease_nos),
            "error_codes": list(error_codes),
            "error_details": list(error_details),
            "errors": list(errors),
            "retries": list(retries),
            "project": project,
        },
        _outcomes,
    )


def release(
    run_ids: Sequence[str],
    lease_nos: Sequence[int],
    reason: str,
    *,
    project: str | None = None,
) -> Statement[list[Outcome]]:
    """Give runs back without using an attempt; returns a line for each."""
    return Statement(
        b"select r.run_id::text, r.outcome, r.state, r.code, r.detail"
        b" from pgflow.release(%(run_ids)b::text[]::uuid[], %(lease_nos)s::integer[], %(reason)s,"
        b" project => %(project)s) as r",
        {
            "run_ids": list(run_ids),
            "lease_nos": list(lease_nos),
            "reason": reason,
            "project": project,
        },
        _outcomes,
    )


def record_step(
    run_ids: Sequence[str],
    lease_nos: Sequence[int],
    keys: Sequence[str],
    digests: Sequence[str],
    values: Sequence[str],
    undos: Sequence[bool] | None = None,
    *,
    project: str | None = None,
) -> Statement[list[Outcome]]:
    """Journal results of steps; returns a line, the key in `code`, for those not simply done."""
    return Statement(
        b"select s.run_id::text, s.outcome, s.state, s.code, s.detail"
        b" from pgflow.record_step(%(run_ids)b::text[]::uuid[], %(lease_nos)s::integer[],"
        b" %(keys)b::text[], %(digests)s::text[], %(values)b::text[], %(undos)s::boolean[],"
        b" %(project)s) as s",
        {
            "run_ids": list(run_ids),
            "lease_nos": list(lease_nos),
            "keys": list(keys),
            "digests": list(digests),
            "values": list(values),
            "undos": None if undos is None else list(undos),
            "project": project,
        },
        _outcomes,
    )


def record_usage(
    run_ids: Sequence[str],
    lease_nos: Sequence[int],
    calls: Sequence[str],
    *,
    project: str | None = None,
) -> Statement[list[Outcome]]:
    """Record calls of models; returns a line, the call_key in `code`, for those not simply done."""
    return Statement(
        b"select u.run_id::text, u.outcome, u.state, u.code, u.detail"
        b" from pgflow.record_usage(%(run_ids)b::text[]::uuid[], %(lease_nos)s::integer[],"
        b" %(calls)s::jsonb, %(project)s) as u",
        {
            "run_ids": list(run_ids),
            "lease_nos": list(lease_nos),
            "calls": f"[{','.join(calls)}]",
            "project": project,
        },
        _outcomes,
    )


def park(parks: Sequence[str], *, project: str | None = None) -> Statement[list[Parked]]:
    """Let runs wait; each element is a json text as the SQL function's comment says."""
    return Statement(
        b"select p.run_id::text, p.outcome, p.news, p.entries, p.code, p.detail"
        b" from pgflow.park(%(parks)s::jsonb, %(project)s) as p",
        {"parks": f"[{','.join(parks)}]", "project": project},
        lambda rows: [Parked(**row) for row in rows],
    )


def stop_worker(worker_id: str, *, project: str | None = None) -> Statement[int]:
    """Say goodbye; what is still held goes back. Returns how many runs that were."""
    return Statement(
        b"select pgflow.stop_worker(%(worker_id)s, %(project)s)",
        {"worker_id": worker_id, "project": project},
        _value,
    )


def tick(*, project: str | None = None) -> Statement[Row]:
    """See to all duties of time now; returns how many of each."""
    return Statement(
        b"select * from pgflow.tick(%(project)s)", {"project": project}, lambda rows: rows[0]
    )


def now() -> Statement[datetime]:
    """Ask for the time by the database's clock."""
    return Statement(b"select pgflow.now()", {}, _value)


def ping(payload: str) -> Statement[None]:
    """Send all listeners a hint that means nothing: a listener's proof of life."""
    return Statement(
        b"select pg_notify('pgflow', %(payload)s)", {"payload": payload}, lambda _: None
    )


def record_artifact(
    run_id: str,
    lease_no: int,
    name: str,
    content: str | None,
    data: bytes | None,
    media_type: str,
    errors: Sequence[dict[str, str]],
    schema: str | None,
    schema_version: int | None,
    kind: str,
    *,
    project: str | None = None,
) -> Statement[Artifact]:
    """Store a document of a run. Raises BadRequest, UnknownSchema, LeaseLost."""
    return Statement(
        b"select * from pgflow.record_artifact(%(run_id)s::uuid, %(lease_no)s::integer, %(name)s,"
        b" content => %(content)s::text, data => %(data)b::bytea, media_type => %(media_type)s,"
        b" errors => %(errors)s::jsonb, schema => %(schema)s,"
        b" schema_version => %(schema_version)s::integer, kind => %(kind)s,"
        b" project => %(project)s)",
        {
            "run_id": run_id,
            "lease_no": lease_no,
            "name": name,
            "content": content,
            "data": data,
            "media_type": media_type,
            "errors": orjson.dumps(list(errors)).decode(),
            "schema": schema,
            "schema_version": schema_version,
            "kind": kind,
            "project": project,
        },
        _artifact,
    )


def _artifact(rows: list[Row]) -> Artifact:
    row = rows[0]
    if row["outcome"] == "lost":
        raise LeaseLost(f"the lease of run {row['run_id']} is lost")
    return Artifact(
        row["name"],
        row["artifact_no"],
        row["size"],
        row["sha256"],
        valid=row["valid"],
        errors=row["errors"] or [],
    )


# Those who wait for a run


def watch(run_id: RunId, *, project: str | None = None) -> Statement[str]:
    """Ask for a hint at each new line of a run, and return its state. Raises UnknownRun.

    It holds the run's row until it is committed, and a claim would pass by: so it commits without
    waiting for the disk. What a crash undoes nobody waits for: it cut all who listened.
    """
    return Statement(
        b"select pgflow.watch(%(run_id)s::uuid, %(project)s)"
        b" from set_config('synchronous_commit', 'off', true)",
        {"run_id": run_id, "project": project},
        _value,
    )


def watch_inbox(*, project: str | None = None) -> Statement[datetime]:
    """Ask for a hint at each change of the inbox, and return until when hints are given."""
    return Statement(b"select pgflow.watch_inbox(%(project)s)", {"project": project}, _value)


def result(run_id: RunId, *, project: str | None = None) -> Statement[Result]:
    """Return what became of a run so far. Raises UnknownRun."""
    return Statement(
        b"select r.* from pgflow.result(%(run_id)s::uuid, %(project)s) as r",
        {"run_id": run_id, "project": project},
        _result,
    )


def _result(rows: list[Row]) -> Result:
    paused = rows[0]["paused"]
    return Result(**{**rows[0], "paused": paused and Paused(**paused)})
