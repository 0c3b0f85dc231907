"""S4, runs over checkpoints that can be interrupted; README.md has what is missing."""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from pgflow import Refusal
from pgflow.errors import (
    AlreadyFinished,
    BadRequest,
    IdempotencyConflict,
    NotWaiting,
    UnknownEntry,
)
from tests.mission.conftest import until

if TYPE_CHECKING:
    from tests.mission.conftest import Mission


CHAIN = (
    {"name": "one", "handler": "told", "config": {"value": 1}},
    {"name": "two", "handler": "told", "config": {"value": 2}, "needs": ["one"]},
    {"name": "three", "handler": "told", "config": {"value": 3}, "needs": ["two"]},
)


def new_id() -> UUID:
    """Return a UUID of version 7, as programs make them beforehand."""
    milliseconds = time.time_ns() // 1_000_000
    tail = 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return UUID(int=milliseconds << 80 | tail)


def stands_at(mission: Mission, run_id: UUID) -> tuple[str, str]:
    """Wait until a run is paused and in the inbox; return why, and where."""
    task = mission.task(run_id)
    run = mission.reaches(run_id, "paused")
    return run["pause_reason"], task["step"]


def stopped(mission: Mission, handler: str, given: Any, *breakpoints: tuple[str, Any]) -> UUID:
    """Enqueue a run, set its breakpoints while it waits, and let it go."""
    run_id = mission.client.enqueue(handler, given)
    mission.reaches(run_id, "waiting_event")
    for step, moment in breakpoints:
        mission.client.set_breakpoint(run_id, step, moment)
    mission.client.signal(run_id, "go")
    return run_id


def test_s4_01_an_interrupt_pauses_the_run_and_shows_its_payload(mission: Mission) -> None:
    run_id = mission.client.enqueue("interrupted")
    assert stands_at(mission, run_id) == ("interrupt", "interrupt")
    task = mission.task(run_id)
    assert (task["kind"], task["payload"]) == ("interrupt", {"n": 1})
    assert mission.run(run_id)["worker_id"] is None
    mission.client.cancel(run_id)


def test_s4_01_breakpoints_and_operators_pause_a_run_and_say_so(mission: Mission) -> None:
    run_id = stopped(mission, "stepwise", ["a", "b"], ("a", "after"), ("b", "before"))
    seen = []
    for _ in range(2):
        seen.append(stands_at(mission, run_id))
        mission.client.resume(run_id)
    assert seen == [("after", "breakpoint/after/a"), ("before", "breakpoint/before/b")]
    assert mission.output(run_id) == ["A", "B"]
    waiting = mission.client.enqueue("awaits", "never")
    mission.reaches(waiting, "waiting_event")
    mission.client.pause(waiting)
    assert mission.run(waiting)["pause_reason"] == "operator"
    mission.client.cancel(waiting)


def test_s4_01_s4_08_a_flow_stands_at_its_breakpoints_and_again_when_it_comes_by_again(
    mission: Mission,
) -> None:
    stops = {"before": ["two"], "after": ["one"]}
    run_id = mission.start("s4-stops", *CHAIN, breakpoints=stops)
    for reason, step, payload in [("after", "one", 1), ("before", "two", {"one": 1})] * 2:
        run = mission.reaches(run_id, "paused")
        assert (run["pause_reason"], run["super_step"] is not None) == (reason, True)
        assert run["stands_at"]["step"] == step
        task = mission.task(run_id)
        assert (task["kind"], task["payload"], task["flow"]) == ("breakpoint", payload, "s4-stops")
        if mission.events(run_id).count("breakpoint.hit") == 2:
            mission.client.resume(run_id, {"goto": "one"})
        else:
            mission.client.resume(run_id)
    assert mission.output(run_id) == {"three": 3}
    assert mission.events(run_id).count("breakpoint.hit") == 4


def test_s4_06_goto_skips_what_it_passes_over_and_does_again_what_comes_after(
    mission: Mission,
) -> None:
    run_id = mission.start("s4-goto", *CHAIN, breakpoints={"before": ["two"]})
    mission.reaches(run_id, "paused")
    with pytest.raises(UnknownEntry, match="nowhere"):
        mission.client.resume(run_id, {"goto": "nowhere"})
    mission.pgflow("resume", run_id, "--goto", "three")
    assert mission.output(run_id) == {"three": 3}
    assert mission.steps(run_id) == {"one": "completed", "two": "skipped", "three": "completed"}
    with pytest.raises(AlreadyFinished):
        mission.client.resume(run_id, {"goto": "one"})


def writer(name: str, *needs: str, **config: Any) -> dict[str, Any]:
    """Return a step that writes to channels."""
    return {"name": name, "handler": "writes", "needs": list(needs), "config": config}


def test_s4_02_every_super_step_leaves_a_checkpoint_and_none_is_overwritten(
    mission: Mission,
) -> None:
    run_id = mission.start(
        "s4-history",
        writer("one", writes=[["notes", "a"]]),
        writer("two", "one", writes=[["notes", "b"]]),
        {"name": "ok", "type": "approval_gate", "needs": ["two"]},
        channels={"notes": {"reducer": "append"}},
    )
    first = mission.task(run_id, "ok")
    before = mission.client.history(run_id)
    mission.client.reject(first["task_id"], "again", rollback_to="two")
    mission.client.approve(mission.task(run_id, "ok")["task_id"])
    mission.output(run_id)
    history = mission.client.history(run_id)
    assert history[: len(before)] == before
    assert [line["number"] for line in history] == list(range(1, len(history) + 1))
    told = [(line["label"], line["values"]["notes"]) for line in history]
    assert told == [
        ("steps", ["a"]),
        ("steps", ["a", "b"]),
        ("rollback:two", ["a"]),
        ("steps", ["a", "b"]),
        ("steps", ["a", "b"]),
    ]
    fork = mission.client.fork(run_id, super_step=1, updates={"notes": ["z"]})
    mission.client.approve(mission.task(fork, "ok")["task_id"])
    assert mission.output(fork) == {"notes": ["z", "b"]}


def test_s4_02_every_pause_is_a_checkpoint_with_what_is_shown(mission: Mission) -> None:
    run_id = mission.start(
        "s4-pauses",
        writer("one", writes=[["notes", "a"]]),
        {"name": "two", "handler": "interrupted", "needs": ["one"]},
        writer("three", "two", writes=[["notes", "b"]]),
        channels={"notes": {"reducer": "append"}},
        breakpoints={"after": ["one"], "before": ["three"]},
    )
    mission.reaches(run_id, "paused")
    mission.client.resume(run_id)
    two = until(lambda: mission.step(run_id, "two")["run_id"])
    for n in (1, 2):
        payload = {"n": n}
        stands = "select exists (select from pgflow.inbox where run_id = %s and payload = %s)"
        until(partial(mission.value, stands, two, payload))
        mission.client.resume(two, {"resume": n})
    mission.reaches(run_id, "paused")
    mission.client.resume(run_id, {"goto": "one"})
    mission.reaches(run_id, "paused")
    mission.client.cancel(run_id)
    history = mission.client.history(run_id)
    assert [(h["label"], h["payload"], h["values"]["notes"]) for h in history] == [
        ("after:one", {}, None),
        ("steps", None, ["a"]),
        ("interrupt:two", {"n": 1}, ["a"]),
        ("interrupt:two", {"n": 2}, ["a"]),
        ("steps", None, ["a"]),
        ("before:three", {"two": [1, 2]}, ["a"]),
        ("goto:one", None, None),
        ("after:one", {}, None),
    ]
    assert [h["number"] for h in history] == list(range(1, len(history) + 1))
    assert mission.events(run_id).count("checkpoint.saved") == len(history)


@pytest.mark.parametrize("layered", [False, True])
def test_s4_03_a_layer_is_a_barrier_and_without_layers_a_step_waits_for_its_needs_only(
    mission: Mission, *, layered: bool
) -> None:
    hold = mission.hold()
    run_id = mission.start(
        f"s4-layers-{layered}",
        writer("quick", writes=[["notes", "quick"]]),
        {"name": "slow", "handler": "held", "config": {"where": hold.path}},
        writer("next", "quick", reads=["notes"]),
        channels={"notes": {"reducer": "append"}},
        layered=layered,
        output={"seen": "next"},
    )
    hold.begun()
    if layered:
        until(lambda: mission.run(mission.step(run_id, "quick")["run_id"])["finished_at"])
        assert mission.steps(run_id)["next"] == "pending"
    else:
        until(lambda: mission.steps(run_id)["next"] == "completed")
    hold.let_go()
    assert mission.output(run_id) == {"seen": {"notes": ["quick"]}}
    labels = [line["label"] for line in mission.client.history(run_id)]
    assert labels == (["layer:1", "layer:2"] if layered else ["steps"] * 3)


def test_s4_04_reducers_make_values_of_what_is_written_and_a_failed_execution_writes_nothing(
    mission: Mission,
) -> None:
    given: dict[str, list[Any]] = {
        "last_write_wins": [1, 2],
        "append": ["a", ["b", "a"]],
        "union": ["a", ["b", "a"]],
        "merge_map": [{"x": 1, "y": 1}, {"y": 2}],
        "add": [1, 2.5],
        "min": [3, 1],
        "max": [3, 1],
    }
    run_id = mission.start(
        "s4-reducers",
        writer("write", writes=[[n, v] for n, vs in given.items() for v in vs], failures=1),
        writer("read", "write", reads=[*given, "unset", "default"]),
        channels={
            **{name: {"reducer": name} for name in given},
            "unset": {"reducer": "last"},
            "default": {"reducer": "add", "default": 7},
        },
        output={"state": "read"},
    )
    assert mission.output(run_id)["state"] == {
        "last_write_wins": 2,
        "append": ["a", "b", "a"],
        "union": ["a", "b"],
        "merge_map": {"x": 1, "y": 2},
        "add": 3.5,
        "min": 1,
        "max": 3,
        "unset": None,
        "default": 7,
    }


def test_s4_04_a_channel_that_the_flow_does_not_have_is_refused_by_its_name(
    mission: Mission,
) -> None:
    channels = {"notes": {"reducer": "append"}}
    step = writer("write", writes=[["nodes", 1]])
    run = mission.ends(mission.start("s4-unknown-channel", step, channels=channels))
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-018")
    assert "nodes" in run["error_detail"]


def test_s4_05_s4_10_an_update_replaces_values_of_a_flow_and_those_are_what_it_returns(
    mission: Mission,
) -> None:
    run_id = mission.start(
        "s4-update",
        writer("one", writes=[["sum", 1]]),
        {"name": "ok", "type": "approval_gate", "needs": ["one"]},
        writer("two", "ok", writes=[["sum", 2]]),
        channels={"sum": {"reducer": "add"}},
    )
    task = mission.task(run_id, "ok")
    mission.client.pause(run_id)
    with pytest.raises(Refusal, match="total"):
        mission.client.resume(run_id, {"update": {"total": 1}})
    mission.client.resume(run_id, {"update": {"sum": 40}})
    mission.client.approve(task["task_id"])
    assert mission.output(run_id) == {"sum": 42}
    assert "update" in [line["label"] for line in mission.client.history(run_id)]


def test_s4_05_an_update_replaces_what_a_paused_run_knows_and_it_goes_on(
    mission: Mission,
) -> None:
    run_id = stopped(mission, "stepwise", ["a", "b"], ("b", "before"))
    stands_at(mission, run_id)
    with pytest.raises(UnknownEntry, match="nothing"):
        mission.client.resume(run_id, {"update": {"nothing": 1}})
    mission.client.resume(run_id, {"update": {"a": "changed"}})
    assert mission.output(run_id) == ["changed", "B"]
    assert mission.events(run_id).count("step.updated") == 1


def test_s4_05_an_update_may_change_what_the_interrupt_is_about(mission: Mission) -> None:
    run_id = mission.client.enqueue("interrupted_about")
    assert stands_at(mission, run_id)[0] == "interrupt"
    mission.client.resume(run_id, {"update": {"draft": "changed"}})
    assert mission.output(run_id) == ["changed", None]


def test_s4_07_each_interrupt_gets_its_own_value_once(mission: Mission) -> None:
    run_id = mission.client.enqueue("interrupted")
    stands_at(mission, run_id)
    mission.pgflow("resume", run_id, "--value", '{"speed": "slow"}')
    mission.reaches(run_id, "paused")
    assert mission.task(run_id)["payload"] == {"n": 2}
    mission.client.resume(run_id)  # continue: null
    assert mission.output(run_id) == [{"speed": "slow"}, None]


def test_s4_07_of_several_interrupts_a_value_has_to_name_its_own(mission: Mission) -> None:
    run_id = mission.client.enqueue("interrupted_at_once")
    stands_at(mission, run_id)
    with pytest.raises(BadRequest) as refused:
        mission.client.resume(run_id, {"resume": 1})
    assert refused.value.field == "command.key"
    assert "a, b" in str(refused.value)
    assert mission.client.resume(run_id, {"resume": 2, "key": "b"}) == "paused"
    mission.client.resume(run_id, {"resume": 1})
    assert mission.output(run_id) == [1, 2]


def test_s4_08_a_resume_passes_the_breakpoint_that_paused_the_run_and_no_other(
    mission: Mission,
) -> None:
    both = (("left", "before"), ("right", "before"))
    moments = [(f"gather#1/{n}/{step}", moment) for n, (step, moment) in enumerate(both)]
    run_id = stopped(mission, "together", None, *moments)
    for _ in moments:
        assert stands_at(mission, run_id)[0] == "before"
        mission.client.resume(run_id)
    assert mission.output(run_id) == ["LEFT", "RIGHT"]
    assert mission.events(run_id).count("breakpoint.hit") == 2


def test_s4_09_a_run_id_starts_one_run_and_a_run_never_paused_takes_no_value(
    mission: Mission,
) -> None:
    gate = {"name": "ok", "type": "approval_gate"}
    mission.client.define_flow({"name": "s4-ids", "steps": [gate]})
    run_id = mission.value("select pgflow.start('s4-ids', '{\"n\": 1}')")
    other = mission.client.enqueue("asks", {})
    given = new_id()
    first = mission.client.start("s4-ids", {"n": 1}, run_id=given)
    before = mission.run(first)
    assert mission.client.start("s4-ids", {"n": 1}, run_id=given) == first == given
    assert mission.run(first) == before
    with pytest.raises(IdempotencyConflict):
        mission.client.start("s4-ids", {"n": 2}, run_id=given)
    with pytest.raises(NotWaiting):
        mission.client.resume(first, {"resume": 1})
    for each in (run_id, other, first):
        mission.client.cancel(each)


def test_s4_10_a_flow_returns_what_its_output_names_else_what_no_other_step_needs(
    mission: Mission,
) -> None:
    steps = [
        {"name": "one", "handler": "told", "config": {"value": 1}},
        {"name": "two", "handler": "told", "config": {"value": 2}, "needs": ["one"]},
        {"name": "three", "handler": "told", "config": {"value": 3}, "needs": ["one"]},
    ]
    leaves = mission.start("s4-leaves", *steps)
    named = mission.start("s4-named", *steps, output={"first": "one"})
    assert mission.output(leaves) == {"two": 2, "three": 3}
    assert mission.output(named) == {"first": 1}
