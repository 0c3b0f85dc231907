"""How a worker hears of work: hints, and what it does without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from tests.conftest import database
from tests.worker.conftest import until

if TYPE_CHECKING:
    import psycopg

    from tests.worker.conftest import Logs, Stage

LISTENER = """
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'pgflow' and query like 'listen%%'"""


def _work(stage: Stage) -> None:
    @stage.app.handler
    async def quick() -> int:
        return 1


def _is_idle(stage: Stage) -> bool:
    return bool(stage.one("select exists (select from pgflow.idle_worker)"))


def test_an_idle_worker_is_woken_by_a_hint(stage: Stage) -> None:
    _work(stage)
    with stage.worker():
        until(lambda: _is_idle(stage))
        for _ in range(3):
            assert stage.output(stage.client.enqueue("quick")) == 1


def test_a_listener_that_is_killed_comes_back_and_is_woken_again(
    stage: Stage, db: psycopg.Connection
) -> None:
    _work(stage)
    with stage.worker():
        until(lambda: _is_idle(stage))
        first = until(lambda: stage.one(LISTENER))
        db.execute("select pg_terminate_backend(%s)", [first])
        until(lambda: stage.one(LISTENER) not in (None, first))
        assert stage.output(stage.client.enqueue("quick")) == 1


def test_a_listener_that_hears_nothing_says_so_and_the_worker_polls(
    stage: Stage, server: str, logs: Logs
) -> None:
    _work(stage)
    with database(server) as elsewhere, stage.worker(direct_dsn=elsewhere):
        until(lambda: [entry for entry in logs if entry["event"] == "listener_deaf"])
        assert stage.output(stage.client.enqueue("quick")) == 1
        assert not _is_idle(stage)


def test_a_database_in_repeatable_read_loses_nothing(stage: Stage, db: psycopg.Connection) -> None:
    name = sql.Identifier(db.info.dbname)
    isolation = sql.SQL(
        "alter database {} set default_transaction_isolation = 'repeatable read'"
    ).format(name)
    db.execute(isolation)
    done: list[int] = []

    @stage.app.handler(queue="limited")
    async def count() -> None:
        done.append(1)

    stage.client.define_queue("limited", max_concurrent=3)
    with stage.worker(concurrency=20), stage.worker(concurrency=20):
        stage.client.enqueue_many(count, [None] * 200)
        stage.all_end(200)
    assert len(done) == 200


def test_a_scheduled_run_starts_at_its_time_in_an_idle_worker(stage: Stage) -> None:
    _work(stage)
    with stage.worker():
        until(lambda: _is_idle(stage))
        soon = stage.one("select pgflow.now() + interval '0.3 seconds'")
        run_id = stage.client.enqueue("quick", run_at=soon)
        run = stage.ends(run_id)
    assert run["first_started_at"] >= soon


def test_no_queue_starves_behind_a_full_one(stage: Stage) -> None:
    @stage.app.handler(queue="a")
    async def one() -> None:
        """Do nothing."""

    @stage.app.handler(queue="b")
    async def other() -> None:
        """Do nothing."""

    stage.client.enqueue_many(one, [None] * 400)
    run_id = stage.client.enqueue(other)
    with stage.worker(concurrency=5):
        stage.all_end(401)
    later = "select count(*) from pgflow.run_finished where leased_at > %s"
    assert stage.one(later, stage.run(run_id)["started_at"]) > 300


def test_a_run_goes_to_its_handlers_queue_before_any_worker_has_registered_it(stage: Stage) -> None:
    @stage.app.handler(queue="letters")
    async def write() -> None:
        """Do nothing."""

    assert stage.run(stage.client.enqueue(write))["queue"] == "letters"
    assert stage.run(stage.client.enqueue(write, queue="other"))["queue"] == "other"
