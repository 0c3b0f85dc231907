"""Subscriptions: none left out, none twice, whatever commits late, waits, reads beside or dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.race.staging import Blocked, Two, held, refused, undone, until
from tests.sql.conftest import Connect, Engine, Lease, Row

NAME = "billing"
Lines = list[tuple[UUID, int]]


def subscribe(engine: Engine, name: str = NAME, **more: Any) -> str:
    return str(engine.tell("subscribe", subscription=name, **more))


def get(engine: Engine, reader: str = "r:1", **more: Any) -> list[Row]:
    """Return the next events, when nothing holds them back."""
    engine.settled()
    return get_now(engine, reader, **more)


def get_now(engine: Engine, reader: str = "r:1", **more: Any) -> list[Row]:
    """Return those of the next events that nothing holds back."""
    return engine.call("next_events", subscription=NAME, reader=reader, **more)


def acknowledge(engine: Engine, batch: list[Row]) -> bool:
    batch_no = batch[0]["batch_no"]
    return bool(engine.tell("acknowledge", subscription=NAME, batch_no=batch_no))


def lines(batch: list[Row]) -> Lines:
    return [(event["run_id"], event["event_no"]) for event in batch]


def read(engine: Engine) -> Lines:
    """Read and acknowledge what can be read now."""
    batch = get(engine)
    if batch:
        acknowledge(engine, batch)
    return lines(batch)


# ---- who commits late


ACTS: dict[str, Callable[[Engine, Lease], object]] = {
    "enqueue": lambda who, _: who.enqueue(),
    "emit": lambda who, lease: who.call("emit", run_id=lease.run_id, type="note"),
    "step": lambda who, lease: who.record_steps(lease, a="1"),
    "complete": lambda who, lease: who.complete(lease),
    "fail": lambda who, lease: who.fail(lease, retries=[False]),
    "park": lambda who, lease: who.park(lease),
    "pause": lambda who, lease: who.call("pause", run_id=lease.run_id),
    "cancel": lambda who, lease: who.call("cancel", run_id=lease.run_id),
}


@pytest.mark.parametrize("act", ACTS)
def test_what_commits_late_is_read_late_and_holds_back_what_comes_after(
    engine: Engine, two: Two, act: str
) -> None:
    lease = engine.leased()
    subscribe(engine)
    with held(two.one):
        ACTS[act](two.one, lease)
        later = two.other.enqueue()
        assert get_now(engine) == []
    events = read(engine)
    assert (len(events) > 1, events[-1]) == (True, (later, 1))


@pytest.mark.parametrize("act", ACTS)
def test_what_is_rolled_back_holds_back_what_comes_after_until_then(
    engine: Engine, two: Two, act: str
) -> None:
    lease = engine.leased()
    subscribe(engine)
    with undone(two.one):
        ACTS[act](two.one, lease)
        later = two.other.enqueue()
        assert get_now(engine) == []
    assert read(engine) == [(later, 1)]


def test_what_an_earlier_transaction_does_later_is_not_passed_by(engine: Engine, two: Two) -> None:
    engine.enqueue()  # which makes the queue
    subscribe(engine)
    with held(two.one):
        first = two.one.enqueue()
        second = two.other.enqueue()
        assert get_now(engine) == []
        third = two.one.enqueue()
    assert sorted(read(engine)) == sorted([(first, 1), (second, 1), (third, 1)])


def test_a_transaction_that_only_reads_holds_nothing_back(engine: Engine, connect: Connect) -> None:
    subscribe(engine)
    reader = connect()
    with held(reader):
        reader.conn.execute("set transaction isolation level repeatable read")
        reader.rows("select count(*) from pgflow.runs")
        run_id = engine.enqueue()
        assert read(engine) == [(run_id, 1)]


def test_the_events_of_a_run_keep_their_order_though_the_older_transaction_comes_last(
    engine: Engine, connect: Connect
) -> None:
    lease = engine.leased()
    subscribe(engine)
    old, third = connect(), connect()
    with held(old):
        old.rows("select pg_current_xact_id()")
        with held(third):
            third.rows("select pg_current_xact_id()")  # between the two in age
            engine.call("emit", run_id=lease.run_id, type="first")
            old.call("emit", run_id=lease.run_id, type="second")
            old.conn.execute("commit; begin")
            # The second is older than all that run, the first is not: neither is read.
            assert get_now(engine) == []
    assert [event["type"] for event in get(engine)] == ["first", "second"]


def test_several_events_of_a_run_in_one_batch_keep_their_order_too(
    engine: Engine, connect: Connect
) -> None:
    lease = engine.leased()
    subscribe(engine)
    old = connect()
    with held(old):
        old.rows("select pg_current_xact_id()")
        engine.call("emit", run_id=lease.run_id, type="first")
        old.record_steps(lease, a="1", b="2")
    assert [event["event_no"] for event in get(engine)] == [3, 4, 5]


# ---- the beginning


def test_a_writer_that_waits_for_a_run_sees_who_subscribed_meanwhile(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    lease = engine.leased()
    other = connect()
    with held(engine):
        engine.call("emit", run_id=lease.run_id, type="before")
        waiting = blocked(
            other, lambda: other.call("emit", run_id=lease.run_id, type="after"), by=engine
        )
        subscribe(connect())
    waiting.result()
    assert [event["type"] for event in get(engine)] == ["after"]


@pytest.mark.parametrize("act", [act for act in ACTS if act != "enqueue"])
def test_within_a_run_nothing_is_left_out_once_something_was_read(
    engine: Engine, two: Two, blocked: Blocked, act: str
) -> None:
    lease = engine.leased()
    with held(two.one):
        two.one.call("emit", run_id=lease.run_id, type="before")
        waiting = blocked(two.other, lambda: ACTS[act](two.other, lease), by=two.one)
        subscribe(engine)
        two.one.call("emit", run_id=lease.run_id, type="first")
    waiting.result()
    numbers = [event["event_no"] for event in get(engine)]
    last = len(engine.timeline(lease.run_id))
    assert numbers == list(range(last + 1 - len(numbers), last + 1))
    assert last in numbers


def test_a_subscription_that_begins_behind_another_finds_what_that_one_reads_meanwhile(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    begin = subscribe(engine)
    runs = [engine.enqueue(), engine.enqueue()]
    batch = get(engine)
    new, reader = connect(), connect()
    with held(new):
        subscribe(new, "audit", from_position=begin)
        acknowledging = blocked(reader, lambda: acknowledge(reader, batch), by=new)
    assert acknowledging.result() is True
    found = engine.call("next_events", subscription="audit")
    assert lines(found) == [(run_id, 1) for run_id in runs]


def test_a_subscription_does_not_begin_behind_one_that_has_gone_on(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    begin = subscribe(engine)
    engine.enqueue()
    new, reader = connect(), connect()
    with held(reader):
        acknowledge(reader, get(reader))
        beginning = blocked(new, lambda: subscribe(new, "audit", from_position=begin), by=reader)
    with refused("PF101"):
        beginning.result()


# ---- two readers


def test_a_second_reader_does_not_wait_for_the_first_and_gets_nothing(
    engine: Engine, connect: Connect
) -> None:
    subscribe(engine)
    engine.enqueue()
    one, other = connect(), connect()
    with held(one):
        batch = get(one, "r:1")
        assert len(batch) == 1
        assert get_now(other, "r:2") == []
    assert get(other, "r:2") == []
    acknowledge(one, batch)
    assert get(other, "r:2") == []


def test_two_who_ask_at_once_for_a_batch_that_was_given_up_get_it_once(
    engine: Engine, connect: Connect
) -> None:
    subscribe(engine)
    engine.enqueue()
    dead = get(engine, "r:0")
    engine.later(seconds=60)
    one, other = connect(), connect()
    with held(one):
        batch = get(one, "r:1")
        assert get_now(other, "r:2") == []
    assert get(other, "r:2") == []
    with refused("PF303"):
        acknowledge(engine, dead)
    assert acknowledge(one, batch) is True


def test_of_two_acknowledgements_the_second_waits_and_is_a_no_op(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    subscribe(engine)
    engine.enqueue()
    batch = get(engine)
    one, other = connect(), connect()
    with held(one):
        assert acknowledge(one, batch) is True
        again = blocked(other, lambda: acknowledge(other, batch), by=one)
    assert again.result() is False


def test_two_subscriptions_that_acknowledge_at_once_forget_what_both_have_read(
    engine: Engine, connect: Connect
) -> None:
    subscribe(engine)
    subscribe(engine, "audit")
    for _ in range(3):
        engine.enqueue()
    one, other = connect(), connect()
    batch = get(one)
    audit = other.call("next_events", subscription="audit")
    with held(one):
        acknowledge(one, batch)
        other.tell("acknowledge", subscription="audit", batch_no=audit[0]["batch_no"])
    engine.enqueue()
    for name in (NAME, "audit"):
        (last,) = engine.call("next_events", subscription=name, reader="r:9")
        engine.tell("acknowledge", subscription=name, batch_no=last["batch_no"])
    assert engine.rows("select * from pgflow.outbox") == []


# ---- who dies


@pytest.mark.parametrize("when", ["after the batch", "before the acknowledgement commits"])
def test_a_reader_that_is_killed_leaves_its_batch_to_the_next(engine: Engine, when: str) -> None:
    subscribe(engine)
    runs = [engine.enqueue(), engine.enqueue()]
    with psycopg.connect(engine.place.dsn, autocommit=True) as conn:
        victim = Engine(conn, engine.place, engine.now)
        batch = get(victim)
        if when == "before the acknowledgement commits":
            conn.execute("begin")
            acknowledge(victim, batch)
        engine.rows("select pg_terminate_backend(%s)", conn.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            conn.execute("commit")
    assert get(engine, "r:2") == []
    engine.later(seconds=60)
    given = until(lambda: lines(get(engine, "r:2")))  # once the server has noticed
    assert given == [(run_id, 1) for run_id in runs]


def test_a_reader_killed_in_the_transaction_in_which_it_read_leaves_it_at_once(
    engine: Engine,
) -> None:
    subscribe(engine)
    run_id = engine.enqueue()
    with psycopg.connect(engine.place.dsn, autocommit=True) as conn:
        victim = Engine(conn, engine.place, engine.now)
        conn.execute("begin")
        acknowledge(victim, get(victim))
        engine.rows("select pg_terminate_backend(%s)", conn.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            conn.execute("commit")
    assert until(lambda: lines(get(engine, "r:2"))) == [(run_id, 1)]
