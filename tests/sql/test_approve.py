"""approve: a person decides, from any SQL client, and the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Connect, Engine, MakeRole, Row


def history(engine: Engine, task_id: UUID) -> Row:
    return engine.one("select * from pgflow.task_history where task_id = %s", task_id)


def test_an_approval_wakes_the_run(engine: Engine) -> None:
    run_id = engine.waiting()
    decision = engine.approve(engine.task(run_id), comment="fine")
    assert (decision["run_id"], decision["action"]) == (run_id, "approved")
    assert (decision["comment"], decision["repeated"]) == ("fine", False)
    assert (decision["decided_by"], decision["decided_at"]) == ("postgres", engine.now)
    run = engine.run(run_id)
    assert (run["state"], run["waits_for"]) == ("pending", None)


def test_the_handler_gets_who_decided_what_with_which_words(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "payload": {"draft": 1}})
    task_id = engine.task(run_id)
    engine.approve(task_id, comment="fine", decision={"amount": 5})
    (entry,) = engine.lease_of(run_id).body["journal"]
    value = entry["value"]
    assert (value["task_id"], value["action"], value["approved"]) == (
        str(task_id),
        "approved",
        True,
    )
    assert (value["comment"], value["data"]) == ("fine", {"amount": 5})
    assert value["decided_by"] == "postgres"
    assert value["payload_sha256"] == history(engine, task_id)["payload_sha256"]


def test_the_task_moves_from_the_inbox_to_the_history(engine: Engine) -> None:
    task_id = engine.task(engine.waiting())
    inbox = "select count(*) from pgflow.inbox where task_id = %s"
    assert engine.value(inbox, task_id) == 1
    engine.approve(task_id, comment="fine", decision={"a": 1})
    assert engine.value(inbox, task_id) == 0
    task = history(engine, task_id)
    assert (task["state"], task["comment"], task["data"]) == ("approved", "fine", {"a": 1})
    assert (task["decided_by"], task["decided_login"]) == ("postgres", "postgres")


def test_the_timeline_tells_the_decision_and_the_waking(engine: Engine) -> None:
    run_id = engine.waiting()
    engine.approve(engine.task(run_id), comment="fine")
    resolved, woken = engine.timeline(run_id)[-2:]
    assert (resolved["type"], resolved["by"]) == ("task.resolved", "postgres")
    assert resolved["payload"]["action"] == "approved"
    assert resolved["payload"]["comment"] == "fine"
    assert (woken["type"], woken["payload"]) == ("run.woken", {"key": "ok"})


def test_the_same_again_is_a_no_op_that_returns_the_first_decision(engine: Engine) -> None:
    task_id = engine.task(engine.waiting())
    first = engine.approve(task_id, comment="fine", decision={"a": 1})
    engine.later(seconds=5)
    before = engine.place.rows()
    again = engine.approve(task_id, comment="very fine", decision={"a": 2})
    assert again == {**first, "repeated": True}
    assert engine.place.rows() == before


def test_the_same_again_returns_the_first_decision_when_the_run_has_ended(engine: Engine) -> None:
    run_id = engine.waiting()
    first = engine.approve(engine.task(run_id))
    engine.complete(engine.lease_of(run_id))
    assert engine.approve(engine.task(run_id)) == {**first, "repeated": True}


def test_a_contrary_decision_is_refused_and_names_the_first(engine: Engine) -> None:
    task_id = engine.task(engine.waiting())
    engine.approve(task_id)
    with engine.refused("PF402", "task_id") as refused:
        engine.reject(task_id)
    assert "was approved before" in str(refused.value)
    assert "postgres" in str(refused.value.diag.message_detail)


def test_an_unknown_task_is_refused(engine: Engine) -> None:
    with engine.refused("PF103", "task_id"):
        engine.approve(uuid4())
    with engine.refused("PF103", "task_id"):
        engine.rows("select pgflow.approve(null)")


def test_a_task_of_another_project_is_as_unknown(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    task_id = engine.task(engine.waiting())
    with engine.refused("PF103", "task_id"):
        engine.approve(task_id, project="acme")


def test_after_the_end_of_the_run_it_says_already_finished(engine: Engine) -> None:
    run_id = engine.waiting()
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id") as refused:
        engine.approve(engine.task(run_id))
    assert "already finished" in str(refused.value)


def test_a_task_whose_time_has_passed_cannot_be_approved(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    engine.later(seconds=60)
    with engine.refused("PF402", "task_id") as refused:
        engine.approve(engine.task(run_id))
    assert "expired" in str(refused.value)
    engine.tick()
    with engine.refused("PF402", "task_id") as refused:
        engine.approve(engine.task(run_id))
    assert "expired" in str(refused.value)


def test_a_comment_over_its_limit_is_refused(engine: Engine) -> None:
    task_id = engine.task(engine.waiting())
    with engine.refused("PF101", "comment"):
        engine.approve(task_id, comment="c" * 10_001)
    assert engine.approve(task_id, comment="c" * 10_000)["repeated"] is False


def test_a_decision_over_its_limit_is_refused_by_its_name(engine: Engine) -> None:
    task_id = engine.task(engine.waiting())
    with engine.refused("PF101", "decision"):
        engine.approve(task_id, decision={"text": "x" * 8_400_000})


@pytest.mark.parametrize("decision", ["null", "0", "false", '""', "[]"])
def test_any_value_may_be_the_decision(engine: Engine, decision: str) -> None:
    run_id = engine.waiting()
    engine.rows("select pgflow.approve(%s, null, %s)", engine.task(run_id), decision)
    data = engine.value(
        "select (value -> 'data')::text from pgflow.journal where run_id = %s", run_id
    )
    assert data == decision


def test_a_decision_that_is_rolled_back_never_was(engine: Engine) -> None:
    run_id = engine.waiting()
    before = engine.place.rows()
    with engine.conn.transaction(force_rollback=True):
        engine.approve(engine.task(run_id))
    assert engine.place.rows() == before
    assert engine.reject(engine.task(run_id))["repeated"] is False


# ---- when the run does not wait


def test_a_decision_while_the_run_is_running_is_kept(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    lease = engine.lease_of(run_id)
    engine.approve(engine.task(run_id, "b"))
    assert engine.state(run_id) == "running"
    assert engine.park(lease, {"key": "b"}, news=2)["outcome"] == "refused"  # it is there
    engine.release(lease)
    entries = engine.lease_of(run_id).body["journal"]
    assert [entry["key"] for entry in entries] == ["a", "b"]


def test_a_decision_while_the_run_is_pending_wakes_nothing_and_is_kept(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    engine.approve(engine.task(run_id, "b"))
    assert engine.types(run_id).count("run.woken") == 1
    assert engine.lease_of(run_id).body["news"] == 2


def test_a_decision_while_the_run_is_paused_is_kept_for_resume(engine: Engine) -> None:
    run_id = engine.waiting()
    engine.call("pause", run_id=run_id)
    engine.approve(engine.task(run_id))
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert [entry["key"] for entry in engine.lease_of(run_id).body["journal"]] == ["ok"]


# ---- who may


def test_anybody_decides_what_names_nobody(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    task_id = engine.task(engine.waiting())
    assert connect(make_role("pgflow_approver")).approve(task_id)["action"] == "approved"


@pytest.mark.parametrize("asked", ["assignee", "assignee_role"])
def test_a_database_role_that_is_named_decides_and_nobody_else(
    engine: Engine, connect: Connect, make_role: MakeRole, asked: str
) -> None:
    editors = make_role("pgflow_approver")
    member, stranger = make_role(editors), make_role("pgflow_approver")
    run_id = engine.waiting({"key": "a", asked: editors}, {"key": "b", asked: editors})
    with engine.refused("PF501", "task_id"):
        connect(stranger).approve(engine.task(run_id, "a"))
    with engine.refused("PF501", "task_id"):
        connect(stranger).reject(engine.task(run_id, "a"))
    assert connect(member).approve(engine.task(run_id, "a"))["decided_by"] == member
    assert connect(editors).approve(engine.task(run_id, "b"))["decided_by"] == editors


def test_an_assignee_that_is_no_role_of_the_server_keeps_all_but_admins_out(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    task_id = engine.task(engine.waiting({"key": "ok", "assignee": "ann of the application"}))
    with engine.refused("PF501", "task_id"):
        connect(make_role("pgflow_approver")).approve(task_id)
    assert connect(make_role("pgflow_admin")).approve(task_id)["action"] == "approved"


def test_of_a_role_that_the_server_does_not_know_the_application_says_who_has_it(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    task_id = engine.task(engine.waiting({"key": "ok", "assignee_role": "the tall ones"}))
    with engine.refused("PF501", "as_user"):
        connect(make_role("pgflow_approver")).approve(task_id, as_user="tom")
    with engine.refused("PF501"):
        connect(make_role("pgflow_approver")).approve(task_id)
    decision = connect(make_role("pgflow_application")).approve(task_id, as_user="tom")
    assert (decision["action"], decision["decided_by"]) == ("approved", "tom")


def test_an_assignee_or_a_member_of_the_role_decides_where_both_are_named(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    editors, ann = make_role(), make_role("pgflow_approver")
    member, stranger = make_role(editors, "pgflow_approver"), make_role("pgflow_approver")
    asked = {"assignee": ann, "assignee_role": editors}
    run_id = engine.waiting({"key": "a", **asked}, {"key": "b", **asked})
    with engine.refused("PF501"):
        connect(stranger).approve(engine.task(run_id, "a"))
    connect(ann).approve(engine.task(run_id, "a"))
    connect(member).approve(engine.task(run_id, "b"))
    assert engine.state(run_id) == "pending"


def test_the_actor_is_the_role_that_was_set_and_the_login_stands_beside_it(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    person = make_role("pgflow_approver")
    pooler = make_role(person)
    task_id = engine.task(engine.waiting({"key": "ok", "assignee": person}))
    session = connect(pooler)
    with session.acting_as(person):
        assert session.approve(task_id)["decided_by"] == person
    task = history(engine, task_id)
    assert (task["decided_by"], task["decided_login"]) == (person, pooler)


def test_a_role_that_was_set_has_its_own_rights_and_not_those_of_the_login(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    editors, person = make_role(), make_role("pgflow_approver")
    pooler = make_role(person, editors)
    task_id = engine.task(engine.waiting({"key": "ok", "assignee_role": editors}))
    session = connect(pooler)
    with session.acting_as(person), engine.refused("PF501", "task_id"):
        session.approve(task_id)
    assert session.approve(task_id)["decided_by"] == pooler


@pytest.mark.parametrize("known", [True, False])
def test_who_may_not_decide_does_not_learn_what_was_decided(
    engine: Engine, connect: Connect, make_role: MakeRole, *, known: bool
) -> None:
    task_id = engine.task(engine.waiting({"key": "ok", "assignee": "ann"}))
    if known:
        engine.approve(task_id)
    stranger = connect(make_role("pgflow_approver"))
    with engine.refused("PF501") as refused:
        stranger.approve(task_id)
    assert "approved" not in str(refused.value.diag.message_detail)


def test_three_lines_of_any_client_are_enough(engine: Engine) -> None:
    run_id = engine.waiting()
    decision: Any = engine.value("select pgflow.approve(%s, 'fine')", engine.task(run_id))
    assert decision is not None
    assert engine.state(run_id) == "pending"
