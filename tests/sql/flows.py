"""Flows as tests define them, and a worker that does their steps."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from tests.sql.conftest import Engine, Lease, Row


def step(name: str, *needs: str, **more: Any) -> Row:
    """Return a step that needs others."""
    return {"name": name, **({"needs": list(needs)} if needs else {}), **more}


def gate(name: str, /, *needs: str, **config: Any) -> Row:
    """Return a gate that somebody approves."""
    return step(name, *needs, type="approval_gate", config=config)


def define(engine: Engine, *steps: Row, name: str = "f", **more: Any) -> Row:
    """Define a flow and return its version."""
    definition = {"name": name, "steps": list(steps), **more}
    (version,) = engine.call("define_flow", definition=definition)
    return version


def started(engine: Engine, *steps: Row, output: Row | None = None, **how: Any) -> UUID:
    """Define a flow of these steps and start it."""
    more: Row = {} if output is None else {"output": output}
    define(engine, *steps, **more)
    run_id: UUID = engine.tell("start", flow="f", **how)
    return run_id


def ready(engine: Engine) -> dict[str, Lease]:
    """Lease the steps that are ready, by name."""
    return {_step(lease): lease for lease in _leased(engine)}


def work(engine: Engine, *, fail: tuple[str, ...] = (), **outputs: object) -> list[str]:
    """Do all steps that are ready and return their names, sorted; those not named return theirs."""
    leases = _leased(engine)
    done = [lease for lease in leases if _step(lease) not in fail]
    if done:
        texts = [json.dumps(outputs.get(_step(lease), _step(lease))) for lease in done]
        assert engine.complete(*done, outputs=texts) == []
    broken = [lease for lease in leases if _step(lease) in fail]
    if broken:
        engine.fail(*broken, retries=[False] * len(broken))
    return sorted({_step(lease) for lease in leases})


def wrote(engine: Engine, lease: Lease, output: str = "null", **channels: Any) -> list[Row]:
    """Complete a step that writes to channels, once to each."""
    return complete(engine, (lease, [*channels.items()]), output=output)


def complete(engine: Engine, *steps: tuple[Lease, list[tuple[str, Any]]], **how: Any) -> list[Row]:
    """Complete steps at once, each with what it writes to which channels."""
    writes = [
        json.dumps([{"channel": channel, "value": value} for channel, value in written])
        if written
        else None
        for _, written in steps
    ]
    return engine.complete(*(lease for lease, _ in steps), writes=writes, **how)


def values(engine: Engine, run_id: UUID) -> Any:
    """Return the state values of a flow, those of its last checkpoint."""
    return engine.call("history", run_id=run_id)[-1]["values"]


def finish(engine: Engine, **how: Any) -> list[list[str]]:
    """Do steps until none is ready; return their names, round by round."""
    rounds = []
    while names := work(engine, **how):
        rounds.append(names)
    return rounds


def states(engine: Engine, run_id: UUID) -> dict[str, str]:
    """Return the states of a flow's steps by name, in the order of the definition."""
    rows = engine.rows(
        "select step, state from pgflow.flow_steps"
        " where flow_run_id = %s and voided_at is null order by seq",
        run_id,
    )
    return {row["step"]: row["state"] for row in rows}


def step_run(engine: Engine, run_id: UUID, name: str) -> UUID:
    """Return the run that executes a step."""
    child_id: UUID = engine.value(
        "select run_id from pgflow.flow_steps"
        " where flow_run_id = %s and step = %s and voided_at is null",
        run_id,
        name,
    )
    return child_id


def task_of(engine: Engine, run_id: UUID, name: str) -> UUID:
    """Return the task that a step opened last."""
    task_id: UUID = engine.value(
        "select task_id from pgflow.flow_steps"
        " where flow_run_id = %s and step = %s and voided_at is null",
        run_id,
        name,
    )
    return task_id


def elements(engine: Engine, name: str = "each") -> dict[int, Lease]:
    """Lease the elements of a step that are ready, by their numbers."""
    leases = _leased(engine)
    assert {_step(lease) for lease in leases} <= {name}
    return {lease.body["flow"]["element"]: lease for lease in leases}


def elements_of(engine: Engine, run_id: UUID, name: str = "each") -> dict[int, str]:
    """Return the states of a step (0) and of its elements."""
    rows = engine.rows(
        "select element, state from pgflow.flow_steps where flow_run_id = %s and step = %s"
        " and voided_at is null order by element",
        run_id,
        name,
    )
    return {row["element"]: row["state"] for row in rows}


def _leased(engine: Engine) -> list[Lease]:
    if not engine.value(
        "select exists (select from pgflow.worker_beat"
        " where project_id = 'default' and worker_id = 'w:1')"
    ):
        engine.worker()
    return engine.acquire().leases


def _step(lease: Lease) -> str:
    name: str = lease.body["flow"]["step"]
    return name
