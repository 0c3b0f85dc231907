"""Lets a real worker execute what is ready, until nothing is."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import linecache
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from pgflow.app import App
from pgflow.testing.records import Watch
from pgflow.worker import Worker

_LEAVING = 5.0  # seconds that a worker is given to stop


class StillBusy(AssertionError):
    """Something was still pending or running when the time was up."""


async def until_idle(app: App, dsn: str, watch: Watch, timeout: float, concurrency: int) -> None:  # noqa: ASYNC109 - a bound that is explained
    """Run a worker in this event loop until nothing is pending or running.

    Raises StillBusy, which says where the handlers are.
    """
    __tracebackhide__ = True
    working = asyncio.create_task(_work(app, dsn, watch, concurrency))
    try:
        await asyncio.wait({working}, timeout=timeout)
        told = None if working.done() else _explain(app, watch, timeout, asyncio.all_tasks())
    finally:
        working.cancel()
        await asyncio.wait({working})
    if told is not None:
        raise StillBusy(told)
    await working


def until_idle_in_thread(
    app: App, dsn: str, watch: Watch, timeout: float, concurrency: int
) -> None:
    """Do so in a thread with an event loop of its own, which a handler may block.

    Raises StillBusy.
    """
    __tracebackhide__ = True
    runner = _Thread(_work(app, dsn, watch, concurrency))
    told = None
    try:
        runner.thread.join(timeout)
        if runner.thread.is_alive():
            told = _explain(app, watch, timeout, runner.tasks())
    finally:
        runner.stop()
    if told is not None:
        raise StillBusy(told)
    if runner.raised is not None:
        raise runner.raised


async def _work(app: App, dsn: str, watch: Watch, concurrency: int) -> None:
    if await asyncio.to_thread(watch.is_idle):
        return
    worker = Worker(app, dsn, concurrency=concurrency, project=app.project, grace=0)
    working = asyncio.create_task(worker.run())
    try:
        while not (working.done() or await asyncio.to_thread(watch.is_idle)):  # noqa: ASYNC110 - asks a database
            await asyncio.sleep(0.002)
    finally:
        worker.stop()
        worker.stop()
        await asyncio.wait({working}, timeout=_LEAVING)
        working.cancel()
    await working


class _Thread:
    """A coroutine in a thread, with an event loop of its own and the caller's context."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self.raised: BaseException | None = None
        self._work = work
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        # A daemon: a handler that blocks the loop for ever must not keep pytest from ending.
        run = contextvars.copy_context().run
        self.thread = threading.Thread(
            target=run, args=(self._run,), name="pgflow scene", daemon=True
        )
        self.thread.start()

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return what goes on in the loop."""
        return asyncio.all_tasks(self._loop)

    def stop(self) -> None:
        """Cancel what is still going on, and wait for it for as long as a worker may take."""
        if self.thread.is_alive() and self._task is not None:
            with suppress(RuntimeError):  # it has ended in the meantime, and its loop is closed
                self._loop.call_soon_threadsafe(self._task.cancel)
            self.thread.join(_LEAVING + 1.0)

    def _run(self) -> None:
        async def work() -> None:
            self._task = asyncio.current_task()
            await self._work

        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.raised = error


def _explain(app: App, watch: Watch, timeout: float, tasks: set[asyncio.Task[Any]]) -> str:
    places = dict(_places(app, tasks))
    lines = [f"not idle after {timeout:g} s:"]
    for run in watch.busy():
        place = places.get(run["handler"]) if run["state"] == "running" else None
        lines.append(f"  {run['state']} {run['handler']} {run['run_id']}")
        lines += [f"    at {place}"] if place else []
    lines.append("A handler that needs longer is given it with run_until_idle(timeout=...).")
    return "\n".join(lines)


def _places(app: App, tasks: set[asyncio.Task[Any]]) -> Iterator[tuple[str, str]]:
    """Yield the name of each handler that is being executed, with the line that it has reached."""
    names: dict[CodeType, str] = {}
    for handler in app.registry.handlers.values():
        code = getattr(inspect.unwrap(handler.function), "__code__", None)
        if isinstance(code, CodeType):
            names[code] = handler.name
    frames = [frame for task in tasks for frame in _awaiting(task)]
    for top in sys._current_frames().values():  # noqa: SLF001 - there is no public way
        frames += _callers(top)
    for frame in frames:
        if name := names.get(frame.f_code):
            file, line = frame.f_code.co_filename, frame.f_lineno
            yield name, f"{Path(file).name}:{line}: {linecache.getline(file, line).strip()}"


def _awaiting(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Yield the frames of a task that waits, from the outside in."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        if (frame := getattr(coroutine, "cr_frame", None)) is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None)


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
