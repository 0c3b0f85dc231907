"""Executes one run: calls its handler and makes a report of what came of it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pydantic import ValidationError

from pgflow._json import dumps
from pgflow.context import Context, Suspend, ThreadContext
from pgflow.errors import JournalMismatch, NotJson, Rejected
from pgflow.models import Lease
from pgflow.registry import Handler, Registry
from pgflow.reports import Completed, End, Waiting, failure


T = TypeVar("T")


async def execute(
    lease: Lease, context: Context, registry: Registry, threads: ThreadPoolExecutor
) -> End:
    """Execute a run's handler, from its top or with what its journal has.

    Whatever the handler raises becomes a report, except the cancellation of this task.
    """
    handler = registry.find(lease.handler)
    if handler is None:
        detail = f"no handler named {lease.handler} and no __default__ in this worker's app"
        return failure(lease, "E-RUN-004", detail, retry=False)
    deadline = asyncio.timeout(lease.timeout)
    try:
        async with deadline:
            value = await _call(handler, lease, context, threads)
        if context.waits:  # the handler caught Suspend and went on
            return Waiting(lease, context.park())
        return Completed(lease, dumps(value, "what the handler returned"), context.cost_usd)
    except Suspend:
        return Waiting(lease, context.park())
    except _UnfitInputError as error:
        return failure(lease, "E-RUN-005", error.reason, retry=False)
    except JournalMismatch as error:
        return failure(lease, "E-RUN-012", str(error), cost_usd=context.cost_usd)
    except NotJson as error:
        return failure(lease, "E-RUN-001", error, retry=False, cost_usd=context.cost_usd)
    except Rejected as error:
        return failure(lease, "E-RUN-006", error, retry=False, cost_usd=context.cost_usd)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit of a handler must not stop the worker
        if deadline.expired():
            detail = f"the handler ran longer than its timeout of {lease.timeout:g} s"
            return failure(lease, "E-RUN-003", detail, cost_usd=context.cost_usd)
        return failure(lease, "E-RUN-001", error, cost_usd=context.cost_usd)


class _UnfitInputError(Exception):
    def __init__(self, reason: ValidationError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def _call(
    handler: Handler[..., object], lease: Lease, context: Context, threads: ThreadPoolExecutor
) -> object:
    given = context if handler.is_async else ThreadContext(context, asyncio.get_running_loop())
    try:
        arguments = handler.arguments(given, lease.input)
    except ValidationError as error:
        raise _UnfitInputError(error) from error
    if handler.is_async:
        return await handler.function(*arguments)  # type: ignore[misc]
    result, raised = await in_thread(threads, context, lambda: handler.function(*arguments))
    if raised is not None:
        raise raised
    return result


async def in_thread(
    threads: ThreadPoolExecutor, context: Context, call: Callable[[], T]
) -> tuple[T | None, BaseException | None]:
    """Call a plain function in a thread. Its exception comes back as a value.

    A thread can't be interrupted: `context.cancelled` tells the function. When the run was taken away
    the cancellation is raised only once the function has ended: until then its slot is in use.
    """

    def guarded() -> tuple[T | None, BaseException | None]:
        try:
            return call(), None
        except BaseException as error:  # noqa: BLE001 - raised again in the event loop
            return None, error

    variables = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(threads, variables.run, guarded)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if context.cancelled:
            await asyncio.wait({future})
        context.cancelled = True
        raise
