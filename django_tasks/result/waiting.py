"""Waiting for the end of a task: by looking often at first, then by being told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from .. import client, ids
from ..backends import get_broker
from ..backends.base import ResultWaker
from ..backends.lookout import Lookout, Unanswered
from ..backends.results import Record
from ..context import current_request
from ..exceptions import OperationalError, TimeoutError, WouldBlockForever

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


def watch(
    task_id: str,
    timeout: float | None,
    interval: float,
    on_interval: Callable[[], Any] | None,
    known: Callable[[Record | None], Record | None],
) -> Record:
    """Return the record of a task once it is finished; ``known`` looks at what is read first, and may raise.

    Raises as :meth:`~django_tasks.AsyncResult.get` does.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with contextlib.ExitStack() as opened:
        try:
            record = _Watch(task_id, end).record(interval, on_interval, known, opened)
        except Unanswered as reason:
            raise TimeoutError(f"Task {task_id} was not done within {timeout} seconds: {reason}") from reason
        if record is None:
            raise TimeoutError(f"Task {task_id} was not done within {timeout} seconds")
    return record


class _Watch:
    """One wait for one task, until ``end`` by ``time.monotonic()``."""

    def __init__(self, task_id: str, end: float | None) -> None:
        self._id = task_id
        self._end = end

    def record(
        self,
        interval: float,
        on_interval: Callable[[], Any] | None,
        known: Callable[[Record | None], Record | None],
        opened: contextlib.ExitStack,
    ) -> Record | None:
        """Return the record once it is finished; ``None`` when the end has come."""
        read, end = partial(client.read, self._id), self._end
        broker = get_broker()
        lookout = opened.enter_context(contextlib.closing(Lookout(broker.alias)))
        record = known(lookout.ask(read, end))
        if record is not None and record.finished:
            return record
        inside = connections[broker.alias].in_atomic_block
        if inside and not lookout.alone:
            # An open transaction may show the past for ever.
            lookout = opened.enter_context(contextlib.closing(Lookout(broker.alias, apart=True)))
        if inside and record is not None and (lookout.alone or lookout.ask(read, end) is None):
            raise WouldBlockForever(
                f"Task {self._id} was sent in the transaction that is still open here: "
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
            record = lookout.ask(partial(client.read_ended, self._id), end)
            if record is not None and record.finished:
                return record
            if on_interval is not None and time.monotonic() - asked >= interval:
                asked = time.monotonic()
                on_interval()
        return None

    def _new_waker(self) -> ResultWaker | None:
        try:
            return get_broker().result_waker(ids.key_of(self._id))
        except OperationalError:  # one more connection may be too many for the server
            return None


async def apart(work: Callable[[], Any]) -> Any:
    """Do what may block in a thread of its own."""

    def do() -> Any:
        try:
            return work()
        finally:
            connections.close_all()  # those of this thread, which may never be used again

    return await sync_to_async(do, thread_sensitive=False)()


def _close(waker: ResultWaker | None) -> None:
    if waker is not None:
        waker.close()


def refuse_inside_task() -> None:
    """Raise ``WouldBlockForever`` inside a task that has not said that it may wait."""
    request = current_request.get()
    if request is not None and not request.called_directly and not _joining.get():
        raise WouldBlockForever(
            "get() inside a task may wait for a task that waits for this worker. Let the other task continue the work "
            "instead, or pass disable_sync_subtasks=False."
        )
