"""What runs leave behind, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest

from pgflow import Client

if TYPE_CHECKING:
    from tests.cli.conftest import Command


@pytest.fixture
def run(db: psycopg.Connection) -> UUID:
    """Return a run that has left several artifacts behind."""
    db.execute("select pgflow.register_worker('w:1', '{default}', 1)")
    run_id = Client(db).enqueue("write", {"topic": "queues"})
    db.execute("select pgflow.acquire('w:1', '{default}', 1)")
    for name, content, data, media_type, errors in (
        ("draft", "# One\n\nsame\n", None, "text/markdown", []),
        ("facts", '{"b": 1, "a": "ö"}', None, "application/json", []),
        ("draft", "# Two\n\nsame\n", None, "text/markdown", []),
        ("image", None, b"\x00\xff", "image/png", []),
        ("facts", "{", None, "application/json", [{"path": "$", "message": "cut\x1b[31m"}]),
    ):
        db.execute(
            "select pgflow.record_artifact(%s, 1, %s, %s, %s, %s, %s)",
            [run_id, name, content, data, media_type, json.dumps(errors)],
        )
    return run_id


def test_the_artifacts_of_a_run_are_listed(succeeds: Command, run: UUID) -> None:
    header, *lines = succeeds("artifact", "list", run).lines
    assert header.split()[:6] == ["run_id", "artifact_no", "step", "version", "kind", "name"]
    assert [line.split()[5] for line in lines] == [
        *("input", "draft", "facts", "draft", "image", "facts")
    ]
    objects = succeeds("artifact", "list", run, "--name", "facts", "--json").objects
    assert [row["valid"] for row in objects] == [True, False]
    assert len(succeeds("artifact", "list", run, "--kind", "input", "--json").objects) == 1


def test_an_artifact_is_shown_with_its_content(succeeds: Command, run: UUID) -> None:
    shown = succeeds("artifact", "show", run, "draft").out
    assert "media_type" in shown
    assert "    # Two\n" in shown
    (told,) = succeeds("artifact", "show", run, "facts", "--no", 4, "--json").objects
    assert told["content"] == {"a": "ö", "b": 1}
    assert "# Two" not in succeeds("artifact", "show", run, "image").out
    wrong = succeeds("artifact", "show", run, "facts").out
    assert "$ cut\\x1b[31m" in wrong


def test_a_content_is_written_to_a_file(succeeds: Command, run: UUID, tmp_path: Path) -> None:
    file = tmp_path / "out"
    for name, content in (
        ("image", b"\x00\xff"),
        ("draft", b"# Two\n\nsame\n"),
        ("input", b'{\n  "topic": "queues"\n}\n'),
    ):
        assert succeeds("artifact", "get", run, name, "-o", file).out == ""
        assert file.read_bytes() == content
    assert succeeds("artifact", "get", run, "draft").out == "# Two\n\nsame\n"


def test_nothing_is_written_if_there_is_no_such_artifact(
    pgflow: Command, run: UUID, tmp_path: Path
) -> None:
    file = tmp_path / "out"
    done = pgflow("artifact", "get", run, "nobodys", "-o", file)
    assert (done.code, file.exists()) == (1, False)
    assert "unknown artifact: nobodys (PF111)" in done.err
    assert "draft, facts, image, input" in done.err


def test_two_versions_are_compared(succeeds: Command, run: UUID) -> None:
    assert succeeds("artifact", "diff", run, "draft").lines == [
        "--- draft 3 of version 0",
        "+++ draft 5 of version 0",
        "@@ -1,3 +1,3 @@",
        "-# One",
        "+# Two",
        " ",
        " same",
    ]
    assert succeeds("artifact", "diff", run, "draft", 5, 3).lines[0] == "--- draft 5 of version 0"
    assert succeeds("artifact", "diff", run, "draft", 3, 3).out == ""
    assert succeeds("artifact", "diff", run, "image", 6, 6).out == "bytes, which are the same\n"


def test_what_is_not_there_is_not_compared(pgflow: Command, run: UUID) -> None:
    for words in (("image",), ("nobodys",), ("draft", "4"), ("draft", "3", "99")):
        done = pgflow("artifact", "diff", run, *words)
        assert done.code == 1
        assert "to compare" in done.err


def test_a_schema_is_stored_and_shown(succeeds: Command) -> None:
    assert (
        succeeds("schema", "define", "article", '{"type": "object"}').out == "article version 1\n"
    )
    stored = succeeds("schema", "define", "article", "-", "--json", stdin='{"type": "array"}')
    assert stored.objects[0]["version"] == 2
    header, line = succeeds("schema", "list").lines
    assert header.split()[:3] == ["schema", "version", "is_current"]
    assert line.split()[:3] == ["article", "2", "yes"]
    assert succeeds("schema", "show", "article").out == '{\n  "type": "array"\n}\n'
    first = succeeds("schema", "show", "article", "--version", 1, "--json").objects
    assert first[0]["definition"] == {"type": "object"}


def test_what_is_no_schema_is_refused(pgflow: Command) -> None:
    for words, code, said in (
        (("show", "nobodys"), 1, "unknown schema: nobodys (PF110)"),
        (("define", "article", "[]"), 2, "a schema is an object"),
        (("define", "two words", "{}"), 1, "name must be a name of 1 to 100 letters"),
    ):
        done = pgflow("schema", *words)
        assert done.code == code
        assert said in done.err
