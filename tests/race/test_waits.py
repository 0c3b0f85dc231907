"""Tools, signals and timeouts against a park and against each other: each race has one outcome.

Whatever comes first, nothing is lost and nothing counts twice, and the timeline tells it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.race.staging import Blocked, Session, Two, check, held, keys, refused, undone
from tests.sql.conftest import Engine, Lease, Row
from tests.sql.waits import entry, event, tool

WAITS = {"tool": tool("x"), "event": event("x")}


@pytest.fixture(params=list(WAITS))
def wait(request: pytest.FixtureRequest) -> Row:
    """Return a wait of either kind."""
    return WAITS[request.param]


def answer(who: Session, run_id: UUID, wait: Row) -> None:
    if wait["kind"] == "tool":
        who.call("resolve_tool", run_id=run_id, key="x", result=Jsonb(5))
    else:
        who.call("signal", run_id=run_id, name="x", payload=Jsonb(5))


def woken(engine: Engine, wait: Row) -> Lease:
    """Lease a run that was woken while it waits for something else too."""
    lease = engine.leased()
    engine.park(lease, wait, event("go"), wait_any=True)
    engine.call("signal", run_id=lease.run_id, name="go")
    return engine.lease_of(lease.run_id)


def waiting(engine: Engine, *waits: Row, wait_any: bool = False, **more: Any) -> UUID:
    lease = engine.leased(**more)
    assert engine.park(lease, *waits, wait_any=wait_any)["outcome"] == "done"
    return lease.run_id


def test_what_came_before_a_park_is_news(engine: Engine, two: Two, wait: Row) -> None:
    worker, sender = two
    lease = woken(engine, wait)
    answer(sender, lease.run_id, wait)
    parked = worker.park(lease, wait, news=1)
    assert (parked["outcome"], parked["news"], keys(parked["entries"])) == ("news", 2, {"x"})
    assert engine.state(lease.run_id) == "running"
    check(engine, lease.run_id)


def test_what_comes_after_a_park_wakes_the_run(engine: Engine, two: Two, wait: Row) -> None:
    worker, sender = two
    lease = woken(engine, wait)
    assert worker.park(lease, wait, news=1)["outcome"] == "done"
    answer(sender, lease.run_id, wait)
    assert engine.lease_of(lease.run_id).body["news"] == 2
    check(engine, lease.run_id)


def test_a_park_that_waits_for_an_answer_gets_it_as_news(
    engine: Engine, two: Two, wait: Row, blocked: Blocked
) -> None:
    worker, sender = two
    lease = woken(engine, wait)
    with held(sender):
        answer(sender, lease.run_id, wait)
        parking = blocked(worker, lambda: worker.park(lease, wait, news=1), by=sender)
    parked = parking.result()
    assert (parked["outcome"], keys(parked["entries"])) == ("news", {"x"})
    assert entry(engine, lease.run_id, "x")["value"] == 5
    assert engine.types(lease.run_id).count("run.woken") == 1
    check(engine, lease.run_id)


def test_a_park_that_waits_for_an_answer_which_is_undone_parks(
    engine: Engine, two: Two, wait: Row, blocked: Blocked
) -> None:
    worker, sender = two
    lease = woken(engine, wait)
    with undone(sender):
        answer(sender, lease.run_id, wait)
        parking = blocked(worker, lambda: worker.park(lease, wait, news=1), by=sender)
    assert parking.result()["outcome"] == "done"
    answer(sender, lease.run_id, wait)
    assert engine.state(lease.run_id) == "pending"
    check(engine, lease.run_id)


def test_an_answer_that_waits_for_a_park_wakes_the_run(
    engine: Engine, two: Two, wait: Row, blocked: Blocked
) -> None:
    worker, sender = two
    lease = woken(engine, wait)
    with held(worker):
        assert worker.park(lease, wait, news=1)["outcome"] == "done"
        answering = blocked(sender, lambda: answer(sender, lease.run_id, wait), by=worker)
    answering.result()
    assert engine.types(lease.run_id)[-1] == "run.woken"
    assert engine.lease_of(lease.run_id).body["news"] == 2
    check(engine, lease.run_id)


def test_a_first_signal_that_waits_for_the_park_which_asks_for_it_wakes_the_run(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, sender = two
    lease = engine.leased()
    with held(worker):
        assert worker.park(lease, event("x"))["outcome"] == "done"
        sending = blocked(sender, lambda: answer(sender, lease.run_id, event("x")), by=worker)
    sending.result()
    assert engine.lease_of(lease.run_id).body["journal"][0]["value"] == 5
    check(engine, lease.run_id)


def test_a_park_that_waits_for_the_first_signal_takes_it_from_the_mailbox(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, sender = two
    lease = engine.leased()
    with held(sender):
        answer(sender, lease.run_id, event("x"))
        parking = blocked(worker, lambda: worker.park(lease, event("x")), by=sender)
    parked = parking.result()
    assert (parked["outcome"], parked["news"], keys(parked["entries"])) == ("news", 1, {"x"})
    assert engine.types(lease.run_id)[-2:] == ["signal.received", "signal.taken"]
    check(engine, lease.run_id)


def test_a_first_result_that_waits_for_the_park_which_asks_for_it_wakes_the_run(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    worker, sender = two
    lease = engine.leased()
    with held(worker):
        assert worker.park(lease, tool("x"))["outcome"] == "done"
        resolving = blocked(sender, lambda: answer(sender, lease.run_id, tool("x")), by=worker)
    resolving.result()
    assert engine.state(lease.run_id) == "pending"
    check(engine, lease.run_id)


@pytest.mark.parametrize("wait_any", [False, True], ids=["all", "any"])
def test_a_result_and_a_signal_at_once_wake_the_run_once(
    engine: Engine, two: Two, blocked: Blocked, *, wait_any: bool
) -> None:
    one, other = two
    run_id = waiting(engine, tool("t"), event("x"), wait_any=wait_any)
    with held(one):
        one.call("resolve_tool", run_id=run_id, key="t")
        sending = blocked(other, lambda: answer(other, run_id, event("x")), by=one)
    sending.result()
    types = engine.types(run_id)
    assert types.count("run.woken") == 1
    # The loser of a race is kept for whoever asks next.
    assert types.count("signal.taken") == (0 if wait_any else 1)
    lease = engine.lease_of(run_id)
    if wait_any:
        assert other.park(lease, event("x"), news=1)["outcome"] == "news"
    check(engine, run_id)


def test_the_same_result_twice_at_once_is_one_result(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = waiting(engine, tool("x"))
    with held(one):
        answer(one, run_id, tool("x"))
        resolving = blocked(other, lambda: answer(other, run_id, tool("x")), by=one)
    resolving.result()
    assert engine.types(run_id).count("tool.resolved") == 1
    check(engine, run_id)


def test_of_two_results_at_once_the_first_stands(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = waiting(engine, tool("x"))
    with held(one):
        answer(one, run_id, tool("x"))
        resolving = blocked(
            other,
            lambda: other.call("resolve_tool", run_id=run_id, key="x", result=Jsonb(6)),
            by=one,
        )
    with refused("PF402"):
        resolving.result()
    assert entry(engine, run_id, "x")["value"] == 5
    check(engine, run_id)


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_a_failure_that_waits_for_a_result_is_too_late(
    engine: Engine, two: Two, blocked: Blocked, max_attempts: int
) -> None:
    one, other = two
    run_id = waiting(engine, tool("x"), max_attempts=max_attempts)
    with held(one):
        answer(one, run_id, tool("x"))
        failing = blocked(
            other, lambda: other.call("fail_tool", run_id=run_id, key="x", error="no"), by=one
        )
    with refused("PF204"):
        failing.result()
    assert (engine.state(run_id), engine.run(run_id)["attempt_count"]) == ("pending", 0)
    check(engine, run_id)


@pytest.mark.parametrize(("max_attempts", "code"), [(1, "PF202"), (2, "PF204")])
def test_a_result_that_waits_for_a_failure_is_too_late(
    engine: Engine, two: Two, blocked: Blocked, max_attempts: int, code: str
) -> None:
    one, other = two
    run_id = waiting(engine, tool("x"), max_attempts=max_attempts)
    with held(one):
        one.call("fail_tool", run_id=run_id, key="x", error="no")
        resolving = blocked(other, lambda: answer(other, run_id, tool("x")), by=one)
    with refused(code):
        resolving.result()
    assert "tool.resolved" not in engine.types(run_id)
    check(engine, run_id)


def test_the_same_signal_twice_at_once_is_one_signal(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = waiting(engine, event("x"))
    again = {"run_id": run_id, "name": "x", "idempotency_key": "k"}
    with held(one):
        number = one.tell("signal", **again)
        sending = blocked(other, lambda: other.tell("signal", **again), by=one)
    assert sending.result() == number
    assert engine.types(run_id).count("signal.received") == 1
    check(engine, run_id)


def test_two_signals_at_once_are_taken_in_the_order_of_their_numbers(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    lease = engine.leased()
    with held(one):
        one.call("signal", run_id=lease.run_id, name="x", payload=Jsonb(1))
        sending = blocked(
            other,
            lambda: other.call("signal", run_id=lease.run_id, name="x", payload=Jsonb(2)),
            by=one,
        )
    sending.result()
    for n in (1, 2):
        parked = one.park(lease, event(f"x#{n}", name="x"), news=n - 1)
        assert [known["value"] for known in parked["entries"]] == [n]
    check(engine, lease.run_id)


def test_a_signal_that_waits_for_a_cancel_is_refused(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = waiting(engine, event("x"))
    with held(one):
        one.call("cancel", run_id=run_id)
        sending = blocked(other, lambda: answer(other, run_id, event("x")), by=one)
    with refused("PF202"):
        sending.result()
    check(engine, run_id)


def test_a_signal_that_waits_for_a_pause_is_kept_for_resume(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = waiting(engine, event("x"))
    with held(one):
        one.call("pause", run_id=run_id)
        sending = blocked(other, lambda: answer(other, run_id, event("x")), by=one)
    sending.result()
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "pending"
    check(engine, run_id)


def test_a_resume_that_waits_for_a_signal_goes_on(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = waiting(engine, event("x"))
    engine.call("pause", run_id=run_id)
    with held(one):
        answer(one, run_id, event("x"))
        resuming = blocked(other, lambda: other.tell("resume", run_id=run_id), by=one)
    assert resuming.result() == "pending"
    check(engine, run_id)


# ---- timeouts


def overdue(engine: Engine, two: Two, *waits: Row, wait_any: bool = False) -> UUID:
    """Return a run whose waits, that it asked for with timeouts, are overdue."""
    run_id = waiting(engine, *waits, wait_any=wait_any)
    for who in (engine, *two):
        who.later(seconds=61)
    return run_id


def test_an_answer_that_waits_for_the_timeout_is_late(
    engine: Engine, two: Two, wait: Row, blocked: Blocked
) -> None:
    ticker, sender = two
    run_id = overdue(engine, two, {**wait, "timeout": 60})
    with held(ticker):
        assert ticker.tick()["expired"] == 1
        answering = blocked(sender, lambda: answer(sender, run_id, wait), by=ticker)
    if wait["kind"] == "tool":
        with refused("PF204"):
            answering.result()
    else:
        answering.result()
    assert entry(engine, run_id, "x")["kind"] == "timeout"
    assert engine.types(run_id).count("run.woken") == 1
    assert engine.lease_of(run_id).body["news"] == 1
    check(engine, run_id)


def test_a_timeout_passes_by_a_run_that_is_being_answered(
    engine: Engine, two: Two, wait: Row
) -> None:
    ticker, sender = two
    run_id = overdue(engine, two, {**wait, "timeout": 60})
    with held(sender):
        answer(sender, run_id, wait)
        assert ticker.tick()["expired"] == 0
    assert ticker.tick()["expired"] == 0
    assert entry(engine, run_id, "x")["kind"] == wait["kind"]
    check(engine, run_id)


def test_a_timeout_that_passed_by_an_answer_which_is_undone_comes_at_the_next_tick(
    engine: Engine, two: Two, wait: Row
) -> None:
    ticker, sender = two
    run_id = overdue(engine, two, {**wait, "timeout": 60})
    with undone(sender):
        answer(sender, run_id, wait)
        assert ticker.tick()["expired"] == 0
    assert ticker.tick()["expired"] == 1
    assert entry(engine, run_id, "x")["kind"] == "timeout"
    check(engine, run_id)


def test_a_timeout_that_passed_by_an_answer_to_another_call_comes_at_the_next_tick(
    engine: Engine, two: Two, wait: Row
) -> None:
    ticker, sender = two
    run_id = overdue(engine, two, {**wait, "timeout": 60}, event("other"))
    with held(sender):
        sender.call("signal", run_id=run_id, name="other")
        assert ticker.tick()["expired"] == 0
    assert ticker.tick()["expired"] == 1
    assert engine.types(run_id).count("run.woken") == 1
    assert engine.lease_of(run_id).body["news"] == 2
    check(engine, run_id)


def test_a_timeout_passes_by_a_run_that_is_being_parked_and_comes_at_the_next_tick(
    engine: Engine, two: Two, wait: Row
) -> None:
    worker, ticker = two
    lease = engine.leased()
    engine.park(lease, {**wait, "timeout": 60}, event("go"), wait_any=True)
    engine.call("signal", run_id=lease.run_id, name="go")
    lease = engine.lease_of(lease.run_id)
    for who in two:
        who.later(seconds=61)
    worker.beat(lease)
    with held(worker):
        assert worker.park(lease, wait, news=1)["outcome"] == "done"
        assert ticker.tick()["expired"] == 0
    assert ticker.tick()["expired"] == 1
    assert engine.state(lease.run_id) == "pending"
    check(engine, lease.run_id)


def test_a_resume_that_waits_for_a_late_answer_prefers_it_to_the_timeout(
    engine: Engine, two: Two, wait: Row, blocked: Blocked
) -> None:
    one, other = two
    run_id = waiting(engine, {**wait, "timeout": 60})
    engine.call("pause", run_id=run_id)
    for who in two:
        who.later(seconds=61)
    with held(one):
        answer(one, run_id, wait)
        resuming = blocked(other, lambda: other.tell("resume", run_id=run_id), by=one)
    assert resuming.result() == "pending"
    assert entry(engine, run_id, "x")["kind"] == wait["kind"]
    check(engine, run_id)
