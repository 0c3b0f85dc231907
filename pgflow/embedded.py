"""A real PostgreSQL for development, demos and tests, started from a wheel or the system.

One server per data directory, shared by every process that opens the directory and stopped by the
last of them. File locks say who is there, because the kernel lets go of them however a process
ends: `alive` is held by the server's own processes, `users` by those who use it.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import fcntl
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pgflow._cluster import Cluster

_SETTINGS: Final[Mapping[str, str | int]] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": 200,
    "shared_buffers": "128MB",
    "timezone": "UTC",
}


def default_data_dir() -> Path:
    """Return where the embedded server keeps its data: `$PGFLOW_DATA_DIR`, else the user's place.

    That is `~/.local/share/pgflow` (or below `$XDG_DATA_HOME`), on a Mac
    `~/Library/Application Support/pgflow`, and for root, whose home the server's user can't enter,
    `/var/lib/pgflow`.
    """
    if named := os.environ.get("PGFLOW_DATA_DIR"):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/pgflow")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pgflow"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pgflow"


def resolve_dsn(dsn: str | None = None) -> str:
    """Return the database to use: `dsn`, else `$PGFLOW_DSN`, else the embedded server.

    The embedded server is started where it doesn't run, and left when this process exits.
    Raises what EmbeddedServer.start() raises.
    """
    return dsn or os.environ.get("PGFLOW_DSN") or _of_this_process().start().socket_dsn


@functools.cache
def _of_this_process() -> EmbeddedServer:
    server = EmbeddedServer()
    atexit.register(server.close)
    return server


class EmbeddedServer:
    """The PostgreSQL server of one data directory.

    `settings` are server settings by name, used by whoever starts the server; `port` is the TCP
    port to insist on, else it is the last one or any free one; `timeout` is in seconds.

        with EmbeddedServer(folder) as server:
            psycopg.connect(server.dsn)

    As a context manager it starts the server, or uses the one that runs, and at the end stops it
    unless another process uses it or it was started detached. A server whose users were all killed
    goes on, and the next one to come takes it over.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        settings: Mapping[str, str | int] | None = None,
        port: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.data_dir = Path(data_dir).absolute() if data_dir else default_data_dir()
        self.settings = {**_SETTINGS, **(settings or {})}
        self._port = port
        self._cluster = Cluster(self.data_dir, timeout)
        self._users: int | None = None
        self._opened_by = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dsn(self) -> str:
        """The address for anybody on this machine, with the password: TCP on 127.0.0.1."""
        password = self._cluster.password.read_text()
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/postgres"

    @property
    def socket_dsn(self) -> str:
        """The faster address, for processes of the same user: a Unix socket, no password."""
        return self._cluster.by_socket()

    @property
    def port(self) -> int:
        """The server's TCP port."""
        return self._cluster.state().port

    @property
    def pid(self) -> int:
        """The process number of the server's postmaster."""
        return self._cluster.state().pid

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._cluster.log

    def is_running(self) -> bool:
        """Tell whether a server of this directory lives, whoever started it."""
        return self.data_dir.is_dir() and self._cluster.lives()

    def start(self, *, detached: bool = False) -> Self:
        """Start the server, or use the one that runs; safe to call again, also after a crash.

        A detached server stays when its users have gone, until somebody calls stop().
        Raises EmbeddedNotInstalled, DataDirectoryUnusable or ServerStartFailed.
        """
        self._cluster.prepare()
        with self._cluster.alone():
            self._enter()
            try:
                if not self._cluster.answers():
                    self._cluster.launch(self.settings, self._port)
                if detached:
                    state = dataclasses.replace(self._cluster.state(), detached=True)
                    self._cluster.remember(state)
            except BaseException:
                self._leave()
                raise
        return self

    def close(self) -> None:
        """Leave the server; the last one to leave stops it, unless it is detached."""
        if self._users is None or self._opened_by != os.getpid():
            return  # a forked child must not take its parent's server away
        with self._cluster.alone(), contextlib.suppress(BlockingIOError):
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not self._cluster.state().detached:
                    self._cluster.halt()
            finally:
                self._leave()

    def stop(self) -> None:
        """Stop the server, whoever started or uses it; nothing happens when none runs."""
        if self.data_dir.is_dir():
            with self._cluster.alone():
                self._cluster.halt()
                self._leave()

    def _enter(self) -> None:
        if self._users is None:
            self._users = os.open(self.data_dir / "users", os.O_RDWR | os.O_CREAT, 0o600)
            self._opened_by = os.getpid()
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _leave(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None
