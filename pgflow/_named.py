"""What is known of a handler wherever it is enqueued."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol


class Named(Protocol):
    """A handler's name and settings, as `App.handler` returns them."""

    @property
    def name(self) -> str:
        """The handler's name in the database."""

    @property
    def queue(self) -> str:
        """The queue of its runs."""

    @property
    def max_attempts(self) -> int | None:
        """How often a run is executed at most; None: as its queue says."""

    @property
    def timeout(self) -> timedelta | None:
        """The bound of one execution; None: as its queue says."""
