"""marks: a claim goes on after the last run it took, and still finds whatever comes below."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Connect, Engine, Look

Marks = dict[str, Any]
JUST_NOW = -3600.0  # however slow the test is


def aged(marks: Marks, **seconds: float) -> Marks:
    """Return marks whose times lie so far back; JUST_NOW makes them young."""
    return {**marks, **{name: time.time() - ago for name, ago in seconds.items()}}


def group(look: Look, name: str = "default 0 1") -> tuple[int, int]:
    """Return a group's mark and low mark."""
    mark, low = look.marks["groups"][name]
    return mark, low


def seq(engine: Engine, run_id: UUID) -> int:
    return int(engine.row(run_id)["seq"])


def settled(engine: Engine, look: Look) -> Look:
    """Look until the last seq noted is below all running transactions, those of others included."""
    for _ in range(1000):
        look = engine.acquire(marks=aged(look.marks, looked_at=2, started_at=JUST_NOW))
        if group(look)[1] > 0:
            return look
    raise AssertionError(look.marks)


def test_the_mark_is_the_place_of_the_last_run_taken(engine: Engine) -> None:
    engine.worker()
    one, two, _ = engine.enqueue_many([{}] * 3)
    last = seq(engine, two)
    look = engine.acquire(2)
    assert look.run_ids == [one, two]
    assert group(look)[0] == last


def test_a_look_with_marks_finds_what_came_later(engine: Engine) -> None:
    engine.worker()
    first = engine.enqueue()
    look = engine.acquire()
    assert look.run_ids == [first]
    second = engine.enqueue()
    look = engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW))
    assert look.run_ids == [second]
    look = engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW))
    assert look.run_ids == []


def test_each_priority_and_lane_has_its_own_mark(engine: Engine) -> None:
    engine.worker()
    urgent, usual = engine.enqueue(priority=5), engine.enqueue()
    seqs = seq(engine, urgent), seq(engine, usual)
    look = engine.acquire()
    assert (group(look, "default 5 1")[0], group(look)[0]) == seqs
    engine.release(*look.leases[:1])
    again = seq(engine, urgent)
    look = engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW))
    assert look.run_ids == [urgent]
    assert group(look, "default 5 0")[0] == again


def test_a_straggler_is_found_by_a_later_look(engine: Engine, connect: Connect) -> None:
    slow = connect()
    engine.worker()
    with slow.conn.transaction():
        straggler = slow.enqueue()
        fast = engine.enqueue()
        look = engine.acquire()
        assert look.run_ids == [fast]
    between = engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW))
    assert between.run_ids == []  # which it would step over the dead entries to find
    assert engine.acquire(marks=aged(look.marks, looked_at=2)).run_ids == [straggler]


def test_whoever_got_less_than_asked_for_looks_back_for_what_was_late(
    engine: Engine, connect: Connect
) -> None:
    slow = connect()
    engine.worker()
    look = engine.acquire()
    with slow.conn.transaction():
        late = slow.enqueue()
        fast = engine.enqueue()
        look = engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW))
        assert look.run_ids == [fast]
    at_once = aged(look.marks, looked_at=JUST_NOW, looked_back_at=JUST_NOW)
    assert engine.acquire(marks=at_once).run_ids == []
    soon = aged(look.marks, looked_at=JUST_NOW, looked_back_at=0.02)
    assert engine.acquire(marks=soon).run_ids == [late]


def test_a_look_back_is_short(engine: Engine, connect: Connect) -> None:
    slow = connect()
    engine.worker()
    look = engine.acquire()
    with slow.conn.transaction():
        late = slow.enqueue()
        engine.enqueue_many([{}] * 5001)
        look = engine.acquire(6000, aged(look.marks, looked_at=JUST_NOW))
        assert len(look.run_ids) == 5001
    short = engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW, looked_back_at=1))
    assert short.run_ids == []
    assert engine.acquire(marks=aged(short.marks, looked_at=2)).run_ids == [late]


def test_whoever_got_all_it_asked_for_does_not_look_back(engine: Engine, connect: Connect) -> None:
    slow = connect()
    engine.worker()
    look = engine.acquire()
    with slow.conn.transaction():
        slow.enqueue()
        fast, later = engine.enqueue(), engine.enqueue()
        look = engine.acquire(1, aged(look.marks, looked_at=JUST_NOW))
        assert look.run_ids == [fast]
    marks = aged(look.marks, looked_at=JUST_NOW, looked_back_at=1)
    assert engine.acquire(1, marks).run_ids == [later]


def test_a_straggler_is_found_however_long_it_takes(engine: Engine, connect: Connect) -> None:
    slow = connect()
    engine.worker()
    engine.enqueue()
    look = engine.acquire()
    with slow.conn.transaction():
        straggler = slow.enqueue()
        for _ in range(5):
            engine.enqueue()
            look = engine.acquire(marks=aged(look.marks, looked_at=2, started_at=JUST_NOW))
            assert len(look.run_ids) == 1
        mark, low = group(look)
        assert low < seq(slow, straggler) < mark
    look = engine.acquire(marks=aged(look.marks, looked_at=2, started_at=JUST_NOW))
    assert look.run_ids == [straggler]


def test_the_low_mark_stays_below_what_a_running_transaction_has_drawn(
    engine: Engine, connect: Connect
) -> None:
    slow = connect()
    engine.worker()
    engine.enqueue()
    look = settled(engine, engine.acquire())
    with slow.conn.transaction():
        straggler = slow.enqueue()  # the newest transaction of all, which nothing follows
        for _ in range(5):
            look = engine.acquire(marks=aged(look.marks, looked_at=2, started_at=JUST_NOW))
            assert group(look)[1] < seq(slow, straggler)
    look = engine.acquire(marks=aged(look.marks, looked_at=2, started_at=JUST_NOW))
    assert look.run_ids == [straggler]


def test_the_low_mark_rises_when_all_older_transactions_have_ended(
    engine: Engine, connect: Connect
) -> None:
    slow = connect()
    engine.worker()
    with slow.conn.transaction(force_rollback=True):
        drawn = seq(slow, slow.enqueue())
        look = engine.acquire()
    assert group(settled(engine, look))[1] >= drawn


def test_a_reader_that_holds_a_snapshot_does_not_hold_the_low_mark_back(
    engine: Engine, connect: Connect
) -> None:
    reader = connect()
    engine.worker()
    engine.enqueue()
    with reader.conn.transaction():
        reader.conn.execute("set transaction isolation level repeatable read, read only")
        reader.rows("select count(*) from pgflow.run")
        assert group(settled(engine, engine.acquire()))[1] > 0


def test_a_batch_that_is_full_leaves_the_rest_above_the_low_mark(engine: Engine) -> None:
    engine.worker()
    run_ids = engine.enqueue_many([{}] * 6)
    look = engine.acquire(1)
    taken = list(look.run_ids)
    while look.run_ids:
        look = engine.acquire(1, aged(look.marks, looked_at=2, started_at=JUST_NOW))
        taken += look.run_ids
    assert taken == run_ids


def test_once_a_minute_a_look_starts_from_the_very_start(engine: Engine) -> None:
    engine.worker(queues=["default", "other"])
    run_id = engine.enqueue()
    look = engine.acquire(queues=["other"])  # notes the seq of the run
    for _ in range(1000):
        marks = aged(look.marks, looked_at=2, started_at=JUST_NOW)
        with engine.conn.transaction(force_rollback=True):
            look = engine.acquire(marks=marks, queues=["default", "other"])
            assert look.run_ids == [run_id]
        if group(look)[1] > 0:
            break
        look = engine.acquire(marks=marks, queues=["other"])
    # The claim was rolled back, but its worker kept the marks.
    assert group(look)[1] >= seq(engine, run_id)
    assert engine.acquire(marks=aged(look.marks, looked_at=2)).run_ids == []
    assert engine.acquire(marks=aged(look.marks, started_at=61)).run_ids == [run_id]


def test_a_new_worker_without_marks_finds_everything(engine: Engine) -> None:
    engine.worker()
    run_ids = engine.enqueue_many([{}] * 4)
    assert engine.acquire(2).run_ids == run_ids[:2]
    engine.worker("w:2")
    assert engine.acquire(worker_id="w:2", marks={}).run_ids == run_ids[2:]


def test_marks_are_given_back_whole(engine: Engine) -> None:
    engine.worker(queues=["default", "other"])
    engine.enqueue()
    look = engine.acquire()
    before = copy.deepcopy(look.marks["groups"])
    look = engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW), queues=["other"])
    assert before.items() <= look.marks["groups"].items()


def test_a_run_in_a_priority_never_seen_before_is_found(engine: Engine) -> None:
    engine.worker()
    engine.enqueue()
    look = settled(engine, engine.acquire())
    run_id = engine.enqueue(priority=-7)
    assert engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW)).run_ids == [run_id]


def test_a_reaped_run_is_found_by_a_worker_whose_marks_are_far_on(engine: Engine) -> None:
    lost = engine.leased(worker_id="w:1")
    engine.worker("w:2")
    engine.enqueue_many([{}] * 3)
    look = engine.acquire(worker_id="w:2")
    engine.later(seconds=61)
    engine.acquire(marks=look.marks, worker_id="w:2")
    look = engine.acquire(marks=aged(look.marks, looked_at=JUST_NOW), worker_id="w:2")
    run = engine.run(lost.run_id)
    assert (run["state"], run["worker_id"]) == ("running", "w:2")


def test_the_first_run_that_ever_was_is_found_by_a_worker_that_waited_for_it(dsn: str) -> None:
    """In a database whose sequence was never drawn from; the clones of `engine` have been used."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pgflow.register_worker('w:1', '{default}', 10)")
        marks: Marks = {}
        for _ in range(3):
            row = conn.execute(
                "select marks from pgflow.acquire('w:1', '{default}', 10, %s)",
                [Jsonb(aged(marks, looked_at=2, started_at=JUST_NOW) if marks else {})],
            ).fetchone()
            assert row is not None
            marks = row[0]
        conn.execute("select pgflow.enqueue('h')")
        found = conn.execute(
            "select json_array_length(runs) from pgflow.acquire('w:1', '{default}', 10, %s)",
            [Jsonb(marks)],
        ).fetchone()
    assert found == (1,)


def test_of_many_queues_only_those_with_ready_runs_are_taken_from(engine: Engine) -> None:
    queues = [f"q{n}" for n in range(40)]
    engine.worker(queues=queues)
    marks = aged(engine.acquire(queues=queues).marks, looked_at=JUST_NOW)
    runs = {engine.enqueue(queue="q7"), engine.enqueue(queue="q33", priority=3)}
    engine.conn.execute("set track_functions = 'all'")
    with engine.conn.transaction():
        taken = engine.acquire(queues=queues, marks=marks)
        calls = engine.value(
            "select pg_stat_get_xact_function_calls(oid) from pg_proc where proname = '_take'"
        )
    assert {lease.run_id for lease in taken.leases} == runs
    assert calls == 2


def test_a_look_moves_the_marks_of_those_of_many_queues_that_have_nothing(engine: Engine) -> None:
    queues = [f"q{n}" for n in range(40)]
    engine.worker(queues=queues)
    engine.enqueue(queue="q7")
    first = engine.acquire(queues=queues)
    assert len(first.leases) == 1
    look = first
    for _ in range(1000):
        marks = aged(look.marks, looked_at=2, started_at=JUST_NOW)
        look = engine.acquire(queues=queues, marks=marks)
        if group(look, "q3 0 1")[1] > 0:
            break
    assert group(look, "q3 0 1") == group(look, "q39 0 0")
    late = engine.enqueue(queue="q3")
    marks = aged(look.marks, looked_at=JUST_NOW)
    (lease,) = engine.acquire(queues=queues, marks=marks).leases
    assert lease.run_id == late
