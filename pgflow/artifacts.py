"""Artifacts and their schemas, as statements: the part of the gateway for what runs leave."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from pgflow._json import dumps
from pgflow._statement import Row, RunId, Statement, _int4, _rows
from pgflow.documents import ArtifactContent, SchemaVersion


def define_schema(
    name: str, schema: Mapping[str, object] | type[BaseModel], *, project: str | None = None
) -> Statement[SchemaVersion]:
    """Store a JSON Schema of draft 2020-12, or that of a model: new content is a new version.

    Raises BadRequest.
    """
    given = schema.model_json_schema() if isinstance(schema, type) else schema
    return Statement(
        b"select s.schema, s.version, encode(s.sha256, 'hex') as sha256, s.created_at,"
        b" s.created_by, s.definition"
        b" from pgflow.define_schema(%(name)s, %(schema)s::jsonb, %(project)s) as s",
        {"name": name, "schema": dumps(given, "the schema"), "project": project},
        lambda rows: SchemaVersion(**rows[0]),
    )


def schemas(
    *, schema: str | None = None, version: int | None = None, project: str | None = None
) -> Statement[list[Row]]:
    """Return rows of view schemas: of one schema all its versions, else the current ones."""
    return Statement(
        b"select * from pgflow.schemas where project_id = (select pgflow.this_project(%(project)s))"
        b" and case when %(schema)s::text is null then is_current else schema = %(schema)s end"
        b" and (%(version)s::integer is null or version = %(version)s::integer)"
        b" order by schema, version",
        {"schema": schema, "version": _int4(version), "project": project},
        _rows,
    )


def artifacts(
    run_id: RunId,
    *,
    step: str | None = None,
    name: str | None = None,
    kind: str | None = None,
    project: str | None = None,
) -> Statement[list[Row]]:
    """Return rows of view artifacts, the oldest first: of a run, or of a flow and all its steps."""
    return Statement(
        b"select * from pgflow.artifacts"
        b" where project_id = (select pgflow.this_project(%(project)s))"
        b" and run_id = any (array(select %(run_id)s::uuid union select s.run_id"
        b" from pgflow.flow_steps s where s.project_id = (select pgflow.this_project(%(project)s))"
        b" and s.flow_run_id = %(run_id)s::uuid and s.run_id is not null))"
        b" and (%(step)s::text is null or step = %(step)s)"
        b" and (%(name)s::text is null or name = %(name)s)"
        b" and (%(kind)s::text is null or kind = %(kind)s)"
        b" order by at, run_id, artifact_no",
        {"run_id": run_id, "step": step, "name": name, "kind": kind, "project": project},
        _rows,
    )


def artifact_content(
    run_id: RunId,
    name: str,
    step: str | None = None,
    version: int | None = None,
    artifact_no: int | None = None,
    *,
    project: str | None = None,
) -> Statement[ArtifactContent]:
    """Return an artifact with its content, of several of that name the one written last.

    `name` is that of a document, or `input` or `output`. With a `step`, `run_id` is the run of its
    flow, and `version` the round. Raises UnknownArtifact.
    """
    return Statement(
        b"select * from pgflow.artifact_content(%(run_id)s::uuid, %(name)s, step => %(step)s,"
        b" version => %(version)s::integer, artifact_no => %(artifact_no)s::integer,"
        b" project => %(project)s)",
        {
            "run_id": run_id,
            "name": name,
            "step": step,
            "version": _int4(version),
            "artifact_no": _int4(artifact_no),
            "project": project,
        },
        lambda rows: _content(rows[0]),
    )


def _content(row: Row) -> ArtifactContent:
    told = dict(row)
    as_json, text, data = (told.pop(f"content_{form}") for form in ("json", "text", "bytes"))
    is_json = text is None and data is None
    content = as_json if is_json else text if data is None else data
    return ArtifactContent(**told, is_json=is_json, content=content)
