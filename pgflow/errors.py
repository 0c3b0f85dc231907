"""What pgflow raises. The docstring of a class is its message when none is given."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pgflow.models import Result


class PgflowError(Exception):
    """Something that pgflow was asked to do could not be done."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join(inspect.cleandoc(self.__doc__ or "").split()))


class EmbeddedNotInstalled(PgflowError):
    """There is no DSN, and no PostgreSQL to start.

    Give a DSN, set $PGFLOW_DSN, or run: pip install 'pgflow-engine[embedded]'
    """


class DataDirectoryUnusable(PgflowError):
    """The embedded server cannot use its data directory; set $PGFLOW_DATA_DIR to another one."""


class ServerNotRunning(PgflowError):
    """The embedded server has not been started."""


class ServerStartFailed(PgflowError):
    """The embedded server did not start."""


class ServerStopFailed(PgflowError):
    """The embedded server did not stop."""


class DatabaseIsNewer(PgflowError):
    """A newer pgflow has migrated this database; nothing was changed. Upgrade this program."""


class MigrationBusy(PgflowError):
    """Another migration of this database is still running; try again when it has ended."""


class MigrationIncomplete(PgflowError):
    """Some migrations could not be applied."""


class ServerUnreachable(PgflowError):
    """No PostgreSQL server answers at that DSN."""


class AppNotFound(PgflowError):
    """The --app argument must be module:name of a pgflow.App that can be imported."""


class DuplicateHandler(PgflowError):
    """Two handlers of one app have the same name."""


class BadHandler(PgflowError):
    """A handler takes the context, an input, both or nothing."""


class BadDefinition(PgflowError):
    """A file with the definition of a flow cannot be read."""


class NotJson(PgflowError):
    """A value that has to be stored is not JSON."""


class NotStored(PgflowError):
    """The database cannot store a value: it is too large, or has a NUL in a text."""


class WriteRefused(NotStored):
    """What a step wrote does not fit the channel of its flow."""


class UnknownChannel(PgflowError):
    """The flow of the step has no channel of that name."""


class JournalMismatch(PgflowError):
    """A step was journalled with other inputs: the handler's code has changed."""


class MisplacedCall(PgflowError):
    """A call of the context stands where it cannot: the handler has to be written otherwise."""


class Replayed(PgflowError):
    """The journal says that a call of the context has failed, and will say so again."""


class NonRetryable(PgflowError):
    """The handler's run fails, whatever attempts are left: another would find the same."""


class BadSchema(NonRetryable):
    """A JSON Schema cannot be used: it is none of draft 2020-12."""


class Rejected(Replayed):
    """An approval was rejected, and the handler asked to be told."""


class WaitTimeout(Replayed, TimeoutError):
    """What the handler waits for has not come in time."""


class ChildFailed(Replayed):
    """A child run has not completed.

    Attributes: `run_id`; `state`, the one it ended in; `error_code` and `error_detail`, if any.
    """

    def __init__(
        self,
        key: str,
        *,
        run_id: str,
        state: str,
        error_code: str | None = None,
        error_detail: str | None = None,
    ) -> None:
        why = ": ".join(text for text in (error_code, error_detail) if text)
        super().__init__(f"{key}: child run {run_id} ended {state}" + (f" with {why}" * bool(why)))
        self.run_id = run_id
        self.state = state
        self.error_code = error_code
        self.error_detail = error_detail


class ResultTimeout(PgflowError, TimeoutError):
    """The run did not come so far in time; it goes on as before.

    `state` is the state that it was in.
    """

    def __init__(self, message: str | None = None, *, state: str | None = None) -> None:
        super().__init__(message)
        self.state = state


class RunNotCompleted(PgflowError):
    """A run has no output, because it is not completed. `result` is its Result."""

    def __init__(self, message: str | None = None, result: Result | None = None) -> None:
        super().__init__(message)
        self.result = result


class Refusal(PgflowError):
    """The database refused a call, with an SQLSTATE of class PF.

    Attributes: `sqlstate`; `detail` and `hint`, texts that may be empty; `field`, the argument
    that was refused, where one was.
    """

    sqlstate: ClassVar[str] = ""

    def __init__(
        self, message: str | None = None, *, detail: str = "", hint: str = "", field: str = ""
    ) -> None:
        super().__init__(message)
        self.detail = detail
        self.hint = hint
        self.field = field


class BadRequest(Refusal):
    """An argument is missing or out of its range; `field` names it."""

    sqlstate = "PF101"


class UnknownRun(Refusal):
    """There is no run of that id in this project."""

    sqlstate = "PF102"


class UnknownTask(Refusal):
    """There is no task of that id in this project."""

    sqlstate = "PF103"


class UnknownQueue(Refusal):
    """There is no queue of that name in this project."""

    sqlstate = "PF104"


class UnknownEntry(Refusal):
    """There is no entry of that key in the run's journal."""

    sqlstate = "PF105"


class UnknownFlow(Refusal):
    """There is no flow of that name, or no such version of it."""

    sqlstate = "PF106"


class UnknownSubscription(Refusal):
    """There is no subscription of that name in this project."""

    sqlstate = "PF107"


class UnknownSchema(Refusal):
    """There is no schema of that name, or no such version of it."""

    sqlstate = "PF110"


class UnknownArtifact(Refusal):
    """There is no such artifact."""

    sqlstate = "PF111"


class UnknownAgent(Refusal):
    """There is no agent of that name, or no such version of it."""

    sqlstate = "PF112"


class MoveRefused(Refusal):
    """The state machine refuses the move from `from_state` to `to_state` of run `run_id`."""

    def __init__(
        self, message: str | None = None, *, detail: str = "", hint: str = "", field: str = ""
    ) -> None:
        super().__init__(message, detail=detail, hint=hint, field=field)
        try:
            move = json.loads(detail)
        except ValueError:
            move = {}
        self.run_id: str | None = move.get("run_id")
        self.from_state: str | None = move.get("from_state")
        self.to_state: str | None = move.get("to_state")


class IllegalMove(MoveRefused):
    """The state machine has no such move."""

    sqlstate = "PF201"


class AlreadyFinished(MoveRefused):
    """The run is finished; finished runs do not change."""

    sqlstate = "PF202"


class RowIsProtected(Refusal):
    """Live runs leave their table only by ending; finished runs never change."""

    sqlstate = "PF203"


class NotWaiting(Refusal):
    """The run does not wait for this, or does no longer."""

    sqlstate = "PF204"


class BindingLost(Refusal):
    """What a role of the run was bound to is missing or malformed (E-RUN-012)."""

    sqlstate = "PF205"


class LeaseLost(Refusal):
    """The run is no longer leased under that lease number."""

    sqlstate = "PF301"


class UnknownWorker(Refusal):
    """No worker of that id is registered in this project."""

    sqlstate = "PF302"


class BatchLost(Refusal):
    """The batch of events is not held any more; somebody else has, or gets, its events."""

    sqlstate = "PF303"


class IdempotencyConflict(Refusal):
    """The idempotency key or run id was used for something else."""

    sqlstate = "PF401"


class DecisionConflict(Refusal):
    """The task or tool was answered otherwise before, or can no longer be answered."""

    sqlstate = "PF402"


class StillInUse(Refusal):
    """The current version of a flow, or one of which a run is live, needs it."""

    sqlstate = "PF403"


class NotAllowed(Refusal):
    """The actor may not do this."""

    sqlstate = "PF501"


class UnknownProject(Refusal):
    """There is no such project, or the actor is not a member."""

    sqlstate = "PF502"


class WrongIsolation(Refusal):
    """The verb needs the isolation level read committed."""

    sqlstate = "PF503"


def _all_refusals(base: type[Refusal]) -> Iterator[type[Refusal]]:
    for refusal in base.__subclasses__():
        yield refusal
        yield from _all_refusals(refusal)


REFUSALS: dict[str, type[Refusal]] = {r.sqlstate: r for r in _all_refusals(Refusal) if r.sqlstate}
