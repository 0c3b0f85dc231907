"""What admins do with queues, as statements."""

from __future__ import annotations

from datetime import datetime, timedelta

from pgflow._statement import Statement, _int4, _value


def define_queue(
    queue: str,
    *,
    max_concurrent: int | None = None,
    max_attempts: int = 3,
    timeout: timedelta | None = None,
    lease_ttl: timedelta = timedelta(seconds=60),
    project: str | None = None,
) -> Statement[None]:
    """Set all settings of a queue, those not given to their defaults. Raises BadRequest."""
    return Statement(
        b"select 1 from pgflow.define_queue(%(queue)s, %(max_concurrent)s::integer,"
        b" %(max_attempts)s::integer, %(timeout)s, %(lease_ttl)s, %(project)s)",
        {
            "queue": queue,
            "max_concurrent": _int4(max_concurrent),
            "max_attempts": _int4(max_attempts),
            "timeout": timeout,
            "lease_ttl": lease_ttl,
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
