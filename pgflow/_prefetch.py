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
# What has waited for so long, since the pace has changed, is given back.
PATIENCE = 1.0


class Prefetch(Generic[T]):
    """Keeps what waits for a place, and tells how much should.

    `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Each with since when it waits.
        self._first: deque[tuple[float, T]] = deque()
        self._others: deque[tuple[float, T]] = deque()
        self._size = 0
        self._restart()

    def __len__(self) -> int:
        return len(self._first) + len(self._others)

    def wanted(self) -> int:
        """Return how many to claim now: none until half of those that should wait are gone."""
        elapsed = self._clock() - self._since
        if elapsed >= SECONDS:
            self._size = int(self._ended * SECONDS / elapsed)
            self._restart()
        missing = self._size - len(self)
        return missing if 2 * missing >= self._size else 0

    def add(self, item: T, *, first: bool = False) -> None:
        """Have one more wait for a place; `first`: before all others that are not."""
        (self._first if first else self._others).append((self._clock(), item))

    def came_short(self) -> None:
        """Want none for a while: there was less than asked for."""
        self._size = 0
        self._restart()

    def ended(self) -> None:
        """Note that a handler ended."""
        self._ended += 1

    def next(self) -> T | None:
        """Return what begins now, if anything waits."""
        waiting = self._first or self._others
        return waiting.popleft()[1] if waiting else None

    def remove(self, item: T) -> None:
        """Forget one that waits."""
        for waiting in (self._first, self._others):
            for each in waiting:
                if each[1] is item:
                    waiting.remove(each)
                    return

    def overdue(self) -> list[T]:
        """Return what has waited for PATIENCE, and keep it no more."""
        late = []
        for waiting in (self._first, self._others):
            while waiting and self._clock() - waiting[0][0] >= PATIENCE:
                late.append(waiting.popleft()[1])
        if late:
            self.came_short()
        return late

    def clear(self) -> list[T]:
        """Return all that wait, and keep none."""
        waiting = [item for _, item in (*self._first, *self._others)]
        self._first.clear()
        self._others.clear()
        return waiting

    def _restart(self) -> None:
        self._ended, self._since = 0, self._clock()
