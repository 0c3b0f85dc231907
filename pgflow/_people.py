"""Calls that ask people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, TypedDict, TypeVar, Unpack, cast, overload

from pgflow._calls import Calls, seconds
from pgflow._json import digest
from pgflow._typed import adapter
from pgflow.errors import Rejected
from pgflow.models import Answer, Approval

T = TypeVar("T")
Policy = Literal["cancel", "timeout", "approve", "reject", "escalate"]
OnReject = Literal["cancel", "resume", "raise"]


class Asked(TypedDict, total=False):
    """How a form is asked for; see `Context.approval`."""

    payload: object
    title: str | None
    assignee: str | None
    assignee_role: str | None
    due_in: timedelta | None
    policy: Policy
    escalate_to: str | None
    escalate_in: timedelta | None
    on_reject: OnReject


class People(Calls):
    """Questions to people. The run waits as one row; the answer is given in the database."""

    async def approval(
        self,
        key: str,
        *,
        payload: object = None,
        title: str | None = None,
        assignee: str | None = None,
        assignee_role: str | None = None,
        quorum: int | None = None,
        quorum_of: int | None = None,
        not_requester: bool | None = None,
        due_in: timedelta | None = None,
        policy: Policy = "cancel",
        escalate_to: str | None = None,
        escalate_in: timedelta | None = None,
        on_reject: OnReject = "cancel",
    ) -> Approval:
        """Ask a person and wait without holding a worker; returns the decision once it is made.

        `payload` is what the person is shown; when it changes, or who has to decide, an older
        decision doesn't count and people are asked again. After `due_in` the run ends as `policy`
        says. A rejection ends the run as cancelled; with on_reject="resume" it is returned
        (`approved` is False), with "raise" it is raised as Rejected.
        Example: `verdict = await ctx.approval("editor", payload=draft, assignee_role="editors")`.
        """
        value = self._ask(
            "approval",
            key,
            {
                "title": title,
                "payload": payload,
                "assignee": assignee,
                "assignee_role": assignee_role,
                "quorum": quorum,
                "quorum_of": quorum_of,
            },
            not_requester=not_requester,
            due_in=seconds(due_in),
            policy=policy,
            escalate_to=escalate_to,
            escalate_in=seconds(escalate_in),
            on_reject=on_reject,
        )
        return Approval.from_json(value)

    @overload
    async def form(self, key: str, form: type[T], **how: Unpack[Asked]) -> Answer[T]: ...
    @overload
    async def form(self, key: str, form: dict[str, Any], **how: Unpack[Asked]) -> Answer[Any]: ...
    async def form(self, key: str, form: Any, **how: Unpack[Asked]) -> Answer[Any]:
        """Have a person fill in a form; returns who answered what, `data` as the model says.

        `form` is a pydantic model or another type, or a JSON schema. The other arguments are as
        for approval; with on_reject="resume" an answer may have no data.
        Example: `answer = await ctx.form("address", Address, assignee_role="support")`.
        """
        value = self._have_filled_in("form", key, form, how)
        answer: Answer[Any] = Answer.from_json(value)
        answer.data = _read(form, answer.data) if _is_answered(value) else None
        return answer

    @overload
    async def input(self, key: str, form: type[T], **how: Unpack[Asked]) -> T: ...
    @overload
    async def input(
        self, key: str, form: dict[str, Any] | None = None, **how: Unpack[Asked]
    ) -> Any: ...
    async def input(self, key: str, form: Any = None, **how: Unpack[Asked]) -> Any:
        """Ask for a value and return it, as `form` says: a type, a model or a JSON schema.

        The other arguments are as for approval. Raises Rejected if there is no value.
        Example: `title = await ctx.input("title", str, payload=draft)`.
        """
        form = {} if form is None else form
        value = self._have_filled_in("input", key, form, how)
        if not _is_answered(value):
            raise _rejected(key, value)
        return _read(form, value.get("data"))

    def _have_filled_in(self, kind: str, key: str, form: Any, how: Asked) -> dict[str, Any]:
        return self._ask(
            kind,
            key,
            {
                "title": how.get("title"),
                "payload": how.get("payload"),
                "form": form if isinstance(form, dict) else adapter(form).json_schema(),
                "assignee": how.get("assignee"),
                "assignee_role": how.get("assignee_role"),
            },
            due_in=seconds(how.get("due_in")),
            policy=how.get("policy", "cancel"),
            escalate_to=how.get("escalate_to"),
            escalate_in=seconds(how.get("escalate_in")),
            on_reject=how.get("on_reject", "cancel"),
        )

    def _ask(
        self, kind: str, name: str, request: dict[str, Any], *, on_reject: OnReject, **how: Any
    ) -> dict[str, Any]:
        """Return what was decided, or wait for it. `request` is what a decision is about."""
        journal = self.journal
        scope, key = journal.enter(kind, name)
        request["title"] = request["title"] or _title(kind, key, self.lease.handler)
        about = {k: v for k, v in request.items() if v is not None}
        asked = digest([kind, about], f"what {key} asks for")
        entry = journal.recall(scope, kind, key, kind, asked)
        if entry is None:
            journal.wait(
                scope,
                prompt=on_reject == "raise",
                kind=kind,
                key=key,
                digest=asked,
                **request,
                **how,
                on_reject="cancel" if on_reject == "cancel" else "resume",
            )
        value = cast("dict[str, Any]", entry.value)
        if on_reject == "raise" and value.get("approved") is False:
            raise _rejected(key, value)
        return value


def _title(kind: str, key: str, handler: str) -> str:
    verb = {"approval": "Approve", "form": "Fill in", "input": "Answer"}[kind]
    return f"{verb} {key} of {handler}"


def _is_answered(value: dict[str, Any]) -> bool:
    return value.get("action") in {"answered", "approved"}


def _rejected(key: str, value: dict[str, Any]) -> Rejected:
    return Rejected(
        f"{key} was {value.get('action', 'rejected')} by {value.get('decided_by')}:"
        f" {value.get('comment') or ''}"
    )


def _read(form: Any, data: Any) -> Any:
    return data if isinstance(form, dict) else adapter(form).validate_python(data)
