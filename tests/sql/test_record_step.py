"""record_step: results of steps go into the journal, under a lease."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row

POISONS = {
    "a NUL in a string": '"a\\u0000b"',
    "no json": "{nonsense",
    "over the limit": f'"{"x" * 8_388_608}"',
    "too deep": "[" * 100_000 + "]" * 100_000,
}


def journal(engine: Engine, lease: Lease) -> list[Row]:
    return engine.rows(
        "select * from pgflow.journal where run_id = %s order by event_no", lease.run_id
    )


def record(engine: Engine, *steps: tuple[Lease, str, str]) -> list[Row]:
    """Journal steps of several runs in one call."""
    return engine.call(
        "record_step",
        run_ids=[lease.run_id for lease, _, _ in steps],
        lease_nos=[lease.lease_no for lease, _, _ in steps],
        keys=[key for _, key, _ in steps],
        digests=["aa"] * len(steps),
        values=[value for _, _, value in steps],
    )


def test_a_step_is_journalled_under_its_key(engine: Engine) -> None:
    lease = engine.leased()
    assert engine.record_steps(lease, draft='{"words": 12}') == []
    (entry,) = journal(engine, lease)
    assert (entry["key"], entry["kind"], entry["value"]) == ("draft", "step", {"words": 12})
    assert (entry["digest"], entry["lease_no"], entry["news"]) == (b"\xaa", 1, None)
    assert (engine.run(lease.run_id)["step_count"], entry["at"]) == (1, engine.now)


def test_several_steps_of_several_runs_go_in_one_call(engine: Engine) -> None:
    one, other = engine.leased(), engine.leased()
    assert record(engine, (one, "a", "1"), (other, "a", "2"), (one, "b", "3")) == []
    assert [(e["key"], e["value"]) for e in journal(engine, one)] == [("a", 1), ("b", 3)]
    assert [(e["key"], e["value"]) for e in journal(engine, other)] == [("a", 2)]
    assert engine.run(one.run_id)["step_count"] == 2
    assert engine.types(one.run_id)[2:] == ["step.completed"] * 2


def test_steps_are_told_in_the_order_in_which_they_were_given(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, zebra="1", ant="2")
    steps = [line["step"] for line in engine.timeline(lease.run_id) if line["step"]]
    assert steps == ["zebra", "ant"]
    engine.release(lease)
    entries = engine.lease_of(lease.run_id).body["journal"]
    assert [entry["key"] for entry in entries] == ["zebra", "ant"]


def test_a_step_is_told_with_its_run_attempt(engine: Engine) -> None:
    engine.worker(handlers=[{"handler": "h", "retry_base": 0}])
    lease = engine.leased()
    engine.fail(lease)
    engine.record_steps(engine.lease_of(lease.run_id), a="1")
    line = engine.timeline(lease.run_id)[-1]
    assert (line["type"], line["step"], line["lease_no"]) == ("step.completed", "a", 2)
    assert line["attempt"] == 1


@pytest.mark.parametrize("value", ["null", "0", "false", '""', "{}", "[]"])
def test_an_empty_result_is_a_result(engine: Engine, value: str) -> None:
    lease = engine.leased()
    engine.record_steps(lease, a=value)
    stored = engine.value("select value::text from pgflow.journal where run_id = %s", lease.run_id)
    assert stored == value


def test_the_same_again_under_the_lease_is_no_news(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, a="1")
    before = engine.place.rows()
    assert [line["outcome"] for line in engine.record_steps(lease, a="2")] in ([], ["already"])
    assert engine.place.rows() == before


@pytest.mark.parametrize("how", ["complete", "release", "park", "cancel"])
def test_the_same_again_after_the_lease_is_already_done(engine: Engine, how: str) -> None:
    lease = engine.leased()
    engine.record_steps(lease, a="1")
    if how == "complete":
        engine.complete(lease)
    elif how == "release":
        engine.release(lease)
    elif how == "park":
        engine.park(lease)
    else:
        engine.call("cancel", run_id=lease.run_id)
    before = engine.place.rows()
    (line,) = engine.record_steps(lease, a="1")
    assert (line["outcome"], line["code"]) == ("already", "a")
    assert engine.place.rows() == before


def test_a_step_after_the_lease_is_lost(engine: Engine) -> None:
    lease = engine.leased()
    engine.release(lease)
    engine.lease_of(lease.run_id)
    before = engine.place.rows()
    (line,) = engine.record_steps(lease, a="1")
    assert (line["outcome"], line["code"]) == ("lost", "a")
    assert engine.place.rows() == before


@pytest.mark.parametrize("lease_no", [0, 2])
def test_a_wrong_lease_number_changes_nothing(engine: Engine, lease_no: int) -> None:
    lease = engine.leased()
    before = engine.place.rows()
    (line,) = engine.call(
        "record_step",
        run_ids=[lease.run_id],
        lease_nos=[lease_no],
        keys=["a"],
        digests=["aa"],
        values=["1"],
    )
    assert line["outcome"] == "lost"
    assert engine.place.rows() == before


def test_a_step_of_a_run_that_nobody_knows_is_lost(engine: Engine) -> None:
    (line,) = engine.call(
        "record_step", run_ids=[uuid4()], lease_nos=[1], keys=["a"], digests=["aa"], values=["1"]
    )
    assert line["outcome"] == "lost"


def test_a_step_known_from_an_earlier_lease_stays_as_it_is(engine: Engine) -> None:
    lease = engine.leased()
    engine.record_steps(lease, a="1")
    engine.release(lease)
    again = engine.lease_of(lease.run_id)
    engine.record_steps(again, a="2", b="3")
    assert [(e["key"], e["value"]) for e in journal(engine, lease)] == [("a", 1), ("b", 3)]
    assert engine.state(lease.run_id) == "running"


def test_lost_steps_do_not_hold_the_others_up(engine: Engine) -> None:
    lost, held = engine.leased(), engine.leased()
    engine.call("cancel", run_id=lost.run_id)
    (line,) = record(engine, (lost, "a", "1"), (held, "a", "2"), (held, "b", "3"))
    assert (line["run_id"], line["outcome"]) == (lost.run_id, "lost")
    assert [e["value"] for e in journal(engine, held)] == [2, 3]


def test_an_old_and_a_new_lease_of_one_run_in_a_batch_are_told_apart(engine: Engine) -> None:
    old = engine.leased()
    engine.release(old)
    new = engine.lease_of(old.run_id)
    lines = record(engine, (old, "a", "1"), (new, "b", "2"), (old, "c", "3"), (new, "d", "4"))
    assert {(line["outcome"], line["code"]) for line in lines} == {("lost", "a"), ("lost", "c")}
    engine.record_steps(new, e="5")
    assert [e["key"] for e in journal(engine, new)] == ["b", "d", "e"]
    assert engine.types(new.run_id).count("step.completed") == 3


def test_the_same_key_twice_in_a_batch_is_journalled_once(engine: Engine) -> None:
    lease = engine.leased()
    record(engine, (lease, "a", "1"), (lease, "a", "1"), (lease, "b", "2"))
    assert [e["key"] for e in journal(engine, lease)] == ["a", "b"]
    assert engine.types(lease.run_id).count("step.completed") == 2
    assert engine.run(lease.run_id)["step_count"] == 2


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_one_poisoned_result_in_60_is_refused_alone(engine: Engine, poison: str) -> None:
    engine.worker()
    engine.enqueue_many([{}] * 20)
    leases = engine.acquire().leases
    steps = [(lease, key, "1") for lease in leases for key in "abc"]
    steps[31] = (leases[10], "b", POISONS[poison])
    (line,) = record(engine, *steps)
    assert (line["run_id"], line["outcome"], line["code"]) == (leases[10].run_id, "refused", "b")
    assert line["detail"]
    written = [e["key"] for lease in leases for e in journal(engine, lease)]
    assert len(written) == 59
    assert engine.state(leases[10].run_id) == "running"
    engine.timeline(leases[10].run_id)


@pytest.mark.parametrize("key", ["", "k" * 501, None], ids=["empty", "long", "none"])
def test_a_bad_key_is_refused_alone(engine: Engine, key: str | None) -> None:
    lease = engine.leased()
    lines = engine.call(
        "record_step",
        run_ids=[lease.run_id] * 2,
        lease_nos=[1, 1],
        keys=["a", key],
        digests=["aa", "bb"],
        values=["1", "2"],
    )
    assert [(line["outcome"], line["code"]) for line in lines] == [("refused", key)]
    assert [e["key"] for e in journal(engine, lease)] == ["a"]


def test_a_digest_that_is_no_hex_is_refused_alone(engine: Engine) -> None:
    lease = engine.leased()
    lines = engine.call(
        "record_step",
        run_ids=[lease.run_id] * 2,
        lease_nos=[1, 1],
        keys=["a", "b"],
        digests=["aa", "no hex"],
        values=["1", "2"],
    )
    assert [(line["outcome"], line["code"]) for line in lines] == [("refused", "b")]


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_big_result_is_stored(engine: Engine) -> None:
    lease = engine.leased()
    assert engine.record_steps(lease, a=f'"{secrets.token_hex(4_190_000)}"') == []


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("run_ids", {"run_ids": []}),
        ("lease_nos", {"lease_nos": []}),
        ("arrays", {"keys": []}),
        ("arrays", {"keys": None}),
        ("arrays", {"digests": ["aa", "bb"]}),
        ("arrays", {"values": []}),
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_are_refused(
    engine: Engine, field: str, change: dict[str, object]
) -> None:
    lease = engine.leased()
    given: dict[str, object] = {
        "run_ids": [lease.run_id],
        "lease_nos": [1],
        "keys": ["a"],
        "digests": ["aa"],
        "values": ["1"],
        **change,
    }
    with engine.refused("PF101", field):
        engine.call("record_step", **given)
