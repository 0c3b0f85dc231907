"""watch and tail: lines as they come, and nothing missed."""

from __future__ import annotations

import importlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from pgflow import Client
from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate
from tests.cli.conftest import Command, Remains

watch = importlib.import_module("pgflow.cli.watch")
moment = importlib.import_module("pgflow.cli.options").moment
COMMAND = [sys.executable, "-m", "pgflow.cli"]


class Going:
    """The command in a process of its own, and the lines that it has printed so far."""

    def __init__(self, dsn: str, *words: object) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PGFLOW_")}
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, words)],
            env={**env, "PGFLOW_DSN": dsn},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines[:]]

    def ends(self, *, interrupted: bool = False) -> tuple[int, str]:
        if interrupted:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self._reader.join(30)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()


@contextmanager
def going(dsn: str, *words: object) -> Iterator[Going]:
    command = Going(dsn, *words)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()
        command._reader.join()
        for pipe in (command.process.stdout, command.process.stderr):
            assert pipe is not None
            pipe.close()


def until(look: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + 30
    while not (answer := look()):
        assert time.monotonic() < give_up, "this never became true"
        time.sleep(0.01)
    return answer


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    with Client(dsn) as client:
        yield client


def wait_for(command: Going, count: int) -> None:
    """Wait until so many lines were printed."""
    until(lambda: len(command.lines) == count)


# ---- watch


def test_watch_prints_the_lines_of_a_completed_run(succeeds: Command, remains: Remains) -> None:
    lines = succeeds("watch", remains.completed).lines
    words = [line.split() for line in lines]
    assert [w[0] for w in words] == ["1", "2", "3", "4"]
    assert [w[3] for w in words] == [
        *("run.created", "run.started", "step.completed", "run.completed"),
    ]
    assert words[2][4] == "sum"
    assert lines[0].endswith('{"handler": "add"}')


def test_watch_prints_objects_for_programs(succeeds: Command, remains: Remains) -> None:
    objects = succeeds("watch", remains.completed, "--json").objects
    assert [line["event_no"] for line in objects] == [1, 2, 3, 4]
    assert objects[0]["run_id"] == str(remains.completed)
    assert objects[0]["payload"] == {"handler": "add"}
    assert objects[0]["at"].endswith("Z")


def test_watch_fails_for_a_run_that_failed_and_says_why(pgflow: Command, remains: Remains) -> None:
    done = pgflow("watch", remains.failed)
    assert done.code == 1
    assert done.lines[-1].split()[3] == "run.failed"
    assert done.err.splitlines() == [
        f"error: run {remains.failed} is failed (E-RUN-001)",
        "detail: ValueError: no such luck",
        f"hint: pgflow show {remains.failed}",
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_watch_fails_for_a_cancelled_run(
    pgflow: Command, client: Client, options: list[str]
) -> None:
    run_id = client.enqueue("a")
    client.cancel(run_id, "not needed")
    done = pgflow("watch", run_id, *options)
    assert done.code == 1
    assert f"error: run {run_id} is cancelled\n" in done.err
    assert "not needed" in done.err


def test_watch_refuses_an_unknown_run(pgflow: Command) -> None:
    done = pgflow("watch", uuid4())
    assert (done.code, done.out) == (1, "")
    assert "(PF102)" in done.err


def test_watch_says_that_no_server_answers(anywhere: Command) -> None:
    done = anywhere("watch", uuid4(), "--dsn", "host=127.0.0.1 port=1")
    assert done.code == 3


def test_lines_come_as_they_are_committed(dsn: str, client: Client) -> None:
    run_id = client.enqueue("a")
    with going(dsn, "watch", run_id, "--json") as command:
        until(lambda: len(command.lines) == 1)
        for n in range(3):
            client.emit(run_id, "progress", {"done": n, "of": 3})
            wait_for(command, n + 2)
        client.cancel(run_id)
        code, said = command.ends()
    assert code == 1
    assert said.startswith("error: run ")
    assert [line["event_no"] for line in command.objects()] == [1, 2, 3, 4, 5]


def test_ctrl_c_ends_it_as_interrupted(dsn: str, client: Client) -> None:
    run_id = client.enqueue("a")
    with going(dsn, "watch", run_id) as command:
        until(lambda: len(command.lines) == 1)
        assert command.ends(interrupted=True) == (130, "")
    assert client.runs(run_id=run_id)[0]["state"] == "pending"


def test_on_a_terminal_a_bar_shows_how_far_it_is(dsn: str, client: Client) -> None:
    run_id = client.enqueue("a")
    client.emit(run_id, "progress", {"pct": 40})
    client.emit(run_id, "note", "[red]no markup[/]")
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "LINES"}}
    env |= {"PGFLOW_DSN": dsn, "TERM": "xterm"}
    shown = b""
    with subprocess.Popen(
        [*COMMAND, "watch", str(run_id)], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        while b"40%" not in shown:
            shown += os.read(ours, 10_000)
        client.cancel(run_id)
        while chunk := _read(ours):
            shown += chunk
        assert process.wait(30) == 1
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert '"[red]no markup[/]"' in text
    assert "run.cancelled" in text
    assert "error: run" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # how Linux says that nobody writes any more
        return b""


@pytest.mark.parametrize(
    ("payload", "done"),
    [
        ({"pct": 40}, 0.4),
        ({"pct": 0}, 0.0),
        ({"pct": 140.5}, 1.0),
        ({"pct": -1}, 0.0),
        ({"done": 2, "of": 5}, 0.4),
        ({"done": 2, "of": 0}, None),
        ({"done": 2}, None),
        ({"pct": "40"}, None),
        ({"pct": True}, None),
        ({}, None),
        (40, None),
        (None, None),
    ],
)
def test_how_far_a_payload_says_the_run_is(payload: object, done: float | None) -> None:
    assert watch.fraction(payload) == done


# ---- tail


def keys(command: Going) -> list[tuple[str, int]]:
    return [(line["run_id"], line["event_no"]) for line in command.objects()]


def test_tail_prints_what_is_new_in_all_runs_once(dsn: str, client: Client) -> None:
    client.enqueue("old")
    with going(dsn, "tail", "--json") as command:
        first = client.enqueue("probe")
        until(lambda: command.lines or client.emit(first, "seen") is None)  # until it looks
        runs = client.enqueue_many("new", [1, 2, 3])
        for run_id in runs:
            client.emit(run_id, "seen")
            client.cancel(run_id)
        wanted = {(str(run_id), n) for run_id in runs for n in (1, 2, 3)}
        until(lambda: wanted <= set(keys(command)))
        time.sleep(1.2)  # a look or two more: nothing comes twice
        assert command.ends(interrupted=True) == (130, "")
    assert len(keys(command)) == len(set(keys(command)))
    assert {line["handler"] for line in command.objects()} == {"probe", "new"}


def test_tail_prints_a_line_that_was_committed_late(dsn: str, client: Client) -> None:
    client.enqueue("a")  # makes the queue, for which others would have to wait
    with (
        going(dsn, "tail", "--json", "--since", "1m", "--overlap", "30") as command,
        psycopg.connect(dsn) as conn,
    ):
        late = Client(conn).enqueue("late")
        client.enqueue_many("probe", [1, 2, 3])
        until(lambda: len(command.lines) == 4)
        time.sleep(1.2)  # a look or two later
        client.enqueue("probe")
        until(lambda: len(command.lines) == 5)
        conn.commit()
        until(lambda: (str(late), 1) in keys(command))
        assert command.ends(interrupted=True)[0] == 130
    assert len(keys(command)) == 6


def test_tail_chooses_by_type_and_handler_and_time(dsn: str, client: Client) -> None:
    runs = {name: client.enqueue(name) for name in ("a", "b", "c")}
    for run_id in runs.values():
        for kind in ("one", "two", "three"):
            client.emit(run_id, kind)
    words = ("--since", "1h", "--type", "one", "--type", "two", "--handler", "a", "--handler", "b")
    with going(dsn, "tail", *words) as command:
        until(lambda: len(command.lines) == 4)
        assert command.ends(interrupted=True)[0] == 130
    told = [line.split() for line in command.lines]
    assert [(w[0], w[1], w[2], w[5]) for w in told] == [
        (str(runs[name]), name, str(n), kind)
        for name in ("a", "b")
        for n, kind in ((2, "one"), (3, "two"))
    ]


def test_tail_reads_what_there_is_page_by_page(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_PAGE", 7)
    client.enqueue_many("a", range(40))  # all at one time
    begin = datetime.now(UTC) - timedelta(minutes=1)
    lines = watch._lines(client, begin, timedelta(seconds=10), {})
    assert len({next(lines)["run_id"] for _ in range(40)}) == 40


def test_tail_tells_runs_of_its_project_alone(dsn: str, client: Client) -> None:
    client.enqueue("a")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pgflow.create_project('shop')")
    run_id = client.enqueue("b", project="shop")
    with going(dsn, "tail", "--json", "--since", "1h", "--project", "shop") as command:
        until(lambda: command.lines)
        command.ends(interrupted=True)
    assert keys(command) == [(str(run_id), 1)]


@pytest.mark.slow
def test_tail_goes_on_after_a_restart_of_the_server(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        migrate(server.dsn)
        with Client(server.dsn) as client:
            one = client.enqueue("a")
            with going(server.dsn, "tail", "--json", "--since", "1h") as command:
                until(lambda: len(command.lines) == 1)
                os.kill(server.pid, signal.SIGKILL)
                time.sleep(1)
                server.start()
                other = until(lambda: _enqueue(client))
                until(lambda: len(command.lines) == 2)
                code, said = command.ends(interrupted=True)
    assert keys(command) == [(str(one), 1), (str(other), 1)]
    assert code == 130
    assert said in {"", "note: the server does not answer; trying again\n"}


def _enqueue(client: Client) -> UUID | None:
    try:
        return client.enqueue("b")
    except Exception:  # noqa: BLE001 - it is coming up
        return None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("2026-07-01T09:00Z", datetime(2026, 7, 1, 9, tzinfo=UTC)),
    ],
)
def test_since_is_a_time_or_a_span(text: str, meant: object) -> None:
    assert moment(text) == meant


@pytest.mark.parametrize("text", ["yesterday", "5", "m", "-5m", ""])
def test_what_is_neither_is_wrong_usage(pgflow: Command, text: str) -> None:
    done = pgflow("tail", "--since", text)
    assert done.code == 2
    assert "neither a time" in done.err
