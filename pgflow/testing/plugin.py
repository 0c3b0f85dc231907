"""The pytest plugin: a server per session, a database per test, and a scene on it."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pgflow.app import App
from pgflow.testing import databases
from pgflow.testing.scene import Scene

_NAME = "pgflow-pytest-{}"
_FOLDER = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --pgflow-dsn and the setting pgflow_app."""
    parser.getgroup("pgflow").addoption(
        "--pgflow-dsn",
        metavar="DSN",
        help="superuser's DSN of the server to make pgflow's test databases on;"
        " else $PGFLOW_TEST_DSN, else an embedded server",
    )
    parser.addini("pgflow_app", "the pgflow.App that pgflow_scene uses, as module:name")


def pytest_configure(config: pytest.Config) -> None:
    """Name the folder of the embedded server; the workers of xdist are told it."""
    given = getattr(config, "workerinput", {}).get("pgflow_folder")
    name = _NAME.format(secrets.token_hex(4))
    config.stash[_FOLDER] = Path(given) if given else databases.base_folder() / name


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - xdist has no types
    """Tell a worker of xdist which server to share."""
    node.workerinput["pgflow_folder"] = str(node.config.stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the embedded server, once, when all workers are done."""
    folder = config.stash.get(_FOLDER, None)
    if folder is not None and not hasattr(config, "workerinput") and folder.exists():
        databases.remove_server(folder)


@pytest.fixture(scope="session")
def pgflow_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """Return a superuser's DSN: --pgflow-dsn, $PGFLOW_TEST_DSN, or an embedded server's."""
    given = pytestconfig.getoption("--pgflow-dsn") or os.environ.get("PGFLOW_TEST_DSN")
    if given:
        yield given
        return
    folder = pytestconfig.stash[_FOLDER]
    databases.remove_abandoned(folder.parent, _NAME.format("*"), timedelta(hours=12))
    with databases.server(folder) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def pgflow_template(pgflow_server: str) -> Iterator[str]:
    """Return the name of the migrated database that tests get copies of."""
    with databases.template(pgflow_server) as name:
        yield name


@pytest.fixture
def pgflow_dsn(
    pgflow_server: str, pgflow_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Return the DSN of a migrated database of the test's own, which is $PGFLOW_DSN meanwhile."""
    with databases.clone(pgflow_server, pgflow_template) as dsn:
        monkeypatch.setenv("PGFLOW_DSN", dsn)
        yield dsn


@pytest.fixture
def pgflow_app(pytestconfig: pytest.Config) -> App | None:
    """Return the app under test: what the setting pgflow_app names. Override it with your own."""
    named = str(pytestconfig.getini("pgflow_app"))
    if not named:
        return None
    module, _, name = named.partition(":")
    app = getattr(importlib.import_module(module), name or "app", None)
    if not isinstance(app, App):
        raise pytest.UsageError(f"pgflow_app = {named}: there is no pgflow.App of that name")
    return app


@pytest.fixture
def pgflow_scene(pgflow_dsn: str, pgflow_app: App | None) -> Iterator[Scene]:
    """Return a scene on the test's database; see pgflow.testing.Scene."""
    with Scene(pgflow_dsn, pgflow_app) as scene:
        yield scene
