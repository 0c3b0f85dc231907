"""The gateway's verbs as methods, sync and async, without two copies of them."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pgflow import artifacts as _artifacts
from pgflow import flows as _flows
from pgflow import gateway, money, people, queues, views
from pgflow import subscriptions as _subscriptions
from pgflow._statement import Statement

P = ParamSpec("P")
R = TypeVar("R")


class _Executes(Protocol):
    def _execute(self, statement: Statement[R]) -> R: ...


class _AsyncExecutes(Protocol):
    async def _execute(self, statement: Statement[R]) -> R: ...


class _EnqueuesTogether(Protocol):
    async def _enqueue(self, statement: Statement[R]) -> R: ...


def _sync(verb: Callable[P, Statement[R]]) -> Callable[Concatenate[Any, P], R]:
    """Make a method of a gateway verb: it executes the statement and returns what that returns."""

    def method(self: _Executes, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._execute(verb(*args, **kwargs))

    functools.update_wrapper(method, verb)
    return method


def _async(verb: Callable[P, Statement[R]]) -> Callable[Concatenate[Any, P], Awaitable[R]]:
    """Make a coroutine method of a gateway verb."""

    async def method(self: _AsyncExecutes, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._execute(verb(*args, **kwargs))

    functools.update_wrapper(method, verb)
    return method


def _async_together(
    verb: Callable[P, Statement[R]],
) -> Callable[Concatenate[Any, P], Awaitable[R]]:
    """Make a coroutine method of a gateway verb that calls at once may share a statement for."""

    async def method(self: _EnqueuesTogether, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._enqueue(verb(*args, **kwargs))

    functools.update_wrapper(method, verb)
    return method


class Verbs:
    """What sync clients can call."""

    enqueue = _sync(gateway.enqueue)
    enqueue_many = _sync(gateway.enqueue_many)
    cancel = _sync(gateway.cancel)
    pause = _sync(gateway.pause)
    resume = _sync(gateway.resume)
    retry = _sync(gateway.retry)
    emit = _sync(gateway.emit)
    signal = _sync(gateway.signal)
    signal_many = _sync(gateway.signal_many)
    resolve_tool = _sync(gateway.resolve_tool)
    fail_tool = _sync(gateway.fail_tool)
    fork = _sync(gateway.fork)
    set_breakpoint = _sync(gateway.set_breakpoint)
    clear_breakpoint = _sync(gateway.clear_breakpoint)
    define_flow = _sync(_flows.define_flow)
    start = _sync(_flows.start)
    add_step = _sync(_flows.add_step)
    register_step_type = _sync(_flows.register_step_type)
    unregister_step_type = _sync(_flows.unregister_step_type)
    approve = _sync(people.approve)
    reject = _sync(people.reject)
    abort = _sync(people.abort)
    answer = _sync(people.answer)
    inject_input = _sync(people.inject_input)
    claim_task = _sync(people.claim_task)
    release_task = _sync(people.release_task)
    delegate = _sync(people.delegate)
    comment_task = _sync(people.comment_task)
    next_events = _sync(_subscriptions.next_events)
    acknowledge = _sync(_subscriptions.acknowledge)
    release_events = _sync(_subscriptions.release_events)
    unsubscribe = _sync(_subscriptions.unsubscribe)
    define_queue = _sync(queues.define_queue)
    pause_queue = _sync(queues.pause_queue)
    resume_queue = _sync(queues.resume_queue)
    set_retention = _sync(queues.set_retention)
    define_price = _sync(money.define_price)
    maintain = _sync(queues.maintain)
    runs = _sync(views.runs)
    report = _sync(views.report)
    context = _sync(views.context)
    timeline = _sync(views.timeline)
    now = _sync(views.now)
    journal_entries = _sync(views.journal_entries)
    tool_calls = _sync(views.tool_calls)
    inbox = _sync(views.inbox)
    task_history = _sync(views.task_history)
    subscriptions = _sync(views.subscriptions)
    queue_stats = _sync(views.queue_stats)
    worker_status = _sync(views.worker_status)
    flows = _sync(_flows.flows)
    flow_steps = _sync(_flows.flow_steps)
    prices = _sync(money.prices)
    budgets = _sync(money.budgets)
    usage_by_model = _sync(money.usage_by_model)
    history = _sync(_flows.history)
    define_reducer = _sync(_flows.define_reducer)
    define_schema = _sync(_artifacts.define_schema)
    schemas = _sync(_artifacts.schemas)
    artifacts = _sync(_artifacts.artifacts)
    artifact_content = _sync(_artifacts.artifact_content)
    step_types = _sync(_flows.step_types)
    define_agent = _sync(_flows.define_agent)
    agents = _sync(_flows.agents)
    doctor = _sync(views.doctor)


class AsyncVerbs:
    """What async clients can call: the same, awaited."""

    enqueue = _async_together(gateway.enqueue)
    enqueue_many = _async(gateway.enqueue_many)
    cancel = _async(gateway.cancel)
    pause = _async(gateway.pause)
    resume = _async(gateway.resume)
    retry = _async(gateway.retry)
    emit = _async(gateway.emit)
    signal = _async(gateway.signal)
    signal_many = _async(gateway.signal_many)
    resolve_tool = _async(gateway.resolve_tool)
    fail_tool = _async(gateway.fail_tool)
    fork = _async(gateway.fork)
    set_breakpoint = _async(gateway.set_breakpoint)
    clear_breakpoint = _async(gateway.clear_breakpoint)
    define_flow = _async(_flows.define_flow)
    start = _async(_flows.start)
    add_step = _async(_flows.add_step)
    register_step_type = _async(_flows.register_step_type)
    unregister_step_type = _async(_flows.unregister_step_type)
    approve = _async(people.approve)
    reject = _async(people.reject)
    abort = _async(people.abort)
    answer = _async(people.answer)
    inject_input = _async(people.inject_input)
    claim_task = _async(people.claim_task)
    release_task = _async(people.release_task)
    delegate = _async(people.delegate)
    comment_task = _async(people.comment_task)
    next_events = _async(_subscriptions.next_events)
    acknowledge = _async(_subscriptions.acknowledge)
    release_events = _async(_subscriptions.release_events)
    unsubscribe = _async(_subscriptions.unsubscribe)
    define_queue = _async(queues.define_queue)
    pause_queue = _async(queues.pause_queue)
    resume_queue = _async(queues.resume_queue)
    set_retention = _async(queues.set_retention)
    define_price = _async(money.define_price)
    maintain = _async(queues.maintain)
    runs = _async(views.runs)
    report = _async(views.report)
    context = _async(views.context)
    timeline = _async(views.timeline)
    now = _async(views.now)
    journal_entries = _async(views.journal_entries)
    tool_calls = _async(views.tool_calls)
    inbox = _async(views.inbox)
    task_history = _async(views.task_history)
    subscriptions = _async(views.subscriptions)
    queue_stats = _async(views.queue_stats)
    worker_status = _async(views.worker_status)
    flows = _async(_flows.flows)
    flow_steps = _async(_flows.flow_steps)
    prices = _async(money.prices)
    budgets = _async(money.budgets)
    usage_by_model = _async(money.usage_by_model)
    history = _async(_flows.history)
    define_reducer = _async(_flows.define_reducer)
    define_schema = _async(_artifacts.define_schema)
    schemas = _async(_artifacts.schemas)
    artifacts = _async(_artifacts.artifacts)
    artifact_content = _async(_artifacts.artifact_content)
    step_types = _async(_flows.step_types)
    define_agent = _async(_flows.define_agent)
    agents = _async(_flows.agents)
    doctor = _async(views.doctor)
