"""What docs/people.md shows is what happens: its examples are played, scene by scene."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.parked import lease, park, parked, task_of, value

PAGE = (Path(__file__).parents[2] / "docs" / "people.md").read_text()
SCENES = dict(
    re.findall(r"^<!-- scene: (\w+) -->\n(.*?)(?=^<!-- scene|\Z)", PAGE, re.MULTILINE | re.DOTALL)
)
BLOCK = r"^```(console)\n(.*?)^```|^```(sql)\n(.*?)^```\n\n```text\n(.*?)^```"
Connection = psycopg.Connection[Any]

APPROVAL: dict[str, Any] = {
    "kind": "approval",
    "key": "editor",
    "title": "Publish it?",
    "payload": {"words": 3},
    "assignee_role": "reviewers",
}
FORM = {
    "properties": {"stars": {"type": "integer", "maximum": 5}, "note": {"type": "string"}},
    "required": ["stars"],
}
STEPS = {"draft": "Postgres is enough", "title": "Enough"}


def expired(db: Connection) -> UUID:
    """Ask for a day, two days ago."""
    past = datetime.now(UTC) - timedelta(days=2)
    db.execute("select set_config('pgflow.test_now', %s, false)", (past.isoformat(),))
    run = parked(db, {**APPROVAL, "due_in": 86400})
    db.execute("set pgflow.test_now = ''")
    return run


def bound(db: Connection) -> UUID:
    """Have ben approve, then ask for something else."""
    run = parked(db, APPROVAL)
    db.execute("set role ben")
    db.execute("select pgflow.approve(%s)", (task_of(db, run),))
    db.execute("reset role")
    lease(db, run)
    park(db, run, {**APPROVAL, "payload": {"words": 4}})
    return run


def stopped(db: Connection) -> UUID:
    """Have a run stop at a breakpoint."""
    stop = {"kind": "breakpoint", "key": "breakpoint/before/publish", "when": "before"}
    return parked(db, stop, steps=STEPS)


STAGES: dict[str, Callable[[Connection], UUID]] = {
    "approval": lambda db: parked(db, APPROVAL),
    "refused": lambda db: parked(db, APPROVAL),
    "claims": lambda db: parked(db, APPROVAL),
    "label": lambda db: parked(db, {**APPROVAL, "assignee_role": "support"}),
    "quorum": lambda db: parked(
        db, {**APPROVAL, "assignee_role": "support", "quorum": 2, "quorum_of": 3}
    ),
    "expired": expired,
    "form": lambda db: parked(db, {"kind": "form", "key": "f", "title": "Stars?", "form": FORM}),
    "bound": bound,
    "rollback": lambda db: parked(db, APPROVAL, steps=STEPS),
    "interrupt": lambda db: parked(
        db, {"kind": "interrupt", "key": "interrupt", "title": "How?", "payload": {"plan": "fast"}}
    ),
    "breakpoint": stopped,
}


@pytest.fixture
def _people(db: Connection) -> Iterator[None]:
    """Have the people of the page for a while: roles belong to the server."""
    roles = "create role reviewers; create role ann; create role ben; create role cem;"
    db.execute(f"{roles} grant pgflow_approver to ann, ben, cem; grant reviewers to ann, ben")
    yield
    db.execute("reset role; drop role ann; drop role ben; drop role cem; drop role reviewers")


def plain(text: str) -> list[str]:
    """Return lines without what differs each time: ids, times and the widths that follow."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "(id)", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?(Z|\+\d\d)", "(time)", text)
    text = re.sub(r"^psql:\S+ ", "", text, flags=re.MULTILINE)
    text = re.sub(r" {2,}", "  ", re.sub(r"-{3,}", "---", text))
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def run(command: list[str], environment: dict[str, str], stdin: str = "") -> str:
    """Return what a program printed, refusals included."""
    done = subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def played(scene: str, ids: dict[str, str], environment: dict[str, str]) -> Iterator[list[str]]:
    """Yield what each example of a scene prints, and then what is shown."""
    for block in re.finditer(BLOCK, SCENES[scene], re.MULTILINE | re.DOTALL):
        console, commands, _, sql, shown = block.groups()
        for name, text in ids.items():
            commands, sql = ((s or "").replace(name, text) for s in (commands, sql))
        if console:
            for command, told in re.findall(
                r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", commands, re.MULTILINE
            ):
                yield plain(run(["sh", "-c", command], environment))
                yield plain(told)
        else:
            psql = ["psql", "-XqP", "footer=off", "-v", "SHOW_CONTEXT=never"]
            # One stream, in the order of the statements.
            script = ["sh", "-c", f'exec {" ".join(psql)} "$PGFLOW_DSN" 2>&1']
            yield plain(run(script, environment, sql))
            yield plain(shown)


@pytest.mark.usefixtures("_people")
@pytest.mark.parametrize("scene", STAGES)
def test_a_scene_goes_as_the_page_shows(
    scene: str, db: Connection, environment: dict[str, str]
) -> None:
    run_id = STAGES[scene](db)
    task_id = task_of(db, run_id)
    if scene == "expired":
        db.execute("select pgflow.tick()")
    pairs = list(played(scene, {"TASK": str(task_id), "RUN": str(run_id)}, environment))
    assert pairs
    for printed, shown in zip(pairs[::2], pairs[1::2], strict=True):
        assert printed == shown


def test_every_scene_is_played() -> None:
    assert list(SCENES) == list(STAGES)


def test_the_policies_are_the_databases(db: Connection) -> None:
    table = PAGE.partition("\n| policy |")[2].partition("\n\n")[0]
    known = value(db, "select array_agg(policy order by policy) from pgflow.task_policy")
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == known
