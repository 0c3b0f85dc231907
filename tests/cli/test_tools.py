"""Signals and the results of tools."""

from __future__ import annotations

import psycopg

from tests.cli.conftest import Command
from tests.parked import parked, value

TOOL = {"kind": "tool", "key": "video", "tool": "transcode", "arguments": {"src": "a.mp4"}}


def test_a_signal_wakes_a_run(succeeds: Command, db: psycopg.Connection) -> None:
    run = parked(db, {"kind": "event", "key": "payment", "name": "payment"})
    first = succeeds("signal", run, "payment", '{"paid": 5}', "--idempotency-key", "k").out
    assert int(first) > 1
    (told,) = succeeds(
        "signal", run, "payment", "-", "--idempotency-key", "k", "--json", stdin='{"paid":5}'
    ).objects
    assert told == {"run_id": str(run), "signal_no": int(first)}
    assert value(db, "select state from pgflow.runs") == "pending"
    (entry,) = succeeds("journal", run, "--json").objects
    assert entry["value"] == {"paid": 5}


def test_a_tool_call_is_listed_and_resolved(succeeds: Command, db: psycopg.Connection) -> None:
    run = parked(db, TOOL)
    head, line = succeeds("tool", "list", "--run", run).lines
    assert head.split()[:5] == ["run_id", "key", "tool", "status", "arguments"]
    assert line.startswith(f'{run}  video  transcode  open    {{"src": "a.mp4"}}')
    assert succeeds("tool", "resolve", run, "video", '{"url": "b"}').out == "pending\n"
    told = succeeds("tool", "resolve", run, "video", '{"url":"b"}', "--json").objects
    assert told == [{"run_id": str(run), "state": "pending"}]
    assert succeeds("tool", "list", "--status", "open", "--json").out == ""
    (call,) = succeeds("tool", "list", "--name", "transcode", "--json").objects
    assert (call["status"], call["arguments"]) == ("resolved", {"src": "a.mp4"})


def test_calls_that_nobody_waits_for_any_more_are_listed_by_their_status(
    succeeds: Command, db: psycopg.Connection
) -> None:
    run = parked(db, TOOL)
    succeeds("cancel", run)
    parked(db, TOOL)
    (call,) = succeeds("tool", "list", "--status", "dropped", "--json").objects
    assert (call["run_id"], call["status"]) == (str(run), "dropped")


def test_a_tool_call_fails_with_words(succeeds: Command, db: psycopg.Connection) -> None:
    run = parked(db, TOOL, max_attempts=1)
    assert succeeds("tool", "fail", run, "video", "no codec").out == "failed\n"
    assert "no codec" in succeeds("tool", "list").lines[1]
    (told,) = succeeds("show", run, "--json").objects
    assert told["error_detail"] == "tool call video failed: no codec"


def test_a_result_of_null_is_the_default(succeeds: Command, db: psycopg.Connection) -> None:
    run = parked(db, TOOL)
    succeeds("tool", "resolve", run, "video")
    (entry,) = succeeds("journal", run, "--json").objects
    assert entry["value"] is None
