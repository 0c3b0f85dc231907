"""Gives an app, for the time of a test, the test's database."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from pgflow._statement import Statement
from pgflow.app import App
from pgflow.client import Client

R = TypeVar("R")


class Binding:
    """An app that was given another database; release() gives it back its own.

    Async calls go through the sync client, in a thread: a pool would belong to one event loop, and
    a test has several, of which none tells when it is closed.
    """

    def __init__(self, app: App, dsn: str) -> None:
        self.app = app
        self._client = client = Client(dsn, project=app.project)

        async def call(statement: Statement[R]) -> R:
            return await asyncio.to_thread(client._execute, statement)  # noqa: SLF001 - its twin

        ours: dict[str, Any] = {"_dsn": dsn, "_sync": client, "_pool": None, "_execute": call}
        self._own = {name: vars(app)[name] for name in ours if name in vars(app)}
        self._ours = ours
        vars(app).update(ours)

    def release(self) -> None:
        """Close the connections to the test's database and put back what was there."""
        for name in self._ours:
            vars(self.app).pop(name, None)
        vars(self.app).update(self._own)
        self._client.close()
