"""What arguments are made of: JSON, times, spans; and the options that many commands have."""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import datetime, timedelta
from typing import Any

import click
from pydantic import RootModel


class Json(RootModel[Any]):
    """A JSON value that was given: null too, which the verbs take for nothing given."""


def json_text(text: str) -> Json:
    """Read JSON, from stdin if the text is -."""
    try:
        if text == "-":
            text = sys.stdin.read()
        return Json(json.loads(text, parse_float=_finite, parse_constant=_finite))
    except json.JSONDecodeError as error:
        near = text[error.pos : error.pos + 20].strip()
        where = f"line {error.lineno} column {error.colno}" + (f", at {near!r}" if near else "")
        raise click.BadParameter(f"not JSON: {error.msg}: {where}") from None
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}") from None


def _finite(text: str) -> float:
    """Return a number; what is none, or out of range, would be stored as null."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number that can be stored")
    return number


def named_text(text: str) -> tuple[str, str]:
    """Read NAME=TEXT."""
    name, equals, rest = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
    return name, rest


def named_json(text: str) -> tuple[str, Json]:
    """Read KEY=JSON."""
    name, rest = named_text(text)
    return name, json_text(rest)


def timestamp(text: str) -> datetime:
    """Read an ISO 8601 time; without an offset it is in the database session's time zone."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time such as 2026-07-01T09:00Z") from None


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> datetime | timedelta:
    """Read a time, or a span such as 15m."""
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a time such as 2026-07-01T09:00Z nor a span such as 15m"
        ) from None


def seconds(text: str) -> timedelta:
    """Read a span."""
    try:
        return timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is not a number of seconds") from None


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object a line, for programs."
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many."
)
as_user_option = click.option(
    "--as-user", metavar="NAME", help="Act for a user of your application (pgflow_application)."
)
data_option = click.option(
    "--data", type=json_text, metavar="JSON", help="The data as JSON; - reads stdin."
)
set_option = click.option(
    "--set",
    "pairs",
    type=named_text,
    multiple=True,
    metavar="NAME=VALUE",
    help="A field of the form, as a text; several times.",
)
run_argument = click.argument("run_id", metavar="RUN", type=click.UUID)
task_argument = click.argument("task_id", metavar="TASK", type=click.UUID)
