"""An idle worker says so; only then does new work cost a hint."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, Look


def flagged(engine: Engine, worker_id: str = "w:1") -> list[str]:
    """Return the queues for which a worker says that it is idle."""
    rows = engine.rows(
        "select queue from pgflow.idle_worker where worker_id = %s order by 1", worker_id
    )
    return [row["queue"] for row in rows]


def for_long(look: Look) -> dict[str, Any]:
    """Return marks of a worker that has been idle for a second."""
    idle = look.marks["idle"]
    return {**look.marks, "idle": {**idle, "since": idle["since"] - 1}}


def a_second_later(look: Look) -> dict[str, Any]:
    """Return marks of a worker whose last look for what it passed by was a second ago."""
    return {**look.marks, "looked_at": look.marks["looked_at"] - 1}


def just_looked(look: Look) -> dict[str, Any]:
    """Return marks of a worker that has only now looked for what it passed by."""
    return {**look.marks, "looked_at": time.time(), "looked_back_at": time.time() + 0.5}


def flag(engine: Engine) -> Look:
    """Bring worker w:1 to where it says that it is idle."""
    look = engine.acquire(marks=for_long(engine.acquire()))
    assert flagged(engine) == ["default"]
    return look


def at_rest(engine: Engine) -> Look:
    """Bring worker w:1 to where it relies on hints."""
    look = flag(engine)
    for _ in range(1000):
        look = engine.acquire(marks=look.marks)
        if look.look_again_in > 1:
            return look
    raise AssertionError(look)


@pytest.fixture(autouse=True)
def worker(engine: Engine) -> None:
    engine.worker()


def test_a_worker_that_got_work_looks_again_at_once(engine: Engine) -> None:
    engine.enqueue()
    look = engine.acquire()
    assert (look.look_again_in, look.marks.get("idle")) == (0, None)


def test_the_first_empty_look_flags_nothing_and_waits_2_ms(engine: Engine) -> None:
    look = engine.acquire()
    assert (look.look_again_in, flagged(engine)) == (0.002, [])


def test_idle_for_50_ms_a_worker_flags_all_its_queues_and_looks_once_more(engine: Engine) -> None:
    look = engine.acquire(queues=["default", "other"])
    look = engine.acquire(marks=for_long(look), queues=["default", "other"])
    assert (look.look_again_in, flagged(engine)) == (0.001, ["default", "other"])


def test_after_the_flag_it_polls_until_all_older_transactions_have_ended(
    engine: Engine, connect: Connect
) -> None:
    slow = connect()
    with slow.conn.transaction():
        slow.value("select pg_current_xact_id()::text")
        look = flag(engine)
        waits = []
        for _ in range(6):
            look = engine.acquire(marks=look.marks)
            waits.append(look.look_again_in)
    assert waits == [0.02, 0.04, 0.08, 0.16, 0.25, 0.25]
    for _ in range(1000):
        look = engine.acquire(marks=look.marks)
        if look.look_again_in > 1:
            break
    assert look.look_again_in == 10


def test_work_of_a_transaction_that_did_not_see_the_flag_is_found_by_polling(
    engine: Engine, connect: Connect
) -> None:
    slow = connect()
    with slow.conn.transaction():
        run_id = slow.enqueue()  # looks for idle workers before there is one
        look = flag(engine)
        for _ in range(5):
            look = engine.acquire(marks=look.marks)
            assert look.look_again_in < 1
    assert engine.acquire(marks=look.marks).run_ids == [run_id]


def test_work_of_a_transaction_that_began_while_the_flag_was_committed_is_found_by_polling(
    engine: Engine, connect: Connect
) -> None:
    slow = connect()
    idle = for_long(engine.acquire())
    with slow.conn.transaction():
        with engine.conn.transaction():
            look = engine.acquire(marks=idle)  # the flag has its transaction id,
            run_id = slow.enqueue()  # this one a higher, and does not see the flag
        for _ in range(5):
            look = engine.acquire(marks=look.marks)
            assert look.look_again_in < 1
    assert engine.acquire(marks=look.marks).run_ids == [run_id]


def test_a_worker_that_does_not_listen_polls_and_is_never_flagged(engine: Engine) -> None:
    marks, waits = None, []
    for _ in range(6):
        look = engine.acquire(marks=marks, listening=False)
        marks = look.marks
        waits.append(look.look_again_in)
    assert waits == [0.02, 0.04, 0.08, 0.16, 0.25, 0.25]
    assert flagged(engine) == []


def test_one_run_that_a_hint_brought_does_not_end_idleness(engine: Engine) -> None:
    look = at_rest(engine)
    engine.enqueue()
    look = engine.acquire(marks=look.marks)
    assert len(look.leases) == 1
    assert flagged(engine) == ["default"]
    look = engine.acquire(marks=just_looked(look))
    assert look.look_again_in == 0.02  # something may have been passed by
    look = engine.acquire(marks=a_second_later(look))
    assert look.look_again_in >= 1
    for _ in range(1000):
        look = engine.acquire(marks=a_second_later(look))
        if look.look_again_in > 1:
            break
    assert (look.look_again_in, flagged(engine)) == (10, ["default"])


def test_a_worker_does_not_rest_while_a_run_that_was_locked_may_lie_below_its_mark(
    engine: Engine, connect: Connect
) -> None:
    look = at_rest(engine)
    locked, other = engine.enqueue(), engine.enqueue()
    with connect().conn.transaction(force_rollback=True) as tx:
        tx.connection.execute("select from pgflow.run where run_id = %s for update", [locked])
        look = engine.acquire(marks=look.marks)
        assert look.run_ids == [other]
    for _ in range(1000):
        look = engine.acquire(marks=just_looked(look))
        assert (look.leases, look.look_again_in) == ([], 0.02)
        look = engine.acquire(marks=a_second_later(look))
        if look.leases:
            break
    assert look.run_ids == [locked]


def test_a_second_look_that_finds_work_ends_idleness(engine: Engine) -> None:
    look = at_rest(engine)
    for _ in range(2):
        engine.enqueue()
        look = engine.acquire(marks=look.marks)
    assert (flagged(engine), look.marks.get("idle")) == ([], None)


def test_looks_that_find_work_now_and_then_keep_the_flag(engine: Engine) -> None:
    look = at_rest(engine)
    for _ in range(3):
        engine.enqueue()
        look = engine.acquire(marks=look.marks)
        look = engine.acquire(marks=look.marks)
    assert flagged(engine) == ["default"]


@pytest.mark.parametrize("due", ["run_at", "deadline", "task"])
def test_a_worker_sleeps_no_longer_than_until_something_is_due(engine: Engine, due: str) -> None:
    if due == "task":
        look = at_rest(engine)
        engine.waiting({"key": "ok", "due_in": 3})
    else:
        look = at_rest(engine)
        soon: dict[str, Any] = {due: engine.now + timedelta(seconds=3)}
        engine.enqueue(queue="other", **soon)
    assert engine.acquire(marks=look.marks).look_again_in == 3


def test_a_worker_that_stops_is_idle_no_more(engine: Engine) -> None:
    flag(engine)
    engine.call("stop_worker", worker_id="w:1")
    assert flagged(engine) == []


def test_a_dead_worker_is_idle_no_more(engine: Engine) -> None:
    flag(engine)
    engine.later(seconds=61)
    engine.tick()
    assert flagged(engine) == []


def test_a_worker_that_was_taken_for_dead_says_again_that_it_is_idle(engine: Engine) -> None:
    look = at_rest(engine)
    engine.later(seconds=61)
    engine.call("reap")  # by another worker, while this one was stopped
    assert flagged(engine) == []
    for _ in range(5):
        look = engine.acquire(marks=look.marks)
    assert flagged(engine) == ["default"]
