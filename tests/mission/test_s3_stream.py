"""S3, the execution stream, as far as it goes; README.md has what is missing."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from pgflow import Delivery
from pgflow.errors import AlreadyFinished, BadRequest, ResultTimeout, UnknownRun
from pgflow.models import ENDS
from tests.mission.conftest import Hand, until

if TYPE_CHECKING:
    from tests.mission.conftest import Mission


def test_s3_04_a_paused_queue_takes_runs_and_holds_them(mission: Mission) -> None:
    hand = Hand(mission, "by-hand-paused")
    mission.client.define_queue("by-hand-paused")
    mission.client.pause_queue("by-hand-paused")
    run_id = mission.client.enqueue("by-hand", queue="by-hand-paused")
    assert hand.take() == []
    assert mission.run(run_id)["state"] == "pending"
    assert mission.client.resume_queue("by-hand-paused")
    (lease,) = until(hand.take)
    assert lease["run_id"] == run_id
    assert hand.say("complete", lease, outputs="1") == []


def test_s3_05_waiting_and_paused_runs_hold_no_slot_of_their_queue(mission: Mission) -> None:
    mission.client.define_queue("narrow", max_concurrent=1)
    waiting, paused = (mission.client.enqueue("narrow") for _ in range(2))
    for run_id in (waiting, paused):
        mission.reaches(run_id, "waiting_approval")
    mission.client.pause(paused)
    holds = [mission.hold() for _ in range(2)]
    first, second = (mission.client.enqueue("narrow", hold.path) for hold in holds)
    mission.reaches(first, "running")
    (stats,) = [s for s in mission.client.queue_stats() if s["queue"] == "narrow"]
    told = {name: stats[name] for name in ("running", "available_slots", "waiting", "paused")}
    assert told == {"running": 1, "available_slots": 0, "waiting": 1, "paused": 1}
    assert mission.run(second)["state"] == "pending"
    for hold in holds:
        hold.let_go()
    assert {mission.ends(run_id)["state"] for run_id in (first, second)} == {"completed"}
    for run_id in (waiting, paused):
        mission.client.cancel(run_id)


@pytest.mark.parametrize("how", ["cancel", "pause"])
def test_s3_05_a_running_run_that_is_taken_away_gives_its_slot_at_once(
    mission: Mission, how: str
) -> None:
    queue = f"one-at-a-time-{how}"
    mission.client.define_queue(queue, max_concurrent=1)
    hand = Hand(mission, queue)
    first, second = (mission.client.enqueue("by-hand", queue=queue) for _ in range(2))
    (lease,) = hand.take(2)
    assert (lease["run_id"], hand.take()) == (first, [])
    getattr(mission.client, how)(first)
    (following,) = hand.take(2)
    assert following["run_id"] == second
    assert [line["outcome"] for line in hand.say("complete", lease, outputs="1")] == ["lost"]
    assert hand.take() == []
    assert hand.say("complete", following, outputs="2") == []
    mission.client.cancel(first)
    hand.leave()


def test_s3_06_children_retries_and_forks_share_the_first_runs_correlation_id(
    mission: Mission,
) -> None:
    run_id = mission.client.enqueue("parent", 7)
    assert mission.output(run_id) == 7
    assert mission.run(run_id)["correlation_id"] == str(run_id)
    again = mission.client.retry(run_id)
    step = mission.client.enqueue("asks", {}, correlation_id="order 7")
    mission.reaches(step, "waiting_approval")
    fork = mission.client.fork(step, "draft")
    family = "select correlation_id from pgflow.runs where run_id = %s or root_run_id = %s"
    for member in (run_id, again):
        mission.output(member)
        ids = {row["correlation_id"] for row in mission.rows(family, member, member)}
        assert ids == {str(run_id)}
    assert mission.run(fork)["correlation_id"] == "order 7"
    lines = "select distinct correlation_id from pgflow.timeline where run_id = %s"
    assert mission.value(lines, fork) == "order 7"
    for asking in (step, fork):
        mission.client.cancel(asking)


def test_s3_07_s3_08_the_context_of_a_run_says_where_it_stands_and_how_it_came_there(
    mission: Mission,
) -> None:
    run_id = mission.start(
        "s3-context",
        {"name": "draft", "handler": "writes", "config": {"writes": [["notes", "a"]]}},
        {"name": "ok", "type": "approval_gate", "needs": ["draft"]},
        channels={"notes": {"reducer": "append"}},
        given={"article": 7},
    )
    mission.client.reject(mission.task(run_id)["task_id"], "again", rollback_to="draft")
    task = mission.task(run_id)
    context = mission.client.context(run_id)
    assert (context["run_id"], context["flow"]) == (str(run_id), "s3-context")
    assert (context["status"], context["input"]) == ("waiting_approval", {"article": 7})
    assert context["memory"] == {"notes": ["a"]}
    progress = context["progress"]
    assert progress["current_steps"] == ["ok"]
    assert progress["execution_path"] == ["draft", "ok", "draft", "ok"]
    assert progress["step_visit_counts"] == {"draft": 2, "ok": 2}
    mission.client.approve(task["task_id"])
    output = mission.output(run_id)
    ended = mission.client.context(run_id)
    assert (ended["status"], ended["result"]["output"]) == ("completed", output)
    assert ended["progress"]["step_visit_counts"] == {"draft": 2, "ok": 2}


def test_s3_09_a_run_is_resumed_under_its_own_id(mission: Mission) -> None:
    run_id = mission.client.enqueue("asks", {})
    mission.reaches(run_id, "waiting_approval")
    assert mission.client.pause(run_id) == "paused"
    assert mission.client.resume(run_id) == "waiting_approval"
    mission.client.approve(mission.task(run_id)["task_id"], "fine")
    assert mission.output(run_id)["comment"] == "fine"
    assert mission.events(run_id).count("run.created") == 1


def test_s3_11_every_pause_and_end_is_told_once_with_its_correlation_id(mission: Mission) -> None:
    correlation = f"c-{secrets.token_hex(6)}"
    enqueue = partial(mission.client.enqueue, correlation_id=correlation)
    soon = mission.value("select pgflow.now() + interval '500 milliseconds'")
    runs = {
        "run.timed_out": enqueue("asks", {}, deadline=soon),
        "run.completed": enqueue("echo", 1),
        "run.failed": enqueue("broken", 1),
        "run.cancelled": enqueue("asks", {}),
    }
    paused = runs["run.cancelled"]
    mission.reaches(paused, "waiting_approval")
    for _ in range(2):
        mission.client.pause(paused)
    for _ in range(2):
        mission.client.cancel(paused)
    for event, run_id in runs.items():
        mission.ends(run_id)
        lines = mission.client.timeline(run_id)
        ends = [
            line["type"]
            for line in lines
            if line["type"].removeprefix("run.")
            in {"completed", "failed", "cancelled", "timed_out"}
        ]
        assert ends == [event]
        assert {line["correlation_id"] for line in lines} == {correlation}
    assert mission.events(paused).count("run.paused") == 1
    failed = mission.client.timeline(runs["run.failed"])[-1]["payload"]
    assert failed["error_code"] == "E-RUN-001"
    assert "cannot do 1" in failed["error_detail"]


def test_s3_12_a_subscription_brings_every_event_of_all_runs_once_whoever_reads(
    mission: Mission,
) -> None:
    correlation = f"c-{secrets.token_hex(6)}"
    name = "s3-billing"
    mission.client.unsubscribe(name)
    mission.rows("select pgflow.subscribe(%s, correlation_id => %s)", name, correlation)
    runs = [mission.client.enqueue("flaky", n % 2, correlation_id=correlation) for n in range(20)]
    got: dict[UUID, list[int]] = defaultdict(list)
    left_at: Delivery | None = None
    ends = 0
    while ends < len(runs):  # a reader leaves amid its batch, and the next goes on
        with closing(
            mission.client.subscribe(name, correlation_id=correlation, max_events=30)
        ) as events:
            if left_at is not None:  # it was not dealt with when the reader left
                again = next(events)
                assert (again.run_id, again.event_no) == (left_at.run_id, left_at.event_no)
            for event in islice(events, 17):
                left_at = event
                got[event.run_id].append(event.event_no)
                ends += event.is_last
                if ends == len(runs):
                    break
    assert set(got) == set(runs)
    for run_id, numbers in got.items():
        assert numbers == list(range(1, len(mission.events(run_id)) + 1))
    assert mission.client.unsubscribe(name)


def test_s3_12_a_subscription_can_want_some_types_of_one_queue_only(mission: Mission) -> None:
    name = "s3-ends"
    mission.client.unsubscribe(name)
    mission.rows("select pgflow.subscribe(%s, array['run.completed'], queue => 'narrow')", name)
    hold = mission.hold()
    hold.let_go()
    mission.output(mission.client.enqueue("echo", 1))
    wanted = mission.client.enqueue("narrow", hold.path)
    with closing(mission.client.subscribe(name, ["run.completed"], queue="narrow")) as events:
        event = next(events)
    assert (event.run_id, event.type, event.queue) == (wanted, "run.completed", "narrow")
    mission.client.unsubscribe(name)


def test_s3_13_a_pending_run_that_is_cancelled_ends_at_once_and_whoever_waits_is_told_why(
    mission: Mission,
) -> None:
    run_id = mission.client.enqueue("by-hand", queue="by-hand-nobody")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(mission.client.result, run_id, timeout=20)
        until(lambda: mission.value("select pgflow.watch(%s)", run_id) == "pending")
        assert mission.client.cancel(run_id, "not needed") == "cancelled"
        result = waiting.result()
    assert (result.state, result.error_detail) == ("cancelled", "Execution cancelled: not needed")


def test_s3_13_a_paused_run_that_is_cancelled_keeps_what_it_learned(mission: Mission) -> None:
    run_id = mission.client.enqueue("asks", {})
    mission.reaches(run_id, "waiting_approval")
    mission.client.pause(run_id)
    assert mission.client.cancel(run_id) == "cancelled"
    assert [entry["key"] for entry in mission.client.journal_entries(run_id)] == ["draft"]
    with pytest.raises(AlreadyFinished):
        mission.client.pause(run_id)


def test_s3_14_what_comes_while_a_run_is_paused_counts_at_its_resume(mission: Mission) -> None:
    decided = mission.client.enqueue("asks", {})
    signalled = mission.client.enqueue("awaits", "payment")
    undecided = mission.client.enqueue("asks", {})
    mission.reaches(signalled, "waiting_event")
    for run_id in (decided, undecided):
        mission.reaches(run_id, "waiting_approval")
    for run_id in (decided, signalled, undecided):
        mission.client.pause(run_id)
    mission.client.approve(mission.task(decided)["task_id"])
    mission.client.signal(signalled, "payment", {"paid": 5})
    for run_id in (decided, signalled):
        assert mission.run(run_id)["state"] == "paused"
        assert mission.client.resume(run_id) == "pending"
    assert mission.client.resume(undecided) == "waiting_approval"
    assert mission.output(decided)["action"] == "approved"
    assert mission.output(signalled) == {"paid": 5}
    mission.client.cancel(undecided)


def test_s3_14_deadlines_run_on_while_a_run_is_paused_unless_they_are_held(
    mission: Mission,
) -> None:
    runs = [mission.client.enqueue("asks", {"due_in": 2.5}) for _ in range(2)]
    due = max(mission.task(run_id)["due_at"] for run_id in runs)
    late, held = runs
    mission.client.pause(late)
    mission.client.pause(held, hold_deadlines=True)
    until(lambda: mission.value("select pgflow.now() > %s", due))
    assert mission.client.resume(late) == "cancelled"
    assert mission.run(late)["error_code"] == "E-RUN-007"
    assert mission.client.resume(held) == "waiting_approval"
    mission.client.approve(mission.task(held)["task_id"])
    assert mission.output(held)["action"] == "approved"


def test_s3_15_a_result_is_looked_for_once_waited_for_or_refused(mission: Mission) -> None:
    run_id = mission.client.enqueue("asks", {})
    mission.reaches(run_id, "waiting_approval")
    for patience in (0, 0.05):
        with pytest.raises(ResultTimeout) as late:
            mission.client.result(run_id, timeout=patience)
        assert late.value.state == "waiting_approval"
    assert mission.run(run_id)["state"] == "waiting_approval"
    mission.client.pause(run_id, "lunch")
    result = mission.client.result(run_id, timeout=0, until="paused")
    assert result.paused is not None
    assert (result.state, result.paused.reason) == ("paused", "lunch")
    with pytest.raises(UnknownRun):
        mission.client.result(UUID(int=0), timeout=0)
    mission.client.cancel(run_id)
    assert mission.client.result(run_id, timeout=0).state in ENDS


def test_s3_17_a_queue_tells_what_it_has_in_which_state(
    elsewhere: Callable[[str], Mission],
) -> None:
    mission = elsewhere("stats")
    mission.client.define_queue("desk", max_concurrent=3)
    hand = Hand(mission, "desk")
    later = mission.value("select pgflow.now() + interval '1 hour'")
    runs = mission.client.enqueue_many("by-hand", [{}] * 4, queue="desk")
    runs.append(mission.client.enqueue("by-hand", queue="desk", run_at=later))
    leases = hand.take(9)
    assert len(leases) == 3
    hand.park(leases[0])
    mission.client.pause(leases[1]["run_id"])
    hand.say("release", leases[1])
    (stats,) = [s for s in mission.client.queue_stats() if s["queue"] == "desk"]
    told = {name: stats[name] for name in ("running", "waiting", "paused", "pending", "scheduled")}
    assert told == {"running": 1, "waiting": 1, "paused": 1, "pending": 1, "scheduled": 1}
    assert stats["available_slots"] >= 0
    for run_id in runs:
        mission.client.cancel(run_id)
    hand.leave()


def test_s3_18_an_answer_finds_the_wait_by_run_and_step(mission: Mission) -> None:
    run_id = mission.client.enqueue("fills_in")
    mission.reaches(run_id, "waiting_approval")
    assert mission.client.inject_input(run_id, "moons", 3) is False
    with pytest.raises(BadRequest):
        mission.client.inject_input(run_id, "stars", 9)
    assert mission.client.inject_input(run_id, "stars", 5) is True
    assert mission.output(run_id) == 5
    assert mission.client.inject_input(run_id, "stars", 5) is False


def test_s3_19_higher_priorities_go_first_and_keys_are_not_inherited(mission: Mission) -> None:
    hand = Hand(mission, "by-hand-priority")
    enqueue = partial(mission.client.enqueue, "by-hand", queue="by-hand-priority")
    runs = {n: enqueue(priority=n) for n in (0, -9, 9, 1)}
    order = [lease["run_id"] for _ in runs for lease in hand.take()]
    assert order == [runs[n] for n in (9, 1, 0, -9)]
    for wrong in (-10, 10):
        with pytest.raises(BadRequest):
            enqueue(priority=wrong)
    hand.leave()
    for run_id in runs.values():
        mission.client.cancel(run_id)
    key = secrets.token_hex(6)
    first = mission.client.enqueue("asks", {}, idempotency_key=key)
    assert mission.client.enqueue("asks", {}, idempotency_key=key) == first
    mission.reaches(first, "waiting_approval")
    fork = mission.client.fork(first, "draft")
    mission.client.cancel(first)
    again = mission.client.retry(first)
    assert mission.run(first)["idempotency_key"] == key
    for other in (fork, again):
        assert mission.run(other)["idempotency_key"] is None
        mission.client.cancel(other)
