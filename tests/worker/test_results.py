"""Waiting for a run: its result and its lines, sync and async, hinted and not."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest

from pgflow import (
    App,
    AsyncClient,
    Client,
    Context,
    Event,
    Paused,
    Result,
    ResultTimeout,
    RunNotCompleted,
    protocol,
)
from pgflow._ear import Ear, end_of
from pgflow._listener import Listener
from pgflow.embedded import EmbeddedServer
from pgflow.errors import BadRequest, PgflowError, ServerUnreachable, UnknownRun
from pgflow.schema import migrate
from tests.worker.conftest import Stage, until

if TYPE_CHECKING:
    from tests.worker.conftest import Logs

T = TypeVar("T")
NOWHERE = "host=127.0.0.1 port=1 dbname=x"


class Twin(Protocol):
    """A client that is called from a thread, whichever of the two it is."""

    client: Any

    def result(self, run_id: Any, **how: Any) -> Result: ...
    def stream(self, run_id: Any, **how: Any) -> Iterator[Event]: ...
    def disconnect(self) -> None: ...
    def close(self) -> None: ...


class SyncTwin:
    def __init__(self, where: Any, **how: Any) -> None:
        self.client = Client(where, **how)

    def result(self, run_id: Any, **how: Any) -> Result:
        return self.client.result(run_id, **how)

    def stream(self, run_id: Any, **how: Any) -> Iterator[Event]:
        return self.client.stream(run_id, **how)

    def disconnect(self) -> None:
        self.client.close()

    close = disconnect


class AsyncTwin:
    """Has a loop of its own in a thread."""

    def __init__(self, where: Any, **how: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.client = self._do(self._make(where, how))

    async def _make(self, where: Any, how: dict[str, Any]) -> AsyncClient:
        return AsyncClient(where, **how)

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def result(self, run_id: Any, **how: Any) -> Result:
        result: Result = self._do(self.client.result(run_id, **how))
        return result

    def stream(self, run_id: Any, **how: Any) -> Iterator[Event]:
        lines: AsyncIterator[Event] = self.client.stream(run_id, **how)
        try:
            while True:
                with suppress(StopAsyncIteration):
                    yield self._do(anext(lines))
                    continue
                return
        finally:
            self._do(lines.aclose())  # type: ignore[attr-defined]

    def disconnect(self) -> None:
        self._do(self.client.close())

    def close(self) -> None:
        self.disconnect()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


TWINS: dict[str, Callable[..., Twin]] = {"sync": SyncTwin, "async": AsyncTwin}


@pytest.fixture(params=TWINS)
def make_twin(request: pytest.FixtureRequest) -> Iterator[Callable[..., Twin]]:
    made: list[Twin] = []

    def make(where: Any, **how: Any) -> Twin:
        made.append(TWINS[request.param](where, **how))
        return made[-1]

    yield make
    for twin in made:
        twin.close()


@pytest.fixture
def twin(make_twin: Callable[..., Twin], stage: Stage) -> Twin:
    return make_twin(stage.dsn)


@pytest.fixture
def start() -> Iterator[Callable[..., Future[Any]]]:
    """Return a starter of calls that wait."""
    with ThreadPoolExecutor(16) as threads:
        yield threads.submit


@pytest.fixture
def run_id(stage: Stage) -> Iterator[UUID]:
    """Return a run that nobody executes; it is ended after the test, so that nobody waits on."""
    run_id = stage.client.enqueue("nobody's", queue="nobody's")
    yield run_id
    stage.client.cancel(run_id)


def watched(stage: Stage, run_id: UUID) -> None:
    """Wait until somebody watches the run."""
    until(lambda: stage.one("select watched from pgflow.run where run_id = %s", run_id))


def hinted(twin: Twin) -> None:
    """Wait until hints reach a client."""
    until(lambda: twin.client._ear.proven)


def test_the_twins_have_the_same_signatures_and_texts() -> None:
    for name in ("result", "stream"):
        one, other = getattr(Client, name), getattr(AsyncClient, name)
        ours, theirs = inspect.signature(one), inspect.signature(other)
        assert list(ours.parameters.values()) == list(theirs.parameters.values())
        assert one.__doc__ == other.__doc__


# ---- result


def test_the_result_of_a_run_that_a_worker_executes(stage: Stage, twin: Twin) -> None:
    @stage.app.handler
    async def double(n: int) -> int:
        return 2 * n

    with stage.worker():
        result = twin.result(stage.client.enqueue(double, 21), timeout=30)
    assert (result.state, result.output, result.value) == ("completed", 42, 42)
    assert (result.handler, result.error_code, result.paused) == ("double", None, None)
    assert result.is_finished
    result.raise_for_state()


def test_a_run_that_failed_is_returned_and_says_why(stage: Stage, twin: Twin) -> None:
    @stage.app.handler
    async def fail() -> None:
        raise ValueError("no such luck")

    with stage.worker():
        result = twin.result(stage.client.enqueue(fail, max_attempts=1), timeout=30)
    assert (result.state, result.error_code) == ("failed", "E-RUN-001")
    assert result.error is not None
    assert (result.error["type"], result.error["message"]) == ("ValueError", "no such luck")
    with pytest.raises(RunNotCompleted, match=r"is failed .E-RUN-001.: .*no such luck") as raised:
        assert result.value
    assert raised.value.result == result


def test_a_result_comes_within_milliseconds_of_the_end(
    stage: Stage, twin: Twin, start: Callable[..., Future[Result]]
) -> None:
    took = []
    for _ in range(20):
        run_id = stage.client.enqueue("a", queue="nobody's")
        waiting = start(twin.result, run_id, timeout=30)
        watched(stage, run_id)
        hinted(twin)
        stage.client.cancel(run_id)
        ended = time.monotonic()
        assert waiting.result(30).state == "cancelled"
        took.append(time.monotonic() - ended)
    assert sorted(took)[len(took) // 2] < 0.1  # 2 ms where nothing else runs


def test_a_cancelled_run_is_told_to_whoever_waits_with_the_reason(
    stage: Stage, twin: Twin, run_id: UUID, start: Callable[..., Future[Result]]
) -> None:
    waiting = start(twin.result, run_id)
    watched(stage, run_id)
    stage.client.cancel(run_id, "not needed")
    result = waiting.result(30)
    assert (result.state, result.error_detail) == ("cancelled", "Execution cancelled: not needed")


def test_zero_looks_once_and_leaves_no_trace(stage: Stage, twin: Twin, run_id: UUID) -> None:
    with pytest.raises(ResultTimeout, match="is pending") as raised:
        twin.result(run_id, timeout=0)
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.state == "pending"
    assert not stage.one("select watched from pgflow.run where run_id = %s", run_id)
    stage.client.cancel(run_id)
    assert twin.result(run_id, timeout=0).state == "cancelled"


def test_a_timeout_raises_in_time_and_leaves_the_run_as_it_is(
    stage: Stage, twin: Twin, run_id: UUID
) -> None:
    begun = time.monotonic()
    with pytest.raises(ResultTimeout, match=r"is pending, not finished, after 0.3 s"):
        twin.result(run_id, timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 5
    assert stage.run(run_id)["state"] == "pending"


def test_until_paused_returns_the_pause_and_its_reason(
    stage: Stage, twin: Twin, run_id: UUID, start: Callable[..., Future[Result]]
) -> None:
    waiting = start(twin.result, run_id, until="paused", timeout=30)
    watched(stage, run_id)
    stage.client.pause(run_id, "look at it")
    result = waiting.result(30)
    assert (result.state, result.paused) == ("paused", Paused("look at it"))
    assert not result.is_finished
    with pytest.raises(RunNotCompleted, match="is paused: look at it"):
        result.raise_for_state()
    with pytest.raises(ResultTimeout, match="is paused, not finished"):
        twin.result(run_id, timeout=0.05)
    stage.client.cancel(run_id)
    assert twin.result(run_id, until="paused").state == "cancelled"


@pytest.mark.parametrize("timeout", [0, 1, None])
def test_an_unknown_run_is_refused(twin: Twin, timeout: float | None) -> None:
    with pytest.raises(UnknownRun) as raised:
        twin.result(uuid4(), timeout=timeout)
    assert raised.value.detail
    with pytest.raises(UnknownRun):
        list(twin.stream(uuid4()))


def test_a_bad_argument_is_refused(twin: Twin, run_id: UUID) -> None:
    with pytest.raises(BadRequest):
        twin.result("no id", timeout=1)
    with pytest.raises(BadRequest, match="until"):
        twin.result(run_id, until="done")


def test_a_run_of_another_project_is_unknown(
    stage: Stage, make_twin: Callable[..., Twin], run_id: UUID
) -> None:
    stage.db.execute("select pgflow.create_project('shop')")
    twin = make_twin(stage.dsn, project="shop")
    with pytest.raises(UnknownRun):
        twin.result(run_id, timeout=5)
    with pytest.raises(ResultTimeout):
        twin.result(run_id, timeout=0.05, project="default")


def test_the_server_that_is_nowhere_is_said_to_be_unreachable(
    make_twin: Callable[..., Twin],
) -> None:
    twin = make_twin(NOWHERE)
    with pytest.raises(ServerUnreachable, match="refused"):
        twin.result(uuid4(), timeout=5)
    with pytest.raises(ServerUnreachable, match="refused"):
        next(iter(twin.stream(uuid4())))


def test_many_wait_over_one_listening_connection(
    stage: Stage, twin: Twin, start: Callable[..., Future[Result]]
) -> None:
    runs = [stage.client.enqueue("a", queue="nobody's") for _ in range(12)]
    waiting = [start(twin.result, run_id, timeout=30) for run_id in runs]
    for run_id in runs:
        watched(stage, run_id)
    hinted(twin)
    listening = "select count(*) from pg_stat_activity where query = 'listen pgflow'"
    assert stage.one(listening + " and datname = current_database()") == 1
    for run_id in runs:
        stage.client.cancel(run_id)
    assert [w.result(30).run_id for w in waiting] == runs


def test_closing_the_client_closes_the_connection(
    stage: Stage, make_twin: Callable[..., Twin], run_id: UUID
) -> None:
    twin = make_twin(stage.dsn)
    with pytest.raises(ResultTimeout):
        twin.result(run_id, timeout=2)  # time to connect
    hinted(twin)
    mine = "select count(*) from pg_stat_activity where datname = current_database()"
    twin.disconnect()
    stage.client.close()
    until(lambda: stage.one(mine) == 1)
    with pytest.raises(ResultTimeout):  # it can be used again, and closed again
        twin.result(run_id, timeout=0.1)


def test_a_finished_run_needs_no_listening_connection(stage: Stage, twin: Twin) -> None:
    run_id = stage.client.enqueue("a")
    stage.client.cancel(run_id)
    assert twin.result(run_id, timeout=5).state == "cancelled"
    assert len(list(twin.stream(run_id))) == 2
    assert twin.client._ear._listener is None


# ---- without hints


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no hint arrive, as behind a transaction pooler."""

    async def run(_: Listener) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Listener, "run", run)


@pytest.mark.usefixtures("deaf")
def test_where_no_hint_arrives_it_polls(
    stage: Stage, twin: Twin, run_id: UUID, start: Callable[..., Future[Any]]
) -> None:
    waiting = start(twin.result, run_id, timeout=30)
    lines = start(lambda: [line.type for line in twin.stream(run_id)])
    watched(stage, run_id)
    stage.client.emit(run_id, "seen")
    stage.client.cancel(run_id)
    begun = time.monotonic()
    assert waiting.result(30).state == "cancelled"
    assert lines.result(30) == ["run.created", "seen", "run.cancelled"]
    assert time.monotonic() - begun < 4


def test_a_hint_that_is_lost_costs_some_seconds(
    stage: Stage,
    twin: Twin,
    run_id: UUID,
    start: Callable[..., Future[Result]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgflow._waiting._HINTED", 0.2)
    waiting = start(twin.result, run_id, timeout=30)
    watched(stage, run_id)
    hinted(twin)
    monkeypatch.setattr(Ear, "_hear", lambda *_: None)
    stage.db.execute("update pgflow.run set watched = false")
    stage.client.cancel(run_id)
    assert waiting.result(30).state == "cancelled"


def test_on_a_connection_of_the_callers_a_sync_client_polls(stage: Stage, run_id: UUID) -> None:
    with psycopg.connect(stage.dsn, autocommit=True) as conn:
        client = Client(conn)
        with pytest.raises(ResultTimeout):
            client.result(run_id, timeout=0.1)
        assert not stage.one("select watched from pgflow.run where run_id = %s", run_id)
        threading.Timer(0.1, stage.client.cancel, [run_id]).start()
        assert client.result(run_id, timeout=30).state == "cancelled"
        assert [line.type for line in client.stream(run_id)] == ["run.created", "run.cancelled"]
        with pytest.raises(UnknownRun):
            client.result(uuid4())


def test_on_a_connection_of_the_callers_an_async_client_polls(stage: Stage, run_id: UUID) -> None:
    async def wait() -> list[str]:
        async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as conn:
            client = AsyncClient(conn)
            threading.Timer(0.1, stage.client.cancel, [run_id]).start()
            assert (await client.result(run_id, timeout=30)).state == "cancelled"
            return [line.type async for line in client.stream(run_id)]

    assert asyncio.run(wait()) == ["run.created", "run.cancelled"]


def test_a_connection_of_the_callers_that_is_cut_is_not_waited_for(
    stage: Stage, run_id: UUID
) -> None:
    with psycopg.connect(stage.dsn, autocommit=True) as conn:
        pid = conn.info.backend_pid
        cut = threading.Timer(0.2, stage.db.execute, ["select pg_terminate_backend(%s)", [pid]])
        cut.start()
        with pytest.raises((ServerUnreachable, psycopg.OperationalError)):
            Client(conn).result(run_id)
        cut.join()


# ---- stream


def test_the_lines_of_a_run_that_a_worker_executes(
    stage: Stage, twin: Twin, start: Callable[..., Future[list[Event]]]
) -> None:
    @stage.app.handler
    async def work(ctx: Context) -> int:
        await ctx.step("first", int)
        await ctx.approval("ok", title="Fine?")
        for pct in (50, 100):
            await ctx.step(f"at {pct}", int)
        return 1

    run_id = stage.client.enqueue(work)
    lines = start(lambda: list(twin.stream(run_id)))
    with stage.worker():
        task = stage.task(run_id)
        stage.client.emit(run_id, "note", {"by": "me"}, idempotency_key="n")
        stage.client.approve(task)
        stage.ends(run_id)
    streamed = lines.result(30)
    kept = stage.client.timeline(run_id)
    assert [line.event_no for line in streamed] == list(range(1, len(kept) + 1))
    names = ("type", "key", "payload", "at", "by", "step", "attempt", "lease_no", "worker_id")
    assert [{n: getattr(line, n) for n in names} for line in streamed] == [
        {n: row[n] for n in names} for row in kept
    ]
    assert streamed[-1].is_last
    assert [line.type for line in streamed if line.is_last] == ["run.completed"]


def test_lines_come_as_they_are_written(stage: Stage, twin: Twin, run_id: UUID) -> None:
    lines = iter(twin.stream(run_id))
    assert next(lines).type == "run.created"
    for n in range(5):
        stage.client.emit(run_id, "seen", n)
        line = next(lines)
        assert (line.event_no, line.payload) == (n + 2, n)
    stage.client.cancel(run_id)
    assert next(lines).type == "run.cancelled"
    assert next(lines, None) is None


def test_many_lines_from_many_writers_come_once_each_and_in_order(
    stage: Stage, twin: Twin, run_id: UUID, start: Callable[..., Future[Any]]
) -> None:
    lines = start(lambda: [line.event_no for line in twin.stream(run_id)])
    writers = [
        start(lambda: [stage.client.emit(run_id, "seen", n) for n in range(150)]) for _ in range(5)
    ]
    for writer in writers:
        writer.result(60)
    stage.client.cancel(run_id)
    assert lines.result(60) == list(range(1, 753))


def test_a_stream_begins_after_a_line(stage: Stage, twin: Twin, run_id: UUID) -> None:
    for n in range(3):
        stage.client.emit(run_id, "seen", n)
    lines = iter(twin.stream(run_id, after=2))
    assert [next(lines).event_no, next(lines).event_no] == [3, 4]
    stage.client.cancel(run_id)
    assert [line.event_no for line in lines] == [5]
    assert [line.event_no for line in twin.stream(run_id, after=4)] == [5]
    assert list(twin.stream(run_id, after=5)) == []
    assert list(twin.stream(run_id, after=10**12)) == []


def test_more_lines_than_a_page_come_all(
    stage: Stage, twin: Twin, run_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow._waiting._PAGE", 3)
    for n in range(8):
        stage.client.emit(run_id, "seen", n)
    stage.client.cancel(run_id)
    assert [line.event_no for line in twin.stream(run_id)] == list(range(1, 11))


def test_whoever_stops_listening_leaves_nothing_behind(twin: Twin, run_id: UUID) -> None:
    lines = twin.stream(run_id)
    for line in lines:
        assert line.type == "run.created"
        break
    lines.close()  # type: ignore[attr-defined]
    assert twin.client._ear._waking == {}
    with pytest.raises(ResultTimeout):
        twin.result(run_id, timeout=0.05)
    assert twin.client._ear._waking == {}


def test_an_async_wait_can_be_cancelled(stage: Stage, run_id: UUID) -> None:
    async def wait() -> None:
        async with AsyncClient(stage.dsn) as client:
            task = asyncio.create_task(client.result(run_id))
            await asyncio.to_thread(watched, stage, run_id)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client._ear._waking == {}
            async with aclosing(client.stream(run_id)) as lines:  # type: ignore[type-var]
                assert (await anext(lines)).event_no == 1

    asyncio.run(wait())


def test_an_app_waits_too(stage: Stage) -> None:
    app = App(stage.dsn)

    @app.handler
    async def double(n: int) -> int:
        return 2 * n

    async def wait() -> list[Any]:
        async with app:
            run_id = await app.enqueue(double, 4)
            result = await app.result(run_id, timeout=30)
            return [result.value, [line.type async for line in app.stream(run_id)]]

    with stage.worker(app):
        assert asyncio.run(wait()) == [8, ["run.created", "run.started", "run.completed"]]
        assert app.sync.result(app.sync.enqueue(double, 5), timeout=30).value == 10
    app.sync.close()


def test_the_ear_hears_only_what_it_was_asked_for() -> None:
    ear, heard = Ear(), []
    one, other = uuid4(), uuid4()
    with (
        ear.waits(one, lambda: heard.append(1)),
        ear.waits(str(one).upper(), lambda: heard.append(2)),
        ear.waits("no id", lambda: heard.append(3)),
    ):
        others = ("work default default", "beat default w:1", "run", "run default", "what is this")
        for payload in (f"run default {other}", *others):
            ear._hear(payload)
        assert heard == []
        ear._hear(f"run default {one}")
        assert sorted(heard) == [1, 2]
        ear._hear("")
        assert sorted(heard) == [1, 1, 2, 2, 3]
    ear._hear(f"run default {one}")
    assert len(heard) == 5


def test_whoever_waits_for_an_end_is_not_woken_by_other_lines() -> None:
    ear, heard = Ear(), []
    one, other = uuid4(), uuid4()
    with ear.waits(end_of(str(one).upper()), lambda: heard.append("end")):
        ear._hear(f"run default {one}")
        ear._hear(f"run default {other} ended")
        assert heard == []
        ear._hear(f"run default {one} ended")
        assert heard == ["end"]
    with ear.waits(one, lambda: heard.append("line")):
        ear._hear(f"run default {one} ended")
    assert heard == ["end", "line"]


def test_once_hints_come_a_result_is_asked_for_at_the_end_alone(
    stage: Stage,
    twin: Twin,
    run_id: UUID,
    start: Callable[..., Future[Result]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def noting(ask: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **how: Any) -> Any:
            asked.append(ask.__name__)
            return ask(*args, **how)

        return noted

    for ask in (protocol.watch, protocol.result):
        monkeypatch.setattr(protocol, ask.__name__, noting(ask))

    def quiet() -> bool:
        before = len(asked)
        time.sleep(0.7)  # longer than between two looks without hints
        return len(asked) == before

    waiting = start(twin.result, run_id, timeout=60)
    hinted(twin)
    until(quiet)
    asked.clear()
    for _ in range(3):
        stage.client.emit(run_id, "progress")
    stage.client.cancel(run_id)
    assert waiting.result(30).state == "cancelled"
    assert asked == ["result"]


# ---- outages


@pytest.fixture
def own(data_dir: Path) -> Iterator[EmbeddedServer]:
    """Return a migrated server that keeps what it has committed."""
    with EmbeddedServer(data_dir) as server:
        migrate(server.dsn)
        yield server


def _kill(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)


def _stop(server: EmbeddedServer) -> None:
    server.stop()


@contextmanager
def staged(server: EmbeddedServer) -> Iterator[Stage]:
    with psycopg.connect(server.dsn, autocommit=True) as db, Client(server.dsn) as client:
        stage = Stage(server.dsn, db)
        stage.client = client
        yield stage


@pytest.mark.slow
@pytest.mark.parametrize("how", [_kill, _stop], ids=["kill -9", "stopped"])
def test_waits_survive_a_restart_of_the_server(
    own: EmbeddedServer,
    make_twin: Callable[..., Twin],
    start: Callable[..., Future[Any]],
    logs: Logs,
    how: Callable[[EmbeddedServer], None],
) -> None:
    twin = make_twin(own.dsn)
    with staged(own) as stage:
        run_id = stage.client.enqueue("a", queue="nobody's")
        short = start(twin.result, run_id, timeout=1)
        waiting = start(twin.result, run_id, timeout=120)
        lines = start(lambda: [line.type for line in twin.stream(run_id)])
        watched(stage, run_id)
        hinted(twin)
        stage.client.emit(run_id, "before")
    how(own)
    until(lambda: not twin.client._ear.proven)
    with pytest.raises(ResultTimeout):
        short.result(30)
    assert [e for e in logs if e["event"] == "listener_lost"]
    own.start()
    with staged(own) as stage:
        stage.client.emit(run_id, "after")
        hinted(twin)
        stage.client.emit(run_id, "heard")
        stage.client.cancel(run_id)
        assert waiting.result(60).state == "cancelled"
        assert lines.result(60) == ["run.created", "before", "after", "heard", "run.cancelled"]


def test_a_timeout_during_an_outage_says_that_the_server_is_away(
    own: EmbeddedServer, make_twin: Callable[..., Twin], start: Callable[..., Future[Result]]
) -> None:
    twin = make_twin(own.dsn)
    with staged(own) as stage:
        run_id = stage.client.enqueue("a", queue="nobody's")
        waiting = start(twin.result, run_id, timeout=2)
        watched(stage, run_id)
        hinted(twin)
    own.stop()
    with pytest.raises(ResultTimeout, match="is pending") as raised:
        waiting.result(30)
    assert isinstance(raised.value, PgflowError)
