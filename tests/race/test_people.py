"""People against each other, time and workers: each race has one outcome, told by the timeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.race.staging import (
    Blocked,
    Session,
    Two,
    check,
    held,
    outcome,
    refused,
    undone,
)
from tests.sql.conftest import Connect, Engine, Lease, MakeRole

if TYPE_CHECKING:
    from uuid import UUID

DUE = 60.0


def resolutions(engine: Engine, run_id: UUID) -> list[str]:
    """Return how the timeline says that the run's tasks were resolved."""
    return [
        line["payload"]["action"]
        for line in engine.timeline(run_id)
        if line["type"] == "task.resolved"
    ]


def written(engine: Engine, *waits: dict[str, Any], **more: Any) -> UUID:
    """Return a run that did the steps `draft` and `check` and waits for people."""
    lease = engine.leased()
    engine.record_steps(lease, draft="1", check="2")
    line = engine.park(lease, *waits or ({"key": "ok"},), **more)
    assert line["outcome"] == "done"
    return lease.run_id


def half_woken(engine: Engine) -> tuple[Lease, UUID]:
    """Return the lease of such a run while its task `ok` is open, and that task."""
    run_id = written(engine, {"key": "ok"}, {"key": "a"}, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    return engine.lease_of(run_id), engine.task(run_id)


# ---- decisions against each other


@pytest.mark.parametrize(("first", "second"), [("approve", "reject"), ("reject", "approve")])
def test_of_two_contrary_decisions_the_first_stands_and_the_second_is_refused(
    engine: Engine, two: Two, blocked: Blocked, first: str, second: str
) -> None:
    one, other = two
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(one):
        one.call(first, task_id=task)
        deciding = blocked(other, lambda: other.call(second, task_id=task), by=one)
    with refused("PF402"):
        deciding.result()
    assert resolutions(engine, run_id) == [{"approve": "approved", "reject": "rejected"}[first]]
    assert engine.state(run_id) == ("pending" if first == "approve" else "cancelled")
    check(engine, run_id)


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_of_two_equal_decisions_the_second_is_told_the_first(
    engine: Engine, two: Two, blocked: Blocked, verb: str
) -> None:
    one, other = two
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(one):
        (first,) = one.call(verb, task_id=task, comment="first")
        deciding = blocked(other, lambda: other.call(verb, task_id=task, comment="2"), by=one)
    assert deciding.result() == [{**first, "repeated": True}]
    assert len(resolutions(engine, run_id)) == 1
    check(engine, run_id)


def test_a_decision_that_waits_for_a_contrary_one_which_is_undone_counts(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = engine.waiting()
    task = engine.task(run_id)
    with undone(one):
        one.reject(task)
        deciding = blocked(other, lambda: other.approve(task), by=one)
    assert deciding.result()["repeated"] is False
    assert resolutions(engine, run_id) == ["approved"]
    check(engine, run_id)


@pytest.mark.parametrize("same", [True, False], ids=["the same", "another"])
def test_of_two_answers_the_second_is_told_the_first_or_refused(
    engine: Engine, two: Two, blocked: Blocked, *, same: bool
) -> None:
    one, other = two
    run_id = engine.waiting({"key": "ok", "kind": "form", "form": {}})
    task = engine.task(run_id)
    with held(one):
        one.call("answer", task_id=task, data=Jsonb(1))
        value = Jsonb(1 if same else 2)
        answering = blocked(other, lambda: other.call("answer", task_id=task, data=value), by=one)
    if same:
        assert answering.result()[0]["repeated"] is True
    else:
        with refused("PF402"):
            answering.result()
    (entry,) = engine.lease_of(run_id).body["journal"]
    assert entry["value"]["data"] == 1
    check(engine, run_id)


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_the_reaper_passes_by_a_run_that_is_being_decided(
    engine: Engine, two: Two, verb: str
) -> None:
    person, worker = two
    lease, task = half_woken(engine)
    worker.later(seconds=120)
    with held(person):
        person.call(verb, task_id=task)
        assert worker.call("reap")[0]["requeued"] == 0
    worker.call("reap")
    assert engine.state(lease.run_id) == ("pending" if verb == "approve" else "cancelled")
    assert engine.types(lease.run_id).count("run.requeued") == (verb == "approve")
    check(engine, lease.run_id)


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_decision_that_waits_for_the_reaper_finds_the_run_pending(
    engine: Engine, two: Two, blocked: Blocked, verb: str
) -> None:
    person, worker = two
    lease, task = half_woken(engine)
    worker.later(seconds=120)
    with held(worker):
        assert worker.call("reap")[0]["requeued"] == 1
        deciding = blocked(person, lambda: person.call(verb, task_id=task), by=worker)
    deciding.result()
    assert engine.state(lease.run_id) == ("pending" if verb == "approve" else "cancelled")
    assert engine.types(lease.run_id).count("run.requeued") == 1
    check(engine, lease.run_id)


# ---- votes


@pytest.fixture
def voters(connect: Connect, make_role: MakeRole) -> Two:
    """Return two people at the level at which votes are counted."""
    two = (connect(make_role("pgflow_approver")) for _ in range(2))
    return Two(*(Session(e.conn, e.place, e.now) for e in two))


def asked_of_three(engine: Engine, **more: object) -> UUID:
    return engine.waiting({"key": "ok", "quorum": 2, "quorum_of": 3, **more})


def test_two_votes_for_the_last_place_are_one_decision(
    engine: Engine, voters: Two, blocked: Blocked
) -> None:
    ann, tom = voters
    run_id = asked_of_three(engine)
    task = engine.task(run_id)
    engine.approve(task)
    with held(ann):
        assert ann.approve(task)["action"] == "approved"
        voting = blocked(tom, lambda: tom.approve(task), by=ann)
    late = voting.result()
    assert (late["action"], late["repeated"]) == ("approved", True)
    assert resolutions(engine, run_id) == ["approved"]
    assert engine.types(run_id).count("run.woken") == 1
    assert engine.value("select count(*) from pgflow.vote where task_id = %s", task) == 2
    check(engine, run_id)


def test_two_votes_that_make_the_quorum_see_each_other(
    engine: Engine, voters: Two, blocked: Blocked
) -> None:
    ann, tom = voters
    run_id = asked_of_three(engine)
    task = engine.task(run_id)
    with held(ann):
        assert ann.approve(task)["action"] == "open"
        voting = blocked(tom, lambda: tom.approve(task), by=ann)
    assert voting.result()["action"] == "approved"
    assert engine.types(run_id)[-3:] == ["task.voted", "task.resolved", "run.woken"]
    check(engine, run_id)


def test_of_a_last_vote_for_and_a_last_vote_against_one_decides(
    engine: Engine, voters: Two, blocked: Blocked
) -> None:
    ann, tom = voters
    run_id = engine.waiting({"key": "ok", "quorum": 2, "quorum_of": 2})
    task = engine.task(run_id)
    engine.approve(task)
    with held(ann):
        assert ann.reject(task)["action"] == "rejected"
        voting = blocked(tom, lambda: tom.approve(task), by=ann)
    with refused("PF402"):
        voting.result()
    assert (resolutions(engine, run_id), engine.state(run_id)) == (["rejected"], "cancelled")
    check(engine, run_id)


def test_a_vote_that_is_undone_is_not_counted(
    engine: Engine, voters: Two, blocked: Blocked
) -> None:
    ann, tom = voters
    run_id = asked_of_three(engine)
    task = engine.task(run_id)
    with undone(ann):
        ann.approve(task)
        voting = blocked(tom, lambda: tom.approve(task), by=ann)
    assert voting.result()["action"] == "open"
    assert engine.state(run_id) == "waiting_approval"
    check(engine, run_id)


def test_a_vote_that_waits_for_the_expiry_comes_too_late(
    engine: Engine, voters: Two, blocked: Blocked
) -> None:
    ann, _ = voters
    run_id = asked_of_three(engine, due_in=DUE)
    task = engine.task(run_id)
    engine.approve(task)
    engine.later(seconds=DUE)
    with held(engine):
        assert engine.tick()["expired"] == 1
        voting = blocked(ann, lambda: ann.approve(task), by=engine)
    with refused("PF402"):
        voting.result()
    assert (resolutions(engine, run_id), engine.state(run_id)) == ([], "cancelled")
    check(engine, run_id)


# ---- rollbacks


@pytest.mark.parametrize("verb", ["complete", "release", "fail", "park", "record_step"])
def test_what_a_worker_says_of_a_run_that_is_being_rolled_back_is_lost(
    engine: Engine, two: Two, blocked: Blocked, verb: str
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    verbs: dict[str, Callable[[], str]] = {
        "complete": lambda: outcome(worker.complete(lease)),
        "release": lambda: outcome(worker.release(lease)),
        "fail": lambda: outcome(worker.fail(lease)),
        "park": lambda: str(worker.park(lease, {"key": "c"}, news=1)["outcome"]),
        "record_step": lambda: outcome(worker.record_steps(lease, late="1")),
    }
    with held(person):
        person.reject(task, rollback_to="draft")
        going = blocked(worker, verbs[verb], by=person)
    # The rollback released the run, and who says so again is told that it is done.
    assert going.result() == ("already" if verb == "release" else "lost")
    assert engine.state(lease.run_id) == "pending"
    assert engine.lease_of(lease.run_id).body.get("journal") in (None, [])
    check(engine, lease.run_id)


def test_a_rollback_that_waits_for_the_result_comes_too_late(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    with held(worker):
        assert outcome(worker.complete(lease)) == "done"
        rejecting = blocked(person, lambda: person.reject(task, rollback_to="draft"), by=worker)
    with refused("PF202"):
        rejecting.result()
    assert engine.state(lease.run_id) == "completed"
    assert "step.rolled_back" not in engine.types(lease.run_id)
    check(engine, lease.run_id)


def test_a_rollback_that_waits_for_a_step_voids_it(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    lease, task = half_woken(engine)
    with held(worker):
        worker.record_steps(lease, publish="3")
        rejecting = blocked(person, lambda: person.reject(task, rollback_to="check"), by=worker)
    rejecting.result()
    again = engine.lease_of(lease.run_id)
    assert [e["key"] for e in again.body["journal"]] == ["draft"]
    voided = engine.rows(
        "select key from pgflow.journal_voided where run_id = %s order by 1", lease.run_id
    )
    assert [row["key"] for row in voided] == ["a", "check", "publish"]
    check(engine, lease.run_id)


@pytest.mark.parametrize("same", [True, False], ids=["the same task", "another task"])
def test_of_two_rollbacks_one_is_done_and_the_other_told(
    engine: Engine, two: Two, blocked: Blocked, *, same: bool
) -> None:
    one, other = two
    run_id = written(engine, {"key": "ok"}, {"key": "b"})
    first, second = engine.task(run_id), engine.task(run_id, "ok" if same else "b")
    with held(one):
        one.reject(first, rollback_to="draft")
        rejecting = blocked(other, lambda: other.reject(second, rollback_to="check"), by=one)
    if same:
        assert rejecting.result()["repeated"] is True
    else:
        with refused("PF402"):
            rejecting.result()
    assert engine.types(run_id).count("step.rolled_back") == 1
    assert engine.run(run_id)["round"] == 1
    check(engine, run_id)


def test_a_rollback_that_waits_for_an_approval_beside_it_voids_that(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = written(engine, {"key": "ok"}, {"key": "b"})
    first, second = engine.task(run_id), engine.task(run_id, "b")
    with held(one):
        one.approve(first)
        rejecting = blocked(other, lambda: other.reject(second, rollback_to="check"), by=one)
    rejecting.result()
    assert resolutions(engine, run_id) == ["approved", "rejected"]
    assert [e["key"] for e in engine.lease_of(run_id).body["journal"]] == ["draft"]
    check(engine, run_id)


def test_an_approval_that_waits_for_a_rollback_counts_no_more(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = written(engine, {"key": "ok"}, {"key": "b"})
    first, second = engine.task(run_id), engine.task(run_id, "b")
    with held(one):
        one.reject(first, rollback_to="draft")
        approving = blocked(other, lambda: other.approve(second), by=one)
    with refused("PF402"):
        approving.result()
    assert resolutions(engine, run_id) == ["rejected"]
    check(engine, run_id)


def test_a_cancel_that_waits_for_a_rollback_cancels_the_run(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, operator = two
    run_id = written(engine)
    task = engine.task(run_id)
    with held(person):
        person.reject(task, rollback_to="draft")
        going = blocked(operator, lambda: operator.tell("cancel", run_id=run_id), by=person)
    assert going.result() == "cancelled"
    assert engine.types(run_id)[-2:] == ["step.rolled_back", "run.cancelled"]
    check(engine, run_id)


def test_a_child_that_ends_while_its_parent_is_rolled_back_tells_it_nothing(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, person = two
    child = {"kind": "run", "key": "child", "handler": "h2", "input": {}}
    run_id = written(engine, {"key": "ok"}, child)
    (lease,) = engine.acquire().leases
    task = engine.task(run_id)
    with held(person):
        person.reject(task, rollback_to="draft")
        completing = blocked(worker, lambda: worker.complete(lease), by=person)
    assert outcome(completing.result()) == "lost"
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-011"
    assert "child.ended" not in engine.types(run_id)
    check(engine, run_id, lease.run_id)


# ---- who works on it


@pytest.fixture
def people(level: str, connect: Connect, make_role: MakeRole) -> Two:
    """Return two people who are no admins."""
    two = (connect(make_role("pgflow_approver")) for _ in range(2))
    sessions = Two(*(Session(e.conn, e.place, e.now) for e in two))
    for session in sessions:
        session.conn.execute(f"set default_transaction_isolation to '{level}'")
    return sessions


def test_a_decision_that_waits_for_anothers_claim_is_refused(
    engine: Engine, people: Two, blocked: Blocked
) -> None:
    ann, tom = people
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(ann):
        ann.tell("claim_task", task_id=task)
        approving = blocked(tom, lambda: tom.approve(task), by=ann)
    with refused("PF501"):
        approving.result()
    assert (engine.types(run_id)[-1], resolutions(engine, run_id)) == ("task.claimed", [])
    ann.approve(task)
    check(engine, run_id)


def test_a_claim_that_waits_for_a_decision_comes_too_late(
    engine: Engine, people: Two, blocked: Blocked
) -> None:
    ann, tom = people
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(ann):
        ann.approve(task)
        claiming = blocked(tom, lambda: tom.tell("claim_task", task_id=task), by=ann)
    with refused("PF402"):
        claiming.result()
    assert "task.claimed" not in engine.types(run_id)
    check(engine, run_id)


def test_of_two_claims_the_first_stands(engine: Engine, people: Two, blocked: Blocked) -> None:
    ann, tom = people
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(ann):
        name = ann.tell("claim_task", task_id=task)
        claiming = blocked(tom, lambda: tom.tell("claim_task", task_id=task), by=ann)
    with refused("PF501"):
        claiming.result()
    inbox = engine.one("select claimed_by from pgflow.inbox where run_id = %s", run_id)
    assert inbox["claimed_by"] == name
    assert engine.types(run_id).count("task.claimed") == 1
    check(engine, run_id)


def test_a_comment_that_waits_for_a_claim_leaves_it(
    engine: Engine, people: Two, two: Two, blocked: Blocked
) -> None:
    ann, _ = people
    admin, _ = two
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(ann):
        name = ann.tell("claim_task", task_id=task)
        comment = blocked(
            admin, lambda: admin.call("comment_task", task_id=task, comment="hm"), by=ann
        )
    comment.result()
    inbox = engine.one("select claimed_by from pgflow.inbox where run_id = %s", run_id)
    assert inbox["claimed_by"] == name
    check(engine, run_id)


def test_a_decision_of_who_has_just_handed_it_on_is_refused(
    engine: Engine, people: Two, connect: Connect, blocked: Blocked
) -> None:
    ann, tom = people
    ann_too = connect(str(ann.value("select session_user::text")))
    run_id = engine.waiting()
    task = engine.task(run_id)
    to = str(tom.value("select session_user::text"))
    with held(ann):
        ann.tell("delegate", task_id=task, assignee=to)
        approving = blocked(ann_too, lambda: ann_too.approve(task), by=ann)
    with refused("PF501"):
        approving.result()
    assert resolutions(engine, run_id) == []
    tom.approve(task)
    check(engine, run_id)


def test_a_delegation_that_waits_for_a_decision_comes_too_late(
    engine: Engine, people: Two, blocked: Blocked
) -> None:
    ann, tom = people
    run_id = engine.waiting()
    task = engine.task(run_id)
    with held(ann):
        ann.approve(task)
        handing = blocked(tom, lambda: tom.tell("delegate", task_id=task, assignee="x"), by=ann)
    with refused("PF402"):
        handing.result()
    assert "task.delegated" not in engine.types(run_id)
    check(engine, run_id)


# ---- interrupts


def interrupted(engine: Engine) -> tuple[UUID, UUID]:
    run_id = written(engine, {"key": "i", "kind": "interrupt"})
    return run_id, engine.task(run_id, "i")


@pytest.mark.parametrize("command", [{"resume": 2}, {"continue": True}], ids=str)
def test_a_resume_that_waits_for_an_answer_changes_nothing(
    engine: Engine, two: Two, blocked: Blocked, command: dict[str, object]
) -> None:
    person, operator = two
    run_id, task = interrupted(engine)
    with held(person):
        person.call("answer", task_id=task, data=Jsonb(1))
        going = blocked(
            operator,
            lambda: operator.tell("resume", run_id=run_id, command=Jsonb(command)),
            by=person,
        )
    if "resume" in command:
        with refused("PF204"):
            going.result()
    else:
        assert going.result() == "pending"
    assert resolutions(engine, run_id) == ["answered"]
    assert engine.lease_of(run_id).body["journal"][-1]["value"] == 1
    check(engine, run_id)


@pytest.mark.parametrize("value", [1, 2])
def test_an_answer_that_waits_for_a_resume_is_told_the_value_or_refused(
    engine: Engine, two: Two, blocked: Blocked, value: int
) -> None:
    person, operator = two
    run_id, task = interrupted(engine)
    with held(operator):
        operator.tell("resume", run_id=run_id, command=Jsonb({"resume": 1}))
        answering = blocked(
            person, lambda: person.call("answer", task_id=task, data=Jsonb(value)), by=operator
        )
    if value == 1:
        assert answering.result()[0]["repeated"] is True
    else:
        with refused("PF402"):
            answering.result()
    assert resolutions(engine, run_id) == ["answered"]
    assert engine.lease_of(run_id).body["journal"][-1]["value"] == 1
    check(engine, run_id)


def test_of_two_resumes_one_gives_its_value(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    run_id, _ = interrupted(engine)

    def resume(who: Session, value: int) -> str:
        return str(who.tell("resume", run_id=run_id, command=Jsonb({"resume": value})))

    with held(one):
        assert resume(one, 1) == "pending"
        going = blocked(other, lambda: resume(other, 2), by=one)
    with refused("PF204"):
        going.result()
    assert engine.lease_of(run_id).body["journal"][-1]["value"] == 1
    check(engine, run_id)


def test_a_decision_beside_an_interrupt_and_its_resume_wake_the_run_once(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    person, operator = two
    run_id = written(engine, {"key": "ok"}, {"key": "i", "kind": "interrupt"})
    task = engine.task(run_id)
    with held(operator):
        command = Jsonb({"resume": 1})
        assert operator.tell("resume", run_id=run_id, command=command) == "waiting_approval"
        approving = blocked(person, lambda: person.approve(task), by=operator)
    approving.result()
    assert engine.state(run_id) == "pending"
    assert engine.types(run_id).count("run.woken") == 1
    check(engine, run_id)
