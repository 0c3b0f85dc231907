"""Time in a test: it stands still until the test moves it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg


class Clock:
    """The clock of a test's database, for its clients and its workers alike.

    Time stands still from the beginning of the test, so that a backoff never passes by chance.
    It is the engine's time: `datetime.now()` in your code goes on, and so does the `timeout` of
    a handler, which a worker measures.

    Example: `scene.time.advance(hours=3)`.
    """

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._ahead: timedelta | None = timedelta()

    @property
    def now(self) -> datetime:
        """The time in the database."""
        return self._ask("select c.now from pgflow_testing.clock c")

    def advance(self, by: timedelta | None = None, /, **span: float) -> datetime:
        """Move time on, by a timedelta or by what timedelta takes, and return the new time.

        Until set() was called the new time is counted from the real one, not from where the clock
        stood, so that a time which your code computed with `datetime.now()` has come as well.
        Example: `scene.time.advance(minutes=5)`. Raises ValueError: time doesn't go back.
        """
        step = timedelta(**span) if by is None else by + timedelta(**span)
        if step < timedelta():
            raise ValueError(f"time goes on, not back by {-step}; set() takes any time")
        if self._ahead is None:
            return self._move("now + %s", step)
        self._ahead += step
        return self._move("greatest(now + %s, clock_timestamp() + %s)", step, self._ahead)

    def set(self, at: datetime | str) -> datetime:
        """Set the time, from which advance() then counts, and return it.

        `at` has a time zone; as a text it is ISO 8601. Times before the test's first run are fine.
        Example: `scene.time.set("2030-01-01T09:00:00Z")`. Raises ValueError.
        """
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
        if moment.tzinfo is None:
            raise ValueError(f"{moment.isoformat()} has no time zone")
        self._ahead = None
        return self._move("%s", moment)

    def _move(self, to: str, *values: object) -> datetime:
        return self._ask(f"update pgflow_testing.clock set now = {to} returning now", *values)  # noqa: S608 - only our own texts

    def _ask(self, statement: str, *values: object) -> datetime:
        row = self._conn.execute(statement.encode(), values).fetchone()
        if row is None or not isinstance(row[0], datetime):
            raise LookupError("the table pgflow_testing.clock has no row")
        return row[0]
