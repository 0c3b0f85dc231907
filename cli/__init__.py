"""The command pgflow."""

from __future__ import annotations

import click

from pgflow import __version__


@click.group()
@click.version_option(__version__, prog_name="pgflow")
def main() -> None:
    """Job queue and durable run engine that lives in PostgreSQL."""
