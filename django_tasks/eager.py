"""Running a call in the caller's own process, by the same steps as a worker: serialize, route, execute, retry, tell."""

from __future__ import annotations

import socket
from typing import Any

from django.utils import timezone

from . import states
from .backends.message import Delivery, Message, Outcome, Return
from .conf import settings
from .executor import Execution, execute
from .result import EagerResult
from .serialization import exception_from_data, loads


def run_eagerly(message: Message, *, throw: bool) -> EagerResult[Any]:
    """Run a message here and return its result; retries follow at once, without their delay.

    ``throw``: raise the exception of a failure.
    """
    delivery = Delivery(
        id=message.id,
        attempt=1,
        name=message.name,
        queue=message.queue,
        priority=message.priority,
        body=message.body,
        encoding=message.encoding,
        custom_id=message.custom_id,
        options=message.options,
        root_id=message.root_id,
        parent_id=message.parent_id,
        due=timezone.now().timestamp(),
        expires_in=message.expires_in,
    )
    began = timezone.now()
    while True:
        execution = execute(delivery, worker=f"eager@{socket.gethostname()}", eager=True)
        if execution.after is not None:
            execution.after()
        done = execution.done
        if isinstance(done, Outcome):
            break
        if done.state == states.UNROUTABLE:
            raise RuntimeError(f"Task {message.name} is not registered here, so it cannot run eagerly")
        _again(delivery, done)
    if settings.TASK_STORE_EAGER_RESULT and done.keep:
        _store(delivery, message, done, began)
    if throw and done.state in states.PROPAGATE_STATES and isinstance(execution.value, BaseException):
        raise execution.value
    return EagerResult(
        message.custom_id or message.id, _value(done, execution), done.state, done.traceback, message.name
    )


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


def _value(done: Outcome, execution: Execution) -> Any:
    """Return the value as another process would read it: what does not survive serialization is found out here, too."""
    if done.state != states.SUCCESS:
        if isinstance(execution.value, BaseException):
            return execution.value
        return (
            exception_from_data(loads(done.result, done.result_encoding, settings.ACCEPT_CONTENT))
            if done.result
            else None
        )
    return None if done.result is None else loads(done.result, done.result_encoding, settings.ACCEPT_CONTENT)


def _store(delivery: Delivery, message: Message, done: Outcome, began: Any) -> None:
    from .models import TaskResult

    TaskResult.objects.using(settings.DATABASE).create(
        id=message.id,
        custom_id=message.custom_id,
        name=message.name,
        queue=message.queue,
        priority=message.priority,
        created_at=began,
        due_at=began,
        started_at=began,
        finished_at=timezone.now(),
        attempt=delivery.attempt,
        retries=delivery.retries,
        body=delivery.body,
        encoding=delivery.encoding,
        options=delivery.options,
        history=done.history or delivery.history,
        root_id=message.root_id,
        parent_id=message.parent_id,
        state=done.state,
        runtime=done.runtime,
        worker=f"eager@{socket.gethostname()}",
        result=done.result,
        result_encoding=done.result_encoding,
        exception=done.exception,
        traceback=done.traceback,
    )
