"""Small programs to migrate with: two folders that a test fills."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgflow.schema import Program

FIRST = """
do $$
begin
    create role pgflow_owner nologin;
exception when duplicate_object or unique_violation then
    null;
end
$$;
create schema app authorization pgflow_owner;
set local role pgflow_owner;
create table app.thing (id int primary key);
"""

FUNCTION = """
create or replace function app.answer() returns int language sql as 'select 1';
"""


class Source:
    """A program under test: one migration and one function to begin with."""

    def __init__(self, folder: Path) -> None:
        self.migrations = folder / "migrations"
        self.sql = folder / "sql"
        self.migrations.mkdir()
        self.sql.mkdir()
        self.migration("0001.first", FIRST)
        self.function("00_answer", FUNCTION)

    def migration(self, name: str, text: str) -> None:
        (self.migrations / f"{name}.sql").write_text(text)

    def function(self, name: str, text: str) -> None:
        (self.sql / f"{name}.sql").write_text(text)

    def program(self, version: str = "1.2.0") -> Program:
        return Program(version, self.migrations, self.sql)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)
