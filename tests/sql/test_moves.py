"""The state machine refuses illegal moves to everybody, the owner of the tables included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Engine

pytestmark = pytest.mark.parametrize("place", ["fresh"], indirect=True)

LIVE = (
    "scheduled",
    "pending",
    "running",
    "waiting_tool",
    "waiting_approval",
    "waiting_event",
    "paused",
)
ENDS = ("completed", "failed", "cancelled", "timeout")
KINDS = ("handler", "flow", "step_wait")
REACHED = {
    "handler": LIVE,
    "flow": LIVE[2:],
    "step_wait": ("waiting_approval", "waiting_event", "paused"),
}

# What each state needs besides its name, so that only the move can be what is refused.
NEEDS = """
    state = {0},
    seq = case when {0} = 'pending' or {0} = 'running' and kind = 'handler' then 1 end,
    run_at = now(), waits_for = case when {0} <> 'scheduled' then array['ok'] end,
    worker_id = case when {0} = 'running' and kind = 'handler' then 'w:1' end,
    leased_at = case when {0} = 'running' and kind = 'handler' then now() end,
    lease_event_no = case when {0} = 'running' and kind = 'handler' then 2 end,
    pause_reason = case when {0} = 'paused' then 'operator' end
"""
AS_LIVE = f"update pgflow.run set {NEEDS.format('%(state)s')} where run_id = %(run_id)s"
AS_FIRST = """
    insert into pgflow.run (project_id, run_id, kind, handler, queue, state, max_attempts,
        created_at, created_by, input, seq, run_at, waits_for, lease_no, flow_version, worker_id,
        leased_at, lease_event_no, pause_reason)
    select 'default', pgflow._new_id(), s.kind, 'h', 'default', s.state, 3, now(), 'me', '{}',
        case when s.state = 'pending' or s.state = 'running' and s.kind = 'handler' then 1 end,
        now(), case when s.state <> 'scheduled' then array['ok'] end,
        case s.kind when 'handler' then 0 end, case s.kind when 'flow' then 1 end,
        case when s.state = 'running' and s.kind = 'handler' then 'w:1' end,
        case when s.state = 'running' and s.kind = 'handler' then now() end,
        case when s.state = 'running' and s.kind = 'handler' then 2 end,
        case when s.state = 'paused' then 'operator' end
    from (select %(kind)s::text as kind, %(state)s::text as state) s
"""
AS_FINISHED = """
    insert into pgflow.run_finished (project_id, run_id, kind, handler, queue, state, ended_from,
        priority, depth, attempt, max_attempts, lease_no, flow_version, last_event_no, step_count,
        created_at, finished_at, created_by, input, output, error_code)
    select 'default', pgflow._new_id(), s.kind, 'h', 'default', s.state, s.ended_from, 0, 0, 0,
        3, case s.kind when 'handler' then 0 end, case s.kind when 'flow' then 1 end, 2, 0, now(),
        now(), 'me', '{}', case when s.state = 'completed' then jsonb '1' end,
        case when s.state = 'failed' then 'E-RUN-001' end
    from (select %(kind)s::text as kind, %(state)s::text as state,
              %(ended_from)s::text as ended_from) s
"""


@pytest.fixture
def owner(engine: Engine) -> Iterator[psycopg.Connection]:
    """Return the connection of the tables' owner."""
    with engine.acting_as("pgflow_owner"):
        yield engine.conn


def is_allowed(conn: psycopg.Connection, statement: str, **values: object) -> bool:
    """Tell whether a statement passes the guards; it leaves nothing."""
    try:
        with conn.transaction(force_rollback=True):
            assert conn.execute(statement, values).rowcount == 1
    except psycopg.Error as refused:
        if refused.sqlstate not in {"PF201", "23514"}:
            raise
        if refused.diag.constraint_name not in {None, "ended_by_a_legal_move"}:
            raise
        return False
    return True


def put(engine: Engine, kind: str, state: str) -> UUID:
    """Bring a run into a live state; from running all others can be reached."""
    run_id = engine.leased().run_id if kind == "handler" else started(engine, kind)
    engine.conn.execute(AS_LIVE, {"state": state, "run_id": run_id})
    return run_id


def started(engine: Engine, kind: str) -> UUID:
    """Return the run of a flow, or of a step of it that waits; paused, which leads to all."""
    steps = [{"name": "a", "type": "approval_gate"}]
    engine.call("define_flow", definition={"name": "f", "steps": steps})
    run_id: UUID = engine.tell("start", flow="f")
    if kind == "step_wait":
        run_id = engine.value("select run_id from pgflow.run where parent_run_id = %s", run_id)
        engine.call("pause", run_id=run_id)
    return run_id


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("kind", KINDS)
def test_table_move_tells_what_each_live_state_can_become(
    engine: Engine, kind: str, state: str
) -> None:
    if state not in REACHED[kind]:
        assert moves(engine, kind, state) == []
        return
    run_id = put(engine, kind, state)
    with engine.acting_as("pgflow_owner"):
        allowed = {
            to
            for to in LIVE
            if to != state and is_allowed(engine.conn, AS_LIVE, state=to, run_id=run_id)
        }
    assert allowed == set(moves(engine, kind, state)) & set(LIVE)


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("kind", KINDS)
def test_table_move_tells_how_each_live_state_can_end(
    engine: Engine, kind: str, state: str
) -> None:
    with engine.acting_as("pgflow_owner"):
        allowed = {
            end
            for end in ENDS
            if is_allowed(engine.conn, AS_FINISHED, kind=kind, state=end, ended_from=state)
        }
    assert allowed == set(moves(engine, kind, state)) & set(ENDS)


@pytest.mark.parametrize("kind", KINDS)
def test_table_move_tells_in_which_states_a_run_begins(engine: Engine, kind: str) -> None:
    with engine.acting_as("pgflow_owner"):
        allowed = {
            state for state in LIVE if is_allowed(engine.conn, AS_FIRST, kind=kind, state=state)
        }
    assert allowed == set(moves(engine, kind, None))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_end_leads_nowhere(
    owner: psycopg.Connection, engine: Engine, kind: str, end: str
) -> None:
    assert moves(engine, kind, end) == []
    for state in ENDS:
        assert not is_allowed(owner, AS_FINISHED, kind=kind, state=state, ended_from=end)


def moves(engine: Engine, kind: str, state: str | None) -> list[str]:
    rows = engine.rows(
        "select to_state from pgflow.move where kind = %s and from_state is not distinct from %s",
        kind,
        state,
    )
    return [row["to_state"] for row in rows]


def test_no_run_becomes_one_of_another_kind(engine: Engine) -> None:
    run_id = engine.leased().run_id
    change = "update pgflow.run set kind = 'flow', state = 'waiting_event' where run_id = %s"
    with engine.acting_as("pgflow_owner"), engine.refused("PF201", "state"):
        engine.rows(change, run_id)


def test_table_move_knows_the_kinds_of_runs(engine: Engine) -> None:
    rows = engine.rows("select distinct kind from pgflow.move")
    assert {row["kind"] for row in rows} == set(KINDS)


def test_table_state_has_all_states_and_says_which_are_live(engine: Engine) -> None:
    rows = engine.rows("select state, is_live from pgflow.state")
    assert {row["state"] for row in rows if row["is_live"]} == set(LIVE)
    assert {row["state"] for row in rows if not row["is_live"]} == set(ENDS)


def test_a_bare_update_is_refused_and_names_the_move_and_the_run(engine: Engine) -> None:
    run_id = engine.enqueue()
    with engine.acting_as("pgflow_owner"), engine.refused("PF201", "state") as refused:
        engine.rows("update pgflow.run set state = 'waiting_tool' where run_id = %s", run_id)
    said = refused.value.diag
    assert said.message_primary == f"run {run_id} cannot go from pending to waiting_tool"
    assert json.loads(said.message_detail or "") == {
        "run_id": str(run_id),
        "from_state": "pending",
        "to_state": "waiting_tool",
    }


def test_a_bare_delete_of_a_live_run_is_refused(engine: Engine) -> None:
    run_id = engine.enqueue()
    with engine.acting_as("pgflow_owner"), engine.refused("PF203"):
        engine.rows("delete from pgflow.run where run_id = %s", run_id)


def test_a_bare_delete_is_refused_after_an_end_in_the_same_transaction(engine: Engine) -> None:
    one, other = engine.enqueue(), engine.enqueue()
    with engine.refused("PF203"), engine.conn.transaction():
        engine.call("cancel", run_id=one)
        engine.rows("delete from pgflow.run where run_id = %s", other)


def test_a_bare_delete_is_refused_after_an_end_that_failed(engine: Engine) -> None:
    lease, other = engine.leased(), engine.enqueue()
    with engine.refused("PF203"), engine.conn.transaction():
        assert engine.complete(lease, output="no json")[0]["outcome"] == "refused"
        engine.rows("delete from pgflow.run where run_id = %s", other)


def test_a_bare_insert_of_an_illegal_end_is_refused_by_the_rules_name(
    owner: psycopg.Connection, engine: Engine
) -> None:
    before = engine.place.rows()
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        owner.execute(
            AS_FINISHED, {"kind": "handler", "ended_from": "pending", "state": "completed"}
        )
    assert refused.value.diag.constraint_name == "ended_by_a_legal_move"
    assert engine.place.rows() == before


@pytest.mark.parametrize("state", ENDS)
def test_a_run_cannot_end_inside_the_table_of_live_runs(engine: Engine, state: str) -> None:
    run_id = engine.enqueue()
    with engine.acting_as("pgflow_owner"), engine.refused("PF201", "state"):
        engine.rows("update pgflow.run set state = %s where run_id = %s", state, run_id)


def test_a_bare_insert_begins_in_a_first_state(engine: Engine) -> None:
    with engine.acting_as("pgflow_owner"), engine.refused("PF201", "state") as refused:
        engine.conn.execute(AS_FIRST, {"kind": "handler", "state": "running"})
    assert "from nothing to running" in str(refused.value)


@pytest.mark.parametrize("change", ["state = 'failed'", "output = '2'", "tags = '{mine}'"])
def test_a_finished_run_never_changes(engine: Engine, change: str) -> None:
    lease = engine.leased()
    engine.complete(lease, output="1")
    with engine.acting_as("pgflow_owner"), engine.refused("PF203"):
        engine.rows(f"update pgflow.run_finished set {change} where run_id = %s", lease.run_id)


@pytest.mark.parametrize("table", ["run", "run_finished"])
def test_runs_cannot_be_truncated(engine: Engine, table: str) -> None:
    engine.enqueue()
    with engine.acting_as("pgflow_owner"), engine.refused("PF203"):
        engine.rows(f"truncate pgflow.{table}")


def test_a_superuser_is_refused_like_everybody(engine: Engine) -> None:
    run_id = engine.enqueue()
    with engine.refused("PF203"):
        engine.rows("delete from pgflow.run where run_id = %s", run_id)
    with engine.refused("PF201"):
        engine.rows("update pgflow.run set state = 'completed' where run_id = %s", run_id)
    with engine.refused("PF203"):
        engine.rows("truncate pgflow.run cascade")


def test_a_bare_merge_is_refused_too(engine: Engine) -> None:
    run_id = engine.enqueue()
    merge = """
        merge into pgflow.run r using (values (%s::uuid)) v (run_id) on r.run_id = v.run_id
        when matched then {}
    """
    with engine.refused("PF203"):
        engine.rows(merge.format("delete"), run_id)
    with engine.refused("PF201"):
        engine.rows(merge.format("update set state = 'waiting_event', waits_for = '{a}'"), run_id)
