"""The handlers of docs/handlers.md do what the page says."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgflow import Context
from pgflow.testing import Scene

PAGE = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text()
CODE = "".join(re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
Names = dict[str, Any]


@pytest.fixture
def names(pgflow_scene: Scene) -> Names:
    """Execute the page's module, and give its app to the scene."""
    names: Names = {"__name__": "page"}
    exec(compile(CODE, "handlers.md", "exec", dont_inherit=True), names)
    pgflow_scene.use(names["app"])
    return names


def test_the_page_has_every_call_of_the_context() -> None:
    ours = {"adopt", "anew", "park", "collecting", "keep", "kept", "left_behind", "recall"}
    ours |= {"begin_transaction", "roll_back", "new_transaction", "journal", "is_waiting"}
    ours |= {"is_suspended", "undos", "task", "transacting", "result"}
    public = {name for name in dir(Context) if not name.startswith("_")} - ours
    assert "gather" in public
    assert [name for name in sorted(public) if not re.search(rf"\b{name}\b", PAGE)] == []


def test_a_draft_is_a_step(pgflow_scene: Scene, names: Names) -> None:
    run_id = names["app"].sync.enqueue("draft", {"title": "a"})
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == {"title": "a", "text": "Postgres is enough."}


def test_a_room_goes_back_when_the_run_fails(pgflow_scene: Scene, names: Names) -> None:
    names["app"].sync.enqueue("book", "nobody")
    pgflow_scene.run_until_idle()
    assert names["rooms"] == ["12", "14"]
    run_id = names["app"].sync.enqueue("book", "Ann")
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == "14"


def test_people_are_asked(pgflow_scene: Scene, names: Names) -> None:
    client = names["app"].sync
    run_id = client.enqueue("deliver")
    pgflow_scene.run_until_idle()
    client.approve(task(client), "fine")
    pgflow_scene.run_until_idle()
    client.answer(task(client), {"street": "Elm"})
    pgflow_scene.run_until_idle()
    client.answer(task(client), "ring twice")
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == "fine: Elm 0, ring twice"


def task(client: Any) -> Any:
    (task,) = client.inbox()
    return task["task_id"]


def test_others_are_waited_for(pgflow_scene: Scene, names: Names) -> None:
    client = names["app"].sync
    run_id = client.enqueue("publish_video", "a.mov")
    pgflow_scene.run_until_idle()
    client.signal(run_id, "payment", 5)
    client.resolve_tool(run_id, "transcode", {"width": 8})
    pgflow_scene.run_until_idle()
    while pgflow_scene.run(run_id)["state"] != "paused":
        pgflow_scene.time.advance(timedelta(seconds=1))
        pgflow_scene.run_until_idle()
    client.resume(run_id, {"resume": "go"})
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == [5, 4, "go"]


def test_branches_have_the_keys_that_the_page_says(pgflow_scene: Scene, names: Names) -> None:
    client = names["app"].sync
    run_id = client.enqueue("check", {"title": "a"})
    pgflow_scene.run_until_idle()
    tasks = {line["step"]: line["task_id"] for line in client.inbox()}
    assert set(tasks) == {"gather#1/0/legal", "gather#1/1/editor"}
    for task_id in tasks.values():
        client.approve(task_id)
    pgflow_scene.run_until_idle()
    assert {"gather#1/0/file", "gather#1/1/file"} <= set(pgflow_scene.steps(run_id))
    client.signal(run_id, "go")
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == ["APPROVED", "APPROVED", 0]


def test_chance_is_drawn_once(pgflow_scene: Scene, names: Names) -> None:
    run_id = names["app"].sync.enqueue("raffle")
    pgflow_scene.run_until_idle()
    pgflow_scene.time.advance(timedelta(seconds=1))
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == list(pgflow_scene.steps(run_id).values())[:3]


def test_a_model_is_called_once(pgflow_scene: Scene, names: Names, pgflow_dsn: str) -> None:
    client = names["app"].sync
    run_id = client.enqueue("summarise", "short")
    pgflow_scene.run_until_idle()
    client.approve(task(client))
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == "SHORT"
    with psycopg.connect(pgflow_dsn) as db:
        query = "select step, cost_usd_total::float from pgflow.model_calls"
        assert db.execute(query).fetchall() == [("summary", 0.013)]


def test_sales_are_written_with_their_runs(
    pgflow_scene: Scene, names: Names, pgflow_dsn: str
) -> None:
    with psycopg.connect(pgflow_dsn, autocommit=True) as db:
        db.execute("create table seat (name text); create table sale (seat text)")
        for handler in ("sell", "sell_plainly"):
            names["app"].sync.enqueue(handler, "7a")
        pgflow_scene.run_until_idle()
        assert db.execute("select count(*) from seat").fetchone() == (1,)
        assert db.execute("select count(*) from sale").fetchone() == (2,)


def test_a_new_run_is_patched(pgflow_scene: Scene, names: Names) -> None:
    client = names["app"].sync
    run_id = client.enqueue("release")
    pgflow_scene.run_until_idle()
    client.approve(task(client))
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == ["BUILT", "SIGNED"]
