"""The database itself: bring it up to date, start one of one's own, look for what is odd."""

from __future__ import annotations

import shlex
from typing import Any

import click

from pgflow import schema
from pgflow.embedded import EmbeddedServer

from .errors import DOCTOR
from .options import json_option
from .output import print_json, print_record, print_rows
from .session import Session, global_options, pass_session


@click.command()
@click.option(
    "--direct-dsn",
    metavar="DSN",
    envvar="PGFLOW_DIRECT_DSN",
    show_envvar=True,
    help="The server's own address if the DSN is a pooler's.",
)
@json_option
@global_options
@pass_session
def migrate(session: Session, *, direct_dsn: str | None, as_json: bool) -> None:
    """Bring the database to this program's version.

    Harmless when it is there already; refused when it is newer.
    """
    done = schema.migrate(direct_dsn or session.target())
    if as_json:
        print_json(done)
        return
    for name in done.applied:
        click.echo(f"applied {name}")
    click.echo(f"the database is at version {done.version}")


@click.command()
@click.option("--stop", is_flag=True, help="Stop the server instead.")
@json_option
@global_options
@pass_session
def dev(session: Session, *, stop: bool, as_json: bool) -> None:
    """Start the embedded server, migrate it and leave it running.

    It is the server of all commands without a DSN. Its data are in $PGFLOW_DATA_DIR, else where the
    user's programs keep their data.
    """
    if session.dsn:
        raise click.UsageError("dev has a server of its own; a DSN is for the other commands")
    server = EmbeddedServer()
    if stop:
        _stop(server, as_json=as_json)
        return
    server.start(detached=True)
    schema.migrate(server.socket_dsn)
    told = {"dsn": server.dsn, "pid": server.pid, "data_dir": server.data_dir, "log": server.log}
    if as_json:
        print_json(told)
        return
    print_record(told)
    click.echo("\nIt goes on until: pgflow dev --stop. Try next:")
    click.echo(f"    export PGFLOW_DSN={shlex.quote(server.dsn)}")
    click.echo("""    pgflow enqueue hello '{"name": "world"}'""")
    click.echo("    pgflow runs")


def _stop(server: EmbeddedServer, *, as_json: bool) -> None:
    was_running = server.is_running()
    server.stop()
    if as_json:
        print_json({"was_running": was_running})
    else:
        click.echo("stopped" if was_running else "was not running")


@click.command()
@json_option
@global_options
@pass_session
def maintain(session: Session, *, as_json: bool) -> None:
    """Make partitions and take away what is past its retention, now.

    Workers do this all the time.
    """
    with session.client() as client:
        while True:
            done = client.maintain()
            if as_json:
                print_json(done)
            elif done.did is not None:
                click.echo(done.did)
            if done.again_in:
                break
    if not as_json:
        click.echo(f"blocked by {done.blocked}" if done.blocked else "nothing left to do")


@click.command()
@json_option
@global_options
@pass_session
@click.pass_context
def doctor(ctx: click.Context, session: Session, *, as_json: bool) -> None:
    """Look for what is odd; exit code 4 if something is broken."""
    status = schema.status(session.target())
    rows: list[dict[str, Any]] = [_judged(status)]
    if status.database is not None:
        with session.client() as client:
            rows += client.doctor()
    print_rows(rows, ["level", "check", "detail", "hint"], as_json=as_json)
    if any(row["level"] == "fail" for row in rows):
        ctx.exit(DOCTOR)


def _judged(status: schema.SchemaStatus) -> dict[str, Any]:
    row = {"level": "fail", "check": "schema", "hint": "Run: pgflow migrate"}
    if status.database is None:
        return {**row, "detail": "the database was never migrated"}
    if status.is_newer:
        detail = f"pgflow {status.database} migrated the database; this is {status.program}"
        return {**row, "detail": detail, "hint": "Upgrade this program."}
    if status.pending:
        return {**row, "detail": f"migrations not applied: {', '.join(status.pending)}"}
    if not status.is_current:
        return {**row, "detail": f"its functions are not those of this program, {status.program}"}
    return {**row, "level": "ok", "detail": f"at version {status.database}", "hint": None}
