"""Who works on a task: claim_task, release_task, delegate, comment_task."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Connect, Engine, MakeRole, Row

VERBS: dict[str, Row] = {
    "claim_task": {},
    "release_task": {},
    "delegate": {"assignee": "tom"},
    "comment_task": {"comment": "hm"},
}


def inbox(engine: Engine, task: UUID) -> Row:
    return engine.one("select * from pgflow.inbox where task_id = %s", task)


@pytest.fixture
def task(engine: Engine) -> UUID:
    """Return a task that anybody may decide."""
    return engine.task(engine.waiting())


@pytest.fixture
def ann(connect: Connect, make_role: MakeRole) -> Engine:
    return connect(make_role("pgflow_approver"))


@pytest.fixture
def tom(connect: Connect, make_role: MakeRole) -> Engine:
    return connect(make_role("pgflow_approver"))


def name(who: Engine) -> str:
    return str(who.value("select session_user::text"))


# ---- claim and release


def test_a_task_is_claimed_for_oneself(engine: Engine, task: UUID, ann: Engine) -> None:
    assert ann.tell("claim_task", task_id=task) == name(ann)
    assert inbox(engine, task)["claimed_by"] == name(ann)
    line = engine.timeline(inbox(engine, task)["run_id"])[-1]
    assert (line["type"], line["by"]) == ("task.claimed", name(ann))
    assert line["payload"] == {"task_id": str(task), "key": "ok", "by": name(ann)}


def test_claiming_again_is_a_no_op(engine: Engine, task: UUID, ann: Engine) -> None:
    ann.tell("claim_task", task_id=task)
    before = engine.place.rows()
    assert ann.tell("claim_task", task_id=task) == name(ann)
    assert engine.place.rows() == before


def test_what_somebody_else_has_cannot_be_claimed(
    engine: Engine, task: UUID, ann: Engine, tom: Engine
) -> None:
    ann.tell("claim_task", task_id=task)
    with engine.refused("PF501", "task_id"):
        tom.tell("claim_task", task_id=task)
    with engine.refused("PF501", "task_id"):
        tom.tell("release_task", task_id=task)


def test_who_has_claimed_it_decides_it(task: UUID, ann: Engine) -> None:
    ann.tell("claim_task", task_id=task)
    assert ann.approve(task)["decided_by"] == name(ann)


def test_a_released_task_is_there_for_others(
    engine: Engine, task: UUID, ann: Engine, tom: Engine
) -> None:
    ann.tell("claim_task", task_id=task)
    assert ann.tell("release_task", task_id=task) is True
    assert inbox(engine, task)["claimed_by"] is None
    assert engine.types(inbox(engine, task)["run_id"])[-1] == "task.released"
    assert tom.tell("claim_task", task_id=task) == name(tom)


def test_releasing_what_nobody_has_is_a_no_op(engine: Engine, task: UUID, ann: Engine) -> None:
    before = engine.place.rows()
    assert ann.tell("release_task", task_id=task) is False
    assert engine.place.rows() == before


def test_an_admin_takes_a_claim_away(
    engine: Engine, task: UUID, ann: Engine, connect: Connect, make_role: MakeRole
) -> None:
    admin = connect(make_role("pgflow_admin"))
    ann.tell("claim_task", task_id=task)
    assert admin.tell("claim_task", task_id=task) == name(admin)
    with engine.refused("PF501", "task_id"):
        ann.approve(task)
    assert admin.tell("release_task", task_id=task) is True
    ann.approve(task)


def test_an_application_claims_for_its_users(
    engine: Engine, task: UUID, connect: Connect, make_role: MakeRole
) -> None:
    app = connect(make_role("pgflow_application"))
    assert app.tell("claim_task", task_id=task, as_user="jo") == "jo"
    with engine.refused("PF501", "task_id"):
        app.approve(task, as_user="tom")
    with engine.refused("PF501", "task_id"):
        app.approve(task)
    assert app.approve(task, as_user="jo")["decided_by"] == "jo"


def test_a_claim_of_any_kind_of_task_of_a_paused_run(engine: Engine, ann: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"key": "ok", "kind": "interrupt"})
    assert ann.tell("claim_task", task_id=engine.task(lease.run_id)) == name(ann)
    assert engine.state(lease.run_id) == "paused"


# ---- delegate


def test_a_delegated_task_is_the_new_assignees(
    engine: Engine, task: UUID, ann: Engine, tom: Engine
) -> None:
    told = ann.tell("delegate", task_id=task, assignee=name(tom), comment="you know better")
    assert told == name(tom)
    assert inbox(engine, task)["assignee"] == name(tom)
    line = engine.timeline(inbox(engine, task)["run_id"])[-1]
    assert (line["type"], line["by"]) == ("task.delegated", name(ann))
    assert line["payload"]["to"] == name(tom)
    assert line["payload"]["comment"] == "you know better"
    with engine.refused("PF501", "task_id"):
        ann.approve(task)
    assert tom.approve(task)["decided_by"] == name(tom)


def test_a_delegation_ends_the_claim(engine: Engine, task: UUID, ann: Engine, tom: Engine) -> None:
    ann.tell("claim_task", task_id=task)
    ann.tell("delegate", task_id=task, assignee=name(tom))
    assert inbox(engine, task)["claimed_by"] is None
    tom.approve(task)


def test_a_delegated_task_is_the_one_that_is_found_when_it_is_asked_again(
    engine: Engine, tom: Engine
) -> None:
    run_id = engine.waiting({"key": "ok"}, {"key": "b"}, wait_any=True)
    engine.tell("delegate", task_id=engine.task(run_id), assignee=name(tom))
    engine.approve(engine.task(run_id, "b"))
    lease = engine.lease_of(run_id)
    assert engine.park(lease, {"key": "ok"}, news=1)["outcome"] == "done"
    assert inbox(engine, engine.task(run_id))["assignee"] == name(tom)


@pytest.mark.parametrize("assignee", ["", "a" * 201, None], ids=["empty", "long", "null"])
def test_nobody_is_no_assignee(engine: Engine, task: UUID, assignee: str | None) -> None:
    with engine.refused("PF101", "assignee"):
        engine.tell("delegate", task_id=task, assignee=assignee)


# ---- comment


def test_a_comment_stands_in_the_timeline_and_changes_nothing_else(
    engine: Engine, task: UUID, ann: Engine
) -> None:
    before = inbox(engine, task)
    ann.call("comment_task", task_id=task, comment="look at page 3")
    assert inbox(engine, task) == before
    line = engine.timeline(before["run_id"])[-1]
    assert (line["type"], line["by"]) == ("task.commented", name(ann))
    assert line["payload"]["comment"] == "look at page 3"


def test_a_comment_leaves_a_claim_alone(engine: Engine, task: UUID, ann: Engine) -> None:
    ann.tell("claim_task", task_id=task)
    ann.call("comment_task", task_id=task, comment="hm")
    engine.call("comment_task", task_id=task, comment="an admin's")
    assert inbox(engine, task)["claimed_by"] == name(ann)


@pytest.mark.parametrize("comment", ["c" * 10_001, None], ids=["long", "null"])
def test_a_comment_is_a_text_within_its_limit(
    engine: Engine, task: UUID, comment: str | None
) -> None:
    with engine.refused("PF101", "comment"):
        engine.call("comment_task", task_id=task, comment=comment)


def test_the_comment_of_a_delegation_is_within_its_limit(engine: Engine, task: UUID) -> None:
    with engine.refused("PF101", "comment"):
        engine.call("delegate", task_id=task, assignee="tom", comment="c" * 10_001)


# ---- when it cannot be


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_task_is_refused(engine: Engine, verb: str) -> None:
    with engine.refused("PF103", "task_id"):
        engine.call(verb, task_id=uuid4(), **VERBS[verb])


@pytest.mark.parametrize("verb", VERBS)
def test_a_decided_task_is_refused(engine: Engine, task: UUID, verb: str) -> None:
    if verb == "release_task":
        engine.call("claim_task", task_id=task)
    engine.approve(task)
    with engine.refused("PF402", "task_id") as refused:
        engine.call(verb, task_id=task, **VERBS[verb])
    assert "was approved before" in str(refused.value)


@pytest.mark.parametrize("verb", VERBS)
def test_a_task_of_a_finished_run_is_refused(engine: Engine, task: UUID, verb: str) -> None:
    run_id = inbox(engine, task)["run_id"]
    if verb == "release_task":
        engine.call("claim_task", task_id=task)
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id"):
        engine.call(verb, task_id=task, **VERBS[verb])


@pytest.mark.parametrize("verb", VERBS)
def test_a_task_that_counts_no_more_is_refused(engine: Engine, verb: str) -> None:
    run_id = engine.waiting({"key": "ok"}, {"key": "b"}, wait_any=True)
    task = engine.task(run_id)
    if verb == "release_task":
        engine.call("claim_task", task_id=task)
    engine.approve(engine.task(run_id, "b"))
    engine.park(engine.lease_of(run_id), {"key": "c"}, news=1)
    with engine.refused("PF402", "task_id") as refused:
        engine.call(verb, task_id=task, **VERBS[verb])
    assert "counts no more" in str(refused.value)


@pytest.mark.parametrize("verb", VERBS)
def test_a_task_whose_time_has_passed_is_refused(engine: Engine, verb: str) -> None:
    task = engine.task(engine.waiting({"key": "ok", "due_in": 60}))
    if verb == "release_task":
        engine.call("claim_task", task_id=task)
    engine.later(seconds=60)
    with engine.refused("PF402", "task_id") as refused:
        engine.call(verb, task_id=task, **VERBS[verb])
    assert "expired" in str(refused.value)
