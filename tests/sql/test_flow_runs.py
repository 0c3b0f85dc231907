"""Runs of flows: each step is a run, made when the steps that it needs have ended."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import define, finish, ready, started, states, step, step_run, work

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row

CHAIN = (step("a"), step("b", "a"), step("c", "b"))
DIAMOND = (step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))


# ---- what is given from step to step


def test_a_step_that_needs_none_gets_the_flows_input(engine: Engine) -> None:
    started(engine, step("a"), input={"n": 1})
    assert ready(engine)["a"].body["input"] == {"n": 1}


def test_a_step_gets_the_outputs_of_those_that_it_needs_by_name(engine: Engine) -> None:
    started(engine, *DIAMOND)
    work(engine, a={"x": 1})
    leases = ready(engine)
    assert leases["b"].body["input"] == leases["c"].body["input"] == {"a": {"x": 1}}
    engine.complete(leases["b"], leases["c"], outputs=["2", "[3]"])
    assert ready(engine)["d"].body["input"] == {"b": 2, "c": [3]}


@pytest.mark.parametrize("output", [{}, 0, False, None, ""], ids=repr)
def test_an_output_that_says_little_is_one(engine: Engine, output: object) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    work(engine, a=output)
    assert ready(engine)["b"].body["input"] == {"a": output}
    assert engine.run(step_run(engine, run_id, "a"))["output"] == output


def test_every_step_learns_of_its_flow(engine: Engine) -> None:
    steps = (step("a", handler="h"), step("b", "a", config={"k": 1}))
    run_id = started(engine, *steps, input=Jsonb([7]))
    version = engine.run(run_id)["flow_version"]
    lease = ready(engine)["a"]
    assert lease.body["handler"] == "h"
    engine.complete(lease)
    flow = ready(engine)["b"].body["flow"]
    assert flow == {
        "run_id": str(run_id),
        "flow": "f",
        "flow_version": version,
        "step": "b",
        "config": {"k": 1},
        "version": 0,
        "input": [7],
        "input_is_left_out": False,
    }


def test_a_flows_output_is_that_of_the_steps_that_no_other_needs(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"), step("c", "a"))
    finish(engine, b=1, c=[2])
    run = engine.run(run_id)
    assert (run["state"], run["output"]) == ("completed", {"b": 1, "c": [2]})


def test_a_flows_output_is_what_its_definition_names(engine: Engine) -> None:
    run_id = started(engine, *CHAIN, output={"first": "a", "again": "a", "last": "c"})
    finish(engine, a=1, c=3)
    assert engine.run(run_id)["output"] == {"first": 1, "again": 1, "last": 3}


# ---- which step when


def test_steps_run_once_those_that_they_need_have_ended(engine: Engine) -> None:
    started(engine, *DIAMOND, step("e"))
    assert finish(engine) == [["a", "e"], ["b", "c"], ["d"]]


def test_a_step_waits_for_the_last_that_it_needs(engine: Engine) -> None:
    run_id = started(engine, *DIAMOND)
    work(engine)
    leases = ready(engine)
    engine.complete(leases["b"])
    assert ready(engine) == {}
    told = {"a": "completed", "b": "completed", "c": "running", "d": "pending"}
    assert states(engine, run_id) == told
    engine.complete(leases["c"])
    assert list(ready(engine)) == ["d"]


def test_steps_of_many_flows_are_fired_together(engine: Engine) -> None:
    runs = [started(engine, *DIAMOND) for _ in range(5)]
    define(engine, *CHAIN, name="g")
    runs += [engine.tell("start", flow="g") for _ in range(5)]
    engine.worker()
    for _ in range(3):
        assert engine.complete(*engine.acquire().leases) == []
    assert [engine.state(run_id) for run_id in runs] == ["completed"] * 10


def test_steps_that_end_together_are_one_super_step(engine: Engine) -> None:
    run_id = started(engine, *DIAMOND)
    finish(engine)
    assert engine.run(run_id)["super_step"] == 3
    rows = engine.rows(
        "select step, super_step from pgflow.flow_steps where flow_run_id = %s", run_id
    )
    assert {row["step"]: row["super_step"] for row in rows} == {"a": 1, "b": 2, "c": 2, "d": 3}


def test_a_step_comes_before_new_work(engine: Engine) -> None:
    started(engine, *CHAIN)
    work(engine)
    engine.enqueue("new")
    assert [lease.body["handler"] for lease in engine.acquire().leases] == ["b", "new"]


OUTCOMES = ("completed", "failed", "skipped")


def expected(join: str, outcomes: tuple[str, ...]) -> bool:
    """Say whether a step runs, by the words of its join rule."""
    if join == "all":
        return set(outcomes) == {"completed"}
    if join == "any":
        return "completed" in outcomes
    if join == "none_failed":
        return "failed" not in outcomes
    return "failed" in outcomes


@pytest.mark.parametrize("join", ["all", "any", "none_failed", "one_failed"])
@pytest.mark.parametrize("outcomes", list(itertools.combinations_with_replacement(OUTCOMES, 2)))
def test_a_join_rule_says_whether_a_step_runs(
    engine: Engine, join: str, outcomes: tuple[str, ...]
) -> None:
    needs = [
        step(f"n{n}", "bad", "good", on_failure="continue")
        if outcome == "skipped"
        else step(f"n{n}", "good", on_failure="continue")
        for n, outcome in enumerate(outcomes)
    ]
    run_id = started(
        engine,
        step("good"),
        step("bad", on_failure="continue"),
        *needs,
        step("last", "n0", "n1", join=join),
        step("after", "last", join="none_failed"),
    )
    failing = tuple(f"n{n}" for n, outcome in enumerate(outcomes) if outcome == "failed")
    finish(engine, fail=("bad", *failing))
    told = states(engine, run_id)
    assert (told["n0"], told["n1"]) == outcomes
    assert told["last"] == ("completed" if expected(join, outcomes) else "skipped")
    assert told["after"] == "completed"
    assert engine.state(run_id) == "completed"


def test_a_skipped_dependency_is_absent_from_the_input(engine: Engine) -> None:
    steps = (
        step("bad", on_failure="continue"),
        step("skipped", "bad"),
        step("good"),
        step("last", "skipped", "good", join="any"),
    )
    started(engine, *steps)
    work(engine, fail=("bad",))
    assert ready(engine)["last"].body["input"] == {"good": "good"}


@pytest.mark.parametrize(
    ("join", "fail", "why"),
    [
        ("all", (), "c is skipped"),
        ("any", ("a", "b"), "a is failed, b is failed, c is skipped"),
        ("none_failed", ("a",), "a is failed"),
        ("one_failed", (), "a is completed, b is completed, c is skipped"),
    ],
)
def test_a_step_that_its_join_skips_says_what_became_of_those_it_needs(
    engine: Engine, join: str, fail: tuple[str, ...], why: str
) -> None:
    run_id = started(
        engine,
        step("a", on_failure="continue"),
        step("b", on_failure="continue"),
        step("never", when="1 == 2"),
        step("c", "never"),
        step("last", "a", "b", "c", join=join),
    )
    work(engine, fail=fail)
    rows = engine.rows(
        "select state, error_detail from pgflow.flow_steps"
        " where flow_run_id = %s and step = 'last'",
        run_id,
    )
    assert rows == [{"state": "skipped", "error_detail": f"join {join}: {why}"}]
    (line,) = [
        e for e in engine.timeline(run_id) if e["type"] == "step.skipped" and e["step"] == "last"
    ]
    assert line["payload"] == {"error_detail": f"join {join}: {why}"}


def test_any_does_not_wait_for_the_others(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c", "a", "b", join="any"))
    leases = ready(engine)
    engine.complete(leases["a"], output="1")
    assert ready(engine)["c"].body["input"] == {"a": 1}
    engine.complete(leases["b"])
    told = {"a": "completed", "b": "completed", "c": "running"}
    assert states(engine, run_id) == told


def test_a_step_that_is_started_on_failure_is_not_started_twice(engine: Engine) -> None:
    steps = (
        step("a", on_failure={"run": "mend"}),
        step("b", on_failure={"run": "mend"}),
        step("mend"),
    )
    run_id = started(engine, *steps)
    assert finish(engine, fail=("a", "b")) == [["a", "b"], ["mend"]]
    assert engine.state(run_id) == "completed"


def test_a_step_for_failures_is_skipped_where_there_is_none(engine: Engine) -> None:
    run_id = started(engine, step("a", on_failure={"run": "mend"}), step("mend"), step("b", "a"))
    assert finish(engine) == [["a"], ["b"]]
    assert states(engine, run_id)["mend"] == "skipped"


# ---- a step's run


def test_a_steps_run_is_made_as_its_flow_was(engine: Engine) -> None:
    deadline = engine.now + timedelta(hours=1)
    run_id = started(
        engine, step("a"), priority=4, deadline=deadline, tags=["x"], correlation_id="order 7"
    )
    run = engine.run(step_run(engine, run_id, "a"))
    assert (run["priority"], run["deadline"], run["tags"]) == (4, deadline, ["x"])
    assert (run["correlation_id"], run["parent_run_id"], run["root_run_id"]) == (
        "order 7",
        run_id,
        run_id,
    )
    assert (run["step"], run["kind"], run["handler"]) == ("a", "handler", "a")


def test_without_one_its_correlation_id_is_its_flows_id(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    assert engine.run(step_run(engine, run_id, "a"))["correlation_id"] == str(run_id)


@pytest.mark.parametrize(
    ("said", "column", "value"),
    [
        ({}, "timeout", timedelta(minutes=5)),
        ({"timeout": 7}, "timeout", timedelta(seconds=7)),
        ({"handler": "known"}, "timeout", timedelta(seconds=9)),
        ({"handler": "known", "timeout": 7}, "timeout", timedelta(seconds=7)),
        ({}, "max_attempts", 3),
        ({"retry": {"max_attempts": 7}}, "max_attempts", 7),
        ({"handler": "known"}, "max_attempts", 5),
        ({"handler": "known", "retry": {"base": 1}}, "max_attempts", 5),
        ({}, "queue", "default"),
        ({"queue": "steps"}, "queue", "steps"),
        ({"handler": "known"}, "queue", "parts"),
    ],
    ids=str,
)
def test_what_a_step_does_not_say_its_handler_says(
    engine: Engine, said: Row, column: str, value: object
) -> None:
    known = {"handler": "known", "queue": "parts", "max_attempts": 5, "timeout": 9}
    engine.worker(queues=["default", "parts"], handlers=[known])
    run_id = started(engine, step("a", **said))
    assert engine.run(step_run(engine, run_id, "a"))[column] == value


def test_the_queue_of_a_flow_is_that_of_its_steps(engine: Engine) -> None:
    define(engine, step("a"), step("b", queue="other"), queue="ours")
    run_id = engine.tell("start", flow="f")
    queues = [engine.run(step_run(engine, run_id, name))["queue"] for name in "ab"]
    assert (engine.run(run_id)["queue"], queues) == ("ours", ["ours", "other"])


def test_a_queue_learns_the_priority_of_steps(engine: Engine) -> None:
    engine.worker(queues=["rare"])
    started(engine, step("a", queue="rare"), priority=-7)
    assert len(engine.acquire(queues=["rare"]).leases) == 1


def test_a_failed_step_is_tried_again_after_its_own_backoff(engine: Engine) -> None:
    retry = {"max_attempts": 2, "base": 100, "factor": 1, "longest": 100}
    run_id = started(engine, step("a", retry=retry))
    (line,) = engine.fail(ready(engine)["a"])
    run = engine.run(step_run(engine, run_id, "a"))
    assert line["state"] == "scheduled"
    assert timedelta(seconds=50) <= run["run_at"] - engine.now <= timedelta(seconds=101)
    assert states(engine, run_id) == {"a": "pending"}
    assert engine.state(run_id) == "running"
    engine.later(seconds=101)
    engine.tick()
    engine.complete(ready(engine)["a"])
    row = engine.one("select * from pgflow.flow_steps where flow_run_id = %s", run_id)
    assert (row["state"], row["attempts"]) == ("completed", 2)


def test_ids_of_steps_are_greater_than_their_flows(engine: Engine) -> None:
    run_id = started(engine, *DIAMOND)
    finish(engine)
    rows = engine.rows("select run_id from pgflow.flow_steps where flow_run_id = %s", run_id)
    assert all(row["run_id"] > run_id for row in rows)


# ---- the flow's run


def test_a_flows_run_is_no_workers(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.worker()
    leases = engine.acquire().leases
    assert [lease.body["handler"] for lease in leases] == ["a"]
    run = engine.run(run_id)
    assert (run["kind"], run["state"], run["handler"]) == ("flow", "running", "f")
    assert (run["worker_id"], run["lease_no"], run["lease_until"]) == (None, None, None)


WRITES: dict[str, dict[str, Any]] = {
    "complete": {"outputs": ["1"]},
    "fail": {"error_codes": ["E-RUN-001"], "error_details": ["x"]},
    "release": {},
    "record_step": {"keys": ["k"], "digests": ["aa"], "values": ["1"]},
    "record_usage": {"calls": Jsonb([{"call_key": "k"}])},
}


@pytest.mark.parametrize("lease_no", [0, 1, -1])
@pytest.mark.parametrize("verb", WRITES)
def test_no_worker_writes_to_a_flows_run(engine: Engine, verb: str, lease_no: int) -> None:
    run_id = started(engine, step("a"))
    engine.worker()
    before = engine.place.rows()
    (line,) = engine.call(verb, run_ids=[run_id], lease_nos=[lease_no], **WRITES[verb])
    assert line["outcome"] == "lost"
    assert engine.place.rows() == before


def test_a_flows_run_is_not_reaped(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    engine.worker()
    engine.acquire()
    engine.later(hours=1)
    assert engine.tick()["requeued"] == 1
    assert engine.state(run_id) == "running"
    levels = {row["check"]: row["level"] for row in engine.call("doctor")}
    assert "lease without worker" not in levels


def test_a_flows_run_takes_no_place_of_its_queue(engine: Engine) -> None:
    define(engine, step("a"), queue="one")
    runs = [engine.tell("start", flow="f") for _ in range(2)]
    engine.call("define_queue", queue="one", max_concurrent=1)
    assert engine.queue_stats("one")["running"] == 0
    engine.worker("w:2", ["one"])
    for _ in runs:
        (lease,) = engine.acquire(worker_id="w:2", queues=["one"]).leases
        assert engine.queue_stats("one")["available_slots"] == 0
        engine.complete(lease)
    assert [engine.state(run_id) for run_id in runs] == ["completed"] * 2


def test_the_timeline_of_a_flow_tells_of_its_steps(engine: Engine) -> None:
    run_id = started(
        engine, step("a", on_failure="continue"), step("b", "a"), step("c", "a", join="one_failed")
    )
    finish(engine, fail=("a",))
    lines = engine.timeline(run_id)
    assert [(line["type"], line["step"]) for line in lines] == [
        ("run.created", None),
        ("step.started", "a"),
        ("step.failed", "a"),
        ("step.skipped", "b"),
        ("step.started", "c"),
        ("step.completed", "c"),
        ("report.written", None),
        ("run.completed", None),
    ]
    child = str(step_run(engine, run_id, "a"))
    assert lines[1]["payload"] == {"run_id": child}
    assert lines[2]["payload"] == {
        "run_id": child,
        "error_code": "E-RUN-001",
        "error_detail": "boom",
    }


def test_steps_that_end_together_are_told_in_the_order_of_the_definition(engine: Engine) -> None:
    names = [f"s{n}" for n in range(20)]
    run_id = started(engine, *(step(name) for name in reversed(names)))
    work(engine)
    told = [line["step"] for line in engine.timeline(run_id) if line["type"] == "step.completed"]
    assert told == names[::-1]


def test_whoever_watches_a_flow_is_told_of_each_step(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    leases = ready(engine)
    engine.call("watch", run_id=run_id)
    engine.conn.execute("listen pgflow")
    for name in "ab":
        engine.complete(leases[name])
        hints = [n.payload for n in engine.conn.notifies(timeout=0)]
        assert any(str(run_id) in hint for hint in hints), name
        leases = ready(engine)


def test_a_diamond_of_many_steps_is_done_in_three_firings(engine: Engine) -> None:
    middle = [f"m{n}" for n in range(300)]
    run_id = started(engine, step("a"), *(step(name, "a") for name in middle), step("z", *middle))
    work(engine)
    engine.complete(*engine.acquire(300).leases, output="1")
    assert ready(engine)["z"].body["input"] == dict.fromkeys(middle, 1)
    assert engine.row(run_id)["super_step"] == 2


def test_the_view_shows_each_step_from_the_beginning(engine: Engine) -> None:
    run_id = started(engine, *DIAMOND)
    assert states(engine, run_id) == dict.fromkeys("abcd", "pending")
    lease = ready(engine)["a"]
    row = engine.one(
        "select * from pgflow.flow_steps where flow_run_id = %s and step = 'a'", run_id
    )
    assert (row["state"], row["attempts"], row["run_id"]) == ("running", 1, lease.run_id)
    assert (row["flow"], row["seq"], row["started_at"]) == ("f", 1, engine.now)
    engine.complete(lease, output="[1]")
    row = engine.one(
        "select * from pgflow.flow_steps where flow_run_id = %s and step = 'a'", run_id
    )
    assert (row["state"], row["attempts"], row["output"]) == ("completed", 1, [1])
    assert row["ended_at"] == engine.now


# ---- start


def test_a_flow_is_started_in_the_callers_transaction(engine: Engine) -> None:
    define(engine, step("a"))
    before = engine.place.rows()
    with engine.conn.transaction(force_rollback=True):
        engine.call("start", flow="f")
    assert engine.place.rows() == before


def test_a_version_that_is_named_is_started(engine: Engine) -> None:
    old = define(engine, step("old"))["version"]
    define(engine, step("new"))
    run_id = engine.tell("start", flow="f", version=old)
    assert list(states(engine, run_id)) == ["old"]


@pytest.mark.parametrize(
    ("given", "field"), [({"flow": "nobody"}, "flow"), ({"version": 999}, "version")], ids=str
)
def test_an_unknown_flow_or_version_is_refused(engine: Engine, given: Row, field: str) -> None:
    version = define(engine, step("a"))["version"]
    with engine.refused("PF106", field) as refused:
        engine.call("start", **{"flow": "f", **given})
    known = "none" if field == "flow" else str(version)
    assert known in (refused.value.diag.message_detail or "")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"priority": 10}, "priority"),
        ({"deadline": "2001-01-01"}, "deadline"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "pgflow:x"}, "idempotency_key"),
        ({"correlation_id": ""}, "correlation_id"),
        ({"run_id": UUID(int=7)}, "run_id"),
        ({"tags": ["t" * 101]}, "tags"),
    ],
    ids=str,
)
def test_what_no_run_may_have_is_refused(engine: Engine, given: Row, field: str) -> None:
    define(engine, step("a"))
    with engine.refused("PF101", field):
        engine.call("start", flow="f", **given)


def test_an_input_that_is_too_large_is_refused(engine: Engine) -> None:
    define(engine, step("a"))
    with engine.refused("PF101", "input"):
        engine.call("start", flow="f", input=Jsonb("x" * 9_000_000))


def test_the_same_key_starts_one_run(engine: Engine) -> None:
    run_id = started(engine, step("a"), idempotency_key="k", input={"n": 1})
    before = engine.place.rows()
    assert engine.tell("start", flow="f", idempotency_key="k", input={"n": 1}) == run_id
    assert engine.place.rows() == before
    finish(engine)
    assert engine.tell("start", flow="f", idempotency_key="k", input={"n": 1}) == run_id


def test_a_key_of_another_input_flow_or_handler_is_refused(engine: Engine) -> None:
    started(engine, step("a"), idempotency_key="k")
    define(engine, step("a"), name="g")
    others: list[tuple[str, Row]] = [
        ("start", {"flow": "f", "input": Jsonb(2)}),
        ("start", {"flow": "g"}),
        ("enqueue", {"handler": "f"}),
    ]
    for verb, given in others:
        with engine.refused("PF401", "idempotency_key"):
            engine.call(verb, **given, idempotency_key="k")


def test_a_run_id_that_is_given_is_a_key_too(engine: Engine) -> None:
    run_id = engine.value("select pgflow._new_id()")
    assert started(engine, step("a"), run_id=run_id, input={"n": 1}) == run_id
    assert engine.tell("start", flow="f", run_id=run_id, input={"n": 1}) == run_id
    with engine.refused("PF401", "run_id"):
        engine.call("start", flow="f", run_id=run_id, input={"n": 2})
    assert engine.value("select count(*) from pgflow.runs where parent_run_id = %s", run_id) == 1
