"""Workers maintain the installation beside their work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgflow import Context

if TYPE_CHECKING:
    from tests.worker.conftest import Logs, Stage

AHEAD = "select pgflow._periods_ahead(clock_timestamp())"


def test_a_worker_makes_the_partitions_that_are_missing(stage: Stage, logs: Logs) -> None:
    @stage.app.handler
    async def work(ctx: Context) -> None:
        """Do nothing."""

    last = stage.one("select max(period) from pgflow.period")
    stage.db.execute(f"drop table pgflow.event_{last}, pgflow.usage_{last}")
    with stage.worker():
        stage.until(lambda: stage.one(AHEAD) == 3)
        stage.ends(stage.client.enqueue(work))
    assert {line["did"] for line in logs if line["event"] == "maintained"} >= {
        f"made event_{last}",
        f"made usage_{last}",
    }
    # A round has a connection of its own, which is closed after it.
    stage.until(
        lambda: (
            stage.one(
                "select count(*) from pg_stat_activity where query ~ 'maintain'"
                " and pid <> pg_backend_pid()"
            )
            == 0
        )
    )


def test_upkeep_that_fails_is_told_and_stops_no_work(stage: Stage, logs: Logs) -> None:
    @stage.app.handler
    async def work() -> int:
        return 1

    stage.db.execute("alter function pgflow.maintain() rename to of_another_version")
    with stage.worker():
        assert "maintain() does not exist" in stage.logged(logs, "maintenance_failed")["error"]
        assert stage.ends(stage.client.enqueue(work))["output"] == 1
