"""signal_many: one statement for many mailboxes, and a line for whoever got nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.sql.test_signals import expecting, signal
from tests.sql.waits import child, event, tool, with_children

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sql.conftest import Engine, Row


def send(engine: Engine, run_ids: list[UUID], *payloads: object, **more: object) -> list[Row]:
    """Signal runs; return a line for each not simply done."""
    arguments = {"run_ids": run_ids, "name": "pay", **more}
    if payloads:
        arguments["payloads"] = [None if p is None else Jsonb(p) for p in payloads]
    return engine.call("signal_many", **arguments)


def values(engine: Engine, run_id: UUID) -> list[object]:
    """Return what a run that was woken finds in its journal."""
    rows = engine.rows("select value from pgflow.journal where run_id = %s order by news", run_id)
    return [row["value"] for row in rows]


def test_each_run_gets_its_own_payload_and_goes_on(engine: Engine) -> None:
    run_ids = [expecting(engine) for _ in range(3)]
    assert send(engine, run_ids[::-1], 3, {"n": 2}, None) == []
    assert [engine.state(run_id) for run_id in run_ids] == ["pending"] * 3
    assert [values(engine, run_id) for run_id in run_ids] == [[None], [{"n": 2}], [3]]


def test_without_payloads_all_get_null(engine: Engine) -> None:
    run_ids = [expecting(engine), expecting(engine)]
    assert send(engine, run_ids) == []
    assert [values(engine, run_id) for run_id in run_ids] == [[None], [None]]


def test_the_timeline_is_that_of_a_signal(engine: Engine) -> None:
    one, other = expecting(engine), expecting(engine)
    signal(engine, one, 1)
    send(engine, [other], 1)
    lines = ("type", "event_no", "payload", "by")
    assert [[line[name] for name in lines] for line in engine.timeline(other)] == [
        [line[name] for name in lines] for line in engine.timeline(one)
    ]


def parked(*waits: Row, **more: Any) -> Callable[[Engine], UUID]:
    def make(engine: Engine) -> UUID:
        lease = engine.leased(queue=str(uuid4()))  # others may be ready in a queue that many use
        assert engine.park(lease, *waits, **more)["outcome"] == "done"
        return lease.run_id

    return make


def paused(engine: Engine) -> UUID:
    run_id = parked(event())(engine)
    engine.tell("pause", run_id=run_id)
    return run_id


def signalled(engine: Engine) -> UUID:
    run_id = parked(event())(engine)
    signal(engine, run_id, "early", name="other")
    signal(engine, run_id, "first")
    return run_id


# What a signal named pay may find.
SITUATIONS: dict[str, Callable[[Engine], UUID]] = {
    "waits for it": parked(event(digest="aa")),
    "waits for it so long": parked(event(timeout=60)),
    "waits for another": parked(event("other")),
    "waits for it and another": parked(event(), event("other")),
    "waits for it and a tool": parked(event(), tool()),
    "waits for it or another": parked(event(), event("other"), wait_any=True),
    "waits for any of it": parked(event(), wait_any=True),
    "is paused": paused,
    "has had one": signalled,
    "is ready": lambda engine: engine.enqueue(queue=str(uuid4())),
    "is running": lambda engine: engine.leased(queue=str(uuid4())).run_id,
}


def all_of(engine: Engine, run_id: UUID) -> list[object]:
    """Return what a signal changes, and does not change, of a run."""
    run = engine.row(run_id)
    names = ("state", "lane", "news", "last_event_no", "waits", "waits_for", "wait_any", "wake_at")
    lines = ("event_no", "type", "payload", "attempt", "by", "at")
    return [
        {name: run[name] for name in names},
        [[line[name] for name in lines] for line in engine.timeline(run_id)],
        engine.rows(
            "select key, kind, news, event_no, at, digest, value from pgflow.journal"
            " where run_id = %s order by event_no",
            run_id,
        ),
        engine.rows(
            "select signal_no, name, key, at, by, taken_as, payload from pgflow.signal"
            " where run_id = %s order by signal_no",
            run_id,
        ),
    ]


@pytest.mark.parametrize("key", [None, "k"])
def test_each_run_is_then_as_if_it_had_been_signalled_alone(
    engine: Engine, key: str | None
) -> None:
    alone = {kind: make(engine) for kind, make in SITUATIONS.items()}
    together = {kind: make(engine) for kind, make in SITUATIONS.items()}
    for run_id in alone.values():
        signal(engine, run_id, 7, idempotency_key=key)
    assert send(engine, [*together.values()], *[7] * len(together), idempotency_key=key) == []
    for kind, run_id in together.items():
        assert all_of(engine, run_id) == all_of(engine, alone[kind]), kind


def test_those_that_wait_for_it_alone_are_woken_together(engine: Engine) -> None:
    runs = {kind: make(engine) for kind, make in SITUATIONS.items()}
    woken = engine.value(
        "select pgflow._signal_waiting('default', %s, null, pgflow.now(), 'pay', null)",
        [*runs.values()],
    )
    kinds = {run_id: kind for kind, run_id in runs.items()}
    assert {kinds[run_id] for run_id in woken} == {"waits for it", "waits for it so long"}


def test_a_run_that_is_named_twice_gets_two_in_their_order(engine: Engine) -> None:
    run_id = expecting(engine)
    assert send(engine, [run_id, run_id], 1, 2) == []
    assert values(engine, run_id) == [1]
    assert engine.value(
        "select array_agg(s.payload order by s.signal_no) from pgflow.signal s where run_id = %s",
        run_id,
    ) == [1, 2]


def test_who_is_gone_or_unknown_is_told_and_keeps_no_other_from_its_signal(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    unknown, waiting = uuid4(), expecting(engine)
    lines = {line["run_id"]: line for line in send(engine, [lease.run_id, unknown, waiting])}
    assert {
        run_id: (line["outcome"], line["state"], line["code"]) for run_id, line in lines.items()
    } == {
        lease.run_id: ("refused", "completed", "PF202"),
        unknown: ("refused", None, "PF102"),
    }
    assert engine.state(waiting) == "pending"


def test_a_run_of_another_project_is_as_unknown(engine: Engine) -> None:
    run_id = expecting(engine)
    engine.tell("create_project", project="acme")
    (line,) = send(engine, [run_id], project="acme")
    assert (line["outcome"], line["code"]) == ("refused", "PF102")
    assert engine.state(run_id) == "waiting_event"


def test_the_same_key_again_is_no_second_signal(engine: Engine) -> None:
    run_ids = [expecting(engine), expecting(engine)]
    send(engine, run_ids[:1], 1, idempotency_key="k")
    (line,) = send(engine, run_ids, 1, 1, idempotency_key="k")
    assert (line["run_id"], line["outcome"]) == (run_ids[0], "already")
    assert [values(engine, run_id) for run_id in run_ids] == [[1], [1]]


def test_the_same_key_for_another_signal_is_refused_by_itself(engine: Engine) -> None:
    run_ids = [expecting(engine), expecting(engine)]
    send(engine, run_ids[:1], 1, idempotency_key="k")
    (line,) = send(engine, run_ids, 2, 2, idempotency_key="k")
    assert (line["run_id"], line["outcome"], line["code"]) == (run_ids[0], "refused", "PF401")
    assert [values(engine, run_id) for run_id in run_ids] == [[1], [2]]


def test_a_child_and_its_parent_may_be_in_one_batch(engine: Engine) -> None:
    parent, (child_,) = with_children(engine, child(), event(), wait_any=True)
    assert engine.park(child_, event())["outcome"] == "done"
    assert send(engine, [child_.run_id, parent.run_id]) == []
    assert [engine.state(run) for run in (parent.run_id, child_.run_id)] == ["pending"] * 2


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "n" * 201}),
        ("idempotency_key", {"idempotency_key": ""}),
        ("run_ids", {"run_ids": []}),
        ("run_ids", {"run_ids": [None]}),
        ("run_ids", {"run_ids": [uuid4()] * 10_001}),
        ("payloads", {"payloads": [Jsonb(1), Jsonb(2)]}),
        ("payload", {"payloads": [Jsonb([str(uuid4()) for _ in range(40_000)])]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arguments_are_refused_by_name(
    engine: Engine, field: str, arguments: dict[str, object]
) -> None:
    run_id = expecting(engine)
    with engine.refused("PF101", field):
        engine.call("signal_many", **{"run_ids": [run_id], "name": "pay", **arguments})
