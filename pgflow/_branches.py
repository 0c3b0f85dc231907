"""Several things at once: all of them, or the first of them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, overload

from pgflow._calls import Calls, marker
from pgflow._journal import BRANCH, Scope
from pgflow._people import People
from pgflow._waits import Waits
from pgflow.errors import JournalMismatch, LeaseLost, MisplacedCall, Replayed

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

# What no other branch may win against.
_FATAL = (JournalMismatch, LeaseLost, MisplacedCall)


class First(NamedTuple, Generic[T]):
    """What `Context.first` returns: which branch won, counted from 0, and what it returned."""

    branch: int
    value: T


class _Branch(Scope):
    """One awaitable of gather or first, in a task of its own."""

    __slots__ = ("awaitable", "ended", "error", "value")

    def __init__(
        self, parent: Scope, path: str, awaitable: Awaitable[Any], *, together: bool
    ) -> None:
        super().__init__(parent.journal, parent, path, together=together)
        self.awaitable = awaitable
        self.ended = False
        self.error: BaseException | None = None
        self.value: Any = None

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._run())

    async def _run(self) -> None:
        self.task = asyncio.current_task()
        BRANCH.set(self)
        try:
            self.value = await self.awaitable
        except BaseException as error:  # noqa: BLE001 - raised again by gather or first
            if self.over:  # it waits, or has lost
                return
            self.error = error
        self.ended = True


class Branches(Calls):
    """Calls that have branches."""

    @overload
    async def gather(self, a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...
    @overload
    async def gather(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /
    ) -> tuple[A, B, C]: ...
    @overload
    async def gather(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
    ) -> tuple[A, B, C, D]: ...
    @overload
    async def gather(self, *awaitables: Awaitable[T]) -> tuple[T, ...]: ...
    async def gather(self, *awaitables: Awaitable[Any]) -> tuple[Any, ...]:
        """Do all at once and return their results in order.

        The run waits only when no branch can go on. If a branch raises, branches that still wait
        are given up, and the exception is raised when the others have ended.
        Example: `a, b = await ctx.gather(ctx.tool("transcode"), ctx.approval("editor"))`.
        """
        try:
            return await self._gather(awaitables)
        finally:
            _close(awaitables)

    @overload
    async def first(self, *awaitables: Awaitable[T]) -> First[T]: ...
    @overload
    async def first(self, *awaitables: Awaitable[Any]) -> First[Any]: ...
    async def first(self, *awaitables: Awaitable[Any]) -> First[Any]:
        """Do all at once until one has ended; return its number and value, or raise what it raised.

        The others are cancelled, and nobody answers what they asked for. The winner is journalled,
        so it is the same whenever the handler is resumed.
        Example: `branch, value = await ctx.first(ctx.wait_for("payment"), ctx.sleep(60))`.
        """
        try:
            return await self._first(awaitables)
        finally:
            _close(awaitables)

    async def _gather(self, awaitables: Sequence[Awaitable[Any]]) -> tuple[Any, ...]:
        scope, key = self.journal.enter("gather", "gather", numbered=True)
        branches = [
            _Branch(scope, f"{key}/{n}/", a, together=scope.together and _is_wait(a))
            for n, a in enumerate(awaitables)
        ]
        raised = self._settled(scope, "gather", key, "raised", branches)
        if raised is not None:
            await self._all(branches[raised : raised + 1])
            if raised_error := branches[raised].error:
                raise raised_error
        await self._all([b for b in branches if b.task is None])
        scope.latest = max([scope.latest, *(b.latest for b in branches)])
        scope.lease_no = max([scope.lease_no, *(b.lease_no for b in branches)])
        errors = [(n, b.error) for n, b in enumerate(branches) if b.error is not None]
        blocked = [b for b in branches if not b.ended]
        if errors:
            fatal = [(n, error) for n, error in errors if isinstance(error, _FATAL)]
            index, error = (fatal or errors)[0]
            for branch in blocked:
                self.journal.forget(branch)
            if blocked and raised is None and isinstance(error, Replayed):
                await self._settle(scope, key, "gather", {"raised": index})
            raise error
        if blocked:
            self.journal.suspend(scope)
        return tuple(branch.value for branch in branches)

    async def _first(self, awaitables: Sequence[Awaitable[Any]]) -> First[Any]:
        scope, key = self.journal.enter("first", "first", numbered=True)
        if not awaitables:
            raise MisplacedCall("ctx.first is called with nothing to wait for")
        branches = [
            _Branch(scope, f"{key}/{n}/", a, together=False) for n, a in enumerate(awaitables)
        ]
        index = self._settled(scope, "first", key, "winner", branches)
        if index is not None:
            await self._all(branches[index : index + 1])
        else:
            index = await self._race(branches)
        winner = branches[index]
        if not winner.ended:
            self.journal.suspend(scope)
        scope.latest = max(scope.latest, winner.latest)
        scope.lease_no = max(scope.lease_no, winner.lease_no)
        if winner.error is None or isinstance(winner.error, Replayed):
            await self._settle(scope, key, "first", {"winner": index})
        if winner.error is not None:
            raise winner.error
        return First(index, winner.value)

    async def _all(self, branches: Sequence[_Branch]) -> None:
        """Run branches until each has ended or waits."""
        tasks = [branch.start() for branch in branches]
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            await _end(tasks)

    async def _race(self, branches: Sequence[_Branch]) -> int:
        """Run branches until one has ended or all wait; return that one's index, else 0.

        Of several that end at once it is the one whose last entry came first into the journal.
        """
        tasks = [branch.start() for branch in branches]
        pending = set(tasks)
        ended: list[int] = []
        try:
            while pending and not ended:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                ended = [n for n, b in enumerate(branches) if b.ended and tasks[n].done()]
            if not ended:
                return 0
            fatal = [n for n in ended if isinstance(branches[n].error, _FATAL)]
            index = min(fatal or ended, key=lambda n: (branches[n].latest, n))
            for n, branch in enumerate(branches):
                if n != index:
                    branch.over = True
                    self.journal.forget(branch)
            return index
        finally:
            await _end(tasks)

    def _settled(
        self, scope: Scope, call: str, key: str, field: str, branches: Sequence[_Branch]
    ) -> int | None:
        """Return the branch that the journal says it came to."""
        entry = self.journal.made(scope, call, key)
        if entry is None:
            return None
        index = entry.value[field]
        if not isinstance(index, int) or index >= len(branches):
            raise JournalMismatch(f"ctx.{call} {key} went by branch {index}, which it hasn't now")
        return index

    async def _settle(self, scope: Scope, key: str, call: str, value: dict[str, int]) -> None:
        if key not in self.journal.entries and self.undos is None:
            await self.keep(scope, key, marker(call), value)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel what still runs, and wait until it has ended."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


def _close(awaitables: Iterable[Awaitable[Any]]) -> None:
    """Drop those that were never begun, and what they were given, without a warning."""
    for awaitable in awaitables:
        if inspect.iscoroutine(awaitable):
            if awaitable.cr_code in _HAVE_BRANCHES and awaitable.cr_frame is not None:
                _close(awaitable.cr_frame.f_locals["awaitables"])
            awaitable.close()


def _is_wait(awaitable: Awaitable[Any]) -> bool:
    """Whether it is a call that does nothing after its wait."""
    return inspect.iscoroutine(awaitable) and awaitable.cr_code in _WAITS


def _codes(*calls: Callable[..., Any]) -> frozenset[Any]:
    return frozenset(call.__code__ for call in calls)


_HAVE_BRANCHES = _codes(Branches.gather, Branches.first)
_WAITS = _codes(
    People.approval,
    People.form,
    People.input,
    Waits.tool,
    Waits.wait_for,
    Waits.sleep,
    Waits.interrupt,
    Waits.run,
    Branches.gather,
)
