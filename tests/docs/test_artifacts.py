"""What docs/artifacts.md shows works."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from pgflow.testing import Scene

PAGE = (Path(__file__).parents[2] / "docs" / "artifacts.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def app(pgflow_scene: Scene) -> Any:
    """Execute the page's module, and give its app to the scene."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile("\n".join(blocks("python")), "artifacts.md", "exec", dont_inherit=True), names)
    pgflow_scene.use(names["app"])
    return names["app"]


def rows(scene: Scene, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(scene.dsn, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


def test_a_run_leaves_documents_behind(app: Any, pgflow_scene: Scene) -> None:
    run_id = app.sync.enqueue("write", "queues")
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == ["$ 'words' is a required property"]
    valid = {a["name"]: a["valid"] for a in app.sync.artifacts(run_id, kind="document")}
    assert valid == {"notes": True, "picture": True, "article": False}


def test_an_article_is_repaired_and_read(app: Any, pgflow_scene: Scene) -> None:
    define, *reads = (sql for block in blocks("sql") for sql in block.split(";\n") if sql)
    assert rows(pgflow_scene, define) == [(1,)]
    app.sync.define_flow(yaml.safe_load(blocks("yaml")[0]))
    run_id = app.sync.start("writing", "queues")
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == {"publish": "queues"}
    listed, title = (rows(pgflow_scene, sql.replace("01a1fe19-…", str(run_id))) for sql in reads)
    assert sorted(row[:5] for row in listed if row[3] == "article") == [
        ("draft", 0, "document", "article", False),
        ("draft", 0, "document", "article", True),
    ]
    assert title == [("queues",)]
    found = app.sync.artifact_content(run_id, "article", "draft")
    assert found.content == {"title": "queues", "words": 900}


def test_the_command_of_the_page_stores_the_same_schema() -> None:
    (command,) = re.findall(r"^\$ pgflow schema define article '(.*)'$", PAGE, flags=re.MULTILINE)
    (in_sql,) = re.findall(r"define_schema\('article', '(.*)'\)", PAGE)
    assert json.loads(command) == json.loads(in_sql)
