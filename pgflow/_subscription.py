"""How to follow a subscription: what to ask next, and how long to sleep. No input or output."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Protocol

from pgflow import subscriptions
from pgflow._statement import RunId, Statement
from pgflow._waiting import THROWN, Ask, Leave, Nap, Steps, naps, passes
from pgflow.errors import BatchLost
from pgflow.models import Delivery


def deliver(
    subscribe: Statement[str],
    subscription: str,
    *,
    max_events: int,
    hold: timedelta,
    project: str | None,
) -> Steps[Delivery]:
    """Bring event after event, for ever. One is acknowledged when the next is asked for.

    Raises BadRequest, UnknownSubscription.
    """
    reader, known, waits = secrets.token_hex(8), False, naps()
    while True:
        try:
            if not known:
                yield Ask(subscribe)
                known = True
            asked = subscriptions.next_events(
                subscription, reader, max_events, hold, project=project
            )
            batch = yield Ask(asked)
            if batch:
                waits = naps()
                yield from _hand_over(subscription, batch, hold, project)
                continue
        except THROWN as error:
            if not known or not (isinstance(error, BatchLost) or passes(error)):
                raise
        yield Nap(None, next(waits))


def _hand_over(
    subscription: str, batch: Sequence[Delivery], hold: timedelta, project: str | None
) -> Steps[Delivery]:
    """Bring the events of a batch, and a sign of life now and then while that takes long."""
    done: Delivery | None = None
    told_at = monotonic()
    try:
        for event in batch:
            if done is not None and monotonic() - told_at > hold.total_seconds() / 3:
                told_at = monotonic()
                yield Ask(_acknowledged(subscription, done, project))
            yield event
            done = event
        yield Ask(subscriptions.acknowledge(subscription, batch[0].batch_no, project=project))
    except Leave:
        # What cannot be given back now, another reader gets when the hold is over.
        with suppress(*THROWN):
            if done is not None:
                yield Ask(_acknowledged(subscription, done, project))
            yield Ask(
                subscriptions.release_events(subscription, batch[0].batch_no, project=project)
            )
        raise


def _acknowledged(subscription: str, event: Delivery, project: str | None) -> Statement[bool]:
    return subscriptions.acknowledge(subscription, event.batch_no, event.position, project=project)


class _CarriesOut(Protocol):
    def _carry_out(
        self, run_id: RunId | None, steps: Steps[Delivery]
    ) -> Generator[Delivery, None, None]: ...


class _AsyncCarriesOut(Protocol):
    def _carry_out(
        self, run_id: RunId | None, steps: Steps[Delivery]
    ) -> AsyncGenerator[Delivery, None]: ...


class Follows:
    """What sync clients can follow."""

    def subscribe(
        self: _CarriesOut,
        subscription: str,
        types: Sequence[str] | None = None,
        *,
        queue: str | None = None,
        correlation_id: str | None = None,
        from_position: str | None = None,
        max_events: int = 100,
        hold: timedelta = timedelta(seconds=60),
        project: str | None = None,
    ) -> Generator[Delivery, None, None]:
        """Yield the events of all runs, in one order, for ever, from where the name was left.

        Made on first use, it begins with what is done from then on, or behind `from_position`. An
        event counts as dealt with when the next is asked for: after a crash some come again, up to
        `max_events`. Of several readers of one name one gets events; another takes over when it
        leaves, or was not heard of for `hold`. Raises BadRequest.
        """
        made = subscriptions.subscribe(
            subscription,
            types,
            queue=queue,
            correlation_id=correlation_id,
            from_position=from_position,
            project=project,
        )
        return self._carry_out(
            None, deliver(made, subscription, max_events=max_events, hold=hold, project=project)
        )


class AsyncFollows:
    """What async clients can follow."""

    def subscribe(
        self: _AsyncCarriesOut,
        subscription: str,
        types: Sequence[str] | None = None,
        *,
        queue: str | None = None,
        correlation_id: str | None = None,
        from_position: str | None = None,
        max_events: int = 100,
        hold: timedelta = timedelta(seconds=60),
        project: str | None = None,
    ) -> AsyncGenerator[Delivery, None]:
        """Yield the events of all runs, in one order, for ever, from where the name was left.

        As Client.subscribe. Use contextlib.aclosing, so that what is left of a batch is given back
        at once.
        """
        made = subscriptions.subscribe(
            subscription,
            types,
            queue=queue,
            correlation_id=correlation_id,
            from_position=from_position,
            project=project,
        )
        return self._carry_out(
            None, deliver(made, subscription, max_events=max_events, hold=hold, project=project)
        )
