"""Gates of a step: who approves what it has done, before another step sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sql.flows import define, finish, ready, started, states, step, step_run, task_of, work

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Row


def gated(name: str = "plan", /, *needs: str, **more: Any) -> Row:
    """Return a step with two gates."""
    return step(name, *needs, gates=["editor", {"name": "legal", "assignee_role": "law"}], **more)


def payload_at(engine: Engine, run_id: UUID, gate: str) -> Any:
    """Return what is seen at a gate that is open."""
    return engine.value(
        "select payload from pgflow.inbox where flow_run_id = %s and step = %s", run_id, gate
    )


def sha256(engine: Engine, text: str) -> Any:
    """Return the hex SHA-256 of the database's text of a JSON."""
    return engine.value("select encode(sha256(convert_to((%s::jsonb)::text, 'UTF8')), 'hex')", text)


# ---- in their order


def test_gates_are_asked_one_after_the_other_before_the_next_step_begins(engine: Engine) -> None:
    run_id = started(engine, gated(), step("build", "plan"))
    assert work(engine, plan={"a": 1}) == ["plan"]
    for gate in ("plan/editor", "plan/legal"):
        assert engine.state(run_id) == "waiting_approval"
        assert states(engine, run_id)[gate] == "waiting"
        assert states(engine, run_id)["build"] == "pending"
        (task,) = engine.rows("select * from pgflow.inbox where flow_run_id = %s", run_id)
        assert (task["step"], task["kind"]) == (gate, "approval")
        engine.approve(task["task_id"])
    assert task["assignee_role"] == "law"
    assert ready(engine)["build"].body["input"] == {"plan": {"a": 1}}


def test_at_a_gate_one_sees_the_step_its_hash_and_all_of_its_gates(engine: Engine) -> None:
    run_id = started(engine, gated(), step("build", "plan"))
    work(engine, plan={"a": 1})
    assert payload_at(engine, run_id, "plan/editor") == {
        "step": "plan",
        "gate": "editor",
        "gates": ["editor", "legal"],
        "artifact": None,
        "sha256": sha256(engine, '{"a": 1}'),
        "output": {"a": 1},
    }


def test_what_is_approved_is_the_artifact_if_the_step_leaves_one(engine: Engine) -> None:
    run_id = started(engine, gated(artifact={"name": "text"}))
    lease = ready(engine)["plan"]
    written = engine.call(
        "record_artifact",
        run_id=lease.run_id,
        lease_no=lease.lease_no,
        name="text",
        content='{"words": 3}',
    )[0]
    engine.complete(lease)
    payload = payload_at(engine, run_id, "plan/editor")
    assert payload["artifact"] == {
        "run_id": str(lease.run_id),
        "artifact_no": written["artifact_no"],
        "name": "text",
    }
    assert payload["sha256"] == sha256(engine, '{"words": 3}') == written["sha256"]


def test_the_output_of_a_flow_is_that_of_the_step_behind_its_gates(engine: Engine) -> None:
    run_id = started(engine, gated())
    work(engine, plan=7)
    engine.approve(task_of(engine, run_id, "plan/editor"))
    engine.approve(task_of(engine, run_id, "plan/legal"))
    run = engine.run(run_id)
    assert (run["state"], run["output"]) == ("completed", {"plan": 7})


def test_a_report_has_the_decision_of_each_gate_and_the_one_that_is_open(engine: Engine) -> None:
    run_id = started(engine, gated())
    work(engine)
    engine.approve(task_of(engine, run_id, "plan/editor"), comment="fine")
    report = engine.tell("report", run_id=run_id)
    assert [(d["step"], d["comment"]) for d in report["decisions"]] == [("plan/editor", "fine")]
    assert [t["step"] for t in report["unresolved"]["tasks"]] == ["plan/legal"]
    assert [(s["key"], s["state"]) for s in report["steps"]] == [
        ("plan", "completed"),
        ("plan/editor", "completed"),
        ("plan/legal", "waiting"),
    ]


def test_gates_stand_behind_what_a_person_does_and_behind_a_step_for_each(engine: Engine) -> None:
    run_id = started(
        engine,
        step("ask", type="human_task", config={"form": {"type": "object"}}, gates=["a"]),
        step("list", each="$.files[*]", gates=["b"]),
        step("last", "ask", "list"),
        input='{"files": [1, 2]}',
    )
    work(engine)
    assert payload_at(engine, run_id, "list/b")["output"] == ["list", "list"]
    engine.approve(task_of(engine, run_id, "list/b"))
    engine.call("answer", task_id=task_of(engine, run_id, "ask"), data={"x": 1})
    engine.approve(task_of(engine, run_id, "ask/a"))
    given = ready(engine)["last"].body["input"]
    assert (given["ask"]["data"], given["list"]) == ({"x": 1}, ["list", "list"])


# ---- without work


def test_a_step_that_only_passes_completes_at_once(engine: Engine) -> None:
    run_id = started(engine, step("go", type="pass"), input='{"a": 1}')
    run = engine.run(run_id)
    assert (run["state"], run["output"]) == ("completed", {"go": {"a": 1}})
    (row,) = engine.rows("select * from pgflow.flow_steps where flow_run_id = %s", run_id)
    assert (row["state"], row["run_id"], row["attempts"]) == ("completed", None, 0)


def test_a_step_that_only_passes_may_have_gates(engine: Engine) -> None:
    run_id = started(
        engine, step("draft"), step("go", "draft", type="pass", gates=["boss"]), step("ship", "go")
    )
    work(engine, draft=1)
    assert payload_at(engine, run_id, "go/boss")["output"] == {"draft": 1}
    engine.approve(task_of(engine, run_id, "go/boss"))
    assert ready(engine)["ship"].body["input"] == {"go": {"draft": 1}}


# ---- a rejection


@pytest.mark.parametrize(("on_reject", "state"), [("cancel", "cancelled"), ("fail", "failed")])
def test_a_rejection_ends_the_flow_as_the_gate_says(
    engine: Engine, on_reject: str, state: str
) -> None:
    run_id = started(
        engine, step("plan", gates=[{"name": "a", "on_reject": on_reject}]), step("b", "plan")
    )
    work(engine)
    engine.reject(task_of(engine, run_id, "plan/a"), comment="no")
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == (state, "E-RUN-006")
    assert states(engine, run_id)["plan/a"] == "rejected"


def test_the_step_that_is_sent_back_is_told_why_and_all_its_gates_are_asked_again(
    engine: Engine,
) -> None:
    run_id = started(engine, gated(), step("build", "plan"))
    work(engine, plan=1)
    first = task_of(engine, run_id, "plan/editor")
    engine.approve(first)
    engine.reject(task_of(engine, run_id, "plan/legal"), comment="shorter", rollback_to="plan")
    lease = ready(engine)["plan"]
    assert lease.body["feedback"]["comment"] == "shorter"
    engine.complete(lease, outputs=["2"])
    assert task_of(engine, run_id, "plan/editor") != first
    payload = payload_at(engine, run_id, "plan/editor")
    assert (payload["output"], payload["sha256"]) == (2, sha256(engine, "2"))
    assert states(engine, run_id)["plan/legal"] == "pending"
    engine.approve(task_of(engine, run_id, "plan/editor"))
    engine.approve(task_of(engine, run_id, "plan/legal"))
    assert ready(engine)["build"].body["input"] == {"plan": 2}


def test_a_gate_may_be_sent_back_to_the_gate_before_it(engine: Engine) -> None:
    run_id = started(engine, gated())
    work(engine)
    engine.approve(task_of(engine, run_id, "plan/editor"))
    engine.reject(task_of(engine, run_id, "plan/legal"), rollback_to="plan/editor")
    assert states(engine, run_id) == {
        "plan": "completed",
        "plan/editor": "waiting",
        "plan/legal": "pending",
    }


def test_a_rejection_may_be_taken_by_the_step_that_runs_on_failure(engine: Engine) -> None:
    run_id = started(
        engine, gated(on_failure={"run": "explain"}), step("explain"), step("build", "plan")
    )
    work(engine)
    engine.reject(task_of(engine, run_id, "plan/editor"), comment="no")
    lease = ready(engine)["explain"]
    assert lease.body["flow"]["failures"]["plan/editor"]["state"] == "rejected"
    engine.complete(lease, outputs=["1"])
    assert engine.state(run_id) == "completed"
    assert states(engine, run_id)["build"] == "skipped"
    assert engine.run(run_id)["output"] == {"explain": 1}


def test_after_a_rejection_the_output_of_the_step_counts_no_more(engine: Engine) -> None:
    run_id = started(
        engine,
        gated(on_failure="continue"),
        step("other"),
        step("last", "plan", "other", join="any"),
        step("whole", "plan", "other", join="none_failed"),
        output={"plan": "plan", "last": "last"},
    )
    work(engine)
    engine.reject(task_of(engine, run_id, "plan/editor"))
    assert ready(engine)["last"].body["input"] == {"other": "other"}
    assert states(engine, run_id)["whole"] == "skipped"


def test_one_step_behind_its_gates_is_enough_for_join_any(engine: Engine) -> None:
    run_id = started(engine, gated(), step("other"), step("last", "plan", "other", join="any"))
    leases = ready(engine)
    engine.complete(leases["plan"], outputs=["1"])
    engine.approve(task_of(engine, run_id, "plan/editor"))
    assert ready(engine) == {}
    engine.approve(task_of(engine, run_id, "plan/legal"))
    assert ready(engine)["last"].body["input"] == {"plan": 1}


def test_the_gates_of_a_step_that_is_skipped_or_fails_are_not_asked(engine: Engine) -> None:
    run_id = started(
        engine,
        step("a", when="$input.a == 1", gates=["x"]),
        step("b", gates=["y"], on_failure="continue"),
        step("c", "a", "b", join="none_failed"),
    )
    work(engine, fail=("b",))
    assert states(engine, run_id) == {
        "a": "skipped",
        "a/x": "skipped",
        "b": "failed",
        "b/y": "skipped",
        "c": "skipped",
    }


def test_a_retry_asks_only_the_gates_that_did_not_approve(engine: Engine) -> None:
    old = started(engine, gated())
    work(engine, plan=3)
    engine.approve(task_of(engine, old, "plan/editor"))
    engine.reject(task_of(engine, old, "plan/legal"))
    new = engine.tell("retry", run_id=old)
    assert states(engine, new) == {
        "plan": "completed",
        "plan/editor": "completed",
        "plan/legal": "waiting",
    }
    assert payload_at(engine, new, "plan/legal")["output"] == 3


def test_a_gate_whose_time_is_up_ends_by_its_policy(engine: Engine) -> None:
    run_id = started(
        engine, step("plan", gates=[{"name": "a", "timeout_hours": 1, "policy": "approve"}])
    )
    work(engine, plan=3)
    engine.later(hours=2)
    engine.tick()
    assert engine.run(run_id)["output"] == {"plan": 3}


# ---- the definition


@pytest.mark.parametrize(
    ("gates", "field"),
    [
        ("editor", "gates"),
        (["a", "a"], "gates[1]"),
        (["a/b"], "gates[0]"),
        (["-a"], "gates[0]"),
        ([{"title": "x"}], "gates[0]"),
        ([7], "gates[0]"),
        ([{"name": "a", "due": 5}], "gates[0]"),
        ([{"name": "a", "due_in": -5}], "gates[0]"),
        ([{"name": "a", "timeout_hours": 1, "due_in": 5}], "gates[0]"),
        ([{"name": "a", "on_reject": "resume"}], "gates[0]"),
        ([str(n) for n in range(21)], "gates"),
    ],
    ids=str,
)
def test_gates_that_cannot_be_are_refused(engine: Engine, gates: object, field: str) -> None:
    with engine.refused("PF101", f"definition.steps[0].{field}"):
        define(engine, step("plan", gates=gates))


@pytest.mark.parametrize("more", [{"config": {"a": 1}}, {"each": "$[*]"}, {"handler": "h"}])
def test_a_step_that_only_passes_has_nothing_else(engine: Engine, more: Row) -> None:
    with engine.refused("PF101", f"definition.steps[0].{next(iter(more))}"):
        define(engine, step("go", type="pass", **more))


def test_a_gate_by_name_and_as_an_object_are_the_same(engine: Engine) -> None:
    one = define(engine, step("plan", gates=["a"]))
    other = define(engine, step("plan", gates=[{"name": "a", "title": None}]))
    assert one["version"] == other["version"]
    none = define(engine, step("plan", gates=[]))
    assert none["version"] == define(engine, step("plan"))["version"] != one["version"]


def test_a_gate_is_no_step_that_another_may_name(engine: Engine) -> None:
    with engine.refused("PF101", "definition.steps[1].needs"):
        define(engine, step("plan", gates=["a"]), step("b", "plan/a"))


def test_the_runs_of_gates_have_their_own_timelines(engine: Engine) -> None:
    run_id = started(engine, gated())
    assert finish(engine) == [["plan"]]
    engine.approve(task_of(engine, run_id, "plan/editor"))
    assert engine.types(step_run(engine, run_id, "plan/editor")) == [
        "run.created",
        "task.requested",
        "task.resolved",
        "run.completed",
    ]


def test_a_subscription_is_told_of_a_step_that_only_passes(engine: Engine) -> None:
    engine.call("subscribe", subscription="all")
    run_id = started(engine, step("go", type="pass"))
    engine.settled()
    told = [row["type"] for row in engine.call("next_events", subscription="all", reader="r:1")]
    assert told == engine.types(run_id)
    assert "step.completed" in told


def test_a_breakpoint_after_a_step_stops_before_its_gates(engine: Engine) -> None:
    define(engine, step("plan", gates=["a"]), breakpoints={"after": ["plan"]})
    run_id = engine.tell("start", flow="f")
    work(engine)
    assert engine.state(run_id) == "paused"
    assert states(engine, run_id)["plan/a"] == "pending"
    engine.call("resume", run_id=run_id)
    assert payload_at(engine, run_id, "plan/a")["output"] == "plan"


@pytest.mark.parametrize("where", ["definition", "start", "set_breakpoint"])
def test_a_flow_stops_at_breakpoints_of_gates(engine: Engine, where: str) -> None:
    stops: Row = {"breakpoints": {"before": ["plan/legal"], "after": ["plan/editor"]}}
    define(engine, gated(), step("build", "plan"), **(stops if where == "definition" else {}))
    run_id = engine.tell("start", flow="f", **(stops if where == "start" else {}))
    if where == "set_breakpoint":
        engine.call("set_breakpoint", run_id=run_id, step="plan/legal")
        engine.call("set_breakpoint", run_id=run_id, step="plan/editor", moment="after")
    work(engine)
    engine.approve(task_of(engine, run_id, "plan/editor"))
    for moment, gate in (("after", "plan/editor"), ("before", "plan/legal")):
        run = engine.run(run_id)
        assert (run["state"], run["pause_reason"]) == ("paused", moment)
        assert run["stands_at"]["step"] == gate
        assert states(engine, run_id)["plan/legal"] == "pending"
        engine.call("resume", run_id=run_id)
    engine.approve(task_of(engine, run_id, "plan/legal"))
    assert ready(engine)["build"].body["input"] == {"plan": "plan"}
    engine.timeline(run_id)


def test_a_breakpoint_of_a_gate_that_a_step_does_not_have_is_refused(engine: Engine) -> None:
    with engine.refused("PF101", "definition.breakpoints.before"):
        define(engine, gated(), breakpoints={"before": ["plan/nobody"]})


def test_a_breakpoint_stops_before_a_step_that_only_passes(engine: Engine) -> None:
    define(engine, step("go", type="pass"), breakpoints={"before": ["go"]})
    run_id = engine.tell("start", flow="f", input='{"a": 1}')
    assert engine.state(run_id) == "paused"
    engine.call("resume", run_id=run_id)
    assert engine.run(run_id)["output"] == {"go": {"a": 1}}


@pytest.mark.parametrize("before", [[], ["go"]])
def test_a_breakpoint_stops_after_a_step_that_only_passes(
    engine: Engine, before: list[str]
) -> None:
    stops = {"before": before, "after": ["go"]}
    define(engine, step("go", type="pass"), step("b", "go"), breakpoints=stops)
    run_id = engine.tell("start", flow="f", input='{"a": 1}')
    for moment in ("before", "after") if before else ("after",):
        run = engine.run(run_id)
        assert (run["state"], run["pause_reason"]) == ("paused", moment)
        assert ready(engine) == {}
        engine.call("resume", run_id=run_id)
    assert ready(engine)["b"].body["input"] == {"go": {"a": 1}}
    engine.timeline(run_id)


def test_a_step_that_only_passes_serves_in_layers_and_with_state_values(engine: Engine) -> None:
    define(
        engine,
        step("a"),
        step("go", "a", type="pass", gates=["x"]),
        step("b", "go"),
        layered=True,
        channels={"seen": {"reducer": "append"}},
    )
    run_id = engine.tell("start", flow="f")
    assert finish(engine) == [["a"]]
    engine.approve(task_of(engine, run_id, "go/x"))
    assert finish(engine) == [["b"]]
    assert engine.state(run_id) == "completed"
    assert set(states(engine, run_id).values()) == {"completed"}


def test_who_goes_back_to_a_step_by_goto_has_its_gates_asked_again(engine: Engine) -> None:
    run_id = started(engine, gated())
    work(engine)
    first = task_of(engine, run_id, "plan/editor")
    engine.approve(first)
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id, command={"goto": "plan"})
    assert work(engine, plan=2) == ["plan"]
    assert task_of(engine, run_id, "plan/editor") != first
    assert states(engine, run_id)["plan/legal"] == "pending"
