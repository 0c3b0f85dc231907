"""Timeouts of tools and signals: the call gets to know that nothing came, and the run goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.sql.waits import entry, event, tool

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row

WAITS = {"tool": tool("x"), "event": event("x")}


@pytest.fixture(params=list(WAITS))
def wait(request: pytest.FixtureRequest) -> Row:
    """Return a wait of either kind, which times out after a minute."""
    return {**WAITS[request.param], "timeout": 60, "digest": "aa"}


def waiting(engine: Engine, *waits: Row, wait_any: bool = False) -> UUID:
    lease = engine.leased()
    assert engine.park(lease, *waits, wait_any=wait_any)["outcome"] == "done"
    return lease.run_id


def answer(engine: Engine, run_id: UUID, wait: Row) -> None:
    if wait["kind"] == "tool":
        engine.call("resolve_tool", run_id=run_id, key=wait["key"])
    else:
        engine.call("signal", run_id=run_id, name=wait["name"])


def test_what_does_not_come_in_time_wakes_the_run(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait)
    engine.later(seconds=59)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1
    assert engine.lease_of(run_id).body["journal"] == [
        {"key": "x", "kind": "timeout", "value": {"after": 60}, "digest": "aa", "lease_no": None}
    ]


def test_the_timeline_tells_it(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait)
    engine.later(seconds=60)
    engine.tick()
    *_, over, woken = engine.timeline(run_id)
    assert (over["type"], over["payload"]) == (
        "wait.timed_out",
        {"key": "x", "kind": wait["kind"]},
    )
    assert (woken["type"], woken["payload"]) == ("run.woken", {"key": "x"})


def test_a_look_for_work_sees_to_it(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait)
    engine.later(seconds=60)
    assert engine.lease_of(run_id).body["news"] == 1


def test_what_comes_in_time_stops_the_clock(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait)
    answer(engine, run_id, wait)
    engine.later(seconds=61)
    assert engine.tick()["expired"] == 0
    assert entry(engine, run_id, "x")["kind"] == wait["kind"]


def test_without_a_timeout_it_waits_for_ever(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, {**wait, "timeout": None})
    engine.later(days=300)
    assert engine.tick()["expired"] == 0
    assert engine.state(run_id).startswith("waiting")


def test_a_timeout_uses_no_attempt(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait)
    engine.later(seconds=60)
    engine.tick()
    run = engine.run(run_id)
    assert (run["attempt_count"], run["last_error"]) == (0, None)


@pytest.mark.parametrize("timeout", [0, -1, 315_360_001, "soon", "NaN"], ids=str)
def test_a_timeout_that_cannot_be_is_refused(engine: Engine, wait: Row, timeout: object) -> None:
    lease = engine.leased()
    assert engine.park(lease, {**wait, "timeout": timeout})["outcome"] == "refused"
    assert engine.state(lease.run_id) == "running"


def test_the_due_time_is_kept_when_it_is_asked_for_again(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait, event("go"), wait_any=True)
    engine.later(seconds=40)
    engine.call("signal", run_id=run_id, name="go")
    engine.park(engine.lease_of(run_id), wait, news=1)
    engine.later(seconds=19)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=1)
    assert engine.tick()["expired"] == 1
    assert entry(engine, run_id, "x")["value"] == {"after": 60}


def test_a_due_time_that_passes_while_the_handler_runs_counts_when_it_parks(
    engine: Engine, wait: Row
) -> None:
    run_id = waiting(engine, wait, event("go"), wait_any=True)
    engine.call("signal", run_id=run_id, name="go")
    lease = engine.lease_of(run_id)
    engine.later(seconds=50)
    engine.beat(lease)
    engine.later(seconds=50)
    engine.beat(lease)
    assert engine.tick()["expired"] == 0
    engine.later(seconds=0.1)
    assert engine.park(lease, wait, news=1)["outcome"] == "done"
    engine.later(seconds=0.1)
    engine.lease_of(run_id)  # at the very next look for work
    assert entry(engine, run_id, "x")["kind"] == "timeout"


def test_what_comes_late_but_before_the_call_is_given_up_counts(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait, event("go"), wait_any=True)
    engine.call("signal", run_id=run_id, name="go")
    lease = engine.lease_of(run_id)
    engine.later(seconds=70)
    answer(engine, run_id, wait)
    line = engine.park(lease, wait, news=1)
    assert [known["kind"] for known in line["entries"]] == [wait["kind"]]


def test_the_timeout_of_what_is_dropped_ends_nothing(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait, event("go"), wait_any=True)
    engine.call("signal", run_id=run_id, name="go")
    engine.park(engine.lease_of(run_id), event("later"), news=1)
    engine.later(seconds=61)
    assert engine.tick()["expired"] == 0
    assert engine.state(run_id) == "waiting_event"


def test_a_timeout_while_paused_takes_effect_at_resume(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait)
    engine.call("pause", run_id=run_id)
    engine.later(seconds=61)
    assert engine.tick()["expired"] == 0
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert entry(engine, run_id, "x")["kind"] == "timeout"


def test_what_comes_late_while_paused_counts_at_resume(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait)
    engine.call("pause", run_id=run_id)
    engine.later(seconds=61)
    answer(engine, run_id, wait)
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert entry(engine, run_id, "x")["kind"] == wait["kind"]


def test_resumed_in_time_the_clock_goes_on(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait)
    engine.call("pause", run_id=run_id)
    engine.later(seconds=30)
    assert engine.tell("resume", run_id=run_id).startswith("waiting")
    engine.later(seconds=30)
    assert engine.tick()["expired"] == 1


def test_of_two_the_first_timeout_leaves_the_run_waiting_for_the_second(engine: Engine) -> None:
    run_id = waiting(engine, tool("x", timeout=30), event("y", timeout=60))
    engine.later(seconds=30)
    assert engine.tick()["expired"] == 1
    assert engine.state(run_id) == "waiting_tool"
    assert engine.row(run_id)["wake_at"] == engine.now + timedelta(seconds=30)
    engine.later(seconds=30)
    assert engine.tick()["expired"] == 1
    assert engine.state(run_id) == "pending"


def test_timeouts_that_are_due_at_once_wake_the_run_once(engine: Engine) -> None:
    run_id = waiting(engine, tool("x", timeout=30), event("y", timeout=60))
    engine.later(seconds=60)
    assert engine.tick()["expired"] == 2
    assert engine.types(run_id).count("run.woken") == 1


def test_a_worker_is_told_when_to_look_again(engine: Engine) -> None:
    waiting(engine, tool(timeout=0.02))
    assert 0 < engine.acquire().look_again_in <= 0.02


def test_what_is_in_the_journal_already_is_not_asked_for_again(engine: Engine, wait: Row) -> None:
    run_id = waiting(engine, wait, event("go"), wait_any=True)
    answer(engine, run_id, wait)
    lease = engine.lease_of(run_id)
    engine.park(lease, wait, event("go"), news=1)
    engine.later(seconds=61)
    engine.tick()
    assert engine.types(run_id).count("tool.requested") == (wait["kind"] == "tool")
    assert entry(engine, run_id, "x")["kind"] == wait["kind"]
    engine.call("signal", run_id=run_id, name="go")
    assert engine.state(run_id) == "pending"


def test_a_step_under_the_key_of_a_timeout_holds_nobody_elses_time_up(
    engine: Engine, wait: Row
) -> None:
    run_id = waiting(engine, wait, event("go"), wait_any=True)
    engine.call("signal", run_id=run_id, name="go")
    lease = engine.lease_of(run_id)
    engine.record_steps(lease, x="1")
    engine.park(lease, wait, event("on"), news=1)
    other = waiting(engine, wait)
    engine.later(seconds=61)
    engine.tick()
    assert engine.state(other) == "pending"
    assert entry(engine, run_id, "x")["kind"] == "step"
