"""Compares a run's timeline with what a test expects."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from types import EllipsisType
from typing import Any

Expected = Sequence[str | EllipsisType]


def label(line: dict[str, Any]) -> str:
    """Return a line's type, with its step, the key that it is about or its error code.

    >>> label({"type": "step.completed", "step": "draft", "payload": None})
    'step.completed draft'
    """
    payload = line["payload"] if isinstance(line["payload"], dict) else {}
    is_ours = str(line["type"]).partition(".")[0] in {"run", "task", "tool", "wait"}
    told = line["step"] or (is_ours and (payload.get("key") or payload.get("error_code")))
    return f"{line['type']} {told}" if told else str(line["type"])


def differences(lines: Sequence[dict[str, Any]], expected: Expected) -> str:
    """Return what differs, a line each, or nothing. `...` stands for any number of lines."""
    labels = [label(line) for line in lines]
    if _fits(labels, expected):
        return ""
    wanted = ["..." if word is ... else word for word in expected]
    happened = [next((t for t in (text, _type(text)) if t in wanted), text) for text in labels]
    changes = (c.replace("- ...", "  ...") for c in difflib.ndiff(wanted, happened))
    return "\n".join(change for change in changes if not change.startswith("?"))


def _type(text: str) -> str:
    return text.partition(" ")[0]


def _fits(labels: Sequence[str], expected: Expected) -> bool:
    if not expected:
        return not labels
    first, rest = expected[0], expected[1:]
    if first is ...:
        return any(_fits(labels[start:], rest) for start in range(len(labels) + 1))
    return bool(labels) and first in (labels[0], _type(labels[0])) and _fits(labels[1:], rest)
