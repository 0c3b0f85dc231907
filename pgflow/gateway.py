"""What clients call, as statements: SQL, parameters, and the way to read the rows.

This module, `people`, `queues`, `views` and `protocol` are the gateway: they do no input or output,
and nothing outside of them holds SQL. `pgflow.database` executes the statements on a sync or an
async connection, and callers enqueue inside their own transaction by passing theirs. Functions are
named as their SQL twins, whose comments tell what they do and raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from pgflow._json import dumps
from pgflow._named import Named
from pgflow._statement import Row, RunId, Statement, _int4, _json, _outcomes, _value, _values
from pgflow.budget import Budget
from pgflow.models import Event, Outcome


def _handler(
    handler: str | Named, queue: str | None, max_attempts: int | None, timeout: timedelta | None
) -> Row:
    """Take what is not given from the handler, which no worker may have registered yet."""
    if not isinstance(handler, str):
        queue = handler.queue if queue is None else queue
        max_attempts = handler.max_attempts if max_attempts is None else max_attempts
        timeout = handler.timeout if timeout is None else timeout
    return {
        "handler": handler if isinstance(handler, str) else handler.name,
        "queue": queue,
        "max_attempts": _int4(max_attempts),
        "timeout": timeout,
    }


def enqueue(
    handler: str | Named,
    input: object = None,  # noqa: A002 - the name of the SQL argument
    *,
    queue: str | None = None,
    priority: int = 0,
    run_at: datetime | None = None,
    max_attempts: int | None = None,
    timeout: timedelta | None = None,
    deadline: datetime | None = None,
    idempotency_key: str | None = None,
    correlation_id: str | None = None,
    run_id: RunId | None = None,
    tags: Sequence[str] | None = None,
    budget: Budget | Mapping[str, object] | None = None,
    project: str | None = None,
) -> Statement[UUID]:
    """Start a run of `handler` and return its id; what is not given, the handler's settings say.

    `input` is anything that is JSON: a pydantic model, a dataclass, a dict; None is `{}`. `timeout`
    bounds one execution, `deadline` the whole run, `budget` what it and all below it spend. The
    same `idempotency_key` returns the same run.
    Raises BadRequest, IdempotencyConflict, UnknownProject, NotJson.
    """
    return Statement(
        b"select pgflow.enqueue(%(handler)s, %(input)s::jsonb, queue => %(queue)s,"
        b" priority => %(priority)s::integer, run_at => %(run_at)s,"
        b" max_attempts => %(max_attempts)s::integer, timeout => %(timeout)s,"
        b" deadline => %(deadline)s, idempotency_key => %(idempotency_key)s,"
        b" correlation_id => %(correlation_id)s, run_id => %(run_id)s::uuid,"
        b" tags => %(tags)s::text[], budget => %(budget)s::jsonb, project => %(project)s)",
        {
            **_handler(handler, queue, max_attempts, timeout),
            "input": "{}" if input is None else dumps(input, "the input"),
            "priority": _int4(priority),
            "run_at": run_at,
            "deadline": deadline,
            "idempotency_key": idempotency_key,
            "correlation_id": correlation_id,
            "run_id": run_id,
            "tags": None if tags is None else list(tags),
            "budget": _json(budget, "the budget"),
            "project": project,
        },
        _value,
    )


ENQUEUE_MANY = (
    b"select pgflow.enqueue_many(%(handler)s, %(inputs)b::jsonb[], queue => %(queue)s,"
    b" priority => %(priority)s::integer, run_at => %(run_at)s,"
    b" max_attempts => %(max_attempts)s::integer, timeout => %(timeout)s,"
    b" deadline => %(deadline)s, idempotency_keys => %(idempotency_keys)s::text[],"
    b" correlation_id => %(correlation_id)s, tags => %(tags)s::text[], project => %(project)s)"
)


def enqueue_many(
    handler: str | Named,
    inputs: Sequence[object],
    *,
    queue: str | None = None,
    priority: int = 0,
    run_at: datetime | None = None,
    max_attempts: int | None = None,
    timeout: timedelta | None = None,
    deadline: datetime | None = None,
    idempotency_keys: Sequence[str] | None = None,
    correlation_id: str | None = None,
    tags: Sequence[str] | None = None,
    project: str | None = None,
) -> Statement[list[UUID]]:
    """Start a run of `handler` for each input, in one statement; their ids come in that order.

    Arguments and errors are those of `enqueue`; `idempotency_keys` has one key for each input.
    """
    return Statement(
        ENQUEUE_MANY,
        {
            **_handler(handler, queue, max_attempts, timeout),
            "inputs": ["{}" if i is None else dumps(i, "an input") for i in inputs],
            "priority": _int4(priority),
            "run_at": run_at,
            "deadline": deadline,
            "idempotency_keys": None if idempotency_keys is None else list(idempotency_keys),
            "correlation_id": correlation_id,
            "tags": None if tags is None else list(tags),
            "project": project,
        },
        _values,
    )


def cancel(
    run_id: RunId, reason: str | None = None, *, project: str | None = None
) -> Statement[str]:
    """End a live run as cancelled and return its state; on a finished run a no-op.

    A running handler is interrupted. Raises UnknownRun.
    """
    return Statement(
        b"select pgflow.cancel(%(run_id)s::uuid, %(reason)s, %(project)s)",
        {"run_id": run_id, "reason": reason, "project": project},
        _value,
    )


def pause(
    run_id: RunId,
    reason: str | None = None,
    *,
    hold_deadlines: bool = False,
    project: str | None = None,
) -> Statement[str]:
    """Pause a live run and return its state.

    Its deadlines run on and take effect when it is resumed; with `hold_deadlines` they stand still
    and are moved on. Raises BadRequest, UnknownRun, AlreadyFinished.
    """
    return Statement(
        b"select pgflow.pause(%(run_id)s::uuid, %(reason)s, hold_deadlines => %(hold_deadlines)s,"
        b" project => %(project)s)",
        {
            "run_id": run_id,
            "reason": reason,
            "hold_deadlines": hold_deadlines,
            "project": project,
        },
        _value,
    )


def resume(
    run_id: RunId, command: Mapping[str, object] | None = None, *, project: str | None = None
) -> Statement[str]:
    """Let a paused run go on and return its state.

    `command`: {"resume": value} is what the interrupted call returns, {"update": {key: value}}
    replaces journal entries first, of a flow the values of channels; none: it just goes on.
    Raises BadRequest, UnknownRun, UnknownEntry, AlreadyFinished, NotWaiting.
    """
    return Statement(
        b"select pgflow.resume(%(run_id)s::uuid, %(command)s::jsonb, %(project)s)",
        {
            "run_id": run_id,
            "command": dumps(command or {"continue": True}, "the command"),
            "project": project,
        },
        _value,
    )


def retry(run_id: RunId, *, project: str | None = None) -> Statement[UUID]:
    """Do a finished run's work again and return the new id. Raises UnknownRun, IllegalMove."""
    return Statement(
        b"select pgflow.retry(%(run_id)s::uuid, %(project)s)",
        {"run_id": run_id, "project": project},
        _value,
    )


def emit(
    run_id: RunId,
    type: str,  # noqa: A002 - the name of the SQL argument
    payload: object = None,
    *,
    idempotency_key: str | None = None,
    project: str | None = None,
) -> Statement[Event]:
    """Append an event to a live run's timeline; the same key again returns the first event.

    Raises BadRequest, UnknownRun, AlreadyFinished, NotJson.
    """
    return Statement(
        b"select e.run_id, e.event_no, e.type, e.key, e.payload, e.at, e.by"
        b" from pgflow.emit(%(run_id)s::uuid, %(type)s, %(payload)s::jsonb, %(idempotency_key)s,"
        b" %(project)s) as e",
        {
            "run_id": run_id,
            "type": type,
            "payload": _json(payload, "the payload"),
            "idempotency_key": idempotency_key,
            "project": project,
        },
        lambda rows: Event(**rows[0]),
    )


def signal(
    run_id: RunId,
    name: str,
    payload: object = None,
    *,
    idempotency_key: str | None = None,
    project: str | None = None,
) -> Statement[int]:
    """Put a signal into a run's mailbox and return its number; the same key again the first's.

    Raises BadRequest, UnknownRun, AlreadyFinished, IdempotencyConflict.
    """
    return Statement(
        b"select pgflow.signal(%(run_id)s::uuid, %(name)s, %(payload)s::jsonb,"
        b" %(idempotency_key)s, %(project)s)",
        {
            "run_id": run_id,
            "name": name,
            "payload": _json(payload, "the payload"),
            "idempotency_key": idempotency_key,
            "project": project,
        },
        _value,
    )


def signal_many(
    run_ids: Sequence[RunId],
    name: str,
    payloads: Sequence[object] | None = None,
    *,
    idempotency_key: str | None = None,
    project: str | None = None,
) -> Statement[list[Outcome]]:
    """Signal many runs at once; returns a line for each not simply done, with why.

    A line says `already` where the key was used for the same signal, or `refused`: an unknown or a
    finished run keeps no other from its signal. Raises BadRequest.
    """
    return Statement(
        b"select s.run_id::text, s.outcome, s.state, s.code, s.detail"
        b" from pgflow.signal_many(%(run_ids)s::text[]::uuid[], %(name)s, %(payloads)s::jsonb[],"
        b" %(idempotency_key)s, %(project)s) as s",
        {
            "run_ids": [str(run_id) for run_id in run_ids],
            "name": name,
            "payloads": None if payloads is None else [_json(p, "a payload") for p in payloads],
            "idempotency_key": idempotency_key,
            "project": project,
        },
        _outcomes,
    )


def resolve_tool(
    run_id: RunId, key: str, result: object = None, *, project: str | None = None
) -> Statement[str]:
    """Give a run the result of a tool call and return the run's state; the same again is harmless.

    Raises BadRequest, UnknownRun, AlreadyFinished, NotWaiting, DecisionConflict.
    """
    return Statement(
        b"select pgflow.resolve_tool(%(run_id)s::uuid, %(key)s, %(result)s::jsonb, %(project)s)",
        {"run_id": run_id, "key": key, "result": _json(result, "the result"), "project": project},
        _value,
    )


def fail_tool(run_id: RunId, key: str, error: str, *, project: str | None = None) -> Statement[str]:
    """Say that a tool call failed, which uses an attempt, and return the run's state.

    Raises UnknownRun, AlreadyFinished, NotWaiting.
    """
    return Statement(
        b"select pgflow.fail_tool(%(run_id)s::uuid, %(key)s, %(error)s, %(project)s)",
        {"run_id": run_id, "key": key, "error": error, "project": project},
        _value,
    )


def fork(
    run_id: RunId,
    step: str | None = None,
    updates: Mapping[str, object] | None = None,
    *,
    super_step: int | None = None,
    project: str | None = None,
) -> Statement[UUID]:
    """Make a run that begins with another's journal, without `step` and what came after it.

    `updates` replaces values of the entries before. A flow is forked after a `super_step` instead,
    with the values of its channels then. Raises BadRequest, UnknownRun, UnknownEntry, IllegalMove.
    """
    return Statement(
        b"select pgflow.fork(%(run_id)s::uuid, %(step)s, %(updates)s::jsonb,"
        b" %(super_step)s::integer, %(project)s)",
        {
            "run_id": run_id,
            "step": step,
            "updates": _json(updates, "the updates"),
            "super_step": _int4(super_step),
            "project": project,
        },
        _value,
    )


def set_breakpoint(
    run_id: RunId,
    step: str,
    moment: Literal["before", "after"] = "before",
    *,
    project: str | None = None,
) -> Statement[list[str]]:
    """Have a run pause before or after a step; returns its breakpoints.

    Raises BadRequest, UnknownRun, AlreadyFinished.
    """
    return Statement(
        b"select pgflow.set_breakpoint(%(run_id)s::uuid, %(step)s, %(moment)s, %(project)s)",
        {"run_id": run_id, "step": step, "moment": moment, "project": project},
        _value,
    )


def clear_breakpoint(
    run_id: RunId,
    step: str,
    moment: Literal["before", "after"] = "before",
    *,
    project: str | None = None,
) -> Statement[list[str]]:
    """Take a breakpoint away; returns those that are left.

    Raises BadRequest, UnknownRun, AlreadyFinished.
    """
    return Statement(
        b"select pgflow.clear_breakpoint(%(run_id)s::uuid, %(step)s, %(moment)s, %(project)s)",
        {"run_id": run_id, "step": step, "moment": moment, "project": project},
        _value,
    )
