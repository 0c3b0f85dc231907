"""The worker as a process of its own, from its start to the signal that ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgflow import Client

APP = """
import logging
import time
import warnings

import structlog

from pgflow import App, Context

app = App()
not_an_app = "text"
log = structlog.get_logger()


@app.handler(queue="greetings")
async def greet(ctx: Context, name: str) -> str:
    log.info("greeting", name=name, huge=10**30, half="\\ud800", odd={1: object})
    logging.getLogger("shop").warning("from %s", "logging")
    return await ctx.step("words", words, name)


def words(name: str) -> str:
    logging.getLogger("shop").info("from a thread", extra={"shelf": 3})
    return f"hello {name}"


@app.handler
async def follow() -> str:
    return str(await app.enqueue("greet", "you"))


@app.handler
async def troubled() -> None:
    secret = "hunter" + "2"
    try:
        raise ValueError("no luck")
    except ValueError:
        log.exception("in trouble")
    warnings.warn("old ways", stacklevel=1)


@app.handler
def stuck() -> None:
    time.sleep(60)
"""

Running = subprocess.Popen[str]


class Shop:
    """A folder with an app, a database, and the command in that folder."""

    def __init__(self, folder: Path, dsn: str, db: psycopg.Connection) -> None:
        self.folder = folder
        self.dsn = dsn
        self.db = db
        self.client = Client(db)

    def start(self, *words: str, app: str = "shop:app") -> Running:
        # As a service has it: what the machine's user has set doesn't count.
        env = {k: v for k, v in os.environ.items() if k not in {"PGFLOW_DSN", "PYTHONUNBUFFERED"}}
        env |= {"PGFLOW_DATA_DIR": "/nowhere"}
        return subprocess.Popen(
            [sys.executable, "-m", "pgflow.cli", "--dsn", self.dsn, "worker", "--app", app, *words],
            cwd=self.folder, env=env, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @contextmanager
    def worker(self, *words: str) -> Iterator[Running]:
        """Start a worker and wait until it is known; it must end by itself, or by a signal."""
        process = self.start(*words)
        try:
            self.wait("select true from pgflow.worker where pid = %s", process.pid)
            yield process
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    def wait(self, query: str, *values: object) -> None:
        give_up = time.monotonic() + 20
        while not (self.db.execute(query.encode(), values).fetchone() or [False])[0]:
            assert time.monotonic() < give_up, query
            time.sleep(0.01)

    def ends(self, run_id: UUID) -> dict[str, Any]:
        self.wait("select finished_at is not null from pgflow.runs where run_id = %s", run_id)
        return self.client.runs(run_id=run_id)[0]


@pytest.fixture
def shop(tmp_path: Path, dsn: str, db: psycopg.Connection) -> Shop:
    (tmp_path / "shop.py").write_text(APP)
    return Shop(tmp_path, dsn, db)


def ended(process: Running) -> tuple[int, list[str]]:
    """Send SIGTERM; return the exit code and the lines logged."""
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    return process.returncode, err.splitlines()


def test_a_worker_executes_runs_and_ends_at_a_signal(shop: Shop) -> None:
    run_id = shop.client.enqueue("greet", "Zoë", queue="greetings")
    with shop.worker() as process:
        assert shop.ends(run_id)["output"] == "hello Zoë"
        code, lines = ended(process)
    assert code == 0
    (worker,) = shop.client.worker_status()
    assert (worker["status"], worker["queues"]) == ("stopped", ["default", "greetings"])
    assert "worker_started" in lines[0]
    assert "worker_stopped" in lines[-1]
    assert not any("\x1b" in line for line in lines)
    assert any("greeting" in line and f"run_id={run_id}" in line for line in lines)
    assert any("from logging" in line and f"run_id={run_id}" in line for line in lines)


def test_ctrl_c_ends_a_worker_too(shop: Shop) -> None:
    with shop.worker() as process:
        assert process.stderr is not None
        while "worker_started" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err


EARLY = """

class Interrupting(dict):
    def values(self):
        import os, signal
        os.kill(os.getpid(), signal.SIGTERM)
        return super().values()


app.registry.handlers = Interrupting(app.registry.handlers)
"""


def test_a_signal_while_the_worker_registers_ends_it_like_any_other(shop: Shop) -> None:
    (shop.folder / "shop.py").write_text(APP + EARLY)
    process = shop.start("--queues", "default")
    _, err = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in err) == (0, False)


def test_json_logs_are_one_object_a_line_with_the_run(shop: Shop) -> None:
    run_id = shop.client.enqueue("greet", "Zoë", queue="greetings")
    with shop.worker("--log-format", "json", "--log-level", "debug") as process:
        shop.ends(run_id)
        _, lines = ended(process)
    told = [json.loads(line) for line in lines]
    assert all(line["timestamp"].endswith("Z") and line["level"] for line in told)
    of_run = {line["event"]: line for line in told if line.get("run_id") == str(run_id)}
    assert set(of_run) >= {
        "run_lease_acquired", "greeting", "from logging", "from a thread", "run_state_transition"
    }  # fmt: skip
    assert of_run["greeting"]["huge"] == 10**30
    assert of_run["from logging"]["level"] == "warning"
    assert (of_run["from a thread"]["logger"], of_run["from a thread"]["shelf"]) == ("shop", 3)
    assert len({line["worker_id"] for line in told if "worker_id" in line}) == 1


def test_the_log_level_bounds_what_is_logged(shop: Shop) -> None:
    run_id = shop.client.enqueue("greet", "Zoë", queue="greetings")
    with shop.worker("--log-format", "json", "--log-level", "warning") as process:
        shop.ends(run_id)
        _, lines = ended(process)
    assert [json.loads(line)["event"] for line in lines] == ["from logging"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_exceptions_are_logged_without_the_values_of_variables(shop: Shop, form: str) -> None:
    run_id = shop.client.enqueue("troubled")
    with shop.worker("--log-format", form) as process:
        assert shop.ends(run_id)["state"] == "completed"
        _, lines = ended(process)
    text = "\n".join(lines)
    assert "in trouble" in text
    assert "ValueError: no luck" in text
    assert "old ways" in text
    assert "hunter2" not in text


def test_what_handlers_enqueue_goes_to_the_workers_database(shop: Shop) -> None:
    run_id = shop.client.enqueue("follow")
    with shop.worker() as process:
        child = UUID(shop.ends(run_id)["output"])
        assert shop.ends(child)["output"] == "hello you"
        assert ended(process)[0] == 0


def test_a_worker_works_on_the_queues_that_it_is_told(shop: Shop) -> None:
    other = shop.client.enqueue("greet", "Zoë", queue="greetings")
    run_id = shop.client.enqueue("greet", "Ann", queue="vip")
    with shop.worker("--queues", "vip, new", "--concurrency", "3") as process:
        shop.ends(run_id)
        (worker,) = shop.client.worker_status()
        assert (sorted(worker["queues"]), worker["concurrency"]) == (["new", "vip"], 3)
        ended(process)
    assert shop.client.runs(run_id=other)[0]["state"] == "pending"


def test_a_thread_that_does_not_end_does_not_keep_the_process(shop: Shop) -> None:
    run_id = shop.client.enqueue("stuck")
    with shop.worker("--grace", "0.1") as process:
        shop.wait("select state = 'running' from pgflow.runs where run_id = %s", run_id)
        code, lines = ended(process)
    assert code == 0
    assert "threads_abandoned" in lines[-1]
    run = shop.client.runs(run_id=run_id)[0]
    assert (run["state"], run["attempt_count"]) == ("pending", 0)


def test_a_second_signal_does_not_wait_for_the_grace(shop: Shop) -> None:
    run_id = shop.client.enqueue("stuck")
    with shop.worker() as process:
        shop.wait("select state = 'running' from pgflow.runs where run_id = %s", run_id)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "worker_stopping" not in process.stderr.readline():
            assert process.poll() is None
        assert ended(process)[0] == 0
    assert shop.client.runs(run_id=run_id)[0]["state"] == "pending"


def test_a_worker_goes_on_when_nobody_reads_its_log(shop: Shop) -> None:
    with shop.worker() as process:
        assert process.stderr is not None
        process.stderr.close()
        process.stderr = None
        run_id = shop.client.enqueue("greet", "Zoë", queue="greetings")
        assert shop.ends(run_id)["output"] == "hello Zoë"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("app", "told"),
    [
        ("shop", "--app shop is not of the form module:name"),
        (":app", "is not of the form module:name"),
        ("nowhere:app", "there is no module nowhere in "),
        ("shop.jobs:app", "there is no module shop.jobs in "),
        ("shop:nothing", "module shop has no nothing"),
        ("shop:not_an_app", "shop:not_an_app is no pgflow.App but a str"),
        ("broken:app", "importing broken failed: ZeroDivisionError: division by zero ("),
        ("typo:app", "importing typo failed: SyntaxError: "),
        ("leaving:app", "importing leaving failed: SystemExit: 5 ("),
        ("missing:app", "importing missing failed: ModuleNotFoundError: No module named 'absent'"),
    ],
)
def test_an_app_that_cannot_be_had_is_told_with_the_reason(shop: Shop, app: str, told: str) -> None:
    (shop.folder / "broken.py").write_text("\n1 / 0\n")
    (shop.folder / "typo.py").write_text("def :\n")
    (shop.folder / "leaving.py").write_text("raise SystemExit(5)\n")
    (shop.folder / "missing.py").write_text("import absent\n")
    process = shop.start(app=app)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert err.startswith("error: ")
    assert told in err
    assert "Traceback" not in err


REFUSED: list[tuple[Callable[[Shop], list[str]], int, str]] = [
    (lambda _: ["--dsn", "postgresql://127.0.0.1:1/x"], 3, "the server cannot be reached"),
    (lambda _: ["--project", "nowhere"], 1, "unknown project: nowhere (PF502)"),
]


@pytest.mark.parametrize(("options", "code", "told"), REFUSED, ids=["no server", "no project"])
def test_a_worker_that_cannot_begin_says_why(
    shop: Shop, options: Callable[[Shop], list[str]], code: int, told: str
) -> None:
    process = shop.start(*options(shop))
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert f"error: {told}" in err
    assert "Traceback" not in err


def test_the_database_of_a_worker_is_the_apps_own(shop: Shop) -> None:
    (shop.folder / "own.py").write_text(APP.replace("App()", f"App({shop.dsn!r})"))
    run_id = shop.client.enqueue("greet", "Zoë", queue="greetings")
    process = subprocess.Popen(
        [sys.executable, "-m", "pgflow.cli", "worker", "--app", "own:app"],
        cwd=shop.folder, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PGFLOW_DSN": "postgresql://127.0.0.1:1/other"},
    )  # fmt: skip
    try:
        assert shop.ends(run_id)["output"] == "hello Zoë"
        assert ended(process)[0] == 0
    finally:
        process.kill()
        process.communicate()
