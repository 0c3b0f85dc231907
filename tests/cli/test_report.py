"""The report of a run on the command line: for programs, as Markdown, as a page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from pgflow import App, Client, Context, Flow, Step

if TYPE_CHECKING:
    from pgflow.testing import Scene
    from tests.cli.conftest import Command, Remains

HOSTILE = "<script>alert(1)</script> | `rm` [x](http://evil) \x1b[31m\n# no\n\"'&"
VOID = {"meta", "br"}
SVG = "{http://www.w3.org/2000/svg}"


def graph_of(page: str) -> ET.Element:
    """Return the graph of a page."""
    return ET.fromstring(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)[0])


def drawn(page: str) -> list[list[str | None]]:
    """Return the words in each box of the graph of a page."""
    return [[t.text for t in g.iter(f"{SVG}text")] for g in graph_of(page).iter(f"{SVG}g")]


class Page(HTMLParser):
    """The elements of a page, its texts, and whether each was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def flow(dsn: str) -> UUID:
    """Return a flow that waits for a person, and whose texts are hostile."""
    steps: list[dict[str, Any]] = [
        {"name": "collect", "type": "wait_event"},
        {"name": "editor", "type": "approval_gate", "needs": ["collect"]},
        {"name": "board", "type": "approval_gate", "needs": ["editor"]},
        {"name": "mend", "needs": ["editor"], "join": "one_failed"},
    ]
    steps[1]["config"] = {"title": HOSTILE}
    with Client(dsn) as client:
        client.define_flow({"name": "review", "steps": steps})
        run_id = client.start("review", {"text": HOSTILE})
        client.signal(run_id, "collect", HOSTILE)
        (task,) = client.inbox()
        client.approve(task["task_id"], HOSTILE)
        client.emit(run_id, HOSTILE[:100])
    return run_id


def test_json_is_what_the_database_says(
    succeeds: Command, db: psycopg.Connection, flow: UUID
) -> None:
    told = json.loads(succeeds("report", flow, "--format", "json").out)
    (row,) = db.execute("select pgflow.report(%s)", [flow])
    assert told == row[0]


def test_markdown_has_the_steps_the_hashes_and_the_decisions(
    succeeds: Command, db: psycopg.Connection, flow: UUID
) -> None:
    text = succeeds("report", flow).out
    ((sha256,),) = db.execute("select sha256 from pgflow.flows where flow = 'review'")
    assert text.startswith("# review version 1\n\n- status: waiting\\_approval\n")
    assert f"- hash: {sha256}\n" in text
    assert re.search(r"^\| collect \| completed \| 1 \| 1 \| \d{4}-", text, flags=re.MULTILINE)
    assert re.search(r"^\| board \| waiting \| ", text, flags=re.MULTILINE)
    assert re.search(r"^\| collect \| output \|  \| [0-9a-f]{16} \|", text, flags=re.MULTILINE)
    assert re.search(r"^\| \d{4}-.* \| editor \| .* \| approved \| ", text, flags=re.MULTILINE)
    assert "| task: board | board | approval |" in text


def test_no_text_is_markup_in_markdown(succeeds: Command, flow: UUID) -> None:
    text = succeeds("report", flow).out
    assert "<script>" not in text.replace("\\<", "")
    assert "\\<script\\>alert(1)\\</script\\> \\| \\`rm\\` \\[x\\](http://evil)" in text
    assert "\x1b" not in text
    cells = {
        len(re.findall(r"(?<!\\)\|", line))
        for line in text.partition("## Decisions\n")[2].partition("##")[0].splitlines()
        if line
    }
    assert cells == {7}
    assert not re.search(r"^# no", text, flags=re.MULTILINE)


def test_the_page_is_whole_and_shows_every_text_as_it_is(succeeds: Command, flow: UUID) -> None:
    page = Page(succeeds("report", flow, "--format", "html").out)
    assert page.open == []
    assert "<script>alert(1)</script> | `rm` [x](http://evil)" in page.text
    assert {"svg", "table", "style"} <= set(page.tags)


def test_the_page_fetches_nothing_and_executes_nothing(succeeds: Command, flow: UUID) -> None:
    text = succeeds("report", flow, "--format", "html").out
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "a", "form"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on") or name in {"src", "href", "style"}}
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text
    assert "\x1b" not in text


def test_the_graph_says_each_state_in_a_word(succeeds: Command, flow: UUID) -> None:
    text = succeeds("report", flow, "--format", "html").out
    svg = graph_of(text)
    assert drawn(text) == [
        ["collect", "completed"],
        ["editor", "completed"],
        ["board", "waiting"],
        ["mend", "skipped"],
    ]
    columns = [int(r.attrib["x"]) for r in svg.iter(f"{SVG}rect")]
    assert columns[0] < columns[1] < columns[2] == columns[3]
    assert len([p for p in svg.iter(f"{SVG}path") if "edge" in p.attrib["class"]]) == 3


def test_the_graph_has_added_steps_and_none_that_was_taken_back(
    anywhere: Command, pgflow_scene: Scene
) -> None:
    app = App("")

    @app.handler
    async def plan(ctx: Context) -> None:
        await ctx.add_step(Step(name=f"part-{ctx.version}", handler="part"), needed_by=["ok"])

    @app.handler
    async def part() -> None:
        pass

    gate = Step(name="ok", type="approval_gate", needs=["plan"])
    scene = pgflow_scene.use(app)
    scene.client.define_flow(Flow(name="planned", steps=[Step(name="plan"), gate]))
    run_id = scene.client.start("planned")
    scene.run_until_idle()
    (task,) = scene.client.inbox()
    scene.client.reject(task["task_id"], rollback_to="plan")
    scene.run_until_idle()
    page = anywhere("report", run_id, "--format", "html", "--dsn", scene.dsn).out
    assert [words[0] for words in drawn(page)] == ["plan", "ok", "part-1"]
    assert "part-0" in page  # its old line stays


def test_the_page_is_light_and_dark(succeeds: Command, flow: UUID) -> None:
    assert "prefers-color-scheme: dark" in succeeds("report", flow, "--format", "html").out


def test_a_report_is_written_to_a_file(succeeds: Command, flow: UUID, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert succeeds("report", flow, "--format", "html", "-o", file).out == ""
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_file_that_cannot_be_written_is_told(pgflow: Command, flow: UUID, tmp_path: Path) -> None:
    done = pgflow("report", flow, "-o", tmp_path / "nowhere" / "report.md")
    assert done.code == 1
    assert "nowhere" in done.err


@pytest.mark.parametrize("form", ["md", "html", "json"])
def test_a_handlers_run_has_a_report_too(succeeds: Command, remains: Remains, form: str) -> None:
    text = succeeds("report", remains.failed, "--format", form).out
    assert "E-RUN-001" in text
    assert "no such luck" in text
    assert "<svg" not in text


def test_the_context_of_a_run_is_printed(succeeds: Command, flow: UUID) -> None:
    told = json.loads(succeeds("context", flow).out)
    assert told["progress"]["current_steps"] == ["board"]


@pytest.mark.parametrize("command", ["report", "context"])
def test_an_unknown_run_is_told(pgflow: Command, command: str) -> None:
    done = pgflow(command, "01900000-0000-7000-8000-000000000000")
    assert done.code == 1
    assert done.err.startswith("error: unknown run: 01900000-")
