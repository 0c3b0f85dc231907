"""What a handler can do wrong, and what its run says about it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgflow import Context, NonRetryable, Retry, ThreadContext

if TYPE_CHECKING:
    from tests.worker.conftest import Logs, Stage

ONCE = Retry(max_attempts=1)


def test_a_handler_that_raises_is_done_again_after_a_backoff_and_then_fails(stage: Stage) -> None:
    base = timedelta(milliseconds=40)

    @stage.app.handler(retry=Retry(max_attempts=3, base=base, factor=3))
    async def breaks() -> None:
        raise ValueError("no such pen")

    with stage.worker():
        run = stage.ends(stage.client.enqueue(breaks))
    assert (run["state"], run["error_code"], run["attempt_count"]) == ("failed", "E-RUN-001", 3)
    assert run["error_detail"] == "ValueError: no such pen"
    assert run["last_error"]["type"] == "ValueError"
    assert run["last_error"]["message"] == "no such pen"
    assert "in breaks\n    raise ValueError" in run["last_error"]["traceback"]
    retries = stage.db.execute(
        "select (payload ->> 'run_at')::timestamptz - at from pgflow.timeline"
        " where run_id = %s and type = 'run.retried' order by event_no",
        [run["run_id"]],
    ).fetchall()
    assert len(retries) == 2
    for (delay,), longest in zip(retries, (base, base * 3), strict=True):
        assert longest / 2 <= delay <= longest


def test_a_handler_that_says_so_fails_for_good(stage: Stage) -> None:
    class SoldOut(NonRetryable):
        pass

    @stage.app.handler(retry=Retry(max_attempts=3))
    async def books() -> None:
        raise SoldOut("no seats")

    with stage.worker():
        run = stage.ends(stage.client.enqueue(books))
    assert (run["state"], run["error_code"], run["attempt_count"]) == ("failed", "E-RUN-001", 1)
    assert run["error_detail"] == "SoldOut: no seats"


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_an_attempt_that_succeeds_completes_the_run(stage: Stage, kind: str) -> None:
    @stage.app.handler(name="async", retry=Retry(base=timedelta(milliseconds=1)))
    async def at_second(ctx: Context) -> int:
        return ctx.attempt if ctx.attempt == 2 else 1 // 0

    @stage.app.handler(name="plain", retry=Retry(base=timedelta(milliseconds=1)))
    def plain_at_second(ctx: ThreadContext) -> int:
        return ctx.attempt if ctx.attempt == 2 else 1 // 0

    with stage.worker():
        assert stage.output(stage.client.enqueue(kind)) == 2


def test_a_long_message_and_a_deep_traceback_are_cut(stage: Stage) -> None:
    @stage.app.handler(retry=ONCE)
    async def screams() -> None:
        def deeper(depth: int) -> None:
            if depth:
                deeper(depth - 1)
            raise ValueError("A" * 1_000_000)

        deeper(300)

    with stage.worker():
        run = stage.ends(stage.client.enqueue(screams))
    assert run["error_code"] == "E-RUN-001"
    assert run["error_detail"].startswith("ValueError: AAA")
    assert len(run["error_detail"]) <= 8000
    assert len(run["last_error"]["message"]) <= 8000
    assert len(run["last_error"]["traceback"]) <= 20000


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class GroupOfAll(BaseException):
    """Not an Exception."""


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(),
        StopAsyncIteration(),
        GroupOfAll("x"),
        RecursionError(),
        MemoryError(),
        UnprintableError(),
        ExceptionGroup("several", [ValueError("a"), TypeError("b")]),
        TimeoutError("of its own"),
        ValueError("a \0 and a \ud800"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("how", ["async", "plain", "step", "plain_step", "plain_async_step"])
def test_whatever_a_handler_raises_the_worker_goes_on(
    stage: Stage, how: str, error: BaseException
) -> None:
    async def raises() -> None:
        raise error

    def raises_plainly() -> None:
        raise error

    @stage.app.handler(name="async", retry=ONCE, timeout=timedelta(hours=1))
    async def one() -> None:
        raise error

    @stage.app.handler(name="plain", retry=ONCE)
    def two() -> None:
        raise error

    @stage.app.handler(name="step", retry=ONCE)
    async def three(ctx: Context) -> None:
        await ctx.step("x", raises_plainly)

    @stage.app.handler(name="plain_step", retry=ONCE)
    def four(ctx: ThreadContext) -> None:
        ctx.step("x", raises_plainly)

    @stage.app.handler(name="plain_async_step", retry=ONCE)
    def five(ctx: ThreadContext) -> None:
        ctx.step("x", raises)

    @stage.app.handler
    async def fine() -> str:
        return "fine"

    with stage.worker() as running:
        run = stage.ends(stage.client.enqueue(how))
        assert stage.output(stage.client.enqueue(fine)) == "fine"
        assert running.is_alive()
    assert (run["state"], run["error_code"]) == ("failed", "E-RUN-001")


def surrogate() -> str:
    return "half \ud800"


def nothing_of_json() -> object:
    return threading.Lock()


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def circular() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def generator() -> Iterator[int]:
    yield 1
    raise ValueError("in the middle")


def not_a_number() -> list[float]:
    return [1.0, float("nan")]


def infinite() -> float:
    return float("inf")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (surrogate, "utf-8|surrogate"),
        (nothing_of_json, "lock"),
        (deep, "(?i)circular|depth|recursion"),
        (circular, "(?i)circular"),
        (not_a_number, "(?i)nan"),
        (infinite, "(?i)inf"),
    ],
)
@pytest.mark.parametrize("where", ["returned", "step"])
def test_a_result_that_is_not_json_fails_the_run_and_says_what(
    stage: Stage, value: Callable[[], Any], says: str, where: str
) -> None:
    @stage.app.handler
    async def returned() -> Any:
        return value()

    @stage.app.handler
    async def step(ctx: Context) -> None:
        async def made() -> Any:
            return value()

        await ctx.step("make", made)

    with stage.worker():
        run = stage.ends(stage.client.enqueue(where))
    assert (run["state"], run["error_code"], run["attempt_count"]) == ("failed", "E-RUN-001", 1)
    what = {"returned": "what the handler returned", "step": "the result of step make"}[where]
    assert run["error_detail"].startswith(f"NotJson: {what} is not JSON")
    assert re.search(says, run["error_detail"])


def test_a_result_that_the_database_cannot_store_fails_the_run_without_a_retry(
    stage: Stage,
) -> None:
    @stage.app.handler
    async def returns(kind: str) -> str:
        return "\0" if kind == "nul" else "x" * 9_000_000

    @stage.app.handler
    async def steps(ctx: Context, kind: str) -> None:
        await ctx.step("make", returns, kind)

    with stage.worker():
        for handler in (returns, steps):
            for kind in ("nul", "long"):
                run = stage.ends(stage.client.enqueue(handler, kind))
                assert (run["state"], run["error_code"]) == ("failed", "E-RUN-017")
                assert run["attempt_count"] == 1


def test_one_bad_result_among_many_fails_alone(stage: Stage) -> None:
    together = Together(200)

    @stage.app.handler(retry=ONCE)
    async def returns(n: int) -> str:
        await together.wait()
        return "\0" if n == 100 else str(n)

    runs = stage.client.enqueue_many(returns, list(range(200)))
    with stage.worker(concurrency=200):
        stage.all_end(200)
    states = [stage.run(run_id)["state"] for run_id in runs]
    assert states == ["completed"] * 100 + ["failed"] + ["completed"] * 99


class Together:
    """Lets all who wait go on when the last one has come."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._all = asyncio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._all.set()
        await self._all.wait()


@pytest.mark.parametrize("poison", ["\0", "\ud800"], ids=["nul", "surrogate"])
@pytest.mark.parametrize("where", ["step", "approval", "title", "emit", "emit_key"])
def test_a_name_that_cannot_be_stored_fails_its_run_alone(
    stage: Stage, where: str, poison: str
) -> None:
    together = Together(20)

    @stage.app.handler(retry=ONCE)
    async def asks(ctx: Context, n: int) -> int:
        text = poison if n == 10 else "plain"
        await together.wait()
        if where == "step":
            await ctx.step(text, asyncio.sleep, 0)
        elif where == "emit":
            await ctx.emit(text)
        elif where == "emit_key":
            await ctx.emit("x", key=text)
        elif n == 10:
            await ctx.approval(text if where == "approval" else "x", title=text)
        return n

    runs = stage.client.enqueue_many(asks, list(range(20)))
    with stage.worker():
        stage.all_end(20)
    states = [stage.run(run_id)["state"] for run_id in runs]
    assert states == ["completed"] * 10 + ["failed"] + ["completed"] * 9
    code = {"step": "E-RUN-017"}.get(where, "E-RUN-001")
    if poison == "\0" and where in {"approval", "title"}:
        code = "E-RUN-017"
    assert stage.run(runs[10])["error_code"] == code


@pytest.mark.parametrize(
    "asked",
    [
        {"title": "x" * 501},
        {"key": "x" * 501},
        {"payload": "x" * 1_100_000},
        {"due_in": timedelta(days=36500)},
        {"due_in": timedelta()},
        {"policy": "shrug"},
    ],
    ids=lambda asked: str(asked)[:30],
)
def test_an_approval_that_cannot_be_asked_for_fails_the_run(
    stage: Stage, asked: dict[str, Any]
) -> None:
    @stage.app.handler(retry=ONCE)
    async def asks(ctx: Context) -> None:
        await ctx.approval(**{"key": "x", **asked})

    with stage.worker():
        run = stage.ends(stage.client.enqueue(asks))
    assert (run["state"], run["error_code"], run["attempt_count"]) == ("failed", "E-RUN-001", 1)
    assert run["error_detail"]


@pytest.mark.parametrize("kind", ["waits", "spins", "plain"])
def test_an_execution_that_takes_too_long_is_ended(stage: Stage, kind: str) -> None:
    ended = threading.Event()

    @stage.app.handler(timeout=timedelta(milliseconds=50), retry=ONCE)
    async def waits() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    @stage.app.handler(timeout=timedelta(milliseconds=50), retry=ONCE)
    async def spins(ctx: Context) -> None:
        def spin() -> None:
            while not ctx.cancelled:
                pass
            ended.set()

        await ctx.step("spin", spin)

    @stage.app.handler(timeout=timedelta(milliseconds=50), retry=ONCE)
    def plain(ctx: ThreadContext) -> None:
        while not ctx.cancelled:
            pass
        ended.set()

    with stage.worker():
        run = stage.ends(stage.client.enqueue(kind))
        assert ended.wait(30)
    assert (run["state"], run["error_code"], run["attempt_count"]) == ("failed", "E-RUN-003", 1)
    assert "0.05 s" in run["error_detail"]


def test_an_execution_that_took_too_long_is_done_again(stage: Stage) -> None:
    @stage.app.handler(
        timeout=timedelta(milliseconds=50), retry=Retry(base=timedelta(milliseconds=1))
    )
    async def slow_at_first(ctx: Context) -> int:
        if ctx.attempt == 0:
            await asyncio.sleep(3600)
        return ctx.attempt

    with stage.worker():
        assert stage.output(stage.client.enqueue(slow_at_first)) == 1


def test_a_timeout_of_the_run_comes_before_that_of_the_handler(stage: Stage) -> None:
    @stage.app.handler(timeout=timedelta(hours=1), retry=ONCE)
    async def waits() -> None:
        await asyncio.sleep(3600)

    with stage.worker():
        run = stage.ends(stage.client.enqueue(waits, timeout=timedelta(milliseconds=20)))
    assert run["error_code"] == "E-RUN-003"


def test_a_plain_function_that_overstays_its_timeout_keeps_its_place(
    stage: Stage, logs: Logs
) -> None:
    release = threading.Event()
    inside: list[int] = []

    @stage.app.handler(timeout=timedelta(milliseconds=20), retry=ONCE)
    def stays(n: int) -> None:
        inside.append(n)
        release.wait(30)

    @stage.app.handler(retry=ONCE, timeout=timedelta(milliseconds=200))
    def quick(n: int) -> int:
        inside.append(n)
        return n

    with stage.worker(concurrency=1):
        first = stage.ends(stage.client.enqueue(stays, 1))
        second = stage.client.enqueue(quick, 2)
        assert first["error_code"] == "E-RUN-003"
        stage.logged(logs, "function_overstays")
        assert (inside, stage.run(second)["lease_no"]) == ([1], 0)
        release.set()
        assert stage.output(second) == 2


@pytest.mark.parametrize(
    "poison", ["[" * 3000 + "]" * 3000, "1" + "0" * 5000], ids=["deep", "long"]
)
def test_an_input_that_python_cannot_read_fails_its_run_alone(stage: Stage, poison: str) -> None:
    @stage.app.handler(retry=ONCE)
    async def fine(given: Any) -> Any:
        return given

    enqueue = "select pgflow.enqueue('fine', %s)"
    first = stage.one(enqueue, '{"text": "a, {\\"run_id\\" : 1", "run_id" : 2}')
    second = stage.one(enqueue, poison)
    third = stage.one(enqueue, "1e400")
    with stage.worker():
        stage.all_end(3)
    assert stage.output(first) == {"text": 'a, {"run_id" : 1', "run_id": 2}
    assert stage.output(third) == 10**400
    run = stage.db.execute(
        "select state, error_code, attempt, error_detail from pgflow.run_finished"
        " where run_id = %s",
        [second],
    ).fetchone()
    assert run is not None
    assert run[:3] == ("failed", "E-RUN-005", 1)
    assert "cannot be read" in run[3]
