"""The expense example: who may decide, how many, and what happens if nobody does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from examples.editorial import processes
from examples.expense.app import app
from pgflow.errors import BadRequest, NotAllowed
from pgflow.testing import Scene

DESK = Path(__file__).parents[2] / "examples" / "expense" / "desk.sql"
APP = "examples.expense.app:app"
TRAIN: dict[str, Any] = {"purpose": "a train to Vienna", "category": "travel", "amount": 80}
CONFERENCE = TRAIN | {"purpose": "a conference", "amount": 1250}


@pytest.fixture
def scene(pgflow_scene: Scene) -> Scene:
    scene = pgflow_scene.use(app)
    scene.person("ann", "pgflow_client", "managers")
    for manager in ("bea", "carl"):
        scene.person(manager, "managers")
    scene.person("dora", "directors")
    return scene


def claim(scene: Scene, data: dict[str, Any]) -> UUID:
    """Have Ann claim something, until somebody is asked about it."""
    with psycopg.connect(scene.dsn) as conn:
        conn.execute("set role ann")
        row = conn.execute(
            """select pgflow.enqueue('expense', '{"name": "ann"}', queue => 'expenses')"""
        ).fetchone()
    assert row is not None
    scene.run_until_idle()
    scene.answer(data, "claim", by="ann")
    scene.run_until_idle()
    assert isinstance(row[0], UUID)
    return row[0]


def test_a_small_claim_takes_one_manager(scene: Scene) -> None:
    run_id = claim(scene, TRAIN)
    scene.approve("approve", by="bea")
    scene.run_until_idle()
    assert scene.steps(run_id) == {"order": "order 80 ann"}
    scene.client.signal(run_id, "payment", {"reference": "B-1"})
    scene.run_until_idle()
    assert scene.output(run_id) == {
        "state": "paid",
        "amount": 80,
        "decided_by": ["bea"],
        "reference": "B-1",
    }


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"amount": "80"}, "data.amount"), ({"category": "fun"}, "data.category")],
)
def test_the_database_refuses_a_claim_that_does_not_fit(
    scene: Scene, wrong: dict[str, Any], field: str
) -> None:
    scene.client.enqueue("expense", {"name": "ann"}, queue="expenses")
    scene.run_until_idle()
    with pytest.raises(BadRequest) as refused:
        scene.answer(TRAIN | wrong, by="ann")
    assert refused.value.field == field
    assert [task.key for task in scene.tasks()] == ["claim"]


def test_a_large_claim_takes_two_managers(scene: Scene) -> None:
    run_id = claim(scene, CONFERENCE)
    assert scene.approve("approve", by="bea").action == "open"
    scene.run_until_idle()
    assert scene.run(run_id)["state"] == "waiting_approval"
    assert scene.approve("approve", by="carl").action == "approved"
    scene.client.signal(run_id, "payment", {"reference": "B-2"})
    scene.run_until_idle()
    assert scene.output(run_id)["decided_by"] == ["bea", "carl"]


def test_nobody_approves_a_claim_of_their_own(scene: Scene) -> None:
    claim(scene, TRAIN)
    with pytest.raises(NotAllowed, match="ann may not decide"):
        scene.approve("approve", by="ann")


def test_a_rejected_claim_is_not_paid(scene: Scene) -> None:
    run_id = claim(scene, TRAIN)
    scene.reject("approve", comment="take the bus", by="carl")
    scene.run_until_idle()
    assert scene.output(run_id)["state"] == "rejected"
    assert scene.steps(run_id) == {}


def test_what_managers_leave_lying_is_decided_by_a_director(scene: Scene) -> None:
    run_id = claim(scene, TRAIN)
    with pytest.raises(NotAllowed):
        scene.approve("approve", by="dora")
    scene.time.advance(days=3)
    scene.run_until_idle()
    with pytest.raises(NotAllowed):
        scene.approve("approve", by="bea")
    scene.approve("approve", by="dora")
    scene.run_until_idle()
    assert scene.run(run_id)["state"] == "waiting_event"


def test_what_the_directors_leave_lying_too_is_cancelled(scene: Scene) -> None:
    run_id = claim(scene, TRAIN)
    for days in (3, 2):
        scene.time.advance(days=days)
        scene.run_until_idle()
    run = scene.run(run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-007")


def test_a_payment_that_does_not_come_is_waited_for_two_weeks(scene: Scene) -> None:
    run_id = claim(scene, TRAIN)
    scene.approve("approve", by="bea")
    scene.run_until_idle()
    scene.time.advance(days=14)
    scene.run_until_idle()
    assert scene.output(run_id)["state"] == "unpaid"


@pytest.mark.slow
def test_a_worker_killed_while_it_orders_loses_no_decision(
    scene: Scene, kill_a_worker: Callable[[str, str], None]
) -> None:
    run_id = claim(scene, TRAIN)
    scene.approve("approve", by="bea")
    kill_a_worker(APP, "lock table pgflow.journal in share mode")
    assert scene.steps(run_id) == {}
    scene.client.signal(run_id, "payment", {"reference": "B-3"})
    scene.run_until_idle()
    assert scene.output(run_id)["decided_by"] == ["bea"]
    happened = scene.timeline(run_id)
    assert happened.count("task.requested approve") == happened.count("step.completed order") == 1


@pytest.mark.slow
def test_the_desk_plays_the_people(
    scene: Scene, working: Callable[[str], AbstractContextManager[object]]
) -> None:
    psql = processes._find_psql()
    if psql is None:
        pytest.skip("there is no psql")
    command = [psql, "-X", "-d", scene.dsn, "-f", str(DESK)]
    with working(APP):
        played = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert played.returncode == 0, played.stderr
    assert "data.category must be one of travel, meals, other" in played.stderr
    assert "ann may not decide" in played.stderr
    assert '"reference": "B-1027"' in played.stdout
