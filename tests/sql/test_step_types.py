"""Step types: registered at any time, and kept by each version as they were."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import define, gate, ready, started, states, step, task_of, work

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Row

FORM = {"type": "object", "properties": {"words": {"type": "integer"}}, "required": ["words"]}


def register(engine: Engine, name: str = "t", **what: Any) -> Row:
    """Register a step type and return it."""
    (row,) = engine.call("register_step_type", name=name, **what)
    return row


def asking(engine: Engine, **what: Any) -> Row:
    """Register a type that a person does."""
    return register(engine, interactive=True, **what)


def typed(name: str = "s", *needs: str, **config: Any) -> Row:
    """Return a step of type t."""
    return step(name, *needs, type="t", **({"config": config} if config else {}))


def asked(engine: Engine, *steps: Row) -> Row:
    """Start a flow of these steps and return the only task that it asks for."""
    run_id = started(engine, *steps)
    return engine.one("select * from pgflow.inbox where flow_run_id = %s", run_id)


def faults(engine: Engine, *steps: Row) -> dict[str, str]:
    """Return the messages of steps that are refused, by field."""
    with engine.refused("PF101") as refused:
        define(engine, *steps)
    told = json.loads(refused.value.diag.message_detail or "")["faults"]
    return {fault["field"].removeprefix("definition."): fault["message"] for fault in told}


# ---- registering


def test_a_type_is_registered_and_listed_beside_the_engines_own(engine: Engine) -> None:
    register(engine, handler="h", default_config={"n": 1}, description="counts")
    rows = engine.rows("select * from pgflow.step_types where project_id = 'default'")
    named = {row["name"]: row for row in rows}
    assert {name for name, row in named.items() if row["is_built_in"]} == {
        "approval_gate",
        "flow",
        "human_task",
        "pass",
        "timer",
        "wait_event",
    }
    row = named["t"]
    assert (row["handler"], row["interactive"], row["default_config"]) == ("h", False, {"n": 1})
    assert row["registered_by"] == engine.value("select session_user")


def test_the_same_again_changes_nothing(engine: Engine) -> None:
    register(engine, default_config={"n": 1})
    engine.later(seconds=5)
    before = engine.place.rows()
    register(engine, default_config={"n": 1})
    assert engine.place.rows() == before


def test_a_type_without_a_handler_is_executed_by_that_of_its_name(engine: Engine) -> None:
    assert register(engine)["handler"] == "t"


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ({}, "approval_gate"),
        ({"form_schema": FORM}, "human_task"),
        ({"form_schema": FORM, "kind": "approval_gate"}, "approval_gate"),
        ({"kind": "human_task"}, "human_task"),
    ],
    ids=str,
)
def test_what_a_person_is_asked_follows_from_the_form_unless_it_is_said(
    engine: Engine, what: Row, kind: str
) -> None:
    assert asking(engine, **what)["kind"] == kind


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("name", {"name": "a b"}),
        ("name", {"name": None}),
        ("name", {"name": "timer"}),
        ("name", {"name": "handler"}),
        ("interactive", {"interactive": None}),
        ("handler", {"handler": ""}),
        ("handler", {"handler": "h", "interactive": True}),
        ("kind", {"kind": "approval_gate"}),
        ("kind", {"kind": "timer", "interactive": True}),
        ("form_schema", {"form_schema": FORM}),
        ("form_schema", {"form_schema": {"type": "thing"}, "interactive": True}),
        ("default_due", {"default_due": timedelta(hours=1)}),
        ("default_due", {"default_due": timedelta(0), "interactive": True}),
        ("default_due", {"default_due": timedelta(days=4000), "interactive": True}),
        ("default_policy", {"default_policy": "cancel"}),
        ("default_policy", {"default_policy": "shrug", "interactive": True}),
        ("default_config", {"default_config": Jsonb([])}),
        ("default_config", {"default_config": {"due_in": 5}, "interactive": True}),
        ("default_config", {"default_config": {"colour": "red"}, "interactive": True}),
        ("default_config", {"default_policy": "escalate", "interactive": True}),
        (
            "default_config",
            {"default_policy": "approve", "kind": "human_task", "interactive": True},
        ),
        (
            "default_config",
            {"default_config": {"assignee": "a", "assignee_id": "b"}, "interactive": True},
        ),
        ("description", {"description": "d" * 10001}),
    ],
    ids=str,
)
def test_what_no_type_may_say_is_refused(engine: Engine, field: str, what: Row) -> None:
    with engine.refused("PF101") as refused:
        register(engine, **what)
    assert (refused.value.diag.column_name or "").split(".")[0] == field


def test_projects_have_types_of_their_own(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    engine.tell("create_project", project="ours")
    register(engine, project="ours")
    stranger = connect(make_role("pgflow_client"))
    rows = stranger.rows("select distinct project_id, name from pgflow.step_types")
    assert {row["project_id"] for row in rows} == {"default"}
    assert "t" not in {row["name"] for row in rows}
    with stranger.refused("PF502"):
        register(stranger, project="ours")
    assert faults(engine, typed())


# ---- steps of a type


def test_a_step_of_an_automatic_type_is_executed_by_its_handler(engine: Engine) -> None:
    register(engine, handler="h", default_config={"n": 1, "m": {"x": 1, "y": 2}})
    run_id = started(engine, typed(m={"x": 3}))
    lease = ready(engine)["s"]
    assert lease.body["handler"] == "h"
    flow = lease.body["flow"]
    assert (flow["step_type"], flow["config"]) == ("t", {"n": 1, "m": {"x": 3}})
    row = engine.one("select * from pgflow.flow_steps where flow_run_id = %s", run_id)
    assert (row["type"], row["handler"]) == ("t", "h")


def test_a_step_of_an_interactive_type_asks_as_the_type_says(engine: Engine) -> None:
    asking(
        engine,
        form_schema=FORM,
        default_due=timedelta(hours=2),
        default_policy="timeout",
        default_config={"title": "Count", "assignee_role": "clerks"},
    )
    task = asked(engine, typed())
    assert (task["kind"], task["title"], task["form_schema"]) == ("form", "Count", FORM)
    assert task["due_at"] == engine.now + timedelta(hours=2)
    assert (task["policy"], task["assignee_role"], task["assignee"]) == ("timeout", "clerks", None)


@pytest.mark.parametrize("built_in", [False, True], ids=["registered", "built-in"])
def test_the_config_of_a_step_has_the_last_word(engine: Engine, *, built_in: bool) -> None:
    other = {"type": "object", "properties": {"lines": {"type": "integer"}}}
    asking(
        engine,
        form_schema=FORM,
        default_due=timedelta(hours=2),
        default_policy="timeout",
        default_config={"assignee_role": "clerks"},
    )
    config: Row = {
        "assignee_role": "scribes",
        "assignee_id": "ann",
        "form_schema": other,
        "timeout_hours": 0.5,
        "policy": "cancel",
    }
    given = step("s", type="human_task", config=config) if built_in else typed(**config)
    task = asked(engine, given)
    assert (task["assignee_role"], task["assignee"]) == ("scribes", "ann")
    assert (task["form_schema"], task["policy"]) == (other, "cancel")
    assert task["due_at"] == engine.now + timedelta(minutes=30)


def test_a_step_may_have_no_deadline_where_its_type_has_one(engine: Engine) -> None:
    asking(engine, default_due=timedelta(hours=2))
    assert asked(engine, typed(timeout_hours=None))["due_at"] is None


def test_the_decision_about_a_step_of_a_type_is_its_output(engine: Engine) -> None:
    asking(engine)
    run_id = started(engine, typed(), step("next", "s"))
    engine.approve(task_of(engine, run_id, "s"))
    assert ready(engine)["next"].body["input"]["s"]["action"] == "approved"


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        (
            step("b", type="nope"),
            "type",
            "step b: type must be approval_gate, flow, human_task, pass, timer, wait_event, auto",
        ),
        (step("b", type=3), "type", "step b: type must be the name of a step type"),
        (
            step("b", type="auto", handler="h"),
            "handler",
            "step b: handler must be left out: type auto says it",
        ),
        (step("b", type="t", handler="h"), "handler", "step b: handler must be left out: no"),
        (step("b", type="t", config=[1]), "config", "step b: config must be an object"),
        (step("b", type="t", config={"x": 1}), "config", "step b: config must be an object of"),
        (
            gate("b", timeout_hours=0),
            "config.timeout_hours",
            "step b: config.timeout_hours must be hours, more than 0 and at most 87600, or null",
        ),
        (typed("b", timeout_hours="1"), "config.timeout_hours", "step b: config.timeout_hours"),
        (typed("b", timeout_hours=1, due_in=5), "config.timeout_hours", "step b: config.timeout_h"),
        (gate("b", assignee="a", assignee_id="b"), "config.assignee_id", "step b: config.assignee"),
        (gate("b", form={}, form_schema={}), "config.form_schema", "step b: config.form_schema"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_typed_step_is_told_with_its_name(
    engine: Engine, given: Row, field: str, message: str
) -> None:
    asking(engine)
    register(engine, "auto")
    told = faults(engine, step("a"), given)
    assert told[f"steps[1].{field}"].startswith(message)


# ---- versions


def test_the_same_text_with_a_changed_type_is_another_version(engine: Engine) -> None:
    register(engine, handler="one")
    first = define(engine, typed())
    assert define(engine, typed())["version"] == first["version"]
    register(engine, handler="other")
    second = define(engine, typed())
    assert second["version"] == first["version"] + 1
    assert second["definition"] == first["definition"]
    rows = engine.rows(
        "select step_types from pgflow.flows where flow = 'f' and version >= %s order by version",
        first["version"],
    )
    assert [row["step_types"]["t"]["handler"] for row in rows] == ["one", "other"]
    register(engine, handler="one")
    assert define(engine, typed())["version"] == first["version"]


def test_a_type_that_is_described_otherwise_makes_no_version(engine: Engine) -> None:
    register(engine, description="one")
    first = define(engine, typed())
    register(engine, description="other")
    assert define(engine, typed())["version"] == first["version"]


def test_a_run_keeps_what_its_types_said(engine: Engine) -> None:
    register(engine, handler="one")
    run_id = started(engine, step("a"), typed("s", "a"))
    register(engine, handler="other")
    define(engine, step("a"), typed("s", "a"))
    work(engine)
    assert ready(engine)["s"].body["handler"] == "one"
    assert states(engine, run_id) == {"a": "completed", "s": "running"}


# ---- unregistering


def test_a_type_that_nobody_needs_goes(engine: Engine) -> None:
    register(engine)
    assert engine.tell("unregister_step_type", name="t") is True
    assert engine.tell("unregister_step_type", name="t") is False
    assert faults(engine, typed("b"))["steps[0].type"].startswith("step b: type must be")


def test_a_type_that_the_current_version_of_a_flow_names_stays(engine: Engine) -> None:
    register(engine)
    version = define(engine, typed())["version"]
    with engine.refused("PF403", "name") as refused:
        engine.call("unregister_step_type", name="t")
    assert refused.value.diag.message_detail == f"flow f, version {version}"
    define(engine, step("a"))
    assert engine.tell("unregister_step_type", name="t") is True


def test_a_type_that_a_live_run_needs_stays_until_its_end(engine: Engine) -> None:
    register(engine)
    run_id = started(engine, typed())
    define(engine, step("a"))
    with engine.refused("PF403", "name") as refused:
        engine.call("unregister_step_type", name="t")
    assert str(run_id) in (refused.value.diag.message_detail or "")
    work(engine)
    assert engine.state(run_id) == "completed"
    assert engine.tell("unregister_step_type", name="t") is True


def test_the_engines_own_types_stay(engine: Engine) -> None:
    with engine.refused("PF101", "name"):
        engine.call("unregister_step_type", name="timer")
