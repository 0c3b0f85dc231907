"""The plans of the hot statements, on tables with a past, while somebody holds an old snapshot.

What each verb really did is told by auto_explain, statements inside functions included: none reads
a whole table, whether it was ever analyzed or not, and none costs more for what was claimed and
ended since that snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.sql.conftest import Engine, Lease
from tests.sql.flows import define, gate, started, step
from tests.sql.history import own_place
from tests.sql.waits import child

if TYPE_CHECKING:
    from uuid import UUID

    from psycopg import errors

    from tests.sql.conftest import Connect, Row

BATCH = 200
# Tables that grow with the work. The others have a row per queue, handler or worker.
GROWING = {"run", "run_finished", "event", "journal", "task"}
# Of those that the fixture has, rows for many other runs.
HISTORY = """
    insert into pgflow.event (project_id, run_id, event_no, type, attempt, at, by)
    select 'default', pgflow._new_id(), 2, 'note', 0, now(), 'test' from generate_series(1, 20000);
    insert into pgflow.journal (project_id, run_id, key, kind, lease_no, attempt, event_no, at)
    select 'default', pgflow._new_id(), 'a', 'step', 1, 0, 3, now() from generate_series(1, 20000);
    insert into pgflow.task (project_id, task_id, run_id, key, kind, round, title, payload_sha256,
        request_sha256, requested_by, created_at)
    select 'default', pgflow._new_id(), pgflow._new_id(), 'ok', 'approval', 0, 'Approve', '', '',
        'test', now()
    from generate_series(1, 20000);
"""
AUTO_EXPLAIN = """
    load 'auto_explain';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_nested_statements = on;
    set auto_explain.log_analyze = on;
    set auto_explain.log_buffers = on;
    set auto_explain.log_timing = off;
    set auto_explain.log_format = json;
    set client_min_messages = log;
"""


class Told:
    """What auto_explain tells: the statements that a verb made, each with its plan."""

    def __init__(self) -> None:
        self.statements: list[dict[str, Any]] = []

    def hear(self, message: errors.Diagnostic) -> None:
        """Take a line of the server's log."""
        _, found, plan = (message.message_primary or "").partition("plan:\n")
        if found:
            self.statements.append(json.loads(plan))

    def nodes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Return all nodes of all plans, each with its statement."""
        todo = [(statement["Query Text"], statement["Plan"]) for statement in self.statements]
        while todo:
            text, node = todo.pop()
            todo += [(text, part) for part in node.get("Plans", [])]
            yield text, node

    def whole_tables(self) -> set[str]:
        """Return the growing tables that were read from end to end."""
        return {
            node["Relation Name"]
            for _, node in self.nodes()
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in GROWING
        }

    def wasteful(self, rows: int) -> list[tuple[int, str]]:
        """Return the nodes that read so many rows in vain, and how many."""
        removed = ("Rows Removed by Filter", "Rows Removed by Join Filter")
        return self._with(rows, lambda node: sum(node.get(name, 0) for name in removed))

    def crowded(self, rows: int) -> list[tuple[int, str]]:
        """Return the scans that read so many rows of growing tables."""
        return self._with(
            rows,
            lambda node: node["Actual Rows"] if node.get("Relation Name") in GROWING else 0,
        )

    def _with(self, least: int, rows: Callable[[dict[str, Any]], int]) -> list[tuple[int, str]]:
        counted = [
            (int(rows(node) * node["Actual Loops"]), node, text) for text, node in self.nodes()
        ]
        return [
            (count, f"{node['Node Type']} {node.get('Index Name', '')}: {' '.join(text.split())}")
            for count, node, text in counted
            if count >= least
        ]

    def pages(self) -> int:
        """Return how many pages were looked at by the statement that looked at most."""
        plans = [statement["Plan"] for statement in self.statements]
        pages: list[int] = [
            plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans
        ]
        return max(pages)


@contextmanager
def explained(engine: Engine) -> Iterator[Told]:
    """Hear what the statements in the block do."""
    told = Told()
    engine.conn.execute(AUTO_EXPLAIN)
    engine.conn.add_notice_handler(told.hear)
    try:
        yield told
    finally:
        engine.conn.remove_notice_handler(told.hear)
        engine.conn.execute("reset client_min_messages; set auto_explain.log_min_duration = -1")
    assert told.statements


def work_off(engine: Engine, marks: Row | None, runs: int) -> Row:
    """Claim and complete so many runs; return the marks of the last claim."""
    for _ in range(runs // BATCH):
        acquired = engine.acquire(BATCH, marks)
        assert len(acquired.leases) == BATCH
        marks = acquired.marks
        engine.complete(*acquired.leases)
    assert marks is not None
    return marks


def plan(engine: Engine) -> None:
    """Have the verbs of workers planned now, for all the time that the session lives."""
    lost = Lease(uuid4(), 1, {})
    engine.acquire(1)
    for verb in (engine.beat, engine.complete, engine.fail, engine.park):
        verb(lost)
    engine.record_steps(lost, a="1")
    engine.tick()


@pytest.fixture(scope="module", params=["analyzed", "never analyzed", "planned while empty"])
def busy(server: str, template: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an installation with runs ready, waiting and finished, and a snapshot held."""
    now = datetime.now(UTC).replace(microsecond=0)
    with (
        own_place(server, template) as place,
        place.session() as conn,
        place.session() as holder,
        holder.transaction(),
    ):
        engine = Engine(conn, place, now)
        place.admin.execute("alter table pgflow.run set (autovacuum_enabled = off)")
        engine.worker()
        if request.param == "planned while empty":
            place.admin.execute("vacuum analyze")
            plan(engine)
        engine.enqueue_many([{"n": n} for n in range(12_000)])
        marks = work_off(engine, None, 2000)
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from pgflow.run")
        marks = work_off(engine, marks, 4000)
        for lease in engine.acquire(10, marks).leases:
            engine.record_steps(lease, a="1")
            engine.park(lease, {"key": "ok"})
        place.admin.execute(HISTORY)
        if request.param == "analyzed":
            place.admin.execute("analyze")
        yield engine


def leases(number: int) -> Callable[[Engine], list[Lease]]:
    return lambda engine: engine.acquire(number).leases


def nothing(_: Engine) -> None:
    return None


def ended(engine: Engine) -> list[Lease]:
    held = engine.acquire(BATCH).leases
    engine.complete(*held)
    return held


def a_task(engine: Engine) -> UUID:
    task_id: UUID = engine.value("select task_id from pgflow.inbox order by run_id limit 1")
    return task_id


def spender(engine: Engine) -> Lease:
    return engine.leased(queue="spenders", budget=Jsonb({"usd": 5}))


def a_child(engine: Engine) -> list[Lease]:
    engine.park(engine.leased(queue="parents"), child(queue="parts"))
    return engine.acquire(queues=["parts"]).leases


# What is made ready first, and the verb, which is given it.
VERBS: dict[str, tuple[Callable[[Engine], Any], Callable[[Engine, Any], object]]] = {
    "enqueue": (nothing, lambda e, _: e.enqueue()),
    "enqueue with a key": (nothing, lambda e, _: e.enqueue(idempotency_key="k")),
    "enqueue_many": (nothing, lambda e, _: e.enqueue_many([{}] * 100)),
    "acquire": (nothing, lambda e, _: e.acquire(BATCH)),
    "complete": (leases(BATCH), lambda e, held: e.complete(*held)),
    "complete a child": (a_child, lambda e, held: e.complete(*held)),
    "complete one": (leases(1), lambda e, held: e.complete(*held)),
    "fail": (leases(20), lambda e, held: e.fail(*held)),
    "record_step": (leases(1), lambda e, held: e.record_steps(held[0], b="2")),
    "record_usage": (
        spender,
        lambda e, held: e.record_usage(held, {"call_key": "k", "cost_usd_total": 1}),
    ),
    "park": (leases(1), lambda e, held: e.park(held[0], {"key": "ok"})),
    "approve": (a_task, lambda e, task: e.approve(task)),
    "beat": (leases(BATCH), lambda e, held: e.beat(*held)),
    "beat of what is lost": (ended, lambda e, held: e.beat(*held)),
    "tick": (nothing, lambda e, _: e.tick()),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_reads_a_growing_table_from_end_to_end(busy: Engine, verb: str) -> None:
    prepare, act = VERBS[verb]
    given = prepare(busy)
    with explained(busy) as told:
        act(busy, given)
    assert told.whole_tables() == set()
    assert told.wasteful(2000) == []  # of 6000 that are ready


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_claim_looks_at_as_many_pages_late_under_an_old_snapshot_as_early(
    engine: Engine, connect: Connect
) -> None:
    engine.worker()
    engine.enqueue_many([{"n": n} for n in range(12_000)])
    marks = work_off(engine, None, 1000)
    engine.place.admin.execute("analyze")
    holder = connect()
    with holder.conn.transaction():
        holder.conn.execute("set transaction isolation level repeatable read")
        holder.conn.execute("select count(*) from pgflow.run")
        pages = []
        for _ in range(2):
            with explained(engine) as told:
                marks = work_off(engine, marks, BATCH)
            pages.append(told.pages())
            marks = work_off(engine, marks, 4000)
    early, late = pages
    assert late < 1.3 * early + 50


def pages_to_end_a_step(engine: Engine, parallel: int) -> int:
    """Return at how many pages the end of the last but two of so many parallel steps looks."""
    names = [f"step_{number}" for number in range(parallel)]
    started(engine, step("first"), *(step(n, "first") for n in names), step("last", *names))
    engine.complete(*engine.acquire(1).leases)
    *leases, late, later, last = engine.acquire(parallel).leases
    for one in leases[:10]:
        engine.complete(one)
    for start in range(10, len(leases), 10):
        engine.complete(*leases[start : start + 10])
    engine.complete(late)
    with explained(engine) as told:
        engine.complete(later)
    engine.complete(last)
    engine.complete(*engine.acquire(1).leases)
    assert engine.value("select count(*) from pgflow.run") == 0
    return told.pages()


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_the_end_of_a_step_looks_at_as_many_pages_among_a_thousand_as_among_ten(
    engine: Engine,
) -> None:
    # Else the dead are known as such a while later only, and looked at until then.
    engine.conn.execute("set synchronous_commit = on")
    engine.worker()
    pages_to_end_a_step(engine, 10)  # its plans are made
    assert pages_to_end_a_step(engine, 1000) < 1.3 * pages_to_end_a_step(engine, 10)


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_failure_that_may_be_undone_looks_at_no_others_that_have_ended(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "h", "undo_on": ["failed"]}])
    engine.fail(engine.leased(), retries=[False])  # its plans are made, for few
    engine.enqueue_many([{}] * 3000)
    work_off(engine, None, 3000)
    late = engine.leased()
    with explained(engine) as told:
        engine.fail(late, retries=[False])
    assert told.wasteful(1000) == []


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
@pytest.mark.parametrize("verb", ["complete one", "fail", "record_step", "park", "beat"])
def test_a_plan_that_was_made_for_few_runs_serves_many(engine: Engine, verb: str) -> None:
    prepare, act = VERBS[verb]
    engine.worker()
    engine.enqueue_many([{}] * 20)
    act(engine, prepare(engine))
    engine.enqueue_many([{}] * 3000)
    given = prepare(engine)
    with explained(engine) as told:
        act(engine, given)
    assert told.wasteful(1000) == []


MANY = 100
CROWD = 3000
# What is done for many flows at once: the steps of the flow, and what it has beside them.
FLOWS: dict[str, tuple[list[Row], Row]] = {
    "steps": ([step("a"), step("b", "a"), step("c", "b")], {}),
    "parallel steps": ([step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")], {}),
    "elements": ([step("a", each="$.elements[*]"), step("b", "a")], {}),
    "state values": ([step("a"), step("b", "a"), step("c", "b")], {"channels": {"x": {}}}),
    "gates": ([step("a"), gate("b", "a")], {}),
    "inner flows": ([step("a"), step("b", "a", type="flow", config={"flow": "inner"})], {}),
    "pauses": ([step("a"), step("b", "a", type="timer", config={"seconds": 60})], {}),
}


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("ends", ["complete", "fail"])
def test_what_ends_in_many_flows_at_once_is_looked_at_once_each(
    engine: Engine, kind: str, ends: str
) -> None:
    steps, more = FLOWS[kind]
    define(engine, step("i"), name="inner")
    define(engine, *steps, **more)
    engine.worker()

    def work_off_flows(flows: int) -> None:
        engine.rows(
            "select pgflow.start('f', '{\"elements\": [1, 2]}') from generate_series(1, %s)", flows
        )
        while leases := engine.acquire(flows).leases:
            if ends == "complete":
                engine.complete(*leases)
            else:
                engine.fail(*leases, retries=[False] * len(leases))

    engine.place.admin.execute("alter table pgflow.run set (autovacuum_enabled = off)")
    engine.place.admin.execute("vacuum analyze")
    work_off_flows(3)  # its plans are made, for few
    engine.enqueue_many([{}] * CROWD, queue="others")
    with explained(engine) as told:
        work_off_flows(MANY)
    assert told.wasteful(20 * MANY) == []  # each with each would be 50 * MANY
    if engine.conn.info.server_version >= 170000:  # before, a list of ids may be a mere filter
        assert told.crowded(CROWD) == []
