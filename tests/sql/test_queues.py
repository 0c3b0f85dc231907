"""define_queue, pause_queue, resume_queue, and what queue_stats shows."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine


def test_a_queue_has_what_it_was_given(engine: Engine) -> None:
    (queue,) = engine.call(
        "define_queue",
        queue="mail",
        max_concurrent=5,
        max_attempts=7,
        timeout=timedelta(minutes=1),
        lease_ttl=timedelta(seconds=30),
    )
    stats = engine.queue_stats("mail")
    for name in ("max_concurrent", "max_attempts", "timeout", "lease_ttl"):
        assert stats[name] == queue[name]
    assert (queue["max_concurrent"], queue["max_attempts"]) == (5, 7)


def test_what_is_not_given_has_its_default_again(engine: Engine) -> None:
    engine.call("define_queue", queue="mail", max_concurrent=5, max_attempts=7)
    engine.call("define_queue", queue="mail")
    stats = engine.queue_stats("mail")
    assert (stats["max_concurrent"], stats["max_attempts"]) == (None, 3)
    assert (stats["timeout"], stats["lease_ttl"]) == (None, timedelta(seconds=60))


def test_defining_a_queue_leaves_its_runs_and_its_pause(engine: Engine) -> None:
    engine.enqueue(queue="mail", priority=7)
    engine.call("pause_queue", queue="mail")
    engine.call("define_queue", queue="mail", max_attempts=7)
    stats = engine.queue_stats("mail")
    assert (stats["pending"], stats["paused_at"]) == (1, engine.now)
    engine.worker(queues=["mail"])
    engine.call("resume_queue", queue="mail")
    assert len(engine.acquire(queues=["mail"]).leases) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("queue", None),
        ("queue", ""),
        ("queue", "x" * 101),
        ("max_concurrent", 0),
        ("max_concurrent", -1),
        ("max_attempts", None),
        ("max_attempts", 0),
        ("max_attempts", 1001),
        ("timeout", timedelta()),
        ("timeout", timedelta(days=31)),
        ("lease_ttl", None),
        ("lease_ttl", timedelta(milliseconds=999)),
        ("lease_ttl", timedelta(days=1, seconds=1)),
        ("retention", timedelta(minutes=59)),
        ("key_retention", None),
        ("key_retention", timedelta(seconds=-1)),
        ("key_retention", timedelta(days=3653)),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_bad_setting_is_refused_by_its_name(engine: Engine, field: str, value: object) -> None:
    with engine.refused("PF101", field):
        engine.call("define_queue", **{"queue": "mail", field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retention", timedelta(minutes=59)),
        ("partition_width", None),
        ("partition_width", timedelta(minutes=59)),
        ("partition_width", timedelta(days=32)),
        ("partition_width", timedelta(hours=1, minutes=30)),
    ],
)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_bad_retention_is_refused_by_its_name(engine: Engine, field: str, value: object) -> None:
    with engine.refused("PF101", field):
        engine.call("set_retention", **{field: value})


def test_a_paused_queue_goes_on_accepting_and_finishing(engine: Engine) -> None:
    lease = engine.leased()
    assert engine.tell("pause_queue", queue="default") == engine.now
    run_id = engine.enqueue()
    assert engine.state(run_id) == "pending"
    assert engine.complete(lease) == []
    assert engine.acquire().leases == []


def test_pausing_a_queue_again_tells_since_when(engine: Engine) -> None:
    engine.enqueue(queue="mail")
    since = engine.tell("pause_queue", queue="mail")
    engine.later(minutes=5)
    assert engine.tell("pause_queue", queue="mail") == since


def test_resuming_a_queue_again_is_harmless(engine: Engine) -> None:
    engine.enqueue(queue="mail")
    engine.call("pause_queue", queue="mail")
    assert engine.tell("resume_queue", queue="mail") is True
    assert engine.tell("resume_queue", queue="mail") is False
    assert engine.queue_stats("mail")["paused_at"] is None


@pytest.mark.parametrize("verb", ["pause_queue", "resume_queue"])
@pytest.mark.parametrize("queue", ["nobody's", None])
def test_an_unknown_queue_is_refused(engine: Engine, verb: str, queue: str | None) -> None:
    with engine.refused("PF104", "queue"):
        engine.call(verb, queue=queue)


def test_the_stats_count_live_runs_by_state_and_living_workers(engine: Engine) -> None:
    engine.worker("w:5", ["mail"])
    engine.enqueue_many([{}] * 5, queue="mail")
    engine.enqueue(queue="mail", run_at=engine.now + timedelta(hours=1))
    held = engine.acquire(4, worker_id="w:5", queues=["mail"]).leases
    engine.complete(held[0])
    engine.park(held[1])
    engine.call("pause", run_id=held[2].run_id)
    stats = engine.queue_stats("mail")
    counts = {n: stats[n] for n in ("scheduled", "pending", "running", "waiting", "paused")}
    assert counts == dict.fromkeys(counts, 1)
    assert (stats["workers"], stats["oldest_pending_at"]) == (1, engine.now)
    engine.later(seconds=61)
    assert engine.queue_stats("mail")["workers"] == 0
