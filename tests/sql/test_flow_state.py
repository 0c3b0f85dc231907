"""State values of flows: what steps write to channels, and what comes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import (
    complete,
    define,
    finish,
    gate,
    ready,
    started,
    states,
    step,
    task_of,
    values,
    work,
    wrote,
)

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row

CHAIN = (step("a"), step("b", "a"), step("c", "b"))
PAIR = (step("a"), step("b"), step("c", "a", "b"))


def began(engine: Engine, *steps: Row, **channels: Row) -> UUID:
    """Start a flow of these channels."""
    define(engine, *steps, channels=channels)
    run_id: UUID = engine.tell("start", flow="f")
    return run_id


def history(engine: Engine, run_id: UUID) -> list[tuple[Any, ...]]:
    """Return number, super-step, label, steps and changed channels of each checkpoint."""
    return [
        (row["number"], row["super_step"], row["label"], row["steps"], row["changed"])
        for row in engine.call("history", run_id=run_id)
    ]


# ---- reducers


@pytest.mark.parametrize(
    ("reducer", "default", "first", "second", "value"),
    [
        ("last", None, [1, {"x": 2}], ["z"], "z"),
        ("last_write_wins", 7, [], [None], None),
        ("append", None, [1, [2, 3]], [{"x": 4}], [1, 2, 3, {"x": 4}]),
        ("append", [0], [[]], [[[5]]], [0, [5]]),
        ("merge", {"a": 1, "b": 1}, [{"b": 2}], [{"c": 3}, {"c": 4}], {"a": 1, "b": 2, "c": 4}),
        ("merge_map", None, [{}], [{"c": 3}], {"c": 3}),
        ("add", 10, [1, 2], [-0.5], 12.5),
        ("add", None, [1], [2], 3),
        ("min", None, [3, 2], [5], 2),
        ("max", 4, [3], [2, 1], 4),
        ("union", ["b"], ["a", ["b", "c"]], ["c", 1, "1"], ["b", "a", "c", 1, "1"]),
    ],
    ids=str,
)
def test_a_reducer_says_what_becomes_of_what_is_written(
    engine: Engine, reducer: str, default: object, first: list[Any], second: list[Any], value: Any
) -> None:
    run_id = began(engine, *PAIR, x={"reducer": reducer, "default": default})
    leases = ready(engine)
    complete(
        engine,
        (leases["b"], [("x", written) for written in second]),
        (leases["a"], [("x", written) for written in first]),
    )
    assert values(engine, run_id) == {"x": value}


def test_a_channel_that_nothing_is_written_to_has_its_default_else_null(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={"default": {"y": 1}}, y={"reducer": "append"}, z={})
    assert ready(engine)["a"].body["flow"]["state"] == {"x": {"y": 1}, "y": None, "z": None}
    assert engine.call("history", run_id=run_id) == []


def test_writes_of_one_super_step_are_reduced_in_the_order_of_the_definition(
    engine: Engine,
) -> None:
    run_id = began(engine, *PAIR, x={"reducer": "append"}, y={})
    leases = ready(engine)
    complete(
        engine,
        (leases["b"], [("x", 3), ("y", "b"), ("x", 4)]),
        (leases["a"], [("x", 1), ("x", 2), ("y", "a")]),
    )
    assert values(engine, run_id) == {"x": [1, 2, 3, 4], "y": "b"}


def test_a_step_sees_the_values_that_those_before_it_left(engine: Engine) -> None:
    began(engine, *CHAIN, step("other"), x={"reducer": "add"})
    leases = ready(engine)
    wrote(engine, leases["a"], x=1)
    (b,) = ready(engine).values()
    wrote(engine, leases["other"], x=10)
    assert b.body["flow"]["state"] == {"x": 1}
    engine.release(b)
    (b,) = ready(engine).values()
    assert b.body["flow"]["state"] == {"x": 1}
    wrote(engine, b, x=100)
    assert ready(engine)["c"].body["flow"]["state"] == {"x": 111}


def test_values_stay_right_over_many_super_steps(engine: Engine) -> None:
    names = [f"s{n}" for n in range(104)]
    steps = [step(name, *names[max(0, n - 1) : n]) for n, name in enumerate(names)]
    run_id = began(engine, *steps, n={"reducer": "add"}, seen={"reducer": "append"}, last={})
    for n, name in enumerate(names):
        lease = ready(engine)[name]
        state = lease.body["flow"]["state"]
        assert (state["n"] or 0, len(state["seen"] or [])) == (n, n)
        wrote(engine, lease, n=1, seen=n, last=name)
    saved = engine.rows("select * from pgflow.checkpoint where run_id = %s order by number", run_id)
    assert [row["number"] for row in saved if row["snapshot"]] == [50, 100]
    assert max(len(json.dumps(row["changed"])) for row in saved) < 60
    told = engine.call("history", run_id=run_id)
    assert [row["values"]["n"] for row in told] == list(range(1, 105))
    assert told[-1]["values"]["seen"] == list(range(104))


# ---- what is refused


@pytest.mark.parametrize(
    ("channel", "value", "why"),
    [
        ("sum", "x", 'channel sum: reducer add takes a number (given: "x")'),
        ("sum", None, "channel sum: reducer add takes a number (given: null)"),
        ("map", [1], "channel map: reducer merge takes an object (given: a list of 1)"),
        ("low", {}, "channel low: reducer min takes a number (given: an object of 0)"),
        ("nope", 1, "channel nope: the flow has no such channel"),
    ],
    ids=str,
)
def test_what_does_not_fit_fails_the_step_and_changes_no_value(
    engine: Engine, channel: str, value: object, why: str
) -> None:
    channels: Row = {
        "sum": {"reducer": "add", "default": 5},
        "map": {"reducer": "merge"},
        "low": {"reducer": "min"},
    }
    run_id = began(engine, step("a", on_failure="continue"), step("b"), **channels)
    leases = ready(engine)
    lines = complete(
        engine, (leases["a"], [("sum", 1), (channel, value)]), (leases["b"], [("sum", 2)])
    )
    assert [(line["outcome"], line["code"], line["detail"]) for line in lines] == [
        ("refused", "E-RUN-018", why)
    ]
    assert states(engine, run_id) == {"a": "failed", "b": "completed"}
    run = engine.run(run_id)
    assert (run["state"], run["output"]) == ("completed", {"sum": 7, "map": None, "low": None})
    assert engine.complete(leases["a"], writes=["[]"])[0]["outcome"] == "already"


def test_a_flow_fails_with_the_channels_name(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={"reducer": "add"})
    wrote(engine, ready(engine)["a"], x="one")
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-018")
    assert run["error_detail"] == 'step a: channel x: reducer add takes a number (given: "one")'


@pytest.mark.parametrize("writes", ["{}", "7", "[1]", '[{"value": 1}]', "[", "null"])
def test_writes_that_are_none_fail_the_step(engine: Engine, writes: str) -> None:
    run_id = began(engine, *CHAIN, x={})
    lines = engine.complete(ready(engine)["a"], writes=[writes])
    assert [line["outcome"] for line in lines] == ["refused"]
    assert engine.state(run_id) == "failed"


def test_only_steps_of_flows_with_channels_write(engine: Engine) -> None:
    alone = engine.leased()
    written = json.dumps([{"channel": "x", "value": 1}])
    assert engine.complete(alone, writes=[written])[0]["code"] == "E-RUN-018"
    run_id = started(engine, *CHAIN)
    assert wrote(engine, ready(engine)["a"], x=1)[0]["code"] == "E-RUN-018"
    assert engine.state(run_id) == "failed"


def test_there_is_one_of_writes_for_each_run(engine: Engine) -> None:
    lease = engine.leased()
    with engine.refused("PF101", "arrays"):
        engine.complete(lease, writes=["[]", "[]"])


def test_an_execution_whose_lease_is_lost_writes_nothing(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={"reducer": "add"})
    old = ready(engine)["a"]
    engine.release(old)
    new = ready(engine)["a"]
    assert wrote(engine, old, x=1)[0]["outcome"] == "lost"
    assert engine.rows("select * from pgflow.channel_write where run_id = %s", run_id) == []
    assert wrote(engine, new, x=5) == []
    assert wrote(engine, new, x=5)[0]["outcome"] == "already"
    assert values(engine, run_id) == {"x": 5}


def test_a_step_whose_output_cannot_be_stored_writes_nothing(engine: Engine) -> None:
    run_id = began(engine, step("a", on_failure="continue"), step("b", "a", join="any"), x={})
    wrote(engine, ready(engine)["a"], output='"\\u0000"', x=1)
    assert engine.rows("select * from pgflow.channel_write where run_id = %s", run_id) == []
    assert engine.run(run_id)["output"] == {"x": None}


# ---- checkpoints and history


def test_each_super_step_is_a_checkpoint(engine: Engine) -> None:
    run_id = began(engine, *PAIR, x={"reducer": "add"}, y={})
    leases = ready(engine)
    complete(engine, (leases["b"], [("x", 1)]), (leases["a"], [("x", 1), ("y", 0)]))
    work(engine)
    assert history(engine, run_id) == [
        (1, 1, "steps", ["a", "b"], ["x", "y"]),
        (2, 2, "steps", ["c"], []),
    ]
    assert [row["values"] for row in engine.call("history", run_id=run_id)] == [
        {"x": 2, "y": 0},
        {"x": 2, "y": 0},
    ]
    assert engine.state(run_id) == "completed"


def test_a_flow_without_channels_has_a_history_without_values_and_stores_nothing(
    engine: Engine,
) -> None:
    run_id = started(engine, *PAIR)
    finish(engine)
    told = engine.call("history", run_id=run_id)
    assert [(row["number"], row["steps"], row["values"]) for row in told] == [
        (1, ["a", "b"], None),
        (2, ["c"], None),
    ]
    assert engine.rows("select * from pgflow.checkpoint where run_id = %s", run_id) == []


def test_only_flows_have_a_history(engine: Engine) -> None:
    run_id = engine.enqueue()
    with engine.refused("PF101", "run_id"):
        engine.call("history", run_id=run_id)
    with engine.refused("PF102", "run_id"):
        engine.call("history", run_id="01900000-0000-7000-8000-000000000001")


def test_another_project_sees_no_history(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={})
    engine.tell("create_project", project="neighbour")
    with engine.refused("PF102", "run_id"):
        engine.call("history", run_id=run_id, project="neighbour")


# ---- output


def test_a_flow_with_channels_returns_its_values(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={"default": 1}, y={})
    wrote(engine, ready(engine)["a"], y={"z": 2})
    finish(engine)
    assert engine.run(run_id)["output"] == {"x": 1, "y": {"z": 2}}


def test_an_output_that_is_named_comes_before_the_values(engine: Engine) -> None:
    define(engine, *CHAIN, channels={"x": {}}, output={"end": "c"})
    run_id = engine.tell("start", flow="f")
    finish(engine, c=[3])
    assert engine.run(run_id)["output"] == {"end": [3]}


# ---- stopping, going back, doing it again


def test_what_ends_while_a_flow_is_paused_counts_when_it_is_resumed(engine: Engine) -> None:
    run_id = began(engine, *PAIR, x={"reducer": "append"})
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    wrote(engine, leases["b"], x="b")
    wrote(engine, leases["a"], x="a")
    assert history(engine, run_id) == []
    engine.call("resume", run_id=run_id)
    assert history(engine, run_id) == [(1, 1, "steps", ["a", "b"], ["x"])]
    assert ready(engine)["c"].body["flow"]["state"] == {"x": ["a", "b"]}


def test_a_paused_flows_values_can_be_replaced(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={"reducer": "add"}, y={"default": 1})
    wrote(engine, ready(engine)["a"], x=5)
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id, command={"update": {"x": 100}})
    assert history(engine, run_id)[-1] == (2, 1, "update", None, ["x"])
    assert values(engine, run_id) == {"x": 100, "y": 1}
    assert engine.types(run_id)[-2:] == ["checkpoint.saved", "run.resumed"]
    wrote(engine, ready(engine)["b"], x=1)
    assert values(engine, run_id) == {"x": 101, "y": 1}


@pytest.mark.parametrize(
    ("update", "field", "message"),
    [
        ({"z": 1}, "command.update.z", "must be a channel of the flow: x, y"),
        ({"y": 1, "x": "one"}, "command.update.x", "must be a number"),
        ({}, "command.update", "must be an object of channels and their values"),
        (7, "command.update", "must be an object"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_refused(
    engine: Engine, update: object, field: str, message: str
) -> None:
    run_id = began(engine, *CHAIN, x={"reducer": "add"}, y={})
    engine.call("pause", run_id=run_id)
    with engine.refused("PF101", field) as refused:
        engine.call("resume", run_id=run_id, command=Jsonb({"update": update}))
    assert message in str(refused.value)


def test_going_back_takes_back_what_was_written_since(engine: Engine) -> None:
    run_id = began(
        engine, *CHAIN, gate("editor", "c"), step("side"), x={"reducer": "add"}, y={}, z={}
    )
    leases = ready(engine)
    wrote(engine, leases["a"], x=1, y="a")
    wrote(engine, ready(engine)["b"], x=10, y="b")
    wrote(engine, ready(engine)["c"], x=100)
    wrote(engine, leases["side"], x=1000, z="side")
    engine.reject(task_of(engine, run_id, "editor"), rollback_to="b")
    assert history(engine, run_id)[-1] == (5, 4, "rollback:b", None, [])
    assert values(engine, run_id) == {"x": 1001, "y": "a", "z": "side"}
    lease = ready(engine)["b"]
    assert lease.body["flow"]["state"] == {"x": 1001, "y": "a", "z": "side"}
    wrote(engine, lease, x=20)
    assert values(engine, run_id)["x"] == 1021


def test_a_retry_begins_with_the_values_of_the_steps_that_it_keeps(engine: Engine) -> None:
    first = began(engine, *CHAIN, gate("editor", "b"), x={"reducer": "add"}, y={})
    wrote(engine, ready(engine)["a"], x=1, y="a")
    wrote(engine, ready(engine)["b"], x=10)
    work(engine, fail=("c",))
    assert engine.state(first) == "failed"
    again = engine.tell("retry", run_id=first)
    assert history(engine, again) == [(1, 0, "retry", None, [])]
    lease = ready(engine)["c"]
    assert lease.body["flow"]["state"] == {"x": 11, "y": "a"}
    wrote(engine, lease, x=100)
    engine.reject(task_of(engine, again, "editor"), rollback_to="b")
    assert values(engine, again) == {"x": 1, "y": "a"}


def test_what_is_left_of_a_flow_goes_with_it(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={})
    wrote(engine, ready(engine)["a"], x=1)
    finish(engine)
    engine.rows("select pgflow._delete_runs('default', array[%s]::uuid[], now())", run_id)
    for table in ("channel_write", "checkpoint"):
        assert engine.rows(f"select from pgflow.{table} where run_id = %s", run_id) == []


# ---- layers


def test_steps_of_a_layer_begin_together_and_see_its_beginning(engine: Engine) -> None:
    steps = (step("a"), step("b"), step("c", "a"), step("d", "b"), step("e", "c", "d"))
    define(engine, *steps, channels={"x": {"reducer": "append"}}, layered=True)
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    wrote(engine, leases["b"], x="b")
    assert ready(engine) == {}
    assert history(engine, run_id) == []
    wrote(engine, leases["a"], x="a")
    leases = ready(engine)
    assert sorted(leases) == ["c", "d"]
    wrote(engine, leases["d"], x="d")
    wrote(engine, leases["c"], x="c")
    assert leases["c"].body["flow"]["state"] == {"x": ["a", "b"]}
    assert ready(engine)["e"].body["flow"]["state"] == {"x": ["a", "b", "c", "d"]}
    assert history(engine, run_id) == [
        (1, 1, "layer:1", ["a", "b"], ["x"]),
        (2, 2, "layer:2", ["c", "d"], ["x"]),
    ]


def test_a_flow_without_channels_can_have_layers(engine: Engine) -> None:
    define(engine, step("a"), step("b"), step("c", "a"), layered=True)
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.complete(leases["a"])
    assert ready(engine) == {}
    engine.complete(leases["b"])
    assert finish(engine) == [["c"]]
    assert engine.state(run_id) == "completed"
    assert [row["label"] for row in engine.call("history", run_id=run_id)] == ["layer:1", "layer:2"]


def test_a_step_that_fails_its_flow_does_not_wait_for_its_layer(engine: Engine) -> None:
    define(engine, step("a"), step("b"), step("c", "a"), layered=True)
    run_id = engine.tell("start", flow="f")
    engine.fail(ready(engine)["a"], retries=[False])
    assert engine.state(run_id) == "failed"
    assert states(engine, run_id)["b"] == "cancelled"


def test_a_step_that_may_fail_waits_for_its_layer(engine: Engine) -> None:
    steps = (step("a", on_failure={"run": "mend"}), step("b"), step("mend"))
    define(engine, *steps, layered=True)
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.fail(leases["a"], retries=[False])
    assert ready(engine) == {}
    engine.complete(leases["b"])
    assert finish(engine) == [["mend"]]
    assert engine.state(run_id) == "completed"


def test_a_layer_of_a_paused_flow_ends_when_it_is_resumed(engine: Engine) -> None:
    define(engine, *PAIR, layered=True)
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    engine.complete(leases["a"])
    engine.call("resume", run_id=run_id)
    assert ready(engine) == {}
    engine.call("pause", run_id=run_id)
    engine.complete(leases["b"])
    assert ready(engine) == {}
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["c"]]
    assert engine.state(run_id) == "completed"


def test_a_step_of_a_layer_that_failed_in_a_pause_ends_its_flow_when_that_goes_on(
    engine: Engine,
) -> None:
    define(engine, *PAIR, layered=True)
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    engine.fail(leases["a"], retries=[False])
    assert engine.tell("resume", run_id=run_id) == "failed"
    assert engine.run(run_id)["error_detail"] == "step a: boom"


def test_a_layer_that_only_waits_has_its_flow_wait(engine: Engine) -> None:
    define(engine, step("a"), gate("b"), step("c", "a", "b"), layered=True)
    run_id = engine.tell("start", flow="f")
    work(engine)
    assert engine.state(run_id) == "waiting_approval"
    engine.approve(task_of(engine, run_id, "b"))
    assert finish(engine) == [["c"]]
    assert engine.state(run_id) == "completed"


# ---- forks


def forked(engine: Engine, run_id: UUID, super_step: int, **more: Any) -> UUID:
    """Fork a flow after a super-step."""
    fork_id: UUID = engine.tell("fork", run_id=run_id, super_step=super_step, **more)
    return fork_id


def test_a_flow_is_forked_from_a_super_step(engine: Engine) -> None:
    first = began(engine, *CHAIN, step("side"), x={"reducer": "add"}, y={})
    leases = ready(engine)
    wrote(engine, leases["a"], '"A"', x=1)
    wrote(engine, leases["side"], x=1000)
    wrote(engine, ready(engine)["b"], x=10)
    finish(engine)
    fork_id = forked(engine, first, 1, updates={"y": "new"})
    run = engine.run(fork_id)
    assert (run["forked_from"], run["super_step"], run["retry_of"]) == (first, 1, None)
    assert history(engine, fork_id) == [(2, 1, "fork", None, ["y"])]
    leases = ready(engine)
    assert sorted(leases) == ["b", "side"]
    assert leases["b"].body["input"] == {"a": "A"}
    assert leases["b"].body["flow"]["state"] == {"x": 1, "y": "new"}
    wrote(engine, leases["b"], x=20)
    assert values(engine, fork_id) == {"x": 21, "y": "new"}
    engine.complete(leases["side"])
    finish(engine)
    assert engine.state(fork_id) == "completed"
    assert values(engine, first)["x"] == 1011


def test_a_live_flow_is_forked_and_goes_on(engine: Engine) -> None:
    first = started(engine, *CHAIN)
    work(engine)
    fork_id = forked(engine, first, 0)
    assert states(engine, fork_id) == {"a": "pending", "b": "pending", "c": "pending"}
    assert finish(engine) == [["a", "b"], ["b", "c"], ["c"]]
    assert engine.state(first) == engine.state(fork_id) == "completed"


def test_a_fork_knows_what_a_flow_went_back_behind_later(engine: Engine) -> None:
    first = began(engine, *CHAIN, gate("editor", "c"), x={"reducer": "append"})
    for name in "abc":
        wrote(engine, ready(engine)[name], f'"{name}"', x=name)
    engine.reject(task_of(engine, first, "editor"), rollback_to="b")
    wrote(engine, ready(engine)["b"], '"b2"', x="b2")
    before, after = forked(engine, first, 2), forked(engine, first, 4)
    assert values(engine, before) == {"x": ["a", "b"]}
    assert values(engine, after) == {"x": ["a", "b2"]}
    inputs = [lease.body["input"] for lease in engine.acquire().leases]
    assert sorted(given["b"] for given in inputs) == ["b", "b2", "b2"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "super_step"),
        ({"super_step": 2}, "super_step"),
        ({"super_step": -1}, "super_step"),
        ({"step": "b", "super_step": 1}, "step"),
        ({"super_step": 1, "updates": {"z": 1}}, "updates.z"),
        ({"super_step": 1, "updates": {"x": "one"}}, "updates.x"),
    ],
    ids=str,
)
def test_a_fork_that_is_not_possible_is_refused(engine: Engine, given: Row, field: str) -> None:
    run_id = began(engine, *CHAIN, x={"reducer": "add"})
    work(engine)
    with engine.refused("PF101", field):
        engine.call("fork", run_id=run_id, **given)


def test_a_handlers_run_has_no_super_steps(engine: Engine) -> None:
    run_id = engine.waiting()
    with engine.refused("PF101", "super_step"):
        engine.call("fork", run_id=run_id, super_step=1)


# ---- moments at which a flow stood


def told(engine: Engine, run_id: UUID) -> list[tuple[Any, ...]]:
    """Return super-step, label, payload and values of each checkpoint."""
    return [
        (row["super_step"], row["label"], row["payload"], row["values"])
        for row in engine.call("history", run_id=run_id)
    ]


def saved(engine: Engine, run_id: UUID) -> list[str]:
    """Return the labels of the checkpoints that the timeline tells of, in its order."""
    lines = [e for e in engine.timeline(run_id) if e["type"] == "checkpoint.saved"]
    numbers = [row["number"] for row in engine.call("history", run_id=run_id)]
    assert [line["payload"]["number"] for line in lines] == numbers
    return [line["payload"]["label"] for line in lines]


def test_each_breakpoint_at_which_a_flow_stands_is_a_checkpoint_with_what_is_shown(
    engine: Engine,
) -> None:
    define(
        engine,
        *CHAIN,
        channels={"x": {"reducer": "add"}},
        breakpoints={"before": ["a", "c"], "after": ["a"]},
    )
    run_id = engine.tell("start", flow="f", input={"n": 1})
    engine.call("resume", run_id=run_id)
    wrote(engine, ready(engine)["a"], output='"A"', x=1)
    engine.call("resume", run_id=run_id)
    wrote(engine, ready(engine)["b"], output='"B"', x=1)
    engine.call("resume", run_id=run_id)
    work(engine)
    assert engine.state(run_id) == "completed"
    assert told(engine, run_id) == [
        (0, "before:a", {"n": 1}, {"x": None}),
        (0, "after:a", "A", {"x": None}),
        (1, "steps", None, {"x": 1}),
        (2, "steps", None, {"x": 2}),
        (2, "before:c", {"b": "B"}, {"x": 2}),
        (3, "steps", None, {"x": 2}),
    ]
    labels = ["before:a", "after:a", "steps", "steps", "before:c", "steps"]
    assert saved(engine, run_id) == labels


def test_an_interrupt_within_a_step_is_a_checkpoint_of_its_flow(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={"reducer": "add"})
    wrote(engine, ready(engine)["a"], x=1)
    ask = {"key": "i", "kind": "interrupt", "title": "How?", "payload": {"draft": 7}}
    stop = {"key": "breakpoint/before/pay", "kind": "breakpoint", "when": "before", "title": None}
    lease = ready(engine)["b"]
    engine.park(lease, ask)
    assert told(engine, run_id)[-1] == (1, "interrupt:b", {"draft": 7}, {"x": 1})
    engine.call("resume", run_id=lease.run_id, command={"resume": 1})
    lease = ready(engine)["b"]
    engine.park(lease, stop, news=lease.body["news"])
    assert told(engine, run_id)[-1] == (1, "before:b/pay", None, {"x": 1})
    engine.call("resume", run_id=lease.run_id)
    wrote(engine, ready(engine)["b"], x=1)
    assert saved(engine, run_id) == ["steps", "interrupt:b", "before:b/pay", "steps"]
    assert engine.timeline(lease.run_id)


def test_an_interrupt_in_a_flow_without_channels_is_no_checkpoint(engine: Engine) -> None:
    run_id = started(engine, *CHAIN)
    ask = {"key": "i", "kind": "interrupt", "title": "How?"}
    engine.park(ready(engine)["a"], ask)
    assert saved(engine, run_id) == []


def test_a_fork_from_a_super_step_does_not_see_where_the_flow_stood_later(engine: Engine) -> None:
    define(engine, *CHAIN, channels={"x": {}}, breakpoints={"before": ["b"]})
    run_id = engine.tell("start", flow="f")
    wrote(engine, ready(engine)["a"], x=1)
    engine.call("resume", run_id=run_id, command={"update": {"x": 2}})
    fork = engine.tell("fork", run_id=run_id, super_step=1)
    assert told(engine, fork)[0] == (1, "fork", None, {"x": 1})
    assert saved(engine, fork)[0] == "fork"


def test_going_to_a_step_before_takes_back_what_was_written_since(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={"reducer": "append"})
    wrote(engine, ready(engine)["a"], x="a")
    wrote(engine, ready(engine)["b"], x="b")
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id, command={"goto": "b"})
    assert told(engine, run_id)[-1] == (2, "goto:b", None, {"x": ["a"]})
    lease = ready(engine)["b"]
    assert lease.body["flow"]["state"] == {"x": ["a"]}
    wrote(engine, lease, x="c")
    assert values(engine, run_id) == {"x": ["a", "c"]}
    assert saved(engine, run_id) == ["steps", "steps", "goto:b", "steps"]


def test_going_to_a_step_behind_leaves_the_values_as_they_are(engine: Engine) -> None:
    run_id = began(engine, *CHAIN, x={"reducer": "append"})
    wrote(engine, ready(engine)["a"], x="a")
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id, command={"goto": "c"})
    assert told(engine, run_id)[-1] == (1, "goto:c", None, {"x": ["a"]})
    assert finish(engine) == [["c"]]


def test_what_somebody_follows_has_the_checkpoints_as_well(engine: Engine) -> None:
    engine.call("subscribe", subscription="audit")
    run_id = began(engine, *CHAIN, x={})
    wrote(engine, ready(engine)["a"], x=1)
    engine.call("cancel", run_id=run_id)
    lines = engine.timeline(run_id)
    published = engine.rows(
        "select event_no from pgflow.outbox where run_id = %s order by 1", run_id
    )
    assert [row["event_no"] for row in published] == [line["event_no"] for line in lines]
