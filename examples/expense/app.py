"""An expense claim: filled in, approved by people who may, paid by somebody else.

pgflow worker --app examples.expense.app:app
psql "$PGFLOW_DSN" -f examples/expense/desk.sql
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from pgflow import App, Context, WaitTimeout

app = App(version="1")


class Employee(BaseModel):
    """Who claims: a database role."""

    name: str


class Claim(BaseModel):
    """What the employee fills in. The database refuses what doesn't fit."""

    purpose: Annotated[str, Field(min_length=3, max_length=200)]
    category: Literal["travel", "meals", "other"]
    amount: Annotated[Decimal, Field(gt=0, le=10_000)]


class Outcome(BaseModel):
    """How it ended: rejected, unpaid or paid; and who said so."""

    state: Literal["rejected", "unpaid", "paid"]
    amount: Decimal
    decided_by: list[str]
    reference: str | None = None


@app.handler(queue="expenses")
async def expense(ctx: Context, employee: Employee) -> Outcome:
    """Have a claim filled in, approved and paid."""
    answer = await ctx.form("claim", Claim, title="What did you spend?", assignee=employee.name)
    claim = answer.data

    # Two of three managers above 1,000, else one. Whoever enqueued this run is none of them. Those
    # who don't decide in time lose their say to the directors; after them the run is cancelled.
    is_large = claim.amount > 1000
    approval = await ctx.approval(
        "approve",
        title=f"Pay {employee.name} {claim.amount:.2f} for {claim.purpose}?",
        payload=claim,
        assignee_role="managers",
        quorum=2 if is_large else 1,
        quorum_of=3 if is_large else 1,
        not_requester=True,
        due_in=timedelta(days=3),
        policy="escalate",
        escalate_to="directors",
        escalate_in=timedelta(days=2),
        on_reject="resume",
    )
    voters = [vote["voter"] for vote in approval.votes or []] or [approval.decided_by]
    if not approval.approved:
        return Outcome(state="rejected", amount=claim.amount, decided_by=voters)

    order = await ctx.step("order", order_payment, employee.name, claim)
    try:
        payment = await ctx.wait_for("payment", timeout=timedelta(days=14))
    except WaitTimeout:
        return Outcome(state="unpaid", amount=claim.amount, decided_by=voters, reference=order)
    return Outcome(
        state="paid", amount=claim.amount, decided_by=voters, reference=payment["reference"]
    )


def order_payment(name: str, claim: Claim) -> str:
    """Order a transfer from the bank; a real desk would call it here."""
    return f"order {claim.amount:.2f} {name}"
