"""context: where a run stands, and how it came there."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.sql.flows import define, finish, gate, ready, started, step, task_of, work, wrote
from tests.sql.waits import tool

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row

REVIEW = (step("draft"), gate("editor", "draft"), step("publish", "editor"))


def context(engine: Engine, run_id: UUID) -> Row:
    told: Row = engine.tell("context", run_id=run_id)
    return told


def progress(engine: Engine, run_id: UUID, *members: str) -> tuple[Any, ...]:
    told = context(engine, run_id)["progress"]
    return tuple(told[m] for m in members)


def test_the_context_of_a_live_flow_says_where_it_stands(engine: Engine) -> None:
    run_id = started(engine, *REVIEW, input={"n": 1}, correlation_id="c-1")
    engine.later(seconds=5)
    work(engine)
    told = context(engine, run_id)
    assert (told["run_id"], told["correlation_id"]) == (str(run_id), "c-1")
    assert (told["flow"], told["queue"], told["handler"]) == ("f", "default", None)
    assert (told["input"], told["status"]) == ({"n": 1}, "waiting_approval")
    assert datetime.fromisoformat(told["started_at"]) == engine.now - timedelta(seconds=5)
    assert datetime.fromisoformat(told["updated_at"]) == engine.now
    assert (told["finished_at"], told["result"]) == (None, None)
    assert told["progress"] == {
        "current_steps": ["editor"],
        "paused_at": None,
        "paused_since": None,
        "execution_path": ["draft", "editor"],
        "step_visit_counts": {"draft": 1, "editor": 1},
        "left_out": 0,
    }


def test_a_step_that_is_begun_again_is_on_the_path_again(engine: Engine) -> None:
    run_id = started(engine, *REVIEW)
    work(engine)
    engine.reject(task_of(engine, run_id, "editor"), rollback_to="draft")
    work(engine)
    engine.approve(task_of(engine, run_id, "editor"))
    finish(engine)
    assert progress(engine, run_id, "execution_path", "step_visit_counts", "current_steps") == (
        ["draft", "editor", "draft", "editor", "publish"],
        {"draft": 2, "editor": 2, "publish": 1},
        [],
    )


def test_a_finished_run_has_its_result(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    finish(engine, a={"x": 1})
    told = context(engine, run_id)
    assert told["result"] == {"output": {"a": {"x": 1}}, "error_code": None, "error": None}
    assert told["finished_at"] == told["updated_at"]
    failed = engine.leased()
    engine.fail(failed, retries=[False])
    told = context(engine, failed.run_id)
    assert told["result"] == {"output": None, "error_code": "E-RUN-001", "error": "boom"}


def test_a_paused_flow_says_at_which_step_and_since_when(engine: Engine) -> None:
    run_id = started(engine, *REVIEW)
    engine.later(seconds=5)
    engine.call("pause", run_id=run_id)
    paused_at, since = progress(engine, run_id, "paused_at", "paused_since")
    assert paused_at == "draft"
    assert datetime.fromisoformat(since) == engine.now
    engine.call("resume", run_id=run_id)
    assert progress(engine, run_id, "paused_at", "paused_since") == (None, None)


def test_a_paused_flow_stands_at_what_has_ended_since(engine: Engine) -> None:
    run_id = started(engine, *REVIEW)
    (lease,) = ready(engine).values()
    engine.call("pause", run_id=run_id)
    engine.complete(lease)
    assert progress(engine, run_id, "paused_at", "current_steps") == ("draft", ["draft"])
    engine.call("resume", run_id=run_id)
    assert progress(engine, run_id, "paused_at", "current_steps") == (None, ["editor"])


def test_what_a_retry_took_over_comes_first_on_its_path(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    finish(engine, fail=("b",))
    again = engine.tell("retry", run_id=run_id)
    assert progress(engine, again, "execution_path", "current_steps") == (["a", "b"], ["b"])


def test_the_context_of_a_handler_has_the_steps_of_its_journal(engine: Engine) -> None:
    lease = engine.leased("h")
    engine.record_steps(lease, b="1", a="2")
    engine.park(lease, tool("t"))
    told = context(engine, lease.run_id)
    assert (told["flow"], told["handler"], told["status"]) == (None, "h", "waiting_tool")
    assert told["progress"]["execution_path"] == ["b", "a"]
    assert told["progress"]["current_steps"] == ["t"]


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_of_a_long_path_the_end_is_there(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, **{f"s{n:04}": "1" for n in range(1003)})
    path, left_out = progress(engine, lease.run_id, "execution_path", "left_out")
    assert (path[0], path[-1], len(path), left_out) == ("s0003", "s1002", 1000, 3)


def test_the_memory_of_a_flow_is_its_state_values_live_and_finished(engine: Engine) -> None:
    define(engine, step("a"), step("b", "a"), channels={"notes": {"reducer": "append"}})
    run_id = engine.tell("start", flow="f")
    wrote(engine, ready(engine)["a"], notes=["first"])
    assert context(engine, run_id)["memory"] == {"notes": ["first"]}
    wrote(engine, ready(engine)["b"], notes=["second"])
    told = context(engine, run_id)
    assert (told["status"], told["memory"]) == ("completed", {"notes": ["first", "second"]})
    assert context(engine, started(engine, step("a")))["memory"] is None
    assert context(engine, engine.enqueue())["memory"] is None


def test_a_fork_has_the_path_that_it_took_over_before_its_own(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"), step("c", "b"))
    finish(engine)
    engine.later(seconds=5)
    fork = engine.tell("fork", run_id=run_id, super_step=1)
    assert progress(engine, fork, "execution_path", "current_steps") == (["a", "b"], ["b"])
    assert engine.tell("report", run_id=fork)["usage"]["calls"] == 0


def test_a_step_that_nobody_has_taken_is_current(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"))
    assert progress(engine, run_id, "current_steps") == (["a", "b"],)
    engine.complete(ready(engine)["a"])
    assert progress(engine, run_id, "current_steps") == (["b"],)


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    with engine.refused("PF102", "run_id"):
        engine.call("context", run_id="01900000-0000-7000-8000-000000000000")
