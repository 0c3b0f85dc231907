"""pgflow: a job queue and durable run engine that lives in PostgreSQL."""

from __future__ import annotations

from pgflow._state import Writes
from pgflow._threads import ThreadContext
from pgflow._version import __version__
from pgflow.app import App
from pgflow.budget import Budget
from pgflow.client import AsyncClient, Client
from pgflow.context import Context, First
from pgflow.definition import Channel, Flow, Step
from pgflow.documents import Artifact, ArtifactContent, ExpectedArtifact, Repair
from pgflow.errors import (
    ChildFailed,
    NonRetryable,
    PgflowError,
    Refusal,
    Rejected,
    ResultTimeout,
    RunNotCompleted,
    WaitTimeout,
)
from pgflow.models import Answer, Approval, Delivery, Event, Paused, Result, Retry
from pgflow.worker import Worker

__all__ = [
    "Answer",
    "App",
    "Approval",
    "Artifact",
    "ArtifactContent",
    "AsyncClient",
    "Budget",
    "Channel",
    "ChildFailed",
    "Client",
    "Context",
    "Delivery",
    "Event",
    "ExpectedArtifact",
    "First",
    "Flow",
    "NonRetryable",
    "Paused",
    "PgflowError",
    "Refusal",
    "Rejected",
    "Repair",
    "Result",
    "ResultTimeout",
    "Retry",
    "RunNotCompleted",
    "Step",
    "ThreadContext",
    "WaitTimeout",
    "Worker",
    "Writes",
    "__version__",
]
