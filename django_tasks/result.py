"""``AsyncResult``: the caller's handle on a task."""

from __future__ import annotations

import contextlib
import json
import signal as signals_of_system
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar, overload

from asgiref.sync import sync_to_async
from django.db import connections

from . import client, ids, states
from .backends import get_broker, get_results
from .backends.base import ResultWaker
from .backends.lookout import Lookout, Unanswered
from .backends.results import Record
from .conf import settings
from .context import current_request
from .exceptions import (
    IncompleteStream,
    OperationalError,
    TaskRevokedError,
    TimeoutError,
    UnknownResult,
    WouldBlockForever,
)
from .serialization import exception_from_data, loads
from .utils.graph import DependencyGraph

__all__ = ["AsyncResult", "EagerResult", "GroupResult", "ResultSet", "allow_join_result", "result_from_tuple"]

R = TypeVar("R", covariant=True)
T = TypeVar("T")

#: Looks of the first moments of a wait, in seconds; most results of short tasks are there by then.
_FIRST_LOOKS = (*[0.001] * 6, *[0.002] * 5, *[0.004] * 6, *[0.01] * 5, *[0.02] * 5)
#: Seconds between looks after these, where nothing tells of the end.
_LAST_LOOKS = 0.5

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
        #: Was there a call like this one (``unique=``), whose result this is?
        self.conflict = False
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
    def children(self) -> list[Any] | None:
        """The handles of what it sent, and of what follows it in its workflow, in the order in which that was stored;
        groups as one. ``None`` if there is nothing.

        Asks the database each time.
        """
        return _children(self.id, self._record(strict=False)) or None

    # The tree below it

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield it and what it sent, what that sent, and so on, as pairs ``(parent, result)``.

        Raises :class:`~django_tasks.exceptions.IncompleteStream` when it comes to a task that is not done, unless
        ``intermediate``.
        """
        return _iterdeps(self, intermediate)

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Yield it and what it sent, and so on, as pairs ``(result, value)``, waiting for each with ``kwargs`` of
        :meth:`get`. Raises as :meth:`iterdeps` and :meth:`get` do."""
        for _, result in self.iterdeps(intermediate=intermediate):
            yield result, result.get(**kwargs)

    def get_leaf(self) -> Any:
        """Return the value of the last result in the tree below it. Raises as :meth:`collect` does."""
        value = None
        for _, value in self.collect():  # noqa: B007 - the last one counts
            pass
        return value

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """Return the tree below it as a graph, which writes itself as Graphviz' DOT. ``formatter`` is accepted for
        Celery's sake."""
        return _build_graph(self, intermediate)

    @property
    def graph(self) -> DependencyGraph:
        """The tree below it as a graph."""
        return self.build_graph()

    @property
    def supports_native_join(self) -> bool:
        """Can many results be read at once?"""
        return True

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
        often ``on_interval`` is called. ``callback(task_id, value)`` is called with the result. When it failed because
        a parent did, that one's exception is raised, the first of all, unless ``follow_parents`` is false. ``no_ack``
        and ``on_message`` are accepted for Celery's sake.

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
            if follow_parents and self.parent is not None:
                self._raise_for_parents()
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

        return await _apart(lambda: self.get(timeout, propagate, interval))

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

        With ``terminate`` a running attempt is ended within about a second, with all that it has started: its process
        is killed, whatever ``signal`` is named (default ``SIGTERM``), which is only told to ``task_revoked``. A task
        in a thread goes on unheeded until its process is replaced; one in the main process of ``--pool solo`` cannot be
        ended. Coroutines are cancelled anyway.

        Raises ``ValueError`` for what is no signal.
        """
        client.revoke([self.id], terminate=signal_name(signal) if terminate else None)

    def forget(self) -> None:
        """Delete the stored result, and those of its parents; a task that is not done stays."""
        self._done = None
        if self.parent is not None:
            self.parent.forget()
        get_results().forget(self.id)

    def _raise_for_parents(self) -> None:
        parents, one = [], self.parent
        while one is not None:
            parents.append(one)
            one = one.parent
        for parent in reversed(parents):
            parent.maybe_throw()

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
        record = self._known(client.read(self.id), strict)
        if record is not None and record.finished:
            self._learn(record)
        return record

    def _known(self, record: Record | None, strict: bool = True) -> Record | None:
        """Return what was read. Raises ``UnknownResult`` for nothing if the settings say so."""
        if record is None and strict and settings.RESULT_UNKNOWN_RAISES and not self.ignored:
            raise UnknownResult(f"Nobody knows a task {self.id}: it was never sent, or its result has expired")
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
        if self._done is not None:
            return self._done
        end = None if timeout is None else time.monotonic() + timeout
        with contextlib.ExitStack() as opened:
            try:
                record = self._watch(end, interval, on_interval, opened)
            except Unanswered as reason:
                raise TimeoutError(f"Task {self.id} was not done within {timeout} seconds: {reason}") from reason
            if record is None:
                raise TimeoutError(f"Task {self.id} was not done within {timeout} seconds")
        self._learn(record)
        return record

    def _watch(
        self,
        end: float | None,
        interval: float,
        on_interval: Callable[[], Any] | None,
        opened: contextlib.ExitStack,
    ) -> Record | None:
        """Return the record once it is finished; ``None`` when ``end`` has come, by ``time.monotonic()``."""
        broker = get_broker()
        lookout = opened.enter_context(contextlib.closing(Lookout(broker.alias)))
        record = self._known(lookout.ask(self._read, end))
        if record is not None and record.finished:
            return record
        inside = connections[broker.alias].in_atomic_block
        if inside and not lookout.alone:
            # An open transaction may show the past for ever.
            lookout = opened.enter_context(contextlib.closing(Lookout(broker.alias, apart=True)))
        if inside and record is not None and (lookout.alone or lookout.ask(self._read, end) is None):
            raise WouldBlockForever(
                f"Task {self.id} was sent in the transaction that is still open here: "
                "no worker can see it before the commit."
            )
        pause = interval if interval > 0 else _FIRST_LOOKS[0]
        waker: ResultWaker | None = None
        looks = iter(_FIRST_LOOKS)
        asked = time.monotonic()
        while (left := pause if end is None else min(pause, end - time.monotonic())) > 0:
            look = next(looks, None)
            if look is not None:
                time.sleep(min(look, left))
            elif waker is not None:
                try:
                    waker.wait(left)
                except OperationalError:  # its connection is gone; whether the server is, the next look tells
                    waker.close()
                    waker = None
            elif waker := lookout.ask(self._new_waker, end, unwanted=_close):
                opened.callback(waker.close)
                continue
            else:
                time.sleep(min(_LAST_LOOKS, left))
            record = lookout.ask(self._read_if_ended, end)
            if record is not None and record.finished:
                return record
            if on_interval is not None and time.monotonic() - asked >= interval:
                asked = time.monotonic()
                on_interval()
        return None

    def _read(self) -> Record | None:
        return client.read(self.id)

    def _read_if_ended(self) -> Record | None:
        return client.read_ended(self.id)

    def _new_waker(self) -> ResultWaker | None:
        try:
            return get_broker().result_waker(ids.key_of(self.id))
        except OperationalError:  # one more connection may be too many for the server
            return None


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


def signal_name(given: Any = None) -> str:
    """Return a signal by its name, ``SIGTERM`` for ``None``. Raises ``ValueError`` for what is no signal."""
    try:
        if given is None:
            return "SIGTERM"
        if isinstance(given, str):
            return signals_of_system.Signals[f"SIG{given.upper().removeprefix('SIG')}"].name
        return signals_of_system.Signals(given).name
    except (KeyError, ValueError):
        raise ValueError(f"signal is {given!r}; allowed: the name or number of a signal, such as 'SIGKILL'") from None


class ResultSet:
    """Several results as one: those of tasks, and of groups.

    Names and meanings are Celery's; what is asked of all is asked of the database at once.
    """

    TimeoutError: ClassVar = TimeoutError

    def __init__(self, results: Iterable[Any], app: Any = None, **kwargs: Any) -> None:
        self.results: list[Any] = list(results)
        self._callbacks: list[tuple[Callable[..., Any], Callable[..., Any] | None]] = []

    # Members

    def add(self, result: Any) -> None:
        """Add a result, unless it is in there."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Take a result out, given itself or its id. Raises ``KeyError`` when it is not in there."""
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Take a result out if it is in there."""
        with contextlib.suppress(KeyError):
            self.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add results, each unless it is in there."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Take all results out."""
        self.results.clear()

    # What they are

    def ready(self) -> bool:
        """Are all of them done, in whatever way?"""
        self._read()
        done = all(one.ready() for one in self.results)
        if done:
            self._tell()
        return done

    def waiting(self) -> bool:
        """Is one of them not done?"""
        return not self.ready()

    def successful(self) -> bool:
        """Did all of them end as SUCCESS?"""
        self._read()
        return all(one.successful() for one in self.results)

    def failed(self) -> bool:
        """Did one of them end as FAILURE?"""
        self._read()
        return any(one.failed() for one in self.results)

    def completed_count(self) -> int:
        """Return how many ended as SUCCESS."""
        self._read()
        return sum(one.completed_count() if isinstance(one, ResultSet) else one.successful() for one in self.results)

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise the exception of the first failure among them; do not wait."""
        self._read()
        for one in self.results:
            one.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    # Waiting

    def then(
        self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False
    ) -> ResultSet:
        """Call ``callback(self)`` when this handle learns that all are done, as :meth:`AsyncResult.then` does."""
        self._callbacks.append((callback, on_error))
        if all(_is_known(one) for one in self.results):
            self._tell()
        return self

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Any = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """Wait until all are done; return their values in order.

        ``timeout`` (seconds) is for all together. With ``callback`` it is called with each id and value instead, and
        the list is empty. An exception is raised if ``propagate``, else it is the value. ``no_ack`` and ``on_message``
        are accepted for Celery's sake.

        Raises as :meth:`AsyncResult.get` does.
        """
        if disable_sync_subtasks:
            _refuse_inside_task()
        end = None if timeout is None else time.monotonic() + timeout
        values = []
        for position, one in enumerate(self.results):
            if not _is_known(one) and not getattr(one, "ignored", False):
                self._read(position)  # what was waited for took others along
            left = None if end is None else max(0.0, end - time.monotonic())
            value = one.get(
                timeout=left,
                propagate=propagate,
                interval=interval,
                on_interval=on_interval,
                disable_sync_subtasks=disable_sync_subtasks,
            )
            if callback is None:
                values.append(value)
            else:
                callback(one.id, value)
        self._tell()
        return values

    join_native = get = join

    async def aget(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Any:
        """Wait as :meth:`get` does, without blocking the event loop."""
        return await _apart(lambda: self.get(timeout, propagate, interval))

    def iterate(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Iterator[Any]:
        """Yield the values as the tasks end, each once, in the order in which that is seen.

        Raises :class:`~django_tasks.exceptions.TimeoutError` when ``timeout`` (seconds, for all together) is over.
        """
        for result in self._as_they_end(timeout, interval):
            yield result.get(propagate=propagate, disable_sync_subtasks=False)

    def iter_native(
        self, timeout: float | None = None, interval: float = 0.5, **kwargs: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(id, {"status": …, "result": …})`` as the tasks end."""
        for one in self._as_they_end(timeout, interval):
            if isinstance(one, ResultSet):
                yield str(getattr(one, "id", None)), one.results  # type: ignore[misc]
            else:
                yield one.id, {"task_id": one.id, "status": one.state, "result": one.result, "traceback": one.traceback}

    def _as_they_end(self, timeout: float | None, interval: float) -> Iterator[Any]:
        end = None if timeout is None else time.monotonic() + timeout
        left = list(self.results)
        while left:
            self._read()
            done = [one for one in left if _is_known(one)]
            yield from done
            left = [one for one in left if not _is_known(one)]
            if left and not done:
                remaining = None if end is None else end - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise TimeoutError(
                        f"{len(left)} of {len(self.results)} tasks were not done within {timeout} seconds"
                    )
                pause = max(0.001, interval if remaining is None else min(interval, remaining))
                with contextlib.suppress(TimeoutError):
                    left[0].get(timeout=pause, propagate=False, disable_sync_subtasks=False)

    # Acting

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: Any = None,
    ) -> None:
        """Cancel all of them, as :meth:`AsyncResult.revoke` does."""
        for one in self.results:
            one.revoke(terminate=terminate, signal=signal, wait=wait, timeout=timeout)

    def forget(self) -> None:
        """Delete the stored results."""
        for one in self.results:
            one.forget()

    @property
    def supports_native_join(self) -> bool:
        """Can they be read at once?"""
        return all(one.supports_native_join for one in self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        return other.results == self.results if isinstance(other, ResultSet) else NotImplemented

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(one.id) for one in self.results)}]>"

    # Inside

    def _read(self, first: int = 0) -> None:
        """Learn what has become of those that are not known to be done, in few queries."""
        open_ = {one.id: one for one in _leaves(self.results[first:]) if not _is_known(one)}
        for record in client.read_ended_many(list(open_)) if len(open_) > 1 else ():
            open_[record.task_id]._learn(record)

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback, on_error in callbacks:
            failed = [one for one in _leaves(self.results) if one.state in states.PROPAGATE_STATES]
            if not failed:
                callback(self)
            elif on_error is not None:
                on_error(failed[0].result)


class GroupResult(ResultSet):
    """The results of a group, in the order of its members, under the group's id."""

    def __init__(
        self, id: str | None = None, results: Iterable[Any] | None = None, parent: Any = None, **kwargs: Any
    ) -> None:
        self.id = id
        self.parent = parent
        super().__init__(results or [])

    @property
    def children(self) -> list[Any]:
        """The results of its members."""
        return self.results

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield it and the tree below it, as :meth:`AsyncResult.iterdeps` does."""
        return _iterdeps(self, intermediate)

    # Kept by its id

    def save(self, backend: Any = None) -> GroupResult:
        """Keep the ids of its members, so that :meth:`restore` finds them by the group's; as long as results are."""
        get_results().save_group(str(self.id), json.dumps(self.as_tuple()))
        return self

    def delete(self, backend: Any = None) -> None:
        """Forget what :meth:`save` kept."""
        get_results().delete_group(str(self.id))

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> GroupResult | None:
        """Return what was saved under this id, ``None`` if nothing was."""
        saved = get_results().restore_group(str(id))
        if saved is None:
            return None
        found = result_from_tuple(json.loads(saved))
        return found if isinstance(found, GroupResult) else None

    # As data

    def as_tuple(self) -> tuple[tuple[str | None, Any], list[Any]]:
        """Return ``((id, parent), members)``, which :func:`result_from_tuple` takes back."""
        return (self.id, self.parent and self.parent.as_tuple()), [one.as_tuple() for one in self.results]

    def as_list(self) -> list[Any]:
        """Return the ids of the members, of this group and of its parents."""
        members = [each for one in self.results for each in one.as_list()]
        return [*members, self.id, *(self.parent.as_list() if self.parent is not None else [])]

    def as_message(self) -> Any:
        """Return what stands for it when a task returns it."""
        return self.as_tuple()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.id, self.results, self.parent)

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return (other.id, other.results, other.parent) == (self.id, self.results, self.parent)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(str(one.id) for one in self.results)}]>"


def result_from_tuple(data: Any, app: Any = None) -> Any:
    """Rebuild a result from what ``as_tuple()`` gave, also after a round trip through JSON."""
    if isinstance(data, AsyncResult | ResultSet):
        return data
    head, members = data
    own, parent = head if isinstance(head, list | tuple) else (head, None)
    before = result_from_tuple(parent) if parent else None
    if members is not None:
        return GroupResult(own, [result_from_tuple(one) for one in members], parent=before)
    result: AsyncResult[Any] = AsyncResult(own, parent=before)
    return result


def _leaves(results: Iterable[Any]) -> Iterator[AsyncResult[Any]]:
    """Yield the results of tasks among these, those in groups included."""
    for one in results:
        if isinstance(one, ResultSet):
            yield from _leaves(one.results)
        else:
            yield one


def _is_known(result: Any) -> bool:
    """Does the handle know that it is done?"""
    if isinstance(result, ResultSet):
        return all(_is_known(one) for one in result.results)
    return bool(result._is_known())


def _children(task_id: str, record: Record | None) -> list[Any]:
    """Return the handles of what has this task as its parent; groups as one."""
    root = record.root_id if record is not None and record.root_id else ids.key_of(task_id)
    found: list[Any] = []
    groups: dict[str, list[tuple[int, AsyncResult[Any]]]] = {}
    for child in get_results().children(root, ids.key_of(task_id)):
        result: AsyncResult[Any] = AsyncResult(child.task_id, task_name=child.name)
        if child.group is None:
            found.append(result)
            continue
        group_id, index = child.group
        if group_id not in groups:
            groups[group_id] = []
            found.append(group_id)
        groups[group_id].append((index, result))
    return [
        GroupResult(one, [result for _, result in sorted(groups[one], key=lambda pair: pair[0])])
        if isinstance(one, str)
        else one
        for one in found
    ]


def _iterdeps(result: Any, intermediate: bool) -> Iterator[tuple[Any, Any]]:
    rest = deque([(None, result)])
    while rest:
        parent, one = rest.popleft()
        yield parent, one
        if one.ready():
            rest.extend((one, child) for child in one.children or ())
        elif not intermediate:
            raise IncompleteStream(f"{one.id} is not done: what it sends is not known yet")


def _build_graph(result: Any, intermediate: bool) -> DependencyGraph:
    graph = DependencyGraph(root=str(result.id))
    for parent, one in _iterdeps(result, intermediate):
        graph.add_arc(one)
        if parent is not None:
            graph.add_edge(parent, one)
    return graph


async def _apart(work: Callable[[], Any]) -> Any:
    """Do what may block in a thread of its own."""

    def do() -> Any:
        try:
            return work()
        finally:
            connections.close_all()  # those of this thread, which may never be used again

    return await sync_to_async(do, thread_sensitive=False)()


def _value(record: Record) -> Any:
    if record.result is None:
        return TaskRevokedError("revoked") if record.state == states.REVOKED else None
    value = loads(record.result, record.result_encoding, settings.ACCEPT_CONTENT)
    if record.state in states.EXCEPTION_STATES and isinstance(value, dict):
        return exception_from_data(value)
    return value


def _close(waker: ResultWaker | None) -> None:
    if waker is not None:
        waker.close()


def _refuse_inside_task() -> None:
    request = current_request.get()
    if request is not None and not request.called_directly and not _joining.get():
        raise WouldBlockForever(
            "get() inside a task may wait for a task that waits for this worker. Let the other task continue the work "
            "instead, or pass disable_sync_subtasks=False."
        )
