"""The databases are those of tests/sql: each program runs in an empty one and in a used one."""

from __future__ import annotations

from tests.sql.conftest import db, engine, fresh, place, used

__all__ = ["db", "engine", "fresh", "place", "used"]
