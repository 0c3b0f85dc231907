"""A trip is booked as a whole: what was booked before a failure is given back.

pgflow worker --app examples.saga.app:app
pgflow enqueue book_trip '{"traveller": "Ann", "city": "Venice"}' --queue trips
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
from pydantic import BaseModel

from pgflow import App, Context, Retry

app = App(version="1")


class Trip(BaseModel):
    """Who wants to go where."""

    traveller: str
    city: str


class Booking(BaseModel):
    """A row of table booking."""

    booking_id: int
    kind: str


class SoldOut(Exception):
    """There is none."""


@app.handler(
    queue="trips",
    retry=Retry(max_attempts=3, base=timedelta(seconds=1)),
    undo_on=["failed", "cancelled", "timeout"],
)
async def book_trip(ctx: Context, trip: Trip) -> list[Booking]:
    """Book a flight, a hotel and a car, and hold them until they are paid for."""
    # However this run ends, if not completed: another run calls give_back for each of the
    # bookings that were made, the last one first.
    flight = await ctx.transact("flight", book, ctx.run_id, "flight", trip, undo=give_back)
    hotel = await ctx.transact("hotel", book, ctx.run_id, "hotel", trip, undo=give_back)
    car = await ctx.transact("car", book, ctx.run_id, "car", trip, undo=give_back)
    await ctx.wait_for("payment", timeout=timedelta(days=1))
    return [flight, hotel, car]


def book(conn: psycopg.Connection[Any], run_id: str, kind: str, trip: Trip) -> Booking:
    """Write a booking. It is committed together with the step, so there is exactly one."""
    if (kind, trip.city) == ("car", "Venice"):
        raise SoldOut("there are no cars in Venice")
    row = conn.execute(
        "insert into booking (run_id, kind, traveller, city) values (%s, %s, %s, %s)"
        " returning booking_id",
        (run_id, kind, trip.traveller, trip.city),
    ).fetchone()
    return Booking(booking_id=row[0] if row else 0, kind=kind)


def give_back(booking: Booking) -> None:
    """Undo a booking. A worker may die right after this, so a second call must be harmless."""
    with psycopg.connect(app.dsn) as conn:
        conn.execute(
            "update booking set given_back_at = clock_timestamp()"
            " where booking_id = %s and given_back_at is null",
            (booking.booking_id,),
        )
