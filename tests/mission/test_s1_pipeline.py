"""S1, pipelines with human steps; README.md has what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from examples.editorial.processes import Person
from pgflow import Client
from pgflow.errors import AlreadyFinished, BadRequest, StillInUse, UnknownEntry, UnknownRun
from tests.mission.conftest import until

if TYPE_CHECKING:
    from tests.mission.conftest import Mission

DRAFT = (
    {"name": "collect", "handler": "echo"},
    {"name": "draft", "handler": "drafts", "needs": ["collect"]},
    {"name": "editor", "type": "approval_gate", "needs": ["draft"]},
)
INBOX = (
    *("task_id", "project", "run_id", "flow_run_id", "flow", "flow_version", "step", "round"),
    *("kind", "title", "payload", "form_schema", "assignee_role", "assignee", "requested_by"),
    *("created_at", "due_at", "policy", "state", "claimed_by"),
)


def gate(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    """Return a gate that somebody approves."""
    return {"name": name, "type": "approval_gate", "needs": list(needs), **more}


def test_s1_01_each_step_shows_its_state_and_a_rejected_one_is_shown_as_such(
    mission: Mission,
) -> None:
    hold = mission.hold()
    goes_on = {"on_failure": "continue"}
    run_id = mission.start(
        "s1-states",
        {"name": "done", "handler": "told", "config": {"value": 1}},
        {"name": "bad", "handler": "broken", **goes_on},
        {"name": "after_bad", "handler": "echo", "needs": ["bad"]},
        {"name": "busy", "handler": "held", "config": {"where": hold.path}},
        {"name": "gone", "type": "wait_event", **goes_on},
        {"name": "later", "handler": "echo", "needs": ["open"]},
        gate("no", **goes_on),
        gate("late", config={"due_in": 0.05}, **goes_on),
        gate("open"),
    )
    hold.begun()
    mission.client.reject(mission.task(run_id, "no")["task_id"], "no")
    mission.client.cancel(mission.step(run_id, "gone")["run_id"])
    expected = {
        "done": "completed",
        "bad": "failed",
        "after_bad": "skipped",
        "busy": "running",
        "gone": "cancelled",
        "later": "pending",
        "no": "rejected",
        "late": "expired",
        "open": "waiting",
    }
    until(lambda: mission.steps(run_id) == expected)
    mission.client.cancel(run_id)
    ended = {"busy": "cancelled", "later": "cancelled", "open": "cancelled"}
    assert mission.steps(run_id) == expected | ended
    hold.let_go()


def test_s1_01_a_skipped_step_says_why(mission: Mission) -> None:
    run_id = mission.start(
        "s1-skipped",
        {"name": "score", "handler": "writes", "config": {"writes": [["score", 0.2]]}},
        {"name": "praise", "handler": "echo", "needs": ["score"], "when": "$.score > 0.5"},
        {"name": "frame", "handler": "echo", "needs": ["praise"]},
        channels={"score": {"reducer": "last"}},
    )
    mission.output(run_id)
    praise, frame = (mission.step(run_id, name) for name in ("praise", "frame"))
    assert (praise["state"], praise["run_id"]) == ("skipped", None)
    assert praise["error_detail"].endswith("is not true")
    assert (frame["state"], frame["run_id"]) == ("skipped", None)
    assert frame["error_detail"] == "join all: praise is skipped"


def test_s1_02_the_output_of_a_persons_step_is_the_decision_and_reaches_what_needs_it(
    mission: Mission,
) -> None:
    form = {"type": "object", "properties": {"stars": {"type": "integer"}}}
    run_id = mission.start(
        "s1-decisions",
        gate("ok"),
        {"name": "rate", "type": "human_task", "config": {"form": form}},
        {"name": "both", "handler": "echo", "needs": ["ok", "rate"]},
    )
    mission.reaches(run_id, "waiting_approval")
    assert mission.steps(run_id) == {"ok": "waiting", "rate": "waiting", "both": "pending"}
    ok, rate = mission.task(run_id, "ok"), mission.task(run_id, "rate")
    assert mission.run(ok["run_id"])["state"] == "waiting_approval"
    person = Person(mission.dsn)  # psql, where there is one
    approve = f"select action from pgflow.approve('{ok['task_id']}', 'fine', '{{\"copies\": 2}}');"
    assert person.send(approve) == "approved"
    person.leave()
    mission.pgflow("task", "answer", rate["task_id"], "--set", "stars=5")
    output = mission.output(run_id)["both"]
    assert output["ok"]["approved"] is True
    assert (output["ok"]["comment"], output["ok"]["data"]) == ("fine", {"copies": 2})
    assert {"decided_by", "decided_at"} <= output["ok"].keys()
    assert output["rate"]["data"] == {"stars": 5}


def test_s1_03_a_step_knows_its_flow_and_a_handler_may_do_without(mission: Mission) -> None:
    config = {"tone": "dry"}
    run_id = mission.start(
        "s1-context",
        {"name": "nothing", "handler": "knows_nothing"},
        {"name": "know", "handler": "knows", "needs": ["nothing"], "config": config},
        given={"article": 7},
        budget={"usd": 2.5},
    )
    known = mission.output(run_id)["know"]
    child = mission.step(run_id, "know")["run_id"]
    expected = {
        "project": "default",
        "run_id": str(child),
        "flow_run_id": str(run_id),
        "flow": "s1-context",
        "flow_version": 1,
        "step": "know",
        "step_config": config,
        "version": 0,
        "attempt": 0,
        "lease_no": 1,
        "inputs": {"nothing": "nothing"},
        "flow_input": {"article": 7},
        "correlation_id": str(run_id),
        "tags": [],
        "deadline": None,
        "feedback": None,
        "budget": 2.5,
        "thread_id": str(child),
    }
    assert known == expected


def test_s1_04_empty_outputs_are_inputs_and_those_of_skipped_steps_are_absent(
    mission: Mission,
) -> None:
    outputs = {"object": {}, "zero": 0, "no": False, "null": None, "text": ""}
    told = [{"name": n, "handler": "told", "config": {"value": v}} for n, v in outputs.items()]
    run_id = mission.start(
        "s1-inputs",
        *told,
        {"name": "never", "handler": "echo", "needs": ["zero"], "join": "one_failed"},
        {
            "name": "last",
            "handler": "knows",
            "needs": [*outputs, "never"],
            "join": "none_failed",
        },
        given={"article": 7},
    )
    last = mission.output(run_id)["last"]
    assert last["inputs"] == outputs
    assert last["flow_input"] == {"article": 7}
    assert mission.steps(run_id)["never"] == "skipped"


def test_s1_05_s1_06_after_a_rollback_the_steps_before_go_on_serving_and_all_inputs_are_kept(
    mission: Mission,
) -> None:
    run_id = mission.start("s1-rollback", *DRAFT, given={"article": 7})
    first = mission.task(run_id, "editor")
    assert first["payload"] == {
        "draft": {"version": 0, "wish": None, "inputs": {"collect": {"article": 7}}}
    }
    with pytest.raises(UnknownEntry) as refused:
        mission.client.reject(first["task_id"], "no", rollback_to="editor")
    assert "collect, draft" in refused.value.detail
    collected = mission.step(run_id, "collect")
    mission.client.reject(first["task_id"], "shorter", rollback_to="draft")
    again = mission.task(run_id, "editor")
    assert again["task_id"] != first["task_id"]
    assert again["payload"] == {
        "draft": {"version": 1, "wish": "shorter", "inputs": {"collect": {"article": 7}}}
    }
    assert mission.step(run_id, "collect") == collected
    lines = [(r["step"], r["version"], r["state"]) for r in mission.client.flow_steps(run_id)]
    assert lines == [
        ("collect", 0, "completed"),
        ("draft", 0, "voided"),
        ("draft", 1, "completed"),
        ("editor", 0, "rejected"),
        ("editor", 1, "waiting"),
    ]
    old = mission.client.flow_steps(run_id)[1]
    assert old["output"]["version"] == 0
    for line in mission.client.flow_steps(run_id)[:3]:
        given = {"article": 7} if line["step"] == "collect" else {"collect": {"article": 7}}
        assert mission.run(line["run_id"])["input"] == given
    mission.client.approve(again["task_id"])
    assert mission.output(run_id)["editor"]["approved"] is True


def test_s1_06_the_input_of_a_failed_step_can_be_read(mission: Mission) -> None:
    run_id = mission.start(
        "s1-failed-input",
        {"name": "collect", "handler": "told", "config": {"value": [1]}},
        {"name": "bad", "handler": "broken", "needs": ["collect"]},
    )
    assert mission.ends(run_id)["error_code"] == "E-RUN-001"
    assert mission.run(mission.step(run_id, "bad")["run_id"])["input"] == {"collect": [1]}


def test_s1_07_a_gate_asks_as_its_config_says_and_has_no_deadline_unless_one_is_given(
    mission: Mission,
) -> None:
    config = {"assignee_role": "editors", "title": "Publish it?", "due_in": 60, "policy": "timeout"}
    run_id = mission.start("s1-config", gate("plain"), gate("strict", config=config))
    plain, strict = mission.task(run_id, "plain"), mission.task(run_id, "strict")
    assert plain["due_at"] is None
    assert (strict["due_at"] - strict["created_at"]).total_seconds() == 60
    assert (strict["assignee_role"], strict["title"]) == ("editors", "Publish it?")
    assert strict["policy"] == "timeout"
    with pytest.raises(BadRequest) as refused:
        mission.start("s1-config-0", gate("now", config={"due_in": 0}))
    assert "step now" in str(refused.value)
    mission.client.cancel(run_id)


def test_s1_07_s1_09_a_step_type_says_what_is_asked_unless_the_steps_config_does(
    mission: Mission,
) -> None:
    mission.client.register_step_type(
        "legal", interactive=True, default_config={"assignee_role": "lawyers", "title": "Fine?"}
    )
    steps: list[dict[str, Any]] = [
        {"name": "plain", "type": "legal"},
        {"name": "other", "type": "legal", "config": {"assignee_role": "clerks"}},
    ]
    run_id = mission.start("s1-types", *steps)
    asked = {name: mission.task(run_id, name) for name in ("plain", "other")}
    assert {task["title"] for task in asked.values()} == {"Fine?"}
    assert asked["plain"]["assignee_role"] == "lawyers"
    assert asked["other"]["assignee_role"] == "clerks"
    with pytest.raises(StillInUse, match="legal"):
        mission.client.unregister_step_type("legal")
    with pytest.raises(BadRequest, match="timeout_hours must be hours, more than 0"):
        mission.start("s1-types", {**steps[0], "config": {"timeout_hours": 0}})
    mission.client.cancel(run_id)
    mission.start("s1-types", {"name": "none", "type": "timer", "config": {"seconds": 0.01}})
    assert mission.client.unregister_step_type("legal") is True


def test_s1_08_the_inbox_shows_what_is_asked_of_whom_and_the_history_what_was_decided(
    mission: Mission,
) -> None:
    config = {"assignee_role": "editors", "assignee": "ann"}
    run_id = mission.start("s1-inbox", gate("ok", config=config), given={"article": 7})
    task = mission.task(run_id)
    assert set(INBOX) <= task.keys()
    assert (task["flow"], task["flow_run_id"], task["step"]) == ("s1-inbox", run_id, "ok")
    assert (task["kind"], task["state"], task["payload"]) == ("approval", "open", {"article": 7})
    filters: list[dict[str, Any]] = [
        {"role": "editors"},
        {"assignee": "ann"},
        {"run_id": task["run_id"]},
    ]
    for wanted in filters:
        found = mission.client.inbox(limit=1000, **wanted)
        assert task["task_id"] in {row["task_id"] for row in found}
    assert mission.client.inbox(role="chiefs") == []
    mission.client.approve(task["task_id"], "fine")
    assert mission.client.inbox(run_id=task["run_id"]) == []
    (decided,) = mission.client.task_history(run_id=task["run_id"])
    assert (decided["state"], decided["comment"]) == ("approved", "fine")


@pytest.mark.parametrize(
    ("role", "functions", "views"),
    [
        (
            "pgflow_client",
            ("define_flow", "add_step", "set_breakpoint", "clear_breakpoint", "fork"),
            (),
        ),
        ("pgflow_admin", ("define_reducer",), ()),
        ("pgflow_reader", ("history",), ("flows", "flow_steps", "inbox", "task_history")),
    ],
)
def test_s1_09_those_who_have_a_role_can_call_its_functions_and_read_its_views(
    mission: Mission, role: str, functions: tuple[str, ...], views: tuple[str, ...]
) -> None:
    callable_ = (
        "select bool_and(has_function_privilege(%s, p.oid, 'execute')) from pg_proc p"
        " where p.pronamespace = 'pgflow'::regnamespace and p.proname = %s"
    )
    for name in functions:
        assert mission.value(callable_, role, name) is True
    for name in views:
        readable = "select has_table_privilege(%s, %s, 'select')"
        assert mission.value(readable, role, f"pgflow.{name}") is True


def test_s1_09_a_step_that_is_added_to_a_run_is_done_before_the_steps_that_need_it(
    mission: Mission,
) -> None:
    steps: list[dict[str, Any]] = [
        {"name": "plan", "handler": "planning", "config": {"parts": [1, 2, 3]}},
        {"name": "end", "handler": "echo", "needs": ["plan"]},
    ]
    run_id = mission.start("s1-added", *steps, gate("ok"))
    legal = {"name": "legal", "handler": "told", "needs": ["ok"], "config": {"value": "fine"}}
    assert mission.client.add_step(run_id, legal, needed_by=["end"]) is True
    assert mission.client.add_step(run_id, legal, needed_by=["end"]) is False
    with pytest.raises(BadRequest, match="step x: waits for itself: "):
        mission.client.add_step(run_id, {"name": "x", "needs": ["end"]}, needed_by=["legal"])
    mission.client.approve(mission.task(run_id, "ok")["task_id"])
    parts = {f"part-{n}": n for n in (1, 2, 3)}
    assert mission.output(run_id) == {"end": {"plan": 3, "legal": "fine", **parts}}
    assert mission.events(run_id).count("step.added") == 4
    with pytest.raises(AlreadyFinished):
        mission.client.add_step(run_id, {"name": "late"})


def test_s1_10_a_flow_that_fails_ends_its_steps_and_closes_their_tasks(mission: Mission) -> None:
    hold = mission.hold()
    run_id = mission.start(
        "s1-fails",
        {"name": "busy", "handler": "held", "config": {"where": hold.path}},
        {"name": "bad", "handler": "broken", "needs": ["go"]},
        {"name": "go", "type": "wait_event"},
        gate("ok"),
    )
    hold.begun()
    task = mission.task(run_id, "ok")
    mission.client.signal(run_id, "go")
    run = mission.ends(run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-001")
    assert "step bad" in run["error_detail"]
    for name in ("busy", "ok"):
        child = mission.run(mission.step(run_id, name)["run_id"])
        assert (child["state"], child["error_code"]) == ("cancelled", "E-RUN-011")
    live = "select count(*) from pgflow.runs where root_run_id = %s and finished_at is null"
    assert mission.value(live, run_id) == 0
    assert mission.client.inbox(task_id=task["task_id"]) == []
    hold.let_go()


def test_s1_10_a_branch_that_waits_does_not_stop_the_others(mission: Mission) -> None:
    run_id = mission.start(
        "s1-branches",
        gate("ok"),
        {"name": "one", "handler": "told", "config": {"value": 1}},
        {"name": "two", "handler": "echo", "needs": ["one"]},
        {"name": "all", "handler": "echo", "needs": ["ok", "two"]},
    )
    until(lambda: mission.steps(run_id)["two"] == "completed")
    mission.reaches(run_id, "waiting_approval")
    mission.client.approve(mission.task(run_id)["task_id"])
    assert mission.output(run_id)["all"]["two"] == {"one": 1}


def test_s1_11_a_paused_flow_begins_nothing_and_keeps_what_ends_meanwhile(
    mission: Mission,
) -> None:
    hold = mission.hold()
    run_id = mission.start(
        "s1-pause",
        {"name": "busy", "handler": "held", "config": {"where": hold.path}},
        gate("ok"),
        {"name": "next", "handler": "echo", "needs": ["busy", "ok"]},
    )
    hold.begun()
    assert mission.client.pause(run_id) == "paused"
    hold.let_go()
    mission.client.approve(mission.task(run_id, "ok")["task_id"], "fine")
    until(lambda: mission.steps(run_id)["busy"] == "completed")
    assert mission.steps(run_id) == {"busy": "completed", "ok": "completed", "next": "pending"}
    assert mission.run(run_id)["state"] == "paused"
    mission.client.resume(run_id)
    assert mission.output(run_id)["next"]["ok"]["comment"] == "fine"


def test_s1_11_a_plain_run_that_is_paused_gives_its_worker_back_and_uses_no_attempt(
    mission: Mission,
) -> None:
    hold = mission.hold()
    run_id = mission.client.enqueue("held", hold.path)
    hold.begun()
    assert mission.client.pause(run_id) == "paused"
    run = mission.run(run_id)
    assert (run["worker_id"], run["attempt_count"]) == (None, 0)
    hold.let_go()
    mission.client.resume(run_id)
    assert mission.output(run_id) == 2  # the second lease


def test_s1_12_start_and_resume_can_be_said_twice_and_a_finished_run_is_not_resumed(
    mission: Mission,
) -> None:
    run_id = mission.start("s1-twice", gate("ok"))
    once = mission.value("select pgflow.start('s1-twice', idempotency_key => %s)", str(run_id))
    same = "select pgflow.start('s1-twice', idempotency_key => %s)"
    assert mission.value(same, str(run_id)) == once
    for each in (run_id, once):
        assert mission.client.resume(each) == "waiting_approval"
        mission.client.approve(mission.task(each)["task_id"])
        mission.output(each)
    assert mission.value(same, str(run_id)) == once
    with pytest.raises(AlreadyFinished) as refused:
        mission.client.resume(run_id)
    assert "retry" in refused.value.hint


def test_s1_13_cancel_returns_the_state_and_of_a_finished_run_is_a_no_op(
    mission: Mission,
) -> None:
    completed = mission.client.enqueue("echo", 1)
    mission.output(completed)
    before = mission.run(completed)
    assert mission.client.cancel(completed) == "completed"
    assert mission.run(completed) == before
    live = mission.client.enqueue("asks", {})
    assert mission.client.cancel(live) == "cancelled"
    assert mission.pgflow("cancel", live) == "cancelled"
    assert mission.events(live).count("run.cancelled") == 1


@pytest.mark.parametrize("how", ["exits", "recurses", "times out", "no json", "nul"])
def test_s1_13_s2_23_however_a_handler_ends_its_run_is_not_left_running(
    mission: Mission, how: str
) -> None:
    run = mission.ends(mission.client.enqueue("ill", how))
    assert run["state"] == "failed"
    assert run["error_code"].startswith("E-RUN-")
    assert run["worker_id"] is None


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ([], "definition.steps"),
        ([{"name": "a", "config": [1]}], "definition.steps[0].config"),
    ],
)
def test_s1_14_a_flow_without_steps_and_a_config_that_is_no_object_are_refused(
    mission: Mission, steps: list[Any], field: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        mission.client.define_flow({"name": "s1-refused", "steps": steps})
    assert refused.value.field == field
    assert mission.client.flows(flow="s1-refused") == []


def test_s1_14_a_step_without_a_handler_fails_with_its_name_and_type(mission: Mission) -> None:
    mission.client.register_step_type("odd", handler="nobodys")
    run_id = mission.start("s1-nobody", {"name": "lonely", "type": "odd"})
    run = mission.ends(run_id)
    assert run["error_code"] == "E-RUN-004"
    assert "nobodys" in run["error_detail"]
    assert "step lonely of type odd" in run["error_detail"]


def test_s1_15_a_run_of_another_project_is_as_unknown_as_one_that_never_was(
    mission: Mission, elsewhere: Callable[[str], Mission]
) -> None:
    foreign = elsewhere("tenant").client.enqueue("by-hand")
    client = mission.client
    calls: list[Callable[[UUID], object]] = [
        client.cancel,
        client.pause,
        client.resume,
        client.retry,
        lambda run_id: client.emit(run_id, "note"),
        lambda run_id: client.signal(run_id, "go"),
        lambda run_id: client.resolve_tool(run_id, "transcode"),
        lambda run_id: client.fork(run_id, "draft"),
        lambda run_id: client.set_breakpoint(run_id, "draft"),
        lambda run_id: client.result(run_id, timeout=0),
    ]
    never = UUID(str(foreign)[:-4] + "0000")
    for call in calls:
        said = set()
        for run_id in (foreign, never):
            with pytest.raises(UnknownRun) as refused:
                call(run_id)
            said.add((str(refused.value).replace(str(run_id), ""), refused.value.detail))
        assert len(said) == 1
    assert client.runs(run_id=foreign) == client.timeline(foreign) == []
    with Client(mission.dsn, project="tenant") as tenant:
        assert tenant.cancel(foreign) == "cancelled"
