"""Fan-out: a step that is executed once for each element of a list."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import (
    define,
    elements,
    elements_of,
    finish,
    gate,
    ready,
    started,
    states,
    step,
    task_of,
    work,
)
from tests.sql.waits import event

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Row

EACH = step("each", "list", each="$.list[*]")
THREE = (step("list"), EACH, step("sum", "each"))


def fanned(engine: Engine, *values: object, steps: tuple[Row, ...] = THREE, **how: Any) -> UUID:
    """Start a flow whose first step returns a list; the others are ready."""
    run_id = started(engine, *steps, **how)
    work(engine, list=list(values))
    return run_id


# ---- what it does


def test_a_step_is_executed_for_each_element_with_nothing_else_as_its_input(
    engine: Engine,
) -> None:
    run_id = fanned(engine, {"a": 1}, None, [2])
    leases = elements(engine)
    assert {n: lease.body["input"] for n, lease in leases.items()} == {1: {"a": 1}, 2: None, 3: [2]}
    assert elements_of(engine, run_id) == {0: "running", 1: "running", 2: "running", 3: "running"}


def test_the_step_completes_with_its_last_element_and_has_the_list_of_the_outputs(
    engine: Engine,
) -> None:
    run_id = fanned(engine, *"abc")
    leases = elements(engine)
    engine.complete(leases[3], output="30")
    engine.complete(leases[1], output="null")
    assert ready(engine) == {}
    engine.complete(leases[2], output='{"x": 20}')
    assert ready(engine)["sum"].body["input"] == {"each": [None, {"x": 20}, 30]}
    assert elements_of(engine, run_id) == dict.fromkeys(range(4), "completed")
    row = engine.one(
        "select output, elements, elements_left, run_id from pgflow.flow_steps"
        " where flow_run_id = %s and step = 'each' and element = 0",
        run_id,
    )
    assert row == {
        "output": [None, {"x": 20}, 30],
        "elements": 3,
        "elements_left": 0,
        "run_id": None,
    }
    engine.timeline(run_id)


def test_elements_that_end_together_are_counted_together(engine: Engine) -> None:
    run_id = fanned(engine, *range(5))
    assert finish(engine) == [["each"], ["sum"]]
    assert engine.state(run_id) == "completed"


def test_a_flow_whose_last_step_is_done_for_each_returns_the_list(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2, steps=(step("list"), EACH))
    leases = elements(engine)
    engine.complete(leases[2], leases[1], outputs=["2", "1"])
    run = engine.run(run_id)
    assert (run["state"], run["output"]) == ("completed", {"each": [1, 2]})


def test_an_empty_list_completes_the_step_at_once(engine: Engine) -> None:
    run_id = fanned(engine)
    assert ready(engine)["sum"].body["input"] == {"each": []}
    assert elements_of(engine, run_id) == {0: "completed"}
    engine.timeline(run_id)


def test_a_flow_of_nothing_but_an_empty_list_is_completed_when_it_starts(engine: Engine) -> None:
    run_id = started(engine, step("each", each="$.files[*]"), input={"files": []})
    run = engine.run(run_id)
    assert (run["state"], run["output"]) == ("completed", {"each": []})


def test_empty_lists_after_each_other_are_passed_in_one_go(engine: Engine) -> None:
    steps = (step("a", each="$.x[*]"), step("b", "a", each="$.a[*]"), step("c", "b"))
    started(engine, *steps, input={"x": []})
    assert ready(engine)["c"].body["input"] == {"b": []}


def test_a_path_may_go_deeper_and_choose(engine: Engine) -> None:
    each = step("each", each="$.files[*] ? (@.size > 1).name")
    files = [{"name": "a", "size": 1}, {"name": "b", "size": 2}, {"name": "c", "size": 3}]
    started(engine, each, input={"files": files})
    assert {n: e.body["input"] for n, e in elements(engine).items()} == {1: "b", 2: "c"}


def test_two_lists_can_be_done_at_the_same_time(engine: Engine) -> None:
    steps = (
        step("one", each="$.x[*]"),
        step("two", each="$.y[*]"),
        step("both", "one", "two"),
    )
    run_id = started(engine, *steps, input={"x": [1, 2], "y": [3]})
    engine.worker()
    leases = engine.acquire().leases
    outputs = [json.dumps(lease.body["input"] * 10) for lease in leases]
    engine.complete(*leases, outputs=outputs)
    assert ready(engine)["both"].body["input"] == {"one": [10, 20], "two": [30]}
    engine.timeline(run_id)


def test_the_timeline_has_a_line_for_the_step_and_none_for_its_elements(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2)
    finish(engine)
    lines = [
        (line["type"], line["payload"])
        for line in engine.timeline(run_id)
        if line["step"] == "each"
    ]
    assert lines == [("step.started", {"elements": 2}), ("step.completed", {})]


def test_a_large_input_of_the_flow_is_not_given_to_each_element(engine: Engine) -> None:
    files = [hashlib.sha512(b"%d" % n).hexdigest() for n in range(80)]
    started(engine, step("each", each="$.files[*]"), input={"files": files})
    told = elements(engine)[80].body["flow"]
    assert ("input" in told, told["input_is_left_out"]) == (False, True)


# ---- what cannot be


@pytest.mark.parametrize(
    ("value", "why"),
    [(7, "array accessor"), ({"a": 1}, "array accessor"), (None, "array accessor")],
    ids=repr,
)
def test_what_is_no_list_fails_the_step(engine: Engine, value: object, why: str) -> None:
    run_id = started(engine, *THREE)
    work(engine, list=value)
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-019")
    assert run["error_detail"].startswith("step each: each finds no elements: ")
    assert why in run["error_detail"]
    assert states(engine, run_id) == {"list": "completed", "each": "failed", "sum": "cancelled"}
    engine.timeline(run_id)


def test_a_name_that_is_not_there_fails_the_step(engine: Engine) -> None:
    run_id = started(engine, step("each", each="$.files[*]"), input={"file": []})
    assert engine.run(run_id)["error_code"] == "E-RUN-019"


def test_a_lax_path_finds_nothing_where_there_is_nothing(engine: Engine) -> None:
    run_id = started(engine, step("each", each="lax $.files[*]"), input={"file": []})
    assert engine.run(run_id)["output"] == {"each": []}


def test_a_flow_can_go_on_after_a_step_that_found_no_list(engine: Engine) -> None:
    steps = (
        step("list"),
        {**EACH, "on_failure": {"run": "mend"}},
        step("mend"),
        step("sum", "each", "mend", join="none_failed"),
    )
    run_id = started(engine, *steps)
    work(engine, list=7)
    failures = ready(engine)["mend"].body["flow"]["failures"]
    assert failures["each"]["error_code"] == "E-RUN-019"
    assert states(engine, run_id)["sum"] == "skipped"


@pytest.mark.parametrize(
    ("each", "why"),
    [
        ("$.list[", "each must be a SQL/JSON path to the elements of a list"),
        ("list", "each must be a SQL/JSON path"),
        ("$.list", "each must be a SQL/JSON path"),
        ("", "each must be a SQL/JSON path of at most 1000 characters"),
        (7, "each must be a SQL/JSON path of at most 1000 characters"),
    ],
    ids=repr,
)
def test_a_path_that_is_none_is_refused_with_the_name_of_the_step(
    engine: Engine, each: object, why: str
) -> None:
    with engine.refused("PF101", "definition.steps[1].each") as refused:
        define(engine, step("list"), step("each", "list", each=each))
    assert f"step each: {why}" in str(refused.value)


def test_what_is_asked_or_waited_for_cannot_be_done_for_each(engine: Engine) -> None:
    with engine.refused("PF101", "definition.steps[0].each") as refused:
        define(engine, {**gate("ok"), "each": "$.x[*]"})
    assert "each must be left out: a approval_gate" in str(refused.value)


# ---- failures


def test_an_element_that_fails_ends_the_flow_at_once(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2, 3)
    leases = elements(engine)
    engine.fail(leases[2], retries=[False])
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-001")
    assert run["error_detail"] == "step each: element 2: boom"
    assert elements_of(engine, run_id) == {0: "failed", 1: "cancelled", 2: "failed", 3: "cancelled"}
    engine.timeline(run_id)


def test_an_element_that_fails_where_the_flow_goes_on_waits_for_the_rest(engine: Engine) -> None:
    goes_on = {**EACH, "on_failure": "continue"}
    steps = (step("list"), goes_on, step("sum", "each", join="one_failed"))
    run_id = fanned(engine, 1, 2, 3, steps=steps)
    leases = elements(engine)
    engine.fail(leases[3], retries=[False])
    engine.fail(leases[2], retries=[False])
    assert ready(engine) == {}
    engine.complete(leases[1])
    told = ready(engine)["sum"].body["flow"]["failures"]["each"]
    assert told["error_detail"] == "element 2: boom"
    assert elements_of(engine, run_id) == {0: "failed", 1: "completed", 2: "failed", 3: "failed"}
    engine.timeline(run_id)


def test_an_element_is_retried_by_itself(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2)
    leases = elements(engine)
    engine.complete(leases[1])
    engine.fail(leases[2])
    engine.later(seconds=60)
    engine.tick()
    assert list(elements(engine)) == [2]
    assert engine.state(run_id) == "running"


def test_a_retry_keeps_the_elements_that_completed(engine: Engine) -> None:
    run_id = fanned(engine, "a", "b", "c")
    leases = elements(engine)
    engine.complete(leases[1], leases[3], outputs=['"A"', '"C"'])
    engine.fail(leases[2], retries=[False])
    again = engine.tell("retry", run_id=run_id)
    (lease,) = elements(engine).values()
    assert (lease.body["input"], lease.body["flow"]["element"]) == ("b", 2)
    engine.complete(lease, output='"B"')
    assert ready(engine)["sum"].body["input"] == {"each": ["A", "B", "C"]}
    engine.timeline(again)


def test_a_retry_does_again_what_its_list_has_elsewhere_now(engine: Engine) -> None:
    each = step("each", "a", "b", each="lax $.*[*]", join="any")
    run_id = started(engine, step("a"), step("b"), each)
    leases = ready(engine)
    engine.complete(leases["b"], output='["x", "y", "z"]')
    parts = elements(engine)
    engine.complete(leases["a"], output='["y"]')
    engine.complete(parts[1], parts[2], outputs=['"X"', '"Y"'])
    engine.fail(parts[3], retries=[False])
    engine.tell("retry", run_id=run_id)
    again = {n: lease.body["input"] for n, lease in elements(engine).items()}
    assert again == {1: "y", 2: "x", 3: "y", 4: "z"}


def test_a_retry_of_a_completed_step_keeps_its_list(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2)
    finish(engine, fail=("sum",), each="x")
    again = engine.tell("retry", run_id=run_id)
    assert ready(engine)["sum"].body["input"] == {"each": ["x", "x"]}
    assert elements_of(engine, again) == dict.fromkeys(range(3), "completed")


# ---- steering


def test_a_flow_is_cancelled_with_its_elements(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2, 3)
    leases = elements(engine)
    engine.complete(leases[1])
    assert engine.tell("cancel", run_id=run_id) == "cancelled"
    assert elements_of(engine, run_id) == {
        0: "cancelled",
        1: "completed",
        2: "cancelled",
        3: "cancelled",
    }
    assert engine.complete(leases[2])[0]["outcome"] == "lost"
    assert engine.value("select count(*) from pgflow.run where parent_run_id = %s", run_id) == 0


def test_a_paused_flow_keeps_what_its_elements_return(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2)
    leases = elements(engine)
    engine.call("pause", run_id=run_id)
    engine.complete(leases[1], leases[2], outputs=["1", "2"])
    assert ready(engine) == {}
    assert elements_of(engine, run_id)[0] == "completed"
    engine.call("resume", run_id=run_id)
    assert ready(engine)["sum"].body["input"] == {"each": [1, 2]}
    engine.timeline(run_id)


def test_an_element_that_failed_while_the_flow_was_paused_ends_it_when_resumed(
    engine: Engine,
) -> None:
    run_id = fanned(engine, 1, 2)
    leases = elements(engine)
    engine.call("pause", run_id=run_id)
    engine.fail(leases[1], retries=[False])
    engine.complete(leases[2])
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "failed"
    assert engine.run(run_id)["error_detail"] == "step each: element 1: boom"


def test_a_flow_waits_while_all_elements_that_are_left_wait(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2, 3)
    leases = elements(engine)
    engine.park(leases[1])
    engine.park(leases[3], event())
    assert engine.state(run_id) == "running"
    engine.complete(leases[2])
    run = engine.run(run_id)
    assert (run["state"], run["waits_for"]) == ("waiting_approval", ["each#1", "each#3"])
    engine.approve(engine.task(leases[1].run_id))
    assert engine.state(run_id) == "running"


def test_going_back_behind_a_step_does_all_of_its_elements_again(engine: Engine) -> None:
    steps = (step("list"), EACH, gate("ok", "each"))
    run_id = fanned(engine, 1, 2, steps=steps)
    leases = elements(engine)
    engine.complete(*leases.values(), outputs=['"old"'] * 2)
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="list")
    work(engine, list=[7, 8, 9])
    again = elements(engine)
    assert {n: lease.body["input"] for n, lease in again.items()} == {1: 7, 2: 8, 3: 9}
    assert again[1].body["flow"]["version"] == 1
    engine.complete(*again.values(), outputs=['"new"'] * 3)
    rows = engine.rows(
        "select version, state, output from pgflow.flow_steps"
        " where flow_run_id = %s and step = 'each' and element = 0 order by version",
        run_id,
    )
    assert [tuple(row.values()) for row in rows] == [
        (0, "voided", ["old", "old"]),
        (1, "completed", ["new", "new", "new"]),
    ]
    engine.approve(task_of(engine, run_id, "ok"))
    assert engine.state(run_id) == "completed"
    engine.timeline(run_id)


def test_going_back_ends_elements_that_run(engine: Engine) -> None:
    steps = (step("list"), EACH, gate("ok", "list"), step("sum", "each", "ok"))
    run_id = fanned(engine, 1, 2, steps=steps)
    leases = elements(engine)
    engine.complete(leases[1])
    engine.reject(task_of(engine, run_id, "ok"), rollback_to="list")
    assert engine.complete(leases[2])[0]["outcome"] == "lost"
    assert finish(engine, list=[5]) == [["list"], ["each"]]
    engine.approve(task_of(engine, run_id, "ok"))
    assert finish(engine) == [["sum"]]
    assert engine.state(run_id) == "completed"


def test_an_element_can_be_cancelled_by_itself(engine: Engine) -> None:
    steps = (step("list"), {**EACH, "on_failure": "continue"})
    run_id = fanned(engine, 1, 2, steps=steps)
    leases = elements(engine)
    engine.call("cancel", run_id=leases[1].run_id)
    engine.complete(leases[2])
    assert elements_of(engine, run_id) == {0: "cancelled", 1: "cancelled", 2: "completed"}
    assert engine.state(run_id) == "completed"


# Entries of indexes and rows of tables that scans came to; both looks are in one transaction.
READ = """
    select sum(pg_stat_get_xact_tuples_returned(c.oid)) from pg_class c
    where c.relnamespace = 'pgflow'::regnamespace
      and (c.relname like 'flow_step%%' or c.relname like 'run%%'
        or c.relname in ('a_step_counts_once', 'step_is_unsettled'))
"""


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_what_the_end_of_an_element_reads_does_not_depend_on_how_many_there_are(
    engine: Engine,
) -> None:
    def read_for_one_of(many: int) -> int:
        define(engine, step("each", each="$[*]"), name=f"f{many}")
        engine.tell("start", flow=f"f{many}", input=Jsonb(list(range(many))))
        engine.rows("analyze pgflow.run, pgflow.run_finished, pgflow.flow_step")
        (lease,) = engine.acquire(1).leases
        with engine.conn.transaction():
            before = engine.value(READ)
            engine.complete(lease)
            read: int = engine.value(READ) - before
        engine.call("cancel", run_id=lease.body["flow"]["run_id"])
        return read

    engine.worker()
    few = read_for_one_of(10)
    assert few > 0
    assert read_for_one_of(1000) < few + 500


def test_an_element_is_found_by_the_key_of_its_run(engine: Engine) -> None:
    run_id = fanned(engine, 1, 2)
    keys = engine.rows(
        "select parent_key, step from pgflow.runs where parent_run_id = %s and step = 'each'"
        " order by parent_key",
        run_id,
    )
    assert [tuple(key.values()) for key in keys] == [("each#1", "each"), ("each#2", "each")]


# ---- with state values and layers


def test_what_elements_write_is_reduced_in_their_order_when_the_step_ends(engine: Engine) -> None:
    define(engine, *THREE, channels={"seen": {"reducer": "append"}})
    run_id = engine.tell("start", flow="f")
    work(engine, list=[1, 2])
    leases = elements(engine)
    for n in (2, 1):
        engine.complete(leases[n], writes=[json.dumps([{"channel": "seen", "value": n}])])
    assert ready(engine)["sum"].body["flow"]["state"] == {"seen": [1, 2]}
    engine.timeline(run_id)


def test_in_layers_a_step_for_each_is_waited_for_with_the_others(engine: Engine) -> None:
    steps = (step("each", each="$[*]"), step("b"), step("c", "each"), step("d", "b"))
    define(engine, *steps, layered=True)
    run_id = engine.tell("start", flow="f", input=Jsonb([1, 2]))
    engine.worker()
    leases = engine.acquire().leases
    *first, last = leases
    engine.complete(*first)
    assert ready(engine) == {}
    engine.complete(last)
    assert work(engine) == ["c", "d"]
    assert engine.state(run_id) == "completed"
