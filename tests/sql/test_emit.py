"""emit: a user's event on a live run's timeline, once per key."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row


def emit(engine: Engine, run_id: UUID, **arguments: Any) -> Row:
    (event,) = engine.call("emit", run_id=run_id, **{"type": "progress", **arguments})
    return event


def test_an_event_is_appended_and_returned(engine: Engine) -> None:
    run_id = engine.enqueue()
    event = emit(engine, run_id, payload={"pct": 80}, idempotency_key="p-80")
    assert (event["event_no"], event["type"], event["key"]) == (2, "progress", "p-80")
    assert (event["payload"], event["at"], event["by"]) == ({"pct": 80}, engine.now, "postgres")
    line = engine.timeline(run_id)[-1]
    assert {name: line[name] for name in ("event_no", "type", "key", "payload", "by")} == {
        name: event[name] for name in ("event_no", "type", "key", "payload", "by")
    }


def test_events_are_numbered_without_a_gap(engine: Engine) -> None:
    run_id = engine.enqueue()
    numbers = [emit(engine, run_id)["event_no"] for _ in range(10)]
    assert numbers == list(range(2, 12))


def test_the_same_key_again_returns_the_first_event(engine: Engine) -> None:
    run_id = engine.enqueue()
    first = emit(engine, run_id, payload={"pct": 1}, idempotency_key="p")
    engine.later(seconds=1)
    before = engine.place.rows()
    assert emit(engine, run_id, type="other", payload={"pct": 2}, idempotency_key="p") == first
    assert engine.place.rows() == before


def test_without_a_key_each_call_is_an_event(engine: Engine) -> None:
    run_id = engine.enqueue()
    assert emit(engine, run_id) != emit(engine, run_id)


def test_a_key_belongs_to_its_run(engine: Engine) -> None:
    one, other = engine.enqueue(), engine.enqueue()
    emit(engine, one, idempotency_key="p")
    event = emit(engine, other, idempotency_key="p")
    assert (event["run_id"], event["event_no"]) == (other, 2)


@pytest.mark.parametrize("state", ["scheduled", "pending", "running", "waiting", "paused"])
def test_any_live_run_takes_events(engine: Engine, state: str) -> None:
    if state == "scheduled":
        run_id = engine.enqueue(run_at=engine.now + timedelta(hours=1))
    elif state == "waiting":
        run_id = engine.waiting()
    else:
        lease = engine.leased()
        run_id = lease.run_id
        if state == "pending":
            engine.release(lease)
        elif state == "paused":
            engine.call("pause", run_id=run_id)
    emit(engine, run_id)
    assert engine.types(run_id)[-1] == "progress"


def test_a_finished_run_returns_the_event_of_a_known_key(engine: Engine) -> None:
    lease = engine.leased()
    first = emit(engine, lease.run_id, idempotency_key="p")
    engine.complete(lease)
    assert emit(engine, lease.run_id, idempotency_key="p") == first


@pytest.mark.parametrize("key", ["new", None])
def test_a_finished_run_takes_no_new_event(engine: Engine, key: str | None) -> None:
    lease = engine.leased()
    engine.complete(lease)
    with engine.refused("PF202", "run_id"):
        emit(engine, lease.run_id, idempotency_key=key)


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    with engine.refused("PF102", "run_id"):
        emit(engine, uuid4())


def test_a_run_of_another_project_is_as_unknown(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    run_id = engine.enqueue()
    with engine.refused("PF102", "run_id"):
        emit(engine, run_id, project="acme")


def test_the_engines_own_types_cannot_be_forged(engine: Engine) -> None:
    run_id = engine.enqueue()
    types = [row["type"] for row in engine.rows("select type from pgflow.event_type")]
    assert {"run.completed", "step.completed", "task.resolved"} <= set(types)
    for kind in types:
        with engine.refused("PF101", "type"):
            emit(engine, run_id, type=kind)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", None),
        ("type", ""),
        ("type", "x" * 101),
        ("idempotency_key", ""),
        ("idempotency_key", "x" * 501),
        ("payload", {"text": "x" * 1_100_000}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_argument_is_refused_by_its_name(engine: Engine, field: str, value: object) -> None:
    run_id = engine.enqueue()
    with engine.refused("PF101", field):
        emit(engine, run_id, **{field: value})


def test_an_event_of_a_transaction_that_fails_leaves_no_gap(engine: Engine) -> None:
    run_id = engine.enqueue()
    with engine.conn.transaction(force_rollback=True):
        emit(engine, run_id)
    assert emit(engine, run_id)["event_no"] == 2
