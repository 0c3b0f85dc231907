"""Prices and budgets from the command line."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest

from tests.cli.conftest import Command

SINCE = "2026-01-01T00:00Z"


def test_a_price_that_is_set_is_listed(succeeds: Command) -> None:
    told = succeeds("price", "set", "m-1", "0.003", "0.015", "--from", SINCE, "--cached", "0.0003")
    assert told.lines[1].split()[:2] == ["m-1", "2026-01-01"]
    assert "0.0003" in told.lines[1]
    succeeds("price", "set", "m-1", "1", "2")
    succeeds("price", "set", "m-2", "1", "2")
    first, second = succeeds("price", "list", "--model", "m-1", "--json").objects
    assert (first["output_per_1k_usd"], first["cached_per_1k_usd"]) == (0.015, 0.0003)
    assert first["valid_until"] == second["valid_from"]
    assert len(succeeds("price", "list").lines) == 4


def test_set_prints_the_price_as_json(succeeds: Command) -> None:
    (told,) = succeeds("price", "set", "m-1", "1", "2", "--from", SINCE, "--json").objects
    assert (told["model"], told["input_per_1k_usd"]) == ("m-1", 1)


@pytest.mark.parametrize("words", [("x", "1"), ("1", "2", "--cached", "y")], ids=" ".join)
def test_what_is_no_number_is_wrong_usage(pgflow: Command, words: tuple[str, ...]) -> None:
    done = pgflow("price", "set", "m-1", *words)
    assert done.code == 2
    assert "is not a number" in done.err


def test_a_price_out_of_range_is_refused(pgflow: Command) -> None:
    done = pgflow("price", "set", "m-1", "101", "1")
    assert done.code == 1
    assert "(PF101)" in done.err


def test_a_budget_that_is_given_is_shown(succeeds: Command) -> None:
    run_id = succeeds("enqueue", "greet", "--budget", '{"usd": 2.5}').out.strip()
    lines = succeeds("show", run_id).lines
    shown = [line.split() for line in lines[lines.index("budget") + 1 :]]
    assert ["usd", "2.5"] in shown
    assert ["used_usd", "0"] in shown
    (told,) = succeeds("show", run_id, "--json").objects
    assert (told["budget"]["usd"], told["budget"]["on_breach"]) == (2.5, "fail")
    plain = succeeds("enqueue", "greet").out.strip()
    assert succeeds("show", plain, "--json").objects[0]["budget"] is None
    assert "budget" not in succeeds("show", plain).lines


def test_start_passes_the_budget_on(succeeds: Command, db: psycopg.Connection) -> None:
    db.execute("""select pgflow.define_flow('{"name": "f", "steps": [{"name": "a"}]}')""")
    run_id = UUID(succeeds("start", "f", "--budget", '{"tokens": 7}').out.strip())
    row = db.execute("select tokens from pgflow.budgets where run_id = %s", [run_id]).fetchone()
    assert row == (7,)


def test_a_budget_that_is_none_is_refused(pgflow: Command) -> None:
    done = pgflow("enqueue", "greet", "--budget", '{"usd": 0}')
    assert done.code == 1
    assert "budget.usd" in done.err
