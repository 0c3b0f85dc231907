"""watch: whoever asks is told of each new line of a run's timeline, and nobody else pays.

The hints are those of tests/sql/test_hints.py; here only the ones about runs count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.sql.conftest import Engine, Row

if TYPE_CHECKING:
    from tests.sql.conftest import Connect

LIVE = [
    *("scheduled", "pending", "running", "waiting_tool", "waiting_approval", "waiting_event"),
    "paused",
]


class Ear:
    """A session that listens for hints about runs."""

    def __init__(self, engine: Engine, kind: str = "run") -> None:
        self._kind = f"{kind} "
        self._conn = engine.conn
        self._heard: list[str] = []
        self._conn.add_notify_handler(self._hear)
        self._conn.execute("listen pgflow")

    def _hear(self, hint: psycopg.Notify) -> None:
        if hint.payload.startswith(self._kind):
            self._heard.append(hint.payload)

    def stop(self) -> None:
        """Give the session back as it was."""
        self._conn.remove_notify_handler(self._hear)

    def heard(self) -> list[str]:
        """Return what was heard since the last question, each hint once."""
        self._conn.execute("select 1")
        heard, self._heard[:] = self._heard[:], []
        return list(dict.fromkeys(heard))


@pytest.fixture
def ear(connect: Connect) -> Iterator[Ear]:
    ear = Ear(connect())
    yield ear
    ear.stop()


def hint(run_id: UUID, project: str = "default", *, ended: bool = False) -> str:
    return f"run {project} {run_id}" + " ended" * ended


@pytest.mark.parametrize("state", LIVE)
def test_a_live_run_is_watched_and_its_state_returned(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    before = engine.row(run_id)
    assert engine.tell("watch", run_id=run_id) == state
    assert engine.row(run_id) == {**before, "watched": True}


def test_again_is_a_no_op_that_writes_nothing(engine: Engine) -> None:
    run_id = engine.enqueue()
    engine.call("watch", run_id=run_id)
    place = "select ctid::text, xmin::text from pgflow.run where run_id = %s"
    before = engine.one(place, run_id)
    assert engine.tell("watch", run_id=run_id) == "pending"
    assert engine.one(place, run_id) == before


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "timeout"])
def test_a_finished_run_returns_its_end_and_nothing_changes(engine: Engine, how: str) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(seconds=9))
    if how == "completed":
        engine.complete(lease)
    elif how == "failed":
        engine.fail(lease, retries=[False])
    elif how == "cancelled":
        engine.call("cancel", run_id=lease.run_id)
    else:
        engine.later(seconds=9)
        engine.tick()
    before = engine.place.rows()
    assert engine.tell("watch", run_id=lease.run_id) == how
    assert engine.place.rows() == before


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    with engine.refused("PF102", "run_id"):
        engine.call("watch", run_id=uuid4())


def test_a_run_of_another_project_is_as_unknown(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    run_id = engine.enqueue()
    with engine.refused("PF102", "run_id"):
        engine.call("watch", run_id=run_id, project="acme")


def _steps(engine: Engine, run_id: UUID) -> None:
    lease = engine.lease_of(run_id)
    engine.record_steps(lease, a="1", b="2")


def _parked(engine: Engine, run_id: UUID) -> UUID:
    engine.park(engine.lease_of(run_id))
    return engine.task(run_id)


def _approve(engine: Engine, run_id: UUID) -> None:
    engine.approve(_parked(engine, run_id))


def _reject(engine: Engine, run_id: UUID) -> None:
    engine.reject(_parked(engine, run_id))


def _expire(engine: Engine, run_id: UUID) -> None:
    engine.park(engine.lease_of(run_id), {"key": "ok", "due_in": 1})
    engine.later(seconds=2)
    engine.tick()


def _reap(engine: Engine, run_id: UUID) -> None:
    engine.lease_of(run_id)
    engine.worker("w:2")
    engine.later(seconds=61)
    engine.beat(worker_id="w:2")
    engine.tick()


def _deadline(engine: Engine, run_id: UUID) -> None:
    assert engine.row(run_id)
    engine.later(hours=2)
    engine.tick()


def _resume(engine: Engine, run_id: UUID) -> None:
    engine.call("pause", run_id=run_id)
    engine.call("resume", run_id=run_id)


Way = Callable[[Engine, UUID], object]
WAYS: dict[str, tuple[str, Way]] = {
    "emit": ("seen", lambda e, r: e.call("emit", run_id=r, type="seen")),
    "lease": ("run.started", lambda e, r: e.lease_of(r)),
    "step": ("step.completed", _steps),
    "complete": ("run.completed", lambda e, r: e.complete(e.lease_of(r))),
    "fail": ("run.failed", lambda e, r: e.fail(e.lease_of(r), retries=[False])),
    "retry": ("run.retried", lambda e, r: e.fail(e.lease_of(r))),
    "release": ("run.released", lambda e, r: e.release(e.lease_of(r))),
    "stop_worker": (
        "run.released",
        lambda e, r: (e.lease_of(r), e.call("stop_worker", worker_id="w:1")),
    ),
    "reap": ("run.requeued", _reap),
    "park": ("run.waiting", _parked),
    "approve": ("run.woken", _approve),
    "reject": ("run.cancelled", _reject),
    "expire": ("run.cancelled", _expire),
    "cancel": ("run.cancelled", lambda e, r: e.call("cancel", run_id=r)),
    "deadline": ("run.timed_out", _deadline),
    "pause": ("run.paused", lambda e, r: e.call("pause", run_id=r)),
    "resume": ("run.resumed", _resume),
}


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "not watched"])
@pytest.mark.parametrize("how", WAYS)
def test_whatever_adds_a_line_hints_if_the_run_is_watched(
    engine: Engine, ear: Ear, how: str, *, watched: bool
) -> None:
    last, way = WAYS[how]
    engine.worker()
    run_id = engine.enqueue(deadline=engine.now + timedelta(hours=1))
    if watched:
        engine.call("watch", run_id=run_id)
    assert ear.heard() == []

    seen = [len(engine.timeline(run_id))]

    class Told(Engine):
        """Looks after each statement whether there are new lines, and who was told."""

        def rows(self, query: str, *values: object) -> list[Row]:
            rows = super().rows(query, *values)
            seen.append(len(engine.timeline(run_id)))
            new = watched and seen[-1] > seen[-2]
            heard = ear.heard()
            assert {each.removesuffix(" ended") for each in heard} == (
                {hint(run_id)} if new else set()
            )
            ended = new and engine.run(run_id)["finished_at"] is not None
            assert (hint(run_id, ended=True) in heard) == ended
            return rows

    way(Told(engine.conn, engine.place, engine.now), run_id)
    assert engine.types(run_id)[-1] == last


def test_the_hint_comes_when_the_line_is_committed(engine: Engine, ear: Ear) -> None:
    run_id = engine.enqueue()
    engine.call("watch", run_id=run_id)
    with engine.conn.transaction():
        engine.call("emit", run_id=run_id, type="seen")
        assert ear.heard() == []
    assert ear.heard() == [hint(run_id)]
    with engine.conn.transaction(force_rollback=True):
        engine.call("emit", run_id=run_id, type="seen")
    assert ear.heard() == []


def test_in_a_batch_only_the_watched_runs_are_hinted_at(engine: Engine, ear: Ear) -> None:
    runs = engine.enqueue_many([{}] * 5)
    engine.call("watch", run_id=runs[1])
    engine.call("watch", run_id=runs[3])
    wanted = {hint(runs[1]), hint(runs[3])}
    engine.worker()
    leases = engine.acquire().leases
    assert set(ear.heard()) == wanted
    engine.complete(*leases)
    assert set(ear.heard()) == {f"{each} ended" for each in wanted}


def test_a_batch_that_is_tried_by_halves_hints_at_what_was_written(
    engine: Engine, ear: Ear
) -> None:
    runs = engine.enqueue_many([{}] * 4)
    for run_id in runs:
        engine.call("watch", run_id=run_id)
    engine.worker()
    leases = engine.acquire().leases
    ear.heard()
    engine.complete(*leases, outputs=["1", '"\\u0000"', "3", "4"])
    assert set(ear.heard()) == {hint(run_id, ended=True) for run_id in runs}
    assert sorted(map(engine.state, runs)) == ["completed", "completed", "completed", "failed"]


def test_the_hint_names_the_project(engine: Engine, ear: Ear) -> None:
    engine.tell("create_project", project="acme")
    run_id = engine.enqueue(project="acme")
    engine.call("watch", run_id=run_id, project="acme")
    engine.call("cancel", run_id=run_id, project="acme")
    assert ear.heard() == [hint(run_id, "acme", ended=True)]


def test_a_retry_is_not_watched(engine: Engine) -> None:
    run_id = engine.enqueue()
    engine.call("watch", run_id=run_id)
    engine.call("cancel", run_id=run_id)
    assert not engine.row(engine.tell("retry", run_id=run_id))["watched"]


def test_a_reader_may_watch(engine: Engine, connect: Connect) -> None:
    run_id = engine.enqueue()
    with (reader := connect()).acting_as("pgflow_reader"):
        assert reader.tell("watch", run_id=run_id) == "pending"


def test_a_claim_that_came_while_a_run_was_marked_is_hinted_at(
    engine: Engine, connect: Connect
) -> None:
    # A claim skips what is locked, and then an idle worker would sleep.
    engine.worker()
    run_id = engine.enqueue()
    engine.conn.execute("insert into pgflow.idle_worker values ('default', 'default', 'w:1')")
    listener = connect().conn
    heard: list[str] = []
    listener.add_notify_handler(handler := lambda n: heard.append(n.payload))
    listener.execute("listen pgflow")
    other = connect()
    with engine.conn.transaction():
        engine.call("watch", run_id=run_id)
        assert other.acquire().leases == []
    listener.execute("select 1")
    listener.remove_notify_handler(handler)
    assert heard == ["work default default"]
    assert other.lease_of(run_id).lease_no == 1


def test_every_function_that_numbers_a_line_tells_those_who_watch(engine: Engine) -> None:
    rows = engine.rows(
        "select proname, prosrc from pg_proc where pronamespace = 'pgflow'::regnamespace"
    )
    numbers = re.compile(r"\blast_event_no = |\bdelete from pgflow\.run r\b")
    # _open_wait and its like write the lines that _park_held counts, and tell.
    tells = re.compile(
        r"\bpgflow\.(?:_events?|_hint_watchers|_open_wait|_open_task|_request_task|_void_tasks"
        r"|_add_checkpoint|_save_checkpoints)\("
    )
    writers = {row["proname"] for row in rows if numbers.search(row["prosrc"])}
    silent = {
        row["proname"]
        for row in rows
        if row["proname"] in writers and not tells.search(row["prosrc"])
    } - {"_fork_steps"}  # of a new run, which nobody watches yet
    assert {"_emit", "_lease", "_end", "_record_step", "_pause"} <= writers
    assert silent == set()


# ---- the inbox


@pytest.fixture
def inbox(connect: Connect) -> Iterator[Ear]:
    ear = Ear(connect(), "inbox")
    yield ear
    ear.stop()


def asked(engine: Engine) -> tuple[UUID, UUID]:
    """Return a new run and the task that it waits for."""
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    return run_id, engine.task(run_id)


IN_THE_INBOX: dict[str, Callable[[Engine, UUID, UUID], object]] = {
    "a decision": lambda engine, _, task: engine.approve(task),
    "a rejection": lambda engine, _, task: engine.reject(task),
    "a claim": lambda engine, _, task: engine.call("claim_task", task_id=task),
    "a delegation": lambda engine, _, task: engine.call("delegate", task_id=task, assignee="ann"),
    "the end of the run": lambda engine, run_id, _: engine.call("cancel", run_id=run_id),
    "its due time": lambda engine, *_: (engine.later(seconds=60), engine.tick()),
}


def test_a_new_task_is_hinted_at_for_as_long_as_somebody_asked(engine: Engine, inbox: Ear) -> None:
    asked(engine)
    assert inbox.heard() == []
    until = engine.tell("watch_inbox")
    assert until == engine.now + timedelta(minutes=5)
    asked(engine)
    assert inbox.heard() == ["inbox default"]
    engine.later(minutes=5)
    asked(engine)
    assert inbox.heard() == []


@pytest.mark.parametrize("kind", ["form", "input", "interrupt", "breakpoint"])
def test_whatever_a_person_is_asked_is_hinted_at(engine: Engine, inbox: Ear, kind: str) -> None:
    engine.tell("watch_inbox")
    wait = {"kind": kind, "key": "breakpoint/before/a", "form": {}, "when": "before"}
    engine.park(engine.leased(), wait)
    assert inbox.heard() == ["inbox default"]


@pytest.mark.parametrize("what", IN_THE_INBOX)
def test_what_changes_the_inbox_is_hinted_at(engine: Engine, inbox: Ear, what: str) -> None:
    run_id, task = asked(engine)
    engine.tell("watch_inbox")
    assert inbox.heard() == []
    IN_THE_INBOX[what](engine, run_id, task)
    assert inbox.heard() == ["inbox default"]


def test_what_people_are_not_asked_is_not_hinted_at(engine: Engine, inbox: Ear) -> None:
    engine.tell("watch_inbox")
    lease = engine.leased()
    engine.call("emit", run_id=lease.run_id, type="note")
    engine.park(lease, {"kind": "event", "key": "e", "name": "e"})
    engine.call("signal", run_id=lease.run_id, name="e")
    assert inbox.heard() == []


def test_the_inbox_of_another_project_is_another(engine: Engine, inbox: Ear) -> None:
    engine.tell("create_project", project="acme")
    engine.tell("watch_inbox", project="acme")
    asked(engine)
    assert inbox.heard() == []


def test_asking_again_soon_writes_nothing_and_later_goes_on(engine: Engine) -> None:
    until = engine.tell("watch_inbox")
    before = engine.place.rows()
    engine.later(minutes=2)
    assert engine.tell("watch_inbox") == until
    assert engine.place.rows() == before
    engine.later(minutes=1)
    assert engine.tell("watch_inbox") == engine.now + timedelta(minutes=5)
