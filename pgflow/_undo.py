"""Undoes steps: those that a rollback has made void, or those of the run that this run undoes.

How a step is undone is known to the handler's code only: so the handler is executed with all the
old entries, up to the first call that has none, and each step says how it is undone. Then that is
done, newest first, each as a step of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pgflow._journal import Scope
from pgflow._json import digest
from pgflow.context import Context, Suspend
from pgflow.errors import JournalMismatch, LeaseLost

Call = Callable[[Context], Awaitable[object]]
Do = Callable[[Callable[[], object]], Awaitable[object]]


async def undo(context: Context, handle: Call, do: Do) -> list[str]:
    """Undo what the lease says; returns the keys of the steps, newest first.

    `handle` executes the handler with a context; `do` calls a function, in a thread if need be.
    """
    lease = context.lease
    entries = lease.undo or []
    wanted = [entry for entry in entries if entry.get("undo", True)]
    if not wanted:
        return []
    journal = context.journal
    undos = await _look_up(context.collecting(entries[::-1]), handle)
    keys = []
    for entry in wanted:
        key = entry["key"]
        done = f"undo/{entry.get('round', 0)}/{key}"
        keys.append(key)
        if done in journal.entries:
            continue
        if key not in undos:
            raise JournalMismatch(
                f"step {key} has to be undone, and the handler no longer asks for it with an undo"
            )
        function, value = undos[key]
        await do(lambda function=function, value=value: function(value))  # type: ignore[misc]
        inputs = digest([entry["key"], entry.get("value")], f"what {done} undoes")
        await context.keep(Scope(journal, None, "", together=False), done, inputs, None)
    return keys


async def _look_up(
    context: Context, handle: Call
) -> dict[str, tuple[Callable[..., object], object]]:
    try:
        await handle(context)
    except Suspend:
        pass
    except (JournalMismatch, LeaseLost):
        raise
    except Exception:  # noqa: BLE001, S110 - the handler may have failed before, and so again
        pass
    finally:
        if context.transacting is not None:
            await context.transacting.abandon()
    return dict(context.undos or {})
