"""What people do with tasks, as statements.

`as_user` is for applications that act for users of their own; it needs the database role
pgflow_application.
"""

from __future__ import annotations

from pgflow._statement import Row, RunId, Statement, _json, _value
from pgflow.models import Decision


def _decision(rows: list[Row]) -> Decision:
    return Decision(**rows[0])


def approve(
    task_id: RunId,
    comment: str | None = None,
    decision: object = None,
    *,
    as_user: str | None = None,
    project: str | None = None,
) -> Statement[Decision]:
    """Approve a task, or vote for it; `decision` is any JSON value for the handler.

    Raises BadRequest, UnknownTask, DecisionConflict, AlreadyFinished, NotAllowed.
    """
    return Statement(
        b"select d.* from pgflow.approve(%(task_id)s::uuid, %(comment)s, %(decision)s::jsonb,"
        b" %(as_user)s, %(project)s) as d",
        {
            "task_id": task_id,
            "comment": comment,
            "decision": _json(decision, "the decision"),
            "as_user": as_user,
            "project": project,
        },
        _decision,
    )


def reject(
    task_id: RunId,
    comment: str | None = None,
    *,
    rollback_to: str | None = None,
    as_user: str | None = None,
    project: str | None = None,
) -> Statement[Decision]:
    """Reject a task, which ends its run unless the handler asked to be told.

    With `rollback_to`, a key of the run's journal, that and all after it is done again instead.
    Raises BadRequest, UnknownTask, UnknownEntry, DecisionConflict, AlreadyFinished, NotAllowed.
    """
    return Statement(
        b"select d.* from pgflow.reject(%(task_id)s::uuid, %(comment)s, %(rollback_to)s,"
        b" %(as_user)s, %(project)s) as d",
        {
            "task_id": task_id,
            "comment": comment,
            "rollback_to": rollback_to,
            "as_user": as_user,
            "project": project,
        },
        _decision,
    )


def abort(
    task_id: RunId,
    comment: str | None = None,
    *,
    as_user: str | None = None,
    project: str | None = None,
) -> Statement[Decision]:
    """End the flow that a task is asked for, or the run where it was no step that asked.

    Raises BadRequest, UnknownTask, DecisionConflict, AlreadyFinished, NotAllowed.
    """
    return Statement(
        b"select d.* from pgflow.abort(%(task_id)s::uuid, %(comment)s, %(as_user)s,"
        b" %(project)s) as d",
        {"task_id": task_id, "comment": comment, "as_user": as_user, "project": project},
        _decision,
    )


def answer(
    task_id: RunId,
    data: object,
    comment: str | None = None,
    *,
    as_user: str | None = None,
    project: str | None = None,
) -> Statement[Decision]:
    """Answer a form, an input or an interrupt with data that fits its form.

    Raises BadRequest, whose `field` is the path in the data, UnknownTask, DecisionConflict,
    AlreadyFinished, NotAllowed.
    """
    return Statement(
        b"select d.* from pgflow.answer(%(task_id)s::uuid, %(data)s::jsonb, %(comment)s,"
        b" %(as_user)s, %(project)s) as d",
        {
            "task_id": task_id,
            "data": _json(data, "the answer"),
            "comment": comment,
            "as_user": as_user,
            "project": project,
        },
        _decision,
    )


def inject_input(
    run_id: RunId,
    step: str,
    content: object,
    *,
    as_user: str | None = None,
    project: str | None = None,
) -> Statement[bool]:
    """Answer the open form, input or interrupt of a run's step; False if there is none."""
    return Statement(
        b"select pgflow.inject_input(%(run_id)s::uuid, %(step)s, %(content)s::jsonb, %(as_user)s,"
        b" %(project)s)",
        {
            "run_id": run_id,
            "step": step,
            "content": _json(content, "the content"),
            "as_user": as_user,
            "project": project,
        },
        _value,
    )


def claim_task(
    task_id: RunId, *, as_user: str | None = None, project: str | None = None
) -> Statement[str]:
    """Take an open task for oneself; returns who has it.

    Raises UnknownTask, DecisionConflict, NotAllowed.
    """
    return Statement(
        b"select pgflow.claim_task(%(task_id)s::uuid, %(as_user)s, %(project)s)",
        {"task_id": task_id, "as_user": as_user, "project": project},
        _value,
    )


def release_task(
    task_id: RunId, *, as_user: str | None = None, project: str | None = None
) -> Statement[bool]:
    """Give back a task that one has claimed; False if nobody had.

    Raises UnknownTask, DecisionConflict, NotAllowed.
    """
    return Statement(
        b"select pgflow.release_task(%(task_id)s::uuid, %(as_user)s, %(project)s)",
        {"task_id": task_id, "as_user": as_user, "project": project},
        _value,
    )


def delegate(
    task_id: RunId,
    assignee: str,
    comment: str | None = None,
    *,
    as_user: str | None = None,
    project: str | None = None,
) -> Statement[str]:
    """Hand an open task to somebody else; returns whom.

    Raises BadRequest, UnknownTask, DecisionConflict, NotAllowed.
    """
    return Statement(
        b"select pgflow.delegate(%(task_id)s::uuid, %(assignee)s, %(comment)s, %(as_user)s,"
        b" %(project)s)",
        {
            "task_id": task_id,
            "assignee": assignee,
            "comment": comment,
            "as_user": as_user,
            "project": project,
        },
        _value,
    )


def comment_task(
    task_id: RunId,
    comment: str,
    *,
    as_user: str | None = None,
    project: str | None = None,
) -> Statement[None]:
    """Say something about an open task; it stands in the run's timeline.

    Raises BadRequest, UnknownTask, DecisionConflict, NotAllowed.
    """
    return Statement(
        b"select pgflow.comment_task(%(task_id)s::uuid, %(comment)s, %(as_user)s, %(project)s)",
        {"task_id": task_id, "comment": comment, "as_user": as_user, "project": project},
        lambda _: None,
    )
