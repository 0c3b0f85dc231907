"""The handlers of the phases. phases.yaml says what each has to leave behind, and who approves it.

pgflow flow apply examples/agent_phases/phases.yaml
pgflow worker --app examples.agent_phases.app:app
pgflow start change
"""

from __future__ import annotations

from typing import Any

from examples.agent_phases.model import Reply, ask
from pgflow import App, Context

app = App(version="1")


@app.handler(queue="agents")
async def phase(ctx: Context) -> dict[str, Any]:
    """Have the model of the step's role write what the step has to leave behind."""
    bound, expected, repair = ctx.binding, ctx.expected_artifact, ctx.repair
    assert bound is not None
    assert expected is not None
    errors = [] if repair is None else [error["message"] for error in repair.errors]
    comment = None if ctx.feedback is None else ctx.feedback["comment"]

    def call() -> Reply:
        reply = ask(bound.model, str(ctx.step_name), errors, comment)
        ctx.usage(model=bound.model, actor=bound.agent, role=bound.role, cost_usd=reply.usd)
        return reply

    # A step for each call: a worker that dies costs at most the call that it was in.
    reply = await ctx.step(f"call {repair.attempt if repair else 0}", call)
    await ctx.artifact(expected.name, reply.content)
    return reply.content


@app.handler(queue="agents")
async def release(ctx: Context, given: dict[str, Any]) -> str:
    """Write the release notes: no model is needed for that."""
    files = ", ".join(sorted(given["implement"]["files"]))
    remarks = "; ".join(given["review"]["remarks"])
    notes = f"{given['plan']['goal']}: {files}. Known: {remarks}."
    await ctx.artifact("notes", notes)
    return notes
