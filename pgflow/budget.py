"""Budgets: how much a run and all below it may spend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Budget(BaseModel):
    """Bounds of what a run and all below it spend; at least one of `usd`, `tokens`, `seconds`.

    >>> Budget(usd=2.5, on_breach="ask", assignee_role="controllers").usd
    2.5
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    usd: float | None = Field(default=None, description="The sum of the costs of calls of models.")
    tokens: int | None = Field(default=None, description="The sum of input and output tokens.")
    seconds: float | None = Field(
        default=None, description="Since the first start, waits for anything included."
    )
    on_breach: Literal["fail", "ask"] = Field(
        default="fail",
        description="`fail`: the run fails with E-RUN-009; `ask`: it is paused, with all below it,"
        " and a task asks to raise the budget.",
    )
    assignee: str | None = Field(default=None, description="Who is asked.")
    assignee_role: str | None = Field(default=None, description="The role that is asked.")


@dataclass(slots=True, frozen=True)
class BudgetLeft:
    """What is left to a run, as of the last report; None: that is not bounded."""

    usd: float | None = None
    tokens: int | None = None
    seconds: float | None = None
