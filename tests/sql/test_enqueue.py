"""enqueue: nothing -> pending, or scheduled."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine

DAY = timedelta(days=1)


def new_id(engine: Engine, age: timedelta = timedelta()) -> UUID:
    """Return a UUID of version 7 as a client may make it, so old."""
    millis = int(engine.value("select extract(epoch from clock_timestamp() - %s) * 1000", age))
    return UUID(f"{millis:012x}7{secrets.token_hex(2)[1:]}8{secrets.token_hex(8)[1:]}")


def test_a_run_is_pending_with_what_was_given(engine: Engine) -> None:
    given: dict[str, Any] = {
        "input": {"to": "a@b.c"},
        "queue": "mail",
        "priority": -9,
        "max_attempts": 7,
        "timeout": timedelta(minutes=1),
        "deadline": engine.now + DAY,
        "correlation_id": "c-1",
        "tags": ["a", "b"],
    }
    run = engine.run(engine.enqueue("send", **given))
    assert {name: run[name] for name in given} == given
    assert (run["handler"], run["state"], run["attempt_count"]) == ("send", "pending", 0)
    assert (run["created_at"], run["created_by"]) == (engine.now, "postgres")


def test_what_is_not_given_comes_from_the_handlers_registration(engine: Engine) -> None:
    engine.call(
        "define_queue", queue="slow", max_attempts=9, timeout=timedelta(hours=9), lease_ttl=DAY
    )
    said = {"handler": "send", "queue": "slow", "max_attempts": 5, "timeout": 30}
    engine.worker(handlers=[said])
    run = engine.run(engine.enqueue("send"))
    assert (run["queue"], run["max_attempts"]) == ("slow", 5)
    assert run["timeout"] == timedelta(seconds=30)


def test_what_the_handler_does_not_say_comes_from_the_queue(engine: Engine) -> None:
    engine.call("define_queue", queue="slow", max_attempts=9, timeout=timedelta(hours=9))
    engine.worker(handlers=[{"handler": "send", "queue": "slow"}])
    run = engine.run(engine.enqueue("send"))
    assert (run["queue"], run["max_attempts"]) == ("slow", 9)
    assert run["timeout"] == timedelta(hours=9)


def test_a_queue_that_is_given_overrules_the_handlers(engine: Engine) -> None:
    engine.call("define_queue", queue="mail", max_attempts=2)
    engine.worker(handlers=[{"handler": "send", "queue": "slow"}])
    run = engine.run(engine.enqueue("send", queue="mail"))
    assert (run["queue"], run["max_attempts"]) == ("mail", 2)


def test_a_handler_that_nobody_registered_gets_the_defaults(engine: Engine) -> None:
    run = engine.run(engine.enqueue("nobody's"))
    assert (run["queue"], run["max_attempts"], run["priority"]) == ("default", 3, 0)
    assert (run["timeout"], run["deadline"], run["input"]) == (None, None, {})


def test_a_queue_is_made_when_it_is_first_used(engine: Engine) -> None:
    engine.enqueue(queue="new one")
    queue = engine.queue_stats("new one")
    assert (queue["pending"], queue["max_attempts"], queue["max_concurrent"]) == (1, 3, None)
    assert queue["lease_ttl"] == timedelta(seconds=60)


def test_a_time_to_come_makes_the_run_scheduled(engine: Engine) -> None:
    run = engine.run(engine.enqueue(run_at=engine.now + timedelta(seconds=1)))
    assert (run["state"], run["run_at"]) == ("scheduled", engine.now + timedelta(seconds=1))


@pytest.mark.parametrize("ago", [timedelta(), DAY])
def test_a_time_that_has_come_makes_the_run_pending(engine: Engine, ago: timedelta) -> None:
    assert engine.state(engine.enqueue(run_at=engine.now - ago)) == "pending"


def test_the_input_null_is_kept_and_none_is_an_empty_object(engine: Engine) -> None:
    assert engine.run(engine.enqueue(input=None))["input"] == {}
    run_id = engine.value("select pgflow.enqueue('h', 'null')")
    assert engine.value("select input::text from pgflow.run where run_id = %s", run_id) == "null"


def test_the_digest_of_the_input_is_that_of_its_canonical_text(engine: Engine) -> None:
    one = engine.value("""select pgflow.enqueue('h', '{"a":1,  "b": 2.0}')""")
    other = engine.value("""select pgflow.enqueue('h', '{"b": 2.0, "a": 1}')""")
    assert engine.run(one)["input_sha256"] == engine.run(other)["input_sha256"]
    assert len(engine.run(one)["input_sha256"]) == 64


def test_a_rollback_of_the_caller_leaves_nothing(engine: Engine) -> None:
    before = engine.place.rows()
    with engine.conn.transaction(force_rollback=True):
        run_id = engine.enqueue(queue="new one", idempotency_key="order-1")
        assert engine.state(run_id) == "pending"
    assert engine.place.rows() == before


def test_nobody_sees_the_run_before_the_caller_commits(engine: Engine, connect: Connect) -> None:
    other = connect()
    other.worker()
    with engine.conn.transaction():
        run_id = engine.enqueue()
        assert other.acquire().leases == []
    assert other.acquire().run_ids == [run_id]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_the_caller_may_use_any_isolation(engine: Engine, isolation: str) -> None:
    with engine.conn.transaction():
        engine.conn.execute(f"set transaction isolation level {isolation}")
        run_ids = [engine.enqueue(queue="new"), engine.enqueue(idempotency_key="order-1")]
        assert engine.enqueue(idempotency_key="order-1") == run_ids[1]
    assert [engine.state(run_id) for run_id in run_ids] == ["pending", "pending"]


# ---- bad arguments


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("handler", None),
        ("handler", ""),
        ("handler", "x" * 201),
        ("queue", ""),
        ("queue", "x" * 101),
        ("priority", None),
        ("priority", 10),
        ("priority", -10),
        ("priority", 2_000_000_000),
        ("max_attempts", 0),
        ("max_attempts", -1),
        ("max_attempts", 1001),
        ("timeout", timedelta()),
        ("timeout", timedelta(seconds=-1)),
        ("timeout", timedelta(days=30, seconds=1)),
        ("idempotency_key", ""),
        ("idempotency_key", "x" * 501),
        ("idempotency_key", "pgflow:retry:1"),
        ("correlation_id", ""),
        ("correlation_id", "x" * 201),
        ("tags", ["x"] * 51),
        ("tags", ["x" * 101]),
        ("tags", ["a", None]),
        ("tags", [["a", "b"], ["c", "d"]]),
        ("run_id", UUID("00000000-0000-0000-0000-000000000000")),
        ("run_id", UUID("16fd2706-8baf-433b-82eb-8c7fada847da")),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_bad_argument_is_refused_by_its_name(engine: Engine, field: str, value: object) -> None:
    with engine.refused("PF101", field):
        engine.call("enqueue", **{"handler": "h", "queue": "new", field: value})


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_an_input_over_its_limit_is_refused_by_its_name(engine: Engine) -> None:
    with engine.refused("PF101", "input"):
        engine.enqueue(input={"text": secrets.token_hex(4_200_000)})


def test_a_deadline_that_has_passed_is_refused(engine: Engine) -> None:
    with engine.refused("PF101", "deadline"):
        engine.enqueue(deadline=engine.now)


@pytest.mark.parametrize("age", [timedelta(days=1, hours=1), timedelta(minutes=-10)])
def test_a_run_id_too_old_or_of_the_future_is_refused(engine: Engine, age: timedelta) -> None:
    with engine.refused("PF101", "run_id"):
        engine.enqueue(run_id=new_id(engine, age))


def test_an_unknown_project_is_refused(engine: Engine) -> None:
    with engine.refused("PF502", "project"):
        engine.enqueue(project="nobody's")


def test_an_input_that_is_no_json_is_refused_and_changes_nothing(engine: Engine) -> None:
    before = engine.place.rows()
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        engine.rows("select pgflow.enqueue('h', '{nonsense')")
    assert engine.place.rows() == before


def test_a_queue_of_a_handlers_registration_is_as_good_as_one_given(engine: Engine) -> None:
    with engine.refused("PF101", "handlers"):
        engine.worker(handlers=[{"handler": "send", "queue": "x" * 101}])


@pytest.mark.parametrize("field", ["run_at", "deadline"])
def test_a_time_without_end_is_refused(engine: Engine, field: str) -> None:
    with engine.refused("PF101", field):
        engine.enqueue(**{field: "infinity"})


@pytest.mark.parametrize("time", ["20000-01-01", "0044-03-15 BC", "-infinity"])
def test_a_time_that_no_client_could_read_is_refused(engine: Engine, time: str) -> None:
    with engine.refused("PF101", "run_at"):
        engine.enqueue(run_at=time)


def test_a_queue_made_meanwhile_gets_the_priority_of_an_older_snapshot(
    engine: Engine, connect: Connect
) -> None:
    other = connect()
    engine.conn.execute("set default_transaction_isolation to 'repeatable read'")
    run_ids = [other.enqueue(queue="other")]
    try:
        with engine.conn.transaction():
            engine.value("select count(*) from pgflow.run")
            run_ids.append(other.enqueue(queue="brand new"))
            run_ids.append(engine.enqueue(queue="brand new", priority=5))
    except psycopg.errors.SerializationFailure:
        run_ids = run_ids[:2]
    other.worker(queues=["brand new"])
    assert set(other.acquire(queues=["brand new"]).run_ids) == set(run_ids[1:])


# ---- the same again


def test_the_same_key_returns_the_same_run(engine: Engine) -> None:
    run_id = engine.enqueue(input={"a": 1}, idempotency_key="order-1")
    assert engine.enqueue(input={"a": 1}, idempotency_key="order-1") == run_id
    assert engine.value("select count(*) from pgflow.run where idempotency_key = 'order-1'") == 1


def test_a_key_holds_after_the_run_is_finished(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue(idempotency_key="order-1")
    engine.complete(engine.lease_of(run_id))
    assert engine.enqueue(idempotency_key="order-1") == run_id
    assert engine.state(run_id) == "completed"


def test_a_key_holds_whatever_else_is_said_the_second_time(engine: Engine) -> None:
    run_id = engine.enqueue(idempotency_key="order-1")
    again = engine.enqueue(idempotency_key="order-1", queue="mail", priority=5, tags=["late"])
    assert again == run_id
    assert engine.run(run_id)["priority"] == 0


@pytest.mark.parametrize("other", [{"input": {"a": 2}}, {"handler": "g"}])
def test_the_same_key_for_other_work_is_refused(engine: Engine, other: dict[str, Any]) -> None:
    engine.enqueue(input={"a": 1}, idempotency_key="order-1")
    with engine.refused("PF401", "idempotency_key"):
        engine.enqueue(**{"input": {"a": 1}, "idempotency_key": "order-1", **other})


def test_a_key_that_was_rolled_back_is_free(engine: Engine) -> None:
    with engine.conn.transaction(force_rollback=True):
        engine.enqueue(input={"a": 1}, idempotency_key="order-1")
    run_id = engine.enqueue(input={"a": 2}, idempotency_key="order-1")
    assert engine.run(run_id)["input"] == {"a": 2}


def test_a_key_belongs_to_its_project(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    ours = engine.enqueue(input={"a": 1}, idempotency_key="order-1")
    theirs = engine.enqueue(input={"a": 2}, idempotency_key="order-1", project="acme")
    assert engine.run(ours)["project_id"] == "default"
    assert engine.run(theirs)["project_id"] == "acme"


def test_a_run_gets_the_id_that_it_is_given(engine: Engine) -> None:
    run_id = new_id(engine)
    assert engine.enqueue(run_id=run_id) == run_id
    assert engine.state(run_id) == "pending"


def test_the_same_run_id_for_the_same_work_is_the_same_run(engine: Engine) -> None:
    run_id = new_id(engine)
    engine.worker()
    engine.enqueue(run_id=run_id, input={"a": 1})
    assert engine.enqueue(run_id=run_id, input={"a": 1}) == run_id
    engine.complete(engine.lease_of(run_id))
    assert engine.enqueue(run_id=run_id, input={"a": 1}) == run_id
    assert engine.state(run_id) == "completed"


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("other", [{"input": {"a": 2}}, {"handler": "g"}])
def test_the_same_run_id_for_other_work_is_refused(
    engine: Engine, other: dict[str, Any], *, finished: bool
) -> None:
    run_id = new_id(engine)
    engine.worker()
    engine.enqueue(run_id=run_id)
    if finished:
        engine.complete(engine.lease_of(run_id))
    with engine.refused("PF401", "run_id"):
        engine.enqueue(**{"run_id": run_id, **other})


@pytest.mark.parametrize("finished", [False, True])
def test_a_new_key_does_not_make_a_second_run_of_a_used_run_id(
    engine: Engine, *, finished: bool
) -> None:
    run_id = new_id(engine)
    engine.worker()
    engine.enqueue(run_id=run_id)
    if finished:
        engine.complete(engine.lease_of(run_id))
    with engine.refused("PF401", "run_id"):
        engine.enqueue(run_id=run_id, input={"a": 2}, idempotency_key="order-1")


def test_a_key_and_a_run_id_again_are_the_same_run(engine: Engine) -> None:
    run_id = new_id(engine)
    given: dict[str, Any] = {"run_id": run_id, "idempotency_key": "order-1"}
    assert engine.enqueue(**given) == engine.enqueue(**given) == run_id


def test_a_key_with_another_run_id_is_refused(engine: Engine) -> None:
    engine.enqueue(run_id=new_id(engine), idempotency_key="order-1")
    with engine.refused("PF401", "idempotency_key"):
        engine.enqueue(run_id=new_id(engine), idempotency_key="order-1")
