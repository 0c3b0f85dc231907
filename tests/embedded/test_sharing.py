"""Who starts, uses and stops the server of a data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from pgflow.embedded import EmbeddedServer
from pgflow.errors import ServerNotRunning, ServerStartFailed

# Starts the server, tells its address, and leaves it when its input ends.
USER = """
import sys
from pgflow.embedded import EmbeddedServer
with EmbeddedServer(sys.argv[1]) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


class User:
    """Another process that uses the server."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.sees = int(self._process.stdout.readline())

    def leave(self) -> None:
        self._process.communicate("", timeout=30)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_a_second_process_uses_the_server_of_the_first(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        other = User(data_dir)
        assert other.sees == server.pid
        other.leave()
        assert server.is_running()


def test_the_last_one_to_leave_stops_it(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir).start()
    other = User(data_dir)
    server.close()
    assert server.is_running()
    other.leave()
    assert not server.is_running()


def test_when_its_only_user_is_killed_it_goes_on_and_the_next_takes_it_over(data_dir: Path) -> None:
    first = User(data_dir)
    first.kill()
    server = EmbeddedServer(data_dir)
    assert server.is_running()
    with server:
        assert server.pid == first.sees
    assert not server.is_running()


def test_a_detached_server_stays_until_it_is_stopped(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir).start(detached=True)
    server.close()
    assert server.is_running()
    with EmbeddedServer(data_dir) as other:
        assert other.pid == server.pid
    assert server.is_running()
    server.stop()
    assert not server.is_running()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.socket_dsn)


def test_a_server_started_again_after_a_detached_one_is_not_detached(data_dir: Path) -> None:
    EmbeddedServer(data_dir).start(detached=True).stop()
    with EmbeddedServer(data_dir) as server:
        pass
    assert not server.is_running()


def test_stop_ends_it_whoever_uses_it_and_twice_is_harmless(data_dir: Path) -> None:
    user = User(data_dir)
    server = EmbeddedServer(data_dir)
    server.stop()
    server.stop()
    assert not server.is_running()
    user.leave()


def test_many_that_start_at_once_get_one_server(data_dir: Path) -> None:
    users = [
        subprocess.Popen([sys.executable, "-c", USER, str(data_dir)], stdin=-1, stdout=-1)
        for _ in range(4)
    ]
    seen = {process.stdout.readline() for process in users if process.stdout}
    for process in users:
        process.communicate(b"", timeout=30)
    assert len(seen) == 1


def test_a_forked_child_that_exits_leaves_its_parents_server_alone(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        child = os.fork()
        if not child:
            server.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert server.is_running()


def test_before_the_first_start_there_is_no_address_and_stop_does_nothing(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    server.stop()
    server.close()
    assert not server.is_running()
    with pytest.raises(ServerNotRunning):
        _ = server.socket_dsn


def test_a_server_that_lives_but_does_not_answer_is_told_after_the_time_given(
    data_dir: Path,
) -> None:
    with EmbeddedServer(data_dir) as server:
        os.kill(server.pid, signal.SIGSTOP)
        before = time.monotonic()
        with pytest.raises(ServerStartFailed, match="does not answer"):
            EmbeddedServer(data_dir, timeout=0.1).start()
        assert time.monotonic() - before < 10
        os.kill(server.pid, signal.SIGCONT)


def test_a_stopped_process_does_not_keep_the_server_from_being_stopped(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert not server.is_running()
