"""Answers: asked for on a terminal field by field, or given by programs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any, Literal

import psycopg
import pytest
from pydantic import BaseModel, Field

from tests.cli.conftest import Command
from tests.parked import parked, task_of, value


class Line(BaseModel):
    name: str
    amount: int = 1


class Review(BaseModel):
    verdict: Literal["publish", "rework"]
    stars: int = Field(title="How many stars?", ge=1, le=5)
    note: str | None = Field(None, description="For the author.")
    title: str = "Untitled"
    urgent: bool = False
    lines: list[Line] = []


FORM = Review.model_json_schema()


@pytest.fixture
def task(db: psycopg.Connection) -> object:
    """Return the id of a form that waits."""
    run = parked(db, {"kind": "form", "key": "review", "title": "Review it", "form": FORM})
    return task_of(db, run)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command take its input for a terminal."""
    monkeypatch.setattr("pgflow.cli.forms.is_terminal", lambda: True)


def answer_of(db: psycopg.Connection, task: object) -> Any:
    return value(db, "select data from pgflow.task_history where task_id = %s", task)


def test_a_program_gives_json(succeeds: Command, db: psycopg.Connection, task: object) -> None:
    done = succeeds("task", "answer", task, "--data", "-", stdin='{"verdict":"rework","stars":2}')
    assert done.lines[0].startswith("answered by postgres at ")
    assert answer_of(db, task) == {"verdict": "rework", "stars": 2}
    (again,) = succeeds(
        "task", "answer", task, "--data", '{"stars":2,"verdict":"rework"}', "--json"
    ).objects
    assert again["repeated"]


def test_a_program_gives_fields_as_texts(
    succeeds: Command, db: psycopg.Connection, task: object
) -> None:
    given = ("verdict=publish", "stars=4", "title=12=dozen", "urgent=yes", 'lines=[{"name":"a"}]')
    succeeds("task", "answer", task, *(word for text in given for word in ("--set", text)))
    assert answer_of(db, task) == {
        "verdict": "publish",
        "stars": 4,
        "title": "12=dozen",
        "urgent": True,
        "lines": [{"name": "a"}],
    }


def test_fields_come_on_top_of_json(
    succeeds: Command, db: psycopg.Connection, task: object
) -> None:
    data = '{"verdict": "rework", "stars": 1}'
    succeeds("task", "answer", task, "--data", data, "--set", "stars=5")
    assert answer_of(db, task) == {"verdict": "rework", "stars": 5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", '{"verdict": "rework", "stars": 9}'], "data.stars must be at most 5"),
        (["--set", "stars=9", "--set", "verdict=x"], "data.stars must be at most 5"),
        (["--set", "stars=many", "--set", "verdict=rework"], "data.stars must be of type integer"),
        (["--set", "verdict=rework"], "data.stars must be present"),
    ],
)
def test_what_does_not_fit_the_form_is_refused(
    pgflow: Command, db: psycopg.Connection, task: object, words: list[str], message: str
) -> None:
    done = pgflow("task", "answer", task, *words)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: {message}")
    assert done.err.splitlines()[0].endswith("(PF101)")
    assert value(db, "select count(*) from pgflow.inbox") == 1


def test_without_a_terminal_the_data_must_be_given(pgflow: Command, task: object) -> None:
    done = pgflow("task", "answer", task)
    assert done.code == 2
    assert done.err.startswith("error: there is no terminal to ask: give --data JSON, ")


@pytest.mark.usefixtures("terminal")
def test_a_terminal_is_asked_for_each_field(
    pgflow: Command, db: psycopg.Connection, task: object
) -> None:
    done = pgflow("task", "answer", task, stdin="rework\n3\n\n[]\n\ny\n")
    assert done.code == 0
    assert done.out.startswith("answered by postgres at ")
    assert done.err.splitlines() == [
        "Verdict (publish or rework): rework",
        "How many stars? (integer): 3",
        "# For the author.",
        "Note [null]: ",
        "Lines (a list, as JSON) [[]]: []",
        "Title [Untitled]: ",
        "Urgent (yes or no) [false]: y",
    ]
    assert answer_of(db, task) == {
        "verdict": "rework",
        "stars": 3,
        "note": None,
        "lines": [],
        "title": "Untitled",
        "urgent": True,
    }


@pytest.mark.usefixtures("terminal")
def test_the_field_that_was_refused_is_asked_again(pgflow: Command, db: psycopg.Connection) -> None:
    form = {
        "properties": {
            "a": {"type": "integer", "maximum": 3},
            "b": {"items": {"type": "integer"}},
            "odd name": {"type": "string"},
        },
        "required": ["a", "odd name"],
    }
    task = task_of(db, parked(db, {"kind": "form", "key": "f", "title": "?", "form": form}))
    done = pgflow("task", "answer", task, stdin='7\n\n["x"]\nyes\nmany\n3\n[1]\n')
    assert done.code == 0, done.err
    assert answer_of(db, task) == {"a": 3, "b": [1], "odd name": "yes"}
    assert "data.a must be at most 3\n" in done.err
    assert "data.a must be of type integer\n" in done.err
    assert "data.b[0] must be of type integer\n" in done.err
    assert 'data."odd name" must be present\n' in done.err


@pytest.mark.usefixtures("terminal")
def test_what_is_given_is_not_asked(pgflow: Command, db: psycopg.Connection) -> None:
    form = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}
    task = task_of(db, parked(db, {"kind": "form", "key": "f", "title": "?", "form": form}))
    done = pgflow("task", "answer", task, "--set", "a=3", stdin="\n")
    assert done.code == 0
    assert done.err.splitlines() == ["b [none]: "]
    assert answer_of(db, task) == {"a": 3}


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("form", "said", "expected"),
    [({"type": "integer"}, "5", 5), ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "", None)],
)
def test_an_answer_that_is_no_object_is_asked_for_whole(
    pgflow: Command, db: psycopg.Connection, form: dict[str, Any], said: str, expected: object
) -> None:
    task = task_of(db, parked(db, {"kind": "input", "key": "i", "title": "?", "form": form}))
    assert pgflow("task", "answer", task, stdin=f"{said}\n").code == 0
    assert answer_of(db, task) == expected


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("said", "expected"), [("42", 42), ("so", "so"), ('{"a": 1}', {"a": 1})])
def test_an_interrupt_takes_json_or_a_text(
    pgflow: Command, db: psycopg.Connection, said: str, expected: object
) -> None:
    task = task_of(db, parked(db, {"kind": "interrupt", "key": "i", "title": "How?"}))
    done = pgflow("task", "answer", task, stdin=f"{said}\n")
    assert done.err.startswith("answer (JSON or a text): ")
    assert answer_of(db, task) == expected


@pytest.mark.usefixtures("terminal")
def test_the_form_of_an_approval_is_asked_for_too(pgflow: Command, db: psycopg.Connection) -> None:
    form = {"properties": {"stars": {"type": "integer"}}, "required": ["stars"]}
    asked = {"kind": "approval", "key": "ok", "title": "Fine?", "form": form}
    task = task_of(db, parked(db, asked))
    done = pgflow("approve", task, "nice", stdin="x\n4\n")
    assert done.out.startswith("approved by postgres at ")
    assert "decision.stars must be of type integer" in done.err
    assert answer_of(db, task) == {"stars": 4}


@pytest.mark.usefixtures("terminal")
def test_what_has_no_answer_is_not_asked_for(pgflow: Command, db: psycopg.Connection) -> None:
    approval = task_of(db, parked(db, {"kind": "approval", "key": "ok", "title": "Fine?"}))
    done = pgflow("task", "answer", approval)
    assert done.code == 1
    assert "is of kind approval (PF101)" in done.err
    assert pgflow("approve", approval).out.startswith("approved by ")
    done = pgflow("task", "answer", approval, "--set", "a=1")
    assert (done.code, "is approved (PF402)" in done.err) == (1, True)
    stop = {"kind": "breakpoint", "key": "breakpoint/before/x", "when": "before"}
    breakpoint_ = task_of(db, parked(db, stop))
    assert pgflow("task", "answer", breakpoint_).out.startswith("answered by ")


@pytest.mark.usefixtures("terminal")
def test_the_end_of_the_input_ends_the_questions(
    pgflow: Command, db: psycopg.Connection, task: object
) -> None:
    done = pgflow("task", "answer", task, stdin="rework\n")
    assert (done.code, done.out) == (130, "")
    assert value(db, "select count(*) from pgflow.inbox") == 1


def test_questions_are_asked_on_a_real_terminal(dsn: str, db: psycopg.Connection) -> None:
    form = {"properties": {"stars": {"type": "integer", "title": "Stars"}}, "required": ["stars"]}
    task = task_of(db, parked(db, {"kind": "form", "key": "f", "title": "?", "form": form}))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pgflow.cli", "--dsn", dsn, "task", "answer", str(task)]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"3\n")
        out = process.communicate(timeout=30)[0]
    os.close(ours)
    assert process.returncode == 0
    assert out.startswith(b"answered by postgres at ")
    assert answer_of(db, task) == {"stars": 3}
