"""Signals: each run has a mailbox, and each signal answers one call, whenever it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.sql.waits import entry, event

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row


def signal(
    engine: Engine, run_id: UUID, payload: object = None, name: str = "pay", **more: Any
) -> int:
    """Send a signal; return its number."""
    number: int = engine.tell("signal", run_id=run_id, name=name, payload=Jsonb(payload), **more)
    return number


def expecting(engine: Engine, **more: Any) -> UUID:
    """Return a run that waits for a signal."""
    lease = engine.leased()
    assert engine.park(lease, event(**more))["outcome"] == "done"
    return lease.run_id


def told(engine: Engine, lease: Lease, key: str, news: int) -> object:
    """Return the payload with which a waiting call is answered at once."""
    line = engine.park(lease, event(key, name="pay"), news=news)
    assert line["outcome"] == "news", line
    (known,) = line["entries"]
    assert (known["key"], known["kind"]) == (key, "event")
    return known["value"]


def test_a_run_that_expects_a_signal_waits_without_a_worker(engine: Engine) -> None:
    run = engine.run(expecting(engine))
    assert (run["state"], run["waits_for"], run["worker_id"]) == ("waiting_event", ["pay"], None)


def test_a_signal_wakes_the_run_that_waits_for_it(engine: Engine) -> None:
    run_id = expecting(engine, digest="aa")
    signal(engine, run_id, {"paid": 5})
    assert engine.state(run_id) == "pending"
    assert engine.lease_of(run_id).body["journal"] == [
        {"key": "pay", "kind": "event", "value": {"paid": 5}, "digest": "aa", "lease_no": None}
    ]


@pytest.mark.parametrize("payload", [None, 0, "", [], {"a": [None]}], ids=str)
def test_a_payload_may_be_any_value(engine: Engine, payload: object) -> None:
    run_id = expecting(engine)
    signal(engine, run_id, payload)
    assert engine.lease_of(run_id).body["journal"][0]["value"] == payload


def test_no_payload_is_null(engine: Engine) -> None:
    run_id = expecting(engine)
    engine.call("signal", run_id=run_id, name="pay")
    assert engine.lease_of(run_id).body["journal"][0]["value"] is None


def test_the_timeline_tells_that_it_came_and_which_call_took_it(engine: Engine) -> None:
    run_id = expecting(engine)
    number = signal(engine, run_id, 1)
    *_, received, taken, woken = engine.timeline(run_id)
    assert (received["type"], received["event_no"], received["payload"]) == (
        "signal.received",
        number,
        {"name": "pay"},
    )
    assert (taken["type"], taken["payload"]) == (
        "signal.taken",
        {"name": "pay", "signal_no": number, "key": "pay"},
    )
    assert woken["type"] == "run.woken"


@pytest.mark.parametrize("state", ["scheduled", "pending", "running", "waiting_approval", "paused"])
def test_a_signal_may_come_before_anybody_asks(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    number = signal(engine, run_id, 1)
    assert engine.state(run_id) == state
    assert engine.types(run_id)[number - 1 :] == ["signal.received"]


def test_an_early_signal_is_there_when_the_run_asks(engine: Engine) -> None:
    lease = engine.leased()
    signal(engine, lease.run_id, "early")
    assert told(engine, lease, "pay", 0) == "early"
    assert engine.state(lease.run_id) == "running"


def test_an_early_signal_is_no_news_before_the_run_asks(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue()
    signal(engine, run_id, "early")
    lease = engine.lease_of(run_id)
    assert (lease.body["news"], lease.body.get("journal")) == (0, None)


def test_signals_are_taken_in_the_order_in_which_they_came(engine: Engine) -> None:
    lease = engine.leased()
    for n in range(3):
        signal(engine, lease.run_id, n)
    assert [told(engine, lease, f"pay#{n + 1}", n) for n in range(3)] == [0, 1, 2]


def test_each_signal_is_taken_once(engine: Engine) -> None:
    lease = engine.leased()
    signal(engine, lease.run_id, 1)
    told(engine, lease, "pay", 0)
    assert engine.park(lease, event("pay#2", name="pay"), news=1)["outcome"] == "done"
    signal(engine, lease.run_id, 2)
    assert entry(engine, lease.run_id, "pay#2")["value"] == 2


def test_of_two_calls_that_wait_each_gets_a_signal_of_its_own(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, event("a", name="pay"), event("b", name="pay"))
    signal(engine, lease.run_id, 1)
    assert engine.state(lease.run_id) == "waiting_event"
    signal(engine, lease.run_id, 2)
    assert engine.state(lease.run_id) == "pending"
    assert {entry(engine, lease.run_id, key)["value"] for key in ("a", "b")} == {1, 2}


def test_a_late_signal_is_kept_for_who_asks_again(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, event(timeout=60))
    engine.later(seconds=61)
    engine.tick()
    signal(engine, lease.run_id, "late")
    assert engine.state(lease.run_id) == "pending"
    lease = engine.lease_of(lease.run_id)
    assert [known["kind"] for known in lease.body["journal"]] == ["timeout"]
    assert told(engine, lease, "pay#2", 1) == "late"


def test_a_signal_of_another_name_leaves_the_run_waiting(engine: Engine) -> None:
    run_id = expecting(engine)
    signal(engine, run_id, 1, name="Pay")
    signal(engine, run_id, 1, name="pay ")
    assert engine.state(run_id) == "waiting_event"


def test_names_have_no_part_in_each_other(engine: Engine) -> None:
    lease = engine.leased()
    signal(engine, lease.run_id, "b", name="b")
    signal(engine, lease.run_id, "a", name="a")
    line = engine.park(lease, event("a"))
    assert [known["value"] for known in line["entries"]] == ["a"]
    line = engine.park(lease, event("b"), news=1)
    assert [known["value"] for known in line["entries"]] == ["b"]


def test_where_any_will_do_only_what_answers_is_taken(engine: Engine) -> None:
    lease = engine.leased()
    signal(engine, lease.run_id, "a", name="a")
    signal(engine, lease.run_id, "b", name="b")
    line = engine.park(lease, event("a"), event("b"), wait_any=True)
    assert [known["key"] for known in line["entries"]] == ["a"]
    line = engine.park(lease, event("b#2", name="b"), news=1)
    assert [known["value"] for known in line["entries"]] == ["b"]


def test_a_signal_for_the_loser_of_a_race_is_kept_for_who_asks_next(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"key": "ok"}, event(), wait_any=True)
    engine.approve(engine.task(lease.run_id))
    signal(engine, lease.run_id, 5)  # between the wake-up and the next lease
    lease = engine.lease_of(lease.run_id)
    assert [known["key"] for known in lease.body["journal"]] == ["ok"]
    assert told(engine, lease, "pay#2", 1) == 5


def test_a_signal_while_the_handler_runs_answers_its_next_call(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"key": "ok"}, event(), wait_any=True)
    engine.approve(engine.task(lease.run_id))
    lease = engine.lease_of(lease.run_id)
    signal(engine, lease.run_id, 5)
    assert told(engine, lease, "pay", 1) == 5


def test_a_signal_while_paused_counts_at_resume(engine: Engine) -> None:
    run_id = expecting(engine)
    engine.call("pause", run_id=run_id)
    signal(engine, run_id, 5)
    assert engine.state(run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert engine.lease_of(run_id).body["journal"][0]["value"] == 5


def test_while_paused_where_any_will_do_the_second_signal_is_kept(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, event("a"), event("b"), wait_any=True)
    engine.call("pause", run_id=lease.run_id)
    signal(engine, lease.run_id, 5, name="a")
    signal(engine, lease.run_id, 6, name="b")
    assert engine.tell("resume", run_id=lease.run_id) == "pending"
    lease = engine.lease_of(lease.run_id)
    assert [known["value"] for known in lease.body["journal"]] == [5]
    line = engine.park(lease, event("b"), news=1)
    assert [known["value"] for known in line["entries"]] == [6]


def test_resumed_without_its_signal_the_run_waits_on(engine: Engine) -> None:
    run_id = expecting(engine)
    engine.call("pause", run_id=run_id)
    assert engine.tell("resume", run_id=run_id) == "waiting_event"
    signal(engine, run_id, 5)
    assert engine.state(run_id) == "pending"


def test_a_finished_run_takes_no_signals(engine: Engine) -> None:
    run_id = expecting(engine)
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id"):
        signal(engine, run_id)


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    with engine.refused("PF102", "run_id"):
        signal(engine, uuid4())


def test_a_run_of_another_project_is_as_unknown(engine: Engine) -> None:
    run_id = expecting(engine)
    engine.tell("create_project", project="acme")
    with engine.refused("PF102", "run_id"):
        signal(engine, run_id, project="acme")


@pytest.mark.parametrize("name", [None, "", "n" * 201], ids=lambda name: str(name)[:5])
def test_a_bad_name_is_refused(engine: Engine, name: str) -> None:
    run_id = expecting(engine)
    with engine.refused("PF101", "name"):
        signal(engine, run_id, name=name)


@pytest.mark.parametrize("key", ["", "k" * 501], ids=len)
def test_a_bad_idempotency_key_is_refused(engine: Engine, key: str) -> None:
    run_id = expecting(engine)
    with engine.refused("PF101", "idempotency_key"):
        signal(engine, run_id, idempotency_key=key)


def test_a_payload_over_1_mb_is_refused(engine: Engine) -> None:
    run_id = expecting(engine)
    with engine.refused("PF101", "payload"):
        signal(engine, run_id, [str(uuid4()) for _ in range(40_000)])


# ---- idempotency


def test_the_same_signal_under_its_key_is_one_signal(engine: Engine) -> None:
    lease = engine.leased()
    first = signal(engine, lease.run_id, {"a": 1, "b": 2}, idempotency_key="k")
    before = engine.place.rows()
    assert signal(engine, lease.run_id, {"b": 2, "a": 1}, idempotency_key="k") == first
    assert engine.place.rows() == before


def test_the_same_signal_without_a_key_is_another(engine: Engine) -> None:
    lease = engine.leased()
    assert signal(engine, lease.run_id, 1) < signal(engine, lease.run_id, 1)
    assert [told(engine, lease, key, n) for n, key in enumerate("ab")] == [1, 1]


def test_a_signal_that_was_taken_is_not_taken_again_under_its_key(engine: Engine) -> None:
    run_id = expecting(engine)
    number = signal(engine, run_id, 1, idempotency_key="k")
    assert engine.park(engine.lease_of(run_id), event("pay#2", name="pay"), news=1)
    assert signal(engine, run_id, 1, idempotency_key="k") == number
    assert engine.state(run_id) == "waiting_event"


@pytest.mark.parametrize("change", [{"payload": 2}, {"name": "other"}, {"payload": None}], ids=str)
def test_another_signal_under_the_same_key_is_refused(engine: Engine, change: Row) -> None:
    run_id = expecting(engine)
    first: Row = {"payload": 1, "name": "pay"}
    signal(engine, run_id, idempotency_key="k", **first)
    with engine.refused("PF401", "idempotency_key"):
        signal(engine, run_id, idempotency_key="k", **{**first, **change})


def test_the_same_signal_under_its_key_after_the_end_is_no_refusal(engine: Engine) -> None:
    run_id = expecting(engine)
    number = signal(engine, run_id, 1, idempotency_key="k")
    engine.complete(engine.lease_of(run_id))
    assert signal(engine, run_id, 1, idempotency_key="k") == number


def test_the_same_key_in_another_run_is_another_signal(engine: Engine) -> None:
    for _ in range(2):
        run_id = expecting(engine)
        signal(engine, run_id, 1, idempotency_key="k")
        assert engine.state(run_id) == "pending"
        engine.complete(engine.lease_of(run_id))
