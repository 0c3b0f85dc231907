"""The example of phases: artifacts held to schemas, a repair, gates, roles and a budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from examples.agent_phases.app import app
from pgflow import Budget
from pgflow.definition import read_definition
from pgflow.errors import UnknownAgent
from pgflow.testing import Scene

FOLDER = Path(__file__).parents[2] / "examples" / "agent_phases"
NOTES = "Greet people by name: greet.py. Known: no name prints Hello alone."


@pytest.fixture
def scene(pgflow_scene: Scene) -> Scene:
    scene = pgflow_scene.use(app)
    app.sync.define_flow(read_definition(FOLDER / "phases.yaml"))
    with psycopg.connect(scene.dsn) as conn:
        conn.execute((FOLDER / "agents.sql").read_bytes())
    return scene


def started(scene: Scene, **how: Any) -> UUID:
    """Start the flow and do all that it can do before a person is asked."""
    run_id = app.sync.start("change", **how)
    scene.run_until_idle()
    return run_id


def approve(scene: Scene, *gates: str) -> None:
    """Approve gates, one after the other, which are asked in that order."""
    for gate in gates:
        scene.approve(gate)
        scene.run_until_idle()


def steps(run_id: UUID) -> list[tuple[str, str, int]]:
    """Return the steps with their states and how often they were executed."""
    rows = app.sync.flow_steps(run_id)
    return [(row["step"], row["state"], row["attempts"]) for row in rows]


def report(run_id: UUID) -> Mapping[str, Any]:
    return app.sync.report(run_id)


def test_the_phases_go_from_the_plan_to_the_release(scene: Scene) -> None:
    run_id = started(scene)
    assert scene.run(run_id)["state"] == "waiting_approval"
    approve(scene, "plan/product", "review/lead", "review/security")
    assert scene.output(run_id) == {"notes": NOTES}
    documents = [a for a in report(run_id)["artifacts"] if a["kind"] == "document" and a["valid"]]
    assert [a["name"] for a in documents] == ["plan", "patch", "review", "notes"]
    assert [(d["step"], d["action"]) for d in report(run_id)["decisions"]] == [
        ("plan/product", "approved"),
        ("review/lead", "approved"),
        ("review/security", "approved"),
    ]


def test_a_patch_without_tests_is_repaired_once(scene: Scene) -> None:
    run_id = started(scene)
    approve(scene, "plan/product")
    patches = [a for a in report(run_id)["artifacts"] if a["name"] == "patch"]
    assert [a["valid"] for a in patches] == [False, True]
    calls = [m for m in report(run_id)["usage"]["models"] if m["model"] == "small"]
    assert calls[0]["calls"] == 2


def test_people_see_the_hash_of_what_they_approve(scene: Scene) -> None:
    run_id = started(scene)
    (task,) = scene.tasks()
    (plan,) = (a for a in report(run_id)["artifacts"] if a["name"] == "plan")
    assert task.payload["sha256"] == plan["sha256"]
    assert task.payload["artifact"]["artifact_no"] == plan["artifact_no"]


def test_a_plan_that_is_sent_back_heeds_the_comment_and_is_approved_anew(scene: Scene) -> None:
    run_id = started(scene)
    scene.reject("plan/product", comment="no questions, please", rollback_to="plan")
    scene.run_until_idle()
    (task,) = scene.tasks()
    assert task.payload["output"]["steps"] == ["take the name as an argument"]
    assert [state for step, state, _ in steps(run_id) if step == "plan"] == ["voided", "completed"]


def test_a_start_may_bind_a_role_to_another_agent_which_the_report_tells(scene: Scene) -> None:
    run_id = started(scene, bindings={"coder": "careful-coder"})
    approve(scene, "plan/product")
    patches = [a for a in report(run_id)["artifacts"] if a["name"] == "patch"]
    assert [a["valid"] for a in patches] == [True]
    assert [(b["role"], b["agent"], b["model"]) for b in report(run_id)["bindings"]] == [
        ("coder", "careful-coder", "large"),
        ("planner", "planner", "large"),
        ("reviewer", "reviewer", "large"),
    ]
    with pytest.raises(UnknownAgent):
        app.sync.start("change", bindings={"coder": "nobody"})


def test_a_run_keeps_its_agents_when_they_are_defined_anew(scene: Scene) -> None:
    run_id = started(scene)
    app.sync.define_agent("reviewer", "small")
    approve(scene, "plan/product")
    assert ("review", "completed", 1) in steps(run_id)


def test_the_flow_fails_when_its_models_cost_more_than_its_budget(scene: Scene) -> None:
    run_id = started(scene, budget=Budget(usd=0.05))
    approve(scene, "plan/product")
    run = scene.run(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-009")
