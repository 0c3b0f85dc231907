"""Forms: a person's answer is held to a schema, and a schema to the subset of docs/forms.md."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field, create_model

if TYPE_CHECKING:
    from tests.sql.conftest import Engine

pytestmark = pytest.mark.parametrize("place", ["fresh"], indirect=True)

Schema = dict[str, Any]
Path = tuple[str, str]

BIG = 10**60
ANY: Schema = {}


def check(engine: Engine, form: object) -> None:
    """Define a form."""
    engine.rows("select pgflow._check_form(%s)", json.dumps(form))


def faults(engine: Engine, form: object, value: object) -> list[Path]:
    """Return what is wrong with an answer to a form that can be defined."""
    check(engine, form)
    rows = engine.rows(
        "select path, message from pgflow._form_errors(%s, %s)", json.dumps(form), json.dumps(value)
    )
    return [(row["path"], row["message"]) for row in rows]


def paths(engine: Engine, form: object, value: object) -> list[str]:
    return [path for path, _ in faults(engine, form, value)]


# ---- each keyword: what it allows, what it refuses, and in what words

TELLS: dict[str, tuple[Schema, list[object], list[tuple[object, str]]]] = {
    "type null": ({"type": "null"}, [None], [(0, "of type null"), (False, "of type null")]),
    "type boolean": ({"type": "boolean"}, [True, False], [(0, "of type boolean")]),
    "type integer": (
        {"type": "integer"},
        [0, -1, 1.0, BIG, 1e300],
        [(1.5, "of type integer"), ("1", "of type integer"), (True, "of type integer")],
    ),
    "type number": (
        {"type": "number"},
        [0, -1.5, BIG],
        [("1", "of type number"), (None, "of type number"), (False, "of type number")],
    ),
    "type string": ({"type": "string"}, ["", "ä"], [(1, "of type string")]),
    "type array": ({"type": "array"}, [[], [1, "a"]], [({}, "of type array")]),
    "type object": ({"type": "object"}, [{}, {"a": 1}], [([], "of type object")]),
    "one of two types": (
        {"type": ["string", "null"]},
        ["", None],
        [(0, "of type string, null")],
    ),
    "enum": (
        {"enum": ["a", 1, None, [1, {"b": 2}]]},
        ["a", 1, 1.0, None, [1.0, {"b": 2}]],
        [("b", 'one of a, 1, null, [1, {"b": 2}]'), ([1], "one of "), (True, "one of ")],
    ),
    "const": ({"const": "yes"}, ["yes"], [("no", '"yes"'), (None, '"yes"')]),
    "const null": ({"const": None}, [None], [(0, "null"), ("null", "null")]),
    "const object": ({"const": {"a": [1]}}, [{"a": [1.0]}], [({"a": [1], "b": 1}, '{"a": [1]}')]),
    "minimum": ({"minimum": 2.5}, [2.5, BIG, "1"], [(2.4, "at least 2.5")]),
    "maximum": ({"maximum": BIG}, [BIG, -BIG], [(BIG + 1, f"at most {BIG}")]),
    "exclusiveMinimum": ({"exclusiveMinimum": 0}, [0.1], [(0, "more than 0"), (-1, "more than 0")]),
    "exclusiveMaximum": ({"exclusiveMaximum": 0}, [-0.1], [(0.0, "less than 0")]),
    "minLength": ({"minLength": 2}, ["ää", "🙂🙃", 1], [("🙂", "at least 2 characters long")]),
    "maxLength": ({"maxLength": 2}, ["", "日本"], [("abc", "at most 2 characters long")]),
    "pattern": (
        {"pattern": r"^\d{3}$"},
        ["123", 1],
        [("12", r"of the pattern ^\d{3}$"), ("1234", "of the pattern "), ("123\n", "of the ")],
    ),
    "a pattern anywhere": ({"pattern": "ß"}, ["weiß"], [("weiss", "of the pattern ß")]),
    "items": ({"items": {"type": "null"}}, [[], [None], "x", {}], []),
    "minItems": ({"minItems": 1}, [[0], {}], [([], "a list of at least 1")]),
    "maxItems": ({"maxItems": 1}, [[0], []], [([0, 0], "a list of at most 1")]),
    "uniqueItems": (
        {"uniqueItems": True},
        [[], [1, True, "1", [1], [True]], "aa"],
        [([1, 1.0], "a list without repeats"), ([{"a": 1}, {"a": 1}], "a list without repeats")],
    ),
    "uniqueItems false": ({"uniqueItems": False}, [[1, 1]], []),
    "minProperties": ({"minProperties": 1}, [{"a": 1}, []], [({}, "an object of at least 1")]),
    "maxProperties": ({"maxProperties": 0}, [{}, [1]], [({"a": 1}, "an object of at most 0")]),
    "required": ({"required": ["a"]}, [{"a": None}, ["b"], "a", 1], []),
    "anyOf": (
        {"anyOf": [{"type": "string"}, {"minimum": 5}]},
        ["a", 5, None],
        [(4, "valid by one of 2 alternatives")],
    ),
    "a union with null": (
        {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "null"}]},
        [5, None],
        [(4, "at least 5"), ("a", "of type integer")],
    ),
    "$ref": (
        {"$ref": "#/$defs/A", "minimum": 5, "$defs": {"A": {"type": "number"}}},
        [5],
        [(4, "at least 5"), ("a", "of type number")],
    ),
    "annotations": (
        {
            **dict.fromkeys(("title", "description", "$comment"), "x"),
            "default": 3,
            "examples": [1],
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **dict.fromkeys(("deprecated", "readOnly", "writeOnly"), True),
            "format": "email",
        },
        [None, "no address", 1, {}],
        [],
    ),
    "nothing": ({}, [None, 1, "a", [], {}], []),
}


@pytest.mark.parametrize("name", TELLS)
def test_a_keyword_allows_and_refuses(engine: Engine, name: str) -> None:
    schema, allowed, refused = TELLS[name]
    for value in allowed:
        assert faults(engine, schema, value) == [], value
    for value, expected in refused:
        ((path, message),) = faults(engine, schema, value)
        assert (path, message[: 8 + len(expected)]) == ("$", f"must be {expected}"), value


def test_integers_that_no_float_holds_are_told_apart(engine: Engine) -> None:
    form = {"exclusiveMinimum": 2**53, "maximum": 2**53 + 2}
    assert faults(engine, form, 2**53 + 1) == []
    assert len(faults(engine, form, 2**53)) == 1
    assert len(faults(engine, form, 2**53 + 3)) == 1


def test_a_number_of_100000_digits_is_a_number(engine: Engine) -> None:
    form = {"type": "integer", "maximum": 5}
    query = "select message from pgflow._form_errors(%s, '1e100000')"
    (row,) = engine.rows(query, json.dumps(form))
    assert row["message"].startswith("must be at most 5 (given: 1000")
    assert len(row["message"]) < 300
    assert not engine.rows(query, json.dumps({"type": "integer"}))


# ---- places


def test_a_fault_names_its_place(engine: Engine) -> None:
    line = {"type": "object", "properties": {"amount": {"maximum": 5}}, "required": ["id"]}
    form = {"properties": {"items": {"items": {"items": line}}}}
    answer = {"items": [[], [{"id": 1}, {"amount": 6}]]}
    assert faults(engine, form, answer) == [
        ("$.items[1][1].id", "must be present (given: nothing)"),
        ("$.items[1][1].amount", "must be at most 5 (given: 6)"),
    ]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("größe", "$.größe"),
        ("a_1", "$.a_1"),
        ("$ref", "$.$ref"),
        ("a.b", '$."a.b"'),
        ("a b", '$."a b"'),
        ("a[0]", '$."a[0]"'),
        ('a"b', r'$."a\"b"'),
        ("a-b", '$."a-b"'),
        ("1", '$."1"'),
        ("", '$.""'),
        ("x" * 300, "$." + "x" * 200),
    ],
)
def test_a_key_that_would_be_misread_is_quoted_and_a_long_one_cut(
    engine: Engine, key: str, path: str
) -> None:
    assert paths(engine, {"properties": {key: False}}, {key: 1}) == [path]
    assert paths(engine, {"required": [key]}, {}) == [path]


def test_what_has_no_schema_of_its_own_has_that_of_the_others(engine: Engine) -> None:
    form = {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}
    assert faults(engine, form, {"a": "x", "b": 1}) == []
    assert paths(engine, form, {"a": 1, "b": "x"}) == ["$.b"]


def test_what_the_form_does_not_know_is_to_be_left_out(engine: Engine) -> None:
    form = {"properties": {"a": {}}, "additionalProperties": False}
    assert faults(engine, form, {"a": 1}) == []
    assert faults(engine, form, {"b": [1, 2]}) == [("$.b", "must be left out (given: a list of 2)")]
    assert faults(engine, {**form, "additionalProperties": True}, {"b": 1}) == []


def test_true_and_false_are_schemas(engine: Engine) -> None:
    form = {
        "properties": {"any": True, "none": False, "list": {"items": False}},
        "anyOf": [False, True],
    }
    assert faults(engine, form, {"any": {"x": None}, "list": []}) == []
    assert paths(engine, form, {"none": None, "list": [1, 2]}) == [
        "$.list[0]",
        "$.list[1]",
        "$.none",
    ]


def test_every_fault_is_told_in_the_order_of_the_answer(engine: Engine) -> None:
    form = {
        "type": "object",
        "required": ["x", "y"],
        "maxProperties": 2,
        "properties": {
            "a": {"type": "integer", "maximum": 5},
            "b": {"type": "array", "uniqueItems": True, "items": {"minLength": 2}},
        },
        "additionalProperties": False,
    }
    answer = {"a": 6.5, "b": ["k", "kk", "k"], "c": None}
    assert faults(engine, form, answer) == [
        ("$", "must be an object of at most 2 (given: an object of 3)"),
        ("$.x", "must be present (given: nothing)"),
        ("$.y", "must be present (given: nothing)"),
        ("$.a", "must be of type integer (given: 6.5)"),
        ("$.a", "must be at most 5 (given: 6.5)"),
        ("$.b", "must be a list without repeats (given: a list of 3)"),
        ("$.b[0]", 'must be at least 2 characters long (given: "k")'),
        ("$.b[2]", 'must be at least 2 characters long (given: "k")'),
        ("$.c", "must be left out (given: null)"),
    ]


def test_an_enum_of_many_values_is_told_by_its_first(engine: Engine) -> None:
    ((_, message),) = faults(engine, {"enum": list(range(30))}, "x")
    assert message.startswith("must be one of 0, 1, ")
    assert message.endswith(', 19, … (given: "x")')


def test_the_root_of_the_paths_can_be_chosen(engine: Engine) -> None:
    query = """select path from pgflow._form_errors('{"items": false}', '[1]', 'answers')"""
    assert engine.value(query) == "answers[0]"


# ---- answers


def answer(engine: Engine, form: object, value: object) -> None:
    check(engine, form)
    text = None if value is None else json.dumps(value)
    engine.rows("select pgflow._check_answer(%s, %s)", json.dumps(form), text)


def test_an_answer_that_the_form_allows_passes(engine: Engine) -> None:
    answer(engine, {"properties": {"amount": {"maximum": 5}}}, {"amount": 5})


def test_an_answer_is_refused_for_its_first_fault_and_all_are_in_the_detail(
    engine: Engine,
) -> None:
    line = {"properties": {"amount": {"type": "integer", "maximum": 5}}}
    form = {"properties": {"items": {"items": line}}}
    with engine.refused("PF101", "data.items[2].amount") as refused:
        answer(engine, form, {"items": [{}, {"amount": 1}, {"amount": 6.5}]})
    said = refused.value.diag
    assert said.message_primary == "data.items[2].amount must be of type integer"
    assert json.loads(str(said.message_detail)) == {
        "given": "6.5",
        "faults": [
            {"path": "data.items[2].amount", "expected": "of type integer", "given": "6.5"},
            {"path": "data.items[2].amount", "expected": "at most 5", "given": "6.5"},
        ],
    }


def test_the_detail_has_at_most_20_faults(engine: Engine) -> None:
    with engine.refused("PF101", "data[0]") as refused:
        answer(engine, {"items": False}, [0] * 100)
    assert len(json.loads(str(refused.value.diag.message_detail))["faults"]) == 20


def test_no_answer_is_an_answer_of_null(engine: Engine) -> None:
    answer(engine, {"type": ["null", "object"]}, None)
    with engine.refused("PF101", "data"):
        answer(engine, {"type": "object"}, None)


def test_the_field_of_an_answer_can_be_named(engine: Engine) -> None:
    with engine.refused("PF101", "decision.a"):
        engine.rows("""select pgflow._check_answer('{"required": ["a"]}', '{}', 'decision')""")


# ---- forms that are refused


def nested(depth: int, inner: object = ANY) -> object:
    for n in range(depth):
        inner = [{"items": inner}, {"properties": {"a": inner}}, {"anyOf": [inner]}][n % 3]
    return inner


def at(*keys: str, schema: object) -> object:
    for key in reversed(keys):
        schema = {key: schema}
    return schema


REFUSED: dict[str, tuple[object, str]] = {
    # not a schema
    "null": (None, "form_schema"),
    "a list": ([], "form_schema"),
    "true": (True, "form_schema"),
    "no schema inside": ({"properties": {"a": "string"}}, "form_schema.properties.a"),
    "null inside": ({"properties": {"a": None}}, "form_schema.properties.a"),
    "items as a list": ({"items": [{}]}, "form_schema.items"),
    "no additionalProperties": ({"additionalProperties": 0}, "form_schema.additionalProperties"),
    # not in the subset
    **{
        keyword: (at("properties", "a", keyword, schema=value), f"form_schema.properties.a.{said}")
        for keyword, value, said in [
            ("multipleOf", 2, "multipleOf"),
            ("oneOf", [{}], "oneOf"),
            ("allOf", [{}], "allOf"),
            ("not", {}, "not"),
            ("if", {}, "if"),
            ("prefixItems", [{}], "prefixItems"),
            ("contains", {}, "contains"),
            ("patternProperties", {}, "patternProperties"),
            ("propertyNames", {}, "propertyNames"),
            ("dependentRequired", {}, "dependentRequired"),
            ("unevaluatedProperties", False, "unevaluatedProperties"),
            ("$id", "x", "$id"),
            ("$anchor", "x", "$anchor"),
            ("$dynamicRef", "#x", "$dynamicRef"),
            ("definitions", {}, "definitions"),
            ("discriminator", {}, "discriminator"),
            ("x-order", 1, '"x-order"'),
            ("größe", 1, "größe"),
            ("Type", "string", "Type"),
        ]
    },
    # malformed
    **{
        f"{keyword} {value!r}": ({keyword: value}, f"form_schema.{keyword}")
        for keyword, value in [
            ("type", "text"),
            ("type", "Integer"),
            ("type", 1),
            ("type", None),
            ("type", []),
            ("type", ["string", "string"]),
            ("type", ["string", "x"]),
            ("type", [["string"]]),
            ("properties", []),
            ("properties", True),
            ("$defs", []),
            ("required", "a"),
            ("required", True),
            ("required", ["a", 1]),
            ("required", ["a", "a"]),
            ("enum", []),
            ("enum", "a"),
            ("enum", {}),
            ("anyOf", []),
            ("anyOf", {}),
            ("minimum", "1"),
            ("maximum", None),
            ("exclusiveMinimum", True),
            ("exclusiveMaximum", [1]),
            ("minLength", -1),
            ("maxLength", 1.5),
            ("minItems", "1"),
            ("maxItems", None),
            ("minProperties", -0.5),
            ("maxProperties", True),
            ("uniqueItems", "true"),
            ("uniqueItems", 1),
            ("pattern", 1),
            ("pattern", "("),
            ("pattern", "[z-a]"),
            ("pattern", r"(?<name>a)"),
            ("pattern", r"\p{L}"),
            ("pattern", "a{2,1}"),
            ("pattern", "a{0,300}"),
            ("pattern", r"\u{1F600}"),
            ("pattern", "x" * 1001),
        ]
    },
    "in a list of schemas": ({"anyOf": [{}, {"minimum": "1"}]}, "form_schema.anyOf[1].minimum"),
    "in items": ({"items": {"maxLength": -1}}, "form_schema.items.maxLength"),
    "in a field": (
        {"properties": {"amount": {"minimum": "1"}}},
        "form_schema.properties.amount.minimum",
    ),
    "in a field with a name of its own kind": (
        {"properties": {"a b": {"minimum": "1"}}},
        'form_schema.properties."a b".minimum',
    ),
    "in the schema of the others": (
        {"additionalProperties": {"pattern": "*"}},
        "form_schema.additionalProperties.pattern",
    ),
    "in a definition that is not used": (
        {"$defs": {"A": {"enum": 1}}},
        "form_schema.$defs.A.enum",
    ),
    # references
    "a $ref elsewhere": ({"$ref": "https://example.org/a"}, "form_schema.$ref"),
    "a $ref to the root": ({"properties": {"a": {"$ref": "#"}}}, "form_schema.properties.a.$ref"),
    "a $ref to no definition": ({"$ref": "#/$defs/A", "$defs": {"B": {}}}, "form_schema.$ref"),
    "a $ref into a definition": (
        {"$ref": "#/$defs/A/items", "$defs": {"A": {"items": {}}}},
        "form_schema.$ref",
    ),
    "a $ref of the old kind": ({"$ref": "#/definitions/A"}, "form_schema.$ref"),
    "a $ref that is no text": ({"$ref": 1}, "form_schema.$ref"),
    "a $ref that is a list": ({"$ref": ["#/$defs/A"], "$defs": {"A": {}}}, "form_schema.$ref"),
    "$defs inside": ({"items": {"$defs": {}}}, "form_schema.items.$defs"),
    "a definition of itself": (
        {"$defs": {"A": {"properties": {"next": {"$ref": "#/$defs/A"}}}}, "$ref": "#/$defs/A"},
        "form_schema.$defs.A.properties.next.$ref",
    ),
    "a circle of bare references": (
        {
            "$defs": {
                "A": {"$ref": "#/$defs/B"},
                "B": {"$ref": "#/$defs/C"},
                "C": {"$ref": "#/$defs/A"},
            }
        },
        "form_schema.$defs.A.$ref",
    ),
    # bounds
    "11 levels": (
        nested(11),
        "form_schema.properties.a" + ".items.anyOf[0].properties.a" * 3 + ".items",
    ),
    "11 levels by reference": (
        {"$defs": {"A": nested(6, {"items": True})}, "items": nested(4, {"$ref": "#/$defs/A"})},
        "form_schema.$defs.A.anyOf[0].properties.a.items.anyOf[0].properties.a.items",
    ),
    "64 kB": ({"description": "x" * 66_000}, "form_schema"),
    "a schema that references make large": (
        {
            "$defs": {
                "A": {"anyOf": [{"$ref": "#/$defs/B"}] * 50},
                "B": {"anyOf": [{"items": {}}] * 50},
            }
        },
        "form_schema",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_form_outside_the_subset_is_refused_by_the_place(engine: Engine, name: str) -> None:
    form, field = REFUSED[name]
    with engine.refused("PF101", field or None) as refused:
        check(engine, form)
    said = refused.value.diag
    assert str(said.message_primary).startswith(f"{said.column_name} must be ")


def test_no_form_is_refused_as_one(engine: Engine) -> None:
    with engine.refused("PF101", "form"):
        engine.rows("select pgflow._check_form(null, 'form')")


@pytest.mark.parametrize(
    "form",
    [
        nested(10),
        {"$defs": {"A": nested(5)}, "items": nested(4, {"$ref": "#/$defs/A"})},
        {"description": "x" * 65_000},
        {"pattern": "x" * 1000},
        {"properties": {"type": {}, "$ref": {"type": "string"}, "not": True}},
        {"const": {"$ref": "x", "oneOf": 1}, "default": {"minimum": "a"}, "examples": "any"},
        {"minLength": 2.0, "maxItems": BIG, "required": []},
        {"$defs": {"a b": {}, "A.b-c_1": {}}, "$ref": "#/$defs/A.b-c_1"},
        {"$defs": {f"A{n}": {"$ref": f"#/$defs/A{n + 1}"} for n in range(30)} | {"A30": {}}},
    ],
    ids=lambda form: json.dumps(form)[:50],
)
def test_a_form_within_the_bounds_is_taken(engine: Engine, form: object) -> None:
    check(engine, form)
    faults(engine, form, {"a": [{}]})


def test_an_answer_is_checked_as_deep_as_a_form_goes(engine: Engine) -> None:
    form: Schema = {"type": "integer"}
    value: object = "x"
    for _ in range(5):
        form = {"properties": {"a": {"items": form}}}
        value = {"a": [value]}
    assert paths(engine, form, value) == ["$" + ".a[0]" * 5]


def test_an_answer_that_is_deeper_than_its_form_is_free_there(engine: Engine) -> None:
    value: object = 1
    for _ in range(500):
        value = [value]
    assert faults(engine, {"items": {"type": "array"}}, value) == []


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("^[[:alpha:]]+$", ["abc"], ["ä", ""]),
        (r"^\w+$", ["a_1"], ["ä"]),
        (r"^\d$", ["1"], ["\u0661"]),
        (r"^\s$", [" ", "\n"], ["\u2003"]),
        ("^.$", ["日", "\n"], ["ab"]),
        ("^a$", ["a"], ["a\n", "b\na"]),
        (r"\ycat\y", ["a cat"], ["cats"]),
        (r"\bcat", ["\bcat"], ["a cat"]),
        (r"\u00e4", ["ä"], ["a"]),
        ("^(?!.*x)", ["abc"], ["axe"]),
        ("(?<=a)b", ["ab"], ["cb"]),
        ("^(a|aa)+$", ["a" * 2000], ["a" * 2000 + "b"]),
    ],
)
def test_a_pattern_is_one_of_postgres_with_the_letters_of_ascii(
    engine: Engine, pattern: str, matched: list[str], others: list[str]
) -> None:
    assert [text for text in matched if faults(engine, {"pattern": pattern}, text)] == []
    assert [text for text in others if not faults(engine, {"pattern": pattern}, text)] == []


# ---- schemas of pydantic


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=20)]
    count: Annotated[int, Field(ge=1, le=10)] = 1
    colour: Colour | None = None


class Order(BaseModel):
    """What is ordered."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["buy", "wait"]
    note: str | None = Field(default=None, description="why", examples=["because"])
    lines: list[Line]
    stock: dict[str, int] = {}
    price: float | str = 0.0
    main: Line | None = None
    tags: set[str] = set()


def test_a_model_is_a_form(engine: Engine) -> None:
    form = Order.model_json_schema()
    good = Order(
        decision="buy",
        lines=[Line(name="Äpfel", count=2, colour=Colour.RED), Line(name="Brot")],
        stock={"Äpfel": 3},
    )
    assert faults(engine, form, good.model_dump(mode="json")) == []
    assert faults(engine, form, {"decision": "wait", "lines": []}) == []


def test_an_answer_that_the_model_refuses_is_refused_there(engine: Engine) -> None:
    answer = {
        "decision": "sell",
        "note": 1,
        "lines": [{"name": "Brot", "count": 11}, {"count": 0}, "x", {"name": "", "colour": "x"}],
        "stock": {"Äpfel": "viele", "b c": 1.5},
        "price": None,
        "main": {"name": "x" * 21},
        "tags": ["a", "a"],
        "more": 1,
    }
    told = faults(engine, Order.model_json_schema(), answer)
    assert sorted(told) == [
        ("$.decision", 'must be one of buy, wait (given: "sell")'),
        ("$.lines[0].count", "must be at most 10 (given: 11)"),
        ("$.lines[1].count", "must be at least 1 (given: 0)"),
        ("$.lines[1].name", "must be present (given: nothing)"),
        ("$.lines[2]", 'must be of type object (given: "x")'),
        ("$.lines[3].colour", 'must be one of red, blue (given: "x")'),
        ("$.lines[3].name", 'must be at least 1 characters long (given: "")'),
        ("$.main.name", f'must be at most 20 characters long (given: "{"x" * 21}")'),
        ("$.more", "must be left out (given: 1)"),
        ("$.note", "must be of type string (given: 1)"),
        ("$.price", "must be valid by one of 2 alternatives (given: null)"),
        ('$.stock."b c"', "must be of type integer (given: 1.5)"),
        ("$.stock.Äpfel", 'must be of type integer (given: "viele")'),
        ("$.tags", "must be a list without repeats (given: a list of 2)"),
    ]


def test_a_model_of_itself_is_refused(engine: Engine) -> None:
    class Node(BaseModel):
        children: list[Node] = []

    Node.model_rebuild(_types_namespace={"Node": Node})
    with engine.refused("PF101") as refused:
        check(engine, Node.model_json_schema())
    assert str(refused.value.diag.column_name).endswith("$defs.Node.properties.children.items.$ref")


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


@pytest.mark.parametrize(
    ("annotation", "keyword"),
    [
        (tuple[int, str], "prefixItems"),
        (Annotated[Cat | Dog, Field(discriminator="kind")], "oneOf"),
        (Annotated[int, Field(multiple_of=5)], "multipleOf"),
        (dict[Literal["a", "b"], int], "propertyNames"),
        (dict[Annotated[str, Field(pattern="^a")], int], "patternProperties"),
    ],
)
def test_what_pydantic_says_in_other_keywords_is_refused_by_them(
    engine: Engine, annotation: Any, keyword: str
) -> None:
    model = create_model("Model", field=annotation)
    with engine.refused("PF101") as refused:
        check(engine, model.model_json_schema())
    assert refused.value.diag.column_name == f"form_schema.properties.field.{keyword}"


# ---- the same verdicts as another validator's

KEYS = st.sampled_from(["a", "b", "ä c", "type"])
NUMBERS = st.integers(-3, 3) | st.integers(-12, 12).map(lambda n: n / 4) | st.just(BIG)
TEXTS = st.text("abä🙂 1", max_size=3)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
COUNTS = st.integers(0, 3)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
# Those that mean the same in Python.
PATTERNS = st.sampled_from(["", "^a", "b$", "^[ab]+$", "a|1", "ä", "^.{2}$", r"\d", "^(?!a)"])

PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=4, unique=True),
    "enum": st.lists(VALUES, min_size=1, max_size=4),
    "const": VALUES,
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "exclusiveMinimum": NUMBERS,
    "exclusiveMaximum": NUMBERS,
    "minLength": COUNTS,
    "maxLength": COUNTS,
    "pattern": PATTERNS,
    "minItems": COUNTS,
    "maxItems": COUNTS,
    "uniqueItems": st.booleans(),
    "minProperties": COUNTS,
    "maxProperties": COUNTS,
    "required": st.lists(KEYS, max_size=2, unique=True),
    "title": st.just("x"),
    "default": VALUES,
}


@st.composite
def schemas(draw: st.DrawFn, names: tuple[str, ...], depth: int = 3) -> Any:
    """Draw a schema that refers to the definitions named."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.booleans())
    drawn = {k: draw(PLAIN[k]) for k in draw(st.sets(st.sampled_from(sorted(PLAIN)), max_size=3))}
    inner = schemas(names, depth - 1)
    refers: bool = draw(st.booleans())
    if refers and names:
        drawn["$ref"] = "#/$defs/" + draw(st.sampled_from(names))
    if depth > 0:
        parts: dict[str, st.SearchStrategy[Any]] = {
            "properties": st.dictionaries(KEYS, inner, max_size=3),
            "additionalProperties": inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=3),
        }
        for key in draw(st.sets(st.sampled_from(sorted(parts)), max_size=2)):
            drawn[key] = draw(parts[key])
    return drawn


@st.composite
def forms(draw: st.DrawFn) -> Schema:
    """Draw a form whose definitions refer to those before them."""
    defs: Schema = {}
    for name in ("A", "B")[: draw(st.integers(0, 2))]:
        defs[name] = draw(schemas(tuple(defs), 2))
    form = draw(schemas(tuple(defs)).filter(lambda schema: isinstance(schema, dict)))
    return {**form, "$defs": defs} if defs else dict(form)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(form=forms(), values=st.lists(VALUES, min_size=10, max_size=10))
def test_verdicts_are_those_of_another_validator(
    engine: Engine, form: Schema, values: list[Any]
) -> None:
    Draft202012Validator.check_schema(form)
    validator = Draft202012Validator(form)
    check(engine, form)
    rows = engine.rows(
        "select not exists (select from pgflow._form_errors(%s, v.value)) as ok"
        " from jsonb_array_elements(%s) with ordinality as v (value, place) order by v.place",
        json.dumps(form),
        json.dumps(values),
    )
    assert [row["ok"] for row in rows] == [validator.is_valid(value) for value in values]
