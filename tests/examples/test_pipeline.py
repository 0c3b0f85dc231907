"""The pipeline example: what its analyses find, its flow with people, and its play."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from examples.pipeline.analyses import Finding, Found, broken_links, lengths, odd_headings, write
from examples.pipeline.app import app
from examples.pipeline.play import DEFINITION
from pgflow.definition import read_definition
from pgflow.testing import Scene

PROJECT = Path(__file__).resolve().parents[2]
APP = "examples.pipeline.app:app"
FILES = {
    "good.md": "# Good\n\n## One\n\nThree words here, [there](odd.md).\n",
    "odd.md": "## Late\n\n#### Deep\n\n# Title\n\n# Again\n\n[nowhere](missing.md)\n",
    "plain.md": "No heading, only words.\n",
}
ODD = [
    Finding(file="odd.md", line=1, what="no title before it"),
    Finding(file="odd.md", line=3, what="level 4 after level 2"),
    Finding(file="odd.md", line=7, what="a second title"),
    Finding(file="plain.md", line=1, what="no heading at all"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "articles"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def scene(pgflow_scene: Scene) -> Scene:
    scene = pgflow_scene.use(app)
    app.sync.define_flow(read_definition(DEFINITION))
    return scene


def started(scene: Scene, folder: Path) -> UUID:
    """Start the flow and do all that it can do before a person is asked."""
    report = str(folder.parent / "report.md")
    run_id = app.sync.start("pipeline", {"folder": str(folder), "report": report})
    scene.run_until_idle()
    return run_id


def draft(scene: Scene) -> dict[str, Any]:
    """Return the draft that the editor is shown."""
    (task,) = scene.tasks()
    shown: dict[str, Any] = task.payload["draft"]
    return shown


def test_the_analyses_find_what_is_in_the_files(folder: Path) -> None:
    found = {length.file: length.words for length in lengths(folder, list(FILES))}
    assert found == {"good.md": 6, "odd.md": 5, "plain.md": 4}
    assert broken_links(folder, list(FILES)) == [Finding(file="odd.md", line=9, what="missing.md")]
    assert odd_headings(folder, list(FILES)) == ODD


def test_headings_in_code_are_no_headings(folder: Path) -> None:
    (folder / "code.md").write_text("# A\n\n```\n#### no\n```\n\n## B\n")
    assert odd_headings(folder, ["code.md"]) == []


def test_a_report_says_how_much_it_leaves_out(folder: Path) -> None:
    found = Found(words=lengths(folder, list(FILES)), links=[], headings=ODD)
    report = write(found, 1)
    assert "3 files, 15 words, 3 minutes to read." in report
    assert "## Links that lead nowhere\n\nNone.\n" in report
    assert "- odd.md, line 1: no title before it\n- and 3 more\n" in report


def test_a_report_that_an_editor_lets_pass_is_stored(scene: Scene, folder: Path) -> None:
    run_id = started(scene, folder)
    shown = draft(scene)
    assert (shown["number"], shown["after"]) == (1, None)
    approval = scene.approve("editor", comment="fine")
    scene.run_until_idle()
    report = folder.parent / "report.md"
    assert scene.output(run_id)["published"] == {
        "report": str(report),
        "draft": 1,
        "approved_by": approval.decided_by,
        "comment": "fine",
    }
    assert report.read_text() == shown["text"]
    assert "odd.md, line 9: missing.md" in shown["text"]


def test_a_draft_that_is_sent_back_is_written_again_shorter_and_nothing_else_is_done_again(
    scene: Scene, folder: Path
) -> None:
    for number in range(20):
        (folder / f"{number}.md").write_text("Only words.\n")
    run_id = started(scene, folder)
    first = draft(scene)
    scene.reject("editor", comment="too long", rollback_to="draft")
    scene.run_until_idle()
    second = draft(scene)
    assert (second["number"], second["after"]) == (2, "too long")
    assert len(second["text"]) < len(first["text"])
    scene.approve("editor")
    scene.run_until_idle()
    assert scene.output(run_id)["published"]["draft"] == 2
    lines = app.sync.flow_steps(run_id)
    executed = [line for line in lines if line["type"] == "handler" and line["run_id"]]
    assert {line["attempts"] for line in executed} == {1}
    again = [line["step"] for line in executed if line["version"] == 1]
    assert again == ["draft", "publish"]
    assert [line["step"] for line in executed if line["voided_at"]] == ["draft"]


def test_the_analyses_wait_for_the_files_and_for_nothing_else(scene: Scene, folder: Path) -> None:
    run_id = started(scene, folder)
    needs = {line["step"]: line["needs"] for line in app.sync.flow_steps(run_id)}
    assert needs["words"] == needs["links"] == needs["headings"] == ["collect"]


def test_a_rejected_report_is_not_stored(scene: Scene, folder: Path) -> None:
    run_id = started(scene, folder)
    scene.reject("editor", comment="dull")
    scene.run_until_idle()
    assert (scene.run(run_id)["state"], scene.run(run_id)["error_code"]) == (
        "cancelled",
        "E-RUN-006",
    )
    assert not (folder.parent / "report.md").exists()


def test_a_folder_without_markdown_files_fails_the_flow_and_says_so(
    scene: Scene, tmp_path: Path
) -> None:
    run_id = app.sync.start("pipeline", {"folder": str(tmp_path), "report": "never.md"})
    scene.run_until_idle()
    assert scene.run(run_id)["state"] == "failed"
    assert "there are no Markdown files in" in scene.run(run_id)["error_detail"]


@pytest.mark.slow
def test_a_worker_killed_amid_an_analysis_costs_the_report_nothing(
    scene: Scene, folder: Path, kill_a_worker: Callable[[str, str], None]
) -> None:
    report = folder.parent / "report.md"
    run_id = app.sync.start("pipeline", {"folder": str(folder), "report": str(report)})
    kill_a_worker(APP, "lock table pgflow.run_finished in share mode")
    scene.run_until_idle()
    scene.approve("editor")
    scene.run_until_idle()
    assert scene.output(run_id)["published"]["draft"] == 1
    assert "odd.md, line 9: missing.md" in report.read_text()


@pytest.mark.slow
def test_the_play_prints_what_the_readme_shows(pgflow_dsn: str, folder: Path) -> None:
    report = folder.parent / "report.md"
    played = subprocess.run(
        [sys.executable, "-m", "examples.pipeline.play", str(folder), str(report)],
        check=False,
        cwd=PROJECT,
        env=os.environ | {"PGFLOW_DSN": pgflow_dsn},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert played.returncode == 0, played.stderr
    assert "the editor says: too long" in played.stdout
    assert "draft     voided" in played.stdout
    assert "editor    rejected   too long" in played.stdout
    assert f"draft 2 is in {report}" in played.stdout
    assert report.exists()
