"""Interrupts and breakpoints: a run that stops until somebody resumes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Lease, Row


def interrupt(key: str = "i", **more: object) -> Row:
    return {"key": key, "kind": "interrupt", "title": "How?", **more}


def breakpoint_(step: str = "pay", when: str = "before") -> Row:
    key = f"breakpoint/{when}/{step}"
    return {"key": key, "kind": "breakpoint", "when": when, "title": None}


def stopped(engine: Engine, *waits: Row, **more: Any) -> UUID:
    """Return a run that was interrupted, after its step `draft`."""
    lease = engine.leased()
    engine.record_steps(lease, draft="1")
    assert engine.park(lease, *waits or (interrupt(),), **more)["outcome"] == "done"
    return lease.run_id


def resume(engine: Engine, run_id: UUID, **command: object) -> str:
    arguments = {"command": Jsonb(command)} if command else {}
    return str(engine.tell("resume", run_id=run_id, **arguments))


def journal(engine: Engine, run_id: UUID) -> dict[str, object]:
    return {e["key"]: e["value"] for e in engine.lease_of(run_id).body["journal"]}


# ---- interrupts


def test_an_interrupted_run_is_paused_and_says_why(engine: Engine) -> None:
    run_id = stopped(engine, interrupt(payload={"draft": 1}))
    run = engine.run(run_id)
    assert (run["state"], run["pause_reason"]) == ("paused", "interrupt")
    assert (run["waits_for"], run["worker_id"]) == (["i"], None)
    task = engine.one("select * from pgflow.inbox where run_id = %s", run_id)
    assert (task["step"], task["kind"], task["title"]) == ("i", "interrupt", "How?")
    assert task["payload"] == {"draft": 1}


def test_the_timeline_tells_the_interrupt_and_the_resume(engine: Engine) -> None:
    run_id = stopped(engine)
    resume(engine, run_id, resume=42)
    types = engine.types(run_id)
    assert types[-4:] == ["task.requested", "run.waiting", "task.resolved", "run.woken"]
    assert engine.timeline(run_id)[-2]["payload"]["action"] == "answered"


@pytest.mark.parametrize("value", [42, "later", None, False, {"a": [1]}], ids=str)
def test_the_value_of_resume_is_what_the_call_returns(engine: Engine, value: object) -> None:
    run_id = stopped(engine)
    assert resume(engine, run_id, resume=value) == "pending"
    assert journal(engine, run_id) == {"draft": 1, "i": value}
    assert engine.run(run_id)["pause_reason"] is None


def test_continue_returns_null_from_the_call(engine: Engine) -> None:
    run_id = stopped(engine)
    assert resume(engine, run_id) == "pending"
    assert journal(engine, run_id) == {"draft": 1, "i": None}


def test_a_value_is_consumed_once(engine: Engine) -> None:
    run_id = stopped(engine)
    resume(engine, run_id, resume=1)
    with engine.refused("PF204", "command"):
        resume(engine, run_id, resume=2)
    lease = engine.lease_of(run_id)
    assert engine.park(lease, interrupt("second"), news=1)["outcome"] == "done"
    assert engine.state(run_id) == "paused"
    resume(engine, run_id, resume=2)
    assert journal(engine, run_id) == {"draft": 1, "i": 1, "second": 2}


def test_who_resumed_it_is_in_the_history(engine: Engine) -> None:
    run_id = stopped(engine)
    resume(engine, run_id, resume=1)
    history = engine.one("select * from pgflow.task_history where run_id = %s", run_id)
    assert (history["state"], history["data"]) == ("answered", 1)
    assert (history["decided_by"], history["decided_login"]) == ("postgres", "postgres")


def test_an_interrupt_asked_again_is_the_same(engine: Engine) -> None:
    run_id = stopped(engine, interrupt(), {"key": "ok"}, wait_any=True)
    engine.approve(engine.task(run_id))
    lease = engine.lease_of(run_id)
    assert engine.park(lease, interrupt(), news=1)["outcome"] == "done"
    assert engine.types(run_id).count("task.requested") == 2
    assert engine.state(run_id) == "paused"


# ---- several of them


def test_of_several_interrupts_the_value_names_its_own(engine: Engine) -> None:
    run_id = stopped(engine, interrupt("a"), interrupt("b"))
    assert resume(engine, run_id, resume=1, key="b") == "paused"
    assert engine.rows("select step from pgflow.inbox where run_id = %s", run_id) == [{"step": "a"}]
    assert resume(engine, run_id, resume=2) == "pending"
    assert journal(engine, run_id) == {"draft": 1, "b": 1, "a": 2}


@pytest.mark.parametrize("key", [None, "c"], ids=["no key", "another key"])
def test_without_the_key_of_one_it_is_refused_with_the_list(
    engine: Engine, key: str | None
) -> None:
    run_id = stopped(engine, interrupt("a"), interrupt("b"))
    with engine.refused("PF101", "command.key") as refused:
        resume(engine, run_id, resume=1, **({"key": key} if key else {}))
    assert "a, b" in str(refused.value)


def test_continue_passes_all_of_them(engine: Engine) -> None:
    run_id = stopped(engine, interrupt("a"), interrupt("b"))
    assert resume(engine, run_id) == "pending"
    assert "run.resumed" not in engine.types(run_id)
    assert journal(engine, run_id) == {"draft": 1, "a": None, "b": None}


def test_interrupts_beside_a_breakpoint_are_passed_after_it(engine: Engine) -> None:
    run_id = stopped(engine, interrupt("a"), breakpoint_(), interrupt("b"))
    assert engine.run(run_id)["pause_reason"] == "before"
    assert resume(engine, run_id) == "paused"
    assert engine.run(run_id)["pause_reason"] == "interrupt"
    assert resume(engine, run_id) == "pending"
    entries = {"draft": 1, "breakpoint/before/pay": None, "a": None, "b": None}
    assert journal(engine, run_id) == entries


def test_what_continue_passes_is_in_the_journal_in_the_order_of_the_keys(engine: Engine) -> None:
    run_id = stopped(engine, interrupt("b"), interrupt("c"), interrupt("a"))
    resume(engine, run_id)
    assert list(journal(engine, run_id)) == ["draft", "a", "b", "c"]


def test_the_first_of_several_wakes_a_run_that_waits_for_any(engine: Engine) -> None:
    run_id = stopped(engine, interrupt("a"), interrupt("b"), wait_any=True)
    assert resume(engine, run_id, resume=1, key="a") == "pending"
    assert journal(engine, run_id) == {"draft": 1, "a": 1}


@pytest.mark.parametrize("how", ["resume", "answer"])
def test_past_its_interrupt_a_run_waits_for_what_it_asked_beside(engine: Engine, how: str) -> None:
    run_id = stopped(engine, interrupt(), {"key": "ok"})
    if how == "resume":
        assert resume(engine, run_id, resume=1) == "waiting_approval"
    else:
        engine.call("answer", task_id=engine.task(run_id, "i"), data=Jsonb(1))
    run = engine.run(run_id)
    assert (run["state"], run["pause_reason"]) == ("waiting_approval", None)
    assert engine.types(run_id)[-1] == "run.resumed"
    engine.approve(engine.task(run_id))
    assert journal(engine, run_id).keys() == {"draft", "i", "ok"}


@pytest.mark.parametrize(
    ("wait", "state"),
    [
        ({"kind": "tool", "tool": "t", "arguments": {}}, "waiting_tool"),
        ({"kind": "event", "name": "e"}, "waiting_event"),
        ({"kind": "sleep", "seconds": 60}, "waiting_event"),
        ({"kind": "run", "handler": "h2", "input": {}}, "waiting_event"),
    ],
    ids=str,
)
def test_past_its_interrupt_a_run_waits_in_the_state_of_the_rest(
    engine: Engine, wait: Row, state: str
) -> None:
    run_id = stopped(engine, interrupt(), {"key": "rest", **wait})
    assert resume(engine, run_id, resume=1) == state


def test_a_time_that_passed_while_interrupted_takes_effect_at_the_resume(engine: Engine) -> None:
    run_id = stopped(engine, interrupt(), {"key": "nap", "kind": "sleep", "seconds": 60})
    engine.later(seconds=60)
    engine.tick()
    assert engine.state(run_id) == "paused"
    resume(engine, run_id, resume=1)
    assert engine.state(run_id) == "pending"


def test_what_was_decided_beside_an_interrupt_is_kept(engine: Engine) -> None:
    run_id = stopped(engine, interrupt(), {"key": "ok"})
    engine.approve(engine.task(run_id))
    assert engine.state(run_id) == "paused"
    assert resume(engine, run_id, resume=1) == "pending"


# ---- commands and states


@pytest.mark.parametrize(
    "command",
    [
        {},
        {"continue": False},
        {"continue": True, "resume": 1},
        {"resume": 1, "step": "i"},
        {"key": "i"},
        {"update": {"draft": 2}, "resume": 1},
        {"goto": "draft"},
        [],
        "continue",
        None,
    ],
    ids=str,
)
def test_a_command_that_is_none_is_refused(engine: Engine, command: object) -> None:
    run_id = stopped(engine)
    with engine.refused("PF101", "command"):
        engine.tell("resume", run_id=run_id, command=Jsonb(command))


@pytest.mark.parametrize(
    "state", ["scheduled", "pending", "running", "waiting_approval", "waiting_event"]
)
def test_a_run_that_is_not_paused_is_returned_as_it_is(engine: Engine, state: str) -> None:
    run_id = engine.put(state)
    before = engine.place.rows()
    assert resume(engine, run_id) == state
    assert engine.place.rows() == before
    for command in ({"resume": 1}, {"update": {"draft": 1}}):
        with engine.refused("PF204", "command"):
            resume(engine, run_id, **command)


def test_a_value_is_not_for_a_run_that_somebody_paused(engine: Engine) -> None:
    run_id = engine.put("paused")
    with engine.refused("PF204", "command"):
        resume(engine, run_id, resume=1)
    assert resume(engine, run_id) == "pending"


def test_a_value_is_not_for_a_run_that_only_stands_at_a_breakpoint(engine: Engine) -> None:
    run_id = stopped(engine, breakpoint_())
    with engine.refused("PF101", "command.key"):
        resume(engine, run_id, resume=1)


@pytest.mark.parametrize("command", [{}, {"resume": 1}, {"update": {"draft": 2}}], ids=str)
def test_a_finished_or_unknown_run_is_refused(engine: Engine, command: Row) -> None:
    run_id = stopped(engine)
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id") as refused:
        resume(engine, run_id, **command)
    assert "retry" in str(refused.value.diag.message_hint)
    with engine.refused("PF102", "run_id"):
        resume(engine, uuid4(), **command)


def test_pausing_an_interrupted_run_changes_nothing(engine: Engine) -> None:
    run_id = stopped(engine)
    before = engine.place.rows()
    assert engine.tell("pause", run_id=run_id, reason="holidays") == "paused"
    assert engine.place.rows() == before


@pytest.mark.parametrize("reason", ["interrupt", "before", "after"])
def test_nobody_pauses_a_run_in_the_engines_words(engine: Engine, reason: str) -> None:
    run_id = engine.waiting()
    with engine.refused("PF101", "reason"):
        engine.tell("pause", run_id=run_id, reason=reason)


# ---- update


@pytest.mark.parametrize("how", ["interrupted", "paused"])
def test_an_update_replaces_values_and_goes_on(engine: Engine, how: str) -> None:
    run_id = stopped(engine, interrupt() if how == "interrupted" else {"key": "ok"})
    if how == "paused":
        engine.call("pause", run_id=run_id)
    state = resume(engine, run_id, update={"draft": "better"})
    assert state == ("pending" if how == "interrupted" else "waiting_approval")
    kept = engine.rows(
        "select key, value, round, voided from pgflow.journal_entries"
        " where run_id = %s and key = 'draft' order by voided",
        run_id,
    )
    assert [tuple(row.values()) for row in kept] == [
        ("draft", "better", None, False),
        ("draft", 1, 0, True),
    ]
    assert engine.run(run_id)["round"] == 1


def test_the_handler_gets_the_new_values(engine: Engine) -> None:
    run_id = stopped(engine)
    resume(engine, run_id, update={"draft": "better"})
    assert journal(engine, run_id) == {"draft": "better", "i": None}
    updated = next(e for e in engine.timeline(run_id) if e["type"] == "step.updated")
    assert updated["payload"] == {"keys": ["draft"], "round": 1}
    assert engine.types(run_id).count("step.completed") == 1


@pytest.mark.parametrize(("updates", "digest"), [({}, "aa"), ({"draft": 2}, None)], ids=str)
def test_an_interrupt_that_is_passed_with_an_update_may_be_about_something_else(
    engine: Engine, updates: Row, digest: str | None
) -> None:
    run_id = stopped(engine, interrupt(digest="aa"))
    resume(engine, run_id, **({"update": updates} if updates else {}))
    entries = {e["key"]: e for e in engine.lease_of(run_id).body["journal"]}
    assert entries["i"].get("digest") == digest


@pytest.mark.parametrize("update", [[], "draft", 5, {}], ids=str)
def test_an_update_that_is_no_object_is_refused(engine: Engine, update: object) -> None:
    run_id = stopped(engine)
    with engine.refused("PF101", "command.update"):
        resume(engine, run_id, update=update)


def test_an_update_of_an_unknown_entry_is_refused(engine: Engine) -> None:
    run_id = stopped(engine)
    with engine.refused("PF105", "command.update"):
        resume(engine, run_id, update={"draft": 2, "publish": 3})


def test_an_entry_is_updated_as_often_as_somebody_likes(engine: Engine) -> None:
    run_id = stopped(engine)
    for n in range(3):
        resume(engine, run_id, update={"draft": n})
        lease = engine.lease_of(run_id)
        engine.park(lease, interrupt(f"i{n}"), news=lease.body["news"])
    rounds = engine.rows(
        "select round from pgflow.journal_voided where run_id = %s order by 1", run_id
    )
    assert [row["round"] for row in rounds] == [0, 1, 2]


def test_an_updated_entry_can_be_rolled_back(engine: Engine) -> None:
    run_id = stopped(engine)
    resume(engine, run_id, update={"draft": 2})
    engine.park(engine.lease_of(run_id), {"key": "ok"}, news=1)
    engine.reject(engine.task(run_id), rollback_to="draft")
    assert engine.lease_of(run_id).body.get("journal") in (None, [])


def test_a_decision_about_what_was_updated_is_asked_for_anew(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "payload": 1, "digest": "aa"})
    engine.approve(engine.task(run_id))
    lease = engine.lease_of(run_id)
    engine.record_steps(lease, paid="1")
    engine.park(lease, interrupt(), news=1)
    resume(engine, run_id, update={"paid": 2})
    lease = engine.lease_of(run_id)
    line = engine.park(lease, {"key": "ok", "payload": 2, "digest": "bb"}, news=2)
    assert (line["outcome"], engine.state(run_id)) == ("done", "waiting_approval")


# ---- stops before and after steps


def points(engine: Engine, verb: str, run_id: UUID, step: str = "pay", **more: object) -> Any:
    return engine.tell(f"{verb}_breakpoint", run_id=run_id, step=step, **more)


def test_breakpoints_are_set_and_cleared(engine: Engine) -> None:
    run_id = engine.enqueue()
    assert points(engine, "set", run_id) == ["before pay"]
    assert points(engine, "set", run_id, moment="after") == ["before pay", "after pay"]
    assert engine.run(run_id)["breakpoints"] == ["before pay", "after pay"]
    lease = engine.lease_of(run_id) if engine.worker() else None
    assert lease is not None
    assert lease.body["breakpoints"] == ["before pay", "after pay"]
    assert points(engine, "clear", run_id) == ["after pay"]
    assert points(engine, "clear", run_id, moment="after") == []
    assert engine.run(run_id)["breakpoints"] is None
    told = [t for t in engine.types(run_id) if t.startswith("breakpoint.")]
    assert told == ["breakpoint.set"] * 2 + ["breakpoint.cleared"] * 2


def test_setting_or_clearing_again_is_a_no_op(engine: Engine) -> None:
    run_id = engine.enqueue()
    points(engine, "set", run_id)
    before = engine.place.rows()
    assert points(engine, "set", run_id) == ["before pay"]
    assert points(engine, "clear", run_id, "other") == ["before pay"]
    assert engine.place.rows() == before


@pytest.mark.parametrize("verb", ["set", "clear"])
def test_a_breakpoint_has_a_step_and_a_moment(engine: Engine, verb: str) -> None:
    run_id = engine.enqueue()
    with engine.refused("PF101", "moment"):
        points(engine, verb, run_id, moment="during")
    for step in ("", "s" * 501):
        with engine.refused("PF101", "step"):
            points(engine, verb, run_id, step)


@pytest.mark.parametrize("verb", ["set", "clear"])
def test_a_finished_or_unknown_run_has_no_breakpoints(engine: Engine, verb: str) -> None:
    run_id = engine.enqueue()
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id"):
        points(engine, verb, run_id)
    with engine.refused("PF102", "run_id"):
        points(engine, verb, uuid4())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_at_a_breakpoint_is_paused_and_goes_on_when_it_is_resumed(
    engine: Engine, when: str
) -> None:
    run_id = stopped(engine, breakpoint_(when=when))
    run = engine.run(run_id)
    assert (run["state"], run["pause_reason"]) == ("paused", when)
    task = engine.one("select * from pgflow.inbox where run_id = %s", run_id)
    assert (task["kind"], task["step"]) == ("breakpoint", f"breakpoint/{when}/pay")
    assert "breakpoint.hit" in engine.types(run_id)
    assert resume(engine, run_id) == "pending"
    assert journal(engine, run_id) == {"draft": 1, f"breakpoint/{when}/pay": None}


def test_a_breakpoint_that_was_passed_is_not_waited_for_again(engine: Engine) -> None:
    run_id = stopped(engine, breakpoint_())
    resume(engine, run_id)
    lease = engine.lease_of(run_id)
    assert engine.park(lease, breakpoint_(), news=1)["outcome"] == "refused"  # it is there
    assert engine.state(run_id) == "running"


def test_a_breakpoint_that_was_passed_stops_nobody_who_names_it_beside_another_wait(
    engine: Engine,
) -> None:
    run_id = stopped(engine, breakpoint_())
    resume(engine, run_id)
    lease = engine.lease_of(run_id)
    nap = {"key": "nap", "kind": "event", "name": "e", "timeout": 60}
    assert engine.park(lease, breakpoint_(), nap, news=1)["outcome"] == "done"
    assert (engine.state(run_id), engine.run(run_id)["pause_reason"]) == ("waiting_event", None)
    engine.later(seconds=60)
    engine.tick()
    assert engine.state(run_id) == "pending"


def test_each_resume_passes_one_breakpoint_and_the_run_says_which_is_next(engine: Engine) -> None:
    stops = [breakpoint_("b"), breakpoint_("a"), breakpoint_("a", "after")]
    run_id = stopped(engine, *stops)
    passed: list[str] = []
    for state, reason in [("paused", "after"), ("paused", "before"), ("pending", "before")]:
        assert engine.run(run_id)["pause_reason"] == reason
        before = {task["step"] for task in inbox(engine, run_id)}
        assert resume(engine, run_id) == state
        passed += before - {task["step"] for task in inbox(engine, run_id)}
    assert passed == ["breakpoint/after/a", "breakpoint/before/a", "breakpoint/before/b"]
    assert engine.run(run_id)["pause_reason"] is None


def test_a_run_that_waits_for_any_goes_on_at_the_first_and_stops_at_the_second(
    engine: Engine,
) -> None:
    run_id = stopped(engine, breakpoint_("a"), breakpoint_("b"), wait_any=True)
    assert resume(engine, run_id) == "pending"
    lease: Lease = engine.lease_of(run_id)
    assert engine.park(lease, breakpoint_("b"), news=lease.body["news"])["outcome"] == "done"
    assert engine.state(run_id) == "paused"
    assert engine.types(run_id).count("breakpoint.hit") == 2
    assert resume(engine, run_id) == "pending"


def test_a_breakpoint_that_is_answered_is_no_more_why_the_run_is_paused(engine: Engine) -> None:
    run_id = stopped(engine, interrupt("a"), breakpoint_())
    engine.call("answer", task_id=engine.task(run_id, "breakpoint/before/pay"), data=None)
    assert engine.run(run_id)["pause_reason"] == "interrupt"


def test_an_update_passes_one_breakpoint_too(engine: Engine) -> None:
    run_id = stopped(engine, breakpoint_("a"), breakpoint_("b"))
    assert resume(engine, run_id, update={"draft": 2}) == "paused"
    assert [task["step"] for task in inbox(engine, run_id)] == ["breakpoint/before/b"]


def inbox(engine: Engine, run_id: UUID) -> list[Row]:
    return engine.rows("select * from pgflow.inbox where run_id = %s", run_id)


def test_after_a_rollback_a_breakpoint_fires_again(engine: Engine) -> None:
    run_id = stopped(engine, breakpoint_())
    resume(engine, run_id)
    engine.park(engine.lease_of(run_id), {"key": "ok"}, news=1)
    engine.reject(engine.task(run_id), rollback_to="draft")
    lease: Lease = engine.lease_of(run_id)
    assert engine.park(lease, breakpoint_(), news=lease.body["news"])["outcome"] == "done"
    assert engine.state(run_id) == "paused"
