"""What docs/operate.md tells operators to type is right."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()
BLOCKS = re.findall(r"^```sql\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_every_statement_can_be_executed_in_the_order_of_the_page(db: psycopg.Connection) -> None:
    assert len(BLOCKS) > 8
    with db.transaction(force_rollback=True):
        for block in BLOCKS:
            db.execute(block.encode())


@pytest.mark.parametrize("name", ["queue_stats", "runs", "inbox", "worker_status"])
def test_a_reader_may_ask_what_the_page_says(db: psycopg.Connection, name: str) -> None:
    queries = [block for block in BLOCKS if f"from pgflow.{name}" in block]
    assert queries
    with db.transaction(force_rollback=True):
        db.execute("set local role pgflow_reader")
        for query in queries:
            db.execute(query.encode())
