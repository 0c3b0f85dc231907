"""inbox --watch: what is open, and each new task as it comes."""

from __future__ import annotations

import psycopg
import pytest

from tests.cli.conftest import Remains
from tests.cli.test_watch import going, until
from tests.parked import parked, task_of

ASK = {"kind": "approval", "key": "ok", "title": "Fine?"}


@pytest.mark.parametrize("how", ["", "--json"])
def test_open_tasks_are_printed_and_then_new_ones(remains: Remains, dsn: str, how: str) -> None:
    with (
        psycopg.connect(dsn, autocommit=True) as db,
        going(dsn, "inbox", "--watch", *how.split()) as command,
    ):
        until(lambda: len(command.lines) == 1)
        task = task_of(db, parked(db, ASK))
        until(lambda: len(command.lines) == 2)
        assert command.ends(interrupted=True)[0] == 130
    if how:
        assert [row["task_id"] for row in command.objects()] == [str(remains.task), str(task)]
    else:
        assert command.lines[1] == f"{task}  approval  -  Fine?\n"


def test_only_those_of_a_role_are_printed(remains: Remains, dsn: str) -> None:
    with (
        psycopg.connect(dsn, autocommit=True) as db,
        going(dsn, "inbox", "--watch", "--role", "editors") as command,
    ):
        parked(db, ASK)
        task = task_of(db, parked(db, {**ASK, "assignee_role": "editors"}))
        until(lambda: len(command.lines) == 2)
        command.ends(interrupted=True)
    assert [line.split()[0] for line in command.lines] == [str(remains.task), str(task)]
