"""A scene executes runs, moves time, decides tasks and tells what happened."""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from pgflow import App, Client, Context, Retry, ThreadContext
from pgflow.errors import NotAllowed
from pgflow.testing import NoSuchTask, Scene, StillBusy

NOWHERE = "host=nowhere.invalid"
app = App(NOWHERE)
order: list[int] = []


@app.handler
async def publish(ctx: Context, article: dict[str, str]) -> str:
    words = await ctx.step("count", count, article["text"])
    verdict = await ctx.approval(
        "editor", title=article.get("title"), payload={"words": words}, assignee_role="pgf_editors"
    )
    return f"{words} words, {verdict.action}: {verdict.comment}"


def count(text: str) -> int:
    return len(text.split())


@app.handler(retry=Retry(max_attempts=3, base=timedelta(hours=1)))
async def flaky(ctx: Context) -> int:
    if ctx.attempt < 2:
        raise ValueError("not yet")
    return ctx.attempt


@app.handler(queue="odd")
async def first() -> str:
    return str(await app.enqueue(second, 2))


@app.handler
def second(number: int) -> None:
    order.append(number)
    if number == 2:
        app.sync.enqueue(second, 3)


@app.handler
async def hangs() -> None:
    await asyncio.sleep(60)


@app.handler
async def blocks() -> None:
    time.sleep(0.5)  # noqa: ASYNC251 - as somebody may who doesn't know better


@app.handler
def waits_in_a_thread(ctx: ThreadContext) -> None:
    while not ctx.cancelled:
        time.sleep(0.01)


@pytest.fixture
def scene(pgflow_scene: Scene) -> Scene:
    order.clear()
    return pgflow_scene.use(app)


# ---- executing


def test_what_is_ready_is_executed_until_it_waits_or_ends(scene: Scene) -> None:
    run_id = app.sync.enqueue("publish", {"text": "Postgres is enough"})
    assert scene.run(run_id)["state"] == "pending"
    scene.run_until_idle()
    assert scene.run(run_id)["state"] == "waiting_approval"
    assert scene.steps(run_id) == {"count": 3}
    scene.approve(comment="fine")
    scene.run_until_idle()
    assert scene.output(run_id) == "3 words, approved: fine"


def test_what_runs_lead_to_is_executed_as_well(scene: Scene) -> None:
    run_id = app.sync.enqueue(first)
    scene.run_until_idle()
    assert order == [2, 3]
    assert scene.run(scene.output(run_id))["handler"] == "second"


def test_runs_are_executed_one_after_the_other_in_the_order_of_their_coming(scene: Scene) -> None:
    app.sync.enqueue_many(second, list(range(10, 30)))
    scene.run_until_idle()
    assert order == list(range(10, 30))


def test_a_name_without_settings_goes_to_the_queue_of_its_handler(scene: Scene) -> None:
    assert scene.run(scene.client.enqueue("first"))["queue"] == "odd"


def test_no_worker_is_left_behind(scene: Scene) -> None:
    app.sync.enqueue(second, 1)
    scene.run_until_idle()
    assert {row["status"] for row in scene.client.worker_status()} == {"stopped"}
    assert [t.name for t in threading.enumerate() if t.name.startswith("pgflow scene")] == []


def test_what_is_paused_or_of_nobody_stays(scene: Scene) -> None:
    scene.client.enqueue("of_nobody", queue="elsewhere")
    scene.client.enqueue(second, 1)
    scene.client.pause_queue("default")
    scene.run_until_idle()
    assert [run["state"] for run in scene.client.runs()] == ["pending", "pending"]
    scene.client.resume_queue("default")
    scene.run_until_idle()
    assert order == [1]


def test_a_failed_run_raises_only_where_its_output_is_asked_for(scene: Scene) -> None:
    run_id = scene.client.enqueue("nobody_knows")
    scene.run_until_idle()
    with pytest.raises(AssertionError, match=r"nobody_knows .* is failed, not completed\nE-RUN-00"):
        scene.output(run_id)


def test_an_output_that_is_not_there_yet_tells_what_is_missing(scene: Scene) -> None:
    waits = scene.client.enqueue(publish, {"text": ""})
    failed = scene.client.enqueue(flaky)
    scene.run_until_idle()
    with pytest.raises(AssertionError, match=r"is waiting_approval, .*\nwaits for editor"):
        scene.output(waits)
    with pytest.raises(AssertionError, match=r"is scheduled, (.*\n)*.*ValueError: not yet"):
        scene.output(failed)


def test_a_hanging_handler_is_named_with_its_line_and_stopped(scene: Scene) -> None:
    run_id = scene.client.enqueue(hangs)
    with pytest.raises(StillBusy) as told:
        scene.run_until_idle(timeout=0.3)
    head, run, place, *_ = str(told.value).splitlines()
    assert (head, run) == ("not idle after 0.3 s:", f"  running hangs {run_id}")
    assert re.fullmatch(r"    at test_scene.py:\d+: await asyncio.sleep\(60\)", place)
    assert scene.timeline(run_id)[-1] == "run.released"


@pytest.mark.parametrize(
    ("handler", "line"),
    [("blocks", r"time\.sleep\(0\.5\)"), ("waits_in_a_thread", r"time\.sleep|while not")],
)
def test_so_is_one_that_blocks_the_loop_or_a_thread(scene: Scene, handler: str, line: str) -> None:
    scene.client.enqueue(handler)
    told = rf"  running {handler} .*\n    at test_scene.py:\d+: ({line})"
    with pytest.raises(StillBusy, match=told):
        scene.run_until_idle(timeout=0.25)


def test_the_async_form_works_in_the_loop_of_the_test(scene: Scene) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    inner = App()

    @inner.handler
    async def notes() -> None:
        loops.append(asyncio.get_running_loop())

    async def test() -> None:
        scene.use(inner)
        await inner.enqueue(notes)
        await scene.run_until_idle_async()
        assert loops == [asyncio.get_running_loop()]
        await inner.enqueue(notes)
        scene.run_until_idle()  # in a loop of its own, while this one waits
        assert len(set(loops)) == 2

    asyncio.run(test())


def test_the_async_form_names_who_hangs_too(scene: Scene) -> None:
    scene.client.enqueue(hangs)
    with pytest.raises(StillBusy, match=r"at test_scene.py:\d+: await asyncio"):
        asyncio.run(scene.run_until_idle_async(timeout=0.3))


def test_handlers_see_the_context_variables_of_the_test(scene: Scene) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    inner = App()

    @inner.handler
    async def tell() -> str:
        return variable.get()

    variable.set("set")
    scene.use(inner)
    run_id = inner.sync.enqueue(tell)
    scene.run_until_idle()
    assert scene.output(run_id) == "set"


# ---- the app


def test_an_app_is_given_its_own_database_back(pgflow_dsn: str) -> None:
    with Scene(pgflow_dsn, app):
        assert app.dsn == os.environ["PGFLOW_DSN"] == pgflow_dsn
        assert len(app.sync.runs()) == 0
    assert app.dsn == NOWHERE


def test_an_app_of_a_project_finds_it_made(scene: Scene) -> None:
    of_acme = App(project="acme")

    @of_acme.handler
    def greet() -> str:
        return "hello"

    scene.use(of_acme)
    run_id = of_acme.sync.enqueue(greet)
    scene.run_until_idle()
    assert scene.output(run_id) == "hello"
    assert scene.run(run_id)["project_id"] == "acme"


def test_a_scene_without_an_app_says_so(pgflow_scene: Scene) -> None:
    with pytest.raises(LookupError, match=r"call scene\.use\(app\)"):
        pgflow_scene.run_until_idle()
    run_id = pgflow_scene.client.enqueue(second, 4)
    pgflow_scene.run_until_idle(app)
    assert pgflow_scene.run(run_id)["state"] == "completed"


# ---- time


def test_time_stands_still_until_it_is_moved(scene: Scene) -> None:
    run_id = scene.client.enqueue(flaky)
    scene.run_until_idle()
    scene.run_until_idle()
    assert scene.run(run_id)["attempt_count"] == 1
    scene.time.advance(hours=1)
    scene.run_until_idle()
    assert scene.run(run_id)["attempt_count"] == 2
    scene.time.advance(hours=2)
    scene.run_until_idle()
    assert scene.output(run_id) == 2
    assert scene.run(run_id)["finished_at"] == scene.time.now


def test_connections_that_are_open_live_in_the_same_time(scene: Scene) -> None:
    with psycopg.connect(scene.dsn, autocommit=True) as conn:
        before = conn.execute("select pgflow.now()").fetchone()
        assert before == (scene.time.now,)
        later = scene.time.advance(timedelta(days=1), hours=1)
        assert conn.execute("select pgflow.now()").fetchone() == (later,)


def test_a_time_computed_by_the_code_under_test_comes(scene: Scene) -> None:
    at = datetime.now(UTC) + timedelta(hours=3)
    scene.client.enqueue(second, 1, run_at=at)
    scene.time.advance(hours=2)
    scene.run_until_idle()
    assert order == []
    scene.time.advance(hours=1)
    scene.run_until_idle()
    assert order == [1]


def test_a_time_that_was_set_is_counted_from(scene: Scene) -> None:
    new_year = datetime(2030, 1, 1, tzinfo=UTC)
    assert scene.time.set("2030-01-01T00:00:00Z") == new_year
    assert scene.time.advance(hours=1) == new_year + timedelta(hours=1) == scene.time.now
    assert scene.run(scene.client.enqueue(second, 1))["created_at"] == scene.time.now


def test_a_moved_time_is_refused_where_it_makes_no_sense(scene: Scene) -> None:
    with pytest.raises(ValueError, match="not back by 1:00:00"):
        scene.time.advance(hours=-1)
    with pytest.raises(ValueError, match="has no time zone"):
        scene.time.set("2030-01-01")


def test_deadlines_pass(scene: Scene) -> None:
    deadline = scene.time.now + timedelta(minutes=5)
    run_id = scene.client.enqueue(publish, {"text": ""}, deadline=deadline)
    scene.run_until_idle()
    scene.time.advance(minutes=5)
    scene.run_until_idle()
    scene.assert_timeline(run_id, [..., "run.waiting", "run.timed_out E-RUN-003"])


def test_a_handler_may_move_time_itself(scene: Scene) -> None:
    inner = App()

    @inner.handler
    def sleeps() -> None:
        scene.time.advance(hours=5)

    scene.use(inner)
    run_id = inner.sync.enqueue(sleeps)
    scene.run_until_idle()
    assert scene.run(run_id)["finished_at"] - scene.run(run_id)["created_at"] > timedelta(hours=4)


# ---- people


def test_a_task_is_named_by_its_key_its_title_or_its_id(scene: Scene) -> None:
    for number in range(3):
        scene.client.enqueue(publish, {"text": "x", "title": f"Publish {number}?"})
    scene.run_until_idle()
    tasks = scene.tasks()
    assert [task.title for task in tasks] == [f"Publish {n}?" for n in range(3)]
    assert tasks[0].payload == {"words": 1}
    scene.approve("Publish 1?", decision={"page": 1})
    scene.reject(tasks[0].task_id, comment="dull")
    decision = scene.approve("editor")
    assert decision.run_id == tasks[2].run_id
    assert scene.run(tasks[0].run_id)["state"] == "cancelled"


def test_a_task_that_is_not_there_or_not_alone_is_refused_with_a_list(scene: Scene) -> None:
    with pytest.raises(NoSuchTask, match=r"no open task; open are: none\. Did it run"):
        scene.approve()
    runs = [scene.client.enqueue(publish, {"text": "x"}) for _ in range(2)]
    scene.run_until_idle()
    listed = "".join(
        rf"\n  'editor': 'Approve editor of publish' for pgf_editors, of publish {run}"
        for run in runs
    )
    with pytest.raises(NoSuchTask, match=f"no open task 'boss'; open are:{listed}$"):
        scene.approve("boss")
    with pytest.raises(NoSuchTask, match=f"2 times open task 'editor'; say which.*:{listed}$"):
        scene.reject("editor")
    assert scene.approve("editor", run=runs[1]).run_id == runs[1]


def test_people_decide_as_the_roles_that_they_have(scene: Scene) -> None:
    scene.client.enqueue(publish, {"text": "x"})
    scene.run_until_idle()
    scene.person("pgf_alice", "pgf_editors")
    with pytest.raises(NotAllowed, match="pgf_bob may not decide"):
        scene.approve(by=scene.person("pgf_bob"))
    with pytest.raises(LookupError, match=r"no database role 'pgf_eve'; make one: scene\.person"):
        scene.approve(by="pgf_eve")
    assert scene.reject(by="pgf_alice").decided_by == "pgf_alice"
    assert scene.client.runs()[0]["ended_by"] == "pgf_alice"


def test_people_leave_with_the_test(pgflow_dsn: str) -> None:
    with Scene(pgflow_dsn) as scene:
        scene.person("pgf_guest", "pgf_guests")
        scene.person("pgf_guest", "pgf_guests_of_honour")
    with psycopg.connect(pgflow_dsn) as conn:
        found = conn.execute("select from pg_roles where rolname like 'pgf\\_guest%'").fetchall()
    assert found == []


# ---- timelines


def test_a_timeline_is_compared_by_types_or_with_details(scene: Scene) -> None:
    run_id = scene.client.enqueue(publish, {"text": "x"})
    scene.run_until_idle()
    scene.assert_timeline(
        run_id,
        [
            "run.created",
            "run.started",
            "step.completed count",
            "task.requested editor",
            "run.waiting",
        ],
    )
    scene.assert_timeline(run_id, ["run.created", ..., "step.completed", ...])


def test_differences_of_timelines_are_shown_line_by_line(scene: Scene) -> None:
    run_id = scene.client.enqueue(publish, {"text": "x"})
    scene.run_until_idle()
    with pytest.raises(AssertionError) as told:
        scene.assert_timeline(
            run_id, ["run.created", "step.completed", "step.completed sum", ..., "run.waiting"]
        )
    assert str(told.value).splitlines() == [
        f"timeline of publish {run_id}: - expected, + happened",
        "  run.created",
        "+ run.started",
        "  step.completed",
        "+ task.requested editor",
        "- step.completed sum",
        "  ...",
        "  run.waiting",
    ]


def test_a_run_that_is_not_there_is_not_found(scene: Scene) -> None:
    with pytest.raises(LookupError, match="there is no run 0"):
        scene.run(UUID(int=0))


def test_other_clients_of_the_database_see_the_same(scene: Scene) -> None:
    with Client(scene.dsn) as client:
        run_id = client.enqueue(second, 9)
        scene.run_until_idle()
        assert client.runs(run_id=run_id)[0]["state"] == "completed"
