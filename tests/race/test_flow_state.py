"""Steps of one flow that write to the same channels at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg

from tests.race.staging import Blocked, Two, held
from tests.sql.flows import define, ready, step, values, wrote

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine

CHANNELS = {"sum": {"reducer": "add"}, "all": {"reducer": "append"}}


def began(engine: Engine, many: int) -> UUID:
    names = [f"s{n}" for n in range(many)]
    define(engine, *(step(name) for name in names), step("last", *names), channels=CHANNELS)
    run_id: UUID = engine.tell("start", flow="f")
    return run_id


def test_of_two_firings_neither_loses_what_the_other_wrote(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = began(engine, 2)
    leases = ready(engine)
    with held(one):
        wrote(one, leases["s1"], sum=1, all="s1")
        writing = blocked(other, lambda: wrote(other, leases["s0"], sum=10, all="s0"), by=one)
    assert writing.result() == []
    assert values(engine, run_id) == {"sum": 11, "all": ["s1", "s0"]}
    rows = engine.call("history", run_id=run_id)
    assert [(row["number"], row["steps"]) for row in rows] == [(1, ["s1"]), (2, ["s0"])]
    assert list(ready(engine)) == ["last"]


def test_values_that_a_person_replaces_and_a_step_writes_are_both_kept(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = began(engine, 2)
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    with held(one):
        one.call("resume", run_id=run_id, command={"update": {"sum": 100}})
        writing = blocked(other, lambda: wrote(other, leases["s0"], sum=1), by=one)
    assert writing.result() == []
    assert values(engine, run_id)["sum"] == 101


def test_writes_of_many_sessions_add_up(engine: Engine, connect: Connect) -> None:
    run_id = began(engine, 40)
    leases = list(ready(engine).values())
    sessions = [connect() for _ in range(4)]
    raised: list[BaseException] = []

    def end(n: int) -> None:
        try:
            for m, lease in list(enumerate(leases))[n::4]:
                wrote(sessions[n], lease, sum=m, all=m)
        except psycopg.Error as error:
            raised.append(error)

    threads = [threading.Thread(target=end, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []
    told = values(engine, run_id)
    assert (told["sum"], sorted(told["all"])) == (sum(range(40)), list(range(40)))
    assert [row["number"] for row in engine.call("history", run_id=run_id)] == list(range(1, 41))
