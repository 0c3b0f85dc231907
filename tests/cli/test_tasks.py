"""The inbox, a task with its history, and who works on it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.cli.conftest import Command
from tests.parked import park, parked, task_of, value

FORM = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "title": "Title", "default": "Untitled"},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["stars"],
}
APPROVAL: dict[str, Any] = {
    "kind": "approval",
    "key": "editor",
    "title": "Publish it?",
    "payload": {"words": 3, "text": "Zoë"},
    "assignee_role": "editors",
}


def test_the_inbox_tells_the_kinds_and_is_filtered_by_run(
    succeeds: Command, db: psycopg.Connection
) -> None:
    run = parked(db, {**APPROVAL, "quorum": 2})
    other = parked(db, {"kind": "input", "key": "stars", "title": "How many?", "form": FORM})
    head, *lines = succeeds("inbox").lines
    assert head.split()[:5] == ["task_id", "title", "kind", "due_at", "run_id"]
    assert sorted(line[head.index("kind") :].split()[0] for line in lines) == ["approval", "input"]
    assert str(task_of(db, run)) in succeeds("inbox", "--run", run).lines[1]
    (task,) = succeeds("inbox", "--run", other, "--json").objects
    assert (task["kind"], task["form_schema"]) == ("input", FORM)


def test_a_task_is_shown_with_all_that_a_decision_needs(
    succeeds: Command, db: psycopg.Connection
) -> None:
    db.execute("set pgflow.test_now = '2026-07-01T09:00Z'")
    run = parked(
        db,
        {
            **APPROVAL,
            "form": FORM,
            "assignee": "ann",
            "requested_by": "bob",
            "not_requester": True,
            "quorum": 2,
            "quorum_of": 3,
            "due_in": 3 * 10**8,
        },
    )
    task = task_of(db, run)
    succeeds("task", "comment", task, "which words?")
    out = succeeds("task", "show", task).out
    fields, _, rest = out.partition("\npayload\n")
    told = dict(line.split("  ", 1) for line in fields.splitlines())
    told = {name.strip(): text.strip() for name, text in told.items()}
    assert told["title"] == "Publish it?"
    assert (told["task_id"], told["run_id"]) == (str(task), str(run))
    assert told["may decide"] == "ann or whoever has the role editors, but not bob"
    assert told["votes"] == "0; 2 have to approve, 3 are asked"
    assert told["due in"].endswith(", then cancel")
    assert " days, " in told["due in"]
    payload, _, rest = rest.partition("\nform\n")
    assert payload == '    {\n      "text": "Zoë",\n      "words": 3\n    }\n'
    form, _, history = rest.partition("\nhistory\n")
    assert [line.split()[:4] for line in form.splitlines()] == [
        ["field", "type", "required", "default"],
        ["stars", "integer", "yes", "-"],
        ["title", "string", "no", "Untitled"],
    ]
    assert [line.split()[2] for line in history.splitlines()[1:]] == [
        "task.requested",
        "task.commented",
    ]
    assert history.endswith("postgres  comment: which words?\n")


def test_a_decided_task_is_shown_with_its_decision(
    succeeds: Command, db: psycopg.Connection
) -> None:
    run = parked(db, {"kind": "form", "key": "review", "title": "Review it", "form": FORM})
    task = task_of(db, run)
    succeeds("task", "answer", task, "--data", '{"stars": 3}', "--comment", "nice")
    done = succeeds("task", "show", task)
    assert ["state", "answered"] in [line.split() for line in done.lines]
    assert ["comment", "nice"] in [line.split() for line in done.lines]
    assert "may decide" not in done.out
    assert '\ndata\n    {\n      "stars": 3\n    }\n' in done.out
    assert "postgres  action: answered; comment: nice" in done.out
    (told,) = succeeds("task", "show", task, "--json").objects
    assert (told["state"], told["data"]) == ("answered", {"stars": 3})
    assert [line["type"] for line in told["history"]] == ["task.requested", "task.resolved"]


def test_a_text_as_payload_is_shown_as_it_is(succeeds: Command, db: psycopg.Connection) -> None:
    run = parked(db, {**APPROVAL, "payload": "One.\nTwo.\x1b[31m"})
    out = succeeds("task", "show", task_of(db, run)).out
    assert "\npayload\n    One.\n    Two.\\x1b[31m\n" in out


def test_a_task_is_claimed_delegated_and_released(
    succeeds: Command, pgflow: Command, db: psycopg.Connection
) -> None:
    task = task_of(db, parked(db, APPROVAL))
    assert succeeds("task", "release", task).out == "was not claimed\n"
    assert succeeds("task", "claim", task).out == "claimed by postgres\n"
    assert "postgres" in succeeds("inbox").lines[1]
    told = succeeds("task", "claim", task, "--json").objects
    assert told == [{"task_id": str(task), "claimed_by": "postgres"}]
    assert succeeds("task", "release", task).out == "released\n"
    assert succeeds("task", "delegate", task, "ann", "you know it").out == "delegated to ann\n"
    assert succeeds("task", "claim", task, "--as-user", "ann").out == "claimed by ann\n"
    done = pgflow("task", "claim", task, "--as-user", "ben")
    assert (done.code, done.out) == (1, "")
    assert "ben may not decide" in done.err
    assert "assignee: ann, role: editors, claimed by: ann" in done.err
    assert "to: ann; comment: you know it" in succeeds("task", "show", task).out


def test_an_application_decides_for_its_users(succeeds: Command, db: psycopg.Connection) -> None:
    task = task_of(db, parked(db, APPROVAL))
    done = succeeds("approve", task, "fine", "--as-user", "ann")
    assert done.lines[0].startswith("approved by ann at ")


def test_votes_are_told_until_there_are_enough(succeeds: Command, db: psycopg.Connection) -> None:
    run = parked(db, {**APPROVAL, "quorum": 2, "quorum_of": 3})
    task = task_of(db, run)
    done = succeeds("approve", task, "--as-user", "ann")
    assert done.lines == ["voted; more votes are needed", f"run {run}"]
    assert succeeds("approve", task, "--as-user", "ann").lines[0] == "voted before"
    assert succeeds("reject", task, "no", "--as-user", "cem").lines[0].startswith("voted; ")
    shown = succeeds("task", "show", task).out
    assert "2; 2 have to approve, 3 are asked" in shown
    assert "task.voted" in shown
    assert "cem       action: rejected; comment: no" in shown
    assert succeeds("approve", task, "--as-user", "ben").lines[0].startswith("approved by ben at ")


def test_a_rejection_sends_the_run_back(
    succeeds: Command, pgflow: Command, db: psycopg.Connection
) -> None:
    run = parked(db, APPROVAL, steps={"draft": "One", "title": "x" * 100})
    task = task_of(db, run)
    done = pgflow("reject", task, "--rollback-to", "nowhere")
    assert (done.code, "has no journal entry nowhere (PF105)" in done.err) == (1, True)
    assert "detail: it has: draft, title" in done.err
    done = succeeds("reject", task, "too long", "--rollback-to", "title")
    assert done.lines[0].startswith("rejected by postgres at ")
    assert succeeds("runs", "--state", "pending", "--json").objects[0]["round"] == 1
    head, *lines = succeeds("journal", run).lines
    assert head.split() == ["event_no", "key", "kind", "voided", "value", "at"]
    assert [line.split()[1] for line in lines] == ["draft", "title"]
    assert ["round 0" in line for line in lines] == [False, True]
    assert f'"{"x" * 58}…  ' in lines[1]
    entries = succeeds("journal", run, "--json").objects
    assert [(e["key"], e["round"], e["value"]) for e in entries] == [
        ("draft", None, "One"),
        ("title", 0, "x" * 100),
    ]


def test_the_history_of_a_task_that_counts_no_more_says_so(
    succeeds: Command, db: psycopg.Connection
) -> None:
    run = parked(db, APPROVAL, steps={"draft": 1})
    task = task_of(db, run)
    succeeds("pause", run)
    succeeds("resume", run)
    succeeds("reject", task, "again", "--rollback-to", "draft")
    db.execute("select pgflow.acquire('vm:1', '{default}', 100)")
    park(db, run, {**APPROVAL, "payload": 2}, steps={"draft": 2})
    told = succeeds("task", "show", task)
    assert any(line.startswith("voided_at ") for line in told.lines)
    assert "rollback_to: draft; comment: again" in told.out
    assert value(db, "select count(*) from pgflow.inbox") == 1


@pytest.mark.parametrize("words", ["task", "tool", "breakpoint"])
def test_a_group_without_a_command_tells_its_commands(anywhere: Command, words: str) -> None:
    done = anywhere(words)
    assert done.code == 2
    assert "Commands:" in done.out + done.err
