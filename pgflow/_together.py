"""What tasks of one event loop enqueue at once goes in one statement, with one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any
from uuid import UUID

from pgflow import gateway
from pgflow._statement import Statement, _values
from pgflow.errors import Refusal

# Statements under way at a time, each on a connection of the pool's eight.
_AT_ONCE = 4
_MOST = 1000  # enqueues in a statement
_MOST_BYTES = 1 << 20  # of inputs in a statement, unless one alone is larger

Enqueue = tuple[Statement[UUID], asyncio.Future[UUID]]


class Together:
    """Carries out single enqueues: in one statement what tasks ask for before any of them waits.

    What comes while as many statements are under way as may be, waits and goes together too. A
    refusal of many is asked again one by one, so that it meets who caused it.
    """

    def __init__(self, execute: Callable[[Statement[Any]], Awaitable[Any]]) -> None:
        self._execute = execute
        self._under_way = 0
        self._is_called = False
        self._waiting: dict[Hashable, list[Enqueue]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def enqueue(self, statement: Statement[UUID]) -> UUID:
        """Execute `gateway.enqueue`, together with others where they differ by their inputs."""
        kind = _kind(statement)
        if kind is None:
            run_id: UUID = await self._execute(statement)
            return run_id
        loop = asyncio.get_running_loop()
        future: asyncio.Future[UUID] = loop.create_future()
        self._waiting.setdefault(kind, []).append((statement, future))
        if not self._is_called:
            self._is_called = True
            loop.call_soon(self._go_on)  # when the tasks that can go on now have
        return await future

    def _go_on(self) -> None:
        """Send what waits, as far as statements may be under way."""
        self._is_called = False
        while self._waiting and self._under_way < _AT_ONCE:
            self._under_way += 1
            task = asyncio.create_task(self._write(self._next()))
            self._tasks.add(task)  # an event loop alone may forget it
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> list[Enqueue]:
        """Take of the kind that has waited longest what goes in one statement."""
        kind = next(iter(self._waiting))
        group = self._waiting.pop(kind)
        size = count = 0
        for statement, _ in group[:_MOST]:
            size += len(statement.params["input"])
            if count and size > _MOST_BYTES:
                break
            count += 1
        if group[count:]:
            self._waiting[kind] = group[count:]
        return group[:count]

    async def _write(self, group: list[Enqueue]) -> None:
        try:
            group = [(statement, future) for statement, future in group if not future.done()]
            outcomes = await self._outcomes([statement for statement, _ in group])
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if future.done():  # its caller waits no more
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        finally:
            for _, future in group:
                future.cancel()  # whom this, interrupted, has told nothing
            self._under_way -= 1
            self._go_on()

    async def _outcomes(self, statements: list[Statement[UUID]]) -> list[UUID | Exception]:
        try:
            if len(statements) == 1:
                return [await self._execute(statements[0])]
            return await self._execute(_join(statements)) if statements else []
        except Exception as error:  # noqa: BLE001 - raised again, by each call that waits
            if isinstance(error, Refusal) and len(statements) > 1:
                return [(await self._outcomes([one]))[0] for one in statements]
            return [error] * len(statements)


def _kind(enqueue: Statement[UUID]) -> Hashable:
    """Return what two enqueues share if one statement can do both; None if none can."""
    params = enqueue.params
    if params["run_id"] is not None or params["budget"] is not None:
        return None
    own = {"input": None, "idempotency_key": params["idempotency_key"] is not None}
    tags = params["tags"] and tuple(params["tags"])
    return tuple({**params, **own, "tags": tags}.values())


def _join(enqueues: Sequence[Statement[UUID]]) -> Statement[list[UUID]]:
    """Make one statement of enqueues of one kind."""
    shared = enqueues[0].params
    keys = [enqueue.params["idempotency_key"] for enqueue in enqueues]
    own = {
        "inputs": [enqueue.params["input"] for enqueue in enqueues],
        "idempotency_keys": None if shared["idempotency_key"] is None else keys,
    }
    return Statement(gateway.ENQUEUE_MANY, {**shared, **own}, _values)
