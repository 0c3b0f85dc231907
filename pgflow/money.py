"""Prices, budgets and what was used, as statements."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from pgflow._statement import Row, RunId, Statement, _rows


def define_price(
    model: str,
    input_per_1k_usd: Decimal | float,
    output_per_1k_usd: Decimal | float,
    *,
    valid_from: datetime | None = None,
    cached_per_1k_usd: Decimal | float | None = None,
    project: str | None = None,
) -> Statement[Row]:
    """Say what a thousand tokens of a model cost from a time on, else from now; return the price.

    Calls that are recorded without a cost get theirs by it. Raises BadRequest.
    """
    return Statement(
        b"select p.* from pgflow.define_price(%(model)s, %(input_per_1k_usd)s::numeric,"
        b" %(output_per_1k_usd)s::numeric, %(valid_from)s, %(cached_per_1k_usd)s::numeric,"
        b" %(project)s) as p",
        {
            "model": model,
            "input_per_1k_usd": input_per_1k_usd,
            "output_per_1k_usd": output_per_1k_usd,
            "valid_from": valid_from,
            "cached_per_1k_usd": cached_per_1k_usd,
            "project": project,
        },
        lambda rows: rows[0],
    )


def prices(*, model: str | None = None, project: str | None = None) -> Statement[list[Row]]:
    """Return rows of view prices, of each model the oldest first."""
    return Statement(
        b"select * from pgflow.prices where project_id = (select pgflow.this_project(%(project)s))"
        b" and (%(model)s::text is null or model = %(model)s) order by model, valid_from",
        {"model": model, "project": project},
        _rows,
    )


def budgets(
    *, run_id: RunId | None = None, limit: int = 50, project: str | None = None
) -> Statement[list[Row]]:
    """Return rows of view budgets, the newest run first."""
    return Statement(
        b"select * from pgflow.budgets where project_id = (select pgflow.this_project(%(project)s))"
        b" and (%(run_id)s::uuid is null or run_id = %(run_id)s::uuid)"
        b" order by run_id desc limit %(limit)s",
        {"run_id": run_id, "limit": limit, "project": project},
        _rows,
    )


def usage_by_model(run_id: RunId, *, project: str | None = None) -> Statement[list[Row]]:
    """Return what a run and all below it took of each model. Raises UnknownRun."""
    return Statement(
        b"select * from pgflow.usage_by_model(%(run_id)s::uuid, %(project)s)",
        {"run_id": run_id, "project": project},
        _rows,
    )
