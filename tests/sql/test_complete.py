"""complete: running -> completed, for many runs at once."""

from __future__ import annotations

import secrets
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease

POISONS = {
    "a NUL in a string": '{"text": "a\\u0000b"}',
    "half a surrogate pair": '"\\ud800"',
    "no json": "{nonsense",
    "an empty text": "",
    "over the limit": f'"{"x" * 8_388_608}"',
    "a number beyond all bounds": "1e999999",
    "too deep": "[" * 100_000 + "]" * 100_000,
}


def leased(engine: Engine, many: int) -> list[Lease]:
    engine.worker()
    engine.enqueue_many([{"n": n} for n in range(many)])
    return engine.acquire(many).leases


def test_a_completed_run_has_its_output_and_no_lease(engine: Engine) -> None:
    lease = engine.leased()
    engine.later(seconds=2)
    assert engine.complete(lease, output='{"ok": true}') == []
    run = engine.run(lease.run_id)
    assert (run["state"], run["output"]) == ("completed", {"ok": True})
    assert (run["finished_at"], run["started_at"]) == (
        engine.now,
        engine.now - timedelta(seconds=2),
    )
    assert (run["worker_id"], run["lease_until"], run["heartbeat_at"]) == (None, None, None)
    assert (run["last_worker_id"], run["attempt_count"], run["error_code"]) == ("w:1", 0, None)
    assert len(run["output_sha256"]) == 64


def test_all_that_was_known_of_the_run_is_kept(engine: Engine) -> None:
    given: dict[str, Any] = {
        "input": {"a": 1},
        "priority": 3,
        "max_attempts": 4,
        "timeout": timedelta(minutes=1),
        "deadline": engine.now + timedelta(hours=1),
        "run_at": engine.now - timedelta(hours=1),
        "correlation_id": "c-1",
        "idempotency_key": "order-1",
        "tags": ["a"],
    }
    lease = engine.leased(**given)
    engine.record_steps(lease, a="1")
    before = engine.run(lease.run_id)
    engine.complete(lease, output="1")
    after = engine.run(lease.run_id)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "state",
        "output",
        "output_sha256",
        "worker_id",
        "last_worker_id",
        "lease_until",
        "heartbeat_at",
        "finished_at",
    }


@pytest.mark.parametrize("output", ["null", "0", '""', "false", "[]", "{}"])
def test_an_empty_output_is_an_output(engine: Engine, output: str) -> None:
    lease = engine.leased()
    assert engine.complete(lease, output=output) == []
    stored = engine.value(
        "select output::text from pgflow.run_finished where run_id = %s", lease.run_id
    )
    assert stored == output


def test_no_output_is_null(engine: Engine) -> None:
    lease = engine.leased()
    assert engine.complete(lease, outputs=[None]) == []
    assert engine.state(lease.run_id) == "completed"


def test_many_get_each_its_own_output(engine: Engine) -> None:
    leases = leased(engine, 50)
    assert engine.complete(*leases, outputs=[str(n) for n in range(50)]) == []
    assert [engine.run(lease.run_id)["output"] for lease in leases] == list(range(50))


def test_a_completed_run_is_gone_from_the_live_ones(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease)
    query = "select count(*) from pgflow.{} where run_id = %s"
    assert engine.value(query.format("run"), lease.run_id) == 0
    assert engine.value(query.format("run_finished"), lease.run_id) == 1


def test_the_same_again_is_already_done(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease, output="1")
    before = engine.place.rows()
    (line,) = engine.complete(lease, output="2")
    assert (line["outcome"], line["state"]) == ("already", "completed")
    assert engine.place.rows() == before


def test_a_batch_sent_again_is_already_done(engine: Engine) -> None:
    leases = leased(engine, 20)
    engine.complete(*leases[:10])
    lines = engine.complete(*leases)
    assert {line["run_id"] for line in lines} == {lease.run_id for lease in leases[:10]}
    assert {line["outcome"] for line in lines} == {"already"}
    assert engine.complete(leases[19])[0]["outcome"] == "already"


def test_the_same_run_twice_in_a_batch_is_completed_once(engine: Engine) -> None:
    one, other = leased(engine, 2)
    lines = engine.complete(one, other, one)
    assert [line["outcome"] for line in lines] == ["already"]
    assert engine.state(one.run_id) == engine.state(other.run_id) == "completed"


@pytest.mark.parametrize("lease_no", [0, 2, -1, 2_000_000_000])
def test_a_wrong_lease_number_changes_nothing(engine: Engine, lease_no: int) -> None:
    lease = engine.leased()
    before = engine.place.rows()
    (line,) = engine.call(
        "complete", run_ids=[lease.run_id], lease_nos=[lease_no], outputs=["1"], costs_usd=[1]
    )
    assert (line["outcome"], line["state"]) == ("lost", "running")
    assert engine.place.rows() == before


def test_what_is_lost_says_so_by_its_code(engine: Engine) -> None:
    lease = engine.leased()
    engine.call("pause", run_id=lease.run_id)
    for (line,) in (engine.complete(lease), engine.fail(lease), engine.release(lease)):
        assert (line["outcome"], line["code"]) == ("lost", "PF301")
        assert str(lease.run_id) in line["detail"]
    line = engine.park(lease)
    assert (line["outcome"], line["code"]) == ("lost", "PF301")


def test_a_run_that_nobody_knows_is_lost(engine: Engine) -> None:
    (line,) = engine.call("complete", run_ids=[uuid4()], lease_nos=[1], outputs=["1"])
    assert (line["outcome"], line["state"]) == ("lost", None)


@pytest.mark.parametrize(
    ("how", "state"),
    [("cancel", "cancelled"), ("pause", "paused"), ("release", "pending"), ("fail", "scheduled")],
)
def test_a_run_that_was_taken_away_is_lost(engine: Engine, how: str, state: str) -> None:
    lease = engine.leased()
    if how == "release":
        engine.release(lease)
    elif how == "fail":
        engine.fail(lease)
    else:
        engine.call(how, run_id=lease.run_id)
    (line,) = engine.complete(lease)
    assert (line["outcome"], line["state"]) == ("lost", state)


def test_the_lost_ones_of_a_batch_do_not_hold_the_others_up(engine: Engine) -> None:
    leases = leased(engine, 10)
    for lease in leases[:3]:
        engine.call("cancel", run_id=lease.run_id)
    lines = engine.complete(*leases)
    assert {line["run_id"] for line in lines} == {lease.run_id for lease in leases[:3]}
    assert {line["outcome"] for line in lines} == {"lost"}
    assert {engine.state(lease.run_id) for lease in leases[3:]} == {"completed"}


def test_a_run_of_another_project_is_lost(engine: Engine) -> None:
    engine.tell("create_project", project="acme")
    lease = engine.leased()
    assert engine.complete(lease, project="acme")[0]["outcome"] == "lost"
    assert engine.state(lease.run_id) == "running"


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_one_poisoned_output_in_200_fails_alone(engine: Engine, poison: str) -> None:
    leases = leased(engine, 200)
    outputs = ['{"ok": 1}'] * 200
    outputs[101] = POISONS[poison]
    (line,) = engine.complete(*leases, outputs=outputs, costs_usd=[1] * 200)
    assert line["run_id"] == leases[101].run_id
    assert (line["outcome"], line["state"], line["code"]) == ("refused", "failed", "E-RUN-017")
    run = engine.run(leases[101].run_id)
    assert (run["state"], run["error_code"], run["output"]) == ("failed", "E-RUN-017", None)
    assert run["error_detail"] == line["detail"]
    assert run["last_error"]["message"]
    states = engine.rows(
        "select state, cost_usd from pgflow.runs where run_id = any (%s) and run_id <> %s",
        [lease.run_id for lease in leases],
        leases[101].run_id,
    )
    assert [(row["state"], row["cost_usd"]) for row in states] == [("completed", 1)] * 199


def test_many_poisons_in_one_batch_fail_each_alone(engine: Engine) -> None:
    leases = leased(engine, 30)
    outputs = ["{nonsense" if n % 7 == 0 else "1" for n in range(30)]
    lines = engine.complete(*leases, outputs=outputs)
    assert {line["run_id"] for line in lines} == {leases[n].run_id for n in range(0, 30, 7)}
    states = [engine.state(lease.run_id) for lease in leases]
    assert states == ["failed" if n % 7 == 0 else "completed" for n in range(30)]


def test_a_poisoned_run_keeps_its_cost_and_steps(engine: Engine) -> None:
    lease = engine.leased()
    engine.complete(lease, output="{nonsense", costs_usd=[Decimal("0.5")], steps=[2])
    run = engine.run(lease.run_id)
    assert (run["cost_usd"], run["step_count"]) == (Decimal("0.5"), 2)


def test_a_poisoned_output_sent_again_is_no_lost_lease(engine: Engine) -> None:
    lease = engine.leased()
    first = engine.complete(lease, output="{nonsense")
    again = engine.complete(lease, output="{nonsense")
    assert [(line["outcome"], line["code"]) for line in again] in (
        [("refused", "E-RUN-017")],
        [("already", "E-RUN-017")],
    )
    assert first[0]["outcome"] == "refused"


@pytest.mark.parametrize(
    "poison",
    [{"costs_usd": [Decimal("NaN")]}, {"steps": [2_147_483_647]}, {"steps": [-5]}],
    ids=str,
)
def test_a_poisoned_delta_in_the_middle_does_not_hold_the_others_up(
    engine: Engine, poison: dict[str, list[Any]]
) -> None:
    leases = leased(engine, 5)
    engine.record_steps(leases[2], a="1")
    ((name, (value,)),) = poison.items()
    nothing: list[object] = [type(value)(0)] * 2
    deltas = [*nothing, value, *nothing]
    poisoned: dict[str, Any] = {name: deltas}
    engine.complete(*leases, **poisoned)
    others = [engine.state(lease.run_id) for lease in leases if lease is not leases[2]]
    assert others == ["completed"] * 4
    assert engine.state(leases[2].run_id) in {"completed", "failed"}


def test_costs_and_steps_are_added_once(engine: Engine) -> None:
    lease = engine.leased()
    engine.release(lease, costs_usd=[Decimal("0.25")], steps=[1])
    again = engine.lease_of(lease.run_id)
    for _ in range(2):
        engine.complete(again, costs_usd=[Decimal("0.5")], steps=[2])
    run = engine.run(lease.run_id)
    assert (run["cost_usd"], run["step_count"]) == (Decimal("0.75"), 3)


def test_a_run_that_told_no_cost_has_none(engine: Engine) -> None:
    lease, free = leased(engine, 2)
    engine.complete(lease, free, costs_usd=[None, 0])
    assert engine.run(lease.run_id)["cost_usd"] is None
    assert engine.run(free.run_id)["cost_usd"] == 0


def test_a_completion_after_retries_clears_the_code_and_keeps_the_last_error(
    engine: Engine,
) -> None:
    lease = engine.leased()
    engine.fail(lease, errors=['{"type": "ValueError", "message": "boom"}'])
    engine.later(seconds=2)
    engine.tick()
    engine.complete(engine.lease_of(lease.run_id))
    run = engine.run(lease.run_id)
    assert (run["state"], run["attempt_count"]) == ("completed", 1)
    assert (run["error_code"], run["error_detail"]) == (None, None)
    assert run["last_error"] == {"type": "ValueError", "message": "boom"}


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_an_output_just_under_its_limit_is_stored(engine: Engine) -> None:
    lease = engine.leased()
    assert engine.complete(lease, output=f'"{secrets.token_hex(4_190_000)}"') == []
    assert engine.state(lease.run_id) == "completed"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("run_ids", {"run_ids": []}),
        ("run_ids", {"run_ids": None}),
        ("run_ids", {"run_ids": [None]}),
        ("lease_nos", {"lease_nos": []}),
        ("lease_nos", {"lease_nos": [None]}),
        ("lease_nos", {"lease_nos": [1, 1]}),
        ("lease_nos", {"lease_nos": None}),
        ("arrays", {"outputs": []}),
        ("arrays", {"outputs": ["1", "2"]}),
        ("arrays", {"costs_usd": [1, 2]}),
        ("arrays", {"steps": [1, 2]}),
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_are_refused(
    engine: Engine, field: str, change: dict[str, object]
) -> None:
    lease = engine.leased()
    given = {"run_ids": [lease.run_id], "lease_nos": [1], "outputs": ["1"], **change}
    with engine.refused("PF101", field):
        engine.call("complete", **given)


def test_an_unknown_project_is_refused(engine: Engine) -> None:
    lease = engine.leased()
    with engine.refused("PF502", "project"):
        engine.complete(lease, project="nobody's")


@pytest.mark.parametrize("mixed", [False, True])
def test_in_a_batch_only_the_leases_that_hold_end_whatever_their_numbers(
    engine: Engine, *, mixed: bool
) -> None:
    fine, stale = engine.leased(), engine.leased()
    if mixed:
        engine.release(fine)
        fine = engine.lease_of(fine.run_id)
    engine.release(stale)
    engine.lease_of(stale.run_id)
    (line,) = engine.complete(stale, fine)
    assert (line["run_id"], line["outcome"]) == (stale.run_id, "lost")
    assert (engine.state(fine.run_id), engine.state(stale.run_id)) == ("completed", "running")
    assert (fine.lease_no, stale.lease_no) == (2 if mixed else 1, 1)
