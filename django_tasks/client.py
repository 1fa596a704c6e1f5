"""The one door to row and broker: turns a call into a message, stores it, and looks a call up."""

from __future__ import annotations

import logging
import reprlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from django.db import InterfaceError, connections, transaction
from django.db import OperationalError as DatabaseOperationalError
from django.utils import timezone

from . import ids, routing, signals
from .backends import get_broker, get_results
from .backends.message import Edge, Message
from .backends.results import Record
from .conf import settings
from .context import current_request
from .context_hooks import captured, origin
from .exceptions import DecodeError, OperationalError, PayloadTooLarge
from .flow import Flow, validate_tags
from .moments import due_of, expiry_of
from .redaction import hidden_call, taken_in
from .registry import tasks
from .request import Context
from .retry import publish_delays, validate_publish_policy
from .serialization import dumps, loads
from .stamps import wanted
from .time_limits import TimeLimits, validate_limits

logger = logging.getLogger(__name__)

T = TypeVar("T")

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
        "time_limit",
        "soft_time_limit",
        "unique",
        "tags",
        "durable",
        "stamped_headers",
        "replaced_task_nesting",
    ]
)
#: Accepted as in Celery, where they name AMQP objects; there is nothing that they could mean here.
MEANINGLESS = frozenset(
    ["producer", "connection", "publisher", "add_to_parent", "exchange_type", "delivery_mode", "mandatory", "immediate"]
)

#: What the value of an option has to be, where it is not looked at anyway.
_TYPES: dict[str, tuple[type, str]] = {
    "headers": (Mapping, "a dict"),
    "shadow": (str, "a text"),
    "argsrepr": (str, "a text"),
    "kwargsrepr": (str, "a text"),
    "ignore_result": (bool, "True or False"),
    "acks_late": (bool, "True or False"),
    "retry": (bool, "True or False"),
    "durable": (bool, "True or False"),
}
_NOTHING = dumps([[], {}])
#: Tasks that are cancelled together.
BATCH = 500


def build(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    task: Any = None,
    *,
    place: Mapping[str, Any] | None = None,
) -> Message:
    """Return the message of a call; ``options`` are the call's own, ``task`` supplies its declared ones.

    ``place`` is what its options are to say of its place in a workflow.

    Raises ``TypeError`` or ``ValueError`` for a bad option, :class:`~django_tasks.exceptions.EncodeError` for
    arguments that cannot be serialized, :class:`~django_tasks.exceptions.PayloadTooLarge` beyond ``PAYLOAD_LIMIT``.
    """
    if getattr(task, "shadow_overridden", False) and options.get("shadow") is None:
        options = {**options, "shadow": task.shadow_name(args, kwargs, options)}
    routed: Mapping[str, Any] = options
    if settings.TASK_ROUTES is not None:
        found = routing.route(name, args, kwargs, options, task)
        # What the call says wins over the route, which wins over the task.
        routed = {**found, **{key: value for key, value in options.items() if value is not None}} if found else options
    given = routed.get
    queue = given("queue") or given("routing_key") or given("exchange") or getattr(task, "queue", None)
    priority = given("priority")
    encoding, body = encode(args, kwargs, given("serializer"), given("compression"), task, name)
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
    if task_id is not None and str(task_id) != message.id:
        message.custom_id = task_id
    if is_at_most_once(task, given("acks_late")):
        message.at_most_once = True
    parent_id, root_id = given("parent_id"), given("root_id")
    if parent is not None and not parent.called_directly:
        parent_id = parent_id or parent.id
        root_id = root_id or parent.root_id or parent.id
    if parent_id or root_id:
        message.parent_id = _task_key(parent_id) if parent_id else None
        message.root_id = _task_key(root_id) if root_id else None
    if options:
        message.delay, message.eta = due_of(given("countdown"), given("eta"))
        if task is not None and (given("time_limit") is not None or given("soft_time_limit") is not None):
            declared = TimeLimits(task.time_limit, task.soft_time_limit)
            validate_limits(*TimeLimits(given("time_limit"), given("soft_time_limit")).over(declared))
    expires = given("expires")
    if expires is None:
        expires = getattr(task, "expires", None)
    if expires is not None:
        message.expires_in, message.expires_at = expiry_of(expires)
    if options or place or expires is not None or message.parent_id != parent_id or message.root_id != root_id:
        message.options = _message_options(routed, message, parent_id, root_id, place)
    sensitive = getattr(task, "sensitive", None)
    if sensitive:
        message.options = dumps({**options_of(message.options), "sensitive": list(sensitive)})[1]
    carried = captured()
    if carried is not None:
        message.options = dumps({**options_of(message.options), "context": carried})[1]
    flow = getattr(task, "_flow", None)
    if flow is not None or (options and (options.get("tags") or options.get("unique") is not None)):
        # What comes before it will be its first argument, and no limit counts by that.
        taken = () if not place or not (node := place.get("node")) or not node.get("takes") else (None,)
        _control_flow(message, flow, (*taken, *args), kwargs, routed)
    if not (settings.TASK_DURABLE and given("durable") is None and getattr(task, "durable", None) is None):
        message.durable = _is_durable(message, given("durable"), task, place)
    return message


def _is_durable(message: Message, said: bool | None, task: Any, place: Any) -> bool:
    """Is a call to have a row until it is done? The call says, else the task, else ``TASK_DURABLE``.

    What others wait for, or what waits itself, has one whatever its task says.
    Raises ``ValueError`` if call or task say no to what cannot do without.
    """
    is_linked = bool(place) and "node" in place
    if is_linked and said is None:
        return True
    said = getattr(task, "durable", None) if said is None else said
    if said is not None and not isinstance(said, bool):
        raise TypeError(f"durable must be True or False, not {said!r}")
    needs = {
        "a limit": message.limit_key is not None,
        "unique": message.unique is not None,
        "tags": message.tags,
        "a place in a workflow": is_linked,
    }
    needed = [what for what, has in needs.items() if has]
    if said is False and needed:
        raise ValueError(
            f"{message.name} has {needed[0]}, which is kept in its row: it cannot be sent with durable=False"
        )
    return bool(needed) or (settings.TASK_DURABLE if said is None else said)


def _control_flow(
    message: Message, flow: Flow | None, args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Say of a message what limits, uniqueness and tags there are for it."""
    unique = given.get("unique")
    if unique is not None and not isinstance(unique, bool):
        raise TypeError(f"unique is {unique!r}; allowed in a call: False, to send it in any case")
    if unique and not (flow is not None and flow.is_unique):
        raise ValueError(f"{message.name} is not declared with unique: that is where it is said what makes it unique")
    kept: dict[str, Any] = {}
    if flow is not None:
        message.limit_key = flow.limit_key(args, kwargs)
        if message.limit_key:
            kept["limit_key"] = message.limit_key
        if flow.is_unique and unique is not False:
            message.unique = flow.unique(message, args, kwargs)
    tags = validate_tags([*(flow.tags if flow is not None else ()), *validate_tags(given.get("tags"))])
    if tags:
        message.tags, kept["tags"] = tags, tags
    if kept:
        message.options = dumps({**options_of(message.options), **kept})[1]


def prepare(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    task: Any = None,
    *,
    place: Mapping[str, Any] | None = None,
) -> Message:
    """Return the message of a call, as :meth:`build` does, once ``before_task_publish`` has been told of it.

    Its receivers may add headers and properties; they cannot change what the call says otherwise.
    """
    message = build(name, args, kwargs, options, task, place=place)
    if signals.before_task_publish.receivers:
        kept = options_of(message.options)
        protocol, own = _headers(message, args, kwargs, kept), kept.get("headers", {})
        before = {"correlation_id": protocol["id"], "reply_to": "", **kept.get("properties", {})}
        headers, properties = {**protocol, **own}, dict(before)
        signals.before_task_publish.emit(
            name, body=_body(args, kwargs), headers=headers, properties=properties, exchange="",
            routing_key=message.queue, declare=[],
            retry_policy={**settings.TASK_PUBLISH_RETRY_POLICY, **(options.get("retry_policy") or {})},
        )  # fmt: skip
        kept["headers"] = {key: value for key, value in headers.items() if key in own or key not in protocol}
        changed = {key: value for key, value in properties.items() if before.get(key) != value}
        kept["properties"] = {**kept.get("properties", {}), **changed}
        kept = {key: value for key, value in kept.items() if value != {}}
        message.options = dumps(kept)[1] if kept else None
    return message


def tell_sent(message: Message, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Tell ``after_task_publish`` of a message."""
    if signals.after_task_publish.receivers:
        kept = options_of(message.options)
        headers = {**_headers(message, args, kwargs, kept), **kept.get("headers", {})}
        signals.after_task_publish.emit(
            message.name, body=_body(args, kwargs), headers=headers, exchange="", routing_key=message.queue
        )


def publish(messages: Sequence[Message], *, retry: bool | None = None, policy: Mapping[str, Any] | None = None) -> None:
    """Store messages in the caller's transaction; outside of one, try again as ``policy`` says.

    Raises :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached, within the time
    that the policy and the database's own timeouts allow.
    """
    _persist(lambda: get_broker().publish(messages), retry, policy)


def publish_workflow(
    messages: Sequence[Message],
    edges: Sequence[Edge],
    *,
    retry: bool | None = None,
    policy: Mapping[str, Any] | None = None,
) -> None:
    """Store messages and what comes after what, all or nothing, as :func:`publish` does."""
    _persist(lambda: get_broker().publish_workflow(messages, edges), retry, policy)


def _persist(work: Callable[[], T], retry: bool | None, policy: Mapping[str, Any] | None) -> T:
    """Return what ``work()`` does, trying again after an ``OperationalError``, or after the ``retry_errors`` of
    ``policy``; what that leaves out is as ``TASK_PUBLISH_RETRY_POLICY`` says."""
    alias = get_broker().alias
    delays: Iterator[float] | None = None
    while True:
        try:
            return work()
        except Exception as error:
            again = settings.TASK_PUBLISH_RETRY if retry is None else retry
            if not again or connections[alias].in_atomic_block:
                raise  # a broken transaction stays broken: its owner must begin it anew
            valid = validate_publish_policy({**settings.TASK_PUBLISH_RETRY_POLICY, **(policy or {})})
            if not _is_among(error, valid["retry_errors"] or (OperationalError,)):
                raise
            delays = publish_delays(valid) if delays is None else delays
            delay = next(delays, None)
            if delay is None:
                raise
        time.sleep(delay)
        connections[alias].close_if_unusable_or_obsolete()


def _is_among(error: BaseException | None, classes: Any) -> bool:
    """Is this error, or what it came from, of one of these classes?"""
    while error is not None:
        if isinstance(error, classes):
            return True
        error = error.__cause__
    return False


def send(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], task: Any = None
) -> str:
    """Store one call; return its id.

    An id chosen by the caller is a key: a call whose id is waiting, running or in the ledger is not stored again.
    """
    message = deliver(name, args, kwargs, options, task)
    return message.custom_id or message.id


def deliver(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], task: Any = None
) -> Message:
    """Store one call as :func:`send` does; return its message. Of a ``conflict`` nobody is told that it was sent."""
    message = prepare(name, args, kwargs, options, task)
    retry, policy = options.get("retry"), options.get("retry_policy")
    if options.get("task_id") is None or not _persist(lambda: _stored(message), retry, policy):
        publish([message], retry=retry, policy=policy)
        if not message.conflict:
            tell_sent(message, args, kwargs)
    return message


def send_many(
    name: str, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]], options: Mapping[str, Any], task: Any
) -> list[Message]:
    """Store many calls of one task, in statements of a thousand, all or none; return their messages in order."""
    if signals.before_task_publish.receivers or signals.after_task_publish.receivers:
        calls = list(calls)
        messages = [prepare(name, args, kwargs, options, task) for args, kwargs in calls]
    else:
        messages = [build(name, args, kwargs, options, task) for args, kwargs in calls]
    if messages:
        publish(messages, retry=options.get("retry"), policy=options.get("retry_policy"))
    if signals.after_task_publish.receivers:
        for message, (args, kwargs) in zip(messages, calls, strict=True):
            if not message.conflict:
                tell_sent(message, args, kwargs)
    return messages


def is_at_most_once(task: Any = None, acks_late: bool | None = None) -> bool:
    """Shall a call not run again when its worker dies? ``acks_late`` is what the call says of it."""
    requeue = getattr(task, "reject_on_worker_lost", None)
    if not (settings.TASK_REJECT_ON_WORKER_LOST if requeue is None else requeue):
        return True
    if acks_late is None:
        acks_late = getattr(task, "acks_late", None)
    return not (settings.TASK_ACKS_LATE if acks_late is None else acks_late)


def drops_result(options: Mapping[str, Any], task: Any = None) -> bool:
    """Will nobody be told the return value of this call? The call says, else the task, else ``TASK_IGNORE_RESULT``."""
    for given in (options.get("ignore_result"), getattr(task, "ignore_result", None)):
        if given is not None:
            return bool(given)
    return settings.TASK_IGNORE_RESULT


def revoke(task_ids: Sequence[str], *, terminate: str | None = None) -> int:
    """Cancel tasks, durably; return how many were found unfinished.

    What waits ends now, in the caller's transaction, and ``task_revoked`` is told here once that commits; a running
    task is asked to stop, or ended within about a second if ``terminate`` names a signal.
    """
    found = [read(task_id) for task_id in task_ids] if signals.task_revoked.receivers else []
    count = get_broker().revoke([ids.key_of(task_id) for task_id in task_ids], terminate=terminate)
    for before in found:
        if before is not None and not before.finished and (after := read(before.task_id)) and after.finished:
            transaction.on_commit(partial(_tell_revoked, after), using=get_broker().alias)
    return count


def _tell_revoked(record: Record) -> None:
    args, kwargs = loads(record.body, record.encoding, settings.ACCEPT_CONTENT)
    request = Context(id=record.task_id, task=record.name, args=args, kwargs=kwargs, called_directly=False)
    task = tasks.get(record.name)
    signals.task_revoked.emit(task, request=request, terminated=False, signum=None, expired=False)


def revoke_where(
    *,
    name: str | None = None,
    queue: str | None = None,
    tag: str | None = None,
    stamps: Mapping[str, Any] | None = None,
    terminate: str | None = None,
) -> int:
    """Cancel every task that is not done and has this name, is in this queue, has this tag and one of these stamps, as
    far as given.

    ``stamps`` is ``{name: value or values}``. In batches of :data:`BATCH`, each as :func:`revoke` does, in a
    transaction of its own unless the caller has one. Returns how many were found unfinished. Raises ``ValueError`` when
    nothing is given.
    """
    if name is None and queue is None and tag is None and stamps is None:
        raise ValueError("revoke_where() cancels what has a name, a queue, a tag or a stamp: give at least one")
    carried = None if stamps is None else wanted(stamps)
    count, last = 0, ""
    while found := get_broker().find(name=name, queue=queue, tag=tag, stamps=carried, after=last, limit=BATCH):
        count += revoke(found, terminate=terminate)
        last = found[-1]
    return count


def read(task_id: str) -> Record | None:
    """Return what is known of a task, ``None`` if nobody knows it."""
    return get_results().read(task_id)


def read_ended(task_id: str) -> Record | None:
    """Return what became of a task that is done, ``None`` for any other; for those who wait and ask often."""
    return get_results().read_ended(task_id)


def read_ended_many(task_ids: Sequence[str]) -> list[Record]:
    """Return what became of those among these tasks that are done, by the ids as they were given."""
    return get_results().read_ended_many(task_ids)


def exists(task_id: str) -> bool:
    """Is a task of this id waiting, running or in the ledger?"""
    return read(task_id) is not None


def _stored(message: Message) -> bool:
    """Is it there already? Raises what storing it would, when the database cannot be reached."""
    try:
        return exists(message.id)
    except (DatabaseOperationalError, InterfaceError) as error:
        raise OperationalError(f"The task could not be stored in {get_broker().alias!r}: {error}") from error


def _task_key(task_id: Any) -> str:
    if isinstance(task_id, UUID):
        return str(task_id)
    if not isinstance(task_id, str) or not task_id or len(task_id) > 255:
        raise ValueError(f"task_id must be a string of 1 to 255 characters, not {task_id!r}")
    return ids.key_of(task_id)


def encode(
    args: Sequence[Any], kwargs: Mapping[str, Any], serializer: Any, compression: Any, task: Any, name: str
) -> tuple[str, str]:
    """Return ``(encoding, text)`` of arguments. Raises as :func:`build` does."""
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


def _message_options(
    given: Mapping[str, Any], message: Message, parent_id: Any, root_id: Any, place: Mapping[str, Any] | None
) -> str | None:
    """Return what the row has no column for, as JSON; ``None`` for most calls."""
    kept = kept_options(given)
    if given.get("retry_policy") is not None:
        validate_publish_policy(given["retry_policy"])
    if given.get("countdown") is not None or given.get("eta") is not None:
        kept["eta"] = True
    if message.expires_at is not None:
        kept["expires"] = message.expires_at.isoformat()
    elif message.expires_in is not None:
        kept["expires"] = (timezone.now() + timedelta(seconds=message.expires_in)).isoformat()
    # The columns have room for UUIDs only.
    for key, own, stored in (("parent_id", parent_id, message.parent_id), ("root_id", root_id, message.root_id)):
        if own and str(own) != stored:
            kept[key] = str(own)
    stamped = given.get("stamped_headers") or ()
    if stamped:
        kept["stamps"] = {name: given.get(name) for name in stamped}
    if given.get("replaced_task_nesting"):
        kept["replaced_task_nesting"] = given["replaced_task_nesting"]
    unknown = {
        key: value
        for key, value in given.items()
        if key not in CALL_OPTIONS and key not in MEANINGLESS and key not in stamped
    }
    if unknown:
        kept["properties"] = unknown
    if place:
        kept.update(place)
    return dumps(kept)[1] if kept else None


def kept_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a call's options that are kept as they are. Raises ``TypeError`` for a value of a wrong type."""
    for key, value in given.items():
        if value is not None and key in _TYPES and not isinstance(value, _TYPES[key][0]):
            raise TypeError(f"{key} must be {_TYPES[key][1]}, not {value!r}")
    validate_limits(given.get("time_limit"), given.get("soft_time_limit"))
    names = ("headers", "shadow", "argsrepr", "kwargsrepr", "ignore_result", "acks_late")
    return {name: given[name] for name in (*names, "time_limit", "soft_time_limit") if given.get(name) is not None}


def _headers(message: Message, args: Any, kwargs: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that Celery's message would have, as signals show them."""
    task_id = message.custom_id or message.id
    moment = message.eta or (timezone.now() + timedelta(seconds=message.delay) if message.delay else None)
    shown = hidden_call(message.name, args, kwargs, kept, taken=taken_in(kept))
    return {
        "lang": "py",
        "task": message.name,
        "id": task_id,
        "shadow": kept.get("shadow"),
        "eta": moment.isoformat() if moment else None,
        "expires": kept.get("expires"),
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [kept.get("time_limit"), kept.get("soft_time_limit")],
        "root_id": kept.get("root_id") or message.root_id or task_id,
        "parent_id": kept.get("parent_id") or message.parent_id,
        "argsrepr": kept.get("argsrepr") or reprlib.repr(shown[0]),
        "kwargsrepr": kept.get("kwargsrepr") or reprlib.repr(shown[1]),
        "origin": origin(),
        "ignore_result": bool(kept.get("ignore_result")),
    }


def _body(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    return args, kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def options_of(message_options: str | None) -> dict[str, Any]:
    """Return a message's options as a dict. Raises :class:`~django_tasks.exceptions.DecodeError` if they are none."""
    if not message_options:
        return {}
    found = loads(message_options, "", ("json",))
    if not isinstance(found, dict):
        raise DecodeError("The message's options are no mapping")
    return found
