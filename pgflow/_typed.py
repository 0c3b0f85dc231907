"""Results that come back from JSON as a function's annotation says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter


def typed(function: Callable[..., Any], value: Any) -> Any:
    """Return `value`, read from JSON, as the return annotation of `function` says."""
    try:
        reads = _readers[function]
    except KeyError:
        reads = _readers[function] = _reader(function)
    except TypeError:  # not hashable
        reads = _reader(function)
    return value if reads is None else reads.validate_python(value)


_readers: WeakKeyDictionary[Callable[..., Any], TypeAdapter[Any] | None] = WeakKeyDictionary()


def _reader(function: Callable[..., Any]) -> TypeAdapter[Any] | None:
    try:
        hint = inspect.get_annotations(function, eval_str=True).get("return")
    except NameError:  # an annotation that only a type checker can resolve
        return None
    return None if hint in (None, Any, inspect.Signature.empty) else adapter(hint)


def adapter(hint: Any) -> TypeAdapter[Any]:
    """Return what reads values of a type; made once for each."""
    try:
        return _kept(hint)
    except TypeError:  # not hashable
        return TypeAdapter(hint)


@functools.lru_cache(maxsize=256)
def _kept(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)
