from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from tests.cli.conftest import Command, Remains

LATER = "2126-07-01T09:00Z"


def test_enqueue_prints_the_id_and_nothing_else(succeeds: Command, db: psycopg.Connection) -> None:
    done = succeeds("enqueue", "greet", '{"name": "Zoë"}')
    row = db.execute(
        "select input from pgflow.runs where run_id = %s", [UUID(done.out.strip())]
    ).fetchone()
    assert row == ({"name": "Zoë"},)


def test_enqueue_passes_on_all_that_it_is_given(succeeds: Command, db: psycopg.Connection) -> None:
    given = "--queue mail --priority -3 --max-attempts 7 --timeout 1.5 --correlation-id c"
    done = succeeds(
        "enqueue", "greet", "--run-at", LATER, "--deadline", "2126-07-02", *given.split(),
        "--idempotency-key", "k", "--tag", "a b", "--tag", "c", "--json",
    )  # fmt: skip
    (told,) = done.objects
    row = db.execute(
        "select queue, priority, max_attempts, timeout, correlation_id, run_at, deadline,"
        " idempotency_key, tags, state from pgflow.runs where run_id = %s",
        [told["run_id"]],
    ).fetchone()
    assert row == (
        "mail", -3, 7, timedelta(seconds=1.5), "c", datetime(2126, 7, 1, 9, tzinfo=UTC),
        datetime(2126, 7, 2, tzinfo=UTC), "k", ["a b", "c"], "scheduled",
    )  # fmt: skip


def test_enqueue_reads_stdin_for_a_dash(succeeds: Command) -> None:
    succeeds("enqueue", "greet", "-", stdin='{"from": "stdin"}\n')
    (run,) = succeeds("runs", "--json").objects
    assert run["input"] == {"from": "stdin"}


@pytest.mark.parametrize(
    "text", ["null", "[]", "0", '""', "123456789012345678901234567890", '{"a": [1.5, null]}']
)
def test_an_input_is_stored_and_printed_as_it_was_given(succeeds: Command, text: str) -> None:
    succeeds("enqueue", "greet", text)
    assert f'"input": {text}, ' in succeeds("runs", "--json").out


def test_without_an_input_it_is_an_empty_object(succeeds: Command) -> None:
    succeeds("enqueue", "greet")
    (run,) = succeeds("runs", "--json").objects
    assert run["input"] == {}


def test_the_same_idempotency_key_gives_the_same_run(succeeds: Command) -> None:
    first = succeeds("enqueue", "greet", "--idempotency-key", "k")
    assert succeeds("enqueue", "greet", "--idempotency-key", "k").out == first.out


def test_runs_are_listed_newest_first_in_aligned_columns(
    succeeds: Command, remains: Remains
) -> None:
    head, *lines = succeeds("runs").lines
    assert head.split()[:3] == ["run_id", "state", "handler"]
    assert lines[0].split()[:3] == [str(remains.pending), "pending", "add"]
    assert sorted(line.split()[:3] for line in lines[1:]) == sorted(
        [  # of the same millisecond
            [str(remains.waiting), "waiting_approval", "ask"],
            [str(remains.failed), "failed", "fail"],
            [str(remains.completed), "completed", "add"],
        ]
    )
    assert {line[: head.index("state")].rstrip() for line in lines} == {
        str(r) for r in (remains.pending, remains.waiting, remains.failed, remains.completed)
    }


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("--state failed", 1),
        ("--handler add", 2),
        ("--handler add --state completed", 1),
        ("--queue default", 4),
        ("--queue nowhere", 0),
        ("--limit 3", 3),
    ],
)
@pytest.mark.usefixtures("remains")
def test_runs_are_filtered(succeeds: Command, words: str, count: int) -> None:
    assert len(succeeds("runs", *words.split(), "--json").objects) == count
    assert len(succeeds("runs", *words.split()).lines) == count + 1


def test_show_tells_the_fields_and_the_open_tasks(succeeds: Command, remains: Remains) -> None:
    done = succeeds("show", remains.waiting)
    assert ["state", "waiting_approval"] in [line.split() for line in done.lines]
    fields, _, task = done.out.partition(f"\nopen task {remains.task}\n")
    assert "output" not in fields  # what is null is left out
    assert 'payload {"words": 3}' in " ".join(task.split())


def test_show_tells_why_a_run_failed(succeeds: Command, remains: Remains) -> None:
    done = succeeds("show", remains.failed)
    assert ["error_detail", "ValueError:", "no", "such", "luck"] in [x.split() for x in done.lines]
    assert "\nlast_error\n    Traceback (most recent call last):\n" in done.out


def test_show_as_json_has_all_fields_and_the_tasks(succeeds: Command, remains: Remains) -> None:
    (run,) = succeeds("show", remains.waiting, "--json").objects
    assert run["output"] is None
    assert [task["task_id"] for task in run["open_tasks"]] == [str(remains.task)]


def test_timeline_tells_all_that_happened_in_order(succeeds: Command, remains: Remains) -> None:
    happened = ["run.created", "run.started", "step.completed", "run.completed"]
    events = succeeds("timeline", remains.completed, "--json").objects
    assert [event["type"] for event in events] == happened
    assert all(event["at"].endswith("Z") for event in events)
    head, *lines = succeeds("timeline", remains.completed).lines
    assert head.split() == ["event_no", "at", "type", "step", "payload", "worker_id", "by"]
    assert [line.split()[3] for line in lines] == happened
    assert ["sum" in line for line in lines] == [False, False, True, False]


def test_times_are_those_of_the_database(succeeds: Command, db: psycopg.Connection) -> None:
    db.execute(f"alter database {db.info.dbname} set timezone = 'Asia/Kolkata'".encode())
    succeeds("enqueue", "greet", "--run-at", "2126-07-01T09:00")
    (run,) = succeeds("runs", "--json").objects
    assert run["run_at"] == "2126-07-01T03:30:00Z"
    assert "2126-07-01 09:00:00+05:30" in succeeds("show", run["run_id"]).out
