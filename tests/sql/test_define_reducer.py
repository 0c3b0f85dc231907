"""define_reducer: functions of the database that reduce what steps write to a channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest

from tests.sql.flows import complete, define, ready, states, step, values, wrote

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole

FUNCTIONS = """
    create schema reducers;
    grant usage on schema reducers to public;
    create function reducers.longest(old jsonb, new jsonb) returns jsonb language sql immutable
    as $$ select case when char_length(old #>> '{}') >= char_length(new #>> '{}') then old
                      else new end $$;
    create function reducers.rising(old jsonb, new jsonb) returns jsonb language plpgsql immutable
    as $$ begin
        if new::numeric <= old::numeric then
            raise exception 'no more than %', old;
        end if;
        return new;
    end $$;
    create function reducers.moody(old jsonb, new jsonb) returns jsonb language sql
    as $$ select old $$;
    create function reducers.one(old jsonb) returns jsonb language sql immutable
    as $$ select old $$;
    create function reducers.text(old jsonb, new jsonb) returns text language sql immutable
    as $$ select old::text $$;
    create function reducers.many(old jsonb, new jsonb) returns setof jsonb language sql immutable
    as $$ select old $$;
"""


@pytest.fixture(autouse=True)
def functions(engine: Engine) -> Iterator[None]:
    engine.rows(FUNCTIONS)
    yield
    engine.rows("drop schema if exists reducers cascade")


def began(engine: Engine, function: str = "rising") -> UUID:
    engine.tell("define_reducer", name="own", function=f"reducers.{function}")
    steps = (step("a"), step("b", on_failure="continue"), step("c", "a", "b", join="any"))
    define(engine, *steps, channels={"x": {"reducer": "own"}})
    run_id: UUID = engine.tell("start", flow="f")
    return run_id


def test_a_registered_function_reduces(engine: Engine) -> None:
    run_id = began(engine, "longest")
    leases = ready(engine)
    complete(engine, (leases["a"], [("x", "bb"), ("x", "a")]), (leases["b"], [("x", "ccc")]))
    assert values(engine, run_id) == {"x": "ccc"}
    wrote(engine, ready(engine)["c"], x="d")
    assert engine.run(run_id)["output"] == {"x": "ccc"}


def test_what_it_raises_fails_the_step_whose_write_it_was(engine: Engine) -> None:
    run_id = began(engine)
    leases = ready(engine)
    lines = complete(engine, (leases["a"], [("x", 5)]), (leases["b"], [("x", 4)]))
    assert [line["detail"] for line in lines] == ["channel x: reducer own: no more than 5"]
    assert states(engine, run_id) == {"a": "completed", "b": "failed", "c": "pending"}
    assert values(engine, run_id) == {"x": 5}


def test_what_it_refuses_of_steps_that_ended_before_fails_the_flow(engine: Engine) -> None:
    run_id = began(engine)
    leases = ready(engine)
    engine.call("pause", run_id=run_id)
    wrote(engine, leases["a"], x=5)
    wrote(engine, leases["b"], x=4)
    assert engine.tell("resume", run_id=run_id) == "failed"
    run = engine.run(run_id)
    assert (run["error_code"], run["error_detail"]) == (
        "E-RUN-018",
        "channel x: reducer own: no more than 5",
    )


def test_a_function_that_is_gone_fails_the_step(engine: Engine) -> None:
    run_id = began(engine)
    engine.rows("drop schema reducers cascade")
    wrote(engine, ready(engine)["a"], x=5)
    assert "reducer own must be there" in engine.run(run_id)["error_detail"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("reducers.none", "there, named with its schema"),
        ("longest", "there, named with its schema"),
        ("reducers.longest(", "there, named with its schema"),
        (None, "there, named with its schema"),
        ("reducers.moody", "immutable"),
        ("reducers.one(jsonb)", "of the arguments (old jsonb, new jsonb), and return jsonb"),
        ("reducers.text", "of the arguments"),
        ("reducers.many", "of the arguments"),
    ],
)
def test_a_function_that_is_no_reducer_is_refused(
    engine: Engine, function: str, expected: str
) -> None:
    with engine.refused("PF101", "function") as refused:
        engine.tell("define_reducer", name="own", function=function)
    assert f"function must be {expected}" in str(refused.value)


@pytest.mark.parametrize("name", [None, "", "a b", "add", "last_write_wins", "x" * 101])
def test_a_name_that_is_taken_or_none_is_refused(engine: Engine, name: str) -> None:
    with engine.refused("PF101", "name"):
        engine.tell("define_reducer", name=name, function="reducers.longest")


def test_again_is_harmless_and_another_function_replaces_the_first(engine: Engine) -> None:
    name = "reducers.longest(jsonb,jsonb)"
    assert engine.tell("define_reducer", name="own", function="reducers.longest") == name
    before = engine.place.rows()
    engine.later(seconds=1)
    assert engine.tell("define_reducer", name="own", function=name) == name
    assert engine.place.rows() == before
    engine.tell("define_reducer", name="own", function="reducers.rising")
    assert engine.value("select function from pgflow.reducer") == "reducers.rising(jsonb,jsonb)"


def test_only_administrators_register_and_lend_nobody_their_rights(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    admin, client = make_role("pgflow_admin"), make_role("pgflow_client")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(client).tell("define_reducer", name="own", function="reducers.longest")
    engine.rows(f'alter function reducers.longest owner to "{admin}"')
    with engine.refused("PF101", "function") as refused:
        connect(admin).tell("define_reducer", name="own", function="reducers.longest")
    assert "owned by a role that has pgflow_owner, or security definer" in str(refused.value)
    engine.rows("alter function reducers.longest security definer")
    assert connect(admin).tell("define_reducer", name="own", function="reducers.longest")
    engine.rows("drop schema reducers cascade")
