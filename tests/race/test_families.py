"""Parents and children at once: nobody deadlocks, and the last child wakes its parent once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg.types.json import Jsonb

from tests.race.staging import Blocked, Session, Two, check, held, keys, outcome, undone
from tests.sql.conftest import Engine, Lease
from tests.sql.waits import child, children, entry, event, part, with_children


def woken(engine: Engine, *names: str) -> tuple[Lease, list[Lease]]:
    """Lease a run that was woken while it waits for children, and lease those."""
    waits = [child(key) for key in names or ("c",)]
    parent, leases = with_children(engine, *waits, event("go"), wait_any=True)
    engine.call("signal", run_id=parent.run_id, name="go")
    return engine.lease_of(parent.run_id), leases


def cancelled(engine: Engine, *leases: Lease) -> None:
    """Check that runs ended with their parent."""
    for lease in leases:
        run = engine.run(lease.run_id)
        assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")


# ---- a child's end against its parent's park


def test_a_child_that_ended_before_a_park_is_news(engine: Engine, two: Two) -> None:
    one, other = two
    parent, leases = woken(engine)
    other.complete(*leases)
    parked = one.park(parent, child(), news=1)
    assert (parked["outcome"], keys(parked["entries"])) == ("news", {"c"})
    check(engine, parent.run_id, leases[0].run_id)


def test_a_park_that_waits_for_a_childs_end_gets_it_as_news(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parent, leases = woken(engine)
    with held(other):
        other.complete(*leases)
        parking = blocked(one, lambda: one.park(parent, child(), news=1), by=other)
    parked = parking.result()
    assert (parked["outcome"], keys(parked["entries"])) == ("news", {"c"})
    assert engine.state(parent.run_id) == "running"
    check(engine, parent.run_id, leases[0].run_id)


def test_a_park_that_waits_for_a_childs_end_which_is_undone_parks(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parent, leases = woken(engine)
    with undone(other):
        other.complete(*leases)
        parking = blocked(one, lambda: one.park(parent, child(), news=1), by=other)
    assert parking.result()["outcome"] == "done"
    other.complete(*leases)
    assert engine.state(parent.run_id) == "pending"
    check(engine, parent.run_id, leases[0].run_id)


def test_a_childs_end_that_waits_for_a_park_wakes_the_parent(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parent, leases = woken(engine)
    with held(one):
        assert one.park(parent, child(), news=1)["outcome"] == "done"
        completing = blocked(other, lambda: other.complete(*leases), by=one)
    assert outcome(completing.result()) == "done"
    assert engine.lease_of(parent.run_id).body["news"] == 2
    check(engine, parent.run_id, leases[0].run_id)


def test_a_childs_end_that_waits_for_a_park_which_drops_it_is_lost(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parent, leases = woken(engine)
    with held(one):
        assert one.park(parent, event("on"), news=1)["outcome"] == "done"
        completing = blocked(other, lambda: other.complete(*leases), by=one)
    assert outcome(completing.result()) == "lost"
    cancelled(engine, *leases)
    assert "child.ended" not in engine.types(parent.run_id)
    check(engine, parent.run_id, leases[0].run_id)


def test_a_park_that_drops_a_child_and_waits_for_its_end_gets_it_as_news(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parent, leases = woken(engine)
    with held(other):
        other.complete(*leases)
        parking = blocked(one, lambda: one.park(parent, event("on"), news=1), by=other)
    assert parking.result()["outcome"] == "news"
    assert engine.state(leases[0].run_id) == "completed"
    check(engine, parent.run_id, leases[0].run_id)


# ---- two children at once


@pytest.mark.parametrize("wait_any", [False, True], ids=["all", "any"])
def test_two_children_that_end_at_once_wake_their_parent_once(
    engine: Engine, two: Two, blocked: Blocked, *, wait_any: bool
) -> None:
    one, other = two
    parent, (a, b) = with_children(engine, child("a"), child("b"), wait_any=wait_any)
    with held(one):
        one.complete(a)
        completing = blocked(other, lambda: other.complete(b), by=one)
    assert outcome(completing.result()) == "done"
    types = engine.types(parent.run_id)
    assert (types.count("run.woken"), types.count("child.ended")) == (1, 2)
    lease = engine.lease_of(parent.run_id)
    assert (lease.body["news"], keys(lease.body["journal"])) == (2, {"a", "b"})
    check(engine, parent.run_id, a.run_id, b.run_id)


def test_a_child_that_waits_for_a_siblings_end_which_is_undone_leaves_the_parent_waiting(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parent, (a, b) = with_children(engine, child("a"), child("b"))
    with undone(one):
        one.complete(a)
        completing = blocked(other, lambda: other.complete(b), by=one)
    completing.result()
    assert engine.state(parent.run_id) == "waiting_event"
    one.complete(a)
    assert engine.state(parent.run_id) == "pending"
    check(engine, parent.run_id)


def test_batches_that_mix_the_children_of_two_parents_wake_each_once(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parent, (a, b) = with_children(engine, child("a"), child("b"))
    parent_2, (c, d) = with_children(engine, child("a"), child("b"))
    with held(one):
        one.complete(a, d)
        completing = blocked(other, lambda: other.complete(c, b), by=one)
    assert completing.result() == []
    for run_id in (parent.run_id, parent_2.run_id):
        assert engine.types(run_id).count("run.woken") == 1
    check(engine, parent.run_id, parent_2.run_id)


# ---- a child's end against its parent's


def end_by_cancel(who: Session, parent: Lease) -> None:
    assert who.tell("cancel", run_id=parent.run_id) == "cancelled"


def end_by_complete(who: Session, parent: Lease) -> None:
    assert who.complete(parent) == []


def end_by_fail(who: Session, parent: Lease) -> None:
    assert outcome(who.fail(parent, retries=[False])) == "done"


End = Callable[[Session, Lease], None]
ENDS: list[End] = [end_by_cancel, end_by_complete, end_by_fail]


@pytest.mark.parametrize("end", ENDS)
def test_a_childs_end_that_waits_for_its_parents_is_lost(
    engine: Engine, two: Two, blocked: Blocked, end: End
) -> None:
    one, other = two
    parent, leases = woken(engine)
    with held(one):
        end(one, parent)
        completing = blocked(other, lambda: other.complete(*leases), by=one)
    assert outcome(completing.result()) == "lost"
    cancelled(engine, *leases)
    check(engine, parent.run_id, leases[0].run_id)


@pytest.mark.parametrize("end", ENDS)
def test_a_parents_end_that_waits_for_its_childs_knows_of_it(
    engine: Engine, two: Two, blocked: Blocked, end: End
) -> None:
    one, other = two
    parent, leases = woken(engine)
    with held(other):
        other.complete(*leases)
        ending = blocked(one, lambda: end(one, parent), by=other)
    ending.result()
    assert engine.state(leases[0].run_id) == "completed"
    assert entry(engine, parent.run_id, "c")["value"]["state"] == "completed"
    assert "child.ended" in engine.types(parent.run_id)
    check(engine, parent.run_id, leases[0].run_id)


@pytest.mark.parametrize("end", ENDS)
def test_a_parents_end_that_waits_for_a_park_of_its_child_ends_the_grandchild_too(
    engine: Engine, two: Two, blocked: Blocked, end: End
) -> None:
    one, other = two
    parent, leases = woken(engine)
    with held(other):
        assert other.park(leases[0], child("d"), {"key": "ok"})["outcome"] == "done"
        ending = blocked(one, lambda: end(one, parent), by=other)
    ending.result()
    cancelled(engine, *leases)
    (grandchild,) = children(engine, leases[0].run_id)
    assert (grandchild["state"], grandchild["error_code"]) == ("cancelled", "E-RUN-011")
    check(engine, parent.run_id, leases[0].run_id, grandchild["run_id"])


def test_a_cancel_that_waits_for_the_park_which_makes_the_first_child_ends_it_too(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    lease = engine.leased()
    with held(one):
        assert one.park(lease, child())["outcome"] == "done"
        cancelling = blocked(other, lambda: end_by_cancel(other, lease), by=one)
    cancelling.result()
    (run,) = children(engine, lease.run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-011")
    check(engine, lease.run_id, run["run_id"])


def test_a_park_that_waits_for_its_cancel_makes_no_child(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    lease = engine.leased()
    with held(other):
        end_by_cancel(other, lease)
        parking = blocked(one, lambda: one.park(lease, child()), by=other)
    assert parking.result()["outcome"] == "lost"
    assert children(engine, lease.run_id) == []
    check(engine, lease.run_id)


@pytest.mark.parametrize("verb", ["record_step", "emit", "pause"])
def test_what_happens_to_a_child_meanwhile_does_not_hinder_its_parents_end(
    engine: Engine, two: Two, blocked: Blocked, verb: str
) -> None:
    one, other = two
    parent, leases = woken(engine)
    (lease,) = leases
    with held(other):
        if verb == "record_step":
            other.record_steps(lease, a="1")
        elif verb == "emit":
            other.call("emit", run_id=lease.run_id, type="note")
        else:
            other.call("pause", run_id=lease.run_id)
        ending = blocked(one, lambda: end_by_cancel(one, parent), by=other)
    ending.result()
    cancelled(engine, *leases)
    check(engine, parent.run_id, lease.run_id)


# ---- batches with parents and children of each other


def two_trees(engine: Engine) -> tuple[list[Lease], list[Lease]]:
    """Lease two parents and the child of each."""
    parent_1, children_1 = woken(engine)
    parent_2, children_2 = woken(engine)
    return [parent_1, parent_2], children_1 + children_2


@pytest.mark.parametrize("turned", [False, True])
def test_batches_with_the_parents_and_children_of_each_other_do_not_deadlock(
    engine: Engine, two: Two, blocked: Blocked, *, turned: bool
) -> None:
    one, other = two
    (parent_1, parent_2), (child_1, child_2) = two_trees(engine)
    mine, theirs = [parent_1, child_2], [child_1, parent_2]
    if turned:
        mine, theirs = [child_2, parent_1], [parent_2, child_1]
    with held(one):
        assert one.complete(*mine) == []
        completing = blocked(other, lambda: other.complete(*theirs), by=one)
    lines = {line["run_id"]: line["outcome"] for line in completing.result()}
    # The first parent took its child with it; the second learned of its child before.
    assert lines == {child_1.run_id: "lost"}
    assert engine.state(parent_2.run_id) == "completed"
    assert entry(engine, parent_2.run_id, "c")["value"]["state"] == "completed"
    cancelled(engine, child_1)
    check(engine, *(lease.run_id for lease in (parent_1, parent_2, child_1, child_2)))


def test_parents_that_park_and_children_that_end_in_batches_do_not_deadlock(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parents, leases = two_trees(engine)
    parks = Jsonb([one.parking(parent, child(), news=1) for parent in parents[::-1]])
    with held(one):
        one.call("park", parks=parks)
        completing = blocked(other, lambda: other.complete(*leases[::-1]), by=one)
    assert completing.result() == []
    for parent in parents:
        assert engine.state(parent.run_id) == "pending"
        assert engine.types(parent.run_id).count("run.woken") == 2
    check(engine, *(lease.run_id for lease in parents + leases))


def test_first_children_made_in_one_batch_hold_no_queue_that_others_need(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    leases = sorted((engine.leased(), engine.leased()), key=lambda lease: lease.run_id)
    parks = [one.parking(lease, child(queue="new", priority=5)) for lease in leases]
    with held(other):
        other.call("emit", run_id=leases[1].run_id, type="note")
        parking = blocked(one, lambda: one.call("park", parks=Jsonb(parks)), by=other)
        other.call("define_queue", queue="new")  # which waits for nobody
    assert [line["outcome"] for line in parking.result()] == ["done", "done"]
    check(engine, *(lease.run_id for lease in leases))


# ---- the reaper


def died(engine: Engine, two: Two, max_attempts: int = 1) -> tuple[Lease, Lease]:
    """Return a parent and its child that another, dead worker holds."""
    lease = engine.leased(max_attempts=max_attempts)
    engine.park(lease, child(max_attempts=max_attempts), event("go"), wait_any=True)
    engine.call("signal", run_id=lease.run_id, name="go")
    engine.worker("w:dead")
    leases = {held.run_id: held for held in engine.acquire(worker_id="w:dead").leases}
    for who in (engine, *two):
        who.later(seconds=61)
    engine.beat()
    return leases[lease.run_id], leases[part(engine, lease.run_id)]


@pytest.mark.parametrize("which", ["parent", "child"])
def test_a_reaper_passes_by_a_family_of_which_somebody_holds_one(
    engine: Engine, two: Two, which: str
) -> None:
    one, other = two
    parent, of_parent = died(engine, two)
    run_id = (parent if which == "parent" else of_parent).run_id
    with held(one):
        one.call("emit", run_id=run_id, type="note")
        assert other.tick()["failed"] == 0
    assert other.tick()["failed"] == 1
    assert engine.run(parent.run_id)["error_code"] == "E-RUN-002"
    cancelled(engine, of_parent)
    check(engine, parent.run_id, of_parent.run_id)


def test_a_childs_completion_that_waits_for_the_reaper_of_both_is_lost(
    engine: Engine, two: Two, blocked: Blocked
) -> None:
    one, other = two
    parent, of_parent = died(engine, two)
    with held(one):
        assert one.tick()["failed"] == 1
        completing = blocked(other, lambda: other.complete(of_parent), by=one)
    assert outcome(completing.result()) == "lost"
    cancelled(engine, of_parent)
    check(engine, parent.run_id, of_parent.run_id)


def test_a_reaper_that_comes_after_a_childs_completion_takes_the_parent_back_alone(
    engine: Engine, two: Two
) -> None:
    one, other = two
    parent, of_parent = died(engine, two, max_attempts=2)
    with held(one):
        one.complete(of_parent)
        assert other.tick()["requeued"] == 0
    assert other.tick()["requeued"] == 1
    assert engine.lease_of(parent.run_id).body["news"] == 2
    check(engine, parent.run_id, of_parent.run_id)


def test_a_reaper_gives_both_back_while_they_have_attempts(engine: Engine, two: Two) -> None:
    one, other = two
    parent, of_parent = died(engine, two, max_attempts=2)
    with held(one):
        assert one.tick()["requeued"] == 2
        assert other.acquire().leases == []
    assert {lease.run_id for lease in other.acquire().leases} == {
        parent.run_id,
        of_parent.run_id,
    }
    check(engine, parent.run_id, of_parent.run_id)


def test_a_deadline_passes_by_a_family_whose_child_is_ending(engine: Engine, two: Two) -> None:
    one, other = two
    lease = engine.leased(deadline=engine.value("select pgflow.now() + interval '30 s'"))
    engine.park(lease, child())
    (of_parent,) = engine.acquire().leases
    for who in two:
        who.later(seconds=31)
    with held(one):
        one.complete(of_parent)
        assert other.tick()["expired"] == 0
    assert other.tick()["expired"] == 1
    assert engine.state(lease.run_id) == "timeout"
    assert engine.state(of_parent.run_id) == "completed"
    check(engine, lease.run_id, of_parent.run_id)
