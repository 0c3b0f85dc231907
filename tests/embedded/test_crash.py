"""The embedded server after its own death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from pgflow import _postgres
from pgflow.embedded import EmbeddedServer

# Starts the server and then never looks at it again: whoever kills it makes a zombie.
CARELESS = """
import sys, time
from pgflow.embedded import EmbeddedServer
print(EmbeddedServer(sys.argv[1]).start().pid, flush=True)
time.sleep(600)
"""


def test_after_kill_9_it_starts_again_at_the_same_address_with_its_data(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        address = server.dsn
        with psycopg.connect(address) as conn:
            conn.execute("create table kept as select 7 as number")
        for _ in range(3):
            # A connection that is open at the crash keeps the old memory in use for a moment.
            with psycopg.connect(address):
                os.kill(server.pid, signal.SIGKILL)
                assert server.start().dsn == address
        with psycopg.connect(address) as conn:
            assert conn.execute("select number from kept").fetchone() == (7,)


def test_a_zombie_is_not_taken_for_a_server(data_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CARELESS, str(data_dir)], stdout=subprocess.PIPE
    ) as careless:
        assert careless.stdout
        pid = int(careless.stdout.readline())
        try:
            os.kill(pid, signal.SIGKILL)
            while "(postgres) Z" not in Path(f"/proc/{pid}/stat").read_text():
                time.sleep(0.01)
            assert not _postgres.is_postgres(pid)
            with EmbeddedServer(data_dir) as server:
                assert server.pid != pid
        finally:
            careless.kill()


def test_a_lock_file_with_the_number_of_a_stranger_does_not_keep_it_from_starting(
    data_dir: Path,
) -> None:
    EmbeddedServer(data_dir).start().stop()
    stranger = os.getppid()
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{stranger}\n{data_dir}/postgres\n")
    with EmbeddedServer(data_dir) as server:
        assert server.is_running()


def test_an_initdb_that_was_killed_leaves_nothing_in_the_way(data_dir: Path) -> None:
    (data_dir / "postgres.new").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18")
    (data_dir / "password").write_text("of the killed one")
    if os.geteuid() == 0:
        data_dir.chmod(0o755)
    with EmbeddedServer(data_dir) as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("fault", ["config", "cluster"])
def test_a_start_that_fails_says_why(data_dir: Path, fault: str) -> None:
    settings = {"shared_buffers": "no number"} if fault == "config" else {}
    if fault == "cluster":
        EmbeddedServer(data_dir).start().stop()
        (data_dir / "postgres" / "global" / "pg_control").unlink()
    server = EmbeddedServer(data_dir, settings=settings)
    with pytest.raises(Exception, match=r"shared_buffers|pg_control|could not find the database"):
        server.start()
    assert not server.is_running()


# As a program does that turns SIGTERM into an exception.
INTERRUPTED = """
import signal, sys
from pgflow.embedded import EmbeddedServer
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
EmbeddedServer(sys.argv[1]).start()
"""


def test_an_interrupted_start_leaves_no_initdb_behind(data_dir: Path) -> None:
    starting = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(data_dir)])
    deadline = time.monotonic() + 60
    while not (data_dir / "postgres.new" / "base").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    starting.send_signal(signal.SIGTERM)
    assert starting.wait(timeout=60) == 1
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert [line for line in listed.stdout.splitlines() if str(data_dir) in line] == []
