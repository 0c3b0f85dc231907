"""Definitions of flows: checked whole, stored once per content, never changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import define, started, step

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Row

DIAMOND = (step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))


def faults(engine: Engine, definition: object) -> dict[str, str]:
    """Return the messages of a definition that is refused, by field."""
    with engine.refused("PF101") as refused:
        engine.call("define_flow", definition=Jsonb(definition))
    said = refused.value.diag
    told = json.loads(said.message_detail or "")["faults"]
    assert (said.column_name, said.message_primary) == (told[0]["field"], told[0]["message"])
    return {fault["field"]: fault["message"] for fault in told}


def test_a_definition_is_stored_as_a_version(engine: Engine) -> None:
    version = define(engine, *DIAMOND, name="new")
    assert (version["flow"], version["version"]) == ("new", 1)
    row = engine.one("select * from pgflow.flows where flow = 'new'")
    assert (row["is_current"], row["steps"]) == (True, 4)
    assert row["sha256"] == bytes(version["sha256"]).hex()
    assert row["definition"] == {"name": "new", "steps": list(DIAMOND)}


@pytest.mark.parametrize(
    "again",
    [
        {"needs": ["a"], "name": "b"},
        {"needs": ["a"], "name": "b", "type": None},
        {"name": "b", "needs": ["a"], "handler": "b"},
        {"name": "b", "needs": ["a"], "config": {}, "retry": {}, "join": "all"},
        {"name": "b", "needs": ["a"], "on_failure": "fail", "timeout": None, "queue": None},
        {"name": "b", "needs": ["a"], "retry": {"base": None}},
    ],
    ids=str,
)
def test_the_same_content_is_the_same_version(engine: Engine, again: Row) -> None:
    first = define(engine, step("a"), step("b", "a"))
    before = engine.place.rows()
    assert define(engine, step("a"), again, output={})["version"] == first["version"]
    assert engine.place.rows() == before


def test_numbers_that_are_written_otherwise_are_the_same(engine: Engine) -> None:
    first = define(engine, step("a", timeout=60, retry={"factor": 2, "base": 0.5}))
    again = define(engine, step("a", timeout=60.0, retry={"factor": 2.0, "base": 0.50}))
    assert first["version"] == again["version"]


@pytest.mark.parametrize(
    "other",
    [
        {"handler": "h"},
        {"config": {"n": None}},
        {"timeout": 5},
        {"retry": {"max_attempts": 2}},
        {"queue": "q"},
        {"on_failure": "continue"},
        {"join": "any"},
        {"description": "the first"},
    ],
    ids=str,
)
def test_other_content_is_another_version_and_new_runs_get_it(engine: Engine, other: Row) -> None:
    first = define(engine, step("a"))
    old = engine.tell("start", flow="f")
    second = define(engine, step("a", **other))
    assert second["version"] > first["version"]
    new = engine.tell("start", flow="f")
    assert engine.run(new)["flow_version"] == second["version"]
    assert engine.run(old)["flow_version"] == first["version"]


def test_content_that_was_defined_before_is_current_again(engine: Engine) -> None:
    first = define(engine, step("a"))
    define(engine, step("a"), step("b"))
    assert define(engine, step("a")) == first
    assert engine.run(engine.tell("start", flow="f"))["flow_version"] == first["version"]


def test_a_run_keeps_its_version(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    define(engine, step("a"), step("c", "a"))
    engine.worker()
    for name in ("a", "b"):
        (lease,) = engine.acquire().leases
        assert lease.body["handler"] == name
        engine.complete(lease)
    assert engine.state(run_id) == "completed"


@pytest.mark.parametrize("definition", [None, [], "f", 3])
def test_a_definition_is_an_object(engine: Engine, definition: object) -> None:
    with engine.refused("PF101", "definition"):
        engine.call("define_flow", definition=Jsonb(definition))


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"name": None}, "name", "name must be a name of 1 to 100 letters"),
        ({"name": "a b"}, "name", "name must be"),
        ({"name": "-f"}, "name", "name must be"),
        ({"name": "f" * 101}, "name", "name must be"),
        ({"steps": None}, "steps", "steps must be a list of 1 to 10000 steps"),
        ({"steps": []}, "steps", "steps must be a list of 1 to 10000 steps (given: [])"),
        ({"steps": {"a": {}}}, "steps", "steps must be a list"),
        ({"queue": ""}, "queue", "queue must be a text of 1 to 100 characters"),
        ({"description": 3}, "description", "description must be a text"),
        ({"output": ["a"]}, "output", "output must be an object"),
        ({"output": {"x": "z"}}, "output.x", "output x must be the name of a step of this flow"),
        ({"output": {"x": None}}, "output.x", "output x must be the name of a step of this flow"),
        ({"step": []}, "step", "step is no member of a flow"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_flow_is_told(
    engine: Engine, change: Row, field: str, message: str
) -> None:
    told = faults(engine, {"name": "f", "steps": [step("a")], **change})
    assert told[f"definition.{field}"].startswith(message)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"name": None}, "name", "step [1]: name must be a name"),
        ({"name": "b/c"}, "name", "step b/c: name must be a name"),
        ({"name": "a"}, "name", "step a: another step has this name"),
        ({"handler": ""}, "handler", "step b: handler must be a text of 1 to 200 characters"),
        ({"handler": 1}, "handler", "step b: handler must be"),
        ({"queue": "q" * 101}, "queue", "step b: queue must be"),
        ({"needs": "a"}, "needs", "step b: needs must be a list of names of steps"),
        ({"needs": ["a", "a"]}, "needs", "step b: needs must be a list of names of steps"),
        ({"needs": ["z"]}, "needs", "step b: needs z, which is no step of this flow"),
        ({"needs": ["b"]}, "needs", "step b: waits for itself: b -> b"),
        ({"config": [1]}, "config", "step b: config must be an object (given: [1])"),
        ({"retry": 3}, "retry", "step b: retry must be an object"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts", "step b: retry.max_attempts must"),
        ({"retry": {"max_attempts": 1.5}}, "retry.max_attempts", "step b: retry.max_attempts must"),
        ({"retry": {"base": -1}}, "retry.base", "step b: retry.base must be seconds"),
        ({"retry": {"longest": 2592001}}, "retry.longest", "step b: retry.longest must be seconds"),
        ({"retry": {"factor": "2"}}, "retry.factor", "step b: retry.factor must be a number"),
        ({"retry": {"times": 2}}, "retry.times", "step b: retry.times is no member of a step"),
        ({"timeout": 0}, "timeout", "step b: timeout must be seconds, more than 0"),
        ({"timeout": "1h"}, "timeout", "step b: timeout must be seconds, more than 0 and at most"),
        ({"join": "most"}, "join", "step b: join must be all, any, none_failed or one_failed"),
        ({"join": "one_failed"}, "needs", "step b: join one_failed must have a step"),
        ({"on_failure": "stop"}, "on_failure", "step b: on_failure must be fail, continue or"),
        ({"on_failure": {"run": 1}}, "on_failure", "step b: on_failure must be fail, continue or"),
        ({"on_failure": {"run": "a", "x": 1}}, "on_failure", "step b: on_failure must be fail"),
        ({"on_failure": {"run": "z"}}, "on_failure", "step b: on_failure names z, which is no"),
        ({"description": {}}, "description", "step b: description must be a text"),
        (
            {"type": "door"},
            "type",
            "step b: type must be approval_gate, flow, human_task, pass, ti",
        ),
        ({"type": "timer", "handler": "h"}, "handler", "step b: handler must be left out: no work"),
        ({"type": "approval_gate", "timeout": 5}, "timeout", "step b: timeout must be left out"),
        (
            {"type": "timer"},
            "config",
            "step b: config must be right for its type, timer: config.seconds",
        ),
        (
            {"type": "timer", "config": {"seconds": "soon"}},
            "config",
            "step b: config must be right for its type, timer: invalid input syntax",
        ),
        (
            {"type": "wait_event", "config": {"timeout": 0}},
            "config",
            "step b: config must be right for its type, wait_event: config.timeout must be seconds",
        ),
        (
            {"type": "wait_event", "config": {"event": "x", "name": "y"}},
            "config",
            "step b: config must be an object of name, timeout for a wait_event, without event",
        ),
        (
            {"type": "approval_gate", "config": {"due_in": 0}},
            "config",
            "step b: config must be right for its type, approval_gate: config.due_in must",
        ),
        (
            {"type": "approval_gate", "config": {"policy": "shrug"}},
            "config",
            "step b: config must be right for its type, approval_gate: config.policy must",
        ),
        (
            {"type": "human_task", "config": {"form": {"type": "thing"}}},
            "config",
            "step b: config must be right for its type, human_task: config.form",
        ),
        (
            {"type": "human_task", "config": {"policy": "approve"}},
            "config",
            "step b: config must be right for its type, human_task: config.policy must be",
        ),
        ({"uses": "a"}, "uses", "step b: uses is no member of a step"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_step_is_told_with_its_name(
    engine: Engine, change: Row, field: str, message: str
) -> None:
    told = faults(engine, {"name": "f", "steps": [step("a"), {"name": "b", **change}]})
    assert told[f"definition.steps[1].{field}"].startswith(message)


def test_a_step_is_an_object(engine: Engine) -> None:
    told = faults(engine, {"name": "f", "steps": [step("a"), "b"]})
    assert told == {"definition.steps[1]": 'step [1]: must be an object (given: "b")'}


def test_what_runs_on_failure_has_no_other_join_rule(engine: Engine) -> None:
    steps = [step("a", on_failure={"run": "b"}), step("b", join="all")]
    assert faults(engine, {"name": "f", "steps": steps}) == {
        "definition.steps[1].join": "step b: join must be one_failed or left out: step a runs it"
        " when it has failed"
    }


def test_each_cycle_is_told_once_with_the_way_around_it(engine: Engine) -> None:
    steps = [
        step("behind", "c"),
        step("a", "c"),
        step("b", "a"),
        step("c", "b", "root"),
        step("root"),
        step("x", "y"),
        step("y", on_failure={"run": "x"}),
        step("z", "z"),
        step("v", on_failure={"run": "w"}),
        step("w", on_failure={"run": "v"}),
    ]
    told = faults(engine, {"name": "f", "steps": steps})
    ways = [message.partition("waits for itself: ")[2] for message in told.values()]
    around = [set(way.split(" -> ")) for way in ways]
    assert sorted(around, key=len) == [{"z"}, {"v", "w"}, {"a", "b", "c"}]
    assert all(way.split(" -> ")[0] == way.split(" -> ")[-1] for way in ways)


def test_all_faults_are_told_at_once_and_nothing_is_stored(engine: Engine) -> None:
    steps = [step("a", "z", timeout=-1), step("a"), step("c", "d"), step("d", "c"), 7]
    told = faults(engine, {"name": "f g", "steps": steps, "flow": 1, "output": {"o": "q"}})
    assert set(told) == {
        "definition.name",
        "definition.flow",
        "definition.steps[0].timeout",
        "definition.steps[0].needs",
        "definition.steps[1].name",
        "definition.steps[2].needs",
        "definition.steps[4]",
        "definition.output.o",
    }


def test_a_definition_of_thousands_of_steps_is_checked_in_a_moment(engine: Engine) -> None:
    steps = [step("s0"), *(step(f"s{n}", f"s{n - 1}", "s0") for n in range(2, 3000))]
    steps.insert(1, step("s1", "s0"))
    version = define(engine, *steps, name="long")
    layer = engine.value(
        "select layer from pgflow.step_definition where flow = 'long' and step = 's2999'"
    )
    assert (layer, version["version"]) == (3000, 1)


def test_a_definition_is_at_most_a_megabyte(engine: Engine) -> None:
    with engine.refused("PF101", "definition"):
        define(engine, step("a", config={"text": "".join(map(str, range(300000)))}))


@pytest.mark.parametrize("table", ["flow_version", "step_definition"])
@pytest.mark.parametrize("change", ["update pgflow.{} set version = 7", "delete from pgflow.{}"])
def test_a_version_never_changes(engine: Engine, table: str, change: str) -> None:
    define(engine, step("a"))
    with engine.acting_as("pgflow_owner"), engine.refused("PF203"):
        engine.rows(change.format(table))


def test_projects_have_flows_of_their_own(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    engine.tell("create_project", project="ours")
    define(engine, step("a"), name="theirs")
    engine.call("define_flow", definition={"name": "f", "steps": [step("b")]}, project="ours")
    stranger = connect(make_role("pgflow_client"))
    seen = {row["project_id"] for row in stranger.rows("select * from pgflow.flows")}
    assert seen == {"default"}
    with engine.refused("PF106", "flow"):
        engine.call("start", flow="theirs", project="ours")


def test_who_defined_a_version_is_kept(connect: Connect, make_role: MakeRole) -> None:
    ann = make_role("pgflow_client")
    assert define(connect(ann), step("only"), name="of-ann")["created_by"] == ann


def test_doctor_warns_of_handlers_that_no_worker_has(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "there"}])
    define(engine, step("a", handler="there"), step("b", handler="nowhere"), name="odd")

    def warned() -> list[Any]:
        rows = engine.call("doctor")
        return [r["detail"] for r in rows if r["check"] == "handler of a flow unknown"]

    told = [detail for detail in warned() if "flow odd" in detail]
    assert told == ["step b of flow odd wants handler nowhere, which no worker has registered"]
    engine.worker(handlers=[{"handler": "__default__"}])
    assert warned() == []
