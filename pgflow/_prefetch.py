"""What a busy worker claims before it has a place for it, so that no place waits for a claim.

It is as much as ended within SECONDS at the pace of late: handlers of a millisecond get many, those
of a minute none. So what was claimed begins about SECONDS later, whatever the concurrency.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SECONDS = 0.05
# Where no place came free for so long, the pace has changed: what waits is given back.
PATIENCE = 0.25


class Prefetch(Generic[T]):
    """Keeps what waits for a place, and tells how much should.

    `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[T] = deque()
        self._size = 0
        self._ended = 0  # since `_since`
        self._since = self._moved = clock()

    def __len__(self) -> int:
        return len(self._waiting)

    def wanted(self) -> int:
        """Return how many to claim now: none until half of those that should wait are gone."""
        now = self._clock()
        elapsed = now - self._since
        if elapsed >= SECONDS:
            self._size = int(self._ended * SECONDS / elapsed)
            self._ended, self._since = 0, now
        missing = self._size - len(self._waiting)
        return missing if 2 * missing >= self._size else 0

    def add(self, item: T) -> None:
        """Have one more wait for a place."""
        self._waiting.append(item)
        self._moved = self._clock()

    def came_short(self) -> None:
        """Want none for a while: there was less than asked for."""
        self._size = self._ended = 0
        self._since = self._clock()

    def ended(self) -> None:
        """Note that a handler ended."""
        self._ended += 1
        self._moved = self._clock()

    def next(self) -> T | None:
        """Return what has waited longest, if anything has."""
        return self._waiting.popleft() if self._waiting else None

    def remove(self, item: T) -> None:
        """Forget one that waits."""
        self._waiting.remove(item)

    def overdue(self) -> list[T]:
        """Return all that wait, and keep none, if nothing has come or ended for PATIENCE."""
        return self.clear() if self._clock() - self._moved >= PATIENCE else []

    def clear(self) -> list[T]:
        """Return all that wait, and keep none."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting
