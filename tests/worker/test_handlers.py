"""What handlers look like, what they are given and what becomes of what they return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field

from pgflow import App, Context, ThreadContext
from pgflow.errors import BadHandler, DuplicateHandler

if TYPE_CHECKING:
    from tests.worker.conftest import Logs, Stage


class Order(BaseModel):
    item: str
    count: int = Field(default=1, gt=0)


class Receipt(BaseModel):
    total: Decimal
    at: datetime


@dataclass
class Point:
    x: int
    y: int


async def takes_nothing() -> str:
    return "nothing"


async def takes_context(ctx: Context) -> str:
    return str(ctx.lease.input["item"])


async def takes_context_by_type(it: Context) -> str:
    return str(it.lease.input["item"])


async def takes_input(order: Order) -> str:
    return order.item


async def takes_both(ctx: Context, order: Order) -> str:
    return f"{ctx.attempt} {order.item}"


def plain_takes_nothing() -> str:
    return threading.current_thread().name.partition("_")[0]


def plain_takes_context(context: ThreadContext) -> str:
    return str(context.lease.input["item"])


def plain_takes_input(order: Order) -> str:
    return order.item


def plain_takes_both(ctx: ThreadContext, order: Order) -> str:
    return f"{ctx.attempt} {order.item}"


async def has_an_option(order: Order, mode: str = "fast") -> str:
    return f"{order.item} {mode}"


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (takes_nothing, "nothing"),
        (takes_context, "pen"),
        (takes_context_by_type, "pen"),
        (takes_input, "pen"),
        (takes_both, "0 pen"),
        (plain_takes_nothing, "pgflow"),
        (plain_takes_context, "pen"),
        (plain_takes_input, "pen"),
        (plain_takes_both, "0 pen"),
        (has_an_option, "pen fast"),
    ],
)
def test_a_handler_takes_nothing_the_context_the_input_or_both(
    stage: Stage, function: Callable[..., Any], returned: str
) -> None:
    handler = stage.app.handler(function)
    with stage.worker():
        assert stage.output(stage.client.enqueue(handler, Order(item="pen"))) == returned


def test_a_handler_is_still_the_function_that_it_was() -> None:
    assert App("").handler(plain_takes_input)(Order(item="pen")) == "pen"


def test_a_function_with_two_inputs_is_no_handler() -> None:
    def two(ctx: Context, a: int, b: int) -> None: ...

    with pytest.raises(BadHandler, match="takes 2 inputs"):
        App("").handler(two)


def test_two_handlers_of_one_app_cannot_have_one_name() -> None:
    app = App("")
    app.handler(takes_nothing)
    with pytest.raises(DuplicateHandler, match="takes_nothing"):
        app.handler(takes_nothing)


async def sells(order: Order) -> Receipt:
    return Receipt(total=Decimal("1.10") * order.count, at=datetime(2026, 1, 2, tzinfo=UTC))


async def mirrors(point: Point) -> Point:
    return Point(point.y, point.x)


def test_models_and_dataclasses_go_in_and_come_out(stage: Stage) -> None:
    stage.app.handler(sells)
    stage.app.handler(mirrors)
    with stage.worker():
        sale = stage.client.enqueue("sells", {"item": "pen", "count": 3})
        point = stage.client.enqueue("mirrors", Point(1, 2))
        assert stage.output(sale) == {"total": "3.30", "at": "2026-01-02T00:00:00Z"}
        assert stage.output(point) == {"x": 2, "y": 1}


@pytest.mark.parametrize("function", [takes_input, plain_takes_input])
def test_an_input_that_does_not_fit_fails_the_run_without_a_retry(
    stage: Stage, function: Callable[..., Any]
) -> None:
    handler = stage.app.handler(function)
    with stage.worker():
        run = stage.ends(stage.client.enqueue(handler, {"item": "pen", "count": 0}))
    assert (run["state"], run["error_code"], run["attempt_count"]) == ("failed", "E-RUN-005", 1)
    assert "count" in run["error_detail"]
    assert "greater than 0" in run["error_detail"]


def test_a_run_that_no_handler_is_named_for_fails_and_the_worker_goes_on(
    stage: Stage, logs: Logs
) -> None:
    handler = stage.app.handler(takes_nothing)
    with stage.worker():
        run = stage.ends(stage.client.enqueue("who"))
        assert stage.output(stage.client.enqueue(handler)) == "nothing"
    assert (run["state"], run["error_code"], run["attempt_count"]) == ("failed", "E-RUN-004", 1)
    assert "who" in run["error_detail"]
    failed = [line for line in logs if line.get("error_code") == "E-RUN-004"]
    assert [line["run_id"] for line in failed] == [str(run["run_id"])]


def test_the_default_handler_takes_what_no_other_is_named_for(stage: Stage) -> None:
    stage.app.handler(takes_nothing)

    @stage.app.handler(name="__default__")
    async def anything(ctx: Context) -> str:
        return f"default for {ctx.lease.handler}"

    with stage.worker():
        assert stage.output(stage.client.enqueue("who")) == "default for who"
        assert stage.output(stage.client.enqueue("takes_nothing")) == "nothing"


def test_a_context_tells_about_its_run(stage: Stage) -> None:
    told: list[Any] = []

    @stage.app.handler
    async def look(ctx: Context) -> None:
        told.extend([ctx.run_id, ctx.attempt, ctx.correlation_id, ctx.lease.tags, ctx.cancelled])
        told.append(ctx.created_by)

    with stage.worker():
        run_id = stage.client.enqueue(look, tags=["a", "b"])
        stage.output(run_id)
    assert told == [str(run_id), 0, str(run_id), ["a", "b"], False, "postgres"]


def test_the_settings_of_a_handler_hold_for_runs_that_give_none(stage: Stage) -> None:
    stage.app.handler(name="a", queue="mail")(takes_nothing)
    with stage.worker(queues=["default", "mail"]):
        run = stage.ends(stage.client.enqueue("a"))
    assert run["queue"] == "mail"
