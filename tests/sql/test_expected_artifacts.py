"""What becomes of a step that has to leave an artifact behind, and doesn't."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sql.flows import define, ready, started, states, step, work
from tests.sql.test_flow_definitions import faults
from tests.sql.test_record_artifact import record

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine, Lease, Row

ERRORS = [{"path": "$.title", "message": "is too long"}]


def writing(name: str = "a", *needs: str, **more: Any) -> Row:
    """Return a step that has to leave an artifact named draft."""
    return step(name, *needs, artifact={"name": "draft", **more})


def begun(engine: Engine, **more: Any) -> tuple[UUID, Lease]:
    """Start a flow of one such step; return its run and the lease of the step."""
    flow = started(engine, writing(**more))
    return flow, ready(engine)["a"]


def told(lease: Lease) -> Row:
    flow: Row = lease.body["flow"]
    return flow


@pytest.mark.parametrize(
    "artifact",
    [
        "draft",
        {},
        {"name": ""},
        {"name": 1},
        {"name": "output"},
        {"name": "draft", "schema": "-"},
        {"name": "draft", "schema": []},
        {"name": "draft", "schema": {"$schema": "http://json-schema.org/draft-07/schema#"}},
        {"name": "draft", "schema": {"type": "strong"}},
        {"name": "draft", "schema": {}, "schema_version": 1},
        {"name": "draft", "schema_version": 1},
        {"name": "draft", "schema": "article", "schema_version": 0},
        {"name": "draft", "repairs": -1},
        {"name": "draft", "repairs": 11},
        {"name": "draft", "repairs": 1.5},
        {"name": "draft", "repairs": "1"},
        {"name": "draft", "odd": 1},
    ],
    ids=str,
)
def test_an_artifact_that_cannot_be_expected_is_refused(engine: Engine, artifact: object) -> None:
    found = faults(engine, {"name": "f", "steps": [step("a", artifact=artifact)]})
    assert found["definition.steps[0].artifact"].startswith("step a: artifact must be an object")


def test_what_no_worker_executes_leaves_no_artifact(engine: Engine) -> None:
    gate = step("a", type="approval_gate", artifact={"name": "draft"})
    assert "definition.steps[0].artifact" in faults(engine, {"name": "f", "steps": [gate]})


def test_a_schema_that_is_not_there_is_refused(engine: Engine) -> None:
    with engine.refused("PF110", "definition.steps[1].artifact.schema"):
        define(engine, step("b"), writing(schema="nobodys"))


def test_what_is_said_by_default_makes_no_new_version(engine: Engine) -> None:
    first = define(engine, writing())
    assert define(engine, writing(repairs=1, schema=None))["version"] == first["version"]
    assert define(engine, writing(repairs=2))["version"] > first["version"]
    assert define(engine, writing(repairs=2.0))["version"] == first["version"] + 1


def test_the_worker_is_told_what_is_expected(engine: Engine) -> None:
    engine.call("define_schema", name="article", schema={"type": "object"})
    _, lease = begun(engine, schema="article")
    assert told(lease)["artifact"] == {
        "name": "draft",
        "schema": {"type": "object"},
        "schema_name": "article",
        "schema_version": 1,
    }
    assert "repair" not in told(lease)
    created, expected, _ = engine.timeline(lease.run_id)
    assert (created["type"], expected["type"]) == ("run.created", "artifact.expected")
    assert expected["payload"] == {"name": "draft", "schema": "article", "schema_version": 1}


def test_a_schema_that_is_defined_later_holds_for_new_definitions_only(engine: Engine) -> None:
    engine.call("define_schema", name="article", schema={"type": "object"})
    flow = started(engine, writing(schema="article"))
    engine.call("define_schema", name="article", schema={"type": "array"})
    assert told(ready(engine)["a"])["artifact"]["schema"] == {"type": "object"}
    again = engine.tell("start", flow="f")
    assert again != flow
    assert told(ready(engine)["a"])["artifact"]["schema"] == {"type": "object"}
    started(engine, writing(schema="article"))
    assert told(ready(engine)["a"])["artifact"]["schema"] == {"type": "array"}


def test_a_step_completes_with_its_artifact(engine: Engine) -> None:
    flow, lease = begun(engine)
    record(engine, lease)
    assert engine.complete(lease, output="7") == []
    assert engine.run(flow)["output"] == {"a": 7}


def test_a_step_without_its_artifact_is_executed_again_and_told_why(engine: Engine) -> None:
    flow, lease = begun(engine)
    (line,) = engine.complete(lease)
    assert (line["outcome"], line["state"], line["code"]) == ("refused", "pending", "E-RUN-014")
    assert engine.run(lease.run_id)["attempt_count"] == 0
    assert states(engine, flow) == {"a": "pending"}
    again = ready(engine)["a"]
    assert again.run_id == lease.run_id
    assert told(again)["repair"] == {
        "name": "draft",
        "repair": 1,
        "error_code": "E-RUN-014",
        "errors": [{"path": "$", "message": "artifact draft was not produced"}],
    }
    record(engine, again)
    assert engine.complete(again) == []
    assert engine.state(flow) == "completed"
    assert engine.types(lease.run_id) == [
        "run.created",
        "artifact.expected",
        "run.started",
        "prompt.repaired",
        "run.started",
        "artifact.validated",
        "run.completed",
    ]


def test_an_invalid_artifact_is_repaired_with_all_its_errors(engine: Engine) -> None:
    _, lease = begun(engine)
    many = [{"path": f"$[{n}]", "message": "is wrong"} for n in range(9)]
    number = record(engine, lease, "2", errors=many)["artifact_no"]
    (line,) = engine.complete(lease)
    assert (line["state"], line["code"], line["detail"]) == ("pending", "E-RUN-008", "is wrong")
    repair = told(ready(engine)["a"])["repair"]
    assert (repair["error_code"], repair["artifact_no"]) == ("E-RUN-008", number)
    assert repair["errors"] == many


@pytest.mark.parametrize("repairs", [0, 1, 3])
@pytest.mark.parametrize("fault", ["E-RUN-008", "E-RUN-014"])
def test_a_step_fails_when_its_repairs_are_used_up(
    engine: Engine, fault: str, repairs: int
) -> None:
    flow, lease = begun(engine, repairs=repairs)
    for n in range(repairs + 1):
        if n:
            lease = ready(engine)["a"]
            assert told(lease)["repair"]["repair"] == n
        if fault == "E-RUN-008":
            record(engine, lease, str(n), errors=ERRORS)
        (line,) = engine.complete(lease)
        assert line["state"] == ("failed" if n == repairs else "pending")
    run = engine.run(lease.run_id)
    assert (run["state"], run["error_code"]) == ("failed", fault)
    assert (
        run["error_detail"]
        == {
            "E-RUN-008": "artifact draft: $.title is too long",
            "E-RUN-014": "artifact draft: artifact draft was not produced",
        }[fault]
    )
    assert run["last_error"]["type"] == "ArtifactRefused"
    assert (engine.state(flow), engine.run(flow)["error_code"]) == ("failed", fault)


def test_missing_and_invalid_share_the_repairs(engine: Engine) -> None:
    _, lease = begun(engine)
    engine.complete(lease)
    again = ready(engine)["a"]
    record(engine, again, errors=ERRORS)
    (line,) = engine.complete(again)
    assert (line["state"], line["code"]) == ("failed", "E-RUN-008")


def test_an_artifact_of_an_earlier_execution_does_not_count(engine: Engine) -> None:
    _, lease = begun(engine)
    record(engine, lease)
    engine.release(lease)
    again = ready(engine)["a"]
    (line,) = engine.complete(again)
    assert (line["state"], line["code"]) == ("pending", "E-RUN-014")


def test_one_that_is_written_again_counts(engine: Engine) -> None:
    flow, lease = begun(engine)
    record(engine, lease)
    engine.release(lease)
    again = ready(engine)["a"]
    assert record(engine, again)["outcome"] == "already"
    assert engine.complete(again) == []
    assert engine.state(flow) == "completed"


@pytest.mark.parametrize("last", ["1", "2"])
def test_the_one_that_was_written_last_counts(engine: Engine, last: str) -> None:
    _, lease = begun(engine)
    for text in ("1", "2") if last == "2" else ("2", "1"):
        record(engine, lease, text, errors=ERRORS if text == "2" else [])
    lines = engine.complete(lease)
    assert [line["code"] for line in lines] == (["E-RUN-008"] if last == "2" else [])


def test_a_repair_uses_no_attempt_and_a_failure_no_repair(engine: Engine) -> None:
    _, lease = begun(engine)
    engine.complete(lease)
    again = ready(engine)["a"]
    engine.fail(again)
    engine.later(seconds=30)
    engine.tick()
    third = ready(engine)["a"]
    assert (third.body["attempt"], told(third)["repair"]["repair"]) == (1, 1)
    record(engine, third)
    assert engine.complete(third) == []


@pytest.mark.parametrize("written", ["nothing", "invalid"])
def test_an_execution_that_takes_too_long_without_its_artifact_uses_a_repair(
    engine: Engine, written: str
) -> None:
    _, lease = begun(engine)
    code = "E-RUN-014" if written == "nothing" else "E-RUN-008"
    for n in range(2):
        if written == "invalid":
            record(engine, lease, str(n), errors=ERRORS)
        (line,) = engine.fail(lease, code="E-RUN-003", detail="too long")
        assert line["state"] == ("pending", "failed")[n]
        if n == 0:
            lease = ready(engine)["a"]
            assert told(lease)["repair"]["error_code"] == code
    run = engine.run(lease.run_id)
    assert (run["error_code"], run["attempt_count"]) == (code, 1)
    assert engine.types(lease.run_id).count("artifact.timeout") == 2


def test_an_execution_that_takes_too_long_with_its_artifact_is_retried(engine: Engine) -> None:
    _, lease = begun(engine)
    record(engine, lease)
    (line,) = engine.fail(lease, code="E-RUN-003", detail="too long")
    assert line["state"] == "scheduled"
    assert engine.row(lease.run_id)["repairs_left"] == 1


def test_an_artifact_is_held_to_the_schema_of_the_step(engine: Engine) -> None:
    engine.call("define_schema", name="article", schema={"type": "object"})
    engine.call("define_schema", name="lax", schema={})
    _, lease = begun(engine, schema="article")
    for given in ({}, {"schema": "lax"}):
        with engine.refused("PF101", "schema"):
            record(engine, lease, **given)
    record(engine, lease, schema="article")
    assert engine.complete(lease) == []


def test_in_a_batch_the_others_complete(engine: Engine) -> None:
    started(engine, writing(), step("b"), writing("c"))
    leases = ready(engine)
    plain = engine.leased()
    record(engine, leases["c"])
    (line,) = engine.complete(plain, leases["a"], leases["b"], leases["c"])
    assert (line["run_id"], line["outcome"]) == (leases["a"].run_id, "refused")
    assert engine.state(plain.run_id) == engine.state(leases["b"].run_id) == "completed"
    assert engine.state(leases["c"].run_id) == "completed"


@pytest.mark.parametrize("repairs", [0, 1])
def test_said_again_it_is_said_already(engine: Engine, repairs: int) -> None:
    _, lease = begun(engine, repairs=repairs)
    engine.complete(lease)
    before = engine.place.rows()
    (line,) = engine.complete(lease)
    assert line["outcome"] == "already"
    assert engine.place.rows() == before


def test_a_step_that_is_done_again_has_its_repairs_anew(engine: Engine) -> None:
    flow = started(engine, writing(), step("ok", "a", type="approval_gate"))
    lease = ready(engine)["a"]
    engine.complete(lease)
    again = ready(engine)["a"]
    record(engine, again)
    engine.complete(again)
    task = engine.value("select task_id from pgflow.inbox where flow_run_id = %s", flow)
    engine.reject(task, rollback_to="a")
    third = ready(engine)["a"]
    assert "repair" not in told(third)
    (line,) = engine.complete(third)
    assert line["state"] == "pending"


def test_a_flow_that_goes_on_after_a_failure_goes_on_after_this_one(engine: Engine) -> None:
    flow = started(engine, {**writing(repairs=0), "on_failure": "continue"}, step("b"))
    lease = ready(engine)
    engine.complete(*lease.values())
    assert states(engine, flow) == {"a": "failed", "b": "completed"}
    assert engine.state(flow) == "completed"
    assert work(engine) == []
