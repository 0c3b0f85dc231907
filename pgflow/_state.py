"""The state of a flow, as a step of it sees it and writes to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from pgflow._calls import Calls
from pgflow._json import dumps
from pgflow.errors import UnknownChannel

T = TypeVar("T")


class Writes(Generic[T]):
    """What a step returns that writes to channels of its flow as well.

    Example: `return Writes(draft, score=0.7, notes=["too long"])`.
    """

    def __init__(self, output: T, /, **channels: object) -> None:
        self.output = output
        self.channels = channels


class Values(Mapping[str, Any]):
    """The values of a flow's channels when the step became ready.

    A channel that nothing was written to has its default, else None.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, channel: str) -> Any:
        """Return the value of a channel. Raises UnknownChannel."""
        self.check(channel)
        return self._values[channel]

    def __contains__(self, channel: object) -> bool:
        """Return whether there is a channel of that name."""
        return channel in self._values

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the channels."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return how many channels there are."""
        return len(self._values)

    def check(self, channel: str) -> None:
        """Raise UnknownChannel if there is none of that name."""
        if channel not in self._values:
            known = ", ".join(sorted(self._values)) or "none"
            raise UnknownChannel(f"the flow has no channel {channel}; it has: {known}")


class State(Calls):
    """What a step reads of its flow's state, and adds to it."""

    _written: list[str] | None = None

    @property
    def state(self) -> Values:
        """The values of the flow's channels, as they were when this step became ready.

        Example: `ctx.state["score"]`.
        """
        flow = self.lease.more.get("flow") or {}
        return Values(flow.get("state") or {})

    def write(self, channel: str, value: object) -> None:
        """Write to a channel of the flow, when this step completes; its reducer says what it does.

        An execution that fails or is interrupted writes nothing. Raises UnknownChannel, NotJson.
        Example: `ctx.write("score", 0.7)`.
        """
        self.state.check(channel)
        if self._written is None:
            self._written = []
        self._written.append(
            dumps({"channel": channel, "value": value}, f"what is written to channel {channel}")
        )

    def writes(self) -> str | None:
        """Return what this execution wrote, as the json text that the database is sent."""
        return None if self._written is None else f"[{','.join(self._written)}]"
