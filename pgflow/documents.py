"""Artifacts as Python has them: what is sent, what is stored, what a step has to leave behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(slots=True, frozen=True)
class Document:
    """An artifact as it is sent: `content` or `data`, and what is wrong with it."""

    name: str
    content: str | None
    data: bytes | None
    media_type: str
    errors: list[dict[str, str]]
    schema: str | None
    schema_version: int | None
    kind: str


@dataclass(slots=True, frozen=True)
class Artifact:
    """What became of an artifact that a handler has written.

    `artifact_no` is the number of its event in the run's timeline; `size` is in bytes, `sha256` of
    the whole content in hex. `errors`: what is wrong with it, each with path and message.
    """

    name: str
    artifact_no: int
    size: int
    sha256: str
    valid: bool
    errors: list[dict[str, str]]


@dataclass(slots=True, frozen=True)
class ExpectedArtifact:
    """What a step has to leave behind.

    `schema` is the JSON Schema that it is held to, None if it is held to none; `schema_name` and
    `schema_version` are those of one that is stored.
    """

    name: str
    schema: dict[str, Any] | None = None
    schema_name: str | None = None
    schema_version: int | None = None


@dataclass(slots=True, frozen=True)
class Repair:
    """Why a step is executed again: its artifact is missing or invalid.

    `attempt` is 1 at the first repair. `errors` has all that was wrong, each with path and
    message; `artifact_no` is None if nothing was written.
    """

    attempt: int
    name: str
    error_code: str
    errors: list[dict[str, str]]
    artifact_no: int | None = None


@dataclass(slots=True, frozen=True)
class ArtifactContent:
    """An artifact with its `content`: what JSON says if `is_json`, else a text, or bytes.

    `errors`: what is wrong with it, each with path and message; None if it is valid.
    """

    run_id: UUID
    artifact_no: int
    step: str | None
    version: int
    kind: str
    name: str
    media_type: str
    size: int
    sha256: str
    valid: bool
    errors: list[dict[str, str]] | None
    is_json: bool
    content: Any


@dataclass(slots=True, frozen=True)
class SchemaVersion:
    """A version of a schema, as `define_schema` returns it; `sha256` of its content is in hex."""

    schema: str
    version: int
    sha256: str
    created_at: datetime
    created_by: str
    definition: dict[str, Any]
