"""Steps that no worker executes: gates, tasks, events and timers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import finish, gate, ready, started, states, step, step_run, task_of, work

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Row

FORM = {"type": "object", "properties": {"words": {"type": "integer"}}, "required": ["words"]}


def hears(name: str, /, *needs: str, **config: Any) -> Row:
    """Return a step that waits for a signal."""
    return step(name, *needs, type="wait_event", config=config)


# ---- people


def test_a_gate_is_a_task_and_no_worker_sees_it(engine: Engine) -> None:
    run_id = started(
        engine,
        step("draft"),
        gate("editor", "draft", title="Publish?", assignee_role="editors", due_in=60),
    )
    work(engine, draft={"words": 3})
    assert ready(engine) == {}
    assert engine.state(run_id) == "waiting_approval"
    assert states(engine, run_id) == {"draft": "completed", "editor": "waiting"}
    (row,) = engine.rows("select * from pgflow.inbox where flow_run_id = %s", run_id)
    assert (row["kind"], row["title"], row["step"]) == ("approval", "Publish?", "editor")
    assert (row["assignee_role"], row["payload"]) == ("editors", {"draft": {"words": 3}})
    assert row["due_at"] == engine.now + timedelta(seconds=60)
    assert (row["flow"], row["flow_version"]) == ("f", engine.run(run_id)["flow_version"])
    run = engine.run(row["run_id"])
    assert (run["kind"], run["state"], run["lease_no"]) == ("step_wait", "waiting_approval", None)
    assert run["input"] == {"draft": {"words": 3}}


def test_the_decision_is_the_output_of_a_gate(engine: Engine) -> None:
    run_id = started(engine, gate("editor"), step("publish", "editor"))
    engine.approve(task_of(engine, run_id, "editor"), comment="fine", decision=Jsonb([1]))
    given = ready(engine)["publish"].body["input"]["editor"]
    assert (given["action"], given["approved"], given["comment"]) == ("approved", True, "fine")
    assert (given["data"], given["decided_by"]) == ([1], engine.value("select session_user"))
    assert engine.state(run_id) == "running"
    assert engine.types(step_run(engine, run_id, "editor")) == [
        "run.created",
        "task.requested",
        "task.resolved",
        "run.completed",
    ]


def test_the_last_gate_ends_its_flow(engine: Engine) -> None:
    run_id = started(engine, gate("editor"))
    decision = engine.approve(task_of(engine, run_id, "editor"))
    assert engine.state(run_id) == "completed"
    again = engine.approve(decision["task_id"])
    assert (again["action"], again["repeated"]) == ("approved", True)


def test_a_human_task_is_answered_as_its_form_says(engine: Engine) -> None:
    run_id = started(engine, step("count", type="human_task", config={"form": FORM}))
    task_id = task_of(engine, run_id, "count")
    with engine.refused("PF101", "data.words"):
        engine.call("answer", task_id=task_id, data={"words": "three"})
    engine.call("answer", task_id=task_id, data={"words": 3})
    output = engine.run(run_id)["output"]
    assert (output["count"]["action"], output["count"]["data"]) == ("answered", {"words": 3})


def test_a_task_without_a_title_is_called_as_its_step(engine: Engine) -> None:
    told = step("b", type="approval_gate", description="Look well")
    run_id = started(engine, gate("a"), told)
    rows = engine.rows("select title from pgflow.inbox where flow_run_id = %s", run_id)
    assert {row["title"] for row in rows} == {"Look well", "a"}


@pytest.mark.parametrize(
    ("config", "state"),
    [({}, "cancelled"), ({"on_reject": "fail"}, "failed"), ({"on_reject": "resume"}, "completed")],
    ids=str,
)
def test_a_gate_that_is_rejected_ends_its_flow_as_it_says(
    engine: Engine, config: Row, state: str
) -> None:
    run_id = started(engine, gate("editor", **config))
    engine.reject(task_of(engine, run_id, "editor"), comment="no")
    run = engine.run(run_id)
    assert run["state"] == state
    if state == "completed":
        assert run["output"]["editor"]["approved"] is False
    else:
        assert (run["error_code"], states(engine, run_id)) == ("E-RUN-006", {"editor": "rejected"})


def test_a_gate_that_is_rejected_may_be_taken(engine: Engine) -> None:
    run_id = started(
        engine,
        step("editor", type="approval_gate", on_failure={"run": "explain"}),
        step("explain"),
    )
    engine.reject(task_of(engine, run_id, "editor"))
    assert finish(engine) == [["explain"]]
    assert engine.state(run_id) == "completed"


@pytest.mark.parametrize(
    ("policy", "state", "step_state"),
    [
        ("cancel", "cancelled", "expired"),
        ("timeout", "timeout", "expired"),
        ("reject", "cancelled", "expired"),
        ("approve", "completed", "completed"),
    ],
)
def test_a_gate_that_nobody_decides_ends_by_its_policy(
    engine: Engine, policy: str, state: str, step_state: str
) -> None:
    run_id = started(engine, gate("editor", due_in=60, policy=policy))
    engine.later(seconds=61)
    engine.tick()
    assert engine.state(run_id) == state
    assert states(engine, run_id) == {"editor": step_state}
    if state != "completed":
        assert engine.run(run_id)["error_code"] == "E-RUN-007"


def test_a_quorum_holds_for_a_gate(engine: Engine, connect: Connect, make_role: MakeRole) -> None:
    run_id = started(engine, gate("board", quorum=2, quorum_of=3))
    task_id = task_of(engine, run_id, "board")
    first, second = (connect(make_role("pgflow_approver")) for _ in range(2))
    first.approve(task_id)
    assert engine.state(run_id) == "waiting_approval"
    second.approve(task_id)
    assert engine.state(run_id) == "completed"


def test_who_started_a_flow_may_be_kept_from_its_gate(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    ann = connect(make_role("pgflow_client", "pgflow_approver"))
    run_id = started(ann, step("draft"), gate("editor", "draft", not_requester=True))
    work(engine)
    task_id = task_of(engine, run_id, "editor")
    with ann.refused("PF501", "task_id"):
        ann.approve(task_id)
    connect(make_role("pgflow_approver")).approve(task_id)
    assert engine.state(run_id) == "completed"


def test_several_gates_wait_side_by_side(engine: Engine) -> None:
    run_id = started(engine, gate("a"), gate("b"), step("c", "a", "b"))
    engine.approve(task_of(engine, run_id, "b"))
    assert engine.state(run_id) == "waiting_approval"
    engine.approve(task_of(engine, run_id, "a"))
    assert finish(engine) == [["c"]]


# ---- events and timers


def test_a_signal_to_the_flow_reaches_the_step_that_waits_for_it(engine: Engine) -> None:
    run_id = started(engine, hears("payment"), step("ship", "payment"))
    assert engine.state(run_id) == "waiting_event"
    engine.call("signal", run_id=run_id, name="other")
    assert engine.state(run_id) == "waiting_event"
    engine.call("signal", run_id=run_id, name="payment", payload={"paid": 5})
    assert ready(engine)["ship"].body["input"] == {"payment": {"paid": 5}}


def test_a_signal_to_the_steps_own_run_is_as_good(engine: Engine) -> None:
    run_id = started(engine, hears("pay", name="payment"))
    engine.call("signal", run_id=step_run(engine, run_id, "pay"), name="payment", payload={"a": 1})
    assert engine.run(run_id)["output"] == {"pay": {"a": 1}}


def test_a_signal_that_came_early_is_there_when_the_step_is_ready(engine: Engine) -> None:
    run_id = started(engine, step("a"), hears("pay", "a"), hears("again", "pay", name="pay"))
    for n in (1, 2):
        engine.call("signal", run_id=run_id, name="pay", payload={"n": n})
    assert finish(engine) == [["a"]]
    assert engine.run(run_id)["output"] == {"again": {"n": 2}}
    engine.timeline(run_id)


def test_a_signal_is_taken_by_one_step(engine: Engine) -> None:
    run_id = started(engine, hears("a", name="go"), hears("b", name="go"))
    engine.call("signal", run_id=run_id, name="go")
    assert sorted(states(engine, run_id).values()) == ["completed", "waiting"]
    engine.call("signal", run_id=run_id, name="go")
    assert engine.state(run_id) == "completed"


def test_an_event_that_does_not_come_in_time_fails_its_step(engine: Engine) -> None:
    run_id = started(engine, hears("payment", timeout=60))
    engine.later(seconds=61)
    engine.tick()
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-003")
    assert run["error_detail"] == "step payment: payment did not come within 60 s"


def test_an_event_that_does_not_come_may_be_taken(engine: Engine) -> None:
    run_id = started(
        engine,
        step("pay", type="wait_event", config={"timeout": 60}, on_failure={"run": "remind"}),
        step("remind"),
    )
    engine.later(seconds=61)
    engine.tick()
    assert finish(engine) == [["remind"]]
    assert states(engine, run_id) == {"pay": "failed", "remind": "completed"}


def test_a_timer_completes_when_its_time_has_passed(engine: Engine) -> None:
    run_id = started(engine, step("rest", type="timer", config={"seconds": 60}), step("go", "rest"))
    assert engine.state(run_id) == "waiting_event"
    engine.later(seconds=59)
    engine.tick()
    assert engine.state(run_id) == "waiting_event"
    engine.later(seconds=2)
    assert ready(engine)["go"].body["input"] == {"rest": None}


# ---- steering


def test_what_comes_while_a_waiting_step_is_paused_counts_when_it_is_resumed(
    engine: Engine,
) -> None:
    run_id = started(engine, gate("editor"))
    child_id = step_run(engine, run_id, "editor")
    engine.call("pause", run_id=child_id)
    engine.approve(task_of(engine, run_id, "editor"))
    assert engine.state(run_id) == "waiting_event"
    assert engine.tell("resume", run_id=child_id) == "completed"
    assert engine.state(run_id) == "completed"


def test_a_waiting_step_that_is_resumed_waits_again(engine: Engine) -> None:
    run_id = started(engine, gate("editor"))
    child_id = step_run(engine, run_id, "editor")
    engine.call("pause", run_id=child_id)
    assert engine.tell("resume", run_id=child_id) == "waiting_approval"
    assert engine.state(run_id) == "waiting_approval"


def test_a_gate_of_a_paused_flow_counts_when_that_is_resumed(engine: Engine) -> None:
    run_id = started(engine, gate("editor"), step("publish", "editor"))
    engine.call("pause", run_id=run_id)
    engine.approve(task_of(engine, run_id, "editor"))
    assert ready(engine) == {}
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["publish"]]


def test_cancelling_a_flow_closes_what_its_steps_wait_for(engine: Engine) -> None:
    run_id = started(engine, gate("editor"), hears("payment"))
    task_id = task_of(engine, run_id, "editor")
    engine.call("cancel", run_id=run_id)
    assert set(states(engine, run_id).values()) == {"cancelled"}
    with engine.refused("PF202"):
        engine.approve(task_id)


def test_retrying_a_flow_keeps_its_decisions_and_asks_what_is_open(engine: Engine) -> None:
    run_id = started(engine, gate("a"), step("b", "a"), gate("c", "b"))
    engine.approve(task_of(engine, run_id, "a"))
    work(engine)
    engine.reject(task_of(engine, run_id, "c"))
    again = engine.tell("retry", run_id=run_id)
    assert states(engine, again) == {"a": "completed", "b": "completed", "c": "waiting"}
    engine.approve(task_of(engine, again, "c"))
    assert engine.state(again) == "completed"


@pytest.mark.parametrize("verb", ["retry", "fork", "set_breakpoint"])
def test_what_a_waiting_step_cannot_do_is_refused(engine: Engine, verb: str) -> None:
    run_id = started(engine, gate("editor"), step("publish", "editor"))
    child_id = step_run(engine, run_id, "editor")
    if verb == "retry":
        engine.approve(task_of(engine, run_id, "editor"))
    with engine.refused("PF101", "run_id"):
        engine.call(verb, run_id=child_id, **({} if verb == "retry" else {"step": "editor"}))


@pytest.mark.parametrize("verb", ["complete", "fail"])
def test_no_worker_ends_a_waiting_step(engine: Engine, verb: str) -> None:
    run_id = started(engine, gate("editor"))
    engine.worker()
    given = {
        "complete": {"outputs": ["1"]},
        "fail": {"error_codes": ["E-RUN-001"], "error_details": ["x"]},
    }[verb]
    child_id = step_run(engine, run_id, "editor")
    (line,) = engine.call(verb, run_ids=[child_id], lease_nos=[0], **given)
    assert line["outcome"] == "lost"
    assert engine.state(run_id) == "waiting_approval"
