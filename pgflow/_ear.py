"""Hints for those who wait: one listening connection per client, however many wait."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from pgflow._listener import Listener

Ping = Callable[[str], Awaitable[None]]


INBOX = "inbox"
_ENDED = " ended"


def end_of(run_id: UUID | str) -> str:
    """Return the topic that is only a run's end."""
    return _plain(run_id) + _ENDED


def _plain(topic: UUID | str | None) -> str:
    with contextlib.suppress(ValueError):  # what is no id the database refuses
        return str(UUID(str(topic)))
    return str(topic)


class Ear:
    """Who waits for which run, or for the inbox. Hints come once it has been started."""

    def __init__(self) -> None:
        self._waking: dict[str, set[Callable[[], None]]] = {}
        self._changing = threading.Lock()
        self._listener: Listener | None = None

    @property
    def proven(self) -> bool:
        """Whether hints do come: the connection was heard of within the last seconds."""
        return self._listener is not None and self._listener.proven

    @contextmanager
    def waits(self, topic: UUID | str | None, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called at each hint about a run, its end or the INBOX; None: at none."""
        key = _plain(topic)
        with self._changing:
            self._waking.setdefault(key, set()).add(wake)
        try:
            yield
        finally:
            with self._changing:
                self._waking[key].discard(wake)
                if not self._waking[key]:
                    del self._waking[key]

    def _hear(self, payload: str) -> None:
        kind, _, rest = payload.partition(" ")
        with self._changing:
            if not payload:  # connected: what was said before, nobody heard
                wakings = [wake for wakes in self._waking.values() for wake in wakes]
            elif kind == "run":
                _, _, told = rest.partition(" ")
                topics = {told, told.removesuffix(_ENDED)}
                wakings = [wake for topic in topics for wake in self._waking.get(topic, ())]
            elif kind == INBOX:
                wakings = list(self._waking.get(INBOX, ()))
            else:
                wakings = []
        for wake in wakings:
            wake()

    def _make(self, dsn: str, ping: Ping) -> Listener:
        return Listener(dsn, secrets.token_hex(8), self._hear, ping)


class AsyncEar(Ear):
    """Listens in a task of the loop in which it was started."""

    def __init__(self) -> None:
        super().__init__()
        self._task: asyncio.Task[None] | None = None

    def start(self, dsn: str, ping: Ping) -> None:
        """Begin to listen; again is a no-op."""
        if self._task is None or self._task.done():
            self._listener = self._make(dsn, ping)
            self._task = asyncio.create_task(self._listener.run())

    async def close(self) -> None:
        """Stop listening and close the connection."""
        task, self._task, self._listener = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class ThreadEar(Ear):
    """Listens in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, dsn: str, ping: Ping) -> None:
        """Begin to listen; again is a no-op."""
        with self._changing:
            if self._thread is not None:
                return
            self._listener = self._make(dsn, ping)
            running = threading.Event()
            self._thread = threading.Thread(
                target=self._work, args=(self._listener, running), name="pgflow-ear", daemon=True
            )
        self._thread.start()
        running.wait()

    def close(self) -> None:
        """Stop listening and close the connection."""
        with self._changing:
            thread, self._thread, self._listener = self._thread, None, None
        if thread is None or self._loop is None or self._task is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._task.cancel)
        thread.join()

    def _work(self, listener: Listener, running: threading.Event) -> None:
        async def listen() -> None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(listener.run())
            running.set()
            await asyncio.gather(self._task, return_exceptions=True)

        asyncio.run(listen())
