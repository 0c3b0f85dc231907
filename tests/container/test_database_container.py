from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from pgflow.schema import migrate

if TYPE_CHECKING:
    from tests.container.conftest import Database

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ENQUEUE: LiteralString = "select pgflow.enqueue('h', '{}')"
COUNT: LiteralString = "select count(*) from pgflow.run where handler = 'h' and state = 'pending'"


def pending(connection: psycopg.Connection) -> int:
    row = connection.execute(COUNT).fetchone()
    assert row
    return int(row[0])


def test_a_container_takes_the_schema_and_a_run(database: Database) -> None:
    migrate(database.dsn)
    with database.connect() as connection:
        connection.execute(ENQUEUE)
        assert pending(connection) == 1


def test_what_was_committed_survives_the_kill_of_the_container(database: Database) -> None:
    migrate(database.dsn)
    with database.connect() as connection:
        connection.execute(ENQUEUE)
        database.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute(ENQUEUE)

    with pytest.raises(psycopg.OperationalError):
        database.connect(timeout=2)

    database.start()
    with database.connect() as connection:
        assert pending(connection) == 1
        connection.execute(ENQUEUE)
        assert pending(connection) == 2


def test_a_paused_container_fails_a_connect_by_its_timeout_and_then_goes_on(
    database: Database,
) -> None:
    with database.connect() as connection:
        database.pause()
        try:
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                database.connect(timeout=2)
        finally:
            database.unpause()
        # What was connected before has noticed nothing.
        assert connection.execute("select 1").fetchone() == (1,)
    database.connect(timeout=2).close()
