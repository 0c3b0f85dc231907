"""The app: handlers, and clients that know them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, overload

from pgflow.client import AsyncClient, Client
from pgflow.embedded import resolve_dsn
from pgflow.models import Retry
from pgflow.registry import Handler, Registry, UndoOn, make_handler

P = ParamSpec("P")
T = TypeVar("T")


class App(AsyncClient):
    """Handlers by name, and an async client; `sync` is its sync twin.

    `dsn`: a libpq URL or string; without one `$PGFLOW_DSN`, else the embedded server. Nothing
    connects before the first call. `version` is shown beside the app's workers.

    >>> app = App("postgresql://localhost/shop")
    >>> @app.handler(queue="mail")
    ... async def send_email(ctx, message: dict) -> None: ...
    >>> send_email.name, send_email.queue
    ('send_email', 'mail')
    """

    def __init__(
        self, dsn: str | None = None, *, project: str | None = None, version: str = "0"
    ) -> None:
        self._given_dsn = dsn
        super().__init__("", project=project)
        self.project = self._project
        self.version = version
        self.registry = Registry()
        self._sync: Client | None = None

    @property
    def dsn(self) -> str:
        """Where the database is; starts the embedded server if there is no other."""
        if not self._dsn:
            self._dsn = resolve_dsn(self._given_dsn)
        return self._dsn

    @property
    def sync(self) -> Client:
        """The sync client of this app's database."""
        if self._sync is None:
            self._sync = Client(self.dsn, project=self.project)
        return self._sync

    @overload
    def handler(self, function: Callable[P, T], /) -> Handler[P, T]: ...
    @overload
    def handler(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        undo_on: Sequence[UndoOn] = (),
    ) -> Callable[[Callable[P, T]], Handler[P, T]]: ...
    def handler(  # type: ignore[misc] # mypy compares the parameter specs of the two overloads
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        undo_on: Sequence[UndoOn] = (),
    ) -> Any:
        """Register a function as a handler, under its own name unless `name` is given.

        It takes (), (ctx), (input) or (ctx, input); the input is validated as its annotation says.
        Async functions run in the worker's event loop, plain ones in threads. `timeout` bounds one
        execution. After an end that `undo_on` names ("failed", "cancelled", "timeout") a run of its
        own undoes the steps that have an undo. The name "__default__" takes every run that this app
        has no other handler for.
        Raises BadHandler, DuplicateHandler.
        """

        def register(function: Callable[P, T]) -> Handler[P, T]:
            handler = make_handler(
                function,
                name=name or str(getattr(function, "__name__", "")),
                queue=queue,
                retry=retry or Retry(),
                timeout=timeout,
                undo_on=undo_on,
            )
            self.registry.add(handler)
            return handler

        return register if function is None else register(function)
