"""Ending a child with all that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

#: Seconds in which a process that was sent SIGSTOP stands still.
STOPPED_WITHIN = 0.5


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_family(pid: int) -> None:
    """SIGKILL to a child, its process group, and on Linux to what it started in sessions of their own."""
    family = _below(pid)
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        send(pid, signal.SIGKILL)
    for member in family:
        send(member, signal.SIGKILL)


def stop(pid: int) -> None:
    """SIGSTOP to a child of this process; return once it stands still, or has ended, or after half a second."""
    send(pid, signal.SIGSTOP)
    if not hasattr(os, "waitid"):  # macOS
        time.sleep(0.01)
        return
    until = time.monotonic() + STOPPED_WITHIN
    while time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            # WNOWAIT: whoever collects the dead shall hear of it, too.
            if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
        time.sleep(0.001)


def go_on(pid: int) -> None:
    """SIGCONT to a child that was stopped."""
    send(pid, signal.SIGCONT)


def _below(pid: int) -> list[int]:
    """Return the living descendants of a process; nothing where the system has no ``/proc``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in the second field, in parentheses, may hold anything.
            children.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
