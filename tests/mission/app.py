"""What the worker daemons of the mission tests execute: small handlers that do what a test asks.

pgflow worker --app tests.mission.app:app
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from pgflow import App, Context, NonRetryable, Retry, Step, ThreadContext

app = App()
SOON = Retry(base=timedelta(milliseconds=10))


async def there(file: Path) -> None:
    """Wait for a file, by which a test in another process says: go on."""
    while not file.exists():  # noqa: ASYNC110, ASYNC240 - its sign is a file
        await asyncio.sleep(0.01)


@app.handler
async def echo(value: Any) -> Any:
    """Return the input: of a step, the outputs of those that it needs."""
    return value


@app.handler
async def told(ctx: Context) -> Any:
    """Return what the definition of the step says."""
    return ctx.step_config["value"]


@app.handler
async def bound(ctx: Context) -> Any:
    """Return the agent that the run is bound to."""
    assert ctx.binding is not None
    return asdict(ctx.binding)


@app.handler
async def planning(ctx: Context) -> int:
    """Add a step for each part that its config names, all of them needed by `end`."""
    parts = ctx.step_config["parts"]
    for n in parts:
        part = Step(name=f"part-{n}", handler="told", config={"value": n})
        await ctx.add_step(part, needed_by=["end"])
    return len(parts)


@app.handler
async def held(ctx: Context, where: Any) -> int:
    """Run until the file that it is given, or that its step names, is there."""
    file = Path(ctx.step_config.get("where") or where)
    file.with_suffix(".begun").touch()
    await there(file)
    return ctx.lease_no


@app.handler
async def costly(ctx: Context, where: str) -> str:
    """Do two steps and spend something, then run until a file is there."""
    await ctx.step("draft", str.upper, "draft")
    await ctx.step("title", str.upper, "title")
    ctx.usage(model="m-1", cost_usd=0.25)
    await there(Path(where))
    return "done"


@app.handler(retry=SOON)
async def flaky(ctx: Context, failures: int) -> int:
    """Fail so many times."""
    if ctx.attempt < failures:
        raise ValueError(f"failure {ctx.attempt + 1}")
    return ctx.attempt


@app.handler(retry=Retry(max_attempts=1))
async def broken(value: Any) -> None:
    """Fail, once and for all."""
    raise NonRetryable(f"cannot do {value}")


@app.handler(retry=Retry(max_attempts=1))
async def ill(how: str) -> Any:
    """End as no handler should."""
    if how == "exits":
        raise SystemExit(3)
    if how == "recurses":
        return await ill(how)
    if how == "times out":
        raise TimeoutError
    return {"no": object()} if how == "no json" else "\x00"


@app.handler(retry=SOON)
async def leaves(ctx: Context) -> dict[str, Any]:
    """Leave behind what the step says: a content for each repair, "late" takes its time."""
    contents = ctx.step_config["contents"]
    content = contents[0 if ctx.repair is None else ctx.repair.attempt]
    if ctx.step_config.get("fails") and ctx.attempt == 0:
        await ctx.artifact("draft", {"title": "of a failure"})
        raise ValueError("it fails")
    if content == "late":
        await asyncio.sleep(60)
    if content is not None:
        await ctx.artifact("draft", content)
    previous = await ctx.previous_artifact()
    return {
        "expected": ctx.expected_artifact,
        "instructions": ctx.instructions,
        "repair": ctx.repair,
        "previous": None if previous is None else previous.content,
    }


@app.handler
async def asks(ctx: Context, how: dict[str, Any]) -> dict[str, Any]:
    """Have a person decide; spans are in seconds."""
    if "due_in" in how:
        how = {**how, "due_in": timedelta(seconds=how["due_in"])}
    draft = await ctx.step("draft", str.upper, "draft")
    verdict = await ctx.approval("editor", payload={"draft": draft}, **how)
    return {"action": verdict.action, "comment": verdict.comment, "by": verdict.decided_by}


@app.handler
async def asks_twice(ctx: Context) -> list[str]:
    """Ask two people the same, between two steps."""
    words = [await ctx.step("one", str.upper, "one")]
    words += [(await ctx.approval(who, payload={})).action for who in ("legal", "editor")]
    return [*words, await ctx.step("two", str.upper, "two")]


@app.handler
async def fills_in(ctx: Context) -> Any:
    """Ask for a number."""
    return await ctx.input("stars", {"type": "integer", "maximum": 5})


@app.handler
async def tooled(ctx: Context, arguments: dict[str, Any]) -> Any:
    """Have something done elsewhere."""
    return await ctx.tool("transcode", arguments)


@app.handler
async def awaits(ctx: Context, name: str) -> Any:
    """Wait for a signal."""
    return await ctx.wait_for(name)


@app.handler
async def parent(ctx: Context, value: Any) -> Any:
    """Have a child do it."""
    return await ctx.run(echo, value)


@app.handler
async def interrupted(ctx: Context) -> list[Any]:
    """Stop twice, one after the other."""
    return [await ctx.interrupt({"n": 1}), await ctx.interrupt({"n": 2})]


@app.handler
async def interrupted_about(ctx: Context) -> list[Any]:
    """Show a draft and stop."""
    draft = await ctx.step("draft", str.upper, "draft")
    return [draft, await ctx.interrupt({"draft": draft})]


@app.handler
async def interrupted_at_once(ctx: Context) -> list[Any]:
    """Stop in two branches."""
    return list(await ctx.gather(ctx.interrupt("a", key="a"), ctx.interrupt("b", key="b")))


@app.handler
async def stepwise(ctx: Context, words: list[str]) -> list[str]:
    """Do a step for each word, once the signal `go` has come."""
    await ctx.wait_for("go")
    return [await ctx.step(word, str.upper, word) for word in words]


@app.handler
async def together(ctx: Context) -> list[str]:
    """Do two steps at the same time, once the signal `go` has come."""
    await ctx.wait_for("go")
    steps = (ctx.step(word, str.upper, word) for word in ("left", "right"))
    return list(await ctx.gather(*steps))


@app.handler
async def spends(ctx: Context) -> str:
    """Call a model twice; the first call fails."""

    async def call() -> str:
        ctx.usage(
            model="m-1",
            actor="writer 2",
            role="author",
            thread_id="t-1",
            turn_index=1,
            input_tokens=900,
            cost_usd=0.009,
            error_code="overloaded",
            latency_ms=30,
            request_id="req-1",
        )
        ctx.usage(
            model="m-1",
            input_tokens=900,
            output_tokens=80,
            cached_tokens=700,
            reasoning_tokens=20,
            cost_usd_input=0.009,
            cost_usd_output=0.004,
        )
        return "drafted"

    return await ctx.step("draft", call)


@app.handler
async def summarises(ctx: Context, calls: list[str]) -> list[float | None]:
    """Call these models, a thousand tokens each; tell what was left to spend after each call."""
    left: list[float | None] = []
    for model in calls:

        def call(model: str = model) -> None:
            ctx.usage(model=model, input_tokens=1000, output_tokens=0)

        await ctx.step("call", call)
        left.append(ctx.budget.usd)
    return left


@app.handler(retry=SOON)
async def writes(ctx: Context) -> dict[str, Any]:
    """Write what the definition of the step says, and tell what it sees of the state."""
    for channel, value in ctx.step_config.get("writes", []):
        ctx.write(channel, value)
    if ctx.attempt < ctx.step_config.get("failures", 0):
        raise ValueError("after it has written")
    return {name: ctx.state[name] for name in ctx.step_config.get("reads", [])}


@app.handler
async def knows(ctx: Context) -> dict[str, Any]:
    """Tell what the context knows."""
    told = "project run_id flow_run_id flow flow_version step_config version attempt lease_no"
    more = "inputs flow_input correlation_id tags thread_id feedback"
    known = {name: getattr(ctx, name) for name in f"{told} {more}".split()}
    known["budget"] = ctx.budget.usd
    return {**known, "step": ctx.step_name, "deadline": ctx.deadline and ctx.deadline.isoformat()}


@app.handler
def knows_nothing() -> str:
    """Take neither context nor input."""
    return "nothing"


@app.handler
def drafts(ctx: ThreadContext) -> dict[str, Any]:
    """Draft, as whoever rejected the last draft wants it."""
    wish = ctx.feedback and ctx.feedback["comment"]
    return {"version": ctx.version, "wish": wish, "inputs": ctx.inputs}


@app.handler(queue="narrow")
async def narrow(ctx: Context, where: Any) -> int:
    """As `held`, in a queue that lets one run at a time; without a file, ask a person."""
    if where:
        await there(Path(where))
    else:
        await ctx.approval("ok")
    return ctx.lease_no
