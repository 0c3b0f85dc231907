"""What models cost: list prices, set one."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation

import click

from .options import json_option, timestamp
from .output import print_json, print_rows
from .session import Session, global_options, pass_session

_COLUMNS = (
    "model",
    "valid_from",
    "valid_until",
    "input_per_1k_usd",
    "output_per_1k_usd",
    "cached_per_1k_usd",
    "defined_by",
)


def _usd(text: str) -> Decimal:
    """Read an amount, to the last digit."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise click.BadParameter(f"{text!r} is not a number") from None


@click.group()
@global_options
def price() -> None:
    """List what models cost, or set it.

    A call that is recorded without a cost gets it by the price of its time.
    """


@price.command("list")
@click.option("--model", help="Only this model.")
@json_option
@global_options
@pass_session
def list_(session: Session, model: str | None, *, as_json: bool) -> None:
    """List the prices, in USD for a thousand tokens."""
    with session.client() as client:
        rows = client.prices(model=model)
    print_rows(rows, _COLUMNS, as_json=as_json)


@price.command("set")
@click.argument("model")
@click.argument("input_per_1k_usd", metavar="INPUT", type=_usd)
@click.argument("output_per_1k_usd", metavar="OUTPUT", type=_usd)
@click.option(
    "--cached",
    "cached_per_1k_usd",
    type=_usd,
    metavar="USD",
    help="For the cached ones among the input tokens; else as the others.",
)
@click.option(
    "--from", "valid_from", type=timestamp, metavar="TIME", help="Since when; else from now on."
)
@json_option
@global_options
@pass_session
def set_(
    session: Session,
    model: str,
    input_per_1k_usd: Decimal,
    output_per_1k_usd: Decimal,
    cached_per_1k_usd: Decimal | None,
    valid_from: datetime | None,
    *,
    as_json: bool,
) -> None:
    """Set what a thousand tokens of MODEL cost, in USD: INPUT and OUTPUT."""
    with session.client() as client:
        row = client.define_price(
            model,
            input_per_1k_usd,
            output_per_1k_usd,
            valid_from=valid_from,
            cached_per_1k_usd=cached_per_1k_usd,
        )
    if as_json:
        print_json(row)
    else:
        print_rows([{**row, "valid_until": None}], _COLUMNS, as_json=False)
