"""enqueue_many: a run for each input, in one statement."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from tests.sql.conftest import Engine


def test_many_come_in_the_order_of_their_inputs(engine: Engine) -> None:
    run_ids = engine.enqueue_many([{"n": n} for n in range(100)])
    engine.worker()
    leases = engine.acquire().leases
    assert [lease.run_id for lease in leases] == run_ids
    assert [lease.body["input"]["n"] for lease in leases] == list(range(100))


def test_no_inputs_make_no_runs(engine: Engine) -> None:
    assert engine.enqueue_many([]) == []


def test_an_input_of_many_may_be_null(engine: Engine) -> None:
    (run_id,) = engine.rows("select pgflow.enqueue_many('h', array[null]::jsonb[])")
    assert engine.run(run_id["enqueue_many"])["input"] == {}


def test_keys_of_many_are_in_the_order_of_the_inputs(engine: Engine) -> None:
    keys = ["order-2", "order-1", "order-3"]
    run_ids = engine.enqueue_many([{"n": n} for n in range(3)], idempotency_keys=keys)
    assert [engine.run(run_id)["idempotency_key"] for run_id in run_ids] == keys
    assert [engine.run(run_id)["input"]["n"] for run_id in run_ids] == [0, 1, 2]


def test_many_with_known_keys_return_the_runs_that_are_there(engine: Engine) -> None:
    first = engine.enqueue(input={"n": 1}, idempotency_key="order-1")
    both = engine.enqueue_many(
        [{"n": 0}, {"n": 1}], idempotency_keys=["order-0", "order-1"], priority=4
    )
    assert both[1] == first
    assert [engine.run(run_id)["priority"] for run_id in both] == [4, 0]


def test_a_key_twice_in_one_call_is_one_run(engine: Engine) -> None:
    one, two = engine.enqueue_many([{}, {}], idempotency_keys=["order-1", "order-1"])
    assert one == two


def test_one_key_in_conflict_refuses_all(engine: Engine) -> None:
    engine.enqueue(input={"n": 1}, idempotency_key="order-1")
    with engine.refused("PF401", "idempotency_key"):
        engine.enqueue_many([{}, {}], idempotency_keys=["order-0", "order-1"])


def test_a_table_of_inputs_is_refused(engine: Engine) -> None:
    with engine.refused("PF101", "inputs"):
        engine.call("enqueue_many", handler="h", inputs=[[Jsonb(1), Jsonb(2)]])


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_an_input_of_many_over_its_limit_is_refused_by_its_name(engine: Engine) -> None:
    with engine.refused("PF101", "inputs"):
        engine.enqueue_many([{}, {"text": secrets.token_hex(4_200_000)}])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inputs", None),
        ("idempotency_keys", ["order-1"]),
        ("idempotency_keys", ["order-1", None]),
        ("idempotency_key", ["order-1", ""]),
        ("idempotency_key", ["order-1", "pgflow:1"]),
        ("handler", ""),
        ("queue", ""),
        ("priority", 11),
        ("max_attempts", 0),
        ("timeout", timedelta()),
        ("correlation_id", ""),
        ("tags", [None]),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_bad_argument_of_many_is_refused_by_its_name(
    engine: Engine, field: str, value: object
) -> None:
    argument = "idempotency_keys" if field == "idempotency_key" else field
    given = {"handler": "h", "inputs": [Jsonb(1), Jsonb(2)], "queue": "new", argument: value}
    with engine.refused("PF101", field):
        engine.call("enqueue_many", **given)


def test_too_many_inputs_are_refused(engine: Engine) -> None:
    with engine.refused("PF101", "inputs"):
        engine.rows("select pgflow.enqueue_many('h', array_fill('1'::jsonb, array[100001]))")
