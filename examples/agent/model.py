"""A model without a network: it says what its script says, and heeds what it is told."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter


class Call(BaseModel):
    """A tool that the model wants called."""

    tool: str
    arguments: dict[str, Any]


class Reply(BaseModel):
    """What the model says, which tool it wants, and what saying so cost."""

    text: str
    call: Call | None = None
    cost_usd: Decimal


class Line(Reply):
    """A line of the script, with another one for the case that a person says no to it."""

    if_told: Reply | None = None


SCRIPT = TypeAdapter(list[Line]).validate_json(
    Path(__file__).with_name("script.json").read_bytes(),
)


def think(number: int, told: str | None) -> Reply:
    """Return the reply of that number; a real model would be sent the whole conversation."""
    line = SCRIPT[min(number, len(SCRIPT)) - 1]
    return line.if_told if told and line.if_told else line
