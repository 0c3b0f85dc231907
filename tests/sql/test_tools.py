"""Tools: a run waits for a result that somebody else works out, and every call is on record."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.sql.waits import asked, entry, event, tool

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row


def calling(engine: Engine, *more: Row, wait_any: bool = False, **arguments: Any) -> UUID:
    """Return a run that waits for a tool."""
    lease = engine.leased(**arguments)
    assert engine.park(lease, tool(), *more, wait_any=wait_any)["outcome"] == "done"
    return lease.run_id


def resolve(engine: Engine, run_id: UUID, result: object = None, key: str = "t") -> str:
    return str(engine.tell("resolve_tool", run_id=run_id, key=key, result=Jsonb(result)))


def fail(engine: Engine, run_id: UUID, error: str | None = "no disk", key: str = "t") -> str:
    return str(engine.tell("fail_tool", run_id=run_id, key=key, error=error))


def calls(engine: Engine, run_id: UUID) -> list[Row]:
    return engine.rows(
        "select * from pgflow.tool_calls where run_id = %s order by requested_at, key", run_id
    )


def sha256(text: str) -> str:
    """Return the hash of the database's text of a jsonb."""
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_run_that_called_a_tool_waits_without_a_worker(engine: Engine) -> None:
    run = engine.run(calling(engine))
    assert (run["state"], run["waits_for"], run["worker_id"]) == ("waiting_tool", ["t"], None)


def test_its_result_wakes_the_run_and_is_in_the_journal(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, tool(digest="aa"))
    assert resolve(engine, lease.run_id, {"url": "b.mp4"}) == "pending"
    (known,) = engine.lease_of(lease.run_id).body["journal"]
    assert known == {
        "key": "t",
        "kind": "tool",
        "value": {"url": "b.mp4"},
        "digest": "aa",
        "lease_no": None,
    }


@pytest.mark.parametrize("result", [None, 0, "", [], {}, {"a": [1, None]}], ids=str)
def test_a_result_may_be_any_value(engine: Engine, result: object) -> None:
    run_id = calling(engine)
    resolve(engine, run_id, result)
    assert engine.lease_of(run_id).body["journal"][0]["value"] == result


def test_no_result_is_the_result_null(engine: Engine) -> None:
    run_id = calling(engine)
    engine.call("resolve_tool", run_id=run_id, key="t")
    assert engine.lease_of(run_id).body["journal"][0]["value"] is None
    assert resolve(engine, run_id, None) == "running"


def test_the_timeline_tells_the_call_and_its_result(engine: Engine) -> None:
    run_id = calling(engine)
    resolve(engine, run_id, 1)
    assert engine.types(run_id) == [
        "run.created",
        "run.started",
        "tool.requested",
        "run.waiting",
        "tool.resolved",
        "run.woken",
    ]


def test_the_same_result_again_is_harmless(engine: Engine) -> None:
    run_id = calling(engine)
    resolve(engine, run_id, {"a": 1, "b": 2})
    before = engine.place.rows()
    assert resolve(engine, run_id, {"b": 2, "a": 1}) == "pending"
    assert engine.place.rows() == before


def test_another_result_is_refused(engine: Engine) -> None:
    run_id = calling(engine)
    resolve(engine, run_id, 1)
    with engine.refused("PF402", "key"):
        resolve(engine, run_id, 2)


def test_a_tool_that_the_run_did_not_call_is_refused(engine: Engine) -> None:
    run_id = calling(engine)
    for verb in (resolve, fail):
        with engine.refused("PF204", "key") as refused:
            verb(engine, run_id, "x", key="other")
        assert refused.value.diag.message_detail == "it waits for: t"


def test_what_is_no_tool_is_refused(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, event("pay"))
    with engine.refused("PF204", "key"):
        resolve(engine, lease.run_id, 1, key="pay")


def test_a_run_that_has_not_parked_yet_does_not_wait(engine: Engine) -> None:
    lease = engine.leased()
    with engine.refused("PF204"):
        resolve(engine, lease.run_id, 1)


def test_a_result_after_the_timeout_is_refused(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, tool(timeout=60))
    engine.later(seconds=60)
    engine.tick()
    for verb in (resolve, fail):
        with engine.refused("PF204", "key"):
            verb(engine, lease.run_id, "late")
    assert entry(engine, lease.run_id, "t")["kind"] == "timeout"


def test_a_result_at_the_due_time_counts_if_it_comes_before_the_tick(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, tool(timeout=60))
    engine.later(seconds=61)
    resolve(engine, lease.run_id, "just in time")
    engine.tick()
    assert entry(engine, lease.run_id, "t")["value"] == "just in time"


def test_after_the_end_of_the_run_it_says_already_finished(engine: Engine) -> None:
    run_id = calling(engine)
    engine.call("cancel", run_id=run_id)
    for verb in (resolve, fail):
        with engine.refused("PF202", "run_id"):
            verb(engine, run_id, "late")


def test_the_same_result_after_the_end_is_harmless(engine: Engine) -> None:
    run_id = calling(engine)
    resolve(engine, run_id, 1)
    engine.complete(engine.lease_of(run_id))
    assert resolve(engine, run_id, 1) == "completed"
    with engine.refused("PF402"):
        resolve(engine, run_id, 2)


def test_an_unknown_run_is_refused(engine: Engine) -> None:
    for verb in (resolve, fail):
        with engine.refused("PF102", "run_id"):
            verb(engine, uuid4(), "x")


def test_a_run_of_another_project_is_as_unknown(engine: Engine) -> None:
    run_id = calling(engine)
    engine.tell("create_project", project="other")
    engine.conn.execute("set pgflow.project = 'other'")
    for verb in (resolve, fail):
        with engine.refused("PF102", "run_id"):
            verb(engine, run_id, "x")


def test_a_result_over_8_mb_is_refused(engine: Engine) -> None:
    run_id = calling(engine)
    big = Jsonb([hashlib.sha256(str(n).encode()).hexdigest() for n in range(140_000)])
    with engine.refused("PF101", "result"):
        engine.call("resolve_tool", run_id=run_id, key="t", result=big)


def test_of_two_tools_the_last_result_wakes_the_run(engine: Engine) -> None:
    run_id = calling(engine, tool("u"))
    assert resolve(engine, run_id, 2, key="u") == "waiting_tool"
    assert resolve(engine, run_id, 1) == "pending"


def test_where_any_will_do_the_first_result_wakes_the_run(engine: Engine) -> None:
    run_id = calling(engine, tool("u"), wait_any=True)
    assert resolve(engine, run_id, 2, key="u") == "pending"


def test_a_result_while_the_handler_runs_is_news(engine: Engine) -> None:
    run_id = calling(engine, tool("u"), wait_any=True)
    resolve(engine, run_id, 2, key="u")
    lease = engine.lease_of(run_id)
    assert resolve(engine, run_id, 1) == "running"
    line = engine.park(lease, tool(), news=1)
    assert (line["outcome"], line["entries"][0]["value"]) == ("news", 1)


def test_a_result_while_paused_is_kept_for_resume(engine: Engine) -> None:
    run_id = calling(engine)
    engine.call("pause", run_id=run_id)
    assert resolve(engine, run_id, 1) == "paused"
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert engine.lease_of(run_id).body["journal"][0]["value"] == 1


def test_resumed_without_a_result_it_waits_on(engine: Engine) -> None:
    run_id = calling(engine, event("pay"))
    engine.call("pause", run_id=run_id)
    assert engine.tell("resume", run_id=run_id) == "waiting_tool"
    resolve(engine, run_id)
    engine.call("signal", run_id=run_id, name="pay")
    assert engine.state(run_id) == "pending"


# ---- a tool fails


def test_a_failed_tool_uses_an_attempt_and_is_requested_again(engine: Engine) -> None:
    run_id = calling(engine, max_attempts=2)
    assert fail(engine, run_id) == "pending"
    run = engine.run(run_id)
    assert (run["attempt_count"], run["last_error"]) == (
        1,
        {"type": "ToolFailed", "message": "no disk"},
    )
    lease = engine.lease_of(run_id)
    assert lease.body["attempt"] == 1
    assert engine.park(lease, tool())["outcome"] == "done"
    assert resolve(engine, run_id, 1) == "pending"
    assert engine.types(run_id).count("tool.requested") == 2


def test_when_its_attempts_are_used_up_the_run_fails_with_the_tools_error(engine: Engine) -> None:
    run_id = calling(engine, max_attempts=2)
    fail(engine, run_id)
    engine.park(engine.lease_of(run_id), tool())
    assert fail(engine, run_id, "still no disk") == "failed"
    run = engine.run(run_id)
    assert (run["error_code"], run["attempt_count"], run["max_attempts"]) == ("E-RUN-016", 2, 2)
    assert "still no disk" in run["error_detail"]
    assert run["last_error"] == {"type": "ToolFailed", "message": "still no disk"}
    assert engine.types(run_id)[-2:] == ["tool.failed", "run.failed"]


def test_executions_and_tools_that_failed_share_the_attempts(engine: Engine) -> None:
    lease = engine.leased(max_attempts=3)
    engine.fail(lease)
    engine.later(minutes=1)
    engine.tick()
    engine.park(engine.lease_of(lease.run_id), tool())
    assert fail(engine, lease.run_id) == "pending"
    assert engine.fail(engine.lease_of(lease.run_id))[0]["state"] == "failed"
    assert engine.run(lease.run_id)["attempt_count"] == 3


def test_a_tool_that_does_not_say_why_it_failed_fails_too(engine: Engine) -> None:
    run_id = calling(engine, max_attempts=1)
    assert fail(engine, run_id, None) == "failed"
    assert engine.run(run_id)["error_detail"]


def test_a_long_error_is_cut(engine: Engine) -> None:
    run_id = calling(engine, max_attempts=1)
    fail(engine, run_id, "x" * 100_000)
    assert len(engine.run(run_id)["last_error"]["message"]) == 8000


def test_a_tool_that_fails_while_the_handler_runs_uses_an_attempt(engine: Engine) -> None:
    lease = woken_while_calling(engine, max_attempts=2)
    assert fail(engine, lease.run_id) == "running"
    assert engine.run(lease.run_id)["attempt_count"] == 1
    assert engine.park(lease, tool(), news=1)["outcome"] == "done"
    assert asked(engine, lease.run_id) == {"t"}
    assert fail(engine, lease.run_id) == "failed"
    assert engine.run(lease.run_id)["attempt_count"] == 2


def test_the_last_failure_while_the_handler_runs_ends_the_run(engine: Engine) -> None:
    lease = woken_while_calling(engine, max_attempts=1)
    assert fail(engine, lease.run_id) == "failed"
    assert engine.run(lease.run_id)["attempt_count"] == 1
    assert engine.beat(lease)[0]["outcome"] == "lost"
    assert engine.complete(lease)[0]["outcome"] == "lost"


def woken_while_calling(engine: Engine, **more: Any) -> Lease:
    """Lease a run that was woken by a signal while it waits for a tool."""
    run_id = calling(engine, event(), wait_any=True, **more)
    engine.call("signal", run_id=run_id, name="pay")
    return engine.lease_of(run_id)


def test_a_tool_that_fails_while_the_run_is_paused_is_requested_again_after_resume(
    engine: Engine,
) -> None:
    run_id = calling(engine, max_attempts=2)
    engine.call("pause", run_id=run_id)
    assert fail(engine, run_id) == "paused"
    assert engine.tell("resume", run_id=run_id) == "pending"
    assert engine.park(engine.lease_of(run_id), tool())["outcome"] == "done"
    assert engine.run(run_id)["attempt_count"] == 1
    assert resolve(engine, run_id, 1) == "pending"


def test_the_last_failure_while_the_run_is_paused_ends_it(engine: Engine) -> None:
    run_id = calling(engine, max_attempts=1)
    engine.call("pause", run_id=run_id)
    assert fail(engine, run_id) == "failed"
    run = engine.run(run_id)
    assert (run["error_code"], run["attempt_count"]) == ("E-RUN-016", 1)


def test_the_last_failure_while_the_run_is_put_off_ends_it(engine: Engine) -> None:
    lease = woken_while_calling(engine, max_attempts=2)
    assert engine.fail(lease)[0]["state"] == "scheduled"
    assert fail(engine, lease.run_id) == "failed"
    assert engine.run(lease.run_id)["attempt_count"] == 2


# ---- the record


def test_a_call_is_on_record_with_its_arguments_and_their_hash(engine: Engine) -> None:
    run_id = calling(engine)
    (call,) = calls(engine, run_id)
    assert (call["key"], call["tool"], call["arguments"]) == ("t", "transcode", {"url": "a.mp4"})
    assert call["arguments_sha256"] == sha256('{"url": "a.mp4"}')
    assert (call["status"], call["requested_at"], call["answered_at"]) == ("open", engine.now, None)


def test_a_call_without_arguments_is_on_record_too(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, {"kind": "tool", "key": "t", "tool": "ping"})
    (call,) = calls(engine, lease.run_id)
    assert (call["arguments"], call["arguments_sha256"]) == (None, sha256("null"))


def test_its_result_is_on_record_with_its_hash_and_how_long_it_took(engine: Engine) -> None:
    run_id = calling(engine)
    engine.later(seconds=1.5)
    resolve(engine, run_id, {"b": 1})
    (call,) = calls(engine, run_id)
    assert (call["status"], call["latency_ms"], call["answered_at"]) == (
        "resolved",
        1500,
        engine.now,
    )
    assert (call["result_sha256"], call["error_code"]) == (sha256('{"b": 1}'), None)


def test_each_failed_call_is_on_record_by_itself(engine: Engine) -> None:
    run_id = calling(engine, max_attempts=2)
    fail(engine, run_id)
    engine.later(seconds=5)
    engine.park(engine.lease_of(run_id), tool(arguments={"url": "c.mp4"}))
    engine.later(seconds=2)
    resolve(engine, run_id, 1)
    failed, resolved = calls(engine, run_id)
    assert (failed["status"], failed["error_code"], failed["error"]) == (
        "failed",
        "E-RUN-016",
        "no disk",
    )
    assert (failed["latency_ms"], failed["arguments"]) == (0, {"url": "a.mp4"})
    assert (resolved["status"], resolved["error_code"]) == ("resolved", None)
    assert (resolved["latency_ms"], resolved["arguments"]) == (2000, {"url": "c.mp4"})


def test_a_call_that_timed_out_is_on_record_as_that(engine: Engine) -> None:
    lease = engine.leased()
    engine.park(lease, tool(timeout=60))
    engine.later(seconds=61)
    engine.tick()
    (call,) = calls(engine, lease.run_id)
    assert (call["status"], call["result_sha256"]) == ("timeout", None)


def test_a_call_that_nobody_waits_for_any_more_is_on_record_as_dropped(engine: Engine) -> None:
    lease = woken_while_calling(engine)
    engine.park(lease, event("other"), news=1)
    (call,) = calls(engine, lease.run_id)
    assert (call["status"], call["answered_at"]) == ("dropped", None)


def test_a_call_of_a_run_that_ended_is_on_record_as_dropped(engine: Engine) -> None:
    run_id = calling(engine)
    engine.call("cancel", run_id=run_id)
    assert [call["status"] for call in calls(engine, run_id)] == ["dropped"]


def test_a_call_that_was_dropped_has_no_part_in_the_result_of_the_next(engine: Engine) -> None:
    lease = woken_while_calling(engine)
    engine.park(lease, event("other"), news=1)
    engine.call("signal", run_id=lease.run_id, name="other")
    engine.later(seconds=1)
    engine.park(engine.lease_of(lease.run_id), tool(), news=2)
    resolve(engine, lease.run_id, 1)
    assert [call["status"] for call in calls(engine, lease.run_id)] == ["dropped", "resolved"]


def test_what_the_engine_says_of_a_tool_cannot_be_emitted(engine: Engine) -> None:
    run_id = calling(engine)
    with engine.refused("PF101", "type"):
        engine.call("emit", run_id=run_id, type="tool.resolved", payload={"key": "t"})
