"""Staged races: one session holds what the other needs, and is let go when the other waits for it.

The databases and the engine's verbs are those of tests/sql: every race is run twice, in a database
with nothing in it and in one with the remains of earlier runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.race.staging import Blocked, Going, Session, Started, T, Two, until
from tests.sql.conftest import (
    Connect,
    Engine,
    connect,
    db,
    dsn,
    engine,
    fresh,
    make_role,
    place,
    used,
)

__all__ = ["connect", "db", "dsn", "engine", "fresh", "make_role", "place", "used"]


@pytest.fixture
def blocked(connect: Connect) -> Iterator[Blocked]:
    """Return a starter of what must wait for another session's lock."""
    watch = connect()
    started: list[Going] = []
    with ThreadPoolExecutor(8) as threads:

        def blocked(who: Engine, act: Callable[[], T], *, by: Engine) -> Started[T]:
            going = Going(threads.submit(act), who)
            started.append(going)

            def waits() -> bool:
                if going.future.done():
                    raise AssertionError(f"did not wait, but came to {going.result()}")
                pids = by.conn.info.backend_pid, who.conn.info.backend_pid
                return bool(watch.value("select %s = any (pg_blocking_pids(%s))", *pids))

            until(waits)
            return going

        yield blocked
        for going in started:
            if not going.future.done():
                watch.rows("select pg_terminate_backend(%s)", going.who.conn.info.backend_pid)


@pytest.fixture(params=["read committed", "repeatable read"])
def level(request: pytest.FixtureRequest) -> str:
    """Return the isolation level of this test."""
    return str(request.param)


@pytest.fixture
def two(level: str, connect: Connect) -> Two:
    """Return two sessions of an isolation level, which repeat what a concurrent one undid."""
    two = Two(*(Session(e.conn, e.place, e.now) for e in (connect(), connect())))
    for session in two:
        session.conn.execute(f"set default_transaction_isolation to '{level}'")
    return two
