"""The command pgflow: it parses, calls and prints; what happens the database decides."""

from __future__ import annotations

from .group import main

__all__ = ["main"]
