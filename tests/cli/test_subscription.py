"""subscription: read the events of all runs, list who reads, end what nobody reads."""

from __future__ import annotations

from tests.cli.conftest import Command, Remains
from tests.cli.test_watch import going, until


def _behind(succeeds: Command) -> int:
    (row,) = succeeds("subscription", "list", "--json").objects
    return int(row["behind"])


def test_events_are_printed_once_and_the_next_reader_goes_on(
    succeeds: Command, remains: Remains, dsn: str
) -> None:
    with going(dsn, "subscription", "read", "audit", "--json") as command:
        until(lambda: succeeds("subscription", "list", "--json").objects)
        succeeds("cancel", remains.pending)
        until(lambda: command.objects() and _behind(succeeds) == 0)
        assert command.ends(interrupted=True)[0] == 130
    (event,) = command.objects()
    assert (event["run_id"], event["type"]) == (str(remains.pending), "run.cancelled")
    succeeds("cancel", remains.waiting)
    with going(dsn, "subscription", "read", "audit", "--type", "run.cancelled") as command:
        until(lambda: command.lines)
        assert command.ends(interrupted=True)[0] == 130
    assert [line.split()[0] for line in command.lines] == [str(remains.waiting)]


def test_the_filters_are_in_the_list(succeeds: Command, remains: Remains, dsn: str) -> None:
    words = ["--type", "note", "--type", "run.failed", "--queue", "q", "--correlation-id", "c"]
    with going(dsn, "subscription", "read", "audit", *words) as command:
        (row,) = until(lambda: succeeds("subscription", "list", "--json").objects)
        assert command.ends(interrupted=True)[0] == 130
    assert row["types"] == ["note", "run.failed"]
    assert (row["queue"], row["correlation_id"]) == ("q", "c")
    succeeds("cancel", remains.pending)
    head, line = succeeds("subscription", "list").lines
    assert dict(zip(head.split(), line.split(), strict=False))["behind"] == "1"


def test_a_subscription_is_ended(succeeds: Command, dsn: str) -> None:
    with going(dsn, "subscription", "read", "audit") as command:
        until(lambda: succeeds("subscription", "list", "--json").objects)
        command.ends(interrupted=True)
    assert succeeds("subscription", "end", "audit").out == "ended\n"
    assert succeeds("subscription", "end", "audit").out == "was not there\n"
    told = succeeds("subscription", "end", "audit", "--json").objects
    assert told == [{"subscription": "audit", "was_there": False}]
    assert succeeds("subscription", "list", "--json").out == ""
