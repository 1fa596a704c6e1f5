"""What every thread does right now: on standard error when SIGUSR1 asks (as Celery's worker does), and for commands.

A child tells by a thread that only waits for this. Where a task is in C and lets no other thread run Python, that one
cannot; then a signal of its own has faulthandler write the stacks, which needs no interpreter.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import select
import signal
import socket
import sys
import threading
import time
import traceback
from asyncio import Task
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

#: Seconds that a child has to tell by itself, and then by its signal.
PATIENCE = 0.5
#: What a signal wrote is complete after so many seconds of silence.
SILENCE = 0.05
#: Most characters that one process tells.
MOST = 65_536
#: A question is a number from 1 to this, which its answer begins with; what an answer ends with.
NUMBERS, END = 8, b"\0"


def dump_on_signal() -> None:
    """Dump the stacks of all threads of this process at each SIGUSR1, even while its interpreter is blocked."""
    # Where standard error is no file (it is redirected to the log), the original one is.
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(AttributeError, io.UnsupportedOperation, ValueError):
            faulthandler.register(signal.SIGUSR1, file=stream or 2, all_threads=True, chain=False)
            return


def asking_signal() -> signal.Signals:
    """Return the signal by which a child is asked that did not answer; none that a site is likely to use."""
    asking: signal.Signals = getattr(signal, "SIGRTMIN", signal.SIGUSR2)  # macOS has no such as the first
    return asking


def told(coroutines: Mapping[str, Task[Any]] | None = None) -> str:
    """Return what the threads of this process do, but for the one that asks, and where these coroutines
    stand, by the names of their tasks."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda pair: pair[0] != main)
    parts = [
        f"Thread {names.get(ident, ident)} (most recent call last):\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in frames
        if ident != threading.get_ident()
    ]
    parts += [
        f"Coroutine of task {name} (most recent call last):\n{''.join(_awaits(task))}"
        for name, task in (coroutines or {}).items()
    ]
    return "\n".join(parts)[:MOST]


def _awaits(task: Task[Any]) -> Iterator[str]:
    """Return the lines of a coroutine and of what it awaits. A frame of a suspended one does not know the next."""
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        yield from traceback.format_stack(frame, limit=1)
        awaited = awaited.cr_await


class Line:
    """A child's line to its worker, on which it is asked for its stacks. Made before the fork."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._question = b""
        self._said = b""
        self._heard_at = 0.0
        #: Is nobody at the other end any more?
        self.over = False

    # In the child

    def answer(self, coroutines: Callable[[], Mapping[str, Task[Any]]]) -> None:
        """Tell whoever asks, in a thread, from now on. ``coroutines`` returns those that run here."""
        self._ours.close()
        self._theirs.setblocking(False)  # a task never waits for somebody to read
        faulthandler.register(asking_signal(), file=self._theirs.fileno(), all_threads=True, chain=False)
        threading.Thread(target=self._answer, args=(coroutines,), name="stacks", daemon=True).start()

    def _answer(self, coroutines: Callable[[], Mapping[str, Task[Any]]]) -> None:
        while questions := self._hear():
            text = "".join(each if each.isprintable() or each == "\n" else "?" for each in told(coroutines()))
            with contextlib.suppress(BlockingIOError):
                self._theirs.sendall(questions[-1:] + text.encode(errors="replace") + END)

    def _hear(self) -> bytes:
        select.select([self._theirs], [], [])
        return self._theirs.recv(64)

    # In the worker, by one thread

    def opened(self) -> None:
        """The child has its end."""
        self._theirs.close()
        self._ours.setblocking(False)

    def close(self) -> None:
        """Nobody asks any more."""
        self._ours.close()

    def fileno(self) -> int:
        """Return what becomes readable when the child says something."""
        return self._ours.fileno()

    def ask(self) -> None:
        """Ask; what was said before is forgotten."""
        self._read()
        self._said = b""
        self._question = bytes([(self._question or b"\0")[0] % NUMBERS + 1])
        with contextlib.suppress(OSError):
            self._ours.send(self._question)

    def answered(self) -> str:
        """Return the answer; empty while it is not complete."""
        self._read()
        _, begun, answer = self._said.partition(self._question)
        return _text(answer.partition(END)[0]) if begun and END in answer else ""

    def written(self) -> str:
        """Return the answer, or what the signal had written; empty while that may go on."""
        if answer := self.answered():
            return answer
        return _text(self._said) if self._said and time.monotonic() - self._heard_at >= SILENCE else ""

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while more := self._ours.recv(65_536):
                self._said += more
                self._heard_at = time.monotonic()
            self.over = True


def collect(lines: Mapping[int, Line], send: Callable[[Set[int]], object]) -> dict[int, str]:
    """Ask on these lines, and return by process ids what the children tell; nothing of those that cannot.

    ``send`` has processes sent :func:`asking_signal`. Takes twice :data:`PATIENCE` at the longest.
    """
    for line in lines.values():
        line.ask()
    found = _gather(lines, Line.answered)
    if silent := {pid: line for pid, line in lines.items() if pid not in found and not line.over}:
        send(silent.keys())
        found |= _gather(silent, Line.written)
    return found


def _gather(lines: Mapping[int, Line], heard: Callable[[Line], str]) -> dict[int, str]:
    """Return what is heard on each line until all have said something, or :data:`PATIENCE` is over."""
    until = time.monotonic() + PATIENCE
    found: dict[int, str] = {}
    while waiting := {pid: line for pid, line in lines.items() if pid not in found and not line.over}:
        if time.monotonic() >= until:
            break
        select.select(list(waiting.values()), [], [], SILENCE)
        found |= {pid: text for pid, line in waiting.items() if (text := heard(line))}
    return found


def _text(said: bytes) -> str:
    return said.decode(errors="replace").strip()[:MOST]
