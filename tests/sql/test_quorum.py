"""A task that more than one has to approve: votes, and when they are enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tests.sql.conftest import Connect, Engine, MakeRole, Row


@pytest.fixture
def voter(connect: Connect, make_role: MakeRole) -> Callable[[], Engine]:
    """Return a maker of people who may vote."""
    return lambda: connect(make_role("pgflow_approver"))


def asked(engine: Engine, quorum: int, of: int | None, **more: object) -> tuple[UUID, UUID]:
    run_id = engine.waiting({"key": "ok", "quorum": quorum, "quorum_of": of, **more})
    return run_id, engine.task(run_id)


def name(who: Engine) -> str:
    return str(who.value("select session_user::text"))


def votes(engine: Engine, task: UUID) -> list[Row]:
    return engine.rows("select * from pgflow.vote where task_id = %s order by at, voter", task)


@pytest.mark.parametrize(("quorum", "of"), [(2, 3), (2, 2), (3, 5), (2, None)])
def test_the_last_vote_of_the_quorum_approves(
    engine: Engine, voter: Callable[[], Engine], quorum: int, of: int | None
) -> None:
    run_id, task = asked(engine, quorum, of)
    for _ in range(quorum - 1):
        decision = voter().approve(task)
        assert (decision["action"], decision["decided_by"]) == ("open", None)
        assert engine.state(run_id) == "waiting_approval"
    last = voter()
    decision = last.approve(task)
    assert (decision["action"], decision["decided_by"]) == ("approved", name(last))
    assert engine.state(run_id) == "pending"


@pytest.mark.parametrize(
    ("quorum", "of", "rejections"), [(2, 3, 2), (2, 2, 1), (3, 5, 3), (2, None, 1), (1, 1, 1)]
)
def test_rejected_is_what_can_no_longer_be_approved(
    engine: Engine,
    voter: Callable[[], Engine],
    quorum: int,
    of: int | None,
    rejections: int,
) -> None:
    run_id, task = asked(engine, quorum, of)
    for _ in range(rejections - 1):
        assert voter().reject(task)["action"] == "open"
    assert voter().reject(task, comment="no")["action"] == "rejected"
    assert engine.run(run_id)["error_code"] == "E-RUN-006"


def test_approvals_and_rejections_are_counted_apart(
    engine: Engine, voter: Callable[[], Engine]
) -> None:
    run_id, task = asked(engine, 3, 5)
    for verb in ("approve", "reject", "approve", "reject"):
        (decision,) = voter().call(verb, task_id=task)
        assert decision["action"] == "open"
    assert engine.one("select votes from pgflow.inbox where task_id = %s", task)["votes"] == 4
    assert voter().approve(task)["action"] == "approved"
    assert engine.state(run_id) == "pending"


def test_who_says_the_same_again_is_counted_once(
    engine: Engine, voter: Callable[[], Engine]
) -> None:
    run_id, task = asked(engine, 2, 3)
    ann = voter()
    assert ann.approve(task)["repeated"] is False
    before = engine.place.rows()
    again = ann.approve(task, comment="I said so")
    assert (again["action"], again["repeated"]) == ("open", True)
    assert engine.place.rows() == before
    assert engine.state(run_id) == "waiting_approval"


@pytest.mark.parametrize(("first", "then"), [("approve", "reject"), ("reject", "approve")])
def test_a_vote_stands(engine: Engine, voter: Callable[[], Engine], first: str, then: str) -> None:
    _, task = asked(engine, 2, 3)
    ann = voter()
    ann.call(first, task_id=task)
    with engine.refused("PF402", "task_id") as refused:
        ann.call(then, task_id=task)
    assert name(ann) in str(refused.value)


def test_after_the_decision_the_same_again_returns_it_and_another_is_refused(
    engine: Engine, voter: Callable[[], Engine]
) -> None:
    _, task = asked(engine, 2, 3)
    ann, tom, late = voter(), voter(), voter()
    ann.approve(task)
    decision = tom.approve(task)
    for who in (ann, tom, late):
        assert who.approve(task) == {**decision, "repeated": True}
    with engine.refused("PF402", "task_id"):
        late.reject(task)
    assert len(votes(engine, task)) == 2


def test_each_user_of_an_application_has_a_vote(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    run_id, task = asked(engine, 2, 3)
    app = connect(make_role("pgflow_application"))
    assert app.approve(task, as_user="jo")["action"] == "open"
    assert app.approve(task, as_user="jo")["repeated"] is True
    assert app.approve(task, as_user="tom")["action"] == "approved"
    assert [(v["voter"], v["login"]) for v in votes(engine, task)] == [
        ("jo", name(app)),
        ("tom", name(app)),
    ]
    assert engine.state(run_id) == "pending"


def test_the_handler_gets_every_vote(engine: Engine, voter: Callable[[], Engine]) -> None:
    run_id, task = asked(engine, 2, 3)
    ann, tom, jo = voter(), voter(), voter()
    ann.approve(task, comment="fine")
    tom.reject(task, comment="hm")
    jo.approve(task, comment="well", decision={"amount": 5})
    (entry,) = engine.lease_of(run_id).body["journal"]
    value = entry["value"]
    said = {vote["voter"]: (vote["action"], vote["comment"]) for vote in value["votes"]}
    assert said == {
        name(ann): ("approved", "fine"),
        name(tom): ("rejected", "hm"),
        name(jo): ("approved", "well"),
    }
    assert (value["approved"], value["data"]) == (True, {"amount": 5})


def test_the_history_has_every_vote(engine: Engine, voter: Callable[[], Engine]) -> None:
    _, task = asked(engine, 2, 2)
    ann, tom = voter(), voter()
    ann.approve(task)
    tom.approve(task)
    history = engine.one("select * from pgflow.task_history where task_id = %s", task)
    assert {vote["voter"] for vote in history["votes"]} == {name(ann), name(tom)}
    assert (history["quorum"], history["quorum_of"]) == (2, 2)


def test_the_timeline_tells_each_vote_and_the_decision(
    engine: Engine, voter: Callable[[], Engine]
) -> None:
    run_id, task = asked(engine, 2, 3)
    ann, tom = voter(), voter()
    ann.approve(task, comment="fine")
    ann.approve(task)
    tom.approve(task)
    voted, resolved, woken = engine.timeline(run_id)[-3:]
    assert (voted["type"], voted["by"]) == ("task.voted", name(ann))
    assert (voted["payload"]["action"], voted["payload"]["comment"]) == ("approved", "fine")
    assert (resolved["type"], resolved["by"]) == ("task.resolved", name(tom))
    assert woken["type"] == "run.woken"


def test_who_may_not_decide_has_no_vote(
    engine: Engine, voter: Callable[[], Engine], make_role: MakeRole
) -> None:
    editors = make_role()
    _, task = asked(engine, 2, 3, assignee_role=editors)
    with engine.refused("PF501", "task_id"):
        voter().approve(task)


def test_who_requested_it_has_no_vote_where_that_is_asked(
    engine: Engine, voter: Callable[[], Engine]
) -> None:
    ann = voter()
    _, task = asked(engine, 2, 3, requested_by=name(ann), not_requester=True)
    with engine.refused("PF501", "task_id"):
        ann.approve(task)


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_under_an_older_snapshot_nobody_votes(
    engine: Engine, connect: Connect, level: str, verb: str
) -> None:
    _, task = asked(engine, 2, 3)
    session = connect()
    session.conn.execute(
        sql.SQL("set default_transaction_isolation to {}").format(sql.Literal(level))
    )
    with engine.refused("PF503", "task_id"):
        session.call(verb, task_id=task)


def test_one_approval_needs_no_isolation_level(engine: Engine, connect: Connect) -> None:
    run_id, task = asked(engine, 1, None)
    session = connect()
    session.conn.execute("set default_transaction_isolation to 'repeatable read'")
    session.approve(task)
    assert engine.state(run_id) == "pending"


def test_a_rollback_needs_no_other_votes(engine: Engine, voter: Callable[[], Engine]) -> None:
    lease = engine.leased()
    engine.record_steps(lease, draft="1")
    engine.park(lease, {"key": "ok", "quorum": 2, "quorum_of": 3})
    task = engine.task(lease.run_id)
    voter().approve(task)
    assert voter().reject(task, rollback_to="draft")["action"] == "rejected"
    assert engine.state(lease.run_id) == "pending"


def test_votes_that_were_cast_do_not_count_for_what_is_asked_anew(
    engine: Engine, voter: Callable[[], Engine]
) -> None:
    ask: dict[str, Any] = {"key": "ok", "quorum": 2, "quorum_of": 3}
    run_id = engine.waiting({**ask, "payload": 1}, {"key": "b"}, wait_any=True)
    ann, tom = voter(), voter()
    ann.approve(engine.task(run_id))
    engine.approve(engine.task(run_id, "b"))
    engine.park(engine.lease_of(run_id), {**ask, "payload": 2}, news=1)
    task = engine.one("select * from pgflow.inbox where run_id = %s", run_id)
    assert task["votes"] == 0
    assert tom.approve(task["task_id"])["action"] == "open"
    assert ann.approve(task["task_id"])["action"] == "approved"


def test_votes_that_are_missing_when_the_time_has_passed_are_no_decision(
    engine: Engine, voter: Callable[[], Engine]
) -> None:
    run_id, task = asked(engine, 2, 3, due_in=60)
    voter().approve(task)
    engine.later(seconds=60)
    engine.tick()
    assert engine.run(run_id)["error_code"] == "E-RUN-007"
    with engine.refused("PF402", "task_id"):
        engine.approve(task)
