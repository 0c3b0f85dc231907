"""What stages a race: sessions that hold, sessions that wait, and what must be true afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.sql.conftest import Engine, Lease, Row

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
PATIENCE = 20.0  # seconds after which a race is stuck
ENDS = {"run.completed", "run.failed", "run.cancelled", "run.aborted", "run.timed_out"}


def until(condition: Callable[[], T]) -> T:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < end, "this never became true"
        time.sleep(0.001)
    return answer


class Session(Engine):
    """Repeats a statement that an older snapshot could not do, as pgflow/_link.py does."""

    def rows(self, query: str, *values: object) -> list[Row]:
        """Run any SQL; in a transaction there is no repeating."""
        for _ in range(20):
            try:
                return super().rows(query, *values)
            except psycopg.errors.SerializationFailure:
                if self.conn.info.transaction_status is not TransactionStatus.IDLE:
                    raise
        raise AssertionError("never got through")


class Two(NamedTuple):
    """Two sessions of the same time and isolation level."""

    one: Session
    other: Session


@contextmanager
def held(who: Engine) -> Iterator[None]:
    """Let `who` hold its locks until the end of the block, and commit there."""
    who.conn.execute("begin")
    yield
    who.conn.execute("commit")


@contextmanager
def undone(who: Engine) -> Iterator[None]:
    """Let `who` hold its locks until the end of the block, and roll back there."""
    who.conn.execute("begin")
    yield
    who.conn.execute("rollback")


class Started(Protocol[T_co]):
    """Something that goes on in a thread."""

    def result(self) -> T_co:
        """Wait for its end and return what it returned, or raise what it raised."""


class Blocked(Protocol):
    """Starts `act` of `who` in a thread; returns when it waits for `by` and no sooner."""

    def __call__(self, who: Engine, act: Callable[[], T], *, by: Engine) -> Started[T]:
        """Start it."""


class Going(NamedTuple):
    """What was started."""

    future: Future[Any]
    who: Engine

    def result(self) -> Any:
        """Wait for its end."""
        return self.future.result(PATIENCE)


@contextmanager
def refused(sqlstate: str) -> Iterator[None]:
    """Expect this refusal."""
    with pytest.raises(psycopg.Error) as caught:
        yield
    assert (caught.value.sqlstate, str(caught.value)) == (sqlstate, str(caught.value))


def half_woken(engine: Engine, **more: Any) -> tuple[Lease, UUID]:
    """Lease a run that was woken by approval `a` while its task `b` is open; return that too."""
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True, **more)
    engine.approve(engine.task(run_id, "a"))
    lease = engine.lease_of(run_id, queues=[str(more.get("queue", "default"))])
    assert lease.body["news"] == 1
    return lease, engine.task(run_id, "b")


def keys(entries: list[Row] | None) -> set[str]:
    """Return the keys of journal entries."""
    return {entry["key"] for entry in entries or []}


def outcome(lines: list[Row]) -> str:
    """Return the outcome of a batch of one; complete says nothing of what is simply done."""
    (said,) = [str(line["outcome"]) for line in lines] or ["done"]
    return said


def check(engine: Engine, *run_ids: UUID) -> None:
    """Check what must be true of runs whatever they have been through."""
    for run_id in run_ids:
        types = engine.types(run_id)  # which checks that they are numbered without a gap
        state = engine.one("select * from pgflow.runs where run_id = %s", run_id)
        finished = state["finished_at"] is not None
        assert [t for t in types if t in ENDS] == (types[-1:] if finished else [])
        assert (
            engine.value(
                "select count(*) from pgflow.task where run_id = %s and state = 'open'"
                " and run_id not in (select run_id from pgflow.run)",
                run_id,
            )
            == 0
        )
