"""The databases are those of tests/sql: each program runs in an empty one and in a used one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sql.conftest import Engine, Place, db, engine, fresh, place, used

__all__ = ["db", "engine", "fresh", "ids_grow", "place", "used"]

GROWING = """
    create or replace function pgflow._new_id() returns uuid language sql volatile as $$
        select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
            || '70008' || lpad(to_hex(set_config('test.last_id', (coalesce(
                nullif(current_setting('test.last_id', true), ''), '0')::bigint + 1)::text,
                false)::bigint), 15, '0'))::uuid
    $$"""


@pytest.fixture(autouse=True)
def ids_grow(place: Place, engine: Engine) -> Iterator[None]:
    """Have the engine's ids grow within a millisecond too.

    Else it is left to chance which of two runs comes first, and no program does the same twice.
    """
    body = engine.value("select pg_get_functiondef('pgflow._new_id()'::regprocedure)")
    place.admin.execute(GROWING)
    yield
    place.admin.execute(body)
