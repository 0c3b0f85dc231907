"""define_price: what models cost, and what a call costs that is recorded without a cost."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row

TOKENS = {"model": "m-1", "input_tokens": 2000, "output_tokens": 500}


def priced(engine: Engine, model: str = "m-1", **more: object) -> Row:
    """Define a price since yesterday: 3 and 15 dollars for a million tokens."""
    given = {
        "input_per_1k_usd": Decimal("0.003"),
        "output_per_1k_usd": Decimal("0.015"),
        "valid_from": engine.now - timedelta(days=1),
        **more,
    }
    (price,) = engine.call("define_price", model=model, **given)
    return price


def costs(engine: Engine, lease: Lease, **call: object) -> tuple[Any, ...]:
    """Record a call and return its costs: input, output, total."""
    assert engine.record_usage(lease, {"call_key": "a", **call}) == []
    row = engine.one("select * from pgflow.model_calls where run_id = %s", lease.run_id)
    return row["cost_usd_input"], row["cost_usd_output"], row["cost_usd_total"]


def complaints(engine: Engine) -> list[str]:
    rows = engine.rows("select detail from pgflow.doctor() where \"check\" = 'model without price'")
    return [row["detail"] for row in rows]


def test_a_cost_that_is_not_told_is_made_by_the_price(engine: Engine) -> None:
    priced(engine)
    lease = engine.leased()
    assert costs(engine, lease, **TOKENS) == (
        Decimal("0.006"),
        Decimal("0.0075"),
        Decimal("0.0135"),
    )
    assert engine.run(lease.run_id)["cost_usd"] == Decimal("0.0135")


def test_a_cost_that_is_told_stands(engine: Engine) -> None:
    priced(engine)
    assert costs(engine, engine.leased(), **TOKENS, cost_usd_total=0) == (None, None, 0)


def test_the_side_that_is_not_told_is_made_by_the_price(engine: Engine) -> None:
    priced(engine)
    told = costs(engine, engine.leased(), **TOKENS, cost_usd_input=1)
    assert told == (1, Decimal("0.0075"), Decimal("1.0075"))


def test_a_side_without_tokens_costs_nothing(engine: Engine) -> None:
    priced(engine)
    told = costs(engine, engine.leased(), model="m-1", input_tokens=1000)
    assert told == (Decimal("0.003"), 0, Decimal("0.003"))


def test_cached_tokens_are_among_the_input_and_have_a_price_of_their_own(engine: Engine) -> None:
    priced(engine, cached_per_1k_usd=Decimal("0.0003"))
    told = costs(engine, engine.leased(), **TOKENS, cached_tokens=1000)
    assert told[0] == Decimal("0.0033")


def test_without_a_price_of_their_own_cached_tokens_cost_as_others(engine: Engine) -> None:
    priced(engine)
    assert costs(engine, engine.leased(), **TOKENS, cached_tokens=1000)[0] == Decimal("0.006")


@pytest.mark.parametrize("call", [{}, {"model": "m-1"}, {"input_tokens": 5}], ids=str)
def test_a_call_of_which_nothing_is_known_has_no_cost(engine: Engine, call: Row) -> None:
    priced(engine)
    assert costs(engine, engine.leased(), **call) == (None, None, None)
    assert complaints(engine) == []


def test_a_failed_call_costs_what_it_took(engine: Engine) -> None:
    priced(engine)
    assert costs(engine, engine.leased(), **TOKENS, error_code="429")[2] == Decimal("0.0135")


def test_the_price_is_that_of_the_calls_time(engine: Engine) -> None:
    priced(engine)
    priced(engine, valid_from=engine.now, output_per_1k_usd=0)
    priced(engine, valid_from=engine.now + timedelta(seconds=1), input_per_1k_usd=9)
    assert costs(engine, engine.leased(), **TOKENS)[2] == Decimal("0.006")
    engine.later(seconds=1)
    assert costs(engine, engine.leased(), **TOKENS)[2] == 18 + Decimal("0.0075")


def test_a_later_price_changes_nothing_that_was_recorded(engine: Engine) -> None:
    priced(engine)
    lease = engine.leased()
    costs(engine, lease, **TOKENS)
    priced(engine, input_per_1k_usd=50)
    assert engine.run(lease.run_id)["cost_usd"] == Decimal("0.0135")


def test_an_unknown_model_has_an_unknown_cost_and_a_line_in_doctor(engine: Engine) -> None:
    lease = engine.leased()
    assert costs(engine, lease, **{**TOKENS, "model": "m-2"}) == (None, None, None)
    assert engine.run(lease.run_id)["cost_usd"] is None
    (line,) = complaints(engine)
    assert "1 calls of model m-2 " in line
    priced(engine, "m-2")
    assert complaints(engine) == []


def test_a_price_that_is_to_come_is_no_price_yet(engine: Engine) -> None:
    priced(engine, valid_from=engine.now + timedelta(days=1))
    assert costs(engine, engine.leased(), **TOKENS) == (None, None, None)
    assert len(complaints(engine)) == 1


def test_prices_are_those_of_the_project(engine: Engine) -> None:
    engine.tell("create_project", project="apart")
    priced(engine, project="apart")
    assert costs(engine, engine.leased(), **TOKENS) == (None, None, None)


def test_the_view_tells_until_when_a_price_holds(engine: Engine) -> None:
    priced(engine)
    priced(engine, valid_from=None)
    rows = engine.rows("select * from pgflow.prices where model = 'm-1' order by valid_from")
    assert [row["valid_until"] for row in rows] == [engine.now, None]
    assert rows[1]["valid_from"] == engine.now


def test_the_same_again_changes_nothing_and_another_for_the_same_time_replaces_it(
    engine: Engine,
) -> None:
    first = priced(engine)
    since = first["valid_from"]
    engine.later(seconds=1)
    assert priced(engine, valid_from=since) == first
    changed = priced(engine, valid_from=since, input_per_1k_usd=1)
    assert (changed["input_per_1k_usd"], changed["defined_at"]) == (1, engine.now)
    (row,) = engine.rows("select * from pgflow.prices where model = 'm-1'")
    assert row["input_per_1k_usd"] == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("model", None),
        ("model", "x" * 501),
        ("input_per_1k_usd", -1),
        ("input_per_1k_usd", None),
        ("output_per_1k_usd", None),
        ("output_per_1k_usd", 101),
        ("output_per_1k_usd", Decimal("NaN")),
        ("cached_per_1k_usd", -1),
        ("valid_from", "2300-01-01"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_price_that_is_none_is_refused_and_the_field_named(
    engine: Engine, field: str, value: object
) -> None:
    given = {"model": "m-1", "input_per_1k_usd": 1, "output_per_1k_usd": 1, field: value}
    with engine.refused("PF101", field):
        engine.call("define_price", **given)
