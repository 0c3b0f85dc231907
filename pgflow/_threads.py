"""The context of plain functions."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec, TypeVar, TypeVarTuple, cast, overload

import psycopg

from pgflow._journal import Scope
from pgflow._json import dumps
from pgflow._steps import Undo
from pgflow.context import Context
from pgflow.errors import MisplacedCall
from pgflow.models import Entry

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ThreadContext:
    """The context of a plain function: the same calls, which block its thread.

    It does one thing at a time: gather and first are for async handlers.
    """

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._thread: int | None = None

    def begin(self) -> None:
        """Take the current thread for the handler's."""
        self._thread = threading.get_ident()

    @overload
    def step(
        self, name: str, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def step(self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def step(
        self,
        name: str,
        function: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        undo: Undo[T] | None = None,
        key: str | None = None,
    ) -> T: ...
    @overload
    def step(
        self,
        name: str,
        function: Callable[[*Ts], T],
        *args: *Ts,
        undo: Undo[T] | None = None,
        key: str | None = None,
    ) -> T: ...
    def step(  # type: ignore[misc] # mypy compares the variadic generics with Any
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        undo: Any = None,
        key: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As Context.step; a plain function is called in this thread."""
        context = self._context
        scope, path, inputs, entry = self._wait_for(self._begun("step", name, key, args, kwargs))
        if entry is None:
            with scope.inside(path):
                value = function(*args, **kwargs)
                if inspect.isawaitable(value):
                    value = self._wait_for(value)
            entry = self._wait_for(context.keep(scope, path, inputs, value, undo=undo is not None))
        return context.result(scope, entry, function, undo)

    def transact(
        self,
        name: str,
        function: Callable[..., T],
        *args: Any,
        undo: Undo[T] | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> T:
        """As Context.transact; the function is called in this thread, with a plain connection."""
        context = self._context
        scope, path, inputs, entry = self._wait_for(
            self._begun("transact", name, key, args, kwargs)
        )
        if entry is None:
            transaction = context.new_transaction()
            try:
                conn = self._wait_for(transaction.begin_plain())
                with scope.inside(path):
                    value = function(conn, *args, **kwargs)
                text = dumps(value, f"the result of step {path}")
                self._wait_for(transaction.record(path, inputs, text, undo=undo is not None))
            finally:
                self._wait_for(transaction.abandon())
            entry = context.kept(scope, path, inputs, value)
        return cast("T", context.result(scope, entry, function, undo))

    async def _begun(
        self,
        call: str,
        name: str,
        key: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Scope, str, str, Entry | None]:
        scope, key = self._context.journal.enter(call, name, key)
        return scope, key, *self._context.recall(scope, key, args, kwargs)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """As Context.transaction."""
        context = self._context

        async def begun() -> Any:
            return await context.begin_transaction().begin_plain()

        try:
            yield self._wait_for(begun())
        except BaseException:
            self._wait_for(context.roll_back())
            raise

    def gather(self, *_: object) -> NoReturn:
        """Refuse: a plain function does one thing at a time. Raises MisplacedCall."""
        raise MisplacedCall("ctx.gather is for async handlers: a plain one blocks in each call")

    def first(self, *_: object) -> NoReturn:
        """Refuse: a plain function does one thing at a time. Raises MisplacedCall."""
        raise MisplacedCall("ctx.first is for async handlers: a plain one blocks in each call")

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the context, its coroutines made blocking calls."""
        value = getattr(self._context, name)
        if not inspect.iscoroutinefunction(value):
            return value
        return lambda *args, **kwargs: self._wait_for(value(*args, **kwargs))

    def _wait_for(self, call: Awaitable[T]) -> T:
        # In a thread of the handler's own making, order means as little as in a task of its own.
        ours = threading.get_ident() == self._thread
        done = asyncio.run_coroutine_threadsafe(self._outcome(call, ours=ours), self._loop)
        result, raised = done.result()
        if raised is not None:
            raise raised
        return cast("T", result)

    async def _outcome(
        self, call: Awaitable[T], *, ours: bool
    ) -> tuple[T | None, BaseException | None]:
        """Carry what is raised as a value: SystemExit in a task would stop the event loop."""
        if ours:
            self._context.adopt(asyncio.current_task())
        try:
            return await call, None
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again in the handler's thread
            return None, error
