"""Flows on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import psycopg

    from tests.cli.conftest import Command

REVIEW = """
name: review
steps:
  - {name: collect}
  - {name: facts, needs: [collect]}
  - {name: style, needs: [collect], on_failure: {run: mend}}
  - {name: mend}
  - {name: publish, needs: [facts, style]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "review.yaml"
    file.write_text(REVIEW)
    return file


def test_a_file_is_stored_as_a_version(succeeds: Command, file: Path) -> None:
    assert succeeds("flow", "apply", file).out == "review version 1\n"
    assert succeeds("flow", "apply", file).out == "review version 1\n"
    file.write_text(REVIEW.replace("facts", "claims"))
    (told,) = succeeds("flow", "apply", file, "--json").objects
    assert (told["flow"], told["version"]) == ("review", 2)
    header, line = succeeds("flow", "list").lines
    assert header.split()[:4] == ["flow", "version", "is_current", "steps"]
    assert line.split()[:4] == ["review", "2", "yes", "5"]


def test_the_faults_of_a_file_are_told(pgflow: Command, file: Path) -> None:
    file.write_text("name: f\nsteps: [{name: a, needs: [b]}, {name: c, timeout: x}]")
    done = pgflow("flow", "apply", file)
    assert done.code == 1
    assert done.err.startswith("error: step c: timeout must be seconds")
    assert "step a: needs b, which is no step of this flow" in done.err


def test_a_file_that_is_no_yaml_is_told(pgflow: Command, file: Path) -> None:
    file.write_text("name: [")
    done = pgflow("flow", "apply", file)
    assert done.code == 1
    assert "cannot be read" in done.err


def test_a_definition_is_shown_as_it_can_be_applied(succeeds: Command, file: Path) -> None:
    succeeds("flow", "apply", file)
    shown = succeeds("flow", "show", "review").out
    assert shown.startswith("# version 1, sha256 ")
    file.write_text(shown)
    assert succeeds("flow", "apply", file).out == "review version 1\n"
    (row,) = succeeds("flow", "show", "review", "--version", "1", "--json").objects
    assert row["definition"]["steps"][0] == {"name": "collect"}


@pytest.mark.parametrize("words", [("nobodys",), ("review", "--version", "9")])
def test_an_unknown_flow_is_told(pgflow: Command, file: Path, words: tuple[str, ...]) -> None:
    pgflow("flow", "apply", file)
    done = pgflow("flow", "show", *words)
    assert done.code == 1
    assert done.err.startswith("error: unknown flow: ")


def test_a_graph_is_drawn_as_text(succeeds: Command, file: Path) -> None:
    succeeds("flow", "apply", file)
    assert succeeds("flow", "graph", "review").lines == [
        "1  collect",
        "2  facts    <- collect",
        "2  style    <- collect",
        "3  mend     <- style (fails)",
        "3  publish  <- facts, style",
    ]


def test_a_graph_is_drawn_for_mermaid(succeeds: Command, file: Path) -> None:
    succeeds("flow", "apply", file)
    assert succeeds("flow", "graph", "review", "--format", "mermaid").lines == [
        "flowchart TD",
        '    s1["collect"]',
        '    s2["facts"]',
        '    s3["style"]',
        '    s4["mend"]',
        '    s5["publish"]',
        "    s1 --> s2",
        "    s1 --> s3",
        "    s3 -- fails --> s4",
        "    s2 --> s5",
        "    s3 --> s5",
    ]


def test_a_graph_is_drawn_for_graphviz(succeeds: Command, file: Path) -> None:
    succeeds("flow", "apply", file)
    lines = succeeds("flow", "graph", "review", "--format", "dot").lines
    assert (lines[0], lines[-1]) == ('digraph "review" {', "}")
    assert '    "collect" -> "facts";' in lines
    assert '    "style" -> "mend" [label="fails"];' in lines


GATED = """
name: gated
steps:
  - {name: draft, gates: [editor, {name: legal, assignee: ann}]}
  - {name: publish, needs: [draft]}
  - {name: tell, type: approval_gate, needs: [publish]}
"""


@pytest.mark.parametrize(
    ("form", "drawn"),
    [
        (
            "text",
            [
                "1  draft",
                "2  draft/editor  <- draft",
                "3  draft/legal   <- draft/editor",
                "4  publish       <- draft/legal",
                "5  tell          <- publish",
            ],
        ),
        (
            "mermaid",
            [
                "flowchart TD",
                '    s1["draft"]',
                '    s2{"draft/editor"}',
                '    s3{"draft/legal"}',
                '    s4["publish"]',
                '    s5{"tell"}',
                "    s1 --> s2",
                "    s2 --> s3",
                "    s3 --> s4",
                "    s4 --> s5",
            ],
        ),
        (
            "dot",
            [
                'digraph "gated" {',
                '    "draft";',
                '    "draft/editor" [shape=diamond];',
                '    "draft/legal" [shape=diamond];',
                '    "publish";',
                '    "tell" [shape=diamond];',
                '    "draft" -> "draft/editor";',
                '    "draft/editor" -> "draft/legal";',
                '    "draft/legal" -> "publish";',
                '    "publish" -> "tell";',
                "}",
            ],
        ),
    ],
)
def test_gates_are_drawn_behind_their_step(
    succeeds: Command, file: Path, form: str, drawn: list[str]
) -> None:
    file.write_text(GATED)
    succeeds("flow", "apply", file)
    assert succeeds("flow", "graph", "gated", "--format", form).lines == drawn


def test_versions_are_compared(succeeds: Command, file: Path) -> None:
    succeeds("flow", "apply", file)
    file.write_text(REVIEW.replace("{name: collect}", "{name: collect, timeout: 9}"))
    succeeds("flow", "apply", file)
    lines = succeeds("flow", "diff", "review", 1).lines
    assert lines[:2] == ["--- review version 1", "+++ review version 2"]
    assert "+  timeout: 9" in lines
    assert succeeds("flow", "diff", "review", 1, 1).out == ""


def test_a_flow_is_started_and_its_steps_are_listed(succeeds: Command, file: Path) -> None:
    succeeds("flow", "apply", file)
    run_id = succeeds("start", "review", '{"n": 1}', "--tag", "x").out.strip()
    (run,) = succeeds("show", run_id, "--json").objects
    assert (run["kind"], run["input"], run["tags"]) == ("flow", {"n": 1}, ["x"])
    header, first, *_ = succeeds("flow", "steps", run_id).lines
    assert header.split()[:3] == ["step", "state", "attempts"]
    assert first.split()[:2] == ["collect", "pending"]
    (again,) = succeeds("start", "review", "--idempotency-key", "k", "--json").objects
    (same,) = succeeds("start", "review", "--idempotency-key", "k", "--json").objects
    assert again == same


def test_steps_of_what_is_no_flows_run_are_told(pgflow: Command) -> None:
    run_id = pgflow("enqueue", "h").out.strip()
    done = pgflow("flow", "steps", run_id)
    assert done.code == 1
    assert "no run of a flow" in done.err


def test_the_history_of_a_flow_is_listed(pgflow: Command, succeeds: Command, file: Path) -> None:
    file.write_text("name: skips\nsteps: [{name: a, when: 1 > 2}]\nchannels: {x: {default: 3}}")
    succeeds("flow", "apply", file)
    run_id = succeeds("start", "skips").out.strip()
    assert succeeds("show", run_id, "--json").objects[0]["output"] == {"x": 3}
    assert succeeds("flow", "history", run_id).out.split()[:2] == ["number", "super_step"]
    fork_id = succeeds("fork", run_id, "--super-step", 0, "--set", "x=4").out.strip()
    assert succeeds("show", fork_id, "--json").objects[0]["output"] == {"x": 4}
    done = pgflow("flow", "history", pgflow("enqueue", "h").out.strip())
    assert done.code == 1
    assert "run_id must be the run of a flow" in done.err


def test_a_step_is_added_to_a_run(pgflow: Command, succeeds: Command, file: Path) -> None:
    succeeds("flow", "apply", file)
    run_id = succeeds("start", "review").out.strip()
    file.write_text("name: legal\nneeds: [facts]")
    add = ("flow", "add-step", run_id, file, "--needed-by", "publish")
    assert succeeds(*add).out == "added\n"
    assert succeeds(*add).out == "was added before\n"
    (told,) = succeeds(*add, "--json").objects
    assert told == {"run_id": run_id, "added": False}
    assert succeeds("flow", "steps", run_id).lines[-1].split()[:2] == ["legal", "pending"]
    file.write_text("name: tax\nneeds: [nobody]\ntimeout: x")
    done = pgflow("flow", "add-step", run_id, file)
    assert done.code == 1
    assert "step tax: timeout must be seconds" in done.err
    assert "step tax: needs nobody, which is no step of this flow" in done.err


def test_start_binds_the_roles_of_a_flow(
    succeeds: Command, pgflow: Command, db: psycopg.Connection
) -> None:
    db.execute("""select pgflow.define_flow(
        '{"name": "r", "steps": [{"name": "a", "role": "coder"}]}')""")
    db.execute("select pgflow.define_agent('careful', 'large')")
    assert "role coder is bound to no agent" in pgflow("start", "r").err
    run_id = succeeds("start", "r", "--bindings", '{"coder": "careful"}').out.strip()
    row = db.execute(
        "select bindings #>> '{coder,agent}' from pgflow.runs where run_id = %s", [run_id]
    ).fetchone()
    assert row == ("careful",)
    assert "careful" in succeeds("report", run_id).out
