"""Conditions of steps, and the schema that a flow's input has to fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import define, finish, ready, started, states, step, work, wrote

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row


def faults(engine: Engine, **more: Any) -> dict[str, str]:
    """Return the messages of a definition that is refused, by field."""
    definition = {"name": "f", "steps": [step("a")], **more}
    with engine.refused("PF101") as refused:
        engine.call("define_flow", definition=Jsonb(definition))
    told = json.loads(refused.value.diag.message_detail or "")["faults"]
    return {fault["field"]: fault["message"] for fault in told}


# ---- definitions


@pytest.mark.parametrize(
    ("channels", "field", "message"),
    [
        ([], "channels", "channels must be an object of channels (given: [])"),
        ({"a b": {}}, 'channels."a b"', "channel a b: it must be named by 1 to 100 letters"),
        ({"x": None}, "channels.x", "channel x: it must be an object of reducer and default"),
        ({"x": "add"}, "channels.x", "channel x: it must be an object of reducer and default (giv"),
        ({"x": {"kind": 1}}, "channels.x.kind", "channel x: kind is no member of a channel"),
        (
            {"x": {"reducer": "sum"}},
            "channels.x.reducer",
            "channel x: reducer must be last, append, merge, add, min, max, union",
        ),
        ({"x": {"reducer": 3}}, "channels.x.reducer", "channel x: reducer must be last, append"),
        (
            {"x": {"reducer": "add", "default": "0"}},
            "channels.x.default",
            "channel x: default must be a number, as reducer add wants it",
        ),
        (
            {"x": {"reducer": "union", "default": 3}},
            "channels.x.default",
            "channel x: default must be a list, as reducer union wants it",
        ),
        (
            {"x": {"reducer": "merge_map", "default": []}},
            "channels.x.default",
            "channel x: default must be an object, as reducer merge wants it",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_channel_is_told(
    engine: Engine, channels: object, field: str, message: str
) -> None:
    assert faults(engine, channels=channels)[f"definition.{field}"].startswith(message)


@pytest.mark.parametrize(
    ("when", "why"),
    [
        (3, "must be a text (given: 3)"),
        ("$.score >", "must be a predicate in jsonpath, as $.score > 0.5 is one (syntax error"),
        ("$.score", "must be a predicate in jsonpath, as $.score > 0.5 is one (single boolean"),
        ("$input", "must be a predicate in jsonpath"),
        ("$ ? (@.score > 1)", "must be a predicate in jsonpath"),
        ("$output.x == 1", "must be a predicate in jsonpath, as $.score > 0.5 is one (could not"),
        ('$.x like_regex "("', "must be a predicate in jsonpath"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_condition_is_told(engine: Engine, when: object, why: str) -> None:
    told = faults(engine, steps=[step("a"), step("b", when=when)])
    assert told["definition.steps[1].when"].startswith(f"step b: when {why}")


def test_all_is_told_at_once(engine: Engine) -> None:
    told = faults(
        engine,
        steps=[step("a", when="$."), step("b", "z")],
        channels={"x": {"reducer": "y"}},
        layered="yes",
        input_schema={"type": "thing"},
    )
    assert told["definition.layered"] == 'layered must be true or false (given: "yes")'
    assert told["definition.input_schema.type"].startswith("input_schema.type must be null, boo")
    assert len(told) == 5


@pytest.mark.parametrize(
    "same",
    [
        {"channels": {"x": {"reducer": "last", "default": None}, "y": {"reducer": "merge"}}},
        {"channels": {"x": {"reducer": "last_write_wins"}, "y": {"reducer": "merge_map"}}},
        {"channels": {"y": {"reducer": "merge"}, "x": {}}, "layered": False, "input_schema": None},
    ],
    ids=str,
)
def test_channels_that_mean_the_same_make_the_same_version(engine: Engine, same: Row) -> None:
    first = define(engine, step("a"), channels={"x": {}, "y": {"reducer": "merge"}})
    assert define(engine, step("a"), **same)["version"] == first["version"]
    plain = define(engine, step("a"))
    assert define(engine, step("a", when=None), channels={})["version"] == plain["version"]


def test_the_channels_of_a_version_never_change(engine: Engine) -> None:
    define(engine, step("a"), channels={"x": {}})
    with engine.refused("PF203"):
        engine.rows("update pgflow.channel_definition set reducer = 'add'")


# ---- conditions


@pytest.mark.parametrize(
    ("when", "runs"),
    [
        ("$.score > 0.5", True),
        ("$.score > 0.7", False),
        ("$.unset == null", True),
        ("exists($.map.x)", True),
        ("$.map.x == 1 && $.score < 1", True),
        ("$input.level >= 3", True),
        ('$inputs.a == "done"', True),
        ("$inputs.b == 1", False),
        ("$.map > 1", False),
        ("$.score / 0 > 1", False),
        ("$.nothing.like.this > 1", False),
        ("$.score.datetime() > 1", False),
        ("strict $.nothing == 1", False),
    ],
)
def test_a_condition_says_whether_a_step_runs(engine: Engine, when: str, runs: bool) -> None:  # noqa: FBT001 - of the table above
    channels = {"score": {"default": 0}, "map": {"reducer": "merge"}, "unset": {}}
    steps = (step("a"), step("b", "a", when=when), step("c", "b", join="none_failed"))
    define(engine, *steps, channels=channels)
    run_id = engine.tell("start", flow="f", input={"level": 3})
    wrote(engine, ready(engine)["a"], '"done"', score=0.6, map={"x": 1})
    assert work(engine) == (["b"] if runs else ["c"])
    assert states(engine, run_id)["b"] == ("completed" if runs else "skipped")


def test_a_skipped_step_says_why(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a", when="$inputs.a > 1"), step("c", "b"))
    work(engine, a=1)
    assert states(engine, run_id) == {"a": "completed", "b": "skipped", "c": "skipped"}
    rows = engine.rows(
        "select step, error_detail from pgflow.flow_steps where flow_run_id = %s order by seq",
        run_id,
    )
    assert rows[1]["error_detail"] == '($"inputs"."a" > 1) is not true'
    assert rows[2]["error_detail"] == "join all: b is skipped"
    assert engine.state(run_id) == "completed"
    skipped = [line["step"] for line in engine.timeline(run_id) if line["type"] == "step.skipped"]
    assert skipped == ["b", "c"]


def test_a_condition_holds_at_the_beginning_too(engine: Engine) -> None:
    define(engine, step("a", when="$input.go == true"), step("b"))
    run_id = engine.tell("start", flow="f", input={"go": False})
    assert finish(engine) == [["b"]]
    assert states(engine, run_id) == {"a": "skipped", "b": "completed"}
    again = engine.tell("start", flow="f", input={"go": True})
    assert finish(engine) == [["a", "b"]]
    assert engine.state(again) == "completed"


def test_a_flow_whose_steps_are_all_skipped_completes(engine: Engine) -> None:
    run_id = started(engine, step("a", when="1 > 2"), step("b", "a"))
    assert engine.run(run_id)["output"] == {}


def test_a_condition_is_not_asked_of_a_step_that_its_join_leaves_out(engine: Engine) -> None:
    steps = (step("a", on_failure="continue"), step("b", "a", when="1 == 1"))
    run_id = started(engine, *steps)
    work(engine, fail=("a",))
    assert states(engine, run_id)["b"] == "skipped"
    (row,) = engine.rows(
        "select error_detail from pgflow.flow_steps where flow_run_id = %s and step = 'b'", run_id
    )
    assert row["error_detail"] == "join all: a is failed"


# ---- the schema of the input

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}},
    "required": ["n"],
}


def test_an_input_has_to_fit_the_schema(engine: Engine) -> None:
    define(engine, step("a"), input_schema=SCHEMA)
    with engine.refused("PF101", "input.n") as refused:
        engine.tell("start", flow="f", input={"n": 0})
    assert str(refused.value).startswith("input.n must be at least 1 (given: 0)")
    with engine.refused("PF101", "input.n"):
        engine.tell("start", flow="f")
    assert engine.state(engine.tell("start", flow="f", input={"n": 1})) == "running"


def test_an_old_version_has_its_own_schema(engine: Engine) -> None:
    first = define(engine, step("a"))
    define(engine, step("a"), input_schema=SCHEMA)
    assert engine.tell("start", flow="f", version=first["version"])
