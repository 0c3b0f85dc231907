"""Every pair of verbs that lock, against each other on the same runs: nobody deadlocks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

ROUNDS = 2
Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass
class Scene:
    """A limited queue with a run that waits, its leased child, another leased run, and ready ones.

    The waiting run has a step `draft` and waits for people, a tool, an event and its child, which
    exceeds its budget by the first call of a model.
    """

    conn: Connection
    leased: list[str] = field(default_factory=list)
    lease_nos: list[int] = field(default_factory=list)
    waiting: str = ""
    task: str = ""
    form: str = ""

    def set_up(self) -> None:
        self.one("select pgflow.define_queue('q', max_concurrent => 1000)")
        self.one("select pgflow.register_worker('w:1', '{q}', 10)")
        self.one(
            "select count(*) from pgflow.enqueue_many('h', array_fill('{}'::jsonb, '{4}'), 'q')"
        )
        runs = self.one("select runs from pgflow.acquire('w:1', '{q}', 2)")
        (self.waiting, lease_no), other = [(run["run_id"], run["lease_no"]) for run in runs]
        self.one(
            "select count(*) from pgflow.record_step(array[%s::uuid], array[%s], '{draft}',"
            " '{aa}', '{1}')",
            self.waiting,
            lease_no,
        )
        budget = """'{"usd": 0.5, "on_breach": "ask"}'"""
        self.one(f"select pgflow._give_budget('default', %s, {budget})", self.waiting)
        waits = [
            {"kind": "approval", "key": "ok", "title": "ok?"},
            {"kind": "form", "key": "form", "title": "how?", "form": {}},
            {"kind": "tool", "key": "tool", "tool": "t", "arguments": {}},
            {"kind": "event", "key": "event", "name": "e"},
            {"kind": "run", "key": "child", "handler": "h", "queue": "q", "priority": 9},
        ]
        park = {"run_id": self.waiting, "lease_no": lease_no, "news": 0, "waits": waits}
        self.one("select outcome from pgflow.park(%s)", Jsonb([{**park, "wait_any": True}]))
        task = "select task_id from pgflow.inbox where run_id = %s and step = %s"
        self.task = self.one(task, self.waiting, "ok")
        self.form = self.one(task, self.waiting, "form")
        (child,) = self.one("select runs from pgflow.acquire('w:1', '{q}', 1)")
        self.leased, self.lease_nos = map(list, zip(other, (child["run_id"], 1), strict=True))

    def clean_up(self) -> None:
        self.one("select count(pgflow.cancel(run_id)) from pgflow.run where queue = 'q'")

    def one(self, query: str, *values: object) -> Any:
        row = self.conn.execute(query.encode(), values).fetchone()
        return row and row[0]


def _each(verb: str) -> Callable[[Scene, Connection], None]:
    """Return a call of a verb for each of the runs, in either order, each in its transaction."""

    def call(scene: Scene, conn: Connection) -> None:
        for run_id in [*reversed(scene.leased), scene.waiting, *scene.leased]:
            conn.execute(f"select pgflow.{verb}(%s)".encode(), [run_id])

    return call


def _batch(query: str) -> Callable[[Scene, Connection], None]:
    """Return a call with both leased runs, the later one first."""

    def call(scene: Scene, conn: Connection) -> None:
        conn.execute(query.encode(), [scene.leased[::-1], scene.lease_nos[::-1]])

    return call


def _all(query: str) -> Callable[[Scene, Connection], None]:
    """Return a call with all of the runs, a child before its parent."""

    def call(scene: Scene, conn: Connection) -> None:
        conn.execute(query.encode(), [[*reversed(scene.leased), scene.waiting]])

    return call


def _on(what: str, query: str) -> Callable[[Scene, Connection], None]:
    """Return a call on the waiting run or one of its tasks."""

    def call(scene: Scene, conn: Connection) -> None:
        conn.execute(query.encode(), [getattr(scene, what)])

    return call


def _plain(query: str) -> Callable[[Scene, Connection], None]:
    def call(_: Scene, conn: Connection) -> None:
        conn.execute(query.encode())

    return call


VERBS: dict[str, Callable[[Scene, Connection], None]] = {
    "cancel": _each("cancel"),
    "pause": _each("pause"),
    "resume": _each("resume"),
    "approve": _on("task", "select pgflow.approve(%s)"),
    "reject": _on("task", "select pgflow.reject(%s)"),
    "roll back": _on("task", "select pgflow.reject(%s, rollback_to => 'draft')"),
    "answer": _on("form", "select pgflow.answer(%s, '{}')"),
    "claim_task": _on("task", "select pgflow.claim_task(%s)"),
    "signal": _on("waiting", "select pgflow.signal(%s, 'e')"),
    "signal_many": _all("select pgflow.signal_many(%s, 'e')"),
    "resolve_tool": _on("waiting", "select pgflow.resolve_tool(%s, 'tool')"),
    "set_breakpoint": _on("waiting", "select pgflow.set_breakpoint(%s, 'draft')"),
    "fork": _on("waiting", "select pgflow.fork(%s, 'draft')"),
    "complete": _batch("select pgflow.complete(%s::uuid[], %s::int[], '{1,2}')"),
    "fail": _batch("select pgflow.fail(%s::uuid[], %s::int[], '{E-RUN-001,E-RUN-001}', '{a,b}')"),
    "release": _batch("select pgflow.release(%s::uuid[], %s::int[])"),
    "record_step": _batch(
        "select pgflow.record_step(%s::uuid[], %s::int[], '{s,s}', '{aa,aa}', '{1,2}')"
    ),
    "record_usage": _batch(
        "select pgflow.record_usage(%s::uuid[], %s::int[],"
        """ '[{"call_key": "s", "cost_usd_total": 1}, {"call_key": "s", "cost_usd_total": 1}]')"""
    ),
    "beat": _batch("select pgflow.beat('w:1', %s::uuid[], %s::int[])"),
    "acquire": _plain("select pgflow.acquire('w:1', '{q}', 10)"),
    "reap": _plain("select pgflow.reap()"),
    "tick": _plain("select pgflow.tick()"),
    "register_worker": _plain("select pgflow.register_worker('w:1', '{q}', 10)"),
    "stop_worker": _plain("select pgflow.stop_worker('w:1')"),
    "define_queue": _plain("select pgflow.define_queue('q', max_concurrent => 1000)"),
    "pause_queue": _plain("select pgflow.pause_queue('q'), pgflow.resume_queue('q')"),
}


def _against(scene: Scene, conns: list[Connection], verbs: tuple[str, str]) -> list[str]:
    """Call two verbs at once; return the SQLSTATEs of what was raised."""
    start = threading.Barrier(2)
    raised: list[str] = []

    def call(verb: str, conn: Connection) -> None:
        start.wait()
        try:
            VERBS[verb](scene, conn)
        except psycopg.Error as error:
            raised.append(error.sqlstate or str(error))

    threads = [threading.Thread(target=call, args=pair) for pair in zip(verbs, conns, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_and_any_other_never_deadlock(dsn: str, verb: str) -> None:
    names = list(VERBS)
    others = names[names.index(verb) :]
    with (
        psycopg.connect(dsn, autocommit=True) as admin,
        psycopg.connect(dsn, autocommit=True) as one,
        psycopg.connect(dsn, autocommit=True) as other,
    ):
        admin.execute("select pgflow.define_queue('idle', lease_ttl => '1 second')")
        scene = Scene(admin)
        for against, _ in itertools.product(others, range(ROUNDS)):
            scene.set_up()
            raised = _against(scene, [one, other], (verb, against))
            # A refusal is an answer; a deadlock, or anything that isn't ours, is not.
            assert [code for code in raised if not code.startswith("PF")] == [], (verb, against)
            scene.clean_up()
