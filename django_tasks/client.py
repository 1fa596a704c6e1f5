"""The one door to row and broker: turns a call into a message, stores it, and looks a call up."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from django.db import connections
from django.utils import timezone

from . import ids, routing, signals
from .backends import get_broker, get_results
from .backends.message import Message
from .backends.results import Record
from .conf import settings
from .context import current_request
from .exceptions import OperationalError, PayloadTooLarge
from .retry import publish_delays
from .serialization import dumps

logger = logging.getLogger(__name__)

#: What a task or a call may be given: read here.
CALL_OPTIONS = frozenset(
    [
        "countdown",
        "eta",
        "expires",
        "queue",
        "priority",
        "task_id",
        "headers",
        "serializer",
        "compression",
        "ignore_result",
        "retry",
        "retry_policy",
        "shadow",
        "argsrepr",
        "kwargsrepr",
        "root_id",
        "parent_id",
        "routing_key",
        "exchange",
        "acks_late",
    ]
)
#: Accepted as in Celery, where they name AMQP objects; there is nothing that they could mean here.
MEANINGLESS = frozenset(
    ["producer", "connection", "publisher", "add_to_parent", "exchange_type", "delivery_mode", "mandatory", "immediate"]
)

_NOTHING = dumps([[], {}])


def build(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], task: Any = None
) -> Message:
    """Return the message of a call; ``options`` are the call's own, ``task`` supplies its declared ones.

    Raises ``TypeError`` or ``ValueError`` for a bad option, :class:`~django_tasks.exceptions.EncodeError` for
    arguments that
    cannot be serialized, :class:`~django_tasks.exceptions.PayloadTooLarge` beyond ``PAYLOAD_LIMIT``.
    """
    routed: Mapping[str, Any] = options
    if settings.TASK_ROUTES is not None:
        found = routing.route(name, args, kwargs, options, task)
        # What the call says wins over the route, which wins over the task.
        routed = {**found, **{key: value for key, value in options.items() if value is not None}} if found else options
    given = routed.get
    queue = given("queue") or given("routing_key") or given("exchange") or getattr(task, "queue", None)
    priority = given("priority")
    encoding, body = _encode(args, kwargs, given("serializer"), given("compression"), task, name)
    task_id = given("task_id")
    parent = current_request.get()
    if priority is None:
        priority = getattr(task, "priority", None)
        if priority is None and settings.TASK_INHERIT_PARENT_PRIORITY and parent is not None:
            priority = (parent.delivery_info or {}).get("priority")
        if priority is None:
            priority = settings.TASK_DEFAULT_PRIORITY
    message = Message(
        id=ids.new_id() if task_id is None else _task_key(task_id),
        name=name,
        queue=settings.TASK_DEFAULT_QUEUE if queue is None else routing.validate_queue(queue),
        body=body,
        encoding=encoding,
        priority=routing.validate_priority(priority) if priority else 0,
    )
    if task_id is not None and task_id != message.id:
        message.custom_id = task_id
    acks_late = given("acks_late")
    if acks_late is None:
        acks_late = getattr(task, "acks_late", None)
    if acks_late is None:
        requeue = getattr(task, "reject_on_worker_lost", None)
        acks_late = settings.TASK_ACKS_LATE and (settings.TASK_REJECT_ON_WORKER_LOST if requeue is None else requeue)
    if not acks_late:
        message.at_most_once = True
    if parent is not None and not parent.called_directly:
        message.parent_id = ids.key_of(parent.id)
        message.root_id = ids.key_of(parent.root_id or parent.id)
    if options:
        _schedule(message, given("countdown"), given("eta"))
        message.options = _message_options(routed)
    expires = given("expires")
    if expires is None:
        expires = getattr(task, "expires", None)
    if expires is not None:
        _expire(message, expires)
    return message


def publish(messages: Sequence[Message], *, retry: bool | None = None, policy: Mapping[str, Any] | None = None) -> None:
    """Store messages in the caller's transaction; outside of one, try again as ``policy`` says.

    Raises :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached, within the time
    that the
    policy and the database's own timeouts allow.
    """
    broker = get_broker()
    try:
        broker.publish(messages)
        return
    except OperationalError:
        again = settings.TASK_PUBLISH_RETRY if retry is None else retry
        if not again or connections[broker.alias].in_atomic_block:
            raise  # a broken transaction stays broken: its owner must begin it anew
    error: OperationalError | None = None
    for delay in publish_delays(policy if policy is not None else settings.TASK_PUBLISH_RETRY_POLICY):
        time.sleep(delay)
        try:
            connections[broker.alias].close_if_unusable_or_obsolete()
            broker.publish(messages)
            return
        except OperationalError as again_failed:
            error = again_failed
    raise error or OperationalError("The task could not be stored and retry_policy allows no further try.")


def send(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], task: Any = None
) -> str:
    """Store one call; return its id.

    An id chosen by the caller is a key: a call whose id is waiting, running or in the ledger is not stored again.
    """
    listeners = signals.before_task_publish.receivers or signals.after_task_publish.receivers
    if listeners:
        options = _tell_before(name, args, kwargs, options)
    message = build(name, args, kwargs, options, task)
    if options.get("task_id") is None or not exists(message.id):
        publish([message], retry=options.get("retry"), policy=options.get("retry_policy"))
    task_id = message.custom_id or message.id
    if listeners:
        signals.after_task_publish.emit(
            name, headers={"id": task_id, "task": name}, body=(args, kwargs, {}), exchange="", routing_key=message.queue
        )
    return task_id


def send_many(
    name: str, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]], options: Mapping[str, Any], task: Any
) -> list[str]:
    """Store many calls of one task, in statements of a thousand, all or none; return their ids in order."""
    if options.get("task_id") is not None:
        raise TypeError("enqueue_many() makes the ids itself: the option 'task_id' names one call")
    listeners = signals.before_task_publish.receivers or signals.after_task_publish.receivers
    messages = []
    for args, kwargs in calls:
        own = _tell_before(name, args, kwargs, options) if listeners else options
        messages.append(build(name, args, kwargs, own, task))
    if messages:
        publish(messages, retry=options.get("retry"), policy=options.get("retry_policy"))
    if listeners:
        for message in messages:
            signals.after_task_publish.emit(
                name, headers={"id": message.id, "task": name}, body=None, exchange="", routing_key=message.queue
            )
    return [message.id for message in messages]


def read(task_id: str) -> Record | None:
    """Return what is known of a task, ``None`` if nobody knows it."""
    return get_results().read(task_id)


def read_outside(task_id: str) -> Record | None:
    """Return what everybody else can know of a task by now, whatever transaction is open here."""

    def read_apart() -> Record | None:
        try:
            return read(task_id)
        finally:
            connections[get_results().alias].close()

    with ThreadPoolExecutor(max_workers=1) as apart:  # a thread has connections of its own
        return apart.submit(read_apart).result()


def exists(task_id: str) -> bool:
    """Is a task of this id waiting, running or in the ledger?"""
    return read(task_id) is not None


def _task_key(task_id: Any) -> str:
    if not isinstance(task_id, str) or not task_id or len(task_id) > 255:
        raise ValueError(f"task_id must be a string of 1 to 255 characters, not {task_id!r}")
    return ids.key_of(task_id)


def _encode(
    args: Sequence[Any], kwargs: Mapping[str, Any], serializer: Any, compression: Any, task: Any, name: str
) -> tuple[str, str]:
    serializer = serializer or getattr(task, "serializer", None) or settings.TASK_SERIALIZER
    compression = compression or getattr(task, "compression", None) or settings.TASK_COMPRESSION
    if not args and not kwargs and serializer == "json" and compression is None:
        return _NOTHING
    encoding, body = dumps([args, kwargs], serializer, compression)
    if len(body) > settings.PAYLOAD_LIMIT // 4 and len(body.encode()) > settings.PAYLOAD_LIMIT:
        raise PayloadTooLarge(
            f"The arguments of {name} take {len(body.encode()):,} bytes; DJANGO_TASKS['PAYLOAD_LIMIT'] allows "
            f"{settings.PAYLOAD_LIMIT:,}. Store them elsewhere and send a key."
        )
    return encoding, body


def _schedule(message: Message, countdown: Any, eta: Any) -> None:
    if countdown is not None:
        if eta is not None:
            raise ValueError("Give either countdown (seconds) or eta (datetime), not both")
        if isinstance(countdown, bool) or not isinstance(countdown, int | float) or countdown != countdown:
            raise TypeError(f"countdown must be seconds as a number, not {countdown!r}")
        message.delay = max(0.0, float(countdown))
        _within_calendar(message.delay, "countdown")
    elif eta is not None:
        if isinstance(eta, str):
            eta = datetime.fromisoformat(eta)
        if not isinstance(eta, datetime):
            raise TypeError(f"eta must be a datetime, not {eta!r}")
        message.eta = timezone.make_aware(eta) if timezone.is_naive(eta) else eta


def _expire(message: Message, expires: Any) -> None:
    if isinstance(expires, timedelta):
        expires = expires.total_seconds()
    if isinstance(expires, str):
        expires = datetime.fromisoformat(expires)
    if isinstance(expires, datetime):
        message.expires_at = timezone.make_aware(expires) if timezone.is_naive(expires) else expires
    elif isinstance(expires, int | float) and not isinstance(expires, bool) and expires == expires:
        message.expires_in = float(expires)
        _within_calendar(message.expires_in, "expires")
    else:
        raise TypeError(f"expires must be seconds as a number, a timedelta or a datetime, not {expires!r}")


def _within_calendar(seconds: float, option: str) -> None:
    if abs(seconds) > 3_000_000_000:  # 95 years: beyond it, databases disagree on what a date is
        raise ValueError(f"{option}={seconds!r} lies more than 95 years away")


def _message_options(given: Mapping[str, Any]) -> str | None:
    """Return what the row has no column for, as JSON; ``None`` for most calls."""
    kept: dict[str, Any] = {}
    for key in ("headers", "shadow", "argsrepr", "kwargsrepr", "ignore_result"):
        if given.get(key) is not None:
            kept[key] = given[key]
    if given.get("countdown") is not None or given.get("eta") is not None:
        kept["eta"] = True
    unknown = {key: value for key, value in given.items() if key not in CALL_OPTIONS and key not in MEANINGLESS}
    if unknown:
        kept["properties"] = unknown
    return dumps(kept)[1] if kept else None


def _tell_before(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Mapping[str, Any]:
    headers = dict(options.get("headers") or {})
    signals.before_task_publish.emit(
        name, body=(args, kwargs, {}), headers=headers, properties={}, exchange="", routing_key=options.get("queue"),
        declare=[],
        retry_policy=options.get("retry_policy"),
    )  # fmt: skip
    return {**options, "headers": headers} if headers else options


def options_of(message_options: str | None) -> dict[str, Any]:
    """Return a message's options as a dict."""
    if not message_options:
        return {}
    found = json.loads(message_options)
    return found if isinstance(found, dict) else {}
