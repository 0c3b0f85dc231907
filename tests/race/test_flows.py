"""Steps of one flow that end at once, and whoever steers the flow meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest

from tests.race.staging import Blocked, Two, held
from tests.sql.flows import (
    define,
    finish,
    gate,
    ready,
    started,
    states,
    step,
    step_run,
    task_of,
)
from tests.sql.waits import event

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, Lease

DIAMOND = (step("a"), step("b"), step("c", "a", "b"))


def test_two_that_define_the_same_flow_make_one_version(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    one, other = connect(), connect()
    with held(one):
        first = define(one, step("a"), name="new")
        defining = blocked(other, lambda: define(other, step("a"), name="new"), by=one)
    assert defining.result() == first
    assert engine.value("select count(*) from pgflow.flows where flow = 'new'") == 1


def test_two_that_define_different_flows_of_a_name_make_two_versions(
    engine: Engine, connect: Connect, blocked: Blocked
) -> None:
    one, other = connect(), connect()
    with held(one):
        define(one, step("a"), name="new")
        defining = blocked(other, lambda: define(other, step("b"), name="new"), by=one)
    assert defining.result()["version"] == 2
    assert engine.value("select version from pgflow.flow where flow = 'new'") == 2


def test_steps_that_end_at_once_make_the_step_that_needs_both_ready_once(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, *DIAMOND)
    leases = ready(engine)
    with held(one):
        one.complete(leases["a"], output="1")
        ending = blocked(other, lambda: other.complete(leases["b"], output="2"), by=one)
    assert ending.result() == []
    assert ready(engine)["c"].body["input"] == {"a": 1, "b": 2}
    assert engine.value("select count(*) from pgflow.runs where parent_run_id = %s", run_id) == 3
    engine.timeline(run_id)


def test_a_step_that_ends_while_its_flow_is_cancelled_is_cancelled(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, *DIAMOND)
    leases = ready(engine)
    with held(one):
        one.call("cancel", run_id=run_id)
        ending = blocked(other, lambda: other.complete(leases["a"]), by=one)
    assert ending.result()[0]["outcome"] == "lost"
    assert set(states(engine, run_id).values()) == {"cancelled"}


def test_a_flow_that_is_paused_while_a_step_ends_begins_no_other(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, step("a"), step("b", "a"))
    leases = ready(engine)
    with held(one):
        one.complete(leases["a"])
        pausing = blocked(other, lambda: other.call("pause", run_id=run_id), by=one)
    pausing.result()
    assert ready(engine) == {}
    engine.call("resume", run_id=run_id)
    assert finish(engine) == [["b"]]
    assert engine.state(run_id) == "completed"


def test_a_step_that_ends_while_its_flow_is_resumed_counts_once(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    run_id = started(engine, *DIAMOND)
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    engine.complete(leases["a"])
    with held(one):
        one.call("resume", run_id=run_id)
        ending = blocked(other, lambda: other.complete(leases["b"]), by=one)
    assert ending.result() == []
    assert finish(engine) == [["c"]]
    assert engine.state(run_id) == "completed"


def test_a_step_that_fails_does_not_wait_for_one_that_somebody_holds(
    engine: Engine, two: Two
) -> None:
    one, other = two
    run_id = started(engine, *DIAMOND)
    leases = ready(engine)
    with held(one):
        one.record_steps(leases["a"], k="1")
        other.fail(leases["b"], retries=[False])
        assert other.state(run_id) == "failed"
    engine.later(seconds=2)
    engine.tick()
    assert engine.state(leases["a"].run_id) == "cancelled"


def test_of_two_that_send_a_flow_back_one_wins(engine: Engine, two: Two, blocked: Blocked) -> None:
    one, other = two
    run_id = started(engine, step("a"), gate("x", "a"), gate("y", "a"))
    finish(engine)
    tasks = [task_of(engine, run_id, name) for name in "xy"]
    with held(one):
        one.reject(tasks[0], rollback_to="a")
        sending = blocked(other, lambda: other.reject(tasks[1], rollback_to="a"), by=one)
    with pytest.raises(psycopg.Error) as refused:
        sending.result()
    assert refused.value.sqlstate == "PF202"
    assert engine.row(run_id)["round"] == 1
    assert finish(engine) == [["a"]]
    assert engine.state(run_id) == "waiting_approval"


# ---- every verb against every other


class Scene:
    """A flow whose steps are leased, waiting for a person and for a signal; and one to retry."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        steps = ("a", "b", "ask", "hear")
        self.flow = started(
            engine,
            *(step(name) for name in steps),
            step("first"),
            step("gate", "first", type="approval_gate"),
            step("event", type="wait_event"),
            step("end", *steps),
        )
        leases = ready(engine)
        engine.complete(leases["first"])
        engine.park(leases["ask"])
        engine.park(leases["hear"], event())
        self.task = engine.task(leases["ask"].run_id)
        self.hear = leases["hear"].run_id
        self.gate = engine.value(
            "select task_id from pgflow.inbox where flow_run_id = %s and step = 'gate'", self.flow
        )
        self.leases = [leases["b"], leases["a"]]
        define(engine, step("x", on_failure="continue"), step("y", "x"), name="g")
        self.ended = engine.tell("start", flow="g")
        engine.call("cancel", run_id=self.ended)

    def clean_up(self) -> None:
        """Leave nothing that lives, a step that its flow left behind included."""
        self.engine.rows(
            "select pgflow.cancel(run_id) from pgflow.run"
            " where handler in ('f', 'g') or step is not null"
        )


Verb = Callable[["Engine", Scene], object]
VERBS: dict[str, Verb] = {
    "complete": lambda engine, scene: engine.complete(*scene.leases),
    "complete one by one": lambda engine, scene: [engine.complete(x) for x in scene.leases],
    "fail": lambda engine, scene: engine.fail(*scene.leases, retries=[False, False]),
    "release": lambda engine, scene: engine.release(*scene.leases),
    "record_step": lambda engine, scene: _steps(engine, scene.leases),
    "approve": lambda engine, scene: engine.approve(scene.task),
    "reject": lambda engine, scene: engine.reject(scene.task),
    "approve a gate": lambda engine, scene: engine.approve(scene.gate),
    "reject a gate": lambda engine, scene: engine.reject(scene.gate),
    "send back": lambda engine, scene: engine.reject(scene.gate, rollback_to="first"),
    "abort at a gate": lambda engine, scene: engine.call("abort", task_id=scene.gate),
    "signal the flow": lambda engine, scene: engine.call("signal", run_id=scene.flow, name="event"),
    "signal": lambda engine, scene: engine.call("signal", run_id=scene.hear, name="pay"),
    "cancel": lambda engine, scene: engine.call("cancel", run_id=scene.flow),
    "pause": lambda engine, scene: engine.call("pause", run_id=scene.flow),
    "resume": lambda engine, scene: engine.call("resume", run_id=scene.flow),
    "stop": lambda engine, scene: engine.call("set_breakpoint", run_id=scene.flow, step="end"),
    "go to": lambda engine, scene: _go_to(engine, scene.flow, "end"),
    "pause a step": lambda engine, scene: engine.call("pause", run_id=scene.hear),
    "cancel a step": lambda engine, scene: engine.call("cancel", run_id=scene.hear),
    "retry": lambda engine, scene: engine.call("retry", run_id=scene.ended),
    "start": lambda engine, _: [engine.call("start", flow=name) for name in "gf"],
    "define": lambda engine, _: [define(engine, step("a"), step("z"), name=n) for n in "gf"],
    "acquire": lambda engine, _: engine.acquire(),
    "tick": lambda engine, _: engine.tick(),
}


def _steps(engine: Engine, leases: list[Lease]) -> object:
    ids: list[UUID] = [lease.run_id for lease in leases]
    return engine.call(
        "record_step",
        run_ids=ids,
        lease_nos=[lease.lease_no for lease in leases],
        keys=["k"] * 2,
        digests=["aa"] * 2,
        values=["1"] * 2,
    )


def _go_to(engine: Engine, run_id: UUID, name: str) -> object:
    engine.call("pause", run_id=run_id)
    return engine.call("resume", run_id=run_id, command={"goto": name})


def _against(scene: Scene, sessions: tuple[Engine, Engine], verbs: tuple[str, str]) -> list[str]:
    """Call two verbs at once; return the SQLSTATEs of what was raised."""
    start = threading.Barrier(2)
    raised: list[str] = []

    def call(verb: str, engine: Engine) -> None:
        start.wait()
        try:
            VERBS[verb](engine, scene)
        except psycopg.Error as error:
            raised.append(error.sqlstate or str(error))

    threads = [threading.Thread(target=call, args=x) for x in zip(verbs, sessions, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_and_any_other_never_deadlock(engine: Engine, connect: Connect, verb: str) -> None:
    names = list(VERBS)
    sessions = connect(), connect()
    for against, _ in itertools.product(names[names.index(verb) :], range(2)):
        scene = Scene(engine)
        raised = _against(scene, sessions, (verb, against))
        assert [code for code in raised if not code.startswith("PF")] == [], (verb, against)
        engine.timeline(scene.flow)
        scene.clean_up()


def test_a_flow_ends_right_whatever_order_its_steps_end_in(
    engine: Engine, connect: Connect
) -> None:
    names = [f"s{n}" for n in range(40)]
    run_id = started(engine, *(step(name) for name in names), step("last", *names))
    leases = list(ready(engine).values())
    sessions = [connect() for _ in range(4)]
    raised: list[BaseException] = []

    def end(n: int) -> None:
        try:
            for lease in leases[n::4]:
                sessions[n].complete(lease, output=f'"{n}"')
        except psycopg.Error as error:
            raised.append(error)

    threads = [threading.Thread(target=end, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []
    assert finish(engine) == [["last"]]
    assert set(engine.run(step_run(engine, run_id, "last"))["input"]) == set(names)
    assert engine.state(run_id) == "completed"
    assert len(engine.timeline(run_id)) == 3 + 2 * 41
