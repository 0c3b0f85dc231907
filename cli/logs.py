"""The worker's logs on stderr: as text, or as one JSON object a line."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import Processor

from .errors import discard


def configure(form: Literal["text", "json"], level: str) -> None:
    """Send what pgflow and handlers log, by structlog or logging, to stderr.

    Each line has a time in UTC and, from within a handler, its run's id.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    after = _rendering(form)
    lines = _Lines(sys.stderr)
    structlog.configure(
        processors=[*before, *after],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lines,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(lines)
    foreign: list[Processor] = [
        *before,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
    ]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=foreign,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *after],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    logging.captureWarnings(capture=True)


def to_stderr() -> None:
    """Send what pgflow logs to stderr, where it doesn't mix with what a command prints.

    The pool would tell each try to connect.
    """
    structlog.configure(logger_factory=_Lines(sys.stderr))
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def _rendering(form: Literal["text", "json"]) -> list[Processor]:
    if form == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_as_json),
        ]
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    # The default formatter of exceptions prints the locals, secrets included.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _as_json(event: object, default: Callable[[Any], Any], **_: object) -> str:
    """Return JSON whatever is logged: what a handler logs must not fail."""
    try:
        return orjson.dumps(event, default=default, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a number of more than 64 bits, half a surrogate pair
        return json.dumps(event, default=repr)


class _Lines:
    """A structlog logger, and its factory, that writes whole lines; never fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, *_: object) -> _Lines:
        return self

    def msg(self, line: str) -> None:
        """Write a line. One that nobody can read is lost: the worker goes on without a log."""
        with self._lock:
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except BrokenPipeError:
                discard(self._stream)
            except (OSError, ValueError):
                pass

    debug = info = warning = error = critical = exception = log = fatal = msg


class _Handler(logging.Handler):
    """What programs send to logging, as lines."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            self._lines.msg(self.format(record))
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)
