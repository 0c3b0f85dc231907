"""Executes one run: calls its handler and makes a report of what came of it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, cast

from pydantic import ValidationError

from pgflow._calls import Calls, Transaction
from pgflow._json import dumps
from pgflow._state import Writes
from pgflow._threads import ThreadContext
from pgflow._undo import undo
from pgflow.context import Context, Suspend
from pgflow.errors import (
    JournalMismatch,
    MisplacedCall,
    NonRetryable,
    NotJson,
    NotStored,
    Rejected,
    Replayed,
    UnknownChannel,
    WriteRefused,
)
from pgflow.models import Lease
from pgflow.registry import Handler, Registry
from pgflow.reports import Committed, Completed, End, Failed, Waiting, failure

T = TypeVar("T")


async def execute(
    lease: Lease, context: Context, registry: Registry, threads: ThreadPoolExecutor
) -> End:
    """Execute a run's handler, from its top or with what its journal has.

    Whatever the handler raises becomes a report, except the cancellation of this task.
    """
    try:
        return await _execute(lease, context, registry, threads)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _failed(lease, error)  # the handler's own: something it awaited was cancelled
    except BaseException as error:  # noqa: BLE001 - SystemExit of a handler must not stop the worker
        return _failed(lease, error)


async def _execute(
    lease: Lease, context: Context, registry: Registry, threads: ThreadPoolExecutor
) -> End:
    value: object = None
    if lease.unreadable is not None:
        raise _UnfitInputError(f"the input cannot be read: {lease.unreadable}")
    try:
        handler = _find(registry, lease)
        _check_binding(lease)
        call = _call
        if lease.undo or lease.undo_of:
            call = _undo_and_call
        value = await _within(lease.timeout, call(handler, lease, context, threads))
        if isinstance(value, Writes):
            value = _written(context, value)
        if context.transacting is not None:
            return await _commit(lease, context, context.transacting, value)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        suspended = context.is_waiting if isinstance(error, Suspend) else context.is_suspended
        if not suspended:  # else it is the handler's cleaning up that raises
            raise
    finally:
        if context.transacting is not None:
            await context.transacting.abandon()
    if context.is_waiting:  # also where the handler caught Suspend and went on
        return Waiting(lease, context.park())
    return Completed(lease, dumps(value, "what the handler returned"), context.writes())


def _written(context: Context, returned: Writes[object]) -> object:
    for channel, value in returned.channels.items():
        context.write(channel, value)
    return returned.output


async def _commit(
    lease: Lease, context: Context, transaction: Transaction, value: object
) -> Committed | Completed:
    output = dumps(value, "what the handler returned")
    outcome = await transaction.complete(output, context.writes())
    if outcome is not None and outcome.outcome == "refused":
        if outcome.code == "E-RUN-018":
            raise WriteRefused(outcome.detail)
        if outcome.code in _OF_ARTIFACTS:  # to be said once more, in a transaction that is kept
            return Completed(lease, output, context.writes())
        raise NotStored(f"what the handler returned cannot be stored: {outcome.detail}")
    return Committed(lease, outcome)


async def _undo_and_call(
    handler: Handler[..., object], lease: Lease, context: Context, threads: ThreadPoolExecutor
) -> object:
    async def do(function: Callable[[], object]) -> object:
        result = await in_thread(threads, context, function)
        return await result if inspect.isawaitable(result) else result

    undone = await undo(context, lambda other: _call(handler, lease, other, threads), do)
    if lease.undo_of is not None:
        return {"undone": undone}
    return await _call(handler, lease, context, threads)


def _find(registry: Registry, lease: Lease) -> Handler[..., object]:
    handler = registry.find(lease.handler)
    if handler is not None:
        return handler
    flow = lease.more.get("flow") or {}
    step, kind = flow.get("step"), flow.get("step_type")
    message = (
        f"this worker's app has no handler {lease.handler} and no __default__"
        + f", wanted by step {step}" * (step is not None)
        + f" of type {kind}" * (kind is not None)
    )
    if lease.journal:
        raise _LostHandlerError(message)
    raise _UnknownHandlerError(message)


def _check_binding(lease: Lease) -> None:
    bound = (lease.more.get("flow") or {}).get("binding") or {}
    if "fault" in bound:
        raise _LostBindingError(bound["fault"])


class _UnknownHandlerError(Exception):
    pass


class _LostHandlerError(Exception):
    """The run has begun: what it has learned would be lost if it failed."""


class _LostBindingError(Exception):
    """What the step's role was bound to when the run started isn't there any more."""


class _UnfitInputError(Exception):
    pass


class _TimeoutPassedError(Exception):
    pass


# What each exception means for the run: its error code, and whether another attempt may help.
_MEANINGS: tuple[tuple[type[BaseException], str, bool], ...] = (
    (_UnknownHandlerError, "E-RUN-004", False),
    (_LostHandlerError, "E-RUN-012", False),
    (_LostBindingError, "E-RUN-012", False),
    (_UnfitInputError, "E-RUN-005", False),
    (_TimeoutPassedError, "E-RUN-003", True),
    (JournalMismatch, "E-RUN-012", False),
    (NotJson, "E-RUN-001", False),
    (WriteRefused, "E-RUN-018", False),
    (UnknownChannel, "E-RUN-018", False),
    (NotStored, "E-RUN-017", False),
    (Rejected, "E-RUN-006", False),
    (Replayed, "E-RUN-001", False),
    (NonRetryable, "E-RUN-001", False),
    (MisplacedCall, "E-RUN-001", False),
    (BaseException, "E-RUN-001", True),
)
_OF_ARTIFACTS = ("E-RUN-008", "E-RUN-014")
_OURS = (
    _UnknownHandlerError,
    _LostHandlerError,
    _LostBindingError,
    _UnfitInputError,
    _TimeoutPassedError,
    JournalMismatch,
)


def _failed(lease: Lease, error: BaseException) -> Failed:
    code, retry = next((c, r) for kind, c, r in _MEANINGS if isinstance(error, kind))
    told: BaseException | str = str(error) if isinstance(error, _OURS) else error
    return failure(lease, code, told, retry=retry)


async def _within(seconds: float | None, call: Awaitable[T]) -> T:
    if seconds is None:
        return await call
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await call
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise _TimeoutPassedError(
            f"the handler ran longer than its timeout of {seconds:g} s"
        ) from error


async def _call(
    handler: Handler[..., object], lease: Lease, context: Context, threads: ThreadPoolExecutor
) -> object:
    context.adopt(asyncio.current_task())
    given = context if handler.is_async else ThreadContext(context, asyncio.get_running_loop())
    try:
        arguments = handler.arguments(given, lease.input)
    except ValidationError as error:
        raise _UnfitInputError(str(error)) from error
    if handler.is_async:
        return await handler.function(*arguments)  # type: ignore[misc]
    return await in_thread(threads, context, partial(_plainly, handler, given, arguments))


def _plainly(handler: Handler[..., object], given: object, arguments: tuple[object, ...]) -> object:
    if isinstance(given, ThreadContext):
        given.begin()
    return handler.function(*arguments)


async def in_thread(threads: ThreadPoolExecutor, context: Calls, call: Callable[[], T]) -> T:
    """Call a plain function in a thread.

    A thread can't be interrupted: `context.cancelled` tells the function, and `context.overstaying`
    tells the worker that it goes on.
    """

    def guarded() -> tuple[T | None, BaseException | None]:
        try:
            return call(), None
        except BaseException as error:  # noqa: BLE001 - raised below, where no cancellation is meant
            return None, error

    variables = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(threads, variables.run, guarded)
    try:
        result, raised = await asyncio.shield(future)
    except asyncio.CancelledError:
        context.left_behind(future)
        raise
    if raised is not None:
        raise raised
    return cast("T", result)
