"""CPU time and memory of whole process trees, and worker processes that are started and ended with a run. Linux only.

Uses the standard library alone: the peers' environment runs it, too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class WorkerFailed(RuntimeError):
    """A worker ended, or did nothing more, before its work was done."""


def tree(roots: Iterable[int]) -> list[int]:
    """Return the ids of the living processes among ``roots`` and of all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            children.setdefault(int(stat[1]), []).append(int(entry))
    found = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if _stat(pid):
            found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the CPU time, user and system, that these process trees have used so far, in seconds.

    Living processes are read to the nanosecond; those that ended count, by 10 ms, through the parent that reaped them.
    """
    total = 0.0
    for pid in tree(roots):
        stat = _stat(pid)
        try:
            # The kernel's per-process CPU clock; the same number that clock_getcpuclockid(3) makes of a process id.
            total += time.clock_gettime((~pid << 3) | 2)
        except OSError:
            continue
        if stat:
            total += (int(stat[13]) + int(stat[14])) / _TICKS_PER_SECOND
    return total


def memory_bytes(roots: Iterable[int]) -> dict[str, int]:
    """Return ``rss`` and ``pss`` of these process trees in bytes; PSS counts a page of n processes as 1/n in each."""
    sums = {"rss": 0, "pss": 0}
    for pid in tree(roots):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, rest = line.partition(":")
            if key.lower() in sums:
                sums[key.lower()] += int(rest.split()[0]) * 1024
    return sums


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/<pid>/stat`` after the name: [0] state, [1] parent, [11..14] CPU ticks."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


class Workers:
    """Worker processes of one contestant, with what they print in a file for the case that they fail."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]], log: IO[bytes]) -> None:
        self._processes = processes
        self._log = log

    @property
    def pids(self) -> list[int]:
        """The roots of the worker's process trees."""
        return [process.pid for process in self._processes]

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout: float, every: float = 0.02) -> None:
        """Poll ``condition`` each ``every`` seconds.

        Raises WorkerFailed when a worker ends, or when ``timeout`` seconds pass without it coming true.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            ended = [process.args for process in self._processes if process.poll() is not None]
            if ended:
                raise WorkerFailed(f"A worker ended before {what}: {ended[0]!r}\n{self._tail()}")
            if time.monotonic() > deadline:
                raise WorkerFailed(f"{what} did not come about within {timeout:g} s\n{self._tail()}")
            time.sleep(every)

    def _tail(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-30:])


@contextmanager
def running(commands: Sequence[Sequence[str]]) -> Iterator[Workers]:
    """Start a worker of one or more commands and end it afterwards: SIGTERM, after 15 seconds SIGKILL to its group."""
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        processes = []
        for command in commands:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(_end, process)
            processes.append(process)
        yield Workers(processes, log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what a worker that was killed left behind
    process.wait()
