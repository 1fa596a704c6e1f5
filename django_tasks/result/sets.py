"""``ResultSet``: several results as one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from .. import client, states
from ..exceptions import TimeoutError
from .waiting import apart, refuse_inside_task


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

    @property
    def root_id(self) -> str | None:
        """The id by which the workflow is known of which they are part, ``None`` if there are none."""
        first = next(leaves(self.results), None)
        return None if first is None else str(first.root_id)

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
        if all(is_known(one) for one in self.results):
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
            refuse_inside_task()
        end = None if timeout is None else time.monotonic() + timeout
        values = []
        for position, one in enumerate(self.results):
            if not is_known(one) and not getattr(one, "ignored", False):
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
        return await apart(lambda: self.get(timeout, propagate, interval))

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
            done = [one for one in left if is_known(one)]
            yield from done
            left = [one for one in left if not is_known(one)]
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
        open_ = {one.id: one for one in leaves(self.results[first:]) if not is_known(one)}
        for record in client.read_ended_many(list(open_)) if len(open_) > 1 else ():
            open_[record.task_id]._learn(record)

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback, on_error in callbacks:
            failed = [one for one in leaves(self.results) if one.state in states.PROPAGATE_STATES]
            if not failed:
                callback(self)
            elif on_error is not None:
                on_error(failed[0].result)


def leaves(results: Iterable[Any]) -> Iterator[Any]:
    """Yield the results of tasks among these, those in groups included."""
    for one in results:
        if isinstance(one, ResultSet):
            yield from leaves(one.results)
        else:
            yield one


def is_known(result: Any) -> bool:
    """Does the handle know that it is done?"""
    if isinstance(result, ResultSet):
        return all(is_known(one) for one in result.results)
    return bool(result._is_known())
