"""Running a call in the caller's own process, by the same steps as a worker: serialize, route, execute, retry, tell."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.utils import timezone

from . import states
from .backends.message import Delivery, Message, Outcome, Return, Unique
from .backends.results import Record
from .conf import settings
from .exceptions import AlreadyEnqueued
from .executor import Execution, execute
from .redaction import REDACTED
from .registry import tasks
from .result import EagerResult
from .serialization import exception_from_data, loads, loads_error

#: How often an eager task may put itself back, with ``Reject(requeue=True)``.
REDELIVERIES = 100

#: The unique keys of the calls that run here, one within the other, with their ids.
_running: ContextVar[Mapping[str, str]] = ContextVar("django_tasks_unique_here", default=MappingProxyType({}))


def run_eagerly(message: Message, *, throw: bool, retries: int = 0) -> EagerResult[Any]:
    """Run a message here and return its result; retries follow at once, without their delay.

    ``throw``: raise the exception of a failure. ``retries``: how often it counts as retried already.
    Raises ``RuntimeError`` when the task rejects itself over and over, which on a worker would never end.
    """
    unique, running = message.unique, _running.get()
    if unique is not None and unique.key in running and unique.on_conflict in ("skip", "raise"):
        return _met(message, running[unique.key])
    token = _running.set({**running, unique.key: message.id} if unique is not None and _holds(unique) else running)
    try:
        return _run(message, throw=throw, retries=retries)
    finally:
        _running.reset(token)


def _holds(unique: Unique) -> bool:
    """Is a call in the way of others while it runs? Whatever outlasts it, eager mode forgets."""
    return not unique.until_start and unique.period is None


def _met(message: Message, there: str) -> EagerResult[Any]:
    """Return the result of a call like one that runs here, and has sent it."""
    if message.unique is not None and message.unique.on_conflict == "raise":
        raise AlreadyEnqueued(message.name, there)
    result: EagerResult[Any] = EagerResult(there, None, states.PENDING, name=message.name)
    result.conflict = True
    return result


def _run(message: Message, *, throw: bool, retries: int) -> EagerResult[Any]:
    worker = f"eager@{socket.gethostname()}"
    began = timezone.now()
    delivery = Delivery(
        id=message.id,
        attempt=retries + 1,
        name=message.name,
        queue=message.queue,
        priority=message.priority,
        body=message.body,
        encoding=message.encoding,
        custom_id=message.custom_id,
        options=message.options,
        retries=retries,
        root_id=message.root_id,
        parent_id=message.parent_id,
        due=began.timestamp(),
        expires_in=message.expires_in,
    )
    if message.expires_at is not None:
        delivery.expires_in = (message.expires_at - began).total_seconds()
    while True:
        execution = execute(delivery, worker=worker, eager=True)
        done = execution.done
        if isinstance(done, Outcome):
            break
        if done.state == states.UNROUTABLE:
            raise RuntimeError(f"Task {message.name} is not registered here, so it cannot run eagerly")
        if execution.after is not None:
            execution.after()
        _again(delivery, done)
        if delivery.attempt - delivery.retries > REDELIVERIES:
            raise RuntimeError(
                f"Task {message.name} rejected itself {REDELIVERIES} times: on a worker it would never end"
            )
    stored = done.keep and _is_to_store(message.name)
    if stored:
        _store(delivery, done, began, worker)
    if execution.after is not None:
        execution.after()
    value = _value(done, execution)
    if throw and done.state in states.PROPAGATE_STATES and isinstance(value, BaseException):
        raise value
    result: EagerResult[Any] = EagerResult(delivery.task_id, value, done.state, done.traceback, message.name)
    result._ledger, result._stored = _record(delivery, done, worker), stored
    return result


def _again(delivery: Delivery, back: Return) -> None:
    delivery.attempt += 1
    if back.retries is not None:
        delivery.retries = back.retries
    if back.history is not None:
        delivery.history = back.history
    if back.body is not None:
        delivery.body, delivery.encoding = back.body, back.encoding
    if back.options is not None:
        delivery.options = back.options
    if back.queue is not None:
        delivery.queue = back.queue
    if back.priority is not None:
        delivery.priority = back.priority


def _value(done: Outcome, execution: Execution) -> Any:
    """Return the value as another process would read it: what does not survive serialization is found out here, too."""
    if done.state != states.SUCCESS:
        if isinstance(execution.value, Exception):  # SystemExit would end this process, which is nobody's worker
            return execution.value
        return (
            exception_from_data(loads_error(done.result, done.result_encoding, settings.ACCEPT_CONTENT))
            if done.result
            else None
        )
    return None if done.result is None else loads(done.result, done.result_encoding, settings.ACCEPT_CONTENT)


def _is_to_store(name: str) -> bool:
    wanted = getattr(tasks.get(name), "store_eager_result", None)
    return settings.TASK_STORE_EAGER_RESULT if wanted is None else bool(wanted)


def _record(delivery: Delivery, done: Outcome, worker: str) -> Record:
    """Return what would be read of it, had it run on a worker."""
    return Record(
        task_id=delivery.task_id,
        state=done.state,
        name=delivery.name,
        queue=delivery.queue,
        body=delivery.body if done.body is None else done.body,
        encoding=delivery.encoding if done.body is None else REDACTED,
        retries=delivery.retries,
        attempt=delivery.attempt,
        result=done.result,
        result_encoding=done.result_encoding,
        traceback=done.traceback,
        worker=worker,
        finished_at=timezone.now(),
        root_id=delivery.root_id,
        parent_id=delivery.parent_id,
        options=delivery.options,
        history=done.history or delivery.history,
    )


def _store(delivery: Delivery, done: Outcome, began: datetime, worker: str) -> None:
    from .models import TaskResult

    TaskResult.objects.using(settings.DATABASE).create(
        id=delivery.id,
        custom_id=delivery.custom_id,
        name=delivery.name,
        queue=delivery.queue,
        priority=delivery.priority,
        created_at=began,
        due_at=began,
        started_at=None if done.runtime is None else began,
        finished_at=timezone.now(),
        attempt=delivery.attempt,
        retries=delivery.retries,
        body=delivery.body if done.body is None else done.body,
        encoding=delivery.encoding if done.body is None else REDACTED,
        options=delivery.options,
        history=done.history or delivery.history,
        root_id=delivery.root_id,
        parent_id=delivery.parent_id,
        state=done.state,
        runtime=done.runtime,
        worker=worker,
        result=done.result,
        result_encoding=done.result_encoding,
        exception=done.exception,
        traceback=done.traceback,
    )
