"""What a worker says of a run that it holds."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from pgflow._json import dumps
from pgflow.models import Lease, Outcome

_MESSAGE_LIMIT = 8_000
_TRACEBACK_LIMIT = 20_000


@dataclass(slots=True)
class Completed:
    """The handler returned; `output` is json text, and `writes` what complete() takes as such."""

    lease: Lease
    output: str
    writes: str | None = None


@dataclass(slots=True)
class Committed:
    """The handler returned, and its own transaction has completed the run; None: it was done."""

    lease: Lease
    outcome: Outcome | None


@dataclass(slots=True)
class Failed:
    """The execution failed; `error` is json text of type, message and traceback."""

    lease: Lease
    code: str
    detail: str
    error: str
    retry: bool = True


@dataclass(slots=True)
class Released:
    """The run goes back without using an attempt."""

    lease: Lease
    reason: str


@dataclass(slots=True)
class Waiting:
    """The handler waits; `park` is what park() takes, as json text."""

    lease: Lease
    park: str


@dataclass(slots=True)
class Step:
    """The result of a step, as json text, which the handler waits to have journalled."""

    lease: Lease
    key: str
    digest: str
    value: str
    undo: bool = False


@dataclass(slots=True)
class Usage:
    """A call of a model; `call` is what record_usage() takes, as json text."""

    lease: Lease
    key: str
    call: str


End = Completed | Committed | Failed | Released | Waiting


def failure(
    lease: Lease,
    code: str,
    error: BaseException | str,
    *,
    retry: bool = True,
) -> Failed:
    """Make the report of a failed execution, its texts bounded in size."""
    if isinstance(error, str):
        kind, message, trace = code, error, ""
    else:
        kind, message = type(error).__name__, _words(error)
        trace = "".join(traceback.format_exception(error))
    message = message[:_MESSAGE_LIMIT]
    trace = trace[-_TRACEBACK_LIMIT:]
    detail = message if isinstance(error, str) else f"{kind}: {message}"
    return Failed(
        lease=lease,
        code=code,
        detail=storable(detail),
        error=dumps({"type": kind, "message": storable(message), "traceback": storable(trace)}),
        retry=retry,
    )


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever the handler's own exception does
        return "(its message cannot be printed)"


def storable(text: str) -> str:
    """Replace NUL and lone surrogates, which would make the database refuse a whole report."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()
