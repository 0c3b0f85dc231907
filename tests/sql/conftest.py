"""The engine as a test sees it: one method a verb, a clock to set, and databases that are put back.

A test runs twice: in a database with nothing in it, and in one with the remains of earlier runs
under the same names. Where those have no part in what is tested, it is parametrized with the place
`fresh`, indirectly; $PGFLOW_TEST_PLACES leaves one of the two out. A clone per test takes 200 ms;
putting the rows of one clone back, 5.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.conftest import database

Row = dict[str, Any]
Refused = pytest.ExceptionInfo[psycopg.Error]


@dataclass(frozen=True)
class Lease:
    """A run that a worker holds, and all that acquire said about it."""

    run_id: UUID
    lease_no: int
    body: Row


@dataclass(frozen=True)
class Look:
    """What one acquire returned."""

    leases: list[Lease]
    marks: Row
    look_again_in: float
    reaped: list[Row]
    batch: int | None

    @property
    def run_ids(self) -> list[UUID]:
        """The runs leased, in the order in which they came."""
        return [lease.run_id for lease in self.leases]


class Place:
    """A clone whose rows are put back after each test."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._idle: list[psycopg.Connection] = []
        self.admin = psycopg.connect(dsn, autocommit=True)
        self.admin.execute("set lock_timeout = '10s'; set session_replication_role = replica")
        # So many small tables look like a big query, which workers would be started for.
        self.admin.execute("set max_parallel_workers_per_gather = 0")
        self._tables = [
            sql.Identifier(name)
            for (name,) in self.admin.execute(
                "select relname from pg_class"
                " where relnamespace = 'pgflow'::regnamespace and relkind in ('r', 'p')"
                " and not relispartition order by 1"
            )
        ]

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        """Lend a connection; a new one would take 20 ms to learn the functions anew."""
        conn = self._idle.pop() if self._idle else psycopg.connect(self.dsn, autocommit=True)
        try:
            yield conn
        finally:
            conn.rollback()
            conn.execute("reset session authorization; reset all; unlisten *")
            self._idle.append(conn)

    def close(self) -> None:
        """Close all connections."""
        for conn in (self.admin, *self._idle):
            conn.close()

    def keep(self) -> None:
        """Take the rows that are there now for those to be put back."""
        self.admin.execute("create schema kept")
        # With their texts, because making these is most of the work.
        self.admin.execute(
            self._each(
                "create table kept.{0} as select t as was, t::text as said from pgflow.{0} t;"
            )
        )
        put_back = self._each(
            "delete from pgflow.{0} t where t::text not in (select k.said from kept.{0} k);"
            "insert into pgflow.{0} select (k.was).* from kept.{0} k"
            " where k.said not in (select t::text from pgflow.{0} t);"
        )
        function = "create function kept.put_back() returns void language plpgsql as {}"
        body = sql.Literal(f"begin {put_back.as_string()} end")
        self.admin.execute(sql.SQL(function).format(body))

    def put_back(self) -> None:
        """Make all tables what they were; as a replica, where no trigger refuses."""
        self.admin.execute("select kept.put_back()")

    def rows(self) -> list[tuple[Any, ...]]:
        """Return a digest of each table, by which a test sees that nothing changed."""
        digest = "select {0}::text, md5(string_agg(t::text, '' order by t::text)) from pgflow.{1} t"
        parts = [sql.SQL(digest).format(t.as_string(), t) for t in self._tables]
        query = sql.SQL(" union all ").join(parts) + sql.SQL(" order by 1")
        return self.admin.execute(query).fetchall()

    def _each(self, statement: str) -> sql.Composed:
        return sql.Composed([sql.SQL(statement).format(table) for table in self._tables])


class Engine:
    """A session of somebody who calls the engine's functions, at the time `now`."""

    def __init__(self, conn: psycopg.Connection, place: Place, now: datetime) -> None:
        self.conn = conn
        self.place = place
        self.set_clock(now)

    # ---- time and people

    def set_clock(self, now: datetime) -> None:
        """Set this session's time."""
        self.now = now
        self.conn.execute("select set_config('pgflow.test_now', %s, false)", (now.isoformat(),))

    def later(self, **span: float) -> None:
        """Move this session's time on, by what timedelta takes."""
        self.set_clock(self.now + timedelta(**span))

    @contextmanager
    def acting_as(self, role: str) -> Iterator[None]:
        """Act as another role, as a pooler or PostgREST does."""
        self.conn.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        try:
            yield
        finally:
            self.conn.execute("reset role")

    # ---- asking

    def rows(self, query: str, *values: object) -> list[Row]:
        """Run any SQL."""
        cursor = self.conn.cursor(row_factory=dict_row)
        cursor.execute(query, values or None)
        return cursor.fetchall() if cursor.description else []

    def one(self, query: str, *values: object) -> Row:
        """Run any SQL that returns one row."""
        (row,) = self.rows(query, *values)
        return row

    def value(self, query: str, *values: object) -> Any:
        """Run any SQL that returns one value."""
        (value,) = self.one(query, *values).values()
        return value

    def call(self, verb: str, **arguments: object) -> list[Row]:
        """Call a function of the engine with named arguments; a dict goes as jsonb."""
        names = ", ".join(f'"{name}" => %s' for name in arguments)
        values = [Jsonb(v) if isinstance(v, dict) else v for v in arguments.values()]
        return self.rows(f"select * from pgflow.{verb}({names})", *values)

    def tell(self, verb: str, **arguments: object) -> Any:
        """Call a function of the engine that returns one value."""
        (row,) = self.call(verb, **arguments)
        (value,) = row.values()
        return value

    @contextmanager
    def refused(self, sqlstate: str, field: str | None = None) -> Iterator[Refused]:
        """Expect a refusal with message, detail and hint, which names the field, and no change."""
        before = self.place.rows()
        with pytest.raises(psycopg.Error) as caught:
            yield caught
        said = caught.value.diag
        assert (caught.value.sqlstate, said.message_primary) == (sqlstate, said.message_primary)
        assert said.message_detail
        assert said.message_hint
        if field is not None:
            assert said.column_name == field
        assert self.place.rows() == before

    # ---- the verbs

    def enqueue(self, handler: str = "h", **arguments: Any) -> UUID:
        """Enqueue a run."""
        run_id: UUID = self.tell("enqueue", handler=handler, **arguments)
        return run_id

    def enqueue_many(self, inputs: Sequence[object], **arguments: object) -> list[UUID]:
        """Enqueue a run of handler h for each input."""
        arguments = {"handler": "h", "inputs": [Jsonb(i) for i in inputs], **arguments}
        return [row["enqueue_many"] for row in self.call("enqueue_many", **arguments)]

    def worker(
        self,
        worker_id: str = "w:1",
        queues: Sequence[str] = ("default",),
        handlers: Sequence[Mapping[str, object]] = (),
        **arguments: object,
    ) -> str:
        """Register a worker."""
        self.call(
            "register_worker",
            worker_id=worker_id,
            queues=list(queues),
            handlers=Jsonb(list(handlers)),
            **{"concurrency": 10, **arguments},
        )
        return worker_id

    def acquire(
        self,
        max_runs: int = 100,
        marks: Row | None = None,
        *,
        worker_id: str = "w:1",
        queues: Sequence[str] = ("default",),
        **arguments: object,
    ) -> Look:
        """Lease runs to a registered worker."""
        (look,) = self.call(
            "acquire",
            worker_id=worker_id,
            queues=list(queues),
            max_runs=max_runs,
            marks=marks,
            **arguments,
        )
        leases = [Lease(UUID(run["run_id"]), run["lease_no"], run) for run in look["runs"]]
        wait = look["look_again_in"].total_seconds()
        return Look(leases, look["marks"], wait, look["reaped"] or [], look["batch"])

    def leased(self, handler: str = "h", worker_id: str = "w:1", **arguments: Any) -> Lease:
        """Enqueue a run and lease it; registers the worker if it is not."""
        queue = str(arguments.get("queue", "default"))
        if not self.value(
            "select exists (select from pgflow.worker_beat"
            " where project_id = 'default' and worker_id = %s)",
            worker_id,
        ):
            self.worker(worker_id, [queue])
        run_id = self.enqueue(handler, **arguments)
        return self.lease_of(run_id, worker_id=worker_id, queues=[queue])

    def lease_of(self, run_id: UUID, **arguments: Any) -> Lease:
        """Lease what is ready, which must be this one run."""
        (lease,) = self.acquire(**arguments).leases
        assert lease.run_id == run_id
        return lease

    def beat(self, *held: Lease, worker_id: str = "w:1", **arguments: object) -> list[Row]:
        """Beat, naming these leases."""
        return self.call("beat", worker_id=worker_id, **_named(held), **arguments)

    def complete(self, *held: Lease, output: str = "null", **arguments: Any) -> list[Row]:
        """Complete runs, all with the same output unless `outputs` are given."""
        arguments = {"outputs": [output] * len(held), **arguments}
        return self.call("complete", **_named(held), **arguments)

    def fail(
        self, *held: Lease, code: str = "E-RUN-001", detail: str = "boom", **arguments: Any
    ) -> list[Row]:
        """Fail executions."""
        arguments = {
            "error_codes": [code] * len(held),
            "error_details": [detail] * len(held),
            **arguments,
        }
        return self.call("fail", **_named(held), **arguments)

    def release(self, *held: Lease, **arguments: object) -> list[Row]:
        """Give runs back."""
        return self.call("release", **_named(held), **arguments)

    def park(self, lease: Lease, *waits: Row, news: int | None = 0, **more: object) -> Row:
        """Park a run on approvals; without any, on one of key ok."""
        (line,) = self.call("park", parks=Jsonb([self.parking(lease, *waits, news=news, **more)]))
        return line

    def parking(self, lease: Lease, *waits: Row, news: int | None = 0, **more: object) -> Row:
        """Return an element of park's argument."""
        asked = [{"kind": "approval", "title": "Fine?", **w} for w in waits or ({"key": "ok"},)]
        body = {"run_id": str(lease.run_id), "lease_no": lease.lease_no, "waits": asked, **more}
        return body if news is None else {**body, "news": news}

    def waiting(self, *waits: Row, wait_any: bool = False, **more: Any) -> UUID:
        """Bring a new run to where it waits for approvals."""
        lease = self.leased(**more)
        assert self.park(lease, *waits, wait_any=wait_any)["outcome"] == "done"
        return lease.run_id

    def put(self, state: str, **arguments: Any) -> UUID:
        """Bring a new run into a live state."""
        if state == "scheduled":
            return self.enqueue(**{"run_at": self.now + timedelta(hours=1), **arguments})
        if state == "pending":
            return self.enqueue(**arguments)
        lease = self.leased(**arguments)
        if state == "waiting_approval":
            self.park(lease)
        elif state != "running":
            self.call("pause", run_id=lease.run_id)
        if state in {"waiting_tool", "waiting_event"}:  # which no function makes yet
            self.rows(
                "update pgflow.run set state = %s, waits_for = '{ok}', pause_reason = null"
                " where run_id = %s",
                state,
                lease.run_id,
            )
        assert self.state(lease.run_id) == state
        return lease.run_id

    def record_steps(self, lease: Lease, **steps: str) -> list[Row]:
        """Journal json texts under keys."""
        return self.call(
            "record_step",
            run_ids=[lease.run_id] * len(steps),
            lease_nos=[lease.lease_no] * len(steps),
            keys=list(steps),
            digests=["aa"] * len(steps),
            values=list(steps.values()),
        )

    def record_usage(self, lease: Lease, *calls: Row) -> list[Row]:
        """Record calls of models."""
        return self.call(
            "record_usage",
            run_ids=[lease.run_id] * len(calls),
            lease_nos=[lease.lease_no] * len(calls),
            calls=Jsonb(list(calls)),
        )

    def approve(self, task_id: UUID, **arguments: object) -> Row:
        """Approve a task."""
        (decision,) = self.call("approve", task_id=task_id, **arguments)
        return decision

    def reject(self, task_id: UUID, **arguments: object) -> Row:
        """Reject a task."""
        (decision,) = self.call("reject", task_id=task_id, **arguments)
        return decision

    def settled(self) -> None:
        """Wait until all transactions have ended; the server has some of its own."""
        ask = self.place.admin.execute
        given_up = time.monotonic() + 20
        (last,) = ask("select pg_current_xact_id()").fetchone() or ()
        while ask(
            "select pg_snapshot_xmin(pg_current_snapshot()) <= %s::xid8", [last]
        ).fetchone() == (True,):
            assert time.monotonic() < given_up, "a transaction holds events back"

    def tick(self) -> Row:
        """See to the duties of time."""
        (counts,) = self.call("tick")
        return counts

    # ---- looking

    def run(self, run_id: UUID) -> Row:
        """Return a run's line of view runs."""
        return self.one("select * from pgflow.runs where run_id = %s", run_id)

    def state(self, run_id: UUID) -> str:
        """Return a run's state."""
        return str(self.run(run_id)["state"])

    def row(self, run_id: UUID) -> Row:
        """Return a live run's row."""
        return self.one("select * from pgflow.run where run_id = %s", run_id)

    def timeline(self, run_id: UUID) -> list[Row]:
        """Return a run's timeline, which must be numbered from 1 without a gap."""
        lines = self.rows(
            "select * from pgflow.timeline where run_id = %s order by event_no", run_id
        )
        assert [line["event_no"] for line in lines] == list(range(1, len(lines) + 1))
        return lines

    def types(self, run_id: UUID) -> list[str]:
        """Return the types of a run's timeline."""
        return [str(line["type"]) for line in self.timeline(run_id)]

    def worker_status(self, worker_id: str = "w:1") -> Row:
        """Return a worker's line of view worker_status."""
        return self.one(
            "select * from pgflow.worker_status where project_id = 'default' and worker_id = %s",
            worker_id,
        )

    def queue_stats(self, queue: str = "default") -> Row:
        """Return a queue's line of view queue_stats."""
        return self.one(
            "select * from pgflow.queue_stats where project_id = 'default' and queue = %s", queue
        )

    def task(self, run_id: UUID, key: str = "ok") -> UUID:
        """Return the id of the task that a run opened under a key."""
        task_id: UUID = self.value(
            "select task_id from pgflow.task where run_id = %s and key = %s", run_id, key
        )
        return task_id


Connect = Callable[..., Engine]
MakeRole = Callable[..., str]


def _named(held: Sequence[Lease]) -> Row:
    """Return leases as the two arrays that the worker's verbs take."""
    return {"run_ids": [h.run_id for h in held], "lease_nos": [h.lease_no for h in held]}


@contextmanager
def _place(server: str, template: str) -> Iterator[Place]:
    with database(server, template=template) as dsn:
        place = Place(dsn)
        with closing(place):
            yield place


@pytest.fixture(scope="session")
def fresh(server: str, template: str) -> Iterator[Place]:
    """Return a migrated database with no run in it."""
    with _place(server, template) as place:
        place.keep()
        yield place


@pytest.fixture(scope="session")
def used(server: str, template: str) -> Iterator[Place]:
    """Return a database in which others have been before, under the names that the tests use."""
    with _place(server, template) as place:
        with place.session() as conn:
            _live(Engine(conn, place, datetime.now(UTC) - timedelta(hours=1)))
        place.keep()
        yield place


def _live(engine: Engine) -> None:
    """Leave a few hundred runs behind: ended in every way, and live ones that nobody will take."""
    engine.call("define_queue", queue="old", lease_ttl=timedelta(days=1))
    engine.tell("create_project", project="elsewhere")
    engine.worker("w:1", ["default", "old"], [{"handler": "h"}])
    for priority in (9, 0, -9):
        engine.enqueue_many([{"n": n} for n in range(60)], priority=priority, tags=["old"])
    engine.enqueue("h", idempotency_key="old-1")
    held = engine.acquire(200).leases
    for lease in held[:30]:
        engine.record_steps(lease, a="1", b='{"x": 2}')
        engine.call("emit", run_id=lease.run_id, type="note", idempotency_key="e-1")
        engine.park(lease, {"key": "ok", "assignee_role": "editors"}, {"key": "second"})
    for n, lease in enumerate(held[:30]):
        if n % 3:
            engine.approve(engine.task(lease.run_id), comment="fine")
        if n % 3 == 1:
            engine.reject(engine.task(lease.run_id, "second"))
    engine.complete(*held[30:120], output='{"ok": true}')
    engine.fail(*held[120:140], retries=[False] * 20)
    engine.release(*held[140:160])
    for lease in held[140:170]:
        engine.call("cancel", run_id=lease.run_id, reason="old")
    for lease in held[170:]:
        engine.call("pause", run_id=lease.run_id)
    engine.enqueue_many([{}] * 20, run_at=engine.now + timedelta(days=3000))
    engine.enqueue_many([{}] * 20, queue="old", priority=3)
    engine.call("stop_worker", worker_id="w:1")
    engine.worker("old:1", ["old"])
    engine.acquire(10, worker_id="old:1", queues=["old"])
    _flow(engine)
    # Another tenant, with the same keys.
    engine.conn.execute("set pgflow.project = 'elsewhere'")
    engine.worker("w:1", ["default"], [{"handler": "h", "max_attempts": 9, "timeout": 9}])
    for n in range(9):
        engine.enqueue("h", idempotency_key=f"order-{n}", input={"elsewhere": n})
    engine.complete(*engine.acquire(4).leases)
    engine.conn.execute("reset pgflow.project")
    (counts,) = engine.rows("select count(*) as live from pgflow.run")
    assert counts["live"] > 60


def _flow(engine: Engine) -> None:
    """Leave runs of flow f, as far as they come with one of three steps."""
    steps = [{"name": "a"}, {"name": "b"}, {"name": "c", "needs": ["a", "b"]}]
    engine.call("define_flow", definition={"name": "f", "queue": "flows", "steps": steps})
    engine.call("define_queue", queue="flows", lease_ttl=timedelta(days=1))
    engine.worker("old:2", ["flows"])
    for how in ("complete", "fail", "cancel", "pause", "wait"):
        run_id = engine.tell("start", flow="f", idempotency_key=f"flow-{how}")
        first, _ = engine.acquire(worker_id="old:2", queues=["flows"]).leases
        if how in {"cancel", "pause"}:
            engine.call(how, run_id=run_id)
        elif how == "fail":
            engine.fail(first, retries=[False])
        elif how == "wait":
            engine.park(first)
        else:
            engine.complete(first)


@pytest.fixture(params=(os.environ.get("PGFLOW_TEST_PLACES") or "fresh used").split())
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Return the database of this test, put back when it is over."""
    place: Place = request.getfixturevalue(request.param)
    yield place
    place.put_back()


@pytest.fixture
def dsn(place: Place) -> str:
    """Return the DSN of a migrated database that is as the test's own."""
    return place.dsn


@pytest.fixture
def db(place: Place) -> Iterator[psycopg.Connection]:
    """Return an autocommit connection to the test's own database."""
    with place.session() as conn:
        yield conn


@pytest.fixture
def engine(db: psycopg.Connection, place: Place) -> Engine:
    """Return a superuser's session, at a full second of our time."""
    return Engine(db, place, datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def connect(engine: Engine) -> Iterator[Connect]:
    """Return a maker of further sessions, of any login, at the time of the first."""
    with ExitStack() as stack:

        def connect(login: str | None = None) -> Engine:
            conn = stack.enter_context(engine.place.session())
            if login:
                name = sql.Identifier(login)
                conn.execute(sql.SQL("set session authorization {}").format(name))
            return Engine(conn, engine.place, engine.now)

        yield connect


@pytest.fixture
def make_role(place: Place) -> Iterator[MakeRole]:
    """Return a maker of logins of this test's own, which have the roles named."""
    names: list[sql.Identifier] = []

    def make_role(*has: str) -> str:
        name = f"pgflow_test_{secrets.token_hex(6)}"
        names.append(sql.Identifier(name))
        place.admin.execute(sql.SQL("create role {} login").format(names[-1]))
        for role in has:
            grant = sql.SQL("grant {} to {}").format(sql.Identifier(role), names[-1])
            place.admin.execute(grant)
        return name

    yield make_role
    for name in names:
        place.admin.execute(sql.SQL("drop role {}").format(name))
