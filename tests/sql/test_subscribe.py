"""subscribe, next_events, acknowledge: the events of all runs, in one order, each once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from psycopg.pq import TransactionStatus

from tests.sql import flows

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Row

NAME = "billing"


def subscribe(engine: Engine, name: str = NAME, **more: Any) -> str:
    return str(engine.tell("subscribe", subscription=name, **more))


def get(engine: Engine, name: str = NAME, **more: Any) -> list[Row]:
    """Return the next events."""
    if engine.conn.info.transaction_status is TransactionStatus.IDLE:
        engine.settled()
    return engine.call("next_events", subscription=name, **{"reader": "r:1", **more})


def acknowledge(engine: Engine, batch_no: int, name: str = NAME, **more: Any) -> bool:
    return bool(engine.tell("acknowledge", subscription=name, batch_no=batch_no, **more))


def read(engine: Engine, name: str = NAME, **more: Any) -> list[Row]:
    """Return all there is to read, acknowledged batch after batch."""
    events: list[Row] = []
    while batch := get(engine, name, **more):
        events += batch
        acknowledge(engine, batch[0]["batch_no"], name)
    return events


def lines(events: Sequence[Row]) -> list[tuple[UUID, int]]:
    return [(event["run_id"], event["event_no"]) for event in events]


def types(events: Sequence[Row]) -> list[str]:
    return [event["type"] for event in events]


def full_life(engine: Engine) -> UUID:
    """Bring a run through all ways in which lines are written, and end it."""
    lease = engine.leased()
    engine.record_steps(lease, a="1", b="2")
    engine.call("emit", run_id=lease.run_id, type="note", payload={"n": 1}, idempotency_key="k")
    engine.release(lease)
    lease = engine.lease_of(lease.run_id)
    engine.park(lease)
    engine.approve(engine.task(lease.run_id))
    engine.call("pause", run_id=lease.run_id)
    engine.call("resume", run_id=lease.run_id)
    engine.complete(engine.lease_of(lease.run_id))
    return lease.run_id


# ---- what is read


def test_every_line_of_every_run_is_read_once_and_in_its_order(engine: Engine) -> None:
    subscribe(engine)
    runs = [full_life(engine) for _ in range(3)]
    events = read(engine)
    assert sorted(lines(events)) == sorted(
        (run_id, line["event_no"]) for run_id in runs for line in engine.timeline(run_id)
    )
    for run_id in runs:
        mine = [event for event in events if event["run_id"] == run_id]
        assert [event["event_no"] for event in mine] == list(range(1, len(mine) + 1))
    assert read(engine) == []


def test_every_line_of_a_flow_and_its_steps_is_read_once_and_in_its_order(engine: Engine) -> None:
    subscribe(engine)
    run_id = flows.started(
        engine,
        flows.step("a"),
        flows.step("b", on_failure="continue"),
        flows.step("c", "b"),
        flows.gate("ok", "a"),
        flows.step("d", "ok", "a"),
    )
    flows.work(engine, fail=("b",))
    engine.reject(flows.task_of(engine, run_id, "ok"), rollback_to="a")
    flows.finish(engine)
    engine.call("pause", run_id=run_id)
    engine.approve(flows.task_of(engine, run_id, "ok"))
    engine.call("resume", run_id=run_id)
    flows.finish(engine)
    assert engine.state(run_id) == "completed"
    events = read(engine)
    told = engine.rows(
        "select run_id, event_no from pgflow.timeline join pgflow.runs using (run_id)"
        " where runs.root_run_id = %s",
        run_id,
    )
    assert sorted(lines(events)) == sorted((line["run_id"], line["event_no"]) for line in told)
    for one in {event["run_id"] for event in events}:
        numbers = [event["event_no"] for event in events if event["run_id"] == one]
        assert numbers == list(range(1, len(numbers) + 1))
    assert {"step.skipped", "step.started", "step.rolled_back"} <= set(types(events))


def test_an_event_is_the_line_of_the_timeline(engine: Engine) -> None:
    subscribe(engine)
    run_id = full_life(engine)
    fields = "run_id event_no type at by worker_id lease_no attempt step payload key"
    names = [*fields.split(), "correlation_id", "handler", "queue"]
    events = [{name: event[name] for name in names} for event in read(engine)]
    assert events == [{name: line[name] for name in names} for line in engine.timeline(run_id)]


def test_what_was_before_the_subscription_is_not_read(engine: Engine) -> None:
    lease = engine.leased()
    subscribe(engine)
    assert get(engine) == []
    engine.complete(lease)
    assert types(read(engine)) == ["run.completed"]


def test_what_is_done_in_the_transaction_that_subscribes_is_read(engine: Engine) -> None:
    with engine.conn.transaction():
        subscribe(engine)
        run_id = engine.enqueue()
    assert lines(read(engine)) == [(run_id, 1)]


def test_batches_are_read_in_order(engine: Engine) -> None:
    subscribe(engine)
    for run_id in engine.enqueue_many([{}] * 10):
        engine.call("cancel", run_id=run_id)
    batches = []
    while batch := get(engine, max_events=3):
        batches.append(batch)
        acknowledge(engine, batch[0]["batch_no"])
    assert [len(batch) for batch in batches] == [3, 3, 3, 3, 3, 3, 2]
    assert {batch[0]["batch_no"] for batch in batches} == set(range(1, 8))
    created = [e["run_id"] for batch in batches for e in batch if e["type"] == "run.created"]
    ended = [e["run_id"] for batch in batches for e in batch if e["type"] == "run.cancelled"]
    assert (sorted(created), sorted(ended)) == (created, sorted(created))


def test_what_is_rolled_back_is_not_read(engine: Engine) -> None:
    subscribe(engine)
    engine.conn.execute("begin")
    engine.enqueue()
    engine.conn.execute("rollback")
    run_id = engine.enqueue()
    assert lines(read(engine)) == [(run_id, 1)]


def test_the_runs_of_other_projects_are_not_read(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    subscribe(engine)
    subscribe(engine, project="acme")
    engine.enqueue(project="acme")
    assert get(engine) == []
    (event,) = get(engine, project="acme")
    assert event["type"] == "run.created"


def test_without_a_subscription_nothing_is_noted(engine: Engine) -> None:
    full_life(engine)
    assert engine.rows("select * from pgflow.outbox") == []


# ---- filters


@pytest.mark.parametrize(
    ("filters", "which"),
    [
        ({"types": ["run.completed"]}, lambda e, _: e["type"] == "run.completed"),
        ({"types": ["note", "run.woken"]}, lambda e, _: e["type"] in {"note", "run.woken"}),
        ({"queue": "mail"}, lambda e, _: e["queue"] == "mail"),
        ({"correlation_id": "order-1"}, lambda e, _: e["correlation_id"] == "order-1"),
        ({"queue": "mail", "types": ["run.created"]}, lambda e, n: (e["event_no"], n) == (1, 1)),
        ({"types": ["nothing"]}, lambda *_: False),
    ],
)
def test_a_subscription_has_what_it_asks_for_and_nothing_else(
    engine: Engine, filters: Row, which: Callable[[Row, int], bool]
) -> None:
    subscribe(engine, "all")
    subscribe(engine, **filters)
    runs = [full_life(engine)]
    runs.append(engine.enqueue(queue="mail"))
    runs.append(engine.enqueue(correlation_id="order-1"))
    wanted = [e for e in read(engine, "all") if which(e, runs.index(e["run_id"]))]
    assert lines(read(engine)) == lines(wanted)


def test_the_own_id_of_a_run_is_its_correlation_id(engine: Engine) -> None:
    run_id = engine.enqueue()
    subscribe(engine, correlation_id=str(run_id))
    engine.call("cancel", run_id=run_id)
    engine.enqueue()
    assert types(read(engine)) == ["run.cancelled"]


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_thousands_of_events_that_nobody_wants_are_passed_by_once(engine: Engine) -> None:
    subscribe(engine, types=["run.cancelled"])
    runs = engine.enqueue_many([{}] * 3500)
    engine.call("cancel", run_id=runs[-1])
    (event,) = get(engine)
    assert event["run_id"] == runs[-1]
    acknowledge(engine, event["batch_no"])
    assert engine.value("select behind from pgflow.subscriptions") == 0
    engine.enqueue_many([{}] * 30)
    assert get(engine) == []
    assert engine.value("select behind from pgflow.subscriptions") == 0


def test_subscribing_again_sets_the_filters_and_leaves_the_position(engine: Engine) -> None:
    first = subscribe(engine, types=["run.created"])
    engine.enqueue()
    assert subscribe(engine) == first
    row = engine.one("select types, position from pgflow.subscriptions")
    assert (row["types"], row["position"]) == (None, first)
    assert types(get(engine)) == ["run.created"]


# ---- positions


def test_a_new_subscription_begins_behind_a_position_of_another(engine: Engine) -> None:
    subscribe(engine)
    runs = [engine.enqueue() for _ in range(4)]
    events = get(engine)
    other = subscribe(engine, "audit", from_position=events[1]["position"])
    assert other == events[1]["position"]
    assert [e["run_id"] for e in read(engine, "audit")] == runs[2:]


def test_a_subscription_that_is_there_does_not_go_back_to_where_it_was_to_begin(
    engine: Engine,
) -> None:
    begin = subscribe(engine)
    subscribe(engine, "slow")
    engine.enqueue()
    read(engine)
    subscribe(engine, from_position=begin)
    assert get(engine) == []


@pytest.mark.parametrize("position", ["", "7", "x/y/z", "7/01900000-0000-7000-8000-000000000000/"])
def test_what_is_no_position_is_refused(engine: Engine, position: str) -> None:
    with engine.refused("PF101", "from_position"):
        subscribe(engine, from_position=position)


def test_a_position_whose_events_are_gone_is_refused(engine: Engine) -> None:
    begin = subscribe(engine)
    engine.enqueue()
    read(engine)
    with engine.refused("PF101", "from_position"):
        subscribe(engine, "audit", from_position=begin)
    engine.tell("unsubscribe", subscription=NAME)
    with engine.refused("PF101", "from_position"):
        subscribe(engine, "audit", from_position=begin)


def test_a_position_that_is_still_to_come_is_refused(engine: Engine) -> None:
    _, run_id, number = subscribe(engine).split("/")
    with engine.refused("PF101", "from_position"):
        subscribe(engine, "audit", from_position=f"{10**17}/{run_id}/{number}")


# ---- batches


def test_the_reader_gets_its_batch_again_until_it_acknowledges_it(engine: Engine) -> None:
    subscribe(engine)
    engine.enqueue()
    first = get(engine)
    engine.enqueue()
    assert get(engine) == first
    assert acknowledge(engine, first[0]["batch_no"]) is True
    (second,) = get(engine)
    assert (second["batch_no"], second["position"] != first[0]["position"]) == (2, True)


def test_another_reader_gets_nothing_meanwhile(engine: Engine) -> None:
    subscribe(engine)
    engine.enqueue_many([{}] * 3)
    assert len(get(engine, max_events=2)) == 2
    assert get(engine, reader="r:2") == []
    engine.later(seconds=59)
    assert get(engine, reader="r:2") == []


def test_a_reader_that_is_not_heard_of_loses_its_batch(engine: Engine) -> None:
    subscribe(engine)
    engine.enqueue_many([{}] * 3)
    first = get(engine, max_events=2)
    engine.later(seconds=60)
    second = get(engine, reader="r:2", max_events=3)
    assert (lines(second)[:2], len(second)) == (lines(first), 3)
    with engine.refused("PF303", "batch_no"):
        acknowledge(engine, first[0]["batch_no"])
    assert acknowledge(engine, second[0]["batch_no"]) is True
    with engine.refused("PF303", "batch_no"):
        acknowledge(engine, first[0]["batch_no"])
    assert get(engine) == []


def test_asking_again_is_a_sign_of_life(engine: Engine) -> None:
    subscribe(engine)
    engine.enqueue()
    get(engine, hold=timedelta(seconds=10))
    engine.later(seconds=9)
    get(engine)
    engine.later(seconds=9)
    assert get(engine, reader="r:2") == []
    engine.later(seconds=1)
    assert len(get(engine, reader="r:2")) == 1


def test_acknowledging_again_is_a_no_op(engine: Engine) -> None:
    subscribe(engine)
    engine.enqueue()
    (event,) = get(engine)
    acknowledge(engine, event["batch_no"])
    before = engine.place.rows()
    assert acknowledge(engine, event["batch_no"]) is False
    assert engine.place.rows() == before


def test_a_part_of_a_batch_can_be_acknowledged(engine: Engine) -> None:
    subscribe(engine)
    runs = [engine.enqueue() for _ in range(3)]
    first, second, third = get(engine, hold=timedelta(seconds=10))
    engine.later(seconds=9)
    assert acknowledge(engine, 1, up_to=second["position"]) is True
    assert acknowledge(engine, 1, up_to=first["position"]) is False
    engine.later(seconds=9)
    assert get(engine, reader="r:2") == []
    assert get(engine) == [third]
    engine.later(seconds=60)
    assert [e["run_id"] for e in get(engine, reader="r:2")] == runs[2:]


def test_no_more_than_a_batch_is_acknowledged_by_it(engine: Engine) -> None:
    subscribe(engine)
    for _ in range(3):
        engine.enqueue()
    subscribe(engine, "other")
    subscribe(engine, "behind", from_position=subscribe(engine))
    get(engine, max_events=2)
    beyond = get(engine, "behind")[2]["position"]
    with engine.refused("PF101", "up_to"):
        acknowledge(engine, 1, up_to=beyond)
    with engine.refused("PF101", "up_to"):
        acknowledge(engine, 1, up_to="somewhere")


def test_what_is_given_back_another_reader_gets_at_once(engine: Engine) -> None:
    subscribe(engine)
    engine.enqueue_many([{}] * 3)
    first = get(engine)
    acknowledge(engine, 1, up_to=first[0]["position"])
    assert engine.tell("release_events", subscription=NAME, batch_no=1) is True
    second = get(engine, reader="r:2")
    assert (lines(second), second[0]["batch_no"]) == (lines(first)[1:], 2)
    with engine.refused("PF303", "batch_no"):
        engine.tell("release_events", subscription=NAME, batch_no=1)
    acknowledge(engine, 2)
    assert engine.tell("release_events", subscription=NAME, batch_no=2) is False


def test_a_batch_that_nobody_was_given_cannot_be_acknowledged(engine: Engine) -> None:
    subscribe(engine)
    for batch_no in (0, 1, None):
        with engine.refused("PF303", "batch_no"):
            engine.tell("acknowledge", subscription=NAME, batch_no=batch_no)


def test_filters_that_change_under_an_open_batch_hold_for_what_is_read_again(
    engine: Engine,
) -> None:
    subscribe(engine)
    engine.call("cancel", run_id=engine.enqueue())
    get(engine)
    subscribe(engine, types=["run.cancelled"])
    assert types(get(engine)) == ["run.cancelled"]
    subscribe(engine, types=["note"])
    assert get(engine) == []
    engine.call("emit", run_id=engine.enqueue(), type="note")
    assert types(get(engine)) == ["note"]


def test_read_and_acknowledged_in_one_transaction_they_are_read_exactly_once(
    engine: Engine, connect: Connect
) -> None:
    subscribe(engine)
    engine.enqueue()
    other = connect()
    for end in ("rollback", "commit"):
        engine.conn.execute("begin")
        (event,) = get(engine)
        acknowledge(engine, event["batch_no"])
        assert other.call("next_events", subscription=NAME, reader="r:2") == []
        engine.conn.execute(end)
    assert get(other, reader="r:2") == []


@pytest.mark.parametrize("verb", ["next_events", "acknowledge", "release_events"])
def test_an_unknown_subscription_is_refused(engine: Engine, verb: str) -> None:
    subscribe(engine, project="default")
    engine.tell("create_project", project="acme")
    batch = {} if verb == "next_events" else {"batch_no": 1}
    for where in ({"subscription": "nobody"}, {"subscription": NAME, "project": "acme"}):
        with engine.refused("PF107", "subscription"):
            engine.call(verb, **where, **batch)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subscription", ""),
        ("subscription", None),
        ("subscription", "x" * 101),
        ("types", []),
        ("types", [None]),
        ("types", [""]),
        ("types", ["x" * 101]),
        ("queue", ""),
        ("correlation_id", ""),
        ("correlation_id", "x" * 201),
    ],
    ids=str,
)
def test_what_cannot_be_subscribed_to_is_refused(engine: Engine, field: str, value: object) -> None:
    with engine.refused("PF101", field):
        engine.call("subscribe", **{"subscription": NAME, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reader", ""),
        ("reader", "x" * 201),
        ("max_events", 0),
        ("max_events", 1001),
        ("max_events", None),
        ("hold", timedelta(seconds=0.5)),
        ("hold", timedelta(days=2)),
        ("hold", None),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused(engine: Engine, field: str, value: object) -> None:
    subscribe(engine)
    more: Row = {field: value}
    with engine.refused("PF101", field):
        get(engine, **more)


# ---- what is kept


def kept(engine: Engine) -> int:
    count: int = engine.value("select count(*) from pgflow.outbox")
    return count


def test_what_all_have_acknowledged_is_forgotten(engine: Engine) -> None:
    subscribe(engine)
    subscribe(engine, "audit")
    full_life(engine)
    count = kept(engine)
    read(engine)
    assert kept(engine) == count
    read(engine, "audit")
    assert kept(engine) == 0


def test_after_the_last_subscription_the_tick_forgets_the_rest(engine: Engine) -> None:
    subscribe(engine)
    full_life(engine)
    assert engine.tell("unsubscribe", subscription=NAME) is True
    assert engine.tell("unsubscribe", subscription=NAME) is False
    engine.tick()
    assert kept(engine) == 0
    full_life(engine)
    assert kept(engine) == 0


def test_the_view_tells_how_far_each_is(engine: Engine) -> None:
    subscribe(engine, types=["note"], queue="mail")
    subscribe(engine, "audit")
    full_life(engine)
    audit, billing = engine.rows("select * from pgflow.subscriptions order by subscription")
    assert (billing["types"], billing["queue"], billing["reader"]) == (["note"], "mail", None)
    assert audit["behind"] == billing["behind"] == kept(engine)
    get(engine, "audit", max_events=1)
    audit = engine.rows("select * from pgflow.subscriptions order by subscription")[0]
    assert (audit["reader"], audit["batch_no"]) == ("r:1", 1)
    assert audit["held_until"] == engine.now + timedelta(seconds=60)


def test_the_doctor_tells_of_a_subscription_that_nobody_reads(engine: Engine) -> None:
    subscribe(engine)
    engine.enqueue()
    found = "select detail from pgflow.doctor() where \"check\" = 'subscription stands still'"
    engine.later(minutes=10)
    assert engine.rows(found) == []
    engine.later(seconds=1)
    (line,) = engine.rows(found)
    assert line["detail"].startswith("subscription billing has 1 events to read")
    read(engine)
    assert engine.rows(found) == []


# ---- isolation levels, restored databases, rights


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_snapshot_older_than_the_subscription_leaves_no_gap(
    engine: Engine, connect: Connect, level: str
) -> None:
    lease = engine.leased()
    other = connect()
    other.conn.execute(f"begin isolation level {level}")
    other.rows("select 1")
    subscribe(engine)
    other.call("emit", run_id=lease.run_id, type="note")
    other.conn.execute("commit")
    assert types(read(engine)) == ["note"]


def test_a_dump_that_is_restored_goes_on_where_it_was(engine: Engine) -> None:
    subscribe(engine)
    subscribe(engine, "audit")
    runs = [engine.enqueue() for _ in range(3)]
    first = get(engine, max_events=1)
    acknowledge(engine, 1)
    # A server whose transaction ids are far behind those of the one that was dumped.
    for column, table in (("place = place", "outbox"), ("", "subscription")):
        engine.rows(
            f"update pgflow.{table} set {column} + 1000000000000"
            if column
            else "update pgflow.subscription set read_to.place = (read_to).place + 1000000000000"
        )
    for run_id in runs:
        engine.call("cancel", run_id=run_id)
    expected = [(runs[1], 1), (runs[2], 1), *((run_id, 2) for run_id in runs)]
    assert sorted(lines(read(engine))) == sorted(expected)
    assert sorted(lines(read(engine, "audit"))) == sorted([*lines(first), *expected])
    assert get(engine) == []
    engine.enqueue()
    assert types(read(engine)) == ["run.created"]


def test_a_member_of_another_project_reads_nothing(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    member, stranger = make_role("pgflow_client"), make_role("pgflow_client")
    engine.tell("create_project", project="acme")
    engine.tell("add_member", member=member, project="acme")
    subscribe(connect(member), project="acme")
    engine.enqueue(project="acme")
    assert len(get(connect(member), project="acme")) == 1
    with engine.refused("PF502"):
        get(connect(stranger), project="acme")
    assert connect(stranger).rows("select * from pgflow.subscriptions") == []
