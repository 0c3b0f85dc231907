"""What the runs of a random program wait for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st

from tests.model.waits import Ask

PERSONS = ["ann", "bob", "cy"]
FORM = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
KEYS = {
    "approval": ["ok", "ok#2", "ok#3", "ok#4"],
    "form": ["form", "form#2"],
    "tool": ["tool", "tool#2", "tool#3"],
    "event": ["pay", "pay#2", "go", "go#2"],
    "sleep": ["sleep", "sleep#2"],
    "run": ["part", "part#2", "part#3"],
    "interrupt": ["how", "how#2"],
    "breakpoint": ["breakpoint/before/a", "breakpoint/before/b"],
}
KINDS = ["approval"] * 4 + ["form", "tool", "tool", "event", "event", "event"]
KINDS += ["sleep", "run", "run", "interrupt", "breakpoint"]
# What a wait of its kind needs, and programs have no part in.
ALWAYS: dict[str, dict[str, Any]] = {
    "approval": {"title": "Fine?"},
    "form": {"title": "How many?", "form": FORM},
    "tool": {"tool": "transcode"},
    "event": {},
    "sleep": {},
    "run": {"handler": "part", "input": {}},
    "interrupt": {"title": "How?"},
    "breakpoint": {"when": "before"},
}


def _mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 2 + list(others))


@st.composite
def asks(draw: st.DrawFn, known: Collection[str], *, may_have_children: bool) -> list[Ask]:
    """Draw a set of waits, each under a key of its own, few of which have come already."""
    kinds = [kind for kind in KINDS if may_have_children or kind != "run"]
    drawn = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
    asked = [draw(_ask(kind, known)) for kind in drawn]
    return list({ask.key: ask for ask in asked}.values())


@st.composite
def _ask(draw: st.DrawFn, kind: str, known: Collection[str]) -> Ask:
    new = [key for key in KEYS[kind] if key not in known]
    key = draw(st.sampled_from(new * 4 + KEYS[kind]))
    about = draw(_mostly("aa", "ab")) if kind in {"approval", "form"} else "aa"
    more: dict[str, Any] = {}
    if kind in {"approval", "form"}:
        more = draw(_for_people(kind))
    elif kind in {"tool", "event"}:
        more = {"timeout": draw(_mostly(None, 40))}
    elif kind == "sleep":
        more = {"seconds": draw(st.sampled_from([0, 5, 50]))}
    elif kind == "run":
        more = {"max_attempts": draw(st.integers(1, 2))}
    if kind == "event":
        more["name"] = key.partition("#")[0]
    return Ask(kind, key, about, more)


@st.composite
def _for_people(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    policies = ["cancel", "timeout", "escalate", *["approve", "reject"] * (kind == "approval")]
    quorum = draw(_mostly(1, 2)) if kind == "approval" else 1
    return {
        "due_in": draw(_mostly(None, 30, 100)),
        "policy": draw(st.sampled_from(policies)),
        "escalate_in": 50,
        "on_reject": draw(st.sampled_from(["cancel", "fail", "resume", "resume"])),
        "quorum": quorum,
        "quorum_of": draw(st.sampled_from([None, quorum, quorum + 1])),
        "assignee": draw(_mostly(None, "ann")),
        "role": draw(_mostly(None, "reviewers")),
    }


def as_sent(ask: Ask) -> dict[str, Any]:
    """Return a wait as a worker says it to park."""
    wait = {"kind": ask.kind, "key": ask.key, "digest": ask.about, **ask.more, **ALWAYS[ask.kind]}
    if "role" in wait:
        wait["assignee_role"] = wait.pop("role")
        wait["escalate_to"] = "bosses"
    return wait
