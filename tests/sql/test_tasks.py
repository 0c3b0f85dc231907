"""A task: what a person is asked, found again by asking the same, and void once it is another."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Lease, Row

FORM = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def tasks(engine: Engine, run_id: UUID) -> list[Row]:
    """Return all tasks that a run ever asked, in that order."""
    return engine.rows(
        "select * from pgflow.task where run_id = %s order by round, voided_at, key", run_id
    )


def states(engine: Engine, run_id: UUID) -> dict[str, str]:
    """Return the state of each task that a run asked, none twice."""
    found = {task["key"]: task["state"] for task in tasks(engine, run_id)}
    assert len(found) == len(tasks(engine, run_id))
    return found


def again(engine: Engine, run_id: UUID, *waits: Row, **more: Any) -> Row:
    """Have the handler executed again, and park on these."""
    lease = engine.lease_of(run_id)
    return engine.park(lease, *waits, news=lease.body["news"], **more)


def approved(engine: Engine, *waits: Row) -> UUID:
    """Bring a run to where it was given the approval `ok`."""
    run_id = engine.waiting(*waits or ({"key": "ok"},))
    engine.approve(engine.task(run_id))
    return run_id


# ---- what can be asked


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "poll"),
        ("kind", None),
        ("key", ""),
        ("key", "k" * 501),
        ("digest", "no hex"),
        ("title", ""),
        ("title", "t" * 501),
        ("form", {"type": "no such type"}),
        ("form", "yes or no"),
        ("assignee", ""),
        ("assignee", "a" * 201),
        ("assignee_role", ""),
        ("assignee_role", "a" * 201),
        ("requested_by", ""),
        ("due_in", 0),
        ("due_in", -1),
        ("due_in", 1e10),
        ("policy", "shrug"),
        ("on_reject", "explode"),
        ("quorum", 0),
        ("quorum", 101),
        ("quorum_of", 0),
        ("quorum_of", 101),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_name(
    engine: Engine, field: str, value: object
) -> None:
    lease = engine.leased()
    before = engine.place.rows()
    line = engine.park(lease, {"key": "ok", field: value})
    assert (line["outcome"], line["code"]) == ("refused", "PF101")
    assert line["detail"].startswith(f"waits.{field}")
    assert engine.place.rows() == before


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("form", {"kind": "form"}),
        ("form", {"kind": "input"}),
        ("policy", {"kind": "form", "form": FORM, "policy": "approve"}),
        ("policy", {"kind": "input", "form": FORM, "policy": "reject"}),
        ("policy", {"kind": "interrupt", "policy": "approve"}),
        ("due_in", {"kind": "interrupt", "due_in": 60}),
        ("escalate_to", {"policy": "escalate", "escalate_in": 5}),
        ("escalate_to", {"policy": "escalate", "escalate_in": 5, "escalate_to": ""}),
        ("escalate_in", {"policy": "escalate", "escalate_to": "boss"}),
        ("escalate_in", {"policy": "escalate", "escalate_to": "boss", "escalate_in": 0}),
        ("quorum", {"kind": "form", "form": FORM, "quorum": 2}),
        ("quorum_of", {"quorum": 3, "quorum_of": 2}),
        ("when", {"kind": "breakpoint", "when": "during"}),
        ("key", {"kind": "breakpoint", "when": "before", "key": "pay"}),
        ("key", {"kind": "breakpoint", "when": "before", "key": "breakpoint/after/pay"}),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_by_its_name(
    engine: Engine, field: str, request_: Row
) -> None:
    lease = engine.leased()
    before = engine.place.rows()
    line = engine.park(lease, {"key": "ok", **request_})
    assert (line["outcome"], line["code"]) == ("refused", "PF101")
    assert line["detail"].startswith(f"waits.{field}")
    assert engine.place.rows() == before


@pytest.mark.parametrize("kind", ["approval", "form", "input"])
def test_a_run_that_asked_a_person_waits_for_approval(engine: Engine, kind: str) -> None:
    run_id = engine.waiting({"key": "ok", "kind": kind, "form": FORM})
    assert engine.state(run_id) == "waiting_approval"
    task = engine.one("select * from pgflow.inbox where run_id = %s", run_id)
    assert (task["kind"], task["form_schema"], task["state"]) == (kind, FORM, "open")


def test_the_inbox_shows_all_that_was_asked(engine: Engine) -> None:
    asked = {
        "key": "ok",
        "title": "Publish?",
        "payload": {"draft": 1},
        "assignee": "ann",
        "assignee_role": "editors",
        "requested_by": "tom",
        "quorum": 2,
        "quorum_of": 3,
        "due_in": 60,
        "policy": "escalate",
        "escalate_to": "boss",
        "escalate_in": 30,
    }
    run_id = engine.waiting(asked)
    task = engine.one("select * from pgflow.inbox where run_id = %s", run_id)
    shown = {name: task[name] for name in asked if name in task}
    assert shown == {name: asked[name] for name in shown}
    assert (task["step"], task["project"], task["handler"]) == ("ok", "default", "h")
    assert (task["round"], task["votes"], task["claimed_by"]) == (0, 0, None)
    assert task["due_at"] == task["created_at"] + timedelta(seconds=60)


def test_the_inbox_is_found_by_role_assignee_state_and_run(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "assignee": "ann", "assignee_role": "x"})
    (found,) = engine.rows(
        "select run_id from pgflow.inbox where assignee_role = 'x' and assignee = 'ann'"
        " and state = 'open' and run_id = %s",
        run_id,
    )
    assert found["run_id"] == run_id


# ---- asking the same again


def test_asking_the_same_again_finds_the_open_task(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok"}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "b"))
    assert again(engine, run_id, {"key": "ok"})["outcome"] == "done"
    assert [task["key"] for task in tasks(engine, run_id)].count("ok") == 1
    assert engine.types(run_id).count("task.requested") == 2


def test_asking_the_same_again_finds_the_decision(engine: Engine) -> None:
    run_id = approved(engine)
    assert again(engine, run_id, {"key": "ok"}, {"key": "b"})["outcome"] == "done"
    assert states(engine, run_id) == {"ok": "approved", "b": "open"}


@pytest.mark.parametrize(
    "change",
    [
        {"due_in": 5},
        {"policy": "timeout"},
        {"policy": "escalate", "escalate_to": "boss", "escalate_in": 5},
        {"on_reject": "resume"},
        {"quorum": 1},
        {"not_requester": False},
        {"form": None},
    ],
    ids=str,
)
def test_what_a_decision_is_not_about_may_change(engine: Engine, change: Row) -> None:
    run_id = approved(engine)
    line = again(engine, run_id, {"key": "ok", **change}, {"key": "b"}, wait_any=False)
    assert line["outcome"] == "done"
    assert states(engine, run_id) == {"ok": "approved", "b": "open"}
    assert engine.row(run_id)["round"] == 0


# ---- asking something else

CHANGES: list[Row] = [
    {"payload": {"amount": 2}},
    {"payload": {"amount": 1, "to": None}},
    {"payload": None},
    {"title": "Really?"},
    {"assignee": "ann"},
    {"assignee_role": "editors"},
    {"quorum": 2},
    {"quorum": 1, "quorum_of": 3},
    {"not_requester": True},
    {"form": FORM},
    {"kind": "form", "form": FORM},
]
ASKED: Row = {"key": "ok", "payload": {"amount": 1}}


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_decision_about_something_else_counts_no_more(engine: Engine, change: Row) -> None:
    run_id = approved(engine, ASKED)
    assert again(engine, run_id, {**ASKED, **change})["outcome"] == "done"
    old, new = tasks(engine, run_id)
    assert (old["state"], old["voided_at"]) == ("approved", engine.now)
    assert (new["state"], new["replaces"], new["round"]) == ("open", old["task_id"], 1)
    assert engine.state(run_id) == "waiting_approval"
    inbox = engine.rows("select replaces from pgflow.inbox where run_id = %s", run_id)
    assert inbox == [{"replaces": old["task_id"]}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_open_request_for_something_else_is_closed(engine: Engine, change: Row) -> None:
    run_id = engine.waiting(ASKED, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "b"))
    assert again(engine, run_id, {**ASKED, **change})["outcome"] == "done"
    old, new = (task for task in tasks(engine, run_id) if task["key"] == "ok")
    assert (old["state"], old["voided_at"]) == ("cancelled", engine.now)
    assert (new["state"], new["replaces"]) == ("open", old["task_id"])
    with engine.refused("PF402", "task_id") as refused:
        engine.approve(old["task_id"])
    assert "counts no more" in str(refused.value)


def test_what_the_run_learned_after_the_decision_counts_no_more_either(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, draft="1")
    engine.park(lease, ASKED)
    engine.approve(engine.task(lease.run_id))
    lease = engine.lease_of(lease.run_id)
    engine.record_steps(lease, pay="2")
    engine.park(lease, {**ASKED, "payload": {"amount": 2}}, news=1)
    kept = engine.rows(
        "select key, voided, round from pgflow.journal_entries where run_id = %s order by event_no",
        lease.run_id,
    )
    assert [tuple(row.values()) for row in kept] == [
        ("draft", False, None),
        ("ok", True, 0),
        ("pay", True, 0),
    ]


def test_the_timeline_tells_what_was_voided_and_why(engine: Engine) -> None:
    run_id = approved(engine, ASKED)
    again(engine, run_id, {**ASKED, "title": "Really?"})
    voided = next(e for e in engine.timeline(run_id) if e["type"] == "task.voided")
    assert voided["payload"]["key"] == "ok"
    assert voided["payload"]["reason"] == "something else is asked"
    assert engine.types(run_id)[-4:] == [
        "task.voided",
        "step.rolled_back",
        "task.requested",
        "run.waiting",
    ]
    assert engine.timeline(run_id)[-2]["payload"]["replaces"]


def test_the_new_decision_is_the_one_that_the_handler_gets(engine: Engine) -> None:
    run_id = approved(engine, ASKED)
    again(engine, run_id, {**ASKED, "title": "Really?"})
    _, new = tasks(engine, run_id)
    engine.approve(new["task_id"], comment="really")
    lease = engine.lease_of(run_id)
    (entry,) = lease.body["journal"]
    assert entry["value"]["task_id"] == str(new["task_id"])
    assert lease.body["round"] == 1


def test_what_is_asked_beside_it_is_waited_for_as_well(engine: Engine) -> None:
    run_id = engine.waiting(ASKED, {"key": "b"})
    engine.approve(engine.task(run_id))
    engine.approve(engine.task(run_id, "b"))
    lease = engine.lease_of(run_id)
    child = {"kind": "run", "key": "child", "handler": "h2", "input": {}}
    tool = {"kind": "tool", "key": "tool", "tool": "t", "arguments": {}}
    changed = {**ASKED, "title": "Really?"}
    assert engine.park(lease, {"key": "c"}, child, tool, changed, news=2)["outcome"] == "done"
    row = engine.row(run_id)
    assert row["waits_for"] == ["c", "child", "ok", "tool"]
    assert {wait["key"] for wait in row["waits"]} == {"child", "tool"}
    opened = engine.rows("select step from pgflow.inbox where run_id = %s order by 1", run_id)
    assert [task["step"] for task in opened] == ["c", "ok"]
    assert engine.value("select count(*) from pgflow.run where parent_run_id = %s", run_id) == 1


def test_an_open_request_that_is_changed_leaves_those_beside_it_alone(engine: Engine) -> None:
    run_id = engine.waiting(ASKED, {"key": "b"}, {"key": "c"}, wait_any=True)
    engine.approve(engine.task(run_id, "b"))
    other = engine.task(run_id, "c")
    again(engine, run_id, {**ASKED, "title": "Really?"}, {"key": "c"})
    assert engine.task(run_id, "c") == other
    engine.approve(other)


def asked_three_times(engine: Engine) -> Lease:
    """Return the lease of a run that asked for three different things under one key."""
    run_id = engine.waiting({**ASKED, "title": "1"}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "b"))
    lease = engine.lease_of(run_id)
    for title in "23":
        line = engine.park(lease, {**ASKED, "title": title}, news=lease.body["news"])
        assert line["outcome"] == "done"
        task = engine.one("select * from pgflow.inbox where run_id = %s", run_id)
        engine.approve(task["task_id"])
        lease = engine.lease_of(run_id)
    return lease


@pytest.mark.parametrize("beside", [[], [{"key": "c"}]], ids=["alone", "beside another"])
def test_a_handler_that_asks_for_something_else_for_the_third_time_is_paused(
    engine: Engine, beside: list[Row]
) -> None:
    lease = asked_three_times(engine)
    parking = engine.parking(
        lease, *beside, {**ASKED, "title": "4"}, news=lease.body["news"], cost_usd=2, steps=1
    )
    (line,) = engine.call("park", parks=Jsonb([parking]))
    assert line["outcome"] == "done"
    run = engine.run(lease.run_id)
    assert (run["state"], run["worker_id"], run["cost_usd"]) == ("paused", None, 2)
    assert run["pause_reason"].startswith("E-RUN-012")
    asked = [task["state"] for task in tasks(engine, lease.run_id) if task["key"] == "ok"]
    assert sorted(asked) == ["approved", "approved", "cancelled"]
    engine.timeline(lease.run_id)
    (line,) = engine.call("park", parks=Jsonb([parking]))
    assert line["outcome"] == "already"


def test_a_run_paused_so_goes_on_with_what_was_approved_last(engine: Engine) -> None:
    lease = asked_three_times(engine)
    engine.park(lease, {**ASKED, "title": "4"}, news=lease.body["news"])
    assert engine.tell("resume", run_id=lease.run_id) == "pending"
    lease = engine.lease_of(lease.run_id)
    line = engine.park(lease, {**ASKED, "title": "3"}, {"key": "c"}, news=lease.body["news"])
    assert line["outcome"] == "done"
    assert engine.state(lease.run_id) == "waiting_approval"


def test_a_rollback_is_no_change_of_mind_of_the_handler(engine: Engine) -> None:
    lease = engine.leased()
    for n in range(5):
        engine.record_steps(lease, draft=str(n))
        line = engine.park(lease, {**ASKED, "payload": n})
        assert line["outcome"] == "done"
        task = engine.one("select * from pgflow.inbox where run_id = %s", lease.run_id)
        assert (task["replaces"], task["round"]) == (None, n)
        engine.reject(task["task_id"], rollback_to="draft")
        lease = engine.lease_of(lease.run_id)
    engine.record_steps(lease, draft="5")
    engine.park(lease, {**ASKED, "payload": 5})
    task = engine.one("select * from pgflow.inbox where run_id = %s", lease.run_id)
    engine.approve(task["task_id"])
    line = again(engine, lease.run_id, {**ASKED, "payload": 6})
    assert (line["outcome"], engine.state(lease.run_id)) == ("done", "waiting_approval")


def test_a_slot_is_freed_by_being_paused_so(engine: Engine) -> None:
    engine.call("define_queue", queue="default", max_concurrent=1)
    lease = asked_three_times(engine)
    engine.park(lease, {**ASKED, "title": "4"}, news=lease.body["news"])
    assert engine.value("select count(*) from pgflow.slot where queue = 'default'") == 0


# ---- what closes tasks


def test_what_is_not_asked_any_more_is_closed(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    loser = engine.task(run_id, "b")
    engine.approve(engine.task(run_id, "a"))
    again(engine, run_id, {"key": "c"})
    with engine.refused("PF402", "task_id") as refused:
        engine.approve(loser)
    assert "counts no more" in str(refused.value)
    voided = next(e for e in engine.timeline(run_id) if e["type"] == "task.voided")
    assert voided["payload"]["key"] == "b"


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_the_end_of_the_run_closes_what_is_open(engine: Engine, end: str) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    lease = engine.lease_of(run_id)
    if end == "complete":
        engine.complete(lease)
    elif end == "fail":
        engine.fail(lease, retries=[False])
    else:
        engine.call("cancel", run_id=run_id)
    history = engine.one(
        "select state, decided_by from pgflow.task_history where run_id = %s and step = 'b'", run_id
    )
    assert tuple(history.values()) == ("cancelled", None)
