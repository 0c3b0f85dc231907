"""The engine's clock is the database's, unless the installation is one for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole


def test_a_session_sets_the_time_where_the_installation_allows_it(engine: Engine) -> None:
    assert engine.value("select pgflow.now()") == engine.now


def test_elsewhere_the_setting_is_not_heeded(engine: Engine) -> None:
    engine.rows("update pgflow.installation set test_clock = false")
    engine.later(days=300)
    assert engine.value("select pgflow.now() < %s - interval '200 days'", engine.now)
    assert engine.value(
        "select pgflow.now() between clock_timestamp() - interval '1 min' and clock_timestamp()"
    )


def test_a_new_installation_does_not_allow_it(engine: Engine) -> None:
    engine.rows("delete from pgflow.installation")
    engine.rows("insert into pgflow.installation default values")
    assert engine.value("select test_clock from pgflow.installation") is False


def test_there_is_one_installation(engine: Engine) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        engine.rows("insert into pgflow.installation default values")
    with pytest.raises(psycopg.errors.CheckViolation):
        engine.rows("insert into pgflow.installation (one) values (false)")


def test_every_login_lives_in_the_time_that_its_session_set(
    connect: Connect, make_role: MakeRole
) -> None:
    session = connect(make_role("pgflow_client"))
    session.later(hours=5)
    assert session.run(session.enqueue())["created_at"] == session.now


def test_within_a_transaction_time_goes_on(engine: Engine) -> None:
    engine.conn.execute("reset pgflow.test_now")
    with engine.conn.transaction():
        first = engine.value("select pgflow.now()")
        assert engine.value("select pgflow.now()") > first


def test_ids_are_of_version_7_and_rise_with_time(engine: Engine) -> None:
    ids = [engine.enqueue() for _ in range(3)]
    assert {run_id.version for run_id in ids} == {7}
    made = [engine.value("select pgflow._id_time(%s)", run_id) for run_id in ids]
    assert made == sorted(made)
    age = engine.value("select clock_timestamp()") - made[0]
    assert timedelta() <= age < timedelta(minutes=1)
