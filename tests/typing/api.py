"""The public API as its users write it, for mypy alone: nothing here is run.

A line that must be refused has `# type: ignore[code]`; mypy reports those that it would not refuse.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

import psycopg
from pydantic import BaseModel

from pgflow import (
    App,
    Approval,
    Artifact,
    ArtifactContent,
    AsyncClient,
    Client,
    Context,
    Flow,
    Repair,
    Retry,
    Step,
    ThreadContext,
    Worker,
)
from pgflow.definition import FlowVersion
from pgflow.models import Decision, Event


class Article(BaseModel):
    title: str


class Draft(BaseModel):
    words: int


app = App("postgresql://localhost/shop", project="acme", version="1.4")


async def write(article: Article, *, length: int = 100) -> Draft:
    return Draft(words=length + len(article.title))


def count(text: str) -> int:
    return len(text.split())


# ---- handlers


@app.handler
async def publish(ctx: Context, article: Article) -> str:
    draft = await ctx.step("write", write, article, length=500)
    assert_type(draft, Draft)
    assert_type(await ctx.step("count", count, article.title), int)
    verdict = await ctx.approval("editor", payload=draft, due_in=timedelta(days=1))
    assert_type(verdict, Approval)
    assert_type(verdict.approved, bool)
    assert_type(await ctx.emit("progress", {"pct": 80}, key="80"), Event)
    assert_type(await ctx.add_step(Step(name="more"), needed_by=["end"]), bool)
    assert_type((ctx.run_id, ctx.attempt, ctx.cancelled), tuple[str, int, bool])
    ctx.usage(cost_usd=0.02)
    assert_type(await ctx.artifact("article", article, schema=Article), Artifact)
    assert_type(ctx.repair, Repair | None)
    assert_type(await ctx.previous_artifact(), ArtifactContent | None)

    await ctx.step("write", write, "a title")  # type: ignore[arg-type]
    await ctx.step("write", write)  # type: ignore[arg-type, call-arg]
    await ctx.step("write", write, article, pages=3)  # type: ignore[call-arg]
    await ctx.step("write")  # type: ignore[call-overload]
    await ctx.artifact("article", article, kind="input")  # type: ignore[arg-type]
    await ctx.approval("editor", policy="never")  # type: ignore[arg-type]
    await ctx.approval("editor", due_in=60)  # type: ignore[arg-type]
    verdict.approved = True  # type: ignore[misc]
    return f"{draft.words} words"


def forget(words: int) -> None:
    """Undo a count."""


def unwrite(draft: Draft) -> None:
    """Undo a draft."""


async def store(conn: psycopg.AsyncConnection[Any], title: str) -> int:
    await conn.execute("select %s", [title])
    return 1


@app.handler
async def waits(ctx: Context, article: Article) -> None:
    assert_type(await ctx.step("count", count, "a b", undo=forget), int)
    assert_type(await ctx.step("count", count, "a b", key="count"), int)
    assert_type(await ctx.transact("store", store, article.title), int)
    assert_type(await ctx.input("title", str), str)
    assert_type((await ctx.form("article", Article)).data, Article)
    assert_type(await ctx.run(publish, article), str)
    assert_type(await ctx.run(send_email, "a@b.c", priority=3), int)
    assert_type(await ctx.run("publish", article), Any)
    assert_type(
        await ctx.gather(ctx.run(send_email, "x"), ctx.input("n", str), ctx.sleep(1)),
        tuple[int, str, None],
    )
    won = await ctx.first(ctx.run(send_email, "x"), ctx.input("n", int))
    assert_type((won.branch, won.value), tuple[int, int])
    assert_type(await ctx.wait_for("paid", timeout=60), Any)
    assert_type(await ctx.patched("new"), bool)
    assert_type((await ctx.now(), await ctx.random()), tuple[datetime, float])
    async with ctx.transaction() as conn:
        assert_type(conn, psycopg.AsyncConnection[Any])

    await ctx.step("count", count, "a b", undo=unwrite)  # type: ignore[arg-type, call-arg]
    await ctx.transact("store", store)  # type: ignore[arg-type, call-arg]
    await ctx.run(send_email, "x", urgent=True)  # type: ignore[call-overload]


@app.handler(queue="mail", retry=Retry(max_attempts=5), timeout=timedelta(minutes=5))
def send_email(ctx: ThreadContext, to: str) -> int:
    assert_type(ctx.step("count", count, to), int)
    assert_type(ctx.step("write", write, Article(title=to)), Draft)
    ctx.step("count", count, 7)  # type: ignore[arg-type]
    return 1


assert_type(send_email.name, str)
assert_type(send_email.max_attempts, int | None)


def called_as_a_function(ctx: ThreadContext) -> None:
    assert_type(send_email(ctx, "a@b.c"), int)
    send_email(ctx, 7)  # type: ignore[arg-type]
    send_email("a@b.c")  # type: ignore[call-arg, arg-type]


app.handler(retry=3)  # type: ignore[call-overload]
app.handler(queue="mail", timeout=60)  # type: ignore[call-overload]

# ---- clients


async def from_async_code(client: AsyncClient) -> None:
    assert_type(await client.enqueue(publish, Article(title="Postgres")), UUID)
    assert_type(await client.enqueue("publish", {"title": "Postgres"}), UUID)
    assert_type(await client.enqueue_many(publish, [{"title": "One"}]), list[UUID])
    assert_type(await client.approve(UUID(int=1), "fine", {"stars": 5}), Decision)
    run_id: UUID = client.enqueue(publish)  # type: ignore[assignment]
    await client.enqueue(write)  # type: ignore[arg-type]
    await client.enqueue(publish, run_at="tomorrow")  # type: ignore[arg-type]
    await client.enqueue(publish, {}, "mail")  # type: ignore[call-arg]
    assert_type(await app.cancel(run_id), str)


def from_plain_code(client: Client) -> None:
    run_id = client.enqueue(
        publish,
        Article(title="Postgres"),
        priority=3,
        run_at=datetime.now(UTC),
        deadline=datetime.now(UTC) + timedelta(days=1),
        idempotency_key="order-7",
        tags=["blog"],
    )
    assert_type(run_id, UUID)
    assert_type(client.pause(run_id, "budget"), str)
    assert_type(client.resume(run_id), str)
    assert_type(client.retry(str(run_id)), UUID)
    assert_type(client.emit(run_id, "note"), Event)
    assert_type(client.add_step(run_id, {"name": "more"}), bool)
    assert_type(client.reject(run_id, "no"), Decision)
    assert_type(client.pause_queue("mail"), datetime)
    assert_type(client.resume_queue("mail"), bool)
    assert_type(client.runs(state="failed"), list[dict[str, Any]])
    client.define_queue("mail", max_concurrent=5, lease_ttl=timedelta(seconds=30))
    client.define_queue("mail", lease_ttl=30)  # type: ignore[arg-type]
    client.enqueue(publish, priority="high")  # type: ignore[arg-type]
    client.enqueue(publish, prio=3)  # type: ignore[call-arg]
    client.cancel(7)  # type: ignore[arg-type]
    client.complete([run_id])  # type: ignore[attr-defined]


def in_a_transaction_of_ones_own(conn: psycopg.Connection[Any]) -> None:
    assert_type(Client(conn).enqueue(send_email, "a@b.c"), UUID)
    AsyncClient(conn)  # type: ignore[arg-type]


async def as_a_context() -> None:
    with Client("postgresql://localhost/shop") as client:
        assert_type(client, Client)
    async with app as same:
        assert_type(same, App)
    assert_type(app.sync, Client)
    Worker(app, app.dsn, queues=["mail"], concurrency=10)
    Worker(app, app.dsn, concurrency="many")  # type: ignore[arg-type]


async def flows(client: AsyncClient, sync: Client) -> None:
    flow = Flow(name="review", steps=[Step(name="draft"), Step(name="publish", needs=["draft"])])
    assert_type(await client.define_flow(flow), FlowVersion)
    assert_type(await client.start(flow, {"title": "Postgres"}, version=1), UUID)
    assert_type(sync.start("review"), UUID)
    assert_type(sync.flow_steps("01a1"), list[dict[str, Any]])
    Step(name="draft", join="most")  # type: ignore[arg-type]
    Step(name="draft", type=7)  # type: ignore[arg-type]
    Step("draft")  # type: ignore[call-arg]
    sync.start(7)  # type: ignore[arg-type]
