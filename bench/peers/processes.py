"""Driver processes: orders that end, and workers that go on until they are stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.peers.environments import ROOT, Environment
from bench.rounds import Failed


class DriverFailed(Failed):
    """A driver's process ended with an error; the message is the end of what it said."""


@dataclass(frozen=True)
class Tick:
    """What a recorder had counted at a moment; times are in microseconds."""

    at: int
    count: int
    first: int | None
    last: int | None
    latencies: list[float]


def order(
    environment: Environment, dsn: str, command: str, *, limit: float = 120, **more: Any
) -> dict[str, Any]:
    """Have a driver carry out an order, and return its result. Raises DriverFailed."""
    with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as folder:
        result = Path(folder) / "result.json"
        done = subprocess.run(
            driver(environment, Path(folder), command, result=str(result), **more),
            env={**environment.variables, "BENCH_DSN": dsn},
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )
        if done.returncode or not result.exists():
            said = done.stdout[-500:] + done.stderr[-1500:]
            raise DriverFailed(f"{environment.peer.name}: {command}: {said}")
        carried_out: dict[str, Any] = json.loads(result.read_text())
        return carried_out


def driver(environment: Environment, folder: Path, command: str, **more: Any) -> list[str]:
    """Write an order into a folder, and return the command line that carries it out."""
    peer = environment.peer
    order = {"peer": peer.driver, "command": command, "settings": dict(peer.settings), **more}
    file = folder / "order.json"
    file.write_text(json.dumps(order))
    return [*environment.command, str(file)]


@dataclass
class Worker:
    """A worker's process, and what its recorder has told so far."""

    process: subprocess.Popen[bytes]
    ticks_file: Path
    log: Path
    ticks: list[Tick] = field(default_factory=list)
    _offset: int = 0

    @classmethod
    def start(cls, environment: Environment, dsn: str, kind: str, folder: Path) -> Self:
        """Start a worker that handles runs of `kind`."""
        files = Path(tempfile.mkdtemp(dir=folder))
        ticks, log = files / "ticks", files / "log"
        ticks.touch()
        variables = {**environment.variables, "BENCH_DSN": dsn, "BENCH_TICKS": str(ticks)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(environment, files, kind),
                env={**variables, "PGFLOW_DSN": dsn},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return cls(process, ticks, log)

    @property
    def last(self) -> Tick:
        """The last line of the recorder, read now. Raises DriverFailed if the worker has ended."""
        if self.process.poll() is not None:
            raise DriverFailed(f"a worker ended: {self.log.read_text()[-1500:]}")
        with self.ticks_file.open() as file:
            file.seek(self._offset)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                self._offset += len(line)
                self.ticks.append(Tick(**json.loads(line)))
        return self.ticks[-1] if self.ticks else Tick(0, 0, None, None, [])

    @property
    def latencies(self) -> list[float]:
        """All latencies so far, in milliseconds."""
        return [latency for tick in self.ticks for latency in tick.latencies]

    def stop(self) -> None:
        """Ask it to end, then make it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _command(environment: Environment, folder: Path, kind: str) -> list[str]:
    """Return a worker's command: pgflow's is its own, those of the peers are their drivers."""
    if environment.peer.runtime == "pgflow":
        pgflow = [sys.executable, "-m", "pgflow.cli", "worker", "--app", "bench.app:app"]
        options = [f"--{name}={value}" for name, value in environment.peer.settings.items()]
        return [*pgflow, "--log-level=warning", *options]
    return driver(environment, folder, "work", kind=kind)


@contextmanager
def workers(
    environment: Environment, dsn: str, count: int = 1, kind: str = "noop"
) -> Iterator[list[Worker]]:
    """Run worker processes for as long as the block."""
    with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as folder, ExitStack() as stack:
        started = []
        for _ in range(count):
            started.append(Worker.start(environment, dsn, kind, Path(folder)))
            stack.callback(started[-1].stop)
        yield started
