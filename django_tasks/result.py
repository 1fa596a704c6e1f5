"""``AsyncResult``: the caller's handle on a task."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar, overload

from asgiref.sync import sync_to_async
from django.db import connections

from . import client, ids, states
from .backends import get_broker, get_results
from .backends.results import Record
from .conf import settings
from .context import current_request
from .exceptions import TaskRevokedError, TimeoutError, UnknownResult, WouldBlockForever
from .serialization import exception_from_data, loads

__all__ = ["AsyncResult", "EagerResult", "allow_join_result", "result_from_tuple"]

R = TypeVar("R", covariant=True)
T = TypeVar("T")

#: Looks of the first moments of a wait, in seconds; most results of short tasks are there by then.
_FIRST_LOOKS = (*[0.001] * 6, *[0.002] * 5, *[0.004] * 6, *[0.01] * 5, *[0.02] * 5)

_joining: ContextVar[bool] = ContextVar("django_tasks_joining", default=False)


@contextlib.contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow ``get()`` inside a task within this block: you know that the other task can run meanwhile."""
    token = _joining.set(True)
    try:
        yield
    finally:
        _joining.reset(token)


class AsyncResult(Generic[R]):
    """A task by its id: its state and, once it is done, its result.

    Names and meanings are Celery's (https://docs.celeryq.dev/en/stable/reference/celery.result.html); differences:
    :meth:`exists` tells an unknown id from a waiting task, and the extended fields (``name``, ``args``, …) are always
    there.
    Every property asks the database until the task is done. Equal and hashable by id.
    """

    #: What :meth:`get` raises when its time is up.
    TimeoutError: ClassVar = TimeoutError

    def __init__(
        self, id: str, backend: Any = None, task_name: str | None = None, app: Any = None, parent: Any = None
    ) -> None:
        if id is None:
            raise ValueError("AsyncResult needs the id of a task, not None")
        self.id = str(id)
        self.parent = parent
        #: The return value is not kept: :meth:`get` returns ``None`` at once. Set by the call with ``ignore_result``.
        self.ignored = False
        self._name = task_name
        self._done: Record | None = None
        self._callbacks: list[tuple[Callable[..., Any], Callable[..., Any] | None]] = []

    @property
    def task_id(self) -> str:
        """The same as ``id``."""
        return self.id

    # What it is

    @property
    def state(self) -> str:
        """The state by Celery's name. An id nobody knows is PENDING, or raises ``UnknownResult`` with
        ``RESULT_UNKNOWN_RAISES``."""
        record = self._record()
        return record.state if record is not None else states.PENDING

    status = state

    def exists(self) -> bool:
        """Is the task waiting, running, or in the ledger?"""
        return self._record(strict=False) is not None

    def ready(self) -> bool:
        """Is it finished, in whatever way?"""
        record = self._record()
        return record is not None and record.finished

    def successful(self) -> bool:
        """Did it end as SUCCESS?"""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Did it end as FAILURE?"""
        return self.state == states.FAILURE

    @property
    def result(self) -> Any:
        """The return value; the exception (not raised) of a failure; what ``update_state`` told while it runs; else
        ``None``."""
        record = self._record()
        return None if record is None else _value(record)

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failure, or of the last attempt while it waits for the next."""
        record = self._record()
        return record.traceback if record is not None else None

    @property
    def name(self) -> str | None:
        """The task's name."""
        record = self._record(strict=False)
        return record.name if record is not None else self._name

    @property
    def args(self) -> Any:
        """The positional arguments, ``None`` for an id that nobody knows."""
        call = self._call()
        return call[0] if call else None

    @property
    def kwargs(self) -> Any:
        """The keyword arguments, ``None`` for an id that nobody knows."""
        call = self._call()
        return call[1] if call else None

    @property
    def worker(self) -> str | None:
        """Node name of the worker that ended it."""
        record = self._record(strict=False)
        return record.worker if record is not None else None

    @property
    def date_done(self) -> datetime | None:
        """When it ended."""
        record = self._record(strict=False)
        return record.finished_at if record is not None else None

    @property
    def retries(self) -> int | None:
        """How often it asked to be run again."""
        record = self._record(strict=False)
        return record.retries if record is not None else None

    @property
    def queue(self) -> str | None:
        """The queue it was sent to."""
        record = self._record(strict=False)
        return record.queue if record is not None else None

    @property
    def children(self) -> None:
        """Results of tasks it sent; kept with workflows only."""
        return None

    # Waiting

    def then(
        self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False
    ) -> AsyncResult[R]:
        """Call ``callback(result)`` when this handle learns that the task is done, at once if it knows already.

        It learns so by being asked: by :meth:`get`, :meth:`ready`, ``state``. After a failure or a revocation
        ``on_error(exception)`` is called instead, if given. Nothing is held weakly. Return the handle.
        """
        self._callbacks.append((callback, on_error))
        if self._is_known():
            self._tell()
        return self

    # What an ``async def`` task returns is what it returns in the end.
    @overload
    def get(
        self: AsyncResult[Coroutine[Any, Any, T]],
        timeout: float | None = ...,
        propagate: bool = ...,
        interval: float = ...,
        no_ack: bool = ...,
        follow_parents: bool = ...,
        callback: Callable[[str, Any], Any] | None = ...,
        on_message: Any = ...,
        on_interval: Callable[[], Any] | None = ...,
        disable_sync_subtasks: bool = ...,
    ) -> T: ...
    @overload
    def get(
        self: AsyncResult[T],
        timeout: float | None = ...,
        propagate: bool = ...,
        interval: float = ...,
        no_ack: bool = ...,
        follow_parents: bool = ...,
        callback: Callable[[str, Any], Any] | None = ...,
        on_message: Any = ...,
        on_interval: Callable[[], Any] | None = ...,
        disable_sync_subtasks: bool = ...,
    ) -> T: ...
    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Any = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> Any:
        """Wait until the task is done and return its result; raise its exception if ``propagate``.

        ``timeout`` in seconds (``None``: for ever). The wait is woken by the database; ``interval`` only bounds how
        often ``on_interval`` is called. ``callback(task_id, value)`` is called with the result. ``no_ack``,
        ``follow_parents`` and ``on_message`` are accepted for Celery's sake.

        Raises :class:`~django_tasks.exceptions.TimeoutError`; :class:`~django_tasks.exceptions.TaskRevokedError`;
        :class:`~django_tasks.exceptions.WouldBlockForever` inside a task (unless ``disable_sync_subtasks`` is false or
        within :func:`allow_join_result`), and in the transaction that still holds the call.
        """
        if self.ignored:
            return None
        if disable_sync_subtasks:
            _refuse_inside_task()
        state, value = self._outcome(timeout, interval, on_interval)
        if state in states.PROPAGATE_STATES and propagate:
            raise value if isinstance(value, BaseException) else TaskRevokedError(str(value))
        if callback is not None:
            callback(self.id, value)
        return value

    wait = get

    @overload
    async def aget(
        self: AsyncResult[Coroutine[Any, Any, T]],
        timeout: float | None = ...,
        propagate: bool = ...,
        interval: float = ...,
    ) -> T: ...
    @overload
    async def aget(
        self: AsyncResult[T], timeout: float | None = ..., propagate: bool = ..., interval: float = ...
    ) -> T: ...
    async def aget(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Any:
        """Wait as :meth:`get` does, without blocking the event loop."""

        def get_apart() -> Any:
            try:
                return self.get(timeout, propagate, interval)
            finally:
                connections.close_all()  # those of this thread, which may never be used again

        return await sync_to_async(get_apart, thread_sensitive=False)()

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the exception of a failure, else return the value; do not wait."""
        value = self.result
        if isinstance(value, BaseException) and self.state in states.PROPAGATE_STATES and propagate:
            raise value
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    # Acting

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: Any = None,
    ) -> None:
        """Cancel it: what waits never runs, durably; a running task sees ``self.is_revoked()``.

        Raises ``ValueError`` for ``terminate=True``: a running attempt is not killed by this version.
        """
        if terminate:
            raise ValueError(
                "revoke(terminate=True) is not available: a running task is only asked to stop (is_revoked())"
            )
        client.revoke([self.id])

    def forget(self) -> None:
        """Delete the stored result, and those of its parents; a task that is not done stays."""
        self._done = None
        if self.parent is not None:
            self.parent.forget()
        get_results().forget(self.id)

    # As data

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """Return ``((id, parent), children)``, which :func:`result_from_tuple` takes back."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """Return the ids of this result and its parents."""
        return [self.id, *(self.parent.as_list() if self.parent else [])]

    def as_message(self) -> Any:
        """Return what stands for it when a task returns it."""
        return self.as_tuple()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.id, None, self._name, None, self.parent)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return other.id == self.id
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    # Inside

    def _record(self, strict: bool = True) -> Record | None:
        if self._done is not None:
            return self._done
        record = client.read(self.id)
        if record is None:
            if strict and settings.RESULT_UNKNOWN_RAISES and not self.ignored:
                raise UnknownResult(f"Nobody knows a task {self.id}: it was never sent, or its result has expired")
        elif record.finished:
            self._learn(record)
        return record

    def _learn(self, record: Record) -> None:
        self._done = record
        self._tell()

    def _is_known(self) -> bool:
        return self._done is not None

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback, on_error in callbacks:
            if self.state not in states.PROPAGATE_STATES:
                callback(self)
            elif on_error is not None:
                on_error(self.result)

    def _call(self) -> Any:
        record = self._record(strict=False)
        return loads(record.body, record.encoding, settings.ACCEPT_CONTENT) if record is not None else None

    def _outcome(
        self, timeout: float | None, interval: float, on_interval: Callable[[], Any] | None
    ) -> tuple[str, Any]:
        record = self._wait(timeout, interval, on_interval)
        return record.state, _value(record)

    def _wait(self, timeout: float | None, interval: float, on_interval: Callable[[], Any] | None) -> Record:
        end = None if timeout is None else time.monotonic() + timeout
        record = self._record()
        if record is not None and record.finished:
            return record
        broker = get_broker()
        key = ids.key_of(self.id)
        inside = connections[broker.alias].in_atomic_block
        if inside and record is not None and not _is_seen_outside(self.id, connections[broker.alias]):
            raise WouldBlockForever(
                f"Task {self.id} was sent in the transaction that is still open here: "
                "no worker can see it before the commit."
            )
        pause = interval if interval > 0 else _FIRST_LOOKS[0]
        waker = None
        looks = iter(_FIRST_LOOKS)
        asked = time.monotonic()
        try:
            while True:
                left = pause if end is None else min(pause, end - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"Task {self.id} was not done within {timeout} seconds")
                look = next(looks, None)
                if look is not None:
                    time.sleep(min(look, left))
                else:
                    waker = waker or broker.result_waker(key)
                    waker.wait(left)
                # An open transaction may show the past for ever.
                if inside:
                    record = client.read_outside(self.id)
                elif client.ended(self.id):
                    record = client.read(self.id)
                if record is not None and record.finished:
                    self._learn(record)
                    return record
                if on_interval is not None and time.monotonic() - asked >= interval:
                    asked = time.monotonic()
                    on_interval()
        finally:
            if waker is not None:
                waker.close()


class EagerResult(AsyncResult[R]):
    """The result of a task that ran in the caller's own process (``apply()``, ``TASK_ALWAYS_EAGER``).

    Nothing is read from the database: it knows what became of the task.
    """

    def __init__(self, id: str, value: Any, state: str, traceback: str | None = None, name: str | None = None) -> None:
        super().__init__(id, task_name=name)
        self._value = value
        self._state = state
        self._traceback = traceback
        #: What the ledger says of it, or would say; ``None`` for a result made by hand.
        self._ledger: Record | None = None
        self._stored = False

    @property
    def state(self) -> str:
        return self._state

    status = state

    def exists(self) -> bool:
        return True

    def ready(self) -> bool:
        return self._state in states.READY_STATES

    @property
    def result(self) -> Any:
        return self._value

    info = result

    @property
    def traceback(self) -> str | None:
        return self._traceback

    @property
    def supports_native_join(self) -> bool:
        return False

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Note that it was revoked, in place of its result; it has run already."""
        self._state, self._value, self._traceback = states.REVOKED, TaskRevokedError("revoked"), None

    def forget(self) -> None:
        """Delete what ``TASK_STORE_EAGER_RESULT`` stored; this handle goes on knowing it."""
        if self._stored:
            get_results().forget(self.id)

    def become(self, other: EagerResult[Any]) -> None:
        """Take over the outcome of ``other``, an eager run of the same call."""
        self.__dict__.update({**vars(other), "_callbacks": self._callbacks})
        self._tell()

    def _is_known(self) -> bool:
        return self.ready()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.id, self._value, self._state, self._traceback, self._name)

    def _outcome(self, timeout: Any, interval: Any, on_interval: Any) -> tuple[str, Any]:
        if not self.ready():
            raise WouldBlockForever(f"Task {self.id} runs when the transaction that is open here commits")
        return self._state, None if self._state == states.IGNORED else self._value

    def _record(self, strict: bool = True) -> Record | None:
        return self._ledger


def result_from_tuple(data: Any, app: Any = None) -> AsyncResult[Any]:
    """Rebuild a result from what :meth:`AsyncResult.as_tuple` gave, also after a round trip through JSON."""
    if isinstance(data, AsyncResult):
        return data
    head, _children = data
    task_id, parent = head if isinstance(head, list | tuple) else (head, None)
    return AsyncResult(task_id, parent=result_from_tuple(parent) if parent else None)


def _value(record: Record) -> Any:
    if record.result is None:
        return TaskRevokedError("revoked") if record.state == states.REVOKED else None
    value = loads(record.result, record.result_encoding, settings.ACCEPT_CONTENT)
    if record.state in states.EXCEPTION_STATES and isinstance(value, dict):
        return exception_from_data(value)
    return value


def _is_seen_outside(task_id: str, connection: Any) -> bool:
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        return False  # there is no outside, as in a test of Django's
    return client.read_outside(task_id) is not None


def _refuse_inside_task() -> None:
    request = current_request.get()
    if request is not None and not request.called_directly and not _joining.get():
        raise WouldBlockForever(
            "get() inside a task may wait for a task that waits for this worker. Let the other task continue the work "
            "instead, or pass disable_sync_subtasks=False."
        )
