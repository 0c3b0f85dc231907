"""Where measures take place: a peer that is installed, databases of its own, and how much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection

from bench.peers.catalogue import Peer
from bench.peers.environments import Environment
from bench.peers.processes import order
from bench.rounds import Numbers
from bench.server import connect, database, settle, wal
from bench.usage import Meter

Kind = Literal["noop", "steps", "wait", "ask"]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Seconds that single enqueues go on and that a drain is expected to take, single runs and the
    seconds between them, runs that wait at once, runs that have ended before, parallel steps of
    the largest flow.
    """

    seconds: float
    drain_seconds: float
    singles: int
    gap: float
    waits: int
    history: int
    flow: int = 1000


@dataclass(frozen=True)
class Place:
    """A peer that is installed; `template` is a database with its schema to make copies of."""

    environment: Environment
    admin: str
    template: str
    meter: Meter

    @property
    def peer(self) -> Peer:
        """The peer."""
        return self.environment.peer

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """Yield the DSN of a database in which nothing has happened yet."""
        with database(self.admin, like=self.template) as dsn:
            yield dsn

    def fill(self, dsn: str, count: int, kind: Kind = "noop") -> tuple[Numbers, list[str]]:
        """Enqueue runs in bulk; return the rate, the WAL per run, and the runs to signal."""
        before = wal(dsn)
        done = order(self.environment, dsn, "fill", kind=kind, count=count)
        return {"rate": done["rate"], "wal": (wal(dsn) - before) / count}, done["runs"]

    def load(self, dsn: str, count: int, kind: Kind = "noop") -> Numbers:
        """Enqueue runs in bulk, and bring the database to rest."""
        numbers, _ = self.fill(dsn, count, kind)
        settle(dsn)
        return numbers

    def count(self, sizes: Sizes, kind: Kind = "noop") -> int:
        """Return how many runs one worker is expected to end in the seconds of a drain."""
        pace = self.peer.pace * (0.25 if kind == "steps" else 1)
        return max(200, int(pace * sizes.drain_seconds) // 100 * 100)


def copy_rows(dsn: str, table: str, changes: dict[str, str], copies: int) -> None:
    """Copy each row of a table so often, with some columns replaced by SQL expressions.

    In these `s` is the row and `g` the number of the copy; `default` stands for the column's own.
    """
    with _without_triggers(dsn) as conn:
        copied = [name for name in _columns(conn, table) if changes.get(name) != "default"]
        values = ", ".join(changes.get(name, f's."{name}"') for name in copied)
        listed = ", ".join(f'"{name}"' for name in copied)
        insert = (
            f"insert into {table} ({listed}) select {values}"
            f" from (select * from {table}) s, generate_series(1, {copies}) g"
        )
        conn.execute(insert.encode())


def liken_rows(dsn: str, table: str, key: str, number: str) -> None:
    """Give to all rows that have a number what a row without has, but for the key and `created_at`.

    In sixteen transactions, for what the rows were before makes room for what they become.
    """
    with _without_triggers(dsn) as conn:
        given = [name for name in _columns(conn, table) if name not in {key, "created_at"}]
        changed = ", ".join(f'"{name}" = s."{name}"' for name in given)
        for part in range(16):
            update = (
                f"update {table} r set {changed}"
                f" from (select * from {table} where {number} is null limit 1) s"
                f" where r.{number} % 16 = {part}"
            )
            conn.execute(update.encode())


@contextmanager
def _without_triggers(dsn: str) -> Iterator[Connection[tuple[Any, ...]]]:
    """Yield a connection for rows of which only the rows are wanted."""
    with connect(dsn) as conn:
        conn.execute("set session_replication_role = replica")
        yield conn


def _columns(conn: Connection[tuple[Any, ...]], table: str) -> list[str]:
    columns = """
        select attname from pg_attribute
        where attrelid = %s::regclass and attnum > 0 and not attisdropped
            and attgenerated = '' and attidentity <> 'a'
        order by attnum"""
    return [row[0] for row in conn.execute(columns, (table,)).fetchall()]
