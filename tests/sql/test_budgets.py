"""Budgets: what a run and all below it spend is counted, and bounded."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.sql import flows
from tests.sql.flows import step
from tests.sql.waits import child, children, part

if TYPE_CHECKING:
    from tests.sql.conftest import Engine, Lease, Row

ASK = {"on_breach": "ask", "assignee_role": "controllers"}


def spend(engine: Engine, lease: Lease, usd: float = 0, key: str = "a", **more: object) -> Row:
    """Record a call; return the line that tells of the budget."""
    lines = engine.record_usage(lease, {"call_key": key, "cost_usd_total": usd, **more})
    (line,) = [line for line in lines if line["outcome"] == "budget"]
    return line


def family(engine: Engine, *keys: str, **budget: object) -> tuple[Lease, list[Lease]]:
    """Park a run that has a budget on children, and lease those."""
    parent = engine.leased(budget=budget)
    assert engine.park(parent, *map(child, keys))["outcome"] == "done"
    leases = {lease.run_id: lease for lease in engine.acquire().leases}
    return parent, [leases[part(engine, parent.run_id, key)] for key in keys]


def budget(engine: Engine, run_id: UUID) -> Row:
    return engine.one("select * from pgflow.budgets where run_id = %s", run_id)


def asked(engine: Engine, run_id: UUID) -> UUID:
    """Return the open task that asks to raise a budget."""
    task_id: UUID = budget(engine, run_id)["task_id"]
    return task_id


def raised(engine: Engine, run_id: UUID, **bounds: object) -> Row:
    return engine.approve(asked(engine, run_id), decision=Jsonb(bounds))


def end(engine: Engine, run_id: UUID) -> tuple[str, str | None]:
    run = engine.run(run_id)
    return run["state"], run["error_code"]


def paused(engine: Engine, run_id: UUID) -> tuple[str, str | None]:
    run = engine.run(run_id)
    return run["state"], run["pause_reason"]


# ---- counting


def test_what_a_run_spends_is_counted(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 2.5, "tokens": 1000})
    spend(engine, lease, 1, input_tokens=100, output_tokens=20, cached_tokens=90)
    line = spend(engine, lease, 0.5, "b")
    assert line["state"] == "running"
    row = budget(engine, lease.run_id)
    assert (row["usd"], row["used_usd"]) == (Decimal("2.5"), Decimal("1.5"))
    assert (row["tokens"], row["used_tokens"]) == (1000, 120)
    assert (row["seconds"], row["exceeded_at"], row["state"]) == (None, None, "running")


def test_the_same_call_again_counts_once(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 2})
    spend(engine, lease, 1)
    spend(engine, lease, 1)
    assert budget(engine, lease.run_id)["used_usd"] == 1


def test_a_budget_that_is_used_to_the_last_is_not_exceeded(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, "tokens": 10})
    spend(engine, lease, 1, input_tokens=10)
    assert engine.complete(lease) == []


def test_what_is_left_is_told_with_the_lease_and_after_each_report(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 2.5, "seconds": 60})
    assert lease.body["budget"] == {"usd": 2.5, "tokens": None, "seconds": 60}
    engine.later(seconds=20)
    line = spend(engine, lease, 1)
    assert line["detail"] == '{"usd": 1.5, "tokens": null, "seconds": 40.000000}'
    engine.release(lease)
    assert engine.lease_of(lease.run_id).body["budget"]["usd"] == 1.5


def test_a_run_without_a_budget_is_told_nothing(engine: Engine) -> None:
    lease = engine.leased()
    assert "more" not in lease.body
    assert engine.record_usage(lease, {"call_key": "a", "cost_usd_total": 1}) == []


def test_children_count_to_the_budget_of_their_parent(engine: Engine) -> None:
    parent, leases = family(engine, "a", "b", usd=10)
    for lease in leases:
        spend(engine, lease, 2)
    assert budget(engine, parent.run_id)["used_usd"] == 4
    assert leases[0].body["budget"]["usd"] == 10


def test_steps_count_to_the_budget_of_their_flow_and_to_their_own(engine: Engine) -> None:
    flow_id = flows.started(
        engine, step("a", budget={"usd": 2}), step("b"), budget={"usd": 10, "tokens": 5}
    )
    leases = flows.ready(engine)
    assert leases["a"].body["budget"] == {"usd": 2, "tokens": 5, "seconds": None}
    spend(engine, leases["a"], 1.5)
    line = spend(engine, leases["b"], 3)
    assert '"usd": 5.5' in line["detail"]
    assert budget(engine, flow_id)["used_usd"] == Decimal("4.5")
    row = budget(engine, leases["a"].run_id)
    assert (row["used_usd"], row["outer_run_id"]) == (Decimal("1.5"), flow_id)


def test_the_definition_of_a_flow_has_its_budget_and_start_may_have_another(engine: Engine) -> None:
    version = flows.define(engine, step("a"), budget={"usd": 1})
    assert version["definition"]["budget"] == {"usd": 1}
    first = engine.tell("start", flow="f")
    other = engine.tell("start", flow="f", budget={"tokens": 7})
    assert budget(engine, first)["usd"] == 1
    assert (budget(engine, other)["usd"], budget(engine, other)["tokens"]) == (None, 7)


# ---- exceeded


@pytest.mark.parametrize(
    ("bound", "call"),
    [
        ({"usd": 1}, {"cost_usd_total": 1.01}),
        ({"tokens": 10}, {"input_tokens": 6, "output_tokens": 5}),
    ],
    ids=["usd", "tokens"],
)
def test_a_run_that_exceeds_its_budget_fails(engine: Engine, bound: Row, call: Row) -> None:
    lease = engine.leased(budget=bound, max_attempts=5)
    (line,) = engine.record_usage(lease, {"call_key": "a", **call})
    assert (line["outcome"], line["state"], line["code"]) == ("budget", "failed", "E-RUN-009")
    assert end(engine, lease.run_id) == ("failed", "E-RUN-009")
    assert engine.types(lease.run_id)[-2:] == ["budget.exceeded", "run.failed"]
    (lost,) = engine.beat(lease)
    assert (lost["outcome"], lost["code"]) == ("lost", "E-RUN-009")


def test_what_exceeded_it_is_recorded_and_told(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, "tokens": 100})
    spend(engine, lease, 1.25, input_tokens=7)
    run = engine.run(lease.run_id)
    assert (run["cost_usd"], run["error_detail"]) == (
        Decimal("1.25"),
        "budget exceeded: 1.25 of 1 usd",
    )
    event = engine.timeline(lease.run_id)[-2]
    assert event["payload"] == {"usd": {"budget": 1, "used": 1.25}, "on_breach": "fail"}
    row = budget(engine, lease.run_id)
    assert (row["used_usd"], row["used_tokens"], row["exceeded_at"]) == (
        Decimal("1.25"),
        7,
        engine.now,
    )


def test_a_child_that_exceeds_its_parents_budget_ends_the_family(engine: Engine) -> None:
    parent, (a, b) = family(engine, "a", "b", usd=3)
    spend(engine, a, 2)
    spend(engine, b, 2)
    assert end(engine, parent.run_id) == ("failed", "E-RUN-009")
    for lease in (a, b):
        assert end(engine, lease.run_id) == ("cancelled", "E-RUN-011")
    assert engine.types(parent.run_id).count("budget.exceeded") == 1


def test_a_step_that_exceeds_the_budget_of_its_flow_ends_it(engine: Engine) -> None:
    flow_id = flows.started(engine, step("a"), step("b"), step("c", "a"), budget={"usd": 1})
    leases = flows.ready(engine)
    spend(engine, leases["a"], 2)
    assert end(engine, flow_id) == ("failed", "E-RUN-009")
    assert flows.states(engine, flow_id) == dict.fromkeys("abc", "cancelled")


def test_a_step_that_exceeds_its_own_budget_fails_as_steps_do(engine: Engine) -> None:
    flow_id = flows.started(
        engine,
        step("a", budget={"usd": 1}, on_failure="continue"),
        step("b", "a", join="none_failed"),
        step("c", "a", join="one_failed"),
        budget={"usd": 10},
    )
    spend(engine, flows.ready(engine)["a"], 2)
    assert flows.states(engine, flow_id) == {"a": "failed", "b": "skipped", "c": "pending"}
    assert budget(engine, flow_id)["used_usd"] == 2


def test_of_two_budgets_that_one_call_exceeds_the_outer_ends_the_run(engine: Engine) -> None:
    flow_id = flows.started(engine, step("a", budget={"usd": 1}), budget={"usd": 1})
    lease = flows.ready(engine)["a"]
    spend(engine, lease, 2)
    assert end(engine, flow_id) == ("failed", "E-RUN-009")
    assert end(engine, lease.run_id) == ("cancelled", "E-RUN-011")


def test_in_a_batch_only_the_runs_that_exceed_theirs_end(engine: Engine) -> None:
    poor, rich, free = (
        engine.leased(budget={"usd": 1}),
        engine.leased(budget={"usd": 9}),
        engine.leased(),
    )
    leases = [poor, rich, free, poor]
    lines = engine.call(
        "record_usage",
        run_ids=[lease.run_id for lease in leases],
        lease_nos=[1] * 4,
        calls=Jsonb([{"call_key": str(n), "cost_usd_total": 0.6} for n in range(4)]),
    )
    states = {line["run_id"]: line["state"] for line in lines}
    assert states == {poor.run_id: "failed", rich.run_id: "running"}
    assert engine.run(poor.run_id)["cost_usd"] == Decimal("1.2")
    assert engine.run(free.run_id)["cost_usd"] == Decimal("0.6")


def test_a_paused_flow_whose_step_exceeds_the_budget_fails(engine: Engine) -> None:
    flow_id = flows.started(engine, step("a"), budget={"usd": 1})
    lease = flows.ready(engine)["a"]
    engine.call("pause", run_id=flow_id)
    spend(engine, lease, 2)
    assert end(engine, flow_id) == ("failed", "E-RUN-009")


def test_a_cost_that_nobody_knows_counts_tokens_alone(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, "tokens": 10})
    engine.record_usage(lease, {"call_key": "a", "model": "m-9", "input_tokens": 9})
    row = budget(engine, lease.run_id)
    assert (row["used_usd"], row["used_tokens"]) == (0, 9)


def test_a_price_makes_a_call_exceed_the_budget(engine: Engine) -> None:
    engine.call("define_price", model="m-1", input_per_1k_usd=1, output_per_1k_usd=1)
    lease = engine.leased(budget={"usd": 1})
    engine.record_usage(lease, {"call_key": "a", "model": "m-1", "input_tokens": 1001})
    assert end(engine, lease.run_id) == ("failed", "E-RUN-009")


# ---- seconds


def test_seconds_count_from_the_first_start(engine: Engine) -> None:
    engine.worker()
    run_id = engine.enqueue(budget={"seconds": 60})
    engine.later(seconds=300)
    engine.tick()
    assert engine.state(run_id) == "pending"
    lease = engine.lease_of(run_id)
    engine.later(seconds=30)
    engine.beat(lease)
    engine.release(lease)
    engine.lease_of(run_id)
    assert budget(engine, run_id)["used_seconds"] == 30
    engine.later(seconds=29)
    engine.tick()
    assert engine.state(run_id) == "running"
    engine.later(seconds=1)
    engine.beat()
    engine.tick()
    assert end(engine, run_id) == ("failed", "E-RUN-009")
    assert engine.run(run_id)["error_detail"] == "budget exceeded: 60 of 60 seconds"


def test_a_worker_is_told_when_seconds_are_over(engine: Engine) -> None:
    engine.leased(budget={"seconds": 5})
    assert engine.acquire().look_again_in <= 5


def test_a_flow_whose_seconds_are_over_fails_with_its_steps(engine: Engine) -> None:
    flow_id = flows.started(engine, flows.gate("ok"), step("a"), budget={"seconds": 60})
    engine.later(seconds=60)
    engine.tick()
    assert end(engine, flow_id) == ("failed", "E-RUN-009")
    assert flows.states(engine, flow_id) == {"ok": "cancelled", "a": "cancelled"}


def test_a_run_that_ended_in_time_leaves_nothing_to_look_at(engine: Engine) -> None:
    lease = engine.leased(budget={"seconds": 60})
    engine.later(seconds=10)
    engine.complete(lease)
    engine.later(seconds=60)
    engine.tick()
    assert engine.rows("select * from pgflow.budget_due") == []
    assert budget(engine, lease.run_id)["used_seconds"] == 10


# ---- asking


def test_who_is_to_raise_a_budget_is_asked_and_the_run_stands_still(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    line = spend(engine, lease, 1.5)
    assert (line["outcome"], line["state"]) == ("budget", "paused")
    assert paused(engine, lease.run_id) == ("paused", "budget")
    task = engine.one("select * from pgflow.inbox where run_id = %s", lease.run_id)
    assert task["task_id"] == asked(engine, lease.run_id)
    assert (task["kind"], task["title"]) == ("approval", "Raise the budget of h")
    assert task["assignee_role"] == "controllers"
    assert task["payload"] == {"usd": {"budget": 1, "used": 1.5}}
    assert engine.types(lease.run_id)[-3:] == ["budget.exceeded", "task.requested", "run.paused"]
    assert engine.acquire().leases == []
    assert [line["outcome"] for line in engine.complete(lease)] == ["lost"]


def test_the_step_whose_call_exceeds_the_budget_is_kept_and_not_paid_for_again(
    engine: Engine,
) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    spend(engine, lease, 1.5, step="draft")
    assert paused(engine, lease.run_id) == ("paused", "budget")
    assert engine.record_steps(lease, draft="7") == []
    assert engine.types(lease.run_id)[-2:] == ["run.paused", "step.completed"]
    raised(engine, lease.run_id, usd=3)
    again = engine.lease_of(lease.run_id)
    assert [(e["key"], e["value"]) for e in again.body["journal"]] == [("draft", 7)]
    assert budget(engine, lease.run_id)["used_usd"] == Decimal("1.5")


def test_nothing_else_is_taken_under_a_lease_that_a_budget_took(engine: Engine) -> None:
    first = engine.leased(budget={"usd": 1, **ASK})
    engine.release(first)
    lease = engine.lease_of(first.run_id)
    spend(engine, lease, 1.5, step="draft")
    lost = [
        *engine.record_steps(lease, unpaid="1"),
        *engine.record_steps(lease, draft="1", unpaid="1"),
        *engine.record_steps(first, draft="1"),
        *engine.complete(lease),
        *engine.fail(lease),
    ]
    assert {line["outcome"] for line in lost} == {"lost"}
    raised(engine, lease.run_id, usd=3)
    assert [line["outcome"] for line in engine.record_steps(lease, draft="1")] == ["lost"]
    engine.call("pause", run_id=lease.run_id)
    assert [line["outcome"] for line in engine.record_steps(lease, draft="1")] == ["lost"]
    assert "step.completed" not in engine.types(lease.run_id)


def test_raised_it_goes_on_without_having_used_an_attempt(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    engine.record_steps(lease, draft="1")
    spend(engine, lease, 1.5)
    decision = raised(engine, lease.run_id, usd=3)
    assert (decision["action"], decision["repeated"]) == ("approved", False)
    again = engine.lease_of(lease.run_id)
    assert again.body["attempt"] == 0
    assert [entry["key"] for entry in again.body["journal"]] == ["draft"]
    assert again.body["budget"]["usd"] == 1.5
    spend(engine, again, 1, "b")
    assert engine.complete(again) == []
    assert "budget.raised" in engine.types(lease.run_id)


def test_exceeded_again_it_is_asked_again(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    spend(engine, lease, 2)
    raised(engine, lease.run_id, usd=3)
    spend(engine, engine.lease_of(lease.run_id), 2, "b")
    raised(engine, lease.run_id, usd=9)
    assert engine.complete(engine.lease_of(lease.run_id)) == []
    assert engine.types(lease.run_id).count("budget.exceeded") == 2


@pytest.mark.parametrize("decision", [{}, {"tokens": 5}, {"usd": 1.5}, {"usd": 2, "x": 1}], ids=str)
def test_a_raise_that_is_too_small_or_none_is_refused(engine: Engine, decision: Row) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    spend(engine, lease, 1.5)
    with engine.refused("PF101"):
        raised(engine, lease.run_id, **decision)


def test_a_raise_has_to_name_an_amount(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    spend(engine, lease, 1.5)
    with engine.refused("PF101"):
        engine.approve(asked(engine, lease.run_id))


def test_rejected_it_fails(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    spend(engine, lease, 1.5)
    engine.reject(asked(engine, lease.run_id), comment="too dear")
    run = engine.run(lease.run_id)
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-009")
    assert run["error_detail"] == "budget exceeded: 1.5 of 1 usd; not raised: too dear"
    assert run["ended_by"] == run["created_by"]
    assert engine.types(lease.run_id)[-2:] == ["task.resolved", "run.failed"]


def test_it_cannot_be_rejected_back_to_a_step(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    engine.record_steps(lease, draft="1")
    spend(engine, lease, 1.5)
    with engine.refused("PF101", "rollback_to"):
        engine.reject(asked(engine, lease.run_id), rollback_to="draft")


def test_until_it_is_raised_nobody_resumes_the_run(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    spend(engine, lease, 1.5)
    with engine.refused("PF204", "run_id"):
        engine.call("resume", run_id=lease.run_id)


def test_it_can_be_cancelled_and_the_task_closes(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    spend(engine, lease, 1.5)
    task_id = asked(engine, lease.run_id)
    engine.call("cancel", run_id=lease.run_id)
    with engine.refused("PF202"):
        engine.approve(task_id, decision=Jsonb({"usd": 5}))


def test_a_flow_stands_still_with_all_its_steps_and_goes_on_with_them(engine: Engine) -> None:
    flow_id = flows.started(
        engine,
        step("a"),
        step("b"),
        step("w"),
        step("c", "a", "b", "w"),
        budget={"usd": 1, **ASK},
    )
    leases = flows.ready(engine)
    engine.park(leases["w"], {"key": "ok"})
    spend(engine, leases["a"], 2)
    for run_id in (flow_id, *(lease.run_id for lease in leases.values())):
        assert paused(engine, run_id) == ("paused", "budget")
    engine.approve(engine.task(leases["w"].run_id))
    assert flows.ready(engine) == {}
    raised(engine, flow_id, usd=5)
    assert engine.state(flow_id) == "running"
    assert flows.finish(engine) == [["a", "b", "w"], ["c"]]
    assert engine.state(flow_id) == "completed"


def test_children_stand_still_with_their_parent_and_go_on_with_it(engine: Engine) -> None:
    parent, (a, b) = family(engine, "a", "b", usd=1, **ASK)
    spend(engine, a, 2)
    for lease in (parent, a, b):
        assert paused(engine, lease.run_id) == ("paused", "budget")
    raised(engine, parent.run_id, usd=5)
    assert engine.state(parent.run_id) == "waiting_event"
    assert engine.complete(*engine.acquire().leases) == []
    assert engine.complete(engine.lease_of(parent.run_id)) == []
    assert [row["state"] for row in children(engine, parent.run_id)] == ["completed"] * 2


def test_what_somebody_paused_stays_paused(engine: Engine) -> None:
    parent, (a, b) = family(engine, "a", "b", usd=1, **ASK)
    engine.call("pause", run_id=b.run_id, reason="holiday")
    spend(engine, a, 2)
    raised(engine, parent.run_id, usd=5)
    assert paused(engine, b.run_id) == ("paused", "holiday")
    assert engine.state(a.run_id) == "pending"


def test_who_stands_at_an_interrupt_stands_there_again(engine: Engine) -> None:
    parent, (a, b) = family(engine, "a", "b", usd=1, **ASK)
    engine.park(b, {"key": "how", "kind": "interrupt"})
    spend(engine, a, 2)
    assert paused(engine, b.run_id) == ("paused", "budget")
    raised(engine, parent.run_id, usd=5)
    assert paused(engine, b.run_id) == ("paused", "interrupt")
    engine.call("resume", run_id=b.run_id, command={"resume": 1})
    assert engine.state(b.run_id) == "pending"


def test_a_step_whose_flow_was_paused_meanwhile_waits_for_that(engine: Engine) -> None:
    flow_id = flows.started(engine, step("a", budget={"usd": 1, **ASK}))
    lease = flows.ready(engine)["a"]
    spend(engine, lease, 2)
    assert engine.state(flow_id) == "waiting_event"
    engine.call("pause", run_id=flow_id)
    raised(engine, lease.run_id, usd=5)
    assert paused(engine, lease.run_id) == ("paused", "flow")
    engine.call("resume", run_id=flow_id)
    assert flows.finish(engine) == [["a"]]
    assert engine.state(flow_id) == "completed"


def test_an_inner_budget_that_is_not_raised_holds_its_run_back(engine: Engine) -> None:
    flow_id = flows.started(
        engine, step("a", budget={"usd": 1, **ASK}), step("b"), budget={"usd": 1, **ASK}
    )
    leases = flows.ready(engine)
    spend(engine, leases["a"], 2)
    raised(engine, flow_id, usd=5)
    assert paused(engine, leases["a"].run_id) == ("paused", "budget")
    assert list(flows.ready(engine)) == ["b"]
    raised(engine, leases["a"].run_id, usd=5)
    assert list(flows.ready(engine)) == ["a"]


def test_a_rejected_raise_of_a_flow_fails_it(engine: Engine) -> None:
    flow_id = flows.started(engine, step("a"), budget={"usd": 1, **ASK})
    lease = flows.ready(engine)["a"]
    spend(engine, lease, 2)
    engine.reject(asked(engine, flow_id))
    assert end(engine, flow_id) == ("failed", "E-RUN-009")
    assert end(engine, lease.run_id) == ("cancelled", "E-RUN-011")


def test_the_time_in_which_somebody_was_asked_does_not_count(engine: Engine) -> None:
    lease = engine.leased(budget={"seconds": 60, **ASK})
    engine.later(seconds=60)
    engine.beat(lease)
    engine.tick()
    assert paused(engine, lease.run_id) == ("paused", "budget")
    engine.later(hours=5)
    raised(engine, lease.run_id, seconds=90)
    engine.beat()
    again = engine.lease_of(lease.run_id)
    assert again.body["budget"]["seconds"] == 30
    engine.later(seconds=29)
    engine.tick()
    assert engine.state(lease.run_id) == "running"
    engine.later(seconds=1)
    engine.tick()
    assert paused(engine, lease.run_id) == ("paused", "budget")


# ---- the same work again


def test_a_retry_and_a_fork_have_the_same_budget_and_have_used_nothing(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, "seconds": 60, **ASK})
    engine.record_steps(lease, draft="1", more="2")
    spend(engine, lease, 0.5)
    engine.complete(lease)
    for run_id in (
        engine.tell("retry", run_id=lease.run_id),
        engine.tell("fork", run_id=lease.run_id, step="more"),
    ):
        row = budget(engine, run_id)
        assert (row["usd"], row["seconds"], row["used_usd"]) == (1, 60, 0)
        assert (row["on_breach"], row["assignee_role"]) == ("ask", "controllers")


def test_a_retried_flow_has_the_budget_that_it_was_started_with(engine: Engine) -> None:
    flows.define(engine, step("a"), budget={"usd": 1})
    run_id = engine.tell("start", flow="f", budget={"usd": 5})
    engine.call("cancel", run_id=run_id)
    assert budget(engine, engine.tell("retry", run_id=run_id))["usd"] == 5


def test_the_first_of_one_key_has_its_own_budget(engine: Engine) -> None:
    first = engine.enqueue(idempotency_key="k", budget={"usd": 1})
    assert engine.enqueue(idempotency_key="k", budget={"usd": 7}) == first
    assert budget(engine, first)["usd"] == 1
    plain = engine.enqueue(idempotency_key="l")
    assert engine.enqueue(idempotency_key="l", budget={"usd": 7}) == plain
    assert engine.rows("select * from pgflow.budgets where run_id = %s", plain) == []


# ---- bad input

BAD: list[tuple[str, Any]] = [
    ("budget", {}),
    ("budget", {"on_breach": "fail"}),
    ("budget", {"usd": None}),
    ("budget.usd", {"usd": 0}),
    ("budget.usd", {"usd": -1}),
    ("budget.usd", {"usd": "2"}),
    ("budget.usd", {"usd": 10**10}),
    ("budget.tokens", {"tokens": 1.5}),
    ("budget.tokens", {"tokens": 0}),
    ("budget.seconds", {"seconds": 0}),
    ("budget.seconds", {"usd": 1, "seconds": []}),
    ("budget.on_breach", {"usd": 1, "on_breach": "wait"}),
    ("budget.assignee", {"usd": 1, "assignee": "ann"}),
    ("budget.assignee_role", {"usd": 1, "on_breach": "ask", "assignee_role": ""}),
    ("budget.euro", {"usd": 1, "euro": 1}),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=str)
def test_what_is_no_budget_is_refused_and_the_field_named(
    engine: Engine, field: str, value: Row
) -> None:
    with engine.refused("PF101", field):
        engine.enqueue(budget=value)


@pytest.mark.parametrize("value", [[], 1, "x"], ids=str)
def test_what_is_no_object_is_no_budget(engine: Engine, value: object) -> None:
    with engine.refused("PF101", "budget"):
        engine.enqueue(budget=Jsonb(value))


def test_start_refuses_a_budget_that_is_none(engine: Engine) -> None:
    flows.define(engine, step("a"))
    with engine.refused("PF101", "budget.usd"):
        engine.call("start", flow="f", budget={"usd": 0})


@pytest.mark.parametrize(("field", "value"), [*BAD, ("budget", [])], ids=str)
def test_a_definition_with_a_wrong_budget_is_refused(
    engine: Engine, field: str, value: object
) -> None:
    with engine.refused("PF101", f"definition.{field}"):
        flows.define(engine, step("a"), budget=value)
    with engine.refused("PF101", f"definition.steps[0].{field}"):
        flows.define(engine, step("a", budget=value))


def test_a_step_that_no_worker_executes_has_no_budget(engine: Engine) -> None:
    with engine.refused("PF101", "definition.steps[0].budget"):
        flows.define(engine, {**flows.gate("ok"), "budget": {"usd": 1}})


def test_a_wait_cannot_take_a_key_of_the_engines(engine: Engine) -> None:
    line = engine.park(engine.leased(), {"key": "pgflow:budget/1"})
    assert (line["outcome"], line["code"]) == ("refused", "PF101")


def test_pausing_for_the_engines_own_reason_is_refused(engine: Engine) -> None:
    run_id = engine.enqueue()
    with engine.refused("PF101", "reason"):
        engine.call("pause", run_id=run_id, reason="budget")


def test_a_rollback_leaves_the_question_open(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK})
    engine.record_steps(lease, draft="1")
    engine.park(lease, {"key": "ok"}, {"key": "other"}, wait_any=True)
    engine.approve(engine.task(lease.run_id))
    spend(engine, engine.lease_of(lease.run_id), 2)
    engine.reject(engine.task(lease.run_id, "other"), rollback_to="draft")
    assert paused(engine, lease.run_id) == ("paused", "budget")
    raised(engine, lease.run_id, usd=9)
    assert engine.lease_of(lease.run_id).body.get("journal") is None


def woken(engine: Engine, run: Lease) -> Lease:
    """Have a run do a step, wait for either of two people, and go on after the first."""
    engine.record_steps(run, draft="1")
    engine.park(run, {"key": "ok"}, {"key": "other"}, wait_any=True)
    engine.approve(engine.task(run.run_id))
    return engine.lease_of(run.run_id)


def test_a_step_that_a_rollback_voided_is_not_told_by_the_lease_that_a_budget_took(
    engine: Engine,
) -> None:
    lease = woken(engine, engine.leased(budget={"usd": 1, **ASK}))
    spend(engine, lease, 2, step="more")
    assert engine.record_steps(lease, more="1") == []
    engine.reject(engine.task(lease.run_id, "other"), rollback_to="draft")
    assert [line["outcome"] for line in engine.record_steps(lease, more="1")] == ["lost"]
    raised(engine, lease.run_id, usd=9)
    assert engine.lease_of(lease.run_id).body.get("journal") is None


def test_nor_is_one_if_it_was_voided_before_another_run_exceeded_the_budget(
    engine: Engine,
) -> None:
    _, (first, second) = family(engine, "a", "b", usd=1, **ASK)
    lease = woken(engine, first)
    spend(engine, lease, 0.5, step="more")
    engine.reject(engine.task(lease.run_id, "other"), rollback_to="draft")
    spend(engine, second, 2)
    assert paused(engine, lease.run_id) == ("paused", "budget")
    assert [line["outcome"] for line in engine.record_steps(lease, more="1")] == ["lost"]


@pytest.mark.parametrize("place", ["fresh"], indirect=True)
def test_a_call_costs_the_same_however_large_the_family_is(engine: Engine) -> None:
    parent, leases = family(engine, *map(str, range(60)), usd=1000)
    locked = "select count(*) from pgflow.run where xmax::text = pg_current_xact_id()::text"
    with engine.conn.transaction():
        spend(engine, leases[0], 1)
        assert engine.value(locked) <= 1
    assert budget(engine, parent.run_id)["used_usd"] == 1


def test_deadlines_of_a_run_that_stands_still_take_effect_when_it_goes_on(engine: Engine) -> None:
    lease = engine.leased(budget={"usd": 1, **ASK}, deadline=engine.now + timedelta(hours=1))
    spend(engine, lease, 2)
    engine.later(hours=2)
    engine.tick()
    assert engine.state(lease.run_id) == "paused"
    raised(engine, lease.run_id, usd=5)
    assert engine.state(lease.run_id) == "timeout"
