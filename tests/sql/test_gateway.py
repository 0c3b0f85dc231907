"""The gateway holds all the SQL of the package: it fits what is in the database."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgflow import (
    artifacts,
    flows,
    gateway,
    money,
    people,
    protocol,
    queues,
    subscriptions,
    views,
)
from pgflow._statement import Statement

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row

fresh = pytest.mark.parametrize("place", ["fresh"], indirect=True)

Maker = Callable[..., Statement[Any]]


def makers(module: ModuleType) -> Iterator[tuple[str, Maker]]:
    """Yield the public functions of a module that return a statement."""
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not name.startswith("_"):
            yield name, function


MAKERS: dict[str, Maker] = {
    **dict(makers(gateway)),
    **dict(makers(people)),
    **dict(makers(queues)),
    **dict(makers(flows)),
    **dict(makers(money)),
    **dict(makers(artifacts)),
    **dict(makers(subscriptions)),
    **dict(makers(views)),
    **dict(makers(protocol)),
}


def _given(parameter: inspect.Parameter) -> object:
    return 1 if parameter.annotation == "int" else "x"


def statement(maker: Maker) -> Statement[Any]:
    """Make a statement with nothing in its arguments; only its text counts."""
    signature = inspect.signature(maker)
    lists = ("Sequence", "list")
    given = {
        name: [] if str(parameter.annotation).startswith(lists) else _given(parameter)
        for name, parameter in signature.parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    return maker(**given)


def functions(engine: Engine) -> dict[str, Row]:
    rows = engine.rows(
        "select proname, coalesce(proargnames[:pronargs], '{}') as names,"
        " pronargdefaults as optional"
        " from pg_proc where pronamespace = 'pgflow'::regnamespace and proname not like E'\\\\_%'"
    )
    return {row["proname"]: row for row in rows}


def view_names(engine: Engine) -> set[str]:
    rows = engine.rows(
        "select relname from pg_class where relnamespace = 'pgflow'::regnamespace and relkind = 'v'"
    )
    return {row["relname"] for row in rows}


@fresh
@pytest.mark.parametrize("name", MAKERS)
def test_the_server_understands_each_statement(engine: Engine, name: str) -> None:
    text = statement(MAKERS[name]).sql.decode()
    numbers: dict[str, int] = {}

    def placeholder(match: re.Match[str]) -> str:
        return f"${numbers.setdefault(match[1], len(numbers) + 1)}"

    text = re.sub(r"%\((\w+)\)[sbt]", placeholder, text)
    result = engine.conn.pgconn.prepare(b"", text.encode())
    assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, result.error_message.decode()


@pytest.mark.parametrize("name", MAKERS)
def test_each_statement_names_what_its_parameters_bind(name: str) -> None:
    made = statement(MAKERS[name])
    bound = set(re.findall(r"%\((\w+)\)[sbt]", made.sql.decode()))
    assert bound == set(made.params)


@fresh
@pytest.mark.parametrize("name", [name for name in MAKERS if name not in {"ping", "result"}])
def test_each_is_named_as_its_twin_and_calls_it(engine: Engine, name: str) -> None:
    used = set(re.findall(r"pgflow\.(\w+)", statement(MAKERS[name]).sql.decode()))
    assert used <= {*functions(engine), *view_names(engine)}
    assert name in used


@fresh
@pytest.mark.parametrize("name", MAKERS)
def test_arguments_have_the_names_and_the_order_of_the_twin(engine: Engine, name: str) -> None:
    if name not in functions(engine):
        return
    theirs = functions(engine)[name]["names"] or []
    ours = list(inspect.signature(MAKERS[name]).parameters)
    assert ours == [argument for argument in theirs if argument in ours]


@fresh
@pytest.mark.parametrize("name", MAKERS)
def test_what_must_be_given_in_sql_must_be_given_in_python(engine: Engine, name: str) -> None:
    if name not in functions(engine):
        return
    twin = functions(engine)[name]
    names = twin["names"] or []
    needed = names[: len(names) - twin["optional"]]
    parameters = inspect.signature(MAKERS[name]).parameters
    assert set(needed) <= set(parameters)
    for argument in needed:
        assert parameters[argument].default in {inspect.Parameter.empty, None}


@fresh
def test_every_public_function_has_its_twin(engine: Engine) -> None:
    in_sql_only = {
        "this_project",
        "create_project",
        "add_member",
        "remove_member",
        "reap",
    }
    assert set(functions(engine)) - set(MAKERS) <= in_sql_only
