"""Documents that executions leave behind: stored under the lease, once, with what is wrong."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.flows import define, ready, started, step, step_run

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Connect, Engine, Lease, MakeRole, Row

WRONG = [{"path": f"$.{n}", "message": "is wrong"} for n in "abcdefg"]


def record(engine: Engine, lease: Lease, content: str | None = "1", **more: Any) -> Row:
    """Record an artifact named draft."""
    if "errors" in more:
        more["errors"] = Jsonb(more["errors"])
    given = {"name": "draft", "content": content, **more}
    (line,) = engine.call("record_artifact", run_id=lease.run_id, lease_no=lease.lease_no, **given)
    return line


def artifacts(engine: Engine, run_id: UUID, kind: str = "document") -> list[Row]:
    return engine.rows(
        "select * from pgflow.artifacts where run_id = %s and kind = %s order by artifact_no",
        run_id,
        kind,
    )


def content(engine: Engine, run_id: UUID, name: str = "draft", **which: object) -> Row:
    (row,) = engine.call("artifact_content", run_id=run_id, name=name, **which)
    return row


def test_a_document_is_stored_with_its_event(engine: Engine) -> None:
    lease = engine.leased()
    line = record(engine, lease, '{"b": 1, "a": [2]}')
    text = '{"a": [2], "b": 1}'
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert (line["outcome"], line["artifact_no"], line["valid"]) == ("done", 3, True)
    assert (line["size"], line["sha256"], line["errors"]) == (len(text), sha256, None)
    (row,) = artifacts(engine, lease.run_id)
    assert (row["name"], row["kind"], row["version"], row["attempt"]) == ("draft", "document", 0, 0)
    assert (row["lease_no"], row["media_type"], row["at"]) == (1, "application/json", engine.now)
    event = engine.timeline(lease.run_id)[-1]
    assert (event["type"], event["event_no"]) == ("artifact.validated", 3)
    assert event["payload"] == {
        "name": "draft",
        "media_type": "application/json",
        "size": len(text),
        "sha256": sha256,
    }


@pytest.mark.parametrize(
    ("given", "form", "stored"),
    [
        ({"content": '{"a": 1}'}, "content_json", {"a": 1}),
        ({"content": "null"}, "content_json", None),
        ({"content": '"text"', "media_type": "application/ld+json"}, "content_json", "text"),
        ({"content": "# Title", "media_type": "text/markdown"}, "content_text", "# Title"),
        ({"content": "", "media_type": "text/plain; charset=utf-8"}, "content_text", ""),
        ({"data": b"\x00\xff", "media_type": "image/png"}, "content_bytes", b"\x00\xff"),
        ({"data": b"{}"}, "content_bytes", b"{}"),
    ],
    ids=str,
)
def test_a_content_is_json_a_text_or_bytes(
    engine: Engine, given: Row, form: str, stored: object
) -> None:
    lease = engine.leased()
    assert record(engine, lease, **{"content": None, **given})["valid"]
    row = content(engine, lease.run_id)
    forms = ("content_json", "content_text", "content_bytes")
    assert [row[name] for name in forms if name != form] == [None, None]
    assert row[form] == stored


@pytest.mark.parametrize("text", ["{", "", "NaN", '{"a": "\\u0000"}', "[" * 100_000])
def test_what_should_be_json_and_is_not_is_invalid(engine: Engine, text: str) -> None:
    lease = engine.leased()
    line = record(engine, lease, text)
    assert not line["valid"]
    assert [error["path"] for error in line["errors"]] == ["$"]
    assert content(engine, lease.run_id)["content_text"] == text
    assert engine.types(lease.run_id)[-1] == "artifact.invalid"


def test_the_event_has_the_first_five_errors_and_the_artifact_all(engine: Engine) -> None:
    lease = engine.leased()
    assert record(engine, lease, errors=WRONG)["errors"] == WRONG
    (row,) = artifacts(engine, lease.run_id)
    assert (row["valid"], row["validation_errors"]) == (False, WRONG)
    event = engine.timeline(lease.run_id)[-1]
    assert (event["type"], event["payload"]["errors"]) == ("artifact.invalid", WRONG[:5])


def test_the_schema_is_stored_with_its_version(engine: Engine) -> None:
    engine.call("define_schema", name="article", schema={})
    engine.call("define_schema", name="article", schema={"type": "object"})
    lease = engine.leased()
    record(engine, lease, schema="article")
    record(engine, lease, schema="article", schema_version=1)
    rows = artifacts(engine, lease.run_id)
    assert [(row["schema"], row["schema_version"]) for row in rows] == [
        ("article", 2),
        ("article", 1),
    ]


def test_the_same_again_is_stored_once(engine: Engine) -> None:
    lease = engine.leased()
    first = record(engine, lease, "[1]")
    before = engine.place.rows()
    again = record(engine, lease, "[1]")
    assert again == {**first, "outcome": "already"}
    assert engine.place.rows() == before


def test_another_content_is_another_artifact(engine: Engine) -> None:
    lease = engine.leased()
    numbers = [record(engine, lease, text)["artifact_no"] for text in ("1", "2", "1")]
    assert numbers == [3, 4, 5]
    assert content(engine, lease.run_id)["artifact_no"] == 5
    assert content(engine, lease.run_id, artifact_no=4)["content_json"] == 2


def test_an_execution_that_comes_by_again_takes_over_what_is_there(engine: Engine) -> None:
    lease = engine.leased()
    for text in ("1", "2"):
        record(engine, lease, text)
    engine.release(lease)
    again = engine.lease_of(lease.run_id)
    lines = [record(engine, again, text) for text in ("1", "3")]
    assert [(line["outcome"], line["artifact_no"]) for line in lines] == [
        ("already", 3),
        ("done", 7),
    ]
    rows = artifacts(engine, lease.run_id)
    assert [(row["artifact_no"], row["lease_no"]) for row in rows] == [(3, 2), (4, 1), (7, 2)]


def test_in_another_order_they_are_other_artifacts(engine: Engine) -> None:
    lease = engine.leased()
    for text in ("1", "2"):
        record(engine, lease, text)
    engine.release(lease)
    again = engine.lease_of(lease.run_id)
    assert [record(engine, again, text)["outcome"] for text in ("2", "1")] == ["done", "done"]
    assert content(engine, lease.run_id)["content_json"] == 1


@pytest.mark.parametrize("lost_by", ["release", "complete", "cancel"])
def test_a_late_write_of_a_lost_lease_is_refused(engine: Engine, lost_by: str) -> None:
    lease = engine.leased()
    if lost_by == "cancel":
        engine.call("cancel", run_id=lease.run_id)
    else:
        getattr(engine, lost_by)(lease)
    before = engine.place.rows()
    line = record(engine, lease)
    assert (line["outcome"], line["artifact_no"]) == ("lost", None)
    assert engine.place.rows() == before


@pytest.mark.parametrize(
    ("sqlstate", "field", "change"),
    [
        ("PF101", "name", {"name": None}),
        ("PF101", "name", {"name": ""}),
        ("PF101", "name", {"name": "x" * 201}),
        ("PF101", "name", {"name": "input"}),
        ("PF101", "name", {"name": "output"}),
        ("PF101", "content", {"content": None}),
        ("PF101", "content", {"data": b"1"}),
        ("PF101", "media_type", {"media_type": None}),
        ("PF101", "media_type", {"media_type": "text"}),
        ("PF101", "media_type", {"media_type": "Text/Plain"}),
        ("PF101", "kind", {"kind": "input"}),
        ("PF101", "kind", {"kind": None}),
        ("PF101", "errors", {"errors": None}),
        ("PF101", "errors", {"errors": {}}),
        ("PF101", "errors", {"errors": [{"path": "$"}]}),
        ("PF101", "errors", {"errors": [{"path": 1, "message": "a"}]}),
        ("PF101", "errors", {"errors": ["a"]}),
        ("PF110", "schema", {"schema": "nobodys"}),
        ("PF110", "schema", {"schema": "article", "schema_version": 9}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_wrong_is_refused(
    engine: Engine, sqlstate: str, field: str, change: dict[str, Any]
) -> None:
    engine.call("define_schema", name="article", schema={})
    lease = engine.leased()
    with engine.refused(sqlstate, field):
        record(engine, lease, **{"content": "1", **change})


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
@pytest.mark.parametrize(
    "given",
    [
        "content => repeat('x', 67108865), media_type => 'text/plain'",
        "data => convert_to(repeat('x', 67108865), 'UTF8')",
        # As the server writes it, there is a blank behind each comma.
        "content => '[' || repeat('\"' || repeat('x', 67105) || '\",', 1000) || '1]'",
    ],
    ids=["text", "bytes", "json"],
)
def test_at_most_64_mb_are_stored(engine: Engine, given: str) -> None:
    lease = engine.leased()
    with engine.refused("PF101", "content") as refused:
        engine.rows(f"select pgflow.record_artifact(%s, 1, 'draft', {given})", lease.run_id)
    assert "given: 6710" in (refused.value.diag.message_detail or "")


def test_inputs_and_outputs_of_runs_are_artifacts(engine: Engine) -> None:
    lease = engine.leased(input={"a": 1})
    assert [row["artifact_no"] for row in artifacts(engine, lease.run_id, "input")] == [1]
    assert artifacts(engine, lease.run_id, "output") == []
    engine.complete(lease, output='{"b": 2}')
    run = engine.run(lease.run_id)
    for kind, number, value in (("input", 1, {"a": 1}), ("output", 3, {"b": 2})):
        (row,) = artifacts(engine, lease.run_id, kind)
        assert (row["name"], row["artifact_no"], row["size"]) == (kind, number, 8)
        assert row["sha256"] == run[f"{kind}_sha256"]
        assert row["valid"]
        assert content(engine, lease.run_id, kind)["content_json"] == value


def test_a_step_has_its_artifacts_in_each_round(engine: Engine) -> None:
    flow = started(engine, step("a"), step("ok", "a", type="approval_gate"), input={"n": 1})
    first = ready(engine)["a"]
    record(engine, first, '"one"')
    engine.complete(first, output='"one"')
    task = engine.value("select task_id from pgflow.inbox where flow_run_id = %s", flow)
    engine.reject(task, rollback_to="a", comment="again")
    second = ready(engine)["a"]
    record(engine, second, '"two"')
    engine.complete(second, output='"two"')
    assert step_run(engine, flow, "a") == second.run_id
    rows = engine.rows(
        "select * from pgflow.artifacts where flow_run_id = %s and step = 'a'"
        " order by version, artifact_no",
        flow,
    )
    kinds = ["input", "document", "output"]
    assert [(row["version"], row["kind"]) for row in rows] == [
        *((0, kind) for kind in kinds),
        *((1, kind) for kind in kinds),
    ]
    assert content(engine, flow, step="a")["content_json"] == "two"
    assert content(engine, flow, step="a", version=0)["content_json"] == "one"
    assert content(engine, flow, "output", step="a", version=0)["content_json"] == "one"
    assert content(engine, flow, "input")["content_json"] == {"n": 1}


@pytest.mark.parametrize(
    "which", [{"name": "nobodys"}, {"step": "b"}, {"version": 7}, {"artifact_no": 99}], ids=str
)
def test_an_artifact_that_is_not_there_is_refused(engine: Engine, which: Row) -> None:
    lease = engine.leased()
    record(engine, lease)
    with engine.refused("PF111", "name") as refused:
        content(engine, lease.run_id, **which)
    if "step" not in which:
        assert "draft, input" in (refused.value.diag.message_detail or "")


def test_an_artifact_of_others_is_as_unknown_as_one_that_is_not_there(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    role = make_role("pgflow_worker")
    engine.call("create_project", project="theirs", members=[role])
    lease = engine.leased()
    record(engine, lease)
    they = connect(role)
    they.conn.execute("set pgflow.project = 'theirs'")
    engine.rows("update pgflow.project set members_only = true where project_id = 'default'")
    assert artifacts(they, lease.run_id) == []
    with they.refused("PF111"):
        content(they, lease.run_id)
    assert record(they, lease)["outcome"] == "lost"


def test_a_reader_reads_and_writes_nothing(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    lease = engine.leased()
    record(engine, lease)
    reader = connect(make_role("pgflow_reader"))
    assert content(reader, lease.run_id)["content_json"] == 1
    assert len(artifacts(reader, lease.run_id)) == 1
    for statement in ("select * from pgflow.artifact", "select pgflow.define_schema('a', '{}')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.rows(statement)


def test_a_document_goes_with_its_run(engine: Engine) -> None:
    lease = engine.leased()
    record(engine, lease)
    engine.complete(lease)
    engine.rows(
        "select pgflow._delete_runs('default', array[%s]::uuid[], pgflow.now())", lease.run_id
    )
    assert engine.rows("select 1 from pgflow.artifact where run_id = %s", lease.run_id) == []


def test_a_definition_that_is_older_keeps_its_version_of_a_schema(engine: Engine) -> None:
    for schema in ({}, {"type": "object"}):
        engine.call("define_schema", name="article", schema=schema)
        define(engine, step("a", artifact={"name": "draft", "schema": "article"}), name="new")
    rows = engine.rows("select definition from pgflow.flows where flow = 'new' order by version")
    versions = [row["definition"]["steps"][0]["artifact"]["schema_version"] for row in rows]
    assert versions == [1, 2]
