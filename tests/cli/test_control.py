from __future__ import annotations

import psycopg
import pytest

from tests.cli.conftest import Command, Remains


def test_cancel_prints_the_state(succeeds: Command, remains: Remains) -> None:
    assert succeeds("cancel", remains.pending, "--reason", "not needed").out == "cancelled\n"
    assert "Execution cancelled: not needed" in succeeds("show", remains.pending).out


def test_cancel_leaves_a_finished_run_as_it_is(succeeds: Command, remains: Remains) -> None:
    assert succeeds("cancel", remains.failed).out == "failed\n"
    told = succeeds("cancel", remains.failed, "--json").objects
    assert told == [{"run_id": str(remains.failed), "state": "failed"}]


def test_retry_prints_the_new_run(succeeds: Command, remains: Remains) -> None:
    new = succeeds("retry", remains.failed).out.strip()
    (run,) = succeeds("show", new, "--json").objects
    assert (run["state"], run["retry_of"]) == ("pending", str(remains.failed))
    again = succeeds("retry", remains.failed, "--json").objects
    assert again == [{"run_id": new, "retry_of": str(remains.failed)}]


def test_a_run_is_paused_and_resumed(succeeds: Command, remains: Remains) -> None:
    run = remains.pending
    assert succeeds("pause", run, "--reason", "lunch").out == "paused\n"
    assert ["pause_reason", "lunch"] in [li.split() for li in succeeds("show", run).lines]
    assert succeeds("resume", run, "--json").objects == [{"run_id": str(run), "state": "pending"}]
    assert succeeds("pause", run, "--json").objects == [{"run_id": str(run), "state": "paused"}]
    assert succeeds("resume", run).out == "pending\n"


def test_the_deadlines_of_a_paused_run_are_held_where_that_is_asked_for(
    succeeds: Command, remains: Remains
) -> None:
    for told, held in (("", False), ("--hold-deadlines", True)):
        assert succeeds("pause", remains.pending, *told.split()).out == "paused\n"
        (run,) = succeeds("show", remains.pending, "--json").objects
        assert (run["deadlines_held_at"] is not None) == held


@pytest.mark.usefixtures("remains")
def test_a_queue_is_paused_and_resumed(succeeds: Command) -> None:
    assert succeeds("pause", "--queue", "default").out.startswith("paused since ")
    (queue,) = succeeds("queues", "--json").objects
    told = succeeds("pause", "--queue", "default", "--json").objects
    assert told == [{"queue": "default", "paused_at": queue["paused_at"]}]
    assert succeeds("resume", "--queue", "default").out == "resumed\n"
    assert succeeds("resume", "--queue", "default").out == "was not paused\n"
    told = succeeds("resume", "--queue", "default", "--json").objects
    assert told == [{"queue": "default", "was_paused": False}]


def test_the_inbox_lists_what_waits_for_a_person(succeeds: Command, remains: Remains) -> None:
    head, line = succeeds("inbox").lines
    assert head.split()[:2] == ["task_id", "title"]
    assert line.startswith(f"{remains.task}  Publish it?  ")
    (task,) = succeeds("inbox", "--role", "editors", "--json").objects
    assert (task["run_id"], task["payload"]) == (str(remains.waiting), {"words": 3})
    assert succeeds("inbox", "--role", "nobody", "--json").out == ""
    assert succeeds("inbox", "--assignee", "nobody", "--json").out == ""


def test_approve_tells_who_decided_and_lets_the_run_go_on(
    succeeds: Command, remains: Remains
) -> None:
    done = succeeds("approve", remains.task, "fine", "--data", '{"stars": 3}')
    assert done.lines[0].startswith("approved by postgres at ")
    assert done.lines[1] == f"run {remains.waiting}"
    assert succeeds("runs", "--state", "pending", "--handler", "ask").lines[1:]


def test_the_same_decision_again_is_the_first_one(succeeds: Command, remains: Remains) -> None:
    (first,) = succeeds("approve", remains.task, "fine", "--data", "-", "--json", stdin="3").objects
    assert (first["action"], first["comment"], first["data"]) == ("approved", "fine", 3)
    (second,) = succeeds("approve", remains.task, "later", "--json").objects
    assert second == {**first, "repeated": True}
    assert succeeds("approve", remains.task).lines[0].startswith("approved before by postgres at ")


def test_reject_ends_the_run(succeeds: Command, remains: Remains) -> None:
    assert succeeds("reject", remains.task, "too short").lines[0].startswith("rejected by postgres")
    (run,) = succeeds("show", remains.waiting, "--json").objects
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-006")
    (told,) = succeeds("reject", remains.task, "--json").objects
    assert (told["comment"], told["repeated"]) == ("too short", True)


@pytest.mark.usefixtures("remains")
def test_queues_and_workers_are_listed(succeeds: Command, db: psycopg.Connection) -> None:
    head, line = succeeds("queues").lines
    told = dict(zip(head.split(), line.split(), strict=False))
    assert (told["queue"], told["pending"], told["waiting"]) == ("default", "1", "1")
    (queue,) = succeeds("queues", "--json").objects
    assert queue["lease_ttl"] == 60
    (worker,) = succeeds("workers", "--json").objects
    row = db.execute("select worker_id from pgflow.worker").fetchone()
    assert (worker["worker_id"],) == row
    assert worker["status"] == "stopped"
    assert succeeds("workers").lines[1].startswith(f"{worker['worker_id']}  stopped  ")
