"""A run without a database: a journal in memory, and a worker that executes one handler with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from pgflow import App, Context
from pgflow._calls import Calls
from pgflow._execution import execute, in_thread
from pgflow.documents import Artifact, ArtifactContent, Document
from pgflow.models import Event, Lease
from pgflow.reports import Completed, End, Failed, Usage, Waiting

T = TypeVar("T")
RUN_ID = "01900000-0000-7000-8000-000000000001"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Crash(BaseException):
    """The worker died: nothing is written any more."""


class Run:
    """One run: what is journalled, what it waits for, and how often which step was done."""

    def __init__(self, handler: Callable[..., Any], value: object = None, **lease: Any) -> None:
        self.app = App("")
        self.app.handler(name="h")(handler)
        self.input = value
        self.lease = lease
        self.timeout = lease.pop("timeout", None)
        self.deadline = lease.pop("deadline", None)
        self.tags = lease.pop("tags", None)
        self.journal: dict[str, dict[str, Any]] = {}
        self.undos: dict[str, bool] = {}
        self.waits: dict[str, dict[str, Any]] = {}
        self.wait_any = False
        self.emitted: list[tuple[str, Any]] = []
        self.usages: list[str] = []
        self.documents: list[Document] = []
        self.executions = 0
        self.crash_after: int | None = None
        self.project = None

    # As a worker

    async def record(
        self, lease: Lease, key: str, digest: str, value: str, *, undo: bool = False
    ) -> None:
        await asyncio.sleep(0)
        if self.crash_after == 0:
            raise Crash
        if self.crash_after is not None:
            self.crash_after -= 1
        assert lease.run_id == RUN_ID
        assert key not in self.journal
        self.undos[key] = undo
        self.journal[key] = {
            "key": key,
            "kind": "step",
            "value": json.loads(value),
            "digest": digest,
            "lease_no": lease.lease_no,
        }

    async def add_step(
        self, lease: Lease, step: Mapping[str, object], needed_by: Sequence[str]
    ) -> bool:
        raise NotImplementedError

    async def emit(self, lease: Lease, kind: str, payload: object, key: str | None) -> Event:
        self.emitted.append((kind, payload))
        return Event(UUID(lease.run_id), len(self.emitted), kind, key, payload, NOW, "test")

    def usage(self, usage: Usage) -> None:
        self.usages.append(usage.key)

    async def record_artifact(self, lease: Lease, document: Document) -> Artifact:
        assert lease.run_id == RUN_ID
        self.documents.append(document)
        valid = not document.errors
        no = len(self.documents)
        return Artifact(document.name, no, 0, "", valid=valid, errors=document.errors)

    async def artifact_content(self, _: Lease, name: str, artifact_no: int) -> ArtifactContent:
        raise NotImplementedError

    async def schema(self, name: str) -> dict[str, Any]:
        raise NotImplementedError

    async def now(self) -> datetime:
        return NOW

    async def in_thread(self, context: Calls, call: Callable[[], T]) -> T:
        return await in_thread(self._threads, context, call)

    def transaction(self, _: Lease) -> Any:
        raise NotImplementedError

    # As a database

    def execute(self) -> End:
        """Execute the handler once, with what the journal has, and take in what comes of it."""
        self.executions += 1
        with ThreadPoolExecutor(4) as self._threads:
            end = asyncio.run(self._execute())
        if isinstance(end, Waiting):
            park = json.loads(end.park)
            self.waits = {wait["key"]: wait for wait in park["waits"]}
            self.wait_any = park["wait_any"]
        return end

    async def _execute(self) -> End:
        given = {
            "run_id": RUN_ID,
            "lease_no": self.executions,
            "handler": "h",
            "queue": "default",
            "input": self.input,
            "news": 0,
            "attempt": 0,
            "max_attempts": 3,
            "correlation_id": None,
            "tags": self.tags,
            "priority": 0,
            "created_by": "ann",
            "journal": list(self.journal.values()),
        }
        lease = Lease.from_json(given | {"timeout": self.timeout, "deadline": self.deadline})
        lease.more = self.lease
        end = await execute(lease, Context(lease, self), self.app.registry, self._threads)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        return end

    def come(self, key: str, value: object = None, kind: str | None = None) -> bool:
        """Journal what the run waits for under `key`; returns whether that wakes it."""
        wait = self.waits[key]
        self.journal[key] = {
            "key": key,
            "kind": kind or wait["kind"],
            "value": value,
            "digest": wait["digest"],
        }
        return self.wait_any or all(key in self.journal for key in self.waits)

    def output(self) -> Any:
        """Execute the handler, which must complete, and return its output."""
        end = self.execute()
        assert isinstance(end, Completed), end
        return json.loads(end.output)

    def asks(self) -> list[str]:
        """Execute the handler, which must wait, and return the keys of what it waits for."""
        end = self.execute()
        assert isinstance(end, Waiting), end
        return list(self.waits)

    def fails(self) -> Failed:
        """Execute the handler, which must fail, and return the report of that."""
        end = self.execute()
        assert isinstance(end, Failed), end
        return end


def decision(action: str = "approved", data: object = None, **more: Any) -> dict[str, Any]:
    """Return the entry of a task that was decided."""
    return {
        "task_id": RUN_ID,
        "action": action,
        "approved": action == "approved",
        "comment": None,
        "data": data,
        "decided_by": "ed",
        "decided_at": "2026-01-02T00:00:00Z",
        "payload_sha256": "",
    } | more


def child(state: str = "completed", **more: Any) -> dict[str, Any]:
    """Return the entry of a child run that has ended."""
    return {
        "run_id": "child",
        "state": state,
        "output": None,
        "error_code": None,
        "error_detail": None,
    } | more
