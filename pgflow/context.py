"""What a handler is given: its run, and calls whose results are kept in the run's journal."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
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
        key = self._key(name)
        inputs = digest([args, kwargs], f"an argument of step {name}")
        entry = self._journal.get(key)
        if entry is not None:
            if entry.digest != inputs:
                raise JournalMismatch(
                    f"step {key} was journalled with other arguments: "
                    "the handler's code or its inputs changed"
                )
            return _typed(function, entry.value)
        if inspect.iscoroutinefunction(function):
            value = await function(*args, **kwargs)
        else:
            value = await self._worker.in_thread(self, lambda: function(*args, **kwargs))
        text = dumps(value, f"the result of step {name}")
        await self._worker.record(self.lease, key, inputs, text)
        # What a resumed handler would be given: what the database returns, not what was computed.
        plain = to_jsonable_python(value)
        self._journal[key] = Entry(key, "step", plain, inputs)
        return _typed(function, plain)

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

    def _wait(self, **wait: Any) -> None:
        dumps(wait["payload"], f"the payload of {wait['key']}")
        self.waits.append(wait)
        raise Suspend

    def _key(self, name: str) -> str:
        """Return the name, numbered from its second call on."""
        asked = self._asked[name] = self._asked.get(name, 0) + 1
        return name if asked == 1 else f"{name}#{asked}"


def _typed(function: Callable[..., Any], value: Any) -> Any:
    hint = inspect.get_annotations(function, eval_str=True).get("return")
    if hint in (None, Any, inspect.Signature.empty):
        return value
    return TypeAdapter(hint).validate_python(value)


class ThreadContext:
    """The context of a plain function: the same calls, which block its thread."""

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the context, its coroutines made blocking calls."""
        value = getattr(self._context, name)
        if not inspect.iscoroutinefunction(value):
            return value

        def blocking(*args: Any, **kwargs: Any) -> Any:
            coroutine: Coroutine[Any, Any, Any] = _unwound(value(*args, **kwargs))
            result, suspend = asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
            if suspend is not None:
                raise suspend
            return result

        return blocking


async def _unwound(call: Awaitable[Any]) -> tuple[Any, Suspend | None]:
    """Carry Suspend as a value: raised in a task of its own it would stop the event loop."""
    try:
        return await call, None
    except Suspend as suspend:
        return None, suspend
