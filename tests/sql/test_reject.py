"""reject: the run ends, or goes on and is told, as the request said."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Engine

TELL = {"key": "ok", "on_reject": "resume"}


def test_a_rejection_ends_the_run(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "title": "Publish?"})
    decision = engine.reject(engine.task(run_id), comment="links are broken")
    assert (decision["action"], decision["comment"]) == ("rejected", "links are broken")
    run = engine.run(run_id)
    assert (run["state"], run["error_code"]) == ("cancelled", "E-RUN-006")
    assert run["error_detail"] == "Publish? rejected: links are broken"
    assert run["ended_by"] == "postgres"


def test_the_timeline_tells_the_rejection_and_the_end(engine: Engine) -> None:
    run_id = engine.waiting()
    engine.reject(engine.task(run_id))
    resolved, end = engine.timeline(run_id)[-2:]
    assert (resolved["type"], resolved["payload"]["action"]) == ("task.resolved", "rejected")
    assert (end["type"], end["by"]) == ("run.cancelled", "postgres")
    assert end["payload"]["error_code"] == "E-RUN-006"


def test_other_tasks_of_the_run_are_closed(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"})
    engine.reject(engine.task(run_id, "a"))
    states = engine.rows(
        "select step, state from pgflow.task_history where run_id = %s order by 1", run_id
    )
    assert [tuple(row.values()) for row in states] == [("a", "rejected"), ("b", "cancelled")]
    with engine.refused("PF202"):
        engine.approve(engine.task(run_id, "b"))


def test_where_the_request_says_so_the_handler_is_told_and_goes_on(engine: Engine) -> None:
    run_id = engine.waiting(TELL)
    engine.reject(engine.task(run_id), comment="no")
    assert engine.state(run_id) == "pending"
    (entry,) = engine.lease_of(run_id).body["journal"]
    value = entry["value"]
    assert (value["action"], value["approved"], value["comment"]) == ("rejected", False, "no")


@pytest.mark.parametrize("on_reject", ["cancel", "resume"])
def test_the_same_again_is_a_no_op_that_returns_the_first_decision(
    engine: Engine, on_reject: str
) -> None:
    run_id = engine.waiting({"key": "ok", "on_reject": on_reject})
    first = engine.reject(engine.task(run_id), comment="no")
    before = engine.place.rows()
    assert engine.reject(engine.task(run_id), comment="no!") == {**first, "repeated": True}
    assert engine.place.rows() == before


@pytest.mark.parametrize("on_reject", ["cancel", "resume"])
def test_a_contrary_decision_is_refused(engine: Engine, on_reject: str) -> None:
    run_id = engine.waiting({"key": "ok", "on_reject": on_reject})
    engine.reject(engine.task(run_id))
    with engine.refused("PF402", "task_id"):
        engine.approve(engine.task(run_id))


def test_a_paused_run_is_ended_by_a_rejection_too(engine: Engine) -> None:
    run_id = engine.waiting()
    engine.call("pause", run_id=run_id)
    engine.reject(engine.task(run_id))
    assert engine.state(run_id) == "cancelled"


def test_a_running_run_is_ended_by_a_rejection_too(engine: Engine) -> None:
    run_id = engine.waiting({"key": "a"}, {"key": "b"}, wait_any=True)
    engine.approve(engine.task(run_id, "a"))
    lease = engine.lease_of(run_id)
    engine.reject(engine.task(run_id, "b"))
    assert engine.complete(lease)[0]["state"] == "cancelled"
    assert engine.run(run_id)["last_worker_id"] == "w:1"


def test_an_unknown_task_is_refused(engine: Engine) -> None:
    with engine.refused("PF103", "task_id"):
        engine.reject(uuid4())


def test_a_comment_over_its_limit_is_refused(engine: Engine) -> None:
    task_id = engine.task(engine.waiting())
    with engine.refused("PF101", "comment"):
        engine.reject(task_id, comment="c" * 10_001)


def test_a_task_whose_time_has_passed_cannot_be_rejected(engine: Engine) -> None:
    run_id = engine.waiting({"key": "ok", "due_in": 60})
    engine.later(seconds=61)
    with engine.refused("PF402", "task_id"):
        engine.reject(engine.task(run_id))


def test_after_the_end_of_the_run_it_says_already_finished(engine: Engine) -> None:
    run_id = engine.waiting()
    engine.call("cancel", run_id=run_id)
    with engine.refused("PF202", "run_id"):
        engine.reject(engine.task(run_id))
