"""register_worker and stop_worker: workers come, come again, and go."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, Row


def handler(engine: Engine, name: str = "send") -> Row:
    return engine.one(
        "select * from pgflow.handler where project_id = 'default' and handler = %s", name
    )


def test_a_registered_worker_is_alive_with_what_it_said(engine: Engine) -> None:
    engine.worker("w:new", ["a", "b"], host="box", pid=7, version="1.0", concurrency=4)
    worker = engine.worker_status("w:new")
    assert (worker["status"], worker["queues"], worker["concurrency"]) == ("alive", ["a", "b"], 4)
    assert (worker["host"], worker["pid"], worker["version"]) == ("box", 7, "1.0")
    assert worker["beat_at"] == worker["started_at"] == engine.now


def test_its_queues_are_made(engine: Engine) -> None:
    engine.worker(queues=["brand new"])
    assert engine.queue_stats("brand new")["workers"] == 1


def test_registering_again_is_harmless_and_the_latest_word_holds(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(seconds=20)
    engine.worker(queues=["default", "other"], concurrency=3)
    worker = engine.worker_status()
    assert (worker["queues"], worker["concurrency"]) == (["default", "other"], 3)
    assert (worker["beat_at"], worker["running"]) == (engine.now, 1)
    assert engine.complete(lease) == []


def test_a_worker_that_stopped_can_come_again(engine: Engine) -> None:
    engine.worker()
    engine.call("stop_worker", worker_id="w:1")
    assert engine.worker_status()["status"] == "stopped"
    engine.worker()
    assert engine.worker_status()["status"] == "alive"


@pytest.mark.parametrize(
    ("ttls", "every"), [([60], 15), ([60, 8], 2), ([3600], 15), ([1], 0.25)], ids=str
)
def test_it_is_told_to_beat_four_times_within_the_shortest_lease(
    engine: Engine, ttls: list[int], every: float
) -> None:
    for n, seconds in enumerate(ttls):
        engine.call("define_queue", queue=f"q{n}", lease_ttl=timedelta(seconds=seconds))
    (settings,) = engine.call(
        "register_worker",
        worker_id="w:1",
        queues=[f"q{n}" for n in range(len(ttls))],
        concurrency=1,
    )
    assert settings["beat_every"] == timedelta(seconds=every)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("worker_id", None),
        ("worker_id", ""),
        ("worker_id", "x" * 201),
        ("worker_id", "two words"),
        ("queues", None),
        ("queues", []),
        ("queues", ["a", None]),
        ("queues", [""]),
        ("queues", ["x" * 101]),
        ("queues", [["a"], ["b"]]),
        ("concurrency", None),
        ("concurrency", 0),
        ("concurrency", 10_001),
        ("handlers", Jsonb({})),
        ("handlers", Jsonb("h")),
        ("handlers", Jsonb(["h"])),
        ("handlers", Jsonb([{}])),
        ("handlers", Jsonb([{"handler": ""}])),
        ("handlers", Jsonb([{"handler": "x" * 201}])),
        ("handlers", Jsonb([{"handler": "h", "queue": ""}])),
        ("handlers", Jsonb([{"handler": "h", "max_attempts": 0}])),
        ("handlers", Jsonb([{"handler": "h", "max_attempts": "many"}])),
        ("handlers", Jsonb([{"handler": "h", "timeout": 0}])),
        ("handlers", Jsonb([{"handler": "h", "timeout": -1}])),
        ("handlers", Jsonb([{"handler": "h", "timeout": 1e300}])),
        ("handlers", Jsonb([{"handler": "h", "retry_base": -1}])),
        ("handlers", Jsonb([{"handler": "h", "retry_max": 3e6}])),
        ("handlers", Jsonb([{"handler": "h", "retry_factor": 0.5}])),
        ("handlers", Jsonb([{"handler": "h", "undo_on": ["completed"]}])),
        ("handlers", Jsonb([{"handler": "h", "undo_on": "failed"}])),
        ("handlers", Jsonb([{"handler": "h", "undo_on": [None]}])),
        ("handlers", Jsonb([{"handler": "twice"}, {"handler": "twice"}])),
    ],
    ids=lambda value: str(getattr(value, "obj", value))[:45],
)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_bad_argument_is_refused_by_its_name(engine: Engine, field: str, value: object) -> None:
    given = {"worker_id": "w:new", "queues": ["new"], "concurrency": 1, field: value}
    with engine.refused("PF101", field):
        engine.call("register_worker", **given)


def test_an_unknown_project_is_refused(engine: Engine) -> None:
    with engine.refused("PF502", "project"):
        engine.worker(project="nobody's")


def test_what_is_not_said_about_a_handler_has_its_default(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "send"}])
    row = handler(engine)
    assert (row["queue"], row["max_attempts"], row["timeout"]) == ("default", None, None)
    assert (row["retry_base"], row["retry_factor"]) == (timedelta(seconds=1), 2)
    assert row["retry_max"] == timedelta(hours=1)
    assert row["undo_on"] == []


def test_the_latest_word_about_a_handler_holds(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "send", "queue": "a", "max_attempts": 5}])
    engine.later(seconds=1)
    engine.worker(
        "w:2",
        handlers=[{"handler": "send", "queue": "b", "retry_base": 0.5, "undo_on": ["failed"]}],
    )
    row = handler(engine)
    assert row["undo_on"] == ["failed"]
    assert (row["queue"], row["max_attempts"]) == ("b", None)
    assert row["retry_base"] == timedelta(seconds=0.5)


def test_the_same_word_again_writes_nothing(engine: Engine) -> None:
    said = [{"handler": "send", "queue": "a", "timeout": 3}]
    engine.worker(handlers=said)
    before = engine.value("select xmin::text from pgflow.handler where handler = 'send'")
    engine.later(seconds=1)
    engine.worker("w:2", handlers=said)
    assert engine.value("select xmin::text from pgflow.handler where handler = 'send'") == before


def test_a_field_of_a_newer_worker_is_no_error(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "send", "colour": "red"}])
    assert handler(engine)["queue"] == "default"


def test_handlers_belong_to_their_project(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    engine.worker(handlers=[{"handler": "send", "queue": "theirs"}], project="acme")
    assert engine.run(engine.enqueue("send"))["queue"] == "default"
    assert engine.run(engine.enqueue("send", project="acme"))["queue"] == "theirs"


# ---- goodbye


def test_what_a_stopping_worker_holds_goes_back_without_an_attempt(engine: Engine) -> None:
    leases = [engine.leased(), engine.leased()]
    assert engine.tell("stop_worker", worker_id="w:1") == 2
    for lease in leases:
        run = engine.run(lease.run_id)
        assert (run["state"], run["attempt_count"]) == ("pending", 0)
        released = engine.timeline(lease.run_id)[-1]
        assert (released["type"], released["payload"]) == ("run.released", {"reason": "shutdown"})


def test_a_stopped_worker_holds_nothing_and_is_no_worker_any_more(engine: Engine) -> None:
    lease = engine.leased()
    engine.call("stop_worker", worker_id="w:1")
    worker = engine.worker_status()
    assert (worker["status"], worker["running"], worker["stopped_at"]) == (
        "stopped",
        0,
        engine.now,
    )
    assert engine.complete(lease)[0]["outcome"] == "lost"
    with engine.refused("PF302", "worker_id"):
        engine.beat()


def test_stopping_again_is_harmless(engine: Engine) -> None:
    engine.leased()
    engine.call("stop_worker", worker_id="w:1")
    engine.later(seconds=5)
    assert engine.tell("stop_worker", worker_id="w:1") == 0
    assert engine.worker_status()["stopped_at"] == engine.now - timedelta(seconds=5)


def test_stopping_a_worker_that_nobody_knows_does_nothing(engine: Engine) -> None:
    assert engine.tell("stop_worker", worker_id="nobody:0") == 0


def test_a_worker_that_stops_leaves_the_runs_of_others(engine: Engine, connect: Connect) -> None:
    other = connect()
    theirs = other.leased(worker_id="w:2")
    mine = engine.leased(worker_id="w:1")
    engine.call("stop_worker", worker_id="w:1")
    assert (engine.state(mine.run_id), engine.state(theirs.run_id)) == ("pending", "running")


def test_what_goes_back_together_is_ready_in_the_order_of_its_creation(engine: Engine) -> None:
    engine.worker()
    enqueued = sorted(engine.enqueue() for _ in range(5))
    engine.acquire()
    engine.call("emit", run_id=enqueued[0], type="note")  # its row is the last of the table now
    engine.call("stop_worker", worker_id="w:1")
    engine.worker()
    assert engine.acquire().run_ids == enqueued
