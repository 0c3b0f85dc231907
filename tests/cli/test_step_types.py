"""Step types, breakpoints of flows, abort and goto on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Command

CHAIN = """
name: chain
steps:
  - {name: a, type: approval_gate}
  - {name: b, needs: [a], type: approval_gate}
  - {name: c, needs: [b], type: approval_gate}
"""


@pytest.fixture
def chain(succeeds: Command, tmp_path: Path) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(CHAIN)
    succeeds("flow", "apply", file)


def test_a_step_type_is_registered_listed_and_taken_away(succeeds: Command) -> None:
    words = ("step-type", "register", "legal", "--interactive", "--due", 60, "--policy", "timeout")
    told = succeeds(*words, "--config", '{"assignee_role": "lawyers"}').out
    assert told == "registered legal: approval_gate\n"
    assert succeeds("step-type", "register", "count").out == "registered count: handler count\n"
    (row,) = succeeds(*words, "--form", "{}", "--json").objects
    assert (row["kind"], row["default_policy"]) == ("human_task", "timeout")
    header, *lines = succeeds("step-type", "list").lines
    assert header.split()[:3] == ["name", "interactive", "kind"]
    names = [line.split()[0] for line in lines]
    own = ["approval_gate", "flow", "human_task", "pass", "timer", "wait_event"]
    assert names == [*own, "count", "legal"]
    assert succeeds("step-type", "unregister", "legal").out == "unregistered\n"
    assert succeeds("step-type", "unregister", "legal").out == "was not registered\n"
    (told_so,) = succeeds("step-type", "unregister", "legal", "--json").objects
    assert told_so == {"name": "legal", "was_registered": False}


def test_a_type_that_is_none_is_told(pgflow: Command) -> None:
    done = pgflow("step-type", "register", "timer")
    assert done.code == 1
    assert "name must be none of the engine's own" in done.err


@pytest.mark.usefixtures("chain")
def test_a_flow_is_started_with_breakpoints_and_goes_on(succeeds: Command) -> None:
    run_id = succeeds("start", "chain", "--before", "a", "--after", "b").out.strip()
    (run,) = succeeds("show", run_id, "--json").objects
    assert (run["state"], run["breakpoints"]) == ("paused", ["before a", "after b"])
    assert run["stands_at"]["step"] == "a"
    assert succeeds("breakpoint", "clear", run_id, "b", "--after").out == "before a\n"
    assert succeeds("resume", run_id).out == "waiting_approval\n"


@pytest.mark.usefixtures("chain")
def test_a_paused_flow_is_sent_to_a_step(succeeds: Command) -> None:
    run_id = succeeds("start", "chain").out.strip()
    succeeds("pause", run_id)
    assert succeeds("resume", run_id, "--goto", "c").out == "waiting_approval\n"
    rows = succeeds("flow", "steps", run_id, "--json").objects
    assert {row["step"]: row["state"] for row in rows} == {
        "a": "skipped",
        "b": "skipped",
        "c": "waiting",
    }


@pytest.mark.usefixtures("chain")
def test_a_flow_is_aborted_at_a_task(succeeds: Command) -> None:
    run_id = succeeds("start", "chain").out.strip()
    (task,) = succeeds("inbox", "--json").objects
    first, second = succeeds("abort", task["task_id"], "we were sold").lines
    assert first.startswith("aborted by ")
    assert second == f"run {task['run_id']}"
    (again,) = succeeds("abort", task["task_id"], "--json").objects
    assert (again["repeated"], again["comment"]) == (True, "we were sold")
    (run,) = succeeds("show", run_id, "--json").objects
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-013")
