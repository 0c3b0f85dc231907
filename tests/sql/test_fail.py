"""fail: running -> scheduled (retried), failed, or paused."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease

ERROR = {"type": "ValueError", "message": "boom", "traceback": "Traceback ..."}
POISONS = {
    "a NUL in a string": '{"message": "a\\u0000b"}',
    "no json": "{nonsense",
    "huge": json.dumps({"type": "E", "message": "m" * 5_000_000, "traceback": "t" * 5_000_000}),
    "a huge text": json.dumps("x" * 5_000_000),
    "huge in a field that nobody knows": json.dumps({"message": "m", "more": "x" * 5_000_000}),
    "too deep": "[" * 100_000 + "]" * 100_000,
}


def leased(engine: Engine, many: int) -> list[Lease]:
    engine.worker()
    engine.enqueue_many([{}] * many)
    return engine.acquire(many).leases


def test_a_failed_execution_is_scheduled_again_while_attempts_are_left(engine: Engine) -> None:
    lease = engine.leased()
    (line,) = engine.fail(lease, errors=[json.dumps(ERROR)])
    assert (line["outcome"], line["state"], line["code"]) == ("done", "scheduled", "E-RUN-001")
    run = engine.run(lease.run_id)
    assert (run["state"], run["attempt_count"], run["worker_id"]) == ("scheduled", 1, None)
    assert (run["last_error"], run["error_code"]) == (ERROR, None)


def test_the_retry_is_told_with_its_reason_and_its_time(engine: Engine) -> None:
    lease = engine.leased()
    engine.fail(lease, detail="it broke")
    event = engine.timeline(lease.run_id)[-1]
    assert (event["type"], event["lease_no"], event["worker_id"]) == ("run.retried", 1, "w:1")
    told = event["payload"]
    assert (told["attempt"], told["max_attempts"]) == (1, 3)
    assert (told["error_code"], told["error_detail"]) == ("E-RUN-001", "it broke")
    run_at = engine.value("select %s::timestamptz", told["run_at"])
    assert run_at == engine.run(lease.run_id)["run_at"]


def test_the_last_attempt_fails_the_run(engine: Engine) -> None:
    lease = engine.leased(max_attempts=1)
    (line,) = engine.fail(lease, detail="it broke", errors=[json.dumps(ERROR)])
    assert (line["outcome"], line["state"]) == ("done", "failed")
    run = engine.run(lease.run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-001")
    assert (run["error_detail"], run["last_error"]) == ("it broke", ERROR)
    assert (run["attempt_count"], run["finished_at"]) == (1, engine.now)


def test_exactly_max_attempts_executions_are_made(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue(max_attempts=3)
    executions = 0
    while engine.state(run_id) != "failed":
        engine.fail(engine.lease_of(run_id))
        executions += 1
        engine.later(minutes=1)
        engine.tick()
    assert executions == 3


def test_an_error_that_is_not_to_be_retried_fails_the_run(engine: Engine) -> None:
    lease = engine.leased(max_attempts=9)
    assert engine.fail(lease, code="E-RUN-005", retries=[False])[0]["state"] == "failed"
    assert engine.run(lease.run_id)["error_code"] == "E-RUN-005"


def test_a_retry_comes_before_new_work(engine: Engine) -> None:
    lease = engine.leased()
    engine.fail(lease)
    engine.enqueue()
    engine.later(seconds=2)
    engine.tick()
    assert engine.acquire(1).run_ids == [lease.run_id]


# ---- the delay


def delays(engine: Engine, retries: int, **said: float) -> list[timedelta]:
    """Return how long each retry of a run is put off."""
    engine.worker(handlers=[{"handler": "h", **said}])
    run_id = engine.enqueue(max_attempts=retries + 1)
    waits = []
    for _ in range(retries):
        engine.fail(engine.lease_of(run_id))
        waits.append(engine.run(run_id)["run_at"] - engine.now)
        engine.set_clock(engine.run(run_id)["run_at"])
        engine.tick()
    return waits


def test_each_retry_waits_longer_up_to_the_handlers_longest(engine: Engine) -> None:
    waits = delays(engine, 6, retry_base=10, retry_factor=3, retry_max=300)
    for wait, full in zip(waits, [10, 30, 90, 270, 300, 300], strict=True):
        assert timedelta(seconds=full / 2) <= wait <= timedelta(seconds=full)


def test_a_handler_that_nobody_registered_has_the_default_delays(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue("nobody's", max_attempts=9)
    engine.fail(engine.lease_of(run_id))
    wait = engine.run(run_id)["run_at"] - engine.now
    assert timedelta(seconds=0.5) <= wait <= timedelta(seconds=1)


def test_runs_that_failed_together_come_apart(engine: Engine) -> None:
    leases = leased(engine, 20)
    engine.fail(*leases)
    waits = {engine.run(lease.run_id)["run_at"] for lease in leases}
    assert len(waits) > 10


def test_a_delay_of_nothing_makes_the_run_pending_at_once(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "h", "retry_base": 0}])
    lease = engine.leased()
    assert engine.fail(lease)[0]["state"] == "pending"
    assert engine.lease_of(lease.run_id).body["attempt"] == 1


def test_the_thousandth_delay_can_still_be_computed(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "h", "retry_factor": 100, "retry_max": 3600}])
    lease = engine.leased(max_attempts=1000)
    engine.rows("update pgflow.run set attempt = 998 where run_id = %s", lease.run_id)
    engine.fail(lease)
    assert engine.run(lease.run_id)["run_at"] - engine.now <= timedelta(hours=1)


# ---- again, lost, refused


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_the_same_again_is_already_done(engine: Engine, max_attempts: int) -> None:
    lease = engine.leased(max_attempts=max_attempts)
    engine.fail(lease, costs_usd=[1])
    before = engine.place.rows()
    (line,) = engine.fail(lease, costs_usd=[1])
    assert line["outcome"] == "already"
    assert engine.place.rows() == before


def test_the_same_again_is_already_done_when_the_run_has_gone_on(engine: Engine) -> None:
    lease = engine.leased()
    engine.fail(lease)
    engine.later(seconds=2)
    engine.tick()
    again = engine.lease_of(lease.run_id)
    assert engine.fail(lease)[0]["outcome"] == "already"
    engine.complete(again)
    (line,) = engine.fail(lease)
    assert (line["outcome"], line["state"]) == ("already", "completed")


def test_a_wrong_lease_number_changes_nothing(engine: Engine) -> None:
    old = engine.leased()
    engine.release(old)
    engine.lease_of(old.run_id)
    before = engine.place.rows()
    (line,) = engine.fail(old)
    assert (line["outcome"], line["state"]) == ("lost", "running")
    assert engine.place.rows() == before


@pytest.mark.parametrize("how", ["pause", "cancel", "reap", "reap to the end", "deadline"])
def test_what_others_did_to_the_run_is_not_taken_for_this_failure(engine: Engine, how: str) -> None:
    lease = engine.leased(
        max_attempts=1 if how == "reap to the end" else 3,
        deadline=engine.now + timedelta(seconds=90),
    )
    if how in {"pause", "cancel"}:
        engine.call(how, run_id=lease.run_id)
    else:
        engine.later(seconds=90 if how == "deadline" else 61)
        engine.tick()
    assert engine.fail(lease)[0]["outcome"] == "lost"


def test_an_unknown_code_is_refused(engine: Engine) -> None:
    lease = engine.leased()
    for code in ("E-RUN-999", None):
        with engine.refused("PF101", "error_codes"):
            engine.fail(lease, error_codes=[code])


@pytest.mark.parametrize("name", ["error_details", "errors", "retries", "costs_usd", "steps"])
def test_arrays_that_do_not_fit_are_refused(engine: Engine, name: str) -> None:
    lease = engine.leased()
    nothing: dict[str, Any] = {name: []}
    with engine.refused("PF101", "arrays"):
        engine.fail(lease, **nothing)


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_one_poisoned_error_in_200_is_kept_as_far_as_it_can_be(engine: Engine, poison: str) -> None:
    leases = leased(engine, 200)
    errors = [json.dumps(ERROR)] * 200
    errors[101] = POISONS[poison]
    lines = engine.fail(*leases, errors=errors, retries=[False] * 200)
    assert {(line["outcome"], line["state"]) for line in lines} == {("done", "failed")}
    errors_kept = {
        row["run_id"]: row["last_error"]
        for row in engine.rows(
            "select run_id, last_error from pgflow.runs where run_id = any (%s)",
            [lease.run_id for lease in leases],
        )
    }
    poisoned = errors_kept.pop(leases[101].run_id)
    assert all(error == ERROR for error in errors_kept.values())
    assert isinstance(poisoned, dict)
    assert len(json.dumps(poisoned)) <= 65_536


def test_a_long_error_keeps_its_type_its_message_and_the_end_of_its_traceback(
    engine: Engine,
) -> None:
    lease = engine.leased()
    error = {"type": "ValueError", "message": "boom", "traceback": "t" * 100_000 + "the end"}
    engine.fail(lease, errors=[json.dumps(error)])
    kept = engine.run(lease.run_id)["last_error"]
    assert (kept["type"], kept["message"], kept["truncated"]) == ("ValueError", "boom", True)
    assert kept["traceback"].endswith("the end")


@pytest.mark.parametrize("retry", [True, False])
def test_a_long_detail_is_cut(engine: Engine, *, retry: bool) -> None:
    lease = engine.leased()
    engine.fail(lease, detail="d" * 5_000_000, retries=[retry])
    if retry:
        assert len(engine.timeline(lease.run_id)[-1]["payload"]["error_detail"]) == 8000
    else:
        assert len(engine.run(lease.run_id)["error_detail"]) == 8000


@pytest.mark.parametrize("no_detail", [None, ""])
def test_a_failure_without_words_is_one_as_well(engine: Engine, no_detail: str | None) -> None:
    lease = engine.leased()
    assert engine.fail(lease, error_details=[no_detail], errors=[None])[0]["outcome"] == "done"


@pytest.mark.parametrize("retry", [True, False])
def test_costs_and_steps_are_added_once(engine: Engine, *, retry: bool) -> None:
    lease = engine.leased()
    for _ in range(2):
        engine.fail(lease, costs_usd=[Decimal("0.5")], steps=[2], retries=[retry])
    run = engine.run(lease.run_id)
    assert (run["cost_usd"], run["step_count"]) == (Decimal("0.5"), 2)


def test_the_lost_ones_of_a_batch_do_not_hold_the_others_up(engine: Engine) -> None:
    leases = leased(engine, 4)
    engine.call("cancel", run_id=leases[1].run_id)
    engine.complete(leases[2])
    outcomes = {line["run_id"]: line["outcome"] for line in engine.fail(*leases)}
    assert [outcomes[lease.run_id] for lease in leases] == ["done", "lost", "lost", "done"]


def test_the_same_run_twice_in_a_batch_fails_once(engine: Engine) -> None:
    one = engine.leased()
    lines = engine.fail(one, one)
    assert sorted(line["outcome"] for line in lines) == ["already", "done"]
    assert engine.run(one.run_id)["attempt_count"] == 1


# ---- code that does not fit the journal


def test_a_misfit_of_code_and_journal_pauses_the_run(engine: Engine) -> None:
    lease = engine.leased(max_attempts=1)
    (line,) = engine.fail(lease, code="E-RUN-012", detail="step 2 is gone")
    assert (line["outcome"], line["state"]) == ("done", "paused")
    run = engine.run(lease.run_id)
    assert (run["state"], run["attempt_count"]) == ("paused", 0)
    assert run["pause_reason"] == "E-RUN-012: step 2 is gone"
    assert engine.tell("resume", run_id=lease.run_id) == "pending"


def test_a_misfit_keeps_its_error_cost_and_steps(engine: Engine) -> None:
    lease = engine.leased()
    engine.fail(
        lease,
        code="E-RUN-012",
        errors=[json.dumps(ERROR)],
        costs_usd=[Decimal("0.5")],
        steps=[2],
    )
    run = engine.run(lease.run_id)
    assert (run["cost_usd"], run["step_count"]) == (Decimal("0.5"), 2)
    assert run["last_error"] == ERROR


def test_a_misfit_said_again_is_already_done(engine: Engine) -> None:
    lease = engine.leased()
    engine.fail(lease, code="E-RUN-012")
    (line,) = engine.fail(lease, code="E-RUN-012")
    assert (line["outcome"], line["state"]) == ("already", "paused")


def test_a_misfit_without_words_pauses_as_well(engine: Engine) -> None:
    lease = engine.leased()
    assert engine.fail(lease, code="E-RUN-012", error_details=[None])[0]["state"] == "paused"
