"""JSON as pgflow writes it: pydantic models, dataclasses, dates and ids included."""

from __future__ import annotations

import hashlib
import json

import orjson
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from pgflow.errors import NotJson


def dumps(value: object, what: str = "a value") -> str:
    """Return `value` as JSON text. Raises NotJson, which says what it is and why it isn't."""
    try:
        text = to_json(value)
        if b"NaN" in text or b"Infinity" in text:
            json.loads(text, parse_constant=_no_constant)  # unless a text says so
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NotJson(f"{what} is not JSON: {error}") from error
    return text.decode()


def loads(text: str) -> object:
    """Read JSON, and nothing that only Python takes for it. Raises ValueError, RecursionError."""
    value: object = json.loads(text, parse_constant=_no_constant)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def digest(value: object, what: str) -> str:
    """Return the hex SHA-256 of a value's JSON with sorted keys. Raises NotJson."""
    try:
        text = orjson.dumps(to_jsonable_python(value), option=orjson.OPT_SORT_KEYS)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise NotJson(f"{what} is not JSON: {error}") from error
    return hashlib.sha256(text).hexdigest()
