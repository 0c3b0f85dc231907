"""What docs/money.md shows works."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from pgflow import App, Context
from pgflow.budget import Budget
from pgflow.testing import Scene

PAGE = (Path(__file__).parents[2] / "docs" / "money.md").read_text()
(SCRIPT,) = entry_points(group="console_scripts", name="pgflow")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def statements(block: str) -> list[str]:
    return re.findall(r"^select .*?;$", block, re.MULTILINE | re.DOTALL)


@pytest.fixture
def names(pgflow_scene: Scene) -> dict[str, Any]:
    """Execute the page's code up to the run that it starts."""
    handler, enqueues = blocks("python")
    names: dict[str, Any] = {}
    exec(handler, names)
    app: App = names["app"]

    @app.handler
    async def spends(ctx: Context) -> None:
        await ctx.step("call", lambda: ctx.usage(cost_usd=0.01))

    pgflow_scene.use(app)
    exec(enqueues, names)
    return names


def test_the_handler_stops_before_it_spends_too_much(
    pgflow_scene: Scene, names: dict[str, Any]
) -> None:
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(names["run_id"]) == ["first", "secon"]


def test_the_sql_does_what_the_page_says(pgflow_scene: Scene, names: dict[str, Any]) -> None:
    app, asks = names["app"], {"usd": 0.005, "on_breach": "ask"}
    texts = [text for block in blocks("sql") for text in statements(block)]
    pgflow_scene.run_until_idle()
    with psycopg.connect(app.dsn, autocommit=True) as conn:
        for text in texts:
            run_id = names["run_id"]
            if "TASK" in text:
                run_id = app.sync.enqueue("spends", budget=asks)
                pgflow_scene.run_until_idle()
            (budget,) = app.sync.budgets(run_id=run_id)
            query = text.replace("TASK", str(budget["task_id"])).replace("RUN", str(run_id))
            row = conn.execute(query.encode()).fetchone()
            assert row
            if "pgflow.start(" in text:
                (budget,) = app.sync.budgets(run_id=row[0])
                assert (budget["usd"], budget["on_breach"]) == (30, "fail")
            elif "approve" in text:
                pgflow_scene.run_until_idle()
                assert pgflow_scene.run(run_id)["state"] == "completed"


def test_the_commands_are_there(dsn: str) -> None:
    (block,) = blocks("console")
    for line in re.findall(r"^\$ pgflow (.*)$", block, re.MULTILINE):
        told = CliRunner().invoke(SCRIPT.load(), ["--dsn", dsn, *line.split()])
        assert told.exit_code == 0, told.output
        assert "m-1" in told.output


def test_the_table_has_the_members_of_a_budget() -> None:
    table = PAGE.partition("| member |")[2].partition("\n\n")[0]
    rows = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) == set(Budget.model_fields)
