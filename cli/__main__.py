"""python -m pgflow.cli is the command pgflow."""

from __future__ import annotations

from .group import main

main(prog_name="pgflow")
