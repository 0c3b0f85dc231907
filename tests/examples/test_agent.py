"""The agent example: turns are paid for once, and what is dangerous takes a yes to just that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from examples.agent.app import Goal, agent, app
from examples.agent.model import SCRIPT
from pgflow.testing import Scene

LEDGER = Path(__file__).parents[2] / "examples" / "agent" / "ledger.sql"
APP = "examples.agent.app:app"

# Whoever writes down a second turn waits, with the row written and not committed, for lock 7.
STOP_AT_TURN_2 = """
    create function stop() returns trigger language plpgsql as $$
    begin
        perform pg_advisory_xact_lock_shared(7);
        return null;
    end
    $$;
    create trigger stop after insert on ledger
    for each row when (new.turn = 2) execute function stop();
"""
DELETE = {"tool": "delete_customer", "arguments": {"customer": 42}}
DELETE_SOME = {"customer": 42, "keep": ["invoices"]}


@pytest.fixture
def scene(pgflow_scene: Scene) -> Scene:
    with psycopg.connect(pgflow_scene.dsn) as conn:
        conn.execute(LEDGER.read_bytes())
    return pgflow_scene.use(app)


def start(scene: Scene, **goal: Any) -> UUID:
    """Let the agent go until it has found the customer and asks whether it may delete them."""
    run_id = app.sync.enqueue(agent, Goal(goal="Forget ann@example.com", **goal))
    scene.run_until_idle()
    resolve(scene, run_id, "find_customer", {"customer": 42})
    scene.run_until_idle()
    return run_id


def resolve(scene: Scene, run_id: UUID, key: str, result: object) -> None:
    """Resolve a tool call as whoever has the tool does: in SQL."""
    with psycopg.connect(scene.dsn) as conn:
        conn.execute(
            "select pgflow.resolve_tool(%s, %s, %s)",
            (run_id, key, Jsonb(result)),
        )


def open_calls(scene: Scene) -> list[Any]:
    """Return the tool calls that wait, with their arguments."""
    query = "select key, arguments from pgflow.tool_calls where status = 'open'"
    with psycopg.connect(scene.dsn) as conn:
        return conn.execute(query).fetchall()


def ledger(scene: Scene) -> list[tuple[int, float]]:
    """Return what the turns have cost, in the order in which they were taken."""
    with psycopg.connect(scene.dsn) as conn:
        return conn.execute("select turn, cost_usd::float8 from ledger order by at").fetchall()


def finish(scene: Scene, run_id: UUID) -> Any:
    """Delete the customer, and return the agent's report."""
    resolve(scene, run_id, "delete_customer", "gone")
    scene.run_until_idle()
    return scene.output(run_id)


def test_the_agent_calls_tools_until_it_has_an_answer(scene: Scene) -> None:
    run_id = start(scene)
    assert [(task.key, task.payload) for task in scene.tasks()] == [("may delete_customer", DELETE)]
    assert open_calls(scene) == []
    scene.approve(comment="she asked for it")
    scene.run_until_idle()
    assert open_calls(scene) == [("delete_customer", {"customer": 42})]
    assert finish(scene, run_id) == {
        "answer": SCRIPT[2].text,
        "turns": 3,
        "cost_usd": "0.04",
    }
    assert ledger(scene) == [(1, 0.01), (2, 0.02), (3, 0.01)]


def test_the_budget_stops_it_with_a_clear_error_and_no_second_attempt(scene: Scene) -> None:
    run_id = start(scene, budget_usd="0.03")
    scene.approve()
    scene.run_until_idle()
    resolve(scene, run_id, "delete_customer", "gone")
    scene.run_until_idle()
    run = scene.run(run_id)
    assert run["state"] == "failed"
    assert run["error_detail"] == ("BudgetExceeded: 2 turns cost 0.03 USD of 0.03, no answer yet")
    assert run["attempt_count"] == 1
    assert ledger(scene) == [(1, 0.01), (2, 0.02)]


def test_a_no_ends_it(scene: Scene) -> None:
    run_id = start(scene)
    scene.reject(comment="never")
    scene.run_until_idle()
    assert (scene.run(run_id)["state"], open_calls(scene)) == ("cancelled", [])


def test_who_sends_it_back_is_heard_by_the_next_turn_only(scene: Scene) -> None:
    run_id = start(scene)
    scene.reject(comment="keep the invoices", rollback_to="turn 2")
    scene.run_until_idle()
    (again,) = scene.tasks()
    assert again.payload["arguments"] == DELETE_SOME
    scene.approve()
    scene.run_until_idle()
    assert open_calls(scene) == [("delete_customer", DELETE_SOME)]
    finish(scene, run_id)
    steps = scene.steps(run_id)
    told = [steps[f"turn {number}"]["told"] for number in (1, 2, 3)]
    assert told == [None, "keep the invoices", None]


def test_a_turn_that_was_taken_back_has_cost_something_too(scene: Scene) -> None:
    run_id = start(scene, budget_usd="0.06")
    scene.reject(comment="keep the invoices", rollback_to="turn 2")
    scene.run_until_idle()
    assert ledger(scene) == [(1, 0.01), (2, 0.02), (2, 0.03)]
    scene.approve()
    scene.run_until_idle()
    resolve(scene, run_id, "delete_customer", "gone")
    scene.run_until_idle()
    assert scene.run(run_id)["error_detail"].startswith("BudgetExceeded: 2 turns cost 0.06 USD")


def test_a_tool_that_fails_is_called_again_and_nobody_asked_again(scene: Scene) -> None:
    run_id = start(scene)
    scene.approve()
    scene.run_until_idle()
    scene.client.fail_tool(run_id, "delete_customer", "the database is down")
    scene.run_until_idle()
    assert (scene.tasks(), open_calls(scene)) == ([], [("delete_customer", {"customer": 42})])
    assert scene.timeline(run_id).count("task.requested may delete_customer") == 1
    finish(scene, run_id)


def test_a_yes_does_not_count_for_anything_else(scene: Scene) -> None:
    """An operator changes what the model has said, after a person has agreed to it."""
    run_id = start(scene)
    scene.approve()
    scene.client.pause(run_id)
    turn = scene.steps(run_id)["turn 2"]
    turn["reply"]["call"]["arguments"] = {"customer": 43}
    scene.client.resume(run_id, {"update": {"turn 2": turn}})
    scene.run_until_idle()
    (task,) = scene.tasks()
    assert task.payload["arguments"] == {"customer": 43}
    assert open_calls(scene) == []


@pytest.mark.slow
def test_a_worker_killed_while_it_writes_down_a_cost_writes_it_once(
    scene: Scene, kill_a_worker: Callable[[str, str], None]
) -> None:
    run_id = app.sync.enqueue(agent, Goal(goal="Forget ann@example.com"))
    scene.run_until_idle()
    resolve(scene, run_id, "find_customer", {"customer": 42})
    with psycopg.connect(scene.dsn) as conn:
        conn.execute(STOP_AT_TURN_2)
    kill_a_worker(APP, "select pg_advisory_xact_lock(7)")
    assert ledger(scene) == [(1, 0.01)]
    scene.run_until_idle()
    scene.approve()
    scene.run_until_idle()
    assert finish(scene, run_id)["cost_usd"] == "0.04"
    assert ledger(scene) == [(1, 0.01), (2, 0.02), (3, 0.01)]
    scene.assert_timeline(
        run_id,
        [
            ...,
            "step.completed turn 1",
            ...,
            "tool.resolved find_customer",
            "run.woken",
            "run.started",
            "step.completed turn 2",
            "run.requeued",
            "run.started",
            "step.completed cost 2",
            "task.requested may delete_customer",
            ...,
            "run.completed",
        ],
    )
