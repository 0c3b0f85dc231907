"""A gate that is rejected sends its flow back: what came after a step is done again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.flows import finish, gate, ready, started, states, step, step_run, task_of, work

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Row

REVIEW = (
    step("collect"),
    step("draft", "collect"),
    step("title", "collect"),
    gate("editor", "draft", "title"),
    step("publish", "editor"),
)


def reviewed(engine: Engine) -> UUID:
    """Bring a flow to its gate."""
    run_id = started(engine, *REVIEW)
    assert finish(engine) == [["collect"], ["draft", "title"]]
    return run_id


def send_back(engine: Engine, run_id: UUID, to: str, name: str = "editor") -> Row:
    """Reject a gate and go back to a step."""
    task_id = task_of(engine, run_id, name)
    return engine.reject(task_id, comment="too long", rollback_to=to)


def all_lines(engine: Engine, run_id: UUID, name: str) -> list[tuple[int, str]]:
    """Return versions and states of a step, those that were voided too."""
    rows = engine.rows(
        "select version, state from pgflow.flow_steps where flow_run_id = %s and step = %s"
        " order by version",
        run_id,
        name,
    )
    return [(row["version"], row["state"]) for row in rows]


def test_that_step_and_all_after_it_is_done_again(engine: Engine) -> None:
    run_id = reviewed(engine)
    assert send_back(engine, run_id, "draft")["action"] == "rejected"
    assert states(engine, run_id) == {
        "collect": "completed",
        "draft": "pending",
        "title": "completed",
        "editor": "pending",
        "publish": "pending",
    }
    assert engine.state(run_id) == "running"
    assert finish(engine, draft="shorter") == [["draft"]]
    (row,) = engine.rows("select * from pgflow.inbox where flow_run_id = %s", run_id)
    assert (row["payload"], row["round"]) == ({"draft": "shorter", "title": "title"}, 1)
    engine.approve(row["task_id"])
    assert finish(engine) == [["publish"]]
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


def test_a_step_that_is_done_again_gets_what_came_before_and_the_comment(engine: Engine) -> None:
    run_id = reviewed(engine)
    send_back(engine, run_id, "draft")
    body = ready(engine)["draft"].body
    assert body["input"] == {"collect": "collect"}
    assert body["flow"]["version"] == 1
    feedback = body["feedback"]
    assert (feedback["comment"], feedback["key"], feedback["round"]) == ("too long", "editor", 1)


def test_old_results_are_kept_and_shown(engine: Engine) -> None:
    run_id = reviewed(engine)
    old = step_run(engine, run_id, "draft")
    send_back(engine, run_id, "draft")
    finish(engine, draft="shorter")
    assert all_lines(engine, run_id, "draft") == [(0, "voided"), (1, "completed")]
    assert all_lines(engine, run_id, "editor") == [(0, "rejected"), (1, "waiting")]
    assert all_lines(engine, run_id, "collect") == [(0, "completed")]
    assert engine.run(old)["output"] == "draft"
    (event,) = [e for e in engine.timeline(run_id) if e["type"] == "step.rolled_back"]
    assert event["payload"] == {
        "to": "draft",
        "round": 1,
        "voided": ["draft", "editor", "publish"],
        "reason": "too long",
    }


def test_going_back_over_a_fan_out_does_all_of_it_again(engine: Engine) -> None:
    run_id = reviewed(engine)
    send_back(engine, run_id, "collect")
    assert finish(engine) == [["collect"], ["draft", "title"]]
    assert states(engine, run_id)["editor"] == "waiting"


def test_a_flow_goes_back_several_times(engine: Engine) -> None:
    run_id = reviewed(engine)
    for back in ("draft", "collect", "title"):
        send_back(engine, run_id, back)
        finish(engine)
    assert all_lines(engine, run_id, "draft") == [(0, "voided"), (1, "voided"), (2, "completed")]
    assert all_lines(engine, run_id, "title") == [(0, "voided"), (2, "voided"), (3, "completed")]
    engine.approve(task_of(engine, run_id, "editor"))
    assert finish(engine) == [["publish"]]
    assert engine.state(run_id) == "completed"


def test_a_flow_goes_back_to_before_another_gate(engine: Engine) -> None:
    run_id = started(engine, step("a"), gate("first", "a"), gate("second", "first"))
    work(engine)
    engine.approve(task_of(engine, run_id, "first"))
    send_back(engine, run_id, "a", "second")
    assert states(engine, run_id) == {"a": "pending", "first": "pending", "second": "pending"}
    work(engine)
    engine.approve(task_of(engine, run_id, "first"))
    engine.approve(task_of(engine, run_id, "second"))
    assert engine.state(run_id) == "completed"


def test_a_gate_may_send_back_to_another_gate(engine: Engine) -> None:
    run_id = started(engine, gate("first"), gate("second", "first"))
    engine.approve(task_of(engine, run_id, "first"))
    send_back(engine, run_id, "first", "second")
    assert states(engine, run_id) == {"first": "waiting", "second": "pending"}
    assert engine.state(run_id) == "waiting_approval"


def test_what_runs_beside_goes_on(engine: Engine) -> None:
    run_id = started(
        engine, step("a"), gate("ok", "a"), step("b"), step("c", "b"), step("d", "ok", "c")
    )
    leases = ready(engine)
    engine.complete(leases["a"])
    send_back(engine, run_id, "a", "ok")
    assert engine.complete(leases["b"]) == []
    assert finish(engine) == [["a", "c"]]
    engine.approve(task_of(engine, run_id, "ok"))
    assert finish(engine) == [["d"]]
    assert engine.state(run_id) == "completed"


def test_what_runs_behind_is_ended(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"), gate("ok", "a"), gate("other", "a"))
    work(engine)
    lease = ready(engine)["b"]
    other = task_of(engine, run_id, "other")
    send_back(engine, run_id, "a", "ok")
    assert engine.complete(lease)[0]["outcome"] == "lost"
    run = engine.run(lease.run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")
    with engine.refused("PF202"):
        engine.approve(other)
    assert finish(engine) == [["a"], ["b"]]
    assert engine.state(run_id) == "waiting_approval"


def test_a_step_behind_whose_other_needs_have_ended_waits_for_what_is_done_again(
    engine: Engine,
) -> None:
    run_id = started(
        engine,
        step("a"),
        step("bad", on_failure="continue"),
        step("x", "a", "bad", join="any"),
        gate("ok", "x"),
    )
    leases = ready(engine)
    engine.complete(leases["a"], output="1")
    engine.fail(leases["bad"], retries=[False])
    work(engine)
    send_back(engine, run_id, "a", "ok")
    assert finish(engine) == [["a"], ["x"]]
    assert states(engine, run_id)["ok"] == "waiting"


@pytest.mark.parametrize("to", ["publish", "editor", "nobody", ""])
def test_a_step_that_does_not_come_before_is_refused_with_those_that_do(
    engine: Engine, to: str
) -> None:
    run_id = reviewed(engine)
    task_id = task_of(engine, run_id, "editor")
    with engine.refused("PF105", "rollback_to") as refused:
        engine.reject(task_id, rollback_to=to)
    assert refused.value.diag.message_detail == "these do: collect, draft, title"


def test_the_same_rejection_again_is_a_no_op(engine: Engine) -> None:
    run_id = reviewed(engine)
    task_id = task_of(engine, run_id, "editor")
    engine.reject(task_id, rollback_to="draft")
    before = engine.place.rows()
    assert engine.reject(task_id, rollback_to="draft")["repeated"] is True
    assert engine.place.rows() == before
    with engine.refused("PF402"):
        engine.approve(task_id)


def test_a_paused_flow_goes_back_and_begins_nothing(engine: Engine) -> None:
    run_id = reviewed(engine)
    engine.call("pause", run_id=run_id)
    send_back(engine, run_id, "draft")
    assert engine.state(run_id) == "paused"
    assert ready(engine) == {}
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["draft"]]
    assert engine.state(run_id) == "waiting_approval"


def test_a_paused_flow_that_goes_back_to_a_step_that_only_passes_asks_nobody(
    engine: Engine,
) -> None:
    run_id = started(engine, step("go", type="pass"), gate("first", "go"), gate("ok", "first"))
    engine.approve(task_of(engine, run_id, "first"))
    engine.call("pause", run_id=run_id)
    send_back(engine, run_id, "go", "ok")
    assert states(engine, run_id) == {"go": "completed", "first": "pending", "ok": "pending"}
    engine.call("resume", run_id=run_id)
    assert states(engine, run_id)["first"] == "waiting"


def test_what_ended_beside_while_the_flow_was_paused_counts_once(engine: Engine) -> None:
    run_id = started(engine, step("a"), gate("ok", "a"), step("x"), step("d", "ok", "x"))
    leases = ready(engine)
    engine.complete(leases["a"])
    engine.call("pause", run_id=run_id)
    engine.complete(leases["x"])
    send_back(engine, run_id, "a", "ok")
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["a"]]
    assert states(engine, run_id)["d"] == "pending"
    engine.approve(task_of(engine, run_id, "ok"))
    assert finish(engine) == [["d"]]


def test_retrying_a_flow_that_went_back_keeps_what_counts(engine: Engine) -> None:
    run_id = reviewed(engine)
    send_back(engine, run_id, "draft")
    finish(engine, draft="shorter")
    engine.reject(task_of(engine, run_id, "editor"))
    again = engine.tell("retry", run_id=run_id)
    (row,) = engine.rows("select payload from pgflow.inbox where flow_run_id = %s", again)
    assert row["payload"] == {"draft": "shorter", "title": "title"}
