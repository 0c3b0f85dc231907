"""pgflow: a job queue and durable run engine that lives in PostgreSQL."""

from __future__ import annotations

from pgflow._version import __version__
from pgflow.app import App
from pgflow.client import AsyncClient, Client
from pgflow.context import Context, ThreadContext
from pgflow.errors import PgflowError, Refusal, ResultTimeout, RunNotCompleted
from pgflow.models import Approval, Event, Result, Retry
from pgflow.worker import Worker

__all__ = [
    "App",
    "Approval",
    "AsyncClient",
    "Client",
    "Context",
    "Event",
    "PgflowError",
    "Refusal",
    "Result",
    "ResultTimeout",
    "Retry",
    "RunNotCompleted",
    "ThreadContext",
    "Worker",
    "__version__",
]
