"""JSON as pgflow writes it: pydantic models, dataclasses, dates and ids included."""

from __future__ import annotations

import hashlib

import orjson
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from pgflow.errors import NotJson


def dumps(value: object, what: str = "a value") -> str:
    """Return `value` as JSON text. Raises NotJson, which says what it is and why it isn't."""
    try:
        return to_json(value).decode()
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NotJson(f"{what} is not JSON: {error}") from error


def digest(value: object, what: str) -> str:
    """Return the hex SHA-256 of a value's JSON with sorted keys. Raises NotJson."""
    try:
        plain = to_jsonable_python(value)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NotJson(f"{what} is not JSON: {error}") from error
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
