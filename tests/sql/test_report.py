"""report: what a run did, who decided what, what it cost, and what is left open."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import (
    define,
    finish,
    gate,
    ready,
    started,
    step,
    step_run,
    task_of,
    work,
)
from tests.sql.waits import event, tool, with_children

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Row

REVIEW = (step("draft"), gate("editor", "draft", title="Publish?"), step("publish", "editor"))
ENDS = {
    "completed": "run.completed",
    "failed": "run.failed",
    "cancelled": "run.cancelled",
    "timeout": "run.timed_out",
}


def reported(engine: Engine, run_id: UUID) -> Row:
    report: Row = engine.tell("report", run_id=run_id)
    return report


def keyed(report: Row, *members: str) -> dict[str, Any]:
    """Return members of the steps, by step; one alone not as a tuple."""
    told = {s["key"]: tuple(s[m] for m in members) for s in report["steps"]}
    return {key: values[0] for key, values in told.items()} if len(members) == 1 else told


def call(key: str, model: str = "m-1", cost: float | None = 0.02, **more: Any) -> Row:
    """Return a call of a model."""
    return {"call_key": key, "model": model, "cost_usd_total": cost, **more}


def ended(engine: Engine, state: str) -> UUID:
    """Bring a flow to an end."""
    run_id = started(engine, step("a"), step("b", "a"), deadline=engine.now + timedelta(hours=1))
    if state == "cancelled":
        engine.call("cancel", run_id=run_id, reason="too dear")
    elif state == "timeout":
        engine.later(hours=2)
        engine.tick()
    else:
        finish(engine, fail=("b",) if state == "failed" else ())
    assert engine.state(run_id) == state
    return run_id


# ---- flows


def test_the_report_of_a_flow_says_what_was_run_and_how_it_ended(engine: Engine) -> None:
    version = define(engine, *REVIEW)
    run_id = engine.tell("start", flow="f", input={"n": 1}, correlation_id="c-1", tags=["t"])
    work(engine)
    engine.later(seconds=5)
    engine.approve(task_of(engine, run_id, "editor"))
    work(engine)
    report = reported(engine, run_id)
    run = engine.run(run_id)
    assert (report["run_id"], report["kind"], report["handler"]) == (str(run_id), "flow", None)
    assert (report["flow"], report["version"]) == ("f", version["version"])
    assert report["hash"] == version["sha256"].hex()
    assert (report["status"], report["error_code"], report["error"]) == ("completed", None, None)
    assert (report["correlation_id"], report["tags"]) == ("c-1", ["t"])
    assert datetime.fromisoformat(report["ended_at"]) == run["finished_at"] == engine.now
    assert datetime.fromisoformat(report["started_at"]) == engine.now - timedelta(seconds=5)
    assert report["input_sha256"] == run["input_sha256"]
    assert report["output_sha256"] == run["output_sha256"]
    assert (report["unresolved"], report["left_out"]) == (
        {"tasks": [], "waits": [], "artifacts": [], "steps": []},
        {},
    )


def test_the_report_of_a_flow_has_its_steps_in_their_order(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a", retry={"max_attempts": 2}), step("c", "b"))
    work(engine)
    engine.fail(*ready(engine).values())
    engine.later(hours=1)
    engine.tick()
    finish(engine, fail=("c",))
    report = reported(engine, run_id)
    assert keyed(report, "state", "attempts", "visits", "error_code", "error") == {
        "a": ("completed", 1, 1, None, None),
        "b": ("completed", 2, 1, None, None),
        "c": ("failed", 1, 1, "E-RUN-001", "boom"),
    }
    assert keyed(report, "needs") == {"a": [], "b": ["a"], "c": ["b"]}
    assert keyed(report, "run_id")["b"] == str(step_run(engine, run_id, "b"))
    assert all(s["started_at"] and s["ended_at"] for s in report["steps"])
    assert (report["status"], report["error_code"]) == ("failed", "E-RUN-001")
    assert report["error"] == "step c: boom"


def test_a_step_that_was_done_again_is_there_with_each_of_its_versions(engine: Engine) -> None:
    run_id = started(engine, *REVIEW)
    work(engine)
    engine.reject(task_of(engine, run_id, "editor"), comment="too long", rollback_to="draft")
    work(engine)
    engine.approve(task_of(engine, run_id, "editor"), comment="fine")
    finish(engine)
    report = reported(engine, run_id)
    told = [(s["key"], s["version"], s["state"], s["visits"]) for s in report["steps"]]
    assert told == [
        ("draft", 0, "voided", 2),
        ("draft", 1, "completed", 2),
        ("editor", 0, "rejected", 2),
        ("editor", 1, "completed", 2),
        ("publish", 1, "completed", 1),
    ]
    decided = [(d["step"], d["action"], d["comment"], d["round"]) for d in report["decisions"]]
    assert decided == [("editor", "rejected", "too long", 0), ("editor", "approved", "fine", 1)]
    assert report["unresolved"]["steps"] == []


EMPTY = hashlib.sha256(b"{}").hexdigest()


def test_a_report_has_the_hashes_of_what_went_in_and_came_out(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    work(engine, a={"x": 1})
    report = reported(engine, run_id)
    child = engine.run(step_run(engine, run_id, "a"))
    waiting = engine.run(step_run(engine, run_id, "b"))
    assert [(a["step"], a["name"], a["sha256"]) for a in report["artifacts"]] == [
        (None, "input", EMPTY),
        ("a", "input", child["input_sha256"]),
        ("a", "output", child["output_sha256"]),
        ("b", "input", waiting["input_sha256"]),
    ]


def test_a_report_has_the_documents_and_says_which_are_invalid(engine: Engine) -> None:
    define(engine, step("a"), step("b"))
    run_id = engine.tell("start", flow="f")
    leases = ready(engine)
    wrong = Jsonb([{"path": "$", "message": "is wrong"}])
    for lease, name, errors in (
        (leases["a"], "draft", wrong),
        (leases["b"], "note", Jsonb([])),
    ):
        engine.call(
            "record_artifact",
            run_id=lease.run_id,
            lease_no=lease.lease_no,
            name=name,
            content="1",
            errors=errors,
        )
    report = reported(engine, run_id)
    documents = [a for a in report["artifacts"] if a["kind"] == "document"]
    assert [(a["step"], a["name"], a["valid"]) for a in documents] == [
        ("a", "draft", False),
        ("b", "note", True),
    ]
    assert report["unresolved"]["artifacts"] == documents[:1]


def test_a_decision_says_who_did_what_why_when_and_under_which_login(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    run_id = started(engine, *REVIEW)
    work(engine)
    ann = make_role("pgflow_approver")
    task_id = task_of(engine, run_id, "editor")
    connect(ann).approve(task_id, comment="well said")
    (decision,) = reported(engine, run_id)["decisions"]
    assert (decision["task_id"], decision["title"]) == (str(task_id), "Publish?")
    assert (decision["step"], decision["kind"]) == ("editor", "approval")
    assert (decision["action"], decision["by"], decision["login"]) == ("approved", ann, ann)
    assert decision["comment"] == "well said"
    assert datetime.fromisoformat(decision["at"]) == engine.now
    assert (decision["votes"], decision["policy"]) == (None, None)


def test_a_decision_of_several_has_their_votes(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    run_id = started(engine, gate("board", quorum=2))
    people = [make_role("pgflow_approver") for _ in range(2)]
    for name in people:
        connect(name).approve(task_of(engine, run_id, "board"), comment=f"by {name}")
    (decision,) = reported(engine, run_id)["decisions"]
    votes = {(v["by"], v["action"], v["comment"]) for v in decision["votes"]}
    assert votes == {(name, "approved", f"by {name}") for name in people}


def test_what_a_policy_decided_names_nobody(engine: Engine) -> None:
    run_id = started(engine, gate("editor", due_in=60, policy="approve"))
    engine.later(seconds=61)
    engine.tick()
    (decision,) = reported(engine, run_id)["decisions"]
    assert (decision["action"], decision["by"], decision["policy"]) == ("expired", None, "approve")


# ---- what is left open


def test_a_live_flow_says_what_is_unresolved(engine: Engine) -> None:
    run_id = started(
        engine,
        gate("editor", title="Publish?", assignee_role="editors"),
        step("pay", type="wait_event", config={"name": "payment", "timeout": 60}),
        step("ship", "editor", "pay"),
    )
    report = reported(engine, run_id)
    assert (report["status"], report["ended_at"]) == ("waiting_approval", None)
    left = report["unresolved"]
    (task,) = left["tasks"]
    assert (task["title"], task["assignee_role"], task["step"]) == ("Publish?", "editors", "editor")
    (wait,) = left["waits"]
    assert (wait["step"], wait["kind"], wait["name"]) == ("pay", "event", "payment")
    assert datetime.fromisoformat(wait["due_at"]) == engine.now + timedelta(seconds=60)
    assert [(s["key"], s["state"]) for s in left["steps"]] == [
        ("editor", "waiting"),
        ("pay", "waiting"),
        ("ship", "pending"),
    ]


def test_a_cancelled_flow_says_which_steps_have_not_run(engine: Engine) -> None:
    run_id = started(engine, step("a"), gate("b", "a"), step("c", "b"))
    work(engine)
    engine.call("cancel", run_id=run_id, reason="too dear")
    report = reported(engine, run_id)
    assert (report["status"], report["error"]) == ("cancelled", "Execution cancelled: too dear")
    assert report["ended_by"] == engine.value("select session_user")
    left = report["unresolved"]
    assert [(s["key"], s["state"]) for s in left["steps"]] == [
        ("b", "cancelled"),
        ("c", "cancelled"),
    ]
    assert (left["tasks"], left["waits"]) == ([], [])


def test_a_paused_run_says_why(engine: Engine) -> None:
    run_id = engine.enqueue()
    engine.call("pause", run_id=run_id, reason="look at it")
    report = reported(engine, run_id)
    assert (report["status"], report["pause_reason"]) == ("paused", "look at it")


# ---- what it cost


def test_usage_is_that_of_all_steps_and_of_each_model(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"))
    leases = ready(engine)
    engine.record_usage(leases["a"], call("1", input_tokens=900, output_tokens=80))
    engine.record_usage(leases["b"], call("1", "m-2", 0.5), call("2", cost=None, status="failed"))
    engine.complete(*leases.values())
    usage = reported(engine, run_id)["usage"]
    assert (usage["calls"], usage["failed_calls"], usage["cost_usd"]) == (3, 1, 0.52)
    assert usage["unpriced_calls"] == 1
    assert (usage["input_tokens"], usage["output_tokens"]) == (900, 80)
    models = [(m["model"], m["calls"], m["failed_calls"], m["cost_usd"]) for m in usage["models"]]
    assert models == [("m-2", 1, 0, 0.5), ("m-1", 2, 1, 0.02)]


def test_a_child_of_a_step_counts_and_what_a_retry_took_over_does_not(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    lease = ready(engine)["a"]
    engine.record_usage(lease, call("1"))
    engine.park(lease, {"kind": "run", "key": "c", "handler": "part", "input": {}})
    (part,) = engine.acquire().leases
    engine.record_usage(part, call("1", cost=0.5))
    engine.complete(part)
    finish(engine, fail=("b",))
    assert reported(engine, run_id)["usage"]["cost_usd"] == 0.52
    again = engine.tell("retry", run_id=run_id)
    lease = ready(engine)["b"]
    engine.record_usage(lease, call("1", cost=0.01))
    engine.complete(lease)
    report = reported(engine, again)
    assert report["usage"]["cost_usd"] == 0.01
    assert keyed(report, "state") == {"a": "completed", "b": "completed"}


def test_a_run_that_used_nothing_says_so(engine: Engine) -> None:
    report = reported(engine, engine.enqueue())
    assert report["usage"] == {
        "calls": 0,
        "failed_calls": 0,
        "unpriced_calls": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "latency_ms": 0,
        "cost_usd": None,
        "models": [],
    }
    assert report["tool_calls"] == 0


def test_calls_of_tools_are_counted(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, tool("t"), tool("u"))
    report = reported(engine, lease.run_id)
    assert report["tool_calls"] == 2
    assert [(w["key"], w["kind"], w["name"]) for w in report["unresolved"]["waits"]] == [
        ("t", "tool", "transcode"),
        ("u", "tool", "transcode"),
    ]


# ---- handlers


def test_the_report_of_a_handler_has_its_journal(engine: Engine) -> None:
    lease = engine.leased("h", input={"n": 1})
    engine.record_steps(lease, b="1", a="2")
    engine.park(lease)
    engine.reject(engine.task(lease.run_id), comment="again", rollback_to="a")
    lease = engine.lease_of(lease.run_id)
    engine.record_steps(lease, a="3")
    engine.complete(lease)
    report = reported(engine, lease.run_id)
    assert (report["kind"], report["flow"], report["handler"]) == ("handler", None, "h")
    assert (report["version"], report["hash"]) == (None, None)
    told = [(s["key"], s["state"], s["attempts"], s["visits"]) for s in report["steps"]]
    assert told == [("b", "completed", 1, 1), ("a", "voided", 1, 2), ("a", "completed", 1, 2)]
    assert [a["name"] for a in report["artifacts"]] == ["input", "output"]
    assert [d["comment"] for d in report["decisions"]] == ["again"]


def test_the_decisions_of_a_child_are_its_parents_too(engine: Engine) -> None:
    parent, (child,) = with_children(engine)
    engine.park(child)
    engine.approve(engine.task(child.run_id))
    (decision,) = reported(engine, parent.run_id)["decisions"]
    assert decision["run_id"] == str(child.run_id)


# ---- how much of it there is


def test_the_last_twenty_events_are_there_the_oldest_first(engine: Engine) -> None:
    lease = engine.leased()
    for n in range(30):
        engine.call("emit", run_id=lease.run_id, type="note", payload={"n": n})
    engine.complete(lease)
    events = reported(engine, lease.run_id)["events"]
    assert [e["event_no"] for e in events] == list(range(14, 34))
    assert [e["type"] for e in events][-2:] == ["note", "run.completed"]
    assert events[0]["payload"] == {"n": 11}


def test_a_large_payload_is_only_told_of(engine: Engine) -> None:
    run_id = engine.enqueue()
    text = json.dumps({"x": "y" * 5000})
    engine.call("emit", run_id=run_id, type="note", payload=json.loads(text))
    last = reported(engine, run_id)["events"][-1]
    assert last["payload"] == {"left_out_bytes": len(text)}


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_long_lists_are_cut_and_say_how_much_is_left_out(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, **{f"s{n:04}": "1" for n in range(1003)})
    report = reported(engine, lease.run_id)
    assert [s["key"] for s in report["steps"]] == [f"s{n:04}" for n in range(1000)]
    assert report["left_out"] == {"steps": 3}


# ---- that it is final


@pytest.mark.parametrize("state", ENDS)
def test_every_end_of_a_flow_says_that_its_report_is_written(engine: Engine, state: str) -> None:
    run_id = ended(engine, state)
    *_, written, last = engine.timeline(run_id)
    assert (written["type"], last["type"]) == ("report.written", ENDS[state])
    assert (written["at"], written["payload"]) == (last["at"], {"status": state})
    assert engine.run(run_id)["final_report"] == run_id
    assert reported(engine, run_id)["status"] == state


def test_a_live_flow_and_a_handlers_run_have_no_final_report(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    assert engine.run(lease.run_id)["final_report"] is None
    assert "report.written" not in engine.types(lease.run_id)
    run_id = started(engine, step("a"))
    assert engine.run(run_id)["final_report"] is None
    assert "report.written" not in engine.types(run_id)


@pytest.mark.parametrize("state", ENDS)
def test_a_finished_report_is_the_same_whenever_and_wherever_it_is_read(
    engine: Engine, state: str
) -> None:
    run_id = ended(engine, state)
    before = reported(engine, run_id)
    engine.later(days=3)
    engine.tick()
    engine.conn.execute("set timezone = 'Asia/Kathmandu'")
    assert reported(engine, run_id) == before
    assert before["ended_at"].endswith("+00:00")


def test_a_subscriber_is_told_that_the_report_is_written(engine: Engine) -> None:
    engine.call("subscribe", subscription="reports", types=["report.written", "run.completed"])
    run_id = started(engine, step("a"))
    finish(engine)
    engine.settled()
    events = engine.call("next_events", subscription="reports", reader="r:1")
    told = [(e["type"], e["event_no"]) for e in events if e["run_id"] == run_id]
    assert [type_ for type_, _ in told] == ["report.written", "run.completed"]
    assert told == [(e["type"], e["event_no"]) for e in engine.timeline(run_id)[-2:]]


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    with engine.refused("PF102", "run_id"):
        engine.call("report", run_id="01900000-0000-7000-8000-000000000000")


def test_an_event_that_a_run_waits_for_is_unresolved(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, event("pay"))
    (wait,) = reported(engine, lease.run_id)["unresolved"]["waits"]
    assert (wait["key"], wait["kind"], wait["run_id"]) == ("pay", "event", str(lease.run_id))
