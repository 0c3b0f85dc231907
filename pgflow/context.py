"""What a handler is given: its run, and calls whose results are kept in the run's journal."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from pgflow._json import digest, dumps
from pgflow.errors import JournalMismatch, Rejected
from pgflow.models import Approval, Entry, Event, Lease

P = ParamSpec("P")
T = TypeVar("T")


class Suspend(BaseException):
    """Unwinds a handler whose run is going to wait: no error. Don't catch it."""


class Reporting(Protocol):
    """What a context needs of its worker."""

    async def record(self, lease: Lease, key: str, digest: str, value: str) -> None:
        """Journal a step's result; returns when it is committed."""

    async def emit(self, lease: Lease, kind: str, payload: object, key: str | None) -> Event:
        """Append an event of type `kind` to the run's timeline."""

    async def in_thread(self, context: Context, call: Callable[[], T]) -> T:
        """Call a plain function in a thread."""


class Context:
    """A handler's view of its run.

    Attributes: `lease`, with the run's id, input, attempt, deadline and tags; `cancelled`, True
    once the run has been taken away from this execution, for plain functions to look at.
    """

    def __init__(self, lease: Lease, worker: Reporting) -> None:
        self.lease = lease
        self.cancelled = False
        self.overstaying: list[asyncio.Future[Any]] = []
        self.waits: list[dict[str, Any]] = []
        self.cost_usd: float | None = None
        self._worker = worker
        self._journal = {e["key"]: Entry.from_json(e) for e in lease.journal or ()}
        self._asked: dict[str, int] = {}

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.lease.run_id

    @property
    def attempt(self) -> int:
        """How many executions failed before this one."""
        return self.lease.attempt

    @property
    def correlation_id(self) -> str:
        """What ties this run to others; its own id unless one was given."""
        return self.lease.correlation_id or self.lease.run_id

    @overload
    async def step(
        self, name: str, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def step(
        self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    async def step(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function` once in the run's life and return its result, now and when resumed.

        The result and the arguments must be JSON; the result is committed before this returns. A
        plain function is called in a thread. If the step was journalled with other arguments the
        run is paused with E-RUN-012. A result comes back as the return annotation says.
        Example: `draft = await ctx.step("draft", write_draft, article)`.
        """
        key, inputs, entry = self.recall(name, args, kwargs)
        if entry is None:
            if inspect.iscoroutinefunction(function):
                value = await function(*args, **kwargs)
            else:
                value = await self._worker.in_thread(self, lambda: function(*args, **kwargs))
                if inspect.isawaitable(value):  # of a lambda, say
                    value = await value
            entry = await self.keep(key, inputs, value)
        return _typed(function, entry.value)

    def recall(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, str, Entry | None]:
        """Return a step's key, the digest of its arguments and, if it was done, its entry."""
        key = self._key(name)
        inputs = digest([args, kwargs], f"an argument of step {name}")
        entry = self._journal.get(key)
        if entry is not None and entry.digest != inputs:
            raise JournalMismatch(
                f"step {key} was journalled with other arguments: "
                "the handler's code or its inputs changed"
            )
        return key, inputs, entry

    async def keep(self, key: str, inputs: str, value: object) -> Entry:
        """Journal a step's result; return what the handler is given when it is resumed."""
        text = dumps(value, f"the result of step {key}")
        await self._worker.record(self.lease, key, inputs, text)
        entry = self._journal[key] = Entry(key, "step", to_jsonable_python(value), inputs)
        return entry

    async def approval(
        self,
        key: str,
        *,
        payload: object = None,
        title: str | None = None,
        assignee: str | None = None,
        assignee_role: str | None = None,
        due_in: timedelta | None = None,
        policy: Literal["cancel", "timeout"] = "cancel",
        on_reject: Literal["cancel", "resume", "raise"] = "cancel",
    ) -> Approval:
        """Ask a person and wait without holding a worker; returns the decision once it is made.

        `payload` is what the person is shown. After `due_in` the run ends as `policy` says. A
        rejection ends the run as cancelled; with on_reject="resume" it is returned (`approved` is
        False), with "raise" it is raised as Rejected.
        Example: `verdict = await ctx.approval("editor", payload=draft, assignee_role="editors")`.
        """
        key = self._key(key)
        entry = self._journal.get(key)
        if entry is None:
            self._wait(
                kind="approval",
                key=key,
                title=title or f"Approve {key} of {self.lease.handler}",
                payload=payload,
                assignee=assignee,
                assignee_role=assignee_role,
                due_in=None if due_in is None else due_in.total_seconds(),
                policy=policy,
                on_reject="cancel" if on_reject == "cancel" else "resume",
            )
        approval = Approval.from_json(cast("Entry", entry).value)
        if on_reject == "raise" and not approval.approved:
            raise Rejected(f"{key} was rejected by {approval.decided_by}: {approval.comment or ''}")
        return approval

    async def emit(self, type: str, payload: object = None, *, key: str | None = None) -> Event:  # noqa: A002
        """Append an event to the run's timeline; with a `key` only once."""
        return await self._worker.emit(self.lease, type, payload, key)

    def usage(self, *, cost_usd: float) -> None:
        """Add to what the run has cost; it is stored with the end of this execution."""
        if not math.isfinite(cost_usd):
            raise ValueError(f"cost_usd must be a finite number, not {cost_usd}")
        self.cost_usd = (self.cost_usd or 0) + cost_usd

    def park(self) -> str:
        """Return the waits of this execution as the json text that the database is sent."""
        lease = self.lease
        return dumps(
            {
                "run_id": lease.run_id,
                "lease_no": lease.lease_no,
                "news": lease.news,
                "waits": self.waits,
                "cost_usd": self.cost_usd,
            },
            "what is waited for",
        )

    def anew(self, entries: list[dict[str, Any]]) -> Context:
        """Return the context of another execution under this lease, which knows `entries` too."""
        context = Context(self.lease, self._worker)
        context.cost_usd = self.cost_usd  # not stored yet
        context._journal = self._journal | {e["key"]: Entry.from_json(e) for e in entries}
        return context

    def _wait(self, **wait: Any) -> None:
        dumps(wait, f"what {wait['key']} asks for")
        self.waits.append(wait)
        raise Suspend

    def _key(self, name: str) -> str:
        """Return the name, numbered from its second call on."""
        asked = self._asked[name] = self._asked.get(name, 0) + 1
        return name if asked == 1 else f"{name}#{asked}"


def _typed(function: Callable[..., Any], value: Any) -> Any:
    try:
        hint = inspect.get_annotations(function, eval_str=True).get("return")
    except NameError:  # an annotation that only a type checker can resolve
        return value
    if hint in (None, Any, inspect.Signature.empty):
        return value
    return TypeAdapter(hint).validate_python(value)


class ThreadContext:
    """The context of a plain function: the same calls, which block its thread."""

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop

    @overload
    def step(
        self, name: str, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def step(self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    def step(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As Context.step; a plain function is called in this thread."""
        key, inputs, entry = self._context.recall(name, args, kwargs)
        if entry is None:
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = self._wait_for(value)
            entry = self._wait_for(self._context.keep(key, inputs, value))
        return _typed(function, entry.value)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the context, its coroutines made blocking calls."""
        value = getattr(self._context, name)
        if not inspect.iscoroutinefunction(value):
            return value
        return lambda *args, **kwargs: self._wait_for(value(*args, **kwargs))

    def _wait_for(self, call: Awaitable[T]) -> T:
        outcome = asyncio.run_coroutine_threadsafe(_outcome(call), self._loop)
        result, raised = outcome.result()
        if raised is not None:
            raise raised
        return cast("T", result)


async def _outcome(call: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """Carry what is raised as a value: SystemExit in a task would stop the event loop."""
    try:
        return await call, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - raised again in the handler's thread
        return None, error
