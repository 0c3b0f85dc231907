"""pgflow: a job queue and durable run engine that lives in PostgreSQL."""

from __future__ import annotations

from pgflow._version import __version__
from pgflow.app import App
from pgflow.client import AsyncClient, Client
from pgflow.context import Context, ThreadContext
from pgflow.errors import PgflowError, Refusal
from pgflow.models import Approval, Retry
from pgflow.worker import Worker

__all__ = [
    "App",
    "Approval",
    "AsyncClient",
    "Client",
    "Context",
    "PgflowError",
    "Refusal",
    "Retry",
    "ThreadContext",
    "Worker",
    "__version__",
]
