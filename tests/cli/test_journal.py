"""Interrupts, breakpoints, forks, and what a run has learned."""

from __future__ import annotations

import psycopg
import pytest

from tests.cli.conftest import Command
from tests.parked import parked, value

INTERRUPT = {"kind": "interrupt", "key": "how", "title": "How?"}


@pytest.mark.parametrize(("text", "expected"), [("42", 42), ("null", None), ('{"a": 1}', {"a": 1})])
def test_an_interrupted_run_is_resumed_with_a_value(
    succeeds: Command, db: psycopg.Connection, text: str, expected: object
) -> None:
    run = parked(db, INTERRUPT)
    assert succeeds("resume", run, "--value", text).out == "pending\n"
    (entry,) = succeeds("journal", run, "--json").objects
    assert (entry["key"], entry["value"]) == ("how", expected)


def test_a_value_names_the_call_that_it_is_for(
    succeeds: Command, pgflow: Command, db: psycopg.Connection
) -> None:
    run = parked(db, INTERRUPT, {**INTERRUPT, "key": "why"})
    done = pgflow("resume", run, "--value", "1")
    assert done.code == 1
    assert "the key of one open interrupt: how, why" in done.err
    assert succeeds("resume", run, "--value", "1", "--key", "why").out == "paused\n"
    assert succeeds("resume", run, "--value", "2", "--key", "how").out == "pending\n"


def test_entries_are_replaced_before_a_run_goes_on(
    succeeds: Command, db: psycopg.Connection
) -> None:
    run = parked(db, {"kind": "approval", "key": "ok", "title": "Fine?"}, steps={"a=b": 1, "c": 2})
    succeeds("pause", run)
    succeeds("resume", run, "--update", 'c={"d": null}')
    entries = succeeds("journal", run, "--json").objects
    assert {(e["key"], str(e["value"]), e["voided"]) for e in entries} == {
        ("a=b", "1", False),
        ("c", "2", True),
        ("c", "{'d': None}", False),
    }
    assert [line.split()[3] for line in succeeds("journal", run).lines[1:]] == ["-", "round", "-"]


def test_a_run_is_forked_before_a_step(succeeds: Command, db: psycopg.Connection) -> None:
    run = parked(db, INTERRUPT, steps={"draft": "One", "title": "Two"})
    new = succeeds("fork", run, "title", "--set", 'draft="Other"').out.strip()
    (entry,) = succeeds("journal", new, "--json").objects
    assert (entry["key"], entry["value"]) == ("draft", "Other")
    (told,) = succeeds("fork", run, "draft", "--json").objects
    assert told["forked_from"] == str(run)
    assert succeeds("journal", told["run_id"]).lines[1:] == []


def test_breakpoints_are_set_and_cleared(succeeds: Command, db: psycopg.Connection) -> None:
    run = value(db, "select pgflow.enqueue('h')")
    assert succeeds("breakpoint", "set", run, "publish").out == "before publish\n"
    done = succeeds("breakpoint", "set", run, "publish", "--after")
    assert done.lines == ["before publish", "after publish"]
    told = succeeds("breakpoint", "clear", run, "publish", "--json").objects
    assert told == [{"run_id": str(run), "breakpoints": ["after publish"]}]
    assert succeeds("breakpoint", "clear", run, "publish", "--after").out == ""
