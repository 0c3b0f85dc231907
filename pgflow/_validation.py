"""Holds what handlers leave behind to JSON Schema, draft 2020-12.

The validator is imported when it is first needed: most workers never do.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pgflow._json import dumps, loads
from pgflow.documents import Document
from pgflow.errors import BadSchema

Held = Mapping[str, Any] | type[BaseModel] | None
Errors = list[dict[str, str]]
_MESSAGE_LIMIT = 500  # characters; a message repeats the value that is wrong
_ERRORS_LIMIT = 1000
_JSON_TYPE = re.compile(r"(application/json|[^;]*\+json)(;|$)")


def read_document(
    name: str,
    content: object,
    media_type: str | None,
    kind: str,
    held: Held,
    schema: str | None = None,
    schema_version: int | None = None,
) -> Document:
    """Make what is sent of what a handler gave: validated, if it is held to a schema.

    A text that is held to one, or whose media type says so, is JSON as text, and invalid if it
    cannot be read. Raises NotJson, BadSchema.
    """
    text: str | None = None
    data: bytes | None = None
    if isinstance(content, bytes | bytearray | memoryview):
        data, default = bytes(content), "application/octet-stream"
    elif isinstance(content, str):
        text, default = content, "text/plain" if held is None else "application/json"
    else:
        text, default = dumps(content, f"artifact {name}"), "application/json"
    media_type = (media_type or default).lower()
    errors: Errors = []
    if held is not None or (text is not None and _JSON_TYPE.match(media_type)):
        errors = _errors_of_text(held, text if data is None else data)
    return Document(name, text, data, media_type, errors, schema, schema_version, kind)


def _errors_of_text(schema: Held, text: str | bytes | None) -> Errors:
    try:
        value = loads(text.decode() if isinstance(text, bytes) else text or "")
    except (ValueError, RecursionError) as error:
        return [_error("$", f"not JSON: {error}")]
    return [] if schema is None else errors_of(schema, value)


def errors_of(schema: Mapping[str, Any] | type[BaseModel], value: object) -> Errors:
    """Return what is wrong with a value, at most the first thousand. Raises BadSchema."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - as the module says
    from jsonschema_specifications import REGISTRY  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    definition = schema.model_json_schema() if isinstance(schema, type) else dict(schema)
    _check(dumps(definition, "the schema"))
    # With a registry that is given it fetches nothing that a $ref names.
    validator = Draft202012Validator(definition, registry=REGISTRY)
    try:
        found = itertools.islice(validator.iter_errors(value), _ERRORS_LIMIT)
        return [_error(error.json_path, error.message) for error in found]
    except (Unresolvable, re.error) as error:
        raise BadSchema(f"the schema cannot be used: {error}") from error
    except RecursionError:
        return [_error("$", "nested too deep to be validated")]


@functools.lru_cache(maxsize=64)
def _check(schema: str) -> None:
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        why = f"{error.json_path}: {error.message[:_MESSAGE_LIMIT]}"
        raise BadSchema(f"the schema is none of draft 2020-12: {why}") from error


def _error(path: str, message: str) -> dict[str, str]:
    return {"path": path, "message": message[:_MESSAGE_LIMIT]}
