"""One call in, one outcome out: what happens between a delivery and its outcome, in a worker and in eager mode
alike."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, cast

from asgiref.sync import async_to_sync
from django.db import InterfaceError, transaction
from django.db import OperationalError as DatabaseOperationalError

from . import exceptions, listeners, signals, states
from .backends import get_broker
from .backends.message import Delivery, Outcome, Return, entries
from .client import drops_result, options_of
from .conf import settings
from .context import current_request
from .context_hooks import restored
from .error_reports import failure, headline, scrubbed, traceback_text
from .interrupts import softly, softly_awaited
from .journal import journals
from .place import Replaced, fields, received
from .redaction import Secrets, redacted, secrets_of
from .registry import tasks
from .request import Context
from .retry import backoff_delay
from .serialization import dumps, exception_to_data, loads, storable
from .time_limits import TimeLimits

logger = logging.getLogger("django_tasks.executor")

Done = Outcome | Return
_AS_IT_IS = nullcontext()

#: Runs a function that may block in a thread and awaits it.
Aside = Callable[..., Awaitable[Any]]


class Stop(Enum):
    """Why a coroutine was cancelled from outside."""

    REVOKED = "revoked"
    TIME_LIMIT = "time limit"
    #: The worker ends: the task goes back.
    SHUTDOWN = "shutdown"


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


class _LeaseLost(Exception):
    """The attempt is not the owner any more: nothing of it may be committed."""


def execute(
    delivery: Delivery, *, worker: str = "", eager: bool = False, limits: TimeLimits | None = None
) -> Execution:
    """Run one delivery and say what became of it. Never raises what the task raises.

    The soft one of ``limits`` is kept here, the hard one is for the caller to keep.
    """
    begun = _begin(delivery, worker, eager, limits)
    if isinstance(begun, Execution):
        return begun
    task, request = begun
    token = current_request.set(request)
    try:
        return _journaled(request, _run(delivery, task, request))
    finally:
        current_request.reset(token)


async def aexecute(
    delivery: Delivery, *, worker: str, limits: TimeLimits | None, aside: Aside, stopped: Callable[[], Stop | None]
) -> Execution:
    """Run one delivery of an ``async def`` task in the running loop, as :func:`execute` does in a thread.

    ``aside`` runs what may block; ``stopped`` says why the coroutine was cancelled from outside, if it was.
    """
    if delivery.linked:  # what it takes in is read from the database
        begun = cast("tuple[Any, Context] | Execution", await aside(_begin, delivery, worker, False, limits))
    else:
        begun = _begin(delivery, worker, False, limits)
    if isinstance(begun, Execution):
        return begun
    task, request = begun
    current_request.set(request)  # a coroutine of its own has a context of its own
    return _journaled(request, await _arun(delivery, task, request, aside, stopped))


def _begin(delivery: Delivery, worker: str, eager: bool, limits: TimeLimits | None) -> tuple[Any, Context] | Execution:
    """Return the task and the request under which it runs, or what becomes of a delivery that is not to run."""
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
        if "node" in options:
            args = received(options["node"], task, args, kwargs, delivery.stored)
        request = _request(delivery, task, args, kwargs, options, worker, eager)
        if options and "context" in options:
            request._carried = options["context"]
            request.origin = options["context"].get("origin")
    except (DatabaseOperationalError, InterfaceError):
        return Execution(Return(delivery.id, delivery.attempt))  # what it takes in cannot be read now
    except exceptions.UnknownResult as error:
        return Execution(failure(delivery, error, text=traceback_text(error)))
    except Exception as error:
        return _malformed(delivery, task, error)
    if limits is not None:
        request.timelimit = limits
    if journals.active and not eager:
        request._journal = journals.begin(task, delivery.id, delivery.attempt, args, kwargs)
    return task, request


def _journaled(request: Context, execution: Execution) -> Execution:
    """End the attempt's journal, if it has one."""
    if request._journal is not None:
        done = execution.done
        journals.end(request._journal, kept=done.keep if isinstance(done, Outcome) else True)
    return execution


def _run(delivery: Delivery, task: Any, request: Context) -> Execution:
    began = time.monotonic()
    try:
        if request._carried is None:
            return _attempt(delivery, task, request, began)
        with restored(request._carried):
            return _attempt(delivery, task, request, began)
    except _LeaseLost:
        return Execution(Return(delivery.id, delivery.attempt))
    except BaseException as error:
        if request.is_eager and isinstance(error, KeyboardInterrupt):
            raise  # somebody at the keyboard means the whole process
        execution = _raised(delivery, task, request, error, began)
        execution.failed = True
        return execution


def _attempt(delivery: Delivery, task: Any, request: Context, began: float) -> Execution:
    if signals.task_prerun.receivers or task.before_start_overridden:
        _before(task, request)
    if not task.atomic:
        value = _call(task, request)
        outcome = _success(delivery, task, request, value, began)
    elif request.is_eager:
        with transaction.atomic(using=settings.DATABASE):
            value = _call(task, request)
            outcome = _success(delivery, task, request, value, began)
    else:
        return _run_atomic(delivery, task, request, began)
    return Execution(outcome, listeners.after_success(task, request, outcome, value), value=value, request=request)


async def _arun(
    delivery: Delivery, task: Any, request: Context, aside: Aside, stopped: Callable[[], Stop | None]
) -> Execution:
    began = time.monotonic()
    try:
        with _AS_IT_IS if request._carried is None else restored(request._carried):
            if signals.task_prerun.receivers or task.before_start_overridden:
                await aside(_before, task, request)
            value = await _acall(task, request)
            outcome = _success(delivery, task, request, value, began)
    except BaseException as error:
        stop = stopped() if isinstance(error, asyncio.CancelledError) else None
        if stop is not None:
            return _stopped(delivery, task, request, stop, error, began)
        execution = cast(Execution, await aside(_raised, delivery, task, request, error, began))
        execution.failed = True
        return execution
    return Execution(outcome, listeners.after_success(task, request, outcome, value), value=value, request=request)


def _before(task: Any, request: Context) -> None:
    signals.task_prerun.emit(task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs)
    if task.before_start_overridden:
        task.before_start(request.id, request.args, request.kwargs)


def _run_atomic(delivery: Delivery, task: Any, request: Context, began: float) -> Execution:
    """Run the body and store its outcome in one transaction: both happen, or neither."""
    broker = get_broker()
    committing = False
    try:
        with transaction.atomic(using=broker.alias):
            try:
                value = _call(task, request)
            except Replaced as error:
                execution = _replaced(delivery, task, request, error, began)
                if not broker.replace_within(cast(Return, execution.done)):
                    raise _LeaseLost from None
                execution.stored = committing = True
                return execution
            outcome = _success(delivery, task, request, value, began)
            if not broker.finish_within(outcome, request.hostname or ""):
                raise _LeaseLost
            committing = True
    except DatabaseOperationalError:
        if not committing:
            raise
        # Whether the commit took effect is unknown. Giving it back is refused if it did.
        return Execution(Return(delivery.id, delivery.attempt))
    return Execution(
        outcome, listeners.after_success(task, request, outcome, value), stored=True, value=value, request=request
    )


def _call(task: Any, request: Context) -> Any:
    soft = request.timelimit[1]
    if soft is None or task.is_async:
        value = _body(task, request)
    else:
        with softly(soft):
            value = _body(task, request)
    if value is None and task._models is None and request._retry is None:
        return None
    if hasattr(value, "__await__"):
        value = async_to_sync(_awaited)(value, soft)
    return _returned(task, request, value)


async def _acall(task: Any, request: Context) -> Any:
    value = _body(task, request)
    if hasattr(value, "__await__"):
        value = await _awaited(value, request.timelimit[1])
    return _returned(task, request, value)


def _body(task: Any, request: Context) -> Any:
    args, kwargs = request.args, request.kwargs
    if task._models is not None:  # pydantic=True
        args, kwargs = task._models.received(args, kwargs, task.sensitive)
    if task.call_overridden:
        return task(*args, **kwargs)
    request._entered = True
    return task.run(*args, **kwargs)


def _returned(task: Any, request: Context, value: Any) -> Any:
    if value is not None and isinstance(value, GeneratorType | AsyncGeneratorType):
        raise TypeError(f"{task.name} returned a generator: nothing of its body has run. Return a list instead.")
    if task._models is not None:
        value = task._models.returned(value, **(task.pydantic_dump_kwargs or {}))
    if request._retry is not None:  # retry(throw=False): the retry stands, whatever the body returned
        raise request._retry
    return value


async def _awaited(value: Any, soft: float | None) -> Any:
    return await value if soft is None else await softly_awaited(value, soft)


def _is_tagged(delivery: Delivery, request: Context) -> bool:
    """Has it tags: its own, or one of a copy that names the task which it runs again?"""
    return bool(request.tags) or (delivery.options is not None and '"retry_of"' in delivery.options)


def _success(delivery: Delivery, task: Any, request: Context, value: Any, began: float) -> Outcome:
    outcome = Outcome(delivery.id, delivery.attempt, states.SUCCESS, runtime=time.monotonic() - began)
    outcome.linked, outcome.in_chord = delivery.linked, request.chord is not None
    if request.ignore_result and not request._feeds:
        outcome.keep, outcome.tagged = False, _is_tagged(delivery, request)
        return outcome
    if value is not None:
        outcome.result_encoding, outcome.result = encode_result(task, value)
    if task.sensitive:
        args, kwargs = _arguments(delivery)
        outcome.body = redacted(task, args, kwargs, taken=len(request.args) - len(args))
        outcome.linked |= outcome.body is not None  # more than its own line has to be written
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
    if isinstance(error, Replaced):
        return _replaced(delivery, task, request, error, began)
    if isinstance(error, exceptions.Ignore):
        ran = time.monotonic() - began
        outcome = Outcome(delivery.id, delivery.attempt, states.IGNORED, runtime=ran, keep=request._feeds)
        outcome.tagged, outcome.linked = _is_tagged(delivery, request), delivery.linked
        after = listeners.after(task, request, states.IGNORED, error, None)
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
            # Once is enough to tell later attempts, and it may be rejected for ever.
            told = delivery.redelivered
            hidden = secrets_of(task, request.args, request.kwargs)
            text = traceback_text(error, hidden)
            log = None if told else _history(delivery, request, "REQUEUED", error, text, began, hidden)
            back = Return(delivery.id, delivery.attempt, history=log)
            return Execution(
                back, listeners.after(task, request, states.REJECTED, error, None), value=error, request=request
            )
    if not isinstance(error, exceptions.TaskPredicate) and _wants_autoretry(task, error):
        try:
            _autoretry(task, request, error)
        except BaseException as again:
            error = again
    if isinstance(error, exceptions.Retry):
        return _retrying(delivery, task, request, error, began)
    return _failed(delivery, task, request, error, began)


def _stopped(
    delivery: Delivery, task: Any, request: Context, stop: Stop, error: BaseException, began: float
) -> Execution:
    """Return what becomes of a coroutine that was cancelled from outside, and ended of it."""
    if stop is Stop.SHUTDOWN:
        return Execution(Return(delivery.id, delivery.attempt), request=request)
    if stop is Stop.TIME_LIMIT:
        limit = exceptions.TimeLimitExceeded(request.timelimit[0])
        limit.__cause__ = error  # tells where it was
        return _failed(delivery, task, request, limit, began)
    revoked = exceptions.TaskRevokedError("revoked")
    outcome = failure(delivery, revoked, state=states.REVOKED, runtime=time.monotonic() - began)

    def after() -> None:
        signals.task_revoked.emit(task, request=request, terminated=True, signum=None, expired=False)

    return Execution(outcome, after if signals.task_revoked.receivers else None, value=revoked, request=request)


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
    hidden = secrets_of(task, request.args, request.kwargs)
    text = traceback_text(error.exc if error.exc is not None and error.exc.__traceback__ is not None else error, hidden)
    changes: dict[str, Any] = getattr(error, "changes", {})
    back = Return(
        delivery.id,
        delivery.attempt,
        states.RETRY,
        delay=float(error.when) if isinstance(error.when, int | float) else None,
        eta=None if error.when is None or isinstance(error.when, int | float) else error.when,
        retries=request.retries + 1,
        history=_history(delivery, request, "RETRY", error.exc or error, text, began, hidden),
    )
    for name, value in changes.items():
        setattr(back, name, value)
    einfo = listeners.ExceptionInfo(error, text)

    def told() -> None:
        listeners.handle(task.on_retry, error.exc or error, request.id, request.args, request.kwargs, einfo)
        signals.task_retry.emit(task, request=request, reason=error, einfo=einfo)

    logger.info(
        "Task %s[%s] is retried: %s", task.name, request.id, scrubbed(storable(str(error)), hidden),
        extra={"task_id": request.id, "task_name": task.name, "queue": delivery.queue, "state": states.RETRY},
    )  # fmt: skip
    return Execution(back, listeners.after(task, request, states.RETRY, error, told), value=error, request=request)


def _replaced(delivery: Delivery, task: Any, request: Context, error: Replaced, began: float) -> Execution:
    entry = {
        "attempt": delivery.attempt,
        "outcome": "REPLACED",
        "worker": request.hostname,
        "at": round(time.time(), 3),
        "runtime": round(time.monotonic() - began, 6),
        "error": f"{task.name} put {error.replacement.own.name} in its place",
    }
    log = json.dumps([*entries(delivery.history), entry])
    back = Return(delivery.id, delivery.attempt, history=log, replacement=error.replacement)
    return Execution(back, listeners.after(task, request, states.IGNORED, error, None), value=error, request=request)


def _failed(delivery: Delivery, task: Any, request: Context, error: BaseException, began: float) -> Execution:
    expected = bool(task.throws) and isinstance(error, tuple(task.throws))
    hidden = secrets_of(task, request.args, request.kwargs)
    text = traceback_text(error, hidden)
    outcome = failure(delivery, error, text=text, runtime=time.monotonic() - began, hidden=hidden)
    einfo = listeners.ExceptionInfo(error, text)

    def told() -> None:
        listeners.handle(task.on_failure, error, request.id, request.args, request.kwargs, einfo)
        signals.task_failure.emit(
            task, task_id=request.id, exception=error, args=request.args, kwargs=request.kwargs,
            traceback=error.__traceback__, einfo=einfo,
        )  # fmt: skip

    # What a handler of logs reads from the exception itself could tell what is hidden: then it gets the text alone.
    with_error = not expected and hidden is None
    with_text = f"\n{text.rstrip()}" if not expected and hidden is not None else ""
    logger.log(
        logging.INFO if expected else logging.ERROR,
        "Task %s[%s] failed: %s%s", task.name, request.id, headline(error, hidden), with_text,
        exc_info=(type(error), error, error.__traceback__) if with_error else None,
        extra={"task_id": request.id, "task_name": task.name, "queue": delivery.queue, "state": states.FAILURE},
    )  # fmt: skip
    return Execution(outcome, listeners.after(task, request, states.FAILURE, error, told), value=error, request=request)


def _history(
    delivery: Delivery,
    request: Context,
    outcome: str,
    error: Any,
    text: str,
    began: float,
    hidden: Secrets | None = None,
) -> str:
    told = exception_to_data(error)
    entry = {
        "attempt": delivery.attempt,
        "outcome": outcome,
        "worker": request.hostname,
        "at": round(time.time(), 3),
        "runtime": round(time.monotonic() - began, 6),
        "error": told if hidden is None else hidden.scrub_all(told),
        "traceback": text,
    }
    return json.dumps([*entries(delivery.history), entry])


# Before the body ----------------------------------------------------------------------------------------------------


def _request(
    delivery: Delivery, task: Any, args: Any, kwargs: Any, options: dict[str, Any], worker: str, eager: bool
) -> Context:
    task_id = delivery.custom_id or delivery.id
    return Context(
        _of_options(options, task_id) if options else _WITHOUT_OPTIONS,
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
        eta=_iso(delivery.due) if delivery.retries or options.get("eta") else None,
        delivery_info={
            "exchange": "",
            "routing_key": delivery.queue,
            "queue": delivery.queue,
            "priority": delivery.priority,
            "redelivered": delivery.redelivered,
        },
        _owner=task,
        _outer=current_request.get(),
        _delivery=delivery,
    )


def _of_options(options: dict[str, Any], task_id: str) -> dict[str, Any]:
    """Return the fields of a request that the options of its call tell alone."""
    properties = options.get("properties")
    return {
        "reply_to": properties.get("reply_to") if properties else None,
        "headers": options.get("headers"),
        "scheduled_for": _scheduled_for(options.get("headers")),
        "tags": tuple(options["tags"]) if "tags" in options else (),
        "properties": properties,
        "shadow": options.get("shadow"),
        "argsrepr": options.get("argsrepr"),
        "kwargsrepr": options.get("kwargsrepr"),
        "expires": options.get("expires"),
        **fields(options, task_id),
    }


def _scheduled_for(headers: Any) -> Any:
    value = headers.get("scheduled_for") if isinstance(headers, dict) else None
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:  # a header of that name which no schedule wrote
        return value


#: What the options of most calls tell: nothing.
_WITHOUT_OPTIONS: Final = _of_options({}, "")


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
    logger.error("Task %s[%s] cannot be read: %s", delivery.name, delivery.task_id, headline(error))
    if not isinstance(error, exceptions.SerializationError):
        error = exceptions.DecodeError(headline(error))
    return Execution(failure(delivery, error, text=traceback_text(error)))
