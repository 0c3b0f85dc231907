"""Who may call what: five roles, and nobody may what is not granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.sql.conftest import Connect, Engine, MakeRole

pytestmark = pytest.mark.parametrize("place", ["fresh"], indirect=True)

ROLES = [
    "pgflow_reader",
    "pgflow_client",
    "pgflow_approver",
    "pgflow_application",
    "pgflow_worker",
    "pgflow_admin",
]

# Which roles may call each public function. The call is one that does no harm and mostly fails.
CLIENTS = {"pgflow_client", "pgflow_worker", "pgflow_admin"}
APPROVERS = {"pgflow_approver", "pgflow_application", "pgflow_admin"}
WORKERS = {"pgflow_worker", "pgflow_admin"}
ADMINS = {"pgflow_admin"}
ID = "'01900000-0000-7000-8000-000000000000'"
CALLS = {
    "now": (set(ROLES), "now()"),
    "this_project": (set(ROLES), "this_project()"),
    "doctor": (set(ROLES), "doctor()"),
    "watch": (set(ROLES), f"watch({ID})"),
    "watch_inbox": (set(ROLES), "watch_inbox()"),
    "usage_by_model": (set(ROLES), f"usage_by_model({ID})"),
    "result": (set(ROLES), f"result({ID})"),
    "history": (set(ROLES), f"history({ID})"),
    "report": (set(ROLES), f"report({ID})"),
    "context": (set(ROLES), f"context({ID})"),
    "enqueue": (CLIENTS, "enqueue('h')"),
    "enqueue_many": (CLIENTS, "enqueue_many('h', '{}')"),
    "cancel": (CLIENTS, f"cancel({ID})"),
    "pause": (CLIENTS, f"pause({ID})"),
    "resume": (CLIENTS, f"resume({ID})"),
    "retry": (CLIENTS, f"retry({ID})"),
    "emit": (CLIENTS, f"emit({ID}, 'progress')"),
    "signal": (CLIENTS, f"signal({ID}, 'payment')"),
    "signal_many": (CLIENTS, f"signal_many(array[{ID}]::uuid[], 'go')"),
    "resolve_tool": (CLIENTS, f"resolve_tool({ID}, 'transcode')"),
    "fail_tool": (CLIENTS, f"fail_tool({ID}, 'transcode', 'no')"),
    "fork": (CLIENTS, f"fork({ID}, 'draft')"),
    "set_breakpoint": (CLIENTS, f"set_breakpoint({ID}, 'draft')"),
    "clear_breakpoint": (CLIENTS, f"clear_breakpoint({ID}, 'draft')"),
    "define_flow": (CLIENTS, "define_flow('{}')"),
    "add_step": (CLIENTS, f"add_step({ID}, '[]')"),
    "start": (CLIENTS, "start('nobody''s')"),
    "define_agent": (CLIENTS, "define_agent('a', '')"),
    "define_schema": (CLIENTS, "define_schema('a', '[]')"),
    "artifact_content": (set(ROLES), f"artifact_content({ID}, 'a')"),
    "register_step_type": (CLIENTS, "register_step_type('count')"),
    "unregister_step_type": (CLIENTS, "unregister_step_type('count')"),
    "subscribe": (CLIENTS, "subscribe('billing')"),
    "next_events": (CLIENTS, "next_events('billing')"),
    "acknowledge": (CLIENTS, "acknowledge('billing', 1)"),
    "release_events": (CLIENTS, "release_events('billing', 1)"),
    "unsubscribe": (CLIENTS, "unsubscribe('billing')"),
    "approve": (APPROVERS, f"approve({ID})"),
    "reject": (APPROVERS, f"reject({ID})"),
    "abort": (APPROVERS, f"abort({ID})"),
    "answer": (APPROVERS, f"answer({ID}, '1')"),
    "inject_input": (APPROVERS, f"inject_input({ID}, 'title', '1')"),
    "claim_task": (APPROVERS, f"claim_task({ID})"),
    "release_task": (APPROVERS, f"release_task({ID})"),
    "delegate": (APPROVERS, f"delegate({ID}, 'ann')"),
    "comment_task": (APPROVERS, f"comment_task({ID}, 'well')"),
    "register_worker": (WORKERS, "register_worker('w:1', '{default}', 1)"),
    "acquire": (WORKERS, "acquire('w:1', '{default}', 1)"),
    "beat": (WORKERS, "beat('w:1')"),
    "complete": (WORKERS, f"complete(array[{ID}]::uuid[], '{{1}}', '{{1}}')"),
    "fail": (WORKERS, f"fail(array[{ID}]::uuid[], '{{1}}', '{{E-RUN-001}}', '{{}}')"),
    "release": (WORKERS, f"release(array[{ID}]::uuid[], '{{1}}')"),
    "park": (WORKERS, "park('[]')"),
    "record_step": (WORKERS, f"record_step(array[{ID}]::uuid[], '{{1}}', '{{a}}', null, null)"),
    "record_usage": (WORKERS, f"record_usage(array[{ID}]::uuid[], '{{1}}', '[{{}}]')"),
    "record_artifact": (WORKERS, f"record_artifact({ID}, 1, 'a', '1')"),
    "stop_worker": (WORKERS, "stop_worker('nobody:0')"),
    "tick": (WORKERS, "tick()"),
    "reap": (WORKERS, "reap()"),
    "maintain": (WORKERS, "maintain()"),
    "create_project": (ADMINS, "create_project('acme')"),
    "add_member": (ADMINS, "add_member('pgflow_reader')"),
    "remove_member": (ADMINS, "remove_member('pgflow_reader')"),
    "define_queue": (ADMINS, "define_queue('mail')"),
    "pause_queue": (ADMINS, "pause_queue('nobody''s')"),
    "resume_queue": (ADMINS, "resume_queue('nobody''s')"),
    "set_retention": (ADMINS, "set_retention()"),
    "define_price": (ADMINS, "define_price('m-1', 1, 1)"),
    "define_reducer": (ADMINS, "define_reducer('add', '')"),
}
VIEWS = [
    "runs",
    "timeline",
    "inbox",
    "task_history",
    "journal_entries",
    "tool_calls",
    "model_calls",
    "flows",
    "flow_steps",
    "queue_stats",
    "worker_status",
    "subscriptions",
    "prices",
    "budgets",
    "schemas",
    "agents",
    "artifacts",
    "step_types",
]
WORDS = ["state", "move", "error_code", "refusal", "event_type", "task_policy"]
# What the views call is called with the rights of whoever selects from them.
HELPERS = {"_my_projects", "_sha256", "_test_now", "_position"}


def may_call(engine: Engine, call: str) -> bool:
    """Tell whether a session has the right; what the function then says is another matter."""
    try:
        engine.rows(f"select * from pgflow.{call}")
    except psycopg.Error as refused:
        if "permission denied for function" in str(refused):
            return False
        if not (refused.sqlstate or "").startswith("PF"):
            raise
    return True


@pytest.mark.parametrize("role", ROLES)
def test_a_login_calls_what_its_role_may_and_nothing_else(
    engine: Engine, connect: Connect, make_role: MakeRole, role: str
) -> None:
    engine.enqueue()  # makes the queue, so that nothing but rights is refused
    session = connect(make_role(role))
    allowed = {verb for verb, (_, call) in CALLS.items() if may_call(session, call)}
    assert allowed == {verb for verb, (roles, _) in CALLS.items() if role in roles}


def test_a_login_without_a_role_may_nothing(connect: Connect, make_role: MakeRole) -> None:
    session = connect(make_role())
    for _, call in CALLS.values():
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.rows(f"select * from pgflow.{call}")


def test_every_public_function_is_listed_here(engine: Engine) -> None:
    rows = engine.rows(
        "select distinct proname from pg_proc"
        " where pronamespace = 'pgflow'::regnamespace and proname not like E'\\\\_%'"
    )
    assert {row["proname"] for row in rows} == set(CALLS)


@pytest.mark.parametrize("role", ROLES)
def test_private_functions_are_refused_to_every_role(engine: Engine, role: str) -> None:
    rows = engine.rows(
        "select proname from pg_proc where pronamespace = 'pgflow'::regnamespace"
        " and proname like E'\\\\_%%' and has_function_privilege(%s, oid, 'execute')",
        role,
    )
    assert {row["proname"] for row in rows} == HELPERS


def test_a_private_function_is_refused_when_called(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    run_id = engine.enqueue()
    session = connect(make_role("pgflow_admin"))
    for call in (
        f"_end('default', array['{run_id}']::uuid[], null, 'completed')",
        "_tick('default', pgflow.now())",
        f"_emit('default', '{run_id}', 'run.completed', null, null)",
        "_refuse('PF101', 'x')",
    ):
        assert not may_call(session, call)
    assert engine.state(run_id) == "pending"


@pytest.mark.parametrize("role", ROLES)
def test_every_role_reads_the_views(
    engine: Engine, connect: Connect, make_role: MakeRole, role: str
) -> None:
    run_id = engine.waiting()
    session = connect(make_role(role))
    assert session.state(run_id) == "waiting_approval"
    assert session.types(run_id)[-1] == "run.waiting"
    for view in (*VIEWS, *WORDS):
        assert session.value(f"select count(*) from pgflow.{view}") >= 0
    assert session.worker_status()["status"] == "alive"


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reaches_a_table(engine: Engine, role: str) -> None:
    rows = engine.rows(
        """
        select c.relname as relation, p.privilege
        from pg_class c
        cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references',
                                'trigger']) as p (privilege)
        where c.relnamespace = 'pgflow'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
          and has_table_privilege(%s, c.oid, p.privilege)
        """,
        role,
    )
    may = {(row["relation"], row["privilege"]) for row in rows}
    assert may == {(name, "select") for name in (*VIEWS, *WORDS)}


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reaches_a_sequence_or_makes_anything(engine: Engine, role: str) -> None:
    may = engine.one(
        "select has_sequence_privilege(%s, 'pgflow.run_seq', 'usage, select, update') as seq,"
        " has_schema_privilege(%s, 'pgflow', 'create') as make",
        role,
        role,
    )
    assert may == {"seq": False, "make": False}


def test_a_bare_statement_on_a_table_is_refused(
    engine: Engine, connect: Connect, make_role: MakeRole
) -> None:
    run_id = engine.enqueue()
    session = connect(make_role("pgflow_admin"))
    session.conn.execute("set pgflow.ending = 'on'")
    for statement in (
        "select * from pgflow.run",
        "update pgflow.run set priority = 9",
        "delete from pgflow.run",
        "delete from pgflow.run_finished",
        "insert into pgflow.event select * from pgflow.event",
        "update pgflow.installation set test_clock = true",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.rows(statement)
    assert engine.state(run_id) == "pending"


def test_a_login_that_is_no_superuser_lives_a_whole_run(
    connect: Connect, make_role: MakeRole
) -> None:
    client = connect(make_role("pgflow_client"))
    worker = connect(make_role("pgflow_worker"))
    approver = connect(make_role("pgflow_approver"))
    worker.worker("w:7", ["theirs"])
    run_id = client.enqueue(queue="theirs")
    lease = worker.lease_of(run_id, worker_id="w:7", queues=["theirs"])
    worker.record_steps(lease, a="1")
    worker.park(lease)
    task_id = approver.value("select task_id from pgflow.inbox where run_id = %s", run_id)
    approver.approve(task_id)
    worker.complete(worker.lease_of(run_id, worker_id="w:7", queues=["theirs"]))
    assert client.state(run_id) == "completed"
    assert client.types(run_id)[-1] == "run.completed"


def test_the_rights_of_a_role_that_was_set_are_those_that_count(
    connect: Connect, make_role: MakeRole
) -> None:
    reader = make_role("pgflow_reader")
    session = connect(make_role(reader, "pgflow_client"))
    with session.acting_as(reader):
        assert not may_call(session, "enqueue('h')")
    assert may_call(session, "enqueue('h')")


def test_created_by_is_the_role_that_acts(connect: Connect, make_role: MakeRole) -> None:
    person = make_role("pgflow_client")
    session = connect(make_role(person))
    with session.acting_as(person):
        run_id = session.enqueue()
        session.call("emit", run_id=run_id, type="progress")
        session.call("cancel", run_id=run_id)
        run = session.run(run_id)
        assert {line["by"] for line in session.timeline(run_id)} == {person}
    assert (run["created_by"], run["ended_by"]) == (person, person)


def test_the_tables_belong_to_an_owner_that_cannot_log_in(engine: Engine) -> None:
    owners = engine.rows(
        "select distinct relowner::regrole::text as owner from pg_class"
        " where relnamespace = 'pgflow'::regnamespace"
        " union select proowner::regrole::text from pg_proc"
        " where pronamespace = 'pgflow'::regnamespace"
    )
    assert [row["owner"] for row in owners] == ["pgflow_owner"]
    rows = engine.rows(
        "select rolname from pg_roles where rolname = any (%s) and (rolcanlogin or rolsuper)",
        [*ROLES, "pgflow_owner"],
    )
    assert rows == []
