"""The version of this program, and so of the schema that it brings."""

from __future__ import annotations

__version__ = "0.1.0.dev0"
