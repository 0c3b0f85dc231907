"""NOTIFY is a hint: sent where somebody waits for it, and after the work is written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine

WORK = "work default default"


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

    def heard(self) -> list[str]:
        """Return what was heard since the last question."""
        self._conn.execute("select 1")
        heard, self._heard[:] = self._heard[:], []
        return heard


@pytest.fixture
def ear(connect: Connect) -> Iterator[Ear]:
    ear = Ear(connect())
    yield ear
    ear.stop()


@pytest.fixture
def idle(engine: Engine) -> None:
    """Have a worker that says it is idle."""
    engine.worker()
    engine.conn.execute("insert into pgflow.idle_worker values ('default', 'default', 'w:1')")


def test_no_hint_is_sent_while_nobody_is_idle(engine: Engine, ear: Ear) -> None:
    engine.enqueue()
    assert ear.heard() == []


@pytest.mark.usefixtures("idle")
def test_an_idle_worker_hears_of_new_work_when_it_is_committed(engine: Engine, ear: Ear) -> None:
    with engine.conn.transaction():
        engine.enqueue()
        assert ear.heard() == []
    assert ear.heard() == [WORK]


@pytest.mark.usefixtures("idle")
def test_many_runs_are_one_hint(engine: Engine, ear: Ear) -> None:
    with engine.conn.transaction():
        engine.enqueue_many([{}] * 10)
        engine.enqueue()
    assert ear.heard() == [WORK]


@pytest.mark.usefixtures("idle")
def test_work_of_another_queue_or_project_is_not_hinted(engine: Engine, ear: Ear) -> None:
    engine.tell("create_project", project="acme")
    engine.enqueue(queue="other")
    engine.enqueue(project="acme")
    assert ear.heard() == []


def test_under_an_older_snapshot_the_hint_is_always_sent(engine: Engine, ear: Ear) -> None:
    engine.conn.execute("set default_transaction_isolation to 'repeatable read'")
    engine.enqueue()
    assert ear.heard() == [WORK]


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("how", ["approve", "release", "resume", "promote", "reap", "resume_queue"])
def test_whatever_makes_a_run_ready_hints(engine: Engine, ear: Ear, how: str) -> None:
    if how == "approve":
        task_id = engine.task(engine.waiting())
    elif how == "resume":
        run_id = engine.enqueue()
        engine.call("pause", run_id=run_id)
    elif how == "resume_queue":
        engine.call("pause_queue", queue="default")
    else:
        lease = engine.leased(worker_id="w:2")
    ear.heard()
    if how == "approve":
        engine.approve(task_id)
    elif how == "resume":
        engine.call("resume", run_id=run_id)
    elif how == "resume_queue":
        engine.call("resume_queue", queue="default")
    elif how == "release":
        engine.release(lease)
    elif how == "promote":
        engine.fail(lease)
        ear.heard()
        engine.later(seconds=2)
        engine.tick()
    else:
        engine.later(seconds=61)
        engine.beat()
        engine.tick()
    assert ear.heard() == [WORK]


@pytest.mark.parametrize("how", ["cancel", "pause", "deadline"])
def test_a_worker_whose_run_is_taken_away_is_told_to_beat(
    engine: Engine, ear: Ear, how: str
) -> None:
    lease = engine.leased(deadline=engine.now + timedelta(seconds=9))
    if how == "deadline":
        engine.later(seconds=9)
        engine.tick()
    else:
        engine.call(how, run_id=lease.run_id)
    assert ear.heard() == ["beat default w:1"]


def test_a_run_that_nobody_holds_is_taken_away_in_silence(engine: Engine, ear: Ear) -> None:
    engine.call("cancel", run_id=engine.enqueue())
    engine.call("pause", run_id=engine.enqueue())
    assert ear.heard() == []
