"""plpgsql_check reads every stored function: unknown columns, wrong types, injection, and more.

It exists as a package for PostgreSQL 15 (tests/prepare.sh installs it), so this test starts a
server of its own from $PGFLOW_PG15_BIN, whatever server the other tests use.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from psycopg.rows import class_row

from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate

ALLOWED = Path(__file__).with_name("plpgsql_check_allowed.txt")

# A trigger function can be checked only with a table that it is used on; a partition's copy of a
# trigger is nothing new.
CHECK = """
select distinct p.proname as function, c.level, c.sqlstate,
    concat_ws(': ', c.message, c.detail) as message,
    concat_ws('; ', 'line ' || c.lineno, c.hint, c.query, c.context) as more
from pg_proc p
left join pg_trigger t on t.tgfoid = p.oid and not t.tgisinternal and t.tgparentid = 0
cross join plpgsql_check_function_tb(p.oid, coalesce(t.tgrelid, 0),
    oldtable := t.tgoldtable, newtable := t.tgnewtable, other_warnings := true,
    extra_warnings := true, performance_warnings := true, security_warnings := true) c
where p.pronamespace = 'pgflow'::regnamespace
  and p.prolang = (select oid from pg_language where lanname = 'plpgsql')
  and (p.prorettype <> 'trigger'::regtype or t.oid is not null)
order by 1, 2, 3, 4
"""

UNUSED_TRIGGER_FUNCTIONS = """
select p.proname
from pg_proc p
where p.pronamespace = 'pgflow'::regnamespace and p.prorettype = 'trigger'::regtype
  and not exists (select from pg_trigger t where t.tgfoid = p.oid)
"""


class Finding(NamedTuple):
    function: str
    level: str
    sqlstate: str
    message: str
    more: str

    @property
    def is_fatal(self) -> bool:
        """2F005 is a path through the function that ends without RETURN."""
        return self.level in {"error", "security"} or self.sqlstate == "2F005"

    @property
    def line(self) -> str:
        """The finding as a line of the allow-list; no line number, so that it lasts."""
        return f"{self.function} | {self.level} | {self.message}"


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    programs = os.environ.get("PGFLOW_PG15_BIN")
    if not programs:
        reason = os.environ.get("PGFLOW_PG15_SKIP") or "run tests/prepare.sh, then . .venv/test.env"
        pytest.skip(f"no plpgsql_check: {reason}")
    # Not tmp_path: the server's user could not enter it when the tests run as root.
    folder = Path(tempfile.gettempdir()) / f"pgflow-check-{secrets.token_hex(6)}"
    server = EmbeddedServer(folder, settings={"fsync": "off"})
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PGFLOW_PG_BIN", programs)
            server.start()
        migrate(server.dsn)
        yield server.dsn
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def findings(dsn: str) -> list[Finding]:
    with psycopg.connect(dsn) as connection:
        connection.execute("create extension plpgsql_check")
        cursor = connection.cursor(row_factory=class_row(Finding))
        return cursor.execute(CHECK).fetchall()


def allowed() -> list[str]:
    lines = (line.strip() for line in ALLOWED.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def matches(finding: Finding, line: str) -> bool:
    return re.fullmatch(re.escape(line).replace(r"\*", ".*"), finding.line) is not None


def test_no_function_has_an_error_a_security_hole_or_a_missing_return(
    findings: list[Finding],
) -> None:
    fatal = [f"{finding.line} ({finding.more})" for finding in findings if finding.is_fatal]
    assert not fatal, "\n".join(fatal)


def test_every_warning_is_on_the_allow_list(findings: list[Finding]) -> None:
    new = [
        f"{finding.line} ({finding.more})"
        for finding in findings
        if not finding.is_fatal and not any(matches(finding, line) for line in allowed())
    ]
    assert not new, "\n".join(new)


def test_no_allowed_line_for_one_function_is_without_its_warning(findings: list[Finding]) -> None:
    named = [line for line in allowed() if not line.startswith("*")]
    stale = [line for line in named if not any(matches(finding, line) for finding in findings)]
    assert not stale, "\n".join(stale)


def test_every_trigger_function_has_a_trigger_and_so_is_checked(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        assert connection.execute(UNUSED_TRIGGER_FUNCTIONS).fetchall() == []
