"""What admins do with queues and with the history, as statements."""

from __future__ import annotations

from datetime import datetime, timedelta

from pgflow._statement import Statement, _int4, _value
from pgflow.models import Maintained


def define_queue(
    queue: str,
    *,
    max_concurrent: int | None = None,
    max_attempts: int = 3,
    timeout: timedelta | None = None,
    lease_ttl: timedelta = timedelta(seconds=60),
    retention: timedelta | None = None,
    key_retention: timedelta = timedelta(),
    project: str | None = None,
) -> Statement[None]:
    """Set all settings of a queue, those not given to their defaults. Raises BadRequest."""
    return Statement(
        b"select 1 from pgflow.define_queue(%(queue)s, %(max_concurrent)s::integer,"
        b" %(max_attempts)s::integer, %(timeout)s, %(lease_ttl)s, %(retention)s,"
        b" %(key_retention)s, %(project)s)",
        {
            "queue": queue,
            "max_concurrent": _int4(max_concurrent),
            "max_attempts": _int4(max_attempts),
            "timeout": timeout,
            "lease_ttl": lease_ttl,
            "retention": retention,
            "key_retention": key_retention,
            "project": project,
        },
        lambda _: None,
    )


def pause_queue(queue: str, *, project: str | None = None) -> Statement[datetime]:
    """Stop the claiming of a queue; returns since when. Raises UnknownQueue."""
    return Statement(
        b"select pgflow.pause_queue(%(queue)s, %(project)s)",
        {"queue": queue, "project": project},
        _value,
    )


def resume_queue(queue: str, *, project: str | None = None) -> Statement[bool]:
    """Let a paused queue be claimed again; False if it was not paused. Raises UnknownQueue."""
    return Statement(
        b"select pgflow.resume_queue(%(queue)s, %(project)s)",
        {"queue": queue, "project": project},
        _value,
    )


def set_retention(
    retention: timedelta | None = None, *, partition_width: timedelta = timedelta(days=7)
) -> Statement[None]:
    """Keep finished runs for so long, None for ever, in all projects. Raises BadRequest."""
    return Statement(
        b"select 1 from pgflow.set_retention(%(retention)s, %(partition_width)s)",
        {"retention": retention, "partition_width": partition_width},
        lambda _: None,
    )


def maintain() -> Statement[Maintained]:
    """Do one step of the upkeep of the whole installation: make partitions, drop, delete."""
    return Statement(
        b"select m.did, m.blocked, m.again_in from pgflow.maintain() as m",
        {},
        lambda rows: Maintained(**rows[0]),
    )
