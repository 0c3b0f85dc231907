"""Each statement of docs/cookbook.sql finds what it looks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.parked import parked, task_of, value

COOKBOOK = (Path(__file__).parents[2] / "docs" / "cookbook.sql").read_text()
CODE = re.sub(r"^--.*\n", "", COOKBOOK, flags=re.MULTILINE)
STATEMENTS = [s.strip() for s in CODE.split(";\n") if s.strip()]
RECIPES = dict(re.findall(r"^-- # (.*)\n((?:(?!-- #).*\n)*)", COOKBOOK, flags=re.MULTILINE))
Connection = psycopg.Connection[Any]

ASKED: dict[str, Any] = {"kind": "approval", "key": "editor", "title": "Fine?"}
FORM = {"properties": {"stars": {"type": "integer"}, "note": {"type": "string"}}}
TOOL = {"kind": "tool", "key": "video", "tool": "transcode", "arguments": {"src": "a.mp4"}}


def filled(statement: str, ids: dict[str, UUID]) -> bytes:
    """Put in what psql would put in for its variables."""
    return re.sub(r":'(\w+)'", lambda name: f"'{ids[name[1]]}'", statement).encode()


@pytest.fixture
def ids(db: Connection) -> dict[str, UUID]:
    """Have tasks of all kinds wait, be late, be decided and be expired; return the ids."""
    past = datetime.now(UTC) - timedelta(days=2)
    db.execute("select set_config('pgflow.test_now', %s, false)", (past.isoformat(),))
    parked(db, {**ASKED, "due_in": 86400})
    db.execute("set pgflow.test_now = ''")
    db.execute("select pgflow.tick()")
    db.execute("select set_config('pgflow.test_now', %s, false)", (past.isoformat(),))
    parked(db, {**ASKED, "due_in": 86400})
    db.execute("set pgflow.test_now = ''")
    voted = parked(db, {**ASKED, "quorum": 2, "assignee_role": "support"})
    for voter in ("ann", "ben"):
        db.execute("select pgflow.approve(%s, as_user => %s)", (task_of(db, voted), voter))
    tool_run = parked(db, TOOL)
    parked(db, TOOL)
    run = parked(db, {**ASKED, "assignee_role": "support"}, steps={"draft": 1})
    review = parked(db, ASKED, steps={"draft": 1})
    form = parked(db, {"kind": "form", "key": "f", "title": "Stars?", "form": FORM})
    return {
        "run": run,
        "tool_run": tool_run,
        "task": task_of(db, parked(db, ASKED)),
        "review_task": task_of(db, review),
        "form_task": task_of(db, form),
        "open_task": task_of(db, parked(db, ASKED)),
        "user_task": task_of(db, run),
    }


@pytest.fixture
def _roles(db: Connection) -> Iterator[None]:
    """Drop the roles that the cookbook creates: they belong to the server."""
    yield
    for name in re.findall(r"^create role (\w+)", CODE, re.MULTILINE):
        db.execute(f"drop role if exists {name}".encode())


@pytest.mark.usefixtures("_roles")
def test_every_statement_finds_something(db: Connection, ids: dict[str, UUID]) -> None:
    assert len(STATEMENTS) > 25
    for statement in STATEMENTS:
        cursor = db.execute(filled(statement, ids))
        if cursor.description:
            assert cursor.fetchall(), statement


@pytest.mark.usefixtures("_roles")
def test_a_login_for_reports_sees_and_changes_nothing(db: Connection, ids: dict[str, UUID]) -> None:
    db.execute(RECIPES["A login for reports, which can only look"].encode())
    db.execute("set role bi")
    for heading in ("Everything overdue", "Who decided what last week", "Runs that wait longest"):
        assert db.execute(RECIPES[heading].encode()).fetchall()
    for call in ("approve(%s)", "claim_task(%s)", "cancel(%s)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(f"select pgflow.{call}".encode(), (ids["task"],))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("select from pgflow.task")
    db.execute("reset role")


def test_my_inbox_has_what_i_may_decide(db: Connection) -> None:
    db.execute("create role cook_ann; create role cook_ben; create role cooks")
    try:
        db.execute("grant pgflow_approver to cook_ann, cook_ben; grant cooks to cook_ann")
        asked: dict[str, dict[str, Any]] = {
            "anybody": {},
            "ann": {"assignee": "cook_ann"},
            "cooks": {"assignee_role": "cooks"},
            "ben": {"assignee": "cook_ben"},
            "others": {"assignee_role": "others"},
            "own": {"requested_by": "cook_ann", "not_requester": True},
            "claimed": {},
        }
        tasks = {name: task_of(db, parked(db, {**ASKED, **a})) for name, a in asked.items()}
        db.execute("set role cook_ben")
        db.execute("select pgflow.claim_task(%s)", (tasks["claimed"],))
        db.execute("set role cook_ann")
        mine = {row[0] for row in db.execute(RECIPES["My inbox"].encode())}
        assert mine == {tasks[name] for name in ("anybody", "ann", "cooks")}
        for name, task_id in tasks.items():
            if task_id in mine:
                db.execute("select pgflow.comment_task(%s, 'mine')", (task_id,))
            else:
                with pytest.raises(psycopg.Error) as refused:
                    db.execute("select pgflow.comment_task(%s, 'mine')", (task_id,))
                assert refused.value.sqlstate == "PF501", name
    finally:
        db.execute("reset role; drop role cook_ann; drop role cook_ben; drop role cooks")


def why(db: Connection, run_id: UUID) -> Any:
    statement = filled(RECIPES["Why is this run not running?"], {"run": run_id})
    (row,) = db.execute(statement).fetchall()
    return row[1]


def test_why_a_run_does_not_run_is_told(db: Connection) -> None:
    assert why(db, parked(db, {**ASKED, "assignee": "ann"})) == "waits for people: Fine? (ann)"
    assert why(db, parked(db, TOOL)) == "waits for video"
    run_id = value(db, "select pgflow.enqueue('h', queue => 'mail')")
    assert why(db, run_id) == "queue mail has no live worker"
    db.execute("select pgflow.register_worker('vm:2', '{mail}', 1)")
    assert why(db, run_id) == "1 runs of queue mail are ready"
    db.execute("select pgflow.define_queue('mail', max_concurrent => 1)")
    other = value(db, "select pgflow.enqueue('h', queue => 'mail', priority => 9)")
    db.execute("select pgflow.acquire('vm:2', '{mail}', 1)")
    assert why(db, other) == "it is, by worker vm:2"
    assert why(db, run_id) == "all 1 slots of queue mail are taken"
    db.execute("select pgflow.pause_queue('mail')")
    assert why(db, run_id) == "queue mail is paused"
    db.execute("select pgflow.pause(%s, 'lunch')", (run_id,))
    assert why(db, run_id) == "paused: lunch"
    db.execute("select pgflow.cancel(%s, 'no more')", (run_id,))
    assert why(db, run_id).endswith(": Execution cancelled: no more")
    later = value(db, "select pgflow.enqueue('h', run_at => now() + interval '1 day')")
    assert why(db, later).startswith("not before ")


def test_a_message_comes_when_something_happens_to_a_run(
    db: Connection, dsn: str, ids: dict[str, UUID]
) -> None:
    recipe = RECIPES["Tell me when something happens to a run"]
    with psycopg.connect(dsn, autocommit=True) as listening:
        for statement in recipe.split(";\n")[:2]:
            listening.execute(filled(re.sub(r"^--.*\n", "", statement), ids))
        db.execute("select pgflow.approve(%s)", (ids["user_task"],))
        (first, *_) = listening.notifies(timeout=10, stop_after=1)
    assert (first.channel, first.payload) == ("pgflow", f"run default {ids['run']}")
