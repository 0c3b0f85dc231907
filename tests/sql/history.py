"""Histories that are older than the test: periods of the past, and runs whose ids are from then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from tests.conftest import database
from tests.sql.conftest import Engine, Lease, Place, Row

TABLES = (
    *("run_finished", "event", "journal", "journal_voided", "signal", "usage"),
    *("flow_step", "budget", "channel_write", "checkpoint", "artifact"),
)
WEEK = timedelta(days=7)


@contextmanager
def own_place(server: str, template: str) -> Iterator[Place]:
    """Make a database of the test's own: partitions that it makes or drops stay so."""
    with database(server, template=template) as dsn, closing(Place(dsn)) as place:
        yield place


def periods(engine: Engine) -> list[Row]:
    """Return the periods from the first to the last."""
    return engine.rows("select * from pgflow.period order by from_at")


def partitions(engine: Engine) -> set[str]:
    """Return the names of the partitions that are attached."""
    rows = engine.rows(
        "select inhrelid::regclass::text as name"
        " from pg_inherits join pg_class c on c.oid = inhrelid"
        " where c.relnamespace = 'pgflow'::regnamespace and c.relkind = 'r'"
    )
    return {row["name"].removeprefix("pgflow.") for row in rows}


def tables_of(engine: Engine, period: str) -> set[str]:
    """Return the names of all tables that a period has, attached or not."""
    rows = engine.rows("select relname from pg_class where relname like '%%\\_' || %s", period)
    return {row["relname"] for row in rows} & {f"{table}_{period}" for table in TABLES}


def maintain(engine: Engine) -> list[str]:
    """Do all the upkeep that there is to do now; return what was done."""
    engine.rows("delete from pgflow.upkeep where duty = 'maintain'")
    done = []
    while (step := engine.call("maintain")[0])["did"]:
        done.append(step["did"])
    assert step["blocked"] is None
    return done


def add_past(engine: Engine, weeks: int) -> str:
    """Make the period that many weeks before the first, with its partitions; return its name."""
    period: str = engine.value(
        "insert into pgflow.period (period, from_at, to_at, from_id, to_id)"
        " select to_char(f.at at time zone 'UTC', 'YYYYMMDDHH24'), f.at, f.at + interval '7 days',"
        " pgflow._first_id(f.at), pgflow._first_id(f.at + interval '7 days')"
        " from (select min(from_at) - %s as at from pgflow.period) f returning period",
        weeks * WEEK,
    )
    engine.rows("select pgflow._make_partitions()")
    return period


def begin_of(engine: Engine, period: str) -> datetime:
    """Return when a period begins."""
    at: datetime = engine.value("select from_at from pgflow.period where period = %s", period)
    return at


def drop_last(engine: Engine) -> None:
    """Take the last period away, as if nobody had made it yet."""
    last = periods(engine)[-1]["period"]
    for table in TABLES:
        engine.rows(f"drop table pgflow.{table}_{last}")
    engine.rows("delete from pgflow.period where period = %s", last)


def old_run(engine: Engine, period: str, key: str | None = None, queue: str = "default") -> UUID:
    """Enqueue a run with an id of an old period, which enqueue would refuse by now."""
    run_id: UUID = engine.value(
        "select encode(overlay(uuid_send(pgflow._new_id()) placing"
        " substring(uuid_send(pgflow._first_id(from_at + interval '1 hour')) from 1 for 6)"
        " from 1 for 6), 'hex')::uuid from pgflow.period where period = %s",
        period,
    )
    if key:
        claim = "select pgflow._claim_key('default', %s, %s, 'h', '{}')"
        assert engine.value(claim, key, run_id) is None
    engine.rows(
        "select pgflow._enqueue('default', 'h', array[%s]::uuid[], array['{}']::jsonb[], %s, 0,"
        " null, null, null, null, %s, null, null, null)",
        run_id,
        queue,
        key,
    )
    return run_id


def old_lease(engine: Engine, period: str, key: str | None = None, queue: str = "default") -> Lease:
    """Lease a run with an id of an old period."""
    if not engine.value("select exists (select from pgflow.worker_beat where worker_id = 'w:1')"):
        engine.worker("w:1", [queue])
    run_id = old_run(engine, period, key, queue)
    return engine.lease_of(run_id, queues=[queue])


def finished(engine: Engine, period: str, key: str | None = None, queue: str = "default") -> UUID:
    """Finish a run with an id of an old period, now, with a line in each table of the history."""
    lease = old_lease(engine, period, key, queue)
    engine.record_steps(lease, a="1")
    engine.record_usage(lease, {"call_key": "a/1"})
    engine.call("emit", run_id=lease.run_id, type="note")
    engine.call("signal", run_id=lease.run_id, name="hello")
    assert engine.complete(lease) == []
    return lease.run_id


def rows_of(engine: Engine, run_id: UUID) -> set[str]:
    """Return the tables that hold something of a run."""
    tables = (*TABLES, "task", "run_key")
    query = " union all ".join(
        f"select '{table}' as name from pgflow.{table} where run_id = %(id)s" for table in tables
    )
    cursor = engine.conn.execute(query, {"id": run_id})
    return {name for (name,) in cursor.fetchall()}
