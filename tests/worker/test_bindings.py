"""What real workers know of the agents that a run is bound to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pgflow import Context, Flow, Step, ThreadContext
from pgflow.errors import BindingLost

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

FLOW = Flow(name="f", steps=[Step(name="plan", role="planner"), Step(name="free")])


def test_a_handler_finds_the_agent_of_its_role_in_its_context(stage: Stage) -> None:
    @stage.app.handler
    def plan(ctx: ThreadContext) -> list[object]:
        bound = ctx.binding
        assert bound is not None
        return [bound.role, bound.agent, bound.version, bound.model, bound.backend, bound.config]

    @stage.app.handler
    async def free(ctx: Context) -> bool:
        return ctx.binding is None

    stage.client.define_flow(FLOW)
    agent = stage.client.define_agent("cheap", "small", backend="here", config={"t": 0})
    assert [row["version"] for row in stage.client.agents(agent="cheap")] == [agent.version]
    run_id = stage.client.start("f", bindings={"planner": "cheap"})
    with stage.worker():
        told = stage.client.result(run_id, timeout=30).value
    assert told == {"plan": ["planner", "cheap", 1, "small", "here", {"t": 0}], "free": True}


def test_a_step_whose_binding_is_lost_is_paused_before_its_handler_is_called(stage: Stage) -> None:
    called = []

    @stage.app.handler
    async def plan(ctx: Context) -> None:
        called.append(ctx)

    @stage.app.handler
    async def free() -> None:
        return None

    stage.client.define_flow(FLOW)
    stage.client.define_agent("planner", "small")
    run_id = stage.client.start("f")
    with psycopg.connect(stage.app.dsn, autocommit=True) as conn:
        conn.execute("update pgflow.run set bindings = '{}' where run_id = %s", (run_id,))
    step = next(s for s in stage.client.flow_steps(run_id) if s["step"] == "plan")
    with stage.worker():
        stage.client.result(step["run_id"], timeout=30, until="paused")
    assert called == []
    (row,) = stage.client.runs(run_id=step["run_id"])
    assert row["pause_reason"] == (
        "E-RUN-012: the binding of role planner is missing: the run has none"
    )
    with pytest.raises(BindingLost):
        stage.client.resume(step["run_id"])
