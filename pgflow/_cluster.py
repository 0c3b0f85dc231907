"""One data directory of the embedded server: its files, its lock files, its postmaster."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg

from pgflow import _postgres
from pgflow.errors import (
    DataDirectoryUnusable,
    ServerNotRunning,
    ServerStartFailed,
    ServerStopFailed,
)

_LONGEST_SOCKET = 90  # bytes of its folder; the system allows 107 with the file's name
_HALTS = ((signal.SIGINT, 30), (signal.SIGQUIT, 5), (signal.SIGKILL, 5))  # seconds to wait

# Kept here and not in the objects, so that whoever looks next reaps a server that was killed.
_children: list[subprocess.Popen[bytes]] = []


@dataclasses.dataclass(frozen=True)
class State:
    """What the one who started the server leaves for the others, in server.json."""

    port: int
    pid: int
    socket: str
    detached: bool = False


class Cluster:
    """The files below `folder`, and the server processes that work on them."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self.password = folder / "password"
        self._data = folder / "postgres"
        self._timeout = timeout

    def prepare(self) -> None:
        """Make the folder, and check that the server's user can work in it."""
        self._account = account = _postgres.account_for(self._data)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._own(self.folder)
        except OSError as problem:
            raise DataDirectoryUnusable(f"cannot make {self.folder}: {problem}") from problem
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise DataDirectoryUnusable(f"{self.folder} belongs to another user")
        if account and (closed := _postgres.closed_to(self._data, account)):
            raise DataDirectoryUnusable(
                f"{self.folder} cannot be used: the server runs as the user with id "
                f"{account.uid}, who may not enter {closed}. Set $PGFLOW_DATA_DIR to another place."
            )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder's own lock: one process at a time starts or stops its server."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def state(self) -> State:
        """Return what is known of the server; ServerNotRunning if none was ever started."""
        try:
            return State(**json.loads((self.folder / "server.json").read_bytes()))
        except FileNotFoundError:
            raise ServerNotRunning from None

    def remember(self, state: State) -> None:
        """Write `state` down, whole or not at all."""
        new = self.folder / "server.json.new"
        new.write_text(json.dumps(dataclasses.asdict(state)))
        new.replace(self.folder / "server.json")

    def lives(self) -> bool:
        """Tell whether any process of the server is left; a process number can't say that."""
        for child in _children[:]:
            if child.poll() is not None:
                _children.remove(child)
        with self._open_alive() as alive:
            try:
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def answers(self) -> bool:
        """Wait until the living server takes connections; False when there is none."""
        deadline = time.monotonic() + self._timeout
        while self.lives():
            with contextlib.suppress(psycopg.OperationalError, ServerNotRunning):
                psycopg.connect(self.by_socket(), connect_timeout=2).close()
                return True
            if time.monotonic() > deadline:
                raise ServerStartFailed(
                    f"a server of {self.folder} lives but does not answer; see {self.log}"
                )
            time.sleep(0.01)
        return False

    def by_socket(self) -> str:
        """Return the address of the Unix socket."""
        state = self.state()
        folder = quote(state.socket, safe="")
        return f"postgresql://postgres@/postgres?host={folder}&port={state.port}"

    def launch(self, settings: Mapping[str, str | int], port: int | None) -> None:
        """Start the server, which nobody else may be doing, and wait until it answers."""
        programs = _postgres.readable_copy(_postgres.find_programs(), self._account)
        if not self._data.exists():
            self._make(programs)
        made_by = int((self._data / "PG_VERSION").read_text())
        if made_by != (ours := _postgres.major_version(programs)):
            raise DataDirectoryUnusable(
                f"{self._data} was made by PostgreSQL {made_by}, and this is {ours}"
            )
        where = self._socket_folder()
        self._disown_lock_files(where)
        # A killed server's last processes hold its memory for some 50 ms more, and a free port
        # may be taken by somebody else before the server has it.
        passing = ["pre-existing shared memory block"] + ["Address already in use"] * (not port)
        deadline = time.monotonic() + self._timeout
        while not self._spawn(programs, where, settings, port or self._free_port()):
            if not any(reason in self._told for reason in passing) or time.monotonic() > deadline:
                raise ServerStartFailed(f"no server of {self.folder} came up:\n{self._told}")
            time.sleep(0.05)

    def halt(self) -> None:
        """Stop the server if it lives: politely, then firmly."""
        for how, seconds in _HALTS:
            if not self.lives():
                break
            pid = self.state().pid
            if _postgres.is_postgres(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
                    os.kill(pid, signal.SIGCONT)  # it may have been stopped by a debugger or a test
            deadline = time.monotonic() + seconds
            while self.lives() and time.monotonic() < deadline:
                time.sleep(0.005)
        if self.lives():
            raise ServerStopFailed(f"the server of {self.folder} does not stop; see {self.log}")
        with contextlib.suppress(ServerNotRunning):
            where = Path(self.state().socket)
            if where.parent != self.folder:  # a place made for one run, see _socket_folder
                shutil.rmtree(where, ignore_errors=True)

    def _make(self, programs: Path) -> None:
        """Run initdb beside the final place, so that a killed one leaves nothing half-made."""
        self.password.touch(mode=0o600)
        self.password.write_text(secrets.token_urlsafe(24))
        if self._account:
            os.chown(self.password, self._account.uid, self._account.gid)
        new = self.folder / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        self._own(new)
        locale = "C" if sys.platform == "darwin" else "C.UTF-8"
        words = ["-U", "postgres", "-E", "UTF8", f"--locale={locale}", "--no-sync"]
        # The socket lies in a closed folder; TCP is open to every user of the machine.
        access = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={self.password}"]
        initdb = self._run([programs / "initdb", "-D", new, *words, *access])
        try:
            failed = initdb.wait()
        except BaseException:  # a signal made an exception: initdb has its own session
            os.killpg(initdb.pid, signal.SIGKILL)
            initdb.wait()
            raise
        if failed:
            raise ServerStartFailed(f"initdb failed:\n{self._told}")
        new.rename(self._data)

    def _spawn(
        self, programs: Path, where: Path, settings: Mapping[str, str | int], port: int
    ) -> bool:
        """Start the server once; True when it takes connections, False when it gave up."""
        command: list[str | Path] = [programs / "postgres", "-D", self._data, "-k", where]
        for name, value in {**settings, "port": port}.items():
            command += ["-c", f"{name}={value}"]
        with self._open_alive() as alive:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            child = self._run(command, alive)  # which inherits the lock, and hands it on
        _children.append(child)
        self.remember(State(port, child.pid, str(where)))
        return self.answers()

    def _run(self, command: list[str | Path], *inherits: int) -> subprocess.Popen[bytes]:
        """Start a program as the server's user; what it tells from here on is in the log."""
        user = self._account
        with self.log.open("ab") as log:
            self._told_from = log.tell()
            return subprocess.Popen(  # noqa: S603 (our own command, no shell)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=inherits,
                cwd=self.folder,
                env={k: v for k, v in os.environ.items() if not k.startswith("PG")},
                start_new_session=True,  # a Ctrl-C in the terminal is not for the server
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )

    @property
    def _told(self) -> str:
        return self.log.read_bytes()[self._told_from :].decode(errors="replace")

    @contextlib.contextmanager
    def _open_alive(self) -> Iterator[int]:
        alive = os.open(self.folder / "alive", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield alive
        finally:
            os.close(alive)

    def _own(self, folder: Path) -> None:
        """Make `folder`, closed to others, and give it to the server's user while it is empty."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._account and not any(folder.iterdir()):
            os.chown(folder, self._account.uid, self._account.gid)

    def _free_port(self) -> int:
        """Return the last port, so that addresses stay true after a crash, or any free one."""
        with contextlib.suppress(ServerNotRunning, OSError):
            return _bind(self.state().port)
        return _bind(0)

    def _socket_folder(self) -> Path:
        folder = self.folder / "socket"
        if len(os.fsencode(folder)) > _LONGEST_SOCKET:
            folder = Path(tempfile.mkdtemp(prefix="pgflow-", dir="/tmp"))
        self._own(folder)
        return folder

    def _disown_lock_files(self, socket_folder: Path) -> None:
        """Let PostgreSQL take over the lock files of a server that is dead.

        PostgreSQL believes in them as long as any process has the number in them: a zombie, or
        after a container's restart a stranger. The data's lock file is not deleted but given our
        number, which PostgreSQL ignores because we are its parent: by the other lines it checks
        that no old shared memory is in use.
        """
        file = self._data / "postmaster.pid"
        if file.exists():
            pid, _, rest = file.read_text().partition("\n")
            if pid.strip().isdigit() and _postgres.is_postgres(int(pid)):
                return  # started by hand, not by us: it will tell
            file.write_text(f"{os.getpid()}\n{rest}")
        for file in socket_folder.glob(".s.PGSQL.*"):
            file.unlink()


def _bind(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])
