"""What the database says about itself, and what the texts of sql/ and pgflow/ say of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgflow.errors import REFUSALS

if TYPE_CHECKING:
    from tests.sql.conftest import Engine

ROOT = Path(__file__).parents[2]
SQL = sorted(ROOT.glob("sql/*.sql"))
CODE = [*SQL, *sorted(ROOT.glob("pgflow/**/*.py")), *sorted(ROOT.glob("cli/**/*.py"))]

# Rows of tests have no part in this.
pytestmark = pytest.mark.parametrize("place", ["fresh"], indirect=True)


def found(pattern: str, files: Iterable[Path]) -> set[str]:
    return {match for file in files for match in re.findall(pattern, file.read_text())}


def names(engine: Engine, query: str) -> set[str]:
    return {str(value) for row in engine.rows(query) for value in row.values()}


def test_every_function_has_a_comment(engine: Engine) -> None:
    without = names(
        engine,
        "select oid::regprocedure from pg_proc where pronamespace = 'pgflow'::regnamespace"
        " and coalesce(obj_description(oid, 'pg_proc'), '') = ''",
    )
    assert without == set()


def test_no_function_has_two_signatures(engine: Engine) -> None:
    twice = names(
        engine,
        "select proname from pg_proc where pronamespace = 'pgflow'::regnamespace"
        " group by 1 having count(*) > 1",
    )
    assert twice == set()


def test_every_table_view_sequence_and_type_has_a_comment(engine: Engine) -> None:
    without = names(
        engine,
        """
        select c.relname
        from pg_class c
        left join pg_type t on t.oid = c.reltype and c.relkind = 'c'
        where c.relnamespace = 'pgflow'::regnamespace
          and c.relkind in ('r', 'p', 'v', 'm', 'S', 'c') and not c.relispartition
          and obj_description(c.oid, 'pg_class') is null
          and obj_description(t.oid, 'pg_type') is null
        union all
        select nspname from pg_namespace
        where nspname = 'pgflow' and obj_description(oid, 'pg_namespace') is null
        """,
    )
    assert without == set()


def test_every_refusal_that_is_raised_or_mentioned_is_in_the_table(engine: Engine) -> None:
    known = names(engine, "select sqlstate from pgflow.refusal")
    assert found(r"\bPF[1-5]\d\d\b", CODE) <= known


def test_every_refusal_of_the_table_has_a_class_of_its_name(engine: Engine) -> None:
    table = {row["sqlstate"]: row["name"] for row in engine.rows("table pgflow.refusal")}
    assert {code: refusal.__name__ for code, refusal in REFUSALS.items()} == table


def test_each_refusal_says_in_sql_what_it_says_in_python(engine: Engine) -> None:
    for row in engine.rows("table pgflow.refusal"):
        assert REFUSALS[row["sqlstate"]].sqlstate == row["sqlstate"]
        assert str(REFUSALS[row["sqlstate"]]())
        assert row["description"]


def test_a_comment_names_the_refusals_that_the_function_raises(engine: Engine) -> None:
    """Whatever enters a project can refuse it; that much is checked of the lists."""
    rows = engine.rows(
        "select proname, obj_description(oid, 'pg_proc') as comment from pg_proc"
        " where pronamespace = 'pgflow'::regnamespace and proname not like E'\\\\_%'"
        " and prosrc ~ '_enter_project|_project\\(' "
    )
    assert len(rows) > 20
    silent = {row["proname"] for row in rows if "PF502" not in row["comment"]}
    assert silent == set()


def test_every_error_code_that_is_used_is_in_the_table(engine: Engine) -> None:
    known = names(engine, "select error_code from pgflow.error_code")
    assert found(r"\bE-RUN-\d{3}\b", CODE) <= known


def test_every_event_type_that_is_written_is_in_the_table(engine: Engine) -> None:
    known = names(engine, "select type from pgflow.event_type")
    written = found(
        r"'((?:run|step|task|tool|child|signal|wait|breakpoint|report|artifact|prompt)\.[a-z_]+)'",
        SQL,
    ) - {"step.name", "step.gates"}  # fields of a refusal
    assert {"run.paused", "task.expired", "step.completed"} <= written <= known


def test_every_public_verb_takes_the_project_last(engine: Engine) -> None:
    without = names(
        engine,
        "select proname from pg_proc where pronamespace = 'pgflow'::regnamespace"
        " and proname not like E'\\\\_%' and coalesce(proargnames[pronargs], '') <> 'project'",
    )
    assert without == {"now", "create_project", "define_reducer", "maintain", "set_retention"}


def test_every_public_function_that_writes_is_closed_to_the_callers_names(engine: Engine) -> None:
    rows = engine.rows(
        "select proname, prosecdef, proconfig from pg_proc"
        " where pronamespace = 'pgflow'::regnamespace and proname not like E'\\\\_%'"
        " and proname <> 'now'"
    )
    for row in rows:
        assert row["prosecdef"], row
        assert "search_path=pg_catalog, pg_temp" in row["proconfig"], row


def test_whoever_switches_scans_off_has_no_plan_compiled(engine: Engine) -> None:
    dear = names(
        engine,
        "select proname from pg_proc where pronamespace = 'pgflow'::regnamespace"
        " and 'enable_seqscan=off' = any (proconfig) and 'jit=off' <> all (proconfig)",
    )
    assert dear == set()


def test_whatever_runs_as_the_owner_has_its_search_path_set(engine: Engine) -> None:
    loose = names(
        engine,
        "select proname from pg_proc where pronamespace = 'pgflow'::regnamespace and prosecdef"
        " and not coalesce(proconfig, '{}') @> '{\"search_path=pg_catalog, pg_temp\"}'",
    )
    assert loose == set()


def test_every_view_is_a_security_barrier(engine: Engine) -> None:
    loose = names(
        engine,
        "select relname from pg_class where relnamespace = 'pgflow'::regnamespace"
        " and relkind = 'v' and not coalesce(reloptions, '{}') @> '{security_barrier=true}'",
    )
    assert loose == set()


def test_every_key_of_a_tenants_table_begins_with_the_project_and_each_index_has_it(
    engine: Engine,
) -> None:
    odd = names(
        engine,
        r"""
        select i.indexrelid::regclass
        from pg_index i
        join pg_class c on c.oid = i.indrelid
        join pg_attribute p on p.attrelid = c.oid and p.attname = 'project_id'
        where c.relnamespace = 'pgflow'::regnamespace and c.relkind in ('r', 'p')
          and (i.indisunique and i.indkey[0] <> p.attnum
               or pg_get_indexdef(i.indexrelid) !~ '\mproject_id\M')
        """,
    )
    assert odd == set()


def test_names_of_keys_are_compared_as_bytes(engine: Engine) -> None:
    odd = names(
        engine,
        """
        select c.relname || '.' || a.attname
        from pg_index i
        join pg_class c on c.oid = i.indrelid
        join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey)
        where c.relnamespace = 'pgflow'::regnamespace and c.relkind in ('r', 'p')
          and a.atttypid = 'text'::regtype and a.attcollation <> '"C"'::regcollation
        """,
    )
    assert odd == set()


def test_every_check_has_a_name_that_says_something(engine: Engine) -> None:
    made_up = names(
        engine,
        "select conname from pg_constraint where connamespace = 'pgflow'::regnamespace"
        " and contype = 'c' and conname ~ '_check[0-9]*$'",
    )
    assert made_up == set()
