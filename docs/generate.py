"""Writes those parts of the docs that the database knows.

    python docs/generate.py [DSN] [--check]

All of sql-reference.md, the parts of concepts.md and flows.md between their markers, and
cookbook.md, which shows cookbook.sql. DSN names a migrated database; without one, a database on
the embedded server is made for it. With --check nothing is written: what differs is shown, and the
exit code is 1.
"""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import argparse
import difflib
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel

from pgflow.definition import Channel, Flow, Step
from pgflow.embedded import EmbeddedServer
from pgflow.schema import migrate

HERE = Path(__file__).resolve().parent
Connection = psycopg.Connection[dict[str, Any]]

HEAD = """# SQL reference

Made from the database's own comments by `make docs`; don't edit. `\\df+ pgflow.*` and
`\\d+ pgflow.*` show the same in psql. [concepts.md](concepts.md) explains the words.

All functions are in the schema `pgflow`. Arguments can be named: `queue => 'mail'`. The argument
`project` comes last: null means the setting `pgflow.project`, else the project `default`. A refused
call changes nothing; it has an SQLSTATE of class `PF`, a message, a detail and a hint. Functions
whose names begin with `_` are internal: nobody may call them.
"""
SECTIONS = {
    "v": "They show the projects of whoever asks. `pgflow_reader` may select from them.",
    "c": "What functions return. Fields are only added, at the end; readers ignore others.",
    "r": """Only the owner reads and writes them, except through functions and views, or where it
says otherwise. They may change with any version.""",
}
# In the order of a run's life.
STATES = (
    "scheduled",
    "pending",
    "running",
    "waiting_tool",
    "waiting_approval",
    "waiting_event",
    "paused",
    "completed",
    "failed",
    "cancelled",
    "timeout",
)
# In the order of growing rights.
ROLES = {
    "pgflow_reader": "Looks: selects from the views and the catalogue tables.",
    "pgflow_client": "Starts runs and steers them.",
    "pgflow_approver": "Decides tasks.",
    "pgflow_worker": "Executes runs; [worker-protocol.md](worker-protocol.md) has the rules.",
    "pgflow_admin": "Sets up projects and queues. Is a member of every project.",
}

FUNCTIONS = """
    select p.proname as name, a.grantee::regrole::text as role,
        array(select quote_ident(n.name) from unnest(p.proargnames[:p.pronargs]) with ordinality
              as n (name, place) order by n.place) as names,
        array(select format_type(t.type, null) from unnest(p.proargtypes) with ordinality
              as t (type, place) order by t.place) as types,
        array(select pg_get_function_arg_default(p.oid, place)
              from generate_series(1, p.pronargs) as place order by place) as defaults,
        pg_get_function_result(p.oid) as result, obj_description(p.oid, 'pg_proc') as comment
    from pg_proc p
    left join lateral aclexplode(p.proacl) a
           on a.grantee <> p.proowner and a.privilege_type = 'EXECUTE'
    where p.pronamespace = 'pgflow'::regnamespace and p.proname !~ '^_'
    order by p.proname
"""
MEMBERS = """
    select m.member::regrole::text as role, m.roleid::regrole::text as includes
    from pg_auth_members m
    where m.roleid::regrole::text ~ '^pgflow_' and m.member::regrole::text ~ '^pgflow_'
    order by 2
"""
RELATIONS = """
    select c.oid, c.relname as name,
        case c.relkind when 'p' then 'r' else c.relkind::text end as kind,
        coalesce(obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type'))
            as comment,
        exists (select from aclexplode(c.relacl) a
                where a.grantee = 'pgflow_reader'::regrole) as readable,
        array(select k.conname::text from pg_constraint k
              where k.conrelid = c.oid and k.contype = 'c' order by k.conname) as checks
    from pg_class c
    where c.relnamespace = 'pgflow'::regnamespace and c.relkind in ('r', 'p', 'v', 'c')
      and not c.relispartition
    order by c.relname
"""
COLUMNS = """
    select a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
        col_description(a.attrelid, a.attnum) as comment
    from pg_attribute a
    where a.attrelid = %(oid)s and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""


def main() -> int:
    """Write or compare the files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dsn", nargs="?", help="a migrated database; default: an embedded one")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    arguments = parser.parse_args()
    with connected(arguments.dsn) as db:
        concepts, flows = HERE / "concepts.md", HERE / "flows.md"
        wanted = {
            concepts: between_markers(concepts.read_text(), catalogue(db)),
            flows: between_markers(flows.read_text(), definition()),
            HERE / "sql-reference.md": reference(db),
            HERE / "cookbook.md": cookbook((HERE / "cookbook.sql").read_text()),
        }
    stale = 0
    for path, text in wanted.items():
        present = path.read_text() if path.exists() else ""
        if text == present:
            continue
        stale += 1
        if arguments.check:
            names = (f"docs/{path.name}", f"docs/{path.name} as generated")
            old, new = present.splitlines(), text.splitlines()
            lines = difflib.unified_diff(old, new, *names, lineterm="")
            sys.stdout.write("\n".join(lines) + "\n")
        else:
            path.write_text(text)
            sys.stdout.write(f"written: docs/{path.name}\n")
    if stale and arguments.check:
        sys.stdout.write("docs/ is not what the database says; run: make docs\n")
    return int(bool(stale) and arguments.check)


@contextmanager
def connected(dsn: str | None) -> Iterator[Connection]:
    """Yield a connection to `dsn`, or to a new database that is thrown away."""
    if dsn is None:
        with tempfile.TemporaryDirectory(prefix="pgflow-docs-") as folder:
            Path(folder).chmod(0o755)  # the server may have to run as another user
            with EmbeddedServer(Path(folder) / "server") as server:
                migrate(server.socket_dsn)
                with connected(server.socket_dsn) as db:
                    yield db
        return
    with psycopg.connect(dsn, row_factory=dict_row, autocommit=True) as db:
        # Otherwise names in the schema of the search path come back unqualified.
        db.execute("set search_path = ''")
        yield db


def between_markers(text: str, parts: dict[str, str]) -> str:
    """Put each part between its markers. Raises KeyError for a marker without a part."""

    def filled(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n\n{parts[match[1]]}\n\n<!-- /generated -->"

    marked = r"<!-- generated: (\w+) -->\n.*?<!-- /generated -->"
    return re.sub(marked, filled, text, flags=re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)


def plain(text: str | None) -> str:
    """Return a comment as Markdown text on one line."""
    escaped = " ".join((text or "").split()).replace("<", "&lt;")
    return re.sub(r"([|*])", r"\\\1", escaped)


def catalogue(db: Connection) -> dict[str, str]:
    """Return the parts of concepts.md: what the catalogue tables say."""
    states = db.execute("select * from pgflow.state order by state").fetchall()
    states.sort(key=lambda s: STATES.index(s["state"]))
    moves = db.execute("select * from pgflow.move order by kind").fetchall()
    moves.sort(
        key=lambda m: [STATES.index(s) if s else -1 for s in (m["from_state"], m["to_state"])]
    )
    codes = db.execute("select * from pgflow.error_code order by error_code").fetchall()
    refusals = db.execute("select * from pgflow.refusal order by sqlstate").fetchall()
    events = db.execute("select * from pgflow.event_type order by type").fetchall()
    policies = db.execute("select * from pgflow.task_policy order by policy").fetchall()
    edges = edges_of("handler", moves)
    live = [s["state"] for s in states if s["is_live"]]
    return {
        "diagram": diagram(live, edges),
        "states": table(
            ("state", "", "meaning"),
            [
                (f"`{s['state']}`", "live" if s["is_live"] else "end", plain(s["description"]))
                for s in states
            ],
        ),
        "moves": table_of(edges),
        "flow_moves": table_of(edges_of("flow", moves)),
        "error_codes": table(
            ("code", "class", "meaning"),
            [(f"`{c['error_code']}`", c["class"], plain(c["description"])) for c in codes],
        ),
        "refusals": table(
            ("SQLSTATE", "Python class", "meaning"),
            [(f"`{r['sqlstate']}`", f"`{r['name']}`", plain(r["description"])) for r in refusals],
        ),
        "event_types": table(
            ("type", "meaning"), [(f"`{e['type']}`", plain(e["description"])) for e in events]
        ),
        "policies": table(
            ("policy", "meaning"), [(f"`{p['policy']}`", plain(p["description"])) for p in policies]
        ),
    }


def edges_of(kind: str, moves: list[dict[str, Any]]) -> list[tuple[str | None, str]]:
    """Return the moves of a kind of runs."""
    return [(m["from_state"], m["to_state"]) for m in moves if m["kind"] == kind]


def table_of(edges: list[tuple[str | None, str]]) -> str:
    """Return moves as a table."""
    rows = [
        (f"`{a}`" if a else "(new)", ", ".join(f"`{b}`" for start, b in edges if start == a))
        for a in dict.fromkeys([None, *(start for start, _ in edges)])
    ]
    return table(("from", "to"), rows)


def definition() -> dict[str, str]:
    """Return the parts of flows.md: the members of a definition."""
    return {model.__name__.lower(): members(model) for model in (Flow, Channel, Step)}


def members(model: type[BaseModel]) -> str:
    """Return the fields of a model as a table."""
    rows = [
        (f"`{name}`", "required" if field.is_required() else "", field.description or "")
        for name, field in model.model_fields.items()
    ]
    return table(("member", "", "meaning"), rows)


def diagram(live: list[str], edges: list[tuple[str | None, str]]) -> str:
    """Return the moves as a Mermaid diagram.

    A state that all live ones lead to gets one arrow from a box around them; `paused`, which leads
    elsewhere than the others, stands outside of the box.
    """
    boxed = [s for s in live if s != "paused"]
    from_all = {b for _, b in edges if all((s, b) in edges for s in boxed)}
    inner = [(a, b) for a, b in edges if a in boxed and b in boxed]
    said = {*inner, *((a, b) for a in boxed for b in from_all)}
    outer = [(a, b) for a, b in edges if a and (a, b) not in said]
    ends = {b for _, b in edges if b not in live}
    lines = [
        "stateDiagram-v2",
        *(f"    [*] --> {b}" for a, b in edges if a is None),
        '    state "live, not paused" as live {',
        *(f"        {a} --> {b}" for a, b in inner),
        "    }",
        *(f"    live --> {b}" for b in sorted(from_all)),
        *(f"    {a} --> {b}" for a, b in outer),
        *(f"    {b} --> [*]" for b in sorted(ends)),
    ]
    return "\n".join(["```mermaid", *lines, "```"])


def cookbook(text: str) -> str:
    """Return the text of cookbook.md: a section for each heading among the comments."""
    head, *recipes = re.split(r"^-- # ", text, flags=re.MULTILINE)
    lines = [
        "# Cookbook",
        "",
        prose(head),
        "",
        "Made from [cookbook.sql](cookbook.sql) by `make docs`; all of it is executed by a test.",
    ]
    for recipe in recipes:
        heading, _, rest = recipe.partition("\n")
        code = re.sub(r"^--.*\n", "", rest, flags=re.MULTILINE).strip("\n")
        lines += ["", f"## {heading}", *(("", said) if (said := prose(rest)) else ())]
        lines += ["", "```sql", code, "```"]
    return "\n".join(lines) + "\n"


def prose(text: str) -> str:
    """Return the comments of SQL as Markdown."""
    return "\n".join(plain(line) for line in re.findall(r"^-- (.*)$", text, flags=re.MULTILINE))


def reference(db: Connection) -> str:
    """Return the text of sql-reference.md."""
    functions = db.execute(FUNCTIONS).fetchall()
    if orphans := [f["name"] for f in functions if f["role"] not in ROLES]:
        raise SystemExit(f"public functions that no role may call: {', '.join(orphans)}")
    members = db.execute(MEMBERS).fetchall()
    relations = db.execute(RELATIONS).fetchall()
    lines = [
        HEAD,
        "- [Functions](#functions)",
        *(f"  - [{role}](#{role}): {links(functions, role)}" for role in ROLES),
        "- [Views](#views)",
        "- [Types](#types)",
        "- [Tables](#tables)",
        "",
        "## Functions",
    ]
    for role, sentence in ROLES.items():
        included = [f"`{m['includes']}`" for m in members if m["role"] == role]
        lines += ["", f"### {role}", "", sentence]
        if included:
            lines[-1] += f" Includes {' and '.join(included)}."
        for function in functions:
            if function["role"] == role:
                lines += ["", *described(function)]
    for heading, kind in (("Views", "v"), ("Types", "c"), ("Tables", "r")):
        lines += ["", f"## {heading}", "", SECTIONS[kind]]
        for relation in relations:
            if relation["kind"] == kind:
                lines += ["", *listed(db, relation)]
    return "\n".join(lines) + "\n"


def links(functions: list[dict[str, Any]], role: str) -> str:
    """Return the names of a role's functions as links."""
    return ", ".join(f"[{f['name']}](#{f['name']})" for f in functions if f["role"] == role)


def described(function: dict[str, Any]) -> list[str]:
    """Return a function's lines: signature, comment, example, refusals."""
    text, example, raises = parts(function["comment"])
    lines = [f"#### {function['name']}", "", "```sql", *signature(function), "```", "", plain(text)]
    if example:
        lines += ["", "```sql", f"{example};", "```"]
    if raises:
        lines += ["", f"Raises {raises}."]
    return lines


def parts(comment: str) -> tuple[str, str, str]:
    """Return a comment's text, its example and the codes it raises; the last two may be empty."""
    match = re.fullmatch(
        r"(.*?)(?:\s+Example:\s+(.*?)\.)?(?:\s+Raises\s+((?:PF\d{3}(?:,\s+)?)+)\.)?",
        comment,
        flags=re.DOTALL,
    )
    text, example, raises = match.groups("") if match else (comment, "", "")
    return text, example, raises


def signature(function: dict[str, Any]) -> list[str]:
    """Return the lines of a function's signature."""
    given = zip(function["names"], function["types"], function["defaults"], strict=True)
    arguments = [
        short(f"{name} {kind}") + ("" if default is None else f" default {bare(default)}")
        for name, kind, default in given
    ]
    result = short(function["result"]).replace("SETOF", "setof").replace("TABLE", "table")
    one_line = f"pgflow.{function['name']}({', '.join(arguments)}) returns {result}"
    if len(one_line) <= 100:
        return [one_line]
    lines = [f"    {a}," for a in arguments]
    last = lines.pop().rstrip(",")
    return [f"pgflow.{function['name']}(", *lines, last, f") returns {result}"]


def bare(default: str) -> str:
    """Return a default without the cast that its type says already."""
    return re.sub(r"::[\w \[\]]+$", "", default).replace("NULL", "null")


def short(text: str) -> str:
    """Return a type's usual name."""
    return text.replace("timestamp with time zone", "timestamptz")


def listed(db: Connection, relation: dict[str, Any]) -> list[str]:
    """Return the lines of a view, a type or a table."""
    columns = db.execute(COLUMNS, {"oid": relation["oid"]}).fetchall()
    lines = [f"### {relation['name']}", "", plain(relation["comment"])]
    if relation["kind"] == "r" and relation["readable"]:
        lines[-1] += " `pgflow_reader` may select from it."
    if any(c["comment"] for c in columns):
        rows = [(f"`{c['name']}`", short(c["type"]), plain(c["comment"])) for c in columns]
        lines += ["", table(("column", "type", "meaning"), rows)]
    else:
        lines += ["", ", ".join(f"`{c['name']}` {short(c['type'])}" for c in columns)]
    if relation["checks"]:
        lines += ["", "Checks: " + ", ".join(f"`{name}`" for name in relation["checks"]) + "."]
    return lines


if __name__ == "__main__":
    sys.exit(main())
