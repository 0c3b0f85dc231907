"""The shipped migrations and functions."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from yoyo.connections import parse_uri

from pgflow import _yoyo
from pgflow._locate import locate
from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate, status


def test_the_real_schema_can_be_migrated_twice(dsn: str) -> None:
    assert migrate(dsn).applied == ()
    assert status(dsn).is_current


def test_every_migration_is_numbered_without_gaps_and_says_why() -> None:
    files = sorted(locate("migrations").glob("*.sql"))
    files = [path for path in files if not path.name.endswith(".rollback.sql")]
    assert [path.name[:5] for path in files] == [f"{n:04}." for n in range(1, len(files) + 1)]
    assert [path.name for path in files if not path.read_text().startswith("-- ")] == []


def test_sql_holds_only_what_can_be_replaced() -> None:
    words = ("create table", "create type", "create index", "alter table", "insert into")
    kept = [
        f"{path.name}: {line}"
        for path in locate("sql").glob("*.sql")
        for line in path.read_text().splitlines()
        if line.startswith(words)
    ]
    assert kept == []


def test_a_login_that_is_no_superuser_can_migrate(data_dir: Path) -> None:
    # On a server of its own: elsewhere a superuser has made the roles already.
    with EmbeddedServer(data_dir, settings={"fsync": "off"}) as server:
        with psycopg.connect(server.socket_dsn, autocommit=True) as admin:
            admin.execute("create role ann login createrole")
            admin.execute("create database hers owner ann")
        as_ann = make_conninfo(server.socket_dsn, user="ann", dbname="hers")
        migrate(as_ann)
        assert migrate(as_ann).applied == ()


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://ann:p%40ss%2Fw%3Ard@db.example:5433/app?sslmode=require",
        "postgresql://ann@/app?host=%2Frun%2Fpostgresql&port=5433",
        "postgresql://a:1,b:2/app?target_session_attrs=read-write",
        "host=/tmp/a user='odd name' password='with space & ?#' dbname=app options='-c a=b'",
        "postgresql://ann@[::1]:5433/app",
        "dbname=app",
    ],
)
def test_every_libpq_address_can_be_told_to_yoyo(dsn: str) -> None:
    uri = parse_uri(_yoyo.url(dsn))
    assert (uri.scheme, uri.hostname, uri.username) == ("postgresql+psycopg", None, None)
    expected = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    assert uri.args == {**expected, "schema": "pgflow_meta"}
