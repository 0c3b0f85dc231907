"""Handlers: functions with a name, and what the database is told about them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints

from pydantic import TypeAdapter

from pgflow._threads import ThreadContext
from pgflow.context import Context
from pgflow.errors import BadHandler, DuplicateHandler
from pgflow.models import Retry

P = ParamSpec("P")
T = TypeVar("T")

UndoOn = Literal["failed", "cancelled", "timeout"]
DEFAULT_HANDLER = "__default__"
_CONTEXT_NAMES = frozenset({"ctx", "context"})


@dataclass(slots=True, eq=False)
class Handler(Generic[P, T]):
    """A function under the name that runs know it by. It is called as before."""

    name: str
    function: Callable[P, T]
    queue: str
    retry: Retry
    timeout: timedelta | None
    is_async: bool
    takes_context: bool
    takes_input: bool
    adapter: TypeAdapter[Any] | None
    undo_on: tuple[UndoOn, ...] = ()

    @property
    def max_attempts(self) -> int | None:
        """How often a run is executed at most; None: as its queue says."""
        return self.retry.max_attempts

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function itself, without a run."""
        return self.function(*args, **kwargs)

    def arguments(self, context: object, value: object) -> tuple[Any, ...]:
        """Return what the function is called with. Raises pydantic's ValidationError."""
        arguments: tuple[Any, ...] = (context,) if self.takes_context else ()
        if not self.takes_input:
            return arguments
        return (*arguments, value if self.adapter is None else self.adapter.validate_python(value))

    def registration(self) -> dict[str, Any]:
        """Return what register_worker tells the database; spans are in seconds."""
        return {
            "handler": self.name,
            "queue": self.queue,
            "max_attempts": self.max_attempts,
            "timeout": None if self.timeout is None else self.timeout.total_seconds(),
            "retry_base": self.retry.base.total_seconds(),
            "retry_factor": self.retry.factor,
            "retry_max": self.retry.longest.total_seconds(),
            "undo_on": list(self.undo_on),
        }


def make_handler(
    function: Callable[P, T],
    *,
    name: str,
    queue: str,
    retry: Retry,
    timeout: timedelta | None,
    undo_on: Sequence[UndoOn] = (),
) -> Handler[P, T]:
    """Read a function's signature: (), (ctx), (input) or (ctx, input). Raises BadHandler."""
    try:
        hints = get_type_hints(function)
    except NameError:  # an annotation that only a type checker can resolve
        hints = {}
    parameters = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    takes_context = bool(parameters) and _is_context(parameters[0], hints)
    inputs = parameters[1:] if takes_context else parameters
    if len(inputs) > 1:
        raise BadHandler(
            f"handler {name} takes {len(inputs)} inputs;"
            " a handler takes (), (ctx), (input) or (ctx, input)"
        )
    hint = hints.get(inputs[0].name, Any) if inputs else Any
    return Handler(
        name=name,
        function=function,
        queue=queue,
        retry=retry,
        timeout=timeout,
        is_async=asyncio.iscoroutinefunction(function),
        takes_context=takes_context,
        takes_input=bool(inputs),
        adapter=None if hint in (Any, object, dict) else TypeAdapter(hint),
        undo_on=tuple(undo_on),
    )


def _is_context(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    hint = hints.get(parameter.name)
    return parameter.name in _CONTEXT_NAMES or hint in (Context, ThreadContext)


@dataclass(slots=True)
class Registry:
    """The handlers of one app, by name."""

    handlers: dict[str, Handler[..., Any]] = field(default_factory=dict)

    def add(self, handler: Handler[..., Any]) -> None:
        """Add a handler. Raises DuplicateHandler."""
        if handler.name in self.handlers:
            raise DuplicateHandler(f"two handlers of this app are named {handler.name}")
        self.handlers[handler.name] = handler

    def find(self, name: str) -> Handler[..., Any] | None:
        """Return the handler of that name, else the one named __default__, else None."""
        return self.handlers.get(name) or self.handlers.get(DEFAULT_HANDLER)

    def queues(self) -> list[str]:
        """Return the queues that the handlers name, sorted; `default` if there are no handlers."""
        return sorted({h.queue for h in self.handlers.values()}) or ["default"]
