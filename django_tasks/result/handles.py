"""``AsyncResult``, the caller's handle on a task, and ``GroupResult``, that on a group."""

from __future__ import annotations

import json
import signal as signals_of_system
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar, overload

from .. import client, ids, states
from ..backends import get_results, stores
from ..backends.results import Record
from ..conf import settings
from ..exceptions import TaskRevokedError, TimeoutError, UnknownResult
from ..redaction import REDACTED
from ..serialization import exception_from_data, loads, loads_error
from ..utils.graph import DependencyGraph
from . import tree
from .sets import ResultSet
from .waiting import apart, refuse_inside_task, watch

R = TypeVar("R", covariant=True)
T = TypeVar("T")


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
    def root_id(self) -> str:
        """The id of the first task of all in its workflow, by which the whole is known; its own if it stands alone."""
        record = self._record(strict=False)
        return (record.root_id if record is not None else None) or ids.key_of(self.id)

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
        return tree.iterdeps(self, intermediate)

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
        return tree.build_graph(self, intermediate)

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
            refuse_inside_task()
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

        return await apart(lambda: self.get(timeout, propagate, interval))

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

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: Any = None,
    ) -> None:
        """Cancel every task that carries one of these stamps, ``{name: value or values}``, whether it is this one or
        not, as :meth:`revoke` does. Raises ``ValueError`` for headers of another form."""
        client.revoke_where(stamps=headers, terminate=signal_name(signal) if terminate else None)

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
        if record is None:
            return None
        encoding = "" if record.encoding == REDACTED else record.encoding
        return loads(record.body, encoding, {*settings.ACCEPT_CONTENT, *([] if encoding else ["json"])})

    def _outcome(
        self, timeout: float | None, interval: float, on_interval: Callable[[], Any] | None
    ) -> tuple[str, Any]:
        record = self._wait(timeout, interval, on_interval)
        return record.state, _value(record)

    def _wait(self, timeout: float | None, interval: float, on_interval: Callable[[], Any] | None) -> Record:
        if self._done is None:
            self._learn(watch(self.id, timeout, interval, on_interval, self._known))
        assert self._done is not None  # noqa: S101 - learned
        return self._done


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
        return tree.iterdeps(self, intermediate)

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


def _value(record: Record) -> Any:
    if record.result is None:
        return TaskRevokedError("revoked") if record.state == states.REVOKED else None
    failed = record.state in states.EXCEPTION_STATES
    read = loads_error if failed else loads
    value = read(*stores.fetch(record.result, record.result_encoding), settings.ACCEPT_CONTENT)
    return exception_from_data(value) if failed and isinstance(value, dict) else value
