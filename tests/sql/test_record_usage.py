"""record_usage: calls of models go into the ledger, and what they cost to their runs."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row

CALL = {
    "call_key": "draft/usage@1",
    "step": "draft",
    "actor": "writer@3",
    "model": "m-1",
    "role": "writer",
    "thread_id": "t-1",
    "turn_index": 2,
    "input_tokens": 900,
    "output_tokens": 80,
    "cached_tokens": 100,
    "reasoning_tokens": 0,
    "cost_usd_input": 0.015,
    "cost_usd_output": 0.005,
    "cost_usd_total": 0.02,
    "latency_ms": 1200,
    "status": "ok",
    "error_code": None,
    "request_id": "req-1",
}


def ledger(engine: Engine, lease: Lease) -> list[Row]:
    return engine.rows(
        "select * from pgflow.model_calls where run_id = %s order by call_key", lease.run_id
    )


def outcomes(lines: list[Row]) -> list[tuple[str, str | None]]:
    return [(line["outcome"], line["code"]) for line in lines]


def test_a_call_is_a_row_of_the_ledger(engine: Engine) -> None:
    lease = engine.leased()
    assert engine.record_usage(lease, CALL) == []
    (row,) = ledger(engine, lease)
    costs = {k: Decimal(str(v)) for k, v in CALL.items() if k.startswith("cost")}
    assert {k: row[k] for k in CALL} == {**CALL, **costs}
    assert (row["run_id"], row["attempt"], row["lease_no"]) == (lease.run_id, 0, 1)
    assert row["at"] == engine.now
    assert engine.run(lease.run_id)["cost_usd"] == Decimal("0.02")


def test_a_call_needs_nothing_but_its_key(engine: Engine) -> None:
    lease = engine.leased()
    assert engine.record_usage(lease, {"call_key": "a"}) == []
    (row,) = ledger(engine, lease)
    assert (row["status"], row["model"], row["cost_usd_total"]) == ("ok", None, None)
    assert engine.run(lease.run_id)["cost_usd"] is None


def test_a_failed_call_is_recorded_too(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_usage(lease, {"call_key": "a", "error_code": "429", "cost_usd_total": 1})
    (row,) = ledger(engine, lease)
    assert (row["status"], row["error_code"]) == ("failed", "429")
    assert engine.run(lease.run_id)["cost_usd"] == 1


def test_the_total_is_the_sum_of_both_sides_unless_it_is_given(engine: Engine) -> None:
    lease = engine.leased()
    both = {"cost_usd_input": 1, "cost_usd_output": 2}
    engine.record_usage(
        lease,
        {"call_key": "a", **both},
        {"call_key": "b", **both, "cost_usd_total": 5},
        {"call_key": "c", "cost_usd_input": 1},
    )
    assert [row["cost_usd_total"] for row in ledger(engine, lease)] == [3, 5, None]
    assert engine.run(lease.run_id)["cost_usd"] == 8


def test_the_same_again_is_already_told_and_costs_nothing_twice(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_usage(lease, CALL)
    before = engine.place.rows()
    again = engine.record_usage(lease, CALL, {**CALL, "cost_usd_total": 7})
    assert outcomes(again) == [("already", CALL["call_key"])] * 2
    assert engine.place.rows() == before


def test_the_same_key_twice_in_a_batch_counts_once(engine: Engine) -> None:
    lease = engine.leased()
    assert outcomes(engine.record_usage(lease, CALL, CALL)) == [("already", CALL["call_key"])]
    assert engine.run(lease.run_id)["cost_usd"] == Decimal("0.02")


@pytest.mark.parametrize("how", ["complete", "release", "cancel"])
def test_the_same_again_after_the_lease_is_already_told(engine: Engine, how: str) -> None:
    lease = engine.leased()
    engine.record_usage(lease, CALL)
    if how == "cancel":
        engine.call("cancel", run_id=lease.run_id)
    else:
        getattr(engine, how)(lease)
    before = engine.place.rows()
    assert outcomes(engine.record_usage(lease, CALL)) == [("already", CALL["call_key"])]
    assert engine.place.rows() == before


def test_a_call_counts_once_over_all_leases(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_usage(lease, CALL)
    engine.release(lease)
    again = engine.lease_of(lease.run_id)
    lines = engine.record_usage(again, CALL, {"call_key": "b", "cost_usd_total": 1})
    assert outcomes(lines) == [("already", CALL["call_key"])]
    assert [row["lease_no"] for row in ledger(engine, lease)] == [2, 1]
    engine.complete(again)
    assert engine.run(lease.run_id)["cost_usd"] == Decimal("1.02")


def test_a_lost_lease_is_told_and_changes_nothing(engine: Engine) -> None:
    old = engine.leased()
    engine.release(old)
    new = engine.lease_of(old.run_id)
    before = engine.place.rows()
    assert outcomes(engine.record_usage(old, CALL)) == [("lost", CALL["call_key"])]
    assert engine.place.rows() == before
    assert engine.record_usage(new, CALL) == []


def test_a_run_that_nobody_knows_is_lost(engine: Engine) -> None:
    (line,) = engine.call("record_usage", run_ids=[uuid4()], lease_nos=[1], calls=Jsonb([CALL]))
    assert (line["outcome"], line["code"]) == ("lost", CALL["call_key"])


def test_several_calls_of_several_runs_go_at_once(engine: Engine) -> None:
    one, other = engine.leased(), engine.leased()
    lost = engine.leased()
    engine.call("cancel", run_id=lost.run_id)
    leases = [other, one, lost, other]
    lines = engine.call(
        "record_usage",
        run_ids=[lease.run_id for lease in leases],
        lease_nos=[1] * 4,
        calls=Jsonb([{"call_key": str(n), "cost_usd_total": 2**n} for n in range(4)]),
    )
    assert [(line["run_id"], line["outcome"]) for line in lines] == [(lost.run_id, "lost")]
    assert engine.run(one.run_id)["cost_usd"] == 2
    assert engine.run(other.run_id)["cost_usd"] == 9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("colour", "red"),
        ("lease_no", 7),
        ("project_id", "theirs"),
        ("input_tokens", -1),
        ("output_tokens", "80"),
        ("cached_tokens", 1.5),
        ("reasoning_tokens", True),
        ("latency_ms", 2**31),
        ("turn_index", [1]),
        ("cost_usd_total", -0.01),
        ("cost_usd_total", "-1"),
        ("cost_usd_total", "1e3"),
        ("cost_usd_total", "NaN"),
        ("cost_usd_total", "1000000001"),
        ("cost_usd_total", ""),
        ("input_tokens", "7"),
        ("cost_usd_output", 10**10),
        ("model", 4),
        ("request_id", "x" * 501),
        ("step", ""),
        ("status", "fine"),
        ("status", 1),
        ("call_key", ""),
        ("call_key", None),
        ("call_key", 3),
        ("call_key", "x" * 601),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_call_is_refused_alone_and_the_field_named(
    engine: Engine, field: str, value: object
) -> None:
    lease = engine.leased()
    bad = {"call_key": "b", "cost_usd_total": 1, field: value}
    lines = engine.record_usage(lease, {**CALL, "call_key": "a"}, bad, {"call_key": "c"})
    assert [line["outcome"] for line in lines] == ["refused"]
    assert lines[0]["detail"].startswith(f"{field} ")
    assert [row["call_key"] for row in ledger(engine, lease)] == ["a", "c"]
    assert engine.run(lease.run_id)["cost_usd"] == Decimal("0.02")


@pytest.mark.parametrize("call", [{}, [], 1, "x", None], ids=repr)
def test_what_is_no_call_is_refused_alone(engine: Engine, call: object) -> None:
    lease = engine.leased()
    lines = engine.call(
        "record_usage",
        run_ids=[lease.run_id] * 2,
        lease_nos=[1, 1],
        calls=Jsonb([call, {"call_key": "a"}]),
    )
    assert outcomes(lines) == [("refused", None)]
    assert len(ledger(engine, lease)) == 1


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("run_ids", {"run_ids": []}),
        ("lease_nos", {"lease_nos": []}),
        ("arrays", {"calls": Jsonb([])}),
        ("arrays", {"calls": Jsonb({"call_key": "a"})}),
        ("arrays", {"calls": None}),
    ],
    ids=str,
)
def test_lists_that_do_not_fit_are_refused(
    engine: Engine, field: str, change: dict[str, object]
) -> None:
    lease = engine.leased()
    given: dict[str, object] = {
        "run_ids": [lease.run_id],
        "lease_nos": [1],
        "calls": Jsonb([CALL]),
    }
    with engine.refused("PF101", field):
        engine.call("record_usage", **{**given, **change})


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_the_sum_of_the_ledger_is_what_the_run_has_cost(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_usage(lease, *({"call_key": str(n), "cost_usd_total": n} for n in range(50)))
    engine.complete(lease)
    total = engine.value(
        "select sum(cost_usd_total) from pgflow.model_calls where run_id = %s", lease.run_id
    )
    assert engine.run(lease.run_id)["cost_usd"] == total == 1225


@pytest.mark.parametrize("cost", ["0", "0.1", "1000000000", "0." + "1" * 50])
def test_a_cost_may_be_a_text_of_digits(engine: Engine, cost: str) -> None:
    lease = engine.leased()
    assert engine.record_usage(lease, {"call_key": "a", "cost_usd_input": cost}) == []
    (row,) = ledger(engine, lease)
    assert row["cost_usd_input"] == Decimal(cost)
