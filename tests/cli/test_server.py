from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgflow.embedded import EmbeddedServer
from pgflow.schema import Program
from tests.cli.conftest import Command, work

NOWHERE = "postgresql://127.0.0.1:1/nowhere"
ID = "00000000-0000-0000-0000-000000000000"


def test_migrate_prints_what_it_applied(anywhere: Command, empty_dsn: str) -> None:
    shipped = [path.stem for path in sorted(Program().migrations.glob("[0-9]*.sql"))]
    shipped = [name for name in shipped if not name.endswith(".rollback")]
    done = anywhere("--dsn", empty_dsn, "migrate")
    assert (done.code, done.err) == (0, "")
    *applied, last = done.lines
    assert applied == [f"applied {name}" for name in shipped]
    assert last == f"the database is at version {Program().version}"
    (again,) = anywhere("--dsn", empty_dsn, "migrate", "--json").objects
    assert again == {"applied": [], "version": Program().version}


def test_a_newer_database_is_left_alone(pgflow: Command, db: psycopg.Connection) -> None:
    db.execute(
        "insert into pgflow_meta.version (version, migrations, sql_sha256)"
        " select '999.0', migrations, sql_sha256 from pgflow_meta.version limit 1"
    )
    done = pgflow("migrate")
    assert done.code == 1
    assert "nothing was changed" in done.err
    (schema, *_) = pgflow("doctor", "--json").objects
    assert (schema["level"], schema["hint"]) == ("fail", "Upgrade this program.")


@pytest.mark.parametrize(
    "line",
    [
        "migrate", "doctor", "enqueue h", "runs", f"show {ID}", f"timeline {ID}", "inbox",
        f"approve {ID}", f"reject {ID}", f"cancel {ID}", f"retry {ID}", f"pause {ID}",
        "pause --queue q", f"resume {ID}", "resume --queue q", "queues", "workers",
    ],
)  # fmt: skip
def test_a_dsn_that_leads_nowhere_gets_its_own_exit_code(anywhere: Command, line: str) -> None:
    done = anywhere("--dsn", NOWHERE, *line.split())
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines()[0].startswith("error: the server cannot be reached: ")
    assert "Connection refused" in done.err
    assert "Traceback" not in done.err


def test_an_option_goes_before_the_environment(anywhere: Command, dsn: str) -> None:
    for words in (("--dsn", dsn, "runs"), ("runs", "--dsn", dsn)):
        assert anywhere(*words, env={"PGFLOW_DSN": NOWHERE}).code == 0
    env = {"PGFLOW_DSN": dsn, "PGFLOW_PROJECT": "nowhere"}
    assert anywhere("runs", env=env).code == 1
    assert anywhere("runs", "--project", "default", env=env).code == 0


@pytest.mark.parametrize("line", ["enqueue h", "runs", f"show {ID}", "queues", f"approve {ID}"])
def test_a_database_without_pgflow_is_told_of(anywhere: Command, empty_dsn: str, line: str) -> None:
    done = anywhere("--dsn", empty_dsn, *line.split())
    assert done.code == 1
    assert "hint: This database has no pgflow, or an old one. Run: pgflow migrate" in done.err


def test_doctor_finds_nothing_wrong_where_nothing_is(pgflow: Command, dsn: str) -> None:
    assert pgflow("migrate").code == 0  # the template may be older than what is being edited
    pgflow("enqueue", "add", "[1, 2]")
    asyncio.run(work(dsn))
    done = pgflow("doctor", "--json")
    assert [row for row in done.objects if row["level"] == "fail"] == []
    assert done.code == 0
    assert {row["check"] for row in done.objects} >= {"schema", "workers", "tick"}


def test_maintain_makes_the_partitions_that_are_missing(pgflow: Command, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as db:
        (last,) = db.execute("select max(period) from pgflow.period").fetchone() or ("",)
        db.execute(f"drop table pgflow.event_{last}")
        done = pgflow("maintain")
        assert done.lines == [f"made event_{last}", "nothing left to do"]
        assert pgflow("maintain").lines == ["nothing left to do"]
        db.execute(f"drop table pgflow.journal_{last}; delete from pgflow.upkeep")
        steps = pgflow("maintain", "--json").objects
        assert steps[0] == {"did": f"made journal_{last}", "blocked": None, "again_in": 0}
        assert steps[-1]["did"] is None


def test_maintain_says_what_is_in_its_way(pgflow: Command, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as db, psycopg.connect(dsn) as reader:
        db.execute(
            "update pgflow.period set expired_at = now() where period ="
            " (select min(period) from pgflow.period)"
        )
        reader.execute("select from pgflow.run_finished")
        done = pgflow("maintain")
        assert done.code == 0
        assert done.lines[-1].startswith("blocked by drop: canceling statement due to lock")


@pytest.mark.usefixtures("remains")
def test_doctor_fails_where_runs_have_no_worker(pgflow: Command) -> None:
    done = pgflow("doctor")
    assert done.code == 4
    assert done.lines[0].split() == ["level", "check", "detail", "hint"]
    assert any(line.startswith("fail   queue without worker") for line in done.lines)


def test_doctor_fails_where_nothing_is_migrated(anywhere: Command, empty_dsn: str) -> None:
    done = anywhere("--dsn", empty_dsn, "doctor", "--json")
    assert done.code == 4
    assert [(row["level"], row["check"]) for row in done.objects] == [("fail", "schema")]


@pytest.fixture
def home(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the place of an embedded server that is the one for commands without a DSN."""
    monkeypatch.setenv("PGFLOW_DATA_DIR", str(data_dir))
    yield data_dir
    EmbeddedServer(data_dir).stop()


def own_process(*words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PGFLOW_DSN"}
    command = [sys.executable, "-m", "pgflow.cli", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)


@pytest.mark.slow
def test_dev_leaves_a_server_running_that_the_other_commands_use(
    anywhere: Command, home: Path
) -> None:
    started = own_process("dev")
    assert (started.returncode, started.stderr) == (0, "")
    assert f"data_dir  {home}" in started.stdout
    server = EmbeddedServer(home)
    assert f"export PGFLOW_DSN={server.dsn}" in started.stdout
    assert own_process("enqueue", "hello").returncode == 0
    assert server.is_running()
    assert len(anywhere("runs", "--json", "--dsn", server.dsn).objects) == 1
    (again,) = anywhere("dev", "--json").objects
    assert (again["dsn"], again["pid"]) == (server.dsn, server.pid)
    assert anywhere("dev", "--stop").out == "stopped\n"
    assert not server.is_running()
    assert anywhere("dev", "--stop").out == "was not running\n"
    assert anywhere("dev", "--stop", "--json").objects == [{"was_running": False}]


@pytest.mark.slow
def test_a_command_without_a_server_starts_one_for_itself(home: Path) -> None:
    done = own_process("migrate")
    assert done.returncode == 0
    assert done.stderr == "note: starting the embedded server; pgflow dev leaves it running\n"
    assert not EmbeddedServer(home).is_running()


@pytest.mark.usefixtures("home")
def test_a_server_that_cannot_be_started_is_told_of(
    anywhere: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLOW_PG_BIN", "/nowhere")
    done = anywhere("dev")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error: $PGFLOW_PG_BIN is /nowhere")
