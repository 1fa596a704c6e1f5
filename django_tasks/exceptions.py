"""Everything that this package raises.

::

    TaskError
    ├── TaskPredicate                  raised by a task to say how it ends
    │   ├── Retry                      again later
    │   ├── Ignore                     keep no state
    │   └── Reject                     not here: redeliver, or fail
    ├── OperationalError               the broker or the database cannot be reached
    ├── TimeoutError (builtin too)     ``get(timeout=…)`` ran out
    ├── MaxRetriesExceededError
    ├── TaskRevokedError
    ├── WorkerLostError                the process that ran it died
    ├── SoftTimeLimitExceeded, TimeLimitExceeded
    ├── ChordError
    ├── NotRegistered, AlreadyRegistered (KeyError, ValueError)
    ├── AlreadyEnqueued                a unique task like it is there (``on_conflict="raise"``)
    ├── WouldBlockForever (RuntimeError)  waiting here can never succeed
    ├── IncompleteStream               a tree of results is not complete yet
    ├── UnknownResult (LookupError)    nobody knows this id (only when asked to be strict)
    ├── UnpickleableExceptionWrapper   stands in for an exception whose class is not loaded here
    └── SerializationError
        ├── EncodeError, DecodeError
        ├── ContentDisallowed
        └── PayloadTooLarge

``ImproperlyConfigured`` is Django's own, and ``DuplicateNodenameWarning`` a ``UserWarning``. Names are Celery's and
kombu's where they have one (https://docs.celeryq.dev/en/stable/reference/celery.exceptions.html).
"""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured

__all__ = [
    "AlreadyEnqueued",
    "AlreadyRegistered",
    "ChordError",
    "ContentDisallowed",
    "DecodeError",
    "DuplicateNodenameWarning",
    "EncodeError",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "MaxRetriesExceededError",
    "NotRegistered",
    "OperationalError",
    "PayloadTooLarge",
    "Reject",
    "Retry",
    "SerializationError",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "TimeLimitExceeded",
    "TimeoutError",
    "UnknownResult",
    "UnpickleableExceptionWrapper",
    "WorkerLostError",
    "WouldBlockForever",
]


class TaskError(Exception):
    """Base of this package's errors."""


class TaskPredicate(TaskError):
    """Raised inside a task to say how it ends; not a failure."""


class Retry(TaskPredicate):
    """The task is to run again.

    ``when`` is the delay in seconds, or the aware datetime, of the next attempt; ``exc`` the cause, an exception or its
    text.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        self.exc: BaseException | None = exc if isinstance(exc, BaseException) else None
        self.excs: str | None = repr(exc) if isinstance(exc, BaseException) else exc
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when, **kwargs)

    def humanize(self) -> str:
        """Return the moment of the next attempt in words: ``in 3s`` or ``at 2026-01-01 …``."""
        if isinstance(self.when, int | float):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.message, self.exc or self.excs, self.when)


class Ignore(TaskPredicate):
    """The task ends without a stored state: ``raise Ignore()``."""


class Reject(TaskPredicate):
    """The task will not be done by this delivery.

    ``requeue=True`` delivers it again, with ``request.delivery_info["redelivered"]`` true; ``requeue=False`` ends it as
    FAILURE.
    """

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"

    __str__ = __repr__


class OperationalError(TaskError):
    """The broker or the result store cannot be reached, or refused; whether the call was accepted is unknown."""

    #: What to do about it.
    cure: ClassVar[str] = "Start the database or correct DATABASES"


class TimeoutError(TaskError, builtins.TimeoutError):
    """The operation took longer than it was allowed to."""


class MaxRetriesExceededError(TaskError):
    """The task asked for one more retry than ``max_retries`` allows."""

    def __init__(self, *args: object, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", [])
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args, **kwargs)


class TaskRevokedError(TaskError):
    """The task was revoked, or expired, and has no result."""


class WorkerLostError(TaskError):
    """The process that ran the task died before it was done."""


class SoftTimeLimitExceeded(TaskError):
    """Raised inside a task whose soft time limit has passed; its one argument is the limit in seconds."""

    def __str__(self) -> str:
        return f"The soft time limit{_of(self)} has passed"


class TimeLimitExceeded(TaskError):
    """The task's hard time limit passed and it was ended from outside; its one argument is the limit in seconds."""

    def __str__(self) -> str:
        return f"The time limit{_of(self)} has passed"


def _of(error: Exception) -> str:
    return f" of {error.args[0]:g} s" if error.args and isinstance(error.args[0], int | float) else ""


class ChordError(TaskError):
    """A member of a chord's header failed, so the body cannot run."""


class NotRegistered(TaskError, KeyError):
    """No task of this name is registered in this process."""

    def __init__(self, name: str, hint: str = "") -> None:
        self.name = name
        super().__init__(name)
        self._text = f"Task {name!r} is not registered here{hint}"

    def __str__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.name,)


class AlreadyRegistered(TaskError, ValueError):
    """Two different functions claim the same task name."""


class AlreadyEnqueued(TaskError):
    """A unique task like it is waiting or running; its id is ``task_id``."""

    def __init__(self, name: str, task_id: str) -> None:
        self.name = name
        self.task_id = task_id
        super().__init__(name, task_id)

    def __str__(self) -> str:
        return f"A task {self.name!r} like this one is there already: {self.task_id}"


class WouldBlockForever(TaskError, RuntimeError):
    """Waiting for this result here cannot end: inside a task, or in the transaction that still holds the call."""


class IncompleteStream(TaskError):
    """The results below a task are asked for before it is done: who they are is not known yet."""


class UnknownResult(TaskError, LookupError):
    """Nobody knows a task of this id: it was never sent, or its result has expired."""


class DuplicateNodenameWarning(UserWarning):
    """Several workers have one node name, so that only one of their answers is told. No error."""


class UnpickleableExceptionWrapper(TaskError):
    """Stands in for an exception whose class does not live in a loaded module.

    ``exc_module``, ``exc_cls_name`` and ``exc_args`` tell what it was; ``text`` what it said.
    """

    def __init__(self, exc_module: str, exc_cls_name: str, exc_args: Any = (), text: str | None = None) -> None:
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = tuple(exc_args)
        self.text = text if text is not None else f"{exc_cls_name}{self.exc_args!r}"
        super().__init__(exc_module, exc_cls_name, self.exc_args, self.text)

    def __str__(self) -> str:
        return self.text


class SerializationError(TaskError):
    """A value cannot become a message, or a message a value."""


class EncodeError(SerializationError, TypeError):
    """The value cannot be serialized."""


class DecodeError(SerializationError, ValueError):
    """The stored text is not what its serializer writes."""


class ContentDisallowed(SerializationError):
    """The message is in a format that ``ACCEPT_CONTENT`` does not allow."""


class PayloadTooLarge(SerializationError, ValueError):
    """The serialized arguments or result exceed ``PAYLOAD_LIMIT``."""
