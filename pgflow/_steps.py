"""Calls whose results the worker journals: steps, and what is different each time."""

from __future__ import annotations

import inspect
import random
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar, TypeVarTuple, cast, overload

import psycopg

from pgflow._calls import Calls, Transaction, marker
from pgflow._journal import Scope
from pgflow._json import digest, dumps
from pgflow._typed import typed
from pgflow.models import Entry

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Undo = Callable[[T], object]


class Steps(Calls):
    """Work that is done once in the life of a run."""

    @overload
    async def step(
        self, name: str, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def step(
        self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def step(
        self,
        name: str,
        function: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        undo: Undo[T] | None = None,
        key: str | None = None,
    ) -> T: ...
    @overload
    async def step(
        self,
        name: str,
        function: Callable[[*Ts], T],
        *args: *Ts,
        undo: Undo[T] | None = None,
        key: str | None = None,
    ) -> T: ...
    async def step(  # type: ignore[misc] # mypy compares the variadic generics with Any
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        undo: Any = None,
        key: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Call `function` once in the run's life and return its result, now and when resumed.

        The result and the arguments must be JSON; the result is committed before this returns. A
        plain function is called in a thread. If the step was journalled with other arguments the
        run is paused with E-RUN-012. A result comes back as the return annotation says. `undo` is
        called with the result if the run is rolled back behind this step, or undone.
        Example: `draft = await ctx.step("draft", write_draft, article)`.
        """
        scope, key = self.journal.enter("step", name, key)
        inputs, entry = self.recall(scope, key, args, kwargs)
        if entry is None:
            with scope.inside(key):
                if inspect.iscoroutinefunction(function):
                    value = await function(*args, **kwargs)
                else:
                    value = await self._worker.in_thread(self, lambda: function(*args, **kwargs))
                    if inspect.isawaitable(value):  # of a lambda, say
                        value = await value
            entry = await self.keep(scope, key, inputs, value, undo=undo is not None)
        return self.result(scope, entry, function, undo)

    @overload
    async def transact(
        self,
        name: str,
        function: Callable[Concatenate[psycopg.AsyncConnection[Any], P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    async def transact(
        self,
        name: str,
        function: Callable[Concatenate[psycopg.Connection[Any], P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    async def transact(
        self,
        name: str,
        function: Callable[[psycopg.AsyncConnection[Any], *Ts], Awaitable[T]],
        *args: *Ts,
        undo: Undo[T] | None = None,
        key: str | None = None,
    ) -> T: ...
    @overload
    async def transact(
        self,
        name: str,
        function: Callable[[psycopg.Connection[Any], *Ts], T],
        *args: *Ts,
        undo: Undo[T] | None = None,
        key: str | None = None,
    ) -> T: ...
    async def transact(  # type: ignore[misc] # mypy compares the variadic generics with Any
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        undo: Any = None,
        key: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Do a step whose writes and whose entry in the journal are committed together.

        `function` is given a connection in a transaction first: an async one if it is async. If
        the lease is lost meanwhile, nothing is committed. Raises LeaseLost, NotStored.
        Example: `await ctx.transact("book", book_seat, order.seat)`.
        """
        scope, key = self.journal.enter("transact", name, key)
        inputs, entry = self.recall(scope, key, args, kwargs)
        if entry is None:
            transaction = self.new_transaction()
            try:
                with scope.inside(key):
                    if inspect.iscoroutinefunction(function):
                        value = await function(await transaction.begin(), *args, **kwargs)
                    else:
                        conn = await transaction.begin_plain()
                        value = await self._worker.in_thread(
                            self, lambda: function(conn, *args, **kwargs)
                        )
                text = dumps(value, f"the result of step {key}")
                await transaction.record(key, inputs, text, undo=undo is not None)
            finally:
                await transaction.abandon()
            entry = self.kept(scope, key, inputs, value)
        return self.result(scope, entry, function, undo)

    def new_transaction(self) -> Transaction:
        """Return a transaction under this lease that has not begun."""
        return self._worker.transaction(self.lease)

    def recall(
        self, scope: Scope, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, Entry | None]:
        """Return the digest of a step's arguments and, if it was done, its entry."""
        inputs = digest([args, kwargs], f"an argument of step {key}")
        entry = self.journal.recall(scope, "step", key, "step", inputs)
        if entry is None and self.lease.breakpoints:
            self._break(scope, "before", key, [args, kwargs])
        return inputs, entry

    def result(
        self, scope: Scope, entry: Entry, function: Callable[..., Any], undo: Undo[Any] | None
    ) -> Any:
        """Return a step's result; stop if there is a breakpoint after it."""
        value = typed(function, entry.value)
        if self.undos is not None:
            if undo is not None:
                self.undos[entry.key] = (undo, value)
        elif self.lease.breakpoints and entry.place >= self.journal.last_place():
            self._break(scope, "after", entry.key, entry.value)
        return value

    def _break(self, scope: Scope, when: str, key: str, payload: object) -> None:
        """Wait for a resume if there is a breakpoint that this run has not passed yet."""
        passed = f"breakpoint/{when}/{key}"
        if f"{when} {key}" in (self.lease.breakpoints or ()) and passed not in self.journal.entries:
            wait = digest([when, key], "a breakpoint")
            self.journal.wait(
                scope, kind="breakpoint", key=passed, digest=wait, when=when, payload=payload
            )

    async def now(self, *, key: str | None = None) -> datetime:
        """Return the time, by the database's clock; the same whenever the handler is resumed."""
        value = await self._once("now", self._worker.now, key)
        return datetime.fromisoformat(value)

    async def random(self, *, key: str | None = None) -> float:
        """Return a number from 0 up to, not including, 1; the same whenever it is resumed."""

        async def draw() -> float:
            return random.random()  # noqa: S311 - chance, no secret

        return cast("float", await self._once("random", draw, key))

    async def uuid(self, *, key: str | None = None) -> uuid.UUID:
        """Return a random UUID; the same whenever the handler is resumed."""

        async def draw() -> uuid.UUID:
            return uuid.uuid4()

        return uuid.UUID(await self._once("uuid", draw, key))

    async def patched(self, name: str) -> bool:
        """Whether this run goes by the new code: False if it is past this point by the old code.

        Example: `if await ctx.patched("two editors"): await ctx.approval("second editor")`.
        """
        scope, key = self.journal.enter("patched", f"patched/{name}")
        entry = self.journal.made(scope, "patched", key)
        if entry is not None:
            return True
        if self.journal.unread(scope.path):
            return False
        if self.undos is not None:
            self.journal.suspend(scope)
        await self.keep(scope, key, marker("patched"), True)  # noqa: FBT003 - a value to store
        return True

    async def _once(self, call: str, draw: Callable[[], Awaitable[object]], key: str | None) -> Any:
        scope, key = self.journal.enter(call, call, key)
        entry = self.journal.recall(scope, call, key, "step", marker(call))
        if entry is None:
            entry = await self.keep(scope, key, marker(call), await draw())
        return entry.value
