"""The SQL travels with the program, however it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MIGRATE = """
import sys
sys.path[:0] = sys.argv[2:]
import pgflow.cli
from pgflow._locate import locate
from pgflow.schema import migrate
migrate(sys.argv[1])
print(locate("sql"))
"""


def sql_files(folder: str = "") -> set[str]:
    paths = [path for name in ("sql", "migrations") for path in (ROOT / name).glob("*.sql")]
    return {f"{folder}{path.parent.name}/{path.name}" for path in paths}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdist, and the wheel from it, in a copy of the checkout; return their folder."""
    if not find_spec("build"):
        pytest.skip("the package build is not installed (make brings it)")
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pgflow", "cli", "sql", "migrations"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--no-isolation", "-q"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    return copy / "dist"


@pytest.mark.slow
def test_the_wheel_has_the_sql_and_can_migrate(built: Path, tmp_path: Path, empty_dsn: str) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(tmp_path)
    assert {name for name in names if name.endswith(".sql")} == sql_files("pgflow/")
    assert {"pgflow/py.typed", "pgflow/cli/__init__.py"} <= names
    assert "pgflow/migrations/__init__.py" not in names  # yoyo would apply it
    assert {name.split("/")[0].rpartition(".")[2] for name in names} == {"pgflow", "dist-info"}
    command = [sys.executable, "-c", MIGRATE, empty_dsn, str(tmp_path)]
    used = subprocess.check_output(command, cwd="/", text=True)
    assert used == f"{tmp_path}/pgflow/sql\n"


@pytest.mark.slow
def test_the_sdist_has_the_sql(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {name for name in names if name.endswith(".sql")} == sql_files()
    assert {"LICENSE", "README.md", "pgflow/py.typed", "cli/__init__.py"} <= names


def test_the_checkout_installed_as_editable_uses_the_sql_beside_it(empty_dsn: str) -> None:
    urls = [found.read_text("direct_url.json") for found in distributions(name="pgflow-engine")]
    if not any(url and '"editable": true' in url for url in urls):
        pytest.skip("pgflow is not installed as editable (make does that)")
    command = [sys.executable, "-c", MIGRATE, empty_dsn]
    assert subprocess.check_output(command, cwd="/", text=True) == f"{ROOT}/sql\n"
