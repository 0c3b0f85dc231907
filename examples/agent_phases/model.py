"""Models without a network: each says what the script has for it, and heeds what it is told."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

SCRIPT: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("script.json").read_bytes())


class Reply(BaseModel):
    """What a model says, and what saying so cost."""

    content: dict[str, Any]
    usd: Decimal


def ask(model: str, phase: str, errors: list[str], comment: str | None) -> Reply:
    """Return a model's reply; a real one would be sent instructions, inputs and the schema too.

    `errors` are those of what it said before, `comment` is that of the person who sent it back.
    """
    lines = SCRIPT[model][phase]
    said = lines["first"]
    if comment:
        said = lines.get("told", said)
    if errors:
        said = lines.get("repaired", said)
    return Reply(content=said, usd=Decimal(SCRIPT[model]["usd_per_call"]))
