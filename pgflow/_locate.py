"""Where the SQL files are: inside the package once it is installed, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def locate(name: str) -> Path:
    """Return the folder `name` ("sql" or "migrations") that belongs to this program."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
