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
import asyncio
from pgflow import App, Worker
from pgflow.schema import migrate, status

app = App()
migrate(app.dsn)
assert status(app.dsn).is_current

@app.handler
async def hello(name: str) -> str:
    worker.stop()
    return f"hello {name}"

worker = Worker(app, app.dsn)
run_id = app.sync.enqueue(hello, "wheel")
asyncio.run(worker.run())
(run,) = app.sync.runs(run_id=run_id)
app.sync.close()
assert (run["state"], run["output"]) == ("completed", "hello wheel"), run
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
