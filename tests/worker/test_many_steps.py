"""Many steps of flows that end at once are reported over two connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pgflow._reporter import _apart
from pgflow.models import Lease
from pgflow.reports import Completed, End

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

REPORTING = """
    select count(distinct pid) from pg_stat_activity
    where datname = current_database() and query like '%%pgflow.complete(%%'
        and pid <> pg_backend_pid()
"""


def ended(run_id: str, root: str | None) -> End:
    more = {} if root is None else {"root_run_id": root}
    return Completed(Lease(run_id, 1, "h", "q", None, 0, 0, 1, more=more), "null")


@pytest.mark.parametrize(
    ("flows", "steps", "alone", "parts"),
    [(100, 1, 0, 2), (100, 3, 50, 2), (2, 60, 7, 2), (1, 500, 0, 1), (1, 500, 9, 1), (99, 1, 9, 1)],
)
def test_two_parts_share_no_flow_and_lose_nothing(
    flows: int, steps: int, alone: int, parts: int
) -> None:
    reports = [ended(f"{s}-{f}", f"flow {f}") for s in range(steps) for f in range(flows)]
    reports += [ended(f"alone {n}", None) for n in range(alone)]
    cut = _apart(reports)
    assert len(cut) == parts
    told = [report.lease.run_id for part in cut for report in part]
    assert sorted(told) == sorted(report.lease.run_id for report in reports)
    roots = [{r.lease.more["root_run_id"] for r in part if r.lease.more} for part in cut]
    assert sum(map(len, roots)) == flows


@pytest.mark.parametrize(("flows", "connections"), [(150, 2), (5, 1)])
def test_a_second_connection_is_there_for_many_steps_only(
    stage: Stage, flows: int, connections: int
) -> None:
    leased, all_leased = 0, asyncio.Event()

    @stage.app.handler
    async def step() -> None:
        nonlocal leased
        leased += 1
        if leased == flows:
            all_leased.set()
        await all_leased.wait()

    stage.client.define_flow({"name": "f", "steps": [{"name": "step"}]})
    for _ in range(flows):
        stage.client.start("f")
    with stage.worker(concurrency=flows):
        stage.all_end(2 * flows)
        assert stage.one(REPORTING) == connections
