"""S2, the workflow engine for agent work; README.md has what is missing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pgflow import Worker
from pgflow.errors import (
    AlreadyFinished,
    BadRequest,
    BindingLost,
    RunNotCompleted,
    UnknownAgent,
)
from pgflow.models import Paused
from tests.mission.app import app
from tests.mission.conftest import until

if TYPE_CHECKING:
    from tests.mission.conftest import Mission

CALL = (
    *("run_id", "step", "version", "attempt", "call_key", "thread_id", "actor", "model", "role"),
    *("turn_index", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"),
    *("cost_usd_input", "cost_usd_output", "cost_usd_total", "latency_ms", "status"),
    *("error_code", "request_id", "at"),
)

REPORT = (
    *("run_id", "flow", "version", "hash", "status", "error_code", "error", "started_at"),
    *("ended_at", "steps", "artifacts", "decisions", "bindings", "usage", "events"),
    "unresolved",
)


TITLED = {"properties": {"title": {"type": "string"}}, "required": ["title"]}


def writing(*contents: Any, **config: Any) -> dict[str, Any]:
    """Return a step that has to leave a draft behind; `contents` are those of its executions."""
    return {
        "name": "write",
        "handler": "leaves",
        "timeout": config.pop("timeout", 30),
        "config": {"contents": contents, "instructions": "a title", **config},
        "artifact": {"name": "draft", "schema": TITLED},
    }


def gate(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    """Return a gate that somebody approves."""
    return {"name": name, "type": "approval_gate", "needs": list(needs), **more}


def test_s2_01_every_type_of_event_that_a_run_has_is_in_the_catalogue(mission: Mission) -> None:
    run_id = mission.client.enqueue("asks_twice")
    for key in ("legal", "editor"):
        mission.client.approve(mission.task(run_id, key)["task_id"])
    mission.output(run_id)
    known = {row["type"] for row in mission.rows("select type from pgflow.event_type")}
    assert set(mission.events(run_id)) <= known
    with pytest.raises(BadRequest):
        mission.client.emit(run_id, "run.completed")
    flow = mission.start(
        "s2-told",
        {"name": "draft", "handler": "echo"},
        gate("ok", "draft"),
        channels={"notes": {"reducer": "append"}},
        breakpoints={"before": ["ok"]},
    )
    mission.reaches(flow, "paused")
    mission.client.resume(flow)
    mission.client.reject(mission.task(flow, "ok")["task_id"], "again", rollback_to="draft")
    mission.reaches(flow, "paused")
    told = Counter(mission.events(flow))
    assert told.keys() <= known
    assert (told["step.voided"], told["step.rolled_back"]) == (2, 1)
    assert told["checkpoint.saved"] == len(mission.client.history(flow))
    mission.client.cancel(flow)


def test_s2_02_an_event_says_of_which_run_and_step_it_is_who_did_it_and_when(
    mission: Mission,
) -> None:
    run_id = mission.client.enqueue("asks_twice", correlation_id="s2-events")
    mission.client.approve(mission.task(run_id, "legal")["task_id"], "fine")
    mission.task(run_id, "editor")
    mission.client.emit(run_id, "note", {"n": 1}, idempotency_key="n-1")
    lines = mission.client.timeline(run_id)
    assert [line["event_no"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    for line in lines:
        assert (line["run_id"], line["project_id"]) == (run_id, "default")
        assert (line["correlation_id"], line["attempt"]) == ("s2-events", 0)
    said = {line["type"]: line for line in lines}
    assert (said["note"]["payload"], said["note"]["key"]) == ({"n": 1}, "n-1")
    assert said["step.completed"]["step"] == "one"
    assert said["task.resolved"]["step"] == "legal"
    assert said["task.resolved"]["by"] == mission.value("select session_user::text")
    assert {(line["root_run_id"], line["flow"], line["version"]) for line in lines} == {
        (run_id, None, None)
    }
    mission.client.cancel(run_id)
    flow = mission.start("s2-whose", {"name": "draft", "handler": "echo"}, gate("ok", "draft"))
    mission.client.reject(mission.task(flow, "ok")["task_id"], "again", rollback_to="draft")
    for line in mission.client.timeline(mission.task(flow, "ok")["run_id"]):
        assert (line["root_run_id"], line["flow"], line["version"]) == (flow, "s2-whose", 1)
    assert [
        (line["type"], line["version"])
        for line in mission.client.timeline(flow)
        if line["step"] == "ok" and line["type"] in {"step.started", "step.voided"}
    ] == [("step.started", 0), ("step.voided", 0), ("step.started", 1)]
    mission.client.cancel(flow)


def test_s2_03_of_two_steps_two_equal_approvals_and_two_resumes_every_event_is_there(
    mission: Mission,
) -> None:
    run_id = mission.client.enqueue("asks_twice")
    for key in ("legal", "editor"):
        task = mission.task(run_id, key)
        mission.client.pause(run_id)
        mission.client.resume(run_id)
        mission.client.approve(task["task_id"], "fine")
    assert mission.output(run_id) == ["ONE", "approved", "approved", "TWO"]
    assert Counter(mission.events(run_id)) == {
        "run.created": 1,
        "run.started": 3,
        "step.completed": 2,
        "task.requested": 2,
        "run.waiting": 2,
        "run.paused": 2,
        "run.resumed": 2,
        "task.resolved": 2,
        "run.woken": 2,
        "run.completed": 1,
    }


def test_s2_04_the_same_event_is_told_once_and_nothing_else_is_passed_over(
    mission: Mission,
) -> None:
    run_id = mission.client.enqueue("asks", {})
    mission.reaches(run_id, "waiting_approval")
    first = mission.client.emit(run_id, "progress", {"pct": 40}, idempotency_key="p-1")
    assert mission.client.emit(run_id, "progress", {"pct": 41}, idempotency_key="p-1") == first
    for wrong in ({"type": ""}, {"type": "x" * 200}, {"type": "run.started"}):
        with pytest.raises(BadRequest):
            mission.client.emit(run_id, **wrong)
    mission.client.cancel(run_id)
    with pytest.raises(AlreadyFinished):
        mission.client.emit(run_id, "progress")
    assert mission.client.emit(run_id, "progress", idempotency_key="p-1") == first
    assert mission.events(run_id).count("progress") == 1


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_s2_05_s2_23_sigint_and_sigterm_release_what_runs_and_sigkill_loses_nothing(
    mission: Mission,
) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    with ExitStack() as stack:
        begun = []
        for number in numbers:
            queue, hold = f"s2-{number.name}", mission.hold()
            ttl = timedelta(seconds=1 if number is signal.SIGKILL else 60)
            mission.client.define_queue(queue, lease_ttl=ttl)
            daemon = stack.enter_context(mission.daemon("--queues", queue, "--grace", "0.1"))
            run_id = mission.client.enqueue("held", hold.path, queue=queue)
            begun.append((number, daemon, run_id, hold))
        for number, daemon, _, hold in begun:
            hold.begun()
            assert daemon.stop(number) == (-number if number is signal.SIGKILL else 0)
    for number, _, run_id, _ in begun:
        run = mission.reaches(run_id, "pending")
        killed = number is signal.SIGKILL
        assert (run["attempt_count"], run["worker_id"]) == (int(killed), None)
        line = mission.client.timeline(run_id)[-1]
        assert line["type"] == ("run.requeued" if killed else "run.released")
        assert killed or line["payload"] == {"reason": "shutdown"}
        mission.client.cancel(run_id)


def test_s2_05_a_worker_inside_another_program_leaves_its_signals_alone(mission: Mission) -> None:
    async def embed() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        worker = Worker(app, mission.dsn, queues=["s2-embedded"])
        working = asyncio.create_task(worker.run())
        known = "select exists (select from pgflow.worker_status where worker_id = %s)"
        await asyncio.to_thread(until, lambda: mission.value(known, worker.worker_id))
        during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        worker.stop()
        await working
        assert during == before

    asyncio.run(asyncio.wait_for(embed(), 20))


@pytest.mark.parametrize(("on_reject", "state"), [("cancel", "cancelled"), ("fail", "failed")])
def test_s2_06_a_rejected_gate_cancels_its_flow_or_fails_it_as_it_says(
    mission: Mission, on_reject: str, state: str
) -> None:
    run_id = mission.start("s2-reject", gate("ok", config={"on_reject": on_reject}))
    mission.client.reject(mission.task(run_id)["task_id"], "too dear")
    run = mission.ends(run_id)
    assert (run["state"], run["error_code"]) == (state, "E-RUN-006")
    assert "too dear" in run["error_detail"]
    assert mission.steps(run_id) == {"ok": "rejected"}


def test_s2_06_a_flow_that_is_aborted_at_a_task_is_cancelled_whatever_its_gate_says(
    mission: Mission,
) -> None:
    run_id = mission.start("s2-abort", gate("ok", config={"on_reject": "fail"}))
    mission.pgflow("abort", mission.task(run_id)["task_id"], "we were sold")
    run = mission.ends(run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-013")
    assert "we were sold" in run["error_detail"]
    assert mission.events(run_id)[-1] == "run.aborted"


def test_s2_07_an_execution_of_a_step_has_300_seconds_or_what_the_step_says(
    mission: Mission,
) -> None:
    hold = mission.hold()
    run_id = mission.start(
        "s2-timeouts",
        {"name": "default", "handler": "told", "config": {"value": 1}},
        {
            "name": "short",
            "handler": "held",
            "timeout": 0.05,
            "retry": {"max_attempts": 1},
            "config": {"where": hold.path},
            "needs": ["default"],
        },
    )
    run = mission.ends(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-003")
    seconds = {
        name: mission.run(mission.step(run_id, name)["run_id"])["timeout"].total_seconds()
        for name in ("default", "short")
    }
    assert seconds == {"default": 300, "short": 0.05}
    hold.let_go()


def test_s2_08_a_step_without_its_artifact_is_repaired_once_and_then_fails(
    mission: Mission,
) -> None:
    flows = {
        (None, None): "E-RUN-014",
        ('{"title": ', '{"title": '): "E-RUN-008",
        (None, '{"title": '): "E-RUN-008",
    }
    runs = {mission.start("s2-08", writing(*made)): code for made, code in flows.items()}
    for run_id, code in runs.items():
        run = mission.ends(run_id)
        assert (run["state"], run["error_code"]) == ("failed", code)
        step = mission.step(run_id, "write")["run_id"]
        assert mission.events(step).count("prompt.repaired") == 1
    late = mission.start("s2-08", writing("late", {"title": "in time"}, timeout=0.5))
    mission.output(late)
    assert "artifact.timeout" in mission.events(mission.step(late, "write")["run_id"])


def test_s2_09_an_artifact_counts_for_the_execution_that_wrote_it(mission: Mission) -> None:
    run_id = mission.start("s2-09", writing(None, None, fails=True))
    run = mission.ends(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-014")
    (row,) = mission.client.artifacts(run_id, name="draft")
    assert (row["valid"], row["attempt"], row["lease_no"]) == (True, 0, 1)


def test_s2_10_an_artifact_has_its_hash_and_all_its_errors(mission: Mission) -> None:
    run_id = mission.start("s2-10", writing({"title": 7}, {"title": "Enough"}))
    mission.output(run_id)
    rows = mission.client.artifacts(run_id, step="write")
    assert [row["kind"] for row in rows] == ["input", "document", "document", "output"]
    wrong, right = rows[1:3]
    errors = [{"path": "$.title", "message": "7 is not of type 'string'"}]
    assert (wrong["valid"], wrong["validation_errors"]) == (False, errors)
    assert (right["valid"], right["validation_errors"]) == (True, None)
    text = b'{"title": "Enough"}'
    assert (right["size"], right["sha256"]) == (len(text), hashlib.sha256(text).hexdigest())
    assert (right["step"], right["version"], right["attempt"]) == ("write", 0, 0)
    assert (right["name"], right["media_type"]) == ("draft", "application/json")
    lines = mission.client.timeline(right["run_id"], types=["artifact.invalid"])
    assert [line["payload"]["errors"] for line in lines] == [errors]
    printed = mission.pgflow("artifact", "get", run_id, "draft", "--step", "write")
    assert json.loads(printed) == {"title": "Enough"}


def test_s2_11_a_handler_knows_what_is_expected_and_what_was_wrong(mission: Mission) -> None:
    run_id = mission.start("s2-11", writing({"title": 7}, {"title": "Enough"}))
    told = mission.output(run_id)["write"]
    assert (told["expected"]["name"], told["expected"]["schema"]) == ("draft", TITLED)
    assert told["instructions"] == "a title"
    assert (told["repair"]["attempt"], told["repair"]["error_code"]) == (1, "E-RUN-008")
    assert [error["path"] for error in told["repair"]["errors"]] == ["$.title"]
    assert told["previous"] == {"title": 7}


def test_s2_12_a_role_is_bound_at_the_start_and_a_run_keeps_its_binding(mission: Mission) -> None:
    steps = (
        gate("go"),
        {"name": "plan", "handler": "bound", "role": "planner", "needs": ["go"]},
        {"name": "check", "handler": "bound", "role": "checker", "needs": ["go"]},
    )
    with pytest.raises(UnknownAgent) as refused:
        mission.start("s2-roles", *steps)
    assert "bindings." in refused.value.field
    first = mission.client.define_agent("s2-cheap", "small", backend="here", config={"t": 0})
    run_id = mission.client.start(
        "s2-roles",
        bindings={"planner": "s2-cheap", "checker": {"agent": "s2-cheap", "version": 1}},
    )
    mission.client.define_agent("s2-cheap", "large", backend="here", config={"t": 0})
    mission.client.approve(mission.task(run_id)["task_id"])
    told = mission.output(run_id)
    assert told["plan"] == {
        "role": "planner",
        "agent": "s2-cheap",
        "version": first.version,
        "sha256": first.sha256,
        "model": "small",
        "backend": "here",
        "config": {"t": 0},
    }
    assert (told["check"]["role"], told["check"]["version"]) == ("checker", 1)
    bindings = mission.client.report(run_id)["bindings"]
    assert [(b["role"], b["sha256"]) for b in bindings][1] == ("planner", first.sha256)
    assert first.sha256[:16] in mission.pgflow("report", run_id)


def test_s2_12_a_run_whose_binding_is_missing_or_malformed_is_not_resumed(
    mission: Mission,
) -> None:
    mission.client.define_agent("s2-lost", "small")
    step = {"name": "plan", "handler": "bound", "role": "s2-lost", "needs": ["go"]}
    for broken, word in (("{}", "missing"), ('{"s2-lost": 1}', "malformed")):
        run_id = mission.start("s2-lost", gate("go"), step)
        task_id = mission.task(run_id)["task_id"]
        mission.client.pause(run_id)
        mission.rows(
            "update pgflow.run set bindings = %s::jsonb where run_id = %s returning run_id",
            broken,
            run_id,
        )
        with pytest.raises(BindingLost, match=f"E-RUN-012: .* {word}"):
            mission.client.resume(run_id)
        assert mission.run(run_id)["state"] == "paused"
        mission.client.cancel(run_id)
        assert mission.value("select state from pgflow.task where task_id = %s", task_id) == (
            "cancelled"
        )


def test_s2_13_hashes_of_input_and_output_are_those_of_the_databases_text(
    mission: Mission,
) -> None:
    run_id = mission.client.enqueue("echo", {"b": [1, 2.50], "a": "ä"})
    mission.output(run_id)
    run = mission.run(run_id)
    texts = mission.rows(
        "select input::text as input, output::text as output from pgflow.runs where run_id = %s",
        run_id,
    )[0]
    for what, text in texts.items():
        assert run[f"{what}_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    same = mission.client.enqueue("echo", json.loads('{"a": "ä", "b": [1, 2.50]}'))
    assert mission.run(same)["input_sha256"] == run["input_sha256"]


def test_s2_13_the_hash_of_a_flows_input_covers_the_flows_hash(mission: Mission) -> None:
    one = mission.start("s2-hash", {"name": "a", "handler": "echo"}, given={"n": 1})
    other = mission.start("s2-hash", {"name": "b", "handler": "echo"}, given={"n": 1})
    seen = set()
    for run_id in (one, other):
        report = mission.client.report(run_id)
        text = f'{{"flow": "{report["hash"]}", "input": {{"n": 1}}}}'
        assert mission.run(run_id)["input_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        seen.add(report["input_sha256"])
    assert len(seen) == 2


def test_s2_14_s2_15_s2_22_the_report_of_a_flow_is_final_at_its_end_however_it_ends(
    mission: Mission,
) -> None:
    steps = ({"name": "draft", "handler": "told", "config": {"value": 1}}, gate("ok", "draft"))
    completed, cancelled = (mission.start("s2-report", *steps, given=n) for n in (1, 2))
    mission.client.approve(mission.task(completed)["task_id"], "fine")
    mission.task(cancelled)
    mission.client.cancel(cancelled, "not needed")
    for run_id, status in ((completed, "completed"), (cancelled, "cancelled")):
        result = mission.client.result(run_id, timeout=20)
        assert result.final_report is not None
        assert result.super_step is not None
        report = mission.client.report(result.final_report)
        assert set(REPORT) <= report.keys()
        assert (report["run_id"], report["status"]) == (str(run_id), status)
        assert [step["key"] for step in report["steps"]] == ["draft", "ok"]
        assert [event["type"] for event in report["events"]][-2] == "report.written"
        markdown = mission.pgflow("report", run_id)
        assert status in markdown
        assert report["hash"][:16] in markdown
    (decision,) = mission.client.report(completed)["decisions"]
    assert (decision["action"], decision["comment"]) == ("approved", "fine")
    assert "not needed" in mission.client.report(cancelled)["error"]


def test_s2_16_each_call_of_a_model_is_in_the_ledger_the_failed_one_too(mission: Mission) -> None:
    run_id = mission.client.enqueue("spends")
    mission.output(run_id)
    ledger = "select * from pgflow.model_calls where run_id = %s"
    failed, done = sorted(mission.rows(ledger, run_id), key=lambda call: call["status"])
    assert set(CALL) <= failed.keys()
    assert (failed["status"], failed["error_code"]) == ("failed", "overloaded")
    assert (failed["actor"], failed["role"], failed["thread_id"]) == ("writer 2", "author", "t-1")
    assert (done["status"], done["step"], done["output_tokens"]) == ("ok", "draft", 80)
    assert (done["cached_tokens"], done["reasoning_tokens"]) == (700, 20)
    assert done["cost_usd_total"] == Decimal("0.013")
    assert mission.run(run_id)["cost_usd"] == Decimal("0.022")
    assert failed["call_key"] != done["call_key"]
    assert failed["version"] is None


def test_s2_16_a_call_says_of_which_version_of_its_step_it_is(mission: Mission) -> None:
    flow = mission.start("s2-ledger", {"name": "draft", "handler": "spends"}, gate("ok", "draft"))
    mission.client.reject(mission.task(flow, "ok")["task_id"], "shorter", rollback_to="draft")
    mission.client.approve(mission.task(flow, "ok")["task_id"])
    mission.output(flow)
    calls = """
        select c.version, count(*) as calls from pgflow.model_calls c
        join pgflow.flow_steps s using (run_id) where s.flow_run_id = %s group by 1 order by 1
    """
    assert [(row["version"], row["calls"]) for row in mission.rows(calls, flow)] == [(0, 2), (1, 2)]


def test_s2_17_prices_make_a_missing_cost_and_one_that_nobody_knows_is_null_not_0(
    mission: Mission,
) -> None:
    mission.client.define_price("m-10", 0.01, 0.02, valid_from=datetime(2026, 1, 1, tzinfo=UTC))
    run_id = mission.client.enqueue("summarises", ["m-10", "m-of-nobody"], budget={"usd": 0.025})
    assert mission.output(run_id) == [0.015, 0.015]
    calls = "select model, cost_usd_total from pgflow.model_calls where run_id = %s"
    costs = {row["model"]: row["cost_usd_total"] for row in mission.rows(calls, run_id)}
    assert costs == {"m-10": Decimal("0.01"), "m-of-nobody": None}
    assert mission.run(run_id)["cost_usd"] == Decimal("0.01")
    odd = [line["detail"] for line in mission.client.doctor() if line["level"] == "warn"]
    assert any("m-of-nobody" in detail for detail in odd)


def test_s2_17_a_flow_that_exceeds_its_budget_fails_or_asks_for_more_as_it_says(
    mission: Mission,
) -> None:
    mission.client.define_price("m-10", 0.01, 0.02, valid_from=datetime(2026, 1, 1, tzinfo=UTC))
    step = {"name": "write", "handler": "summarises"}
    calls = ["m-10"] * 3
    fails = mission.start("s2-fails", step, budget={"usd": 0.025}, given=calls)
    asks = mission.start("s2-asks", step, budget={"usd": 0.025, "on_breach": "ask"}, given=calls)
    run = mission.ends(fails)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-009")
    assert mission.events(fails).count("budget.exceeded") == 1
    assert mission.reaches(asks, "paused")["pause_reason"] == "budget"
    (task,) = mission.client.inbox(run_id=asks)
    mission.client.approve(task["task_id"], "go on", {"usd": 5})
    assert len(mission.output(asks)["write"]) == 3
    used = mission.value("select used_usd from pgflow.budgets where run_id = %s", asks)
    spent = "select cost_usd from pgflow.runs where run_id = %s"
    assert used == mission.value(spent, mission.step(asks, "write")["run_id"]) > Decimal("0.025")


def test_s2_18_each_call_of_a_tool_leaves_a_record_with_its_hashes(mission: Mission) -> None:
    run_id = mission.client.enqueue("tooled", {"src": "a.mov"})
    mission.reaches(run_id, "waiting_tool")
    mission.client.resolve_tool(run_id, "transcode", {"url": "x"})
    assert mission.output(run_id) == {"url": "x"}
    (call,) = mission.client.tool_calls(run_id=run_id)
    assert (call["tool"], call["status"]) == ("transcode", "resolved")
    assert call["arguments"] == {"src": "a.mov"}
    assert call["arguments_sha256"] == hashlib.sha256(b'{"src": "a.mov"}').hexdigest()
    assert call["result_sha256"] == hashlib.sha256(b'{"url": "x"}').hexdigest()
    assert call["latency_ms"] >= 0
    assert call["requested_at"] <= call["answered_at"]


def test_s2_19_a_step_shows_its_place_its_times_its_attempts_and_its_task(
    mission: Mission,
) -> None:
    run_id = mission.start(
        "s2-steps",
        {"name": "retried", "handler": "flaky", "config": {}},
        gate("ok", "retried"),
        given=1,
    )
    task = mission.task(run_id)
    retried, ok = mission.client.flow_steps(run_id)
    assert (retried["seq"], retried["attempts"], retried["state"]) == (1, 2, "completed")
    assert retried["started_at"] <= retried["ended_at"]
    assert (ok["type"], ok["task_id"], ok["run_id"]) == (
        "approval_gate",
        task["task_id"],
        task["run_id"],
    )
    assert (retried["visits"], ok["visits"]) == (1, 1)
    mission.client.approve(task["task_id"])
    assert mission.steps(run_id)["ok"] == "completed"
    assert mission.client.task_history(task_id=task["task_id"])[0]["state"] == "approved"


def test_s2_20_what_is_asked_again_is_the_same_request_and_finds_the_decision(
    mission: Mission,
) -> None:
    run_id = mission.client.enqueue("asks_twice")
    legal = mission.task(run_id, "legal")
    first = mission.client.approve(legal["task_id"], "fine")
    mission.task(run_id, "editor")  # the handler came by `legal` again
    again = mission.client.approve(legal["task_id"], "fine")
    assert (again.repeated, again.decided_at) == (True, first.decided_at)
    lines = mission.client.timeline(run_id)
    asked = [line["payload"]["key"] for line in lines if line["type"] == "task.requested"]
    assert asked == ["legal", "editor"]
    mission.client.cancel(run_id)


def test_s2_21_gates_of_a_step_are_decided_in_their_order_one_task_each(mission: Mission) -> None:
    run_id = mission.start(
        "s2-gates",
        writing({"title": "A"}) | {"gates": ["legal", {"name": "editor", "title": "Print it?"}]},
        {"name": "sign", "type": "pass", "needs": ["write"], "gates": ["boss"]},
    )
    for step, gate in (("write", "legal"), ("write", "editor"), ("sign", "boss")):
        task = mission.task(run_id, f"{step}/{gate}")
        (only,) = mission.rows("select * from pgflow.inbox where flow_run_id = %s", run_id)
        assert only["task_id"] == task["task_id"]
        payload = task["payload"]
        assert (payload["step"], gate in payload["gates"]) == (step, True)
        if step == "write":
            assert payload["gates"] == ["legal", "editor"]
            (kept,) = mission.rows(
                "select * from pgflow.artifacts where run_id = %s and artifact_no = %s",
                payload["artifact"]["run_id"],
                payload["artifact"]["artifact_no"],
            )
            assert (kept["name"], kept["sha256"]) == ("draft", payload["sha256"])
        mission.client.approve(only["task_id"])
    assert "sign" in mission.output(run_id)
    assert mission.steps(run_id)["sign/boss"] == "completed"


def test_s2_21_a_step_that_is_done_again_has_all_its_gates_asked_again(mission: Mission) -> None:
    run_id = mission.start("s2-again", writing({"title": "A"}) | {"gates": ["legal", "editor"]})
    first = mission.task(run_id, "write/legal")
    mission.client.approve(first["task_id"])
    mission.client.reject(
        mission.task(run_id, "write/editor")["task_id"], comment="again", rollback_to="write"
    )
    second = mission.task(run_id, "write/legal")
    assert second["task_id"] != first["task_id"]
    assert second["payload"]["artifact"] != first["payload"]["artifact"]
    mission.client.approve(second["task_id"])
    mission.client.approve(mission.task(run_id, "write/editor")["task_id"])
    mission.output(run_id)


def test_s2_22_a_result_says_what_became_of_a_run(mission: Mission) -> None:
    completed = mission.client.result(mission.client.enqueue("echo", [1]), timeout=20)
    assert (completed.state, completed.output, completed.error) == ("completed", [1], None)
    failed = mission.client.result(mission.client.enqueue("broken", 2), timeout=20)
    assert (failed.state, failed.error_code) == ("failed", "E-RUN-001")
    assert failed.error is not None
    assert failed.error["type"] == "NonRetryable"
    with pytest.raises(RunNotCompleted):
        _ = failed.value
    run_id = mission.client.enqueue("interrupted")
    paused = mission.client.result(run_id, timeout=20, until="paused")
    assert (paused.state, paused.run_id) == ("paused", run_id)
    assert paused.paused == Paused("interrupt", "interrupt", {"n": 1})
    mission.client.cancel(run_id)
