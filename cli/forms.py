"""The fields of a task's form: read from words, or asked for on a terminal.

What fits a form only the database says: an answer that does not is refused by it, and the field
that it names is asked for again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from pgflow.errors import BadRequest

from .output import shown

R = TypeVar("R")

_MISSING: Final = object()
_HINTS: Final = {
    "any": "JSON or a text",
    "array": "a list, as JSON",
    "boolean": "yes or no",
    "integer": "integer",
    "number": "number",
    "object": "an object, as JSON",
    "string": "",
}
_YES_AND_NO: Final = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


@dataclass(frozen=True)
class Field:
    """A member of an answer that is an object; without a name, the whole answer."""

    name: str | None
    schema: Mapping[str, Any]
    required: bool

    @property
    def kind(self) -> str:
        """What it takes: a type of JSON schema, a list of values, or any JSON."""
        if options := self._options():
            return " or ".join(_text(option) for option in options)
        types = self.schema.get("type")
        return types if isinstance(types, str) else "any"

    @property
    def title(self) -> str:
        """What a person calls it."""
        return str(self.schema.get("title") or self.name or "answer")

    @property
    def is_nullable(self) -> bool:
        """Whether null is a value of it."""
        return bool(self.schema.get("nullable"))

    def read(self, text: str) -> object:
        """Return what a text means here; what means nothing stays a text, for the form to refuse.

        An array is written as JSON, and so is an object.
        """
        for option in self._options():
            if text == _text(option):
                return option
        if self.kind == "string" or self._options():
            return text
        if self.kind == "boolean":
            return _YES_AND_NO.get(text.strip().lower(), text)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text

    def ask(self) -> object:
        """Ask for it on the terminal; _MISSING if nothing is said and there is no default."""
        if about := self.schema.get("description"):
            click.echo(f"# {shown('', about)}", err=True)
        default = self.schema.get("default", _MISSING)
        told = shown("", self.title)
        if hint := _HINTS.get(self.kind, self.kind):
            told += f" ({shown('', hint)})"
        if default is not _MISSING:
            told += f" [{shown('', _text(default))}]"
        elif not self.required:
            told += " [none]"
        text = click.prompt(told, default="", show_default=False, err=True)
        if text:
            return self.read(text)
        if default is _MISSING and self.required and self.is_nullable:
            return None
        return default

    def is_at(self, path: str) -> bool:
        """Whether the path of a refused value, such as data.lines[0], leads through it."""
        _, dot, rest = path.partition(".")
        if self.name is None or not dot:
            return self.name is None
        names = (self.name, json.dumps(self.name, ensure_ascii=False))
        return any(rest == name or rest.startswith((f"{name}.", f"{name}[")) for name in names)

    def _options(self) -> list[Any]:
        if "const" in self.schema:
            return [self.schema["const"]]
        options = self.schema.get("enum")
        return options if isinstance(options, list) else []


def fields(form: Mapping[str, Any] | None) -> list[Field]:
    """Return what a form asks for, one by one; without a form, one value that may be anything.

    The database keeps the order of a list, such as that of what is required, and no other.
    """
    root = _resolved(form or {}, form or {})
    members = root.get("properties")
    if not members or root.get("type", "object") != "object":
        return [Field(None, root, required=True)]
    needed = [name for name in root.get("required", ()) if name in members]
    return [
        Field(name, _resolved(root, members[name]), name in needed)
        for name in dict.fromkeys([*needed, *members])
    ]


def read_pairs(form: Mapping[str, Any] | None, pairs: Mapping[str, str]) -> dict[str, object]:
    """Return members of an answer that were written as texts."""
    known = {field.name: field for field in fields(form)}
    anything = Field(None, {}, required=False)
    return {name: known.get(name, anything).read(text) for name, text in pairs.items()}


def ask(
    form: Mapping[str, Any] | None, given: Mapping[str, object], send: Callable[[object], R]
) -> R:
    """Ask for what is not given and send the answer, until it is taken."""
    asked = [field for field in fields(form) if field.name not in given]
    said = {field.name: field.ask() for field in asked}
    while True:
        try:
            return send(_answer(given, said))
        except BadRequest as error:
            again = [field for field in asked if field.is_at(error.field)]
            if not again:
                raise
            click.echo(f"{error}", err=True)
            said |= {field.name: field.ask() for field in again}


def is_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _answer(given: Mapping[str, object], said: Mapping[str | None, object]) -> object:
    if None in said:
        return None if said[None] is _MISSING else said[None]
    named = {
        name: value for name, value in said.items() if name is not None and value is not _MISSING
    }
    return {**given, **named}


def _resolved(form: Mapping[str, Any], schema: object) -> dict[str, Any]:
    """Return a schema with its reference followed; of a union with null, the other alternative."""
    found = dict(schema) if isinstance(schema, Mapping) else {}
    if reference := found.pop("$ref", None):
        found = {**_resolved(form, form["$defs"][reference.rpartition("/")[2]]), **found}
    types = found.get("type")
    if isinstance(types, list) and "null" in types and len(types) == 2:
        found |= {"nullable": True, "type": next(kind for kind in types if kind != "null")}
    others = list(_not_null(found.get("anyOf", ())))
    if len(others) == 1:
        found = {**_resolved(form, others[0]), **found, "nullable": True}
        del found["anyOf"]
    return found


def _not_null(alternatives: object) -> Iterator[object]:
    for schema in alternatives if isinstance(alternatives, list) else ():
        if not (isinstance(schema, Mapping) and schema.get("type") == "null"):
            yield schema


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
