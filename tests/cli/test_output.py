"""What is printed where: on a terminal, into a pipe, to somebody who has gone."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgflow import Client
from tests.cli.conftest import Command, Remains, find_main, leave_remains
from tests.conftest import database

COMMAND = [sys.executable, "-m", "pgflow.cli"]


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """Return one database for all tests here: they look, or add runs of their own."""
    with database(server, template=template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def remains(dsn: str) -> Remains:
    return leave_remains(dsn)


def on_terminal(dsn: str, *words: object, columns: int) -> str:
    """Return what the command shows on a terminal of that width, with its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    ignored = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
    env = {k: v for k, v in os.environ.items() if k not in ignored}
    env |= {"PGFLOW_DSN": dsn, "TERM": "xterm"}
    command = [*COMMAND, *map(str, words)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        while chunk := read(ours):
            shown += chunk
    os.close(ours)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n")


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # how Linux says that nobody writes any more
        return b""


def plain(shown: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()


@pytest.mark.parametrize("columns", [60, 200])
@pytest.mark.parametrize("line", ["runs", "queues", "inbox", "timeline {run}"])
def test_a_table_fits_the_terminal_and_names_what_does_not(
    dsn: str, remains: Remains, line: str, columns: int
) -> None:
    shown = on_terminal(dsn, *line.format(run=remains.waiting).split(), columns=columns)
    lines = plain(shown)
    assert max(map(len, lines)) <= columns
    assert (columns == 60) == any(told.startswith("no room for: ") for told in lines)


def test_ids_are_never_cut(dsn: str, remains: Remains) -> None:
    lines = plain(on_terminal(dsn, "runs", "--handler", "add", columns=60))
    assert lines[1].startswith(f"{remains.pending}  pending")
    _, first, second, *_ = plain(on_terminal(dsn, "inbox", columns=30))
    assert f"{first}{second.strip()}" == str(remains.task)


@pytest.mark.usefixtures("remains")
def test_a_terminal_has_colours(dsn: str) -> None:
    assert "\x1b[31mfailed" in on_terminal(dsn, "runs", "--state", "failed", columns=80)


def test_an_empty_table_says_so(dsn: str) -> None:
    assert plain(on_terminal(dsn, "runs", "--queue", "empty", columns=120))[1:] == ["none"]


def test_texts_cannot_send_the_terminal_commands(
    dsn: str, succeeds: Command, db: psycopg.Connection
) -> None:
    evil = "\x1b]0;owned\x07\x9b31m\nhandler"
    run = Client(db).enqueue(evil, correlation_id=evil)
    escaped = r"\x1b]0;owned\x07\x9b31m\x0ahandler"
    assert escaped in succeeds("runs").out
    assert escaped in on_terminal(dsn, "runs", columns=200)
    shown = succeeds("show", run).out
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert r"    \x1b]0;owned\x07\x9b31m" in shown


def test_wide_characters_are_aligned(succeeds: Command, db: psycopg.Connection) -> None:
    Client(db).enqueue("日本語", queue="wide")
    Client(db).enqueue("abcdef", queue="wide")
    head, *lines = succeeds("runs", "--queue", "wide").lines
    assert "  handler  error_code" in head
    assert {line[head.index("handler") :].split("  -")[0] for line in lines} == {
        "abcdef ", "日本語 "
    }  # fmt: skip


def test_whoever_stops_reading_is_not_told(dsn: str, db: psycopg.Connection) -> None:
    """What they don't read is more than a pipe holds."""
    Client(db).enqueue_many("h", [{"n": n} for n in range(1000)], queue="many")
    for words in (["runs", "--limit", "1000"], ["runs", "--limit", "1000", "--json"]):
        process = subprocess.Popen(
            [*COMMAND, "--dsn", dsn, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 141


def test_ctrl_c_is_quiet(dsn: str, db: psycopg.Connection) -> None:
    """The command waits for a lock when it is interrupted."""
    name = "interrupted"
    with db.transaction():
        db.execute("lock table pgflow.run in access exclusive mode")
        command = [*COMMAND, "--dsn", f"{dsn} application_name={name}", "runs"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            waiting = (
                "select true from pg_stat_activity"
                " where application_name = %s and wait_event_type = 'Lock'"
            )
            with psycopg.connect(dsn, autocommit=True) as looking:
                while not looking.execute(waiting, [name]).fetchone():
                    assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_the_states_to_choose_from_are_the_databases(db: psycopg.Connection) -> None:
    (state,) = [p for p in find_main().commands["runs"].params if p.name == "state"]
    known = {row[0] for row in db.execute("select state from pgflow.state")}
    assert set(getattr(state.type, "choices", ())) == known


def test_no_module_of_the_command_holds_sql() -> None:
    for path in (Path(__file__).parents[2] / "cli").glob("*.py"):
        assert "select " not in path.read_text()
