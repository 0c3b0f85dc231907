"""The group of all commands, and what any of them does with an error."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from pgflow import __version__

from . import (
    agents,
    artifacts,
    control,
    decide,
    flow,
    journal,
    prices,
    queues,
    report,
    runs,
    server,
    step_types,
    subscriptions,
    tasks,
    tools,
    watch,
    worker,
)
from .errors import INTERRUPTED, READER_GONE, Failed, discard, explain
from .session import Session, global_options


class Group(click.Group):
    """Tells errors in lines of its own, without tracebacks, and exits with the code they have."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401 - click's
        """Parse the global options."""
        with _told():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        """Parse the command's arguments and run it."""
        with _told():
            return super().invoke(ctx)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        raise
    except BrokenPipeError:
        discard(sys.stdout)
        raise click.exceptions.Exit(READER_GONE) from None
    except (KeyboardInterrupt, click.Abort):
        raise click.exceptions.Exit(INTERRUPTED) from None
    except Failed:
        raise
    except Exception as error:
        context = click.get_current_context(silent=True)
        if context is not None and context.ensure_object(Session).debug:
            traceback.print_exc()
        raise explain(error) from error


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@global_options
@click.version_option(__version__, prog_name="pgflow")
def main() -> None:
    """Job queue and durable run engine that lives in PostgreSQL.

    Without a DSN every command works on the embedded server of this user.

    \b
    Exit codes:
      0    done
      1    refused or failed; the error names its SQLSTATE (PF...)
      2    wrong usage, an --app that cannot be imported included
      3    no server answers there
      4    doctor found a failure
      130  interrupted
      141  whoever read the output has gone
    """  # noqa: D301 - click wants the control character


for command in (
    server.migrate,
    server.dev,
    worker.worker,
    runs.enqueue,
    flow.start,
    flow.flow,
    step_types.step_type,
    agents.agent,
    runs.runs,
    runs.show,
    runs.timeline,
    artifacts.artifact,
    artifacts.schema,
    journal.journal,
    report.report,
    report.context,
    watch.watch,
    watch.tail,
    subscriptions.subscription,
    tasks.inbox,
    tasks.task,
    decide.approve,
    decide.reject,
    decide.abort,
    tools.signal,
    tools.tool,
    control.cancel,
    control.retry,
    control.pause,
    control.resume,
    journal.fork,
    journal.breakpoint,
    prices.price,
    queues.queues,
    queues.workers,
    server.doctor,
    server.maintain,
):
    main.add_command(command)
