"""maintain(): partitions of the coming periods, made before anybody needs them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.sql.history import (
    TABLES,
    WEEK,
    add_past,
    drop_last,
    finished,
    maintain,
    own_place,
    partitions,
    periods,
    tables_of,
)

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole, Place


@pytest.fixture
def place(server: str, template: str) -> Iterator[Place]:
    with own_place(server, template) as place:
        yield place


def ahead(engine: Engine) -> int:
    count: int = engine.value("select pgflow._periods_ahead(clock_timestamp())")
    return count


def told(engine: Engine, check: str) -> str:
    (line,) = engine.rows('select level from pgflow.doctor() where "check" = %s', check)
    return str(line["level"])


def test_a_new_installation_has_partitions_for_three_periods_ahead(engine: Engine) -> None:
    assert ahead(engine) == 3
    made = {f"{table}_{p['period']}" for table in TABLES for p in periods(engine)}
    assert partitions(engine) == made
    assert told(engine, "partitions") == "ok"


def test_periods_have_no_gap_and_begin_a_day_ago(engine: Engine) -> None:
    found = periods(engine)
    assert found[0]["from_at"] <= engine.now - timedelta(days=1) < found[0]["to_at"]
    for one, next_one in pairwise(found):
        assert (one["to_at"], one["to_id"]) == (next_one["from_at"], next_one["from_id"])


def test_every_run_of_the_last_day_and_the_next_minutes_finds_its_partition(
    engine: Engine,
) -> None:
    for age in (timedelta(hours=23, minutes=59), timedelta(), timedelta(minutes=-4)):
        run_id = engine.value(
            "select overlay(encode(uuid_send(pgflow._first_id(clock_timestamp() - %s)), 'hex')"
            " placing '7' from 13)::uuid",
            age,
        )
        lease = engine.leased(run_id=run_id)
        engine.call("emit", run_id=run_id, type="note")
        assert engine.complete(lease) == []
        assert engine.state(run_id) == "completed"


def test_what_is_missing_is_made_one_partition_a_call(engine: Engine) -> None:
    before = partitions(engine)
    last = periods(engine)[-1]
    drop_last(engine)
    for table in TABLES:
        (step,) = engine.call("maintain")
        assert step == {
            "did": f"made {table}_{last['period']}",
            "blocked": None,
            "again_in": timedelta(),
        }
    (step,) = engine.call("maintain")
    assert step == {"did": None, "blocked": None, "again_in": timedelta(minutes=1)}
    assert partitions(engine) == before
    assert periods(engine)[-1] == last


def test_doctor_warns_below_three_periods_ahead_and_fails_below_two(engine: Engine) -> None:
    levels = []
    for _ in range(4):
        levels.append(told(engine, "partitions"))
        drop_last(engine)
    assert levels == ["ok", "warn", "fail", "fail"]


def test_a_period_that_lacks_one_partition_is_not_ahead(engine: Engine) -> None:
    engine.rows(f"drop table pgflow.usage_{periods(engine)[-1]['period']}")
    assert ahead(engine) == 2
    assert maintain(engine) == [f"made usage_{periods(engine)[-1]['period']}"]
    assert ahead(engine) == 3


def test_after_a_time_without_upkeep_one_period_takes_what_was_left_out(engine: Engine) -> None:
    old = add_past(engine, 10)
    while periods(engine)[-1]["period"] != old:
        drop_last(engine)
    maintain(engine)
    first, gap, *_ = found = periods(engine)
    assert (first["period"], gap["from_at"]) == (old, first["to_at"])
    assert gap["to_at"] - gap["from_at"] > 7 * WEEK
    assert ahead(engine) == 3
    for one, next_one in pairwise(found):
        assert one["to_id"] == next_one["from_id"]


def test_another_width_holds_for_the_periods_that_come(engine: Engine) -> None:
    widths = [p["to_at"] - p["from_at"] for p in periods(engine)]
    engine.call("set_retention", partition_width=timedelta(hours=6))
    drop_last(engine)
    maintain(engine)
    assert [p["to_at"] - p["from_at"] for p in periods(engine)] == [
        *widths[:-1],
        timedelta(hours=6),
    ]


def test_a_month_is_a_width(engine: Engine) -> None:
    engine.rows("select pgflow.set_retention(partition_width => '1 month')")
    drop_last(engine)
    drop_last(engine)
    maintain(engine)
    last = periods(engine)[-1]
    assert last["to_at"] - last["from_at"] == timedelta(days=30)


def test_a_worker_makes_partitions_that_belong_to_the_owner(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    drop_last(engine)
    session = connect(make_role("pgflow_worker"))
    while session.call("maintain")[0]["did"]:
        pass
    owners = engine.rows(
        "select distinct relowner::regrole::text as owner from pg_class"
        " where relnamespace = 'pgflow'::regnamespace"
    )
    assert [row["owner"] for row in owners] == ["pgflow_owner"]
    assert ahead(engine) == 3


def test_who_may_read_a_table_may_not_read_its_partitions(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    engine.rows("grant select on pgflow.event to pgflow_reader")
    engine.rows(
        "alter default privileges for role pgflow_owner in schema pgflow"
        " grant select on tables to pgflow_reader, public"
    )
    drop_last(engine)
    maintain(engine)
    session = connect(make_role("pgflow_admin"))
    assert session.rows("select * from pgflow.event") == []
    for name in partitions(engine):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.rows(f"select * from pgflow.{name}")


def test_a_partition_has_row_level_security_as_its_table_has_it(engine: Engine) -> None:
    engine.rows("alter table pgflow.event enable row level security")
    engine.rows("alter table pgflow.event force row level security")
    drop_last(engine)
    maintain(engine)
    last = periods(engine)[-1]["period"]
    rows = engine.rows(
        "select relname, relrowsecurity and relforcerowsecurity as forced from pg_class"
        " where relname = any (%s)",
        [f"event_{last}", f"journal_{last}"],
    )
    forced = {row["relname"]: row["forced"] for row in rows}
    assert forced == {f"event_{last}": True, f"journal_{last}": False}


def test_a_partition_refuses_what_its_table_refuses(engine: Engine) -> None:
    run_id = finished(engine, periods(engine)[0]["period"])
    (name,) = engine.rows(
        "select tableoid::regclass::text as name from pgflow.run_finished where run_id = %s", run_id
    )
    for change in ("update {} set output = '2'", "delete from {}"):
        for table in ("pgflow.run_finished", name["name"]):
            with engine.refused("PF203"):
                engine.rows(change.format(table))
    with pytest.raises(psycopg.errors.CheckViolation):
        engine.rows(
            f"update pgflow.event_{periods(engine)[0]['period']} set worker_id = null, lease_no = 1"
        )


def test_all_is_looked_at_once_a_minute_however_many_workers_ask(engine: Engine) -> None:
    maintain(engine)
    engine.later(seconds=20)
    drop_last(engine)
    (step,) = engine.call("maintain")
    assert step == {"did": None, "blocked": None, "again_in": timedelta(seconds=40)}
    engine.later(seconds=41)
    assert engine.call("maintain")[0]["did"]


def test_a_new_setting_is_looked_at_at_once(engine: Engine) -> None:
    maintain(engine)
    drop_last(engine)
    assert engine.call("maintain")[0]["did"] is None
    engine.call("set_retention")
    assert engine.call("maintain")[0]["did"]
    maintain(engine)
    drop_last(engine)
    engine.call("define_queue", queue="mail", retention=timedelta(days=1))
    assert engine.call("maintain")[0]["did"]


def test_a_clock_that_was_set_back_does_not_stop_the_upkeep(engine: Engine) -> None:
    engine.later(days=30)
    maintain(engine)
    engine.later(days=-30)
    drop_last(engine)
    assert engine.call("maintain")[0]["did"]


def test_the_partitioned_tables_are_analyzed_daily(engine: Engine) -> None:
    maintain(engine)
    engine.later(days=1)
    done = maintain(engine)
    assert done == [f"analyzed {table}" for table in TABLES]
    engine.later(hours=23)
    assert maintain(engine) == []
    engine.later(days=7)
    assert maintain(engine) == done


def test_migrating_again_makes_what_is_missing(engine: Engine, dsn: str) -> None:
    from pgflow.schema import migrate  # noqa: PLC0415 - of this test alone

    drop_last(engine)
    migrate(dsn)
    assert ahead(engine) == 3
    assert tables_of(engine, periods(engine)[-1]["period"]) == {
        f"{table}_{periods(engine)[-1]['period']}" for table in TABLES
    }
