"""The part of a context for documents: what a handler leaves behind, and what is expected of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from pgflow._calls import Calls
from pgflow._validation import Held, read_document
from pgflow.documents import Artifact, ArtifactContent, ExpectedArtifact, Repair
from pgflow.errors import LeaseLost, MisplacedCall


class Artifacts(Calls):
    """Documents that a run leaves behind."""

    @property
    def expected_artifact(self) -> ExpectedArtifact | None:
        """What this step of a flow has to leave behind; None: nothing."""
        told = self._told("artifact")
        if told is None:
            return None
        return ExpectedArtifact(
            told["name"], told.get("schema"), told.get("schema_name"), told.get("schema_version")
        )

    @property
    def repair(self) -> Repair | None:
        """Why this step is executed again, if its artifact was missing or invalid."""
        told = self._told("repair")
        if told is None:
            return None
        no = told.get("artifact_no")
        return Repair(told["repair"], told["name"], told["error_code"], told["errors"], no)

    @property
    def instructions(self) -> Any:
        """What the step's `config` has under `instructions`."""
        return (self._told("config") or {}).get("instructions")

    def _told(self, of: str) -> dict[str, Any] | None:
        return (self.lease.more.get("flow") or {}).get(of)

    async def previous_artifact(self) -> ArtifactContent | None:
        """Return the artifact that is to be repaired, with its content; None: there is none."""
        repair = self.repair
        if repair is None or repair.artifact_no is None:
            return None
        return await self._worker.artifact_content(self.lease, repair.name, repair.artifact_no)

    async def artifact(
        self,
        name: str,
        content: object,
        *,
        schema: str | Mapping[str, Any] | type[BaseModel] | None = None,
        media_type: str | None = None,
        kind: Literal["document", "report"] = "document",
    ) -> Artifact:
        """Store a document of the run, and return what became of it: whether it is valid.

        `content` is anything that is JSON, a text, or bytes. `schema` is the name of one that is
        stored, a JSON Schema, or a model; the artifact that the step expects is held to the step's
        own. A text that is held to a schema is JSON as text. It counts for this execution alone:
        call it in the handler's own course, which each execution goes through, not inside a step.
        Raises MisplacedCall, NotJson, BadSchema, UnknownSchema, BadRequest, LeaseLost.
        Example: `verdict = await ctx.artifact("article", article, schema="article")`.
        """
        self._check_place(name)
        if self.undos is not None:  # it was stored when it was written
            return Artifact(name, 0, 0, "", valid=True, errors=[])
        held = await self._held_to(name, schema)
        document = await asyncio.to_thread(read_document, name, content, media_type, kind, *held)
        if self.cancelled:
            raise LeaseLost(f"the lease of run {self.lease.run_id} is lost")
        return await self._worker.record_artifact(self.lease, document)

    def _check_place(self, name: str) -> None:
        if self._read is None:
            return
        self._read.check("artifact")
        step = self._read.current_step()
        if step is not None:
            raise MisplacedCall(
                f"ctx.artifact({name!r}) is called inside step {step}, which is not executed again"
                " when the handler is: call it after the step, with what that returns"
            )

    async def _held_to(self, name: str, schema: str | Held) -> tuple[Held, str | None, int | None]:
        """Return the schema of an artifact, with its name and version if it has any."""
        expected = self.expected_artifact
        if expected is not None and expected.name == name:
            if schema is not None and schema != expected.schema_name:
                raise MisplacedCall(f"ctx.artifact: the step says what {name} is held to")
            return expected.schema, expected.schema_name, expected.schema_version
        if isinstance(schema, str):
            stored = await self._worker.schema(schema)
            return stored["definition"], schema, stored["version"]
        return schema, None, None
