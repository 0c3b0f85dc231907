"""A worker process for the chaos tests: its handler notes each execution in a table of its own.

python app.py DSN
"""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta

import structlog
from psycopg_pool import AsyncConnectionPool

from pgflow import App, Context, Retry, Worker

app = App(sys.argv[1])
pool = AsyncConnectionPool(
    app.dsn, min_size=0, max_size=4, open=False, kwargs={"autocommit": True, "connect_timeout": 2}
)


@app.handler(queue="chaos", retry=Retry(base=timedelta(milliseconds=50)))
async def work(ctx: Context) -> int:
    """Take a little time and leave a trace: which run, under which lease."""
    await asyncio.sleep(0.15)
    async with pool.connection() as conn:
        await conn.execute(
            "insert into effect (run_id, lease_no) values (%s, %s)",
            (ctx.run_id, ctx.lease.lease_no),
        )
    return ctx.lease.lease_no


@app.handler(queue="chaos")
async def publish(ctx: Context) -> str:
    """Draft, ask a person, send; each step leaves a trace."""

    async def trace(step: str) -> str:
        async with pool.connection() as conn:
            await conn.execute(
                "insert into trace (run_id, step) values (%s, %s)", (ctx.run_id, step)
            )
        return step

    await ctx.step("draft", trace, "draft")
    await ctx.approval("editor")
    return await ctx.step("send", trace, "send")


async def main() -> None:
    """Work until SIGTERM."""
    async with pool:
        await Worker(app, app.dsn, concurrency=60).run(install_signal_handlers=True)


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(main())
