"""An editorial desk: every Markdown file is analysed, then a person decides about it.

pgflow worker --app examples.editorial.app:app
pgflow enqueue review '{"folder": "docs", "name": "why.md"}'
pgflow inbox
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import BaseModel

from examples.editorial.analysis import Findings, analyse
from pgflow import App, Approval, Context

app = App(version="1")


class Article(BaseModel):
    """A Markdown file, and for how many seconds somebody proofreads it."""

    folder: Path
    name: str
    proofreading: float = 0


class Published(BaseModel):
    """The verdict on an article that was approved."""

    name: str
    words: int
    reading_minutes: int
    approved_by: str
    comment: str | None


@app.handler(queue="editorial")
async def review(ctx: Context, article: Article) -> Published:
    """Analyse an article, have it approved, publish it."""
    # A step's result is saved. Should this worker die, the next one goes on after the last step.
    findings = await ctx.step("analyse", analyse, article.folder / article.name)
    await ctx.step("proofread", proofread, article.proofreading)

    # Here the run leaves its worker, for seconds or for months: it is a row in the database until
    # somebody calls pgflow.approve(), in any SQL client. After a reject() it ends as cancelled.
    approval = await ctx.approval(
        "findings",
        title=f"Publish {article.name}?",
        payload=findings,
        on_reject="cancel",
    )
    return await ctx.step("publish", publish, article.name, findings, approval)


async def proofread(seconds: float) -> None:
    """Take a while: this stands for a model, a linter, a web service, whatever is slow."""
    await asyncio.sleep(seconds)


def publish(name: str, findings: Findings, approval: Approval) -> Published:
    """Give the verdict; a real desk would put the article online here."""
    return Published(
        name=name,
        words=findings.words,
        reading_minutes=findings.reading_minutes,
        approved_by=approval.decided_by,
        comment=approval.comment,
    )
