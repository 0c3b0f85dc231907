"""The upkeep of the installation: partitions made, what is past its retention taken away."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import psycopg
import structlog

from pgflow import queues
from pgflow._link import Link
from pgflow.errors import PgflowError

_log = structlog.get_logger("pgflow")

_AFTER_A_FAILURE: Final = timedelta(minutes=1)
# Seconds. To analyze a large history takes a while, and so may a queue for its locks.
_PATIENCE: Final = 1800


async def maintain(dsn: str) -> None:
    """Call the verb as often as it says, until cancelled.

    On a connection for each round, so that neither claims nor reports wait for it. What fails is
    logged, and tried again: work goes on for as long as there are partitions, and doctor counts
    those.
    """
    while True:
        link = Link(dsn, "upkeep", patience=_PATIENCE)
        try:
            again_in = await _round(link)
        except (PgflowError, psycopg.Error) as error:
            _log.error("maintenance_failed", error=str(error).strip())
            again_in = _AFTER_A_FAILURE
        finally:
            await link.close()
        await asyncio.sleep(again_in.total_seconds())


async def _round(link: Link) -> timedelta:
    """Do all that there is to do; return when to look again."""
    while True:
        done = await link.run(queues.maintain())
        if done.did is not None:
            _log.info("maintained", did=done.did)
        if done.blocked is not None:
            _log.info("maintenance_blocked", by_locks=done.blocked)
        if done.again_in:
            return done.again_in
