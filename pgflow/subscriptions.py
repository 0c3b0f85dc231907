"""What those call who follow the events of all runs of a project, as statements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pgflow._statement import Statement, _int4, _value
from pgflow.models import Delivery


def subscribe(
    subscription: str,
    types: Sequence[str] | None = None,
    *,
    queue: str | None = None,
    correlation_id: str | None = None,
    from_position: str | None = None,
    project: str | None = None,
) -> Statement[str]:
    """Make a subscription, or set the filters of one that is there; returns where it stands.

    A new one begins with what is done from now on, or behind `from_position`. Raises BadRequest.
    """
    return Statement(
        b"select pgflow.subscribe(%(subscription)s, %(types)s::text[], queue => %(queue)s,"
        b" correlation_id => %(correlation_id)s, from_position => %(from_position)s,"
        b" project => %(project)s)",
        {
            "subscription": subscription,
            "types": None if types is None else list(types),
            "queue": queue,
            "correlation_id": correlation_id,
            "from_position": from_position,
            "project": project,
        },
        _value,
    )


def unsubscribe(subscription: str, *, project: str | None = None) -> Statement[bool]:
    """End a subscription; False if there was none."""
    return Statement(
        b"select pgflow.unsubscribe(%(subscription)s, %(project)s)",
        {"subscription": subscription, "project": project},
        _value,
    )


def next_events(
    subscription: str,
    reader: str | None = None,
    max_events: int = 100,
    hold: timedelta = timedelta(seconds=60),
    *,
    project: str | None = None,
) -> Statement[list[Delivery]]:
    """Return the next events, held for `reader` (default: the connection) until acknowledged.

    Nothing while another reader holds some and was heard of within its `hold`.
    Raises BadRequest, UnknownSubscription.
    """
    return Statement(
        b"select * from pgflow.next_events(%(subscription)s, %(reader)s, %(max_events)s::integer,"
        b" %(hold)s, %(project)s)",
        {
            "subscription": subscription,
            "reader": reader,
            "max_events": _int4(max_events),
            "hold": hold,
            "project": project,
        },
        lambda rows: [Delivery(**row) for row in rows],
    )


def acknowledge(
    subscription: str, batch_no: int, up_to: str | None = None, *, project: str | None = None
) -> Statement[bool]:
    """Say that a batch, or what of it stands before `up_to`, is dealt with; again is a no-op.

    Raises BadRequest, UnknownSubscription, BatchLost.
    """
    return Statement(
        b"select pgflow.acknowledge(%(subscription)s, %(batch_no)s::integer, %(up_to)s,"
        b" %(project)s)",
        {
            "subscription": subscription,
            "batch_no": _int4(batch_no),
            "up_to": up_to,
            "project": project,
        },
        _value,
    )


def release_events(
    subscription: str, batch_no: int, *, project: str | None = None
) -> Statement[bool]:
    """Give back what is not acknowledged of a batch; False if all is.

    Raises UnknownSubscription, BatchLost.
    """
    return Statement(
        b"select pgflow.release_events(%(subscription)s, %(batch_no)s::integer, %(project)s)",
        {"subscription": subscription, "batch_no": _int4(batch_no), "project": project},
        _value,
    )
