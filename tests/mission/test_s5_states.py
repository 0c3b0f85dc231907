"""S5, the run state machine with leases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgflow.errors import AlreadyFinished, IllegalMove
from tests.mission.conftest import Hand, until

if TYPE_CHECKING:
    from tests.mission.conftest import Mission

SHOWN = (
    *("run_id", "project_id", "state", "lease_until", "heartbeat_at", "worker_id"),
    *("last_worker_id", "lease_no", "attempt_count", "max_attempts", "error_code"),
    *("error_detail", "last_error", "output_sha256", "cost_usd", "step_count", "created_at"),
    *("first_started_at", "started_at", "finished_at"),
)


def test_s5_01_a_run_shows_its_lease_its_attempts_and_what_became_of_it(mission: Mission) -> None:
    hold = mission.hold()
    run_id = mission.client.enqueue("costly", hold.path)
    until(lambda: mission.run(run_id)["step_count"] == 2)
    run = mission.run(run_id)
    assert set(SHOWN) <= run.keys()
    assert (run["state"], run["project_id"]) == ("running", "default")
    assert run["worker_id"] in {daemon.worker_id for daemon in mission.daemons}
    assert run["lease_until"] - run["heartbeat_at"] == timedelta(seconds=60)
    assert (run["lease_no"], run["attempt_count"], run["max_attempts"]) == (1, 0, 3)
    hold.let_go()
    ended = mission.ends(run_id)
    assert (ended["state"], ended["last_worker_id"]) == ("completed", run["worker_id"])
    assert (ended["worker_id"], ended["lease_until"], ended["heartbeat_at"]) == (None, None, None)
    assert (ended["step_count"], ended["cost_usd"]) == (2, Decimal("0.25"))
    assert ended["output_sha256"] == hashlib.sha256(b'"done"').hexdigest()
    times = [ended[f"{what}_at"] for what in ("created", "first_started", "started", "finished")]
    assert times == sorted(times)


def test_s5_02_three_executions_may_fail_and_a_success_keeps_only_the_last_error(
    mission: Mission,
) -> None:
    run = mission.ends(mission.client.enqueue("flaky", 2))
    assert (run["state"], run["attempt_count"], run["max_attempts"]) == ("completed", 2, 3)
    assert (run["error_code"], run["error_detail"]) == (None, None)
    assert (run["last_error"]["type"], run["last_error"]["message"]) == ("ValueError", "failure 2")
    run = mission.ends(mission.client.enqueue("flaky", 3))
    assert (run["state"], run["attempt_count"], run["error_code"]) == ("failed", 3, "E-RUN-001")


@pytest.mark.parametrize("column", ["worker_id = 'w:1'", "leased_at = now()", "state = 'running'"])
def test_s5_02_only_a_running_run_has_a_lease_and_no_hand_can_give_it_one(
    mission: Mission, column: str
) -> None:
    run_id = mission.client.enqueue("asks", {})
    run = mission.reaches(run_id, "waiting_approval")
    assert (run["worker_id"], run["lease_until"], run["heartbeat_at"]) == (None, None, None)
    with pytest.raises(psycopg.Error) as refused:
        mission.rows(f"update pgflow.run set {column} where run_id = %s", run_id)
    assert refused.value.sqlstate in {"23514", "PF201"}
    assert mission.run(run_id) == run
    mission.client.cancel(run_id)


def test_s5_03_a_tool_that_fails_is_asked_again_until_the_attempts_are_used_up(
    mission: Mission,
) -> None:
    run_id = mission.client.enqueue("tooled", {"src": "a.mov"}, max_attempts=2)
    mission.reaches(run_id, "waiting_tool")
    assert mission.client.fail_tool(run_id, "transcode", "no disk") != "failed"
    until(lambda: len(mission.client.tool_calls(run_id=run_id)) == 2)
    assert mission.reaches(run_id, "waiting_tool")["attempt_count"] == 1
    assert mission.client.fail_tool(run_id, "transcode", "no disk again") == "failed"
    run = mission.run(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-016")
    assert "no disk again" in run["error_detail"]
    assert [call["status"] for call in mission.client.tool_calls(run_id=run_id)] == ["failed"] * 2


def test_s5_04_what_an_execution_cost_counts_once_per_lease(mission: Mission) -> None:
    hand = Hand(mission, "by-hand-costs")
    run_id = mission.client.enqueue("by-hand", queue="by-hand-costs", max_attempts=9)
    spent = {"costs_usd": Decimal("0.5"), "steps": 2}
    failed = {"error_codes": "E-RUN-001", "error_details": "boom"}
    for verb, told in (("release", {}), ("fail", failed)):
        (lease,) = until(hand.take)
        lines = [hand.say(verb, lease, **told, **spent)[0]["outcome"] for _ in range(2)]
        assert lines == ["done", "already"]
    (lease,) = until(hand.take)
    lines = [hand.park(lease, cost_usd=0.5, steps=2)["outcome"] for _ in range(2)]
    assert lines == ["done", "already"]
    mission.client.approve(mission.task(run_id)["task_id"])
    (lease,) = until(hand.take)
    assert hand.say("complete", lease, outputs='"ok"', **spent) == []
    assert hand.say("complete", lease, outputs='"ok"', **spent)[0]["outcome"] == "already"
    run = mission.run(run_id)
    assert (run["cost_usd"], run["step_count"], run["lease_no"]) == (Decimal("2.0"), 8, 4)
    hand.leave()


def test_s5_05_a_refused_move_names_the_run_and_both_states(mission: Mission) -> None:
    run_id = mission.client.enqueue("asks", {})
    mission.reaches(run_id, "waiting_approval")
    with pytest.raises(IllegalMove) as refused:
        mission.client.retry(run_id)
    assert (refused.value.run_id, refused.value.from_state) == (str(run_id), "waiting_approval")
    with pytest.raises(psycopg.Error) as moved:
        mission.rows("update pgflow.run set state = 'completed' where run_id = %s", run_id)
    assert moved.value.sqlstate == IllegalMove.sqlstate
    told = json.loads(moved.value.diag.message_detail or "")
    assert (told["run_id"], told["from_state"]) == (str(run_id), "waiting_approval")
    assert told["to_state"] == "completed"
    mission.client.cancel(run_id)
    with pytest.raises(AlreadyFinished) as over:
        mission.client.pause(run_id)
    assert (over.value.run_id, over.value.from_state) == (str(run_id), "cancelled")


@pytest.mark.parametrize(("policy", "state"), [("cancel", "cancelled"), ("timeout", "timeout")])
def test_s5_06_an_approval_that_nobody_gives_in_time_ends_its_run_as_the_policy_says(
    mission: Mission, policy: str, state: str
) -> None:
    run_id = mission.client.enqueue("asks", {"due_in": 0.05, "policy": policy})
    run = mission.ends(run_id)
    assert (run["state"], run["error_code"]) == (state, "E-RUN-007")
    (task,) = mission.client.task_history(run_id=run_id)
    assert (task["state"], task["decided_by"]) == ("expired", None)


def test_s5_06_s5_07_a_lost_lease_counts_an_attempt_and_reap_counts_what_it_took_back(
    elsewhere: Callable[[str], Mission],
) -> None:
    mission = elsewhere("reaping")
    mission.client.define_queue("short", lease_ttl=timedelta(seconds=1))
    hand = Hand(mission, "short")
    once = mission.client.enqueue("by-hand", queue="short", max_attempts=1)
    twice = mission.client.enqueue("by-hand", queue="short", max_attempts=2)
    assert len(hand.take(2)) == 2

    def reaped() -> dict[str, int]:
        (counts,) = mission.rows("select * from pgflow.reap()")
        return counts if any(counts.values()) else {}

    assert until(reaped) == {"requeued": 1, "failed": 1}
    run = mission.run(once)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-002")
    line = mission.client.timeline(twice)[-1]
    assert line["type"] == "run.requeued"
    told = line["payload"]
    assert (told["worker"], told["attempt"], told["max_attempts"]) == (hand.worker_id, 1, 2)
    mission.client.cancel(twice)


def test_s5_07_workers_log_leases_moves_and_what_they_took_back(mission: Mission) -> None:
    completed = mission.client.enqueue("echo", 1)
    failed = mission.client.enqueue("broken", 1)
    assert mission.logged("run_lease_acquired", run_id=str(completed))["lease_no"] == 1
    moves = {"from_state": "running", "to_state": "completed"}
    mission.logged("run_state_transition", run_id=str(completed), **moves)
    moved = mission.logged("run_state_transition", run_id=str(failed), to_state="failed")
    assert (moved["from_state"], moved["error_code"]) == ("running", "E-RUN-001")
    mission.client.define_queue("short", lease_ttl=timedelta(seconds=1))
    hand = Hand(mission, "short")
    runs = [mission.client.enqueue("by-hand", queue="short", max_attempts=n) for n in (1, 2)]
    assert len(hand.take(2)) == 2
    for run_id, event, most in zip(
        runs, ("stale_run_failed", "stale_run_requeued"), (1, 2), strict=True
    ):
        line = mission.logged(event, run_id=str(run_id))
        assert (line["attempt_count"], line["max_attempts"]) == (1, most)
    assert mission.logged("stale_run_reaper_done")["reaped"] >= 1
    mission.client.cancel(runs[1])


def test_s5_08_a_flow_is_nobodys_lease_and_runs_and_waits_as_its_steps_do(
    mission: Mission,
) -> None:
    hold = mission.hold()
    run_id = mission.start(
        "s5-flow",
        {"name": "ok", "type": "approval_gate"},
        {"name": "work", "handler": "held", "needs": ["ok"], "config": {"where": hold.path}},
    )
    run = mission.reaches(run_id, "waiting_approval")
    mission.client.approve(mission.task(run_id)["task_id"])
    hold.begun()
    run = mission.run(run_id)
    assert (run["state"], run["worker_id"], run["lease_no"]) == ("running", None, None)
    hold.let_go()
    mission.ends(run_id)
    assert "run.started" not in mission.events(run_id)


def test_s5_09_what_was_woken_released_or_taken_back_is_claimed_before_new_work(
    mission: Mission,
) -> None:
    hand = Hand(mission, "by-hand-order")
    released = mission.client.enqueue("by-hand", {"n": 1}, queue="by-hand-order")
    (lease,) = until(hand.take)
    mission.client.enqueue_many("by-hand", [{}] * 50, queue="by-hand-order")
    assert hand.say("release", lease)[0]["outcome"] == "done"
    (again,) = hand.take()
    assert (again["run_id"], again["lease_no"]) == (released, 2)
    assert hand.park(again)["outcome"] == "done"
    mission.client.approve(mission.task(released)["task_id"])
    (woken,) = hand.take()
    assert woken["run_id"] == released
    for run in mission.client.runs(queue="by-hand-order", limit=100):
        mission.client.cancel(run["run_id"])
    hand.leave()


def test_s5_09_two_workers_never_have_the_same_run(mission: Mission) -> None:
    hands = [Hand(mission, "by-hand-shared") for _ in range(2)]
    mission.client.enqueue_many("by-hand", [{}] * 40, queue="by-hand-shared")
    taken = [lease["run_id"] for _ in range(10) for hand in hands for lease in hand.take(2)]
    assert len(taken) == len(set(taken)) == 40
    for hand in hands:
        hand.leave()
    for run in mission.client.runs(queue="by-hand-shared", limit=100):
        mission.client.cancel(run["run_id"])
