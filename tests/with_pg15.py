"""Run a command against a throwaway PostgreSQL of the oldest supported version.

    python tests/with_pg15.py pytest tests/sql tests/race

The server's programs are in $PGFLOW_PG15_BIN (tests/prepare.sh finds or installs them); without it
nothing is run, the reason is told and the exit code is 0. The command finds the superuser's
address in $PGFLOW_TEST_DSN, and its exit code is ours. Use the checkout's own Python.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

# A file that is run has its own folder on the path, and not the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pgflow.embedded import EmbeddedServer
from pgflow.testing import databases


def main(command: list[str]) -> int:
    """Run `command` with a server and return its exit code."""
    programs = os.environ.get("PGFLOW_PG15_BIN")
    if not programs:
        reason = os.environ.get("PGFLOW_PG15_SKIP") or "run tests/prepare.sh, then . .venv/test.env"
        print(f"PostgreSQL 15 pass: skipped ({reason})", flush=True)  # noqa: T201
        return 0

    signal.signal(signal.SIGTERM, _interrupt)
    os.environ["PGFLOW_PG_BIN"] = programs
    # Not made here: the server makes its folder itself, for the user it runs as.
    folder = databases.base_folder() / f"pgflow-pg15-{secrets.token_hex(6)}"
    try:
        with EmbeddedServer(folder, settings=databases.FAST) as server:
            del os.environ["PGFLOW_PG_BIN"]  # the command's own servers are its own matter
            print(f"PostgreSQL 15 pass: {' '.join(command)}", flush=True)  # noqa: T201
            environment = {**os.environ, "PGFLOW_TEST_DSN": server.dsn}
            return subprocess.run(command, env=environment, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
