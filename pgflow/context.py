"""What a handler is given: its run, and calls whose results are kept in the run's journal."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

from pgflow._artifacts import Artifacts
from pgflow._branches import Branches, First
from pgflow._calls import Reporting, Transaction
from pgflow._in_flow import InFlow
from pgflow._journal import Suspend, read_entries
from pgflow._json import dumps
from pgflow._people import People
from pgflow._state import State
from pgflow._steps import Steps
from pgflow._waits import Waits
from pgflow.budget import BudgetLeft
from pgflow.errors import MisplacedCall
from pgflow.models import Event
from pgflow.reports import Usage, storable

__all__ = ["Context", "First", "Reporting", "Suspend", "Transaction"]


class Context(Steps, People, Waits, Branches, InFlow, State, Artifacts):
    """A handler's view of its run.

    Attributes: `lease`, with what the database said of the run, its input and tags among it;
    `cancelled`, True once the run has been taken away from this execution, for plain functions to
    look at.
    """

    @property
    def project(self) -> str:
        """The run's project."""
        return self.lease.more.get("project") or self._worker.project or "default"

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.lease.run_id

    @property
    def parent_run_id(self) -> str | None:
        """The run that waits for this one with `ctx.run`."""
        return self.lease.more.get("parent_run_id")

    @property
    def root_run_id(self) -> str:
        """The run at the top of the tree that this one belongs to; its own id if it is alone."""
        return self.lease.more.get("root_run_id") or self.lease.run_id

    @property
    def thread_id(self) -> str:
        """A name that stays the same over all executions of this run, for foreign checkpoints."""
        return self.lease.run_id

    @property
    def attempt(self) -> int:
        """How many executions failed before this one."""
        return self.lease.attempt

    @property
    def lease_no(self) -> int:
        """The number of this lease: it grows with each, and fences what this execution writes."""
        return self.lease.lease_no

    @property
    def version(self) -> int:
        """The round: how often the run was rolled back, or the flow that it is a step of."""
        own = self.lease.round if self._round is None else self._round
        return own + (self._flow.get("version") or 0)

    @property
    def feedback(self) -> dict[str, Any] | None:
        """Why the run was rolled back last: comment, by, at, key, task_id, round."""
        return None if self._round == 0 else self.lease.feedback

    @property
    def correlation_id(self) -> str:
        """What ties this run to others; its own id unless one was given."""
        return self.lease.correlation_id or self.lease.run_id

    @property
    def created_by(self) -> str:
        """Who enqueued the run: a role, or a login."""
        return self.lease.created_by

    @property
    def tags(self) -> list[str]:
        """The run's tags."""
        return self.lease.tags or []

    @property
    def deadline(self) -> datetime | None:
        """When the run ends, whatever it does then."""
        deadline = self.lease.deadline
        return None if deadline is None else datetime.fromisoformat(deadline)

    @property
    def budget(self) -> BudgetLeft:
        """What is left to spend, to this run and all that count with it, as of the last report.

        After a step what was used in it is counted. Example: `if (ctx.budget.usd or 1) < 0.5: …`
        """
        return BudgetLeft(**self.lease.budget)

    @property
    def inputs(self) -> Any:
        """The outputs of the steps that this one needs, by name; the input of any other run.

        With an `element`, that element alone.
        """
        return self.lease.input

    async def emit(self, type: str, payload: object = None, *, key: str | None = None) -> Event:  # noqa: A002 - the column's name
        """Append an event to the run's timeline; with a `key` only once."""
        if self._read is not None:
            self._read.check("emit")
        if self.undos is not None:  # it was told when it was done
            run_id = UUID(self.lease.run_id)
            return Event(run_id, 0, type, key, payload, datetime.now(UTC), "")
        return await self._worker.emit(self.lease, type, payload, key)

    async def progress(
        self, done: float, of: float | None = None, text: str | None = None
    ) -> Event:
        """Append an event of type `progress` with how much is done, of how much, and words."""
        return await self.emit("progress", {"done": done, "of": of, "text": text})

    def usage(
        self,
        *,
        model: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        cost_usd: float | Decimal | None = None,
        cost_usd_input: float | Decimal | None = None,
        cost_usd_output: float | Decimal | None = None,
        latency_ms: int | None = None,
        error_code: str | None = None,
        request_id: str | None = None,
        actor: str | None = None,
        role: str | None = None,
        thread_id: str | None = None,
        turn_index: int | None = None,
        call_key: str | None = None,
    ) -> None:
        """Record a call of a model in the ledger, and add `cost_usd` to what the run has cost.

        It is written soon, and before the run ends or waits. `cost_usd` is the sum of the other
        two unless it is given; with an `error_code` the call has failed. A `call_key` counts once
        in the life of the run. Without one, a call in a step counts each time that the step is
        executed, and one outside of steps once, however often the handler comes by. Costs that are
        Decimals are kept to the last digit.
        Example: `ctx.usage(model="m-1", input_tokens=900, output_tokens=80, cost_usd=0.02)`.
        """
        for name, cost in (
            ("cost_usd", cost_usd),
            ("cost_usd_input", cost_usd_input),
            ("cost_usd_output", cost_usd_output),
        ):
            if cost is not None and not (math.isfinite(cost) and cost >= 0):
                raise ValueError(f"{name} must be a finite number from 0, not {cost}")
        if self.undos is not None:  # it was told when it was done
            return
        key, step = self.journal.usage_key(self._execution)
        call = {
            "call_key": call_key or key,
            "step": step,
            "actor": actor,
            "model": model,
            "role": role,
            "thread_id": thread_id,
            "turn_index": turn_index,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
            "reasoning_tokens": reasoning_tokens,
            "cost_usd_input": cost_usd_input,
            "cost_usd_output": cost_usd_output,
            "cost_usd_total": cost_usd,
            "latency_ms": latency_ms,
            "error_code": error_code,
            "request_id": request_id,
        }
        told = {
            name: storable(_exact(value)) if isinstance(value, str | Decimal) else value
            for name, value in call.items()
            if value is not None
        }
        self._worker.usage(Usage(self.lease, call_key or key, dumps(told, "what a model used")))

    @property
    def _execution(self) -> str:
        """A name of this execution among all of the run."""
        return f"{self.lease.lease_no}.{self._again}" if self._again else f"{self.lease.lease_no}"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Write what is committed together with the completion of the run, or not at all.

        Gives a connection in a transaction, read committed. It is committed when the handler has
        returned: after this nothing else of the context can be called. If the lease is lost, or
        the handler raises, nothing is written.
        Example: `async with ctx.transaction() as conn: await conn.execute("insert …")`.
        """
        transaction = self.begin_transaction()
        try:
            yield await transaction.begin()
        except BaseException:
            await self.roll_back()
            raise

    def begin_transaction(self) -> Transaction:
        """Return the transaction that ends this run, not begun yet."""
        journal = self.journal
        scope, key = journal.enter("transaction", "transaction", numbered=True)
        if scope is not journal.root:
            raise MisplacedCall("ctx.transaction ends the run, so it cannot stand in a branch")
        if self.undos is not None:
            journal.suspend(scope)
        journal.asked.discard(key)  # it is in no journal
        journal.closed = "ctx.transaction"
        self.transacting = self.new_transaction()
        return self.transacting

    async def roll_back(self) -> None:
        """Give up the transaction; the handler may go on without it."""
        transaction, self.transacting = self.transacting, None
        self.journal.closed = None
        if transaction is not None:
            await transaction.abandon()

    def park(self) -> str:
        """Return the waits of this execution as the json text that the database is sent."""
        lease = self.lease
        head = dumps(
            {
                "run_id": lease.run_id,
                "lease_no": lease.lease_no,
                "news": lease.news,
                "wait_any": self.journal.wait_any,
            }
        )
        waits = ",".join(text for _, _, text in self.journal.waits.values())
        return f'{head[:-1]},"waits":[{waits}]}}'

    def anew(self, entries: list[dict[str, Any]]) -> Context:
        """Return the context of another execution under this lease, which knows `entries` too."""
        context = Context(self.lease, self._worker)
        context._again = self._again + 1
        context._known = read_entries(entries, self.journal.entries)
        return context

    def collecting(self, entries: list[dict[str, Any]]) -> Context:
        """Return the context of an execution that looks up how `entries` are undone."""
        context = Context(self.lease, self._worker)
        context.overstaying = self.overstaying
        context.undos = {}
        context._round = entries[-1].get("round", 0)
        context._known = read_entries(entries, self.journal.entries)
        return context


def _exact(value: str | Decimal) -> str:
    """Return a text as it is, a Decimal as its digits: as a number of JSON it would be rounded."""
    return value if isinstance(value, str) else f"{value:f}"
