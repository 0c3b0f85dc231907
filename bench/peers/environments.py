"""An environment for each peer: a virtual environment or a folder of node_modules, below .bench/.

Whoever cannot be installed is skipped, and the result says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers.catalogue import Peer

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".bench"
DRIVERS: Final = Path(__file__).parent / "drivers"


class NotInstallable(Exception):
    """The peer cannot be installed here; the message says why."""


@dataclass(frozen=True)
class Environment:
    """A peer that is installed: how its driver is called."""

    peer: Peer
    command: tuple[str, ...]
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """What its processes find in their environment."""
        return {**os.environ, "BENCH_PEER_FOLDER": str(self.folder), "PYTHONPATH": str(ROOT)}


def prepare(peer: Peer) -> Environment:
    """Install a peer, unless it is installed. Raises NotInstallable."""
    folder = CACHE / peer.name
    if peer.runtime == "pgflow":
        return Environment(peer, (sys.executable, str(DRIVERS / "driver.py")), ROOT)
    stamp = folder / "installed.txt"
    wanted = "\n".join(peer.packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            (_virtual_environment if peer.runtime == "python" else _node_modules)(peer, folder)
        except NotInstallable:
            shutil.rmtree(folder)
            raise
        stamp.write_text(wanted)
    if peer.runtime == "python":
        return Environment(
            peer, (str(folder / "venv/bin/python"), str(DRIVERS / "driver.py")), folder
        )
    node = folder / "node_modules/node/bin/node"
    return Environment(peer, (str(node), str(DRIVERS / f"drive_{peer.driver}.mjs")), folder)


def _virtual_environment(peer: Peer, folder: Path) -> None:
    venv = folder / "venv"
    _run([_python(peer.python), "-m", "venv", str(venv)])
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _run([*pip, *peer.packages])


def _node_modules(peer: Peer, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstallable("there is no npm on this machine")
    (folder / "package.json").write_text('{"private": true}\n')
    options = ["--no-audit", "--no-fund", "--loglevel=error"]
    _run([npm, "install", *options, *peer.packages], folder)


def _python(oldest: tuple[int, int]) -> str:
    """Return a Python of at least that version: this one, one on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    names = [f"python3.{minor}" for minor in range(15, oldest[1] - 1, -1)]
    found = [sys.executable, *filter(None, map(shutil.which, names))]
    found += [str(path) for name in names for path in pyenv.glob(f"versions/*/bin/{name}")]
    question = f"import sys; sys.exit(sys.version_info < {oldest})"
    for python in found:
        if (
            subprocess.run([python, "-c", question], capture_output=True, check=False).returncode
            == 0
        ):
            return python
    raise NotInstallable(f"there is no Python {oldest[0]}.{oldest[1]} or newer on this machine")


def _run(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = next((line for line in reversed(said) if "rror" in line), said[-1] if said else "")
        raise NotInstallable(f"{Path(command[0]).name} failed: {last}")


def initialize(environment: Environment, dsn: str) -> None:
    """Run what the peer's own command has to do before its driver can make the schema."""
    if not environment.peer.init:
        return
    name, *arguments = environment.peer.init
    command = [str(environment.folder / "venv/bin" / name), *arguments, dsn]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstallable(f"{name} failed: {done.stderr.strip()[-300:]}")
