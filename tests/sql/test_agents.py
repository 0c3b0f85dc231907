"""Agents, and the roles of steps that are bound to them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.sql.flows import define, gate, ready, started, step, step_run, task_of, work

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Lease, Row


def agent(engine: Engine, name: str = "planner", model: str = "small", **more: Any) -> Row:
    """Define an agent and return its version."""
    (version,) = engine.call("define_agent", name=name, model=model, **more)
    return version


def bindings(engine: Engine, run_id: UUID) -> Any:
    """Return the names and versions of the agents that a run is bound to, by role."""
    bound = engine.run(run_id)["bindings"]
    return {role: (b["agent"], b["version"]) for role, b in bound.items()}


def plain(engine: Engine, statement: str, *values: object) -> None:
    """Change what nobody can change: as the tables' owner, past their triggers."""
    engine.rows("select set_config('session_replication_role', 'replica', false)")
    engine.conn.execute(statement.encode(), values)
    engine.rows("select set_config('session_replication_role', 'origin', false)")


# ---- agents


def test_an_agent_is_stored_once_per_content(engine: Engine) -> None:
    first = agent(engine, backend="here", config={"t": 0})
    other = agent(engine, backend="here", config={"t": 1})
    assert (first["version"], other["version"]) == (1, 2)
    assert agent(engine, backend="here", config={"t": 0}) == first
    rows = engine.rows("select * from pgflow.agents order by version")
    assert [(row["version"], row["is_current"]) for row in rows] == [(1, True), (2, False)]
    assert (rows[1]["model"], rows[1]["backend"], rows[1]["config"]) == ("small", "here", {"t": 1})
    assert rows[0]["sha256"] != rows[1]["sha256"]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": "a/b"}),
        ("name", {"name": None}),
        ("model", {"model": ""}),
        ("model", {"model": None}),
        ("model", {"model": "m" * 201}),
        ("backend", {"backend": ""}),
        ("config", {"config": "[1]"}),
        ("config", {"config": {"a": [n * 1000003 for n in range(60000)]}}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_agent_that_cannot_be_is_refused(engine: Engine, field: str, change: Row) -> None:
    with engine.refused("PF101", field):
        engine.call("define_agent", **{"name": "planner", "model": "m", **change})


def test_a_version_of_an_agent_never_changes(engine: Engine) -> None:
    agent(engine)
    for statement in (
        "update pgflow.agent_version set model = 'x'",
        "delete from pgflow.agent_version",
    ):
        with engine.refused("PF203"):
            engine.conn.execute(statement.encode())


# ---- binding


def test_a_role_is_bound_to_the_agent_of_its_name_as_it_is_at_the_start(engine: Engine) -> None:
    agent(engine, config={"t": 0})
    run_id = started(engine, step("plan", role="planner"))
    agent(engine, model="large")
    lease = ready(engine)["plan"]
    sha256 = engine.value("select sha256 from pgflow.agents where version = 1")
    assert lease.body["flow"]["binding"] == {
        "role": "planner",
        "agent": "planner",
        "version": 1,
        "sha256": sha256,
        "model": "small",
        "backend": None,
        "config": {"t": 0},
    }
    assert bindings(engine, run_id) == {"planner": ("planner", 1)}


def test_a_start_may_bind_a_role_to_another_agent_or_an_older_version(engine: Engine) -> None:
    for model in ("small", "large"):
        agent(engine, "cheap", model)
    define(engine, step("plan", role="planner"), step("check", role="checker"))
    run_id = engine.tell(
        "start",
        flow="f",
        bindings={"planner": "cheap", "checker": {"agent": "cheap", "version": 1}},
    )
    assert bindings(engine, run_id) == {"planner": ("cheap", 2), "checker": ("cheap", 1)}


def test_a_role_that_is_bound_to_nothing_refuses_the_start(engine: Engine) -> None:
    define(engine, step("plan", role="planner"))
    with engine.refused("PF112", "bindings.planner"):
        engine.call("start", flow="f")
    agent(engine)
    with engine.refused("PF112", "bindings.planner"):
        engine.call("start", flow="f", bindings={"planner": "nobody"})
    with engine.refused("PF112", "bindings.planner"):
        engine.call("start", flow="f", bindings={"planner": {"agent": "planner", "version": 2}})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("[]", "bindings"),
        ({"painter": "planner"}, "bindings.painter"),
        ({"planner": 3}, "bindings.planner"),
        ({"planner": {"name": "planner"}}, "bindings.planner"),
        ({"planner": {"agent": "planner", "version": "1"}}, "bindings.planner"),
        ({"planner": {"version": 1}}, "bindings.planner"),
        ({"planner": None}, "bindings.planner"),
    ],
    ids=str,
)
def test_bindings_that_cannot_be_are_refused(engine: Engine, given: object, field: str) -> None:
    agent(engine)
    define(engine, step("plan", role="planner"))
    with engine.refused("PF101", field):
        engine.call("start", flow="f", bindings=given)


def test_a_flow_without_roles_takes_no_bindings_and_has_none(engine: Engine) -> None:
    run_id = started(engine, step("plan"))
    assert engine.run(run_id)["bindings"] is None
    assert ready(engine)["plan"].body["flow"].get("binding") is None
    with engine.refused("PF101", "bindings.planner"):
        engine.call("start", flow="f", bindings={"planner": "planner"})


def test_the_roles_of_flows_within_are_bound_with_those_around_them(engine: Engine) -> None:
    agent(engine)
    agent(engine, "other")
    define(engine, step("plan", role="planner"), name="inner")
    inner = step("within", type="flow", config={"flow": "inner"})
    define(engine, inner)
    run_id = engine.tell("start", flow="f", bindings={"planner": "other"})
    assert ready(engine)["plan"].body["flow"]["binding"]["agent"] == "other"
    assert bindings(engine, step_run(engine, run_id, "within")) == {"planner": ("other", 1)}


@pytest.mark.parametrize(
    "change", [{"role": "a/b"}, {"role": 3}, {"role": "planner", "type": "timer"}], ids=str
)
def test_a_role_that_cannot_be_is_refused(engine: Engine, change: Row) -> None:
    with engine.refused("PF101", "definition.steps[0].role"):
        define(engine, {**step("plan", config={"seconds": 1}), **change})


# ---- what a run keeps


def test_retries_and_forks_keep_what_the_first_run_was_bound_to(engine: Engine) -> None:
    agent(engine)
    old = started(engine, step("plan", role="planner"))
    agent(engine, model="large")
    fork = engine.tell("fork", run_id=old, super_step=0)
    work(engine, fail=("plan",))
    retried = engine.tell("retry", run_id=old)
    for run_id in (old, fork, retried):
        assert bindings(engine, run_id) == {"planner": ("planner", 1)}


def test_the_report_has_the_bindings_of_a_run_that_has_ended(engine: Engine) -> None:
    agent(engine, backend="here", config={"key": "x"})
    run_id = started(engine, step("plan", role="planner"))
    work(engine)
    report = engine.tell("report", run_id=run_id)
    sha256 = engine.value("select sha256 from pgflow.agents")
    assert report["bindings"] == [
        {
            "role": "planner",
            "agent": "planner",
            "version": 1,
            "sha256": sha256,
            "model": "small",
            "backend": "here",
        }
    ]
    other = started(engine, step("a"))
    assert engine.tell("report", run_id=other)["bindings"] == []


def bound(lease: Lease) -> tuple[str, int]:
    """Return the agent that a step is given."""
    binding = lease.body["flow"]["binding"]
    return binding["agent"], binding["version"]


def test_a_flow_within_is_bound_to_what_a_step_needed_that_was_added_before_its_retry(
    engine: Engine,
) -> None:
    define(engine, step("x"), name="inner")
    run_id = started(engine, step("within", type="flow", config={"flow": "inner"}))
    agent(engine, "critic")
    child = step_run(engine, run_id, "within")
    engine.call("add_step", run_id=child, step=step("y", "x", role="critic"))
    agent(engine, "critic", "large")
    work(engine)
    work(engine, fail=("y",))
    again = engine.tell("retry", run_id=run_id)
    assert bindings(engine, step_run(engine, again, "within")) == {"critic": ("critic", 1)}
    assert bound(ready(engine)["y"]) == ("critic", 1)


def test_a_role_that_a_flow_within_has_got_since_the_start_is_bound_when_that_begins(
    engine: Engine,
) -> None:
    agent(engine)
    define(engine, step("plan", role="planner"), name="inner")
    run_id = started(engine, step("a"), step("within", "a", type="flow", config={"flow": "inner"}))
    define(engine, step("plan", role="planner"), step("check", role="critic"), name="inner")
    agent(engine, model="large")
    agent(engine, "critic")
    work(engine)
    leases = ready(engine)
    assert (bound(leases["plan"]), bound(leases["check"])) == (("planner", 1), ("critic", 1))
    assert bindings(engine, run_id) == {"planner": ("planner", 1)}


def test_a_role_within_for_which_there_is_no_agent_is_bound_once_a_retry_finds_one(
    engine: Engine,
) -> None:
    define(engine, step("plan"), name="inner")
    run_id = started(engine, step("a"), step("within", "a", type="flow", config={"flow": "inner"}))
    define(engine, step("check", role="critic"), name="inner")
    work(engine)
    lease = ready(engine)["check"]
    assert "the binding of role critic is missing" in lease.body["flow"]["binding"]["fault"]
    engine.fail(lease, retries=[False])
    agent(engine, "critic")
    engine.tell("retry", run_id=run_id)
    assert bound(ready(engine)["check"]) == ("critic", 1)


MISSING = "update pgflow.run set bindings = '{}' where bindings is not null"
GONE = "delete from pgflow.agent_version"
MALFORMED = """update pgflow.run set bindings = '{"planner": 3}' where bindings is not null"""
CHANGED = "update pgflow.agent_version set config = '{\"t\": 9}'"
FAULTS = [(MISSING, "missing"), (GONE, "missing"), (MALFORMED, "malformed"), (CHANGED, "malformed")]


@pytest.mark.parametrize(("break_it", "word"), FAULTS, ids=range(4))
def test_a_paused_flow_whose_binding_is_lost_is_not_resumed(
    engine: Engine, break_it: str, word: str
) -> None:
    agent(engine)
    run_id = started(engine, gate("go"), step("plan", "go", role="planner"))
    engine.call("pause", run_id=run_id)
    plain(engine, break_it)
    with engine.refused("PF205", "run_id") as refused:
        engine.call("resume", run_id=run_id)
    assert f"E-RUN-012: the binding of role planner is {word}: " in str(refused.value)
    assert engine.state(run_id) == "paused"


@pytest.mark.parametrize(("break_it", "word"), FAULTS, ids=range(4))
def test_a_step_whose_binding_is_lost_is_told_so_by_its_lease(
    engine: Engine, break_it: str, word: str
) -> None:
    agent(engine)
    run_id = started(engine, gate("go"), step("plan", "go", role="planner"))
    plain(engine, break_it)
    engine.approve(task_of(engine, run_id, "go"))
    lease = ready(engine)["plan"]
    bound = lease.body["flow"]["binding"]
    assert (bound["role"], bound.keys()) == ("planner", {"role", "fault"})
    assert f"is {word}: " in bound["fault"]
    engine.fail(lease, code="E-RUN-012", detail=bound["fault"])
    assert engine.state(lease.run_id) == "paused"
    with engine.refused("PF205", "run_id"):
        engine.call("resume", run_id=lease.run_id)


def test_a_flow_whose_binding_is_lost_is_neither_retried_nor_forked(engine: Engine) -> None:
    agent(engine)
    run_id = started(engine, step("plan", role="planner"))
    work(engine, fail=("plan",))
    plain(engine, GONE)
    with engine.refused("PF205", "run_id"):
        engine.call("retry", run_id=run_id)
    with engine.refused("PF205", "run_id"):
        engine.call("fork", run_id=run_id, super_step=0)


def test_the_doctor_tells_of_roles_for_which_there_is_no_agent(engine: Engine) -> None:
    define(engine, step("plan", role="planner"), step("check", role="checker"))
    agent(engine)
    lines = engine.rows("select * from pgflow.doctor() where \"check\" = 'role without agent'")
    assert [line["detail"] for line in lines] == [
        "flow f has role checker, for which there is no agent"
    ]


# ---- the hash of the input


def test_the_hash_of_a_flows_input_covers_the_flow(engine: Engine) -> None:
    one = started(engine, step("a"), input='{"n": 1}')
    same = engine.tell("start", flow="f", input='{"n": 1}')
    other = started(engine, step("a"), step("b"), input='{"n": 1}')
    hashes = [engine.run(run_id)["input_sha256"] for run_id in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    flow = engine.tell("report", run_id=one)["hash"]
    text = json.dumps({"flow": flow, "input": {"n": 1}})
    assert hashes[0] == engine.value(
        "select encode(sha256(convert_to((%s::jsonb)::text, 'UTF8')), 'hex')", text
    )
    work(engine)
    assert engine.state(one) == "completed"
    assert engine.run(one)["input_sha256"] == hashes[0]
