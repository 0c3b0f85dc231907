"""Counts the calls of handlers, and tells a file ten times a second.

It is imported by the drivers of all peers, in environments of their own: nothing here may need
more than the standard library.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def now() -> int:
    """Return microseconds of the clock that all processes of a machine share."""
    return time.monotonic_ns() // 1000


class Recorder:
    """Handlers call `hit`; the lines of `path` hold how often, when, and how late."""

    def __init__(self, path: str | None) -> None:
        self._count = 0
        self._first: int | None = None
        self._last: int | None = None
        self._latencies: list[float] = []
        if path:
            threading.Thread(target=self._tell, args=[Path(path)], daemon=True).start()

    def hit(self, payload: Mapping[str, Any] | None = None) -> None:
        """Count a call; a payload that says when it was sent gives a latency as well."""
        self._last = now()
        if self._first is None:
            self._first = self._last
        self._count += 1
        if payload is not None and "sent" in payload:
            self._latencies.append((self._last - payload["sent"]) / 1000)

    def _tell(self, path: Path) -> None:
        told = 0
        with path.open("a", buffering=1) as file:
            while True:
                latencies = self._latencies[told:]
                told += len(latencies)
                line = {
                    "at": now(),
                    "count": self._count,
                    "first": self._first,
                    "last": self._last,
                    "latencies": latencies,
                }
                file.write(json.dumps(line) + "\n")
                time.sleep(0.1)
