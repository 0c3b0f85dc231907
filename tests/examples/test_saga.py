"""The saga example: a trip is booked as a whole or given back, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from examples.saga.app import Trip, app, book_trip
from pgflow.testing import Scene

SCHEMA = Path(__file__).parents[2] / "examples" / "saga" / "booking.sql"
APP = "examples.saga.app:app"

# Whoever writes about a hotel waits, with the row written and not committed, for lock 7.
STOP_AT_THE_HOTEL = """
    create function stop() returns trigger language plpgsql as $$
    begin
        perform pg_advisory_xact_lock_shared(7);
        return null;
    end
    $$;
    create trigger stop after insert or update on booking
    for each row when (new.kind = 'hotel') execute function stop();
"""
HOLD = "select pg_advisory_xact_lock(7)"


class Agency:
    """The table of bookings."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        self.conn.execute(SCHEMA.read_bytes())

    def booked(self) -> list[str]:
        return self._kinds("order by booking_id")

    def given_back(self) -> list[str]:
        return self._kinds("where given_back_at is not null order by given_back_at")

    def _kinds(self, which: str) -> list[str]:
        query = f"select kind from booking {which}"
        return [kind for (kind,) in self.conn.execute(query.encode())]


@pytest.fixture
def agency(pgflow_scene: Scene) -> Iterator[Agency]:
    pgflow_scene.use(app)
    with psycopg.connect(pgflow_scene.dsn, autocommit=True) as conn:
        yield Agency(conn)


def undoing(scene: Scene, run_id: UUID) -> UUID:
    """Return the run that undoes another."""
    (found,) = [run["run_id"] for run in scene.client.runs() if run["undo_of"] == run_id]
    assert isinstance(found, UUID)
    return found


def end_in_failure(scene: Scene) -> None:
    """Let all attempts pass, and the run that undoes."""
    for _ in range(3):
        scene.run_until_idle()
        scene.time.advance(minutes=1)
    scene.run_until_idle()


def test_a_trip_that_is_paid_for_is_booked(pgflow_scene: Scene, agency: Agency) -> None:
    run_id = app.sync.enqueue(book_trip, Trip(traveller="Ann", city="Lisbon"))
    pgflow_scene.run_until_idle()
    assert pgflow_scene.run(run_id)["state"] == "waiting_event"
    app.sync.signal(run_id, "payment")
    pgflow_scene.run_until_idle()
    assert [one["kind"] for one in pgflow_scene.output(run_id)] == ["flight", "hotel", "car"]
    assert agency.booked() == ["flight", "hotel", "car"]
    assert agency.given_back() == []


def test_without_a_car_the_hotel_and_the_flight_are_given_back(
    pgflow_scene: Scene, agency: Agency
) -> None:
    run_id = app.sync.enqueue(book_trip, Trip(traveller="Ann", city="Venice"))
    end_in_failure(pgflow_scene)
    run = pgflow_scene.run(run_id)
    assert (run["state"], run["attempt_count"]) == ("failed", 3)
    assert run["error_detail"] == "SoldOut: there are no cars in Venice"
    assert agency.booked() == ["flight", "hotel"]
    assert agency.given_back() == ["hotel", "flight"]
    assert pgflow_scene.output(undoing(pgflow_scene, run_id)) == {"undone": ["hotel", "flight"]}


def test_a_trip_that_is_cancelled_is_given_back(pgflow_scene: Scene, agency: Agency) -> None:
    run_id = app.sync.enqueue(book_trip, Trip(traveller="Ann", city="Lisbon"))
    pgflow_scene.run_until_idle()
    app.sync.cancel(run_id, "broke a leg")
    pgflow_scene.run_until_idle()
    assert pgflow_scene.run(run_id)["state"] == "cancelled"
    assert agency.given_back() == ["car", "hotel", "flight"]


def test_a_trip_that_nobody_pays_for_is_given_back(pgflow_scene: Scene, agency: Agency) -> None:
    run_id = app.sync.enqueue(book_trip, Trip(traveller="Ann", city="Lisbon"))
    pgflow_scene.run_until_idle()
    pgflow_scene.time.advance(days=1)
    pgflow_scene.run_until_idle()
    assert pgflow_scene.run(run_id)["error_detail"].startswith("WaitTimeout: payment")
    assert agency.given_back() == ["car", "hotel", "flight"]


@pytest.mark.slow
def test_a_worker_killed_amid_a_booking_leads_to_no_second_one(
    pgflow_scene: Scene, agency: Agency, kill_a_worker: Callable[[str, str], None]
) -> None:
    agency.conn.execute(STOP_AT_THE_HOTEL)
    run_id = app.sync.enqueue(book_trip, Trip(traveller="Ann", city="Lisbon"))
    kill_a_worker(APP, HOLD)
    assert agency.booked() == ["flight"]
    app.sync.signal(run_id, "payment")
    pgflow_scene.run_until_idle()
    assert len(pgflow_scene.output(run_id)) == 3
    assert agency.booked() == ["flight", "hotel", "car"]
    pgflow_scene.assert_timeline(
        run_id,
        [
            "run.created",
            "run.started",
            "step.completed flight",
            ...,
            "run.requeued",
            "run.started",
            "step.completed hotel",
            "step.completed car",
            ...,
            "run.completed",
        ],
    )


@pytest.mark.slow
def test_a_worker_killed_amid_giving_back_leads_to_everything_given_back(
    pgflow_scene: Scene, agency: Agency, kill_a_worker: Callable[[str, str], None]
) -> None:
    run_id = app.sync.enqueue(book_trip, Trip(traveller="Ann", city="Lisbon"))
    pgflow_scene.run_until_idle()
    agency.conn.execute(STOP_AT_THE_HOTEL)
    app.sync.cancel(run_id)
    kill_a_worker(APP, HOLD)
    assert agency.given_back() == ["car"]
    pgflow_scene.run_until_idle()
    assert agency.given_back() == ["car", "hotel", "flight"]
