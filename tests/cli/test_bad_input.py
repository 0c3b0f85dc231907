"""What bad input gets: the exit code, and words that say what was wrong; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.cli.conftest import Command, Remains, leave_remains
from tests.conftest import database

NOBODY = "00000000-0000-0000-0000-000000000000"

REFUSED = [
    ("show {nobody}", "unknown run", "PF102"),
    ("timeline {nobody}", "unknown run", "PF102"),
    ("cancel {nobody}", "unknown run", "PF102"),
    ("retry {nobody}", "unknown run", "PF102"),
    ("pause {nobody}", "unknown run", "PF102"),
    ("resume {nobody}", "unknown run", "PF102"),
    ("approve {nobody}", "unknown task", "PF103"),
    ("reject {nobody}", "unknown task", "PF103"),
    ("approve {run}", "unknown task", "PF103"),
    ("task show {nobody}", "unknown task", "PF103"),
    ("task answer {nobody}", "unknown task", "PF103"),
    ("task answer {nobody} --data 1", "unknown task", "PF103"),
    ("approve {nobody} --set a=1", "unknown task", "PF103"),
    ("task claim {nobody}", "unknown task", "PF103"),
    ("task release {nobody}", "unknown task", "PF103"),
    ("task delegate {nobody} ann", "unknown task", "PF103"),
    ("task delegate {task} {long}", "assignee must be", "PF101"),
    ("task comment {nobody} well", "unknown task", "PF103"),
    ("task answer {task}", "is of kind approval", "PF101"),
    ("approve {task} --as-user {long}", "as_user must be", "PF101"),
    ("journal {nobody}", "unknown run", "PF102"),
    ("signal {nobody} payment", "unknown run", "PF102"),
    ("signal {failed} payment", "already finished", "PF202"),
    ("tool resolve {nobody} video", "unknown run", "PF102"),
    ("tool resolve {run} video", "does not wait for tool call video", "PF204"),
    ("tool fail {run} video no", "does not wait for tool call video", "PF204"),
    ("fork {nobody} draft", "unknown run", "PF102"),
    ("fork {run} draft", "has no journal entry draft", "PF105"),
    ("breakpoint set {nobody} draft", "unknown run", "PF102"),
    ("breakpoint clear {failed} draft", "already finished", "PF202"),
    ("resume {run} --value 1", "waits for no such command", "PF204"),
    ("resume {run} --update a=1", "waits for no such command", "PF204"),
    ("pause --queue nowhere", "unknown queue", "PF104"),
    ("resume --queue nowhere", "unknown queue", "PF104"),
    ("retry {run}", "cannot be retried", "PF201"),
    ("pause {failed}", "already finished", "PF202"),
    ("resume {failed}", "already finished", "PF202"),
    ("enqueue h --idempotency-key used --tag x", "used for another run", "PF401"),
    ("--project nowhere runs", "unknown project: nowhere", "PF502"),
    ("runs --project nowhere", "unknown project: nowhere", "PF502"),
    ("enqueue h --priority 44", "priority must be -9 to 9", "PF101"),
    ("enqueue h --priority 99999999999999999999", "priority must be -9 to 9", "PF101"),
    ("enqueue h --max-attempts 0", "max_attempts must be", "PF101"),
    ("enqueue h --timeout -3", "timeout must be", "PF101"),
    ("enqueue h --timeout 1e9", "timeout must be", "PF101"),
    ("enqueue h --run-at 9999-12-31", "run_at must be", "PF101"),
    ("enqueue h --deadline 2020-01-01", "deadline must be", "PF101"),
    ("enqueue h --idempotency-key pgflow:x", "idempotency_key must be", "PF101"),
]
for place in ("{long}", "h --queue {long}", "h --tag {long}", "h --correlation-id {long}"):
    REFUSED.append((f"enqueue {place}", "characters", "PF101"))  # noqa: PERF401 - reads better

USAGE = [
    ("show 123", "'123' is not a valid UUID"),
    ("approve {nobody} --data {{", "'--data': not JSON"),
    (
        'enqueue h {{"a":1"b":2}}',
        "not JSON: Expecting ',' delimiter: line 1 column 7, at '\"b\":2}'",
    ),
    ("enqueue h NaN", "not JSON: NaN is not a number"),
    ("enqueue h 1e999", "not JSON: 1e999 is not a number that can be stored"),
    ("enqueue h -", "not JSON: Expecting value: line 1 column 1"),
    ("enqueue h [", "line 1 column 2"),
    ("enqueue h {deep}", "not JSON"),
    ("enqueue h --priority high", "'high' is not a valid int"),
    ("enqueue h --run-at tomorrow", "'tomorrow' is not a time"),
    ("enqueue h --timeout nan", "'nan' is not a number of seconds"),
    ("enqueue h --timeout 1e300", "'1e300' is not a number of seconds"),
    ("enqueue", "Missing argument 'HANDLER'"),
    ("task show 123", "'123' is not a valid UUID"),
    ("task frobnicate", "No such command"),
    ("task answer {task} --data {{", "'--data': not JSON"),
    ("task answer {task} --set stars", "'stars' is not of the form NAME=VALUE"),
    ("task answer {task} --data [] --set a=1", "--set is for data that is an object"),
    ("fork {run} draft --set a=b", "'--set': not JSON"),
    ("resume {run} --value 1 --update a=1", "give one of --value, --update and --goto"),
    ("resume {run} --value 1 --goto a", "give one of --value, --update and --goto"),
    ("resume {run} --key a", "--key says where --value goes"),
    ("resume --queue default --value 1", "give either a RUN or --queue"),
    ("tool list --status bogus", "'bogus' is not one of"),
    ("runs --state bogus", "'bogus' is not one of"),
    ("runs --limit 0", "0 is not in the range"),
    ("pause", "give a RUN"),
    ("pause {run} --queue default", "give a RUN"),
    ("pause --queue default --reason lunch", "give a RUN"),
    ("pause --queue default --hold-deadlines", "give a RUN"),
    ("inbox --watch --run {run}", "leave out --run"),
    ("resume", "give either a RUN or --queue"),
    ("resume {run} --queue default", "give either a RUN or --queue"),
    ("frobnicate", "No such command"),
    ("runs --frobnicate", "No such option"),
    ("--dsn http://u:secret@h runs", 'missing "=" after "http://u:***@h"'),
    ("--dsn nonsense=1 runs", 'invalid connection option "nonsense"'),
    ("--dsn postgresql://h dev", "dev has a server of its own"),
    ("worker --app pgflow:App --concurrency 0", "0 is not in the range"),
    ("worker", "Missing option '--app'"),
]


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """Return one database for all tests here: nothing changes in it."""
    with database(server, template=template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def remains(dsn: str) -> Remains:
    return leave_remains(dsn)


@pytest.fixture
def words(remains: Remains, db: psycopg.Connection) -> dict[str, str]:
    db.execute("select pgflow.enqueue('other', idempotency_key => 'used')")
    return {
        "nobody": NOBODY,
        "run": str(remains.pending),
        "task": str(remains.task),
        "failed": str(remains.failed),
        "long": "x" * 501,
        "deep": "[" * 100_000,
    }


def everything(db: psycopg.Connection) -> list[tuple[object, ...]]:
    return db.execute(
        "select r::text from pgflow.runs r union all select t::text from pgflow.timeline t"
        " union all select i::text from pgflow.inbox i"
        " union all select q::text from pgflow.queue q order by 1"
    ).fetchall()


@pytest.mark.parametrize(("line", "message", "sqlstate"), REFUSED, ids=lambda v: str(v)[:60])
def test_what_the_database_refuses_is_told_with_its_code(
    pgflow: Command, db: psycopg.Connection, words: dict[str, str], line: str, message: str,
    sqlstate: str,
) -> None:  # fmt: skip
    before = everything(db)
    done = pgflow(*line.format(**words).split())
    assert (done.code, done.out) == (1, "")
    assert message in done.err.splitlines()[0]
    assert done.err.splitlines()[0].startswith("error: ")
    assert done.err.splitlines()[0].endswith(f" ({sqlstate})")
    assert "Traceback" not in done.err
    assert everything(db) == before


@pytest.mark.parametrize(("line", "message"), USAGE, ids=lambda v: str(v)[:60])
def test_wrong_usage_is_told_before_anything_happens(
    pgflow: Command, db: psycopg.Connection, words: dict[str, str], line: str, message: str
) -> None:
    before = everything(db)
    done = pgflow(*line.format(**words).split())
    assert (done.code, done.out) == (2, "")
    error, hint = done.err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: pgflow")
    assert hint.endswith(" --help")
    assert everything(db) == before


def test_a_contrary_decision_is_refused(pgflow: Command, remains: Remains) -> None:
    pgflow("approve", remains.task)
    done = pgflow("reject", remains.task, "no")
    assert done.code == 1
    error, detail, hint = done.err.splitlines()
    assert error.endswith("was approved before and cannot be rejected (PF402)")
    assert detail.startswith("detail: by postgres at ")
    assert hint.startswith("hint: ")


def test_half_a_character_is_refused(pgflow: Command) -> None:
    done = pgflow("enqueue", "h", r'"\ud800"')
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: the input is not JSON: ")


def test_stdin_that_is_no_text_is_refused(pgflow: Command) -> None:
    done = pgflow("enqueue", "h", "-", stdin=b"\xff\xfe")
    assert done.code in {1, 2}
    assert done.err.startswith("error: ")


def test_a_refusal_can_be_traced(pgflow: Command) -> None:
    for words in (("--debug", "show", NOBODY), ("show", NOBODY, "--debug")):
        done = pgflow(*words)
        assert done.code == 1
        assert "Traceback" in done.err
        assert done.err.splitlines()[-2] == f"error: unknown run: {NOBODY} (PF102)"


def test_who_may_not_is_told_so(
    anywhere: Command, db: psycopg.Connection, remains: Remains, dsn: str
) -> None:
    db.execute(
        "do $$ begin create role pgflow_test_nobody; exception when duplicate_object then end $$"
    )
    options = "-c role=pgflow_test_nobody"
    done = anywhere("show", remains.pending, env={"PGFLOW_DSN": dsn, "PGOPTIONS": options})
    assert done.code == 1
    assert "permission denied" in done.err
    assert "(42501)" in done.err
    assert "hint: The login lacks a role" in done.err
