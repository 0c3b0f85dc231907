"""add_step: a step is added to a flow that is under way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import (
    define,
    elements,
    finish,
    gate,
    ready,
    started,
    states,
    step,
    step_run,
    task_of,
    values,
    work,
    wrote,
)

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Lease, Row

HOLD = gate("hold")  # so that the flow lives on


def add(engine: Engine, run_id: UUID, name: str, *needs: str, **more: Any) -> bool:
    """Add a step; needed_by and lease_no are arguments of the verb."""
    how = {key: more.pop(key) for key in ("needed_by", "lease_no") if key in more}
    added: bool = engine.tell("add_step", run_id=run_id, step=step(name, *needs, **more), **how)
    return added


def faults(engine: Engine, run_id: UUID, given: Row, **how: Any) -> dict[str, str]:
    """Return the messages of a step that is refused, by field."""
    with engine.refused("PF101") as refused:
        engine.call("add_step", run_id=run_id, step=given, **how)
    told = json.loads(refused.value.diag.message_detail or "")["faults"]
    return {fault["field"]: fault["message"] for fault in told}


def output(engine: Engine, run_id: UUID) -> Any:
    return engine.run(run_id)["output"]


# ---- when it begins


def test_a_step_that_needs_nothing_begins_at_once(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    assert engine.state(run_id) == "waiting_approval"
    assert add(engine, run_id, "new")
    assert engine.state(run_id) == "running"
    assert work(engine) == ["new"]
    assert states(engine, run_id) == {"hold": "waiting", "new": "completed"}
    assert engine.state(run_id) == "waiting_approval"


def test_a_step_whose_needs_have_ended_begins_at_once_with_their_outputs(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    work(engine, a=1)
    add(engine, run_id, "new", "a")
    leases = ready(engine)
    assert sorted(leases) == ["b", "new"]
    assert leases["new"].body["input"] == {"a": 1}


def test_a_step_waits_for_those_of_its_needs_that_have_not_ended(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    work(engine, a=1)
    add(engine, run_id, "new", "a", "b")
    assert finish(engine, b=2, new=3) == [["b"], ["new"]]
    assert engine.state(run_id) == "completed"
    assert output(engine, run_id) == {"new": 3}


def test_a_flow_does_not_end_before_a_step_that_was_added_to_its_last(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    a = ready(engine)["a"]
    add(engine, run_id, "new", "a")
    engine.complete(a, output="1")
    assert engine.state(run_id) == "running"
    assert finish(engine, new=2) == [["new"]]
    assert output(engine, run_id) == {"new": 2}


def test_a_step_can_need_one_that_was_added(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    for name, need in (("b", "a"), ("c", "b"), ("d", "b")):
        add(engine, run_id, name, need)
    add(engine, run_id, "e", "c", "d")
    assert finish(engine) == [["a"], ["b"], ["c", "d"], ["e"]]
    assert list(states(engine, run_id)) == ["a", "b", "c", "d", "e"]
    assert output(engine, run_id) == {"e": "e"}


def test_a_step_that_is_added_while_the_flow_is_paused_begins_when_it_goes_on(
    engine: Engine,
) -> None:
    run_id = started(engine, HOLD)
    engine.call("pause", run_id=run_id)
    add(engine, run_id, "new")
    assert engine.state(run_id) == "paused"
    assert work(engine) == []
    engine.call("resume", run_id=run_id)
    assert work(engine) == ["new"]


def test_a_step_that_only_passes_counts_when_the_paused_flow_goes_on(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    engine.call("pause", run_id=run_id)
    add(engine, run_id, "go", type="pass")
    add(engine, run_id, "ask", "go", type="approval_gate")
    assert states(engine, run_id) == {"hold": "waiting", "go": "completed", "ask": "pending"}
    engine.call("resume", run_id=run_id)
    assert states(engine, run_id)["ask"] == "waiting"
    engine.timeline(run_id)


def test_a_step_that_finds_no_elements_ends_a_paused_flow_when_it_goes_on(engine: Engine) -> None:
    run_id = started(engine, HOLD, input=Jsonb({"list": 1}))
    engine.call("pause", run_id=run_id)
    add(engine, run_id, "each", each="$.list[*]")
    assert states(engine, run_id) == {"hold": "waiting", "each": "failed"}
    assert engine.tell("resume", run_id=run_id) == "failed"
    assert engine.run(run_id)["error_code"] == "E-RUN-019"


def test_what_ended_while_the_flow_was_paused_is_counted_once(engine: Engine) -> None:
    run_id = started(engine, step("a"), HOLD)
    a = ready(engine)["a"]
    engine.call("pause", run_id=run_id)
    engine.complete(a, output="1")
    add(engine, run_id, "new", "a", "hold")
    engine.call("resume", run_id=run_id)
    assert work(engine) == []
    engine.approve(task_of(engine, run_id, "hold"))
    assert work(engine) == ["new"]


def test_a_step_of_a_flow_with_layers_begins_when_those_it_needs_count(engine: Engine) -> None:
    define(engine, step("a"), step("b"), step("c", "a"), layered=True)
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.complete(leases["a"])
    add(engine, run_id, "new", "a")
    assert work(engine) == []
    engine.complete(leases["b"])
    assert finish(engine) == [["c", "new"]]


def test_a_flow_stops_at_a_breakpoint_of_a_step_that_was_added(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    add(engine, run_id, "new", "a")
    engine.call("set_breakpoint", run_id=run_id, step="new")
    assert work(engine) == ["a"]
    assert engine.state(run_id) == "paused"
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["new"]]
    assert engine.state(run_id) == "completed"


# ---- what it can be


def test_a_gate_can_be_added(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    add(engine, run_id, "ok", "a", type="approval_gate", config={"title": "Well?"})
    work(engine)
    assert engine.state(run_id) == "waiting_approval"
    engine.approve(task_of(engine, run_id, "ok"))
    assert engine.state(run_id) == "completed"


def test_a_step_for_each_element_can_be_added(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    work_on = ready(engine)["a"]
    add(engine, run_id, "each", "a", each="$.a[*]")
    engine.complete(work_on, output="[1, 2]")
    leases = elements(engine)
    assert [lease.body["input"] for lease in leases.values()] == [1, 2]
    engine.complete(*leases.values(), outputs=["10", "20"])
    assert output(engine, run_id) == {"each": [10, 20]}


def test_a_flow_can_be_added_as_a_step(engine: Engine) -> None:
    engine.call("define_flow", definition={"name": "inner", "steps": [step("x")]})
    run_id = started(engine, HOLD)
    add(engine, run_id, "sub", type="flow", config={"flow": "inner"})
    inner = step_run(engine, run_id, "sub")
    add(engine, inner, "y", "x")
    assert finish(engine, y=7) == [["x"], ["y"]]
    rows = engine.rows("select output from pgflow.flow_steps where run_id = %s", inner)
    assert rows == [{"output": {"y": 7}}]


def test_a_step_of_a_registered_type_can_be_added_and_the_type_stays(engine: Engine) -> None:
    engine.call("register_step_type", name="mail", default_config=Jsonb({"to": "all"}))
    run_id = started(engine, HOLD)
    add(engine, run_id, "new", type="mail", config={"cc": "us"})
    with engine.refused("PF403"):
        engine.call("unregister_step_type", name="mail")
    lease = ready(engine)["new"]
    assert lease.body["handler"] == "mail"
    assert lease.body["flow"]["config"] == {"to": "all", "cc": "us"}
    engine.call("cancel", run_id=run_id)
    assert engine.tell("unregister_step_type", name="mail")


def test_a_step_that_is_added_has_its_budget(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    add(engine, run_id, "new", budget={"usd": 1})
    lease = ready(engine)["new"]
    engine.record_usage(lease, {"call_key": "a", "cost_usd_total": 2})
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-009"


def test_a_step_that_is_added_is_retried_as_it_says(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    add(engine, run_id, "new", retry={"max_attempts": 2, "base": 60, "factor": 1}, queue="slow")
    engine.worker("w:2", queues=["slow"])
    row = engine.row(step_run(engine, run_id, "new"))
    assert (row["queue"], row["max_attempts"]) == ("slow", 2)


def test_a_step_is_skipped_if_its_condition_is_not_true(engine: Engine) -> None:
    run_id = started(engine, HOLD, input=Jsonb({"n": 1}))
    add(engine, run_id, "new", when="$input.n > 1")
    assert states(engine, run_id)["new"] == "skipped"
    assert engine.state(run_id) == "waiting_approval"


def test_a_step_that_fails_ends_the_flow(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    add(engine, run_id, "new")
    work(engine, fail=("new",))
    assert engine.state(run_id) == "failed"
    assert states(engine, run_id) == {"hold": "cancelled", "new": "failed"}


def test_a_step_may_run_one_of_the_flow_or_one_that_was_added_when_it_fails(
    engine: Engine,
) -> None:
    run_id = started(engine, step("a"), step("mend", "a", join="one_failed"), HOLD)
    add(engine, run_id, "new", on_failure={"run": "mend"})
    assert work(engine, fail=("new",)) == ["a", "new"]
    assert finish(engine) == [["mend"]]
    add(engine, run_id, "late", on_failure="continue")
    add(engine, run_id, "rescue", "late", join="one_failed")
    assert work(engine, fail=("late",)) == ["late"]
    assert finish(engine) == [["rescue"]]


# ---- steps that are to need it


def test_a_step_that_has_not_begun_can_be_made_to_need_it(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    add(engine, run_id, "new", needed_by=["b"])
    leases = ready(engine)
    assert sorted(leases) == ["a", "new"]
    engine.complete(leases["a"], output="1")
    assert work(engine) == []
    engine.complete(leases["new"], output="2")
    assert ready(engine)["b"].body["input"] == {"a": 1, "new": 2}


def test_a_step_can_be_put_between_two(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    add(engine, run_id, "new", "a", needed_by=["b"])
    assert finish(engine) == [["a"], ["new"], ["b"]]
    assert engine.state(run_id) == "completed"


def test_a_step_that_has_begun_cannot_be_made_to_need_another(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    work(engine)
    told = faults(engine, run_id, step("new"), needed_by=["b", "c"])
    assert told["needed_by"] in {
        "step new: needed_by names b, which is running already",
        "step new: needed_by names c, which is no step of this flow",
    }
    told = faults(engine, run_id, step("new", on_failure={"run": "b"}))
    assert told["on_failure"] == "step new: on_failure names b, which is running already"


@pytest.mark.parametrize(
    ("needs", "needed_by", "way"),
    [
        (["b"], ["b"], "b -> new -> b"),
        (["c"], ["b"], "b -> c -> new -> b"),
        (["d"], ["b", "hold"], "b -> d -> new -> b"),
    ],
)
def test_a_step_that_would_wait_for_itself_is_refused(
    engine: Engine, needs: list[str], needed_by: list[str], way: str
) -> None:
    run_id = started(engine, step("a"), step("b", "a"), step("c", "b"), HOLD)
    add(engine, run_id, "d", "c")
    how = {"needed_by": [name for name in needed_by if name != "hold"]}
    told = faults(engine, run_id, step("new", *needs), **how)
    (message,) = [m for m in told.values() if "waits for itself" in m]
    around = message.split("waits for itself: ")[1].split(" -> ")
    assert around[0] == around[-1]
    assert sorted(around[1:]) == sorted(way.split(" -> ")[1:])
    told = faults(engine, run_id, step("new", "new"))
    assert "waits for itself: new -> new" in told["step.needs"]


# ---- what is refused


def test_all_faults_are_told_at_once_and_nothing_is_added(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    before = engine.timeline(run_id)
    told = faults(
        engine,
        run_id,
        step("hold", "nobody", type="odd", timeout=-1, size=3, each="$.x"),
        needed_by=["nobody"],
    )
    assert told["step.name"] == "step hold: another step has this name"
    assert told["step.needs"] == "step hold: needs nobody, which is no step of this flow"
    assert told["step.size"] == "step hold: size is no member of a step"
    assert {"step.type", "step.timeout", "step.each", "needed_by"} <= set(told)
    assert engine.timeline(run_id) == before
    assert states(engine, run_id) == {"hold": "waiting"}


def test_a_step_without_a_name_is_refused(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    assert "step.name" in faults(engine, run_id, {"needs": ["hold"]})


@pytest.mark.parametrize("given", [[], "a", None, 1])
def test_what_is_no_object_is_refused(engine: Engine, given: object) -> None:
    run_id = started(engine, HOLD)
    with engine.refused("PF101", "step"):
        engine.call("add_step", run_id=run_id, step=Jsonb(given))


def test_a_step_that_is_too_large_is_refused(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    with engine.refused("PF101", "step"):
        add(engine, run_id, "new", config={"noise": [str(uuid4()) for _ in range(40000)]})


def test_a_schema_and_a_flow_that_are_not_there_are_refused(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    with engine.refused("PF110", "step.artifact.schema"):
        add(engine, run_id, "new", artifact={"name": "x", "schema": "nobody"})
    told = faults(engine, run_id, step("new", type="flow", config={"flow": "nobody"}))
    assert "must be a flow of this project" in told["step.config.flow"]
    told = faults(engine, run_id, step("new", type="flow", config={"flow": "f"}))
    assert "does not begin f again" in told["step.config.flow"]


def test_steps_are_added_to_live_flows_only(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    lease = ready(engine)["a"]
    with engine.refused("PF101", "run_id"):
        add(engine, lease.run_id, "new")
    engine.complete(lease)
    with engine.refused("PF202", "run_id"):
        add(engine, run_id, "new")
    with engine.refused("PF102", "run_id"):
        add(engine, uuid4(), "new")


def test_the_same_step_again_is_harmless(engine: Engine) -> None:
    run_id = started(engine, HOLD, step("b", "hold"), step("c", "hold"))
    assert add(engine, run_id, "new", needed_by=["c", "b"], config={})
    assert not add(engine, run_id, "new", needed_by=["b", "c"], handler="new")
    work(engine)
    assert not add(engine, run_id, "new", needed_by=["b", "c"])
    engine.approve(task_of(engine, run_id, "hold"))
    assert work(engine) == ["b", "c"]
    assert engine.types(run_id).count("step.added") == 1


@pytest.mark.parametrize(
    "other",
    [step("new", config={"x": 1}), step("new", "hold"), step("new", on_failure="continue")],
    ids=["config", "needs", "on_failure"],
)
def test_another_step_of_the_same_name_is_refused(engine: Engine, other: Row) -> None:
    run_id = started(engine, HOLD)
    add(engine, run_id, "new")
    told = {"step.name": "step new: another step has this name"}
    assert faults(engine, run_id, other) == told
    work(engine)
    assert faults(engine, run_id, other) == told


# ---- under a lease


def test_a_step_adds_to_its_flow_as_long_as_it_holds_its_lease(engine: Engine) -> None:
    run_id = started(engine, step("plan"))
    plan = ready(engine)["plan"]
    assert add(engine, plan.run_id, "new", "plan", lease_no=plan.lease_no)
    engine.fail(plan)
    engine.later(hours=1)
    engine.tick()
    again = engine.lease_of(plan.run_id)
    with engine.refused("PF301", "lease_no"):
        add(engine, plan.run_id, "late", lease_no=plan.lease_no)
    assert not add(engine, plan.run_id, "new", "plan", lease_no=again.lease_no)
    engine.complete(again)
    with engine.refused("PF301", "lease_no"):
        add(engine, plan.run_id, "late", lease_no=again.lease_no)
    assert finish(engine) == [["new"]]
    assert states(engine, run_id) == {"plan": "completed", "new": "completed"}
    (told,) = [e for e in engine.timeline(run_id) if e["type"] == "step.added"]
    assert (told["step"], told["payload"]) == ("new", {"needs": ["plan"], "by_step": "plan"})


def test_a_run_that_is_no_step_has_no_flow_to_add_to(engine: Engine) -> None:
    lease = engine.leased()
    with engine.refused("PF101", "run_id"):
        add(engine, lease.run_id, "new", lease_no=lease.lease_no)
    with engine.refused("PF301", "lease_no"):
        add(engine, uuid4(), "new", lease_no=1)


# ---- what there is to see


def test_the_version_and_its_other_runs_stay_as_they_were(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    other = started(engine, step("a"), step("b", "a"))
    assert engine.run(run_id)["flow_version"] == engine.run(other)["flow_version"]
    add(engine, run_id, "new", "a", needed_by=["b"])
    assert states(engine, other) == {"a": "pending", "b": "pending"}
    needs = "select needs from pgflow.flow_steps where flow_run_id = %s and step = 'b'"
    assert engine.value(needs, other) == ["a"]
    assert engine.value(needs, run_id) == ["a", "new"]
    finish(engine)
    assert engine.state(run_id) == engine.state(other) == "completed"
    assert states(engine, run_id) == dict.fromkeys(("a", "b", "new"), "completed")
    assert engine.value(needs, run_id) == ["a", "new"]


def test_the_report_has_steps_that_were_added(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    add(engine, run_id, "new", "a")
    finish(engine)
    report = engine.tell("report", run_id=run_id)
    assert [s["key"] for s in report["steps"]] == ["a", "new"]


def test_the_doctor_warns_of_handlers_that_added_steps_want_and_no_worker_has(
    engine: Engine,
) -> None:
    run_id = started(engine, HOLD)
    engine.worker(handlers=[{"handler": "there"}])
    add(engine, run_id, "new", "hold", handler="there")
    add(engine, run_id, "odd", "hold", handler="nowhere")
    asked = "select detail from pgflow.doctor() where \"check\" = 'handler of a flow unknown'"
    found = [line["detail"] for line in engine.rows(asked) if "run" in line["detail"].split()]
    assert found == [
        f"step odd of run {run_id} wants handler nowhere, which no worker has registered"
    ]
    engine.call("cancel", run_id=run_id)
    assert str(run_id) not in str(engine.rows(asked))


def test_what_a_step_that_was_added_writes_is_in_the_state(engine: Engine) -> None:
    define(engine, step("a"), HOLD, channels={"x": {"reducer": "append"}})
    run_id = engine.tell("start", flow="f")
    add(engine, run_id, "new", "a")
    wrote(engine, ready(engine)["a"], x=1)
    wrote(engine, ready(engine)["new"], x=2)
    assert values(engine, run_id) == {"x": [1, 2]}
    assert [c["steps"] for c in engine.call("history", run_id=run_id)] == [["a"], ["new"]]


def test_a_flow_that_names_its_output_returns_that(engine: Engine) -> None:
    run_id = started(engine, step("a"), output={"first": "a"})
    add(engine, run_id, "new", "a")
    finish(engine, a=1)
    assert output(engine, run_id) == {"first": 1}


# ---- back, over, again


def test_a_flow_that_goes_back_does_added_steps_again(engine: Engine) -> None:
    run_id = started(engine, step("a"), gate("ok", "a"))
    add(engine, run_id, "new", "a", needed_by=["ok"])
    assert finish(engine) == [["a"], ["new"]]
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="a")
    assert finish(engine) == [["a"], ["new"]]
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="new")
    assert finish(engine) == [["new"]]
    engine.approve(task_of(engine, run_id, "ok"))
    assert engine.state(run_id) == "completed"
    lines = engine.rows(
        "select version, state from pgflow.flow_steps where flow_run_id = %s and step = 'new'"
        " order by version",
        run_id,
    )
    assert [(line["version"], line["state"]) for line in lines] == [
        (0, "voided"),
        (1, "voided"),
        (2, "completed"),
    ]


def test_a_flow_can_be_sent_to_a_step_that_was_added(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    add(engine, run_id, "new", "b")
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id, command=Jsonb({"goto": "new"}))
    assert states(engine, run_id) == {"a": "skipped", "b": "skipped", "new": "pending"}
    assert finish(engine) == [["new"]]
    assert engine.state(run_id) == "completed"


def test_a_flow_that_is_retried_has_the_steps_that_were_added(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"), step("z", "b"))
    add(engine, run_id, "new", "a", needed_by=["b"])
    add(engine, run_id, "more", "new", needed_by=["z"])
    work(engine, a=1)
    work(engine, fail=("new",))
    assert engine.state(run_id) == "failed"
    again = engine.tell("retry", run_id=run_id)
    assert list(states(engine, again)) == ["a", "b", "z", "new", "more"]
    new = ready(engine)["new"]
    assert new.body["input"] == {"a": 1}
    assert not add(engine, again, "more", "new", needed_by=["z"])
    engine.complete(new)
    assert finish(engine) == [["b", "more"], ["z"]]
    assert engine.state(again) == "completed"


def test_a_step_that_was_added_is_done_again_by_itself(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    add(engine, run_id, "new", on_failure="continue")
    add(engine, run_id, "after", "new", join="none_failed")
    failed = step_run(engine, run_id, "new")
    work(engine, fail=("new",))
    assert states(engine, run_id)["after"] == "skipped"
    engine.call("retry", run_id=failed)
    assert finish(engine) == [["new"], ["after"]]


def test_a_fork_has_what_was_added_before_the_moment_from_which_it_begins(engine: Engine) -> None:
    run_id = started(engine, step("plan"), step("end", "plan"))
    plan = ready(engine)["plan"]
    add(engine, plan.run_id, "new", "plan", needed_by=["end"], lease_no=plan.lease_no)
    add(engine, run_id, "skipped", when="1 == 2")
    engine.complete(plan)
    assert finish(engine) == [["new"], ["end"]]
    before = engine.tell("fork", run_id=run_id, super_step=0)
    assert states(engine, before) == {"plan": "pending", "end": "pending"}
    plan = ready(engine)["plan"]
    assert add(engine, plan.run_id, "skipped", "plan", lease_no=plan.lease_no)
    engine.complete(plan)
    assert finish(engine) == [["end", "skipped"]]
    after = engine.tell("fork", run_id=run_id, super_step=1)
    assert states(engine, after) == {
        "plan": "completed",
        "end": "pending",
        "new": "pending",
        "skipped": "skipped",
    }
    assert finish(engine) == [["new"], ["end"]]
    assert engine.state(after) == "completed"


# ---- what was added by a step that counts no more


def plan(engine: Engine, **parts: Any) -> None:
    """Do the step `plan`, which adds parts, each of them needed by the gate."""
    lease = ready(engine)["plan"]
    for name, needs in parts.items():
        how = {"lease_no": lease.lease_no, "needed_by": ["ok"]}
        assert add(engine, lease.run_id, name, *needs, **how)
    engine.complete(lease)


def test_a_step_that_is_done_again_plans_anew(engine: Engine) -> None:
    run_id = started(engine, step("plan"), gate("ok", "plan"), step("end", "ok"))
    plan(engine, x=["plan"], y=[], z=["x"])
    add(engine, run_id, "check", "z", needed_by=["ok"])
    add(engine, run_id, "side")
    assert finish(engine) == [["side", "x", "y"], ["z"], ["check"]]
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="plan")
    assert list(states(engine, run_id)) == ["plan", "ok", "end", "side"]
    plan(engine, x=[], w=["plan"])
    assert finish(engine) == [["w", "x"]]
    engine.approve(task_of(engine, run_id, "ok"))
    assert finish(engine) == [["end"]]
    assert engine.state(run_id) == "completed"
    lines = engine.rows(
        "select step, state from pgflow.flow_steps where flow_run_id = %s and state = 'voided'"
        " order by step",
        run_id,
    )
    assert [line["step"] for line in lines] == ["check", "plan", "x", "y", "z"]


def test_the_history_has_what_ended_before_its_adder_was_done_again(engine: Engine) -> None:
    run_id = started(engine, step("plan"), gate("ok", "plan"))
    plan(engine, x=["plan"])
    assert finish(engine) == [["x"]]
    before = engine.call("history", run_id=run_id)
    assert [line["steps"] for line in before] == [["plan"], ["x"]]
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="plan")
    assert engine.call("history", run_id=run_id) == before


def test_a_step_that_runs_ends_when_the_one_that_added_it_is_done_again(engine: Engine) -> None:
    run_id = started(engine, step("plan"), gate("ok", "plan"))
    lease = ready(engine)["plan"]
    add(engine, lease.run_id, "x", lease_no=lease.lease_no)
    engine.complete(lease)
    x = ready(engine)["x"]
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="plan")
    assert engine.complete(x)[0]["outcome"] == "lost"
    assert list(states(engine, run_id)) == ["plan", "ok"]
    assert finish(engine) == [["plan"]]
    engine.approve(task_of(engine, run_id, "ok"))
    assert engine.state(run_id) == "completed"


def test_a_flow_that_goes_back_behind_the_planning_keeps_the_plan(engine: Engine) -> None:
    run_id = started(engine, step("plan"), gate("ok", "plan"))
    plan(engine, x=["plan"])
    assert work(engine) == ["x"]
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="x")
    assert states(engine, run_id) == {"plan": "completed", "ok": "pending", "x": "pending"}
    assert finish(engine) == [["x"]]


def test_a_retry_plans_anew_only_if_the_planning_did_not_complete(engine: Engine) -> None:
    run_id = started(engine, step("plan"), gate("ok", "plan"))
    plan(engine, x=["plan"])
    add(engine, run_id, "client")
    work(engine, fail=("x",))
    again = engine.tell("retry", run_id=run_id)
    assert list(states(engine, again)) == ["plan", "ok", "x", "client"]
    engine.call("cancel", run_id=again)
    run_id = started(engine, step("plan"), gate("ok", "plan"))
    lease = ready(engine)["plan"]
    add(engine, lease.run_id, "x", lease_no=lease.lease_no)
    add(engine, run_id, "y", "x")
    add(engine, run_id, "client")
    assert work(engine) == ["client", "x"]
    engine.fail(lease, retries=[False])
    again = engine.tell("retry", run_id=run_id)
    assert list(states(engine, again)) == ["plan", "ok", "client"]
    assert states(engine, again)["client"] == "completed"
    plan(engine, x=["plan"])
    assert finish(engine) == [["x"]]


def add_pages(engine: Engine) -> dict[int, Lease]:
    """Have each element that is ready add a page, the first an index behind them; return them."""
    leases = elements(engine)
    for number, lease in leases.items():
        add(engine, lease.run_id, f"page-{number}", lease_no=lease.lease_no)
    if 1 in leases:
        add(engine, leases[1].run_id, "index", "each", lease_no=leases[1].lease_no)
    return leases


def test_a_retry_keeps_what_the_elements_added_that_it_keeps(engine: Engine) -> None:
    run_id = started(engine, step("each", each="$[*]"), input=Jsonb(["a", "b"]))
    leases = add_pages(engine)
    engine.complete(leases[1])
    engine.fail(leases[2], retries=[False])
    again = engine.tell("retry", run_id=run_id)
    assert list(states(engine, again)) == ["each", "page-1", "index"]
    left = ready(engine)
    assert sorted(left) == ["each", "page-1"]
    lease = left["each"]
    assert add(engine, lease.run_id, "page-2", lease_no=lease.lease_no)
    engine.complete(*left.values())
    assert finish(engine) == [["index", "page-2"]]
    assert engine.state(again) == "completed"


def test_a_step_that_is_retried_keeps_what_the_elements_added_that_it_keeps(
    engine: Engine,
) -> None:
    each = step("each", each="$[*]", on_failure="continue")
    run_id = started(engine, HOLD, each, input=Jsonb(["a", "b"]))
    leases = add_pages(engine)
    assert work(engine) == ["page-1", "page-2"]
    engine.complete(leases[1])
    engine.fail(leases[2], retries=[False])
    assert states(engine, run_id)["index"] == "skipped"
    engine.tell("retry", run_id=leases[2].run_id)
    left = states(engine, run_id)
    assert list(left) == ["hold", "each", "page-1", "index"]
    assert (left["page-1"], left["index"]) == ("completed", "pending")
    engine.complete(*add_pages(engine).values())
    assert finish(engine) == [["index", "page-2"]]


def test_a_flow_that_goes_back_to_a_step_keeps_nothing_that_its_elements_added(
    engine: Engine,
) -> None:
    run_id = started(engine, step("each", each="$[*]"), gate("ok", "each"), input=Jsonb(["a"]))
    engine.complete(*add_pages(engine).values())
    assert work(engine) == ["index", "page-1"]
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="each")
    assert list(states(engine, run_id)) == ["each", "ok"]


def test_a_retry_leaves_out_what_a_step_added_that_it_leaves_out(engine: Engine) -> None:
    run_id = started(engine, step("plan"))
    lease = ready(engine)["plan"]
    add(engine, lease.run_id, "x", lease_no=lease.lease_no)
    x = ready(engine)["x"]
    add(engine, x.run_id, "y", lease_no=x.lease_no)
    engine.complete(x)
    assert work(engine) == ["y"]
    engine.fail(lease, retries=[False])
    again = engine.tell("retry", run_id=run_id)
    assert states(engine, again) == {"plan": "pending"}


def test_a_step_that_was_to_need_another_and_is_planned_anew_waits_for_what_it_needs_now(
    engine: Engine,
) -> None:
    run_id = started(engine, step("plan"))
    lease = ready(engine)["plan"]
    add(engine, lease.run_id, "x", "plan", lease_no=lease.lease_no)
    add(engine, run_id, "client", needed_by=["x"])
    engine.fail(lease, retries=[False])
    again = engine.tell("retry", run_id=run_id)
    assert states(engine, again) == {"plan": "pending", "client": "pending"}
    leases = ready(engine)
    lease = leases["plan"]
    add(engine, lease.run_id, "x", "plan", lease_no=lease.lease_no)
    engine.complete(leases["client"])
    assert ready(engine) == {}
    engine.complete(lease, output="1")
    assert ready(engine)["x"].body["input"] == {"plan": 1}


def test_a_fork_from_before_the_end_of_the_planning_plans_anew(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("plan"), gate("ok", "plan"))
    leases = ready(engine)
    lease = leases["plan"]
    add(engine, lease.run_id, "x", lease_no=lease.lease_no)
    engine.complete(leases["a"])
    assert work(engine) == ["x"]
    engine.complete(lease)
    fork_id = engine.tell("fork", run_id=run_id, super_step=2)
    assert states(engine, fork_id) == {"a": "completed", "plan": "pending", "ok": "pending"}
    fork_id = engine.tell("fork", run_id=run_id, super_step=3)
    assert states(engine, fork_id) == {
        "a": "completed",
        "plan": "completed",
        "ok": "waiting",
        "x": "completed",
    }


def test_a_fork_has_what_a_step_added_that_failed_and_is_not_done_again(engine: Engine) -> None:
    run_id = started(engine, step("plan", on_failure="continue"), HOLD)
    lease = ready(engine)["plan"]
    add(engine, lease.run_id, "x", lease_no=lease.lease_no)
    engine.fail(lease, retries=[False])
    assert work(engine) == ["x"]
    fork_id = engine.tell("fork", run_id=run_id, super_step=2)
    assert states(engine, fork_id) == {"plan": "failed", "hold": "waiting", "x": "completed"}


def test_added_steps_go_with_their_run(engine: Engine) -> None:
    engine.call("define_queue", queue="default", retention="1 hour")
    run_id = started(engine, step("a"))
    add(engine, run_id, "new", "a")
    finish(engine)
    count = "select count(*) from pgflow.run_step where run_id = %s"
    assert engine.value(count, run_id) == 2
    engine.later(hours=2)
    engine.settled()
    for _ in range(50):
        engine.call("maintain")
    assert engine.value(count, run_id) == 0


# ---- gates


@pytest.mark.parametrize("join", ["all", "any"])
def test_a_step_that_needs_one_with_gates_waits_for_those(engine: Engine, join: str) -> None:
    run_id = started(engine, step("plan", gates=["editor", "legal"]), HOLD)
    work(engine, plan=1)
    add(engine, run_id, "new", "plan", join=join)
    engine.approve(task_of(engine, run_id, "plan/editor"))
    assert work(engine) == []
    engine.approve(task_of(engine, run_id, "plan/legal"))
    assert ready(engine)["new"].body["input"] == {"plan": 1}


def test_a_step_that_is_added_has_no_gates_of_its_own(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    found = faults(engine, run_id, step("new", gates=["editor"]))
    assert "add a step of type approval_gate" in found["step.gates"]
    assert states(engine, run_id) == {"hold": "waiting"}


# ---- roles


def test_the_role_of_a_step_that_is_added_is_bound_when_it_is(engine: Engine) -> None:
    run_id = started(engine, HOLD)
    found = refused_role(engine, run_id)
    assert "role planner is bound to no agent" in found
    engine.call("define_agent", name="planner", model="large-1")
    add(engine, run_id, "new", role="planner")
    engine.call("define_agent", name="planner", model="large-2")
    binding = ready(engine)["new"].body["flow"]["binding"]
    assert (binding["agent"], binding["version"], binding["model"]) == ("planner", 1, "large-1")


def test_a_role_that_is_bound_already_stays_bound(engine: Engine) -> None:
    engine.call("define_agent", name="other", model="small")
    run_id = started(engine, step("a", role="planner"), bindings={"planner": "other"})
    engine.call("define_agent", name="planner", model="large")
    add(engine, run_id, "new", role="planner")
    leases = ready(engine)
    models = {name: leases[name].body["flow"]["binding"]["model"] for name in leases}
    assert models == {"a": "small", "new": "small"}


def refused_role(engine: Engine, run_id: UUID) -> str:
    with engine.refused("PF112") as refused:
        add(engine, run_id, "new", role="planner")
    return str(refused.value)
