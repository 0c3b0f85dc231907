"""Steps that don't complete, flows that end before their steps have, and flows done again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.sql.flows import define, finish, ready, started, states, step, step_run, work

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Connect, Engine

CHAIN = (step("a"), step("b", "a"), step("c", "b"))


def ended(engine: Engine, run_id: UUID) -> tuple[str, str | None, str | None]:
    """Return how a run ended."""
    run = engine.run(run_id)
    return run["state"], run["error_code"], run["error_detail"]


def test_a_step_that_fails_ends_its_flow_with_its_code_and_name(engine: Engine) -> None:
    run_id = started(engine, *CHAIN)
    work(engine)
    work(engine, fail=("b",))
    assert ended(engine, run_id) == ("failed", "E-RUN-001", "step b: boom")
    assert states(engine, run_id) == {"a": "completed", "b": "failed", "c": "cancelled"}
    assert ready(engine) == {}


def test_when_a_flow_fails_its_other_steps_end_and_their_tasks_close(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c"), step("d"))
    leases = ready(engine)
    engine.park(leases["b"])
    engine.call("pause", run_id=leases["c"].run_id)
    engine.fail(leases["a"], retries=[False])
    assert engine.state(run_id) == "failed"
    for name in "bcd":
        run = engine.run(leases[name].run_id)
        assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")
    assert engine.value("select count(*) from pgflow.inbox where run_id = %s", run_id) == 0
    assert states(engine, run_id) == dict.fromkeys("bcd", "cancelled") | {"a": "failed"}
    assert engine.complete(leases["d"])[0]["outcome"] == "lost"


def test_a_step_that_somebody_holds_when_its_flow_fails_is_ended_by_the_tick(
    engine: Engine, connect: Connect
) -> None:
    run_id = started(engine, step("a"), step("b"), step("c"))
    leases = ready(engine)
    holder = connect()
    with holder.conn.transaction():
        holder.rows("select from pgflow.run where run_id = %s for update", leases["b"].run_id)
        engine.fail(leases["c"], retries=[False])
        assert engine.state(run_id) == "failed"
        assert engine.state(leases["a"].run_id) == "cancelled"
        engine.later(seconds=2)
        engine.tick()
        assert engine.state(leases["b"].run_id) == "running"
    engine.acquire()  # whoever looks for work sees to it
    run = engine.run(leases["b"].run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")
    assert engine.value("select count(*) from pgflow.left_behind") == 0


def test_a_step_that_was_left_behind_may_complete_first(engine: Engine, connect: Connect) -> None:
    run_id = started(engine, step("a"), step("b"))
    leases = ready(engine)
    holder = connect()
    with holder.conn.transaction():
        holder.rows("select from pgflow.run where run_id = %s for update", leases["a"].run_id)
        engine.fail(leases["b"], retries=[False])
    assert engine.complete(leases["a"]) == []
    engine.later(seconds=2)
    engine.tick()
    assert engine.state(leases["a"].run_id) == "completed"
    assert states(engine, run_id) == {"a": "cancelled", "b": "failed"}
    assert engine.value("select count(*) from pgflow.left_behind") == 0


def test_a_flow_goes_on_after_a_step_whose_failure_it_takes(engine: Engine) -> None:
    run_id = started(
        engine, step("a", on_failure="continue"), step("b", "a"), step("c", "a", join="none_failed")
    )
    assert finish(engine, fail=("a",)) == [["a"]]
    run = engine.run(run_id)
    assert (run["state"], run["output"], run["error_code"]) == ("completed", {}, None)
    assert states(engine, run_id) == {"a": "failed", "b": "skipped", "c": "skipped"}


def test_a_step_that_runs_on_failure_learns_what_failed(engine: Engine) -> None:
    run_id = started(engine, step("a", on_failure={"run": "mend"}), step("mend"))
    work(engine, fail=("a",))
    body = ready(engine)["mend"].body
    assert body["input"] == {}
    assert body["flow"]["failures"] == {
        "a": {
            "state": "failed",
            "error_code": "E-RUN-001",
            "error_detail": "boom",
            "run_id": str(step_run(engine, run_id, "a")),
        }
    }


@pytest.mark.parametrize(
    ("on_reject", "state"), [("cancel", "cancelled"), ("fail", "failed")], ids=str
)
def test_a_step_whose_task_is_rejected_ends_its_flow_as_itself(
    engine: Engine, on_reject: str, state: str
) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    lease = ready(engine)["a"]
    engine.park(lease, {"key": "ok", "on_reject": on_reject})
    engine.reject(engine.task(lease.run_id), comment="no")
    assert ended(engine, run_id) == (state, "E-RUN-006", "step a: Fine? rejected: no")
    assert states(engine, run_id) == {"a": "rejected", "b": "cancelled"}
    assert engine.run(run_id)["ended_by"] == engine.run(lease.run_id)["ended_by"]


def test_a_step_whose_task_is_rejected_may_be_taken(engine: Engine) -> None:
    run_id = started(engine, step("a", on_failure={"run": "b"}), step("b"))
    lease = ready(engine)["a"]
    engine.park(lease)
    engine.reject(engine.task(lease.run_id))
    assert states(engine, run_id) == {"a": "rejected", "b": "pending"}
    assert finish(engine) == [["b"]]
    assert engine.state(run_id) == "completed"


@pytest.mark.parametrize(("policy", "state"), [("cancel", "cancelled"), ("timeout", "timeout")])
def test_a_step_whose_task_expires_ends_its_flow_as_itself(
    engine: Engine, policy: str, state: str
) -> None:
    run_id = started(engine, step("a"))
    engine.park(ready(engine)["a"], {"key": "ok", "due_in": 5, "policy": policy})
    engine.later(seconds=6)
    engine.tick()
    assert ended(engine, run_id)[:2] == (state, "E-RUN-007")
    assert states(engine, run_id) == {"a": "expired"}


def test_a_step_that_somebody_cancels_cancels_its_flow(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"))
    engine.call("cancel", run_id=step_run(engine, run_id, "a"), reason="too dear")
    assert ended(engine, run_id) == ("cancelled", None, "step a: Execution cancelled: too dear")
    assert states(engine, run_id) == {"a": "cancelled", "b": "cancelled"}
    assert [line["type"] for line in engine.timeline(run_id)][-3:] == [
        "step.cancelled",
        "report.written",
        "run.cancelled",
    ]


def test_an_output_that_cannot_be_stored_fails_its_step(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b", "a"))
    engine.complete(ready(engine)["a"], output='"\\u0000"')
    assert ended(engine, run_id)[:2] == ("failed", "E-RUN-017")


def test_one_bad_output_in_a_batch_fails_its_own_flow_alone(engine: Engine) -> None:
    runs = [started(engine, step("a")) for _ in range(5)]
    engine.worker()
    leases = sorted(engine.acquire().leases, key=lambda lease: lease.body["flow"]["run_id"])
    engine.complete(*leases, outputs=["1", "2", '"\\u0000"', "4", "5"])
    assert [engine.state(run_id) for run_id in runs] == ["completed"] * 2 + ["failed"] + [
        "completed"
    ] * 2


def test_a_step_whose_worker_died_for_the_last_time_fails_its_flow(engine: Engine) -> None:
    run_id = started(engine, step("a", retry={"max_attempts": 1}))
    ready(engine)
    engine.later(hours=1)
    engine.tick()
    assert ended(engine, run_id)[:2] == ("failed", "E-RUN-002")


def test_of_several_steps_that_fail_together_the_first_says_why(engine: Engine) -> None:
    run_id = started(engine, step("b"), step("a"))
    leases = ready(engine)
    lines = engine.fail(leases["a"], leases["b"], retries=[False] * 2)
    assert [line["outcome"] for line in lines] == ["done", "lost"]
    first = engine.run(lines[0]["run_id"])["step"]
    assert ended(engine, run_id) == ("failed", "E-RUN-001", f"step {first}: boom")
    assert sorted(states(engine, run_id).values()) == ["cancelled", "failed"]


def test_a_flow_in_which_nothing_can_run_and_nothing_waits_fails(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c", "a", "b"))
    leases = ready(engine)
    # Staged: by itself the count is right.
    engine.rows(
        "insert into pgflow.flow_step (project_id, run_id, step, state, needs_settled)"
        " values ('default', %s, 'c', 'pending', -1)",
        run_id,
    )
    engine.complete(leases["a"], leases["b"])
    state, code, detail = ended(engine, run_id)
    assert (state, code) == ("failed", "E-RUN-010")
    assert detail == "no step can run and none waits: c is pending and misses nothing"


def test_a_flow_that_is_stuck_says_what_each_step_misses(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c", "a", "b"))
    leases = ready(engine)
    engine.complete(leases["a"])
    engine.rows("update pgflow.run set parent_key = null where run_id = %s", leases["b"].run_id)
    engine.complete(leases["b"])  # a child that doesn't tell
    engine.rows("select pgflow._look_at_flows('default', array[%s::uuid])", run_id)
    _, code, detail = ended(engine, run_id)
    assert code == "E-RUN-010"
    assert detail == (
        "no step can run and none waits: b is running and misses nothing; c is pending and misses b"
    )


def test_cancelling_a_flow_ends_its_steps(engine: Engine) -> None:
    run_id = started(engine, step("a"), step("b"), step("c", "a"))
    lease = ready(engine)["a"]
    assert engine.tell("cancel", run_id=run_id, reason="why") == "cancelled"
    assert ended(engine, run_id) == ("cancelled", None, "Execution cancelled: why")
    assert states(engine, run_id) == dict.fromkeys("abc", "cancelled")
    assert engine.beat(lease)[0]["outcome"] == "lost"
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-011"
    assert engine.tell("cancel", run_id=run_id) == "cancelled"


def test_a_flows_deadline_ends_it_with_its_steps(engine: Engine) -> None:
    run_id = started(engine, *CHAIN, deadline=engine.now + timedelta(minutes=1))
    lease = ready(engine)["a"]
    engine.later(minutes=1)
    engine.tick()
    assert ended(engine, run_id)[:2] == ("timeout", "E-RUN-003")
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-011"


# ---- done again


def test_retrying_a_flow_keeps_the_steps_that_completed(engine: Engine) -> None:
    steps = (step("a"), step("b"), step("c", "a", "b"), step("d", "c"))
    run_id = started(engine, *steps, input={"n": 1}, tags=["x"])
    work(engine, fail=("b",), a={"x": 1})
    again = engine.tell("retry", run_id=run_id)
    assert states(engine, again) == {
        "a": "completed",
        "b": "pending",
        "c": "pending",
        "d": "pending",
    }
    assert step_run(engine, again, "a") == step_run(engine, run_id, "a")
    lease = ready(engine)["b"]
    assert lease.body["input"] == {"n": 1}
    engine.complete(lease, output="2")
    assert ready(engine)["c"].body["input"] == {"a": {"x": 1}, "b": 2}
    run = engine.run(again)
    assert (run["retry_of"], run["tags"], run["correlation_id"]) == (run_id, ["x"], str(run_id))
    engine.timeline(again)


def test_retrying_a_flow_keeps_its_version(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    work(engine, fail=("a",))
    define(engine, step("other"))
    again = engine.tell("retry", run_id=run_id)
    assert engine.run(again)["flow_version"] == engine.run(run_id)["flow_version"]
    assert finish(engine) == [["a"]]


def test_retrying_a_flow_that_completed_does_all_of_it_again(engine: Engine) -> None:
    run_id = started(engine, *CHAIN)
    finish(engine)
    again = engine.tell("retry", run_id=run_id)
    assert finish(engine) == [["a"], ["b"], ["c"]]
    assert engine.state(again) == "completed"


def test_retrying_again_returns_the_same_run(engine: Engine) -> None:
    run_id = started(engine, *CHAIN)
    work(engine, fail=("a",))
    again = engine.tell("retry", run_id=run_id)
    before = engine.place.rows()
    assert engine.tell("retry", run_id=run_id) == again
    assert engine.place.rows() == before


def test_a_flow_that_failed_with_all_steps_done_but_one_skipped_ends_again(engine: Engine) -> None:
    steps = (
        step("a", on_failure="continue"),
        step("b", "a"),
        step("c", "a", join="none_failed"),
        step("d"),
    )
    run_id = started(engine, *steps)
    leases = ready(engine)
    engine.fail(leases["a"], retries=[False])
    engine.fail(leases["d"], retries=[False])
    again = engine.tell("retry", run_id=run_id)
    assert finish(engine) == [["a", "d"], ["b", "c"]]
    assert engine.state(again) == "completed"


def test_a_live_flow_is_not_retried(engine: Engine) -> None:
    run_id = started(engine, step("a"))
    with engine.refused("PF201", "run_id"):
        engine.call("retry", run_id=run_id)
