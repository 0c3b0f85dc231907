"""The handlers that the benchmarks run."""

from __future__ import annotations

import os
import time

from pgflow import App, Context

app = App(os.environ.get("PGFLOW_DSN"))


@app.handler(queue="bench")
async def noop() -> None:
    """Do nothing, so that only the engine is measured."""


@app.handler(queue="bench")
async def stamp() -> float:
    """Return when it was called."""
    return time.time()


@app.handler(queue="bench")
async def ask(ctx: Context) -> float:
    """Ask a person and return when it went on."""
    await ctx.approval("bench")
    return time.time()


@app.handler(queue="bench")
async def three_steps(ctx: Context) -> int:
    """Journal three results."""
    for name in ("one", "two", "three"):
        await ctx.step(name, _one)
    return 3


async def _one() -> int:
    return 1
