"""No hint is lost: whoever makes work ready is heard, or the idle worker is still polling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest

from tests.race.staging import held, until
from tests.sql.conftest import Connect, Engine, Look

Act = Callable[[Engine], object]
STEPS = ["it looks", "it flags itself", "it notes the time", "it polls", "it rests"]
POLLS = 0.25  # seconds: a longer sleep relies on the hint


class Ear:
    """A session that listens on the engine's channel."""

    def __init__(self, engine: Engine) -> None:
        self._conn = engine.conn
        self._heard: list[str] = []
        self._conn.add_notify_handler(self._hear)
        self._conn.execute("listen pgflow")

    def _hear(self, hint: psycopg.Notify) -> None:
        self._heard.append(hint.payload)

    def stop(self) -> None:
        """Give the session back as it was."""
        self._conn.remove_notify_handler(self._hear)

    def heard(self) -> bool:
        """Whether work was hinted at since the last question."""
        self._conn.execute("select 1")
        heard, self._heard[:] = self._heard[:], []
        return "work default default" in heard


@pytest.fixture
def ear(connect: Connect) -> Iterator[Ear]:
    ear = Ear(connect())
    yield ear
    ear.stop()


class Idler:
    """A worker that looks for work as pgflow's does, a step at a time."""

    def __init__(self, engine: Engine, ear: Ear) -> None:
        self.engine = engine
        self.ear = ear
        engine.worker("idle:1")
        self.look = engine.acquire(worker_id="idle:1")
        assert self.look.leases == []

    def step(self, name: str) -> None:
        """Go on until the step of that name, or as far as running transactions let it come."""
        steps = 1000 if name == "it rests" else 1
        for _ in range(steps):
            self._acquire(idle_for=1 if name == "it flags itself" else 0)
            if name != "it rests" or self.look.look_again_in > POLLS or self.held_back:
                return
        raise AssertionError(self.look)

    held_back = False

    def _acquire(self, idle_for: float = 0) -> Look:
        marks = self.look.marks
        if "idle" in marks:
            marks = {**marks, "idle": {**marks["idle"], "since": marks["idle"]["since"] - idle_for}}
        self.look = self.engine.acquire(worker_id="idle:1", marks=marks)
        return self.look

    def gets_it(self) -> bool:
        """Whether it takes what has become ready without sleeping for long."""
        for _ in range(1000):
            if self.look.leases:
                return True
            if self.look.look_again_in > POLLS and not self.ear.heard():
                return False
            self._acquire()
        return False


# ---- what makes a run ready: prepares the ground, and returns what does it


def _enqueue(_: Engine) -> Act:
    return lambda who: who.enqueue()


def _enqueue_many(_: Engine) -> Act:
    return lambda who: who.enqueue_many([{}, {}])


def _approve(engine: Engine) -> Act:
    task = engine.task(engine.waiting(worker_id="w:2"))
    return lambda who: who.approve(task)


def _resume(engine: Engine) -> Act:
    run_id = engine.enqueue()
    engine.call("pause", run_id=run_id)
    return lambda who: who.call("resume", run_id=run_id)


def _retry(engine: Engine) -> Act:
    run_id = engine.enqueue()
    engine.call("cancel", run_id=run_id)
    return lambda who: who.call("retry", run_id=run_id)


def _release(engine: Engine) -> Act:
    lease = engine.leased(worker_id="w:2")
    return lambda who: who.release(lease)


def _stop_worker(engine: Engine) -> Act:
    engine.leased(worker_id="w:2")
    return lambda who: who.call("stop_worker", worker_id="w:2")


def _promote(engine: Engine) -> Act:
    engine.enqueue(run_at=engine.now + timedelta(seconds=1))

    def promote(who: Engine) -> None:
        who.later(seconds=1)
        who.tick()

    return promote


def _resume_queue(engine: Engine) -> Act:
    engine.enqueue()
    engine.call("pause_queue", queue="default")
    return lambda who: who.call("resume_queue", queue="default")


def _define_queue(engine: Engine) -> Act:
    engine.call("define_queue", queue="default", max_concurrent=1)
    engine.leased(worker_id="w:2")
    engine.enqueue()
    return lambda who: who.call("define_queue", queue="default", max_concurrent=2)


VERBS: dict[str, Callable[[Engine], Act]] = {
    "enqueue": _enqueue,
    "enqueue_many": _enqueue_many,
    "approve": _approve,
    "resume": _resume,
    "retry": _retry,
    "release": _release,
    "stop_worker": _stop_worker,
    "promote": _promote,
    "resume_queue": _resume_queue,
    "define_queue": _define_queue,
}


@pytest.mark.parametrize("ends", range(5), ids=lambda n: f"ends after {STEPS[n]}")
@pytest.mark.parametrize("begins", range(5), ids=lambda n: f"begins before {STEPS[n]}")
@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_a_worker_gets_what_was_enqueued_while_it_went_idle(
    engine: Engine, connect: Connect, ear: Ear, level: str, begins: int, ends: int
) -> None:
    if begins > ends:
        pytest.skip("ends before it begins")
    client, idler = connect(), Idler(connect(), ear)
    for n, step in enumerate(STEPS):
        if n == begins:
            client.conn.execute(f"begin isolation level {level}")
            client.enqueue()
        idler.held_back = begins <= n <= ends and begins < 3
        idler.step(step)
        if n == ends:
            client.conn.execute("commit")
            break
    assert idler.gets_it()
    assert engine.value("select count(*) from pgflow.run where state = 'pending'") >= 0


@pytest.mark.parametrize(
    ("verb", "begins"),
    [
        (verb, begins)
        for verb in VERBS
        for begins in ("before it flags itself", "when it rests")
        # Whoever changes a limit holds the queue, and looks wait for that.
        if (verb, begins) != ("define_queue", "before it flags itself")
    ],
)
def test_a_worker_gets_whatever_became_ready_while_it_went_idle(
    engine: Engine, connect: Connect, ear: Ear, verb: str, begins: str
) -> None:
    who = connect()
    act = VERBS[verb](engine)
    idler = Idler(connect(), ear)
    if begins == "before it flags itself":
        with held(who):
            act(who)
            idler.held_back = True
            for step in STEPS[1:]:
                idler.step(step)
                assert idler.look.look_again_in <= POLLS
    else:
        for step in STEPS[1:]:
            idler.step(step)
        ear.heard()
        with held(who):
            act(who)
            assert not ear.heard()
    assert idler.gets_it()


def test_a_worker_gets_what_was_enqueued_while_its_flag_was_being_committed(
    connect: Connect, ear: Ear
) -> None:
    client, worker = connect(), connect()
    idler = Idler(worker, ear)
    client.conn.execute("begin")
    with held(worker):
        idler.step("it flags itself")
        client.enqueue()
    idler.held_back = True
    for step in STEPS[2:]:
        idler.step(step)
    client.conn.execute("commit")
    assert idler.gets_it()


def test_a_hint_is_sent_under_a_snapshot_that_is_older_than_the_flag(
    connect: Connect, ear: Ear
) -> None:
    client, idler = connect(), Idler(connect(), ear)
    client.conn.execute("begin isolation level repeatable read")
    client.value("select count(*) from pgflow.idle_worker")
    for step in STEPS[1:]:
        idler.step(step)
    client.enqueue()
    client.conn.execute("commit")
    assert idler.look.look_again_in > POLLS
    assert idler.gets_it()


# ---- a slot that becomes free


def _steer(verb: str) -> Callable[[Engine], Act]:
    def prepare(engine: Engine) -> Act:
        lease = engine.leased(worker_id="w:2")
        return lambda who: who.call(verb, run_id=lease.run_id)

    return prepare


def _stop(engine: Engine) -> Act:
    engine.leased(worker_id="w:2")
    return lambda who: who.call("stop_worker", worker_id="w:2")


def _end(verb: str) -> Callable[[Engine], Act]:
    def prepare(engine: Engine) -> Act:
        lease = engine.leased(worker_id="w:2")
        acts: dict[str, Act] = {
            "complete": lambda who: who.complete(lease),
            "fail": lambda who: who.fail(lease, retries=[False]),
            "backoff": lambda who: who.fail(lease),
            "misfit": lambda who: who.fail(lease, code="E-RUN-012"),
            "park": lambda who: who.park(lease),
        }
        return acts[verb]

    return prepare


FREES: dict[str, Callable[[Engine], Act]] = {
    **{verb: _end(verb) for verb in ("complete", "fail", "backoff", "misfit", "park")},
    **{verb: _steer(verb) for verb in ("cancel", "pause")},
    "stop_worker": _stop,
}


@pytest.mark.parametrize("how", FREES)
def test_an_idle_worker_gets_what_waited_for_a_slot_of_its_queue(
    engine: Engine, connect: Connect, ear: Ear, how: str
) -> None:
    engine.call("define_queue", queue="default", max_concurrent=1)
    act = FREES[how](engine)
    engine.enqueue()
    idler = Idler(connect(), ear)
    for step in STEPS[1:]:
        idler.step(step)
    ear.heard()
    act(connect())
    assert idler.gets_it()


def test_rest_is_reached(connect: Connect, ear: Ear) -> None:
    idler = Idler(connect(), ear)
    for step in STEPS[1:]:
        idler.step(step)
    assert idler.look.look_again_in > POLLS
    assert not idler.gets_it()
    until(lambda: not ear.heard())


# ---- what holds a ready run for a moment and leaves it ready


def _signal(engine: Engine) -> Act:
    run_id = engine.enqueue()
    return lambda who: who.call("signal", run_id=run_id, name="payment")


def _emit(engine: Engine) -> Act:
    run_id = engine.enqueue()
    return lambda who: who.call("emit", run_id=run_id, type="note")


def _approve_again(engine: Engine) -> Act:
    task = engine.task(engine.waiting(worker_id="w:2"))
    engine.approve(task)
    return lambda who: who.approve(task)


HOLDS = {"signal": _signal, "emit": _emit, "approve again": _approve_again}


@pytest.mark.parametrize("verb", HOLDS)
def test_a_worker_gets_a_ready_run_that_somebody_held_when_it_looked(
    engine: Engine, connect: Connect, ear: Ear, verb: str
) -> None:
    holder, idler = connect(), Idler(connect(), ear)
    for step in STEPS:
        idler.step(step)
    act = HOLDS[verb](engine)
    with held(holder):
        act(holder)
        assert ear.heard()
        assert idler._acquire().leases == []
    assert idler.gets_it()
