"""The handlers that pgflow's workers run in all measures."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from bench.recorder import Recorder
from pgflow import App, Context

app = App(os.environ.get("PGFLOW_DSN"))
recorder = Recorder(os.environ.get("BENCH_TICKS"))


@app.handler(queue="bench")
async def noop(payload: dict[str, Any]) -> None:
    """Do nothing, so that only the engine is measured."""
    recorder.hit(payload)


@app.handler(queue="bench")
async def steps(ctx: Context, payload: dict[str, Any]) -> None:
    """Journal three results."""
    for name in ("one", "two", "three"):
        await ctx.step(name, _one)
    recorder.hit(payload)


@app.handler(queue="bench")
async def wait(ctx: Context) -> None:
    """Wait for a signal."""
    recorder.hit(await ctx.wait_for("go"))


@app.handler(queue="bench")
async def ask(ctx: Context) -> None:
    """Wait for a person, whose comment is when they decided."""
    verdict = await ctx.approval("go")
    recorder.hit({"sent": int(verdict.comment or 0)})


@app.handler(queue="bench")
async def nap(payload: dict[str, Any]) -> None:
    """Take some time."""
    recorder.hit()
    await asyncio.sleep(payload["seconds"])


async def _one() -> int:
    return 1
