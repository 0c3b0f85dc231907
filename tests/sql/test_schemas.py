"""Schemas of artifacts: stored once per content, never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from psycopg.types.json import Jsonb

from pgflow import Flow

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Row

ARTICLE = {"type": "object", "required": ["title"]}


def define(engine: Engine, schema: Row, name: str = "article") -> Row:
    (version,) = engine.call("define_schema", name=name, schema=schema)
    return version


def test_new_content_is_a_new_version(engine: Engine) -> None:
    first = define(engine, ARTICLE)
    second = define(engine, {**ARTICLE, "required": ["title", "text"]})
    assert (first["version"], second["version"]) == (1, 2)
    rows = engine.rows("select * from pgflow.schemas where schema = 'article' order by version")
    assert [row["is_current"] for row in rows] == [False, True]
    assert rows[0]["definition"] == ARTICLE
    assert rows[0]["sha256"] == bytes(first["sha256"]).hex()


def test_the_same_content_is_the_version_that_it_was(engine: Engine) -> None:
    first = define(engine, ARTICLE)
    before = engine.place.rows()
    assert define(engine, dict(reversed(ARTICLE.items()))) == first
    assert engine.place.rows() == before


def test_content_that_is_defined_again_is_current_again(engine: Engine) -> None:
    define(engine, ARTICLE)
    define(engine, {})
    assert define(engine, ARTICLE)["version"] == 1
    current = engine.value("select version from pgflow.schemas where is_current")
    assert current == 1


@pytest.mark.parametrize("statement", ["update %s set version = 7", "delete from %s"])
def test_a_version_never_changes(engine: Engine, statement: str) -> None:
    define(engine, ARTICLE)
    with engine.refused("PF203"):
        engine.rows(statement % "pgflow.schema_version")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": None}),
        ("name", {"name": ""}),
        ("name", {"name": "-a"}),
        ("name", {"name": "two words"}),
        ("schema", {"schema": None}),
        ("schema", {"schema": Jsonb([])}),
        ("schema", {"schema": Jsonb("object")}),
        ("schema", {"schema": {"$schema": "http://json-schema.org/draft-07/schema#"}}),
        ("schema", {"schema": {"description": [f"{n}" for n in range(40000)]}}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_schema_is_refused(engine: Engine, field: str, change: dict[str, Any]) -> None:
    with engine.refused("PF101", field):
        engine.call("define_schema", **{"name": "article", "schema": ARTICLE, **change})


WRONG: dict[str, dict[str, Any]] = {
    "$.type": {"type": "strong"},
    "$.type ": {"type": ["string", "string"]},
    "$.type  ": {"type": []},
    "$.pattern": {"pattern": 7},
    "$.minLength": {"minLength": -1},
    "$.maximum": {"maximum": "7"},
    "$.multipleOf": {"multipleOf": 0},
    "$.required": {"required": "title"},
    "$.enum": {"enum": {}},
    "$.anyOf": {"anyOf": []},
    "$.properties": {"properties": []},
    "$.items": {"items": [{"type": "string"}]},
    "$.properties.a.items.type": {"properties": {"a": {"items": {"type": "text"}}}},
    "$.allOf[1].not": {"allOf": [{}, {"not": 7}]},
    "$.$defs.a.required": {"$defs": {"a": {"required": ["b", "b"]}}},
}


@pytest.mark.parametrize("where", WRONG)
def test_what_a_validator_would_stumble_over_is_refused_with_its_place(
    engine: Engine, where: str
) -> None:
    with pytest.raises(SchemaError):
        Draft202012Validator.check_schema(WRONG[where])
    with engine.refused("PF101", "schema") as refused:
        define(engine, WRONG[where])
    assert f"{where.strip()} must be" in (refused.value.diag.message_primary or "")


@pytest.mark.parametrize(
    "schema",
    [
        Flow.model_json_schema(),
        Draft202012Validator.META_SCHEMA,
        {"properties": {"type": {"const": 1}, "required": True}, "items": False},
        {"type": ["string", "null"], "required": [], "enum": [None], "x-any": 7, "default": []},
    ],
    ids=["model", "metaschema", "named as keywords", "odd"],
)
def test_what_a_validator_takes_is_taken(engine: Engine, schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    assert define(engine, schema)["version"] == 1
