"""Projects are tenants: a login sees and touches those that it is a member of, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, Lease, MakeRole

ALL = ("pgflow_client", "pgflow_approver", "pgflow_worker")


@dataclass(frozen=True)
class Tenants:
    """Two logins with the same rights, each member of one project, and what ours has there."""

    we: Engine
    they: Engine
    our_member: str
    waiting: UUID
    task: UUID
    lease: Lease
    finished: UUID


@pytest.fixture
def tenants(engine: Engine, connect: Connect, make_role: MakeRole) -> Tenants:
    ours, theirs = make_role(*ALL), make_role(*ALL)
    engine.call("create_project", project="ours", members=[ours])
    engine.call("create_project", project="theirs", members=[theirs])
    we, they = connect(ours), connect(theirs)
    for session, project in ((we, "ours"), (they, "theirs")):
        session.conn.execute(f"set pgflow.project = '{project}'")
        session.worker()
    (done,) = (we.enqueue(), we.acquire().leases)[1]
    we.complete(done)
    waiting = we.enqueue(idempotency_key="order-1")
    we.park(we.lease_of(waiting))
    task = we.value("select task_id from pgflow.inbox where run_id = %s", waiting)
    lease = we.lease_of(we.enqueue())
    return Tenants(we, they, ours, waiting, task, lease, done.run_id)


def refusal(call: Callable[[], object]) -> tuple[str | None, str | None, str | None]:
    """Return what a refused call is told."""
    with pytest.raises(psycopg.Error) as refused:
        call()
    said = refused.value.diag
    return refused.value.sqlstate, said.message_primary, said.message_detail


def test_a_member_works_in_its_project(tenants: Tenants) -> None:
    we = tenants.we
    assert we.run(tenants.waiting)["project_id"] == "ours"
    we.approve(tenants.task)
    assert we.complete(tenants.lease) == []
    assert {we.state(tenants.lease.run_id), we.state(tenants.waiting)} == {"completed", "pending"}


@pytest.mark.parametrize(
    ("view", "project"),
    [
        ("runs", "project_id"),
        ("timeline", "project_id"),
        ("inbox", "project"),
        ("task_history", "project"),
        ("journal_entries", "project_id"),
        ("tool_calls", "project_id"),
        ("flows", "project_id"),
        ("flow_steps", "project_id"),
        ("artifacts", "project_id"),
        ("schemas", "project_id"),
        ("agents", "project_id"),
        ("queue_stats", "project_id"),
        ("worker_status", "project_id"),
    ],
)
def test_no_view_shows_another_project(tenants: Tenants, view: str, project: str) -> None:
    tenants.we.approve(tenants.task)
    query = f"select distinct {project} as project from pgflow.{view}"
    theirs = {row["project"] for row in tenants.they.rows(query)}
    assert theirs <= {"theirs", "default"}


def test_a_function_in_the_query_sees_no_row_of_another_project(tenants: Tenants) -> None:
    they = tenants.they
    seen: list[str] = []

    def notice(said: psycopg.errors.Diagnostic) -> None:
        seen.append(said.message_primary or "")

    they.conn.add_notice_handler(notice)
    they.run(they.enqueue())
    with they.conn.transaction(force_rollback=True):
        they.conn.execute("""
            create function pg_temp.seen(id uuid) returns boolean
            language plpgsql cost 0.0001 as $$
            begin
                raise notice '%', id;
                return true;
            end $$
        """)
        for view in (
            "runs",
            "timeline",
            "inbox",
            "task_history",
            "journal_entries",
            "tool_calls",
            "artifacts",
        ):
            they.rows(f"select * from pgflow.{view} where pg_temp.seen(run_id)")
    they.conn.remove_notice_handler(notice)
    assert seen
    assert not set(seen) & {str(tenants.waiting), str(tenants.finished), str(tenants.lease.run_id)}


PROJECT_CALLS: dict[str, dict[str, Any]] = {
    "enqueue": {"handler": "h"},
    "enqueue_many": {"handler": "h", "inputs": []},
    "define_flow": {"definition": {"name": "f", "steps": [{"name": "a"}]}},
    "add_step": {"run_id": None, "step": {"name": "a"}},
    "start": {"flow": "f"},
    "define_agent": {"name": "planner", "model": "m"},
    "define_schema": {"name": "article", "schema": {"type": "object"}},
    "artifact_content": {"run_id": uuid4(), "name": "article"},
    "register_step_type": {"name": "count"},
    "unregister_step_type": {"name": "count"},
    "abort": {"task_id": None},
    "cancel": {"run_id": None},
    "pause": {"run_id": None},
    "resume": {"run_id": None},
    "retry": {"run_id": None},
    "emit": {"run_id": None, "type": "progress"},
    "watch": {"run_id": None},
    "watch_inbox": {},
    "usage_by_model": {"run_id": None},
    "result": {"run_id": None},
    "history": {"run_id": None},
    "report": {"run_id": None},
    "context": {"run_id": None},
    "approve": {"task_id": None},
    "reject": {"task_id": None},
    "answer": {"task_id": None, "data": Jsonb(1)},
    "inject_input": {"run_id": None, "step": "title", "content": Jsonb(1)},
    "claim_task": {"task_id": None},
    "release_task": {"task_id": None},
    "delegate": {"task_id": None, "assignee": "ann"},
    "comment_task": {"task_id": None, "comment": "well"},
    "signal": {"run_id": None, "name": "payment"},
    "signal_many": {"run_ids": [UUID(int=0)], "name": "payment"},
    "resolve_tool": {"run_id": None, "key": "transcode"},
    "fail_tool": {"run_id": None, "key": "transcode", "error": "no"},
    "fork": {"run_id": None, "step": "draft"},
    "set_breakpoint": {"run_id": None, "step": "draft"},
    "clear_breakpoint": {"run_id": None, "step": "draft"},
    "subscribe": {"subscription": "billing"},
    "next_events": {"subscription": "billing"},
    "acknowledge": {"subscription": "billing", "batch_no": 1},
    "release_events": {"subscription": "billing", "batch_no": 1},
    "unsubscribe": {"subscription": "billing"},
    "register_worker": {"worker_id": "w:1", "queues": ["default"], "concurrency": 1},
    "acquire": {"worker_id": "w:1", "queues": ["default"], "max_runs": 1},
    "beat": {"worker_id": "w:1"},
    "complete": {"run_ids": [uuid4()], "lease_nos": [1], "outputs": ["1"]},
    "fail": {
        "run_ids": [uuid4()],
        "lease_nos": [1],
        "error_codes": ["E-RUN-001"],
        "error_details": [""],
    },
    "release": {"run_ids": [uuid4()], "lease_nos": [1]},
    "park": {"parks": Jsonb([])},
    "record_step": {
        "run_ids": [uuid4()],
        "lease_nos": [1],
        "keys": ["a"],
        "digests": ["aa"],
        "values": ["1"],
    },
    "record_usage": {"run_ids": [uuid4()], "lease_nos": [1], "calls": Jsonb([{}])},
    "record_artifact": {"run_id": uuid4(), "lease_no": 1, "name": "article", "content": "1"},
    "stop_worker": {"worker_id": "w:1"},
    "tick": {},
    "reap": {},
    "doctor": {},
    "this_project": {},
}
ADMIN_CALLS: dict[str, dict[str, Any]] = {
    "define_queue": {"queue": "mail"},
    "pause_queue": {"queue": "default"},
    "resume_queue": {"queue": "default"},
    "add_member": {"member": "pgflow_reader"},
    "remove_member": {"member": "pgflow_reader"},
    "define_price": {"model": "m-1", "input_per_1k_usd": 1, "output_per_1k_usd": 1},
}


@pytest.mark.parametrize("verb", PROJECT_CALLS)
def test_a_project_of_others_is_as_unknown_as_one_that_is_not_there(
    tenants: Tenants, verb: str
) -> None:
    they, given = tenants.they, PROJECT_CALLS[verb]
    before = they.place.rows()
    there = refusal(lambda: they.call(verb, **given, project="ours"))
    nowhere = refusal(lambda: they.call(verb, **given, project="nowhere"))
    assert there[0] == "PF502"
    assert str(nowhere).replace("nowhere", "ours") == str(there)
    they.conn.execute("set pgflow.project = 'ours'")
    assert refusal(lambda: they.call(verb, **given)) == there
    assert they.place.rows() == before


@pytest.mark.parametrize("verb", ADMIN_CALLS)
def test_the_admins_verbs_know_no_project_that_is_not_there(engine: Engine, verb: str) -> None:
    with engine.refused("PF502", "project"):
        engine.call(verb, **ADMIN_CALLS[verb], project="nowhere")


def test_every_verb_that_works_in_a_project_is_listed_here(engine: Engine) -> None:
    rows = engine.rows(
        "select proname from pg_proc where pronamespace = 'pgflow'::regnamespace"
        " and proname not like E'\\\\_%' and proargnames @> '{project}'"
    )
    listed = {*PROJECT_CALLS, *ADMIN_CALLS, "create_project"}
    assert {row["proname"] for row in rows} == listed


@pytest.mark.parametrize(
    "verb",
    [
        *("cancel", "pause", "resume", "retry", "emit", "watch", "result"),
        *("usage_by_model", "report", "context"),
    ],
)
@pytest.mark.parametrize("which", ["waiting", "finished"])
def test_a_run_of_others_is_as_unknown_as_one_that_is_not_there(
    tenants: Tenants, verb: str, which: str
) -> None:
    they, run_id, nobodys = tenants.they, getattr(tenants, which), uuid4()
    given = {"type": "progress"} if verb == "emit" else {}
    before = they.place.rows()
    theirs = refusal(lambda: they.call(verb, run_id=run_id, **given))
    nowhere = refusal(lambda: they.call(verb, run_id=nobodys, **given))
    assert theirs[0] == "PF102"
    assert str(nowhere).replace(str(nobodys), str(run_id)) == str(theirs)
    assert they.place.rows() == before


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_task_of_others_is_as_unknown_as_one_that_is_not_there(
    tenants: Tenants, verb: str
) -> None:
    they, nobodys = tenants.they, uuid4()
    theirs = refusal(lambda: they.call(verb, task_id=tenants.task))
    nowhere = refusal(lambda: they.call(verb, task_id=nobodys))
    assert theirs[0] == "PF103"
    assert str(nowhere).replace(str(nobodys), str(tenants.task)) == str(theirs)


def test_a_worker_of_others_cannot_touch_our_leases(tenants: Tenants) -> None:
    they, lease = tenants.they, tenants.lease
    before = they.place.rows()
    assert they.complete(lease)[0]["outcome"] == "lost"
    assert they.fail(lease)[0]["outcome"] == "lost"
    assert they.release(lease)[0]["outcome"] == "lost"
    assert they.record_steps(lease, a="1")[0]["outcome"] == "lost"
    assert they.record_usage(lease, {"call_key": "a"})[0]["outcome"] == "lost"
    assert they.park(lease)["outcome"] == "lost"
    assert they.complete(lease)[0]["state"] is None
    assert [line["state"] for line in they.beat(lease)] == [None]
    assert they.place.rows() == before


def test_a_worker_of_others_never_gets_our_runs(tenants: Tenants) -> None:
    tenants.we.enqueue_many([{}] * 5)
    assert tenants.they.acquire().leases == []
    tenants.they.later(hours=1)
    tenants.they.tick()
    assert tenants.we.state(tenants.lease.run_id) == "running"


def test_a_key_of_ours_is_free_for_them(tenants: Tenants) -> None:
    run_id = tenants.they.enqueue(input={"other": 1}, idempotency_key="order-1")
    assert run_id != tenants.waiting


def test_a_run_id_of_ours_is_free_for_them(tenants: Tenants) -> None:
    assert tenants.they.enqueue(run_id=tenants.waiting, input={"a": 1}) == tenants.waiting
    assert tenants.they.run(tenants.waiting)["project_id"] == "theirs"
    assert tenants.we.run(tenants.waiting)["project_id"] == "ours"


def test_the_default_project_is_everybodys(tenants: Tenants) -> None:
    run_id = tenants.they.enqueue(project="default")
    assert tenants.we.run(run_id)["project_id"] == "default"


def test_the_argument_overrules_the_setting(tenants: Tenants) -> None:
    assert tenants.we.tell("this_project") == "ours"
    assert tenants.we.tell("this_project", project="default") == "default"
    tenants.we.conn.execute("reset pgflow.project")
    assert tenants.we.tell("this_project") == "default"


def test_a_member_of_a_member_is_one(
    tenants: Tenants, connect: Connect, make_role: MakeRole
) -> None:
    apprentice = connect(make_role(tenants.our_member))
    assert apprentice.tell("this_project", project="ours") == "ours"
    assert apprentice.run(tenants.waiting)["state"] == "waiting_approval"


def test_an_admin_is_a_member_of_every_project(
    tenants: Tenants, connect: Connect, make_role: MakeRole
) -> None:
    admin = connect(make_role("pgflow_admin"))
    assert admin.tell("cancel", run_id=tenants.waiting, project="ours") == "cancelled"


def test_the_role_that_was_set_is_whose_membership_counts(
    tenants: Tenants, connect: Connect, make_role: MakeRole
) -> None:
    stranger = make_role(*ALL)
    session = connect(make_role(stranger, tenants.our_member))
    with session.acting_as(stranger):
        assert refusal(lambda: session.enqueue(project="ours"))[0] == "PF502"
        assert session.rows("select 1 from pgflow.runs where run_id = %s", tenants.waiting) == []
    assert session.tell("this_project", project="ours") == "ours"


def test_a_member_that_was_removed_is_out(engine: Engine, tenants: Tenants) -> None:
    assert engine.tell("remove_member", member=tenants.our_member, project="ours") is True
    assert refusal(tenants.we.enqueue)[0] == "PF502"
    assert tenants.we.rows("select 1 from pgflow.runs where run_id = %s", tenants.waiting) == []
    assert engine.tell("remove_member", member=tenants.our_member, project="ours") is False


def test_a_member_that_was_added_is_in(
    engine: Engine, connect: Connect, make_role: MakeRole, tenants: Tenants
) -> None:
    role = make_role(*ALL)
    for _ in range(2):
        engine.call("add_member", member=role, project="ours")
    assert connect(role).run(tenants.waiting)["project_id"] == "ours"


@pytest.mark.parametrize("member", ["nobody at all", "", None])
def test_a_member_is_a_role_of_the_server(engine: Engine, member: str | None) -> None:
    engine.call("create_project", project="ours")
    with engine.refused("PF101", "member"):
        engine.call("add_member", member=member, project="ours")
    with engine.refused("PF101", "member"):
        engine.call("create_project", project="new", members=[member])


@pytest.mark.parametrize("project", [None, "", "two words", "x" * 64, "ünicode", "a/b"])
def test_a_project_has_a_plain_name(engine: Engine, project: str | None) -> None:
    with engine.refused("PF101", "project"):
        engine.call("create_project", project=project)


def test_making_a_project_again_is_harmless(engine: Engine, make_role: MakeRole) -> None:
    role = make_role()
    engine.call("create_project", project="ours", members=[role])
    before = engine.place.rows()
    assert engine.tell("create_project", project="ours") == "ours"
    assert engine.tell("create_project", project="ours", members=None) == "ours"
    assert engine.place.rows() == before


def test_a_new_project_has_all_it_needs(engine: Engine) -> None:
    engine.call("create_project", project="ours")
    engine.conn.execute("set pgflow.project = 'ours'")
    engine.worker()
    run_id = engine.enqueue(run_at=engine.now + timedelta(seconds=1))
    engine.later(seconds=1)
    engine.complete(engine.lease_of(run_id))
    assert engine.state(run_id) == "completed"
