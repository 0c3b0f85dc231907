"""Who may decide a task: as its request says, and checked for each login and each user named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import pytest
from psycopg.types.json import Jsonb

from tests.sql.conftest import Engine

if TYPE_CHECKING:
    from uuid import UUID

    from tests.sql.conftest import Connect, MakeRole, Row

FORM = {"type": "object"}
LABEL = "the tall ones"  # no role of the server


class People(NamedTuple):
    """Sessions of real logins."""

    ann: Engine
    member: Engine
    stranger: Engine
    admin: Engine
    app: Engine
    roles: dict[str, str]


@pytest.fixture
def people(connect: Connect, make_role: MakeRole) -> People:
    editors = make_role()
    roles = {
        "editors": editors,
        "ann": make_role("pgflow_approver"),
        "member": make_role("pgflow_approver", editors),
        "stranger": make_role("pgflow_approver"),
        "admin": make_role("pgflow_admin"),
        "app": make_role("pgflow_application"),
    }
    return People(
        ann=connect(roles["ann"]),
        member=connect(roles["member"]),
        stranger=connect(roles["stranger"]),
        admin=connect(roles["admin"]),
        app=connect(roles["app"]),
        roles=roles,
    )


Act = Callable[[Engine, "UUID", "Row"], object]

# What one may do to a task only if one may decide it; each with the kind of task that it is for.
ACTS: dict[str, tuple[str, Act]] = {
    "approve": ("approval", lambda who, task, more: who.approve(task, **more)),
    "reject": ("approval", lambda who, task, more: who.reject(task, **more)),
    "roll back": (
        "approval",
        lambda who, task, more: who.reject(task, rollback_to="draft", **more),
    ),
    "answer": ("form", lambda who, task, more: who.call("answer", task_id=task, data={}, **more)),
    "claim": ("approval", lambda who, task, more: who.tell("claim_task", task_id=task, **more)),
    "release": ("approval", lambda who, task, more: who.tell("release_task", task_id=task, **more)),
    "delegate": (
        "approval",
        lambda who, task, more: who.tell("delegate", task_id=task, assignee="tom", **more),
    ),
    "comment": (
        "approval",
        lambda who, task, more: who.call("comment_task", task_id=task, comment="hm", **more),
    ),
}


def asked(engine: Engine, kind: str = "approval", **request: object) -> UUID:
    """Ask, after a step `draft`."""
    engine.worker()
    engine.acquire()  # what is left of the last one
    lease = engine.leased()
    engine.record_steps(lease, draft="1")
    form = {"form": FORM} if kind == "form" else {}
    assert engine.park(lease, {"key": "ok", "kind": kind, **form, **request})["outcome"] == "done"
    return engine.task(lease.run_id)


@pytest.fixture(params=ACTS)
def act(request: pytest.FixtureRequest) -> str:
    """Return what somebody tries to do."""
    return str(request.param)


def try_to(act: str, who: Engine, task: UUID, **more: object) -> None:
    """Do it."""
    ACTS[act][1](who, task, more)


def may(engine: Engine, act: str, who: Engine, request: Row, **more: object) -> None:
    """Have somebody do it to a new task."""
    try_to(act, who, asked(engine, ACTS[act][0], **request), **more)


def may_not(engine: Engine, act: str, who: Engine, request: Row, **more: object) -> None:
    """Have somebody be refused, which changes nothing."""
    task = asked(engine, ACTS[act][0], **request)
    with engine.refused("PF501", "task_id"):
        try_to(act, who, task, **more)


# ---- the rules


def test_what_names_nobody_is_anybodys(engine: Engine, people: People, act: str) -> None:
    may(engine, act, people.stranger, {})


def test_only_the_assignee_decides(engine: Engine, people: People, act: str) -> None:
    request = {"assignee": people.roles["ann"]}
    may_not(engine, act, people.stranger, request)
    may(engine, act, people.ann, request)


def test_a_member_of_an_assignee_that_is_a_role_decides(
    engine: Engine, people: People, act: str
) -> None:
    request = {"assignee": people.roles["editors"]}
    may_not(engine, act, people.stranger, request)
    may(engine, act, people.member, request)


def test_only_members_of_a_role_of_the_server_decide(
    engine: Engine, people: People, act: str
) -> None:
    request = {"assignee_role": people.roles["editors"]}
    may_not(engine, act, people.stranger, request)
    may(engine, act, people.member, request)


def test_an_application_cannot_speak_for_a_role_of_the_server(
    engine: Engine, people: People, act: str
) -> None:
    request = {"assignee_role": people.roles["editors"]}
    may_not(engine, act, people.app, request, as_user="tom")


def test_of_other_roles_the_application_says_who_has_them(
    engine: Engine, people: People, act: str
) -> None:
    may_not(engine, act, people.app, {"assignee_role": LABEL})
    may_not(engine, act, people.stranger, {"assignee_role": LABEL})
    may(engine, act, people.app, {"assignee_role": LABEL}, as_user="tom")


def test_an_application_acts_for_the_user_who_is_the_assignee_and_for_no_other(
    engine: Engine, people: People, act: str
) -> None:
    may_not(engine, act, people.app, {"assignee": "ann of the shop"}, as_user="tom")
    may(engine, act, people.app, {"assignee": "ann of the shop"}, as_user="ann of the shop")


def test_beside_an_assignee_those_with_the_role_decide_whoever_knows_the_role(
    engine: Engine, people: People, act: str
) -> None:
    of_server = {"assignee": "ann of the shop", "assignee_role": people.roles["editors"]}
    may(engine, act, people.member, of_server)
    may_not(engine, act, people.stranger, of_server)
    may_not(engine, act, people.app, of_server, as_user="tom")
    may(engine, act, people.app, of_server, as_user="ann of the shop")
    may(engine, act, people.app, {**of_server, "assignee_role": LABEL}, as_user="tom")


def test_only_an_application_names_its_users(engine: Engine, people: People, act: str) -> None:
    for who in (people.ann, people.member, people.stranger):
        task = asked(engine, ACTS[act][0])
        with engine.refused("PF501", "as_user"):
            try_to(act, who, task, as_user="tom")


def test_an_application_does_not_act_for_those_whom_the_server_knows(
    engine: Engine, people: People, make_role: MakeRole, act: str
) -> None:
    editor = make_role(people.roles["editors"])
    for request in ({"assignee": editor}, {"assignee_role": people.roles["editors"]}, {}):
        task = asked(engine, ACTS[act][0], **request)
        for name in (editor, "postgres"):
            with engine.refused("PF501", "as_user"):
                try_to(act, people.app, task, as_user=name)


def test_a_user_without_a_name_or_with_too_long_a_one_is_refused(
    engine: Engine, people: People, act: str
) -> None:
    for name in ("", "n" * 201):
        task = asked(engine, ACTS[act][0])
        with engine.refused("PF101", "as_user"):
            try_to(act, people.app, task, as_user=name)


def test_an_admin_decides_all_but_for_others(engine: Engine, people: People, act: str) -> None:
    may(engine, act, people.admin, {"assignee": "ann of the shop"})
    may(engine, act, people.admin, {"assignee_role": people.roles["editors"]})
    task = asked(engine, ACTS[act][0], assignee="ann of the shop")
    with engine.refused("PF501"):
        try_to(act, people.admin, task, as_user="tom")


def test_who_requested_it_does_not_decide_where_that_is_asked(
    engine: Engine, people: People, act: str
) -> None:
    request = {"requested_by": people.roles["ann"], "not_requester": True}
    may_not(engine, act, people.ann, request)
    may_not(engine, act, people.ann, {**request, "assignee": people.roles["ann"]})
    may(engine, act, people.stranger, request)
    may(engine, act, people.ann, {**request, "not_requester": False})


def test_not_even_an_admin_decides_what_he_requested_himself(
    engine: Engine, people: People, act: str
) -> None:
    request = {"requested_by": people.roles["admin"], "not_requester": True}
    may_not(engine, act, people.admin, request)


def test_a_user_of_an_application_does_not_decide_what_he_requested(
    engine: Engine, people: People, act: str
) -> None:
    request = {"requested_by": "tom", "not_requester": True, "assignee_role": LABEL}
    may_not(engine, act, people.app, request, as_user="tom")
    may(engine, act, people.app, request, as_user="jo")


def test_the_requester_is_who_enqueued_the_run_if_nobody_is_named(
    engine: Engine, people: People, act: str
) -> None:
    may_not(engine, act, engine, {"not_requester": True})
    may(engine, act, people.stranger, {"not_requester": True})


def test_what_somebody_has_claimed_nobody_else_decides(
    engine: Engine, people: People, act: str
) -> None:
    task = asked(engine, ACTS[act][0])
    people.ann.tell("claim_task", task_id=task)
    with engine.refused("PF501", "task_id") as refused:
        try_to(act, people.member, task)
    assert people.roles["ann"] in str(refused.value.diag.message_detail)
    with engine.refused("PF501", "task_id"):
        try_to(act, people.app, task, as_user="tom")
    try_to(act, people.ann, task)


def test_an_admin_decides_what_somebody_else_has_claimed(
    engine: Engine, people: People, act: str
) -> None:
    task = asked(engine, ACTS[act][0])
    people.ann.tell("claim_task", task_id=task)
    try_to(act, people.admin, task)


def test_after_a_delegation_the_new_assignee_decides_and_the_old_does_not(
    engine: Engine, people: People, act: str
) -> None:
    task = asked(engine, ACTS[act][0], assignee=people.roles["ann"])
    people.ann.tell("delegate", task_id=task, assignee=people.roles["stranger"])
    with engine.refused("PF501", "task_id"):
        try_to(act, people.ann, task)
    try_to(act, people.stranger, task)


def test_after_a_delegation_those_who_have_the_role_decide_still(
    engine: Engine, people: People, act: str
) -> None:
    task = asked(engine, ACTS[act][0], assignee_role=people.roles["editors"])
    people.member.tell("delegate", task_id=task, assignee=people.roles["ann"])
    try_to(act, people.member, task)


def test_after_a_delegation_an_application_speaks_still_for_those_with_its_role(
    engine: Engine, people: People, act: str
) -> None:
    task = asked(engine, ACTS[act][0], assignee_role=LABEL)
    people.app.tell("delegate", task_id=task, assignee="jo", as_user="tom")
    try_to(act, people.app, task, as_user="tom")


def test_after_an_escalation_the_other_role_decides_and_the_first_does_not(
    engine: Engine, people: People, act: str
) -> None:
    task = asked(
        engine,
        ACTS[act][0],
        assignee=people.roles["ann"],
        due_in=60,
        policy="escalate",
        escalate_to=people.roles["editors"],
        escalate_in=600,
    )
    people.ann.tell("claim_task", task_id=task)
    engine.later(seconds=60)
    assert engine.tick()["expired"] == 1
    for who in (people.ann, people.member):
        who.set_clock(engine.now)
    with engine.refused("PF501", "task_id"):
        try_to(act, people.ann, task)
    try_to(act, people.member, task)


# ---- who it was


def test_the_decision_names_the_user_and_the_login(engine: Engine, people: People) -> None:
    task = asked(engine, assignee_role=LABEL)
    assert people.app.approve(task, as_user="tom")["decided_by"] == "tom"
    history = engine.one(
        "select decided_by, decided_login from pgflow.task_history where task_id = %s", task
    )
    assert tuple(history.values()) == ("tom", people.roles["app"])


def test_the_timeline_names_the_user_that_an_application_acts_for(
    engine: Engine, people: People
) -> None:
    task = asked(engine, assignee_role=LABEL)
    decision = people.app.approve(task, as_user="tom")
    line = next(
        line for line in engine.timeline(decision["run_id"]) if line["type"] == "task.resolved"
    )
    assert (line["by"], line["payload"]["by"]) == (people.roles["app"], "tom")


def test_a_role_without_the_right_to_decide_is_stopped_by_the_server(
    engine: Engine, connect: Connect, make_role: MakeRole, act: str
) -> None:
    task = asked(engine, ACTS[act][0])
    with pytest.raises(Exception, match="permission denied"):
        try_to(act, connect(make_role("pgflow_client")), task)


def test_a_task_of_a_project_that_one_is_no_member_of_is_unknown(
    engine: Engine, people: People, act: str
) -> None:
    engine.tell("create_project", project="acme")
    task = asked(engine, ACTS[act][0])
    with engine.refused("PF502", "project"):
        try_to(act, people.stranger, task, project="acme")
    with engine.refused("PF103", "task_id"):
        try_to(act, engine, task, project="acme")


def test_an_interrupt_is_answered_by_whom_it_is_assigned_to(engine: Engine, people: People) -> None:
    lease = engine.leased()
    engine.park(lease, {"key": "i", "kind": "interrupt", "assignee": people.roles["ann"]})
    task = engine.task(lease.run_id, "i")
    with engine.refused("PF501", "task_id"):
        people.stranger.call("answer", task_id=task, data=Jsonb(1))
    people.ann.call("answer", task_id=task, data=Jsonb(1))
    assert engine.state(lease.run_id) == "pending"
