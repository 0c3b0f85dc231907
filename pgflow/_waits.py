"""Calls that wait for something other than people."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, overload

from pgflow._calls import Calls, seconds
from pgflow._json import digest
from pgflow._named import Named
from pgflow._typed import typed
from pgflow.errors import ChildFailed, WaitTimeout
from pgflow.models import Entry

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Span = timedelta | float


class Runnable(Named, Protocol[T_co]):
    """A handler, as `App.handler` returns it."""

    def __call__(self, *args: Any, **kwargs: Any) -> T_co:
        """Call the function itself, without a run."""


class Child(TypedDict, total=False):
    """How a child run is enqueued; a handler's own settings hold where nothing is said."""

    queue: str | None
    priority: int | None
    max_attempts: int | None
    run_timeout: timedelta | None
    tags: list[str] | None
    key: str | None


class Waits(Calls):
    """Waits that hold no worker: the run is one row until what it waits for has come."""

    async def tool(
        self,
        name: str,
        arguments: object = None,
        *,
        timeout: Span | None = None,  # noqa: ASYNC109 - the run waits, not this coroutine
        key: str | None = None,
    ) -> Any:
        """Have something done elsewhere and return its result, which resolve_tool() brings.

        A tool that fails (fail_tool) fails this attempt of the run. Raises WaitTimeout if there is
        no result within `timeout`, a timedelta or seconds.
        Example: `video = await ctx.tool("transcode", {"src": draft.src})`.
        """
        scope, key = self.journal.enter("tool", name, key)
        asked = digest([name, arguments], f"what {key} asks for")
        entry = self.journal.recall(scope, "tool", key, "tool", asked)
        if entry is None:
            self.journal.wait(
                scope,
                prompt=timeout is not None,
                kind="tool",
                key=key,
                digest=asked,
                tool=name,
                arguments=arguments,
                timeout=seconds(timeout),
            )
        return _come(entry)

    async def wait_for(
        self,
        name: str,
        *,
        timeout: Span | None = None,  # noqa: ASYNC109 - the run waits, not this coroutine
        key: str | None = None,
    ) -> Any:
        """Wait for a signal() of that name and return its payload; it may have come before.

        Raises WaitTimeout if none has come within `timeout`, a timedelta or seconds.
        Example: `paid = await ctx.wait_for("payment", timeout=timedelta(hours=1))`.
        """
        scope, key = self.journal.enter("wait_for", name, key)
        asked = digest([name], f"what {key} asks for")
        entry = self.journal.recall(scope, "wait_for", key, "event", asked)
        if entry is None:
            self.journal.wait(
                scope,
                prompt=timeout is not None,
                kind="event",
                key=key,
                digest=asked,
                name=name,
                timeout=seconds(timeout),
            )
        return _come(entry)

    async def sleep(self, span: Span, *, key: str | None = None) -> None:
        """Go on after a timedelta, or seconds, from the first time this was called."""
        scope, key = self.journal.enter("sleep", "sleep", key)
        asked = digest(["sleep"], f"what {key} asks for")
        if self.journal.recall(scope, "sleep", key, "sleep", asked) is None:
            self.journal.wait(
                scope, kind="sleep", key=key, digest=asked, seconds=max(0.0, seconds(span) or 0.0)
            )

    async def interrupt(self, payload: object = None, *, key: str | None = None) -> Any:
        """Stop and show `payload`; returns the value that resume() is given, None for continue.

        Example: `plan = await ctx.interrupt({"plan": plan}) or plan`.
        """
        scope, key = self.journal.enter("interrupt", "interrupt", key)
        asked = digest([payload], f"what {key} asks for")
        entry = self.journal.recall(scope, "interrupt", key, "interrupt", asked)
        if entry is None:
            self.journal.wait(
                scope,
                kind="interrupt",
                key=key,
                digest=asked,
                title=f"{key} of {self.lease.handler}",
                payload=payload,
            )
        return entry.value

    @overload
    async def run(
        self, handler: Runnable[Awaitable[T]], input: object = None, **how: Unpack[Child]
    ) -> T: ...
    @overload
    async def run(self, handler: Runnable[T], input: object = None, **how: Unpack[Child]) -> T: ...
    @overload
    async def run(self, handler: str, input: object = None, **how: Unpack[Child]) -> Any: ...
    async def run(self, handler: Any, input: object = None, **how: Unpack[Child]) -> Any:  # noqa: A002 - as enqueue calls it
        """Execute another handler as a child run and return its output, typed as it says.

        The child is cancelled with this run. Raises ChildFailed if it does not complete.
        Example: `small = await ctx.run(resize, {"src": video.url}, queue="images")`.
        """
        name, function = handler, None
        if not isinstance(handler, str):
            name, function = handler.name, getattr(handler, "function", None)
            given: Child = {
                "queue": handler.queue,
                "max_attempts": handler.max_attempts,
                "run_timeout": handler.timeout,
            }
            how = {**given, **how}
        scope, key = self.journal.enter("run", name, how.pop("key", None))
        asked = digest([name, input], f"what {key} asks for")
        entry = self.journal.recall(scope, "run", key, "run", asked)
        if entry is None:
            self.journal.wait(
                scope,
                kind="run",
                key=key,
                digest=asked,
                handler=name,
                input=input,
                queue=how.get("queue"),
                priority=how.get("priority"),
                max_attempts=how.get("max_attempts"),
                run_timeout=seconds(how.get("run_timeout")),
                tags=how.get("tags"),
            )
        child = entry.value
        if child["state"] != "completed":
            raise ChildFailed(
                key,
                run_id=child["run_id"],
                state=child["state"],
                error_code=child.get("error_code"),
                error_detail=child.get("error_detail"),
            )
        output = child.get("output")
        return output if function is None else typed(function, output)


def _come(entry: Entry) -> Any:
    if entry.kind == "timeout":
        raise WaitTimeout(f"{entry.key}: nothing came within {entry.value['after']:g} s")
    return entry.value
