"""Sleeping: a run that waits for nothing but the time is scheduled, whatever its worker does."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.sql.waits import asked, event, sleep, tool

if TYPE_CHECKING:
    from tests.sql.conftest import Engine


def sleeping(engine: Engine, seconds: float = 60) -> UUID:
    """Return a run that sleeps."""
    lease = engine.leased()
    assert engine.park(lease, sleep(seconds, digest="aa"))["outcome"] == "done"
    return lease.run_id


def test_a_run_that_only_sleeps_is_scheduled(engine: Engine) -> None:
    run = engine.run(sleeping(engine))
    assert (run["state"], run["run_at"]) == ("scheduled", engine.now + timedelta(seconds=60))
    assert (run["worker_id"], run["waits_for"], run["attempt_count"]) == (None, None, 0)


def test_it_is_pending_when_its_time_has_come_and_not_before(engine: Engine) -> None:
    run_id = sleeping(engine)
    engine.later(seconds=59)
    engine.tick()
    assert engine.state(run_id) == "scheduled"
    engine.later(seconds=1)
    assert engine.tick()["promoted"] == 1
    assert engine.state(run_id) == "pending"


def test_a_look_for_work_wakes_it(engine: Engine) -> None:
    run_id = sleeping(engine)
    engine.later(seconds=60)
    lease = engine.lease_of(run_id)
    assert lease.body["journal"] == [
        {"key": "s", "kind": "sleep", "value": None, "digest": "aa", "lease_no": None}
    ]


def test_an_idle_worker_is_told_when_to_look_again(engine: Engine) -> None:
    sleeping(engine, 0.02)
    wait = engine.acquire().look_again_in
    assert 0 < wait <= 0.02


def test_a_run_that_has_slept_comes_before_new_work(engine: Engine) -> None:
    run_id = sleeping(engine)
    new = engine.enqueue()
    engine.later(seconds=60)
    assert engine.acquire().run_ids == [run_id, new]


def test_the_timeline_tells_the_sleep(engine: Engine) -> None:
    run_id = sleeping(engine)
    *_, waiting = engine.timeline(run_id)
    assert (waiting["type"], waiting["payload"]) == ("run.waiting", {"waits_for": ["s"]})
    assert waiting["lease_no"] == 1


def test_a_sleep_is_over_once(engine: Engine) -> None:
    run_id = sleeping(engine)
    engine.later(seconds=60)
    lease = engine.lease_of(run_id)
    assert engine.park(lease, sleep(60), news=1)["outcome"] == "refused"
    assert engine.park(lease, sleep(30, "s#2"), news=1)["outcome"] == "done"
    assert engine.state(run_id) == "scheduled"


def test_no_time_at_all_is_a_sleep_too(engine: Engine) -> None:
    run_id = sleeping(engine, 0)
    engine.tick()
    assert engine.lease_of(run_id).body["news"] == 1


@pytest.mark.parametrize("seconds", [-1, 315_360_001, None, "soon", "NaN"], ids=str)
def test_a_time_that_cannot_be_slept_is_refused(engine: Engine, seconds: float) -> None:
    lease = engine.leased()
    assert engine.park(lease, sleep(seconds))["outcome"] == "refused"
    assert engine.state(lease.run_id) == "running"


def test_the_same_park_again_is_already_done(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, sleep(60))
    before = engine.place.rows()
    assert engine.park(lease, sleep(60))["outcome"] == "already"
    assert engine.place.rows() == before


def test_a_sleeping_run_can_be_cancelled(engine: Engine) -> None:
    run_id = sleeping(engine)
    assert engine.tell("cancel", run_id=run_id) == "cancelled"


def test_a_sleep_goes_on_while_the_run_is_paused(engine: Engine) -> None:
    run_id = sleeping(engine)
    engine.call("pause", run_id=run_id)
    engine.later(seconds=30)
    assert engine.tell("resume", run_id=run_id) == "scheduled"
    engine.later(seconds=30)
    assert engine.lease_of(run_id).body["news"] == 1


def test_a_sleep_that_ended_while_paused_is_over_at_resume(engine: Engine) -> None:
    run_id = sleeping(engine)
    engine.call("pause", run_id=run_id)
    engine.later(seconds=61)
    engine.tick()
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "pending"


def test_a_signal_does_not_end_a_sleep(engine: Engine) -> None:
    run_id = sleeping(engine)
    engine.call("signal", run_id=run_id, name="pay")
    assert engine.state(run_id) == "scheduled"


# ---- in a race


def test_a_sleep_beside_others_is_a_wait_like_them(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, sleep(60), event(), wait_any=True)
    run = engine.run(lease.run_id)
    assert (run["state"], run["waits_for"]) == ("waiting_event", ["pay", "s"])
    engine.later(seconds=60)
    assert engine.tick()["expired"] == 1
    (known,) = engine.lease_of(lease.run_id).body["journal"]
    assert (known["key"], known["kind"], known["value"]) == ("s", "sleep", None)


def test_the_timeline_tells_that_its_time_came(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, sleep(60), event(), wait_any=True)
    engine.later(seconds=60)
    engine.tick()
    *_, over, woken = engine.timeline(lease.run_id)
    assert (over["type"], over["payload"]) == ("wait.timed_out", {"key": "s", "kind": "sleep"})
    assert woken["type"] == "run.woken"


def test_a_sleep_that_lost_a_race_ends_nothing(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, sleep(60), event(), wait_any=True)
    engine.call("signal", run_id=lease.run_id, name="pay")
    lease = engine.lease_of(lease.run_id)
    engine.park(lease, tool(), news=1)
    assert asked(engine, lease.run_id) == {"t"}
    engine.later(seconds=61)
    assert engine.tick()["expired"] == 0
    assert engine.state(lease.run_id) == "waiting_tool"


def test_where_all_are_wanted_the_sleep_alone_does_not_wake_the_run(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, sleep(60), event())
    engine.later(seconds=61)
    engine.tick()
    assert engine.state(lease.run_id) == "waiting_event"
    engine.call("signal", run_id=lease.run_id, name="pay")
    assert engine.lease_of(lease.run_id).body["news"] == 2


def test_two_sleeps_wake_the_run_when_the_longer_is_over(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, sleep(30, "a"), sleep(60, "b"))
    for state in ("waiting_event", "pending"):
        engine.later(seconds=30)
        engine.tick()
        assert engine.state(lease.run_id) == state


def test_of_two_sleeps_in_a_race_the_shorter_wakes_the_run(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, sleep(60, "a"), sleep(30, "b"), wait_any=True)
    engine.later(seconds=70)
    engine.tick()
    assert [known["key"] for known in engine.lease_of(lease.run_id).body["journal"]] == ["b"]


def test_a_sleep_asked_for_again_goes_on_from_where_it_was(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, sleep(60), event(), wait_any=True)
    engine.later(seconds=40)
    engine.call("signal", run_id=lease.run_id, name="pay")
    lease = engine.lease_of(lease.run_id)
    engine.park(lease, sleep(60), news=1)
    assert engine.run(lease.run_id)["run_at"] == engine.now + timedelta(seconds=20)
