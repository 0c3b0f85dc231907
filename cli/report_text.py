"""What the Markdown and the page of a report have in common: how single values are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from .output import shown

Report = Mapping[str, Any]

# Of a hash so many digits are enough to compare by eye.
DIGITS: Final = 16
Cells = list[tuple[str, ...]]


def tables(report: Report) -> Iterator[tuple[str, tuple[str, ...], Cells]]:
    """Yield each list of the report: its heading, the names of its columns, its cells."""
    yield (
        "Steps",
        ("step", "state", "attempts", "visits", "started at", "ended at", "error"),
        _steps(report),
    )
    yield "Artifacts", ("step", "name", "schema", "sha256", "valid"), _artifacts(report)
    yield "Roles", ("role", "agent", "version", "model", "backend", "sha256"), _roles(report)
    yield "Decisions", ("at", "step", "title", "decision", "by", "comment"), _decisions(report)
    yield "Models", ("model", "calls", "failed", "input", "output", "USD"), _models(report)
    yield "Unresolved", ("what", "step", "kind or state", "for", "due at"), _unresolved(report)
    yield "Last events", ("no", "at", "type", "step", "by"), _events(report)


def title(report: Report) -> str:
    """Return what was run, a flow with its version."""
    if report["flow"] is not None:
        return line(f"{report['flow']} version {report['version']}")
    return line(report["handler"])


def facts(report: Report) -> list[tuple[str, str]]:
    """Return what is known of the run as a whole: names and texts."""
    usage = report["usage"]
    told = {
        "status": report["status"],
        "paused": report["pause_reason"],
        "run": report["run_id"],
        "hash": report["hash"],
        "queue": report["queue"],
        "started at": _at(report["started_at"]),
        "ended at": _at(report["ended_at"]),
        "created by": report["created_by"],
        "ended by": report["ended_by"],
        "error": " ".join(filter(None, (report["error_code"], report["error"]))) or None,
        "cost": None if usage["cost_usd"] is None else f"{usage['cost_usd']} USD",
        "calls of models": usage["calls"] and f"{usage['calls']}, {usage['failed_calls']} failed",
        "calls of tools": report["tool_calls"] or None,
    }
    return [(name, line(value)) for name, value in told.items() if value]


def _steps(report: Report) -> Cells:
    return [
        (
            _step_name(s),
            s["state"],
            line(s["attempts"]),
            line(s["visits"]),
            _at(s["started_at"]),
            _at(s["ended_at"]),
            " ".join(filter(None, (s.get("error_code"), line(s.get("error") or "")))),
        )
        for s in report["steps"]
    ]


def _step_name(step: Mapping[str, Any]) -> str:
    """Return a step's key, with its element and version where it has others than the first."""
    element, version = step.get("element"), step.get("version")
    return line(step["key"]) + f" [{element}]" * bool(element) + f" (v{version})" * bool(version)


def _artifacts(report: Report) -> Cells:
    return [
        (
            line(a["step"] or ""),
            line(a["name"]),
            line(a["schema"] or ""),
            _digits(a["sha256"]),
            "" if a["valid"] is None else line(a["valid"]),
        )
        for a in report["artifacts"]
    ]


def _roles(report: Report) -> Cells:
    return [
        (
            line(b["role"]),
            line(b.get("agent", b.get("fault"))),
            line(b.get("version")),
            line(b.get("model")),
            line(b.get("backend")),
            (b.get("sha256") or "")[:DIGITS],
        )
        for b in report["bindings"]
    ]


def _decisions(report: Report) -> Cells:
    return [
        (
            _at(d["at"]),
            line(d["step"]),
            line(d["title"]),
            d["action"] + ", then voided" * (d["voided_at"] is not None),
            line(d["by"] or f"nobody; policy {d['policy']}"),
            line(d["comment"] or ""),
        )
        for d in report["decisions"]
    ]


def _models(report: Report) -> Cells:
    return [
        (
            line(m["model"] or ""),
            line(m["calls"]),
            line(m["failed_calls"]),
            line(m["input_tokens"]),
            line(m["output_tokens"]),
            line(m["cost_usd"]) + " or more" * (m["unpriced_calls"] > 0),
        )
        for m in report["usage"]["models"]
    ]


def _events(report: Report) -> Cells:
    return [
        (line(e["event_no"]), _at(e["at"]), line(e["type"]), line(e["step"] or ""), line(e["by"]))
        for e in report["events"]
    ]


def _unresolved(report: Report) -> Cells:
    left = report["unresolved"]
    tasks = [
        (
            f"task: {line(t['title'])}",
            line(t["step"]),
            t["kind"],
            line(t["assignee"] or t["assignee_role"] or ""),
            _at(t["due_at"]),
        )
        for t in left["tasks"]
    ]
    waits = [
        ("wait", line(w["step"] or w["key"]), w["kind"], line(w["name"] or ""), _at(w["due_at"]))
        for w in left["waits"]
    ]
    invalid = [
        ("invalid artifact", line(a["step"] or ""), a["kind"], line(a["name"]), "")
        for a in left["artifacts"]
    ]
    return (
        tasks
        + waits
        + invalid
        + [("step", _step_name(s), s["state"], "", "") for s in left["steps"]]
    )


def cut(report: Report) -> list[str]:
    """Return what lists the report has no room for."""
    return [f"{many} more of {name}" for name, many in sorted(report["left_out"].items())]


def _digits(sha256: str) -> str:
    """Return the first digits of a hash."""
    return sha256[:DIGITS]


def line(value: object) -> str:
    """Return a value as one line, without what a terminal would take for commands."""
    return shown("", " ".join(value.split()) if isinstance(value, str) else value)


def _at(moment: str | None) -> str:
    """Return a time of the report, which is in UTC."""
    return "" if moment is None else shown("", datetime.fromisoformat(moment))
