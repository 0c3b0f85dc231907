"""The plugin in somebody's project: found by pytest without a conftest, and leaving nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from pgflow.embedded import EmbeddedServer
from pgflow.testing.databases import remove_abandoned

pytest_plugins = ["pytester"]

SHOP = """
from pgflow import App

app = App("host=nowhere.invalid")

@app.handler
async def publish(ctx, article: dict) -> str:
    words = await ctx.step("count", lambda text: len(text.split()), article["text"])
    verdict = await ctx.approval("editor", payload={"words": words})
    return f"{words} words, {verdict.action}: {verdict.comment}"
"""

PASSES = """
import os

from shop import app, publish

def test_an_article_waits_for_its_editor(pgflow_scene):
    scene = pgflow_scene.use(app)
    run_id = app.sync.enqueue(publish, {"text": "Postgres is enough"})
    scene.run_until_idle()
    scene.approve("editor", comment="fine")
    scene.run_until_idle()
    assert scene.output(run_id) == "3 words, approved: fine"

def test_nothing_of_other_tests_is_seen(pgflow_scene, pgflow_dsn):
    assert pgflow_scene.use(app).client.runs() == []
    assert os.environ["PGFLOW_DSN"] == app.dsn == pgflow_dsn

async def enqueue(app):
    return await app.enqueue(publish, {"text": "Postgres"})

def test_the_app_is_used_from_several_event_loops(pgflow_scene):
    import asyncio

    pgflow_scene.use(app)
    assert asyncio.run(enqueue(app)) != asyncio.run(enqueue(app))
"""

FAILS = """
from shop import app, publish

def test_an_article_is_published_at_once(pgflow_scene):
    scene = pgflow_scene.use(app)
    run_id = app.sync.enqueue(publish, {"text": "Postgres is enough"})
    scene.run_until_idle()
    assert scene.output(run_id)

def test_the_boss_decides(pgflow_scene):
    scene = pgflow_scene.use(app)
    app.sync.enqueue(publish, {"text": "Postgres is enough"})
    scene.run_until_idle()
    scene.approve("boss")

def test_all_of_it_happens(pgflow_scene):
    scene = pgflow_scene.use(app)
    run_id = app.sync.enqueue(publish, {"text": "Postgres is enough"})
    scene.run_until_idle()
    scene.assert_timeline(run_id, ["run.created", "run.started", "run.completed"])
"""


@pytest.fixture
def shop(pytester: pytest.Pytester, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with an app, whose tests use our server; warnings are errors there too."""
    monkeypatch.setenv("PGFLOW_TEST_DSN", server)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(shop=SHOP)
    return pytester.path


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder for temporary files. Not tmp_path: a server of root's may not enter there."""
    folder = Path(tempfile.mkdtemp(prefix="pgflow-kit-"))
    folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("PGFLOW_TEST_DSN", raising=False)
    yield folder
    shutil.rmtree(folder)


def databases(server: str) -> set[str]:
    with psycopg.connect(server) as conn:
        return {name for (name,) in conn.execute("select datname from pg_database")}


@pytest.mark.usefixtures("shop")
def test_a_test_file_is_all_that_it_takes(pytester: pytest.Pytester, server: str) -> None:
    pytester.makepyfile(PASSES)
    before = databases(server)
    for order in ("randomly", "randomly", "no:randomly"):
        pytester.runpytest_subprocess("-p", order).assert_outcomes(passed=3)
    assert databases(server) == before


@pytest.mark.usefixtures("shop")
def test_failures_say_what_is_wrong_where_the_test_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILS)
    done = pytester.runpytest_subprocess("-p", "no:randomly", "--show-capture=no")
    done.assert_outcomes(failed=3)
    done.stdout.fnmatch_lines(
        [
            ">       assert scene.output(run_id)",
            "E       AssertionError: publish * is waiting_approval, not completed",
            "E       waits for editor",
            '>       scene.approve("boss")',
            "E       pgflow.testing.tasks.NoSuchTask: no open task 'boss'; open are:",
            "E         'editor': 'Approve editor of publish', of publish *",
            "E       AssertionError: timeline of publish *: - expected, + happened",
            "E         run.created",
            "E         run.started",
            "E       - run.completed",
            "E       + step.completed count",
            "E       + task.requested editor",
            "E       + run.waiting",
        ]
    )
    assert "scene.py" not in done.stdout.str()


@pytest.mark.usefixtures("shop")
def test_the_setting_or_a_fixture_names_the_app(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\npgflow_app = shop:app\n")
    test = """
    {}
    def test_a_run_waits(pgflow_scene):
        run_id = pgflow_scene.app.sync.enqueue("publish", {{"text": "x"}})
        pgflow_scene.run_until_idle()
        assert pgflow_scene.run(run_id)["state"] == "waiting_approval"
    """
    own = """
    import pytest, shop

    @pytest.fixture
    def pgflow_app():
        return shop.app
    """
    pytester.makepyfile(test.format(""))
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    pytester.runpytest_subprocess("-o", "pgflow_app=", "-q").assert_outcomes(failed=1)
    pytester.makepyfile(test.format(own))
    pytester.runpytest_subprocess("-o", "pgflow_app=").assert_outcomes(passed=1)


@pytest.mark.usefixtures("shop")
def test_a_setting_that_names_nothing_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(pgflow_scene): pass")
    done = pytester.runpytest_subprocess("-o", "pgflow_app=shop:nobody")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*pgflow_app = shop:nobody: there is no pgflow.App of that name*"])


@pytest.mark.slow
@pytest.mark.usefixtures("shop")
def test_workers_of_xdist_share_a_server_that_goes_with_them(
    pytester: pytest.Pytester, home: Path
) -> None:
    test = """
    import pathlib

    from shop import app

    def test_{0}(pgflow_scene, pgflow_server):
        pgflow_scene.use(app).person("alice", "editors")
        pathlib.Path("server.{0}").write_text(pgflow_server)
    """
    pytester.makepyfile(**{f"test_{n}": test.format(n) for n in range(6)})
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=6)
    servers = {path.read_text() for path in pytester.path.glob("server.*")}
    assert len(servers) == 1
    assert list(home.iterdir()) == [path for path in home.iterdir() if "pytest" in path.name]
    running = subprocess.run(["ps", "axww"], check=True, capture_output=True, text=True).stdout
    assert str(home) not in running


@pytest.mark.slow
@pytest.mark.usefixtures("shop")
def test_a_session_that_is_interrupted_leaves_no_server(
    pytester: pytest.Pytester, home: Path
) -> None:
    pytester.makepyfile("def test_it(pgflow_scene): raise KeyboardInterrupt")
    done = pytester.runpytest_subprocess()
    done.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
    assert [path for path in home.iterdir() if "pgflow" in path.name] == []


@pytest.mark.slow
def test_a_server_whose_session_was_killed_goes_with_a_later_session(home: Path) -> None:
    folder = home / "pgflow-pytest-1"
    start = (
        "import os, sys; from pgflow.embedded import EmbeddedServer as E; E(sys.argv[1]).start()"
    )
    command = [sys.executable, "-c", f"{start}; os._exit(0)", str(folder)]
    subprocess.run(command, check=True)
    left = EmbeddedServer(folder)
    assert left.is_running()
    remove_abandoned(home, "pgflow-pytest-*", timedelta(hours=1))  # too young
    with left:
        remove_abandoned(home, "pgflow-pytest-*", timedelta())  # somebody uses it
        assert left.is_running()
        left.start(detached=True)
    assert left.is_running()
    remove_abandoned(home, "pgflow-pytest-*", timedelta())
    assert not left.is_running()
    assert not folder.exists()


def test_importing_pgflow_or_the_scene_does_not_import_pytest() -> None:
    code = "import sys, pgflow, pgflow.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
