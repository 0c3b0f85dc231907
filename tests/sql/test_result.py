"""result: what became of a run, as whoever waits for it asks."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from tests.sql.flows import finish, started, step

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Row

LIVE = [
    *("scheduled", "pending", "running", "waiting_tool", "waiting_approval", "waiting_event"),
    "paused",
]


def result(engine: Engine, run_id: UUID) -> Row:
    (row,) = engine.rows("select r.* from pgflow.result(%s) as r", run_id)
    return row


def told(engine: Engine, run_id: UUID) -> Row:
    """Return of a result what view runs says too, under the names of the result."""
    run = engine.run(run_id)
    names = ("run_id", "handler", "state", "output", "error_code", "error_detail", "finished_at")
    row = {name: run[name] for name in (*names, "super_step", "final_report")}
    return {**row, "error": run["last_error"]}


def end(engine: Engine, how: str) -> UUID:
    lease = engine.leased(deadline=engine.now + timedelta(seconds=9))
    if how == "completed":
        engine.complete(lease, output='{"n": 1}')
    elif how == "failed":
        engine.fail(lease, retries=[False], errors=['{"type": "ValueError", "message": "boom"}'])
    elif how == "cancelled":
        engine.call("cancel", run_id=lease.run_id, reason="no more")
    else:
        engine.later(seconds=9)
        engine.tick()
    return lease.run_id


@pytest.mark.parametrize("state", LIVE)
def test_of_a_live_run_it_tells_the_state(engine: Engine, state: str) -> None:
    row = result(engine, engine.put(state))
    assert row["state"] == state
    assert (row["output"], row["finished_at"], row["error_code"]) == (None, None, None)
    assert (row["paused"] is not None) == (state == "paused")


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "timeout"])
def test_of_a_finished_run_it_tells_what_view_runs_does(engine: Engine, how: str) -> None:
    run_id = end(engine, how)
    row = result(engine, run_id)
    assert row == {**told(engine, run_id), "paused": None}
    assert row["state"] == how
    assert row["finished_at"] == engine.now


def test_it_has_the_output_and_what_was_raised(engine: Engine) -> None:
    assert result(engine, end(engine, "completed"))["output"] == {"n": 1}
    failed = result(engine, end(engine, "failed"))
    assert (failed["error_code"], failed["error_detail"]) == ("E-RUN-001", "boom")
    assert failed["error"] == {"type": "ValueError", "message": "boom"}


def test_what_a_run_that_goes_on_has_raised_is_told_before_its_end(engine: Engine) -> None:
    lease = engine.leased()
    engine.fail(lease, errors=['{"type": "ValueError"}'], retries=[True])
    row = result(engine, lease.run_id)
    assert (row["state"], row["error"]) == ("scheduled", {"type": "ValueError"})


def test_a_pause_has_its_reason(engine: Engine) -> None:
    run_id = engine.enqueue()
    engine.call("pause", run_id=run_id, reason="look at it")
    assert result(engine, run_id)["paused"] == {"reason": "look at it"}


@pytest.mark.parametrize("kind", ["interrupt", "breakpoint"])
def test_a_run_that_stopped_at_a_call_tells_which_and_what_with(engine: Engine, kind: str) -> None:
    lease = engine.leased()
    if kind == "interrupt":
        wait: Row = {"key": "i", "kind": kind, "title": "How?"}
    else:
        wait = {"key": "breakpoint/before/pay", "kind": kind, "when": "before", "title": None}
    engine.park(lease, {**wait, "payload": {"draft": 1}})
    paused = result(engine, lease.run_id)["paused"]
    reason = "interrupt" if kind == "interrupt" else "before"
    payload = {"draft": 1} if kind == "interrupt" else paused["payload"]
    assert paused == {"reason": reason, "step": wait["key"], "payload": payload}


def test_a_flow_has_its_super_step_and_at_its_end_a_report(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    assert result(engine, run_id)["final_report"] is None
    assert finish(engine) == [["a"], ["b"]]
    row = result(engine, run_id)
    assert row == {**told(engine, run_id), "paused": None}
    assert (row["state"], row["final_report"]) == ("completed", run_id)
    assert row["super_step"] > 0


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    with engine.refused("PF102", "run_id"):
        result(engine, uuid4())


def test_readers_may_ask(engine: Engine, connect: Connect, make_role: MakeRole) -> None:
    run_id = end(engine, "completed")
    reader = connect(make_role("pgflow_reader"))
    assert result(reader, run_id)["state"] == "completed"


def test_it_writes_nothing(engine: Engine) -> None:
    run_id = engine.enqueue()
    before = engine.place.rows()
    result(engine, run_id)
    assert engine.place.rows() == before
