"""A run waits on a set, named anew at each park: for all of it or any of it, and nothing else."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.sql.waits import asked, child, children, entry, event, part, sleep, tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sql.conftest import Engine, Lease, Row

WAITS: dict[str, Row] = {
    "approval": {"key": "approval"},
    "tool": tool("tool"),
    "event": event("event"),
    "run": child("run"),
    "sleep": sleep(60, "sleep"),
}


def end_child(engine: Engine, _: UUID) -> None:
    engine.worker("w:2", ["parts"])
    (lease,) = engine.acquire(worker_id="w:2", queues=["parts"]).leases
    engine.complete(lease)


def wake(engine: Engine, _: UUID) -> None:
    engine.later(seconds=60)
    engine.tick()


COME: dict[str, Callable[[Engine, UUID], object]] = {
    "approval": lambda engine, run_id: engine.approve(engine.task(run_id, "approval")),
    "tool": lambda engine, run_id: engine.call("resolve_tool", run_id=run_id, key="tool"),
    "event": lambda engine, run_id: engine.call("signal", run_id=run_id, name="event"),
    "run": end_child,
    "sleep": wake,
}


def wait_for(kind: str) -> Row:
    """Return a wait whose key is its kind; children go to a queue of their own."""
    return {**WAITS[kind], **({"queue": "parts"} if kind == "run" else {})}


def waiting(engine: Engine, *kinds: str, wait_any: bool = False) -> UUID:
    lease = engine.leased()
    waits = [wait_for(kind) for kind in kinds]
    assert engine.park(lease, *waits, wait_any=wait_any)["outcome"] == "done"
    return lease.run_id


def half_done(engine: Engine, *kinds: str) -> Lease:
    """Lease a run that raced a signal `go` against others; the signal came."""
    lease = engine.leased()
    waits = [wait_for(kind) for kind in kinds]
    engine.park(lease, event("go"), *waits, wait_any=True)
    engine.call("signal", run_id=lease.run_id, name="go")
    return engine.lease_of(lease.run_id)


def pairs() -> list[tuple[str, str]]:
    return list(itertools.permutations(WAITS, 2))


@pytest.mark.parametrize("kinds", pairs(), ids=" ".join)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_where_all_are_wanted_the_last_wakes_the_run(
    engine: Engine, kinds: tuple[str, str]
) -> None:
    first, last = kinds
    run_id = waiting(engine, *sorted(kinds))
    COME[first](engine, run_id)
    assert engine.state(run_id).startswith("waiting_")
    COME[last](engine, run_id)
    assert engine.state(run_id) == "pending"
    known = engine.lease_of(run_id).body["journal"]
    assert [known["key"] for known in known] == [first, last]
    assert engine.types(run_id).count("run.woken") == 1


@pytest.mark.parametrize("kinds", pairs(), ids=" ".join)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_where_any_will_do_the_first_wakes_the_run(engine: Engine, kinds: tuple[str, str]) -> None:
    first, _ = kinds
    run_id = waiting(engine, *sorted(kinds), wait_any=True)
    COME[first](engine, run_id)
    assert engine.state(run_id) == "pending"
    assert [known["key"] for known in engine.lease_of(run_id).body["journal"]] == [first]


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        (["sleep"], "scheduled"),
        (["event"], "waiting_event"),
        (["run"], "waiting_event"),
        (["sleep", "run"], "waiting_event"),
        (["event", "tool"], "waiting_tool"),
        (["run", "tool", "sleep"], "waiting_tool"),
        (["sleep", "tool", "approval"], "waiting_approval"),
        (["event", "approval"], "waiting_approval"),
    ],
    ids=str,
)
def test_the_state_shown_is_that_of_the_first_among_people_tools_and_the_rest(
    engine: Engine, kinds: list[str], state: str
) -> None:
    assert engine.state(waiting(engine, *kinds)) == state
    assert engine.state(waiting(engine, *kinds[::-1])) == state


@pytest.mark.parametrize(
    ("missing", "state"),
    [("sleep", "scheduled"), ("event", "waiting_event"), ("tool", "waiting_tool")],
)
def test_the_state_shown_is_that_of_what_has_not_come_yet(
    engine: Engine, missing: str, state: str
) -> None:
    run_id = waiting(engine, "approval")
    COME["approval"](engine, run_id)
    lease = engine.lease_of(run_id)
    assert engine.park(lease, wait_for("approval"), wait_for(missing), news=1)["outcome"] == "done"
    assert engine.state(run_id) == state
    COME[missing](engine, run_id)
    assert engine.state(run_id) == "pending"
    assert [known["key"] for known in engine.lease_of(run_id).body["journal"]] == [
        "approval",
        missing,
    ]


@pytest.mark.parametrize(
    ("come", "state"),
    [
        ([], "waiting_approval"),
        (["approval"], "waiting_tool"),
        (["approval", "tool"], "waiting_event"),
    ],
    ids=str,
)
def test_a_run_that_is_resumed_waits_in_the_state_of_what_is_missing(
    engine: Engine, come: list[str], state: str
) -> None:
    run_id = waiting(engine, "approval", "tool", "event")
    engine.call("pause", run_id=run_id)
    for kind in come:
        COME[kind](engine, run_id)
    assert engine.tell("resume", run_id=run_id) == state
    for kind in {"approval", "tool", "event"} - set(come):
        COME[kind](engine, run_id)
    assert engine.state(run_id) == "pending"


# ---- asked again


def test_what_was_asked_before_is_not_asked_twice(engine: Engine) -> None:
    lease = half_done(engine, "approval", "tool", "run", "event")
    waits = [wait_for(kind) for kind in ("approval", "tool", "run", "event")]
    assert engine.park(lease, *waits, news=1)["outcome"] == "done"
    types = engine.types(lease.run_id)
    for asking in ("task.requested", "tool.requested", "child.started"):
        assert types.count(asking) == 1
    assert len(children(engine, lease.run_id)) == 1
    assert asked(engine, lease.run_id) == {"tool", "run", "event"}


def test_what_came_meanwhile_is_news(engine: Engine) -> None:
    lease = half_done(engine, "tool", "event")
    COME["tool"](engine, lease.run_id)
    line = engine.park(lease, wait_for("tool"), wait_for("event"), news=1)
    assert (line["outcome"], line["news"]) == ("news", 2)
    assert [known["key"] for known in line["entries"]] == ["tool"]
    line = engine.park(lease, wait_for("event"), news=2)
    assert line["outcome"] == "done"


def test_a_signal_in_the_mailbox_is_news_though_the_worker_has_seen_all(engine: Engine) -> None:
    lease = engine.leased()
    COME["event"](engine, lease.run_id)
    line = engine.park(lease, wait_for("event"))
    assert (line["outcome"], line["news"]) == ("news", 1)
    assert (engine.state(lease.run_id), engine.run(lease.run_id)["waits_for"]) == ("running", None)


def test_news_of_one_of_many_leaves_the_others_asked(engine: Engine) -> None:
    lease = engine.leased()
    COME["event"](engine, lease.run_id)
    waits = [wait_for(kind) for kind in ("tool", "event", "approval", "run")]
    assert engine.park(lease, *waits, wait_any=True)["outcome"] == "news"
    assert asked(engine, lease.run_id) == {"tool", "run"}
    COME["tool"](engine, lease.run_id)
    line = engine.park(lease, wait_for("approval"), wait_for("run"), news=1)
    assert [known["key"] for known in line["entries"]] == ["tool"]


def test_where_all_are_wanted_one_signal_in_the_mailbox_is_not_enough(engine: Engine) -> None:
    lease = engine.leased()
    COME["event"](engine, lease.run_id)
    assert engine.park(lease, wait_for("tool"), wait_for("event"))["outcome"] == "done"
    assert engine.state(lease.run_id) == "waiting_tool"
    COME["tool"](engine, lease.run_id)
    assert engine.lease_of(lease.run_id).body["news"] == 2


@pytest.mark.parametrize("kind", ["tool", "event", "run"])
def test_what_has_come_and_is_named_still_is_not_asked_again(engine: Engine, kind: str) -> None:
    run_id = waiting(engine, kind)
    COME[kind](engine, run_id)
    lease = engine.lease_of(run_id)
    assert engine.park(lease, wait_for(kind), event("more"), news=1)["outcome"] == "done"
    assert asked(engine, run_id) == {"more"}
    assert len(children(engine, run_id)) == (kind == "run")
    engine.call("signal", run_id=run_id, name="more")
    assert engine.state(run_id) == "pending"


def test_what_is_asked_beside_a_changed_request_stays_open(engine: Engine) -> None:
    lease = half_done(engine, "approval", "tool", "run")
    changed = {**wait_for("approval"), "title": "Better?"}
    waits = [wait_for("tool"), wait_for("run"), wait_for("event"), changed]
    assert engine.park(lease, *waits, news=1)["outcome"] == "done"
    assert asked(engine, lease.run_id) == {"tool", "run", "event"}
    assert [run["state"] for run in children(engine, lease.run_id)] == ["pending"]
    for kind in ("tool", "run", "event"):
        COME[kind](engine, lease.run_id)
    engine.approve(
        engine.value(
            "select task_id from pgflow.inbox where run_id = %s and title = 'Better?'",
            lease.run_id,
        )
    )
    assert engine.state(lease.run_id) == "pending"


# ---- not named any more


def test_a_task_that_is_not_named_any_more_is_closed(engine: Engine) -> None:
    lease = half_done(engine, "approval")
    engine.park(lease, event("on"), news=1)
    assert engine.rows("select 1 from pgflow.inbox where run_id = %s", lease.run_id) == []
    (task,) = engine.rows("select * from pgflow.task_history where run_id = %s", lease.run_id)
    assert (task["state"], task["voided_at"]) == ("cancelled", engine.now)
    assert "task.voided" in engine.types(lease.run_id)
    with engine.refused("PF402"):
        engine.approve(task["task_id"])


def test_a_tool_that_is_not_named_any_more_is_dropped(engine: Engine) -> None:
    lease = half_done(engine, "tool")
    engine.park(lease, event("on"), news=1)
    with engine.refused("PF204"):
        COME["tool"](engine, lease.run_id)


def test_a_child_that_is_not_named_any_more_is_cancelled_and_tells_nobody(engine: Engine) -> None:
    lease = half_done(engine, "run")
    engine.park(lease, event("on"), news=1)
    (run,) = children(engine, lease.run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")
    assert "child.ended" not in engine.types(lease.run_id)
    row = engine.row(lease.run_id)
    assert (row["news"], row["state"]) == (1, "waiting_event")


def test_of_two_children_only_the_one_that_is_not_named_is_cancelled(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, event("go"), child("a"), child("b"), wait_any=True)
    engine.call("signal", run_id=lease.run_id, name="go")
    (lease,) = [held for held in engine.acquire().leases if held.run_id == lease.run_id]
    engine.park(lease, child("b"), news=1)
    assert engine.state(part(engine, lease.run_id, "a")) == "cancelled"
    assert engine.state(part(engine, lease.run_id, "b")) == "running"


def test_a_dropped_child_that_is_asked_for_again_is_another(engine: Engine) -> None:
    lease = half_done(engine, "run")
    engine.park(lease, event("on"), news=1)
    engine.call("signal", run_id=lease.run_id, name="on")
    engine.park(engine.lease_of(lease.run_id), wait_for("run"), news=2)
    assert [run["state"] for run in children(engine, lease.run_id)] == ["cancelled", "pending"]
    COME["run"](engine, lease.run_id)
    assert engine.state(lease.run_id) == "pending"


def test_a_signal_that_nobody_waits_for_any_more_is_for_the_next_call(engine: Engine) -> None:
    lease = half_done(engine, "event")
    engine.park(lease, tool(), news=1)
    COME["event"](engine, lease.run_id)
    engine.call("resolve_tool", run_id=lease.run_id, key="t")
    lease = engine.lease_of(lease.run_id)
    line = engine.park(lease, event("event#2", name="event"), news=2)
    assert [known["key"] for known in line["entries"]] == ["event#2"]


def test_news_closes_nothing(engine: Engine) -> None:
    lease = half_done(engine, "approval", "tool", "run")
    COME["tool"](engine, lease.run_id)
    assert engine.park(lease, event("on"), news=1)["outcome"] == "news"
    assert engine.rows("select 1 from pgflow.inbox where run_id = %s", lease.run_id)
    assert [run["state"] for run in children(engine, lease.run_id)] == ["pending"]


def test_a_refused_park_changes_nothing(engine: Engine) -> None:
    lease = half_done(engine, "approval", "tool", "run")
    before = engine.place.rows()
    assert engine.park(lease, event("on"), {"kind": "tool"}, news=1)["outcome"] == "refused"
    assert engine.place.rows() == before


def test_a_sleep_alone_closes_what_was_asked_before(engine: Engine) -> None:
    lease = half_done(engine, "approval", "tool", "run")
    engine.park(lease, sleep(60), news=1)
    assert engine.state(lease.run_id) == "scheduled"
    assert asked(engine, lease.run_id) == set()
    assert [run["state"] for run in children(engine, lease.run_id)] == ["cancelled"]


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_the_end_closes_all_that_is_open(engine: Engine, end: str) -> None:
    lease = half_done(engine, "approval", "tool", "run")
    if end == "cancel":
        engine.call("cancel", run_id=lease.run_id)
    else:
        assert not getattr(engine, end)(lease, **({"retries": [False]} if end == "fail" else {}))[
            1:
        ]
    (task,) = engine.rows("select state from pgflow.task where run_id = %s", lease.run_id)
    assert task["state"] == "cancelled"
    assert [run["state"] for run in children(engine, lease.run_id)] == ["cancelled"]


def test_a_failed_execution_leaves_open_what_it_asked(engine: Engine) -> None:
    lease = half_done(engine, "approval", "tool", "run")
    assert engine.fail(lease)[0]["state"] == "scheduled"
    COME["tool"](engine, lease.run_id)
    assert entry(engine, lease.run_id, "tool")["kind"] == "tool"
    assert engine.rows("select 1 from pgflow.inbox where run_id = %s", lease.run_id)
    assert [run["state"] for run in children(engine, lease.run_id)] == ["pending"]
