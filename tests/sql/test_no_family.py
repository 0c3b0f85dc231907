"""A run without parent or children pays nothing for those that have some: one look in an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row

INDEX = "pgflow.run_has_a_family"
# What the session has done that isn't yet reported, so two looks have to be in one transaction:
# looks into the index, entries that they came to, rows that scans of the whole table read.
DONE = """
    select pg_stat_get_xact_numscans(%s::regclass) as looks,
        pg_stat_get_xact_tuples_returned(%s::regclass) as entries,
        pg_stat_get_xact_tuples_returned('pgflow.run'::regclass) as scanned
"""


def done_by(engine: Engine, act: Callable[[], object]) -> Row:
    """Return what an act did."""
    with engine.conn.transaction():
        before = engine.one(DONE, INDEX, INDEX)
        act()
        after = engine.one(DONE, INDEX, INDEX)
    return {what: after[what] - before[what] for what in after}


@pytest.fixture
def held(engine: Engine) -> list[Lease]:
    """Return the leases of plain runs, of which there are 20,000, beside 3,000 families."""
    engine.enqueue_many([{}] * 20_000, queue="plain")
    engine.rows(
        "insert into pgflow.run (project_id, run_id, handler, queue, state, seq, max_attempts,"
        " created_at, created_by, input, has_children, parent_run_id, root_run_id, parent_key)"
        " select 'default', pgflow._new_id(), 'h', 'families', 'pending', n, 1, now(), 'test',"
        " '{}', n %% 2 = 0, p, p, case when p is not null then 'c' end"
        " from generate_series(1, %s) n,"
        " lateral (select case when n %% 2 = 1 then pgflow._new_id() end) as u (p)",
        6000,
    )
    engine.worker(queues=["plain"])
    return engine.acquire(200, queues=["plain"]).leases


CALLS: dict[str, Callable[[Engine, list[Lease]], object]] = {
    "complete": lambda engine, leases: engine.complete(*leases),
    "fail": lambda engine, leases: engine.fail(*leases, retries=[False] * len(leases)),
    "park": lambda engine, leases: [engine.park(lease) for lease in leases[:5]],
    "cancel": lambda engine, leases: engine.call("cancel", run_id=leases[0].run_id),
}


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize("verb", CALLS)
def test_the_look_for_a_family_touches_no_run(
    engine: Engine, held: list[Lease], verb: str, *, analyzed: bool
) -> None:
    if analyzed:
        engine.place.admin.execute("analyze pgflow.run")
    CALLS[verb](engine, held[:7])
    done = done_by(engine, lambda: CALLS[verb](engine, held[7:]))
    # One run alone is locked as such; of many those that have a family are looked for first.
    assert (done["looks"] == 0) == (verb == "cancel")
    assert done["entries"] == 0
    # Statements planned while the table was empty may scan it until the server has analyzed it.
    assert not analyzed or done["scanned"] == 0


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_its_plan_is_a_look_into_the_index_of_families(
    engine: Engine, held: list[Lease], mode: str
) -> None:
    engine.place.admin.execute("analyze pgflow.run")
    source = engine.value("select prosrc from pg_proc where proname = '_lock_family'")
    query = source[source.index("select from unnest") : source.index(") then")]
    engine.conn.execute(f"set plan_cache_mode = {mode}".encode())
    engine.conn.execute("set enable_seqscan = off; set enable_bitmapscan = off")
    prepared = query.replace("p_project", "$1").replace("p_run_ids", "$2")
    engine.conn.execute(f"prepare look (text, uuid[]) as {prepared}".encode())
    literal = "{" + ",".join(str(lease.run_id) for lease in held) + "}"
    explain = f"explain execute look ('default', '{literal}')"
    plan = "\n".join(str(row["QUERY PLAN"]) for row in engine.rows(explain))
    engine.conn.execute("deallocate look")
    assert "using run_has_a_family" in plan
    assert "Seq Scan" not in plan
