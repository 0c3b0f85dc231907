"""What docs/flows.md shows works, in the order of the page."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from click.testing import CliRunner

from pgflow import App, Context
from pgflow.errors import BadRequest, UnknownAgent
from pgflow.testing import Scene

(SCRIPT,) = entry_points(group="console_scripts", name="pgflow")
PAGE = (Path(__file__).parents[2] / "docs" / "flows.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def shown(command: str) -> list[str]:
    """Return what the page shows below a command."""
    text = "".join(blocks("console"))
    return text.partition(f"$ {command}\n")[2].partition("$ ")[0].splitlines()


DEFINITION: dict[str, Any] = yaml.safe_load(blocks("yaml")[0])
RUN = "01a1fe19-0a96-7d76-be7c-992694a02676"
INPUT = {"title": "Enough", "text": "Postgres is enough. It is."}


@pytest.fixture
def app(pgflow_scene: Scene) -> App:
    """Return the app of the page, on the test's own database."""
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    app: App = names["app"]
    pgflow_scene.use(app)
    return app


def test_the_flow_runs_to_its_end(app: App, pgflow_scene: Scene) -> None:
    app.sync.define_flow(DEFINITION)
    run_id = app.sync.start("review", INPUT)
    pgflow_scene.run_until_idle()
    (row, *_) = app.sync.runs(run_id=run_id)
    assert row["state"] == "waiting_approval"
    assert {s["step"]: s["state"] for s in app.sync.flow_steps(run_id)} == {
        "collect": "completed",
        "facts": "completed",
        "style": "completed",
        "publish": "waiting",
    }
    pgflow_scene.approve("editor")
    pgflow_scene.run_until_idle()
    assert app.sync.result(run_id).value == {"publish": "Enough: approved"}


def test_the_commands_print_what_is_shown(tmp_path: Path, dsn: str) -> None:
    (tmp_path / "review.yaml").write_text(blocks("yaml")[0])

    def told(*words: str) -> list[str]:
        return CliRunner().invoke(SCRIPT.load(), ["--dsn", dsn, *words]).output.splitlines()

    applied = told("flow", "apply", str(tmp_path / "review.yaml"))
    assert applied == shown("pgflow flow apply review.yaml")
    assert told("flow", "graph", "review") == shown("pgflow flow graph review")
    steps = json.loads(json.dumps(DEFINITION).replace('["collect"]', '["colect"]', 1))
    (tmp_path / "broken.yaml").write_text(json.dumps(steps))
    refused = told("flow", "apply", str(tmp_path / "broken.yaml"))
    assert refused[:1] == shown("pgflow flow apply broken.yaml")
    run_id = told("start", "review", json.dumps(INPUT))[0]
    columns = re.search(r"\$ pgflow flow steps \S+\n(.*)", PAGE)
    assert columns is not None
    assert told("flow", "steps", run_id)[0].split() == columns[1].split()


def test_the_sql_and_the_python_make_the_same_version(app: App) -> None:
    define, start = re.findall(r"^select .*?;$", blocks("sql")[0], re.MULTILINE | re.DOTALL)
    with psycopg.connect(app.dsn, autocommit=True) as conn:
        row = conn.execute(define.encode()).fetchone()
        assert row == (1,)
        assert conn.execute(start.encode()).fetchone()
    names: dict[str, Any] = {"app": app}
    exec(blocks("python")[1], names)
    (run,) = app.sync.runs(run_id=names["run_id"])
    assert (run["handler"], run["flow_version"]) == ("review", 2)


def test_all_faults_are_in_the_detail(app: App) -> None:
    with pytest.raises(BadRequest) as refused:
        app.sync.define_flow({"name": "f", "steps": [{"name": "a"}, {"name": "a", "x": 1}]})
    assert len(json.loads(refused.value.detail)["faults"]) == 2


def test_a_step_for_each_element_is_defined_as_it_is_shown(app: App) -> None:
    assert app.sync.define_flow(yaml.safe_load(blocks("yaml")[1])).version == 1


def test_a_flow_in_a_flow_is_defined_as_it_is_shown(app: App) -> None:
    (inner,) = yaml.safe_load("steps:\n" + blocks("yaml")[2])["steps"]
    with pytest.raises(BadRequest) as refused:
        app.sync.define_flow({"name": "book", "steps": [{"name": "draft"}, inner]})
    assert refused.value.field == "definition.steps[1].config.flow"
    for text in ("x", "y", "z"):
        app.sync.define_flow({**DEFINITION, "description": text})
    app.sync.define_flow({"name": "book", "steps": [{"name": "draft"}, inner]})


def test_a_gate_is_defined_as_it_is_shown(app: App) -> None:
    (gate,) = yaml.safe_load("steps:\n" + blocks("yaml")[3])["steps"]
    app.sync.define_flow({**DEFINITION, "steps": [*DEFINITION["steps"], gate]})
    steps = app.sync.flow_steps(app.sync.start("review", INPUT))
    assert (steps[-1]["step"], steps[-1]["type"]) == ("editor", "approval_gate")


def test_a_flow_has_state_values(pgflow_scene: Scene) -> None:
    names: dict[str, Any] = {}
    exec(blocks("python")[2], names)
    app: App = names["app"]
    pgflow_scene.use(app)
    (judged,) = [text for text in blocks("yaml") if "name: judged" in text]
    definition = yaml.safe_load(judged)
    (condition,) = [text for text in blocks("yaml") if text.startswith("    when:")]
    (shown_when,) = yaml.safe_load("- " + condition.strip())
    app.sync.define_flow(definition)
    app.sync.define_flow({**definition, "name": "other", "steps": [{"name": "a", **shown_when}]})
    run_id = app.sync.start("judged")
    pgflow_scene.run_until_idle()
    state = {"notes": ["all true", "plain", "short"], "score": 0.7}
    assert app.sync.result(run_id).value == state
    rows = app.sync.history(run_id)
    header, *lines = shown(f"pgflow flow history {RUN}")
    assert header.split() == ["number", "super_step", "label", "at", "steps", "changed", "values"]
    told = [json.loads(line[line.index("{") :]) for line in lines]
    assert told[-1] == rows[-1]["values"] == state


def test_a_reducer_is_registered_as_it_is_shown(app: App) -> None:
    (block,) = (b for b in blocks("sql") if "define_reducer" in b)
    with psycopg.connect(app.dsn, autocommit=True) as conn:
        conn.execute(block.encode())
    app.sync.define_flow(
        {"name": "f", "steps": [{"name": "a"}], "channels": {"x": {"reducer": "longest"}}}
    )


def test_step_types_are_registered_and_named_as_it_is_shown(app: App) -> None:
    (types,) = [text for text in blocks("sql") if "register_step_type" in text]
    with psycopg.connect(app.dsn, autocommit=True) as conn:
        conn.execute(types.encode())
    (contract,) = [text for text in blocks("yaml") if "name: contract" in text]
    app.sync.define_flow(yaml.safe_load(contract))
    steps = app.sync.flow_steps(app.sync.start("contract"))
    assert [(step["type"], step["handler"]) for step in steps] == [
        ("translate", "translator"),
        ("legal", "approval_gate"),
    ]


def test_the_gates_of_the_page_are_asked_one_after_the_other(app: App, pgflow_scene: Scene) -> None:
    (release,) = [text for text in blocks("yaml") if "name: release" in text]

    @app.handler
    async def plan(ctx: Context) -> str:
        await ctx.artifact("plan", {"days": 3})
        return "plan"

    @app.handler
    def build(given: Any) -> Any:
        return given

    app.sync.define_flow(yaml.safe_load(release))
    run_id = app.sync.start("release")
    for gate in ("plan/architect", "plan/legal", "sign_off/owner"):
        pgflow_scene.run_until_idle()
        (task,) = app.sync.inbox()
        assert task["step"] == gate
        app.sync.approve(task["task_id"])
    assert app.sync.result(run_id).value == {"sign_off": {"build": {"plan": "plan"}}}


def test_a_role_is_bound_to_the_agent_of_the_page(pgflow_scene: Scene) -> None:
    names: dict[str, Any] = {}
    (code,) = [text for text in blocks("python") if "ctx.binding" in text]
    exec(code, names)
    app: App = names["app"]
    pgflow_scene.use(app)
    app.sync.define_flow(names["TRIP"])
    with pytest.raises(UnknownAgent):
        app.sync.start("trip")
    (agent,) = [text for text in blocks("sql") if "define_agent" in text]
    with psycopg.connect(app.dsn, autocommit=True) as conn:
        conn.execute(agent.encode())
    run_id = app.sync.start("trip")
    pgflow_scene.run_until_idle()
    assert app.sync.result(run_id).value == {"plan": "planner: large-1, temperature 0"}


def test_a_flow_with_the_breakpoints_of_the_page_stops_and_goes_where_it_is_sent(
    app: App, pgflow_scene: Scene
) -> None:
    (stops,) = [text for text in blocks("yaml") if "breakpoints:" in text]
    app.sync.define_flow({**DEFINITION, **yaml.safe_load(stops)})
    run_id = app.sync.start("review", INPUT)
    pgflow_scene.run_until_idle()
    (row,) = app.sync.runs(run_id=run_id)
    assert (row["pause_reason"], row["stands_at"]["step"]) == ("after", "facts")
    (goto,) = [text for text in blocks("sql") if "goto" in text]
    with psycopg.connect(app.dsn, autocommit=True) as conn:
        conn.execute(goto.replace("RUN", str(run_id)).encode())
    (row,) = app.sync.runs(run_id=run_id)
    assert (row["pause_reason"], row["stands_at"]["step"]) == ("before", "publish")


def test_a_flow_is_aborted_as_it_is_shown(app: App, pgflow_scene: Scene) -> None:
    app.sync.define_flow(DEFINITION)
    run_id = app.sync.start("review", INPUT)
    pgflow_scene.run_until_idle()
    (task,) = app.sync.inbox()
    (abort,) = [text for text in blocks("sql") if "abort" in text]
    with psycopg.connect(app.dsn, autocommit=True) as conn:
        conn.execute(abort.replace("TASK", str(task["task_id"])).encode())
    (row,) = app.sync.runs(run_id=run_id)
    assert (row["state"], row["error_code"]) == ("cancelled", "E-RUN-013")
