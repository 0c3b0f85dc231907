"""Abort: whoever may decide a task may end all that it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.flows import gate, ready, started, states, step, step_run, task_of, work

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Row


def abort(engine: Engine, task_id: object, **arguments: object) -> Row:
    """Abort at a task."""
    (decision,) = engine.call("abort", task_id=task_id, **arguments)
    return decision


def test_aborting_at_a_gate_ends_its_flow(engine: Engine) -> None:
    run_id = started(engine, step("draft"), gate("editor", "draft", on_reject="fail"), step("b"))
    beside = ready(engine)
    engine.complete(beside["draft"])
    task_id = task_of(engine, run_id, "editor")
    decision = abort(engine, task_id, comment="we were sold")
    me = engine.value("select session_user")
    assert (decision["action"], decision["comment"]) == ("aborted", "we were sold")
    run = engine.run(run_id)
    assert (run["state"], run["error_code"], run["ended_by"]) == ("cancelled", "E-RUN-013", me)
    assert run["error_detail"] == "editor aborted: we were sold"
    assert engine.types(run_id)[-1] == "run.aborted"
    assert states(engine, run_id)["b"] == "cancelled"
    child = engine.run(beside["b"].run_id)
    assert (child["state"], child["error_code"]) == ("cancelled", "E-RUN-011")
    told = [e for e in engine.timeline(decision["run_id"]) if e["type"] == "task.resolved"]
    assert [(e["payload"]["action"], e["by"]) for e in told] == [("aborted", me)]


def test_no_on_failure_has_a_say_in_it(engine: Engine) -> None:
    run_id = started(
        engine,
        step("editor", type="approval_gate", on_failure={"run": "explain"}),
        step("explain"),
    )
    abort(engine, task_of(engine, run_id, "editor"))
    assert engine.run(run_id)["error_code"] == "E-RUN-013"


def test_aborting_where_the_handler_of_a_step_asks_ends_the_flow(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    lease = ready(engine)["a"]
    engine.park(lease)
    abort(engine, engine.task(lease.run_id))
    assert engine.run(run_id)["error_code"] == "E-RUN-013"
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-011"


@pytest.mark.parametrize("kind", ["approval", "form", "input", "interrupt"])
def test_a_run_that_is_no_step_is_aborted_itself(engine: Engine, kind: str) -> None:
    more: Row = {} if kind in {"approval", "interrupt"} else {"form": {}}
    run_id = engine.waiting({"key": "ok", "kind": kind, **more})
    abort(engine, engine.task(run_id))
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-013")
    assert engine.types(run_id)[-2:] == ["task.resolved", "run.aborted"]
    row = engine.one("select * from pgflow.task_history where run_id = %s", run_id)
    assert (row["state"], row["decided_by"]) == ("aborted", run["ended_by"])


def test_one_may_abort_where_several_have_to_approve(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "quorum": 2})
    assert abort(engine, engine.task(run_id))["action"] == "aborted"
    assert engine.state(run_id) == "cancelled"


def test_aborting_again_returns_the_first_decision(engine: Engine) -> None:
    run_id = engine.waiting()
    first = abort(engine, engine.task(run_id), comment="no")
    before = engine.place.rows()
    again = abort(engine, engine.task(run_id), comment="really")
    assert (again["repeated"], again["comment"]) == (True, "no")
    assert again["decided_at"] == first["decided_at"]
    assert engine.place.rows() == before
    with engine.refused("PF402", "task_id"):
        engine.approve(first["task_id"])


def test_what_was_decided_is_not_aborted(engine: Engine) -> None:
    run_id = engine.waiting()
    engine.approve(engine.task(run_id))
    with engine.refused("PF402", "task_id"):
        abort(engine, engine.task(run_id))


def test_who_may_not_decide_may_not_abort(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    run_id = engine.waiting({"key": "ok", "assignee": make_role("pgflow_approver")})
    stranger = connect(make_role("pgflow_approver"))
    with stranger.refused("PF501", "task_id"):
        abort(stranger, engine.task(run_id))


def test_a_long_comment_is_refused(engine: Engine) -> None:
    run_id = engine.waiting()
    with engine.refused("PF101", "comment"):
        abort(engine, engine.task(run_id), comment="c" * 10001)


def test_a_flow_that_was_aborted_can_be_retried(engine: Engine) -> None:
    run_id = started(engine, step("draft"), gate("editor", "draft"))
    work(engine)
    abort(engine, task_of(engine, run_id, "editor"))
    again = engine.tell("retry", run_id=run_id)
    assert states(engine, again) == {"draft": "completed", "editor": "waiting"}
    assert engine.state(step_run(engine, again, "editor")) == "waiting_approval"
