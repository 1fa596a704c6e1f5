"""Raising an exception in a task that runs: the soft time limit, in whatever way its thread or loop allows."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import threading
from collections.abc import Awaitable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

from .exceptions import SoftTimeLimitExceeded


def softly(seconds: float) -> AbstractContextManager[None]:
    """Raise ``SoftTimeLimitExceeded`` once in the block, in this thread, after so many seconds.

    In the main thread a signal does it (``SIGALRM``, whose handler and timer are put back at the end), so that most
    blocking calls of the system are interrupted; in other threads the interpreter raises it before its next
    instruction, so a call in C has to return first.
    """
    in_main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    return _told_by(_by_alarm(seconds) if in_main else _by_interpreter(seconds), seconds)


@contextmanager
def _told_by(way: AbstractContextManager[None], seconds: float) -> Iterator[None]:
    try:
        with way:
            yield
    except SoftTimeLimitExceeded as error:
        if not error.args:  # an exception that is raised from outside is made without arguments
            error.args = (seconds,)
        raise


@contextmanager
def _by_alarm(seconds: float) -> Iterator[None]:
    armed = True

    def fire(number: int, frame: FrameType | None) -> None:
        if armed:
            raise SoftTimeLimitExceeded

    handler = signal.signal(signal.SIGALRM, fire)
    timer = signal.getitimer(signal.ITIMER_REAL)
    # The signal may come at any instruction, the ones below included: so the flag falls inside, and what must be put
    # back is put back outside.
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _by_interpreter(seconds: float) -> Iterator[None]:
    armed = True
    lock = threading.Lock()
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def fire() -> None:
        with lock:
            if armed:
                raise_in(thread, ctypes.py_object(SoftTimeLimitExceeded))

    timer = threading.Timer(seconds, fire)
    timer.daemon = True
    try:
        try:
            with lock:  # a limit that is over at once does not interrupt the start
                timer.start()
            yield
        finally:
            armed = False
    finally:
        timer.cancel()
        with lock:
            raise_in(thread, None)  # what was asked for and not raised yet is not for the next task


# Coroutines -----------------------------------------------------------------------------------------------------------


class Interruptible:
    """Awaits ``work``; an interruption is raised in it at its ``await``, where a cancellation would be.

    So ``except SoftTimeLimitExceeded`` in a coroutine works as in a function.
    """

    def __init__(self, work: Awaitable[Any]) -> None:
        self._steps: Any = work.__await__()
        self._task: asyncio.Task[Any] | None = None
        self._reason: BaseException | None = None

    def interrupt(self, reason: BaseException) -> None:
        """Raise ``reason`` at the place where the work waits. Call it in the event loop's thread."""
        if self._task is not None and not self._task.done():
            self._reason = reason
            self._task.cancel()

    def __await__(self) -> Any:
        self._task = asyncio.current_task()
        return self

    def __iter__(self) -> Interruptible:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        return self._steps.send(value)

    def throw(self, error: BaseException, *rest: Any) -> Any:
        if isinstance(error, asyncio.CancelledError) and self._reason is not None and self._task is not None:
            error, self._reason = self._reason, None
            self._task.uncancel()
        return self._steps.throw(error)

    def close(self) -> None:
        self._steps.close()


async def softly_awaited(work: Awaitable[Any], seconds: float) -> Any:
    """Return what ``work`` returns; after so many seconds raise ``SoftTimeLimitExceeded`` in it, once."""
    steps = Interruptible(work)
    timer = asyncio.get_running_loop().call_later(seconds, lambda: steps.interrupt(SoftTimeLimitExceeded(seconds)))
    try:
        return await steps
    finally:
        timer.cancel()
