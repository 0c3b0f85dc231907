"""What a function of the gateway returns: SQL, parameters, and the way to read the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from pgflow._json import dumps
from pgflow.models import Outcome

R_co = TypeVar("R_co", covariant=True)
Row = dict[str, Any]
RunId = UUID | str


@dataclass(frozen=True, slots=True)
class Statement(Generic[R_co]):
    """SQL with named parameters, and how to read the rows that it returns."""

    sql: bytes
    params: Mapping[str, Any]
    read: Callable[[list[Row]], R_co]


def _int4(value: int | None) -> int | None:
    """Bring a number within what the argument's type holds; the function refuses it by name."""
    return None if value is None else max(-(2**31), min(value, 2**31 - 1))


def _json(value: object, what: str) -> str | None:
    return None if value is None else dumps(value, what)


def _value(rows: list[Row]) -> Any:  # noqa: ANN401 - the caller's return type says what it is
    return next(iter(rows[0].values()))


def _values(rows: list[Row]) -> list[Any]:
    return [next(iter(row.values())) for row in rows]


def _rows(rows: list[Row]) -> list[Row]:
    return rows


def _outcomes(rows: list[Row]) -> list[Outcome]:
    return [Outcome(**row) for row in rows]
