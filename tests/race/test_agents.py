"""Agents that are defined at once, and gates that are decided at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.race.staging import Blocked, held
from tests.sql.flows import started, states, step, task_of, work
from tests.sql.test_agents import agent

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine


def test_two_that_define_the_same_agent_make_one_version(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    one, other = connect(), connect()
    with held(one):
        first = agent(one, "new")
        defining = blocked(other, lambda: agent(other, "new"), by=one)
    assert defining.result() == first
    assert engine.value("select count(*) from pgflow.agents where agent = 'new'") == 1


def test_two_that_define_an_agent_differently_make_two_versions(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    one, other = connect(), connect()
    with held(one):
        agent(one, "new")
        defining = blocked(other, lambda: agent(other, "new", "large"), by=one)
    assert defining.result()["version"] == 2
    assert engine.value("select version from pgflow.agent where agent = 'new'") == 2


def test_of_two_that_decide_a_gate_the_first_opens_the_next_one_once(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    run_id = started(engine, step("plan", gates=["a", "b"]))
    work(engine)
    task_id = task_of(engine, run_id, "plan/a")
    one, other = connect(), connect()
    with held(one):
        one.approve(task_id)
        rejecting = blocked(other, lambda: other.reject(task_id, rollback_to="plan"), by=one)
    with pytest.raises(psycopg.Error) as refused:
        rejecting.result()
    assert refused.value.sqlstate == "PF402"
    assert states(engine, run_id) == {
        "plan": "completed",
        "plan/a": "completed",
        "plan/b": "waiting",
    }
    assert engine.value("select count(*) from pgflow.inbox where flow_run_id = %s", run_id) == 1
