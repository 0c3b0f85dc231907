"""The editorial example: what it finds in a file, its handler, and its demo from end to end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from examples.editorial import processes, queries
from examples.editorial.analysis import BrokenLink, Findings, analyse, markdown_files
from examples.editorial.app import Article, app, review
from pgflow.testing import Scene

PROJECT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "examples.editorial.demo"]
PATIENCE = 30.0

GUIDE = """\
# The guide

Three words here, then [there](other.md) and
[not there](missing.md), ![neither](no.png).

- [a chapter](#the-guide), [elsewhere](https://example.com/missing.md),
  [mail](mailto:a@b.c), <https://example.com>, [the site](/missing.md)

```md
[in code](missing-too.md) is no link
```

| column                        |
| ----------------------------- |
| [deep](sub/deep%20down.md#on) |

<p><img src="logo.png">
<a href="other.md">x</a></p>
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "guide.md").write_text(GUIDE)
    (tmp_path / "other.md").write_text("word " * 231)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep down.md").write_text("Up to [the guide](../guide.md).\n")
    return tmp_path


def test_broken_links_are_the_relative_ones_that_lead_nowhere(folder: Path) -> None:
    assert analyse(folder / "guide.md").broken_links == [
        BrokenLink(line=4, target="missing.md"),
        BrokenLink(line=4, target="no.png"),
        BrokenLink(line=17, target="logo.png"),
    ]
    assert analyse(folder / "sub" / "deep down.md").broken_links == []


def test_links_in_code_are_no_links(folder: Path) -> None:
    assert analyse(folder / "guide.md").links == 11
    (folder / "code.md").write_text("`[a](b.md)`\n\n    [c](d.md)\n\n~~~\n[e](f.md)\n~~~\n")
    assert analyse(folder / "code.md").links == 0


@pytest.mark.parametrize(
    "target", ["http://[", "%00", "a" * 5000, "caf%C3%A9", "?query", "<![nonsense["]
)
def test_strange_links_break_nothing_but_themselves(folder: Path, target: str) -> None:
    (folder / "café").touch()
    (folder / "strange.md").write_text(f'[x](<{target}>) <a href="{target}">y</a>')
    expected = target in {"%00", "a" * 5000, "<![nonsense["}
    assert bool(analyse(folder / "strange.md").broken_links) is expected


def test_words_are_those_that_a_reader_sees(folder: Path) -> None:
    (folder / "words.md").write_text("One *two*, [three\nfour](x)`five`.\n\n<b>six</b>\n\n    no\n")
    assert analyse(folder / "words.md").words == 5
    assert analyse(folder / "other.md").reading_minutes == 2


def test_an_empty_file_takes_no_time(folder: Path) -> None:
    (folder / "empty.md").write_bytes(b"")
    nothing = Findings(words=0, reading_minutes=0, links=0, broken_links=[])
    assert analyse(folder / "empty.md") == nothing


def test_bytes_that_are_no_text_are_read_as_well_as_can_be(folder: Path) -> None:
    (folder / "latin.md").write_bytes(b"caf\xe9 [\xe9](\xff.md) \x00")
    assert len(analyse(folder / "latin.md").broken_links) == 1


def test_hidden_foreign_and_unprintable_files_are_left_alone(folder: Path) -> None:
    for name in (".venv/a.md", "node_modules/b.md", "c.txt", "d\x1b[31m.md", "E.MD"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / "f.md").symlink_to("nowhere")
    (folder / "g.md").mkdir()
    found = list(markdown_files(folder))
    assert found == ["E.MD", "guide.md", "other.md", "sub/deep down.md"]


@pytest.fixture
def scene(pgflow_scene: Scene) -> Scene:
    return pgflow_scene.use(app)


def test_an_approved_article_is_published_and_a_rejected_one_is_not(
    scene: Scene, folder: Path
) -> None:
    articles = [Article(folder=folder, name=name) for name in ("guide.md", "other.md")]
    good, bad = app.sync.enqueue_many(review, articles)
    scene.run_until_idle()
    findings = analyse(folder / "guide.md")
    assert [task.payload for task in scene.tasks() if task.run_id == good] == [
        findings.model_dump()
    ]
    approval = scene.approve("Publish guide.md?", comment="fine")
    scene.reject("Publish other.md?", comment="dull")
    scene.run_until_idle()
    assert scene.output(good) == {
        "name": "guide.md",
        "words": findings.words,
        "reading_minutes": 1,
        "approved_by": approval.decided_by,
        "comment": "fine",
    }
    assert (scene.run(bad)["state"], scene.run(bad)["error_code"]) == ("cancelled", "E-RUN-006")


def test_the_steps_before_the_approval_are_not_done_again(scene: Scene, folder: Path) -> None:
    run_id = app.sync.enqueue(review, Article(folder=folder, name="guide.md"))
    scene.run_until_idle()
    (folder / "guide.md").unlink()
    scene.approve()
    scene.run_until_idle()
    scene.assert_timeline(
        run_id,
        [
            "run.created",
            "run.started",
            "step.completed analyse",
            "step.completed proofread",
            "task.requested findings",
            "run.waiting",
            "task.resolved findings",
            "run.woken",
            "run.started",
            "step.completed publish",
            "run.completed",
        ],
    )


def test_latency_is_counted_from_the_approval_to_the_next_start(scene: Scene, folder: Path) -> None:
    app.sync.enqueue(review, Article(folder=folder, name="guide.md"))
    scene.time.set("2030-01-01T09:00:00Z")
    scene.run_until_idle()
    scene.approve()
    scene.time.advance(seconds=2)
    scene.run_until_idle()
    with psycopg.connect(scene.dsn) as conn:
        assert conn.execute(queries.LATENCY.encode()).fetchone() == (1, 2000.0, 2000)


@pytest.mark.parametrize("has_psql", [True, False])
def test_a_person_decides_with_or_without_psql(
    dsn: str, monkeypatch: pytest.MonkeyPatch, *, has_psql: bool
) -> None:
    if not has_psql:
        monkeypatch.setattr(processes, "_find_psql", lambda: None)
    person = processes.Person(dsn)
    try:
        assert person.client.startswith("psql " if has_psql else "decide.py")
        assert person.send("select state from pgflow.state where state = 'paused';") == "paused"
        assert person.send("select '%s';") == "%s"
    finally:
        person.leave()


class Demo:
    """The demo as a process, in a temporary folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [*DEMO, *map(str, arguments)],
            cwd=PROJECT,
            env=os.environ | {"TMPDIR": str(self.home), "PGFLOW_DSN": "host=nowhere.invalid"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def run(self, *arguments: str | Path) -> tuple[int, str]:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def left(self) -> list[str]:
        """Return the files, and the processes with our folder in their words or environment."""
        listed = subprocess.run(["ps", "axeww"], check=True, capture_output=True, text=True)
        processes = [line for line in listed.stdout.splitlines() if str(self.home) in line]
        return processes + [str(path) for path in self.home.iterdir()]


@pytest.fixture
def demo() -> Iterator[Demo]:
    # Not tmp_path: a server of root's is run by another user, who may not enter there.
    home = Path(tempfile.mkdtemp(prefix="pgflow-ed-"))
    home.chmod(0o755)
    running = Demo(home)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.process.terminate()
        running.process.communicate()
    left = running.left()
    shutil.rmtree(home)
    assert left == []


@pytest.mark.slow
def test_the_demo_does_what_it_says_and_leaves_nothing_behind(demo: Demo, folder: Path) -> None:
    code, output = demo.run("--folder", folder)
    assert code == 0, output
    assert "files      3  fewer than 10" in output
    assert "run.requeued  from" in output
    assert "rejected by postgres: 3 broken links" in output
    assert "guide.md, line 4: missing.md" in output
    assert "draft 2 is in" in output
    assert "All came out as it should" in output


@pytest.mark.slow
def test_the_demo_says_that_it_needs_two_files(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("# One")
    code, output = demo.run("--folder", tmp_path)
    assert code == 1
    assert "files found: 1" in output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_demo_that_is_stopped_leaves_nothing_behind(
    demo: Demo, folder: Path, number: signal.Signals
) -> None:
    process = demo.start("--folder", folder)
    assert process.stdout is not None
    give_up = time.monotonic() + PATIENCE
    for line in process.stdout:
        if "enqueued" in line:
            break
        assert time.monotonic() < give_up
    process.send_signal(number)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, rest


@pytest.mark.slow
def test_a_kept_database_goes_on_until_it_is_stopped(demo: Demo, folder: Path) -> None:
    code, output = demo.run("--folder", folder, "--keep")
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if "--stop" in line]
    assert _count_of_runs(_exports(output)[0]) == 3
    stopped = subprocess.run(
        line.replace("pgflow dev", f"{sys.executable} -m pgflow.cli dev"),
        shell=True,
        check=False,
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert stopped.returncode == 0, stopped.stderr


def _exports(output: str) -> list[str]:
    start = "export PGFLOW_DSN="
    lines = [line.strip() for line in output.splitlines()]
    return [line.removeprefix(start).strip("'") for line in lines if line.startswith(start)]


def _count_of_runs(dsn: str) -> Any:
    with psycopg.connect(dsn) as conn:
        return conn.execute("select count(*) from pgflow.runs where handler = 'review'").fetchone()[
            0
        ]  # type: ignore[index]
