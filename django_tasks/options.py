"""What a task may be declared with and a call may be given: a wrong option is an error at once, none is ignored."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from . import client, routing, time_limits
from .exceptions import ImproperlyConfigured
from .flow import Flow
from .moments import expiry_of
from .periodic.entries import entries_of_task
from .retry import validate_backoff, validate_max_retries, validate_seconds

#: Methods that an option may fill in; the others are not for replacing.
HANDLERS = frozenset({"before_start", "on_success", "on_failure", "on_retry", "after_return", "shadow_name"})
#: What ``retry()`` may change beside arguments and time; the rest of the call stays as it was.
RETRY_OPTIONS = (
    *("queue", "routing_key", "exchange", "priority", "headers", "shadow", "argsrepr", "kwargsrepr"),
    *("ignore_result", "serializer", "compression", "time_limit", "soft_time_limit"),
)
#: Options of Celery's, or of ours to come, whose machinery this version does not have: refused, never swallowed.
LATER = {
    "acks_on_failure_or_timeout": "redelivery of failed tasks (retry them)",
    "acks_on_failure": "redelivery of failed tasks (retry them)",
    "acks_on_timeout": "redelivery of failed tasks (retry them)",
}
#: Options that link a call to others.
LINKING = frozenset(["link", "link_error", "group_id", "group_index", "chord", "chain"])


#: Levels of log records by which a task may say what is kept of them.
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: Names that other systems have for options of ours.
INSTEAD = {
    "throttle": "unique_for=SECONDS sends the first call and none like it for so long",
    "singleton": "unique=True does that",
    "queueing_lock": 'unique=…, unique_until="start" does that',
}


def check_declared(base: type, options: Mapping[str, Any], name: str) -> None:
    """Raise ``ImproperlyConfigured`` for an option of ``@shared_task`` that is misspelt, not available or no option.

    ``base`` is :class:`~django_tasks.task.Task`, whose attributes are the options.
    """
    known = {one: value for one, value in vars(base).items() if not one.startswith("_")}
    fixed = {one for one, value in known.items() if callable(value) or isinstance(value, property)} - HANDLERS
    for option, value in options.items():
        where = f"@shared_task({option}=…) on {name}: "
        if option in LATER and value is not None:
            raise ImproperlyConfigured(f"{where}{_not_yet(option)}")
        if option in INSTEAD:
            raise ImproperlyConfigured(f"{where}there is no such option; {INSTEAD[option]}")
        if option in fixed or option == "run":
            raise ImproperlyConfigured(f"{where}this is a method of every task, not an option")
        if option not in known and option not in LATER and (close := difflib.get_close_matches(option, known, 1, 0.8)):
            raise ImproperlyConfigured(f"{where}did you mean {close[0]!r}?")


def _not_yet(option: str) -> str:
    return f"this version has no {LATER[option]} yet, and ignores no option silently"


def check_call(options: Mapping[str, Any], name: str) -> None:
    """Raise ``TypeError`` for an option of a call that is misspelt or not available."""
    stamped = options.get("stamped_headers") or ()
    for option in options:
        if option in client.CALL_OPTIONS or option in client.MEANINGLESS or option in LINKING or option in stamped:
            continue
        if option in LATER:
            if options[option] in (None, [], ()):
                continue
            raise TypeError(f"apply_async({option}=…) of {name}: {_not_yet(option)}")
        if close := difflib.get_close_matches(option, client.CALL_OPTIONS, 1, 0.8):
            raise TypeError(f"apply_async() of {name} has no option {option!r}; did you mean {close[0]!r}?")


_OPTIONAL_BOOL: tuple[Any, str] = (bool | None, "True, False or None")
#: What an attribute of a task has to be, where nothing else looks at it.
_ATTRIBUTES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("atomic", "typing", "retry_jitter", "pydantic", "pydantic_strict"), (bool, "True or False")),
    **dict.fromkeys(
        ("ignore_result", "acks_late", "reject_on_worker_lost", "track_started", "durable"), _OPTIONAL_BOOL
    ),
    **dict.fromkeys(("store_errors_even_if_ignored", "store_eager_result"), _OPTIONAL_BOOL),
    **dict.fromkeys(("serializer", "compression"), (str | None, "the name of a format, or None")),
    **dict.fromkeys(("pydantic_context", "pydantic_dump_kwargs"), (Mapping | None, "a dict or None")),
    "retry_kwargs": (Mapping, "a dict"),
}


def check_attributes(base: Any, task: Any) -> None:
    """Raise ``ImproperlyConfigured`` for an attribute of a task that no run could use."""
    where = f"Task {task.name}: "
    try:
        if not is_name(task.name, 255):
            raise ValueError(f"name must be a string of 1 to 255 characters, not {task.name!r}")
        validate_max_retries(task.max_retries)
        validate_seconds(task.default_retry_delay, name="default_retry_delay")
        validate_seconds(task.retry_backoff_max, name="retry_backoff_max")
        validate_backoff(task.retry_backoff)
        if task.queue is not None:
            routing.validate_queue(task.queue)
        if task.priority is not None:
            routing.validate_priority(task.priority)
        for name in ("autoretry_for", "dont_autoretry_for", "throws"):
            given = getattr(task, name) or ()
            given = tuple(given) if isinstance(given, tuple | list | set | frozenset) else (given,)
            if not all(isinstance(one, type) and issubclass(one, BaseException) for one in given):
                raise ValueError(f"{name} must hold exception classes, not {given!r}")
            setattr(task, name, given)
        task.sensitive = _sensitive(task)
        if task.log_level not in (None, False, *LEVELS):
            allowed = ", ".join(map(repr, LEVELS))
            raise ValueError(f"log_level is {task.log_level!r}; allowed: {allowed}, False (nothing is kept) or None")
        for name, (kind, allowed) in _ATTRIBUTES.items():
            if not isinstance(getattr(task, name), kind):
                raise ValueError(f"{name} must be {allowed}, not {getattr(task, name)!r}")
        if task.store_errors_even_if_ignored is False:
            raise ValueError("store_errors_even_if_ignored must be None or True: failures are always kept here")
        if task.expires is not None:
            expiry_of(task.expires)
        entries_of_task(task.name, task.periodic)
        time_limits.validate_limit(task.time_limit, name="time_limit")
        time_limits.validate_limit(task.soft_time_limit, name="soft_time_limit")
        unknown = set(task.retry_kwargs) - set(inspect.signature(base.retry).parameters) - set(RETRY_OPTIONS)
        if unknown:
            raise ValueError(f"retry_kwargs has {sorted(unknown)[0]!r}, which retry() does not take")
        for name in _class_attributes(base, task) & LATER.keys():
            value = getattr(task, name)
            if value is not None and not callable(value):
                raise ValueError(f"{name}: {_not_yet(name)}")
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{where}{error}") from error
    try:
        time_limits.validate_limits(task.time_limit, task.soft_time_limit)
    except ValueError as error:  # as Celery calls it
        raise ValueError(f"{where}{error}") from None


def _sensitive(task: Any) -> tuple[str, ...]:
    """Return the names that a task declares as sensitive. Raises ``TypeError`` or ``ValueError`` for what is none."""
    given = (task.sensitive,) if isinstance(task.sensitive, str) else task.sensitive
    if not isinstance(given, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"sensitive is {given!r}; allowed: the name of an argument, or several")
    arguments = task._arguments
    for name in given:
        if name not in arguments.signature.parameters and not arguments.takes(name):
            raise ValueError(f"sensitive names {name!r}; the task takes {arguments.signature}")
    key = (task.key,) if isinstance(task.key, str) else task.key if isinstance(task.key, list | tuple) else ()
    if both := sorted(set(given).intersection(key)):
        raise ValueError(f"key names {both[0]!r}, which is sensitive: limits count by it, and keep it as text")
    return tuple(given)


def flow_of(task: Any) -> Flow | None:
    """Return what limits, uniqueness and tags a task declares; ``None``: nothing. Raises ``ImproperlyConfigured``."""
    try:
        flow = Flow(task)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"Task {task.name}: {error}") from error
    return None if flow.is_idle else flow


def _class_attributes(base: type, task: Any) -> set[str]:
    """Return what the classes between the task and ``base`` define."""
    return {name for cls in type(task).__mro__ if cls not in base.__mro__ for name in vars(cls)}


def as_arguments(name: str, args: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return ``args`` and ``kwargs``, empty for ``None``. Raises ``TypeError`` for what is no list or no dict."""
    args = () if args is None else args
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(args, list | tuple):
        raise TypeError(f"args of {name} must be a list or tuple, not {type(args).__name__}")
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs of {name} must be a dict, not {type(kwargs).__name__}")
    return args, kwargs


def as_call(call: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return one of the calls of ``enqueue_many()`` as ``(args, kwargs)``. Raises ``TypeError`` for what is none."""
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, list | tuple):
        if len(call) == 2 and isinstance(call[0], list | tuple) and isinstance(call[1], Mapping):
            return call[0], call[1]
        return call, {}
    raise TypeError(f"A call is a tuple of arguments, a dict of keyword arguments or a pair of both, not {call!r}")


def is_name(value: object, longest: int) -> bool:
    """Tell whether ``value`` is a text of 1 to ``longest`` characters."""
    return isinstance(value, str) and 0 < len(value) <= longest
