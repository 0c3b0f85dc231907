"""Queues and workers, as they are now."""

from __future__ import annotations

import click

from .options import json_option
from .output import print_rows
from .session import Session, global_options, pass_session


@click.command()
@json_option
@global_options
@pass_session
def queues(session: Session, *, as_json: bool) -> None:
    """List the queues with settings, live runs and live workers."""
    with session.client() as client:
        rows = client.queue_stats()
    columns = (
        "queue workers pending running waiting scheduled paused paused_at max_concurrent"
        " available_slots oldest_pending_at max_attempts timeout lease_ttl"
    )
    print_rows(rows, columns.split(), as_json=as_json)


@click.command()
@json_option
@global_options
@pass_session
def workers(session: Session, *, as_json: bool) -> None:
    """List the workers, the youngest first."""
    with session.client() as client:
        rows = client.worker_status()
    columns = "worker_id status running concurrency queues beat_at host pid version started_at"
    print_rows(rows, columns.split(), as_json=as_json)
