"""What migrate() promises, on small programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgflow.errors import DatabaseIsNewer, MigrationBusy
from pgflow.schema import migrate, status

if TYPE_CHECKING:
    from tests.migrate.conftest import Source


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row
    return row[0]


def history(dsn: str) -> object:
    return value(dsn, "select array_agg(v.version order by v.number) from pgflow_meta.version v")


def test_the_second_time_changes_nothing(empty_dsn: str, source: Source) -> None:
    first = migrate(empty_dsn, source.program())
    assert (first.applied, first.version) == (("0001.first",), "1.2.0")
    assert migrate(empty_dsn, source.program()).applied == ()
    assert history(empty_dsn) == ["1.2.0"]


def test_a_later_program_applies_only_what_is_new(empty_dsn: str, source: Source) -> None:
    migrate(empty_dsn, source.program())
    source.migration("0002.second", "alter table app.thing add column name text")
    assert migrate(empty_dsn, source.program("1.3.0")).applied == ("0002.second",)
    assert history(empty_dsn) == ["1.2.0", "1.3.0"]


def test_an_edited_function_is_replaced_though_no_migration_is_pending(
    empty_dsn: str, source: Source
) -> None:
    migrate(empty_dsn, source.program())
    source.function("00_answer", (source.sql / "00_answer.sql").read_text().replace("1", "2"))
    assert not status(empty_dsn, source.program()).sql_is_current
    assert migrate(empty_dsn, source.program()).applied == ()
    assert value(empty_dsn, "select app.answer()") == 2
    assert status(empty_dsn, source.program()).is_current


def test_functions_are_replaced_all_or_none_and_the_error_names_file_and_line(
    empty_dsn: str, source: Source
) -> None:
    migrate(empty_dsn, source.program())
    source.function("00_answer", (source.sql / "00_answer.sql").read_text().replace("1", "2"))
    source.function("01_broken", "select 1;\n\nselect missing();\n")
    with pytest.raises(psycopg.errors.UndefinedFunction) as caught:
        migrate(empty_dsn, source.program())
    assert caught.value.__notes__ == [f"in {source.sql / '01_broken.sql'}, line 3"]
    assert value(empty_dsn, "select app.answer()") == 1
    assert history(empty_dsn) == ["1.2.0"]


def test_a_name_without_its_schema_is_refused_in_sql(empty_dsn: str, source: Source) -> None:
    source.function("01_bare", "create view thing_count as select count(*) from app.thing")
    with pytest.raises(psycopg.errors.InvalidSchemaName, match="no schema has been selected"):
        migrate(empty_dsn, source.program())


def test_functions_belong_to_the_owners_role(empty_dsn: str, source: Source) -> None:
    migrate(empty_dsn, source.program())
    owner = "select proowner::regrole::text from pg_proc where proname = 'answer'"
    assert value(empty_dsn, owner) == "pgflow_owner"


def test_nothing_is_printed_whatever_a_migration_selects(
    empty_dsn: str, source: Source, capfd: pytest.CaptureFixture[str]
) -> None:
    source.migration(
        "0002.select", "select 'printed'; create table if not exists app.thing (x int)"
    )
    migrate(empty_dsn, source.program())
    assert capfd.readouterr() == ("", "")


def test_a_migration_that_fails_leaves_nothing_of_itself(empty_dsn: str, source: Source) -> None:
    source.migration("0002.half", "create table app.half (id int); select 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_dsn, source.program())
    assert value(empty_dsn, "select to_regclass('app.half')") is None
    assert value(empty_dsn, "select to_regclass('app.thing')") is not None
    source.migration("0002.half", "create table app.half (id int)")
    assert migrate(empty_dsn, source.program()).applied == ("0002.half",)


def test_an_index_can_be_made_concurrently(empty_dsn: str, source: Source) -> None:
    text = "-- transactional: false\ncreate index concurrently thing_again on app.thing (id)"
    source.migration("0002.index", text)
    migrate(empty_dsn, source.program())
    assert migrate(empty_dsn, source.program()).applied == ()
    assert value(empty_dsn, "select to_regclass('app.thing_again')") is not None


def test_a_database_with_a_migration_that_we_do_not_know_is_refused_and_not_touched(
    empty_dsn: str, source: Source
) -> None:
    source.migration("0002.second", "create table app.second (id int)")
    migrate(empty_dsn, source.program())
    (source.migrations / "0002.second.sql").unlink()
    source.migration("0003.third", "create table app.third (id int)")
    source.function("00_answer", (source.sql / "00_answer.sql").read_text().replace("1", "3"))
    with pytest.raises(DatabaseIsNewer, match=r"Unknown here: 0002\.second"):
        migrate(empty_dsn, source.program("1.9.0"))
    assert value(empty_dsn, "select to_regclass('app.third')") is None
    assert value(empty_dsn, "select app.answer()") == 1
    assert history(empty_dsn) == ["1.2.0"]
    assert status(empty_dsn, source.program()).unknown == ("0002.second",)


@pytest.mark.parametrize(
    ("older", "newer"),
    [("1.2.0", "1.2.1"), ("1.9.0", "1.10.0"), ("1.2.0.dev3", "1.2.0"), ("1.2.0a1", "1.2.0rc1")],
)
def test_a_database_of_a_higher_version_is_refused(
    empty_dsn: str, source: Source, older: str, newer: str
) -> None:
    migrate(empty_dsn, source.program(newer))
    assert status(empty_dsn, source.program(older)).is_newer
    with pytest.raises(DatabaseIsNewer, match=f"migrated by pgflow {newer}, this is {older}"):
        migrate(empty_dsn, source.program(older))
    assert history(empty_dsn) == [newer]


def test_while_another_migrates_it_waits_as_long_as_it_is_told(
    empty_dsn: str, source: Source
) -> None:
    with psycopg.connect(empty_dsn) as other:
        other.execute("select pg_advisory_lock(hashtextextended('pgflow.migrate', 0))")
        with pytest.raises(MigrationBusy):
            migrate(empty_dsn, source.program(), wait=0.05)


def test_status_tells_what_is_missing_to_any_login(empty_dsn: str, source: Source) -> None:
    fresh = status(empty_dsn, source.program())
    assert (fresh.database, fresh.pending, fresh.is_current) == (None, ("0001.first",), False)
    migrate(empty_dsn, source.program())
    source.migration("0002.second", "select 1")
    as_nobody = make_conninfo(empty_dsn, options="-c role=pgflow_owner")
    behind = status(as_nobody, source.program())
    assert (behind.database, behind.pending, behind.is_newer) == ("1.2.0", ("0002.second",), False)


def test_the_migrations_own_tables_stay_out_of_sight(empty_dsn: str, source: Source) -> None:
    migrate(empty_dsn, source.program())
    tables = """
        select jsonb_agg(distinct n.nspname) from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where c.relkind = 'r' and n.nspname !~ '^pg_(catalog|toast)|^information_schema'
    """
    assert value(empty_dsn, tables) == Jsonb(["app", "pgflow_meta"]).obj
