"""An agent: a model that calls tools, a budget, and a person who is asked before harm is done.

pgflow worker --app examples.agent.app:app
pgflow enqueue agent '{"goal": "Forget ann@example.com"}' --queue agents
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
from pydantic import BaseModel

from examples.agent.model import Reply, think
from pgflow import App, Context, NonRetryable, Retry

app = App(version="1")
DANGEROUS = {"delete_customer"}


class Goal(BaseModel):
    """What the agent is to do, and what it may cost."""

    goal: str
    budget_usd: Decimal = Decimal("0.10")


class Turn(BaseModel):
    """A reply, what the model had been told before, and in which round of the run."""

    reply: Reply
    told: str | None
    round: int


class Report(BaseModel):
    """The agent's last words, and what they cost."""

    answer: str
    turns: int
    cost_usd: Decimal


class BudgetExceeded(NonRetryable):
    """The ledger is as full as it may be; another attempt would find the same."""


@app.handler(queue="agents", retry=Retry(max_attempts=3))
async def agent(ctx: Context, goal: Goal) -> Report:
    """Let the model take turns and call tools until it has an answer."""
    turns: list[Turn] = []

    def ask() -> Turn:
        # Who sent the run back is heard once, by the first turn since. It is no argument of the
        # step: the turns before, which are kept, were taken without it.
        feedback, told = ctx.feedback, None
        if feedback and all(turn.round < feedback["round"] for turn in turns):
            told = feedback["comment"]
        return Turn(reply=think(len(turns) + 1, told), told=told, round=ctx.version)

    spent = Decimal(0)
    while spent < goal.budget_usd:
        number = len(turns) + 1
        turn = await ctx.step(f"turn {number}", ask)
        turns.append(turn)
        cost = turn.reply.cost_usd
        spent = await ctx.transact(f"cost {number}", write_down, ctx.run_id, number, cost)
        call = turn.reply.call
        if call is None:
            return Report(answer=turn.reply.text, turns=number, cost_usd=spent)
        if call.tool in DANGEROUS:
            # The yes is to these arguments. Should the model want others, it doesn't count.
            title = f"Let the agent {call.tool}?"
            await ctx.approval(f"may {call.tool}", title=title, payload=call)
        await ctx.tool(call.tool, call.arguments)  # whoever has the tool resolves it, in SQL
    raise BudgetExceeded(f"{len(turns)} turns cost {spent} USD of {goal.budget_usd}, no answer yet")


def write_down(conn: psycopg.Connection[Any], run_id: str, turn: int, cost_usd: Decimal) -> Decimal:
    """Write into the ledger what a turn cost; return what the run has cost. Committed once."""
    conn.execute(
        "insert into ledger (run_id, turn, cost_usd) values (%s, %s, %s)", (run_id, turn, cost_usd)
    )
    row = conn.execute("select sum(cost_usd) from ledger where run_id = %s", (run_id,)).fetchone()
    return Decimal(row[0]) if row else cost_usd
