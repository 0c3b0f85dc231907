"""subscribe on both clients: the events of all runs, one reader after the other, none left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from pgflow import App, Client
from pgflow.errors import BadRequest, BatchLost, UnknownSubscription
from pgflow.models import Delivery

if TYPE_CHECKING:
    from tests.worker.conftest import Stage

Read = Callable[..., list[Delivery]]


async def _read(app: App, count: int, name: str, **how: Any) -> list[Delivery]:
    """Read so many events and leave."""
    events: list[Delivery] = []
    async with aclosing(app.subscribe(name, **how)) as found:
        async for event in found:
            events.append(event)
            if len(events) == count:
                break
    return events


@pytest.fixture(params=["sync", "async"])
def read(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Read]:
    """Return how either client reads a number of events of a subscription."""

    def sync(count: int, name: str = "billing", **how: Any) -> list[Delivery]:
        with closing(stage.client.subscribe(name, **how)) as found:
            return list(islice(found, count))

    def awaited(count: int, name: str = "billing", **how: Any) -> list[Delivery]:
        async def read() -> list[Delivery]:
            app = App(stage.dsn)
            try:
                return await _read(app, count, name, **how)
            finally:
                await app.close()

        return asyncio.run(read())

    return (yield sync if request.param == "sync" else awaited)


def lines(events: list[Delivery]) -> list[tuple[UUID, int]]:
    return [(event.run_id, event.event_no) for event in events]


def begun(stage: Stage, name: str = "billing") -> None:
    """Make the subscription."""
    stage.one("select pgflow.subscribe(%s)", name)


def test_each_event_is_read_with_what_it_says(stage: Stage, read: Read) -> None:
    begun(stage)
    run_id = stage.client.enqueue("h", correlation_id="order-1", queue="mail")
    stage.client.emit(run_id, "note", {"n": 1}, idempotency_key="k")
    created, note = read(2)
    assert (created.type, created.handler, created.queue) == ("run.created", "h", "mail")
    assert (note.type, note.payload, note.key, note.event_no) == ("note", {"n": 1}, "k", 2)
    assert note.correlation_id == "order-1"


def test_a_subscription_goes_on_where_it_was_left(stage: Stage, read: Read) -> None:
    begun(stage)
    runs = stage.client.enqueue_many("h", [{}] * 5)
    # The last one that was read when the reader left may not have been dealt with.
    assert [run_id for run_id, _ in lines(read(3))] == sorted(runs)[:3]
    assert [run_id for run_id, _ in lines(read(3))] == sorted(runs)[2:]


def test_it_waits_for_what_comes(stage: Stage, read: Read) -> None:
    @stage.app.handler
    def h() -> None:
        return None

    begun(stage)
    with stage.worker():
        run_id = stage.client.enqueue("h")
        assert [event.type for event in read(3)] == ["run.created", "run.started", "run.completed"]
        assert stage.client.result(run_id, timeout=5).state == "completed"


def test_the_filters_are_those_of_the_call(stage: Stage, read: Read) -> None:
    begun(stage)
    stage.client.enqueue("h")
    run_id = stage.client.enqueue("h", correlation_id="order-1", queue="mail")
    stage.client.cancel(run_id)
    how = {"types": ["run.cancelled"], "queue": "mail", "correlation_id": "order-1"}
    assert lines(read(1, **how)) == [(run_id, 2)]
    (row,) = stage.client.subscriptions()
    assert {name: row[name] for name in how} == how


def test_a_new_one_begins_behind_a_position(stage: Stage, read: Read) -> None:
    begun(stage)
    for _ in range(3):
        stage.client.enqueue("h")
    events = stage.client.next_events("billing", max_events=2)
    later = read(2, "audit", from_position=events[0].position)
    assert lines(later[:1]) == lines(events[1:])
    assert len(later) == 2


def test_who_leaves_gives_back_what_is_left_at_once(stage: Stage, read: Read) -> None:
    begun(stage)
    stage.client.enqueue_many("h", [{}] * 3)
    read(1)
    (row,) = stage.client.subscriptions()
    assert row["reader"] is None
    assert len(stage.client.next_events("billing", "next reader")) == 3


def test_a_reader_that_takes_long_stays_its_reader(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(stage)
    stage.client.enqueue_many("h", [{}] * 3)
    clock = [0.0]
    monkeypatch.setattr("pgflow._subscription.monotonic", lambda: clock[0])
    with closing(stage.client.subscribe("billing", hold=timedelta(seconds=30))) as events:
        first = next(events)
        held = stage.one("select held_until from pgflow.subscription")
        clock[0] = 9.9
        next(events)
        assert stage.one("select held_until from pgflow.subscription") == held
        clock[0] = 10.1
        next(events)
        assert stage.one("select held_until from pgflow.subscription") > held
        (row,) = stage.client.subscriptions()
        assert row["position"] > first.position
        assert stage.client.next_events("billing", "another") == []


def test_a_reader_that_lost_its_batch_goes_on_with_what_comes_then(stage: Stage) -> None:
    begun(stage)
    stage.client.enqueue_many("h", [{}] * 2)
    with closing(stage.client.subscribe("billing", hold=timedelta(seconds=1))) as events:
        next(events)
        stage.one("update pgflow.subscription set held_until = '-infinity' returning true")
        (first, second) = stage.client.next_events("billing", "another")
        stage.client.acknowledge("billing", second.batch_no)
        assert (first.batch_no, second.batch_no) == (2, 2)
        last = stage.client.enqueue("h")
        assert [next(events).run_id for _ in range(2)][-1] == last


def test_the_verbs_are_there_for_a_transaction_of_ones_own(stage: Stage) -> None:
    begun(stage)
    run_id = stage.client.enqueue("h")
    stage.db.execute("create table bill (run_id uuid primary key)")
    mine = Client(stage.db)
    with stage.db.transaction():
        (event,) = mine.next_events("billing")
        stage.db.execute("insert into bill values (%s)", [event.run_id])
        assert mine.acknowledge("billing", event.batch_no) is True
    assert stage.one("select run_id from bill") == run_id
    assert mine.next_events("billing") == []
    with pytest.raises(BatchLost):
        mine.release_events("billing", 9)
    assert (mine.unsubscribe("billing"), mine.unsubscribe("billing")) == (True, False)
    with pytest.raises(UnknownSubscription):
        mine.next_events("billing")


def test_what_is_refused_is_raised_at_the_first_event(stage: Stage, read: Read) -> None:
    begun(stage)
    with pytest.raises(BadRequest) as refused:
        read(1, "x" * 101)
    assert refused.value.field == "subscription"
    with pytest.raises(BadRequest) as refused:
        read(1, max_events=0)
    assert refused.value.field == "max_events"


def test_it_reads_on_when_its_connection_is_lost(stage: Stage) -> None:
    begun(stage)
    runs = stage.client.enqueue_many("h", [{}] * 3)

    def cut() -> None:
        stage.db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and datname = current_database()"
            " and backend_type = 'client backend'"
        )

    with closing(stage.client.subscribe("billing", max_events=2)) as events:
        numbers = [next(events).run_id]
        cut()
        # What was not acknowledged when the connection was lost comes again.
        while set(numbers) != set(runs):
            assert len(numbers) < 6
            numbers.append(next(events).run_id)
