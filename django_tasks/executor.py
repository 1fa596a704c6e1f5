"""One call in, one outcome out: what happens between a delivery and its outcome, in a worker and in eager mode
alike."""

from __future__ import annotations

import json
import logging
import time
import traceback as tracebacks
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import async_to_sync
from django.db import OperationalError as DatabaseOperationalError
from django.db import transaction

from . import exceptions, signals, states
from .backends import get_broker
from .backends.message import Delivery, Outcome, Return
from .client import drops_result, options_of
from .conf import settings
from .context import current_request
from .registry import tasks
from .request import Context
from .retry import backoff_delay
from .serialization import dumps, exception_to_data, loads, storable

logger = logging.getLogger("django_tasks.executor")

#: Characters of a traceback that are kept: its head and, mostly, its end.
TRACEBACK_LIMIT = 65_536
#: Files whose frames say nothing about the task.
_OURS = frozenset({__file__, __file__.replace("executor", "task")})

Done = Outcome | Return
_NO_TRANSACTION = nullcontext()


@dataclass(slots=True)
class Execution:
    """What became of a delivery."""

    done: Done
    #: Tells handlers and signals; called once ``done`` is stored, never if it was refused. ``None``: nobody listens.
    after: Callable[[], None] | None = None
    #: ``done`` was stored in the task's own transaction already (``atomic=True``).
    stored: bool = False
    #: Did the body raise?
    failed: bool = False
    #: In eager mode, the value or exception itself.
    value: Any = None
    request: Context | None = None


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


class _LeaseLost(Exception):
    """The attempt is not the owner any more: nothing of it may be committed."""


def execute(delivery: Delivery, *, worker: str = "", eager: bool = False) -> Execution:
    """Run one delivery and say what became of it. Never raises what the task raises."""
    if delivery.revoked or delivery.expires_in is not None:
        stopped = _not_to_run(delivery)
        if stopped is not None:
            return stopped
    task = tasks.get(delivery.name)
    if task is None:
        return _unknown(delivery)
    try:
        args, kwargs = _arguments(delivery)
        options = options_of(delivery.options)
    except Exception as error:
        return _malformed(delivery, task, error)
    request = _request(delivery, task, args, kwargs, options, worker, eager)
    token = current_request.set(request)
    try:
        return _run(delivery, task, request)
    finally:
        current_request.reset(token)


def _run(delivery: Delivery, task: Any, request: Context) -> Execution:
    task_id = request.id
    began = time.monotonic()
    try:
        if signals.task_prerun.receivers:
            signals.task_prerun.emit(task, task_id=task_id, task=task, args=request.args, kwargs=request.kwargs)
        if task.before_start_overridden:
            task.before_start(task_id, request.args, request.kwargs)
        if task.atomic and not request.is_eager:
            return _run_atomic(delivery, task, request, began)
        with transaction.atomic(using=settings.DATABASE) if task.atomic else _NO_TRANSACTION:
            value = _call(task, request)
            outcome = _success(delivery, task, request, value, began)
    except _LeaseLost:
        return Execution(Return(delivery.id, delivery.attempt))
    except BaseException as error:
        if request.is_eager and isinstance(error, KeyboardInterrupt):
            raise  # somebody at the keyboard means the whole process
        execution = _raised(delivery, task, request, error, began)
        execution.failed = True
        return execution
    return Execution(outcome, _after_success(task, request, outcome, value), value=value, request=request)


def _run_atomic(delivery: Delivery, task: Any, request: Context, began: float) -> Execution:
    """Run the body and store its outcome in one transaction: both happen, or neither."""
    broker = get_broker()
    committing = False
    try:
        with transaction.atomic(using=broker.alias):
            value = _call(task, request)
            outcome = _success(delivery, task, request, value, began)
            if not broker.finish_within(outcome, request.hostname or ""):
                raise _LeaseLost
            committing = True
    except DatabaseOperationalError:
        if not committing:
            raise
        # Whether the commit took effect is unknown. Giving it back is refused if it did.
        return Execution(Return(delivery.id, delivery.attempt))
    return Execution(outcome, _after_success(task, request, outcome, value), stored=True, value=value, request=request)


def _call(task: Any, request: Context) -> Any:
    args, kwargs = request.args, request.kwargs
    if task._models is not None:  # pydantic=True
        args, kwargs = task._models.received(args, kwargs)
    if task.call_overridden:
        value = task(*args, **kwargs)
    else:
        request._entered = True
        value = task.run(*args, **kwargs)
    if task.is_async and hasattr(value, "__await__"):
        value = async_to_sync(_awaited)(value)
    if task._models is not None:
        value = task._models.returned(value, **(task.pydantic_dump_kwargs or {}))
    if request._retry is not None:  # retry(throw=False): the retry stands, whatever the body returned
        raise request._retry
    return value


async def _awaited(value: Any) -> Any:
    return await value


def _success(delivery: Delivery, task: Any, request: Context, value: Any, began: float) -> Outcome:
    outcome = Outcome(delivery.id, delivery.attempt, states.SUCCESS, runtime=time.monotonic() - began)
    if request.ignore_result:
        outcome.keep = False
        return outcome
    if value is not None:
        outcome.result_encoding, outcome.result = encode_result(task, value)
    return outcome


def encode_result(task: Any, value: Any) -> tuple[str, str]:
    """Serialize a return value. Raises :class:`~django_tasks.exceptions.SerializationError`."""
    reduce = getattr(value, "as_message", None)
    if reduce is not None:
        value = reduce()
    encoding, text = dumps(value, settings.RESULT_SERIALIZER, settings.RESULT_COMPRESSION)
    if len(text) > settings.PAYLOAD_LIMIT // 4 and len(text.encode()) > settings.PAYLOAD_LIMIT:
        raise exceptions.PayloadTooLarge(
            f"The result of {task.name} takes {len(text.encode()):,} bytes; DJANGO_TASKS['PAYLOAD_LIMIT'] allows "
            f"{settings.PAYLOAD_LIMIT:,}. Store it elsewhere and return a key."
        )
    return encoding, text


def _raised(delivery: Delivery, task: Any, request: Context, error: BaseException, began: float) -> Execution:
    if isinstance(error, exceptions.Ignore):
        outcome = Outcome(delivery.id, delivery.attempt, states.IGNORED, runtime=time.monotonic() - began, keep=False)
        after = _after(task, request, states.IGNORED, error, None)
        if request._told is None:
            return Execution(outcome, after, value=error, request=request)
        outcome.state, outcome.result = request._told  # update_state() said how it ends
        outcome.keep = True
        if outcome.state in states.PROPAGATE_STATES:
            data = loads(outcome.result, "", ("json",))
            outcome.exception = storable(f"{data['exc_type']}: {data['text']}")[:255]
        return Execution(outcome, after, request=request)
    if isinstance(error, exceptions.Reject):
        signals.task_rejected.emit(task, message=request, exc=error)
        if error.requeue:
            back = Return(delivery.id, delivery.attempt)
            return Execution(back, _after(task, request, states.REJECTED, error, None), value=error, request=request)
    if not isinstance(error, exceptions.TaskPredicate) and _wants_autoretry(task, error):
        try:
            _autoretry(task, request, error)
        except BaseException as again:
            error = again
    if isinstance(error, exceptions.Retry):
        return _retrying(delivery, task, request, error, began)
    return _failed(delivery, task, request, error, began)


def _wants_autoretry(task: Any, error: BaseException) -> bool:
    return bool(
        task.autoretry_for and isinstance(error, task.autoretry_for) and not isinstance(error, task.dont_autoretry_for)
    )


def _autoretry(task: Any, request: Context, error: BaseException) -> None:
    options = dict(task.retry_kwargs)
    if request.max_retries is not None:  # the body asked for a retry itself, and was refused
        options["max_retries"] = request.max_retries
    if task.retry_backoff:
        options["countdown"] = backoff_delay(
            request.retries, factor=float(task.retry_backoff), maximum=task.retry_backoff_max, jitter=task.retry_jitter
        )
    task.retry(exc=error, **options)


def _retrying(delivery: Delivery, task: Any, request: Context, error: exceptions.Retry, began: float) -> Execution:
    # An exception that was made and never raised has no traceback: the retry itself tells where that was.
    text = traceback_text(error.exc if error.exc is not None and error.exc.__traceback__ is not None else error)
    changes: dict[str, Any] = getattr(error, "changes", {})
    back = Return(
        delivery.id,
        delivery.attempt,
        states.RETRY,
        delay=float(error.when) if isinstance(error.when, int | float) else None,
        eta=None if error.when is None or isinstance(error.when, int | float) else error.when,
        retries=request.retries + 1,
        history=_history(delivery, request, "RETRY", error.exc or error, text, began),
    )
    for name, value in changes.items():
        setattr(back, name, value)
    einfo = ExceptionInfo(error, text)

    def told() -> None:
        _handle(task.on_retry, error.exc or error, request.id, request.args, request.kwargs, einfo)
        signals.task_retry.emit(task, request=request, reason=error, einfo=einfo)

    logger.info(
        "Task %s[%s] is retried: %s", task.name, request.id, storable(str(error)),
        extra={"task_id": request.id, "task_name": task.name, "queue": delivery.queue, "state": states.RETRY},
    )  # fmt: skip
    return Execution(back, _after(task, request, states.RETRY, error, told), value=error, request=request)


def _failed(delivery: Delivery, task: Any, request: Context, error: BaseException, began: float) -> Execution:
    expected = bool(task.throws) and isinstance(error, tuple(task.throws))
    text = traceback_text(error)
    outcome = failure(delivery, error, text=text, runtime=time.monotonic() - began)
    einfo = ExceptionInfo(error, text)

    def told() -> None:
        _handle(task.on_failure, error, request.id, request.args, request.kwargs, einfo)
        signals.task_failure.emit(
            task, task_id=request.id, exception=error, args=request.args, kwargs=request.kwargs,
            traceback=error.__traceback__, einfo=einfo,
        )  # fmt: skip

    logger.log(
        logging.INFO if expected else logging.ERROR, "Task %s[%s] failed: %s", task.name, request.id, _line(error),
        exc_info=None if expected else (type(error), error, error.__traceback__),
        extra={"task_id": request.id, "task_name": task.name, "queue": delivery.queue, "state": states.FAILURE},
    )  # fmt: skip
    return Execution(outcome, _after(task, request, states.FAILURE, error, told), value=error, request=request)


def failure(
    delivery: Delivery,
    error: BaseException,
    *,
    state: str = states.FAILURE,
    text: str | None = None,
    runtime: float | None = None,
) -> Outcome:
    """Return the outcome of an attempt that ended by ``error``."""
    encoding, data = dumps(exception_to_data(error))
    return Outcome(
        delivery.id,
        delivery.attempt,
        state,
        result=data,
        result_encoding=encoding,
        exception=_line(error)[:255],
        traceback=text,
        runtime=runtime,
    )


def traceback_text(error: BaseException) -> str:
    """Return the traceback as storable text of bounded length; frames of this package are left out."""
    told: Any = tracebacks.TracebackException.from_exception(error)
    _leave_ours_out(told)
    text = storable("".join(told.format()))
    if len(text) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2
        text = f"{text[:half]}\n… {len(text) - TRACEBACK_LIMIT:,} characters left out …\n{text[-half:]}"
    return text


def _leave_ours_out(told: Any) -> None:
    rest = [told]
    while rest:
        one = rest.pop()
        own = [frame for frame in one.stack if frame.filename not in _OURS]
        one.stack = tracebacks.StackSummary.from_list(own or one.stack)
        rest += [other for other in (one.__cause__, one.__context__) if other is not None]
        rest += getattr(one, "exceptions", None) or ()


def _line(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:
        message = "<no text: its __str__ failed>"
    return storable(" ".join(f"{type(error).__name__}: {message}".split()))


def _history(delivery: Delivery, request: Context, outcome: str, error: Any, text: str, began: float) -> str:
    entry = {
        "attempt": delivery.attempt,
        "outcome": outcome,
        "worker": request.hostname,
        "at": round(time.time(), 3),
        "runtime": round(time.monotonic() - began, 6),
        "error": exception_to_data(error),
        "traceback": text,
    }
    earlier = json.loads(delivery.history) if delivery.history else []
    return json.dumps([*earlier, entry])


# Telling ------------------------------------------------------------------------------------------------------------


def _after_success(task: Any, request: Context, outcome: Outcome, value: Any) -> Callable[[], None] | None:
    if not (task.handlers_overridden or signals.task_success.receivers or signals.task_postrun.receivers):
        return None

    def told() -> None:
        _handle(task.on_success, value, request.id, request.args, request.kwargs)
        signals.task_success.emit(task, result=value, runtime=outcome.runtime)

    return _after(task, request, states.SUCCESS, value, told)


def _after(
    task: Any, request: Context, state: str, value: Any, told: Callable[[], None] | None
) -> Callable[[], None] | None:
    """Return what runs once the outcome is stored, under the task's own request; ``None`` if nobody listens."""

    def after() -> None:
        token = current_request.set(request)
        try:
            if told is not None:
                told()
            if state in (states.SUCCESS, states.FAILURE):
                einfo = ExceptionInfo(value, traceback_text(value)) if state == states.FAILURE else None
                _handle(task.after_return, state, value, request.id, request.args, request.kwargs, einfo)
            signals.task_postrun.emit(
                task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs, retval=value, state=state
            )
        finally:
            current_request.reset(token)

    listens = task.handlers_overridden or signals.task_postrun.receivers or signals.task_success.receivers
    listens = listens or signals.task_failure.receivers or signals.task_retry.receivers
    return after if listens else None


def _handle(handler: Callable[..., Any], *args: Any) -> None:
    try:
        handler(*args)
    except Exception:
        logger.exception("Handler %s of a task failed", getattr(handler, "__qualname__", handler))


# Before the body ----------------------------------------------------------------------------------------------------


def _request(
    delivery: Delivery, task: Any, args: Any, kwargs: Any, options: dict[str, Any], worker: str, eager: bool
) -> Context:
    task_id = delivery.custom_id or delivery.id
    properties = options.get("properties")
    return Context(
        id=task_id,
        task=delivery.name,
        args=args,
        kwargs=kwargs,
        retries=delivery.retries,
        attempt=delivery.attempt,
        called_directly=False,
        is_eager=eager,
        hostname=worker,
        ignore_result=drops_result(options, task),
        root_id=options.get("root_id") or delivery.root_id or task_id,
        parent_id=options.get("parent_id") or delivery.parent_id,
        correlation_id=task_id,
        reply_to=properties.get("reply_to") if properties else None,
        headers=options.get("headers"),
        properties=properties,
        shadow=options.get("shadow"),
        argsrepr=options.get("argsrepr"),
        kwargsrepr=options.get("kwargsrepr"),
        eta=_iso(delivery.due) if delivery.retries or options.get("eta") else None,
        expires=options.get("expires"),
        delivery_info={
            "exchange": "",
            "routing_key": delivery.queue,
            "queue": delivery.queue,
            "priority": delivery.priority,
            "redelivered": delivery.attempt - delivery.retries > 1,
        },
        _owner=task,
        _outer=current_request.get(),
        _delivery=delivery,
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _arguments(delivery: Delivery) -> tuple[Any, Any]:
    if delivery.body == "[[],{}]" and not delivery.encoding:
        return [], {}
    found = loads(delivery.body, delivery.encoding, settings.ACCEPT_CONTENT)
    if not (isinstance(found, list | tuple) and len(found) == 2 and isinstance(found[0], list | tuple)):
        raise exceptions.DecodeError("The message holds no [args, kwargs]")
    args, kwargs = found
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise exceptions.DecodeError("The message's keyword arguments are no mapping of names")
    return args, kwargs


def _not_to_run(delivery: Delivery) -> Execution | None:
    expired = delivery.expired
    if not delivery.revoked and not expired:
        return None
    text = "expired" if expired and not delivery.revoked else "revoked"
    request = Context(id=delivery.task_id, task=delivery.name, called_directly=False)
    outcome = failure(delivery, exceptions.TaskRevokedError(text), state=states.REVOKED)

    def after() -> None:
        task = tasks.get(delivery.name)
        signals.task_revoked.emit(task, request=request, terminated=False, signum=None, expired=expired)

    logger.info("Task %s[%s] %s", delivery.name, delivery.task_id, text)
    return Execution(outcome, after if signals.task_revoked.receivers else None)


def _unknown(delivery: Delivery) -> Execution:
    error = exceptions.NotRegistered(delivery.name)
    signals.task_unknown.emit(None, name=delivery.name, id=delivery.task_id, message=delivery, exc=error)
    logger.error(
        "Task %s[%s] is unknown to this worker: set aside until a worker that knows it runs.",
        delivery.name, delivery.task_id,
        extra={"task_id": delivery.task_id, "task_name": delivery.name, "queue": delivery.queue, "state":
        states.UNROUTABLE},
    )  # fmt: skip
    return Execution(Return(delivery.id, delivery.attempt, states.UNROUTABLE))


def _malformed(delivery: Delivery, task: Any, error: Exception) -> Execution:
    """A message that cannot be read ends as FAILURE, where people see it; it never stops the worker."""
    logger.error("Task %s[%s] cannot be read: %s", delivery.name, delivery.task_id, _line(error))
    if not isinstance(error, exceptions.SerializationError):
        error = exceptions.DecodeError(_line(error))
    return Execution(failure(delivery, error, text=traceback_text(error)))
