"""Calls that ask people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, TypedDict, TypeVar, Unpack, cast, overload

from pydantic import ValidationError

from pgflow._calls import Calls, seconds
from pgflow._journal import Scope
from pgflow._json import digest
from pgflow._typed import adapter
from pgflow.errors import JournalMismatch, Rejected
from pgflow.models import Answer, Approval

T = TypeVar("T")
Policy = Literal["cancel", "timeout", "approve", "reject", "escalate"]
OnReject = Literal["cancel", "resume", "raise"]
# How often a person is asked for an answer that the model takes.
_TIMES = 3


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
            *self.journal.enter("approval", key),
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

        `form` is a pydantic model or another type, or a JSON schema. An answer that the model
        refuses is asked for again, three times in all. The other arguments are as for approval;
        with on_reject="resume" an answer may have no data.
        Example: `answer = await ctx.form("address", Address, assignee_role="support")`.
        """
        value, data = self._have_filled_in("form", key, form, how)
        answer: Answer[Any] = Answer.from_json(value)
        answer.data = data
        return answer

    @overload
    async def input(self, key: str, form: type[T], **how: Unpack[Asked]) -> T: ...
    @overload
    async def input(
        self, key: str, form: dict[str, Any] | None = None, **how: Unpack[Asked]
    ) -> Any: ...
    async def input(self, key: str, form: Any = None, **how: Unpack[Asked]) -> Any:
        """Ask for a value and return it, as `form` says: a type, a model or a JSON schema.

        The other arguments are as for form. Raises Rejected if there is no value.
        Example: `title = await ctx.input("title", str, payload=draft)`.
        """
        form = {} if form is None else form
        value, data = self._have_filled_in("input", key, form, how)
        if not _is_answered(value):
            raise _rejected(key, value)
        return data

    def _have_filled_in(
        self, kind: str, name: str, form: Any, how: Asked
    ) -> tuple[dict[str, Any], Any]:
        """Return the answer, and its data as the form's type reads it.

        The database knows the form, the model may know more. Each answer that it refuses has an
        entry of its own: the next execution comes by again, and is told the same.
        """
        scope, key = self.journal.enter(kind, name)
        place, title = (scope, key), how.get("title") or _title(kind, key, self.lease.handler)
        asked, faults = title, ""
        for time in range(1, _TIMES + 1):
            value = self._ask(
                kind,
                *place,
                {
                    "title": asked,
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
            if not _is_answered(value):
                return value, None
            try:
                return value, _read(form, value.get("data"))
            except ValidationError as error:
                faults = _faults(error)
            asked = f"{title} (again: {faults}"[:499] + ")"
            place = self.journal.enter(kind, "", f"{key}/again/{time}")
        raise JournalMismatch(f"{kind} {key} was answered {_TIMES} times, and is refused: {faults}")

    def _ask(
        self,
        kind: str,
        scope: Scope,
        key: str,
        request: dict[str, Any],
        *,
        on_reject: OnReject,
        **how: Any,
    ) -> dict[str, Any]:
        """Return what was decided, or wait for it. `request` is what a decision is about."""
        journal = self.journal
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


def _faults(error: ValidationError) -> str:
    """Return what a model says against an answer: `path: message; ...`."""
    said = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join(filter(None, (_path(e["loc"]), e["msg"]))) for e in said)


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc)


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
