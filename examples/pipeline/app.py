"""The handlers of the pipeline's steps. pipeline.yaml says which needs which.

pgflow flow apply examples/pipeline/pipeline.yaml
pgflow worker --app examples.pipeline.app:app
pgflow start pipeline '{"folder": "docs", "report": "report.md"}'
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from pydantic import BaseModel

from examples.editorial.analysis import markdown_files
from examples.pipeline.analyses import (
    Finding,
    Found,
    Length,
    broken_links,
    lengths,
    odd_headings,
    write,
)
from pgflow import App, Approval, NonRetryable, ThreadContext

app = App(version="1")
MOST = 12  # lines in a list of the first draft


class Order(BaseModel):
    """The input of the flow: which files, and where the report goes."""

    folder: Path
    report: Path
    limit: int = 500


class Files(BaseModel):
    """What `collect` found."""

    folder: Path
    names: list[str]


class Collected(BaseModel):
    """The input of a step that needs `collect`."""

    collect: Files


class Draft(BaseModel):
    """A report that nobody has let pass yet, and why it was written again."""

    text: str
    number: int
    after: str | None


class Passed(BaseModel):
    """The input of `publish`."""

    draft: Draft
    editor: Approval


class Published(BaseModel):
    """Where the report is, who let it pass, and in which draft."""

    report: Path
    draft: int
    approved_by: str
    comment: str | None


@app.handler(queue="pipeline")
def collect(order: Order) -> Files:
    """Find the Markdown files of the folder."""
    names = list(islice(markdown_files(order.folder), order.limit))
    if not names:
        raise NonRetryable(f"there are no Markdown files in {order.folder}")
    return Files(folder=order.folder, names=names)


@app.handler(queue="pipeline")
def words(found: Collected) -> list[Length]:
    """Count words and reading time."""
    return lengths(found.collect.folder, found.collect.names)


@app.handler(queue="pipeline")
def links(found: Collected) -> list[Finding]:
    """Look for links that lead nowhere."""
    return broken_links(found.collect.folder, found.collect.names)


@app.handler(queue="pipeline")
def headings(found: Collected) -> list[Finding]:
    """Look for headings that are out of order."""
    return odd_headings(found.collect.folder, found.collect.names)


@app.handler(queue="pipeline")
def draft(ctx: ThreadContext, found: Found) -> Draft:
    """Write the report, with lists half as long as before if an editor sent the last one back."""
    return Draft(
        text=write(found, max(1, MOST >> ctx.version)),
        number=ctx.version + 1,
        after=ctx.feedback["comment"] if ctx.feedback else None,
    )


@app.handler(queue="pipeline")
def publish(ctx: ThreadContext, passed: Passed) -> Published:
    """Store the report. Done again, after a crash, it stores the same."""
    order = Order.model_validate(ctx.flow_input)
    order.report.write_text(passed.draft.text)
    return Published(
        report=order.report,
        draft=passed.draft.number,
        approved_by=passed.editor.decided_by,
        comment=passed.editor.comment,
    )
