"""Telling handlers (``on_success``, ``after_return``, …) and receivers of signals what became of a task, once it is
stored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from . import exceptions, signals, states
from .backends.message import Outcome
from .backends.results import Record
from .client import options_of
from .conf import settings
from .context import current_request
from .context_hooks import restored
from .error_reports import traceback_text
from .place import request_of_record
from .redaction import secrets_of
from .registry import tasks
from .request import Context
from .serialization import exception_from_data, loads_error

logger = logging.getLogger("django_tasks.executor")


class ExceptionInfo:
    """What handlers and signals get as ``einfo``: the exception and its traceback as text."""

    __slots__ = ("exception", "tb", "traceback", "type")

    def __init__(self, exception: BaseException, text: str) -> None:
        self.type = type(exception)
        self.exception = exception
        self.tb = exception.__traceback__
        self.traceback = text

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"


def after_success(task: Any, request: Context, outcome: Outcome, value: Any) -> Callable[[], None] | None:
    """Return what tells of a success once it is stored; ``None`` if nobody listens."""
    if not (task.handlers_overridden or signals.task_success.receivers or signals.task_postrun.receivers):
        return None

    def told() -> None:
        handle(task.on_success, value, request.id, request.args, request.kwargs)
        signals.task_success.emit(task, result=value, runtime=outcome.runtime)

    return after(task, request, states.SUCCESS, value, told)


def tell_ended(record: Record, worker: str, signum: int | None = None) -> None:
    """Tell handlers and receivers of a task that was ended from outside: by its hard time limit, or by ``terminate``.

    Does nothing for one that ended in another way, or is not registered here.
    """
    task = tasks.get(record.name)
    if task is None or record.result is None:
        return
    error = exception_from_data(loads_error(record.result, record.result_encoding, settings.ACCEPT_CONTENT))
    request = request_of_record(record)
    request.hostname, request._owner = worker, task
    request._carried = options_of(record.options).get("context")
    if isinstance(error, exceptions.TimeLimitExceeded) and record.state == states.FAILURE:
        einfo = ExceptionInfo(error, traceback_text(error))

        def told() -> None:
            handle(task.on_failure, error, request.id, request.args, request.kwargs, einfo)
            signals.task_failure.emit(
                task,
                task_id=request.id,
                exception=error,
                args=request.args,
                kwargs=request.kwargs,
                traceback=None,
                einfo=einfo,
            )

        tell = after(task, request, states.FAILURE, error, told)
        if tell is not None:
            tell()
    elif record.state == states.REVOKED:
        signals.task_revoked.emit(task, request=request, terminated=True, signum=signum, expired=False)


def after(
    task: Any, request: Context, state: str, value: Any, told: Callable[[], None] | None
) -> Callable[[], None] | None:
    """Return what runs once the outcome is stored, under the task's own request; ``None`` if nobody listens."""

    def tell() -> None:
        if told is not None:
            told()
        if state in (states.SUCCESS, states.FAILURE):
            hidden = secrets_of(task, request.args, request.kwargs) if state == states.FAILURE else None
            einfo = ExceptionInfo(value, traceback_text(value, hidden)) if state == states.FAILURE else None
            handle(task.after_return, state, value, request.id, request.args, request.kwargs, einfo)
        signals.task_postrun.emit(
            task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs, retval=value, state=state
        )

    def tell_there() -> None:
        with restored(request._carried or {}):
            tell()

    def afterwards() -> None:
        token = current_request.set(request)
        try:
            if request._carried is None:
                tell()
            else:
                handle(tell_there)
        finally:
            current_request.reset(token)

    listens = task.handlers_overridden or signals.task_postrun.receivers or signals.task_success.receivers
    listens = listens or signals.task_failure.receivers or signals.task_retry.receivers
    return afterwards if listens else None


def handle(handler: Callable[..., Any], *args: Any) -> None:
    """Call what somebody wrote to be told; what it raises is logged and changes nothing."""
    try:
        handler(*args)
    except Exception:
        logger.exception("Handler %s of a task failed", getattr(handler, "__qualname__", handler))
